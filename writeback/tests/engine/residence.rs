//! What stays in the cache and what does not: pins, frees, orders, quotas, times to live, loads.

use crate::support::{KEPT, World, at, files_below, get, kind, pattern, put, write};
use forebay_runtime::{clock::Clock, units::ByteSize};
use forebay_understore::{
    StoreError,
    memory::{Call, Fault},
};
use forebay_writeback::{
    Cache, Error, ErrorKind, SetAttributes,
    clean::{LoadSpec, LoadState, Loaded, PinEnd},
    file::{WriteFile, WriteMode},
    names::Rename,
    policy::{Change, Key, Value, value::Pin},
};
use serde_json::{Value as Json, json};
use std::{path::PathBuf, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

async fn set(cache: &Cache, path: &str, policies: Json) {
    let pairs = policies.as_object().unwrap();
    let changes = pairs
        .iter()
        .map(|(key, value)| Change::parse(key, Some(value)).unwrap());
    cache.policy_set(&at(path), changes.collect()).await.unwrap();
}

/// A world with a clean cache of so many bytes.
fn world(seed: u64, cache_max: u64) -> World {
    let mut world = World::new(seed);
    world.settings.cache_max = Some(ByteSize(cache_max));
    world
}

/// So many files of 1000 bytes in the store, that nobody wrote here.
fn outside(world: &World, folder: &str, count: u64) {
    for n in 0..count {
        world
            .store
            .write_outside(&format!("{folder}/{n:04}"), pattern(n as u8, 1000));
    }
}

async fn read_all(cache: &Cache, folder: &str, order: impl Iterator<Item = u64>) {
    for n in order {
        assert_eq!(
            get(cache, &format!("/kept/{folder}/{n:04}")).await.unwrap(),
            pattern(n as u8, 1000)
        );
    }
}

async fn held(cache: &Cache, path: &str) -> u64 {
    cache.stat(&at(path)).await.unwrap().cached_bytes
}

async fn held_in(cache: &Cache, folder: &str, count: u64) -> u64 {
    let mut sum = 0;
    for n in 0..count {
        sum += held(cache, &format!("/kept/{folder}/{n:04}")).await;
    }
    sum
}

async fn persisted(cache: &Cache) {
    cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
    settle().await;
}

/// Lets tasks in the background do what they have to.
async fn settle() {
    tokio::time::sleep(SECOND).await;
}

// ---- pins

#[test]
fn what_is_pinned_is_loaded_and_stays_through_everything_until_it_is_unpinned() {
    let mut world = world(1, 30_000);
    outside(&world, "p", 10);
    outside(&world, "x", 200);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        read_all(&cache, "x", 0..30).await;
        let pinned = cache.pin(&at("/kept/p"), None, true).await.unwrap();
        assert_eq!((pinned.files, pinned.bytes, pinned.full), (10, 10_000, false));
        for _ in 0..3 {
            read_all(&cache, "x", 0..200).await;
        }
        assert_eq!(held_in(&cache, "p", 10).await, 10_000);
        assert!(cache.status().await.unwrap().cached_bytes <= 30_000);
        let freed = cache.free(&at(KEPT)).await.unwrap();
        assert_eq!((freed.pinned_bytes, freed.dirty_bytes), (10_000, 0));
        assert!(freed.freed_bytes > 0 && held_in(&cache, "x", 200).await == 0);
        assert_eq!(held_in(&cache, "p", 10).await, 10_000);
    });
    world.cut_power();
    // The pin outlives a restart, and so what is pinned is loaded again.
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        settle().await;
        assert_eq!(held_in(&cache, "p", 10).await, 10_000);
        cache.unpin(&at("/kept/p")).await.unwrap();
        assert!(cache.policy_get(&at("/kept/p")).is_empty());
        assert_eq!(cache.free(&at("/kept/p")).await.unwrap().freed_bytes, 10_000);
    });
}

#[test]
fn copies_of_what_was_written_under_a_pin_stay_and_those_that_are_moved_there_too() {
    let mut world = world(2, 20_000);
    outside(&world, "x", 100);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.mkdir(&at("/kept/p"), false).await.unwrap();
        set(&cache, "/kept/p", json!({"pin": true})).await;
        put(&cache, "/kept/p/f", &pattern(1, 4_000)).await.unwrap();
        put(&cache, "/kept/q/g", &pattern(2, 4_000)).await.unwrap();
        put(&cache, "/kept/q/h", &pattern(3, 4_000)).await.unwrap();
        persisted(&cache).await;
        cache
            .rename(&at("/kept/q/g"), &at("/kept/p/g"), Rename::default())
            .await
            .unwrap();
        persisted(&cache).await;
        for _ in 0..3 {
            read_all(&cache, "x", 0..100).await;
        }
        settle().await;
        assert_eq!(
            (held(&cache, "/kept/p/f").await, held(&cache, "/kept/p/g").await),
            (4_000, 4_000)
        );
        assert_eq!(held(&cache, "/kept/q/h").await, 0);
        let freed = cache.free(&at("/kept/p")).await.unwrap();
        assert_eq!((freed.freed_bytes, freed.pinned_bytes), (0, 8_000));
        // Out of the pinned directory it is like everything else.
        cache
            .rename(&at("/kept/p/g"), &at("/kept/q/g"), Rename::default())
            .await
            .unwrap();
        assert_eq!(cache.free(&at("/kept/q")).await.unwrap().freed_bytes, 4_000);
    });
}

#[test]
fn a_pin_further_up_is_ended_where_it_is_unpinned_and_one_that_does_not_fit_says_so() {
    let mut world = world(3, 10_000);
    outside(&world, "p", 30);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(
            kind(cache.pin(&at("/kept/none"), None, true).await),
            ErrorKind::NotFound
        );
        assert!(cache.policy_get(&at("/kept/none")).is_empty());
        let error = cache.pin(&at("/kept/p"), None, true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().contains("--cache-max"), "{error}");
        assert_eq!(held_in(&cache, "p", 30).await, 10_000);
        cache.unpin(&at("/kept/p/0001")).await.unwrap();
        let line = |path: &str| {
            let lines = cache.policy_explain(&at(path));
            lines
                .into_iter()
                .find(|line| line.value.key() == Key::Pin)
                .unwrap()
                .value
        };
        assert_eq!(
            (line("/kept/p/0001"), line("/kept/p/0002")),
            (Value::Pin(Pin::No), Value::Pin(Pin::Yes))
        );
        // Reads go past what is full of pins.
        assert_eq!(get(&cache, "/kept/p/0029").await.unwrap(), pattern(29, 1000));
    });
}

#[test]
fn a_pin_holds_until_its_time_and_a_newer_one_longer() {
    let mut world = world(8, 100_000);
    outside(&world, "p", 3);
    outside(&world, "q", 3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let hour = |hours: u64| Some(PinEnd::At(world.clock.now().plus(Duration::from_secs(3600 * hours))));
        for dir in ["/kept/p", "/kept/q"] {
            cache.pin(&at(dir), hour(1), true).await.unwrap();
        }
        world.clock.sleep(Duration::from_secs(3500)).await;
        cache.pin(&at("/kept/q"), hour(24), true).await.unwrap();
        assert_eq!(cache.free(&at("/kept")).await.unwrap().pinned_bytes, 6_000);
        world.clock.sleep(Duration::from_secs(200)).await;
        assert!(cache.policy_get(&at("/kept/p")).is_empty());
        let freed = cache.free(&at("/kept")).await.unwrap();
        assert_eq!((freed.freed_bytes, freed.pinned_bytes), (3_000, 3_000));
    });
    world.cut_power();
    world.live(async |world| {
        // Its time passes while nothing runs.
        world.clock.sleep(Duration::from_secs(3600 * 25)).await;
        let cache = world.open().await.unwrap();
        world.clock.sleep(Duration::from_secs(1)).await;
        assert!(cache.policy_get(&at("/kept/q")).is_empty());
        let day = Duration::from_secs(86_400);
        for end in [
            PinEnd::In(Duration::ZERO),
            PinEnd::At(world.clock.now()),
            PinEnd::In(day * 36_501),
        ] {
            let refused = cache.pin(&at("/kept/q"), Some(end), false).await;
            assert_eq!(kind(refused), ErrorKind::Invalid, "{end:?}");
        }
        assert!(cache.policy_get(&at("/kept/q")).is_empty());
        cache.pin(&at("/kept/q"), Some(PinEnd::In(day)), true).await.unwrap();
        cache.unpin(&at("/kept/q")).await.unwrap();
        assert!(cache.policy_get(&at("/kept/q")).is_empty());
    });
}

// ---- orders

#[test]
fn a_directory_that_is_read_in_epochs_is_hit_as_often_as_half_of_it_can_be() {
    let mut world = world(4, 50_000);
    outside(&world, "train", 100);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let epoch = async |step: u64| {
            let before = world.store.calls(Call::Read);
            read_all(&cache, "train", (0..100).map(|n| n * step % 100)).await;
            world.store.calls(Call::Read) - before
        };
        for step in [1, 3, 7] {
            epoch(step).await;
        }
        for step in [9, 11, 13] {
            let (misses, held) = (epoch(step).await, held_in(&cache, "train", 100).await);
            assert_eq!(held, 50_000, "half is held, and stays held");
            // Some are fetched ahead for the next one.
            assert!((40..=60).contains(&misses), "{misses}");
        }
    });
}

#[test]
fn the_order_that_a_path_names_is_the_one_it_has() {
    for (evict, misses) in [("epoch", 50), ("lru", 100)] {
        let mut world = world(5, 50_000);
        outside(&world, "d", 100);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            set(&cache, "/kept/d", json!({ "evict": evict })).await;
            for _ in 0..3 {
                read_all(&cache, "d", 0..100).await;
            }
            let before = world.store.calls(Call::Read);
            read_all(&cache, "d", 0..100).await;
            let missed = world.store.calls(Call::Read) - before;
            // Some may have been fetched ahead for nothing a moment ago.
            assert!((misses - 10..=misses).contains(&missed), "{evict}: {missed}");
        });
    }
}

#[test]
fn a_scan_passes_by_what_is_used() {
    let mut world = world(6, 50_000);
    outside(&world, "hot", 20);
    outside(&world, "scan", 1_000);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for _ in 0..3 {
            read_all(&cache, "hot", 0..20).await;
        }
        read_all(&cache, "scan", 0..1_000).await;
        let before = world.store.calls(Call::Read);
        read_all(&cache, "hot", 0..20).await;
        assert_eq!(world.store.calls(Call::Read), before, "all of it is still there");
    });
}

#[test]
fn a_scan_of_twenty_times_the_cache_is_hardly_written_and_takes_nothing_from_what_is_used() {
    let mut world = world(9, 50_000);
    for (folder, count) in [("hot", 30), ("scan", 1_000), ("wanted", 10)] {
        outside(&world, folder, count);
    }
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for _ in 0..3 {
            read_all(&cache, "hot", 0..30).await;
        }
        let done = || (world.store.calls(Call::Read), world.disk.calls().writes);
        let before = done();
        for n in 0..1_000 {
            read_all(&cache, "scan", n..n + 1).await;
            read_all(&cache, "hot", n % 30..n % 30 + 1).await;
        }
        let (reads, writes) = (done().0 - before.0, done().1 - before.1);
        assert!(
            reads <= 1_000,
            "{reads} reads of the store: what is used is still there"
        );
        assert!(writes < 1_000 / 8, "{writes} writes");
        // What is asked for is there, whatever else is read.
        let loaded = cache.load(&at("/kept/wanted"), true).await.unwrap();
        assert_eq!((loaded.files, loaded.full), (10, false));
        assert_eq!(held_in(&cache, "wanted", 10).await, 10_000);
    });
}

#[test]
fn a_large_file_that_is_scanned_is_fetched_ahead_and_once() {
    const BLOCK: u64 = 2 << 20;
    let mut world = world(10, 8 * BLOCK);
    let content = pattern(1, (64 * BLOCK) as usize);
    world.store.write_outside("large", content.clone());
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let clock = world.components().clock;
        let (begin, before) = (clock.monotonic(), world.disk.calls().writes);
        let reader = cache.read_file(&at("/kept/large")).await.unwrap();
        let piece = BLOCK / 8;
        for start in (0..reader.size()).step_by(piece as usize) {
            let bytes = reader.read(start..start + piece).await.unwrap().concat();
            assert!(bytes == content[start as usize..(start + piece) as usize], "at {start}");
            clock.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(world.store.calls(Call::Read), 64);
        let (took, writes) = (clock.monotonic() - begin, world.disk.calls().writes - before);
        assert!(writes < 24, "{writes} blocks written");
        // A request takes 10 ms on average, and a block 8 ms to read.
        assert!(took < Duration::from_millis(64 * 15), "{took:?}");
    });
}

// ---- times to live

#[test]
fn data_whose_time_is_over_leaves_the_cache_and_dirty_and_pinned_data_does_not() {
    let mut world = world(7, 1 << 20);
    outside(&world, "t", 3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/t", json!({"ttl": "10min"})).await;
        put(&cache, "/kept/t/own", &pattern(9, 2_000)).await.unwrap();
        persisted(&cache).await;
        read_all(&cache, "t", 0..3).await;
        set(&cache, "/kept/t/0002", json!({"pin": true})).await;
        world.store.refuse(&["t/dirty"]);
        put(&cache, "/kept/t/dirty", &pattern(8, 2_000)).await.unwrap();
        tokio::time::sleep(MINUTE * 5).await;
        assert_eq!(
            (held_in(&cache, "t", 3).await, held(&cache, "/kept/t/own").await),
            (3_000, 2_000)
        );
        tokio::time::sleep(MINUTE * 8).await;
        assert_eq!(
            (held_in(&cache, "t", 3).await, held(&cache, "/kept/t/own").await),
            (1_000, 0)
        );
        assert_eq!(held(&cache, "/kept/t/dirty").await, 2_000);
        assert_eq!(get(&cache, "/kept/t/own").await.unwrap(), pattern(9, 2_000));
        assert_eq!(get(&cache, "/kept/t/dirty").await.unwrap(), pattern(8, 2_000));
    });
}

#[test]
fn data_whose_time_is_over_is_deleted_everywhere_and_what_was_written_again_is_not() {
    let mut world = world(8, 1 << 20);
    outside(&world, "t", 3);
    outside(&world, "u", 1);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/t", json!({"ttl": "10min", "ttl_action": "delete"})).await;
        set(&cache, "/kept/t/sub", json!({"ttl": "none"})).await;
        for path in ["/kept/t/own", "/kept/t/again", "/kept/t/sub/stays"] {
            put(&cache, path, b"x").await.unwrap();
        }
        persisted(&cache).await;
        tokio::time::sleep(MINUTE * 8).await;
        put(&cache, "/kept/t/again", b"y").await.unwrap();
        // Dirty data is deleted too, as anybody could delete it: nothing of it comes back.
        tokio::time::sleep(MINUTE * 5).await;
        persisted(&cache).await;
        let names: Vec<String> = world
            .store
            .contents()
            .into_keys()
            .filter(|key| !key.ends_with('/'))
            .collect();
        assert_eq!(names, ["t/again", "t/sub/stays", "u/0000"]);
        assert_eq!(kind(cache.stat(&at("/kept/t/own")).await), ErrorKind::NotFound);
        assert_eq!(get(&cache, "/kept/t/again").await.unwrap(), b"y");
        tokio::time::sleep(MINUTE * 9).await;
        assert_eq!(kind(cache.stat(&at("/kept/t/again")).await), ErrorKind::NotFound);
    });
}

#[test]
fn a_store_that_is_away_holds_a_round_back_and_loses_nothing() {
    let mut world = world(9, 1 << 20);
    outside(&world, "t", 3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/t", json!({"ttl": "1min", "ttl_action": "delete"})).await;
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        tokio::time::sleep(MINUTE * 5).await;
        assert_eq!(world.store.contents().len(), 3);
        world.store.set_away(None);
        tokio::time::sleep(MINUTE * 5).await;
        persisted(&cache).await;
        assert!(world.store.contents().is_empty());
    });
}

// ---- quotas

async fn append(cache: &Cache, path: &str, bytes: &[u8]) -> Result<(), Error> {
    write(cache, path, bytes, WriteFile::default()).await.map(drop)
}

#[test]
fn a_quota_refuses_what_would_exceed_it_and_takes_what_fits() {
    let mut world = world(10, 1 << 20);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/q/before", &pattern(0, 3_000)).await.unwrap();
        set(&cache, "/q", json!({"quota_bytes": 10_000, "quota_files": 4})).await;
        put(&cache, "/q/a", &pattern(1, 5_000)).await.unwrap();
        let error = put(&cache, "/q/d/b", &pattern(1, 2_001)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(
            error.to_string().contains("quota_bytes of /q") && error.to_string().contains("/q/d/b"),
            "{error}"
        );
        assert_eq!(kind(cache.stat(&at("/q/d/b")).await), ErrorKind::NotFound);
        put(&cache, "/q/d/b", &pattern(1, 2_000)).await.unwrap();
        // What takes another's place counts for the difference alone.
        put(&cache, "/q/a", &pattern(2, 5_000)).await.unwrap();
        assert_eq!(kind(append(&cache, "/q/a", b"x").await), ErrorKind::Full);
        assert_eq!(kind(cache.truncate(&at("/q/a"), 5_001).await), ErrorKind::Full);
        cache.truncate(&at("/q/a"), 4_000).await.unwrap();
        append(&cache, "/q/a", &[1; 1_000]).await.unwrap();
        // Elsewhere nothing is limited.
        put(&cache, "/r", &pattern(1, 50_000)).await.unwrap();
        assert_eq!(
            kind(cache.rename(&at("/r"), &at("/q/r"), Rename::default()).await),
            ErrorKind::Full
        );
        // Room that is made can be used at once.
        cache.delete(&at("/q/d"), true).await.unwrap();
        put(&cache, "/q/c", &pattern(1, 2_000)).await.unwrap();
        cache.truncate(&at("/q/c"), 0).await.unwrap();
        put(&cache, "/q/e", b"").await.unwrap();
        let error = put(&cache, "/q/f", b"").await.unwrap_err();
        assert!(error.to_string().contains("quota_files of /q"), "{error}");
        cache.rename(&at("/q/e"), &at("/e"), Rename::default()).await.unwrap();
        put(&cache, "/q/f", b"").await.unwrap();
        set(&cache, "/q", json!({"quota_files": null, "quota_bytes": "none"})).await;
        put(&cache, "/q/g", &pattern(1, 50_000)).await.unwrap();
    });
}

#[test]
fn a_quota_is_counted_again_after_a_restart_and_holds_beside_those_above_and_below() {
    let mut world = world(11, 1 << 20);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/q", json!({"quota_bytes": 10_000})).await;
        set(&cache, "/q/in", json!({"quota_bytes": 4_000})).await;
        put(&cache, "/q/in/a", &pattern(1, 4_000)).await.unwrap();
        let error = put(&cache, "/q/in/b", b"x").await.unwrap_err();
        assert!(error.to_string().contains("quota_bytes of /q/in is"), "{error}");
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/q/b", &pattern(1, 6_000)).await.unwrap();
        let error = put(&cache, "/q/c", b"x").await.unwrap_err();
        assert!(error.to_string().contains("quota_bytes of /q is"), "{error}");
        // A stream is cut off when it can not fit any more, not at its end.
        let overwrite = WriteFile {
            mode: WriteMode::Overwrite,
            ..WriteFile::default()
        };
        let mut writer = cache.write_file(&at("/q/b"), overwrite).await.unwrap();
        writer.append(vec![pattern(1, 6_000).into()]).await.unwrap();
        assert_eq!(kind(writer.append(vec![vec![1].into()]).await), ErrorKind::Full);
    });
}

#[test]
fn a_quota_of_users_counts_each_ones_files_and_nobodys_not() {
    const ANN: u32 = 1001;
    const BEN: u32 = 1002;
    async fn put_by(cache: &Cache, owner: u32, path: &str, len: usize) -> Result<(), Error> {
        let how = WriteFile {
            mode: WriteMode::Overwrite,
            owner: Some((owner, owner)),
            ..WriteFile::default()
        };
        write(cache, path, &pattern(1, len), how).await.map(drop)
    }
    async fn give(cache: &Cache, path: &str, owner: u32) -> Result<(), Error> {
        let change = SetAttributes {
            uid: Some(owner),
            ..SetAttributes::default()
        };
        cache.set_attributes(&at(path), change).await.map(drop)
    }
    let mut world = world(13, 1 << 20);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put_by(&cache, ANN, "/q/before", 3_000).await.unwrap();
        assert!(!cache.counts_users(&at("/q/d/a")));
        set(&cache, "/q", json!({"user_quota_bytes": 10_000, "user_quota_files": 4})).await;
        assert!(cache.counts_users(&at("/q/d/a")) && !cache.counts_users(&at("/r")));
        put_by(&cache, ANN, "/q/d/a", 7_000).await.unwrap();
        let error = put_by(&cache, ANN, "/q/b", 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(
            error
                .to_string()
                .contains("user_quota_bytes of /q is reached for user 1001"),
            "{error}"
        );
        assert_eq!(
            kind(append(&cache, "/q/d/a", b"x").await),
            ErrorKind::Full,
            "of whom it is"
        );
        // Of another, and of nobody, there is as much room as before.
        put_by(&cache, BEN, "/q/ben", 10_000).await.unwrap();
        put(&cache, "/q/nobody", &pattern(1, 50_000)).await.unwrap();
        // What is given away counts for who has it then.
        assert_eq!(kind(give(&cache, "/q/d/a", BEN).await), ErrorKind::Full);
        assert_eq!(cache.stat(&at("/q/d/a")).await.unwrap().uid, ANN);
        cache.truncate(&at("/q/ben"), 3_000).await.unwrap();
        give(&cache, "/q/d/a", BEN).await.unwrap();
        put_by(&cache, ANN, "/q/b", 7_000).await.unwrap();
        assert_eq!(kind(append(&cache, "/q/ben", b"x").await), ErrorKind::Full);
        // What takes another's place is of who writes it.
        put_by(&cache, BEN, "/r/ben", 1).await.unwrap();
        let moved = cache.rename(&at("/r/ben"), &at("/q/moved"), Rename::default()).await;
        assert_eq!(kind(moved), ErrorKind::Full);
        assert_eq!(kind(put_by(&cache, ANN, "/q/ben", 1).await), ErrorKind::Full);
        cache.delete(&at("/q/before"), false).await.unwrap();
        put_by(&cache, ANN, "/q/ben", 3_000).await.unwrap();
        cache
            .rename(&at("/r/ben"), &at("/q/moved"), Rename::default())
            .await
            .unwrap();
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        // Two files of 7,000 and 3,000 bytes; the other has one of 7,000 and one of 1.
        assert_eq!(kind(put_by(&cache, ANN, "/q/c", 1).await), ErrorKind::Full);
        for number in 0..2 {
            put_by(&cache, BEN, &format!("/q/ben-{number}"), 1).await.unwrap();
        }
        let error = put_by(&cache, BEN, "/q/ben-2", 1).await.unwrap_err();
        assert!(error.to_string().contains("user_quota_files of /q"), "{error}");
    });
}

#[test]
fn a_refused_write_gives_its_share_back() {
    let mut world = world(12, 1 << 20);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/q", json!({"quota_bytes": 10_000})).await;
        for _ in 0..20 {
            let mut writer = cache.write_file(&at("/q/a"), WriteFile::default()).await.unwrap();
            writer.append(vec![pattern(1, 6_000).into()]).await.unwrap();
            drop(writer);
            assert_eq!(kind(put(&cache, "/q/b", &pattern(1, 10_001)).await), ErrorKind::Full);
        }
        put(&cache, "/q/b", &pattern(1, 10_000)).await.unwrap();
    });
}

#[test]
fn clean_data_is_held_to_the_quota_by_making_room() {
    let mut world = world(13, 1 << 20);
    outside(&world, "q", 50);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        read_all(&cache, "q", 0..50).await;
        assert_eq!(held_in(&cache, "q", 50).await, 50_000);
        set(&cache, "/kept/q", json!({"quota_bytes": 20_000})).await;
        assert_eq!(held_in(&cache, "q", 50).await, 20_000);
        read_all(&cache, "q", 0..50).await;
        assert_eq!(held_in(&cache, "q", 50).await, 20_000);
    });
}

// ---- loads

#[test]
fn a_load_says_how_far_it_is_and_can_be_ended() {
    let mut world = world(14, 10 << 20);
    outside(&world, "d/a", 40);
    outside(&world, "d/b", 40);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let spec = LoadSpec {
            paths: vec![at("/kept/d"), at("/kept/not-there")],
            parallel: Some(1),
            ..LoadSpec::default()
        };
        let begun = cache.load_all(spec.clone(), false).await.unwrap();
        let job = cache.loads().pop().unwrap();
        assert_eq!(
            (job.id, job.path, job.paths, job.state),
            (begun.job, at("/kept/d"), 2, LoadState::Running)
        );
        assert_eq!(cache.cancel_loads(&at("/kept/d")), 1);
        settle().await;
        let job = cache.loads().pop().unwrap();
        assert_eq!(job.state, LoadState::Cancelled);
        assert!(job.bytes.0 < 80_000, "{job:?}");
        assert_eq!(cache.cancel_loads(&at("/kept/d")), 0);
        let loaded = cache.load_all(spec, true).await.unwrap();
        assert_eq!((loaded.files, loaded.bytes, loaded.full), (80, 80_000, false));
        let job = cache.loads().pop().unwrap();
        assert_eq!(
            (job.files, job.bytes, job.found_all, job.state),
            ((80, 80), (80_000, 80_000), true, LoadState::Loaded)
        );
        let reads = world.store.calls(Call::Read);
        cache.load(&at("/kept/d"), true).await.unwrap();
        assert_eq!(
            world.store.calls(Call::Read),
            reads,
            "what is there is not fetched again"
        );
        for wrong in [
            LoadSpec::default(),
            LoadSpec {
                paths: vec![at("/kept")],
                parallel: Some(0),
                ..LoadSpec::default()
            },
            LoadSpec {
                paths: vec![at("/kept"); 20_000],
                ..LoadSpec::default()
            },
        ] {
            assert_eq!(kind(cache.load_all(wrong, true).await), ErrorKind::Invalid);
        }
    });
}

#[test]
fn a_load_goes_on_after_a_restart() {
    let mut world = world(15, 10 << 20);
    outside(&world, "d", 60);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.load(&at("/kept/d"), false).await.unwrap();
        assert_eq!(cache.loads().pop().unwrap().state, LoadState::Running);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(cache.loads().len(), 1);
        settle().await;
        assert_eq!(held_in(&cache, "d", 60).await, 60_000);
        assert_eq!(cache.loads().pop().unwrap().state, LoadState::Loaded);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert!(cache.loads().is_empty(), "one that has ended is not begun again");
    });
}

/// Whatever lies below a folder of the disk, the largest first.
fn files(world: &World, folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files_below(world, folder.as_ref(), &mut found);
    found.sort_by_key(|(path, len)| (std::cmp::Reverse(*len), path.clone()));
    found.into_iter().map(|(path, _)| path).collect()
}

async fn verify(cache: &Cache, path: &str) -> Result<Loaded, Error> {
    let spec = LoadSpec {
        paths: vec![at(path)],
        verify: true,
        ..LoadSpec::default()
    };
    cache.load_all(spec, true).await
}

#[test]
fn a_load_that_verifies_reads_back_what_is_held_and_fetches_what_is_damaged() {
    let mut world = world(18, 10 << 20);
    outside(&world, "d", 6);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let loaded = verify(&cache, "/kept/d").await.unwrap();
        assert_eq!((loaded.bytes, loaded.read_back), (6_000, (0, 0)), "nothing was held");
        let blocks = files(world, "/data/clean");
        world.disk.flip(&blocks[1], 500, 0x40);
        world.disk.cut(&blocks[2], 10);
        world.disk.lose(&blocks[3]);
        let reads = world.store.calls(Call::Read);
        cache.load(&at("/kept/d"), true).await.unwrap();
        assert_eq!(world.store.calls(Call::Read), reads, "what is held is not looked at");
        let loaded = verify(&cache, "/kept/d").await.unwrap();
        assert_eq!((loaded.files, loaded.bytes), (6, 6_000));
        assert_eq!(loaded.read_back, (3_000, 3_000));
        assert_eq!(cache.loads().pop().unwrap().read_back, (3_000, 3_000));
        assert_eq!(world.store.calls(Call::Read), reads + 3);
        assert_eq!(verify(&cache, "/kept/d").await.unwrap().read_back, (6_000, 0));
        read_all(&cache, "d", 0..6).await;
        assert_eq!(world.store.calls(Call::Read), reads + 3);
    });
}

#[test]
fn a_load_that_verifies_replaces_damaged_copies_and_names_what_is_lost() {
    let mut world = world(19, 10 << 20);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/d/large", &pattern(1, 600_000)).await.unwrap();
        put(&cache, "/kept/d/small", &pattern(2, 3_000)).await.unwrap();
        put(&cache, "/kept/d/whole", &pattern(3, 300_000)).await.unwrap();
        persisted(&cache).await;
        // Bytes that were compared once are compared again.
        assert_eq!(get(&cache, "/kept/d/large").await.unwrap(), pattern(1, 600_000));
        assert_eq!(verify(&cache, "/kept/d").await.unwrap().read_back, (903_000, 0));
        let damaged = files(world, "/data").into_iter().next().unwrap();
        world.disk.flip(&damaged, 550_000, 1);
        let reads = world.store.calls(Call::Read);
        assert_eq!(cache.load(&at("/kept/d"), true).await.unwrap().bytes, 903_000);
        assert_eq!(world.store.calls(Call::Read), reads);

        // A store that is away keeps its copies here, such as they are.
        tokio::time::sleep(SECOND).await;
        world.store.set_away(Some(StoreError::Unavailable("away".into())));
        verify(&cache, "/kept/d").await.unwrap_err();
        world.store.set_away(None);
        assert_eq!(world.store.calls(Call::Read), reads);
        tokio::time::sleep(SECOND * 5).await;

        let loaded = verify(&cache, "/kept/d").await.unwrap();
        assert_eq!((loaded.files, loaded.bytes), (3, 903_000));
        assert_eq!(loaded.read_back, (303_000, 600_000));
        let fetched = world.store.calls(Call::Read);
        assert!(fetched > reads);
        assert_eq!(get(&cache, "/kept/d/large").await.unwrap(), pattern(1, 600_000));
        assert_eq!(verify(&cache, "/kept/d").await.unwrap().read_back, (903_000, 0));
        assert_eq!(world.store.calls(Call::Read), fetched, "it is held as any other");

        // What no store has is not dropped for being damaged.
        put(&cache, "/local/big", &pattern(4, 900_000)).await.unwrap();
        let damaged = files(world, "/data").into_iter().next().unwrap();
        world.disk.flip(&damaged, 550_000, 1);
        assert_eq!(kind(verify(&cache, "/local").await), ErrorKind::DataLoss);
        world.disk.flip(&damaged, 550_000, 1);
        assert_eq!(verify(&cache, "/local").await.unwrap().read_back, (900_000, 0));
        assert_eq!(get(&cache, "/local/big").await.unwrap(), pattern(4, 900_000));
    });
}

#[test]
fn a_load_that_verifies_still_does_after_a_restart() {
    let mut world = world(20, 10 << 20);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for n in 0..40 {
            put(&cache, &format!("/kept/d/{n:04}"), &pattern(n, 1000))
                .await
                .unwrap();
        }
        persisted(&cache).await;
        let spec = LoadSpec {
            paths: vec![at("/kept/d")],
            parallel: Some(1),
            verify: true,
        };
        cache.load_all(spec, false).await.unwrap();
        assert_eq!(cache.loads().pop().unwrap().state, LoadState::Running);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        settle().await;
        let job = cache.loads().pop().unwrap();
        assert_eq!((job.state, job.read_back), (LoadState::Loaded, (40_000, 0)));
    });
}

#[test]
fn a_load_ends_where_the_cache_is_full_and_says_what_failed() {
    let mut world = world(16, 20_000);
    outside(&world, "d", 60);
    outside(&world, "e", 3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let loaded = cache.load(&at("/kept/d"), true).await.unwrap();
        assert!(loaded.full && loaded.bytes <= 25_000, "{loaded:?}");
        assert_eq!(cache.loads().pop().unwrap().state, LoadState::Full);
        cache.free(&at(KEPT)).await.unwrap();
        world.store.fail_next(Call::Read, Fault::Refused("403".into()));
        let error = cache.load(&at("/kept/e"), true).await.unwrap_err();
        assert!(error.to_string().contains("/kept/e/000"), "{error}");
        assert_eq!(
            held_in(&cache, "e", 3).await,
            2_000,
            "one that fails does not keep the others back"
        );
    });
}

#[test]
fn a_load_gives_way_to_readers() {
    let mut world = world(17, 10 << 20);
    outside(&world, "d", 40);
    outside(&world, "x", 400);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let clock = world.clock.clone();
        let alone = clock.monotonic();
        cache.load(&at("/kept/d"), true).await.unwrap();
        let alone = clock.monotonic() - alone;
        cache.free(&at("/kept/d")).await.unwrap();
        let reading = {
            let cache = cache.clone();
            tokio::spawn(async move {
                // In no order, or they would be fetched before he wants them.
                for n in 0..400 {
                    get(&cache, &format!("/kept/x/{:04}", n * 53 % 400)).await.unwrap();
                }
            })
        };
        let beside = clock.monotonic();
        cache.load(&at("/kept/d"), true).await.unwrap();
        let beside = clock.monotonic() - beside;
        assert!(beside > alone, "it took {beside:?} beside a reader and {alone:?} alone");
        reading.await.unwrap();
        assert_eq!(held_in(&cache, "d", 40).await, 40_000);
    });
}
