//! Calls to the NameNode and bytes to and from DataNodes, each step within the timeout and each error said for people.
//!
//! Nothing is tried again here, but for what the client does itself: a call that may have happened is never repeated. It knows
//! paths, not keys, and nothing of uploads.

use crate::{Settings, StoreError, address::HdfsAddress};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hdfs_native::{
    Client, ClientBuilder, HdfsError, WriteOptions,
    client::{FileStatus, ListStatusIterator},
    file::FileWriter,
};
use parking_lot::Mutex;
use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes handed over at once: what moves within one timeout.
const STEP_BYTES: usize = 1 << 20;

/// How long the client sleeps when a file cannot end yet.
const CLIENT_SLEEP: Duration = Duration::from_millis(500);

/// Least patience with the end of a file.
const PATIENCE: Duration = Duration::from_millis(40);

/// How long the end of a file is asked for again and again.
const IMPATIENT_MAX: Duration = Duration::from_secs(2);

/// Leaves a time of a file as it is.
const AS_IT_IS: u64 = u64::MAX;

/// The client, and what it takes to make another.
#[derive(Debug)]
pub(super) struct Wire {
    address: HdfsAddress,
    timeout: Duration,
    client: Mutex<Made>,
    patience_min: Mutex<Duration>,
}

#[derive(Debug)]
struct Made {
    client: Client,
    at: Instant,
}

impl Wire {
    pub(super) fn new(address: HdfsAddress, settings: &Settings) -> Result<Self, StoreError> {
        let timeout = settings.timeout;
        let client = Mutex::new(Made {
            client: client(&address, timeout)?,
            at: Instant::now(),
        });
        Ok(Self {
            address,
            timeout,
            client,
            patience_min: Mutex::new(PATIENCE),
        })
    }

    fn client(&self) -> Client {
        self.client.lock().client.clone()
    }

    /// The result of one step on `path`, in time.
    async fn step<T>(
        &self,
        path: &str,
        doing: &str,
        step: impl Future<Output = hdfs_native::Result<T>>,
    ) -> Result<T, StoreError> {
        let done = self.in_time(path, doing, step).await?;
        done.map_err(|error| said(path, doing, &error))
    }

    async fn in_time<T>(&self, path: &str, doing: &str, step: impl Future<Output = T>) -> Result<T, StoreError> {
        let done = tokio::time::timeout(self.timeout, step).await;
        done.map_err(|_| {
            self.forget_connection();
            StoreError::Unavailable(format!("{doing} {path}: no answer from HDFS in {:?}", self.timeout))
        })
    }

    /// A host that went away without a word leaves a connection behind on which nothing comes for a quarter of an hour. The next
    /// call gets a new one, now and then: a client that has written leaves a small task behind.
    fn forget_connection(&self) {
        let mut made = self.client.lock();
        if made.at.elapsed() > self.timeout * 6
            && let Ok(client) = client(&self.address, self.timeout)
        {
            *made = Made {
                client,
                at: Instant::now(),
            };
        }
    }

    /// How long a file may take to end before it is asked for anew, when a sync of it took `synced`.
    fn patience(&self, synced: Duration) -> Duration {
        self.patience_min.lock().max(synced * 8)
    }

    /// Ends every file at the client's own pace.
    #[cfg(test)]
    pub(super) fn be_patient(&self) {
        *self.patience_min.lock() = CLIENT_SLEEP;
    }

    /// Patience that did not do is doubled, and comes down again slowly.
    fn learn(&self, patience: Duration, ended: bool) {
        let mut least = self.patience_min.lock();
        *least = if ended {
            *least * 255 / 256
        } else {
            (*least).max(patience * 2)
        };
        *least = (*least).clamp(PATIENCE, CLIENT_SLEEP);
    }

    /// What is at `path`.
    pub(super) async fn look(&self, path: &str) -> Result<Option<FileStatus>, StoreError> {
        match self.step(path, "look at", self.client().get_file_info(path)).await {
            Ok(status) => Ok(Some(status)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn rows(self: &Arc<Self>, path: &str) -> Rows {
        Rows {
            wire: Arc::clone(self),
            path: path.to_owned(),
            rows: self.client().list_status_iter(path, false),
        }
    }

    /// The names in a folder, for one of few; none when it is not there.
    pub(super) async fn names(self: &Arc<Self>, path: &str) -> Result<Vec<FileStatus>, StoreError> {
        let mut rows = self.rows(path);
        let mut all = Vec::new();
        loop {
            match rows.next().await {
                Ok(Some(row)) => all.push(row),
                Ok(None) => return Ok(all),
                Err(StoreError::NotFound(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn make_dir(&self, path: &str, mode: u32) -> Result<(), StoreError> {
        self.step(path, "make", self.client().mkdirs(path, mode, true)).await
    }

    pub(super) async fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<(), StoreError> {
        self.step(to, "rename to", self.client().rename(from, to, overwrite))
            .await
    }

    /// Whether there was something to delete.
    pub(super) async fn delete(&self, path: &str, recursive: bool) -> Result<bool, StoreError> {
        match self.step(path, "delete", self.client().delete(path, recursive)).await {
            Err(StoreError::NotFound(_)) => Ok(false),
            done => done,
        }
    }

    pub(super) async fn set_mtime(&self, path: &str, millis: u64) -> Result<(), StoreError> {
        self.step(path, "set mtime of", self.client().set_times(path, millis, AS_IT_IS))
            .await
    }

    pub(super) async fn set_mode(&self, path: &str, mode: u32) -> Result<(), StoreError> {
        self.step(path, "set mode of", self.client().set_permission(path, mode))
            .await
    }

    pub(super) async fn set_owner(
        &self,
        path: &str,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> Result<(), StoreError> {
        self.step(path, "set owner of", self.client().set_owner(path, owner, group))
            .await
    }

    /// Takes the file from a writer that died; answers when it is closed.
    pub(super) async fn recover_lease(&self, path: &str) -> Result<(), StoreError> {
        let client = self.client();
        let closed = async {
            while !client.recover_lease(path).await? {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        };
        self.step(path, "recover the lease of", closed).await
    }

    /// Makes a file that is durable and closed once [`Body::close`] has answered. `replace` what is there; else its folder is made.
    pub(super) async fn create(&self, path: &str, mode: u32, replace: bool) -> Result<Body<'_>, StoreError> {
        let how = WriteOptions::default()
            .permission(mode)
            .overwrite(replace)
            .create_parent(!replace);
        let client = self.client();
        let writer = self.step(path, "create", client.create(path, &how)).await?;
        Ok(Body {
            wire: self,
            client,
            path: path.to_owned(),
            writer,
            written: 0,
            block_bytes: None,
        })
    }

    /// Exactly `range` of the file.
    pub(super) async fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let mut pieces = self.open(path, range).await?;
        let len = pieces.left;
        let Some(first) = pieces.next().await? else {
            return Ok(Bytes::new());
        };
        if first.len() == len {
            return Ok(first);
        }
        let mut all = BytesMut::with_capacity(len);
        all.extend_from_slice(&first);
        while let Some(piece) = pieces.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Exactly `range` of the file, piece by piece.
    pub(super) async fn open(&self, path: &str, range: Range<u64>) -> Result<Pieces<'_>, StoreError> {
        let number = |value: u64| usize::try_from(value).ok();
        let reader = self.step(path, "open", self.client().read(path)).await?;
        let span = number(range.start).zip(number(range.end));
        let span = span.filter(|(start, end)| start <= end && *end <= reader.file_length());
        let Some((start, end)) = span else {
            return Err(StoreError::Damaged(format!(
                "{path}: has {} bytes, not {range:?}",
                reader.file_length()
            )));
        };
        Ok(Pieces {
            wire: self,
            path: path.to_owned(),
            stream: reader.read_range_stream(start, end - start).boxed(),
            left: end - start,
        })
    }
}

/// A client for `address`. It asks nothing yet.
fn client(address: &HdfsAddress, timeout: Duration) -> Result<Client, StoreError> {
    // A DataNode that stops sending leaves time for another one within one timeout.
    let mut settings = vec![(
        "dfs.client.socket-timeout",
        (timeout.as_millis() / 2).max(1).to_string(),
    )];
    if address.authority.contains(':') {
        // One NameNode: whoever calls pauses and comes again, which needs no second patience below it.
        settings.push(("dfs.client.failover.max.attempts", "0".into()));
    }
    let mut builder = ClientBuilder::new()
        .with_url(format!("hdfs://{}", address.authority))
        .with_config(settings);
    if let Some(user) = &address.user {
        builder = builder.with_user(user);
    }
    builder.build().map_err(|error| {
        StoreError::Refused(format!(
            "hdfs://{}: {error}; is it a nameservice of HADOOP_CONF_DIR, or should it be host:port?",
            address.authority
        ))
    })
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A listing under way, in the NameNode's order.
pub(super) struct Rows {
    wire: Arc<Wire>,
    path: String,
    rows: ListStatusIterator,
}

impl Rows {
    /// NotFound when the folder is not there.
    pub(super) async fn next(&mut self) -> Result<Option<FileStatus>, StoreError> {
        let next = async { self.rows.next().await.transpose() };
        let row = self.wire.step(&self.path, "list", next).await?;
        // A file lists as itself.
        Ok(row.filter(|row| row.path != self.path))
    }
}

/// A part of a file being read.
pub(super) struct Pieces<'w> {
    wire: &'w Wire,
    path: String,
    stream: futures::stream::BoxStream<'static, hdfs_native::Result<Bytes>>,
    left: usize,
}

impl Pieces<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let next = async { self.stream.next().await.transpose() };
        let piece = self.wire.step(&self.path, "read", next).await?;
        let len = piece.as_ref().map_or(0, Bytes::len);
        match self.left.checked_sub(len) {
            Some(left) if piece.is_some() || left == 0 => self.left = left,
            _ => {
                return Err(StoreError::Damaged(format!(
                    "{}: another length than promised",
                    self.path
                )));
            }
        }
        Ok(piece)
    }
}

/// A file being written.
///
/// 1. Bytes go out as they come; the end of every block is synced to the disks, for a sync reaches the last block only.
/// 2. `close` syncs the rest, then ends the file. What was written before that is nobody's.
pub(super) struct Body<'w> {
    wire: &'w Wire,
    /// The client that holds the lease.
    client: Client,
    path: String,
    writer: FileWriter,
    written: u64,
    block_bytes: Option<u64>,
}

impl Body<'_> {
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let block_bytes = self.block_bytes().await?;
            let left = usize::try_from(block_bytes - self.written % block_bytes).unwrap_or(usize::MAX);
            let step = bytes.split_to(bytes.len().min(STEP_BYTES).min(left));
            let len = step.len();
            self.wire
                .step(&self.path, "write", self.writer.write_bytes(step))
                .await?;
            self.written += len as u64;
            if len == left {
                self.sync().await?;
            }
        }
        Ok(())
    }

    /// Bytes of a block of this file; asked when the first byte comes.
    async fn block_bytes(&mut self) -> Result<u64, StoreError> {
        if let Some(bytes) = self.block_bytes {
            return Ok(bytes);
        }
        let status = self
            .wire
            .step(&self.path, "look at", self.client.get_file_info(&self.path))
            .await?;
        let bytes = status.blocksize.filter(|bytes| *bytes > 0).unwrap_or(u64::MAX);
        self.block_bytes = Some(bytes);
        Ok(bytes)
    }

    async fn sync(&mut self) -> Result<(), StoreError> {
        match self.wire.in_time(&self.path, "sync", self.writer.hsync()).await? {
            // Of an erasure-coded file only the end is certain: every DataNode that counts has acknowledged it.
            Err(HdfsError::OperationFailed(why)) if why.contains("erasure-coded") => Ok(()),
            done => done.map_err(|error| said(&self.path, "sync", &error)),
        }
    }

    /// Bytes in the file, as the NameNode knows it.
    pub(super) async fn close(mut self) -> Result<u64, StoreError> {
        let began = Instant::now();
        self.sync().await?;
        self.end(self.wire.patience(began.elapsed())).await?;
        let closed = self.wire.look(&self.path).await?;
        match closed.map(|closed| closed.length as u64) {
            Some(len) if len == self.written => Ok(len),
            other => Err(StoreError::Damaged(format!(
                "{}: {} bytes written, {other:?} arrived",
                self.path, self.written
            ))),
        }
    }

    /// Ends the file. The NameNode refuses until the DataNode has told it of the last block, a matter of milliseconds, and the
    /// client then sleeps for half a second. After `patience` it is asked anew instead: it has the last block's length by then. If
    /// not, because the DataNode was slow just now, this never ends well, and the next files find more patience.
    pub(super) async fn end(&mut self, patience: Duration) -> Result<(), StoreError> {
        let (wire, path, writer) = (self.wire, &self.path, &mut self.writer);
        if patience >= CLIENT_SLEEP {
            return wire.step(path, "close", writer.close()).await;
        }
        let ends = async {
            let mut again = false;
            loop {
                match tokio::time::timeout(patience, writer.close()).await {
                    // An earlier try has ended it after we had stopped waiting; whether it is whole is looked at next.
                    Ok(Err(error)) if again && is_ended(&error) => return Ok(()),
                    Ok(done) => return done,
                    Err(_) => again = true,
                }
            }
        };
        let ended = tokio::time::timeout(IMPATIENT_MAX.min(wire.timeout), ends).await;
        wire.learn(patience, ended.is_ok());
        let Ok(done) = ended else {
            return Err(StoreError::Unavailable(format!(
                "close {path}: its last block is not reported"
            )));
        };
        done.map_err(|error| said(path, "close", &error))
    }
}

/// Whether the NameNode says that nobody writes the file any more.
fn is_ended(error: &HdfsError) -> bool {
    let class = "org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException";
    matches!(error, HdfsError::RPCError(is, why) if is == class && why.contains("is not open for writing"))
}

/// What an error asks of the caller, in one line: the server's text without its stack trace.
pub(super) fn said(path: &str, doing: &str, error: &HdfsError) -> StoreError {
    let text = |why: &str| format!("{doing} {path}: {}", why.lines().next().unwrap_or_default().trim());
    match error {
        HdfsError::RPCError(class, why) | HdfsError::FatalRPCError(class, why) => {
            let class = class.rsplit(['.', '$']).next().unwrap_or_default();
            by_class(class, text(&format!("{} ({class})", first_line(why))))
        }
        HdfsError::FileNotFound(_) => StoreError::NotFound(format!("{doing} {path}: not found")),
        HdfsError::AlreadyExists(_) => StoreError::Changed(path.to_owned()),
        HdfsError::ChecksumError => StoreError::Damaged(text("the checksum of a block does not match")),
        HdfsError::IsADirectoryError(_)
        | HdfsError::InvalidPath(_)
        | HdfsError::InvalidArgument(_)
        | HdfsError::UrlParseError(_)
        | HdfsError::UnsupportedErasureCodingPolicy(_)
        | HdfsError::UnsupportedFeature(_)
        | HdfsError::TrashNotEnabled
        | HdfsError::XmlParseError(_) => StoreError::Refused(text(&error.to_string())),
        // A ticket that ran out is renewed by others while we wait.
        _ => StoreError::Unavailable(text(&error.to_string())),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// By the Java class that the NameNode threw.
fn by_class(class: &str, text: String) -> StoreError {
    match class {
        "FileNotFoundException" | "PathNotFoundException" => StoreError::NotFound(text),
        "FileAlreadyExistsException" | "PathIsNotEmptyDirectoryException" => StoreError::Changed(text),
        "AccessControlException"
        | "SnapshotAccessControlException"
        | "AuthorizationException"
        | "NSQuotaExceededException"
        | "DSQuotaExceededException"
        | "QuotaByStorageTypeExceededException"
        | "PathComponentTooLongException"
        | "MaxDirectoryItemsExceededException"
        | "FSLimitException"
        | "InvalidPathException"
        | "IllegalArgumentException"
        | "HadoopIllegalArgumentException"
        | "ParentNotDirectoryException"
        | "NotADirectoryException"
        | "UnresolvedLinkException"
        | "UnresolvedPathException"
        | "UnsupportedOperationException"
        | "SnapshotException" => StoreError::Refused(text),
        // Safe mode, standby, no DataNode to write to, and whatever is not known: others mend it, or a person who reads of it.
        _ => StoreError::Unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_error_is_one_line_and_asks_for_the_right_thing() {
        let trace = "\n\tat org.apache.hadoop.hdfs.server.namenode.FSNamesystem.check(FSNamesystem.java:1)\n";
        let of = |class: &str, text: &str| HdfsError::RPCError(class.into(), format!("{text}{trace}"));
        let cases = [
            (
                of(
                    "org.apache.hadoop.security.AccessControlException",
                    "Permission denied: user=x",
                ),
                "Refused",
            ),
            (
                of(
                    "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException",
                    "The DiskSpace quota of /q",
                ),
                "Refused",
            ),
            (
                of(
                    "org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException",
                    "256",
                ),
                "Refused",
            ),
            (
                of("org.apache.hadoop.fs.InvalidPathException", "Invalid path name"),
                "Refused",
            ),
            (
                of(
                    "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
                    "Cannot create",
                ),
                "Unavailable",
            ),
            (
                of("org.apache.hadoop.ipc.StandbyException", "Operation category WRITE"),
                "Unavailable",
            ),
            (
                of("org.apache.hadoop.ipc.RetriableException", "NameNode still not started"),
                "Unavailable",
            ),
            (
                of(
                    "java.io.IOException",
                    "could only be written to 0 of the 1 minReplication nodes",
                ),
                "Unavailable",
            ),
            (of("java.io.FileNotFoundException", "File does not exist"), "NotFound"),
            (
                of(
                    "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException",
                    "/d is non empty",
                ),
                "Changed",
            ),
            (HdfsError::AlreadyExists(trace.into()), "Changed"),
            (HdfsError::FileNotFound(trace.into()), "NotFound"),
            (HdfsError::ChecksumError, "Damaged"),
            (HdfsError::DataTransferError(format!("gone{trace}")), "Unavailable"),
            (HdfsError::NoSASLMechanism, "Unavailable"),
            (HdfsError::UnsupportedFeature("encryption zone".into()), "Refused"),
        ];
        for (error, expected) in cases {
            let said = said("/lake/a", "create", &error);
            let text = said.to_string();
            let kind = format!("{said:?}");
            assert!(kind.starts_with(expected), "{error}: {kind}");
            assert!(
                text.contains("/lake/a") && !text.contains('\n') && !text.contains("\tat "),
                "{text:?}"
            );
        }
    }

    #[tokio::test]
    async fn patience_grows_with_failures_and_slow_disks_and_comes_down_again() {
        let address = HdfsAddress {
            authority: "127.0.0.1:1".into(),
            prefix: String::new(),
            user: None,
        };
        let wire = Wire::new(address, &Settings::default()).unwrap();
        let fast = Duration::from_millis(1);
        assert_eq!(wire.patience(fast), PATIENCE);
        assert!(wire.patience(Duration::from_millis(100)) >= CLIENT_SLEEP);
        for _ in 0..6 {
            wire.learn(wire.patience(fast), false);
        }
        assert_eq!(wire.patience(fast), CLIENT_SLEEP);
        for _ in 0..2000 {
            wire.learn(wire.patience(fast), true);
        }
        assert_eq!(wire.patience(fast), PATIENCE);
    }

    #[tokio::test]
    async fn a_nameservice_that_no_file_knows_is_refused_with_advice() {
        let address = HdfsAddress {
            authority: "no-such-service".into(),
            prefix: String::new(),
            user: None,
        };
        let error = Wire::new(address, &Settings::default()).unwrap_err();
        assert!(
            matches!(&error, StoreError::Refused(text) if text.contains("host:port")),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_namenode_that_is_away_or_silent_is_unavailable_in_time() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed_address = closed.local_addr().unwrap();
        drop(closed);
        let settings = Settings {
            timeout: Duration::from_millis(300),
            ..Settings::default()
        };
        for (at, why) in [(silent.local_addr().unwrap(), "no answer"), (closed_address, "refused")] {
            let address = HdfsAddress {
                authority: at.to_string(),
                prefix: String::new(),
                user: Some("someone".into()),
            };
            let wire = Wire::new(address, &settings).unwrap();
            let began = Instant::now();
            let answer = wire.look("/x").await;
            assert!(
                matches!(&answer, Err(StoreError::Unavailable(text)) if text.contains(why)),
                "{answer:?}"
            );
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
    }
}
