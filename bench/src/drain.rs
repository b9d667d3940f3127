//! The price of a backlog: p99 of a writer's puts while what an outage of the store left behind is brought there, beside its p99 when
//! there is nothing else to do.

use crate::{
    Bench,
    durable::p99,
    measure::{Goal, Row, Sample, Unit, pairs},
    process::Process,
    s3::{Pace, Stub},
};
use anyhow::{Result, ensure};
use bytes::Bytes;
use forebay_client::{Client, FileOptions, Options};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

const PUT_BYTES: usize = 64 << 10;
/// Between the beginnings of two puts of the writer that is measured: fewer than the persister takes away, so that the backlog ends.
const INTERVAL: Duration = Duration::from_millis(20);
/// The backlog: files of [`PUT_BYTES`], by as many writers at once as make it quickly.
const BACKLOG_FILES: usize = 2000;
const BACKLOG_WRITERS: usize = 8;
const IDLE: Duration = Duration::from_secs(5);
/// Puts that a p99 is taken of, at least.
const PUTS_MIN: usize = 200;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    if !bench.wants("drain") {
        return Ok(Vec::new());
    }
    let folder = bench.scratch()?;
    let stub = Stub::start(Pace {
        delay: Duration::from_millis(5),
        bytes_per_second: Some(400e6),
    })
    .await?;
    let server = Process::forebay_over(&stub, &bench.forebay, folder.path(), "--dirty-max=8GiB")?;
    let client = Client::connect(&server.address, Options::default()).await?;
    let run = Cell::new(0);
    let next = || {
        run.set(run.get() + 1);
        run.get()
    };
    let ours = || async {
        let run = next();
        stub.set_away(true);
        make_backlog(&client, run).await?;
        let sent = stub.puts();
        stub.set_away(false);
        while stub.puts() < sent + 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let latencies = paced_puts(&client, run, async |client| {
            Ok(queued(client).await? > BACKLOG_FILES as u64 / 20)
        })
        .await?;
        settle(&client, &stub).await?;
        sample(latencies)
    };
    let theirs = || async {
        let end = Instant::now() + IDLE;
        let latencies = paced_puts(&client, next(), async |_| Ok(Instant::now() < end)).await?;
        settle(&client, &stub).await?;
        sample(latencies)
    };
    let (ours, theirs) = pairs(bench.pairs.min(5), ours, theirs).await?;
    let what =
        format!("p99 of puts of 64 KiB while a backlog of {BACKLOG_FILES} of them drains / with nothing else to do");
    Ok(vec![Row {
        id: "drain",
        what,
        unit: Unit::Duration,
        goal: Goal::AtMost(2.0),
        ours,
        theirs,
    }])
}

async fn make_backlog(client: &Client, run: usize) -> Result<()> {
    let writers = (0..BACKLOG_WRITERS).map(|writer| {
        let client = client.clone();
        tokio::spawn(async move {
            for file in 0..BACKLOG_FILES / BACKLOG_WRITERS {
                put(&client, format!("/backlog-{run}/{writer}/{file}")).await?;
            }
            anyhow::Ok(())
        })
    });
    for written in futures::future::try_join_all(writers).await? {
        written?;
    }
    Ok(())
}

/// The latencies of puts that begin at even intervals, for as long as `more` says, which is asked once a second.
async fn paced_puts(client: &Client, run: usize, more: impl AsyncFn(&Client) -> Result<bool>) -> Result<Vec<f64>> {
    let mut due = tokio::time::interval(INTERVAL);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut latencies = Vec::new();
    while latencies.len() % 50 != 0 || more(client).await? || latencies.is_empty() {
        due.tick().await;
        let begin = Instant::now();
        put(client, format!("/paced-{run}/{}", latencies.len())).await?;
        latencies.push(begin.elapsed().as_secs_f64());
    }
    Ok(latencies)
}

async fn put(client: &Client, path: String) -> Result<()> {
    let content = Bytes::from_static(&[5; PUT_BYTES]);
    client.put_file(&path, content, FileOptions::default()).await?;
    Ok(())
}

async fn queued(client: &Client) -> Result<u64> {
    let [status] = &client.action("status", json!({})).await?[..] else {
        anyhow::bail!("status has not one result");
    };
    Ok(status["queued"].as_u64().unwrap_or_default())
}

/// Waits until all is persisted, and empties the stub.
async fn settle(client: &Client, stub: &Stub) -> Result<()> {
    let all: Value = json!({"path": "/", "timeout": "120s"});
    client.action("wait_persisted", all).await?;
    stub.clear();
    Ok(())
}

fn sample(mut latencies: Vec<f64>) -> Result<Sample> {
    ensure!(
        latencies.len() >= PUTS_MIN,
        "the backlog was gone after {} puts, too few for a p99",
        latencies.len()
    );
    Ok(Sample {
        amount: 1.0,
        seconds: p99(&mut latencies),
        cpu: 0.0,
    })
}
