//! Writes on their way: from a folder of their own, by a rename, to their key; and what that folder says afterwards.
//!
//! The life of one is told on the front page. It owns the hidden folder and knows no listing.

use super::{
    Shared, WITNESS_AGE, expect, found,
    hidden::{self, PARTS, Upload, WHOLE},
    name_of, now_millis, owner, wire,
};
use crate::{
    Expect, Found, PartId, StoreError, StoreKey, UploadId, Write,
    attributes::{MODE, MTIME},
    local::HIDDEN,
    parent_and_name,
};
use bytes::Bytes;
use futures::StreamExt;
use hdfs_native::client::FileStatus;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// Most witnesses that one process leaves.
pub(super) const WITNESSES_MAX: usize = 1000;

/// Witnesses deleted by one write, so that no write pays for many.
const WITNESSES_PER_WRITE: usize = 4;

/// Mode of the hidden folder and what lies in it.
const HIDDEN_MODE: u32 = 0o700;

/// What a file's owner may do with it while it is ours.
const OURS: u32 = 0o600;

/// An upload and where it lies.
#[derive(Debug)]
pub(super) struct Started {
    upload: Upload,
    pub(super) folder: String,
}

impl Started {
    pub(super) fn whole(&self) -> String {
        format!("{}/{WHOLE}", self.folder)
    }

    fn is(&self, status: &FileStatus) -> bool {
        !status.isdir && (status.length as u64, status.modification_time) == (self.upload.size, self.upload.mtime)
    }
}

/// A number among the attributes.
fn number(write: &Write, name: &str, radix: u32) -> Option<i64> {
    let value = write.attributes.iter().find(|(key, _)| key == name);
    value.and_then(|(_, value)| i64::from_str_radix(value, radix).ok())
}

fn mode(write: &Write) -> u32 {
    let mode = number(write, MODE, 8).and_then(|mode| u32::try_from(mode & 0o777).ok());
    mode.unwrap_or(0o644)
}

/// Milliseconds that the object will have as its mtime: another one than what is there, when the sizes are the same.
fn mtime(write: &Write, there: Option<&FileStatus>) -> u64 {
    let wanted = number(write, MTIME, 10).map_or_else(now_millis, |micros| {
        u64::try_from(micros.div_euclid(1000)).unwrap_or_default()
    });
    let same = there.is_some_and(|there| there.modification_time == wanted && there.length as u64 == write.size);
    wanted + u64::from(same)
}

impl Shared {
    /// Makes the hidden folder, once.
    async fn hidden(&self) -> Result<(), StoreError> {
        if !self.hidden_made.load(Ordering::Relaxed) {
            self.wire.make_dir(&self.path(HIDDEN), HIDDEN_MODE).await?;
            self.hidden_made.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn serial(&self) -> String {
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

    pub(super) fn started(&self, key: &str, id: &UploadId) -> Result<Started, StoreError> {
        let folder = self.path(&hidden::folder_of(key, id)?);
        let gone = || StoreError::NotFound(format!("upload {:?}", id.0));
        let upload = Upload::parse(&id.0).ok_or_else(gone)?;
        Ok(Started { upload, folder })
    }

    /// Our token for what is at `key`, when a witness says so.
    pub(super) async fn token(&self, key: &str, there: &FileStatus) -> Result<Option<String>, StoreError> {
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

    pub(super) async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
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

    /// Mode, owner and mtime of what is there already. The mtime comes last, and a witness of it before: whatever cuts this off, the file
    /// is as it was expected, or it is ours.
    pub(super) async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        let (key, path) = (&write.key, self.path(&write.key));
        let there = self.look(key).await?;
        expect(key, &write.expect, there.as_ref())?;
        let there = there.ok_or_else(|| StoreError::Changed(key.clone()))?;
        if u32::from(there.permission) & 0o777 != mode(write) {
            self.wire.set_mode(&path, mode(write)).await?;
        }
        self.give_away(write, &path).await?;
        let wanted = mtime(write, None);
        if wanted != there.modification_time {
            if self.token(key, &there).await?.is_some() {
                self.hidden().await?;
                let (_, witness) = self.upload(write, None)?;
                self.wire.make_dir(&witness.folder, HIDDEN_MODE).await?;
                self.remember(key, &witness.folder);
            }
            self.wire.set_mtime(&path, wanted).await?;
        }
        self.head(key).await
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
    pub(super) fn remember(&self, key: &str, folder: &str) {
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

    pub(super) async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        self.hidden().await?;
        let there = self.look(&write.key).await?;
        let (id, started) = self.upload(write, there.as_ref())?;
        self.wire
            .make_dir(&format!("{}/{PARTS}", started.folder), HIDDEN_MODE)
            .await?;
        Ok(id)
    }

    pub(super) async fn part(
        &self,
        key: &str,
        id: &UploadId,
        index: u32,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
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

    pub(super) async fn complete(&self, write: &Write, id: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
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
    pub(super) async fn abort(&self, key: &str, id: &UploadId) -> Result<(), StoreError> {
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
    pub(super) async fn folders(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId, u64)>, StoreError> {
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

    pub(super) async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
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
    pub(super) async fn sweep(&self, age: Duration) -> Result<(), StoreError> {
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
    pub(super) async fn mark_journal(&self) -> Result<(), StoreError> {
        self.hidden().await?;
        let mark = self.path(&format!("{HIDDEN}/s{}", self.serial()));
        self.wire.make_dir(&mark, HIDDEN_MODE).await?;
        self.wire.delete(&mark, false).await.map(|_| ())
    }
}

pub(super) fn part_path(started: &Started, index: u32) -> String {
    format!("{}/{PARTS}/{index:06}", started.folder)
}
