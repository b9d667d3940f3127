use super::*;
use crate::service::view::{View, Views};
use arrow_array::{Int64Array, StringArray, cast::AsArray, types::Int64Type};
use forebay_protocol::frame::{Caps, FlightMessage, Parser};

fn parsed(said: Vec<Said>) -> Vec<FlightMessage> {
    let mut parser = Parser::new(Caps::default());
    let mut messages = vec![];
    for said in said {
        let Said::Message(pieces) = said else {
            panic!("only messages are said")
        };
        pieces.into_iter().for_each(|piece| parser.push(piece));
        messages.push(parser.next_message().unwrap().expect("a message is whole"));
    }
    parser.finish().unwrap();
    messages
}

fn stored(message: FlightMessage) -> IpcMessage {
    IpcMessage {
        header: message.data_header,
        body: message.body,
        app_metadata: message.app_metadata,
    }
}

fn schema_of(message: &FlightMessage) -> Schema {
    fb_to_schema(
        root_as_message(&message.data_header)
            .unwrap()
            .header_as_schema()
            .unwrap(),
    )
}

fn ten() -> RecordBatch {
    let ids = Int64Array::from_iter_values(0..10);
    let names = StringArray::from_iter_values((0..10).map(|i| format!("name {i}")));
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("s", Arc::new(names) as ArrayRef)]).unwrap()
}

fn stream_schema(schema: &SchemaRef) -> StreamSchema {
    StreamSchema {
        schema: Arc::clone(schema),
        message: Encoder::new(schema).1.ipc_message.into(),
    }
}

/// The batch as a stored item.
fn item(batch: &RecordBatch, note: &'static [u8]) -> PartItem {
    let (mut encoder, _) = Encoder::new(&batch.schema());
    let said = encoder.batch(batch, Bytes::from_static(note)).unwrap();
    let message = parsed(said).pop().unwrap();
    PartItem::Batch(stored(message), batch.num_rows() as u64)
}

#[test]
fn a_stored_batch_goes_out_as_the_very_bytes_it_is_stored_in() {
    let body = Bytes::from(vec![7u8; 100_000]);
    let item = IpcMessage {
        header: Bytes::from_static(b"head"),
        body: vec![body.clone()],
        app_metadata: Bytes::from_static(b"note"),
    };
    let (mut translator, _) = Translator::whole(&stream_schema(&ten().schema())).unwrap();
    let said = translator.item(PartItem::Batch(item.clone(), 10)).unwrap();
    let [Said::Message(pieces)] = &said[..] else {
        panic!("one message")
    };
    assert_eq!(pieces.last().unwrap().as_ptr(), body.as_ptr());
    assert_eq!(stored(parsed(said).remove(0)).header, item.header);
}

#[test]
fn a_view_shows_columns_and_rows_of_stored_batches_with_their_notes() {
    let batch = ten();
    let view = View {
        columns: Some(vec!["id".into()]),
        filter: Some("s >= 'name 7'".into()),
        limit: Some(4),
    };
    let lens = Views::new().lens(&view, &batch.schema()).unwrap();
    let (mut translator, opening) = Translator::through(lens, &batch.schema()).unwrap();
    let shown = schema_of(&parsed(vec![opening])[0]);
    assert_eq!(
        shown.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(),
        ["id"]
    );
    let decoder = Decoder::new(&shown).unwrap();
    let mut ids = vec![];
    for _ in 0..2 {
        for message in parsed(translator.item(item(&batch, b"note")).unwrap()) {
            assert_eq!(&message.app_metadata[..], b"note");
            let got = decoder.batch(&stored(message), &[0]).unwrap();
            ids.extend_from_slice(got.column(0).as_primitive::<Int64Type>().values());
        }
    }
    assert_eq!(ids, [7, 8, 9, 7]);
    assert!(translator.is_done());
}

#[test]
fn decoded_batches_send_their_dictionaries_again_after_others_went_by() {
    let column: arrow_array::DictionaryArray<arrow_array::types::Int32Type> = ["x", "y"].into_iter().collect();
    let batch = RecordBatch::try_from_iter([("d", Arc::new(column) as ArrayRef)]).unwrap();
    let (mut translator, _) = Translator::whole(&stream_schema(&batch.schema())).unwrap();
    let decoded = || PartItem::Decoded(batch.clone(), Bytes::new());
    assert_eq!(translator.item(decoded()).unwrap().len(), 2, "dictionary and batch");
    assert_eq!(
        translator.item(decoded()).unwrap().len(),
        1,
        "the reader has the dictionary"
    );
    let (mut other, _) = Encoder::new(&batch.schema());
    let dictionary = parsed(other.batch(&batch, Bytes::new()).unwrap()).remove(0);
    translator.item(PartItem::Dictionary(stored(dictionary))).unwrap();
    assert_eq!(
        translator.item(decoded()).unwrap().len(),
        2,
        "another one may have taken its place"
    );
}

#[test]
fn schemas_keep_types_and_metadata() {
    use arrow_schema::{DataType as T, TimeUnit};
    let list = |of: T| Arc::new(Field::new("item", of, true));
    let of = HashMap::from([("k".to_owned(), "v".to_owned())]);
    let fields = vec![
        Field::new("large list", T::LargeList(list(T::Int8)), true).with_metadata(of.clone()),
        Field::new("large text", T::LargeUtf8, false),
        Field::new("dictionary", T::Dictionary(Box::new(T::Int8), Box::new(T::Utf8)), true),
        Field::new(
            "map",
            T::Map(
                Arc::new(Field::new(
                    "entries",
                    T::Struct(vec![Field::new("key", T::Utf8, false), Field::new("value", T::Int64, true)].into()),
                    false,
                )),
                false,
            ),
            true,
        ),
        Field::new("view", T::Utf8View, true),
        Field::new(
            "time",
            T::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into())),
            true,
        ),
    ];
    let schema = Schema::new_with_metadata(fields, of);
    let shown = stream_schema(&Arc::new(schema.clone()));
    let (_, opening) = Translator::whole(&shown).unwrap();
    assert_eq!(schema_of(&parsed(vec![opening])[0]), schema);
    assert_eq!(
        encapsulated_message(&shown.message).unwrap(),
        encapsulated_schema(&schema).unwrap()
    );
    let encapsulated = encapsulated_schema(&schema).unwrap();
    assert_eq!(encapsulated[..4], [0xFF; 4]);
    assert_eq!(
        arrow_ipc::convert::try_schema_from_ipc_buffer(&encapsulated).unwrap(),
        schema
    );
}

#[test]
fn files_go_out_as_batches_of_one_value_without_a_copy() {
    let decoder = Decoder::new(&FILE_SCHEMA).unwrap();
    for len in [0usize, 1, 63, 64, 65, 1000, FILE_BATCH_BYTES as usize] {
        let content: Vec<u8> = (0..len).map(|k| k as u8).collect();
        let whole = Bytes::from(content.clone());
        let pieces = vec![whole.slice(..len / 3), whole.slice(len / 3..)];
        let said = file_batch(pieces).unwrap();
        let Said::Message(sent) = &said else {
            panic!("a message")
        };
        assert!(len < 3 || sent.iter().any(|piece| piece.as_ptr() == whole.as_ptr()));
        let batch = decoder.batch(&stored(parsed(vec![said]).remove(0)), &[0]).unwrap();
        assert_eq!(batch.num_rows(), 1);
        assert_eq!(batch.column(0).as_binary::<i64>().value(0), content, "{len}");
    }
    assert_eq!(schema_of(&parsed(vec![file_schema().unwrap()])[0]), **FILE_SCHEMA);
}

#[test]
fn stored_bytes_that_do_not_decode_are_data_loss() {
    let schema = ten().schema();
    let lens = Views::new()
        .lens(
            &View {
                limit: Some(1),
                ..View::default()
            },
            &schema,
        )
        .unwrap();
    let (mut translator, _) = Translator::through(lens, &schema).unwrap();
    let noise = IpcMessage {
        header: Bytes::from_static(&[7; 64]),
        body: vec![],
        app_metadata: Bytes::new(),
    };
    assert_eq!(
        translator.item(PartItem::Batch(noise, 1)).unwrap_err().code(),
        Code::DataLoss
    );
}
