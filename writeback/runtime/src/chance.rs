//! Randomness as the engine sees it, so that a seed replays a run.

use std::{fmt::Debug, sync::Arc};

/// A source of random bits.
pub trait Chance: Debug + Send + Sync {
    /// Sixty-four random bits.
    fn u64(&self) -> u64;
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
}

/// Shared handle to a source of randomness.
pub type ChanceRef = Arc<dyn Chance>;
