//! A whole world for the engine: disk, metastore, under-store and clock that outlive the cache and can be turned against it.

pub(crate) mod batches;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_metastore::{Entry, Key, MetaStore, Op, Tx, mem::MemStore, prefix_end};
use forebay_namespace::Path;
use forebay_runtime::{
    chance::{ChanceRef, SeededChance},
    clock::{Clock, SimClock, Timestamp},
    disk::SimDisk,
    task,
    units::ByteSize,
};
use forebay_understore::{
    StoreError, UnderStoreRef,
    memory::{FaultRates, Memory},
};
use forebay_writeback::{
    Cache, Components, Error, ErrorKind, Settings, StoreOpener,
    file::{Committed, WriteFile, WriteMode},
    names::{List, Stat},
    rows::table,
    settings::MountSpec,
};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

/// Time that goes on from one life of the cache to the next, each in a runtime of its own.
#[derive(Debug)]
pub(crate) struct WorldClock {
    now: Mutex<Arc<SimClock>>,
}

impl WorldClock {
    fn current(&self) -> Arc<SimClock> {
        Arc::clone(&self.now.lock())
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        self.current().now()
    }

    fn monotonic(&self) -> Duration {
        self.current().monotonic()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.current().sleep(duration)
    }
}

/// What outlives a cache.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) disk: SimDisk,
    pub(crate) meta: Arc<MemStore>,
    pub(crate) chance: ChanceRef,
    pub(crate) store: Memory,
    pub(crate) clock: Arc<WorldClock>,
    pub(crate) settings: Settings,
    wall: Timestamp,
}

/// The mount of every world.
pub(crate) const KEPT: &str = "/kept";

#[derive(Debug)]
struct OneStore(Memory);

#[async_trait]
impl StoreOpener for OneStore {
    async fn open(&self, _url: &str) -> Result<UnderStoreRef, StoreError> {
        Ok(Arc::new(self.0.clone()))
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let wall = Timestamp(1_700_000_000_000_000);
        let chance: ChanceRef = SeededChance::new(seed);
        // A clock needs a runtime to begin in; this one is replaced in the first life.
        let clock = runtime().block_on(async { SimClock::new(wall) });
        let clock = Arc::new(WorldClock { now: Mutex::new(clock) });
        let mut settings = Settings::new("/data");
        settings.node = "one".into();
        settings.mounts = vec![MountSpec {
            path: at(KEPT),
            url: "memory:".into(),
            read_only: false,
        }];
        settings.segment.dedicated_from_bytes = ByteSize(64 << 10);
        settings.segment.shared_bytes_max = ByteSize(1 << 20);
        settings.segment.reserve_bytes = ByteSize(0);
        Self {
            seed,
            disk: SimDisk::new(seed),
            meta: MemStore::new(),
            store: Memory::seeded(chance.clone(), clock.clone(), FaultRates::default()),
            chance,
            clock,
            settings,
            wall,
        }
    }

    /// One life: whatever still runs when `body` ends is dropped where it stands.
    pub(crate) fn live<T>(&mut self, body: impl AsyncFnOnce(&World) -> T) -> T {
        let _simulated = task::simulate();
        let runtime = runtime();
        let (answer, wall) = runtime.block_on(async {
            *self.clock.now.lock() = SimClock::new(self.wall);
            (body(self).await, self.clock.now())
        });
        self.wall = wall;
        // The process is gone before its tasks are dropped: nothing they do on the way down may reach the disk.
        self.disk.kill();
        drop(runtime);
        answer
    }

    /// The power goes off: what was not synced is gone.
    pub(crate) fn cut_power(&mut self) {
        self.disk.restart();
    }

    pub(crate) fn components(&self) -> Components {
        Components {
            disk: self.disk.shared(),
            clock: self.clock.clone(),
            chance: self.chance.clone(),
            meta: self.meta.clone(),
            stores: Arc::new(OneStore(self.store.clone())),
        }
    }

    pub(crate) async fn open(&self) -> Result<Cache, Error> {
        Cache::open(self.settings.clone(), self.components()).await
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// A path.
pub(crate) fn at(text: &str) -> Path {
    Path::parse(text.as_bytes()).unwrap()
}

/// Writes a whole file.
pub(crate) async fn write(cache: &Cache, path: &str, content: &[u8], how: WriteFile) -> Result<Committed, Error> {
    let mut writer = cache.write_file(&at(path), how).await?;
    for chunk in content.chunks(40_000) {
        writer.append(vec![Bytes::copy_from_slice(chunk)]).await?;
    }
    writer.commit().await
}

/// Overwrites a file.
pub(crate) async fn put(cache: &Cache, path: &str, content: &[u8]) -> Result<Committed, Error> {
    write(cache, path, content, mode(WriteMode::Overwrite)).await
}

pub(crate) fn mode(mode: WriteMode) -> WriteFile {
    WriteFile {
        mode,
        ..WriteFile::default()
    }
}

/// What is noted of parts of uploads that are under way.
pub(crate) async fn part_notes(world: &World) -> Vec<(Key, Entry)> {
    let table = Key::from_static(&[table::UPLOAD]);
    let end = prefix_end(&table);
    world.meta.scan(table..end, 4096).await.unwrap()
}

/// The bytes of a file.
pub(crate) async fn get(cache: &Cache, path: &str) -> Result<Vec<u8>, Error> {
    let reader = cache.read_file(&at(path)).await?;
    let chunks = reader.read(0..reader.size()).await?;
    Ok(chunks.concat())
}

/// Everything under a directory, in order.
pub(crate) async fn tree(cache: &Cache, path: &str) -> Result<Vec<Stat>, Error> {
    cache
        .list(
            &at(path),
            List {
                recursive: true,
                ..List::default()
            },
        )
        .try_collect()
        .await
}

/// The first `limit` paths after `after`.
pub(crate) async fn page(cache: &Cache, path: &str, after: Option<&Path>, limit: usize) -> Vec<String> {
    let how = List {
        recursive: true,
        after: after.cloned(),
        limit: Some(limit),
    };
    cache
        .list(&at(path), how)
        .map(|stat| stat.unwrap().path.to_string())
        .collect()
        .await
}

/// Files below a folder of the disk, with their bytes.
pub(crate) fn files_below(world: &World, folder: &std::path::Path, found: &mut Vec<(std::path::PathBuf, u64)>) {
    for entry in world.disk.shared().list(folder).unwrap() {
        let path = folder.join(&entry.name);
        if entry.is_dir {
            files_below(world, &path, found);
        } else {
            found.push((path, entry.len));
        }
    }
}

/// The kind of an error, for comparisons.
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Bytes that tell their place.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| seed.wrapping_add((at / 7) as u8) ^ (at % 251) as u8)
        .collect()
}

/// Whether a transaction writes a row of this table.
pub(crate) fn writes(tx: &Tx, of: u8) -> bool {
    let is = |op: &Op| matches!(op, Op::Put(key, _) if key.first() == Some(&of));
    tx.ops.iter().any(is)
}
