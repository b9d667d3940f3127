//! Several data folders: which is which, what is kept apart, and what one can do for the other.

use super::*;
use forebay_runtime::disk::Fault;
use std::collections::HashSet;

/// Streams of both kinds in both folders, with what they hold.
async fn fill(store: &SegmentStore) -> Vec<(StreamId, Layout, Bytes)> {
    let mut written = Vec::new();
    for i in 0..8 {
        let (stream, content) = (StreamId(i, 1), bytes(i, if i % 4 < 2 { 3000 } else { 200_000 }));
        written.push((stream, write(store, stream, &content).await, content));
    }
    written
}

async fn assert_there(store: &SegmentStore, written: &[(StreamId, Layout, Bytes)]) {
    for (stream, layout, content) in written {
        assert_eq!(&read(store, *stream, layout).await.unwrap(), content, "{stream}");
    }
}

fn folder_of(layout: &Layout) -> u8 {
    match layout {
        Layout::Packed(extents) => extents[0].segment.folder(),
        Layout::Dedicated { segment, .. } => segment.folder(),
        Layout::Empty => panic!("it lies nowhere"),
    }
}

fn reversed(bench: &Bench) -> Open {
    let mut spec = bench.open_spec();
    spec.folders.reverse();
    spec
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_in_either_folder_is_there_after_a_kill_and_a_power_cut() {
    for seed in 0..20 {
        let bench = Bench::two(seed);
        let (store, _) = bench.open().await;
        let written = fill(&store).await;
        for number in [0, 1] {
            let kinds = written.iter().filter(|(_, layout, _)| folder_of(layout) == number);
            let kinds: HashSet<bool> = kinds.map(|(_, l, _)| matches!(l, Layout::Packed(_))).collect();
            assert_eq!(kinds.len(), 2, "seed {seed}: both kinds are in folder {number}");
        }
        let (store, _) = bench.kill_and_open().await;
        assert_there(&store, &written).await;
        let (store, recovered) = bench.cut_and_open().await;
        assert_there(&store, &written).await;
        for (stream, layout, _) in &written {
            assert_eq!(&recovered.streams[stream].layout, layout, "seed {seed}");
        }
        let usage = store.usage_by_folder();
        assert!(usage.iter().all(|folder| folder.usage.live_bytes > 0), "{usage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_order_of_the_folders_means_nothing() {
    let bench = Bench::two(1);
    let (store, _) = bench.open().await;
    assert_eq!(store.home(), folder());
    let written = fill(&store).await;
    store.shutdown().await;
    assert_eq!(home(&reversed(&bench).folders, &bench.tree()).unwrap(), folder());
    let (store, _) = SegmentStore::open(reversed(&bench)).await.unwrap();
    assert_eq!(store.home(), folder());
    assert_there(&store, &written).await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_missing_or_empty_refuses_the_start_and_nothing_is_made_in_its_place() {
    for lost in [0u8, 1] {
        let bench = Bench::two(2);
        let (store, _) = bench.open().await;
        let written = fill(&store).await;
        store.shutdown().await;
        let spec = bench.open_spec();
        // Not named.
        let named = vec![spec.folders[1 - usize::from(lost)].clone()];
        let refused = SegmentStore::open(Open {
            folders: named.clone(),
            ..bench.open_spec()
        });
        let missing = |e: &SegmentError| matches!(e, SegmentError::FolderMissing { number, .. } if *number == lost);
        let e = refused.await.unwrap_err();
        assert!(missing(&e), "{e}");
        assert!(missing(&home(&named, &bench.tree()).unwrap_err()));
        // Not mounted: under its mount point there is an empty folder.
        let below = SimDisk::new(3);
        let mounts = spec.folders.iter().zip(bench.disks()).map(|(folder, disk)| {
            let gone = *folder == spec.folders[usize::from(lost)];
            (folder.clone(), if gone { below.shared() } else { disk.shared() })
        });
        let refused = SegmentStore::open(Open {
            disk: Arc::new(MountedDisks::new(mounts)),
            ..bench.open_spec()
        });
        let e = refused.await.unwrap_err();
        assert!(missing(&e), "{e}");
        assert_eq!(below.calls().writes, 0, "nothing was written to the empty folder");
        // Back again.
        let (store, _) = bench.open().await;
        assert_there(&store, &written).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_joins_a_store_that_was_one_folder_and_no_other_one_takes_its_place() {
    let bench = Bench::two(4);
    let alone = Open {
        folders: vec![folder()],
        ..bench.open_spec()
    };
    let (store, _) = SegmentStore::open(alone).await.unwrap();
    let mut written = fill(&store).await;
    assert!(written.iter().all(|(_, layout, _)| folder_of(layout) == 0));
    bench.kill();
    let (store, _) = bench.open().await;
    assert_there(&store, &written).await;
    let (stream, content) = (StreamId(100, 1), bytes(100, 500_000));
    let mut layouts = Vec::new();
    for i in 0..2 {
        let stream = StreamId(stream.0 + i, 1);
        let layout = write(&store, stream, &content).await;
        layouts.push(folder_of(&layout));
        written.push((stream, layout, content.clone()));
    }
    layouts.sort_unstable();
    assert_eq!(layouts, [0, 1], "equal disks take turns");
    store.shutdown().await;
    // The disk of another store, and a copy of the home, in the place of the second folder.
    let foreign = SimDisk::new(5);
    let other = Open {
        disk: Arc::new(MountedDisks::new([(second_folder(), foreign.shared())])),
        folders: vec![second_folder()],
        identity: Identity {
            cluster: [4; 16],
            node: "there".into(),
        },
        ..bench.open_spec()
    };
    SegmentStore::open(other).await.unwrap().0.shutdown().await;
    let swapped = Open {
        disk: Arc::new(MountedDisks::new([
            (folder(), bench.disk.shared()),
            (second_folder(), foreign.shared()),
        ])),
        ..bench.open_spec()
    };
    let e = SegmentStore::open(swapped).await.unwrap_err();
    assert!(matches!(e, SegmentError::Foreign { .. }), "{e}");
    let (store, _) = bench.open().await;
    assert_there(&store, &written).await;
}

#[tokio::test(start_paused = true)]
async fn the_folder_of_another_store_of_the_same_cluster_is_refused() {
    let bench = Bench::two(6);
    bench.open().await.0.shutdown().await;
    // It joined another home as number 1, too, and has something.
    let (disk, home) = (SimDisk::new(7), SimDisk::new(8));
    let mounts = [(second_folder(), disk.shared()), ("/elsewhere".into(), home.shared())];
    let spec = Open {
        disk: Arc::new(MountedDisks::new(mounts)),
        folders: vec!["/elsewhere".into(), second_folder()],
        clock: SimClock::new(Timestamp(1_800_000_000_000_000)),
        ..bench.open_spec()
    };
    let (store, _) = SegmentStore::open(spec).await.unwrap();
    fill(&store).await;
    store.shutdown().await;
    let mounts = [(folder(), bench.disk.shared()), (second_folder(), disk.shared())];
    let spec = Open {
        disk: Arc::new(MountedDisks::new(mounts)),
        ..bench.open_spec()
    };
    let e = SegmentStore::open(spec).await.unwrap_err();
    assert!(
        matches!(&e, SegmentError::Misplaced { folder, .. } if *folder == second_folder()),
        "{e}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_folder_is_taken_out_for_good_and_may_join_again_as_another() {
    let bench = Bench::two(12);
    let (store, _) = bench.open().await;
    let written = fill(&store).await;
    let take_out = |out: PathBuf| take_out(&out, &bench.folders(), &bench.tree());
    assert!(matches!(take_out(second_folder()), Err(SegmentError::Locked { .. })));
    store.shutdown().await;
    for out in [folder(), second_folder(), "/elsewhere".into()] {
        let e = take_out(out.clone()).unwrap_err();
        assert!(
            matches!(&e, SegmentError::Misplaced { folder, .. } if *folder == out),
            "{e}"
        );
    }
    let (store, _) = bench.open().await;
    let (mut kept, gone): (Vec<_>, Vec<_>) = written.into_iter().partition(|(_, layout, _)| folder_of(layout) == 0);
    for (stream, layout, _) in &gone {
        store.release(*stream, layout);
    }
    store.shutdown().await;
    take_out(second_folder()).unwrap();
    bench.restart();
    let alone = Open {
        folders: vec![folder()],
        ..bench.open_spec()
    };
    let (store, _) = SegmentStore::open(alone).await.unwrap();
    assert_there(&store, &kept).await;
    store.shutdown().await;
    let (store, _) = bench.open().await;
    for i in 50..54 {
        let (stream, content) = (StreamId(i, 1), bytes(i, 3000));
        kept.push((stream, write(&store, stream, &content).await, content));
    }
    let numbers: HashSet<u8> = kept.iter().map(|(_, layout, _)| folder_of(layout)).collect();
    assert_eq!(numbers, HashSet::from([0, 2]), "a number is never given again");
    let (store, _) = bench.cut_and_open().await;
    assert_there(&store, &kept).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_start_that_ends_anywhere_is_followed_by_one_that_goes_well() {
    for alone_first in [false, true] {
        let mut reached = 0;
        for steps in 0..200 {
            for which in [0, 1] {
                let bench = Bench::two(steps);
                if alone_first {
                    let alone = Open {
                        folders: vec![folder()],
                        ..bench.open_spec()
                    };
                    fill(&SegmentStore::open(alone).await.unwrap().0).await;
                    bench.kill();
                }
                bench.disks().nth(which).unwrap().arm(Fault::PowerOff(steps));
                let first = bench.try_open().await;
                reached += u32::from(first.is_err());
                bench.restart();
                let (store, _) = bench.open().await;
                let written = fill(&store).await.len();
                let (_, recovered) = bench.cut_and_open().await;
                assert!(recovered.streams.len() >= written, "{alone_first} {steps} {which}");
            }
        }
        assert!(reached > 20, "the power went off during the start {reached} times");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_passed_over_and_an_append_that_it_refuses_goes_to_the_other() {
    let bench = Bench::two(9);
    let (store, _) = bench.open().await;
    let mut writers: Vec<_> = (0..4).map(|i| store.create(StreamId(i, 1), None)).collect();
    for writer in &mut writers {
        writer.append(&[bytes(1, 1000)], note("first")).await.unwrap();
    }
    bench.second.as_ref().unwrap().set_capacity(0);
    for writer in &mut writers {
        // More than is reserved in the file that is open.
        writer.append(&[bytes(2, 60_000)], note("second")).await.unwrap();
        for i in 0..200 {
            writer.append(&[bytes(3 + i, 60_000)], Bytes::new()).await.unwrap();
        }
    }
    let full = bench.second.as_ref().unwrap().shared();
    assert_eq!(full.space(&second_folder()).unwrap().free, 0);
    let mut written = Vec::new();
    for writer in writers {
        let (stream, len) = (writer.stream(), writer.written());
        let layout = writer.seal().await.unwrap();
        assert_eq!((folder_of(&layout), layout.len()), (0, len));
        let content = read(&store, stream, &layout).await.unwrap();
        written.push((stream, layout, content));
    }
    for i in 10..20 {
        let (stream, content) = (StreamId(i, 1), bytes(i, if i % 2 == 0 { 3000 } else { 200_000 }));
        let layout = write(&store, stream, &content).await;
        assert_eq!(folder_of(&layout), 0);
        written.push((stream, layout, content));
    }
    let draft = store.draft(StreamId(20, 1)).unwrap();
    draft.write_at(&bytes(20, 100_000), 0).unwrap();
    let (layout, _) = draft.seal().await.unwrap();
    assert_eq!(folder_of(&layout), 0);
    bench.second.as_ref().unwrap().set_capacity(1 << 40);
    let (store, _) = bench.cut_and_open().await;
    assert_there(&store, &written).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_costs_what_lies_on_it_and_the_next_streams_go_elsewhere() {
    let bench = Bench::two(10);
    let (store, _) = bench.open().await;
    let written = fill(&store).await;
    // Nothing on it can be written, flushed or made any more.
    bench.second.as_ref().unwrap().arm(Fault::PowerOff(0));
    let mut failed = 0;
    for i in 30..50 {
        let mut writer = store.create(StreamId(i, 1), Some(100_000));
        let added = writer.append(&[bytes(i, 100_000)], Bytes::new()).await;
        failed += usize::from(added.is_err() || writer.seal().await.is_err());
    }
    assert!(failed <= 1, "{failed} streams were tried on the disk that fails");
    let (mut good, mut lost) = (0, 0);
    for (stream, layout, content) in &written {
        match (folder_of(layout), read(&store, *stream, layout).await) {
            (0, found) => {
                assert_eq!(&found.unwrap(), content);
                good += 1;
            }
            (_, found) => lost += usize::from(found.is_err()),
        }
    }
    assert!(good > 0 && lost > 0, "{good} {lost}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_moved_to_another_folder_is_found_once_wherever_the_power_goes_off() {
    let mut reached = 0;
    for steps in 0..60 {
        for which in [0, 1] {
            let bench = Bench::two(steps);
            let (store, _) = bench.open().await;
            let mut writers: Vec<_> = (0..2).map(|i| store.create(StreamId(i, 1), None)).collect();
            for writer in &mut writers {
                writer.append(&[bytes(7, 5000)], note("first")).await.unwrap();
                writer.sync().await.unwrap();
            }
            // Both are packed, one in each folder, and the second disk is full now.
            bench.second.as_ref().unwrap().set_capacity(0);
            bench.disks().nth(which).unwrap().arm(Fault::PowerOff(steps));
            let mut acknowledged = Vec::new();
            for mut writer in writers {
                let mut appends = 1;
                for i in 0..170 {
                    let added = writer.append(&[bytes(i, 60_000)], note("more")).await;
                    if added.is_err() || writer.sync().await.is_err() {
                        break;
                    }
                    appends += 1;
                }
                acknowledged.push((writer.stream(), appends));
            }
            reached += u32::from(acknowledged.iter().any(|(_, appends)| *appends < 171));
            bench.second.as_ref().unwrap().set_capacity(1 << 40);
            bench.restart();
            let (store, recovered) = bench.open().await;
            for (stream, appends) in acknowledged {
                let found = &recovered.streams[&stream];
                assert!(found.appends.len() >= appends, "{stream} {steps} {which}");
                let content = read(&store, stream, &found.layout).await.unwrap();
                assert_eq!(content.slice(..5000), bytes(7, 5000), "{stream} {steps} {which}");
                let mut writer = store.resume(stream, found.clone()).unwrap();
                writer.append(&[bytes(9, 10)], Bytes::new()).await.unwrap();
                let layout = writer.seal().await.unwrap();
                assert_eq!(layout.len(), content.len() as u64 + 10);
            }
        }
    }
    assert!(reached > 20, "the power went off while they moved {reached} times");
}

#[tokio::test(start_paused = true)]
async fn fsck_and_scrub_find_rot_in_the_second_folder() {
    let bench = Bench::two(11);
    let (store, _) = bench.open().await;
    let written = fill(&store).await;
    let (stream, data) = written
        .iter()
        .find_map(|(stream, layout, _)| match layout {
            Layout::Dedicated { segment, .. } if segment.folder() == 1 => Some((*stream, format!("{segment}.data"))),
            _ => None,
        })
        .unwrap();
    bench
        .second
        .as_ref()
        .unwrap()
        .flip(&second_folder().join(data), 150_000, 1);
    let mut findings = Vec::new();
    store.scrub(ByteSize::gib(1), |finding| findings.push(finding)).await;
    assert_eq!(findings.iter().map(|f| f.stream).collect::<Vec<_>>(), [Some(stream)]);
    store.shutdown().await;
    assert_eq!(fsck(&second_folder(), &bench.tree()).unwrap().findings.len(), 1);
    assert!(fsck(&folder(), &bench.tree()).unwrap().findings.is_empty());
}
