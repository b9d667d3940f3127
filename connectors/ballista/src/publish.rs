//! The second stage of a distributed INSERT: one task publishes what the runs of the first have put, once, by naming those runs.

use crate::{
    external,
    stage::{self, Run, shared_session},
    wire::{self, TargetForm},
};
use datafusion::{
    arrow::{
        array::{RecordBatch, UInt64Array},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    common::{Result, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, Partitioning, PlanProperties,
        execution_plan::{ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions},
        stream::RecordBatchStreamAdapter,
    },
};
use forebay_client::{Client, Task};
use futures::{TryStreamExt, stream};
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// What an INSERT answers.
static COUNT: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)])));

/// Publishes a session, and says how many rows that were.
#[derive(Debug)]
pub struct PublishExec {
    client: Client,
    form: TargetForm,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl PublishExec {
    pub(crate) fn new(client: Client, form: TargetForm, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&COUNT)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            input.properties().boundedness,
        );
        Self {
            client,
            form,
            input,
            properties: Arc::new(properties),
        }
    }

    pub(crate) fn form(&self) -> &TargetForm {
        &self.form
    }
}

/// Publishes the runs that `said` tells of. Another run of this, after the first was lost with its answer, gets the same version.
async fn publish(client: Client, form: TargetForm, own: Run, said: SendableRecordBatchStream) -> Result<RecordBatch> {
    let said: Vec<RecordBatch> = said.try_collect().await?;
    let runs: Vec<Run> = said.iter().flat_map(Run::said).collect();
    let rows: u64 = runs.iter().map(|run| run.rows).sum();
    let mut tasks: Vec<Task> = runs
        .into_iter()
        .filter(|run| run.rows > 0)
        .map(|run| run.task)
        .collect();
    let session = shared_session(&client, &form).await?;
    if tasks.is_empty() {
        // Nobody has said the schema, which a version without rows has too.
        let put = stage::put(&session, &own.task, &wire::schema(&form.schema)?).await?;
        put.finish().await.map_err(external)?;
        tasks.push(own.task);
    }
    let version = session.publish_tasks(Some(tasks), false).await.map_err(external)?;
    tracing::info!(path = form.path, version, rows, "published");
    Ok(RecordBatch::try_new(
        Arc::clone(&COUNT),
        vec![Arc::new(UInt64Array::from(vec![rows]))],
    )?)
}

impl DisplayAs for PublishExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForebayPublish: path={}", self.form.path)
    }
}

impl ExecutionPlan for PublishExec {
    fn name(&self) -> &'static str {
        "ForebayPublish"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
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
        match <[_; 1]>::try_from(children) {
            Ok([input]) => Ok(Arc::new(Self::new(self.client.clone(), self.form.clone(), input))),
            Err(children) => internal_err!("a publish has one child, and was given {}", children.len()),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let parts = self.input.properties().output_partitioning().partition_count();
        if partition != 0 || parts != 1 {
            return internal_err!("a publish is of one partition, and was given {partition} of {parts}");
        }
        // The numbers of its own partitions are taken by a stage that may run in the same task.
        let own = Run::of(&context, OWN_PUT)?;
        let said = self.input.execute(0, context)?;
        let published = stream::once(publish(self.client.clone(), self.form.clone(), own, said));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&COUNT), published)))
    }
}

/// The partition by which a publish's own put is called.
const OWN_PUT: usize = (1 << 12) - 1;
