//! Randomness as the engine sees it, so that a seed replays a run.

use parking_lot::Mutex;
use std::{fmt::Debug, sync::Arc};

/// A source of random bits.
pub trait Chance: Debug + Send + Sync {
    /// Sixty-four random bits.
    fn u64(&self) -> u64;
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
    /// A number in `0..bound`, evenly; 0 when `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        // The high half of the product is even up to bound / 2^64, which no caller of ours could notice.
        let product = u128::from(self.u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half of a 128-bit number has 64 bits")
    }
}

/// Shared handle to a source of randomness.
pub type ChanceRef = Arc<dyn Chance>;

/// The operating system's randomness, fit for tokens and keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsChance;

impl OsChance {
    /// As a shared handle.
    pub fn shared() -> ChanceRef {
        Arc::new(Self)
    }
}

impl Chance for OsChance {
    fn u64(&self) -> u64 {
        getrandom::u64().expect("a running system has randomness once it has booted")
    }

    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("a running system has randomness once it has booted");
    }
}

/// A replayable sequence (SplitMix64): the same seed gives the same bits on every machine and in every version. Not for secrets.
#[derive(Debug)]
pub struct SeededChance {
    state: Mutex<u64>,
}

impl SeededChance {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(seed),
        })
    }
}

impl Chance for SeededChance {
    fn u64(&self) -> u64 {
        step(&mut self.state.lock())
    }

    fn fill(&self, out: &mut [u8]) {
        // One lock for the whole buffer, so that concurrent callers do not interleave within it.
        let mut state = self.state.lock();
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&step(&mut state).to_le_bytes()[..chunk.len()]);
        }
    }
}

fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_the_sequence_never_changes() {
        let chance = SeededChance::new(1234567);
        // The first outputs of the published reference implementation for this seed.
        assert_eq!(chance.u64(), 6_457_827_717_110_365_317);
        assert_eq!(chance.u64(), 3_203_168_211_198_807_973);
        let (mut a, mut b) = ([0; 13], [0; 13]);
        SeededChance::new(7).fill(&mut a);
        SeededChance::new(7).fill(&mut b);
        assert_eq!(a, b);
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let chance = SeededChance::new(3);
        let mut seen = [0; 6];
        for _ in 0..600 {
            seen[usize::try_from(chance.below(6)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
        assert_eq!(chance.below(0), 0);
    }

    #[test]
    fn the_system_does_not_repeat_itself() {
        let mut bytes = [0; 32];
        OsChance.fill(&mut bytes);
        assert_ne!(bytes, [0; 32]);
        assert_ne!(OsChance.u64(), OsChance.u64());
    }
}
