//! A file's content while it is changed in place, for programs that write anywhere in a file.
//!
//! 1. *Small*: the bytes are in memory. It is durable once it is placed.
//! 2. *Large*, past [`SMALL_BYTES_MAX`] or when memory for drafts is taken: in a segment of its own that is not sealed yet.
//!    [`Draft::sync`] makes it durable where it lies; a row then says whose content it becomes, so that the next start places what a
//!    crash left.
//! 3. *Placed*: the name leads to its content, which others see whole; but only where the name still leads to what the draft was made
//!    of. What another has written there meanwhile stays, and whoever places is told (Aborted). A small
//!    draft can be changed and placed again; a large one has ended, because its bytes are the content now, and a content is never changed.
//!
//! It does not own names, nor when something is placed. `place` gives it its name, `recover` does so after a crash.

mod place;
mod recover;

pub use place::TriedPlace;

use super::{
    FileReader,
    copy::PIECE,
    dirty::Reservation,
    place::{GENERATION, Seen},
};
use crate::{Cache, Error, Mismatch, Result, cache::Inner};
use forebay_namespace::Ino;
use forebay_runtime::{
    budget::{Budget, Permit},
    clock::Timestamp,
};
use forebay_segment::{Draft as SegmentDraft, StreamId};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::RwLock;

/// A draft up to this lies in memory.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Bytes of all small drafts.
const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// What all drafts share.
#[derive(Debug)]
pub(crate) struct Drafts {
    /// Memory of the small ones.
    memory: Budget,
    /// Rows whose content synced drafts become, and those by which contents are found again that were seen at their names; how often.
    awaited: Arc<Mutex<HashMap<Ino, u64>>>,
    /// Bytes of those that were synced and have no place yet.
    promised: Arc<AtomicU64>,
}

impl Default for Drafts {
    fn default() -> Self {
        Self {
            memory: Budget::new("drafts", MEMORY_BYTES_MAX),
            awaited: Arc::default(),
            promised: Arc::default(),
        }
    }
}

impl Drafts {
    /// Bytes that were promised to survive a power cut and have no place yet: the ledger does not know them.
    pub(crate) fn promised_bytes(&self) -> u64 {
        self.promised.load(Ordering::Relaxed)
    }

    /// Whether the row stays although the under-store shows the same.
    pub(crate) fn awaits(&self, ino: Ino) -> bool {
        self.awaited.lock().contains_key(&ino)
    }

    /// For as long as the answer lives.
    pub(super) fn awaiting(&self, ino: Ino) -> AwaitedRow {
        *self.awaited.lock().entry(ino).or_default() += 1;
        AwaitedRow {
            awaited: Arc::clone(&self.awaited),
            ino,
        }
    }
}

/// A row that stays, whatever the under-store shows at its name, for as long as this lives.
#[derive(Debug)]
pub(super) struct AwaitedRow {
    awaited: Arc<Mutex<HashMap<Ino, u64>>>,
    ino: Ino,
}

impl Drop for AwaitedRow {
    fn drop(&mut self) {
        let mut awaited = self.awaited.lock();
        match awaited.get_mut(&self.ino) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(awaited.remove(&self.ino)),
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
    /// The content that its name has to lead to when it is placed; `None`: to nothing.
    ground: Mutex<Option<Seen>>,
    body: RwLock<Body>,
    /// Held by the change that waits for room.
    growing: tokio::sync::Mutex<()>,
    len: AtomicU64,
    /// Counts changes, and how many of them were placed.
    changes: AtomicU64,
    placed: AtomicU64,
    placed_ino: AtomicU64,
}

/// Room under the dirty limit for what a small draft has, so that placing it waits for none.
#[derive(Debug)]
pub struct DraftRoom(Reservation);

/// How one try to change it ended.
#[derive(Debug)]
enum Tried {
    Done,
    /// So many bytes more have to be taken first.
    Without(u64),
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
    /// Set once it is written down whose content it becomes: its bytes are promised then.
    noted: OnceLock<AwaitedRow>,
    promised: Promised,
}

/// How many bytes of a draft are promised. Dropped, none are: they have a place, or nobody wants them.
#[derive(Debug)]
struct Promised {
    of: Arc<AtomicU64>,
    bytes: AtomicU64,
}

impl Promised {
    fn set(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.of.fetch_add(bytes, Ordering::Relaxed);
        self.of.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Cache {
    /// Begins a draft with the first `keep` bytes of `from`, whose place it is to take; without `from`, of a file that is not there yet.
    pub async fn draft(&self, from: Option<&FileReader>, keep: u64) -> Result<Draft> {
        let ino = self.inner.fresh_ino().await?;
        let draft = self.inner.empty_draft(ino);
        if let Some(from) = from {
            *draft.ground.lock() = Some(from.seen());
            draft.load(from, keep.min(from.size())).await?;
            draft.changes.store(0, Ordering::Relaxed);
        }
        Ok(draft)
    }
}

impl Inner {
    /// The room of a draft that nobody wants.
    fn give_back(&self, file: &SegmentDraft) {
        match file.sealed() {
            // Its content found no place.
            Some(layout) => self.segments.release(file.stream(), &layout),
            None => file.discard(),
        }
    }

    fn empty_draft(self: &Arc<Self>, ino: Ino) -> Draft {
        let memory = self.files.drafts.memory.force(0);
        Draft {
            inner: Arc::clone(self),
            ino,
            ino_used: AtomicBool::new(false),
            ground: Mutex::default(),
            body: RwLock::new(Body::Small(Small {
                bytes: Vec::new(),
                memory,
            })),
            growing: tokio::sync::Mutex::default(),
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

    /// Whether its bytes were promised to survive a power cut while they have no place yet.
    pub async fn is_promised(&self) -> bool {
        matches!(&*self.body.read().await, Body::Large(large) if large.noted.get().is_some())
    }

    /// Waits at the dirty limit for what [`Draft::place`] needs. It holds nobody up meanwhile, and neither should who asks.
    ///
    /// # Errors
    /// Full when nothing became free for long.
    pub async fn room(&self) -> Result<DraftRoom> {
        let bytes = match self.is_small().await {
            true => self.size(),
            // It has taken what it needs.
            false => 0,
        };
        let dirty = &self.inner.dirty;
        let taken = match bytes {
            0 => dirty.take(0),
            _ => dirty.reserve(bytes).await?,
        };
        Ok(DraftRoom(taken))
    }

    /// Whether its content was placed, or given up: it is changed no more.
    pub async fn has_ended(&self) -> bool {
        matches!(&*self.body.read().await, Body::Ended)
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

    /// One change, after which the content is at least `end` long while it happens. Whoever waits for room holds nobody up who reads or
    /// places it.
    async fn change(&self, end: u64, small: impl Fn(&mut Small), large: impl Fn(&Large) -> Result<()>) -> Result<()> {
        let fits = self.inner.dirty.check_size(end);
        fits.map_err(|error| error.because(Mismatch::TooLarge))?;
        let mut room = None;
        if let Tried::Done = self.try_change(end, &small, &large, &mut room).await? {
            return Ok(());
        }
        // One at a time: what one takes the next one need not take.
        let _growing = self.growing.lock().await;
        while let Tried::Without(missing) = self.try_change(end, &small, &large, &mut room).await? {
            drop(room.take());
            room = Some(self.inner.dirty.reserve(missing).await?);
        }
        Ok(())
    }

    async fn try_change(
        &self,
        end: u64,
        small: impl Fn(&mut Small),
        large: impl Fn(&Large) -> Result<()>,
        room: &mut Option<Reservation>,
    ) -> Result<Tried> {
        if !self.is_small().await {
            return self.try_change_large(end, large, room).await;
        }
        let mut body = self.body.write().await;
        let Body::Small(content) = &mut *body else {
            drop(body);
            return self.try_change_large(end, large, room).await;
        };
        if content.make_room(&self.inner.files.drafts.memory, end) {
            small(content);
            self.changes.fetch_add(1, Ordering::AcqRel);
            return Ok(Tried::Done);
        }
        let len = end.max(content.bytes.len() as u64);
        let Some(taken) = room.take_if(|room| room.held() >= len) else {
            return Ok(Tried::Without(len));
        };
        let enlarged = self.enlarge(content, taken).await?;
        *body = Body::Large(enlarged);
        drop(body);
        self.try_change_large(end, large, room).await
    }

    async fn try_change_large(
        &self,
        end: u64,
        large: impl Fn(&Large) -> Result<()>,
        room: &mut Option<Reservation>,
    ) -> Result<Tried> {
        let body = self.body.read().await;
        let Body::Large(content) = &*body else {
            return Err(ended());
        };
        if let Err(missing) = content.take_room(end, room) {
            return Ok(Tried::Without(missing));
        }
        large(content)?;
        self.changes.fetch_add(1, Ordering::AcqRel);
        Ok(Tried::Done)
    }

    /// A segment with what was in memory.
    async fn enlarge(&self, small: &Small, reservation: Reservation) -> Result<Large> {
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
            noted: OnceLock::new(),
            promised: Promised {
                of: Arc::clone(&self.inner.files.drafts.promised),
                bytes: AtomicU64::new(0),
            },
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
            let end = keep.min(at + PIECE);
            for chunk in from.read(at..end).await? {
                self.write(at, &chunk).await?;
                at += chunk.len() as u64;
            }
        }
        Ok(())
    }

    /// Gives it up: nobody has a name for it any more.
    pub async fn discard(&self) {
        let body = std::mem::replace(&mut *self.body.write().await, Body::Ended);
        let Body::Large(large) = body else { return };
        let stream = large.file.stream();
        self.inner.give_back(&large.file);
        if large.noted.get().is_some()
            && let Err(error) = self.inner.forget_draft(stream).await
        {
            tracing::warn!(%error, "the row of a draft stays until the next start");
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let Body::Large(large) = self.body.get_mut() else {
            return;
        };
        match large.noted.take() {
            // What was synced is a file's content to come: the next start goes on with it, and finds its name by the row.
            Some(awaited) => std::mem::forget(awaited),
            None => self.inner.give_back(&large.file),
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
    /// Takes of `room` what is missing to `end` bytes; answers how much that is when `room` has less.
    fn take_room(&self, end: u64, room: &mut Option<Reservation>) -> std::result::Result<(), u64> {
        let mut reservation = self.reservation.lock();
        let missing = end.saturating_sub(reservation.held());
        if missing == 0 {
            return Ok(());
        }
        let mut taken = room.take_if(|room| room.held() >= missing).ok_or(missing)?;
        taken.shrink_to(missing);
        reservation.join(taken);
        Ok(())
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
