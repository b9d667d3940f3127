//! A proxy before a NameNode that breaks chosen calls. It reads the length of each message and looks for the call's name in it.

use parking_lot::Mutex;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    task::{JoinHandle, JoinSet},
};

/// What happens to a call.
#[derive(Clone, Debug)]
pub(super) enum Break {
    /// The NameNode does it, and the connection ends without an answer.
    LostAnswer,
    /// It reaches the NameNode this much later.
    Late(Duration),
}

#[derive(Debug, Default)]
struct State {
    rule: Option<(&'static str, Break)>,
    hits: u64,
    /// Late calls that have reached the NameNode.
    arrived: u64,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
    // Owned here alone: dropping the proxy ends the task and with it every connection.
    accept: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, upstream, Arc::clone(&shared)));
            }
        });
        Self { address, state, accept }
    }

    /// Breaks the next call of this name.
    pub(super) fn break_next(&self, call: &'static str, breaks: Break) {
        self.state.lock().rule = Some((call, breaks));
    }

    pub(super) fn hits(&self) -> u64 {
        self.state.lock().hits
    }

    pub(super) fn arrived(&self) -> u64 {
        self.state.lock().arrived
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn serve(client: TcpStream, upstream: SocketAddr, state: Arc<Mutex<State>>) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(upstream).await?.into_split();
    // "hrpc", version, service class, authentication.
    let mut hello = [0; 7];
    from_client.read_exact(&mut hello).await?;
    to_server.write_all(&hello).await?;
    loop {
        tokio::select! {
            // Cut short, a message would be lost: both halves are read message by message, and each begins only when bytes wait.
            ready = from_client.readable() => {
                ready?;
                let message = message(&mut from_client).await?;
                match decide(&message, &state) {
                    None => to_server.write_all(&message).await?,
                    Some(Break::LostAnswer) => {
                        to_server.write_all(&message).await?;
                        self::message(&mut from_server).await?;
                        return Ok(());
                    }
                    Some(Break::Late(by)) => {
                        tokio::time::sleep(by).await;
                        to_server.write_all(&message).await?;
                        let answer = self::message(&mut from_server).await?;
                        state.lock().arrived += 1;
                        to_client.write_all(&answer).await?;
                    }
                }
            }
            ready = from_server.readable() => {
                ready?;
                to_client.write_all(&message(&mut from_server).await?).await?;
            }
        }
    }
}

/// One message with its length.
async fn message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message).await?;
    let len = u32::from_be_bytes(message[..4].try_into().expect("four bytes"));
    message.resize(4 + len as usize, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(message)
}

fn decide(message: &[u8], state: &Mutex<State>) -> Option<Break> {
    let mut state = state.lock();
    let named = |call: &str| message.windows(call.len()).any(|bytes| bytes == call.as_bytes());
    let (_, breaks) = state.rule.take_if(|(call, _)| named(call))?;
    state.hits += 1;
    Some(breaks)
}
