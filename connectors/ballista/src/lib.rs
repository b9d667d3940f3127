//! Forebay for Ballista, the distributed engine of DataFusion: a query that is spread over executors reads `forebay://` and writes it as
//! one version.
//!
//! - [`ForebayCodec`] carries tables from a client to the scheduler, and scans and writes from the scheduler to executors. All three
//!   need it; tickets of a read travel in plans, credentials do not: each process has a [`Client`] of its own
//! - [`session`] makes a [`SessionContext`] whose queries run on a scheduler's executors
//! - [`scheduler`] and [`executor`] are the settings of those processes with the codec in place; `forebay-ballista` runs them
//!
//! # What a distributed INSERT is
//! Two stages. In the first each task puts the rows of its partition into one session, by a DoPut that names the job, the stage, the
//! task and its run ([`StageExec`]); it ends by telling which runs those were. In the second, when all of the first has succeeded, one
//! task publishes the session, naming the runs whose word reached it ([`PublishExec`]). So of several runs of a partition (an executor
//! was lost, or only thought to be) that one counts whose output Ballista itself took, and what the others put is dropped; before the
//! publish nothing is visible, and a publish that is asked for twice gives the same version.
//!
//! # What it is not
//! Tables without an end, writes of partitioned tables and `COPY … TO … STORED AS FOREBAY` are not distributed: they are refused, and
//! DataFusion alone does them.

mod codec;
mod publish;
mod scan;
mod stage;
mod table;
mod wire;

pub use codec::ForebayCodec;
pub use publish::PublishExec;
pub use stage::StageExec;

use ballista::prelude::{SessionConfigExt, SessionContextExt};
use ballista_executor::executor_process::ExecutorProcessConfig;
use ballista_scheduler::config::SchedulerConfig;
use datafusion::{
    error::{DataFusionError, Result},
    execution::SessionStateBuilder,
    prelude::{SessionConfig, SessionContext},
};
use forebay_client::{Client, Error};
use std::sync::Arc;

/// A session whose queries run on the executors of the scheduler at `scheduler` (`df://host:port`), with the client's server known to
/// it: `CREATE EXTERNAL TABLE … STORED AS FOREBAY`.
pub async fn session(scheduler: &str, client: &Client) -> Result<SessionContext> {
    let codec = Arc::new(ForebayCodec::new(client.clone()));
    let config = SessionConfig::new_with_ballista().with_ballista_logical_extension_codec(codec);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .build();
    let ctx = SessionContext::remote_with_state(scheduler, state).await?;
    forebay_datafusion::register(&ctx, client)?;
    Ok(ctx)
}

/// The settings of a scheduler that plans reads and writes of the client's server.
pub fn scheduler(client: &Client) -> SchedulerConfig {
    let codec = Arc::new(ForebayCodec::new(client.clone()));
    SchedulerConfig {
        override_logical_codec: Some(Arc::clone(&codec) as _),
        override_physical_codec: Some(codec),
        ..SchedulerConfig::default()
    }
}

/// The settings of an executor that reads and writes the client's server.
pub fn executor(client: &Client) -> ExecutorProcessConfig {
    let codec = Arc::new(ForebayCodec::new(client.clone()));
    ExecutorProcessConfig {
        override_logical_codec: Some(Arc::clone(&codec) as _),
        override_physical_codec: Some(codec),
        ..ExecutorProcessConfig::default()
    }
}

/// What the server refused ends a query; where it was not reached, Ballista runs the task again, as after any I/O error.
fn external(error: Error) -> DataFusionError {
    match error.is_transient() {
        true => DataFusionError::IoError(std::io::Error::other(error)),
        false => DataFusionError::External(Box::new(error)),
    }
}
