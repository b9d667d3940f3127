//! What every part of an open store has at hand.

use crate::{
    error::SegmentError,
    folder::Folder,
    header::{FileKind, Header, Member},
    layout::{SegmentId, StreamId},
    manifest::Manifest,
    reclaim::Reclaimer,
    reserve::Reserve,
    settings::{Identity, Settings},
    table::Table,
};
use forebay_runtime::{
    clock::ClockRef,
    disk::{DiskRef, is_full},
    task::Tasks,
};
use parking_lot::Mutex;
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// How long a folder is passed over after a failure.
const FAILING: Duration = Duration::from_secs(30);
/// The disk is asked again after so many bytes.
const ASK_BYTES: u64 = 8 << 20;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) disk: DiskRef,
    pub(crate) clock: ClockRef,
    pub(crate) folder: Folder,
    /// Its number in the store.
    pub(crate) number: u8,
    pub(crate) identity: Identity,
    pub(crate) incarnation: u64,
    pub(crate) settings: Settings,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) reserve: Reserve,
    pub(crate) table: Arc<Table>,
    pub(crate) reclaimer: Reclaimer,
    pub(crate) tasks: Tasks,
    pub(crate) segments_made: AtomicU64,
    pub(crate) closed: AtomicBool,
    pub(crate) floor: Floor,
    /// When a write or flush failed last.
    pub(crate) failed: Mutex<Option<Duration>>,
}

impl Context {
    /// An id that no segment of this folder ever had: each open has its own incarnation, durable before the first segment.
    pub(crate) fn next_id(&self) -> SegmentId {
        let count = self.segments_made.fetch_add(1, Ordering::Relaxed);
        SegmentId::new(self.number, self.incarnation, count)
    }

    pub(crate) fn header(&self, kind: FileKind, segment: SegmentId, stream: StreamId) -> Header {
        header(
            &self.identity,
            self.incarnation,
            self.clock.now(),
            kind,
            segment,
            stream,
        )
    }

    /// Whether an append may begin.
    pub(crate) fn may_append(&self, needed: u64) -> Result<(), SegmentError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(SegmentError::Closed);
        }
        if self.reserve.may_append() && self.floor.leaves(needed, || self.reserve.free()) {
            Ok(())
        } else {
            Err(self.full(needed))
        }
    }

    /// Room for a new stream; none where nothing new should go: the disk is full, does not answer, or failed a moment ago.
    pub(crate) fn room(&self) -> Option<u64> {
        let failing = (*self.failed.lock()).is_some_and(|at| self.clock.monotonic().saturating_sub(at) < FAILING);
        if failing || !self.reserve.may_append() {
            return None;
        }
        let room = self.reserve.free().ok()?.saturating_sub(self.floor.bytes);
        Some(room).filter(|room| *room > 0)
    }

    /// A write or flush failed: for a while nothing new goes here if it can go elsewhere.
    pub(crate) fn fails(&self) {
        *self.failed.lock() = Some(self.clock.monotonic());
    }

    /// What a failed write or creation means: `Full`, with the reserve given up, or what the disk said.
    pub(crate) fn refused(&self, action: &'static str, path: &Path, needed: u64, error: io::Error) -> SegmentError {
        if is_full(&error) {
            self.reserve.give();
            return self.full(needed);
        }
        self.fails();
        SegmentError::disk(action, path, error)
    }

    fn full(&self, needed: u64) -> SegmentError {
        SegmentError::Full {
            folder: self.folder.path().to_owned(),
            needed,
            free: self.reserve.free().unwrap_or(0),
        }
    }
}

/// Room that appends leave on the disk while other folders have some: what is not a segment finds it there.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    /// 0: it is the only folder, and nobody asks.
    bytes: u64,
    /// May be appended before the disk is asked again.
    credit: AtomicU64,
}

impl Floor {
    pub(crate) fn new(bytes: u64) -> Floor {
        Floor {
            bytes,
            credit: AtomicU64::new(0),
        }
    }

    /// Whether `needed` more leave it untouched.
    fn leaves(&self, needed: u64, free: impl FnOnce() -> io::Result<u64>) -> bool {
        let spend = |credit: u64| credit.checked_sub(needed);
        if self.bytes == 0
            || self
                .credit
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
                .is_ok()
        {
            return true;
        }
        // A disk that does not answer says so to the append itself.
        let Ok(free) = free() else { return true };
        let Some(left) = free.checked_sub(self.bytes).and_then(|left| left.checked_sub(needed)) else {
            return false;
        };
        self.credit.store((left / 8).min(ASK_BYTES), Ordering::Relaxed);
        true
    }
}

/// What a crash point before a flush asks for: `return(error)` makes the flush fail.
pub(crate) fn asked_to_fail(answer: Option<String>, path: &Path) -> Result<(), SegmentError> {
    match answer.as_deref() {
        Some("error") => Err(SegmentError::disk(
            "fdatasync",
            path,
            io::Error::other("asked to fail by a crash point"),
        )),
        _ => Ok(()),
    }
}

/// A header of this node's.
pub(crate) fn header(
    identity: &Identity,
    incarnation: u64,
    created: forebay_runtime::clock::Timestamp,
    kind: FileKind,
    segment: SegmentId,
    stream: StreamId,
) -> Header {
    Header {
        kind,
        cluster: identity.cluster,
        segment,
        incarnation,
        epoch: 0,
        created,
        stream,
        members: vec![Member {
            incarnation,
            node: identity.node.clone(),
        }],
        tag: 0,
        folders: Vec::new(),
    }
}
