//! DoGet over the endpoints of an info: a stream of batches that knows where it stands.

use crate::{Client, Endpoint, Error, Info, ReadOptions, Result, call::Messages, wire::Decoder};
use arrow_array::RecordBatch;
use arrow_flight::Ticket;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use forebay_protocol::{
    command::ReadCommand,
    path::WirePath,
    resume::{Counted, ResumeToken},
};
use futures::Stream;
use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

/// Batches of a dataset, in its order.
///
/// After an error the stream ends; [`Scan::token`] still says where to go on.
pub struct Scan {
    schema: SchemaRef,
    position: Option<Position>,
    metadata: Bytes,
    state: State,
}

enum State {
    Idle(Box<Reading>),
    Busy(Pin<Box<dyn Future<Output = Step> + Send>>),
    Ended,
}

/// The reading comes back with what it found.
type Step = (Box<Reading>, Result<Option<Chunk>>);

/// What is read and how far.
struct Reading {
    client: Client,
    waiting: VecDeque<Endpoint>,
    open: Option<(Messages, Decoder)>,
    rows_left: Option<u64>,
}

/// A batch with what came beside it.
pub(crate) struct Chunk {
    batch: RecordBatch,
    metadata: Bytes,
}

/// Counts what was read, in terms of resume tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The version being read, and how many batches it has.
    version: Option<(u64, u64)>,
    /// The live session after it.
    session: Option<String>,
    /// What the count is of now.
    at: ResumeToken,
}

impl Position {
    /// At the beginning of what `info` describes, or at `from`. `None` where batches are not counted: filtered and limited reads.
    pub(crate) fn new(info: &Info, command: &ReadCommand) -> Option<Self> {
        if command.filter.is_some() || command.limit.is_some() {
            return None;
        }
        let version = info
            .note
            .version
            .filter(|_| command.session.is_none())
            .map(|v| (v, info.note.batches));
        let session = command
            .session
            .clone()
            .or_else(|| info.note.session.clone().filter(|_| command.follow));
        let at = match (&command.from, version, &session) {
            (Some(from), ..) => from.clone(),
            (None, Some((version, _)), _) => ResumeToken::version(version, 0),
            (None, None, Some(session)) => ResumeToken::session(session.clone(), 0),
            (None, None, None) => return None,
        };
        let mut position = Self { version, session, at };
        position.settle();
        Some(position)
    }

    fn count(&mut self) {
        self.at.batches += 1;
        self.settle();
    }

    /// Past the version's last batch the session's first is next. A version that the token names may have been appended to since, and
    /// then the count goes on in the newer one.
    fn settle(&mut self) {
        let counts = matches!(self.at.of, Counted::Version(_));
        let whole = self
            .version
            .is_some_and(|(_, batches)| counts && self.at.batches >= batches);
        if let (true, Some(session)) = (whole, &self.session) {
            self.at = ResumeToken::session(session.clone(), 0);
        }
    }
}

impl Client {
    /// Reads the dataset at `path`.
    pub async fn scan(&self, path: &str, options: ReadOptions) -> Result<Scan> {
        let command = options.command(WirePath::parse(path)?, false);
        let info = self.info_of(&command).await?;
        Ok(self.scan_info(&info, &command))
    }

    /// Reads one endpoint of an [`Info`]; for readers that share the endpoints out.
    pub fn scan_endpoint(&self, info: &Info, endpoint: Endpoint) -> Scan {
        self.scan_of(info.schema.clone(), [endpoint].into(), None, None)
    }

    /// Reads by a ticket that someone else was given, of batches of `schema`; for readers on other machines.
    pub fn scan_ticket(&self, schema: SchemaRef, ticket: Bytes) -> Scan {
        let ticket = Ticket { ticket };
        self.scan_of(schema, [Endpoint { ticket }].into(), None, None)
    }

    pub(crate) fn scan_info(&self, info: &Info, command: &ReadCommand) -> Scan {
        let position = Position::new(info, command);
        self.scan_of(
            info.schema.clone(),
            info.endpoints.iter().cloned().collect(),
            position,
            command.limit,
        )
    }

    fn scan_of(
        &self,
        schema: SchemaRef,
        waiting: VecDeque<Endpoint>,
        position: Option<Position>,
        rows_left: Option<u64>,
    ) -> Scan {
        let reading = Reading {
            client: self.clone(),
            waiting,
            open: None,
            rows_left,
        };
        Scan {
            schema,
            position,
            metadata: Bytes::new(),
            state: State::Idle(Box::new(reading)),
        }
    }
}

impl Scan {
    /// The schema of its batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Where to go on after the batches given so far. `None` for filtered and limited reads, and for one endpoint alone.
    pub fn token(&self) -> Option<ResumeToken> {
        self.position.as_ref().map(|p| p.at.clone())
    }

    /// The app_metadata of the batch given last.
    pub fn app_metadata(&self) -> &Bytes {
        &self.metadata
    }

    /// Counts on from another token for the same place; `None`: nobody knows one.
    pub(crate) fn count_from(&mut self, token: Option<ResumeToken>) {
        self.position = match (self.position.take(), token) {
            (Some(position), Some(at)) => Some(Position { at, ..position }),
            _ => None,
        };
    }
}

impl Stream for Scan {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match std::mem::replace(&mut this.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Idle(mut reading) => {
                    this.state = State::Busy(Box::pin(async move {
                        let next = reading.next().await;
                        (reading, next)
                    }));
                }
                State::Busy(mut future) => {
                    let Poll::Ready((reading, next)) = future.as_mut().poll(cx) else {
                        this.state = State::Busy(future);
                        return Poll::Pending;
                    };
                    return Poll::Ready(match next {
                        Ok(Some(Chunk { batch, metadata })) => {
                            this.state = State::Idle(reading);
                            this.metadata = metadata;
                            if let Some(position) = &mut this.position {
                                position.count();
                            }
                            Some(Ok(batch))
                        }
                        Ok(None) => None,
                        Err(error) => Some(Err(error)),
                    });
                }
            }
        }
    }
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Chunk>> {
        loop {
            if self.rows_left == Some(0) {
                return Ok(None);
            }
            let Some((messages, decoder)) = &mut self.open else {
                let Some(endpoint) = self.waiting.pop_front() else {
                    return Ok(None);
                };
                self.open = Some((open(self.client.clone(), endpoint).await?, Decoder::default()));
                continue;
            };
            match messages.next().await? {
                None => self.open = None,
                Some(message) => {
                    if let Some(batch) = decoder.message(&message)? {
                        return Ok(Some(Chunk {
                            batch: self.cut(batch),
                            metadata: message.app_metadata,
                        }));
                    }
                }
            }
        }
    }

    /// Keeps to the limit where a server sent more.
    fn cut(&mut self, batch: RecordBatch) -> RecordBatch {
        let Some(left) = &mut self.rows_left else { return batch };
        let rows = batch.num_rows().min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= rows as u64;
        batch.slice(0, rows)
    }
}

async fn open(client: Client, endpoint: Endpoint) -> Result<Messages, Error> {
    client.repeat(async || client.get_raw(&endpoint.ticket).await).await
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("schema", &self.schema)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::Schema;
    use forebay_protocol::info::InfoNote;
    use std::sync::Arc;

    fn info(version: Option<u64>, session: Option<&str>, batches: u64) -> Info {
        let path = WirePath::parse("/a").unwrap();
        let note = InfoNote {
            path,
            version,
            session: session.map(Into::into),
            state: "live".into(),
            parts: 1,
            batches,
        };
        Info {
            schema: Arc::new(Schema::empty()),
            endpoints: vec![],
            rows: None,
            bytes: None,
            note,
        }
    }

    fn tokens(info: &Info, command: &ReadCommand, count: usize) -> Vec<String> {
        let mut position = Position::new(info, command).unwrap();
        let mut tokens = vec![position.at.to_string()];
        for _ in 0..count {
            position.count();
            tokens.push(position.at.to_string());
        }
        tokens
    }

    #[test]
    fn a_follower_counts_the_version_then_the_session() {
        let follow = ReadCommand {
            follow: true,
            ..ReadCommand::new(WirePath::parse("/a").unwrap())
        };
        assert_eq!(
            tokens(&info(Some(7), Some("abc"), 2), &follow, 3),
            ["7:0", "7:1", "abc:0", "abc:1"]
        );
        assert_eq!(tokens(&info(None, Some("abc"), 0), &follow, 1), ["abc:0", "abc:1"]);
        let resumed = ReadCommand {
            from: Some("7:1".parse().unwrap()),
            ..follow.clone()
        };
        assert_eq!(
            tokens(&info(Some(7), Some("abc"), 2), &resumed, 2),
            ["7:1", "abc:0", "abc:1"]
        );
        // The session behind version 7 is published meanwhile, as part of version 8, and another one is live.
        assert_eq!(
            tokens(&info(Some(8), Some("def"), 3), &resumed, 3),
            ["7:1", "7:2", "def:0", "def:1"]
        );
        let later = ReadCommand {
            from: Some("abc:5".parse().unwrap()),
            ..follow
        };
        assert_eq!(tokens(&info(Some(8), None, 9), &later, 1), ["abc:5", "abc:6"]);
    }

    #[test]
    fn a_plain_read_counts_its_version() {
        let plain = ReadCommand::new(WirePath::parse("/a").unwrap());
        assert_eq!(tokens(&info(Some(7), Some("abc"), 2), &plain, 2), ["7:0", "7:1", "7:2"]);
        let filtered = ReadCommand {
            filter: Some("x > 1".into()),
            ..plain
        };
        assert_eq!(Position::new(&info(Some(7), None, 2), &filtered), None);
    }
}
