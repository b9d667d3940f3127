//! unlink, rmdir, and cutting off a whole directory.

use crate::{
    create::split,
    planner::{Dir, Missing, Reached, base_path},
    row::Stored,
    *,
};
use forebay_metastore::prefix_end;

/// Entries of the base looked at in one go to find one that shows.
const BASE_PAGE: usize = 256;

/// What a removal takes away.
#[derive(Clone, Debug)]
pub struct Unlinked {
    /// What to commit. Empty inside a [`Planner`], whose `finish` gives it.
    pub plan: Plan,
    /// What was there. A directory's `base` may be another path than [`Unlinked::whiteout`] (it was renamed and its content has
    /// not been moved): then nothing shows there any more either.
    pub node: Node,
    /// The base path that a whiteout now hides at this name, or will hide once its directory shows the base. The engine removes it from the under-store, then lets
    /// [`Namespace::plan_forget_whiteout`] take the whiteout away, unless there is later work for the same path.
    pub whiteout: Option<Path>,
}

/// A name that is about to go.
struct Found {
    dir: Dir,
    node: Node,
}

impl Planner<'_> {
    /// Removes a file or symlink. [`NsError::IsADirectory`] at a directory.
    pub async fn unlink(&mut self, path: &Path) -> Result<Unlinked> {
        let Found { dir, node } = self.find(path).await?;
        if node.is_dir() {
            return Err(NsError::IsADirectory(path.clone()));
        }
        if let Node::Row { ino, .. } = &node {
            self.end_inode(*ino).await?;
        }
        let whiteout = self.take_name(&dir, path, &node)?;
        Ok(Unlinked {
            plan: Plan::default(),
            node,
            whiteout,
        })
    }

    /// As [`Planner::unlink`], where the caller vouches that the base can not hold the name (it carries something unique, and nothing
    /// was ever brought there): no whiteout is left. Only what has a row can go so: [`NsError::NotFound`] where there is none.
    pub async fn unlink_unseen(&mut self, path: &Path) -> Result<Node> {
        let Found { dir, node } = self.find(path).await?;
        let (_, name) = split(path)?;
        match &node {
            Node::Row { inode, .. } if inode.is_dir() => return Err(NsError::IsADirectory(path.clone())),
            Node::Row { ino, .. } => self.end_inode(*ino).await?,
            Node::Base { .. } => return Err(NsError::NotFound(path.clone())),
        }
        let dentry = keys::dentry(dir.ino, name);
        self.share(keys::inode(dir.ino));
        self.need(dentry.clone());
        self.erase(dentry);
        Ok(node)
    }

    /// Removes an empty directory. [`NsError::NotEmpty`] when something shows in it.
    pub async fn rmdir(&mut self, path: &Path) -> Result<Unlinked> {
        let Found { dir, node } = self.find(path).await?;
        if !node.is_dir() {
            return Err(NsError::NotADirectory(path.clone()));
        }
        self.end_empty(path, &node).await?;
        let whiteout = self.take_name(&dir, path, &node)?;
        Ok(Unlinked {
            plan: Plan::default(),
            node,
            whiteout,
        })
    }

    /// Cuts off a directory with everything under it, however much, in one step; [`Namespace::plan_collect`] then finds the
    /// rows that lost their path. A file is unlinked.
    pub async fn detach(&mut self, path: &Path) -> Result<Unlinked> {
        let Found { dir, node } = self.find(path).await?;
        match &node {
            Node::Row { ino, inode, .. } if inode.is_dir() => self.cut_off(*ino).await?,
            Node::Row { ino, .. } => self.end_inode(*ino).await?,
            Node::Base { .. } => {}
        }
        let whiteout = self.take_name(&dir, path, &node)?;
        Ok(Unlinked {
            plan: Plan::default(),
            node,
            whiteout,
        })
    }

    /// Drops the row of an inode with `nlink` 0. `None` when it has a name, or no row.
    pub async fn drop_nameless(&mut self, ino: Ino) -> Result<Option<Inode>> {
        match self.stored(ino).await? {
            Some((stored, _)) if stored.inode.nlink == 0 && !stored.inode.is_dir() => {
                self.need(keys::inode(ino));
                self.erase(keys::inode(ino));
                Ok(Some(stored.inode))
            }
            _ => Ok(None),
        }
    }

    /// What is at `path`, and its directory with a row.
    async fn find(&mut self, path: &Path) -> Result<Found> {
        let (parent, name) = split(path)?;
        let walk = self.walk(path).await?;
        let row = matches!(walk.reached, Reached::Row { .. });
        let node = self
            .node(walk.reached)
            .await?
            .ok_or_else(|| NsError::NotFound(path.clone()))?;
        let dir = self.directory(&parent, Missing::Refuse).await?;
        self.fetch([keys::dentry(dir.ino, name), keys::whiteout(dir.ino, name)])
            .await?;
        debug_assert_eq!(row, self.exists(&keys::dentry(dir.ino, name)));
        Ok(Found { dir, node })
    }

    /// Takes the name away from `node`, and hides what the base may show there.
    pub(crate) fn take_name(&mut self, dir: &Dir, path: &Path, node: &Node) -> Result<Option<Path>> {
        let (_, name) = split(path)?;
        let (dentry, whiteout) = (keys::dentry(dir.ino, name), keys::whiteout(dir.ino, name));
        self.share(keys::inode(dir.ino));
        self.need(dentry.clone());
        // A directory that shows another path, or nothing, will show its own one day: what lies there by then must not show either.
        let mut hidden = dir.base_of(name)?.into_iter().chain([path.clone()]);
        let at = match node {
            Node::Row { inode, .. } => {
                self.erase(dentry);
                hidden.find(|at| self.ns.base.may_show(at, inode))
            }
            Node::Base { .. } => {
                self.need(whiteout.clone());
                hidden.next()
            }
        };
        if at.is_some() {
            self.write(whiteout, &self.now.clone());
        }
        Ok(at)
    }

    /// Takes one name from a file or symlink. Its row goes with the last one.
    pub(crate) async fn end_inode(&mut self, ino: Ino) -> Result<()> {
        let key = keys::inode(ino);
        let (mut stored, _) = self.stored(ino).await?.ok_or(NsError::Conflict)?;
        self.need(key.clone());
        stored.link = None;
        stored.inode.nlink = stored.inode.nlink.saturating_sub(1);
        stored.inode.ctime = self.now;
        if stored.inode.nlink > 0 {
            self.write(key, &stored);
        } else {
            self.erase(key);
        }
        Ok(())
    }

    /// Ends the directory `node`, in which nothing may show.
    pub(crate) async fn end_empty(&mut self, path: &Path, node: &Node) -> Result<()> {
        match node {
            Node::Base { at, .. } => match self.ns.base.list(at, None, 1).await?.is_empty() {
                true => Ok(()),
                false => Err(NsError::NotEmpty(path.clone())),
            },
            Node::Row { ino, inode, .. } => {
                self.no_dentries(*ino, path).await?;
                self.nothing_shows(*ino, inode, path).await?;
                if self.as_read(&keys::inode(*ino)).flatten().is_none() {
                    return Err(same_plan(path));
                }
                self.end_dir(*ino).await
            }
        }
    }

    async fn no_dentries(&mut self, ino: Ino, path: &Path) -> Result<()> {
        let prefix = keys::dentries(ino);
        if self.written_under(&prefix).any(Option::is_some) {
            return Err(NsError::NotEmpty(path.clone()));
        }
        // The emptiness is tested against what is committed, so neither a directory that this plan creates nor one whose
        // entries it removes can be.
        let changed = self.written_under(&prefix).next().is_some();
        let rows = self.ns.store.scan(prefix.clone()..prefix_end(&prefix), 1).await?;
        match (changed, rows.is_empty()) {
            (false, false) => return Err(NsError::NotEmpty(path.clone())),
            (true, _) => return Err(same_plan(path)),
            (false, true) => {}
        }
        self.need_empty(prefix, ino);
        Ok(())
    }

    /// That no base name shows through the directory, which has no dentries.
    async fn nothing_shows(&mut self, ino: Ino, inode: &Inode, path: &Path) -> Result<()> {
        let Kind::Dir { base } = &inode.kind else {
            return Err(NsError::NotADirectory(path.clone()));
        };
        let Some(base) = base_path(base)? else { return Ok(()) };
        let mut after: Option<Vec<u8>> = None;
        let mut shown: Option<Vec<u8>> = None;
        loop {
            let page = self.ns.base.list(&base, after.as_deref(), BASE_PAGE).await?;
            let hidden: Vec<_> = page.iter().map(|entry| keys::whiteout(ino, &entry.name)).collect();
            self.fetch(hidden.clone()).await?;
            let shows = hidden.iter().zip(&page).find(|(key, _)| !self.exists(key));
            if let Some((_, entry)) = shows {
                // Its whiteout may have gone with it since the base was asked: then it is not there the next time.
                if shown.as_ref().is_some_and(|shown| *shown >= entry.name) {
                    return Err(NsError::NotEmpty(path.clone()));
                }
                shown = Some(entry.name.clone());
                continue;
            }
            match page.last() {
                Some(last) if page.len() >= BASE_PAGE => after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Ends a directory's row. Whiteouts in it, of which there may be any number, are left to be collected.
    async fn end_dir(&mut self, ino: Ino) -> Result<()> {
        let prefix = keys::whiteouts(ino);
        let written = self.written_under(&prefix).next().is_some();
        if written
            || !self
                .ns
                .store
                .scan(prefix.clone()..prefix_end(&prefix), 1)
                .await?
                .is_empty()
        {
            return self.cut_off(ino).await;
        }
        self.need_empty(prefix, ino);
        self.need(keys::inode(ino));
        self.erase(keys::inode(ino));
        Ok(())
    }

    /// Takes a directory's way back to its name, and leaves what is in it to be collected.
    pub(crate) async fn cut_off(&mut self, ino: Ino) -> Result<()> {
        let key = keys::inode(ino);
        let (mut stored, _): (Stored, _) = self.stored(ino).await?.ok_or(NsError::Conflict)?;
        stored.link = None;
        stored.inode.nlink = 0;
        stored.inode.ctime = self.now;
        self.need(key.clone());
        self.write(key, &stored);
        self.write(keys::dead(ino), &());
        Ok(())
    }
}

fn same_plan(path: &Path) -> NsError {
    NsError::Invalid(format!(
        "{path}: a directory is not removed by the plan that creates it or removes its entries"
    ))
}
