//! What the packs hold together: for every key the record of the newest pack that has one.
//!
//! It owns the numbers by which packs are found to be dead or not worth their room. It asks no store. A key costs about twice its
//! length and 150 bytes, in memory.

use super::format::{Index, Meta};
use crate::{Found, Listed, Validator};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// Packs smaller than this are put together once there are [`SMALL_MAX`] of them.
const SMALL_BYTES: u64 = 4 << 20;
const SMALL_MAX: usize = 32;
/// What a record counts for beside its file's bytes, where it is weighed how much of a pack is dead.
const RECORD_WEIGHT: u64 = 256;

/// A pack that is in the store.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    pub(super) validator: Validator,
    /// Of the object.
    pub(super) size: u64,
    pub(super) index: Index,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Files that are the newest of their key, and their bytes.
    live: u64,
    live_bytes: u64,
    /// Files in all.
    files: u64,
    /// Records that keep a file of an older pack from coming back.
    gone: u64,
}

/// Where the newest record of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    seq: u64,
    at: u32,
    is_file: bool,
    size: u32,
    /// Files of this key in other packs.
    older: u32,
}

/// Where a file lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lies {
    pub(super) seq: u64,
    pub(super) pack: Validator,
    pub(super) meta: Meta,
}

/// What is to be carried over from packs that are not worth their room.
#[derive(Debug, Default)]
pub(super) struct Victims {
    pub(super) files: Vec<(String, Lies)>,
    pub(super) gone: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Packs {
    packs: BTreeMap<u64, Pack>,
    /// By key, with NUL for each slash: so what lies in a directory comes right after its name.
    slots: BTreeMap<Box<str>, Slot>,
    /// Deleted by us: a listing that was under way may still show them.
    removed: BTreeSet<u64>,
    /// Packs whose files could not be read when they were to be carried over.
    unreadable: BTreeSet<u64>,
}

/// The validator of a packed file. It stays when the file is carried over to another pack.
pub(super) fn validator(token: &str) -> Validator {
    Validator(format!("packed:{token}"))
}

/// Whether a validator is that of a packed file.
pub(super) fn is_packed(validator: &Validator) -> bool {
    validator.0.starts_with("packed:")
}

/// What `head` says of a packed file.
pub(super) fn found(meta: &Meta) -> Found {
    Found {
        size: u64::from(meta.size),
        mtime: meta.mtime,
        validator: validator(&meta.token),
        token: Some(meta.token.clone()),
        attributes: meta.attributes.clone(),
        is_dir: false,
    }
}

/// A directory that is only what is packed in it.
pub(super) fn directory() -> Found {
    Found {
        size: 0,
        mtime: 0,
        validator: Validator(String::new()),
        token: None,
        attributes: Vec::new(),
        is_dir: true,
    }
}

fn slot_key(key: &str) -> String {
    key.replace('/', "\0")
}

impl Pack {
    pub(super) fn new(validator: Validator, size: u64, index: Index) -> Self {
        Self {
            validator,
            size,
            index,
            counts: Counts::default(),
        }
    }

    fn is_dead(&self) -> bool {
        self.counts.live == 0 && self.counts.gone == 0
    }

    /// Whether more than half of what it holds is dead.
    fn is_mostly_dead(&self) -> bool {
        let Counts {
            live,
            live_bytes,
            files,
            ..
        } = self.counts;
        let weight = self.index.data_bytes + files * RECORD_WEIGHT;
        files > 0 && (live_bytes + live * RECORD_WEIGHT) * 2 < weight
    }
}

impl Packs {
    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// Keys that are known.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The number of the next pack. The newest pack is never deleted, so no number is used twice.
    pub(super) fn next_seq(&self) -> u64 {
        let newest = self.packs.last_key_value().map_or(0, |(seq, _)| *seq);
        newest.max(self.removed.last().copied().unwrap_or(0)) + 1
    }

    pub(super) fn seqs(&self) -> Vec<u64> {
        self.packs.keys().copied().collect()
    }

    /// Whether this very object is known, or was deleted by us.
    pub(super) fn knows(&self, seq: u64, validator: &Validator) -> bool {
        self.removed.contains(&seq) || self.packs.get(&seq).is_some_and(|pack| pack.validator == *validator)
    }

    /// Takes in a pack, in place of another one of the same number.
    pub(super) fn add(&mut self, seq: u64, pack: Pack) {
        match self.packs.get(&seq) {
            Some(known) if known.validator == pack.validator => return,
            Some(_) => self.lose(&BTreeSet::from([seq])),
            None => {}
        }
        self.packs.insert(seq, pack);
        self.take_in(seq);
    }

    fn take_in(&mut self, seq: u64) {
        let index = self.packs[&seq].index.clone();
        for (at, record) in index.records() {
            self.take_record(seq, at, record.key, record.file.as_ref());
        }
    }

    fn take_record(&mut self, seq: u64, at: u32, key: &str, file: Option<&Meta>) {
        if file.is_some() {
            self.counts(seq).files += 1;
        }
        let key = slot_key(key).into_boxed_str();
        let mut fresh = Slot {
            seq,
            at,
            is_file: file.is_some(),
            size: file.map_or(0, |meta| meta.size),
            older: 0,
        };
        match self.slots.get(&key).copied() {
            // A newer pack has said otherwise.
            Some(slot) if slot.seq > seq => {
                if file.is_some()
                    && let Some(slot) = self.slots.get_mut(&key)
                {
                    slot.older += 1;
                }
                return;
            }
            Some(slot) => {
                self.uncount(&slot);
                fresh.older = slot.older + u32::from(slot.is_file);
            }
            None => {}
        }
        self.count(&fresh);
        self.slots.insert(key, fresh);
    }

    fn counts(&mut self, seq: u64) -> &mut Counts {
        &mut self
            .packs
            .get_mut(&seq)
            .expect("slots name packs that are there")
            .counts
    }

    fn count(&mut self, slot: &Slot) {
        let bytes = u64::from(slot.size);
        let counts = self.counts(slot.seq);
        match slot.is_file {
            true => (counts.live, counts.live_bytes) = (counts.live + 1, counts.live_bytes + bytes),
            false => counts.gone += 1,
        }
    }

    fn uncount(&mut self, slot: &Slot) {
        let bytes = u64::from(slot.size);
        let counts = self.counts(slot.seq);
        match slot.is_file {
            true => (counts.live, counts.live_bytes) = (counts.live - 1, counts.live_bytes - bytes),
            false => counts.gone -= 1,
        }
    }

    /// Forgets records that keep nothing from coming back. To be called once all packs that are there were taken in: one that comes
    /// later may be older.
    pub(super) fn forget_needless(&mut self) {
        let needless = |slot: &Slot| !slot.is_file && slot.older == 0;
        let keys: Vec<Box<str>> = self
            .slots
            .iter()
            .filter(|(_, slot)| needless(slot))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some(slot) = self.slots.remove(key) {
            self.uncount(&slot);
        }
    }

    /// Packs that are there no more, without our doing: what older packs have under their keys shows again.
    pub(super) fn lose(&mut self, seqs: &BTreeSet<u64>) {
        if !seqs.iter().any(|seq| self.packs.contains_key(seq)) {
            return;
        }
        self.packs.retain(|seq, _| !seqs.contains(seq));
        self.slots.clear();
        self.packs.values_mut().for_each(|pack| pack.counts = Counts::default());
        for seq in self.seqs() {
            self.take_in(seq);
        }
        self.forget_needless();
    }

    /// The packs that hold nothing any more, but the newest, which keeps its number from being used again.
    pub(super) fn dead(&self) -> Vec<(u64, Validator)> {
        let older = self.packs.len().saturating_sub(1);
        let dead = self.packs.iter().take(older).filter(|(_, pack)| pack.is_dead());
        dead.map(|(seq, pack)| (*seq, pack.validator.clone())).collect()
    }

    /// We are about to delete a dead pack.
    pub(super) fn doom(&mut self, seq: u64) {
        self.removed.insert(seq);
    }

    /// It was not deleted after all.
    pub(super) fn spare(&mut self, seq: u64) {
        self.removed.remove(&seq);
    }

    /// A dead pack was deleted: what only kept its files from coming back is not needed any more.
    pub(super) fn deleted(&mut self, seq: u64) {
        let Some(pack) = self.packs.remove(&seq) else { return };
        for (_, record) in pack.index.records() {
            let key = slot_key(record.key);
            let Some(slot) = self.slots.get_mut(key.as_str()).filter(|_| record.file.is_some()) else {
                continue;
            };
            slot.older = slot.older.saturating_sub(1);
            if !slot.is_file && slot.older == 0 {
                self.forget(&key);
            }
        }
        self.unreadable.remove(&seq);
    }

    /// What a listing that began after they were deleted does not show any more need not be remembered, but for the newest number.
    pub(super) fn forget_removed(&mut self, but: &BTreeSet<u64>) {
        let newest = self.removed.last().copied();
        self.removed.retain(|seq| but.contains(seq) || Some(*seq) == newest);
    }

    /// What packs hold that are mostly dead, or small and many: up to `bytes_max`, the oldest first.
    pub(super) fn victims(&self, bytes_max: u64) -> Victims {
        let readable = || self.packs.iter().filter(|(seq, _)| !self.unreadable.contains(*seq));
        let small: BTreeSet<u64> = readable()
            .filter(|(_, pack)| pack.size < SMALL_BYTES)
            .map(|(seq, _)| *seq)
            .collect();
        let many = small.len() >= SMALL_MAX;
        let (mut chosen, mut bytes) = (BTreeSet::new(), 0);
        for (seq, pack) in readable() {
            let goes = pack.is_mostly_dead() || many && small.contains(seq);
            if !goes || pack.is_dead() {
                continue;
            }
            if !chosen.is_empty() && bytes + pack.counts.live_bytes > bytes_max {
                break;
            }
            bytes += pack.counts.live_bytes;
            chosen.insert(*seq);
        }
        let mut victims = Victims::default();
        for (seq, pack) in chosen.iter().map(|seq| (*seq, &self.packs[seq])) {
            for (at, record) in pack.index.records() {
                let newest = self.slots.get(slot_key(record.key).as_str());
                if newest.is_none_or(|slot| (slot.seq, slot.at) != (seq, at)) {
                    continue;
                }
                match record.file {
                    Some(meta) => {
                        let pack = pack.validator.clone();
                        victims.files.push((record.key.to_owned(), Lies { seq, pack, meta }));
                    }
                    None => victims.gone.push(record.key.to_owned()),
                }
            }
        }
        victims
    }

    /// A file of this pack is damaged: it stays where it is.
    pub(super) fn leave_alone(&mut self, seq: u64) {
        self.unreadable.insert(seq);
    }

    /// The file at a key.
    pub(super) fn file(&self, key: &str) -> Option<Lies> {
        let slot = self.slots.get(slot_key(key).as_str()).filter(|slot| slot.is_file)?;
        let pack = &self.packs[&slot.seq];
        Some(Lies {
            seq: slot.seq,
            pack: pack.validator.clone(),
            meta: pack.index.at(slot.at).file?,
        })
    }

    /// Whether a file lies below the directory.
    pub(super) fn any_below(&self, key: &str) -> bool {
        let prefix = below(key);
        self.live_in(&prefix)
    }

    fn live_in(&self, prefix: &str) -> bool {
        self.slots
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .any(|(_, slot)| slot.is_file)
    }

    /// Names directly in the directory after `after`, in byte order, at least `limit` if there are so many. A name that is a file and a
    /// directory comes twice.
    pub(super) fn children(&self, dir: &str, after: Option<&str>, limit: usize) -> Vec<Listed> {
        let prefix = below(dir);
        // Behind everything that lies in a directory of that name.
        let mut from = after.map_or_else(|| prefix.clone(), |after| format!("{prefix}{after}\u{1}"));
        let mut listed: Vec<Listed> = Vec::new();
        loop {
            let range = (Bound::Included(from.as_str()), Bound::Unbounded);
            let next = self.slots.range::<str, _>(range).next();
            let Some((key, slot)) = next.filter(|(key, _)| key.starts_with(prefix.as_str())) else {
                return listed;
            };
            let rest = &key[prefix.len()..];
            let (name, inside) = rest.split_once('\0').map_or((rest, false), |(name, _)| (name, true));
            if listed.len() >= limit && listed.last().is_some_and(|last| last.name != name) {
                return listed;
            }
            if inside {
                let sub = format!("{prefix}{name}\0");
                if self.live_in(&sub) {
                    listed.push(Listed {
                        name: name.to_owned(),
                        found: directory(),
                    });
                }
                from = format!("{prefix}{name}\u{1}");
                continue;
            }
            if slot.is_file
                && let Some(meta) = self.packs[&slot.seq].index.at(slot.at).file
            {
                listed.push(Listed {
                    name: name.to_owned(),
                    found: Found {
                        token: None,
                        attributes: Vec::new(),
                        ..found(&meta)
                    },
                });
            }
            from = format!("{key}\0");
        }
    }
}

/// What the slots in a directory begin with.
fn below(key: &str) -> String {
    match key {
        "" => String::new(),
        key => format!("{}\0", slot_key(key)),
    }
}
