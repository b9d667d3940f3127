//! What a reader may read, and where: plans of versions, sessions and directories of files, and the list of all datasets.

use super::{
    At, DatasetPlan, PartRef, SessionId,
    foreign::{is_file, published_ref},
    ipc::schema::StoredSchema,
    publish::other_schema,
    registry::{Live, LivePartState, Phase},
};
use crate::{
    Cache, Error, ErrorKind, Result,
    cache::Inner,
    file::WriteMode,
    rows::{Foreign, HeadRow, SessionEnd, SessionRow},
};
use forebay_namespace::{Ino, LIST_PAGE_MAX, Node, NsError, Path};
use futures::stream::{self, BoxStream, StreamExt};
use std::{collections::VecDeque, sync::Arc, time::Duration};

impl Cache {
    /// Plans a read. A single Arrow or Parquet file is a dataset too. For [`At::Session`] and [`At::Follow`] the call waits while a
    /// live session has no schema yet.
    ///
    /// # Errors
    /// NotFound: nothing there (or nothing published and `at` is Head; a version that is not kept; no such session);
    /// Precondition: files of different schemas, or none that are data; Aborted: the session was.
    pub async fn dataset(&self, path: &Path, at: At) -> Result<DatasetPlan> {
        self.inner.dataset(path, &at).await
    }

    /// Waits until [`Cache::dataset`] would answer (and a live session has a schema), at most for `wait`; then NotFound.
    pub async fn wait_dataset(&self, path: &Path, at: At, wait: Duration) -> Result<DatasetPlan> {
        let inner = &self.inner;
        let clock = &inner.components.clock;
        let deadline = clock.monotonic().saturating_add(wait);
        let mut changed = inner.datasets.sessions.changed();
        loop {
            changed.borrow_and_update();
            let error = match inner.dataset(path, &at).await {
                Err(error) if error.kind() == ErrorKind::NotFound => error,
                other => return other,
            };
            let left = deadline.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return Err(error);
            }
            tokio::select! {
                biased;
                _ = changed.changed() => {}
                // Files that others write tell nobody.
                () = clock.sleep(left.min(Duration::from_millis(500))) => {}
            }
        }
    }

    /// Whether a bare read of `path` means a dataset (a published one, a directory of Arrow or Parquet files, a live session).
    pub async fn is_dataset(&self, path: &Path) -> Result<bool> {
        self.inner.is_dataset(path).await
    }

    /// Every dataset whose absolute path begins with `prefix` (bytes), in path order, one directory at a time behind the stream.
    /// Directories that are no readable dataset are passed over.
    pub fn datasets(&self, prefix: &[u8]) -> BoxStream<'static, Result<DatasetPlan>> {
        let walk = Walk {
            inner: Arc::clone(&self.inner),
            prefix: prefix.to_vec(),
            todo: VecDeque::from([first_folder(prefix)]),
        };
        stream::try_unfold(walk, |mut walk| async move {
            Ok(walk.next().await?.map(|plan| (plan, walk)))
        })
        .boxed()
    }
}

impl Inner {
    async fn is_dataset(self: &Arc<Self>, path: &Path) -> Result<bool> {
        if self.datasets.sessions.is_live(path) {
            return Ok(true);
        }
        match self.names.resolve(path).await? {
            None => Ok(false),
            Some(node) if node.is_dir() => {
                Ok(self.head_of_node(&node).await?.is_some() || self.has_data_files(path).await?)
            }
            Some(node) => Ok(is_file(&node) && self.kind_of(path, &node).await?.is_some()),
        }
    }

    pub(super) async fn dataset(self: &Arc<Self>, path: &Path, at: &At) -> Result<DatasetPlan> {
        match at {
            At::Head => self.head_plan(path).await,
            At::Version(version) => self.version_plan(path, *version).await,
            At::Session(session) => self.session_plan(path, session).await,
            At::Follow => self.follow_plan(path).await,
        }
    }

    /// The schema of what is at `path`; `None` when nothing says one.
    pub(super) async fn schema_at(self: &Arc<Self>, path: &Path) -> Result<Option<Arc<StoredSchema>>> {
        match self.names.resolve(path).await? {
            None => Ok(None),
            Some(node) if !node.is_dir() => Ok(None),
            Some(node) => match self.head_of_node(&node).await? {
                Some((dir, head)) => {
                    let row = self.version_row(dir, head.version).await?;
                    self.session_schema(&row.schema).await.map(Some)
                }
                None if self.has_data_files(path).await? => {
                    let plan = self.directory_plan(path).await?;
                    Ok(Some(Arc::new(StoredSchema::parse(&plan.schema_message)?)))
                }
                None => Ok(None),
            },
        }
    }

    pub(super) async fn head_of_node(&self, node: &Node) -> Result<Option<(Ino, HeadRow)>> {
        let Some(dir) = node.ino() else { return Ok(None) };
        Ok(self.head_entry(dir).await?.map(|(head, _)| (dir, head)))
    }

    async fn head_plan(self: &Arc<Self>, path: &Path) -> Result<DatasetPlan> {
        let node = self.names.resolve(path).await?.ok_or_else(|| nothing(path))?;
        if !node.is_dir() {
            return self.file_plan(path, &node).await;
        }
        if let Some((dir, head)) = self.head_of_node(&node).await? {
            return self.plan_version_of(path, dir, head.version).await;
        }
        let listed = self.directory_plan(path).await;
        // Published while the files were looked at: they are its parts then, and in its order.
        if let Some((dir, head)) = self.published_head(path).await? {
            return self.plan_version_of(path, dir, head.version).await;
        }
        match listed {
            // A session may be about to publish there.
            Err(error) if error.kind() == ErrorKind::Precondition && self.datasets.sessions.is_live(path) => {
                Err(nothing(path))
            }
            other => other,
        }
    }

    async fn version_plan(self: &Arc<Self>, path: &Path, version: u64) -> Result<DatasetPlan> {
        let node = self.names.resolve(path).await?.ok_or_else(|| nothing(path))?;
        match self.head_of_node(&node).await? {
            Some((dir, head)) if (head.oldest..=head.version).contains(&version) => {
                self.plan_version_of(path, dir, version).await
            }
            Some((_, head)) => Err(Error::not_found(format!(
                "{path}: version {version} is not kept; versions {} to {} are",
                head.oldest, head.version
            ))),
            None => Err(Error::not_found(format!(
                "{path}: nothing was published there, so it has no versions"
            ))),
        }
    }

    /// The plan of a version.
    pub(super) async fn plan_version_of(self: &Arc<Self>, path: &Path, dir: Ino, version: u64) -> Result<DatasetPlan> {
        let row = self.version_row(dir, version).await?;
        let schema = self.session_schema(&row.schema).await?;
        let mut parts = match row.foreign {
            Foreign::Absent => Vec::new(),
            _ if self.head_base(dir).await? != row.base => {
                return Err(Error::not_found(format!(
                    "{path}: version {version} began with files that others wrote, which a later overwrite took away"
                )));
            }
            Foreign::Present => self.leading_parts(path, &schema).await?,
            Foreign::Unknown => match self.leading_parts(path, &schema).await {
                // What is here is read meanwhile.
                Err(error) if error.is_away() => Vec::new(),
                parts => parts?,
            },
        };
        for part in self.version_parts(dir, version).await?.iter() {
            parts.push(published_ref(path, part)?);
        }
        Ok(DatasetPlan {
            directory: Some(dir.0),
            ..plan(path, &schema, Some(version), None, parts)
        })
    }

    /// Where the chain of the head begins.
    async fn head_base(&self, dir: Ino) -> Result<u64> {
        let head = self.head_entry(dir).await?.map(|(head, _)| head);
        let head = head.ok_or_else(|| Error::not_found("the dataset was deleted"))?;
        Ok(self.version_row(dir, head.version).await?.base)
    }

    /// A session's stable batches, in the order of delivery.
    async fn session_plan(self: &Arc<Self>, path: &Path, session: &SessionId) -> Result<DatasetPlan> {
        if let Some(live) = self.datasets.sessions.get(session) {
            if live.path != *path {
                return Err(super::session::no_session(session));
            }
            let schema = self.live_schema(&live).await?;
            let parts = live_parts(&live, false)?;
            return Ok(DatasetPlan {
                session: Some(session.clone()),
                live: true,
                ..plan(path, &schema, None, None, parts)
            });
        }
        let row = self
            .session_row(session)
            .await?
            .ok_or_else(|| super::session::no_session(session))?
            .0;
        self.check_of(path, session, &row).await?;
        match ended_well(&row, session)? {
            None => Err(Error::unavailable(format!(
                "session {} is just being opened; try again",
                session.0
            ))),
            Some((dir, version)) => {
                self.head_with(path, session, dir).await?;
                let schema = self
                    .session_schema(&self.version_row(dir, version).await?.schema)
                    .await?;
                let parts = self.delivered_parts(path, session).await?;
                Ok(DatasetPlan {
                    session: Some(session.clone()),
                    ..plan(path, &schema, None, None, parts)
                })
            }
        }
    }

    /// The head of the directory in which the session was published. Precondition when this is another one: who may read there need not be
    /// allowed to read that.
    pub(super) async fn head_with(&self, path: &Path, session: &SessionId, dir: Ino) -> Result<HeadRow> {
        match self.published_head(path).await? {
            Some((here, head)) if here == dir => Ok(head),
            Some(_) => Err(Error::precondition(format!(
                "{path}: session {} was published elsewhere, or that dataset was deleted",
                session.0
            ))),
            None => Err(nothing(path)),
        }
    }

    /// The parts of a published session in the order in which followers got them.
    pub(super) async fn delivered_parts(&self, path: &Path, session: &SessionId) -> Result<Vec<PartRef>> {
        let mut parts = self.session_parts(session).await?;
        parts.sort_by_key(|part| part.ended);
        parts.iter().map(|part| published_ref(path, part)).collect()
    }

    /// Head version and live session together, parts that have ended only: a poller's endpoints append, and each is read once.
    async fn follow_plan(self: &Arc<Self>, path: &Path) -> Result<DatasetPlan> {
        let mut changed = self.datasets.sessions.changed();
        loop {
            changed.borrow_and_update();
            let live = self.datasets.sessions.oldest(path);
            let head = self.published_head(path).await?;
            let Some(live) = live else {
                return match head {
                    Some((dir, head)) => self.polled_version(path, dir, head.version).await,
                    None => self.head_plan(path).await,
                };
            };
            let schema = match self.live_schema(&live).await {
                // It ended before it had one.
                Err(_) if live.phase() != Phase::Open => continue,
                other => other?,
            };
            let overwrites = live.keys.mode == WriteMode::Overwrite;
            let (version, mut parts) = match head.as_ref().filter(|_| !overwrites) {
                Some((dir, head)) => (
                    Some(head.version),
                    self.polled_version(path, *dir, head.version).await?.parts,
                ),
                None if overwrites => (None, Vec::new()),
                None => (
                    None,
                    self.head_plan(path).await.map(|plan| plan.parts).unwrap_or_default(),
                ),
            };
            let directory = version.and(head.map(|(dir, _)| dir.0));
            // Published meanwhile: its parts are the head's, or missing from what was read before.
            if !matches!(live.phase(), Phase::Open | Phase::Ending) {
                continue;
            }
            let published = parts.iter().any(|part| session_of(part) == Some(&live.id));
            if !published {
                parts.extend(live_parts(&live, true)?);
            }
            let plan = plan(path, &schema, version, Some(live.id.clone()), parts);
            return Ok(DatasetPlan {
                live: true,
                directory,
                ..plan
            });
        }
    }

    /// A version with its parts in the order in which followers got them, so that a publish reorders nothing for a poller.
    async fn polled_version(self: &Arc<Self>, path: &Path, dir: Ino, version: u64) -> Result<DatasetPlan> {
        let mut plan = self.plan_version_of(path, dir, version).await?;
        let mut ended = Vec::new();
        for part in self.version_parts(dir, version).await?.iter() {
            ended.push(part.ended);
        }
        let leading = plan.parts.len() - ended.len();
        let mut parts: Vec<(PartRef, u32)> = plan.parts.drain(leading..).zip(ended).collect();
        for session in parts.chunk_by_mut(|(a, _), (b, _)| session_of(a) == session_of(b)) {
            session.sort_by_key(|(_, ended)| *ended);
        }
        plan.parts.extend(parts.into_iter().map(|(part, _)| part));
        number(&mut plan.parts);
        Ok(plan)
    }

    /// The head of a published dataset at `path`.
    pub(crate) async fn published_head(&self, path: &Path) -> Result<Option<(Ino, HeadRow)>> {
        match self.names.resolve(path).await {
            // What was published has a row, which needs no store.
            Err(NsError::Base(_)) => Ok(None),
            Ok(Some(node)) if node.is_dir() => self.head_of_node(&node).await,
            other => Ok(other.map(|_| None)?),
        }
    }

    /// The schema under which a live session is read: the dataset's, when it is appended to.
    pub(super) async fn live_schema(self: &Arc<Self>, live: &Arc<Live>) -> Result<Arc<StoredSchema>> {
        if live.keys.mode == WriteMode::Append
            && let Some((dir, head)) = self.published_head(&live.path).await?
        {
            let row = self.version_row(dir, head.version).await?;
            let there = self.session_schema(&row.schema).await?;
            // It was overwritten since, and the session can not be published any more.
            let own = live.look().schema.clone();
            return match own.map_or(Ok(()), |own| there.agrees(&own.schema)) {
                Ok(()) => Ok(there),
                Err(difference) => Err(other_schema(&live.path, &difference)),
            };
        }
        live.schema().await
    }
}

impl DatasetPlan {
    /// Whether parts of this session are among its parts.
    pub(super) fn holds(&self, session: &SessionId) -> bool {
        self.parts.iter().any(|part| session_of(part) == Some(session))
    }
}

fn nothing(path: &Path) -> Error {
    Error::not_found(format!("{path}: not found; nothing is published there"))
}

fn session_of(part: &PartRef) -> Option<&SessionId> {
    part.origin.as_ref().map(|(session, _)| session)
}

/// Where an ended session was published; Aborted when it was.
pub(super) fn ended_well(row: &SessionRow, session: &SessionId) -> Result<Option<(Ino, u64)>> {
    match &row.end {
        None => Ok(None),
        Some(SessionEnd::Published { dir, version }) => Ok(Some((Ino(*dir), *version))),
        Some(SessionEnd::Aborted { why, .. }) => {
            Err(Error::aborted(format!("session {} was aborted: {why}", session.0)))
        }
    }
}

/// The parts of a live session that followers may see; with `ended` only those that are there for good.
fn live_parts(live: &Live, ended: bool) -> Result<Vec<PartRef>> {
    let state = live.look();
    let settled: Vec<u32> = state.delivered().into_iter().map(|(number, _)| number).collect();
    let mut parts = Vec::new();
    for number in state.order.iter().filter(|number| !ended || settled.contains(number)) {
        let Some(part) = state.parts.get(number) else { continue };
        let (format, rows, batches, bytes) = match (&part.state, &part.growing) {
            (LivePartState::Ended(ended), _) => (ended.format, ended.rows, ended.batches, ended.bytes),
            (LivePartState::Open, Some(growing)) => (
                super::Format::Arrow,
                0,
                growing.stable_batches(),
                growing.stable().borrow().bytes,
            ),
            _ => continue,
        };
        parts.push(PartRef {
            index: 0,
            path: live.path.join(format!("{}.{number}", live.id.0).as_bytes())?.as_bytes(),
            content: None,
            live: Some((live.id.clone(), *number)),
            format,
            rows,
            batches,
            bytes,
            partition: Vec::new(),
            origin: Some((live.id.clone(), *number)),
        });
    }
    Ok(parts)
}

fn plan(
    path: &Path,
    schema: &StoredSchema,
    version: Option<u64>,
    session: Option<SessionId>,
    mut parts: Vec<PartRef>,
) -> DatasetPlan {
    number(&mut parts);
    let (schema_message, schema) = (schema.message.clone(), Arc::clone(&schema.schema));
    DatasetPlan {
        path: path.clone(),
        schema,
        schema_message,
        version,
        directory: None,
        session,
        live: false,
        folders: Vec::new(),
        parts,
    }
}

fn number(parts: &mut [PartRef]) {
    for (k, part) in parts.iter_mut().enumerate() {
        part.index = u32::try_from(k).unwrap_or(u32::MAX);
    }
}

/// Goes over directories, parents before what they hold.
struct Walk {
    inner: Arc<Inner>,
    prefix: Vec<u8>,
    todo: VecDeque<Path>,
}

/// The deepest directory that holds everything with this prefix.
fn first_folder(prefix: &[u8]) -> Path {
    let end = prefix.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    Path::parse(&prefix[..end]).unwrap_or_else(|_| Path::root())
}

impl Walk {
    async fn next(&mut self) -> Result<Option<DatasetPlan>> {
        while let Some(path) = self.todo.pop_front() {
            match self.visit(&path).await {
                Ok(Some(plan)) => return Ok(Some(plan)),
                Ok(None) => {}
                // It went meanwhile, or it is a directory of files that make no dataset.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Precondition) => {
                    tracing::debug!(%path, %error, "passed over in the list of datasets");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn visit(&mut self, path: &Path) -> Result<Option<DatasetPlan>> {
        let mut below = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = match self.inner.names.list(path, after.as_deref(), LIST_PAGE_MAX).await {
                Err(NsError::NotFound(_) | NsError::NotADirectory(_)) => return Ok(None),
                other => other?,
            };
            let full = page.len() >= LIST_PAGE_MAX;
            after = page.last().map(|(name, _)| name.clone());
            for (name, _) in page.iter().filter(|(name, node)| node.is_dir() && !is_inside(name)) {
                let child = path.join(name)?;
                let text = child.as_bytes();
                let leads_there = self.prefix.starts_with(&[&text[..], b"/"].concat());
                if text.starts_with(&self.prefix) || leads_there {
                    below.push(child);
                }
            }
            if !full {
                break;
            }
        }
        below.into_iter().rev().for_each(|child| self.todo.push_front(child));
        if path.as_bytes().starts_with(&self.prefix) && self.inner.is_dataset(path).await? {
            return self.inner.head_plan(path).await.map(Some);
        }
        Ok(None)
    }
}

/// Folders that are part of the dataset above them, or nobody's.
fn is_inside(name: &[u8]) -> bool {
    name.starts_with(b"_") || name.starts_with(b".") || name.iter().skip(1).any(|byte| *byte == b'=')
}
