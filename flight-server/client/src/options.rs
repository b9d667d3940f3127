//! Plain data: how to connect, to write and to read.

use forebay_protocol::{
    command::{Compression, Format, Mode, PathKind, ReadCommand, Task, WriteCommand},
    level::AckLevel,
    path::WirePath,
    resume::ResumeToken,
    span::Span,
};
use std::{collections::BTreeMap, fmt, time::Duration};

/// How to connect.
#[derive(Clone)]
pub struct Options {
    /// Bearer token.
    pub token: Option<String>,
    /// PEM of the authorities that sign the server's certificate; needed for `grpc+tls://`.
    pub tls_ca: Option<Vec<u8>>,
    /// PEM of our own certificate and key, where the server asks for one.
    pub tls_identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the server's certificate, when it is not the URL's host.
    pub tls_domain: Option<String>,
    /// How long a connection may take to come about; ten seconds.
    pub connect_timeout: Duration,
    /// How long a call that is safe to repeat is repeated while the server is away; thirty seconds. Zero: not at all.
    pub retry_for: Duration,
    /// Largest message taken; 1 GiB.
    pub message_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            tls_ca: None,
            tls_identity: None,
            tls_domain: None,
            connect_timeout: Duration::from_secs(10),
            retry_for: Duration::from_secs(30),
            message_bytes_max: 1 << 30,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("tls", &self.tls_ca.is_some())
            .field("connect_timeout", &self.connect_timeout)
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}

/// How to write batches to a dataset. The default appends, with the server's ack level.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// What to do with what is there.
    pub mode: Option<Mode>,
    /// The session to write into; `None`: one of its own, published when the put ends well.
    pub session: Option<String>,
    /// The task attempt that writes.
    pub task: Option<Task>,
    /// How parts are stored.
    pub format: Option<Format>,
    /// How stored buffers are compressed.
    pub compression: Option<Compression>,
    /// The ack level.
    pub ack: Option<AckLevel>,
    /// Idempotency key of the unit; one is made when left out.
    pub token: Option<String>,
    /// Compression of buffers on the wire, by this client.
    pub wire_compression: Compression,
    /// Delivers every ack through [`crate::Put::acks`], which must then be read.
    pub acks: bool,
}

impl WriteOptions {
    pub(crate) fn command(&self, path: WirePath) -> WriteCommand {
        let Self {
            mode,
            session,
            task,
            format,
            compression,
            ack,
            token,
            wire_compression: _,
            acks: _,
        } = self.clone();
        let token = Some(token.unwrap_or_else(fresh_token));
        WriteCommand {
            mode,
            session,
            task,
            format,
            compression,
            ack,
            token,
            ..WriteCommand::new(path)
        }
    }
}

/// How to write a file. The default replaces what is there.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// What to do with what is there.
    pub mode: Mode,
    /// For mode append: must equal the size, so that a repeated append is refused.
    pub offset: Option<u64>,
    /// For mode overwrite: must be the etag of the file that is there, which `stat`, `list` and the write that made it tell. Else, and where
    /// there is none, the write ends with [`ErrorKind::Precondition`](crate::ErrorKind::Precondition) and nothing has changed.
    pub if_etag: Option<String>,
    /// For modes overwrite and create: the extended attributes `user.NAME` of the file, by NAME, and no others of that kind. `None`: those
    /// of what is there stay. `stat` tells them.
    pub attributes: Option<BTreeMap<String, String>>,
    /// The ack level.
    pub ack: Option<AckLevel>,
    /// Idempotency key of the unit; one is made when left out.
    pub token: Option<String>,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Overwrite,
            offset: None,
            if_etag: None,
            attributes: None,
            ack: None,
            token: None,
        }
    }
}

impl FileOptions {
    pub(crate) fn command(&self, path: WirePath) -> WriteCommand {
        let Self {
            mode,
            offset,
            if_etag,
            attributes,
            ack,
            token,
        } = self.clone();
        let token = Some(token.unwrap_or_else(fresh_token));
        WriteCommand {
            kind: PathKind::File,
            mode: Some(mode),
            offset,
            if_etag,
            attributes,
            ack,
            token,
            ..WriteCommand::new(path)
        }
    }
}

/// What to read of a dataset. The default is everything of the head version.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// A published version; `None`: the head.
    pub version: Option<u64>,
    /// Only this session.
    pub session: Option<String>,
    /// How long to wait for the dataset or session to come into being.
    pub wait: Option<Duration>,
    /// Columns in this order.
    pub columns: Option<Vec<String>>,
    /// A SQL expression over the columns.
    pub filter: Option<String>,
    /// Most rows.
    pub limit: Option<u64>,
    /// Where an earlier read stopped.
    pub from: Option<ResumeToken>,
}

impl ReadOptions {
    pub(crate) fn command(&self, path: WirePath, follow: bool) -> ReadCommand {
        let Self {
            version,
            session,
            wait,
            columns,
            filter,
            limit,
            from,
        } = self.clone();
        let wait = wait.map(Span);
        ReadCommand {
            version,
            session,
            wait,
            columns,
            filter,
            limit,
            from,
            follow,
            ..ReadCommand::new(path)
        }
    }
}

/// How to begin a session.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// What the publish does with what is there.
    pub mode: Option<Mode>,
    /// How parts are stored.
    pub format: Option<Format>,
    /// How stored buffers are compressed.
    pub compression: Option<Compression>,
    /// The ack level.
    pub ack: Option<AckLevel>,
    /// Without a writer for so long the session is aborted.
    pub timeout: Option<Duration>,
    /// The job's name, for whoever looks.
    pub job: Option<String>,
    /// Idempotency key: whoever begins with it on the path is in the same session, on whatever machine. None is made when left out.
    pub token: Option<String>,
}

/// A token that nobody else has.
pub(crate) fn fresh_token() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
