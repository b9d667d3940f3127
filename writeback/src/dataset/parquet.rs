//! Parquet: what it can hold, parts encoded to it, files read from it.
//!
//! A Parquet session's batches are staged as Arrow, so that they are durable and followed like any others, and encoded when their
//! put ends. Where batches began is kept in the file's own metadata (`forebay.batches`: row counts, as run lengths), so that a
//! resume token counted in batches stays good. Memory is bounded by one row group.
//!
//! A part that becomes Parquet later (`convert`) takes its batches' app_metadata along, in the file's metadata too
//! (`forebay.app_metadata`: a JSON array of batch number and base64), as far as [`APP_METADATA_BYTES_MAX`] goes.

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
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use forebay_namespace::Path;
use forebay_policy::value::{ParquetCompression, ParquetStatistics};
use forebay_runtime::task;
use futures::{
    FutureExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
        async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder},
    },
    basic::Compression as Codec,
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader},
        properties::{EnabledStatistics, WriterProperties},
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

/// Rows of one row group, at most.
const GROUP_ROWS_MAX: usize = 1 << 20;
/// Rows of one decoded batch of a file that others wrote.
const BATCH_ROWS: usize = 8192;
/// Bytes appended at once.
const PIECE_BYTES: usize = 1 << 20;
/// Metadata key of our batches.
const BATCHES_KEY: &str = "forebay.batches";
/// Metadata key of our batches' app_metadata.
const APP_METADATA_KEY: &str = "forebay.app_metadata";
/// Bytes of app_metadata that a file may carry in its footer, as written there: every reader of the file reads the footer.
const APP_METADATA_BYTES_MAX: usize = 1 << 20;

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
        let there = there_and_back(field).map_err(|error| refuse(error.to_string()))?;
        if there.data_type() != field.data_type() {
            return Err(refuse(format!("it would come back as {}", there.data_type())));
        }
    }
    match schema.fields().is_empty() {
        true => Err(Error::invalid(
            "a schema without columns does not go into Parquet; use format arrow",
        )),
        false => Ok(()),
    }
}

/// What a column's field is after a null of it was written and read.
fn there_and_back(field: &Field) -> Result<Field> {
    let nullable = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
    guarded("writing it", || {
        let column = arrow_array::new_null_array(field.data_type(), 1);
        let batch = RecordBatch::try_new(Arc::clone(&nullable), vec![column])?;
        let mut writer = ArrowWriter::try_new(Vec::<u8>::new(), nullable, None)?;
        writer.write(&batch)?;
        let file = Bytes::from(writer.into_inner()?);
        let mut batches = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
        let nothing = || ArrowError::ParquetError("nothing came back".into());
        let batch = batches.next().transpose()?.ok_or_else(nothing)?;
        Ok(batch.schema().field(0).clone())
    })
}

/// How Parquet is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    compression: ParquetCompression,
    /// Batches' app_metadata goes along.
    app_metadata: bool,
    /// A row group ends at about so many encoded bytes.
    group_bytes: usize,
    statistics: ParquetStatistics,
}

impl Encoding {
    /// The same with the batches' app_metadata. Then encoding fails (Invalid) where that is more than a footer takes.
    pub(super) fn with_app_metadata(self) -> Self {
        Self {
            app_metadata: true,
            ..self
        }
    }
}

impl Inner {
    /// How Parquet is written at `path`: as the policies say there, with the compression that a session names.
    pub(super) fn encoding(&self, path: &Path, compression: Option<Compression>) -> Encoding {
        let effective = self.policies.effective(path);
        Encoding {
            compression: match compression {
                None => effective.parquet_compression,
                Some(Compression::None) => ParquetCompression::None,
                Some(Compression::Lz4) => ParquetCompression::Lz4,
                Some(Compression::Zstd) => ParquetCompression::Zstd,
            },
            app_metadata: false,
            group_bytes: usize::try_from(effective.parquet_row_group.bytes).unwrap_or(usize::MAX),
            statistics: effective.parquet_statistics,
        }
    }

    /// Encodes a sealed staged part as Parquet, into a content of its own.
    pub(super) async fn transcode(
        self: &Arc<Self>,
        schema: &StoredSchema,
        part: &DonePart,
        encoding: Encoding,
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
        let content = self.content_writer(self.fresh_ino().await?, GENERATION, None);
        encode(content, schema, index::items(source, index, 0), encoding).await
    }
}

/// The app_metadata of batches, as a file's metadata holds it.
#[derive(Debug, Default)]
struct AppMetadata {
    by_batch: Vec<(u64, String)>,
    bytes: usize,
}

impl AppMetadata {
    /// Takes that of a batch. Invalid when it is too much.
    fn push(&mut self, batch: u64, app_metadata: &[u8]) -> Result<()> {
        if app_metadata.is_empty() {
            return Ok(());
        }
        let text = BASE64_STANDARD.encode(app_metadata);
        // With the number, quotes and brackets.
        self.bytes += text.len() + 26;
        if self.bytes > APP_METADATA_BYTES_MAX {
            return Err(Error::invalid(format!(
                "its batches have more app_metadata than the {APP_METADATA_BYTES_MAX} bytes that go into the footer of a Parquet file"
            )));
        }
        self.by_batch.push((batch, text));
        Ok(())
    }

    fn to_text(&self) -> String {
        serde_json::to_string(&self.by_batch).expect("numbers and texts have a JSON form")
    }

    /// `None`: not written by us.
    fn of_text(text: &str) -> Option<BTreeMap<u64, Bytes>> {
        let by_batch: Vec<(u64, String)> = serde_json::from_str(text).ok()?;
        let decoded = by_batch.into_iter().map(|(batch, text)| {
            let bytes = BASE64_STANDARD.decode(text).ok()?;
            Some((batch, Bytes::from(bytes)))
        });
        decoded.collect()
    }
}

/// Encodes items as Parquet into `content`, and seals it.
pub(super) async fn encode(
    mut content: ContentWriter,
    schema: &StoredSchema,
    mut items: BoxStream<'static, Result<PartItem>>,
    encoding: Encoding,
) -> Result<SealedContent> {
    let mut encoder = Encoder::new(schema, encoding)?;
    while let Some(item) = items.try_next().await? {
        encoder = task::blocking(move || encoder.push(item)).await?;
        drain(&mut encoder.writer, &mut content, PIECE_BYTES).await?;
    }
    let mut writer = task::blocking(move || encoder.finish()).await?;
    drain(&mut writer, &mut content, 1).await?;
    content.seal().await
}

/// From items to the bytes of a file. What fails takes it along.
struct Encoder {
    encoding: Encoding,
    decoder: Decoder,
    writer: ArrowWriter<Vec<u8>>,
    counts: RowCounts,
    batches: u64,
    app_metadata: AppMetadata,
}

impl Encoder {
    fn new(schema: &StoredSchema, encoding: Encoding) -> Result<Self> {
        Ok(Self {
            encoding,
            decoder: Decoder::new(&schema.message)?,
            writer: writer(Arc::clone(&schema.schema), encoding)?,
            counts: RowCounts::default(),
            batches: 0,
            app_metadata: AppMetadata::default(),
        })
    }

    fn push(mut self, item: PartItem) -> Result<Self> {
        let Some((batch, app_metadata)) = self.decoder.push(item)? else {
            return Ok(self);
        };
        if self.encoding.app_metadata {
            self.app_metadata.push(self.batches, &app_metadata)?;
        }
        self.batches += 1;
        self.counts.push(batch.num_rows() as u64);
        guarded("encoding as Parquet", || {
            self.writer.write(&batch)?;
            if self.writer.in_progress_size() >= self.encoding.group_bytes {
                self.writer.flush()?;
            }
            Ok(())
        })?;
        Ok(self)
    }

    fn finish(mut self) -> Result<ArrowWriter<Vec<u8>>> {
        let mut note = |key: &str, text: String| {
            self.writer
                .append_key_value_metadata(KeyValue::new(key.to_owned(), text));
        };
        note(BATCHES_KEY, self.counts.to_text());
        if !self.app_metadata.by_batch.is_empty() {
            note(APP_METADATA_KEY, self.app_metadata.to_text());
        }
        guarded("encoding as Parquet", || {
            self.writer.finish()?;
            Ok(())
        })?;
        Ok(self.writer)
    }
}

fn writer(schema: SchemaRef, encoding: Encoding) -> Result<ArrowWriter<Vec<u8>>> {
    let codec = match encoding.compression {
        ParquetCompression::None => Codec::UNCOMPRESSED,
        ParquetCompression::Snappy => Codec::SNAPPY,
        ParquetCompression::Lz4 => Codec::LZ4_RAW,
        ParquetCompression::Zstd => Codec::ZSTD(Default::default()),
    };
    let statistics = match encoding.statistics {
        ParquetStatistics::None => EnabledStatistics::None,
        ParquetStatistics::Chunk => EnabledStatistics::Chunk,
        ParquetStatistics::Page => EnabledStatistics::Page,
    };
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_statistics_enabled(statistics)
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
    app_metadata: Arc<BTreeMap<u64, Bytes>>,
    ours: bool,
}

impl ParquetIndex {
    /// Reads the footer. Precondition: no whole Parquet file.
    pub(super) async fn read(source: &Source) -> Result<Self> {
        let mut bytes = Ranges(source.clone());
        let size = source.size();
        let broken = |error: ParquetError| {
            passed_on(&error)
                .unwrap_or_else(|| Error::precondition(format!("{}: no whole Parquet file: {error}", source.name())))
        };
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
        of_schema.remove(APP_METADATA_KEY);
        let schema = StoredSchema::encode(&Schema::new_with_metadata(
            metadata.schema().fields().clone(),
            of_schema,
        ))?;
        let (counts, ours) = row_counts(metadata.metadata());
        let app_metadata = noted(metadata.metadata(), APP_METADATA_KEY).filter(|_| ours);
        let app_metadata = app_metadata.and_then(AppMetadata::of_text).unwrap_or_default();
        Ok(Self {
            metadata,
            schema,
            counts,
            app_metadata: Arc::new(app_metadata),
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
        let app_metadata: usize = self.app_metadata.values().map(|bytes| bytes.len() + 64).sum();
        let counts = self.counts.runs.len() * 16;
        self.metadata.metadata().memory_size() + 4 * self.schema.message.len() + counts + app_metadata + 1024
    }
}

/// Where batches of a file begin: as noted in ours, else a fixed count of rows within each row group.
fn row_counts(metadata: &ParquetMetaData) -> (RowCounts, bool) {
    let file = metadata.file_metadata();
    let noted = noted(metadata, BATCHES_KEY).and_then(RowCounts::of_text);
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

/// What the file's metadata has under a key.
fn noted<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let mut pairs = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    pairs.find(|pair| pair.key == key)?.value.as_deref()
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
        at: skip,
        app_metadata: Arc::clone(&index.app_metadata),
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
    /// Number of the next batch.
    at: u64,
    app_metadata: Arc<BTreeMap<u64, Bytes>>,
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
        let app_metadata = self.app_metadata.get(&self.at).cloned().unwrap_or_default();
        self.at += 1;
        Ok(Some(PartItem::Decoded(batch, app_metadata)))
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
        let broken = |error| passed_on(&error).unwrap_or_else(|| Error::data_loss(format!("{}: {error}", self.name)));
        let Some(batch) = next.map_err(broken)? else {
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

/// What reading the bytes came to, where that is what the library passes on: a store that is away is no damage.
fn passed_on(error: &ParquetError) -> Option<Error> {
    match error {
        ParquetError::External(error) => error.downcast_ref::<Error>().cloned(),
        _ => None,
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
    fn app_metadata_goes_to_text_and_back_until_it_is_too_much() {
        let mut kept = AppMetadata::default();
        kept.push(0, b"").unwrap();
        kept.push(3, b"three").unwrap();
        kept.push(u64::MAX, &[0, 255]).unwrap();
        let text = kept.to_text();
        assert_eq!(text, r#"[[3,"dGhyZWU="],[18446744073709551615,"AP8="]]"#);
        let read = AppMetadata::of_text(&text).unwrap();
        let expected = [
            (3, Bytes::from_static(b"three")),
            (u64::MAX, Bytes::from_static(&[0, 255])),
        ];
        assert_eq!(read, BTreeMap::from(expected));
        for wrong in ["", "{}", "[[1]]", r#"[[1,"*"]]"#] {
            assert_eq!(AppMetadata::of_text(wrong), None, "{wrong}");
        }
        let error = kept.push(4, &vec![0; APP_METADATA_BYTES_MAX]).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
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
