//! Files and names through the engine's own door: what a writer, a reader and a crash may see.

use crate::support::{World, at, files_below, get, kind, mode, page, pattern, put, tree, write};
use bytes::Bytes;
use forebay_metastore::mem::{Call, Fault};
use forebay_runtime::{disk, units::ByteSize};
use forebay_segment::StableWatch;
use forebay_writeback::{
    AckLevel, ErrorKind, Path,
    file::{WriteFile, WriteMode},
    names::{List, Rename, StatKind, State},
    owners::{OWNER_NUMBERS, OwnerKind},
};
use futures::TryStreamExt;
use std::time::Duration;

#[test]
fn a_file_comes_back_whole_and_in_ranges_before_and_after_a_power_cut() {
    let mut world = World::new(1);
    let sizes = [0, 1, 1000, 64 << 10, (64 << 10) + 1, 300_000];
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for size in sizes {
            let path = format!("/local/{size}");
            let committed = put(&cache, &path, &pattern(3, size)).await.unwrap();
            assert_eq!((committed.size, committed.level), (size as u64, AckLevel::Local));
            assert_eq!(get(&cache, &path).await.unwrap(), pattern(3, size));
        }
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for size in sizes {
            let reader = cache.read_file(&at(&format!("/local/{size}"))).await.unwrap();
            let content = pattern(3, size);
            for range in [
                0..size,
                size / 3..size / 2,
                size.saturating_sub(5)..size + 10,
                size..size + 1,
            ] {
                let read = reader
                    .read(range.start as u64..range.end as u64)
                    .await
                    .unwrap()
                    .concat();
                assert_eq!(
                    read,
                    content[range.start.min(size)..range.end.min(size)],
                    "{size} {range:?}"
                );
            }
        }
        let status = cache.status().await.unwrap();
        assert_eq!(
            (status.dirty_files, status.dirty_bytes),
            (sizes.len() as u64, sizes.iter().sum::<usize>() as u64)
        );
    });
}

#[test]
fn nothing_is_visible_before_the_commit_and_nothing_stays_of_a_writer_that_is_dropped() {
    let mut world = World::new(2);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/f", b"old").await.unwrap();
        let mut writer = cache
            .write_file(&at("/local/f"), mode(WriteMode::Overwrite))
            .await
            .unwrap();
        writer.append(vec![Bytes::from(vec![7; 200_000])]).await.unwrap();
        let mut other = cache
            .write_file(&at("/local/g/h"), mode(WriteMode::Append))
            .await
            .unwrap();
        other.append(vec![Bytes::from_static(b"never")]).await.unwrap();
        stable(other.stable(), 1).await;
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"old");
        assert_eq!(kind(cache.stat(&at("/local/g")).await), ErrorKind::NotFound);
        drop((writer, other));
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes), (1, 3));
    });
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(tree(&cache, "/local").await.unwrap().len(), 1);
    });
}

#[test]
fn appends_follow_what_is_there_and_count_only_themselves_as_stable() {
    let mut world = World::new(3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut content = Vec::new();
        for (round, size) in [3, 0, 70_000, 1, 200_000].into_iter().enumerate() {
            let how = WriteFile {
                offset: Some(content.len() as u64),
                ..mode(WriteMode::Append)
            };
            let mut writer = cache.write_file(&at("/local/log"), how).await.unwrap();
            let more = pattern(round as u8, size);
            writer.append(vec![Bytes::copy_from_slice(&more)]).await.unwrap();
            stable(writer.stable(), 1).await;
            content.extend(more);
            assert_eq!(writer.commit().await.unwrap().size, content.len() as u64);
            assert_eq!(get(&cache, "/local/log").await.unwrap(), content);
        }
        let late = WriteFile {
            offset: Some(3),
            ..mode(WriteMode::Append)
        };
        let error = cache.write_file(&at("/local/log"), late).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(error.to_string().contains(&content.len().to_string()), "{error}");
        assert_eq!(cache.status().await.unwrap().dirty_bytes, content.len() as u64);
    });
}

#[test]
fn concurrent_appends_all_arrive_and_one_with_an_offset_is_refused_instead() {
    let mut world = World::new(4);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/log", b"-").await.unwrap();
        let mut writers = Vec::new();
        for byte in b'a'..=b'h' {
            let mut writer = cache
                .write_file(&at("/local/log"), mode(WriteMode::Append))
                .await
                .unwrap();
            writer.append(vec![Bytes::from(vec![byte; 3])]).await.unwrap();
            writers.push(writer);
        }
        let exact = WriteFile {
            offset: Some(1),
            ..mode(WriteMode::Append)
        };
        let exact = cache.write_file(&at("/local/log"), exact).await.unwrap();
        let commits = writers.into_iter().map(|writer| writer.commit());
        futures::future::try_join_all(commits).await.unwrap();
        let content = get(&cache, "/local/log").await.unwrap();
        assert_eq!(content.len(), 25);
        for byte in b'a'..=b'h' {
            assert!(
                content.windows(3).any(|three| three == [byte; 3]),
                "{byte} in {content:?}"
            );
        }
        assert_eq!(kind(exact.commit().await), ErrorKind::Precondition);
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 25);
    });
}

#[test]
fn a_token_is_answered_once_whatever_the_client_does_again() {
    let mut world = World::new(5);
    let how = || WriteFile {
        token: Some("t-1".into()),
        ..mode(WriteMode::Append)
    };
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/f", b"0").await.unwrap();
        // The same write twice at once: one of them commits, the other is answered from it.
        let mut first = cache.write_file(&at("/local/f"), how()).await.unwrap();
        let mut second = cache.write_file(&at("/local/f"), how()).await.unwrap();
        first.append(vec![Bytes::from_static(b"12")]).await.unwrap();
        second.append(vec![Bytes::from_static(b"12")]).await.unwrap();
        let (first, second) = futures::join!(first.commit(), second.commit());
        assert_eq!(first.unwrap(), second.unwrap());
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut again = cache.write_file(&at("/local/f"), how()).await.unwrap();
        assert!(again.repeated());
        again.append(vec![Bytes::from_static(b"12")]).await.unwrap();
        stable(again.stable(), 1).await;
        assert_eq!(again.commit().await.unwrap().size, 3);
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"012");
        assert!(
            !cache.write_file(&at("/local/other"), how()).await.unwrap().repeated(),
            "a token belongs to its path"
        );
        let long = WriteFile {
            token: Some("x".repeat(1000)),
            ..WriteFile::default()
        };
        assert_eq!(kind(cache.write_file(&at("/local/f"), long).await), ErrorKind::Invalid);
    });
}

#[test]
fn a_name_is_refused_where_it_can_not_be_and_the_text_says_why() {
    let mut world = World::new(6);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/f", b"x").await.unwrap();
        let create = cache.write_file(&at("/local/f"), mode(WriteMode::Create)).await;
        assert_eq!(kind(create), ErrorKind::Exists);
        assert_eq!(kind(put(&cache, "/local/f/below", b"").await), ErrorKind::Precondition);
        assert_eq!(kind(put(&cache, "/local", b"").await), ErrorKind::Precondition);
        assert_eq!(kind(put(&cache, "/", b"").await), ErrorKind::Precondition);
        assert_eq!(kind(cache.read_file(&at("/local")).await), ErrorKind::Invalid);
        assert_eq!(kind(cache.read_file(&at("/nothing")).await), ErrorKind::NotFound);
        assert_eq!(kind(cache.mkdir(&at("/local"), false).await), ErrorKind::Exists);
        assert_eq!(kind(cache.mkdir(&at("/a/b"), false).await), ErrorKind::NotFound);
        assert_eq!(kind(cache.mkdir(&at("/local/f"), true).await), ErrorKind::Exists);
        cache.mkdir(&at("/local"), true).await.unwrap();
        assert_eq!(kind(cache.delete(&at("/local"), false).await), ErrorKind::Precondition);
        assert_eq!(kind(cache.delete(&at("/"), true).await), ErrorKind::Invalid);
        assert_eq!(kind(cache.delete(&at("/kept"), true).await), ErrorKind::Precondition);
        assert_eq!(
            kind(cache.rename(&at("/local"), &at("/local/x"), Rename::default()).await),
            ErrorKind::Invalid
        );
        let persisted = WriteFile {
            ack: Some(AckLevel::Persisted),
            ..WriteFile::default()
        };
        assert_eq!(
            kind(cache.write_file(&at("/local/p"), persisted).await),
            ErrorKind::Precondition
        );
        let error = cache.delete(&at("/local"), false).await.unwrap_err().to_string();
        assert!(error.contains("/local") && error.contains("recursive"), "{error}");
    });
}

#[test]
fn a_reader_keeps_its_content_whatever_happens_to_the_name() {
    let mut world = World::new(7);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for size in [1000, 200_000] {
            let path = format!("/local/{size}");
            put(&cache, &path, &pattern(1, size)).await.unwrap();
            let reader = cache.read_file(&at(&path)).await.unwrap();
            put(&cache, &path, b"new").await.unwrap();
            cache.delete(&at(&path), false).await.unwrap();
            for other in 0..20 {
                put(&cache, &format!("/local/other{other}"), &pattern(9, 100_000))
                    .await
                    .unwrap();
            }
            assert_eq!(reader.read(0..size as u64).await.unwrap().concat(), pattern(1, size));
        }
    });
}

#[test]
fn truncate_cuts_and_extends_with_zeros() {
    let mut world = World::new(8);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for size in [0, 2, 6, 10, 3 << 20] {
            put(&cache, "/local/f", b"abcdef").await.unwrap();
            cache.truncate(&at("/local/f"), size as u64).await.unwrap();
            let mut expected = b"abcdef".to_vec();
            expected.resize(size, 0);
            assert_eq!(get(&cache, "/local/f").await.unwrap(), expected);
        }
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 3 << 20);
        assert_eq!(kind(cache.truncate(&at("/local/none"), 1).await), ErrorKind::NotFound);
        assert_eq!(kind(cache.truncate(&at("/local"), 1).await), ErrorKind::Precondition);
        assert_eq!(
            kind(cache.truncate(&at("/local/f"), u64::MAX / 2).await),
            ErrorKind::Full
        );
    });
}

#[test]
fn a_listing_is_a_walk_in_pages_without_gaps_or_repeats() {
    let mut world = World::new(9);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut expected: Vec<Path> = vec![at("/local/deep")];
        for dir in ["a", "a-b", "a.c", "b"] {
            expected.push(at(&format!("/local/{dir}")));
            for file in 0..7 {
                let path = format!("/local/{dir}/{file}");
                put(&cache, &path, &pattern(0, file)).await.unwrap();
                expected.push(at(&path));
            }
        }
        let deep = (0..40).fold("/local/deep".to_owned(), |path, at| format!("{path}/{at}"));
        cache.mkdir(&at(&deep), true).await.unwrap();
        expected.extend((0..40).scan("/local/deep".to_owned(), |path, at| {
            *path = format!("{path}/{at}");
            Some(crate::support::at(path))
        }));
        expected.sort();
        let expected: Vec<String> = expected.iter().map(Path::to_string).collect();
        for limit in [1, 2, 5, 1000] {
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let found = page(&cache, "/local", after.as_ref(), limit).await;
                let Some(last) = found.last() else { break };
                after = Some(at(last));
                listed.extend(found);
            }
            assert_eq!(listed, expected, "limit {limit}");
        }
        let flat = List {
            after: Some(at("/local/a/3")),
            ..List::default()
        };
        let flat: Vec<_> = cache.list(&at("/local"), flat).try_collect().await.unwrap();
        let names: Vec<_> = flat.iter().map(|stat| (stat.path.to_string(), stat.kind)).collect();
        let dirs = ["/local/a-b", "/local/a.c", "/local/b", "/local/deep"];
        assert_eq!(names, dirs.map(|dir| (dir.to_owned(), StatKind::Dir)));
        let missing: Result<Vec<_>, _> = cache.list(&at("/none"), List::default()).try_collect().await;
        assert_eq!(kind(missing), ErrorKind::NotFound);
        let file: Result<Vec<_>, _> = cache.list(&at("/local/a/1"), List::default()).try_collect().await;
        assert_eq!(kind(file), ErrorKind::Precondition);
        assert_eq!(cache.stat(&at("/")).await.unwrap().kind, StatKind::Dir);
    });
}

#[test]
fn a_rename_moves_files_and_whole_directories_and_frees_what_gives_way() {
    let mut world = World::new(10);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/a/1", b"1").await.unwrap();
        put(&cache, "/local/a/2", b"22").await.unwrap();
        let (from, to) = (at("/local/a/1"), at("/local/a/2"));
        assert_eq!(
            kind(cache.rename(&from, &to, Rename::default()).await),
            ErrorKind::Exists
        );
        cache
            .rename(
                &from,
                &to,
                Rename {
                    replace: true,
                    parents: false,
                    ..Rename::default()
                },
            )
            .await
            .unwrap();
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 1);
        let deep = at("/local/x/y");
        assert_eq!(
            kind(cache.rename(&at("/local/a"), &deep, Rename::default()).await),
            ErrorKind::NotFound
        );
        cache
            .rename(
                &at("/local/a"),
                &deep,
                Rename {
                    replace: false,
                    parents: true,
                    ..Rename::default()
                },
            )
            .await
            .unwrap();
        assert_eq!(get(&cache, "/local/x/y/2").await.unwrap(), b"1");
        assert_eq!(kind(cache.stat(&at("/local/a")).await), ErrorKind::NotFound);
    });
}

#[test]
fn a_recursive_delete_takes_everything_at_once_and_frees_it_also_across_a_crash() {
    let mut world = World::new(11);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for dir in 0..20 {
            for file in 0..20 {
                put(&cache, &format!("/local/a/{dir}/{file}"), b"some bytes")
                    .await
                    .unwrap();
            }
        }
        put(&cache, "/local/b", b"stays").await.unwrap();
        cache.delete(&at("/local/a"), true).await.unwrap();
        assert_eq!(kind(cache.stat(&at("/local/a")).await), ErrorKind::NotFound);
        assert_eq!(tree(&cache, "/local").await.unwrap().len(), 1);
    });
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes), (1, 5));
        assert_eq!(get(&cache, "/local/b").await.unwrap(), b"stays");
    });
}

#[test]
fn a_full_cache_slows_writers_then_refuses_them_and_takes_them_again_after_a_delete() {
    let mut world = World::new(12);
    world.settings.dirty_max = Some(ByteSize(300_000));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for file in 0..3 {
            put(&cache, &format!("/local/{file}"), &pattern(0, 100_000))
                .await
                .unwrap();
        }
        let began = tokio::time::Instant::now();
        assert_eq!(kind(put(&cache, "/local/3", &pattern(0, 1000)).await), ErrorKind::Full);
        assert!(began.elapsed() >= Duration::from_secs(60));
        let slowed = put(&cache, "/local/4", b"waits");
        let freed = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            cache.delete(&at("/local/0"), false).await
        };
        let (slowed, freed) = futures::join!(slowed, freed);
        assert!(slowed.is_ok() && freed.is_ok());
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 200_005);
    });
}

#[test]
fn a_failed_flush_is_not_acknowledged_and_the_next_write_is() {
    let mut world = World::new(13);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/f", b"first").await.unwrap();
        world.disk.arm(disk::Fault::Sync(1));
        assert!(put(&cache, "/local/f", b"second").await.is_err());
        assert!(world.disk.calls().faults > 0);
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"first");
        put(&cache, "/local/f", b"third").await.unwrap();
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"third");
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes), (1, 5));
    });
}

/// The control of all the others: what would happen if an acknowledgement did not wait for the disk.
#[test]
fn without_fsync_a_power_cut_is_seen_to_lose_what_was_acknowledged() {
    let lost = (0..20).filter(|seed| {
        let mut world = World::new(*seed);
        world.settings.segment.fsync = false;
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            put(&cache, "/local/f", &pattern(1, 200_000)).await.unwrap();
        });
        world.cut_power();
        world.live(async |world| {
            let Ok(cache) = world.open().await else { return true };
            let found = get(&cache, "/local/f").await;
            // Never wrong bytes, though.
            assert!(
                found.as_ref().is_err() || *found.as_ref().unwrap() == pattern(1, 200_000),
                "seed {seed}"
            );
            found.is_err()
        })
    });
    assert!(lost.count() > 0);
}

#[test]
fn a_full_disk_refuses_writes_and_still_reads_and_deletes() {
    let mut world = World::new(20);
    world.settings.stall_max = Duration::from_secs(2);
    world.settings.segment.reserve_bytes = ByteSize(256 << 10);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/a", &pattern(1, 2_000_000)).await.unwrap();
        world.disk.set_capacity(2_500_000);
        let error = put(&cache, "/local/b", &pattern(2, 3_000_000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert_eq!(get(&cache, "/local/a").await.unwrap(), pattern(1, 2_000_000));
        cache.delete(&at("/local/a"), false).await.unwrap();
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 0);
    });
}

#[test]
fn an_unknown_commit_is_asked_again_and_an_outcome_that_stays_unknown_says_so() {
    let mut world = World::new(14);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut lost = 2;
        world.meta.set_hook(move |call| match call {
            Call::Commit(_) if lost > 0 => {
                lost -= 1;
                Fault::UnknownCommitted
            }
            _ => Fault::None,
        });
        put(&cache, "/local/f", b"once").await.unwrap();
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"once");
        world.meta.set_hook(|call| match call {
            Call::Commit(_) => Fault::UnknownCommitted,
            Call::Other(_) => Fault::None,
        });
        let how = WriteFile {
            token: Some("ask-me".into()),
            ..mode(WriteMode::Overwrite)
        };
        let error = write(&cache, "/local/g", b"in doubt", how).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadline);
        assert!(error.to_string().contains("ask-me"), "{error}");
        world.meta.clear_hook();
        // It was committed, so its bytes must have stayed.
        assert_eq!(get(&cache, "/local/g").await.unwrap(), b"in doubt");
    });
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(get(&cache, "/local/g").await.unwrap(), b"in doubt");
        assert_eq!(cache.status().await.unwrap().dirty_files, 2);
    });
}

/// Found by the simulation: a metastore that was away when it was asked again made a commit count as failed, and its bytes went.
#[test]
fn a_commit_that_is_unknown_stays_so_while_the_metastore_is_away() {
    let mut world = World::new(15);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut first = true;
        world.meta.set_hook(move |call| match call {
            Call::Commit(_) if std::mem::take(&mut first) => Fault::UnknownCommitted,
            Call::Commit(_) => Fault::Unavailable,
            Call::Other(_) => Fault::None,
        });
        assert_eq!(kind(put(&cache, "/local/f", b"in doubt").await), ErrorKind::Deadline);
        world.meta.clear_hook();
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"in doubt");
    });
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"in doubt");
    });
}

#[test]
fn a_client_that_goes_away_during_its_commit_leaves_the_file_whole_or_absent() {
    for steps in 0..60 {
        let mut world = World::new(1000 + steps);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            put(&cache, "/local/f", b"old").await.unwrap();
            let new = pattern(5, 100_000);
            let mut writing = Box::pin(put(&cache, "/local/f", &new));
            // Polled so many times, then dropped.
            for _ in 0..steps {
                if futures::poll!(&mut writing).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(writing);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let found = get(&cache, "/local/f").await.unwrap();
            assert!(found == b"old" || found == new, "steps {steps}");
            assert_eq!(
                cache.status().await.unwrap().dirty_bytes,
                found.len() as u64,
                "steps {steps}"
            );
        });
    }
}

#[test]
fn a_missing_segment_is_refused_by_name_and_never_starts_empty() {
    let mut world = World::new(15);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/big", &pattern(1, 200_000)).await.unwrap();
        cache.shutdown().await;
    });
    let lost = world.live(async |world| {
        let mut found = Vec::new();
        files_below(world, std::path::Path::new("/data"), &mut found);
        found.sort_by_key(|(_, len)| std::cmp::Reverse(*len));
        found.remove(0).0
    });
    world.disk.lose(&lost);
    world.live(async |world| {
        let error = world.open().await.unwrap_err();
        let name = lost.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{error} should name {name}");
    });
}

#[test]
fn a_damaged_byte_is_a_loss_of_that_file_alone() {
    let mut world = World::new(16);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/big", &pattern(1, 200_000)).await.unwrap();
        put(&cache, "/local/small", b"unharmed").await.unwrap();
        let mut found = Vec::new();
        files_below(world, std::path::Path::new("/data"), &mut found);
        found.sort_by_key(|(_, len)| std::cmp::Reverse(*len));
        world.disk.flip(&found[0].0, 150_000, 0x10);
        let error = get(&cache, "/local/big").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        assert!(error.to_string().contains("/local/big"), "{error}");
        assert_eq!(get(&cache, "/local/small").await.unwrap(), b"unharmed");
    });
}

#[test]
fn a_shutdown_refuses_what_comes_late_and_loses_nothing() {
    let mut world = World::new(17);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/f", b"here").await.unwrap();
        let mut late = cache
            .write_file(&at("/local/late"), WriteFile::default())
            .await
            .unwrap();
        late.append(vec![Bytes::from_static(b"x")]).await.unwrap();
        cache.shutdown().await;
        assert_eq!(kind(late.commit().await), ErrorKind::Unavailable);
        assert_eq!(kind(cache.mkdir(&at("/local/d"), false).await), ErrorKind::Unavailable);
    });
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(get(&cache, "/local/f").await.unwrap(), b"here");
        assert_eq!(tree(&cache, "/local").await.unwrap().len(), 1);
    });
}

#[test]
fn what_lies_in_the_store_is_read_changed_and_removed_like_our_own() {
    let mut world = World::new(18);
    world.store.write_outside("old/data", pattern(2, 10_000));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let stat = cache.stat(&at("/kept/old/data")).await.unwrap();
        assert_eq!(
            (stat.state, stat.size, stat.kind),
            (State::Clean, 10_000, StatKind::File)
        );
        assert_eq!(get(&cache, "/kept/old/data").await.unwrap(), pattern(2, 10_000));
        write(&cache, "/kept/old/data", b"more", mode(WriteMode::Append))
            .await
            .unwrap();
        cache
            .rename(&at("/kept/old"), &at("/kept/new"), Rename::default())
            .await
            .unwrap();
        let mut expected = pattern(2, 10_000);
        expected.extend(b"more");
        assert_eq!(get(&cache, "/kept/new/data").await.unwrap(), expected);
        cache
            .wait_persisted(&at("/kept"), Duration::from_secs(600))
            .await
            .unwrap();
        let contents = world.store.contents();
        assert_eq!(
            contents.get("new/data").map(|bytes| bytes.to_vec()),
            Some(expected.clone())
        );
        assert_eq!(contents.len(), 1, "{:?}", contents.keys());
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 0);
        cache.delete(&at("/kept/new"), true).await.unwrap();
        cache
            .wait_persisted(&at("/kept"), Duration::from_secs(600))
            .await
            .unwrap();
        assert!(world.store.contents().is_empty(), "{:?}", world.store.contents().keys());
    });
}

#[test]
fn a_write_at_level_persisted_answers_when_the_store_has_it() {
    let mut world = World::new(19);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let how = WriteFile {
            ack: Some(AckLevel::Persisted),
            ..WriteFile::default()
        };
        let committed = write(&cache, "/kept/f", b"safe", how).await.unwrap();
        assert_eq!(committed.level, AckLevel::Persisted);
        assert_eq!(
            world.store.contents().get("f").map(|bytes| bytes.to_vec()),
            Some(b"safe".to_vec())
        );
        assert_eq!(cache.stat(&at("/kept/f")).await.unwrap().state, State::Persisted);
    });
}

async fn stable(mut watch: StableWatch, appends: u64) {
    let reached = watch
        .wait_for(|stable| stable.appends >= appends || stable.poisoned.is_some())
        .await
        .unwrap();
    assert_eq!((reached.appends, reached.poisoned.clone()), (appends, None));
}

#[test]
fn joined_files_are_one_file_and_the_others_are_gone_in_one_commit() {
    let mut world = World::new(71);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for (path, seed, len) in [
            ("/local/a", 1, 1000),
            ("/local/b", 2, 300_000),
            ("/local/d/c", 3, 0),
            ("/local/e", 4, 5),
        ] {
            put(&cache, path, &pattern(seed, len)).await.unwrap();
        }
        let old = cache.read_file(&at("/local/b")).await.unwrap();
        let others = [at("/local/b"), at("/local/d/c"), at("/local/e")];
        cache.concat(&at("/local/a"), &others).await.unwrap();
        let whole = [pattern(1, 1000), pattern(2, 300_000), pattern(4, 5)].concat();
        assert_eq!(get(&cache, "/local/a").await.unwrap(), whole);
        assert_eq!(
            old.read(0..10).await.unwrap().concat(),
            pattern(2, 300_000)[..10],
            "who reads keeps it"
        );
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes), (1, whole.len() as u64));
        assert_eq!(kind(cache.stat(&at("/local/d/c")).await), ErrorKind::NotFound);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(get(&cache, "/local/a").await.unwrap().len(), 301_005);
        assert_eq!(kind(cache.stat(&at("/local/b")).await), ErrorKind::NotFound);
    });
}

#[test]
fn what_can_not_be_joined_is_refused_and_left_as_it_is() {
    let mut world = World::new(72);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/local/a", b"a").await.unwrap();
        put(&cache, "/local/d/b", b"b").await.unwrap();
        let join = async |target: &str, others: &[&str]| {
            let others: Vec<Path> = others.iter().map(|path| at(path)).collect();
            kind(cache.concat(&at(target), &others).await)
        };
        assert_eq!(join("/local/a", &[]).await, ErrorKind::Invalid);
        assert_eq!(join("/local/a", &["/local/a"]).await, ErrorKind::Invalid);
        assert_eq!(
            join("/local/a", &["/local/d/b", "/local/d/b"]).await,
            ErrorKind::Invalid
        );
        assert_eq!(join("/local/a", &["/local/no"]).await, ErrorKind::NotFound);
        assert_eq!(join("/local/no", &["/local/a"]).await, ErrorKind::NotFound);
        assert_eq!(join("/local/a", &["/local/d"]).await, ErrorKind::Precondition);
        let many: Vec<String> = (0..300).map(|k| format!("/local/{k}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(join("/local/a", &many).await, ErrorKind::Invalid);
        assert_eq!(get(&cache, "/local/a").await.unwrap(), b"a");
        assert_eq!(get(&cache, "/local/d/b").await.unwrap(), b"b");
    });
}

#[test]
fn a_write_that_needs_its_directory_makes_none() {
    let mut world = World::new(73);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let how = || WriteFile {
            needs_directory: true,
            ..mode(WriteMode::Create)
        };
        let refused = write(&cache, "/local/no/f", b"x", how()).await;
        assert_eq!(kind(refused), ErrorKind::NotFound);
        cache.mkdir(&at("/local/d"), true).await.unwrap();
        let late = cache.write_file(&at("/local/d/late"), how()).await.unwrap();
        write(&cache, "/local/d/f", b"x", how()).await.unwrap();
        cache.delete(&at("/local/d"), true).await.unwrap();
        assert_eq!(kind(late.commit().await), ErrorKind::NotFound, "it went meanwhile");
        assert_eq!(kind(cache.stat(&at("/local/d")).await), ErrorKind::NotFound);
    });
}

#[test]
fn a_name_keeps_the_number_that_it_was_given() {
    let mut world = World::new(74);
    let names: Vec<String> = (0..300).map(|k| format!("user-{k}")).collect();
    let given = world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut given = Vec::new();
        for name in &names {
            let number = cache.owner_number(OwnerKind::User, name).await.unwrap();
            assert!(OWNER_NUMBERS.contains(&number));
            given.push(number);
        }
        assert_eq!(kind(cache.owner_number(OwnerKind::User, "").await), ErrorKind::Invalid);
        assert_eq!(cache.owner_name(OwnerKind::User, 0).await.unwrap(), None);
        given
    });
    assert_eq!(given.iter().collect::<std::collections::BTreeSet<_>>().len(), 300);
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for (name, number) in names.iter().zip(given) {
            assert_eq!(cache.owner_number(OwnerKind::User, name).await.unwrap(), number);
            assert_eq!(
                cache.owner_name(OwnerKind::User, number).await.unwrap().as_ref(),
                Some(name)
            );
            assert_eq!(cache.owner_name(OwnerKind::Group, number).await.unwrap(), None);
        }
    });
}

#[test]
fn an_append_follows_its_file_and_ends_with_it() {
    let mut world = World::new(75);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let begin = async |path: &str| {
            let how = WriteFile {
                needs_file: true,
                ..mode(WriteMode::Append)
            };
            let mut writer = cache.write_file(&at(path), how).await?;
            writer.append(vec![Bytes::from_static(b" and more")]).await?;
            Ok::<_, forebay_writeback::Error>(writer)
        };
        assert_eq!(begin("/local/no").await.unwrap_err().kind(), ErrorKind::NotFound);
        put(&cache, "/local/d/a", b"much").await.unwrap();
        let writer = begin("/local/d/a").await.unwrap();
        cache
            .rename(&at("/local/d"), &at("/local/e"), Rename::default())
            .await
            .unwrap();
        cache
            .rename(&at("/local/e/a"), &at("/local/b"), Rename::default())
            .await
            .unwrap();
        writer.commit().await.unwrap();
        assert_eq!(get(&cache, "/local/b").await.unwrap(), b"much and more");
        assert_eq!(kind(cache.stat(&at("/local/d")).await), ErrorKind::NotFound);

        let writer = begin("/local/b").await.unwrap();
        cache.delete(&at("/local/b"), false).await.unwrap();
        assert_eq!(kind(writer.commit().await), ErrorKind::NotFound);
        assert_eq!(kind(cache.stat(&at("/local/b")).await), ErrorKind::NotFound);
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes), (0, 0));
    });
}
