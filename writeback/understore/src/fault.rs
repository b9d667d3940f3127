//! A small HTTP/1.1 proxy that stands before a real S3 and breaks the network on demand: for the suites that test against one.
//!
//! It answers one request per connection, holds bodies in memory, and counts which faults hit, so that a test can prove that its
//! fault happened. It is no part of the running product.

use parking_lot::Mutex;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 64 << 20;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Break {
    /// This status with an S3 error document of this code, without asking upstream.
    Status(u16, &'static str),
    /// As `Status`, after upstream did what was asked.
    StatusAfter(u16, &'static str),
    /// The connection ends after this many bytes of the request's body; nothing reaches upstream.
    ResetAfter(usize),
    /// No answer, ever; nothing reaches upstream.
    Hang,
    /// Upstream does what was asked, and the connection ends without an answer.
    LostAnswer,
    /// 200 with an error document; upstream does what was asked when true.
    ErrorBody(bool),
    /// The answer's body ends after this many bytes.
    ShortBody(usize),
    /// One bit of the answer's body is turned.
    FlippedBit,
    /// The answer comes this much later.
    Late(Duration),
}

/// Which requests break, and how.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Method, `*` for all.
    pub method: &'static str,
    /// What the target (path and query) must contain.
    pub contains: String,
    /// How many requests more it hits.
    pub times: u32,
    /// What happens.
    pub breaks: Break,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    hits: u64,
    requests: Vec<String>,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    // Owned here alone: dropping the proxy ends the task and with it every connection.
    accept: JoinHandle<()>,
}

impl FaultProxy {
    /// Listens on a free loopback port and forwards to `upstream`.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let accept = tokio::spawn(accept(listener, upstream, Arc::clone(&state)));
        Ok(Self { address, state, accept })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks the next `times` requests with this method whose target contains this text.
    pub fn break_next(&self, method: &'static str, contains: &str, times: u32, breaks: Break) {
        self.state.lock().rules.push(Rule {
            method,
            contains: contains.to_owned(),
            times,
            breaks,
        });
    }

    /// Forgets all rules.
    pub fn heal(&self) {
        self.state.lock().rules.clear();
    }

    /// How many requests were broken so far.
    pub fn hits(&self) -> u64 {
        self.state.lock().hits
    }

    /// The request lines seen so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, state: Arc<Mutex<State>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            if let Err(error) = serve(client, upstream, &state).await {
                tracing::debug!(%error, "fault proxy: connection ended");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A request: its head without the final empty line, and where its body begins.
struct Request {
    head: String,
    body: Vec<u8>,
    body_bytes: usize,
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, state: &Mutex<State>) -> io::Result<()> {
    let Some(mut request) = read_head(&mut client).await? else {
        return Ok(());
    };
    let breaks = decide(&request.head, state);
    match &breaks {
        Some(Break::Hang) => std::future::pending::<()>().await,
        Some(Break::ResetAfter(bytes)) => {
            let wanted = (*bytes).min(request.body_bytes);
            read_body(&mut client, &mut request, wanted).await?;
            // Unread bytes in the socket turn this close into a reset.
            return Ok(());
        }
        _ => {}
    }
    let wanted = request.body_bytes;
    read_body(&mut client, &mut request, wanted).await?;
    let answer = match &breaks {
        Some(Break::Status(status, code)) => error_answer(*status, code),
        Some(Break::ErrorBody(false)) => error_answer(200, "InternalError"),
        _ => forward(&request, upstream).await?,
    };
    let answer = match breaks {
        Some(Break::LostAnswer) => return Ok(()),
        Some(Break::StatusAfter(status, code)) => error_answer(status, code),
        Some(Break::ErrorBody(true)) => error_answer(200, "InternalError"),
        Some(Break::ShortBody(bytes)) => {
            let begin = body_start(&answer);
            answer[..(begin + bytes).min(answer.len())].to_vec()
        }
        Some(Break::FlippedBit) => {
            let begin = body_start(&answer);
            let mut answer = answer;
            if let Some(byte) = answer.get_mut(begin) {
                *byte ^= 1;
            }
            answer
        }
        Some(Break::Late(by)) => {
            tokio::time::sleep(by).await;
            answer
        }
        _ => answer,
    };
    client.write_all(&answer).await?;
    client.shutdown().await
}

fn decide(head: &str, state: &Mutex<State>) -> Option<Break> {
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut state = state.lock();
    state.requests.push(line.to_owned());
    let hit = |rule: &&mut Rule| {
        rule.times > 0 && (rule.method == "*" || rule.method == method) && target.contains(&rule.contains)
    };
    let breaks = state.rules.iter_mut().find(hit).map(|rule| {
        rule.times -= 1;
        rule.breaks.clone()
    });
    state.hits += u64::from(breaks.is_some());
    breaks
}

async fn read_head(client: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("head too long"));
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>())
        });
    let body_bytes = length.transpose().map_err(io::Error::other)?.unwrap_or(0);
    if body_bytes > BODY_BYTES_MAX {
        return Err(io::Error::other("body too long"));
    }
    Ok(Some(Request {
        head,
        body: bytes.split_off(end + 4),
        body_bytes,
    }))
}

async fn read_body(client: &mut TcpStream, request: &mut Request, wanted: usize) -> io::Result<()> {
    while request.body.len() < wanted {
        if client.read_buf(&mut request.body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn forward(request: &Request, upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    let kept = request
        .head
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let head = kept.collect::<Vec<_>>().join("\r\n");
    server
        .write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    server.write_all(&request.body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn body_start(answer: &[u8]) -> usize {
    answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map_or(answer.len(), |at| at + 4)
}

fn error_answer(status: u16, code: &str) -> Vec<u8> {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by the fault proxy</Message></Error>");
    let head = format!(
        "HTTP/1.1 {status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}
