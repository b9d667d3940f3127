//! What the engine keeps in the metastore beside the namespace's rows, and what it writes into an inode's `content`.
//!
//! All rows are postcard behind one format byte. The persist queue holds *work*, in the order of its sequence number:
//! written in the same transaction as the change that made it necessary, deleted when the under-store shows it.

use forebay_segment::Layout;
use serde::{Deserialize, Serialize};

/// Content of a file's inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Being written: the bytes are in the unsealed stream (inode, generation). Only parts of sessions have such rows; a plain
    /// file's row is first written, or replaced, at its commit.
    Open,
    /// Sealed and dirty: the only copy is here. `work` is its place in the persist queue, `None` when no mount covers it.
    Sealed {
        /// Where the bytes lie.
        layout: Layout,
        /// Sequence number of its `Work::Put`.
        work: Option<u64>,
        /// CRC32C of the whole content.
        crc: u32,
    },
    /// In the under-store. `layout`: also still here, evictable.
    Persisted {
        /// Where it lies.
        at: StoreAt,
        /// Local copy, when there is one.
        layout: Option<Layout>,
        /// A pending move to the file's present name (after a rename), in the persist queue.
        work: Option<u64>,
    },
}

/// An object in an under-store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAt {
    /// The mount's id.
    pub mount: u32,
    /// The key under the mount's URL.
    pub key: String,
    /// Validator when it was last seen to be ours.
    pub validator: String,
}

/// One piece of the persist queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What is to become true in the under-store.
    pub what: WorkKind,
    /// When it was queued, microseconds since the epoch.
    pub since: i64,
    /// Where it stands.
    pub state: WorkState,
}

/// What is to become true in the under-store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkKind {
    /// The content of this inode at this generation lies under its present name (resolved when the work is claimed and again
    /// just before the visible step). Void when the inode is gone, has a newer generation, or is no longer under a mount.
    Put {
        /// The inode.
        ino: u64,
        /// Its generation.
        generation: u32,
    },
    /// Nothing of ours is at this key: the name was deleted or moved away.
    Remove {
        /// The mount's id.
        mount: u32,
        /// The key.
        key: String,
        /// What we last knew to be there; `None` when an upload of ours may have got there and we were not told.
        validator: Option<String>,
        /// Whether it is a directory (its marker).
        dir: bool,
    },
    /// The directory exists (empty directories are markers on an object store).
    MakeDir {
        /// The directory's inode.
        ino: u64,
    },
    /// What lies under this base path moves under the directory's present path, then its `base` becomes its own path.
    MoveTree {
        /// The directory's inode.
        ino: u64,
        /// The base path that shows through.
        from: Vec<u8>,
    },
}

/// Where a piece of work stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkState {
    /// Waits for its turn (or for its barrier).
    #[default]
    Queued,
    /// An effect may be under way at this key: written before the first byte leaves. The next claimant resumes from here.
    Claimed {
        /// The mount's id.
        mount: u32,
        /// The key.
        key: String,
        /// Token stored with the object.
        token: String,
        /// What had to be there when claimed: `None` nothing, else its validator.
        expect: Option<String>,
        /// The multipart upload, once started.
        upload: Option<String>,
    },
    /// Retrying alone will not help; tried again at least once a minute all the same.
    Blocked {
        /// The store's answer.
        reason: String,
        /// Since when, microseconds since the epoch.
        since: i64,
    },
    /// The target was changed by someone else; waits for a person.
    Conflict {
        /// What happened.
        reason: String,
        /// Since when.
        since: i64,
        /// Validator of what is there now; `None`: nothing.
        theirs: Option<String>,
    },
}

/// First bytes of the engine's tables in the metastore.
pub mod table {
    /// `seq u64` → [`super::Work`].
    pub const WORK: u8 = 0x80;
    /// `mount id u32` → mount row.
    pub const MOUNT: u8 = 0x81;
    /// `session id` → session row.
    pub const SESSION: u8 = 0x82;
    /// `session id, part number u32` → part row.
    pub const PART: u8 = 0x83;
    /// `directory ino u64` → head of a dataset.
    pub const HEAD: u8 = 0x84;
    /// `directory ino u64, version u64` → version row.
    pub const VERSION: u8 = 0x85;
    /// `session id, task key` → winning attempt.
    pub const TASK: u8 = 0x86;
    /// Client tokens of datasets and files → result.
    pub const TOKEN: u8 = 0x87;
    /// Settings of the whole store: cluster id, format.
    pub const META: u8 = 0x88;
    /// `path bytes` → policy.
    pub const POLICY: u8 = 0x89;
}
