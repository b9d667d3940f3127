//! Forebay as files.
//!
//! Floor plan: [`Volume`] is a file system over the cache that knows nothing of the kernel and is tested without one; `session`
//! translates the kernel's requests into its operations and its answers back; `notify` tells the kernel, from a thread of its own, what
//! other doors changed; `workers` are the threads on which requests wait; [`Mounted`] is one mount from its beginning to its end;
//! `mounts` reads the list of mounts, and `dead` knows what to do with those whose process is gone;
//! [`Errno`] is what programs see of an error.
//!
//! # What is promised
//!
//! `write` promises nothing. `fsync`, `fdatasync` and `close` answer when what was written is durable at the cache's level; after `close`
//! every door sees it whole. `rename`, `unlink`, `mkdir` and the like are durable when they answer, so `fsync` of a directory has nothing
//! to wait for. A file that is being created has its name on this mount at once, and at other doors with its first `close` or `fsync`.
//!
//! # Why a file is written aside and placed
//!
//! A content of the cache is never changed, so that readers, uploads and versions can rely on it. A file that is opened for writing is
//! a draft beside it; placing the draft gives the name a new content in one transaction. The price: changing a part of a file copies
//! the rest once per open.

mod awake;
mod dead;
mod errno;
mod mount;
mod mounts;
mod notify;
mod session;
mod turns;
mod volume;
mod workers;

pub use dead::abort_stuck_mounts;
pub use errno::{Errno, Result};
pub use mount::{MountError, MountOptions, Mounted, unmount};
pub use volume::{
    Attr, Caller, DirEntry, Entry, FileKind, Invalidate, Mode, NodeId, Note, OpenHow, Opened, OpenedDir, ROOT, SetAttr,
    Told, Volume, VolumeOptions,
};
