//! The embedded engine: one SQLite file in WAL mode.
//!
//! # Writes
//! One thread owns the only writing connection. It takes every transaction that waits, evaluates them one after the other inside
//! one SQLite transaction and commits once: one fsync for all of them, then every caller has its answer. See `writer`.
//!
//! # Reads
//! A get of a few keys is answered by the rows that were read or written lately, see `rows`; what is not there, and larger reads, by a
//! pool of read-only connections. A get of a few keys takes them some tens of microseconds and runs in line on the caller's thread;
//! larger reads go to the blocking pool. Why not a mirror in memory: rows are bounded by the disk, not by memory.
//!
//! # Errors
//! A full disk fails the transactions at hand and nothing else. After any other error of a COMMIT its outcome is unknown and the
//! store takes no more commits: what SQLite's next fsync says would no longer be about the same bytes. Reads go on. A restart
//! replays the WAL and decides; tokens tell the callers.
//!
//! # The WAL
//! Checkpoints cost two fsyncs and are rare: see `checkpoint`.

mod checkpoint;
mod reader;
mod rows;
mod schema;
mod writer;

use crate::{
    Announced, CommitError, Committed, Entry, Key, LIMITS, MetaError, MetaStore, OpenError, Tx, counters::Blocks,
    limits,
};
use async_trait::async_trait;
use forebay_runtime::task::blocking;
use reader::Readers;
use rusqlite::{Connection, ErrorCode};
use std::{ffi::OsString, fs, io, ops::Range, path::Path, path::PathBuf, sync::Arc};
use writer::Writer;

/// Keys of a get that is worth a trip to the blocking pool.
const INLINE_KEYS_MAX: usize = 16;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order: the writer closes after the readers, so that it can put the WAL away; the lock is let go last.
    readers: Readers,
    writer: Writer,
    blocks: Blocks,
    _lock: fs::File,
}

impl SqliteStore {
    /// Opens the file, creating it and its folder when missing. Blocks. `fsync: false` is for the negative control of crash tests
    /// only: commits are then acknowledged while they are in the page cache.
    pub fn open(path: &Path, fsync: bool) -> Result<Arc<Self>, OpenError> {
        let failed = |why: String| OpenError::Failed {
            place: path.display().to_string(),
            why,
        };
        create_parent(path).map_err(|error| failed(error.to_string()))?;
        let lock = lock(path)?;
        let connection = schema::open_writing(path, fsync)?;
        sync_parent(path).map_err(|error| failed(error.to_string()))?;
        let readers = Readers::open(path).map_err(|error| failed(error.to_string()))?;
        let writer = Writer::start(connection, path, fsync).map_err(failed)?;
        Ok(Arc::new(Self {
            readers,
            writer,
            blocks: Blocks::default(),
            _lock: lock,
        }))
    }

    /// Groups committed so far: each one fsync at most, each carrying one transaction or more.
    pub fn group_commits(&self) -> u64 {
        self.writer.group_commits()
    }

    /// SQLite has shown the commit `version`: waits until nobody is shown less.
    async fn shown(&self, version: u64) {
        while !self.writer.rows().has(version) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl MetaStore for SqliteStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, MetaError> {
        limits::check_get(keys)?;
        let few = keys.len() <= INLINE_KEYS_MAX;
        if few && let Some(found) = self.writer.rows().get(keys) {
            return Ok(found);
        }
        if few {
            let (version, found) = self.readers.take().await.get(keys)?;
            self.shown(version).await;
            self.writer.rows().remember(version, keys, &found);
            return Ok(found);
        }
        let (reader, keys) = (self.readers.take().await, keys.to_vec());
        let (version, found) = blocking(move || reader.get(&keys)).await?;
        self.shown(version).await;
        Ok(found)
    }

    async fn scan(&self, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Entry)>, MetaError> {
        let limit = limit.min(LIMITS.scan_rows_max);
        let reader = self.readers.take().await;
        let (version, rows) = if limit <= INLINE_KEYS_MAX {
            reader.scan(&range, limit)?
        } else {
            blocking(move || reader.scan(&range, limit)).await?
        };
        self.shown(version).await;
        Ok(rows)
    }

    async fn commit(&self, tx: Tx) -> Result<Committed, CommitError> {
        let bytes = limits::check_tx(&tx)?;
        self.writer.commit(tx, bytes).await
    }

    fn announce(&self) -> Announced {
        self.writer.announce()
    }

    async fn allocate(&self, counter: &str, count: u64) -> Result<Range<u64>, MetaError> {
        limits::check_allocate(counter, count)?;
        if let Some(taken) = self.blocks.take(counter, count) {
            return Ok(taken);
        }
        let block = self
            .writer
            .allocate(counter.to_owned(), Blocks::fetch_count(count))
            .await?;
        Ok(self.blocks.put(counter, block, count))
    }

    async fn counters(&self) -> Result<Vec<(String, u64)>, MetaError> {
        self.readers.take().await.counters()
    }
}

fn create_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::create_dir_all(parent),
        _ => Ok(()),
    }
}

/// Makes the file's own name durable; SQLite syncs the folder for its WAL only.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}

/// The writer keeps counts and tokens in memory, so a second process may not write; SQLite's own locks would let it.
fn lock(path: &Path) -> Result<fs::File, OpenError> {
    let lock_path = beside(path, "-lock");
    let failed = |error: io::Error| OpenError::Failed {
        place: lock_path.display().to_string(),
        why: error.to_string(),
    };
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn meta_error(error: &rusqlite::Error) -> MetaError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => MetaError::Corrupt(error.to_string()),
        _ => MetaError::Unavailable(error.to_string()),
    }
}

/// Versions and counters are stored as SQLite's signed integers.
fn from_sql(number: i64) -> Result<u64, rusqlite::Error> {
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, number))
}

fn to_sql(number: u64) -> Result<i64, rusqlite::Error> {
    i64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, i64::MAX))
}

fn set_up(connection: &Connection, fsync: bool) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "synchronous", if fsync { "FULL" } else { "OFF" })?;
    // Checkpoints are asked for by name, never done by whichever commit crosses a number of pages.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}
