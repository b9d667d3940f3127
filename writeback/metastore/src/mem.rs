//! The engine for simulations: everything in memory, no threads, one order of events per seed.
//!
//! It survives a simulated crash by being kept by the test and handed to the next life of the engine above. A hook decides, per
//! transaction, whether the store fails and how. It is not durable and is refused for anything but simulation and tests.

use crate::{
    Check, CommitError, Committed, Entry, Key, LIMITS, MetaError, MetaStore, Op, TOKENS_KEPT, Token, Tx, Version,
    limits, prefix_end,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    ops::Range,
    sync::Arc,
};

/// What the hook may do to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The store can not be reached; nothing is written.
    Unavailable,
    /// The commit happens, its answer is lost.
    UnknownCommitted,
    /// The commit does not happen, and nobody says so.
    UnknownLost,
}

/// A call that the hook decides on.
#[derive(Debug)]
pub enum Call<'a> {
    /// A commit.
    Commit(&'a Tx),
    /// A get, scan or allocate: any fault but `None` makes it unavailable.
    Other(&'static str),
}

type Hook = Box<dyn FnMut(&Call<'_>) -> Fault + Send>;

/// A store in memory.
#[derive(Default)]
pub struct MemStore {
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<Key, Entry>,
    version: u64,
    tokens: HashMap<Token, Version>,
    token_order: VecDeque<Token>,
    counters: BTreeMap<String, u64>,
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sets the hook that decides which calls fail.
    pub fn set_hook(&self, hook: impl FnMut(&Call<'_>) -> Fault + Send + 'static) {
        *self.hook.lock() = Some(Box::new(hook));
    }

    /// Removes the hook: nothing fails any more.
    pub fn clear_hook(&self) {
        *self.hook.lock() = None;
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.state.lock().rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fault(&self, call: &Call<'_>) -> Fault {
        self.hook.lock().as_mut().map_or(Fault::None, |hook| hook(call))
    }

    /// Gives way once, as any engine does that has to go somewhere, so that a simulation meets every order of events.
    async fn enter(&self, what: &'static str) -> Result<(), MetaError> {
        tokio::task::yield_now().await;
        match self.fault(&Call::Other(what)) {
            Fault::None => Ok(()),
            _ => Err(MetaError::Unavailable(format!("{what} failed by injection"))),
        }
    }
}

impl State {
    fn commit(&mut self, tx: &Tx) -> Result<Committed, CommitError> {
        if let Some(&version) = tx.token.as_ref().and_then(|token| self.tokens.get(token)) {
            return Ok(Committed { version });
        }
        if let Some(index) = tx.checks.iter().position(|check| !self.holds(check)) {
            return Err(CommitError::Conflict(index));
        }
        self.version += 1;
        let version = Version(self.version);
        for op in &tx.ops {
            match op {
                Op::Put(key, value) => drop(self.rows.insert(
                    key.clone(),
                    Entry {
                        value: value.clone(),
                        version,
                    },
                )),
                Op::Delete(key) => drop(self.rows.remove(key)),
            }
        }
        self.remember(tx.token, version);
        Ok(Committed { version })
    }

    fn holds(&self, check: &Check) -> bool {
        let version = |key| self.rows.get(key).map(|entry: &Entry| entry.version);
        match check {
            Check::Absent(key) => version(key).is_none(),
            Check::At(key, at) | Check::SharedAt(key, at) => version(key) == Some(*at),
            Check::EmptyRange { prefix, guard, at } => {
                version(guard) == Some(*at) && self.rows.range(prefix.clone()..prefix_end(prefix)).next().is_none()
            }
        }
    }

    fn remember(&mut self, token: Option<Token>, version: Version) {
        let Some(token) = token else { return };
        self.tokens.insert(token, version);
        self.token_order.push_back(token);
        if self.token_order.len() as u64 > TOKENS_KEPT
            && let Some(oldest) = self.token_order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
    }
}

#[async_trait]
impl MetaStore for MemStore {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, MetaError> {
        limits::check_get(keys)?;
        self.enter("get").await?;
        let state = self.state.lock();
        Ok(keys.iter().map(|key| state.rows.get(key).cloned()).collect())
    }

    async fn scan(&self, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Entry)>, MetaError> {
        self.enter("scan").await?;
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let state = self.state.lock();
        let rows = state.rows.range(range).take(limit.min(LIMITS.scan_rows_max));
        Ok(rows.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    async fn commit(&self, tx: Tx) -> Result<Committed, CommitError> {
        limits::check_tx(&tx)?;
        tokio::task::yield_now().await;
        let unknown = |_| CommitError::Unknown("the answer was lost by injection".into());
        match self.fault(&Call::Commit(&tx)) {
            Fault::None => self.state.lock().commit(&tx),
            Fault::Unavailable => Err(CommitError::Unavailable("commit failed by injection".into())),
            Fault::UnknownCommitted => Err(unknown(self.state.lock().commit(&tx).ok())),
            Fault::UnknownLost => Err(unknown(None)),
        }
    }

    async fn allocate(&self, counter: &str, count: u64) -> Result<Range<u64>, MetaError> {
        limits::check_allocate(counter, count)?;
        self.enter("allocate").await?;
        let mut state = self.state.lock();
        let next = state.counters.entry(counter.to_owned()).or_insert(1);
        let end = next
            .checked_add(count)
            .ok_or_else(|| limits::counter_exhausted(counter))?;
        Ok(std::mem::replace(next, end)..end)
    }

    async fn counters(&self) -> Result<Vec<(String, u64)>, MetaError> {
        self.enter("counters").await?;
        Ok(self
            .state
            .lock()
            .counters
            .iter()
            .map(|(name, &next)| (name.clone(), next))
            .collect())
    }
}

impl fmt::Debug for MemStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemStore")
            .field("rows", &self.len())
            .finish_non_exhaustive()
    }
}
