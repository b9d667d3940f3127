//! `ttl`: data that was last changed long enough ago leaves the cache, or is deleted.
//!
//! | `ttl_action` | what is looked at | what happens |
//! |---|---|---|
//! | `free` | what the cache holds of the under-store | its clean bytes are dropped; dirty and pinned data stays |
//! | `delete` | every file under the path, in the under-store too; a dataset as one, by its last publish | it is deleted as by `delete`, in order with everything else, so the under-store follows |
//!
//! A round goes over everything once. It is done in steps of bounded work with pauses between them, and begins anew when it has ended:
//! so data goes some time after its end, a quarter of the shortest `ttl` at most while there is not more than a step's work. A delete is
//! decided on what is at the name in its own transaction: what was written meanwhile stays. A store that is away ends the round; the
//! next one comes to it again.

use crate::{
    Error, ErrorKind, Result,
    cache::Inner,
    clean::{Datasets, Walk},
    policy::value::TtlAction,
};
use forebay_namespace::{Node, Path};
use forebay_policy::{Key, Value};
use forebay_runtime::clock::Timestamp;
use std::{sync::Arc, time::Duration};

/// Pause between two steps, as a share of the shortest `ttl`, and its bounds.
const PAUSE_SHARE: u32 = 4;
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));
/// Names that one step looks at.
const STEP_NAMES: usize = 2000;

/// Where the round is.
#[derive(Debug, Default)]
struct Round {
    /// The walk over what may have to be deleted.
    walk: Option<Walk>,
}

impl Inner {
    /// Starts the rounds.
    pub(crate) fn start_ttl(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.tasks.spawn("ttl", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.ttl_for_ever() => {}
            }
        });
    }

    async fn ttl_for_ever(self: &Arc<Self>) {
        let mut round = Round::default();
        loop {
            let changed = self.policies.changed();
            let Some(shortest) = self.shortest_ttl() else {
                changed.await;
                continue;
            };
            let pause = (shortest / PAUSE_SHARE).clamp(PAUSES.0, PAUSES.1);
            tokio::select! {
                biased;
                () = changed => continue,
                () = self.components.clock.sleep(pause) => {}
            }
            if let Err(error) = self.ttl_step(&mut round).await {
                tracing::warn!(%error, "data whose ttl is over was not all dealt with; going on later");
                round = Round::default();
            }
        }
    }

    fn shortest_ttl(&self) -> Option<Duration> {
        let table = self.policies.table();
        let ttls = table.iter().filter_map(|(_, set)| match set.get(Key::Ttl) {
            Some(Value::Ttl(ttl)) => *ttl,
            _ => None,
        });
        ttls.min()
    }

    async fn ttl_step(self: &Arc<Self>, round: &mut Round) -> Result<()> {
        self.free_expired(STEP_NAMES).await?;
        let roots = self.paths_to_delete_from();
        if roots.is_empty() {
            round.walk = None;
            return Ok(());
        }
        let walk = round.walk.get_or_insert_with(|| Walk::over(&roots, Datasets::Whole));
        for _ in 0..STEP_NAMES {
            let Some((path, node)) = walk.next(self).await? else {
                round.walk = None;
                return Ok(());
            };
            if self.expired(&path, TtlAction::Delete, changed(&node)) {
                self.delete_expired(&path, &node).await?;
            }
        }
        Ok(())
    }

    /// Whether data at `path` that was changed then is over, and this is to be done.
    pub(crate) fn expired(&self, path: &Path, action: TtlAction, changed: Timestamp) -> bool {
        let effective = self.policies.effective(path);
        let over = effective
            .ttl
            .is_some_and(|ttl| self.components.clock.now().since(changed) >= ttl);
        over && effective.ttl_action == action
    }

    /// Paths with a `ttl` or its action of their own under which something is deleted by it; none under another.
    fn paths_to_delete_from(&self) -> Vec<Path> {
        let table = self.policies.table();
        let mut roots: Vec<Path> = Vec::new();
        for (path, set) in table.iter() {
            let concerns = set.get(Key::Ttl).is_some() || set.get(Key::TtlAction).is_some();
            let effective = table.effective(path);
            let deletes = effective.ttl.is_some() && effective.ttl_action == TtlAction::Delete;
            // Outer paths come first.
            if concerns && deletes && !roots.iter().any(|root| path.starts_with(root)) {
                roots.push(path.clone());
            }
        }
        roots
    }

    async fn delete_expired(self: &Arc<Self>, path: &Path, node: &Node) -> Result<()> {
        let (inner, at, node) = (Arc::clone(self), path.clone(), node.clone());
        let deleted = self.to_the_end("ttl-delete", async move { inner.delete_if_over(&at, &node).await });
        match deleted.await {
            Ok(true) => tracing::info!(%path, "deleted: its ttl is over"),
            Ok(false) => {}
            Err(error) if skipped(&error) => tracing::debug!(%path, %error, "not deleted though its ttl is over"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes what is at `path` when it is still this node, and of a dataset the last publish is long enough ago too.
    async fn delete_if_over(&self, path: &Path, node: &Node) -> Result<bool> {
        let mut last = None;
        if node.is_dir() {
            let Some(ino) = node.ino() else { return Ok(false) };
            match self.last_publish(ino).await? {
                Some((published, check)) if self.expired(path, TtlAction::Delete, published) => last = Some(check),
                _ => return Ok(false),
            }
        }
        self.delete_only(path, node, last).await
    }
}

/// Errors that concern this name alone.
fn skipped(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Internal | ErrorKind::DataLoss
    )
}

/// When a file's content was changed last; of a dataset its versions say that.
fn changed(node: &Node) -> Timestamp {
    match node {
        Node::Row { inode, .. } if inode.is_dir() => Timestamp(0),
        // Who copies a file with its old times has changed it all the same.
        Node::Row { inode, .. } => inode.mtime.max(inode.ctime),
        Node::Base { entry, .. } => entry.mtime,
    }
}
