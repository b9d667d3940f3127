//! Copies of persisted files on their way out, and what people ask: load, free, sync.
//!
//! A copy leaves its row first: the row says from then on that the bytes are in the under-store; where the base shows the same
//! by itself the row goes altogether. Only then are the bytes released. A row that is dirty again, or has work, keeps its copy.

use super::{CleanReader, FOLDER};
use crate::{Cache, Error, ErrorKind, Result, cache::Inner, changes::Change, mounts::Mount, rows::Content};
use forebay_namespace::{Ino, Inode, Kind, Node, NsError, Path};
use forebay_runtime::task::blocking;
use forebay_segment::StreamId;
use forebay_understore::{StoreError, Validator};
use std::{sync::Arc, time::Duration};

/// Entries of one page of a walk.
const PAGE: usize = 500;
/// How often copies of persisted files are compared with the under-store.
const SYNC_INTERVAL: Duration = Duration::from_secs(60);
/// Copies compared in a row before the walk rests.
const SYNC_BURST: usize = 100;

/// What `free` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Bytes that are no longer held locally.
    pub freed_bytes: u64,
    /// Dirty bytes under the path, which stay.
    pub dirty_bytes: u64,
}

impl Cache {
    /// Loads what lies under `path` into the cache; answers when it has, or at once. Loading ends where the cache is full.
    pub async fn load(&self, path: &Path, wait: bool) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        inner
            .names
            .resolve(path)
            .await?
            .ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
        if wait {
            return inner.load(path).await;
        }
        let path = path.clone();
        self.inner.tasks.spawn("load", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                loaded = inner.load(&path) => if let Err(error) = loaded {
                    tracing::warn!(%path, %error, "not everything was loaded");
                },
            }
        });
        Ok(())
    }

    /// Drops local copies of clean data under `path`; dirty data stays.
    pub async fn free(&self, path: &Path) -> Result<Freed> {
        let inner = &self.inner;
        let _entered = inner.enter()?;
        let node = inner
            .names
            .resolve(path)
            .await?
            .ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
        let mut freed = Freed::default();
        let rows = if node.is_dir() {
            inner.rows_below(path).await?
        } else {
            vec![(path.clone(), node)]
        };
        for (_, node) in rows {
            inner.free_row(&node, &mut freed).await?;
        }
        freed.freed_bytes += inner.free_blocks(path);
        Ok(freed)
    }

    /// Looks again at the under-store below `path`.
    pub async fn sync(&self, path: &Path, wait: bool) -> Result<()> {
        self.inner.mounts.changed_all();
        let inner = Arc::clone(&self.inner);
        if wait {
            return inner.look_again(path).await;
        }
        let path = path.clone();
        self.inner.tasks.spawn("sync", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                synced = inner.look_again(&path) => if let Err(error) = synced {
                    tracing::warn!(%path, %error, "not everything was compared with the under-store");
                },
            }
        });
        Ok(())
    }
}

impl Inner {
    /// Removes what an earlier life left of blocks, counts the copies that rows name, and starts the tasks.
    pub(crate) async fn start_clean(self: &Arc<Self>) -> Result<()> {
        let (disk, folder) = (self.components.disk.clone(), self.settings.data.join(FOLDER));
        blocking(move || {
            for sub in disk.list(&folder).unwrap_or_default() {
                let sub = folder.join(sub.name);
                for file in disk.list(&sub).unwrap_or_default() {
                    // What can not be removed is overwritten or stays unused.
                    let _ = disk.remove(&sub.join(file.name));
                }
            }
        })
        .await;
        let mut after = None;
        loop {
            let page = self.names.inodes(after, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (ino, inode) in &page {
                if inode.kind == Kind::File
                    && let Ok(Content::Persisted { layout: Some(_), .. }) = Content::decode(&inode.content)
                {
                    self.clean.persisted(StreamId(ino.0, inode.generation), inode.size);
                }
            }
        }
        // Set once: this is the only start.
        let _ = self.clean.shared.tasks.set(self.tasks.clone());
        let inner = Arc::clone(self);
        self.tasks.spawn("evict", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.evict_for_ever() => {}
            }
        });
        let inner = Arc::clone(self);
        self.tasks.spawn("sync-copies", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.sync_for_ever() => {}
            }
        });
        Ok(())
    }

    async fn evict_for_ever(self: &Arc<Self>) {
        loop {
            self.clean.shared.leave.notified().await;
            loop {
                let next = self.clean.shared.leaving.lock().pop();
                let Some((ino, generation)) = next else { break };
                match self.evict(ino, generation).await {
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(ino = ino.0, %error, "a copy was not evicted; trying again");
                        self.clean.shared.leaving.lock().push((ino, generation));
                        self.components.clock.sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
    }

    /// Drops the local copy of a persisted file. Answers the bytes released; 0 when it is not (any more) only a copy.
    async fn evict(&self, ino: Ino, generation: u32) -> Result<u64> {
        let mut attempts = self.attempts("evict");
        loop {
            match self.try_evict(ino, generation).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn try_evict(&self, ino: Ino, generation: u32) -> Result<u64> {
        let mut planner = self.names.planner();
        let Some((inode, _)) = planner.inode(ino).await? else {
            return Ok(0);
        };
        if inode.generation != generation || inode.kind != Kind::File {
            return Ok(0);
        }
        let Content::Persisted {
            at,
            layout: Some(layout),
            work,
        } = Content::decode(&inode.content)?
        else {
            return Ok(0);
        };
        let stream = StreamId(ino.0, generation);
        if work.is_none() && inode.nlink == 1 && is_plain(&inode) && self.forget_row(ino, &at.key, at.mount).await? {
            self.clean.forget_copy(stream);
            self.segments.release(stream, &layout);
            return Ok(inode.size);
        }
        let (content, ctime) = (Content::Persisted { at, layout: None, work }.encode(), inode.ctime);
        planner
            .update(ino, |inode| (inode.content, inode.ctime) = (content, ctime))
            .await?;
        self.commit(planner.finish()?).await?;
        self.clean.forget_copy(stream);
        self.segments.release(stream, &layout);
        Ok(inode.size)
    }

    /// Whether the row went because the base shows the same.
    async fn forget_row(&self, ino: Ino, key: &str, mount: u32) -> Result<bool> {
        let Some(mount) = self.mounts.by_id(mount) else {
            return Ok(false);
        };
        let Some(plan) = self.names.plan_forget(ino, &mount.path_of(key)?).await? else {
            return Ok(false);
        };
        self.mounts.uncovered(mount.id, key);
        self.commit(plan).await?;
        Ok(true)
    }

    async fn free_row(&self, node: &Node, freed: &mut Freed) -> Result<()> {
        let Node::Row { ino, inode, .. } = node else {
            return Ok(());
        };
        if inode.kind != Kind::File {
            return Ok(());
        }
        match Content::decode(&inode.content)? {
            Content::Sealed { .. } | Content::Open => freed.dirty_bytes += inode.size,
            Content::Persisted { layout: Some(_), .. } => {
                freed.freed_bytes += self.evict(*ino, inode.generation).await?
            }
            Content::Persisted { layout: None, .. } => {}
        }
        Ok(())
    }

    /// Drops the blocks of what lies under `path` in its store, and in stores mounted below.
    fn free_blocks(&self, path: &Path) -> u64 {
        let mut places: Vec<(Arc<Mount>, String)> = self
            .mounts
            .resolve(path)
            .and_then(|(mount, key)| Some((mount, key?)))
            .into_iter()
            .collect();
        for below in self
            .mounts
            .all()
            .iter()
            .filter(|mount| mount.path != *path && mount.path.starts_with(path))
        {
            places.push((Arc::clone(below), String::new()));
        }
        let mut bytes = 0;
        for (mount, key) in places {
            let (gone, freed) = self.clean.shared.blocks.lock().take_below(mount.id, &key);
            self.clean.shared.remove_files(gone);
            bytes += freed;
        }
        bytes
    }

    async fn load(self: &Arc<Self>, path: &Path) -> Result<()> {
        let mut open = vec![path.clone()];
        let mut loaded = 0;
        while let Some(path) = open.pop() {
            let Some(node) = self.names.resolve(&path).await? else {
                continue;
            };
            if !node.is_dir() {
                loaded += self.load_file(&path, &node).await?;
                continue;
            }
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = match self.names.list(&path, after.as_deref(), PAGE).await {
                    Err(NsError::NotFound(_) | NsError::NotADirectory(_)) => break,
                    other => other?,
                };
                let ended = page.len() < PAGE;
                after = page.last().map(|(name, _)| name.clone());
                for (name, node) in page {
                    let path = path.join(&name)?;
                    if node.is_dir() {
                        open.push(path);
                    } else {
                        loaded += self.load_file(&path, &node).await?;
                    }
                    if loaded > self.clean.limit() {
                        tracing::info!(loaded, "loading ends: the clean cache is full");
                        return Ok(());
                    }
                }
                if ended {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn load_file(&self, path: &Path, node: &Node) -> Result<u64> {
        let Some(object) = self.object_of(node)? else {
            return Ok(0);
        };
        match self.clean.load(&object).await {
            // Changed or removed meanwhile is no failure of the rest.
            Err(error) if matches!(error.kind(), ErrorKind::Precondition | ErrorKind::NotFound) => Ok(0),
            other => other.map(|()| object.size).map_err(|error| error.at(path)),
        }
    }

    /// The object that has the bytes of a clean file which are not here.
    fn object_of(&self, node: &Node) -> Result<Option<CleanReader>> {
        let (mount, key, size, validator) = match node {
            Node::Base { at, entry } if !entry.is_dir => match self.mounts.resolve(at) {
                Some((mount, Some(key))) => (mount, key, entry.size, entry.validator.clone()),
                _ => return Ok(None),
            },
            Node::Row { inode, .. } if inode.kind == Kind::File => match Content::decode(&inode.content)? {
                Content::Persisted { at, layout: None, .. } => match self.mounts.by_id(at.mount) {
                    Some(mount) => (mount, at.key, inode.size, at.validator),
                    None => return Ok(None),
                },
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(CleanReader {
            mount,
            key,
            size,
            validator: Validator(validator),
        }))
    }

    /// A persisted file as it is now: where the under-store has something else by now, the row goes and that shows. A store
    /// that is away changes nothing.
    pub(crate) async fn revalidate(&self, path: &Path, node: Node) -> Result<Option<Node>> {
        let Node::Row { ino, inode, .. } = &node else {
            return Ok(Some(node));
        };
        if inode.kind != Kind::File {
            return Ok(Some(node));
        }
        let Content::Persisted { at, work: None, .. } = Content::decode(&inode.content)? else {
            return Ok(Some(node));
        };
        let Some(mount) = self.mounts.by_id(at.mount) else {
            return Ok(Some(node));
        };
        let place = mount.path_of(&at.key)?;
        // An old version's part is not where its name says.
        if place != *path {
            return Ok(Some(node));
        }
        match self.mounts.base().stat(&place).await {
            Ok(Some(entry)) if entry.validator == at.validator => return Ok(Some(node)),
            Err(_) => return Ok(Some(node)),
            Ok(_) => {}
        }
        // The remembered answer may be older than our own write.
        match mount.health.ask(mount.store.head(&at.key)).await {
            Ok(Some(found)) if found.validator.0 == at.validator => return Ok(Some(node)),
            Err(StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Damaged(_)) => return Ok(Some(node)),
            _ => {}
        }
        self.mounts.changed(at.mount, &at.key);
        if let Some(plan) = self.names.plan_forget(*ino, &place).await? {
            match self.commit(plan).await {
                Ok(_) => {
                    self.clean.forget_copy(StreamId(ino.0, inode.generation));
                    self.discard_node(&node);
                }
                Err(error) if error.is_lost() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.names.resolve(path).await?)
    }

    /// Compares what lies below `path` with the under-store, and tells the doors.
    async fn look_again(self: &Arc<Self>, path: &Path) -> Result<()> {
        let synced = self.sync_below(path).await;
        self.tell(Change::Under(path.clone())).await;
        synced
    }

    async fn sync_below(&self, path: &Path) -> Result<()> {
        let rows = match self.names.resolve(path).await? {
            Some(node) if node.is_dir() => self.rows_below(path).await?,
            Some(node) => vec![(path.clone(), node)],
            None => Vec::new(),
        };
        for (path, node) in rows {
            self.revalidate(&path, node).await?;
        }
        Ok(())
    }

    async fn sync_for_ever(&self) {
        loop {
            self.components.clock.sleep(SYNC_INTERVAL).await;
            if let Err(error) = self.sync_copies().await {
                tracing::warn!(%error, "copies were not all compared with the under-store; going on later");
            }
        }
    }

    async fn sync_copies(&self) -> Result<()> {
        let mut after = None;
        let mut burst = 0;
        loop {
            let page = self.names.inodes(after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for (ino, inode) in page {
                if inode.kind != Kind::File || !matches!(Content::decode(&inode.content), Ok(Content::Persisted { .. }))
                {
                    continue;
                }
                let Some(path) = self.names.path_of(ino).await? else {
                    continue;
                };
                if let Some(node) = self.names.resolve(&path).await? {
                    self.revalidate(&path, node).await?;
                }
                burst += 1;
                if burst % SYNC_BURST == 0 {
                    self.components.clock.sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Whether the base shows all that the row says.
fn is_plain(inode: &Inode) -> bool {
    inode.xattrs.is_empty() && inode.mode == 0o644 && (inode.uid, inode.gid) == (0, 0)
}
