//! Numbers for people and machines, and the end of a cache.
//!
//! | metric | kind | what |
//! |---|---|---|
//! | `forebay_dirty_bytes`, `forebay_dirty_files` | gauge | exist only here |
//! | `forebay_dirty_bytes_max` | gauge | limit on dirty bytes |
//! | `forebay_reserved_bytes` | gauge | dirty, and taken by what is being written |
//! | `forebay_oldest_dirty_seconds` | gauge | age of the oldest of what exists only here, or of the oldest piece of work |
//! | `forebay_cached_bytes` | gauge | clean bytes held locally |
//! | `forebay_pinned_bytes` | gauge | of those, what never makes room |
//! | `forebay_block_reads`, `forebay_block_hits` | gauge | blocks of clean data that readers asked for since start, and those that were held |
//! | `forebay_bypassed_bytes` | gauge | blocks that were fetched for readers since start and not kept |
//! | `forebay_persisted_bytes` | gauge | brought to under-stores since start |
//! | `forebay_queued`, `forebay_withheld`, `forebay_uploading`, `forebay_blocked`, `forebay_conflicts` | gauge | pieces of work |
//! | `forebay_unconverted_parts` | gauge | parts that went to stores as they are since start, although a policy wants another form |
//! | `forebay_sessions` | gauge | open sessions |
//! | `forebay_segment_file_bytes`, `forebay_segment_live_bytes`, `forebay_disk_free_bytes` | gauge | the data folders together |
//! | `forebay_tier_bytes`, `forebay_tier_bytes_max`, `forebay_tier_hits` | gauge | copies of blocks in each tier, its size, and reads since start that found the copy there, label `tier` |
//! | `forebay_folder_total_bytes`, `forebay_folder_free_bytes`, `forebay_folder_used_bytes` | gauge | each data folder, label `folder` |

use crate::{
    AckLevel, Cache, Result, TierSettings,
    cache::Inner,
    clean::TierStatus,
    file::COMMIT_DRAIN_MAX,
    mounts::MountInfo,
    persist::{Blocked, Conflict, PersistNumbers},
    policy::value::Tier,
};
use forebay_segment::{FolderUsage, SegmentStore};
use metrics::{Gauge, Unit, describe_gauge, gauge};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How often the gauges are set.
const GAUGE_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for background tasks at shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Gauges of the engine; the handles are made once.
#[derive(Debug)]
pub(crate) struct Stats {
    dirty_bytes: Gauge,
    dirty_files: Gauge,
    dirty_bytes_max: Gauge,
    reserved_bytes: Gauge,
    oldest_dirty_seconds: Gauge,
    cached_bytes: Gauge,
    pinned_bytes: Gauge,
    block_reads: Gauge,
    block_hits: Gauge,
    bypassed_bytes: Gauge,
    persisted_bytes: Gauge,
    queued: Gauge,
    withheld: Gauge,
    uploading: Gauge,
    blocked: Gauge,
    conflicts: Gauge,
    unconverted_parts: Gauge,
    sessions: Gauge,
    segment_file_bytes: Gauge,
    segment_live_bytes: Gauge,
    disk_free_bytes: Gauge,
    folders: Vec<FolderGauges>,
    /// By name of the tier.
    tiers: Vec<TierGauges>,
}

/// Gauges of one tier.
#[derive(Debug)]
struct TierGauges {
    bytes: Gauge,
    bytes_max: Gauge,
    hits: Gauge,
}

impl TierGauges {
    fn new(name: &str) -> Self {
        let label = [("tier", name.to_owned())];
        Self {
            bytes: told_of(
                "forebay_tier_bytes",
                Unit::Bytes,
                "copies of clean blocks in the tier",
                &label,
            ),
            bytes_max: told_of("forebay_tier_bytes_max", Unit::Bytes, "size of the tier", &label),
            hits: told_of(
                "forebay_tier_hits",
                Unit::Count,
                "reads of blocks since start that found the copy in the tier",
                &label,
            ),
        }
    }
}

/// Gauges of one data folder.
#[derive(Debug)]
struct FolderGauges {
    total_bytes: Gauge,
    free_bytes: Gauge,
    used_bytes: Gauge,
}

impl FolderGauges {
    fn new(folder: &Path) -> Self {
        let label = [("folder", folder.display().to_string())];
        Self {
            total_bytes: told_of(
                "forebay_folder_total_bytes",
                Unit::Bytes,
                "size of the file system of the folder",
                &label,
            ),
            free_bytes: told_of("forebay_folder_free_bytes", Unit::Bytes, "bytes free on it", &label),
            used_bytes: told_of(
                "forebay_folder_used_bytes",
                Unit::Bytes,
                "segment files and clean blocks in the folder",
                &label,
            ),
        }
    }
}

/// A gauge with its line of help.
fn told(name: &'static str, unit: Unit, text: &'static str) -> Gauge {
    describe_gauge!(name, unit, text);
    gauge!(name)
}

/// The same with a label.
fn told_of(name: &'static str, unit: Unit, text: &'static str, label: &[(&'static str, String); 1]) -> Gauge {
    describe_gauge!(name, unit, text);
    gauge!(name, label)
}

impl Stats {
    pub(crate) fn new(segments: &SegmentStore, tiers: &[TierSettings]) -> Self {
        Self {
            dirty_bytes: told(
                "forebay_dirty_bytes",
                Unit::Bytes,
                "bytes of which the cache holds the only copy",
            ),
            dirty_files: told(
                "forebay_dirty_files",
                Unit::Count,
                "files of which the cache holds the only copy",
            ),
            dirty_bytes_max: told(
                "forebay_dirty_bytes_max",
                Unit::Bytes,
                "the limit on dirty bytes: near it writers are slowed",
            ),
            reserved_bytes: told(
                "forebay_reserved_bytes",
                Unit::Bytes,
                "dirty bytes, and those that writers under way have taken room for",
            ),
            oldest_dirty_seconds: told(
                "forebay_oldest_dirty_seconds",
                Unit::Seconds,
                "age of the oldest change that no under-store has yet",
            ),
            cached_bytes: told("forebay_cached_bytes", Unit::Bytes, "clean bytes held locally"),
            pinned_bytes: told("forebay_pinned_bytes", Unit::Bytes, "clean bytes that never make room"),
            block_reads: told(
                "forebay_block_reads",
                Unit::Count,
                "blocks of clean data that readers asked for since start",
            ),
            block_hits: told("forebay_block_hits", Unit::Count, "blocks asked for that were held"),
            bypassed_bytes: told(
                "forebay_bypassed_bytes",
                Unit::Bytes,
                "bytes fetched for readers since start and not kept in the cache",
            ),
            persisted_bytes: told(
                "forebay_persisted_bytes",
                Unit::Bytes,
                "bytes brought to under-stores since start",
            ),
            queued: told("forebay_queued", Unit::Count, "pieces of persist work that wait"),
            withheld: told(
                "forebay_withheld",
                Unit::Count,
                "pieces of persist work that a policy keeps back",
            ),
            uploading: told("forebay_uploading", Unit::Count, "pieces of persist work under way"),
            blocked: told(
                "forebay_blocked",
                Unit::Count,
                "items that can not be persisted for now",
            ),
            conflicts: told("forebay_conflicts", Unit::Count, "items that wait for a decision"),
            unconverted_parts: told(
                "forebay_unconverted_parts",
                Unit::Count,
                "parts that went to under-stores in another format than the policy asks for, since start",
            ),
            sessions: told("forebay_sessions", Unit::Count, "sessions that are open"),
            segment_file_bytes: told("forebay_segment_file_bytes", Unit::Bytes, "bytes of segment files"),
            segment_live_bytes: told(
                "forebay_segment_live_bytes",
                Unit::Bytes,
                "bytes of segment files that something still needs",
            ),
            disk_free_bytes: told(
                "forebay_disk_free_bytes",
                Unit::Bytes,
                "bytes free on the data folders' file systems",
            ),
            folders: segments.folders().map(|folder| FolderGauges::new(&folder)).collect(),
            tiers: tiers.iter().map(|tier| TierGauges::new(&tier.name)).collect(),
        }
    }
}

/// `status`.
#[derive(Clone, Debug)]
pub struct Status {
    /// Bytes that exist only here.
    pub dirty_bytes: u64,
    /// Files of them.
    pub dirty_files: u64,
    /// Bytes that were acknowledged and that no under-store has: what would be lost with the data folders. `dirty_bytes` (committed, under a
    /// mount or not, staged in sessions, or kept by old versions alone), and what was acknowledged before its commit: batches of puts under
    /// way, and what programs have synced of files that they still write.
    pub at_risk_bytes: u64,
    /// Age of the oldest content that exists only here, or of the oldest change that an under-store has yet to get, seconds; 0 when there
    /// is none.
    pub oldest_dirty_seconds: f64,
    /// Bytes brought to under-stores since start.
    pub persisted_bytes: u64,
    /// Clean bytes held locally.
    pub cached_bytes: u64,
    /// Pieces of work that wait.
    pub queued: u64,
    /// Pieces of work that a policy keeps back.
    pub withheld: u64,
    /// Pieces of work under way.
    pub uploading: u64,
    /// What can not go.
    pub blocked: Vec<Blocked>,
    /// What someone else changed.
    pub conflicts: Vec<Conflict>,
    /// The mounts.
    pub mounts: Vec<MountInfo>,
    /// Level of a write that names none.
    pub ack: AckLevel,
    /// Limit on dirty bytes.
    pub dirty_bytes_max: u64,
    /// Limit on clean bytes.
    pub cache_bytes_max: u64,
    /// Sessions that are open.
    pub sessions: u64,
    /// The data folders.
    pub disks: Vec<DiskStatus>,
    /// The faster tiers, the fastest first.
    pub tiers: Vec<TierStatus>,
}

/// A data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskStatus {
    /// Where it is.
    pub folder: PathBuf,
    /// Its tier.
    pub tier: &'static str,
    /// Size of its file system; 0 when that does not answer.
    pub total_bytes: u64,
    /// What others may still write there.
    pub free_bytes: u64,
    /// What the cache has there: segments and clean blocks.
    pub used_bytes: u64,
}

impl Cache {
    /// The numbers now.
    pub async fn status(&self) -> Result<Status> {
        let inner = &self.inner;
        let work = inner.persist.numbers();
        let (blocked, conflicts) = inner.blocked_and_conflicts().await;
        Ok(Status {
            dirty_bytes: inner.dirty.bytes(),
            dirty_files: inner.dirty.files(),
            at_risk_bytes: inner.at_risk_bytes(),
            oldest_dirty_seconds: inner.oldest_dirty_seconds(&work),
            persisted_bytes: work.persisted_bytes,
            cached_bytes: inner.clean.cached_bytes(),
            queued: work.queued,
            withheld: work.withheld,
            uploading: work.uploading,
            blocked,
            conflicts,
            mounts: self.under_list(),
            ack: inner.settings.ack,
            dirty_bytes_max: inner.dirty.limit(),
            cache_bytes_max: inner.clean.limit(),
            sessions: inner.session_count(),
            disks: inner.disk_status(),
            tiers: inner.clean.tiers(),
        })
    }

    /// From now on a writer of a named session that is dropped leaves what is stable to the session, as a crash would, instead of
    /// taking it back. Doors call it before they cut off what did not end in time; [`Cache::shutdown`] follows.
    pub fn shutdown_soon(&self) {
        self.inner.tasks.shutdown().cancel();
    }

    /// Stops taking work, waits for what is under way (commits at most 10 s, background tasks 20 s), flushes, closes.
    /// What is dirty stays in the data folder; the next start goes on with it.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.files.gate.close();
        let commits = tokio::select! {
            biased;
            () = inner.files.gate.empty() => 0,
            () = inner.components.clock.sleep(COMMIT_DRAIN_MAX) => inner.files.gate.inside(),
        };
        if commits > 0 {
            tracing::warn!(
                commits,
                "shutting down while changes are under way; they are whole or absent after the next start"
            );
        }
        if let Err(stuck) = inner.tasks.drain(DRAIN_MAX).await {
            tracing::warn!(%stuck, "shutting down without waiting any longer");
        }
        inner.segments.shutdown().await;
        tracing::info!(
            dirty_bytes = inner.dirty.bytes(),
            dirty_files = inner.dirty.files(),
            "the cache is closed"
        );
    }
}

impl Inner {
    fn disk_status(&self) -> Vec<DiskStatus> {
        let folders = self
            .segments
            .usage_by_folder()
            .into_iter()
            .zip(self.clean.bytes_by_folder());
        let status = |(folder, blocks): (FolderUsage, u64)| DiskStatus {
            folder: folder.folder,
            tier: Tier::DISK,
            total_bytes: folder.total_bytes,
            free_bytes: folder.usage.free_bytes,
            used_bytes: folder.usage.file_bytes + blocks,
        };
        folders.map(status).collect()
    }

    fn at_risk_bytes(&self) -> u64 {
        let uncommitted = self.acknowledged_bytes() + self.files.drafts.promised_bytes();
        self.dirty.bytes() + uncommitted
    }

    fn oldest_dirty_seconds(&self, work: &PersistNumbers) -> f64 {
        let oldest = work.oldest.into_iter().chain(self.dirty.oldest()).min();
        let now = self.components.clock.now();
        oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64())
    }

    /// Sets the gauges now and then.
    pub(crate) fn start_stats(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.tasks.spawn("gauges", async move {
            let shutdown = inner.tasks.shutdown().clone();
            loop {
                inner.set_gauges();
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = inner.components.clock.sleep(GAUGE_INTERVAL) => {}
                }
            }
        });
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; the last digits of a byte count do not matter"
    )]
    fn set_gauges(&self) {
        let (stats, work, usage) = (&self.stats, self.persist.numbers(), self.segments.usage());
        stats.dirty_bytes.set(self.dirty.bytes() as f64);
        stats.dirty_files.set(self.dirty.files() as f64);
        stats.dirty_bytes_max.set(self.dirty.limit() as f64);
        stats.reserved_bytes.set(self.dirty.used() as f64);
        stats.oldest_dirty_seconds.set(self.oldest_dirty_seconds(&work));
        stats.cached_bytes.set(self.clean.cached_bytes() as f64);
        stats.pinned_bytes.set(self.clean.pinned_bytes() as f64);
        let (reads, hits) = self.clean.reads();
        stats.block_reads.set(reads as f64);
        stats.block_hits.set(hits as f64);
        stats.bypassed_bytes.set(self.clean.bypassed_bytes() as f64);
        stats.persisted_bytes.set(work.persisted_bytes as f64);
        stats.queued.set(work.queued as f64);
        stats.withheld.set(work.withheld as f64);
        stats.uploading.set(work.uploading as f64);
        stats.blocked.set(work.blocked as f64);
        stats.conflicts.set(work.conflicts as f64);
        stats.unconverted_parts.set(self.parts_left() as f64);
        stats.sessions.set(self.session_count() as f64);
        stats.segment_file_bytes.set(usage.file_bytes as f64);
        stats.segment_live_bytes.set(usage.live_bytes as f64);
        stats.disk_free_bytes.set(usage.free_bytes as f64);
        for (gauges, disk) in stats.folders.iter().zip(self.disk_status()) {
            gauges.total_bytes.set(disk.total_bytes as f64);
            gauges.free_bytes.set(disk.free_bytes as f64);
            gauges.used_bytes.set(disk.used_bytes as f64);
        }
        for (gauges, tier) in stats.tiers.iter().zip(self.clean.tiers()) {
            gauges.bytes.set(tier.used_bytes as f64);
            gauges.bytes_max.set(tier.size_bytes as f64);
            gauges.hits.set(tier.hits as f64);
        }
    }
}
