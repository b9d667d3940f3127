//! What a client sends: gRPC messages from the frames of a request.
//!
//! Flow control is not reading: while nobody asks for the next message nothing is taken from the connection, and its windows close.
//! What a call holds of an unfinished message beyond a first free part counts against a budget that all calls share.

use crate::{error, http::metrics};
use bytes::Bytes;
use forebay_protocol::frame::{Caps, FlightMessage, Messages, Parser};
use forebay_runtime::budget::{Budget, Permit};
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Status};

/// A message that has begun must go on within this time, and a call must begin with one.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Bytes of an unfinished message that need no permit.
const FREE_BYTES: u64 = 1 << 20;
/// A message of a call that carries no batches.
const PLAIN_BYTES_MAX: usize = 16 << 20;
/// Of one FlightData message: what fits an Arrow batch that anyone should send, and far below what a gRPC length can say.
const CAPS: Caps = Caps {
    message: 512 << 20,
    header: 16 << 20,
    app_metadata: 1 << 20,
};

/// The messages of a call.
pub(super) struct Incoming {
    frames: Frames,
    parser: Parser,
}

/// The frames of a request, with what is held of them.
struct Frames {
    body: Body,
    unfinished: Budget,
    held_bytes: u64,
    permits: Option<Permit>,
}

impl Incoming {
    pub(super) fn new(body: Body, unfinished: Budget) -> Self {
        let frames = Frames {
            body,
            unfinished,
            held_bytes: 0,
            permits: None,
        };
        Self {
            frames,
            parser: Parser::new(CAPS),
        }
    }

    /// The next FlightData; `None` when the client has said all and well. An error when it broke off.
    pub(super) async fn next(&mut self) -> Result<Option<FlightMessage>, Status> {
        // The message before has been taken care of by now.
        self.frames.settle();
        loop {
            if let Some(message) = self.parser.next_message().map_err(error::frame)? {
                return Ok(Some(message));
            }
            let within = self.parser.finish().is_err();
            match self.frames.next(within).await? {
                Some(bytes) => self.parser.push(bytes),
                None => return self.parser.finish().map(|()| None).map_err(error::frame),
            }
        }
    }

    /// The first FlightData, which must come soon.
    pub(super) async fn first(&mut self) -> Result<Option<FlightMessage>, Status> {
        timeout(STALL_MAX, self.next()).await.unwrap_or_else(|_| Err(stalled()))
    }

    /// The only message of a call that takes one.
    pub(super) async fn only<M: prost::Message + Default>(self) -> Result<M, Status> {
        let mut messages = self.plain();
        let message = messages
            .next()
            .await?
            .ok_or_else(|| error::wrong("the call has no message"))?;
        M::decode(message).map_err(|e| error::wrong(format!("the call's message is not understood: {e}")))
    }

    /// The messages of a call that carries no batches.
    pub(super) fn plain(self) -> Plain {
        Plain {
            frames: self.frames,
            messages: Messages::new(PLAIN_BYTES_MAX),
        }
    }
}

/// The messages of a call that carries no batches.
pub(super) struct Plain {
    frames: Frames,
    messages: Messages,
}

impl Plain {
    /// The next message, whole.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.frames.settle();
        loop {
            if let Some(message) = self.messages.next_message().map_err(error::frame)? {
                return Ok(Some(message));
            }
            match self.frames.next(true).await? {
                Some(bytes) => self.messages.push(bytes),
                None => return self.messages.finish().map(|()| None).map_err(error::frame),
            }
        }
    }
}

impl Frames {
    /// The next bytes; within a message they must come soon.
    async fn next(&mut self, within: bool) -> Result<Option<Bytes>, Status> {
        loop {
            let frame = if within {
                timeout(STALL_MAX, self.body.frame()).await.map_err(|_| stalled())?
            } else {
                self.body.frame().await
            };
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|e| error::status(Code::Cancelled, &format!("the client broke off: {e}")))?;
            // Trailers of a request say nothing to us.
            if let Ok(bytes) = frame.into_data() {
                metrics::handles().received_bytes.increment(bytes.len() as u64);
                self.hold(bytes.len() as u64).await?;
                return Ok(Some(bytes));
            }
        }
    }

    /// Counts bytes of an unfinished message.
    async fn hold(&mut self, bytes: u64) -> Result<(), Status> {
        self.held_bytes += bytes;
        if self.held_bytes <= FREE_BYTES {
            return Ok(());
        }
        let more = timeout(STALL_MAX, self.unfinished.acquire(bytes)).await.map_err(|_| {
            let text = "too many large messages are under way at once; send smaller batches or retry";
            error::status(Code::ResourceExhausted, text)
        })?;
        match &mut self.permits {
            Some(held) => held.merge(more),
            None => self.permits = Some(more),
        }
        Ok(())
    }

    /// What was held has gone its way.
    fn settle(&mut self) {
        self.held_bytes = 0;
        self.permits = None;
    }
}

fn stalled() -> Status {
    let text = format!("nothing came for {} s in the middle of a message", STALL_MAX.as_secs());
    error::status(Code::DeadlineExceeded, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_protocol::frame::FrameError;

    #[test]
    fn a_message_beyond_the_cap_is_refused_before_it_comes() {
        let mut parser = Parser::new(CAPS);
        parser.push(Bytes::from_static(&[0, 0x20, 0, 0, 1]));
        assert!(matches!(parser.next_message(), Err(FrameError::TooLarge { .. })));
    }
}
