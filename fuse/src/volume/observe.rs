//! What other doors changed: nodes that lost their name or got another one, and what the kernel has to ask for again.
//!
//! The volume's own changes come back by the same way and are told apart by their path: the kernel knows of them already, and telling it
//! while it waits for their answer would block both.
//!
//! The kernel locks a directory while a name in it is changed, and takes no note of a name there until it has the answer. So a name that
//! another door changed there is told right after that, and whoever changed it waits so long. Where two mounts change names in one
//! directory at once that would be a circle: each answer would wait for the other. It is broken where a mount's own change has waited
//! for others for [`GRACE`]: then nobody waits for that mount.
//!
//! Where nothing is opened a node stands for a content, not for a name: what it was when it was looked up is read through it for as long
//! as the kernel knows it. Its bytes are taken when they are about to go, not before: a listing of a million names costs nothing. The
//! kernel is told to forget a name that is gone, and then knows the node only while a program has it open or mapped; so what is held is
//! what an open file would hold.

use super::{
    NodeId, Volume,
    lookup::known,
    open::{Current, OpenFile},
};
use async_trait::async_trait;
use forebay_writeback::{
    ErrorKind, Path,
    changes::{Change, Observer},
    file::{FileReader, GoingContent, Keeper},
    names::Stat,
};
use std::{
    convert::Infallible,
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Longest wait for the kernel, for all that it is told of one change. It waits for requests under way, and those may wait for whoever made
/// the change.
const PATIENCE: Duration = Duration::from_secs(1);
/// So long a change of our own may wait for others while others wait for it.
const GRACE: Duration = Duration::from_millis(5);
/// Longest wait for a placement of our own, which may in turn wait until others have been told of it.
const PLACING_PATIENCE: Duration = Duration::from_secs(1);

/// What the kernel is to ask for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Attributes and content of a node.
    Node(NodeId),
    /// Attributes of a node; its content stays.
    Attributes(NodeId),
    /// Where a name in a directory leads.
    Name(NodeId, Arc<[u8]>),
}

/// Dropped when the kernel has taken note.
#[derive(Clone, Debug)]
pub struct Told {
    _waited_for: mpsc::Sender<Infallible>,
}

/// Tells the kernel to ask again. Nobody waits in any of it.
pub trait Invalidate: Debug + Send + Sync {
    /// Has the kernel take note.
    fn tell(&self, note: Note, told: Told);
    /// Names that it need not know any more.
    fn forget(&self, names: Vec<(NodeId, Arc<[u8]>)>);
    /// Whether it is still at work on such.
    fn is_forgetting(&self) -> bool;
}

/// What the kernel is told of one change.
#[derive(Debug)]
struct Telling {
    told: Told,
    all: mpsc::Receiver<Infallible>,
}

/// A directory that changes of the volume's own are under way in.
#[derive(Debug, Default)]
pub(super) struct Busy {
    changes: u32,
    /// What the kernel takes note of once they are answered.
    later: Vec<(Note, Told)>,
}

/// Changes of the volume's own in some directories, until they are answered.
#[derive(Debug)]
pub(super) struct BusyDirs<'a> {
    volume: &'a Volume,
    dirs: Vec<NodeId>,
}

/// Changes of the volume's own at one path.
#[derive(Debug, Default)]
pub(super) struct Own {
    under_way: u32,
    /// How many were expected to come back, and came.
    begun: u32,
    seen: u32,
    /// Since when others are told of one.
    telling: Option<Instant>,
}

/// A change of the volume's own, until it is answered.
#[derive(Debug)]
pub(super) struct OwnChange<'a> {
    volume: &'a Volume,
    path: Path,
}

impl Volume {
    pub(super) fn begin_own(&self, path: &Path) -> OwnChange<'_> {
        let mut own = self.own.lock();
        let here = own.entry(path.clone()).or_default();
        here.under_way += 1;
        here.begun += 1;
        OwnChange {
            volume: self,
            path: path.clone(),
        }
    }

    fn is_own(&self, path: &Path) -> bool {
        match self.own.lock().get_mut(path) {
            Some(own) => {
                own.seen += 1;
                let ours = own.seen <= own.begun;
                if ours {
                    own.telling.get_or_insert_with(Instant::now);
                }
                ours
            }
            None => false,
        }
    }

    /// The kernel holds these directories for a change, until it is answered.
    pub(super) fn begin_in(&self, dirs: impl IntoIterator<Item = NodeId>) -> BusyDirs<'_> {
        let mut dirs = Vec::from_iter(dirs);
        dirs.sort_unstable();
        dirs.dedup();
        let mut busy = self.busy.lock();
        dirs.iter().for_each(|dir| busy.entry(*dir).or_default().changes += 1);
        BusyDirs { volume: self, dirs }
    }

    /// The directories of these names, and what the names lead to: it may be a directory too.
    pub(super) fn with_children<const N: usize>(&self, places: [(NodeId, &[u8]); N]) -> Vec<NodeId> {
        let tree = self.tree.lock();
        let both = places
            .iter()
            .flat_map(|(dir, name)| [Some(*dir), tree.find(*dir, name)]);
        both.flatten().collect()
    }

    /// Tells the kernel, as soon as it can take note.
    fn tell(&self, telling: &Telling, note: Note) {
        let Some(kernel) = self.kernel.get() else { return };
        if let Note::Name(dir, _) = &note
            && let Some(busy) = self.busy.lock().get_mut(dir)
        {
            return busy.later.push((note, telling.told.clone()));
        }
        kernel.tell(note, telling.told.clone());
    }

    /// Waits until the kernel has taken note of a change, or can not before that change is answered.
    async fn wait_until_told(&self, telling: Telling) {
        let Telling { told, mut all } = telling;
        drop(told);
        tokio::select! {
            biased;
            _ = all.recv() => {}
            () = self.holds_others_up() => {
                tracing::debug!("the kernel takes note of a change once a change of its own is answered");
            }
            () = tokio::time::sleep(PATIENCE) => {
                tracing::warn!("the kernel has not taken note of a change in time; it will when its requests are answered");
            }
        }
    }

    /// Completes when a change of the volume's own has waited for others for a while.
    async fn holds_others_up(&self) {
        let long = |own: &Own| own.telling.is_some_and(|since| since.elapsed() >= GRACE);
        loop {
            tokio::time::sleep(GRACE).await;
            if self.own.lock().values().any(long) {
                return;
            }
        }
    }

    /// Learns of changes through other doors from now on, and tells `kernel`.
    pub fn follow_changes(self: &Arc<Self>, kernel: Arc<dyn Invalidate>) -> Arc<dyn Observer> {
        let _ = self.kernel.set(kernel);
        let observer: Arc<dyn Observer> = Arc::new(Follower(Arc::clone(self)));
        self.cache.observe(&observer);
        if self.opens_nothing() {
            let keeper: Arc<dyn Keeper> = Arc::clone(self) as _;
            self.cache.keep_for(&keeper);
        }
        observer
    }

    /// Listings that are under way read again what was changed.
    fn note(&self, change: &Change) {
        let mut tree = self.tree.lock();
        match change {
            Change::Name(path) => tree.note_change(path),
            Change::Under(path) => {
                tree.note_change(path);
                tree.note_sweep();
            }
            Change::Renamed { from, to, .. } => {
                tree.note_change(from);
                tree.note_change(to);
            }
        }
    }

    /// Answers the node that lost this name.
    async fn name_changed(&self, path: &Path, telling: &Telling) -> Option<NodeId> {
        let (parent, node) = known(&self.tree.lock(), path)?;
        let lost = match node {
            Some(node) => self.look_again(path, node, telling).await,
            None => false,
        };
        if let Some(name) = path.name() {
            self.tell(telling, Note::Name(parent, name.into()));
            self.tell(telling, Note::Node(parent));
        }
        node.filter(|_| lost)
    }

    /// Looks at a name again, and tells the kernel of what is there now. Answers whether its node lost it.
    async fn look_again(&self, path: &Path, node: NodeId, telling: &Telling) -> bool {
        let lost = self.check_name(path, node).await;
        self.tell(
            telling,
            match lost {
                true => Note::Attributes(node),
                false => Note::Node(node),
            },
        );
        lost
    }

    /// A name whose node has other content now gets another node: whoever has the old one open keeps what it reads. Answers whether it did.
    pub(super) async fn check_name(&self, path: &Path, node: NodeId) -> bool {
        let file = self.open_file(node);
        // While our own content is being placed nobody knows which is the later one. When that takes too long, it finds out itself.
        let _placing = match &file {
            Some(file) => match tokio::time::timeout(PLACING_PATIENCE, file.placing.lock()).await {
                Ok(placing) => Some(placing),
                Err(_) => return false,
            },
            None => None,
        };
        let lost = match self.cache.stat(path).await {
            Ok(stat) => self.is_replaced(node, &stat),
            // What is being created here is in nobody's way; a store that is away says nothing.
            Err(error) => error.kind() == ErrorKind::NotFound && !file.as_ref().is_some_and(|file| file.is_pending()),
        };
        if lost {
            self.taken(node).await;
        }
        lost
    }

    /// Whether a name leads to other content than its node stands for. If not, the node stands for the row that it has now.
    fn is_replaced(&self, node: NodeId, now: &Stat) -> bool {
        let mut tree = self.tree.lock();
        let Some(known) = tree.get_mut(node) else { return false };
        let replaced = known.is_replaced_by(now);
        if !replaced {
            known.row = now.id;
        }
        replaced
    }

    /// Everything that the kernel knows below a directory is looked at again.
    async fn changed_under(&self, path: &Path) {
        let telling = Telling::new();
        let mut lost = Vec::from_iter(self.name_changed(path, &telling).await);
        let mut below = vec![path.clone()];
        while let Some(path) = below.pop() {
            let dir = self.tree.lock().walk(&path);
            let Some(dir) = dir else { continue };
            let children = self.tree.lock().children(dir);
            for (_, name) in children {
                if let Ok(child) = path.join(&name) {
                    lost.extend(self.name_changed(&child, &telling).await);
                    below.push(child);
                }
            }
            self.tell(&telling, Note::Node(dir));
        }
        self.wait_until_told(telling).await;
        self.hold(&lost).await;
    }

    /// Where nothing is opened, whoever reads parts of an old version goes on with them for as long as the kernel knows them, whether
    /// the version is kept so long or not.
    async fn hold(&self, nodes: &[NodeId]) {
        if !self.opens_nothing() || nodes.is_empty() {
            return;
        }
        let parts: Vec<_> = {
            let tree = self.tree.lock();
            let files = self.files.lock();
            let known = nodes.iter().filter(|node| !files.contains_key(node));
            let known = known.filter_map(|node| Some((*node, tree.get(*node)?)));
            known
                .map(|(id, node)| (id, (Arc::clone(&node.name), node.row)))
                .collect()
        };
        let names: Vec<_> = parts.iter().map(|(_, part)| part.clone()).collect();
        let mut readers = match self.cache.read_retired(&names).await {
            Ok(readers) => readers,
            Err(error) => {
                return tracing::warn!(%error, "parts that lost their names are not held for those who read them");
            }
        };
        for (node, (_, row)) in parts {
            if let Some(reader) = readers.remove(&row) {
                self.keep(node, reader);
            }
        }
    }

    /// Keeps a content for as long as the kernel knows its node.
    fn keep(&self, node: NodeId, reader: FileReader) {
        let tree = self.tree.lock();
        if tree.get(node).is_some() {
            let mut files = self.files.lock();
            files
                .entry(node)
                .or_insert_with(|| OpenFile::new(node, Current::of(reader), None));
        }
    }

    async fn renamed_elsewhere(&self, from: &Path, to: &Path, exchange: bool) {
        let places = [from, to].map(|path| known(&self.tree.lock(), path));
        let [source, target] = places.map(|place| place.and_then(|(_, node)| node));
        // A lookup since the change may have shown the new name already.
        let shown = match target {
            Some(node) if source.is_none() => self
                .cache
                .stat(to)
                .await
                .is_ok_and(|stat| !self.is_replaced(node, &stat)),
            _ => false,
        };
        if !shown {
            self.move_node(from, to, exchange);
        }
        let telling = Telling::new();
        if let Some(node) = target {
            self.tell(&telling, Note::Attributes(node));
        }
        for (place, path) in places.into_iter().zip([from, to]) {
            if let (Some((parent, _)), Some(name)) = (place, path.name()) {
                self.tell(&telling, Note::Name(parent, name.into()));
                self.tell(&telling, Note::Node(parent));
            }
        }
        self.wait_until_told(telling).await;
    }

    /// Moves a node in the tree. It does not wait for those who go from a node to a path: the name is gone already, and one of them may
    /// be a rename of ours that waits until its door is told.
    fn move_node(&self, from: &Path, to: &Path, exchange: bool) {
        let mut tree = self.tree.lock();
        let (source, target) = (known(&tree, from), known(&tree, to));
        match (source, target, from.name(), to.name()) {
            (Some((from_parent, _)), Some((to_parent, _)), Some(from_name), Some(to_name)) => {
                tree.rename((from_parent, from_name), (to_parent, to_name), exchange);
            }
            // It went where the kernel has not been, or came from there.
            _ => {
                if let Some((_, Some(node))) = source.or(target) {
                    tree.unlink(node);
                }
            }
        }
    }
}

impl Keeper for Volume {
    fn goes(&self, content: &GoingContent<'_>) {
        let node = content.id();
        let shown = self.tree.lock().get(node).is_some_and(|known| known.row == node);
        if !shown || self.files.lock().contains_key(&node) {
            return;
        }
        if let Some(kept) = content.keep() {
            self.keep(node, self.cache.read_kept(kept));
        }
        // Not every name that goes is told of.
        self.forget_name(node);
    }
}

impl Telling {
    fn new() -> Self {
        let (waited_for, all) = mpsc::channel(1);
        Self {
            told: Told {
                _waited_for: waited_for,
            },
            all,
        }
    }
}

impl Drop for BusyDirs<'_> {
    fn drop(&mut self) {
        for dir in &self.dirs {
            let mut busy = self.volume.busy.lock();
            let Some(here) = busy.get_mut(dir) else { continue };
            here.changes -= 1;
            if here.changes > 0 {
                continue;
            }
            let later = busy.remove(dir).map(|here| here.later);
            drop(busy);
            if let Some(kernel) = self.volume.kernel.get() {
                later
                    .into_iter()
                    .flatten()
                    .for_each(|(note, told)| kernel.tell(note, told));
            }
        }
    }
}

impl Drop for OwnChange<'_> {
    fn drop(&mut self) {
        let mut own = self.volume.own.lock();
        if let Some(here) = own.get_mut(&self.path) {
            here.under_way -= 1;
            here.telling = None;
            if here.under_way == 0 {
                own.remove(&self.path);
            }
        }
    }
}

#[derive(Debug)]
struct Follower(Arc<Volume>);

#[async_trait]
impl Observer for Follower {
    async fn changed(&self, change: &Change) {
        let volume = &self.0;
        volume.note(change);
        match change {
            Change::Name(path) if !volume.is_own(path) => {
                let telling = Telling::new();
                volume.name_changed(path, &telling).await;
                volume.wait_until_told(telling).await;
            }
            Change::Under(path) => volume.changed_under(path).await,
            Change::Renamed { from, to, exchange } if !volume.is_own(from) => {
                volume.renamed_elsewhere(from, to, *exchange).await;
            }
            Change::Name(_) | Change::Renamed { .. } => {}
        }
    }
}
