//! A part while it is written: where its messages lie, and how many of them are stable, so that followers read it from the segment
//! and nothing is buffered for them.

use super::{
    PartItem,
    ipc::{frame::Entry, index::item},
};
use crate::{Error, Result};
use forebay_segment::{Follower, StableWatch};
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Neighbouring messages are read together up to so many bytes.
const WINDOW_BYTES: u64 = 1 << 20;

/// A part that grows, shared by its writer and its followers.
#[derive(Debug)]
pub(crate) struct Growing {
    follower: Follower,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// Entry `k` was append `k + 1`: the first append is the opening with the schema.
    entries: Vec<Entry>,
    /// Batches among the first `counted` entries.
    batches: u64,
    counted: usize,
}

impl Growing {
    pub(crate) fn new(follower: Follower) -> Self {
        Self {
            follower,
            written: Mutex::default(),
        }
    }

    /// Notes a message *before* it is appended, so that whoever sees it stable finds it here.
    pub(crate) fn push(&self, entry: Entry) {
        self.written.lock().entries.push(entry);
    }

    /// All messages, for the footer.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.written.lock().entries.clone()
    }

    /// Messages so far.
    pub(crate) fn len(&self) -> usize {
        self.written.lock().entries.len()
    }

    /// Watches how much is stable.
    pub(crate) fn stable(&self) -> StableWatch {
        self.follower.stable()
    }

    /// Messages that are stable now, or why no more ever will be.
    pub(crate) fn stable_messages(&self) -> (usize, Option<String>) {
        let watch = self.follower.stable();
        let stable = watch.borrow();
        let appends = usize::try_from(stable.appends).unwrap_or(usize::MAX);
        (appends.saturating_sub(1).min(self.len()), stable.poisoned.clone())
    }

    /// Batches among the stable messages. Asked with growing answers it counts each message once.
    pub(crate) fn stable_batches(&self) -> u64 {
        let (stable, _) = self.stable_messages();
        let written = &mut *self.written.lock();
        if stable > written.counted {
            let new = &written.entries[written.counted..stable];
            written.batches += new.iter().filter(|entry| !entry.dictionary).count() as u64;
            written.counted = stable;
        }
        written.batches
    }

    /// Reads messages from `from` up to (not including) `until`, about a window of them, and answers the position behind the last.
    pub(crate) async fn read(&self, from: usize, until: usize) -> Result<(Vec<PartItem>, usize)> {
        let entries = self.window(from, until);
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok((Vec::new(), from));
        };
        let bytes = last.end() - first.offset;
        let mut pieces = VecDeque::from(self.follower.read(first.offset..last.end()).await?);
        let found: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if found != bytes {
            return Err(Error::internal(format!(
                "a growing part answers {found} of {bytes} stable bytes"
            )));
        }
        let items = entries
            .iter()
            .map(|entry| item(entry, &mut pieces))
            .collect::<Result<_>>()?;
        Ok((items, from + entries.len()))
    }

    fn window(&self, from: usize, until: usize) -> Vec<Entry> {
        let written = self.written.lock();
        let entries = written
            .entries
            .get(from..until.min(written.entries.len()))
            .unwrap_or_default();
        let Some(first) = entries.first() else {
            return Vec::new();
        };
        let many = entries
            .iter()
            .take_while(|entry| entry.end() - first.offset <= WINDOW_BYTES)
            .count();
        entries[..many.max(1)].to_vec()
    }
}
