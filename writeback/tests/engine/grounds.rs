//! Files that are changed in place while something happens to what they were made of: what somebody else wrote stays, and our own comings
//! and goings are no change.

use crate::support::{KEPT, World, at, get, kind, pattern, put};
use forebay_writeback::{
    Cache, Error, ErrorKind, SetAttributes,
    file::{Draft, FileReader, PlaceDraft, TriedPlace},
};
use std::{sync::Arc, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);
/// In memory, and more than a draft keeps there.
const SIZES: [usize; 2] = [100, 1_500_000];

/// A draft of the content with something changed at its beginning.
async fn changed(cache: &Cache, reader: &FileReader) -> Arc<Draft> {
    let draft = Arc::new(cache.draft(Some(reader), u64::MAX).await.unwrap());
    draft.write(0, b"mine").await.unwrap();
    draft
}

async fn place(draft: &Arc<Draft>, path: &str) -> Result<(), Error> {
    let how = PlaceDraft::default();
    let mut room = Some(draft.room().await?);
    match draft.place(&at(path), how, &mut room).await? {
        TriedPlace::Large => draft.finish(&at(path), how).await.map(drop),
        TriedPlace::Placed => Ok(()),
        TriedPlace::NoRoom => panic!("there is room"),
    }
}

fn with_mine(content: &[u8]) -> Vec<u8> {
    [b"mine", &content[4..]].concat()
}

async fn persisted(cache: &Cache) {
    cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
}

#[test]
fn what_somebody_wrote_in_the_store_meanwhile_is_not_written_over() {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let mut world = World::new(seed as u64);
        let (old, theirs) = (pattern(1, size), pattern(2, size + 1));
        for key in ["theirs", "looked-at"] {
            world.store.write_outside(key, old.clone());
        }
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            for key in ["evicted", "ours"] {
                put(&cache, &format!("/kept/{key}"), &old).await.unwrap();
            }
            persisted(&cache).await;
            cache.free(&at("/kept/evicted")).await.unwrap();
            for key in ["theirs", "looked-at", "evicted", "ours"] {
                let path = format!("/kept/{key}");
                let reader = cache.read_file(&at(&path)).await.unwrap();
                let draft = changed(&cache, &reader).await;
                world.store.write_outside(key, theirs.clone());
                tokio::time::sleep(MINUTE).await;
                if key == "looked-at" {
                    cache.stat(&at(&path)).await.unwrap();
                }
                match place(&draft, &path).await {
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Aborted, "{key}: {error}"),
                    // It was not noticed here yet: the store is asked before it is written.
                    Ok(()) => {
                        cache.wait_persisted(&at(&path), MINUTE).await.unwrap_err();
                        let status = cache.status().await.unwrap();
                        assert_eq!(status.conflicts.len(), 1, "{key}");
                    }
                }
                assert!(
                    world.store.contents()[key] == theirs,
                    "{key} of {size} bytes was written over"
                );
            }
        });
    }
}

#[test]
fn what_was_persisted_evicted_or_dressed_meanwhile_is_still_what_it_was() {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let mut world = World::new(10 + seed as u64);
        let old = pattern(1, size);
        world.store.write_outside("theirs", old.clone());
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            put(&cache, "/kept/persisted", &old).await.unwrap();
            persisted(&cache).await;
            put(&cache, "/kept/dirty", &old).await.unwrap();
            let open = async |path: &str| cache.read_file(&at(path)).await.unwrap();
            let paths = ["/kept/persisted", "/kept/dirty", "/kept/theirs"];
            let mut readers = Vec::new();
            for path in paths {
                readers.push(open(path).await);
            }
            let early = changed(&cache, &open("/kept/dirty").await).await;
            persisted(&cache).await;
            cache.free(&at(KEPT)).await.unwrap();
            let dressed = SetAttributes {
                mode: Some(0o600),
                ..SetAttributes::default()
            };
            cache.set_attributes(&at("/kept/theirs"), dressed).await.unwrap();
            place(&early, "/kept/dirty").await.unwrap();
            assert!(get(&cache, "/kept/dirty").await.unwrap() == with_mine(&old));
            for (reader, path) in readers.iter().zip(paths).filter(|(_, path)| *path != "/kept/dirty") {
                let draft = changed(&cache, reader).await;
                place(&draft, path).await.unwrap();
                assert!(get(&cache, path).await.unwrap() == with_mine(&old), "{path}");
                // And again, by whoever goes on with it.
                if draft.is_small().await {
                    persisted(&cache).await;
                    cache.free(&at(path)).await.unwrap();
                    draft.write(4, b"more").await.unwrap();
                    place(&draft, path).await.unwrap();
                    assert_eq!(get(&cache, path).await.unwrap()[..8], *b"minemore", "{path}");
                }
            }
            persisted(&cache).await;
            assert!(world.store.contents()["dirty"] == with_mine(&old));
        });
    }
}

#[test]
fn of_two_that_were_made_of_one_content_the_second_is_told() {
    let mut world = World::new(20);
    world.store.write_outside("f", pattern(1, 100));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let reader = cache.read_file(&at("/kept/f")).await.unwrap();
        let (first, second) = (changed(&cache, &reader).await, changed(&cache, &reader).await);
        place(&first, "/kept/f").await.unwrap();
        persisted(&cache).await;
        cache.free(&at(KEPT)).await.unwrap();
        assert_eq!(kind(place(&second, "/kept/f").await), ErrorKind::Aborted);
        drop(first);
        persisted(&cache).await;
        assert!(world.store.contents()["f"] == with_mine(&pattern(1, 100)));
    });
}
