//! One seed: lives of the cache with faults between and in them, then the reckoning.

use super::{
    actor::{Actor, may_fail},
    model::Entry,
    pair::{self, Pair},
    pipeline::{self, Pipeline},
    shared::Shared,
};
use crate::support::{World, at, part_notes};
use forebay_metastore::mem;
use forebay_runtime::{
    chance::{Chance, SeededChance},
    clock::Clock,
    disk::{self, Disk},
    units::ByteSize,
};
use forebay_understore::{
    Listed, StoreError, UnderStore, UnderStoreRef,
    memory::FaultRates,
    packs::{self, Packed},
};
use forebay_writeback::{
    Cache, Error, TierSettings,
    policy::{Change, Set, Value},
};
use futures::TryStreamExt;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    sync::Arc,
    time::Duration,
};

/// Lives with faults.
const LIVES: usize = 6;
/// Most time of one life.
const LIFE_MAX: Duration = Duration::from_millis(2_500);
/// In which all work must be done once nothing fails any more.
const PERSIST_MAX: Duration = Duration::from_secs(24 * 3600);

/// What happened, line by line.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Vec<String>>>);

impl History {
    /// With `FOREBAY_SIM_LOG` set it is printed too.
    pub(crate) fn note(&self, line: &str) {
        if std::env::var_os("FOREBAY_SIM_LOG").is_some() {
            println!("{line}");
        }
        self.0.lock().push(line.to_owned());
    }
}

/// What a run was worth.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) history: Vec<String>,
    acked: u64,
    disk_faults: u64,
    store_faults: u64,
    /// Parts that are Parquet in the under-store at the end.
    pub(crate) parquet: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            history,
            acked,
            disk_faults,
            store_faults,
            parquet,
        } = self;
        write!(
            f,
            "{} events, {acked} acknowledged, {disk_faults} disk and {store_faults} store faults, {parquet} parts became Parquet",
            history.len()
        )
    }
}

/// Whether parts become Parquet on their way to the under-store: in every other world, but for the first ones, whose histories are kept.
fn becomes_parquet(seed: u64) -> bool {
    seed > 1000 && seed % 2 == 1
}

/// A run in which small files of one actor, and those that several fight for, go into packs.
pub(crate) fn run_packed(seed: u64) -> Report {
    let mut world = World::new(seed);
    world.settings.persist.single_put_bytes_max = ByteSize(20_000);
    world.settings.persist.part_bytes = ByteSize(15_000);
    for path in ["/kept/zero", "/kept/shared"] {
        let mut set = Set::default();
        set.change(Change::Put(Value::Pack(true)));
        world.settings.policies.push((at(path), set));
    }
    let store = world.store.clone();
    let report = run_in(world);
    let packed = store.contents().into_keys().any(|key| key.starts_with(packs::FOLDER));
    assert!(packed, "seed {seed}: nothing was packed");
    report
}

/// A run with two data folders.
pub(crate) fn run_in_two_folders(seed: u64) -> Report {
    let mut world = World::new(seed);
    world.settings.data.push("/more".into());
    let disk = world.disk.clone();
    let report = run_in(world);
    let entries = disk.list("/more".as_ref()).unwrap();
    assert!(
        entries.iter().any(|entry| entry.name == "identity"),
        "seed {seed}: one folder was enough"
    );
    report
}

/// A run in which little of what is persisted stays, and what is read again goes up to a tier.
pub(crate) fn run_with_tier(seed: u64) -> Report {
    let mut world = World::new(seed);
    world.settings.cache_max = Some(ByteSize(40_000));
    world.settings.tiers = vec![TierSettings {
        name: "memory".into(),
        dir: "/tier".into(),
        size: ByteSize(10_000),
    }];
    let set = Set::parse([("tier", &serde_json::json!("memory"))]).unwrap();
    world.settings.policies.push((at("/kept"), set));
    let disk = world.disk.clone();
    let report = run_in(world);
    let used = disk.list("/tier/clean".as_ref()).is_ok_and(|used| !used.is_empty());
    assert!(used, "seed {seed}: nothing went up");
    report
}

/// A run in the usual world, where what is not small is uploaded in parts.
pub(crate) fn run(seed: u64) -> Report {
    let mut world = World::new(seed);
    world.settings.persist.single_put_bytes_max = ByteSize(20_000);
    world.settings.persist.part_bytes = ByteSize(15_000);
    run_in(world)
}

pub(crate) fn run_in(mut world: World) -> Report {
    let seed = world.seed;
    let chance = SeededChance::new(seed ^ 0x5eed);
    let history = History::default();
    let roots = ["/kept/zero", "/local/one", "/kept/two/deep", "/local/three"];
    let mut actors: Vec<Actor> = roots
        .iter()
        .enumerate()
        .map(|(nth, root)| Actor::new(&format!("actor {nth}"), (*root).to_owned(), seed * 16 + nth as u64))
        .collect();
    let mut pipelines = [
        Pipeline::new("/kept/sets/one", seed * 16 + 10),
        Pipeline::new("/local/set", seed * 16 + 11),
    ];
    let mut pair = Pair::new(seed * 16 + 12);
    let shared = Shared::new("/kept/shared", seed * 16 + 15);
    let trainer = SeededChance::new(seed * 16 + 14);
    for life in 0..LIVES {
        history.note(&format!("life {life}"));
        let power_fails = chance.below(4) == 0;
        world.live(async |world| {
            let cache = begin(world, &mut actors, &mut pipelines, &mut pair, &shared).await;
            if becomes_parquet(seed) {
                let format = Change::parse("persist_format", Some(&"parquet".into())).unwrap();
                patiently(async || cache.policy_set(&at("/kept/sets"), vec![format.clone()]).await).await;
            }
            arm(world, &chance, power_fails);
            let time = Duration::from_micros(chance.below(LIFE_MAX.as_micros() as u64));
            let acting = actors.iter_mut().map(|actor| boxed(actor.act(&cache, &history)));
            let fighting = (0..3).map(|who| boxed(shared.fight(who, &cache, &history)));
            let producing = pipelines
                .iter_mut()
                .map(|pipeline| boxed(pipeline.produce(&cache, &history)));
            let training =
                ["/kept/sets/one", "/local/set"].map(|path| boxed(pipeline::train(path, &trainer, &cache, &history)));
            let looking = boxed(pair::look(&trainer, &cache, &history));
            let pairing = [boxed(pair.produce(&cache, &history)), looking];
            let all = acting.chain(fighting).chain(producing).chain(training).chain(pairing);
            let all = futures::future::join_all(all.collect::<Vec<_>>());
            tokio::select! {
                biased;
                _ = all => {}
                () = world.clock.sleep(time) => {}
            }
        });
        calm(&world);
        // Sometimes only the process dies, sometimes the machine.
        if power_fails || chance.below(2) == 0 {
            world.cut_power();
        } else {
            world.disk.disarm();
        }
    }
    reckon(&mut world, &mut actors, &mut pipelines, &mut pair, &shared);
    let acked = actors
        .iter()
        .map(|actor| actor.acked)
        .chain(pipelines.iter().map(|pipeline| pipeline.acked))
        .chain([pair.acked])
        .sum();
    let contents = world.store.contents();
    let parquet = contents.keys().filter(|key| key.ends_with(".parquet")).count();
    let (disk_faults, store_faults) = (world.disk.calls().faults, world.store.faults());
    Report {
        history: std::mem::take(&mut *history.0.lock()),
        acked,
        disk_faults,
        store_faults,
        parquet,
    }
}

fn boxed<'a>(future: impl Future<Output = ()> + 'a) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(future)
}

/// Opens and compares everything with what was acknowledged.
async fn begin(
    world: &World,
    actors: &mut [Actor],
    pipelines: &mut [Pipeline],
    pair: &mut Pair,
    shared: &Shared,
) -> Cache {
    let cache = world
        .open()
        .await
        .unwrap_or_else(|error| panic!("seed {}: open: {error}", world.seed));
    for actor in &mut *actors {
        patiently(async || cache.mkdir(&at(&actor.root), true).await).await;
        patiently(async || actor.check(&cache).await).await;
    }
    if !world.settings.tiers.is_empty() {
        // What the store has is read from there again, and goes up.
        patiently(async || cache.free(&at("/kept")).await.map(drop)).await;
        for actor in &mut *actors {
            patiently(async || actor.check(&cache).await).await;
        }
    }
    for pipeline in pipelines {
        patiently(async || pipeline.check(&cache).await).await;
    }
    patiently(async || pair.check(&cache).await).await;
    patiently(async || shared.check(&cache, true).await).await;
    cache
}

/// Again and again while faults explain the failure.
async fn patiently(mut what: impl AsyncFnMut() -> Result<(), Error>) {
    for _ in 0..1000 {
        match what().await {
            Ok(()) => return,
            Err(error) => assert!(may_fail(&error), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it fails for ever");
}

/// What goes wrong in this life.
fn arm(world: &World, chance: &SeededChance, power_fails: bool) {
    world.store.set_rates(FaultRates {
        unavailable: 60,
        lost_answer: 40,
        hang: 10,
        short_read: 20,
        wrong_body: 20,
    });
    if chance.below(4) == 0 {
        world
            .store
            .set_away(Some(StoreError::Unavailable("the store is away".into())));
    }
    match chance.below(3) {
        _ if power_fails => world.disk.arm(disk::Fault::PowerOff(1 + chance.below(400))),
        1 => world.disk.arm(disk::Fault::Sync(1 + chance.below(60))),
        2 => world.disk.arm(disk::Fault::Write(1 + chance.below(200))),
        _ => {}
    }
    let fate = SeededChance::new(chance.u64());
    world.meta.set_hook(move |call| match (call, fate.below(100)) {
        (mem::Call::Commit(_), 0) => mem::Fault::UnknownCommitted,
        (mem::Call::Commit(_), 1) => mem::Fault::UnknownLost,
        (_, 2) => mem::Fault::Unavailable,
        _ => mem::Fault::None,
    });
}

/// Nothing goes wrong any more.
fn calm(world: &World) {
    world.store.set_rates(FaultRates::default());
    world.store.set_away(None);
    world.meta.clear_hook();
}

/// Once faults stop, cache and under-store are what was acknowledged.
fn reckon(world: &mut World, actors: &mut [Actor], pipelines: &mut [Pipeline], pair: &mut Pair, shared: &Shared) {
    let dirty = world.live(async |world| {
        let cache = begin(world, actors, pipelines, pair, shared).await;
        for pipeline in pipelines.iter_mut() {
            pipeline.finish(&cache).await.unwrap();
        }
        pair.finish(&cache).await.unwrap();
        cache
            .wait_persisted(&at("/kept"), PERSIST_MAX)
            .await
            .unwrap_or_else(|error| panic!("seed {}: {error}", world.seed));
        let status = cache.status().await.unwrap();
        assert!(
            status.blocked.is_empty() && status.conflicts.is_empty(),
            "{:?} {:?}",
            status.blocked,
            status.conflicts
        );
        for actor in actors.iter_mut() {
            actor.check(&cache).await.unwrap();
        }
        compare(world, actors, &pipelines[0], pair, shared).await;
        let dirty = check_dirty(&cache, actors).await;
        cache.shutdown().await;
        dirty
    });
    world.cut_power();
    world.live(async |world| {
        let cache = begin(world, actors, pipelines, pair, shared).await;
        assert_eq!(
            check_dirty(&cache, actors).await,
            dirty,
            "the dirty ledger changed over a restart"
        );
        assert_eq!(part_notes(world).await, [], "notes of uploads were left behind");
    });
    assert_eq!(world.store.open_uploads(), 0, "uploads were left behind");
}

/// What the under-store holds, as it shows to one that knows nothing but it.
async fn contents(world: &World) -> BTreeMap<String, Vec<u8>> {
    let own = world.store.contents().into_iter();
    let mut found: BTreeMap<String, Vec<u8>> = own.map(|(key, bytes)| (key, bytes.to_vec())).collect();
    if found.extract_if(.., |key, _| key.starts_with(packs::FOLDER)).count() == 0 {
        return found;
    }
    let store: UnderStoreRef = Arc::new(world.store.clone());
    let (store, own) = (Packed::new(Arc::clone(&store), store, world.clock.clone()), found);
    let (mut open, mut found) = (vec![String::new()], BTreeMap::new());
    while let Some(dir) = open.pop() {
        let rows: Vec<Listed> = store.list(&dir, None).try_collect().await.unwrap();
        for row in rows {
            let key = forebay_understore::join(&dir, &row.name);
            if row.found.is_dir {
                open.push(key);
                continue;
            }
            let read = store.read(&key, 0..row.found.size, &row.found.validator).await;
            found.insert(key, read.unwrap().to_vec());
        }
    }
    let shown = own.iter().all(|(key, bytes)| found.get(key) == Some(bytes));
    assert!(shown, "what has its own name does not show");
    found
}

/// The under-store has exactly the files under its mount.
async fn compare(world: &World, actors: &[Actor], pipeline: &Pipeline, pair: &Pair, shared: &Shared) {
    let mut expected = BTreeMap::new();
    for actor in actors {
        let Some(prefix) = actor.root.strip_prefix("/kept/") else {
            continue;
        };
        expected.extend(
            actor
                .model
                .files()
                .map(|(path, bytes)| (format!("{prefix}/{path}"), bytes.clone())),
        );
    }
    expected.extend(shared.value().map(|value| ("shared".to_owned(), value)));
    let mut found = contents(world).await;
    // Rows only grow, so their order is that of their numbers; what an older version had is not there any more.
    let parts: Vec<_> = found.extract_if(.., |key, _| key.starts_with("sets/one/")).collect();
    let mut rows: Vec<i64> = parts
        .iter()
        .flat_map(|(_, bytes)| pipeline::rows_of_file(bytes))
        .collect();
    rows.sort_unstable();
    assert!(
        rows == pipeline.rows(),
        "the under-store has {} rows, expected {}",
        rows.len(),
        pipeline.rows().len()
    );
    pair.compare(&mut found);
    let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let size = |map: &BTreeMap<String, Vec<u8>>, key: &String| map.get(key).map(Vec::len);
    let wrong: Vec<String> = keys
        .into_iter()
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| {
            format!(
                "\n  {key}: {:?} bytes in the store, expected {:?}",
                size(&found, key),
                size(&expected, key)
            )
        })
        .collect();
    assert!(wrong.is_empty(), "the under-store differs:{}", wrong.concat());
    compare_markers(world, actors);
}

/// Every empty directory has a marker, and nothing else has: what was renamed or removed leaves none behind.
fn compare_markers(world: &World, actors: &[Actor]) {
    let packs = world
        .store
        .contents()
        .keys()
        .any(|key| key.starts_with(".forebay-packs/"));
    for actor in actors {
        let Some(prefix) = actor.root.strip_prefix("/kept/") else {
            continue;
        };
        let below = format!("{prefix}/");
        let markers = world.store.dirs().into_iter();
        let markers: BTreeSet<String> = markers
            .filter_map(|marker| marker.strip_prefix(&below).map(str::to_owned))
            .collect();
        let dirs = actor.model.0.iter().filter(|(_, entry)| **entry == Entry::Dir);
        let is_empty = |dir: &str| !actor.model.0.keys().any(|path| path.starts_with(&format!("{dir}/")));
        let empty: BTreeSet<String> = dirs.map(|(dir, _)| dir.clone()).filter(|dir| is_empty(dir)).collect();
        // What is in packs makes no directory of the store.
        let packed = |marker: &String| packs && actor.model.0.get(marker) == Some(&Entry::Dir);
        let of_packs = |marker: &&String| !empty.contains(*marker) && packed(marker);
        let markers: BTreeSet<_> = markers.iter().filter(|marker| !of_packs(marker)).cloned().collect();
        assert_eq!(markers, empty, "{}: markers, and what is empty", actor.name);
    }
}

/// What no mount covers is dirty; besides it only parts of datasets. Answers files and bytes.
async fn check_dirty(cache: &Cache, actors: &[Actor]) -> (u64, u64) {
    tokio::time::sleep(Duration::from_secs(60)).await;
    let local = || actors.iter().filter(|actor| actor.root.starts_with("/local"));
    let bytes: u64 = local().map(|actor| actor.model.bytes()).sum();
    let files: usize = local().map(|actor| actor.model.files().count()).sum();
    let status = cache.status().await.unwrap();
    let found = (status.dirty_files, status.dirty_bytes);
    assert!(
        found.0 >= files as u64 && found.1 >= bytes,
        "the ledger says {found:?}, files alone are {files} of {bytes} bytes"
    );
    found
}
