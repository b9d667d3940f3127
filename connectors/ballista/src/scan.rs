//! A scan on the scheduler, in the form in which Ballista slices it.
//!
//! Ballista gives each task of a stage some of its partitions, and rewrites the leaves of the plan so that they have no others. It knows how
//! to do that with few leaves, of which a `DataSourceExec` over files is one; any other leaf stays whole, and every task would read all of
//! it. So here a partition of ours is dressed as a group of one file, called by its number. No such file is ever opened: what goes to an
//! executor is the [`ForebayScan`] of the partitions that were left.

use crate::codec;
use datafusion::{
    common::{Result, Statistics, internal_err, not_impl_err, tree_node::TreeNodeRecursion},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    execution::object_store::ObjectStoreUrl,
    physical_expr::PhysicalExpr,
    physical_plan::{DisplayFormatType, ExecutionPlan, metrics::ExecutionPlanMetricsSet},
};
use forebay_datafusion::{ForebayScan, Scanned};
use std::{any::Any, fmt, sync::Arc};

/// Holds what the files stand for.
#[derive(Clone)]
struct Dressed {
    server: String,
    scanned: Arc<Scanned>,
    schema: TableSchema,
    metrics: ExecutionPlanMetricsSet,
}

/// What is left of a scan.
pub(crate) struct SlicedScan {
    pub(crate) server: String,
    pub(crate) scanned: Scanned,
    /// Rows of each partition at most.
    pub(crate) limit: Option<usize>,
}

/// The scan as Ballista slices it.
pub(crate) fn dressed(scan: &ForebayScan) -> Result<Arc<dyn ExecutionPlan>> {
    let (scanned, server) = (scan.scanned().clone(), codec::server(scan.client()));
    let url = ObjectStoreUrl::parse(format!("forebay://{server}"))?;
    let group = |number: usize| FileGroup::new(vec![PartitionedFile::new(number.to_string(), 0)]);
    let groups = (0..scanned.partitions.len()).map(group).collect();
    let statistics = Statistics {
        num_rows: scanned.rows,
        total_byte_size: scanned.bytes,
        ..Statistics::new_unknown(&scanned.schema)
    };
    let source = Dressed {
        server,
        schema: TableSchema::from(Arc::clone(&scanned.schema)),
        scanned: Arc::new(scanned),
        metrics: ExecutionPlanMetricsSet::new(),
    };
    let config = FileScanConfigBuilder::new(url, Arc::new(source))
        .with_file_groups(groups)
        .with_statistics(statistics)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// What a node is of ours; `None`: another's.
pub(crate) fn sliced(node: &dyn ExecutionPlan) -> Result<Option<SlicedScan>> {
    let Some(exec) = node.downcast_ref::<DataSourceExec>() else {
        return Ok(None);
    };
    let source: &dyn Any = exec.data_source().as_ref();
    let Some(config) = source.downcast_ref::<FileScanConfig>() else {
        return Ok(None);
    };
    let source: &dyn Any = config.file_source.as_ref();
    let Some(Dressed { server, scanned, .. }) = source.downcast_ref::<Dressed>() else {
        return Ok(None);
    };
    let mut partitions = Vec::with_capacity(config.file_groups.len());
    for group in &config.file_groups {
        let mut pieces = Vec::new();
        for file in group.iter() {
            let number: Option<usize> = file.object_meta.location.as_ref().parse().ok();
            match number.and_then(|number| scanned.partitions.get(number)) {
                Some(partition) => pieces.extend(partition.iter().cloned()),
                None => return internal_err!("a scan has no partition {}", file.object_meta.location),
            }
        }
        partitions.push(pieces);
    }
    Ok(Some(SlicedScan {
        server: server.clone(),
        scanned: Scanned {
            partitions,
            ..scanned.as_ref().clone()
        },
        limit: config.limit,
    }))
}

impl FileSource for Dressed {
    fn create_file_opener(
        &self,
        _: Arc<dyn datafusion::object_store::ObjectStore>,
        _: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        not_impl_err!("a scan of Forebay is run by executors")
    }

    fn table_schema(&self) -> &TableSchema {
        &self.schema
    }

    fn with_batch_size(&self, _: usize) -> Arc<dyn FileSource> {
        Arc::new(self.clone())
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &'static str {
        "forebay"
    }

    /// A part of the server's is not cut by bytes.
    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn fmt_extra(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", {}", self.scanned.about)
    }
}
