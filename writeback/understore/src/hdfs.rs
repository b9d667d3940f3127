//! HDFS as an under-store: native names, native mode, owner and mtime, files that every Hadoop client reads.
//!
//! A write:
//! 1. It has a folder of its own in the hidden folder `.forebay-tmp` at the mount's root, which no listing shows. The folder's name
//!    holds key, token, size and the mtime to come (`hidden`).
//! 2. Its bytes go to the file `whole` in there: synced to the DataNodes' disks block by block (hsync), closed, given mtime and
//!    owner.
//! 3. The rename of `whole` to the key makes it visible, whole, with missing parents made. `Expect::Absent` is a rename that
//!    replaces nothing, checked by the NameNode.
//! 4. The empty folder stays for a while as the witness of the write.
//!
//! # After a lost answer
//!
//! The client that we use can write no extended attributes, so an object cannot carry our token. The witness tells instead: the
//! token is that of an empty folder whose name has the size and mtime of what is at the key. While `whole` lies in the folder the
//! rename has not happened; once it is deleted it never will, however late the NameNode gets to a request that we gave up. A write
//! over a file of the same size and mtime gets an mtime one millisecond later, so that the two can be told apart.
//! A witness is deleted when [`WITNESS_AGE`] and some later writes have passed, or when it is found orphaned after
//! [`ORPHAN_AGE`]. After that `head` knows no token: what a cache that died just after the rename and came back later than that
//! finds at its key counts as someone else's. Other attributes than mode, owner and mtime (milliseconds) are not kept.
//!
//! # Parts
//!
//! An HDFS file only grows at its end, while parts come in parallel, in any order and again. So each part is a file of its own,
//! and `complete` copies them into `whole` and deletes them before the rename: the bytes travel twice, for the client does not
//! offer HDFS's `concat`. A folder without `parts` has its `whole` in full, which is how a repeated `complete` goes on.
//!
//! # Leases
//!
//! A dead process may leave `whole` or a part open. Nobody waits for its lease to run out: such a file is replaced or deleted,
//! which HDFS allows, and before a `whole` is trusted its lease is recovered.
//!
//! # Limits
//!
//! The validator is mtime and length; the client does not tell a file's id. Whoever replaces a file by one of the same length and
//! sets the same mtime is not noticed. `Expect::Match` is checked right before the rename or delete: whoever writes the key in
//! between, one round trip, is overwritten; `remove_dir` has the same window for a file that takes the directory's place.
//! A listing that begins after a name reads the names before it too: the client offers no cursor.
//!
//! Encryption zones are refused: reading their keys would need a second HTTP client. Erasure-coded files can not be synced; they
//! are closed, with every DataNode's acknowledgement.
//!
//! Every step, an RPC or a mebibyte, ends within the timeout as `Unavailable`. Safe mode, a standby NameNode and a lack of
//! DataNodes are `Unavailable`; permissions and quotas are `Refused` with the server's words.

mod hidden;
mod listing;
mod order;
mod owner;
mod uploads;
mod wire;

use self::{hidden::checked, listing::Listing, wire::Wire};
use crate::{
    Capabilities, Expect, Found, Listed, PartId, Settings, StoreError, StoreKey, UnderStore, UploadId, Validator,
    Write,
    address::{self, HdfsAddress},
    attributes::{GID, MODE, MTIME, UID},
    join,
    local::visible,
    parent_and_name,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use hdfs_native::client::FileStatus;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a witness stays at least, unless a thousand younger ones are there.
pub const WITNESS_AGE: Duration = Duration::from_secs(600);

/// Age at which a witness that no process looks after is deleted.
pub const ORPHAN_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A folder of an HDFS.
#[derive(Clone, Debug)]
pub struct Hdfs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wire: Arc<Wire>,
    timeout: Duration,
    prefix: String,
    url: String,
    /// Told apart from other processes by the instant of its start.
    born: u64,
    serial: AtomicU64,
    hidden_made: AtomicBool,
    /// Only HDFS's own superuser gives files away.
    may_give_away: AtomicBool,
    witnesses: Mutex<VecDeque<(Instant, String, String)>>,
}

impl Hdfs {
    /// The folder at `at`, not asked yet. `Refused`: the Hadoop configuration does not know the nameservice.
    pub fn new(at: HdfsAddress, settings: &Settings) -> Result<Self, StoreError> {
        let mut url = format!("hdfs://{}/{}", at.authority, at.prefix);
        if let Some(user) = &at.user {
            url = address::without_secrets(&format!("{url}?user={user}"));
        }
        let prefix = at.prefix.clone();
        let shared = Shared {
            wire: Arc::new(Wire::new(at, settings)?),
            timeout: settings.timeout,
            prefix,
            url,
            born: now_millis(),
            serial: AtomicU64::new(1),
            hidden_made: AtomicBool::new(false),
            may_give_away: AtomicBool::new(true),
            witnesses: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn validator(mtime: u64, len: u64) -> Validator {
    Validator(format!("{mtime:x}-{len:x}"))
}

fn found(status: &FileStatus) -> Found {
    let len = if status.isdir { 0 } else { status.length as u64 };
    Found {
        size: len,
        mtime: i64::try_from(status.modification_time)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000),
        validator: validator(status.modification_time, len),
        token: None,
        attributes: attributes(status),
        is_dir: status.isdir,
    }
}

/// What a name has that is not as usual. An owner whose name this machine does not know is shown as 0.
fn attributes(status: &FileStatus) -> Vec<(String, String)> {
    let mode = status.permission & 0o7777;
    let usual = if status.isdir { 0o755 } else { 0o644 };
    let mode = (mode != usual).then(|| (MODE.to_owned(), format!("{mode:o}")));
    let owner = [(UID, owner::uid(&status.owner)), (GID, owner::gid(&status.group))];
    let owner = owner
        .into_iter()
        .filter_map(|(name, id)| Some((name.to_owned(), id?.to_string())));
    mode.into_iter().chain(owner.filter(|(_, id)| id != "0")).collect()
}

/// A key that a file may have.
fn file_key(key: &str) -> Result<&str, StoreError> {
    match checked(key)? {
        "" => Err(StoreError::Refused("the root of a mount is a folder".into())),
        key => Ok(key),
    }
}

fn name_of(status: &FileStatus) -> &str {
    parent_and_name(&status.path).1
}

fn expect(key: &str, expect: &Expect, there: Option<&FileStatus>) -> Result<(), StoreError> {
    let holds = match (expect, there) {
        (Expect::Any, there) => there.is_none_or(|there| !there.isdir),
        (Expect::Absent, there) => there.is_none(),
        (Expect::Match(expected), there) => {
            there.is_some_and(|there| !there.isdir && found(there).validator == *expected)
        }
    };
    if holds {
        Ok(())
    } else {
        Err(StoreError::Changed(key.to_owned()))
    }
}

impl Shared {
    /// The path of a key, which may lie in the hidden folder.
    fn path(&self, key: &str) -> String {
        format!("/{}", join(&self.prefix, key))
    }

    async fn look(&self, key: &str) -> Result<Option<FileStatus>, StoreError> {
        match self.wire.look(&self.path(key)).await {
            // A file in the middle of the path: nothing can be there.
            Err(StoreError::Refused(why)) if why.contains("ParentNotDirectory") => Ok(None),
            there => there,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let Some(status) = self.look(key).await? else {
            let root = key.is_empty().then(|| Found {
                size: 0,
                mtime: 0,
                validator: validator(0, 0),
                token: None,
                attributes: Vec::new(),
                is_dir: true,
            });
            return Ok(root);
        };
        let mut found = found(&status);
        if !found.is_dir {
            found.token = self.token(key, &status).await?;
            found.attributes.push((MTIME.to_owned(), found.mtime.to_string()));
        }
        Ok(Some(found))
    }

    async fn read(&self, key: &str, range: Range<u64>, expected: &Validator) -> Result<Bytes, StoreError> {
        let unchanged = || async {
            match self.look(key).await? {
                None => Err(StoreError::NotFound(key.to_owned())),
                there => expect(key, &Expect::Match(expected.clone()), there.as_ref()),
            }
        };
        unchanged().await?;
        let bytes = if range.is_empty() {
            Bytes::new()
        } else {
            self.wire.read(&self.path(key), range).await?
        };
        // The blocks that were read may have been those of a file that came in between.
        unchanged().await?;
        Ok(bytes)
    }

    async fn delete(&self, key: &str, expected: &Expect) -> Result<(), StoreError> {
        let there = self.look(key).await?;
        match (&there, expected) {
            (None, Expect::Absent | Expect::Any) => return Ok(()),
            (_, Expect::Absent) => expect(key, &Expect::Any, there.as_ref())?,
            _ => expect(key, expected, there.as_ref())?,
        }
        self.wire.delete(&self.path(key), false).await.map(|_| ())
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        let there = self.look(key).await?;
        match there {
            Some(there) if !there.isdir => Err(StoreError::Changed(format!("{key}: a file is there"))),
            Some(_) if !key.is_empty() => self.wire.delete(&self.path(key), false).await.map(|_| ()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl UnderStore for Hdfs {
    fn url(&self) -> &str {
        &self.shared.url
    }

    fn read_only(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        self.shared.mark_journal().await?;
        self.shared.sweep(ORPHAN_AGE).await?;
        Ok(Capabilities {
            put_if_absent: true,
            put_if_match: false,
            complete_conditional: true,
            metadata: false,
            parallel_parts: true,
            part_bytes_min: 1,
            parts_max: 100_000,
            atomic_rename: true,
        })
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        match visible(key)? {
            Some(key) => self.shared.head(key).await,
            None => Ok(None),
        }
    }

    fn dates_names(&self) -> bool {
        true
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        let listing = match visible(key) {
            Ok(None) => return futures::stream::empty().boxed(),
            Ok(Some(key)) => Listing::new(Arc::clone(&self.shared), key, after),
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let chunks = futures::stream::unfold(Some(listing), |listing| async {
            let mut listing = listing?;
            match listing.next().await {
                Ok(Some(rows)) => Some((rows.into_iter().map(Ok).collect(), Some(listing))),
                Ok(None) | Err(StoreError::NotFound(_)) => None,
                Err(error) => Some((vec![Err(error)], None)),
            }
        });
        chunks.flat_map(futures::stream::iter::<Vec<_>>).boxed()
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        self.shared.read(checked(key)?, range, validator).await
    }

    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        file_key(&write.key)?;
        self.shared.put(write, chunks).await
    }

    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        file_key(&write.key)?;
        self.shared.start(write).await
    }

    async fn part(
        &self,
        write: &Write,
        upload: &UploadId,
        index: u32,
        _offset: u64,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        self.shared.part(file_key(&write.key)?, upload, index, chunks).await
    }

    async fn complete(&self, write: &Write, upload: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
        file_key(&write.key)?;
        self.shared.complete(write, upload, parts).await
    }

    async fn settle(&self, key: &str) -> Result<(), StoreError> {
        let there = self.shared.look(checked(key)?).await?;
        there.ok_or_else(|| StoreError::NotFound(key.to_owned()))?;
        self.shared.mark_journal().await
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        self.shared.abort(checked(key)?, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        self.shared.uploads(prefix).await
    }

    async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        file_key(&write.key)?;
        self.shared.set_attributes(write).await
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        self.shared.delete(checked(key)?, expect).await
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        self.shared.wire.make_dir(&self.shared.path(checked(key)?), 0o755).await
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        match visible(key)? {
            Some(key) => self.shared.remove_dir(key).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
