//! What policies keep here for now, and what lets it go.
//!
//! | `persist` | a sealed file goes |
//! |---|---|
//! | `asap` | at once |
//! | `age` | when it has been unchanged for so long, or when dirty bytes come near their limit |
//! | `commit` | when it is a part of a published version, or when a file that says so (`_SUCCESS`, a manifest) lies in its directory or above, up to where the policy is set |
//! | `size` | when the files that are kept back for it, up to where the policy is set, have come to so many bytes together; else as `age` |
//! | `never` | when a person says so (`persist PATH`) |
//!
//! Only what is dirty and has no earlier self in the store to be cleared is withheld: what was begun goes on, and a file that was
//! renamed out of its old place does not leave it behind. What a person or a level asks for goes at once, whatever the policy; what a
//! person asks for is remembered over a restart (`asked`).

use super::{
    Persist,
    plan::{Row, work_key},
    rules,
    tracker::{At, Outcome, Seen},
};
use crate::{
    Error, ErrorKind, Result,
    cache::Inner,
    policy::{Key, value},
    rows::{self, Content, PlaceKind, Work, WorkKind},
};
use forebay_metastore::Check;
use forebay_namespace::{Ino, Path, Plan};
use forebay_runtime::clock::Timestamp;
use forebay_segment::Layout;
use std::time::Duration;

/// Of the limit on dirty bytes: above this nothing is kept for its age or size.
const PRESSED: (u64, u64) = (3, 4);
/// Pause when the store could not be asked.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Inner {
    /// How the run ends if a policy keeps the file here. `at`: where it would go.
    pub(super) async fn withhold(&self, row: &Row, content: &Content, path: &Path, at: &At) -> Result<Option<Outcome>> {
        let effective = self.policies.effective(path);
        let dirty = matches!(content, Content::Sealed { .. });
        let place = |(mount, key): &At| row.place(*mount, key).is_some_and(|place| place.token.is_none());
        let fresh = row.work.places.is_empty() || row.work.places.len() == 1 && place(at);
        let root = || effective.from(Key::Persist).cloned().unwrap_or_else(Path::root);
        let asked = || self.persist.is_urgent(row.seq) || self.persist.asked.covers(path, row.work.since);
        if effective.persist == value::Persist::Asap || !dirty || !fresh || asked() {
            return Ok(None);
        }
        Ok(match effective.persist {
            value::Persist::Asap => None,
            value::Persist::Never => Some(Outcome::Withheld(None)),
            value::Persist::Commit => {
                match self.is_committed(path, &root()).await {
                    Ok(true) => None,
                    Ok(false) => Some(Outcome::Withheld(None)),
                    // Only the store could tell, and it is away.
                    Err(error) if error.kind() == ErrorKind::Unavailable => Some(Outcome::Withheld(Some(LOOK_AGAIN))),
                    Err(error) => return Err(error),
                }
            }
            value::Persist::Age(age) => {
                let left = left(row.work.since, age, self.components.clock.now());
                left.filter(|_| !self.is_pressed())
                    .map(|left| Outcome::Withheld(Some(left)))
            }
            value::Persist::Size(..) if self.is_pressed() => None,
            value::Persist::Size(goal, age) => {
                let now = self.components.clock.now();
                let left = age.map(|age| left(row.work.since, age, now));
                let bytes = content.layout().map_or(0, Layout::len);
                (left != Some(None)).then(|| Outcome::Gathers {
                    root: root(),
                    bytes,
                    goal: goal.0,
                    time: left.flatten(),
                })
            }
        })
    }

    /// Where a policy may keep the file here, names that are only hidden since it left them become work of their own: nothing of it
    /// was ever in the store under them, and whoever takes such a name next is not to wait for it.
    pub(super) async fn part_from_hidden(&self, row: &Row, path: &Path) -> Result<Option<Outcome>> {
        if self.policies.effective(path).persist == value::Persist::Asap {
            return Ok(None);
        }
        let (hidden, places): (Vec<_>, Vec<_>) = row.work.places.iter().cloned().partition(|place| {
            let nothing = place.holds.is_none() && place.token.is_none() && place.upload.is_none();
            let target = self.mounts.by_id(place.mount).map(|mount| mount.path_of(&place.key));
            nothing && place.kind == PlaceKind::File && !matches!(target, Some(Ok(at)) if at == *path)
        });
        if hidden.is_empty() {
            return Ok(None);
        }
        let mut plan = Plan::default();
        let mine = Work {
            places,
            ..row.work.clone()
        };
        plan.check(Check::At(work_key(row.seq), row.version))
            .put(work_key(row.seq), rows::encode(&mine));
        self.persist.clear(&mut plan, None, hidden).await?;
        self.commit(plan).await?;
        self.persist.touch(row.seq);
        self.persist.absorb().await?;
        Ok(Some(Outcome::Moved))
    }

    /// Whether so much is dirty that nothing is kept for its age or size.
    pub(super) fn is_pressed(&self) -> bool {
        self.dirty.bytes() > self.dirty.limit() / PRESSED.1 * PRESSED.0
    }

    /// Whether the file is a part of a version, tells of a commit, or lies where one was told of.
    async fn is_committed(&self, path: &Path, root: &Path) -> Result<bool> {
        if rules::barrier_root(path).is_some() {
            return Ok(true);
        }
        let mut dir = path.parent();
        while let Some(at) = dir.filter(|at| at.starts_with(root)) {
            if self.names.resolve(&at.join(rules::SUCCESS)?).await?.is_some() {
                return Ok(true);
            }
            dir = at.parent();
        }
        match path.parent() {
            Some(dataset) => Ok(self.published_head(&dataset).await?.is_some()),
            None => Ok(false),
        }
    }

    /// A commit of what is below `root` was told of: what was kept back for it, of these numbers and inodes, goes. Answers one of that.
    pub(super) async fn let_go(&self, withheld: Vec<(u64, u64)>, root: &Path) -> Result<Option<u64>> {
        let mut committed = Vec::new();
        for (seq, ino) in withheld {
            let path = self
                .names
                .path_of(Ino(ino))
                .await?
                .filter(|path| path.starts_with(root));
            if path.is_some_and(|path| self.policies.effective(&path).persist == value::Persist::Commit) {
                committed.push(seq);
            }
        }
        self.persist.tracker.lock().urge(&committed);
        Ok(committed.first().copied())
    }

    /// Precondition when some of this work goes only when a person says so.
    pub(super) async fn check_goes(&self, work: &[Seen]) -> Result<()> {
        for work in work.iter().filter(|work| work.withheld) {
            let WorkKind::Put { ino, .. } = work.what else { continue };
            let Some(path) = self.names.path_of(Ino(ino)).await? else {
                continue;
            };
            let effective = self.policies.effective(&path);
            if effective.persist == value::Persist::Never {
                let from = effective
                    .from(Key::Persist)
                    .map_or_else(String::new, |from| format!(" of {from}"));
                return Err(Error::precondition(format!(
                    "{path}: the policy persist=never{from} keeps it here; `persist {path}` brings it all the same"
                )));
            }
        }
        Ok(())
    }
}

impl Persist {
    /// A policy was changed: what is withheld is looked at again.
    pub(crate) fn policies_changed(&self) {
        self.tracker.lock().release_withheld(false);
        self.wake();
    }

    fn is_urgent(&self, seq: u64) -> bool {
        self.tracker.lock().is_urgent(seq)
    }
}

/// How long until what was acknowledged at `since` is of this age.
fn left(since: i64, age: Duration, now: Timestamp) -> Option<Duration> {
    let due = Timestamp(since).plus(age);
    (due > now).then(|| due.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_an_age_ends_with_it() {
        let now = Timestamp(10_000_000);
        assert_eq!(
            left(7_000_000, Duration::from_secs(5), now),
            Some(Duration::from_secs(2))
        );
        assert_eq!(left(5_000_000, Duration::from_secs(5), now), None);
        assert_eq!(left(i64::MAX, Duration::MAX, now), Some(Timestamp(i64::MAX).since(now)));
    }
}
