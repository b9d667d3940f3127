//! The same job the way it was done before: the query writes Parquet into the store, and when it has ended the trainer reads it from
//! there, twice.

use super::{
    job::Job,
    store::{OLD, Store},
    trainer::{self, Trainer},
};
use anyhow::{Context, Result};
use datafusion::{
    physical_plan::SendableRecordBatchStream,
    prelude::{ParquetReadOptions, col},
};
use futures::TryStreamExt;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use url::Url;

/// How it went, from the job's start.
#[derive(Clone, Debug)]
pub(super) struct Old {
    pub(super) written: Duration,
    pub(super) first_batch_trained: Duration,
    pub(super) epoch_1: Duration,
    pub(super) epoch_2: Duration,
    pub(super) trainer: Trainer,
}

pub(super) async fn run(job: &Job, store: &Store) -> Result<Old> {
    let base = Url::parse("store://run").expect("it is a URL");
    job.ctx.register_object_store(&base, Arc::clone(store.objects()));
    let url = format!("{base}/{OLD}/features/");
    let start = Instant::now();
    job.copy_to(&url).await.context("the job's old way")?;
    let written = start.elapsed();

    let mut trainer = Trainer::default();
    let first = epoch(&mut trainer, read(job, &url).await?).await?;
    let first_batch_trained = first - start;
    let epoch_1 = start.elapsed();
    trainer.next_epoch();
    epoch(&mut trainer, read(job, &url).await?).await?;
    Ok(Old {
        written,
        first_batch_trained,
        epoch_1,
        epoch_2: start.elapsed(),
        trainer,
    })
}

async fn read(job: &Job, url: &str) -> Result<SendableRecordBatchStream> {
    let columns: Vec<_> = trainer::columns().iter().map(|c| col(c.as_str())).collect();
    let frame = job.ctx.read_parquet(url, ParquetReadOptions::default()).await?;
    Ok(frame.select(columns)?.execute_stream().await?)
}

/// Trains over a stream; says when the first batch was learned from.
async fn epoch(trainer: &mut Trainer, mut batches: SendableRecordBatchStream) -> Result<Instant> {
    let mut first = None;
    while let Some(batch) = batches.try_next().await? {
        trainer.learn(&batch)?;
        first.get_or_insert_with(Instant::now);
    }
    first.context("no batch to learn from")
}
