//! Time as the engine sees it: wall time for stamps, monotonic time for deadlines.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc, time::Duration};

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(pub i64);

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
