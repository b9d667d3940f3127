//! Read-only connections, shared by all readers. Each read is one SQLite transaction: one instant, committed data only.

use super::{from_sql, meta_error};
use crate::{Entry, Key, MetaError, Version};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use std::{ops::Range, path::Path, sync::Arc, thread};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Page cache of one reader, KiB.
const CACHE_KIB: i64 = 4 << 10;

/// The pool.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let count = thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        let idle = (0..count)
            .map(|_| open_reading(path))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self {
            idle: Arc::new(Mutex::new(idle)),
            permits: Arc::new(Semaphore::new(count)),
        })
    }

    /// A connection, in the order of asking.
    pub(super) async fn take(&self) -> Reader {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let connection = self.idle.lock().pop().expect("as many permits as connections");
        Reader {
            connection: Some(connection),
            idle: Arc::clone(&self.idle),
            _permit: permit,
        }
    }
}

fn open_reading(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

/// A connection on loan.
pub(super) struct Reader {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
    // Let go after `drop` has put the connection back.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.idle.lock().extend(self.connection.take());
    }
}

impl Reader {
    /// The entries, and the version of the last commit that they are of.
    pub(super) fn get(&self, keys: &[Key]) -> Result<(u64, Vec<Option<Entry>>), MetaError> {
        self.at_one_instant(|| keys.iter().map(|key| self.get_one(key)).collect())
    }

    /// The rows, and the version of the last commit that they are of.
    pub(super) fn scan(&self, range: &Range<Key>, limit: usize) -> Result<(u64, Vec<(Key, Entry)>), MetaError> {
        self.at_one_instant(|| self.rows(range, limit))
    }

    pub(super) fn counters(&self) -> Result<Vec<(String, u64)>, MetaError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let mut statement = self
                .connection()
                .prepare_cached("SELECT name, next FROM counter ORDER BY name")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, from_sql(row.get(1)?)?)))?;
            rows.collect()
        };
        read().map_err(|error| meta_error(&error))
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken in drop only")
    }

    fn at_one_instant<T>(&self, read: impl FnOnce() -> rusqlite::Result<T>) -> Result<(u64, T), MetaError> {
        let run = || {
            self.step("BEGIN")?;
            let read = self.version().and_then(|version| Ok((version, read()?)));
            self.step(if read.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
            read
        };
        run().map_err(|error| meta_error(&error))
    }

    fn step(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection().prepare_cached(sql)?.execute([]).map(|_| ())
    }

    fn version(&self) -> rusqlite::Result<u64> {
        let mut statement = self.connection().prepare_cached("SELECT version FROM state")?;
        statement.query_row([], |row| from_sql(row.get(0)?))
    }

    fn get_one(&self, key: &Key) -> rusqlite::Result<Option<Entry>> {
        let mut statement = self
            .connection()
            .prepare_cached("SELECT version, value FROM kv WHERE key = ?1")?;
        statement.query_row([&key[..]], |row| entry(row, 0)).optional()
    }

    fn rows(&self, range: &Range<Key>, limit: usize) -> rusqlite::Result<Vec<(Key, Entry)>> {
        let sql = "SELECT key, version, value FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
        let mut statement = self.connection().prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map((&range.start[..], &range.end[..], limit), |row| {
            Ok((row.get::<_, Vec<u8>>(0)?.into(), entry(row, 1)?))
        })?;
        rows.collect()
    }
}

/// The entry whose version is in column `at` and whose value is in the next.
fn entry(row: &Row<'_>, at: usize) -> rusqlite::Result<Entry> {
    let version = Version(from_sql(row.get(at)?)?);
    Ok(Entry {
        value: row.get::<_, Vec<u8>>(at + 1)?.into(),
        version,
    })
}
