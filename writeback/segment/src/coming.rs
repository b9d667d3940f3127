//! Streams on their way to a flush: begun a moment ago, and not waiting for one yet. A flush that holds on for them covers them too,
//! and when nobody is on the way it need not wait for anyone.
//!
//! Only those begun within [`YOUNG`] count: a stream that stays open for long says nothing about when its next flush is due.

use forebay_runtime::clock::ClockRef;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A small write asks for its flush within this time, or it is held up by something else.
const YOUNG: Duration = Duration::from_millis(25);

/// When each of them was begun, with a number of its own.
type Begun = (Duration, u64);

/// The streams of one log that are on their way.
#[derive(Debug)]
pub(crate) struct Coming {
    clock: ClockRef,
    begun: Mutex<BTreeSet<Begun>>,
    next: AtomicU64,
}

/// One stream on its way; it has arrived, or will not, when this is dropped.
#[derive(Debug)]
pub(crate) struct OnTheWay {
    coming: Arc<Coming>,
    begun: Begun,
}

impl Coming {
    pub(crate) fn new(clock: ClockRef) -> Arc<Self> {
        Arc::new(Coming {
            clock,
            begun: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// A stream is begun.
    pub(crate) fn begin(self: &Arc<Self>) -> OnTheWay {
        let begun = (self.clock.monotonic(), self.next.fetch_add(1, Ordering::Relaxed));
        self.begun.lock().insert(begun);
        OnTheWay {
            coming: Arc::clone(self),
            begun,
        }
    }

    /// Whether anyone is on the way.
    pub(crate) fn any(&self) -> bool {
        let last = self.begun.lock().last().map(|(begun, _)| *begun);
        last.is_some_and(|begun| self.clock.monotonic().saturating_sub(begun) < YOUNG)
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.coming.begun.lock().remove(&self.begun);
    }
}
