//! What other doors changed: nodes that lost their name or got another one, and what the kernel has to ask for again.
//!
//! The volume's own changes come back by the same way and are told apart by their path: the kernel knows of them already, and telling it
//! while it waits for their answer would block both.

use super::{NodeId, Volume, lookup::known};
use async_trait::async_trait;
use forebay_writeback::{
    Path,
    changes::{Change, Observer},
};
use std::{fmt::Debug, sync::Arc};

/// Tells the kernel to ask again. It returns when the kernel has taken note.
#[async_trait]
pub trait Invalidate: Debug + Send + Sync {
    /// Attributes and content of the node.
    async fn node(&self, node: NodeId);
    /// Where the name leads.
    async fn name(&self, parent: NodeId, name: &[u8]);
    /// Names that it need not know any more. Nobody waits for it.
    fn forget(&self, names: Vec<(NodeId, Arc<[u8]>)>);
    /// Whether it is still at work on such.
    fn is_forgetting(&self) -> bool;
}

/// Changes of the volume's own at one path.
#[derive(Debug, Default)]
pub(super) struct Own {
    under_way: u32,
    /// How many were expected to come back, and came.
    begun: u32,
    seen: u32,
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
                own.seen <= own.begun
            }
            None => false,
        }
    }

    /// Learns of changes through other doors from now on, and tells `kernel`.
    pub fn follow_changes(self: &Arc<Self>, kernel: Arc<dyn Invalidate>) -> Arc<dyn Observer> {
        let _ = self.kernel.set(kernel);
        let observer: Arc<dyn Observer> = Arc::new(Follower(Arc::clone(self)));
        self.cache.observe(&observer);
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

    async fn name_changed(&self, path: &Path) {
        let Some((parent, node)) = known(&self.tree.lock(), path) else {
            return;
        };
        if let Some(node) = node {
            self.look_again(path, node).await;
        }
        if let (Some(kernel), Some(name)) = (self.kernel.get(), path.name()) {
            kernel.name(parent, name).await;
            kernel.node(parent).await;
        }
    }

    /// A name whose node has other content now gets another node: whoever has the old one open keeps what it reads.
    async fn look_again(&self, path: &Path, node: NodeId) {
        let row = self.tree.lock().get(node).map(|node| node.row);
        let stat = self.cache.stat(path).await.ok();
        if stat.as_ref().map(|stat| stat.id) != row {
            let file = self.open_file(node).filter(|file| !file.is_pending());
            if let Some(file) = &file {
                *file.apart.lock() = stat;
            }
            self.lost(Some(node), file).await;
        }
        if let Some(kernel) = self.kernel.get() {
            kernel.node(node).await;
        }
    }

    /// Everything that the kernel knows below a directory is looked at again.
    async fn changed_under(&self, path: &Path) {
        self.name_changed(path).await;
        let mut below = vec![path.clone()];
        while let Some(path) = below.pop() {
            let dir = self.tree.lock().walk(&path);
            let Some(dir) = dir else { continue };
            let children = self.tree.lock().children(dir);
            for (_, name) in children {
                if let Ok(child) = path.join(&name) {
                    self.name_changed(&child).await;
                    below.push(child);
                }
            }
            if let Some(kernel) = self.kernel.get() {
                kernel.node(dir).await;
            }
        }
    }

    async fn renamed_elsewhere(&self, from: &Path, to: &Path, exchange: bool) {
        let places = self.move_node(from, to, exchange).await;
        let Some(kernel) = self.kernel.get() else { return };
        for (parent, path) in places.into_iter().zip([from, to]) {
            if let (Some(parent), Some(name)) = (parent, path.name()) {
                kernel.name(parent, name).await;
                kernel.node(parent).await;
            }
        }
    }

    /// Moves a node in the tree. Answers the directories of both names, as far as the kernel knows them.
    async fn move_node(&self, from: &Path, to: &Path, exchange: bool) -> [Option<NodeId>; 2] {
        let _moving = self.moving.write().await;
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
        [source.map(|(parent, _)| parent), target.map(|(parent, _)| parent)]
    }
}

impl Drop for OwnChange<'_> {
    fn drop(&mut self) {
        let mut own = self.volume.own.lock();
        if let Some(here) = own.get_mut(&self.path) {
            here.under_way -= 1;
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
            Change::Name(path) if !volume.is_own(path) => volume.name_changed(path).await,
            Change::Under(path) => volume.changed_under(path).await,
            Change::Renamed { from, to, exchange } if !volume.is_own(from) => {
                volume.renamed_elsewhere(from, to, *exchange).await;
            }
            Change::Name(_) | Change::Renamed { .. } => {}
        }
    }
}
