//! Room kept back on the disk for the day when it is full.
//!
//! At the first "no space left" the reserve is given up, so that what frees space (delete, persist, the metastore's own commits) can
//! still write; appends are refused until there is room for the reserve again. So a full disk ends ingest first and nothing else.

use crate::folder::Folder;
use forebay_runtime::{
    clock::ClockRef,
    disk::{DiskRef, OpenHow, is_full},
};
use parking_lot::Mutex;
use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// While it is given up, the disk is asked again after this long.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The reserve takes at most this share of the disk.
const SHARE_OF_DISK: u64 = 16;

/// The reserve of one data folder.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: DiskRef,
    clock: ClockRef,
    folder: PathBuf,
    path: PathBuf,
    bytes: u64,
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

    /// Takes the reserve if the disk has room for it and some more.
    pub(crate) fn take(&self) -> bool {
        let taken = self.try_take().unwrap_or_else(|e| {
            if !is_full(&e) {
                tracing::warn!(path = %self.path.display(), error = %e, "cannot keep room back on the disk");
            }
            // Without room nothing may be appended; any other failure must not stop ingest.
            !is_full(&e)
        });
        self.held.store(taken, Ordering::Relaxed);
        taken
    }

    fn try_take(&self) -> io::Result<bool> {
        let file = match self.disk.open(&self.path, OpenHow::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.open(&self.path, OpenHow::CreateNew)?,
            opened => opened?,
        };
        if file.len()? == self.bytes {
            return Ok(true);
        }
        if self.free()? < self.bytes + self.bytes / 4 {
            return Ok(false);
        }
        file.allocate(0, self.bytes)?;
        // With the length set, no file system takes the room for a left-over beyond the end and frees it.
        file.set_len(self.bytes)?;
        file.allocate(0, self.bytes)?;
        Ok(true)
    }

    /// Gives it up. True when there was something to give.
    pub(crate) fn give(&self) -> bool {
        if self.bytes == 0 || !self.held.swap(false, Ordering::Relaxed) {
            return false;
        }
        *self.next_try.lock() = self.clock.monotonic() + RETRY_INTERVAL;
        self.empty()
    }

    /// Gives up what an earlier process kept back, when the disk has less than `bytes` left.
    pub(crate) fn give_if_short(&self, bytes: u64) {
        if self.free().is_ok_and(|free| free < bytes) {
            self.empty();
        }
    }

    fn empty(&self) -> bool {
        let emptied = self
            .disk
            .open(&self.path, OpenHow::Write)
            .and_then(|file| file.set_len(0));
        if emptied.is_ok() {
            tracing::warn!(path = %self.path.display(), bytes = self.bytes, "disk full: gave up the reserve, appends are refused");
        }
        emptied.is_ok()
    }

    /// What the disk has left.
    pub(crate) fn free(&self) -> io::Result<u64> {
        Ok(self.disk.space(&self.folder)?.free)
    }
}
