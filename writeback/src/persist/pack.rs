//! Small files on their way into packs, where the policy `pack` says so.
//!
//! For the queue such a file is like any other: claimed, visible, recorded, each by itself. Only its bytes wait for those of others and
//! become visible with them, in one object (`forebay_understore::packs`). Runs that wait for a pack do not count for
//! `persist.files_parallel`, or no pack would ever hold more than that many files; what bounds them is [`ASIDE_MAX`] and the room for
//! their bytes.
//!
//! Not packed are files that others look for by their own names to know that a directory is complete (`rules::barrier_root`), and
//! those that replace an object which has its own name.

use super::{
    Persist,
    put::{Job, write_of},
    rules,
    upload::Uploaded,
};
use crate::{cache::Inner, file::FileReader};
use forebay_understore::{
    StoreError,
    packs::{PACKED_BYTES_MAX, Packed, Room},
};
use std::sync::atomic::Ordering;

/// Most runs that wait for a pack.
const ASIDE_MAX: usize = 2048;

/// A run that does not count for the files on their way at once, while this lives.
#[derive(Debug)]
pub(super) struct Aside<'a>(&'a Persist);

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.aside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Persist {
    /// Lets another run begin in place of this one. None when enough have done so: this one goes on as any other.
    pub(super) fn step_aside(&self) -> Option<Aside<'_>> {
        if self.aside.fetch_add(1, Ordering::Relaxed) >= ASIDE_MAX {
            self.aside.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.stepped.notify_one();
        Some(Aside(self))
    }
}

impl Inner {
    /// Whether the policy wants the content in a pack, as far as can be told without the store.
    pub(super) fn is_packed(&self, job: &Job) -> bool {
        let replaces = job
            .row
            .place(job.mount.id, &job.key)
            .and_then(|place| place.holds.as_deref());
        job.mount.packs.is_some()
            && job.inode.size <= PACKED_BYTES_MAX
            && replaces.is_none_or(Packed::is_packed)
            && self.policies.effective(&job.path).pack
            && rules::barrier_root(&job.path).is_none()
    }

    /// The packs of the job's mount and room in the next one, where it goes into one.
    pub(super) async fn room_in_pack(&self, job: &Job) -> Result<Option<(Packed, Room)>, StoreError> {
        let Some(packs) = job.mount.packs.clone().filter(|_| self.is_packed(job)) else {
            return Ok(None);
        };
        if !packs.takes(&write_of(job)).await? {
            return Ok(None);
        }
        let room = packs.room(job.inode.size).await;
        Ok(Some((packs, room)))
    }

    pub(super) async fn upload_packed(
        &self,
        job: &Job,
        reader: &FileReader,
        packs: Packed,
        room: Room,
    ) -> Result<Uploaded, StoreError> {
        let chunks = match reader.read(0..job.inode.size).await {
            Ok(chunks) => chunks,
            Err(error) => return Ok(Uploaded::Unreadable(error)),
        };
        if !self.still_there(job).await {
            return Ok(Uploaded::Moved);
        }
        packs
            .put_packed(&write_of(job), chunks, room)
            .await
            .map(Uploaded::Visible)
    }
}
