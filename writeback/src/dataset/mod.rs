//! Datasets: sessions stage parts, publish makes a version in one transaction, followers read what is acknowledged.
//!
//! It owns session, part, head, version and task rows, the registry of live sessions, and what it means to follow. It does not own
//! bytes (`file`) nor names (`names`): a part is a file whose name appears at publish.

pub(crate) mod ipc;
mod source;

pub use ipc::decode::Decoder;

use crate::{AckLevel, Cache, Result, file::WriteMode};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use forebay_namespace::Path;
use forebay_runtime::clock::Timestamp;
use futures::stream::BoxStream;
use std::time::Duration;
use tokio::sync::watch;

/// The live sessions of this node.
#[derive(Debug, Default)]
pub(crate) struct Datasets {}

/// Identity of a session: lower-case letters and digits, 16 of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SessionId(pub String);

/// Format of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Format {
    /// Arrow IPC file.
    #[default]
    Arrow,
    /// Parquet.
    Parquet,
}

/// Compression of a part's buffers (Arrow) or pages (Parquet).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Compression {
    /// None.
    None,
    /// LZ4.
    Lz4,
    /// ZSTD.
    Zstd,
}

/// Keys of `begin`, which hold for all of a session's parts.
#[derive(Clone, Debug, Default)]
pub struct SessionSpec {
    /// How the published version meets the one before.
    pub mode: WriteMode,
    /// Format of its parts.
    pub format: Format,
    /// Compression; `None` keeps Arrow bodies as they were sent.
    pub compression: Option<Compression>,
    /// Level; `None`: the cache's.
    pub ack: Option<AckLevel>,
    /// Without a writer for this long it is aborted; `None`: the cache's.
    pub timeout: Option<Duration>,
    /// A job's name, for people.
    pub job: Option<String>,
    /// Idempotency key of `begin`.
    pub token: Option<String>,
}

/// A task's attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Task {
    /// Job.
    pub job: String,
    /// Stage.
    pub stage: u64,
    /// Task; parts are ordered by it.
    pub task: u64,
    /// Attempt.
    pub attempt: u64,
}

/// Where a DoPut goes.
#[derive(Clone, Debug)]
pub struct PutTarget {
    /// The dataset.
    pub path: Path,
    /// The session, or `None` for one of its own that is published when the put commits.
    pub session: Option<SessionId>,
    /// The task's attempt.
    pub task: Option<Task>,
    /// Keys of the put's own session; with `session` they must agree with it or be at their defaults.
    pub spec: SessionSpec,
    /// Idempotency key of this put.
    pub token: Option<String>,
}

/// One encapsulated Arrow message: the flatbuffer header and the body as it arrived.
#[derive(Clone, Debug, Default)]
pub struct IpcMessage {
    /// Flatbuffer `Message` (FlightData.data_header).
    pub header: Bytes,
    /// Body bytes, in pieces.
    pub body: Vec<Bytes>,
    /// FlightData.app_metadata.
    pub app_metadata: Bytes,
}

/// A put under way. Dropped without [`PartWriter::commit`] it leaves nothing: a session of its own is aborted, in a named session
/// the part is taken back.
#[derive(Debug)]
pub struct PartWriter {}

/// Answer of a finished put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutDone {
    /// The version it made, when the session was its own.
    pub version: Option<u64>,
    /// The level it has.
    pub level: AckLevel,
}

/// Batches of a put: how many are durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StableBatches {
    /// Batches durable at the level.
    pub batches: u64,
    /// Set when no more ever will be; says why.
    pub failed: Option<String>,
}

/// How to publish.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// The attempts that count; `None`: the first of each task to end OK.
    pub tasks: Option<Vec<Task>>,
    /// Adds `_SUCCESS`, a barrier.
    pub success_file: bool,
}

/// Which state of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The head version.
    Head,
    /// This version.
    Version(u64),
    /// A session: its stable batches.
    Session(SessionId),
    /// Head version and live session together (for polling followers): endpoints only ever append.
    Follow,
}

/// What a reader may read, and where.
#[derive(Clone, Debug)]
pub struct DatasetPlan {
    /// The dataset.
    pub path: Path,
    /// Its schema.
    pub schema: SchemaRef,
    /// The message that carries the schema, as it was first sent: what goes before stored messages that are passed on.
    pub schema_message: Bytes,
    /// The version it shows; `None` for a directory of files that others wrote, and for a session.
    pub version: Option<u64>,
    /// The live session, if any.
    pub session: Option<SessionId>,
    /// `true` while a session is live and more may come.
    pub live: bool,
    /// Its parts in order.
    pub parts: Vec<PartRef>,
}

/// One part of a plan. Serialised into tickets.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PartRef {
    /// Position in the plan.
    pub index: u32,
    /// Name of the file, absolute, as bytes of the path.
    pub path: Vec<u8>,
    /// Inode and generation; `None`: clean, by path.
    pub content: Option<(u64, u32)>,
    /// Set for a part of a live session: (session, part number); it is read up to what is stable when the read begins.
    pub live: Option<(SessionId, u32)>,
    /// Format.
    pub format: Format,
    /// Rows.
    pub rows: u64,
    /// Batches.
    pub batches: u64,
    /// Bytes.
    pub bytes: u64,
    /// Columns that the folder names `k=v` add, in order; `None`: null.
    pub partition: Vec<(String, Option<String>)>,
    /// The session and part number it came from, when Forebay wrote it: finds it also when its name or inode has changed.
    pub origin: Option<(SessionId, u32)>,
}

/// One item of a part, in the order it was written.
#[derive(Clone, Debug)]
pub enum PartItem {
    /// A dictionary message, needed before the batches that follow.
    Dictionary(IpcMessage),
    /// A batch as it is stored, with its row count.
    Batch(IpcMessage, u64),
    /// A batch that had to be decoded (Parquet, partition columns, another's file that is not plain IPC).
    Decoded(RecordBatch, Bytes),
}

/// A version, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// Number, from 1.
    pub version: u64,
    /// The session that made it.
    pub session: SessionId,
    /// When.
    pub published: Timestamp,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Parts.
    pub parts: u64,
}

/// What to follow.
#[derive(Clone, Debug, Default)]
pub struct FollowSpec {
    /// Only this session's own batches.
    pub session: Option<SessionId>,
    /// Resume token: version or session, and batches of it already read.
    pub from: Option<Resume>,
}

/// A parsed resume token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Batches of this version were read.
    Version(u64, u64),
    /// Batches of this session were read.
    Session(SessionId, u64),
}

/// A stream of a follower: the schema first, then items; ends well at publish, with Aborted at an abort.
pub struct FollowStream {
    /// Schema of everything that follows.
    pub schema: SchemaRef,
    /// The message that carries it.
    pub schema_message: Bytes,
    /// The items.
    pub items: BoxStream<'static, Result<PartItem>>,
}

impl Cache {
    /// Opens a session.
    pub async fn begin(&self, path: &Path, spec: SessionSpec) -> Result<SessionId> {
        let _ = (path, spec);
        todo!("datasets")
    }

    /// Begins a put with its schema message. Precondition when the dataset has another schema.
    pub async fn put(&self, target: PutTarget, schema: IpcMessage) -> Result<PartWriter> {
        let _ = (target, schema);
        todo!("datasets")
    }

    /// Makes the session's parts the next version, in one transaction. Repeated, it answers the same version.
    pub async fn publish(&self, session: &SessionId, how: Publish) -> Result<u64> {
        let _ = (session, how);
        todo!("datasets")
    }

    /// Drops the session and what it staged. Repeated: fine. Precondition after its publish.
    pub async fn abort(&self, session: &SessionId) -> Result<()> {
        let _ = session;
        todo!("datasets")
    }

    /// The kept versions, oldest first.
    pub async fn versions(&self, path: &Path) -> Result<Vec<VersionInfo>> {
        let _ = path;
        todo!("datasets")
    }

    /// Path of a session (open or ended).
    pub async fn session_path(&self, session: &SessionId) -> Result<Path> {
        let _ = session;
        todo!("datasets")
    }

    /// Plans a read. NotFound when there is no dataset (or nothing published and `at` is Head). A single Arrow or Parquet file is a dataset too.
    pub async fn dataset(&self, path: &Path, at: At) -> Result<DatasetPlan> {
        let _ = (path, at);
        todo!("datasets")
    }

    /// Waits until [`Cache::dataset`] would answer (and a live session has a schema), at most for `wait`; then NotFound.
    pub async fn wait_dataset(&self, path: &Path, at: At, wait: Duration) -> Result<DatasetPlan> {
        let _ = (path, at, wait);
        todo!("datasets")
    }

    /// Whether a bare read of `path` means a dataset (a published one, a directory of Arrow or Parquet files, a live session).
    pub async fn is_dataset(&self, path: &Path) -> Result<bool> {
        let _ = path;
        todo!("datasets")
    }

    /// Every dataset whose absolute path begins with `prefix` (bytes), in path order.
    pub fn datasets(&self, prefix: &[u8]) -> BoxStream<'static, Result<DatasetPlan>> {
        let _ = prefix;
        todo!("datasets")
    }

    /// Reads a part, from its `skip`-th batch on.
    pub async fn read_part(&self, part: &PartRef, skip: u64) -> Result<BoxStream<'static, Result<PartItem>>> {
        let _ = (part, skip);
        todo!("datasets")
    }

    /// Follows a dataset: the head version's batches (none if the live session overwrites), then those of the live session as they
    /// become stable, to its publish or abort. Waits for the schema of a session that has none yet.
    pub async fn follow(&self, path: &Path, spec: FollowSpec) -> Result<FollowStream> {
        let _ = (path, spec);
        todo!("datasets")
    }
}

impl PartWriter {
    /// Whether the token has committed before: what is appended is ignored and `commit` repeats the first answer.
    pub fn repeated(&self) -> bool {
        todo!("datasets")
    }

    /// Takes one message: a dictionary or a record batch. Invalid: malformed, or not of the schema; nothing of the put will be visible.
    /// Waits at the dirty limit.
    pub async fn append(&mut self, message: IpcMessage) -> Result<()> {
        let _ = message;
        todo!("datasets")
    }

    /// How many batches are durable at the level.
    pub fn stable(&self) -> watch::Receiver<StableBatches> {
        todo!("datasets")
    }

    /// The level this put is acknowledged at.
    pub fn level(&self) -> AckLevel {
        todo!("datasets")
    }

    /// Seals the put; without a named session also publishes. Aborted when another attempt of the task won.
    pub async fn commit(self) -> Result<PutDone> {
        todo!("datasets")
    }
}
