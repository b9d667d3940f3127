//! Batches of numbers, and the messages that carry them.

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use forebay_writeback::dataset::IpcMessage;
use std::sync::Arc;

/// A batch of one column `n`.
pub(crate) fn rows(numbers: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
}

/// The messages that carry a batch: its schema, then the rows.
pub(crate) fn messages(batch: &RecordBatch) -> [IpcMessage; 2] {
    let (mut tracker, mut context, options) = (
        DictionaryTracker::new(false),
        IpcWriteContext::default(),
        IpcWriteOptions::default(),
    );
    let generator = IpcDataGenerator::default();
    let schema = generator.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
    let (_, rows) = generator.encode(batch, &mut tracker, &options, &mut context).unwrap();
    [
        message(schema.ipc_message, Vec::new()),
        message(rows.ipc_message, rows.arrow_data),
    ]
}

fn message(header: Vec<u8>, body: Vec<u8>) -> IpcMessage {
    IpcMessage {
        header: header.into(),
        body: vec![Bytes::from(body)],
        app_metadata: Bytes::new(),
    }
}
