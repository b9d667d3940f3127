//! Numbers taken from an engine in blocks, so that an allocation rarely costs a durable write.
//!
//! What is left of a block at a crash is a gap. Two callers that find a block used up both fetch one; the smaller rest becomes a
//! gap too. That is cheaper than letting one wait for the other.

use parking_lot::Mutex;
use std::{collections::HashMap, ops::Range};

/// Numbers fetched at once.
const BLOCK: u64 = 1024;
/// Counters that are remembered; those beyond are fetched one by one.
const COUNTERS_MAX: usize = 64;

/// The rests of the blocks, by counter.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    rests: Mutex<HashMap<String, Range<u64>>>,
}

impl Blocks {
    /// `count` numbers from what is left, if there are as many.
    pub(crate) fn take(&self, counter: &str, count: u64) -> Option<Range<u64>> {
        split(self.rests.lock().get_mut(counter)?, count)
    }

    /// How many to fetch when `count` are needed.
    pub(crate) fn fetch_count(count: u64) -> u64 {
        count.max(BLOCK)
    }

    /// Takes `count` numbers of a block that was just fetched and keeps the rest.
    pub(crate) fn put(&self, counter: &str, mut block: Range<u64>, count: u64) -> Range<u64> {
        let taken = split(&mut block, count).expect("at least as many were fetched");
        let mut rests = self.rests.lock();
        if let Some(rest) = rests.get_mut(counter) {
            if len(rest) < len(&block) {
                *rest = block;
            }
        } else if rests.len() < COUNTERS_MAX {
            rests.insert(counter.to_owned(), block);
        }
        taken
    }
}

fn split(rest: &mut Range<u64>, count: u64) -> Option<Range<u64>> {
    (len(rest) >= count).then(|| {
        let taken = rest.start..rest.start + count;
        rest.start = taken.end;
        taken
    })
}

fn len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_up_before_another_is_needed_and_the_larger_rest_is_kept() {
        let blocks = Blocks::default();
        assert_eq!(blocks.take("ino", 1), None);
        assert_eq!(blocks.put("ino", 1..11, 4), 1..5);
        assert_eq!(blocks.take("ino", 6), Some(5..11));
        assert_eq!(blocks.take("ino", 1), None);
        assert_eq!(blocks.put("ino", 11..21, 2), 11..13);
        assert_eq!(blocks.put("ino", 21..31, 9), 21..30);
        assert_eq!(blocks.take("ino", 8), Some(13..21), "the larger rest was kept");
        assert_eq!(blocks.take("other", 1), None);
    }
}
