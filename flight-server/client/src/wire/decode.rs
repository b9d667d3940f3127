//! From FlightData to batches.

use crate::{Error, ErrorKind, Result};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::{MessageHeader, reader};
use arrow_schema::{ArrowError, SchemaRef};
use bytes::Bytes;
use forebay_protocol::frame::{Collect, FlightMessage};
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

/// Copies the pieces of a body, as they come, into one buffer that arrays can share as it is.
#[derive(Debug, Default)]
pub(crate) struct AlignedBody(MutableBuffer);

impl Collect for AlignedBody {
    type Body = Buffer;

    fn start(&mut self, len: usize) {
        self.0 = MutableBuffer::with_capacity(len);
    }

    fn push(&mut self, piece: Bytes) {
        self.0.extend_from_slice(&piece);
    }

    fn finish(&mut self) -> Buffer {
        std::mem::take(&mut self.0).into()
    }
}

/// Decodes the messages of one stream.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl Decoder {
    /// Takes the next message; the batch it holds, if it is one.
    pub(crate) fn message(&mut self, message: &FlightMessage<Buffer>) -> Result<Option<RecordBatch>> {
        if message.data_header.is_empty() {
            return Ok(None);
        }
        let ipc = arrow_ipc::root_as_message(&message.data_header).map_err(|e| damaged(&e.to_string()))?;
        match ipc.header_type() {
            MessageHeader::Schema => {
                let schema = ipc.header_as_schema().ok_or_else(|| damaged("no schema in it"))?;
                self.schema = Some(contained(|| Ok(Arc::new(arrow_ipc::convert::fb_to_schema(schema))))?);
                self.dictionaries.clear();
                Ok(None)
            }
            MessageHeader::DictionaryBatch => {
                let batch = ipc
                    .header_as_dictionary_batch()
                    .ok_or_else(|| damaged("no dictionary in it"))?;
                check_buffers(batch.data(), &message.body)?;
                let schema = self.schema.as_ref().ok_or_else(no_schema)?;
                let dictionaries = &mut self.dictionaries;
                contained(|| reader::read_dictionary(&message.body, batch, schema, dictionaries, &ipc.version()))?;
                Ok(None)
            }
            MessageHeader::RecordBatch => {
                let batch = ipc.header_as_record_batch();
                check_buffers(batch, &message.body)?;
                let batch = batch.ok_or_else(|| damaged("no batch in it"))?;
                let schema = Arc::clone(self.schema.as_ref().ok_or_else(no_schema)?);
                let dictionaries = &self.dictionaries;
                contained(|| {
                    reader::read_record_batch(&message.body, batch, schema, dictionaries, None, &ipc.version())
                })
                .map(Some)
            }
            other => Err(damaged(&format!("a message of kind {other:?}"))),
        }
    }
}

/// Refuses buffers that lie outside the body, which the reader takes for granted.
fn check_buffers(batch: Option<arrow_ipc::RecordBatch<'_>>, body: &Buffer) -> Result<()> {
    let inside = |b: &arrow_ipc::Buffer| {
        let (offset, length) = (u64::try_from(b.offset()).ok()?, u64::try_from(b.length()).ok()?);
        (offset.checked_add(length)? <= body.len() as u64).then_some(())
    };
    let buffers = batch
        .and_then(|b| b.buffers())
        .ok_or_else(|| damaged("no buffers in it"))?;
    if buffers.iter().all(|b| inside(b).is_some()) {
        Ok(())
    } else {
        Err(damaged("a buffer that lies outside its body"))
    }
}

/// Arrow's reader panics on some lengths that contradict each other; to us they are damage like any other. What it was about to
/// change is thrown away with the stream.
fn contained<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|e| damaged(&e.to_string())),
        Err(_) => Err(damaged("its lengths contradict each other")),
    }
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::DataLoss, format!("received Arrow data is damaged: {what}"))
}

fn no_schema() -> Error {
    damaged("data before its schema")
}
