//! The names that the kernel knows: node numbers to names and back.
//!
//! 1. *Remembered*: a lookup, create or listing has shown it to the kernel, which counts how often.
//! 2. *Unlinked*: its name is gone or leads elsewhere; whoever has it open goes on with it.
//! 3. *Forgotten*: the kernel has let go of it as often as it was shown; it is removed here.
//!
//! A node's number is that of its first row, so that it is the same after a restart as long as nobody writes the file anew.
//! It does not own what a name leads to.

use super::{NodeId, ROOT};
use forebay_runtime::clock::Timestamp;
use forebay_writeback::{
    Path,
    names::{Stat, StatKind, State},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

/// Set in the number of what has no row.
const NO_ROW: u64 = 1 << 63;
/// Added to a number that is taken.
const PROBE: u64 = 1 << 48;

/// By numbers that nobody else chooses: one multiplication spreads them well enough.
pub(super) type ByNode<V> = HashMap<NodeId, V, BuildHasherDefault<NodeHasher>>;

/// Hashes one number.
#[derive(Debug, Default)]
pub(super) struct NodeHasher(u64);

impl Hasher for NodeHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio; the table takes its bits from both ends.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// A name that the kernel knows.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) parent: NodeId,
    pub(crate) name: Arc<[u8]>,
    pub(crate) linked: bool,
    lookups: u64,
    /// Number of the row it had when it was last looked at.
    pub(crate) row: u64,
    /// When an entry of this directory was last made or removed through this mount.
    pub(crate) touched: Option<Timestamp>,
    /// When the kernel began to list this directory, which it remembers.
    pub(crate) listed: Option<Timestamp>,
    /// What the kernel was given of it, by the hash of the name, in the order of the offsets.
    pub(crate) given: Vec<u64>,
    /// Stands for the content that the kernel may have cached.
    pub(crate) cached: Option<u64>,
    /// The attributes of a file as they were last told: they hold for whoever has it open when its name is gone.
    pub(crate) shown: Option<Shown>,
    /// How often a name in this directory, or what it leads to, has changed.
    changes: u64,
}

/// Attributes of a file that the kernel was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    ctime: Timestamp,
    atime: Timestamp,
}

impl Shown {
    /// Of a file that has now so many bytes.
    pub(crate) fn of(stat: &Stat, size: u64) -> Option<Self> {
        (stat.kind == StatKind::File).then_some(Self {
            size,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
            ctime: stat.ctime,
            atime: stat.atime,
        })
    }

    /// Other content took its place.
    pub(crate) fn placed(&mut self, size: u64, mtime: Option<Timestamp>, ctime: Option<Timestamp>) {
        self.size = size;
        self.mtime = mtime.unwrap_or(self.mtime);
        self.ctime = ctime.unwrap_or(self.ctime);
    }
}

impl Node {
    /// What is known of a file whose name is gone or leads elsewhere.
    pub(crate) fn left(&self) -> Option<Stat> {
        let shown = self.shown?;
        Some(Stat {
            path: Path::default(),
            kind: StatKind::File,
            size: shown.size,
            mtime: shown.mtime,
            mode: shown.mode,
            state: State::Sealed,
            cached_bytes: shown.size,
            version: None,
            etag: None,
            id: self.row,
            uid: shown.uid,
            gid: shown.gid,
            ctime: shown.ctime,
            atime: shown.atime,
            target: None,
            special: None,
        })
    }

    /// Whether a row of this number is another file's. What has no row has a number of its place and content in the under-store, and gets
    /// a row, or loses it, without a change of its content.
    pub(crate) fn is_other(&self, id: u64) -> bool {
        self.row != id && self.row & NO_ROW == id & NO_ROW
    }

    /// Whether what is at its name now has other content.
    pub(crate) fn is_replaced_by(&self, now: &Stat) -> bool {
        let differs = |shown: Shown| now.kind != StatKind::File || (shown.size, shown.mtime) != (now.size, now.mtime);
        let moved = self.row != now.id;
        self.is_other(now.id) || moved && self.shown.map_or(now.kind == StatKind::File, differs)
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Boxed: a table that grows moves all that lies in it.
    nodes: ByNode<Box<Node>>,
    /// The names in each directory.
    names: ByNode<HashMap<Arc<[u8]>, NodeId>>,
    /// Names of files that are created and not placed yet.
    pending: ByNode<BTreeSet<Arc<[u8]>>>,
    /// Nodes that the kernel may be asked to let go of, in the order in which it was shown them; some are gone.
    aged: VecDeque<NodeId>,
    /// How often everything below some directory has changed.
    sweeps: u64,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let mut tree = Self {
            nodes: ByNode::default(),
            names: ByNode::default(),
            pending: ByNode::default(),
            aged: VecDeque::new(),
            sweeps: 0,
        };
        let root = Node {
            parent: ROOT,
            name: Arc::from(&b""[..]),
            linked: true,
            lookups: 1,
            row: ROOT,
            touched: None,
            listed: None,
            given: Vec::new(),
            cached: None,
            shown: None,
            changes: 0,
        };
        tree.nodes.insert(ROOT, Box::new(root));
        tree
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node).map(Box::as_ref)
    }

    pub(crate) fn get_mut(&mut self, node: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&node).map(Box::as_mut)
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node of a name.
    pub(crate) fn find(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.names.get(&parent)?.get(name).copied()
    }

    /// The node at a path, if the kernel knows it.
    pub(crate) fn walk(&self, path: &Path) -> Option<NodeId> {
        path.components()
            .iter()
            .try_fold(ROOT, |node, name| self.find(node, name))
    }

    /// Where a node is; `None` when it has no name any more.
    pub(crate) fn path(&self, node: NodeId) -> Option<Path> {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            let node = self.nodes.get(&at).filter(|node| node.linked)?;
            names.push(node.name.to_vec());
            at = node.parent;
        }
        names.reverse();
        Path::from_components(names).ok()
    }

    /// Shows the kernel the name, with the row it leads to: the node it has or a new one.
    pub(crate) fn remember(&mut self, parent: NodeId, name: &[u8], row: u64) -> NodeId {
        let id = match self.find(parent, name) {
            Some(id) => id,
            None => self.insert(parent, name, row),
        };
        let node = self.nodes.get_mut(&id).expect("a name leads to a node");
        node.lookups += 1;
        node.row = row;
        id
    }

    fn insert(&mut self, parent: NodeId, name: &[u8], row: u64) -> NodeId {
        let mut id = row;
        while id <= ROOT || self.nodes.contains_key(&id) {
            id = id.wrapping_add(PROBE);
        }
        let name: Arc<[u8]> = Arc::from(name);
        let node = Node {
            parent,
            name: Arc::clone(&name),
            linked: true,
            lookups: 0,
            row,
            touched: None,
            listed: None,
            given: Vec::new(),
            cached: None,
            shown: None,
            changes: 0,
        };
        self.nodes.insert(id, Box::new(node));
        self.names.entry(parent).or_default().insert(name, id);
        id
    }

    /// From now on the kernel may be asked to let go of a node that it was just shown for the first time.
    pub(crate) fn age(&mut self, node: NodeId) {
        self.aged.push_back(node);
        if self.aged.len() > 2 * self.nodes.len() + 1024 {
            self.aged.retain(|node| self.nodes.contains_key(node));
        }
    }

    /// Names of up to `count` nodes that the kernel is to let go of, the oldest first, but for those that are `busy`.
    pub(crate) fn oldest(&mut self, count: usize, busy: impl Fn(NodeId) -> bool) -> Vec<(NodeId, Arc<[u8]>)> {
        let mut names = Vec::new();
        for _ in 0..self.aged.len().min(2 * count) {
            let Some(node) = self.aged.pop_front() else { break };
            let Some(known) = self.nodes.get(&node).filter(|known| known.linked) else {
                continue;
            };
            if busy(node) {
                self.aged.push_back(node);
                continue;
            }
            names.push((known.parent, Arc::clone(&known.name)));
            if names.len() == count {
                break;
            }
        }
        names
    }

    /// The kernel lets go of it so often.
    pub(crate) fn forget(&mut self, node: NodeId, count: u64) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups == 0 && node != ROOT {
            self.unlink(node);
            self.nodes.remove(&node);
        }
    }

    /// Takes the name from a node.
    pub(crate) fn unlink(&mut self, node: NodeId) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        if !std::mem::replace(&mut known.linked, false) {
            return;
        }
        let key = (known.parent, Arc::clone(&known.name));
        if let Some(names) = self.names.get_mut(&key.0) {
            names.remove(&key.1);
            if names.is_empty() {
                self.names.remove(&key.0);
            }
        }
        self.settle(&key);
    }

    /// Moves the node at one name to another, whose node loses it; with `exchange` both change places.
    pub(crate) fn rename(&mut self, from: (NodeId, &[u8]), to: (NodeId, &[u8]), exchange: bool) {
        if from == to {
            return;
        }
        let (source, target) = (self.find(from.0, from.1), self.find(to.0, to.1));
        if let Some(target) = target {
            self.unlink(target);
        }
        if let Some(source) = source {
            self.unlink(source);
            self.link(source, to);
        }
        if let Some(target) = target.filter(|_| exchange) {
            self.link(target, from);
        }
    }

    fn link(&mut self, node: NodeId, at: (NodeId, &[u8])) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        let name: Arc<[u8]> = Arc::from(at.1);
        (known.parent, known.name, known.linked) = (at.0, Arc::clone(&name), true);
        self.names.entry(at.0).or_default().insert(name, node);
    }

    /// Something at this path has changed: whoever lists its directory looks again.
    pub(crate) fn note_change(&mut self, path: &Path) {
        let dir = path.parent().and_then(|parent| self.walk(&parent));
        if let Some(dir) = dir.and_then(|dir| self.get_mut(dir)) {
            dir.changes += 1;
        }
    }

    /// Whatever lies somewhere below a directory has changed.
    pub(crate) fn note_sweep(&mut self) {
        self.sweeps += 1;
    }

    /// Grows with every change that a listing of the directory would show.
    pub(crate) fn changes_in(&self, dir: NodeId) -> u64 {
        self.sweeps + self.get(dir).map_or(0, |dir| dir.changes)
    }

    /// The known names in a directory.
    pub(crate) fn children(&self, parent: NodeId) -> Vec<(NodeId, Arc<[u8]>)> {
        let names = self.names.get(&parent).into_iter().flatten();
        names.map(|(name, id)| (*id, Arc::clone(name))).collect()
    }

    /// The name is of a file that is not placed yet.
    pub(crate) fn mark_pending(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get(&node) {
            self.pending
                .entry(known.parent)
                .or_default()
                .insert(Arc::clone(&known.name));
        }
    }

    /// It is placed now.
    pub(crate) fn mark_placed(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get(&node) {
            let key = (known.parent, Arc::clone(&known.name));
            self.settle(&key);
        }
    }

    fn settle(&mut self, key: &(NodeId, Arc<[u8]>)) {
        if let Some(names) = self.pending.get_mut(&key.0) {
            names.remove(&key.1);
            if names.is_empty() {
                self.pending.remove(&key.0);
            }
        }
    }

    /// Names of files in a directory that are not placed yet, in byte order.
    pub(crate) fn pending_in(&self, parent: NodeId) -> Vec<Arc<[u8]>> {
        self.pending
            .get(&parent)
            .map(|names| names.iter().cloned().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(tree: &Tree, node: NodeId) -> Option<String> {
        tree.path(node).map(|path| path.to_string())
    }

    #[test]
    fn a_renamed_directory_takes_its_names_along() {
        let mut tree = Tree::new();
        let dir = tree.remember(ROOT, b"a", 10);
        let file = tree.remember(dir, b"f", 11);
        tree.rename((ROOT, b"a"), (ROOT, b"b"), false);
        assert_eq!(path(&tree, file).unwrap(), "/b/f");
        assert_eq!(tree.find(ROOT, b"a"), None);
    }

    #[test]
    fn what_is_replaced_loses_its_name_and_an_exchange_loses_none() {
        let mut tree = Tree::new();
        let (a, b) = (tree.remember(ROOT, b"a", 10), tree.remember(ROOT, b"b", 11));
        tree.rename((ROOT, b"a"), (ROOT, b"b"), true);
        assert_eq!(
            (path(&tree, a).unwrap(), path(&tree, b).unwrap()),
            ("/b".into(), "/a".into())
        );
        tree.rename((ROOT, b"a"), (ROOT, b"b"), false);
        assert_eq!((path(&tree, a), path(&tree, b).unwrap()), (None, "/b".into()));
    }

    #[test]
    fn what_the_kernel_has_let_go_of_is_forgotten() {
        let mut tree = Tree::new();
        let node = tree.remember(ROOT, b"a", 10);
        assert_eq!(
            tree.remember(ROOT, b"a", 12),
            node,
            "a content written anew is the same file"
        );
        tree.forget(node, 1);
        assert_eq!(tree.find(ROOT, b"a"), Some(node));
        tree.forget(node, 1);
        assert_eq!((tree.find(ROOT, b"a"), tree.len()), (None, 1));
    }

    #[test]
    fn a_number_that_is_taken_is_not_given_twice() {
        let mut tree = Tree::new();
        let (a, b) = (tree.remember(ROOT, b"a", 10), tree.remember(ROOT, b"b", 10));
        assert_ne!(a, b);
    }

    #[test]
    fn the_oldest_names_go_first_and_those_in_use_stay() {
        let mut tree = Tree::new();
        let nodes: Vec<_> = (0..5u8).map(|k| tree.remember(ROOT, &[k], 10 + u64::from(k))).collect();
        nodes.iter().for_each(|node| tree.age(*node));
        tree.forget(nodes[0], 1);
        let names = |names: Vec<(NodeId, Arc<[u8]>)>| names.iter().map(|(_, name)| name[0]).collect::<Vec<_>>();
        assert_eq!(names(tree.oldest(2, |node| node == nodes[1])), [2, 3]);
        assert_eq!(names(tree.oldest(9, |_| false)), [4, 1]);
        assert_eq!(names(tree.oldest(9, |_| false)), [0; 0], "they were named once");
    }

    #[test]
    fn a_pending_name_goes_with_its_node() {
        let mut tree = Tree::new();
        let node = tree.remember(ROOT, b"a", 10);
        tree.mark_pending(node);
        assert_eq!(tree.pending_in(ROOT).len(), 1);
        tree.unlink(node);
        assert!(tree.pending_in(ROOT).is_empty());
    }
}
