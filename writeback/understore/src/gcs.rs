//! Google Cloud Storage: a bucket of [`objects`](crate::objects), by its JSON API. The validator is the generation.
//!
//! Conditions on the generation are honoured by writes, compositions and deletes alike, so nothing of someone else's is overwritten. A
//! body is sent with its CRC32C, which the store checks.
//!
//! # Parts
//!
//! Each part is an object of its own in the hidden folder of the mount, beside the upload's marker. `complete` composes them, 32 at a
//! time, into the object, and deletes them. What a crash leaves is found by its marker and removed; a bucket whose class charges for
//! early deletion charges for the parts.

mod wire;

use self::wire::{Ask, Body, Resource, Wire};
use crate::{
    Capabilities, Expect, Found, PartId, Settings, StoreError, UnderStoreRef, UploadId, Validator, Write,
    address::{self, GcsAddress},
    join,
    objects::{Bucket, Objects, Page, PageAsk, TOKEN, holds, metadata, staging::Staging},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::Method;
use serde_json::json;
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

/// Metadata of one object may have 8 KiB, names and values together; some of it is for us to spare.
const METADATA_BYTES_MAX: usize = 8000;
/// Objects that one composition takes.
const COMPOSED_MAX: usize = 32;
/// Parts deleted at once.
const DELETES_PARALLEL: usize = 16;

/// What the store honours.
#[derive(Clone, Copy, Debug)]
struct Probed {
    put: bool,
    compose: bool,
    metadata: bool,
}

/// The bucket at `at`, not asked yet.
pub(crate) fn open(at: GcsAddress, settings: &Settings) -> Result<UnderStoreRef, StoreError> {
    let mut url = format!("gs://{}", join(&at.bucket, &at.prefix));
    if let Some(endpoint) = &at.endpoint {
        url = address::without_secrets(&format!("{url}?endpoint={endpoint}"));
    }
    let bucket = Gcs {
        wire: Wire::new(&at, settings)?,
        staging: Staging::new(&at.prefix),
        probed: OnceLock::new(),
    };
    Ok(Arc::new(Objects::new(bucket, at.prefix, url)))
}

/// A bucket.
#[derive(Debug)]
struct Gcs {
    wire: Wire,
    staging: Staging,
    probed: OnceLock<Probed>,
}

/// The generation that must be there, where a write is conditional: none is generation 0.
fn condition(expect: &Expect) -> Option<&str> {
    match expect {
        Expect::Absent => Some("0"),
        Expect::Match(validator) => Some(&validator.0),
        Expect::Any => None,
    }
}

fn found_in(resource: Resource) -> Found {
    let mut found = Found {
        size: resource.size,
        mtime: resource.updated.timestamp_micros(),
        validator: Validator(resource.generation),
        token: None,
        attributes: Vec::new(),
        is_dir: false,
    };
    for (name, value) in resource.metadata {
        match name.as_str() {
            TOKEN => found.token = Some(value),
            _ => found.attributes.push((name, value)),
        }
    }
    found
}

impl Gcs {
    async fn upload(
        &self,
        key: &str,
        pairs: &[(&str, &str)],
        chunks: Vec<Bytes>,
        generation: Option<&str>,
    ) -> Result<Validator, StoreError> {
        let answer = self.wire.upload(key, pairs, chunks, generation).await;
        // Without a bucket there is nothing to write to: no retry will help.
        let resource = answer.map_err(|error| match error {
            StoreError::NotFound(text) => StoreError::Refused(text),
            error => error,
        })?;
        Ok(Validator(resource.generation))
    }

    /// Makes `key` of `sources`, given with their generations.
    async fn compose(
        &self,
        key: &str,
        sources: &[(String, String)],
        pairs: &[(&str, &str)],
        generation: Option<&str>,
    ) -> Result<Validator, StoreError> {
        let metadata: serde_json::Map<String, serde_json::Value> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let source = |(name, generation): &(String, String)| json!({ "name": name, "generation": generation });
        let sources: Vec<serde_json::Value> = sources.iter().map(source).collect();
        let body = json!({
            "sourceObjects": sources,
            "destination": { "contentType": "application/octet-stream", "metadata": metadata },
        });
        let query: Vec<(&str, &str)> = generation
            .map(|generation| ("ifGenerationMatch", generation))
            .into_iter()
            .collect();
        let ask = Ask {
            method: Method::POST,
            key,
            verb: "/compose",
            query: &query,
            body: Body::Json(body),
        };
        let resource: Resource = self.wire.ask_json(ask).await?;
        Ok(Validator(resource.generation))
    }

    /// Joins sources until so few are left that one composition takes them.
    async fn narrow(
        &self,
        folder: &str,
        mut sources: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let mut level = 0;
        while sources.len() > COMPOSED_MAX {
            let mut joined = Vec::with_capacity(sources.len() / COMPOSED_MAX + 1);
            for (index, some) in sources.chunks(COMPOSED_MAX).enumerate() {
                let key = format!("{folder}/joined-{level}-{index:05}");
                let made = self.compose(&key, some, &[], None).await?;
                joined.push((key, made.0));
            }
            (sources, level) = (joined, level + 1);
        }
        Ok(sources)
    }

    /// Removes all parts of an upload, then its marker.
    async fn clear(&self, upload: &UploadId) -> Result<(), StoreError> {
        let Ok(marker) = self.staging.marker(upload) else {
            return Ok(());
        };
        let folder = format!("{marker}/");
        loop {
            let ask = PageAsk {
                prefix: &folder,
                ..PageAsk::default()
            };
            let page = self.page(&ask).await?;
            let parts = futures::stream::iter(page.objects);
            let deletes = parts.map(|(key, _)| async move { self.delete(&key, None).await });
            deletes
                .buffer_unordered(DELETES_PARALLEL)
                .try_collect::<Vec<()>>()
                .await?;
            if page.next.is_none() {
                break;
            }
        }
        self.staging.end(self, upload).await
    }

    async fn try_conditions(&self, scratch: &str) -> Result<Probed, StoreError> {
        let body = || vec![Bytes::from_static(b"forebay probe")];
        let first = self.upload(scratch, &[(TOKEN, "probe")], body(), None).await?;
        let found = self.head(scratch).await?;
        let absent = holds(self.upload(scratch, &[], body(), Some("0")).await, false)?;
        let second = self.upload(scratch, &[], body(), Some(&first.0)).await;
        let now = second.as_ref().map_or_else(|_| first.clone(), Clone::clone);
        let matching = holds(second, true)?;
        let stale = holds(self.upload(scratch, &[], body(), Some("1")).await, false)?;
        let source = [(scratch.to_owned(), now.0)];
        let composed = holds(self.compose(scratch, &source, &[], Some("1")).await, false)?;
        Ok(Probed {
            put: absent && matching && stale,
            compose: composed,
            metadata: found.is_some_and(|found| found.token.as_deref() == Some("probe")),
        })
    }
}

#[async_trait]
impl Bucket for Gcs {
    async fn probe(&self, scratch: &str) -> Result<Capabilities, StoreError> {
        let probed = self.try_conditions(scratch).await?;
        let probed = *self.probed.get_or_init(|| probed);
        Ok(Capabilities {
            put_if_absent: probed.put,
            put_if_match: probed.put,
            complete_conditional: probed.compose,
            metadata: probed.metadata,
            parallel_parts: true,
            part_bytes_min: 1,
            parts_max: 10_000,
            atomic_rename: false,
        })
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let ask = Ask { key, ..Ask::default() };
        match self.wire.ask_json(ask).await {
            Ok(resource) => Ok(Some(found_in(resource))),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn page(&self, ask: &PageAsk<'_>) -> Result<Page, StoreError> {
        let most = ask.keys_max.unwrap_or(1000).to_string();
        let mut query = vec![("prefix", ask.prefix), ("maxResults", most.as_str())];
        if ask.by_directory {
            query.push(("delimiter", "/"));
        }
        query.extend(ask.after.map(|after| ("startOffset", after)));
        query.extend(ask.token.map(|token| ("pageToken", token)));
        let ask = Ask {
            query: &query,
            ..Ask::default()
        };
        let page: wire::List = self.wire.ask_json(ask).await.map_err(|error| match error {
            StoreError::NotFound(text) => StoreError::Refused(text),
            error => error,
        })?;
        let object = |mut resource: Resource| {
            // Only `head` tells of what is kept with an object.
            resource.metadata.clear();
            (std::mem::take(&mut resource.name), found_in(resource))
        };
        Ok(Page {
            objects: page.items.into_iter().map(object).collect(),
            directories: page.prefixes,
            next: page.next_page_token,
        })
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        self.wire.read(key, range, &validator.0).await
    }

    async fn put(&self, key: &str, write: Option<&Write>, chunks: Vec<Bytes>) -> Result<Option<Validator>, StoreError> {
        let (pairs, generation) = match write {
            Some(write) => (metadata(write, METADATA_BYTES_MAX)?, condition(&write.expect)),
            None => (Vec::new(), None),
        };
        self.upload(key, &pairs, chunks, generation).await.map(Some)
    }

    async fn delete(&self, key: &str, expected: Option<&Validator>) -> Result<(), StoreError> {
        let query: Vec<(&str, &str)> = expected
            .map(|expected| ("ifGenerationMatch", expected.0.as_str()))
            .into_iter()
            .collect();
        let ask = Ask {
            method: Method::DELETE,
            key,
            query: &query,
            ..Ask::default()
        };
        match self.wire.ask(ask).await {
            Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn start(&self, key: &str, write: &Write) -> Result<UploadId, StoreError> {
        // What cannot be kept is refused before any part is sent.
        metadata(write, METADATA_BYTES_MAX)?;
        self.staging.start(self, key).await
    }

    async fn part(&self, _key: &str, upload: &UploadId, index: u32, chunks: Vec<Bytes>) -> Result<PartId, StoreError> {
        self.staging.check(self, upload).await?;
        let part = format!("{}/part-{index:05}", self.staging.marker(upload)?);
        let generation = self.upload(&part, &[], chunks, None).await?;
        Ok(PartId {
            index,
            id: generation.0,
        })
    }

    async fn complete(
        &self,
        key: &str,
        write: &Write,
        upload: &UploadId,
        parts: &[PartId],
    ) -> Result<Option<Validator>, StoreError> {
        self.staging.check(self, upload).await?;
        let folder = self.staging.marker(upload)?;
        let mut parts: Vec<&PartId> = parts.iter().collect();
        parts.sort_by_key(|part| part.index);
        let source = |part: &&PartId| (format!("{folder}/part-{:05}", part.index), part.id.clone());
        let sources = self.narrow(&folder, parts.iter().map(source).collect()).await?;
        let pairs = metadata(write, METADATA_BYTES_MAX)?;
        let made = self.compose(key, &sources, &pairs, condition(&write.expect)).await?;
        if let Err(error) = self.clear(upload).await {
            // The object is there; the marker tells whoever looks for leftovers.
            tracing::warn!(key, %error, "parts that are joined were not removed");
        }
        Ok(Some(made))
    }

    async fn abort(&self, _key: &str, upload: &UploadId) -> Result<(), StoreError> {
        self.clear(upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(String, UploadId)>, StoreError> {
        self.staging.uploads(self, prefix).await
    }
}

#[cfg(test)]
mod tests;
