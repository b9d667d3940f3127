//! The rules, one by one; and histories that once went wrong.

use super::{
    audit::{audit, table},
    world::{There, World, file, p},
};
use crate::*;
use async_trait::async_trait;
use forebay_metastore::{Check, CommitError, Committed, Entry, Key, MetaError, MetaStore, Op, Tx, mem::MemStore};
use std::{
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

fn checks_share(plan: &Plan, ino: Ino) -> bool {
    plan.checks
        .iter()
        .any(|check| matches!(check, Check::SharedAt(key, _) if *key == keys::inode(ino)))
}

fn writes(plan: &Plan, ino: Ino) -> bool {
    plan.ops
        .iter()
        .any(|op| matches!(op, Op::Put(key, _) | Op::Delete(key) if *key == keys::inode(ino)))
}

#[tokio::test]
async fn a_create_shares_its_parent_and_never_writes_it() {
    let world = World::new().await;
    let dir = world.mkdir("/d").await.unwrap();
    let plan = world.ns.plan_create(&p("/d/f"), file(1)).await.unwrap().plan;
    assert!(checks_share(&plan, dir) && !writes(&plan, dir));
    assert_eq!(plan.keys(), 4);
}

#[tokio::test]
async fn rmdir_guards_the_dentries_with_the_inode_row() {
    let world = World::new().await;
    let dir = world.mkdir("/d").await.unwrap();
    let plan = world.ns.plan_rmdir(&p("/d")).await.unwrap().plan;
    let guarded = |check: &Check| matches!(check, Check::EmptyRange { prefix, guard, .. } if *prefix == keys::dentries(dir) && *guard == keys::inode(dir));
    assert!(plan.checks.iter().any(guarded));
}

#[tokio::test]
async fn a_directory_rename_shares_every_ancestor_of_its_target_in_key_order() {
    let world = World::new().await;
    world.mkdir("/moved").await.unwrap();
    let mut ancestors = vec![ROOT];
    for path in ["/a", "/a/b", "/a/b/c"] {
        ancestors.push(world.mkdir(path).await.unwrap());
    }
    let plan = world
        .ns
        .plan_rename(&p("/moved"), &p("/a/b/c/d"), RenameHow::default())
        .await
        .unwrap()
        .plan;
    assert!(
        ancestors
            .iter()
            .all(|ino| checks_share(&plan, *ino) && !writes(&plan, *ino))
    );
    let tx = plan.into_tx(None).unwrap();
    let key_of = |check: &Check| match check {
        Check::Absent(key) | Check::At(key, _) | Check::SharedAt(key, _) => key.clone(),
        Check::EmptyRange { prefix, .. } => prefix.clone(),
    };
    assert!(tx.checks.is_sorted_by_key(key_of));
}

#[tokio::test]
async fn a_renamed_base_directory_shows_its_content_at_the_new_place_only() {
    let world = World::with_base(&["/a/d/x", "/a/d/sub/y", "/a/z"]).await;
    let renamed = world.rename("/a/d", "/e").await.unwrap();
    assert_eq!(renamed.whiteout, Some(p("/a/d")));
    assert_eq!(world.read("/e/x").await, Some(1));
    assert_eq!(world.read("/e/sub/y").await, Some(2));
    assert_eq!(world.names("/a", 1).await, ["z"]);
    assert_eq!(world.ns.resolve(&p("/a/d/x")).await.unwrap(), None);
}

#[tokio::test]
async fn a_directory_created_where_one_was_moved_away_is_opaque_until_it_is_rebased() {
    let world = World::with_base(&["/d/x"]).await;
    world.rename("/d", "/e").await.unwrap();
    let ino = world.mkdir("/d").await.unwrap();
    assert!(world.names("/d", 10).await.is_empty());
    world.put("/d/new", 7).await.unwrap();
    let file = world.ns.resolve(&p("/d/new")).await.unwrap().unwrap().ino().unwrap();
    assert_eq!(
        world.ns.plan_forget(file, &p("/d/new")).await.unwrap(),
        None,
        "an opaque directory shows no base"
    );

    // The persister moves what was there, then the new directory may show its own place.
    world.base.remove(&p("/d"));
    world.base.put(&p("/e/x"), There::File(1));
    world.base.put(&p("/d/new"), There::File(7));
    assert_eq!(world.ns.rebase(ROOT).await.unwrap(), 2);
    let plan = world.ns.plan_forget(file, &p("/d/new")).await.unwrap().unwrap();
    world.ns.commit(plan, None).await.unwrap();
    assert_eq!(world.read("/d/new").await, Some(7));
    assert_eq!(world.read("/e/x").await, Some(1));
    assert!(world.ns.path_of(ino).await.unwrap().is_some());
}

/// Found by the engine's simulation: a file had been persisted from an opaque directory, was removed, and showed once the directory
/// showed the base.
#[tokio::test]
async fn what_was_removed_from_an_opaque_directory_does_not_show_when_it_is_rebased() {
    let world = World::with_base(&["/d/x"]).await;
    world.rename("/d", "/e").await.unwrap();
    world.mkdir("/d").await.unwrap();
    world.put("/d/new", 7).await.unwrap();
    world.base.remove(&p("/d"));
    world.base.put(&p("/d/new"), There::File(7));
    assert_eq!(world.unlink("/d/new").await.unwrap().whiteout, Some(p("/d/new")));
    world.ns.rebase(ROOT).await.unwrap();
    assert_eq!(world.read("/d/new").await, None);
}

#[tokio::test]
async fn a_whiteout_in_an_opaque_directory_is_forgotten_once_nothing_is_there() {
    let world = World::with_base(&["/d/x"]).await;
    world.rename("/d", "/e").await.unwrap();
    world.mkdir("/d").await.unwrap();
    world.put("/d/new", 7).await.unwrap();
    world.unlink("/d/new").await.unwrap();
    let plan = world.ns.plan_forget_whiteout(&p("/d/new")).await.unwrap().unwrap();
    world.ns.commit(plan, None).await.unwrap();
    world.base.remove(&p("/d"));
    world.ns.rebase(ROOT).await.unwrap();
    world.base.put(&p("/d/new"), There::File(9));
    assert_eq!(
        world.read("/d/new").await,
        Some(9),
        "what comes later from outside shows"
    );
}

/// Found by the engine's simulation: a slow answer for a renamed directory came when another one had its old place.
#[tokio::test]
async fn what_comes_to_the_old_place_of_a_renamed_directory_does_not_show_in_it() {
    for list in [true, false] {
        let world = World::with_base(&["/d/x"]).await;
        world.rename("/d", "/e").await.unwrap();
        let (asked, go) = world.base.hold();
        let ns = world.ns.clone();
        let looking = tokio::spawn(async move {
            match list {
                true => ns
                    .list(&p("/e"), None, 10)
                    .await
                    .unwrap()
                    .into_iter()
                    .map(|(name, _)| name)
                    .collect(),
                false => Vec::from_iter(ns.resolve(&p("/e/new")).await.unwrap().map(|_| b"new".to_vec())),
            }
        });
        asked.notified().await;
        world.base.remove(&p("/d"));
        world.base.put(&p("/e/x"), There::File(1));
        world.ns.rebase(ROOT).await.unwrap();
        world.base.put(&p("/d/new"), There::File(7));
        go.notify_one();
        let expected: &[&[u8]] = if list { &[b"x"] } else { &[] };
        assert_eq!(looking.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_directory_renamed_inside_a_renamed_one_and_back_keeps_its_content() {
    let world = World::with_base(&["/a/sub/x", "/a/y"]).await;
    world.rename("/a", "/b").await.unwrap();
    world.rename("/b/sub", "/c").await.unwrap();
    assert_eq!((world.read("/c/x").await, world.read("/b/y").await), (Some(1), Some(2)));
    assert_eq!(world.names("/b", 10).await, ["y"]);
    world.rename("/b", "/a").await.unwrap();
    world.rename("/c", "/a/sub").await.unwrap();
    assert_eq!(
        (world.read("/a/sub/x").await, world.read("/a/y").await),
        (Some(1), Some(2))
    );
    assert_eq!(world.names("/", 10).await, ["a"]);
    audit(&world.ns).await;
}

#[tokio::test]
async fn a_row_stays_while_the_base_keeps_back_what_it_has_there() {
    let world = World::new().await;
    let ino = world.put("/d/x", 7).await.unwrap();
    world.base.put(&p("/d/x"), There::File(7));
    world.base.hide(Some(p("/d/x")));
    assert_eq!(world.ns.plan_forget(ino, &p("/d/x")).await.unwrap(), None);
    world.base.hide(None);
    assert!(world.ns.plan_forget(ino, &p("/d/x")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_whiteout_hides_a_base_file_until_it_is_forgotten() {
    let world = World::with_base(&["/d/x", "/d/y"]).await;
    let unlinked = world.unlink("/d/x").await.unwrap();
    assert_eq!(unlinked.whiteout, Some(p("/d/x")));
    assert_eq!(world.names("/d", 10).await, ["y"]);
    world.base.remove(&p("/d/x"));
    let plan = world.ns.plan_forget_whiteout(&p("/d/x")).await.unwrap().unwrap();
    world.ns.commit(plan, None).await.unwrap();
    assert_eq!(world.ns.plan_forget_whiteout(&p("/d/x")).await.unwrap(), None);
    world.base.put(&p("/d/x"), There::File(9));
    assert_eq!(world.read("/d/x").await, Some(9), "what comes later from outside shows");
}

#[tokio::test]
async fn a_deleted_file_does_not_return_when_its_upload_arrives_late() {
    let world = World::new().await;
    world.put("/f", 1).await.unwrap();
    world.unlink("/f").await.unwrap();
    world.base.put(&p("/f"), There::File(1));
    assert_eq!(world.ns.resolve(&p("/f")).await.unwrap(), None);
}

#[tokio::test]
async fn a_base_directory_moved_away_does_not_show_twice_when_a_file_is_put_there_meanwhile() {
    let world = World::with_base(&["/d/x"]).await;
    let put = world
        .ns
        .plan_create(
            &p("/d/new"),
            Create {
                parents: true,
                ..file(5)
            },
        )
        .await
        .unwrap();
    world.rename("/d", "/e").await.unwrap();
    assert!(matches!(world.ns.commit(put.plan, None).await, Err(NsError::Conflict)));
    world.put("/d/new", 5).await.unwrap();
    assert_eq!(world.names("/d", 10).await, ["new"]);
    assert_eq!(world.names("/e", 10).await, ["x"]);
}

#[tokio::test]
async fn rename_rules_are_those_of_the_interface() {
    let world = World::new().await;
    for path in ["/dir/f", "/other/g"] {
        world.put(path, 1).await.unwrap();
    }
    world.mkdir("/empty").await.unwrap();
    let plan = async |from: &str, to: &str, replace: bool| {
        world
            .ns
            .plan_rename(
                &p(from),
                &p(to),
                RenameHow {
                    replace,
                    ..RenameHow::default()
                },
            )
            .await
    };
    assert!(matches!(plan("/dir", "/dir/sub", true).await, Err(NsError::Invalid(_))));
    assert!(matches!(plan("/", "/x", true).await, Err(NsError::Invalid(_))));
    assert!(matches!(plan("/nothing", "/x", true).await, Err(NsError::NotFound(_))));
    assert!(matches!(
        plan("/dir/f", "/missing/f", true).await,
        Err(NsError::NotFound(_))
    ));
    assert!(matches!(
        plan("/dir/f", "/other/g", false).await,
        Err(NsError::Exists(_))
    ));
    assert!(matches!(plan("/dir", "/other", true).await, Err(NsError::NotEmpty(_))));
    assert!(matches!(
        plan("/dir", "/other/g", true).await,
        Err(NsError::NotADirectory(_))
    ));
    assert!(matches!(
        plan("/dir/f", "/empty", true).await,
        Err(NsError::IsADirectory(_))
    ));
    assert!(plan("/dir", "/empty", true).await.is_ok());
    assert!(plan("/dir/f", "/other/g", true).await.is_ok());
    assert!(plan("/dir/f", "/dir/f", false).await.unwrap().plan.is_empty());
}

/// What was removed is deleted in the base, and its whiteout goes, while the base is asked whether the directory is empty.
#[tokio::test]
async fn an_emptied_directory_can_be_removed_while_its_files_are_deleted_in_the_base() {
    let world = World::with_base(&["/d/x", "/d/y"]).await;
    world.unlink("/d/x").await.unwrap();
    world.unlink("/d/y").await.unwrap();
    let (asked, go) = world.base.hold_answer();
    let ns = world.ns.clone();
    let removing = tokio::spawn(async move { ns.plan_rmdir(&p("/d")).await.map(drop) });
    asked.notified().await;
    for path in ["/d/x", "/d/y"] {
        world.base.remove(&p(path));
        let plan = world.ns.plan_forget_whiteout(&p(path)).await.unwrap().unwrap();
        world.ns.commit(plan, None).await.unwrap();
    }
    go.notify_one();
    removing.await.unwrap().unwrap();
    world.base.put(&p("/d/z"), There::File(1));
    assert!(matches!(world.ns.plan_rmdir(&p("/d")).await, Err(NsError::NotEmpty(_))));
}

#[tokio::test]
async fn an_exchange_of_base_directories_changes_their_content() {
    let world = World::with_base(&["/a/x", "/b/y"]).await;
    let how = RenameHow {
        exchange: true,
        ..RenameHow::default()
    };
    let renamed = world.ns.plan_rename(&p("/a"), &p("/b"), how).await.unwrap();
    world.ns.commit(renamed.plan, None).await.unwrap();
    assert_eq!((world.read("/b/x").await, world.read("/a/y").await), (Some(1), Some(2)));
}

#[tokio::test]
async fn a_thousand_parts_and_a_new_directory_are_one_transaction() {
    let world = World::new().await;
    let mut planner = world.ns.planner();
    let part = |n: u32| {
        (
            format!("part-{n:05}.arrow").into_bytes(),
            Create {
                unique: true,
                parents: true,
                ..file(n)
            },
        )
    };
    let planned = planner
        .create_all(&p("/features/day=1"), (0..1000).map(part).collect())
        .await
        .unwrap();
    assert_eq!(planned.len(), 1000);
    planner
        .create(
            &p("/features/day=1/_SUCCESS"),
            Create {
                unique: true,
                ..file(0)
            },
        )
        .await
        .unwrap();
    let plan = planner.finish().unwrap();
    assert!(plan.keys() < 2020, "{}", plan.keys());
    world.ns.commit(plan, None).await.unwrap();
    assert_eq!(world.names("/features/day=1", 300).await.len(), 1001);

    let mut planner = world.ns.planner();
    for n in 0..300 {
        planner
            .unlink(&p(&format!("/features/day=1/part-{n:05}.arrow")))
            .await
            .unwrap();
    }
    planner
        .create_all(&p("/features/day=1"), (1000..1100).map(part).collect())
        .await
        .unwrap();
    world.ns.commit(planner.finish().unwrap(), None).await.unwrap();
    assert_eq!(world.names("/features/day=1", 300).await.len(), 801);
}

#[tokio::test]
async fn a_plan_beyond_the_limits_is_refused_before_it_is_sent() {
    let world = World::new().await;
    let mut planner = world.ns.planner();
    let files = (0..6000).map(|n: u32| (n.to_string().into_bytes(), file(n))).collect();
    planner.create_all(&p("/"), files).await.unwrap();
    let plan = planner.finish().unwrap();
    assert!(matches!(world.ns.commit(plan, None).await, Err(NsError::TooMany(_))));
}

#[tokio::test]
async fn a_nameless_part_gets_its_name_at_publish() {
    let world = World::new().await;
    let staged = world.ns.plan_nameless(file(4)).await.unwrap();
    world.ns.commit(staged.plan, None).await.unwrap();
    let updated = world
        .ns
        .plan_update(staged.ino, |inode| inode.generation = 2)
        .await
        .unwrap();
    world.ns.commit(updated.plan, None).await.unwrap();
    assert!(world.names("/", 10).await.is_empty());
    let create = Create {
        ino: Some(staged.ino),
        ..file(5)
    };
    let named = world.ns.plan_create(&p("/part"), create.clone()).await.unwrap();
    assert_eq!(named.ino, staged.ino);
    world.ns.commit(named.plan, None).await.unwrap();
    assert_eq!(world.read("/part").await, Some(5));
    assert!(matches!(
        world.ns.plan_create(&p("/twice"), create).await,
        Err(NsError::Invalid(_))
    ));
}

#[tokio::test]
async fn puts_go_on_while_the_base_is_away_and_reads_of_it_say_so() {
    let world = World::with_base(&["/s3/x"]).await;
    world.base.set_away(true);
    world.put("/s3/deep/new", 5).await.unwrap();
    assert_eq!(world.read("/s3/deep/new").await, Some(5));
    assert!(matches!(world.ns.resolve(&p("/s3/x")).await, Err(NsError::Base(_))));
    assert!(matches!(
        world.ns.list(&p("/s3"), None, 10).await,
        Err(NsError::Base(_))
    ));
    world.base.set_away(false);
    assert_eq!(world.names("/s3", 1).await, ["deep", "x"]);
}

#[tokio::test]
async fn a_directory_cut_off_with_everything_in_it_is_collected_in_steps() {
    let world = World::with_base(&["/d/base"]).await;
    for n in 0..20 {
        world.put(&format!("/d/s{}/f{n}", n % 3), n).await.unwrap();
    }
    world.unlink("/d/base").await.unwrap();
    let unlinked = world.ns.plan_detach(&p("/d")).await.unwrap();
    assert!(unlinked.plan.keys() < 10);
    world.ns.commit(unlinked.plan, None).await.unwrap();
    assert!(world.names("/", 10).await.is_empty());
    let (mut files, mut dirs, mut bases) = (0, 0, Vec::new());
    while let Some(step) = world.ns.plan_collect(3).await.unwrap() {
        files += step.freed.len();
        dirs += step.dirs.len();
        bases.extend(step.bases);
        world.ns.commit(step.plan, None).await.unwrap();
    }
    assert_eq!((files, dirs), (20, 4));
    assert!(bases.contains(&p("/d")) && bases.len() == 4);
    assert_eq!(table(&world.ns, keys::INODE).await.len(), 1);
    assert_eq!(table(&world.ns, keys::WHITEOUT).await.len(), 1, "the one that hides /d");
}

#[tokio::test]
async fn merged_plans_share_checks_once_and_never_write_a_key_twice() {
    let world = World::new().await;
    let mut a = world.ns.plan_create(&p("/a"), file(1)).await.unwrap().plan;
    let b = world.ns.plan_create(&p("/b"), file(2)).await.unwrap().plan;
    let keys = a.keys() + b.keys();
    a.merge(b.clone()).unwrap();
    assert_eq!(a.keys(), keys - 1, "the root is shared once");
    assert!(matches!(a.clone().merge(b), Err(NsError::Invalid(_))));
    world.ns.commit(a, None).await.unwrap();
    assert_eq!(world.names("/", 10).await, ["a", "b"]);
}

#[tokio::test]
async fn a_plan_can_be_amended_by_the_engine() {
    let world = World::with_base(&["/a"]).await;
    let mut renamed = world
        .ns
        .plan_rename(&p("/a"), &p("/b"), RenameHow::default())
        .await
        .unwrap();
    let (ino, inode) = renamed.moved.clone();
    assert_eq!(inode.content.as_ref(), 1u32.to_be_bytes());
    renamed
        .plan
        .amend(ino, |inode| inode.content = 8u32.to_be_bytes().to_vec().into())
        .unwrap();
    assert!(renamed.plan.amend(Ino(999), |_| {}).is_err());
    world.ns.commit(renamed.plan, None).await.unwrap();
    assert_eq!(world.read("/b").await, Some(8));
}

#[tokio::test]
async fn a_row_of_a_newer_format_is_refused_by_name() {
    let world = World::new().await;
    let ino = world.put("/f", 1).await.unwrap();
    let plan = Plan {
        checks: vec![],
        ops: vec![Op::Put(keys::inode(ino), Bytes::from_static(&[9, 1, 2]))],
    };
    world.ns.commit(plan, None).await.unwrap();
    let error = world.ns.resolve(&p("/f")).await.unwrap_err();
    assert!(error.to_string().contains("format 9"), "{error}");
}

#[tokio::test]
async fn an_inode_that_something_else_keeps_outlives_its_name() {
    let world = World::new().await;
    let ino = world.put("/d/part", 1).await.unwrap();
    let kept = world.ns.plan_update(ino, |inode| inode.nlink += 1).await.unwrap();
    world.ns.commit(kept.plan, None).await.unwrap();
    world.rename("/d/part", "/d/moved").await.unwrap();
    let detached = world.ns.plan_detach(&p("/d")).await.unwrap();
    world.ns.commit(detached.plan, None).await.unwrap();
    while let Some(step) = world.ns.plan_collect(100).await.unwrap() {
        assert!(step.freed.is_empty(), "its content is still wanted");
        world.ns.commit(step.plan, None).await.unwrap();
    }
    assert_eq!(world.ns.inode(ino).await.unwrap().unwrap().0.nlink, 1);
    assert_eq!(world.ns.plan_drop(ino).await.unwrap(), None);

    let again = world
        .ns
        .plan_create(
            &p("/again"),
            Create {
                ino: Some(ino),
                ..file(2)
            },
        )
        .await
        .unwrap();
    assert_eq!(again.inode.nlink, 2);
    world.ns.commit(again.plan, None).await.unwrap();
    let numbers: Vec<Ino> = world
        .ns
        .inodes(None, 1)
        .await
        .unwrap()
        .into_iter()
        .map(|(ino, _)| ino)
        .collect();
    assert_eq!(numbers, [ROOT]);
    assert_eq!(world.ns.inodes(Some(ROOT), 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_deleted_and_created_again_shows_once_it_is_persisted() {
    let world = World::with_base(&["/d/x"]).await;
    world.unlink("/d/x").await.unwrap();
    let ino = world.put("/d/x", 2).await.unwrap();
    world.base.put(&p("/d/x"), There::File(2));
    let plan = world.ns.plan_forget(ino, &p("/d/x")).await.unwrap().unwrap();
    world.ns.commit(plan, None).await.unwrap();
    assert_eq!(world.read("/d/x").await, Some(2));
    assert_eq!(table(&world.ns, keys::WHITEOUT).await.len(), 0);
}

#[tokio::test]
async fn a_directory_that_gets_its_row_by_a_plan_is_not_removed_by_the_same_plan() {
    let world = World::new().await;
    world.base.put(&p("/b/a"), There::Dir);
    world.base.put(&p("/a"), There::Dir);
    let mut planner = world.ns.planner();
    planner
        .rename(&p("/b/a"), &p("/a/a"), RenameHow::default())
        .await
        .unwrap();
    assert!(matches!(planner.rmdir(&p("/a/a")).await, Err(NsError::Invalid(_))));
}

/// A store that renames behind the reader's back, between two of its reads.
#[derive(Debug)]
struct Meddler {
    store: MetaStoreRef,
    gets_left: AtomicI64,
    other: OnceLock<Namespace>,
}

#[async_trait]
impl MetaStore for Meddler {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, MetaError> {
        let read = self.store.get(keys).await;
        if self.gets_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let ns = self.other.get().unwrap();
            for (from, to) in [("/a/p", "/b/p"), ("/a", "/c")] {
                let renamed = ns.plan_rename(&p(from), &p(to), RenameHow::default()).await.unwrap();
                ns.commit(renamed.plan, None).await.unwrap();
            }
        }
        read
    }

    async fn scan(&self, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Entry)>, MetaError> {
        self.store.scan(range, limit).await
    }

    async fn commit(&self, tx: Tx) -> Result<Committed, CommitError> {
        self.store.commit(tx).await
    }

    async fn allocate(&self, counter: &str, count: u64) -> Result<Range<u64>, MetaError> {
        self.store.allocate(counter, count).await
    }

    async fn counters(&self) -> Result<Vec<(String, u64)>, MetaError> {
        self.store.counters().await
    }
}

#[tokio::test]
async fn a_path_is_never_put_together_from_two_instants() {
    for gets in 1..8 {
        let store: MetaStoreRef = MemStore::new();
        let plain = World::over(Arc::clone(&store)).await;
        plain.mkdir("/b").await.unwrap();
        let ino = plain.put("/a/p/f", 1).await.unwrap();
        let meddler = Meddler {
            store,
            gets_left: AtomicI64::new(i64::MAX),
            other: OnceLock::from(plain.ns.clone()),
        };
        let meddler = Arc::new(meddler);
        let world = World::over(Arc::clone(&meddler) as MetaStoreRef).await;
        meddler.gets_left.store(gets, Ordering::SeqCst);
        let path = world.ns.path_of(ino).await.unwrap().unwrap();
        assert!(path == p("/a/p/f") || path == p("/b/p/f"), "{path} never was");
    }
}
