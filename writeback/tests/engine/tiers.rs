//! Copies of clean blocks in tiers that are faster than the data folders.

use crate::support::{World, at, get, pattern};
use forebay_runtime::units::ByteSize;
use forebay_understore::memory::Call;
use forebay_writeback::{Cache, ErrorKind, TierSettings, clean::TierStatus, policy::Change};
use serde_json::{Value as Json, json};
use std::{path::PathBuf, time::Duration};

const FILES: u64 = 20;

fn tier(name: &str, bytes: u64) -> TierSettings {
    TierSettings {
        name: name.into(),
        dir: format!("/tier/{name}").into(),
        size: ByteSize(bytes),
    }
}

/// A world with these tiers, and twenty files of 1000 bytes in the store.
fn world(seed: u64, tiers: &[(&str, u64)]) -> World {
    let mut world = World::new(seed);
    world.settings.cache_max = Some(ByteSize(100_000));
    world.settings.tiers = tiers.iter().map(|(name, bytes)| tier(name, *bytes)).collect();
    for n in 0..FILES {
        world.store.write_outside(&format!("x/{n:04}"), pattern(n as u8, 1000));
    }
    world
}

async fn read_all(cache: &Cache, files: std::ops::Range<u64>) {
    for n in files {
        assert_eq!(
            get(cache, &format!("/kept/x/{n:04}")).await.unwrap(),
            pattern(n as u8, 1000)
        );
        // A copy goes up behind its reader.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn tiers(cache: &Cache) -> Vec<TierStatus> {
    cache.status().await.unwrap().tiers
}

async fn used(cache: &Cache) -> Vec<u64> {
    tiers(cache).await.iter().map(|tier| tier.used_bytes).collect()
}

async fn set(cache: &Cache, path: &str, tier: Json) {
    let change = Change::parse("tier", Some(&tier)).unwrap();
    cache.policy_set(&at(path), vec![change]).await.unwrap();
}

/// The files in a tier's folder.
fn copies(world: &World, name: &str) -> Vec<PathBuf> {
    let (disk, folder) = (world.disk.shared(), PathBuf::from(format!("/tier/{name}/clean")));
    let list = |folder: &PathBuf| disk.list(folder).unwrap_or_default();
    let below = |sub: &PathBuf| {
        list(sub)
            .into_iter()
            .map(|file| sub.join(file.name))
            .collect::<Vec<_>>()
    };
    let subs = list(&folder).into_iter().map(|sub| folder.join(sub.name));
    subs.flat_map(|sub| below(&sub)).collect()
}

#[test]
fn one_pass_brings_nothing_up_and_the_next_ones_a_tier_each() {
    world(1, &[("memory", 50_000), ("nvme", 50_000)]).live(async |world| {
        let cache = world.open().await.unwrap();
        read_all(&cache, 0..FILES).await;
        assert_eq!(used(&cache).await, [0, 0]);
        read_all(&cache, 0..FILES).await;
        assert_eq!(used(&cache).await, [0, 20_000]);
        read_all(&cache, 0..5).await;
        assert_eq!(used(&cache).await, [5000, 15_000]);
        let reads = world.store.calls(Call::Read);
        read_all(&cache, 0..5).await;
        assert_eq!(tiers(&cache).await[0].hits, 5);
        assert_eq!((copies(world, "memory").len(), copies(world, "nvme").len()), (5, 15));
        assert_eq!(world.store.calls(Call::Read), reads);
        // Freed is freed.
        cache.free(&at("/kept/x")).await.unwrap();
        assert_eq!(used(&cache).await, [0, 0]);
        assert!(copies(world, "memory").is_empty() && copies(world, "nvme").is_empty());
    });
}

#[test]
fn a_tier_that_is_full_gives_up_copies_and_nothing_is_fetched_again() {
    world(2, &[("memory", 5000)]).live(async |world| {
        let cache = world.open().await.unwrap();
        read_all(&cache, 0..FILES).await;
        let reads = world.store.calls(Call::Read);
        for _ in 0..5 {
            read_all(&cache, 0..FILES).await;
            assert!(used(&cache).await[0] <= 5000);
            assert_eq!(copies(world, "memory").len() as u64 * 1000, used(&cache).await[0]);
        }
        assert!(used(&cache).await[0] > 0);
        assert_eq!(world.store.calls(Call::Read), reads);
    });
}

#[test]
fn a_copy_that_is_damaged_or_gone_is_never_served_and_nothing_is_fetched_again() {
    world(3, &[("memory", 50_000)]).live(async |world| {
        let cache = world.open().await.unwrap();
        read_all(&cache, 0..FILES).await;
        read_all(&cache, 0..FILES).await;
        let (reads, files) = (world.store.calls(Call::Read), copies(world, "memory"));
        assert_eq!(files.len() as u64, FILES);
        for (n, file) in files.iter().enumerate() {
            match n % 3 {
                0 => world.disk.flip(file, 500, 0x40),
                1 => world.disk.cut(file, 10),
                _ => world.disk.lose(file),
            }
        }
        read_all(&cache, 0..FILES).await;
        assert_eq!(world.store.calls(Call::Read), reads, "the data folder has them");
        // They come up again.
        read_all(&cache, 0..FILES).await;
        read_all(&cache, 0..FILES).await;
        assert_eq!(used(&cache).await, [20_000]);
    });
}

#[test]
fn a_tier_that_is_full_before_its_size_is_no_error_for_a_reader() {
    world(4, &[("memory", 50_000)]).live(async |world| {
        let cache = world.open().await.unwrap();
        read_all(&cache, 0..FILES).await;
        let space = world.disk.shared().space("/tier".as_ref()).unwrap();
        world.disk.set_capacity(space.total - space.free);
        read_all(&cache, 0..FILES).await;
        assert_eq!(used(&cache).await, [0]);
        assert_eq!(copies(world, "memory"), [] as [PathBuf; 0]);
    });
}

#[test]
fn the_policy_brings_up_at_once_what_it_names_and_takes_down_what_it_does_not() {
    world(5, &[("memory", 50_000), ("nvme", 50_000)]).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/x", json!("memory")).await;
        cache.load(&at("/kept/x"), true).await.unwrap();
        assert_eq!(used(&cache).await, [20_000, 0]);
        // What is held already goes up as well.
        set(&cache, "/kept/x", json!("nvme")).await;
        assert_eq!(used(&cache).await, [0, 0]);
        cache.load(&at("/kept/x"), true).await.unwrap();
        assert_eq!(used(&cache).await, [0, 20_000]);
        set(&cache, "/kept/x", json!("disk")).await;
        assert_eq!(used(&cache).await, [0, 0]);
        read_all(&cache, 0..FILES).await;
        read_all(&cache, 0..FILES).await;
        assert_eq!(used(&cache).await, [0, 0]);
    });
}

#[test]
fn a_tier_begins_empty_and_one_that_went_from_the_settings_is_told_from_a_mistake() {
    let mut world = world(6, &[("memory", 50_000)]);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", json!("memory")).await;
        read_all(&cache, 0..FILES).await;
        assert_eq!(used(&cache).await, [20_000]);
    });
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!((used(&cache).await, copies(world, "memory").len()), (vec![0], 0));
    });
    world.settings.tiers.clear();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        read_all(&cache, 0..FILES).await;
        let change = Change::parse("tier", Some(&json!("memory"))).unwrap();
        let refused = cache.policy_set(&at("/kept/x"), vec![change]).await.unwrap_err();
        assert!(refused.to_string().contains("auto, disk"), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    });
}

#[test]
fn tiers_that_make_no_sense_are_refused_at_the_start() {
    for (tiers, kind, told) in [
        (vec![tier("disk", 1)], ErrorKind::Invalid, "neither"),
        (vec![tier("Fast", 1)], ErrorKind::Invalid, "small letters"),
        (vec![tier("a", 0)], ErrorKind::Invalid, "size is 0"),
        (vec![tier("a", 1), tier("a", 1)], ErrorKind::Invalid, "another tier"),
        (
            (0..9).map(|n| tier(&format!("t{n}"), 1)).collect(),
            ErrorKind::Invalid,
            "more than 8",
        ),
    ] {
        let mut world = World::new(7);
        world.settings.tiers = tiers;
        world.live(async |world| {
            let refused = world.open().await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{refused}");
            assert!(refused.to_string().contains(told), "{refused}");
        });
    }
    world(8, &[("memory", 1)]).live(async |world| {
        let _held = world.disk.shared().lock("/tier/memory/lock".as_ref()).unwrap();
        let refused = world.open().await.unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("tier memory: another process uses /tier/memory"),
            "{refused}"
        );
    });
}
