//! Persist: the under-store becomes what was acknowledged. (Front page to come with the headings Consistency, Retries,
//! Cancellation, Completion, Crash Consistency.)

use crate::{Cache, Result, rows::WorkKind};
use forebay_namespace::{Path, Plan};
use forebay_runtime::clock::Timestamp;
use std::time::Duration;

/// Handle of the persister.
#[derive(Debug)]
pub(crate) struct Persist {}

impl Persist {
    /// Adds a piece of work to the transaction of the change that makes it necessary; answers its sequence number.
    /// The caller decides whether a mount covers the path (`Mounts::resolve`).
    pub(crate) async fn queue(&self, plan: &mut Plan, what: WorkKind) -> Result<u64> {
        let _ = (plan, what);
        todo!("persist")
    }

    /// After the commit: there is work.
    pub(crate) fn wake(&self) {
        todo!("persist")
    }
}

/// An item that can not go, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Its present path (or `mount URL + key` for a removal).
    pub path: String,
    /// The store's answer.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A target that someone else changed, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its path.
    pub path: String,
    /// Since when.
    pub since: Timestamp,
    /// What happened.
    pub reason: String,
    /// What we would write (size and token), or `deleted`.
    pub mine: String,
    /// What is there (size and validator), or `nothing`.
    pub theirs: String,
}

/// How to resolve a blocked item or a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// Try again now.
    Retry,
    /// Ours replaces theirs.
    KeepMine,
    /// Theirs stays, ours is dropped.
    KeepTheirs,
}

impl Cache {
    /// Persists what lies under `path` before everything else. Answers at once.
    pub async fn persist(&self, path: &Path) -> Result<()> {
        let _ = path;
        todo!("persist")
    }

    /// Waits until all that was acknowledged under `path` before this call is in the under-store, removals and renames too.
    /// Deadline after `timeout`, naming what still waits; Precondition when no mount covers it.
    pub async fn wait_persisted(&self, path: &Path, timeout: Duration) -> Result<()> {
        let _ = (path, timeout);
        todo!("persist")
    }

    /// Resolves what is blocked or in conflict at `path`.
    pub async fn persist_resolve(&self, path: &Path, how: Resolve) -> Result<()> {
        let _ = (path, how);
        todo!("persist")
    }
}
