//! From stored messages to record batches.

use super::{compressed::Frames, schema::StoredSchema, validate};
use crate::{
    Error, ErrorKind, Result,
    dataset::{IpcMessage, PartItem},
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use std::collections::HashMap;

/// Decodes the items of parts, in their order, with full validation. Any bytes lead to a batch or an error.
///
/// One decoder may go over several parts of a dataset: each brings the dictionaries that it needs.
#[derive(Debug)]
pub struct Decoder {
    schema: StoredSchema,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl Decoder {
    /// For messages under this schema message. Invalid when it is none.
    pub fn new(schema_message: &Bytes) -> Result<Self> {
        Ok(Self {
            schema: StoredSchema::parse_any(schema_message)?,
            dictionaries: HashMap::new(),
        })
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema.schema
    }

    /// Takes one item: `None` after a dictionary, else the batch and its app_metadata. DataLoss when it makes no sense.
    pub fn push(&mut self, item: PartItem) -> Result<Option<(RecordBatch, Bytes)>> {
        match item {
            PartItem::Dictionary(message) => self.dictionary(&message).map(|()| None),
            PartItem::Batch(message, _) => self.batch(&message).map(|batch| Some((batch, message.app_metadata))),
            PartItem::Decoded(batch, app_metadata) => Ok(Some((batch, app_metadata))),
        }
    }

    fn dictionary(&mut self, message: &IpcMessage) -> Result<()> {
        validate::read_dictionary(&self.schema.schema, &mut self.dictionaries, message, Frames::Readable)
            .map_err(stored)
    }

    fn batch(&self, message: &IpcMessage) -> Result<RecordBatch> {
        validate::decode_batch(&self.schema, &self.dictionaries, message, Frames::Readable).map_err(stored)
    }
}

/// What would be a wrong request from a client is damage in what is stored.
fn stored(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Invalid => Error::data_loss(format!("a stored message makes no sense: {error}")),
        _ => error,
    }
}
