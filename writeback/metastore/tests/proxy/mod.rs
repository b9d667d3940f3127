//! A TCP proxy that loses answers: it lets a request through, waits until the server has answered, and breaks the connection
//! instead of passing the answer on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    to_lose: AtomicU32,
    lost: AtomicU32,
    refuse: AtomicBool,
}

impl Proxy {
    /// Passes on to a port of this machine.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let theirs = Arc::clone(&state);
        // Ends with the test's runtime.
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if !theirs.refuse.load(Ordering::SeqCst) {
                    tokio::spawn(pass(client, target, Arc::clone(&theirs)));
                }
            }
        });
        Self { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// So many of the next answers are lost, each with its connection.
    pub(crate) fn lose_answers(&self, count: u32) {
        self.state.to_lose.store(count, Ordering::SeqCst);
    }

    /// How many were lost.
    pub(crate) fn lost(&self) -> u32 {
        self.state.lost.load(Ordering::SeqCst)
    }

    pub(crate) fn refuse_new_connections(&self, refuse: bool) {
        self.state.refuse.store(refuse, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, target: u16, state: Arc<State>) {
    let mut server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
    let (mut from_client, mut from_server) = ([0; 16 << 10], [0; 16 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read {
                Ok(count @ 1..) => server.write_all(&from_client[..count]).await.unwrap(),
                _ => return,
            },
            read = server.read(&mut from_server) => match read {
                Ok(count @ 1..) => {
                    let lose = |left: u32| left.checked_sub(1);
                    if state.to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
                        state.lost.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    client.write_all(&from_server[..count]).await.unwrap();
                }
                _ => return,
            },
        }
    }
}
