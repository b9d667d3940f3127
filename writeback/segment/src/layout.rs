//! The words that the caller keeps in its own rows, and what it can know of a stream.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range};
use tokio::sync::watch;

/// Identity of a stream, chosen by the caller and never reused: (inode, generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u64, pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Identity of a segment within one node, never reused: the number of its data folder (8 bits), the folder's life that made it (24 bits),
/// and a counter (32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId(pub u64);

/// Lives of a folder that an id has room for.
pub(crate) const INCARNATIONS_MAX: u64 = 1 << 24;

impl SegmentId {
    pub(crate) fn new(folder: u8, incarnation: u64, count: u64) -> SegmentId {
        assert!(
            incarnation < INCARNATIONS_MAX && count < 1 << 32,
            "lives are checked at the open, and no life is long enough for more segments"
        );
        SegmentId(u64::from(folder) << 56 | incarnation << 32 | count)
    }

    /// The number of the data folder that it lies in.
    pub fn folder(self) -> u8 {
        (self.0 >> 56) as u8
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where the bytes of a sealed stream lie. Small, stored by the caller in its own row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// No bytes.
    Empty,
    /// Records of shared segments, in stream order.
    Packed(Vec<Extent>),
    /// One dedicated segment, bytes from offset 0.
    Dedicated {
        /// The segment.
        segment: SegmentId,
        /// Bytes in it.
        len: u64,
    },
}

impl Layout {
    /// Bytes in all.
    pub fn len(&self) -> u64 {
        match self {
            Layout::Empty => 0,
            Layout::Packed(extents) => extents.iter().map(|e| u64::from(e.len)).sum(),
            Layout::Dedicated { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One run of a packed stream: the payload of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The shared segment.
    pub segment: SegmentId,
    /// Offset of the payload in the segment's file.
    pub at: u64,
    /// Payload bytes.
    pub len: u32,
    /// CRC32C of the payload.
    pub crc: u32,
}

/// One append, as a follower or a recovery sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The bytes of the stream it covers.
    pub range: Range<u64>,
    /// What the writer said of it; opaque here, durable with it.
    pub note: Bytes,
}

/// How far a stream is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stable {
    /// Bytes durable at the level.
    pub bytes: u64,
    /// Appends durable at the level.
    pub appends: u64,
    /// Set once a flush of this stream's segment failed: nothing more will ever become stable; the text says why.
    pub poisoned: Option<String>,
}

/// Watches how far a stream is durable.
pub type StableWatch = watch::Receiver<Stable>;
