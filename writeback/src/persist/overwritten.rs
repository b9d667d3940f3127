//! What an overwrite takes away that could not ask the store: data files that others had in the directory until then.
//!
//! While the store is away nobody knows them. The publish is acknowledged all the same; its transaction queues the directory
//! ([`PlaceKind::Overwritten`]), and from then on they do not show (`mounts/overwritten.rs`). When the store answers, those go that the
//! overwrite would have taken away had it seen them: the files directly in the directory that count as data, and `_SUCCESS`. Which of
//! them were there then is told by the time that the store says they changed, as with a directory that was removed (`tree`). What others
//! put there since stays and shows, as it does beside any published version; and so does everything that is deeper or no data.
//!
//! Older work that writes into the directory ends first, so that the new version is there before the old files go, and so does
//! whatever needs a file that lies there. A put at the very name of such a file takes that one away itself. A file in the place of
//! the directory is a conflict.

use super::{
    Persist,
    clear::{Cleared, Stopped},
    plan::{Row, Unseen},
    put::{Job, There},
    tracker::Below,
};
use crate::{
    Error, Result,
    cache::Inner,
    dataset::Leads,
    mounts::{Mount, went},
    rows::{Content, Place, PlaceKind},
};
use forebay_namespace::{Ino, Kind, LIST_PAGE_MAX, Node};
use forebay_understore::{Expect, Found, Listed, StoreError};
use futures::StreamExt;
use std::{collections::BTreeMap, sync::Arc};

/// Files that are looked at before those that go are removed.
const PAGE: usize = 1000;

/// What became of the files in a directory.
enum Emptied {
    Removed,
    Nothing,
    /// There is none in the store: somebody else's file has its place.
    File(Found),
}

impl Persist {
    /// After the commit: what the store has there of others does not show from now on.
    pub(crate) fn overwritten(&self, unseen: Unseen) {
        let Unseen { seq, dir, since } = unseen;
        self.mounts.note_overwritten(seq, vec![dir], since);
    }

    /// The same by the row as it is now; `None`: it is done.
    pub(super) fn note_overwritten(&self, seq: u64, row: Option<&Row>) {
        let places = row.map(|row| row.work.places.as_slice()).unwrap_or_default();
        let places = places.iter().filter(|place| place.kind == PlaceKind::Overwritten);
        let dirs = places.map(|place| (place.mount, place.key.clone())).collect();
        let since = row.map_or(0, |row| row.work.since);
        self.mounts.note_overwritten(seq, dirs, since);
    }
}

impl Inner {
    pub(super) async fn clear_overwritten(&self, row: &Row, mount: &Arc<Mount>, place: &Place) -> Result<Cleared> {
        if mount.read_only {
            return Ok(Cleared::Done);
        }
        let at = (place.mount, place.key.clone());
        let other = {
            let tracker = self.persist.tracker.lock();
            let older = tracker.owner_below(row.seq, &at, Below::Older);
            older
                .or_else(|| tracker.move_below(row.seq, &at))
                .or_else(|| tracker.move_over(row.seq, &at))
        };
        if let Some(other) = other {
            return Ok(Cleared::Wait(other));
        }
        match self.try_clear_overwritten(row, mount, place).await {
            Ok(Emptied::Removed) => self.keep_directory(row.seq, mount, &place.key).await,
            Ok(Emptied::Nothing) => Ok(Cleared::Done),
            Ok(Emptied::File(file)) => Ok(Cleared::Foreign(
                Some(file),
                "a file is where the directory of the dataset is",
            )),
            Err(stopped) => stopped.cleared(),
        }
    }

    async fn try_clear_overwritten(&self, row: &Row, mount: &Mount, place: &Place) -> Result<Emptied, Stopped> {
        let found = match place.key.is_empty() {
            true => None,
            false => mount.upload.head(&place.key).await?,
        };
        match found.filter(|found| !found.is_dir) {
            None => {}
            // A person gave it up.
            Some(file) if place.holds.as_ref() == Some(&file.validator.0) => {
                mount.upload.delete(&place.key, &Expect::Match(file.validator)).await?;
            }
            Some(file) if self.is_live_directory(mount, &place.key).await? => return Ok(Emptied::File(file)),
            Some(_) => return Ok(Emptied::Nothing),
        }
        match self.remove_overwritten(mount, &place.key, row.work.since).await? {
            true => Ok(Emptied::Removed),
            false => Ok(Emptied::Nothing),
        }
    }

    /// Removes what was overwritten at `since` directly in a directory. Whether anything was.
    async fn remove_overwritten(&self, mount: &Mount, dir: &str, since: i64) -> Result<bool, Stopped> {
        let named = self.names_in(mount, dir).await?;
        let mut ours = self.parts_in(&mount.path_of(dir)?).await?;
        let mut listed = mount.upload.list(dir, None);
        let (mut files, mut removed) = (Vec::new(), false);
        loop {
            let ended = match listed.next().await {
                None | Some(Err(StoreError::NotFound(_))) => true,
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(file)) => {
                    let name = file.name.as_bytes();
                    if went(&file, since)
                        && !self.is_our_part(&mut ours, name, leads(&file, named.get(name))).await?
                        && self.gives_way(mount, dir, &file, named.get(name)).await?
                    {
                        files.push(file);
                    }
                    false
                }
            };
            if ended || files.len() >= PAGE {
                removed |= !files.is_empty();
                self.remove_files(mount, dir, std::mem::take(&mut files), Some(since))
                    .await?;
            }
            if ended {
                return Ok(removed);
            }
        }
    }

    /// The names with rows in the directory that is there now.
    async fn names_in(&self, mount: &Mount, dir: &str) -> Result<BTreeMap<Vec<u8>, Ino>> {
        let mut named = BTreeMap::new();
        let Some(Node::Row { ino: dir, .. }) = self.node_at(&mount.path_of(dir)?).await? else {
            return Ok(named);
        };
        loop {
            let after = named.last_key_value().map(|(name, _): (&Vec<u8>, _)| name.clone());
            let page = self.names.rows_in(dir, after.as_deref(), LIST_PAGE_MAX).await?;
            if page.is_empty() {
                return Ok(named);
            }
            named.extend(page.into_iter().map(|(name, ino, _)| (name, ino)));
        }
    }

    /// Whether what the store has of a name is not what the row of that name, if there is one, brought there.
    async fn gives_way(&self, mount: &Mount, dir: &str, file: &Listed, row: Option<&Ino>) -> Result<bool, Stopped> {
        let Some(ino) = row else { return Ok(true) };
        let inode = self.names.inode(*ino).await.map_err(Error::from)?;
        let Some((inode, _)) = inode.filter(|(inode, _)| inode.kind == Kind::File) else {
            return Ok(true);
        };
        let key = super::tree::below(dir, &file.name);
        let content = Content::decode(&inode.content)?;
        if lies_at(&content, mount.id, &key) {
            return Ok(false);
        }
        let work = match content {
            Content::Sealed { work: Some(seq), .. } | Content::Persisted { work: Some(seq), .. } => {
                self.persist.read_row(seq).await?
            }
            _ => None,
        };
        let place = work.and_then(|work| work.place(mount.id, &key).cloned());
        let place = place.unwrap_or_else(|| Place::file(mount.id, key.clone(), None));
        let found = mount.upload.head(&key).await?;
        Ok(foreign_file(self.seen_at(mount, &place, found, Some(&inode))).is_some())
    }

    /// Before a put: the file that had its name when the directory was overwritten goes.
    pub(super) async fn take_overwritten(&self, job: &Job) -> Result<(), Stopped> {
        let (mount, key) = (&job.mount, &job.key);
        let Some(until) = self.mounts.overwritten_until(mount.id, key) else {
            return Ok(());
        };
        if lies_at(&job.content, mount.id, key) {
            return Ok(());
        }
        let (dir, name) = key.rsplit_once('/').unwrap_or(("", key));
        let mut ours = self.parts_in(&mount.path_of(dir)?).await?;
        // Its name is new with it.
        if self
            .is_our_part(&mut ours, name.as_bytes(), Leads::Row(job.ino, None))
            .await?
        {
            return Ok(());
        }
        let found = mount.upload.head(key).await?.filter(|found| found.mtime <= until);
        let Some(file) = foreign_file(self.seen_at(mount, &job.place(), found, Some(&job.inode))) else {
            return Ok(());
        };
        match mount.upload.delete(key, &Expect::Match(file.validator)).await {
            // What is there instead, the put sees by itself.
            Ok(()) | Err(StoreError::NotFound(_) | StoreError::Changed(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the content is what the store has at this key.
fn lies_at(content: &Content, mount: u32, key: &str) -> bool {
    matches!(content, Content::Persisted { at, .. } if (at.mount, at.key.as_str()) == (mount, key))
}

/// What the name of a file in the store leads to.
fn leads(file: &Listed, row: Option<&Ino>) -> Leads {
    row.map_or(Leads::Base(file.found.size), |ino| Leads::Row(*ino, None))
}

/// Somebody else's file, if it is one.
fn foreign_file(there: There) -> Option<Found> {
    match there {
        There::Foreign(found) if !found.is_dir => Some(found),
        _ => None,
    }
}
