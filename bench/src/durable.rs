//! G10, G10b, G11: what a durable acknowledgement costs, many at once and one alone.

use crate::{
    Bench,
    measure::{Goal, Row, Sample, Unit, pairs, timed},
    process::Process,
    s3::{Pace, Stub},
};
use anyhow::Result;
use bytes::Bytes;
use forebay_client::{Client, FileOptions, Options};
use futures::future::try_join_all;
use object_store::{ObjectStoreExt, PutPayload};
use std::{
    cell::{Cell, RefCell},
    io::Write,
    time::{Duration, Instant},
};

const WRITERS: usize = 32;
const PUT_BYTES: usize = 4096;
const SPAN: Duration = Duration::from_secs(2);

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if bench.wants("G10") || bench.wants("G10b") {
        rows.extend(group_commit(bench).await?);
    }
    if bench.wants("G11") {
        rows.push(small_put(bench).await?);
    }
    Ok(rows)
}

/// Durable puts of small files by each of `clients` for a while; the latencies in seconds.
async fn puts(clients: &[Client], run: usize, span: Duration) -> Result<Vec<f64>> {
    let end = Instant::now() + span;
    // A task each: in one task together they would take turns on one core.
    let tasks = clients
        .iter()
        .enumerate()
        .map(|(k, client)| tokio::spawn(write_until(end, client.clone(), format!("/small/{run}-{k}"))));
    let all = try_join_all(tasks).await?;
    Ok(all.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

async fn write_until(end: Instant, client: Client, prefix: String) -> Result<Vec<f64>> {
    let (content, mut latencies) = (Bytes::from(vec![7; PUT_BYTES]), Vec::new());
    while Instant::now() < end {
        let (path, begin) = (format!("{prefix}-{}", latencies.len()), Instant::now());
        client.put_file(&path, content.clone(), FileOptions::default()).await?;
        latencies.push(begin.elapsed().as_secs_f64());
    }
    Ok(latencies)
}

/// The latency that all but one of a hundred stay under.
pub(crate) fn p99(latencies: &mut [f64]) -> f64 {
    latencies.sort_by(f64::total_cmp);
    latencies[(latencies.len() - 1) * 99 / 100]
}

async fn group_commit(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.scratch()?;
    let server = Process::forebay(&bench.forebay, &folder.path().join("data"), &[], &[])?;
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        clients.push(Client::connect(&server.address, Options::default()).await?);
    }
    let (run, tails) = (Cell::new(0), RefCell::new((Vec::new(), Vec::new())));
    let (run, tails, folder) = (&run, &tails, folder.path());
    let side = |clients: &[Client]| {
        run.set(run.get() + 1);
        let (number, clients, pid) = (run.get(), clients.to_vec(), server.pid());
        async move {
            let (mut latencies, wall, cpu) = timed(pid, puts(&clients, number, SPAN)).await?;
            if clients.len() > 1 {
                let tail = p99(&mut latencies);
                tails.borrow_mut().0.push(Sample {
                    amount: 1.0,
                    seconds: tail,
                    cpu: 0.0,
                });
                let single = p99(&mut fdatasyncs(folder)?);
                tails.borrow_mut().1.push(Sample {
                    amount: 1.0,
                    seconds: single,
                    cpu: 0.0,
                });
            }
            Ok(Sample {
                amount: latencies.len() as f64,
                seconds: wall.as_secs_f64(),
                cpu,
            })
        }
    };
    let (ours, theirs) = pairs(bench.pairs, || side(&clients), || side(&clients[..1])).await?;
    let what = "durable puts of 4 KiB, 32 writers / 1 writer".into();
    let rate = Row {
        id: "G10",
        what,
        unit: Unit::Operations,
        goal: Goal::AtLeast(8.0),
        ours,
        theirs,
    };
    let (ours, theirs) = tails.take();
    let what = "p99 of those puts / p99 of write + fdatasync of 4 KiB, one process".into();
    let tail = Row {
        id: "G10b",
        what,
        unit: Unit::Duration,
        goal: Goal::AtMost(2.5),
        ours,
        theirs,
    };
    Ok(vec![rate, tail])
}

/// Latencies of a bare append and fdatasync on the same disk.
fn fdatasyncs(folder: &std::path::Path) -> Result<Vec<f64>> {
    let mut file = std::fs::File::create(folder.join("bare"))?;
    let mut latencies = Vec::new();
    for _ in 0..500 {
        let begin = Instant::now();
        file.write_all(&[1; PUT_BYTES])?;
        file.sync_data()?;
        latencies.push(begin.elapsed().as_secs_f64());
    }
    Ok(latencies)
}

async fn small_put(bench: &Bench) -> Result<Row> {
    const COUNT: usize = 30;
    let folder = bench.scratch()?;
    let stub = Stub::start(Pace {
        delay: Duration::from_millis(30),
        bytes_per_second: None,
    })
    .await?;
    let server = Process::forebay(&bench.forebay, folder.path(), &[], &[])?;
    let client = Client::connect(&server.address, Options::default()).await?;
    let store = stub.client()?;
    let content = Bytes::from(vec![3; 10 << 10]);
    let ours = || async {
        let begin = Instant::now();
        for k in 0..COUNT {
            client
                .put_file(&format!("/put/{k}"), content.clone(), FileOptions::default())
                .await?;
        }
        Ok(Sample {
            amount: 1.0,
            seconds: begin.elapsed().as_secs_f64() / COUNT as f64,
            cpu: 0.0,
        })
    };
    let theirs = || async {
        let begin = Instant::now();
        for k in 0..COUNT {
            store
                .put(&format!("put/{k}").into(), PutPayload::from(content.clone()))
                .await?;
        }
        Ok(Sample {
            amount: 1.0,
            seconds: begin.elapsed().as_secs_f64() / COUNT as f64,
            cpu: 0.0,
        })
    };
    let (ours, theirs) = pairs(bench.pairs, ours, theirs).await?;
    let what = "durable put of 10 KiB / the same put through to an S3 stub with 30 ms of latency".into();
    Ok(Row {
        id: "G11",
        what,
        unit: Unit::Duration,
        goal: Goal::AtMost(0.05),
        ours,
        theirs,
    })
}
