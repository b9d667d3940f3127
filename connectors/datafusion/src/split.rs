//! What a query writes the folders of a partitioned table through.
//!
//! # Consistency
//! Each folder is a dataset with a session of its own. Rows are staged in all of them while the query runs, and only when it has ended
//! well and every folder's rows are safe are the sessions published, all at one instant. So a query that fails or is cancelled, and a
//! client that dies, leaves nothing, and readers see the rows of all folders or of none. Where the table is replaced, folders that get no
//! rows are emptied at the same instant ([`crate::replace`]).
//!
//! # Memory
//! Rows of a folder are gathered to batches of [`BATCH_ROWS`] before they are sent; what waits is bounded by [`WAITING_BYTES`] in all.

use crate::{
    external, folders,
    listing::{Listing, PARALLEL},
    replace::Replaced,
    sink::{Observer, Target},
};
use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_schema::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    arrow::{
        compute::{concat_batches, take_record_batch},
        row::{OwnedRow, RowConverter, SortField},
    },
    common::{DataFusionError, Result, exec_err},
    datasource::sink::DataSink,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType},
    scalar::ScalarValue,
};
use forebay_client::{Client, Put, Session, Staged, WirePath, WriteOptions};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

/// Rows of a folder that are sent together.
const BATCH_ROWS: usize = 8192;
/// Bytes of rows that wait for more of their folders, all together.
const WAITING_BYTES: usize = 64 << 20;
/// Folders that one statement writes or empties: each has an open stream until the end, and so many a server publishes at one instant.
const FOLDERS_MAX: usize = 1000;
/// Streams over one connection, of which a server takes 256.
const STREAMS: usize = 200;

/// Writes a stream of batches as the next version of each folder that it has rows for.
#[derive(Debug)]
pub(crate) struct SplitSink {
    target: Target,
    /// As rows come.
    schema: SchemaRef,
    /// The columns of the datasets, by their places in it.
    data: Vec<usize>,
    /// The columns of the folders, by their places in it.
    keys: Vec<usize>,
    /// The schema of the datasets.
    stored: SchemaRef,
    /// The table, where all of it is replaced.
    replaced: Option<Replaced>,
}

impl SplitSink {
    /// Splits rows of `schema` by the columns that are called `keys`.
    pub(crate) fn new(target: Target, schema: SchemaRef, keys: &[String]) -> Result<Self> {
        let place = |key: &String| schema.index_of(key).map_err(DataFusionError::from);
        let keys: Vec<usize> = keys.iter().map(place).collect::<Result<_>>()?;
        let data: Vec<usize> = (0..schema.fields().len()).filter(|at| !keys.contains(at)).collect();
        Ok(Self {
            stored: Arc::new(Schema::new(schema.project(&data)?.fields)),
            target,
            schema,
            data,
            keys,
            replaced: None,
        })
    }

    /// Empties the other folders of the table.
    #[must_use]
    pub(crate) fn replacing(self, listing: Listing) -> Self {
        let stored = Arc::clone(&self.stored);
        Self {
            replaced: Some(Replaced { listing, stored }),
            ..self
        }
    }

    /// Refuses to change more folders than can be published at one instant.
    fn check_many(&self, many: usize) -> Result<()> {
        let Target { path, .. } = &self.target;
        if many > FOLDERS_MAX {
            return exec_err!(
                "{path}: the overwrite would write or empty {many} folders at one instant, and {FOLDERS_MAX} is the most; delete folders \
                 that get no rows before it, or write the rows to another directory by several INSERT INTO and rename it"
            );
        }
        Ok(())
    }

    fn key(&self, at: usize) -> &Field {
        self.schema.field(self.keys[at])
    }
}

impl DisplayAs for SplitSink {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = (0..self.keys.len()).map(|at| self.key(at).name().as_str()).collect();
        write!(
            f,
            "ForebaySink(path={}, folders=[{}])",
            self.target.path,
            keys.join(", ")
        )
    }
}

#[async_trait]
impl DataSink for SplitSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(&self, mut data: SendableRecordBatchStream, _context: &Arc<TaskContext>) -> Result<u64> {
        if let Some(table) = &self.replaced {
            self.check_many(table.filled().await?.len())?;
        }
        let mut split = Split::new(self)?;
        let mut rows = 0;
        while let Some(batch) = data.next().await.transpose()? {
            rows += batch.num_rows() as u64;
            split.take(&batch).await?;
        }
        split.publish().await?;
        Ok(rows)
    }
}

/// One statement's folders.
struct Split<'a> {
    sink: &'a SplitSink,
    converter: RowConverter,
    /// By the values of their names.
    folders: HashMap<OwnedRow, Folder>,
    connections: Vec<Client>,
    waiting_bytes: usize,
}

/// A folder that is written.
struct Folder {
    path: WirePath,
    session: Session,
    put: Put,
    waiting: Vec<RecordBatch>,
    rows: usize,
}

impl<'a> Split<'a> {
    fn new(sink: &'a SplitSink) -> Result<Self> {
        let fields = (0..sink.keys.len()).map(|at| SortField::new(sink.key(at).data_type().clone()));
        Ok(Self {
            sink,
            converter: RowConverter::new(fields.collect())?,
            folders: HashMap::new(),
            connections: Vec::new(),
            waiting_bytes: 0,
        })
    }

    /// Shares a batch's rows out.
    async fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = |places: &[usize]| {
            places
                .iter()
                .map(|at| Arc::clone(batch.column(*at)))
                .collect::<Vec<_>>()
        };
        let (data, keys) = (columns(&self.sink.data), columns(&self.sink.keys));
        let data = RecordBatch::try_new(Arc::clone(&self.sink.stored), data)?;
        let values = self.converter.convert_columns(&keys)?;
        let mut rows: BTreeMap<OwnedRow, Vec<u32>> = BTreeMap::new();
        for (row, value) in (0..).zip(&values) {
            rows.entry(value.owned()).or_default().push(row);
        }
        for (value, rows) in rows {
            if !self.folders.contains_key(&value) {
                let folder = self.open(&keys, rows[0] as usize).await?;
                self.folders.insert(value.clone(), folder);
            }
            let part = take_record_batch(&data, &UInt32Array::from(rows))?;
            self.waiting_bytes += part.get_array_memory_size();
            let folder = self.folders.get_mut(&value).expect("it was opened");
            folder.rows += part.num_rows();
            folder.waiting.push(part);
            if folder.rows >= BATCH_ROWS {
                self.waiting_bytes -= folder.send(&self.sink.stored).await?;
            }
        }
        if self.waiting_bytes >= WAITING_BYTES {
            self.send_all().await?;
        }
        Ok(())
    }

    /// The folder of a row.
    async fn open(&mut self, keys: &[ArrayRef], row: usize) -> Result<Folder> {
        let Target {
            client, path, observer, ..
        } = &self.sink.target;
        let many = self.folders.len();
        if self.sink.replaced.is_some() {
            self.sink.check_many(many + 1)?;
        }
        if many >= FOLDERS_MAX {
            return exec_err!(
                "{path}: rows of more than {FOLDERS_MAX} folders in one statement; insert them by several, with conditions on {}",
                self.sink.key(0).name()
            );
        }
        if many.is_multiple_of(STREAMS) {
            self.connections.push(client.another().await.map_err(external)?);
        }
        let client = &self.connections[many / STREAMS];
        let mut path = WirePath::parse(path).map_err(|e| external(e.into()))?;
        for (at, column) in keys.iter().enumerate() {
            let name = folders::name(self.sink.key(at).name(), &ScalarValue::try_from_array(column, row)?)?;
            path = path.join(&name).map_err(|e| external(e.into()))?;
        }
        let session = self.sink.target.begin(client, &path.to_string()).await?;
        let mut put = session.put(WriteOptions::default()).await.map_err(external)?;
        put.begin(Arc::clone(&self.sink.stored)).map_err(external)?;
        if let Some(Observer(tell)) = observer {
            tell(put.watch());
        }
        Ok(Folder {
            path,
            session,
            put,
            waiting: Vec::new(),
            rows: 0,
        })
    }

    async fn send_all(&mut self) -> Result<()> {
        for folder in self.folders.values_mut() {
            folder.send(&self.sink.stored).await?;
        }
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Makes every folder safe, and then all of them visible.
    async fn publish(mut self) -> Result<()> {
        self.send_all().await?;
        let mut staged = BTreeMap::new();
        for Folder { path, session, put, .. } in self.folders.into_values() {
            put.finish().await.map_err(external)?;
            staged.insert(path, session);
        }
        if let Some(table) = &self.sink.replaced {
            let mut others = table.filled().await?;
            others.retain(|folder| !staged.contains_key(&folder.path));
            self.sink.check_many(staged.len() + others.len())?;
            let emptied = stream::iter(others).map(|folder| table.empty(&self.sink.target, folder));
            let emptied: Vec<_> = emptied.buffered(PARALLEL).try_collect().await?;
            staged.extend(emptied);
        }
        let Target { client, path, .. } = &self.sink.target;
        let staged = staged.into_values().map(Staged::from).collect();
        let folders = client.publish_together(staged, false).await.map_err(external)?.len();
        tracing::debug!(path, folders, "published");
        Ok(())
    }
}

impl Folder {
    /// Sends what waits, and says how many bytes that was.
    async fn send(&mut self, schema: &SchemaRef) -> Result<usize> {
        let waiting = std::mem::take(&mut self.waiting);
        self.rows = 0;
        if !waiting.is_empty() {
            self.put
                .send(&concat_batches(schema, &waiting)?)
                .await
                .map_err(external)?;
        }
        Ok(waiting.iter().map(RecordBatch::get_array_memory_size).sum())
    }
}
