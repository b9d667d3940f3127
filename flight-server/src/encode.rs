//! Arrow messages as FlightData: stored ones as they are, decoded ones encoded anew, files as batches of one column.
//!
//! Dictionary ids are always those that `arrow-ipc` assigns to a schema; [`crate::service`] sees to it that stored messages
//! have them. The stock Flight encoder is not used: it copies bodies, cuts batches, and in 59.3 writes large lists as lists.

use crate::{
    error,
    reply::Said,
    service::view::{Lens, StreamSchema},
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::{
    convert::fb_to_schema,
    reader::{RecordBatchDecoder, read_dictionary},
    root_as_message,
    writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message},
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use forebay_protocol::frame;
use forebay_writeback::dataset::{IpcMessage, PartItem};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};
use tonic::{Code, Status};

/// Bytes of a file in one batch.
pub(crate) const FILE_BATCH_BYTES: u64 = 1 << 20;

/// The schema of a file: one column of bytes.
pub(crate) static FILE_SCHEMA: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("data", DataType::LargeBinary, true)])));

/// A schema as an encapsulated message, as FlightInfo and SchemaResult carry it.
pub(crate) fn encapsulated_schema(schema: &Schema) -> Result<Bytes, Status> {
    encapsulated(Encoder::new(schema).1)
}

/// A schema message as an encapsulated one.
pub(crate) fn encapsulated_message(header: &Bytes) -> Result<Bytes, Status> {
    encapsulated(EncodedData {
        ipc_message: header.to_vec(),
        arrow_data: vec![],
    })
}

fn encapsulated(encoded: EncodedData) -> Result<Bytes, Status> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, encoded, &IpcWriteOptions::default()).map_err(failed)?;
    Ok(bytes.into())
}

/// One message as FlightData; body pieces go out as they are.
pub(crate) fn message(message: IpcMessage) -> Result<Said, Status> {
    let IpcMessage {
        header,
        body,
        app_metadata,
    } = message;
    let body_len = body.iter().map(Bytes::len).sum();
    let head = frame::head(None, &header, &app_metadata, body_len).map_err(error::frame)?;
    let mut pieces = Vec::with_capacity(1 + body.len());
    pieces.push(head);
    pieces.extend(body);
    Ok(Said::Message(pieces))
}

/// Encodes the batches of one stream.
pub(crate) struct Encoder {
    schema: Schema,
    tracker: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    /// An encoder, and its schema message.
    fn new(schema: &Schema) -> (Self, EncodedData) {
        let mut tracker = DictionaryTracker::new(false);
        let options = IpcWriteOptions::default();
        let encoded =
            IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
        (
            Self {
                schema: schema.clone(),
                tracker,
                context: IpcWriteContext::default(),
            },
            encoded,
        )
    }

    /// Forgets which dictionaries the reader has: others were sent past this encoder.
    fn forget(&mut self) {
        self.tracker = Self::new(&self.schema).0.tracker;
    }

    /// The messages of a batch: its new dictionaries, then itself.
    fn batch(&mut self, batch: &RecordBatch, app_metadata: Bytes) -> Result<Vec<Said>, Status> {
        let options = IpcWriteOptions::default();
        let encoded = IpcDataGenerator::default().encode(batch, &mut self.tracker, &options, &mut self.context);
        let (dictionaries, batch) = encoded.map_err(failed)?;
        let mut said: Vec<Said> = dictionaries
            .into_iter()
            .map(|d| message(owned(d, Bytes::new())))
            .collect::<Result<_, _>>()?;
        said.push(message(owned(batch, app_metadata))?);
        Ok(said)
    }
}

fn owned(encoded: EncodedData, app_metadata: Bytes) -> IpcMessage {
    let body = match encoded.arrow_data.is_empty() {
        true => vec![],
        false => vec![encoded.arrow_data.into()],
    };
    IpcMessage {
        header: encoded.ipc_message.into(),
        body,
        app_metadata,
    }
}

/// Decodes the messages of one stream.
pub(crate) struct Decoder {
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl Decoder {
    /// A decoder of messages whose dictionary ids are those that this crate writes for `schema`.
    pub(crate) fn new(schema: &Schema) -> Result<Self, Status> {
        let (_, encoded) = Encoder::new(schema);
        let message = root_as_message(&encoded.ipc_message).map_err(malformed)?;
        let schema = message
            .header_as_schema()
            .map(fb_to_schema)
            .ok_or_else(|| malformed("no schema"))?;
        Ok(Self {
            schema: Arc::new(schema),
            dictionaries: HashMap::new(),
        })
    }

    /// Takes a dictionary message.
    pub(crate) fn dictionary(&mut self, message: &IpcMessage) -> Result<(), Status> {
        let fb = root_as_message(&message.header).map_err(malformed)?;
        let batch = fb
            .header_as_dictionary_batch()
            .ok_or_else(|| malformed("no dictionary"))?;
        let body = contiguous(&message.body);
        read_dictionary(&body, batch, &self.schema, &mut self.dictionaries, &fb.version()).map_err(malformed)
    }

    /// The batch of a message, with these columns only.
    pub(crate) fn batch(&self, message: &IpcMessage, columns: &[usize]) -> Result<RecordBatch, Status> {
        let fb = root_as_message(&message.header).map_err(malformed)?;
        let batch = fb.header_as_record_batch().ok_or_else(|| malformed("no batch"))?;
        let (body, version) = (contiguous(&message.body), fb.version());
        let schema = Arc::clone(&self.schema);
        RecordBatchDecoder::try_new(&body, batch, schema, &self.dictionaries, &version)
            .and_then(|decoder| decoder.with_projection(Some(columns)).read_record_batch())
            .map_err(malformed)
    }
}

/// A body in one piece; a copy only where it is in several.
fn contiguous(body: &[Bytes]) -> Buffer {
    match body {
        [one] => Buffer::from(one.clone()),
        many => {
            let mut joined = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|piece| joined.extend_from_slice(piece));
            Buffer::from(joined.freeze())
        }
    }
}

/// Stored bytes that are no Arrow message: not the reader's fault, and not to be shown as data.
fn malformed(why: impl ToString) -> Status {
    error::status(
        Code::DataLoss,
        &format!("a stored batch does not decode: {}", why.to_string()),
    )
}

fn failed(why: ArrowError) -> Status {
    error::status(Code::Internal, &format!("a batch does not encode: {why}"))
}

/// From the items of a dataset to the messages of a stream.
pub(crate) struct Translator {
    encoder: Encoder,
    view: Option<(Lens, Decoder)>,
}

impl Translator {
    /// Shows batches as they are stored. Also the message that opens the stream.
    pub(crate) fn whole(schema: &StreamSchema) -> Result<(Self, Said), Status> {
        let opening = IpcMessage {
            header: schema.message.clone(),
            ..IpcMessage::default()
        };
        let (encoder, _) = Encoder::new(&schema.schema);
        Ok((Self { encoder, view: None }, message(opening)?))
    }

    /// Shows what the lens lets through of batches of `schema`. Also the message that opens the stream.
    pub(crate) fn through(lens: Lens, schema: &Schema) -> Result<(Self, Said), Status> {
        let decoder = Decoder::new(schema)?;
        let (encoder, shown) = Encoder::new(lens.schema());
        let opening = message(owned(shown, Bytes::new()))?;
        Ok((
            Self {
                encoder,
                view: Some((lens, decoder)),
            },
            opening,
        ))
    }

    /// Whether nothing more will be shown.
    pub(crate) fn is_done(&self) -> bool {
        self.view.as_ref().is_some_and(|(lens, _)| lens.is_done())
    }

    /// The messages of an item.
    pub(crate) fn item(&mut self, item: PartItem) -> Result<Vec<Said>, Status> {
        let Some((lens, decoder)) = &mut self.view else {
            return self.stored(item);
        };
        let (batch, app_metadata) = match item {
            PartItem::Dictionary(dictionary) => return decoder.dictionary(&dictionary).map(|()| vec![]),
            PartItem::Batch(stored, _) => (decoder.batch(&stored, lens.decode())?, stored.app_metadata),
            PartItem::Decoded(batch, app_metadata) => (batch, app_metadata),
        };
        let had_rows = batch.num_rows() > 0;
        let shown = lens.apply(batch)?;
        match shown.num_rows() {
            // Nothing of it is left; its app_metadata would say something of rows that nobody sees. A batch that never had a row
            // goes out: readers count batches for their resume tokens.
            0 if had_rows => Ok(vec![]),
            _ => self.encoder.batch(&shown, app_metadata),
        }
    }

    fn stored(&mut self, item: PartItem) -> Result<Vec<Said>, Status> {
        match item {
            PartItem::Dictionary(dictionary) => {
                self.encoder.forget();
                Ok(vec![message(dictionary)?])
            }
            PartItem::Batch(stored, _) => Ok(vec![message(stored)?]),
            PartItem::Decoded(batch, app_metadata) => self.encoder.batch(&batch, app_metadata),
        }
    }
}

/// The schema message of a file's stream.
pub(crate) fn file_schema() -> Result<Said, Status> {
    message(owned(Encoder::new(&FILE_SCHEMA).1, Bytes::new()))
}

/// A batch of one value made of `pieces`, which go out as they are.
pub(crate) fn file_batch(pieces: Vec<Bytes>) -> Result<Said, Status> {
    let len: usize = pieces.iter().map(Bytes::len).sum();
    let frame = match len as u64 {
        FILE_BATCH_BYTES => FULL_BATCH.clone(),
        _ => FileBatch::of(len)?,
    };
    let mut body = Vec::with_capacity(2 + pieces.len());
    body.push(frame.before);
    body.extend(pieces);
    body.push(frame.after);
    message(IpcMessage {
        header: frame.header,
        body,
        app_metadata: Bytes::new(),
    })
}

static FULL_BATCH: LazyLock<FileBatch> =
    LazyLock::new(|| FileBatch::of(FILE_BATCH_BYTES as usize).expect("a batch of one value encodes"));

/// What surrounds a value of a certain length in the message of its batch.
#[derive(Clone)]
struct FileBatch {
    header: Bytes,
    before: Bytes,
    after: Bytes,
}

impl FileBatch {
    /// Learned from an encoded batch of zeros of that length, so that there is one encoder of Arrow messages here and not two.
    fn of(len: usize) -> Result<Self, Status> {
        let zeros: ArrayRef = Arc::new(arrow_array::LargeBinaryArray::from_iter_values([vec![0; len]]));
        let batch = RecordBatch::try_new(Arc::clone(&FILE_SCHEMA), vec![zeros]).map_err(failed)?;
        let (mut encoder, _) = Encoder::new(&FILE_SCHEMA);
        let options = IpcWriteOptions::default();
        let encoded = IpcDataGenerator::default().encode(&batch, &mut encoder.tracker, &options, &mut encoder.context);
        let encoded = encoded.map_err(failed)?.1;
        let fb = root_as_message(&encoded.ipc_message).map_err(malformed)?;
        let buffers = fb.header_as_record_batch().and_then(|batch| batch.buffers());
        let value = buffers
            .filter(|b| b.len() == 3)
            .map(|b| *b.get(2))
            .ok_or_else(|| malformed("no value"))?;
        let start = value.offset() as usize;
        let body = Bytes::from(encoded.arrow_data);
        let (before, after) = (body.slice(..start), body.slice(start + len..));
        // Slices of a megabyte of zeros would keep it all.
        let (before, after) = (Bytes::copy_from_slice(&before), Bytes::copy_from_slice(&after));
        Ok(Self {
            header: encoded.ipc_message.into(),
            before,
            after,
        })
    }
}

#[cfg(test)]
mod tests;
