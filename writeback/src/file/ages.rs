//! Since when what exists only here does: the dirty contents by the moment of their commit.
//!
//! The queue of the persister knows the age of its work, but what no under-store covers is no work of it, and it is at risk all the
//! same. About 70 bytes per dirty content. It does not own how many there are: the ledger counts what it is told (`dirty`).

use forebay_runtime::clock::Timestamp;
use forebay_segment::StreamId;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Contents that were let go before they were noted, of which it remembers.
const EARLY_MAX: usize = 1024;

/// The dirty contents by age.
#[derive(Debug, Default)]
pub(super) struct Ages {
    since: HashMap<StreamId, Timestamp>,
    by_age: BTreeSet<(Timestamp, StreamId)>,
    /// Whoever commits a content notes it after the commit, and by then another one may have removed it. No stream comes twice, so that
    /// it never has to be noted any more.
    early: HashSet<StreamId>,
}

impl Ages {
    /// A content is dirty since then. Of two moments the earlier one counts.
    pub(super) fn note(&mut self, stream: StreamId, since: Timestamp) {
        if self.early.remove(&stream) {
            return;
        }
        match self.since.get(&stream) {
            Some(known) if *known <= since => return,
            Some(known) => {
                self.by_age.remove(&(*known, stream));
            }
            None => {}
        }
        self.since.insert(stream, since);
        self.by_age.insert((since, stream));
    }

    /// It is clean, or gone.
    pub(super) fn forget(&mut self, stream: StreamId) {
        if let Some(since) = self.since.remove(&stream) {
            self.by_age.remove(&(since, stream));
            return;
        }
        if self.early.len() >= EARLY_MAX {
            self.early.clear();
        }
        self.early.insert(stream);
    }

    /// Since when the oldest is dirty.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.by_age.first().map(|(since, _)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_told_until_it_is_forgotten() {
        let mut ages = Ages::default();
        assert_eq!(ages.oldest(), None);
        for (stream, since) in [(1, 30), (2, 10), (3, 20)] {
            ages.note(StreamId(stream, 1), Timestamp(since));
        }
        assert_eq!(ages.oldest(), Some(Timestamp(10)));
        ages.forget(StreamId(2, 1));
        assert_eq!(ages.oldest(), Some(Timestamp(20)));
        ages.note(StreamId(1, 1), Timestamp(5));
        ages.note(StreamId(3, 1), Timestamp(40));
        assert_eq!(ages.oldest(), Some(Timestamp(5)), "the earlier moment counts");
        ages.forget(StreamId(1, 1));
        assert_eq!(ages.oldest(), Some(Timestamp(20)));
        ages.forget(StreamId(3, 1));
        assert_eq!(ages.oldest(), None);
        assert!(ages.since.is_empty() && ages.by_age.is_empty());
    }

    #[test]
    fn what_was_removed_before_it_was_noted_is_not_dirty_for_ever() {
        let mut ages = Ages::default();
        ages.forget(StreamId(1, 1));
        ages.note(StreamId(1, 1), Timestamp(10));
        assert_eq!(ages.oldest(), None);
        for stream in 0..10_000 {
            ages.forget(StreamId(stream, 1));
        }
        assert!(ages.early.len() <= EARLY_MAX);
    }
}
