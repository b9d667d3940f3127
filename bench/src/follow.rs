//! G12, G12b: how soon a trainer that starts with the writer has its first batch, and how far it stays behind.

use crate::{
    Bench, data,
    measure::{Goal, Row, Sample, Unit, pairs},
    process::Process,
    s3::{Pace, Stub},
};
use anyhow::{Context, Result};
use forebay_client::{Client, Options, ReadOptions, WriteOptions};
use object_store::{ObjectStoreExt, PutPayload};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// 1 GiB.
const BATCHES: usize = 256;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    if !bench.wants("G12") && !bench.wants("G12b") {
        return Ok(Vec::new());
    }
    let folder = bench.scratch()?;
    let server = Process::forebay(&bench.forebay, folder.path(), &["--dirty-max=24GiB".into()], &[])?;
    let client = Client::connect(&server.address, Options::default()).await?;
    let mut rows = Vec::new();
    if bench.wants("G12") {
        rows.push(first_batch(bench, &client).await?);
    }
    if bench.wants("G12b") {
        rows.push(lag(bench, &client).await?);
    }
    Ok(rows)
}

fn follow_options() -> ReadOptions {
    ReadOptions {
        wait: Some(Duration::from_secs(10)),
        ..ReadOptions::default()
    }
}

/// Seconds from the writer's start to the follower's first batch. The writer goes on to its end.
async fn followed(client: &Client, path: &str) -> Result<f64> {
    let reader = client.another().await?;
    let batches = data::distinct();
    let begin = Instant::now();
    let first = async {
        let mut follow = reader.follow(path, follow_options()).await?;
        follow.next_batch().await?.context("a first batch")?;
        let after = begin.elapsed().as_secs_f64();
        while follow.next_batch().await?.is_some() {}
        Ok::<_, anyhow::Error>(after)
    };
    let write = async {
        let mut put = client.put(path, WriteOptions::default()).await?;
        for k in 0..BATCHES {
            put.send(&batches[k % batches.len()]).await?;
        }
        Ok(put.finish().await?)
    };
    let (after, _) = tokio::try_join!(first, write)?;
    Ok(after)
}

async fn first_batch(bench: &Bench, client: &Client) -> Result<Row> {
    let stub = Stub::start(Pace {
        delay: Duration::ZERO,
        bytes_per_second: Some(200e6),
    })
    .await?;
    let store = stub.client()?;
    let number = Cell::new(0);
    let ours = || {
        number.set(number.get() + 1);
        let path = format!("/follow/{}", number.get());
        async move {
            let seconds = followed(client, &path).await?;
            client.delete(&path, true).await?;
            Ok(Sample {
                amount: 1.0,
                seconds,
                cpu: 0.0,
            })
        }
    };
    let payload = bytes::Bytes::from(vec![5; data::BATCH_BYTES]);
    let theirs = || async {
        let begin = Instant::now();
        for k in 0..BATCHES {
            store
                .put(&format!("part-{k}").into(), PutPayload::from(payload.clone()))
                .await?;
        }
        store.get(&"part-0".into()).await?.bytes().await?;
        let seconds = begin.elapsed().as_secs_f64();
        stub.clear();
        Ok(Sample {
            amount: 1.0,
            seconds,
            cpu: 0.0,
        })
    };
    let (ours, theirs) = pairs(bench.pairs.min(3), ours, theirs).await?;
    let what =
        "first batch for a reader that starts with the writer / write 1 GiB through to a store at 200 MB/s, then read"
            .into();
    Ok(Row {
        id: "G12",
        what,
        unit: Unit::Duration,
        goal: Goal::AtMost(0.02),
        ours,
        theirs,
    })
}

/// p99 of the time from the writer's ack to the follower's batch, at a steady pace; theirs is the pace itself.
async fn lag(bench: &Bench, client: &Client) -> Result<Row> {
    const PACE: Duration = Duration::from_millis(20);
    const COUNT: usize = 150;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..bench.pairs {
        let path = format!("/lag/{run}");
        let reader = client.another().await?;
        let follow = async {
            let (mut follow, mut at) = (reader.follow(&path, follow_options()).await?, Vec::new());
            while follow.next_batch().await?.is_some() {
                at.push(Instant::now());
            }
            Ok::<_, anyhow::Error>(at)
        };
        let write = async {
            let options = WriteOptions {
                acks: true,
                ..WriteOptions::default()
            };
            let mut put = client.put(&path, options).await?;
            let mut acks = put.acks().context("acks were asked for")?;
            let (batch, mut at) = (data::batch(run, 16 << 10), Vec::new());
            for _ in 0..COUNT {
                let next = Instant::now() + PACE;
                put.send(&batch).await?;
                acks.next().await.context("an ack for every batch")?;
                at.push(Instant::now());
                tokio::time::sleep_until(next.into()).await;
            }
            put.finish().await?;
            Ok(at)
        };
        let (seen, acked) = tokio::try_join!(follow, write)?;
        anyhow::ensure!(seen.len() == COUNT, "{} of {COUNT} batches followed", seen.len());
        let mut lags: Vec<f64> = seen
            .iter()
            .zip(&acked)
            .map(|(s, a)| s.saturating_duration_since(*a).as_secs_f64())
            .collect();
        lags.sort_by(f64::total_cmp);
        ours.push(Sample {
            amount: 1.0,
            seconds: lags[(COUNT - 1) * 99 / 100],
            cpu: 0.0,
        });
        theirs.push(Sample {
            amount: 1.0,
            seconds: PACE.as_secs_f64(),
            cpu: 0.0,
        });
    }
    let what = "p99 from ack to follower, 1 MiB every 20 ms / the interval".into();
    Ok(Row {
        id: "G12b",
        what,
        unit: Unit::Duration,
        goal: Goal::AtMost(2.0),
        ours,
        theirs,
    })
}
