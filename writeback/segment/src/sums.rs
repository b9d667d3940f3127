//! The checksums of a dedicated segment: one per block, and one of the incomplete block at the durable end; and which of them
//! were compared with the file in this process.

use crate::crc::{Crc, combine, crc32c};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{ops::Range, sync::LazyLock};

/// Bytes that one checksum covers.
pub(crate) const BLOCK_BYTES: u64 = 256 << 10;

static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
static ZEROS_CRC: LazyLock<u32> = LazyLock::new(|| crc32c(&ZEROS));

/// Sums of the durable bytes.
#[derive(Debug, Default)]
pub(crate) struct Sums(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    blocks: Vec<u32>,
    /// Of the last, incomplete block: how many bytes, and their sum.
    tail: (u64, u32),
    /// One bit per block.
    verified: Vec<u64>,
    tail_verified: bool,
}

/// A comparison to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) range: Range<u64>,
    pub(crate) crc: u32,
}

impl Sums {
    /// Adds blocks that became complete and replaces the sum of the last one. `bytes` is the new length of all.
    pub(crate) fn extend(&self, blocks: &[u32], bytes: u64, tail_crc: u32) {
        let mut state = self.0.lock();
        state.blocks.extend_from_slice(blocks);
        let words = state.blocks.len().div_ceil(64);
        state.verified.resize(words, 0);
        let tail = (bytes - state.blocks.len() as u64 * BLOCK_BYTES, tail_crc);
        if tail != state.tail || !blocks.is_empty() {
            state.tail = tail;
            state.tail_verified = false;
        }
    }

    /// Bytes covered.
    pub(crate) fn len(&self) -> u64 {
        self.0.lock().len()
    }

    /// Sum of everything.
    pub(crate) fn whole(&self) -> u32 {
        let before = self.before_tail();
        let (len, crc) = self.0.lock().tail;
        combine(before, crc, len)
    }

    /// Sum of all complete blocks together.
    pub(crate) fn before_tail(&self) -> u32 {
        let state = self.0.lock();
        state
            .blocks
            .iter()
            .fold(Crc::new().value(), |all, block| combine(all, *block, BLOCK_BYTES))
    }

    /// What is to be compared before the bytes of `range` may be handed out.
    pub(crate) fn unverified(&self, range: &Range<u64>) -> Vec<Check> {
        let state = self.0.lock();
        let blocks = range.start / BLOCK_BYTES..range.end.min(state.len()).div_ceil(BLOCK_BYTES);
        blocks.filter_map(|index| state.check(index)).collect()
    }

    /// Every comparison that `range` allows, made before or not.
    pub(crate) fn all(&self, range: &Range<u64>) -> Vec<Check> {
        let state = self.0.lock();
        let blocks = range.start / BLOCK_BYTES..range.end.min(state.len()).div_ceil(BLOCK_BYTES);
        blocks.filter_map(|index| state.sum(index)).collect()
    }

    /// Remembers a comparison that came out well.
    pub(crate) fn verified(&self, check: &Check) {
        let mut state = self.0.lock();
        let index = (check.range.start / BLOCK_BYTES) as usize;
        if index < state.blocks.len() {
            // A tail that was compared meanwhile became a block with a sum of its own.
            if check.range.end - check.range.start == BLOCK_BYTES {
                state.verified[index / 64] |= 1 << (index % 64);
            }
        } else if (check.range.end - check.range.start, check.crc) == state.tail {
            state.tail_verified = true;
        }
    }

    /// Forgets the comparisons of a range that was found damaged.
    pub(crate) fn doubt(&self, range: &Range<u64>) {
        let mut state = self.0.lock();
        state.tail_verified = false;
        for index in (range.start / BLOCK_BYTES) as usize..range.end.div_ceil(BLOCK_BYTES) as usize {
            if let Some(word) = state.verified.get_mut(index / 64) {
                *word &= !(1 << (index % 64));
            }
        }
    }
}

impl State {
    fn len(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_BYTES + self.tail.0
    }

    fn check(&self, index: u64) -> Option<Check> {
        let i = index as usize;
        let verified = match self.verified.get(i / 64) {
            Some(word) if i < self.blocks.len() => word >> (i % 64) & 1 == 1,
            _ => self.tail_verified,
        };
        if verified { None } else { self.sum(index) }
    }

    fn sum(&self, index: u64) -> Option<Check> {
        let at = index * BLOCK_BYTES;
        match self.blocks.get(index as usize) {
            Some(crc) => Some(Check {
                range: at..at + BLOCK_BYTES,
                crc: *crc,
            }),
            None if self.tail.0 == 0 => None,
            None => Some(Check {
                range: at..at + self.tail.0,
                crc: self.tail.1,
            }),
        }
    }
}

/// Sums up what a writer appends.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    /// Of the block that is not complete yet.
    open: Crc,
    /// Of all complete blocks together.
    before: u32,
    /// Complete and not yet taken.
    done: Vec<u32>,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Blocks {
            open: Crc::new(),
            before: Crc::new().value(),
            done: Vec::new(),
        }
    }

    /// Goes on behind complete blocks whose sum is `before`.
    pub(crate) fn resume(before: u32) -> Self {
        Blocks {
            before,
            ..Blocks::new()
        }
    }

    pub(crate) fn add(&mut self, chunks: &[Bytes]) {
        chunks.iter().for_each(|chunk| self.add_run(chunk));
    }

    pub(crate) fn add_run(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let n = rest.len().min((BLOCK_BYTES - self.open.len()) as usize);
            self.open.update(&rest[..n]);
            rest = &rest[n..];
            if self.open.len() == BLOCK_BYTES {
                self.before = combine(self.before, self.open.value(), BLOCK_BYTES);
                self.done.push(self.open.value());
                self.open.reset();
            }
        }
    }

    /// Adds zeros, without a look at each of them.
    pub(crate) fn add_zeros(&mut self, count: u64) {
        let to_boundary = count.min((BLOCK_BYTES - self.open.len()) % BLOCK_BYTES);
        self.add_run(&ZEROS[..to_boundary as usize]);
        let blocks = (count - to_boundary) / BLOCK_BYTES;
        for _ in 0..blocks {
            self.before = combine(self.before, *ZEROS_CRC, BLOCK_BYTES);
            self.done.push(*ZEROS_CRC);
        }
        self.add_run(&ZEROS[..(count - to_boundary - blocks * BLOCK_BYTES) as usize]);
    }

    /// Blocks completed since the last call.
    pub(crate) fn take_done(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.done)
    }

    /// Sum of the incomplete block.
    pub(crate) fn tail_crc(&self) -> u32 {
        self.open.value()
    }

    /// Sum of everything.
    pub(crate) fn whole(&self) -> u32 {
        combine(self.before, self.open.value(), self.open.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_summed_however_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..BLOCK_BYTES as usize * 3 + 1000)
            .map(|i| (i * 31 + i / 77) as u8)
            .collect();
        for step in [1000, 65_536, 262_144, 300_000, 1 << 20] {
            let (mut blocks, sums) = (Blocks::new(), Sums::default());
            let mut written = 0;
            for chunk in bytes.chunks(step) {
                blocks.add(&[Bytes::copy_from_slice(chunk)]);
                written += chunk.len() as u64;
                sums.extend(&blocks.take_done(), written, blocks.tail_crc());
                assert_eq!(sums.len(), written);
            }
            assert_eq!(blocks.whole(), crc32c(&bytes), "step {step}");
            assert_eq!(sums.whole(), crc32c(&bytes), "step {step}");
            for check in sums.unverified(&(0..written)) {
                let range = check.range.start as usize..check.range.end as usize;
                assert_eq!(crc32c(&bytes[range]), check.crc, "step {step}, {check:?}");
            }
        }
    }

    #[test]
    fn zeros_are_summed_like_any_other_bytes() {
        for (before, zeros, after) in [
            (0, 0, 0),
            (0, 1, 0),
            (10, BLOCK_BYTES - 10, 3),
            (10, BLOCK_BYTES - 11, 0),
            (BLOCK_BYTES, 3 * BLOCK_BYTES, 1),
            (7, 5 * BLOCK_BYTES + 9, 2 * BLOCK_BYTES),
        ] {
            let run = |n: u64, byte: u8| vec![byte; n as usize];
            let mut skipped = Blocks::new();
            skipped.add_run(&run(before, 1));
            skipped.add_zeros(zeros);
            skipped.add_run(&run(after, 2));
            let mut summed = Blocks::new();
            summed.add_run(&[run(before, 1), run(zeros, 0), run(after, 2)].concat());
            let sums = |blocks: &mut Blocks| (blocks.take_done(), blocks.tail_crc(), blocks.whole());
            assert_eq!(sums(&mut skipped), sums(&mut summed), "{before}, {zeros}, {after}");
        }
    }

    #[test]
    fn a_block_is_compared_once_and_a_tail_again_when_it_grew() {
        let sums = Sums::default();
        sums.extend(&[1, 2], 2 * BLOCK_BYTES + 10, 3);
        let all = sums.unverified(&(0..u64::MAX));
        assert_eq!(all.len(), 3);
        assert_eq!(sums.unverified(&(BLOCK_BYTES - 1..BLOCK_BYTES)), all[..1]);
        all.iter().for_each(|check| sums.verified(check));
        assert_eq!(sums.unverified(&(0..u64::MAX)), []);
        sums.extend(&[], 2 * BLOCK_BYTES + 20, 4);
        assert_eq!(sums.unverified(&(0..u64::MAX)).len(), 1);
        sums.verified(&all[2]);
        assert_eq!(
            sums.unverified(&(0..u64::MAX)).len(),
            1,
            "the old tail says nothing of the new one"
        );
        sums.extend(&[9], 3 * BLOCK_BYTES, 0);
        assert_eq!(
            sums.unverified(&(0..u64::MAX)),
            [Check {
                range: 2 * BLOCK_BYTES..3 * BLOCK_BYTES,
                crc: 9
            }]
        );
        sums.doubt(&(0..1));
        assert_eq!(sums.unverified(&(0..1)).len(), 1);
    }
}
