//! Changes that others made to a store: seen when a file is looked at, as the policies say, and by a comparison from time to time.
//!
//! A comparison asks the store first. Only when it answers is what was remembered of it forgotten, and each persisted file of ours
//! compared with what is there: deleted, replaced, shorter, longer. What is new shows by itself then. A store that does not answer
//! changes nothing: what was known stays, the failure is told in `status`, and the comparison is made again soon.
//!
//! It does not own which bytes are cached (`clean`): those are kept by validator, so that other bytes are other ones.

mod interval;

use super::Mount;
use crate::{
    Cache, Error, Result,
    cache::Inner,
    changes::Change,
    rows::{Content, StoreAt},
};
use forebay_namespace::{Ino, Inode, Kind, Node, Path};
use forebay_runtime::clock::Timestamp;
use forebay_segment::StreamId;
use std::{collections::BTreeSet, sync::Arc};

/// How the last comparison with a store went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    /// When the last one that went well ended.
    pub(crate) last: Option<Timestamp>,
    /// Why the one after that failed.
    pub(crate) failed: Option<String>,
}

impl Cache {
    /// Looks again at the under-store below `path`: what was deleted, replaced, shortened, or is new there shows afterwards.
    /// Unavailable (with `wait`) when a store does not answer; what was known of it stays.
    pub async fn sync(&self, path: &Path, wait: bool) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        if wait {
            return inner.look_again(path).await;
        }
        let path = path.clone();
        self.inner.tasks.spawn("sync", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                synced = inner.look_again(&path) => if let Err(error) = synced {
                    tracing::warn!(%path, %error, "not everything was compared with the under-store");
                },
            }
        });
        Ok(())
    }
}

/// A persisted file, and where its store has it.
struct Persisted<'a> {
    ino: Ino,
    inode: &'a Inode,
    mount: Arc<Mount>,
    at: StoreAt,
    /// The path of that place.
    place: Path,
}

impl Inner {
    /// A persisted file as it is now, as far as the policies want it asked for: where the under-store has something else by now, the
    /// row goes and that shows. A store that is away changes nothing.
    pub(crate) async fn revalidate(&self, path: &Path, node: Node) -> Result<Option<Node>> {
        let Some(file) = self.persisted(path, &node)? else {
            return Ok(Some(node));
        };
        if self.mounts.believes_rows(&file.mount, path) {
            return Ok(Some(node));
        }
        match self.mounts.base().stat(&file.place).await {
            Ok(Some(entry)) if entry.validator == file.at.validator => return Ok(Some(node)),
            Err(_) => return Ok(Some(node)),
            Ok(_) => {}
        }
        // The remembered answer may be older than our own write.
        match self.compare(&file, &node).await {
            Ok(true) => Ok(self.names.resolve(path).await?),
            Ok(false) | Err(_) => Ok(Some(node)),
        }
    }

    /// The persisted file that a node is, if its name still leads to where the store has it: an old version's part is not there.
    fn persisted<'a>(&self, path: &Path, node: &'a Node) -> Result<Option<Persisted<'a>>> {
        let Node::Row { ino, inode, .. } = node else {
            return Ok(None);
        };
        if inode.kind != Kind::File {
            return Ok(None);
        }
        let Content::Persisted { at, work: None, .. } = Content::decode(&inode.content)? else {
            return Ok(None);
        };
        let Some(mount) = self.mounts.by_id(at.mount) else {
            return Ok(None);
        };
        let place = mount.path_of(&at.key)?;
        let file = Persisted {
            ino: *ino,
            inode,
            mount,
            at,
            place,
        };
        Ok((file.place == *path).then_some(file))
    }

    /// Asks the store what is there, and takes the row away when that is something else. Says whether it was.
    async fn compare(&self, file: &Persisted<'_>, node: &Node) -> Result<bool> {
        let Persisted {
            ino,
            inode,
            mount,
            at,
            place,
        } = file;
        let found = mount.health.ask(mount.store.head(&at.key)).await;
        let found = found.map_err(|error| super::named(&mount.url, error))?;
        if found.is_some_and(|found| found.validator.0 == at.validator) {
            return Ok(false);
        }
        self.mounts.changed(at.mount, &at.key);
        if let Some(plan) = self.names.plan_forget(*ino, place).await? {
            match self.commit(plan).await {
                Ok(_) => {
                    self.clean.forget_copy(StreamId(ino.0, inode.generation));
                    self.discard_node(node);
                }
                Err(error) if error.is_lost() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Something else was read than the policies would have let be asked for: the name shows it from now on.
    pub(crate) async fn noticed(&self, mount: &Mount, key: &str) -> Result<()> {
        self.mounts.changed(mount.id, key);
        let path = mount.path_of(key)?;
        if let Some(node) = self.names.resolve(&path).await?
            && let Some(file) = self.persisted(&path, &node)?
        {
            self.compare(&file, &node).await?;
        }
        Ok(())
    }

    /// Compares what lies below `path` with its stores, and tells the doors.
    async fn look_again(self: &Arc<Self>, path: &Path) -> Result<()> {
        let mut failed = None;
        let above = self.mounts.resolve(path).map(|(mount, _)| mount);
        let below = self.mounts.all();
        let below = below.iter().filter(|mount| mount.path.starts_with(path)).cloned();
        let mut mounts: Vec<Arc<Mount>> = above.into_iter().chain(below).collect();
        mounts.dedup_by_key(|mount| mount.id);
        let mut answering = BTreeSet::new();
        for mount in mounts {
            match self.forget_answers(&mount).await {
                Ok(()) => drop(answering.insert(mount.id)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.mounts.listings_changed();
        let compared = match failed {
            // Its listings would fail as well.
            Some(error) => Err(error),
            None => self.compare_below(path).await,
        };
        for id in answering {
            self.note_synced(id, compared.as_ref().err());
        }
        self.tell(Change::Under(path.clone())).await;
        compared
    }

    async fn compare_below(&self, path: &Path) -> Result<()> {
        let rows = match self.names.resolve(path).await? {
            Some(node) if node.is_dir() => self.rows_below(path).await?,
            Some(node) => vec![(path.clone(), node)],
            None => Vec::new(),
        };
        for (path, node) in rows {
            if let Some(file) = self.persisted(&path, &node)? {
                self.compare(&file, &node).await?;
            }
        }
        Ok(())
    }

    /// Forgets what was remembered of a store that answers; one that does not is noted.
    async fn forget_answers(&self, mount: &Mount) -> Result<()> {
        match mount.health.ask(mount.store.head("")).await {
            Ok(_) => {
                mount.forget_answers();
                Ok(())
            }
            Err(error) => {
                let error = super::named(&mount.url, error);
                self.note_synced(mount.id, Some(&error));
                Err(error)
            }
        }
    }

    fn note_synced(&self, mount: u32, error: Option<&Error>) {
        let Some(mount) = self.mounts.by_id(mount) else { return };
        let mut synced = mount.synced.lock();
        match error {
            None => {
                *synced = Synced {
                    last: Some(self.components.clock.now()),
                    failed: None,
                };
            }
            Some(error) => {
                if synced.failed.is_none() {
                    tracing::warn!(path = %mount.path, url = mount.url, %error, "not compared with the under-store; trying again");
                }
                synced.failed = Some(error.to_string());
            }
        }
    }
}
