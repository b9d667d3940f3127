//! The file writer, as doors see it: chunks in, one commit.
//!
//! 1. *Begun*: the name was looked at; what an append follows was copied to the front of the new content.
//! 2. *Written*: chunks go into the content as they come; nothing is visible.
//! 3. *Committed*: sealed, then one transaction gives it its name (`place`).

use super::{
    ContentWriter,
    place::{GENERATION, Ground, Target, Token, check_target, copy_ground, with_token},
};
use crate::{AckLevel, Cache, Error, ErrorKind, Result, attributes::check_user_xattrs, cache::Inner, policy::Adds};
use bytes::Bytes;
use forebay_namespace::{Node, NsError, Path};
use forebay_runtime::clock::Timestamp;
use forebay_segment::{Stable, StableWatch};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Longest wait of a write at level `persisted` before its outcome counts as unknown.
const PERSISTED_MAX: Duration = Duration::from_secs(60);

/// Times that an append begins again because what it follows was changed in the under-store while it was copied.
const MOVED_MAX: u32 = 8;

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
    /// Must be the etag of the file that is there ([`Stat::etag`](crate::names::Stat::etag)), when the write begins and in the transaction
    /// that commits it; Precondition otherwise, also when there is none.
    pub if_etag: Option<String>,
    /// Level of the commit; `None`: what the policies say.
    pub ack: Option<AckLevel>,
    /// Idempotency key: the same write again is answered from the first.
    pub token: Option<String>,
    /// Bytes to come, when known.
    pub size_hint: Option<u64>,
    /// Permission bits; default what a file that is replaced has, else 0o644.
    pub mode_bits: Option<u32>,
    /// User and group; default what a file that is replaced has, else 0.
    pub owner: Option<(u32, u32)>,
    /// Extended attributes, all of whose names begin with `user.`: the file has these of that kind and no others. `None`: what a file that is
    /// replaced has.
    pub user_xattrs: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Last content change; default now.
    pub mtime: Option<Timestamp>,
    /// Last change of any kind; default now.
    pub ctime: Option<Timestamp>,
    /// A missing directory is refused with NotFound at the commit, instead of being created.
    pub needs_directory: bool,
    /// A missing file is refused with NotFound instead of being created. An append follows a file that is renamed meanwhile, with or
    /// without this.
    pub needs_file: bool,
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
    /// The etag that it has since, whatever was written there later. Not known of a write of an earlier version that is repeated by its
    /// token.
    pub etag: Option<String>,
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
    Writing(Box<Writing>),
}

#[derive(Debug)]
struct Writing {
    content: ContentWriter,
    stable: StableWatch,
    target: Target,
    /// What the commit would add so far, and of whose.
    added: Adds,
    owner: u32,
}

impl Cache {
    /// Begins to write a file. The token of an earlier, committed write answers [`FileWriter::repeated`].
    ///
    /// # Errors
    /// Exists in mode create; Precondition for a directory, below a file, or when the size is not `offset` or the etag not `if_etag` (the
    /// text names what is there); Denied below a read-only mount; Invalid or Full for extended attributes that no name can have.
    pub async fn write_file(&self, path: &Path, how: WriteFile) -> Result<FileWriter> {
        let inner = &self.inner;
        inner.check_writable(path)?;
        let level = inner.level_of(path, how.ack);
        inner.check_level(path, level)?;
        if let Some(xattrs) = &how.user_xattrs {
            check_user_xattrs(path, xattrs)?;
        }
        if let Token::Known(answer) = inner.file_token(path, how.token.as_deref()).await? {
            return Ok(FileWriter::repeat(answer));
        }
        let Begun {
            content,
            ground,
            copied,
            added,
            owner,
        } = inner.begin_content(path, &how).await?;
        let stable = inner.without_first(content.stable(), copied);
        let target = Target {
            path: path.clone(),
            how,
            level,
            ground,
            note: None,
        };
        Ok(FileWriter {
            state: State::Writing(Box::new(Writing {
                content,
                stable,
                target,
                added,
                owner,
            })),
        })
    }
}

impl Cache {
    /// Waits, where policies ask for level `persisted` at `path`, until the under-store has what is there.
    ///
    /// # Errors
    /// Deadline: not in time. What was written is here all the same, and goes on its way.
    pub async fn reach_level(&self, path: &Path) -> Result<()> {
        match self.inner.ack_level_at(path) {
            AckLevel::Persisted => self.persist_now(path, PERSISTED_MAX).await,
            _ => Ok(()),
        }
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
            State::Writing(writing) => {
                let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
                writing.added = std::mem::take(&mut writing.added).plus(Adds::bytes(writing.owner, bytes));
                // What could not be committed anyway is not taken in.
                let inner = Arc::clone(writing.content.inner());
                inner.check_share(&writing.target.path, &writing.added).await?;
                Ok(Accepted {
                    written: writing.content.append(&chunks, Bytes::new()).await?,
                })
            }
        }
    }

    /// How far it is durable; `appends` counts calls of [`FileWriter::append`].
    pub fn stable(&self) -> StableWatch {
        match &self.state {
            State::Repeated { stable, .. } => stable.subscribe(),
            State::Writing(writing) => writing.stable.clone(),
        }
    }

    /// Makes it visible whole, at the level. Once begun it goes on to its end, also when the caller does not wait for it.
    ///
    /// # Errors
    /// Precondition when an append's offset is not the size any more, or `if_etag` not the etag; Exists in mode create when another was
    /// faster;
    /// Deadline: outcome unknown, ask with the token.
    pub async fn commit(self) -> Result<Committed> {
        let Writing { content, target, .. } = match self.state {
            State::Repeated { answer, .. } => return Ok(answer),
            State::Writing(writing) => *writing,
        };
        let inner = Arc::clone(content.inner());
        let (path, token, level) = (target.path.clone(), target.how.token.clone(), target.level);
        let commit = {
            let inner = Arc::clone(&inner);
            async move { inner.commit_file(content, target).await }
        };
        let (committed, path) = inner
            .to_the_end("commit-file", commit)
            .await
            .map_err(|error| with_token(error, &path, token.as_deref()))?;
        if level == AckLevel::Persisted {
            let wait = Cache { inner }.persist_now(&path, PERSISTED_MAX).await;
            wait.map_err(|error| with_token(error, &path, token.as_deref()))?;
        }
        Ok(committed)
    }
}

/// What a write begins with.
struct Begun {
    content: ContentWriter,
    /// What it takes the place of.
    ground: Ground,
    /// How many appends of the content are what was there before.
    copied: u64,
    /// What it would add to quotas if it had no bytes.
    added: Adds,
    /// Who owns the file then.
    owner: u32,
}

/// Who owns the file then.
fn owner_of(how: &WriteFile, before: Option<&Node>) -> u32 {
    let owner = how.owner.or(before.map(Node::owner));
    owner.map_or(0, |(uid, _)| uid)
}

/// What a write adds at least, as far as can be known when it begins.
fn least_added(how: &WriteFile, before: Option<&Node>, owner: u32) -> Adds {
    let hint = how.size_hint.unwrap_or(0);
    match before {
        // Nothing would be written in vain unless it has bytes.
        None => Adds::file(owner, hint.max(1)),
        Some(_) if how.mode == WriteMode::Append => Adds::bytes(owner, hint),
        Some(before) => Adds::file(owner, hint).minus(Adds::of(before)),
    }
}

impl Inner {
    /// A content for the write.
    async fn begin_content(self: &Arc<Self>, path: &Path, how: &WriteFile) -> Result<Begun> {
        let mut moved = 0;
        loop {
            let before = self.look_before(path, how).await?;
            if how.needs_file && before.is_none() {
                return Err(Error::not_found(format!("{path}: not found")));
            }
            check_target(path, how, before.as_ref())?;
            self.check_etag(path, how, before.as_ref())?;
            let owner = owner_of(how, before.as_ref());
            self.check_share(path, &least_added(how, before.as_ref(), owner))
                .await?;
            let mut content = self.content_writer(self.fresh_ino().await?, GENERATION, how.size_hint);
            if how.mode != WriteMode::Append {
                let replaced = before.as_ref().map(Adds::of).unwrap_or_default();
                return Ok(Begun {
                    content,
                    ground: Ground::Any,
                    copied: 0,
                    added: Adds::file(owner, 0).minus(replaced),
                    owner,
                });
            }
            let ino = before.as_ref().and_then(Node::ino);
            let added = before.as_ref().map_or(Adds::file(owner, 0), |_| Adds::default());
            let old = before.map(|node| self.read_node(path.to_string(), &node)).transpose()?;
            match copy_ground(ino, old.as_ref(), &mut content).await {
                // The under-store has another content by now; the next look shows it.
                Err(error) if error.kind() == ErrorKind::Precondition && moved < MOVED_MAX => moved += 1,
                other => {
                    let (ground, copied) = other?;
                    return Ok(Begun {
                        content,
                        ground,
                        copied,
                        added,
                        owner,
                    });
                }
            }
        }
    }

    /// What is at `path` before the write. A store that is away holds back only a write that needs to know.
    pub(super) async fn look_before(&self, path: &Path, how: &WriteFile) -> Result<Option<Node>> {
        let must_know = how.mode == WriteMode::Append || how.offset.is_some() || how.if_etag.is_some();
        match self.names.resolve(path).await {
            Ok(Some(node)) if must_know => self.revalidate(path, node).await,
            Ok(found) => Ok(found),
            Err(NsError::Base(_)) if !must_know => Ok(None),
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
                    biased;
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
