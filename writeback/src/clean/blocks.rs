//! The index of what is held of the under-stores: blocks of objects in files of the data folder, and local copies of persisted
//! files, in one order of use and under one limit in bytes.
//!
//! It lives in memory alone: after a restart the blocks are fetched anew (their files are removed), and the copies are found in
//! the rows. Nothing dirty is ever in it. It does no input or output; who takes something out of it removes the bytes.

use forebay_namespace::Ino;
use forebay_segment::StreamId;
use forebay_understore::Validator;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

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

/// What is held, in order of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A block of an object.
    Block(BlockId),
    /// The local copy of a persisted file.
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

#[derive(Debug, Default)]
struct Object {
    blocks: BTreeMap<u64, (Held, u64)>,
    /// Where the last read ended, and how many followed each other.
    next: u64,
    streak: u32,
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    objects: HashMap<ObjectId, Object>,
    copies: HashMap<StreamId, (u64, u64)>,
    order: BTreeMap<u64, Item>,
    tick: u64,
    files: u64,
    block_bytes: u64,
    copy_bytes: u64,
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
    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.block_bytes + self.copy_bytes
    }

    /// A number for a new file.
    pub(super) fn file(&mut self) -> u64 {
        self.files += 1;
        self.files
    }

    fn use_now(&mut self, item: Item, before: Option<u64>) -> u64 {
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.tick += 1;
        self.order.insert(self.tick, item);
        self.tick
    }

    /// The block, which counts as used now.
    pub(super) fn block(&mut self, id: &BlockId) -> Option<Held> {
        let (held, tick) = self.objects.get(&id.0)?.blocks.get(&id.1).copied()?;
        let now = self.use_now(Item::Block(id.clone()), Some(tick));
        if let Some(found) = self
            .objects
            .get_mut(&id.0)
            .and_then(|object| object.blocks.get_mut(&id.1))
        {
            found.1 = now;
        }
        Some(held)
    }

    /// Takes a block in; answers the file of the one it replaces.
    pub(super) fn insert(&mut self, id: BlockId, held: Held) -> Option<Gone> {
        let before = self.remove_block(&id);
        let now = self.use_now(Item::Block(id.clone()), None);
        self.block_bytes += u64::from(held.len);
        self.objects.entry(id.0).or_default().blocks.insert(id.1, (held, now));
        before
    }

    pub(super) fn remove_block(&mut self, id: &BlockId) -> Option<Gone> {
        let object = self.objects.get_mut(&id.0)?;
        let (held, tick) = object.blocks.remove(&id.1)?;
        if object.blocks.is_empty() {
            self.objects.remove(&id.0);
        }
        self.order.remove(&tick);
        self.block_bytes -= u64::from(held.len);
        Some(Gone::File(held.file))
    }

    /// Counts the local copy of a persisted file.
    pub(super) fn insert_copy(&mut self, stream: StreamId, bytes: u64) {
        self.remove_copy(stream);
        let now = self.use_now(Item::Copy(stream), None);
        self.copy_bytes += bytes;
        self.copies.insert(stream, (bytes, now));
    }

    pub(super) fn remove_copy(&mut self, stream: StreamId) {
        if let Some((bytes, tick)) = self.copies.remove(&stream) {
            self.order.remove(&tick);
            self.copy_bytes -= bytes;
        }
    }

    /// Bytes held of an object.
    pub(super) fn held(&self, object: &ObjectId) -> u64 {
        let blocks = self.objects.get(object).map(|object| &object.blocks);
        blocks
            .into_iter()
            .flatten()
            .map(|(_, (held, _))| u64::from(held.len))
            .sum()
    }

    /// A read of `start..end`: answers after how many reads in sequence it comes.
    pub(super) fn sequence(&mut self, object: &ObjectId, start: u64, end: u64) -> u32 {
        let Some(object) = self.objects.get_mut(object) else {
            return 0;
        };
        object.streak = if start == object.next {
            object.streak.saturating_add(1)
        } else {
            0
        };
        object.next = end;
        object.streak
    }

    /// Takes out what was not used for longest until `limit` holds.
    pub(super) fn shrink_to(&mut self, limit: u64) -> Vec<Gone> {
        let mut gone = Vec::new();
        while self.bytes() > limit {
            let Some((_, item)) = self.order.first_key_value() else {
                break;
            };
            match item.clone() {
                Item::Block(id) => gone.extend(self.remove_block(&id)),
                Item::Copy(stream) => {
                    self.remove_copy(stream);
                    gone.push(Gone::Copy(Ino(stream.0), stream.1));
                }
            }
        }
        gone
    }

    /// Takes out all blocks of objects at `key` of the mount, or below it.
    pub(super) fn take_below(&mut self, mount: u32, key: &str) -> (Vec<Gone>, u64) {
        let below = |id: &ObjectId| {
            let rest = id.key.strip_prefix(key);
            id.mount == mount && (key.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        let mut ids: Vec<BlockId> = self
            .objects
            .iter()
            .filter(|(id, _)| below(id))
            .flat_map(|(id, object)| object.blocks.keys().map(|block| (id.clone(), *block)))
            .collect();
        ids.sort();
        let before = self.block_bytes;
        let gone = ids.iter().filter_map(|id| self.remove_block(id)).collect();
        (gone, before - self.block_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &str, block: u64) -> BlockId {
        (ObjectId::new(1, key, &Validator("v".into())), block)
    }

    fn held(blocks: &mut Blocks, len: u32) -> Held {
        Held {
            file: blocks.file(),
            len,
            crc: 0,
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_copies_stand_in_the_same_line() {
        let mut blocks = Blocks::default();
        for key in ["a", "b", "c"] {
            let held = held(&mut blocks, 10);
            assert_eq!(blocks.insert(id(key, 0), held), None);
        }
        blocks.insert_copy(StreamId(7, 1), 100);
        assert!(blocks.block(&id("a", 0)).is_some());
        assert_eq!(blocks.bytes(), 130);
        assert_eq!(blocks.shrink_to(115), [Gone::File(2), Gone::File(3)]);
        assert_eq!(blocks.shrink_to(50), [Gone::Copy(Ino(7), 1)]);
        assert_eq!(blocks.bytes(), 10);
        assert_eq!(blocks.shrink_to(0), [Gone::File(1)]);
        assert!(blocks.order.is_empty() && blocks.objects.is_empty() && blocks.copies.is_empty());
    }

    #[test]
    fn a_block_that_comes_again_gives_its_old_file_back() {
        let mut blocks = Blocks::default();
        let first = held(&mut blocks, 10);
        let second = held(&mut blocks, 20);
        blocks.insert(id("a", 3), first);
        assert_eq!(blocks.insert(id("a", 3), second), Some(Gone::File(first.file)));
        assert_eq!((blocks.bytes(), blocks.held(&id("a", 3).0)), (20, 20));
    }

    #[test]
    fn freeing_a_prefix_does_not_touch_names_that_begin_like_it() {
        let mut blocks = Blocks::default();
        for key in ["a/x", "a", "ab"] {
            let held = held(&mut blocks, 1);
            blocks.insert(id(key, 0), held);
        }
        assert_eq!(blocks.take_below(1, "a").1, 2);
        assert_eq!(blocks.bytes(), 1);
    }

    #[test]
    fn reads_in_sequence_are_counted() {
        let mut blocks = Blocks::default();
        let held = held(&mut blocks, 1);
        blocks.insert(id("a", 0), held);
        let object = id("a", 0).0;
        let streaks: Vec<u32> = [(0, 5), (5, 9), (9, 12), (3, 4)]
            .map(|(s, e)| blocks.sequence(&object, s, e))
            .to_vec();
        assert_eq!(streaks, [1, 2, 3, 0]);
    }
}
