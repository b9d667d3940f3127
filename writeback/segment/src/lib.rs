//! Append-only logs on disk: where every byte of Forebay lies.
//!
//! A [`Stream`](StreamId) is what the caller appends to. Its bytes go first into a shared segment, packed with others; past
//! [`Settings::dedicated_from_bytes`] they move into a dedicated segment, contiguous from offset 0 of one local file, with the
//! checksums beside it. Many streams share one flush (group commit). Nothing here knows paths, inodes or datasets.

use bytes::Bytes;
use forebay_runtime::{clock::ClockRef, disk::DiskRef, units::ByteSize};
use std::{ops::Range, path::PathBuf};
use tokio::sync::watch;

/// Identity of a stream, chosen by the caller and never reused: (inode, generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct StreamId(pub u64, pub u32);

/// Identity of a segment within one node's folder, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SegmentId(pub u64);

/// Where the bytes of a sealed stream lie. Small, stored by the caller in its own row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// One run of a packed stream: the payload of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// Plain settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A stream longer than this gets a dedicated segment. Default 1 MiB.
    pub dedicated_from_bytes: ByteSize,
    /// A shared segment is closed at this size. Default 64 MiB.
    pub shared_bytes_max: ByteSize,
    /// False only for the negative control of the crash tests: acknowledge without fdatasync.
    pub fsync: bool,
}

/// Who this folder belongs to; written at its creation, checked at every open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id (from the metastore).
    pub cluster: [u8; 16],
    /// The node's name.
    pub node: String,
}

/// What opening needs.
#[derive(Clone, Debug)]
pub struct Open {
    /// The file system.
    pub disk: DiskRef,
    /// Time.
    pub clock: ClockRef,
    /// The data folder; created when missing, refused when foreign, locked while open.
    pub folder: PathBuf,
    /// Whose it must be.
    pub identity: Identity,
    /// Whether the ack level needs a durable file system (tmpfs is refused then).
    pub durable: bool,
    /// Settings.
    pub settings: Settings,
}
/// Watches how far a stream is durable.
pub type StableWatch = watch::Receiver<Stable>;

// API to be provided by this crate (owner: segment), used by forebay-writeback:
//
// impl SegmentStore {                       // cheap Clone (Arc inside)
//     pub async fn open(open: Open) -> Result<(SegmentStore, Recovered), SegmentError>;
//        // Recovered.streams: every stream found that was not sealed-and-released: HashMap<StreamId, RecoveredStream{layout, appends: Vec<Append>, sealed: bool}>
//        // (the layout covers the valid acked prefix). Corruption in the middle = Err naming segment and offset.
//     pub fn incarnation(&self) -> u64;      // grows at every open
//     pub fn create(&self, stream: StreamId) -> Writer;
//     pub fn resume(&self, stream: StreamId, found: RecoveredStream) -> Result<Writer, SegmentError>;  // goes on at the stable length
//     pub fn reader(&self, stream: StreamId, layout: &Layout) -> Result<Reader, SegmentError>;         // sealed
//     pub fn contains(&self, layout: &Layout) -> Result<(), SegmentError>;       // Missing{segment} etc., cheap
//     pub fn release(&self, stream: StreamId, layout: &Layout);                   // bytes may go; reclaims files off the hot path; open Readers stay valid
//     pub async fn retain(&self, live: &HashSet<StreamId>);                      // after recovery: everything else is garbage
//     pub fn usage(&self) -> Usage { file_bytes, live_bytes, free_bytes(disk), segments, poisoned }
//     pub async fn scrub(&self, rate: ByteSize per second, report: impl FnMut(Finding)) ; pub fn fsck(folder, disk) -> Report (offline, for `forebay fsck`)
//     pub async fn shutdown(&self);           // flush, close
// }
// impl Writer {                              // one owner, &mut; dropping without seal leaves the stream unsealed
//     pub fn stream(&self) -> StreamId;
//     pub fn written(&self) -> u64;
//     pub async fn append(&mut self, chunks: &[Bytes], note: Bytes) -> Result<u64 /* new written */, SegmentError>;   // page cache only; crosses to dedicated by itself
//     pub fn stable(&self) -> StableWatch;
//     pub async fn sync(&mut self) -> Result<Stable, SegmentError>;               // waits till all appended is stable
//     pub fn follow(&self) -> Follower;                                            // tail reader handle; Clone
//     pub async fn seal(self) -> Result<Layout, SegmentError>;                     // sync + final layout; Followers keep working
//     pub fn discard(self);                                                        // forget it, reclaim
// }
// impl Follower { pub fn stable(&self)->StableWatch; pub async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>, SegmentError>; }  // only <= stable.bytes
// impl Reader   { pub fn len(&self)->u64; pub async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>, SegmentError>;   // zero-copy slices of a mapping for Dedicated; every byte's CRC verified at least once per process before it is handed out
//                 pub fn mapped(&self) -> Option<Bytes>; pub fn file(&self)->Option<(PathBuf, RawFd)> }   // Dedicated: whole content / the local file (for passthrough later)
// enum SegmentError { Full{needed, free}, Poisoned{..}, Corrupt{segment, at, range, ..}, Missing{..}, Foreign{..}, Locked{..}, NotDurable{..}, NewerFormat{..}, Disk(DiskError) } each with a text: what, where, what to do
