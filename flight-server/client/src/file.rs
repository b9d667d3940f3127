//! Files: bytes as batches of one `data: large_binary` column, whose values joined are the bytes.

use crate::{Client, Error, ErrorKind, FileOptions, Put, PutDone, Result, Scan, wire::shared};
use arrow_array::{
    Array, BinaryArray, GenericBinaryArray, LargeBinaryArray, OffsetSizeTrait, RecordBatch, cast::AsArray,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use forebay_protocol::{
    command::{Compression, PathKind, ReadCommand, WriteCommand},
    path::WirePath,
};
use futures::{Stream, StreamExt, stream};
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// Small writes are gathered up to this many bytes, large ones cut at it.
const PIECE_BYTES: usize = 4 << 20;

/// An open write of a file. Nothing is visible before [`FilePut::finish`]; dropped, it leaves what was there.
#[derive(Debug)]
pub struct FilePut {
    put: Put,
    schema: SchemaRef,
    waiting: BytesMut,
}

/// A file's bytes as they arrive.
#[derive(Debug)]
pub struct FileRead {
    scan: Scan,
    waiting: VecDeque<Bytes>,
}

impl Client {
    /// Opens a write of the file at `path`; its parents are made.
    pub async fn write_file(&self, path: &str, options: FileOptions) -> Result<FilePut> {
        self.write_file_command(options.command(WirePath::parse(path)?))
    }

    /// Writes a whole file, and again with the same token where the connection was lost: exactly once.
    pub async fn put_file(&self, path: &str, content: Bytes, options: FileOptions) -> Result<PutDone> {
        let command = options.command(WirePath::parse(path)?);
        self.repeat(async || {
            let mut put = self.write_file_command(command.clone())?;
            put.write(content.clone()).await?;
            let unknown = |e: Error| match e.kind() {
                ErrorKind::Unknown => Error::new(ErrorKind::Unavailable, e.to_string()),
                _ => e,
            };
            put.finish().await.map_err(unknown)
        })
        .await
    }

    /// Reads the bytes of the file at `path` that lie in `range`; `None`: all. Short only at the end of the file.
    pub async fn read_file(&self, path: &str, range: Option<Range<u64>>) -> Result<FileRead> {
        let offset = range.as_ref().map(|r| r.start);
        let length = range.map(|r| r.end.saturating_sub(r.start));
        let kind = Some(PathKind::File);
        let command = ReadCommand {
            kind,
            offset,
            length,
            ..ReadCommand::new(WirePath::parse(path)?)
        };
        let info = self.info_of(&command).await?;
        Ok(FileRead {
            scan: self.scan_info(&info, &command),
            waiting: VecDeque::new(),
        })
    }

    fn write_file_command(&self, command: WriteCommand) -> Result<FilePut> {
        let schema = Arc::new(Schema::new(vec![Field::new("data", DataType::LargeBinary, true)]));
        let mut put = self.put_command(command, Compression::None, false);
        put.begin(Arc::clone(&schema))?;
        Ok(FilePut {
            put,
            schema,
            waiting: BytesMut::new(),
        })
    }
}

impl FilePut {
    /// The unit's idempotency token.
    pub fn token(&self) -> Option<&str> {
        self.put.token()
    }

    /// Adds bytes to its end; waits for room.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let room = PIECE_BYTES - self.waiting.len();
            let piece = bytes.split_to(bytes.len().min(room));
            // A whole piece goes out where it lies.
            if self.waiting.is_empty() && piece.len() == PIECE_BYTES {
                self.send(piece).await?;
                continue;
            }
            self.waiting.extend_from_slice(&piece);
            if self.waiting.len() == PIECE_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Ends the write: the file is committed at the level, and visible whole.
    pub async fn finish(mut self) -> Result<PutDone> {
        self.flush().await?;
        self.put.finish().await
    }

    /// Gives up; what was there stays.
    pub async fn abort(self) {
        self.put.abort().await;
    }

    async fn flush(&mut self) -> Result<()> {
        let waiting = self.waiting.split().freeze();
        if waiting.is_empty() {
            Ok(())
        } else {
            self.send(waiting).await
        }
    }

    async fn send(&mut self, piece: Bytes) -> Result<()> {
        self.put.send(&batch(&self.schema, piece)?).await
    }
}

fn batch(schema: &SchemaRef, bytes: Bytes) -> Result<RecordBatch> {
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, bytes.len() as i64]));
    let column = LargeBinaryArray::new(offsets, Buffer::from(bytes), None);
    RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(column)])
        .map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))
}

impl FileRead {
    /// The next bytes; `None` at the end.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Ok(Some(bytes));
            }
            match self.scan.next().await.transpose()? {
                Some(batch) => self.waiting = values(&batch)?,
                None => return Ok(None),
            }
        }
    }

    /// All bytes in one piece, at most `most`; [`ErrorKind::Full`] when there are more.
    pub async fn bytes(mut self, most: usize) -> Result<Bytes> {
        let first = self.next_bytes().await?.unwrap_or_default();
        let Some(second) = self.next_bytes().await? else {
            return check_len(first, most);
        };
        let mut all = BytesMut::from(&first[..]);
        all.extend_from_slice(&second);
        while let Some(bytes) = self.next_bytes().await? {
            if all.len() + bytes.len() > most {
                return check_len(bytes, 0);
            }
            all.extend_from_slice(&bytes);
        }
        check_len(all.freeze(), most)
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::unfold(self, async |mut this| {
            this.next_bytes().await.transpose().map(|bytes| (bytes, this))
        })
    }
}

fn check_len(bytes: Bytes, most: usize) -> Result<Bytes> {
    if bytes.len() <= most {
        return Ok(bytes);
    }
    Err(Error::new(
        ErrorKind::Full,
        "the file is larger than was to be held in memory; read it as a stream",
    ))
}

/// The values of a batch of the file stream, not empty, sharing its memory.
fn values(batch: &RecordBatch) -> Result<VecDeque<Bytes>> {
    let column = batch
        .columns()
        .first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a file's batch has no column"))?;
    match column.data_type() {
        DataType::LargeBinary => Ok(pieces(column.as_binary::<i64>())),
        DataType::Binary => Ok(pieces::<i32>(
            column.as_any().downcast_ref::<BinaryArray>().expect("its type says so"),
        )),
        other => Err(Error::new(
            ErrorKind::Invalid,
            format!("this is no file: its column is {other}"),
        )),
    }
}

fn pieces<O: OffsetSizeTrait>(column: &GenericBinaryArray<O>) -> VecDeque<Bytes> {
    let all = shared(column.values().clone());
    let offsets = column.value_offsets().windows(2);
    offsets
        .map(|w| all.slice(w[0].as_usize()..w[1].as_usize()))
        .filter(|b| !b.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_make_a_batch_and_come_back_without_a_copy() {
        let schema = Arc::new(Schema::new(vec![Field::new("data", DataType::LargeBinary, true)]));
        let bytes = Bytes::from(vec![7u8; 100_000]);
        let got = values(&batch(&schema, bytes.clone()).unwrap()).unwrap();
        assert_eq!(got, std::slice::from_ref(&bytes));
        assert_eq!(got[0].as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn several_values_are_taken_in_order_and_empty_ones_left_out() {
        let column = BinaryArray::from(vec![Some(&b"ab"[..]), None, Some(b""), Some(b"c")]);
        let schema = Schema::new(vec![Field::new("data", DataType::Binary, true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)]).unwrap();
        assert_eq!(
            values(&batch).unwrap(),
            [Bytes::from_static(b"ab"), Bytes::from_static(b"c")]
        );
    }
}
