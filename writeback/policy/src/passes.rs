//! Whether the items of a directory are read in epochs: each once, in any order, then each once again.
//!
//! Reads are counted over windows of twice as many reads as there are items. Wherever such a window begins, epochs read every item once
//! to three times in it. So a directory is read in epochs when nearly every item was read in the window, and nearly no read was the
//! fourth of its item or a later one. A single scan never fills a window, reads that come back to what they like fail the second, and
//! reads at random the first. It takes two epochs to be seen, and as many reads to be unseen.
//!
//! Of a directory with very many items a sample is watched, by their hashes, so memory has a bound.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

/// What may deviate, in percent: of the items those that were not read, of the reads those too many.
const DEVIATION: usize = 10;
/// Reads of one item in a window that epochs can make.
const READS_MAX: u8 = 3;
/// Fewer items than this are no epoch.
const ITEMS_MIN: usize = 16;
/// Items of one directory that are watched.
const ITEMS_MAX: usize = 4096;
/// Directories that are watched.
const DIRS_MAX: usize = 1024;

/// The directories that are watched.
#[derive(Debug)]
pub(crate) struct Passes<D> {
    dirs: BTreeMap<D, Dir>,
    ticks: u64,
}

#[derive(Debug, Default)]
struct Dir {
    /// Hash of an item to how often it was read in this window.
    items: HashMap<u64, u8>,
    /// Reads in this window.
    reads: usize,
    epochs: bool,
    /// Items with any of these bits in their hash are not watched.
    mask: u64,
    used: u64,
}

impl<D> Default for Passes<D> {
    fn default() -> Self {
        Self {
            dirs: BTreeMap::new(),
            ticks: 0,
        }
    }
}

impl<D: Ord + Clone> Passes<D> {
    /// An item of the directory was read. Whether the directory is read in epochs, as far as is known by now.
    pub(crate) fn read(&mut self, dir: &D, item: &impl Hash) -> bool {
        self.ticks += 1;
        if !self.dirs.contains_key(dir) {
            self.make_room();
        }
        let of = self.dirs.entry(dir.clone()).or_default();
        of.used = self.ticks;
        let mut hasher = DefaultHasher::new();
        item.hash(&mut hasher);
        of.read(hasher.finish());
        of.epochs
    }

    fn make_room(&mut self) {
        if self.dirs.len() < DIRS_MAX {
            return;
        }
        let oldest = self.dirs.iter().min_by_key(|(_, dir)| dir.used);
        if let Some(oldest) = oldest.map(|(dir, _)| dir.clone()) {
            self.dirs.remove(&oldest);
        }
    }
}

impl Dir {
    fn read(&mut self, item: u64) {
        if item & self.mask != 0 {
            return;
        }
        let times = self.items.entry(item).or_default();
        *times = times.saturating_add(1);
        self.reads += 1;
        if self.reads >= 2 * self.items.len() {
            self.end_window();
        } else if self.items.len() > ITEMS_MAX {
            self.watch_fewer();
        }
    }

    fn end_window(&mut self) {
        let not_read = self.items.values().filter(|times| **times == 0).count();
        let too_many = self
            .items
            .values()
            .map(|times| usize::from(times.saturating_sub(READS_MAX)));
        let all = self.items.len();
        self.epochs = all >= ITEMS_MIN
            && not_read * 100 <= all * DEVIATION
            && too_many.sum::<usize>() * 100 <= self.reads * DEVIATION;
        // What was not read in a whole window is not there any more.
        self.items.retain(|_, times| std::mem::take(times) > 0);
        self.reads = 0;
    }

    fn watch_fewer(&mut self) {
        self.mask = (self.mask << 1) | 1;
        let mask = self.mask;
        self.items.retain(|item, _| item & mask == 0);
        self.reads = self.items.values().map(|times| usize::from(*times)).sum();
    }
}

#[cfg(test)]
mod tests;
