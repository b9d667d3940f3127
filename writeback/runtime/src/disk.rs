//! The file system as the engine sees it: blocking calls on explicit offsets, and nothing that a crash could not undo
//! unless it was synced. `RealDisk` is the machine's; `SimDisk` loses what was not synced and fails on demand.

mod mounted;
mod real;
mod sim;

pub use mounted::MountedDisks;
pub use real::RealDisk;
pub use sim::{Calls, Fault, SimDisk};

use bytes::Bytes;
use std::{fmt::Debug, io, ops::Range, os::fd::RawFd, path::Path, path::PathBuf, sync::Arc};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow {
    /// Existing, read only.
    Read,
    /// Existing, read and write.
    Write,
    /// Must not exist; read and write.
    CreateNew,
}

/// What to look for in a file with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// Bytes that somebody wrote.
    Data,
    /// A hole; the end of the file is one, too.
    Hole,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEntry {
    /// File name within the folder.
    pub name: String,
    /// Length in bytes; 0 for folders.
    pub len: u64,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Room on the file system that holds a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total: u64,
    /// What an ordinary user may still write.
    pub free: u64,
    /// Whether its contents survive a power cut (false for tmpfs and ramfs).
    pub durable: bool,
}

/// A file system. All calls block.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a folder and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the folder's entries durable (fsync of the folder).
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file over whatever is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Open handles and mappings of it stay good.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The folder's entries, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<DiskEntry>>;
    /// Room on the file system under `path`, or under its nearest existing ancestor.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Which file system holds `path`: folders that share their room have the same.
    fn device(&self, path: &Path) -> io::Result<u64>;
    /// Takes an exclusive lock on `path` (created when missing) for the life of the answer. `WouldBlock` when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Debug + Send + Sync>>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Debug + Send + Sync {
    /// Reads up to `out.len()` bytes at `offset`; short only at the end of the file.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `chunks`, one after the other, at `offset`.
    fn write_all_at(&self, chunks: &[Bytes], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, over what is there: [`DiskFile::write_all_at`] for bytes that are only lent.
    fn write_slice_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync. After an error nothing of this file may be acknowledged again.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves room without changing the length (`fallocate` with `KEEP_SIZE`); a file system without it answers Ok.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Reserves room for `range` and extends a shorter file to its end with zeros. When there is no room for all of it, a part may be
    /// reserved and the file longer.
    fn allocate_extending(&self, range: Range<u64>) -> io::Result<()>;
    /// Makes zeros of `range` as far as the file reaches and gives their room back. The length stays.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;
    /// The next place at or behind `from` where there is what is looked for; `None` at or behind the end of the file. A file system that
    /// knows of no holes answers that everything is data.
    fn seek(&self, from: u64, what: Seek) -> io::Result<Option<u64>>;
    /// Begins to write to the disk what was not yet, without waiting, so that the flush to come is short. A hint: what fails of it, the flush
    /// tells.
    fn start_write_back(&self);
    /// Forgets what memory holds of the file and the disk has, so that the next read asks the disk: after a failed flush memory shows
    /// bytes that the disk never got. What is still to be written stays.
    fn forget_cached(&self) -> io::Result<()>;
    /// The first `len` bytes as shared memory: a read-only mapping on a real disk. Bytes beyond the end may not be touched,
    /// and the file may not be cut while the answer lives.
    fn map(&self, len: u64) -> io::Result<Bytes>;
    /// The descriptor, where there is one.
    fn raw_fd(&self) -> Option<RawFd>;
}

/// Shared handle to a disk.
pub type DiskRef = Arc<dyn Disk>;

/// Whether the system said that there is no room left (bytes, inodes or quota).
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Where a disk error happened.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}")]
pub struct DiskError {
    /// What was tried.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}
