//! Limits around any under-store: bytes per second, read and written together, and requests per second. Each draws on a bucket of
//! tokens of its own.
//!
//! A request first pays and then runs, so a burst is at most one second's worth plus the largest request. A listing pays for one
//! request, however many pages it takes; a store that answers a call by several requests of its own (HDFS) pays for one.

use crate::{
    Capabilities, Expect, Found, Listed, PartId, Peeked, StoreError, StoreKey, UnderStore, UnderStoreRef, UploadId,
    Validator, Write,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use std::{ops::Range, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Limits of a store; none: unlimited. 0 counts as 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes per second, reads and writes together.
    pub bytes_per_second: Option<u64>,
    /// Requests per second.
    pub requests_per_second: Option<u64>,
}

/// An under-store that moves at most so many bytes per second and answers so many requests.
#[derive(Debug)]
pub struct Limited {
    inner: UnderStoreRef,
    buckets: Arc<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    bytes: Option<Bucket>,
    requests: Option<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// The instant at which everything that was admitted so far is paid for.
    paid_until: Mutex<Instant>,
}

impl Bucket {
    fn new(per_second: u64) -> Self {
        Self {
            per_second: per_second.max(1) as f64,
            paid_until: Mutex::new(Instant::now()),
        }
    }

    async fn pay(&self, count: u64) {
        let start = {
            let now = Instant::now();
            let mut paid_until = self.paid_until.lock();
            // What was not used is forgotten after a second.
            let start = (*paid_until).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
            *paid_until = start + Duration::from_secs_f64(count as f64 / self.per_second);
            start
        };
        tokio::time::sleep_until(start).await;
    }
}

impl Buckets {
    /// Pays for one request with so many bytes.
    async fn pay(&self, bytes: u64) {
        if let Some(requests) = &self.requests {
            requests.pay(1).await;
        }
        if let Some(of_bytes) = self.bytes.as_ref().filter(|_| bytes > 0) {
            of_bytes.pay(bytes).await;
        }
    }
}

impl Limited {
    /// Limits `inner`; itself where nothing is limited.
    pub fn wrap(inner: UnderStoreRef, limits: Limits) -> UnderStoreRef {
        if limits == Limits::default() {
            return inner;
        }
        let buckets = Buckets {
            bytes: limits.bytes_per_second.map(Bucket::new),
            requests: limits.requests_per_second.map(Bucket::new),
        };
        Arc::new(Self {
            inner,
            buckets: Arc::new(buckets),
        })
    }

    async fn pay(&self, bytes: u64) {
        self.buckets.pay(bytes).await;
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

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        self.pay(0).await;
        self.inner.probe().await
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        self.pay(0).await;
        self.inner.head(key).await
    }

    async fn peek(&self, key: &str, bytes_max: u64) -> Result<Option<Peeked>, StoreError> {
        self.pay(0).await;
        // Bytes that nobody asked for are not worth waiting for.
        match self.buckets.bytes.is_some() {
            true => Ok(self.inner.head(key).await?.map(Peeked::from)),
            false => self.inner.peek(key, bytes_max).await,
        }
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        let (listed, buckets) = (self.inner.list(key, after), Arc::clone(&self.buckets));
        let paid = async move {
            buckets.pay(0).await;
            listed
        };
        stream::once(paid).flatten().boxed()
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
        self.pay(0).await;
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
        self.pay(0).await;
        self.inner.complete(write, upload, parts).await
    }

    async fn settle(&self, key: &str) -> Result<(), StoreError> {
        self.pay(0).await;
        self.inner.settle(key).await
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        self.pay(0).await;
        self.inner.abort(key, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        self.pay(0).await;
        self.inner.uploads(prefix).await
    }

    async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        self.pay(0).await;
        self.inner.set_attributes(write).await
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        self.pay(0).await;
        self.inner.delete(key, expect).await
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        self.pay(0).await;
        self.inner.make_dir(key).await
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        self.pay(0).await;
        self.inner.remove_dir(key).await
    }

    fn dates_names(&self) -> bool {
        self.inner.dates_names()
    }

    async fn unmark_dir(&self, key: &str) -> Result<bool, StoreError> {
        self.pay(0).await;
        self.inner.unmark_dir(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Call, Memory};

    fn write(index: usize, size: u64) -> Write {
        Write {
            key: format!("k{index}"),
            size,
            token: "t".into(),
            attributes: Vec::new(),
            expect: Expect::Absent,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_worth_of_bytes_take_about_ten_seconds() {
        let limits = Limits {
            bytes_per_second: Some(100),
            ..Limits::default()
        };
        let store = Limited::wrap(Arc::new(Memory::new()), limits);
        let began = Instant::now();
        for index in 0..11 {
            store
                .put(&write(index, 100), vec![Bytes::from(vec![0; 100])])
                .await
                .unwrap();
            store.head("k0").await.unwrap();
        }
        // The first is free, and one second of credit does not exist at the start.
        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(9) && took <= Duration::from_secs(11),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_worth_of_requests_take_about_ten_seconds_whatever_they_are() {
        let limits = Limits {
            requests_per_second: Some(4),
            ..Limits::default()
        };
        let memory = Memory::new();
        let store = Limited::wrap(Arc::new(memory.clone()), limits);
        let began = Instant::now();
        for index in 0..10 {
            store
                .put(&write(index, 1), vec![Bytes::from_static(b"x")])
                .await
                .unwrap();
            store.head("k0").await.unwrap();
            store.delete(&format!("k{index}"), &Expect::Absent).await.ok();
            store.list("", None).next().await.transpose().unwrap();
        }
        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(9) && took <= Duration::from_secs(11),
            "{took:?}"
        );
        assert_eq!(memory.calls(Call::Put), 10);
        // Nothing is kept for later beyond a second's worth.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..12 {
            store.head("k0").await.unwrap();
        }
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(1500) && took <= Duration::from_millis(2100),
            "{took:?}"
        );
    }
}
