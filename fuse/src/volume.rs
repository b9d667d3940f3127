//! A file system over the cache, without any word of the kernel's protocol.
//!
//! | child | owns |
//! |---|---|
//! | `tree` | node numbers and names |
//! | `open` | files that are open: which content, which draft, when it is placed |
//! | `lookup` | attributes of nodes, lookups, how long the kernel may remember them |
//! | `names` | create, mkdir, unlink, rename, links |
//! | `data` | read, write, truncate, fsync, close |
//! | `directory` | listings |
//! | `attributes` | chmod, chown, times, extended attributes |
//! | `observe` | what other doors changed |
//!
//! Locks, in this order: `moving` (shared by whatever goes from a node to a path, alone by a directory's rename), an open file's
//! content, then `tree` or any other for as long as no `await` comes.

mod attributes;
mod data;
mod directory;
mod lookup;
mod names;
mod observe;
mod open;
#[cfg(test)]
mod tests;
mod tree;

pub use attributes::SetAttr;
pub use directory::{DirEntry, OpenedDir};
pub use observe::{Invalidate, Note, Told};
pub use open::{OpenHow, Opened};

use self::{
    directory::DirHandle,
    observe::{Busy, Own},
    open::{Handle, OpenFile},
    tree::{ByNode, Tree},
};
use crate::{Errno, Result};
use dashmap::DashMap;
use forebay_runtime::clock::Timestamp;
use forebay_writeback::{Cache, Path};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Number of a node, as programs see it in `st_ino`.
pub type NodeId = u64;

/// The root directory.
pub const ROOT: NodeId = 1;

/// Longest name.
const NAME_BYTES_MAX: usize = 255;

/// What a mount is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Programs read and write; others may change things at any time.
    #[default]
    Pipeline,
    /// Training reads what is published: the kernel asks as little as possible.
    Dataset,
}

/// How a volume behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeOptions {
    /// What it is for.
    pub mode: Mode,
    /// Refuses changes.
    pub read_only: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kinds of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device: the bits of `S_IFMT`.
    Special(u32),
}

/// Attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that lead to it; 1 for a directory, which says that nobody has counted.
    pub nlink: u32,
    /// Number of a device.
    pub rdev: u32,
    /// Last content change.
    pub mtime: SystemTime,
    /// Last change of any kind.
    pub ctime: SystemTime,
    /// Last access, as far as it was set.
    pub atime: SystemTime,
}

/// A node and how long what is said of it may be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its attributes.
    pub attr: Attr,
    /// How long name and attributes may be remembered without asking.
    pub ttl: Duration,
}

/// The file system.
#[derive(Debug)]
pub struct Volume {
    cache: Cache,
    options: VolumeOptions,
    tree: Mutex<Tree>,
    /// Files that are open, or that have no name in the cache.
    files: Mutex<ByNode<Arc<OpenFile>>>,
    handles: DashMap<u64, Handle>,
    directories: DashMap<u64, Arc<tokio::sync::Mutex<DirHandle>>>,
    next_handle: AtomicU64,
    moving: tokio::sync::RwLock<()>,
    own: Mutex<HashMap<Path, Own>>,
    /// Directories that a change of the volume's own is under way in.
    busy: Mutex<ByNode<Busy>>,
    kernel: OnceLock<Arc<dyn Invalidate>>,
    /// Whether the kernel may read local files by itself.
    passthrough: AtomicBool,
}

impl Volume {
    /// A volume over `cache`. It learns of changes through other doors once [`Volume::follow_changes`] was called.
    pub fn new(cache: Cache, options: VolumeOptions) -> Arc<Self> {
        Arc::new(Self {
            cache,
            options,
            tree: Mutex::new(Tree::new()),
            files: Mutex::default(),
            handles: DashMap::new(),
            directories: DashMap::new(),
            next_handle: AtomicU64::new(1),
            moving: tokio::sync::RwLock::new(()),
            own: Mutex::default(),
            busy: Mutex::default(),
            kernel: OnceLock::new(),
            passthrough: AtomicBool::new(false),
        })
    }

    /// How it behaves.
    pub fn options(&self) -> VolumeOptions {
        self.options
    }

    /// Whether the kernel may read local files by itself.
    pub fn allow_passthrough(&self, allowed: bool) {
        self.passthrough.store(allowed, Ordering::Relaxed);
    }

    /// Nodes that the kernel knows.
    pub fn known_nodes(&self) -> usize {
        self.tree.lock().len()
    }

    /// Total, free bytes of the disk below.
    pub fn space(&self) -> Result<(u64, u64)> {
        Ok(self.cache.space()?)
    }

    fn now(&self) -> Timestamp {
        self.cache.now()
    }

    fn handle_number(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    fn path(&self, node: NodeId) -> Result<Path> {
        self.tree.lock().path(node).ok_or(Errno(libc::ENOENT))
    }

    fn child_path(&self, parent: NodeId, name: &[u8]) -> Result<Path> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        let parent = self.path(parent)?;
        parent.join(name).map_err(|_| Errno(libc::ENAMETOOLONG))
    }

    fn check_changeable(&self, path: &Path) -> Result<()> {
        if self.options.read_only || self.options.mode == Mode::Dataset || self.cache.check_changeable(path).is_err() {
            return Err(Errno(libc::EROFS));
        }
        Ok(())
    }

    /// The file, if it is open.
    fn open_file(&self, node: NodeId) -> Option<Arc<OpenFile>> {
        self.files.lock().get(&node).cloned()
    }
}

/// As the system counts time.
fn system_time(at: Timestamp) -> SystemTime {
    let micros = Duration::from_micros(at.0.unsigned_abs());
    if at.0 < 0 {
        UNIX_EPOCH - micros
    } else {
        UNIX_EPOCH + micros
    }
}

/// As the cache counts time.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Timestamp(match at.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        // Rounded down, as a file system of microseconds does.
        Err(before) => -micros(before.duration() + Duration::from_nanos(999)),
    })
}
