//! Compares what Forebay serves with what its under-store has: the same names, and of each the same bytes by SHA-256.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use forebay_client::{Client, EntryKind};
use futures::{Stream, TryStreamExt};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    pub(super) objects: usize,
    pub(super) bytes: u64,
}

/// What an under-store has of Forebay's, as others see it.
pub(super) trait Objects {
    /// Sizes of what lies below a folder, by key.
    async fn sizes(&self, below: &str) -> Result<BTreeMap<String, u64>>;
    /// Checksum of one.
    async fn sha256(&self, key: &str) -> Result<[u8; 32]>;
}

/// Compares everything under `dataset`. The first difference is the error.
pub(super) async fn compare(client: &Client, dataset: &str, objects: &impl Objects) -> Result<Compared> {
    let (mount, inside) = dataset[1..].split_once('/').context("a dataset under a mount")?;
    let prefix = format!("/{mount}/");
    let mut served = BTreeMap::new();
    let mut entries = std::pin::pin!(client.list(dataset, true, None)?);
    while let Some(entry) = entries.try_next().await? {
        if entry.kind == EntryKind::File {
            let path = entry.path.to_string();
            let key = path
                .strip_prefix(&prefix)
                .context("an entry outside its mount")?
                .to_owned();
            served.insert(key, entry.size);
        }
    }
    let stored = objects.sizes(inside).await?;
    ensure!(!served.is_empty(), "nothing is served under {dataset}");
    ensure!(
        served == stored,
        "listings differ: served {served:?}, stored {stored:?}"
    );
    for key in served.keys() {
        let ours = sha256(client.read_file(&format!("{prefix}{key}"), None).await?.into_stream()).await?;
        let theirs = objects.sha256(key).await?;
        ensure!(ours == theirs, "{key} differs between Forebay and its under-store");
    }
    Ok(Compared {
        objects: served.len(),
        bytes: served.values().sum(),
    })
}

/// Checksum of what comes.
pub(super) async fn sha256<E>(bytes: impl Stream<Item = Result<Bytes, E>>) -> Result<[u8; 32], E> {
    let mut bytes = std::pin::pin!(bytes);
    let mut hash = Sha256::new();
    while let Some(piece) = bytes.try_next().await? {
        hash.update(&piece);
    }
    Ok(hash.finalize().into())
}
