//! What of ours travels between the processes of a cluster, as bytes. All of them run the same version, as Ballista asks of its own
//! messages too, so these forms have no versions.

use bytes::Bytes;
use datafusion::{
    arrow::datatypes::{Schema, SchemaRef},
    common::{DataFusionError, Result, internal_datafusion_err, stats::Precision},
    scalar::ScalarValue,
};
use datafusion_proto::protobuf;
use forebay_client::{AckLevel, Compression, Format, Mode, SessionOptions};
use forebay_datafusion::{Piece, Scanned, Slot};
use prost::Message;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// What bytes of ours begin with: no message of Ballista's own does.
const OURS: &[u8] = b"forebay:";

/// A table, from a client to the scheduler.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum TableForm {
    Dataset {
        server: String,
        path: String,
        version: Option<u64>,
        write: WriteForm,
    },
    Partitioned {
        server: String,
        path: String,
        keys: Vec<String>,
    },
}

/// A node of a plan, from the scheduler to executors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NodeForm {
    Scan(ScanForm),
    Stage(TargetForm),
    Publish(TargetForm),
}

/// [`Scanned`], with its rows limited in each partition.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ScanForm {
    pub(crate) server: String,
    schema: Vec<u8>,
    read: Vec<u8>,
    slots: Vec<(bool, usize)>,
    partitions: Vec<Vec<PieceForm>>,
    about: String,
    pub(crate) limit: Option<usize>,
}

/// [`Piece`].
#[derive(Debug, Serialize, Deserialize)]
struct PieceForm {
    ticket: Vec<u8>,
    folder: Vec<Vec<u8>>,
}

/// Where a query writes to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TargetForm {
    pub(crate) server: String,
    pub(crate) path: String,
    pub(crate) schema: Vec<u8>,
    pub(crate) write: WriteForm,
}

/// [`SessionOptions`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WriteForm {
    mode: Option<Mode>,
    format: Option<Format>,
    compression: Option<Compression>,
    ack: Option<String>,
    timeout: Option<Duration>,
    job: Option<String>,
    pub(crate) token: Option<String>,
}

/// The bytes of a form.
pub(crate) fn encode<T: Serialize>(form: &T, buf: &mut Vec<u8>) -> Result<()> {
    buf.extend_from_slice(OURS);
    let bytes = postcard::to_allocvec(form).map_err(|e| internal_datafusion_err!("a plan does not encode: {e}"))?;
    buf.extend(bytes);
    Ok(())
}

/// The form of bytes; `None` when they are none of ours.
pub(crate) fn decode<T: DeserializeOwned>(buf: &[u8]) -> Result<Option<T>> {
    let form = |bytes| postcard::from_bytes(bytes).map_err(|e| internal_datafusion_err!("a plan does not decode: {e}"));
    buf.strip_prefix(OURS).map(form).transpose()
}

impl ScanForm {
    pub(crate) fn of(server: &str, scanned: &Scanned, limit: Option<usize>) -> Result<Self> {
        let slot = |slot: &Slot| match *slot {
            Slot::Read(at) => (true, at),
            Slot::Folder(at) => (false, at),
        };
        let piece = |piece: &Piece| -> Result<PieceForm> {
            Ok(PieceForm {
                ticket: piece.ticket.to_vec(),
                folder: piece.folder.iter().map(value_bytes).collect::<Result<_>>()?,
            })
        };
        let partition = |pieces: &Vec<Piece>| pieces.iter().map(piece).collect::<Result<Vec<_>>>();
        Ok(Self {
            server: server.to_owned(),
            schema: schema_bytes(&scanned.schema)?,
            read: schema_bytes(&scanned.read)?,
            slots: scanned.slots.iter().map(slot).collect(),
            partitions: scanned.partitions.iter().map(partition).collect::<Result<_>>()?,
            about: scanned.about.clone(),
            limit,
        })
    }

    /// What is read. Totals stay with the scheduler, which plans by them.
    pub(crate) fn scanned(self) -> Result<Scanned> {
        let slot = |(read, at)| match read {
            true => Slot::Read(at),
            false => Slot::Folder(at),
        };
        let piece = |PieceForm { ticket, folder }: PieceForm| -> Result<Piece> {
            let values = folder.iter().map(|bytes| value(bytes)).collect::<Result<Vec<_>>>()?;
            Ok(Piece {
                ticket: Bytes::from(ticket),
                folder: Arc::from(values),
            })
        };
        let partition = |pieces: Vec<_>| pieces.into_iter().map(piece).collect::<Result<Vec<_>>>();
        Ok(Scanned {
            schema: schema(&self.schema)?,
            read: schema(&self.read)?,
            slots: self.slots.into_iter().map(slot).collect(),
            partitions: self.partitions.into_iter().map(partition).collect::<Result<_>>()?,
            rows: Precision::Absent,
            bytes: Precision::Absent,
            about: self.about,
        })
    }
}

impl WriteForm {
    pub(crate) fn of(options: &SessionOptions) -> Self {
        let SessionOptions {
            mode,
            format,
            compression,
            ack,
            timeout,
            job,
            token,
        } = options.clone();
        Self {
            mode,
            format,
            compression,
            ack: ack.map(|ack| ack.to_string()),
            timeout,
            job,
            token,
        }
    }

    pub(crate) fn options(&self) -> Result<SessionOptions> {
        let ack = self.ack.as_deref().map(str::parse::<AckLevel>).transpose();
        let Self {
            mode,
            format,
            compression,
            ack: _,
            timeout,
            job,
            token,
        } = self.clone();
        Ok(SessionOptions {
            mode,
            format,
            compression,
            ack: ack.map_err(|e| internal_datafusion_err!("a plan does not decode: {e}"))?,
            timeout,
            job,
            token,
        })
    }
}

pub(crate) fn schema_bytes(schema: &Schema) -> Result<Vec<u8>> {
    let form = protobuf::Schema::try_from(schema).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(form.encode_to_vec())
}

pub(crate) fn schema(bytes: &[u8]) -> Result<SchemaRef> {
    let form = protobuf::Schema::decode(bytes).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let schema = Schema::try_from(&form).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(Arc::new(schema))
}

fn value_bytes(value: &ScalarValue) -> Result<Vec<u8>> {
    let form = protobuf::ScalarValue::try_from(value).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(form.encode_to_vec())
}

fn value(bytes: &[u8]) -> Result<ScalarValue> {
    let form = protobuf::ScalarValue::decode(bytes).map_err(|e| DataFusionError::External(Box::new(e)))?;
    ScalarValue::try_from(&form).map_err(|e| DataFusionError::External(Box::new(e)))
}
