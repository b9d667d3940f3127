//! Readers that wait for a store, for those who give way to them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many wait.
#[derive(Debug, Default)]
pub(crate) struct Readers(AtomicUsize);

/// One that waits, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Waits<'a>(&'a AtomicUsize);

impl Readers {
    /// One more.
    pub(crate) fn one(&self) -> Waits<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waits(&self.0)
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
