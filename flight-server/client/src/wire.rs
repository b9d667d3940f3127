//! Arrow on the wire: batches to messages without assembling their bodies, messages to batches with one copy.
//!
//! It knows Arrow IPC and FlightData, and nothing of calls.

mod decode;
mod encode;

pub(crate) use decode::{AlignedBody, Decoder};
pub(crate) use encode::Encoder;

use crate::{Error, ErrorKind};
use arrow_buffer::Buffer;
use arrow_schema::ArrowError;
use bytes::Bytes;

/// An Arrow buffer as bytes, sharing its memory.
pub(crate) fn shared(buffer: Buffer) -> Bytes {
    struct Owner(Buffer);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_slice()
        }
    }
    Bytes::from_owner(Owner(buffer))
}

fn arrow(doing: &str) -> impl FnOnce(ArrowError) -> Error + '_ {
    move |e| Error::new(ErrorKind::Invalid, format!("{doing}: {e}"))
}

#[cfg(test)]
mod tests;
