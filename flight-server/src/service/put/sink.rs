//! The engine's writer, of a dataset or of a file, under one face.

use super::{file::Column, ids::Ids};
use crate::error;
use forebay_writeback::{
    AckLevel,
    dataset::{IpcMessage, PartWriter},
    file::FileWriter,
};
use tonic::Status;

/// Where the messages of a put go.
pub(super) enum Sink {
    Dataset {
        writer: PartWriter,
        ids: Option<Ids>,
    },
    File {
        writer: FileWriter,
        column: Column,
        level: AckLevel,
    },
}

/// A committed put.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) version: Option<u64>,
    pub(super) level: AckLevel,
    /// Of a file.
    pub(super) etag: Option<String>,
}

impl Sink {
    pub(super) fn dataset(writer: PartWriter, ids: Option<Ids>) -> Self {
        Self::Dataset { writer, ids }
    }

    pub(super) fn file(writer: FileWriter, column: Column, level: AckLevel) -> Self {
        Self::File { writer, column, level }
    }

    pub(super) fn repeated(&self) -> bool {
        match self {
            Self::Dataset { writer, .. } => writer.repeated(),
            Self::File { writer, .. } => writer.repeated(),
        }
    }

    /// The session that it writes into, its own or a named one.
    pub(super) fn session(&self) -> Option<String> {
        match self {
            Self::Dataset { writer, .. } => writer.session().map(|session| session.0),
            Self::File { .. } => None,
        }
    }

    /// The level that its batches are acknowledged at.
    pub(super) fn level(&self) -> AckLevel {
        match self {
            Self::Dataset { writer, .. } => writer.level(),
            Self::File { level, .. } => *level,
        }
    }

    /// Takes a message; says whether it was a batch.
    pub(super) async fn append(&mut self, message: IpcMessage) -> Result<bool, Status> {
        match self {
            Self::File { writer, column, .. } => {
                writer.append(column.values(message)?).await.map_err(error::engine)?;
                Ok(true)
            }
            Self::Dataset { writer, ids } => {
                let header = arrow_ipc::root_as_message(&message.header);
                let header = header.map_err(|e| error::wrong(format!("a message has no Arrow header: {e}")))?;
                let is_batch = header.header_type() == arrow_ipc::MessageHeader::RecordBatch;
                let messages = match ids {
                    Some(ids) if !is_batch => ids.translate(message)?,
                    _ => vec![message],
                };
                for message in messages {
                    writer.append(message).await.map_err(error::engine)?;
                }
                Ok(is_batch)
            }
        }
    }

    /// Commits; from here on nothing takes it back.
    pub(super) async fn commit(self) -> Result<Done, Status> {
        match self {
            Self::Dataset { writer, .. } => {
                let done = writer.commit().await.map_err(error::engine)?;
                Ok(Done {
                    version: done.version,
                    level: done.level,
                    etag: None,
                })
            }
            Self::File { writer, .. } => {
                let done = writer.commit().await.map_err(error::engine)?;
                Ok(Done {
                    version: None,
                    level: done.level,
                    etag: done.etag,
                })
            }
        }
    }
}
