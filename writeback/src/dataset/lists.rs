//! Part lists of versions that were read lately.
//!
//! A version's parts stay the same but for one thing: an Arrow part becomes a Parquet part under another name (`convert`). Whoever
//! read the rows before that must not keep what it read afterwards, nor what it made out of another kept list.

use super::versions::Part;
use forebay_namespace::Ino;
use moka::sync::Cache as Memory;
use parking_lot::RwLock;
use std::{ops::RangeInclusive, sync::Arc};

/// Bytes of part lists kept in memory.
const BYTES_MAX: u64 = 64 << 20;

/// Part lists, by directory and version.
#[derive(Debug)]
pub(super) struct PartLists {
    lists: Memory<(u64, u64), Arc<Vec<Part>>>,
    /// Counts changes.
    changes: RwLock<u64>,
}

/// The state in which somebody began to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

impl PartLists {
    pub(super) fn new() -> Self {
        let weight = |parts: &Arc<Vec<Part>>| u32::try_from(128 + parts.len() * size_of::<Part>()).unwrap_or(u32::MAX);
        Self {
            lists: Memory::builder()
                .max_capacity(BYTES_MAX)
                .weigher(move |_, parts| weight(parts))
                .build(),
            changes: RwLock::default(),
        }
    }

    /// To be taken before anything is read of which a list is made.
    pub(super) fn mark(&self) -> Mark {
        Mark(*self.changes.read())
    }

    pub(super) fn get(&self, dir: Ino, version: u64) -> Option<Arc<Vec<Part>>> {
        self.lists.get(&(dir.0, version))
    }

    /// Keeps a list, unless something was changed since the mark.
    pub(super) fn keep(&self, mark: Mark, dir: Ino, version: u64, parts: &Arc<Vec<Part>>) {
        let changes = self.changes.read();
        if *changes == mark.0 {
            self.lists.insert((dir.0, version), Arc::clone(parts));
        }
    }

    /// After the transaction that changed a part of these versions.
    pub(super) fn changed(&self, dir: Ino, versions: RangeInclusive<u64>) {
        let mut changes = self.changes.write();
        *changes += 1;
        versions.for_each(|version| self.lists.invalidate(&(dir.0, version)));
    }

    /// The version is gone.
    pub(super) fn forget(&self, dir: Ino, version: u64) {
        self.lists.invalidate(&(dir.0, version));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let (lists, dir, parts) = (PartLists::new(), Ino(7), Arc::new(Vec::new()));
        let mark = lists.mark();
        lists.keep(mark, dir, 1, &parts);
        lists.keep(mark, dir, 2, &parts);
        assert!(lists.get(dir, 1).is_some() && lists.get(dir, 2).is_some());
        lists.changed(dir, 2..=5);
        assert!(lists.get(dir, 1).is_some() && lists.get(dir, 2).is_none());
        lists.keep(mark, dir, 2, &parts);
        assert_eq!(lists.get(dir, 2), None);
        lists.keep(lists.mark(), dir, 2, &parts);
        assert!(lists.get(dir, 2).is_some());
        lists.forget(dir, 2);
        assert_eq!(lists.get(dir, 2), None);
    }
}
