//! Writes on condition: of those that are for one etag a single one goes through, whoever else writes, and nothing that somebody did not
//! look at is overwritten.

use crate::support::{KEPT, World, at, get, kind, mode, put, write};
use bytes::Bytes;
use forebay_metastore::mem::{Call, Fault};
use forebay_understore::StoreError;
use forebay_writeback::{
    Cache, Error, ErrorKind, SetAttributes,
    file::{Committed, FileWriter, WriteFile, WriteMode},
    names::{Make, MakeKind, Rename, State},
};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// An overwrite of what has this etag.
fn on(etag: &str) -> WriteFile {
    WriteFile {
        if_etag: Some(etag.to_owned()),
        ..mode(WriteMode::Overwrite)
    }
}

async fn etag(cache: &Cache, path: &str) -> String {
    cache.stat(&at(path)).await.unwrap().etag.unwrap()
}

/// A write on condition that has its bytes and waits for its commit.
async fn begun(cache: &Cache, path: &str, content: &[u8], how: WriteFile) -> FileWriter {
    let mut writer = cache.write_file(&at(path), how).await.unwrap();
    writer.append(vec![Bytes::copy_from_slice(content)]).await.unwrap();
    writer
}

/// That a write was refused for what is there.
fn refused(result: Result<Committed, Error>, says: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn an_overwrite_for_an_etag_goes_through_where_that_is_there_and_the_refusal_says_what_is() {
    let mut world = World::new(1);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let first = put(&cache, "/local/f", b"one").await.unwrap().etag.unwrap();
        assert_eq!(etag(&cache, "/local/f").await, first);
        let second = write(&cache, "/local/f", b"two", on(&first)).await.unwrap();
        let second = second.etag.unwrap();
        assert!(first != second && etag(&cache, "/local/f").await == second);
        refused(write(&cache, "/local/f", b"three", on(&first)).await, &second);
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"two");
        for absent in ["/local/none", "/none/at/all"] {
            refused(write(&cache, absent, b"x", on(&second)).await, "nothing is there");
            assert_eq!(kind(cache.stat(&at(absent)).await), ErrorKind::NotFound);
        }
        refused(write(&cache, "/local", b"x", on(&second)).await, "directory");
        let to_f = Make {
            kind: MakeKind::Symlink(b"f".to_vec()),
            ..Make::dir()
        };
        cache.make(&at("/local/link"), to_f).await.unwrap();
        let link = cache.stat(&at("/local/link")).await.unwrap();
        assert_eq!(link.etag, None);
        refused(write(&cache, "/local/link", b"x", on(&second)).await, "link");
        // A file keeps its etag when it moves, and only there it is good for something.
        let (from, to) = (at("/local/f"), at("/local/g"));
        cache.rename(&from, &to, Rename::default()).await.unwrap();
        refused(write(&cache, "/local/f", b"x", on(&second)).await, "nothing is there");
        write(&cache, "/local/g", b"three", on(&second)).await.unwrap();
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 5);
    });
}

#[test]
fn the_condition_holds_when_the_write_is_committed_and_not_only_when_it_begins() {
    let mut world = World::new(2);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let others: [AsyncChange; 5] = [
            |cache| Box::pin(async move { put(cache, "/local/f", b"other").await.map(drop) }),
            |cache| Box::pin(async move { write(cache, "/local/f", b"+", mode(WriteMode::Append)).await.map(drop) }),
            |cache| Box::pin(async move { cache.truncate(&at("/local/f"), 1).await }),
            |cache| Box::pin(async move { cache.delete(&at("/local/f"), false).await.map(drop) }),
            |cache| {
                Box::pin(async move {
                    put(cache, "/local/g", b"moved").await?;
                    let over = Rename {
                        replace: true,
                        ..Rename::default()
                    };
                    cache.rename(&at("/local/g"), &at("/local/f"), over).await.map(drop)
                })
            },
        ];
        for change in others {
            let etag = put(&cache, "/local/f", b"before").await.unwrap().etag.unwrap();
            let writer = begun(&cache, "/local/f", b"mine", on(&etag)).await;
            change(&cache).await.unwrap();
            let there = get(&cache, "/local/f").await.ok();
            refused(writer.commit().await, "");
            assert_eq!(get(&cache, "/local/f").await.ok(), there);
        }
        // What only changes beside the content is no other content.
        let etag = put(&cache, "/local/f", b"before").await.unwrap().etag.unwrap();
        let writer = begun(&cache, "/local/f", b"mine", on(&etag)).await;
        let dressed = SetAttributes {
            mode: Some(0o600),
            ..SetAttributes::default()
        };
        cache.set_attributes(&at("/local/f"), dressed).await.unwrap();
        writer.commit().await.unwrap();
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"mine");
        assert_eq!(cache.stat(&at("/local/f")).await.unwrap().mode, 0o600);
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 4);
    });
}

type AsyncChange = for<'c> fn(&'c Cache) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + 'c>>;

#[test]
fn of_those_that_are_for_one_etag_a_single_one_wins() {
    let mut world = World::new(3);
    world.store.write_outside("lake", "theirs");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/f", b"before").await.unwrap();
        // The second lies in the under-store and has no row yet.
        for path in ["/local/f", "/kept/lake"] {
            let etag = etag(&cache, path).await;
            let mut writers = Vec::new();
            for n in 0..8_u8 {
                writers.push(begun(&cache, path, &[n; 3], on(&etag)).await);
            }
            let commits = writers.into_iter().map(FileWriter::commit);
            let ends = futures::future::join_all(commits).await;
            let won: Vec<usize> = (0..8).filter(|n| ends[*n].is_ok()).collect();
            let [winner] = won[..] else {
                panic!("{path}: {won:?} won")
            };
            assert_eq!(get(&cache, path).await.unwrap(), [winner as u8; 3]);
            for lost in ends.into_iter().filter(Result::is_err) {
                refused(lost, "etag");
            }
        }
    });
}

#[test]
fn a_counter_that_many_count_up_misses_none() {
    let mut world = World::new(4);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/dir/count", b"0").await.unwrap();
        let count = async || {
            for _ in 0..10 {
                loop {
                    let etag = etag(&cache, "/local/dir/count").await;
                    let now: u64 = String::from_utf8(get(&cache, "/local/dir/count").await.unwrap())
                        .unwrap()
                        .parse()
                        .unwrap();
                    let more = (now + 1).to_string();
                    match write(&cache, "/local/dir/count", more.as_bytes(), on(&etag)).await {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Precondition, "{error}"),
                    }
                }
            }
        };
        // Others change the directory all the while, so that commits lose their checks and are planned again.
        let disturb = async {
            for n in 0..50 {
                put(&cache, &format!("/local/dir/{n}"), b"x").await.unwrap();
                cache.delete(&at(&format!("/local/dir/{n}")), false).await.unwrap();
            }
        };
        let counted = futures::future::join_all((0..5).map(|_| count()));
        futures::join!(counted, disturb);
        assert_eq!(get(&cache, "/local/dir/count").await.unwrap(), b"50");
    });
}

#[test]
fn a_write_that_is_repeated_by_its_token_has_its_first_outcome() {
    let mut world = World::new(5);
    let how = |etag: &str| WriteFile {
        token: Some("t-1".into()),
        ..on(etag)
    };
    let (before, made) = world.live(async |world| {
        let cache = world.open().await.unwrap();
        let before = put(&cache, "/local/f", b"before").await.unwrap().etag.unwrap();
        // Refused is not committed: the token is still good.
        refused(write(&cache, "/local/f", b"mine", how("7.7")).await, &before);
        let early = begun(&cache, "/local/f", b"mine", how(&before)).await;
        let made = write(&cache, "/local/f", b"mine", how(&before)).await.unwrap();
        assert_eq!(early.commit().await.unwrap(), made);
        (before, made)
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(write(&cache, "/local/f", b"mine", how(&before)).await.unwrap(), made);
        put(&cache, "/local/f", b"later").await.unwrap();
        assert_eq!(write(&cache, "/local/f", b"mine", how(&before)).await.unwrap(), made);
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"later");

        // The answer of one that was committed is lost.
        let before = etag(&cache, "/local/f").await;
        let how = || WriteFile {
            token: Some("t-2".into()),
            ..on(&before)
        };
        world.meta.set_hook(|call| match call {
            Call::Commit(_) => Fault::UnknownCommitted,
            Call::Other(_) => Fault::None,
        });
        assert_eq!(
            kind(write(&cache, "/local/f", b"mine", how()).await),
            ErrorKind::Deadline
        );
        world.meta.clear_hook();
        let made = write(&cache, "/local/f", b"mine", how()).await.unwrap();
        assert_eq!(made.etag.unwrap(), etag(&cache, "/local/f").await);
    });
}

#[test]
fn a_file_of_the_under_store_has_an_etag_too_and_a_change_outside_is_another() {
    let mut world = World::new(6);
    for key in ["a", "b", "c"] {
        world.store.write_outside(key, "theirs");
    }
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let seen = etag(&cache, "/kept/a").await;
        write(&cache, "/kept/a", b"ours", on(&seen)).await.unwrap();
        refused(write(&cache, "/kept/a", b"x", on(&seen)).await, "etag");
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        assert_eq!(world.store.contents()["a"], "ours");

        let seen = etag(&cache, "/kept/b").await;
        world.store.write_outside("b", "theirs, later");
        cache.sync(&at(KEPT), true).await.unwrap();
        refused(write(&cache, "/kept/b", b"ours", on(&seen)).await, "etag");
        assert_eq!(get(&cache, "/kept/b").await.unwrap(), b"theirs, later");

        // A row of its own, and the content of before.
        let seen = etag(&cache, "/kept/c").await;
        let dressed = SetAttributes {
            mode: Some(0o600),
            ..SetAttributes::default()
        };
        cache.set_attributes(&at("/kept/c"), dressed).await.unwrap();
        write(&cache, "/kept/c", b"ours", on(&seen)).await.unwrap();
    });
}

#[test]
fn what_only_the_under_store_has_any_more_has_another_etag_and_the_one_of_before_is_refused() {
    let mut world = World::new(7);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let made = put(&cache, "/kept/f", b"one").await.unwrap().etag.unwrap();
        cache.wait_persisted(&at(KEPT), MINUTE).await.unwrap();
        assert_eq!(etag(&cache, "/kept/f").await, made);
        cache.free(&at(KEPT)).await.unwrap();
        assert_eq!(cache.stat(&at("/kept/f")).await.unwrap().state, State::Clean);
        refused(write(&cache, "/kept/f", b"two", on(&made)).await, "etag");
        let now = etag(&cache, "/kept/f").await;
        write(&cache, "/kept/f", b"two", on(&now)).await.unwrap();
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"two");
    });
}

#[test]
fn a_store_that_is_away_is_no_absence_and_what_is_here_needs_none() {
    let mut world = World::new(8);
    world.store.write_outside("theirs", "theirs");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let theirs = etag(&cache, "/kept/theirs").await;
        let begun = begun(&cache, "/kept/theirs", b"mine", on(&theirs)).await;
        let ours = put(&cache, "/kept/ours", b"one").await.unwrap().etag.unwrap();
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        tokio::time::sleep(MINUTE).await;
        let late = write(&cache, "/kept/theirs", b"mine", on(&theirs)).await;
        assert_eq!(kind(late), ErrorKind::Unavailable);
        assert_eq!(kind(begun.commit().await), ErrorKind::Unavailable);
        write(&cache, "/kept/ours", b"two", on(&ours)).await.unwrap();
        world.store.set_away(None);
        tokio::time::sleep(MINUTE).await;
        assert_eq!(get(&cache, "/kept/theirs").await.unwrap(), b"theirs");
    });
}
