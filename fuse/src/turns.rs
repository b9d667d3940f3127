//! How many of a mount's threads take requests.
//!
//! A request is answered faster than a second thread wakes to share the work, so with all of them waiting for requests the kernel wakes
//! one after the other, and each finds its processor asleep and its caches cold. Here a thread that has answered rests while others
//! keep up. One that is about to be held up (a large write) steps aside first and has another one take its place; and whoever rests looks
//! every [`REST`] whether requests are still being answered, so that one which is held up without having said so is replaced as well.

use parking_lot::{Condvar, Mutex};
use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

/// How long a thread rests before it looks again.
const REST: Duration = Duration::from_millis(2);

/// Counts who takes requests, and holds those who rest.
#[derive(Debug)]
pub(crate) struct Turns {
    /// So many are enough.
    enough: usize,
    /// Threads that take requests or answer one.
    serving: AtomicUsize,
    answered: AtomicU64,
    resting: Mutex<()>,
    wanted: Condvar,
}

/// A thread that does not take requests for a while.
#[derive(Debug)]
pub(crate) struct Aside<'a>(&'a Turns);

impl Turns {
    /// Of so many threads half are enough, and one is when there are two.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            enough: (threads / 2).max(1),
            serving: AtomicUsize::new(threads),
            answered: AtomicU64::new(0),
            resting: Mutex::new(()),
            wanted: Condvar::new(),
        }
    }

    /// This thread has answered; it comes back when it shall take the next request.
    pub(crate) fn answered(&self) {
        let mut seen = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.step_down() {
            return;
        }
        let mut resting = self.resting.lock();
        while self.serving.load(Ordering::Acquire) >= self.enough {
            let looked = self.wanted.wait_for(&mut resting, REST).timed_out();
            let now = self.answered.load(Ordering::Relaxed);
            if looked && now == seen {
                break;
            }
            seen = now;
        }
        self.serving.fetch_add(1, Ordering::AcqRel);
    }

    /// One less, if the others are enough.
    fn step_down(&self) -> bool {
        let enough = |serving| (serving > self.enough).then(|| serving - 1);
        self.serving
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, enough)
            .is_ok()
    }

    /// This thread may be held up from here until it lets go of what it gets.
    pub(crate) fn aside(&self) -> Aside<'_> {
        if self.serving.fetch_sub(1, Ordering::AcqRel) <= self.enough {
            // Under the lock, so that nobody goes to rest between its look and its wait.
            let _resting = self.resting.lock();
            self.wanted.notify_one();
        }
        Aside(self)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.serving.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread, time::Instant};

    fn wait_for(what: &str, reached: impl Fn() -> bool) {
        let began = Instant::now();
        while !reached() {
            assert!(began.elapsed() < Duration::from_secs(10), "{what}");
            thread::sleep(REST / 8);
        }
    }

    /// One of two threads rests; the other is this one.
    fn resting() -> (Arc<Turns>, thread::JoinHandle<()>) {
        let turns = Arc::new(Turns::new(2));
        let shared = Arc::clone(&turns);
        let other = thread::spawn(move || shared.answered());
        wait_for("it goes to rest", || turns.serving.load(Ordering::Acquire) == 1);
        (turns, other)
    }

    #[test]
    fn one_rests_while_the_other_answers_and_comes_back_when_it_does_not() {
        let (turns, other) = resting();
        let (began, mut gap) = (Instant::now(), Duration::ZERO);
        while began.elapsed() < REST * 10 {
            let answered = Instant::now();
            turns.answered();
            thread::sleep(REST / 8);
            gap = gap.max(answered.elapsed());
        }
        // A busy machine may hold this thread up for longer than a rest; then the other one is right to come back.
        let rested = !other.is_finished();
        wait_for("the other one comes back", || other.is_finished());
        assert!(rested || gap > REST, "it came back though requests were answered");
        other.join().unwrap();
        assert_eq!(turns.serving.load(Ordering::Acquire), 2);
    }

    #[test]
    fn whoever_steps_aside_is_replaced_at_once() {
        let (turns, other) = resting();
        let aside = turns.aside();
        wait_for("it is replaced", || other.is_finished());
        drop(aside);
        other.join().unwrap();
        assert_eq!(turns.serving.load(Ordering::Acquire), 2);
    }

    #[test]
    fn the_last_one_never_rests() {
        let turns = Turns::new(1);
        turns.answered();
        let _aside = turns.aside();
        assert_eq!(turns.serving.load(Ordering::Acquire), 0);
    }
}
