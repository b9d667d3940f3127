//! The names that an overwrite takes away, and whether it may take them away unseen while the store is away.

use super::{Before, Publication, SUCCESS};
use crate::{Error, Result, cache::Inner, dataset::retire::OldPart, rows};
use forebay_namespace::{Ino, Kind, Node, NsError, Path, Planner};
use std::sync::Arc;

/// Files of others that an overwrite takes away.
const FOREIGN_AT_ONCE: usize = 120;

/// Names that a publish takes away.
#[derive(Default)]
pub(super) struct Going {
    pub(super) names: Vec<Path>,
    /// Of others' files only those that have rows are among them.
    pub(super) unseen: bool,
}

impl Inner {
    /// Names that an overwrite takes away: of old parts, of files of others, of a marker that is not true any more.
    pub(super) async fn names_to_remove(
        self: &Arc<Self>,
        planner: &mut Planner<'_>,
        publication: &Publication<'_>,
        before: &Before,
        old: &[OldPart],
        dir: Ino,
    ) -> Result<Going> {
        let (mut names, mut unseen) = (Vec::new(), false);
        let path = &publication.live.path;
        for old in old {
            if planner.resolve(&old.name).await?.is_some_and(|node| old.part.is(&node)) {
                names.push(old.name.clone());
            }
        }
        let foreign = match self.foreign_files(path, FOREIGN_AT_ONCE + 1).await {
            Err(error) if error.is_away() && self.goes_unseen(planner, path, before, old).await? => {
                unseen = true;
                self.foreign_rows(dir, path, FOREIGN_AT_ONCE + 1).await?
            }
            foreign => foreign?,
        };
        if foreign.len() > FOREIGN_AT_ONCE {
            return Err(Error::precondition(format!(
                "{path}: holds more than {FOREIGN_AT_ONCE} files that others wrote; delete the directory, then publish"
            )));
        }
        names.extend(foreign);
        let marker = path.join(SUCCESS)?;
        let marked = match planner.resolve(&marker).await {
            Err(NsError::Base(_)) if unseen => false,
            node => node?.is_some_and(|node| !node.is_dir()),
        };
        if marked && !publication.success_file {
            names.push(marker);
        }
        Ok(Going { names, unseen })
    }

    /// Whether an overwrite goes on although its store is away: what others have directly in the directory can go later, if that is
    /// where the store has it, and if no part of ours that is to lose its name is to be found only there.
    async fn goes_unseen(
        self: &Arc<Self>,
        planner: &mut Planner<'_>,
        path: &Path,
        before: &Before,
        old: &[OldPart],
    ) -> Result<bool> {
        let at_its_place = match planner.resolve(path).await? {
            Some(Node::Row { inode, .. }) => {
                inode.kind
                    == Kind::Dir {
                        base: Some(path.as_bytes()),
                    }
            }
            _ => false,
        };
        if !at_its_place || !self.mounts.is_away(path) {
            return Ok(false);
        }
        match (before.dir, &before.head) {
            (Some(dir), Some((head, ..))) => match self.names_are_here(path, dir, head.version, old).await {
                Err(error) if error.is_away() => Ok(false),
                answer => answer,
            },
            _ => Ok(true),
        }
    }

    /// Whether everything that an overwrite leaves to later steps of the dataset's parts has a row.
    async fn names_are_here(self: &Arc<Self>, path: &Path, dir: Ino, head: u64, old: &[OldPart]) -> Result<bool> {
        let sweep = self.components.meta.get(&[rows::sweep_key(dir)]).await?.pop().flatten();
        if sweep.is_some() {
            self.sweep(dir).await?;
        }
        for part in self.read_version_parts(dir, head).await? {
            let name = path.join(&part.name())?;
            if old.iter().any(|old| old.name == name) {
                continue;
            }
            if let Some(Node::Base { .. }) = self.names.resolve(&name).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
