//! The main job, measured in one run.
//!
//! 1. TPC-H `lineitem` and `orders` are generated into Parquet (kept between runs).
//! 2. A server starts with an under-store: a local folder, or Ceph.
//! 3. DataFusion joins and windows them into features and `INSERT`s these into Forebay. A trainer starts with the writer and follows:
//!    its first epoch runs while the job does. Meanwhile everything goes to the under-store.
//! 4. The trainer's second epoch reads the published version.
//! 5. Every object of the under-store is compared with what Forebay serves, by listing and SHA-256.
//! 6. With HDFS as a second store: the inputs lie there and are read through Forebay, and a summary of the features goes there.
//! 7. The same job the old way: Parquet into the same store, then two epochs from there.

mod input;
mod job;
mod live;
mod old;
mod report;
mod store;
mod trainer;
mod verify;
mod warehouse;

pub use report::Report;

use crate::server::Server;
use anyhow::{Context, Result};
use forebay_client::{Client, Options, ReadOptions};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use job::Job;
use live::Live;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use store::Store;
use trainer::Trainer;
use warehouse::Warehouse;

/// Where the features go, on the server.
const DATASET: &str = "/lake/features";
/// How long a follower waits for the writer to begin, and the end for the under-store.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's binary.
    pub forebay: PathBuf,
    /// Into S3 as the environment names it, instead of a local folder.
    pub ceph: bool,
    /// With the HDFS that the environment names as a second under-store.
    pub hdfs: bool,
    /// TPC-H scale factor; 1 is six million rows.
    pub scale: f64,
    /// Inputs are kept here, and a run's own files while it runs.
    pub work: PathBuf,
}

/// Moments of the new way, in the order they are expected.
#[derive(Clone, Copy, Debug)]
struct Moments {
    start: Instant,
    first_ack: Instant,
    first_batch_trained: Instant,
    commit: Instant,
    epoch_1: Instant,
    persisted: Instant,
    epoch_2: Instant,
}

/// Runs all of it. In a box it is compiled with this library, not once more with the program.
pub fn run(settings: &Settings) -> BoxFuture<'_, Result<Report>> {
    run_all(settings).boxed()
}

async fn run_all(settings: &Settings) -> Result<Report> {
    let input = input::prepare(&settings.work, settings.scale)?;
    let run = tempfile::Builder::new().prefix("run-").tempdir_in(&settings.work)?;
    let store = if settings.ceph {
        Store::s3_from_env()?
    } else {
        Store::local(&run.path().join("store"))?
    };
    let (data, log) = (run.path().join("data"), run.path().join("forebay.log"));
    let warehouse = settings.hdfs.then(Warehouse::from_env).transpose()?;
    let mut mounts = vec![store.mount()];
    if let Some(warehouse) = &warehouse {
        warehouse.stock(&input).await.context("the tables into HDFS")?;
        mounts.push(warehouse.mount());
    }
    let server = Server::start(&settings.forebay, &data, &mounts, &log).await?;
    let client = Client::connect(&server.flight, Options::default()).await?;
    let tables = match &warehouse {
        Some(warehouse) => warehouse.tables(&input, &server.flight)?,
        None => input.tables(),
    };
    let job = Job::plan(&tables, &client).await?;

    let live = Live::start(client.clone());
    let (moments, trainer) = new_way(&client, &job, &live).await?;
    live.stop().await;

    let written = verify::compare(&client, DATASET, &store)
        .await
        .context("what the under-store has")?;
    let warehoused = match &warehouse {
        Some(warehouse) => Some(warehouse.summarise(&client, &job, DATASET).await?),
        None => None,
    };
    let job = Job::plan(&input.tables(), &client).await?;
    drop(server);
    let old = old::run(&job, &store).await?;
    Ok(Report::new(settings, &moments, &trainer, &written, old).with_warehouse(warehoused))
}

/// Writes, follows and persists at once; then the second epoch.
async fn new_way(client: &Client, job: &Job, live: &Arc<Live>) -> Result<(Moments, Trainer)> {
    let start = Instant::now();
    // It ends with the stream that it follows; `epoch_1` waits for it.
    let follower = tokio::spawn(follow(client.clone(), Arc::clone(live)));
    let first_ack = job.insert_into(client, DATASET, live).await?;
    let commit = Instant::now();
    live.committed();
    let (trained, persisted) = tokio::join!(follower, persisted(client));
    let (mut trainer, first_batch_trained, epoch_1) = trained??;
    let persisted = persisted?;

    trainer.next_epoch();
    let began = Instant::now();
    let mut scan = client
        .scan(
            DATASET,
            ReadOptions {
                columns: Some(trainer::columns()),
                ..ReadOptions::default()
            },
        )
        .await?;
    while let Some(batch) = scan.next().await {
        trainer.learn(&batch?)?;
    }
    let epoch_2 = epoch_1 + began.elapsed();
    Ok((
        Moments {
            start,
            first_ack,
            first_batch_trained,
            commit,
            epoch_1,
            persisted,
            epoch_2,
        },
        trainer,
    ))
}

/// The first epoch, over a stream that still grows.
async fn follow(client: Client, live: Arc<Live>) -> Result<(Trainer, Instant, Instant)> {
    let options = ReadOptions {
        wait: Some(PATIENCE),
        columns: Some(trainer::columns()),
        ..ReadOptions::default()
    };
    let mut follow = client.follow(DATASET, options).await?;
    let mut trainer = Trainer::default();
    let mut first = None;
    while let Some(batch) = follow.next_batch().await? {
        trainer.learn(&batch)?;
        first.get_or_insert_with(Instant::now);
        live.trained(batch.num_rows());
    }
    let first = first.context("the follower saw no batch")?;
    Ok((trainer, first, Instant::now()))
}

async fn persisted(client: &Client) -> Result<Instant> {
    client.wait_persisted(DATASET, PATIENCE).await?;
    Ok(Instant::now())
}
