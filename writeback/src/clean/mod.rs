//! Clean data: what the under-store holds, read through in ranges and cached within a byte limit; and the eviction of local copies
//! of what was persisted. Dirty bytes are not in its reach at all.
//!
//! An object is read in blocks of [`BLOCK_BYTES`], each fetched once however many wait for it, by (mount, key, validator, block):
//! a block of another version is another block, so bytes of two versions never meet. A block lies in a file of a data folder,
//! without fsync, with its CRC32C in memory; one that does not fit its CRC any more is fetched again. What arrives short or
//! wrong is never kept. Reads that follow each other are fetched ahead, several blocks at once.
//!
//! Blocks and copies of persisted files stand under one limit, `evict` and `pin` of their paths say who makes room for whom (the policy
//! crate's room), and where nobody does, or a scan is not worth it, a block is read past the cache: it is in memory until its readers are
//! through with it (`passing`), and never on a disk. What is loaded is kept wherever there is room. A copy leaves its row first, in a
//! transaction, and then the disk.

mod blocks;
mod evict;
mod load;
mod passing;
mod residence;
mod siblings;
mod tiers;
mod trace;
mod walk;

use self::{
    blocks::{At, BlockId, Blocks, Found, Gone, Held, ObjectId, folder_of},
    load::Loads,
    passing::Passing,
    siblings::Siblings,
    tiers::Tiers,
    trace::Trace,
};
use crate::{
    Components, Error, Result, TierSettings,
    mounts::{Mount, PEEKED_BYTES_MAX, Readers},
    policy::Policies,
};
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use forebay_namespace::{Ino, Path};
use forebay_policy::{evict::Arrival, room::Place};
use forebay_runtime::{
    clock::{ClockRef, Timestamp},
    disk::{DiskRef, OpenHow},
    task::{Tasks, blocking},
};
use forebay_segment::{Layout, SegmentStore, StreamId};
use forebay_understore::{StoreError, Validator};
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, Shared, WeakShared},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    io,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, Semaphore};

pub use load::{FILES_PARALLEL_MAX, LoadJob, LoadSpec, LoadState, Loaded};
pub use residence::{Freed, PinEnd};
pub(crate) use walk::{Datasets, Walk};

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: u64 = 2 << 20;
/// Blocks of one read on their way at once.
const BLOCKS_PARALLEL: usize = 4;
/// Most blocks fetched ahead of a reader.
const AHEAD_MAX: u64 = 8;
/// Blocks fetched ahead at once, of all readers.
const AHEAD_PARALLEL: usize = 16;
/// Longest wait of a load for readers before a block, and how often it looks for them.
const WAY_MAX: Duration = Duration::from_millis(100);
const WAY_LOOK: Duration = Duration::from_millis(5);
/// Copies on their way to faster tiers at once; further ones go another time.
const RAISING_PARALLEL: usize = 8;
/// Folder of the blocks below each data folder and each tier's.
const FOLDER: &str = "clean";

type Fetch = Shared<Fetching>;
type Fetching = BoxFuture<'static, Result<Bytes, StoreError>>;

/// The clean cache. Clones are the same cache.
#[derive(Clone, Debug)]
pub(crate) struct Clean {
    shared: Arc<State>,
}

struct State {
    limit: u64,
    disk: DiskRef,
    clock: ClockRef,
    policies: Policies,
    segments: SegmentStore,
    /// In the order of the segment store's, and then those of the tiers.
    folders: Vec<PathBuf>,
    /// So many of them are data folders.
    data_folders: usize,
    /// The tiers' folders are this process's.
    _locks: Vec<tiers::Lock>,
    blocks: Mutex<Blocks>,
    /// What was said last of a file, as it is said of all others in its directory.
    last_place: Mutex<Option<Arc<Place>>>,
    passing: Mutex<Passing>,
    /// Fetches under way, for those who want the same block.
    flights: Mutex<HashMap<BlockId, WeakShared<Fetching>>>,
    /// Copies that have to leave their rows.
    leaving: Mutex<Vec<(Ino, u32)>>,
    leave: Notify,
    ahead: Semaphore,
    raising: Semaphore,
    reads: AtomicU64,
    hits: AtomicU64,
    bypassed_bytes: AtomicU64,
    loads: Loads,
    siblings: Siblings,
    trace: Trace,
    tasks: OnceLock<Tasks>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clean")
            .field("limit", &self.limit)
            .field("folders", &self.folders)
            .finish_non_exhaustive()
    }
}

/// Why a block is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// A reader reads it.
    Read,
    /// A reader reads on in it.
    GoesOn,
    /// Somebody is about to read it.
    Ahead,
    /// It shall be here.
    Load,
}

impl Why {
    fn is_reader(self) -> bool {
        matches!(self, Why::Read | Why::GoesOn)
    }
}

/// A tier, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub folder: PathBuf,
    /// Most bytes of copies in it.
    pub size_bytes: u64,
    /// Bytes of copies in it.
    pub used_bytes: u64,
    /// Reads of blocks since start that found the copy in it.
    pub hits: u64,
}

/// An object of an under-store, open for reading at one validator.
#[derive(Clone, Debug)]
pub(crate) struct CleanReader {
    pub(crate) mount: Arc<Mount>,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) validator: Validator,
    /// When its content was changed last.
    pub(crate) changed: Timestamp,
}

impl CleanReader {
    fn id(&self) -> ObjectId {
        ObjectId::new(self.mount.id, &self.key, &self.validator)
    }

    /// Bytes of the object: those that came with what was asked of its name, or what its store answers.
    async fn ask(&self, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let Mount {
            store, health, peeks, ..
        } = &*self.mount;
        if *range == (0..self.size)
            && self.size <= PEEKED_BYTES_MAX
            && let Some(bytes) = peeks.take(&self.key, &self.validator)
        {
            return Ok(bytes);
        }
        health.ask(store.read(&self.key, range.clone(), &self.validator)).await
    }

    fn block_range(&self, block: u64) -> Range<u64> {
        let start = block * BLOCK_BYTES;
        start..(start + BLOCK_BYTES).min(self.size)
    }
}

impl Clean {
    /// A cache of at most `limit` bytes, with copies in `tiers` besides.
    pub(crate) fn open(
        components: &Components,
        segments: &SegmentStore,
        policies: &Policies,
        limit: u64,
        tiers: &[TierSettings],
    ) -> Result<Self> {
        let data_folders = segments.folders().count();
        let folders = segments.folders().chain(tiers.iter().map(|tier| tier.dir.clone()));
        let state = State {
            limit,
            _locks: tiers::open(tiers, &components.disk)?,
            disk: components.disk.clone(),
            clock: components.clock.clone(),
            policies: policies.clone(),
            segments: segments.clone(),
            folders: folders.map(|folder| folder.join(FOLDER)).collect(),
            data_folders,
            blocks: Mutex::new(Blocks::new(limit, Tiers::new(data_folders, tiers))),
            last_place: Mutex::default(),
            passing: Mutex::default(),
            flights: Mutex::default(),
            leaving: Mutex::default(),
            leave: Notify::new(),
            ahead: Semaphore::new(AHEAD_PARALLEL),
            raising: Semaphore::new(RAISING_PARALLEL),
            reads: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            bypassed_bytes: AtomicU64::new(0),
            loads: Loads::default(),
            siblings: Siblings::new(limit),
            trace: Trace::default(),
            tasks: OnceLock::new(),
        };
        Ok(Self {
            shared: Arc::new(state),
        })
    }

    /// Exactly `range` of the object: from the cache, or read through (single flight, prefetch when sequential).
    /// Precondition when the object has changed since it was opened; Unavailable within `under_timeout` when the store is away.
    pub(crate) async fn read(&self, object: &CleanReader, range: Range<u64>) -> Result<Vec<Bytes>> {
        let range = range.start..range.end.min(object.size);
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let (first, last) = (range.start / BLOCK_BYTES, (range.end - 1) / BLOCK_BYTES);
        let goes_on = self.shared.blocks.lock().goes_on(&object.id(), range.start);
        let blocks = futures::stream::iter(first..=last).map(|block| async move {
            let begin = block * BLOCK_BYTES;
            // Reads of one block that follow each other are one use of it.
            let why = if goes_on && block == first {
                Why::GoesOn
            } else {
                Why::Read
            };
            let bytes = self.block(object, block, why).await?;
            let start = range.start.max(begin) - begin;
            let end = range.end.min(begin + bytes.len() as u64) - begin;
            if end == bytes.len() as u64 && (start == 0 || why == Why::GoesOn) {
                self.shared.passing.lock().end(&(object.id(), block));
            }
            Ok(bytes.slice(to_usize(start)..to_usize(end)))
        });
        let chunks: Result<Vec<Bytes>, StoreError> = blocks.buffered(BLOCKS_PARALLEL).try_collect().await;
        let chunks = chunks.map_err(|error| unreadable(object, error))?;
        self.fetch_ahead(object, &range, last);
        Ok(chunks)
    }

    /// Fetches what is not held of the object, behind everyone who reads. What there is no room for is not kept. What is held is taken for
    /// what it was, or read back first and, where it is not, fetched anew.
    pub(crate) async fn load(&self, object: &CleanReader, read_back: Option<&ReadBack>) -> Result<()> {
        let blocks = futures::stream::iter(0..object.size.div_ceil(BLOCK_BYTES));
        let blocks = blocks.map(|block| async move {
            self.give_way(&object.mount.readers).await;
            let id = (object.id(), block);
            if let Some(read_back) = read_back {
                self.shared.read_back(&id, read_back).await;
            }
            let (found, goal) = self.shared.look(object, &id, Why::Load);
            if found.is_none() || goal.is_some() {
                self.block(object, block, Why::Load).await?;
            }
            self.shared.blocks.lock().wanted(&id);
            Ok(())
        });
        let loaded: Result<Vec<()>, StoreError> = blocks.buffered(AHEAD_MAX as usize).try_collect().await;
        loaded.map(drop).map_err(|error| unreadable(object, error))
    }

    /// Lets readers go first, for a while.
    async fn give_way(&self, readers: &Readers) {
        let mut waited = Duration::ZERO;
        while waited < WAY_MAX && readers.any() {
            self.shared.clock.sleep(WAY_LOOK).await;
            waited += WAY_LOOK;
        }
    }

    /// Bytes held.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.shared.blocks.lock().bytes()
    }

    /// Bytes of blocks in each data folder, in the order of the segment store's.
    pub(crate) fn bytes_by_folder(&self) -> Vec<u64> {
        let blocks = self.shared.blocks.lock();
        (0..self.shared.data_folders).map(|n| blocks.bytes_in(n)).collect()
    }

    /// What lies in each tier, the fastest first.
    pub(crate) fn tiers(&self) -> Vec<TierStatus> {
        let status = |(tier, bytes): (&tiers::Tier, u64)| TierStatus {
            name: tier.name.clone(),
            folder: tier.dir.clone(),
            size_bytes: tier.limit,
            used_bytes: bytes,
            hits: tier.hits,
        };
        self.shared.blocks.lock().tiers().map(status).collect()
    }

    /// Of those, what never makes room.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.shared.blocks.lock().pinned_bytes()
    }

    /// Blocks that readers asked for since the start, and those of them that were held.
    pub(crate) fn reads(&self) -> (u64, u64) {
        let State { reads, hits, .. } = &*self.shared;
        (reads.load(Ordering::Relaxed), hits.load(Ordering::Relaxed))
    }

    /// Bytes of blocks that were fetched since the start and not kept.
    pub(crate) fn bypassed_bytes(&self) -> u64 {
        self.shared.bypassed_bytes.load(Ordering::Relaxed)
    }

    /// Most bytes held.
    pub(crate) fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// Bytes held of one object.
    pub(crate) fn held(&self, object: &CleanReader) -> u64 {
        self.shared.blocks.lock().held(&object.id())
    }

    /// The file at `path` was persisted and its local bytes are only a copy now.
    pub(crate) fn persisted(&self, stream: StreamId, layout: &Layout, path: Path, changed: Timestamp) {
        let gone = self.insert_copy(stream, layout, &path, changed);
        self.shared.remove_files(gone);
    }

    /// A copy that had to make room shall stay after all. Whether there is room for it.
    pub(crate) fn keep_copy(&self, stream: StreamId, layout: &Layout, path: Path, changed: Timestamp) -> bool {
        let gone = self.insert_copy(stream, layout, &path, changed);
        let (itself, others): (Vec<Gone>, Vec<Gone>) = gone
            .into_iter()
            .partition(|gone| *gone == Gone::Copy(Ino(stream.0), stream.1));
        self.shared.remove_files(others);
        itself.is_empty()
    }

    fn insert_copy(&self, stream: StreamId, layout: &Layout, path: &Path, changed: Timestamp) -> Vec<Gone> {
        let shared = &self.shared;
        let (at, now) = (shared.at(path, changed), shared.clock.monotonic());
        let folder = shared.segments.folder_of(layout);
        let mut blocks = shared.blocks.lock();
        blocks.insert_copy(stream, layout.len(), folder, at, now)
    }

    /// Clean data in the n-th data folder goes until there is room for `bytes` more, or nothing is left of it.
    pub(crate) fn make_room_in(&self, folder: usize, bytes: u64) {
        let gone = self.shared.blocks.lock().make_room_in(folder, bytes);
        if !gone.is_empty() {
            tracing::info!(
                folder,
                items = gone.len(),
                "clean data makes room on a disk that is nearly full"
            );
        }
        self.shared.remove_files(gone);
    }

    /// Somebody opened a file whose local bytes are a copy.
    pub(crate) fn opened_copy(&self, stream: StreamId) {
        let shared = &self.shared;
        let mut blocks = shared.blocks.lock();
        blocks.read_copy(stream, shared.clock.monotonic());
        if shared.trace.is_on()
            && let Some((bytes, path)) = blocks.copy(stream)
        {
            // A copy stays or goes as a whole.
            shared.trace.read(shared.clock.now().0, bytes, 0, &path);
        }
    }

    /// Policies were changed: what is held gets its place anew.
    pub(crate) fn policies_changed(&self) {
        let shared = &self.shared;
        let now = shared.clock.monotonic();
        *shared.last_place.lock() = None;
        let gone = shared.blocks.lock().place_anew(|path| shared.policies.place(path), now);
        shared.remove_files(gone);
    }

    /// Files under `from` are found under `to` now; with `exchange` also the other way round.
    pub(crate) fn renamed(&self, from: &Path, to: &Path, exchange: bool) {
        if self.shared.policies.same_for_all(from, to) {
            return;
        }
        let shared = &self.shared;
        let place = |path: &Path| shared.policies.place(path);
        shared.blocks.lock().move_copies(from, to, exchange, place);
        self.policies_changed();
    }

    /// The local copy is gone, or is the only one again.
    pub(crate) fn forget_copy(&self, stream: StreamId) {
        self.shared.blocks.lock().remove_copy(stream);
    }

    async fn block(&self, object: &CleanReader, block: u64, why: Why) -> Result<Bytes, StoreError> {
        let id = (object.id(), block);
        let (found, goal) = self.shared.look(object, &id, why);
        if let Some(found) = found
            && let Some(bytes) = self.shared.read_held(&id, found).await
        {
            self.raise(&id, found.held, goal, &bytes, why).await;
            return Ok(bytes);
        }
        if let Some(bytes) = self.shared.passing(&id, why) {
            if why == Why::Load {
                self.shared.keep(object, &id, &bytes, why).await;
            }
            return Ok(bytes);
        }
        if why.is_reader() && object.size <= PEEKED_BYTES_MAX {
            object.mount.peeks.earn();
        }
        // Who stands aside for readers looks at this.
        let _reader = why.is_reader().then(|| object.mount.readers.one());
        let bytes = self.flight(object, id.clone(), why).await?;
        if why == Why::Load && self.shared.blocks.lock().block(&id).is_none() {
            // Those whose fetch it was may have had it for themselves alone.
            self.shared.keep(object, &id, &bytes, why).await;
        }
        if why.is_reader() {
            self.shared.passing.lock().begin(&id);
        }
        let came = {
            let mut blocks = self.shared.blocks.lock();
            let goal = blocks.came(&id, why.is_reader());
            blocks.block(&id).map(|found| (found.held, goal))
        };
        if let Some((held, goal)) = came {
            self.raise(&id, held, goal, &bytes, why).await;
        }
        Ok(bytes)
    }

    /// Brings a copy of the block up to a tier: behind a reader, who does not wait for it and may be too fast for it; before who loads.
    async fn raise(&self, id: &BlockId, held: Held, goal: Option<usize>, bytes: &Bytes, why: Why) {
        let (Some(folder), Some(tasks)) = (goal, self.shared.tasks.get()) else {
            return;
        };
        let shared = &self.shared;
        if !why.is_reader() {
            if let Ok(_permit) = shared.raising.acquire().await {
                shared.raise(id, held, folder, bytes).await;
            }
        } else if shared.raising.available_permits() > 0 {
            let (shared, id, bytes) = (Arc::clone(shared), id.clone(), bytes.clone());
            tasks.spawn("raise", async move {
                if let Ok(_permit) = shared.raising.try_acquire() {
                    shared.raise(&id, held, folder, &bytes).await;
                }
            });
        }
    }

    /// The fetch of a block that is under way, or a new one. It goes on as long as anybody waits for it.
    fn flight(&self, object: &CleanReader, id: BlockId, why: Why) -> Fetch {
        let mut flights = self.shared.flights.lock();
        if let Some(fetch) = flights.get(&id).and_then(WeakShared::upgrade) {
            return fetch;
        }
        let fetch = Arc::clone(&self.shared)
            .fetch(object.clone(), id.clone(), why)
            .boxed()
            .shared();
        if let Some(weak) = fetch.downgrade() {
            flights.insert(id, weak);
        }
        if flights.len() > 4096 {
            flights.retain(|_, fetch| fetch.upgrade().is_some());
        }
        fetch
    }

    fn fetch_ahead(&self, object: &CleanReader, range: &Range<u64>, last: u64) {
        let streak = self.shared.blocks.lock().sequence(object.id(), range.start, range.end);
        let blocks = object.size.div_ceil(BLOCK_BYTES);
        let ahead = if streak < 2 {
            0
        } else {
            u64::from(streak).min(AHEAD_MAX)
        };
        let Some(tasks) = self.shared.tasks.get() else { return };
        for block in (last + 1..blocks).take(to_usize(ahead)) {
            let id = (object.id(), block);
            if self.shared.has(&id) || self.shared.flights.lock().contains_key(&id) {
                continue;
            }
            if self.shared.ahead.available_permits() == 0 {
                return;
            }
            let (this, object) = (self.clone(), object.clone());
            tasks.spawn("prefetch", async move {
                let Ok(_permit) = this.shared.ahead.try_acquire() else {
                    return;
                };
                // The reader itself reports what fails.
                let _ = this.block(&object, block, Why::Ahead).await;
            });
        }
    }
}

/// What a file has of a block.
#[derive(Debug)]
enum Lies {
    /// What was written there.
    Good(Bytes),
    /// Something else, or nothing.
    Damaged,
    /// It is not held any more.
    Gone,
}

/// What was held and read back, in bytes.
#[derive(Debug, Default)]
pub(crate) struct ReadBack {
    verified: AtomicU64,
    damaged: AtomicU64,
}

impl ReadBack {
    fn note(&self, lies: &Lies, bytes: u64) {
        match lies {
            Lies::Good(_) => self.verified.fetch_add(bytes, Ordering::Relaxed),
            Lies::Damaged => self.damaged.fetch_add(bytes, Ordering::Relaxed),
            Lies::Gone => 0,
        };
    }

    /// What was good, and what was damaged.
    fn bytes(&self) -> (u64, u64) {
        (
            self.verified.load(Ordering::Relaxed),
            self.damaged.load(Ordering::Relaxed),
        )
    }
}

/// A block, or its copy for a tier, that has room and is not written yet. Dropped, also because nobody waits for it any more, it gives both
/// back.
struct Admitted<'a> {
    state: &'a State,
    id: &'a BlockId,
    file: u64,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let folder = folder_of(self.file);
        let mut blocks = self.state.blocks.lock();
        let gone = match folder < self.state.data_folders {
            true => {
                blocks.give_back(self.id);
                None
            }
            false => blocks.not_raised(self.id, folder),
        };
        drop(blocks);
        self.state
            .remove_files(gone.into_iter().chain([Gone::File(self.file)]).collect());
    }
}

impl State {
    async fn fetch(self: Arc<Self>, object: CleanReader, id: BlockId, why: Why) -> Result<Bytes, StoreError> {
        let range = object.block_range(id.1);
        let (mut tries, mut away) = (1, None);
        let fetched = loop {
            let answer =
                object
                    .ask(&range)
                    .await
                    .and_then(|bytes| match bytes.len() as u64 == range.end - range.start {
                        true => Ok(bytes),
                        false => Err(StoreError::Damaged(format!(
                            "{}: {} bytes instead of {range:?}",
                            object.key,
                            bytes.len()
                        ))),
                    });
            let error = match answer {
                Ok(bytes) => break Ok(bytes),
                Err(error) => error,
            };
            if matches!(error, StoreError::Unavailable(_)) {
                away = Some(error.clone());
            }
            if !object.mount.again(&error, &mut tries).await {
                // A wrong answer counts as damage only when there was no other: a store in trouble answers all sorts of things.
                break Err(away
                    .filter(|_| matches!(error, StoreError::Damaged(_)))
                    .unwrap_or(error));
            }
        };
        if let Ok(bytes) = &fetched {
            self.keep(&object, &id, bytes, why).await;
        }
        self.flights.lock().remove(&id);
        fetched
    }

    /// The block, when it is held. A reader's look is a use; with it, the folder of the tier that a copy should go to now.
    fn look(&self, object: &CleanReader, id: &BlockId, why: Why) -> (Option<Found>, Option<usize>) {
        let now = self.clock.monotonic();
        let mut blocks = self.blocks.lock();
        let found = blocks.block(id);
        let mut goal = match why {
            Why::Ahead | Why::Load => blocks.came(id, false),
            Why::Read | Why::GoesOn => None,
        };
        if why == Why::Read {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.hits.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
            // Of one without a path nothing is kept.
            let Some(at) = blocks.at(&id.0).or_else(|| self.at_of(object)) else {
                return (None, None);
            };
            goal = blocks.read(id, &at, now);
            if self.trace.is_on() {
                let range = object.block_range(id.1);
                self.trace
                    .read(self.clock.now().0, range.end - range.start, id.1, &at.path());
            }
        }
        (found, goal)
    }

    /// Whether a block is held, or passes by.
    fn has(&self, id: &BlockId) -> bool {
        let is_held = self.blocks.lock().block(id).is_some();
        is_held || self.passing.lock().get(id).is_some()
    }

    /// A block that is not kept, when somebody had it fetched a moment ago.
    fn passing(&self, id: &BlockId, why: Why) -> Option<Bytes> {
        let mut passing = self.passing.lock();
        if why.is_reader() {
            passing.begin(id);
        }
        passing.get(id)
    }

    /// Files of one directory share what is said of them, unless something is set for one of them.
    fn at(&self, path: &Path, changed: Timestamp) -> At {
        let dir = path.parent().unwrap_or_default();
        let mut last = self.last_place.lock();
        let shared = last
            .as_ref()
            .filter(|place| *place.dir == dir && self.policies.same_as_parent(path));
        let place = match shared {
            Some(place) => Arc::clone(place),
            None => self.policies.place(path),
        };
        *last = self.policies.same_as_parent(path).then(|| Arc::clone(&place));
        At::new(path, place, changed)
    }

    /// Where an object lies. None: no path has its key, so it is not kept.
    fn at_of(&self, object: &CleanReader) -> Option<At> {
        object
            .mount
            .path_of(&object.key)
            .ok()
            .map(|path| self.at(&path, object.changed))
    }

    /// Makes room for a block and writes it to its file. What can not be kept, or is not worth it, is no error for the reader.
    async fn keep(&self, object: &CleanReader, id: &BlockId, bytes: &Bytes, why: Why) {
        let (Ok(len), Some(at)) = (u32::try_from(bytes.len()), self.at_of(object)) else {
            return;
        };
        let folder = self.segments.roomy_folder(u64::from(len));
        let now = self.clock.monotonic();
        let arrival = match why {
            Why::Load => Arrival::Brought,
            Why::Ahead if !self.passing.lock().has_room(u64::from(len), now) => Arrival::Brought,
            Why::Read | Why::GoesOn | Why::Ahead => Arrival::Read,
        };
        let (file, kept) = {
            let mut blocks = self.blocks.lock();
            let (kept, gone) = blocks.admit(id, len, &at, arrival, now);
            let file = blocks.file(folder);
            drop(blocks);
            self.remove_files(gone);
            (file, kept)
        };
        if !kept {
            if why != Why::Load {
                self.bypassed_bytes.fetch_add(u64::from(len), Ordering::Relaxed);
                self.passing.lock().insert(id, bytes, why == Why::Ahead, now);
            }
            return;
        }
        let admitted = Admitted { state: self, id, file };
        if let Err(error) = self.write_file(file, bytes).await {
            tracing::debug!(%error, "a clean block is not kept");
            return;
        }
        std::mem::forget(admitted);
        let held = Held {
            file,
            len,
            crc: crc(bytes),
        };
        let gone = self.blocks.lock().insert(id.clone(), held, &at);
        self.remove_files(gone.into_iter().collect());
    }

    /// Makes room in a tier's folder for a copy of the block, and writes it. What does not come up stays where it is.
    async fn raise(&self, id: &BlockId, held: Held, folder: usize, bytes: &Bytes) {
        let (file, gone) = self.blocks.lock().raise(id, folder, self.clock.monotonic());
        self.remove_files(gone);
        let Some(file) = file else { return };
        let admitted = Admitted { state: self, id, file };
        if let Err(error) = self.write_file(file, bytes).await {
            tracing::debug!(%error, folder = %self.folders[folder].display(), "a block does not go up to a tier");
            return;
        }
        std::mem::forget(admitted);
        let gone = self.blocks.lock().raised(id, held, file);
        self.remove_files(gone.into_iter().collect());
    }

    async fn write_file(&self, file: u64, bytes: &Bytes) -> io::Result<()> {
        let (disk, path, chunk) = (self.disk.clone(), self.path(file), bytes.clone());
        blocking(move || {
            disk.create_dir_all(path.parent().unwrap_or(&path))?;
            disk.open(&path, OpenHow::CreateNew)?.write_all_at(&[chunk], 0)
        })
        .await
    }

    /// The bytes of a held block, from where they are fastest to have; none when no file fits any more.
    async fn read_held(&self, id: &BlockId, found: Found) -> Option<Bytes> {
        if let Some(fast) = found.fast
            && let Lies::Good(bytes) = self.read_copy(id, found, fast).await
        {
            return Some(bytes);
        }
        match self.read_lying(id, found).await {
            Lies::Good(bytes) => Some(bytes),
            Lies::Damaged | Lies::Gone => None,
        }
    }

    /// Reads a held block and its copy in a tier, and drops what is not what was written.
    async fn read_back(&self, id: &BlockId, read_back: &ReadBack) {
        let found = self.blocks.lock().block(id);
        let Some(found) = found else { return };
        let bytes = u64::from(found.held.len);
        if let Some(fast) = found.fast {
            read_back.note(&self.read_copy(id, found, fast).await, bytes);
        }
        read_back.note(&self.read_lying(id, found).await, bytes);
    }

    /// What lies in a tier, which is dropped when it is damaged.
    async fn read_copy(&self, id: &BlockId, found: Found, fast: u64) -> Lies {
        match self.read_file(fast, found.held).await {
            Ok(bytes) => Lies::Good(bytes),
            Err(error) => {
                let mut blocks = self.blocks.lock();
                if blocks.block(id) != Some(found) {
                    // Evicted meanwhile is no damage.
                    return Lies::Gone;
                }
                tracing::warn!(key = %id.0.key, block = id.1, %error, "the copy of a clean block in a tier is damaged; the block is read where it lies");
                let gone = blocks.not_raised(id, folder_of(fast));
                drop(blocks);
                self.remove_files(gone.into_iter().collect());
                Lies::Damaged
            }
        }
    }

    /// What lies in a data folder. A damaged block is dropped, with its copy.
    async fn read_lying(&self, id: &BlockId, found: Found) -> Lies {
        match self.read_file(found.held.file, found.held).await {
            Ok(bytes) => Lies::Good(bytes),
            Err(error) => {
                let mut blocks = self.blocks.lock();
                if blocks.block(id).is_none_or(|now| now.held != found.held) {
                    return Lies::Gone;
                }
                tracing::warn!(key = %id.0.key, block = id.1, %error, "a clean block is damaged; fetching it again");
                let gone = blocks.remove_block(id);
                drop(blocks);
                self.remove_files(gone);
                Lies::Damaged
            }
        }
    }

    /// What lies in a file, when it is what was written there.
    async fn read_file(&self, file: u64, held: Held) -> io::Result<Bytes> {
        let (disk, path) = (self.disk.clone(), self.path(file));
        let bytes = blocking(move || -> io::Result<Bytes> {
            let file = disk.open(&path, OpenHow::Read)?;
            let mut bytes = vec![0; held.len as usize];
            let got = file.read_at(&mut bytes, 0)?;
            bytes.truncate(got);
            Ok(bytes.into())
        })
        .await?;
        match bytes.len() == held.len as usize && crc(&bytes) == held.crc {
            true => Ok(bytes),
            false => Err(io::Error::other(format!(
                "{} bytes that are not those written",
                bytes.len()
            ))),
        }
    }

    fn path(&self, file: u64) -> PathBuf {
        self.folders[folder_of(file)]
            .join(format!("{:02x}", file % 256))
            .join(format!("{file:016x}.blk"))
    }

    /// Removes files, and hands copies to the task that takes them from their rows.
    fn remove_files(&self, gone: Vec<Gone>) {
        for gone in gone {
            match gone {
                Gone::File(file) => {
                    // A file that was never written is not there.
                    let _ = self.disk.remove(&self.path(file));
                }
                Gone::Copy(ino, generation) => {
                    self.leaving.lock().push((ino, generation));
                    self.leave.notify_one();
                }
            }
        }
    }
}

fn crc(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("a CRC32C has 32 bits")
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a position within a block fits")
}

fn unreadable(object: &CleanReader, error: StoreError) -> Error {
    match error {
        StoreError::Changed(_) | StoreError::NotFound(_) => Error::precondition(format!(
            "{} in {}: changed in the under-store since it was opened; open it again",
            object.key, object.mount.url
        )),
        error => crate::mounts::named(&object.mount.url, error),
    }
}
