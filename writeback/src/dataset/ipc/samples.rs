//! Batches, and their messages, for tests.

use crate::dataset::IpcMessage;
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, FixedSizeListArray, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, RecordBatchOptions, StringArray, StringViewArray, StructArray,
    types::{Float32Type, Int32Type},
};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use std::sync::Arc;

/// Numbers from `start` to `stop`: a plain schema, with nulls.
pub(crate) fn numbers(start: i64, stop: i64) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(start..stop));
    let halves: ArrayRef = Arc::new(Float64Array::from_iter(
        (start..stop).map(|i| (i % 3 != 0).then_some(i as f64 / 2.0)),
    ));
    let odd: ArrayRef = Arc::new(BooleanArray::from_iter((start..stop).map(|i| Some(i % 2 == 1))));
    let schema = Schema::new(vec![
        Field::new("id", ids.data_type().clone(), true),
        Field::new("half", halves.data_type().clone(), true),
        Field::new("odd", odd.data_type().clone(), true),
    ]);
    RecordBatch::try_new(Arc::new(schema), vec![ids, halves, odd]).unwrap()
}

/// Texts: a schema whose bodies must be looked at.
pub(crate) fn texts(texts: &[&str]) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    RecordBatch::try_new(
        Arc::new(Schema::new(vec![Field::new("s", column.data_type().clone(), true)])),
        vec![column],
    )
    .unwrap()
}

/// A dictionary column.
pub(crate) fn dictionary(texts: &[&str]) -> RecordBatch {
    let column: DictionaryArray<Int32Type> = texts.iter().copied().collect();
    let column: ArrayRef = Arc::new(column);
    RecordBatch::try_new(
        Arc::new(Schema::new(vec![Field::new("s", column.data_type().clone(), true)])),
        vec![column],
    )
    .unwrap()
}

/// One batch of every kind that the checks tell apart.
pub(crate) fn zoo() -> Vec<RecordBatch> {
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]));
    let fixed: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        (0..5).map(|i| (i != 3).then(|| vec![Some(i as f32); 4])),
        4,
    ));
    let structs: ArrayRef = Arc::new(StructArray::from(vec![
        (
            Arc::new(Field::new("a", arrow_schema::DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![1, 2, 3])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("b", arrow_schema::DataType::Utf8, true)),
            Arc::new(StringArray::from(vec!["x", "y", "z"])) as ArrayRef,
        ),
    ]));
    let views: ArrayRef = Arc::new(StringViewArray::from(vec![
        "short",
        "a text that is longer than twelve bytes",
    ]));
    let one = |column: ArrayRef| RecordBatch::try_from_iter([("c", column)]).unwrap();
    let nothing = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(7)),
    );
    vec![
        numbers(0, 20),
        numbers(0, 0),
        texts(&["some text", "", "more"]),
        dictionary(&["x", "y", "x"]),
        one(list),
        one(fixed),
        one(structs),
        one(views),
        nothing.unwrap(),
    ]
}

/// The schema message of a schema.
pub(crate) fn schema_message(schema: &Schema) -> IpcMessage {
    let mut tracker = DictionaryTracker::new(false);
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut tracker,
        &IpcWriteOptions::default(),
    );
    IpcMessage {
        header: encoded.ipc_message.into(),
        ..IpcMessage::default()
    }
}

/// The messages of `batches` (dictionaries before the batches that need them), without the schema.
pub(crate) fn messages(batches: &[RecordBatch], options: &IpcWriteOptions) -> Vec<IpcMessage> {
    let mut tracker = DictionaryTracker::new(false);
    let generator = IpcDataGenerator::default();
    generator.schema_to_bytes_with_dictionary_tracker(&batches[0].schema(), &mut tracker, options);
    let mut context = IpcWriteContext::default();
    let mut out = Vec::new();
    for batch in batches {
        let (dictionaries, batch) = generator.encode(batch, &mut tracker, options, &mut context).unwrap();
        out.extend(dictionaries.into_iter().chain([batch]).map(|encoded| IpcMessage {
            header: encoded.ipc_message.into(),
            body: vec![Bytes::from(encoded.arrow_data)],
            app_metadata: Bytes::new(),
        }));
    }
    out
}
