//! Who holds an inode open: an unlinked inode keeps its row until the last hold is let go and the engine drops it.

use crate::{Ino, Namespace};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Counts of holds by inode.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<HashMap<Ino, u64>>);

impl Holds {
    pub(crate) fn held(&self, ino: Ino) -> bool {
        self.0.lock().contains_key(&ino)
    }

    fn take(&self, ino: Ino) {
        *self.0.lock().entry(ino).or_default() += 1;
    }

    /// Whether that was the last one.
    fn give(&self, ino: Ino) -> bool {
        let mut holds = self.0.lock();
        let Some(count) = holds.get_mut(&ino) else { return true };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        holds.remove(&ino);
        true
    }
}

/// An open inode. While it lives, unlink and replace leave the inode's row with `nlink` 0.
#[derive(Debug)]
pub struct Hold {
    holds: Option<Arc<Holds>>,
    ino: Ino,
}

impl Hold {
    /// The inode held.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Lets go. True when it was the last hold: if the inode has no name, its row may go now ([`Namespace::plan_drop`]).
    pub fn release(mut self) -> bool {
        self.holds.take().is_some_and(|holds| holds.give(self.ino))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(holds) = self.holds.take() {
            holds.give(self.ino);
        }
    }
}

impl Namespace {
    /// Holds `ino` open. Holds live in memory: after a restart nothing is held, and rows with `nlink` 0 may be dropped.
    pub fn hold(&self, ino: Ino) -> Hold {
        self.holds.take(ino);
        Hold {
            holds: Some(Arc::clone(&self.holds)),
            ino,
        }
    }

    /// Whether anyone holds `ino`.
    pub fn held(&self, ino: Ino) -> bool {
        self.holds.held(ino)
    }
}
