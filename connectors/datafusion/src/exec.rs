//! The plan of a scan: a partition reads one piece after the other, and the dataset's totals are its statistics.

use crate::external;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use datafusion::{
    common::{DataFusionError, Result, Statistics, internal_err, stats::Precision, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions},
        statistics::StatisticsArgs,
        stream::RecordBatchStreamAdapter,
    },
    scalar::ScalarValue,
};
use forebay_client::Client;
use futures::{StreamExt, TryStreamExt, stream};
use std::{fmt, sync::Arc};

/// What a [`ForebayScan`] reads: plain data, so that a plan can be carried to another machine.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// The schema of the plan.
    pub schema: SchemaRef,
    /// The columns that the server is asked for.
    pub read: SchemaRef,
    /// Where each column of the plan comes from.
    pub slots: Vec<Slot>,
    /// What each partition reads, in order.
    pub partitions: Vec<Vec<Piece>>,
    /// Rows of all partitions together.
    pub rows: Precision<usize>,
    /// Bytes of all partitions together.
    pub bytes: Precision<usize>,
    /// What it is, for people.
    pub about: String,
}

/// Where a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The column at this place of what is read.
    Read(usize),
    /// The value at this place of [`Piece::folder`].
    Folder(usize),
}

/// Something that is read by one request.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The server's ticket for it.
    pub ticket: Bytes,
    /// The values that the names of its folders give.
    pub folder: Arc<[ScalarValue]>,
}

/// Neighbours together in at most `most` partitions, so that each keeps the dataset's order.
pub(crate) fn partitions(pieces: &[Piece], most: usize) -> Vec<Vec<Piece>> {
    let size = pieces.len().div_ceil(most.max(1)).max(1);
    let partitions: Vec<Vec<Piece>> = pieces.chunks(size).map(<[Piece]>::to_vec).collect();
    if partitions.is_empty() {
        return vec![Vec::new()];
    }
    partitions
}

/// Reads one version of a dataset, or of each of several.
#[derive(Debug)]
pub struct ForebayScan {
    client: Client,
    scanned: Scanned,
    properties: Arc<PlanProperties>,
}

impl ForebayScan {
    /// Reads what was planned, by a client of the server that planned it.
    pub fn new(client: Client, scanned: Scanned) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&scanned.schema)),
            Partitioning::UnknownPartitioning(scanned.partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            client,
            scanned,
            properties: Arc::new(properties),
        }
    }

    /// What it reads.
    pub fn scanned(&self) -> &Scanned {
        &self.scanned
    }

    /// By whom it reads.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn totals(&self) -> Statistics {
        Statistics {
            num_rows: self.scanned.rows,
            total_byte_size: self.scanned.bytes,
            ..Statistics::new_unknown(&self.scanned.schema)
        }
    }
}

impl DisplayAs for ForebayScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scanned {
            schema,
            partitions,
            about,
            ..
        } = &self.scanned;
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let (count, columns) = (partitions.len(), columns.join(", "));
        write!(f, "ForebayScan: {about}, partitions={count}, columns=[{columns}]")
    }
}

impl ExecutionPlan for ForebayScan {
    fn name(&self) -> &'static str {
        "ForebayScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.len() {
            0 => Ok(self),
            children => internal_err!("a scan has no children, and was given {children}"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, _ctx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Scanned {
            schema,
            read,
            slots,
            partitions,
            ..
        } = self.scanned.clone();
        let pieces = partitions.into_iter().nth(partition).unwrap_or_default();
        let (client, shape) = (self.client.clone(), Arc::clone(&schema));
        let batches = stream::iter(pieces).flat_map(move |Piece { ticket, folder }| {
            let (shape, slots) = (Arc::clone(&shape), slots.clone());
            client
                .scan_ticket(Arc::clone(&read), ticket)
                .map_err(external)
                .and_then(move |batch| std::future::ready(filled(&batch, &folder, &slots, &shape)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(match args.partition() {
            Some(_) if self.scanned.partitions.len() > 1 => Statistics::new_unknown(&self.scanned.schema),
            _ => self.totals(),
        }))
    }
}

/// The batch as the plan's: columns that were only asked for to count rows go, and those of folder names come.
fn filled(batch: &RecordBatch, folder: &[ScalarValue], slots: &[Slot], schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |slot: &Slot| -> Result<ArrayRef> {
        let value = match *slot {
            Slot::Read(at) => return batch.columns().get(at).cloned().ok_or_else(|| missing(at)),
            Slot::Folder(at) => folder.get(at).ok_or_else(|| missing(at))?,
        };
        value.to_array_of_size(batch.num_rows())
    };
    let columns = slots.iter().map(column).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(DataFusionError::from)
}

fn missing(at: usize) -> DataFusionError {
    DataFusionError::Internal(format!("a batch has no column {at}, which was asked for"))
}

/// The batch under the table's own schema: names and types are the same, metadata and nullability may not be, and a column that
/// was only asked for to count rows goes.
pub(crate) fn shaped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let slots: Vec<Slot> = (0..schema.fields().len()).map(Slot::Read).collect();
    filled(batch, &[], &slots, schema)
}
