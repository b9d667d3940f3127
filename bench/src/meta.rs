//! Durable creates in the embedded metastore, one by one and many at once, beside SQLite driven by hand in the same way.

use crate::{
    Bench,
    measure::{Goal, Row, Sample, Unit, pairs},
};
use anyhow::Result;
use bytes::Bytes;
use forebay_metastore::{Check, MetaStoreRef, Op, OpenOptions, Tx};
use futures::future::try_join_all;
use std::{cell::Cell, time::Instant};

const WRITERS: usize = 64;
const EACH: usize = 100;
const ALONE: usize = 400;
const VALUE_BYTES: usize = 200;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    if !bench.wants("meta") {
        return Ok(Vec::new());
    }
    let folder = bench.scratch()?;
    let store = forebay_metastore::open(
        &format!("sqlite:{}", folder.path().join("forebay.sqlite").display()),
        OpenOptions::default(),
    )
    .await?;
    let raw = rusqlite::Connection::open(folder.path().join("raw.sqlite"))?;
    raw.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;")?;
    let next = Cell::new(0_u64);
    let fresh = || {
        next.set(next.get() + 1);
        Bytes::copy_from_slice(&next.get().to_be_bytes())
    };
    let alone = || async {
        let begin = Instant::now();
        for _ in 0..ALONE {
            create(&store, fresh()).await?;
        }
        Ok(Sample {
            amount: ALONE as f64,
            seconds: begin.elapsed().as_secs_f64(),
            cpu: 0.0,
        })
    };
    let together = || async {
        let begin = Instant::now();
        let writer = async || {
            for _ in 0..EACH {
                create(&store, fresh()).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        try_join_all((0..WRITERS).map(|_| writer())).await?;
        Ok(Sample {
            amount: (WRITERS * EACH) as f64,
            seconds: begin.elapsed().as_secs_f64(),
            cpu: 0.0,
        })
    };
    let by_hand = |count: usize, batch: usize| {
        let begin = Instant::now();
        let insert = || -> Result<Sample> {
            for _ in 0..count / batch {
                raw.execute_batch("BEGIN IMMEDIATE")?;
                for _ in 0..batch {
                    raw.prepare_cached("INSERT INTO kv VALUES (?1, ?2)")?
                        .execute((fresh().as_ref(), [1_u8; VALUE_BYTES].as_slice()))?;
                }
                raw.execute_batch("COMMIT")?;
            }
            Ok(Sample {
                amount: count as f64,
                seconds: begin.elapsed().as_secs_f64(),
                cpu: 0.0,
            })
        };
        std::future::ready(insert())
    };
    let goal = Goal::Report;
    let (ours, theirs) = pairs(bench.pairs, alone, || by_hand(ALONE, 1)).await?;
    let one = Row {
        id: "meta",
        what: "durable creates, one by one / SQLite by hand".into(),
        unit: Unit::Operations,
        goal,
        ours,
        theirs,
    };
    let (ours, theirs) = pairs(bench.pairs, together, || by_hand(WRITERS * EACH, WRITERS)).await?;
    let what = "durable creates, 64 writers / SQLite by hand, 64 a transaction".into();
    Ok(vec![
        one,
        Row {
            id: "meta",
            what,
            unit: Unit::Operations,
            goal,
            ours,
            theirs,
        },
    ])
}

/// What creating a name costs the metastore: an inode, a dentry, and a check on the parent.
async fn create(store: &MetaStoreRef, key: Bytes) -> Result<()> {
    let dentry = Bytes::from([b"d", key.as_ref()].concat());
    let value = Bytes::from_static(&[1; VALUE_BYTES]);
    let ops = vec![Op::Put(dentry.clone(), value.clone()), Op::Put(key, value)];
    store
        .commit(Tx {
            token: None,
            checks: vec![Check::Absent(dentry)],
            ops,
        })
        .await?;
    Ok(())
}
