//! Decides when to flush: at once when idle and somebody waits, after a moment when nobody does, and everything that comes in during a
//! flush goes into the next one.
//!
//! A flush holds on while streams are on their way to it ([`Coming`]), until all are there, none came for a moment ([`LULL`]), or
//! [`GATHER_MAX`] has passed: with many writers a flush at once would cover a handful of them. A lonely writer waits for nobody.
//!
//! It does not own what a flush is; that is its target's.

use crate::coming::Coming;
use forebay_runtime::{
    clock::ClockRef,
    task::{self, Tasks},
};
use parking_lot::Mutex;
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

/// Those who did not come for this long are held up by something else.
const LULL: Duration = Duration::from_millis(5);
/// Longest time that a flush holds on.
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

/// Runs the flushes of one target, one at a time, in a task that lives while there is something to do.
#[derive(Debug)]
pub(crate) struct Flusher {
    name: &'static str,
    tasks: Tasks,
    clock: ClockRef,
    delay: Duration,
    /// Who may be waited for.
    coming: Option<Arc<Coming>>,
    /// What was asked for since the last flush began.
    wanted: Mutex<Option<Demand>>,
    running: watch::Sender<bool>,
    /// Somebody waits.
    hurry: Notify,
}

impl Flusher {
    pub(crate) fn new(name: &'static str, tasks: Tasks, clock: ClockRef, delay: Duration) -> Arc<Self> {
        Arc::new(Flusher {
            name,
            tasks,
            clock,
            delay,
            coming: None,
            wanted: Mutex::default(),
            running: watch::Sender::new(false),
            hurry: Notify::new(),
        })
    }

    /// As [`Flusher::new`], holding on for those who are on their way.
    pub(crate) fn gathering(
        coming: &Arc<Coming>,
        name: &'static str,
        tasks: Tasks,
        clock: ClockRef,
        delay: Duration,
    ) -> Arc<Self> {
        let mut flusher = Self::new(name, tasks, clock, delay);
        let fresh = Arc::get_mut(&mut flusher).expect("nobody else has it yet");
        fresh.coming = Some(Arc::clone(coming));
        flusher
    }

    /// Asks for a flush of `target` that begins after this call.
    pub(crate) fn demand(self: &Arc<Self>, demand: Demand, target: &Arc<impl Flush>) {
        let start = {
            let mut wanted = self.wanted.lock();
            *wanted = wanted.max(Some(demand));
            !self.running.send_replace(true)
        };
        if start && demand == Demand::Now && !task::is_simulated() && !self.awaits_anyone() {
            let (flusher, target, runtime) = (Arc::clone(self), Arc::clone(target), Handle::current());
            self.tasks.start_blocking(self.name, move || {
                let stopped = Stopped(&flusher);
                if !flusher.flush(&*target) {
                    drop(stopped);
                    let _entered = runtime.enter();
                    flusher.start(&target);
                }
            });
        } else if start {
            self.start(target);
        } else if demand == Demand::Now {
            self.hurry.notify_one();
        }
    }

    /// Flushes in a task until nothing more is asked for.
    fn start(self: &Arc<Self>, target: &Arc<impl Flush>) {
        let (flusher, target) = (Arc::clone(self), Arc::clone(target));
        // `idle` waits for it.
        self.tasks.spawn(self.name, flusher.run(target));
    }

    fn awaits_anyone(&self) -> bool {
        self.coming.as_ref().is_some_and(|coming| coming.any())
    }

    /// One flush. Whether nothing was asked for since it began: then nothing is under way any more.
    fn flush(&self, target: &impl Flush) -> bool {
        *self.wanted.lock() = None;
        target.flush();
        let wanted = self.wanted.lock();
        if wanted.is_none() {
            self.running.send_replace(false);
        }
        wanted.is_none()
    }

    /// Returns when nothing is under way and nothing was asked for.
    pub(crate) async fn idle(&self) {
        // The sender lives as long as `self`.
        let _ = self.running.subscribe().wait_for(|running| !running).await;
    }

    async fn run(self: Arc<Self>, target: Arc<impl Flush>) {
        let _stopped = Stopped(&self);
        loop {
            if *self.wanted.lock() == Some(Demand::Soon) {
                tokio::select! {
                    biased;
                    () = self.clock.sleep(self.delay) => {}
                    () = self.hurry.notified() => {}
                }
            }
            if let Some(coming) = &self.coming {
                self.gather(coming).await;
            }
            let (flusher, flushed) = (Arc::clone(&self), Arc::clone(&target));
            if task::blocking(move || flusher.flush(&*flushed)).await {
                return;
            }
        }
    }

    /// Holds on for those who are on their way.
    async fn gather(&self, coming: &Coming) {
        let end = self.clock.monotonic() + GATHER_MAX;
        while coming.any() && self.clock.monotonic() < end {
            tokio::select! {
                biased;
                () = self.hurry.notified() => {}
                () = self.clock.sleep(LULL) => return,
            }
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
    use forebay_runtime::clock::{RealClock, SimClock, Timestamp};
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

    #[tokio::test(start_paused = true)]
    async fn a_flush_holds_on_for_those_who_are_on_their_way_and_for_nobody_else() {
        let (target, clock) = (Arc::new(Counted::default()), SimClock::new(Timestamp(0)));
        let coming = Coming::new(clock.clone());
        let flusher = Flusher::gathering(&coming, "test", Tasks::new("test"), clock, Duration::from_millis(1));
        let on_their_way: Vec<_> = (0..100).map(|_| coming.begin()).collect();
        for one in on_their_way {
            drop(one);
            flusher.demand(Demand::Now, &target);
            tokio::task::yield_now().await;
        }
        flusher.idle().await;
        assert_eq!(target.flushes.load(Ordering::SeqCst), 1, "all of them share a flush");
        let held_up = coming.begin();
        flusher.demand(Demand::Now, &target);
        flusher.idle().await;
        assert_eq!(
            target.flushes.load(Ordering::SeqCst),
            2,
            "who does not come holds nobody up for long"
        );
        drop(held_up);
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
