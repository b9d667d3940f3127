//! A dataset as a table: projection, filter and limit go to the server. A scan reads one version, or follows without an end.

use crate::{
    ForebaySink,
    exec::{self, ForebayScan, Piece, Scanned, Slot},
    external, filter,
    follow::Following,
    sink::{Observer, Target},
};
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result, SchemaExt, plan_err, stats::Precision},
    datasource::{TableType, sink::DataSinkExec},
    logical_expr::{Expr, TableProviderFilterPushDown, dml::InsertOp},
    physical_plan::{ExecutionPlan, streaming::StreamingTableExec},
    scalar::ScalarValue,
};
use forebay_client::{Client, ErrorKind, Info, Mode, Progress, ReadOptions, SessionOptions};
use std::sync::Arc;
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
    follows: bool,
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
            follows: false,
            client,
            path: path.to_owned(),
            schema,
            read,
            write,
        }
    }

    /// The same without an end: a scan gives what is published and then what is written, batch by batch as it is acknowledged, session
    /// after session. From [`ReadOptions::from`] on, if that was given.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.follows = true;
        self
    }

    /// The dataset at `path`, to be followed, which may have nothing but a session that is still written. Waits for its schema, and
    /// as [`ReadOptions::wait`] says for the dataset.
    pub async fn follow(client: Client, path: &str, read: ReadOptions) -> Result<Self> {
        let follow = client.follow(path, read.clone()).await.map_err(external)?;
        let schema = Arc::clone(follow.schema());
        Ok(Self::create(client, path, schema).reading(read).following())
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

    /// Whose it is.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What scans ask for, beside columns, filter and limit.
    pub fn read_options(&self) -> &ReadOptions {
        &self.read
    }

    /// How inserts are stored.
    pub fn write_options(&self) -> &SessionOptions {
        &self.write
    }

    /// How an insert of rows of `schema` is stored. An error: they do not fit, or rows are to be replaced by a key.
    pub fn inserting(&self, op: InsertOp, schema: &SchemaRef) -> Result<SessionOptions> {
        self.schema.logically_equivalent_names_and_types(schema)?;
        let mode = match op {
            InsertOp::Append => Mode::Append,
            InsertOp::Overwrite => Mode::Overwrite,
            InsertOp::Replace => {
                return plan_err!("Forebay datasets have no keys to replace rows by; INSERT INTO or INSERT OVERWRITE");
            }
        };
        Ok(SessionOptions {
            mode: Some(mode),
            ..self.write.clone()
        })
    }

    /// Whether it has no end.
    pub fn is_following(&self) -> bool {
        self.follows
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
            // Whoever follows goes on by the count of all batches, also of those that a filter would keep back.
            Some(_) if !self.follows => TableProviderFilterPushDown::Exact,
            _ => TableProviderFilterPushDown::Unsupported,
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
        if self.follows {
            return self.scan_without_end(schema, read, limit);
        }
        let about = |about: String| limit.map_or_else(|| about.clone(), |limit| format!("{about}, limit={limit}"));
        let Some(info) = self.info(&read).await? else {
            return Ok(Arc::new(ForebayScan::new(
                self.client.clone(),
                nothing(schema, about("nothing".to_owned())),
            )));
        };
        let is_part = read.filter.is_some() || read.limit.is_some() || read.from.is_some() || read.session.is_some();
        let pieces: Vec<Piece> = pieces(&info, &Arc::from([])).collect();
        let scanned = Scanned {
            slots: (0..schema.fields().len()).map(Slot::Read).collect(),
            partitions: exec::partitions(&pieces, state.config().target_partitions()),
            rows: total(info.rows, is_part),
            bytes: total(info.bytes, is_part).to_inexact(),
            about: about(format!(
                "path={}, version={}",
                info.note.path,
                info.note.version.unwrap_or(0)
            )),
            read: info.schema,
            schema,
        };
        Ok(Arc::new(ForebayScan::new(self.client.clone(), scanned)))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = self.inserting(insert_op, &input.schema())?;
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
    fn scan_without_end(
        &self,
        schema: SchemaRef,
        read: ReadOptions,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // The limit is of all that follows together, which no single request knows.
        let read = ReadOptions { limit: None, ..read };
        let following = Following {
            client: self.client.clone(),
            path: self.path.clone(),
            read,
            schema: Arc::clone(&schema),
        };
        let exec = StreamingTableExec::try_new(schema, vec![Arc::new(following)], None, None, true, limit)?;
        Ok(Arc::new(exec))
    }

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
}

/// The scan of what has no rows.
pub(crate) fn nothing(schema: SchemaRef, about: String) -> Scanned {
    Scanned {
        slots: Vec::new(),
        partitions: exec::partitions(&[], 1),
        rows: Precision::Exact(0),
        bytes: Precision::Exact(0),
        about,
        read: Arc::clone(&schema),
        schema,
    }
}

/// What an info lets be read, with the values of its folder.
pub(crate) fn pieces(info: &Info, folder: &Arc<[ScalarValue]>) -> impl Iterator<Item = Piece> {
    info.endpoints.iter().map(|endpoint| Piece {
        ticket: endpoint.ticket().clone(),
        folder: Arc::clone(folder),
    })
}

/// A total of the server's as a statistic; where a filter or limit leaves less than it says, it is not exact.
pub(crate) fn total(total: Option<u64>, is_part: bool) -> Precision<usize> {
    match total.and_then(|total| usize::try_from(total).ok()) {
        Some(total) if is_part => Precision::Inexact(total),
        Some(total) => Precision::Exact(total),
        None => Precision::Absent,
    }
}
