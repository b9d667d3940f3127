//! G13: the persister's rate against a plain multipart upload of the same bytes with the same parts in flight, to the same stub.
//! G14: many small files in packs against one object each, by the same persister with the same settings.

use crate::{
    Bench, data,
    measure::{Goal, Row, Sample, Unit, pairs, timed},
    process::Process,
    s3::{Pace, Stub},
};
use anyhow::Result;
use bytes::Bytes;
use forebay_client::{Client, FileOptions, Options};
use futures::future::try_join_all;
use object_store::{ObjectStoreExt, WriteMultipart};
use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

const BYTES: usize = 1 << 30;
const PART_BYTES: usize = 16 << 20;
const PARTS_PARALLEL: usize = 4;

/// Files of G14, and what they have in bytes: 10 to 100 KB.
const SMALL_FILES: usize = 10_000;
const SMALL_BYTES: [usize; 2] = [10_000, 100_000];
const WRITERS: usize = 16;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if bench.wants("G13") {
        rows.extend(large(bench).await?);
    }
    if bench.wants("G14") {
        rows.extend(small(bench).await?);
    }
    Ok(rows)
}

/// Writes the small files below `folder`, where they are kept back for now.
async fn write_small(clients: &[Client], folder: &str) -> Result<f64> {
    let content = Bytes::from(vec![9; SMALL_BYTES[1]]);
    let write = |writer: usize| {
        let (client, content, folder) = (clients[writer].clone(), content.clone(), folder.to_owned());
        async move {
            let mut bytes = 0;
            for number in (writer..SMALL_FILES).step_by(WRITERS) {
                let size = SMALL_BYTES[0] + (SMALL_BYTES[1] - SMALL_BYTES[0]) * (number % 91) / 90;
                let piece = content.slice(..size);
                client
                    .put_file(&format!("{folder}/{number:05}"), piece, FileOptions::default())
                    .await?;
                bytes += size;
            }
            Ok::<_, anyhow::Error>(bytes as f64)
        }
    };
    // A task each: in one task together they would take turns on one core.
    let tasks = (0..WRITERS).map(|writer| tokio::spawn(write(writer)));
    let bytes: Vec<Result<f64>> = try_join_all(tasks).await?;
    Ok(bytes.into_iter().collect::<Result<Vec<f64>>>()?.iter().sum())
}

async fn small(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.scratch()?;
    let stub = Stub::start(Pace {
        delay: Duration::from_millis(10),
        bytes_per_second: None,
    })
    .await?;
    let server = Process::forebay_over(&stub, &bench.forebay, folder.path(), "--dirty-max=24GiB")?;
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        clients.push(Client::connect(&server.address, Options::default()).await?);
    }
    let (number, requests) = (Cell::new(0), RefCell::new((Vec::new(), Vec::new())));
    let side = |pack: bool| {
        number.set(number.get() + 1);
        let (path, clients, stub, server, requests) =
            (format!("/small-{}", number.get()), &clients, &stub, &server, &requests);
        async move {
            let client = &clients[0];
            let policies = serde_json::json!({"path": path, "pack": pack, "persist": "never"});
            client.action("policy_set", policies).await?;
            write_small(clients, &path).await?;
            let before = stub.requests();
            let work = async {
                client.persist(&path, false).await?;
                Ok(client.wait_persisted(&path, Duration::from_secs(1200)).await?)
            };
            let (_, wall, cpu) = timed(server.pid(), work).await?;
            let counted = Sample {
                amount: (stub.requests() - before) as f64,
                seconds: 1.0,
                cpu: 0.0,
            };
            match pack {
                true => requests.borrow_mut().0.push(counted),
                false => requests.borrow_mut().1.push(counted),
            }
            client.delete(&path, true).await?;
            client.wait_persisted("/", Duration::from_secs(1200)).await?;
            Ok(Sample {
                amount: SMALL_FILES as f64,
                seconds: wall.as_secs_f64(),
                cpu,
            })
        }
    };
    let (ours, theirs) = pairs(bench.pairs.min(3), || side(true), || side(false)).await?;
    let (mut packed, mut single) = requests.into_inner();
    // The first of each does not count.
    packed.remove(0);
    single.remove(0);
    let what = |of: &str| {
        format!(
            "{SMALL_FILES} files of 10–100 KB from acknowledged to persisted, in packs / one object each, 10 ms to the store: {of}"
        )
    };
    Ok(vec![
        Row {
            id: "G14",
            what: what("rate"),
            unit: Unit::Operations,
            goal: Goal::AtLeast(10.0),
            ours,
            theirs,
        },
        Row {
            id: "G14r",
            what: what("requests"),
            unit: Unit::Count,
            goal: Goal::AtMost(1.0 / 200.0),
            ours: packed,
            theirs: single,
        },
    ])
}

async fn large(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.scratch()?;
    // Paced, so that the store and not the stub's memory is the limit, as it is in life.
    let stub = Stub::start(Pace {
        delay: Duration::from_millis(5),
        bytes_per_second: Some(400e6),
    })
    .await?;
    let server = Process::forebay_over(&stub, &bench.forebay, folder.path(), "--dirty-max=24GiB")?;
    let client = Client::connect(&server.address, Options::default()).await?;
    let store = stub.client()?;
    let (content, number) = (Bytes::from(vec![9; data::BATCH_BYTES]), Cell::new(0));
    let ours = || {
        number.set(number.get() + 1);
        let (path, client, content, stub, server) =
            (format!("/large-{}", number.get()), &client, &content, &stub, &server);
        async move {
            let mut put = client.write_file(&path, FileOptions::default()).await?;
            for _ in 0..BYTES / content.len() {
                put.write(content.clone()).await?;
            }
            put.finish().await?;
            // The upload begins with the commit.
            let work = async { Ok(client.wait_persisted(&path, Duration::from_secs(120)).await?) };
            let (_, wall, cpu) = timed(server.pid(), work).await?;
            stub.clear();
            client.delete(&path, false).await?;
            Ok(Sample {
                amount: BYTES as f64,
                seconds: wall.as_secs_f64(),
                cpu,
            })
        }
    };
    let theirs = || async {
        let work = async {
            let upload = store.put_multipart(&"plain".into()).await?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            for _ in 0..BYTES / content.len() {
                upload.wait_for_capacity(PARTS_PARALLEL - 1).await?;
                upload.put(content.clone());
            }
            upload.finish().await?;
            Ok(())
        };
        let ((), wall, cpu) = timed(server.pid(), work).await?;
        stub.clear();
        Ok(Sample {
            amount: BYTES as f64,
            seconds: wall.as_secs_f64(),
            cpu,
        })
    };
    let (ours, theirs) = pairs(bench.pairs.min(3), ours, theirs).await?;
    let what =
        "1 GiB from acknowledged to persisted / plain multipart upload, 4 × 16 MiB in flight, store at 400 MB/s".into();
    Ok(vec![Row {
        id: "G13",
        what,
        unit: Unit::Bytes,
        goal: Goal::AtLeast(0.90),
        ours,
        theirs,
    }])
}
