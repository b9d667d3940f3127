//! Whether what is read for the first time is a scan, and so not worth the room that others would have to make.
//!
//! S3-FIFO lets what was read once leave soon; TinyLFU lets nobody in who is worth less than who would go. The first still writes every
//! block of a scan to the disk, the second counts uses of everything. Here what became of the last newcomers says what the next ones are
//! worth: one that leaves the small queue unused adds its bytes to a sum, one that is used, or comes back as a ghost, takes [`USE_COUNTS`]
//! times its bytes from it. At the small queue's worth it is a scan, so there is one where fewer than about one newcomer in
//! `USE_COUNTS` + 1 is used, at whatever speed.
//!
//! A single use does not end a scan, for in a large cache somebody always comes back to something; nor does it have to begin anew for
//! long: what is taken from the sum is proportional. During a scan one newcomer in [`PROBES`] is let in, by its hash, so that it shows
//! when newcomers are used again; all that come back while their ghosts are remembered are let in too. So a new set of items that
//! are used again is held from their second read on, where it has no more items than the order remembers ghosts, and else soon after the first
//! probes were used. A scan that nobody goes on with for [`OVER`] is over: who reads next is somebody else.

use std::time::Duration;

/// A use counts as much as so many newcomers that were not used.
const USE_COUNTS: u64 = 16;
/// One newcomer in so many is let in during a scan; a power of two.
const PROBES: u64 = 16;
/// More small queues than this are not summed up, so that a long scan ends as soon as a short one.
const WORTHS_MAX: u64 = 2;
/// A scan of which nobody came for so long is over.
const OVER: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Scan {
    unused_bytes: u64,
    refused: Option<Duration>,
    trial: Trial,
}

/// A newcomer's, from which it says something of those that come after it. Those that came with a scan that is over say nothing any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trial(u64);

impl Scan {
    /// Whether a newcomer is let in; `worth` are the bytes of a full small queue.
    pub(super) fn admits(&mut self, hash: u64, worth: u64, now: Duration) -> bool {
        if self.refused.is_some_and(|at| now.saturating_sub(at) >= OVER) {
            *self = Self {
                trial: Trial(self.trial.0 + 1),
                ..Self::default()
            };
        }
        let is_scan = worth > 0 && self.unused_bytes >= worth;
        let is_probe = hash.leading_zeros() >= PROBES.trailing_zeros();
        if is_scan && !is_probe {
            self.refused = Some(now);
        }
        !is_scan || is_probe
    }

    /// That of a newcomer.
    pub(super) fn trial(&self) -> Trial {
        self.trial
    }

    /// A newcomer left the small queue unused.
    pub(super) fn unused(&mut self, trial: Trial, bytes: u64, worth: u64) {
        if trial == self.trial {
            self.unused_bytes = (self.unused_bytes + bytes).min(WORTHS_MAX * worth);
        }
    }

    /// A newcomer was used, or one that had left came back.
    pub(super) fn used(&mut self, bytes: u64) {
        self.unused_bytes = self.unused_bytes.saturating_sub(bytes.saturating_mul(USE_COUNTS));
    }
}
