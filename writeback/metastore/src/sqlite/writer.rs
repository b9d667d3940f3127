//! The one thread that writes.
//!
//! 1. A caller takes a permit for its bytes, puts its job in the queue and waits.
//! 2. The thread takes what waits, at most [`GROUP_JOBS_MAX`] jobs, and waits a moment for those who took part in the group before
//!    and are probably on their way again, and for those who announced themselves; a lonely writer waits for nobody.
//! 3. Inside one SQLite transaction it evaluates job after job: each sees what those before it wrote. Checks come before writes, so
//!    a job whose check fails leaves nothing behind.
//! 4. One COMMIT, one fsync. Then everyone gets an answer; also those who lost a check, for they may have lost it to a job of the
//!    same group.
//!
//! It does not own: reads, checkpoints in the background.

use super::{
    checkpoint::Checkpointer,
    from_sql,
    rows::{Found, RowCache},
    to_sql,
};
use crate::{
    Announced, Check, CommitError, Committed, Entry, Key, MetaError, Op, TOKENS_KEPT, Token, Tx, Version, limits,
    prefix_end,
};
use forebay_runtime::budget::{Budget, Permit};
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    path::Path,
    sync::Arc,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Bytes that may wait in the queue.
const QUEUE_BYTES: u64 = 32 << 20;
/// What a job weighs beside its keys and values.
const JOB_BYTES: usize = 512;
/// Jobs of one group.
const GROUP_JOBS_MAX: usize = 512;
/// The longest wait for those of the group before.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// An announced job that did not come for this long is held up by something else.
const ANNOUNCED_LULL: Duration = Duration::from_millis(10);
/// The longest wait for those that were announced: a few never hold a group up for long, hundreds need the time that their own work
/// takes anyhow, about this much for each.
const ANNOUNCED_EACH: Duration = Duration::from_millis(1);
const ANNOUNCED_MIN: Duration = Duration::from_millis(25);
const ANNOUNCED_MAX: Duration = Duration::from_millis(100);

/// Handle to the thread. Dropping it lets the thread finish what waits, and joins it.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    budget: Budget,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Commits announced and not asked for yet.
    announced: Arc<AtomicUsize>,
    group_commits: AtomicU64,
    rows: RowCache,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Why no commit is taken any more.
    broken: Option<String>,
}

#[derive(Debug)]
struct Job {
    work: Work,
    permit: Permit,
}

#[derive(Debug)]
enum Work {
    Commit {
        tx: Tx,
        reply: oneshot::Sender<Result<Committed, CommitError>>,
    },
    Allocate {
        counter: String,
        count: u64,
        reply: oneshot::Sender<Result<Range<u64>, MetaError>>,
    },
}

impl Writer {
    pub(super) fn start(connection: Connection, path: &Path, fsync: bool) -> Result<Self, String> {
        let state = State::read(&connection).map_err(|error| error.to_string())?;
        let shared = Arc::new(Shared {
            budget: Budget::new("metastore-queue", QUEUE_BYTES),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            announced: Arc::default(),
            group_commits: AtomicU64::new(0),
            rows: RowCache::new(state.version),
        });
        let checkpointer = Checkpointer::start(path, fsync)?;
        let group = Group {
            connection,
            state,
            checkpointer,
            shared: Arc::clone(&shared),
            last_len: 1,
            last_took: Duration::ZERO,
        };
        // A thread of its own, joined on drop: it blocks for as long as it lives.
        let thread = thread::Builder::new()
            .name("metastore-writer".into())
            .spawn(move || group.run());
        Ok(Self {
            shared,
            thread: Some(thread.map_err(|error| error.to_string())?),
        })
    }

    pub(super) fn group_commits(&self) -> u64 {
        self.shared.group_commits.load(Ordering::Relaxed)
    }

    /// Rows that need not be read from SQLite.
    pub(super) fn rows(&self) -> &RowCache {
        &self.shared.rows
    }

    pub(super) fn announce(&self) -> Announced {
        Announced::in_count(&self.shared.announced)
    }

    pub(super) async fn commit(&self, tx: Tx, bytes: usize) -> Result<Committed, CommitError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Work::Commit { tx, reply }, bytes)
            .await
            .map_err(CommitError::Unavailable)?;
        answer
            .await
            .unwrap_or_else(|_| Err(CommitError::Unknown("the metastore's writer ended".into())))
    }

    pub(super) async fn allocate(&self, counter: String, count: u64) -> Result<Range<u64>, MetaError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Work::Allocate { counter, count, reply }, 0)
            .await
            .map_err(MetaError::Unavailable)?;
        answer
            .await
            .unwrap_or_else(|_| Err(MetaError::Unavailable("the metastore's writer ended".into())))
    }

    async fn submit(&self, work: Work, bytes: usize) -> Result<(), String> {
        let permit = self.shared.budget.acquire((bytes + JOB_BYTES) as u64).await;
        let mut queue = self.shared.queue.lock();
        if let Some(why) = &queue.broken {
            return Err(why.clone());
        }
        queue.jobs.push_back(Job { work, permit });
        drop(queue);
        self.shared.arrived.notify_one();
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the metastore's writer had panicked");
        }
    }
}

/// What the thread keeps in memory of the file.
struct State {
    /// Version of the last commit.
    version: u64,
    tokens: HashMap<Token, Version>,
    token_order: VecDeque<(u64, Token)>,
}

impl State {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let version = from_sql(connection.query_row("SELECT version FROM state", [], |row| row.get(0))?)?;
        let mut statement = connection.prepare("SELECT version, token FROM token ORDER BY version")?;
        let rows = statement.query_map([], |row| Ok((from_sql(row.get(0)?)?, row.get::<_, Token>(1)?)))?;
        let token_order = rows.collect::<rusqlite::Result<VecDeque<_>>>()?;
        let tokens = token_order
            .iter()
            .map(|&(version, token)| (token, Version(version)))
            .collect();
        Ok(Self {
            version,
            tokens,
            token_order,
        })
    }

    /// Forgets what a group added that did not commit.
    fn forget_after(&mut self, before: u64) {
        self.version = before;
        while let Some(&(version, token)) = self.token_order.back()
            && version > before
        {
            self.token_order.pop_back();
            self.tokens.remove(&token);
        }
    }
}

/// The thread.
struct Group {
    connection: Connection,
    state: State,
    checkpointer: Checkpointer,
    shared: Arc<Shared>,
    /// Jobs of the group before, and how long it took to commit.
    last_len: usize,
    last_took: Duration,
}

/// However the thread ends, nobody may wait for it.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.rows.give_up();
        let mut queue = self.0.queue.lock();
        queue
            .broken
            .get_or_insert_with(|| "the metastore's writer ended; restart".into());
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        drop(jobs);
    }
}

impl Group {
    fn run(mut self) {
        let _last_word = LastWord(Arc::clone(&self.shared));
        while let Some(jobs) = self.gather() {
            self.commit_all(jobs);
        }
    }

    /// Waits for jobs; `None` when the store is closed and the queue is empty.
    fn gather(&self) -> Option<Vec<Job>> {
        let mut queue = self.shared.queue.lock();
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            self.shared.arrived.wait(&mut queue);
        }
        let deadline = Instant::now() + (self.last_took / 2).min(GATHER_MAX);
        while queue.jobs.len() < self.last_len && !queue.closed {
            if self.shared.arrived.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        let mut announced = self.announced();
        let end = Instant::now() + (ANNOUNCED_EACH * announced).clamp(ANNOUNCED_MIN, ANNOUNCED_MAX);
        while announced > 0 && queue.jobs.len() < GROUP_JOBS_MAX && !queue.closed {
            let lull = (Instant::now() + ANNOUNCED_LULL).min(end);
            if self.shared.arrived.wait_until(&mut queue, lull).timed_out() {
                break;
            }
            announced = self.announced();
        }
        let count = queue.jobs.len().min(GROUP_JOBS_MAX);
        Some(queue.jobs.drain(..count).collect())
    }

    fn announced(&self) -> u32 {
        let announced = self.shared.announced.load(Ordering::Relaxed);
        u32::try_from(announced).unwrap_or(u32::MAX)
    }

    fn commit_all(&mut self, jobs: Vec<Job>) {
        let began = Instant::now();
        self.last_len = jobs.len();
        // The permits are let go when everyone has an answer.
        let (mut works, _permits): (VecDeque<Work>, Vec<Permit>) =
            jobs.into_iter().map(|job| (job.work, job.permit)).unzip();
        let mut outcomes = Vec::with_capacity(works.len());
        let before = self.state.version;
        let evaluated = self.evaluate(&mut works, &mut outcomes);
        match evaluated.and_then(|written| self.commit().map(|()| written)) {
            Ok(written) => {
                self.shared.rows.publish(self.state.version, written);
                outcomes.into_iter().for_each(Outcome::send);
            }
            Err(failure) => {
                self.undo(before, &failure);
                outcomes.into_iter().for_each(|outcome| outcome.fail(&failure));
                works.into_iter().for_each(|work| work.fail(&failure));
            }
        }
        self.last_took = began.elapsed();
        self.checkpointer.after_commit(&self.connection);
    }

    /// Takes work after work and keeps its outcome; stops at an error of the engine itself. Answers what was written.
    fn evaluate(
        &mut self,
        works: &mut VecDeque<Work>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<Vec<(Key, Found)>, CommitError> {
        self.connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(|error| unavailable(&error))?;
        let before = self.state.version;
        let mut writing = Writing {
            connection: &self.connection,
            state: &mut self.state,
            written: Vec::new(),
        };
        while let Some(work) = works.front() {
            let done = match work {
                Work::Commit { tx, .. } => writing.commit(tx).map(Done::Commit),
                Work::Allocate { counter, count, .. } => writing.allocate(counter, *count).map(Done::Allocate),
            };
            let done = done.map_err(|error| unavailable(&error))?;
            let work = works.pop_front().expect("it was just looked at");
            outcomes.push(Outcome { work, done });
        }
        writing.finish(before).map_err(|error| unavailable(&error))?;
        Ok(writing.written)
    }

    /// COMMIT, and what an error of it means.
    fn commit(&mut self) -> Result<(), CommitError> {
        match self.connection.execute_batch("COMMIT") {
            Ok(()) => {
                self.shared.group_commits.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            // A full disk stops the commit before its last frame is whole, so it is undone for certain.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Err(unavailable(&error)),
            Err(error) => Err(CommitError::Unknown(error.to_string())),
        }
    }

    /// After a failed group: back to what the file says, and no further when that is not known.
    fn undo(&mut self, before: u64, failure: &CommitError) {
        self.state.forget_after(before);
        let rolled_back = self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        if rolled_back && !matches!(failure, CommitError::Unknown(_)) {
            tracing::warn!(%failure, "transactions of the metastore failed");
            return;
        }
        let reason = format!("a commit failed: {failure}; restart to recover");
        tracing::error!(reason, "the metastore takes no more commits");
        self.shared.rows.give_up();
        let mut queue = self.shared.queue.lock();
        queue.broken = Some(reason.clone());
        let waiting = std::mem::take(&mut queue.jobs);
        drop(queue);
        // Nobody can join the queue any more; nothing was begun for those who are in it.
        let failure = CommitError::Unavailable(reason);
        waiting.into_iter().for_each(|job| job.work.fail(&failure));
    }
}

impl Work {
    /// The answer when it was not done.
    fn fail(self, failure: &CommitError) {
        // Whoever does not wait any more does not want to know, here and below.
        match self {
            Self::Commit { reply, .. } => drop(reply.send(Err(failure.clone()))),
            Self::Allocate { reply, .. } => drop(reply.send(Err(MetaError::Unavailable(failure.to_string())))),
        }
    }
}

/// What a work came to, if the group's COMMIT succeeds.
enum Done {
    Commit(Result<Committed, CommitError>),
    Allocate(Result<Range<u64>, MetaError>),
}

/// A work and what it came to.
struct Outcome {
    work: Work,
    done: Done,
}

impl Outcome {
    fn send(self) {
        match (self.work, self.done) {
            (Work::Commit { reply, .. }, Done::Commit(result)) => drop(reply.send(result)),
            (Work::Allocate { reply, .. }, Done::Allocate(result)) => drop(reply.send(result)),
            _ => unreachable!("a work is done in its own kind"),
        }
    }

    fn fail(self, failure: &CommitError) {
        self.work.fail(failure);
    }
}

fn unavailable(error: &rusqlite::Error) -> CommitError {
    CommitError::Unavailable(error.to_string())
}

/// Inside the group's SQLite transaction. An outer error is the engine's and fails the group, an inner one is the job's.
struct Writing<'a> {
    connection: &'a Connection,
    state: &'a mut State,
    /// By all works so far, in their order.
    written: Vec<(Key, Found)>,
}

impl Writing<'_> {
    fn commit(&mut self, tx: &Tx) -> rusqlite::Result<Result<Committed, CommitError>> {
        if let Some(&version) = tx.token.as_ref().and_then(|token| self.state.tokens.get(token)) {
            return Ok(Ok(Committed { version }));
        }
        for (index, check) in tx.checks.iter().enumerate() {
            if !self.holds(check)? {
                return Ok(Err(CommitError::Conflict(index)));
            }
        }
        self.state.version += 1;
        let version = self.state.version;
        for op in &tx.ops {
            self.apply(op, version)?;
        }
        if let Some(token) = tx.token {
            self.remember(token, version)?;
        }
        Ok(Ok(Committed {
            version: Version(version),
        }))
    }

    fn holds(&self, check: &Check) -> rusqlite::Result<bool> {
        Ok(match check {
            Check::Absent(key) => self.version(key)?.is_none(),
            Check::At(key, at) | Check::SharedAt(key, at) => self.version(key)? == Some(at.0),
            Check::EmptyRange { prefix, guard, at } => self.version(guard)? == Some(at.0) && self.is_empty(prefix)?,
        })
    }

    fn version(&self, key: &Key) -> rusqlite::Result<Option<u64>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT version FROM kv WHERE key = ?1")?;
        statement.query_row([&key[..]], |row| from_sql(row.get(0)?)).optional()
    }

    fn is_empty(&self, prefix: &Key) -> rusqlite::Result<bool> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT 1 FROM kv WHERE key >= ?1 AND key < ?2 LIMIT 1")?;
        Ok(!statement.exists((&prefix[..], &prefix_end(prefix)[..]))?)
    }

    fn apply(&mut self, op: &Op, version: u64) -> rusqlite::Result<()> {
        match op {
            Op::Put(key, value) => {
                let sql = "INSERT OR REPLACE INTO kv (key, version, value) VALUES (?1, ?2, ?3)";
                self.connection
                    .prepare_cached(sql)?
                    .execute((&key[..], to_sql(version)?, &value[..]))?;
                let entry = Entry {
                    value: value.clone(),
                    version: Version(version),
                };
                self.written.push((key.clone(), Some(entry)));
            }
            Op::Delete(key) => {
                self.connection
                    .prepare_cached("DELETE FROM kv WHERE key = ?1")?
                    .execute([&key[..]])?;
                self.written.push((key.clone(), None));
            }
        }
        Ok(())
    }

    fn remember(&mut self, token: Token, version: u64) -> rusqlite::Result<()> {
        let sql = "INSERT INTO token (version, token) VALUES (?1, ?2)";
        self.connection
            .prepare_cached(sql)?
            .execute((to_sql(version)?, token))?;
        self.state.tokens.insert(token, Version(version));
        self.state.token_order.push_back((version, token));
        Ok(())
    }

    fn allocate(&self, counter: &str, count: u64) -> rusqlite::Result<Result<Range<u64>, MetaError>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT next FROM counter WHERE name = ?1")?;
        let next = statement
            .query_row([counter], |row| from_sql(row.get(0)?))
            .optional()?
            .unwrap_or(1);
        let end = next.checked_add(count).and_then(|end| i64::try_from(end).ok());
        let Some(end) = end else {
            return Ok(Err(limits::counter_exhausted(counter)));
        };
        let sql = "INSERT OR REPLACE INTO counter (name, next) VALUES (?1, ?2)";
        self.connection.prepare_cached(sql)?.execute((counter, end))?;
        Ok(Ok(next..next + count))
    }

    /// Once per group: stores the version and forgets old tokens.
    fn finish(&mut self, before: u64) -> rusqlite::Result<()> {
        if self.state.version == before {
            return Ok(());
        }
        let version = to_sql(self.state.version)?;
        self.connection
            .prepare_cached("UPDATE state SET version = ?1")?
            .execute([version])?;
        // Cut in slices, so that not every group touches the start of the table.
        let oldest = self.state.token_order.front().map_or(u64::MAX, |&(version, _)| version);
        let keep_from = self.state.version.saturating_sub(TOKENS_KEPT);
        if oldest.saturating_add(TOKENS_KEPT / 8) < keep_from {
            self.connection
                .prepare_cached("DELETE FROM token WHERE version < ?1")?
                .execute([to_sql(keep_from)?])?;
            while let Some(&(version, token)) = self.state.token_order.front()
                && version < keep_from
            {
                self.state.token_order.pop_front();
                self.state.tokens.remove(&token);
            }
        }
        Ok(())
    }
}
