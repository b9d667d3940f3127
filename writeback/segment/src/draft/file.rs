//! The data of a draft and what may be done to it.
//!
//! The file knows its length, not we: others may write through its descriptor. Changes within the length run side by side; one that
//! moves the end runs alone, so that it can be taken back when it found no room.

use super::flush::Flushing;
use crate::{
    context::Context,
    data_folder::DataFolder,
    dedicated::{LogFile, Made},
    error::{Result, SegmentError},
    header::HEADER_BYTES,
    layout::{Layout, SegmentId, StreamId},
    table::{Phase, Segment},
};
use forebay_runtime::disk::{DiskFile, Seek, is_full};
use parking_lot::{Mutex, RwLock};
use std::{
    io::{self, ErrorKind},
    ops::Range,
    os::fd::RawFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Written since the last time that the disk was told to begin.
const WRITE_BACK_BYTES: u64 = 8 << 20;
/// Longest file that offsets can tell of.
const LEN_MAX: u64 = i64::MAX as u64;

/// The files of a draft. Whoever holds both locks takes `flushing` first.
#[derive(Debug)]
pub(crate) struct DraftFile {
    pub(super) context: Arc<Context>,
    pub(super) segment: Arc<Segment>,
    pub(super) path: PathBuf,
    pub(super) data: Arc<dyn DiskFile>,
    pub(super) state: RwLock<State>,
    pub(super) flushing: Mutex<Flushing>,
    /// Syncs asked for so far.
    asked: AtomicU64,
    /// Bytes written since the disk was told to begin.
    fresh: AtomicU64,
}

/// Where a draft stands.
#[derive(Debug)]
pub(super) enum State {
    /// Takes changes.
    Open,
    /// Takes none, unless the seal finds no room.
    Sealing,
    Sealed(Layout, u32),
    /// Takes none; everyone is told why.
    Ended(SegmentError),
}

impl DraftFile {
    pub(super) fn create(context: &Arc<Context>, stream: StreamId) -> Result<Arc<DraftFile>> {
        let Made {
            segment,
            data_path,
            data,
            log,
        } = Made::create(context, stream)?;
        Ok(Self::with(context, segment, data_path, data, Flushing::new(log, false)))
    }

    /// Goes on with what a start found and flushed.
    pub(super) fn resume(folder: &DataFolder, stream: StreamId, id: SegmentId) -> Result<Arc<DraftFile>> {
        let segment = folder.context.table.get(id).ok_or_else(|| folder.missing(id))?;
        let scan = folder.scanner().log(id, None)?;
        if !scan.draft {
            let what = "it is no draft any more".to_owned();
            return Err(SegmentError::Invalid { stream, what });
        }
        let log = LogFile::resume(&folder.context, id, stream, scan.end)?;
        let flushing = Flushing::new(log, true);
        Ok(Self::with(
            &folder.context,
            segment,
            scan.data_path,
            scan.data,
            flushing,
        ))
    }

    fn with(
        context: &Arc<Context>,
        segment: Arc<Segment>,
        path: PathBuf,
        data: Arc<dyn DiskFile>,
        flushing: Flushing,
    ) -> Arc<DraftFile> {
        Arc::new(DraftFile {
            context: Arc::clone(context),
            segment,
            path,
            data,
            state: RwLock::new(State::Open),
            flushing: Mutex::new(flushing),
            asked: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
        })
    }

    pub(super) fn stream(&self) -> StreamId {
        self.segment.stream
    }

    pub(super) fn len(&self) -> Result<u64> {
        self.data.len().map_err(|e| self.disk("stat", e))
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if offset > LEN_MAX {
            return Ok(0);
        }
        self.data.read_at(buffer, offset).map_err(|e| self.disk("read", e))
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let len = bytes.len() as u64;
        if len == 0 {
            return self.state.read().check(self.stream());
        }
        let end = self.end("write", offset.checked_add(len))?;
        self.context.may_append(len)?;
        self.change("write", end, len, || self.data.write_slice_at(bytes, offset))?;
        self.begin_write_back(len);
        Ok(())
    }

    pub(super) fn set_len(&self, len: u64) -> Result<()> {
        self.end("set the length of", Some(len))?;
        self.alone("set the length of", 0, || self.data.set_len(len))
    }

    pub(super) fn punch(&self, range: Range<u64>) -> Result<()> {
        let range = range.start..range.end.min(LEN_MAX);
        if range.is_empty() {
            return self.state.read().check(self.stream());
        }
        self.change("punch", 0, 0, || self.data.punch(range))
    }

    pub(super) fn allocate(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return self.state.read().check(self.stream());
        }
        let (end, needed) = (self.end("allocate", Some(range.end))?, range.end - range.start);
        self.context.may_append(needed)?;
        self.change("allocate", end, needed, || self.data.allocate_extending(range))
    }

    pub(super) fn seek(&self, from: u64, what: Seek) -> Result<Option<u64>> {
        if from > LEN_MAX {
            return Ok(None);
        }
        self.data.seek(from, what).map_err(|e| self.disk("seek", e))
    }

    pub(super) fn raw_fd(&self) -> Option<RawFd> {
        self.data.raw_fd()
    }

    pub(super) fn layout(&self) -> Option<Layout> {
        match &*self.state.read() {
            State::Sealed(layout, _) => Some(layout.clone()),
            State::Open | State::Sealing | State::Ended(_) => None,
        }
    }

    pub(super) fn discard(&self) {
        let mut state = self.state.write();
        // After a shutdown the next start sees to it.
        let closed = self.context.closed.load(Ordering::Acquire);
        if !closed && !matches!(*state, State::Sealed(..)) {
            *state = State::Ended(self.invalid("it was discarded"));
            self.context.reclaimer.push(Arc::clone(&self.segment));
        }
    }

    /// Which sync this is.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The last sync that was asked for.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// Runs a change that leaves the file at least `end` long.
    fn change(&self, action: &'static str, end: u64, needed: u64, how: impl FnOnce() -> io::Result<()>) -> Result<()> {
        let state = self.state.read();
        state.check(self.stream())?;
        // Nobody moves the end back while the lock is held.
        if end > self.len()? {
            drop(state);
            return self.alone(action, needed, how);
        }
        let done = how();
        drop(state);
        done.map_err(|e| self.refused(action, needed, e))
    }

    /// Runs a change that may move the end, and takes that back when it fails.
    fn alone(&self, action: &'static str, needed: u64, how: impl FnOnce() -> io::Result<()>) -> Result<()> {
        let state = self.state.write();
        state.check(self.stream())?;
        let before = self.len()?;
        let done = how();
        let done = match done {
            Ok(()) => self.data.len().map(|len| self.segment.set_size(len, HEADER_BYTES)),
            Err(e) => self.data.set_len(before).and(Err(e)),
        };
        drop(state);
        done.map_err(|e| self.refused(action, needed, e))
    }

    /// What a failed change means.
    fn refused(&self, action: &'static str, needed: u64, e: io::Error) -> SegmentError {
        if is_full(&e) {
            return self.context.refused(action, &self.path, needed, e);
        }
        let too_large = e.kind() == ErrorKind::FileTooLarge;
        let error = self.disk(action, e);
        if too_large { error } else { self.poison(&error) }
    }

    /// A change to `end`, if files can be so long.
    fn end(&self, action: &'static str, end: Option<u64>) -> Result<u64> {
        end.filter(|end| *end <= LEN_MAX)
            .ok_or_else(|| self.disk(action, ErrorKind::FileTooLarge.into()))
    }

    /// Keeps the flush to come short.
    fn begin_write_back(&self, written: u64) {
        let fresh = self.fresh.fetch_add(written, Ordering::Relaxed) + written;
        if fresh >= WRITE_BACK_BYTES {
            self.fresh.store(0, Ordering::Relaxed);
            self.data.start_write_back();
        }
    }

    /// Nothing more is acknowledged.
    pub(super) fn poison(&self, why: &SegmentError) -> SegmentError {
        self.context.fails();
        let mut state = self.state.write();
        if let State::Ended(earlier) = &*state {
            return earlier.clone();
        }
        let (segment, reason) = (self.segment.id, why.to_string());
        tracing::error!(%segment, path = %self.path.display(), reason, "draft takes no more writes");
        self.segment.set_phase(Phase::Poisoned(reason.clone()));
        let error = SegmentError::Poisoned { segment, reason };
        *state = State::Ended(error.clone());
        error
    }

    pub(super) fn disk(&self, action: &'static str, e: io::Error) -> SegmentError {
        SegmentError::disk(action, &self.path, e)
    }

    fn invalid(&self, what: &str) -> SegmentError {
        SegmentError::Invalid {
            stream: self.stream(),
            what: what.to_owned(),
        }
    }
}

impl State {
    /// Whether changes may be made.
    pub(super) fn check(&self, stream: StreamId) -> Result<()> {
        match self {
            State::Open => Ok(()),
            State::Sealing | State::Sealed(..) => {
                let what = "it is sealed".to_owned();
                Err(SegmentError::Invalid { stream, what })
            }
            State::Ended(why) => Err(why.clone()),
        }
    }
}
