//! Least recently used.

use super::{Arrival, Item, Order, ranked::Ranked};

/// Who was not used for longest makes room first.
#[derive(Debug)]
pub struct Lru<K> {
    by_use: Ranked<K>,
}

impl<K> Default for Lru<K> {
    fn default() -> Self {
        Self {
            by_use: Ranked::default(),
        }
    }
}

impl<K: Item> Order<K> for Lru<K> {
    fn insert(&mut self, key: K, bytes: u64, _: Arrival, tick: u64) {
        self.by_use.insert(key, bytes, tick);
    }

    fn hit(&mut self, key: &K, tick: u64) {
        self.by_use.touch(key, tick);
    }

    fn remove(&mut self, key: &K) -> Option<u64> {
        self.by_use.remove(key)
    }

    fn pop(&mut self) -> Option<(K, u64)> {
        let key = self.by_use.first()?.1.clone();
        let bytes = self.by_use.remove(&key)?;
        Some((key, bytes))
    }

    fn oldest(&self) -> Option<u64> {
        self.by_use.first().map(|(used, _)| used)
    }

    fn yields(&self) -> bool {
        true
    }

    fn bytes(&self) -> u64 {
        self.by_use.bytes()
    }

    fn items(&self) -> Vec<(K, u64)> {
        self.by_use.items()
    }
}
