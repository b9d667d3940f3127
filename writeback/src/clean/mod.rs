//! Clean data: what the under-store holds, read through in ranges and cached within a byte limit; and the eviction of local copies
//! of what was persisted. Dirty bytes are not in its reach at all.

use crate::{Cache, Result, mounts::Mount};
use bytes::Bytes;
use forebay_namespace::Path;
use forebay_understore::Validator;
use std::{ops::Range, sync::Arc};

/// The clean cache.
#[derive(Debug)]
pub(crate) struct Clean {}

/// An object of an under-store, open for reading at one validator.
#[derive(Clone, Debug)]
pub(crate) struct CleanReader {
    pub(crate) mount: Arc<Mount>,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) validator: Validator,
}

impl Clean {
    /// Exactly `range` of the object: from the cache, or read through (single flight, prefetch when sequential).
    /// Precondition when the object has changed since it was opened; Unavailable within `under_timeout` when the store is away.
    pub(crate) async fn read(&self, object: &CleanReader, range: Range<u64>) -> Result<Vec<Bytes>> {
        let _ = (object, range);
        todo!("clean cache")
    }

    /// Bytes held.
    pub(crate) fn cached_bytes(&self) -> u64 {
        todo!("clean cache")
    }
}

/// What `free` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Bytes that are no longer held locally.
    pub freed_bytes: u64,
    /// Dirty bytes under the path, which stay.
    pub dirty_bytes: u64,
}

impl Cache {
    /// Loads what lies under `path` into the cache; answers when it has, or at once.
    pub async fn load(&self, path: &Path, wait: bool) -> Result<()> {
        let _ = (path, wait);
        todo!("clean cache")
    }

    /// Drops local copies of clean data under `path`; dirty data stays.
    pub async fn free(&self, path: &Path) -> Result<Freed> {
        let _ = path;
        todo!("clean cache")
    }

    /// Looks again at the under-store below `path`.
    pub async fn sync(&self, path: &Path, wait: bool) -> Result<()> {
        let _ = (path, wait);
        todo!("clean cache")
    }
}
