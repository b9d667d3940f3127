//! Names: keys, inodes, the overlay of rows over a base listing, and the rules of create, rename, unlink and rmdir, planned as
//! conditional commits on a metastore. It knows nothing of sockets, FUSE or bytes: what a file contains is an opaque `content`.

use async_trait::async_trait;
use bytes::Bytes;
use forebay_metastore::{Check, Op};
use forebay_runtime::clock::Timestamp;
use std::{collections::BTreeMap, fmt::Debug};

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
    /// Names that lead here; 0: unlinked, living on for whoever holds it open.
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
}

/// What the base (the mounts' under-stores) has at a path. Implemented by the engine.
#[async_trait]
pub trait Base: Debug + Send + Sync {
    /// What is at `path` in the base, by its mount.
    async fn stat(&self, path: &Path) -> Result<Option<BaseEntry>, BaseError>;
    /// Up to `limit` names in directory `path` greater than `after`, in byte order.
    async fn list(&self, path: &Path, after: Option<&[u8]>, limit: usize) -> Result<Vec<BaseEntry>, BaseError>;
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
}

/// The base could not answer: what the under-store said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BaseError(pub String);

/// An absolute, normalised path: components of any bytes but `/` and NUL, at most 255 each, at most 4096 in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Vec<u8>>);

/// Checks and ops to go into one transaction; plans of several operations may be merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Conditions.
    pub checks: Vec<Check>,
    /// Writes.
    pub ops: Vec<Op>,
}

// API to be provided (owner: namespace), used by forebay-writeback. All paths absolute.
//
// impl Path { root(), parse(&[u8]) -> Result<Path, PathError> (rules of INTERFACE.md section 3: absolute, no `.`/`..`/empty/NUL, lengths; a trailing slash is refused except root),
//             components(), parent(), name(), join(name), starts_with(&Path), as_bytes() }   // percent-encoding belongs to the doors
//
// #[derive(Clone)] pub struct Namespace { store: MetaStoreRef, base: Arc<dyn Base>, clock: ClockRef }
// impl Namespace {
//   pub async fn open(store, base, clock) -> Result<Namespace>         // creates the root row when missing (base: itself)
//   // every lookup answers Node::Row{ino, inode, version} | Node::Base(BaseEntry)
//   pub async fn resolve(&self, path) -> Result<Option<Node>>            // no symlink following in the last component; symlinks in the middle are NotADirectory
//   pub async fn inode(&self, ino) -> Result<Option<(Inode, Version)>>
//   pub async fn lookup(&self, parent: Ino, name) -> ...
//   pub async fn list(&self, path, after: Option<&[u8]>, limit) -> Result<Vec<(Vec<u8>, Node)>>     // overlay of rows over base, whiteouts hidden, byte order, bounded page
//   pub async fn path_of(&self, ino) -> Result<Option<Path>>             // current path of a linked inode (dentries are found by a back-link row or field)
//   // plans: they read, decide, and return what to commit plus what it will lead to; the caller may merge own checks/ops in
//   pub async fn plan_create(&self, path, Create{kind, mode, uid, gid, content, size, generation, token, parents: bool, replace: Replace::{Never, File}, ino: Option<Ino>}) -> Result<Planned{plan, ino, replaced: Option<(Ino, Inode)>}>
//   pub async fn plan_update(&self, ino, f: impl FnOnce(&mut Inode)) -> Result<Planned>
//   pub async fn plan_unlink(&self, path) -> Result<Unlinked{plan, node}>     // file or symlink; a base file gets a whiteout; a row inode with nlink 0 is deleted unless held(ino)
//   pub async fn plan_rmdir(&self, path)                                       // NotEmpty; the rmdir phantom is excluded by EmptyRange with guard
//   pub async fn plan_rename(&self, from, to, RenameHow{replace: bool, exchange: bool, parents: bool}) -> Renamed{plan, moved, replaced}   // whole directories; into itself = Invalid; no loops under concurrency (checks share every ancestor of the target); renaming a base directory makes a row at the target with base = the old base path, and a whiteout at the source, in the same plan; renaming a base file: the caller passes the `content` its new row shall have
//   pub async fn plan_link, xattr and setattr via plan_update
//   pub async fn commit(&self, plan: Plan, token: Option<Token>) -> Result<Committed, NsError>     // Conflict bubbles up as NsError::Conflict; `retry(|| async {..})` helper re-plans with jitter up to a bound
//   pub async fn plan_forget(&self, ino)    // after persist: row + dentry go, the base shows through again (D1); refused by check when anything changed
// }
// keys (module `keys`): one byte of table, then big-endian numbers; `I ino`, `D parent name`, plus a public range of table bytes reserved for the engine (0x80..).
// enum NsError { NotFound(Path), Exists(Path), NotADirectory(Path), IsADirectory(Path), NotEmpty(Path), Invalid(String), Conflict, Unknown(String), Base(BaseError), Meta(MetaError), TooMany.. }
