//! Bytes that have arrived and are not yet consumed: the frames themselves, in order.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Frames in order, consumed from the front.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Bytes>,
    len: usize,
}

impl Queue {
    pub(super) fn push(&mut self, frame: Bytes) {
        if !frame.is_empty() {
            self.len += frame.len();
            self.frames.push_back(frame);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes from the front, without consuming them.
    pub(super) fn peek(&self) -> impl Iterator<Item = u8> {
        self.frames.iter().flat_map(|f| f.iter().copied())
    }

    /// Drops up to `most` bytes from the front; says how many.
    pub(super) fn skip(&mut self, most: usize) -> usize {
        let mut left = most.min(self.len);
        let skipped = left;
        while left > 0 {
            left -= self.take_some(left).len();
        }
        skipped
    }

    /// A piece of up to `most` bytes from the front, as it lies in its frame. Empty only when nothing is there or asked for.
    pub(super) fn take_some(&mut self, most: usize) -> Bytes {
        let Some(front) = self.frames.front_mut() else {
            return Bytes::new();
        };
        let piece = if front.len() <= most {
            self.frames.pop_front().expect("it has a front")
        } else {
            front.split_to(most)
        };
        self.len -= piece.len();
        piece
    }

    /// Exactly `bytes` bytes from the front, contiguous: a slice where one frame holds them, else a copy. `None` while there are fewer.
    pub(super) fn take_exact(&mut self, bytes: usize) -> Option<Bytes> {
        if self.len < bytes {
            return None;
        }
        if self.frames.front().is_some_and(|f| f.len() >= bytes) || bytes == 0 {
            return Some(self.take_some(bytes));
        }
        let mut joined = BytesMut::with_capacity(bytes);
        while joined.len() < bytes {
            joined.extend_from_slice(self.take_some(bytes - joined.len()).chunk());
        }
        Some(joined.freeze())
    }
}
