//! From stored messages to record batches.

use super::{schema::StoredSchema, validate};
use crate::{
    Result,
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
        Ok(Self { schema: StoredSchema::parse_any(schema_message)?, dictionaries: HashMap::new() })
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema.schema
    }

    /// Takes one item: `None` after a dictionary, else the batch and its app_metadata.
    pub fn push(&mut self, item: PartItem) -> Result<Option<(RecordBatch, Bytes)>> {
        match item {
            PartItem::Dictionary(message) => self.dictionary(&message).map(|()| None),
            PartItem::Batch(message, _) => self.batch(&message).map(|batch| Some((batch, message.app_metadata))),
            PartItem::Decoded(batch, app_metadata) => Ok(Some((batch, app_metadata))),
        }
    }

    pub(crate) fn dictionary(&mut self, message: &IpcMessage) -> Result<()> {
        validate::read_dictionary(&self.schema.schema, &mut self.dictionaries, message)
    }

    pub(crate) fn batch(&self, message: &IpcMessage) -> Result<RecordBatch> {
        validate::decode_batch(&self.schema, &self.dictionaries, message)
    }
}
