//! Signatures to code against; being filled in.
#![allow(unused_variables, missing_debug_implementations, clippy::all)]
use crate::*;
use bytes::Bytes;
use forebay_runtime::{disk::DiskRef, units::ByteSize};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    os::fd::RawFd,
    path::{Path, PathBuf},
};
type Result<T, E = SegmentError> = std::result::Result<T, E>;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct SegmentStore {}
/// What an open found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every stream with bytes or appends here, sealed or not; also released ones whose segment still lies on the disk.
    pub streams: HashMap<StreamId, RecoveredStream>,
    /// Remarks for the log.
    pub notes: Vec<String>,
}
/// The valid, durable prefix of a stream.
#[derive(Clone, Debug)]
pub struct RecoveredStream {
    /// Where the bytes lie.
    pub layout: Layout,
    /// Its appends.
    pub appends: Vec<Append>,
    /// True: was sealed at this length. False says nothing: a seal costs no flush of its own, the caller's row decides.
    pub sealed: bool,
    /// CRC32C of all its bytes.
    pub crc: u32,
}
/// Sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of segment files on the disk.
    pub file_bytes: u64,
    /// Bytes of streams that were not released.
    pub live_bytes: u64,
    /// What the disk has left.
    pub free_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Poisoned ones.
    pub poisoned: usize,
}
/// Damage found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The segment, when it is one.
    pub segment: Option<SegmentId>,
    /// The file.
    pub file: PathBuf,
    /// Damaged bytes of the file.
    pub range: Range<u64>,
    /// The stream, when known.
    pub stream: Option<StreamId>,
    /// What is wrong.
    pub what: String,
}
/// What a scrub did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scrubbed {
    /// Bytes verified.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Findings.
    pub findings: usize,
}
/// What fsck found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Segments.
    pub segments: usize,
    /// Streams.
    pub streams: usize,
    /// Bytes verified.
    pub bytes: u64,
    /// Damage.
    pub findings: Vec<Finding>,
    /// Remarks that are no damage (a torn tail).
    pub notes: Vec<String>,
}
/// Offline check; changes nothing. Locked when a process has the folder.
pub fn fsck(folder: &Path, disk: &DiskRef) -> Result<Report> {
    todo!()
}
impl SegmentStore {
    /// Opens.
    pub async fn open(open: Open) -> Result<(SegmentStore, Recovered)> {
        todo!()
    }
    /// Grows at every open.
    pub fn incarnation(&self) -> u64 {
        todo!()
    }
    /// A new stream.
    pub fn create(&self, stream: StreamId, size_hint: Option<u64>) -> Writer {
        todo!()
    }
    /// Goes on at the stable length.
    pub fn resume(&self, stream: StreamId, found: RecoveredStream) -> Result<Writer> {
        todo!()
    }
    /// Of a sealed stream.
    pub fn reader(&self, stream: StreamId, layout: &Layout) -> Result<Reader> {
        todo!()
    }
    /// Whether the files of the layout are there and long enough; cheap.
    pub fn contains(&self, layout: &Layout) -> Result<()> {
        todo!()
    }
    /// Bytes may go.
    pub fn release(&self, stream: StreamId, layout: &Layout) {
        todo!()
    }
    /// After recovery.
    pub async fn retain(&self, live: &HashSet<StreamId>) {
        todo!()
    }
    /// Sums.
    pub fn usage(&self) -> Usage {
        todo!()
    }
    /// Gives up the reserve, so that others (the metastore) find room on a full disk. True when there was some.
    pub fn make_room(&self) -> bool {
        todo!()
    }
    /// One pass over everything at `rate` bytes per second.
    pub async fn scrub(&self, rate: ByteSize, report: impl FnMut(Finding) + Send) -> Scrubbed {
        todo!()
    }
    /// Flushes, closes.
    pub async fn shutdown(&self) {
        todo!()
    }
}
/// One owner.
#[derive(Debug)]
pub struct Writer {}
impl Writer {
    /// The stream.
    pub fn stream(&self) -> StreamId {
        todo!()
    }
    /// Bytes appended.
    pub fn written(&self) -> u64 {
        todo!()
    }
    /// CRC32C of everything appended so far.
    pub fn crc(&self) -> u32 {
        todo!()
    }
    /// Into the page cache.
    pub async fn append(&mut self, chunks: &[Bytes], note: Bytes) -> Result<u64> {
        todo!()
    }
    /// Watch.
    pub fn stable(&self) -> StableWatch {
        todo!()
    }
    /// Until all is stable.
    pub async fn sync(&mut self) -> Result<Stable> {
        todo!()
    }
    /// Tail reader.
    pub fn follow(&self) -> Follower {
        todo!()
    }
    /// sync + final layout.
    pub async fn seal(self) -> Result<Layout> {
        todo!()
    }
    /// Forget.
    pub fn discard(self) {
        todo!()
    }
}
/// Tail reader.
#[derive(Clone, Debug)]
pub struct Follower {}
impl Follower {
    /// Watch.
    pub fn stable(&self) -> StableWatch {
        todo!()
    }
    /// Only <= stable.bytes.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        todo!()
    }
}
/// Of a sealed stream; stays good after release.
#[derive(Clone, Debug)]
pub struct Reader {}
impl Reader {
    /// Bytes.
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// None.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Verified.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        todo!()
    }
    /// Dedicated: the whole content, verified; None when packed.
    pub async fn mapped(&self) -> Result<Option<Bytes>> {
        todo!()
    }
    /// Dedicated: the local file.
    pub fn file(&self) -> Option<(PathBuf, RawFd)> {
        todo!()
    }
}
