//! Versions: which parts one has, how many are kept, and how old ones go.
//!
//! A version is the parts of a *chain* of sessions: appending adds a link, overwriting begins another chain. So appending writes
//! rows for what is new only, and a version that is not listed any more costs nothing as long as a later one goes on from it.
//!
//! What a publish leaves behind goes in small transactions afterwards: the names of overwritten parts that did not fit into the
//! publish's own, and the chains that no kept version needs. A row per dataset says that there is something to sweep, so a
//! crash in between only delays it.

use super::{
    Format, SessionId, VersionInfo,
    publish::{NewPart, part_name},
    retire::Retired,
};
use crate::{
    Cache, Error, Result,
    cache::Inner,
    file::SealedContent,
    rows::{self, HeadRow, RetiredRow, SessionEnd, SessionRow, VersionRow, table},
};
use forebay_metastore::{Check, Entry, Key};
use forebay_namespace::{Ino, Path, Plan};
use forebay_runtime::clock::Timestamp;
use forebay_segment::StreamId;
use std::{sync::Arc, time::Duration};

/// Parts that one transaction of a sweep takes away.
const SWEEP_PARTS: usize = 100;
/// A sweep that failed is tried again after this long.
const SWEEP_RETRY: Duration = Duration::from_secs(30);
/// Rows of aborted sessions are kept for this long, so that a late publish is told why.
const ABORTED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// And so many at most.
const ABORTED_MAX: usize = 10_000;

/// A part of a published version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) session: SessionId,
    pub(crate) number: u32,
    /// Place in the session's order: the number in its name.
    pub(crate) position: usize,
    /// Order in which the session's tasks ended.
    pub(crate) ended: u32,
    pub(crate) ino: u64,
    pub(crate) generation: u32,
    pub(crate) format: Format,
    pub(crate) rows: u64,
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
}

impl Part {
    /// The name of its file.
    pub(crate) fn name(&self) -> Vec<u8> {
        part_name(self.position, &self.session.0, self.format)
    }
}

/// What goes with a directory.
#[derive(Debug)]
pub(crate) struct DatasetGone {
    /// Whether it was a dataset.
    was: bool,
}

impl Cache {
    /// The kept versions, oldest first; none for a directory that Forebay published nothing in. NotFound; Precondition for a file.
    pub async fn versions(&self, path: &Path) -> Result<Vec<VersionInfo>> {
        let inner = &self.inner;
        let node = inner
            .names
            .resolve(path)
            .await?
            .ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
        if !node.is_dir() {
            return Err(Error::precondition(format!("{path}: a file has no versions")));
        }
        let Some(dir) = node.ino() else { return Ok(Vec::new()) };
        let Some((head, _)) = inner.head_entry(dir).await? else {
            return Ok(Vec::new());
        };
        let range = rows::version_key(dir, head.oldest)..rows::version_key(dir, head.version + 1);
        inner
            .scan_range(range)
            .await?
            .iter()
            .map(|(key, entry)| info(key, entry))
            .collect()
    }
}

fn info(key: &Key, entry: &Entry) -> Result<VersionInfo> {
    let row: VersionRow = rows::decode(&entry.value)?;
    let version = version_of(key)?;
    Ok(VersionInfo {
        version,
        session: SessionId(row.session),
        published: Timestamp(row.published),
        rows: row.rows,
        bytes: row.bytes,
        parts: row.parts,
    })
}

pub(super) fn version_of(key: &[u8]) -> Result<u64> {
    let number = key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    number.ok_or_else(|| Error::data_loss("metastore: a version's key makes no sense"))
}

impl Inner {
    /// The head of a dataset and its row.
    pub(super) async fn head_entry(&self, dir: Ino) -> Result<Option<(HeadRow, Entry)>> {
        let key = rows::head_key(dir);
        let entry = self.components.meta.get(&[key]).await?.pop().flatten();
        entry.map(|entry| Ok((rows::decode(&entry.value)?, entry))).transpose()
    }

    /// The head versions of directories; `None` where Forebay published nothing.
    pub(crate) async fn head_versions(&self, dirs: &[Ino]) -> Result<Vec<Option<u64>>> {
        let keys: Vec<Key> = dirs.iter().map(|dir| rows::head_key(*dir)).collect();
        let entries = self.components.meta.get(&keys).await?;
        let version = |entry: Entry| rows::decode::<HeadRow>(&entry.value).map(|head| head.version);
        entries
            .into_iter()
            .map(|entry| entry.map(version).transpose())
            .collect()
    }

    /// When a dataset was published last, with the check that it was not again; none where Forebay published nothing.
    pub(crate) async fn last_publish(&self, dir: Ino) -> Result<Option<(Timestamp, Check)>> {
        let Some((head, entry)) = self.head_entry(dir).await? else {
            return Ok(None);
        };
        let row = self.version_row(dir, head.version).await?;
        Ok(Some((
            Timestamp(row.published),
            Check::At(rows::head_key(dir), entry.version),
        )))
    }

    /// A version's row. NotFound.
    pub(super) async fn version_row(&self, dir: Ino, version: u64) -> Result<VersionRow> {
        let key = rows::version_key(dir, version);
        let entry = self.components.meta.get(&[key]).await?.pop().flatten();
        let entry = entry
            .ok_or_else(|| Error::not_found(format!("no version {version}; `versions` lists those that are kept")))?;
        rows::decode(&entry.value)
    }

    /// The parts of a version, in order.
    pub(super) async fn version_parts(&self, dir: Ino, version: u64) -> Result<Arc<Vec<Part>>> {
        if let Some(parts) = self.datasets.versions.get(dir, version) {
            return Ok(parts);
        }
        let mark = self.datasets.versions.mark();
        let row = self.version_row(dir, version).await?;
        let mut begin = row.base;
        let mut parts = Vec::new();
        if version > row.base
            && let Some(before) = self.datasets.versions.get(dir, version - 1)
        {
            parts = before.as_ref().clone();
            begin = version;
        }
        parts.extend(self.parts_of_versions(dir, begin, version).await?);
        let parts = Arc::new(parts);
        self.datasets.versions.keep(mark, dir, version, &parts);
        Ok(parts)
    }

    /// The parts of a version, in order, as the rows are now.
    pub(super) async fn read_version_parts(&self, dir: Ino, version: u64) -> Result<Vec<Part>> {
        let row = self.version_row(dir, version).await?;
        self.parts_of_versions(dir, row.base, version).await
    }

    /// The parts that these versions added, in order.
    async fn parts_of_versions(&self, dir: Ino, begin: u64, version: u64) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let range = rows::version_key(dir, begin)..rows::version_key(dir, version + 1);
        for (_, entry) in self.scan_range(range).await? {
            let row: VersionRow = rows::decode(&entry.value)?;
            parts.extend(self.session_parts(&SessionId(row.session)).await?);
        }
        Ok(parts)
    }

    /// The parts of a published session, in the order of its version.
    pub(super) async fn session_parts(&self, session: &SessionId) -> Result<Vec<Part>> {
        let rows = self.part_rows(session).await?;
        let mut parts: Vec<NewPart> = rows
            .iter()
            .filter_map(|(number, row)| NewPart::of_row(*number, row))
            .collect();
        parts.sort_by_key(NewPart::order);
        let part = |(position, part): (usize, NewPart)| Part {
            session: session.clone(),
            number: part.number,
            position,
            ended: part.ended.ended,
            ino: part.ended.ino,
            generation: part.ended.generation,
            format: part.ended.format,
            rows: part.ended.rows,
            batches: part.ended.batches,
            bytes: part.ended.bytes,
        };
        Ok(parts.into_iter().enumerate().map(part).collect())
    }

    /// What an old version keeps of a part without a name.
    pub(super) async fn retired(&self, session: &SessionId, number: u32) -> Result<Option<RetiredRow>> {
        let key = rows::retired_key(&session.0, number);
        let entry = self.components.meta.get(&[key]).await?.pop().flatten();
        entry.map(|entry| rows::decode(&entry.value)).transpose()
    }

    /// Adds to the plan that removes a directory what makes its dataset go, all versions. Then [`Inner::dataset_gone`].
    pub(crate) async fn plan_dataset_removed(&self, plan: &mut Plan, dir: Ino) -> Result<DatasetGone> {
        let was = self.head_entry(dir).await?.is_some();
        if was {
            plan.delete(rows::head_key(dir))
                .put(rows::sweep_key(dir), rows::encode(&()));
        }
        Ok(DatasetGone { was })
    }

    /// After the commit.
    pub(crate) fn dataset_gone(&self, gone: DatasetGone) {
        if gone.was {
            self.datasets.sweep.notify_one();
        }
    }

    /// Sweeps whenever there is something, for as long as the cache runs; prunes the rows of aborted sessions now and then.
    pub(super) async fn sweep_for_ever(self: &Arc<Self>) {
        let shutdown = self.tasks.shutdown().clone();
        loop {
            if let Err(error) = self.sweep_all().await {
                tracing::warn!(%error, "sweeping old versions failed; trying again");
            }
            if let Err(error) = self.prune_aborted().await {
                tracing::warn!(%error, "pruning aborted sessions failed; trying again");
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.datasets.sweep.notified() => {}
                () = self.components.clock.sleep(SWEEP_RETRY) => {}
            }
        }
    }

    /// Sweeps every dataset that has something to sweep.
    pub(super) async fn sweep_all(self: &Arc<Self>) -> Result<()> {
        for (key, entry) in self.scan_all(Key::from_static(&[table::SWEEP])).await? {
            let dir = key.last_chunk::<8>().map(|bytes| Ino(u64::from_be_bytes(*bytes)));
            let dir = dir.ok_or_else(|| Error::data_loss("metastore: a sweep's key makes no sense"))?;
            let _entered = self.enter()?;
            self.sweep(dir).await?;
            // A publish meanwhile wrote the row anew: then there is more to do.
            let mut plan = Plan::default();
            plan.check(Check::At(key.clone(), entry.version)).delete(key);
            match self.commit(plan).await {
                Ok(_) => {}
                Err(error) if error.is_lost() => self.datasets.sweep.notify_one(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes away the names of overwritten parts, and the chains before the oldest kept version.
    pub(super) async fn sweep(self: &Arc<Self>, dir: Ino) -> Result<()> {
        let head = self.head_entry(dir).await?.map(|(head, _)| head);
        let (needed_from, head_base) = match &head {
            Some(head) => (
                self.version_row(dir, head.oldest).await?.base,
                self.version_row(dir, head.version).await?.base,
            ),
            None => (u64::MAX, u64::MAX),
        };
        let path = self.names.path_of(dir).await?.filter(|_| head.is_some());
        let all = rows::version_key(dir, 0)..rows::version_key(dir, head_base);
        for (key, entry) in self.scan_range(all).await? {
            let row: VersionRow = rows::decode(&entry.value)?;
            let session = SessionId(row.session);
            let dropped = version_of(&key)? < needed_from;
            let parts = self.session_parts(&session).await?;
            for step in parts.chunks(SWEEP_PARTS) {
                self.sweep_parts(path.as_ref(), step, dropped).await?;
            }
            if dropped {
                self.drop_version(dir, key, &session).await?;
            }
        }
        Ok(())
    }

    async fn sweep_parts(self: &Arc<Self>, dir: Option<&Path>, parts: &[Part], dropped: bool) -> Result<()> {
        let mut attempts = self.attempts("sweep");
        loop {
            match self.try_sweep(dir, parts, dropped).await {
                Ok(()) => return Ok(()),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// One transaction: names go; with `dropped` also what was kept for old versions.
    async fn try_sweep(self: &Arc<Self>, dir: Option<&Path>, parts: &[Part], dropped: bool) -> Result<()> {
        let mut planner = self.names.planner();
        let (mut removed, mut copies, mut freed) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            if let Some(row) = self.retired(&part.session, part.number).await? {
                freed.extend(dropped.then(|| (rows::retired_key(&part.session.0, part.number), row)));
                continue;
            }
            let Some(name) = dir.map(|dir| dir.join(&part.name())).transpose()? else {
                continue;
            };
            let named = planner.resolve(&name).await?.is_some_and(|node| part.is(&node));
            if named && let Some(old) = self.old_part(part, name, (!dropped).then_some(&mut copies)).await? {
                let unlinked = planner.unlink(&old.name).await?;
                removed.push((old, unlinked));
            }
        }
        let mut plan = planner.finish()?;
        let (mut gone, mut adopted) = (Vec::new(), Vec::new());
        for (old, unlinked) in removed {
            self.persist
                .plan_removed(&mut plan, &unlinked.node, &old.name, unlinked.whiteout.as_ref())
                .await?;
            let retired = if dropped {
                Retired::Gone
            } else {
                self.plan_retire(&mut plan, &old, &unlinked.node)?
            };
            match retired {
                Retired::Gone => gone.push(unlinked.node),
                Retired::Adopted(bytes) => adopted.push(bytes),
                Retired::Kept | Retired::Copied => {}
            }
        }
        for (key, _) in &freed {
            plan.delete(key.clone());
        }
        for part in parts.iter().filter(|_| dropped) {
            plan.delete(rows::part_key(&part.session.0, part.number));
        }
        if !plan.is_empty() {
            self.commit(plan).await?;
        }
        copies.into_iter().for_each(SealedContent::keep);
        adopted.iter().for_each(|bytes| self.dirty.adopt(1, *bytes));
        gone.iter().for_each(|node| self.discard_node(node));
        for (_, row) in freed {
            let stream = StreamId(row.ino, row.generation);
            self.dirty.settle(1, row.bytes);
            self.dirty.forget(stream);
            self.segments.release(stream, &row.layout);
        }
        self.persist.wake();
        Ok(())
    }

    /// The rows of a version without parts any more, and of the session that made it.
    async fn drop_version(&self, dir: Ino, key: Key, session: &SessionId) -> Result<()> {
        self.delete_parts(session).await?;
        self.datasets.versions.forget(dir, version_of(&key)?);
        self.datasets.schemas.invalidate(&session.0);
        let mut plan = Plan::default();
        plan.delete(key).delete(rows::published_key(&session.0));
        self.commit(plan).await.map(drop)
    }

    /// Forgets sessions that were aborted long ago.
    async fn prune_aborted(&self) -> Result<()> {
        let now = self.components.clock.now();
        let all = self.scan_all(Key::from_static(&[table::SESSION, b'a'])).await?;
        let mut aborted = Vec::new();
        for (key, entry) in all {
            let row: SessionRow = rows::decode(&entry.value)?;
            if let Some(SessionEnd::Aborted { at, .. }) = row.end {
                aborted.push((at, key));
            }
        }
        aborted.sort_unstable();
        let beyond = aborted.len().saturating_sub(ABORTED_MAX);
        for (k, (at, key)) in aborted.into_iter().enumerate() {
            if k >= beyond && now.since(Timestamp(at)) < ABORTED_KEPT {
                return Ok(());
            }
            let session = SessionId(String::from_utf8_lossy(&key[2..]).into_owned());
            self.delete_parts(&session).await?;
            let mut plan = Plan::default();
            plan.delete(key);
            self.commit(plan).await?;
        }
        Ok(())
    }
}
