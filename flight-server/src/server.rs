//! Listeners, TLS, connections and drain: from settings to doors that answer.
//!
//! It owns sockets and how long they live. It does not own what is said on them: [`crate::service`] speaks Flight,
//! [`crate::http`] the pages.

mod authority;
mod connections;
mod listen;
mod settings;
mod tls;

pub use settings::{Listen, ServerSettings, StartError, TlsSettings};

use crate::{
    Folders,
    auth::Auth,
    http::{self, metrics},
    service::{Door, Peer},
};
pub(crate) use connections::Call;
use connections::Connections;
use forebay_runtime::{clock::RealClock, task::Tasks};
use forebay_writeback::Cache;
use futures::{FutureExt, future::BoxFuture};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use listen::{Accepted, Listener, Stream};
use std::{sync::Arc, time::Duration};
use tls::{Acceptor, Tls};
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// What the receiver of large batches wants: fewer, larger frames; more than 1 MiB loses again to cache misses.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Bytes of one call under way to us, and of one connection. Fixed: hyper's adaptive window starts at 64 KiB and ends at 16 MiB.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Bytes of one call that wait to be sent.
const SEND_BUFFER_BYTES: usize = 4 << 20;
/// Calls at once on one connection.
const STREAMS_MAX: u32 = 256;
/// Metadata of one call.
const HEADERS_BYTES_MAX: u32 = 64 << 10;
/// A peer that is silent this long is asked for a sign of life, and cut off when it gives none.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A TLS handshake that takes longer than this is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// An HTTP/1 request head that takes longer than this is given up.
const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept that failed (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Running doors. Dropped without [`Server::shutdown`] they end with the runtime.
#[derive(Debug)]
pub struct Server {
    /// `grpc://127.0.0.1:47470`, `grpc+tls://…` or `grpc+unix:///path`: where a Flight client connects.
    pub flight_url: String,
    /// `http://127.0.0.1:47471` or `https://…`.
    pub http_url: String,
    tasks: Tasks,
    door: Arc<Door>,
}

impl Server {
    /// Binds and serves. With port 0 the URLs say which ports it got.
    ///
    /// # Errors
    /// What keeps a door shut: a bind that others can reach without TLS or without anything to tell users by, an address in use,
    /// a file of users, certificates or keys that does not read.
    pub fn start(
        cache: Cache,
        settings: ServerSettings,
        folders: Arc<dyn Folders>,
    ) -> BoxFuture<'static, Result<Server, StartError>> {
        // In a box the doors are compiled with this crate, not with each program that opens them.
        Self::started(cache, settings, folders).boxed()
    }

    async fn started(cache: Cache, settings: ServerSettings, folders: Arc<dyn Folders>) -> Result<Server, StartError> {
        settings.check()?;
        metrics::install();
        let clock = RealClock::shared();
        let tls = settings
            .tls
            .as_ref()
            .map(|files| Tls::load(files, settings.users.is_some()));
        let tls = tls.transpose()?;
        let auth = Auth::load(&settings, Arc::clone(&clock))?;
        let tasks = Tasks::new("doors");
        let door = Arc::new(Door::open(cache, auth, clock, tasks.clone(), &settings.data, folders).await?);

        let flight = Listener::bind(&settings.listen).await?;
        let pages = Listener::bind(&settings.http).await?;
        let secure = tls.is_some();
        let (flight_url, http_url) = (flight.flight_url(secure), pages.http_url(secure));
        info!(flight = flight_url, http = http_url, "doors open");

        let connections = Connections::new(metrics::handles().connections.clone());
        let (for_flight, for_pages) = (Arc::clone(&door), Arc::clone(&door));
        let speaking = |protocol: &[u8]| tls.as_ref().map(|tls| tls.speaking(protocol));
        let (c, t) = (connections.clone(), speaking(b"h2"));
        tasks.spawn(
            "flight",
            accept(tasks.clone(), flight, c, t, move |accepted| {
                serve_flight(Arc::clone(&for_flight), accepted)
            }),
        );
        let router = http::router(for_pages, secure);
        tasks.spawn(
            "http",
            accept(
                tasks.clone(),
                pages,
                connections,
                speaking(b"http/1.1"),
                move |accepted| serve_pages(router.clone(), accepted),
            ),
        );
        Ok(Server {
            flight_url,
            http_url,
            tasks,
            door,
        })
    }

    /// Closes the doors: no new connections, followers are told to come back, calls under way may end within `drain`; what then
    /// still runs is cut off and leaves nothing half visible. [`Cache::shutdown`] is to follow: what a put into a named session had
    /// acknowledged stays part of the session.
    pub async fn shutdown(self, drain: Duration) {
        self.door.drain();
        if timeout(drain, self.tasks.drain(Duration::MAX)).await.is_ok() {
            return;
        }
        self.door.cache.shutdown_soon();
        if let Err(stuck) = self.tasks.drain(Duration::ZERO).await {
            warn!(after = ?drain, waiting = stuck.waiting.join(", "), "calls were cut off");
        }
    }
}

/// A connection on which something may be said.
struct Ready {
    stream: Stream,
    peer: Peer,
    lease: connections::Lease,
    tasks: Tasks,
}

/// Accepts until shutdown; each connection is a task that ends with it.
async fn accept<F, Fut>(tasks: Tasks, listener: Listener, connections: Connections, tls: Option<Acceptor>, serve: F)
where
    F: Fn(Ready) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let shutdown = tasks.shutdown().clone();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely out of descriptors: an idle connection gives one back.
                warn!(%error, closed = connections.close_idlest(), "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let lease = connections.enter();
        let (tls, serve, tasks) = (tls.clone(), serve.clone(), tasks.clone());
        let set = tasks.clone();
        set.spawn("connection", async move {
            if let Some(ready) = greet(accepted, lease, tls, tasks).await {
                serve(ready).await;
            }
        });
    }
}

/// The TLS handshake, where there is TLS.
async fn greet(accepted: Accepted, lease: connections::Lease, tls: Option<Acceptor>, tasks: Tasks) -> Option<Ready> {
    let Accepted { stream, from } = accepted;
    let (stream, certificate) = match tls {
        None => (stream, None),
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => {
                debug!(from, %error, "TLS handshake failed");
                return None;
            }
            Err(_) => return None,
        },
    };
    let peer = Peer { from, certificate };
    Some(Ready {
        stream,
        peer,
        lease,
        tasks,
    })
}

async fn serve_flight(door: Arc<Door>, ready: Ready) {
    let Ready {
        stream,
        peer,
        lease,
        tasks,
    } = ready;
    let peer = Arc::new(peer);
    let calls = lease.calls();
    let service = service_fn(move |request| {
        let (door, peer, call) = (Arc::clone(&door), Arc::clone(&peer), calls.begin());
        async move { Ok::<_, std::convert::Infallible>(door.answer(&peer, request, call).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_frame_size(FRAME_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = lease.closed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = tasks.shutdown().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a Flight connection broke");
    }
}

async fn serve_pages(router: axum::Router, ready: Ready) {
    let Ready {
        stream,
        peer,
        lease,
        tasks,
    } = ready;
    let calls = lease.calls();
    let peer = Arc::new(peer);
    let service = service_fn(move |request: ::http::Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        let (router, call) = (router.clone(), calls.begin());
        request.extensions_mut().insert(Arc::clone(&peer));
        async move {
            // The connection is busy until the last byte of the answer has gone.
            let answer = tower::ServiceExt::oneshot(router, request).await;
            answer.map(|answer| answer.map(|body| call.until_sent(body)))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = lease.closed() => return,
        () = tasks.shutdown().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection broke");
    }
}
