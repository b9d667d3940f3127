//! Names: keys, inodes, the overlay of rows over a base listing, and the rules of create, rename, unlink and rmdir, planned as
//! conditional commits on a metastore. It knows nothing of sockets, FUSE or bytes: what a file contains is an opaque `content`.
//!
//! # How a name is found
//!
//! Identity is the inode, never the path. A *dentry* row (directory, name) leads to an inode row. Where there is no dentry, the
//! directory's *base* shows through: what the under-store has at the base path that the directory remembers. A *whiteout* row
//! (directory, name) hides a base name; it may lie under a dentry, and then says what shows when the dentry goes.
//! Directories that exist only in the base have no row until something below them changes; files of the base none until they do.
//!
//! # How a name changes
//!
//! Every change is a [`Plan`] of checks and writes that the metastore commits or refuses as a whole. A [`Planner`] takes several
//! operations into one plan, the later ones seeing the earlier ones.
//!
//! - A create shares its parent's inode row and never writes it, so that creates in one directory do not wait for each other.
//!   Therefore a directory's times are those of its own creation, rename or setattr (or its base's), not of its last new entry.
//! - rmdir asks that no dentry of the directory exists, with the directory's inode row as the guard that creates share.
//! - A directory's rename shares every ancestor of the target, and writes the inode row of what it moves (the row holds the way
//!   back to the name), so two renames can not make a loop.
//! - A renamed directory keeps the base path that shows through it. [`Namespace::rebase`] ends that once the content was moved.
//! - A file operation does not share its grandparents: an ancestor renamed meanwhile takes the new file with it.
//!
//! # What it does not own
//!
//! Who is allowed, what the content means, when something is persisted. The engine implements [`Base`] and decides those.

mod collect;
mod create;
mod error;
pub mod keys;
mod namespace;
mod path;
mod plan;
mod planner;
mod read;
mod remove;
mod rename;
mod retry;
mod row;
mod settle;
#[cfg(test)]
mod tests;

pub use collect::Collected;
pub use create::{Create, Planned, Replace};
pub use error::{NsError, Result};
pub use namespace::Namespace;
pub use path::{NAME_BYTES_MAX, PATH_BYTES_MAX, Path, PathError};
pub use plan::Plan;
pub use planner::Planner;
pub use read::LIST_PAGE_MAX;
pub use remove::Unlinked;
pub use rename::{RenameHow, Renamed};
pub use retry::retry;
pub use settle::Whiteout;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_metastore::{MetaStoreRef, Version};
use forebay_runtime::clock::{ClockRef, Timestamp};
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

/// Number of an inode. 1 is the root. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Ino(pub u64);

/// The root directory.
pub const ROOT: Ino = Ino(1);

/// An inode row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that lead here, and whatever else keeps it (the engine counts a dataset's version by [`Plan::amend`]); the row goes
    /// when the last one goes. 0: it has no name, and lives on for whoever claims it.
    pub nlink: u32,
    /// Bytes of a file at its last seal or size change.
    pub size: u64,
    /// Grows when a file's content is written anew.
    pub generation: u32,
    /// Last content change.
    pub mtime: Timestamp,
    /// Last change of any kind.
    pub ctime: Timestamp,
    /// Last access, as far as it is kept.
    pub atime: Timestamp,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The engine's word on the content; opaque here.
    pub content: Bytes,
    /// The client's idempotency token of the call that created it.
    pub token: Option<String>,
}

impl Inode {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir { .. })
    }

    /// Takes mode, owner and extended attributes of what it replaces.
    pub fn inherit(&mut self, old: &Node) {
        match old {
            Node::Row { inode: old, .. } => {
                (self.mode, self.uid, self.gid) = (old.mode, old.uid, old.gid);
                self.xattrs.clone_from(&old.xattrs);
            }
            Node::Base { entry, .. } => {
                (self.uid, self.gid) = entry.owner();
                (self.mode, self.xattrs) = (entry.mode(), entry.xattrs());
            }
        }
    }
}

/// Kinds of inode.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory. Where `base` is a path (in text form, as `Path::as_bytes`), the base's listing of that path shows through under
    /// the rows. It is the directory's own path unless the directory was renamed and its base content has not been moved yet,
    /// so that renaming a directory is one commit however much lies under it. `None`: nothing shows through.
    Dir {
        /// The base path that shows through.
        base: Option<Vec<u8>>,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A pipe, socket or device: a name for something that the kernel keeps.
    Special {
        /// The bits of `S_IFMT`.
        format: u32,
        /// Number of a device.
        rdev: u32,
    },
}

/// What the base (the mounts' under-stores) has at a path. Implemented by the engine.
#[async_trait]
pub trait Base: Debug + Send + Sync {
    /// What is at `path` in the base, by its mount.
    async fn stat(&self, path: &Path) -> Result<Option<BaseEntry>, BaseError>;
    /// Up to `limit` names in directory `path` greater than `after`, in byte order; fewer than `limit`: the end.
    /// None when there is no such directory.
    async fn list(&self, path: &Path, after: Option<&[u8]>, limit: usize) -> Result<Vec<BaseEntry>, BaseError>;
    /// The `content` that the first row of this base file shall have, when it is about to be renamed or otherwise changed.
    fn adopt(&self, path: &Path, entry: &BaseEntry) -> Bytes;
    /// Whether the base may show something at `path` now or later (an upload under way counts), once the row `inode` no longer
    /// lies over it. A whiteout is written when it may. `true` is always safe; `false` saves a row where no mount covers the path.
    fn may_show(&self, _path: &Path, _inode: &Inode) -> bool {
        true
    }
    /// Whether the base keeps back what it has at `path`: a file there shows by its row alone, which then has to stay.
    fn hides(&self, _path: &Path) -> bool {
        false
    }
}

/// An entry of the base: clean, without a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseEntry {
    /// Last component.
    pub name: Vec<u8>,
    /// Directory or file.
    pub is_dir: bool,
    /// Bytes.
    pub size: u64,
    /// Last change.
    pub mtime: Timestamp,
    /// Recognises a change; opaque here.
    pub validator: String,
    /// What the base tells of it that is not as usual.
    pub attributes: Option<Arc<BaseAttributes>>,
}

/// What a name of the base has that is not as usual: mode 644 (a directory: 755), user and group 0, no extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseAttributes {
    /// Permission bits, 0o7777, if they are not the usual ones.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl BaseEntry {
    /// Permission bits, 0o7777.
    pub fn mode(&self) -> u32 {
        let usual = if self.is_dir { 0o755 } else { 0o644 };
        self.attributes.as_ref().and_then(|a| a.mode).unwrap_or(usual)
    }

    /// User and group.
    pub fn owner(&self) -> (u32, u32) {
        self.attributes.as_ref().map_or((0, 0), |a| (a.uid, a.gid))
    }

    /// Extended attributes.
    pub fn xattrs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.attributes.as_ref().map(|a| a.xattrs.clone()).unwrap_or_default()
    }
}

/// The base could not answer: what the under-store said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BaseError(pub String);

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A row of ours.
    Row {
        /// Its number.
        ino: Ino,
        /// Its row.
        inode: Inode,
        /// The row's version; 0 inside a [`Planner`] that wrote it and is not committed yet.
        version: Version,
    },
    /// The base's, without a row.
    Base {
        /// Where it lies in the base: the visible path, or another one under a renamed directory.
        at: Path,
        /// What it is.
        entry: BaseEntry,
    },
}

impl Node {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        match self {
            Node::Row { inode, .. } => inode.is_dir(),
            Node::Base { entry, .. } => entry.is_dir,
        }
    }

    /// User and group that own it.
    pub fn owner(&self) -> (u32, u32) {
        match self {
            Node::Row { inode, .. } => (inode.uid, inode.gid),
            Node::Base { entry, .. } => entry.owner(),
        }
    }

    /// The inode's number, when it has a row.
    pub fn ino(&self) -> Option<Ino> {
        match self {
            Node::Row { ino, .. } => Some(*ino),
            Node::Base { .. } => None,
        }
    }
}
