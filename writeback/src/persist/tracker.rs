//! The queue in memory: which work waits for what, and which may go next.
//!
//! It owns the order (oldest first, fair between mounts, urgent work before all), who answers for which key, who waits for whom,
//! and the pauses of mounts that are away. It does not own the rows, from which it is filled at start and refreshed after every
//! change, nor any effect. About 200 bytes per piece of work, and the keys of its places.

mod gathering;

use self::gathering::Gathering;
use super::{
    backlog::{Backlog, Home, MountBacklog},
    plan::Row,
};
use crate::rows::{Place, PlaceKind, WorkKind, WorkState};
use forebay_namespace::Path;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// First pause of a mount that is away; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// What is blocked is tried again after this.
pub(super) const BLOCKED_PAUSE: Duration = Duration::from_secs(30);
/// Runs in a row that may change nothing before a pause comes between them.
const IDLE_MAX: u32 = 8;
const IDLE_PAUSE: Duration = Duration::from_millis(20);
/// Such pauses differ by a step, so many of them.
const IDLE_STEP: Duration = Duration::from_micros(500);
const IDLE_STEPS: u64 = 61;
/// Longest chain of waits that is followed to find a cycle.
const CHAIN_MAX: usize = 1000;

/// A key of a mount.
pub(super) type At = (u32, String);

/// Where a piece of work stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// May go.
    Ready,
    /// Is under way.
    Running,
    /// Goes when that one is done or has moved on.
    Waiting(u64),
    /// A staging name: goes when a directory was renamed.
    Held,
    /// A policy keeps it back, until this monotonic time or until something lets it go.
    Withheld(Option<Duration>),
    /// Goes at this monotonic time.
    Later(Duration),
    /// Refused; goes again at this time. The path is the one at which it was tried.
    Blocked {
        path: Path,
        reason: String,
        since: i64,
        again: Duration,
    },
    /// Waits for a person.
    Conflict(Conflicted),
}

/// What is known of a conflict, which is at this key and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflicted {
    pub(super) mount: u32,
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) since: i64,
    pub(super) mine: String,
    pub(super) theirs: Option<String>,
    pub(super) seen: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Something was changed: look at the row again.
    Moved,
    /// Goes after that one.
    Wait(u64),
    /// A staging name.
    Held,
    /// A policy keeps it back, for so long or until something lets it go.
    Withheld(Option<Duration>),
    /// A policy keeps it back until what it keeps back from `root` on has come to `goal` bytes; or for so long.
    Gathers {
        root: Path,
        bytes: u64,
        goal: u64,
        time: Option<Duration>,
    },
    /// The store is away: the whole mount pauses.
    Away(u32, String),
    /// Again after a pause of its own.
    Soon(Duration),
    /// Refused.
    Blocked { path: Path, reason: String },
    /// The target is somebody else's.
    Conflict(Conflicted),
}

#[derive(Clone, Debug)]
struct Entry {
    what: WorkKind,
    since: i64,
    version: u64,
    phase: Phase,
    mount: u32,
    places: Vec<(At, PlaceKind)>,
    /// Whether it was about to write to one of them.
    claims_place: bool,
    /// The key at which its content lies, which must stay until it lies elsewhere.
    source: Option<At>,
    /// The key it is being written to.
    target: Option<At>,
    /// In a ring of waits: take over what the others only have to clear.
    unwind: bool,
    /// Changed while it ran.
    stale: bool,
    /// Has not run yet, so that its source is not known.
    unseen: bool,
    /// The tick at which its run began: what happened later, the run may not have seen.
    began: u64,
    /// The tick at which its last run ended.
    ended: u64,
    /// Runs in a row that changed nothing.
    idle: u32,
    home: Home,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Duration,
    next: Duration,
}

/// Which of those who answer for keys below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// All.
    Any,
    /// Those that need what lies there, or may.
    Needed,
    /// Those that are under way.
    Running,
    /// Those that need what lies there, or may, and older ones that are under way.
    Older,
}

/// What a claim of a key finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acquired {
    /// The key is the claimant's.
    Yes,
    /// Another one's.
    Owned(u64),
    /// Another one's, who waits for the claimant and does not need what lies there.
    TakeOver(u64),
}

/// What is older than a piece of work.
#[derive(Clone, Debug)]
pub(super) struct Before {
    /// Contents that a policy keeps back: their numbers and inodes.
    pub(super) withheld: Vec<(u64, u64)>,
    /// What is not kept back until something lets it go, oldest first.
    pub(super) older: Vec<Seen>,
    /// Whether `older` is all of that.
    pub(super) all: bool,
}

/// For people and waiters.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) seq: u64,
    pub(super) what: WorkKind,
    pub(super) since: i64,
    pub(super) held: bool,
    pub(super) withheld: bool,
    pub(super) places: Vec<(At, PlaceKind)>,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    entries: BTreeMap<u64, Entry>,
    ready: BTreeMap<u32, BTreeSet<u64>>,
    urgent: BTreeSet<u64>,
    later: BTreeSet<(Duration, u64)>,
    waiters: HashMap<u64, BTreeSet<u64>>,
    held: BTreeSet<u64>,
    withheld: BTreeSet<u64>,
    gathering: Gathering,
    troubled: BTreeSet<u64>,
    /// A directory was renamed or removed since it was last asked.
    directories_moved: bool,
    owners: BTreeMap<At, BTreeSet<u64>>,
    trees: BTreeMap<At, BTreeSet<u64>>,
    overwritten: BTreeMap<At, BTreeSet<u64>>,
    moves: BTreeSet<u64>,
    pauses: HashMap<u32, Pause>,
    running: usize,
    last_mount: u32,
    backlog: Backlog,
    /// Counts what runs may have missed.
    ticks: u64,
    /// The tick at which all that is held or kept back was last let go.
    let_go: u64,
}

impl Tracker {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// How many a policy keeps back.
    pub(super) fn withheld(&self) -> usize {
        self.withheld.len()
    }

    /// What is older than `seq`, at one instant: what is not seen to be kept back is seen to be on its way.
    pub(super) fn before(&self, seq: u64, limit: usize) -> Before {
        let content = |seq: &u64| match self.entries.get(seq)?.what {
            WorkKind::Put { ino, .. } => Some((*seq, ino)),
            _ => None,
        };
        let (older, all) = self.older_than(seq, limit);
        Before {
            withheld: self.withheld.range(..seq).filter_map(content).collect(),
            older,
            all,
        }
    }

    /// When the oldest was acknowledged.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.entries.values().take(64).map(|entry| entry.since).min()
    }

    /// What a mount has yet to get.
    pub(super) fn backlog(&self, mount: u32) -> MountBacklog {
        self.backlog.of(mount)
    }

    /// For which mount it is, as is known by now.
    pub(super) fn set_home(&mut self, seq: u64, home: Home) {
        let Some(entry) = self.entries.get_mut(&seq) else {
            return;
        };
        self.backlog.wait_no_more(entry.home, &entry.phase);
        self.backlog.leave(entry.home, entry.since, seq);
        entry.home = home;
        self.backlog.enter(home, entry.since, seq);
        self.backlog.wait(home, &entry.phase);
    }

    /// The same, unless it has become another piece, or somebody has said so since it was seen.
    pub(super) fn learn_home(&mut self, work: &Seen, home: Home) {
        let entry = self.entries.get(&work.seq);
        if entry.is_some_and(|entry| !entry.home.told && entry.what == work.what) {
            self.set_home(work.seq, home);
        }
    }

    /// Up to `limit` after `seq` of which nobody has said for which mount they are.
    pub(super) fn homeless(&self, seq: u64, limit: usize) -> Vec<Seen> {
        let after = self.entries.range(seq.saturating_add(1)..);
        let homeless = after.filter(|(_, entry)| !entry.home.told);
        homeless.take(limit).map(|(seq, entry)| seen(*seq, entry)).collect()
    }

    /// What waits for a person or was refused, oldest first.
    pub(super) fn troubled(&self) -> impl Iterator<Item = (Seen, &Phase)> {
        self.troubled.iter().filter_map(|seq| {
            let entry = self.entries.get(seq)?;
            Some((seen(*seq, entry), &entry.phase))
        })
    }

    /// How much of it was refused, and how much waits for a person.
    pub(super) fn troubles(&self) -> (u64, u64) {
        let waits = |seq: &&u64| {
            let phase = self.entries.get(*seq).map(|entry| &entry.phase);
            matches!(phase, Some(Phase::Conflict(_)))
        };
        let conflicts = self.troubled.iter().filter(waits).count();
        ((self.troubled.len() - conflicts) as u64, conflicts as u64)
    }

    /// Lets go what waits for a person or for its next try: what was found of it may not hold any more.
    pub(super) fn look_again(&mut self, seqs: &[u64]) {
        for seq in seqs {
            if self.troubled.contains(seq) {
                self.set_phase(*seq, Phase::Ready);
            }
        }
    }

    /// Whether there is what can not go, and a directory was renamed or removed since the last call: what lies in that has another path,
    /// or none.
    pub(super) fn take_directories_moved(&mut self) -> bool {
        std::mem::take(&mut self.directories_moved) && self.is_troubled()
    }

    /// Whether anything waits for a person or was refused.
    pub(super) fn is_troubled(&self) -> bool {
        !self.troubled.is_empty()
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.entries.contains_key(&seq)
    }

    pub(super) fn highest(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Everything, oldest first.
    pub(super) fn all(&self) -> Vec<Seen> {
        self.entries.iter().map(|(seq, entry)| seen(*seq, entry)).collect()
    }

    /// Up to `limit` that are older than `seq` and not kept back until something lets them go, oldest first, and whether these are all.
    fn older_than(&self, seq: u64, limit: usize) -> (Vec<Seen>, bool) {
        let mut older: Vec<Seen> = self
            .entries
            .range(..seq)
            .filter(|(_, entry)| entry.phase != Phase::Withheld(None))
            .take(limit + 1)
            .map(|(seq, entry)| seen(*seq, entry))
            .collect();
        let all = older.len() <= limit;
        older.truncate(limit);
        (older, all)
    }

    /// The row as it is in the metastore now; `None`: it is gone.
    pub(super) fn refresh(&mut self, seq: u64, row: Option<&Row>, now: Duration) {
        let Some(row) = row else { return self.remove(seq) };
        let is_move = matches!(row.work.what, WorkKind::MoveTree { .. });
        let is_tree = row.work.places.iter().any(|place| place.kind != PlaceKind::File);
        let mut fresh = entry_of(row);
        if let Some(old) = self.entries.get(&seq).filter(|old| old.what == fresh.what) {
            fresh.home = old.home;
        }
        match self.entries.get(&seq) {
            Some(old) if old.version >= fresh.version => return,
            Some(old) if old.phase == Phase::Running => {
                fresh.phase = Phase::Running;
                fresh.target = old.target.clone();
                fresh.mount = old.mount;
                fresh.began = old.began;
                fresh.stale = true;
                self.unindex(seq);
                self.entries.insert(seq, fresh);
                self.index(seq);
            }
            _ => {
                self.remove_quietly(seq);
                let phase = phase_of(row, now);
                fresh.phase = Phase::Running;
                self.entries.insert(seq, fresh);
                self.index(seq);
                self.set_phase(seq, phase);
                // Whoever waits for this one may find that the reason is gone.
                self.release_waiters(seq);
            }
        }
        self.directories_moved |= is_move || is_tree;
        if is_move {
            self.release_held();
            // What was kept back may lie under another policy now, and must not leave its old place behind.
            self.release_withheld(false);
        }
    }

    /// The row was written by the run itself: its places are its own from now on, and it is no reason to run again.
    pub(super) fn note_version(&mut self, seq: u64, row: &Row) {
        if self
            .entries
            .get(&seq)
            .is_none_or(|entry| entry.stale || entry.version > row.version.0)
        {
            return;
        }
        self.unindex(seq);
        if let Some(entry) = self.entries.get_mut(&seq) {
            let written = entry_of(row);
            (entry.what, entry.version, entry.places) = (written.what, written.version, written.places);
            entry.claims_place = written.claims_place;
        }
        self.index(seq);
    }

    fn remove(&mut self, seq: u64) {
        if self
            .entries
            .get(&seq)
            .is_some_and(|entry| entry.phase == Phase::Running)
        {
            // Its run ends by itself and finds the row gone.
            return;
        }
        self.remove_quietly(seq);
        self.release_waiters(seq);
    }

    fn remove_quietly(&mut self, seq: u64) {
        if !self.entries.contains_key(&seq) {
            return;
        }
        self.leave_phase(seq);
        self.unindex(seq);
        self.entries.remove(&seq);
        self.urgent.remove(&seq);
    }

    fn index(&mut self, seq: u64) {
        let Some(entry) = self.entries.get(&seq) else { return };
        self.backlog.enter(entry.home, entry.since, seq);
        if matches!(entry.what, WorkKind::MoveTree { .. }) {
            self.moves.insert(seq);
        }
        for (at, kind) in &entry.places {
            let map = match kind {
                PlaceKind::File => &mut self.owners,
                PlaceKind::Prune | PlaceKind::Tree => &mut self.trees,
                PlaceKind::Overwritten => &mut self.overwritten,
            };
            map.entry(at.clone()).or_default().insert(seq);
        }
        if let Some(target) = &entry.target {
            self.owners.entry(target.clone()).or_default().insert(seq);
        }
    }

    fn unindex(&mut self, seq: u64) {
        let Some(entry) = self.entries.get(&seq) else { return };
        self.backlog.leave(entry.home, entry.since, seq);
        self.moves.remove(&seq);
        let ats: Vec<At> = entry
            .places
            .iter()
            .map(|(at, _)| at.clone())
            .chain(entry.target.clone())
            .collect();
        for at in ats {
            for map in [&mut self.owners, &mut self.trees, &mut self.overwritten] {
                if let Some(owners) = map.get_mut(&at) {
                    owners.remove(&seq);
                    if owners.is_empty() {
                        map.remove(&at);
                    }
                }
            }
        }
    }

    fn leave_phase(&mut self, seq: u64) {
        let Some(entry) = self.entries.get(&seq) else { return };
        self.backlog.wait_no_more(entry.home, &entry.phase);
        match &entry.phase {
            Phase::Ready => {
                if let Some(ready) = self.ready.get_mut(&entry.mount) {
                    ready.remove(&seq);
                    if ready.is_empty() {
                        self.ready.remove(&entry.mount);
                    }
                }
            }
            Phase::Running => {}
            Phase::Waiting(on) => {
                if let Some(waiters) = self.waiters.get_mut(on) {
                    waiters.remove(&seq);
                }
            }
            Phase::Held => {
                self.held.remove(&seq);
            }
            Phase::Withheld(until) => {
                self.withheld.remove(&seq);
                self.gathering.remove(seq);
                if let Some(until) = until {
                    self.later.remove(&(*until, seq));
                }
            }
            Phase::Later(at) => {
                self.later.remove(&(*at, seq));
            }
            Phase::Blocked { again, .. } => {
                self.later.remove(&(*again, seq));
                self.troubled.remove(&seq);
            }
            Phase::Conflict(_) => {
                self.troubled.remove(&seq);
            }
        }
    }

    fn set_phase(&mut self, seq: u64, phase: Phase) {
        self.leave_phase(seq);
        let Some(entry) = self.entries.get_mut(&seq) else {
            return;
        };
        entry.phase = phase.clone();
        self.backlog.wait(entry.home, &phase);
        let mount = entry.mount;
        match phase {
            Phase::Ready => {
                self.ready.entry(mount).or_default().insert(seq);
            }
            Phase::Running => {}
            Phase::Waiting(on) => {
                self.waiters.entry(on).or_default().insert(seq);
            }
            Phase::Held => {
                self.held.insert(seq);
            }
            Phase::Withheld(until) => {
                self.withheld.insert(seq);
                self.later.extend(until.map(|until| (until, seq)));
            }
            Phase::Later(at) => {
                self.later.insert((at, seq));
            }
            Phase::Blocked { again, .. } => {
                self.later.insert((again, seq));
                self.troubled.insert(seq);
            }
            Phase::Conflict(_) => {
                self.troubled.insert(seq);
            }
        }
    }

    fn release_waiters(&mut self, seq: u64) {
        for waiter in self.waiters.remove(&seq).unwrap_or_default() {
            self.set_phase(waiter, Phase::Ready);
        }
    }

    fn release_directories(&mut self, seq: u64) {
        let waiters = self.waiters.get(&seq).cloned().unwrap_or_default();
        for waiter in waiters {
            if self
                .entries
                .get(&waiter)
                .is_some_and(|entry| !matches!(entry.what, WorkKind::Put { .. }))
            {
                self.set_phase(waiter, Phase::Ready);
            }
        }
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    fn release_held(&mut self) {
        self.let_go = self.tick();
        for seq in std::mem::take(&mut self.held) {
            self.set_phase(seq, Phase::Ready);
        }
    }

    /// Lets go what policies keep back; `timed`: only what is kept for a time or a size.
    pub(super) fn release_withheld(&mut self, timed: bool) {
        if !timed {
            self.let_go = self.tick();
        }
        let goes = |seq: &u64| {
            let phase = self.entries.get(seq).map(|entry| &entry.phase);
            !timed || matches!(phase, Some(Phase::Withheld(Some(_)))) || self.gathering.contains(*seq)
        };
        let goes: Vec<u64> = self.withheld.iter().copied().filter(goes).collect();
        for seq in goes {
            self.set_phase(seq, Phase::Ready);
        }
    }

    /// Whether it goes before everything else.
    pub(super) fn is_urgent(&self, seq: u64) -> bool {
        self.urgent.contains(&seq)
    }

    /// Lets go what was to wait until now.
    pub(super) fn release_due(&mut self, now: Duration) {
        while let Some((at, seq)) = self.later.first().copied() {
            if at > now {
                break;
            }
            self.set_phase(seq, Phase::Ready);
            self.later.remove(&(at, seq));
        }
    }

    /// When something becomes due by itself.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let paused = self
            .ready
            .keys()
            .filter_map(|mount| self.pauses.get(mount))
            .map(|pause| pause.until);
        self.later.first().map(|(at, _)| *at).into_iter().chain(paused).min()
    }

    /// Before everything else, whatever held it up but a conflict.
    pub(super) fn urge(&mut self, seqs: &[u64]) {
        for seq in seqs {
            let Some(entry) = self.entries.get(seq) else { continue };
            self.urgent.insert(*seq);
            if matches!(
                entry.phase,
                Phase::Later(_) | Phase::Withheld(_) | Phase::Blocked { .. }
            ) {
                self.set_phase(*seq, Phase::Ready);
            }
        }
    }

    /// The next to run, which counts as running from now on.
    pub(super) fn next(&mut self, now: Duration) -> Option<u64> {
        let paused = |mount: &u32| self.pauses.get(mount).is_some_and(|pause| pause.until > now);
        let urgent = self.urgent.iter().find(|seq| {
            self.entries
                .get(seq)
                .is_some_and(|entry| entry.phase == Phase::Ready && !paused(&entry.mount))
        });
        let seq = match urgent.copied() {
            Some(seq) => seq,
            None => {
                // The mounts take turns, in the order of their numbers.
                let after = self.ready.range(self.last_mount.saturating_add(1)..);
                let mount = after
                    .chain(self.ready.range(..=self.last_mount))
                    .map(|(mount, _)| *mount)
                    .find(|m| !paused(m))?;
                self.last_mount = mount;
                *self.ready.get(&mount)?.first()?
            }
        };
        self.set_phase(seq, Phase::Running);
        self.running += 1;
        let began = self.ticks;
        if let Some(entry) = self.entries.get_mut(&seq) {
            (entry.stale, entry.began) = (false, began);
        }
        Some(seq)
    }

    /// Whether `seq` is in a ring of waits that it was told to leave.
    pub(super) fn unwinds(&self, seq: u64) -> bool {
        self.entries.get(&seq).is_some_and(|entry| entry.unwind)
    }

    /// Notes where the content of `seq` lies, when it is not dirty.
    pub(super) fn set_source(&mut self, seq: u64, source: Option<At>) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.source = source;
            entry.unseen = false;
        }
    }

    /// Takes a key for a write. It is the claimant's until its run ends or its row says so.
    pub(super) fn acquire(&mut self, seq: u64, at: &At) -> Acquired {
        if let Some(other) = self.tree_over(seq, at, true) {
            return Acquired::Owned(other);
        }
        // A directory that is to go from the key goes first: a folder can not have both, and a look finds the directory.
        let directory = self.trees.get(at).into_iter().flatten().find(|other| **other != seq);
        if let Some(other) = directory.filter(|_| !self.unwinds(seq)) {
            return Acquired::Owned(*other);
        }
        let others = self.owners.get(at).into_iter().flatten().copied();
        if let Some(other) = others.into_iter().find(|owner| *owner != seq) {
            let unwinds = self.unwinds(seq);
            let free = self
                .entries
                .get(&other)
                .is_none_or(|other| matches!(other.phase, Phase::Waiting(_)) && other.source.as_ref() != Some(at));
            return if unwinds && free {
                Acquired::TakeOver(other)
            } else {
                Acquired::Owned(other)
            };
        }
        self.unindex(seq);
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.target = Some(at.clone());
            entry.mount = at.0;
        }
        self.index(seq);
        Acquired::Yes
    }

    /// Another one's tree that covers the key. `in_doubt`: only one that would remove the object, or has not yet said what is
    /// there; directories that are merely pruned leave objects alone.
    pub(super) fn tree_over(&self, seq: u64, at: &At, in_doubt: bool) -> Option<u64> {
        let mut key = at.1.as_str();
        loop {
            let tree: At = (at.0, key.to_owned());
            let over = self.trees.get(&tree).into_iter().flatten().copied();
            if let Some(other) = over
                .into_iter()
                .find(|other| *other != seq && (!in_doubt || self.claims(*other, &tree)))
            {
                return Some(other);
            }
            if key.is_empty() {
                return None;
            }
            key = key.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }

    /// A directory whose content is still to be moved, at or above this key.
    pub(super) fn move_over(&self, seq: u64, at: &At) -> Option<u64> {
        let over = |move_of: &u64| {
            let places = self
                .entries
                .get(move_of)
                .map(|entry| entry.places.as_slice())
                .unwrap_or_default();
            places.iter().any(|((mount, key), _)| {
                let rest = at.1.strip_prefix(key.as_str());
                *mount == at.0 && rest.is_some_and(|rest| rest.is_empty() || key.is_empty() || rest.starts_with('/'))
            })
        };
        self.moves.iter().copied().find(|other| *other != seq && over(other))
    }

    /// Whether the tree of `seq` may hold objects that nobody else answers for.
    fn claims(&self, seq: u64, tree: &At) -> bool {
        let Some(entry) = self.entries.get(&seq) else {
            return false;
        };
        let whole = entry
            .places
            .iter()
            .any(|(at, kind)| at == tree && *kind == PlaceKind::Tree);
        whole || matches!(entry.what, WorkKind::MoveTree { .. })
    }

    /// Another one that answers for a key at or below this one.
    pub(super) fn owner_below(&self, seq: u64, at: &At, which: Below) -> Option<u64> {
        let below = format!("{}/", at.1);
        // Pruning a directory does not touch an object that has its very name.
        let exact = self
            .owners
            .get(at)
            .filter(|_| which != Below::Any)
            .into_iter()
            .flatten();
        let from = (at.0, if at.1.is_empty() { String::new() } else { below.clone() });
        let range = self.owners.range(from..);
        let inside =
            range.take_while(|((mount, key), _)| *mount == at.0 && (at.1.is_empty() || key.starts_with(&below)));
        exact
            .chain(inside.flat_map(|(_, owners)| owners))
            .copied()
            .find(|owner| {
                let Some(entry) = self.entries.get(owner) else {
                    return false;
                };
                let runs = entry.phase == Phase::Running;
                *owner != seq
                    && match which {
                        Below::Any => true,
                        Below::Needed => runs || entry.source.is_some() || entry.unseen,
                        Below::Running => runs,
                        Below::Older => runs && *owner < seq || entry.source.is_some() || entry.unseen,
                    }
            })
    }

    /// Others that answer for keys below this one and were about to write to one of theirs.
    pub(super) fn claimants_below(&self, seq: u64, at: &At) -> BTreeSet<u64> {
        let below = format!("{}/", at.1);
        let inside = self.owners.range((at.0, below.clone())..);
        let inside = inside.take_while(|((mount, key), _)| *mount == at.0 && key.starts_with(&below));
        let claims = |owner: &u64| *owner != seq && self.entries.get(owner).is_some_and(|entry| entry.claims_place);
        inside.flat_map(|(_, owners)| owners).copied().filter(claims).collect()
    }

    /// Whether it is under way.
    pub(super) fn runs(&self, seq: u64) -> bool {
        self.entries
            .get(&seq)
            .is_some_and(|entry| entry.phase == Phase::Running)
    }

    /// Another one that answers for exactly this key, and for whom `seq`, which only clears it, has to wait.
    pub(super) fn owner_before(&self, seq: u64, at: &At) -> Option<u64> {
        self.owners.get(at)?.iter().copied().find(|owner| {
            let clears = self
                .entries
                .get(owner)
                .is_some_and(|entry| entry.what == WorkKind::Clear);
            *owner != seq && (!clears || *owner < seq)
        })
    }

    /// Another one whose run is just writing to exactly this key. Its row may be gone already, taken over with all its places.
    pub(super) fn writer_at(&self, seq: u64, at: &At) -> Option<u64> {
        let writes = |entry: &Entry| entry.phase == Phase::Running && entry.target.as_ref() == Some(at);
        let owners = self.owners.get(at)?.iter().copied();
        owners
            .filter(|owner| *owner != seq)
            .find(|owner| self.entries.get(owner).is_some_and(writes))
    }

    /// Whether another one answers for exactly this key too, as a file or as a directory.
    pub(super) fn shares(&self, seq: u64, at: &At) -> bool {
        let here = self.owners.get(at).into_iter().chain(self.trees.get(at)).flatten();
        here.into_iter().any(|other| *other != seq)
    }

    /// Another one that answers for a directory below this key.
    pub(super) fn tree_below(&self, seq: u64, at: &At) -> Option<u64> {
        let below = format!("{}/", at.1);
        let inside = self.trees.range((at.0, below.clone())..);
        let inside = inside.take_while(|((mount, key), _)| *mount == at.0 && key.starts_with(&below));
        inside
            .flat_map(|(_, owners)| owners)
            .copied()
            .find(|owner| *owner != seq)
    }

    /// Another one that answers for what was overwritten unseen in a directory at or below this key.
    pub(super) fn overwritten_from(&self, seq: u64, at: &At) -> Option<u64> {
        let below = format!("{}/", at.1);
        let inside = self.overwritten.range((at.0, below.clone())..);
        let inside = inside.take_while(|((mount, key), _)| *mount == at.0 && key.starts_with(&below));
        let here = self.overwritten.get(at).into_iter();
        here.chain(inside.map(|(_, owners)| owners))
            .flatten()
            .copied()
            .find(|owner| *owner != seq)
    }

    /// Others that move the same directory.
    pub(super) fn moves_of(&self, seq: u64, ino: u64) -> Vec<u64> {
        let of = |entry: &Entry| matches!(entry.what, WorkKind::MoveTree { ino: of } if of == ino);
        self.moves
            .iter()
            .filter(|other| **other != seq && self.entries.get(other).is_some_and(of))
            .copied()
            .collect()
    }

    /// A directory whose content, at or below this key, is still to be moved.
    pub(super) fn move_below(&self, seq: u64, at: &At) -> Option<u64> {
        let below = format!("{}/", at.1);
        let inside = self.trees.range(at.clone()..).take_while(|((mount, key), _)| {
            *mount == at.0 && (*key == at.1 || key.starts_with(&below) || *key < below)
        });
        let moves = |owner: &u64| {
            self.entries
                .get(owner)
                .is_some_and(|entry| matches!(entry.what, WorkKind::MoveTree { .. }))
        };
        inside
            .filter(|((_, key), _)| *key == at.1 || key.starts_with(&below))
            .flat_map(|(_, owners)| owners)
            .copied()
            .find(|owner| *owner != seq && moves(owner))
    }

    /// The run of `seq` is over.
    pub(super) fn finish(&mut self, seq: u64, outcome: Outcome, now: Duration) {
        self.running = self.running.saturating_sub(1);
        let ended = self.tick();
        self.unindex(seq);
        if let Some(entry) = self.entries.get_mut(&seq) {
            (entry.target, entry.ended) = (None, ended);
        }
        self.index(seq);
        let entry = self.entries.get(&seq);
        let stale = entry.is_some_and(|entry| entry.stale);
        let mount = entry.map_or(0, |entry| entry.mount);
        let began = entry.map_or(0, |entry| entry.began);
        let let_go = began < self.let_go;
        // Who waits for others has not asked the store, and does not know that it is back.
        if !matches!(
            outcome,
            Outcome::Away(..) | Outcome::Wait(_) | Outcome::Held | Outcome::Withheld(_) | Outcome::Gathers { .. }
        ) {
            self.pauses.remove(&mount);
        }
        let gathers = match &outcome {
            Outcome::Gathers { root, bytes, goal, .. } => Some((root.clone(), *bytes, *goal)),
            _ => None,
        };
        // A store that is away pauses its whole mount; that is pause enough.
        let away = matches!(outcome, Outcome::Away(..));
        let phase = match outcome {
            // The row was changed under it: what the run found no longer counts.
            _ if stale => Phase::Ready,
            Outcome::Moved => Phase::Ready,
            // It was on its way when it was seen, and is kept back now: nobody may let it go but who waits for it.
            Outcome::Wait(on) if self.kept_back_since(on, began) => Phase::Ready,
            Outcome::Wait(on) if self.entries.contains_key(&on) => Phase::Waiting(on),
            Outcome::Wait(_) => Phase::Ready,
            // The directory it lies in may have got another name while it ran.
            Outcome::Held if let_go => Phase::Ready,
            Outcome::Held => Phase::Held,
            // It was asked for, or let go, while it ran.
            Outcome::Withheld(_) | Outcome::Gathers { .. } if let_go || self.urgent.contains(&seq) => Phase::Ready,
            Outcome::Withheld(time) | Outcome::Gathers { time, .. } => {
                Phase::Withheld(time.map(|time| now.saturating_add(time)))
            }
            Outcome::Away(mount, _) => {
                self.pause(mount, now);
                Phase::Ready
            }
            Outcome::Soon(pause) => Phase::Later(now + pause),
            Outcome::Blocked { path, reason } => Phase::Blocked {
                path,
                reason,
                since: 0,
                again: now + BLOCKED_PAUSE,
            },
            Outcome::Conflict(conflict) => Phase::Conflict(conflict),
        };
        let phase = if away { phase } else { self.not_idle(seq, phase, now) };
        let waits = matches!(phase, Phase::Waiting(_));
        let withheld = matches!(phase, Phase::Withheld(_));
        if !waits && let Some(entry) = self.entries.get_mut(&seq) {
            entry.unwind = false;
        }
        self.set_phase(seq, phase);
        if waits {
            // It is not under way any more, for which directories wait. What waits for its keys would only see the same again.
            self.release_directories(seq);
            self.unwind_ring(seq);
        } else {
            self.release_waiters(seq);
        }
        if let Some((root, bytes, goal)) = gathers.filter(|_| withheld) {
            let together = self.gathering.add(seq, root, bytes, goal);
            self.urge(&together);
        }
    }

    /// Whether a run that ended after this tick found that it is kept back.
    fn kept_back_since(&self, seq: u64, tick: u64) -> bool {
        self.entries
            .get(&seq)
            .is_some_and(|entry| entry.ended > tick && matches!(entry.phase, Phase::Held | Phase::Withheld(_)))
    }

    /// A run that changes nothing must not follow itself at once, whatever sets it off: after a few it pauses, and not in step with
    /// another one, for two that let each other go first would find each other there for ever.
    fn not_idle(&mut self, seq: u64, phase: Phase, now: Duration) -> Phase {
        let Some(entry) = self.entries.get_mut(&seq) else {
            return phase;
        };
        entry.idle = entry.idle.saturating_add(1);
        match phase {
            Phase::Ready | Phase::Waiting(_) if entry.idle > IDLE_MAX => {
                let step = IDLE_STEP * u32::try_from(seq % IDLE_STEPS).unwrap_or(0);
                Phase::Later(now + IDLE_PAUSE * (entry.idle - IDLE_MAX).min(50) + step)
            }
            phase => phase,
        }
    }

    /// Since when it has been blocked or in conflict; kept over further tries.
    pub(super) fn set_since(&mut self, seq: u64, at: i64) {
        if let Some(Entry {
            phase: Phase::Blocked { since, .. } | Phase::Conflict(Conflicted { since, .. }),
            ..
        }) = self.entries.get_mut(&seq)
        {
            *since = at;
        }
    }

    fn pause(&mut self, mount: u32, now: Duration) {
        let pause = self.pauses.entry(mount).or_insert(Pause {
            until: now,
            next: PAUSE_FIRST,
        });
        if pause.until <= now {
            // A quarter off or on, by the clock's last digits: mounts do not come back in step.
            let jitter = pause.next / 4 * u32::try_from(now.as_micros() % 4).unwrap_or(0) / 4;
            pause.until = now + pause.next * 3 / 4 + jitter;
            pause.next = (pause.next * 2).min(PAUSE_MAX);
        }
    }

    /// First everyone whose content lies at a place brings it home, so that nobody needs what lies at the others' places; then
    /// the oldest alone goes on and takes over the place it is to be written to.
    fn unwind(&mut self, ring: &[u64]) {
        let is_put = |entry: &Entry| matches!(entry.what, WorkKind::Put { .. });
        let mut next: Vec<u64> = ring
            .iter()
            .filter(|seq| self.entries.get(seq).is_some_and(|entry| entry.source.is_some()))
            .copied()
            .collect();
        if next.is_empty() {
            next.extend(
                ring.iter()
                    .filter(|seq| self.entries.get(seq).is_some_and(is_put))
                    .min(),
            );
        }
        for seq in next {
            if let Some(entry) = self.entries.get_mut(&seq) {
                entry.unwind = true;
            }
            self.set_phase(seq, Phase::Later(Duration::ZERO));
        }
    }

    /// Where waits form a ring through `seq`, it is unwound.
    fn unwind_ring(&mut self, seq: u64) {
        let mut ring = vec![seq];
        let mut at = seq;
        while let Some(Entry {
            phase: Phase::Waiting(on),
            ..
        }) = self.entries.get(&at)
        {
            at = *on;
            if at == seq {
                self.unwind(&ring);
                return;
            }
            if ring.len() >= CHAIN_MAX || ring.contains(&at) {
                return;
            }
            ring.push(at);
        }
    }
}

fn seen(seq: u64, entry: &Entry) -> Seen {
    Seen {
        seq,
        what: entry.what.clone(),
        since: entry.since,
        held: entry.phase == Phase::Held,
        withheld: matches!(entry.phase, Phase::Withheld(_)),
        places: entry.places.clone(),
    }
}

fn entry_of(row: &Row) -> Entry {
    let places: Vec<(At, PlaceKind)> = row
        .work
        .places
        .iter()
        .map(|place| ((place.mount, place.key.clone()), place.kind))
        .collect();
    let mount = places.first().map_or(0, |((mount, _), _)| *mount);
    Entry {
        what: row.work.what.clone(),
        since: row.work.since,
        version: row.version.0,
        phase: Phase::Ready,
        mount,
        places,
        claims_place: row.work.places.iter().any(Place::is_claimed),
        source: None,
        target: None,
        unwind: false,
        stale: false,
        unseen: matches!(row.work.what, WorkKind::Put { .. }),
        began: 0,
        ended: 0,
        idle: 0,
        home: Home {
            mount,
            bytes: 0,
            // What only clears places is for their mount.
            told: row.work.what == WorkKind::Clear,
        },
    }
}

fn phase_of(row: &Row, _now: Duration) -> Phase {
    match &row.work.state {
        // After a restart it is tried at once.
        WorkState::Queued | WorkState::Blocked { .. } => Phase::Ready,
        WorkState::Conflict {
            reason,
            since,
            key,
            theirs,
            seen,
        } => {
            let mut places = row.work.places.iter();
            let Some(place) = places.find(|place| place.key == *key) else {
                // In which mount that was is not known any more: it is found anew.
                return Phase::Ready;
            };
            Phase::Conflict(Conflicted {
                mount: place.mount,
                key: key.clone(),
                reason: reason.clone(),
                since: *since,
                mine: mine(&row.work.what),
                theirs: theirs.clone(),
                seen: seen.clone(),
            })
        }
    }
}

/// What we want there, for people.
pub(super) fn mine(what: &WorkKind) -> String {
    match what {
        WorkKind::Put { ino, generation } => format!("content {ino}.{generation}"),
        WorkKind::Clear => "deleted".into(),
        WorkKind::MakeDir { .. } | WorkKind::MoveTree { .. } => "directory".into(),
    }
}

#[cfg(test)]
mod tests;
