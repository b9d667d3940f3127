//! S3 (Ceph's RADOS gateway, AWS and what speaks like them) as an under-store: one object per file, under its own name.
//!
//! Our token, POSIX attributes and mtime travel as user metadata. A directory exists by what lies under it; an empty one is a
//! zero-byte key that ends in `/`. The validator is the etag.
//!
//! Conditions: what a gateway honours is found by trying ([`UnderStore::probe`]), never from its version. One Ceph refuses
//! `If-Match` with the quotes it hands out, and ignores conditions at the end of a multipart upload. So every write asks `HEAD`
//! first and sends the condition too where the probe saw it work. Where it did not, whoever writes the key between our `HEAD` and
//! our `PUT` or `Complete` (one round trip) is overwritten; the same holds for a conditional delete.
//!
//! After every write `HEAD` proves size and token. An `Unavailable` write may have happened: `HEAD` tells by the token.

mod wire;
mod xml;

use self::wire::{Answer, Ask, Wire, unquoted};
use crate::{
    Capabilities, Expect, Found, Listed, PartId, Settings, StoreError, StoreKey, UnderStore, UploadId, Validator,
    Write,
    address::{self, S3Address},
    check_key, join,
};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::{StreamExt, stream::BoxStream};
use http::{HeaderName, Method, header};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, OnceLock},
};

const TOKEN: &str = "forebay-token";
const METADATA: &str = "x-amz-meta-";

/// User metadata of one object may have this many bytes, names and values together.
const METADATA_BYTES_MAX: usize = 2000;

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
}

/// A bucket, or a prefix of one.
#[derive(Clone, Debug)]
pub struct S3 {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wire: Wire,
    prefix: String,
    url: String,
    probed: OnceLock<Probed>,
}

impl S3 {
    /// The bucket at `at`, not asked yet. Credentials come from the environment.
    pub fn new(at: S3Address, settings: &Settings) -> Result<Self, StoreError> {
        let wire = Wire::new(&at, settings)?;
        let mut url = format!("s3://{}", join(&at.bucket, &at.prefix));
        if let Some(endpoint) = &at.endpoint {
            url = address::without_secrets(&format!("{url}?endpoint={endpoint}"));
        }
        let shared = Shared {
            wire,
            prefix: at.prefix,
            url,
            probed: OnceLock::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    /// The key within the bucket.
    fn full(&self, key: &str) -> Result<String, StoreError> {
        check_key(key)?;
        let full = join(&self.prefix, key);
        // One more for the slash of a directory.
        if full.len() >= address::KEY_BYTES_MAX {
            return Err(StoreError::Refused(format!(
                "{key}: with the prefix longer than S3 takes"
            )));
        }
        Ok(full)
    }

    /// What the keys below directory `key` begin with.
    fn below(&self, key: &str) -> Result<String, StoreError> {
        let full = self.full(key)?;
        Ok(if full.is_empty() { full } else { format!("{full}/") })
    }

    async fn head_object(&self, full: &str) -> Result<Option<Found>, StoreError> {
        let ask = Ask {
            method: Method::HEAD,
            key: full,
            ..Ask::default()
        };
        match self.wire.ask(ask).await {
            Ok(answer) => found_in(full, &answer).map(Some),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

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

    /// Whether any key begins with `prefix`.
    async fn any_below(&self, prefix: &str) -> Result<bool, StoreError> {
        let page = self.list_page(&[("prefix", prefix), ("max-keys", "1")]).await?;
        Ok(!page.contents.is_empty())
    }

    async fn delete_object(&self, full: &str) -> Result<(), StoreError> {
        let ask = Ask {
            method: Method::DELETE,
            key: full,
            ..Ask::default()
        };
        match self.wire.ask(ask).await {
            Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn expect(&self, full: &str, expect: &Expect) -> Result<(), StoreError> {
        let expected = match expect {
            Expect::Any => return Ok(()),
            Expect::Absent => None,
            Expect::Match(validator) => Some(validator),
        };
        let there = self.head_object(full).await?.map(|found| found.validator);
        if there.as_ref() == expected {
            Ok(())
        } else {
            Err(StoreError::Changed(full.to_owned()))
        }
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

    /// HEAD after a write: what is there now must be ours and whole.
    async fn proven(&self, full: &str, write: &Write, etag: Option<String>) -> Result<Found, StoreError> {
        let unclear = |text: String| StoreError::Unavailable(format!("{full}: written, but {text}"));
        let found = self
            .head_object(full)
            .await
            .map_err(|error| unclear(error.to_string()))?;
        let found = found.ok_or_else(|| unclear("not there".into()))?;
        let ours = match (&found.token, etag) {
            (Some(token), _) => *token == write.token,
            (None, etag) => etag.is_some_and(|etag| etag == found.validator.0),
        };
        if !ours {
            return Err(StoreError::Changed(format!(
                "{full}: overwritten at once by someone else"
            )));
        }
        if found.size != write.size {
            let text = format!("{full}: {} bytes arrived, {} were sent", found.size, write.size);
            return Err(StoreError::Damaged(text));
        }
        Ok(found)
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
        let body = || vec![Bytes::from_static(b"forebay probe")];
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
            .head_object(full)
            .await?
            .is_some_and(|found| found.token.as_deref() == Some("p2"));
        Ok(Probed {
            put_if_absent,
            if_match,
            complete_conditional,
            metadata,
        })
    }
}

/// Whether a conditional write went as it should: through when `expected`, refused with 412 otherwise.
fn holds<T>(answer: Result<T, StoreError>, expected: bool) -> Result<bool, StoreError> {
    match answer {
        Ok(_) => Ok(expected),
        Err(StoreError::Changed(_)) => Ok(!expected),
        // A store may not know the header at all.
        Err(StoreError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn found_in(full: &str, answer: &Answer) -> Result<Found, StoreError> {
    let bad = |what: &str| StoreError::Damaged(format!("{full}: HEAD answered without a usable {what}"));
    let size = answer
        .header("content-length")
        .and_then(|len| len.parse().ok())
        .ok_or_else(|| bad("length"))?;
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
            attributes.push((name.to_owned(), decoded(value)));
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

fn decoded(value: &str) -> String {
    percent_encoding::percent_decode_str(value)
        .decode_utf8_lossy()
        .into_owned()
}

/// Token and attributes as metadata headers; values in percent encoding, for headers are ASCII.
fn metadata(write: &Write) -> Result<Vec<(HeaderName, String)>, StoreError> {
    const PLAIN: percent_encoding::AsciiSet = percent_encoding::CONTROLS.add(b'%');
    let mut headers = vec![(HeaderName::from_static("x-amz-meta-forebay-token"), write.token.clone())];
    let mut bytes = TOKEN.len() + write.token.len();
    for (name, value) in &write.attributes {
        let value = percent_encoding::utf8_percent_encode(value, &PLAIN).to_string();
        bytes += name.len() + value.len();
        let name = HeaderName::from_bytes(format!("{METADATA}{name}").as_bytes())
            .map_err(|_| StoreError::Refused(format!("{}: attribute {name:?} cannot be kept in S3", write.key)))?;
        headers.push((name, value));
    }
    if bytes > METADATA_BYTES_MAX {
        return Err(StoreError::Refused(format!(
            "{}: {bytes} bytes of attributes; S3 keeps {METADATA_BYTES_MAX}",
            write.key
        )));
    }
    Ok(headers)
}

fn directory() -> Found {
    Found {
        size: 0,
        mtime: 0,
        validator: Validator(String::new()),
        token: None,
        attributes: Vec::new(),
        is_dir: true,
    }
}

/// The key that a probe writes and removes, below the mount's URL; listings never show it.
const PROBE: &str = ".forebay-probe";

/// A listing under way.
///
/// S3 orders by whole keys, so directory `a` (as `a/`) comes after `a-b` and `a.b`, while names are to come as `a`, `a-b`, `a.b`.
/// Only a prefix `p` of the last key of a page, followed there by a byte below `/`, can still turn up as a directory that belongs
/// before what the page holds; those few are asked for one by one, and then the page may be sorted and handed out.
#[derive(Debug)]
struct Listing {
    shared: Arc<Shared>,
    below: String,
    /// What was handed out last, and whether that was the directory of this name: it comes after the object.
    after: Option<(String, bool)>,
    token: Option<String>,
    asked: BTreeMap<String, bool>,
    first: bool,
}

impl Listing {
    async fn page(&mut self) -> Result<VecDeque<Listed>, StoreError> {
        let start = self.after.as_ref().map(|(after, _)| format!("{}{after}", self.below));
        let mut query = vec![("delimiter", "/"), ("prefix", self.below.as_str())];
        match (&self.token, &start) {
            (Some(token), _) => query.push(("continuation-token", token)),
            (None, Some(start)) => query.push(("start-after", start)),
            (None, None) => {}
        }
        let page = self.shared.list_page(&query).await?;
        self.first = false;
        self.token = page.next_continuation_token;
        let mut names: BTreeMap<(String, bool), Found> = BTreeMap::new();
        let mut last = String::new();
        for content in page.contents {
            last = last.max(content.key.clone());
            if let Some(name) = self.name(&content.key) {
                let found = Found {
                    size: content.size,
                    mtime: content.last_modified.timestamp_micros(),
                    validator: Validator(unquoted(&content.etag)),
                    token: None,
                    attributes: Vec::new(),
                    is_dir: false,
                };
                names.insert((name.to_owned(), false), found);
            }
        }
        for prefix in page.common_prefixes {
            last = last.max(prefix.prefix.clone());
            if let Some(name) = prefix.prefix.strip_suffix('/').and_then(|prefix| self.name(prefix)) {
                names.insert((name.to_owned(), true), directory());
            }
        }
        if self.token.is_some() {
            for name in self.directories_to_come(&last).await? {
                names.insert((name, true), directory());
            }
        }
        let rows = names
            .into_iter()
            .filter(|(name, _)| self.after.as_ref().is_none_or(|after| name > after));
        let rows: VecDeque<Listed> = rows.map(|((name, _), found)| Listed { name, found }).collect();
        if let Some(last) = rows.back() {
            self.after = Some((last.name.clone(), last.found.is_dir));
        }
        Ok(rows)
    }

    /// The name that a key is in this directory; none for the directory's own marker, for what no path can say, and for the probe.
    fn name<'k>(&self, key: &'k str) -> Option<&'k str> {
        let name = key.strip_prefix(self.below.as_str())?;
        (check_key(name).is_ok() && !name.is_empty() && !name.contains('/') && name != PROBE).then_some(name)
    }

    async fn directories_to_come(&mut self, last: &str) -> Result<Vec<String>, StoreError> {
        let Some(name) = last.strip_prefix(self.below.as_str()) else {
            return Ok(Vec::new());
        };
        let mut dirs = Vec::new();
        for (at, byte) in name.bytes().enumerate() {
            if byte >= b'/' || at == 0 {
                continue;
            }
            let dir = name[..at].to_owned();
            let there = match self.asked.get(&dir) {
                Some(there) => *there,
                None => self.shared.any_below(&format!("{}{dir}/", self.below)).await?,
            };
            self.asked.insert(dir.clone(), there);
            if there {
                dirs.push(dir);
            }
        }
        // What is no prefix of this page's last name is never asked again.
        self.asked.retain(|dir, _| name.starts_with(dir.as_str()));
        Ok(dirs)
    }
}

#[async_trait]
impl UnderStore for S3 {
    fn url(&self) -> &str {
        &self.shared.url
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        let shared = &self.shared;
        let full = shared.full(PROBE)?;
        // What a probe left behind that was killed half-way.
        shared.delete_object(&full).await?;
        let probed = shared.try_conditions(&full).await;
        let removed = shared.delete_object(&full).await;
        let probed = probed?;
        removed?;
        let probed = *shared.probed.get_or_init(|| probed);
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
        let full = self.shared.full(key)?;
        if !key.is_empty()
            && let Some(found) = self.shared.head_object(&full).await?
        {
            return Ok(Some(found));
        }
        let below = self.shared.below(key)?;
        let any = self.shared.any_below(&below).await?;
        Ok((any || key.is_empty()).then(directory))
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        let below = match self.shared.below(key) {
            Ok(below) => below,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let listing = Listing {
            shared: Arc::clone(&self.shared),
            below,
            after: after.map(|after| (after.to_owned(), true)),
            token: None,
            asked: BTreeMap::new(),
            first: true,
        };
        let pages = futures::stream::unfold(Some(listing), |listing| async move {
            let mut listing = listing?;
            if !listing.first && listing.token.is_none() {
                return None;
            }
            match listing.page().await {
                Ok(rows) => Some((rows.into_iter().map(Ok).collect(), Some(listing))),
                Err(error) => Some((vec![Err(error)], None)),
            }
        });
        pages.flat_map(futures::stream::iter::<Vec<_>>).boxed()
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        let full = self.shared.full(key)?;
        let damaged = |text: String| StoreError::Damaged(format!("{full}: {text}"));
        let len = range
            .end
            .checked_sub(range.start)
            .ok_or_else(|| damaged(format!("no bytes {range:?}")))?;
        if len == 0 {
            let found = self
                .shared
                .head_object(&full)
                .await?
                .ok_or_else(|| StoreError::NotFound(full.clone()))?;
            return if found.validator == *validator {
                Ok(Bytes::new())
            } else {
                Err(StoreError::Changed(full))
            };
        }
        let headers = vec![(header::RANGE, format!("bytes={}-{}", range.start, range.end - 1))];
        let len = usize::try_from(len).map_err(|_| damaged("too many bytes at once".into()))?;
        let ask = Ask {
            key: &full,
            headers,
            answer_bytes_max: len,
            ..Ask::default()
        };
        let answer = self.shared.wire.ask(ask).await?;
        if answer.etag().is_none_or(|etag| etag != validator.0) {
            return Err(StoreError::Changed(full));
        }
        let told = answer
            .header("content-range")
            .and_then(|told| told.strip_prefix("bytes "));
        let told_range = told
            .and_then(|told| told.split_once('/'))
            .map(|(range, _)| range.to_owned());
        if let Some(told) = told_range.filter(|told| *told != format!("{}-{}", range.start, range.end - 1)) {
            return Err(damaged(format!("asked for bytes {range:?}, answered {told}")));
        }
        if answer.body.len() != len {
            return Err(damaged(format!(
                "{} bytes arrived, {len} were promised",
                answer.body.len()
            )));
        }
        Ok(answer.body)
    }

    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        let full = self.shared.full(&write.key)?;
        let mut headers = metadata(write)?;
        self.shared.expect(&full, &write.expect).await?;
        headers.extend(self.shared.condition(&write.expect, false));
        let etag = self.shared.put_raw(&full, headers, chunks).await?.etag();
        self.shared.proven(&full, write, etag).await
    }

    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        let full = self.shared.full(&write.key)?;
        self.shared.start_upload(&full, metadata(write)?).await
    }

    async fn part(
        &self,
        write: &Write,
        upload: &UploadId,
        index: u32,
        _offset: u64,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        let full = self.shared.full(&write.key)?;
        self.shared.upload_part(&full, upload, index, chunks).await
    }

    async fn complete(&self, write: &Write, upload: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
        let full = self.shared.full(&write.key)?;
        self.shared.expect(&full, &write.expect).await?;
        let condition = self.shared.condition(&write.expect, true);
        let etag = self.shared.complete_upload(&full, upload, parts, condition).await?;
        self.shared.proven(&full, write, Some(etag)).await
    }

    async fn settle(&self, _key: &str) -> Result<(), StoreError> {
        // What an object store shows, it has made durable.
        Ok(())
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        let full = self.shared.full(key)?;
        self.shared.abort_upload(&full, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        let ours = if self.shared.prefix.is_empty() {
            String::new()
        } else {
            format!("{}/", self.shared.prefix)
        };
        let prefix = format!("{ours}{prefix}");
        let mut uploads = Vec::new();
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        loop {
            let mut query = vec![("uploads", ""), ("prefix", prefix.as_str())];
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
            let page: xml::Uploads = xml::read("uploads", &self.shared.wire.ask(ask).await?.body)?;
            let keys = page.upload.into_iter();
            uploads.extend(
                keys.filter_map(|upload| {
                    Some((upload.key.strip_prefix(&ours)?.to_owned(), UploadId(upload.upload_id)))
                }),
            );
            match (page.is_truncated, page.next_key_marker) {
                (true, Some(next)) if next > key_marker || page.next_upload_id_marker.is_some() => {
                    key_marker = next;
                    id_marker = page.next_upload_id_marker.unwrap_or_default();
                }
                _ => return Ok(uploads),
            }
        }
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let full = self.shared.full(key)?;
        if matches!(expect, Expect::Match(_)) {
            self.shared.expect(&full, expect).await?;
        }
        self.shared.delete_object(&full).await
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        let below = self.shared.below(key)?;
        if below.is_empty() {
            return Ok(());
        }
        self.shared.put_raw(&below, Vec::new(), Vec::new()).await.map(|_| ())
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        let below = self.shared.below(key)?;
        let page = self.shared.list_page(&[("prefix", &below), ("max-keys", "2")]).await?;
        if page.contents.iter().any(|content| content.key != below) {
            return Err(StoreError::Changed(format!("{key}: not empty")));
        }
        if page.contents.is_empty() || below.is_empty() {
            return Ok(());
        }
        self.shared.delete_object(&below).await
    }
}

#[cfg(test)]
mod tests;
