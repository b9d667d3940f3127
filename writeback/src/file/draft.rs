//! A file's content while it is changed in place, for programs that write anywhere in a file.
//!
//! 1. *Small*: the bytes are in memory. It is durable once it is placed.
//! 2. *Large*, past [`SMALL_BYTES_MAX`] or when memory for drafts is taken: in a segment of its own that is not sealed yet.
//!    [`Draft::sync`] makes it durable where it lies; a row then says whose content it becomes, so that the next start places what a
//!    crash left.
//! 3. *Placed*: the name leads to its content, which others see whole. A small draft can be changed and placed again; a large one has
//!    ended, because its bytes are the content now, and a content is never changed.
//!
//! It does not own names, nor when something is placed.

use super::{
    Committed, ContentWriter, FileReader, SealedContent, WriteFile, WriteMode,
    dirty::Reservation,
    place::{GENERATION, Ground, Target, Tried},
};
use crate::{
    Cache, Error, ErrorKind, Mismatch, Result,
    cache::Inner,
    changes::Change,
    rows::{self, Content, DraftRow, draft_key, table},
};
use bytes::Bytes;
use forebay_metastore::{Announced, prefix_end};
use forebay_namespace::{Create, Ino, Path};
use forebay_runtime::{
    budget::{Budget, Permit},
    clock::Timestamp,
};
use forebay_segment::{Draft as SegmentDraft, RecoveredStream, StreamId};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{Mutex, RwLock};

/// A draft up to this lies in memory.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Bytes of all small drafts.
const MEMORY_BYTES_MAX: u64 = 128 << 20;
/// Bytes in flight of one copy.
const PIECE_BYTES: u64 = 1 << 20;
/// Rows of drafts read at once.
const ROWS_PAGE: usize = 512;

/// Memory of small drafts.
#[derive(Debug)]
pub(crate) struct Drafts {
    memory: Budget,
}

impl Default for Drafts {
    fn default() -> Self {
        Self {
            memory: Budget::new("drafts", MEMORY_BYTES_MAX),
        }
    }
}

/// What a file is to be like when a draft takes its name; what is `None` stays as it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaceDraft {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Last content change; `None`: now.
    pub mtime: Option<Timestamp>,
    /// Last change of any kind; `None`: now.
    pub ctime: Option<Timestamp>,
}

/// A content that is changed in place. Dropped, it leaves nothing behind, unless it was synced: then the next start finds it.
#[derive(Debug)]
pub struct Draft {
    inner: Arc<Inner>,
    /// The inode number of its first content.
    ino: Ino,
    ino_used: AtomicBool,
    body: RwLock<Body>,
    len: AtomicU64,
    /// Counts changes, and how many of them were placed.
    changes: AtomicU64,
    placed: AtomicU64,
    placed_ino: AtomicU64,
}

#[derive(Debug)]
enum Body {
    Small(Small),
    Large(Large),
    Ended,
}

#[derive(Debug)]
struct Small {
    bytes: Vec<u8>,
    memory: Permit,
}

#[derive(Debug)]
struct Large {
    file: SegmentDraft,
    reservation: Mutex<Reservation>,
    noted: AtomicBool,
}

impl Cache {
    /// Begins a draft with the first `keep` bytes of `from`.
    pub async fn draft(&self, from: Option<&FileReader>, keep: u64) -> Result<Draft> {
        let ino = self.inner.fresh_ino().await?;
        let draft = self.inner.empty_draft(ino);
        if let Some(from) = from {
            draft.load(from, keep.min(from.size())).await?;
            draft.changes.store(0, Ordering::Relaxed);
        }
        Ok(draft)
    }
}

impl Inner {
    fn empty_draft(self: &Arc<Self>, ino: Ino) -> Draft {
        let memory = self.files.drafts.memory.force(0);
        Draft {
            inner: Arc::clone(self),
            ino,
            ino_used: AtomicBool::new(false),
            body: RwLock::new(Body::Small(Small {
                bytes: Vec::new(),
                memory,
            })),
            len: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            placed: AtomicU64::new(0),
            placed_ino: AtomicU64::new(0),
        }
    }
}

impl Draft {
    /// The inode number that its file gets with its first content.
    pub fn ino(&self) -> u64 {
        self.ino.0
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether it has changes that were not placed.
    pub fn is_changed(&self) -> bool {
        self.changes.load(Ordering::Acquire) != self.placed.load(Ordering::Acquire)
    }

    /// Whether it lies in memory: then placing it is what makes it durable.
    pub async fn is_small(&self) -> bool {
        matches!(&*self.body.read().await, Body::Small(_))
    }

    /// Fills `buffer` with the bytes from `offset` on; answers how many there were before the end.
    pub async fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &*self.body.read().await {
            Body::Small(small) => Ok(small.read(offset, buffer)),
            Body::Large(large) => Ok(large.file.read_at(buffer, offset)?),
            Body::Ended => Err(ended()),
        }
    }

    /// Writes `data` at `offset`, with zeros before it where there was nothing. Waits at the dirty limit.
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.checked_add(data.len() as u64).ok_or_else(too_large)?;
        self.change(
            end,
            |small| small.write(offset, data),
            |large| Ok(large.file.write_at(data, offset)?),
        )
        .await?;
        self.len.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    /// Cuts it, or extends it with zeros.
    pub async fn set_len(&self, len: u64) -> Result<()> {
        self.change(
            len,
            |small| small.bytes.resize(to_usize(len), 0),
            |large| Ok(large.file.set_len(len)?),
        )
        .await?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    /// Extends it with zeros to hold `range`, for which room is kept.
    pub async fn allocate(&self, range: Range<u64>) -> Result<()> {
        let end = range.end.max(self.size());
        let extend = |small: &mut Small| small.bytes.resize(to_usize(end), 0);
        self.change(end, extend, |large| Ok(large.file.allocate(range.clone())?))
            .await?;
        self.len.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    /// Puts zeros into `range`, up to the end.
    pub async fn punch(&self, range: Range<u64>) -> Result<()> {
        let range = range.start.min(self.size())..range.end.min(self.size());
        let zero = |small: &mut Small| small.bytes[to_usize(range.start)..to_usize(range.end)].fill(0);
        self.change(self.size(), zero, |large| Ok(large.file.punch(range.clone())?))
            .await
    }

    /// One change, after which the content is at least `end` long while it happens.
    async fn change(&self, end: u64, small: impl Fn(&mut Small), large: impl Fn(&Large) -> Result<()>) -> Result<()> {
        let fits = self.inner.dirty.check_size(end);
        fits.map_err(|error| error.because(Mismatch::TooLarge))?;
        loop {
            match &*self.body.read().await {
                Body::Large(body) => {
                    body.reserve(&self.inner, end).await?;
                    large(body)?;
                    self.changes.fetch_add(1, Ordering::AcqRel);
                    return Ok(());
                }
                Body::Ended => return Err(ended()),
                Body::Small(_) => {}
            }
            let mut body = self.body.write().await;
            let Body::Small(content) = &mut *body else { continue };
            if content.make_room(&self.inner.files.drafts.memory, end) {
                small(content);
                self.changes.fetch_add(1, Ordering::AcqRel);
                return Ok(());
            }
            let enlarged = self.enlarge(content).await?;
            *body = Body::Large(enlarged);
        }
    }

    /// A segment with what was in memory.
    async fn enlarge(&self, small: &Small) -> Result<Large> {
        let len = small.bytes.len() as u64;
        let reservation = self.inner.dirty.reserve(len).await?;
        let file = self
            .inner
            .segments
            .draft(StreamId(self.take_ino().await?.0, GENERATION))?;
        if let Err(error) = file.write_at(&small.bytes, 0) {
            file.discard();
            return Err(error.into());
        }
        Ok(Large {
            file,
            reservation: Mutex::new(reservation),
            noted: AtomicBool::new(false),
        })
    }

    /// A number for the next content: never used before.
    async fn take_ino(&self) -> Result<Ino> {
        match self.ino_used.swap(true, Ordering::AcqRel) {
            false => Ok(self.ino),
            true => self.inner.fresh_ino().await,
        }
    }

    async fn load(&self, from: &FileReader, keep: u64) -> Result<()> {
        // What does not fit into memory goes where it will lie from the beginning.
        self.set_len(keep).await?;
        let mut at = 0;
        while at < keep {
            let end = keep.min(at + PIECE_BYTES);
            for chunk in from.read(at..end).await? {
                self.write(at, &chunk).await?;
                at += chunk.len() as u64;
            }
        }
        Ok(())
    }

    /// Makes a large draft durable where it lies; a small one is to be placed instead. `path` is the name that its content is for.
    pub async fn sync(&self, path: &Path, how: PlaceDraft) -> Result<()> {
        let body = self.body.read().await;
        let Body::Large(large) = &*body else {
            return Err(Error::internal(format!(
                "{path}: a draft in memory is placed, not synced"
            )));
        };
        large.file.sync().await?;
        self.inner
            .reach(forebay_runtime::crash_point!("draft-synced-not-noted"))?;
        if !large.noted.load(Ordering::Acquire) {
            self.inner.note_draft(path, large.file.stream(), how).await?;
            large.noted.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Gives a small draft's content the name `path`, durably: others see it whole. False: it is large, and to be [`Draft::finish`]ed.
    pub async fn place(self: &Arc<Self>, path: &Path, how: PlaceDraft) -> Result<bool> {
        let changes = self.changes.load(Ordering::Acquire);
        let Some(bytes) = self.bytes().await else {
            return Ok(false);
        };
        let (draft, path) = (Arc::clone(self), path.clone());
        self.inner
            .to_the_end("place-draft", async move { draft.place_bytes(&path, how, bytes).await })
            .await?;
        self.placed.fetch_max(changes, Ordering::AcqRel);
        Ok(true)
    }

    async fn place_bytes(&self, path: &Path, how: PlaceDraft, bytes: Bytes) -> Result<Committed> {
        self.inner.check_writable(path)?;
        let ino = self.take_ino().await?;
        let content = self.inner.content_of(ino, bytes).await?;
        let committed = self
            .inner
            .commit_file(content, self.inner.draft_target(path, how))
            .await?;
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
        self.inner.check_writable(path)?;
        let mut body = self.body.write().await;
        let Body::Large(large) = &*body else {
            return Err(ended());
        };
        let (layout, crc) = large.file.seal().await?;
        let Body::Large(large) = std::mem::replace(&mut *body, Body::Ended) else {
            return Err(ended());
        };
        let stream = large.file.stream();
        let reservation = large.reservation.into_inner();
        let sealed = self.inner.sealed_content(stream, layout, crc, reservation);
        let reader = self.inner.read_sealed(path.to_string(), &sealed)?;
        let noted = large.noted.into_inner();
        self.inner.place_sealed(path, how, sealed, noted).await?;
        self.placed_ino.store(stream.0, Ordering::Release);
        Ok(reader)
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

    /// Gives it up: nobody has a name for it any more.
    pub async fn discard(&self) {
        let body = std::mem::replace(&mut *self.body.write().await, Body::Ended);
        let Body::Large(large) = body else { return };
        let stream = large.file.stream();
        large.file.discard();
        if large.noted.into_inner()
            && let Err(error) = self.inner.forget_draft(stream).await
        {
            tracing::warn!(%error, "the row of a draft stays until the next start");
        }
    }
}

impl Small {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let from = to_usize(offset.min(self.bytes.len() as u64));
        let count = buffer.len().min(self.bytes.len() - from);
        buffer[..count].copy_from_slice(&self.bytes[from..from + count]);
        count
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (from, end) = (to_usize(offset), to_usize(offset) + data.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[from..end].copy_from_slice(data);
    }

    /// Whether `end` bytes may lie in memory.
    fn make_room(&mut self, memory: &Budget, end: u64) -> bool {
        if end > SMALL_BYTES_MAX {
            return false;
        }
        let more = end.saturating_sub(self.memory.bytes());
        match memory.try_acquire(more) {
            Some(permit) => {
                self.memory.merge(permit);
                true
            }
            None => false,
        }
    }
}

impl Large {
    async fn reserve(&self, inner: &Inner, end: u64) -> Result<()> {
        let mut reservation = self.reservation.lock().await;
        let more = end.saturating_sub(reservation.held());
        if more > 0 {
            reservation.join(inner.dirty.reserve(more).await?);
        }
        Ok(())
    }
}

impl Inner {
    fn draft_target(&self, path: &Path, how: PlaceDraft) -> Target {
        Target {
            path: path.clone(),
            how: WriteFile {
                mode: WriteMode::Overwrite,
                mode_bits: how.mode,
                owner: how.owner,
                mtime: how.mtime,
                ctime: how.ctime,
                ..WriteFile::default()
            },
            level: self.settings.ack,
            ground: Ground::Any,
            note: None,
        }
    }

    async fn content_of(self: &Arc<Self>, ino: Ino, bytes: Bytes) -> Result<ContentWriter> {
        let mut content = self.content_writer(ino, GENERATION, Some(bytes.len() as u64));
        if !bytes.is_empty() {
            content.append(&[bytes], Bytes::new()).await?;
        }
        Ok(content)
    }

    /// Gives a sealed draft its name.
    async fn place_sealed(
        self: &Arc<Self>,
        path: &Path,
        how: PlaceDraft,
        sealed: SealedContent,
        noted: bool,
    ) -> Result<()> {
        let _entered = self.enter()?;
        let mut target = self.draft_target(path, how);
        target.note = noted.then(|| draft_key(sealed.stream().0));
        let turn = self.files.turns.take(path).await;
        let mut attempts = self.attempts(format!("write {path}"));
        loop {
            match self.try_place(&target, &sealed).await {
                Ok(Tried::Done { replaced }) => {
                    self.written(sealed, replaced);
                    drop(turn);
                    self.tell(Change::Name(path.clone())).await;
                    return Ok(());
                }
                Ok(Tried::Moved | Tried::Repeated(_)) => attempts.after(Error::lost()).await?,
                Err(error) if error.kind() == ErrorKind::Deadline => {
                    sealed.in_doubt();
                    return Err(error);
                }
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
        planner
            .update(ino, |inode| {
                inode.size = sealed.len;
                inode.mode = how.mode_bits.unwrap_or(inode.mode);
                (inode.uid, inode.gid) = how.owner.unwrap_or((inode.uid, inode.gid));
                inode.mtime = how.mtime.unwrap_or(inode.ctime);
                inode.ctime = how.ctime.unwrap_or(inode.ctime);
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
        self.commit(plan).await?;
        Ok(Tried::Done { replaced: None })
    }

    /// Writes down whose content a synced draft becomes. A name without content gets a row, of a file that is being written.
    async fn note_draft(&self, path: &Path, stream: StreamId, how: PlaceDraft) -> Result<()> {
        let mut attempts = self.attempts(format!("sync {path}"));
        loop {
            match self.try_note_draft(path, stream, how).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn try_note_draft(&self, path: &Path, stream: StreamId, how: PlaceDraft) -> Result<()> {
        let mut planner = self.names.planner();
        let over = match planner.resolve(path).await? {
            Some(_) => planner.adopt(path).await?.0,
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
                planner.create(path, create).await?.ino
            }
        };
        let mut plan = planner.finish()?;
        plan.put(draft_key(stream.0), rows::encode(&DraftRow { over: over.0 }));
        self.commit(plan).await?;
        Ok(())
    }

    async fn forget_draft(&self, stream: StreamId) -> Result<()> {
        let mut plan = self.names.planner().finish()?;
        plan.delete(draft_key(stream.0));
        self.commit(plan).await?;
        Ok(())
    }

    /// Places what a crash left of synced drafts. Answers the streams that stay because of them.
    pub(crate) async fn recover_drafts(
        self: &Arc<Self>,
        streams: &mut HashMap<StreamId, RecoveredStream>,
    ) -> Result<HashSet<StreamId>> {
        let mut kept = HashSet::new();
        loop {
            let prefix = [table::DRAFT];
            let range = Bytes::copy_from_slice(&prefix)..prefix_end(&prefix);
            let page = self.components.meta.scan(range, ROWS_PAGE).await?;
            if page.is_empty() {
                return Ok(kept);
            }
            for (key, entry) in page {
                let number = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
                let number = number.ok_or_else(|| Error::data_loss("metastore: a draft's key makes no sense"))?;
                let stream = StreamId(number, GENERATION);
                let row: DraftRow = rows::decode(&entry.value)?;
                kept.extend(self.recover_draft(stream, row, streams.remove(&stream)).await?);
            }
        }
    }

    /// Answers the stream if it is a file's content now. The row is gone afterwards.
    async fn recover_draft(
        self: &Arc<Self>,
        stream: StreamId,
        row: DraftRow,
        found: Option<RecoveredStream>,
    ) -> Result<Option<StreamId>> {
        let path = self.names.path_of(Ino(row.over)).await?;
        let (Some(path), Some(found)) = (path, found) else {
            tracing::warn!(%stream, "a draft belongs to a file that is gone");
            self.forget_draft(stream).await?;
            return Ok(None);
        };
        let sealed = if found.draft {
            let (layout, crc) = self.segments.resume_draft(stream, found)?.seal().await?;
            let reservation = self.dirty.take(layout.len());
            self.sealed_content(stream, layout, crc, reservation)
        } else {
            // The crash came between its seal and the commit that was to name it.
            self.resume_content(stream, found)?.seal().await?
        };
        self.place_sealed(&path, PlaceDraft::default(), sealed, true).await?;
        tracing::info!(%path, "went on with a file that was being written");
        Ok(Some(stream))
    }
}

fn ended() -> Error {
    Error::internal("a draft whose content was placed is changed no more")
}

fn too_large() -> Error {
    Error::invalid("a file can not be that large")
}

/// An offset within a draft in memory.
fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).expect("what lies in memory has offsets that fit")
}
