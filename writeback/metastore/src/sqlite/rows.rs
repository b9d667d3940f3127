//! Rows that were read or written lately: reading them needs no transaction of SQLite.
//!
//! Every answer is of one instant, and no instant is before one that was answered earlier:
//! - A group's rows come in together, after its COMMIT and before anyone is told of it.
//! - A reader to whom SQLite shows a commit whose rows are not in yet waits for them: microseconds, see [`RowCache::has`].
//! - What a reader found comes in only if nothing was committed since its instant.
//!
//! Two generations bound it: when the young one has taken half of the bytes it becomes the old one, and of the old one only what was
//! asked for again is left.

use crate::{Entry, Key};
use parking_lot::RwLock;
use std::{collections::HashMap, mem};

/// Bytes of both generations.
const BYTES_MAX: usize = 64 << 20;
/// What a row weighs beside its key and value.
const ROW_BYTES: usize = 160;

/// A key's entry; `None`: it is known to have none.
pub(super) type Found = Option<Entry>;

/// The cache.
#[derive(Debug)]
pub(super) struct RowCache(RwLock<Rows>);

#[derive(Debug)]
struct Rows {
    /// Of the last commit whose rows are in; `None`: the store can not say any more what is committed.
    version: Option<u64>,
    young: HashMap<Key, Found>,
    young_bytes: usize,
    old: HashMap<Key, Found>,
    bytes_max: usize,
}

impl RowCache {
    /// Nothing is in; `version` is that of the last commit.
    pub(super) fn new(version: u64) -> Self {
        Self::bounded(version, BYTES_MAX)
    }

    fn bounded(version: u64, bytes_max: usize) -> Self {
        Self(RwLock::new(Rows {
            version: Some(version),
            young: HashMap::new(),
            young_bytes: 0,
            old: HashMap::new(),
            bytes_max,
        }))
    }

    /// The entries of `keys`, all of one instant, if all are in.
    pub(super) fn get(&self, keys: &[Key]) -> Option<Vec<Found>> {
        let rows = self.0.read();
        let mut found = Vec::with_capacity(keys.len());
        let mut aged = false;
        for key in keys {
            let entry = match rows.young.get(key) {
                Some(entry) => entry,
                None => {
                    aged = true;
                    rows.old.get(key)?
                }
            };
            found.push(entry.clone());
        }
        drop(rows);
        if aged {
            self.renew(keys);
        }
        Some(found)
    }

    /// Keeps what was asked for again.
    fn renew(&self, keys: &[Key]) {
        self.change(|rows| {
            for key in keys {
                if let Some((key, entry)) = rows.old.remove_entry(key) {
                    rows.set(key, entry);
                }
            }
        });
    }

    /// Changes the rows and forgets what is too much, which is freed when nobody waits for it.
    fn change(&self, change: impl FnOnce(&mut Rows)) {
        let mut rows = self.0.write();
        change(&mut rows);
        let forgotten = rows.shrink();
        drop(rows);
        drop(forgotten);
    }

    /// Whether the rows of the commit `version` are in, or never will be.
    pub(super) fn has(&self, version: u64) -> bool {
        self.0.read().version.is_none_or(|last| last >= version)
    }

    /// Takes what a reader found at the instant of `version`.
    pub(super) fn remember(&self, version: u64, keys: &[Key], found: &[Found]) {
        self.change(|rows| {
            if rows.version == Some(version) {
                let found = keys.iter().cloned().zip(found.iter().cloned());
                found.for_each(|(key, entry)| rows.set(key, entry));
            }
        });
    }

    /// Takes what a group wrote, in its order; `version` is that of its last commit.
    pub(super) fn publish(&self, version: u64, written: Vec<(Key, Found)>) {
        self.change(|rows| {
            if rows.version.is_some() {
                rows.version = Some(version);
                written.into_iter().for_each(|(key, entry)| rows.set(key, entry));
            }
        });
    }

    /// What is committed is not known any more: everything is read from SQLite from now on.
    pub(super) fn give_up(&self) {
        let mut rows = self.0.write();
        (rows.version, rows.young_bytes) = (None, 0);
        let forgotten = (mem::take(&mut rows.young), mem::take(&mut rows.old));
        drop(rows);
        drop(forgotten);
    }
}

impl Rows {
    fn set(&mut self, key: Key, entry: Found) {
        self.old.remove(&key);
        let weight = |entry: &Found| entry.as_ref().map_or(0, |entry| entry.value.len());
        let (more, key_bytes) = (weight(&entry), key.len() + ROW_BYTES);
        match self.young.insert(key, entry) {
            Some(before) => self.young_bytes = self.young_bytes + more - weight(&before),
            None => self.young_bytes += more + key_bytes,
        }
    }

    fn shrink(&mut self) -> Option<HashMap<Key, Found>> {
        if self.young_bytes <= self.bytes_max / 2 {
            return None;
        }
        self.young_bytes = 0;
        let young = mem::take(&mut self.young);
        Some(mem::replace(&mut self.old, young))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;

    fn key(name: &str) -> Key {
        Key::copy_from_slice(name.as_bytes())
    }

    fn entry(version: u64) -> Found {
        Some(Entry {
            value: Key::from(vec![0; 100]),
            version: Version(version),
        })
    }

    #[test]
    fn what_was_committed_since_a_read_is_not_overwritten_by_it() {
        let rows = RowCache::new(7);
        rows.publish(8, vec![(key("a"), entry(8))]);
        rows.remember(7, &[key("a"), key("b")], &[None, None]);
        assert_eq!(rows.get(&[key("a")]).unwrap(), [entry(8)]);
        assert_eq!(
            rows.get(&[key("b")]),
            None,
            "it may have been written by the same group"
        );
        rows.remember(8, &[key("b")], &[None]);
        assert_eq!(rows.get(&[key("a"), key("b")]).unwrap(), [entry(8), None]);
    }

    #[test]
    fn bytes_are_bounded_and_what_is_asked_for_stays() {
        let rows = RowCache::bounded(0, 64 << 10);
        for k in 1..=2000 {
            rows.publish(k, vec![(key(&format!("k{k}")), entry(k))]);
            assert!(rows.get(&[key("k1")]).is_some(), "asked for all the time");
        }
        let kept = rows.0.read();
        let bytes = (kept.young.len() + kept.old.len()) * (100 + ROW_BYTES);
        assert!((16 << 10..=66 << 10).contains(&bytes), "{bytes} bytes are kept");
        drop(kept);
        assert!(rows.get(&[key("k2")]).is_none());
    }

    #[test]
    fn a_store_that_gave_up_answers_nothing_and_lets_nobody_wait() {
        let rows = RowCache::new(1);
        rows.publish(2, vec![(key("a"), entry(2))]);
        assert!(!rows.has(3));
        rows.give_up();
        assert!(rows.has(3));
        rows.publish(3, vec![(key("a"), entry(3))]);
        rows.remember(3, &[key("a")], &[None]);
        assert_eq!(rows.get(&[key("a")]), None);
    }
}
