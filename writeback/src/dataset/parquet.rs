//! Parquet: what it can hold, parts encoded to it, files read from it.
//!
//! A Parquet session's batches are staged as Arrow, so that they are durable and followed like any others, and encoded when their
//! put ends. Where batches began is kept in the file's own metadata (`forebay.batches`: row counts, as run lengths), so that a
//! resume token counted in batches stays good. Memory is bounded by one row group.

use super::{
    Compression, PartItem,
    ipc::{decode::Decoder, guarded, index, joined, schema::StoredSchema},
    part_writer::{DonePart, GENERATION},
    source::Source,
};
use crate::{
    Error, Result,
    cache::Inner,
    file::{ContentWriter, SealedContent},
};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema, SchemaRef};
use bytes::Bytes;
use forebay_runtime::task;
use futures::{
    FutureExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
        async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder},
    },
    basic::Compression as Codec,
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader},
        properties::WriterProperties,
    },
};
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// Rows of one row group, at most.
const GROUP_ROWS_MAX: usize = 1 << 20;
/// A row group is closed at about this size.
const GROUP_BYTES_MAX: usize = 64 << 20;
/// Rows of one decoded batch of a file that others wrote.
const BATCH_ROWS: usize = 8192;
/// Bytes appended at once.
const PIECE_BYTES: usize = 1 << 20;
/// Metadata key of our batches.
const BATCHES_KEY: &str = "forebay.batches";

/// Whether Parquet can hold every column. Invalid naming the first that it can not.
pub(super) fn check_schema(schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        let refuse = |why: String| {
            let (name, data_type) = (field.name(), field.data_type());
            Error::invalid(format!(
                "column {name:?} of type {data_type} does not go into Parquet ({why}); use format arrow"
            ))
        };
        // One null of the type is written away: the library says no in different places for different types.
        let nullable = Arc::new(Schema::new(vec![field.as_ref().clone().with_nullable(true)]));
        let written = guarded("writing it", || {
            let column = arrow_array::new_null_array(field.data_type(), 1);
            let batch = RecordBatch::try_new(Arc::clone(&nullable), vec![column])?;
            let mut writer = ArrowWriter::try_new(std::io::sink(), nullable, None)?;
            writer.write(&batch)?;
            writer.close().map(drop)?;
            Ok(())
        });
        written.map_err(|error| refuse(error.to_string()))?;
    }
    match schema.fields().is_empty() {
        true => Err(Error::invalid(
            "a schema without columns does not go into Parquet; use format arrow",
        )),
        false => Ok(()),
    }
}

impl Inner {
    /// Encodes a sealed staged part as Parquet, into a content of its own.
    pub(super) async fn transcode(
        self: &Arc<Self>,
        schema: &StoredSchema,
        part: &DonePart,
        compression: Option<Compression>,
    ) -> Result<SealedContent> {
        let reader = self.segments.reader(part.sealed.stream(), &part.sealed.layout)?;
        let source = Source::Sealed {
            reader,
            stream: part.sealed.stream(),
        };
        let index = Arc::new(index::Index {
            schema: schema.clone(),
            entries: part.growing.entries(),
        });
        self.encode_parquet(schema, index::items(source, index, 0), compression)
            .await
    }

    /// Encodes items as Parquet.
    pub(super) async fn encode_parquet(
        self: &Arc<Self>,
        schema: &StoredSchema,
        mut items: BoxStream<'static, Result<PartItem>>,
        compression: Option<Compression>,
    ) -> Result<SealedContent> {
        let mut decoder = Decoder::new(&schema.message)?;
        let mut content = self.content_writer(self.fresh_ino().await?, GENERATION, None);
        let mut writer = writer(Arc::clone(&schema.schema), compression)?;
        let mut counts = RowCounts::default();
        while let Some(item) = items.try_next().await? {
            let Some((batch, _)) = decoder.push(item)? else {
                continue;
            };
            counts.push(batch.num_rows() as u64);
            writer = task::blocking(move || {
                guarded("encoding as Parquet", || {
                    writer.write(&batch)?;
                    if writer.in_progress_size() >= GROUP_BYTES_MAX {
                        writer.flush()?;
                    }
                    Ok(writer)
                })
            })
            .await?;
            drain(&mut writer, &mut content, PIECE_BYTES).await?;
        }
        writer.append_key_value_metadata(KeyValue::new(BATCHES_KEY.to_owned(), counts.to_text()));
        let mut writer = task::blocking(move || {
            guarded("encoding as Parquet", || {
                writer.finish()?;
                Ok(writer)
            })
        })
        .await?;
        drain(&mut writer, &mut content, 1).await?;
        content.seal().await
    }
}

fn writer(schema: SchemaRef, compression: Option<Compression>) -> Result<ArrowWriter<Vec<u8>>> {
    let codec = match compression {
        None => Codec::SNAPPY,
        Some(Compression::None) => Codec::UNCOMPRESSED,
        Some(Compression::Lz4) => Codec::LZ4_RAW,
        Some(Compression::Zstd) => Codec::ZSTD(Default::default()),
    };
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
        .build();
    guarded("encoding as Parquet", || {
        Ok(ArrowWriter::try_new(Vec::new(), schema, Some(properties))?)
    })
}

/// Moves what the writer has put out, when it is at least so much.
async fn drain(writer: &mut ArrowWriter<Vec<u8>>, content: &mut ContentWriter, at_least: usize) -> Result<()> {
    if writer.inner().len() < at_least {
        return Ok(());
    }
    let out = Bytes::from(std::mem::take(writer.inner_mut()));
    let mut rest = out;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        content.append(&[piece], Bytes::new()).await?;
    }
    Ok(())
}

/// Row counts of batches, neighbours that are equal as one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RowCounts {
    runs: VecDeque<(u64, u64)>,
}

impl RowCounts {
    fn push(&mut self, rows: u64) {
        match self.runs.back_mut() {
            Some((times, of)) if *of == rows => *times += 1,
            _ => self.runs.push_back((1, rows)),
        }
    }

    fn batches(&self) -> u64 {
        self.runs.iter().map(|(times, _)| times).sum()
    }

    fn rows(&self) -> u64 {
        self.runs
            .iter()
            .map(|(times, rows)| times.saturating_mul(*rows))
            .fold(0, u64::saturating_add)
    }

    fn pop(&mut self) -> Option<u64> {
        let (times, rows) = self.runs.front_mut()?;
        let rows = *rows;
        *times -= 1;
        if *times == 0 {
            self.runs.pop_front();
        }
        Some(rows)
    }

    /// `3*10 1*4`: three batches of ten rows, one of four.
    fn to_text(&self) -> String {
        self.runs
            .iter()
            .map(|(times, rows)| format!("{times}*{rows}"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn of_text(text: &str) -> Option<Self> {
        let run = |run: &str| {
            let (times, rows) = run.split_once('*')?;
            Some((times.parse().ok().filter(|times| *times > 0)?, rows.parse().ok()?))
        };
        Some(Self {
            runs: text.split_whitespace().map(run).collect::<Option<_>>()?,
        })
    }
}

/// What is known of a Parquet file from its footer.
#[derive(Debug)]
pub(super) struct ParquetIndex {
    metadata: ArrowReaderMetadata,
    pub(super) schema: StoredSchema,
    counts: RowCounts,
    ours: bool,
}

impl ParquetIndex {
    /// Reads the footer. Precondition: no whole Parquet file.
    pub(super) async fn read(source: &Source) -> Result<Self> {
        let mut bytes = Ranges(source.clone());
        let size = source.size();
        let broken =
            |error: ParquetError| Error::precondition(format!("{}: no whole Parquet file: {error}", source.name()));
        let metadata = ParquetMetaDataReader::new()
            .load_and_finish(&mut bytes, size)
            .await
            .map_err(broken)?;
        let metadata = guarded(&source.name(), || {
            Ok(ArrowReaderMetadata::try_new(
                Arc::new(metadata),
                ArrowReaderOptions::default(),
            )?)
        })?;
        // What we noted for ourselves is no part of the schema.
        let mut of_schema = metadata.schema().metadata().clone();
        of_schema.remove(BATCHES_KEY);
        let schema = StoredSchema::encode(&Schema::new_with_metadata(
            metadata.schema().fields().clone(),
            of_schema,
        ))?;
        let (counts, ours) = row_counts(metadata.metadata());
        Ok(Self {
            metadata,
            schema,
            counts,
            ours,
        })
    }

    /// Batches in it.
    pub(super) fn batches(&self) -> u64 {
        self.counts.batches()
    }

    /// Rows in it.
    pub(super) fn rows(&self) -> u64 {
        self.counts.rows()
    }

    /// Bytes it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.metadata.metadata().memory_size() + 4 * self.schema.message.len() + self.counts.runs.len() * 16 + 1024
    }
}

/// Where batches of a file begin: as noted in ours, else a fixed count of rows within each row group.
fn row_counts(metadata: &ParquetMetaData) -> (RowCounts, bool) {
    let file = metadata.file_metadata();
    let noted = file
        .key_value_metadata()
        .into_iter()
        .flatten()
        .find(|pair| pair.key == BATCHES_KEY);
    let noted = noted.and_then(|pair| RowCounts::of_text(pair.value.as_deref()?));
    if let Some(noted) = noted.filter(|noted| u64::try_from(file.num_rows()) == Ok(noted.rows())) {
        return (noted, true);
    }
    let mut counts = RowCounts::default();
    for group in metadata.row_groups() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let whole = rows / BATCH_ROWS as u64;
        if whole > 0 {
            counts.runs.push_back((whole, BATCH_ROWS as u64));
        }
        if rows % BATCH_ROWS as u64 > 0 {
            counts.runs.push_back((1, rows % BATCH_ROWS as u64));
        }
    }
    (counts, false)
}

/// Reads the batches of a Parquet file from its `skip`-th on, with the columns of `schema`, in batches as they were put.
pub(super) fn items(
    source: Source,
    index: &ParquetIndex,
    schema: SchemaRef,
    skip: u64,
) -> Result<BoxStream<'static, Result<PartItem>>> {
    let name = source.name();
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(Ranges(source), index.metadata.clone());
    let stream = builder
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| Error::data_loss(format!("{name}: {error}")))?;
    let mut counts = index.counts.clone();
    let mut rows_to_skip = 0;
    for _ in 0..skip {
        rows_to_skip += counts.pop().unwrap_or(0);
    }
    let cutter = Cutter {
        name,
        stream,
        schema,
        counts,
        rows_to_skip,
        ready: VecDeque::new(),
        cut: index.ours,
    };
    Ok(stream::try_unfold(cutter, |mut cutter| async move {
        Ok(cutter.next().await?.map(|item| (item, cutter)))
    })
    .boxed())
}

/// Cuts decoded batches to the sizes in which they were put.
struct Cutter {
    name: String,
    stream: ParquetRecordBatchStream<Ranges>,
    schema: SchemaRef,
    counts: RowCounts,
    rows_to_skip: u64,
    ready: VecDeque<RecordBatch>,
    cut: bool,
}

impl Cutter {
    async fn next(&mut self) -> Result<Option<PartItem>> {
        let Some(rows) = self.counts.pop() else { return Ok(None) };
        let rows =
            usize::try_from(rows).map_err(|_| Error::data_loss(format!("{}: an impossible row count", self.name)))?;
        let batch = self.take(rows).await?;
        Ok(Some(PartItem::Decoded(batch, Bytes::new())))
    }

    /// The next `rows` rows as one batch.
    async fn take(&mut self, rows: usize) -> Result<RecordBatch> {
        let mut pieces = Vec::new();
        let mut missing = rows;
        while missing > 0 {
            let Some(batch) = self.pull().await? else {
                return Err(Error::data_loss(format!("{}: {missing} rows are missing", self.name)));
            };
            let taken = missing.min(batch.num_rows());
            if taken < batch.num_rows() {
                self.ready.push_front(batch.slice(taken, batch.num_rows() - taken));
            }
            pieces.push(if taken < batch.num_rows() {
                batch.slice(0, taken)
            } else {
                batch
            });
            missing -= taken;
        }
        match &pieces[..] {
            [] => Ok(RecordBatch::new_empty(Arc::clone(&self.schema))),
            [one] => Ok(one.clone()),
            many => guarded(&self.name, || arrow_select::concat::concat_batches(&self.schema, many)),
        }
    }

    /// The next decoded rows, after those that are skipped.
    async fn pull(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let batch = match self.ready.pop_front() {
                Some(batch) => batch,
                None => match self.decode().await? {
                    Some(batch) => batch,
                    None => return Ok(None),
                },
            };
            let skipped = usize::try_from(self.rows_to_skip)
                .unwrap_or(usize::MAX)
                .min(batch.num_rows());
            self.rows_to_skip -= skipped as u64;
            if skipped < batch.num_rows() {
                return Ok(Some(batch.slice(skipped, batch.num_rows() - skipped)));
            }
        }
    }

    async fn decode(&mut self) -> Result<Option<RecordBatch>> {
        debug_assert!(self.cut || self.ready.is_empty());
        let next = std::panic::AssertUnwindSafe(self.stream.try_next())
            .catch_unwind()
            .await;
        let next =
            next.map_err(|panic| Error::data_loss(format!("{}: {}", self.name, task::panic_text(panic.as_ref()))))?;
        let Some(batch) = next.map_err(|error| Error::data_loss(format!("{}: {error}", self.name)))? else {
            return Ok(None);
        };
        // The file's own metadata may say more than the schema; its columns do not.
        let (schema, rows) = (
            Arc::clone(&self.schema),
            RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
        );
        guarded(&self.name, || {
            RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &rows)
        })
        .map(Some)
    }
}

/// A source as the Parquet library reads it.
struct Ranges(Source);

impl AsyncFileReader for Ranges {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            self.0
                .read(range)
                .await
                .map(|pieces| joined(&pieces))
                .map_err(|error| ParquetError::External(error.into()))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let _ = options;
        async move {
            let size = self.0.size();
            ParquetMetaDataReader::new()
                .load_and_finish(self, size)
                .await
                .map(Arc::new)
        }
        .boxed()
    }
}

/// A string column of one value, for folders named `k=v`.
pub(super) fn constant(value: Option<&str>, rows: usize) -> arrow_array::ArrayRef {
    let texts = arrow_array::StringArray::from_iter(std::iter::repeat_n(value, rows));
    Arc::new(texts)
}

/// The field of such a column.
pub(super) fn constant_field(name: &str) -> Field {
    Field::new(name, arrow_schema::DataType::Utf8, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_counts_go_to_text_and_back() {
        let mut counts = RowCounts::default();
        [10, 10, 4, 0, 0, 7].into_iter().for_each(|rows| counts.push(rows));
        assert_eq!(counts.to_text(), "2*10 1*4 2*0 1*7");
        assert_eq!(RowCounts::of_text(&counts.to_text()), Some(counts.clone()));
        assert_eq!((counts.batches(), counts.rows()), (6, 31));
        assert_eq!(
            std::iter::from_fn(|| counts.pop()).collect::<Vec<_>>(),
            [10, 10, 4, 0, 0, 7]
        );
        for wrong in ["x", "1", "0*3", "1*", "*", "1*2 3"] {
            assert_eq!(RowCounts::of_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_parquet_can_not_hold_is_named() {
        let union = arrow_schema::DataType::Union(
            arrow_schema::UnionFields::from_fields([Field::new("x", arrow_schema::DataType::Int8, true)]),
            arrow_schema::UnionMode::Sparse,
        );
        let schema = |data_type| {
            Schema::new(vec![
                Field::new("ok", arrow_schema::DataType::Int8, false),
                Field::new("odd", data_type, true),
            ])
        };
        let error = check_schema(&schema(union)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
        assert!(error.to_string().contains("\"odd\""), "{error}");
        check_schema(&schema(arrow_schema::DataType::Utf8)).unwrap();
    }
}
