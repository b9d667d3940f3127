//! The under-store becomes what was acknowledged: through the engine's own door, against a store that fails.

use crate::support::{World, at, get, kind, part_notes, pattern, put, tree};
use bytes::Bytes;
use forebay_metastore::mem;
use forebay_runtime::{chance::Chance, chance::SeededChance, clock::Timestamp, units::ByteSize};
use forebay_understore::{
    StoreError, UnderStore,
    memory::{Call, Fault, FaultRates, Memory},
};
use forebay_writeback::{
    Cache, Error, ErrorKind, SetAttributes,
    names::{Rename, State},
    persist::Resolve,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

async fn persisted(cache: &Cache) {
    cache.wait_persisted(&at("/kept"), 24 * HOUR).await.unwrap();
}

async fn pause(world: &World, millis: u64) {
    use forebay_runtime::clock::Clock;
    world.clock.sleep(Duration::from_millis(millis)).await;
}

async fn rename(cache: &Cache, from: &str, to: &str) -> Result<(), Error> {
    cache
        .rename(
            &at(from),
            &at(to),
            Rename {
                replace: true,
                parents: false,
                ..Rename::default()
            },
        )
        .await
}

fn names(store: &Memory) -> Vec<String> {
    store.contents().into_keys().collect()
}

/// Lets one read of the metastore fail: the one after `nth` others.
fn fail_read(world: &World, nth: i32) {
    let mut left = nth;
    world.meta.set_hook(move |call| {
        left -= i32::from(matches!(call, mem::Call::Other(_)));
        if left == -1 {
            mem::Fault::Unavailable
        } else {
            mem::Fault::None
        }
    });
}

/// Writes, persists, and leaves only the copy in the store.
async fn clean(cache: &Cache, path: &str, content: &[u8]) {
    put(cache, path, content).await.unwrap();
    persisted(cache).await;
    cache.free(&at(path)).await.unwrap();
}

#[test]
fn a_file_lies_in_the_store_under_its_own_name_and_is_no_longer_dirty() {
    let mut world = World::new(1);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/day=1/part-0", &pattern(1, 100_000)).await.unwrap();
        put(&cache, "/local/x", b"stays").await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.contents()["day=1/part-0"], pattern(1, 100_000));
        assert_eq!(names(&world.store), ["day=1/part-0"]);
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes, status.queued), (1, 5, 0));
        assert_eq!((status.persisted_bytes, status.cached_bytes), (100_000, 100_000));
        assert_eq!(
            cache.stat(&at("/kept/day=1/part-0")).await.unwrap().state,
            State::Persisted
        );
        assert_eq!(
            kind(cache.wait_persisted(&at("/local/x"), MINUTE).await),
            ErrorKind::Precondition
        );
    });
}

#[test]
fn a_large_file_goes_in_parts_and_leaves_no_upload_however_often_parts_fail() {
    let mut world = World::new(2);
    world.settings.persist.single_put_bytes_max = ByteSize(50_000);
    world.settings.persist.part_bytes = ByteSize(30_000);
    world.store.set_rates(FaultRates {
        unavailable: 150,
        lost_answer: 150,
        hang: 30,
        ..FaultRates::default()
    });
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for index in 0..5_u8 {
            put(
                &cache,
                &format!("/kept/f{index}"),
                &pattern(index, 400_000 + usize::from(index)),
            )
            .await
            .unwrap();
        }
        persisted(&cache).await;
    });
    assert!(world.store.faults() > 20, "{}", world.store.faults());
    for index in 0..5_u8 {
        let size = 400_000 + usize::from(index);
        assert_eq!(world.store.contents()[&format!("f{index}")], pattern(index, size));
    }
    assert_eq!(world.store.open_uploads(), 0);
}

#[test]
fn while_the_store_is_away_writes_go_on_and_its_return_drains_them() {
    let mut world = World::new(3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/before", b"b").await.unwrap();
        persisted(&cache).await;
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        for index in 0..20 {
            put(&cache, &format!("/kept/new/{index}"), b"n").await.unwrap();
        }
        assert_eq!(get(&cache, "/kept/before").await.unwrap(), b"b");
        assert_eq!(
            kind(cache.wait_persisted(&at("/kept"), MINUTE).await),
            ErrorKind::Deadline
        );
        let calls = world.store.calls(Call::Put) + world.store.calls(Call::Head);
        pause(world, 600_000).await;
        let more = world.store.calls(Call::Put) + world.store.calls(Call::Head) - calls;
        assert!(more < 300, "the store is hammered: {more} calls in ten minutes");
        assert_eq!(cache.status().await.unwrap().dirty_files, 20);
        world.store.set_away(None);
        persisted(&cache).await;
        assert_eq!(world.store.contents().len(), 21);
    });
}

#[test]
fn what_is_refused_is_shown_and_holds_up_nothing_else() {
    let mut world = World::new(4);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.store.refuse(&["closed"]);
        put(&cache, "/kept/closed/a", b"a").await.unwrap();
        put(&cache, "/kept/open/b", b"b").await.unwrap();
        cache.wait_persisted(&at("/kept/open"), MINUTE).await.unwrap();
        assert_eq!(names(&world.store), ["open/b"]);
        let status = cache.status().await.unwrap();
        assert_eq!(status.blocked.len(), 1, "{status:?}");
        assert_eq!(status.blocked[0].path, at("/kept/closed/a"));
        assert!(status.blocked[0].reason.contains("403"), "{:?}", status.blocked);
        let since = status.blocked[0].since;
        pause(world, 300_000).await;
        assert_eq!(
            cache.status().await.unwrap().blocked[0].since,
            since,
            "since is when it began"
        );
        world.store.refuse(&[]);
        // By itself, within a minute.
        cache.wait_persisted(&at("/kept/closed"), MINUTE).await.unwrap();
        assert_eq!(cache.status().await.unwrap().blocked, []);
    });
}

#[test]
fn a_target_of_someone_else_is_a_conflict_and_is_resolved_as_told() {
    for (how, expected) in [(Resolve::KeepMine, "mine"), (Resolve::KeepTheirs, "theirs")] {
        let mut world = World::new(5);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            world.store.set_away(Some(StoreError::Unavailable("503".into())));
            put(&cache, "/kept/f", b"mine").await.unwrap();
            world.store.write_outside("f", "theirs");
            world.store.set_away(None);
            assert_eq!(
                kind(cache.wait_persisted(&at("/kept/f"), MINUTE).await),
                ErrorKind::Deadline
            );
            assert_eq!(world.store.contents()["f"], "theirs");
            assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"mine");
            let conflicts = cache.status().await.unwrap().conflicts;
            assert_eq!(conflicts.len(), 1);
            assert_eq!(conflicts[0].path, at("/kept/f"));
            assert!(conflicts[0].theirs.contains("6 bytes"), "{conflicts:?}");
            cache.persist_resolve(&at("/kept/f"), Resolve::Retry).await.unwrap();
            pause(world, 5_000).await;
            assert_eq!(
                cache.status().await.unwrap().conflicts.len(),
                1,
                "theirs is still there"
            );
            cache.persist_resolve(&at("/kept/f"), how).await.unwrap();
            cache.wait_persisted(&at("/kept/f"), MINUTE).await.unwrap();
            assert_eq!(world.store.contents()["f"], expected, "{how:?}");
            assert_eq!(get(&cache, "/kept/f").await.unwrap(), expected.as_bytes(), "{how:?}");
            let status = cache.status().await.unwrap();
            assert_eq!(
                (status.conflicts.len(), status.dirty_files, status.queued),
                (0, 0, 0),
                "{how:?}"
            );
            assert_eq!(
                kind(cache.persist_resolve(&at("/kept/f"), how).await),
                ErrorKind::NotFound
            );
        });
    }
}

#[test]
fn a_delete_of_what_was_changed_outside_is_a_conflict() {
    for (how, left) in [(Resolve::KeepMine, 0), (Resolve::KeepTheirs, 1)] {
        let mut world = World::new(6);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            put(&cache, "/kept/f", b"ours").await.unwrap();
            persisted(&cache).await;
            world.store.set_away(Some(StoreError::Unavailable("503".into())));
            cache.delete(&at("/kept/f"), false).await.unwrap();
            world.store.write_outside("f", "changed");
            world.store.set_away(None);
            pause(world, 60_000).await;
            assert_eq!(world.store.contents()["f"], "changed");
            assert_eq!(kind(cache.stat(&at("/kept/f")).await), ErrorKind::NotFound);
            assert_eq!(cache.status().await.unwrap().conflicts.len(), 1);
            cache.persist_resolve(&at("/kept/f"), how).await.unwrap();
            persisted(&cache).await;
            assert_eq!(world.store.contents().len(), left, "{how:?}");
            assert_eq!(cache.stat(&at("/kept/f")).await.is_ok(), left == 1, "{how:?}");
        });
    }
}

#[test]
fn an_overwrite_of_clean_data_replaces_exactly_what_was_seen() {
    let mut world = World::new(7);
    world.store.write_outside("f", "old");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"old");
        put(&cache, "/kept/f", b"new").await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.contents()["f"], "new");
    });
}

#[test]
fn names_that_go_and_come_while_uploads_are_under_way_leave_nothing_stray() {
    let mut world = World::new(8);
    world.settings.persist.single_put_bytes_max = ByteSize(10_000);
    world.settings.persist.part_bytes = ByteSize(10_000);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for round in 0..30_u64 {
            // Each change meets an upload in another state.
            put(&cache, "/kept/a", &pattern(1, 60_000)).await.unwrap();
            pause(world, round * 5).await;
            put(&cache, "/kept/a", &pattern(2, 50_000)).await.unwrap();
            pause(world, round * 3).await;
            rename(&cache, "/kept/a", "/kept/b").await.unwrap();
            pause(world, round * 2).await;
            put(&cache, "/kept/a", &pattern(3, 40_000)).await.unwrap();
            rename(&cache, "/kept/a", "/kept/b").await.unwrap();
            pause(world, round).await;
            put(&cache, "/kept/gone", &pattern(4, 70_000)).await.unwrap();
            pause(world, round * 4).await;
            cache.delete(&at("/kept/gone"), false).await.unwrap();
            persisted(&cache).await;
            assert_eq!(names(&world.store), ["b"], "round {round}");
            assert_eq!(world.store.contents()["b"], pattern(3, 40_000), "round {round}");
            assert_eq!(world.store.open_uploads(), 0, "round {round}");
            cache.delete(&at("/kept/b"), false).await.unwrap();
            persisted(&cache).await;
            assert_eq!(names(&world.store), Vec::<String>::new(), "round {round}");
        }
    });
}

#[test]
fn two_clean_files_change_places() {
    let mut world = World::new(9);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        clean(&cache, "/kept/a", b"first").await;
        clean(&cache, "/kept/b", b"second").await;
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        // With the store away even the lookups fail, so they come from what is remembered; the renames are retried.
        world.store.set_away(None);
        rename(&cache, "/kept/a", "/kept/t").await.unwrap();
        rename(&cache, "/kept/b", "/kept/a").await.unwrap();
        rename(&cache, "/kept/t", "/kept/b").await.unwrap();
        persisted(&cache).await;
        let contents = world.store.contents();
        assert_eq!(
            (&contents["a"][..], &contents["b"][..], contents.len()),
            (&b"second"[..], &b"first"[..], 2)
        );
        assert_eq!(get(&cache, "/kept/a").await.unwrap(), b"second");
    });
}

#[test]
fn a_renamed_directory_moves_in_the_store_with_clean_and_dirty_content() {
    let mut world = World::new(10);
    for index in 0..250 {
        world
            .store
            .write_outside(&format!("d/clean{index:03}"), format!("{index}"));
    }
    world.store.write_outside("d/sub/deep/x", "x");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/d/dirty", b"dirty").await.unwrap();
        put(&cache, "/kept/d/clean001", b"changed").await.unwrap();
        cache.delete(&at("/kept/d/clean002"), false).await.unwrap();
        rename(&cache, "/kept/d", "/kept/e").await.unwrap();
        put(&cache, "/kept/e/later", b"later").await.unwrap();
        put(&cache, "/kept/d/again", b"again").await.unwrap();
        let seen = tree(&cache, "/kept/e").await.unwrap().len();
        rename(&cache, "/kept/e", "/kept/f").await.unwrap();
        assert_eq!(tree(&cache, "/kept/f").await.unwrap().len(), seen);
        persisted(&cache).await;
        let contents = world.store.contents();
        let mut expected: BTreeSet<String> = (0..250).filter(|i| *i != 2).map(|i| format!("f/clean{i:03}")).collect();
        expected.extend(["f/dirty", "f/later", "f/sub/deep/x", "d/again"].map(str::to_owned));
        assert_eq!(contents.keys().cloned().collect::<BTreeSet<_>>(), expected);
        assert_eq!(
            (&contents["f/clean001"], &contents["f/clean005"]),
            (&Bytes::from("changed"), &Bytes::from("5"))
        );
        assert_eq!(tree(&cache, "/kept/f").await.unwrap().len(), seen);
        // What is written there from outside shows again.
        world.store.write_outside("f/outside", "o");
        world.store.write_outside("d/outside", "o");
        pause(world, 2000).await;
        assert_eq!(get(&cache, "/kept/f/outside").await.unwrap(), b"o");
        assert_eq!(get(&cache, "/kept/d/outside").await.unwrap(), b"o");
    });
}

#[test]
fn a_directory_deleted_with_all_it_holds_is_gone_from_the_store_and_stays_away() {
    let mut world = World::new(11);
    for index in 0..50 {
        world.store.write_outside(&format!("d/s{}/f{index}", index % 3), "x");
    }
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        pause(world, 1000).await;
        put(&cache, "/kept/d/new", &pattern(1, 50_000)).await.unwrap();
        pause(world, 20).await;
        cache.delete(&at("/kept/d"), true).await.unwrap();
        put(&cache, "/kept/d/after", b"after").await.unwrap();
        persisted(&cache).await;
        assert_eq!(names(&world.store), ["d/after"]);
        let listed: Vec<String> = tree(&cache, "/kept/d")
            .await
            .unwrap()
            .into_iter()
            .map(|s| s.path.to_string())
            .collect();
        assert_eq!(listed, ["/kept/d/after"]);
    });
}

/// Found by the simulation: the work that cleared a place waited for ever once its directory's name was a file's.
#[test]
fn a_file_that_takes_the_name_of_a_renamed_directory_holds_nothing_up() {
    let mut world = World::new(23);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/d/x/f", b"f").await.unwrap();
        persisted(&cache).await;
        rename(&cache, "/kept/d", "/kept/e").await.unwrap();
        put(&cache, "/kept/d", b"d").await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(names(&world.store), ["d", "e/x/f"]);
    });
}

/// Found by the simulation: a lookup that failed left the marker of a directory that had been renamed, so that it showed again.
#[test]
fn a_lookup_that_fails_while_a_renamed_directory_is_pruned_leaves_no_marker() {
    for nth in 0..200 {
        let mut world = World::new(24);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            cache.mkdir(&at("/kept/a/b"), true).await.unwrap();
            put(&cache, "/kept/a/f", b"f").await.unwrap();
            persisted(&cache).await;
            rename(&cache, "/kept/a", "/kept/c").await.unwrap();
            fail_read(world, nth);
            while cache.wait_persisted(&at("/kept"), MINUTE).await.is_err() {}
            world.meta.clear_hook();
            let left: Vec<String> = world
                .store
                .dirs()
                .into_iter()
                .filter(|dir| dir.starts_with('a'))
                .collect();
            assert!(left.is_empty(), "read {nth} failed: {left:?}");
            assert_eq!(
                kind(cache.stat(&at("/kept/a")).await),
                ErrorKind::NotFound,
                "read {nth}"
            );
        });
    }
}

/// Found by the simulation: on an object store a file hid the marker of a directory from those who clear up, and when the file was
/// deleted the marker showed.
#[test]
fn a_file_in_the_place_of_a_renamed_empty_directory_hides_no_marker() {
    for seed in 0..20 {
        let mut world = World::new(2700 + seed);
        world.settings.persist.single_put_bytes_max = ByteSize(20_000 * (seed % 2));
        world.settings.persist.part_bytes = ByteSize(15_000);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            cache.mkdir(&at("/kept/b/a"), true).await.unwrap();
            persisted(&cache).await;
            rename(&cache, "/kept/b", "/kept/d").await.unwrap();
            put(&cache, "/kept/b/a", &pattern(1, 40_000)).await.unwrap();
            pause(world, 10 * seed).await;
            cache.delete(&at("/kept/b/a"), false).await.unwrap();
            put(&cache, "/kept/b/a", b"a").await.unwrap();
            persisted(&cache).await;
            cache.delete(&at("/kept/b/a"), false).await.unwrap();
            persisted(&cache).await;
            assert_eq!(kind(cache.stat(&at("/kept/b/a")).await), ErrorKind::NotFound);
            assert!(!world.store.dirs().contains(&"b/a".to_owned()), "seed {seed}");
        });
    }
}

/// Found by the simulation: the second try looked at its target, and took the marker of the renamed directory for somebody else's.
#[test]
fn a_put_that_is_tried_again_is_no_conflict_with_a_directory_that_is_to_go() {
    for seed in 0..20 {
        let mut world = World::new(2800 + seed);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            cache.mkdir(&at("/kept/b/a"), true).await.unwrap();
            for nth in 0..10 {
                put(&cache, &format!("/kept/b/f{nth}"), b"f").await.unwrap();
            }
            persisted(&cache).await;
            world.store.refuse(&["d"]);
            rename(&cache, "/kept/b", "/kept/d").await.unwrap();
            pause(world, 500).await;
            world.store.fail_next(Call::Put, Fault::Unavailable);
            put(&cache, "/kept/b/a", b"a").await.unwrap();
            pause(world, 5000).await;
            world.store.refuse(&[]);
            persisted(&cache).await;
            assert_eq!(world.store.contents().get("b/a").unwrap(), "a", "seed {seed}");
            assert!(!world.store.dirs().contains(&"b/a".to_owned()), "seed {seed}");
        });
    }
}

/// Found by the simulation: the name alone was removed, and what lay at its key still belonged to the directory renamed before.
#[test]
fn a_name_that_is_removed_from_a_new_directory_takes_nothing_from_the_one_renamed_before() {
    for seed in 0..40 {
        let mut world = World::new(2900 + seed);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            clean(&cache, "/kept/a/d", b"old").await;
            (0..8).for_each(|_| world.store.fail_next(Call::List, Fault::Unavailable));
            rename(&cache, "/kept/a", "/kept/c").await.unwrap();
            put(&cache, "/kept/a/d", b"new").await.unwrap();
            cache.delete(&at("/kept/a/d"), false).await.unwrap();
            pause(world, seed).await;
            assert_eq!(get(&cache, "/kept/c/d").await.unwrap(), b"old", "seed {seed}");
            persisted(&cache).await;
            assert_eq!(get(&cache, "/kept/c/d").await.unwrap(), b"old", "seed {seed}");
            assert_eq!(names(&world.store), ["c/d"], "seed {seed}");
        });
    }
}

/// Found by the simulation: what stood in the way of the file's new place was the directory that it came from, and went with the only
/// copy of the file.
#[test]
fn a_clean_file_that_takes_the_place_of_its_own_directory_keeps_its_bytes() {
    let content = pattern(1, 40_000);
    for seed in 0..20 {
        let mut world = World::new(3000 + seed);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            clean(&cache, "/kept/a/c/f", &content).await;
            clean(&cache, "/kept/a/d/f", &content).await;
            rename(&cache, "/kept/a", "/kept/b").await.unwrap();
            cache.mkdir(&at("/kept/a"), false).await.unwrap();
            rename(&cache, "/kept/b/c/f", "/kept/a/c").await.unwrap();
            pause(world, 10 * seed).await;
            // The same without a directory that is moved.
            rename(&cache, "/kept/b/d/f", "/kept/b/e").await.unwrap();
            cache.delete(&at("/kept/b/d"), false).await.unwrap();
            rename(&cache, "/kept/b/e", "/kept/b/d").await.unwrap();
            cache.wait_persisted(&at("/kept"), HOUR).await.unwrap();
            let contents = world.store.contents();
            let found: Vec<_> = contents.iter().map(|(key, bytes)| (key.as_str(), &bytes[..])).collect();
            assert_eq!(found, [("a/c", &content[..]), ("b/d", &content[..])], "seed {seed}");
        });
    }
}

/// A marker behind a file that is there for whatever reason goes with its directory.
#[test]
fn a_marker_behind_a_file_goes_when_its_directory_is_deleted() {
    let mut world = World::new(28);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/b/a", b"a").await.unwrap();
        persisted(&cache).await;
        world.store.make_dir("b/a").await.unwrap();
        let shown: Vec<_> = tree(&cache, "/kept").await.unwrap();
        assert_eq!(shown.len(), 2, "one name shows once: {shown:?}");
        cache.delete(&at("/kept/b"), true).await.unwrap();
        persisted(&cache).await;
        assert_eq!((names(&world.store), world.store.dirs()), (Vec::new(), Vec::new()));
    });
}

/// A directory that was made where another one was removed shows what others put there, whatever failed meanwhile.
#[test]
fn a_directory_made_anew_shows_the_store_again_whichever_read_fails() {
    for nth in 0..100 {
        let mut world = World::new(29);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            put(&cache, "/kept/a/f", b"f").await.unwrap();
            persisted(&cache).await;
            cache.delete(&at("/kept/a"), true).await.unwrap();
            cache.mkdir(&at("/kept/a"), true).await.unwrap();
            fail_read(world, nth);
            while cache.wait_persisted(&at("/kept"), MINUTE).await.is_err() {}
            world.meta.clear_hook();
            world.store.write_outside("a/x", Bytes::from_static(b"x"));
            assert_eq!(get(&cache, "/kept/a/x").await.unwrap(), b"x", "read {nth} failed");
        });
    }
}

/// Found by the simulation: what an empty directory hid showed in the one that took its place.
#[test]
fn a_directory_that_replaces_an_empty_one_does_not_show_what_that_one_hid() {
    let mut world = World::new(25);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/d/c/f", &pattern(1, 50_000)).await.unwrap();
        put(&cache, "/kept/d/g", b"g").await.unwrap();
        put(&cache, "/kept/a/x", b"x").await.unwrap();
        persisted(&cache).await;
        world.store.refuse(&["d", "e"]);
        rename(&cache, "/kept/d/c", "/kept/e").await.unwrap();
        cache.delete(&at("/kept/d/g"), false).await.unwrap();
        rename(&cache, "/kept/a", "/kept/d").await.unwrap();
        for step in 0..400 {
            if step == 100 {
                world.store.refuse(&[]);
                cache.persist(&at("/kept")).await.unwrap();
            }
            let shown: Vec<String> = tree(&cache, "/kept")
                .await
                .unwrap()
                .iter()
                .map(|stat| stat.path.to_string())
                .collect();
            assert_eq!(shown, ["/kept/d", "/kept/d/x", "/kept/e", "/kept/e/f"], "step {step}");
            pause(world, 10).await;
        }
        persisted(&cache).await;
        assert_eq!(names(&world.store), ["d/x", "e/f"]);
    });
}

/// Found by the simulation: the work of an earlier removal took the whiteout of a later one away.
#[test]
fn a_name_that_is_removed_twice_stays_hidden_until_the_last_removal_is_done() {
    for seed in 0..20 {
        let mut world = World::new(2600 + seed);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            put(&cache, "/kept/c/f", &pattern(1, 50_000)).await.unwrap();
            persisted(&cache).await;
            rename(&cache, "/kept/c", "/kept/e").await.unwrap();
            put(&cache, "/kept/c", b"c").await.unwrap();
            while !names(&world.store).contains(&"c".to_owned()) {
                pause(world, 1).await;
            }
            cache.delete(&at("/kept/c"), false).await.unwrap();
            for step in 0..300 {
                assert_eq!(
                    kind(cache.stat(&at("/kept/c")).await),
                    ErrorKind::NotFound,
                    "seed {seed} step {step}"
                );
                pause(world, 1).await;
            }
            persisted(&cache).await;
            assert_eq!(names(&world.store), ["e/f"]);
            // The last one takes the whiteout with it.
            world.store.write_outside("c", "theirs");
            pause(world, 2000).await;
            assert_eq!(get(&cache, "/kept/c").await.unwrap(), b"theirs");
        });
    }
}

/// What was asked for a moment before is no answer once a directory went.
#[test]
fn a_deleted_directory_does_not_show_what_a_lookup_saw_in_it_before() {
    let mut world = World::new(22);
    world.store.write_outside("d/e/f", "f");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        pause(world, 2000).await;
        assert_eq!(get(&cache, "/kept/d/e/f").await.unwrap(), b"f");
        cache.delete(&at("/kept/d"), true).await.unwrap();
        persisted(&cache).await;
        for path in ["/kept/d/e/f", "/kept/d/e", "/kept/d"] {
            assert_eq!(kind(cache.stat(&at(path)).await), ErrorKind::NotFound, "{path}");
        }
    });
}

#[test]
fn a_file_that_someone_else_adds_to_a_deleted_directory_is_not_lost() {
    let mut world = World::new(12);
    world.store.write_outside("d/old", "old");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        pause(world, 1000).await;
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        world.store.set_away(None);
        world.store.refuse(&["d"]);
        cache.delete(&at("/kept/d"), true).await.unwrap();
        pause(world, 1000).await;
        world.store.write_outside("d/theirs", "theirs");
        world.store.refuse(&[]);
        pause(world, 60_000).await;
        assert_eq!(names(&world.store), ["d/theirs"]);
        assert_eq!(cache.status().await.unwrap().conflicts.len(), 1);
        cache
            .persist_resolve(&at("/kept/d"), Resolve::KeepTheirs)
            .await
            .unwrap();
        persisted(&cache).await;
        assert_eq!(get(&cache, "/kept/d/theirs").await.unwrap(), b"theirs");
    });
}

#[test]
fn staging_names_never_reach_the_store_and_a_barrier_comes_last() {
    let mut world = World::new(13);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.store.refuse(&["out/part-1"]);
        for part in 0..3 {
            put(&cache, &format!("/kept/out/_temporary/0/part-{part}"), b"p")
                .await
                .unwrap();
        }
        put(&cache, "/kept/out/x.inprogress", b"x").await.unwrap();
        pause(world, 10_000).await;
        assert_eq!(names(&world.store), Vec::<String>::new());
        assert_eq!(world.store.calls(Call::Put), 0);
        for part in 0..3 {
            rename(
                &cache,
                &format!("/kept/out/_temporary/0/part-{part}"),
                &format!("/kept/out/part-{part}"),
            )
            .await
            .unwrap();
        }
        rename(&cache, "/kept/out/x.inprogress", "/kept/out/x").await.unwrap();
        cache.delete(&at("/kept/out/_temporary"), true).await.unwrap();
        put(&cache, "/kept/out/_SUCCESS", b"").await.unwrap();
        put(&cache, "/kept/other/_SUCCESS", b"").await.unwrap();
        pause(world, 10_000).await;
        assert_eq!(
            names(&world.store),
            ["other/_SUCCESS", "out/part-0", "out/part-2", "out/x"]
        );
        world.store.refuse(&[]);
        persisted(&cache).await;
        assert_eq!(
            names(&world.store),
            [
                "other/_SUCCESS",
                "out/_SUCCESS",
                "out/part-0",
                "out/part-1",
                "out/part-2",
                "out/x"
            ]
        );
    });
}

#[test]
fn a_staging_directory_renamed_as_a_whole_is_persisted_under_its_final_name() {
    let mut world = World::new(14);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/.hive-staging_1/p/x", b"x").await.unwrap();
        pause(world, 5_000).await;
        assert_eq!(names(&world.store), Vec::<String>::new());
        rename(&cache, "/kept/.hive-staging_1/p", "/kept/final").await.unwrap();
        persisted(&cache).await;
        assert_eq!(names(&world.store), ["final/x"]);
    });
}

#[test]
fn an_empty_directory_is_a_marker_and_one_that_lost_its_last_file_stays() {
    let mut world = World::new(15);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.mkdir(&at("/kept/empty"), false).await.unwrap();
        put(&cache, "/kept/full/x", b"x").await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.dirs(), ["empty"]);
        cache.delete(&at("/kept/full/x"), false).await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.dirs(), ["empty", "full"]);
        cache.delete(&at("/kept/empty"), false).await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.dirs(), ["full"]);
        assert!(world.store.contents().is_empty());
        // A marker goes with the first thing that is in its directory.
        put(&cache, "/kept/full/y", b"y").await.unwrap();
        cache.mkdir(&at("/kept/a/b"), true).await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.dirs(), ["a/b"]);
        cache.mkdir(&at("/kept/a/b/c"), true).await.unwrap();
        cache.mkdir(&at("/kept/later"), true).await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.dirs(), ["a/b/c", "later"]);
    });
    // Also in another life.
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let unmarked = world.store.calls(Call::UnmarkDir);
        for name in ["full/z", "a/b/c/f", "later/f", "later/g"] {
            put(&cache, &format!("/kept/{name}"), b"f").await.unwrap();
            persisted(&cache).await;
        }
        assert_eq!(world.store.dirs(), Vec::<String>::new());
        assert_eq!(
            world.store.calls(Call::UnmarkDir) - unmarked,
            2,
            "asked only where there is one"
        );
    });
}

#[test]
fn files_that_are_renamed_out_of_staging_directories_leave_no_work_behind() {
    let mut world = World::new(17);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for k in 0..5 {
            let staged = format!("/kept/out/_temporary/0/{k}/part");
            put(&cache, &staged, b"x").await.unwrap();
            rename(&cache, &staged, &format!("/kept/out/{k}")).await.unwrap();
        }
        cache.mkdir(&at("/kept/out/_temporary/0/gone"), true).await.unwrap();
        cache.mkdir(&at("/kept/out/_temporary/0/empty"), true).await.unwrap();
        rename(&cache, "/kept/out/_temporary/0/empty", "/kept/out/empty")
            .await
            .unwrap();
        cache.delete(&at("/kept/out/_temporary"), true).await.unwrap();
        persisted(&cache).await;
        pause(world, 5_000).await;
        assert_eq!(cache.status().await.unwrap().queued, 0);
        assert_eq!(
            (names(&world.store).len(), world.store.dirs()),
            (5, vec!["out/empty".to_owned()])
        );
    });
}

#[test]
fn directories_are_empty_in_the_store_too_where_they_are_renamed_to() {
    let mut world = World::new(16);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.mkdir(&at("/kept/a/b/c"), true).await.unwrap();
        cache.mkdir(&at("/kept/a/d"), true).await.unwrap();
        put(&cache, "/kept/a/f", b"f").await.unwrap();
        persisted(&cache).await;
        rename(&cache, "/kept/a", "/kept/x").await.unwrap();
        rename(&cache, "/kept/x/d", "/kept/x/e").await.unwrap();
        persisted(&cache).await;
        assert_eq!(
            (names(&world.store), world.store.dirs()),
            (vec!["x/f".to_owned()], vec!["x/b/c".to_owned(), "x/e".to_owned()])
        );
        rename(&cache, "/kept/x/f", "/kept/x/e/f").await.unwrap();
        persisted(&cache).await;
        assert_eq!(
            (names(&world.store), world.store.dirs()),
            (vec!["x/e/f".to_owned()], vec!["x/b/c".to_owned()])
        );
        rename(&cache, "/kept/x/e/f", "/kept/f").await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.dirs(), ["x/b/c", "x/e"]);
    });
}

#[test]
fn a_file_that_comes_while_a_marker_is_made_leaves_none() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            let dirs: Vec<String> = (0..6).map(|k| format!("/kept/{k}/d")).collect();
            for dir in &dirs {
                cache.mkdir(&at(dir), true).await.unwrap();
                put(&cache, &format!("{dir}/gone"), b"gone").await.unwrap();
            }
            pause(world, seed * 7 % 60).await;
            for dir in &dirs {
                cache.delete(&at(&format!("{dir}/gone")), false).await.unwrap();
                put(&cache, &format!("{dir}/f"), b"f").await.unwrap();
            }
            persisted(&cache).await;
            assert_eq!(world.store.dirs(), Vec::<String>::new(), "seed {seed}");
        });
    }
}

#[test]
fn an_unclear_answer_is_decided_by_the_token_and_not_sent_twice() {
    let mut world = World::new(16);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.store.fail_next(Call::Put, Fault::LostAnswer);
        put(&cache, "/kept/f", b"once").await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.calls(Call::Put), 1);
        assert_eq!(cache.status().await.unwrap().conflicts, []);
        world.store.fail_next(Call::Delete, Fault::LostAnswer);
        cache.delete(&at("/kept/f"), false).await.unwrap();
        persisted(&cache).await;
        assert!(world.store.contents().is_empty());
    });
}

#[test]
fn a_mount_that_comes_later_gets_what_is_there_already() {
    let mut world = World::new(17);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/later/d/f", b"f").await.unwrap();
        put(&cache, "/elsewhere", b"e").await.unwrap();
        cache.under_add(&at("/later"), "memory:", false).await.unwrap();
        assert_eq!(
            kind(cache.under_add(&at("/later"), "memory:", false).await),
            ErrorKind::Exists
        );
        cache.wait_persisted(&at("/later"), MINUTE).await.unwrap();
        assert_eq!(names(&world.store), ["d/f"]);
        assert_eq!(cache.under_list().len(), 2);
        put(&cache, "/later/dirty", b"d").await.unwrap();
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        put(&cache, "/later/dirty2", b"d").await.unwrap();
        assert_eq!(
            kind(cache.under_remove(&at("/later"), false).await),
            ErrorKind::Precondition
        );
        world.store.set_away(None);
        cache.under_remove(&at("/later"), true).await.unwrap();
        assert_eq!(cache.under_list().len(), 1);
        assert_eq!(names(&world.store), ["d/f", "dirty", "dirty2"]);
    });
}

// ---- reading

#[test]
fn clean_data_is_read_through_once_and_then_comes_from_the_cache() {
    let mut world = World::new(20);
    let content = pattern(5, 5 << 20);
    world.store.write_outside("big", content.clone());
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let reader = cache.read_file(&at("/kept/big")).await.unwrap();
        let reads = (0..16).map(|_| reader.read(1_000_000..3_000_000));
        for read in futures::future::join_all(reads).await {
            assert_eq!(read.unwrap().concat(), content[1_000_000..3_000_000]);
        }
        assert_eq!(world.store.calls(Call::Read), 2, "two blocks, each once");
        assert_eq!(cache.stat(&at("/kept/big")).await.unwrap().cached_bytes, 4 << 20);
        cache.load(&at("/kept"), true).await.unwrap();
        assert_eq!(world.store.calls(Call::Read), 3);
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        assert_eq!(reader.read(0..content.len() as u64).await.unwrap().concat(), content);
        world.store.set_away(None);
        let freed = cache.free(&at("/kept")).await.unwrap();
        assert_eq!((freed.freed_bytes, freed.dirty_bytes), (5 << 20, 0));
        assert_eq!(cache.status().await.unwrap().cached_bytes, 0);
    });
}

#[test]
fn a_reader_in_sequence_is_read_ahead_of() {
    let mut world = World::new(21);
    world.store.write_outside("big", pattern(5, 20 << 20));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let reader = cache.read_file(&at("/kept/big")).await.unwrap();
        for at in 0..6_u64 {
            reader.read(at << 20..(at + 1) << 20).await.unwrap();
        }
        pause(world, 1000).await;
        assert!(world.store.calls(Call::Read) > 4, "{}", world.store.calls(Call::Read));
    });
}

#[test]
fn an_object_changed_under_a_reader_is_an_error_and_never_mixed_bytes() {
    let mut world = World::new(22);
    world.store.write_outside("f", vec![1_u8; 5 << 20]);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let reader = cache.read_file(&at("/kept/f")).await.unwrap();
        reader.read(0..10).await.unwrap();
        world.store.write_outside("f", vec![2_u8; 5 << 20]);
        assert_eq!(kind(reader.read(4 << 20..5 << 20).await), ErrorKind::Precondition);
        pause(world, 2000).await;
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), vec![2_u8; 5 << 20]);
    });
}

#[test]
fn short_and_wrong_answers_are_asked_again_and_never_kept() {
    let mut world = World::new(23);
    let content = pattern(6, 3 << 20);
    world.store.write_outside("f", content.clone());
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let reader = cache.read_file(&at("/kept/f")).await.unwrap();
        for fault in [Fault::ShortRead, Fault::WrongBody, Fault::Unavailable] {
            world.store.fail_next(Call::Read, fault);
        }
        assert_eq!(reader.read(0..3 << 20).await.unwrap().concat(), content);
        assert_eq!(world.store.faults(), 3);
        for _ in 0..20 {
            world.store.fail_next(Call::Read, Fault::ShortRead);
        }
        cache.free(&at("/kept")).await.unwrap();
        let error = reader.read(0..100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
        assert_eq!(cache.status().await.unwrap().cached_bytes, 0, "nothing of it is kept");
    });
}

/// Found by the simulation: three answers that did not come and a wrong one were data loss.
#[test]
fn a_store_in_trouble_is_not_taken_for_lost_data() {
    let mut world = World::new(27);
    world.store.write_outside("f", "f");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        pause(world, 1000).await;
        let reader = cache.read_file(&at("/kept/f")).await.unwrap();
        for fault in [
            Fault::Unavailable,
            Fault::Unavailable,
            Fault::Unavailable,
            Fault::WrongBody,
        ] {
            world.store.fail_next(Call::Read, fault);
        }
        assert_eq!(kind(reader.read(0..1).await), ErrorKind::Unavailable);
        (0..4).for_each(|_| world.store.fail_next(Call::Read, Fault::WrongBody));
        assert_eq!(kind(reader.read(0..1).await), ErrorKind::DataLoss);
        assert_eq!(reader.read(0..1).await.unwrap().concat(), b"f");
    });
}

#[test]
fn a_read_that_needs_a_store_that_is_away_fails_within_the_timeout() {
    let mut world = World::new(24);
    world.store.write_outside("f", "f");
    world.live(async |world| {
        use forebay_runtime::clock::Clock;
        let cache = world.open().await.unwrap();
        world.store.set_rates(FaultRates {
            hang: 1000,
            ..FaultRates::default()
        });
        let began = world.clock.monotonic();
        assert_eq!(kind(cache.read_file(&at("/kept/f")).await), ErrorKind::Unavailable);
        assert!(world.clock.monotonic() - began <= Duration::from_secs(11));
        let began = world.clock.monotonic();
        assert_eq!(kind(cache.read_file(&at("/kept/f")).await), ErrorKind::Unavailable);
        assert_eq!(world.clock.monotonic(), began, "the next one is told at once");
        assert_ne!(cache.under_list()[0].state, "ready");
        world.store.set_rates(FaultRates::default());
        pause(world, 5000).await;
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"f");
        assert_eq!(cache.under_list()[0].state, "ready");
    });
}

#[test]
fn copies_are_evicted_beyond_the_limit_and_dirty_data_never() {
    let mut world = World::new(25);
    world.settings.cache_max = Some(ByteSize(1_000_000));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for index in 0..30_u8 {
            put(&cache, &format!("/kept/f{index}"), &pattern(index, 100_000))
                .await
                .unwrap();
            put(&cache, &format!("/local/f{index}"), &pattern(index, 100_000))
                .await
                .unwrap();
        }
        persisted(&cache).await;
        pause(world, 5000).await;
        let status = cache.status().await.unwrap();
        assert!(status.cached_bytes <= 1_000_000, "{}", status.cached_bytes);
        assert_eq!((status.dirty_files, status.dirty_bytes), (30, 3_000_000));
        for index in 0..30_u8 {
            assert_eq!(
                get(&cache, &format!("/kept/f{index}")).await.unwrap(),
                pattern(index, 100_000)
            );
            assert_eq!(
                get(&cache, &format!("/local/f{index}")).await.unwrap(),
                pattern(index, 100_000)
            );
        }
        assert_eq!(
            cache.stat(&at("/kept/f0")).await.unwrap().state,
            State::Clean,
            "its row is gone"
        );
    });
}

// ---- all at once

/// What must be true in the end.
#[derive(Clone, Debug, Default)]
struct Model {
    files: BTreeMap<String, Vec<u8>>,
}

impl Model {
    fn below(&self, dir: &str) -> Vec<String> {
        let prefix = format!("{dir}/");
        self.files
            .keys()
            .filter(|path| path.starts_with(&prefix))
            .cloned()
            .collect()
    }

    fn pick(&self, chance: &SeededChance) -> Option<String> {
        let at = chance.below(self.files.len().max(1) as u64) as usize;
        self.files.keys().nth(at).cloned()
    }

    fn move_dir(&mut self, from: &str, to: &str) {
        for path in self.below(from) {
            let content = self.files.remove(&path).expect("it was listed");
            self.files.insert(format!("{to}{}", &path[from.len()..]), content);
        }
    }
}

const DIRS: [&str; 4] = ["/kept/a", "/kept/a/b", "/kept/c", "/kept/d"];

/// One random change, in the cache and in the model alike. An error means that nothing happened.
async fn change(cache: &Cache, model: &mut Model, chance: &SeededChance, frees: bool) -> String {
    let dir = DIRS[chance.below(DIRS.len() as u64) as usize];
    let other = DIRS[chance.below(DIRS.len() as u64) as usize];
    let file = format!("{dir}/f{}", chance.below(4));
    match chance.below(12) {
        0..=4 => {
            let content = pattern(chance.below(256) as u8, chance.below(60_000) as usize);
            let done = put(cache, &file, &content).await;
            if done.is_ok() {
                model.files.insert(file.clone(), content);
            }
            format!("put {file}: {:?}", done.map(|_| ()))
        }
        5 | 6 => {
            let Some(from) = model.pick(chance) else {
                return "nothing to rename".into();
            };
            let to = format!("{other}/f{}", chance.below(4));
            let done = rename(cache, &from, &to).await;
            if done.is_ok() && from != to {
                let content = model.files.remove(&from).expect("it was picked");
                model.files.insert(to.clone(), content);
            }
            format!("rename {from} {to}: {done:?}")
        }
        7 => {
            let Some(path) = model.pick(chance) else {
                return "nothing to delete".into();
            };
            let done = cache.delete(&at(&path), false).await;
            if done.is_ok() {
                model.files.remove(&path);
            }
            format!("delete {path}: {done:?}")
        }
        8 => {
            let done = cache
                .rename(
                    &at(dir),
                    &at(other),
                    Rename {
                        replace: false,
                        parents: false,
                        ..Rename::default()
                    },
                )
                .await;
            if done.is_ok() && dir != other {
                model.move_dir(dir, other);
            }
            format!("rename {dir} {other}: {done:?}")
        }
        9 => {
            let done = cache.delete(&at(dir), true).await;
            if done.is_ok() {
                model.below(dir).iter().for_each(|path| drop(model.files.remove(path)));
            }
            format!("delete {dir} with all: {done:?}")
        }
        10 if !frees => "nothing is freed".into(),
        10 => format!("free: {:?}", cache.free(&at("/kept")).await),
        _ => {
            let done = cache.mkdir(&at(dir), true).await;
            format!("mkdir {dir}: {done:?}")
        }
    }
}

/// Sets attributes of some file, with chance of its own: the histories without this stay as they are.
async fn set_some_attributes(cache: &Cache, model: &Model, chance: &SeededChance) -> Option<String> {
    let path = model.pick(chance).filter(|_| chance.below(2) == 0)?;
    let set = SetAttributes {
        mode: Some([0o600, 0o640, 0o644][chance.below(3) as usize]),
        mtime: (chance.below(2) == 0).then(|| Timestamp(chance.below(1 << 50) as i64)),
        ..SetAttributes::default()
    };
    let done = cache.set_attributes(&at(&path), set).await;
    Some(format!("attributes of {path}: {done:?}"))
}

/// What the store has of each file is what the cache says.
async fn attributes_arrived(world: &World, cache: &Cache, model: &Model, told: impl Fn() -> String) {
    for path in model.files.keys() {
        let stat = cache.stat(&at(path)).await.unwrap();
        let found = world.store.head(&path["/kept/".len()..]).await.unwrap().unwrap();
        let kept = |name: &str| found.attributes.iter().find(|(known, _)| known == name);
        let kept = ["mode", "mtime"].map(|name| kept(name).map(|(_, value)| value.clone()));
        let wanted = [format!("{:o}", stat.mode), stat.mtime.0.to_string()];
        assert_eq!(kept, wanted.map(Some), "{path}\n{}", told());
    }
}

/// Whether attributes are set too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attributes {
    Unset,
    /// And nothing is freed, so that all of them arrive.
    Compared,
    /// And copies are freed, after which attributes may stay here.
    WithFrees,
}

fn simulate(seed: u64, lives: u64, crash: bool) {
    simulate_with(seed, lives, crash, Attributes::Unset);
}

fn simulate_with(seed: u64, lives: u64, crash: bool, how: Attributes) {
    println!("seed {seed}");
    let mut world = World::new(seed);
    world.settings.persist.single_put_bytes_max = ByteSize(20_000);
    world.settings.persist.part_bytes = ByteSize(15_000);
    let (chance, other) = (SeededChance::new(seed ^ 0xf00d), SeededChance::new(seed ^ 0xa77));
    let mut model = Model::default();
    let mut log = Vec::new();
    for life in 0..lives {
        world.store.set_rates(FaultRates {
            unavailable: 60,
            lost_answer: 60,
            hang: 10,
            short_read: 20,
            wrong_body: 20,
        });
        world.live(async |world| {
            let opened = world.open().await;
            let cache = opened.unwrap_or_else(|error| panic!("seed {seed}: open: {error}"));
            for _ in 0..25 {
                log.push(change(&cache, &mut model, &chance, how != Attributes::Compared).await);
                if how != Attributes::Unset {
                    log.extend(set_some_attributes(&cache, &model, &other).await);
                }
                pause(world, chance.below(400)).await;
            }
            if !crash {
                cache.shutdown().await;
            }
        });
        if crash && life % 2 == 0 {
            world.cut_power();
        }
        log.push("-- next life".into());
    }
    world.store.set_rates(FaultRates::default());
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let waited = cache.wait_persisted(&at("/kept"), 2 * HOUR).await;
        let told = || format!("seed {seed}\n{}", log.join("\n"));
        assert!(waited.is_ok(), "{waited:?} {:?}\n{}", cache.status().await, told());
        for (path, content) in &model.files {
            let found = get(&cache, path)
                .await
                .unwrap_or_else(|error| panic!("{path}: {error}\n{}", told()));
            assert_eq!(&found, content, "{path}\n{}", told());
        }
        let stored = world.store.contents();
        let expected: BTreeMap<String, Bytes> = model
            .files
            .iter()
            .map(|(path, content)| (path["/kept/".len()..].to_owned(), Bytes::from(content.clone())))
            .collect();
        let names: Vec<_> = stored.keys().collect();
        assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{}", told());
        assert!(stored == expected, "contents differ\n{}", told());
        if how == Attributes::Compared {
            attributes_arrived(world, &cache, &model, told).await;
        }
        assert_eq!(world.store.open_uploads(), 0, "{}", told());
        pause(world, 1000).await;
        assert_eq!(part_notes(world).await, [], "{}", told());
        let status = cache.status().await.unwrap();
        assert_eq!(
            (status.dirty_files, status.dirty_bytes, status.queued),
            (0, 0, 0),
            "{}",
            told()
        );
        assert!(
            status.blocked.is_empty() && status.conflicts.is_empty(),
            "{status:?}\n{}",
            told()
        );
        let visible: Vec<String> = tree(&cache, "/kept")
            .await
            .unwrap()
            .into_iter()
            .filter(|stat| stat.state != State::Sealed && stat.kind == forebay_writeback::names::StatKind::File)
            .map(|stat| stat.path.to_string())
            .collect();
        assert_eq!(visible, model.files.keys().cloned().collect::<Vec<_>>(), "{}", told());
    });
    assert!(world.store.faults() > 0, "no fault hit");
}

/// `FOREBAY_SIM_SEEDS=first..last` runs others.
fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let given = std::env::var("FOREBAY_SIM_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    range.map_or(default, |(first, last)| first.parse().unwrap()..last.parse().unwrap())
}

#[test]
fn random_changes_under_faults_end_as_acknowledged() {
    seeds(1..12).for_each(|seed| simulate(seed, 2, false));
}

#[test]
fn random_changes_of_attributes_too_end_as_acknowledged() {
    for how in [Attributes::Compared, Attributes::WithFrees] {
        seeds(1..12).for_each(|seed| simulate_with(seed + 2000, 2, false, how));
        seeds(1..12).for_each(|seed| simulate_with(seed + 3000, 4, true, how));
    }
}

/// Found by random histories: an answer about attributes was lost, the file was renamed and its copy evicted, and then its bytes were
/// asked for under a validator that the store had no more.
#[test]
fn a_file_whose_attributes_are_on_their_way_keeps_its_bytes_here() {
    simulate_with(2300, 2, false, Attributes::WithFrees);
}

/// Found by random histories: an object that the removal of a directory let stand at a key was taken for somebody else's by the removal
/// of the file of that name.
#[test]
fn what_stands_at_a_key_for_one_piece_of_work_is_nobody_elses_for_another() {
    simulate_with(3387, 4, true, Attributes::WithFrees);
}

#[test]
fn random_changes_under_faults_and_crashes_end_as_acknowledged() {
    seeds(1..12).for_each(|seed| simulate(seed + 1000, 4, true));
}

/// Found by random histories: a key that a run had claimed was not known as its own, so that a later clear removed the newer file.
#[test]
fn what_a_run_claimed_is_not_cleared_away_by_a_later_removal() {
    simulate(5986, 2, false);
    simulate(6117, 4, true);
}

/// Found by random histories: a key was cleared while an upload whose row had been taken over was still being started there.
#[test]
fn an_upload_whose_row_was_taken_over_leaves_nothing_open() {
    simulate(7839, 2, false);
    simulate(7839, 4, true);
}
