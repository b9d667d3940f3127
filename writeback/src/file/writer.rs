//! The file writer: gives a written content its name, whole, in one transaction.
//!
//! 1. *Begun*: the name was looked at; what an append follows was copied to the front of the new content.
//! 2. *Written*: chunks go into the content as they come; nothing is visible.
//! 3. *Committed*: sealed, then one transaction makes the name lead to it, queues its upload and keeps the client's token.
//!
//! Writers of one path do not see each other before the commit; commits take turns. The last overwrite wins. An append whose
//! ground was changed by another is copied anew behind what is there now; one that named its offset is refused instead.

use super::{ContentWriter, SealedContent, copy, reader::FileReader};
use crate::{
    AckLevel, Cache, Error, ErrorKind, Result,
    cache::Inner,
    rows::{self, Content, FileWritten, TokenRow},
};
use bytes::Bytes;
use forebay_metastore::{Check, Key};
use forebay_namespace::{Create, Ino, Node, NsError, Path, Plan, Replace};
use forebay_segment::{Stable, StableWatch};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// A content is written once, so every file has this generation; a new content is a new inode.
const GENERATION: u32 = 1;

/// Longest wait of a write at level `persisted` before its outcome counts as unknown.
const PERSISTED_MAX: Duration = Duration::from_secs(60);

/// How a write meets what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// After what is there (a file's bytes, a dataset's rows).
    #[default]
    Append,
    /// Instead of it.
    Overwrite,
    /// Refused when something is there.
    Create,
}

/// A file to be written.
#[derive(Clone, Debug, Default)]
pub struct WriteFile {
    /// How it meets what is there.
    pub mode: WriteMode,
    /// Must equal the present size (0 when the file is missing); Precondition otherwise.
    pub offset: Option<u64>,
    /// Level of the commit; `None`: the cache's.
    pub ack: Option<AckLevel>,
    /// Idempotency key: the same write again is answered from the first.
    pub token: Option<String>,
    /// Bytes to come, when known.
    pub size_hint: Option<u64>,
    /// Permission bits; default what a file that is replaced has, else 0o644.
    pub mode_bits: Option<u32>,
}

/// What was accepted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Bytes written to the stream.
    pub written: u64,
}

/// A committed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The level it has.
    pub level: AckLevel,
    /// Bytes of the whole file.
    pub size: u64,
}

/// A file being written; dropped without [`FileWriter::commit`] nothing becomes visible.
#[derive(Debug)]
pub struct FileWriter {
    state: State,
}

#[derive(Debug)]
enum State {
    /// The token has committed before. `stable` counts what is appended and ignored.
    Repeated {
        answer: Committed,
        stable: watch::Sender<Stable>,
    },
    Writing {
        content: ContentWriter,
        stable: StableWatch,
        target: Box<Target>,
    },
}

/// Where a content goes, and what must be true of the name then.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    path: Path,
    how: WriteFile,
    level: AckLevel,
    ground: Ground,
}

/// What the new content takes the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Whatever is there.
    Any,
    /// Exactly this content ([`FileReader::identity`]; `None`: nothing), whose first `len` bytes are the first of the new one.
    Exactly { identity: Option<String>, len: u64 },
}

/// How one try to commit ended.
#[derive(Debug)]
pub(crate) enum Tried {
    /// The name leads to the new content.
    Done { replaced: Option<Node> },
    /// The token has committed before.
    Repeated(Committed),
    /// Another content lies there than the one copied from.
    Moved,
}

impl Cache {
    /// Begins to write a file. The token of an earlier, committed write answers [`FileWriter::repeated`].
    ///
    /// # Errors
    /// Exists in mode create; Precondition for a directory, below a file, or when the size is not `offset` (the text names it);
    /// Denied below a read-only mount.
    pub async fn write_file(&self, path: &Path, how: WriteFile) -> Result<FileWriter> {
        let inner = &self.inner;
        inner.check_writable(path)?;
        let level = how.ack.unwrap_or(inner.settings.ack);
        inner.check_level(path, level)?;
        if let Token::Known(answer) = inner.file_token(path, how.token.as_deref()).await? {
            return Ok(FileWriter::repeat(answer));
        }
        let before = inner.look_before(path, &how).await?;
        check_target(path, &how, before.as_ref())?;
        let mut content = inner.content_writer(inner.fresh_ino().await?, GENERATION, how.size_hint);
        let mut ground = Ground::Any;
        let mut copied = 0;
        if how.mode == WriteMode::Append {
            let old = before
                .map(|node| inner.read_node(path.to_string(), &node))
                .transpose()?;
            (ground, copied) = copy_ground(old.as_ref(), &mut content).await?;
        }
        let stable = inner.without_first(content.stable(), copied);
        let target = Box::new(Target {
            path: path.clone(),
            how,
            level,
            ground,
        });
        Ok(FileWriter {
            state: State::Writing {
                content,
                stable,
                target,
            },
        })
    }
}

impl FileWriter {
    fn repeat(answer: Committed) -> Self {
        Self {
            state: State::Repeated {
                answer,
                stable: watch::Sender::default(),
            },
        }
    }

    /// Whether this token has committed before: what is appended is ignored and `commit` repeats the first answer.
    pub fn repeated(&self) -> bool {
        matches!(self.state, State::Repeated { .. })
    }

    /// Appends. Waits while the dirty limit is reached.
    pub async fn append(&mut self, chunks: Vec<Bytes>) -> Result<Accepted> {
        match &mut self.state {
            State::Repeated { stable, .. } => {
                let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                stable.send_modify(|stable| {
                    stable.appends += 1;
                    stable.bytes += bytes;
                });
                Ok(Accepted {
                    written: stable.borrow().bytes,
                })
            }
            State::Writing { content, .. } => Ok(Accepted {
                written: content.append(&chunks, Bytes::new()).await?,
            }),
        }
    }

    /// How far it is durable; `appends` counts calls of [`FileWriter::append`].
    pub fn stable(&self) -> StableWatch {
        match &self.state {
            State::Repeated { stable, .. } => stable.subscribe(),
            State::Writing { stable, .. } => stable.clone(),
        }
    }

    /// Makes it visible whole, at the level. Once begun it goes on to its end, also when the caller does not wait for it.
    ///
    /// # Errors
    /// Precondition when an append's offset is not the size any more; Exists in mode create when another was faster;
    /// Deadline: outcome unknown, ask with the token.
    pub async fn commit(self) -> Result<Committed> {
        let (content, target) = match self.state {
            State::Repeated { answer, .. } => return Ok(answer),
            State::Writing { content, target, .. } => (content, target),
        };
        let inner = Arc::clone(content.inner());
        let (path, token, level) = (target.path.clone(), target.how.token.clone(), target.level);
        let commit = {
            let inner = Arc::clone(&inner);
            async move { inner.commit_file(content, *target).await }
        };
        let committed = inner
            .to_the_end("commit-file", commit)
            .await
            .map_err(|error| with_token(error, &path, token.as_deref()))?;
        if level == AckLevel::Persisted {
            let wait = Cache { inner }.wait_persisted(&path, PERSISTED_MAX).await;
            wait.map_err(|error| with_token(error, &path, token.as_deref()))?;
        }
        Ok(committed)
    }
}

impl Inner {
    /// Seals `content` and gives it its name.
    async fn commit_file(self: &Arc<Self>, content: ContentWriter, mut target: Target) -> Result<Committed> {
        let _entered = self.enter()?;
        let mut sealed = content.seal().await?;
        self.reach(forebay_runtime::crash_point!("sealed-not-committed"))?;
        let _turn = self.files.turns.take(&target.path).await;
        let mut attempts = self.attempts(format!("write {}", target.path));
        loop {
            match self.try_write(&target, &sealed).await {
                Ok(Tried::Done { replaced }) => {
                    let size = sealed.len;
                    self.written(sealed, replaced);
                    self.reach(forebay_runtime::crash_point!("committed-not-acked"))?;
                    return Ok(Committed {
                        level: target.level,
                        size,
                    });
                }
                Ok(Tried::Repeated(answer)) => return Ok(answer),
                Ok(Tried::Moved) => {
                    attempts.after(Error::lost()).await?;
                    (sealed, target.ground) = self.copy_anew(&target, &sealed).await?;
                }
                Err(error) if error.kind() == ErrorKind::Deadline => {
                    sealed.in_doubt();
                    return Err(error);
                }
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// After the commit that names `sealed`: it stays, what it replaced goes.
    pub(crate) fn written(&self, sealed: SealedContent, replaced: Option<Node>) {
        sealed.keep();
        if let Some(node) = replaced {
            self.discard_node(&node);
        }
        self.persist.wake();
    }

    /// Plans and commits once.
    pub(crate) async fn try_write(&self, target: &Target, sealed: &SealedContent) -> Result<Tried> {
        let Target {
            path,
            how,
            level,
            ground,
        } = target;
        let token = self.file_token(path, how.token.as_deref()).await?;
        if let Token::Known(answer) = token {
            return Ok(Tried::Repeated(answer));
        }
        let ino = Ino(sealed.stream().0);
        let planned = self.names.plan_create(path, create(how, sealed, ino)).await?;
        check_target(path, how, planned.replaced.as_ref())?;
        if let Ground::Exactly { identity, .. } = ground
            && *identity != planned.replaced.as_ref().and_then(|node| self.identity_of(node))
        {
            return Ok(Tried::Moved);
        }
        let mut plan = planned.plan;
        let work = self
            .persist
            .plan_put(&mut plan, ino, GENERATION, path, planned.replaced.as_ref())
            .await?;
        let content = Content::Sealed {
            layout: sealed.layout.clone(),
            work,
            crc: sealed.crc,
        }
        .encode();
        plan.amend(ino, |inode| {
            inode.content = content;
            if let Some(Node::Row { inode: old, .. }) = &planned.replaced {
                (inode.uid, inode.gid, inode.xattrs) = (old.uid, old.gid, old.xattrs.clone());
                inode.mode = how.mode_bits.unwrap_or(old.mode);
            }
        })?;
        self.plan_token(
            &mut plan,
            path,
            token,
            FileWritten {
                level: *level,
                size: sealed.len,
            },
        );
        self.commit(plan).await?;
        Ok(Tried::Done {
            replaced: planned.replaced,
        })
    }

    /// An append whose ground has changed: what is there now, then the bytes that were written.
    async fn copy_anew(self: &Arc<Self>, target: &Target, sealed: &SealedContent) -> Result<(SealedContent, Ground)> {
        let Ground::Exactly { len: old_len, .. } = target.ground else {
            return Err(Error::internal(format!(
                "{}: a write without ground can not lose it",
                target.path
            )));
        };
        let path = &target.path;
        let own = self.read_sealed(path.to_string(), sealed)?;
        let now = self.names.resolve(path).await?;
        let now = now.map(|node| self.read_node(path.to_string(), &node)).transpose()?;
        let mut content = self.content_writer(self.fresh_ino().await?, GENERATION, None);
        let (ground, _) = copy_ground(now.as_ref(), &mut content).await?;
        copy::range(&own, old_len..own.size(), &mut content).await?;
        Ok((content.seal().await?, ground))
    }

    /// What is at `path` before the write. A store that is away holds back only a write that needs to know.
    async fn look_before(&self, path: &Path, how: &WriteFile) -> Result<Option<Node>> {
        match self.names.resolve(path).await {
            Ok(found) => Ok(found),
            Err(NsError::Base(_)) if how.mode != WriteMode::Append && how.offset.is_none() => Ok(None),
            // Put creates missing parents.
            Err(NsError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses a level that can not be reached at `path`.
    pub(crate) fn check_level(&self, path: &Path, level: AckLevel) -> Result<()> {
        if level == AckLevel::Persisted && self.mounts.resolve(path).is_none() {
            return Err(Error::precondition(format!(
                "{path}: no under-store is mounted there, so level `persisted` can not be reached; use `local`"
            )));
        }
        Ok(())
    }

    /// A watch that does not count the first `appends`.
    fn without_first(&self, mut source: StableWatch, appends: u64) -> StableWatch {
        if appends == 0 {
            return source;
        }
        let shifted = move |stable: &Stable| Stable {
            appends: stable.appends.saturating_sub(appends),
            ..stable.clone()
        };
        let sender = watch::Sender::new(shifted(&source.borrow_and_update()));
        let watch = sender.subscribe();
        let shutdown = self.tasks.shutdown().clone();
        // Ends with the writer, with the last one who watches, or with the cache.
        self.tasks.spawn("stable", async move {
            loop {
                tokio::select! {
                    changed = source.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                    () = shutdown.cancelled() => return,
                }
                sender.send_replace(shifted(&source.borrow_and_update()));
            }
        });
        watch
    }
}

/// Copies what is there to the front of `content`. Answers the ground and the appends it took.
async fn copy_ground(old: Option<&FileReader>, content: &mut ContentWriter) -> Result<(Ground, u64)> {
    let (identity, len) = (old.map(FileReader::identity), old.map_or(0, FileReader::size));
    let appends = match old {
        Some(old) => copy::range(old, 0..len, content).await?,
        None => 0,
    };
    Ok((Ground::Exactly { identity, len }, appends))
}

fn create(how: &WriteFile, sealed: &SealedContent, ino: Ino) -> Create {
    let replace = if how.mode == WriteMode::Create {
        Replace::Never
    } else {
        Replace::File
    };
    Create {
        mode: how.mode_bits.unwrap_or(0o644) & 0o7777,
        size: sealed.len,
        generation: GENERATION,
        token: how.token.clone(),
        parents: true,
        replace,
        ino: Some(ino),
        ..Create::default()
    }
}

/// Whether the write may meet what is there.
fn check_target(path: &Path, how: &WriteFile, there: Option<&Node>) -> Result<()> {
    if path.is_root() || there.is_some_and(Node::is_dir) {
        return Err(Error::precondition(format!(
            "{path}: is a directory; a file can not take its place"
        )));
    }
    if how.mode == WriteMode::Create && there.is_some() {
        return Err(Error::exists(format!(
            "{path}: exists already; overwrite it, or choose another name"
        )));
    }
    let size = there.map_or(0, size_of);
    match how.offset {
        Some(offset) if offset != size => Err(Error::precondition(format!(
            "{path}: has {size} bytes, and the write expects {offset}; look at what is there, then write at {size}"
        ))),
        _ => Ok(()),
    }
}

pub(crate) fn size_of(node: &Node) -> u64 {
    match node {
        Node::Row { inode, .. } => inode.size,
        Node::Base { entry, .. } => entry.size,
    }
}

/// An unknown outcome names what to ask with.
fn with_token(error: Error, path: &Path, token: Option<&str>) -> Error {
    if error.kind() != ErrorKind::Deadline {
        return error;
    }
    match token {
        Some(token) => Error::deadline(format!("{path}: outcome unknown, ask with token {token} ({error})")),
        None => Error::deadline(format!(
            "{path}: outcome unknown, and the write had no token: stat it to find out ({error})"
        )),
    }
}

/// What is known of a write's token.
#[derive(Debug)]
pub(crate) enum Token {
    /// The write has none.
    Unnamed,
    /// Not seen before; its row is written with the commit.
    New(Key, Check),
    /// It has committed.
    Known(Committed),
}

impl Inner {
    async fn file_token(&self, path: &Path, token: Option<&str>) -> Result<Token> {
        let Some(token) = token else { return Ok(Token::Unnamed) };
        let scope = token_scope(path);
        let key = rows::token_key(&scope, token)?;
        let found = self
            .components
            .meta
            .get(std::slice::from_ref(&key))
            .await?
            .pop()
            .flatten();
        let Some(entry) = found else {
            let check = Check::Absent(key.clone());
            return Ok(Token::New(key, check));
        };
        let row: TokenRow = rows::decode(&entry.value)?;
        if row.scope != scope {
            // Another path with the same hash: that one's token is given up rather than mistaken for ours.
            let check = Check::At(key.clone(), entry.version);
            return Ok(Token::New(key, check));
        }
        let FileWritten { level, size } = rows::decode(&row.result)?;
        Ok(Token::Known(Committed { level, size }))
    }

    fn plan_token(&self, plan: &mut Plan, path: &Path, token: Token, answer: FileWritten) {
        let Token::New(key, check) = token else { return };
        let result = rows::encode(&answer).to_vec();
        let row = TokenRow {
            scope: token_scope(path),
            at: self.components.clock.now().0,
            result,
        };
        plan.check(check).put(key, rows::encode(&row));
    }
}

fn token_scope(path: &Path) -> Vec<u8> {
    [b"file:".as_slice(), &path.as_bytes()].concat()
}

impl Cache {
    /// Cuts a file or extends it with zeros; a new content, visible whole. Precondition for a directory; Full when it could
    /// never be dirty at once.
    pub async fn truncate(&self, path: &Path, size: u64) -> Result<()> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        self.inner
            .to_the_end("truncate", async move { inner.truncate(&path, size).await })
            .await
    }
}

impl Inner {
    async fn truncate(self: &Arc<Self>, path: &Path, size: u64) -> Result<()> {
        let _entered = self.enter()?;
        self.check_writable(path)?;
        self.dirty.check_size(size)?;
        let _turn = self.files.turns.take(path).await;
        let mut attempts = self.attempts(format!("truncate {path}"));
        loop {
            let (sealed, target) = self.cut_copy(path, size).await?;
            match self.try_write(&target, &sealed).await {
                Ok(Tried::Done { replaced }) => {
                    self.written(sealed, replaced);
                    return Ok(());
                }
                Ok(Tried::Moved | Tried::Repeated(_)) => attempts.after(Error::lost()).await?,
                Err(error) if error.kind() == ErrorKind::Deadline => {
                    sealed.in_doubt();
                    return Err(with_token(error, path, None));
                }
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// The first `size` bytes of the file at `path`, zeros behind its end.
    async fn cut_copy(self: &Arc<Self>, path: &Path, size: u64) -> Result<(SealedContent, Target)> {
        let node = self
            .names
            .resolve(path)
            .await?
            .ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
        let how = WriteFile {
            mode: WriteMode::Overwrite,
            ..WriteFile::default()
        };
        check_target(path, &how, Some(&node))?;
        let old = self.read_node(path.to_string(), &node)?;
        let kept = old.size().min(size);
        let mut content = self.content_writer(self.fresh_ino().await?, GENERATION, Some(size));
        copy::range(&old, 0..kept, &mut content).await?;
        copy::zeros(size - kept, &mut content).await?;
        let ground = Ground::Exactly {
            identity: Some(old.identity()),
            len: kept,
        };
        Ok((
            content.seal().await?,
            Target {
                path: path.clone(),
                how,
                level: self.settings.ack,
                ground,
            },
        ))
    }
}
