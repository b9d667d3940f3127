//! The index of what is held of the under-stores: blocks of objects in files of the data folder, and local copies of persisted
//! files, under one limit in bytes. Who stays and who makes room is the policy crate's [`Room`]; here is what it means.
//!
//! It lives in memory alone: after a restart the blocks are fetched anew (their files are removed), and the copies are found in
//! the rows. Nothing dirty is ever in it. It does no input or output; who takes something out of it removes the bytes.
//!
//! A block may have a second copy in a faster tier, which comes and goes without the first.

use super::{BLOCK_BYTES, tiers::Tiers};
use forebay_namespace::{Ino, Path};
use forebay_policy::{
    Room,
    evict::Arrival,
    room::{Entered, Place},
};
use forebay_runtime::clock::Timestamp;
use forebay_segment::StreamId;
use forebay_understore::Validator;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// Objects of which it is known how they are read.
const SEQUENCES_MAX: usize = 4096;

/// The bits of a file's number that say in which folder it is.
const FOLDER_SHIFT: u32 = 56;

/// In which folder a file is: the data folders come first, and the tiers' after them.
pub(super) fn folder_of(file: u64) -> usize {
    usize::try_from(file >> FOLDER_SHIFT).expect("eight bits fit")
}

/// One version of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectId {
    pub(super) mount: u32,
    pub(super) key: Arc<str>,
    pub(super) validator: Tag,
}

/// A validator, shared.
pub(super) type Tag = Arc<str>;

/// One block of an object.
pub(super) type BlockId = (ObjectId, u64);

/// A block that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Number of its file.
    pub(super) file: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
}

/// Where a block is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) held: Held,
    /// Number of the file of its copy in a faster tier.
    pub(super) fast: Option<u64>,
}

/// What can be held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Item {
    /// A block of an object.
    Block(BlockId),
    /// The local copy of a persisted file.
    Copy(StreamId),
}

/// What is held of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// Blocks of an object.
    Object(ObjectId),
    /// The local copy.
    Copy(StreamId),
}

/// What has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Remove this file.
    File(u64),
    /// Drop the copy from its row, then release it.
    Copy(Ino, u32),
}

/// Where an object or a copy lies, what the policies say of it, and when it was changed last. There may be millions: what those of one
/// directory have in common they share.
#[derive(Clone, Debug)]
pub(super) struct At {
    place: Arc<Place>,
    /// Its name in the place's directory; empty: it is that directory.
    name: Box<[u8]>,
    changed: Timestamp,
}

impl At {
    pub(super) fn new(path: &Path, place: Arc<Place>, changed: Timestamp) -> Self {
        Self {
            place,
            name: path.name().unwrap_or_default().into(),
            changed,
        }
    }

    pub(super) fn path(&self) -> Path {
        let dir = &*self.place.dir;
        // It was taken from a path, so it makes one.
        dir.join(&self.name).unwrap_or_else(|_| dir.clone())
    }
}

/// The local copy of a persisted file.
#[derive(Debug)]
struct Copied {
    bytes: u64,
    at: At,
    /// The data folder that it lies in.
    folder: Option<usize>,
}

#[derive(Debug)]
struct Block {
    found: Found,
    /// A reader read it since it came.
    used: bool,
}

#[derive(Debug)]
struct Object {
    blocks: BTreeMap<u64, Block>,
    at: At,
}

/// The index.
#[derive(Debug)]
pub(super) struct Blocks {
    objects: HashMap<ObjectId, Object>,
    copies: HashMap<StreamId, Copied>,
    room: Room<Item>,
    tiers: Tiers,
    /// Of objects that are read: where the last read ended, and how many followed each other.
    sequences: HashMap<ObjectId, (u64, u32)>,
    files: u64,
    /// Bytes of blocks by folder.
    bytes_in: Vec<u64>,
}

impl ObjectId {
    pub(super) fn new(mount: u32, key: &str, validator: &Validator) -> Self {
        Self {
            mount,
            key: key.into(),
            validator: validator.0.as_str().into(),
        }
    }
}

impl Blocks {
    /// An index of at most `limit` bytes, and of what has copies in `tiers`.
    pub(super) fn new(limit: u64, tiers: Tiers) -> Self {
        Self {
            objects: HashMap::new(),
            copies: HashMap::new(),
            room: Room::new(limit),
            tiers,
            sequences: HashMap::new(),
            files: 0,
            bytes_in: Vec::new(),
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.room.bytes()
    }

    /// Of those, what never makes room.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.room.pinned_bytes()
    }

    /// A number for a new file in the n-th folder.
    pub(super) fn file(&mut self, folder: usize) -> u64 {
        self.files += 1;
        (folder as u64) << FOLDER_SHIFT | self.files
    }

    /// Bytes of blocks in the n-th folder.
    pub(super) fn bytes_in(&self, folder: usize) -> u64 {
        self.bytes_in.get(folder).copied().unwrap_or(0)
    }

    fn count(&mut self, file: u64, len: u32, add: bool) {
        let folder = folder_of(file);
        if self.bytes_in.len() <= folder {
            self.bytes_in.resize(folder + 1, 0);
        }
        let (bytes, len) = (&mut self.bytes_in[folder], u64::from(len));
        *bytes = if add { *bytes + len } else { bytes.saturating_sub(len) };
    }

    /// The block, when it is held.
    pub(super) fn block(&self, id: &BlockId) -> Option<Found> {
        Some(self.objects.get(&id.0)?.blocks.get(&id.1)?.found)
    }

    fn block_mut(&mut self, id: &BlockId) -> Option<&mut Block> {
        self.objects.get_mut(&id.0)?.blocks.get_mut(&id.1)
    }

    /// The tiers, with the bytes that each holds.
    pub(super) fn tiers(&self) -> impl Iterator<Item = (&super::tiers::Tier, u64)> {
        self.tiers.all().map(|(tier, folder)| (tier, self.bytes_in(folder)))
    }

    /// Where an object that is known lies.
    pub(super) fn at(&self, object: &ObjectId) -> Option<At> {
        self.objects.get(object).map(|object| object.at.clone())
    }

    /// A reader reads the block, held or not. In which folder there should be a copy of it now, and is none.
    pub(super) fn read(&mut self, id: &BlockId, at: &At, now: Duration) -> Option<usize> {
        let block = self.block_mut(id);
        let again = block.map(|block| (std::mem::replace(&mut block.used, true), block.found.fast));
        let item = Item::Block(id.clone());
        match again {
            Some((true, _)) => drop(self.room.read(&item, &at.place, now)),
            // It came ahead of this read, or is on its way.
            _ => self.room.read_awaited(&item, &at.place, now),
        }
        let lies = again.and_then(|(_, fast)| fast).map(folder_of);
        self.tiers.read(id, &at.place, lies, now);
        let (again, _) = again?;
        self.tiers.goal(&at.place, lies, again)
    }

    /// A reader read the block when it was not held, and it is now. As [`Self::read`], for one that comes.
    pub(super) fn came(&mut self, id: &BlockId, read: bool) -> Option<usize> {
        let object = self.objects.get_mut(&id.0)?;
        let block = object.blocks.get_mut(&id.1)?;
        block.used |= read;
        let lies = block.found.fast.map(folder_of);
        self.tiers.goal(&object.at.place, lies, false)
    }

    /// Makes room for a copy of the block in a tier's folder. The number of its file, and who has to go. No number: it is not held, there is
    /// no room, or one is there or on its way.
    pub(super) fn raise(&mut self, id: &BlockId, folder: usize, now: Duration) -> (Option<u64>, Vec<Gone>) {
        let object = self.objects.get(&id.0);
        let Some((object, block)) = object.and_then(|object| Some((object, object.blocks.get(&id.1)?))) else {
            return (None, Vec::new());
        };
        let bytes = u64::from(block.found.held.len);
        let Entered { kept, gone } = self.tiers.enter(id, bytes, folder, &object.at.place, now);
        let gone = gone.iter().filter_map(|id| self.lower(id, folder)).collect();
        (kept.then(|| self.file(folder)), gone)
    }

    /// The copy that [`Self::raise`] made room for is written. Which file has to go: that of another copy, or this one when the block went
    /// or came anew meanwhile.
    pub(super) fn raised(&mut self, id: &BlockId, of: Held, fast: u64) -> Option<Gone> {
        let still = self.tiers.holds(id, folder_of(fast)) && self.block(id).is_some_and(|found| found.held == of);
        if !still {
            // A copy of the block that came anew stays.
            let folder = folder_of(fast);
            let newer = self.block(id).and_then(|found| found.fast).map(folder_of);
            if newer != Some(folder) {
                self.tiers.leave(id, folder);
            }
            return Some(Gone::File(fast));
        }
        let before = self.block_mut(id)?.found.fast.replace(fast);
        self.count(fast, of.len, true);
        let before = before?;
        self.count(before, of.len, false);
        self.tiers.leave(id, folder_of(before));
        Some(Gone::File(before))
    }

    /// There will be no copy, or it is good for nothing.
    pub(super) fn not_raised(&mut self, id: &BlockId, folder: usize) -> Option<Gone> {
        self.tiers.leave(id, folder);
        self.lower(id, folder)
    }

    /// Takes out the copy in a tier's folder, of which the tier knows no more.
    fn lower(&mut self, id: &BlockId, folder: usize) -> Option<Gone> {
        let block = self.block_mut(id)?;
        let fast = block.found.fast.filter(|fast| folder_of(*fast) == folder)?;
        block.found.fast = None;
        let len = block.found.held.len;
        self.count(fast, len, false);
        Some(Gone::File(fast))
    }

    /// A block was fetched because somebody asked for it to be there: it counts as used.
    pub(super) fn wanted(&mut self, id: &BlockId) {
        self.room.touch(&Item::Block(id.clone()));
    }

    /// Makes room for a block of `len` bytes before it is written. Whether there is, and it is worth it, and who has to go.
    pub(super) fn admit(
        &mut self,
        id: &BlockId,
        len: u32,
        at: &At,
        arrival: Arrival,
        now: Duration,
    ) -> (bool, Vec<Gone>) {
        let before = self.take_block(id);
        let (item, bytes) = (Item::Block(id.clone()), u64::from(len));
        let Entered { kept, gone } = match arrival {
            Arrival::Read => self.room.admit(item, bytes, &at.place, now),
            Arrival::Brought => self.room.enter(item, bytes, &at.place, now),
        };
        let mut gone = self.gone(gone);
        gone.extend(before);
        (kept, gone)
    }

    /// An admitted block is written. Its file has to go when it had to make room meanwhile.
    pub(super) fn insert(&mut self, id: BlockId, held: Held, at: &At) -> Option<Gone> {
        if !self.room.holds(&Item::Block(id.clone())) {
            return Some(Gone::File(held.file));
        }
        let object = self.objects.entry(id.0).or_insert_with(|| Object {
            blocks: BTreeMap::new(),
            at: at.clone(),
        });
        // Two may have fetched it at once.
        if object.blocks.contains_key(&id.1) {
            return Some(Gone::File(held.file));
        }
        let found = Found { held, fast: None };
        object.blocks.insert(id.1, Block { found, used: false });
        self.count(held.file, held.len, true);
        None
    }

    /// An admitted block will not be written.
    pub(super) fn give_back(&mut self, id: &BlockId) {
        if self.block(id).is_none() {
            self.room.leave(&Item::Block(id.clone()));
        }
    }

    pub(super) fn remove_block(&mut self, id: &BlockId) -> Vec<Gone> {
        self.room.leave(&Item::Block(id.clone()));
        self.take_block(id)
    }

    fn take_block(&mut self, id: &BlockId) -> Vec<Gone> {
        let Some(object) = self.objects.get_mut(&id.0) else {
            return Vec::new();
        };
        let Some(Block { found, .. }) = object.blocks.remove(&id.1) else {
            return Vec::new();
        };
        if object.blocks.is_empty() {
            self.objects.remove(&id.0);
        }
        self.tiers.forget(id);
        let files = [Some(found.held.file), found.fast];
        for file in files.into_iter().flatten() {
            self.count(file, found.held.len, false);
        }
        files.into_iter().flatten().map(Gone::File).collect()
    }

    /// What those have to do who made room.
    fn gone(&mut self, items: Vec<Item>) -> Vec<Gone> {
        let mut gone = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Block(id) => gone.extend(self.take_block(&id)),
                Item::Copy(stream) => {
                    self.copies.remove(&stream);
                    gone.push(Gone::Copy(Ino(stream.0), stream.1));
                }
            }
        }
        gone
    }

    /// Makes room for `bytes` in the n-th data folder, as far as clean data there gives it. Who has to go.
    pub(super) fn make_room_in(&mut self, folder: usize, bytes: u64) -> Vec<Gone> {
        let (objects, copies) = (&self.objects, &self.copies);
        let lies_there = |item: &Item| match item {
            Item::Block((object, block)) => {
                let block = objects.get(object).and_then(|object| object.blocks.get(block));
                block.is_some_and(|block| folder_of(block.found.held.file) == folder)
            }
            Item::Copy(stream) => copies.get(stream).is_some_and(|copied| copied.folder == Some(folder)),
        };
        let gone = self.room.take(bytes, lies_there);
        self.gone(gone)
    }

    /// Counts the local copy of a persisted file; who has to go for it, itself perhaps.
    pub(super) fn insert_copy(
        &mut self,
        stream: StreamId,
        bytes: u64,
        folder: Option<usize>,
        at: At,
        now: Duration,
    ) -> Vec<Gone> {
        let Entered { kept, gone } = self.room.enter(Item::Copy(stream), bytes, &at.place, now);
        let mut gone = self.gone(gone);
        if kept {
            self.copies.insert(stream, Copied { bytes, at, folder });
        } else {
            self.copies.remove(&stream);
            gone.push(Gone::Copy(Ino(stream.0), stream.1));
        }
        gone
    }

    /// A reader opened a file with a local copy.
    pub(super) fn read_copy(&mut self, stream: StreamId, now: Duration) {
        if let Some(copied) = self.copies.get(&stream) {
            self.room.read(&Item::Copy(stream), &copied.at.place, now);
        }
    }

    /// Bytes of a copy, and where it lies.
    pub(super) fn copy(&self, stream: StreamId) -> Option<(u64, Path)> {
        self.copies.get(&stream).map(|copied| (copied.bytes, copied.at.path()))
    }

    pub(super) fn remove_copy(&mut self, stream: StreamId) {
        self.copies.remove(&stream);
        self.room.leave(&Item::Copy(stream));
    }

    /// Bytes held of an object.
    pub(super) fn held(&self, object: &ObjectId) -> u64 {
        let blocks = self.objects.get(object).map(|object| &object.blocks);
        let blocks = blocks.into_iter().flatten();
        blocks.map(|(_, block)| u64::from(block.found.held.len)).sum()
    }

    /// Whether a read from `start` on goes on in the block in which the last one ended.
    pub(super) fn goes_on(&self, object: &ObjectId, start: u64) -> bool {
        let next = self.sequences.get(object).map_or(0, |(next, _)| *next);
        next > 0 && start >= next && start / BLOCK_BYTES == (next - 1) / BLOCK_BYTES
    }

    /// A read of `start..end`: answers after how many reads in sequence it comes.
    pub(super) fn sequence(&mut self, object: ObjectId, start: u64, end: u64) -> u32 {
        if self.sequences.len() >= SEQUENCES_MAX {
            // Who is reading begins a new one with the next read.
            self.sequences.clear();
        }
        let (next, streak) = self.sequences.entry(object).or_default();
        *streak = if start == *next { streak.saturating_add(1) } else { 0 };
        *next = end;
        *streak
    }

    /// Asks for every place anew, after policies or names were changed. Who has to go because of that.
    pub(super) fn place_anew(&mut self, place: impl Fn(&Path) -> Arc<Place>, now: Duration) -> Vec<Gone> {
        let objects = self.objects.values_mut().map(|object| &mut object.at);
        for at in objects.chain(self.copies.values_mut().map(|copied| &mut copied.at)) {
            at.place = place(&at.path());
        }
        let (objects, copies) = (&self.objects, &self.copies);
        let now_at = |item: &Item, before: &Place| {
            let at = match item {
                Item::Block((object, _)) => objects.get(object).map(|object| &object.at),
                Item::Copy(stream) => copies.get(stream).map(|copied| &copied.at),
            };
            // A block that is admitted and not yet written keeps its place until it comes again.
            at.map_or_else(|| Arc::new(before.clone()), |at| Arc::clone(&at.place))
        };
        let gone = self.room.replace(now_at, now);
        let mut gone = self.gone(gone);
        let objects = &self.objects;
        let lowered = self.tiers.replace(
            |id, before| {
                objects
                    .get(&id.0)
                    .map_or_else(|| Arc::new(before.clone()), |object| Arc::clone(&object.at.place))
            },
            now,
        );
        gone.extend(lowered.iter().filter_map(|(id, folder)| self.lower(id, *folder)));
        for (id, folder) in self.misplaced() {
            gone.extend(self.not_raised(&id, folder));
        }
        gone
    }

    /// Copies in tiers that policies do not want there.
    fn misplaced(&self) -> Vec<(BlockId, usize)> {
        let copies = self.objects.iter().flat_map(|(id, object)| {
            let copy = |(n, block): (&u64, &Block)| Some(((id.clone(), *n), folder_of(block.found.fast?)));
            let copies = object.blocks.iter().filter_map(copy);
            copies.filter(|(_, folder)| !self.tiers.fits(&object.at.place, *folder))
        });
        copies.collect()
    }

    /// Copies of files under `from` lie under `to` now; with `exchange` also the other way round.
    pub(super) fn move_copies(&mut self, from: &Path, to: &Path, exchange: bool, place: impl Fn(&Path) -> Arc<Place>) {
        let moved = |path: &Path, from: &Path, to: &Path| {
            let rest = path.strip_prefix(from)?;
            Path::from_components(to.components().iter().chain(rest).cloned()).ok()
        };
        for Copied { at, .. } in self.copies.values_mut() {
            let before = at.path();
            let back = || exchange.then(|| moved(&before, to, from)).flatten();
            if let Some(path) = moved(&before, from, to).or_else(back) {
                *at = At::new(&path, place(&path), at.changed);
            }
        }
    }

    /// Up to `limit` files of which something is held and of which `is` is true.
    pub(super) fn find(&self, limit: usize, is: impl Fn(&Path, Timestamp) -> bool) -> Vec<Whose> {
        let objects = self
            .objects
            .iter()
            .map(|(id, object)| (&object.at, Whose::Object(id.clone())));
        let copies = self
            .copies
            .iter()
            .map(|(stream, copied)| (&copied.at, Whose::Copy(*stream)));
        let found = objects.chain(copies).filter(|(at, _)| is(&at.path(), at.changed));
        let mut found: Vec<Whose> = found.map(|(_, whose)| whose).collect();
        found.sort();
        found.truncate(limit);
        found
    }

    /// Objects of which something is held, at `key` of the mount or below it: their paths, and their bytes.
    pub(super) fn objects_below(&self, mount: u32, key: &str) -> Vec<(ObjectId, Path, u64)> {
        let below = self.objects.iter().filter(|(id, _)| is_below(id, mount, key));
        let mut found: Vec<_> = below
            .map(|(id, object)| {
                let blocks = object.blocks.values();
                let bytes = blocks.map(|block| u64::from(block.found.held.len)).sum();
                (id.clone(), object.at.path(), bytes)
            })
            .collect();
        found.sort();
        found
    }

    /// Takes out the blocks of an object; their bytes.
    pub(super) fn take_object(&mut self, object: &ObjectId) -> (Vec<Gone>, u64) {
        let bytes = self.held(object);
        let blocks = self
            .objects
            .get(object)
            .map(|object| object.blocks.keys().copied().collect());
        let blocks: Vec<u64> = blocks.unwrap_or_default();
        let gone = blocks
            .into_iter()
            .flat_map(|block| self.remove_block(&(object.clone(), block)));
        (gone.collect(), bytes)
    }
}

fn is_below(id: &ObjectId, mount: u32, key: &str) -> bool {
    let rest = id.key.strip_prefix(key);
    id.mount == mount && (key.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TierSettings;
    use forebay_policy::value::{self, Evict};
    use forebay_runtime::units::ByteSize;

    const NOW: Duration = Duration::from_secs(1);

    fn id(key: &str, block: u64) -> BlockId {
        (ObjectId::new(1, key, &Validator("v".into())), block)
    }

    fn at(path: &str, evict: Evict, pinned: bool) -> At {
        let path = Path::parse(path.as_bytes()).unwrap();
        let place = Arc::new(Place {
            dir: Arc::new(path.parent().unwrap()),
            evict,
            evict_at: None,
            pinned,
            quotas: Vec::new(),
            tier: value::Tier::auto(),
        });
        At::new(&path, place, Timestamp(7))
    }

    fn lru(path: &str) -> At {
        at(path, Evict::Lru, false)
    }

    /// As a cache takes a block in; who has to go.
    fn insert(blocks: &mut Blocks, key: &str, block: u64, len: u32, at: &At) -> Vec<Gone> {
        let id = id(key, block);
        let (kept, mut gone) = blocks.admit(&id, len, at, Arrival::Read, NOW);
        if kept {
            let held = Held {
                file: blocks.file(0),
                len,
                crc: 0,
            };
            gone.extend(blocks.insert(id, held, at));
        }
        gone
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_copies_stand_in_the_same_line() {
        let mut blocks = Blocks::new(130, Tiers::default());
        for key in ["a", "b", "c"] {
            assert_eq!(insert(&mut blocks, key, 0, 10, &lru("/a")), []);
        }
        assert_eq!(blocks.insert_copy(StreamId(7, 1), 100, None, lru("/f"), NOW), []);
        assert!(blocks.block(&id("a", 0)).is_some());
        blocks.read(&id("a", 0), &lru("/a"), NOW);
        assert_eq!(blocks.bytes(), 130);
        assert_eq!(
            insert(&mut blocks, "d", 0, 15, &lru("/a")),
            [Gone::File(2), Gone::File(3)]
        );
        assert_eq!(insert(&mut blocks, "e", 0, 15, &lru("/a")), [Gone::Copy(Ino(7), 1)]);
        assert_eq!(blocks.bytes(), 40);
        assert!(blocks.copies.is_empty() && blocks.objects.len() == 3);
    }

    #[test]
    fn a_block_that_comes_again_gives_its_old_file_back() {
        let mut blocks = Blocks::new(100, Tiers::default());
        insert(&mut blocks, "a", 3, 10, &lru("/a"));
        assert_eq!(insert(&mut blocks, "a", 3, 20, &lru("/a")), [Gone::File(1)]);
        assert_eq!((blocks.bytes(), blocks.held(&id("a", 3).0)), (20, 20));
    }

    #[test]
    fn a_block_that_has_to_make_room_before_it_is_written_leaves_no_file() {
        let mut blocks = Blocks::new(10, Tiers::default());
        let place = lru("/a");
        let (kept, _) = blocks.admit(&id("a", 0), 10, &place, Arrival::Read, NOW);
        assert!(kept);
        assert_eq!(insert(&mut blocks, "b", 0, 10, &place), []);
        let late = Held {
            file: 99,
            len: 10,
            crc: 0,
        };
        assert_eq!(blocks.insert(id("a", 0), late, &place), Some(Gone::File(99)));
        assert_eq!((blocks.bytes(), blocks.objects.len()), (10, 1));
    }

    #[test]
    fn a_block_that_is_never_written_takes_no_room() {
        let mut blocks = Blocks::new(10, Tiers::default());
        let place = lru("/a");
        blocks.admit(&id("a", 0), 10, &place, Arrival::Read, NOW);
        assert_eq!(blocks.bytes(), 10);
        blocks.give_back(&id("a", 0));
        assert_eq!(blocks.bytes(), 0);
    }

    #[test]
    fn what_is_not_let_in_leaves_what_is_there() {
        let mut blocks = Blocks::new(100, Tiers::default());
        let pinned = at("/p/f", Evict::Auto, true);
        insert(&mut blocks, "p", 0, 90, &pinned);
        assert_eq!(insert(&mut blocks, "x", 0, 50, &lru("/x")), []);
        assert_eq!(
            blocks.insert_copy(StreamId(3, 1), 50, None, lru("/y"), NOW),
            [Gone::Copy(Ino(3), 1)]
        );
        assert_eq!(blocks.bytes(), 90);
        let gone = blocks.place_anew(|_| Arc::clone(&lru("/p/f").place), NOW);
        assert!(gone.is_empty());
        assert_eq!(insert(&mut blocks, "x", 0, 50, &lru("/x")), [Gone::File(1)]);
    }

    #[test]
    fn room_in_one_data_folder_is_made_by_what_lies_there() {
        let mut blocks = Blocks::new(1000, Tiers::default());
        for (n, folder) in [(0, 0), (1, 1), (2, 1), (3, 1)] {
            let (id, place) = (id("a", n), lru("/a"));
            assert!(blocks.admit(&id, 10, &place, Arrival::Read, NOW).0);
            let held = Held {
                file: blocks.file(folder),
                len: 10,
                crc: 0,
            };
            blocks.insert(id, held, &place);
        }
        blocks.insert_copy(StreamId(7, 1), 100, Some(1), lru("/f"), NOW);
        blocks.insert_copy(StreamId(8, 1), 100, Some(0), lru("/f"), NOW);
        assert_eq!((blocks.bytes_in(0), blocks.bytes_in(1)), (10, 30));
        assert_eq!(blocks.make_room_in(1, 11).len(), 2);
        assert_eq!((blocks.bytes_in(0), blocks.bytes_in(1)), (10, 10));
        assert_eq!(blocks.make_room_in(1, 1000).len(), 2);
        assert_eq!((blocks.bytes(), blocks.bytes_in(0), blocks.bytes_in(1)), (110, 10, 0));
        assert!(blocks.copies.contains_key(&StreamId(8, 1)));
    }

    #[test]
    fn a_prefix_does_not_take_in_names_that_begin_like_it() {
        let mut blocks = Blocks::new(100, Tiers::default());
        for key in ["a/x", "a", "ab"] {
            insert(&mut blocks, key, 0, 1, &lru("/a"));
        }
        let below = blocks.objects_below(1, "a");
        assert_eq!(
            below
                .iter()
                .map(|(id, _, bytes)| (&*id.key, *bytes))
                .collect::<Vec<_>>(),
            [("a", 1), ("a/x", 1)]
        );
        for (object, ..) in below {
            assert_eq!(blocks.take_object(&object).1, 1);
        }
        assert_eq!(blocks.bytes(), 1);
    }

    #[test]
    fn a_copy_goes_along_with_its_directory() {
        let mut blocks = Blocks::new(100, Tiers::default());
        blocks.insert_copy(StreamId(1, 1), 10, None, lru("/a/b/f"), NOW);
        blocks.insert_copy(StreamId(2, 1), 10, None, lru("/c/d/g"), NOW);
        let (a, c) = (Path::parse(b"/a").unwrap(), Path::parse(b"/c/d").unwrap());
        let mut paths = |exchange| {
            let place = |path: &Path| lru(&path.to_string()).place;
            blocks.move_copies(&a, &c, exchange, place);
            [1, 2].map(|ino| blocks.copy(StreamId(ino, 1)).unwrap().1.to_string())
        };
        assert_eq!(paths(true), ["/c/d/b/f", "/a/g"]);
        assert_eq!(paths(true), ["/a/b/f", "/c/d/g"]);
        assert_eq!(paths(false), ["/c/d/b/f", "/c/d/g"]);
    }

    #[test]
    fn what_is_held_is_found_by_path_and_age() {
        let mut blocks = Blocks::new(100, Tiers::default());
        insert(&mut blocks, "a", 0, 1, &lru("/a/f"));
        insert(&mut blocks, "b", 0, 1, &lru("/b/f"));
        blocks.insert_copy(StreamId(1, 1), 10, None, lru("/a/g"), NOW);
        let a = Path::parse(b"/a").unwrap();
        let found = blocks.find(10, |path, changed| path.starts_with(&a) && changed == Timestamp(7));
        assert_eq!(found, [Whose::Object(id("a", 0).0), Whose::Copy(StreamId(1, 1))]);
        assert_eq!(blocks.find(1, |_, _| true).len(), 1);
    }

    #[test]
    fn reads_in_sequence_are_counted() {
        let mut blocks = Blocks::new(100, Tiers::default());
        let object = id("a", 0).0;
        let streaks: Vec<u32> = [(0, 5), (5, 9), (9, 12), (3, 4)]
            .map(|(s, e)| blocks.sequence(object.clone(), s, e))
            .to_vec();
        assert_eq!(streaks, [1, 2, 3, 0]);
        let on: Vec<u64> = [0, 3, 4, BLOCK_BYTES - 1, BLOCK_BYTES]
            .into_iter()
            .filter(|start| blocks.goes_on(&object, *start))
            .collect();
        assert_eq!(on, [4, BLOCK_BYTES - 1]);
        for n in 0..3 * SEQUENCES_MAX {
            blocks.sequence(id(&n.to_string(), 0).0, 0, 1);
        }
        assert!(blocks.sequences.len() <= SEQUENCES_MAX);
    }

    /// A data folder and two tiers, of 30 and 60 bytes.
    fn tiered() -> Blocks {
        let tier = |name: &str, bytes| TierSettings {
            name: name.into(),
            dir: name.into(),
            size: ByteSize(bytes),
        };
        Blocks::new(1000, Tiers::new(1, &[tier("memory", 30), tier("nvme", 60)]))
    }

    /// As a cache brings a copy up; the number of its file, and who has to go.
    fn raise(blocks: &mut Blocks, key: &str, folder: usize) -> (Option<u64>, Vec<Gone>) {
        let id = id(key, 0);
        let held = blocks.block(&id).unwrap().held;
        let (file, mut gone) = blocks.raise(&id, folder, NOW);
        gone.extend(file.and_then(|file| blocks.raised(&id, held, file)));
        (file, gone)
    }

    fn with_tier(path: &str, tier: &str) -> At {
        let At { place, name, changed } = lru(path);
        let json = tier.into();
        let change = forebay_policy::Change::parse("tier", Some(&json)).unwrap();
        let forebay_policy::Change::Put(forebay_policy::Value::Tier(tier)) = change else {
            panic!("{tier} is no tier")
        };
        let place = Arc::new(Place {
            tier,
            ..Place::clone(&place)
        });
        At { place, name, changed }
    }

    #[test]
    fn a_block_goes_up_a_tier_each_time_it_is_read_again_where_it_lies() {
        let mut blocks = tiered();
        let at = lru("/a");
        insert(&mut blocks, "a", 0, 10, &at);
        // It was fetched ahead of the reader.
        assert_eq!(blocks.read(&id("a", 0), &at, NOW), None);
        assert_eq!(blocks.read(&id("a", 0), &at, NOW), Some(2));
        let (slower, gone) = raise(&mut blocks, "a", 2);
        assert_eq!((folder_of(slower.unwrap()), gone), (2, vec![]));
        assert_eq!(blocks.read(&id("a", 0), &at, NOW), Some(1));
        // It is up to whoever reads whether it goes.
        assert_eq!(blocks.read(&id("a", 0), &at, NOW), Some(1));
        let (faster, gone) = raise(&mut blocks, "a", 1);
        assert_eq!(gone, [Gone::File(slower.unwrap())]);
        assert_eq!(blocks.block(&id("a", 0)).unwrap().fast, faster);
        assert_eq!(blocks.read(&id("a", 0), &at, NOW), None);
        assert_eq!([0, 1, 2].map(|folder| blocks.bytes_in(folder)), [10, 10, 0]);
        let hits: Vec<_> = blocks.tiers().map(|(tier, bytes)| (tier.hits, bytes)).collect();
        assert_eq!(hits, [(1, 10), (2, 0)]);
        // The block goes, and its copy with it.
        assert_eq!(blocks.take_object(&id("a", 0).0).0.len(), 2);
        assert_eq!([0, 1, 2].map(|folder| blocks.bytes_in(folder)), [0, 0, 0]);
    }

    #[test]
    fn a_block_that_was_read_when_it_came_goes_up_with_the_next_read() {
        let mut blocks = tiered();
        insert(&mut blocks, "a", 0, 10, &lru("/a"));
        assert_eq!(blocks.came(&id("a", 0), true), None);
        assert_eq!(blocks.read(&id("a", 0), &lru("/a"), NOW), Some(2));
    }

    #[test]
    fn a_copy_makes_room_in_its_tier_and_the_block_stays() {
        let mut blocks = tiered();
        for key in ["a", "b", "c", "d"] {
            insert(&mut blocks, key, 0, 10, &lru("/a"));
        }
        let first = raise(&mut blocks, "a", 1).0.unwrap();
        raise(&mut blocks, "b", 1);
        raise(&mut blocks, "c", 1);
        assert_eq!(raise(&mut blocks, "d", 1).1, [Gone::File(first)]);
        let found = blocks.block(&id("a", 0)).unwrap();
        assert_eq!((found.fast, blocks.bytes(), blocks.bytes_in(1)), (None, 40, 30));
        // A second copy in the same tier is none.
        assert_eq!(raise(&mut blocks, "d", 1), (None, vec![]));
    }

    #[test]
    fn a_copy_of_a_block_that_went_meanwhile_goes_too() {
        let mut blocks = tiered();
        let at = lru("/a");
        insert(&mut blocks, "a", 0, 10, &at);
        let held = blocks.block(&id("a", 0)).unwrap().held;
        let file = blocks.raise(&id("a", 0), 1, NOW).0.unwrap();
        blocks.remove_block(&id("a", 0));
        insert(&mut blocks, "a", 0, 10, &at);
        assert_eq!(blocks.raised(&id("a", 0), held, file), Some(Gone::File(file)));
        assert_eq!((blocks.block(&id("a", 0)).unwrap().fast, blocks.bytes_in(1)), (None, 0));
        // Nothing is left in the way of the next.
        let newer = raise(&mut blocks, "a", 1).0;
        assert!(newer.is_some());
        // Nor does one that ends later still take that one away.
        let of = Held { crc: 1, ..held };
        assert_eq!(blocks.raised(&id("a", 0), of, file), Some(Gone::File(file)));
        assert_eq!(
            (blocks.block(&id("a", 0)).unwrap().fast, blocks.bytes_in(1)),
            (newer, 10)
        );
        blocks.read(&id("a", 0), &at, NOW);
        assert_eq!(blocks.read(&id("a", 0), &at, NOW), None);
    }

    #[test]
    fn the_policy_says_how_far_up_a_block_goes() {
        let mut blocks = tiered();
        for (key, tier, goal) in [
            ("m", "memory", Some(1)),
            ("n", "nvme", Some(2)),
            ("d", "disk", None),
            ("x", "gone", None),
        ] {
            let at = with_tier("/a", tier);
            insert(&mut blocks, key, 0, 10, &at);
            assert_eq!(blocks.came(&id(key, 0), false), goal, "{tier}");
            blocks.read(&id(key, 0), &at, NOW);
            assert_eq!(blocks.read(&id(key, 0), &at, NOW), goal, "{tier}");
        }
        let memory = raise(&mut blocks, "m", 1).0.unwrap();
        raise(&mut blocks, "n", 2);
        let nvme = with_tier("/a", "nvme").place;
        assert_eq!(blocks.place_anew(|_| Arc::clone(&nvme), NOW), [Gone::File(memory)]);
        assert_eq!((blocks.bytes_in(1), blocks.bytes_in(2)), (0, 10));
    }
}
