//! What a run found, as a short table or as JSON. Every number was measured in the run itself.

use super::{Moments, Settings, old::Old, trainer::Trainer, verify::Compared, warehouse::Warehoused};
use serde::Serialize;
use std::{fmt, time::Duration};

/// A run's findings. Times are seconds, sizes bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the bytes went in the end.
    pub store: &'static str,
    /// TPC-H scale factor.
    pub scale: f64,
    /// Rows of features.
    pub rows: u64,
    /// Rows that each epoch saw: Forebay's two, then the old way's two.
    pub rows_of_epochs: [u64; 4],
    /// Batches of features.
    pub batches: u64,
    /// Bytes in the under-store.
    pub bytes: u64,
    /// Objects of the under-store that were compared with what Forebay serves, by listing and SHA-256.
    pub objects_verified: usize,
    /// With Forebay.
    pub forebay: Forebay,
    /// Parquet into the same store, then reading it from there.
    pub old_way: OldWay,
    /// Mean log loss.
    pub loss: Loss,
    /// The second store, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hdfs: Option<Warehoused>,
}

/// Seconds of the job with Forebay.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Forebay {
    /// From the first acknowledged batch to the first one the trainer learned from. Below zero: the trainer was first, which it may
    /// be: a batch is readable at the very moment its acknowledgement leaves.
    pub first_ack_to_first_training_batch: f64,
    /// From the commit to the end of the first epoch.
    pub commit_to_end_of_epoch_1: f64,
    /// From the commit to everything being in the under-store.
    pub commit_to_persisted: f64,
    /// From the start to the commit.
    pub start_to_commit: f64,
    /// From the start to the first batch trained.
    pub start_to_first_training_batch: f64,
    /// From the start to the end of the first epoch.
    pub start_to_end_of_epoch_1: f64,
    /// From the start to the end of the second epoch, which begins right after the first.
    pub start_to_end_of_epoch_2: f64,
}

/// Seconds of the job the old way.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OldWay {
    /// From the start to the last byte in the store.
    pub start_to_written: f64,
    /// From the start to the first batch trained.
    pub start_to_first_training_batch: f64,
    /// From the start to the end of the first epoch.
    pub start_to_end_of_epoch_1: f64,
    /// From the start to the end of the second epoch.
    pub start_to_end_of_epoch_2: f64,
}

/// Mean log loss of the trainer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Loss {
    /// Of knowing nothing.
    pub before: f64,
    /// Over the first epoch, with Forebay.
    pub epoch_1: f64,
    /// Over the second epoch, with Forebay.
    pub epoch_2: f64,
    /// Over the second epoch, the old way.
    pub old_way_epoch_2: f64,
}

impl Report {
    pub(super) fn new(settings: &Settings, moments: &Moments, trainer: &Trainer, written: &Compared, old: Old) -> Self {
        let Moments {
            start,
            first_ack,
            first_batch_trained,
            commit,
            epoch_1,
            persisted,
            epoch_2,
        } = *moments;
        let between = |from: std::time::Instant, to: std::time::Instant| {
            if to >= from {
                seconds(to - from)
            } else {
                -seconds(from - to)
            }
        };
        let epochs = trainer.epochs();
        Self {
            store: if settings.ceph { "Ceph" } else { "local folder" },
            scale: settings.scale,
            rows: epochs[0].rows,
            rows_of_epochs: [
                epochs[0].rows,
                epochs[1].rows,
                old.trainer.epochs()[0].rows,
                old.trainer.epochs()[1].rows,
            ],
            batches: epochs[0].batches,
            bytes: written.bytes,
            objects_verified: written.objects,
            forebay: Forebay {
                first_ack_to_first_training_batch: between(first_ack, first_batch_trained),
                commit_to_end_of_epoch_1: between(commit, epoch_1),
                commit_to_persisted: between(commit, persisted),
                start_to_commit: between(start, commit),
                start_to_first_training_batch: between(start, first_batch_trained),
                start_to_end_of_epoch_1: between(start, epoch_1),
                start_to_end_of_epoch_2: between(start, epoch_2),
            },
            old_way: OldWay {
                start_to_written: seconds(old.written),
                start_to_first_training_batch: seconds(old.first_batch_trained),
                start_to_end_of_epoch_1: seconds(old.epoch_1),
                start_to_end_of_epoch_2: seconds(old.epoch_2),
            },
            loss: Loss {
                before: Trainer::LOSS_BEFORE,
                epoch_1: epochs[0].loss(),
                epoch_2: epochs[1].loss(),
                old_way_epoch_2: old.trainer.epochs()[1].loss(),
            },
            hdfs: None,
        }
    }

    /// With what happened at the second store.
    pub(super) fn with_warehouse(self, hdfs: Option<Warehoused>) -> Self {
        Self { hdfs, ..self }
    }

    /// Whether every epoch, of both ways, saw the same rows, and something was learned.
    pub fn is_sound(&self) -> bool {
        self.rows > 0
            && self.rows_of_epochs.iter().all(|rows| *rows == self.rows)
            && self.loss.epoch_2 < self.loss.before
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 1e4
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            forebay: new,
            old_way: old,
            loss,
            ..
        } = self;
        let megabytes = self.bytes as f64 / 1e6;
        writeln!(
            f,
            "{} rows in {} batches, {megabytes:.0} MB in the {}",
            self.rows, self.batches, self.store
        )?;
        writeln!(
            f,
            "{} objects compared by listing and SHA-256: equal\n",
            self.objects_verified
        )?;
        writeln!(f, "seconds from … to …                          Forebay   old way")?;
        let mut row = |what: &str, new: f64, old: Option<f64>| match old {
            Some(old) => writeln!(f, "{what:43} {new:>9.3} {old:>9.3}"),
            None => writeln!(f, "{what:43} {new:>9.3}         –"),
        };
        row(
            "start to first training batch",
            new.start_to_first_training_batch,
            Some(old.start_to_first_training_batch),
        )?;
        row(
            "start to data committed",
            new.start_to_commit,
            Some(old.start_to_written),
        )?;
        row(
            "start to end of epoch 1",
            new.start_to_end_of_epoch_1,
            Some(old.start_to_end_of_epoch_1),
        )?;
        row(
            "start to end of epoch 2",
            new.start_to_end_of_epoch_2,
            Some(old.start_to_end_of_epoch_2),
        )?;
        row(
            "first acked batch to first training batch",
            new.first_ack_to_first_training_batch,
            None,
        )?;
        row("commit to end of epoch 1", new.commit_to_end_of_epoch_1, None)?;
        row("commit to persisted", new.commit_to_persisted, None)?;
        let Loss {
            before,
            epoch_1,
            epoch_2,
            old_way_epoch_2,
        } = loss;
        if let Some(hdfs) = &self.hdfs {
            writeln!(
                f,
                "\nHDFS: {:.0} MB of tables read through; {} rows of summary persisted {:.3} s after their commit, {} files compared: equal",
                hdfs.read_through_bytes as f64 / 1e6,
                hdfs.summary_rows,
                hdfs.commit_to_persisted,
                hdfs.files_verified
            )?;
        }
        write!(
            f,
            "\nloss {before:.4} → {epoch_1:.4} → {epoch_2:.4} (old way {old_way_epoch_2:.4})"
        )
    }
}
