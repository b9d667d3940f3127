//! Part files that somebody copies, moves, deletes or writes over by their names: what a dataset shows of that, and what its versions keep.

use crate::support::{
    World, at,
    batches::{messages, rows},
    get, kind, mode, put as put_file, tree, write,
};
use arrow_array::{Int64Array, RecordBatch};
use forebay_understore::StoreError;
use forebay_writeback::{
    Cache, Error, ErrorKind, SetAttributes,
    dataset::{At, DatasetPlan, Decoder, FollowSpec, PartItem, Publish, PutTarget, SessionId, SessionSpec},
    file::{PlaceDraft, TriedPlace, WriteMode},
    names::Rename,
    policy::Change,
};
use futures::TryStreamExt;
use std::{sync::Arc, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

// ---- verbs in one line each

async fn put_into(cache: &Cache, path: &str, session: Option<&SessionId>, mode: WriteMode, rows: &RecordBatch) {
    let target = PutTarget {
        path: at(path),
        session: session.cloned(),
        task: None,
        spec: SessionSpec {
            mode,
            ..SessionSpec::default()
        },
        token: None,
    };
    let [schema, batch] = messages(rows);
    let mut writer = cache.put(target, schema).await.unwrap();
    writer.append(batch).await.unwrap();
    writer.commit().await.unwrap();
}

async fn append(cache: &Cache, path: &str, number: i64) {
    put_into(cache, path, None, WriteMode::Append, &rows([number])).await;
}

async fn overwrite(cache: &Cache, path: &str, number: i64) {
    put_into(cache, path, None, WriteMode::Overwrite, &rows([number])).await;
}

async fn try_read(cache: &Cache, plan: &DatasetPlan) -> Result<Vec<i64>, Error> {
    let mut decoder = Decoder::new(&plan.schema_message).unwrap();
    let mut numbers = Vec::new();
    for part in &plan.parts {
        let items: Vec<PartItem> = cache.read_part(part, 0).await?.try_collect().await?;
        numbers.extend(numbers_in(&mut decoder, items));
    }
    Ok(numbers)
}

fn numbers_in(decoder: &mut Decoder, items: Vec<PartItem>) -> Vec<i64> {
    let batches = items.into_iter().filter_map(|item| decoder.push(item).unwrap());
    let numbers = |batch: RecordBatch| {
        let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        column.values().to_vec()
    };
    batches.flat_map(|(batch, _)| numbers(batch)).collect()
}

async fn numbers_at(cache: &Cache, path: &str, version: At) -> Result<Vec<i64>, Error> {
    try_read(cache, &cache.dataset(&at(path), version).await.unwrap()).await
}

/// The numbers of a dataset, in their order.
async fn numbers(cache: &Cache, path: &str) -> Vec<i64> {
    let mut numbers = numbers_at(cache, path, At::Head).await.unwrap();
    numbers.sort_unstable();
    numbers
}

async fn followed(cache: &Cache, path: &str) -> Vec<i64> {
    let stream = cache.follow(&at(path), FollowSpec::default()).await.unwrap();
    let mut decoder = Decoder::new(&stream.schema_message).unwrap();
    let mut numbers = numbers_in(&mut decoder, stream.items.try_collect().await.unwrap());
    numbers.sort_unstable();
    numbers
}

/// Names of the files in a directory.
async fn files(cache: &Cache, dir: &str) -> Vec<String> {
    let stats = tree(cache, dir).await.unwrap();
    let name = |path: String| path.rsplit('/').next().unwrap_or_default().to_owned();
    stats.into_iter().map(|stat| name(stat.path.to_string())).collect()
}

/// Copies the files of a directory under their names.
async fn copy(cache: &Cache, from: &str, to: &str) {
    for name in files(cache, from).await {
        let content = get(cache, &format!("{from}/{name}")).await.unwrap();
        put_file(cache, &format!("{to}/{name}"), &content).await.unwrap();
    }
}

async fn rename(cache: &Cache, from: &str, to: &str) {
    let how = Rename {
        parents: true,
        ..Rename::default()
    };
    cache.rename(&at(from), &at(to), how).await.unwrap();
}

async fn persisted(cache: &Cache) {
    cache.wait_persisted(&at("/kept"), HOUR).await.unwrap();
}

/// Keys of part files that the store has in a directory.
fn stored_parts(world: &World, dir: &str) -> Vec<String> {
    let contents = world.store.contents();
    let parts = contents.keys().filter(|key| key.starts_with(&format!("{dir}/part-")));
    parts.map(ToString::to_string).collect()
}

fn once<T>(seed: u64, body: impl AsyncFnOnce(&World, &Cache) -> T) -> T {
    World::new(seed).live(async |world| {
        let cache = world.open().await.unwrap();
        body(world, &cache).await
    })
}

// ---- copies

#[test]
fn what_is_appended_to_a_copy_of_a_dataset_comes_behind_what_was_copied() {
    once(701, async |_, cache| {
        for n in 0..3 {
            append(cache, "/src", n).await;
        }
        copy(cache, "/src", "/copy").await;
        assert_eq!(numbers(cache, "/copy").await, [0, 1, 2]);
        append(cache, "/copy", 9).await;
        assert_eq!(numbers(cache, "/copy").await, [0, 1, 2, 9]);
        assert_eq!(followed(cache, "/copy").await, [0, 1, 2, 9]);
        append(cache, "/copy", 10).await;
        rename(cache, "/copy", "/renamed").await;
        append(cache, "/renamed", 11).await;
        assert_eq!(numbers(cache, "/renamed").await, [0, 1, 2, 9, 10, 11]);
        assert_eq!(numbers(cache, "/src").await, [0, 1, 2]);

        // The same by a session, and where the copied dataset is gone.
        copy(cache, "/src", "/other").await;
        cache.delete(&at("/src"), true).await.unwrap();
        let session = cache.begin(&at("/other"), SessionSpec::default()).await.unwrap();
        put_into(cache, "/other", Some(&session), WriteMode::Append, &rows([9])).await;
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(numbers(cache, "/other").await, [0, 1, 2, 9]);
    });
}

#[test]
fn parts_that_were_moved_into_another_directory_come_before_what_is_published_there() {
    once(702, async |_, cache| {
        for n in 0..3 {
            append(cache, "/src", n).await;
        }
        for name in files(cache, "/src").await {
            rename(cache, &format!("/src/{name}"), &format!("/arch/{name}")).await;
        }
        append(cache, "/arch", 9).await;
        assert_eq!(numbers(cache, "/arch").await, [0, 1, 2, 9]);
        assert_eq!(numbers(cache, "/src").await, [0, 1, 2], "its parts are where they are");
    });
}

#[test]
fn an_overwrite_takes_copied_and_moved_parts_away() {
    let mut world = World::new(703);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for n in 0..2 {
            append(&cache, "/kept/src", n).await;
        }
        persisted(&cache).await;
        for dir in ["/kept/copy", "/kept/unseen"] {
            copy(&cache, "/kept/src", dir).await;
        }
        persisted(&cache).await;
        overwrite(&cache, "/kept/copy", 9).await;
        assert_eq!(files(&cache, "/kept/copy").await.len(), 1);
        world.store.set_away(Some(StoreError::Unavailable("away".into())));
        overwrite(&cache, "/kept/unseen", 9).await;
        world.store.set_away(None);
        persisted(&cache).await;
        for dir in ["copy", "unseen"] {
            assert_eq!(stored_parts(world, dir).len(), 1, "{dir}");
            assert_eq!(numbers(&cache, &format!("/kept/{dir}")).await, [9]);
        }
        assert_eq!(stored_parts(world, "src").len(), 2);
    });
    // Who has only the store reads the same.
    let stored = world.store.contents();
    World::new(704).live(async |world| {
        for (key, content) in stored {
            world.store.write_outside(&key, content);
        }
        let cache = world.open().await.unwrap();
        assert_eq!(numbers(&cache, "/kept/copy").await, [9]);
        assert_eq!(numbers(&cache, "/kept/src").await, [0, 1]);
    });
}

#[test]
fn copies_that_others_make_in_the_store_go_when_they_are_overwritten_unseen() {
    once(705, async |world, cache| {
        for n in 0..2 {
            append(cache, "/kept/src", n).await;
        }
        persisted(cache).await;
        for key in stored_parts(world, "src") {
            let name = key.rsplit('/').next().unwrap();
            let content = get(cache, &format!("/kept/src/{name}")).await.unwrap();
            world.store.write_outside(&format!("out/{name}"), content);
        }
        world.store.set_away(Some(StoreError::Unavailable("away".into())));
        overwrite(cache, "/kept/out", 9).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.store.set_away(None);
        persisted(cache).await;
        assert_eq!(stored_parts(world, "out").len(), 1);
        assert_eq!(numbers(cache, "/kept/out").await, [9]);
        assert_eq!(numbers(cache, "/kept/src").await, [0, 1]);
    });
}

// ---- files of parts that go

#[test]
fn a_version_keeps_a_part_whose_file_was_deleted() {
    let mut world = World::new(711);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        // One that no store has, one that was persisted.
        for dir in ["/d", "/kept/d"] {
            for n in 0..2 {
                append(&cache, dir, n).await;
            }
            persisted(&cache).await;
            let name = files(&cache, dir).await.remove(0);
            cache.delete(&at(&format!("{dir}/{name}")), false).await.unwrap();
            assert_eq!(numbers(&cache, dir).await, [0, 1], "{dir}");
            append(&cache, dir, 2).await;
            assert_eq!(numbers(&cache, dir).await, [0, 1, 2], "{dir}");
            assert_eq!(followed(&cache, dir).await, [0, 1, 2], "{dir}");
            // Somebody's file in the place of the part is none of it.
            put_file(&cache, &format!("{dir}/{name}"), b"notes").await.unwrap();
            assert_eq!(numbers(&cache, dir).await, [0, 1, 2], "{dir}");
            overwrite(&cache, dir, 9).await;
            assert_eq!(files(&cache, dir).await.len(), 1, "{dir}");
            let mut before = numbers_at(&cache, dir, At::Version(3)).await.unwrap();
            before.sort_unstable();
            assert_eq!(before, [0, 1, 2], "{dir}");
        }
        persisted(&cache).await;
        assert_eq!(stored_parts(world, "d").len(), 1);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for dir in ["/d", "/kept/d"] {
            assert_eq!(numbers_at(&cache, dir, At::Version(3)).await.unwrap().len(), 3, "{dir}");
        }
        // What versions kept goes with them.
        for dir in ["/d", "/kept/d"] {
            for n in 0..3 {
                overwrite(&cache, dir, n).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        persisted(&cache).await;
        let status = cache.status().await.unwrap();
        // Three versions of one, of the other two: the store has the head.
        assert_eq!((status.dirty_files, world.store.contents().is_empty()), (5, false));
    });
}

#[test]
fn a_dataset_that_is_removed_file_by_file_leaves_nothing() {
    once(712, async |world, cache| {
        for dir in ["/d", "/kept/d"] {
            for n in 0..3 {
                append(cache, dir, n).await;
            }
            persisted(cache).await;
            for name in files(cache, dir).await {
                cache.delete(&at(&format!("{dir}/{name}")), false).await.unwrap();
            }
            assert_eq!(numbers(cache, dir).await, [0, 1, 2], "{dir}");
            cache.delete(&at(dir), false).await.unwrap();
            assert_eq!(
                kind(cache.dataset(&at(dir), At::Head).await),
                ErrorKind::NotFound,
                "{dir}"
            );
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        persisted(cache).await;
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes), (0, 0));
        assert_eq!(stored_parts(world, "d"), Vec::<String>::new());
        append(cache, "/d", 7).await;
        assert_eq!(numbers(cache, "/d").await, [7]);
    });
}

#[test]
fn a_part_that_only_the_store_had_is_named_when_its_file_was_deleted() {
    once(713, async |_, cache| {
        for n in 0..2 {
            append(cache, "/kept/d", n).await;
        }
        persisted(cache).await;
        cache.free(&at("/kept/d")).await.unwrap();
        let lost = cache.dataset(&at("/kept/d"), At::Head).await.unwrap().parts[0].clone();
        let name = String::from_utf8(lost.path).unwrap();
        cache.delete(&at(&name), false).await.unwrap();
        persisted(cache).await;
        let error = numbers_at(cache, "/kept/d", At::Head).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Precondition && error.to_string().contains(&name),
            "{error}"
        );
        overwrite(cache, "/kept/d", 9).await;
        assert_eq!(numbers(cache, "/kept/d").await, [9]);
    });
}

#[test]
fn a_part_that_only_the_store_has_is_the_same_with_other_attributes() {
    once(714, async |world, cache| {
        for n in 0..2 {
            append(cache, "/kept/d", n).await;
        }
        persisted(cache).await;
        cache.free(&at("/kept/d")).await.unwrap();
        for name in files(cache, "/kept/d").await {
            let mode = SetAttributes {
                mode: Some(0o600),
                ..SetAttributes::default()
            };
            cache
                .set_attributes(&at(&format!("/kept/d/{name}")), mode)
                .await
                .unwrap();
        }
        assert_eq!(numbers(cache, "/kept/d").await, [0, 1]);
        overwrite(cache, "/kept/d", 9).await;
        persisted(cache).await;
        assert_eq!(stored_parts(world, "d").len(), 1);
        assert_eq!(numbers_at(cache, "/kept/d", At::Version(2)).await.unwrap().len(), 2);
    });
}

#[test]
fn a_part_that_another_file_is_renamed_over_stays_what_was_published() {
    once(715, async |_, cache| {
        append(cache, "/d", 0).await;
        let name = files(cache, "/d").await.remove(0);
        put_file(cache, "/notes", b"notes").await.unwrap();
        let how = Rename {
            replace: true,
            ..Rename::default()
        };
        cache
            .rename(&at("/notes"), &at(&format!("/d/{name}")), how)
            .await
            .unwrap();
        assert_eq!(numbers(cache, "/d").await, [0]);
        assert_eq!(get(cache, &format!("/d/{name}")).await.unwrap(), b"notes");
        // Without the versions before, what they kept goes.
        let change = Change::parse("versions_kept", Some(&1.into())).unwrap();
        cache.policy_set(&at("/d"), vec![change]).await.unwrap();
        overwrite(cache, "/d", 9).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(files(cache, "/d").await.len(), 1);
        assert_eq!(cache.status().await.unwrap().dirty_files, 1);
    });
}

/// Ways to change the content of a file by its name.
#[derive(Clone, Copy, Debug)]
enum Touch {
    Overwrite,
    Append,
    Cut,
    InPlace,
    Concat,
}

impl Touch {
    const ALL: [Self; 5] = [Self::Overwrite, Self::Append, Self::Cut, Self::InPlace, Self::Concat];

    async fn apply(self, cache: &Cache, path: &str) {
        match self {
            Self::Overwrite => drop(put_file(cache, path, b"notes").await.unwrap()),
            Self::Append => drop(write(cache, path, b"more", mode(WriteMode::Append)).await.unwrap()),
            Self::Cut => cache.truncate(&at(path), 10).await.unwrap(),
            Self::InPlace => {
                let reader = cache.read_file(&at(path)).await.unwrap();
                let draft = Arc::new(cache.draft(Some(&reader), u64::MAX).await.unwrap());
                draft.write(8, b"scribbled").await.unwrap();
                let mut room = Some(draft.room().await.unwrap());
                let placed = draft.place(&at(path), PlaceDraft::default(), &mut room).await.unwrap();
                assert_eq!(placed, TriedPlace::Placed);
            }
            Self::Concat => {
                put_file(cache, "/other", b"other").await.unwrap();
                cache.concat(&at(path), &[at("/other")]).await.unwrap();
            }
        }
    }
}

#[test]
fn a_part_that_is_written_over_appended_to_or_cut_stays_what_was_published() {
    let mut world = World::new(716);
    let dir = |root: &str, touch: Touch| format!("{root}/{touch:?}");
    let each = || {
        ["/d", "/kept"]
            .into_iter()
            .flat_map(|root| Touch::ALL.map(|touch| (root, touch)))
    };
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for (root, touch) in each() {
            let dir = dir(root, touch);
            for n in 0..2 {
                append(&cache, &dir, n).await;
            }
            // In one root before it was persisted, in the other afterwards.
            persisted(&cache).await;
            let name = format!("{dir}/{}", files(&cache, &dir).await.remove(0));
            let before = get(&cache, &name).await.unwrap();
            touch.apply(&cache, &name).await;
            let touched = get(&cache, &name).await.unwrap();
            assert_ne!(touched, before, "{dir}");
            assert_eq!(numbers(&cache, &dir).await, [0, 1], "{dir}");
            append(&cache, &dir, 2).await;
            assert_eq!(numbers(&cache, &dir).await, [0, 1, 2], "{dir}");
            assert_eq!(followed(&cache, &dir).await, [0, 1, 2], "{dir}");
            // What is at the name is a file of its own, also in the store.
            persisted(&cache).await;
            assert_eq!(get(&cache, &name).await.unwrap(), touched, "{dir}");
        }
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for (root, touch) in each() {
            let dir = dir(root, touch);
            assert_eq!(numbers(&cache, &dir).await, [0, 1, 2], "{dir}");
            for n in 0..3 {
                overwrite(&cache, &dir, n).await;
            }
        }
        // What versions kept goes with them.
        tokio::time::sleep(Duration::from_secs(60)).await;
        persisted(&cache).await;
        let status = cache.status().await.unwrap();
        // Three versions of what no store has, of the others the two before the head.
        assert_eq!(status.dirty_files, 5 * (3 + 2));
    });
}

#[test]
fn a_part_that_is_joined_to_another_file_stays_what_was_published() {
    once(717, async |_, cache| {
        for n in 0..3 {
            append(cache, "/d", n).await;
        }
        let names = files(cache, "/d").await;
        let parts: Vec<_> = names.iter().map(|name| at(&format!("/d/{name}"))).collect();
        cache.concat(&parts[0], &parts[1..]).await.unwrap();
        assert_eq!(files(cache, "/d").await, names[..1]);
        assert_eq!(numbers(cache, "/d").await, [0, 1, 2]);
        overwrite(cache, "/d", 9).await;
        let mut before = numbers_at(cache, "/d", At::Version(3)).await.unwrap();
        before.sort_unstable();
        assert_eq!((numbers(cache, "/d").await, before), (vec![9], vec![0, 1, 2]));
    });
}
