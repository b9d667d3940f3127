//! Components and settings to a running [`Cache`].
//!
//! The order matters: whose store it is, then the segments (locked and replayed), the mounts and names above them, recovery,
//! and only then the tasks that change things by themselves.

use crate::{
    AckLevel, Cache, Result, Settings,
    cache::Inner,
    changes::Observers,
    clean::Clean,
    collect::Collector,
    dataset::Datasets,
    disks::Disks,
    file::{Dirty, Files},
    mounts::Mounts,
    persist::Persist,
    policy::{Policies, Quotas},
    rows,
    stats::Stats,
};
use async_trait::async_trait;
use forebay_metastore::{Check, CommitError, MetaStoreRef, Op, Tx};
use forebay_namespace::Namespace;
use forebay_runtime::{chance::ChanceRef, clock::ClockRef, disk::DiskRef, disk::Space, task::Tasks, units::ByteSize};
use forebay_segment::{Identity, Open, SegmentStore};
use forebay_understore::{StoreError, UnderStoreRef};
use futures::{FutureExt, future::BoxFuture};
use std::{fmt::Debug, sync::Arc};

/// Name of the row that holds the cluster's id.
const CLUSTER_ROW: &str = "cluster";

/// Opens under-stores by URL; the roof plugs in the real ones, a simulation its own.
#[async_trait]
pub trait StoreOpener: Debug + Send + Sync {
    /// Opens `url`. It need not be reachable yet: only what is wrong with the URL itself is an error.
    async fn open(&self, url: &str) -> Result<UnderStoreRef, StoreError>;
}

/// What a cache is made of.
#[derive(Clone, Debug)]
pub struct Components {
    /// The file system below the data folder.
    pub disk: DiskRef,
    /// Time.
    pub clock: ClockRef,
    /// Randomness.
    pub chance: ChanceRef,
    /// The shared truth.
    pub meta: MetaStoreRef,
    /// Opens under-stores.
    pub stores: Arc<dyn StoreOpener>,
}

impl Cache {
    /// Opens the data folder, recovers, and starts the background tasks (persister, session expiry, eviction).
    ///
    /// # Errors
    /// What `forebay_segment::SegmentStore::open` refuses (locked, foreign, damaged, not durable), with its reason; DataLoss
    /// naming the segment when a row needs one that is missing.
    pub fn open(settings: Settings, components: Components) -> BoxFuture<'static, Result<Cache>> {
        // In a box it is compiled with this crate, not with each program that waits for it.
        Self::opened(settings, components).boxed()
    }

    async fn opened(settings: Settings, components: Components) -> Result<Cache> {
        let cluster = cluster_id(&components).await?;
        let (segments, recovered) = SegmentStore::open(open_segments(&settings, &components, cluster)).await?;
        recovered.notes.iter().for_each(|note| tracing::info!(note, "segments"));
        let disks = Disks::new(components.disk.clone(), segments.folders());
        let space = disks.space()?;
        let policies = Arc::new(Policies::open(&settings, &components).await?);
        let (mounts, added) = Mounts::open(&settings, &components, &policies).await?;
        let clean = Clean::open(
            &components,
            &segments,
            &policies,
            limit(settings.cache_max, space, 4),
            &settings.tiers,
        )?;
        let names = Namespace::open(components.meta.clone(), mounts.base(), components.clock.clone()).await?;
        let inner = Arc::new(Inner {
            clean,
            quotas: Quotas::of(&policies.table()),
            policies,
            persist: Persist::new(&settings, &components, &mounts),
            dirty: Dirty::new(
                limit(settings.dirty_max, space, 2),
                settings.stall_max,
                components.clock.clone(),
                disks.clone(),
            ),
            disks,
            files: Files::default(),
            datasets: Datasets::default(),
            collector: Collector::default(),
            observers: Observers::default(),
            stats: Stats::new(&segments, &settings.tiers),
            tasks: Tasks::new("cache"),
            settings,
            components,
            names,
            segments,
            mounts,
        });
        inner.recover(recovered.streams).await?;
        inner.start_collector();
        inner.start_persist().await?;
        for path in added {
            inner.queue_below(&path).await?;
        }
        inner.start_clean().await?;
        inner.start_sync();
        inner.start_datasets().await?;
        inner.start_ttl();
        inner.start_pins();
        if let Err(error) = inner.resume_loads().await {
            tracing::warn!(%error, "loads that were cut off do not go on");
        }
        inner.start_stats();
        Ok(Cache { inner })
    }
}

fn open_segments(settings: &Settings, components: &Components, cluster: [u8; 16]) -> Open {
    Open {
        disk: components.disk.clone(),
        clock: components.clock.clone(),
        folders: settings.data.clone(),
        identity: Identity {
            cluster,
            node: settings.node.clone(),
        },
        durable: settings.ack != AckLevel::Memory,
        settings: settings.segment.clone(),
    }
}

/// A limit as set, or a share of the file systems.
fn limit(set: Option<ByteSize>, space: Space, share: u64) -> u64 {
    set.map_or(space.total / share, |size| size.0)
}

/// The id of the cluster that the metastore belongs to: whoever opens it first gives it one.
async fn cluster_id(components: &Components) -> Result<[u8; 16]> {
    let key = rows::meta_key(CLUSTER_ROW);
    loop {
        let found = components.meta.get(std::slice::from_ref(&key)).await?.pop().flatten();
        if let Some(entry) = found {
            return rows::decode(&entry.value);
        }
        let mut id = [0; 16];
        components.chance.fill(&mut id);
        let tx = Tx {
            token: Some(id),
            checks: vec![Check::Absent(key.clone())],
            ops: vec![Op::Put(key.clone(), rows::encode(&id))],
        };
        match components.meta.commit(tx).await {
            // Read it back: another one may have been faster.
            Ok(_) | Err(CommitError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
