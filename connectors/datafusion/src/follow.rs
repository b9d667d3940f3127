//! A dataset without an end: what is published, then what is written, session after session.
//!
//! A follower of the server ends with the publish of the session that it follows. This one goes on from its resume token, so each
//! batch comes once however many sessions there are. It ends with an error where the dataset is overwritten, since what it gave is no
//! longer a part of it, and where a session is aborted.

use crate::{exec::shaped, external};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::{
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use forebay_client::{Client, Error, ErrorKind, Follow, ReadOptions, Result, ResumeToken};
use futures::{TryStreamExt, stream};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// Pause between two looks for another session.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The one partition of an unbounded table.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) client: Client,
    pub(crate) path: String,
    /// Columns, and no filter: batches would be missing from the count.
    pub(crate) read: ReadOptions,
    pub(crate) schema: SchemaRef,
}

impl PartitionStream for Following {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let place = Place {
            client: self.client.clone(),
            path: self.path.clone(),
            read: self.read.clone(),
            token: self.read.from.clone(),
            now: None,
        };
        let shape = Arc::clone(&self.schema);
        let batches = stream::try_unfold(place, async |mut place| {
            let batch = place.next().await?;
            Ok(Some((batch, place)))
        });
        let batches = batches
            .map_err(external)
            .and_then(move |batch| std::future::ready(shaped(&batch, &shape)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// Where a reader is.
struct Place {
    client: Client,
    path: String,
    read: ReadOptions,
    token: Option<ResumeToken>,
    now: Option<Follow>,
}

impl Place {
    /// The next batch, however long it takes.
    async fn next(&mut self) -> Result<RecordBatch> {
        loop {
            let Some(mut follow) = self.follow().await? else {
                sleep(LOOK_AGAIN).await;
                continue;
            };
            let batch = follow.next_batch().await?;
            self.token = follow.token().or(self.token.take());
            match batch {
                Some(_) if self.token.is_none() => {
                    let text = format!(
                        "{}: can not be followed over the end of a session, for its batches are not counted",
                        self.path
                    );
                    return Err(Error::new(ErrorKind::Unsupported, text));
                }
                Some(batch) => {
                    self.now = Some(follow);
                    return Ok(batch);
                }
                None => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// The follower under way, or another one from where the last one ended; `None`: there is no dataset yet.
    async fn follow(&mut self) -> Result<Option<Follow>> {
        if let Some(follow) = self.now.take() {
            return Ok(Some(follow));
        }
        let read = ReadOptions {
            from: self.token.clone(),
            ..self.read.clone()
        };
        match self.client.follow(&self.path, read).await {
            Ok(follow) => Ok(Some(follow)),
            Err(error) if error.kind() == ErrorKind::NotFound && self.token.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
