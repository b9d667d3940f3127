//! Rows that have done their work: what the under-store shows by itself needs no row.

use crate::{
    create::split,
    planner::{Dir, Reached, base_path},
    row::{Dentry, DentryKind, Stored},
    *,
};
use forebay_metastore::{Key, prefix_end};
use keys::{WHITEOUT, ino_of, name_of};
use std::time::Duration;

/// Dentries read at a time while a tree is walked.
const PAGE: usize = 256;
/// Tries for one directory of a tree that others change meanwhile.
const REBASE_ATTEMPTS_MAX: u32 = 50;

/// A whiteout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whiteout {
    /// The directory's inode.
    pub parent: Ino,
    /// The hidden name.
    pub name: Vec<u8>,
    /// The base path it hides; `None` when nothing shows through the directory any more.
    pub at: Option<Path>,
}

impl Namespace {
    /// Takes the row of a file, or of a directory without rows, away once the base shows the same at `at`. `None`: not now
    /// (its name shows another base path or none, or the base keeps it back, it is a directory with rows, the root, or gone).
    pub async fn plan_forget(&self, ino: Ino, at: &Path) -> Result<Option<Plan>> {
        let mut planner = self.planner();
        Ok(if planner.forget(ino, at).await? {
            Some(planner.finish()?)
        } else {
            None
        })
    }

    /// Takes away the whiteout that hides the base path `at`, once nothing is there. `None`: there is none at the place where
    /// `at` would be visible (its directory was renamed; [`Namespace::whiteouts`] finds it there).
    pub async fn plan_forget_whiteout(&self, at: &Path) -> Result<Option<Plan>> {
        let (parent, name) = split(at)?;
        let mut planner = self.planner();
        let walk = match planner.walk(&parent).await {
            // A file has a name on the way by now: nothing of the base shows behind it.
            Err(NsError::NotADirectory(_)) => return Ok(None),
            walk => walk?,
        };
        let Reached::Row { ino, stored, .. } = walk.reached else {
            return Ok(None);
        };
        let Ok(dir) = planner.as_dir(ino, &stored, parent.clone()) else {
            return Ok(None);
        };
        let key = keys::whiteout(ino, name);
        planner.fetch([key.clone()]).await?;
        // Through a directory that was renamed another path shows, and the whiteout may be for that one.
        if dir.is_moved() || !planner.exists(&key) {
            return Ok(None);
        }
        planner.share(keys::inode(ino));
        planner.need(key.clone());
        planner.erase(key);
        Ok(Some(planner.finish()?))
    }

    /// Up to `limit` whiteouts after the given one, in key order.
    pub async fn whiteouts(&self, after: Option<(Ino, Vec<u8>)>, limit: usize) -> Result<Vec<Whiteout>> {
        let start: Key = match after {
            Some((parent, mut name)) => {
                name.push(0);
                keys::whiteout(parent, &name)
            }
            None => vec![WHITEOUT].into(),
        };
        let rows = self
            .store
            .scan(start..prefix_end(&[WHITEOUT]), limit.clamp(1, PAGE))
            .await?;
        let mut planner = self.planner();
        let parents = rows.iter().filter_map(|(key, _)| ino_of(key)).map(keys::inode);
        planner.fetch(parents).await?;
        rows.iter()
            .filter_map(|(key, _)| Some((ino_of(key)?, name_of(key))))
            .map(|(parent, name)| {
                let dir = planner.peek::<Stored>(&keys::inode(parent))?;
                let base = dir.map(|(stored, _)| shown_by(&stored)).transpose()?.flatten();
                let at = base.map(|base| base.join(name)).transpose()?;
                Ok(Whiteout {
                    parent,
                    name: name.to_vec(),
                    at,
                })
            })
            .collect()
    }

    /// Lets every directory from `ino` down show the base at its own present path, one by one: after their content was copied
    /// there, or after what was hidden there is gone. Answers how many changed. Where the directory moves meanwhile the walk
    /// goes on with its new path: the caller asks [`Namespace::path_of`] again and moves what is left.
    ///
    /// Whiteouts stay: a base name deleted while the content was being copied must not show again.
    pub async fn rebase(&self, ino: Ino) -> Result<u64> {
        let mut changed = 0;
        let mut open: Vec<(Ino, Vec<u8>)> = vec![(ino, Vec::new())];
        changed += u64::from(self.rebase_one(ino).await?);
        while let Some((dir, after)) = open.pop() {
            let start = keys::dentry(dir, &after);
            let rows = self.store.scan(start..prefix_end(&keys::dentries(dir)), PAGE).await?;
            if rows.len() == PAGE {
                let mut next = rows.last().map(|(key, _)| name_of(key).to_vec()).unwrap_or_default();
                next.push(0);
                open.push((dir, next));
            }
            for (_, entry) in rows {
                let dentry: Dentry = row::decode(&entry.value)?;
                if dentry.kind == DentryKind::Dir {
                    changed += u64::from(self.rebase_one(dentry.ino).await?);
                    open.push((dentry.ino, Vec::new()));
                }
            }
        }
        Ok(changed)
    }

    /// Whether the directory showed another base path before.
    async fn rebase_one(&self, ino: Ino) -> Result<bool> {
        for attempt in 0..REBASE_ATTEMPTS_MAX {
            if attempt > 1 {
                self.clock.sleep(Duration::from_millis(u64::from(attempt))).await;
            }
            let mut planner = self.planner();
            let outcome = match planner.rebase(ino).await {
                Ok(true) => self.commit(planner.finish()?, None).await.map(|_| true),
                other => other,
            };
            match outcome {
                Err(NsError::Conflict) => {}
                other => return other,
            }
        }
        Err(NsError::Conflict)
    }
}

impl Planner<'_> {
    /// The present path of an inode, on which the plan then relies, names and directories alike; `None` when it has no name.
    /// With it a transaction holds only if the inode still lies there.
    pub async fn pin_path(&mut self, ino: Ino) -> Result<Option<Path>> {
        let Some((path, chain)) = self.ns.path_and_chain(ino).await? else {
            return Ok(None);
        };
        let names = chain.iter().skip(1).zip(path.components().iter().rev());
        let dentries: Vec<Key> = names.map(|(parent, name)| keys::dentry(*parent, name)).collect();
        let rows: Vec<Key> = chain
            .iter()
            .map(|ino| keys::inode(*ino))
            .chain(dentries.iter().cloned())
            .collect();
        self.fetch(rows.clone()).await?;
        for key in rows {
            self.share(key);
        }
        for (dentry, ino) in dentries.iter().zip(&chain) {
            if self.peek::<Dentry>(dentry)?.map(|(dentry, _)| dentry.ino) != Some(*ino) {
                return Err(NsError::Conflict);
            }
        }
        Ok(Some(path))
    }

    /// Whether the row goes.
    async fn forget(&mut self, ino: Ino, at: &Path) -> Result<bool> {
        let Some((stored, _)) = self.stored(ino).await? else {
            return Ok(false);
        };
        let Some(link) = &stored.link else { return Ok(false) };
        let (parent, name) = (link.parent, link.name.as_slice());
        if self.ns.base.hides(at) || !self.shows_at(parent, name, at).await? {
            return Ok(false);
        }
        if stored.inode.is_dir() && !self.forgettable_dir(ino, &stored, at).await? {
            return Ok(false);
        }
        let (dentry, whiteout) = (keys::dentry(parent, name), keys::whiteout(parent, name));
        self.fetch([dentry.clone(), whiteout.clone()]).await?;
        self.share(keys::inode(parent));
        for key in [keys::inode(ino), dentry, whiteout] {
            self.need(key.clone());
            self.erase(key);
        }
        Ok(true)
    }

    /// Whether `name` in `parent` shows the base path `at` once its row and whiteout are gone.
    async fn shows_at(&mut self, parent: Ino, name: &[u8], at: &Path) -> Result<bool> {
        let Some((stored, _)) = self.stored(parent).await? else {
            return Ok(false);
        };
        let dir = Dir {
            ino: parent,
            base: shown_by(&stored)?,
            path: Path::root(),
            bare: false,
        };
        Ok(dir.base_of(name)?.as_ref() == Some(at))
    }

    async fn forgettable_dir(&mut self, ino: Ino, stored: &Stored, at: &Path) -> Result<bool> {
        if shown_by(stored)?.as_ref() != Some(at) {
            return Ok(false);
        }
        for prefix in [keys::dentries(ino), keys::whiteouts(ino)] {
            if !self
                .ns
                .store
                .scan(prefix.clone()..prefix_end(&prefix), 1)
                .await?
                .is_empty()
            {
                return Ok(false);
            }
            self.need_empty(prefix, ino);
        }
        Ok(true)
    }

    /// Whether the directory is to be changed.
    async fn rebase(&mut self, ino: Ino) -> Result<bool> {
        let Some(path) = self.pin_path(ino).await? else {
            return Ok(false);
        };
        let Some((mut stored, _)) = self.stored(ino).await? else {
            return Ok(false);
        };
        let natural = Kind::Dir {
            base: Some(path.as_bytes()),
        };
        if !stored.inode.is_dir() || stored.inode.kind == natural {
            return Ok(false);
        }
        stored.inode.kind = natural;
        self.need(keys::inode(ino));
        self.write(keys::inode(ino), &stored);
        Ok(true)
    }
}

/// The base path that shows through a directory's row.
fn shown_by(stored: &Stored) -> Result<Option<Path>> {
    match &stored.inode.kind {
        Kind::Dir { base } => base_path(base),
        _ => Ok(None),
    }
}
