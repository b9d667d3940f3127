//! What people ask of the persister: hurry, wait, decide.

use super::{
    plan::{named, with_work, work_key},
    rules,
    tracker::{Conflicted, Seen},
    troubled::{Trouble, Troubled},
};
use crate::{
    Cache, Error, Result,
    cache::Inner,
    rows::{self, Content, PlaceKind, WorkKind, WorkState},
};
use forebay_metastore::Check;
use forebay_namespace::{Ino, Kind, Path, Plan};
use std::{sync::Arc, time::Duration};

/// Work that is named when a wait ends too early.
const NAMED_MAX: usize = 3;
/// Rows that one call queues at once.
const QUEUE_PAGE: usize = 100;

/// How to resolve a blocked item or a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// Try again now.
    Retry,
    /// Ours replaces theirs.
    KeepMine,
    /// Theirs stays, ours is dropped.
    KeepTheirs,
}

/// Pieces of work that wait for a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Those that go by themselves.
    pub(crate) goes: u64,
    /// Those of staging names, which wait for their rename.
    pub(crate) held: u64,
}

impl Cache {
    /// Persists what lies under `path` before everything else, whatever policies keep back; a restart remembers it. Answers at once.
    /// Precondition when no mount covers it.
    pub async fn persist(&self, path: &Path) -> Result<()> {
        self.inner.check_covered(path)?;
        self.inner.remember_asked(path).await?;
        self.urge(path).await
    }

    async fn urge(&self, path: &Path) -> Result<()> {
        let inner = &self.inner;
        inner.persist.absorb().await?;
        let seqs: Vec<u64> = inner
            .work_under(path, u64::MAX, i64::MAX)
            .await?
            .iter()
            .map(|work| work.seq)
            .collect();
        inner.persist.tracker.lock().urge(&seqs);
        inner.persist.wake();
        Ok(())
    }

    /// Waits until all that was acknowledged under `path` before this call is in the under-store, removals and renames too.
    /// Deadline after `timeout`, naming what still waits; Precondition when no mount covers it.
    pub async fn wait_persisted(&self, path: &Path, timeout: Duration) -> Result<()> {
        let inner = &self.inner;
        inner.check_covered(path)?;
        let waited = tokio::select! {
           biased;
            waited = inner.wait_for_work(path) => Some(waited),
            () = inner.components.clock.sleep(timeout) => None,
        };
        match waited {
            Some(waited) => waited,
            None => Err(Error::deadline(inner.still_waiting(path, timeout).await)),
        }
    }

    /// Both: whatever a policy keeps back goes, and this waits for it.
    pub(crate) async fn persist_now(&self, path: &Path, timeout: Duration) -> Result<()> {
        self.inner.check_covered(path)?;
        self.urge(path).await?;
        self.wait_persisted(path, timeout).await
    }

    /// Resolves what is blocked or in conflict at `path` and below.
    ///
    /// # Errors
    /// NotFound when nothing is; Precondition when a side is to be chosen of what is merely blocked; Unavailable when the conflict is
    /// just being looked at again.
    pub async fn persist_resolve(&self, path: &Path, how: Resolve) -> Result<()> {
        let inner = &self.inner;
        let _entered = inner.enter()?;
        inner.persist.absorb().await?;
        let mut troubled = inner.troubled().await;
        troubled.retain(|found| found.path.starts_with(path));
        if troubled.is_empty() {
            return inner.resolve_untold(path, how).await;
        }
        if how != Resolve::Retry {
            let decided = |found: &Troubled| matches!(found.trouble, Trouble::Conflict(_));
            if let Some(Troubled {
                path,
                trouble: Trouble::Blocked { reason, .. },
                ..
            }) = troubled.first().filter(|_| !troubled.iter().any(decided))
            {
                return Err(no_sides(path, reason));
            }
            troubled.retain(decided);
        }
        for Troubled { seq, trouble, .. } in troubled {
            let conflict = match trouble {
                Trouble::Conflict(conflict) => Some(conflict),
                Trouble::Blocked { .. } => None,
            };
            let inner = Arc::clone(inner);
            let resolve = {
                let inner = Arc::clone(&inner);
                async move { inner.resolve_one(seq, conflict, how).await }
            };
            inner.to_the_end("persist-resolve", resolve).await?;
        }
        Ok(())
    }
}

impl Inner {
    fn check_covered(&self, path: &Path) -> Result<()> {
        if self.mounts.resolve(path).is_some() || !self.mounts.below(path).is_empty() {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "{path}: no under-store is mounted there; `under add` binds one"
        )))
    }

    async fn wait_for_work(&self, path: &Path) -> Result<()> {
        self.persist.absorb().await?;
        let (highest, now) = (self.persist.tracker.lock().highest(), self.components.clock.now().0);
        let mut done = self.persist.done.subscribe();
        loop {
            self.persist.absorb().await?;
            let mut left = self.work_under(path, highest, now).await?;
            if left.is_empty() {
                return Ok(());
            }
            self.check_goes(&left).await?;
            // Until one of these is done a further look would see the same.
            while left.iter().all(|work| self.persist.tracker.lock().contains(work.seq)) {
                if done.changed().await.is_err() {
                    return Err(Error::unavailable("the persister has ended"));
                }
                if left.len() > 64 {
                    left.retain(|work| self.persist.tracker.lock().contains(work.seq));
                    if left.is_empty() {
                        break;
                    }
                } else if left.iter().any(|work| !self.persist.tracker.lock().contains(work.seq)) {
                    break;
                } else {
                    // Held by a staging name, or moved out of the path: look again.
                    break;
                }
            }
        }
    }

    /// What waits under `path`: whatever ends there, comes from there, or is removed there. Only what was there when `highest`
    /// was the newest number, or is older than `since`.
    async fn work_under(&self, path: &Path, highest: u64, since: i64) -> Result<Vec<Seen>> {
        let all = self.persist.tracker.lock().all();
        let mut under = Vec::new();
        for work in all {
            if !work.held && (work.seq <= highest || work.since <= since) && self.is_under(&work, path).await? {
                under.push(work);
            }
        }
        Ok(under)
    }

    /// What waits for this mount: whatever ends in it, comes from it, or is removed from it.
    pub(crate) async fn waiting_on(&self, mount: u32) -> Result<Waiting> {
        self.persist.absorb().await?;
        let all = self.persist.tracker.lock().all();
        let mut waiting = Waiting::default();
        for work in all {
            let here = work.places.iter().any(|((of, _), _)| *of == mount) || self.ends_in(&work, mount).await?;
            match here {
                true if work.held => waiting.held += 1,
                true => waiting.goes += 1,
                false => {}
            }
        }
        Ok(waiting)
    }

    async fn ends_in(&self, work: &Seen, mount: u32) -> Result<bool> {
        let at = self.path_of_work(work).await?;
        let of = at.and_then(|at| self.mounts.resolve(&at));
        Ok(of.is_some_and(|(of, _)| of.id == mount))
    }

    /// Where a piece of work ends: the present path of what it names. What it names may be another inode by now, when a file was
    /// written anew or became another one: its row knows.
    pub(super) async fn path_of_work(&self, work: &Seen) -> Result<Option<Path>> {
        let Some(ino) = named(&work.what) else { return Ok(None) };
        if let Some(path) = self.names.path_of(ino).await? {
            return Ok(Some(path));
        }
        let row = self.persist.read_row(work.seq).await?;
        match row.and_then(|row| named(&row.work.what)).filter(|now| *now != ino) {
            Some(now) => Ok(self.names.path_of(now).await?),
            None => Ok(None),
        }
    }

    async fn is_under(&self, work: &Seen, path: &Path) -> Result<bool> {
        for ((mount, key), kind) in &work.places {
            let at = self.mounts.by_id(*mount).and_then(|mount| mount.path_of(key).ok());
            let over = |at: &Path| *kind != PlaceKind::File && path.starts_with(at);
            if at.is_some_and(|at| at.starts_with(path) || over(&at)) {
                return Ok(true);
            }
        }
        let Some(at) = self.path_of_work(work).await? else {
            return Ok(false);
        };
        let is_tree = matches!(work.what, WorkKind::MoveTree { .. });
        Ok(!rules::is_staging(&at) && (at.starts_with(path) || is_tree && path.starts_with(&at)))
    }

    async fn still_waiting(&self, path: &Path, timeout: Duration) -> String {
        let left = self.work_under(path, u64::MAX, i64::MAX).await.unwrap_or_default();
        let mut names = Vec::new();
        for work in left.iter().take(NAMED_MAX) {
            names.push(self.name_of_work(work).await);
        }
        let numbers = self.persist.numbers();
        let more = if left.len() > NAMED_MAX {
            format!(" and {} more", left.len() - NAMED_MAX)
        } else {
            String::new()
        };
        let trouble = match (numbers.blocked, numbers.conflicts) {
            (0, 0) => String::new(),
            (blocked, conflicts) => format!("; {blocked} blocked and {conflicts} in conflict in all (see `status`)"),
        };
        format!(
            "{path}: not persisted within {timeout:?}: {}{more}{trouble}",
            names.join(", ")
        )
    }

    async fn name_of_work(&self, work: &Seen) -> String {
        if let Ok(Some(path)) = self.path_of_work(work).await {
            return path.to_string();
        }
        let place = work.places.first();
        let path = place.and_then(|((mount, key), _)| self.mounts.by_id(*mount)?.path_of(key).ok());
        path.map_or_else(
            || "a change without a name".into(),
            |path| format!("the removal of {path}"),
        )
    }

    /// What is just being tried again can not go either, as far as anyone knows; only nothing shows it meanwhile.
    async fn resolve_untold(&self, path: &Path, how: Resolve) -> Result<()> {
        let mut again = Vec::new();
        for work in self.work_under(path, u64::MAX, i64::MAX).await? {
            let row = self.persist.read_row(work.seq).await?;
            match (how, row.map(|row| row.work.state)) {
                (_, None | Some(WorkState::Queued)) => {}
                (Resolve::Retry, Some(WorkState::Blocked { .. } | WorkState::Conflict { .. })) => again.push(work.seq),
                (_, Some(WorkState::Blocked { reason, .. })) => return Err(no_sides(path, &reason)),
                (_, Some(WorkState::Conflict { .. })) => {
                    return Err(Error::unavailable(format!(
                        "{path}: the conflict there is just being looked at again; try again"
                    )));
                }
            }
        }
        if again.is_empty() {
            return Err(Error::not_found(format!(
                "{path}: nothing is blocked or in conflict there"
            )));
        }
        self.persist.tracker.lock().urge(&again);
        self.persist.wake();
        Ok(())
    }

    async fn resolve_one(self: &Arc<Self>, seq: u64, conflict: Option<Conflicted>, how: Resolve) -> Result<()> {
        let mut attempts = self.attempts("persist-resolve");
        loop {
            match self.try_resolve(seq, conflict.as_ref(), how).await {
                Ok(()) => break,
                Err(error) => attempts.after(error).await?,
            }
        }
        let row = self.persist.read_row(seq).await?;
        self.persist.take_in(seq, row.as_ref(), self.persist.now());
        self.persist.tracker.lock().urge(&[seq]);
        self.persist.wake();
        Ok(())
    }

    async fn try_resolve(&self, seq: u64, conflict: Option<&Conflicted>, how: Resolve) -> Result<()> {
        let Some(row) = self.persist.read_row(seq).await? else {
            return Ok(());
        };
        // What is blocked is tried again as it is, and stays so until something comes of it.
        let Some(conflict) = conflict else { return Ok(()) };
        let mut work = row.work.clone();
        work.state = WorkState::Queued;
        match how {
            Resolve::KeepTheirs => return self.keep_theirs(&row, conflict).await,
            Resolve::KeepMine => {
                let target = (conflict.mount, &conflict.key);
                match work.places.iter_mut().find(|place| (place.mount, &place.key) == target) {
                    Some(place) if matches!(place.kind, PlaceKind::File | PlaceKind::Overwritten) => {
                        place.holds = conflict.theirs.clone();
                    }
                    // Everything that is there by now goes too.
                    Some(_) => work.since = self.components.clock.now().0,
                    None => {
                        work.places.push(rows::Place::file(
                            conflict.mount,
                            conflict.key.clone(),
                            conflict.theirs.clone(),
                        ));
                    }
                }
            }
            Resolve::Retry => {}
        }
        self.persist_row(&row, &work).await?;
        Ok(())
    }

    /// Ours is dropped: a file loses its name to theirs, a removal is forgotten.
    async fn keep_theirs(&self, row: &super::Row, conflict: &Conflicted) -> Result<()> {
        let key = work_key(row.seq);
        let mut work = row.work.clone();
        work.places
            .retain(|place| (place.mount, &place.key) != (conflict.mount, &conflict.key));
        work.state = WorkState::Queued;
        let at = self.conflict_path(conflict);
        let mut dropped = None;
        let mut plan = match work.what {
            WorkKind::Put { ino, .. } => {
                work.what = WorkKind::Clear;
                match self.names.path_of(Ino(ino)).await? {
                    Some(path) => {
                        let unlinked = self.names.plan_unlink(&path).await?;
                        dropped = Some(unlinked.node);
                        unlinked.plan
                    }
                    None => Plan::default(),
                }
            }
            _ => Plan::default(),
        };
        plan.check(Check::At(key.clone(), row.version));
        if work.places.is_empty() {
            plan.delete(key);
        } else {
            plan.put(key, rows::encode(&work));
        }
        self.commit(plan).await?;
        if let Some(node) = dropped {
            self.discard_node(&node);
        }
        if let Some(at) = at {
            self.mounts.changed_all();
            if let Some(forget) = self.names.plan_forget_whiteout(&at).await? {
                self.commit(forget).await?;
            }
        }
        Ok(())
    }

    /// Queues what lies in the mount at `path` already and belongs to no store yet: the mount has come. The store is asked nothing, so it
    /// may be away.
    pub(crate) async fn queue_below(&self, path: &Path) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.names.inodes(after, QUEUE_PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let mut inos = Vec::new();
            for (ino, _) in page {
                let at = self.names.path_of(ino).await?.filter(|at| at != path);
                let mount = at.and_then(|at| self.mounts.resolve(&at));
                if mount.is_some_and(|(mount, _)| mount.path == *path) {
                    inos.push(ino);
                }
            }
            let mut attempts = self.attempts(format!("queue {path}"));
            loop {
                match self.try_queue(&inos).await {
                    Ok(()) => break,
                    Err(error) => attempts.after(error).await?,
                }
            }
        }
        self.persist.absorb().await?;
        self.persist.wake();
        Ok(())
    }

    async fn try_queue(&self, inos: &[Ino]) -> Result<()> {
        let mut planner = self.names.planner();
        let mut work = Vec::new();
        for ino in inos {
            let Some((inode, _)) = planner.inode(*ino).await? else {
                continue;
            };
            let what = match inode.kind {
                Kind::Dir { .. } => WorkKind::MakeDir { ino: ino.0 },
                Kind::Symlink(_) | Kind::Special { .. } => continue,
                Kind::File => WorkKind::Put {
                    ino: ino.0,
                    generation: inode.generation,
                },
            };
            let seq = self.persist.number().await?;
            if inode.kind == Kind::File {
                let content = Content::decode(&inode.content)?;
                if !matches!(content, Content::Sealed { work: None, .. }) {
                    continue;
                }
                let (content, ctime) = (with_work(content, Some(seq)).encode(), inode.ctime);
                planner
                    .update(*ino, |inode| (inode.content, inode.ctime) = (content, ctime))
                    .await?;
            }
            let since = self.components.clock.now().0;
            work.push((
                seq,
                rows::Work {
                    what,
                    since,
                    state: WorkState::Queued,
                    places: Vec::new(),
                },
            ));
        }
        let mut plan = planner.finish()?;
        for (seq, work) in work {
            plan.put(work_key(seq), rows::encode(&work));
            self.persist.touch(seq);
        }
        if plan.is_empty() {
            return Ok(());
        }
        self.commit(plan).await?;
        Ok(())
    }
}

/// A side was chosen of what has but one.
fn no_sides(path: &Path, reason: &str) -> Error {
    Error::precondition(format!(
        "{path}: is blocked, not in conflict, so there are no two sides to choose from: {reason}; mend that and `retry`, or delete it"
    ))
}
