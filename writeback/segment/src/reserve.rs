//! Room kept back on the disk for the day when it is full.
//!
//! There are two reserves. At the first "no space left" the large one is given up, so that what frees space (delete, persist, the metastore's own commits) can
//! still write; appends are refused until there is room for it again. So a full disk ends ingest first and nothing else. The small
//! one is only given up by a start that finds the disk full to the last byte: a recovery has to write a little.

use crate::folder::Folder;
use forebay_runtime::{
    clock::ClockRef,
    disk::{DiskRef, OpenHow, is_full},
};
use parking_lot::Mutex;
use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// While it is given up, the disk is asked again after this long.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The reserve takes at most this share of the disk.
const SHARE_OF_DISK: u64 = 16;

/// The small one takes this share of the large one.
const SHARE_OF_RESERVE: u64 = 8;

/// The reserves of one data folder.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: DiskRef,
    clock: ClockRef,
    folder: PathBuf,
    path: PathBuf,
    bytes: u64,
    start_path: PathBuf,
    start_bytes: u64,
    held: AtomicBool,
    next_try: Mutex<Duration>,
}

impl Reserve {
    /// Does not take it yet.
    pub(crate) fn new(disk: DiskRef, clock: ClockRef, folder: &Folder, bytes: u64) -> io::Result<Self> {
        let bytes = bytes.min(disk.space(folder.path())?.total / SHARE_OF_DISK);
        Ok(Reserve {
            disk,
            clock,
            folder: folder.path().to_owned(),
            path: folder.reserve(),
            bytes,
            start_path: folder.start_reserve(),
            start_bytes: bytes / SHARE_OF_RESERVE,
            held: AtomicBool::new(bytes == 0),
            next_try: Mutex::new(Duration::ZERO),
        })
    }

    /// Whether appends may go on; takes the reserve again when there is room.
    pub(crate) fn may_append(&self) -> bool {
        if self.held.load(Ordering::Relaxed) {
            return true;
        }
        let mut next = self.next_try.lock();
        let now = self.clock.monotonic();
        if now < *next {
            return self.held.load(Ordering::Relaxed);
        }
        *next = now + RETRY_INTERVAL;
        self.take()
    }

    /// Takes the reserves if the disk has room for them and some more.
    pub(crate) fn take(&self) -> bool {
        let taken = self.try_take(&self.start_path, self.start_bytes).and_then(|small| {
            let large = self.try_take(&self.path, self.bytes)?;
            Ok(small && large)
        });
        let taken = taken.unwrap_or_else(|e| {
            if !is_full(&e) {
                tracing::warn!(path = %self.path.display(), error = %e, "cannot keep room back on the disk");
            }
            // Without room nothing may be appended; any other failure must not stop ingest.
            !is_full(&e)
        });
        self.held.store(taken, Ordering::Relaxed);
        taken
    }

    fn try_take(&self, path: &Path, bytes: u64) -> io::Result<bool> {
        let file = match self.disk.open(path, OpenHow::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.open(path, OpenHow::CreateNew)?,
            opened => opened?,
        };
        if file.len()? == bytes {
            return Ok(true);
        }
        if self.free()? < bytes + bytes / 4 {
            return Ok(false);
        }
        file.allocate(0, bytes)?;
        // With the length set, no file system takes the room for a left-over beyond the end and frees it.
        file.set_len(bytes)?;
        file.allocate(0, bytes)?;
        Ok(true)
    }

    /// Gives it up. True when there was something to give.
    pub(crate) fn give(&self) -> bool {
        if self.bytes == 0 || !self.held.swap(false, Ordering::Relaxed) {
            return false;
        }
        *self.next_try.lock() = self.clock.monotonic() + RETRY_INTERVAL;
        tracing::warn!(path = %self.path.display(), bytes = self.bytes, "disk full: gave up the reserve, appends are refused");
        self.empty(&self.path)
    }

    /// Gives up what an earlier process kept back, when the disk has less than `bytes` left: first the large one.
    pub(crate) fn give_if_short(&self, bytes: u64) {
        for path in [&self.path, &self.start_path] {
            if self.free().is_ok_and(|free| free < bytes) {
                self.empty(path);
            }
        }
    }

    fn empty(&self, path: &Path) -> bool {
        self.disk
            .open(path, OpenHow::Write)
            .and_then(|file| file.set_len(0))
            .is_ok()
    }

    /// What the disk has left.
    pub(crate) fn free(&self) -> io::Result<u64> {
        Ok(self.disk.space(&self.folder)?.free)
    }
}
