//! A transactional, ordered key-value store: the only shared truth of the system.
//!
//! Engines: [`mem`] for simulation, [`sqlite`] embedded, [`postgres`] for a cluster; [`open()`] picks one by URL. All pass
//! [`conformance`]. [`dump`] moves a store from one engine to another. It knows nothing of files or inodes.

pub mod conformance;
pub mod dump;
pub mod mem;
pub mod postgres;
pub mod sqlite;

mod counters;
mod limits;
mod open;

pub use open::{OpenError, OpenOptions, open};

use async_trait::async_trait;
use bytes::Bytes;
use std::{
    fmt::Debug,
    ops::Range,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A key: any bytes, ordered as bytes, at most [`Limits::key_bytes_max`].
pub type Key = Bytes;

/// The version of a key: grows with every write to it, never reused while the key exists. 0 is never a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The stored bytes.
    pub value: Bytes,
    /// Version of the key when it was read.
    pub version: Version,
}

/// A condition of a [`Tx`]. All must hold at the instant of the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The key does not exist.
    Absent(Key),
    /// The key exists at exactly this version; taken exclusively.
    At(Key, Version),
    /// As [`Check::At`], but many transactions may hold it at once: it does not serialise them.
    SharedAt(Key, Version),
    /// No key begins with `prefix`. Writers under the prefix hold `SharedAt(guard)`; this check takes `guard` exclusively, at
    /// the given version, in an earlier statement than the emptiness test.
    EmptyRange {
        /// The prefix that must be empty.
        prefix: Key,
        /// The key that writers under the prefix share.
        guard: Key,
        /// The guard's expected version.
        at: Version,
    },
}

/// A write of a [`Tx`]. A key appears at most once among the ops of a Tx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Key, Bytes),
    /// Removes a key; absent is fine.
    Delete(Key),
}

/// One atomic conditional commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tx {
    /// Names this transaction for [`CommitError::Unknown`]: committing the same token again is exactly-once, as long as the token is
    /// among the last [`TOKENS_KEPT`] commits. `None`: not retried.
    pub token: Option<Token>,
    /// Conditions.
    pub checks: Vec<Check>,
    /// Writes.
    pub ops: Vec<Op>,
}

/// An idempotency token of a transaction.
pub type Token = [u8; 16];

/// How many commits a token is remembered for, at the least. Counted, not timed: a clock that jumps must not forget a token.
pub const TOKENS_KEPT: u64 = 250_000;

/// The answer of a commit: the version that every written key now has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Version given to the keys of the ops.
    pub version: Version,
}

/// Why a commit did not happen, or may have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The check at this index of `checks` did not hold. Nothing was written. Read again and plan anew.
    #[error("check {0} of the transaction did not hold")]
    Conflict(usize),
    /// The store did not say whether it committed. Commit the same Tx with the same token to find out.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The transaction breaks a limit. Nothing was written. Make it smaller.
    #[error("transaction refused: {0}")]
    Limit(String),
    /// The store can not be reached. Nothing was written. Retry later.
    #[error("metastore unavailable: {0}")]
    Unavailable(String),
}

/// Why a read or an allocation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MetaError {
    /// The store can not be reached. Retry later.
    #[error("metastore unavailable: {0}")]
    Unavailable(String),
    /// What is stored makes no sense to this version. A person must look.
    #[error("metastore corrupt: {0}")]
    Corrupt(String),
    /// The request breaks a limit.
    #[error("request refused: {0}")]
    Limit(String),
}

/// Bounds every engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest key, bytes.
    pub key_bytes_max: usize,
    /// Longest value, bytes.
    pub value_bytes_max: usize,
    /// Most keys in one Tx, checks and ops together.
    pub tx_keys_max: usize,
    /// Most bytes in one Tx, keys and values together.
    pub tx_bytes_max: usize,
    /// Most rows that one scan answers.
    pub scan_rows_max: usize,
}

/// The limits that all engines share.
pub const LIMITS: Limits = Limits {
    key_bytes_max: 1024,
    value_bytes_max: 64 << 10,
    // A thousand datasets with a new part each, published at one instant, are about 14,000 keys and 2 MiB.
    tx_keys_max: 16_384,
    tx_bytes_max: 4 << 20,
    scan_rows_max: 4096,
};

/// A transactional ordered key-value store.
///
/// Contracts: a commit is durable before its version returns; keys are locked in key order (no deadlock); `get` and `scan`
/// see only committed data, each call one consistent instant.
#[async_trait]
pub trait MetaStore: Debug + Send + Sync {
    /// The entries of `keys`, in their order, all of one instant.
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, MetaError>;
    /// Up to `limit` rows with `range.start <= key < range.end`, in key order. A page shorter than both `limit` and
    /// [`Limits::scan_rows_max`] is the last.
    async fn scan(&self, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Entry)>, MetaError>;
    /// Commits a transaction.
    async fn commit(&self, tx: Tx) -> Result<Committed, CommitError>;
    /// Takes `count` numbers from the named counter, never handed out before or after. Counters begin at 1. Gaps may occur.
    async fn allocate(&self, counter: &str, count: u64) -> Result<Range<u64>, MetaError>;
    /// Every counter and a number from which on it has handed out none, by name. For [`dump`].
    async fn counters(&self) -> Result<Vec<(String, u64)>, MetaError>;
    /// Says that a commit will be asked for in a moment. An engine that commits in groups may hold its group open for a moment; let
    /// go of the answer right before that commit is asked for, or when it will not come.
    fn announce(&self) -> Announced {
        Announced::default()
    }
    /// The bounds of this engine.
    fn limits(&self) -> Limits {
        LIMITS
    }
}

/// A commit that was announced. See [`MetaStore::announce`].
#[derive(Debug, Default)]
pub struct Announced(Option<Arc<AtomicUsize>>);

impl Announced {
    /// One more in `count`, until it is dropped.
    pub(crate) fn in_count(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Some(Arc::clone(count)))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Shared handle to a metastore.
pub type MetaStoreRef = Arc<dyn MetaStore>;

/// The smallest key that is greater than every key with this prefix.
pub fn prefix_end(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0xff; 1025])
}
