//! What can not go, by the names that it has now: what was refused, and what someone else changed.
//!
//! A piece of work names an inode and never a path, and so does its trouble: people see, and ask for, the path that the inode has at
//! that moment. A conflict is at one key of a store; when the file that was to go there has another path by now, or none, the conflict
//! says nothing of it any more, and the work runs again and finds out anew. It does not own what is done about trouble (`resolve`), nor
//! when it is tried again (`tracker`).

use super::tracker::{Conflicted, Phase, Seen};
use crate::{cache::Inner, rows::WorkKind};
use forebay_namespace::Path;
use forebay_runtime::clock::Timestamp;

/// Pieces of work whose present path is looked up when somebody asks. Of what comes behind them the path is told at which they were
/// tried last, which is half a minute ago at most.
const LOOKED_UP_MAX: usize = 1000;

/// An item that can not go, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Its path.
    pub path: Path,
    /// The store's answer.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A target that someone else changed, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its path.
    pub path: Path,
    /// Since when.
    pub since: Timestamp,
    /// What happened.
    pub reason: String,
    /// What we would write, or `deleted`.
    pub mine: String,
    /// What is there (size and validator), or `nothing`.
    pub theirs: String,
}

/// A piece of work that can not go.
#[derive(Clone, Debug)]
pub(super) struct Troubled {
    pub(super) seq: u64,
    pub(super) path: Path,
    pub(super) trouble: Trouble,
}

/// Why it can not.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    Blocked { reason: String, since: i64 },
    Conflict(Conflicted),
}

impl Inner {
    /// What was refused and what is in conflict, oldest first.
    pub(crate) async fn blocked_and_conflicts(&self) -> (Vec<Blocked>, Vec<Conflict>) {
        let (mut blocked, mut conflicts) = (Vec::new(), Vec::new());
        for Troubled { path, trouble, .. } in self.troubled().await {
            match trouble {
                Trouble::Blocked { reason, since } => blocked.push(Blocked {
                    path,
                    reason,
                    since: Timestamp(since),
                }),
                Trouble::Conflict(conflict) => conflicts.push(Conflict {
                    path,
                    since: Timestamp(conflict.since),
                    reason: conflict.reason,
                    mine: conflict.mine,
                    theirs: conflict.seen,
                }),
            }
        }
        (blocked, conflicts)
    }

    /// The same, as pieces of work. What was found at another path than the work has now runs again.
    pub(super) async fn troubled(&self) -> Vec<Troubled> {
        if !self.persist.tracker.lock().is_troubled() {
            return Vec::new();
        }
        if let Err(error) = self.persist.absorb().await {
            tracing::debug!(%error, "what was changed last is not seen yet");
        }
        let found: Vec<(Seen, Option<Path>, Trouble)> = {
            let tracker = self.persist.tracker.lock();
            let found = tracker.troubled().filter_map(|(work, phase)| self.told(work, phase));
            found.collect()
        };
        let (mut troubled, mut moved) = (Vec::with_capacity(found.len()), Vec::new());
        for (k, (work, found_at, trouble)) in found.into_iter().enumerate() {
            // Its mount is gone, and it with that.
            let Some(found_at) = found_at else {
                moved.push(work.seq);
                continue;
            };
            let now = match k < LOOKED_UP_MAX {
                true => self.trouble_path(&work, &found_at).await,
                false => Some(found_at.clone()),
            };
            if now.as_ref() != Some(&found_at) {
                moved.push(work.seq);
            }
            let conflicts = matches!(trouble, Trouble::Conflict(_));
            troubled.extend(now.filter(|now| !conflicts || *now == found_at).map(|path| Troubled {
                seq: work.seq,
                path,
                trouble,
            }));
        }
        if !moved.is_empty() {
            self.persist.tracker.lock().look_again(&moved);
            self.persist.wake();
        }
        troubled
    }

    /// After a directory was renamed or removed: what can not go and lay in it is looked at again.
    pub(super) async fn look_after_moves(&self) {
        let moved = self.persist.tracker.lock().take_directories_moved();
        if moved {
            self.troubled().await;
        }
    }

    /// The path at which a conflict is; `None` when its mount is gone.
    pub(super) fn conflict_path(&self, conflict: &Conflicted) -> Option<Path> {
        self.mounts.by_id(conflict.mount)?.path_of(&conflict.key).ok()
    }

    fn told(&self, work: Seen, phase: &Phase) -> Option<(Seen, Option<Path>, Trouble)> {
        match phase {
            Phase::Blocked {
                path, reason, since, ..
            } => {
                let (reason, since) = (reason.clone(), *since);
                Some((work, Some(path.clone()), Trouble::Blocked { reason, since }))
            }
            Phase::Conflict(conflict) => {
                let at = self.conflict_path(conflict);
                Some((work, at, Trouble::Conflict(conflict.clone())))
            }
            _ => None,
        }
    }

    /// The path of it now; `None` when it has none any more.
    async fn trouble_path(&self, work: &Seen, found_at: &Path) -> Option<Path> {
        // What is to be cleared names a place in a store.
        if work.what == WorkKind::Clear {
            return Some(found_at.clone());
        }
        self.path_of_work(work).await.unwrap_or_else(|error| {
            tracing::debug!(%error, path = %found_at, "the present path of what can not go is not known");
            Some(found_at.clone())
        })
    }
}
