//! The engine for a cluster: one PostgreSQL, 14 or newer.
//!
//! # One round trip
//! A commit is one call of a function that the store installs (`postgres/schema.sql`), so it is one statement, one transaction
//! and one wait. PostgreSQL itself groups the WAL flushes of commits on different connections.
//!
//! # Locks
//! By advisory locks on hashes of keys, all taken in ascending order before anything is read: exclusive for `At`, `Absent`, ops
//! and the guard of an `EmptyRange`, shared for `SharedAt`. So there is no deadlock by construction, a key that does not exist can
//! be locked, and a shared lock writes no row (a row's share lock does, and a hot parent directory paid for it). The checks are
//! later statements of the function and see what the holders before had committed. A transaction of more keys than
//! `LOCKS_MAX` takes one lock that excludes all others instead: the server's lock table is small. Everyone who writes these
//! tables must lock so; nothing but this module does. Two keys of one hash wait for each other without need, no more.
//!
//! # Lost answers
//! When the connection dies after a commit was sent, the same transaction is sent again on another one if it has a token, which
//! settles it; without a token, or when the database stays away, the answer is `Unknown`.
//!
//! It does not own: TLS (the database is reached by a private network or socket), schema of anything else in the database.

mod lock;
mod request;
mod schema;

use crate::{
    CommitError, Committed, Entry, Key, LIMITS, MetaError, MetaStore, OpenError, TOKENS_KEPT, Tx, Version,
    counters::Blocks, limits, open::redacted,
};
use async_trait::async_trait;
use deadpool_postgres::{ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use request::Request;
use std::{
    fmt::{self, Display},
    ops::Range,
    str::FromStr,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio_postgres::{NoTls, Row, error::Severity, error::SqlState, types::ToSql};

/// Connections of one process.
const CONNECTIONS_MAX: usize = 16;
/// The longest wait for a connection, a new one included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for an answer. The server ends a statement before that, so a commit that waits for a lock fails by name.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What the connections set. Plans by key only: statistics of a table that has just filled up mislead. The time limit is the
/// server's, in milliseconds.
const SESSION_OPTIONS: &str = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c statement_timeout=20000 -c application_name=forebay";
/// How often a request is tried.
const ATTEMPTS: u32 = 5;
/// The first pause between attempts; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(50);

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    pool: Pool,
    place: String,
    blocks: Blocks,
    commits: AtomicU64,
}

impl PostgresStore {
    /// Connects to `postgres://USER:PASSWORD@HOST:PORT/DATABASE` and creates the tables when they are missing. A socket's folder
    /// may be given as `?host=/folder`.
    pub async fn open(url: &str) -> Result<Arc<Self>, OpenError> {
        let place = redacted(url);
        let mut config = tokio_postgres::Config::from_str(url).map_err(|error| OpenError::Failed {
            place: place.clone(),
            why: chain(&error),
        })?;
        let options = config.get_options().map_or_else(String::new, |own| format!("{own} "));
        config.options(format!("{options}{SESSION_OPTIONS}"));
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(ANSWER_TIMEOUT);
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = deadpool_postgres::Manager::from_config(config, NoTls, recycling);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS_MAX)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| OpenError::Failed {
                place: place.clone(),
                why: chain(&error),
            })?;
        let store = Self {
            pool,
            place,
            blocks: Blocks::default(),
            commits: AtomicU64::new(0),
        };
        store.set_up().await?;
        Ok(Arc::new(store))
    }

    async fn set_up(&self) -> Result<(), OpenError> {
        let failed = |why: String| OpenError::Failed {
            place: self.place.clone(),
            why,
        };
        let mut client = self.pool.get().await.map_err(|error| failed(chain(&error)))?;
        schema::check_durable(&client, &self.place).await?;
        schema::install(&mut client, &self.place).await
    }

    /// Runs a read, again when a connection breaks: it changes nothing.
    async fn read(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, MetaError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.query(sql, params).await {
                Ok(rows) => return Ok(rows),
                Err(failure) if failure.retry && attempt < ATTEMPTS => pause(attempt).await,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Sends one statement and waits for its transaction to end.
    async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        let client = self.pool.get().await.map_err(|error| Failure::unsent(&error))?;
        let statement = match tokio::time::timeout(ANSWER_TIMEOUT, client.prepare_cached(sql)).await {
            Ok(prepared) => prepared.map_err(|error| Failure::unsent(&error))?,
            Err(_) => {
                drop(Object::take(client));
                return Err(Failure::no_answer(false));
            }
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, client.query(&statement, params)).await {
            Ok(answered) => answered.map_err(|error| Failure::sent(&error)),
            Err(_) => {
                // Out of the pool: what comes late must not hold up another request.
                drop(Object::take(client));
                Err(Failure::no_answer(true))
            }
        }
    }

    async fn commit_once(&self, request: &Request<'_>) -> Result<Committed, Failure> {
        let rows = self.query(schema::COMMIT, &request.params()).await?;
        let row = rows
            .first()
            .ok_or_else(|| Failure::nonsense("the commit answered nothing"))?;
        let (version, conflict): (Option<i64>, Option<i32>) = (column(row, 0)?, column(row, 1)?);
        if let Some(index) = conflict.and_then(|index| usize::try_from(index).ok()) {
            return Err(Failure {
                text: String::new(),
                maybe_done: false,
                retry: false,
                kind: Kind::Conflict(index),
            });
        }
        let version = version.and_then(|version| u64::try_from(version).ok());
        version
            .map(|version| Committed {
                version: Version(version),
            })
            .ok_or_else(|| Failure::nonsense("a commit without version"))
    }

    /// Once in many commits, tokens that nobody will ask for any more are removed, by whichever process comes to it.
    async fn forget_old_tokens(&self) {
        const EVERY: u64 = TOKENS_KEPT / 16;
        if self.commits.fetch_add(1, Ordering::Relaxed) % EVERY != EVERY - 1 {
            return;
        }
        let kept = i64::try_from(TOKENS_KEPT).unwrap_or(i64::MAX);
        if let Err(failure) = self.query(schema::FORGET_TOKENS, &[&kept]).await {
            tracing::warn!(
                error = failure.text,
                "removing old tokens of the metastore; it will be tried again"
            );
        }
    }
}

#[async_trait]
impl MetaStore for PostgresStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, MetaError> {
        limits::check_get(keys)?;
        let wanted: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let mut entries = vec![None; keys.len()];
        for row in self.read(schema::GET, &[&wanted]).await? {
            let at = column::<i64>(&row, 0)?;
            let place = usize::try_from(at - 1).ok().and_then(|at| entries.get_mut(at));
            *place.ok_or_else(|| Failure::nonsense("a row that nobody asked for"))? = Some(entry(&row, 1)?);
        }
        Ok(entries)
    }

    async fn scan(&self, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Entry)>, MetaError> {
        let limit = i64::try_from(limit.min(LIMITS.scan_rows_max)).unwrap_or(i64::MAX);
        let rows = self
            .read(schema::SCAN, &[&&range.start[..], &&range.end[..], &limit])
            .await?;
        let row = |row: &Row| Ok((column::<Vec<u8>>(row, 2)?.into(), entry(row, 0)?));
        rows.iter()
            .map(row)
            .collect::<Result<_, Failure>>()
            .map_err(MetaError::from)
    }

    async fn commit(&self, tx: Tx) -> Result<Committed, CommitError> {
        limits::check_tx(&tx)?;
        let request = Request::new(&tx);
        let (mut attempt, mut maybe_done) = (0, false);
        loop {
            attempt += 1;
            let failure = match self.commit_once(&request).await {
                Ok(committed) => {
                    self.forget_old_tokens().await;
                    return Ok(committed);
                }
                Err(failure) => failure,
            };
            maybe_done |= failure.maybe_done;
            // Sent twice without a token it could be done twice. A conflict after a lost answer is looked at again: the attempt
            // whose answer was lost may be about to commit.
            let settled = matches!(failure.kind, Kind::Conflict(_)) && !maybe_done;
            let again = tx.token.is_some() || !maybe_done;
            if settled || !again || !(failure.retry || maybe_done) || attempt == ATTEMPTS {
                return Err(failure.commit_error(maybe_done));
            }
            tracing::debug!(attempt, error = failure.text, "sending a commit again");
            pause(attempt).await;
        }
    }

    async fn allocate(&self, counter: &str, count: u64) -> Result<Range<u64>, MetaError> {
        limits::check_allocate(counter, count)?;
        if let Some(taken) = self.blocks.take(counter, count) {
            return Ok(taken);
        }
        let fetch = Blocks::fetch_count(count);
        let signed = i64::try_from(fetch).map_err(|_| limits::counter_exhausted(counter))?;
        // Done twice after a lost answer it leaves a gap, which is allowed.
        let rows = self.read(schema::ALLOCATE, &[&counter, &signed]).await?;
        let row = rows
            .first()
            .ok_or_else(|| Failure::nonsense("an allocation answered nothing"))?;
        let start = unsigned(column::<i64>(row, 0)?)?;
        Ok(self.blocks.put(counter, start..start + fetch, count))
    }

    async fn counters(&self) -> Result<Vec<(String, u64)>, MetaError> {
        let rows = self.read(schema::COUNTERS, &[]).await?;
        let counter = |row: &Row| Ok((column(row, 0)?, unsigned(column::<i64>(row, 1)?)?));
        rows.iter()
            .map(counter)
            .collect::<Result<_, Failure>>()
            .map_err(MetaError::from)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

async fn pause(attempt: u32) {
    tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
}

/// Columns `at` and the next: version and value.
fn entry(row: &Row, at: usize) -> Result<Entry, Failure> {
    let version = Version(unsigned(column::<i64>(row, at)?)?);
    Ok(Entry {
        value: column::<Vec<u8>>(row, at + 1)?.into(),
        version,
    })
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Failure> {
    row.try_get(at).map_err(|error| Failure::nonsense(&chain(&error)))
}

fn unsigned(number: i64) -> Result<u64, Failure> {
    u64::try_from(number).map_err(|_| Failure::nonsense(&format!("a negative number {number}")))
}

/// How a statement failed, and what that says about it.
#[derive(Debug)]
struct Failure {
    text: String,
    /// The statement may have been done all the same.
    maybe_done: bool,
    /// The next attempt may succeed.
    retry: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Away,
    Limit,
    Nonsense,
    Conflict(usize),
}

impl Failure {
    /// Nothing was sent.
    fn unsent(error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            text: chain(error),
            maybe_done: false,
            retry: true,
            kind: Kind::Away,
        }
    }

    fn no_answer(maybe_done: bool) -> Self {
        Self {
            text: format!("no answer in {ANSWER_TIMEOUT:?}"),
            maybe_done,
            retry: true,
            kind: Kind::Away,
        }
    }

    fn sent(error: &tokio_postgres::Error) -> Self {
        let text = chain(error);
        let Some(server) = error.as_db_error() else {
            return Self {
                text,
                maybe_done: true,
                retry: true,
                kind: Kind::Away,
            };
        };
        // An error of the statement undid it. A fatal one ended the connection, and perhaps right behind the commit.
        let maybe_done = server.parsed_severity() != Some(Severity::Error);
        let code = server.code();
        let retry = maybe_done
            || [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::OUT_OF_MEMORY].contains(code)
            // A statement prepared before the tables were altered; the next attempt prepares it anew.
            || *code == SqlState::FEATURE_NOT_SUPPORTED;
        let kind = match code {
            &SqlState::NUMERIC_VALUE_OUT_OF_RANGE => Kind::Limit,
            &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED => Kind::Nonsense,
            _ => Kind::Away,
        };
        Self {
            text,
            maybe_done,
            retry,
            kind,
        }
    }

    fn nonsense(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            maybe_done: true,
            retry: false,
            kind: Kind::Nonsense,
        }
    }

    /// `maybe_done`: whether this or an earlier attempt may have committed.
    fn commit_error(self, maybe_done: bool) -> CommitError {
        match self.kind {
            // This attempt was evaluated, and its token was not known: no earlier one has committed.
            Kind::Conflict(index) => CommitError::Conflict(index),
            Kind::Limit => CommitError::Limit(self.text),
            Kind::Away | Kind::Nonsense if maybe_done => CommitError::Unknown(self.text),
            Kind::Away | Kind::Nonsense => CommitError::Unavailable(self.text),
        }
    }
}

impl From<Failure> for MetaError {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            Kind::Nonsense => Self::Corrupt(failure.text),
            Kind::Limit => Self::Limit(failure.text),
            Kind::Away | Kind::Conflict(_) => Self::Unavailable(failure.text),
        }
    }
}

/// An error and its causes in one line: tokio-postgres says "db error" and keeps the reason to itself.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        append(&mut text, error);
        cause = error.source();
    }
    text
}

fn append(text: &mut String, error: &dyn Display) {
    let error = error.to_string();
    if !text.contains(&error) {
        text.push_str(": ");
        text.push_str(&error);
    }
}
