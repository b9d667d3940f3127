//! Attributes of nodes, lookups, and how long the kernel may remember them.

use super::{
    Attr, Entry, FileKind, Mode, NodeId, ROOT, Volume,
    open::OpenFile,
    system_time,
    tree::{Node, Shown, Tree},
};
use crate::{Errno, Result};
use forebay_writeback::{
    ErrorKind, Path,
    names::{Stat, StatKind, State},
};
use std::time::Duration;

/// What the cache alone decides is remembered until it says otherwise.
const TTL_OWN: Duration = Duration::from_secs(24 * 3600);
/// Names that the kernel may know; each takes about 250 bytes here and 1 KiB there.
pub(super) const KNOWN_MAX: usize = 1 << 20;
const FORGOTTEN_AT_ONCE: usize = 1024;
/// What an under-store may change by itself.
pub(super) const TTL_STORE: Duration = Duration::from_secs(1);
/// The same on a mount for training.
const TTL_DATASET: Duration = Duration::from_secs(3600);

impl Volume {
    /// What `name` in `parent` is. The kernel knows it from now on.
    pub async fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Entry> {
        let _moving = self.moving.read().await;
        if let Some(entry) = self.lookup_pending(parent, name) {
            return Ok(entry);
        }
        let path = self.child_path(parent, name)?;
        match self.cache.stat(&path).await {
            Ok(stat) => {
                let stat = self.look_twice(parent, name, &path, stat).await?;
                self.limit_names(KNOWN_MAX);
                Ok(self.show(parent, name, &stat))
            }
            Err(error) => {
                // A store that is away says nothing of the name.
                if error.kind() == ErrorKind::NotFound {
                    self.lose(parent, name).await;
                }
                Err(error.into())
            }
        }
    }

    /// A file whose name is not in the cache yet.
    fn lookup_pending(&self, parent: NodeId, name: &[u8]) -> Option<Entry> {
        let mut tree = self.tree.lock();
        let node = tree.find(parent, name)?;
        let file = self.open_file(node).filter(|file| file.is_pending())?;
        let row = tree.get(node)?.row;
        tree.remember(parent, name, row);
        drop(tree);
        let stat = file.apart.lock().clone()?;
        Some(self.entry(node, &stat))
    }

    /// A name that leads nowhere any more: whoever has its file open goes on with it.
    async fn lose(&self, parent: NodeId, name: &[u8]) {
        let node = self.tree.lock().find(parent, name);
        if let Some(node) = node {
            self.taken(node).await;
        }
    }

    /// Another door has taken the name of a node.
    pub(super) async fn taken(&self, node: NodeId) {
        let file = self.open_file(node);
        if let Some(file) = &file {
            file.take_name(self.tree.lock().get(node).and_then(Node::left));
        }
        self.lost(Some(node), file).await;
    }

    /// Shows a name to the kernel. Where the node of the name is in use and stands for another row, one of the two is old: what was read of
    /// a directory some time ago does not decide which, and the node stays what it was.
    pub(super) fn show(&self, parent: NodeId, name: &[u8], stat: &Stat) -> Entry {
        let mut tree = self.tree.lock();
        let known = tree.len();
        let other = tree
            .find(parent, name)
            .and_then(|node| self.other_in_use(&tree, node, stat));
        let stat = other.as_ref().unwrap_or(stat);
        let node = tree.remember(parent, name, stat.id);
        // A directory may be where a program stands.
        if tree.len() > known && stat.kind != StatKind::Dir {
            tree.age(node);
        }
        drop(tree);
        self.entry(node, stat)
    }

    /// What a node in use stands for, when that is not `now`.
    fn other_in_use(&self, tree: &Tree, node: NodeId, now: &Stat) -> Option<Stat> {
        let known = tree.get(node).filter(|known| known.is_other(now.id))?;
        let used = self.opens_nothing() || self.open_file(node).is_some();
        used.then(|| known.left()).flatten()
    }

    /// Another door may have put something else at a name, of which it was not told here yet. What is there then.
    async fn look_twice(&self, parent: NodeId, name: &[u8], path: &Path, stat: Stat) -> Result<Stat> {
        let other = {
            let tree = self.tree.lock();
            tree.find(parent, name)
                .filter(|node| self.other_in_use(&tree, *node, &stat).is_some())
        };
        match other {
            Some(node) => {
                self.check_name(path, node).await;
                Ok(self.cache.stat(path).await?)
            }
            None => Ok(stat),
        }
    }

    /// Asks the kernel to let go of some names if it knows too many.
    pub(super) fn limit_names(&self, known_max: usize) {
        let Some(kernel) = self.kernel.get().filter(|kernel| !kernel.is_forgetting()) else {
            return;
        };
        let mut tree = self.tree.lock();
        if tree.len() > known_max {
            let files = self.files.lock();
            let names = tree.oldest(FORGOTTEN_AT_ONCE, |node| files.contains_key(&node));
            drop(files);
            kernel.forget(names);
        }
    }

    /// The kernel lets go of a node so often.
    pub fn forget(&self, node: NodeId, count: u64) {
        let mut tree = self.tree.lock();
        tree.forget(node, count);
        let gone = tree.get(node).is_none();
        drop(tree);
        // Where nothing is opened nothing is released either.
        if gone && self.opens_nothing() {
            self.files.lock().remove(&node);
        }
    }

    /// The attributes of a node.
    pub async fn getattr(&self, node: NodeId) -> Result<Entry> {
        let _moving = self.moving.read().await;
        self.attributes_of(node).await
    }

    pub(super) async fn attributes_of(&self, node: NodeId) -> Result<Entry> {
        let stat = self.stat_of(node).await?;
        let mut entry = self.entry(node, &stat);
        // Its directory may be gone with it.
        if entry.attr.kind == FileKind::File && self.path(node).is_err() {
            entry.attr.nlink = 0;
        }
        Ok(entry)
    }

    /// What the cache says of a node, or the file itself where the cache has no name for it. Of a file whose name is gone, or leads
    /// elsewhere, what was told last: whoever asks has it open.
    pub(super) async fn stat_of(&self, node: NodeId) -> Result<Stat> {
        if let Some(stat) = self.open_file(node).and_then(|file| file.apart.lock().clone()) {
            return Ok(stat);
        }
        let path = match self.path(node) {
            Ok(path) => path,
            Err(error) => return self.left(node).ok_or(error),
        };
        match self.cache.stat(&path).await {
            Ok(stat) if self.is_other(node, &stat) => Ok(self.left(node).unwrap_or(stat)),
            Ok(stat) => Ok(stat),
            Err(error) if error.kind() == ErrorKind::NotFound => self.left(node).ok_or(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn left(&self, node: NodeId) -> Option<Stat> {
        self.tree.lock().get(node)?.left()
    }

    fn is_other(&self, node: NodeId, stat: &Stat) -> bool {
        self.tree.lock().get(node).is_some_and(|known| known.is_other(stat.id))
    }

    pub(super) fn entry(&self, node: NodeId, stat: &Stat) -> Entry {
        let file = self.open_file(node);
        let mut attr = attr(node, stat);
        if let Some(file) = &file {
            overlay(&mut attr, file);
        }
        if let Some(known) = self.tree.lock().get_mut(node)
            && known.row == stat.id
        {
            known.shown = Shown::of(stat, attr.size);
        }
        if attr.kind == FileKind::Dir
            && let Some(touched) = self.tree.lock().get(node).and_then(|node| node.touched)
        {
            attr.mtime = attr.mtime.max(system_time(touched));
            attr.ctime = attr.ctime.max(system_time(touched));
        }
        Entry {
            attr,
            ttl: self.ttl(stat),
        }
    }

    fn ttl(&self, stat: &Stat) -> Duration {
        match (stat.state, self.options.mode) {
            (State::Open | State::Sealed, _) => TTL_OWN,
            (_, Mode::Dataset) => TTL_DATASET,
            (State::Persisted | State::Clean, Mode::Pipeline) => TTL_STORE,
        }
    }

    /// Where a symbolic link leads.
    pub async fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        let _moving = self.moving.read().await;
        self.stat_of(node).await?.target.ok_or(Errno(libc::EINVAL))
    }

    /// An entry of `parent` was made or removed.
    pub(super) fn touch(&self, parent: NodeId) {
        let now = self.now();
        if let Some(node) = self.tree.lock().get_mut(parent) {
            node.touched = Some(now);
        }
    }

    /// The directory above a node, and the root's own.
    pub(super) fn parent_of(&self, node: NodeId) -> NodeId {
        self.tree.lock().get(node).map_or(ROOT, |node| node.parent)
    }
}

/// The node at the end of a path, and the one of its directory, as far as the kernel knows them.
pub(super) fn known(tree: &Tree, path: &Path) -> Option<(NodeId, Option<NodeId>)> {
    let parent = tree.walk(&path.parent()?)?;
    Some((parent, tree.find(parent, path.name()?)))
}

fn attr(node: NodeId, stat: &Stat) -> Attr {
    let kind = match (stat.kind, stat.special) {
        (StatKind::Dir, _) => FileKind::Dir,
        (StatKind::Symlink, _) => FileKind::Symlink,
        (StatKind::Special, special) => FileKind::Special(special.map_or(libc::S_IFIFO, |(format, _)| format)),
        (StatKind::File, _) => FileKind::File,
    };
    Attr {
        node,
        kind,
        size: stat.size,
        mode: if kind == FileKind::Symlink { 0o777 } else { stat.mode },
        uid: stat.uid,
        gid: stat.gid,
        nlink: 1,
        rdev: stat.special.map_or(0, |(_, rdev)| rdev),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        atime: system_time(stat.atime),
    }
}

/// What the open file knows better.
fn overlay(attr: &mut Attr, file: &OpenFile) {
    if file.is_unlinked() {
        attr.nlink = 0;
    }
    // Who changes the content right now will be asked again.
    if let Ok(content) = file.content.try_read()
        && (content.draft.is_some() || file.is_unlinked())
    {
        attr.size = content.size();
    }
    let times = *file.times.lock();
    if let Some(mtime) = times.mtime {
        attr.mtime = system_time(mtime);
    }
    if let Some(ctime) = times.ctime {
        attr.ctime = attr.ctime.max(system_time(ctime));
    }
}
