//! What a caller may rely on while nothing goes wrong.

use super::*;
use crate::crc::crc32c;
use forebay_runtime::{
    clock::RealClock,
    disk::{Disk, OpenHow, RealDisk},
};
use std::collections::HashSet;

#[tokio::test(start_paused = true)]
async fn small_and_large_streams_read_back_before_and_after_a_restart() {
    let bench = Bench::new(1);
    let (store, recovered) = bench.open().await;
    assert!(recovered.streams.is_empty());
    let mut written = Vec::new();
    for (i, len) in [0, 1, 100, 4096, 65_535, 65_536, 65_537, 200_000, 300_000, 1_000_000]
        .into_iter()
        .enumerate()
    {
        let (stream, content) = (StreamId(i as u64, 7), bytes(i as u64, len));
        let layout = write(&store, stream, &content).await;
        assert_eq!(layout.len(), len as u64);
        assert_eq!(matches!(layout, Layout::Dedicated { .. }), len > 65_536, "{len}");
        assert_eq!(read(&store, stream, &layout).await.unwrap(), content, "{len}");
        written.push((stream, layout, content));
    }
    store.shutdown().await;
    let (store, recovered) = bench.cut_and_open().await;
    assert_eq!(store.incarnation(), 2);
    for (stream, layout, content) in written {
        let found = &recovered.streams[&stream];
        assert_eq!((&found.layout, found.crc), (&layout, crc32c(&content)));
        assert_eq!(found.appends.len(), 1);
        assert_eq!(read(&store, stream, &layout).await.unwrap(), content);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_stream_leaves_nothing() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let mut writer = store.create(StreamId(1, 1), Some(1 << 30));
    assert_eq!(writer.sync().await.unwrap(), Stable::default());
    assert_eq!(writer.seal().await.unwrap(), Layout::Empty);
    assert!(read(&store, StreamId(1, 1), &Layout::Empty).await.unwrap().is_empty());
    assert_eq!(store.usage().segments, 0);
}

#[tokio::test(start_paused = true)]
async fn ranges_are_cut_from_packed_and_dedicated_streams() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    for (stream, pieces) in [
        (StreamId(1, 1), vec![1, 5000, 0, 300, 7000]),
        (StreamId(2, 1), vec![50_000; 12]),
    ] {
        let mut writer = store.create(stream, None);
        let mut content = Vec::new();
        for (i, len) in pieces.into_iter().enumerate() {
            let piece = bytes(stream.0 * 100 + i as u64, len);
            content.extend_from_slice(&piece);
            let halves = [piece.slice(..len / 2), piece.slice(len / 2..)];
            assert_eq!(
                writer.append(&halves, note(i.to_string())).await.unwrap(),
                content.len() as u64
            );
        }
        assert_eq!(writer.crc(), crc32c(&content));
        let layout = writer.seal().await.unwrap();
        let reader = store.reader(stream, &layout).unwrap();
        let len = content.len() as u64;
        for range in [
            0..0,
            0..1,
            0..len,
            1..len - 1,
            4999..5003,
            len / 2..len / 2 + 700,
            len - 1..len,
            len..len,
        ] {
            let found = reader.read(range.clone()).await.unwrap().concat();
            assert_eq!(found, content[range.start as usize..range.end as usize], "{range:?}");
        }
        let beyond = reader.read(0..len + 1).await;
        assert!(matches!(beyond, Err(SegmentError::Invalid { .. })), "{beyond:?}");
        let mapped = reader.mapped().await.unwrap();
        assert_eq!(mapped.is_some(), matches!(layout, Layout::Dedicated { .. }));
        assert!(mapped.is_none_or(|all| all == content));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stable_is_told_and_found_with_its_notes_after_a_power_cut() {
    for seed in 0..20 {
        let bench = Bench::new(seed);
        let (store, _) = bench.open().await;
        let mut writers = Vec::new();
        for stream in [StreamId(1, 1), StreamId(2, 1), StreamId(3, 9)] {
            let mut writer = store.create(stream, None);
            for i in 0..4u64 {
                writer
                    .append(
                        &[bytes(i, 100 + 20_000 * (stream.0 as usize - 1))],
                        note(format!("{i}")),
                    )
                    .await
                    .unwrap();
            }
            let stable = writer.sync().await.unwrap();
            assert_eq!((stable.bytes, stable.appends), (writer.written(), 4));
            writer.append(&[bytes(9, 50)], note("last")).await.unwrap();
            writers.push(writer);
        }
        let (store, mut recovered) = bench.cut_and_open().await;
        for stream in [StreamId(1, 1), StreamId(2, 1), StreamId(3, 9)] {
            let found = recovered.streams.remove(&stream).unwrap();
            assert!(found.appends.len() >= 4 && !found.sealed, "seed {seed}: {found:?}");
            for (i, append) in found.appends.iter().enumerate().take(4) {
                assert_eq!(append.note, i.to_string(), "seed {seed}");
            }
            let len = found.layout.len();
            let mut writer = store.resume(stream, found).unwrap();
            assert_eq!(writer.written(), len);
            writer.append(&[bytes(77, 70_000)], note("more")).await.unwrap();
            let crc = writer.crc();
            let layout = writer.seal().await.unwrap();
            let content = read(&store, stream, &layout).await.unwrap();
            assert_eq!(content.len() as u64, len + 70_000, "seed {seed}");
            assert_eq!(crc32c(&content), crc, "seed {seed}");
            assert_eq!(content[len as usize..], bytes(77, 70_000), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn followers_read_what_is_stable_through_switch_seal_release_and_removal() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let stream = StreamId(1, 1);
    let mut writer = store.create(stream, None);
    let follower = writer.follow();
    let mut content = Vec::new();
    for i in 0..30 {
        let piece = bytes(i, 10_000);
        writer.append(std::slice::from_ref(&piece), Bytes::new()).await.unwrap();
        let before = follower.read(0..content.len() as u64 + 1).await;
        assert!(matches!(before, Err(SegmentError::Invalid { .. })), "not durable yet");
        content.extend_from_slice(&piece);
        writer.sync().await.unwrap();
        let from = content.len() as u64 - 15_000.min(content.len() as u64);
        let found = follower.read(from..content.len() as u64).await.unwrap().concat();
        assert_eq!(found, content[from as usize..], "append {i}");
    }
    let layout = writer.seal().await.unwrap();
    store.release(stream, &layout);
    store.retain(&HashSet::new()).await;
    assert!(bench.files_like(".data").is_empty());
    assert_eq!(follower.read(5..290_000).await.unwrap().concat(), content[5..290_000]);
}

#[tokio::test(start_paused = true)]
async fn a_packed_stream_stays_short_in_its_row() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let mut writer = store.create(StreamId(1, 1), None);
    for i in 0..2000u64 {
        writer.append(&[bytes(i, 3)], note("n")).await.unwrap();
    }
    let layout = writer.seal().await.unwrap();
    assert!(matches!(layout, Layout::Dedicated { len: 6000, .. }), "{layout:?}");
    let (_, recovered) = bench.cut_and_open().await;
    assert_eq!(recovered.streams[&StreamId(1, 1)].appends.len(), 2000);
}

#[tokio::test(start_paused = true)]
async fn many_small_files_share_few_flushes() {
    let mut bench = Bench::new(1);
    bench.settings = Settings::default();
    let (store, _) = bench.open().await;
    let before = bench.disk.calls();
    // A thousand files that are on their way at once.
    let writes = (0..1000).map(|i| {
        let store = store.clone();
        async move { write(&store, StreamId(i, 1), &bytes(i, 4096)).await }
    });
    let layouts = futures::future::join_all(writes).await;
    let after = bench.disk.calls();
    let flushes = after.syncs + after.dir_syncs - before.syncs - before.dir_syncs;
    assert!(flushes <= 10, "{flushes} flushes");
    let (store, _) = bench.cut_and_open().await;
    for (i, layout) in layouts.iter().enumerate() {
        assert_eq!(
            read(&store, StreamId(i as u64, 1), layout).await.unwrap(),
            bytes(i as u64, 4096)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn eight_writers_that_wait_for_each_file_share_their_flushes() {
    let mut bench = Bench::new(1);
    bench.settings = Settings::default();
    let (store, _) = bench.open().await;
    let before = bench.disk.calls();
    let writers = (0..8).map(|w| {
        let store = store.clone();
        async move {
            for i in 0..125 {
                write(&store, StreamId(w * 1000 + i, 1), &bytes(i, 4096)).await;
            }
        }
    });
    futures::future::join_all(writers).await;
    let after = bench.disk.calls();
    let flushes = after.syncs + after.dir_syncs - before.syncs - before.dir_syncs;
    // Eight at a time cannot share more than eight to a flush.
    assert!((125..=140).contains(&flushes), "{flushes} flushes");
}

#[tokio::test(start_paused = true)]
async fn a_seal_costs_no_flush_beyond_the_one_its_bytes_ride_in() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    write(&store, StreamId(1, 1), &bytes(1, 10)).await;
    let before = bench.disk.calls();
    write(&store, StreamId(2, 1), &bytes(2, 4096)).await;
    assert_eq!(bench.disk.calls().syncs - before.syncs, 1);
    assert_eq!(bench.disk.calls().dir_syncs, before.dir_syncs);
    let mut writer = store.create(StreamId(3, 1), None);
    writer.append(&[bytes(3, 100_000)], Bytes::new()).await.unwrap();
    writer.sync().await.unwrap();
    let before = bench.disk.calls();
    writer.append(&[bytes(3, 100_000)], Bytes::new()).await.unwrap();
    writer.seal().await.unwrap();
    // Data and log.
    assert_eq!(bench.disk.calls().syncs - before.syncs, 2);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_flushed_all_the_same() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    for (stream, len) in [(StreamId(1, 1), 100), (StreamId(2, 1), 100_000)] {
        let mut writer = store.create(stream, None);
        writer.append(&[bytes(1, len)], Bytes::new()).await.unwrap();
        let mut stable = writer.stable();
        let waited = tokio::time::timeout(std::time::Duration::from_secs(1), stable.wait_for(|s| s.appends == 1));
        assert_eq!(waited.await.unwrap().unwrap().bytes, len as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn released_segments_go_and_the_rest_stays() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let mut streams = Vec::new();
    for i in 0..40 {
        let content = bytes(i, if i % 10 == 9 { 100_000 } else { 30_000 });
        streams.push((StreamId(i, 1), write(&store, StreamId(i, 1), &content).await, content));
    }
    assert_eq!(bench.files_like(".data").len(), 4);
    let many = bench.files_like(".shared").len();
    assert!(many >= 4, "{many}");
    assert_eq!(
        store.usage().live_bytes,
        streams.iter().map(|s| s.2.len() as u64).sum::<u64>()
    );
    for (stream, layout, _) in streams.drain(..30) {
        store.release(stream, &layout);
        store.release(stream, &layout);
    }
    store.retain(&HashSet::new()).await;
    assert_eq!(bench.files_like(".data").len(), 1);
    assert!(bench.files_like(".shared").len() < many);
    for (stream, layout, content) in &streams {
        assert_eq!(&read(&store, *stream, layout).await.unwrap(), content);
    }
    let (store, recovered) = bench.cut_and_open().await;
    for (stream, layout, content) in &streams {
        assert_eq!(&recovered.streams[stream].layout, layout);
        assert_eq!(&read(&store, *stream, layout).await.unwrap(), content);
    }
    store.retain(&HashSet::new()).await;
    assert!(
        bench.files_like(".data").is_empty() && bench.files_like(".shared").is_empty(),
        "{:?}",
        bench.files()
    );
    assert_eq!(store.usage().live_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_discarded_stream_does_not_come_back() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    for (stream, len) in [(StreamId(1, 1), 1000), (StreamId(2, 1), 100_000)] {
        let mut writer = store.create(stream, None);
        writer.append(&[bytes(1, len)], Bytes::new()).await.unwrap();
        writer.sync().await.unwrap();
        writer.discard();
    }
    write(&store, StreamId(3, 1), &bytes(3, 10)).await;
    store.retain(&HashSet::new()).await;
    let (_, recovered) = bench.cut_and_open().await;
    assert_eq!(recovered.streams.keys().collect::<Vec<_>>(), [&StreamId(3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn retain_keeps_the_live_and_drops_the_rest() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let kept = write(&store, StreamId(1, 1), &bytes(1, 100_000)).await;
    write(&store, StreamId(2, 1), &bytes(2, 100_000)).await;
    let (store, recovered) = bench.kill_and_open().await;
    assert_eq!(recovered.streams.len(), 2);
    store.retain(&HashSet::from([StreamId(1, 1)])).await;
    assert_eq!(bench.files_like(".data").len(), 1);
    assert_eq!(read(&store, StreamId(1, 1), &kept).await.unwrap(), bytes(1, 100_000));
}

#[tokio::test(start_paused = true)]
async fn a_folder_is_opened_once_and_refused_to_strangers() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    assert!(matches!(bench.try_open().await, Err(SegmentError::Locked { .. })));
    assert!(matches!(
        fsck(&folder(), &bench.disk.shared()),
        Err(SegmentError::Locked { .. })
    ));
    store.shutdown().await;
    let mut late = store.create(StreamId(1, 1), None);
    assert!(matches!(
        late.append(&[bytes(1, 1)], Bytes::new()).await,
        Err(SegmentError::Closed)
    ));

    let mut foreign = bench.open_spec();
    foreign.identity.cluster = [4; 16];
    assert!(matches!(
        SegmentStore::open(foreign).await,
        Err(SegmentError::Foreign { .. })
    ));
    let mut renamed = bench.open_spec();
    renamed.identity.node = "there".into();
    let (store, recovered) = SegmentStore::open(renamed).await.unwrap();
    assert!(
        recovered.notes.iter().any(|n| n.contains("there")),
        "{:?}",
        recovered.notes
    );
    store.shutdown().await;
    let mut nameless = bench.open_spec();
    nameless.identity.node = "x".repeat(256);
    assert!(matches!(
        SegmentStore::open(nameless).await,
        Err(SegmentError::Invalid { .. })
    ));
    bench.disk.set_durable(false);
    assert!(matches!(bench.try_open().await, Err(SegmentError::NotDurable { .. })));
    let mut memory = bench.open_spec();
    memory.durable = false;
    SegmentStore::open(memory).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_append_ends_the_writer_but_not_the_store() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let mut writer = store.create(StreamId(1, 1), None);
    writer.append(&[bytes(1, 10)], Bytes::new()).await.unwrap();
    let large = [bytes(2, 100_000)];
    {
        let append = writer.append(&large, Bytes::new());
        futures::pin_mut!(append);
        assert!(futures::poll!(&mut append).is_pending());
    }
    let refused = writer.append(&[bytes(1, 1)], Bytes::new()).await;
    assert!(matches!(refused, Err(SegmentError::Invalid { .. })), "{refused:?}");
    assert!(writer.seal().await.is_err());
    write(&store, StreamId(2, 1), &bytes(3, 10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_disk_many_tasks_write_follow_and_read() {
    let home = tempfile::tempdir().unwrap();
    let open = || Open {
        disk: RealDisk::shared(),
        clock: RealClock::shared(),
        folders: vec![home.path().join("segments")],
        identity: Identity {
            cluster: [3; 16],
            node: "here".into(),
        },
        durable: false,
        settings: Settings {
            reserve_bytes: ByteSize::kib(64),
            ..Settings::default()
        },
    };
    let (store, _) = SegmentStore::open(open()).await.unwrap();
    let tasks: Vec<_> = (0..16u64)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut writer = store.create(StreamId(i, 1), None);
                let follower = writer.follow();
                let piece = bytes(i, if i % 4 == 0 { 300_000 } else { 3000 });
                let reading = tokio::spawn(async move {
                    let (mut stable, mut at, mut all) = (follower.stable(), 0, Vec::new());
                    while at < 20 * if i % 4 == 0 { 300_000 } else { 3000 } {
                        let end = stable.wait_for(|s| s.bytes > at).await.unwrap().bytes;
                        all.extend(follower.read(at..end).await.unwrap().concat());
                        at = end;
                    }
                    all
                });
                for _ in 0..20 {
                    writer.append(std::slice::from_ref(&piece), Bytes::new()).await.unwrap();
                }
                let layout = writer.seal().await.unwrap();
                assert_eq!(reading.await.unwrap(), piece.repeat(20));
                layout
            })
        })
        .collect();
    let mut layouts = Vec::new();
    for task in tasks {
        layouts.push(task.await.unwrap());
    }
    let large = store.reader(StreamId(0, 1), &layouts[0]).unwrap();
    let (path, _) = large.file().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), large.mapped().await.unwrap().unwrap());
    store.shutdown().await;
    drop(store);
    let report = fsck(&home.path().join("segments"), &RealDisk::shared()).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    assert_eq!(report.streams, 16);
    let (store, recovered) = SegmentStore::open(open()).await.unwrap();
    assert_eq!(recovered.notes, Vec::<String>::new());
    for (i, layout) in layouts.iter().enumerate() {
        let stream = StreamId(i as u64, 1);
        let len = if i % 4 == 0 { 300_000 } else { 3000 };
        assert_eq!(
            read(&store, stream, layout).await.unwrap(),
            bytes(i as u64, len).repeat(20)
        );
    }
    let reserve = RealDisk
        .open(&home.path().join("segments/reserve"), OpenHow::Read)
        .unwrap();
    assert_eq!(reserve.len().unwrap(), 64 << 10);
}
