//! Which path has which policies, and what that makes of a path under it.
//!
//! A table never changes: a change makes another one, which readers take as a whole. What holds at each path that has policies is
//! worked out then, so that asking is a walk along the path's names for as long as policies lie below them: with no policy anywhere
//! it ends at once.

use crate::{Defaults, Effective, Set};
use forebay_namespace::Path;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

/// The policies of all paths.
#[derive(Clone, Debug)]
pub struct Table {
    defaults: Arc<Effective>,
    sets: BTreeMap<Path, Set>,
    root: Branch,
}

#[derive(Clone, Debug, Default)]
struct Branch {
    /// What holds from here on, where that differs from what holds above.
    effective: Option<Arc<Effective>>,
    below: HashMap<Vec<u8>, Branch>,
}

impl Default for Table {
    /// No path has any.
    fn default() -> Self {
        Self::new(Defaults::default(), [])
    }
}

impl Table {
    /// The table of these sets.
    pub fn new(defaults: Defaults, sets: impl IntoIterator<Item = (Path, Set)>) -> Self {
        Self::of(Arc::new(Effective::new(defaults)), sets.into_iter().collect())
    }

    /// The table with `set` at `path` instead of what is there; an empty set takes the path out.
    pub fn with(&self, path: &Path, set: Set) -> Self {
        let mut sets = self.sets.clone();
        sets.insert(path.clone(), set);
        Self::of(Arc::clone(&self.defaults), sets)
    }

    fn of(defaults: Arc<Effective>, mut sets: BTreeMap<Path, Set>) -> Self {
        sets.retain(|_, set| !set.is_empty());
        let mut table = Self {
            defaults,
            sets: BTreeMap::new(),
            root: Branch::default(),
        };
        // A directory comes before what lies in it, so what holds above is known.
        for (path, set) in &sets {
            let effective = table.effective(path).below(path, set);
            let names = path.components().iter();
            let branch = names.fold(&mut table.root, |branch, name| {
                branch.below.entry(name.clone()).or_default()
            });
            branch.effective = Some(Arc::new(effective));
        }
        Self { sets, ..table }
    }

    /// What holds at `path`.
    pub fn effective(&self, path: &Path) -> &Arc<Effective> {
        let mut branch = &self.root;
        let mut found = branch.effective.as_ref().unwrap_or(&self.defaults);
        for name in path.components() {
            let Some(below) = branch.below.get(name) else { break };
            branch = below;
            found = branch.effective.as_ref().unwrap_or(found);
        }
        found
    }

    /// What is set at this very path.
    pub fn at(&self, path: &Path) -> Option<&Set> {
        self.sets.get(path)
    }

    /// Every path that has policies, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Set)> {
        self.sets.iter()
    }

    /// What is set at `path` and at each directory above it, the root first.
    pub fn along(&self, path: &Path) -> Vec<(&Path, &Set)> {
        let depths = match self.sets.is_empty() {
            true => 0..0,
            false => 0..path.components().len() + 1,
        };
        depths
            .filter_map(|depth| self.sets.get_key_value(&path.prefix(depth)))
            .collect()
    }

    /// Whether any path under `path` has policies.
    pub fn any_below(&self, path: &Path) -> bool {
        let mut after = self.sets.range((Bound::Excluded(path), Bound::Unbounded));
        after.next().is_some_and(|(next, _)| next.starts_with(path))
    }

    /// How many paths have policies.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether no path has any.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

#[cfg(test)]
mod tests;
