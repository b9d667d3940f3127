//! Who may change a name now, and who may still change anything: commits to one path take turns, and a shutdown waits for
//! those that are under way.

use crate::{Error, Result};
use forebay_namespace::Path;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{OwnedMutexGuard, watch};

/// One turn at a time for each path, in the order of asking. It holds as many entries as there are turns.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    paths: Mutex<HashMap<Path, Arc<tokio::sync::Mutex<()>>>>,
}

/// A turn; the next one begins when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    path: Path,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn at `path`.
    pub(crate) async fn take(&self, path: &Path) -> Turn<'_> {
        let mutex = Arc::clone(self.paths.lock().entry(path.clone()).or_default());
        // From here on dropping the future cleans up like dropping the turn.
        let mut turn = Turn {
            turns: self,
            path: path.clone(),
            guard: None,
        };
        turn.guard = Some(mutex.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut paths = self.turns.paths.lock();
        // Those who wait hold the mutex too; the last one takes the entry away.
        if paths.get(&self.path).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            paths.remove(&self.path);
        }
    }
}

/// Counts the changes under way; closed at shutdown.
#[derive(Debug)]
pub(crate) struct Gate {
    state: watch::Sender<GateState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct GateState {
    closed: bool,
    inside: u64,
}

/// A change under way.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    gate: &'a Gate,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            state: watch::Sender::new(GateState::default()),
        }
    }
}

impl Gate {
    /// Unavailable once the cache shuts down.
    pub(crate) fn enter(&self) -> Result<Entered<'_>> {
        let mut open = false;
        self.state.send_if_modified(|state| {
            open = !state.closed;
            state.inside += u64::from(open);
            open
        });
        if open {
            Ok(Entered { gate: self })
        } else {
            Err(Error::unavailable("the cache shuts down; try again when it is back"))
        }
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// Completes when nobody is inside.
    pub(crate) async fn empty(&self) {
        let mut state = self.state.subscribe();
        // The sender is ours, so the wait can only end well.
        let _ = state.wait_for(|state| state.inside == 0).await;
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> u64 {
        self.state.borrow().inside
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.gate.state.send_modify(|state| state.inside -= 1);
    }
}

/// Longest time that a shutdown waits for commits under way.
pub(crate) const COMMIT_DRAIN_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_of_one_path_follow_each_other_and_leave_nothing_behind() {
        let turns = Arc::new(Turns::default());
        let (a, b) = (Path::parse(b"/a").unwrap(), Path::parse(b"/b").unwrap());
        let first = turns.take(&a).await;
        let _other = turns.take(&b).await;
        let waiting = tokio::spawn({
            let (turns, a) = (Arc::clone(&turns), a.clone());
            async move { drop(turns.take(&a).await) }
        });
        let given_up = tokio::time::timeout(Duration::from_secs(1), turns.take(&a)).await;
        assert!(given_up.is_err() && !waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        assert_eq!(turns.paths.lock().len(), 1, "only /b is taken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_waits_for_those_inside() {
        let gate = Gate::default();
        let entered = gate.enter().unwrap();
        gate.close();
        assert!(gate.enter().is_err());
        assert!(
            tokio::time::timeout(Duration::from_secs(1), gate.empty())
                .await
                .is_err()
        );
        drop(entered);
        gate.empty().await;
    }
}
