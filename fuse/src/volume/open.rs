//! Files that are open.
//!
//! 1. *Read*: a reader of the content that the name led to when it was opened. It is kept for as long as the file is open.
//! 2. *Changed*: the first change makes a draft; from then on everybody who has the file open on this mount sees that.
//! 3. *Placed*, by close or fsync: the name leads to the draft's content. A small draft stays and can be changed again; a large one has
//!    become the content, and the next change begins with a copy.
//! 4. *Apart*: a file whose name is not in the cache, because it was never placed or is gone. Its attributes are here alone.
//! 5. *Taken*: another door has removed its name or put something else there. Whoever has it open goes on with what he has, and changes
//!    that are not placed have no place any more: fsync and close say ESTALE, and what the other one wrote stays.
//! 6. *Released*: the last one who had it open has let go. Changes that were never placed are placed now, or given up with the name; and those for
//!    which there is no room, unless an fsync has promised them.
//!
//! Why not the last close wins: the other one may have appended, and was told that it is there. A local file system has both in the
//! same file; here each writes a content, and one of them would be lost without a word.

use super::{
    NodeId, Volume,
    tree::{Node, Shown},
};
use crate::{Errno, Result};
use forebay_runtime::clock::Timestamp;
use forebay_writeback::{
    AckLevel, Error, ErrorKind, Path,
    file::{Draft, DraftRoom, FileReader, PlaceDraft, TriedPlace},
    names::Stat,
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{sync::RwLock, time::Instant};

/// Closes of one large file, each after changes, that place it. Its copies by many processes (a shell's redirection) would each copy it
/// anew; from here on a close makes it durable, and the last one places it.
const LARGE_PLACEMENTS_MAX: u32 = 4;

/// Looks for the new name of a file that is not where it was, each after a pause.
const MOVE_LOOKS_MAX: u32 = 20;
const MOVE_PAUSE: Duration = Duration::from_millis(5);

/// A file that is open.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) node: NodeId,
    pub(super) content: RwLock<Current>,
    /// One placement at a time.
    pub(super) placing: tokio::sync::Mutex<()>,
    /// One draft is made at a time.
    drafting: tokio::sync::Mutex<()>,
    /// Whether a close, fsync or rename has said that there is no room for its changes, and nothing was changed since.
    refused: AtomicBool,
    large_placements: AtomicU32,
    /// Attributes of a file that has no name in the cache.
    pub(super) apart: Mutex<Option<Stat>>,
    pub(super) unlinked: AtomicBool,
    /// Whether that was another door's doing.
    taken: AtomicBool,
    /// Times of changes that are not placed.
    pub(super) times: Mutex<Times>,
    /// Whether somebody has opened it to write and nothing was done with it since.
    pub(super) fresh: AtomicBool,
    pub(super) opens: Mutex<Opens>,
}

/// Times that the name in the cache does not have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) mtime: Option<Timestamp>,
    pub(super) ctime: Option<Timestamp>,
}

/// Which content it has now.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) reader: Option<FileReader>,
    pub(super) draft: Option<Arc<Draft>>,
}

impl Current {
    pub(super) fn of(reader: FileReader) -> Self {
        Self {
            reader: Some(reader),
            draft: None,
        }
    }

    pub(super) fn size(&self) -> u64 {
        match (&self.draft, &self.reader) {
            (Some(draft), _) => draft.size(),
            (None, Some(reader)) => reader.size(),
            (None, None) => 0,
        }
    }
}

/// Who has it open, by how the kernel reads it.
#[derive(Debug, Default)]
pub(super) struct Opens {
    pub(super) all: u32,
    pub(super) writers: u32,
    pub(super) cached: u32,
    pub(super) backed: u32,
}

impl Opens {
    /// One less. Answers whether it was the last.
    pub(super) fn close(&mut self, writes: bool, how: OpenHow) -> bool {
        self.all -= 1;
        self.writers -= u32::from(writes);
        self.cached -= u32::from(matches!(how, OpenHow::Cached { .. }));
        self.backed -= u32::from(how == OpenHow::Backed);
        self.all == 0
    }
}

/// How the kernel shall read an opened file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow {
    /// Every read and write is asked for.
    Direct,
    /// Through its page cache; `keep`: what it has of the file is still good.
    Cached {
        /// Whether the pages may stay.
        keep: bool,
    },
    /// By itself from the local file.
    Backed,
}

/// An opened file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub handle: u64,
    /// How the kernel shall read it.
    pub how: OpenHow,
}

/// An open of a file.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) file: Arc<OpenFile>,
    pub(super) writes: bool,
    pub(super) how: OpenHow,
}

impl OpenFile {
    pub(super) fn new(node: NodeId, content: Current, apart: Option<Stat>) -> Arc<Self> {
        Arc::new(Self {
            node,
            content: RwLock::new(content),
            placing: tokio::sync::Mutex::new(()),
            drafting: tokio::sync::Mutex::new(()),
            refused: AtomicBool::new(false),
            large_placements: AtomicU32::new(0),
            apart: Mutex::new(apart),
            unlinked: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            times: Mutex::default(),
            fresh: AtomicBool::new(false),
            opens: Mutex::default(),
        })
    }

    pub(super) fn is_unlinked(&self) -> bool {
        self.unlinked.load(Ordering::Acquire)
    }

    /// Another door has taken its name. `left`: its attributes, unless they are here.
    pub(super) fn take_name(&self, left: Option<Stat>) {
        if !self.is_unlinked() {
            self.taken.store(true, Ordering::Release);
            self.apart_with(left);
            self.unlinked.store(true, Ordering::Release);
        }
    }

    fn apart_with(&self, left: Option<Stat>) {
        let mut apart = self.apart.lock();
        if apart.is_none() {
            *apart = left;
        }
    }

    /// Whether its name is not in the cache yet.
    pub(super) fn is_pending(&self) -> bool {
        !self.is_unlinked() && self.apart.lock().is_some()
    }

    /// The draft, made of the content now if there is none. `keep`: so many of its bytes are wanted at most.
    pub(super) async fn draft(&self, volume: &Volume, keep: u64) -> Result<Arc<Draft>> {
        if let Some(draft) = &self.content.read().await.draft {
            return Ok(Arc::clone(draft));
        }
        // It may have to wait for room: whoever reads the content goes on meanwhile.
        let _drafting = self.drafting.lock().await;
        let reader = {
            let content = self.content.read().await;
            if let Some(draft) = &content.draft {
                return Ok(Arc::clone(draft));
            }
            content.reader.clone()
        };
        let draft = Arc::new(volume.cache.draft(reader.as_ref(), keep).await?);
        self.content.write().await.draft = Some(Arc::clone(&draft));
        Ok(draft)
    }

    pub(super) fn changed(&self, volume: &Volume) {
        self.refused.store(false, Ordering::Release);
        let now = Some(volume.now());
        *self.times.lock() = Times { mtime: now, ctime: now };
    }

    /// What the file is to be like when it is placed.
    fn how(&self) -> PlaceDraft {
        let Times { mtime, ctime } = *self.times.lock();
        match &*self.apart.lock() {
            Some(stat) => PlaceDraft {
                mode: Some(stat.mode),
                owner: Some((stat.uid, stat.gid)),
                mtime: mtime.or(Some(stat.mtime)),
                ctime: ctime.max(Some(stat.ctime)),
            },
            None => PlaceDraft {
                mtime,
                ctime,
                ..PlaceDraft::default()
            },
        }
    }

    /// Whether an fsync vouched for changes that are not placed.
    pub(super) async fn is_promised(&self) -> bool {
        match self.content.read().await.draft.clone() {
            Some(draft) => draft.is_promised().await,
            None => false,
        }
    }

    async fn is_changed(&self) -> bool {
        self.has_unplaced().await || self.is_pending()
    }

    async fn has_unplaced(&self) -> bool {
        let content = self.content.read().await;
        content.draft.as_ref().is_some_and(|draft| draft.is_changed())
    }

    /// The answer to whoever wants changes placed that have no name any more: nobody will see them, which is fine for a file that was
    /// unlinked here, and an error where another door has the name.
    async fn settle_unlinked(&self) -> Result<Settled> {
        match self.taken.load(Ordering::Acquire) && self.has_unplaced().await {
            true => Err(Errno(libc::ESTALE)),
            false => Ok(Settled::Done),
        }
    }
}

/// What asks for a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A close, which others may follow.
    Close,
    /// A program wants it durable and goes on.
    Sync,
    /// Nobody has it open any more, or its name is needed now.
    End,
}

/// How a settlement went that waits for no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Done,
    /// Nothing was done: it needs (more) room first.
    NoRoom,
}

impl Volume {
    /// Makes the changes of a file durable, and visible where that is due. It may wait for room, so whoever asks does not hold `moving`.
    /// ESTALE: another door has its name.
    pub(super) async fn settle(&self, file: &OpenFile, why: Why) -> Result<()> {
        self.settle_until(file, why, None).await
    }

    /// The same; room that does not come until then does not come at all.
    pub(super) async fn settle_until(&self, file: &OpenFile, why: Why, until: Option<Instant>) -> Result<()> {
        // Whoever closed it knows already.
        if why == Why::End && file.refused.load(Ordering::Acquire) {
            return Err(Errno(libc::ENOSPC));
        }
        let settled = self.settle_with_room(file, why, until).await;
        let refused = settled == Err(Errno(libc::ENOSPC));
        // What lost its name meanwhile needs none.
        if refused && file.is_unlinked() {
            return file.settle_unlinked().await.map(|_| ());
        }
        file.refused.store(refused, Ordering::Release);
        settled
    }

    /// Waits, where policies ask for it, until the under-store has what was placed. Whoever asks does not hold `moving`.
    pub(super) async fn reach_level(&self, file: &OpenFile) -> Result<()> {
        match self.path(file.node) {
            Ok(path) if !file.is_unlinked() => Ok(self.cache.reach_level(&path).await?),
            _ => Ok(()),
        }
    }

    async fn settle_with_room(&self, file: &OpenFile, why: Why, until: Option<Instant>) -> Result<()> {
        loop {
            let room = self.room_for(file);
            let mut room = match until {
                Some(until) => match tokio::time::timeout_at(until, room).await {
                    Ok(room) => room?,
                    Err(_) => return Err(Errno(libc::ENOSPC)),
                },
                None => room.await?,
            };
            let _moving = self.moving.read().await;
            if self.try_settle(file, why, &mut room).await? == Settled::Done {
                return Ok(());
            }
        }
    }

    /// Waits for the room that placing the changes of a file takes. Whoever asks does not hold `moving`.
    pub(super) async fn room_for(&self, file: &OpenFile) -> Result<Option<DraftRoom>> {
        if file.is_unlinked() || !file.is_changed().await {
            return Ok(None);
        }
        let Some(draft) = file.content.read().await.draft.clone() else {
            return Ok(None);
        };
        let room = draft.room().await.map_err(Errno::from);
        if matches!(room, Err(Errno(libc::ENOSPC))) {
            file.refused.store(true, Ordering::Release);
        }
        room.map(Some)
    }

    /// Settles a file for whoever holds `moving`, without waiting for room: it takes what is in `room`.
    pub(super) async fn try_settle(&self, file: &OpenFile, why: Why, room: &mut Option<DraftRoom>) -> Result<Settled> {
        if file.is_unlinked() {
            return file.settle_unlinked().await;
        }
        if !file.is_changed().await {
            return Ok(Settled::Done);
        }
        let _placing = file.placing.lock().await;
        if file.is_unlinked() {
            return file.settle_unlinked().await;
        }
        let Some(draft) = file.content.read().await.draft.clone() else {
            return Ok(Settled::Done);
        };
        if !file.is_changed().await {
            return Ok(Settled::Done);
        }
        loop {
            let Ok(path) = self.path(file.node) else {
                self.take_name(file);
                return file.settle_unlinked().await;
            };
            match self.place(file, &draft, &path, (why, &mut *room)).await {
                Err(error) if matches!(error.kind(), ErrorKind::Aborted | ErrorKind::NotFound) => {
                    if self.has_moved(file, &path).await {
                        continue;
                    }
                    // It is not known here yet what the other door did, or it was taken for our own doing.
                    tracing::warn!(%path, %error, "changes of a file have no place any more");
                    self.take_name(file);
                    self.forget_name(file.node);
                    return Err(Errno(libc::ESTALE));
                }
                settled => return Ok(settled?),
            }
        }
    }

    /// Whether another door has given a file another name than `before`. It may have done so a moment ago, and tell of it in the next.
    async fn has_moved(&self, file: &OpenFile, before: &Path) -> bool {
        for _ in 0..MOVE_LOOKS_MAX {
            match self.path(file.node) {
                Ok(now) if now != *before => return true,
                Ok(_) if !file.is_unlinked() => tokio::time::sleep(MOVE_PAUSE).await,
                _ => return false,
            }
        }
        false
    }

    async fn place(
        &self,
        file: &OpenFile,
        draft: &Arc<Draft>,
        path: &Path,
        (why, room): (Why, &mut Option<DraftRoom>),
    ) -> Result<Settled, Error> {
        let small = draft.is_small().await;
        let often = file.large_placements.load(Ordering::Relaxed) >= LARGE_PLACEMENTS_MAX;
        let how = file.how();
        // What the under-store is to have is placed.
        let stays = self.cache.ack_level_at(path) != AckLevel::Persisted;
        if !small && stays && (why == Why::Sync || (why == Why::Close && often)) {
            draft.sync(path, how).await?;
            return Ok(Settled::Done);
        }
        let own = self.begin_own(path);
        let tried = match small {
            true => draft.place(path, how, room).await?,
            false => TriedPlace::Large,
        };
        if tried == TriedPlace::NoRoom {
            return Ok(Settled::NoRoom);
        }
        if tried == TriedPlace::Large {
            let mut content = file.content.write().await;
            file.large_placements.fetch_add(1, Ordering::Relaxed);
            content.reader = Some(draft.finish(path, how).await?);
            content.draft = None;
        }
        drop(own);
        self.placed(file, draft, how);
        Ok(Settled::Done)
    }

    /// Another door has taken the name of an open file.
    fn take_name(&self, file: &OpenFile) {
        let mut tree = self.tree.lock();
        file.take_name(tree.get(file.node).and_then(Node::left));
        tree.unlink(file.node);
    }

    /// The name of `file` leads to what was in `draft`.
    fn placed(&self, file: &OpenFile, draft: &Draft, how: PlaceDraft) {
        let mut tree = self.tree.lock();
        if let Some(node) = tree.get_mut(file.node) {
            node.row = draft.placed_ino();
            if let Some(stat) = &*file.apart.lock() {
                node.shown = Shown::of(stat, draft.size());
            }
            if let Some(shown) = &mut node.shown {
                shown.placed(draft.size(), how.mtime, how.ctime);
            }
        }
        tree.mark_placed(file.node);
        drop(tree);
        let mut apart = file.apart.lock();
        if !file.is_unlinked() {
            *apart = None;
        }
        let mut times = file.times.lock();
        if times.mtime == how.mtime {
            *times = Times::default();
        }
    }

    pub(super) fn handle(&self, handle: u64) -> Result<Handle> {
        self.handles
            .get(&handle)
            .map(|handle| handle.clone())
            .ok_or(Errno(libc::EBADF))
    }
}
