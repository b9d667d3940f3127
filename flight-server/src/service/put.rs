//! DoPut: batches in, one answer per batch as it becomes stable, and OK when the whole is committed.
//!
//! Two halves run at once, or a client that reads its answers late would be held up. A task takes messages and hands them to
//! the engine; the answer's stream tells what became stable. They share [`acks::Acks`] and nothing else.
//!
//! # Cancellation
//! A client that disappears drops the stream, which cancels the task between two messages; its writer is dropped, and nothing of the
//! call is ever visible. Once the client has said all, the commit runs to its end whoever still listens.

mod acks;
mod file;
mod ids;
mod sink;

use super::{Answer, Call, Door, engine, incoming::Incoming, sessions};
use crate::{
    auth::{Principal, Right},
    error,
    reply::Said,
};
use acks::{Acks, Stable};
use forebay_protocol::{
    command::{Compression, PathKind, WriteCommand},
    frame::FlightMessage,
    info::{TRAILER_ETAG, TRAILER_LEVEL, TRAILER_SESSION, TRAILER_TOKEN, TRAILER_VERSION},
};
use forebay_writeback::{
    dataset::{IpcMessage, PutTarget, SessionId, SessionSpec},
    file::WriteFile,
};
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue};
use sink::{Done, Sink};
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::oneshot;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};

pub(super) async fn put(door: Arc<Door>, call: Call) -> Result<Answer, Status> {
    let Call {
        principal,
        mut messages,
    } = call;
    let first = messages
        .first()
        .await?
        .ok_or_else(|| error::wrong("the call has no message"))?;
    let command = command(&first, &principal)?;
    tracing::debug!(path = %command.path, session = command.session, "writes");
    let unknown = Unknown {
        token: command.token.clone(),
    };
    let (path, session) = (command.path.clone(), command.session.clone());
    let (sink, stable) = match (open(&door, &principal, command, message(first)).await, session) {
        (Err(refused), Some(session)) => {
            let refused = sessions::misplaced(&door, &principal, Right::Write, &path, &session, refused).await;
            return Err(unknown.name(refused));
        }
        (opened, _) => opened.map_err(|status| unknown.name(status))?,
    };

    let acks = Arc::new(Acks::new(sink.repeated()));
    let cancelled = CancellationToken::new();
    let (done, ended) = oneshot::channel();
    let (level, session) = (sink.level(), sink.session());
    let write = write(sink, messages, Arc::clone(&acks), cancelled.clone());
    door.tasks.spawn("put", async move {
        let result = AssertUnwindSafe(write)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(error::panicked()));
        // Nobody may listen any more.
        let _ = done.send(result.map_err(|status| unknown.name(status)));
    });

    let headers = session_header(session.as_deref());
    let answers = Answers {
        acks,
        stable,
        ended,
        level,
        result: None,
        headers: headers.clone(),
        over: false,
        _guard: cancelled.drop_guard(),
    };
    let said = stream::unfold(answers, |mut answers| async move {
        answers.next().await.map(|said| (said, answers))
    });
    let mut answer = Answer::many(said);
    answer.headers = headers;
    Ok(answer)
}

/// What the first message asks for, if the caller may.
fn command(first: &FlightMessage, principal: &Principal) -> Result<WriteCommand, Status> {
    let descriptor = first.descriptor.as_ref();
    let descriptor =
        descriptor.ok_or_else(|| error::wrong("the first message has no descriptor; it says where to write"))?;
    let command = WriteCommand::from_descriptor(descriptor).map_err(error::invalid)?;
    principal.may(Right::Write, &command.path)?;
    if first.data_header.is_empty() {
        return Err(error::wrong(
            "the first message has no schema; send it with the descriptor",
        ));
    }
    Ok(command)
}

fn message(message: FlightMessage) -> IpcMessage {
    let FlightMessage {
        data_header,
        app_metadata,
        body,
        ..
    } = message;
    IpcMessage {
        header: data_header,
        body,
        app_metadata,
    }
}

/// Opens the engine's writer.
async fn open(
    door: &Door,
    by: &Principal,
    command: WriteCommand,
    schema: IpcMessage,
) -> Result<(Sink, Stable), Status> {
    let WriteCommand {
        path,
        kind,
        mode,
        session,
        task,
        format,
        compression,
        ack,
        token,
        offset,
        if_etag,
        attributes,
    } = command;
    let path = engine::path(&path)?;
    if path.is_root() {
        return Err(error::wrong("/ is the root directory; write to a path under it"));
    }
    let ack = ack.map(engine::ack).transpose()?;
    let mode = engine::mode(mode);
    let owner = door.owner(by, &path).await?;
    if kind == PathKind::File {
        let column = file::column(&schema)?;
        let level = ack.unwrap_or_else(|| door.cache.ack_level_at(&path));
        let how = WriteFile {
            mode,
            offset,
            if_etag,
            ack: Some(level),
            token,
            user_xattrs: attributes.map(engine::xattrs),
            owner: owner.map(|owner| (owner, 0)),
            ..WriteFile::default()
        };
        let writer = door.cache.write_file(&path, how).await.map_err(error::engine)?;
        // One append per batch.
        let stable = Stable::new(WatchStream::new(writer.stable()).map(|stable| stable.appends));
        return Ok((Sink::file(writer, column, level), stable));
    }
    let (schema, ids) = ids::canonical(schema)?;
    let target = PutTarget {
        path,
        session: session.map(SessionId),
        task: task.map(engine::task),
        spec: SessionSpec {
            mode,
            format: engine::format(format),
            compression: compression.filter(|c| *c != Compression::None).map(engine::compression),
            ack,
            owner,
            ..SessionSpec::default()
        },
        token,
    };
    let writer = door.cache.put(target, schema).await.map_err(error::engine)?;
    let stable = Stable::new(WatchStream::new(writer.stable()).map(|stable| stable.batches));
    Ok((Sink::dataset(writer, ids), stable))
}

/// Takes messages until the client has said all, then commits.
async fn write(
    mut sink: Sink,
    mut messages: Incoming,
    acks: Arc<Acks>,
    cancelled: CancellationToken,
) -> Result<Done, Status> {
    let taken = cancelled
        .run_until_cancelled(take(&mut sink, &mut messages, &acks))
        .await;
    taken.unwrap_or_else(|| Err(error::status(Code::Cancelled, "the client went away")))?;
    sink.commit().await
}

async fn take(sink: &mut Sink, messages: &mut Incoming, acks: &Acks) -> Result<(), Status> {
    while let Some(next) = messages.next().await? {
        acks.room().await;
        if next.data_header.is_empty() {
            return Err(error::wrong(
                "a message has no Arrow header; app_metadata goes with a batch",
            ));
        }
        let app_metadata = next.app_metadata.clone();
        if sink.append(message(next)).await? {
            acks.batch(app_metadata);
        }
    }
    Ok(())
}

/// Names the idempotency token in an error after which the outcome is unknown.
struct Unknown {
    token: Option<String>,
}

impl Unknown {
    fn name(&self, mut status: Status) -> Status {
        let token = self.token.as_ref().filter(|_| status.code() == Code::DeadlineExceeded);
        if let Some(token) = token.and_then(|token| token.parse().ok()) {
            status.metadata_mut().insert(TRAILER_TOKEN, token);
        }
        status
    }
}

fn session_header(session: Option<&str>) -> HeaderMap {
    let value = session.and_then(|session| HeaderValue::from_str(session).ok());
    value
        .map(|value| HeaderMap::from_iter([(http::HeaderName::from_static(TRAILER_SESSION), value)]))
        .unwrap_or_default()
}

/// The answer's half.
struct Answers {
    acks: Arc<Acks>,
    stable: Stable,
    ended: oneshot::Receiver<Result<Done, Status>>,
    level: forebay_writeback::AckLevel,
    result: Option<Result<Done, Status>>,
    headers: HeaderMap,
    over: bool,
    _guard: DropGuard,
}

impl Answers {
    async fn next(&mut self) -> Option<Result<Said, Status>> {
        loop {
            let stable = match &self.result {
                Some(Ok(_)) => u64::MAX,
                _ => self.stable.count(),
            };
            if let Some(result) = self.acks.next(stable, self.level) {
                return Some(Said::message(&result));
            }
            match self.result.take() {
                _ if self.over => return None,
                Some(Ok(done)) => {
                    self.over = true;
                    return Some(Ok(Said::Trailers(self.trailers(&done))));
                }
                Some(Err(status)) => {
                    self.over = true;
                    return Some(Err(status));
                }
                None => self.wait().await,
            }
        }
    }

    /// Until something is stable, a batch came, or the write ended.
    async fn wait(&mut self) {
        let Self {
            acks, stable, ended, ..
        } = self;
        tokio::select! {
            biased;
            result = ended => {
                let gone = || Err(error::shutting_down());
                self.result = Some(result.unwrap_or_else(|_| gone()));
            }
            () = acks.more(stable) => {}
        }
    }

    fn trailers(&self, done: &Done) -> HeaderMap {
        let mut map = self.headers.clone();
        map.insert(TRAILER_LEVEL, header(&engine::level(done.level).to_string()));
        if let Some(version) = done.version {
            map.insert(TRAILER_VERSION, HeaderValue::from(version));
        }
        if let Some(etag) = &done.etag {
            map.insert(TRAILER_ETAG, header(etag));
        }
        map
    }
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("names of levels and of contents that were written here are plain text")
}
