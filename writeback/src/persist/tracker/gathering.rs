//! What is kept back until it has come to so many bytes together.

use forebay_namespace::Path;
use std::collections::{BTreeMap, HashMap};

/// Contents by the path of the policy that gathers them.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    by_root: HashMap<Path, Together>,
    roots: HashMap<u64, Path>,
}

#[derive(Debug, Default)]
struct Together {
    bytes: u64,
    of: BTreeMap<u64, u64>,
}

impl Gathering {
    /// Another one, which is not in it; answers all that are together, oldest first, when they have come to `goal` bytes.
    pub(super) fn add(&mut self, seq: u64, root: Path, bytes: u64, goal: u64) -> Vec<u64> {
        let together = self.by_root.entry(root.clone()).or_default();
        together.bytes = together.bytes.saturating_add(bytes);
        together.of.insert(seq, bytes);
        self.roots.insert(seq, root);
        match together.bytes >= goal {
            true => together.of.keys().copied().collect(),
            false => Vec::new(),
        }
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.roots.contains_key(&seq)
    }

    /// It is kept back for this no more.
    pub(super) fn remove(&mut self, seq: u64) {
        let Some(root) = self.roots.remove(&seq) else { return };
        let Some(together) = self.by_root.get_mut(&root) else {
            return;
        };
        together.bytes -= together.of.remove(&seq).unwrap_or(0);
        if together.of.is_empty() {
            self.by_root.remove(&root);
        }
    }
}
