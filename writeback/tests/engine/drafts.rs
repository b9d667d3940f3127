//! Files that are changed in place: what was synced outlives power cuts and failed placements, and nothing stays behind.

use crate::support::{KEPT, World, at, get, kind, pattern, put};
use forebay_metastore::mem::{Call, Fault};
use forebay_writeback::{
    Cache, ErrorKind,
    file::{Draft, PlaceDraft},
    names::State,
};
use std::{sync::Arc, time::Duration};

const HOW: PlaceDraft = PlaceDraft {
    mode: None,
    owner: None,
    mtime: None,
    ctime: None,
};
/// More than a draft keeps in memory.
const LARGE: usize = 1_500_000;

async fn draft_of(cache: &Cache, content: &[u8]) -> Arc<Draft> {
    let draft = Arc::new(cache.draft(None, 0).await.unwrap());
    draft.write(0, content).await.unwrap();
    draft
}

#[test]
fn what_was_synced_outlives_a_power_cut_as_a_new_file_and_as_a_changed_one() {
    let mut world = World::new(1);
    let (old, new) = (pattern(1, LARGE), pattern(2, LARGE));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/old", &old).await.unwrap();
        let reader = cache.read_file(&at("/kept/old")).await.unwrap();
        let changed = cache.draft(Some(&reader), u64::MAX).await.unwrap();
        changed.write(7, b"changed").await.unwrap();
        changed.sync(&at("/kept/old"), HOW).await.unwrap();
        let created = draft_of(&cache, &new).await;
        created.sync(&at("/kept/new"), HOW).await.unwrap();
        assert_eq!(cache.stat(&at("/kept/new")).await.unwrap().state, State::Open);
        assert!(
            get(&cache, "/kept/old").await.unwrap() == old,
            "others see it when it is placed"
        );
        std::mem::forget((changed, created));
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut expected = old.clone();
        expected[7..14].copy_from_slice(b"changed");
        assert!(get(&cache, "/kept/old").await.unwrap() == expected);
        assert!(get(&cache, "/kept/new").await.unwrap() == new);
    });
}

#[test]
fn an_empty_draft_whose_end_a_crash_interrupted_is_an_empty_file() {
    let mut world = World::new(2);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let draft = draft_of(&cache, &pattern(1, LARGE)).await;
        draft.sync(&at("/kept/f"), HOW).await.unwrap();
        draft.set_len(0).await.unwrap();
        world.meta.set_hook(|call| match call {
            Call::Commit(_) => Fault::Unavailable,
            _ => Fault::None,
        });
        draft.finish(&at("/kept/f"), HOW).await.unwrap_err();
        std::mem::forget(draft);
    });
    world.meta.clear_hook();
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"");
    });
}

#[test]
fn a_placement_that_fails_loses_nothing_and_can_be_tried_again() {
    let mut world = World::new(3);
    let content = pattern(3, LARGE);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let draft = draft_of(&cache, &content).await;
        draft.sync(&at("/kept/f"), HOW).await.unwrap();
        world.meta.set_hook(|call| match call {
            Call::Commit(_) => Fault::Unavailable,
            _ => Fault::None,
        });
        assert_eq!(kind(draft.finish(&at("/kept/f"), HOW).await), ErrorKind::Unavailable);
        let mut read = vec![0; LARGE];
        assert_eq!(draft.read(0, &mut read).await.unwrap(), LARGE);
        assert!(read == content, "it is still there for those who have it open");
        world.meta.clear_hook();
        draft.finish(&at("/kept/f"), HOW).await.unwrap();
        assert!(get(&cache, "/kept/f").await.unwrap() == content);
        assert_eq!(cache.status().await.unwrap().dirty_bytes, LARGE as u64);
    });
}

#[test]
fn a_placement_that_fails_and_then_a_power_cut_lose_nothing_that_was_synced() {
    let mut world = World::new(4);
    let content = pattern(4, LARGE);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let draft = draft_of(&cache, &content).await;
        draft.sync(&at("/kept/f"), HOW).await.unwrap();
        world.meta.set_hook(|call| match call {
            Call::Commit(_) => Fault::Unavailable,
            _ => Fault::None,
        });
        draft.finish(&at("/kept/f"), HOW).await.unwrap_err();
        drop(draft);
    });
    world.meta.clear_hook();
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert!(get(&cache, "/kept/f").await.unwrap() == content);
    });
}

#[test]
fn what_was_synced_over_a_file_whose_copy_was_freed_outlives_a_power_cut() {
    let mut world = World::new(5);
    let (old, new) = (pattern(1, LARGE), pattern(2, LARGE));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/f", &old).await.unwrap();
        cache.wait_persisted(&at(KEPT), Duration::from_secs(60)).await.unwrap();
        let draft = cache
            .draft(Some(&cache.read_file(&at("/kept/f")).await.unwrap()), 0)
            .await;
        let draft = Arc::new(draft.unwrap());
        draft.write(0, &new).await.unwrap();
        draft.sync(&at("/kept/f"), HOW).await.unwrap();
        let freed = cache.free(&at(KEPT)).await.unwrap();
        assert_eq!(freed.freed_bytes, LARGE as u64, "the row's copy went");
        assert!(get(&cache, "/kept/f").await.unwrap() == old);
        std::mem::forget(draft);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert!(get(&cache, "/kept/f").await.unwrap() == new);
        // With nobody waiting for it any more, a row that says no more than the store goes.
        cache.wait_persisted(&at(KEPT), Duration::from_secs(60)).await.unwrap();
        cache.free(&at(KEPT)).await.unwrap();
        assert_eq!(cache.stat(&at("/kept/f")).await.unwrap().state, State::Clean);
    });
}
