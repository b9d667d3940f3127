//! Markers of empty directories.
//!
//! On an object store a directory is what lies under its key. One that is empty has a marker, a zero-byte key with a slash at its end, and
//! one that is not has none: other programs take such a key for an object. Which directories have a marker of ours is in one row for each,
//! from before the marker is made until after it is gone, so that a file that arrives asks the store for nothing where there is none.
//!
//! Whoever brings something to the store takes the marker above it away before it records that. Something that arrives while a marker is
//! being made may not have seen the row, so whoever makes one looks once more afterwards; and a store takes none away from a directory that
//! is empty by then. What others put there is theirs.

use super::{clear::Stopped, tracker::At};
use crate::{
    Result,
    cache::Inner,
    mounts::Mount,
    rows::{self, table},
};
use forebay_metastore::{Key, prefix_end};
use forebay_namespace::Plan;
use forebay_understore::StoreError;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Rows read at once.
const PAGE: usize = 1000;

/// Directories that have a marker of ours, or are about to, with what lets one change at a time.
#[derive(Debug, Default)]
pub(super) struct Markers(Mutex<HashMap<At, Turn>>);

type Turn = Arc<tokio::sync::Mutex<()>>;

impl Markers {
    fn has(&self, at: &At) -> bool {
        self.0.lock().contains_key(at)
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// One that is known, or will be.
    fn turn(&self, at: &At) -> Turn {
        Arc::clone(self.0.lock().entry(at.clone()).or_default())
    }

    fn known(&self, at: &At) -> Option<Turn> {
        self.0.lock().get(at).cloned()
    }

    /// Whether it is still the turn of this directory; not when the directory lost its marker since.
    fn is_turn(&self, at: &At, turn: &Turn) -> bool {
        self.0.lock().get(at).is_some_and(|now| Arc::ptr_eq(now, turn))
    }
}

impl Inner {
    /// Reads which there are. At the start.
    pub(super) async fn read_markers(&self) -> Result<()> {
        let end = prefix_end(&[table::MARKER]);
        let mut from: Key = vec![table::MARKER].into();
        loop {
            let page = self.components.meta.scan(from.clone()..end.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = [last.as_ref(), &[0]].concat().into();
            for (_, entry) in page {
                let at: At = rows::decode(&entry.value)?;
                self.persist.markers.turn(&at);
                // What was cut off looks no more.
                if let Some(mount) = self.mounts.by_id(at.0)
                    && !self.is_live_directory(&mount, &at.1).await?
                {
                    self.prune(&at).await?;
                }
            }
        }
    }

    /// Makes the directory, which is empty, in the store.
    pub(super) async fn mark_dir(&self, mount: &Mount, key: &str) -> Result<(), Stopped> {
        if !mount.has_markers() || key.is_empty() {
            return Ok(mount.upload.make_dir(key).await?);
        }
        let at: At = (mount.id, key.to_owned());
        loop {
            let turn = self.persist.markers.turn(&at);
            let _taken = turn.lock().await;
            if self.persist.markers.is_turn(&at, &turn) {
                let mut plan = Plan::default();
                plan.put(rows::marker_key(mount.id, key), rows::encode(&at));
                self.commit(plan).await?;
                let made = mount.upload.make_dir(key).await;
                if !self.is_live_directory(mount, key).await? {
                    return Ok(self.prune(&at).await?);
                }
                made?;
                return self.try_unmark(mount, &at).await;
            }
        }
    }

    /// The directory was removed, or renamed, while its marker was made: whoever clears up after that may have been there before.
    async fn prune(&self, at: &At) -> Result<()> {
        let mut plan = Plan::default();
        self.persist.plan_pruned(&mut plan, at).await?;
        self.commit(plan).await?;
        self.persist.wake();
        Ok(())
    }

    /// Something may have arrived in the directory at `key`: neither it nor one above it is to have a marker then. It fails where the store
    /// is away; a marker that can not be removed stays.
    pub(super) async fn unmark_from(&self, mount: &Mount, key: &str) -> Result<(), Stopped> {
        if self.persist.markers.is_empty() {
            return Ok(());
        }
        let mut at: At = (mount.id, key.to_owned());
        while !at.1.is_empty() {
            self.unmark_if_known(mount, &at).await?;
            at.1 = parent_of(&at.1).to_owned();
        }
        Ok(())
    }

    async fn unmark_if_known(&self, mount: &Mount, at: &At) -> Result<(), Stopped> {
        if !self.persist.markers.has(at) {
            return Ok(());
        }
        match self.unmark_dir(mount, at).await {
            Err(Stopped::Store(error)) if !matches!(error, StoreError::Unavailable(_)) => {
                tracing::debug!(mount = %mount.path, key = at.1, %error, "the marker of a directory stays");
                Ok(())
            }
            unmarked => unmarked,
        }
    }

    /// The directory is not empty any more, or was removed: another one may have its name, and a marker, by now.
    pub(super) async fn unmark_dir(&self, mount: &Mount, at: &At) -> Result<(), Stopped> {
        let Some(turn) = self.persist.markers.known(at) else {
            return Ok(());
        };
        let _taken = turn.lock().await;
        match self.persist.markers.is_turn(at, &turn) {
            true => self.try_unmark(mount, at).await,
            false => Ok(()),
        }
    }

    /// In the directory's turn.
    async fn try_unmark(&self, mount: &Mount, at: &At) -> Result<(), Stopped> {
        if mount.upload.unmark_dir(&at.1).await? {
            self.forget(at).await?;
        }
        Ok(())
    }

    async fn forget(&self, at: &At) -> Result<()> {
        let mut plan = Plan::default();
        plan.delete(rows::marker_key(at.0, &at.1));
        self.commit(plan).await?;
        self.persist.markers.0.lock().remove(at);
        Ok(())
    }
}

/// The directory above a key; empty: the root of the mount.
pub(super) fn parent_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(parent, _)| parent)
}
