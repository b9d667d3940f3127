//! One limit in bytes and everything that is held under it: who stays, who makes room, and who is not let in.
//!
//! Items live in groups. A group has one [`Order`]; which one an item belongs to says its [`Place`]:
//! - what is pinned, which never makes room;
//! - a path for which `evict` is set, with the order that it names;
//! - a directory that is found to be read in epochs, with no eviction for its own kind;
//! - everything else, in one S3-FIFO, which lets in few newcomers while they are a scan.
//!
//! Where there is no room for a newcomer, the group whose next item was not used for longest gives one up. A group without eviction
//! counts by its last use as a whole, and only once it has been left alone for [`ASLEEP`]: epochs take longer than most other data
//! stays in use, and a fixed share of a dataset is what helps it. Two exceptions: what is pinned takes room from anyone, and others
//! than such groups are left an eighth of the room even by those that are awake, so that a dataset that fills the cache does not keep
//! everything else out for ever.
//!
//! A quota holds for all groups under its path together, in the same way.

use crate::{
    Key, Set, Table, Value,
    evict::{Arrival, Epoch, Item, Lru, Order, S3Fifo},
    passes::Passes,
    value::{Evict, Tier},
};
use forebay_namespace::Path;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// A group without eviction that was not used for so long makes room for others.
const ASLEEP: Duration = Duration::from_secs(600);
/// Directories read in epochs that are remembered though nothing of them is held.
const IN_EPOCHS_MAX: usize = 4096;
/// The share of the room that is left to groups with eviction: one in so many.
const LEFT_SHARE: u64 = 8;

/// What the policies say of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory that it lies in.
    pub dir: Arc<Path>,
    /// The order, and the path that it is set at; none: the default.
    pub evict: Evict,
    /// Where the order is set.
    pub evict_at: Option<Arc<Path>>,
    /// It stays.
    pub pinned: bool,
    /// Limits on bytes, with their paths.
    pub quotas: Vec<(Arc<Path>, u64)>,
    /// The fastest tier that copies of its blocks lie in.
    pub tier: Tier,
}

impl Place {
    /// What the policies say of the file at `path`.
    pub fn of(path: &Path, policies: &Table) -> Self {
        let effective = policies.effective(path);
        let quota = |(at, set): (&Path, &Set)| match set.get(Key::QuotaBytes) {
            Some(Value::QuotaBytes(Some(size))) => Some((Arc::new(at.clone()), size.bytes)),
            _ => None,
        };
        Self {
            dir: Arc::new(path.parent().unwrap_or_default()),
            evict: effective.evict,
            evict_at: effective.from(Key::Evict).cloned().map(Arc::new),
            pinned: effective.pin.holds(),
            quotas: policies.along(path).into_iter().filter_map(quota).collect(),
            tier: effective.tier.clone(),
        }
    }
}

/// Names a group: quotas first, for what is under different ones is never in one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    quota: Option<Arc<Path>>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Pinned,
    Set(Option<Arc<Path>>, &'static str),
    Epochs(Arc<Path>),
    Shared,
}

impl Name {
    fn epochs(&self) -> Option<&Arc<Path>> {
        match &self.kind {
            Kind::Epochs(dir) => Some(dir),
            _ => None,
        }
    }
}

/// Among those who may have to give something up, who comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// Who has more than is its own while others are short.
    First,
    /// By age.
    Yields,
    /// Before it comes to this, all others.
    Last,
}

#[derive(Debug)]
struct Group<K> {
    order: Box<dyn Order<K>>,
    quotas: Vec<(Arc<Path>, u64)>,
    used: Duration,
}

/// What became of a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered<K> {
    /// Whether it is held now.
    pub kept: bool,
    /// Who made room.
    pub gone: Vec<K>,
}

/// The room.
#[derive(Debug)]
pub struct Room<K> {
    limit: u64,
    groups: BTreeMap<Name, Group<K>>,
    items: HashMap<K, (Name, Arc<Place>)>,
    passes: Passes<Arc<Path>>,
    /// Directories that are read in epochs.
    in_epochs: BTreeSet<Arc<Path>>,
    bytes: u64,
    tick: u64,
}

impl<K: Item> Room<K> {
    /// Room for `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            groups: BTreeMap::new(),
            items: HashMap::new(),
            passes: Passes::default(),
            in_epochs: BTreeSet::new(),
            bytes: 0,
            tick: 0,
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes held that never make room.
    pub fn pinned_bytes(&self) -> u64 {
        let pinned = self.groups.iter().filter(|(name, _)| name.kind == Kind::Pinned);
        pinned.map(|(_, group)| group.order.bytes()).sum()
    }

    /// Whether an item is held.
    pub fn holds(&self, key: &K) -> bool {
        self.items.contains_key(key)
    }

    /// Whether an item is held and never makes room.
    pub fn is_pinned(&self, key: &K) -> bool {
        self.items.get(key).is_some_and(|(name, _)| name.kind == Kind::Pinned)
    }

    /// An item was read, whether it is held or not: to be told before [`Room::admit`]. Answers whether it is held.
    pub fn read(&mut self, key: &K, place: &Arc<Place>, now: Duration) -> bool {
        if let Some((group, tick)) = self.group_read(key, place, now) {
            group.order.hit(key, tick);
        }
        self.holds(key)
    }

    /// As [`Room::read`], of an item that was fetched ahead of this read.
    pub fn read_awaited(&mut self, key: &K, place: &Arc<Place>, now: Duration) {
        if let Some((group, tick)) = self.group_read(key, place, now) {
            group.order.hit_awaited(key, tick);
        }
    }

    /// The group whose item is read, and when.
    fn group_read(&mut self, key: &K, place: &Arc<Place>, now: Duration) -> Option<(&mut Group<K>, u64)> {
        self.tick += 1;
        if place.evict == Evict::Auto && !place.pinned {
            self.watch(key, place);
        }
        let name = match self.items.get(key) {
            Some((name, _)) => name.clone(),
            None => self.name(place),
        };
        let group = self.groups.get_mut(&name)?;
        group.used = now;
        Some((group, self.tick))
    }

    /// An item that is held counts as used, without having been read.
    pub fn touch(&mut self, key: &K) {
        self.tick += 1;
        let group = self.items.get(key).and_then(|(name, _)| self.groups.get_mut(name));
        if let Some(group) = group {
            group.order.hit(key, self.tick);
        }
    }

    /// A newcomer of so many bytes that somebody reads. Where others had to make room for it, its group's order may refuse it.
    pub fn admit(&mut self, key: K, bytes: u64, place: &Arc<Place>, now: Duration) -> Entered<K> {
        let is_short = self.is_short(bytes, &place.quotas) && !self.holds(&key);
        let name = self.name(place);
        if is_short
            && let Some(group) = self.groups.get_mut(&name)
            && !group.order.admits(&key, now)
        {
            return Entered {
                kept: false,
                gone: Vec::new(),
            };
        }
        self.take_in(key, bytes, place, Arrival::Read, now)
    }

    /// A newcomer of so many bytes that is to be here, whoever reads it when. One that is held already is taken out first.
    pub fn enter(&mut self, key: K, bytes: u64, place: &Arc<Place>, now: Duration) -> Entered<K> {
        self.take_in(key, bytes, place, Arrival::Brought, now)
    }

    fn take_in(&mut self, key: K, bytes: u64, place: &Arc<Place>, arrival: Arrival, now: Duration) -> Entered<K> {
        self.leave(&key);
        self.tick += 1;
        let name = self.name(place);
        let mut gone = Vec::new();
        let kept = bytes <= self.limit && self.make_room(&name, bytes, &place.quotas, now, &mut gone);
        if kept {
            let group = self.groups.entry(name.clone()).or_insert_with(|| Group {
                order: order(&name.kind),
                quotas: place.quotas.clone(),
                used: now,
            });
            group.used = now;
            group.order.insert(key.clone(), bytes, arrival, self.tick);
            self.bytes += bytes;
            self.items.insert(key, (name, Arc::clone(place)));
        }
        Entered { kept, gone }
    }

    /// An item is held no more. Its bytes, when it was.
    pub fn leave(&mut self, key: &K) -> Option<u64> {
        let (name, _) = self.items.remove(key)?;
        let group = self.groups.get_mut(&name)?;
        let bytes = group.order.remove(key)?;
        self.bytes -= bytes;
        self.tidy(&name);
        Some(bytes)
    }

    /// Takes out items for which `is` holds until they had `bytes` in all, none that is pinned. For room of another kind than the limit's: where
    /// it is short, the groups give in their turn, and within one the order is that of the keys.
    pub fn take(&mut self, bytes: u64, is: impl Fn(&K) -> bool) -> Vec<K> {
        let mut groups: Vec<_> = self
            .groups
            .iter()
            .filter(|(name, _)| name.kind != Kind::Pinned)
            .map(|(name, group)| ((!group.order.yields(), group.order.oldest()), name.clone()))
            .collect();
        groups.sort();
        let (mut taken, mut sum) = (Vec::new(), 0);
        for (_, name) in groups {
            let Some(group) = self.groups.get(&name) else { continue };
            let mut items = group.order.items();
            items.retain(|(key, _)| is(key));
            items.sort();
            for (key, len) in items {
                if sum >= bytes {
                    return taken;
                }
                self.leave(&key);
                sum += len;
                taken.push(key);
            }
        }
        taken
    }

    /// Everything gets the place that `place` says now, after policies were changed. Who must go because of that.
    pub fn replace(&mut self, place: impl Fn(&K, &Place) -> Arc<Place>, now: Duration) -> Vec<K> {
        let mut items: Vec<(K, u64, Arc<Place>)> = Vec::new();
        for group in std::mem::take(&mut self.groups).into_values() {
            for (key, bytes) in group.order.items() {
                if let Some((_, before)) = self.items.remove(&key) {
                    let place = place(&key, &before);
                    items.push((key, bytes, place));
                }
            }
        }
        // In an order of their own, pinned ones first, so that the same history gives the same outcome.
        items.sort_by(|a, b| b.2.pinned.cmp(&a.2.pinned).then_with(|| a.0.cmp(&b.0)));
        self.bytes = 0;
        let mut gone = Vec::new();
        for (key, bytes, place) in items {
            let entered = self.enter(key.clone(), bytes, &place, now);
            gone.extend(entered.gone);
            if !entered.kept {
                gone.push(key);
            }
        }
        gone
    }

    /// The group that an item of this place belongs to.
    fn name(&self, place: &Place) -> Name {
        let kind = match place.evict {
            _ if place.pinned => Kind::Pinned,
            Evict::Auto if self.in_epochs.contains(&place.dir) => Kind::Epochs(Arc::clone(&place.dir)),
            Evict::Auto => Kind::Shared,
            set => Kind::Set(place.evict_at.clone(), set.word()),
        };
        let quota = place.quotas.last().map(|(path, _)| Arc::clone(path));
        Name { quota, kind }
    }

    /// Takes note of how the directory is read, and moves what is held of it when that has changed.
    fn watch(&mut self, key: &K, place: &Place) {
        let epochs = self.passes.read(&place.dir, key);
        if epochs == self.in_epochs.contains(&place.dir) {
            return;
        }
        if epochs {
            self.in_epochs.insert(Arc::clone(&place.dir));
        } else {
            self.in_epochs.remove(&place.dir);
        }
        if self.in_epochs.len() > IN_EPOCHS_MAX {
            // Of those that nothing is held of it is found out anew.
            let held: BTreeSet<Arc<Path>> = self.groups.keys().filter_map(Name::epochs).cloned().collect();
            self.in_epochs = held;
        }
        let of_dir =
            |(_, (_, of)): &(&K, &(Name, Arc<Place>))| of.dir == place.dir && of.evict == Evict::Auto && !of.pinned;
        let mut moving: Vec<(K, Arc<Place>)> = self
            .items
            .iter()
            .filter(of_dir)
            .map(|(key, (_, place))| (key.clone(), Arc::clone(place)))
            .collect();
        moving.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, place) in moving {
            self.regroup(&key, &place);
        }
    }

    /// Moves an item that is held to the group that its place says.
    fn regroup(&mut self, key: &K, place: &Arc<Place>) {
        let to = self.name(place);
        let Some((from, _)) = self.items.get(key) else { return };
        let from = from.clone();
        let Some(group) = self.groups.get_mut(&from) else {
            return;
        };
        let used = group.used;
        let Some(bytes) = group.order.remove(key) else { return };
        self.tidy(&from);
        self.tick += 1;
        let group = self.groups.entry(to.clone()).or_insert_with(|| Group {
            order: order(&to.kind),
            quotas: place.quotas.clone(),
            used,
        });
        group.order.insert(key.clone(), bytes, Arrival::Brought, self.tick);
        self.items.insert(key.clone(), (to, Arc::clone(place)));
    }

    fn tidy(&mut self, name: &Name) {
        // The shared group keeps its ghosts.
        if name.kind != Kind::Shared
            && self
                .groups
                .get(name)
                .is_some_and(|group| group.order.oldest().is_none())
        {
            self.groups.remove(name);
        }
    }

    /// Makes room for `bytes` in the group, under the quotas and in all. Whether there is.
    fn make_room(
        &mut self,
        name: &Name,
        bytes: u64,
        quotas: &[(Arc<Path>, u64)],
        now: Duration,
        gone: &mut Vec<K>,
    ) -> bool {
        for (path, most) in quotas.iter().rev() {
            if bytes > *most {
                return false;
            }
            while self.bytes_under(path) + bytes > *most {
                match self.give_up(name, Some(path), now) {
                    Some(key) => gone.push(key),
                    None => return false,
                }
            }
        }
        while self.bytes + bytes > self.limit {
            match self.give_up(name, None, now) {
                Some(key) => gone.push(key),
                None => return false,
            }
        }
        true
    }

    /// Whether others have to make room for so many bytes.
    fn is_short(&self, bytes: u64, quotas: &[(Arc<Path>, u64)]) -> bool {
        let exceeds = |(path, most): &(Arc<Path>, u64)| self.bytes_under(path) + bytes > *most;
        self.bytes + bytes > self.limit || quotas.iter().any(exceeds)
    }

    fn bytes_under(&self, quota: &Arc<Path>) -> u64 {
        let under = |group: &&Group<K>| group.quotas.iter().any(|(path, _)| path == quota);
        let groups = self.groups.values().filter(under);
        groups.map(|group| group.order.bytes()).sum()
    }

    /// Takes out whoever makes room for one of the group `of`; with a quota, among those under it.
    fn give_up(&mut self, of: &Name, quota: Option<&Arc<Path>>, now: Duration) -> Option<K> {
        let yielding: u64 = self
            .groups
            .values()
            .filter(|group| group.order.yields())
            .map(|group| group.order.bytes())
            .sum();
        let short = order_yields(&of.kind) && quota.is_none() && yielding < self.limit / LEFT_SHARE;
        let candidate = |(name, group): (&Name, &Group<K>)| {
            let within = quota.is_none_or(|quota| group.quotas.iter().any(|(path, _)| path == quota));
            let oldest = group.order.oldest().filter(|_| within && name.kind != Kind::Pinned)?;
            let asleep = now.saturating_sub(group.used) >= ASLEEP;
            let turn = match group.order.yields() {
                true => Turn::Yields,
                false if name == of => return None,
                false if asleep => Turn::Yields,
                false if short => Turn::First,
                false if of.kind == Kind::Pinned => Turn::Last,
                false => return None,
            };
            Some(((turn, oldest), name.clone()))
        };
        let (_, name) = self.groups.iter().filter_map(candidate).min()?;
        let (key, bytes) = self.groups.get_mut(&name)?.order.pop()?;
        self.items.remove(&key);
        self.bytes -= bytes;
        self.tidy(&name);
        Some(key)
    }
}

fn order<K: Item>(kind: &Kind) -> Box<dyn Order<K>> {
    match kind {
        Kind::Set(_, word) if *word == Evict::Lru.word() => Box::<Lru<K>>::default(),
        Kind::Set(_, word) if *word == Evict::Epoch.word() => Box::<Epoch<K>>::default(),
        Kind::Epochs(_) | Kind::Pinned => Box::<Epoch<K>>::default(),
        Kind::Shared | Kind::Set(..) => Box::<S3Fifo<K>>::default(),
    }
}

fn order_yields(kind: &Kind) -> bool {
    match kind {
        Kind::Set(_, word) => *word != Evict::Epoch.word(),
        Kind::Shared => true,
        Kind::Epochs(_) | Kind::Pinned => false,
    }
}

#[cfg(test)]
mod tests;
