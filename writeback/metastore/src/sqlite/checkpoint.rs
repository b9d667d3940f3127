//! When the WAL goes into the file: rarely, and off the writer's path.
//!
//! 1. The WAL is longer than [`CHECKPOINT_PAGES`]: a thread of its own copies it, while the writer goes on appending.
//! 2. What the writer appended meanwhile is little: the writer copies it itself, between two groups. Nothing is left, so its next
//!    commit begins the WAL anew. Without this step a busy writer's WAL would never end.
//! 3. Readers or a slow disk kept that from happening and the WAL is longer than [`WAL_PAGES_MAX`]: the writer waits for it.
//!
//! A failed checkpoint loses nothing: the WAL keeps the pages and the next one copies them again.

use super::set_up;
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};
use std::{path::Path, sync::Arc, thread};

/// Pages of the WAL from which on it is copied: 32 MiB.
const CHECKPOINT_PAGES: i64 = (32 << 20) / 4096;
/// Pages that the writer copies itself: 4 MiB, some milliseconds.
const INLINE_PAGES_MAX: i64 = (4 << 20) / 4096;
/// Pages at which the writer waits: 256 MiB.
const WAL_PAGES_MAX: i64 = (256 << 20) / 4096;

/// The thread, and the rules by which the writer wakes it.
#[derive(Debug)]
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    want: Mutex<Want>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Want {
    #[default]
    Nothing,
    Checkpoint,
    End,
}

/// Pages in the WAL, and how many of them are in the file already.
#[derive(Clone, Copy, Debug)]
struct Wal {
    pages: i64,
    copied: i64,
}

impl Checkpointer {
    pub(super) fn start(path: &Path, fsync: bool) -> Result<Self, String> {
        let connection = open(path, fsync).map_err(|error| error.to_string())?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        // A thread of its own, joined on drop: it blocks for as long as it lives.
        let thread = thread::Builder::new()
            .name("metastore-wal".into())
            .spawn(move || theirs.run(&connection));
        Ok(Self {
            shared,
            thread: Some(thread.map_err(|error| error.to_string())?),
        })
    }

    /// Called by the writer after every group, on its connection.
    pub(super) fn after_commit(&self, connection: &Connection) {
        if let Err(error) = self.keep_short(connection) {
            tracing::warn!(%error, "checkpoint of the metastore failed; it will be tried again");
        }
    }

    fn keep_short(&self, connection: &Connection) -> rusqlite::Result<()> {
        let wal = checkpoint(connection, "NOOP")?;
        let left = wal.pages - wal.copied;
        if wal.pages < CHECKPOINT_PAGES || left == 0 {
            return Ok(());
        }
        if wal.pages >= WAL_PAGES_MAX {
            checkpoint(connection, "RESTART")?;
        } else if left <= INLINE_PAGES_MAX {
            checkpoint(connection, "PASSIVE")?;
        } else {
            self.shared.set(Want::Checkpoint);
        }
        Ok(())
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.set(Want::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the metastore's checkpointer had panicked");
        }
    }
}

impl Shared {
    fn set(&self, new: Want) {
        let mut want = self.want.lock();
        if *want != Want::End {
            *want = new;
        }
        self.changed.notify_one();
    }

    fn run(&self, connection: &Connection) {
        while self.wait() != Want::End {
            if let Err(error) = checkpoint(connection, "PASSIVE") {
                tracing::warn!(%error, "checkpoint of the metastore failed; it will be tried again");
            }
            let mut want = self.want.lock();
            if *want == Want::Checkpoint {
                *want = Want::Nothing;
            }
        }
    }

    fn wait(&self) -> Want {
        let mut want = self.want.lock();
        while *want == Want::Nothing {
            self.changed.wait(&mut want);
        }
        *want
    }
}

fn open(path: &Path, fsync: bool) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    set_up(&connection, fsync)?;
    Ok(connection)
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Wal> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    statement.query_row([], |row| {
        Ok(Wal {
            pages: row.get(1)?,
            copied: row.get(2)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_writer_keeps_its_wal_short() {
        let folder = std::env::temp_dir().join(format!("forebay-wal-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("meta.db");
        let connection = super::super::schema::open_writing(&path, false).unwrap();
        let checkpointer = Checkpointer::start(&path, false).unwrap();
        let value = vec![7; 60 << 10];
        let mut longest = 0;
        for round in 0..2000_u32 {
            let key = (round % 500).to_be_bytes();
            connection
                .execute("INSERT OR REPLACE INTO kv VALUES (?1, 1, ?2)", (&key[..], &value[..]))
                .unwrap();
            checkpointer.after_commit(&connection);
            longest = longest.max(checkpoint(&connection, "NOOP").unwrap().pages);
        }
        drop(checkpointer);
        drop(connection);
        std::fs::remove_dir_all(&folder).unwrap();
        // 120 MB were written.
        assert!(longest < 2000 * 15, "the WAL never began anew: {longest} pages");
    }
}
