//! A directory of folders `key=value` as one table: each folder is a dataset of its own, and its name gives columns.
//!
//! # Reading
//! The folders are listed when a scan is planned ([`crate::listing`]); what a condition on folder columns alone excludes is neither listed
//! further nor asked for. Each folder is read at the version that is its head then. When all were asked they are listed once more: where
//! every folder has the version still that will be read, there was a moment at which all had them, and the scan is of that instant. Where
//! something was published meanwhile it is looked at again, [`LOOKS`] times in all.
//!
//! # Writing
//! See [`crate::split`], and [`crate::replace`] for what an overwrite of the table does beside.

use crate::{
    exec::{self, ForebayScan, Piece, Scanned, Slot},
    external, filter, folders,
    listing::{Chosen, Folder, Listing, PARALLEL},
    sink::{Observer, Target},
    split::SplitSink,
    table::{nothing, pieces, total},
};
use arrow_schema::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DataFusionError, Result, SchemaExt, plan_err, stats::Precision},
    datasource::{TableType, sink::DataSinkExec},
    logical_expr::{Expr, TableProviderFilterPushDown, dml::InsertOp},
    physical_plan::ExecutionPlan,
};
use forebay_client::{Client, ErrorKind, Info, Mode, Progress, ReadOptions, SessionOptions, WirePath};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use tokio::sync::watch;

/// How often it is tried to see all folders at one instant. Where writers never pause, the last look is taken.
const LOOKS: usize = 5;

/// The datasets in folders `key=value` below a directory.
#[derive(Clone, Debug)]
pub struct ForebayPartitioned {
    listing: Listing,
    /// The columns of the datasets.
    data: SchemaRef,
    /// Those and the columns of the folders, which come last.
    schema: SchemaRef,
    write: SessionOptions,
    observer: Option<Observer>,
}

impl ForebayPartitioned {
    /// The table below `path`, whose datasets have or will have the columns of `schema` but `keys`, which name folders. The columns
    /// of folders come last, whatever their place in `schema`.
    pub fn create(client: Client, path: &str, schema: &Schema, keys: &[String]) -> Result<Self> {
        let key = |name: &String| match schema.field_with_name(name) {
            Ok(field) => folders::check(field).map(|()| Arc::new(field.clone())),
            Err(_) => plan_err!("PARTITIONED BY {name}: there is no such column"),
        };
        let keys: Vec<FieldRef> = keys.iter().map(key).collect::<Result<_>>()?;
        let is_key = |field: &&FieldRef| keys.iter().any(|key| key.name() == field.name());
        let data: Vec<FieldRef> = schema.fields().iter().filter(|f| !is_key(f)).cloned().collect();
        if data.is_empty() || data.len() + keys.len() != schema.fields().len() {
            return plan_err!("PARTITIONED BY: name each column once, and leave at least one that is none of folders");
        }
        let all: Vec<FieldRef> = data.iter().chain(&keys).cloned().collect();
        let root = WirePath::parse(path).map_err(|e| external(e.into()))?;
        Ok(Self {
            listing: Listing { client, root, keys },
            data: Arc::new(Schema::new(data)),
            schema: Arc::new(Schema::new(all)),
            write: SessionOptions::default(),
            observer: None,
        })
    }

    /// The table below `path`, as the folders and datasets that are there say. Columns of folders are strings.
    pub async fn open(client: Client, path: &str, keys: &[String]) -> Result<Self> {
        let schema = client.schema(path, &ReadOptions::default()).await.map_err(external)?;
        Self::create(client, path, &schema, keys)
    }

    /// How inserts are stored; the mode is the statement's.
    #[must_use]
    pub fn writing(mut self, write: SessionOptions) -> Self {
        self.write = write;
        self
    }

    /// Hands the acks of every folder that an insert writes to `tell`, as its first rows come.
    #[must_use]
    pub fn observed(mut self, tell: impl Fn(watch::Receiver<Progress>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(tell)));
        self
    }

    /// Where its folders are.
    pub fn path(&self) -> &WirePath {
        &self.listing.root
    }

    /// The columns of its folders, outermost first.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.listing.keys.iter().map(|key| key.name().as_str())
    }

    /// What there is to read in the folders that `filters` leave, at one instant where that can be seen.
    async fn look(
        &self,
        state: &dyn Session,
        filters: &[Expr],
        read: &ReadOptions,
    ) -> Result<Vec<(Option<Info>, Folder)>> {
        let chosen = Chosen { state, filters };
        let mut found = self.listing.folders(Some(chosen)).await?;
        for _ in 1..LOOKS {
            let infos = self.infos(found, read).await?;
            let again = self.listing.folders(Some(chosen)).await?;
            let seen = infos.iter().map(|(info, folder)| {
                let version = info.as_ref().and_then(|info| info.note.version);
                (&folder.path, version)
            });
            if seen.eq(again.iter().map(|folder| (&folder.path, folder.version))) {
                return Ok(infos);
            }
            found = again;
        }
        self.infos(found, read).await
    }

    async fn infos(&self, folders: Vec<Folder>, read: &ReadOptions) -> Result<Vec<(Option<Info>, Folder)>> {
        let infos = stream::iter(folders).map(|folder| async move {
            let info = self.info(&folder, read).await?;
            Ok::<_, DataFusionError>((info, folder))
        });
        infos.buffered(PARALLEL).try_collect().await
    }

    /// What there is to read in a folder; `None`: nothing.
    async fn info(&self, folder: &Folder, read: &ReadOptions) -> Result<Option<Info>> {
        let path = folder.path.to_string();
        let error = match self.listing.client.info(&path, read).await {
            Ok(info) => return Ok(Some(info)),
            Err(error) => error,
        };
        let empty = match error.kind() {
            ErrorKind::NotFound => true,
            ErrorKind::Precondition => {
                let listing = self.listing.client.list(&path, false, None).map_err(external)?;
                std::pin::pin!(listing).try_next().await.map_err(external)?.is_none()
            }
            _ => false,
        };
        if empty { Ok(None) } else { Err(external(error)) }
    }

    /// Where the columns of a scan come from, and what the datasets are asked for.
    fn slots(&self, schema: &Schema) -> (Vec<Slot>, Vec<String>) {
        let mut asked: Vec<String> = Vec::new();
        let mut slot = |field: &FieldRef| match self.listing.position(field.name()) {
            Some(key) => Slot::Folder(key),
            None => {
                asked.push(field.name().clone());
                Slot::Read(asked.len() - 1)
            }
        };
        let slots = schema.fields().iter().map(&mut slot).collect();
        if asked.is_empty() {
            // One to count its rows by.
            asked.push(self.data.field(0).name().clone());
        }
        (slots, asked)
    }
}

#[async_trait]
impl TableProvider for ForebayPartitioned {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of_rows = |filter: &Expr| {
            let used = filter.column_refs();
            let ours = |name: &str| self.listing.position(name).is_some();
            filter::to_sql(filter).is_some() && !used.iter().any(|column| ours(&column.name))
        };
        let exact = |filter: &&Expr| match self.listing.decided_at(filter).is_some() || of_rows(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(exact).collect())
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
        let (of_folders, of_rows): (Vec<Expr>, Vec<Expr>) = filters
            .iter()
            .cloned()
            .partition(|filter| self.listing.decided_at(filter).is_some());
        let (slots, columns) = self.slots(&schema);
        let read = ReadOptions {
            columns: Some(columns.clone()),
            filter: filter::all_to_sql(&of_rows),
            limit: limit.map(|l| l as u64),
            ..ReadOptions::default()
        };
        let infos = self.look(state, &of_folders, &read).await?;
        let about = format!("path={}, folders={}", self.listing.root, infos.len());
        let infos: Vec<(Info, Folder)> = infos.into_iter().filter_map(|(info, f)| Some((info?, f))).collect();
        let Some((first, _)) = infos.first() else {
            return Ok(Arc::new(ForebayScan::new(
                self.listing.client.clone(),
                nothing(schema, about),
            )));
        };
        let is_part = read.filter.is_some() || read.limit.is_some();
        let sum = |of: fn(&Info) -> Option<u64>| {
            let each = infos.iter().map(|(info, _)| total(of(info), is_part));
            each.fold(Precision::Exact(0), |sum, each| sum.add(&each))
        };
        let (rows, bytes) = (sum(|info| info.rows), sum(|info| info.bytes).to_inexact());
        let all: Vec<Piece> = infos
            .iter()
            .flat_map(|(info, folder)| pieces(info, &Arc::from(folder.values.clone())).collect::<Vec<_>>())
            .collect();
        let scanned = Scanned {
            partitions: exec::partitions(&all, state.config().target_partitions()),
            read: Arc::clone(&first.schema),
            schema,
            slots,
            rows,
            bytes,
            about,
        };
        Ok(Arc::new(ForebayScan::new(self.listing.client.clone(), scanned)))
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
                return plan_err!("tables of folders have no keys to replace rows by; INSERT INTO or INSERT OVERWRITE");
            }
        };
        let keys: Vec<String> = self.keys().map(str::to_owned).collect();
        let mut sink = SplitSink::new(self.target(mode), Arc::clone(&self.schema), &keys)?;
        if mode == Mode::Overwrite {
            sink = sink.replacing(self.listing.clone());
        }
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

impl ForebayPartitioned {
    fn target(&self, mode: Mode) -> Target {
        Target {
            client: self.listing.client.clone(),
            path: self.listing.root.to_string(),
            options: SessionOptions {
                mode: Some(mode),
                ..self.write.clone()
            },
            observer: self.observer.clone(),
        }
    }
}
