//! Policies through the engine's own door: what is set, what holds, and what a restart leaves of it.

use crate::support::{World, at, get, kind, put, write};
use forebay_metastore::mem::{Call, Fault};
use forebay_runtime::clock::Clock;
use forebay_understore::memory::Call as StoreCall;
use forebay_writeback::{
    AckLevel, Cache, Error, ErrorKind,
    file::WriteFile,
    names::Rename,
    policy::{Change, Key, Set},
};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// Sets policies as a JSON object has them.
async fn set(cache: &Cache, path: &str, policies: Json) -> Result<(), Error> {
    let pairs = policies.as_object().unwrap();
    let changes = pairs.iter().map(|(key, value)| Ok(Change::parse(key, Some(value))?));
    cache
        .policy_set(&at(path), changes.collect::<Result<_, Error>>()?)
        .await
}

fn holds(cache: &Cache, path: &str, key: Key) -> (Json, Option<String>) {
    let lines = cache.policy_explain(&at(path));
    let line = lines.into_iter().find(|line| line.value.key() == key).unwrap();
    (line.value.json(), line.from.map(|path| path.to_string()))
}

#[test]
fn policies_outlive_a_restart_and_stay_with_their_path() {
    let mut world = World::new(1);
    let long = format!(
        "/{}/{}",
        "l".repeat(250),
        ["m".repeat(250), "n".repeat(250), "o".repeat(250)].join("/")
    );
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/a", json!({"versions_kept": 5, "revalidate": "never"}))
            .await
            .unwrap();
        set(&cache, "/a/b", json!({"versions_kept": 7})).await.unwrap();
        set(&cache, &long, json!({"versions_kept": 9})).await.unwrap();
        set(&cache, "/a", json!({"revalidate": null, "persist": "never"}))
            .await
            .unwrap();
        put(&cache, "/a/f", b"x").await.unwrap();
        cache.rename(&at("/a"), &at("/moved"), Rename::default()).await.unwrap();
        cache.delete(&at("/moved"), true).await.unwrap();
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(
            Json::Object(cache.policy_get(&at("/a")).json()),
            json!({"versions_kept": 5, "persist": "never"})
        );
        assert_eq!(
            holds(&cache, "/a/b/c", Key::VersionsKept),
            (json!(7), Some("/a/b".into()))
        );
        assert_eq!(
            holds(&cache, "/a/b/c", Key::Persist),
            (json!("never"), Some("/a".into()))
        );
        assert_eq!(holds(&cache, &long, Key::VersionsKept), (json!(9), Some(long.clone())));
        assert_eq!(holds(&cache, "/moved/x", Key::VersionsKept), (json!(3), None));
        assert!(cache.policy_get(&at("/a/b/c")).is_empty());
        set(&cache, "/a/b", json!({"versions_kept": null})).await.unwrap();
        assert_eq!(holds(&cache, "/a/b", Key::VersionsKept), (json!(5), Some("/a".into())));
    });
}

#[test]
fn what_the_settings_name_is_set_beside_what_is_there() {
    let mut world = World::new(2);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/a", json!({"versions_kept": 5, "persist": "never"}))
            .await
            .unwrap();
    });
    world.cut_power();
    let named = Set::parse([("versions_kept", &json!(8))]).unwrap();
    world.settings.policies = vec![(at("/a"), named)];
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(
            Json::Object(cache.policy_get(&at("/a")).json()),
            json!({"versions_kept": 8, "persist": "never"})
        );
    });
    world.cut_power();
    world.settings.policies = vec![(at("/a"), Set::parse([("replicas", &json!(3))]).unwrap())];
    world.live(async |world| {
        let refused = world.open().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(
            refused.to_string().contains("policy of /a") && refused.to_string().contains("replicas"),
            "{refused}"
        );
    });
}

#[test]
fn what_can_not_be_honoured_is_refused_and_changes_nothing() {
    World::new(3).live(async |world| {
        let cache = world.open().await.unwrap();
        for policies in [
            json!({"versions_kept": 4, "replicas": 2}),
            json!({"versions_kept": 4, "ack": "replicated(2)"}),
        ] {
            let refused = set(&cache, "/a", policies.clone()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{policies}");
            assert!(refused.to_string().contains("not offered by this version"), "{refused}");
        }
        for invalid in [json!({"versions_kept": 0}), json!({"versions_kept": 4, "tier": "nvme"})] {
            assert_eq!(kind(set(&cache, "/a", invalid).await), ErrorKind::Invalid);
        }
        assert!(cache.policy_get(&at("/a")).is_empty());
        set(&cache, "/a", json!({"replicas": 1, "tier": "disk"})).await.unwrap();
    });
}

#[test]
fn a_change_that_the_metastore_did_not_take_is_not_in_effect() {
    World::new(4).live(async |world| {
        let cache = world.open().await.unwrap();
        world.meta.set_hook(|call| match call {
            Call::Commit(_) => Fault::Unavailable,
            _ => Fault::None,
        });
        assert_eq!(
            kind(set(&cache, "/a", json!({"versions_kept": 4})).await),
            ErrorKind::Unavailable
        );
        assert_eq!(holds(&cache, "/a", Key::VersionsKept), (json!(3), None));
        // An answer that is lost is asked for again, whether the change came through or not.
        for fault in [Fault::UnknownCommitted, Fault::UnknownLost] {
            let mut first = true;
            world.meta.set_hook(move |call| match call {
                Call::Commit(_) if std::mem::take(&mut first) => fault,
                _ => Fault::None,
            });
            set(&cache, "/b", json!({"versions_kept": 6})).await.unwrap();
            assert_eq!(holds(&cache, "/b", Key::VersionsKept).0, json!(6));
            set(&cache, "/b", json!({"versions_kept": null})).await.unwrap();
        }
        world.meta.clear_hook();
        set(&cache, "/a", json!({"versions_kept": 4})).await.unwrap();
        assert_eq!(holds(&cache, "/a", Key::VersionsKept).0, json!(4));
    });
}

#[test]
fn the_level_of_a_write_that_names_none_is_the_path_s() {
    World::new(5).live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept/safe", json!({"ack": "persisted"})).await.unwrap();
        set(&cache, "/kept/safe/quick", json!({"ack": "memory"})).await.unwrap();
        set(&cache, "/nowhere", json!({"ack": "persisted"})).await.unwrap();
        for (path, level) in [
            ("/kept/f", AckLevel::Local),
            ("/kept/safe/f", AckLevel::Persisted),
            ("/kept/safe/quick/f", AckLevel::Memory),
        ] {
            assert_eq!(cache.ack_level_at(&at(path)), level, "{path}");
            assert_eq!(put(&cache, path, b"x").await.unwrap().level, level, "{path}");
        }
        assert!(world.store.contents().contains_key("safe/f"), "it was waited for");
        let asked = WriteFile {
            ack: Some(AckLevel::Local),
            ..WriteFile::default()
        };
        assert_eq!(
            write(&cache, "/kept/safe/g", b"x", asked).await.unwrap().level,
            AckLevel::Local
        );
        // No under-store covers it: the level is named, not lowered in silence.
        assert_eq!(kind(put(&cache, "/nowhere/f", b"x").await), ErrorKind::Precondition);
    });
}

#[test]
fn what_is_found_in_a_directory_proves_it_without_asking_for_it() {
    World::new(9).live(async |world| {
        for name in ["a", "b", "c", "d"] {
            world.store.write_outside(&format!("deep/dir/{name}"), name);
        }
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", json!({"revalidate_ttl": "1s"})).await.unwrap();
        let asks = async |path: &str| {
            let before = world.store.calls(StoreCall::Head);
            let found = cache.stat(&at(path)).await;
            (found.is_ok(), world.store.calls(StoreCall::Head) - before)
        };
        assert!(asks("/kept/deep/dir").await.1 > 0 && asks("/kept/deep").await.1 > 0);
        for name in ["a", "b", "c"] {
            world.clock.sleep(Duration::from_millis(900)).await;
            assert_eq!(asks(&format!("/kept/deep/dir/{name}")).await, (true, 1));
            assert_eq!(asks("/kept/deep/dir").await, (true, 0));
            assert_eq!(asks("/kept/deep").await, (true, 0));
        }
        // Nobody finds anything any more: then it is asked for.
        for name in ["a", "b", "c", "d"] {
            world.store.delete_outside(&format!("deep/dir/{name}"));
        }
        world.clock.sleep(Duration::from_millis(900)).await;
        assert_eq!(asks("/kept/deep/dir/d").await, (false, 1));
        world.clock.sleep(Duration::from_millis(200)).await;
        assert!(!asks("/kept/deep/dir").await.0);
    });
}

#[test]
fn what_compares_by_itself_goes_so_many_levels_down_and_who_asks_goes_all_the_way() {
    // From where the levels are counted, and what is beyond the depth there.
    let seen = ["/kept/top", "/kept/d/one", "/kept/d/x/two", "/kept/e/one"];
    let deeper = ["/kept/c/below", "/kept/d/x/y/three", "/kept/e/g/two"];
    let mut world = World::new(21);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        set(&cache, "/kept", json!({"revalidate": "never", "sync_depth": 1}))
            .await
            .unwrap();
        set(&cache, "/kept/d", json!({"sync_depth": 2})).await.unwrap();
        set(&cache, "/kept/e", json!({"sync_interval": "10s"})).await.unwrap();
        assert_eq!(
            holds(&cache, "/kept/e/g", Key::SyncDepth),
            (json!(1), Some("/kept".into()))
        );
        assert_eq!(holds(&cache, "/", Key::SyncDepth), (json!("none"), None));
        for path in seen.iter().chain(&deeper) {
            put(&cache, path, b"ours").await.unwrap();
        }
        cache
            .wait_persisted(&at("/kept"), Duration::from_secs(3600))
            .await
            .unwrap();
        for path in seen.iter().chain(&deeper) {
            world.store.write_outside(path.trim_start_matches("/kept/"), "theirs");
        }
        world.clock.sleep(Duration::from_secs(200)).await;
        for path in seen {
            assert_eq!(get(&cache, path).await.unwrap(), b"theirs", "{path}");
        }
        for path in deeper {
            assert_eq!(get(&cache, path).await.unwrap(), b"ours", "{path}");
        }
        cache.sync(&at("/kept"), true).await.unwrap();
        for path in deeper {
            assert_eq!(get(&cache, path).await.unwrap(), b"theirs", "{path}");
        }
        // Without the limit it goes all the way by itself too.
        set(&cache, "/kept", json!({"sync_depth": "none"})).await.unwrap();
        put(&cache, "/kept/c/below", b"ours").await.unwrap();
        cache
            .wait_persisted(&at("/kept"), Duration::from_secs(3600))
            .await
            .unwrap();
        world.store.write_outside("c/below", "theirs again");
        world.clock.sleep(Duration::from_secs(200)).await;
        assert_eq!(get(&cache, "/kept/c/below").await.unwrap(), b"theirs again");
    });
}
