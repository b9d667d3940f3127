//! Persist: the under-store becomes what was acknowledged.
//!
//! `plan` turns a change of names into rows of the queue, in the transaction of that change. `tracker` orders them. `run` takes
//! one after the other and hands it to `put` (with `convert`, `upload`, `attributes` and `publish`), `clear`, `overwritten`, or
//! `tree`. `withhold` is what policies keep back, `troubled` what can not go, `resolve` what people ask, `asked` what a restart
//! must remember of that; `late` keeps out what a store carries out late; `markers` are of empty directories; `backlog` sums up what each
//! mount has yet to get.
//!
//! # Consistency
//!
//! A piece of work names an inode and generation, never a path. Its target is resolved when it is claimed and again in the
//! transaction that records it, which holds only if the inode still lies there. Every key at which something of ours is or may
//! be is a *place* of exactly one row; a row is done when its content is at its target and all other places are empty. So a file
//! that was overwritten, renamed or deleted while it was on its way leaves nothing stray: whoever took over its row answers
//! for its places. Only one piece of work acts on a key at a time.
//!
//! What is at the target must be what we last knew there (validator), else it is a *conflict*: kept, reported, never overwritten.
//! That something is gone which we were to replace is none. Where a store can not check atomically, the window is one
//! round trip; the front page of its module says so. Files that tell others that a directory is complete (`_SUCCESS`,
//! `_metadata`, `_delta_log/*`, manifests) wait for everything older under their root. Staging names wait for their rename.
//!
//! # Retries
//!
//! Without end. A store that is away pauses its whole mount, from a quarter of a second up to 15 s, one request at a time
//! finding out. What the store refuses (no permission, no bucket, too large) is *blocked*: shown with its reason, tried again
//! every half minute, in the way of nothing but its own path. Nothing is ever dropped.
//!
//! # Cancellation
//!
//! A shutdown lets what runs end or be cut; nothing depends on its ending. A rename, overwrite or delete does not wait for an
//! upload under way: it changes the row, and the upload's record then fails its check.
//!
//! # Completion
//!
//! [`crate::Cache::wait_persisted`] waits for rows, so removals and renames count. Held staging names do not: they are no one's
//! promise yet. A write of level `persisted` waits the same way.
//!
//! # Crash Consistency
//!
//! 1. *Claimed*: the row says at which key an object with which token may appear, durably, before the first byte leaves
//!    (`intent-written`).
//! 2. *Visible*: the object is in the store, proven by HEAD with its size and token (`visible-not-recorded`).
//! 3. *Recorded*: one transaction makes the content clean and takes the row away (`recorded-not-trimmed`).
//!
//! Between 1 and 3 the next start asks the store: our token there means that it happened. An upload in parts that was under way
//! goes on with the parts that are noted as acknowledged, if its content is still to go there; else it is aborted, as it is where
//! nothing is noted of it. One that is gone at the store begins anew. Every step may be repeated.

mod asked;
mod attributes;
mod backlog;
mod clear;
mod convert;
mod late;
mod markers;
mod notes;
mod overwritten;
mod pack;
mod plan;
mod publish;
mod put;
mod resolve;
mod rules;
mod run;
mod tracker;
mod tree;
mod troubled;
mod upload;
mod withhold;

use self::{asked::Asked, backlog::Home, late::Late, markers::Markers, plan::Row, tracker::Tracker, upload::Partial};
use crate::{Components, PersistSettings, Result, Settings, mounts::Mounts};
use forebay_metastore::Version;
use forebay_runtime::clock::Timestamp;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

pub(crate) use attributes::look_alike;
pub(crate) use backlog::MountBacklog;
pub(crate) use plan::Unseen;
pub use resolve::Resolve;
pub(crate) use resolve::Waiting;
pub use troubled::{Blocked, Conflict};

/// How long a row that was planned is looked for: its transaction may come late, or never.
const TOUCHED_MAX: Duration = Duration::from_secs(120);

/// Handle of the persister.
#[derive(Debug)]
pub(crate) struct Persist {
    settings: PersistSettings,
    components: Components,
    mounts: Mounts,
    numbers_left: Mutex<Range<u64>>,
    takes_numbers: tokio::sync::Mutex<()>,
    tracker: Mutex<Tracker>,
    /// Rows that were planned or changed.
    touched: Mutex<HashMap<u64, Touched>>,
    /// Uploads in parts under way, by row.
    partials: Mutex<HashMap<u64, Partial>>,
    /// What is kept back no more because somebody asked for it.
    asked: Asked,
    late: Late,
    markers: Markers,
    wake: Notify,
    /// Runs that wait without working, and what tells of one more.
    aside: AtomicUsize,
    stepped: Notify,
    /// Grows whenever something was done: waiters look again.
    done: watch::Sender<u64>,
    persisted_bytes: AtomicU64,
    /// What all our tokens begin with.
    token_prefix: OnceLock<String>,
}

/// A row that was planned or changed, and is looked for.
#[derive(Clone, Copy, Debug)]
struct Touched {
    /// When (monotonic).
    at: Duration,
    /// The version that the plan replaces; while the row still has it, the commit is yet to come.
    over: Version,
    /// For which mount it is then, when the plan says so.
    home: Option<Home>,
}

/// Counts for `status`.
#[derive(Clone, Debug, Default)]
pub(crate) struct PersistNumbers {
    /// Pieces of work that wait.
    pub(crate) queued: u64,
    /// Pieces of work under way.
    pub(crate) uploading: u64,
    /// Bytes brought to stores since start.
    pub(crate) persisted_bytes: u64,
    /// When the oldest that waits was acknowledged.
    pub(crate) oldest: Option<Timestamp>,
    /// Pieces of work that a policy keeps back.
    pub(crate) withheld: u64,
    /// Pieces of work that were refused.
    pub(crate) blocked: u64,
    /// Pieces of work whose targets someone else changed.
    pub(crate) conflicts: u64,
}

impl Persist {
    pub(crate) fn new(settings: &Settings, components: &Components, mounts: &Mounts) -> Self {
        Self {
            settings: settings.persist.clone(),
            components: components.clone(),
            mounts: mounts.clone(),
            numbers_left: Mutex::new(0..0),
            takes_numbers: tokio::sync::Mutex::const_new(()),
            tracker: Mutex::default(),
            touched: Mutex::default(),
            partials: Mutex::default(),
            asked: Asked::default(),
            late: Late::default(),
            markers: Markers::default(),
            wake: Notify::new(),
            aside: AtomicUsize::new(0),
            stepped: Notify::new(),
            done: watch::Sender::new(0),
            persisted_bytes: AtomicU64::new(0),
            token_prefix: OnceLock::new(),
        }
    }

    /// After the commit: there is work.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// A row is being planned, or was changed: look for it.
    fn touch(&self, seq: u64) {
        self.touch_over(seq, Version(0));
    }

    /// A row is being planned in place of this version of it: look for it until another one is there. One that is seen before the
    /// commit must not settle it, or what is held, blocked or in conflict would never hear of the change.
    fn touch_over(&self, seq: u64, over: Version) {
        self.touch_for(seq, over, None);
    }

    /// The same of a row whose mount the plan knows.
    fn touch_for(&self, seq: u64, over: Version, home: Option<Home>) {
        let mut touched = self.touched.lock();
        let known = touched.get(&seq).copied();
        let over = over.max(known.map_or(Version(0), |known| known.over));
        let home = home.or(known.and_then(|known| known.home));
        let at = self.now();
        touched.insert(seq, Touched { at, over, home });
    }

    fn now(&self) -> Duration {
        self.components.clock.monotonic()
    }

    /// Takes in what was committed of the rows that were planned.
    pub(crate) async fn absorb(&self) -> Result<()> {
        let mut seqs: Vec<u64> = self.touched.lock().keys().copied().collect();
        seqs.sort_unstable();
        for chunk in seqs.chunks(512) {
            let keys: Vec<_> = chunk.iter().map(|seq| plan::work_key(*seq)).collect();
            let entries = self.components.meta.get(&keys).await?;
            let now = self.now();
            for (seq, entry) in chunk.iter().zip(entries) {
                let row = match entry {
                    Some(entry) => Some(Row {
                        seq: *seq,
                        version: entry.version,
                        work: crate::rows::decode(&entry.value)?,
                    }),
                    None => None,
                };
                self.take_in(*seq, row.as_ref(), now);
            }
        }
        Ok(())
    }

    fn take_in(&self, seq: u64, row: Option<&Row>, now: Duration) {
        let mut tracker = self.tracker.lock();
        let known = tracker.contains(seq);
        tracker.refresh(seq, row, now);
        drop(tracker);
        if known || row.is_some() {
            self.note_overwritten(seq, row);
        }
        let mut touched = self.touched.lock();
        let Some(Touched { at, over, home }) = touched.get(&seq).copied() else {
            return;
        };
        // Planned and not there, or there as it was before: not committed yet. Known and not there: done.
        let settled = row.map_or(known, |row| row.version > over);
        if let (true, Some(home)) = (settled && row.is_some(), home) {
            self.tracker.lock().set_home(seq, home);
        }
        if settled || now > at + TOUCHED_MAX {
            touched.remove(&seq);
            self.note_overwritten(seq, row);
        }
    }

    /// Something was done.
    fn progress(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    /// What a mount has yet to get.
    pub(crate) fn backlog(&self, mount: u32) -> MountBacklog {
        self.tracker.lock().backlog(mount)
    }

    /// The numbers now.
    pub(crate) fn numbers(&self) -> PersistNumbers {
        let tracker = self.tracker.lock();
        let (blocked, conflicts) = tracker.troubles();
        PersistNumbers {
            queued: tracker.len().saturating_sub(tracker.running() + tracker.withheld()) as u64,
            uploading: tracker.running() as u64,
            persisted_bytes: self.persisted_bytes.load(Ordering::Relaxed),
            oldest: tracker.oldest().map(Timestamp),
            withheld: tracker.withheld() as u64,
            blocked,
            conflicts,
        }
    }
}
