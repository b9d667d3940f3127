//! What the tests share: a base in memory, and names over a store in memory.

use crate::*;
use async_trait::async_trait;
use forebay_metastore::mem::MemStore;
use forebay_runtime::clock::RealClock;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Notify;

pub(crate) fn p(text: &str) -> Path {
    Path::parse(text.as_bytes()).unwrap()
}

/// What lies at a path of the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum There {
    Dir,
    File(u32),
}

/// An under-store in memory. Parents of what is put are there by themselves.
#[derive(Debug, Default)]
pub(crate) struct MemBase {
    tree: Mutex<BTreeMap<Path, There>>,
    away: Mutex<bool>,
    /// A path whose file is kept back.
    hidden: Mutex<Option<Path>>,
    /// The next question is told of here, and answered when told so here.
    held: Mutex<Option<(Arc<Notify>, Arc<Notify>)>>,
    /// The same of the answer of the next listing, which is of the instant before.
    held_answer: Mutex<Option<(Arc<Notify>, Arc<Notify>)>>,
}

impl MemBase {
    pub(crate) fn put(&self, path: &Path, there: There) {
        let mut tree = self.tree.lock();
        for depth in 1..path.components().len() {
            tree.entry(path.prefix(depth)).or_insert(There::Dir);
        }
        tree.insert(path.clone(), there);
    }

    pub(crate) fn remove(&self, path: &Path) {
        self.tree.lock().retain(|at, _| !at.starts_with(path));
    }

    pub(crate) fn clear(&self) {
        self.tree.lock().clear();
    }

    pub(crate) fn set_away(&self, away: bool) {
        *self.away.lock() = away;
    }

    pub(crate) fn hide(&self, path: Option<Path>) {
        *self.hidden.lock() = path;
    }

    pub(crate) fn get(&self, path: &Path) -> Option<There> {
        self.tree.lock().get(path).cloned()
    }

    /// Lets the next question wait: it has come when the first is notified, and goes on when the second is.
    pub(crate) fn hold(&self) -> (Arc<Notify>, Arc<Notify>) {
        self.held.lock().insert(Default::default()).clone()
    }

    /// Lets the next listing see what is there when the first is notified, and answer it when the second is.
    pub(crate) fn hold_answer(&self) -> (Arc<Notify>, Arc<Notify>) {
        self.held_answer.lock().insert(Default::default()).clone()
    }

    async fn wait(held: &Mutex<Option<(Arc<Notify>, Arc<Notify>)>>) {
        let held = held.lock().take();
        if let Some((asked, go)) = held {
            asked.notify_one();
            go.notified().await;
        }
    }

    fn answer(&self) -> Result<(), BaseError> {
        if *self.away.lock() {
            Err(BaseError("away".into()))
        } else {
            Ok(())
        }
    }

    fn entry(path: &Path, there: &There) -> BaseEntry {
        let size = if let There::File(content) = there {
            u64::from(*content)
        } else {
            0
        };
        BaseEntry {
            name: path.name().unwrap_or_default().to_vec(),
            is_dir: *there == There::Dir,
            size,
            mtime: Timestamp(1),
            validator: String::new(),
            attributes: None,
        }
    }
}

#[async_trait]
impl Base for MemBase {
    async fn stat(&self, path: &Path) -> Result<Option<BaseEntry>, BaseError> {
        Self::wait(&self.held).await;
        self.answer()?;
        Ok(self.tree.lock().get(path).map(|there| Self::entry(path, there)))
    }

    async fn list(&self, path: &Path, after: Option<&[u8]>, limit: usize) -> Result<Vec<BaseEntry>, BaseError> {
        Self::wait(&self.held).await;
        self.answer()?;
        let listed = {
            let tree = self.tree.lock();
            let children = tree.iter().filter(|(at, _)| at.parent().as_ref() == Some(path));
            let later = children.filter(|(at, _)| after.is_none_or(|after| at.name().unwrap() > after));
            later.take(limit).map(|(at, there)| Self::entry(at, there)).collect()
        };
        Self::wait(&self.held_answer).await;
        Ok(listed)
    }

    fn hides(&self, path: &Path) -> bool {
        self.hidden.lock().as_ref() == Some(path)
    }

    fn adopt(&self, path: &Path, _entry: &BaseEntry) -> Bytes {
        match self.get(path) {
            Some(There::File(content)) => content.to_be_bytes().to_vec().into(),
            other => panic!("{path}: adopted as a file, is {other:?}"),
        }
    }
}

pub(crate) struct World {
    pub(crate) ns: Namespace,
    pub(crate) base: Arc<MemBase>,
}

impl World {
    pub(crate) async fn new() -> World {
        World::over(MemStore::new()).await
    }

    pub(crate) async fn over(store: MetaStoreRef) -> World {
        let base = Arc::new(MemBase::default());
        let ns = Namespace::open(store, Arc::clone(&base) as Arc<dyn Base>, RealClock::shared())
            .await
            .unwrap();
        World { ns, base }
    }

    /// With these files in the base, their sizes counted from 1.
    pub(crate) async fn with_base(files: &[&str]) -> World {
        let world = World::new().await;
        for (path, content) in files.iter().zip(1..) {
            world.base.put(&p(path), There::File(content));
        }
        world
    }

    pub(crate) async fn put(&self, path: &str, content: u32) -> Result<Ino> {
        let create = Create {
            parents: true,
            replace: Replace::File,
            ..file(content)
        };
        let planned = self.ns.plan_create(&p(path), create).await?;
        self.ns.commit(planned.plan, None).await?;
        Ok(planned.ino)
    }

    pub(crate) async fn mkdir(&self, path: &str) -> Result<Ino> {
        let planned = self.ns.plan_create(&p(path), Create::dir()).await?;
        self.ns.commit(planned.plan, None).await?;
        Ok(planned.ino)
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<Renamed> {
        let renamed = self.ns.plan_rename(&p(from), &p(to), RenameHow::default()).await?;
        self.ns.commit(renamed.plan.clone(), None).await?;
        Ok(renamed)
    }

    pub(crate) async fn unlink(&self, path: &str) -> Result<Unlinked> {
        let unlinked = self.ns.plan_unlink(&p(path)).await?;
        self.ns.commit(unlinked.plan.clone(), None).await?;
        Ok(unlinked)
    }

    pub(crate) async fn rmdir(&self, path: &str) -> Result<Unlinked> {
        let unlinked = self.ns.plan_rmdir(&p(path)).await?;
        self.ns.commit(unlinked.plan.clone(), None).await?;
        Ok(unlinked)
    }

    /// Collects everything that was cut off.
    pub(crate) async fn collect(&self) {
        while let Some(step) = self.ns.plan_collect(3).await.unwrap() {
            self.ns.commit(step.plan, None).await.unwrap();
        }
    }

    /// Names in a directory, by pages of `limit`.
    pub(crate) async fn names(&self, path: &str, limit: usize) -> Vec<String> {
        let listed = self.list_all(&p(path), limit).await.unwrap();
        listed
            .into_iter()
            .map(|(name, _)| String::from_utf8(name).unwrap())
            .collect()
    }

    pub(crate) async fn list_all(&self, path: &Path, limit: usize) -> Result<Vec<(Vec<u8>, Node)>> {
        let mut all: Vec<(Vec<u8>, Node)> = Vec::new();
        loop {
            let after = all.last().map(|(name, _)| name.clone());
            let page = self.ns.list(path, after.as_deref(), limit).await?;
            let end = page.len() < limit;
            all.extend(page);
            if end {
                return Ok(all);
            }
        }
    }

    /// The content at a path.
    pub(crate) fn content(&self, node: &Node) -> Option<u32> {
        match node {
            Node::Row { inode, .. } if inode.kind == Kind::File => {
                Some(u32::from_be_bytes(inode.content.as_ref().try_into().unwrap()))
            }
            Node::Base { at, entry } if !entry.is_dir => match self.base.get(at) {
                Some(There::File(content)) => Some(content),
                other => panic!("{at}: a base node leads to {other:?}"),
            },
            _ => None,
        }
    }

    pub(crate) async fn read(&self, path: &str) -> Option<u32> {
        let node = self.ns.resolve(&p(path)).await.unwrap()?;
        self.content(&node)
    }
}

pub(crate) fn file(content: u32) -> Create {
    Create {
        content: content.to_be_bytes().to_vec().into(),
        size: u64::from(content),
        ..Create::default()
    }
}
