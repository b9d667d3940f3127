//! Packs: many small files in one object, over any under-store, and shown one by one.
//!
//! [`Packed`] wraps a store. Whoever writes says which files go into packs ([`Packed::put_packed`]); everything else goes through, and
//! `head`, `list`, `read` and `delete` show what is packed beside what the store has under its own names. It owns no policy.
//!
//! # What is in the store
//!
//! The folder `.forebay-packs` at the mount's root holds packs numbered from 1. A pack is the bytes of its files and an index
//! (`format`). An index has records: this file under this key; or, nothing under this key any more. For each key the record of the
//! pack with the highest number counts, so deleting and overwriting are records of a newer pack, and whoever reads all packs, with
//! nothing else at hand, finds what was there last. An object that the store has under a file's own name hides the packed one: others
//! may write such. The next pack says that what was seen to be hidden so is gone, or it would come back when theirs is deleted.
//!
//! # Consistency
//!
//! The packs are a log with one writer at a time: a pack goes to the number after the newest, on the condition that nothing is there. A
//! store that can not refuse a second one gets no packs. Who finds the number taken takes in what is there, looks again at what it wants
//! to write, and goes on. So a file's expectation is checked against everything before it. What the store has under own names is asked
//! just before (by one listing per directory): whoever writes such a name within that round trip hides what was packed.
//!
//! A pack whose outcome is unknown keeps its number. The next pack goes to the same key, so that a late one either is found there or
//! can not arrive any more; who deletes a file of which that may be true asks [`UnderStore::uploads`] first, which decides it.
//!
//! A file that is written under its own name over a packed one is visible as soon as it is there; its record in the next pack only
//! keeps the packed one from showing again, and [`UnderStore::settle`] makes up for one that was cut off.
//!
//! # What is over
//!
//! A pack without a file that counts, and without a record that still keeps an older one from coming back, is deleted, but for the
//! newest one, which keeps its number. Of packs that are more than half dead, and of small ones once there are many, what counts is
//! carried over into a new pack first. A packed file's validator tells its content, not its place, so nobody notices.
//!
//! # What it costs
//!
//! The indexes of all packs are in memory, and are read when the first call needs them. Packs that others write or delete are found
//! within five seconds (a minute, where there were none), by a listing of the folder. One that can not be read is `Refused` by name for
//! everything but files under own names: without it nobody knows what was deleted.

mod format;
mod index;
mod log;

use self::log::{Log, Wanted, holds};
use crate::{
    Capabilities, Expect, Found, Listed, PartId, Peeked, StoreError, StoreKey, UnderStore, UnderStoreRef, UploadId,
    Validator, Write, check_key, join, local::is_hidden,
};
use async_trait::async_trait;
use bytes::Bytes;
use forebay_runtime::clock::ClockRef;
use futures::{
    StreamExt,
    stream::{BoxStream, Peekable},
};
use std::{collections::VecDeque, ops::Range, pin::Pin, sync::Arc};
use tokio::sync::OwnedSemaphorePermit;

/// The folder at the mount's root that holds the packs.
pub const FOLDER: &str = ".forebay-packs";

/// Largest file that goes into a pack, bytes.
pub const PACKED_BYTES_MAX: u64 = 1 << 20;

/// Most keys that packs hold; files beyond go under their own names. In memory they take up to 4 GB.
const KEYS_MAX: usize = 16 << 20;

/// Packed names that are taken for a listing at once.
const LISTED_AT_ONCE: usize = 1000;

/// An under-store with packs. Clones, and those for uploads, share the packs.
#[derive(Clone, Debug)]
pub struct Packed {
    log: Arc<Log>,
    store: UnderStoreRef,
    upload: UnderStoreRef,
}

/// Room for the bytes of a file that goes into a pack.
#[derive(Debug)]
pub struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Packed {
    /// Over `store`. Packs are written through `upload`, the same store, perhaps slowed down.
    pub fn new(store: UnderStoreRef, upload: UnderStoreRef, clock: ClockRef) -> Self {
        Self {
            log: Arc::new(Log::new(Arc::clone(&store), Arc::clone(&upload), clock)),
            store,
            upload,
        }
    }

    /// The same, where everything goes through `upload`.
    pub fn for_uploads(&self) -> Self {
        Self {
            store: Arc::clone(&self.upload),
            ..self.clone()
        }
    }

    /// Whether this file can go into a pack: it is small, replaces nothing that has its own name in the store, its attributes fit, and
    /// the store refuses what would be there twice.
    pub async fn takes(&self, write: &Write) -> Result<bool, StoreError> {
        let expected = match &write.expect {
            Expect::Absent => true,
            Expect::Match(validator) => index::is_packed(validator),
            Expect::Any => false,
        };
        let fits = format::record_bytes(&write.key, &write.token, &write.attributes).is_some();
        if !expected || !fits || write.size > PACKED_BYTES_MAX || is_ours(&write.key) || is_hidden(&write.key) {
            return Ok(false);
        }
        self.log.look(false).await?;
        let is_room = self.log.packs().len() < KEYS_MAX;
        Ok(is_room && self.log.is_exclusive().await?)
    }

    /// Room for a file of so many bytes; to be taken before they are read.
    pub async fn room(&self, bytes: u64) -> Room {
        Room {
            _permit: self.log.room(bytes).await,
        }
    }

    /// Writes a file that [`Packed::takes`] into a pack with others, as soon as that is in the store. Errors are those of
    /// [`UnderStore::put`].
    pub async fn put_packed(&self, write: &Write, chunks: Vec<Bytes>, room: Room) -> Result<Found, StoreError> {
        check_key(&write.key)?;
        let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if bytes != write.size || bytes > PACKED_BYTES_MAX {
            return Err(StoreError::Damaged(format!(
                "{}: {bytes} bytes for a pack, {} announced",
                write.key, write.size
            )));
        }
        let found = self.log.submit(Wanted::File(write.clone(), chunks)).await?;
        drop(room);
        // Overwritten in the very moment it was there.
        found.ok_or_else(|| StoreError::Changed(write.key.clone()))
    }

    /// Whether a file is packed under this key, as far as is known here.
    pub fn holds(&self, key: &str) -> bool {
        self.log.file(key).is_some()
    }

    /// Whether a validator is that of a packed file.
    pub fn is_packed(validator: &str) -> bool {
        index::is_packed(&Validator(validator.to_owned()))
    }

    /// The write that makes an object under its own name, over what may be packed there.
    async fn by_own_name(&self, write: &Write) -> Result<Write, StoreError> {
        check_not_ours(&write.key)?;
        self.log.look(false).await?;
        let there = self.log.file(&write.key);
        let expect = match &write.expect {
            Expect::Absent if there.is_some() => return Err(StoreError::Changed(write.key.clone())),
            Expect::Match(validator) if index::is_packed(validator) => match holds(&write.expect, there.as_ref()) {
                true => Expect::Absent,
                false => return Err(StoreError::Changed(write.key.clone())),
            },
            other => other.clone(),
        };
        Ok(Write {
            expect,
            ..write.clone()
        })
    }

    /// What is at `key`, with the bytes of an object of at most so many where they are wanted.
    async fn look(&self, key: &str, bytes_max: Option<u64>) -> Result<Option<Peeked>, StoreError> {
        let own = async || match bytes_max {
            Some(bytes_max) => self.store.peek(key, bytes_max).await,
            None => Ok(self.store.head(key).await?.map(Peeked::from)),
        };
        if key.is_empty() {
            return own().await;
        }
        check_key(key)?;
        if is_ours(key) {
            return Ok(None);
        }
        // In this order: a file that goes from a pack to its own name meanwhile is seen at one of them.
        let looked = self.log.look(false).await;
        let (file, below) = {
            let packs = self.log.packs();
            (packs.file(key), packs.any_below(key))
        };
        let there = own().await?;
        if there.as_ref().is_some_and(|there| !there.found.is_dir) {
            if let Some(lies) = file {
                self.log.note_hidden(key, index::validator(&lies.meta.token));
            }
            return Ok(there);
        }
        looked?;
        let packed = file.map(|lies| index::found(&lies.meta).into());
        Ok(packed.or(there).or_else(|| below.then(|| index::directory().into())))
    }

    /// What is packed under this key is over, whatever it is.
    async fn bury(&self, key: &str) -> Result<(), StoreError> {
        if self.holds(key) {
            self.log.submit(Wanted::Gone(key.to_owned(), Expect::Any)).await?;
        }
        Ok(())
    }
}

/// Whether a key is the packs' folder or in it.
pub(crate) fn is_ours(key: &str) -> bool {
    key.strip_prefix(FOLDER)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_not_ours(key: &str) -> Result<(), StoreError> {
    if is_ours(key) {
        return Err(StoreError::Refused(format!(
            "{key}: {FOLDER} is where packs are; use another name"
        )));
    }
    Ok(())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl UnderStore for Packed {
    fn url(&self) -> &str {
        self.store.url()
    }

    fn read_only(&self) -> bool {
        self.store.read_only()
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        let found = self.store.probe().await?;
        self.log.note_exclusive(found.put_if_absent);
        if let Err(error) = self.log.clear_up().await {
            tracing::debug!(url = self.url(), %error, "packs that were cut off stay for now");
        }
        Ok(found)
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        Ok(self.look(key, None).await?.map(|peeked| peeked.found))
    }

    async fn peek(&self, key: &str, bytes_max: u64) -> Result<Option<Peeked>, StoreError> {
        self.look(key, Some(bytes_max)).await
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        if is_ours(key) {
            return futures::stream::empty().boxed();
        }
        let listing = Listing {
            log: Arc::clone(&self.log),
            dir: key.to_owned(),
            own: self.store.list(key, after).peekable(),
            packed: VecDeque::new(),
            after: after.map(str::to_owned),
            begun: false,
            more: true,
            any: false,
        };
        futures::stream::unfold(Some(listing), |listing| async move {
            let mut listing = listing?;
            match listing.next().await {
                Ok(Some(row)) => Some((Ok(row), Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        if !index::is_packed(validator) {
            return self.store.read(key, range, validator).await;
        }
        let bytes = self.log.read(&self.store, key, validator).await?;
        if range.start > range.end || range.end > bytes.len() as u64 {
            return Err(StoreError::Damaged(format!("{key}: no bytes {range:?}")));
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        let found = self.store.put(&self.by_own_name(write).await?, chunks).await?;
        self.bury(&write.key).await?;
        Ok(found)
    }

    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        self.store.start(&self.by_own_name(write).await?).await
    }

    async fn part(
        &self,
        write: &Write,
        upload: &UploadId,
        index: u32,
        offset: u64,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        self.store.part(write, upload, index, offset, chunks).await
    }

    async fn complete(&self, write: &Write, upload: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
        let found = self
            .store
            .complete(&self.by_own_name(write).await?, upload, parts)
            .await?;
        self.bury(&write.key).await?;
        Ok(found)
    }

    async fn settle(&self, key: &str) -> Result<(), StoreError> {
        self.log.look(false).await?;
        let Some(lies) = self.log.file(key) else {
            return self.store.settle(key).await;
        };
        let is_hidden = self.store.head(key).await?.is_some_and(|found| !found.is_dir);
        if !is_hidden {
            return self.store.settle(&log::pack_key(lies.seq)).await;
        }
        self.bury(key).await?;
        self.store.settle(key).await
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        self.store.abort(key, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        self.log.decide().await?;
        let mut uploads = self.store.uploads(prefix).await?;
        uploads.retain(|(key, _)| !is_ours(key));
        Ok(uploads)
    }

    async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        check_not_ours(&write.key)?;
        match &write.expect {
            // A pack is written once.
            Expect::Match(validator) if index::is_packed(validator) => Ok(None),
            _ => self.store.set_attributes(write).await,
        }
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        check_not_ours(key)?;
        self.log.look(false).await?;
        if let Expect::Match(validator) = expect {
            if index::is_packed(validator) {
                let there = self.log.file(key);
                if !holds(expect, there.as_ref()) {
                    return Err(StoreError::Changed(key.to_owned()));
                }
                let gone = Wanted::Gone(key.to_owned(), expect.clone());
                return self.log.submit(gone).await.map(drop);
            }
            // What it hides goes first, or it would show; but not if it is not to go.
            let there = match self.holds(key) {
                true => self.store.head(key).await?,
                false => None,
            };
            if there.is_some_and(|found| found.validator == *validator) {
                self.bury(key).await?;
            }
        } else {
            self.bury(key).await?;
        }
        self.store.delete(key, expect).await
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        check_not_ours(key)?;
        self.store.make_dir(key).await
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        if is_ours(key) {
            return Ok(());
        }
        self.log.look(false).await?;
        if self.log.packs().any_below(key) {
            return Err(StoreError::Changed(format!("{key}: not empty")));
        }
        self.store.remove_dir(key).await
    }

    fn dates_names(&self) -> bool {
        self.store.dates_names() && self.log.packs().is_empty()
    }

    async fn unmark_dir(&self, key: &str) -> Result<bool, StoreError> {
        // What is packed makes no directory in the store.
        check_not_ours(key)?;
        self.store.unmark_dir(key).await
    }
}

/// What the store has under own names and what is packed, in one order. A name that comes from both comes once; that of the store counts.
struct Listing {
    log: Arc<Log>,
    dir: String,
    own: Peekable<BoxStream<'static, Result<Listed, StoreError>>>,
    packed: VecDeque<Listed>,
    /// The name after which more is packed.
    after: Option<String>,
    begun: bool,
    more: bool,
    /// Something was packed there: that the store knows of no such directory is no error.
    any: bool,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<Listed>, StoreError> {
        if !self.begun {
            self.log.look(false).await?;
            self.any = self.log.packs().any_below(&self.dir);
            self.begun = true;
        }
        loop {
            self.fill();
            let own = match Pin::new(&mut self.own).peek().await {
                Some(Err(StoreError::NotFound(_))) if self.any => None,
                Some(Err(error)) => return Err(error.clone()),
                Some(Ok(row)) => Some(row),
                None => None,
            };
            let order = |row: &Listed| (row.name.clone(), row.found.is_dir);
            let first = match (own, self.packed.front()) {
                (None, _) => return Ok(self.packed.pop_front()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (Some(own), Some(packed)) => order(own).cmp(&order(packed)),
            };
            match first {
                std::cmp::Ordering::Greater => return Ok(self.packed.pop_front()),
                std::cmp::Ordering::Equal => {
                    let hidden = self.packed.pop_front().filter(|row| !row.found.is_dir);
                    if let Some(row) = hidden {
                        self.log.note_hidden(&join(&self.dir, &row.name), row.found.validator);
                    }
                }
                std::cmp::Ordering::Less => {}
            }
            let Some(row) = self.own.next().await else { continue };
            let row = row?;
            if !(self.dir.is_empty() && row.name == FOLDER) {
                return Ok(Some(row));
            }
        }
    }

    fn fill(&mut self) {
        if !self.packed.is_empty() || !self.more {
            return;
        }
        let page = self
            .log
            .packs()
            .children(&self.dir, self.after.as_deref(), LISTED_AT_ONCE);
        self.more = page.len() >= LISTED_AT_ONCE;
        self.after = page.last().map(|row| row.name.clone());
        self.packed = page.into();
    }
}

#[cfg(test)]
mod tests;
