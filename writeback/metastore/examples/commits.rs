//! How many creations a second a metastore takes, one by one and in batches, beside the bare engine on the same disk.
//!
//! `cargo run --release -p forebay-metastore --example commits -- sqlite:/data/meta.db` (a new file), or `postgres://…` (tables
//! are created and filled). A creation is what making a file costs: two checks, three rows of about 150 bytes.

use bytes::Bytes;
use forebay_metastore::{Check, Key, MetaStoreRef, Op, OpenOptions, Tx, Version, open};
use std::{error::Error, sync::Arc, time::Duration, time::Instant};

const LONG_ENOUGH: Duration = Duration::from_secs(3);
const BATCH: u64 = 256;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let url = std::env::args()
        .nth(1)
        .ok_or("which metastore? sqlite:PATH or postgres://…")?;
    println!("creations/s in {}", url.split(':').next().unwrap_or_default());
    match url.strip_prefix("sqlite:") {
        Some(path) => bare_sqlite(&format!("{path}-bare"))?,
        None => bare_postgres(&url).await?,
    }
    let store = open(&url, OpenOptions::default()).await?;
    let dir = Bytes::from_static(b"directory");
    let at = store
        .commit(Tx {
            ops: vec![Op::Put(dir.clone(), row())],
            ..Tx::default()
        })
        .await?
        .version;
    for (tasks, batch) in [(1, 1), (8, 1), (32, 1), (128, 1), (1, BATCH), (8, BATCH)] {
        let rate = creations(&store, tasks, batch, (&dir, at)).await?;
        println!("{tasks:>4} tasks, {batch:>3} in a transaction: {rate:>8.0}");
    }
    println!("reads of one row: {:.1} µs", reads(&store, &dir).await?);
    Ok(())
}

async fn creations(store: &MetaStoreRef, tasks: u64, batch: u64, (dir, at): (&Key, Version)) -> Outcome<f64> {
    let began = Instant::now();
    let workers = (0..tasks).map(|task| {
        let (store, dir) = (Arc::clone(store), dir.clone());
        // Joined below.
        tokio::spawn(async move {
            let mut done = 0;
            while began.elapsed() < LONG_ENOUGH {
                let mut tx = Tx {
                    checks: vec![Check::SharedAt(dir.clone(), at)],
                    ..Tx::default()
                };
                for number in done..done + batch {
                    create(&mut tx, format!("{tasks}/{batch}/{task}/{number}"));
                }
                store.commit(tx).await?;
                done += batch;
            }
            Ok::<u64, forebay_metastore::CommitError>(done)
        })
    });
    let mut sum = 0;
    for worker in workers.collect::<Vec<_>>() {
        sum += worker.await??;
    }
    Ok(sum as f64 / began.elapsed().as_secs_f64())
}

fn create(tx: &mut Tx, name: String) {
    let dentry = Bytes::from(format!("dentry/{name}"));
    tx.checks.push(Check::Absent(dentry.clone()));
    tx.ops.push(Op::Put(dentry, row()));
    tx.ops.push(Op::Put(format!("inode/{name}").into(), row()));
    tx.ops.push(Op::Put(format!("work/{name}").into(), row()));
}

fn row() -> Bytes {
    Bytes::from_static(&[7; 150])
}

/// Microseconds of a get.
async fn reads(store: &MetaStoreRef, key: &Key) -> Outcome<f64> {
    const READS: u32 = 5000;
    let began = Instant::now();
    for _ in 0..READS {
        store.get(std::slice::from_ref(key)).await?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(READS))
}

/// The same rows with nothing of ours between.
fn bare_sqlite(path: &str) -> Outcome<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")?;
    for batch in [1, BATCH] {
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < LONG_ENOUGH {
            let transaction = connection.unchecked_transaction()?;
            for number in done..done + batch {
                for kind in ["dentry", "inode", "work"] {
                    let sql = "INSERT INTO kv (key, value) VALUES (?1, ?2)";
                    transaction
                        .prepare_cached(sql)?
                        .execute((format!("{kind}/{batch}/{number}").as_bytes(), &row()[..]))?;
                }
            }
            transaction.commit()?;
            done += batch;
        }
        println!(
            "bare, one connection, {batch:>3} in a transaction: {:>8.0}",
            done as f64 / began.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// The same rows with nothing of ours between.
async fn bare_postgres(url: &str) -> Outcome<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    // Ends with the client.
    tokio::spawn(connection);
    client
        .batch_execute(
            "DROP TABLE IF EXISTS forebay_bare; CREATE TABLE forebay_bare (key bytea PRIMARY KEY, value bytea)",
        )
        .await?;
    let insert = client
        .prepare("INSERT INTO forebay_bare SELECT key, value FROM unnest($1::bytea[], $2::bytea[]) r(key, value)")
        .await?;
    for batch in [1, BATCH] {
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < LONG_ENOUGH {
            let numbers = done..done + batch;
            let keys = numbers.flat_map(|number| {
                ["dentry", "inode", "work"].map(|kind| format!("{kind}/{batch}/{number}").into_bytes())
            });
            let keys: Vec<Vec<u8>> = keys.collect();
            let values = vec![row().to_vec(); keys.len()];
            client.execute(&insert, &[&keys, &values]).await?;
            done += batch;
        }
        println!(
            "bare, one connection, {batch:>3} in a transaction: {:>8.0}",
            done as f64 / began.elapsed().as_secs_f64()
        );
    }
    client.batch_execute("DROP TABLE forebay_bare").await?;
    Ok(())
}
