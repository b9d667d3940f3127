//! What is sent: batches of 4 MiB, eight float64 columns of 65,536 rows, sixteen different ones over and over.

use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// Columns of a batch.
pub(crate) const COLUMNS: usize = 8;
/// Rows of a batch.
pub(crate) const ROWS: usize = 64 << 10;
/// Bytes of a row.
pub(crate) const ROW_BYTES: usize = COLUMNS * 8;
/// Bytes of a batch.
pub(crate) const BATCH_BYTES: usize = ROWS * ROW_BYTES;

/// The schema of every batch.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(
        (0..COLUMNS)
            .map(|c| Field::new(format!("c{c}"), DataType::Float64, false))
            .collect::<Vec<_>>(),
    ))
}

/// A batch of `rows` rows.
pub(crate) fn batch(number: usize, rows: usize) -> RecordBatch {
    let column = |c: usize| {
        Arc::new(Float64Array::from_iter_values(
            (0..rows).map(|r| (r * c + number) as f64),
        )) as ArrayRef
    };
    RecordBatch::try_new(schema(), (0..COLUMNS).map(column).collect()).expect("the columns are the schema's")
}

/// The sixteen different batches.
pub(crate) fn distinct() -> Vec<RecordBatch> {
    (0..16).map(|k| batch(k, ROWS)).collect()
}
