//! The handle that doors hold, and the state behind it.
//!
//! Who owns what inside: `names` and `file` change names and content, `dataset` the sessions and heads, `persist` the queue.
//! They meet in metastore transactions: one operation is one [`forebay_namespace::Plan`], to which each module adds its rows.

use crate::{
    AckLevel, Components, Error, Result, Settings,
    changes::Observers,
    clean::Clean,
    collect::Collector,
    dataset::Datasets,
    disks::Disks,
    file::{Dirty, Files},
    mounts::Mounts,
    persist::Persist,
    policy::{Policies, Quotas},
    stats::Stats,
};
use forebay_namespace::{Namespace, Path};
use forebay_runtime::{clock::Timestamp, task::Tasks};
use forebay_segment::SegmentStore;
use std::{future::Future, sync::Arc};

/// A running cache. Cheap to clone; [`Cache::shutdown`] drains it.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

impl Cache {
    /// Wall time, as the cache stamps with it.
    pub fn now(&self) -> Timestamp {
        self.inner.components.clock.now()
    }

    /// Level of a write at `path` that names none: what the policies say there.
    pub fn ack_level_at(&self, path: &Path) -> AckLevel {
        self.inner.ack_level_at(path)
    }

    /// Whether names at `path` may be changed. Denied below a read-only mount.
    pub fn check_changeable(&self, path: &Path) -> Result<()> {
        self.inner.check_writable(path)
    }

    /// Whether an under-store has names at `path` too, which it may change by itself.
    pub fn has_store(&self, path: &Path) -> bool {
        self.inner.mounts.resolve(path).is_some()
    }

    /// Total and free bytes of the disks that hold the data folders.
    pub fn space(&self) -> Result<(u64, u64)> {
        let space = self.inner.disks.space()?;
        Ok((space.total, space.free))
    }
}

/// What the modules share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) components: Components,
    pub(crate) names: Namespace,
    pub(crate) segments: SegmentStore,
    pub(crate) mounts: Mounts,
    pub(crate) clean: Clean,
    pub(crate) policies: Arc<Policies>,
    pub(crate) quotas: Quotas,
    pub(crate) persist: Persist,
    pub(crate) dirty: Dirty,
    pub(crate) disks: Disks,
    pub(crate) files: Files,
    pub(crate) datasets: Datasets,
    pub(crate) collector: Collector,
    pub(crate) observers: Observers,
    pub(crate) stats: Stats,
    pub(crate) tasks: Tasks,
}

impl Inner {
    /// Runs a change to its end: a caller that goes away meanwhile must not stop it between its commit and what has to follow. The
    /// shutdown waits for it.
    pub(crate) async fn to_the_end<T, F>(&self, name: &'static str, change: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let ended = self.tasks.to_the_end(name, change).await;
        ended.unwrap_or_else(|_| {
            Err(Error::internal(format!(
                "{name}: ended without an answer; the log says why"
            )))
        })
    }

    /// What a crash point asks for.
    pub(crate) fn reach(&self, point: Option<String>) -> Result<()> {
        match point {
            Some(text) => Err(Error::internal(format!("stopped by a crash point: {text}"))),
            None => Ok(()),
        }
    }
}
