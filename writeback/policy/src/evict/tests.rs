use super::*;
use forebay_runtime::chance::{Chance, SeededChance};
use proptest::prelude::*;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

// ---- models: plain lists, as slow as they like

/// What an order should do, in a few lines.
trait Model {
    fn insert(&mut self, key: u8, bytes: u64);
    fn hit(&mut self, key: u8);
    fn remove(&mut self, key: u8) -> Option<u64>;
    fn pop(&mut self) -> Option<(u8, u64)>;
}

#[derive(Default)]
struct LruModel(Vec<(u8, u64)>);

impl Model for LruModel {
    fn insert(&mut self, key: u8, bytes: u64) {
        self.remove(key);
        self.0.push((key, bytes));
    }
    fn hit(&mut self, key: u8) {
        if let Some(bytes) = self.remove(key) {
            self.0.push((key, bytes));
        }
    }
    fn remove(&mut self, key: u8) -> Option<u64> {
        let at = self.0.iter().position(|(k, _)| *k == key)?;
        Some(self.0.remove(at).1)
    }
    fn pop(&mut self) -> Option<(u8, u64)> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}

#[derive(Default)]
struct EpochModel(Vec<(u8, u64)>);

impl Model for EpochModel {
    fn insert(&mut self, key: u8, bytes: u64) {
        self.remove(key);
        self.0.push((key, bytes));
    }
    fn hit(&mut self, _: u8) {}
    fn remove(&mut self, key: u8) -> Option<u64> {
        let at = self.0.iter().position(|(k, _)| *k == key)?;
        Some(self.0.remove(at).1)
    }
    fn pop(&mut self) -> Option<(u8, u64)> {
        self.0.pop()
    }
}

#[derive(Default)]
struct S3FifoModel {
    small: VecDeque<u8>,
    main: VecDeque<u8>,
    ghosts: VecDeque<u8>,
    held: HashMap<u8, (u64, u8)>,
}

impl S3FifoModel {
    fn bytes(&self, queue: &VecDeque<u8>) -> u64 {
        queue.iter().map(|key| self.held[key].0).sum()
    }
}

impl Model for S3FifoModel {
    fn insert(&mut self, key: u8, bytes: u64) {
        self.remove(key);
        let haunts = self.ghosts.contains(&key);
        self.ghosts.retain(|ghost| *ghost != key);
        if haunts {
            self.main.push_back(key)
        } else {
            self.small.push_back(key)
        }
        self.held.insert(key, (bytes, 0));
    }
    fn hit(&mut self, key: u8) {
        if let Some((_, uses)) = self.held.get_mut(&key) {
            *uses = (*uses + 1).min(3);
        }
    }
    fn remove(&mut self, key: u8) -> Option<u64> {
        let (bytes, _) = self.held.remove(&key)?;
        self.small.retain(|k| *k != key);
        self.main.retain(|k| *k != key);
        Some(bytes)
    }
    fn pop(&mut self) -> Option<(u8, u64)> {
        loop {
            let (small, all) = (
                self.bytes(&self.small),
                self.bytes(&self.small) + self.bytes(&self.main),
            );
            let from_small = !self.small.is_empty() && (self.main.is_empty() || small * 10 >= all);
            let key = *if from_small {
                self.small.front()
            } else {
                self.main.front()
            }?;
            let uses = self.held[&key].1;
            if uses == 0 {
                let bytes = self.remove(key)?;
                if from_small {
                    self.ghosts.retain(|ghost| *ghost != key);
                    self.ghosts.push_back(key);
                }
                return Some((key, bytes));
            }
            if from_small {
                self.small.pop_front()
            } else {
                self.main.pop_front()
            };
            self.main.push_back(key);
            self.held.get_mut(&key)?.1 = if from_small { 0 } else { uses - 1 };
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u64),
    Hit(u8),
    Remove(u8),
    Pop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Fewer keys than ghosts that are always remembered: the models need not forget.
    let key = 0..40_u8;
    let step = prop_oneof![
        4 => (key.clone(), 1..20_u64).prop_map(|(key, bytes)| Step::Insert(key, bytes)),
        4 => key.clone().prop_map(Step::Hit),
        1 => key.prop_map(Step::Remove),
        2 => Just(Step::Pop),
    ];
    proptest::collection::vec(step, 0..200)
}

fn same(mut order: impl Order<u8>, mut model: impl Model, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut held: HashMap<u8, u64> = HashMap::new();
    for (tick, step) in steps.into_iter().enumerate() {
        match step {
            Step::Insert(key, bytes) => {
                order.insert(key, bytes, Arrival::Read, tick as u64);
                model.insert(key, bytes);
                held.insert(key, bytes);
            }
            Step::Hit(key) => {
                order.hit(&key, tick as u64);
                model.hit(key);
            }
            Step::Remove(key) => {
                prop_assert_eq!(order.remove(&key), model.remove(key));
                held.remove(&key);
            }
            Step::Pop => {
                let popped = order.pop();
                prop_assert_eq!(popped, model.pop());
                if let Some((key, bytes)) = popped {
                    prop_assert_eq!(held.remove(&key), Some(bytes));
                }
            }
        }
        prop_assert_eq!(order.bytes(), held.values().sum::<u64>());
        prop_assert_eq!(order.oldest().is_some(), !held.is_empty());
        let items: HashMap<u8, u64> = order.items().into_iter().collect();
        prop_assert_eq!(&items, &held);
    }
    Ok(())
}

proptest! {
    #[test]
    fn least_recently_used_is_a_list_to_whose_end_go_those_that_are_used(steps in steps()) {
        same(Lru::default(), LruModel::default(), steps)?;
    }

    #[test]
    fn epoch_is_a_pile(steps in steps()) {
        same(Epoch::default(), EpochModel::default(), steps)?;
    }

    #[test]
    fn s3fifo_is_three_queues(steps in steps()) {
        same(S3Fifo::default(), S3FifoModel::default(), steps)?;
    }
}

// ---- what they are worth

/// Hits over reads of the last epochs of ten, with room for `room` of `count` items of one byte.
fn hit_ratio(mut order: impl Order<u64>, count: u64, room: u64, shuffle: bool) -> f64 {
    let chance = SeededChance::new(1);
    let (mut held, mut tick, mut hits) = (HashSet::new(), 0, 0);
    let mut items: Vec<u64> = (0..count).collect();
    for epoch in 0..10 {
        if shuffle {
            for at in (1..items.len()).rev() {
                items.swap(at, usize::try_from(chance.below(at as u64 + 1)).unwrap());
            }
        }
        for item in &items {
            tick += 1;
            if held.contains(item) {
                order.hit(item, tick);
                hits += u64::from(epoch >= 5);
                continue;
            }
            while order.bytes() >= room && order.yields() {
                let (gone, _) = order.pop().unwrap();
                held.remove(&gone);
            }
            if order.bytes() < room {
                order.insert(*item, 1, Arrival::Read, tick);
                held.insert(*item);
            }
        }
    }
    hits as f64 / (5 * count) as f64
}

/// Without eviction the share of hits is the share that is held, which nobody can beat; least recently used has
/// c + (1-c) ln(1-c) of shuffled epochs and nothing of epochs in the same order.
#[test]
fn epochs_are_worth_what_theory_says() {
    const COUNT: u64 = 8000;
    for (share, lru, s3fifo) in [
        (0.25, 0.036, 0.150),
        (0.50, 0.155, 0.183),
        (0.75, 0.404, 0.440),
        (0.90, 0.671, 0.689),
    ] {
        let room = (COUNT as f64 * share) as u64;
        let found = [
            hit_ratio(Epoch::default(), COUNT, room, true),
            hit_ratio(Lru::default(), COUNT, room, true),
            hit_ratio(S3Fifo::default(), COUNT, room, true),
        ];
        assert!((found[0] - share).abs() < 0.001, "epoch at {share}: {found:?}");
        assert!((found[1] - lru).abs() < 0.012, "lru at {share}: {found:?}");
        let law = share + (1.0 - share) * (1.0 - share).ln();
        assert!(
            (found[1] - law).abs() < 0.012,
            "lru at {share}: {found:?}, by the law {law}"
        );
        assert!((found[2] - s3fifo).abs() < 0.06, "s3fifo at {share}: {found:?}");
        let rescan = [
            hit_ratio(Epoch::default(), COUNT, room, false),
            hit_ratio(Lru::default(), COUNT, room, false),
        ];
        assert!(
            (rescan[0] - share).abs() < 0.001 && rescan[1] == 0.0,
            "in the same order at {share}: {rescan:?}"
        );
    }
}

#[test]
fn a_scan_passes_s3fifo_by_and_drowns_least_recently_used() {
    fn survivors(mut order: impl Order<u64>) -> usize {
        let scan = (10_000..20_000).map(|key| (key, false));
        let hot = (0..80).map(|key| (key, false)).chain((0..80).map(|key| (key, true)));
        for (tick, (key, again)) in hot.chain(scan).enumerate() {
            if again {
                order.hit(&key, tick as u64);
                continue;
            }
            while order.bytes() >= 100 {
                order.pop();
            }
            order.insert(key, 1, Arrival::Read, tick as u64);
        }
        order.items().iter().filter(|(key, _)| *key < 80).count()
    }
    assert_eq!(survivors(S3Fifo::default()), 80);
    assert_eq!(survivors(Lru::default()), 0);
}

#[test]
fn ghosts_are_as_many_as_are_held_and_no_more() {
    let mut order = S3Fifo::default();
    for key in 0..100_000_u64 {
        if order.bytes() < 100 || order.admits(&key, NOW) {
            order.insert(key, 1, Arrival::Read, key);
        }
        if order.bytes() > 100 {
            order.pop();
        }
    }
    assert!(format!("{order:?}").len() < 100_000, "it remembers everything");
}

// ---- scans

const NOW: Duration = Duration::from_secs(1);

/// An order of at most a hundred items of one byte, and who is in it.
#[derive(Default)]
struct Hundred {
    order: S3Fifo<u64>,
    held: HashSet<u64>,
    now: Duration,
    tick: u64,
    writes: u64,
}

impl Hundred {
    /// Reads as a cache does; whether it was a hit.
    fn read(&mut self, key: u64) -> bool {
        self.tick += 1;
        if self.held.contains(&key) {
            self.order.hit(&key, self.tick);
            return true;
        }
        let is_short = self.held.len() >= 100;
        if is_short && !self.order.admits(&key, self.now) {
            return false;
        }
        self.bring(key, Arrival::Read);
        self.writes += 1;
        false
    }

    fn bring(&mut self, key: u64, arrival: Arrival) {
        if self.held.len() >= 100 {
            let (gone, _) = self.order.pop().unwrap();
            self.held.remove(&gone);
        }
        self.order.insert(key, 1, arrival, self.tick);
        self.held.insert(key);
    }

    fn hits(&mut self, keys: impl IntoIterator<Item = u64>) -> usize {
        keys.into_iter().filter(|key| self.read(*key)).count()
    }
}

#[test]
fn of_a_scan_one_in_sixteen_is_let_in_once_a_small_queue_of_it_has_left_unused() {
    let mut cache = Hundred::default();
    cache.hits(0..100);
    assert_eq!(cache.writes, 100, "while there is room all are let in");
    cache.hits(100..110);
    assert_eq!(cache.writes, 110, "there are no signs of a scan yet");
    cache.hits(1000..17_000);
    assert!((900..1100).contains(&(cache.writes - 110)), "{}", cache.writes);
}

#[test]
fn whoever_comes_back_is_let_in_during_a_scan_and_does_not_end_it_alone() {
    let mut cache = Hundred::default();
    cache.hits(0..1000);
    let (mut back, mut writes) = (0, 0);
    for key in 1000..9000 {
        cache.read(key);
        if key % 100 == 0 && !cache.held.contains(&key) {
            cache.read(key);
            assert!(cache.read(key), "{key} was read for the third time");
            (back, writes) = (back + 1, cache.writes);
        }
    }
    assert!(back > 60 && writes < 8000 / 4, "{writes} writes, {back} came back");
}

#[test]
fn what_is_read_again_after_a_scan_is_held_from_its_second_read_on() {
    let mut cache = Hundred::default();
    cache.hits(0..10_000);
    cache.hits(20_000..20_080);
    cache.hits(20_000..20_080);
    assert_eq!(cache.hits(20_000..20_080), 80);
}

#[test]
fn more_items_than_ghosts_are_remembered_for_get_in_by_those_that_are_tried() {
    let mut order = S3Fifo::default();
    let mut held: HashMap<u64, u64> = HashMap::new();
    let mut read = |key: u64, bytes: u64| {
        if held.contains_key(&key) {
            order.hit(&key, 0);
            return true;
        }
        if order.bytes() + bytes > 10_000 && !order.admits(&key, NOW) {
            return false;
        }
        while order.bytes() + bytes > 10_000 {
            let (gone, _) = order.pop().unwrap();
            held.remove(&gone);
        }
        order.insert(key, bytes, Arrival::Read, 0);
        held.insert(key, bytes);
        false
    };
    // Ten are held, so ghosts are few.
    for key in 0..1000 {
        read(key, 1000);
    }
    let mut pass = || (5000..8000).filter(|key| read(*key, 1)).count();
    let hits: Vec<usize> = (0..3).map(|_| pass()).collect();
    assert_eq!(hits[2], 3000, "{hits:?}");
}

#[test]
fn a_scan_that_nobody_goes_on_with_is_over() {
    let mut cache = Hundred::default();
    cache.hits(0..10_000);
    cache.now += Duration::from_secs(61);
    // Although nothing of what is held was ever used.
    cache.hits(20_000..20_080);
    assert_eq!(cache.hits(20_000..20_080), 80);
}

#[test]
fn what_was_brought_says_nothing_of_what_is_read() {
    let mut cache = Hundred::default();
    (0..1000).for_each(|key| cache.bring(key, Arrival::Brought));
    cache.hits(2000..2080);
    assert_eq!((cache.writes, cache.hits(2000..2080)), (80, 80));
}

#[test]
fn what_came_ahead_of_its_reader_is_not_used_by_that_read() {
    let mut cache = Hundred::default();
    for key in 0..10_000 {
        if !cache.read(key) {
            cache.order.hit_awaited(&key, cache.tick);
        }
    }
    assert!(cache.writes < 1000, "{}", cache.writes);
}
