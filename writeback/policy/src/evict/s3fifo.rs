//! Three queues: a small one that newcomers pass through, a main one for those that were used again, and the ghosts of those that left
//! the small one unused.
//!
//! A newcomer that is not used again leaves from the small queue, which has a tenth of the bytes: a scan that reads everything once
//! goes by without touching the main queue. One that was used while it was there moves to the main queue, and so does one that comes
//! back while its ghost is remembered. The main queue lets those that were used go round once more for each use, at most three times.
//!
//! While newcomers prove to be a scan ([`Scan`]), most of them become ghosts at once and are not taken in.

use super::{
    Arrival, Item, Order,
    scan::{Scan, Trial},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// The small queue's share of the bytes: one in so many.
const SMALL_SHARE: u64 = 10;
/// Uses that are counted.
const USES_MAX: u8 = 3;
/// Ghosts that are remembered when little is held, and at most.
const GHOSTS: std::ops::RangeInclusive<usize> = 64..=1 << 20;

#[derive(Debug)]
struct Held {
    bytes: u64,
    uses: u8,
    in_main: bool,
    /// It came because it was read, and was not used since.
    trial: Option<Trial>,
    /// Its place in its queue.
    place: u64,
    used: u64,
}

/// The order.
#[derive(Debug)]
pub struct S3Fifo<K> {
    items: HashMap<K, Held>,
    small: BTreeMap<u64, K>,
    main: BTreeMap<u64, K>,
    small_bytes: u64,
    bytes: u64,
    places: u64,
    ghosts: VecDeque<(u64, u64)>,
    /// Hash to the place at which it became a ghost last.
    haunts: HashMap<u64, u64>,
    scan: Scan,
}

impl<K> Default for S3Fifo<K> {
    fn default() -> Self {
        Self {
            items: HashMap::new(),
            small: BTreeMap::new(),
            main: BTreeMap::new(),
            small_bytes: 0,
            bytes: 0,
            places: 0,
            ghosts: VecDeque::new(),
            haunts: HashMap::new(),
            scan: Scan::default(),
        }
    }
}

fn hash(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl<K: Item> S3Fifo<K> {
    fn place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    /// What the small queue has when it is full.
    fn small_worth(&self) -> u64 {
        self.bytes / SMALL_SHARE
    }

    fn remember(&mut self, hash: u64) {
        let place = self.place();
        self.haunts.insert(hash, place);
        self.ghosts.push_back((hash, place));
        let most = self.items.len().clamp(*GHOSTS.start(), *GHOSTS.end());
        while self.ghosts.len() > most {
            let Some((hash, place)) = self.ghosts.pop_front() else {
                break;
            };
            if self.haunts.get(&hash) == Some(&place) {
                self.haunts.remove(&hash);
            }
        }
    }

    fn small_is_over(&self) -> bool {
        !self.small.is_empty() && (self.main.is_empty() || self.small_bytes * SMALL_SHARE >= self.bytes)
    }

    /// The head of the small queue leaves it, or moves to the main one.
    fn pop_small(&mut self) -> Option<(K, u64)> {
        let (_, key) = self.small.first_key_value()?;
        let key = key.clone();
        let Held { uses, trial, .. } = *self.items.get(&key)?;
        if uses > 0 {
            self.promote(&key);
            return None;
        }
        let worth = self.small_worth();
        let bytes = self.remove(&key)?;
        if let Some(trial) = trial {
            self.scan.unused(trial, bytes, worth);
        }
        self.remember(hash(&key));
        Some((key, bytes))
    }

    fn promote(&mut self, key: &K) {
        let place = self.place();
        let Some(held) = self.items.get_mut(key) else { return };
        if held.in_main {
            self.main.remove(&held.place);
            held.uses -= 1;
        } else {
            self.small.remove(&held.place);
            self.small_bytes -= held.bytes;
            held.uses = 0;
        }
        (held.in_main, held.place) = (true, place);
        self.main.insert(place, key.clone());
    }

    /// The head of the main queue leaves, or goes round once more.
    fn pop_main(&mut self) -> Option<(K, u64)> {
        let (_, key) = self.main.first_key_value()?;
        let key = key.clone();
        if self.items.get(&key)?.uses == 0 {
            let bytes = self.remove(&key)?;
            return Some((key, bytes));
        }
        self.promote(&key);
        None
    }
}

impl<K: Item> Order<K> for S3Fifo<K> {
    fn admits(&mut self, key: &K, now: Duration) -> bool {
        let hash = hash(key);
        let admitted = self.haunts.contains_key(&hash) || self.scan.admits(hash, self.small_worth(), now);
        if !admitted {
            self.remember(hash);
        }
        admitted
    }

    fn insert(&mut self, key: K, bytes: u64, arrival: Arrival, tick: u64) {
        self.remove(&key);
        let (in_main, place) = (self.haunts.remove(&hash(&key)).is_some(), self.place());
        if in_main {
            if arrival == Arrival::Read {
                self.scan.used(bytes);
            }
            self.main.insert(place, key.clone());
        } else {
            self.small.insert(place, key.clone());
            self.small_bytes += bytes;
        }
        self.bytes += bytes;
        let held = Held {
            bytes,
            uses: 0,
            in_main,
            trial: (arrival == Arrival::Read && !in_main).then(|| self.scan.trial()),
            place,
            used: tick,
        };
        self.items.insert(key, held);
    }

    fn hit(&mut self, key: &K, tick: u64) {
        if let Some(held) = self.items.get_mut(key) {
            held.uses = (held.uses + 1).min(USES_MAX);
            held.used = tick;
            if held.trial.take().is_some() {
                self.scan.used(held.bytes);
            }
        }
    }

    fn hit_awaited(&mut self, key: &K, tick: u64) {
        if let Some(held) = self.items.get_mut(key) {
            held.used = tick;
        }
    }

    fn remove(&mut self, key: &K) -> Option<u64> {
        let held = self.items.remove(key)?;
        if held.in_main {
            self.main.remove(&held.place);
        } else {
            self.small.remove(&held.place);
            self.small_bytes -= held.bytes;
        }
        self.bytes -= held.bytes;
        Some(held.bytes)
    }

    fn pop(&mut self) -> Option<(K, u64)> {
        // Each round takes one out, or takes one use from one: it ends.
        while !self.items.is_empty() {
            let popped = if self.small_is_over() {
                self.pop_small()
            } else {
                self.pop_main()
            };
            if popped.is_some() {
                return popped;
            }
        }
        None
    }

    fn oldest(&self) -> Option<u64> {
        let head = if self.small_is_over() { &self.small } else { &self.main };
        let (_, key) = head.first_key_value()?;
        self.items.get(key).map(|held| held.used)
    }

    fn yields(&self) -> bool {
        true
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn items(&self) -> Vec<(K, u64)> {
        self.items.iter().map(|(key, held)| (key.clone(), held.bytes)).collect()
    }
}
