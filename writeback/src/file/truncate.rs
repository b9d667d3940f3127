//! Cutting a file, or extending it with zeros: a new content, visible whole.

use super::{
    SealedContent, WriteFile, WriteMode, copy,
    place::{GENERATION, Ground, Target, Tried, check_target, with_token},
};
use crate::{Cache, Error, ErrorKind, Result, cache::Inner, changes::Change};
use forebay_metastore::Announced;
use forebay_namespace::Path;
use std::sync::Arc;

impl Cache {
    /// Cuts a file or extends it with zeros; a new content, visible whole. Precondition for a directory; Full when it could
    /// never be dirty at once.
    pub async fn truncate(&self, path: &Path, size: u64) -> Result<()> {
        let (inner, name) = (Arc::clone(&self.inner), path.clone());
        self.inner
            .to_the_end("truncate", async move { inner.truncate(&name, size).await })
            .await?;
        self.reach_level(path).await
    }
}

impl Inner {
    async fn truncate(self: &Arc<Self>, path: &Path, size: u64) -> Result<()> {
        let _entered = self.enter()?;
        self.check_writable(path)?;
        self.dirty.check_size(size)?;
        let turn = self.files.turns.take(path).await;
        let mut attempts = self.attempts(format!("truncate {path}"));
        loop {
            let (sealed, target) = self.cut_copy(path, size).await?;
            match self.try_write(&target, &sealed, Announced::default()).await {
                Ok(Tried::Done { replaced }) => {
                    self.written(sealed, replaced);
                    drop(turn);
                    self.tell(Change::Name(path.clone())).await;
                    return Ok(());
                }
                Ok(Tried::Moved | Tried::Repeated(_)) => attempts.after(Error::lost()).await?,
                Err(error) if error.kind() == ErrorKind::Deadline => {
                    sealed.in_doubt();
                    return Err(with_token(error, path, None));
                }
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// The first `size` bytes of the file at `path`, zeros behind its end.
    async fn cut_copy(self: &Arc<Self>, path: &Path, size: u64) -> Result<(SealedContent, Target)> {
        let node = self
            .look(path)
            .await?
            .ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
        let how = WriteFile {
            mode: WriteMode::Overwrite,
            ..WriteFile::default()
        };
        check_target(path, &how, Some(&node))?;
        let old = self.read_node(path.to_string(), &node)?;
        let kept = old.size().min(size);
        let mut content = self.content_writer(self.fresh_ino().await?, GENERATION, Some(size));
        copy::range(&old, 0..kept, &mut content).await?;
        copy::zeros(size - kept, &mut content).await?;
        let ground = Ground::Exactly {
            identity: Some(old.identity()),
            ino: node.ino(),
            len: kept,
        };
        Ok((
            content.seal().await?,
            Target {
                path: path.clone(),
                how,
                level: self.ack_level_at(path),
                ground,
                note: None,
            },
        ))
    }
}
