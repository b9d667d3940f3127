//! The bytes of a file out of batches of its one column, without a copy: values lie one after another in the body, so they are a
//! slice of what arrived.

use crate::{encode::Decoder, error};
use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_buffer::Buffer;
use arrow_ipc::{convert::fb_to_schema, root_as_message};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use forebay_writeback::dataset::IpcMessage;
use std::{fmt::Display, ops::Range};
use tonic::Status;

/// The column of a file's batches.
#[derive(Debug)]
pub(super) struct Column {
    schema: Schema,
    /// Offsets of eight bytes and not of four.
    large: bool,
}

/// The column, as the schema message has it.
pub(super) fn column(schema: &IpcMessage) -> Result<Column, Status> {
    let message = root_as_message(&schema.header).map_err(|e| wrong(format!("the schema does not read: {e}")))?;
    let schema = message
        .header_as_schema()
        .ok_or_else(|| wrong("the first message is no schema"))?;
    let schema = fb_to_schema_checked(schema)?;
    let large = match schema
        .fields()
        .iter()
        .map(|f| (f.name().as_str(), f.data_type()))
        .collect::<Vec<_>>()[..]
    {
        [("data", DataType::LargeBinary)] => true,
        [("data", DataType::Binary)] => false,
        _ => return Err(wrong("its schema is another one")),
    };
    Ok(Column { schema, large })
}

/// `fb_to_schema` panics on types it does not know; that is the client's mistake and not a defect of ours.
fn fb_to_schema_checked(schema: arrow_ipc::Schema<'_>) -> Result<Schema, Status> {
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fb_to_schema(schema)));
    read.map_err(|_| wrong("the schema has types that are not known"))
}

impl Column {
    /// The joined values of a batch, as slices of its body.
    pub(super) fn values(&self, message: IpcMessage) -> Result<Vec<Bytes>, Status> {
        let header = root_as_message(&message.header).map_err(|e| wrong(format!("a message does not read: {e}")))?;
        let batch = header
            .header_as_record_batch()
            .ok_or_else(|| wrong("a message is no batch"))?;
        if batch.compression().is_some() {
            return self.decoded(&message);
        }
        let body_len: usize = message.body.iter().map(Bytes::len).sum();
        let nodes = batch
            .nodes()
            .filter(|nodes| nodes.len() == 1)
            .map(|nodes| *nodes.get(0));
        let node = nodes
            .filter(|node| node.length() >= 0)
            .ok_or_else(|| wrong("a batch has not one column"))?;
        if node.null_count() != 0 {
            return Err(wrong("a value is null; bytes are never"));
        }
        if node.length() == 0 {
            return Ok(vec![]);
        }
        let buffers = batch.buffers().filter(|buffers| buffers.len() == 3);
        let buffers = buffers.ok_or_else(|| wrong("a batch has not three buffers"))?;
        let offsets = range(buffers.get(1), body_len)?;
        let values = range(buffers.get(2), body_len)?;
        let offsets = self.ends(&slices(&message.body, offsets).concat(), node.length() as usize)?;
        if offsets.end > values.len() {
            return Err(wrong("a value ends beyond the body"));
        }
        Ok(slices(
            &message.body,
            values.start + offsets.start..values.start + offsets.end,
        ))
    }

    /// From the first value's start to the last one's end, in the buffer of values.
    fn ends(&self, offsets: &[u8], rows: usize) -> Result<Range<usize>, Status> {
        let width = if self.large { 8 } else { 4 };
        let needed = rows
            .checked_add(1)
            .and_then(|n| n.checked_mul(width))
            .filter(|n| *n <= offsets.len());
        let needed = needed.ok_or_else(|| wrong("a batch has fewer offsets than values"))?;
        let read = |at: &[u8]| match <[u8; 8]>::try_from(at) {
            Ok(eight) => i64::from_le_bytes(eight),
            Err(_) => i64::from(i32::from_le_bytes(
                at.try_into().expect("offsets are four or eight bytes wide"),
            )),
        };
        let mut last = 0;
        for at in offsets[..needed].chunks_exact(width).map(read) {
            if at < last {
                return Err(wrong("offsets go backwards"));
            }
            last = at;
        }
        let first = usize::try_from(read(&offsets[..width])).map_err(|_| wrong("an offset is negative"))?;
        let last = usize::try_from(last).map_err(|_| wrong("an offset is too large"))?;
        Ok(first..last)
    }

    /// As [`Column::values`], through Arrow's reader: for compressed bodies.
    fn decoded(&self, message: &IpcMessage) -> Result<Vec<Bytes>, Status> {
        let batch: RecordBatch = Decoder::new(&self.schema)?
            .batch(message, &[0])
            .map_err(|status| wrong(status.message()))?;
        let column = batch.column(0);
        if column.null_count() > 0 {
            return Err(wrong("a value is null; bytes are never"));
        }
        let (values, offsets): (&Buffer, Range<usize>) = if self.large {
            let column = column.as_binary::<i64>();
            let ends = column.value_offsets();
            (column.values(), ends[0] as usize..ends[column.len()] as usize)
        } else {
            let column = column.as_binary::<i32>();
            let ends = column.value_offsets();
            (column.values(), ends[0] as usize..ends[column.len()] as usize)
        };
        Ok(vec![Bytes::copy_from_slice(&values[offsets])])
    }
}

/// Where a buffer lies in a body of so many bytes.
fn range(buffer: &arrow_ipc::Buffer, body_len: usize) -> Result<Range<usize>, Status> {
    let outside = || wrong("a buffer lies outside the body");
    let start = usize::try_from(buffer.offset()).map_err(|_| outside())?;
    let len = usize::try_from(buffer.length()).map_err(|_| outside())?;
    let end = start
        .checked_add(len)
        .filter(|end| *end <= body_len)
        .ok_or_else(outside)?;
    Ok(start..end)
}

/// A range of a body that came in pieces.
fn slices(body: &[Bytes], range: Range<usize>) -> Vec<Bytes> {
    let mut at = 0;
    let mut found = vec![];
    for piece in body {
        let (from, to) = (range.start.max(at), range.end.min(at + piece.len()));
        if from < to {
            found.push(piece.slice(from - at..to - at));
        }
        at += piece.len();
    }
    found
}

fn wrong(why: impl Display) -> Status {
    error::wrong(format!(
        "a file travels as batches of one column `data` of large_binary or binary: {why}"
    ))
}

#[cfg(test)]
mod tests;
