//! GetFlightInfo and its kin: what is there, and the tickets to read it with.

use crate::{Client, Error, ErrorKind, ReadOptions, Result};
use arrow_flight::{FlightDescriptor, FlightInfo, Ticket};
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use forebay_protocol::{command::ReadCommand, info::InfoNote, path::WirePath};
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use std::sync::Arc;

/// What a FlightInfo says.
#[derive(Clone, Debug)]
pub struct Info {
    /// The schema of what is read.
    pub schema: SchemaRef,
    /// In the order of the dataset; one per part, or one that follows.
    pub endpoints: Vec<Endpoint>,
    /// Rows, where they are known.
    pub rows: Option<u64>,
    /// Bytes, where they are known.
    pub bytes: Option<u64>,
    /// The version, the live session, and counts.
    pub note: InfoNote,
}

/// A piece that can be read.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) ticket: Ticket,
}

/// What a poll says.
#[derive(Debug)]
pub struct Poll {
    /// Endpoints so far; later polls only append to them.
    pub info: Info,
    /// Polls again; `None`: complete.
    pub next: Option<NextPoll>,
}

/// Where to poll next.
#[derive(Clone, Debug)]
pub struct NextPoll(FlightDescriptor);

impl Endpoint {
    /// The ticket to read it with: opaque, signed, good for whom it was made and until it expires.
    pub fn ticket(&self) -> &Bytes {
        &self.ticket.ticket
    }
}

impl Client {
    /// What is at `path`, without reading it.
    pub async fn info(&self, path: &str, options: &ReadOptions) -> Result<Info> {
        self.info_of(&options.command(WirePath::parse(path)?, false)).await
    }

    /// The schema of the dataset at `path`.
    pub async fn schema(&self, path: &str, options: &ReadOptions) -> Result<SchemaRef> {
        let descriptor = options.command(WirePath::parse(path)?, false).to_descriptor();
        let answer = self.repeat(async || {
            Ok(self
                .flight()
                .get_schema(self.request(descriptor.clone()))
                .await?
                .into_inner())
        });
        read_schema(&answer.await?.schema)
    }

    /// Endpoints of a dataset that still grows, in the order they come to be.
    pub async fn poll(&self, path: &str, options: &ReadOptions) -> Result<Poll> {
        self.poll_next(&NextPoll(options.command(WirePath::parse(path)?, true).to_descriptor()))
            .await
    }

    /// Polls again.
    pub async fn poll_next(&self, next: &NextPoll) -> Result<Poll> {
        let answer = self.repeat(async || {
            Ok(self
                .flight()
                .poll_flight_info(self.request(next.0.clone()))
                .await?
                .into_inner())
        });
        let answer = answer.await?;
        let info = answer
            .info
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the server's poll has no info"))?;
        Ok(Poll {
            info: read_info(info)?,
            next: answer.flight_descriptor.map(NextPoll),
        })
    }

    /// The datasets under `prefix`.
    pub async fn datasets(&self, prefix: &str) -> Result<impl Stream<Item = Result<Info>> + Send + use<>> {
        let criteria = arrow_flight::Criteria {
            expression: prefix.as_bytes().to_vec().into(),
        };
        let stream = self.flight().list_flights(self.request(criteria)).await?.into_inner();
        Ok(stream
            .map_err(Error::from)
            .and_then(async |info| read_info(info))
            .boxed())
    }

    pub(crate) async fn info_of(&self, command: &ReadCommand) -> Result<Info> {
        let descriptor = command.to_descriptor();
        let answer = self.repeat(async || {
            Ok(self
                .flight()
                .get_flight_info(self.request(descriptor.clone()))
                .await?
                .into_inner())
        });
        read_info(answer.await?)
    }
}

fn read_info(info: FlightInfo) -> Result<Info> {
    let note = serde_json::from_slice(&info.app_metadata).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            format!("the info's app_metadata is not understood: {e}"),
        )
    })?;
    let endpoints = info
        .endpoint
        .into_iter()
        .filter_map(|e| e.ticket)
        .map(|ticket| Endpoint { ticket });
    Ok(Info {
        schema: read_schema(&info.schema)?,
        endpoints: endpoints.collect(),
        rows: u64::try_from(info.total_records).ok(),
        bytes: u64::try_from(info.total_bytes).ok(),
        note,
    })
}

fn read_schema(bytes: &Bytes) -> Result<SchemaRef> {
    Schema::try_from(arrow_flight::IpcMessage(bytes.clone()))
        .map(Arc::new)
        .map_err(|e| Error::new(ErrorKind::DataLoss, format!("the received schema is damaged: {e}")))
}

impl Endpoint {
    /// The ticket as bytes, to hand to another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.ticket.encode_to_vec()
    }

    /// From [`Endpoint::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let ticket =
            Ticket::decode(bytes).map_err(|e| Error::new(ErrorKind::Invalid, format!("this is no ticket: {e}")))?;
        Ok(Self { ticket })
    }
}
