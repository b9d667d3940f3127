//! Attributes that are set when the content is in the store already: they follow, once, whatever is cut off, and nobody's object suffers.

use crate::support::{KEPT, World, at, get, mode, put, write};
use bytes::Bytes;
use forebay_runtime::clock::Timestamp;
use forebay_understore::{
    Found, StoreError, UnderStore,
    memory::{Call, Fault},
};
use forebay_writeback::{
    Cache, ErrorKind, SetAttributes,
    file::{WriteFile, WriteMode},
    names::{Rename, State},
};
use std::{collections::BTreeMap, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);
/// 2001, long before any of these worlds.
const THEN: Timestamp = Timestamp(1_000_000_000_123_456);

fn dressed() -> SetAttributes {
    SetAttributes {
        mode: Some(0o640),
        uid: Some(1000),
        gid: Some(100),
        mtime: Some(THEN),
        xattrs: BTreeMap::from([(b"user.colour".to_vec(), Some(b"blue".to_vec()))]),
        ..SetAttributes::default()
    }
}

/// A file that has arrived, with the attributes of its write.
async fn arrived(cache: &Cache, path: &str) {
    put(cache, path, b"content").await.unwrap();
    cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
}

async fn stored(world: &World, key: &str) -> Found {
    world.store.head(key).await.unwrap().unwrap()
}

fn value<'f>(found: &'f Found, name: &str) -> Option<&'f str> {
    let kept = found.attributes.iter().find(|(known, _)| known == name)?;
    Some(kept.1.as_str())
}

/// That the store has all that [`dressed`] says.
async fn is_dressed(world: &World, key: &str) {
    let found = stored(world, key).await;
    let kept = ["mode", "uid", "gid", "mtime", "xattrs"].map(|name| value(&found, name));
    let wanted = ["640", "1000", "100", "1000000000123456", "user.colour=blue"];
    assert_eq!(kept, wanted.map(Some));
}

#[test]
fn what_is_set_after_the_upload_follows_without_the_bytes_and_a_new_cache_finds_it() {
    let mut world = World::new(1);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        arrived(&cache, "/kept/f").await;
        let puts = world.store.calls(Call::Put);
        cache.set_attributes(&at("/kept/f"), dressed()).await.unwrap();
        assert_eq!(cache.stat(&at("/kept/f")).await.unwrap().state, State::Persisted);
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        is_dressed(world, "f").await;
        assert_eq!(world.store.calls(Call::Put), puts);
        assert_eq!(world.store.calls(Call::SetAttributes), 1);
        // Nothing that a store would see: no request.
        let same = SetAttributes {
            atime: Some(THEN),
            ..dressed()
        };
        cache.set_attributes(&at("/kept/f"), same).await.unwrap();
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        assert_eq!(world.store.calls(Call::SetAttributes), 1);
        cache.free(&at(KEPT)).await.unwrap();
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"content");
    });
    // Nothing is left of the first cache.
    let mut other = World::new(2);
    other.store = world.store.clone();
    other.live(async |other| {
        let cache = other.open().await.unwrap();
        let stat = cache.stat(&at("/kept/f")).await.unwrap();
        assert_eq!((stat.mode, stat.uid, stat.gid, stat.mtime), (0o640, 1000, 100, THEN));
        let xattrs = cache.xattrs(&at("/kept/f")).await.unwrap();
        assert_eq!(xattrs, BTreeMap::from([(b"user.colour".to_vec(), b"blue".to_vec())]));
    });
}

#[test]
fn what_is_set_while_the_content_is_on_its_way_follows_it() {
    let mut world = World::new(3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.store.fail_next(Call::Put, Fault::Hang);
        put(&cache, "/kept/f", b"content").await.unwrap();
        while world.store.calls(Call::Put) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cache.set_attributes(&at("/kept/f"), dressed()).await.unwrap();
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        assert_eq!(world.store.faults(), 1);
        is_dressed(world, "f").await;
    });
}

#[test]
fn an_answer_that_is_lost_and_a_crash_change_nothing_about_whose_it_is() {
    for (seed, fault) in [(4, Fault::LostAnswer), (5, Fault::Unavailable), (6, Fault::WrongBody)] {
        let mut world = World::new(seed);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            arrived(&cache, "/kept/f").await;
            world.store.fail_next(Call::SetAttributes, fault.clone());
            cache.set_attributes(&at("/kept/f"), dressed()).await.unwrap();
            while world.store.calls(Call::SetAttributes) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert_eq!(world.store.faults(), 1);
        world.cut_power();
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
            is_dressed(world, "f").await;
            // What the row knows of the object is true: it can be read, moved and deleted.
            cache.free(&at(KEPT)).await.unwrap();
            assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"content");
            cache
                .rename(&at("/kept/f"), &at("/kept/g"), Rename::default())
                .await
                .unwrap();
            cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
            is_dressed(world, "g").await;
            cache.delete(&at("/kept/g"), false).await.unwrap();
            cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
            assert!(world.store.contents().is_empty());
        });
    }
}

#[test]
fn what_somebody_else_wrote_meanwhile_is_left_as_it_is_and_shown() {
    let mut world = World::new(7);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        arrived(&cache, "/kept/f").await;
        world.store.set_away(Some(StoreError::Unavailable("away".into())));
        cache.set_attributes(&at("/kept/f"), dressed()).await.unwrap();
        world.store.write_outside("f", "theirs");
        world.store.set_away(None);
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        let found = stored(world, "f").await;
        assert_eq!((found.token, found.attributes), (None, Vec::new()));
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"theirs");
    });
}

#[test]
fn whoever_has_it_open_goes_on_reading_and_a_free_meanwhile_breaks_nothing() {
    let mut world = World::new(12);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        arrived(&cache, "/kept/f").await;
        let reader = cache.read_file(&at("/kept/f")).await.unwrap();
        world.store.fail_next(Call::SetAttributes, Fault::LostAnswer);
        cache.set_attributes(&at("/kept/f"), dressed()).await.unwrap();
        while world.store.calls(Call::SetAttributes) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The store has them, and with them another validator, which the row does not know yet.
        let freed = cache.free(&at(KEPT)).await.unwrap();
        assert_eq!((freed.freed_bytes, world.store.calls(Call::SetAttributes)), (0, 1));
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"content");
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        assert_eq!(cache.free(&at(KEPT)).await.unwrap().freed_bytes, 7);
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"content");
        assert_eq!(reader.read(0..7).await.unwrap().concat(), b"content");
    });
}

#[test]
fn an_object_of_others_is_not_written_anew_for_its_attributes() {
    let mut world = World::new(8);
    world.store.write_outside("f", "theirs");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.set_attributes(&at("/kept/f"), dressed()).await.unwrap();
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        let found = stored(world, "f").await;
        assert_eq!((found.token, found.attributes), (None, Vec::new()));
        let stat = cache.stat(&at("/kept/f")).await.unwrap();
        assert_eq!((stat.mode, stat.mtime), (0o640, THEN), "the cache keeps them");
    });
}

#[test]
fn a_store_that_refuses_attributes_holds_nothing_up() {
    let mut world = World::new(9);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        arrived(&cache, "/kept/f").await;
        let refused = Fault::Refused("no copies here".into());
        world.store.fail_next(Call::SetAttributes, refused);
        cache.set_attributes(&at("/kept/f"), dressed()).await.unwrap();
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        assert_eq!(world.store.faults(), 1);
        assert_eq!(value(&stored(world, "f").await, "mode"), Some("644"));
        assert_eq!(cache.stat(&at("/kept/f")).await.unwrap().mode, 0o640);
    });
}

#[test]
fn an_mtime_that_was_set_outlives_the_copy_and_that_of_a_write_costs_no_row() {
    let mut world = World::new(10);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        arrived(&cache, "/kept/written").await;
        arrived(&cache, "/kept/set").await;
        let mtime = SetAttributes {
            mtime: Some(THEN),
            ..SetAttributes::default()
        };
        cache.set_attributes(&at("/kept/set"), mtime).await.unwrap();
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        cache.free(&at(KEPT)).await.unwrap();
        let state = async |path: &str| cache.stat(&at(path)).await.unwrap().state;
        assert_eq!(state("/kept/written").await, State::Clean);
        assert_eq!(state("/kept/set").await, State::Persisted);
        let listed = cache.list_page(&at(KEPT), None, 10).await.unwrap();
        let set = listed.iter().find(|stat| stat.path == at("/kept/set")).unwrap();
        assert_eq!(set.mtime, THEN);
    });
}

#[test]
fn attributes_where_no_store_is_mounted_ask_none() {
    let mut world = World::new(11);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let missing = cache.set_attributes(&at("/kept/nothing"), dressed()).await;
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
        put(&cache, "/elsewhere", b"content").await.unwrap();
        cache.set_attributes(&at("/elsewhere"), dressed()).await.unwrap();
        assert_eq!(cache.stat(&at("/elsewhere")).await.unwrap().mode, 0o640);
        assert_eq!(world.store.calls(Call::SetAttributes), 0);
    });
}

/// An overwrite that brings these.
fn with(xattrs: &[(&str, &str)]) -> WriteFile {
    WriteFile {
        user_xattrs: Some(named(xattrs)),
        ..mode(WriteMode::Overwrite)
    }
}

fn named(xattrs: &[(&str, &str)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let bytes = |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    xattrs.iter().map(bytes).collect()
}

#[test]
fn those_that_a_write_brings_are_there_with_its_content_and_no_others_of_users() {
    let mut world = World::new(12);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/f", b"one").await.unwrap();
        let set = SetAttributes {
            xattrs: BTreeMap::from([
                (b"user.colour".to_vec(), Some(b"blue".to_vec())),
                (b"security.kept".to_vec(), Some(b"s".to_vec())),
            ]),
            ..SetAttributes::default()
        };
        cache.set_attributes(&at("/kept/f"), set).await.unwrap();
        let of = async |path: &str| cache.stat_with_xattrs(&at(path)).await.unwrap().1;
        let mut writer = cache
            .write_file(&at("/kept/f"), with(&[("user.kind", "a")]))
            .await
            .unwrap();
        writer.append(vec![Bytes::from_static(b"two")]).await.unwrap();
        let before = named(&[("security.kept", "s"), ("user.colour", "blue")]);
        assert_eq!(of("/kept/f").await, before);
        writer.commit().await.unwrap();
        let after = named(&[("security.kept", "s"), ("user.kind", "a")]);
        assert_eq!(of("/kept/f").await, after);
        // Who brings none leaves them, and who brings nothing but none takes them away.
        put(&cache, "/kept/f", b"three").await.unwrap();
        assert_eq!(of("/kept/f").await, after);
        write(&cache, "/kept/f", b"four", with(&[])).await.unwrap();
        assert_eq!(of("/kept/f").await, named(&[("security.kept", "s")]));
        write(&cache, "/kept/new/g", b"five", with(&[("user.kind", "b")]))
            .await
            .unwrap();
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        assert_eq!(value(&stored(world, "new/g").await, "xattrs"), Some("user.kind=b"));
        assert_eq!(value(&stored(world, "f").await, "xattrs"), None);
        assert_eq!(world.store.calls(Call::SetAttributes), 0, "they go with the bytes");
        let (stat, xattrs) = cache.stat_with_xattrs(&at("/kept/new/g")).await.unwrap();
        assert_eq!((stat.size, xattrs), (4, named(&[("user.kind", "b")])));
    });
}

#[test]
fn those_that_no_name_can_have_refuse_the_write() {
    let mut world = World::new(13);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/f", b"one").await.unwrap();
        let (long, large) = (format!("user.{}", "n".repeat(300)), "v".repeat(40_000));
        for (xattrs, kind) in [
            ([("", "v")], ErrorKind::Invalid),
            ([(long.as_str(), "v")], ErrorKind::Invalid),
            ([("security.x", "v")], ErrorKind::Invalid),
            ([("user.x", large.as_str())], ErrorKind::Full),
        ] {
            let error = write(&cache, "/local/f", b"two", with(&xattrs)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        // With those of others there is no room for as many.
        let set = SetAttributes {
            xattrs: BTreeMap::from([(b"security.x".to_vec(), Some(vec![0; 20_000]))]),
            ..SetAttributes::default()
        };
        cache.set_attributes(&at("/local/f"), set).await.unwrap();
        let half = "v".repeat(20_000);
        let error = write(&cache, "/local/f", b"two", with(&[("user.x", &half)])).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"one");
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 3);
    });
}
