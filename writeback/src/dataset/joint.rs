//! Who takes part in a publish: one session, or several of different datasets, and what becomes of them.
//!
//! 1. Every session turns to its end: from then on it takes no put, and nobody else ends it. This goes in the order of their ids, so
//!    that two publishes of the same sessions never wait for each other.
//! 2. The parts that count are chosen, session by session.
//! 3. One transaction makes all versions (`publish`).
//! 4. Followers of each learn it. When the transaction failed, all sessions go on.
//!
//! A repeated publish finds the sessions' ends and answers the same versions. Where some were published and others not, it is another
//! publish than the first, and is refused. It does not own the transaction.

use super::{
    Format, Member, Publish, Published, SessionId, Task,
    ipc::schema::StoredSchema,
    parquet,
    part_writer::{GENERATION, PERSISTED_MAX},
    publish::{Made, NewPart, Publication},
    registry::{Ended, Live, LiveState, Phase},
};
use crate::{
    AckLevel, Cache, Error, ErrorKind, Result,
    cache::Inner,
    file::SealedContent,
    rows::{PartRow, SessionEnd, SessionRow},
};
use forebay_namespace::Path;
use forebay_runtime::crash_point;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Sessions of one publish.
pub const SESSIONS_MAX: usize = 1000;

impl Cache {
    /// Makes the session's parts the next version, in one transaction. Repeated, it answers the same version.
    ///
    /// # Errors
    /// NotFound: no such session; Precondition: it was aborted, a put without a task is still under way, an attempt that is named
    /// has not ended or another one of its task counts, or nothing says what the schema is; Exists in mode create; Deadline:
    /// outcome unknown, publish again.
    pub async fn publish(&self, session: &SessionId, how: Publish) -> Result<u64> {
        let Publish { tasks, success_file } = how;
        let member = Member {
            session: session.clone(),
            tasks,
        };
        let published = self.publish_together(vec![member], success_file).await?;
        Ok(published[0].version)
    }

    /// Makes the parts of every session the next version of its dataset, all in one transaction: whoever reads sees all of them or
    /// none. Repeated, it answers the same versions. `success_file` adds `_SUCCESS` to each.
    ///
    /// # Errors
    /// As [`Cache::publish`], and then none is published. Invalid: none, more than 1,000, or one named twice. Precondition: two are
    /// of one dataset, some are published already and others not, or all together are more than one transaction takes.
    pub async fn publish_together(&self, members: Vec<Member>, success_file: bool) -> Result<Vec<Published>> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .to_the_end("publish", async move {
                inner.publish_together(&members, success_file).await
            })
            .await
    }
}

/// Where a session stands that shall be published.
#[derive(Debug)]
enum Standing {
    /// It is ending, and this publish decides how.
    Ending(Arc<Live>),
    /// It was published before.
    Published(Published),
}

/// A session with its parts chosen.
struct Ready {
    live: Arc<Live>,
    rows: Vec<(u32, PartRow)>,
    /// In the order of the version.
    parts: Vec<NewPart>,
    schema: Option<Arc<StoredSchema>>,
    /// Sorted.
    excluded: Vec<u32>,
    /// Rows that change, for parts that were encoded now.
    changed: Vec<(u32, PartRow)>,
    fresh: Vec<SealedContent>,
    /// What the encoded parts were made of.
    staged: Vec<Ended>,
}

impl Ready {
    fn publication(&self, success_file: bool) -> Publication<'_> {
        Publication {
            live: &self.live,
            parts: &self.parts,
            schema: self.schema.as_deref(),
            success_file,
            excluded: &self.excluded,
            rows: &self.changed,
        }
    }
}

impl Inner {
    async fn publish_together(self: &Arc<Self>, members: &[Member], success_file: bool) -> Result<Vec<Published>> {
        let _entered = self.enter()?;
        check_members(members)?;
        let standing = self.end_together(members).await?;
        let ending: Vec<Arc<Live>> = standing
            .iter()
            .filter_map(|standing| match standing {
                Standing::Ending(live) => Some(Arc::clone(live)),
                Standing::Published(_) => None,
            })
            .collect();
        let before: Vec<Published> = standing
            .into_iter()
            .filter_map(|standing| match standing {
                Standing::Published(published) => Some(published),
                Standing::Ending(_) => None,
            })
            .collect();
        let published = match (before.first(), ending.first()) {
            (_, None) => return Ok(before),
            (Some(published), Some(live)) => Err(Error::precondition(format!(
                "session {} is published already, as version {} of {}, and session {} of {} is not: they can not appear in one \
                 step any more; publish those that are not without those that are",
                published.session.0, published.version, published.path, live.id.0, live.path
            ))),
            (None, Some(_)) => self.publish_sessions(&ending, members, success_file).await,
        };
        ending.iter().for_each(|live| live.go_on());
        let published = published?;
        self.reach(crash_point!("published-not-acked"))?;
        for live in ending.iter().filter(|live| live.keys.ack == AckLevel::Persisted) {
            let cache = Cache {
                inner: Arc::clone(self),
            };
            cache.persist_now(&live.path, PERSISTED_MAX).await?;
        }
        Ok(published)
    }

    /// Where all of them stand, in their order. Those that are open are ending now; on an error none is.
    async fn end_together(&self, members: &[Member]) -> Result<Vec<Standing>> {
        let mut by_id: Vec<usize> = (0..members.len()).collect();
        by_id.sort_by_key(|at| &members[*at].session);
        let mut found: BTreeMap<usize, Standing> = BTreeMap::new();
        let mut failed = None;
        for at in by_id {
            match self.end_one(&members[at].session).await {
                Ok(standing) => drop(found.insert(at, standing)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let failed = failed.or_else(|| one_of_each(&found).err());
        match failed {
            None => Ok((0..members.len()).filter_map(|at| found.remove(&at)).collect()),
            Some(error) => {
                for standing in found.into_values() {
                    if let Standing::Ending(live) = standing {
                        live.go_on();
                    }
                }
                Err(error)
            }
        }
    }

    async fn end_one(&self, session: &SessionId) -> Result<Standing> {
        let Some(live) = self.datasets.sessions.get(session).filter(|live| !live.own) else {
            let published = self.published(session).await?;
            return match published {
                Some(published) => Ok(Standing::Published(published)),
                None => Err(self.ended(session).await),
            };
        };
        let refuse = |state: &LiveState| match state.open_puts() {
            0 => Ok(()),
            open => Err(Error::precondition(format!(
                "{open} puts of session {} are still under way; end them first",
                session.0
            ))),
        };
        match live.begin_end(refuse).await? {
            None => Ok(Standing::Ending(live)),
            Some(Phase::Published { version, .. }) => Ok(Standing::Published(Published {
                path: live.path.clone(),
                session: session.clone(),
                version,
            })),
            Some(phase) => Err(live
                .closed(&phase)
                .unwrap_or_else(|| Error::internal("a session ended in no way"))),
        }
    }

    /// What a session was published as; `None` when it was not.
    async fn published(&self, session: &SessionId) -> Result<Option<Published>> {
        Ok(match self.session_row(session).await? {
            Some((
                SessionRow {
                    path,
                    end: Some(SessionEnd::Published { version, .. }),
                    ..
                },
                ..,
            )) => Some(Published {
                path: Path::parse(&path)?,
                session: session.clone(),
                version,
            }),
            _ => None,
        })
    }

    /// Publishes sessions that are ending. Answers in their order, which is that of `members`.
    async fn publish_sessions(
        self: &Arc<Self>,
        ending: &[Arc<Live>],
        members: &[Member],
        success_file: bool,
    ) -> Result<Vec<Published>> {
        let mut ready = Vec::with_capacity(ending.len());
        for (live, member) in ending.iter().zip(members) {
            ready.push(self.make_ready(live, member.tasks.as_deref()).await?);
        }
        let publications: Vec<_> = ready.iter().map(|ready| ready.publication(success_file)).collect();
        match self.publish_parts(&publications, None).await {
            Ok(Made::Now(versions)) => {
                let published = ending.iter().zip(&versions).map(|(live, version)| Published {
                    path: live.path.clone(),
                    session: live.id.clone(),
                    version: *version,
                });
                let published = published.collect();
                for (ready, version) in ready.into_iter().zip(versions) {
                    self.end_ready(ready, version);
                }
                Ok(published)
            }
            Ok(Made::Before(_)) => Err(Error::internal("a publish without a token was made before")),
            Err(error) => {
                if error.kind() == ErrorKind::Deadline {
                    let fresh = ready.iter_mut().flat_map(|ready| ready.fresh.drain(..));
                    fresh.for_each(SealedContent::in_doubt);
                }
                // It may be that an earlier try, whose outcome was unknown, did it.
                let mut published = Vec::with_capacity(ending.len());
                for live in ending {
                    match self.published(&live.id).await? {
                        Some(done) => published.push(done),
                        None => return Err(error),
                    }
                }
                // What it was to hide does not show when this is acknowledged.
                self.persist.absorb().await?;
                for (ready, done) in ready.into_iter().zip(&published) {
                    self.end_published(&ready.live, done.version, ready.excluded);
                }
                Ok(published)
            }
        }
    }

    async fn make_ready(self: &Arc<Self>, live: &Arc<Live>, tasks: Option<&[Task]>) -> Result<Ready> {
        let rows = self.part_rows(&live.id).await?;
        let (mut parts, mut excluded) = choose(&rows, tasks).map_err(|error| error.at(&live.path))?;
        let schema = live.look().schema.clone();
        let (changed, fresh, staged) = self.encode_staged(live, schema.as_deref(), &rows, &mut parts).await?;
        parts.sort_by_key(NewPart::order);
        excluded.sort_unstable();
        Ok(Ready {
            live: Arc::clone(live),
            rows,
            parts,
            schema,
            excluded,
            changed,
            fresh,
            staged,
        })
    }

    fn end_ready(&self, ready: Ready, version: u64) {
        let Ready {
            live,
            rows,
            excluded,
            fresh,
            staged,
            ..
        } = ready;
        fresh.into_iter().for_each(SealedContent::keep);
        staged.iter().for_each(|ended| self.free_ended(ended));
        let dropped = rows.iter().filter(|(number, _)| excluded.binary_search(number).is_ok());
        dropped
            .filter_map(|(_, row)| Ended::of_row(row))
            .for_each(|ended| self.free_ended(&ended));
        self.end_published(&live, version, excluded);
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
            let content = self.content_writer(self.fresh_ino().await?, GENERATION, None);
            let encoding = self.encoding(&live.path, live.keys.compression);
            let sealed = parquet::encode(content, schema, items, encoding).await?;
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

    /// After the transaction: followers learn it, the persister has work, old versions are swept.
    pub(super) fn end_published(&self, live: &Live, version: u64, excluded: Vec<u32>) {
        live.change(|state| state.phase = Phase::Published { version, excluded });
        self.datasets.sessions.remove(live);
        self.persist.wake();
        self.datasets.sweep.notify_one();
        tracing::debug!(session = live.id.0, path = %live.path, version, "published");
    }
}

fn check_members(members: &[Member]) -> Result<()> {
    if members.is_empty() || members.len() > SESSIONS_MAX {
        return Err(Error::invalid(format!(
            "a publish of {} sessions; 1 to {SESSIONS_MAX} are published at once",
            members.len()
        )));
    }
    let mut seen = HashSet::with_capacity(members.len());
    match members.iter().find(|member| !seen.insert(&member.session)) {
        None => Ok(()),
        Some(twice) => Err(Error::invalid(format!(
            "session {} is named twice; name each once",
            twice.session.0
        ))),
    }
}

/// Two versions of one dataset can not come into being at one instant.
fn one_of_each(found: &BTreeMap<usize, Standing>) -> Result<()> {
    let mut by_path: HashMap<&Path, &SessionId> = HashMap::with_capacity(found.len());
    for standing in found.values() {
        if let Standing::Ending(live) = standing
            && let Some(other) = by_path.insert(&live.path, &live.id)
        {
            return Err(Error::precondition(format!(
                "sessions {} and {} are both of {}; one publish takes one session of each dataset",
                other.0, live.id.0, live.path
            )));
        }
    }
    Ok(())
}

/// The parts that count and the numbers of those that do not.
fn choose(rows: &[(u32, PartRow)], tasks: Option<&[Task]>) -> Result<(Vec<NewPart>, Vec<u32>)> {
    let counts = |row: &PartRow| match tasks {
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
    for task in tasks.unwrap_or_default() {
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
