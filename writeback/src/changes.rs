//! Changes of names and contents, told to doors that remember what they have shown: before the change is acknowledged, so that
//! whoever asks afterwards sees it through every door.
//!
//! It does not own what a door does with it, nor changes that the under-store made by itself: those are found when they are looked for.

use crate::{Cache, cache::Inner};
use async_trait::async_trait;
use forebay_namespace::Path;
use parking_lot::RwLock;
use std::{
    fmt::Debug,
    sync::{Arc, Weak},
};

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What is at this name: it is new, gone, or has other content or attributes.
    Name(Path),
    /// What is anywhere under this directory.
    Under(Path),
    /// A name leads elsewhere now, with everything under it.
    Renamed {
        /// The old name.
        from: Path,
        /// The new one.
        to: Path,
        /// What was there is at the old name now.
        exchange: bool,
    },
}

/// Somebody who remembers what was shown.
#[async_trait]
pub trait Observer: Debug + Send + Sync {
    /// A change was committed. It is acknowledged when this returns.
    async fn changed(&self, change: &Change);
}

/// Those who want to know.
#[derive(Debug, Default)]
pub(crate) struct Observers(RwLock<Vec<Weak<dyn Observer>>>);

impl Cache {
    /// Tells `observer` of every change from now on, for as long as it lives.
    pub fn observe(&self, observer: &Arc<dyn Observer>) {
        let mut observers = self.inner.observers.0.write();
        observers.retain(|known| known.strong_count() > 0);
        observers.push(Arc::downgrade(observer));
    }
}

impl Inner {
    /// After the commit of `change`.
    pub(crate) async fn tell(&self, change: Change) {
        let observers: Vec<_> = self.observers.0.read().iter().filter_map(Weak::upgrade).collect();
        for observer in observers {
            observer.changed(&change).await;
        }
    }
}
