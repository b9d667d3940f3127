//! Time as the engine sees it: wall time for stamps, monotonic time for deadlines.
//!
//! [`RealClock`] is the machine's. [`SimClock`] rides on tokio's timer, so that in a runtime whose time is paused a sleep costs
//! nothing and its order is decided by the test; its wall clock can be made to jump without touching monotonic time.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This much later; saturates at the ends of the range.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// Time from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A clock that a simulation can hold in its hand.
pub trait Clock: Debug + Send + Sync {
    /// Wall time. It may jump; never compare it for safety.
    fn now(&self) -> Timestamp;
    /// Monotonic time since an arbitrary start. Deadlines and leases use this one.
    fn monotonic(&self) -> Duration;
    /// Completes after `duration` of this clock's monotonic time.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Shared handle to a clock.
pub type ClockRef = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug)]
pub struct RealClock {
    start: std::time::Instant,
}

impl RealClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }

    /// The same, as a shared handle.
    pub fn shared() -> ClockRef {
        Arc::new(Self::new())
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp(micros(after)),
            Err(before) => Timestamp(-micros(before.duration())),
        }
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock for simulations: monotonic time is tokio's, which a test pauses; wall time begins where the test says.
#[derive(Debug)]
pub struct SimClock {
    start: tokio::time::Instant,
    wall_at_start: AtomicI64,
}

impl SimClock {
    /// A clock that shows `wall` now. Call it inside the runtime whose time is paused.
    pub fn new(wall: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            start: tokio::time::Instant::now(),
            wall_at_start: AtomicI64::new(wall.0),
        })
    }

    /// Makes the wall clock jump by so many microseconds, forward or back; monotonic time does not notice.
    pub fn jump(&self, micros: i64) {
        self.wall_at_start.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall_at_start.load(Ordering::Relaxed)).plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_hour_takes_no_real_time_and_both_clocks_show_it() {
        let real = std::time::Instant::now();
        let clock = SimClock::new(Timestamp(1_000));
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.monotonic(), Duration::from_secs(3600));
        assert_eq!(clock.now(), Timestamp(1_000).plus(Duration::from_secs(3600)));
        assert!(real.elapsed() < Duration::from_secs(60), "the sleep was real");
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_wall_clock_leaves_monotonic_time_alone() {
        let clock = SimClock::new(Timestamp(0));
        clock.jump(-5_000_000);
        assert_eq!(
            (clock.now(), clock.monotonic()),
            (Timestamp(-5_000_000), Duration::ZERO)
        );
    }

    #[test]
    fn the_real_clock_shows_this_century() {
        let clock = RealClock::new();
        assert!(clock.now() > Timestamp(1_600_000_000_000_000));
        assert!(clock.monotonic() <= clock.monotonic());
    }

    #[test]
    fn timestamps_saturate() {
        assert_eq!(Timestamp(i64::MAX).plus(Duration::MAX), Timestamp(i64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(9).since(Timestamp(5)), Duration::from_micros(4));
    }
}
