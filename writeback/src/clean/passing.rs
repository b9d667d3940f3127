//! Blocks in memory that the cache does not keep, until their readers are through with them: there is no room for them, or they are part
//! of a scan. Whoever reads one in pieces, or has it fetched ahead, has it fetched once.
//!
//! The oldest that were begun go first where there are too many. Those that nobody began to read are half of the bytes at most, and are
//! waited for [`WAIT_MAX`]; what is fetched ahead beyond that is to be kept like anything else.

use super::blocks::BlockId;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

/// Most bytes.
const BYTES_MAX: u64 = 64 << 20;
/// What a block counts as at least, so that there are not too many small ones.
const BLOCK_BYTES_MIN: u64 = 4096;
/// For how long one that was fetched ahead has its place.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Blocks of which it is known that they were read to their ends.
const ENDED_MAX: usize = 256;

/// The blocks.
#[derive(Debug, Default)]
pub(super) struct Passing {
    blocks: HashMap<BlockId, Waiting>,
    /// Those that nobody began to read, and the others, by arrival.
    awaited: Line,
    begun: Line,
    /// Those that were read to their ends last.
    ended: VecDeque<BlockId>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    bytes: Bytes,
    arrival: u64,
    since: Duration,
    is_awaited: bool,
}

#[derive(Debug, Default)]
struct Line {
    ids: BTreeMap<u64, BlockId>,
    bytes: u64,
}

fn cost(bytes: &Bytes) -> u64 {
    BLOCK_BYTES_MIN.max(bytes.len() as u64)
}

impl Line {
    fn push(&mut self, id: &BlockId, waiting: &Waiting) {
        self.ids.insert(waiting.arrival, id.clone());
        self.bytes += cost(&waiting.bytes);
    }

    fn take(&mut self, waiting: &Waiting) {
        self.ids.remove(&waiting.arrival);
        self.bytes -= cost(&waiting.bytes);
    }
}

impl Passing {
    /// Whether so many bytes more may wait for a reader.
    pub(super) fn has_room(&mut self, bytes: u64, now: Duration) -> bool {
        while let Some((_, oldest)) = self.awaited.ids.first_key_value() {
            let oldest = oldest.clone();
            let is_late = |waiting: &Waiting| now.saturating_sub(waiting.since) >= WAIT_MAX;
            if !self.blocks.get(&oldest).is_some_and(is_late) {
                break;
            }
            self.remove(&oldest);
        }
        self.awaited.bytes + bytes.max(BLOCK_BYTES_MIN) <= BYTES_MAX / 2
    }

    /// A block that is not kept. `is_awaited`: nobody reads it yet.
    pub(super) fn insert(&mut self, id: &BlockId, bytes: &Bytes, is_awaited: bool, now: Duration) {
        self.remove(id);
        self.arrivals += 1;
        let waiting = Waiting {
            bytes: bytes.clone(),
            arrival: self.arrivals,
            since: now,
            is_awaited,
        };
        self.line(is_awaited).push(id, &waiting);
        self.blocks.insert(id.clone(), waiting);
        while self.awaited.bytes + self.begun.bytes > BYTES_MAX {
            let first = self.begun.ids.first_key_value().or(self.awaited.ids.first_key_value());
            let Some((_, id)) = first else { break };
            let id = id.clone();
            self.remove(&id);
        }
    }

    /// The block, when it is there.
    pub(super) fn get(&self, id: &BlockId) -> Option<Bytes> {
        self.blocks.get(id).map(|waiting| waiting.bytes.clone())
    }

    /// A reader begins to read the block.
    pub(super) fn begin(&mut self, id: &BlockId) {
        let awaited = self.blocks.get_mut(id).filter(|waiting| waiting.is_awaited);
        if let Some(waiting) = awaited {
            waiting.is_awaited = false;
            self.awaited.take(waiting);
            self.begun.push(id, waiting);
        }
    }

    /// Whoever reads the block is through with it.
    pub(super) fn end(&mut self, id: &BlockId) {
        if !self.remove(id) {
            return;
        }
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(id.clone());
    }

    /// Whether somebody read the block to its end a moment ago: it need not be fetched ahead of him any more.
    pub(super) fn has_ended(&self, id: &BlockId) -> bool {
        self.ended.contains(id)
    }

    fn remove(&mut self, id: &BlockId) -> bool {
        let waiting = self.blocks.remove(id);
        if let Some(waiting) = &waiting {
            self.line(waiting.is_awaited).take(waiting);
        }
        waiting.is_some()
    }

    fn line(&mut self, is_awaited: bool) -> &mut Line {
        match is_awaited {
            true => &mut self.awaited,
            false => &mut self.begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::blocks::ObjectId, *};
    use forebay_understore::Validator;

    const NOW: Duration = Duration::from_secs(100);
    const BLOCK: usize = 2 << 20;

    fn id(block: u64) -> BlockId {
        (ObjectId::new(1, "k", &Validator("v".into())), block)
    }

    fn insert(passing: &mut Passing, blocks: std::ops::Range<u64>, is_awaited: bool) {
        let bytes = Bytes::from(vec![0; BLOCK]);
        blocks.for_each(|block| passing.insert(&id(block), &bytes, is_awaited, NOW));
    }

    fn there(passing: &Passing, blocks: std::ops::Range<u64>) -> usize {
        blocks.filter(|block| passing.get(&id(*block)).is_some()).count()
    }

    #[test]
    fn what_was_begun_first_goes_first_and_what_is_awaited_last() {
        let mut passing = Passing::default();
        insert(&mut passing, 0..16, true);
        insert(&mut passing, 100..200, false);
        assert_eq!((there(&passing, 0..16), there(&passing, 184..200)), (16, 16));
        assert_eq!(there(&passing, 100..184), 0);
        passing.begin(&id(3));
        insert(&mut passing, 200..201, false);
        assert_eq!((there(&passing, 0..16), there(&passing, 184..200)), (15, 16));
    }

    #[test]
    fn half_of_it_may_wait_and_not_for_ever() {
        let mut passing = Passing::default();
        let block = BLOCK as u64;
        insert(&mut passing, 0..15, true);
        assert!(passing.has_room(block, NOW));
        insert(&mut passing, 15..16, true);
        assert!(!passing.has_room(block, NOW));
        passing.end(&id(7));
        assert!(passing.has_ended(&id(7)) && !passing.has_ended(&id(8)));
        assert!(passing.has_room(block, NOW) && !passing.has_room(block + 1, NOW));
        assert!(passing.has_room(16 * block, NOW + WAIT_MAX));
        assert!(passing.blocks.is_empty() && passing.awaited.ids.is_empty() && passing.awaited.bytes == 0);
    }

    #[test]
    fn small_blocks_are_not_too_many() {
        let mut passing = Passing::default();
        for block in 0..100_000 {
            passing.insert(&id(block), &Bytes::from_static(b"x"), false, NOW);
        }
        assert_eq!(passing.blocks.len() as u64, BYTES_MAX / BLOCK_BYTES_MIN);
        assert_eq!(passing.begun.ids.len(), passing.blocks.len());
    }
}
