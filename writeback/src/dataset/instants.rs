//! Instants at which several datasets change together, for readers that look at one after the other.
//!
//! A directory of folders `k=v` is read by a walk. A publish of several of these folders is one transaction, but a walk that is under
//! way would find some folders as they were before it and others as they are after it. So a walk is made again when such a publish
//! happened meanwhile; and where they happen all the time, the last walk holds them up until it is through.

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Looks that do not hold up publishes.
pub(super) const LOOKS: usize = 3;

/// The publishes of several datasets.
#[derive(Debug, Default)]
pub(super) struct Instants {
    turn: RwLock<()>,
    count: AtomicU64,
}

/// A publish of several datasets that is being committed.
#[derive(Debug)]
pub(super) struct Instant<'a> {
    count: &'a AtomicU64,
    _alone: RwLockWriteGuard<'a, ()>,
}

impl Instants {
    /// To be held while the transaction is committed.
    pub(super) async fn change(&self) -> Instant<'_> {
        let alone = self.turn.write().await;
        Instant {
            count: &self.count,
            _alone: alone,
        }
    }

    /// How many there were; waits for one that is being committed.
    pub(super) async fn count(&self) -> u64 {
        let _settled = self.turn.read().await;
        self.count.load(Ordering::Acquire)
    }

    /// Holds them up.
    pub(super) async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().await
    }
}

impl Drop for Instant<'_> {
    fn drop(&mut self) {
        // Also where the outcome is unknown.
        self.count.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn whoever_counts_waits_for_the_commit_and_sees_that_it_was() {
        let instants = Instants::default();
        let before = instants.count().await;
        let change = instants.change().await;
        assert_eq!(instants.count().now_or_never(), None);
        drop(change);
        assert_eq!(instants.count().await, before + 1);
        let held = instants.hold().await;
        assert!(instants.change().now_or_never().is_none());
        drop(held);
        drop(instants.change().await);
        assert_eq!(instants.count().await, before + 2);
    }
}
