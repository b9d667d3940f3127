//! What each mount has yet to get: how many pieces of work, how many bytes, and since when.
//!
//! The tracker tells of every piece as it comes, changes and goes, so that nobody has to look through the queue for the sums. For which
//! mount a piece is, and with how many bytes, is said by whoever plans it, and again by each run of it; after a start one walk over the
//! queue asks. It does not own what is dirty: a file under no mount, and a part that is not published, is no work for any.

use super::{
    plan::named,
    tracker::{Phase, Seen},
};
use crate::{Result, cache::Inner, rows::Content};
use forebay_namespace::{Inode, Kind};
use forebay_runtime::clock::Timestamp;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// Pieces of which is asked in a row.
const PAGE: usize = 256;
/// How long that rests then: the persister needs the metastore too.
const REST: Duration = Duration::from_millis(5);

/// For which mount a piece of work is. A rename leads into no other mount, so it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Home {
    /// Its number; 0: that is not known.
    pub(super) mount: u32,
    /// Bytes of it that exist only here.
    pub(super) bytes: u64,
    /// Whether somebody has said so who knows.
    pub(super) told: bool,
}

/// What one mount has yet to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountBacklog {
    /// Pieces of work that wait.
    pub(crate) queued: u64,
    /// Bytes of its files that exist only here.
    pub(crate) dirty_bytes: u64,
    /// When the oldest change was acknowledged.
    pub(crate) oldest: Option<Timestamp>,
}

/// The sums, by mount.
#[derive(Debug, Default)]
pub(super) struct Backlog(HashMap<u32, Account>);

#[derive(Debug, Default)]
struct Account {
    queued: u64,
    bytes: u64,
    by_age: BTreeSet<(i64, u64)>,
}

impl Home {
    /// Of a file with this row.
    pub(super) fn of(mount: u32, inode: &Inode) -> Self {
        // What is persisted and only moves, or is dressed anew, is safe.
        let safe = inode.kind != Kind::File || matches!(Content::decode(&inode.content), Ok(Content::Persisted { .. }));
        Self {
            mount,
            bytes: if safe { 0 } else { inode.size },
            told: true,
        }
    }

    /// Of a directory.
    pub(super) fn directory(mount: u32) -> Self {
        Self {
            mount,
            bytes: 0,
            told: true,
        }
    }
}

impl Backlog {
    pub(super) fn enter(&mut self, home: Home, since: i64, seq: u64) {
        let account = self.0.entry(home.mount).or_default();
        account.bytes += home.bytes;
        account.by_age.insert((since, seq));
    }

    pub(super) fn leave(&mut self, home: Home, since: i64, seq: u64) {
        let Some(account) = self.0.get_mut(&home.mount) else {
            return;
        };
        account.bytes = account.bytes.saturating_sub(home.bytes);
        account.by_age.remove(&(since, seq));
    }

    /// A piece has come to a phase in which it waits.
    pub(super) fn wait(&mut self, home: Home, phase: &Phase) {
        if waits(phase) {
            self.0.entry(home.mount).or_default().queued += 1;
        }
    }

    /// It has left that phase.
    pub(super) fn wait_no_more(&mut self, home: Home, phase: &Phase) {
        if waits(phase)
            && let Some(account) = self.0.get_mut(&home.mount)
        {
            account.queued = account.queued.saturating_sub(1);
        }
    }

    pub(super) fn of(&self, mount: u32) -> MountBacklog {
        self.0
            .get(&mount)
            .map_or_else(MountBacklog::default, |account| MountBacklog {
                queued: account.queued,
                dirty_bytes: account.bytes,
                oldest: account.by_age.first().map(|(since, _)| Timestamp(*since)),
            })
    }
}

/// As `queued` counts it: neither under way nor kept back by a policy.
fn waits(phase: &Phase) -> bool {
    !matches!(phase, Phase::Running | Phase::Withheld(_))
}

impl Inner {
    /// Finds out for which mounts the work is that an earlier life has left.
    pub(super) fn learn_homes(self: &Arc<Self>) {
        if self.persist.tracker.lock().homeless(0, 1).is_empty() {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks.spawn("backlog", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                learned = inner.learn_all_homes() => if let Err(error) = learned {
                    tracing::debug!(%error, "the backlog of the mounts is known when their work runs");
                },
            }
        });
    }

    async fn learn_all_homes(&self) -> Result<()> {
        let mut after = 0;
        loop {
            let page = self.persist.tracker.lock().homeless(after, PAGE);
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            for work in page {
                if let Some(home) = self.home_of(&work).await? {
                    self.persist.tracker.lock().learn_home(&work, home);
                }
            }
            self.components.clock.sleep(REST).await;
        }
    }

    async fn home_of(&self, work: &Seen) -> Result<Option<Home>> {
        let Some(ino) = named(&work.what) else { return Ok(None) };
        let (Some((inode, _)), Some(path)) = (self.names.inode(ino).await?, self.names.path_of(ino).await?) else {
            return Ok(None);
        };
        let mount = self.mounts.resolve(&path).map(|(mount, _)| mount.id);
        Ok(mount.map(|mount| Home::of(mount, &inode)))
    }
}
