//! A proxy before a NameNode that breaks chosen calls. It reads the length of each message and looks for the call's name in it.

use parking_lot::Mutex;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
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

/// What one connection's two directions tell each other.
#[derive(Debug, Default)]
struct Broken {
    lose_answer: bool,
    late: bool,
}

async fn serve(client: TcpStream, upstream: SocketAddr, state: Arc<Mutex<State>>) -> io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = TcpStream::connect(upstream).await?.into_split();
    let broken = Mutex::new(Broken::default());
    // Either ends the connection for both.
    tokio::select! {
        ended = ask(from_client, to_server, &state, &broken) => ended,
        ended = answer(from_server, to_client, &state, &broken) => ended,
    }
}

async fn ask(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &Mutex<State>,
    broken: &Mutex<Broken>,
) -> io::Result<()> {
    // "hrpc", version, service class, authentication.
    let mut hello = [0; 7];
    from.read_exact(&mut hello).await?;
    to.write_all(&hello).await?;
    loop {
        let message = message(&mut from).await?;
        match decide(&message, state) {
            None => {}
            Some(Break::LostAnswer) => broken.lock().lose_answer = true,
            Some(Break::Late(by)) => {
                tokio::time::sleep(by).await;
                broken.lock().late = true;
            }
        }
        to.write_all(&message).await?;
    }
}

async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &Mutex<State>,
    broken: &Mutex<Broken>,
) -> io::Result<()> {
    loop {
        let message = message(&mut from).await?;
        if broken.lock().lose_answer {
            return Ok(());
        }
        if std::mem::take(&mut broken.lock().late) {
            state.lock().arrived += 1;
        }
        to.write_all(&message).await?;
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
