//! Publish: a session's parts become the next version, in one transaction.
//!
//! The transaction gives the parts their names, moves the head, ends the session, queues the uploads, and takes the names of the
//! version that is overwritten away. Its checks are the directory, the head and the session as they were read, so two publishes
//! never make one version. A repeated publish finds the session's end and answers the same version.
//!
//! What must be visible at once fits into one transaction ([`super::registry::PARTS_MAX`] new parts, [`RETIRED_AT_ONCE`] old
//! ones). When a version with more parts is overwritten, readers of the dataset see the new one at once, and the names of the
//! remaining old files go in the transactions that follow (`versions`).

use super::{
    Format, Publish, SessionId, Task,
    ipc::schema::StoredSchema,
    part_writer::{DonePart, GENERATION, PERSISTED_MAX},
    registry::{Ended, Live, Phase},
    retire::{OldPart, Retired},
    session::Token,
};
use crate::{
    AckLevel, Cache, Error, ErrorKind, Result,
    cache::Inner,
    changes::Change,
    file::{SealedContent, WriteMode},
    rows::{self, Content, DatasetAnswer, HeadRow, PartRow, SessionEnd, SessionRow, VersionRow},
};
use forebay_metastore::{Check, Entry};
use forebay_namespace::{Create, Ino, Node, Path, Plan, Replace};
use forebay_runtime::crash_point;
use forebay_segment::Layout;
use std::sync::Arc;

/// Old parts whose names go in the publish's own transaction.
const RETIRED_AT_ONCE: usize = 120;
/// Files of others that an overwrite takes away.
const FOREIGN_AT_ONCE: usize = 120;
/// The marker of a finished job.
const SUCCESS: &[u8] = b"_SUCCESS";

/// A part to be published.
#[derive(Clone, Debug)]
pub(super) struct NewPart {
    pub(super) number: u32,
    pub(super) task: Option<Task>,
    pub(super) put: u32,
    pub(super) ended: Ended,
}

impl NewPart {
    pub(super) fn of(part: &DonePart, put: u32, task: Option<&Task>) -> Self {
        Self {
            number: part.number,
            task: task.cloned(),
            put,
            ended: part.ended.clone(),
        }
    }

    pub(super) fn of_row(number: u32, row: &PartRow) -> Option<Self> {
        Some(Self {
            number,
            task: row.task.clone(),
            put: row.put,
            ended: Ended::of_row(row)?,
        })
    }

    /// Order within a version: as begun, tasks by their numbers.
    pub(super) fn order(&self) -> impl Ord + use<> {
        let task = self.task.as_ref().map(|task| (task.job.clone(), task.stage, task.task));
        (task, self.put, self.number)
    }
}

/// What one publish is to do.
pub(super) struct Publication<'a> {
    pub(super) live: &'a Live,
    /// In the order of the version.
    pub(super) parts: &'a [NewPart],
    /// The schema of the session; `None` when nothing was put.
    pub(super) schema: Option<&'a StoredSchema>,
    /// Scope and token of a put that publishes its own session.
    pub(super) token: Option<(&'a [u8], &'a str)>,
    pub(super) success_file: bool,
    /// Parts of the session that do not count: their rows go.
    pub(super) excluded: &'a [u32],
    /// Parts whose rows are not there yet, or change.
    pub(super) rows: &'a [(u32, PartRow)],
}

/// A version that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// This publish made it.
    Now(u64),
    /// An earlier put with the same token did; this one's parts are nobody's.
    Before(u64),
}

/// What was there before.
struct Before {
    /// The directory, when it has a row.
    dir: Option<Ino>,
    /// Whether anything is at the path.
    exists: bool,
    head: Option<(HeadRow, Entry, VersionRow)>,
}

/// Where a version goes.
struct Place {
    dir: Ino,
    /// The chain begins with files of others.
    foreign: bool,
    /// The oldest version that is kept.
    oldest: u64,
}

/// What follows the transaction.
#[derive(Default)]
struct After {
    /// Whether old versions keep the parts that are overwritten.
    keeps: bool,
    /// Nodes whose content nobody names any more.
    gone: Vec<Node>,
    /// Old parts whose local copy is the only one now.
    adopted: Vec<u64>,
    /// Copies of old parts that were not here any more.
    copies: Vec<SealedContent>,
}

/// The name of a part's file.
pub(super) fn part_name(position: usize, session: &str, format: Format) -> Vec<u8> {
    format!("part-{position:05}-{session}.{}", format.extension()).into_bytes()
}

impl Cache {
    /// Makes the session's parts the next version, in one transaction. Repeated, it answers the same version.
    ///
    /// # Errors
    /// NotFound: no such session; Precondition: it was aborted, a put without a task is still under way, an attempt that is named
    /// has not ended or another one of its task counts, or nothing says what the schema is; Exists in mode create; Deadline:
    /// outcome unknown, publish again.
    pub async fn publish(&self, session: &SessionId, how: Publish) -> Result<u64> {
        let (inner, session) = (Arc::clone(&self.inner), session.clone());
        self.inner
            .to_the_end("publish", async move { inner.publish(&session, how).await })
            .await
    }
}

impl Inner {
    async fn publish(self: &Arc<Self>, session: &SessionId, how: Publish) -> Result<u64> {
        let _entered = self.enter()?;
        let Some(live) = self.datasets.sessions.get(session).filter(|live| !live.own) else {
            return match self.session_row(session).await? {
                Some((
                    SessionRow {
                        end: Some(SessionEnd::Published { version, .. }),
                        ..
                    },
                    ..,
                )) => Ok(version),
                _ => Err(self.ended(session).await),
            };
        };
        let refuse = |state: &super::registry::LiveState| match state.open_puts() {
            0 => Ok(()),
            open => Err(Error::precondition(format!(
                "{open} puts of session {} are still under way; end them first",
                session.0
            ))),
        };
        match live.begin_end(refuse).await? {
            None => {}
            Some(Phase::Published { version, .. }) => return Ok(version),
            Some(phase) => {
                return Err(live
                    .closed(&phase)
                    .unwrap_or_else(|| Error::internal("a session ended in no way")));
            }
        }
        let published = self.publish_session(&live, &how).await;
        live.go_on();
        let version = published?;
        self.reach(crash_point!("published-not-acked"))?;
        if live.keys.ack == AckLevel::Persisted {
            let cache = Cache {
                inner: Arc::clone(self),
            };
            cache.wait_persisted(&live.path, PERSISTED_MAX).await?;
        }
        Ok(version)
    }

    /// Publishes a session that is ending.
    async fn publish_session(self: &Arc<Self>, live: &Arc<Live>, how: &Publish) -> Result<u64> {
        let rows = self.part_rows(&live.id).await?;
        let (mut parts, mut excluded) = choose(&rows, how)?;
        let schema = live.look().schema.clone();
        let (changed, fresh, staged) = self.encode_staged(live, schema.as_deref(), &rows, &mut parts).await?;
        parts.sort_by_key(NewPart::order);
        excluded.sort_unstable();
        let publication = Publication {
            live,
            parts: &parts,
            schema: schema.as_deref(),
            token: None,
            success_file: how.success_file,
            excluded: &excluded,
            rows: &changed,
        };
        match self.publish_parts(&publication).await {
            Ok(Made::Now(version) | Made::Before(version)) => {
                fresh.into_iter().for_each(SealedContent::keep);
                staged.iter().for_each(|ended| self.free_ended(ended));
                let dropped = rows.iter().filter(|(number, _)| excluded.binary_search(number).is_ok());
                dropped
                    .filter_map(|(_, row)| Ended::of_row(row))
                    .for_each(|ended| self.free_ended(&ended));
                self.end_published(live, version, excluded);
                Ok(version)
            }
            Err(error) => {
                if error.kind() == ErrorKind::Deadline {
                    fresh.into_iter().for_each(SealedContent::in_doubt);
                }
                // It may be that an earlier try, whose outcome was unknown, did it.
                match self.session_row(&live.id).await? {
                    Some((
                        SessionRow {
                            end: Some(SessionEnd::Published { version, .. }),
                            ..
                        },
                        ..,
                    )) => {
                        self.end_published(live, version, excluded);
                        Ok(version)
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// The rows of a session's parts.
    pub(super) async fn part_rows(&self, session: &SessionId) -> Result<Vec<(u32, PartRow)>> {
        let rows = self.scan_all(rows::part_prefix(&session.0)).await?;
        let number = |key: &[u8]| key.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        rows.iter()
            .map(|(key, entry)| {
                let number = number(key).ok_or_else(|| Error::data_loss("metastore: a part's key makes no sense"))?;
                Ok((number, rows::decode(&entry.value)?))
            })
            .collect()
    }

    /// Parts of a Parquet session that a restart left staged as Arrow are encoded now. Answers changed rows, the new contents, and
    /// what was staged.
    async fn encode_staged(
        self: &Arc<Self>,
        live: &Live,
        schema: Option<&StoredSchema>,
        rows: &[(u32, PartRow)],
        parts: &mut [NewPart],
    ) -> Result<(Vec<(u32, PartRow)>, Vec<SealedContent>, Vec<Ended>)> {
        let (mut changed, mut fresh, mut staged) = (Vec::new(), Vec::new(), Vec::new());
        let Some(schema) = schema.filter(|_| live.keys.format == Format::Parquet) else {
            return Ok((changed, fresh, staged));
        };
        for part in parts.iter_mut().filter(|part| part.ended.format == Format::Arrow) {
            let items = self.sealed_items(&part.ended, 0).await?;
            let sealed = self.encode_parquet(schema, items, live.keys.compression).await?;
            staged.push(part.ended.clone());
            part.ended = Ended {
                ino: sealed.stream().0,
                format: Format::Parquet,
                layout: sealed.layout.clone(),
                crc: sealed.crc,
                bytes: sealed.len,
                ..part.ended.clone()
            };
            let row = rows
                .iter()
                .find(|(number, _)| *number == part.number)
                .map(|(_, row)| row.clone());
            let row = row.ok_or_else(|| Error::internal("a chosen part without a row"))?;
            changed.push((
                part.number,
                PartRow {
                    ino: part.ended.ino,
                    format: Format::Parquet,
                    state: part.ended.to_state(),
                    ..row
                },
            ));
            fresh.push(sealed);
        }
        Ok((changed, fresh, staged))
    }

    /// Publishes, trying again while others change the same names.
    pub(super) async fn publish_parts(self: &Arc<Self>, publication: &Publication<'_>) -> Result<Made> {
        let mut attempts = self.attempts(format!("publish {}", publication.live.path));
        loop {
            match self.try_publish(publication).await {
                Ok(made) => {
                    self.tell(Change::Under(publication.live.path.clone())).await;
                    return Ok(made);
                }
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn try_publish(self: &Arc<Self>, publication: &Publication<'_>) -> Result<Made> {
        let Publication { live, parts, .. } = publication;
        let token = match publication.token {
            Some((scope, token)) => self.dataset_token(scope, Some(token)).await?,
            None => Token::None,
        };
        if let Token::Known(answer) = token {
            let version = answer
                .version
                .ok_or_else(|| Error::internal("a put's token without its version"))?;
            return Ok(Made::Before(version));
        }
        let before = self.before(live).await?;
        let overwrite = live.keys.mode == WriteMode::Overwrite;
        let (mut after, old) = self.old_parts(live, &before, overwrite).await?;
        let foreign = !overwrite && before.head.is_none() && before.exists && self.has_data_files(&live.path).await?;

        let mut planner = self.names.planner();
        let names: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(k, part)| part_name(k, &live.id.0, part.ended.format))
            .collect();
        let files = names
            .iter()
            .zip(*parts)
            .map(|(name, part)| (name.clone(), create(&part.ended)))
            .collect();
        if !parts.is_empty() {
            planner.create_all(&live.path, files).await?;
        } else if !before.exists {
            planner
                .create(
                    &live.path,
                    Create {
                        parents: true,
                        ..Create::dir()
                    },
                )
                .await?;
        }
        let marker = live.path.join(SUCCESS)?;
        let marked = match publication.success_file {
            true => Some(planner.create(&marker, empty_file()).await?),
            false => None,
        };
        let dir = match planner.resolve(&live.path).await? {
            Some(Node::Row { ino, inode, .. }) if inode.is_dir() => ino,
            Some(Node::Base { entry, .. }) if entry.is_dir => planner.adopt(&live.path).await?.0,
            _ => return Err(Error::lost()),
        };
        let mut removed = Vec::new();
        for name in self.names_to_remove(&mut planner, publication, &old, overwrite).await? {
            let unlinked = planner.unlink(&name).await?;
            removed.push((name, unlinked.node, unlinked.whiteout));
        }
        let mut plan = planner.finish()?;

        for (name, part) in names.iter().zip(*parts) {
            let ino = Ino(part.ended.ino);
            let work = self
                .persist
                .plan_put(&mut plan, ino, GENERATION, &live.path.join(name)?, None)
                .await?;
            plan.amend(ino, |inode| inode.content = content(&part.ended, work).encode())?;
        }
        if let Some(marked) = marked {
            let work = self
                .persist
                .plan_put(&mut plan, marked.ino, GENERATION, &marker, marked.replaced.as_ref())
                .await?;
            plan.amend(marked.ino, |inode| {
                inode.content = Content::Sealed {
                    layout: Layout::Empty,
                    work,
                    crc: 0,
                }
                .encode()
            })?;
            after.gone.extend(marked.replaced);
        }
        for (name, node, whiteout) in removed {
            self.persist
                .plan_removed(&mut plan, &node, &name, whiteout.as_ref())
                .await?;
            match old.iter().find(|old| old.name == name && after.keeps) {
                Some(old) => match self.plan_retire(&mut plan, old, &node)? {
                    Retired::Gone => after.gone.push(node),
                    Retired::Adopted(bytes) => after.adopted.push(bytes),
                    Retired::Kept | Retired::Copied => {}
                },
                None => after.gone.push(node),
            }
        }
        let oldest = self.oldest(&before, overwrite && !after.keeps);
        let version = self
            .plan_version(&mut plan, publication, &before, Place { dir, foreign, oldest })
            .await?;
        let answer = DatasetAnswer {
            session: live.id.0.clone(),
            version: Some(version),
        };
        self.plan_dataset_token(&mut plan, token, &answer);
        match self.commit(plan).await {
            Ok(_) => {}
            Err(error) => {
                if error.kind() == ErrorKind::Deadline {
                    after.copies.into_iter().for_each(SealedContent::in_doubt);
                }
                return Err(error);
            }
        }
        after.copies.into_iter().for_each(SealedContent::keep);
        after.adopted.iter().for_each(|bytes| self.dirty.adopt(1, *bytes));
        after.gone.iter().for_each(|node| self.discard_node(node));
        if publication.success_file {
            // The marker is a dirty file of no bytes.
            self.dirty.adopt(1, 0);
        }
        Ok(Made::Now(version))
    }

    /// What is at the path, and whether that lets the publish go on.
    async fn before(&self, live: &Live) -> Result<Before> {
        let path = &live.path;
        let dir = match self.names.resolve(path).await? {
            None => {
                return Ok(Before {
                    dir: None,
                    exists: false,
                    head: None,
                });
            }
            Some(_) if live.keys.mode == WriteMode::Create => {
                return Err(Error::exists(format!(
                    "{path}: exists already; publish with mode append or overwrite"
                )));
            }
            Some(node) if !node.is_dir() => {
                return Err(Error::precondition(format!("{path}: a file is there, not a dataset")));
            }
            Some(node) => node.ino(),
        };
        let head = match dir {
            Some(dir) => self.head_entry(dir).await?,
            None => None,
        };
        let head = match (head, dir) {
            (Some((head, entry)), Some(dir)) => {
                let version = self.version_row(dir, head.version).await?;
                Some((head, entry, version))
            }
            _ => None,
        };
        Ok(Before {
            dir,
            exists: true,
            head,
        })
    }

    /// The parts that an overwrite takes the place of, as many as go at once, each with its bytes here.
    async fn old_parts(
        self: &Arc<Self>,
        live: &Live,
        before: &Before,
        overwrite: bool,
    ) -> Result<(After, Vec<OldPart>)> {
        let mut after = After::default();
        let (true, Some(dir), Some((head, ..))) = (overwrite, before.dir, &before.head) else {
            return Ok((after, Vec::new()));
        };
        let mut old = Vec::new();
        let parts = self.version_parts(dir, head.version).await?;
        after.keeps = self.worth_keeping(&parts).await?;
        for part in parts.iter().take(RETIRED_AT_ONCE) {
            let name = live.path.join(&part.name())?;
            let copies = after.keeps.then_some(&mut after.copies);
            old.extend(self.old_part(part, name, copies).await?);
        }
        Ok((after, old))
    }

    /// Names that the publish takes away: of old parts, of files of others, of a marker that is not true any more.
    async fn names_to_remove(
        &self,
        planner: &mut forebay_namespace::Planner<'_>,
        publication: &Publication<'_>,
        old: &[OldPart],
        overwrite: bool,
    ) -> Result<Vec<Path>> {
        let mut names = Vec::new();
        if !overwrite {
            return Ok(names);
        }
        let path = &publication.live.path;
        for old in old {
            if planner.resolve(&old.name).await?.is_some_and(|node| old.part.is(&node)) {
                names.push(old.name.clone());
            }
        }
        let foreign = self.foreign_files(path, FOREIGN_AT_ONCE + 1).await?;
        if foreign.len() > FOREIGN_AT_ONCE {
            return Err(Error::precondition(format!(
                "{path}: holds more than {FOREIGN_AT_ONCE} files that others wrote; delete the directory, then publish"
            )));
        }
        names.extend(foreign);
        let marker = path.join(SUCCESS)?;
        if !publication.success_file && planner.resolve(&marker).await?.is_some_and(|node| !node.is_dir()) {
            names.push(marker);
        }
        Ok(names)
    }

    /// The oldest version that is kept from now on. `ends`: what was before can not be.
    fn oldest(&self, before: &Before, ends: bool) -> u64 {
        let Some((head, ..)) = &before.head else { return 1 };
        let version = head.version + 1;
        let kept = if ends {
            1
        } else {
            u64::from(self.settings.versions_kept.max(1))
        };
        head.oldest.max((version + 1).saturating_sub(kept))
    }

    /// Head, version, session and part rows.
    async fn plan_version(
        &self,
        plan: &mut Plan,
        publication: &Publication<'_>,
        before: &Before,
        Place { dir, foreign, oldest }: Place,
    ) -> Result<u64> {
        let Publication {
            live, parts, schema, ..
        } = publication;
        let session = &live.id.0;
        let appended = before
            .head
            .as_ref()
            .filter(|_| live.keys.mode != WriteMode::Overwrite)
            .map(|(_, _, row)| row);
        let version = before.head.as_ref().map_or(1, |(head, ..)| head.version + 1);
        let key = rows::head_key(dir);
        plan.check(match &before.head {
            Some((_, entry, _)) => Check::At(key.clone(), entry.version),
            None => Check::Absent(key.clone()),
        });
        plan.put(key, rows::encode(&HeadRow { version, oldest }));
        let row = VersionRow {
            session: session.clone(),
            published: self.components.clock.now().0,
            base: appended.map_or(version, |row| row.base),
            foreign: appended.map_or(foreign, |row| row.foreign),
            schema: self
                .schema_of_version(plan, publication, before, appended, *schema)
                .await?,
            rows: sum(appended.map_or(0, |row| row.rows), parts, |ended| ended.rows),
            batches: sum(appended.map_or(0, |row| row.batches), parts, |ended| ended.batches),
            bytes: sum(appended.map_or(0, |row| row.bytes), parts, |ended| ended.bytes),
            parts: appended.map_or(0, |row| row.parts) + parts.len() as u64,
        };
        if row.base > 1 {
            plan.put(rows::sweep_key(dir), rows::encode(&()));
        }
        plan.put(rows::version_key(dir, version), rows::encode(&row));
        let ended = SessionRow {
            end: Some(SessionEnd::Published { dir: dir.0, version }),
            ..self.open_row(live)
        };
        plan.put(rows::published_key(session), rows::encode(&ended));
        if !live.own {
            let key = rows::session_key(session);
            let open = self
                .components
                .meta
                .get(std::slice::from_ref(&key))
                .await?
                .pop()
                .flatten();
            let open = open.ok_or_else(|| Error::precondition(format!("session {session} has ended")))?;
            plan.check(Check::At(key.clone(), open.version)).delete(key);
        }
        for number in publication.excluded {
            plan.delete(rows::part_key(session, *number));
        }
        for (number, row) in publication.rows {
            plan.put(rows::part_key(session, *number), rows::encode(row));
        }
        Ok(version)
    }

    /// The session whose rows hold the version's schema; writes them when no rows do yet.
    async fn schema_of_version(
        &self,
        plan: &mut Plan,
        publication: &Publication<'_>,
        before: &Before,
        appended: Option<&VersionRow>,
        schema: Option<&StoredSchema>,
    ) -> Result<String> {
        if let Some(row) = appended {
            return Ok(row.schema.clone());
        }
        let live = publication.live;
        match (schema, &before.head) {
            (Some(schema), _) => {
                if live.schema_to_store().is_some() {
                    self.plan_schema(plan, &live.id, schema).await?;
                }
                Ok(live.id.0.clone())
            }
            // Overwritten with nothing: an empty dataset of the same schema.
            (None, Some((_, _, row))) => {
                let schema = self.session_schema(&row.schema).await?;
                self.plan_schema(plan, &live.id, &schema).await?;
                Ok(live.id.0.clone())
            }
            (None, None) => Err(Error::precondition(format!(
                "{}: nothing was put in session {}, so its schema is unknown; put at least a schema, or abort it",
                live.path, live.id.0
            ))),
        }
    }

    /// After the transaction: followers learn it, the persister has work, old versions are swept.
    pub(super) fn end_published(&self, live: &Live, version: u64, excluded: Vec<u32>) {
        live.change(|state| state.phase = Phase::Published { version, excluded });
        self.datasets.sessions.remove(live);
        self.persist.wake();
        self.datasets.sweep.notify_one();
        tracing::debug!(session = live.id.0, path = %live.path, version, "published");
    }
}

/// The parts that count and the numbers of those that do not.
fn choose(rows: &[(u32, PartRow)], how: &Publish) -> Result<(Vec<NewPart>, Vec<u32>)> {
    let counts = |row: &PartRow| match &how.tasks {
        None => true,
        Some(tasks) => row.task.as_ref().is_some_and(|task| tasks.contains(task)),
    };
    let (mut parts, mut excluded) = (Vec::new(), Vec::new());
    for (number, row) in rows {
        match NewPart::of_row(*number, row).filter(|_| counts(row)) {
            Some(part) => parts.push(part),
            None => excluded.push(*number),
        }
    }
    for task in how.tasks.iter().flatten() {
        if !parts.iter().any(|part| part.task.as_ref() == Some(task)) {
            let Task {
                stage,
                task: number,
                attempt,
                ..
            } = task;
            let other = rows
                .iter()
                .filter_map(|(_, row)| row.task.as_ref())
                .find(|other| other.same_task(task));
            let why = other.map_or_else(
                || "it has not ended well".to_owned(),
                |other| format!("attempt {} counts", other.attempt),
            );
            return Err(Error::precondition(format!(
                "attempt {attempt} of task {number}, stage {stage}, can not be published: {why}"
            )));
        }
    }
    Ok((parts, excluded))
}

fn create(ended: &Ended) -> Create {
    Create {
        content: content(ended, None).encode(),
        size: ended.bytes,
        generation: ended.generation,
        parents: true,
        ino: Some(Ino(ended.ino)),
        // The session's id is in the name.
        unique: true,
        ..Create::default()
    }
}

fn empty_file() -> Create {
    Create {
        content: Content::Sealed {
            layout: Layout::Empty,
            work: None,
            crc: 0,
        }
        .encode(),
        generation: GENERATION,
        parents: true,
        replace: Replace::File,
        ..Create::default()
    }
}

fn content(ended: &Ended, work: Option<u64>) -> Content {
    Content::Sealed {
        layout: ended.layout.clone(),
        work,
        crc: ended.crc,
    }
}

fn sum(before: u64, parts: &[NewPart], of: impl Fn(&Ended) -> u64) -> u64 {
    parts
        .iter()
        .map(|part| of(&part.ended))
        .fold(before, u64::saturating_add)
}
