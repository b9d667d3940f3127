//! Joining files: the bytes of others go behind those of one, and the others are gone, in one commit.
//!
//! It copies, in bounded pieces, as every change of a content does. Whoever reads meanwhile sees all the files as they were, and then the
//! joined one alone.

use super::{
    FileReader, SealedContent, WriteFile, WriteMode, copy,
    place::{GENERATION, check_target, create, size_of},
};
use crate::{Cache, Error, ErrorKind, Result, cache::Inner, changes::Change, dataset::Unnamed, rows::Content};
use forebay_namespace::{Ino, Path, Plan, Unlinked};
use std::{collections::BTreeSet, sync::Arc};

/// Most files joined at once: all of them change in one transaction.
pub const CONCAT_MAX: usize = 200;

impl Cache {
    /// Appends the files `others`, in this order, to the file at `path`, and removes them.
    ///
    /// # Errors
    /// NotFound when one of them is missing; Precondition for a directory; Invalid when there are none, more than [`CONCAT_MAX`], or
    /// one twice; Full when the whole could never be dirty at once.
    pub async fn concat(&self, path: &Path, others: &[Path]) -> Result<()> {
        check_others(path, others)?;
        let (inner, path, others) = (Arc::clone(&self.inner), path.clone(), others.to_vec());
        self.inner
            .to_the_end("concat", async move { inner.concat(&path, &others).await })
            .await
    }
}

fn check_others(path: &Path, others: &[Path]) -> Result<()> {
    let distinct: BTreeSet<&Path> = others.iter().chain([path]).collect();
    if others.is_empty() {
        return Err(Error::invalid(format!(
            "{path}: no files are named to be appended to it"
        )));
    }
    if others.len() > CONCAT_MAX {
        return Err(Error::invalid(format!(
            "{path}: {} files to be appended at once; at most {CONCAT_MAX} are",
            others.len()
        )));
    }
    if distinct.len() != others.len() + 1 {
        return Err(Error::invalid(format!(
            "{path}: a file is named twice; each can be appended once, and none to itself"
        )));
    }
    Ok(())
}

/// What was joined, and what it was joined from.
struct Joined {
    sealed: SealedContent,
    /// Of the file itself first, then of the others.
    identities: Vec<String>,
}

impl Inner {
    async fn concat(self: &Arc<Self>, path: &Path, others: &[Path]) -> Result<()> {
        let _entered = self.enter()?;
        for path in others.iter().chain([path]) {
            self.check_writable(path)?;
        }
        let _turn = self.files.turns.take(path).await;
        let mut attempts = self.attempts(format!("concat {path}"));
        loop {
            let joined = self.join_contents(path, others).await?;
            match self.try_concat(path, others, &joined).await {
                Ok(Some((replaced, removed))) => {
                    self.written(joined.sealed, Some(replaced));
                    removed.iter().for_each(|gone| self.part_with(gone));
                    break;
                }
                Ok(None) => attempts.after(Error::lost()).await?,
                Err(error) if error.kind() == ErrorKind::Deadline => {
                    joined.sealed.in_doubt();
                    return Err(error);
                }
                Err(error) => attempts.after(error).await?,
            }
        }
        for path in others.iter().chain([path]) {
            self.tell(Change::Name(path.clone())).await;
        }
        Ok(())
    }

    /// A content of all the bytes.
    async fn join_contents(self: &Arc<Self>, path: &Path, others: &[Path]) -> Result<Joined> {
        let (mut readers, mut bytes) = (Vec::new(), 0);
        for path in [path].into_iter().chain(others) {
            let node = self.look(path).await?;
            let node = node.ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
            check_target(path, &how(), Some(&node))?;
            bytes += size_of(&node);
            readers.push(self.read_node(path.to_string(), &node)?);
        }
        self.dirty.check_size(bytes)?;
        let mut content = self.content_writer(self.fresh_ino().await?, GENERATION, Some(bytes));
        for reader in &readers {
            copy::range(reader, 0..reader.size(), &mut content).await?;
        }
        Ok(Joined {
            sealed: content.seal().await?,
            identities: readers.iter().map(FileReader::identity).collect(),
        })
    }

    /// Plans and commits once. `None`: one of them has another content by now.
    async fn try_concat(
        &self,
        path: &Path,
        others: &[Path],
        joined: &Joined,
    ) -> Result<Option<(Unnamed, Vec<Unnamed>)>> {
        let Joined { sealed, identities } = joined;
        let ino = Ino(sealed.stream().0);
        let mut planner = self.names.planner();
        let planned = planner.create(path, create(&how(), sealed, ino)).await?;
        let mut removed = Vec::with_capacity(others.len());
        for other in others {
            removed.push(planner.unlink(other).await?);
        }
        let before = planned.replaced.iter().chain(removed.iter().map(|gone| &gone.node));
        let now: Vec<String> = before.filter_map(|node| self.identity_of(node)).collect();
        let (Some(replaced), true) = (planned.replaced, now == *identities) else {
            return Ok(None);
        };
        let mut plan = planner.finish()?;
        let work = self
            .persist
            .plan_put(&mut plan, ino, GENERATION, path, Some(&replaced))
            .await?;
        let content = Content::Sealed {
            layout: sealed.layout.clone(),
            work,
            crc: sealed.crc,
        };
        plan.amend(ino, |inode| {
            inode.content = content.encode();
            inode.inherit(&replaced);
        })?;
        let kept = self.plan_kept_by_versions(&mut plan, path, Some(&replaced)).await?;
        let removed = self.plan_gone(&mut plan, others, removed).await?;
        self.commit(plan).await?;
        Ok(Some((Unnamed { node: replaced, kept }, removed)))
    }

    /// The persister's work for what goes, and what versions keep of it.
    async fn plan_gone(&self, plan: &mut Plan, paths: &[Path], removed: Vec<Unlinked>) -> Result<Vec<Unnamed>> {
        let mut gone = Vec::with_capacity(removed.len());
        for (path, Unlinked { node, whiteout, .. }) in paths.iter().zip(removed) {
            self.persist.plan_removed(plan, &node, path, whiteout.as_ref()).await?;
            let kept = self.plan_kept_by_versions(plan, path, Some(&node)).await?;
            gone.push(Unnamed { node, kept });
        }
        Ok(gone)
    }
}

/// How the joined content takes the name.
fn how() -> WriteFile {
    WriteFile {
        mode: WriteMode::Overwrite,
        ..WriteFile::default()
    }
}
