//! Failed flushes and writes, and full disks.

use super::*;
use forebay_runtime::disk::Fault;
use std::{collections::HashSet, time::Duration};

#[tokio::test(start_paused = true)]
async fn after_a_failed_flush_a_shared_segment_never_acknowledges_again() {
    for seed in 0..20 {
        let bench = Bench::new(seed);
        let (store, _) = bench.open().await;
        let before = write(&store, StreamId(1, 1), &bytes(1, 1000)).await;
        let (mut hit, mut idle) = (store.create(StreamId(2, 1), None), store.create(StreamId(3, 1), None));
        idle.append(&[bytes(3, 100)], note("idle")).await.unwrap();
        idle.sync().await.unwrap();
        hit.append(&[bytes(2, 100)], Bytes::new()).await.unwrap();
        bench.disk.arm(Fault::Sync(1));
        let failed = hit.sync().await;
        assert!(matches!(failed, Err(SegmentError::Poisoned { .. })), "{failed:?}");
        assert!(hit.stable().borrow().poisoned.is_some());
        assert_eq!(bench.disk.calls().faults, 1);
        let again = hit.sync().await;
        assert!(matches!(again, Err(SegmentError::Poisoned { .. })), "{again:?}");
        assert!(hit.append(&[bytes(2, 1)], Bytes::new()).await.is_err());
        assert!(hit.seal().await.is_err());
        assert_eq!(store.usage().poisoned, 1);

        // Whoever had nothing at stake goes on in a new segment.
        idle.append(&[bytes(4, 100)], note("on")).await.unwrap();
        let on = idle.seal().await.unwrap();
        let after = write(&store, StreamId(4, 1), &bytes(5, 1000)).await;
        let Layout::Packed(extents) = &after else {
            panic!("{after:?}")
        };
        let Layout::Packed(old) = &before else {
            panic!("{before:?}")
        };
        assert_ne!(extents[0].segment, old[0].segment);

        let (store, recovered) = bench.cut_and_open().await;
        assert!(
            !recovered.streams.contains_key(&StreamId(2, 1)),
            "seed {seed}: pages that the disk never got were believed"
        );
        assert_eq!(read(&store, StreamId(1, 1), &before).await.unwrap(), bytes(1, 1000));
        assert_eq!(
            read(&store, StreamId(3, 1), &on).await.unwrap(),
            [bytes(3, 100), bytes(4, 100)].concat()
        );
        assert_eq!(read(&store, StreamId(4, 1), &after).await.unwrap(), bytes(5, 1000));
    }
}

/// Found by the simulation: the copy to the dedicated segment met a shared one that had just been cut, and called it damaged.
#[tokio::test(start_paused = true)]
async fn a_stream_that_outgrows_a_segment_that_just_failed_is_poisoned_and_not_damaged() {
    let mut poisoned = 0;
    for yields in 0..6 {
        let bench = Bench::new(1);
        let (store, _) = bench.open().await;
        let (mut grows, mut other) = (store.create(StreamId(1, 1), None), store.create(StreamId(2, 1), None));
        // No flush holds on for them any more.
        tokio::time::sleep(Duration::from_millis(30)).await;
        grows.append(&[bytes(1, 60_000)], Bytes::new()).await.unwrap();
        other.append(&[bytes(2, 100)], Bytes::new()).await.unwrap();
        bench.disk.arm(Fault::Sync(1));
        let synced = tokio::spawn(async move { other.sync().await });
        let grown = tokio::spawn(async move {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            let before = grows.stable().borrow().poisoned.is_some();
            (before, grows.append(&[bytes(1, 60_000)], Bytes::new()).await)
        });
        assert!(matches!(synced.await.unwrap(), Err(SegmentError::Poisoned { .. })));
        match grown.await.unwrap() {
            (_, Ok(_)) => {}
            (before, Err(SegmentError::Poisoned { .. })) => poisoned += u32::from(!before),
            other => panic!("{yields}: {other:?}"),
        }
    }
    assert!(poisoned > 0, "no copy met the cut");
}

#[tokio::test(start_paused = true)]
async fn a_seal_that_fails_leaves_nothing_behind() {
    for len in [100, 100_000] {
        let bench = Bench::new(1);
        let (store, _) = bench.open().await;
        let mut writer = store.create(StreamId(1, 1), None);
        writer.append(&[bytes(1, len)], Bytes::new()).await.unwrap();
        writer.sync().await.unwrap();
        writer.append(&[bytes(2, len)], Bytes::new()).await.unwrap();
        bench.disk.arm(Fault::Sync(1));
        let failed = writer.seal().await;
        assert!(matches!(failed, Err(SegmentError::Poisoned { .. })), "{failed:?}");
        store.retain(&HashSet::new()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(store.usage().live_bytes, 0, "{len}");
        assert!(
            bench.files_like(".data").is_empty() && bench.files_like(".shared").is_empty(),
            "{:?}",
            bench.files()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pages_left_in_memory_by_a_failed_flush_are_not_believed_by_the_next_process() {
    for len in [100, 100_000] {
        let bench = Bench::new(1);
        let (store, _) = bench.open().await;
        let mut writer = store.create(StreamId(1, 1), None);
        writer.append(&[bytes(1, len)], Bytes::new()).await.unwrap();
        bench.disk.arm(Fault::Sync(1));
        writer.sync().await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (_, recovered) = bench.kill_and_open().await;
        assert!(recovered.streams.is_empty(), "{len}: {:?}", recovered.streams);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_flush_at_any_moment_ends_a_dedicated_stream_at_what_was_acknowledged() {
    for nth in 1..=8 {
        let bench = Bench::new(nth);
        let (store, _) = bench.open().await;
        let mut writer = store.create(StreamId(1, 1), Some(1 << 20));
        let (mut acked, mut content) = (0, Vec::new());
        bench.disk.arm(Fault::Sync(nth));
        for i in 0..5 {
            let piece = bytes(i, 70_000);
            if writer
                .append(std::slice::from_ref(&piece), note(i.to_string()))
                .await
                .is_err()
            {
                break;
            }
            content.extend_from_slice(&piece);
            match writer.sync().await {
                Ok(stable) => acked = stable.bytes,
                Err(e) => assert!(matches!(e, SegmentError::Poisoned { .. }), "{e:?}"),
            }
        }
        assert_eq!(bench.disk.calls().faults, 1, "nth {nth}");
        assert!(acked < content.len() as u64, "nth {nth}");
        let (store, recovered) = bench.cut_and_open().await;
        let found = recovered
            .streams
            .get(&StreamId(1, 1))
            .map_or(Layout::Empty, |s| s.layout.clone());
        assert_eq!(found.len(), acked, "nth {nth}");
        assert_eq!(
            read(&store, StreamId(1, 1), &found).await.unwrap(),
            content[..acked as usize]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_nothing_more_is_written_and_what_was_durable_is_found() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let mut writers = Vec::new();
    for (stream, len) in [(StreamId(1, 1), 100), (StreamId(2, 1), 100_000)] {
        let mut writer = store.create(stream, None);
        writer.append(&[bytes(1, len)], Bytes::new()).await.unwrap();
        writers.push(writer);
    }
    store.shutdown().await;
    let (after, recovered) = bench.open().await;
    let before = bench.disk.calls();
    for mut writer in writers {
        let refused = writer.append(&[bytes(1, 1)], Bytes::new()).await.unwrap_err();
        assert!(
            matches!(refused, SegmentError::Closed | SegmentError::Poisoned { .. }),
            "{refused:?}"
        );
        drop(writer.seal().await);
    }
    assert_eq!(bench.disk.calls().syncs, before.syncs);
    assert_eq!(recovered.streams[&StreamId(1, 1)].layout.len(), 100);
    let large = &recovered.streams[&StreamId(2, 1)].layout;
    assert_eq!(read(&after, StreamId(2, 1), large).await.unwrap(), bytes(1, 100_000));
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_ends_the_segment_and_not_the_store() {
    for len in [100, 100_000] {
        let bench = Bench::new(5);
        let (store, _) = bench.open().await;
        let mut writer = store.create(StreamId(1, 1), None);
        writer.append(&[bytes(1, len)], Bytes::new()).await.unwrap();
        let stable = writer.sync().await.unwrap();
        bench.disk.arm(Fault::Write(1));
        let failed = writer.append(&[bytes(2, len)], Bytes::new()).await;
        assert!(
            matches!(failed, Err(SegmentError::Poisoned { .. })),
            "{len}: {failed:?}"
        );
        let layout = write(&store, StreamId(2, 1), &bytes(3, len)).await;
        let (store, recovered) = bench.cut_and_open().await;
        let found = &recovered.streams[&StreamId(1, 1)];
        assert_eq!(found.layout.len(), stable.bytes);
        assert_eq!(
            read(&store, StreamId(1, 1), &found.layout).await.unwrap(),
            bytes(1, len)
        );
        assert_eq!(read(&store, StreamId(2, 1), &layout).await.unwrap(), bytes(3, len));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_finds_no_room_adds_nothing_and_the_writer_goes_on_when_there_is_room() {
    for len in [100, 70_000] {
        let bench = Bench::new(5);
        let (store, _) = bench.open().await;
        let mut writer = store.create(StreamId(1, 1), None);
        writer.append(&[bytes(1, len)], note("a")).await.unwrap();
        bench.disk.arm(Fault::Full(1));
        let full = writer.append(&[bytes(2, len)], note("b")).await;
        assert!(matches!(full, Err(SegmentError::Full { .. })), "{full:?}");
        assert_eq!(writer.written(), len as u64);
        writer.append(&[bytes(3, len)], note("c")).await.unwrap();
        let layout = writer.seal().await.unwrap();
        let (store, recovered) = bench.cut_and_open().await;
        let notes: Vec<_> = recovered.streams[&StreamId(1, 1)]
            .appends
            .iter()
            .map(|a| a.note.clone())
            .collect();
        assert_eq!(notes, ["a", "c"]);
        let content = read(&store, StreamId(1, 1), &layout).await.unwrap();
        assert_eq!(content, [bytes(1, len), bytes(3, len)].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_ingest_ends_first_and_everything_else_goes_on() {
    let mut bench = Bench::new(5);
    bench.settings.reserve_bytes = ByteSize::kib(512);
    bench.disk.set_capacity(16 << 20);
    let (store, _) = bench.open().await;
    let mut written = Vec::new();
    let full = loop {
        let i = written.len() as u64;
        let (stream, content) = (
            StreamId(i, 1),
            bytes(i, if i.is_multiple_of(3) { 200_000 } else { 30_000 }),
        );
        let mut writer = store.create(stream, None);
        match writer.append(std::slice::from_ref(&content), Bytes::new()).await {
            Ok(_) => written.push((stream, writer.seal().await.unwrap(), content)),
            Err(e) => break e,
        }
    };
    assert!(matches!(full, SegmentError::Full { .. }), "{full:?}");
    assert!(written.len() > 20, "{}", written.len());
    // Small appends take what is left.
    let mut filler = store.create(StreamId(998, 1), None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    while filler.append(&[bytes(1, 1000)], Bytes::new()).await.is_ok() {}
    // The room kept back is there for others, not for more appends.
    let free = store.usage().free_bytes;
    assert!(free >= 512 << 10, "{free}");
    let mut writer = store.create(StreamId(999, 1), None);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let refused = writer.append(&[bytes(1, 10)], Bytes::new()).await;
        assert!(matches!(refused, Err(SegmentError::Full { .. })), "{refused:?}");
    }
    // Somebody else takes the rest. A start on the disk that is full to the last byte works, and so does giving things up.
    bench.disk.restart();
    bench
        .disk
        .set_capacity((16 << 20) - bench.disk.shared().space(&folder()).unwrap().free);
    let (store, _) = bench.open().await;
    let mut writer = store.create(StreamId(999, 1), None);
    assert!(matches!(
        writer.append(&[bytes(1, 10)], Bytes::new()).await,
        Err(SegmentError::Full { .. })
    ));
    for (stream, layout, content) in &written {
        assert_eq!(&read(&store, *stream, layout).await.unwrap(), content);
    }
    bench.disk.set_capacity(16 << 20);
    for (stream, layout, _) in &written {
        store.release(*stream, layout);
    }
    store.retain(&HashSet::new()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    write(&store, StreamId(1000, 1), &bytes(1, 100_000)).await;
    assert!(bench.files().contains(&("reserve".into(), 512 << 10)));
    assert!(store.make_room());
    assert!(bench.files().contains(&("reserve".into(), 0)));
}

#[tokio::test(start_paused = true)]
async fn without_fsync_a_power_cut_loses_what_was_acknowledged() {
    // The negative control: the simulated disk does notice.
    let lost = futures::future::join_all((0..20).map(|seed| async move {
        let mut bench = Bench::new(seed);
        bench.settings.fsync = false;
        let (store, _) = bench.open().await;
        write(&store, StreamId(1, 1), &bytes(1, 1000)).await;
        bench.disk.restart();
        let after = bench.try_open().await;
        after.map_or(true, |(_, recovered)| {
            recovered
                .streams
                .get(&StreamId(1, 1))
                .is_none_or(|s| s.layout.len() < 1000)
        })
    }));
    let lost = lost.await.into_iter().filter(|lost| *lost).count();
    assert!(lost >= 5, "{lost} of 20");
}
