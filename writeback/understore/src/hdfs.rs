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
//! Every step, an RPC or a mebibyte, ends within the timeout as `Unavailable`. Safe mode, a standby NameNode and a lack of
//! DataNodes are `Unavailable`; permissions and quotas are `Refused` with the server's words.

mod hidden;
mod order;
mod owner;
mod wire;

use self::{
    hidden::{PARTS, Upload, WHOLE, checked},
    order::Order,
    wire::{Rows, Wire},
};
use crate::{
    Capabilities, Expect, Found, Listed, PartId, Settings, StoreError, StoreKey, UnderStore, UploadId, Validator,
    Write,
    address::{self, HdfsAddress},
    join,
    local::HIDDEN,
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
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a witness stays at least, unless [`WITNESSES_MAX`] younger ones are there.
pub const WITNESS_AGE: Duration = Duration::from_secs(600);

/// Most witnesses that one process leaves.
const WITNESSES_MAX: usize = 1000;

/// Age at which a witness that no process looks after is deleted.
pub const ORPHAN_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Witnesses deleted by one write, so that no write pays for many.
const WITNESSES_PER_WRITE: usize = 4;

/// Mode of the hidden folder and what lies in it.
const HIDDEN_MODE: u32 = 0o700;

/// What a file's owner may do with it while it is ours.
const OURS: u32 = 0o600;

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
        attributes: Vec::new(),
        is_dir: status.isdir,
    }
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

/// A number among the attributes.
fn number(write: &Write, name: &str, radix: u32) -> Option<i64> {
    let value = write.attributes.iter().find(|(key, _)| key == name);
    value.and_then(|(_, value)| i64::from_str_radix(value, radix).ok())
}

fn mode(write: &Write) -> u32 {
    let mode = number(write, "mode", 8).and_then(|mode| u32::try_from(mode & 0o777).ok());
    mode.unwrap_or(0o644)
}

/// Milliseconds that the object will have as its mtime: another one than what is there, when the sizes are the same.
fn mtime(write: &Write, there: Option<&FileStatus>) -> u64 {
    let wanted = number(write, "mtime", 10).map_or_else(now_millis, |micros| {
        u64::try_from(micros.div_euclid(1000)).unwrap_or_default()
    });
    let same = there.is_some_and(|there| there.modification_time == wanted && there.length as u64 == write.size);
    wanted + u64::from(same)
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

/// An upload and where it lies.
#[derive(Debug)]
struct Started {
    upload: Upload,
    folder: String,
}

impl Started {
    fn whole(&self) -> String {
        format!("{}/{WHOLE}", self.folder)
    }

    fn is(&self, status: &FileStatus) -> bool {
        !status.isdir && (status.length as u64, status.modification_time) == (self.upload.size, self.upload.mtime)
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

    /// Makes the hidden folder, once.
    async fn hidden(&self) -> Result<(), StoreError> {
        if !self.hidden_made.load(Ordering::Relaxed) {
            self.wire.make_dir(&self.path(HIDDEN), HIDDEN_MODE).await?;
            self.hidden_made.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn serial(&self) -> String {
        format!("{:x}-{:x}", self.born, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// An upload to come.
    fn upload(&self, write: &Write, there: Option<&FileStatus>) -> Result<(UploadId, Started), StoreError> {
        let upload = Upload {
            token: write.token.clone(),
            size: write.size,
            mtime: mtime(write, there),
            serial: self.serial(),
        };
        let id = upload.id()?;
        let started = self.started(&write.key, &id)?;
        Ok((id, started))
    }

    fn started(&self, key: &str, id: &UploadId) -> Result<Started, StoreError> {
        let folder = self.path(&hidden::folder_of(key, id)?);
        let gone = || StoreError::NotFound(format!("upload {:?}", id.0));
        let upload = Upload::parse(&id.0).ok_or_else(gone)?;
        Ok(Started { upload, folder })
    }

    /// Our token for what is at `key`, when a witness says so.
    async fn token(&self, key: &str, there: &FileStatus) -> Result<Option<String>, StoreError> {
        let folder = self.path(&hidden::folder_of_key(key));
        for row in self.wire.names(&folder).await? {
            let hidden::Name::Upload(id) = hidden::name(name_of(&row)) else {
                continue;
            };
            let started = self.started(key, &UploadId(id.to_owned()))?;
            if started.is(there) && self.wire.names(&started.folder).await?.is_empty() {
                return Ok(Some(started.upload.token));
            }
        }
        Ok(None)
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
            found.attributes = vec![
                ("mode".into(), format!("{:o}", status.permission & 0o777)),
                ("mtime".into(), found.mtime.to_string()),
            ];
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

    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        let there = self.look(&write.key).await?;
        expect(&write.key, &write.expect, there.as_ref())?;
        self.hidden().await?;
        let (id, started) = self.upload(write, there.as_ref())?;
        let written = async {
            let body = self.wire.create(&started.whole(), mode(write) | OURS, false).await?;
            self.fill(body, write, futures::stream::iter(chunks).map(Ok)).await?;
            self.dress(write, &started).await
        };
        let written = written.await;
        self.ended(write, &id, written).await?;
        let shown = self.show(write, &started).await;
        // An answer that did not come leaves the upload to whoever asks what became of it.
        match shown {
            Err(StoreError::Unavailable(_)) => shown,
            _ => self.ended(write, &id, shown).await,
        }
    }

    /// Forgets the upload when it failed. When that fails too, `uploads` still knows it.
    async fn ended<T>(&self, write: &Write, id: &UploadId, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if done.is_err() {
            let aborted = tokio::time::timeout(self.timeout, self.abort(&write.key, id)).await;
            if !matches!(aborted, Ok(Ok(()))) {
                tracing::debug!(key = write.key, ?aborted, "an upload that failed is left behind");
            }
        }
        done
    }

    async fn fill(
        &self,
        mut body: wire::Body<'_>,
        write: &Write,
        mut chunks: impl futures::Stream<Item = Result<Bytes, StoreError>> + Unpin,
    ) -> Result<(), StoreError> {
        while let Some(chunk) = chunks.next().await {
            body.write(chunk?).await?;
        }
        let len = body.close().await?;
        if len == write.size {
            return Ok(());
        }
        Err(StoreError::Damaged(format!(
            "{}: {len} bytes arrived, {} announced",
            write.key, write.size
        )))
    }

    /// Gives the closed file its mtime, mode and owner: in this order, for each may take the right to do the one before.
    async fn dress(&self, write: &Write, started: &Started) -> Result<(), StoreError> {
        let path = started.whole();
        self.wire.set_mtime(&path, started.upload.mtime).await?;
        if mode(write) | OURS != mode(write) {
            self.wire.set_mode(&path, mode(write)).await?;
        }
        self.give_away(write, &path).await
    }

    /// A user that may not give files away is no reason to keep the bytes back.
    async fn give_away(&self, write: &Write, path: &str) -> Result<(), StoreError> {
        let id = |name| number(write, name, 10).and_then(|id| u32::try_from(id).ok());
        let (uid, gid) = (id("uid"), id("gid"));
        if (uid, gid) == (None, None) || !self.may_give_away.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The system's tables may lie behind a network.
        let names = move || (uid.and_then(owner::user_name), gid.and_then(owner::group_name));
        let (user, group) = tokio::task::spawn_blocking(names).await.unwrap_or_default();
        if (&user, &group) == (&None, &None) {
            return Ok(());
        }
        match self.wire.set_owner(path, user.as_deref(), group.as_deref()).await {
            Err(StoreError::Refused(why)) => {
                tracing::info!(why, "owners are not kept at {}", self.url);
                self.may_give_away.store(false, Ordering::Relaxed);
                Ok(())
            }
            done => done,
        }
    }

    /// The visible step. `Unavailable`: it may have happened.
    async fn show(&self, write: &Write, started: &Started) -> Result<Found, StoreError> {
        let (key, path) = (&write.key, self.path(&write.key));
        self.remember(key, &started.folder);
        if write.expect != Expect::Absent {
            expect(key, &write.expect, self.look(key).await?.as_ref())?;
        }
        let replace = write.expect != Expect::Absent;
        match self.wire.rename(&started.whole(), &path, replace).await {
            // The parent is missing, or `whole` is.
            Err(StoreError::NotFound(_)) => {
                let (parent, _) = parent_and_name(key);
                self.wire.make_dir(&self.path(parent), 0o755).await?;
                self.wire.rename(&started.whole(), &path, replace).await?;
            }
            done => done?,
        }
        let unclear = |text: String| StoreError::Unavailable(format!("{key}: written, but {text}"));
        let there = self.look(key).await.map_err(|error| unclear(error.to_string()))?;
        let there = there.ok_or_else(|| unclear("not there".into()))?;
        if !started.is(&there) {
            return Err(StoreError::Changed(format!(
                "{key}: overwritten at once by someone else"
            )));
        }
        self.forget_old_witnesses().await;
        Ok(self.shown(write, &there))
    }

    fn shown(&self, write: &Write, there: &FileStatus) -> Found {
        Found {
            token: Some(write.token.clone()),
            attributes: write.attributes.clone(),
            ..found(there)
        }
    }

    /// Notes a folder that will be a witness.
    fn remember(&self, key: &str, folder: &str) {
        let witness = (Instant::now(), key.to_owned(), folder.to_owned());
        self.witnesses.lock().push_back(witness);
    }

    /// Deletes some witnesses whose time has come. One that is none, for it is not empty, stays.
    async fn forget_old_witnesses(&self) {
        let due: Vec<_> = {
            let mut witnesses = self.witnesses.lock();
            let over = witnesses.len().saturating_sub(WITNESSES_MAX);
            let old = witnesses
                .iter()
                .take_while(|(at, ..)| at.elapsed() > WITNESS_AGE)
                .count();
            witnesses.drain(..over.max(old).min(WITNESSES_PER_WRITE)).collect()
        };
        for (_, key, folder) in due {
            if let Err(error) = self.forget(&key, &folder).await {
                tracing::debug!(key, %error, "a witness is left behind");
            }
        }
    }

    /// Deletes an empty upload's folder, and those of its key when they are empty then.
    async fn forget(&self, key: &str, folder: &str) -> Result<(), StoreError> {
        self.wire.delete(folder, false).await?;
        let mut of_key = hidden::folder_of_key(key);
        while of_key != HIDDEN {
            match self.wire.delete(&self.path(&of_key), false).await {
                Err(StoreError::Changed(_)) => break,
                done => done?,
            };
            of_key.truncate(parent_and_name(&of_key).0.len());
        }
        Ok(())
    }

    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        self.hidden().await?;
        let there = self.look(&write.key).await?;
        let (id, started) = self.upload(write, there.as_ref())?;
        self.wire
            .make_dir(&format!("{}/{PARTS}", started.folder), HIDDEN_MODE)
            .await?;
        Ok(id)
    }

    async fn part(&self, key: &str, id: &UploadId, index: u32, chunks: Vec<Bytes>) -> Result<PartId, StoreError> {
        let path = part_path(&self.started(key, id)?, index);
        let mut body = self.wire.create(&path, OURS, true).await?;
        for chunk in chunks {
            body.write(chunk).await?;
        }
        let len = body.close().await?;
        Ok(PartId {
            index,
            id: len.to_string(),
        })
    }

    async fn complete(&self, write: &Write, id: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
        let started = self.started(&write.key, id)?;
        let gone = || StoreError::NotFound(format!("upload {:?}", id.0));
        let other = (&started.upload.token, started.upload.size) != (&write.token, write.size);
        if other || self.wire.look(&started.folder).await?.is_none() {
            return Err(gone());
        }
        let names = self.wire.names(&started.folder).await?;
        let has = |name| names.iter().any(|row| name_of(row) == name);
        if has(PARTS) {
            self.assemble(write, &started, parts).await?;
        } else if has(WHOLE) {
            self.trust(write, &started).await?;
        } else {
            // It was shown before, and the answer was lost.
            let there = self.look(&write.key).await?;
            return match there.filter(|there| started.is(there)) {
                Some(there) => Ok(self.shown(write, &there)),
                None => Err(gone()),
            };
        }
        self.show(write, &started).await
    }

    /// Makes sure that a `whole` which this or an earlier life left is closed and in full.
    async fn trust(&self, write: &Write, started: &Started) -> Result<(), StoreError> {
        self.wire.recover_lease(&started.whole()).await?;
        let whole = self.wire.look(&started.whole()).await?;
        if whole.is_some_and(|whole| started.is(&whole)) {
            return Ok(());
        }
        Err(StoreError::Damaged(format!(
            "{}: what was left of its upload is not whole",
            write.key
        )))
    }

    /// Copies the parts into `whole`, and deletes them when it is durable.
    async fn assemble(&self, write: &Write, started: &Started, parts: &[PartId]) -> Result<(), StoreError> {
        let mut parts: Vec<&PartId> = parts.iter().collect();
        parts.sort_by_key(|part| part.index);
        let mut body = self.wire.create(&started.whole(), mode(write) | OURS, true).await?;
        for part in parts {
            let len = part
                .id
                .parse()
                .map_err(|_| StoreError::Damaged(format!("{}: part {} has no length", write.key, part.index)))?;
            let mut pieces = self.wire.open(&part_path(started, part.index), 0..len).await?;
            while let Some(piece) = pieces.next().await? {
                body.write(piece).await?;
            }
        }
        self.fill(body, write, futures::stream::empty()).await?;
        self.dress(write, started).await?;
        self.wire.delete(&format!("{}/{PARTS}", started.folder), true).await?;
        Ok(())
    }

    /// What it deletes can not become visible any more, also by a request that is still on its way.
    async fn abort(&self, key: &str, id: &UploadId) -> Result<(), StoreError> {
        let Ok(started) = self.started(key, id) else {
            return Ok(());
        };
        let parts = self.wire.delete(&format!("{}/{PARTS}", started.folder), true).await?;
        let whole = self.wire.delete(&started.whole(), false).await?;
        // With neither it is a witness, or gone.
        if parts || whole {
            self.forget(key, &started.folder).await?;
        }
        Ok(())
    }

    /// Every upload's folder under keys that may begin with `prefix`: the key, the id, when it changed.
    async fn folders(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId, u64)>, StoreError> {
        let mut all = Vec::new();
        let mut open = vec![(HIDDEN.to_owned(), String::new())];
        while let Some((folder, pieces)) = open.pop() {
            for row in self.wire.names(&self.path(&folder)).await? {
                let name = name_of(&row);
                match (hidden::name(name), hidden::key_of(&pieces)) {
                    (hidden::Name::Key(piece), _) => {
                        let pieces = format!("{pieces}{piece}");
                        if hidden::may_begin_with(&pieces, prefix) {
                            open.push((format!("{folder}/{name}"), pieces));
                        }
                    }
                    (hidden::Name::Upload(id), Some(key)) if key.starts_with(prefix) => {
                        all.push((key, UploadId(id.to_owned()), row.modification_time));
                    }
                    _ => {}
                }
            }
        }
        Ok(all)
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        let mut uploads = Vec::new();
        for (key, id, _) in self.folders(prefix).await? {
            let folder = self.started(&key, &id)?.folder;
            if !self.wire.names(&folder).await?.is_empty() {
                uploads.push((key, id));
            }
        }
        uploads.sort_by(|a, b| (&a.0, &a.1.0).cmp(&(&b.0, &b.1.0)));
        Ok(uploads)
    }

    /// Deletes witnesses that nobody came back for.
    async fn sweep(&self, age: Duration) -> Result<(), StoreError> {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let before = now_millis().saturating_sub(age);
        for (key, id, _) in self.folders("").await?.into_iter().filter(|(.., at)| *at < before) {
            let folder = self.started(&key, &id)?.folder;
            if self.wire.names(&folder).await?.is_empty() {
                self.forget(&key, &folder).await?;
            }
        }
        Ok(())
    }

    /// A change that the NameNode answers when its journal has it, and everything before it.
    async fn mark_journal(&self) -> Result<(), StoreError> {
        self.hidden().await?;
        let mark = self.path(&format!("{HIDDEN}/s{}", self.serial()));
        self.wire.make_dir(&mark, HIDDEN_MODE).await?;
        self.wire.delete(&mark, false).await.map(|_| ())
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

fn part_path(started: &Started, index: u32) -> String {
    format!("{}/{PARTS}/{index:06}", started.folder)
}

/// A listing under way.
struct Listing {
    shared: Arc<Shared>,
    key: String,
    order: Order<Found>,
    rows: Option<Rows>,
    more: bool,
}

impl Listing {
    /// The next rows; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Listed>>, StoreError> {
        while self.more {
            let rows = match &mut self.rows {
                Some(rows) => rows,
                None => self.rows.insert(self.shared.wire.rows(&self.shared.path(&self.key))),
            };
            let next = match rows.next().await? {
                Some(row) if self.key.is_empty() && name_of(&row) == HIDDEN => Vec::new(),
                Some(row) => self.order.push(name_of(&row).to_owned(), found(&row)),
                None => {
                    self.rows = None;
                    let (next, more) = self.order.end();
                    self.more = more;
                    next
                }
            };
            if !next.is_empty() {
                let listed = |(name, found)| Listed { name, found };
                return Ok(Some(next.into_iter().map(listed).collect()));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl UnderStore for Hdfs {
    fn url(&self) -> &str {
        &self.shared.url
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
        self.shared.head(checked(key)?).await
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        let listing = match checked(key) {
            Ok(key) => Listing {
                shared: Arc::clone(&self.shared),
                key: key.to_owned(),
                order: Order::new(after, order::HELD_MAX),
                rows: None,
                more: true,
            },
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

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        self.shared.delete(checked(key)?, expect).await
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        self.shared.wire.make_dir(&self.shared.path(checked(key)?), 0o755).await
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        self.shared.remove_dir(checked(key)?).await
    }
}

#[cfg(test)]
mod tests;
