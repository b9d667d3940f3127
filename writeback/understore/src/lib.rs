//! Under-stores: where persisted data lives under its own name. One trait, one conformance suite, a capability probe.
//!
//! It knows nothing of segments, inodes or datasets.

mod address;
pub mod attributes;
mod azure;
pub mod conformance;
mod credentials;
mod exchange;
pub mod fault;
mod gcs;
pub mod hdfs;
pub mod limit;
pub mod local;
pub mod memory;
mod objects;
pub mod packs;
mod s3;
#[cfg(test)]
mod trials;
mod web;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::{fmt::Debug, ops::Range, sync::Arc, time::Duration};

pub use address::{KEY_BYTES_MAX, check_key, join, parent_and_name};

/// A key in an under-store: components joined by `/`, no leading slash, UTF-8, relative to the mount's URL. Empty: the root.
pub type StoreKey = String;

/// What an under-store says of an object, by which a change outside is recognised (etag, or mtime and length).
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Validator(pub String);

/// What is at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Microseconds since the epoch, UTC.
    pub mtime: i64,
    /// Recognises a change.
    pub validator: Validator,
    /// Our own token, when we wrote it (metadata `forebay-token`); only `head` fills it in.
    pub token: Option<String>,
    /// POSIX and user attributes ([`attributes`]) as `head` finds them; in listings those that the store tells with the name, as file
    /// systems do.
    pub attributes: Vec<(String, String)>,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What is at a key, perhaps with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// What it is.
    pub found: Found,
    /// All bytes of a small object.
    pub bytes: Option<Bytes>,
}

impl From<Found> for Peeked {
    fn from(found: Found) -> Self {
        Self { found, bytes: None }
    }
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The last component.
    pub name: String,
    /// What it is, without a token.
    pub found: Found,
}

/// What must be at the target for a write or delete to go ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// This.
    Match(Validator),
    /// Whatever: only after a person said so.
    Any,
}

/// A write to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: StoreKey,
    /// Bytes in all.
    pub size: u64,
    /// Our token, stored with the object where the store can.
    pub token: String,
    /// Attributes to store with the object.
    pub attributes: Vec<(String, String)>,
    /// Condition, checked as late and as atomically as the store allows.
    pub expect: Expect,
}

/// What the store at this mount honours, found by trying.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// A put can be made conditional on absence.
    pub put_if_absent: bool,
    /// A put can be made conditional on a validator.
    pub put_if_match: bool,
    /// The end of a multipart upload honours a condition.
    pub complete_conditional: bool,
    /// Metadata (our token) is kept with objects.
    pub metadata: bool,
    /// Parts may be sent in parallel and in any order.
    pub parallel_parts: bool,
    /// Smallest part but the last, bytes.
    pub part_bytes_min: u64,
    /// Most parts.
    pub parts_max: u32,
    /// Rename is atomic.
    pub atomic_rename: bool,
}

/// Why an under-store call failed, by what it asks of the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing there.
    #[error("{0}: not found")]
    NotFound(String),
    /// The expectation did not hold; nothing was changed.
    #[error("{0}: changed by someone else")]
    Changed(String),
    /// Retrying alone will not help: no permission, no bucket, name or size refused. A person must look.
    #[error("{0}")]
    Refused(String),
    /// Passing: retry with backoff. The outcome of a write is unknown; ask `head` for the token.
    #[error("{0}")]
    Unavailable(String),
    /// What arrived is not what the store promised (length, checksum). Retry; never cache.
    #[error("{0}")]
    Damaged(String),
}

/// A started upload, resumable by whoever holds its id. For a single put no upload is needed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UploadId(pub String);

/// A part that is in the store.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PartId {
    /// Position of the part, from 0.
    pub index: u32,
    /// The store's name for it.
    pub id: String,
}

/// An under-store, rooted at its mount's URL.
#[async_trait]
pub trait UnderStore: Debug + Send + Sync {
    /// URL without secrets, for people.
    fn url(&self) -> &str;
    /// Whether it can only be read, whatever the mount says.
    fn read_only(&self) -> bool;
    /// Finds out what the store honours. Leaves nothing behind.
    async fn probe(&self) -> Result<Capabilities, StoreError>;
    /// What is at `key`: an object, a directory (also one that only exists by what lies under it), or None. At a key that is ours there
    /// is nothing for anybody: `head`, `peek`, `list` and `remove_dir` say so, and what would write or delete is `Refused`.
    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError>;
    /// The same, and with it the bytes of an object of at most `bytes_max` where the store tells both in one answer.
    async fn peek(&self, key: &str, bytes_max: u64) -> Result<Option<Peeked>, StoreError> {
        let _ = bytes_max;
        Ok(self.head(key).await?.map(Peeked::from))
    }
    /// The names directly in directory `key` greater than `after`, in byte order, as they arrive. On an object store one name may be
    /// an object and a directory: it comes twice then, the object first, so that whoever clears up sees both.
    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>>;
    /// Whether the time of a directory moves whenever a name comes or goes in it, so that what was listed is known to be all there is
    /// while `head` tells the same time.
    fn dates_names(&self) -> bool {
        false
    }
    /// Exactly `range` of the object, if it still has `validator`; `Changed` otherwise.
    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError>;
    /// Writes a whole object in one request.
    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError>;
    /// Starts an upload in parts.
    async fn start(&self, write: &Write) -> Result<UploadId, StoreError>;
    /// Sends a part; sending it again replaces it. `offset` is its place in the object.
    async fn part(
        &self,
        write: &Write,
        upload: &UploadId,
        index: u32,
        offset: u64,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError>;
    /// Makes the object visible whole. After `Unavailable` ask `head` for the token.
    async fn complete(&self, write: &Write, upload: &UploadId, parts: &[PartId]) -> Result<Found, StoreError>;
    /// Makes sure that what `head` shows at `key` survives a power cut, also when the process that wrote it died in between.
    async fn settle(&self, key: &str) -> Result<(), StoreError>;
    /// Forgets an upload; unknown ones are fine.
    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError>;
    /// Uploads of ours that were started under `prefix` and neither completed nor aborted.
    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError>;
    /// Gives the object at the key of `write` its attributes in place of those that it has, and answers what is there then. Bytes, and
    /// whose they are, stay. The expectation is a match. `None`: attributes come with the bytes here, or not at all; nothing was changed.
    /// After `Unavailable` the validator may be another, with the same token.
    async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        let _ = write;
        Ok(None)
    }
    /// Removes an object. Absent is fine, unless `expect` is a match.
    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError>;
    /// Makes an empty directory (on an object store a zero-byte key ending in `/`). Existing is fine.
    async fn make_dir(&self, key: &str) -> Result<(), StoreError>;
    /// Removes an empty directory (or its marker). Absent is fine; not empty is `Changed`.
    async fn remove_dir(&self, key: &str) -> Result<(), StoreError>;
    /// Takes away the marker of a directory that has something in it; one that is empty keeps it. Whether it has none now, as where
    /// directories need no markers.
    async fn unmark_dir(&self, key: &str) -> Result<bool, StoreError> {
        let _ = key;
        Ok(true)
    }
}

/// Shared handle to an under-store.
pub type UnderStoreRef = Arc<dyn UnderStore>;

/// Plain settings of an under-store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long to wait for a connection, an answer, or the next bytes of one, before the store counts as away.
    /// Default 10 s (`under.timeout`).
    pub timeout: Duration,
    /// Most bytes per second, reads and writes together. Default: no limit.
    pub bytes_per_second_max: Option<u64>,
    /// Largest object of an S3 that is compared with its etag, where that is an MD5. Default 128 KiB (`under.md5_max`); 0: none.
    pub md5_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            bytes_per_second_max: None,
            md5_bytes_max: 128 << 10,
        }
    }
}

/// Opens the under-store at `url`: `file:///folder`, `s3://bucket/prefix?endpoint=http://host:port&region=name`,
/// `gs://bucket/prefix`, `az://container/prefix?account=name`, `hdfs://namenode:port/folder?user=name`, `hdfs://nameservice/folder`,
/// `http://host/folder` (read only).
///
/// Nothing is asked of the store yet, so that a store that is away can be opened all the same. Credentials come from the
/// environment (`AWS_ACCESS_KEY_ID`, …; the Kerberos ticket and the files of `HADOOP_CONF_DIR`), from the platform, or from the file
/// or folder that `credentials=PATH` names, never from the URL. `Refused`: the URL makes no sense or has a scheme that is not offered.
///
/// ```
/// # async fn example() -> Result<(), forebay_understore::StoreError> {
/// let store = forebay_understore::open("file:///mnt/lake", &forebay_understore::Settings::default()).await?;
/// let found = store.head("day=1/part-0.arrow").await?;
/// # Ok(())
/// # }
/// ```
pub async fn open(url: &str, settings: &Settings) -> Result<UnderStoreRef, StoreError> {
    let address = address::parse(url)?;
    let store: UnderStoreRef = match address {
        address::Address::Local { folder } => Arc::new(local::Local::new(folder)),
        address::Address::S3(at) => s3::open(at, settings)?,
        address::Address::Gcs(at) => gcs::open(at, settings)?,
        address::Address::Azure(at) => azure::open(at, settings)?,
        address::Address::Web(at) => web::open(at, settings)?,
        address::Address::Hdfs(at) => Arc::new(hdfs::Hdfs::new(at, settings)?),
    };
    let limits = limit::Limits {
        bytes_per_second: settings.bytes_per_second_max,
        ..limit::Limits::default()
    };
    Ok(limit::Limited::wrap(store, limits))
}
