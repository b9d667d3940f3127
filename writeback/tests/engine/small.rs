//! Small files that the store has, read through: how often it is asked for them, and what is fetched before anybody opens it.

use crate::support::{World, at, get, pattern};
use forebay_understore::memory::Call;
use forebay_writeback::Cache;
use std::time::Duration;

const FILES: usize = 600;

fn key(number: usize) -> String {
    format!("train/item-{number:05}")
}

fn path(number: usize) -> String {
    format!("/kept/{}", key(number))
}

/// What file `number` holds: nothing that another one holds.
fn content(number: usize) -> Vec<u8> {
    pattern(0, 3000 + number)
}

fn world(seed: u64) -> World {
    let world = World::new(seed);
    (0..FILES).for_each(|number| world.store.write_outside(&key(number), content(number)));
    world
}

/// As programs do: look, then open and read.
async fn read(cache: &Cache, number: usize) {
    let stat = cache.stat(&at(&path(number))).await.unwrap();
    assert_eq!(stat.size, content(number).len() as u64);
    assert_eq!(get(cache, &path(number)).await.unwrap(), content(number), "{number}");
}

fn requests(world: &World) -> u64 {
    world.store.calls(Call::Head) + world.store.calls(Call::Read)
}

/// Numbers that lie nowhere close together, each once.
fn scattered() -> impl Iterator<Item = usize> {
    (0..FILES / 50).map(|step| step * 7 % (FILES / 50) * 50)
}

async fn pause(world: &World, millis: u64) {
    world.components().clock.sleep(Duration::from_millis(millis)).await;
}

#[test]
fn a_file_that_is_read_after_others_costs_one_request() {
    let mut world = world(1);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        pause(world, 5000).await;
        read(&cache, FILES - 1).await;
        let before = requests(world);
        for number in scattered() {
            read(&cache, number).await;
        }
        // And the mount may have been looked at.
        let (requests, files) = (requests(world) - before, scattered().count() as u64);
        assert!((files..=files + 1).contains(&requests), "{requests} for {files}");
        // What is here is looked at and no more.
        pause(world, 2000).await;
        let before = (world.store.calls(Call::Head), world.store.calls(Call::Read));
        for number in scattered() {
            read(&cache, number).await;
        }
        let heads = world.store.calls(Call::Head) - before.0;
        assert!((1..=scattered().count() as u64).contains(&heads), "{heads}");
        assert_eq!(world.store.calls(Call::Read), before.1);
    });
}

#[test]
fn what_was_changed_after_it_came_with_a_lookup_is_seen() {
    let mut world = world(2);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        read(&cache, 0).await;
        let (path, before) = (path(100), world.store.calls(Call::Read));
        cache.stat(&at(&path)).await.unwrap();
        let old = cache.read_file(&at(&path)).await.unwrap();
        world.store.write_outside(&key(100), b"changed".to_vec());
        // Who opened it before reads what it was, whole.
        assert_eq!(old.read(0..old.size()).await.unwrap().concat(), content(100));
        assert_eq!(world.store.calls(Call::Read), before, "its bytes came with the lookup");
        pause(world, 2000).await;
        assert_eq!(get(&cache, &path).await.unwrap(), b"changed");
    });
}

#[test]
fn files_in_the_order_of_the_listing_are_fetched_before_they_are_opened() {
    let mut world = world(3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let clock = world.components().clock;
        let begin = clock.monotonic();
        for number in 0..FILES {
            read(&cache, number).await;
        }
        let took = clock.monotonic() - begin;
        // A request takes 10 ms on average, and each file needs one.
        assert!(took < Duration::from_millis(10) * FILES as u32 / 4, "{took:?}");
        let requests = requests(world);
        assert!(requests < FILES as u64 * 11 / 10, "{requests}");
    });
}

#[test]
fn so_are_those_of_readers_that_take_turns() {
    let mut world = world(4);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let clock = world.components().clock;
        let begin = clock.monotonic();
        // Each takes every fourth batch of eight, as the workers of a loader do.
        let worker = async |worker: usize| {
            for batch in (worker..FILES / 8).step_by(4) {
                for number in batch * 8..batch * 8 + 8 {
                    read(&cache, number).await;
                }
            }
        };
        futures::join!(worker(0), worker(1), worker(2), worker(3));
        let took = clock.monotonic() - begin;
        assert!(took < Duration::from_millis(10) * FILES as u32 / 8, "{took:?}");
        let requests = requests(world);
        assert!(requests < FILES as u64 * 12 / 10, "{requests}");
    });
}

#[test]
fn files_in_no_order_are_not_fetched_before_they_are_opened() {
    let mut world = World::new(5);
    let many = 20_000;
    (0..many).for_each(|number| world.store.write_outside(&key(number), content(number)));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut read_of = 0;
        for step in 0..500_usize {
            read(&cache, step * 7919 % many).await;
            read_of += 1;
        }
        // The mount is looked at once, and their directory.
        assert!(requests(world) <= read_of + 5, "{}", requests(world));
        let lists = world.store.calls(Call::List);
        assert!(lists < 60, "{lists} listings for {read_of} files");
    });
}

#[test]
fn where_the_cache_has_little_room_few_are_fetched_for_nothing() {
    let mut world = world(6);
    world.settings.cache_max = Some(forebay_runtime::units::ByteSize(200_000));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for number in 0..FILES {
            read(&cache, number).await;
        }
        let requests = requests(world);
        assert!(requests < FILES as u64 * 3 / 2, "{requests}");
    });
}

#[test]
fn what_was_fetched_ahead_and_changed_since_is_read_as_it_is() {
    let mut world = world(7);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for number in 0..40 {
            read(&cache, number).await;
        }
        pause(world, 1000).await;
        let held = cache.stat(&at(&path(40))).await.unwrap().cached_bytes;
        assert_eq!(held, content(40).len() as u64, "it was not fetched ahead");
        world.store.write_outside(&key(40), b"changed".to_vec());
        world.store.delete_outside(&key(41));
        pause(world, 2000).await;
        assert_eq!(get(&cache, &path(40)).await.unwrap(), b"changed");
        get(&cache, &path(41)).await.unwrap_err();
        read(&cache, 42).await;
    });
}
