//! A trainer small enough to read: logistic regression by minibatch SGD over record batches, with features standardised by what it has
//! seen so far. It asks of its input what every trainer asks: batches, soon, and each once an epoch.

use anyhow::{Context, Result};
use arrow_array::{Array, Float64Array, RecordBatch, cast::AsArray, types::Float64Type};

/// What it learns from.
const FEATURES: [&str; 13] = [
    "quantity",
    "price",
    "discount",
    "tax",
    "order_total",
    "ship_day",
    "ship_delay",
    "transit_days",
    "late_days",
    "order_so_far",
    "price_before",
    "line_position",
    "urgent",
];
/// What it learns.
const LABEL: &str = "returned";
/// Rows per step.
const STEP_ROWS: usize = 512;
const RATE: f64 = 0.2;
const N: usize = FEATURES.len();

/// The columns to ask for.
pub(super) fn columns() -> Vec<String> {
    FEATURES.iter().chain([&LABEL]).map(|c| (*c).to_owned()).collect()
}

/// Weights, what is known of the features, and how well it went.
#[derive(Clone, Debug)]
pub(super) struct Trainer {
    weights: [f64; N],
    bias: f64,
    seen: [Spread; N],
    epochs: Vec<Epoch>,
}

/// How one epoch went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epoch {
    pub(super) rows: u64,
    pub(super) batches: u64,
    loss_sum: f64,
}

impl Epoch {
    /// Mean log loss of its rows, each taken before the step that learned from it.
    pub(super) fn loss(&self) -> f64 {
        self.loss_sum / self.rows as f64
    }
}

/// Mean and variance of a feature, as a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    fn add(&mut self, values: &[f64]) {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let (total, apart) = (self.count + count, mean - self.mean);
        self.squares += squares + apart * apart * self.count * count / total;
        self.mean += apart * count / total;
        self.count = total;
    }

    /// Mean, and one over the standard deviation.
    fn scale(&self) -> (f64, f64) {
        (self.mean, 1.0 / (self.squares / self.count).sqrt().max(1e-9))
    }
}

impl Default for Trainer {
    fn default() -> Self {
        Self {
            weights: [0.0; N],
            bias: 0.0,
            seen: [Spread::default(); N],
            epochs: vec![Epoch::default()],
        }
    }
}

impl Trainer {
    /// The loss of knowing nothing: every row is as likely as not.
    pub(super) const LOSS_BEFORE: f64 = std::f64::consts::LN_2;

    pub(super) fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    pub(super) fn next_epoch(&mut self) {
        self.epochs.push(Epoch::default());
    }

    /// Learns from a batch.
    pub(super) fn learn(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let label = column(batch, LABEL)?;
        let features: Vec<&Float64Array> = FEATURES.iter().map(|name| column(batch, name)).collect::<Result<_>>()?;
        if self.epochs.len() == 1 {
            for (spread, feature) in self.seen.iter_mut().zip(&features) {
                spread.add(feature.values());
            }
        }
        let scales = self.seen.map(|s| s.scale());
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            let end = (start + STEP_ROWS).min(batch.num_rows());
            let columns: Vec<&[f64]> = features.iter().map(|f| &f.values()[start..end]).collect();
            self.step(&columns, &label.values()[start..end], &scales);
        }
        let epoch = self.epochs.last_mut().expect("there is one from the start");
        epoch.rows += batch.num_rows() as u64;
        epoch.batches += 1;
        Ok(())
    }

    /// One step down the gradient of the mean log loss.
    fn step(&mut self, columns: &[&[f64]], label: &[f64], scales: &[(f64, f64); N]) {
        let mut scores = vec![self.bias; label.len()];
        for ((column, (mean, inverse)), weight) in columns.iter().zip(scales).zip(self.weights) {
            for (score, value) in scores.iter_mut().zip(*column) {
                *score += weight * (value - mean) * inverse;
            }
        }
        let mut loss = 0.0;
        for (score, label) in scores.iter_mut().zip(label) {
            // log(1 + e^s) - y s, without overflow; then the score becomes its error.
            loss += score.max(0.0) + (-score.abs()).exp().ln_1p() - label * *score;
            *score = 1.0 / (1.0 + (-*score).exp()) - label;
        }
        let rate = RATE / label.len() as f64;
        for ((column, (mean, inverse)), weight) in columns.iter().zip(scales).zip(&mut self.weights) {
            let gradient: f64 = scores
                .iter()
                .zip(*column)
                .map(|(error, value)| error * (value - mean) * inverse)
                .sum();
            *weight -= rate * gradient;
        }
        self.bias -= rate * scores.iter().sum::<f64>();
        self.epochs.last_mut().expect("there is one from the start").loss_sum += loss;
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Float64Array> {
    let column = batch
        .column_by_name(name)
        .with_context(|| format!("no column {name}"))?;
    let column = column
        .as_primitive_opt::<Float64Type>()
        .with_context(|| format!("{name} is no double"))?;
    anyhow::ensure!(column.null_count() == 0, "{name} has nulls");
    Ok(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{DataType, Field, Schema};
    use std::sync::Arc;

    /// Rows whose label is told by one feature, the others being noise.
    fn batch(rows: usize, first: usize) -> RecordBatch {
        let names = columns();
        let fields: Vec<Field> = names.iter().map(|n| Field::new(n, DataType::Float64, false)).collect();
        let noise = |row: usize, column: usize| ((row * 2_654_435_761 + column * 40_503) % 1000) as f64;
        let value = |row: usize, name: &str, column: usize| match name {
            LABEL => f64::from(u8::from(noise(row, 3) > 500.0)),
            _ => noise(row, column),
        };
        let arrays = names.iter().enumerate().map(|(c, name)| {
            let values = (first..first + rows).map(|row| value(row, name, c));
            Arc::new(Float64Array::from_iter_values(values)) as Arc<dyn Array>
        });
        let arrays = arrays.collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }

    #[test]
    fn it_learns_what_can_be_learned() {
        let mut trainer = Trainer::default();
        for epoch in 0..3 {
            if epoch > 0 {
                trainer.next_epoch();
            }
            for k in 0..10 {
                trainer.learn(&batch(5000, k * 5000)).unwrap();
            }
        }
        let losses: Vec<f64> = trainer.epochs().iter().map(Epoch::loss).collect();
        assert!(
            losses[0] < Trainer::LOSS_BEFORE && losses[1] < losses[0] && losses[2] < 0.35,
            "{losses:?}"
        );
        assert_eq!((trainer.epochs()[2].rows, trainer.epochs()[2].batches), (50_000, 10));
    }

    #[test]
    fn spread_is_the_same_in_pieces() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i * i % 37)).collect();
        let (mut whole, mut pieces) = (Spread::default(), Spread::default());
        whole.add(&values);
        values.chunks(77).for_each(|c| pieces.add(c));
        assert!((whole.scale().0 - pieces.scale().0).abs() < 1e-9 && (whole.scale().1 - pieces.scale().1).abs() < 1e-9);
    }

    #[test]
    fn a_missing_column_is_named() {
        let error = Trainer::default()
            .learn(&batch(1, 0).project(&[0]).unwrap())
            .unwrap_err();
        assert!(error.to_string().contains(LABEL));
    }
}
