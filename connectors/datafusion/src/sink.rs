//! What a query writes through. One query is one session with one stream: published once, when the query has ended well. A query that
//! fails or is cancelled drops its stream and its session, which the server aborts: nothing of it is ever visible.

use crate::external;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    common::{DataFusionError, Result},
    datasource::sink::DataSink,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{DisplayAs, DisplayFormatType},
};
use forebay_client::{Client, Progress, Session, SessionOptions, WriteOptions};
use futures::StreamExt;
use std::{fmt, sync::Arc};
use tokio::sync::watch;

/// Where to and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) path: String,
    pub(crate) options: SessionOptions,
    /// Told of every stream that opens.
    pub(crate) observer: Option<Observer>,
}

impl Target {
    /// Begins a session at `path`, of this target's options. A query that is cancelled meanwhile leaves no session either: the task, for
    /// which nobody waits then, still learns which one it is, and drops it.
    pub(crate) async fn begin(&self, client: &Client, path: &str) -> Result<Session> {
        let (client, path, options) = (client.clone(), path.to_owned(), self.options.clone());
        let begun = tokio::spawn(async move { client.session(&path, options).await });
        let begun = begun.await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
        begun.map_err(external)
    }
}

/// Is given the acks of a write when it begins. See [`crate::ForebayTable::observed`].
#[derive(Clone)]
pub(crate) struct Observer(pub(crate) Arc<dyn Fn(watch::Receiver<Progress>) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// Writes a stream of batches as the next version of a dataset.
#[derive(Debug)]
pub struct ForebaySink {
    target: Target,
    schema: SchemaRef,
}

impl ForebaySink {
    /// Writes to the dataset at `path`, whose schema is or will be `schema`.
    pub fn to(client: Client, path: &str, schema: SchemaRef, options: SessionOptions) -> Self {
        Self::new(
            Target {
                client,
                path: path.to_owned(),
                options,
                observer: None,
            },
            schema,
        )
    }

    pub(crate) fn new(target: Target, schema: SchemaRef) -> Self {
        Self { target, schema }
    }
}

impl DisplayAs for ForebaySink {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForebaySink(path={})", self.target.path)
    }
}

#[async_trait]
impl DataSink for ForebaySink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(&self, mut data: SendableRecordBatchStream, _context: &Arc<TaskContext>) -> Result<u64> {
        let Target {
            client, path, observer, ..
        } = &self.target;
        let session = self.target.begin(client, path).await?;
        let mut put = session.put(WriteOptions::default()).await.map_err(external)?;
        put.begin(Arc::clone(&self.schema)).map_err(external)?;
        if let Some(Observer(tell)) = observer {
            tell(put.watch());
        }
        let mut rows = 0;
        while let Some(batch) = data.next().await.transpose()? {
            // A part of no rows would still be a part, and a batch of none a wake-up of every follower.
            if batch.num_rows() == 0 {
                continue;
            }
            rows += batch.num_rows() as u64;
            let batch = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?;
            put.send(&batch).await.map_err(external)?;
        }
        put.finish().await.map_err(external)?;
        let version = session.publish(false).await.map_err(external)?;
        tracing::debug!(path, version, rows, "published");
        Ok(rows)
    }
}
