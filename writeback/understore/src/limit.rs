//! A bandwidth limit around any under-store: bytes read and written together draw on one bucket of tokens.
//!
//! A request first pays for its bytes and then runs, so a burst is at most one second's worth plus the largest request. It does
//! not limit requests, only bytes.

use crate::{
    Capabilities, Expect, Found, Listed, PartId, StoreError, StoreKey, UnderStore, UnderStoreRef, UploadId, Validator,
    Write,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use std::{ops::Range, time::Duration};
use tokio::time::Instant;

/// An under-store that moves at most so many bytes per second.
#[derive(Debug)]
pub struct Limited {
    inner: UnderStoreRef,
    bytes_per_second: f64,
    /// The instant at which everything that was admitted so far is paid for.
    paid_until: Mutex<Instant>,
}

impl Limited {
    /// Limits `inner`; a limit of 0 counts as 1.
    pub fn new(inner: UnderStoreRef, bytes_per_second_max: u64) -> Self {
        Self {
            inner,
            bytes_per_second: bytes_per_second_max.max(1) as f64,
            paid_until: Mutex::new(Instant::now()),
        }
    }

    async fn pay(&self, bytes: u64) {
        let start = {
            let now = Instant::now();
            let mut paid_until = self.paid_until.lock();
            // What was not used is forgotten after a second.
            let start = (*paid_until).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
            *paid_until = start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
            start
        };
        tokio::time::sleep_until(start).await;
    }
}

fn total(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl UnderStore for Limited {
    fn url(&self) -> &str {
        self.inner.url()
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        self.inner.probe().await
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        self.inner.head(key).await
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        self.inner.list(key, after)
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        self.pay(range.end.saturating_sub(range.start)).await;
        self.inner.read(key, range, validator).await
    }

    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        self.pay(total(&chunks)).await;
        self.inner.put(write, chunks).await
    }

    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        self.inner.start(write).await
    }

    async fn part(
        &self,
        write: &Write,
        upload: &UploadId,
        index: u32,
        offset: u64,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        self.pay(total(&chunks)).await;
        self.inner.part(write, upload, index, offset, chunks).await
    }

    async fn complete(&self, write: &Write, upload: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
        self.inner.complete(write, upload, parts).await
    }

    async fn settle(&self, key: &str) -> Result<(), StoreError> {
        self.inner.settle(key).await
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        self.inner.abort(key, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        self.inner.uploads(prefix).await
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        self.inner.delete(key, expect).await
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        self.inner.make_dir(key).await
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        self.inner.remove_dir(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_worth_of_bytes_take_about_ten_seconds() {
        let store = Limited::new(Arc::new(Memory::new()), 100);
        let began = Instant::now();
        for index in 0..11 {
            let write = Write {
                key: format!("k{index}"),
                size: 100,
                token: "t".into(),
                attributes: Vec::new(),
                expect: Expect::Absent,
            };
            store.put(&write, vec![Bytes::from(vec![0; 100])]).await.unwrap();
        }
        // The first is free, and one second of credit does not exist at the start.
        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(9) && took <= Duration::from_secs(11),
            "{took:?}"
        );
    }
}
