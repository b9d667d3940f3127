//! What policies keep back from the under-store, what lets it go, and what is written through the cache or around it.

use crate::support::{World, at, get, kind, pattern, put, write};
use bytes::Bytes;
use forebay_runtime::{clock::Clock, units::ByteSize};
use forebay_understore::{StoreError, memory::Call};
use forebay_writeback::{
    AckLevel, Cache, ErrorKind,
    file::WriteFile,
    names::{Rename, State},
    policy::Change,
};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

async fn set(cache: &Cache, path: &str, key: &str, value: &str) {
    let value = serde_json::Value::String(value.to_owned());
    let change = Change::parse(key, Some(&value)).unwrap();
    cache.policy_set(&at(path), vec![change]).await.unwrap();
}

/// Keys of the store after so long.
async fn names_after(world: &World, time: Duration) -> Vec<String> {
    world.clock.sleep(time).await;
    world.store.contents().into_keys().collect()
}

async fn withheld(cache: &Cache) -> u64 {
    cache.status().await.unwrap().withheld
}

async fn rename(cache: &Cache, from: &str, to: &str) {
    cache.rename(&at(from), &at(to), Rename::default()).await.unwrap();
}

#[test]
fn what_never_goes_goes_when_a_person_says_so() {
    let mut world = World::new(1);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/scratch", "persist", "never").await;
        put(&cache, "/kept/scratch/a", b"a").await.unwrap();
        put(&cache, "/kept/b", b"b").await.unwrap();
        assert_eq!(names_after(world, 60 * MINUTE).await, ["b"]);
        assert_eq!(withheld(&cache).await, 1);
        // A wait for it would never end.
        let waited = cache.wait_persisted(&at("/kept"), 60 * MINUTE).await.unwrap_err();
        assert_eq!(waited.kind(), ErrorKind::Precondition);
        assert!(waited.to_string().contains("/kept/scratch/a"), "{waited}");
        cache.wait_persisted(&at("/kept/b"), MINUTE).await.unwrap();
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(names_after(world, 60 * MINUTE).await, ["b"]);
        assert_eq!(get(&cache, "/kept/scratch/a").await.unwrap(), b"a");
        cache.persist(&at("/kept/scratch/a")).await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(names_after(world, Duration::ZERO).await, ["b", "scratch/a"]);
        assert_eq!(withheld(&cache).await, 0);
    });
}

#[test]
fn what_a_person_said_is_remembered_over_a_restart_and_holds_for_nothing_newer() {
    let mut world = World::new(11);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/scratch", "persist", "never").await;
        put(&cache, "/kept/scratch/asked/a", b"a").await.unwrap();
        put(&cache, "/kept/scratch/other", b"o").await.unwrap();
        world.clock.sleep(MINUTE).await;
        // The life ends with the answer: nothing has gone yet.
        cache.persist(&at("/kept/scratch/asked")).await.unwrap();
    });
    world.cut_power();
    assert!(world.store.contents().is_empty());
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(names_after(world, 60 * MINUTE).await, ["scratch/asked/a"]);
        put(&cache, "/kept/scratch/asked/newer", b"n").await.unwrap();
        put(&cache, "/kept/scratch/asked/a", b"again").await.unwrap();
        assert_eq!(names_after(world, 60 * MINUTE).await, ["scratch/asked/a"]);
        assert_eq!(world.store.contents()["scratch/asked/a"], b"a"[..]);
        assert_eq!(withheld(&cache).await, 3);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        names_after(world, 60 * MINUTE).await;
        assert_eq!(world.store.contents()["scratch/asked/a"], b"a"[..]);
        assert_eq!(withheld(&cache).await, 3);
        cache.persist(&at("/kept")).await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(world.store.contents()["scratch/asked/a"], b"again"[..]);
        assert_eq!(withheld(&cache).await, 0);
    });
}

#[test]
fn an_age_is_waited_for_and_what_is_gone_by_then_never_travels() {
    World::new(2).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", "persist", "age=10m").await;
        put(&cache, "/kept/short", b"lived").await.unwrap();
        put(&cache, "/kept/long", b"first").await.unwrap();
        assert!(names_after(world, 9 * MINUTE).await.is_empty());
        cache.delete(&at("/kept/short"), false).await.unwrap();
        // Its age begins anew.
        put(&cache, "/kept/long", b"second").await.unwrap();
        assert!(names_after(world, 9 * MINUTE).await.is_empty());
        assert_eq!(names_after(world, 2 * MINUTE).await, ["long"]);
        assert_eq!(world.store.contents()["long"], b"second"[..]);
        assert_eq!(world.store.calls(Call::Put), 1, "only what lived went");
    });
}

#[test]
fn a_size_is_gathered_over_a_power_cut_and_goes_together() {
    let mut world = World::new(12);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/small", "persist", "size=300KiB").await;
        set(&cache, "/kept/soon", "persist", "size=1GiB,age=10m").await;
        put(&cache, "/kept/small/a", &pattern(1, 100 << 10)).await.unwrap();
        put(&cache, "/kept/small/gone", &pattern(2, 100 << 10)).await.unwrap();
        put(&cache, "/kept/soon/s", b"s").await.unwrap();
        assert!(names_after(world, 9 * MINUTE).await.is_empty());
        cache.delete(&at("/kept/small/gone"), false).await.unwrap();
        put(&cache, "/kept/small/deep/b", &pattern(3, 100 << 10)).await.unwrap();
        assert_eq!(names_after(world, 2 * MINUTE).await, ["soon/s"]);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(names_after(world, 60 * MINUTE).await, ["soon/s"]);
        assert_eq!(withheld(&cache).await, 2);
        put(&cache, "/kept/small/c", &pattern(4, 100 << 10)).await.unwrap();
        assert_eq!(
            names_after(world, MINUTE).await,
            ["small/a", "small/c", "small/deep/b", "soon/s"]
        );
        // What comes after them gathers anew; and what a person asks for goes.
        put(&cache, "/kept/small/d", &pattern(5, 100 << 10)).await.unwrap();
        assert!(!names_after(world, 60 * MINUTE).await.contains(&"small/d".to_owned()));
        cache.persist(&at("/kept/small")).await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(withheld(&cache).await, 0);
    });
}

#[test]
fn nothing_is_kept_for_its_age_when_dirty_bytes_come_near_their_limit() {
    let mut world = World::new(3);
    world.settings.dirty_max = Some(ByteSize(1 << 20));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", "persist", "age=1d").await;
        for number in 0..20 {
            put(&cache, &format!("/kept/{number:02}"), &pattern(number, 100_000))
                .await
                .unwrap();
        }
        let gone = names_after(world, MINUTE).await;
        assert!(gone.contains(&"00".to_owned()), "the oldest went first: {gone:?}");
        assert!(withheld(&cache).await > 0, "some of it is kept all the same");
    });
}

#[test]
fn a_commit_lets_go_what_was_written_before_and_comes_last() {
    World::new(4).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/jobs", "persist", "commit").await;
        for part in 0..3 {
            put(&cache, &format!("/kept/jobs/out/day={part}/part"), b"rows")
                .await
                .unwrap();
        }
        put(&cache, "/kept/jobs/other/part", b"rows").await.unwrap();
        names_after(world, 60 * MINUTE).await;
        assert_eq!(withheld(&cache).await, 4);
        put(&cache, "/kept/jobs/out/_SUCCESS", b"").await.unwrap();
        while !world.store.contents().contains_key("jobs/out/_SUCCESS") {
            world.clock.sleep(Duration::from_millis(1)).await;
        }
        let names = names_after(world, Duration::ZERO).await;
        let parts = names.iter().filter(|name| name.starts_with("jobs/out/day="));
        assert_eq!(parts.count(), 3, "it came after all of them: {names:?}");
        // Who comes late goes at once; another job's waits on.
        put(&cache, "/kept/jobs/out/day=1/late", b"rows").await.unwrap();
        cache.wait_persisted(&at("/kept/jobs/out"), MINUTE).await.unwrap();
        assert_eq!(withheld(&cache).await, 1);
        assert!(world.store.contents().contains_key("jobs/out/day=1/late"));
    });
}

#[test]
fn a_file_that_is_renamed_under_a_policy_does_not_stay_at_its_old_place() {
    World::new(5).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/scratch", "persist", "never").await;
        cache.mkdir(&at("/kept/scratch"), false).await.unwrap();
        put(&cache, "/kept/a", b"a").await.unwrap();
        put(&cache, "/kept/dir/b", b"b").await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        rename(&cache, "/kept/a", "/kept/scratch/a").await;
        rename(&cache, "/kept/dir", "/kept/scratch/dir").await;
        let names = names_after(world, 10 * MINUTE).await;
        assert!(
            !names.iter().any(|name| name == "a" || name.starts_with("dir/")),
            "{names:?}"
        );
        assert_eq!(get(&cache, "/kept/scratch/a").await.unwrap(), b"a");
        assert_eq!(get(&cache, "/kept/scratch/dir/b").await.unwrap(), b"b");
    });
}

#[test]
fn what_was_never_in_the_store_is_kept_back_under_a_new_name_too_and_its_old_name_is_free() {
    World::new(10).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/jobs", "persist", "commit").await;
        set(&cache, "/kept/beside", "persist", "never").await;
        let task = "/kept/jobs/out/_temporary/0/task/part";
        put(&cache, task, b"rows").await.unwrap();
        put(&cache, "/kept/beside", b"rows").await.unwrap();
        rename(&cache, task, "/kept/jobs/out/part").await;
        rename(&cache, "/kept/beside", "/kept/jobs/out/moved").await;
        names_after(world, 60 * MINUTE).await;
        assert_eq!(withheld(&cache).await, 2);
        set(&cache, "/kept/beside", "persist", "asap").await;
        put(&cache, "/kept/beside", b"another").await.unwrap();
        let names = names_after(world, MINUTE).await;
        assert!(
            names.iter().any(|name| name == "beside"),
            "it waits for nobody: {names:?}"
        );
        assert!(!names.iter().any(|name| name.starts_with("jobs/")), "{names:?}");
        put(&cache, "/kept/jobs/out/_SUCCESS", b"").await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        let names = names_after(world, Duration::ZERO).await;
        let jobs = names
            .iter()
            .filter(|name| name.starts_with("jobs/"))
            .collect::<Vec<_>>();
        assert_eq!(jobs, ["jobs/out/_SUCCESS", "jobs/out/moved", "jobs/out/part"]);
    });
}

#[test]
fn another_policy_is_looked_at_at_once() {
    World::new(6).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", "persist", "age=30d").await;
        put(&cache, "/kept/a", b"a").await.unwrap();
        assert!(names_after(world, 60 * MINUTE).await.is_empty());
        set(&cache, "/kept", "persist", "asap").await;
        assert_eq!(names_after(world, Duration::from_secs(2)).await, ["a"]);
    });
}

#[test]
fn what_a_policy_keeps_back_goes_when_a_write_asks_for_it() {
    World::new(7).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", "persist", "never").await;
        let persisted = WriteFile {
            ack: Some(AckLevel::Persisted),
            ..WriteFile::default()
        };
        put(&cache, "/kept/a", b"a").await.unwrap();
        write(&cache, "/kept/b", b"b", persisted).await.unwrap();
        assert_eq!(names_after(world, Duration::ZERO).await, ["b"]);
    });
}

#[test]
fn what_is_written_through_is_in_the_store_before_it_is_acknowledged() {
    World::new(8).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/through", "write", "through").await;
        set(&cache, "/kept/around", "write", "around").await;
        let quick = || WriteFile {
            ack: Some(AckLevel::Memory),
            ..WriteFile::default()
        };
        for place in ["through", "around"] {
            let path = format!("/kept/{place}/a");
            let done = write(&cache, &path, &pattern(1, 300_000), quick()).await.unwrap();
            assert_eq!(done.level, AckLevel::Persisted, "{place}");
            assert!(world.store.contents().contains_key(&format!("{place}/a")));
            assert_eq!(get(&cache, &path).await.unwrap(), pattern(1, 300_000));
        }
        let stat = cache.stat(&at("/kept/through/a")).await.unwrap();
        assert!(
            stat.cached_bytes == 300_000 && stat.state == State::Persisted,
            "{stat:?}"
        );
        // Nowhere to go: the level is not lowered in silence.
        set(&cache, "/nowhere", "write", "through").await;
        assert_eq!(kind(put(&cache, "/nowhere/a", b"a").await), ErrorKind::Precondition);
    });
}

#[test]
fn what_is_written_around_the_cache_leaves_no_copy() {
    World::new(9).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/around", "write", "around").await;
        let mut writer = cache
            .write_file(&at("/kept/around/a"), WriteFile::default())
            .await
            .unwrap();
        writer.append(vec![Bytes::from(pattern(2, 300_000))]).await.unwrap();
        writer.commit().await.unwrap();
        world.clock.sleep(Duration::from_secs(1)).await;
        let stat = cache.stat(&at("/kept/around/a")).await.unwrap();
        assert_eq!((stat.cached_bytes, stat.size), (0, 300_000));
        assert_eq!(cache.status().await.unwrap().cached_bytes, 0);
    });
}

#[test]
fn a_store_that_is_away_keeps_a_late_part_of_a_commit_only_until_it_is_back() {
    World::new(10).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/jobs", "persist", "commit").await;
        put(&cache, "/kept/jobs/_SUCCESS", b"").await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        cache.free(&at("/kept/jobs/_SUCCESS")).await.unwrap();
        world.store.set_away(Some(StoreError::Unavailable("off".into())));
        put(&cache, "/kept/jobs/late", b"rows").await.unwrap();
        world.clock.sleep(10 * MINUTE).await;
        world.store.set_away(None);
        assert!(names_after(world, MINUTE).await.contains(&"jobs/late".to_owned()));
    });
}
