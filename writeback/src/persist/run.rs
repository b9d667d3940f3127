//! The loop: takes in what was committed, starts what may go, and notes how it ended.

use super::{
    Persist,
    notes::Named,
    plan::{Row, work_key},
    tracker::{At, Conflicted, Outcome, mine},
};
use crate::{
    Result,
    cache::Inner,
    rows::{self, Work, WorkKind, WorkState, table},
};
use forebay_metastore::{Check, prefix_end};
use forebay_namespace::Plan;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;

/// The loop looks around at least this often.
const TICK_MAX: Duration = Duration::from_secs(1);
/// What comes within this is taken in together: looking for work costs more than what a small file's commit does.
const GATHER: Duration = Duration::from_millis(5);
/// Pause after the metastore failed.
const META_PAUSE: Duration = Duration::from_secs(1);
/// Rows read at once at start.
const PAGE: usize = 1000;

impl Inner {
    /// Reads the queue and starts the persister.
    pub(crate) async fn start_persist(self: &Arc<Self>) -> Result<()> {
        let cluster: Option<[u8; 16]> = match self
            .components
            .meta
            .get(&[rows::meta_key("cluster")])
            .await?
            .pop()
            .flatten()
        {
            Some(entry) => Some(rows::decode(&entry.value)?),
            None => None,
        };
        let id = cluster.unwrap_or_default();
        let prefix: String = id[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        // Set once: a second start in one process would be of the same store.
        let _ = self.persist.token_prefix.set(prefix);
        let named = self.read_queue().await?;
        self.read_asked().await?;
        self.read_markers().await?;
        self.sweep_notes(&named).await;
        self.learn_homes();
        for mount in self.mounts.all().iter() {
            let (inner, id) = (Arc::clone(self), mount.id);
            self.tasks
                .spawn("probe", async move { inner.probe_until_ready(id).await });
        }
        let inner = Arc::clone(self);
        self.tasks.spawn("persist", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.persist_for_ever() => {}
            }
        });
        Ok(())
    }

    /// Answers the uploads that its places name.
    async fn read_queue(&self) -> Result<Named> {
        let mut named = Named::default();
        let end = prefix_end(&[table::WORK]);
        let mut from: forebay_metastore::Key = vec![table::WORK].into();
        loop {
            let page = self.components.meta.scan(from.clone()..end.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(named);
            };
            from = [last.as_ref(), &[0]].concat().into();
            let now = self.persist.now();
            for (key, entry) in page {
                let seq = key
                    .get(1..9)
                    .and_then(|seq| seq.try_into().ok())
                    .map(u64::from_be_bytes);
                let Some(seq) = seq else { continue };
                let row = Row {
                    seq,
                    version: entry.version,
                    work: rows::decode(&entry.value)?,
                };
                named.add(&row);
                // It may have been sent in an earlier life.
                for place in row.work.places.iter().filter(|place| place.is_claimed()) {
                    self.persist.late.given_up((place.mount, place.key.clone()));
                }
                self.persist.tracker.lock().refresh(seq, Some(&row), now);
                self.persist.note_overwritten(seq, Some(&row));
            }
        }
    }

    async fn probe_until_ready(self: Arc<Self>, mount: u32) {
        let shutdown = self.tasks.shutdown().clone();
        let mut pause = Duration::from_secs(1);
        while !self.probe(mount).await {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.components.clock.sleep(pause) => {}
            }
            pause = (pause * 2).min(Duration::from_secs(60));
        }
    }

    async fn persist_for_ever(self: &Arc<Self>) {
        let persist = &self.persist;
        let (ended, mut endings) = mpsc::unbounded_channel();
        loop {
            if let Err(error) = persist.absorb().await {
                tracing::warn!(%error, "the persister can not read its queue; trying again");
                persist.components.clock.sleep(META_PAUSE).await;
                continue;
            }
            self.look_after_moves().await;
            self.start_ready(&ended);
            let due = persist
                .tracker
                .lock()
                .next_due()
                .map(|due| due.saturating_sub(persist.now()));
            let pause = due.unwrap_or(TICK_MAX).clamp(Duration::from_millis(1), TICK_MAX);
            tokio::select! {
               biased;
                ending = endings.recv() => {
                    let Some((seq, outcome)) = ending else { return };
                    self.note_end(seq, outcome).await;
                    while let Ok((seq, outcome)) = endings.try_recv() {
                        self.note_end(seq, outcome).await;
                    }
                }
                () = persist.stepped.notified() => {}
                () = persist.wake.notified() => persist.components.clock.sleep(GATHER).await,
                () = persist.components.clock.sleep(pause) => {}
            }
        }
    }

    fn start_ready(self: &Arc<Self>, ended: &mpsc::UnboundedSender<(u64, Outcome)>) {
        let persist = &self.persist;
        let now = persist.now();
        let pressed = self.is_pressed();
        let mut tracker = persist.tracker.lock();
        tracker.release_due(now);
        if pressed {
            tracker.release_withheld(true);
        }
        drop(tracker);
        // Asked again each time: what has just been started may have stepped aside.
        let may_run = || persist.settings.files_parallel.max(1) + persist.aside.load(Ordering::Relaxed);
        while persist.tracker.lock().running() < may_run() {
            let Some(seq) = persist.tracker.lock().next(now) else {
                return;
            };
            // The guard tells the loop also when the task panics.
            let report = Report {
                seq,
                ended: ended.clone(),
                outcome: Some(Outcome::Soon(META_PAUSE)),
            };
            let inner = Arc::clone(self);
            self.tasks.spawn("persist-one", async move {
                let mut report = report;
                let shutdown = inner.tasks.shutdown().clone();
                let outcome = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => Outcome::Soon(META_PAUSE),
                    outcome = inner.persist_one(seq) => outcome,
                };
                report.outcome = Some(outcome);
            });
        }
    }

    /// One run of one piece of work, as far as it goes.
    async fn persist_one(self: &Arc<Self>, seq: u64) -> Outcome {
        match self.try_persist(seq).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_lost() => Outcome::Moved,
            Err(error) => {
                tracing::warn!(seq, %error, "a piece of work failed inside; trying again");
                Outcome::Soon(META_PAUSE)
            }
        }
    }

    async fn try_persist(self: &Arc<Self>, seq: u64) -> Result<Outcome> {
        let Some(row) = self.persist.read_row(seq).await? else {
            return Ok(Outcome::Moved);
        };
        match row.work.what.clone() {
            WorkKind::Put { ino, generation } => self.put(row, ino, generation).await,
            WorkKind::Clear => self.clear_places(row).await,
            WorkKind::MakeDir { ino } => self.make_dir(row, ino).await,
            WorkKind::MoveTree { ino } => self.move_tree(row, ino).await,
        }
    }

    async fn note_end(&self, seq: u64, outcome: Outcome) {
        let persist = &self.persist;
        tracing::trace!(seq, ?outcome, "a run ended");
        if let Outcome::Away(mount, reason) = &outcome
            && let Some(mount) = self.mounts.by_id(*mount)
        {
            mount.health.note_away(reason);
            tracing::debug!(mount = %mount.path, reason, "under-store away");
        }
        let since = match self.note_state(seq, &outcome).await {
            Ok(since) => since,
            Err(error) => {
                tracing::debug!(seq, %error, "the state of a piece of work was not kept");
                persist.components.clock.now().0
            }
        };
        let row = persist.read_row(seq).await;
        let now = persist.now();
        let mut tracker = persist.tracker.lock();
        tracker.finish(seq, outcome, now);
        tracker.set_since(seq, since);
        match row {
            Ok(row) => {
                tracker.refresh(seq, row.as_ref(), now);
                persist.note_overwritten(seq, row.as_ref());
            }
            Err(_) => persist.touch(seq),
        }
        drop(tracker);
        persist.progress();
    }

    /// What was found stays visible over a restart. Answers since when.
    async fn note_state(&self, seq: u64, outcome: &Outcome) -> Result<i64> {
        let now = self.components.clock.now().0;
        if !matches!(outcome, Outcome::Blocked { .. } | Outcome::Conflict(_)) {
            return Ok(now);
        }
        let Some(row) = self.persist.read_row(seq).await? else {
            return Ok(now);
        };
        let (state, since) = match (outcome, &row.work.state) {
            (Outcome::Blocked { reason, .. }, WorkState::Blocked { since, .. }) => (
                WorkState::Blocked {
                    reason: reason.clone(),
                    since: *since,
                },
                *since,
            ),
            (Outcome::Blocked { path, reason }, _) => {
                tracing::error!(
                    %path,
                    reason,
                    "blocked: the under-store refuses it; it is tried again, but a person should look"
                );
                (
                    WorkState::Blocked {
                        reason: reason.clone(),
                        since: now,
                    },
                    now,
                )
            }
            (Outcome::Conflict(conflict), known) => {
                tracing::error!(
                    path = self.conflict_path(conflict).map(tracing::field::display),
                    reason = conflict.reason,
                    "conflict: waits for `persist retry|keep-mine|keep-theirs`"
                );
                let Conflicted {
                    reason,
                    key,
                    theirs,
                    seen,
                    ..
                } = conflict.clone();
                let since = match known {
                    WorkState::Conflict { key: before, since, .. } if *before == key => *since,
                    _ => conflict.since,
                };
                (
                    WorkState::Conflict {
                        reason,
                        since,
                        key,
                        theirs,
                        seen,
                    },
                    since,
                )
            }
            _ => return Ok(now),
        };
        if state != row.work.state {
            let work = Work {
                state,
                ..row.work.clone()
            };
            let version = self.persist_row(&row, &work).await?;
            // What was found is what the row says now: no reason to run again.
            let fresh = Row { seq, version, work };
            self.persist.tracker.lock().note_version(seq, &fresh);
        }
        Ok(since)
    }

    /// Writes a row as it shall be, if it still is as it was read.
    pub(super) async fn persist_row(&self, row: &Row, work: &Work) -> Result<forebay_metastore::Version> {
        let key = work_key(row.seq);
        let mut plan = Plan::default();
        plan.check(Check::At(key.clone(), row.version))
            .put(key, rows::encode(work));
        Ok(self.commit(plan).await?.version)
    }

    /// A conflict at the key `at`.
    pub(super) fn conflict(
        &self,
        row: &Row,
        at: At,
        reason: &str,
        theirs: Option<&forebay_understore::Found>,
    ) -> Outcome {
        let seen = match theirs {
            Some(found) if found.is_dir => "a directory".to_owned(),
            Some(found) => format!("{} bytes, {}", found.size, found.validator.0),
            None => "nothing".to_owned(),
        };
        Outcome::Conflict(Conflicted {
            mount: at.0,
            key: at.1,
            reason: reason.to_owned(),
            since: self.components.clock.now().0,
            mine: mine(&row.work.what),
            theirs: theirs.map(|found| found.validator.0.clone()),
            seen,
        })
    }
}

/// Tells the loop that a run is over, however it ends.
struct Report {
    seq: u64,
    ended: mpsc::UnboundedSender<(u64, Outcome)>,
    outcome: Option<Outcome>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Outcome::Soon(META_PAUSE));
        // At shutdown nobody listens any more.
        let _ = self.ended.send((self.seq, outcome));
    }
}

impl Persist {
    /// What all our tokens begin with.
    pub(super) fn token_prefix(&self) -> &str {
        self.token_prefix.get().map_or("forebay", String::as_str)
    }
}
