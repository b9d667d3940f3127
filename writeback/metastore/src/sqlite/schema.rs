//! The tables of the file, and whether a file that exists is ours.

use super::set_up;
use crate::OpenError;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;

/// Marks the file as ours in SQLite's header: "FBMS".
const APPLICATION_ID: i64 = 0x4642_4d53;
/// The format of the tables below.
const FORMAT: i64 = 1;

/// Page cache of the writing connection, KiB.
const CACHE_KIB: i64 = 16 << 10;

/// `WITHOUT ROWID`: a row is stored once, in the tree of its key. `token` is appended to and cut at its start, so it costs a
/// commit no random page; lookups are the writer's, from memory. `state` has one row.
const TABLES: &str = "
    CREATE TABLE kv (key BLOB PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE counter (name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE token (version INTEGER PRIMARY KEY, token BLOB NOT NULL);
    CREATE TABLE state (version INTEGER NOT NULL);
    INSERT INTO state (version) VALUES (0);
";

/// Opens the writing connection; creates the tables in a new file, refuses a foreign or newer one before writing to it.
pub(super) fn open_writing(path: &Path, fsync: bool) -> Result<Connection, OpenError> {
    let place = || path.display().to_string();
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign {
            place: place(),
            found: "a file that is not SQLite's".into(),
        },
        _ => OpenError::Failed {
            place: place(),
            why: error.to_string(),
        },
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    let number = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    let (application, format) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    let is_new = application == 0 && format == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0;
    if !is_new && application != APPLICATION_ID {
        return Err(OpenError::Foreign {
            place: place(),
            found: format!("an SQLite file with application id {application}"),
        });
    }
    if !is_new && format != FORMAT {
        return Err(OpenError::NewerFormat {
            place: place(),
            found: format,
            known: FORMAT,
        });
    }
    set_up(&connection, fsync).map_err(failed)?;
    connection
        .pragma_update(None, "cache_size", -CACHE_KIB)
        .map_err(failed)?;
    if is_new {
        create(&connection).map_err(failed)?;
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        let why =
            format!("its file system does not support SQLite's WAL (journal mode stays {mode}); use a local disk");
        return Err(OpenError::Failed { place: place(), why });
    }
    Ok(connection)
}

/// One transaction, so that a crash leaves either an empty file or all of it. Before WAL mode, so that the rollback journal's
/// creation also makes the folder durable.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
}
