//! DoPut: a sink of batches.
//!
//! Two parties share a call: the [`Put`] in the caller's hand, which encodes batches and waits for room, and one task that carries
//! frames out and acks in. The task ends with the call; [`Put::finish`] waits for it, and so does the call itself: a `Put` that is
//! dropped breaks its stream off, so that the server makes nothing of it visible.

use crate::{
    Client, Error, ErrorKind, Result, WriteOptions,
    call::{Received, next_frame},
    wire::Encoder,
};
use arrow_array::RecordBatch;
use arrow_flight::PutResult;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use forebay_protocol::{
    command::{Compression, WriteCommand},
    frame,
    info::{PutNote, TRAILER_ETAG, TRAILER_LEVEL, TRAILER_SESSION, TRAILER_VERSION},
    level::AckLevel,
    path::WirePath,
};
use futures::{StreamExt, stream};
use http::HeaderMap;
use http_body::Frame;
use prost::Message;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tonic::Status;

/// Batches that wait to be carried out; beyond them [`Put::send`] waits.
const BATCHES_WAITING_MAX: usize = 2;
/// Acks that wait to be read.
const ACKS_WAITING_MAX: usize = 1024;
/// Largest PutResult taken.
const ACK_BYTES_MAX: usize = 16 << 20;

/// An open write. See [`Client::put`].
#[derive(Debug)]
pub struct Put {
    token: Option<String>,
    compression: Compression,
    start: Start,
    out: mpsc::Sender<Outgoing>,
    progress: watch::Receiver<Progress>,
    acks: Option<Acks>,
    /// Carries the call; `None` once it was waited for.
    task: Option<JoinHandle<Result<PutDone>>>,
    /// The server ended the call well before all was sent: it knows the token, and the unit is there already.
    done: Option<PutDone>,
}

/// The schema is only known with the first batch.
#[derive(Debug)]
enum Start {
    Waiting(Box<WriteCommand>),
    Running(Box<Encoder>),
    Ended,
}

#[derive(Debug)]
enum Outgoing {
    Batch(Vec<Bytes>),
    /// All was sent: the stream ends well. Without it the stream breaks off.
    Finish,
}

/// How far a put has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Batches answered.
    pub acked: u64,
    /// Batches that are stable at the put's level, as far as acks tell (batches with app_metadata of their own bring none).
    pub stable: u64,
}

/// The answer to one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The batch, from 0.
    pub batch: u64,
    /// Its own app_metadata, or JSON of [`PutNote`].
    pub app_metadata: Bytes,
}

/// Acks in order. See [`Put::acks`].
#[derive(Debug)]
pub struct Acks(mpsc::Receiver<Ack>);

/// How a put ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutDone {
    /// Batches answered.
    pub batches: u64,
    /// The version it made, where it was a session of its own.
    pub version: Option<u64>,
    /// The session it wrote into.
    pub session: Option<String>,
    /// The level it was committed at.
    pub level: Option<AckLevel>,
    /// The etag of the file that it made, whoever has written there since.
    pub etag: Option<String>,
}

impl Client {
    /// Opens a write to the dataset at `path`. Nothing is visible before [`Put::finish`] (or, in a session, before its publish).
    pub async fn put(&self, path: &str, options: WriteOptions) -> Result<Put> {
        let command = options.command(WirePath::parse(path)?);
        Ok(self.put_command(command, options.wire_compression, options.acks))
    }

    /// Writes batches as one unit, and again with the same token where the connection was lost and the server is back within
    /// [`crate::Options::retry_for`]: exactly once.
    pub async fn put_all(&self, path: &str, batches: &[RecordBatch], options: WriteOptions) -> Result<PutDone> {
        let command = options.command(WirePath::parse(path)?);
        let [first, ..] = batches else {
            return Err(Error::new(ErrorKind::Invalid, "there is no batch to put"));
        };
        self.repeat(async || {
            let mut put = self.put_command(command.clone(), options.wire_compression, false);
            put.begin(first.schema())?;
            for batch in batches {
                put.send(batch).await?;
            }
            put.finish()
                .await
                .map_err(|e| if e.kind() == ErrorKind::Unknown { again(&e) } else { e })
        })
        .await
    }

    pub(crate) fn put_command(&self, command: WriteCommand, compression: Compression, with_acks: bool) -> Put {
        let (out, outgoing) = mpsc::channel(BATCHES_WAITING_MAX);
        let (told, progress) = watch::channel(Progress::default());
        let (ack, acks) = mpsc::channel(ACKS_WAITING_MAX);
        let task = tokio::spawn(carry(self.clone(), outgoing, told, with_acks.then_some(ack)));
        Put {
            token: command.token.clone(),
            compression,
            start: Start::Waiting(Box::new(command)),
            out,
            progress,
            acks: with_acks.then_some(Acks(acks)),
            task: Some(task),
            done: None,
        }
    }
}

/// An unknown outcome, for a unit that is repeated with its token.
fn again(error: &Error) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string())
}

impl Put {
    /// The unit's idempotency token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Sends a batch; waits for room, not for the ack. An error is the call's own: it has ended.
    pub async fn send(&mut self, batch: &RecordBatch) -> Result<()> {
        self.send_with_metadata(batch, &[]).await
    }

    /// Sends a batch with bytes of the application's own, which readers get as they are and the ack brings back.
    pub async fn send_with_metadata(&mut self, batch: &RecordBatch, app_metadata: &[u8]) -> Result<()> {
        self.begin(batch.schema())?;
        let Start::Running(encoder) = &mut self.start else {
            return self.ended().await;
        };
        let frames = encoder.batch(batch, app_metadata)?;
        self.hand_over(Outgoing::Batch(frames)).await
    }

    /// Says the schema before there is a batch, for a put that may have none.
    pub fn begin(&mut self, schema: SchemaRef) -> Result<()> {
        if let Start::Waiting(command) = &self.start {
            let encoder = Encoder::new(schema, command.to_descriptor(), self.compression)?;
            self.start = Start::Running(Box::new(encoder));
            tracing::trace!(token = self.token(), "put begins");
        }
        Ok(())
    }

    /// The schema, once it is known.
    pub fn schema(&self) -> Option<&SchemaRef> {
        match &self.start {
            Start::Running(encoder) => Some(encoder.schema()),
            _ => None,
        }
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Watches how far it has come.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The acks, when [`WriteOptions::acks`] was set; they must be read, else the put stalls. `None` the second time.
    pub fn acks(&mut self) -> Option<Acks> {
        self.acks.take()
    }

    /// Ends the write: all batches are committed at the level, and visible.
    ///
    /// [`ErrorKind::Unknown`]: the connection was lost after the last batch was sent; the error names the token.
    pub async fn finish(mut self) -> Result<PutDone> {
        self.send_schema_of_an_empty_put().await?;
        self.acks = None;
        self.hand_over(Outgoing::Finish).await?;
        if let Some(done) = self.done.take() {
            return Ok(done);
        }
        let task = self.task.take().ok_or_else(over)?;
        let unknown = |e: Error| match e.kind() {
            ErrorKind::Unavailable => Error::new(ErrorKind::Unknown, format!("the outcome is unknown: {e}")),
            _ => e,
        };
        joined(task.await).map_err(|e| unknown(e).with_token(self.token.clone()))
    }

    /// Gives up: nothing of it is ever visible. The same as dropping it, but waits until the server was told.
    pub async fn abort(mut self) {
        let task = self.task.take();
        drop(self);
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    async fn send_schema_of_an_empty_put(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.start, Start::Ended) {
            Start::Waiting(_) => Err(Error::new(
                ErrorKind::Invalid,
                "a put without a batch needs a schema; call begin",
            )),
            Start::Running(encoder) if encoder.is_fresh() => {
                let frames = encoder.schema_only()?;
                self.hand_over(Outgoing::Batch(frames)).await
            }
            other => {
                self.start = other;
                Ok(())
            }
        }
    }

    async fn hand_over(&mut self, outgoing: Outgoing) -> Result<()> {
        match self.out.send(outgoing).await {
            Ok(()) => Ok(()),
            Err(_) => self.ended().await,
        }
    }

    /// The call ended before its time: well, or why not.
    async fn ended(&mut self) -> Result<()> {
        self.start = Start::Ended;
        match self.task.take() {
            Some(task) => self.done = Some(joined(task.await).map_err(|e| e.with_token(self.token.clone()))?),
            None if self.done.is_none() => return Err(over()),
            None => {}
        }
        Ok(())
    }
}

fn over() -> Error {
    Error::new(ErrorKind::Precondition, "this put has ended")
}

impl Acks {
    /// The next ack; `None` when the call has ended.
    pub async fn next(&mut self) -> Option<Ack> {
        self.0.recv().await
    }
}

impl Ack {
    /// What it says, where the batch had no app_metadata of its own.
    pub fn note(&self) -> Option<PutNote> {
        serde_json::from_slice(&self.app_metadata).ok()
    }
}

fn joined(result: Result<Result<PutDone>, tokio::task::JoinError>) -> Result<PutDone> {
    result.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, format!("the put's task died: {e}"))))
}

/// Carries one DoPut: frames out as they come, acks in.
async fn carry(
    client: Client,
    outgoing: mpsc::Receiver<Outgoing>,
    told: watch::Sender<Progress>,
    acks: Option<mpsc::Sender<Ack>>,
) -> Result<PutDone> {
    let response = client.call_raw("DoPut", frames(outgoing)).await?;
    let headers = response.headers().clone();
    let mut body = response.into_body();
    let mut results = frame::Messages::new(ACK_BYTES_MAX);
    let mut progress = Progress::default();
    loop {
        match next_frame(&mut body).await? {
            Received::Data(data) => results.push(data),
            Received::End(trailers) => {
                Error::check_trailers(&trailers)?;
                return Ok(done(progress.acked, &[&headers, &trailers]));
            }
        }
        while let Some(message) = results.next_message()? {
            let PutResult { app_metadata } = PutResult::decode(message)
                .map_err(|e| Error::new(ErrorKind::Internal, format!("a PutResult is none: {e}")))?;
            let ack = Ack {
                batch: progress.acked,
                app_metadata,
            };
            progress.acked += 1;
            progress.stable = ack.note().map_or(progress.stable, |n| n.stable.max(progress.stable));
            told.send_replace(progress);
            if let Some(acks) = &acks {
                // Whoever dropped the receiver does not want them.
                let _ = acks.send(ack).await;
            }
        }
    }
}

/// The request's body: ends well only after [`Outgoing::Finish`].
fn frames(outgoing: mpsc::Receiver<Outgoing>) -> impl futures::Stream<Item = Result<Frame<Bytes>, Status>> {
    stream::unfold(Some(outgoing), async |outgoing| {
        let mut outgoing = outgoing?;
        match outgoing.recv().await {
            Some(Outgoing::Batch(frames)) => {
                Some((frames.into_iter().map(|f| Ok(Frame::data(f))).collect(), Some(outgoing)))
            }
            Some(Outgoing::Finish) => None,
            None => Some((vec![Err(Status::cancelled("the writer gave up"))], None)),
        }
    })
    .flat_map(stream::iter)
}

fn done(batches: u64, maps: &[&HeaderMap]) -> PutDone {
    let note = |name: &str| maps.iter().rev().find_map(|m| m.get(name)?.to_str().ok());
    PutDone {
        batches,
        version: note(TRAILER_VERSION).and_then(|v| v.parse().ok()),
        session: note(TRAILER_SESSION).map(str::to_owned),
        level: note(TRAILER_LEVEL).and_then(|v| v.parse().ok()),
        etag: note(TRAILER_ETAG).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_ends_well_only_after_finish() {
        let (out, outgoing) = mpsc::channel(4);
        out.send(Outgoing::Batch(vec![
            Bytes::from_static(b"a"),
            Bytes::from_static(b"b"),
        ]))
        .await
        .unwrap();
        out.send(Outgoing::Finish).await.unwrap();
        let sent: Vec<_> = frames(outgoing).collect().await;
        assert!(sent.len() == 2 && sent.iter().all(Result::is_ok));

        let (out, outgoing) = mpsc::channel(4);
        out.send(Outgoing::Batch(vec![Bytes::from_static(b"a")])).await.unwrap();
        drop(out);
        let sent: Vec<_> = frames(outgoing).collect().await;
        assert!(
            sent.len() == 2 && sent[1].is_err(),
            "a dropped put must not look finished"
        );
    }

    #[test]
    fn the_end_is_read_from_headers_and_trailers() {
        let (mut headers, mut trailers) = (HeaderMap::new(), HeaderMap::new());
        headers.insert(TRAILER_SESSION, "abc".parse().unwrap());
        trailers.insert(TRAILER_VERSION, "7".parse().unwrap());
        trailers.insert(TRAILER_LEVEL, "local".parse().unwrap());
        trailers.insert(TRAILER_ETAG, "5.1".parse().unwrap());
        let expected = PutDone {
            batches: 3,
            version: Some(7),
            session: Some("abc".into()),
            level: Some(AckLevel::Local),
            etag: Some("5.1".into()),
        };
        assert_eq!(done(3, &[&headers, &trailers]), expected);
    }
}
