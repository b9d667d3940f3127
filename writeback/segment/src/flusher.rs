//! Decides when to flush: at once when idle and somebody waits, after a moment when nobody does, and everything that comes in during a
//! flush goes into the next one.
//!
//! When very many come in on their own (not one after the other's acknowledgement), a flush at once would cover a handful, and there
//! would be one every few milliseconds. So a flush that [`CROWD`] or more wait for holds on while more keep coming, until there is a
//! lull or [`GATHER_MAX`] has passed. A few writers, each waiting for its own acknowledgement, never meet this.
//!
//! It does not own what a flush is; that is its target's.

use forebay_runtime::{
    clock::ClockRef,
    task::{self, Tasks},
};
use parking_lot::Mutex;
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};

/// So many at a flush are a crowd.
const CROWD: u32 = 16;
/// A crowd that nobody joined for this long has gathered.
const LULL: Duration = Duration::from_millis(1);
/// Longest time that a crowd is waited for.
const GATHER_MAX: Duration = Duration::from_millis(25);

/// Something to flush. Tells by itself everyone whom the outcome concerns.
pub(crate) trait Flush: Debug + Send + Sync + 'static {
    /// Makes everything durable that was there when it was called. Blocks.
    fn flush(&self);
}

/// How soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Demand {
    /// Nobody waits: after the delay.
    Soon,
    /// As soon as the flush under way, if any, has ended.
    Now,
}

/// What was asked for since the last flush began.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    demand: Option<Demand>,
    /// How many wait.
    waiting: u32,
}

/// Runs the flushes of one target, one at a time, in a task that lives while there is something to do.
#[derive(Debug)]
pub(crate) struct Flusher {
    name: &'static str,
    tasks: Tasks,
    clock: ClockRef,
    delay: Duration,
    wanted: Mutex<Wanted>,
    running: watch::Sender<bool>,
    hurry: Notify,
}

impl Flusher {
    pub(crate) fn new(name: &'static str, tasks: Tasks, clock: ClockRef, delay: Duration) -> Arc<Self> {
        Arc::new(Flusher {
            name,
            tasks,
            clock,
            delay,
            wanted: Mutex::default(),
            running: watch::Sender::new(false),
            hurry: Notify::new(),
        })
    }

    /// Asks for a flush of `target` that begins after this call.
    pub(crate) fn demand(self: &Arc<Self>, demand: Demand, target: &Arc<impl Flush>) {
        let start = {
            let mut wanted = self.wanted.lock();
            wanted.demand = wanted.demand.max(Some(demand));
            wanted.waiting += u32::from(demand == Demand::Now);
            !self.running.send_replace(true)
        };
        if start {
            let (flusher, target) = (Arc::clone(self), Arc::clone(target));
            // `idle` waits for it.
            self.tasks.spawn(self.name, flusher.run(target));
        } else if demand == Demand::Now {
            self.hurry.notify_one();
        }
    }

    /// Returns when nothing is under way and nothing was asked for.
    pub(crate) async fn idle(&self) {
        // The sender lives as long as `self`.
        let _ = self.running.subscribe().wait_for(|running| !running).await;
    }

    async fn run(self: Arc<Self>, target: Arc<impl Flush>) {
        let _stopped = Stopped(&self);
        loop {
            let wanted = *self.wanted.lock();
            if wanted.demand == Some(Demand::Soon) {
                tokio::select! {
                    biased;
                    () = self.clock.sleep(self.delay) => {}
                    () = self.hurry.notified() => {}
                }
            } else if wanted.waiting >= CROWD {
                self.gather(wanted.waiting).await;
            }
            *self.wanted.lock() = Wanted::default();
            let flushed = Arc::clone(&target);
            task::blocking(move || flushed.flush()).await;
            let wanted = self.wanted.lock();
            if wanted.demand.is_none() {
                self.running.send_replace(false);
                return;
            }
        }
    }

    /// Waits while more keep coming.
    async fn gather(&self, mut waiting: u32) {
        let end = self.clock.monotonic() + GATHER_MAX;
        loop {
            self.clock.sleep(LULL).await;
            let now = self.wanted.lock().waiting;
            if now == waiting || self.clock.monotonic() >= end {
                return;
            }
            waiting = now;
        }
    }
}

/// However the task ends, the next demand starts a new one.
struct Stopped<'a>(&'a Flusher);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.running.send_if_modified(|running| {
            // After a regular end a new task may already run; only an early end leaves the flag to us.
            let abandoned = *running && std::thread::panicking();
            *running &= !abandoned;
            abandoned
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_runtime::clock::RealClock;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    struct Counted {
        asked: AtomicU64,
        flushed: AtomicU64,
        flushes: AtomicU64,
    }

    impl Flush for Counted {
        fn flush(&self) {
            let asked = self.asked.load(Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            self.flushed.store(asked, Ordering::SeqCst);
            self.flushes.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_demand_is_followed_by_a_flush_and_many_share_one() {
        let target = Arc::new(Counted::default());
        let flusher = Flusher::new(
            "test",
            Tasks::new("test"),
            RealClock::shared(),
            Duration::from_millis(1),
        );
        for i in 0..1000u64 {
            target.asked.fetch_add(1, Ordering::SeqCst);
            flusher.demand(if i % 7 == 0 { Demand::Now } else { Demand::Soon }, &target);
            if i % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        flusher.idle().await;
        assert_eq!(target.flushed.load(Ordering::SeqCst), 1000);
        assert!(target.flushes.load(Ordering::SeqCst) <= 200);
    }
}
