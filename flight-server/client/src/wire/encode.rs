//! From batches to FlightData.

use super::{arrow, shared};
use crate::{Error, ErrorKind, Result};
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_flight::FlightDescriptor;
use arrow_ipc::{
    CompressionType,
    writer::{IpcWriteOptions, StreamEncoder},
};
use arrow_schema::SchemaRef;
use bytes::{Bytes, BytesMut};
use forebay_protocol::{command::Compression, frame};
use std::collections::VecDeque;

/// Buffers smaller than this are joined with their neighbours: a frame of its own would cost more than the copy, and floods of
/// tiny frames are taken for an attack by HTTP/2 servers.
const FRAME_BYTES_MIN: usize = 32 << 10;
/// What is left alone between two large buffers (padding, mostly) takes so many bytes of the one before it along.
const TAIL_BYTES: usize = 4 << 10;

/// Encodes the batches of one stream.
pub(crate) struct Encoder {
    schema: SchemaRef,
    stream: StreamEncoder,
    /// Goes into the first message.
    descriptor: Option<FlightDescriptor>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    pub(crate) fn new(schema: SchemaRef, descriptor: FlightDescriptor, compression: Compression) -> Result<Self> {
        let codec = match compression {
            Compression::None => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            Compression::Zstd => Some(CompressionType::ZSTD),
        };
        let options = IpcWriteOptions::default()
            .try_with_compression(codec)
            .map_err(arrow("compression"))?;
        let stream = StreamEncoder::try_new_with_options(&schema, options).map_err(arrow("schema"))?;
        Ok(Self {
            schema,
            stream,
            descriptor: Some(descriptor),
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether nothing was encoded yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.descriptor.is_some()
    }

    /// The frames of a batch, preceded by those of the schema and of new dictionaries where they are needed. `app_metadata` goes
    /// with the batch itself.
    pub(crate) fn batch(&mut self, batch: &RecordBatch, app_metadata: &[u8]) -> Result<Vec<Bytes>> {
        if batch.schema_ref() != &self.schema && batch.schema_ref().fields() != self.schema.fields() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a batch has another schema than the first; begin another put for it",
            ));
        }
        let buffers = self.stream.encode(batch).map_err(arrow("batch"))?;
        self.frames(buffers, app_metadata)
    }

    /// The frames of a stream that had no batch: its schema.
    pub(crate) fn schema_only(mut self) -> Result<Vec<Bytes>> {
        let Self { schema, .. } = &self;
        let empty = StreamEncoder::try_new(schema)
            .and_then(StreamEncoder::finish)
            .map_err(arrow("schema"))?;
        self.frames(empty, &[])
    }

    /// Cuts an IPC stream into its messages and frames each.
    fn frames(&mut self, buffers: Vec<Buffer>, app_metadata: &[u8]) -> Result<Vec<Bytes>> {
        let mut stream = Stream(buffers.into());
        let mut out = Frames::default();
        while let Some(header) = stream.header()? {
            let message = arrow_ipc::root_as_message(&header)
                .map_err(|e| Error::new(ErrorKind::Internal, format!("our own message does not read: {e}")))?;
            let body_len = usize::try_from(message.bodyLength()).expect("a length is not negative");
            let is_batch = message.header_type() == arrow_ipc::MessageHeader::RecordBatch;
            let metadata = if is_batch { app_metadata } else { &[] };
            out.push(frame::head(self.descriptor.take().as_ref(), &header, metadata, body_len).map_err(Error::from)?);
            stream.body(body_len, &mut out)?;
        }
        Ok(out.finish())
    }
}

/// An encapsulated IPC stream in pieces.
struct Stream(VecDeque<Buffer>);

impl Stream {
    /// The flatbuffer of the next message; `None` at the end.
    fn header(&mut self) -> Result<Option<Vec<u8>>> {
        let mut prefix = Vec::with_capacity(8);
        self.take(8, &mut |piece| prefix.extend_from_slice(&piece))?;
        // The continuation marker, then the length; an end-of-stream marker has length zero.
        let Some(length) = prefix.get(4..8) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if length == 0 {
            return Ok(None);
        }
        let mut header = Vec::with_capacity(length);
        self.take(length, &mut |piece| header.extend_from_slice(&piece))?;
        Ok(Some(header))
    }

    fn body(&mut self, length: usize, out: &mut Frames) -> Result<()> {
        self.take(length, &mut |piece| out.push(shared(piece)))
    }

    /// Hands the next `length` bytes to `each` piece by piece; nothing at the end of the stream.
    fn take(&mut self, length: usize, each: &mut dyn FnMut(Buffer)) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let Some(front) = self.0.pop_front() else {
                let whole = left == length;
                return if whole && length == 8 {
                    Ok(())
                } else {
                    Err(Error::new(ErrorKind::Internal, "an IPC message is cut short"))
                };
            };
            if front.len() > left {
                self.0.push_front(front.slice(left));
                each(front.slice_with_length(0, left));
                return Ok(());
            }
            left -= front.len();
            each(front);
        }
        Ok(())
    }
}

/// Bytes on their way out, small ones joined.
#[derive(Default)]
struct Frames {
    out: Vec<Bytes>,
    small: BytesMut,
}

impl Frames {
    fn push(&mut self, bytes: Bytes) {
        if bytes.len() < FRAME_BYTES_MIN {
            self.small.extend_from_slice(&bytes);
        } else {
            self.flush();
            self.out.push(bytes);
        }
    }

    fn flush(&mut self) {
        let mut small = self.small.split();
        if small.is_empty() {
            return;
        }
        if small.len() < TAIL_BYTES
            && let Some(large) = self.out.last_mut()
        {
            let tail = large.split_off(large.len().saturating_sub(TAIL_BYTES));
            let mut joined = BytesMut::with_capacity(tail.len() + small.len());
            joined.extend_from_slice(&tail);
            joined.extend_from_slice(&small);
            small = joined;
        }
        self.out.push(small.freeze());
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.out
    }
}
