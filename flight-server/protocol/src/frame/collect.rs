//! What becomes of the pieces of a body as they arrive.

use bytes::{Bytes, BytesMut};
use std::fmt::Debug;

/// Pieces of a body smaller than this are joined: a peer that sends a byte per frame must not cost a slice per byte.
const PIECE_BYTES_MIN: usize = 1024;

/// Takes the pieces of one body after the other.
pub trait Collect: Debug {
    /// A whole body.
    type Body;

    /// A body of `len` bytes begins; what was collected before and not finished is void. `len` is within the cap of a message.
    fn start(&mut self, len: usize);

    /// The next piece of it.
    fn push(&mut self, piece: Bytes);

    /// The body is complete. Called without [`Collect::start`] for a message that has none.
    fn finish(&mut self) -> Self::Body;
}

/// Leaves pieces where they are, as slices of the frames they came in.
#[derive(Debug, Default)]
pub struct Slices {
    whole: Vec<Bytes>,
    small: BytesMut,
}

impl Slices {
    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.whole.push(self.small.split().freeze());
        }
    }
}

impl Collect for Slices {
    type Body = Vec<Bytes>;

    fn start(&mut self, _len: usize) {
        self.whole.clear();
        self.small.clear();
    }

    fn push(&mut self, piece: Bytes) {
        if piece.len() < PIECE_BYTES_MIN {
            self.small.extend_from_slice(&piece);
            return;
        }
        self.flush();
        self.whole.push(piece);
    }

    fn finish(&mut self) -> Vec<Bytes> {
        self.flush();
        std::mem::take(&mut self.whole)
    }
}
