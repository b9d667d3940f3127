//! The Flight service: from an HTTP/2 request to the verb it names. Each verb is a file of its own below; here is only what all
//! share: who asks, until when, and what becomes of a panic.

mod action;
pub(crate) mod calls;
pub(crate) mod engine;
mod get;
mod handshake;
mod incoming;
mod info;
mod list;
mod poll;
mod put;
mod sessions;
pub(crate) mod view;

use crate::{
    Folders,
    auth::{Auth, Principal},
    error,
    owners::Owners,
    reply::{self, Bounds, Reply, Said},
    server::StartError,
    tickets::Office,
};
use calls::{Method, Observed};
use forebay_runtime::{budget::Budget, clock::ClockRef, task::Tasks};
use forebay_writeback::{Cache, Path as CachePath, owners::OwnerKind};
use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderMap, Request};
use hyper::body::Incoming as Body;
use incoming::Incoming;
use std::{panic::AssertUnwindSafe, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::Instrument;
use view::Views;

/// Bytes of unfinished messages that all calls together may hold.
const UNFINISHED_BYTES_MAX: u64 = 1 << 30;
/// Longest deadline that is kept exactly; a longer one is none.
const DEADLINE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address, for logs.
    pub(crate) from: String,
    /// The common name of its verified certificate.
    pub(crate) certificate: Option<String>,
}

/// What all verbs share.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) cache: Cache,
    pub(crate) auth: Auth,
    pub(crate) folders: Arc<dyn Folders>,
    pub(crate) owners: Owners,
    office: Office,
    views: Views,
    tasks: Tasks,
    unfinished: Budget,
    draining: CancellationToken,
}

/// What a verb answers.
pub(crate) struct Answer {
    headers: HeaderMap,
    said: BoxStream<'static, Result<Said, Status>>,
    /// Whether it may go on for ever, and so is ended when the server drains.
    endless: bool,
}

impl Answer {
    /// One message.
    fn one(message: &impl prost::Message) -> Result<Self, Status> {
        let said = Said::message(message)?;
        Ok(Self::many(stream::iter([Ok(said)])))
    }

    /// What a stream says.
    fn many(said: impl futures::Stream<Item = Result<Said, Status>> + Send + 'static) -> Self {
        Self {
            headers: HeaderMap::new(),
            said: said.boxed(),
            endless: false,
        }
    }

    fn endless(mut self) -> Self {
        self.endless = true;
        self
    }
}

/// A call: who asks, and what they send.
struct Call {
    principal: Principal,
    messages: Incoming,
}

impl Door {
    pub(crate) async fn open(
        cache: Cache,
        auth: Auth,
        clock: ClockRef,
        tasks: Tasks,
        data: &Path,
        folders: Arc<dyn Folders>,
    ) -> Result<Self, StartError> {
        let office = Office::open(data, clock).await?;
        Ok(Self {
            owners: Owners::new(cache.clone()),
            cache,
            auth,
            folders,
            office,
            views: Views::new(),
            tasks,
            unfinished: Budget::new("unfinished messages", UNFINISHED_BYTES_MAX),
            draining: CancellationToken::new(),
        })
    }

    /// From now on nothing that could go on for ever does.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether new calls are welcome.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// The tasks of the doors.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Who owns what the caller creates at `path`: nobody by name, unless it counts there. Files without an owner of their own have
    /// smaller rows, and objects without attributes.
    async fn owner(&self, by: &Principal, path: &CachePath) -> Result<Option<u32>, Status> {
        if by.name().is_empty() || !self.cache.counts_users(path) {
            return Ok(None);
        }
        let owner = self.owners.number(OwnerKind::User, by.name()).await;
        owner.map(Some).map_err(error::engine)
    }

    /// Gives out and recognises tickets and tokens.
    pub(crate) fn office(&self) -> &Office {
        &self.office
    }

    /// Answers one request. It never fails: what goes wrong is the answer.
    pub(crate) async fn answer(
        self: Arc<Self>,
        peer: &Peer,
        request: Request<Body>,
        connection: crate::server::Call,
    ) -> Reply {
        let Some(method) = Method::of(request.uri().path()) else {
            let text = format!("there is no {}", crop(request.uri().path()));
            return reply::refusal(&error::status(Code::Unimplemented, &text));
        };
        let mut observed = Observed::begin(method, Some(connection));
        let span = tracing::info_span!(
            "call",
            method = method.name(),
            from = peer.from,
            by = tracing::field::Empty
        );
        let deadline = deadline(request.headers(), Instant::now());
        let run = AssertUnwindSafe(Arc::clone(&self).begin(peer, method, request))
            .catch_unwind()
            .instrument(span);
        let begun = match deadline {
            None => run.await,
            Some(at) => timeout_at(at, run).await.unwrap_or_else(|_| {
                let text = "the call's deadline passed before it could be answered";
                Ok(Err(error::status(Code::DeadlineExceeded, text)))
            }),
        };
        match begun.unwrap_or_else(|_| Err(error::panicked())) {
            Ok(Answer { headers, said, endless }) => {
                let stop = endless.then(|| self.draining.clone());
                reply::stream(headers, said, Bounds { deadline, stop }, observed)
            }
            Err(status) => {
                told_off(peer, method, &status);
                observed.ended(status.code());
                reply::refusal(&status)
            }
        }
    }

    /// Finds out who asks, and hands the call to its verb.
    async fn begin(self: Arc<Self>, peer: &Peer, method: Method, request: Request<Body>) -> Result<Answer, Status> {
        let (head, body) = request.into_parts();
        if head.method != http::Method::POST || !is_grpc(&head.headers) {
            return Err(error::wrong("a Flight call is a POST of content-type application/grpc"));
        }
        let messages = Incoming::new(body, self.unfinished.clone());
        if method == Method::Handshake {
            return handshake::handshake(self, &head.headers, messages).await;
        }
        let principal = self
            .auth
            .identify(&self.office, &head.headers, peer.certificate.as_deref())?;
        tracing::Span::current().record("by", principal.name());
        let call = Call { principal, messages };
        match method {
            Method::Handshake => unreachable!("answered above"),
            Method::ListFlights => list::flights(self, call).await,
            Method::GetFlightInfo => info::info(self, call).await,
            Method::PollFlightInfo => poll::poll(self, call).await,
            Method::GetSchema => info::schema(self, call).await,
            Method::DoGet => get::get(self, call).await,
            Method::DoPut => put::put(self, call).await,
            Method::DoExchange => Err(error::status(
                Code::Unimplemented,
                "DoExchange is not offered; DoPut and DoGet are",
            )),
            Method::DoAction => action::action(self, call).await,
            Method::ListActions => action::list(),
        }
    }

    /// Waits for what may take for ever, but not beyond the beginning of a drain.
    async fn unless_draining<T>(&self, wait: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let ended = self.draining.run_until_cancelled(wait).await;
        ended.unwrap_or_else(|| Err(error::shutting_down()))
    }

    /// Runs `work` to its end even when the client goes away: an operation that has begun to change something finishes its own
    /// book-keeping. A panic in it is INTERNAL.
    async fn finish<T, F>(&self, name: &'static str, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let (done, told) = oneshot::channel();
        self.tasks.spawn(name, async move {
            let ended = AssertUnwindSafe(work)
                .catch_unwind()
                .await
                .unwrap_or_else(|_| Err(error::panicked()));
            // The client may be gone; the work is done all the same.
            let _ = done.send(ended);
        });
        told.await.unwrap_or_else(|_| Err(error::shutting_down()))
    }
}

/// A refusal in the log; one for who asked is worth a line by default, so that a guess at tokens or tickets is seen.
fn told_off(peer: &Peer, method: Method, status: &Status) {
    let (code, text, method) = (status.code(), status.message(), method.name());
    match code {
        Code::Unauthenticated | Code::PermissionDenied => {
            tracing::info!(from = peer.from, method, ?code, text, "denied");
        }
        _ => tracing::debug!(from = peer.from, method, ?code, text, "refused"),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The client's deadline: `grpc-timeout`, at most eight digits and a unit.
fn deadline(headers: &HeaderMap, now: Instant) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = number.parse::<u64>().ok().filter(|_| number.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    (timeout <= DEADLINE_MAX).then(|| now + timeout)
}

/// The first part of a text that came from outside.
pub(crate) fn crop(text: &str) -> &str {
    text.char_indices().nth(120).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_read_as_grpc_writes_them() {
        let now = Instant::now();
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline(&headers, now).map(|at| at - now)
        };
        for (text, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("20S", Duration::from_secs(20)),
            ("19999m", Duration::from_millis(19999)),
            ("5u", Duration::from_micros(5)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(read(text), Some(timeout), "{text}");
        }
        for text in ["", "S", "5", "-5S", "123456789S", "99999999H", "5s", "5ü"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(deadline(&HeaderMap::new(), now), None);
    }
}
