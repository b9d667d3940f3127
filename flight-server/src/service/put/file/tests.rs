use super::*;
use arrow_array::{ArrayRef, BinaryArray, LargeBinaryArray, StringArray};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow_schema::Field;
use std::sync::Arc;
use tonic::Code;

fn messages(array: ArrayRef, name: &str, options: &IpcWriteOptions) -> (IpcMessage, IpcMessage) {
    let schema = Arc::new(Schema::new(vec![Field::new(name, array.data_type().clone(), true)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
    let mut tracker = DictionaryTracker::new(false);
    let generator = IpcDataGenerator::default();
    let schema = generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut tracker, options);
    let (_, batch) = generator
        .encode(&batch, &mut tracker, options, &mut Default::default())
        .unwrap();
    let message = |header: Vec<u8>, body: Vec<u8>| IpcMessage {
        header: header.into(),
        body: vec![body.into()],
        ..Default::default()
    };
    (
        message(schema.ipc_message, vec![]),
        message(batch.ipc_message, batch.arrow_data),
    )
}

fn joined(array: ArrayRef, options: &IpcWriteOptions) -> Result<Vec<u8>, Status> {
    let (schema, batch) = messages(array, "data", options);
    column(&schema)?.values(batch).map(|slices| slices.concat())
}

#[test]
fn values_are_joined() {
    let plain = IpcWriteOptions::default();
    let values: &[&[u8]] = &[b"ab", b"", b"c"];
    assert_eq!(
        joined(Arc::new(LargeBinaryArray::from_vec(values.to_vec())), &plain).unwrap(),
        b"abc"
    );
    assert_eq!(
        joined(Arc::new(BinaryArray::from_vec(values.to_vec())), &plain).unwrap(),
        b"abc"
    );
    assert_eq!(
        joined(Arc::new(LargeBinaryArray::from_vec(vec![])), &plain).unwrap(),
        b""
    );
    let sliced = LargeBinaryArray::from_vec(vec![b"before", b"middle", b"after!"]).slice(1, 1);
    assert_eq!(joined(Arc::new(sliced), &plain).unwrap(), b"middle");
}

#[test]
fn compressed_batches_are_understood() {
    let lz4 = IpcWriteOptions::default()
        .try_with_compression(Some(arrow_ipc::CompressionType::LZ4_FRAME))
        .unwrap();
    let long = vec![7; 100_000];
    assert_eq!(
        joined(Arc::new(LargeBinaryArray::from_vec(vec![&long, b"x"])), &lz4).unwrap(),
        [&long[..], b"x"].concat()
    );
    assert_eq!(
        joined(Arc::new(BinaryArray::from_vec(vec![&long, b"x"])), &lz4).unwrap(),
        [&long[..], b"x"].concat()
    );
}

#[test]
fn values_are_slices_of_what_arrived() {
    let value: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let (schema, mut batch) = messages(
        Arc::new(LargeBinaryArray::from_vec(vec![&value])),
        "data",
        &IpcWriteOptions::default(),
    );
    let whole = batch.body.pop().unwrap();
    batch.body = vec![whole.slice(..5000), whole.slice(5000..)];
    let slices = column(&schema).unwrap().values(batch).unwrap();
    assert_eq!(slices.concat(), value);
    assert!(
        slices
            .iter()
            .all(|slice| whole.as_ptr_range().contains(&slice.as_ptr()))
    );
}

#[test]
fn other_schemas_and_nulls_are_refused() {
    let plain = IpcWriteOptions::default();
    let refused = |array: ArrayRef, name: &str| {
        let (schema, batch) = messages(array, name, &plain);
        column(&schema)
            .and_then(|column| column.values(batch))
            .unwrap_err()
            .code()
    };
    assert_eq!(
        refused(Arc::new(StringArray::from(vec!["x"])), "data"),
        Code::InvalidArgument
    );
    assert_eq!(
        refused(Arc::new(BinaryArray::from_vec(vec![b"x"])), "bytes"),
        Code::InvalidArgument
    );
    assert_eq!(
        refused(Arc::new(BinaryArray::from_opt_vec(vec![Some(b"x"), None])), "data"),
        Code::InvalidArgument
    );
}

#[test]
fn no_header_or_body_hurts() {
    let value = vec![9; 100];
    let (schema, batch) = messages(
        Arc::new(LargeBinaryArray::from_vec(vec![&value])),
        "data",
        &IpcWriteOptions::default(),
    );
    let column = column(&schema).unwrap();
    for at in 0..batch.header.len() {
        let mut header = batch.header.to_vec();
        header[at] ^= 0xFF;
        let _ = column.values(IpcMessage {
            header: header.into(),
            ..batch.clone()
        });
    }
    for cut in 0..batch.body[0].len() {
        let _ = column.values(IpcMessage {
            body: vec![batch.body[0].slice(..cut)],
            ..batch.clone()
        });
    }
}
