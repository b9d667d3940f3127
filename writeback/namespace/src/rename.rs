//! Rename of files, symlinks and whole directories: replacing, not replacing, exchanging.
//!
//! # Why two renames can not make a loop
//!
//! A loop needs two directories, each moved below the other. Moving a directory relies on the inode row of every ancestor of the
//! target, and writes the inode row of the directory (its way back to the name). If A moves below B while B moves below A, each
//! plan relies on a row that the other writes, so the one that commits second is refused. There is no global lock: renames
//! whose paths have nothing but ancestors in common share those and pass side by side.

use crate::{
    create::split,
    planner::{Dir, Missing},
    *,
};

/// How to rename.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameHow {
    /// A file or an empty directory at the target gives way (a file to a file, a directory to a directory).
    pub replace: bool,
    /// Both exist and change places. `replace` is ignored.
    pub exchange: bool,
    /// Missing parents of the target are created.
    pub parents: bool,
}

/// What a rename does.
#[derive(Clone, Debug)]
pub struct Renamed {
    /// What to commit. Empty inside a [`Planner`], whose `finish` gives it; also when both names are the same.
    pub plan: Plan,
    /// The inode that moves, as the plan writes it ([`Plan::amend`] changes it). A base node gets its row with this plan:
    /// a file with the content that [`Base::adopt`] gave, a directory that shows the base path it showed. When both names are
    /// the same: what is there, with inode number 0 if it has no row.
    pub moved: (Ino, Inode),
    /// What was at the target, and is gone; with `exchange`, what moves to the source, as the plan writes it.
    pub replaced: Option<Node>,
    /// The base path that a whiteout now hides at the source; see [`Unlinked::whiteout`]. A directory's content is still to be
    /// moved from its `base`, which need not be this path.
    pub whiteout: Option<Path>,
}

impl Planner<'_> {
    /// Renames. Into itself is [`NsError::Invalid`], onto itself changes nothing.
    pub async fn rename(&mut self, from: &Path, to: &Path, how: RenameHow) -> Result<Renamed> {
        let ((from_parent, from_name), (to_parent, to_name)) = (split(from)?, split(to)?);
        let below = to.starts_with(from) || how.exchange && from.starts_with(to);
        if below && from != to {
            return Err(NsError::Invalid(format!("{from}: can not be moved into itself ({to})")));
        }
        let source = self
            .resolve(from)
            .await?
            .ok_or_else(|| NsError::NotFound(from.clone()))?;
        if from == to {
            return Ok(self.unmoved(source));
        }
        // The parents get their rows before the target is looked at, so that what is found there has one too or needs none.
        let from_dir = self.directory(&from_parent, Missing::Refuse).await?;
        let to_dir = self
            .directory(&to_parent, if how.parents { Missing::Create } else { Missing::Refuse })
            .await?;
        self.fetch(names(&from_dir, from_name).into_iter().chain(names(&to_dir, to_name)))
            .await?;
        let target = self.child(&to_dir, to_name).await?;
        if source.is_dir() {
            self.share_ancestors(&to_dir, source.ino()).await?;
        }
        if how.exchange {
            let target = target.ok_or_else(|| NsError::NotFound(to.clone()))?;
            if target.is_dir() {
                self.share_ancestors(&from_dir, target.ino()).await?;
            }
            return self
                .exchange((&from_dir, from_name, source), (&to_dir, to_name, target))
                .await;
        }
        if let Some(target) = &target {
            self.give_way_to(&source, to, target, how.replace).await?;
        }
        let whiteout = self.take_name(&from_dir, from, &source)?;
        let moved = self.settle_at(&to_dir, to_name, source).await?;
        Ok(Renamed {
            plan: Plan::default(),
            moved,
            replaced: target,
            whiteout,
        })
    }

    fn unmoved(&self, source: Node) -> Renamed {
        let moved = match source {
            Node::Row { ino, inode, .. } => (ino, inode),
            Node::Base { at, entry } => (Ino(0), self.base_inode(&at, &entry)),
        };
        Renamed {
            plan: Plan::default(),
            moved,
            replaced: None,
            whiteout: None,
        }
    }

    /// Ends what is at the target, as far as the rules allow.
    async fn give_way_to(&mut self, source: &Node, to: &Path, target: &Node, replace: bool) -> Result<()> {
        if !replace {
            return Err(NsError::Exists(to.clone()));
        }
        match (source.is_dir(), target.is_dir()) {
            (true, false) => return Err(NsError::NotADirectory(to.clone())),
            (false, true) => return Err(NsError::IsADirectory(to.clone())),
            (true, true) => self.end_empty(to, target).await?,
            (false, false) => {
                if let Node::Row { ino, .. } = target {
                    self.end_inode(*ino).await?;
                }
            }
        }
        Ok(())
    }

    async fn exchange(&mut self, a: (&Dir, &[u8], Node), b: (&Dir, &[u8], Node)) -> Result<Renamed> {
        for (dir, name, node) in [&a, &b] {
            if matches!(node, Node::Base { .. }) {
                self.need(keys::whiteout(dir.ino, name));
            }
        }
        let moved = self.settle_at(b.0, b.1, a.2).await?;
        let (ino, inode) = self.settle_at(a.0, a.1, b.2).await?;
        let replaced = Some(Node::Row {
            ino,
            inode,
            version: Version(0),
        });
        Ok(Renamed {
            plan: Plan::default(),
            moved,
            replaced,
            whiteout: None,
        })
    }

    /// Gives `node` the name in `dir`, and a row if it has none.
    async fn settle_at(&mut self, dir: &Dir, name: &[u8], node: Node) -> Result<(Ino, Inode)> {
        let (ino, mut inode) = match node {
            Node::Row { ino, inode, .. } => {
                self.fetch([keys::inode(ino)]).await?;
                self.need(keys::inode(ino));
                (ino, inode)
            }
            Node::Base { at, entry } => (self.ns.allocate_ino().await?, self.base_inode(&at, &entry)),
        };
        inode.ctime = self.now;
        let inode = self.link(dir.ino, name, ino, inode);
        Ok((ino, inode))
    }

    /// Relies on everything that leads from the root to `dir`; `moving` must not be among it.
    async fn share_ancestors(&mut self, dir: &Dir, moving: Option<Ino>) -> Result<()> {
        let walk = self.walk(&dir.path).await?;
        let chain: Vec<Ino> = walk.dirs.iter().map(|dir| dir.ino).chain([dir.ino]).collect();
        if moving.is_some_and(|moving| chain.contains(&moving)) {
            // The path says otherwise: a rename was committed between two reads.
            return Err(NsError::Conflict);
        }
        for ino in &chain {
            self.share(keys::inode(*ino));
        }
        for (parent, name) in chain.iter().zip(dir.path.components()) {
            self.share(keys::dentry(*parent, name));
        }
        Ok(())
    }
}

fn names(dir: &Dir, name: &[u8]) -> [forebay_metastore::Key; 2] {
    [keys::dentry(dir.ino, name), keys::whiteout(dir.ino, name)]
}
