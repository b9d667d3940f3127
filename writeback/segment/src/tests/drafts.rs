//! Drafts: what they promise while they change, at a sync, at the seal and across crashes.

use super::*;
use crate::{crc::crc32c, sums::BLOCK_BYTES};
use forebay_runtime::{
    clock::RealClock,
    disk::{Fault, RealDisk},
};
use std::{collections::HashSet, ops::Range, sync::Arc};

const STREAM: StreamId = StreamId(7, 1);

fn read_all(draft: &Draft) -> Vec<u8> {
    let mut out = vec![1; draft.len().unwrap() as usize + 10];
    let n = draft.read_at(&mut out, 0).unwrap();
    out.truncate(n);
    out
}

fn only(recovered: &mut Recovered) -> RecoveredStream {
    assert_eq!(recovered.streams.len(), 1, "{:?}", recovered.streams);
    recovered.streams.remove(&STREAM).unwrap()
}

/// The draft that a start found.
fn resumed(store: &SegmentStore, mut recovered: Recovered) -> Draft {
    let found = only(&mut recovered);
    assert!(found.draft && !found.sealed && found.appends.is_empty(), "{found:?}");
    store.resume_draft(STREAM, found).unwrap()
}

/// A draft of a few blocks, synced, with `content`.
async fn synced(store: &SegmentStore, content: &[u8]) -> Draft {
    let draft = store.draft(STREAM).unwrap();
    draft.write_at(content, 0).unwrap();
    draft.sync().await.unwrap();
    draft
}

fn is_poisoned<T: std::fmt::Debug>(answer: Result<T, SegmentError>) -> bool {
    matches!(answer, Err(SegmentError::Poisoned { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_draft_is_changed_in_any_order_and_holes_are_zeros() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let draft = store.draft(STREAM).unwrap();
    let mut model = vec![0; 300_000];
    let mut write = |range: Range<usize>, seed| {
        let piece = bytes(seed, range.len());
        draft.write_at(&piece, range.start as u64).unwrap();
        model[range].copy_from_slice(&piece);
    };
    write(250_000..300_000, 1);
    write(0..1000, 2);
    write(500..260_000, 3);
    assert_eq!(draft.len().unwrap(), 300_000);
    draft.punch(1000..2000).unwrap();
    draft.punch(299_000..400_000).unwrap();
    model[1000..2000].fill(0);
    model[299_000..].fill(0);
    assert_eq!(read_all(&draft), model);
    draft.set_len(100_000).unwrap();
    draft.set_len(150_000).unwrap();
    draft.allocate(140_000..160_000).unwrap();
    draft.allocate(0..10).unwrap();
    model.truncate(100_000);
    model.resize(160_000, 0);
    assert_eq!(read_all(&draft), model);
    let mut some = [1; 100];
    assert_eq!(draft.read_at(&mut some, 159_950).unwrap(), 50);
    assert_eq!(draft.read_at(&mut some, 1 << 40).unwrap(), 0);
    assert_eq!(draft.seek_hole(0).unwrap(), Some(160_000));
    assert_eq!(draft.seek_data(160_000).unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_draft_costs_no_flush_a_sync_one_of_the_data_and_a_seal_two() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let flushes = || bench.disk.calls().syncs;
    let (draft, before) = (store.draft(STREAM).unwrap(), flushes());
    draft.write_at(&bytes(1, 600_000), 0).unwrap();
    assert_eq!(flushes() - before, 0);
    draft.sync().await.unwrap();
    assert_eq!(flushes() - before, 3, "data, log, manifest");
    draft.write_at(&bytes(2, 100), 77).unwrap();
    draft.sync().await.unwrap();
    assert_eq!(flushes() - before, 4);
    draft.seal().await.unwrap();
    assert_eq!(flushes() - before, 6);

    let (other, before) = (store.draft(StreamId(8, 1)).unwrap(), flushes());
    other.write_at(b"never synced", 0).unwrap();
    other.seal().await.unwrap();
    assert_eq!(flushes() - before, 3, "data, log, manifest");
}

#[tokio::test(start_paused = true)]
async fn syncs_that_wait_share_a_flush() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let draft = synced(&store, b"x").await;
    let before = bench.disk.calls().syncs;
    let all = futures::future::join_all((0..10).map(|_| draft.sync())).await;
    assert!(all.iter().all(|one| one.is_ok()));
    assert!(bench.disk.calls().syncs - before <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_sealed_draft_is_a_dedicated_segment_like_any_other() {
    for len in [1, 100, BLOCK_BYTES as usize, 3 * BLOCK_BYTES as usize, 1_300_000] {
        for sync in [false, true] {
            let bench = Bench::new(1);
            let (store, _) = bench.open().await;
            let (draft, content) = (store.draft(STREAM).unwrap(), bytes(1, len));
            draft.write_at(&content[len / 2..], len as u64 / 2).unwrap();
            if sync {
                draft.sync().await.unwrap();
            }
            draft.write_at(&content[..len / 2], 0).unwrap();
            let (layout, crc) = draft.seal().await.unwrap();
            assert_eq!((layout.len(), crc), (len as u64, crc32c(&content)), "{len}");
            assert!(matches!(layout, Layout::Dedicated { .. }));
            assert_eq!(draft.seal().await.unwrap(), (layout.clone(), crc), "asked again");
            assert!(matches!(draft.write_at(b"x", 0), Err(SegmentError::Invalid { .. })));
            assert!(matches!(draft.set_len(0), Err(SegmentError::Invalid { .. })));
            draft.sync().await.unwrap();
            draft.discard();
            assert_eq!(read(&store, STREAM, &layout).await.unwrap(), content);

            let (store, mut recovered) = bench.cut_and_open().await;
            let found = only(&mut recovered);
            assert!(found.sealed && !found.draft, "{found:?}");
            assert_eq!((&found.layout, found.crc), (&layout, crc));
            let reader = store.reader(STREAM, &layout).unwrap();
            assert_eq!(reader.mapped().await.unwrap().unwrap(), content);
            assert_eq!(
                reader.read(len as u64 / 3..len as u64).await.unwrap().concat(),
                content[len / 3..]
            );
            let scrubbed = store.scrub(ByteSize::mib(1000), |f| panic!("{f:?}")).await;
            assert_eq!((scrubbed.segments, scrubbed.bytes), (1, len as u64));
            store.shutdown().await;
            let report = fsck(&folder(), &bench.disk.shared()).unwrap();
            assert_eq!(
                (report.bytes, report.streams, report.findings.len()),
                (len as u64, 1, 0),
                "{report:?}"
            );
            let (store, _) = bench.open().await;
            store.release(STREAM, &layout);
            store.retain(&HashSet::new()).await;
            assert!(bench.files_like(".data").is_empty() && bench.files_like(".log").is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_in_a_sealed_draft_is_found() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let content = bytes(1, 700_000);
    let (layout, _) = synced(&store, &content).await.seal().await.unwrap();
    bench.disk.flip(&bench.files_like(".data")[0], 300_000, 4);
    let damaged = BLOCK_BYTES..2 * BLOCK_BYTES;
    match read(&store, STREAM, &layout).await {
        Err(SegmentError::Corrupt { range, .. }) => assert_eq!(range, damaged),
        other => panic!("{other:?}"),
    }
    let mut findings = Vec::new();
    store.scrub(ByteSize::mib(1000), |f| findings.push(f)).await;
    store.shutdown().await;
    findings.extend(fsck(&folder(), &bench.disk.shared()).unwrap().findings);
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(
        findings.iter().all(|f| f.range == damaged && f.stream == Some(STREAM)),
        "{findings:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_in_the_log_never_makes_a_draft_of_what_was_sealed_nor_loses_a_draft() {
    for (seal, shutdown) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut refused, mut at) = (0, 0);
        loop {
            let bench = Bench::new(1);
            let (store, _) = bench.open().await;
            let content = bytes(1, 300_000);
            let draft = synced(&store, &content).await;
            if seal {
                draft.seal().await.unwrap();
            }
            match shutdown {
                true => store.shutdown().await,
                false => bench.disk.kill(),
            }
            let log = &bench.files_like(".log")[0];
            let len = bench.files().iter().find(|(name, _)| name.ends_with(".log")).unwrap().1;
            if at >= len {
                break;
            }
            bench.disk.flip(log, at, 1 << (at % 8));
            let context = format!("seal {seal}, shutdown {shutdown}, at {at}");
            match bench.try_open().await {
                Err(SegmentError::Corrupt { .. }) => refused += 1,
                Ok((store, mut recovered)) => {
                    let found = only(&mut recovered);
                    assert_eq!((found.draft, found.sealed), (!seal, seal), "{context}");
                    if seal {
                        assert_eq!(read(&store, STREAM, &found.layout).await.unwrap(), content, "{context}");
                    } else {
                        assert_eq!(
                            read_all(&store.resume_draft(STREAM, found).unwrap()),
                            content,
                            "{context}"
                        );
                    }
                }
                Err(other) => panic!("{context}: {other:?}"),
            }
            at += if at < 4000 { 97 } else { 1 };
        }
        assert!(refused > 60, "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_draft_that_was_never_synced_is_dropped_by_the_next_start() {
    for seed in 0..20 {
        let bench = Bench::new(seed);
        let (store, _) = bench.open().await;
        let draft = store.draft(STREAM).unwrap();
        draft.write_at(&bytes(1, 100_000), 0).unwrap();
        match seed % 3 {
            0 => bench.disk.kill(),
            1 => bench.disk.restart(),
            _ => store.shutdown().await,
        }
        let (_, recovered) = bench.open().await;
        assert!(recovered.streams.is_empty(), "seed {seed}");
        assert!(bench.files_like(".data").is_empty() && bench.files_like(".log").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_synced_draft_survives_kills_and_power_cuts_and_goes_on() {
    for seed in 0..20 {
        let bench = Bench::new(seed);
        let (store, _) = bench.open().await;
        let mut content = bytes(1, 500_000).to_vec();
        synced(&store, &content).await;
        let (store, recovered) = bench.cut_and_open().await;
        let draft = resumed(&store, recovered);
        assert_eq!(read_all(&draft), content, "seed {seed}");
        draft.write_at(&[5; 1000], 499_500).unwrap();
        draft.set_len(500_100).unwrap();
        content.resize(500_100, 5);
        content[499_500..].fill(5);
        let (store, recovered) = bench.kill_and_open().await;
        let draft = resumed(&store, recovered);
        assert_eq!(read_all(&draft), content, "seed {seed}: a kill loses nothing");
        let (layout, crc) = draft.seal().await.unwrap();
        assert_eq!(crc, crc32c(&content));
        let (store, _) = bench.cut_and_open().await;
        assert_eq!(read(&store, STREAM, &layout).await.unwrap(), content, "seed {seed}");
    }
}

/// Cuts the power after each change that a seal makes to the disk.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_a_seal_leaves_the_draft_or_the_sealed_stream() {
    let (mut drafts, mut sealed, mut whole) = (0, 0, 0);
    for seed in 0..10 {
        for step in 0.. {
            let bench = Bench::new(seed * 100 + step);
            let (store, _) = bench.open().await;
            let content = bytes(1, 600_000);
            let draft = synced(&store, &content).await;
            bench.disk.arm(Fault::PowerOff(step));
            let answer = draft.seal().await;
            let (store, mut recovered) = bench.cut_and_open().await;
            let found = recovered.streams.remove(&STREAM).unwrap();
            let context = format!("seed {seed}, step {step}: {answer:?}, {found:?}");
            if found.draft {
                assert!(answer.is_err(), "{context}");
                drafts += 1;
                let draft = store.resume_draft(STREAM, found).unwrap();
                assert_eq!(read_all(&draft), content, "{context}");
                draft.write_at(b"on", 3).unwrap();
                let (layout, _) = draft.seal().await.unwrap();
                assert_eq!(
                    read(&store, STREAM, &layout).await.unwrap()[..5],
                    [&content[..3], b"on"].concat()
                );
            } else {
                sealed += 1;
                assert!(found.sealed, "{context}");
                assert_eq!(read(&store, STREAM, &found.layout).await.unwrap(), content, "{context}");
            }
            if answer.is_ok() && bench.disk.calls().faults == 0 {
                whole += 1;
                break;
            }
        }
    }
    assert!(
        drafts > 30 && sealed > 20 && whole == 10,
        "{drafts} drafts, {sealed} sealed, {whole} whole"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_during_the_seal_of_a_draft_that_was_never_synced_leaves_all_of_it_or_nothing() {
    let mut found = [0; 3];
    for seed in 0..10 {
        for step in 0..12 {
            let bench = Bench::new(seed * 100 + step);
            let (store, _) = bench.open().await;
            let (draft, content) = (store.draft(STREAM).unwrap(), bytes(1, 600_000));
            draft.write_at(&content, 0).unwrap();
            bench.disk.arm(Fault::PowerOff(step));
            let answer = draft.seal().await;
            let (store, mut recovered) = bench.cut_and_open().await;
            let context = format!("seed {seed}, step {step}: {answer:?}");
            match recovered.streams.remove(&STREAM) {
                None => {
                    assert!(answer.is_err(), "{context}");
                    found[0] += 1;
                }
                Some(stream) if stream.draft => {
                    assert!(answer.is_err(), "{context}");
                    let draft = store.resume_draft(STREAM, stream).unwrap();
                    assert_eq!(read_all(&draft), content, "{context}");
                    found[1] += 1;
                }
                Some(stream) => {
                    assert!(stream.sealed, "{context}");
                    assert_eq!(
                        read(&store, STREAM, &stream.layout).await.unwrap(),
                        content,
                        "{context}"
                    );
                    found[2] += 1;
                }
            }
        }
    }
    assert!(found.iter().all(|n| *n > 0), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_flush_a_draft_never_acknowledges_again() {
    for (kill, nth_sync) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let bench = Bench::new(3);
        let (store, _) = bench.open().await;
        let content = bytes(1, 10_000);
        let draft = store.draft(STREAM).unwrap();
        draft.write_at(&content, 0).unwrap();
        if nth_sync == 2 {
            draft.sync().await.unwrap();
            draft.write_at(&[9; 5000], 2000).unwrap();
        }
        bench.disk.arm(Fault::Sync(1));
        assert!(is_poisoned(draft.sync().await));
        assert_eq!(bench.disk.calls().faults, 1);
        assert!(is_poisoned(draft.sync().await));
        assert!(is_poisoned(draft.write_at(b"x", 0)));
        assert!(is_poisoned(draft.set_len(3)));
        assert!(is_poisoned(draft.punch(0..1)));
        assert!(is_poisoned(draft.allocate(0..1)));
        assert!(is_poisoned(draft.seal().await));
        assert!(is_poisoned(draft.sync().await));
        assert_eq!(store.usage().poisoned, 1);
        let (store, mut recovered) = match kill {
            true => bench.kill_and_open().await,
            false => bench.cut_and_open().await,
        };
        let found = recovered.streams.remove(&STREAM);
        assert_eq!(found.is_some(), nth_sync == 2);
        if let Some(found) = found {
            let draft = store.resume_draft(STREAM, found).unwrap();
            assert_eq!(read_all(&draft), content, "memory was believed");
            draft.seal().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_flush_of_a_seal_leaves_the_synced_draft_to_the_next_start() {
    for (nth, kill) in [(1, false), (1, true), (2, false), (2, true)] {
        let bench = Bench::new(4);
        let (store, _) = bench.open().await;
        let content = bytes(1, 300_000);
        let draft = synced(&store, &content).await;
        bench.disk.arm(Fault::Sync(nth));
        assert!(is_poisoned(draft.seal().await), "{nth}");
        assert!(is_poisoned(draft.seal().await), "{nth}");
        assert_eq!(bench.disk.calls().faults, 1);
        let (store, recovered) = match kill {
            true => bench.kill_and_open().await,
            false => bench.cut_and_open().await,
        };
        assert_eq!(read_all(&resumed(&store, recovered)), content, "{nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_ends_a_draft_and_a_full_disk_does_not() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let mut content = bytes(1, 10_000).to_vec();
    let draft = synced(&store, &content).await;
    for _ in 0..20 {
        bench.disk.arm(Fault::Full(1));
        let refused = draft.write_at(&[3; 8000], 5000);
        assert!(matches!(refused, Err(SegmentError::Full { .. })), "{refused:?}");
        assert_eq!(draft.len().unwrap(), 10_000);
        assert_eq!(read_all(&draft)[..5000], content[..5000]);
    }
    draft.write_at(&[3; 8000], 5000).unwrap();
    content.truncate(5000);
    content.resize(13_000, 3);
    draft.sync().await.unwrap();
    assert_eq!(read_all(&draft), content);

    bench.disk.arm(Fault::Write(1));
    assert!(is_poisoned(draft.write_at(b"x", 0)));
    assert!(is_poisoned(draft.write_at(b"x", 0)));
    assert!(is_poisoned(draft.sync().await));
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_every_call_says_so_and_works_again_when_there_is_room() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let content = bytes(1, 300_000);
    let draft = store.draft(STREAM).unwrap();
    draft.write_at(&content, 0).unwrap();
    let full =
        |answer: Result<(), SegmentError>| assert!(matches!(answer, Err(SegmentError::Full { .. })), "{answer:?}");
    bench.disk.set_capacity(0);
    full(draft.write_at(&content, 300_000));
    full(draft.allocate(0..600_000));
    full(draft.sync().await);
    full(draft.seal().await.map(drop));
    assert_eq!(read_all(&draft), content);
    draft.write_at(b"in place", 5).unwrap();
    draft.punch(0..5).unwrap();
    bench.disk.set_capacity(1 << 30);
    draft.sync().await.unwrap();
    draft.allocate(0..600_000).unwrap();
    draft.set_len(300_000).unwrap();
    let expected = [&[0; 5], &b"in place"[..], &content[13..]].concat();
    let (layout, _) = draft.seal().await.unwrap();
    assert_eq!(read(&store, STREAM, &layout).await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_no_file_reaches_is_refused_and_does_no_harm() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let draft = synced(&store, b"content").await;
    for refused in [
        draft.write_at(b"x", u64::MAX),
        draft.write_at(b"xx", i64::MAX as u64 - 1),
        draft.set_len(1 << 63),
        draft.allocate(0..u64::MAX),
    ] {
        match refused {
            Err(SegmentError::Disk(e)) => assert_eq!(e.source.kind(), std::io::ErrorKind::FileTooLarge),
            other => panic!("{other:?}"),
        }
    }
    draft.punch(3..u64::MAX).unwrap();
    draft.write_at(b"", u64::MAX).unwrap();
    draft.sync().await.unwrap();
    assert_eq!(read_all(&draft), b"con\0\0\0\0");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_a_synced_draft_as_it_is_and_a_file_cut_meanwhile_is_noticed() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let draft = synced(&store, &bytes(1, 5000)).await;
    draft.write_at(&bytes(2, 5000), 4000).unwrap();
    let content = read_all(&draft);
    store.shutdown().await;
    for refused in [
        draft.write_at(b"x", 0),
        draft.set_len(0),
        draft.punch(0..9),
        draft.sync().await,
        draft.seal().await.map(drop),
        store.draft(STREAM).map(drop),
    ] {
        assert!(matches!(refused, Err(SegmentError::Closed)), "{refused:?}");
    }
    draft.discard();
    let (store, recovered) = bench.cut_and_open().await;
    let draft = resumed(&store, recovered);
    assert_eq!(read_all(&draft), content);
    draft.set_len(100).unwrap();
    store.shutdown().await;
    bench.disk.cut(&bench.files_like(".data")[0], 99);
    let refused = bench.try_open().await.map(drop);
    assert!(matches!(refused, Err(SegmentError::Corrupt { .. })), "{refused:?}");
}

/// Found by the random histories: a mark that was never flushed was entered as if it were durable.
#[tokio::test(start_paused = true)]
async fn after_two_shutdowns_a_power_cut_finds_no_log_too_short() {
    for seed in 0..20 {
        let bench = Bench::new(seed);
        let (store, _) = bench.open().await;
        let content = bytes(1, 5000);
        let draft = synced(&store, &content).await;
        store.shutdown().await;
        drop(draft);
        let (store, recovered) = bench.open().await;
        let draft = resumed(&store, recovered);
        store.shutdown().await;
        drop(draft);
        let (store, recovered) = bench.cut_and_open().await;
        assert_eq!(read_all(&resumed(&store, recovered)), content, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_claims_is_discarded_or_empty_leaves_nothing() {
    for way in 0..4 {
        let bench = Bench::new(way);
        let (store, _) = bench.open().await;
        let draft = synced(&store, &bytes(1, 5000)).await;
        let (store, live) = match way {
            0 => {
                draft.discard();
                assert!(draft.write_at(b"x", 0).is_err() && draft.seal().await.is_err());
                (store, HashSet::new())
            }
            1 => {
                draft.set_len(0).unwrap();
                assert_eq!(draft.seal().await.unwrap(), (Layout::Empty, 0));
                (store, HashSet::new())
            }
            2 => (bench.kill_and_open().await.0, HashSet::new()),
            _ => (bench.kill_and_open().await.0, HashSet::from([STREAM])),
        };
        store.retain(&live).await;
        let left = bench.files_like(".data").len() + bench.files_like(".log").len();
        assert_eq!(left, if way == 3 { 2 } else { 0 }, "{:?}", bench.files());
        assert_eq!(store.usage().segments, left / 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_draft_that_was_sealed_does_not_come_back_though_its_files_do() {
    for seed in 0..10 {
        let bench = Bench::new(seed);
        let (store, _) = bench.open().await;
        let draft = synced(&store, b"to be cut").await;
        draft.set_len(0).unwrap();
        assert_eq!(draft.seal().await.unwrap(), (Layout::Empty, 0));
        assert_eq!(bench.files_like(".log").len(), 1, "not removed yet");
        let (_, recovered) = bench.cut_and_open().await;
        assert!(recovered.streams.is_empty(), "seed {seed}");
        assert!(bench.files_like(".log").is_empty(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn scrub_passes_drafts_by_and_fsck_reports_them() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let content = bytes(1, 5000);
    let layout = write(&store, StreamId(1, 1), &content).await;
    let draft = synced(&store, &bytes(2, 300_000)).await;
    assert_eq!(store.usage().live_bytes, 305_000);
    let scrubbed = store.scrub(ByteSize::mib(1000), |f| panic!("{f:?}")).await;
    assert_eq!(scrubbed.findings, 0);
    bench.disk.kill();
    drop(draft);
    let report = fsck(&folder(), &bench.disk.shared()).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    assert_eq!((report.segments, report.streams), (2, 2));
    assert!(report.bytes < 20_000, "the bytes of a draft are not compared");
    assert!(
        report
            .notes
            .iter()
            .any(|n| n.contains("a draft of stream 7.1, 300000 bytes")),
        "{report:?}"
    );
    let (store, recovered) = bench.open().await;
    assert!(recovered.streams[&STREAM].draft);
    assert_eq!(read(&store, StreamId(1, 1), &layout).await.unwrap(), content);
    let unsealed = store.reader(STREAM, &recovered.streams[&STREAM].layout).map(drop);
    assert!(unsealed.is_err(), "bytes without checksums are not handed out");
}

#[tokio::test(start_paused = true)]
async fn drafts_and_streams_of_appends_do_not_go_on_as_each_other() {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    synced(&store, b"draft").await;
    let mut writer = store.create(StreamId(1, 1), Some(1 << 20));
    writer.append(&[bytes(1, 10)], Bytes::new()).await.unwrap();
    writer.sync().await.unwrap();
    let (store, recovered) = bench.kill_and_open().await;
    let (draft, other) = (&recovered.streams[&STREAM], &recovered.streams[&StreamId(1, 1)]);
    let invalid = |e: SegmentError| matches!(e, SegmentError::Invalid { .. });
    assert!(store.resume(STREAM, draft.clone()).is_err_and(invalid));
    assert!(store.resume_draft(StreamId(1, 1), other.clone()).is_err_and(invalid));
    let sealed = store.resume_draft(STREAM, draft.clone()).unwrap().seal().await;
    assert!(sealed.is_ok() && store.resume_draft(STREAM, draft.clone()).is_err_and(invalid));
}

/// The negative control: without it the tests above could pass by luck.
#[tokio::test(start_paused = true)]
async fn without_fsync_a_power_cut_loses_a_synced_draft() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut bench = Bench::new(seed);
        bench.settings.fsync = false;
        let (store, _) = bench.open().await;
        let content = bytes(1, 100_000);
        synced(&store, &content).await;
        bench.disk.restart();
        let kept = match bench.try_open().await {
            Ok((store, mut recovered)) => match recovered.streams.remove(&STREAM) {
                Some(found) => read_all(&store.resume_draft(STREAM, found).unwrap()) == content,
                None => false,
            },
            Err(_) => false,
        };
        lost += u32::from(!kept);
    }
    assert!(lost > 10, "{lost} of 20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_disk_many_threads_change_a_draft_at_once() {
    const THREADS: u64 = 8;
    const PIECES: u64 = 64;
    const PIECE: u64 = 48 << 10;
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
    let draft = Arc::new(store.draft(STREAM).unwrap());
    let place = |thread: u64, piece: u64| (piece * THREADS + thread) * PIECE;
    let tasks: Vec<_> = (0..THREADS)
        .map(|thread| {
            let draft = Arc::clone(&draft);
            task::blocking(move || {
                for piece in (0..PIECES).rev() {
                    let content = bytes(place(thread, piece), PIECE as usize);
                    draft.write_at(&content, place(thread, piece)).unwrap();
                    let mut found = vec![0; PIECE as usize];
                    assert_eq!(draft.read_at(&mut found, place(thread, piece)).unwrap(), found.len());
                    assert_eq!(found, content);
                }
            })
        })
        .collect();
    let (_, synced) = futures::join!(futures::future::join_all(tasks), draft.sync());
    synced.unwrap();
    draft.sync().await.unwrap();
    let mut expected: Vec<u8> = (0..PIECES)
        .flat_map(|piece| (0..THREADS).flat_map(move |thread| bytes(place(thread, piece), PIECE as usize)))
        .collect();
    drop((draft, store));

    let (store, recovered) = SegmentStore::open(open()).await.unwrap();
    let draft = resumed(&store, recovered);
    draft.punch(1 << 20..2 << 20).unwrap();
    expected[1 << 20..2 << 20].fill(0);
    draft.allocate(0..expected.len() as u64 + 5).unwrap();
    expected.resize(expected.len() + 5, 0);
    assert!(draft.raw_fd().is_some());
    assert_eq!(read_all(&draft), expected);
    let (layout, crc) = draft.seal().await.unwrap();
    assert_eq!(crc, crc32c(&expected));
    assert_eq!(read(&store, STREAM, &layout).await.unwrap(), expected);
    store.shutdown().await;
    let report = fsck(&home.path().join("segments"), &RealDisk::shared()).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
}

#[test]
fn many_threads_may_hold_a_draft() {
    fn shared<T: Send + Sync>() {}
    shared::<Draft>();
}
