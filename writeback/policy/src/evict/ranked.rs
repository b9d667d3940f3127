//! Items in the order of a tick that each has: what orders that know nothing else are made of.

use super::Item;
use std::collections::{BTreeMap, HashMap};

/// Items with their bytes, by tick. No two have the same.
#[derive(Debug)]
pub(super) struct Ranked<K> {
    items: HashMap<K, (u64, u64)>,
    by_tick: BTreeMap<u64, K>,
    bytes: u64,
}

impl<K> Default for Ranked<K> {
    fn default() -> Self {
        Self {
            items: HashMap::new(),
            by_tick: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl<K: Item> Ranked<K> {
    pub(super) fn insert(&mut self, key: K, bytes: u64, tick: u64) {
        self.remove(&key);
        self.by_tick.insert(tick, key.clone());
        self.items.insert(key, (bytes, tick));
        self.bytes += bytes;
    }

    /// Gives an item that is there another tick.
    pub(super) fn touch(&mut self, key: &K, tick: u64) {
        if let Some((_, before)) = self.items.get_mut(key) {
            self.by_tick.remove(before);
            *before = tick;
            self.by_tick.insert(tick, key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<u64> {
        let (bytes, tick) = self.items.remove(key)?;
        self.by_tick.remove(&tick);
        self.bytes -= bytes;
        Some(bytes)
    }

    pub(super) fn first(&self) -> Option<(u64, &K)> {
        self.by_tick.first_key_value().map(|(tick, key)| (*tick, key))
    }

    pub(super) fn last(&self) -> Option<(u64, &K)> {
        self.by_tick.last_key_value().map(|(tick, key)| (*tick, key))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn items(&self) -> Vec<(K, u64)> {
        let items = self.items.iter();
        items.map(|(key, (bytes, _))| (key.clone(), *bytes)).collect()
    }
}
