//! Whether something was changed since it was looked at, for any number of keys in little memory.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters: so many that the changes of other keys are rarely taken for one's own.
const COUNTERS: usize = 1024;

/// A mount and a key.
pub(super) type At = (u32, String);

/// How often keys were changed, by their hash.
#[derive(Debug)]
pub(super) struct Ages {
    each: [AtomicU64; COUNTERS],
    all: AtomicU64,
}

impl Ages {
    pub(super) fn new() -> Self {
        Self {
            each: std::array::from_fn(|_| AtomicU64::new(0)),
            all: AtomicU64::new(0),
        }
    }

    /// A number that differs once the key was changed.
    pub(super) fn of(&self, at: &At) -> u64 {
        self.counter(at).load(Ordering::SeqCst) + self.all.load(Ordering::SeqCst)
    }

    pub(super) fn change(&self, at: &At) {
        self.counter(at).fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn change_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    fn counter(&self, at: &At) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        at.hash(&mut hasher);
        let slot = usize::try_from(hasher.finish() % COUNTERS as u64);
        &self.each[slot.expect("less than the number of counters")]
    }
}
