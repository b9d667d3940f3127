//! Publish: the parts of a session, or of several sessions of different datasets, become the next versions, in one transaction.
//!
//! The transaction gives the parts their names, moves the heads, ends the sessions, queues the uploads, and takes the names of the
//! versions that are overwritten away. Its checks are the directories, the heads and the sessions as they were read, so two
//! publishes never make one version, and of several sessions all are published or none.
//!
//! What must be visible at once fits into one transaction ([`super::registry::PARTS_MAX`] new parts of a session; of several
//! together as many rows as the metastore takes). Of overwritten versions [`RETIRED_AT_ONCE`] parts of each dataset lose their
//! names with it, [`RETIRED_IN_ALL`] of all. When there are more, readers of the datasets see the new versions at once, and the
//! names of the remaining old files go in the transactions that follow (`versions`).
//!
//! It does not own who takes part and when a session may end (`joint`). Which names an overwrite takes away is said in `going`.

mod going;

use self::going::Going;
use super::{
    Format, SessionId, Task,
    ipc::schema::StoredSchema,
    part_writer::{DonePart, GENERATION},
    registry::{Ended, Live},
    retire::{OldPart, Retired},
    session::Token,
};
use crate::{
    Error, ErrorKind, Result,
    cache::Inner,
    changes::Change,
    file::{SealedContent, WriteMode},
    persist::Unseen,
    policy::Adds,
    rows::{self, Content, DatasetAnswer, Foreign, HeadRow, PartRow, SessionEnd, SessionRow, VersionRow},
};
use forebay_metastore::{Check, Entry, LIMITS};
use forebay_namespace::{Create, Ino, Node, NsError, Path, Plan, Planned, Planner, Replace};
use forebay_segment::Layout;
use std::sync::Arc;

/// Old parts whose names go in the publish's own transaction.
const RETIRED_AT_ONCE: usize = 120;
/// And so many in all, of the datasets of one publish.
const RETIRED_IN_ALL: usize = 800;
/// The marker of a finished job.
pub(super) const SUCCESS: &[u8] = b"_SUCCESS";

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
    pub(super) success_file: bool,
    /// Parts of the session that do not count: their rows go.
    pub(super) excluded: &'a [u32],
    /// Parts whose rows are not there yet, or change.
    pub(super) rows: &'a [(u32, PartRow)],
}

/// Versions that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// This publish made them, one of each publication.
    Now(Vec<u64>),
    /// An earlier put with the same token made its own; this one's parts are nobody's.
    Before(u64),
}

/// What overwritten versions may cost in one transaction.
#[derive(Debug)]
struct Allowance {
    /// Old parts of each dataset whose names go at once.
    parts: usize,
    /// Bytes copied back from under-stores so far.
    away: u64,
}

/// What a publish does with the names of one dataset.
struct Step {
    before: Before,
    /// Of its new parts.
    names: Vec<Vec<u8>>,
    old: Vec<OldPart>,
    /// Names that go, with what they led to and the whiteout that hides the base there from now on.
    removed: Vec<(Path, Node, Option<Path>)>,
    marked: Option<Planned>,
    dir: Ino,
    foreign: Foreign,
    /// The store is away, and what others have in the directory goes once it answers.
    unseen: bool,
    adds: Adds,
    after: After,
}

/// What was there before.
struct Before {
    /// The directory, when it has a row.
    dir: Option<Ino>,
    /// Whether anything is at the path.
    exists: bool,
    /// The store is away, and nothing here says what it has at the path.
    unknown: bool,
    head: Option<(HeadRow, Entry, VersionRow)>,
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
    /// What the store has in the directory.
    unseen: Option<Unseen>,
}

/// The name of a part's file.
pub(super) fn part_name(position: usize, session: &str, format: Format) -> Vec<u8> {
    format!("part-{position:05}-{session}.{}", format.extension()).into_bytes()
}

impl Inner {
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

    /// Publishes, trying again while others change the same names. `token`: scope and token of a put that publishes its own session.
    pub(super) async fn publish_parts(
        self: &Arc<Self>,
        publications: &[Publication<'_>],
        token: Option<(&[u8], &str)>,
    ) -> Result<Made> {
        let first = publications
            .first()
            .ok_or_else(|| Error::internal("a publish of nothing"))?;
        let mut attempts = self.attempts(format!("publish {}", first.live.path));
        loop {
            match self.try_publish(publications, token).await {
                Ok(made) => {
                    for publication in publications {
                        self.tell(Change::Under(publication.live.path.clone())).await;
                    }
                    return Ok(made);
                }
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn try_publish(
        self: &Arc<Self>,
        publications: &[Publication<'_>],
        token: Option<(&[u8], &str)>,
    ) -> Result<Made> {
        let token = match token {
            Some((scope, token)) => self.dataset_token(scope, Some(token)).await?,
            None => Token::None,
        };
        if let Token::Known(answer) = token {
            let version = answer
                .version
                .ok_or_else(|| Error::internal("a put's token without its version"))?;
            return Ok(Made::Before(version));
        }
        let mut allowance = Allowance::of(publications);
        let mut planner = self.names.planner();
        let mut steps = Vec::with_capacity(publications.len());
        for publication in publications {
            steps.push(self.plan_names(&mut planner, publication, &mut allowance).await?);
        }
        let mut plan = planner.finish()?;
        let mut versions = Vec::with_capacity(publications.len());
        for (publication, step) in publications.iter().zip(&mut steps) {
            self.plan_contents(&mut plan, publication, step).await?;
            versions.push(self.plan_version(&mut plan, publication, step).await?);
        }
        if let (Some(publication), Some(version)) = (publications.first(), versions.first()) {
            let answer = DatasetAnswer {
                session: publication.live.id.0.clone(),
                version: Some(*version),
            };
            self.plan_dataset_token(&mut plan, token, &answer);
        }
        check_size(&plan, publications)?;
        // Those that make room first: what the others need may be what they give.
        let mut amounts: Vec<_> = publications.iter().map(|p| &p.live.path).zip(&steps).collect();
        amounts.sort_by_key(|(_, step)| step.adds.needs());
        let mut shares = Vec::with_capacity(amounts.len());
        for (path, step) in amounts {
            shares.push(self.take_share(path, &step.adds).await?);
        }
        let committed = match publications.len() {
            1 => self.commit_with_all(plan, shares).await,
            _ => {
                let _instant = self.datasets.instants.change().await;
                self.commit_with_all(plan, shares).await
            }
        };
        let unknown = committed
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Deadline);
        for Step { after, marked, .. } in steps {
            match (&committed, unknown) {
                (Ok(()), _) => self.after_publish(after, marked.is_some()),
                (Err(_), true) => after.copies.into_iter().for_each(SealedContent::in_doubt),
                (Err(_), false) => {}
            }
        }
        committed.map(|()| Made::Now(versions))
    }

    fn after_publish(&self, after: After, marked: bool) {
        after
            .unseen
            .into_iter()
            .for_each(|unseen| self.persist.overwritten(unseen));
        after.copies.into_iter().for_each(SealedContent::keep);
        after.adopted.iter().for_each(|bytes| self.dirty.adopt(1, *bytes));
        after.gone.iter().for_each(|node| self.discard_node(node));
        if marked {
            // The marker is a dirty file of no bytes.
            self.dirty.adopt(1, 0);
        }
    }

    /// Names that come and names that go, of one dataset.
    async fn plan_names(
        self: &Arc<Self>,
        planner: &mut Planner<'_>,
        publication: &Publication<'_>,
        allowance: &mut Allowance,
    ) -> Result<Step> {
        let Publication { live, parts, .. } = publication;
        let before = self.before(live).await?;
        let overwrite = live.keys.mode == WriteMode::Overwrite;
        let (after, old) = self.old_parts(live, &before, overwrite, allowance).await?;
        let foreign = self.foreign_before(live, &before).await?;
        if let Some(schema) = publication.schema.filter(|_| !overwrite) {
            self.check_schema_now(&live.path, &before, foreign, schema).await?;
        }

        let names: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(k, part)| part_name(k, &live.id.0, part.ended.format))
            .collect();
        let files = names
            .iter()
            .zip(*parts)
            .map(|(name, part)| (name.clone(), create(&part.ended, live.keys.owner)))
            .collect();
        if !parts.is_empty() {
            planner.create_all(&live.path, files).await?;
        } else if !self.is_planned(planner, &live.path, before.unknown).await? {
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
        let marked = match publication.success_file {
            true => Some(planner.create(&live.path.join(SUCCESS)?, empty_file()).await?),
            false => None,
        };
        let dir = match planner.resolve(&live.path).await? {
            Some(Node::Row { ino, inode, .. }) if inode.is_dir() => ino,
            Some(Node::Base { entry, .. }) if entry.is_dir => planner.adopt(&live.path).await?.0,
            _ => return Err(Error::lost()),
        };
        let mut removed = Vec::new();
        let going = if overwrite {
            self.names_to_remove(planner, publication, &before, &old, dir).await?
        } else {
            Going::default()
        };
        for name in going.names {
            let unlinked = planner.unlink(&name).await?;
            removed.push((name, unlinked.node, unlinked.whiteout));
        }
        let gone = removed.iter().map(|(_, node, _)| Adds::of(node));
        let adds = parts.iter().map(|part| Adds::file(live.keys.owner, part.ended.bytes));
        let adds = adds.fold(gone.fold(Adds::default(), Adds::minus), Adds::plus);
        Ok(Step {
            before,
            names,
            old,
            removed,
            marked,
            dir,
            foreign,
            unseen: going.unseen,
            adds,
            after,
        })
    }

    /// What lies behind the names: contents with their work, and what old versions keep.
    async fn plan_contents(&self, plan: &mut Plan, publication: &Publication<'_>, step: &mut Step) -> Result<()> {
        let path = &publication.live.path;
        let after = &mut step.after;
        for (name, part) in step.names.iter().zip(publication.parts) {
            let ino = Ino(part.ended.ino);
            let work = self
                .persist
                .plan_put(plan, ino, GENERATION, &path.join(name)?, None)
                .await?;
            plan.amend(ino, |inode| inode.content = content(&part.ended, work).encode())?;
        }
        if step.unseen {
            after.unseen = Some(self.persist.plan_overwritten(plan, path).await?);
        }
        if let Some(marked) = &step.marked {
            let work = self
                .persist
                .plan_put(
                    plan,
                    marked.ino,
                    GENERATION,
                    &path.join(SUCCESS)?,
                    marked.replaced.as_ref(),
                )
                .await?;
            plan.amend(marked.ino, |inode| {
                inode.content = Content::Sealed {
                    layout: Layout::Empty,
                    work,
                    crc: 0,
                }
                .encode()
            })?;
            after.gone.extend(marked.replaced.clone());
        }
        for (name, node, whiteout) in step.removed.drain(..) {
            self.persist.plan_removed(plan, &node, &name, whiteout.as_ref()).await?;
            match step.old.iter().find(|old| old.name == name && after.keeps) {
                Some(old) => match self.plan_retire(plan, old, &node)? {
                    Retired::Gone => after.gone.push(node),
                    Retired::Adopted(bytes) => after.adopted.push(bytes),
                    Retired::Kept | Retired::Copied => {}
                },
                None => after.gone.push(node),
            }
        }
        Ok(())
    }

    /// What is at the path, and whether that lets the publish go on.
    async fn before(&self, live: &Live) -> Result<Before> {
        let path = &live.path;
        let nothing = |unknown| Before {
            dir: None,
            exists: false,
            unknown,
            head: None,
        };
        let there = match self.names.resolve(path).await {
            Err(NsError::Base(_)) if self.need_not_know(path, live.keys.mode) => return Ok(nothing(true)),
            there => there?,
        };
        let dir = match there {
            None => return Ok(nothing(false)),
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
            unknown: false,
            head,
        })
    }

    /// Whether files of others come before what is published. An append does not wait for a store that is away to say so.
    async fn foreign_before(self: &Arc<Self>, live: &Live, before: &Before) -> Result<Foreign> {
        if live.keys.mode != WriteMode::Append || before.head.is_some() {
            return Ok(Foreign::Absent);
        }
        if !before.exists {
            return Ok(if before.unknown {
                Foreign::Unknown
            } else {
                Foreign::Absent
            });
        }
        match self.has_data_files(&live.path).await {
            Ok(true) => Ok(Foreign::Present),
            Ok(false) => Ok(Foreign::Absent),
            Err(error) if error.is_away() => Ok(Foreign::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Whether what is appended has the schema of what it is appended to. That was asked when the put began, and another one may have
    /// published since.
    async fn check_schema_now(
        self: &Arc<Self>,
        path: &Path,
        before: &Before,
        foreign: Foreign,
        schema: &StoredSchema,
    ) -> Result<()> {
        let there = match &before.head {
            Some((_, _, version)) => Some(self.session_schema(&version.schema).await?),
            None if foreign == Foreign::Present => self.schema_at(path).await?,
            None => None,
        };
        match there.map_or(Ok(()), |there| there.agrees(&schema.schema)) {
            Ok(()) => Ok(()),
            Err(difference) => Err(other_schema(path, &difference)),
        }
    }

    /// The parts that an overwrite takes the place of, as many as go at once, each with its bytes here.
    async fn old_parts(
        self: &Arc<Self>,
        live: &Live,
        before: &Before,
        overwrite: bool,
        allowance: &mut Allowance,
    ) -> Result<(After, Vec<OldPart>)> {
        let mut after = After::default();
        let (true, Some(dir), Some((head, ..))) = (overwrite, before.dir, &before.head) else {
            return Ok((after, Vec::new()));
        };
        let mut old = Vec::new();
        // As the rows are now: what becomes Parquet after this look changes the head, on which the publish relies.
        let parts = self.read_version_parts(dir, head.version).await?;
        after.keeps = self.worth_keeping(&live.path, &parts, &mut allowance.away).await?;
        for part in parts.iter().take(allowance.parts) {
            let name = live.path.join(&part.name())?;
            let copies = after.keeps.then_some(&mut after.copies);
            old.extend(self.old_part(part, name, copies).await?);
        }
        Ok((after, old))
    }

    /// Whether something is at the path by now. `unknown`: the store need not say it.
    async fn is_planned(&self, planner: &mut Planner<'_>, path: &Path, unknown: bool) -> Result<bool> {
        match planner.resolve(path).await {
            Err(NsError::Base(_)) if unknown => Ok(false),
            node => Ok(node?.is_some()),
        }
    }

    /// The oldest version that is kept from now on. `ends`: what was before can not be.
    fn oldest(&self, path: &Path, before: &Before, ends: bool) -> u64 {
        let Some((head, ..)) = &before.head else { return 1 };
        let version = head.version + 1;
        let kept = if ends {
            1
        } else {
            u64::from(self.versions_kept(path).max(1))
        };
        head.oldest.max((version + 1).saturating_sub(kept))
    }

    /// Head, version, session and part rows.
    async fn plan_version(&self, plan: &mut Plan, publication: &Publication<'_>, step: &Step) -> Result<u64> {
        let Publication {
            live, parts, schema, ..
        } = publication;
        let Step {
            before, dir, foreign, ..
        } = step;
        let (dir, foreign) = (*dir, *foreign);
        let ends = live.keys.mode == WriteMode::Overwrite && !step.after.keeps;
        let oldest = self.oldest(&live.path, before, ends);
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
}

impl Allowance {
    fn of(publications: &[Publication<'_>]) -> Self {
        let overwrites = publications
            .iter()
            .filter(|publication| publication.live.keys.mode == WriteMode::Overwrite)
            .count();
        Self {
            parts: RETIRED_AT_ONCE.min(RETIRED_IN_ALL / overwrites.max(1)),
            away: 0,
        }
    }
}

/// Says in the caller's words when what several sessions change does not fit into a transaction.
fn check_size(plan: &Plan, publications: &[Publication<'_>]) -> Result<()> {
    let rows = plan.keys();
    if publications.len() == 1 || rows <= LIMITS.tx_keys_max {
        return Ok(());
    }
    let parts: usize = publications.iter().map(|publication| publication.parts.len()).sum();
    Err(Error::precondition(format!(
        "{} sessions with {parts} new parts change {rows} rows of the metastore, and one transaction takes {}: publish fewer \
         sessions at once, or put fewer parts into each (every put makes one)",
        publications.len(),
        LIMITS.tx_keys_max
    )))
}

/// The refusal of an append.
pub(super) fn other_schema(path: &Path, difference: &str) -> Error {
    Error::precondition(format!("{path}: another schema than the dataset's: {difference}"))
}

fn create(ended: &Ended, owner: u32) -> Create {
    Create {
        uid: owner,
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
