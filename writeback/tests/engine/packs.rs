//! The policy `pack`: many small files in one object of the under-store, shown one by one, by this server and by one that has nothing but
//! the store.

use crate::support::{World, at, get, kind, pattern, put, tree};
use forebay_metastore::mem::MemStore;
use forebay_runtime::{
    chance::{Chance, SeededChance},
    clock::Clock,
    disk::SimDisk,
};
use forebay_understore::{
    StoreError,
    memory::{Call, Fault, FaultRates},
    packs::FOLDER,
};
use forebay_writeback::{
    Cache, ErrorKind,
    names::{Rename, StatKind},
    policy::Change,
};
use std::{collections::BTreeMap, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

type Files = BTreeMap<String, Vec<u8>>;

async fn set(cache: &Cache, path: &str, pack: bool) {
    let change = Change::parse("pack", Some(&serde_json::Value::Bool(pack))).unwrap();
    cache.policy_set(&at(path), vec![change]).await.unwrap();
}

async fn persisted(cache: &Cache) {
    cache.wait_persisted(&at("/kept"), 24 * HOUR).await.unwrap();
}

async fn rename(cache: &Cache, from: &str, to: &str) {
    let how = Rename {
        replace: true,
        parents: true,
        ..Rename::default()
    };
    cache.rename(&at(from), &at(to), how).await.unwrap();
}

/// All files as they show, read.
async fn files(cache: &Cache) -> Files {
    let mut files = Files::new();
    for stat in tree(cache, "/kept")
        .await
        .unwrap()
        .into_iter()
        .filter(|stat| stat.kind == StatKind::File)
    {
        let path = stat.path.to_string();
        files.insert(path.clone(), get(cache, &path).await.unwrap());
    }
    files
}

fn own_names(world: &World) -> Vec<String> {
    let keys = world.store.contents().into_keys();
    keys.filter(|key| !key.starts_with(FOLDER)).collect()
}

fn packs(world: &World) -> usize {
    world.store.contents().len() - own_names(world).len()
}

/// Nothing is left but the under-store.
fn empty_folder(world: &mut World) {
    world.disk = SimDisk::new(world.seed + 1000);
    world.meta = MemStore::new();
}

/// What shows after a restart, and then to a server with an empty data folder.
fn shows(world: &mut World, expected: &Files) {
    for empty in [false, true] {
        if empty {
            empty_folder(world);
        }
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            persisted(&cache).await;
            assert_eq!(files(&cache).await, *expected, "with an empty folder: {empty}");
            let status = cache.status().await.unwrap();
            assert!(status.blocked.is_empty() && status.conflicts.is_empty());
            cache.shutdown().await;
        });
    }
}

#[test]
fn small_files_are_few_objects_and_show_one_by_one_to_whoever_has_the_store() {
    let mut world = World::new(1);
    let mut expected = Files::new();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", true).await;
        let writes = (0..200_u8).map(|nth| {
            let (path, content) = (
                format!("/kept/d{}/f{nth}", nth % 3),
                pattern(nth, 100 + usize::from(nth) * 50),
            );
            expected.insert(path.clone(), content.clone());
            let cache = &cache;
            async move { put(cache, &path, &content).await.unwrap() }
        });
        futures::future::join_all(writes).await;
        persisted(&cache).await;
        assert_eq!(own_names(world), [""; 0]);
        assert!(packs(world) <= 20, "{} packs of 200 files", packs(world));
        assert_eq!(cache.status().await.unwrap().dirty_files, 0);
        cache.free(&at("/kept")).await.unwrap();
        let reads = world.store.calls(Call::Read);
        assert_eq!(files(&cache).await, expected);
        assert!(world.store.calls(Call::Read) > reads, "nothing was read of the store");
        cache.shutdown().await;
    });
    shows(&mut world, &expected);
}

#[test]
fn what_is_changed_deleted_or_renamed_does_not_come_back() {
    let mut world = World::new(2);
    let mut expected = Files::new();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/p", true).await;
        for nth in 0..40_u8 {
            let path = format!("/kept/p/d{}/f{nth}", nth % 4);
            put(&cache, &path, &pattern(nth, 500)).await.unwrap();
            expected.insert(path, pattern(nth, 500));
        }
        persisted(&cache).await;
        cache.free(&at("/kept")).await.unwrap();
        // Deleted, overwritten by a small one and by a large one, renamed, appended; one deleted and written anew.
        cache.delete(&at("/kept/p/d0/f0"), false).await.unwrap();
        expected.remove("/kept/p/d0/f0");
        for (path, content) in [
            ("/kept/p/d0/f4", pattern(77, 900)),
            ("/kept/p/d0/f8", pattern(78, 2 << 20)),
        ] {
            put(&cache, path, &content).await.unwrap();
            expected.insert(path.into(), content);
        }
        rename(&cache, "/kept/p/d0/f12", "/kept/p/d0/other").await;
        let moved = expected.remove("/kept/p/d0/f12").unwrap();
        expected.insert("/kept/p/d0/other".into(), moved);
        cache.delete(&at("/kept/p/d0/f16"), false).await.unwrap();
        put(&cache, "/kept/p/d0/f16", b"anew").await.unwrap();
        expected.insert("/kept/p/d0/f16".into(), b"anew".to_vec());
        // A directory renamed, one out of the policy, one deleted.
        rename(&cache, "/kept/p/d1", "/kept/p/moved").await;
        rename(&cache, "/kept/p/d2", "/kept/plain/moved").await;
        cache.delete(&at("/kept/p/d3"), true).await.unwrap();
        expected = std::mem::take(&mut expected)
            .into_iter()
            .filter(|(path, _)| !path.starts_with("/kept/p/d3/"))
            .map(|(path, content)| {
                let path = path.replace("/kept/p/d1/", "/kept/p/moved/");
                (path.replace("/kept/p/d2/", "/kept/plain/moved/"), content)
            })
            .collect();
        assert_eq!(files(&cache).await, expected, "at once");
        persisted(&cache).await;
        assert_eq!(files(&cache).await, expected, "once persisted");
        let mut own = own_names(world);
        own.retain(|name| !name.starts_with("plain/moved/"));
        assert_eq!(own, ["p/d0/f8"]);
        cache.shutdown().await;
    });
    shows(&mut world, &expected);
    // And all of it gone.
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.delete(&at("/kept/p"), true).await.unwrap();
        cache.delete(&at("/kept/plain"), true).await.unwrap();
        persisted(&cache).await;
        // What is left of packs goes after the answer.
        world.clock.sleep(HOUR).await;
        assert_eq!(own_names(world), [""; 0]);
        assert!(packs(world) <= 1);
        let bytes: usize = world.store.contents().values().map(bytes::Bytes::len).sum();
        assert!(bytes < 4_000, "{bytes} bytes are left of nothing");
        cache.shutdown().await;
    });
    shows(&mut world, &Files::new());
}

#[test]
fn what_was_packed_stays_readable_without_the_policy() {
    let mut world = World::new(3);
    let mut expected = Files::new();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", true).await;
        for name in ["a", "b", "_SUCCESS"] {
            put(&cache, &format!("/kept/{name}"), name.as_bytes()).await.unwrap();
            expected.insert(format!("/kept/{name}"), name.as_bytes().to_vec());
        }
        put(&cache, "/kept/large", &pattern(1, (1 << 20) + 1)).await.unwrap();
        expected.insert("/kept/large".into(), pattern(1, (1 << 20) + 1));
        persisted(&cache).await;
        // What tells others that all is there, and what is large, have their own names.
        assert_eq!(own_names(world), ["_SUCCESS", "large"]);
        set(&cache, "/kept", false).await;
        cache.free(&at("/kept")).await.unwrap();
        assert_eq!(files(&cache).await, expected);
        put(&cache, "/kept/a", b"by its own name").await.unwrap();
        expected.insert("/kept/a".into(), b"by its own name".to_vec());
        persisted(&cache).await;
        assert_eq!(own_names(world), ["_SUCCESS", "a", "large"]);
        // Deleted by others, it is not the packed one that comes back.
        world.store.delete_outside("a");
        world.clock.sleep(Duration::from_secs(10)).await;
        expected.remove("/kept/a");
        cache.sync(&at("/kept"), true).await.unwrap();
        assert_eq!(files(&cache).await, expected);
        cache.shutdown().await;
    });
    shows(&mut world, &expected);
}

#[test]
fn a_pack_that_others_delete_or_replace_is_found_out() {
    let mut world = World::new(4);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", true).await;
        put(&cache, "/kept/a", b"aaaa").await.unwrap();
        persisted(&cache).await;
        put(&cache, "/kept/b", b"bbbb").await.unwrap();
        persisted(&cache).await;
        cache.free(&at("/kept")).await.unwrap();
        let keys: Vec<String> = world.store.contents().into_keys().collect();
        assert_eq!(keys.len(), 2);
        let mut rotten = world.store.contents()[&keys[0]].to_vec();
        rotten[0] ^= 1;
        world.store.write_outside(&keys[0], rotten);
        world.store.delete_outside(&keys[1]);
        world.clock.sleep(Duration::from_secs(10)).await;
        // Wrong bytes are no bytes.
        assert_eq!(kind(get(&cache, "/kept/a").await), ErrorKind::DataLoss);
        assert_eq!(kind(get(&cache, "/kept/b").await), ErrorKind::NotFound);
        cache.sync(&at("/kept"), true).await.unwrap();
        let names: Vec<String> = tree(&cache, "/kept")
            .await
            .unwrap()
            .iter()
            .map(|stat| stat.path.to_string())
            .collect();
        assert_eq!(names, ["/kept/a"]);
        put(&cache, "/kept/b", b"again").await.unwrap();
        persisted(&cache).await;
        assert_eq!(get(&cache, "/kept/b").await.unwrap(), b"again");
    });
}

#[test]
fn what_others_wrote_under_the_name_is_a_conflict_and_stays() {
    let mut world = World::new(5);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", true).await;
        put(&cache, "/kept/packed", b"ours").await.unwrap();
        persisted(&cache).await;
        // Between our look at the name and our write.
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        for name in ["packed", "new", "fine"] {
            put(&cache, &format!("/kept/{name}"), b"ours anew").await.unwrap();
        }
        for name in ["packed", "new"] {
            world.store.write_outside(name, "theirs");
        }
        world.store.set_away(None);
        cache.wait_persisted(&at("/kept/fine"), HOUR).await.unwrap();
        world.clock.sleep(HOUR).await;
        let conflicts = cache.status().await.unwrap().conflicts;
        let paths: Vec<String> = conflicts.iter().map(|conflict| conflict.path.to_string()).collect();
        assert_eq!(paths, ["/kept/packed", "/kept/new"]);
        assert_eq!(world.store.contents()["packed"], "theirs");
        assert_eq!(world.store.contents()["new"], "theirs");
    });
}

/// The process ends at every moment of bringing some files there, the power goes off with it; and the calls of some worlds fail.
#[test]
fn whenever_it_is_cut_off_all_files_arrive_and_nothing_comes_back() {
    for cut in (0..120).step_by(3) {
        let mut world = World::new(100 + cut);
        let mut expected = Files::new();
        let chance = SeededChance::new(cut);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            set(&cache, "/kept", true).await;
            for nth in 0..12_u8 {
                let path = format!("/kept/d{}/f{nth}", nth % 2);
                put(&cache, &path, &pattern(nth, 300)).await.unwrap();
                expected.insert(path, pattern(nth, 300));
            }
            if chance.below(2) == 0 {
                persisted(&cache).await;
            }
            put(&cache, "/kept/d0/f0", b"anew").await.unwrap();
            expected.insert("/kept/d0/f0".into(), b"anew".to_vec());
            cache.delete(&at("/kept/d1/f1"), false).await.unwrap();
            expected.remove("/kept/d1/f1");
            rename(&cache, "/kept/d0/f2", "/kept/d0/g2").await;
            let moved = expected.remove("/kept/d0/f2").unwrap();
            expected.insert("/kept/d0/g2".into(), moved);
            if cut % 2 == 1 {
                world.store.set_rates(FaultRates {
                    unavailable: 80,
                    lost_answer: 120,
                    hang: 20,
                    short_read: 20,
                    wrong_body: 30,
                });
            }
            world.clock.sleep(Duration::from_millis(cut)).await;
        });
        world.cut_power();
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            world.clock.sleep(Duration::from_millis(cut / 2)).await;
            drop(cache);
        });
        world.store.set_rates(FaultRates::default());
        shows(&mut world, &expected);
        assert!(own_names(&world).is_empty(), "cut at {cut} ms: {:?}", own_names(&world));
    }
}

#[test]
fn a_lost_answer_is_no_conflict_and_an_outage_no_loss() {
    let mut world = World::new(7);
    let mut expected = Files::new();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", true).await;
        for fault in [Fault::LostAnswer, Fault::Unavailable, Fault::WrongBody, Fault::Hang] {
            for nth in 0..3_u8 {
                world.store.fail_next(Call::Put, fault.clone());
                // And what would tell of it.
                (0..nth).for_each(|_| world.store.fail_next(Call::Head, Fault::Unavailable));
                let path = format!("/kept/{fault:?}-{nth}");
                put(&cache, &path, &pattern(nth, 50)).await.unwrap();
                expected.insert(path, pattern(nth, 50));
                persisted(&cache).await;
            }
        }
        assert!(world.store.faults() >= 12);
        assert!(cache.status().await.unwrap().conflicts.is_empty());
        cache.shutdown().await;
    });
    shows(&mut world, &expected);
}
