//! The first stage of a distributed INSERT: each partition is put into one session, and says which run of which task put it.
//!
//! # Fencing
//! Ballista runs a partition again when an executor is lost, under another task's number and possibly together with others, and may be
//! wrong about the loss. So to the server each run of a partition is a task of its own, and which runs count is named at the publish: those
//! whose rows here reached it. A run that Ballista gave up may end well at the server, and is dropped with the publish; after that the
//! session takes nothing.

use crate::{external, wire, wire::TargetForm};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array},
        datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type},
    },
    common::{Result, internal_datafusion_err, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions},
        stream::RecordBatchStreamAdapter,
    },
};
use forebay_client::{Client, Put, Session, Task, WriteOptions};
use futures::{StreamExt, stream};
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// What a run says of itself: one row a partition. Without rows to put it has put nothing, and says only that.
static SAID: LazyLock<SchemaRef> = LazyLock::new(|| {
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    let job = Field::new("job", DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        job,
        number("stage"),
        number("task"),
        number("attempt"),
        number("rows"),
    ]))
});

/// Puts each partition of its input into a session.
#[derive(Debug)]
pub struct StageExec {
    client: Client,
    form: TargetForm,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl StageExec {
    pub(crate) fn new(client: Client, form: TargetForm, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&SAID)),
            Partitioning::UnknownPartitioning(input.properties().output_partitioning().partition_count()),
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

/// A run of a task on one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) task: Task,
    pub(crate) rows: u64,
}

impl Run {
    /// The run that a task's context names: `TID job/stage.stage attempt/task.attempt`. Of its partitions each has a number of its own.
    pub(crate) fn of(context: &TaskContext, partition: usize) -> Result<Self> {
        let named = context.task_id().unwrap_or_default();
        let run = Self::parse(&named, partition);
        run.ok_or_else(|| internal_datafusion_err!("a task of Ballista 55 was expected, and not {named:?}"))
    }

    fn parse(named: &str, partition: usize) -> Option<Self> {
        let (rest, task) = named.strip_prefix("TID ")?.rsplit_once('/')?;
        let (job, stage) = rest.rsplit_once('/')?;
        let (stage, stage_attempt) = stage.split_once('.')?;
        let (task, attempt) = task.split_once('.')?;
        let (stage_attempt, task): (u64, u64) = (stage_attempt.parse().ok()?, task.parse().ok()?);
        // 16, 24 and 12 bits: below 2^53, which is as far as every reader of JSON counts.
        let partition = u64::try_from(partition).ok().filter(|partition| *partition < 1 << 12)?;
        let fits = stage_attempt < 1 << 16 && task < 1 << 24;
        fits.then(|| {
            Some(Self {
                task: Task {
                    job: format!("ballista-{job}"),
                    stage: stage.parse().ok()?,
                    task: stage_attempt << 36 | task << 12 | partition,
                    attempt: attempt.parse().ok()?,
                },
                rows: 0,
            })
        })?
    }

    fn say(&self) -> Result<RecordBatch> {
        let Self { task, rows } = self;
        let number = |n: u64| Arc::new(UInt64Array::from(vec![n])) as ArrayRef;
        let job = Arc::new(StringArray::from(vec![task.job.as_str()]));
        let columns = vec![
            job,
            number(task.stage),
            number(task.task),
            number(task.attempt),
            number(*rows),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&SAID), columns)?)
    }

    /// The runs that a batch tells of.
    pub(crate) fn said(batch: &RecordBatch) -> Vec<Self> {
        let job = batch.column(0).as_string::<i32>();
        let number = |column: usize, row: usize| batch.column(column).as_primitive::<UInt64Type>().value(row);
        let run = |row: usize| Self {
            task: Task {
                job: job.value(row).to_owned(),
                stage: number(1, row),
                task: number(2, row),
                attempt: number(3, row),
            },
            rows: number(4, row),
        };
        (0..batch.num_rows()).map(run).collect()
    }
}

/// The session that all runs of a query share, begun by whoever comes first.
pub(crate) async fn shared_session(client: &Client, form: &TargetForm) -> Result<Session> {
    client
        .session(&form.path, form.write.options()?)
        .await
        .map_err(external)
}

/// A put of `task` into the session.
pub(crate) async fn put(session: &Session, task: &Task, schema: &SchemaRef) -> Result<Put> {
    let options = WriteOptions {
        task: Some(task.clone()),
        ..WriteOptions::default()
    };
    let mut put = session.put(options).await.map_err(external)?;
    put.begin(Arc::clone(schema)).map_err(external)?;
    Ok(put)
}

/// Puts a run's rows. A run that fails drops its stream, and nothing of it counts.
async fn stage(
    client: Client,
    form: TargetForm,
    mut run: Run,
    mut rows: SendableRecordBatchStream,
) -> Result<RecordBatch> {
    let schema = wire::schema(&form.schema)?;
    let mut under_way: Option<Put> = None;
    while let Some(batch) = rows.next().await.transpose()? {
        // A part of no rows would still be a part.
        if batch.num_rows() == 0 {
            continue;
        }
        let put = match &mut under_way {
            Some(put) => put,
            none => {
                let session = shared_session(&client, &form).await?;
                let put = put(&session, &run.task, &schema).await?;
                tracing::debug!(path = form.path, session = session.leave(), task = ?run.task, "stages");
                none.insert(put)
            }
        };
        run.rows += batch.num_rows() as u64;
        let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?;
        put.send(&batch).await.map_err(external)?;
    }
    if let Some(put) = under_way {
        put.finish().await.map_err(external)?;
    }
    run.say()
}

impl DisplayAs for StageExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForebayStage: path={}", self.form.path)
    }
}

impl ExecutionPlan for StageExec {
    fn name(&self) -> &'static str {
        "ForebayStage"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// More tasks would be smaller parts, not more work done at once: the input has as many partitions as its own work is worth.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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
            Err(children) => internal_err!("a stage has one child, and was given {}", children.len()),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let run = Run::of(&context, partition)?;
        let rows = self.input.execute(partition, context)?;
        let said = stream::once(stage(self.client.clone(), self.form.clone(), run, rows));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&SAID), said)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_its_task() {
        let run = Run::parse("TID aB3/2.1/7.3", 5).unwrap();
        let expected = Task {
            job: "ballista-aB3".to_owned(),
            stage: 2,
            task: 1 << 36 | 7 << 12 | 5,
            attempt: 3,
        };
        assert_eq!(run.task, expected);
        let said = Run { rows: 9, ..run };
        assert_eq!(Run::said(&said.say().unwrap()), [said]);
        for other in ["", "TID a", "task 1", "TID a/b.c/d.e", "TID a/1.0/2"] {
            assert_eq!(Run::parse(other, 0), None, "{other}");
        }
        let many =
            ["TID a/1.0/2.0", "TID a/1.0/3.0", "TID a/1.1/2.0"].map(|named| Run::parse(named, 0).unwrap().task.task);
        assert!(
            many[0] != many[1] && many[0] != many[2] && many[1] != many[2],
            "{many:?}"
        );
    }
}
