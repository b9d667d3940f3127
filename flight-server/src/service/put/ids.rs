//! Dictionary ids. A client may number its dictionaries as it likes, and share one between columns; stored messages always have the
//! ids that `arrow-ipc` assigns to the schema (0, 1, … in the order of the fields, children first), so that any schema message we
//! send later fits them. Where a client's ids differ, its schema and dictionary messages are written anew; batches have none.

use crate::error;
use arrow_ipc::{
    DictionaryBatch, Field, Message, MessageHeader, RecordBatch,
    convert::fb_to_schema,
    root_as_message,
    writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions},
};
use flatbuffers::FlatBufferBuilder;
use forebay_writeback::dataset::IpcMessage;
use std::collections::HashMap;
use tonic::Status;

/// From a client's ids to ours.
#[derive(Debug)]
pub(super) struct Ids {
    ours: HashMap<i64, Vec<i64>>,
}

/// The schema message with our ids; how to translate dictionaries, where that is needed.
pub(super) fn canonical(schema: IpcMessage) -> Result<(IpcMessage, Option<Ids>), Status> {
    let message =
        root_as_message(&schema.header).map_err(|e| error::wrong(format!("the schema does not read: {e}")))?;
    let fb = message
        .header_as_schema()
        .ok_or_else(|| error::wrong("the first message is no schema"))?;
    let mut theirs = vec![];
    fb.fields()
        .into_iter()
        .flatten()
        .for_each(|field| collect(field, &mut theirs));
    if (0..).zip(&theirs).all(|(ours, theirs)| ours == *theirs) {
        return Ok((schema, None));
    }
    let mut ours: HashMap<i64, Vec<i64>> = HashMap::new();
    for (our, their) in (0..).zip(theirs) {
        ours.entry(their).or_default().push(our);
    }
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fb_to_schema(fb)));
    let read = read.map_err(|_| error::wrong("the schema has types that are not known"))?;
    let mut tracker = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    let header = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(&read, &mut tracker, &options);
    let schema = IpcMessage {
        header: header.ipc_message.into(),
        ..schema
    };
    Ok((schema, Some(Ids { ours })))
}

/// Ids in the order in which `arrow-ipc` assigns them. The verifier has bounded the depth.
fn collect(field: Field<'_>, ids: &mut Vec<i64>) {
    field
        .children()
        .into_iter()
        .flatten()
        .for_each(|child| collect(child, ids));
    if let Some(dictionary) = field.dictionary() {
        ids.push(dictionary.id());
    }
}

impl Ids {
    /// A dictionary message as one per column that uses it; other messages as they are.
    pub(super) fn translate(&self, message: IpcMessage) -> Result<Vec<IpcMessage>, Status> {
        let fb = root_as_message(&message.header).map_err(|e| error::wrong(format!("a message does not read: {e}")))?;
        let Some(dictionary) = fb.header_as_dictionary_batch() else {
            return Ok(vec![message]);
        };
        let data = dictionary
            .data()
            .ok_or_else(|| error::wrong("a dictionary has no values"))?;
        let id = dictionary.id();
        let ours = self
            .ours
            .get(&id)
            .ok_or_else(|| error::wrong(format!("no column has the dictionary {id}")))?;
        Ok(ours
            .iter()
            .map(|our| IpcMessage {
                header: rewrite(fb, dictionary, data, *our).into(),
                ..message.clone()
            })
            .collect())
    }
}

/// The header of a dictionary message with another id.
fn rewrite(message: Message<'_>, dictionary: DictionaryBatch<'_>, data: RecordBatch<'_>, id: i64) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let nodes = data
        .nodes()
        .map(|nodes| fbb.create_vector_from_iter(nodes.iter().copied()));
    let buffers = data
        .buffers()
        .map(|buffers| fbb.create_vector_from_iter(buffers.iter().copied()));
    let variadic = data
        .variadicBufferCounts()
        .map(|counts| fbb.create_vector_from_iter(counts.iter()));
    let compression = data.compression().map(|compression| {
        let mut builder = arrow_ipc::BodyCompressionBuilder::new(&mut fbb);
        builder.add_method(compression.method());
        builder.add_codec(compression.codec());
        builder.finish()
    });
    let mut batch = arrow_ipc::RecordBatchBuilder::new(&mut fbb);
    batch.add_length(data.length());
    nodes.into_iter().for_each(|nodes| batch.add_nodes(nodes));
    buffers.into_iter().for_each(|buffers| batch.add_buffers(buffers));
    variadic
        .into_iter()
        .for_each(|counts| batch.add_variadicBufferCounts(counts));
    compression
        .into_iter()
        .for_each(|compression| batch.add_compression(compression));
    let batch = batch.finish();
    let mut builder = arrow_ipc::DictionaryBatchBuilder::new(&mut fbb);
    builder.add_id(id);
    builder.add_data(batch);
    builder.add_isDelta(dictionary.isDelta());
    let dictionary = builder.finish().as_union_value();
    let mut builder = arrow_ipc::MessageBuilder::new(&mut fbb);
    builder.add_version(message.version());
    builder.add_header_type(MessageHeader::DictionaryBatch);
    builder.add_bodyLength(message.bodyLength());
    builder.add_header(dictionary);
    let root = builder.finish();
    fbb.finish(root, None);
    fbb.finished_data().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Decoder;
    use arrow_array::{ArrayRef, DictionaryArray, RecordBatch, cast::AsArray, types::Int32Type};
    use std::sync::Arc;

    /// Two dictionary columns, as their messages.
    fn messages() -> (RecordBatch, Vec<IpcMessage>) {
        let column =
            |values: &[&str]| Arc::new(values.iter().copied().collect::<DictionaryArray<Int32Type>>()) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("a", column(&["x", "y"])), ("b", column(&["p", "p"]))]).unwrap();
        let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
        let mut tracker = DictionaryTracker::new(false);
        let schema = generator.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
        let (dictionaries, data) = generator
            .encode(&batch, &mut tracker, &options, &mut Default::default())
            .unwrap();
        let messages = [schema].into_iter().chain(dictionaries).chain([data]);
        let messages = messages.map(|m| IpcMessage {
            header: m.ipc_message.into(),
            body: vec![m.arrow_data.into()],
            ..Default::default()
        });
        (batch, messages.collect())
    }

    fn dictionary_id(message: &IpcMessage) -> i64 {
        root_as_message(&message.header)
            .unwrap()
            .header_as_dictionary_batch()
            .unwrap()
            .id()
    }

    #[test]
    fn our_own_ids_are_left_alone() {
        let (_, messages) = messages();
        let (schema, ids) = canonical(messages[0].clone()).unwrap();
        assert!(ids.is_none() && schema.header == messages[0].header);
    }

    #[test]
    fn other_ids_are_translated_and_shared_ones_multiplied() {
        let (batch, messages) = messages();
        let ids = Ids {
            ours: HashMap::from([(0, vec![1]), (1, vec![0])]),
        };
        let swapped = ids.translate(messages[1].clone()).unwrap();
        assert_eq!(swapped.iter().map(dictionary_id).collect::<Vec<_>>(), [1]);
        assert_eq!(
            ids.translate(messages[3].clone()).unwrap().len(),
            1,
            "a batch stays as it is"
        );

        let shared = Ids {
            ours: HashMap::from([(7, vec![0, 1])]),
        };
        let seven = Ids {
            ours: HashMap::from([(0, vec![7])]),
        }
        .translate(messages[1].clone())
        .unwrap()
        .remove(0);
        let both = shared.translate(seven).unwrap();
        assert_eq!(both.iter().map(dictionary_id).collect::<Vec<_>>(), [0, 1]);
        let mut decoder = Decoder::new(&batch.schema()).unwrap();
        both.iter().for_each(|message| decoder.dictionary(message).unwrap());
        let decoded = decoder.batch(&messages[3], &[0, 1]).unwrap();
        let b = decoded.column(1).as_dictionary::<Int32Type>();
        assert_eq!(
            b.values().as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
            ["x", "y"],
            "a's values"
        );
    }

    #[test]
    fn a_dictionary_of_no_column_is_refused() {
        let (_, messages) = messages();
        assert!(Ids { ours: HashMap::new() }.translate(messages[1].clone()).is_err());
    }
}
