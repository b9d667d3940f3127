//! An object store as an under-store: one object per file, under its own name, over any flat space of keys ([`Bucket`]).
//!
//! Our token, POSIX attributes and mtime travel as user metadata. A directory exists by what lies under it; an empty one is a
//! zero-byte key that ends in `/`. At the mount's root, names that begin with [`PROBE`] and the folder of what is staged are ours:
//! nothing is there for others.
//!
//! Conditions: what a store honours is found by trying ([`UnderStore::probe`]), never from its name or version. Every write asks
//! `HEAD` first, and the bucket sends the condition too where the probe saw it work. Where it did not, whoever writes the key between
//! our `HEAD` and our write (one round trip) is overwritten.
//!
//! Attributes of what is there already are changed where the bucket offers it and the object carries our token.
//!
//! After every write `HEAD` proves size and token. An `Unavailable` write may have happened: `HEAD` tells by the token.

mod listing;
pub(crate) mod staging;

use self::listing::Listing;
use crate::{
    Capabilities, Expect, Found, Listed, PartId, Peeked, StoreError, StoreKey, UnderStore, UploadId, Validator, Write,
    address,
    attributes::XATTRS,
    check_key, join,
    local::{check_visible, is_hidden, visible},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Name of our token among the metadata of an object.
pub(crate) const TOKEN: &str = "forebay-token";

/// What the keys begin with that a probe writes and removes, below the mount's URL.
pub(crate) const PROBE: &str = ".forebay-probe";
/// What a probe left behind that was killed is removed at this age: no probe takes so long.
const PROBE_AGE: Duration = Duration::from_secs(3600);

/// A flat space of keys. Keys are whole: with the mount's prefix, and with a slash at the end for a directory's marker.
#[async_trait]
pub(crate) trait Bucket: std::fmt::Debug + Send + Sync + 'static {
    /// Finds out what is honoured, on a key that nobody else uses.
    async fn probe(&self, scratch: &str) -> Result<Capabilities, StoreError>;
    /// The object at `key`.
    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError>;
    /// The same, with its bytes if they are few and come in the same answer.
    async fn peek(&self, key: &str, bytes_max: u64) -> Result<Option<Peeked>, StoreError> {
        let _ = bytes_max;
        Ok(self.head(key).await?.map(Peeked::from))
    }
    /// A page of keys in byte order.
    async fn page(&self, ask: &PageAsk<'_>) -> Result<Page, StoreError>;
    /// Exactly `range`, which is not empty, of the object that has `validator`; `Changed` when it has another.
    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError>;
    /// Writes an object, with the condition of `write` where that is honoured; without `write` a bare one.
    async fn put(&self, key: &str, write: Option<&Write>, chunks: Vec<Bytes>) -> Result<Option<Validator>, StoreError>;
    /// Gives the object with the validator that `write` expects its attributes. False: not here, or not this one.
    async fn set_attributes(&self, key: &str, write: &Write) -> Result<bool, StoreError> {
        let _ = (key, write);
        Ok(false)
    }
    /// Removes an object, with the condition where that is honoured. Absent is fine.
    async fn delete(&self, key: &str, expected: Option<&Validator>) -> Result<(), StoreError>;
    /// Starts an upload in parts.
    async fn start(&self, key: &str, write: &Write) -> Result<UploadId, StoreError>;
    /// Sends a part.
    async fn part(&self, key: &str, upload: &UploadId, index: u32, chunks: Vec<Bytes>) -> Result<PartId, StoreError>;
    /// Makes the object of its parts. `NotFound` when they are gone: begin anew.
    async fn complete(
        &self,
        key: &str,
        write: &Write,
        upload: &UploadId,
        parts: &[PartId],
    ) -> Result<Option<Validator>, StoreError>;
    /// Forgets an upload; unknown ones are fine.
    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError>;
    /// Uploads whose keys begin with `prefix`.
    async fn uploads(&self, prefix: &str) -> Result<Vec<(String, UploadId)>, StoreError>;
}

/// Which keys to list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageAsk<'a> {
    /// What they begin with.
    pub(crate) prefix: &'a str,
    /// Keys that go on beyond a slash after the prefix are told as one, up to it.
    pub(crate) by_directory: bool,
    /// Where to begin, where the store can: what comes at or before it may come all the same.
    pub(crate) after: Option<&'a str>,
    /// Where the page before ended.
    pub(crate) token: Option<&'a str>,
    /// Most keys.
    pub(crate) keys_max: Option<u32>,
}

/// A page of keys.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Found)>,
    /// Prefixes, with the slash at their end.
    pub(crate) directories: Vec<String>,
    /// Where the next page begins, when there is one.
    pub(crate) next: Option<String>,
}

/// What lies under a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// Its own marker alone.
    Marker,
    /// Something; and whether its marker too.
    More {
        marked: bool,
    },
}

/// A bucket, or a prefix of one.
#[derive(Debug)]
pub(crate) struct Objects<B> {
    shared: Arc<Shared<B>>,
}

#[derive(Debug)]
struct Shared<B> {
    bucket: B,
    prefix: String,
    url: String,
    /// The key of its probes.
    scratch: OnceLock<String>,
}

impl<B: Bucket> Objects<B> {
    /// The keys of `bucket` below `prefix`. `url` is for people.
    pub(crate) fn new(bucket: B, prefix: String, url: String) -> Self {
        let shared = Shared {
            bucket,
            prefix,
            url,
            scratch: OnceLock::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl<B: Bucket> Shared<B> {
    /// The key within the bucket.
    fn full(&self, key: &str) -> Result<String, StoreError> {
        check_visible(key)?;
        let full = join(&self.prefix, key);
        // One more for the slash of a directory.
        if full.len() >= address::KEY_BYTES_MAX {
            return Err(StoreError::Refused(format!(
                "{key}: with the prefix longer than an object store takes"
            )));
        }
        Ok(full)
    }

    /// What the keys below directory `key` begin with.
    fn below(&self, key: &str) -> Result<String, StoreError> {
        let full = self.full(key)?;
        Ok(if full.is_empty() { full } else { format!("{full}/") })
    }

    /// The directory at `key`, which no object is.
    async fn head_directory(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let any = self.any_below(&self.below(key)?).await?;
        Ok((any || key.is_empty()).then(directory))
    }

    /// What lies under a directory, whose marker is the key `below`.
    async fn holds(&self, below: &str) -> Result<Holds, StoreError> {
        let mut marked = false;
        let mut token: Option<String> = None;
        loop {
            let ask = PageAsk {
                prefix: below,
                token: token.as_deref(),
                keys_max: Some(2),
                ..PageAsk::default()
            };
            let page = self.bucket.page(&ask).await?;
            // The marker is the first of the keys.
            marked |= page.objects.iter().any(|(key, _)| key == below);
            if page.objects.iter().any(|(key, _)| key != below) {
                return Ok(Holds::More { marked });
            }
            token = page.next;
            if token.is_none() {
                return Ok(if marked { Holds::Marker } else { Holds::Nothing });
            }
        }
    }

    /// Whether any key begins with `prefix`.
    async fn any_below(&self, prefix: &str) -> Result<bool, StoreError> {
        let mut token: Option<String> = None;
        loop {
            let ask = PageAsk {
                prefix,
                token: token.as_deref(),
                keys_max: Some(1),
                ..PageAsk::default()
            };
            let page = self.bucket.page(&ask).await?;
            // A page may be empty and yet not the last.
            match page.next {
                _ if !page.objects.is_empty() => return Ok(true),
                None => return Ok(false),
                next => token = next,
            }
        }
    }

    async fn expect(&self, full: &str, expect: &Expect) -> Result<(), StoreError> {
        let expected = match expect {
            Expect::Any => return Ok(()),
            Expect::Absent => None,
            Expect::Match(validator) => Some(validator),
        };
        let there = self.bucket.head(full).await?.map(|found| found.validator);
        if there.as_ref() == expected {
            Ok(())
        } else {
            Err(StoreError::Changed(full.to_owned()))
        }
    }

    /// HEAD after a write: what is there now must be ours and whole.
    async fn proven(&self, full: &str, write: &Write, validator: Option<Validator>) -> Result<Found, StoreError> {
        let unclear = |text: String| StoreError::Unavailable(format!("{full}: written, but {text}"));
        let found = self
            .bucket
            .head(full)
            .await
            .map_err(|error| unclear(error.to_string()))?;
        let found = found.ok_or_else(|| unclear("not there".into()))?;
        let ours = match &found.token {
            Some(token) => *token == write.token,
            None => validator.is_some_and(|validator| validator == found.validator),
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

    /// A key that nobody else uses, for others may probe the same place at the same time. One for all tries: what a store carries out late of
    /// the earlier ones goes with the last.
    fn scratch(&self) -> Result<&str, StoreError> {
        let fresh = join(&self.prefix, &format!("{PROBE}-{}", fresh_id()?));
        Ok(self.scratch.get_or_init(|| fresh))
    }

    /// Removes what probes left behind that were killed half-way.
    async fn sweep_probes(&self) -> Result<(), StoreError> {
        let prefix = join(&self.prefix, PROBE);
        let ask = PageAsk {
            prefix: &prefix,
            ..PageAsk::default()
        };
        let age = i64::try_from(PROBE_AGE.as_micros()).unwrap_or(i64::MAX);
        let old = chrono::Utc::now().timestamp_micros().saturating_sub(age);
        for (key, found) in self.bucket.page(&ask).await?.objects {
            if found.mtime < old {
                self.bucket.delete(&key, None).await?;
            }
        }
        Ok(())
    }
}

/// A directory, of which an object store knows nothing but that it is there.
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

/// Sixteen random bytes as text: for names that nobody else may have.
pub(crate) fn fresh_id() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Unavailable(format!("no randomness: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether a conditional write went as it should: through when `expected`, refused as `Changed` otherwise.
pub(crate) fn holds<T>(answer: Result<T, StoreError>, expected: bool) -> Result<bool, StoreError> {
    match answer {
        Ok(_) => Ok(expected),
        Err(StoreError::Changed(_)) => Ok(!expected),
        // A store may not know the condition at all.
        Err(StoreError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Token and attributes as names and values, at most `bytes_max` of them together.
pub(crate) fn metadata(write: &Write, bytes_max: usize) -> Result<Vec<(&str, &str)>, StoreError> {
    let attributes = write
        .attributes
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let mut pairs: Vec<(&str, &str)> = [(TOKEN, write.token.as_str())].into_iter().chain(attributes).collect();
    let size = |pairs: &[(&str, &str)]| -> usize {
        let sizes = pairs.iter().map(|(name, value)| name.len() + header_value(value).len());
        sizes.sum()
    };
    if size(&pairs) > bytes_max {
        tracing::warn!(
            key = write.key,
            "more extended attributes than the store keeps; they stay in the cache"
        );
        pairs.retain(|(name, _)| *name != XATTRS);
    }
    let bytes = size(&pairs);
    if bytes > bytes_max {
        return Err(StoreError::Refused(format!(
            "{}: {bytes} bytes of attributes; the store keeps {bytes_max}",
            write.key
        )));
    }
    Ok(pairs)
}

/// A value as a header can say it: in percent encoding, for headers are ASCII.
pub(crate) fn header_value(value: &str) -> String {
    const PLAIN: percent_encoding::AsciiSet = percent_encoding::CONTROLS.add(b'%');
    percent_encoding::utf8_percent_encode(value, &PLAIN).to_string()
}

/// What [`header_value`] made.
pub(crate) fn of_header_value(value: &str) -> String {
    percent_encoding::percent_decode_str(value)
        .decode_utf8_lossy()
        .into_owned()
}

#[async_trait]
impl<B: Bucket> UnderStore for Objects<B> {
    fn url(&self) -> &str {
        &self.shared.url
    }

    fn read_only(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        let shared = &self.shared;
        shared.sweep_probes().await?;
        let scratch = shared.scratch()?;
        let probed = shared.bucket.probe(scratch).await;
        let removed = shared.bucket.delete(scratch, None).await;
        let probed = probed?;
        removed?;
        Ok(probed)
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        if visible(key)?.is_none() {
            return Ok(None);
        }
        let full = self.shared.full(key)?;
        if !key.is_empty()
            && let Some(found) = self.shared.bucket.head(&full).await?
        {
            return Ok(Some(found));
        }
        self.shared.head_directory(key).await
    }

    async fn peek(&self, key: &str, bytes_max: u64) -> Result<Option<Peeked>, StoreError> {
        if visible(key)?.is_none() {
            return Ok(None);
        }
        let full = self.shared.full(key)?;
        if !key.is_empty()
            && let Some(peeked) = self.shared.bucket.peek(&full, bytes_max).await?
        {
            return Ok(Some(peeked));
        }
        Ok(self.shared.head_directory(key).await?.map(Peeked::from))
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        let below = match self.shared.below(key) {
            Ok(below) => below,
            Err(_) if is_hidden(key) => return futures::stream::empty().boxed(),
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let listing = Listing::new(Arc::clone(&self.shared), below, after);
        listing.rows()
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        let full = self.shared.full(key)?;
        if range.end < range.start {
            return Err(StoreError::Damaged(format!("{full}: no bytes {range:?}")));
        }
        if !range.is_empty() {
            return self.shared.bucket.read(&full, range, validator).await;
        }
        match self.shared.bucket.head(&full).await? {
            None => Err(StoreError::NotFound(full)),
            Some(found) if found.validator == *validator => Ok(Bytes::new()),
            Some(_) => Err(StoreError::Changed(full)),
        }
    }

    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        let full = self.shared.full(&write.key)?;
        self.shared.expect(&full, &write.expect).await?;
        let validator = self.shared.bucket.put(&full, Some(write), chunks).await?;
        self.shared.proven(&full, write, validator).await
    }

    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        let full = self.shared.full(&write.key)?;
        self.shared.bucket.start(&full, write).await
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
        self.shared.bucket.part(&full, upload, index, chunks).await
    }

    async fn complete(&self, write: &Write, upload: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
        let full = self.shared.full(&write.key)?;
        self.shared.expect(&full, &write.expect).await?;
        let validator = self.shared.bucket.complete(&full, write, upload, parts).await?;
        self.shared.proven(&full, write, validator).await
    }

    async fn settle(&self, _key: &str) -> Result<(), StoreError> {
        // What an object store shows, it has made durable.
        Ok(())
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        let full = self.shared.full(key)?;
        self.shared.bucket.abort(&full, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        let ours = match self.shared.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let uploads = self.shared.bucket.uploads(&format!("{ours}{prefix}")).await?;
        let key = |(full, upload): (String, UploadId)| Some((full.strip_prefix(&ours)?.to_owned(), upload));
        Ok(uploads.into_iter().filter_map(key).collect())
    }

    async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        let full = self.shared.full(&write.key)?;
        let there = self.shared.bucket.head(&full).await?;
        let expected = there.filter(|there| write.expect == Expect::Match(there.validator.clone()));
        let there = expected.ok_or_else(|| StoreError::Changed(full.clone()))?;
        // What else others keep with their objects, and would lose by this, is not known.
        if there.token.is_none() || !self.shared.bucket.set_attributes(&full, write).await? {
            return Ok(None);
        }
        self.shared.proven(&full, write, None).await.map(Some)
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let full = self.shared.full(key)?;
        match expect {
            Expect::Match(validator) => {
                self.shared.expect(&full, expect).await?;
                self.shared.bucket.delete(&full, Some(validator)).await
            }
            Expect::Absent | Expect::Any => self.shared.bucket.delete(&full, None).await,
        }
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        let below = self.shared.below(key)?;
        if below.is_empty() {
            return Ok(());
        }
        self.shared.bucket.put(&below, None, Vec::new()).await.map(drop)
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        if visible(key)?.is_none() {
            return Ok(());
        }
        let below = self.shared.below(key)?;
        match self.shared.holds(&below).await? {
            Holds::More { .. } => Err(StoreError::Changed(format!("{key}: not empty"))),
            Holds::Marker if !below.is_empty() => self.shared.bucket.delete(&below, None).await,
            Holds::Marker | Holds::Nothing => Ok(()),
        }
    }

    async fn unmark_dir(&self, key: &str) -> Result<bool, StoreError> {
        let below = self.shared.below(key)?;
        if below.is_empty() {
            return Ok(true);
        }
        match self.shared.holds(&below).await? {
            Holds::Marker => return Ok(false),
            Holds::Nothing | Holds::More { marked: false } => return Ok(true),
            Holds::More { marked: true } => {}
        }
        self.shared.bucket.delete(&below, None).await?;
        // The last of what was in it may have gone meanwhile, by somebody who saw the marker.
        match self.shared.holds(&below).await? {
            Holds::More { .. } => Ok(true),
            Holds::Marker => Ok(false),
            Holds::Nothing => self.make_dir(key).await.map(|()| false),
        }
    }
}

/// A listing's tables by name: an object comes before the directory of its name.
type Names = BTreeMap<(String, bool), Found>;

/// The name that `key` is in the directory whose keys begin with `below`; none for its own marker, and for what no path can say.
fn name_in<'k>(below: &str, key: &'k str) -> Option<&'k str> {
    let name = key.strip_prefix(below)?;
    let plain = check_key(name).is_ok() && !name.is_empty() && !name.contains('/');
    plain.then_some(name)
}
