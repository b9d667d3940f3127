//! The bytes of one file to one key: a single request, or parts in parallel.
//!
//! Parts that arrived stay known while the process lives, so that a store that fails now and then is overcome part by part; the
//! upload's id is in the row and its parts are noted (`notes`), so that a later life goes on, or aborts it. Each part is read and
//! verified once per try, and no more parts are in memory than are on their way. It does not record anything.

use super::put::{Job, write_of};
use crate::{Error, Result, cache::Inner, file::FileReader, rows::Place};
use bytes::Bytes;
use forebay_understore::{Found, PartId, StoreError, UploadId};
use futures::{StreamExt, stream::FuturesUnordered};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Tries of one part before the whole mount pauses.
const PART_TRIES_MAX: u32 = 3;
const PART_PAUSE: Duration = Duration::from_millis(200);
/// Parts of one object; stores take 10,000.
pub(super) const PARTS_MAX: u64 = 9_000;

/// An upload in parts under way.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    pub(super) upload: UploadId,
    pub(super) token: String,
    pub(super) part_bytes: u64,
    pub(super) parts: BTreeMap<u32, PartId>,
    /// Some of the parts are known from notes of an earlier life.
    pub(super) recalled: bool,
}

/// How an upload ended.
#[derive(Debug)]
pub(super) enum Uploaded {
    /// It is there, proven.
    Visible(Found),
    /// The target changed before the visible step; nothing of this try is visible.
    Moved,
    /// Its bytes could not be read here.
    Unreadable(Error),
}

impl Inner {
    pub(super) async fn upload(self: &Arc<Self>, job: &mut Job) -> Result<Uploaded, StoreError> {
        let room = self.room_in_pack(job).await?;
        let reader = match self.read_inode(job.ino, job.inode.generation).await {
            Ok(reader) => reader,
            Err(error) => return Ok(Uploaded::Unreadable(error)),
        };
        if let Some((packs, room)) = room {
            return self.upload_packed(job, &reader, packs, room).await;
        }
        if self.goes_in_parts(job) {
            self.upload_parts(job, &reader).await
        } else {
            self.upload_whole(job, &reader).await
        }
    }

    pub(super) fn goes_in_parts(&self, job: &Job) -> bool {
        job.inode.size > self.persist.settings.single_put_bytes_max.0 && !self.is_packed(job)
    }

    /// Whether parts of the upload that the place names are known to have arrived.
    pub(super) fn is_under_way(&self, job: &Job, place: &Place) -> bool {
        let partials = self.persist.partials.lock();
        let partial = partials.get(&job.row.seq);
        partial.is_some_and(|partial| Some(&partial.upload.0) == place.upload.as_ref())
    }

    async fn upload_whole(&self, job: &Job, reader: &FileReader) -> Result<Uploaded, StoreError> {
        let chunks = match reader.read(0..job.inode.size).await {
            Ok(chunks) => chunks,
            Err(error) => return Ok(Uploaded::Unreadable(error)),
        };
        if !self.still_there(job).await {
            return Ok(Uploaded::Moved);
        }
        job.mount
            .upload
            .put(&write_of(job), chunks)
            .await
            .map(Uploaded::Visible)
    }

    async fn upload_parts(&self, job: &mut Job, reader: &FileReader) -> Result<Uploaded, StoreError> {
        let mut partial = match self.resumed(job) {
            Some(partial) => partial,
            None => match self.started(job).await? {
                Ok(partial) => partial,
                Err(error) => return Ok(Uploaded::Unreadable(error)),
            },
        };
        if let Some(error) = self.send_parts(job, reader, &mut partial).await? {
            return Ok(Uploaded::Unreadable(error));
        }
        if !self.still_there(job).await {
            // The row keeps the upload's id: whoever runs next aborts it, or goes on if the file is back at its name.
            self.persist.partials.lock().remove(&job.row.seq);
            return Ok(Uploaded::Moved);
        }
        let parts: Vec<PartId> = partial.parts.values().cloned().collect();
        let upload = &partial.upload;
        let completed = job.mount.upload.complete(&write_of(job), upload, &parts).await;
        let untrue = partial.recalled && matches!(completed, Err(StoreError::Damaged(_) | StoreError::Refused(_)));
        if untrue {
            // Perhaps it is the notes that are wrong: it begins anew, and only what this life has seen counts.
            self.forget_notes(job.mount.id, &upload.0).await;
        }
        if untrue || completed.is_ok() {
            self.persist.partials.lock().remove(&job.row.seq);
        }
        completed.map(Uploaded::Visible)
    }

    fn resumed(&self, job: &Job) -> Option<Partial> {
        let partial = self.persist.partials.lock().get(&job.row.seq).cloned()?;
        let named = job.row.place(job.mount.id, &job.key)?.upload.as_ref() == Some(&partial.upload.0);
        (named && partial.token == job.token).then_some(partial)
    }

    async fn started(&self, job: &mut Job) -> Result<Result<Partial>, StoreError> {
        let upload = job.mount.upload.start(&write_of(job)).await?;
        let least = job.inode.size.div_ceil(PARTS_MAX);
        let part_bytes = self.persist.settings.part_bytes.0.max(least).max(1);
        let partial = Partial {
            upload,
            token: job.token.clone(),
            part_bytes,
            parts: BTreeMap::new(),
            recalled: false,
        };
        if let Err(error) = self.note_upload(job, Some(partial.upload.0.clone())).await {
            job.mount.upload.abort(&job.key, &partial.upload).await?;
            return Ok(Err(error));
        }
        self.persist.partials.lock().insert(job.row.seq, partial.clone());
        Ok(Ok(partial))
    }

    /// Sends the parts that are missing. An error of reading here is answered apart.
    async fn send_parts(
        &self,
        job: &Job,
        reader: &FileReader,
        partial: &mut Partial,
    ) -> Result<Option<Error>, StoreError> {
        let count = u32::try_from(part_count(job.inode.size, partial.part_bytes)).unwrap_or(u32::MAX);
        let mut missing = (0..count)
            .filter(|index| !partial.parts.contains_key(index))
            .collect::<Vec<_>>()
            .into_iter();
        let (upload, part_bytes) = (partial.upload.clone(), partial.part_bytes);
        let send = |index: u32| self.send_part(job, reader, &upload, part_bytes, index);
        let mut flying = FuturesUnordered::new();
        flying.extend(
            missing
                .by_ref()
                .take(self.persist.settings.parts_parallel.max(1))
                .map(send),
        );
        let mut failed = None;
        while let Some(sent) = flying.next().await {
            match sent {
                Ok(part) => {
                    partial.parts.insert(part.index, part);
                    self.persist.partials.lock().insert(job.row.seq, partial.clone());
                    if failed.is_none()
                        && let Some(next) = missing.next()
                    {
                        flying.push(send(next));
                    }
                }
                // The others end first: what they bring need not be sent again.
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            None => Ok(None),
            Some(SendError::Store(error)) => Err(error),
            Some(SendError::Local(error)) => Ok(Some(error)),
        }
    }

    async fn send_part(
        &self,
        job: &Job,
        reader: &FileReader,
        upload: &UploadId,
        part_bytes: u64,
        index: u32,
    ) -> Result<PartId, SendError> {
        let start = u64::from(index) * part_bytes;
        let end = job.inode.size.min(start + part_bytes);
        let chunks: Vec<Bytes> = reader.read(start..end).await.map_err(SendError::Local)?;
        let write = write_of(job);
        let mut tries = 0;
        loop {
            tries += 1;
            match job
                .mount
                .upload
                .part(&write, upload, index, start, chunks.clone())
                .await
            {
                Err(StoreError::Unavailable(_) | StoreError::Damaged(_)) if tries < PART_TRIES_MAX => {
                    self.components.clock.sleep(PART_PAUSE * tries).await;
                }
                Ok(part) => {
                    self.note_part(job, upload, part_bytes, &part).await;
                    return Ok(part);
                }
                Err(error) => return Err(SendError::Store(error)),
            }
        }
    }

    /// Whether the inode still lies at the path, with this content: asked just before the visible step.
    pub(super) async fn still_there(&self, job: &Job) -> bool {
        let same = match self.names.inode(job.ino).await {
            Ok(Some((inode, _))) => inode.generation == job.inode.generation,
            _ => false,
        };
        same && matches!(self.names.path_of(job.ino).await, Ok(Some(path)) if path == job.path)
    }
}

/// Parts of so many bytes that a content has.
pub(super) fn part_count(size: u64, part_bytes: u64) -> u64 {
    size.div_ceil(part_bytes.max(1))
}

/// Where sending a part failed.
#[derive(Debug)]
enum SendError {
    Store(StoreError),
    Local(Error),
}
