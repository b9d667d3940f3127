use super::*;
use crate::{Compression, Result};
use arrow_array::{
    Array, DictionaryArray, Float64Array, Int64Array, LargeBinaryArray, RecordBatch, StringArray, types::Int32Type,
};
use arrow_flight::FlightDescriptor;
use arrow_schema::{DataType, Field, Schema};
use forebay_protocol::frame::{Caps, FlightMessage, Parser};
use std::sync::Arc;

fn encoder(batch: &RecordBatch, compression: Compression) -> Encoder {
    Encoder::new(batch.schema(), FlightDescriptor::new_cmd("{}"), compression).unwrap()
}

fn decode(frames: Vec<Bytes>, size: usize) -> Result<(Vec<RecordBatch>, Vec<FlightMessage<Buffer>>)> {
    let mut parser = Parser::collecting(Caps::default(), AlignedBody::default());
    let (mut decoder, mut batches, mut messages) = (Decoder::default(), Vec::new(), Vec::new());
    for chunk in frames.concat().chunks(size) {
        parser.push(Bytes::copy_from_slice(chunk));
        while let Some(message) = parser.next_message()? {
            batches.extend(decoder.message(&message)?);
            messages.push(message);
        }
    }
    parser.finish()?;
    Ok((batches, messages))
}

fn numbers(rows: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values(0..rows as i64);
    let x = Float64Array::from_iter((0..rows).map(|i| (i % 3 > 0).then_some(i as f64)));
    let s = StringArray::from_iter_values((0..rows).map(|i| format!("row {i}")));
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("x", DataType::Float64, true),
        Field::new("s", DataType::Utf8, false),
    ]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(x), Arc::new(s)]).unwrap()
}

fn words(words: &[&str]) -> RecordBatch {
    let array: DictionaryArray<Int32Type> = words.iter().copied().collect();
    let schema = Schema::new(vec![Field::new("w", array.data_type().clone(), true)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(array)]).unwrap()
}

#[test]
fn batches_come_back_equal_in_frames_of_any_size_and_compression() {
    let batches = [
        numbers(10_000),
        numbers(0),
        numbers(1),
        numbers(10_000).slice(777, 1234),
    ];
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let mut encoder = encoder(&batches[0], compression);
        let frames: Vec<Bytes> = batches.iter().flat_map(|b| encoder.batch(b, b"").unwrap()).collect();
        for size in [1 << 20, 16 << 10, 313] {
            assert_eq!(decode(frames.clone(), size).unwrap().0, batches);
        }
    }
}

#[test]
fn large_column_buffers_are_sent_where_they_lie() {
    let batch = numbers(100_000);
    let frames = encoder(&batch, Compression::None).batch(&batch, b"").unwrap();
    let values = batch.column(0).to_data().buffers()[0].clone();
    assert!(
        frames.iter().any(|f| f.as_ptr() == values.as_ptr()),
        "the ids were copied"
    );
    assert!(
        frames.iter().skip(1).all(|f| f.len() >= 4096),
        "{:?}",
        frames.iter().map(Bytes::len).collect::<Vec<_>>()
    );
}

#[test]
fn received_arrays_share_one_aligned_buffer() {
    let batch = numbers(50_000);
    let frames = encoder(&batch, Compression::None).batch(&batch, b"").unwrap();
    let (got, messages) = decode(frames, 1 << 16).unwrap();
    let body = messages[1].body.as_slice().as_ptr_range();
    assert_eq!(body.start as usize % 64, 0);
    assert!(body.contains(&got[0].column(0).to_data().buffers()[0].as_ptr()));
}

#[test]
fn dictionaries_are_sent_once_and_again_when_they_change() {
    let batches = [words(&["a", "b", "a"]), words(&["a", "b", "a"]), words(&["c", "b"])];
    let mut encoder = encoder(&batches[0], Compression::None);
    let frames: Vec<Bytes> = batches.iter().flat_map(|b| encoder.batch(b, b"").unwrap()).collect();
    let (got, messages) = decode(frames, 999).unwrap();
    assert_eq!(got, batches);
    assert_eq!(messages.len(), 1 + 2 + 3, "schema, two dictionaries, three batches");
}

#[test]
fn app_metadata_goes_with_the_batch_and_the_descriptor_with_the_first_message() {
    let batch = words(&["a"]);
    let frames = encoder(&batch, Compression::None).batch(&batch, b"note").unwrap();
    let (_, messages) = decode(frames, 50).unwrap();
    let notes: Vec<&[u8]> = messages.iter().map(|m| &m.app_metadata[..]).collect();
    assert_eq!(notes, [&b""[..], b"", b"note"]);
    assert!(messages[0].descriptor.is_some() && messages[1].descriptor.is_none());
}

#[test]
fn a_stream_without_batches_has_its_schema() {
    let batch = numbers(1);
    let frames = encoder(&batch, Compression::None).schema_only().unwrap();
    let (batches, messages) = decode(frames, 50).unwrap();
    assert_eq!((batches.len(), messages.len()), (0, 1));
}

#[test]
fn another_schema_is_refused() {
    let mut encoder = encoder(&numbers(1), Compression::None);
    assert!(encoder.batch(&words(&["a"]), b"").is_err());
}

/// Every byte of a header changed in turn: an error or a batch, never a panic.
#[test]
fn a_damaged_header_does_not_panic() {
    let batch = numbers(100);
    let frames = encoder(&batch, Compression::None).batch(&batch, b"").unwrap();
    let (_, messages) = decode(frames, 1 << 20).unwrap();
    for at in 0..messages[1].data_header.len() {
        for change in [1, 0x80, 0xff] {
            let mut header = messages[1].data_header.to_vec();
            header[at] ^= change;
            let damaged = FlightMessage {
                data_header: header.into(),
                ..messages[1].clone()
            };
            let mut decoder = Decoder::default();
            decoder.message(&messages[0]).unwrap();
            let _ = decoder.message(&damaged);
        }
    }
}

#[test]
fn binary_values_share_the_received_buffer() {
    let column = LargeBinaryArray::from_iter_values([vec![7u8; 100_000]]);
    let schema = Schema::new(vec![Field::new("data", DataType::LargeBinary, true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)]).unwrap();
    let frames = encoder(&batch, Compression::None).batch(&batch, b"").unwrap();
    let (got, messages) = decode(frames, 1 << 20).unwrap();
    let values = got[0].column(0).to_data().buffers()[1].clone();
    assert!(messages[1].body.as_slice().as_ptr_range().contains(&values.as_ptr()));
    assert_eq!(shared(values).len(), 100_000);
}
