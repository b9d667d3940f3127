//! What people asked for: `persist PATH` lets go what policies keep back there, and a restart must not forget it.
//!
//! One row per path, however much lies under it: what was acknowledged there until the moment in the row is kept back no more. What
//! comes later is. A row goes when nothing that waits is as old as it, when another one covers it, or when there are too many; then
//! what it let go goes all the same while the server lives.

use crate::{
    Result,
    cache::Inner,
    policy::{Key, value},
    rows::{self, AskedRow, table},
};
use forebay_metastore::{Key as RowKey, prefix_end};
use forebay_namespace::{Path, Plan};
use parking_lot::RwLock;
use std::{collections::BTreeMap, sync::Arc};

/// Most paths that are remembered.
const PATHS_MAX: usize = 1000;

/// Paths with the moment of the latest request, microseconds since the epoch.
#[derive(Debug, Default)]
pub(super) struct Asked(RwLock<Arc<BTreeMap<Path, i64>>>);

impl Asked {
    /// Whether what was acknowledged at `since` at `path` was asked for.
    pub(super) fn covers(&self, path: &Path, since: i64) -> bool {
        let asked = self.0.read();
        if asked.is_empty() {
            return false;
        }
        let depths = 0..=path.components().len();
        depths
            .filter_map(|depth| asked.get(&path.prefix(depth)))
            .any(|at| since <= *at)
    }

    /// Takes one in, and those out that need not be remembered any more: answers them. `oldest`: when the oldest that waits was
    /// acknowledged.
    fn change(&self, new: Option<(&Path, i64)>, oldest: Option<i64>) -> Vec<Path> {
        let mut asked = self.0.write();
        let mut after = BTreeMap::clone(&asked);
        if let Some((path, at)) = new {
            after.retain(|known, _| known == path || !known.starts_with(path));
            after.insert(path.clone(), at);
        }
        after.retain(|path, at| new.is_some_and(|(new, _)| new == path) || oldest.is_some_and(|oldest| oldest <= *at));
        while after.len() > PATHS_MAX
            && let Some(first) = after.iter().min_by_key(|(_, at)| **at).map(|(path, _)| path.clone())
        {
            after.remove(&first);
        }
        let gone = asked.keys().filter(|path| !after.contains_key(path)).cloned().collect();
        *asked = Arc::new(after);
        gone
    }
}

impl Inner {
    /// Remembers that what is at or under `path` is to go, where a policy may keep it back.
    pub(super) async fn remember_asked(&self, path: &Path) -> Result<()> {
        if !self.may_be_withheld(path) {
            return Ok(());
        }
        let at = self.components.clock.now().0;
        let row = AskedRow {
            path: path.as_bytes(),
            at,
        };
        let oldest = self.persist.tracker.lock().oldest();
        let gone = self.persist.asked.change(Some((path, at)), oldest);
        let mut plan = Plan::default();
        plan.put(rows::asked_key(&path.as_bytes()), rows::encode(&row));
        for path in gone {
            plan.delete(rows::asked_key(&path.as_bytes()));
        }
        self.commit(plan).await.map(drop)
    }

    /// Whether a policy keeps back something at or under `path`, or may.
    fn may_be_withheld(&self, path: &Path) -> bool {
        let keeps = |at: &Path| self.policies.effective(at).persist != value::Persist::Asap;
        let below = self.policies.paths_with(Key::Persist);
        keeps(path) || below.iter().any(|at| at.starts_with(path) && keeps(at))
    }

    /// Reads what was asked for in earlier lives. After the queue was read.
    pub(super) async fn read_asked(&self) -> Result<()> {
        let end = prefix_end(&[table::ASKED]);
        let from: RowKey = vec![table::ASKED].into();
        let found = self.components.meta.scan(from..end, PATHS_MAX).await?;
        let mut asked = BTreeMap::new();
        for (_, entry) in found {
            let row: AskedRow = rows::decode(&entry.value)?;
            asked.insert(Path::parse(&row.path)?, row.at);
        }
        *self.persist.asked.0.write() = Arc::new(asked);
        let oldest = self.persist.tracker.lock().oldest();
        let gone = self.persist.asked.change(None, oldest);
        if gone.is_empty() {
            return Ok(());
        }
        let mut plan = Plan::default();
        for path in gone {
            plan.delete(rows::asked_key(&path.as_bytes()));
        }
        self.commit(plan).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_as_old_as_the_request_is_covered_at_any_depth() {
        let asked = Asked::default();
        assert!(!asked.covers(&path("/a"), 0));
        asked.change(Some((&path("/a/b"), 10)), Some(0));
        for (at, since, covered) in [
            ("/a/b", 10, true),
            ("/a/b/c/d", 3, true),
            ("/a/b/c", 11, false),
            ("/a", 3, false),
            ("/a/bc", 3, false),
        ] {
            assert_eq!(asked.covers(&path(at), since), covered, "{at} {since}");
        }
        asked.change(Some((&Path::root(), 20)), Some(0));
        assert!(asked.covers(&path("/x"), 20) && !asked.covers(&path("/x"), 21));
    }

    #[test]
    fn what_is_covered_or_has_nothing_to_let_go_is_forgotten() {
        let asked = Asked::default();
        assert!(asked.change(Some((&path("/a/b"), 10)), Some(5)).is_empty());
        assert!(asked.change(Some((&path("/c"), 11)), Some(5)).is_empty());
        assert_eq!(asked.change(Some((&path("/a"), 12)), Some(5)), [path("/a/b")]);
        assert_eq!(asked.change(Some((&path("/d"), 13)), Some(12)), [path("/c")]);
        assert_eq!(asked.change(None, Some(13)), [path("/a")]);
        assert_eq!(asked.change(None, None), [path("/d")]);
        for n in 0..PATHS_MAX {
            let path = path(&format!("/many/{n}"));
            assert!(asked.change(Some((&path, n as i64)), Some(0)).is_empty());
        }
        assert_eq!(asked.change(Some((&path("/last"), 5000)), Some(0)), [path("/many/0")]);
        assert_eq!(asked.0.read().len(), PATHS_MAX);
    }
}
