//! In which data folder a new stream goes: where there is most room, and in turn among those that have about as much.
//!
//! A folder that is full, does not answer, or failed a moment ago is passed over while another one takes streams. Why room and not always
//! in turn: disks of different sizes fill up at the same time. Why in turn among equals: streams that are begun together would all go to the
//! same disk before the first byte of one has changed anything.

use crate::data_folder::DataFolder;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Folders that have less room than the roomiest by no more than this share of it count as equal.
const EQUAL_SHARE: u64 = 8;

/// Picks folders.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    turn: AtomicUsize,
}

impl Placement {
    /// The folder for a stream that will have `size` bytes, as far as anyone knows, but none of those in `not`. None when no folder takes
    /// streams.
    pub(crate) fn pick<'a>(
        &self,
        folders: &'a [Arc<DataFolder>],
        size: u64,
        not: &[u8],
    ) -> Option<&'a Arc<DataFolder>> {
        if let ([only], []) = (folders, not) {
            return Some(only);
        }
        let left = || folders.iter().filter(|folder| !not.contains(&folder.number()));
        let roomy: Vec<_> = left()
            .filter_map(|folder| Some((folder, folder.context.room()?)))
            .collect();
        let fits = roomy.iter().any(|(_, room)| *room > size);
        let most = roomy.iter().map(|(_, room)| *room).max()?;
        let least = (most - most / EQUAL_SHARE).max(if fits { size + 1 } else { 0 });
        let equal: Vec<_> = roomy.iter().filter(|(_, room)| *room >= least).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        equal.get(turn % equal.len()).map(|(folder, _)| *folder)
    }
}
