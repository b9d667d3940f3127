//! FlightData in gRPC framing, below tonic's codec: parsed from and written to DATA frames without touching the body.
//!
//! ```text
//! gRPC:     compressed u8 = 0 | length u32 (big-endian) | one protobuf message
//! protobuf: tag, length, bytes of each field: 1 descriptor, 2 data_header, 3 app_metadata, 1000 data_body
//! ```
//! [`Parser`] takes the frames of a stream as they come and gives messages whose bodies are slices of those frames; [`head`]
//! gives everything of a message that precedes its body, so that a sender puts stored bytes on the wire as they are. [`Messages`]
//! splits a stream of small messages (PutResult and the like).
//!
//! It does not look into Arrow metadata, and does no flow control: a caller pushes a frame only after it took the messages of
//! the last.

mod collect;
mod encode;
mod parse;
mod queue;

pub use collect::{Collect, Slices};
pub use encode::{head, prefix};
pub use parse::{Messages, Parser};

use arrow_flight::FlightDescriptor;
use bytes::Bytes;

/// One FlightData message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlightMessage<B = Vec<Bytes>> {
    /// What the stream is about; in the first message of a DoPut.
    pub descriptor: Option<FlightDescriptor>,
    /// The Arrow IPC message's flatbuffer.
    pub data_header: Bytes,
    /// The application's own bytes.
    pub app_metadata: Bytes,
    /// The Arrow IPC message's body, in pieces; joined in order they are the body.
    pub body: B,
}

impl FlightMessage {
    /// Bytes of the body.
    pub fn body_len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }
}

/// Sizes beyond which a message is refused before anything is allocated for it. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// A whole message.
    pub message: usize,
    /// `data_header`, and the descriptor.
    pub header: usize,
    /// `app_metadata`.
    pub app_metadata: usize,
}

impl Default for Caps {
    /// 1 GiB a message, 16 MiB a header (ten thousand columns need about two), 1 MiB of app_metadata.
    fn default() -> Self {
        Self {
            message: 1 << 30,
            header: 16 << 20,
            app_metadata: 1 << 20,
        }
    }
}

/// A stream of bytes that is no stream of messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is compressed as a whole; we offer none. Doors answer UNIMPLEMENTED.
    #[error(
        "compressed gRPC messages are not taken; send with grpc-encoding identity (Arrow's own buffer compression is)"
    )]
    Compressed,
    /// Something is larger than its cap. Doors answer RESOURCE_EXHAUSTED or INVALID_ARGUMENT.
    #[error("a {what} of {bytes} bytes is larger than the {most} bytes taken; send smaller batches")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it says it is.
        bytes: u64,
        /// The cap.
        most: usize,
    },
    /// Not protobuf. Doors answer INVALID_ARGUMENT.
    #[error("malformed FlightData: {0}")]
    Malformed(&'static str),
    /// The stream ended inside a message. Doors answer INVALID_ARGUMENT.
    #[error("the stream ended inside a message")]
    Truncated,
}

#[cfg(test)]
mod tests;
