//! Datasets: sessions stage parts, publish makes a version in one transaction, followers read what is acknowledged.
//!
//! It owns session, part, head, version and task rows, the registry of live sessions, and what it means to follow. It does not own
//! bytes (`file`) nor names (`names`): a part is a file whose name appears at publish.

//!
//! | module | owns |
//! |---|---|
//! | [`ipc`] | messages: what they may be, how they lie in a part, how they are found again |
//! | [`registry`] | the live sessions: order of parts, attempts of tasks, who writes |
//! | [`session`] | begin, abort, expiry; rows of sessions, tokens, schemas |
//! | [`part_writer`], [`growing`] | a put under way, and what its followers see of it |
//! | [`encode`], [`note`] | batches in another compression; what each append says of itself for recovery |
//! | [`parquet`] | parts encoded as Parquet, and files read from it |
//! | [`publish`] | the one transaction that makes a version, or one of each of several datasets |
//! | [`joint`] | who takes part in a publish, and which parts count |
//! | [`instants`] | readers that look at several datasets, and publishes of several |
//! | [`retire`] | parts that lose their names and are kept for old versions |
//! | [`versions`], [`lists`] | which parts a version has, which versions are kept, sweeping |
//! | [`convert`] | Arrow parts that become Parquet before they are persisted |
//! | [`plan`], [`read`], [`foreign`], [`source`] | what a reader may read, and reading it; files that others wrote |
//! | [`follow`] | the head, then a live session to its end |
//! | [`recover`] | open sessions after a start |

mod convert;
mod encode;
pub(crate) mod follow;
mod foreign;
mod growing;
mod instants;
pub(crate) mod ipc;
mod joint;
mod lists;
mod note;
mod parquet;
mod part_writer;
mod plan;
mod publish;
mod read;
mod recover;
mod registry;
mod retire;
mod session;
mod source;
mod versions;

pub use convert::Unconverted;
pub(crate) use convert::{ArrowPart, Left};
pub(crate) use foreign::{Leads, goes_with_an_overwrite, session_in_name};
pub use ipc::decode::Decoder;
pub use joint::SESSIONS_MAX as PUBLISH_SESSIONS_MAX;
pub use part_writer::PartWriter;
pub(crate) use retire::Unnamed;
pub(crate) use versions::DatasetGone;

use crate::{AckLevel, Result, file::WriteMode};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use forebay_namespace::Path;
use forebay_runtime::clock::Timestamp;
use foreign::Parsed;
use futures::stream::BoxStream;
use instants::Instants;
use ipc::schema::StoredSchema;
use lists::PartLists;
use moka::sync::Cache as Memory;
use registry::Sessions;
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Bytes of parsed footers kept in memory.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Schemas kept in memory.
const SCHEMAS_MAX: u64 = 4096;

/// The live sessions of this node, and what was read of the others.
pub(crate) struct Datasets {
    sessions: Sessions,
    /// Schemas, by the session whose rows hold them.
    schemas: Memory<String, Arc<StoredSchema>>,
    /// Part lists, by directory and version.
    versions: PartLists,
    /// Parts that went as they are although a policy wants another form.
    left: Left,
    /// Parsed footers, by the identity of the content.
    indexes: Memory<String, Parsed>,
    /// Publishes of several datasets.
    instants: Instants,
    /// There is something to sweep.
    sweep: Notify,
    /// A session may be due before idle ones are looked for anyway.
    idle: Notify,
}

impl Default for Datasets {
    fn default() -> Self {
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            sessions: Sessions::default(),
            schemas: Memory::new(SCHEMAS_MAX),
            versions: PartLists::new(),
            left: Left::default(),
            indexes: Memory::builder()
                .max_capacity(INDEX_BYTES_MAX)
                .weigher(move |_, parsed: &Parsed| weight(parsed.bytes()))
                .build(),
            instants: Instants::default(),
            sweep: Notify::new(),
            idle: Notify::new(),
        }
    }
}

impl fmt::Debug for Datasets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datasets")
            .field("sessions", &self.sessions.count())
            .finish_non_exhaustive()
    }
}

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
    /// Who owns its parts; `None`: nobody by name.
    pub owner: Option<u32>,
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

/// A session that is published together with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The session.
    pub session: SessionId,
    /// Its attempts that count; `None`: the first of each task to end OK.
    pub tasks: Option<Vec<Task>>,
}

/// A version that a publish made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The dataset.
    pub path: Path,
    /// The session whose parts it has.
    pub session: SessionId,
    /// Its number.
    pub version: u64,
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
    /// Number of the directory that has the version, by whatever path it goes ([`crate::names::Stat::id`]): at the same path there may be
    /// another dataset later, whose versions are counted from 1 again.
    pub directory: Option<u64>,
    /// The live session, if any.
    pub session: Option<SessionId>,
    /// `true` while a session is live and more may come.
    pub live: bool,
    /// Columns that only the names of folders `k=v` give: in every part they have one value, which its `partition` says.
    pub folders: Vec<String>,
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

impl fmt::Debug for FollowStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowStream")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}
