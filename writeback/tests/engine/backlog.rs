//! What `status` says of what is on its way: to each mount, and what would be lost with the data folders.

use crate::support::{
    KEPT, World, at,
    batches::{messages, rows},
    pattern, put,
};
use forebay_understore::StoreError;
use forebay_writeback::{
    Cache, SetAttributes,
    dataset::{PutTarget, SessionSpec},
    file::{PlaceDraft, WriteMode},
    names::Rename,
    policy::Change,
};
use serde_json::json;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn away(world: &World) {
    world
        .store
        .set_away(Some(StoreError::Unavailable("switched off".into())));
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// Of the one mount: pieces that wait, bytes, whole seconds since the oldest change.
async fn of_mount(cache: &Cache) -> (u64, u64, u64) {
    let status = cache.status().await.unwrap();
    let mount = &status.mounts[0];
    assert_eq!(mount.path, at(KEPT));
    (mount.queued, mount.dirty_bytes, mount.lag.as_secs())
}

#[test]
fn each_mount_says_what_it_has_yet_to_get_and_since_when() {
    let mut world = World::new(1);
    let before = world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/d/there", b"before").await.unwrap();
        cache.wait_persisted(&at(KEPT), HOUR).await.unwrap();
        assert_eq!(of_mount(&cache).await, (0, 0, 0));
        away(world);
        put(&cache, "/kept/d/a", &pattern(1, 1_000)).await.unwrap();
        tokio::time::sleep(10 * Duration::from_secs(1)).await;
        put(&cache, "/kept/d/b", &pattern(1, 500)).await.unwrap();
        put(&cache, "/apart", &pattern(1, 70)).await.unwrap();
        settle().await;
        assert_eq!(of_mount(&cache).await, (2, 1_500, 12));
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_bytes, status.queued), (1_570, 2), "{status:?}");
        // What is written over, dressed or deleted counts as it is then.
        put(&cache, "/kept/d/a", &pattern(1, 2_000)).await.unwrap();
        let mode = SetAttributes {
            mode: Some(0o600),
            ..SetAttributes::default()
        };
        cache.set_attributes(&at("/kept/d/there"), mode).await.unwrap();
        settle().await;
        let (_, bytes, lag) = of_mount(&cache).await;
        assert!(bytes == 2_500 && lag >= 4, "{bytes} {lag}");
        cache.delete(&at("/kept/d/b"), false).await.unwrap();
        settle().await;
        assert_eq!(of_mount(&cache).await.1, 2_000);
        of_mount(&cache).await
    });
    world.cut_power();
    // The same after a restart, though no run of the work gets far.
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        settle().await;
        let (queued, bytes, lag) = of_mount(&cache).await;
        assert_eq!((queued, bytes), (before.0, before.1));
        assert!(lag >= before.2);
        world.store.set_away(None);
        cache.wait_persisted(&at(KEPT), HOUR).await.unwrap();
        settle().await;
        assert_eq!(of_mount(&cache).await, (0, 0, 0));
        assert_eq!(cache.status().await.unwrap().at_risk_bytes, 70, "no mount covers it");
    });
}

#[test]
fn what_a_policy_keeps_back_and_a_whole_dataset_count_for_their_mount() {
    let mut world = World::new(2);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let never = vec![Change::parse("persist", Some(&json!("never"))).unwrap()];
        cache.policy_set(&at("/kept/stays"), never).await.unwrap();
        put(&cache, "/kept/stays/a", &pattern(1, 300)).await.unwrap();
        settle().await;
        assert_eq!(of_mount(&cache).await.1, 300);
        cache
            .rename(&at("/kept/stays/a"), &at("/kept/stays/b"), Rename::default())
            .await
            .unwrap();
        settle().await;
        assert_eq!(of_mount(&cache).await.1, 300);
        away(world);
        let target = PutTarget {
            path: at("/kept/ds"),
            session: None,
            task: None,
            spec: SessionSpec::default(),
            token: None,
        };
        let [schema, batch] = messages(&rows(0..1_000));
        let mut writer = cache.put(target, schema).await.unwrap();
        writer.append(batch).await.unwrap();
        writer.commit().await.unwrap();
        settle().await;
        let status = cache.status().await.unwrap();
        assert_eq!(status.withheld, 1);
        let (queued, bytes, _) = of_mount(&cache).await;
        assert_eq!((queued, bytes), (status.queued, status.dirty_bytes));
        assert!(bytes > 8_300, "{bytes}");
    });
}

#[test]
fn what_was_acknowledged_before_its_commit_is_at_risk_too() {
    const LARGE: usize = 1_500_000;
    let mut world = World::new(3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let at_risk = async || {
            let status = cache.status().await.unwrap();
            (status.at_risk_bytes, status.dirty_bytes)
        };
        assert_eq!(at_risk().await, (0, 0));
        let session = cache.begin(&at("/kept/ds"), SessionSpec::default()).await.unwrap();
        let target = PutTarget {
            path: at("/kept/ds"),
            session: Some(session.clone()),
            task: None,
            spec: SessionSpec {
                mode: WriteMode::Append,
                ..SessionSpec::default()
            },
            token: None,
        };
        let [schema, batch] = messages(&rows(0..1_000));
        let mut writer = cache.put(target, schema).await.unwrap();
        writer.append(batch).await.unwrap();
        settle().await;
        assert_eq!(writer.stable().borrow().batches, 1);
        let (acknowledged, dirty) = at_risk().await;
        assert!(acknowledged >= 8_000 && dirty == 0, "{acknowledged} {dirty}");
        writer.commit().await.unwrap();
        // Now it is committed to its session, and counts once.
        let (staged, dirty) = at_risk().await;
        assert!(staged == dirty && staged >= acknowledged, "{staged} {dirty}");
        cache.abort(&session).await.unwrap();
        assert_eq!(at_risk().await, (0, 0));

        let draft = std::sync::Arc::new(cache.draft(None, 0).await.unwrap());
        draft.write(0, &pattern(1, LARGE)).await.unwrap();
        assert_eq!(at_risk().await, (0, 0), "nothing of it was promised");
        for _ in 0..2 {
            draft.sync(&at("/apart"), PlaceDraft::default()).await.unwrap();
            assert_eq!(at_risk().await, (LARGE as u64, 0));
        }
        draft.finish(&at("/apart"), PlaceDraft::default()).await.unwrap();
        assert_eq!(at_risk().await, (LARGE as u64, LARGE as u64));
    });
}
