//! Answers of a gRPC call below any codec: bodies of frames, and trailers.
//!
//! Small pieces are joined until nothing more is at hand or a frame is full, so that many small batches cost few writes; a large
//! body goes out as the very bytes it is stored in. It does not own what the pieces are.

use crate::{error, service::calls::Observed};
use bytes::{Bytes, BytesMut};
use forebay_protocol::frame;
use futures::{FutureExt, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::{
    collections::VecDeque,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

/// Pieces smaller than this are joined with their neighbours: copying them is cheaper than a frame of their own.
const SMALL_BYTES: usize = 16 << 10;
/// Joined pieces go out at this size.
const JOINED_BYTES: usize = 64 << 10;

/// An answer.
pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What a call says while it runs.
#[derive(Debug)]
pub(crate) enum Said {
    /// A gRPC message with its prefix, in pieces.
    Message(Vec<Bytes>),
    /// Metadata to send with the status when the call ends well.
    Trailers(HeaderMap),
}

impl Said {
    /// A whole protobuf message.
    pub(crate) fn message(message: &impl prost::Message) -> Result<Self, Status> {
        let body = message.encode_to_vec();
        let prefix = frame::prefix(body.len()).map_err(error::frame)?;
        Ok(Self::Message(vec![Bytes::copy_from_slice(&prefix), body.into()]))
    }
}

/// When a call ends before it is done.
pub(crate) struct Bounds {
    /// The client's deadline.
    pub(crate) deadline: Option<Instant>,
    /// Ends the call with UNAVAILABLE.
    pub(crate) stop: Option<CancellationToken>,
}

/// An answer that is a status and nothing else. A client reads it from the headers ("trailers only").
pub(crate) fn refusal(status: &Status) -> Reply {
    let mut reply = Response::new(http_body_util::Empty::new().boxed_unsync());
    *reply.headers_mut() = trailers(status, HeaderMap::new());
    reply.headers_mut().insert(CONTENT_TYPE, GRPC);
    reply
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// An answer that says what `said` says, until it ends, fails or reaches its bounds. A panic in it is INTERNAL.
pub(crate) fn stream<S>(headers: HeaderMap, said: S, bounds: Bounds, call: Observed) -> Reply
where
    S: Stream<Item = Result<Said, Status>> + Send + 'static,
{
    let said = AssertUnwindSafe(said)
        .catch_unwind()
        .map(|said| said.unwrap_or_else(|_| Err(error::panicked())));
    let body = Outbox {
        said: said.boxed(),
        deadline: bounds.deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
        stop: bounds.stop.map(|stop| Box::pin(stop.cancelled_owned())),
        small: BytesMut::new(),
        ready: VecDeque::new(),
        extra: HeaderMap::new(),
        end: End::Open,
        call,
    };
    let mut reply = Response::new(body.boxed_unsync());
    *reply.headers_mut() = headers;
    reply.headers_mut().insert(CONTENT_TYPE, GRPC);
    reply
}

/// The status, and `extra` metadata, as trailers.
fn trailers(status: &Status, extra: HeaderMap) -> HeaderMap {
    let mut map = extra;
    if let Err(unwritable) = status.add_header(&mut map) {
        // A text of bytes that no header can hold; its code still says what to do.
        map.insert("grpc-status", HeaderValue::from(unwritable.code() as i32));
    }
    map
}

/// A body made of what a call says.
struct Outbox<S> {
    said: S,
    deadline: Option<Pin<Box<Sleep>>>,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    small: BytesMut,
    ready: VecDeque<Bytes>,
    extra: HeaderMap,
    end: End,
    call: Observed,
}

enum End {
    Open,
    With(Status),
    Said,
}

impl<S: Stream<Item = Result<Said, Status>> + Unpin> Outbox<S> {
    fn push(&mut self, piece: Bytes) {
        if piece.len() >= SMALL_BYTES {
            self.flush();
            self.ready.push_back(piece);
            return;
        }
        self.small.extend_from_slice(&piece);
        if self.small.len() >= JOINED_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.ready.push_back(self.small.split().freeze());
        }
    }

    fn end(&mut self, status: Status) {
        self.flush();
        self.end = End::With(status);
    }

    /// What the call says next, or that its time is up.
    fn poll_said(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Said, Status>>> {
        if self.deadline.as_mut().is_some_and(|at| at.poll_unpin(cx).is_ready()) {
            let text = "the call's deadline passed; whether a write was committed is told to whoever repeats it with its token";
            return Poll::Ready(Some(Err(error::status(Code::DeadlineExceeded, text))));
        }
        if self.stop.as_mut().is_some_and(|stop| stop.poll_unpin(cx).is_ready()) {
            return Poll::Ready(Some(Err(error::shutting_down())));
        }
        self.said.poll_next_unpin(cx)
    }

    fn take(&mut self, said: Option<Result<Said, Status>>) {
        match said {
            Some(Ok(Said::Message(pieces))) => pieces.into_iter().for_each(|piece| self.push(piece)),
            Some(Ok(Said::Trailers(more))) => self.extra.extend(more),
            Some(Err(status)) => {
                // What belongs to a call that ended well is not said of one that did not.
                self.extra = HeaderMap::new();
                self.end(status);
            }
            None => self.end(Status::new(Code::Ok, "")),
        }
    }
}

impl<S: Stream<Item = Result<Said, Status>> + Unpin> http_body::Body for Outbox<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                this.call.sent(bytes.len());
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match std::mem::replace(&mut this.end, End::Said) {
                End::Open => this.end = End::Open,
                End::With(status) => {
                    this.call.ended(status.code());
                    let trailers = trailers(&status, std::mem::take(&mut this.extra));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                End::Said => return Poll::Ready(None),
            }
            if this.small.is_empty() {
                let said = ready!(this.poll_said(cx));
                this.take(said);
            } else {
                match this.poll_said(cx) {
                    Poll::Ready(said) => this.take(said),
                    Poll::Pending => this.flush(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn piece(len: usize, fill: u8) -> Bytes {
        vec![fill; len].into()
    }

    async fn frames(reply: Reply) -> (Vec<Bytes>, HeaderMap) {
        let (mut data, mut told) = (vec![], HeaderMap::new());
        let mut body = reply.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            match frame.into_data() {
                Ok(bytes) => data.push(bytes),
                Err(frame) => told = frame.into_trailers().unwrap(),
            }
        }
        (data, told)
    }

    fn open() -> Bounds {
        Bounds {
            deadline: None,
            stop: None,
        }
    }

    fn says(said: Vec<Result<Said, Status>>) -> Reply {
        stream(HeaderMap::new(), stream::iter(said), open(), Observed::unseen())
    }

    #[tokio::test]
    async fn small_pieces_are_joined_and_large_ones_go_as_they_are() {
        let large = piece(SMALL_BYTES, 7);
        let said = vec![
            Ok(Said::Message(vec![piece(5, 1), piece(10, 2)])),
            Ok(Said::Message(vec![piece(5, 3), large.clone()])),
            Ok(Said::Message(vec![piece(1, 4)])),
        ];
        let (data, told) = frames(says(said)).await;
        assert_eq!(data.iter().map(Bytes::len).collect::<Vec<_>>(), [20, SMALL_BYTES, 1]);
        assert_eq!(data[1].as_ptr(), large.as_ptr(), "the large piece is not copied");
        assert_eq!(told["grpc-status"], "0");
    }

    #[tokio::test]
    async fn what_was_said_goes_out_before_a_wait() {
        let first = stream::iter([Ok(Said::Message(vec![piece(9, 1)]))]);
        let reply = stream(
            HeaderMap::new(),
            first.chain(stream::pending()),
            open(),
            Observed::unseen(),
        );
        let mut body = reply.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 9);
    }

    #[tokio::test]
    async fn an_error_follows_what_was_said_and_takes_the_place_of_good_news() {
        let mut news = HeaderMap::new();
        news.insert("forebay-version", "3".parse().unwrap());
        let said = |last: Option<Status>| {
            let mut said = vec![Ok(Said::Message(vec![piece(9, 1)])), Ok(Said::Trailers(news.clone()))];
            said.extend(last.map(Err));
            says(said)
        };
        let (data, told) = frames(said(Some(Status::aborted("lost: ü\n")))).await;
        assert_eq!((data.len(), &told["grpc-status"]), (1, &HeaderValue::from_static("10")));
        assert_eq!(told["grpc-message"], "lost:%20%C3%BC%0A");
        assert!(!told.contains_key("forebay-version"));
        assert_eq!(frames(said(None)).await.1["forebay-version"], "3");
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let said = stream::iter([1, 2]).map(|n| {
            if n == 2 {
                panic!("on purpose")
            } else {
                Ok(Said::Message(vec![piece(1, 1)]))
            }
        });
        let (data, told) = frames(stream(HeaderMap::new(), said, open(), Observed::unseen())).await;
        assert_eq!((data.len(), &told["grpc-status"]), (1, &HeaderValue::from_static("13")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_and_a_shutdown_end_a_quiet_call() {
        let quiet = || stream::pending::<Result<Said, Status>>();
        let bounds = Bounds {
            deadline: Some(Instant::now() + std::time::Duration::from_secs(5)),
            stop: None,
        };
        let (_, told) = frames(stream(HeaderMap::new(), quiet(), bounds, Observed::unseen())).await;
        assert_eq!(told["grpc-status"], "4");
        let stop = CancellationToken::new();
        let bounds = Bounds {
            deadline: None,
            stop: Some(stop.clone()),
        };
        let reply = stream(HeaderMap::new(), quiet(), bounds, Observed::unseen());
        stop.cancel();
        assert_eq!(frames(reply).await.1["grpc-status"], "14");
    }

    #[test]
    fn a_refusal_is_told_in_the_headers() {
        let reply = refusal(&Status::not_found("no /x"));
        assert_eq!(
            (&reply.headers()["grpc-status"], &reply.headers()["content-type"]),
            (&"5".parse().unwrap(), &GRPC)
        );
    }
}
