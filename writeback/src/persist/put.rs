//! One file on its way to its name in the store: resolve, claim, upload, record.
//!
//! 1. The inode and its present path say where; void, staging and barrier names end here.
//! 2. The key is taken, in memory and then in the row, with what is known to be there and the token that will be.
//! 3. The store gets the bytes (`upload`), on the condition that what is known is still there.
//! 4. The record (`publish`) holds only if the inode still lies at this path.
//!
//! A run that finds a token in its row was here before: it asks the store first what became of that. An upload in parts that
//! this life or an earlier one left for exactly this content goes on.

use super::{
    backlog::Home,
    clear::Stopped,
    plan::{Row, with_work, work_key},
    rules,
    tracker::{Acquired, At, Before, Outcome},
    upload::Uploaded,
};
use crate::{
    Error, ErrorKind, Result,
    cache::Inner,
    mounts::Mount,
    rows::{self, Content, Place, StoreAt, Work, WorkKind, WorkState},
};
use forebay_metastore::Check;
use forebay_namespace::{Ino, Inode, Path, Plan};
use forebay_runtime::crash_point;
use forebay_segment::StreamId;
use forebay_understore::{
    Expect, Found, StoreError, Validator, Write,
    attributes::{GID, MODE, MTIME, UID, XATTRS, encode_xattrs},
};
use std::{sync::Arc, time::Duration};

/// Pause after something that was damaged or in the way for a moment.
pub(super) const SOON: Duration = Duration::from_millis(500);
/// Older work that a barrier looks at one by one.
const BARRIER_LOOK_MAX: usize = 2000;

/// What a put is about.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) row: Row,
    pub(super) ino: Ino,
    pub(super) inode: Inode,
    pub(super) content: Content,
    pub(super) path: Path,
    pub(super) mount: Arc<Mount>,
    pub(super) key: String,
    pub(super) token: String,
}

/// What is at a place, by what we know of it.
#[derive(Clone, Debug)]
pub(super) enum There {
    Nothing,
    /// The object with the token of the place.
    Ours(Found),
    /// What was known to be there.
    Known(Found),
    Foreign(Found),
}

impl Job {
    pub(super) fn at(&self) -> At {
        (self.mount.id, self.key.clone())
    }

    pub(super) fn place(&self) -> Place {
        let place = self.row.place(self.mount.id, &self.key).cloned();
        place.unwrap_or_else(|| Place::file(self.mount.id, self.key.clone(), None))
    }

    /// The row with `place` in it.
    fn with_place(&self, place: Place) -> Work {
        let mut work = self.row.work.clone();
        work.places
            .retain(|known| (known.mount, &known.key) != (place.mount, &place.key));
        work.places.push(place);
        Work {
            state: WorkState::Queued,
            ..work
        }
    }

    /// Where its content lies, when there is no local copy.
    fn source(&self) -> Option<At> {
        match &self.content {
            Content::Persisted { at, layout: None, .. } => Some((at.mount, at.key.clone())),
            _ => None,
        }
    }
}

impl Inner {
    pub(super) async fn put(self: &Arc<Self>, row: Row, ino: u64, generation: u32) -> Result<Outcome> {
        let ino = Ino(ino);
        let Some((inode, _)) = self.names.inode(ino).await? else {
            return self.give_up(row, None).await;
        };
        if inode.generation != generation {
            return self.give_up(row, None).await;
        }
        let content = Content::decode(&inode.content)?;
        let source = match &content {
            Content::Persisted { at, .. } => Some((at.mount, at.key.clone())),
            _ => None,
        };
        self.persist.tracker.lock().set_source(row.seq, source.clone());
        let Some(path) = self.names.path_of(ino).await? else {
            return self.give_up(row, Some((ino, inode))).await;
        };
        let target = self.mounts.resolve(&path);
        if let Some((mount, _)) = &target {
            let home = Home::of(mount.id, &inode);
            self.persist.tracker.lock().set_home(row.seq, home);
        }
        if rules::is_staging(&path) {
            return Ok(Outcome::Held);
        }
        let unwinds = self.persist.tracker.lock().unwinds(row.seq);
        let leaves = source.is_some_and(|source| unwinds || must_leave(&source, target.as_ref()));
        if leaves {
            return self.bring_home(row, (ino, &inode), content, &path).await;
        }
        let Some((mount, key)) = target else {
            return self.give_up(row, Some((ino, inode))).await;
        };
        let blocked = |reason: String| {
            Ok(Outcome::Blocked {
                path: path.clone(),
                reason,
            })
        };
        let Some(key) = key else {
            return blocked("the name is not UTF-8, and an under-store takes no other".into());
        };
        if mount.read_only {
            return blocked(format!("{} is mounted read-only", mount.url));
        }
        if !unwinds && let Some(outcome) = self.part_from_hidden(&row, &path).await? {
            return Ok(outcome);
        }
        let at = (mount.id, key.clone());
        if !unwinds && let Some(outcome) = self.withhold(&row, &content, &path, &at).await? {
            return Ok(outcome);
        }
        if !unwinds && let Some(outcome) = self.convert(&row, ino, &inode, &path, &at).await? {
            return Ok(outcome);
        }
        if !unwinds && let Some(older) = self.barrier(row.seq, &path).await? {
            return Ok(Outcome::Wait(older));
        }
        let token = format!("{}-{}-{}", self.persist.token_prefix(), ino.0, generation);
        let job = Job {
            row,
            ino,
            inode,
            content,
            path,
            mount,
            key,
            token,
        };
        let _aside = match self.is_packed(&job) {
            true => self.persist.step_aside(),
            false => None,
        };
        let acquired = self.persist.tracker.lock().acquire(job.row.seq, &job.at());
        match acquired {
            Acquired::Yes => match self.clear_the_way(&job).await {
                Ok(None) => self.put_at(job).await,
                Ok(Some(other)) => Ok(Outcome::Wait(other)),
                Err(Stopped::Store(error)) => self.after_error(job, error).await,
                Err(Stopped::Here(error)) => Err(error),
            },
            Acquired::Owned(other) => Ok(Outcome::Wait(other)),
            Acquired::TakeOver(other) => self.take_over(job, other).await,
        }
    }

    async fn put_at(self: &Arc<Self>, mut job: Job) -> Result<Outcome> {
        if let Content::Persisted { at, .. } = &job.content
            && (at.mount, at.key.as_str()) == (job.mount.id, job.key.as_str())
        {
            let at = at.clone();
            return self.dress(job, at).await;
        }
        if let Err(error) = job.mount.is_exclusive().await {
            return self.after_error(job, error).await;
        }
        let mut place = job.place();
        if place.token.is_some() {
            self.recall_upload(&job, &place).await?;
            match self.what_became(&job, &mut place).await {
                Ok(Some(found)) => return self.arrived_before(job, found).await,
                Ok(None) => {}
                Err(error) => return self.after_error(job, error).await,
            }
        }
        if place.token.as_ref() != Some(&job.token) || job.row.place(job.mount.id, &job.key) != Some(&place) {
            place.token = Some(job.token.clone());
            self.claim(&mut job, place).await?;
        }
        self.reach(crash_point!("intent-written"))?;
        // What replaces an object makes none once that is gone.
        let sent = (job.place().holds.is_none() && !job.mount.is_local()).then(|| self.persist.late.send(job.at()));
        let uploaded = self.upload(&mut job).await;
        if let Some(sent) = sent
            && !matches!(uploaded, Err(StoreError::Unavailable(_)))
        {
            sent.answered();
        }
        match uploaded {
            Ok(Uploaded::Visible(found)) => self.arrived(job, found).await,
            Ok(Uploaded::Moved) => Ok(Outcome::Moved),
            Ok(Uploaded::Unreadable(error)) => self.unreadable(&job, error),
            Err(error) => self.after_error(job, error).await,
        }
    }

    /// Writes the place into the row before the first byte leaves.
    pub(super) async fn claim(&self, job: &mut Job, place: Place) -> Result<()> {
        let work = job.with_place(place);
        job.row.version = self.persist_row(&job.row, &work).await?;
        job.row.work = work;
        self.persist.tracker.lock().note_version(job.row.seq, &job.row);
        Ok(())
    }

    /// Writes the upload's id into the row, or takes it out.
    pub(super) async fn note_upload(&self, job: &mut Job, upload: Option<String>) -> Result<()> {
        let place = Place { upload, ..job.place() };
        self.claim(job, place).await
    }

    /// What became of an earlier try: the object when it arrived; else `place` says what to expect now.
    async fn what_became(&self, job: &Job, place: &mut Place) -> Result<Option<Found>, StoreError> {
        let there = self.see_place(&job.mount, place, Some(&job.inode)).await?;
        let mine = place.token.as_ref() == Some(&job.token);
        // What arrived under the token is not the content: none of its parts is used again.
        let untrue = mine && matches!(there, There::Ours(_));
        match there {
            There::Ours(found) if mine && found.size == job.inode.size => {
                job.mount.upload.settle(&job.key).await?;
                return Ok(Some(found));
            }
            There::Ours(found) => place.holds = Some(found.validator.0),
            // What we knew is gone: nobody's data is overwritten.
            There::Nothing => place.holds = None,
            There::Known(found) => place.holds = Some(found.validator.0),
            There::Foreign(_) => return Err(StoreError::Changed(job.key.clone())),
        }
        if !mine || untrue || !self.goes_in_parts(job) || !self.is_under_way(job, place) {
            self.abort_uploads(&job.mount, place).await?;
            place.upload = None;
        }
        Ok(None)
    }

    /// Aborts the upload of a place, and what else was started for exactly this key and never named.
    pub(super) async fn abort_uploads(&self, mount: &Mount, place: &Place) -> Result<(), StoreError> {
        for (key, upload) in mount.upload.uploads(&place.key).await? {
            if key == place.key {
                mount.upload.abort(&key, &upload).await?;
                self.forget_notes(mount.id, &upload.0).await;
            }
        }
        // Somebody else may have aborted it.
        if let Some(upload) = &place.upload {
            self.forget_notes(mount.id, upload).await;
        }
        Ok(())
    }

    /// What is at a place now.
    pub(super) async fn see_place(
        &self,
        mount: &Mount,
        place: &Place,
        inode: Option<&Inode>,
    ) -> Result<There, StoreError> {
        let found = mount.upload.head(&place.key).await?;
        if found.is_some() {
            self.persist
                .late
                .stands(&(mount.id, place.key.clone()), self.persist.now());
        }
        Ok(self.seen_at(mount, place, found, inode))
    }

    /// What an answer about a place means.
    pub(super) fn seen_at(&self, mount: &Mount, place: &Place, found: Option<Found>, inode: Option<&Inode>) -> There {
        let Some(found) = found else { return There::Nothing };
        if found.is_dir {
            return There::Foreign(found);
        }
        if found.token.is_some() && found.token == place.token {
            return There::Ours(found);
        }
        if place.holds.as_ref() == Some(&found.validator.0) || self.only_stands(&found) {
            return There::Known(found);
        }
        // An older content of this cache, about which a lookup could not say anything when it was replaced.
        if inode.is_some() && self.wrote(&found) {
            return There::Known(found);
        }
        // A local file system without extended attributes keeps our mtime and size at least.
        let alike =
            inode.is_some_and(|inode| mount.is_local() && found.size == inode.size && found.mtime == inode.mtime.0);
        if found.token.is_none() && place.token.is_some() && alike {
            return There::Ours(found);
        }
        There::Foreign(found)
    }

    /// Whether this cache wrote the object, whenever.
    pub(super) fn wrote(&self, found: &Found) -> bool {
        found
            .token
            .as_ref()
            .is_some_and(|token| token.starts_with(self.persist.token_prefix()))
    }

    /// The object is visible and ours.
    async fn arrived(self: &Arc<Self>, job: Job, found: Found) -> Result<Outcome> {
        let at = self.is_visible(&job, found)?;
        self.record(job, at).await
    }

    /// The same by an earlier try, which may have had other attributes with it.
    async fn arrived_before(self: &Arc<Self>, job: Job, found: Found) -> Result<Outcome> {
        let at = self.is_visible(&job, found)?;
        self.dress(job, at).await
    }

    fn is_visible(&self, job: &Job, found: Found) -> Result<StoreAt> {
        self.reach(crash_point!("visible-not-recorded"))?;
        job.mount.health.note(None);
        self.mounts.written(job.mount.id, &job.key);
        self.persist.late.stands(&job.at(), self.persist.now());
        Ok(StoreAt {
            mount: job.mount.id,
            key: job.key.clone(),
            validator: found.validator.0,
        })
    }

    async fn after_error(self: &Arc<Self>, mut job: Job, error: StoreError) -> Result<Outcome> {
        match error {
            StoreError::Unavailable(reason) => Ok(Outcome::Away(job.mount.id, reason)),
            StoreError::Refused(reason) => Ok(Outcome::Blocked { path: job.path, reason }),
            StoreError::Damaged(reason) => {
                tracing::warn!(path = %job.path, reason, "an upload arrived damaged; sending it again");
                Ok(Outcome::Soon(SOON))
            }
            StoreError::NotFound(reason) => {
                // The upload is gone: it succeeded, which HEAD tells next time, or somebody aborted it.
                tracing::debug!(path = %job.path, reason, "an upload is gone; looking again");
                self.persist.partials.lock().remove(&job.row.seq);
                let upload = job.place().upload;
                self.note_upload(&mut job, None).await?;
                if let Some(upload) = upload {
                    self.forget_notes(job.mount.id, &upload).await;
                }
                Ok(Outcome::Soon(Duration::from_millis(20)))
            }
            StoreError::Changed(_) => self.changed(job).await,
        }
    }

    /// The store says that the target is not as we knew it: ours after all, gone, or somebody else's.
    async fn changed(self: &Arc<Self>, mut job: Job) -> Result<Outcome> {
        let mut place = job.place();
        match self.see_place(&job.mount, &place, Some(&job.inode)).await {
            Ok(There::Ours(found)) if place.token.as_ref() == Some(&job.token) && found.size == job.inode.size => {
                self.arrived_before(job, found).await
            }
            Ok(There::Foreign(found)) => {
                let _ = self.abort_uploads(&job.mount, &place).await;
                self.persist.partials.lock().remove(&job.row.seq);
                let reason = if found.is_dir {
                    "a directory is at the target"
                } else {
                    "the target was written by someone else"
                };
                Ok(self.conflict(&job.row, job.at(), reason, Some(&found)))
            }
            Ok(There::Nothing) => {
                place.holds = None;
                self.claim(&mut job, place).await?;
                Ok(Outcome::Moved)
            }
            Ok(There::Ours(found) | There::Known(found)) => {
                place.holds = Some(found.validator.0);
                self.claim(&mut job, place).await?;
                Ok(Outcome::Soon(Duration::from_millis(20)))
            }
            Err(StoreError::Unavailable(reason)) => Ok(Outcome::Away(job.mount.id, reason)),
            Err(error) => Ok(Outcome::Blocked {
                path: job.path,
                reason: error.to_string(),
            }),
        }
    }

    fn unreadable(&self, job: &Job, error: Error) -> Result<Outcome> {
        match error.kind() {
            ErrorKind::Unavailable => Ok(Outcome::Away(job.mount.id, error.to_string())),
            // Evicted, replaced or moved meanwhile: the row knows.
            ErrorKind::NotFound | ErrorKind::Precondition if job.source().is_none() => Ok(Outcome::Soon(SOON)),
            _ => Ok(Outcome::Blocked {
                path: job.path.clone(),
                reason: format!("its bytes can not be read: {error}"),
            }),
        }
    }

    /// Older work under the root of a barrier, for which it waits.
    async fn barrier(&self, seq: u64, path: &Path) -> Result<Option<u64>> {
        let Some(root) = rules::barrier_root(path) else {
            return Ok(None);
        };
        let Before { withheld, older, all } = self.persist.tracker.lock().before(seq, BARRIER_LOOK_MAX);
        if let Some(goes) = self.let_go(withheld, &root).await? {
            return Ok(Some(goes));
        }
        for work in &older {
            let under = match work.what {
                WorkKind::Put { .. } | WorkKind::MakeDir { .. } | WorkKind::MoveTree { .. } => {
                    let at = self.path_of_work(work).await?;
                    at.is_some_and(|at| at.starts_with(&root) && !rules::is_staging(&at))
                }
                WorkKind::Clear => work.places.iter().any(|((mount, key), _)| {
                    let at = self.mounts.by_id(*mount).and_then(|mount| mount.path_of(key).ok());
                    at.is_some_and(|at| at.starts_with(&root))
                }),
            };
            if under {
                return Ok(Some(work.seq));
            }
        }
        Ok(if all { None } else { older.last().map(|work| work.seq) })
    }

    /// The content is not to go to a store (any more): the places are cleared; a content that lives on forgets its work.
    pub(super) async fn give_up(&self, row: Row, inode: Option<(Ino, Inode)>) -> Result<Outcome> {
        let mut plan = match &inode {
            Some((ino, found)) => {
                let content = Content::decode(&found.content)?;
                let ours = matches!(&content, Content::Sealed { work: Some(seq), .. } | Content::Persisted { work: Some(seq), .. } if *seq == row.seq);
                if ours {
                    let (content, ctime) = (with_work(content, None).encode(), found.ctime);
                    let mut planner = self.names.planner();
                    planner
                        .update(*ino, |inode| (inode.content, inode.ctime) = (content, ctime))
                        .await?;
                    planner.finish()?
                } else {
                    Plan::default()
                }
            }
            None => Plan::default(),
        };
        let key = work_key(row.seq);
        plan.check(Check::At(key.clone(), row.version));
        if row.work.places.is_empty() {
            plan.delete(key);
        } else {
            let work = Work {
                what: WorkKind::Clear,
                state: WorkState::Queued,
                ..row.work
            };
            plan.put(key, rows::encode(&work));
        }
        self.commit(plan).await?;
        self.persist.partials.lock().remove(&row.seq);
        Ok(Outcome::Moved)
    }

    /// Makes the local bytes the only copy again: the place where the others lie is needed, or no store covers its name.
    async fn bring_home(
        self: &Arc<Self>,
        row: Row,
        (ino, inode): (Ino, &Inode),
        content: Content,
        path: &Path,
    ) -> Result<Outcome> {
        let blocked = |error: Error| {
            Ok(Outcome::Blocked {
                path: path.clone(),
                reason: error.to_string(),
            })
        };
        let reader = match self.read_inode(ino, inode.generation).await {
            Ok(reader) => reader,
            Err(error) => return blocked(error),
        };
        let generation = inode.generation + 1;
        let mut copy = self.persisters_writer(ino, generation, Some(inode.size));
        let mut at = 0;
        while at < inode.size {
            let end = inode.size.min(at + (1 << 20));
            let chunks = match reader.read(at..end).await {
                Ok(chunks) => chunks,
                Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(Outcome::Soon(SOON * 4)),
                Err(error) => return blocked(error),
            };
            copy.append(&chunks, bytes::Bytes::new()).await?;
            at = end;
        }
        let sealed = copy.seal().await?;
        let home = Content::Sealed {
            layout: sealed.layout.clone(),
            work: Some(row.seq),
            crc: sealed.crc,
        }
        .encode();
        let (before, ctime) = (inode.content.clone(), inode.ctime);
        let mut planner = self.names.planner();
        let now = planner.inode(ino).await?;
        if now.is_none_or(|(now, _)| now.content != before || now.generation != inode.generation) {
            return Ok(Outcome::Moved);
        }
        planner
            .update(ino, |inode| {
                (inode.content, inode.generation, inode.ctime) = (home, generation, ctime)
            })
            .await?;
        let mut plan = planner.finish()?;
        let mut work = Work {
            what: WorkKind::Put { ino: ino.0, generation },
            state: WorkState::Queued,
            ..row.work.clone()
        };
        if let Content::Persisted { at, .. } = &content {
            super::plan::add(
                &mut work.places,
                Some(Place::file(at.mount, at.key.clone(), Some(at.validator.clone()))),
            );
        }
        let key = work_key(row.seq);
        plan.check(Check::At(key.clone(), row.version))
            .put(key, rows::encode(&work));
        let (inner, before) = (Arc::clone(self), StreamId(ino.0, inode.generation));
        let change = async move {
            match inner.commit(plan).await {
                Ok(_) => sealed.keep(),
                Err(error) if error.kind() == ErrorKind::Deadline => {
                    sealed.in_doubt();
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            if let Content::Persisted {
                layout: Some(layout), ..
            } = &content
            {
                inner.clean.forget_copy(before);
                inner.segments.release(before, layout);
            }
            Ok(Outcome::Moved)
        };
        // A shutdown must not part the commit from what follows: the row would name bytes that were let go.
        self.to_the_end("bring-home", change).await
    }

    /// Takes a place over from work that waits for us and only has to clear it.
    async fn take_over(&self, job: Job, other: u64) -> Result<Outcome> {
        let Some(theirs) = self.persist.read_row(other).await? else {
            return Ok(Outcome::Moved);
        };
        let Some(place) = theirs.place(job.mount.id, &job.key).cloned() else {
            return Ok(Outcome::Wait(other));
        };
        let mut rest = theirs.work.clone();
        rest.places.retain(|known| *known != place);
        let mut mine = job.row.work.clone();
        super::plan::add(&mut mine.places, Some(place));
        let mut plan = Plan::default();
        for (seq, version, work) in [(job.row.seq, job.row.version, &mine), (other, theirs.version, &rest)] {
            plan.check(Check::At(work_key(seq), version))
                .put(work_key(seq), rows::encode(work));
        }
        self.commit(plan).await?;
        self.persist.touch(other);
        self.persist.absorb().await?;
        Ok(Outcome::Moved)
    }
}

/// Whether a content that lies at `source` in a store has to leave it before it can go to `target`: no store covers that, or it was
/// the directory in which the source lies, which goes first.
fn must_leave(source: &At, target: Option<&(Arc<Mount>, Option<String>)>) -> bool {
    match target {
        None => true,
        Some((mount, Some(key))) => {
            let below = source.1.strip_prefix(key.as_str());
            mount.id == source.0 && below.is_some_and(|below| below.starts_with('/'))
        }
        Some((_, None)) => false,
    }
}

/// The condition of a write over what `place` holds.
pub(super) fn expect(place: &Place) -> Expect {
    match &place.holds {
        Some(validator) => Expect::Match(Validator(validator.clone())),
        None => Expect::Absent,
    }
}

/// What is written.
pub(super) fn write_of(job: &Job) -> Write {
    let inode = &job.inode;
    let mut attributes = vec![
        (MODE.to_owned(), format!("{:o}", inode.mode & 0o7777)),
        (MTIME.to_owned(), inode.mtime.0.to_string()),
    ];
    if (inode.uid, inode.gid) != (0, 0) {
        attributes.push((UID.to_owned(), inode.uid.to_string()));
        attributes.push((GID.to_owned(), inode.gid.to_string()));
    }
    let xattrs = inode
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()));
    attributes.extend(encode_xattrs(xattrs).map(|value| (XATTRS.to_owned(), value)));
    Write {
        key: job.key.clone(),
        size: inode.size,
        token: job.token.clone(),
        attributes,
        expect: expect(&job.place()),
    }
}
