//! A dataset as a table: projection, filter and limit go to the server, a partition reads one endpoint after the other.

use crate::{
    ForebaySink, external, filter,
    sink::{Observer, Target},
};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DataFusionError, Result, SchemaExt, plan_err},
    datasource::{TableType, sink::DataSinkExec},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableProviderFilterPushDown, dml::InsertOp},
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use forebay_client::{Client, Endpoint, ErrorKind, Info, Mode, Progress, ReadOptions, SessionOptions};
use futures::{StreamExt, TryStreamExt, stream};
use std::{fmt, sync::Arc};
use tokio::sync::watch;

/// One dataset.
#[derive(Clone, Debug)]
pub struct ForebayTable {
    client: Client,
    path: String,
    schema: SchemaRef,
    read: ReadOptions,
    write: SessionOptions,
    observer: Option<Observer>,
}

impl ForebayTable {
    /// The dataset at `path`, which exists. A version in `read` makes the table stand still; else every scan reads the head.
    pub async fn open(client: Client, path: &str, read: ReadOptions) -> Result<Self> {
        let schema = client.schema(path, &read).await.map_err(external)?;
        Ok(Self {
            schema,
            ..Self::create(client, path, Arc::new(arrow_schema::Schema::empty())).reading(read)
        })
    }

    /// A dataset that may not exist yet: it reads as empty until something is inserted.
    pub fn create(client: Client, path: &str, schema: SchemaRef) -> Self {
        let (read, write) = (ReadOptions::default(), SessionOptions::default());
        Self {
            observer: None,
            client,
            path: path.to_owned(),
            schema,
            read,
            write,
        }
    }

    /// What scans ask for, beside columns, filter and limit.
    #[must_use]
    pub fn reading(mut self, read: ReadOptions) -> Self {
        self.read = read;
        self
    }

    /// How inserts are stored; the mode is the statement's.
    #[must_use]
    pub fn writing(mut self, write: SessionOptions) -> Self {
        self.write = write;
        self
    }

    /// Hands the acks of every insert to `tell` as the insert begins: how many batches are safe so far.
    #[must_use]
    pub fn observed(mut self, tell: impl Fn(watch::Receiver<Progress>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(tell)));
        self
    }

    async fn info(&self, read: &ReadOptions) -> Result<Option<Info>> {
        match self.client.info(&self.path, read).await {
            Ok(info) => Ok(Some(info)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(external(e)),
        }
    }
}

#[async_trait]
impl TableProvider for ForebayTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match filter::to_sql(filter) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(projection) => Arc::new(self.schema.project(projection)?),
            None => Arc::clone(&self.schema),
        };
        let read = ReadOptions {
            columns: projection.map(|_| self.columns(&schema)),
            filter: filter::all_to_sql(filters),
            limit: limit.map(|l| l as u64),
            ..self.read.clone()
        };
        let partitions = match self.info(&read).await? {
            Some(info) => self.partitions(&info, &schema, state.config().target_partitions()),
            None => Vec::new(),
        };
        let partitions = if partitions.is_empty() {
            vec![Part::nothing(self, &schema)]
        } else {
            partitions
        };
        let partitions = partitions
            .into_iter()
            .map(|p| Arc::new(p) as Arc<dyn PartitionStream>)
            .collect();
        Ok(Arc::new(StreamingTableExec::try_new(
            schema, partitions, None, None, false, limit,
        )?))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.schema.logically_equivalent_names_and_types(&input.schema())?;
        let mode = match insert_op {
            InsertOp::Append => Mode::Append,
            InsertOp::Overwrite => Mode::Overwrite,
            InsertOp::Replace => {
                return plan_err!("Forebay datasets have no keys to replace rows by; INSERT INTO or INSERT OVERWRITE");
            }
        };
        let options = SessionOptions {
            mode: Some(mode),
            ..self.write.clone()
        };
        let (client, path, observer) = (self.client.clone(), self.path.clone(), self.observer.clone());
        let target = Target {
            client,
            path,
            options,
            observer,
        };
        let sink = ForebaySink::new(target, Arc::clone(&self.schema));
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

impl ForebayTable {
    /// The columns to ask for; where none is needed, one to count its rows by.
    fn columns(&self, projected: &SchemaRef) -> Vec<String> {
        let fields = if projected.fields().is_empty() {
            self.schema.fields()
        } else {
            projected.fields()
        };
        let most = if projected.fields().is_empty() { 1 } else { fields.len() };
        fields.iter().take(most).map(|f| f.name().clone()).collect()
    }

    /// Endpoints in at most `most` groups of neighbours, so that each group keeps the dataset's order.
    fn partitions(&self, info: &Info, schema: &SchemaRef, most: usize) -> Vec<Part> {
        let size = info.endpoints.len().div_ceil(most.max(1)).max(1);
        let groups = info.endpoints.chunks(size);
        groups
            .map(|endpoints| Part {
                client: self.client.clone(),
                info: Arc::new(Info {
                    endpoints: Vec::new(),
                    ..info.clone()
                }),
                endpoints: endpoints.to_vec(),
                schema: Arc::clone(schema),
            })
            .collect()
    }
}

/// What one partition reads.
struct Part {
    client: Client,
    info: Arc<Info>,
    endpoints: Vec<Endpoint>,
    schema: SchemaRef,
}

impl Part {
    fn nothing(table: &ForebayTable, schema: &SchemaRef) -> Self {
        let path = forebay_client::WirePath::root();
        let note = forebay_client::InfoNote {
            path,
            version: None,
            session: None,
            state: String::new(),
            parts: 0,
            batches: 0,
        };
        let info = Info {
            schema: Arc::clone(schema),
            endpoints: Vec::new(),
            rows: None,
            bytes: None,
            note,
        };
        Self {
            client: table.client.clone(),
            info: Arc::new(info),
            endpoints: Vec::new(),
            schema: Arc::clone(schema),
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} parts of {}",
            self.endpoints.len(),
            self.info.note.parts,
            self.info.note.path
        )
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (client, info, schema) = (self.client.clone(), Arc::clone(&self.info), Arc::clone(&self.schema));
        let batches = stream::iter(self.endpoints.clone())
            .flat_map(move |endpoint| client.scan_endpoint(&info, endpoint))
            .map_err(external)
            .and_then(move |batch| std::future::ready(shaped(&batch, &schema)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// The batch under the table's own schema: names and types are the same, metadata and nullability may not be, and a column that
/// was only asked for to count rows goes.
fn shaped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns()[..schema.fields().len().min(batch.num_columns())].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(DataFusionError::from)
}
