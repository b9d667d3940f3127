//! Directories that were overwritten while their store was away: the data files that they had then do not show any more, and the
//! persister takes them away once the store answers (`persist/overwritten.rs`).
//!
//! Which directories these are, and since when, is said by the persist queue. This is its reflection in memory, filled at the start, so
//! that a look at the store need not ask the metastore too. What has a row of ours shows by that, and nobody asks here.

use super::ages::At;
use crate::dataset::goes_with_an_overwrite;
use forebay_understore::Listed;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};

/// The directories, and the pieces of work that say so.
#[derive(Debug, Default)]
pub(super) struct Overwritten(RwLock<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// By piece of work: since when.
    dirs: HashMap<At, BTreeMap<u64, i64>>,
    by: HashMap<u64, Vec<At>>,
}

impl Overwritten {
    /// What the piece of work `seq` says now.
    pub(super) fn note(&self, seq: u64, dirs: Vec<At>, since: i64) {
        if dirs.is_empty() && !self.0.read().by.contains_key(&seq) {
            return;
        }
        let noted = &mut *self.0.write();
        for dir in noted.by.remove(&seq).unwrap_or_default() {
            if let Some(of) = noted.dirs.get_mut(&dir) {
                of.remove(&seq);
                if of.is_empty() {
                    noted.dirs.remove(&dir);
                }
            }
        }
        for dir in &dirs {
            noted.dirs.entry(dir.clone()).or_default().insert(seq, since);
        }
        if !dirs.is_empty() {
            noted.by.insert(seq, dirs);
        }
    }

    /// When the directory was overwritten last.
    pub(super) fn since(&self, dir: &At) -> Option<i64> {
        let noted = self.0.read();
        if noted.dirs.is_empty() {
            return None;
        }
        noted.dirs.get(dir)?.values().max().copied()
    }

    /// Until when a file at this key was overwritten with its directory.
    pub(super) fn since_of_file(&self, (mount, key): &At) -> Option<i64> {
        if self.0.read().dirs.is_empty() {
            return None;
        }
        let (dir, name) = key.rsplit_once('/').unwrap_or(("", key));
        self.since(&(*mount, dir.to_owned()))
            .filter(|_| goes_with_an_overwrite(name.as_bytes()))
    }
}

/// Whether a file that a store lists was overwritten at `since` with its directory.
pub(crate) fn went(listed: &Listed, since: i64) -> bool {
    !listed.found.is_dir && listed.found.mtime <= since && goes_with_an_overwrite(listed.name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(key: &str) -> At {
        (1, key.to_owned())
    }

    #[test]
    fn data_files_directly_in_the_directory_are_meant_and_nothing_else() {
        let overwritten = Overwritten::default();
        assert_eq!(overwritten.since_of_file(&at("d/a.arrow")), None);
        overwritten.note(7, vec![at("d"), at("")], 100);
        for key in ["d/a.arrow", "d/b.PARQUET", "d/_SUCCESS", "a.arrow"] {
            assert_eq!(overwritten.since_of_file(&at(key)), Some(100), "{key}");
        }
        for key in [
            "d/notes.txt",
            "d/_x.arrow",
            "d/.a.arrow",
            "d/k=v/a.arrow",
            "dd/a.arrow",
            "d",
        ] {
            assert_eq!(overwritten.since_of_file(&at(key)), None, "{key}");
        }
        assert_eq!(overwritten.since_of_file(&(2, "d/a.arrow".into())), None);
    }

    #[test]
    fn the_last_one_counts_until_it_is_done() {
        let overwritten = Overwritten::default();
        overwritten.note(7, vec![at("d")], 100);
        overwritten.note(9, vec![at("d")], 200);
        assert_eq!(overwritten.since(&at("d")), Some(200));
        overwritten.note(9, Vec::new(), 0);
        assert_eq!(overwritten.since(&at("d")), Some(100));
        overwritten.note(7, Vec::new(), 0);
        assert_eq!(overwritten.since(&at("d")), None);
        let noted = overwritten.0.read();
        assert!(noted.dirs.is_empty() && noted.by.is_empty());
    }
}
