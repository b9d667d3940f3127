//! Moving a store from one engine to another: [`dump`] reads every row and counter, [`load`] writes them into an empty store.
//!
//! Versions are given anew by the target; tokens do not move. A dump reads page by page, so nobody may write to the source
//! meanwhile: stop the server first. Memory is bounded by one page and one transaction.

use crate::{CommitError, Key, LIMITS, MetaError, MetaStoreRef, Op, Tx, prefix_end};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::pin::pin;

/// Rows read at once.
const PAGE_ROWS: usize = 512;

/// One thing that a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A counter and the least number it has not handed out.
    Counter {
        /// Its name.
        name: String,
        /// The next number.
        next: u64,
    },
    /// A row.
    Row {
        /// Its key.
        key: Key,
        /// Its value.
        value: Bytes,
    },
}

/// What a load wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows.
    pub rows: u64,
    /// Counters.
    pub counters: u64,
}

/// Why a load stopped. Start over with an empty store.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The target has rows or counters; nothing was written.
    #[error("the target of a load must be empty")]
    NotEmpty,
    /// The source failed.
    #[error("reading the source: {0}")]
    Source(MetaError),
    /// The target failed.
    #[error("writing the target: {0}")]
    Target(#[from] CommitError),
    /// The target failed in a read or an allocation.
    #[error("preparing the target: {0}")]
    Prepare(#[from] MetaError),
}

/// Everything in the store: counters first, then rows in key order.
pub fn dump(store: MetaStoreRef) -> impl Stream<Item = Result<Record, MetaError>> + Send {
    let source = store.clone();
    let counters = stream::once(async move { source.counters().await })
        .map_ok(|counters| {
            stream::iter(
                counters
                    .into_iter()
                    .map(|(name, next)| Ok(Record::Counter { name, next })),
            )
        })
        .try_flatten();
    let pages = stream::try_unfold(Some(Key::new()), move |from| {
        let store = store.clone();
        async move {
            let Some(from) = from else { return Ok(None) };
            let rows = store.scan(from..prefix_end(&[]), PAGE_ROWS).await?;
            let next = if rows.len() < PAGE_ROWS {
                None
            } else {
                rows.last().map(|(key, _)| after(key))
            };
            Ok::<_, MetaError>(Some((rows, next)))
        }
    });
    let row = |(key, entry): (Key, crate::Entry)| {
        Ok(Record::Row {
            key,
            value: entry.value,
        })
    };
    counters.chain(
        pages
            .map_ok(move |rows| stream::iter(rows.into_iter().map(row)))
            .try_flatten(),
    )
}

/// Writes a dump into an empty store.
pub async fn load<S>(store: MetaStoreRef, records: S) -> Result<Loaded, LoadError>
where
    S: Stream<Item = Result<Record, MetaError>> + Send,
{
    if !store.scan(Key::new()..prefix_end(&[]), 1).await?.is_empty() || !store.counters().await?.is_empty() {
        return Err(LoadError::NotEmpty);
    }
    let mut loaded = Loaded::default();
    let mut batch = Batch::default();
    let mut records = pin!(records);
    while let Some(record) = records.next().await {
        match record.map_err(LoadError::Source)? {
            Record::Counter { name, next } => {
                store.allocate(&name, next.saturating_sub(1)).await?;
                loaded.counters += 1;
            }
            Record::Row { key, value } => {
                loaded.rows += 1;
                if let Some(full) = batch.push(key, value) {
                    store.commit(full).await?;
                }
            }
        }
    }
    store.commit(batch.tx).await?;
    Ok(loaded)
}

#[derive(Default)]
struct Batch {
    tx: Tx,
    bytes: usize,
}

impl Batch {
    /// Adds a row; answers the rows before it when it does not fit beside them.
    fn push(&mut self, key: Key, value: Bytes) -> Option<Tx> {
        let bytes = key.len() + value.len();
        let fits = self.bytes + bytes <= LIMITS.tx_bytes_max && self.tx.ops.len() < LIMITS.tx_keys_max;
        let full = (!fits).then(|| std::mem::take(self).tx);
        self.bytes += bytes;
        self.tx.ops.push(Op::Put(key, value));
        full
    }
}

fn after(key: &[u8]) -> Key {
    [key, &[0]].concat().into()
}
