//! Azure Blob Storage: a container of [`objects`](crate::objects). The validator is the etag, which is another one after every write.
//!
//! Conditions on the etag are honoured by writes, by the end of an upload in parts, and by deletes, so nothing of someone else's is
//! overwritten. A body is sent with its MD5, which the store checks.
//!
//! # Parts
//!
//! Parts are blocks of the blob itself, which nobody sees until the list of blocks is written. The service has no handle for an upload:
//! the marker in the hidden folder is one, and the names of the blocks tell whose they are. Blocks of an upload that was aborted can not
//! be removed; the service drops them with the next write of that blob, or after a week.
//!
//! # Limits
//!
//! Names with a backslash, and such whose parts end in a dot, are refused: the service takes them for others. A listing that begins after a name reads the
//! names before it too. Accounts with a hierarchical namespace are not tried out.

mod wire;
mod xml;

use self::wire::{Ask, Wire};
use crate::{
    Capabilities, Expect, Found, PartId, Settings, StoreError, UnderStoreRef, UploadId, Validator, Write,
    address::{self, AzureAddress},
    exchange::{Answer, exactly, range_header, unquoted},
    join,
    objects::{
        Bucket, Objects, Page, PageAsk, TOKEN, header_value, holds, metadata, of_header_value, staging::Staging,
    },
};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::DateTime;
use http::{HeaderName, Method, header};
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

const METADATA: &str = "x-ms-meta-";
/// Our token's name here: names of metadata are identifiers of C#.
const TOKEN_NAME: &str = "forebay_token";
/// Metadata of one blob may have 8 KiB, names and values together; some of it is for us to spare.
const METADATA_BYTES_MAX: usize = 8000;

/// What the store honours.
#[derive(Clone, Copy, Debug)]
struct Probed {
    put: bool,
    complete: bool,
    metadata: bool,
}

/// The container at `at`, not asked yet.
pub(crate) fn open(at: AzureAddress, settings: &Settings) -> Result<UnderStoreRef, StoreError> {
    let mut options = Vec::new();
    options.extend(at.account.as_ref().map(|account| format!("account={account}")));
    options.extend(at.endpoint.as_ref().map(|endpoint| format!("endpoint={endpoint}")));
    let url = format!("az://{}?{}", join(&at.container, &at.prefix), options.join("&"));
    let bucket = Azure {
        wire: Wire::new(&at, settings)?,
        staging: Staging::new(&at.prefix),
        probed: OnceLock::new(),
    };
    Ok(Arc::new(Objects::new(
        bucket,
        at.prefix,
        address::without_secrets(&url),
    )))
}

/// A container.
#[derive(Debug)]
struct Azure {
    wire: Wire,
    staging: Staging,
    probed: OnceLock<Probed>,
}

type Headers = Vec<(HeaderName, String)>;

/// Refuses what the service would take for another name.
fn checked(key: &str) -> Result<&str, StoreError> {
    let ends_in_dot = |part: &str| part.ends_with('.');
    match key.contains('\\') || key.split('/').any(ends_in_dot) {
        false => Ok(key),
        true => Err(StoreError::Refused(format!(
            "{key}: Azure keeps no name with a backslash, nor one whose parts end in a dot; rename it"
        ))),
    }
}

fn condition(expect: &Expect) -> Option<(HeaderName, String)> {
    match expect {
        Expect::Absent => Some((header::IF_NONE_MATCH, "*".into())),
        Expect::Match(etag) => Some((header::IF_MATCH, format!("\"{}\"", etag.0))),
        Expect::Any => None,
    }
}

fn headers_of(write: &Write) -> Result<Headers, StoreError> {
    let pairs = metadata(write, METADATA_BYTES_MAX)?.into_iter();
    let header = |(name, value): (&str, &str)| {
        let name = if name == TOKEN { TOKEN_NAME } else { name };
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let header = HeaderName::from_bytes(format!("{METADATA}{name}").as_bytes());
        match header {
            Ok(header) if plain => Ok((header, header_value(value))),
            _ => Err(StoreError::Refused(format!(
                "{}: attribute {name:?} cannot be kept in Azure",
                write.key
            ))),
        }
    };
    pairs.map(header).collect()
}

fn found_in(key: &str, answer: &Answer) -> Result<Found, StoreError> {
    let bad = |what: &str| StoreError::Damaged(format!("{key}: HEAD answered without a usable {what}"));
    let size = answer.header("content-length").and_then(|len| len.parse().ok());
    let modified = answer
        .header("last-modified")
        .and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    let mut found = Found {
        size: size.ok_or_else(|| bad("length"))?,
        mtime: modified.map_or(0, |date| date.timestamp_micros()),
        validator: Validator(answer.etag().ok_or_else(|| bad("etag"))?),
        token: None,
        attributes: Vec::new(),
        is_dir: false,
    };
    for (name, value) in &answer.headers {
        let (Some(name), Ok(value)) = (name.as_str().strip_prefix(METADATA), value.to_str()) else {
            continue;
        };
        match name {
            TOKEN_NAME => found.token = Some(of_header_value(value)),
            _ => found.attributes.push((name.to_owned(), of_header_value(value))),
        }
    }
    Ok(found)
}

/// The name of a block: all of a blob have the same length.
fn block(upload: &UploadId, index: u32) -> String {
    BASE64_STANDARD.encode(format!("{}-{index:06}", upload.0))
}

impl Azure {
    async fn put_blob(
        &self,
        key: &str,
        mut headers: Headers,
        chunks: Vec<Bytes>,
    ) -> Result<Option<Validator>, StoreError> {
        headers.push((HeaderName::from_static("x-ms-blob-type"), "BlockBlob".into()));
        let ask = Ask {
            method: Method::PUT,
            key,
            headers,
            body: chunks,
            ..Ask::default()
        };
        Ok(self.wire.ask(ask).await?.etag().map(Validator))
    }

    async fn put_block(&self, key: &str, block: &str, chunks: Vec<Bytes>) -> Result<(), StoreError> {
        let ask = Ask {
            method: Method::PUT,
            key,
            query: &[("comp", "block"), ("blockid", block)],
            body: chunks,
            ..Ask::default()
        };
        self.wire.ask(ask).await.map(drop)
    }

    async fn put_blocks(
        &self,
        key: &str,
        headers: Headers,
        blocks: &[String],
    ) -> Result<Option<Validator>, StoreError> {
        let ask = Ask {
            method: Method::PUT,
            key,
            query: &[("comp", "blocklist")],
            headers,
            body: vec![Bytes::from(xml::block_list(blocks))],
            ..Ask::default()
        };
        Ok(self.wire.ask(ask).await?.etag().map(Validator))
    }

    async fn try_conditions(&self, scratch: &str) -> Result<Probed, StoreError> {
        let body = || vec![Bytes::from_static(b"forebay probe")];
        let absent = || vec![(header::IF_NONE_MATCH, "*".to_owned())];
        let matches = |etag: &str| vec![(header::IF_MATCH, format!("\"{etag}\""))];
        let token = (HeaderName::from_static("x-ms-meta-forebay_token"), "probe".to_owned());
        let first = self.put_blob(scratch, vec![token], body()).await?;
        let first = first.map(|etag| etag.0).unwrap_or_default();
        let metadata = self
            .head(scratch)
            .await?
            .is_some_and(|found| found.token.as_deref() == Some("probe"));
        let refused = holds(self.put_blob(scratch, absent(), body()).await, false)?;
        let matched = holds(self.put_blob(scratch, matches(&first), body()).await, true)?;
        let stale = holds(self.put_blob(scratch, matches(&first), body()).await, false)?;
        let name = block(&UploadId("0".repeat(32)), 0);
        self.put_block(scratch, &name, body()).await?;
        let completed = holds(self.put_blocks(scratch, absent(), &[name]).await, false)?;
        Ok(Probed {
            put: refused && matched && stale,
            complete: completed,
            metadata,
        })
    }
}

#[async_trait]
impl Bucket for Azure {
    async fn probe(&self, scratch: &str) -> Result<Capabilities, StoreError> {
        let probed = self.try_conditions(scratch).await?;
        let probed = *self.probed.get_or_init(|| probed);
        Ok(Capabilities {
            put_if_absent: probed.put,
            put_if_match: probed.put,
            complete_conditional: probed.complete,
            metadata: probed.metadata,
            parallel_parts: true,
            part_bytes_min: 1,
            parts_max: 50_000,
            atomic_rename: false,
        })
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let ask = Ask {
            method: Method::HEAD,
            key,
            ..Ask::default()
        };
        match self.wire.ask(ask).await {
            Ok(answer) => found_in(key, &answer).map(Some),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn page(&self, ask: &PageAsk<'_>) -> Result<Page, StoreError> {
        let most = ask.keys_max.unwrap_or(5000).to_string();
        let mut query = vec![
            ("restype", "container"),
            ("comp", "list"),
            ("prefix", ask.prefix),
            ("maxresults", most.as_str()),
        ];
        if ask.by_directory {
            query.push(("delimiter", "/"));
        }
        query.extend(ask.token.map(|token| ("marker", token)));
        let ask = Ask {
            query: &query,
            answer_bytes_max: 16 << 20,
            ..Ask::default()
        };
        let list = xml::read_list(&self.wire.ask(ask).await?.body)?;
        let object = |blob: xml::Blob| {
            let modified = DateTime::parse_from_rfc2822(&blob.properties.last_modified).ok();
            let found = Found {
                size: blob.properties.content_length,
                mtime: modified.map_or(0, |date| date.timestamp_micros()),
                validator: Validator(unquoted(&blob.properties.etag)),
                token: None,
                attributes: Vec::new(),
                is_dir: false,
            };
            (blob.name, found)
        };
        Ok(Page {
            objects: list.blobs.blob.into_iter().map(object).collect(),
            directories: list.blobs.blob_prefix.into_iter().map(|prefix| prefix.name).collect(),
            next: list.next_marker.filter(|marker| !marker.is_empty()),
        })
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        let len = usize::try_from(range.end - range.start);
        let mut headers = vec![(header::RANGE, range_header(&range))];
        headers.extend(condition(&Expect::Match(validator.clone())));
        let ask = Ask {
            key,
            headers,
            answer_bytes_max: len.map_err(|_| StoreError::Damaged(format!("{key}: too many bytes at once")))?,
            ..Ask::default()
        };
        let answer = self.wire.ask(ask).await?;
        if answer.etag().is_none_or(|etag| etag != validator.0) {
            return Err(StoreError::Changed(key.to_owned()));
        }
        exactly(key, answer, &range)
    }

    async fn put(&self, key: &str, write: Option<&Write>, chunks: Vec<Bytes>) -> Result<Option<Validator>, StoreError> {
        let key = checked(key)?;
        let mut headers = Vec::new();
        if let Some(write) = write {
            headers = headers_of(write)?;
            headers.extend(condition(&write.expect));
        }
        self.put_blob(key, headers, chunks).await
    }

    async fn delete(&self, key: &str, expected: Option<&Validator>) -> Result<(), StoreError> {
        let matching = expected.map(|expected| Expect::Match(expected.clone()));
        let ask = Ask {
            method: Method::DELETE,
            key,
            headers: matching.as_ref().and_then(condition).into_iter().collect(),
            ..Ask::default()
        };
        match self.wire.ask(ask).await {
            Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn start(&self, key: &str, write: &Write) -> Result<UploadId, StoreError> {
        // What cannot be kept is refused before any part is sent.
        headers_of(write)?;
        self.staging.start(self, checked(key)?).await
    }

    async fn part(&self, key: &str, upload: &UploadId, index: u32, chunks: Vec<Bytes>) -> Result<PartId, StoreError> {
        self.staging.check(self, upload).await?;
        let id = block(upload, index);
        self.put_block(key, &id, chunks).await?;
        Ok(PartId { index, id })
    }

    async fn complete(
        &self,
        key: &str,
        write: &Write,
        upload: &UploadId,
        parts: &[PartId],
    ) -> Result<Option<Validator>, StoreError> {
        self.staging.check(self, upload).await?;
        let mut parts: Vec<&PartId> = parts.iter().collect();
        parts.sort_by_key(|part| part.index);
        let blocks: Vec<String> = parts.into_iter().map(|part| part.id.clone()).collect();
        let mut headers = headers_of(write)?;
        headers.extend(condition(&write.expect));
        let made = self.put_blocks(key, headers, &blocks).await?;
        if let Err(error) = self.staging.end(self, upload).await {
            // The object is there; the marker goes when somebody looks for leftovers.
            tracing::warn!(key, %error, "an upload that is complete was not taken off the list");
        }
        Ok(made)
    }

    async fn abort(&self, _key: &str, upload: &UploadId) -> Result<(), StoreError> {
        self.staging.end(self, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(String, UploadId)>, StoreError> {
        self.staging.uploads(self, prefix).await
    }
}

#[cfg(test)]
mod tests;
