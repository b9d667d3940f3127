//! Collecting what a recursive delete cut off: the rows below it, their bytes, their dataset rows; and client tokens that are
//! too old to be asked for.
//!
//! A recursive delete is one commit however much lies under it; what it cut off is invisible from then on and is collected
//! here, in transactions of bounded size, at once for a small tree and in the background for a large one. A crash meanwhile is
//! harmless: the next start goes on.

use crate::{
    Error, Result,
    cache::Inner,
    rows::{self, TokenRow, table},
};
use bytes::Bytes;
use forebay_metastore::{Check, Entry, Key, prefix_end};
use forebay_namespace::Plan;
use forebay_runtime::clock::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, Notify};

/// Rows of one step.
const STEP_ROWS: usize = 256;
/// Steps that a delete itself takes before it leaves the rest to the background.
const STEPS_INLINE_MAX: usize = 4;
/// Pause after a step that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long a token is remembered.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often old tokens are looked for.
const TOKEN_INTERVAL: Duration = Duration::from_secs(3600);
/// Tokens kept; beyond that the age at which one goes is halved until the next look.
const TOKENS_MAX: u64 = 1_000_000;
/// Rows of one look.
const TOKEN_PAGE: usize = 500;

/// Wakes the background, and lets one step run at a time.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    wake: Notify,
    step: Mutex<()>,
}

impl Inner {
    /// After a recursive delete: collects a small tree at once, leaves the rest to the background.
    pub(crate) async fn collect_soon(&self) {
        for _ in 0..STEPS_INLINE_MAX {
            match self.collect_step().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "collecting is left to the background");
                    break;
                }
            }
        }
        self.collector.wake.notify_one();
    }

    /// Starts the background collection.
    pub(crate) fn start_collector(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.collector.wake.notify_one();
        self.tasks.spawn("collector", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.collect_for_ever() => {}
            }
        });
        let inner = Arc::clone(self);
        self.tasks.spawn("tokens", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.prune_tokens_for_ever() => {}
            }
        });
    }

    async fn collect_for_ever(&self) {
        loop {
            self.collector.wake.notified().await;
            loop {
                match self.collect_step().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "collecting what was deleted failed; trying again");
                        self.components.clock.sleep(RETRY_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Whether there was something to collect.
    async fn collect_step(&self) -> Result<bool> {
        let _alone = self.collector.step.lock().await;
        let mut attempts = self.attempts("collect");
        loop {
            match self.try_collect().await {
                Ok(done) => return Ok(done),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    async fn try_collect(&self) -> Result<bool> {
        let Some(collected) = self.names.plan_collect(STEP_ROWS).await? else {
            return Ok(false);
        };
        let mut plan = collected.plan;
        let mut gone = Vec::new();
        for dir in collected.dirs {
            gone.push(self.plan_dataset_removed(&mut plan, dir).await?);
        }
        self.commit(plan).await?;
        collected
            .freed
            .iter()
            .for_each(|(ino, inode)| self.discard(*ino, inode));
        gone.into_iter().for_each(|gone| self.dataset_gone(gone));
        Ok(true)
    }

    async fn prune_tokens_for_ever(&self) {
        let mut age_max = TOKEN_AGE_MAX;
        loop {
            self.components.clock.sleep(TOKEN_INTERVAL).await;
            match self.prune_tokens(age_max).await {
                Ok(kept) if kept > TOKENS_MAX => age_max /= 2,
                Ok(_) => age_max = TOKEN_AGE_MAX,
                Err(error) => tracing::warn!(%error, "forgetting old tokens failed; trying again later"),
            }
        }
    }

    /// Removes tokens older than `age_max`. Answers how many are kept.
    pub(crate) async fn prune_tokens(&self, age_max: Duration) -> Result<u64> {
        let now = self.components.clock.now();
        let mut from: Key = Bytes::from_static(&[table::TOKEN]);
        let end = prefix_end(&[table::TOKEN]);
        let mut kept = 0;
        loop {
            let page = self.components.meta.scan(from.clone()..end.clone(), TOKEN_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(kept) };
            from = [last, [0].as_slice()].concat().into();
            let old: Vec<_> = page.iter().filter(|(_, entry)| is_old(entry, now, age_max)).collect();
            kept += (page.len() - old.len()) as u64;
            self.drop_tokens(&old).await?;
        }
    }

    async fn drop_tokens(&self, old: &[&(Key, Entry)]) -> Result<()> {
        if old.is_empty() {
            return Ok(());
        }
        let mut plan = Plan::default();
        for (key, entry) in old {
            plan.check(Check::At(key.clone(), entry.version)).delete(key.clone());
        }
        match self.commit(plan).await {
            // Written anew meanwhile; the next look sees the rest of the page.
            Err(error) if error.is_lost() => Ok(()),
            other => other.map(drop),
        }
    }
}

fn is_old(entry: &Entry, now: Timestamp, age_max: Duration) -> bool {
    match rows::decode::<TokenRow>(&entry.value) {
        Ok(row) => now.since(Timestamp(row.at)) > age_max,
        Err(error) => {
            let error: Error = error;
            tracing::error!(%error, "a token row can not be read");
            false
        }
    }
}
