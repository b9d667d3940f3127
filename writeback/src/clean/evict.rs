//! Copies of persisted files on their way out.
//!
//! A copy leaves its row first: the row says from then on that the bytes are in the under-store; where the base shows the same
//! by itself the row goes altogether. Only then are the bytes released. A row that is dirty again keeps its copy, one that has work
//! stays without it, and what is pinned at the name that it has by now keeps both. A copy whose attributes are on their way to the store
//! stays too: with them the object gets another validator, and until the row has that the bytes are to be had here alone.

use crate::{Result, cache::Inner, mounts::Mount, rows::Content};
use forebay_namespace::{Ino, Inode, Kind};
use forebay_runtime::task::blocking;
use forebay_segment::{Layout, StreamId};
use std::{sync::Arc, time::Duration};

/// Entries of one page of a walk.
const PAGE: usize = 500;
/// How often it is looked for a disk that is nearly full.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

impl Inner {
    /// Removes what an earlier life left of blocks, counts the copies that rows name, and starts the tasks.
    pub(crate) async fn start_clean(self: &Arc<Self>) -> Result<()> {
        let (disk, folders) = (self.components.disk.clone(), self.clean.shared.folders.clone());
        blocking(move || {
            for folder in folders {
                for sub in disk.list(&folder).unwrap_or_default() {
                    let sub = folder.join(sub.name);
                    for file in disk.list(&sub).unwrap_or_default() {
                        // What can not be removed is overwritten or stays unused.
                        let _ = disk.remove(&sub.join(file.name));
                    }
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
                    && let Ok(Content::Persisted {
                        at,
                        layout: Some(layout),
                        ..
                    }) = Content::decode(&inode.content)
                {
                    self.count_copy(*ino, inode, &layout, (at.mount, &at.key));
                }
            }
        }
        // Set once: this is the only start.
        let _ = self.clean.shared.tasks.set(self.tasks.clone());
        super::trace::start(&self.settings, &self.tasks, &self.clean);
        let inner = Arc::clone(self);
        self.tasks.spawn("evict", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.evict_for_ever() => {}
            }
        });
        if self.segments.folders().count() > 1 {
            let inner = Arc::clone(self);
            self.tasks.spawn("room", async move {
                let shutdown = inner.tasks.shutdown().clone();
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = inner.make_room_for_ever() => {}
                }
            });
        }
        Ok(())
    }

    /// The file at this key of a mount was persisted, and its local bytes are a copy.
    pub(crate) fn count_copy(&self, ino: Ino, inode: &Inode, layout: &Layout, (mount, key): (u32, &str)) {
        let path = self.mounts.by_id(mount).and_then(|mount| mount.path_of(key).ok());
        // Of a store that is not mounted any more nothing is known: what holds for the root holds.
        let (stream, path) = (StreamId(ino.0, inode.generation), path.unwrap_or_default());
        self.clean.persisted(stream, layout, path, inode.mtime.max(inode.ctime));
    }

    /// Several data folders fill up each for itself: one that is nearly full gets room from its own clean data.
    async fn make_room_for_ever(&self) {
        let folders: Vec<_> = self.segments.folders().collect();
        loop {
            for (n, folder) in folders.iter().enumerate() {
                let short = self.disks.short_of_room(folder);
                if short > 0 {
                    self.clean.make_room_in(n, short);
                }
            }
            self.components.clock.sleep(ROOM_INTERVAL).await;
        }
    }

    async fn evict_for_ever(self: &Arc<Self>) {
        loop {
            self.clean.shared.leave.notified().await;
            loop {
                let next = self.clean.shared.leaving.lock().pop();
                let Some((ino, generation)) = next else { break };
                match self.evict_unless_pinned(ino, generation).await {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(ino = ino.0, %error, "a copy was not evicted; trying again");
                        self.clean.shared.leaving.lock().push((ino, generation));
                        self.components.clock.sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
    }

    /// Drops a copy that has to make room. It was counted where it lay when it was persisted; where it lies now it may be pinned.
    async fn evict_unless_pinned(&self, ino: Ino, generation: u32) -> Result<()> {
        if !self.policies.is_empty()
            && let Some(path) = self.names.path_of(ino).await?
            && self.policies.effective(&path).pin.holds()
            && let Some((inode, _)) = self.names.inode(ino).await?
            && let Ok(Content::Persisted {
                layout: Some(layout), ..
            }) = Content::decode(&inode.content)
            && self
                .clean
                .keep_copy(StreamId(ino.0, generation), &layout, path, inode.mtime.max(inode.ctime))
        {
            return Ok(());
        }
        self.evict(ino, generation).await.map(drop)
    }

    /// Drops the local copy of a persisted file. Answers the bytes released; 0 when it is not (any more) only a copy.
    pub(crate) async fn evict(&self, ino: Ino, generation: u32) -> Result<u64> {
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
        if work.is_none() && inode.nlink == 1 && self.forget_row(ino, &inode, &at.key, at.mount).await? {
            self.clean.forget_copy(stream);
            self.segments.release(stream, &layout);
            return Ok(inode.size);
        }
        let mut undressed = None;
        if let Some(seq) = work {
            undressed = self.undressed(seq, &at).await?;
            if undressed.is_none() {
                return Ok(0);
            }
        }
        let (content, ctime) = (Content::Persisted { at, layout: None, work }.encode(), inode.ctime);
        planner
            .update(ino, |inode| (inode.content, inode.ctime) = (content, ctime))
            .await?;
        let mut plan = planner.finish()?;
        if let Some(undressed) = undressed {
            plan.check(undressed);
        }
        self.commit(plan).await?;
        self.clean.forget_copy(stream);
        self.segments.release(stream, &layout);
        Ok(inode.size)
    }

    /// Whether the row went because the base shows the same.
    async fn forget_row(&self, ino: Ino, inode: &Inode, key: &str, mount: u32) -> Result<bool> {
        let Some(mount) = self.mounts.by_id(mount).filter(|mount| shows_all(mount, inode)) else {
            return Ok(false);
        };
        let Some(plan) = self.names.plan_forget(ino, &mount.path_of(key)?).await? else {
            return Ok(false);
        };
        // Asked after the row was read: who begins to await it from now on writes it, and this plan does not hold.
        if self.files.drafts.awaits(ino) {
            return Ok(false);
        }
        self.mounts.uncovered(mount.id, key);
        self.commit(plan).await?;
        Ok(true)
    }
}

/// Whether the base shows all that the row says. The time of a write that nobody set is not worth a row: a listing of an object store has
/// that of the object's arrival instead.
fn shows_all(mount: &Mount, inode: &Inode) -> bool {
    let is_plain = inode.xattrs.is_empty() && inode.mode == 0o644 && (inode.uid, inode.gid) == (0, 0);
    is_plain && (inode.mtime == inode.ctime || mount.shows_mtime(inode.mtime))
}
