//! The place of a content: one transaction makes a name lead to it, queues its upload and keeps the client's token.
//!
//! Writers of one path do not see each other before the commit; commits take turns. The last overwrite wins. An append whose
//! ground was changed by another is copied anew behind what is there now; one that named its offset is refused instead.

use super::{Committed, ContentWriter, FileReader, SealedContent, WriteFile, WriteMode, copy, draft::AwaitedRow};
use crate::{
    AckLevel, Error, ErrorKind, Mismatch, Result,
    attributes::{bytes_of, check_bytes, replace_user_xattrs},
    cache::Inner,
    changes::Change,
    dataset::Unnamed,
    policy::Adds,
    rows::{self, Content, FileWritten, TokenRow},
};
use forebay_metastore::{Announced, Check, Key};
use forebay_namespace::{Create, Ino, Inode, Node, NsError, Path, Plan, Replace};
use forebay_segment::StreamId;
use futures::poll;
use std::{pin::pin, sync::Arc, task::Poll};

/// A content is written once, so every file has this generation; a new content is a new inode.
pub(super) const GENERATION: u32 = 1;

/// Where a content goes, and what must be true of the name then.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(super) path: Path,
    pub(super) how: WriteFile,
    pub(super) level: AckLevel,
    pub(super) ground: Ground,
    /// A row that has done its work with the commit.
    pub(super) note: Option<Key>,
}

/// A content that was seen at a name.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// [`FileReader::identity`].
    pub(super) identity: String,
    /// The same where only the under-store has it.
    pub(super) in_store: Option<String>,
    /// Its row, where it is needed to find it again.
    pub(super) _row: Option<Arc<AwaitedRow>>,
}

impl Seen {
    /// Whether this is its identity.
    pub(super) fn is(&self, identity: &str) -> bool {
        self.identity == identity || self.in_store.as_deref() == Some(identity)
    }
}

/// What the new content takes the place of.
#[derive(Clone, Debug)]
pub(crate) enum Ground {
    /// Whatever is there.
    Any,
    /// Exactly this content ([`FileReader::identity`]; `None`: nothing), whose first `len` bytes are the first of the new one. `ino`:
    /// of the row it had.
    Exactly {
        identity: Option<String>,
        ino: Option<Ino>,
        len: u64,
    },
    /// The content (`None`: nothing) that a draft was made of. Aborted when it is another.
    Unchanged(Option<Seen>),
}

/// How one try to commit ended.
#[derive(Debug)]
pub(crate) enum Tried {
    /// The name leads to the new content.
    Done { replaced: Option<Unnamed> },
    /// The token has committed before.
    Repeated(Committed),
    /// Another content lies there than the one copied from.
    Moved,
}

impl Inner {
    /// Seals `content` and gives it its name. Answers the name too: an append goes where the file has gone.
    pub(super) async fn commit_file(
        self: &Arc<Self>,
        content: ContentWriter,
        mut target: Target,
    ) -> Result<(Committed, Path)> {
        let committed = self.commit_in_turn(content, &mut target).await?;
        // Whoever is told may have to wait for others who wait for their turn.
        self.tell(Change::Name(target.path.clone())).await;
        Ok((committed, target.path))
    }

    async fn commit_in_turn(self: &Arc<Self>, content: ContentWriter, target: &mut Target) -> Result<Committed> {
        let _entered = self.enter()?;
        // Those that one flush makes durable come to the metastore together. A large content has flushes of its own, which take long.
        let mut announced = if content.is_packed() {
            self.components.meta.announce()
        } else {
            Announced::default()
        };
        let mut sealed = content.seal().await?;
        self.reach(forebay_runtime::crash_point!("sealed-not-committed"))?;
        let path = target.path.clone();
        let mut turn = pin!(self.files.turns.take(&path));
        let mut turn = match poll!(turn.as_mut()) {
            Poll::Ready(turn) => turn,
            Poll::Pending => {
                // Nobody shall wait for one who waits for another.
                announced = Announced::default();
                turn.await
            }
        };
        let mut attempts = self.attempts(format!("write {}", target.path));
        loop {
            match self.try_write(target, &sealed, std::mem::take(&mut announced)).await {
                Ok(Tried::Done { replaced }) => {
                    let committed = Committed {
                        level: target.level,
                        size: sealed.len,
                        etag: Some(sealed.stream().to_string()),
                    };
                    self.written(sealed, replaced);
                    self.reach(forebay_runtime::crash_point!("committed-not-acked"))?;
                    return Ok(committed);
                }
                Ok(Tried::Repeated(answer)) => return Ok(answer),
                Ok(Tried::Moved) => {
                    attempts.after(Error::lost()).await?;
                    if let Some(path) = self.gone_to(target).await? {
                        // Whoever waits for this turn may have the other one.
                        drop(turn);
                        target.path = path;
                        turn = self.files.turns.take(&target.path).await;
                        continue;
                    }
                    (sealed, target.ground) = self.copy_anew(target, &sealed).await?;
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
    pub(crate) fn written(&self, sealed: SealedContent, replaced: Option<Unnamed>) {
        sealed.keep();
        if let Some(gone) = replaced {
            self.part_with(&gone);
        }
        self.persist.wake();
    }

    /// Plans and commits once.
    pub(crate) async fn try_write(
        &self,
        target: &Target,
        sealed: &SealedContent,
        announced: Announced,
    ) -> Result<Tried> {
        let Target {
            path,
            how,
            level,
            ground,
            note,
        } = target;
        let token = self.file_token(path, how.token.as_deref()).await?;
        if let Token::Known(answer) = token {
            return Ok(Tried::Repeated(answer));
        }
        let ino = Ino(sealed.stream().0);
        let planned = self.names.plan_create(path, create(how, sealed, ino)).await?;
        check_target(path, how, planned.replaced.as_ref())?;
        self.check_etag_now(path, how, planned.replaced.as_ref()).await?;
        match ground {
            Ground::Any => {}
            Ground::Exactly { identity, .. } => {
                if *identity != planned.replaced.as_ref().and_then(|node| self.identity_of(node)) {
                    return Ok(Tried::Moved);
                }
            }
            Ground::Unchanged(seen) => self.check_unchanged(path, seen.as_ref(), planned.replaced.as_ref())?,
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
        let (mut xattrs_bytes, mut owner) = (0, 0);
        plan.amend(ino, |inode| {
            inode.content = content;
            dress(inode, how, planned.replaced.as_ref());
            (xattrs_bytes, owner) = (bytes_of(&inode.xattrs), inode.uid);
        })?;
        // What is only inherited has been taken before.
        if how.user_xattrs.is_some() {
            check_bytes(path, xattrs_bytes)?;
        }
        self.plan_token(
            &mut plan,
            path,
            token,
            FileWritten {
                level: *level,
                size: sealed.len,
                ino: Some(ino.0),
            },
        );
        if let Some(note) = note {
            plan.delete(note.clone());
        }
        let kept = self
            .plan_kept_by_versions(&mut plan, path, planned.replaced.as_ref())
            .await?;
        let replaced = planned.replaced.as_ref().map(Adds::of).unwrap_or_default();
        let adds = Adds::file(owner, sealed.len).minus(replaced);
        let share = self.take_share(path, &adds).await?;
        drop(announced);
        self.commit_with(plan, share).await?;
        let replaced = planned.replaced.map(|node| Unnamed { node, kept });
        Ok(Tried::Done { replaced })
    }

    /// Aborted when a name does not lead to the content of which a draft was made: what somebody else has been told is there stays.
    pub(super) fn check_unchanged(&self, path: &Path, seen: Option<&Seen>, there: Option<&Node>) -> Result<()> {
        match self.has_content(seen, there)? {
            true => Ok(()),
            false => Err(Error::aborted(format!(
                "{path}: was changed, removed or created through another door while it was written; open it again"
            ))),
        }
    }

    /// Precondition when a write on condition would meet another content than the one it names, or none.
    pub(super) fn check_etag(&self, path: &Path, how: &WriteFile, there: Option<&Node>) -> Result<()> {
        let Some(etag) = &how.if_etag else { return Ok(()) };
        let now = match there {
            Some(node) if self.has_etag(etag, node)? => return Ok(()),
            Some(node) => match self.etag_of(node)? {
                Some(now) => format!("has etag {now} now"),
                None => "is a link, or a file that is being written".to_owned(),
            },
            None => "nothing is there".to_owned(),
        };
        Err(Error::precondition(format!(
            "{path}: {now}, and the write is for etag {etag}; look at what is there, and write on its etag"
        )))
    }

    /// The same in a plan, which takes a store that is away for one that has nothing there.
    async fn check_etag_now(&self, path: &Path, how: &WriteFile, planned: Option<&Node>) -> Result<()> {
        if how.if_etag.is_some() && planned.is_none() && self.look_before(path, how).await?.is_some() {
            return Err(Error::lost());
        }
        self.check_etag(path, how, planned)
    }

    /// The new name of the file that an append follows, when its old name leads nowhere.
    async fn gone_to(&self, target: &Target) -> Result<Option<Path>> {
        let Ground::Exactly { ino, .. } = target.ground else {
            return Ok(None);
        };
        match self.names.resolve(&target.path).await {
            Ok(Some(_)) => return Ok(None),
            Ok(None) | Err(NsError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let path = match ino {
            Some(ino) => self.names.path_of(ino).await?,
            None => None,
        };
        if path.is_none() && target.how.needs_file {
            let text = format!("{}: was removed while it was appended to", target.path);
            return Err(Error::not_found(text));
        }
        Ok(path)
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
        let now = self.look(path).await?;
        let ino = now.as_ref().and_then(Node::ino);
        let now = now.map(|node| self.read_node(path.to_string(), &node)).transpose()?;
        let mut content = self.content_writer(self.fresh_ino().await?, GENERATION, None);
        let (ground, _) = copy_ground(ino, now.as_ref(), &mut content).await?;
        copy::range(&own, old_len..own.size(), &mut content).await?;
        Ok((content.seal().await?, ground))
    }
}

/// Copies what is there to the front of `content`. Answers the ground and the appends it took.
pub(super) async fn copy_ground(
    ino: Option<Ino>,
    old: Option<&FileReader>,
    content: &mut ContentWriter,
) -> Result<(Ground, u64)> {
    let (identity, len) = (old.map(FileReader::identity), old.map_or(0, FileReader::size));
    let appends = match old {
        Some(old) => copy::range(old, 0..len, content).await?,
        None => 0,
    };
    Ok((Ground::Exactly { identity, ino, len }, appends))
}

pub(super) fn create(how: &WriteFile, sealed: &SealedContent, ino: Ino) -> Create {
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
        parents: !how.needs_directory,
        replace,
        ino: Some(ino),
        ..Create::default()
    }
}

/// Gives the row of a new content what it takes over, and what the write says of it.
fn dress(inode: &mut Inode, how: &WriteFile, replaced: Option<&Node>) {
    if let Some(old) = replaced {
        inode.inherit(old);
        inode.mode = how.mode_bits.unwrap_or(inode.mode);
    }
    if let Some((uid, gid)) = how.owner {
        (inode.uid, inode.gid) = (uid, gid);
    }
    if let Some(xattrs) = &how.user_xattrs {
        replace_user_xattrs(inode, xattrs);
    }
    inode.mtime = how.mtime.unwrap_or(inode.mtime);
    inode.ctime = how.ctime.unwrap_or(inode.ctime);
}

/// Whether the write may meet what is there.
pub(super) fn check_target(path: &Path, how: &WriteFile, there: Option<&Node>) -> Result<()> {
    if path.is_root() || there.is_some_and(Node::is_dir) {
        let text = format!("{path}: is a directory; a file can not take its place");
        return Err(Error::precondition(text).because(Mismatch::IsADirectory));
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

pub(super) fn size_of(node: &Node) -> u64 {
    match node {
        Node::Row { inode, .. } => inode.size,
        Node::Base { entry, .. } => entry.size,
    }
}

/// An unknown outcome names what to ask with.
pub(super) fn with_token(error: Error, path: &Path, token: Option<&str>) -> Error {
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
    pub(super) async fn file_token(&self, path: &Path, token: Option<&str>) -> Result<Token> {
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
        let FileWritten { level, size, ino } = FileWritten::decode(&row.result)?;
        let etag = ino.map(|ino| StreamId(ino, GENERATION).to_string());
        Ok(Token::Known(Committed { level, size, etag }))
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
