//! Ways in which other write-back caches lost or mixed data, each as a test of its own name.
//!
//! | what happened elsewhere | where it is tested |
//! |---|---|
//! | a flush was not made before the acknowledgement | `tests/crash/test_crash.py::test_the_harness_sees_the_loss_when_fsync_is_off`, `test_disk.py` |
//! | eviction took, or hid, what was not persisted yet | `persist.rs`: `copies_are_evicted_beyond_the_limit_and_dirty_data_never` |
//! | a delete raced its persist, and the object came back | here, also where the store carries out what was given up; `persist.rs`: `names_that_go_and_come_while_uploads_are_under_way_leave_nothing_stray` |
//! | a rename raced its persist, and objects were stray or missing | `persist.rs`: `a_renamed_directory_moves_in_the_store_with_clean_and_dirty_content`; `tests/flight/test_outages.py` |
//! | a slow store blocked changes of names | here |
//! | an upload was given up after some tries, or skipped | here |
//! | what was written and synced had no bytes | every test reads back |
//! | the end of an upload was taken for a failure, or for a success, by its status | here; the stores' own tests with a proxy that breaks requests |
//! | someone else's object was taken for one's own | here |
//! | a flush failed, and a later one was believed | `tests/crash/test_disk.py::test_a_failed_flush_is_never_acknowledged` |
//! | a bad record in the middle was taken for the torn end | `tests/crash/test_disk.py::test_a_flipped_bit_is_never_served` |
//! | seven flushes for each small file | `tests/crash/test_disk.py::test_a_thousand_small_files_share_their_flushes` |
//! | files that were open through the kernel at a kill failed, or showed others' bytes, after the restart | `tests/mount/test_life.py`: `test_large_sealed_files_open_at_the_kill_are_read_right_when_opened_again` |
//! | a worker came back, and what it has stayed lost | cluster; not built yet |
//! | a replica acknowledged ahead of its own disk | cluster; not built yet |

use crate::support::{World, at, get, kind, pattern, put};
use forebay_runtime::{clock::Clock, units::ByteSize};
use forebay_understore::{
    StoreError, Write,
    memory::{Call, Fault},
};
use forebay_writeback::{Cache, ErrorKind, names::Rename, persist::Resolve};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

async fn persisted(cache: &Cache) {
    cache.wait_persisted(&at("/kept"), 24 * HOUR).await.unwrap();
}

#[test]
fn an_upload_that_fails_a_hundred_times_is_neither_dropped_nor_skipped() {
    let mut world = World::new(1);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for _ in 0..100 {
            world.store.fail_next(Call::Put, Fault::Unavailable);
        }
        put(&cache, "/kept/f", b"bytes").await.unwrap();
        persisted(&cache).await;
        assert!(world.store.calls(Call::Put) >= 101, "{}", world.store.calls(Call::Put));
        assert_eq!(world.store.contents()["f"], b"bytes"[..]);
    });
}

#[test]
fn what_is_refused_for_hours_is_kept_and_goes_when_it_may() {
    let mut world = World::new(2);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.store.refuse(&["f"]);
        put(&cache, "/kept/f", b"bytes").await.unwrap();
        world.clock.sleep(5 * HOUR).await;
        let status = cache.status().await.unwrap();
        assert_eq!((status.blocked.len(), status.dirty_files), (1, 1));
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"bytes");
        world.store.refuse(&[]);
        persisted(&cache).await;
        assert_eq!(world.store.contents()["f"], b"bytes"[..]);
    });
}

#[test]
fn a_store_whose_uploads_hang_holds_up_no_change_of_names() {
    let mut world = World::new(3);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for _ in 0..50 {
            world.store.fail_next(Call::Put, Fault::Hang);
        }
        let began = world.clock.monotonic();
        for k in 0..100 {
            put(&cache, &format!("/kept/{k}"), b"1").await.unwrap();
            cache.mkdir(&at(&format!("/kept/d{k}")), false).await.unwrap();
            let (from, to) = (format!("/kept/{k}"), format!("/kept/d{k}/f"));
            cache.rename(&at(&from), &at(&to), Rename::default()).await.unwrap();
        }
        let took = world.clock.monotonic() - began;
        assert!(took < Duration::from_secs(5), "{took:?}");
        persisted(&cache).await;
        assert!(world.store.faults() > 0, "no upload hung");
        assert_eq!(world.store.contents().len(), 100);
    });
}

#[test]
fn a_file_deleted_while_its_upload_is_unclear_does_not_come_back() {
    for fault in [Fault::LostAnswer, Fault::Hang, Fault::Unavailable] {
        let mut world = World::new(4);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            world.store.fail_next(Call::Put, fault.clone());
            put(&cache, "/kept/f", b"bytes").await.unwrap();
            world.clock.sleep(Duration::from_millis(20)).await;
            cache.delete(&at("/kept/f"), false).await.unwrap();
            persisted(&cache).await;
            world.clock.sleep(HOUR).await;
            assert_eq!(world.store.faults(), 1, "{fault:?} did not hit");
            assert!(world.store.contents().is_empty(), "{fault:?}");
            assert_eq!(kind(get(&cache, "/kept/f").await), ErrorKind::NotFound);
        });
    }
}

#[test]
fn a_write_that_a_full_store_carries_out_late_does_not_bring_a_deleted_file_back() {
    let mut world = World::new(8);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/there", b"1").await.unwrap();
        persisted(&cache).await;
        world.store.set_full(true);
        let before = world.store.calls(Call::Put);
        put(&cache, "/kept/f", b"bytes").await.unwrap();
        put(&cache, "/kept/stays", b"2").await.unwrap();
        world.clock.sleep(Duration::from_secs(30)).await;
        assert!(world.store.calls(Call::Put) > before, "nothing was sent");
        cache.delete(&at("/kept/f"), false).await.unwrap();
        // It is asked for meanwhile, and is not there.
        world.clock.sleep(HOUR).await;
        world.store.set_full(false);
        persisted(&cache).await;
        assert_eq!(world.store.contents().keys().collect::<Vec<_>>(), ["stays", "there"]);
        assert_eq!(kind(get(&cache, "/kept/f").await), ErrorKind::NotFound);
    });
}

/// Seen with Ceph: the pool was full before it was known what the gateway honours, and two writes without a condition arrived late.
#[test]
fn nothing_is_sent_to_a_store_before_it_is_known_what_that_honours() {
    let mut world = World::new(11);
    world.store.set_full(true);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/f", b"bytes").await.unwrap();
        put(&cache, "/kept/stays", b"2").await.unwrap();
        world.clock.sleep(Duration::from_secs(40)).await;
        assert_eq!(world.store.calls(Call::Put), 0);
        cache.delete(&at("/kept/f"), false).await.unwrap();
        world.clock.sleep(Duration::from_secs(40)).await;
        world.store.set_full(false);
        persisted(&cache).await;
        assert_eq!(world.store.contents().keys().collect::<Vec<_>>(), ["stays"]);
    });
}

/// Carries out one of the writes to `/kept/f` or below it that the store still has. Whether there was one.
fn one_arrives(world: &World) -> bool {
    let mut one = true;
    let is_f = |write: &Write| write.key.starts_with('f') && std::mem::take(&mut one);
    world.store.carry_out(is_f) > 0
}

/// Of several tries the first arrived and was deleted, and the next came only then.
#[test]
fn of_several_tries_that_a_full_store_carries_out_late_none_brings_a_deleted_file_back() {
    let gaps = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(150)];
    for (gap, deletes_first) in gaps.into_iter().flat_map(|gap| [(gap, true), (gap, false)]) {
        let mut world = World::new(9);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            put(&cache, "/kept/there", b"1").await.unwrap();
            persisted(&cache).await;
            world.store.set_full(true);
            put(&cache, "/kept/f", b"bytes").await.unwrap();
            world.clock.sleep(Duration::from_secs(40)).await;
            if deletes_first {
                cache.delete(&at("/kept/f"), false).await.unwrap();
                world.clock.sleep(Duration::from_secs(40)).await;
            }
            world.store.set_slow();
            let mut arrived = 0;
            while one_arrives(world) {
                arrived += 1;
                if arrived == 1 && !deletes_first {
                    // It is found, and the file counts as persisted.
                    persisted(&cache).await;
                    cache.delete(&at("/kept/f"), false).await.unwrap();
                }
                world.clock.sleep(gap).await;
            }
            assert!(arrived > 2, "one try was all");
            persisted(&cache).await;
            let left = world.store.contents();
            let case = format!("{gap:?} apart, deleted first: {deletes_first}");
            assert_eq!(left.keys().collect::<Vec<_>>(), ["there"], "{case}");
            assert_eq!(kind(get(&cache, "/kept/f").await), ErrorKind::NotFound, "{case}");
        });
    }
}

/// The same with its whole directory, which does not show meanwhile either.
#[test]
fn what_a_full_store_carries_out_late_does_not_bring_a_removed_directory_back() {
    let mut world = World::new(10);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, "/kept/f/first", b"1").await.unwrap();
        persisted(&cache).await;
        world.store.set_full(true);
        put(&cache, "/kept/f/late", b"bytes").await.unwrap();
        world.clock.sleep(Duration::from_secs(40)).await;
        cache.delete(&at("/kept/f"), true).await.unwrap();
        world.clock.sleep(Duration::from_secs(1)).await;
        world.store.set_slow();
        let mut arrived = 0;
        while one_arrives(world) {
            arrived += 1;
            for _ in 0..8 {
                world.clock.sleep(Duration::from_millis(50)).await;
                let found = cache.stat(&at("/kept/f")).await;
                assert_eq!(kind(found), ErrorKind::NotFound, "after {arrived} of the tries");
            }
        }
        assert!(arrived > 2, "one try was all");
        persisted(&cache).await;
        world.clock.sleep(HOUR).await;
        assert!(world.store.contents().is_empty(), "{:?}", world.store.contents());
        assert_eq!(kind(cache.stat(&at("/kept/f")).await), ErrorKind::NotFound);
    });
}

#[test]
fn the_object_of_someone_else_is_not_taken_for_ours_after_an_unclear_answer() {
    let mut world = World::new(5);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.store.fail_next(Call::Put, Fault::Unavailable);
        put(&cache, "/kept/f", b"mine!").await.unwrap();
        world.clock.sleep(Duration::from_millis(20)).await;
        assert_eq!(world.store.faults(), 1, "the put did not fail yet");
        // Of the same length, at the same moment.
        world.store.write_outside("f", "other");
        world.clock.sleep(HOUR).await;
        let status = cache.status().await.unwrap();
        assert_eq!((status.conflicts.len(), status.dirty_files), (1, 1));
        assert_eq!(world.store.contents()["f"], b"other"[..], "never overwritten");
        assert_eq!(get(&cache, "/kept/f").await.unwrap(), b"mine!");
        cache.persist_resolve(&at("/kept/f"), Resolve::KeepMine).await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.contents()["f"], b"mine!"[..]);
    });
}

#[test]
fn the_end_of_an_upload_whose_answer_is_lost_is_done_once() {
    let mut world = World::new(6);
    world.settings.persist.single_put_bytes_max = ByteSize(50_000);
    world.settings.persist.part_bytes = ByteSize(30_000);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.store.fail_next(Call::Complete, Fault::LostAnswer);
        put(&cache, "/kept/f", &pattern(1, 200_000)).await.unwrap();
        persisted(&cache).await;
        assert_eq!(world.store.faults(), 1);
        assert_eq!((world.store.calls(Call::Complete), world.store.open_uploads()), (1, 0));
        assert_eq!(world.store.contents()["f"], pattern(1, 200_000));
    });
}

#[test]
fn a_part_that_hangs_is_given_up_and_holds_up_no_other_file() {
    let mut world = World::new(7);
    world.settings.persist.single_put_bytes_max = ByteSize(50_000);
    world.settings.persist.part_bytes = ByteSize(30_000);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.store.fail_next(Call::Part, Fault::Hang);
        put(&cache, "/kept/large", &pattern(1, 200_000)).await.unwrap();
        put(&cache, "/kept/small", b"1").await.unwrap();
        let began = world.clock.monotonic();
        while !world.store.contents().contains_key("small") {
            world.clock.sleep(Duration::from_millis(10)).await;
        }
        assert!(world.clock.monotonic() - began < Duration::from_secs(5));
        persisted(&cache).await;
        assert_eq!(world.store.faults(), 1);
        assert_eq!(world.store.contents()["large"], pattern(1, 200_000));
    });
}

#[test]
fn ten_outages_under_load_end_with_everything_in_the_store() {
    let mut world = World::new(8);
    world.settings.dirty_max = Some(ByteSize(1 << 20));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let mut written = 0;
        for outage in 0..10 {
            world.store.set_away(Some(StoreError::Unavailable("503".into())));
            // Some are acknowledged, then the limit is met: the next one waits.
            let waits = loop {
                let path = format!("/kept/{written:04}");
                let content = pattern(outage, 60_000);
                let write = put(&cache, &path, &content);
                let waited = tokio::time::timeout(Duration::from_secs(20), write).await;
                match waited {
                    Ok(done) => {
                        done.unwrap();
                        written += 1;
                    }
                    Err(_) => break path,
                }
            };
            let status = cache.status().await.unwrap();
            assert!(
                status.dirty_bytes <= 1 << 20 && status.dirty_bytes > 900_000,
                "{}",
                status.dirty_bytes
            );
            assert!(written >= (usize::from(outage) + 1) * 10, "{written}");
            world.store.set_away(None);
            // It goes on by itself, and so does what was waiting.
            put(&cache, &waits, &pattern(outage, 60_000)).await.unwrap();
            written += 1;
            persisted(&cache).await;
        }
        let contents = world.store.contents();
        assert_eq!(contents.len(), written);
        assert!(contents.keys().enumerate().all(|(k, key)| *key == format!("{k:04}")));
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 0);
    });
}
