//! What is known of every segment while the store is open: how much of it is still needed, and when its file may go.
//!
//! A shared segment counts the records that somebody needs. Which ones were given up is remembered by place, so that giving one up twice
//! cannot cost another stream its bytes. It does not own the files' content.

use crate::{
    dedicated::DedicatedFile,
    error::Result,
    layout::{SegmentId, StreamId},
    manifest::{Manifest, SegmentKind},
};
use forebay_runtime::disk::DiskFile;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most files that are kept open for readers to come.
const RECENT_MAX: usize = 64;

/// Room and segments in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Bytes of segment files on the disk.
    pub file_bytes: u64,
    /// Bytes of streams that were not released.
    pub live_bytes: u64,
    /// Bytes that the disk has left.
    pub free_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Segments that took no more writes after a failure.
    pub poisoned: usize,
}

/// Room and segments in use of one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderUsage {
    /// Its number.
    pub number: u8,
    /// Where it is.
    pub folder: PathBuf,
    /// The file system that it lies on; none when that does not answer.
    pub device: Option<u64>,
    /// Size of the file system.
    pub total_bytes: u64,
    /// What is in it.
    pub usage: Usage,
}

/// Where a segment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Takes writes.
    Open,
    /// Takes no more.
    Closed,
    /// A write or flush failed; what was durable then can still be read.
    Poisoned(String),
    /// Given up; its file goes.
    Removed,
}

/// An open file of a shared segment, for reading.
#[derive(Debug)]
pub(crate) struct SharedFile {
    pub(crate) id: SegmentId,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// One segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) kind: SegmentKind,
    /// Of a dedicated one.
    pub(crate) stream: StreamId,
    /// Bytes on the disk, the log of a dedicated one included.
    pub(crate) file_bytes: AtomicU64,
    /// Bytes that can be read: end of the records of a shared one, durable bytes of a dedicated one.
    pub(crate) readable: AtomicU64,
    live_bytes: AtomicU64,
    state: Mutex<State>,
    /// Held while the segment is entered into the manifest.
    entering: Mutex<()>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Records that somebody needs.
    live: u64,
    /// Places of payloads that were given up.
    released: HashSet<u64>,
    shared: Weak<SharedFile>,
    dedicated: Weak<DedicatedFile>,
}

impl Segment {
    pub(crate) fn new(id: SegmentId, kind: SegmentKind, stream: StreamId) -> Arc<Segment> {
        Arc::new(Segment {
            id,
            kind,
            stream,
            file_bytes: AtomicU64::new(0),
            readable: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            state: Mutex::new(State {
                phase: Phase::Open,
                live: 0,
                released: HashSet::new(),
                shared: Weak::new(),
                dedicated: Weak::new(),
            }),
            entering: Mutex::new(()),
        })
    }

    /// Enters the segment into the manifest, unless it was given up: its removal must be the last word there.
    pub(crate) fn enter(&self, manifest: &Manifest) -> Result<()> {
        let _entering = self.entering.lock();
        if self.phase() == Phase::Removed {
            return Ok(());
        }
        manifest.created(self.id, self.kind, self.stream)
    }

    /// Gives the segment up. False when it was already. No entry into the manifest follows.
    pub(crate) fn give_up(&self) -> bool {
        let before = std::mem::replace(&mut self.state.lock().phase, Phase::Removed);
        drop(self.entering.lock());
        before != Phase::Removed
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state.lock().phase.clone()
    }

    /// Moves to `phase`; a removed segment stays removed, a poisoned one is not closed.
    pub(crate) fn set_phase(&self, phase: Phase) {
        let mut state = self.state.lock();
        match (&state.phase, &phase) {
            (Phase::Removed, _) | (Phase::Poisoned(_), Phase::Closed) => {}
            _ => state.phase = phase,
        }
    }

    /// Why it takes no more writes, if so.
    pub(crate) fn poisoned(&self) -> Option<String> {
        match &self.state.lock().phase {
            Phase::Poisoned(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// A record came in that somebody needs.
    pub(crate) fn hold(&self, bytes: u64) {
        self.state.lock().live += 1;
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Nobody needs the record any more whose payload lies at `at`. True when the file may go by this.
    pub(crate) fn release(&self, at: u64, bytes: u64) -> bool {
        let mut state = self.state.lock();
        if !state.released.insert(at) {
            return false;
        }
        state.live = state.live.saturating_sub(1);
        // Cannot fall below zero: each place is counted down once.
        self.live_bytes
            .fetch_sub(bytes.min(self.live_bytes()), Ordering::Relaxed);
        state.may_go()
    }

    /// Whether nobody needs anything in it and no more comes in.
    pub(crate) fn may_go(&self) -> bool {
        self.state.lock().may_go()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_live_bytes(&self, bytes: u64) {
        self.live_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How large a dedicated segment is.
    pub(crate) fn set_size(&self, data: u64, log: u64) {
        self.set_live_bytes(data);
        self.file_bytes.store(data + log, Ordering::Relaxed);
    }

    pub(crate) fn shared_file(&self) -> Option<Arc<SharedFile>> {
        self.state.lock().shared.upgrade()
    }

    pub(crate) fn set_shared_file(&self, file: &Arc<SharedFile>) {
        self.state.lock().shared = Arc::downgrade(file);
    }

    pub(crate) fn dedicated_file(&self) -> Option<Arc<DedicatedFile>> {
        self.state.lock().dedicated.upgrade()
    }

    pub(crate) fn set_dedicated_file(&self, file: &Arc<DedicatedFile>) {
        self.state.lock().dedicated = Arc::downgrade(file);
    }
}

impl State {
    fn may_go(&self) -> bool {
        self.live == 0 && matches!(self.phase, Phase::Closed | Phase::Poisoned(_))
    }
}

/// All segments of the folder.
#[derive(Debug, Default)]
pub(crate) struct Table {
    segments: Mutex<HashMap<SegmentId, Arc<Segment>>>,
    /// Keeps the files that were used last open, oldest first.
    recent: Mutex<VecDeque<Recent>>,
}

#[derive(Clone, Debug)]
enum Recent {
    Shared(Arc<SharedFile>),
    Dedicated(Arc<DedicatedFile>),
}

impl Recent {
    fn id(&self) -> SegmentId {
        match self {
            Recent::Shared(file) => file.id,
            Recent::Dedicated(file) => file.id(),
        }
    }
}

impl Table {
    pub(crate) fn insert(&self, segment: &Arc<Segment>) {
        self.segments.lock().insert(segment.id, Arc::clone(segment));
    }

    pub(crate) fn get(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.segments.lock().get(&id).cloned()
    }

    pub(crate) fn remove(&self, id: SegmentId) {
        self.segments.lock().remove(&id);
        self.recent.lock().retain(|file| file.id() != id);
    }

    /// All of them, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        let mut all: Vec<_> = self.segments.lock().values().cloned().collect();
        all.sort_by_key(|segment| segment.id);
        all
    }

    pub(crate) fn keep_shared(&self, file: &Arc<SharedFile>) {
        self.keep(Recent::Shared(Arc::clone(file)));
    }

    pub(crate) fn keep_dedicated(&self, file: &Arc<DedicatedFile>) {
        self.keep(Recent::Dedicated(Arc::clone(file)));
    }

    fn keep(&self, file: Recent) {
        let mut recent = self.recent.lock();
        if recent.iter().any(|kept| kept.id() == file.id()) {
            return;
        }
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(file);
    }

    /// Sums over all segments; `free_bytes` is for the caller to fill in.
    pub(crate) fn usage(&self) -> Usage {
        let segments = self.segments.lock();
        let mut usage = Usage {
            segments: segments.len(),
            ..Usage::default()
        };
        for segment in segments.values() {
            usage.file_bytes += segment.file_bytes.load(Ordering::Relaxed);
            usage.live_bytes += segment.live_bytes();
            usage.poisoned += usize::from(segment.poisoned().is_some());
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_given_up_twice_counts_once_and_the_last_one_lets_the_file_go() {
        let segment = Segment::new(SegmentId(1), SegmentKind::Shared, StreamId(0, 0));
        segment.hold(10);
        segment.hold(20);
        segment.set_phase(Phase::Closed);
        assert!(!segment.release(100, 10));
        assert!(!segment.release(100, 10));
        assert_eq!(segment.live_bytes(), 20);
        assert!(!segment.may_go());
        assert!(segment.release(200, 20));
    }

    #[test]
    fn an_open_segment_stays_even_when_nobody_needs_it() {
        let segment = Segment::new(SegmentId(1), SegmentKind::Shared, StreamId(0, 0));
        segment.hold(10);
        assert!(!segment.release(100, 10));
        segment.set_phase(Phase::Poisoned("disk".into()));
        segment.set_phase(Phase::Closed);
        assert_eq!(segment.poisoned().as_deref(), Some("disk"));
        assert!(segment.may_go());
    }
}
