//! Clean data: what the under-store holds, read through in ranges and cached within a byte limit; and the eviction of local copies
//! of what was persisted. Dirty bytes are not in its reach at all.
//!
//! An object is read in blocks of [`BLOCK_BYTES`], each fetched once however many wait for it, by (mount, key, validator, block):
//! a block of another version is another block, so bytes of two versions never meet. A block lies in a file of the data folder,
//! without fsync, with its CRC32C in memory; one that does not fit its CRC any more is fetched again. What arrives short or
//! wrong is never kept. Reads that follow each other are fetched ahead, several blocks at once.
//!
//! Eviction takes what was not used for longest, blocks and copies of persisted files alike. A copy leaves its row first, in a
//! transaction, and then the disk.

mod blocks;
mod evict;

use self::blocks::{BlockId, Blocks, Gone, Held, ObjectId};
use crate::{Components, Error, Result, Settings, mounts::Mount};
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use forebay_namespace::Ino;
use forebay_runtime::{
    disk::{DiskRef, OpenHow},
    task::{Tasks, blocking},
};
use forebay_segment::StreamId;
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
    sync::{Arc, OnceLock},
};
use tokio::sync::{Notify, Semaphore};

pub use evict::Freed;

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: u64 = 2 << 20;
/// Blocks of one read on their way at once.
const BLOCKS_PARALLEL: usize = 4;
/// Most blocks fetched ahead of a reader.
const AHEAD_MAX: u64 = 8;
/// Blocks fetched ahead at once, of all readers.
const AHEAD_PARALLEL: usize = 16;
/// Folder of the blocks below the data folder.
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
    folder: PathBuf,
    blocks: Mutex<Blocks>,
    /// Fetches under way, for those who want the same block.
    flights: Mutex<HashMap<BlockId, WeakShared<Fetching>>>,
    /// Copies that have to leave their rows.
    leaving: Mutex<Vec<(Ino, u32)>>,
    leave: Notify,
    ahead: Semaphore,
    tasks: OnceLock<Tasks>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clean")
            .field("limit", &self.limit)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// An object of an under-store, open for reading at one validator.
#[derive(Clone, Debug)]
pub(crate) struct CleanReader {
    pub(crate) mount: Arc<Mount>,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) validator: Validator,
}

impl CleanReader {
    fn id(&self) -> ObjectId {
        ObjectId::new(self.mount.id, &self.key, &self.validator)
    }

    fn block_range(&self, block: u64) -> Range<u64> {
        let start = block * BLOCK_BYTES;
        start..(start + BLOCK_BYTES).min(self.size)
    }
}

impl Clean {
    /// A cache of at most `limit` bytes.
    pub(crate) fn new(settings: &Settings, components: &Components, limit: u64) -> Self {
        let state = State {
            limit,
            disk: components.disk.clone(),
            folder: settings.data.join(FOLDER),
            blocks: Mutex::default(),
            flights: Mutex::default(),
            leaving: Mutex::default(),
            leave: Notify::new(),
            ahead: Semaphore::new(AHEAD_PARALLEL),
            tasks: OnceLock::new(),
        };
        Self {
            shared: Arc::new(state),
        }
    }

    /// Exactly `range` of the object: from the cache, or read through (single flight, prefetch when sequential).
    /// Precondition when the object has changed since it was opened; Unavailable within `under_timeout` when the store is away.
    pub(crate) async fn read(&self, object: &CleanReader, range: Range<u64>) -> Result<Vec<Bytes>> {
        let range = range.start..range.end.min(object.size);
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let (first, last) = (range.start / BLOCK_BYTES, (range.end - 1) / BLOCK_BYTES);
        let blocks = futures::stream::iter(first..=last).map(|block| async move {
            let bytes = self.block(object, block).await?;
            let begin = block * BLOCK_BYTES;
            let start = range.start.max(begin) - begin;
            let end = range.end.min(begin + bytes.len() as u64) - begin;
            Ok(bytes.slice(to_usize(start)..to_usize(end)))
        });
        let chunks: Result<Vec<Bytes>, StoreError> = blocks.buffered(BLOCKS_PARALLEL).try_collect().await;
        let chunks = chunks.map_err(|error| unreadable(object, error))?;
        self.fetch_ahead(object, &range, last);
        Ok(chunks)
    }

    /// Fetches the whole object.
    pub(crate) async fn load(&self, object: &CleanReader) -> Result<()> {
        let blocks = futures::stream::iter(0..object.size.div_ceil(BLOCK_BYTES));
        let blocks = blocks.map(|block| async move { self.block(object, block).await.map(drop) });
        let loaded: Result<Vec<()>, StoreError> = blocks.buffered(AHEAD_MAX as usize).try_collect().await;
        loaded.map(drop).map_err(|error| unreadable(object, error))
    }

    /// Bytes held.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.shared.blocks.lock().bytes()
    }

    /// Most bytes held.
    pub(crate) fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// Bytes held of one object.
    pub(crate) fn held(&self, object: &CleanReader) -> u64 {
        self.shared.blocks.lock().held(&object.id())
    }

    /// The file was persisted and its local bytes are only a copy now.
    pub(crate) fn persisted(&self, stream: StreamId, bytes: u64) {
        self.shared.blocks.lock().insert_copy(stream, bytes);
        self.shared.shrink();
    }

    /// The local copy is gone, or is the only one again.
    pub(crate) fn forget_copy(&self, stream: StreamId) {
        self.shared.blocks.lock().remove_copy(stream);
    }

    async fn block(&self, object: &CleanReader, block: u64) -> Result<Bytes, StoreError> {
        let id = (object.id(), block);
        let held = self.shared.blocks.lock().block(&id);
        if let Some(held) = held
            && let Some(bytes) = self.shared.read_file(&id, held).await
        {
            return Ok(bytes);
        }
        self.flight(object, id).await
    }

    /// The fetch of a block that is under way, or a new one. It goes on as long as anybody waits for it.
    fn flight(&self, object: &CleanReader, id: BlockId) -> Fetch {
        let mut flights = self.shared.flights.lock();
        if let Some(fetch) = flights.get(&id).and_then(WeakShared::upgrade) {
            return fetch;
        }
        let fetch = Arc::clone(&self.shared)
            .fetch(object.clone(), id.clone())
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
        let streak = self.shared.blocks.lock().sequence(&object.id(), range.start, range.end);
        let blocks = object.size.div_ceil(BLOCK_BYTES);
        let ahead = if streak < 2 {
            0
        } else {
            u64::from(streak).min(AHEAD_MAX)
        };
        let Some(tasks) = self.shared.tasks.get() else { return };
        for block in (last + 1..blocks).take(to_usize(ahead)) {
            let id = (object.id(), block);
            if self.shared.blocks.lock().block(&id).is_some() || self.shared.flights.lock().contains_key(&id) {
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
                let _ = this.block(&object, block).await;
            });
        }
    }
}

impl State {
    async fn fetch(self: Arc<Self>, object: CleanReader, id: BlockId) -> Result<Bytes, StoreError> {
        let range = object.block_range(id.1);
        let (mut tries, mut away) = (1, None);
        let fetched = loop {
            let (store, health) = (&object.mount.store, &object.mount.health);
            let answer = health
                .ask(store.read(&object.key, range.clone(), &object.validator))
                .await;
            let answer = answer.and_then(|bytes| match bytes.len() as u64 == range.end - range.start {
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
            self.keep(&id, bytes).await;
        }
        self.flights.lock().remove(&id);
        fetched
    }

    /// Writes a block to its file. What can not be kept is no error for the reader.
    async fn keep(&self, id: &BlockId, bytes: &Bytes) {
        let Ok(len) = u32::try_from(bytes.len()) else { return };
        if u64::from(len) > self.limit {
            return;
        }
        let file = self.blocks.lock().file();
        let (disk, path, chunk) = (self.disk.clone(), self.path(file), bytes.clone());
        let written = blocking(move || {
            disk.create_dir_all(path.parent().unwrap_or(&path))?;
            disk.open(&path, OpenHow::CreateNew)?.write_all_at(&[chunk], 0)
        });
        if let Err(error) = written.await {
            tracing::debug!(%error, "a clean block is not kept");
            self.remove_files(vec![Gone::File(file)]);
            return;
        }
        let held = Held {
            file,
            len,
            crc: crc(bytes),
        };
        let before = self.blocks.lock().insert(id.clone(), held);
        self.remove_files(before.into_iter().collect());
        self.shrink();
    }

    /// The bytes of a held block; none when its file does not fit any more.
    async fn read_file(&self, id: &BlockId, held: Held) -> Option<Bytes> {
        let (disk, path) = (self.disk.clone(), self.path(held.file));
        let read = blocking(move || -> io::Result<Bytes> {
            let file = disk.open(&path, OpenHow::Read)?;
            let mut bytes = vec![0; held.len as usize];
            let got = file.read_at(&mut bytes, 0)?;
            bytes.truncate(got);
            Ok(bytes.into())
        });
        match read.await {
            Ok(bytes) if bytes.len() == held.len as usize && crc(&bytes) == held.crc => Some(bytes),
            other => {
                let current = self.blocks.lock().block(id);
                // Evicted meanwhile is no damage.
                if current == Some(held) {
                    tracing::warn!(key = %id.0.key, block = id.1, error = ?other.err(), "a clean block is damaged; fetching it again");
                    let gone = self.blocks.lock().remove_block(id);
                    self.remove_files(gone.into_iter().collect());
                }
                None
            }
        }
    }

    fn path(&self, file: u64) -> PathBuf {
        self.folder
            .join(format!("{:02x}", file % 256))
            .join(format!("{file:016x}.blk"))
    }

    fn shrink(&self) {
        let gone = self.blocks.lock().shrink_to(self.limit);
        self.remove_files(gone);
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
