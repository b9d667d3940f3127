//! Orders: who of those that are held makes room next. One file per rule; none knows bytes on a disk, paths or limits.
//!
//! | order | who goes | for |
//! |---|---|---|
//! | [`Lru`] | whoever was not used for longest | work that comes back to what it just had |
//! | [`S3Fifo`] | whoever came and was not used again, then whoever was not used since its last chance | anything, beside one-pass scans |
//! | [`Epoch`] | nobody, for its own kind | training: every item once per epoch, in any order |
//!
//! For epochs a fixed share of the items is the best that can be held: with a cache of a share c of the items c of the reads are hits,
//! which equals what a clairvoyant order gets. An order that lets the newest in throws out what comes sooner: least recently used gets
//! c + (1-c) ln(1-c) of shuffled epochs, 0.15 at c = 0.5, and nothing of epochs in the same order.
//!
//! An order may also refuse newcomers that only take room from others: [`S3Fifo`] does so while it sees a scan (`scan`).

mod epoch;
mod lru;
mod ranked;
mod s3fifo;
mod scan;

pub use epoch::Epoch;
pub use lru::Lru;
pub use s3fifo::S3Fifo;

use std::{fmt::Debug, hash::Hash, time::Duration};

/// What an order tells its items apart by.
pub trait Item: Clone + Eq + Hash + Ord + Debug + Send + 'static {}
impl<T: Clone + Eq + Hash + Ord + Debug + Send + 'static> Item for T {}

/// Why an item comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Somebody reads it: what becomes of it says what others that come so are worth.
    Read,
    /// It was brought: loaded, written here, or held before.
    Brought,
}

/// An order of items. `tick` is a number that grows with every use of anything, in this order or another.
pub trait Order<K>: Debug + Send {
    /// Whether an item that somebody reads may come in though others have to make room for it. One that may not is as good as seen.
    fn admits(&mut self, _key: &K, _now: Duration) -> bool {
        true
    }
    /// Takes in an item that it has not.
    fn insert(&mut self, key: K, bytes: u64, arrival: Arrival, tick: u64);
    /// An item was used again.
    fn hit(&mut self, key: &K, tick: u64);
    /// An item that came ahead of its reader is read: the use that it came for.
    fn hit_awaited(&mut self, key: &K, tick: u64) {
        self.hit(key, tick);
    }
    /// Takes an item out; its bytes, when it was there.
    fn remove(&mut self, key: &K) -> Option<u64>;
    /// Takes the item out that makes room next.
    fn pop(&mut self) -> Option<(K, u64)>;
    /// About when the item that makes room next was used last; none: there is no item.
    fn oldest(&self) -> Option<u64>;
    /// Whether an item makes room for another of this order.
    fn yields(&self) -> bool;
    /// Bytes of all items.
    fn bytes(&self) -> u64;
    /// All items, in no particular order.
    fn items(&self) -> Vec<(K, u64)>;
}

#[cfg(test)]
mod tests;
