//! Following a dataset while it is written, over lost connections and restarts of the server: every batch once, in order.

use crate::{Client, Error, ErrorKind, ReadOptions, Result, Scan};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use forebay_protocol::{command::ReadCommand, path::WirePath, resume::ResumeToken};
use futures::{Stream, StreamExt, stream};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Batches of a dataset as they are acknowledged, to the publish of the live session. See [`Client::follow`].
#[derive(Debug)]
pub struct Follow {
    client: Client,
    command: ReadCommand,
    scan: Scan,
    /// Since when no batch came but errors.
    broken: Option<Instant>,
    ended: bool,
}

impl Client {
    /// Follows the dataset at `path`: the head version's batches, then those of the live session as they are acknowledged. Ends at
    /// its publish; an abort is [`ErrorKind::Aborted`].
    ///
    /// A lost connection is mended for as long as [`crate::Options::retry_for`] says. Before a session has a schema this call waits;
    /// with [`ReadOptions::wait`] also for the dataset or session to come into being.
    pub async fn follow(&self, path: &str, options: ReadOptions) -> Result<Follow> {
        let command = options.command(WirePath::parse(path)?, true);
        let info = self.info_of(&command).await?;
        let scan = self.scan_info(&info, &command);
        Ok(Follow {
            client: self.clone(),
            command,
            scan,
            broken: None,
            ended: false,
        })
    }
}

impl Follow {
    /// The schema of its batches.
    pub fn schema(&self) -> &SchemaRef {
        self.scan.schema()
    }

    /// Where to go on after the batches given so far.
    pub fn token(&self) -> Option<ResumeToken> {
        self.scan.token()
    }

    /// The app_metadata of the batch given last.
    pub fn app_metadata(&self) -> &Bytes {
        self.scan.app_metadata()
    }

    /// The next batch; `None` when all was published and read.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            match self.scan.next().await {
                Some(Ok(batch)) => {
                    self.broken = None;
                    return Ok(Some(batch));
                }
                Some(Err(error)) if error.kind() == ErrorKind::Unavailable && self.token().is_some() => {
                    tracing::info!(%error, token = ?self.token(), "following again");
                    self.reconnect(error).await.inspect_err(|_| self.ended = true)?;
                }
                other => {
                    self.ended = true;
                    return other.transpose();
                }
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<RecordBatch>> + Send {
        stream::unfold(self, async |mut this| {
            this.next_batch().await.transpose().map(|batch| (batch, this))
        })
    }

    async fn reconnect(&mut self, error: Error) -> Result<()> {
        let broken = *self.broken.get_or_insert_with(Instant::now);
        if broken.elapsed() >= self.client.options().retry_for {
            return Err(error);
        }
        let command = ReadCommand {
            from: self.token(),
            ..self.command.clone()
        };
        // A server that has just come back may cut streams again: a pause keeps this from being a storm.
        sleep(Duration::from_millis(50)).await;
        let info = self.client.info_of(&command).await?;
        self.scan = self.client.scan_info(&info, &command);
        Ok(())
    }
}
