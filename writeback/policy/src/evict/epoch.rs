//! No eviction for one's own kind: what is held stays held.

use super::{Arrival, Item, Order, ranked::Ranked};

/// What comes when there is no room is not taken in. Only for others does it make room: last come, first gone, so that what was there
/// through the most epochs stays.
#[derive(Debug)]
pub struct Epoch<K> {
    by_arrival: Ranked<K>,
    used: u64,
}

impl<K> Default for Epoch<K> {
    fn default() -> Self {
        Self {
            by_arrival: Ranked::default(),
            used: 0,
        }
    }
}

impl<K: Item> Order<K> for Epoch<K> {
    fn insert(&mut self, key: K, bytes: u64, _: Arrival, tick: u64) {
        self.by_arrival.insert(key, bytes, tick);
        self.used = tick;
    }

    fn hit(&mut self, _: &K, tick: u64) {
        self.used = tick;
    }

    fn remove(&mut self, key: &K) -> Option<u64> {
        self.by_arrival.remove(key)
    }

    fn pop(&mut self) -> Option<(K, u64)> {
        let key = self.by_arrival.last()?.1.clone();
        let bytes = self.by_arrival.remove(&key)?;
        Some((key, bytes))
    }

    fn oldest(&self) -> Option<u64> {
        self.by_arrival.first().map(|_| self.used)
    }

    fn yields(&self) -> bool {
        false
    }

    fn bytes(&self) -> u64 {
        self.by_arrival.bytes()
    }

    fn items(&self) -> Vec<(K, u64)> {
        self.by_arrival.items()
    }
}
