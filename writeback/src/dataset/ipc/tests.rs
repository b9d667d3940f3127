use super::{
    decode::Decoder,
    frame, guarded,
    index::{Index, Kind, items},
    samples::{self, messages, numbers, schema_message, texts, zoo},
    schema::StoredSchema,
    validate::{Checked, Validator},
};
use crate::{
    ErrorKind,
    dataset::{IpcMessage, PartItem, source::Source},
};
use arrow_array::RecordBatch;
use arrow_ipc::{CompressionType, writer::IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema};
use bytes::{Bytes, BytesMut};
use forebay_runtime::chance::{Chance, SeededChance};
use futures::TryStreamExt;
use std::{io::Cursor, sync::Arc};

fn stored(batch: &RecordBatch) -> StoredSchema {
    StoredSchema::parse(&schema_message(&batch.schema()).header).unwrap()
}

/// A part as the writer would make it.
fn part(schema: &StoredSchema, messages: &[IpcMessage]) -> (Bytes, Vec<frame::Entry>) {
    let mut out = BytesMut::from(&frame::opening()[..]);
    let first = IpcMessage {
        header: schema.message.clone(),
        ..IpcMessage::default()
    };
    let (chunks, _) = frame::framed(out.len() as u64, &first, false);
    chunks.iter().for_each(|chunk| out.extend_from_slice(chunk));
    let mut entries = Vec::new();
    for message in messages {
        let dictionary =
            super::message(&message.header).unwrap().header_type() == arrow_ipc::MessageHeader::DictionaryBatch;
        let (chunks, entry) = frame::framed(out.len() as u64, message, dictionary);
        chunks.iter().for_each(|chunk| out.extend_from_slice(chunk));
        assert_eq!(out.len() as u64, entry.end());
        entries.push(entry);
    }
    out.extend_from_slice(&frame::closing(&schema.schema, &entries));
    (out.freeze(), entries)
}

async fn read_back(bytes: Bytes, skip: u64) -> Vec<(RecordBatch, Bytes)> {
    let source = Source::Memory(bytes);
    let kind = Kind::of(&source).await.unwrap().unwrap();
    let index = Arc::new(Index::read(&source, kind).await.unwrap());
    let mut decoder = Decoder::new(&index.schema.message).unwrap();
    let found: Vec<PartItem> = items(source, index, skip).try_collect().await.unwrap();
    found
        .into_iter()
        .filter_map(|item| decoder.push(item).unwrap())
        .collect()
}

#[tokio::test]
async fn every_kind_of_batch_comes_back_and_stock_readers_read_the_file() {
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        for batch in zoo() {
            let schema = stored(&batch);
            let mut sent = messages(&[batch.clone(), batch.clone()], &options);
            let mut validator = Validator::new(schema.clone());
            for (k, message) in sent.iter_mut().enumerate() {
                validator.check(message).unwrap();
                message.app_metadata = Bytes::from(vec![7; 100_000 * k]);
            }
            let (bytes, entries) = part(&schema, &sent);
            assert!(
                entries
                    .iter()
                    .all(|entry| (entry.offset + u64::from(entry.meta)) % 64 == 0)
            );
            let stock = arrow_ipc::reader::FileReader::try_new(Cursor::new(bytes.to_vec()), None).unwrap();
            assert_eq!(
                stock.map(Result::unwrap).collect::<Vec<_>>(),
                [batch.clone(), batch.clone()]
            );
            let tail = arrow_ipc::reader::StreamReader::try_new(&bytes[64..], None).unwrap();
            assert_eq!(
                tail.map(Result::unwrap).collect::<Vec<_>>(),
                [batch.clone(), batch.clone()]
            );
            let back = read_back(bytes, 0).await;
            assert_eq!(back.iter().map(|(b, _)| b).collect::<Vec<_>>(), [&batch, &batch]);
            assert_eq!(back[1].1, sent.last().unwrap().app_metadata);
        }
    }
}

#[tokio::test]
async fn skipped_batches_still_bring_their_dictionaries() {
    let batches: Vec<_> = (0..5).map(|_| samples::dictionary(&["a", "b"])).collect();
    let schema = stored(&batches[0]);
    let (bytes, _) = part(&schema, &messages(&batches, &IpcWriteOptions::default()));
    for skip in 0..=5 {
        let back = read_back(bytes.clone(), skip).await;
        assert_eq!(back.len() as u64, 5 - skip);
        assert!(back.iter().all(|(batch, _)| *batch == batches[0]));
    }
}

#[tokio::test]
async fn files_and_streams_of_stock_writers_are_read() {
    let batches = [samples::dictionary(&["a", "b"]), samples::dictionary(&["a", "b"])];
    let (mut file, mut streamed) = (Vec::new(), Vec::new());
    let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut file, &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut streamed, &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    for bytes in [file, streamed] {
        let back = read_back(Bytes::from(bytes), 1).await;
        assert_eq!(back.iter().map(|(batch, _)| batch).collect::<Vec<_>>(), [&batches[1]]);
    }
}

#[tokio::test]
async fn a_file_cut_anywhere_is_refused_or_read_in_part_but_never_a_panic() {
    let batches = [texts(&["some", "text"])];
    let schema = stored(&batches[0]);
    let (bytes, _) = part(&schema, &messages(&batches, &IpcWriteOptions::default()));
    for end in 0..bytes.len() {
        let source = Source::Memory(bytes.slice(..end));
        if let Some(kind) = Kind::of(&source).await.unwrap() {
            assert!(Index::read(&source, kind).await.is_err(), "cut at {end}");
        }
    }
}

#[test]
fn wrong_messages_are_refused_with_a_text() {
    let row = numbers(0, 3);
    let schema = stored(&row);
    let [batch]: [IpcMessage; 1] = messages(std::slice::from_ref(&row), &IpcWriteOptions::default())
        .try_into()
        .unwrap();
    let [text]: [IpcMessage; 1] = messages(&[texts(&["x"])], &IpcWriteOptions::default())
        .try_into()
        .unwrap();
    let coded = messages(&[samples::dictionary(&["x"])], &IpcWriteOptions::default());
    let with = |body: Bytes| IpcMessage {
        body: vec![body],
        ..batch.clone()
    };
    let body = batch.body[0].clone();
    let wrong = [
        ("another schema", text),
        ("a dictionary nobody named", coded[0].clone()),
        ("a body cut short", with(body.slice(..body.len() - 8))),
        ("no body", with(Bytes::new())),
        ("a body too long", with([&body[..], &[0; 8]].concat().into())),
        (
            "noise",
            IpcMessage {
                header: Bytes::from((0..=255).collect::<Vec<u8>>()),
                ..batch.clone()
            },
        ),
        (
            "zeros",
            IpcMessage {
                header: Bytes::from(vec![0; 64]),
                ..IpcMessage::default()
            },
        ),
        ("nothing", IpcMessage::default()),
        ("a second schema", schema_message(&row.schema())),
    ];
    for (what, message) in wrong {
        let error = Validator::new(schema.clone()).check(&message).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}");
        assert!(error.to_string().len() > 5, "{what}");
    }
    let mut early = Validator::new(stored(&samples::dictionary(&["x"])));
    assert_eq!(
        early.check(&coded[1]).unwrap_err().kind(),
        ErrorKind::Invalid,
        "a batch before its dictionary"
    );
    assert!(matches!(
        early.check(&coded[0]),
        Ok(Checked::Dictionary { id: 0, delta: false })
    ));
    assert!(matches!(early.check(&coded[1]), Ok(Checked::Batch { rows: 1, .. })));
}

#[test]
fn a_batch_without_nodes_and_buffers_is_of_another_schema() {
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(7));
    let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    let [message]: [IpcMessage; 1] = messages(&[bare], &IpcWriteOptions::default()).try_into().unwrap();
    assert_eq!(
        Validator::new(stored(&numbers(0, 7)))
            .check(&message)
            .unwrap_err()
            .kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn offsets_and_null_counts_that_lie_are_refused() {
    let text = texts(&["some text", "more"]);
    let [message]: [IpcMessage; 1] = messages(std::slice::from_ref(&text), &IpcWriteOptions::default())
        .try_into()
        .unwrap();
    let mut body = message.body[0].to_vec();
    let at = body.windows(4).position(|word| word == 9i32.to_le_bytes()).unwrap();
    body[at..at + 4].copy_from_slice(&(1i32 << 30).to_le_bytes());
    let hurt = IpcMessage {
        body: vec![body.into()],
        ..message
    };
    assert_eq!(
        Validator::new(stored(&text)).check(&hurt).unwrap_err().kind(),
        ErrorKind::Invalid
    );

    let row = numbers(0, 20);
    let [message]: [IpcMessage; 1] = messages(std::slice::from_ref(&row), &IpcWriteOptions::default())
        .try_into()
        .unwrap();
    let parsed = super::message(&message.header).unwrap();
    let validity = *parsed.header_as_record_batch().unwrap().buffers().unwrap().get(2);
    let mut body = message.body[0].to_vec();
    body[usize::try_from(validity.offset()).unwrap()] ^= 1;
    let hurt = IpcMessage {
        body: vec![body.into()],
        ..message.clone()
    };
    assert!(
        Validator::new(stored(&row))
            .check(&hurt)
            .unwrap_err()
            .to_string()
            .contains("nulls")
    );
}

#[test]
fn the_body_may_come_in_any_pieces() {
    for batch in zoo() {
        let mut whole = Validator::new(stored(&batch));
        let mut pieces = Validator::new(stored(&batch));
        for message in messages(std::slice::from_ref(&batch), &IpcWriteOptions::default()) {
            let body = super::joined(&message.body);
            let cut = message.clone();
            let cut = IpcMessage {
                body: body.chunks(5).map(Bytes::copy_from_slice).collect(),
                ..cut
            };
            assert_eq!(whole.check(&message).unwrap(), pieces.check(&cut).unwrap());
        }
    }
}

#[test]
fn a_body_of_odd_length_is_padded_and_says_so() {
    let batch = texts(&["abc"]);
    let schema = stored(&batch);
    let [mut message]: [IpcMessage; 1] = messages(std::slice::from_ref(&batch), &IpcWriteOptions::default())
        .try_into()
        .unwrap();
    let body = super::joined(&message.body);
    message.header = frame_with_length(&message.header, body.len() as u64 - 3);
    message.body = vec![body.slice(..body.len() - 3)];
    // The last buffer's padding is not part of the buffer, so the message is sound.
    Validator::new(schema.clone()).check(&message).unwrap();
    let (bytes, entries) = part(&schema, &[message]);
    assert_eq!(entries[0].body % 8, 0);
    let mut stock = arrow_ipc::reader::FileReader::try_new(Cursor::new(bytes.to_vec()), None).unwrap();
    assert_eq!(stock.next().unwrap().unwrap(), batch);
}

fn frame_with_length(header: &Bytes, length: u64) -> Bytes {
    frame::with_body_length(header, length)
}

#[test]
fn a_schema_says_where_another_differs() {
    let field = |name: &str, data_type: DataType, nullable| Field::new(name, data_type, nullable);
    let of = |fields: Vec<Field>| StoredSchema::encode(&Schema::new(fields)).unwrap();
    let base = of(vec![
        field("a", DataType::Int64, true),
        field("b", DataType::Utf8, false),
    ]);
    let noted = field("a", DataType::Int64, true).with_metadata([("k".to_owned(), "v".to_owned())].into());
    assert_eq!(
        base.agrees(&of(vec![noted, field("b", DataType::Utf8, false)]).schema),
        Ok(())
    );
    let cases = [
        (
            vec![field("a", DataType::Int32, true), field("b", DataType::Utf8, false)],
            "Int32",
        ),
        (
            vec![field("a", DataType::Int64, false), field("b", DataType::Utf8, false)],
            "nullable",
        ),
        (
            vec![field("b", DataType::Utf8, false), field("a", DataType::Int64, true)],
            "\"b\"",
        ),
        (vec![field("a", DataType::Int64, true)], "missing"),
        (
            vec![
                field("a", DataType::Int64, true),
                field("b", DataType::Utf8, false),
                field("c", DataType::Utf8, false),
            ],
            "\"c\"",
        ),
    ];
    for (fields, word) in cases {
        let difference = base.agrees(&of(fields).schema).unwrap_err();
        assert!(difference.contains(word), "{difference}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        (0..depth).fold(DataType::Int8, |inner, _| {
            DataType::List(Arc::new(Field::new("item", inner, true)))
        })
    };
    assert!(StoredSchema::encode(&Schema::new(vec![Field::new("a", nested(100), true)])).is_ok());
    let error = StoredSchema::encode(&Schema::new(vec![Field::new("a", nested(200), true)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_claim_of_gigabytes_is_refused_before_it_is_decoded() {
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::ZSTD))
        .unwrap();
    let batch = texts(&[&"x".repeat(10_000)]);
    let [message]: [IpcMessage; 1] = messages(std::slice::from_ref(&batch), &options).try_into().unwrap();
    let mut body = message.body[0].to_vec();
    let parsed = super::message(&message.header).unwrap();
    let data = *parsed.header_as_record_batch().unwrap().buffers().unwrap().get(2);
    let at = usize::try_from(data.offset()).unwrap();
    body[at..at + 8].copy_from_slice(&(1i64 << 40).to_le_bytes());
    let hurt = IpcMessage {
        body: vec![body.into()],
        ..message.clone()
    };
    assert!(
        Validator::new(stored(&batch))
            .check(&hurt)
            .unwrap_err()
            .to_string()
            .contains("decodes to")
    );
}

/// Whatever bytes come, the answer is a result. What is accepted can be decoded.
#[test]
fn mutated_messages_never_panic_and_what_is_accepted_decodes() {
    let seed = std::env::var("FOREBAY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_260_801);
    println!("seed {seed}");
    let chance = SeededChance::new(seed);
    let mut accepted = 0;
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        for batch in zoo() {
            let schema = stored(&batch);
            let sent = messages(std::slice::from_ref(&batch), &options);
            for _ in 0..400 {
                let mut validator = Validator::new(schema.clone());
                for message in &sent {
                    let hurt = mutated(message, &*chance);
                    match validator.check(&hurt) {
                        Ok(Checked::Batch { .. }) => {
                            accepted += 1;
                            validator
                                .decode(&hurt)
                                .unwrap_or_else(|error| panic!("seed {seed}: accepted and not decoded: {error}"));
                        }
                        Ok(Checked::Dictionary { .. }) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
                    }
                }
                let _ = StoredSchema::parse_any(&mutated(&schema_message(&batch.schema()), &*chance).header);
            }
        }
    }
    assert!(accepted > 500, "some mutations leave the message sound: {accepted}");
}

fn mutated(message: &IpcMessage, chance: &dyn Chance) -> IpcMessage {
    let mut header = message.header.to_vec();
    let mut body = super::joined(&message.body).to_vec();
    for _ in 0..=chance.below(3) {
        let target = if chance.below(3) == 0 { &mut body } else { &mut header };
        if target.is_empty() {
            continue;
        }
        let at = usize::try_from(chance.below(target.len() as u64)).unwrap();
        match chance.below(4) {
            0 => target[at] ^= 1 << chance.below(8),
            1 => target[at] = 0xff,
            2 => target[at] = 0,
            _ => target.truncate(at),
        }
    }
    IpcMessage {
        header: header.into(),
        body: vec![body.into()],
        app_metadata: Bytes::new(),
    }
}

#[test]
fn a_panic_becomes_an_error() {
    std::panic::set_hook(Box::new(|_| {}));
    let error = guarded("this", || -> Result<(), arrow_schema::ArrowError> {
        panic!("on purpose")
    })
    .unwrap_err();
    drop(std::panic::take_hook());
    assert!(error.to_string().contains("on purpose"));
}
