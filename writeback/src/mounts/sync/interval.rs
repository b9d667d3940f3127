//! The comparisons that come by themselves: which paths are due, and a walk over the rows that lie there.
//!
//! A mount is compared as a whole, but for the paths below it that have an interval of their own, and for what lies deeper than
//! `sync_depth`. Only rows are walked: a file without one shows what the store has as soon as what was remembered of it is forgotten, at
//! whatever depth.

use super::super::Mount;
use crate::{Error, ErrorKind, Result, cache::Inner, changes::Change, rows::Content};
use forebay_namespace::{Kind, Path};
use forebay_policy::Key;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Entries of one page of a walk.
const PAGE: usize = 500;
/// Files compared in a row before the walk rests.
const BURST: usize = 100;
/// How long it rests.
const REST: Duration = Duration::from_secs(1);
/// How soon a comparison that failed is made again, at most.
const AGAIN: Duration = Duration::from_secs(10);
/// How soon an interval that was changed is noticed, at most.
const LOOK: Duration = Duration::from_secs(5);

/// How each mount's comparison went, by its number.
type Outcomes = BTreeMap<u32, Option<Error>>;

impl Inner {
    /// Starts the comparisons from time to time.
    pub(crate) fn start_sync(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.tasks.spawn("sync-copies", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.sync_for_ever() => {}
            }
        });
    }

    /// Paths from which on what lies there is compared together, and how often: mounts, and where a policy names another interval.
    fn sync_roots(&self) -> BTreeMap<Path, Duration> {
        let mut roots = BTreeMap::new();
        for mount in self.mounts.all().iter() {
            roots.insert(mount.path.clone(), self.policies.effective(&mount.path).sync_interval);
        }
        for path in self.policies.paths_with(Key::SyncInterval) {
            if self.mounts.resolve(&path).is_some() {
                let interval = self.policies.effective(&path).sync_interval;
                roots.insert(path, interval);
            }
        }
        roots
    }

    async fn sync_for_ever(&self) {
        let clock = &self.components.clock;
        let mut due: BTreeMap<Path, Duration> = BTreeMap::new();
        loop {
            let roots = self.sync_roots();
            let now = clock.monotonic();
            due.retain(|path, _| roots.contains_key(path));
            for (path, interval) in &roots {
                let at = due.entry(path.clone()).or_insert(now + *interval);
                *at = (*at).min(now + *interval);
            }
            let ready: BTreeSet<Path> = due
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(path, _)| path.clone())
                .collect();
            if !ready.is_empty() {
                let failed = self.sync_roots_now(&ready).await;
                let now = clock.monotonic();
                for path in ready {
                    let interval = roots.get(&path).copied().unwrap_or(AGAIN);
                    let again = if failed { interval.min(AGAIN) } else { interval };
                    due.insert(path, now + again);
                }
            }
            let now = clock.monotonic();
            let next = due.values().min().map_or(LOOK, |at| at.saturating_sub(now));
            clock.sleep(next.clamp(Duration::from_millis(100), LOOK)).await;
        }
    }

    /// Compares what lies under these roots and under no other one below them. Says whether anything failed.
    async fn sync_roots_now(&self, ready: &BTreeSet<Path>) -> bool {
        let mut failed = Outcomes::new();
        let mut asked: Vec<Arc<Mount>> = Vec::new();
        for path in ready {
            if let Some((mount, _)) = self.mounts.resolve(path)
                && !asked.iter().any(|known| known.id == mount.id)
            {
                asked.push(mount);
            }
        }
        for mount in &asked {
            let answered = self.forget_answers(mount).await;
            failed.insert(mount.id, answered.err());
        }
        let walked = self.compare_rows(ready, &mut failed).await;
        if let Err(error) = &walked {
            tracing::warn!(%error, "copies were not all compared with the under-store; going on later");
        }
        let mut any = walked.is_err();
        for (id, error) in failed {
            any |= error.is_some();
            self.note_synced(id, error.as_ref());
        }
        any
    }

    async fn compare_rows(&self, ready: &BTreeSet<Path>, failed: &mut Outcomes) -> Result<()> {
        let mut after = None;
        let mut burst = 0;
        loop {
            let page = self.names.inodes(after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for (ino, inode) in page {
                let persisted = matches!(Content::decode(&inode.content), Ok(Content::Persisted { .. }));
                if inode.kind != Kind::File || !persisted {
                    continue;
                }
                let Some(path) = self.names.path_of(ino).await? else {
                    continue;
                };
                if !self
                    .sync_root_of(&path)
                    .is_some_and(|root| ready.contains(&root) && self.within_depth(&root, &path))
                {
                    continue;
                }
                self.compare_row(&path, failed).await?;
                burst += 1;
                if burst % BURST == 0 {
                    self.components.clock.sleep(REST).await;
                }
            }
        }
    }

    /// The nearest root above a path.
    fn sync_root_of(&self, path: &Path) -> Option<Path> {
        let (mount, _) = self.mounts.resolve(path)?;
        let effective = self.policies.effective(path);
        let set = effective.from(Key::SyncInterval);
        let deeper = set.filter(|set| set.components().len() > mount.path.components().len());
        Some(deeper.unwrap_or(&mount.path).clone())
    }

    /// Whether a comparison that begins at `root` goes down to `path`. Levels are counted from there, or from where the depth is set when
    /// that is further down: so what is set above a mount means the top of each mount below it.
    fn within_depth(&self, root: &Path, path: &Path) -> bool {
        let effective = self.policies.effective(path);
        let Some(most) = effective.sync_depth else { return true };
        let levels = |path: &Path| path.components().len() as u64;
        let begin = effective.from(Key::SyncDepth).map_or(0, levels).max(levels(root));
        levels(path).saturating_sub(begin) <= most
    }

    async fn compare_row(&self, path: &Path, failed: &mut Outcomes) -> Result<()> {
        let Some(node) = self.names.resolve(path).await? else {
            return Ok(());
        };
        let Some(file) = self.persisted(path, &node)? else {
            return Ok(());
        };
        let (mount, of_mount) = (file.mount.id, failed.entry(file.mount.id).or_default());
        // It does not answer: the others need not find out again.
        if of_mount.is_some() {
            return Ok(());
        }
        match self.compare(&file, &node).await {
            Ok(true) => self.tell(Change::Name(path.clone())).await,
            Ok(false) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::DataLoss
                ) =>
            {
                failed.insert(mount, Some(error));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
