//! Giving a draft's content its name, and writing down that it will have one.
//!
//! A placement that fails leaves the draft as it is, its bytes too: they may have been synced, and it can be tried again.

use super::{AwaitedRow, Body, Draft, DraftRoom, PlaceDraft, ended};
use crate::{
    Error, Result,
    cache::Inner,
    changes::Change,
    file::{
        Committed, ContentWriter, FileReader, SealedContent, WriteFile, WriteMode,
        place::{GENERATION, Ground, Seen, Target, Tried},
    },
    policy::Adds,
    rows::{self, Content, DraftRow, draft_key},
};
use bytes::Bytes;
use forebay_metastore::Announced;
use forebay_namespace::{Create, Ino, Path};
use forebay_segment::StreamId;
use std::sync::{Arc, atomic::Ordering};

/// How [`Draft::place`] ended, where it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriedPlace {
    /// The name leads to its content.
    Placed,
    /// It has more bytes than there is room for: ask for [`Draft::room`] again.
    NoRoom,
    /// It is large, and to be [`Draft::finish`]ed.
    Large,
}

impl Draft {
    /// Makes a large draft durable where it lies; a small one is to be placed instead. `path` is the name that its content is for.
    pub async fn sync(&self, path: &Path, how: PlaceDraft) -> Result<()> {
        let body = self.body.read().await;
        let Body::Large(large) = &*body else {
            return Err(Error::internal(format!(
                "{path}: a draft in memory is placed, not synced"
            )));
        };
        let bytes = self.size();
        large.file.sync().await?;
        self.inner
            .reach(forebay_runtime::crash_point!("draft-synced-not-noted"))?;
        if large.noted.get().is_none() {
            let (over, awaited) = self
                .inner
                .note_draft(path, large.file.stream(), how, &self.ground())
                .await?;
            self.stands_on(over);
            // Two that sync at once note the same.
            let _ = large.noted.set(awaited);
        }
        large.promised.set(bytes);
        Ok(())
    }

    /// Gives a small draft's content the name `path`, durably: others see it whole. It waits for no room, but takes what is in `room`,
    /// also when it fails.
    pub async fn place(
        self: &Arc<Self>,
        path: &Path,
        how: PlaceDraft,
        room: &mut Option<DraftRoom>,
    ) -> Result<TriedPlace> {
        let changes = self.changes.load(Ordering::Acquire);
        let Some(bytes) = self.bytes().await else {
            return Ok(TriedPlace::Large);
        };
        let enough = |room: &mut DraftRoom| room.0.held() >= bytes.len() as u64;
        let room = match room.take_if(enough) {
            None if !bytes.is_empty() => return Ok(TriedPlace::NoRoom),
            room => room,
        };
        let (draft, path) = (Arc::clone(self), path.clone());
        self.inner
            .to_the_end("place-draft", async move {
                draft.place_bytes(&path, how, bytes, room).await
            })
            .await?;
        self.placed.fetch_max(changes, Ordering::AcqRel);
        Ok(TriedPlace::Placed)
    }

    async fn place_bytes(
        &self,
        path: &Path,
        how: PlaceDraft,
        bytes: Bytes,
        room: Option<DraftRoom>,
    ) -> Result<Committed> {
        self.inner.check_not_read_only(path)?;
        let ino = self.take_ino().await?;
        let content = self.inner.content_of(ino, bytes, room).await?;
        let (committed, _) = self
            .inner
            .commit_file(content, self.inner.draft_target(path, how, self.ground()))
            .await?;
        self.stands_on(StreamId(ino.0, GENERATION));
        self.placed_ino.store(ino.0, Ordering::Release);
        Ok(committed)
    }

    /// Ends a large draft: its content gets the name `path`, durably, and is answered.
    pub async fn finish(self: &Arc<Self>, path: &Path, how: PlaceDraft) -> Result<FileReader> {
        let (draft, path) = (Arc::clone(self), path.clone());
        self.inner
            .to_the_end("finish-draft", async move { draft.finish_now(&path, how).await })
            .await
    }

    async fn finish_now(&self, path: &Path, how: PlaceDraft) -> Result<FileReader> {
        self.inner.check_not_read_only(path)?;
        let mut body = self.body.write().await;
        let Body::Large(large) = &mut *body else {
            return Err(ended());
        };
        let (layout, crc) = large.file.seal().await?;
        let stream = large.file.stream();
        let taken = std::mem::replace(large.reservation.get_mut(), self.inner.dirty.take(0));
        let sealed = self.inner.sealed_content(stream, layout, crc, taken);
        let reader = self.inner.read_sealed(path.to_string(), &sealed);
        let mut unplaced = Some(sealed);
        let placed = match &reader {
            Ok(_) => {
                let mut target = self.inner.draft_target(path, how, self.ground());
                target.note = large.noted.get().map(|_| draft_key(stream.0));
                self.inner.place_sealed(&target, &mut unplaced).await
            }
            Err(error) => Err(error.clone()),
        };
        if let Some(sealed) = unplaced {
            // Its bytes may be promised to somebody: they stay, and the next try finds them as they are.
            *large.reservation.get_mut() = sealed.take_back();
        }
        placed?;
        *body = Body::Ended;
        self.placed_ino.store(stream.0, Ordering::Release);
        reader
    }

    fn ground(&self) -> Ground {
        Ground::Unchanged(self.ground.lock().clone())
    }

    /// Its name leads to this content, and the next placement takes its place.
    fn stands_on(&self, content: StreamId) {
        let row = self.inner.files.drafts.awaiting(Ino(content.0));
        *self.ground.lock() = Some(Seen {
            identity: content.to_string(),
            in_store: None,
            _row: Some(Arc::new(row)),
        });
    }

    /// The inode number of the content that was placed last; 0 before the first.
    pub fn placed_ino(&self) -> u64 {
        self.placed_ino.load(Ordering::Acquire)
    }

    /// Its bytes, when it is small.
    async fn bytes(&self) -> Option<Bytes> {
        match &*self.body.read().await {
            Body::Small(small) => Some(Bytes::copy_from_slice(&small.bytes)),
            _ => None,
        }
    }
}

impl Inner {
    pub(super) fn draft_target(&self, path: &Path, how: PlaceDraft, ground: Ground) -> Target {
        Target {
            path: path.clone(),
            how: WriteFile {
                mode: WriteMode::Overwrite,
                // Its directory was there when it was begun: it was removed since, or is elsewhere now.
                needs_directory: true,
                mode_bits: how.mode,
                owner: how.owner,
                mtime: how.mtime,
                ctime: how.ctime,
                ..WriteFile::default()
            },
            level: self.ack_level_at(path),
            ground,
            note: None,
        }
    }

    async fn content_of(self: &Arc<Self>, ino: Ino, bytes: Bytes, room: Option<DraftRoom>) -> Result<ContentWriter> {
        let mut content = self.content_writer(ino, GENERATION, Some(bytes.len() as u64));
        if let Some(DraftRoom(mut room)) = room.filter(|_| !bytes.is_empty()) {
            room.shrink_to(bytes.len() as u64);
            content.append_within(room, &[bytes], Bytes::new()).await?;
        }
        Ok(content)
    }

    /// Gives a sealed draft its name. It is taken out of `unplaced` when it has it.
    pub(super) async fn place_sealed(
        self: &Arc<Self>,
        target: &Target,
        unplaced: &mut Option<SealedContent>,
    ) -> Result<()> {
        let _entered = self.enter()?;
        let sealed = unplaced.as_ref().expect("it is given to be placed");
        let path = &target.path;
        let turn = self.files.turns.take(path).await;
        let mut attempts = self.attempts(format!("write {path}"));
        loop {
            match self.try_place(target, sealed).await {
                Ok(Tried::Done { replaced }) => {
                    if let Some(sealed) = unplaced.take() {
                        self.written(sealed, replaced);
                    }
                    drop(turn);
                    self.tell(Change::Name(path.clone())).await;
                    return Ok(());
                }
                Ok(Tried::Moved | Tried::Repeated(_)) => attempts.after(Error::lost()).await?,
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn try_place(&self, target: &Target, sealed: &SealedContent) -> Result<Tried> {
        let ino = Ino(sealed.stream().0);
        match self.names.inode(ino).await? {
            Some(_) => self.try_finish(target, sealed, ino).await,
            None => self.try_write(target, sealed, Announced::default()).await,
        }
    }

    /// The row that a sync made for a file without content gets its content.
    async fn try_finish(&self, target: &Target, sealed: &SealedContent, ino: Ino) -> Result<Tried> {
        let mut planner = self.names.planner();
        let path = planner.pin_path(ino).await?;
        let path = path.ok_or_else(|| Error::not_found(format!("{}: was removed meanwhile", target.path)))?;
        let how = &target.how;
        let mut before = Adds::default();
        let mut owner = 0;
        planner
            .update(ino, |inode| {
                before = Adds::file(inode.uid, inode.size);
                inode.size = sealed.len;
                inode.mode = how.mode_bits.unwrap_or(inode.mode);
                (inode.uid, inode.gid) = how.owner.unwrap_or((inode.uid, inode.gid));
                inode.mtime = how.mtime.unwrap_or(inode.ctime);
                inode.ctime = how.ctime.unwrap_or(inode.ctime);
                owner = inode.uid;
            })
            .await?;
        let mut plan = planner.finish()?;
        let work = self.persist.plan_put(&mut plan, ino, GENERATION, &path, None).await?;
        let content = Content::Sealed {
            layout: sealed.layout.clone(),
            work,
            crc: sealed.crc,
        }
        .encode();
        plan.amend(ino, |inode| inode.content = content)?;
        if let Some(note) = &target.note {
            plan.delete(note.clone());
        }
        // The row itself counts already.
        let grown = Adds::file(owner, sealed.len).minus(before);
        let share = self.take_share(&path, &grown).await?;
        self.commit_with(plan, share).await?;
        Ok(Tried::Done { replaced: None })
    }

    /// Writes down whose content a synced draft becomes. A name without content gets a row, of a file that is being written.
    /// Answers what the name leads to then.
    async fn note_draft(
        &self,
        path: &Path,
        stream: StreamId,
        how: PlaceDraft,
        ground: &Ground,
    ) -> Result<(StreamId, AwaitedRow)> {
        let mut attempts = self.attempts(format!("sync {path}"));
        loop {
            match self.try_note_draft(path, stream, how, ground).await {
                Ok(noted) => return Ok(noted),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn try_note_draft(
        &self,
        path: &Path,
        stream: StreamId,
        how: PlaceDraft,
        ground: &Ground,
    ) -> Result<(StreamId, AwaitedRow)> {
        let mut planner = self.names.planner();
        let there = planner.resolve(path).await?;
        if let Ground::Unchanged(seen) = ground {
            self.check_unchanged(path, seen.as_ref(), there.as_ref())?;
        }
        let over = match there {
            Some(_) => {
                let (ino, inode) = planner.adopt(path).await?;
                // Written anew as it is: an eviction that has not seen that it is awaited does not find it as it was.
                planner.update(ino, |row| row.ctime = inode.ctime).await?;
                StreamId(ino.0, inode.generation)
            }
            None => {
                let (uid, gid) = how.owner.unwrap_or_default();
                let create = Create {
                    mode: how.mode.unwrap_or(0o644) & 0o7777,
                    uid,
                    gid,
                    content: Content::Open.encode(),
                    generation: GENERATION,
                    ino: Some(Ino(stream.0)),
                    ..Create::default()
                };
                StreamId(planner.create(path, create).await?.ino.0, GENERATION)
            }
        };
        let awaited = self.files.drafts.awaiting(Ino(over.0));
        let mut plan = planner.finish()?;
        plan.put(draft_key(stream.0), rows::encode(&DraftRow { over: over.0 }));
        self.commit(plan).await?;
        Ok((over, awaited))
    }

    pub(super) async fn forget_draft(&self, stream: StreamId) -> Result<()> {
        let mut plan = self.names.planner().finish()?;
        plan.delete(draft_key(stream.0));
        self.commit(plan).await?;
        Ok(())
    }
}
