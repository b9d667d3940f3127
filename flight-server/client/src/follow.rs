//! Following a dataset while it is written, over lost connections and restarts of the server: every batch once, in order.

use crate::{Client, Error, ErrorKind, ReadOptions, Result, Scan};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use forebay_protocol::{
    command::ReadCommand,
    path::WirePath,
    resume::{Counted, ResumeToken},
};
use futures::{Stream, StreamExt, stream};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Batches of a dataset as they are acknowledged, to the publish of the live session. See [`Client::follow`].
///
/// # Where it stands
/// A stream of the server's goes from what is published into a live session and does not say where. So a place in a session is always
/// read on as that session alone: the rest of it, to its end, whatever was published or begun since. At its end the place is told as one
/// of the version that it became, from which the count goes on into whatever is live then.
#[derive(Debug)]
pub struct Follow {
    client: Client,
    command: ReadCommand,
    scan: Scan,
    /// What to follow when the session that a token named is at its end.
    then: Option<ReadCommand>,
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
        let asked = options.command(WirePath::parse(path)?, true);
        let command = of_its_session(&asked, asked.from.clone());
        let info = self.info_of(&command).await?;
        // A session that is still written is followed to its publish; one that is published was not the end.
        let then = (command.session != asked.session && info.note.state == PUBLISHED).then_some(asked);
        let scan = self.scan_info(&info, &command);
        Ok(Follow {
            client: self.clone(),
            command,
            scan,
            then,
            broken: None,
            ended: false,
        })
    }
}

/// The state of a session that is followed no more.
const PUBLISHED: &str = "published";

/// The command from `token` on: within a session of that one alone. Reads that are not counted are as the server takes them.
fn of_its_session(command: &ReadCommand, token: Option<ResumeToken>) -> ReadCommand {
    let session = match token.as_ref().map(|token| &token.of) {
        Some(Counted::Session(session)) if command.filter.is_none() && command.limit.is_none() => Some(session.clone()),
        _ => command.session.clone(),
    };
    ReadCommand {
        from: token,
        session,
        ..command.clone()
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
                None => match self.then.take() {
                    Some(then) => self.go_on(then).await.inspect_err(|_| self.ended = true)?,
                    None => {
                        self.ended = true;
                        // Without an answer the session's own token stays, which is good as well.
                        if let Ok(Some(token)) = self.token_of_version().await {
                            self.scan.count_from(Some(token));
                        }
                        return Ok(None);
                    }
                },
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
        let command = of_its_session(&self.command, self.token());
        // A server that has just come back may cut streams again: a pause keeps this from being a storm.
        sleep(Duration::from_millis(50)).await;
        let info = self.client.info_of(&command).await?;
        self.scan = self.client.scan_info(&info, &command);
        Ok(())
    }

    /// Follows what was published or begun behind a session that has ended.
    async fn go_on(&mut self, then: ReadCommand) -> Result<()> {
        let place = self.token_of_version().await?;
        let counted = place.is_some();
        self.command = ReadCommand {
            from: place.or_else(|| self.token()).or_else(|| then.from.clone()),
            ..then
        };
        let info = self.client.info_of(&self.command).await?;
        self.scan = self.client.scan_info(&info, &self.command);
        if !counted {
            self.scan.count_from(None);
        }
        Ok(())
    }

    /// The place behind a session that has ended, as one of the version that it became. `None` where that version is kept no more, or
    /// batches are not counted.
    async fn token_of_version(&mut self) -> Result<Option<ResumeToken>> {
        let Some(token) = self.token() else { return Ok(None) };
        let Counted::Session(ended) = &token.of else {
            return Ok(Some(token));
        };
        let versions = self.client.versions(&self.command.path.to_string()).await?;
        let Some(became) = versions.iter().find(|version| version.session.as_ref() == Some(ended)) else {
            return Ok(None);
        };
        let version = ReadCommand {
            version: Some(became.version),
            ..ReadCommand::new(self.command.path.clone())
        };
        match self.client.info_of(&version).await {
            Ok(info) => Ok(Some(ResumeToken::version(became.version, info.note.batches))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
