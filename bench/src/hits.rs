//! G16: how many reads of a training job the cache answers by itself when half of the data fits, beside the most that is possible.
//!
//! A real server before the S3 stub: a hit is a read for which the stub saw no GET. The most that is possible is Belady's order, which
//! knows what will be read, and may read past the cache. Same reads in each run; nothing here depends on time.

use crate::{
    Bench,
    measure::{Goal, Row, Sample, Unit},
    process::Process,
    s3::{Pace, Stub},
};
use anyhow::{Result, ensure};
use bytes::Bytes;
use forebay_client::{Client, Options};
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

const ITEMS: usize = 1000;
const ITEM_BYTES: usize = 64 << 10;
const EPOCHS: usize = 8;
/// Epochs before the cache is in its steady state; `auto` needs two to find out how it is read.
const EPOCHS_BEFORE: usize = 3;
const SEED: u64 = 16;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    if !bench.wants("G16") {
        return Ok(Vec::new());
    }
    let reads = shuffled_epochs();
    let best = most_hits(&reads, ITEMS / 2);
    let mut rows = Vec::new();
    for (evict, goal) in [
        ("epoch", Goal::AtLeast(0.98)),
        ("auto", Goal::AtLeast(0.98)),
        ("s3fifo", Goal::Report),
        ("lru", Goal::Report),
    ] {
        let ours = hits(bench, evict, &reads).await?;
        rows.push(Row {
            id: "G16",
            what: format!("hits per read, shuffled epochs, room for half, evict={evict} / Belady"),
            unit: Unit::Share,
            goal,
            ours: samples(&ours),
            theirs: samples(&best),
        });
    }
    Ok(rows)
}

/// Which items are read, epoch after epoch, each in an order of its own.
fn shuffled_epochs() -> Vec<Vec<usize>> {
    let mut state = SEED;
    let mut below = |n: usize| {
        // Knuth's linear congruential generator; its upper bits are good enough to shuffle by.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut epoch = || {
        let mut items: Vec<usize> = (0..ITEMS).collect();
        for at in (1..ITEMS).rev() {
            items.swap(at, below(at + 1));
        }
        items
    };
    (0..EPOCHS).map(|_| epoch()).collect()
}

/// Hits in each epoch of an order that knows the future, with room for so many items.
fn most_hits(reads: &[Vec<usize>], room: usize) -> Vec<usize> {
    let all: Vec<usize> = reads.concat();
    let mut next = vec![usize::MAX; all.len()];
    let mut later = HashMap::new();
    for (at, item) in all.iter().enumerate().rev() {
        next[at] = later.insert(*item, at).unwrap_or(usize::MAX);
    }
    // What is held, by when it is read next; one that is held is read at `at` when that is its first key.
    let mut held: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut hits = vec![0; reads.len()];
    for (at, item) in all.iter().enumerate() {
        hits[at / ITEMS] += usize::from(held.remove(&(at, *item)));
        held.insert((next[at], *item));
        if held.len() > room {
            held.pop_last();
        }
    }
    hits
}

/// Hits in each epoch of a server with room for half of the items.
async fn hits(bench: &Bench, evict: &str, reads: &[Vec<usize>]) -> Result<Vec<usize>> {
    let folder = bench.scratch()?;
    let stub = Stub::start(Pace::default()).await?;
    let content = Bytes::from(vec![7; ITEM_BYTES]);
    for item in 0..ITEMS {
        stub.insert(&format!("b/lake{}", path(item)), content.clone());
    }
    let room = format!("--cache-max={}", ITEMS / 2 * ITEM_BYTES);
    let server = Process::forebay_over(&stub, &bench.forebay, folder.path(), &room)?;
    let client = Client::connect(&server.address, Options::default()).await?;
    client
        .action(
            "policy_set",
            json!({"path": "/", "evict": evict, "revalidate": "never"}),
        )
        .await?;
    let mut hits = Vec::new();
    for epoch in reads {
        let mut found = 0;
        for item in epoch {
            let before = stub.gets();
            let read = client.read_file(&path(*item), None).await?.bytes(ITEM_BYTES).await?;
            ensure!(
                read == content,
                "{} came back as {} other bytes",
                path(*item),
                read.len()
            );
            found += usize::from(stub.gets() == before);
            // What is fetched ahead or late would count for the next read.
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        hits.push(found);
    }
    Ok(hits)
}

fn path(item: usize) -> String {
    format!("/train/item-{item:04}")
}

fn samples(hits: &[usize]) -> Vec<Sample> {
    let sample = |hits: &usize| Sample {
        amount: *hits as f64,
        seconds: ITEMS as f64,
        cpu: 0.0,
    };
    hits.iter().skip(EPOCHS_BEFORE).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_the_future_hits_what_is_read_soonest() {
        // Room for one of two: the second read of an epoch and the first of the next are the same in turn, so that one of two is hit.
        let forth = (0..ITEMS).collect::<Vec<_>>();
        let back = (0..ITEMS).rev().collect::<Vec<_>>();
        let reads = vec![forth.clone(), back, forth];
        assert_eq!(most_hits(&reads, ITEMS), [0, ITEMS, ITEMS]);
        assert_eq!(most_hits(&reads, 0), [0, 0, 0]);
        let half = most_hits(&reads, ITEMS / 2);
        assert!(half[1] >= ITEMS / 2 && half[0] == 0, "{half:?}");
    }
}
