//! S3 (Ceph's RADOS gateway, AWS and what speaks like them): a bucket of [`objects`](crate::objects). The validator is the etag.
//!
//! One Ceph refuses `If-Match` with the quotes it hands out, and ignores conditions at the end of a multipart upload; a delete takes no
//! condition anywhere. What is sent is what the probe saw work.
//!
//! Small objects are compared with their etag where that is an MD5 ([`sum`]); what does not fit is `Damaged`.

mod sum;
mod wire;
mod xml;

use self::wire::{Answer, Ask, Wire};
use crate::{
    Capabilities, Expect, Found, PartId, Peeked, Settings, StoreError, UnderStoreRef, UploadId, Validator, Write,
    address::{self, S3Address},
    exchange::{self, exactly, range_header, unquoted},
    join,
    objects::{Bucket, Objects, Page, PageAsk, TOKEN, header_value, holds, metadata, of_header_value},
};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use http::{HeaderName, Method, header};
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

const METADATA: &str = "x-amz-meta-";

/// User metadata of one object may have this many bytes, names and values together.
const METADATA_BYTES_MAX: usize = 2000;

/// A larger object is not copied in one request.
const COPIED_BYTES_MAX: u64 = 5 << 30;

/// How the store wants an etag in `If-Match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatchStyle {
    Quoted,
    Bare,
    Ignored,
}

#[derive(Clone, Copy, Debug)]
struct Probed {
    put_if_absent: bool,
    if_match: MatchStyle,
    complete_conditional: bool,
    metadata: bool,
    /// An etag is the MD5 of what was put.
    md5: bool,
}

/// The bucket at `at`, not asked yet.
pub(crate) fn open(at: S3Address, settings: &Settings) -> Result<UnderStoreRef, StoreError> {
    let mut url = format!("s3://{}", join(&at.bucket, &at.prefix));
    if let Some(endpoint) = &at.endpoint {
        url = address::without_secrets(&format!("{url}?endpoint={endpoint}"));
    }
    let bucket = S3 {
        wire: Wire::new(&at, settings)?,
        name: at.bucket.clone(),
        md5_bytes_max: settings.md5_bytes_max,
        probed: OnceLock::new(),
    };
    Ok(Arc::new(Objects::new(bucket, at.prefix, url)))
}

/// A bucket.
#[derive(Debug)]
struct S3 {
    wire: Wire,
    name: String,
    md5_bytes_max: u64,
    probed: OnceLock<Probed>,
}

impl S3 {
    async fn list_page(&self, query: &[(&str, &str)]) -> Result<xml::ListBucket, StoreError> {
        let mut all = vec![("list-type", "2")];
        all.extend_from_slice(query);
        let ask = Ask {
            query: &all,
            answer_bytes_max: 8 << 20,
            ..Ask::default()
        };
        xml::read("list", &self.wire.ask(ask).await?.body)
    }

    /// The header that makes a write conditional, where the probe saw it work.
    fn condition(&self, expect: &Expect, at_complete: bool) -> Option<(HeaderName, String)> {
        let probed = self.probed.get()?;
        if at_complete && !probed.complete_conditional {
            return None;
        }
        match (expect, probed.if_match) {
            (Expect::Absent, _) if probed.put_if_absent => Some((header::IF_NONE_MATCH, "*".into())),
            (Expect::Match(etag), MatchStyle::Quoted) => Some((header::IF_MATCH, format!("\"{}\"", etag.0))),
            (Expect::Match(etag), MatchStyle::Bare) => Some((header::IF_MATCH, etag.0.clone())),
            _ => None,
        }
    }

    /// The bytes of an answer to a request for `range`: exactly those, and those of the etag where it tells.
    fn bytes_of(&self, key: &str, answer: Answer, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let is_whole = range.start == 0 && size_in(&answer).and_then(|size| size.parse().ok()) == Some(range.end);
        let is_compared =
            is_whole && range.end <= self.md5_bytes_max && self.probed.get().is_some_and(|probed| probed.md5);
        let told = if is_compared { sum::told(&answer) } else { None };
        let bytes = exactly(key, answer, range)?;
        match told.is_none_or(|told| told == sum::of(&bytes)) {
            true => Ok(bytes),
            false => Err(StoreError::Damaged(format!(
                "{key}: {} bytes arrived whose MD5 is not the object's etag",
                bytes.len()
            ))),
        }
    }

    async fn put_raw(
        &self,
        full: &str,
        headers: Vec<(HeaderName, String)>,
        body: Vec<Bytes>,
    ) -> Result<Answer, StoreError> {
        self.wire
            .ask(Ask {
                method: Method::PUT,
                key: full,
                headers,
                body,
                ..Ask::default()
            })
            .await
    }

    async fn upload_part(
        &self,
        full: &str,
        upload: &UploadId,
        index: u32,
        body: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        let number = (index + 1).to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", upload.0.as_str())];
        let ask = Ask {
            method: Method::PUT,
            key: full,
            query: &query,
            body,
            ..Ask::default()
        };
        let id = self.wire.ask(ask).await?.etag();
        let id = id.ok_or_else(|| StoreError::Damaged(format!("{full}: part {index} was answered without an etag")))?;
        Ok(PartId { index, id })
    }

    async fn start_upload(&self, full: &str, headers: Vec<(HeaderName, String)>) -> Result<UploadId, StoreError> {
        let ask = Ask {
            method: Method::POST,
            key: full,
            query: &[("uploads", "")],
            headers,
            ..Ask::default()
        };
        let initiated: xml::Initiated = xml::read(full, &self.wire.ask(ask).await?.body)?;
        Ok(UploadId(initiated.upload_id))
    }

    async fn complete_upload(
        &self,
        full: &str,
        upload: &UploadId,
        parts: &[PartId],
        condition: Option<(HeaderName, String)>,
    ) -> Result<String, StoreError> {
        let mut headers = vec![(header::CONTENT_TYPE, "application/xml".to_owned())];
        headers.extend(condition);
        let query = [("uploadId", upload.0.as_str())];
        let body = vec![Bytes::from(xml::complete(parts))];
        let ask = Ask {
            method: Method::POST,
            key: full,
            query: &query,
            headers,
            body,
            ..Ask::default()
        };
        let completed: xml::Completed = xml::read(full, &self.wire.ask(ask).await?.body)?;
        Ok(unquoted(&completed.etag))
    }

    async fn abort_upload(&self, full: &str, upload: &UploadId) -> Result<(), StoreError> {
        let query = [("uploadId", upload.0.as_str())];
        match self
            .wire
            .ask(Ask {
                method: Method::DELETE,
                key: full,
                query: &query,
                ..Ask::default()
            })
            .await
        {
            Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tries each condition on a key of our own.
    async fn try_conditions(&self, full: &str) -> Result<Probed, StoreError> {
        const BODY: &[u8] = b"forebay probe";
        let body = || vec![Bytes::from_static(BODY)];
        let none_match = || (header::IF_NONE_MATCH, "*".to_owned());
        let token = (HeaderName::from_static("x-amz-meta-forebay-token"), "probe".to_owned());
        let first = self.put_raw(full, vec![token], body()).await?;
        let etag = first.etag().unwrap_or_default();
        let put_if_absent = holds(self.put_raw(full, vec![none_match()], body()).await, false)?;
        let mut if_match = MatchStyle::Ignored;
        for (style, value) in [
            (MatchStyle::Quoted, format!("\"{etag}\"")),
            (MatchStyle::Bare, etag.clone()),
        ] {
            let matching = self.put_raw(full, vec![(header::IF_MATCH, value)], body()).await;
            let other = "0123456789abcdef0123456789abcdef";
            let other = if style == MatchStyle::Quoted {
                format!("\"{other}\"")
            } else {
                other.into()
            };
            let stale = self.put_raw(full, vec![(header::IF_MATCH, other)], body()).await;
            if if_match == MatchStyle::Ignored && holds(matching, true)? && holds(stale, false)? {
                if_match = style;
            }
        }
        let upload = self.start_upload(full, Vec::new()).await?;
        let part = self.upload_part(full, &upload, 0, body()).await?;
        let completed = self.complete_upload(full, &upload, &[part], Some(none_match())).await;
        let complete_conditional = put_if_absent && holds(completed, false)?;
        // Also where the end was refused: the parts must not stay.
        self.abort_upload(full, &upload).await.or_else(|error| match error {
            // One gateway answers so when the upload is gone.
            StoreError::Unavailable(_) if !complete_conditional => Ok(()),
            error => Err(error),
        })?;
        let answer = self.put_raw(
            full,
            vec![(HeaderName::from_static("x-amz-meta-forebay-token"), "p2".into())],
            body(),
        );
        answer.await?;
        let metadata = self
            .head(full)
            .await?
            .is_some_and(|found| found.token.as_deref() == Some("p2"));
        Ok(Probed {
            put_if_absent,
            if_match,
            complete_conditional,
            metadata,
            md5: sum::of_etag(&etag) == Some(sum::of(BODY)),
        })
    }
}

/// The size of the object that an answer has bytes of.
fn size_in(answer: &Answer) -> Option<&str> {
    let told = answer.header("content-range").and_then(|told| told.split_once('/'));
    told.map(|(_, size)| size).or_else(|| answer.header("content-length"))
}

/// What the head of an answer says of an object, whose size it says by `size`.
fn found_in(full: &str, answer: &Answer, size: Option<&str>) -> Result<Found, StoreError> {
    let bad = |what: &str| StoreError::Damaged(format!("{full}: answered without a usable {what}"));
    let size = size.and_then(|size| size.parse().ok()).ok_or_else(|| bad("length"))?;
    let modified = answer
        .header("last-modified")
        .and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    let mut token = None;
    let mut attributes = Vec::new();
    for (name, value) in &answer.headers {
        let (Some(name), Ok(value)) = (name.as_str().strip_prefix(METADATA), value.to_str()) else {
            continue;
        };
        if name == TOKEN {
            token = Some(value.to_owned());
        } else {
            attributes.push((name.to_owned(), of_header_value(value)));
        }
    }
    Ok(Found {
        size,
        mtime: modified.map_or(0, |date| date.timestamp_micros()),
        validator: Validator(answer.etag().ok_or_else(|| bad("etag"))?),
        token,
        attributes,
        is_dir: false,
    })
}

/// Token and attributes as headers.
fn headers_of(write: &Write) -> Result<Vec<(HeaderName, String)>, StoreError> {
    let pairs = metadata(write, METADATA_BYTES_MAX)?.into_iter();
    let header = |(name, value): (&str, &str)| {
        let header = HeaderName::from_bytes(format!("{METADATA}{name}").as_bytes());
        let header = header
            .map_err(|_| StoreError::Refused(format!("{}: attribute {name:?} cannot be kept in S3", write.key)))?;
        // The token is ours and plain.
        let value = if name == TOKEN {
            value.to_owned()
        } else {
            header_value(value)
        };
        Ok((header, value))
    };
    pairs.map(header).collect()
}

#[async_trait]
impl Bucket for S3 {
    async fn probe(&self, scratch: &str) -> Result<Capabilities, StoreError> {
        let probed = self.try_conditions(scratch).await?;
        let probed = *self.probed.get_or_init(|| probed);
        Ok(Capabilities {
            put_if_absent: probed.put_if_absent,
            put_if_match: probed.if_match != MatchStyle::Ignored,
            complete_conditional: probed.complete_conditional,
            metadata: probed.metadata,
            parallel_parts: true,
            part_bytes_min: 5 << 20,
            parts_max: 10_000,
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
            Ok(answer) => found_in(key, &answer, answer.header("content-length")).map(Some),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn peek(&self, key: &str, bytes_max: u64) -> Result<Option<Peeked>, StoreError> {
        let ask = Ask {
            key,
            headers: vec![(header::RANGE, range_header(&(0..bytes_max)))],
            answer_bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            ..Ask::default()
        };
        let answer = match self.wire.ask(ask).await {
            Ok(answer) => answer,
            Err(StoreError::NotFound(_)) => return Ok(None),
            // Of an empty object there is no range, and who answers with more does not know ranges.
            Err(StoreError::Changed(_) | StoreError::Damaged(_)) => {
                return Ok(self.head(key).await?.map(Peeked::from));
            }
            Err(error) => return Err(error),
        };
        let found = found_in(key, &answer, size_in(&answer))?;
        if found.size > bytes_max {
            return Ok(Some(Peeked::from(found)));
        }
        // Where they are damaged, who wants them asks for them.
        let bytes = self.bytes_of(key, answer, &(0..found.size)).ok();
        Ok(Some(Peeked { found, bytes }))
    }

    async fn page(&self, ask: &PageAsk<'_>) -> Result<Page, StoreError> {
        let keys_max = ask.keys_max.map(|most| most.to_string());
        let mut query = vec![("prefix", ask.prefix)];
        if ask.by_directory {
            query.push(("delimiter", "/"));
        }
        match (ask.token, ask.after) {
            (Some(token), _) => query.push(("continuation-token", token)),
            (None, Some(after)) => query.push(("start-after", after)),
            (None, None) => {}
        }
        query.extend(keys_max.as_deref().map(|most| ("max-keys", most)));
        let page = self.list_page(&query).await?;
        let object = |content: xml::Content| {
            let found = Found {
                size: content.size,
                mtime: content.last_modified.timestamp_micros(),
                validator: Validator(unquoted(&content.etag)),
                token: None,
                attributes: Vec::new(),
                is_dir: false,
            };
            (content.key, found)
        };
        Ok(Page {
            objects: page.contents.into_iter().map(object).collect(),
            directories: page.common_prefixes.into_iter().map(|prefix| prefix.prefix).collect(),
            next: page.next_continuation_token,
        })
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        let len = usize::try_from(range.end - range.start);
        let ask = Ask {
            key,
            headers: vec![(header::RANGE, range_header(&range))],
            answer_bytes_max: len.map_err(|_| StoreError::Damaged(format!("{key}: too many bytes at once")))?,
            ..Ask::default()
        };
        let answer = self.wire.ask(ask).await?;
        if answer.etag().is_none_or(|etag| etag != validator.0) {
            return Err(StoreError::Changed(key.to_owned()));
        }
        self.bytes_of(key, answer, &range)
    }

    async fn put(&self, key: &str, write: Option<&Write>, chunks: Vec<Bytes>) -> Result<Option<Validator>, StoreError> {
        let mut headers = Vec::new();
        if let Some(write) = write {
            headers = headers_of(write)?;
            headers.extend(self.condition(&write.expect, false));
        }
        Ok(self.put_raw(key, headers, chunks).await?.etag().map(Validator))
    }

    /// By a copy of the object onto itself, which takes no condition on what it replaces: who writes the key while the store copies is
    /// overwritten.
    async fn set_attributes(&self, key: &str, write: &Write) -> Result<bool, StoreError> {
        let Expect::Match(etag) = &write.expect else {
            return Ok(false);
        };
        if write.size > COPIED_BYTES_MAX {
            return Ok(false);
        }
        let mut headers = headers_of(write)?;
        let source = format!("{}/{}", self.name, exchange::path(key));
        headers.extend([
            (HeaderName::from_static("x-amz-copy-source"), source),
            (
                HeaderName::from_static("x-amz-copy-source-if-match"),
                format!("\"{}\"", etag.0),
            ),
            (
                HeaderName::from_static("x-amz-metadata-directive"),
                "REPLACE".to_owned(),
            ),
        ]);
        let answer = self.put_raw(key, headers, Vec::new()).await?;
        // 200 comes before the copy has ended.
        xml::read::<xml::Completed>(key, &answer.body)?;
        Ok(true)
    }

    async fn delete(&self, key: &str, _expected: Option<&Validator>) -> Result<(), StoreError> {
        let ask = Ask {
            method: Method::DELETE,
            key,
            ..Ask::default()
        };
        match self.wire.ask(ask).await {
            Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn start(&self, key: &str, write: &Write) -> Result<UploadId, StoreError> {
        self.start_upload(key, headers_of(write)?).await
    }

    async fn part(&self, key: &str, upload: &UploadId, index: u32, chunks: Vec<Bytes>) -> Result<PartId, StoreError> {
        self.upload_part(key, upload, index, chunks).await
    }

    async fn complete(
        &self,
        key: &str,
        write: &Write,
        upload: &UploadId,
        parts: &[PartId],
    ) -> Result<Option<Validator>, StoreError> {
        let condition = self.condition(&write.expect, true);
        let etag = self.complete_upload(key, upload, parts, condition).await?;
        Ok(Some(Validator(etag)))
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        self.abort_upload(key, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(String, UploadId)>, StoreError> {
        let mut uploads = Vec::new();
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        loop {
            let mut query = vec![("uploads", ""), ("prefix", prefix)];
            if !key_marker.is_empty() {
                query.extend([
                    ("key-marker", key_marker.as_str()),
                    ("upload-id-marker", id_marker.as_str()),
                ]);
            }
            let ask = Ask {
                query: &query,
                answer_bytes_max: 8 << 20,
                ..Ask::default()
            };
            let page: xml::Uploads = xml::read("uploads", &self.wire.ask(ask).await?.body)?;
            let found = page.upload.into_iter();
            uploads.extend(found.map(|upload| (upload.key, UploadId(upload.upload_id))));
            match (page.is_truncated, page.next_key_marker) {
                (true, Some(next)) if next > key_marker || page.next_upload_id_marker.is_some() => {
                    key_marker = next;
                    id_marker = page.next_upload_id_marker.unwrap_or_default();
                }
                _ => return Ok(uploads),
            }
        }
    }
}

#[cfg(test)]
mod tests;
