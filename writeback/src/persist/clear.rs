//! Emptying the places of a row: what was deleted or moved away, and what an upload may have left there.

use super::{
    plan::{Row, work_key},
    put::{SOON, There},
    rules,
    tracker::{Acquired, Outcome},
};
use crate::{
    Error, Result,
    cache::Inner,
    mounts::Mount,
    rows::{self, Place, PlaceKind, Work, WorkState},
};
use forebay_metastore::Check;
use forebay_namespace::{Ino, Node, Path, Plan};
use forebay_understore::{Expect, Found, StoreError};
use std::sync::Arc;

/// How the clearing of one place ended.
pub(super) enum Cleared {
    Done,
    Foreign(Option<Found>, &'static str),
    Wait(u64),
    Failed(StoreError),
}

/// Why a clearing did not come to its end.
pub(super) enum Stopped {
    Store(StoreError),
    Here(Error),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Stopped::Store(error)
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Here(error)
    }
}

impl Stopped {
    /// A store's answer is the piece of work's affair, a failure in here only means that it runs again.
    pub(super) fn cleared(self) -> Result<Cleared> {
        match self {
            Stopped::Store(error) => Ok(Cleared::Failed(error)),
            Stopped::Here(error) => Err(error),
        }
    }
}

impl Inner {
    pub(super) async fn clear_places(self: &Arc<Self>, row: Row) -> Result<Outcome> {
        let mut done: Vec<Place> = Vec::new();
        let mut end = Outcome::Moved;
        for place in &row.work.places {
            // A mount that was removed keeps what it has.
            let Some(mount) = self.mounts.by_id(place.mount) else {
                done.push(place.clone());
                continue;
            };
            let cleared = match place.kind {
                PlaceKind::File => self.clear_file(row.seq, &mount, place).await?,
                PlaceKind::Prune | PlaceKind::Tree => self.clear_tree(&row, &mount, place).await?,
                PlaceKind::Overwritten => self.clear_overwritten(&row, &mount, place).await?,
            };
            match cleared {
                Cleared::Done => {
                    match place.kind {
                        PlaceKind::File => {}
                        PlaceKind::Prune | PlaceKind::Tree => {
                            self.show_base_below(&mount.path_of(&place.key)?, row.seq).await?;
                        }
                        // What a lookup saw there before shall not show again.
                        PlaceKind::Overwritten => self.mounts.changed_all(),
                    }
                    done.push(place.clone());
                }
                Cleared::Wait(other) => {
                    end = Outcome::Wait(other);
                    break;
                }
                Cleared::Foreign(found, reason) => {
                    end = self.conflict(&row, (place.mount, place.key.clone()), reason, found.as_ref());
                    break;
                }
                Cleared::Failed(error) => {
                    end = self.cleared_failed(&mount, place, error)?;
                    break;
                }
            }
        }
        self.places_cleared(&row, &done).await?;
        Ok(end)
    }

    fn cleared_failed(&self, mount: &Mount, place: &Place, error: StoreError) -> Result<Outcome> {
        Ok(match error {
            StoreError::Unavailable(reason) => Outcome::Away(mount.id, reason),
            StoreError::Refused(reason) => Outcome::Blocked {
                path: mount.path_of(&place.key)?,
                reason,
            },
            StoreError::NotFound(_) | StoreError::Changed(_) | StoreError::Damaged(_) => Outcome::Soon(SOON),
        })
    }

    /// Takes cleared places out of the row, and the whiteouts that hid them.
    async fn places_cleared(&self, row: &Row, done: &[Place]) -> Result<()> {
        if done.is_empty() && !row.work.places.is_empty() {
            return Ok(());
        }
        let mut plan = Plan::default();
        let key = work_key(row.seq);
        plan.check(Check::At(key.clone(), row.version));
        let mut work = Work {
            state: WorkState::Queued,
            ..row.work.clone()
        };
        work.places.retain(|place| !done.contains(place));
        if work.places.is_empty() {
            plan.delete(key);
        } else {
            plan.put(key, rows::encode(&work));
        }
        for place in done {
            let Some(mount) = self.mounts.by_id(place.mount) else {
                continue;
            };
            mount.health.note(None);
            match place.kind {
                PlaceKind::File => self.mounts.changed(place.mount, &place.key),
                PlaceKind::Prune | PlaceKind::Tree => {}
                // The directory is there, or its name is hidden for others.
                PlaceKind::Overwritten => continue,
            }
            let path = mount.path_of(&place.key)?;
            if let Some(forget) = self.names.plan_forget_whiteout(&path).await?
                && !self.is_hidden_for_others(row.seq, place, &path).await?
            {
                plan.merge(forget)?;
            }
        }
        self.commit(plan).await?;
        let absorbed = self.persist.read_row(row.seq).await?;
        self.persist.take_in(row.seq, absorbed.as_ref(), self.persist.now());
        Ok(())
    }

    /// Whether others still have something to take away at the key of a place, so that its whiteout stays for them. To be asked after
    /// the whiteout was read: one that is written later makes the commit fail.
    async fn is_hidden_for_others(&self, seq: u64, place: &Place, path: &Path) -> Result<bool> {
        self.persist.absorb().await?;
        let shared = self
            .persist
            .tracker
            .lock()
            .shares(seq, &(place.mount, place.key.clone()));
        // What has the name now hides the rest by itself, and leaves a whiteout when it goes.
        Ok(shared && !matches!(self.node_at(path).await?, Some(Node::Row { .. })))
    }

    async fn clear_file(&self, seq: u64, mount: &Arc<Mount>, place: &Place) -> Result<Cleared> {
        // Staging names never reached the store.
        let unknown = place.token.is_none() && place.holds.is_none();
        if mount.read_only || unknown && rules::is_staging(&mount.path_of(&place.key)?) {
            return Ok(Cleared::Done);
        }
        let at = (place.mount, place.key.clone());
        let before = {
            let tracker = self.persist.tracker.lock();
            // What is on its way there may arrive after our look: an upload of work that this row has taken over.
            let writer = tracker.writer_at(seq, &at);
            // Only the name was here. What lies at the key may be on its way elsewhere and belong to another one, or show in a
            // directory that was renamed.
            let other = || tracker.owner_before(seq, &at).or_else(|| tracker.move_over(seq, &at));
            writer.or_else(|| other().filter(|_| unknown))
        };
        if let Some(other) = before {
            return Ok(Cleared::Wait(other));
        }
        let packed = mount.packs.as_ref().is_some_and(|packs| packs.holds(&place.key));
        let _aside = match packed {
            true => self.persist.step_aside(),
            false => None,
        };
        match self.try_clear_file(mount, place).await {
            // A mere name was no directory's last file.
            Ok(None) if unknown => Ok(Cleared::Done),
            Ok(None) => self.keep_parent(seq, mount, &place.key).await,
            Ok(Some(cleared)) => Ok(cleared),
            Err(stopped) => stopped.cleared(),
        }
    }

    /// `None`: nothing of ours is there any more.
    async fn try_clear_file(&self, mount: &Mount, place: &Place) -> Result<Option<Cleared>, Stopped> {
        if place.token.is_some() || place.upload.is_some() {
            self.abort_uploads(mount, place).await?;
        }
        let found = mount.upload.head(&place.key).await?;
        match self.seen_at(mount, place, self.outlast(mount, place, found).await?, None) {
            There::Nothing => Ok(None),
            There::Ours(found) | There::Known(found) => {
                mount.upload.delete(&place.key, &Expect::Match(found.validator)).await?;
                Ok(None)
            }
            // A directory has taken the place: what we knew there is gone.
            There::Foreign(found) if found.is_dir => Ok(None),
            // An older content of this cache: the lookup that would have told of it failed when its name was taken.
            There::Foreign(found) if self.wrote(&found) && !self.is_live_file(mount, &place.key).await? => {
                mount.upload.delete(&place.key, &Expect::Match(found.validator)).await?;
                Ok(None)
            }
            There::Foreign(found) if place.holds.is_some() => Ok(Some(Cleared::Foreign(
                Some(found),
                "deleted here, changed by someone else there",
            ))),
            There::Foreign(_) => Ok(None),
        }
    }

    /// On an object store a directory is only what lies under it: one that lost its last file gets its marker.
    pub(super) async fn keep_parent(&self, seq: u64, mount: &Arc<Mount>, key: &str) -> Result<Cleared> {
        match key.rsplit_once('/') {
            Some((parent, _)) => self.keep_directory(seq, mount, parent).await,
            None => Ok(Cleared::Done),
        }
    }

    /// The same of a directory that may have lost its last file.
    pub(super) async fn keep_directory(&self, seq: u64, mount: &Arc<Mount>, parent: &str) -> Result<Cleared> {
        if mount.is_local() || parent.is_empty() {
            return Ok(Cleared::Done);
        }
        let path = mount.path_of(parent)?;
        // One without a row is only what the store shows, and of that the last was just taken away or is there still.
        if !self.is_live_directory(mount, parent).await? || rules::is_staging(&path) {
            return Ok(Cleared::Done);
        }
        // In a directory that is to go, or shows at another path until it is moved, the marker would be that one's.
        let at = (mount.id, parent.to_owned());
        if let Some(other) = self.persist.tracker.lock().tree_over(seq, &at, true) {
            return Ok(Cleared::Wait(other));
        }
        let kept = async {
            if mount.upload.head(parent).await?.is_none() {
                self.mark_dir(mount, parent).await?;
                self.mounts.changed(mount.id, parent);
            }
            self.unmark_from(mount, parent).await?;
            Ok(Cleared::Done)
        };
        kept.await.or_else(Stopped::cleared)
    }

    /// A directory that was made here.
    pub(super) async fn make_dir(self: &Arc<Self>, row: Row, ino: u64) -> Result<Outcome> {
        let Some(path) = self.names.path_of(Ino(ino)).await? else {
            return self.give_up(row, None).await;
        };
        if rules::is_staging(&path) {
            return Ok(Outcome::Held);
        }
        let Some((mount, key)) = self.mounts.resolve(&path) else {
            return self.give_up(row, None).await;
        };
        let blocked = |reason: String| {
            Ok(Outcome::Blocked {
                path: path.clone(),
                reason,
            })
        };
        let Some(key) = key else {
            return blocked("the name is not UTF-8, and an under-store takes no other".into());
        };
        if mount.read_only {
            return blocked(format!("{} is mounted read-only", mount.url));
        }
        if let Acquired::Owned(other) = self.persist.tracker.lock().acquire(row.seq, &(mount.id, key.clone())) {
            return Ok(Outcome::Wait(other));
        }
        match self.made(&mount, &key, &path).await {
            Ok(None) => self.give_up(row, None).await,
            Ok(Some(found)) => {
                let reason = "a file is where the directory shall be";
                Ok(self.conflict(&row, (mount.id, key), reason, Some(&found)))
            }
            Err(Stopped::Here(error)) => Err(error),
            Err(Stopped::Store(StoreError::Unavailable(reason))) => Ok(Outcome::Away(mount.id, reason)),
            Err(Stopped::Store(StoreError::Refused(reason))) => blocked(reason),
            Err(Stopped::Store(_)) => Ok(Outcome::Soon(SOON)),
        }
    }

    /// Makes the directory unless it is there, or has something in it that will make it. Answers a file that is in the way.
    async fn made(&self, mount: &Mount, key: &str, path: &Path) -> Result<Option<Found>, Stopped> {
        let holds_something = !self.names.list(path, None, 1).await.map_err(Error::from)?.is_empty();
        if !holds_something || mount.is_local() {
            let made = async {
                match mount.upload.head(key).await? {
                    Some(found) if found.is_dir => Ok(None),
                    Some(found) => Ok(Some(found)),
                    None => self.mark_dir(mount, key).await.map(|()| None),
                }
            };
            let made = made.await;
            self.mounts.changed(mount.id, key);
            if let Some(in_the_way) = made? {
                return Ok(Some(in_the_way));
            }
        }
        self.unmark_from(mount, key).await?;
        Ok(None)
    }
}
