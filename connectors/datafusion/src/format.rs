//! `STORED AS FOREBAY`: the words by which SQL reaches datasets. `CREATE EXTERNAL TABLE` opens one as a table, `COPY … TO` writes one.
//!
//! As a file format it only writes: its tables are [`ForebayTable`]s, not listings of files.

use crate::{ForebayPartitioned, ForebaySink, ForebayTable, ForebayUrl, sink::Target, split::SplitSink};
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider, TableProviderFactory},
    common::{DataFusionError, GetExt, Result, Statistics, not_impl_err, plan_err},
    datasource::{
        file_format::{FileFormat, FileFormatFactory, file_compression_type::FileCompressionType},
        physical_plan::{ArrowSource, FileScanConfig, FileSinkConfig, FileSource},
        sink::DataSinkExec,
        table_schema::TableSchema,
    },
    logical_expr::{CreateExternalTable, dml::InsertOp},
    physical_expr::LexRequirement,
    physical_plan::ExecutionPlan,
};
use forebay_client::{Client, Mode, ReadOptions, SessionOptions};
use object_store::{ObjectMeta, ObjectStore};
use std::{collections::HashMap, sync::Arc};

/// The word after `STORED AS`.
pub const FORMAT: &str = "FOREBAY";

/// Makes tables for `CREATE EXTERNAL TABLE … STORED AS FOREBAY LOCATION 'forebay://host:port/path'`.
///
/// With columns in the statement the dataset may not exist yet; without it must. `OPTIONS (version '3')` reads that version.
/// `CREATE UNBOUNDED EXTERNAL TABLE` makes a table without an end, that follows what is written. With `PARTITIONED BY` the location is
/// the directory of folders `key=value`, a [`ForebayPartitioned`].
#[derive(Debug)]
pub struct ForebayTableFactory {
    client: Client,
}

impl ForebayTableFactory {
    /// Tables of the client's server.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl TableProviderFactory for ForebayTableFactory {
    async fn create(&self, _state: &dyn Session, cmd: &CreateExternalTable) -> Result<Arc<dyn TableProvider>> {
        let [location] = &cmd.locations[..] else {
            return plan_err!("a FOREBAY table has one LOCATION");
        };
        let path = path_on(&self.client, location)?;
        let read = ReadOptions {
            version: version(&cmd.options)?,
            ..ReadOptions::default()
        };
        let schema = cmd.schema.inner();
        let keys = &cmd.table_partition_cols;
        if !keys.is_empty() {
            if cmd.unbounded || read.version.is_some() {
                return plan_err!(
                    "a table PARTITIONED BY folders is neither UNBOUNDED nor of one version: each folder has its own"
                );
            }
            let client = self.client.clone();
            return Ok(Arc::new(match schema.fields().is_empty() {
                true => ForebayPartitioned::open(client, &path, keys).await?,
                false => ForebayPartitioned::create(client, &path, schema, keys)?,
            }));
        }
        if cmd.unbounded {
            if read.version.is_some() {
                return plan_err!("a version stands still; an UNBOUNDED table has none");
            }
            return Ok(Arc::new(match schema.fields().is_empty() {
                true => ForebayTable::follow(self.client.clone(), &path, read).await?,
                false => ForebayTable::create(self.client.clone(), &path, Arc::clone(schema)).following(),
            }));
        }
        if schema.fields().is_empty() {
            return Ok(Arc::new(ForebayTable::open(self.client.clone(), &path, read).await?));
        }
        Ok(Arc::new(
            ForebayTable::create(self.client.clone(), &path, Arc::clone(schema)).reading(read),
        ))
    }
}

fn version(options: &HashMap<String, String>) -> Result<Option<u64>> {
    let mut version = None;
    for (key, value) in options {
        if key.trim_start_matches("format.") != "version" {
            return plan_err!("a FOREBAY table knows the option version, not {key}");
        }
        let number = value
            .parse()
            .map_err(|_| DataFusionError::Plan(format!("version {value} is no number")))?;
        version = Some(number);
    }
    Ok(version)
}

/// The path of a URL, if it is on the client's server.
fn path_on(client: &Client, url: &str) -> Result<String> {
    let parsed = ForebayUrl::parse(url).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let ours = ForebayUrl::root_of(client.url()).map_err(|e| DataFusionError::External(Box::new(e)))?;
    if parsed.authority() != ours.authority() {
        return plan_err!("{url} is on another server than the registered {ours}");
    }
    Ok(parsed.path().to_string())
}

/// Makes writers for `COPY … TO 'forebay://host:port/path' STORED AS FOREBAY`.
#[derive(Clone, Debug)]
pub struct ForebayFormatFactory {
    client: Client,
}

impl ForebayFormatFactory {
    /// Datasets of the client's server.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl GetExt for ForebayFormatFactory {
    fn get_ext(&self) -> String {
        FORMAT.to_lowercase()
    }
}

impl FileFormatFactory for ForebayFormatFactory {
    fn create(&self, _state: &dyn Session, format_options: &HashMap<String, String>) -> Result<Arc<dyn FileFormat>> {
        match format_options.keys().next() {
            Some(key) => plan_err!("COPY to a FOREBAY dataset has no option {key}"),
            None => Ok(self.default()),
        }
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        Arc::new(ForebayFormat {
            client: self.client.clone(),
        })
    }
}

#[derive(Debug)]
struct ForebayFormat {
    client: Client,
}

#[async_trait]
impl FileFormat for ForebayFormat {
    fn get_ext(&self) -> String {
        FORMAT.to_lowercase()
    }

    fn get_ext_with_compression(&self, _compression: &FileCompressionType) -> Result<String> {
        Ok(FORMAT.to_lowercase())
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        None
    }

    async fn infer_schema(&self, _: &dyn Session, _: &Arc<dyn ObjectStore>, _: &[ObjectMeta]) -> Result<SchemaRef> {
        not_impl_err!("a FOREBAY dataset is read as a table: CREATE EXTERNAL TABLE … STORED AS FOREBAY")
    }

    async fn infer_stats(
        &self,
        _: &dyn Session,
        _: &Arc<dyn ObjectStore>,
        schema: SchemaRef,
        _: &ObjectMeta,
    ) -> Result<Statistics> {
        Ok(Statistics::new_unknown(&schema))
    }

    async fn create_physical_plan(&self, _: &dyn Session, _: FileScanConfig) -> Result<Arc<dyn ExecutionPlan>> {
        not_impl_err!("a FOREBAY dataset is read as a table: CREATE EXTERNAL TABLE … STORED AS FOREBAY")
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        _state: &dyn Session,
        conf: FileSinkConfig,
        _order: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let path = path_on(&self.client, &conf.original_url)?;
        let mode = match conf.insert_op {
            InsertOp::Append => Mode::Append,
            InsertOp::Overwrite | InsertOp::Replace => Mode::Overwrite,
        };
        let target = Target {
            client: self.client.clone(),
            path,
            options: SessionOptions {
                mode: Some(mode),
                ..SessionOptions::default()
            },
            observer: None,
        };
        let schema = Arc::clone(&conf.output_schema);
        if conf.table_partition_cols.is_empty() {
            return Ok(Arc::new(DataSinkExec::new(
                input,
                Arc::new(ForebaySink::new(target, schema)),
                None,
            )));
        }
        if conf.keep_partition_by_columns {
            return not_impl_err!("keep_partition_by_columns of a FOREBAY dataset: the names of its folders hold them");
        }
        let keys: Vec<String> = conf.table_partition_cols.iter().map(|(key, _)| key.clone()).collect();
        let sink = SplitSink::new(target, schema, &keys)?;
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }

    /// Asked for by listings of files, which this format has none of; files of a dataset are Arrow files.
    fn file_source(&self, table_schema: TableSchema) -> Arc<dyn FileSource> {
        Arc::new(ArrowSource::new_file_source(table_schema))
    }
}
