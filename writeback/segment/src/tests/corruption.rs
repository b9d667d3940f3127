//! Damage behind our back: refused by name, or noticed at the read; never taken for what was written, never silently gone.

use super::*;
use forebay_runtime::disk::OpenHow;
use std::{collections::BTreeMap, path::Path};

/// Ends of a history: how the last process left the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Shutdown,
    Kill,
}

/// What was acknowledged before.
struct Written {
    bench: Bench,
    sealed: Vec<(StreamId, Layout, Bytes)>,
    open: Vec<(StreamId, Bytes)>,
}

async fn written(end: End) -> Written {
    let bench = Bench::new(1);
    let (store, _) = bench.open().await;
    let (mut sealed, mut open, mut writers) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..6 {
        let content = bytes(i, if i == 3 { 300_000 } else { 900 });
        let stream = StreamId(i, 1);
        if i % 2 == 0 || i == 3 {
            sealed.push((stream, write(&store, stream, &content).await, content.clone()));
        }
        let stream = StreamId(i, 2);
        let mut writer = store.create(stream, None);
        writer
            .append(std::slice::from_ref(&content), note(format!("n{i}")))
            .await
            .unwrap();
        writer.sync().await.unwrap();
        open.push((stream, content));
        writers.push(writer);
    }
    match end {
        End::Shutdown => store.shutdown().await,
        End::Kill => bench.disk.kill(),
    }
    Written { bench, sealed, open }
}

impl Written {
    /// Opens and reads everything. `Err` says what was refused; panics when bytes are wrong or silently gone.
    async fn check(&self, what: &str) -> Result<(), SegmentError> {
        let (store, recovered) = self.bench.try_open().await?;
        let mut refused = Ok(());
        for (stream, layout, content) in &self.sealed {
            match read(&store, *stream, layout).await {
                Ok(found) => assert_eq!(&found, content, "{what}: wrong bytes of {stream}"),
                Err(e) => refused = Err(e),
            }
        }
        for (stream, content) in &self.open {
            let Some(found) = recovered.streams.get(stream) else {
                panic!("{what}: {stream} is silently gone")
            };
            assert_eq!(
                found.layout.len(),
                content.len() as u64,
                "{what}: {stream} is silently shorter"
            );
            match read(&store, *stream, &found.layout).await {
                Ok(found) => assert_eq!(&found, content, "{what}: wrong bytes of {stream}"),
                Err(e) => refused = Err(e),
            }
        }
        store.shutdown().await;
        refused
    }

    fn length(&self, path: &Path) -> u64 {
        self.bench
            .disk
            .shared()
            .open(path, OpenHow::Read)
            .unwrap()
            .len()
            .unwrap()
    }
}

fn names(error: &SegmentError) -> bool {
    matches!(
        error,
        SegmentError::Corrupt { .. }
            | SegmentError::Missing { .. }
            | SegmentError::NewerFormat { .. }
            | SegmentError::Foreign { .. }
    )
}

/// Places to damage: all of what is small, samples of what is large.
fn places(len: u64) -> impl Iterator<Item = u64> {
    (0..len).filter(move |at| *at < 100 || at + 100 > len || (*at >= 4096 && *at < 4300) || at % 1999 == 0)
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_anywhere_is_refused_by_name_or_does_no_harm() {
    for end in [End::Shutdown, End::Kill] {
        let original = written(end).await;
        let names_of_files: Vec<String> = original.bench.files().into_iter().map(|(name, _)| name).collect();
        drop(original);
        let mut refused = BTreeMap::<String, usize>::new();
        for name in names_of_files {
            if name == "LOCK" || name.starts_with("reserve") {
                continue;
            }
            let kind = name.rsplit('.').next().unwrap().to_owned();
            let mut fresh = written(end).await;
            let path = folder().join(&name);
            for at in places(fresh.length(&path)) {
                // A start that goes well repairs and rewrites: begin anew after it.
                fresh.bench.disk.flip(&path, at, 0x20);
                let what = format!("{end:?} {name} at {at}");
                match fresh.check(&what).await {
                    Err(e) => {
                        assert!(names(&e), "{what}: {e:?}");
                        *refused.entry(kind.clone()).or_default() += 1;
                        // Nothing was changed by a start that refused.
                        fresh = written(end).await;
                    }
                    Ok(()) => fresh = written(end).await,
                }
            }
        }
        for kind in ["data", "shared", "log", "identity", "manifest"] {
            assert!(
                refused.get(kind).is_some_and(|n| *n > 20),
                "{end:?} {kind}: {refused:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_empty_or_cut_file_is_refused_by_name() {
    for end in [End::Shutdown, End::Kill] {
        let names_of_files: Vec<(String, u64)> = written(end).await.bench.files();
        for (name, len) in names_of_files {
            if name == "LOCK" || name.starts_with("reserve") {
                continue;
            }
            let path = folder().join(&name);
            let fresh = written(end).await;
            fresh.bench.disk.lose(&path);
            let e = fresh.check(&format!("{end:?} {name} lost")).await.unwrap_err();
            assert!(matches!(e, SegmentError::Missing { .. }), "{name}: {e:?}");
            assert!(e.to_string().contains(name.split('.').next().unwrap()), "{e}");

            let fresh = written(end).await;
            fresh.bench.disk.cut(&path, 0);
            let e = fresh.check(&format!("{end:?} {name} empty")).await.unwrap_err();
            assert!(names(&e), "{name}: {e:?}");

            if end == End::Shutdown && !["identity", "manifest"].contains(&name.as_str()) {
                for cut in [len / 2, len - 1] {
                    let fresh = written(end).await;
                    fresh.bench.disk.cut(&path, cut);
                    // The last mark of a log may be lost without harm.
                    match fresh.check(&format!("{name} cut at {cut}")).await {
                        Err(e) => assert!(names(&e), "{name} cut at {cut}: {e:?}"),
                        Ok(()) => assert!(
                            name.ends_with(".log") && cut == len - 1,
                            "{name} cut at {cut} was not noticed"
                        ),
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_never_starts_empty_when_it_was_in_use() {
    let fresh = written(End::Kill).await;
    for (name, _) in fresh.bench.files() {
        if name != "manifest" && name != "LOCK" {
            fresh.bench.disk.lose(&folder().join(name));
        }
    }
    let e = fresh.bench.try_open().await.unwrap_err();
    assert!(matches!(e, SegmentError::Missing { .. }), "{e:?}");
}

#[tokio::test(start_paused = true)]
async fn fsck_and_scrub_name_what_a_reader_would_stumble_over() {
    let fresh = written(End::Shutdown).await;
    let disk = fresh.bench.disk.shared();
    let clean = fsck(&folder(), &disk).unwrap();
    assert!(clean.findings.is_empty() && clean.notes.is_empty(), "{clean:?}");
    assert_eq!(clean.streams, fresh.sealed.len() + fresh.open.len());
    assert!(clean.bytes > 600_000);

    // One flip in the middle of a dedicated stream, one in a packed payload.
    let (dedicated, content) = match &fresh.sealed.iter().find(|s| s.0 == StreamId(3, 1)).unwrap() {
        (_, Layout::Dedicated { segment, .. }, content) => (*segment, content.clone()),
        other => panic!("{other:?}"),
    };
    let data = folder().join(format!("{dedicated}.data"));
    let Layout::Packed(extents) = &fresh.sealed[0].1 else {
        panic!("{:?}", fresh.sealed[0])
    };
    let shared = folder().join(format!("{}.shared", extents[0].segment));

    let (store, _) = fresh.bench.open().await;
    let reader = store
        .reader(
            StreamId(3, 1),
            &Layout::Dedicated {
                segment: dedicated,
                len: 300_000,
            },
        )
        .unwrap();
    assert_eq!(reader.read(0..300_000).await.unwrap().concat(), content);
    fresh.bench.disk.flip(&data, 270_000, 1);
    fresh.bench.disk.flip(&shared, extents[0].at + 3, 1);
    let mut found = Vec::new();
    let scrubbed = store.scrub(ByteSize::mib(100), |finding| found.push(finding)).await;
    assert_eq!((scrubbed.findings, found.len()), (2, 2), "{found:?}");
    assert!(matches!(reader.compare().await, Err(SegmentError::Corrupt { .. })));
    fresh.bench.disk.flip(&data, 270_000, 1);
    reader.compare().await.unwrap();
    fresh.bench.disk.flip(&data, 270_000, 1);
    assert!(matches!(reader.compare().await, Err(SegmentError::Corrupt { .. })));
    let rotten = found.iter().find(|f| f.segment == Some(dedicated)).unwrap();
    assert_eq!(
        (rotten.range.clone(), rotten.stream),
        (262_144..300_000, Some(StreamId(3, 1)))
    );
    assert_eq!(rotten.file, data);
    // No longer handed out, though it was compared before; the rest of the stream is.
    assert!(matches!(
        reader.read(265_000..300_000).await,
        Err(SegmentError::Corrupt { .. })
    ));
    assert_eq!(reader.read(0..262_144).await.unwrap().concat(), content[..262_144]);
    let (stream, layout, _) = &fresh.sealed[0];
    assert!(matches!(
        read(&store, *stream, layout).await,
        Err(SegmentError::Corrupt { .. })
    ));
    store.shutdown().await;

    let report = fsck(&folder(), &disk).unwrap();
    assert_eq!(report.findings.len(), 2, "{report:?}");
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.file == shared && f.range.contains(&(extents[0].at + 3))),
        "{report:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_of_another_cluster_or_a_newer_version_stops_the_start() {
    let fresh = written(End::Shutdown).await;
    let disk = fresh.bench.disk.shared();
    let shared = fresh.bench.files_like(".shared").remove(0);
    let file = disk.open(&shared, OpenHow::Write).unwrap();
    let mut bytes = vec![0; 4096];
    file.read_at(&mut bytes, 0).unwrap();
    let good = bytes.clone();
    let rewrite = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        let crc = crc::crc32c(&bytes[..4092]);
        bytes[4092..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&[bytes.into()], 0).unwrap();
    };
    rewrite(8, 2);
    let e = fresh.bench.try_open().await.unwrap_err();
    assert!(
        matches!(e, SegmentError::NewerFormat { found: 2, known: 1, .. }),
        "{e:?}"
    );
    rewrite(16, 99);
    let e = fresh.bench.try_open().await.unwrap_err();
    assert!(matches!(e, SegmentError::Foreign { .. }), "{e:?}");
}
