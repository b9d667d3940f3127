//! A local folder as the under-store: one name is a file or a directory there, never both.

use crate::support::{KEPT, World, at, get, put};
use async_trait::async_trait;
use forebay_understore::{StoreError, UnderStoreRef};
use forebay_writeback::{Cache, Components, StoreOpener, names::Rename};
use std::{path::Path as FsPath, sync::Arc, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Folders;

#[async_trait]
impl StoreOpener for Folders {
    async fn open(&self, url: &str) -> Result<UnderStoreRef, StoreError> {
        forebay_understore::open(url, &forebay_understore::Settings::default()).await
    }
}

/// A cache over `folder`.
async fn open(world: &World, folder: &FsPath) -> Cache {
    let mut settings = world.settings.clone();
    settings.mounts[0].url = format!("file://{}", folder.display());
    let components = Components {
        stores: Arc::new(Folders),
        ..world.components()
    };
    Cache::open(settings, components).await.unwrap()
}

async fn persisted(cache: &Cache) {
    cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
}

/// The folder that was renamed is pruned beside the new file's upload, in no order that one could rely on.
#[test]
fn a_file_takes_the_place_of_a_directory_that_was_renamed_away_with_its_parent() {
    for seed in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(seed);
        world.live(async |world| {
            let cache = open(world, folder.path()).await;
            cache.mkdir(&at("/kept/b/a/x"), true).await.unwrap();
            put(&cache, "/kept/b/f", b"f").await.unwrap();
            persisted(&cache).await;
            cache
                .rename(&at("/kept/b"), &at("/kept/d"), Rename::default())
                .await
                .unwrap();
            put(&cache, "/kept/b/a", b"a").await.unwrap();
            persisted(&cache).await;
            assert_eq!(get(&cache, "/kept/b/a").await.unwrap(), b"a", "seed {seed}");
            assert_eq!(std::fs::read(folder.path().join("b/a")).unwrap(), b"a", "seed {seed}");
            assert_eq!(std::fs::read(folder.path().join("d/f")).unwrap(), b"f", "seed {seed}");
        });
    }
}
