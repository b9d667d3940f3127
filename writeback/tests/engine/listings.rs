//! Directories that are listed again and again: how often the store is asked, and what shows all the same.

use crate::support::{World, at, page, put};
use forebay_runtime::clock::Clock;
use forebay_understore::memory::Call;
use forebay_writeback::{Cache, policy::Change};
use serde_json::json;
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(250);
const HOUR: Duration = Duration::from_secs(3600);

async fn set(cache: &Cache, key: &str, value: &str) {
    let change = Change::parse(key, Some(&json!(value))).unwrap();
    cache.policy_set(&at("/kept"), vec![change]).await.unwrap();
}

/// The names in `/kept/d`, in pages of three.
async fn names(cache: &Cache) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().map(|name| at(name));
        let more = page(cache, "/kept/d", after.as_ref(), 3).await;
        let ended = more.len() < 3;
        names.extend(more);
        if ended {
            return names;
        }
    }
}

fn paths(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("/kept/d/{number}")).collect()
}

fn world(seed: u64) -> World {
    let world = World::new(seed);
    (0..8).for_each(|number| world.store.write_outside(&format!("d/{number}"), "x"));
    world
}

#[test]
fn a_burst_of_listings_is_one_and_a_new_name_shows_within_a_moment() {
    for revalidate in [None, Some("never"), Some("always")] {
        let mut world = world(1);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            if let Some(revalidate) = revalidate {
                set(&cache, "revalidate", revalidate).await;
            }
            assert_eq!(names(&cache).await, paths(0..8));
            let lists = world.store.calls(Call::List);
            for _ in 0..10 {
                assert_eq!(names(&cache).await, paths(0..8));
            }
            let asked = world.store.calls(Call::List) - lists;
            assert_eq!(asked, if revalidate == Some("always") { 10 } else { 0 });
            world.store.write_outside("d/8", "x");
            world.store.delete_outside("d/3");
            world.clock.sleep(MOMENT).await;
            assert_eq!(names(&cache).await, paths([0, 1, 2, 4, 5, 6, 7, 8]), "{revalidate:?}");
        });
    }
}

#[test]
fn what_is_ours_shows_at_once_and_stays_when_its_row_goes() {
    let mut world = world(2);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "revalidate", "never").await;
        assert_eq!(names(&cache).await, paths(0..8));
        put(&cache, "/kept/d/9", b"y").await.unwrap();
        cache.delete(&at("/kept/d/5"), false).await.unwrap();
        let now = paths([0, 1, 2, 3, 4, 6, 7, 9]);
        assert_eq!(names(&cache).await, now);
        cache.wait_persisted(&at("/kept"), HOUR).await.unwrap();
        assert_eq!(names(&cache).await, now);
        cache.free(&at("/kept/d/9")).await.unwrap();
        assert_eq!(names(&cache).await, now);
        cache.sync(&at("/kept"), true).await.unwrap();
        assert_eq!(names(&cache).await, now);
    });
}

#[test]
fn where_the_store_dates_its_names_a_directory_is_listed_once_while_it_stays_as_it_is() {
    let mut world = world(3);
    world.store.date_names();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "revalidate_ttl", "1h").await;
        // Whether the store was asked for its names. At the beginning, and after a minute, it is asked for packs too.
        let asked = async || {
            let before = world.store.calls(Call::List);
            let names = names(&cache).await;
            (names, world.store.calls(Call::List) > before)
        };
        assert_eq!(asked().await, (paths(0..8), true));
        for _ in 0..20 {
            world.clock.sleep(MOMENT * 4).await;
            assert_eq!(asked().await, (paths(0..8), false));
        }
        world.store.write_outside("d/8", "x");
        world.clock.sleep(MOMENT).await;
        assert_eq!(asked().await, (paths(0..9), true));
        // It changed a moment ago: the next change might leave it with the same time.
        world.clock.sleep(MOMENT).await;
        assert_eq!(asked().await, (paths(0..9), true));
        world.clock.sleep(MOMENT * 10).await;
        assert_eq!(asked().await, (paths(0..9), true));
        world.clock.sleep(MOMENT * 10).await;
        assert_eq!(asked().await, (paths(0..9), false));
        cache.sync(&at("/kept"), true).await.unwrap();
        assert_eq!(asked().await, (paths(0..9), true));
        world.clock.sleep(MOMENT * 2).await;
        assert_eq!(asked().await, (paths(0..9), false));
        // What a file is like holds for its time alone.
        world.clock.sleep(HOUR).await;
        assert_eq!(asked().await, (paths(0..9), true));
    });
}
