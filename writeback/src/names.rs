//! Names as doors see them: stat, list, mkdir, rename, delete. (Truncate changes content and lies with `file`.)
//!
//! It owns the rules that need more than the namespace: which changes queue work for the persister, which layouts and dirty
//! bytes become free when a name goes, which dataset rows go with a directory. It does not own content (`file`) nor versions
//! (`dataset`). Every change is one commit: a recursive delete cuts the directory off, and `collect` frees what lies under it.

use crate::{
    Cache, Error, Mismatch, Result,
    cache::Inner,
    changes::Change,
    clean::CleanReader,
    dataset::{DatasetGone, Unnamed},
    list,
    mounts::Mount,
    rows::Content,
};
use crc_fast::CrcAlgorithm;
use forebay_metastore::Check;
use forebay_namespace::{BaseEntry, Create, Ino, Inode, Kind, Node, NsError, Path, Plan, RenameHow, Unlinked};
use forebay_runtime::clock::Timestamp;
use forebay_understore::Validator;
use futures::stream::BoxStream;
use std::sync::Arc;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The path.
    pub path: Path,
    /// What it is.
    pub kind: StatKind,
    /// Bytes of a file.
    pub size: u64,
    /// Last content change.
    pub mtime: Timestamp,
    /// Permission bits.
    pub mode: u32,
    /// Where its content stands. A directory: `sealed` while anything of its own waits to be persisted, else `clean`.
    pub state: State,
    /// Bytes of it that are on the local disk or in memory.
    pub cached_bytes: u64,
    /// Head version, when it is a dataset that Forebay published.
    pub version: Option<u64>,
    /// Of a file, unless it is `open`. No other content that the path ever leads to has the same; this content may get another one, when
    /// nothing but the under-store has it any more.
    pub etag: Option<String>,
    /// Number of its row, which stays while the name's content is not written anew; without a row one with the highest bit set, made
    /// of its place in the under-store and, of a file, of what the store says of the content.
    pub id: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of any kind.
    pub ctime: Timestamp,
    /// Last access, as far as it was set.
    pub atime: Timestamp,
    /// Where a symbolic link leads.
    pub target: Option<Vec<u8>>,
    /// The bits of `S_IFMT` and the device number of a pipe, socket or device.
    pub special: Option<(u32, u32)>,
}

/// Numbers of what has no row have this bit, so that they are no row's.
pub(crate) const PLACE_BIT: u64 = 1 << 63;

/// Kinds of name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device.
    Special,
}

/// Where content stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Being written.
    Open,
    /// Dirty.
    Sealed,
    /// In the under-store, written by us.
    Persisted,
    /// In the under-store, no row of ours.
    Clean,
}

/// How to list.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Everything below, directories before what they hold.
    pub recursive: bool,
    /// Only paths greater than this one, in byte order of the absolute path's components: a directory comes right before what
    /// lies in it, and before its siblings (`/a`, `/a/x`, `/a-b`).
    pub after: Option<Path>,
    /// Most entries.
    pub limit: Option<usize>,
}

/// How to rename.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rename {
    /// A file, or an empty directory, at the target gives way.
    pub replace: bool,
    /// Missing parents of the target are created.
    pub parents: bool,
    /// Both exist and change places.
    pub exchange: bool,
}

/// What can be made without content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MakeKind {
    /// A directory.
    Dir,
    /// A symbolic link that leads there.
    Symlink(Vec<u8>),
    /// A pipe, socket or device: the bits of `S_IFMT` and the device number.
    Special(u32, u32),
}

/// A name without content to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Make {
    /// What.
    pub kind: MakeKind,
    /// Missing parents are created, and a directory that is there already is fine.
    pub parents: bool,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Make {
    /// A directory, mode 755, of user and group 0.
    pub fn dir() -> Self {
        Self {
            kind: MakeKind::Dir,
            parents: false,
            mode: 0o755,
            uid: 0,
            gid: 0,
        }
    }
}

impl Cache {
    /// What is at `path`. NotFound when nothing is.
    pub async fn stat(&self, path: &Path) -> Result<Stat> {
        let node = self.inner.must_find(path).await?;
        self.inner.stat_of_one(path, node).await
    }

    /// The entries under directory `path`, one page at a time behind the stream: memory stays bounded. Its first item is an
    /// error when there is no such directory: NotFound, or Precondition for a file.
    pub fn list(&self, path: &Path, how: List) -> BoxStream<'static, Result<Stat>> {
        list::stream(Arc::clone(&self.inner), path.clone(), how)
    }

    /// Up to `limit` (at most [`forebay_namespace::LIST_PAGE_MAX`]) entries directly in directory `path` with names greater than `after`, in byte order;
    /// fewer: the end. NotFound, or Precondition for a file.
    pub async fn list_page(&self, path: &Path, after: Option<&[u8]>, limit: usize) -> Result<Vec<Stat>> {
        let listed = self.inner.names.list(path, after, limit).await?;
        let nodes = listed.into_iter().map(|(name, node)| Ok((path.join(&name)?, node)));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        self.inner.stats_of(nodes).await
    }

    /// Creates a directory. Exists when something is there (also with `parents`, unless it is a directory).
    pub async fn mkdir(&self, path: &Path, parents: bool) -> Result<()> {
        let make = Make { parents, ..Make::dir() };
        self.make(path, make).await
    }

    /// Creates a directory, a symbolic link, or a pipe, socket or device. Exists when something is there. All but directories stay
    /// in the cache: under-stores have no name for them.
    pub async fn make(&self, path: &Path, make: Make) -> Result<()> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        self.inner
            .to_the_end("make", async move { inner.make(&path, &make).await })
            .await
    }

    /// Renames a file or a whole directory in one commit.
    pub async fn rename(&self, from: &Path, to: &Path, how: Rename) -> Result<()> {
        let (inner, from, to) = (Arc::clone(&self.inner), from.clone(), to.clone());
        self.inner
            .to_the_end("rename", async move { inner.rename(&from, &to, how).await })
            .await
    }

    /// Removes a file, an empty directory, or with `recursive` everything under it, in one commit.
    pub async fn delete(&self, path: &Path, recursive: bool) -> Result<()> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        self.inner
            .to_the_end("delete", async move { inner.delete(&path, recursive).await })
            .await
    }
}

impl Inner {
    /// What `path` leads to, a change outside included: a persisted file that someone else replaced shows what is there now.
    pub(crate) async fn look(&self, path: &Path) -> Result<Option<Node>> {
        match self.names.resolve(path).await? {
            Some(node) => self.revalidate(path, node).await,
            None => Ok(None),
        }
    }

    /// The same where something has to be: NotFound.
    pub(crate) async fn must_find(&self, path: &Path) -> Result<Node> {
        let node = self.look(path).await?;
        node.ok_or_else(|| Error::not_found(format!("{path}: not found")))
    }

    /// Denied below a read-only mount, Precondition below one that is about to go.
    pub(crate) fn check_writable(&self, path: &Path) -> Result<()> {
        match self.mounts.resolve(path) {
            Some((mount, _)) if mount.is_draining() => Err(Error::precondition(format!(
                "{path}: the mount {} is about to be removed (`under rm --drain`) and takes no more changes",
                mount.path
            ))),
            _ => self.check_not_read_only(path),
        }
    }

    /// Denied below a read-only mount.
    pub(crate) fn check_not_read_only(&self, path: &Path) -> Result<()> {
        match self.mounts.resolve(path) {
            Some((mount, _)) if mount.read_only => Err(Error::denied(format!(
                "{path}: the under-store {} is mounted read-only at {}; mount it writable, or write elsewhere",
                mount.url, mount.path
            ))),
            _ => Ok(()),
        }
    }

    /// A mount point, and what holds one, stays where it is.
    fn check_no_mount_below(&self, path: &Path) -> Result<()> {
        match self.mounts.below(path).first() {
            Some(mount) => Err(Error::precondition(format!(
                "{path}: an under-store is mounted at {mount}; remove the mount first (`under rm {mount}`)"
            ))),
            None => Ok(()),
        }
    }

    /// A rename moves names, not bytes: what lies in one store does not get into another, nor out of all of them, by it. What lies
    /// in none yet goes to the one whose name it gets.
    fn check_one_store(&self, from: &Path, to: &Path, how: Rename) -> Result<()> {
        let of = |path: &Path| self.mounts.resolve(path).map(|(mount, _)| mount);
        let (source, target) = (of(from), of(to));
        let id = |mount: &Option<Arc<Mount>>| mount.as_ref().map(|mount| mount.id);
        if id(&source) == id(&target) || source.is_none() && !how.exchange {
            return Ok(());
        }
        let lies = |mount: &Option<Arc<Mount>>| match mount {
            Some(mount) => format!("in {} (mounted at {})", mount.url, mount.path),
            None => "in no under-store".to_owned(),
        };
        Err(Error::precondition(format!(
            "{from} lies {} and {to} {}; a rename does not go from one under-store to another: copy it with `forebay cp -r`, or \
             `forebay mv`, which copies and then deletes",
            lies(&source),
            lies(&target)
        ))
        .because(Mismatch::OtherStore))
    }

    async fn make(&self, path: &Path, make: &Make) -> Result<()> {
        let _entered = self.enter()?;
        self.check_writable(path)?;
        let mut attempts = self.attempts(format!("make {path}"));
        loop {
            match self.try_make(path, make).await {
                Ok(()) => break,
                Err(error) => attempts.after(error).await?,
            }
        }
        self.tell(Change::Name(path.clone())).await;
        Ok(())
    }

    async fn try_make(&self, path: &Path, make: &Make) -> Result<()> {
        let kind = match &make.kind {
            MakeKind::Dir => Kind::Dir { base: None },
            MakeKind::Symlink(target) => Kind::Symlink(target.clone()),
            MakeKind::Special(format, rdev) => Kind::Special {
                format: *format,
                rdev: *rdev,
            },
        };
        let is_dir = make.kind == MakeKind::Dir;
        let create = Create {
            kind,
            parents: make.parents,
            mode: make.mode & 0o7777,
            uid: make.uid,
            gid: make.gid,
            ..Create::default()
        };
        let planned = match self.names.plan_create(path, create).await {
            Err(NsError::Exists(_))
                if make.parents && is_dir && self.names.resolve(path).await?.is_some_and(|node| node.is_dir()) =>
            {
                return Ok(());
            }
            other => other?,
        };
        let mut plan = planned.plan;
        if is_dir {
            self.persist.plan_dir(&mut plan, planned.ino, path).await?;
        }
        self.commit(plan).await?;
        self.persist.wake();
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path, how: Rename) -> Result<()> {
        let _entered = self.enter()?;
        if to != from && to.starts_with(from) {
            return Err(Error::invalid(format!("{from}: can not be renamed into itself ({to})")));
        }
        self.check_writable(from)?;
        self.check_writable(to)?;
        self.check_no_mount_below(from)?;
        self.check_no_mount_below(to)?;
        self.check_one_store(from, to, how)?;
        let share = self.take_share_of_move(from, to).await?;
        let mut attempts = self.attempts(format!("rename {from} to {to}"));
        loop {
            match self.try_rename(from, to, how).await {
                Ok(()) => break,
                Err(error) => attempts.after(error).await?,
            }
        }
        share.keep();
        [from, to].iter().for_each(|path| self.quotas.gone(path));
        self.clean.renamed(from, to, how.exchange);
        self.tell(Change::Renamed {
            from: from.clone(),
            to: to.clone(),
            exchange: how.exchange,
        })
        .await;
        Ok(())
    }

    async fn try_rename(&self, from: &Path, to: &Path, how: Rename) -> Result<()> {
        let before = self.names.resolve(from).await?;
        let before = before.ok_or_else(|| Error::not_found(format!("{from}: not found")))?;
        let how = RenameHow {
            replace: how.replace,
            exchange: how.exchange,
            parents: how.parents,
        };
        let mut renamed = self.names.plan_rename(from, to, how).await?;
        if renamed.plan.is_empty() {
            return Ok(());
        }
        let mut plan = std::mem::take(&mut renamed.plan);
        self.persist
            .plan_renamed(&mut plan, &renamed, &before, from, to)
            .await?;
        if !how.exchange && from.parent() != to.parent() {
            self.plan_left(&mut plan, from).await?;
        }
        // What changes places with the other is not gone.
        let replaced = renamed.replaced.filter(|_| !how.exchange);
        let dataset = self.plan_dir_removed(&mut plan, replaced.as_ref()).await?;
        let kept = self.plan_kept_by_versions(&mut plan, to, replaced.as_ref()).await?;
        self.commit(plan).await?;
        if let Some(node) = replaced {
            self.part_with(&Unnamed { node, kept });
        }
        self.after_removal(dataset);
        Ok(())
    }

    async fn delete(&self, path: &Path, recursive: bool) -> Result<()> {
        let _entered = self.enter()?;
        if path.is_root() {
            return Err(Error::invalid("/: the root can not be removed"));
        }
        self.check_writable(path)?;
        self.check_no_mount_below(path)?;
        let mut attempts = self.attempts(format!("delete {path}"));
        loop {
            match self.try_delete(path, recursive, None).await {
                Ok(_) => break,
                Err(error) => attempts.after(error).await?,
            }
        }
        self.deleted(path, recursive).await;
        Ok(())
    }

    /// Deletes what is at `path`, a directory with everything under it, when it is still `only` and `check` holds. Whether it was.
    pub(crate) async fn delete_only(&self, path: &Path, only: &Node, check: Option<Check>) -> Result<bool> {
        let _entered = self.enter()?;
        self.check_writable(path)?;
        self.check_no_mount_below(path)?;
        let mut attempts = self.attempts(format!("delete {path}"));
        loop {
            match self.try_delete(path, only.is_dir(), Some((only, check.clone()))).await {
                Ok(true) => break,
                Ok(false) => return Ok(false),
                Err(error) => attempts.after(error).await?,
            }
        }
        self.deleted(path, only.is_dir()).await;
        Ok(true)
    }

    async fn deleted(&self, path: &Path, recursive: bool) {
        self.quotas.gone(path);
        self.tell(Change::Name(path.clone())).await;
        if recursive {
            self.collect_soon().await;
        }
    }

    /// With `only`: false when something else is there.
    async fn try_delete(&self, path: &Path, recursive: bool, only: Option<(&Node, Option<Check>)>) -> Result<bool> {
        let node = self.names.resolve(path).await?;
        let node = node.ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
        let Unlinked {
            mut plan,
            node,
            whiteout,
        } = match (node.is_dir(), recursive) {
            (false, _) => self.names.plan_unlink(path).await?,
            (true, false) => self.names.plan_rmdir(path).await?,
            (true, true) => self.names.plan_detach(path).await?,
        };
        if let Some((only, check)) = only {
            if !is_still(&node, only) {
                return Ok(false);
            }
            if let Some(check) = check {
                plan.check(check);
            }
        }
        self.persist
            .plan_removed(&mut plan, &node, path, whiteout.as_ref())
            .await?;
        self.plan_left(&mut plan, path).await?;
        // What lies under a directory that is cut off, its own dataset rows too, is collected afterwards.
        let dataset = if recursive {
            None
        } else {
            self.plan_dir_removed(&mut plan, Some(&node)).await?
        };
        let kept = self.plan_kept_by_versions(&mut plan, path, Some(&node)).await?;
        self.commit(plan).await?;
        if !node.is_dir() {
            self.part_with(&Unnamed { node, kept });
        }
        self.after_removal(dataset);
        Ok(true)
    }

    /// What is at `path` leaves its directory. One that is empty then is to be in its store, where nothing of it may have arrived.
    async fn plan_left(&self, plan: &mut Plan, path: &Path) -> Result<()> {
        let Some(parent) = path.parent().filter(|parent| self.mounts.resolve(parent).is_some()) else {
            return Ok(());
        };
        if let Some(Node::Row { ino, .. }) = self.names.resolve(&parent).await?
            && self.names.rows_in(ino, None, 2).await?.len() <= 1
        {
            self.persist.plan_dir(plan, ino, &parent).await?;
        }
        Ok(())
    }

    /// The dataset rows of a directory that goes.
    async fn plan_dir_removed(&self, plan: &mut Plan, node: Option<&Node>) -> Result<Option<DatasetGone>> {
        match node {
            Some(Node::Row { ino, inode, .. }) if inode.is_dir() => {
                Ok(Some(self.plan_dataset_removed(plan, *ino).await?))
            }
            _ => Ok(None),
        }
    }

    fn after_removal(&self, gone: Option<DatasetGone>) {
        if let Some(gone) = gone {
            self.dataset_gone(gone);
        }
        self.persist.wake();
    }

    pub(crate) async fn stat_of_one(&self, path: &Path, node: Node) -> Result<Stat> {
        let mut stats = self.stats_of(vec![(path.clone(), node)]).await?;
        Ok(stats.pop().expect("one answer for one node"))
    }

    /// What doors show of these nodes. One read for all head versions.
    pub(crate) async fn stats_of(&self, nodes: Vec<(Path, Node)>) -> Result<Vec<Stat>> {
        let dirs: Vec<Ino> = nodes
            .iter()
            .filter(|(_, node)| node.is_dir())
            .filter_map(|(_, node)| node.ino())
            .collect();
        let mut versions = if dirs.is_empty() {
            Vec::new()
        } else {
            self.head_versions(&dirs).await?
        }
        .into_iter();
        let mut stats = Vec::with_capacity(nodes.len());
        for (path, node) in nodes {
            let version = match node.ino() {
                Some(_) if node.is_dir() => versions.next().flatten(),
                _ => None,
            };
            stats.push(Stat {
                version,
                ..self.stat_of(path, &node)?
            });
        }
        Ok(stats)
    }

    fn stat_of(&self, path: Path, node: &Node) -> Result<Stat> {
        match node {
            Node::Row { ino, inode, .. } => self.stat_of_row(path, node, *ino, inode),
            Node::Base { at, entry } => self.stat_of_base(path, node, at, entry),
        }
    }

    fn stat_of_row(&self, path: Path, node: &Node, ino: Ino, inode: &Inode) -> Result<Stat> {
        let (state, cached_bytes) = self.row_state(&path, inode)?;
        let (size, target, special) = match &inode.kind {
            Kind::File => (inode.size, None, None),
            Kind::Dir { .. } => (0, None, None),
            Kind::Symlink(target) => (target.len() as u64, Some(target.clone()), None),
            Kind::Special { format, rdev } => (0, None, Some((*format, *rdev))),
        };
        // As `etag_of` has it, of a state that is known already.
        let etag = match (&inode.kind, state) {
            (Kind::File, State::Sealed | State::Persisted | State::Clean) => self.identity_of(node),
            _ => None,
        };
        Ok(Stat {
            path,
            kind: kind_of(&inode.kind),
            size,
            mtime: inode.mtime,
            mode: inode.mode,
            state,
            cached_bytes,
            version: None,
            etag,
            id: ino.0,
            uid: inode.uid,
            gid: inode.gid,
            ctime: inode.ctime,
            atime: inode.atime,
            target,
            special,
        })
    }

    fn stat_of_base(&self, path: Path, node: &Node, at: &Path, entry: &BaseEntry) -> Result<Stat> {
        let (kind, size) = if entry.is_dir {
            (StatKind::Dir, 0)
        } else {
            (StatKind::File, entry.size)
        };
        let (uid, gid) = entry.owner();
        // Of a content there: when somebody changes it in the store the name leads to another file.
        let place = [&at.as_bytes()[..], b"\0", entry.validator.as_bytes()].concat();
        let place = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &place);
        Ok(Stat {
            path,
            kind,
            size,
            mtime: entry.mtime,
            mode: entry.mode(),
            state: State::Clean,
            cached_bytes: if entry.is_dir { 0 } else { self.held_of(at, entry) },
            version: None,
            etag: self.identity_of(node),
            id: place | PLACE_BIT,
            uid,
            gid,
            ctime: entry.mtime,
            atime: entry.mtime,
            target: None,
            special: None,
        })
    }

    /// Bytes held of a file that has no row.
    fn held_of(&self, at: &Path, entry: &BaseEntry) -> u64 {
        let Some((mount, Some(key))) = self.mounts.resolve(at) else {
            return 0;
        };
        self.clean.held(&CleanReader {
            mount,
            key,
            size: entry.size,
            validator: Validator(entry.validator.clone()),
            changed: entry.mtime,
        })
    }

    /// State and locally held bytes of a row.
    fn row_state(&self, path: &Path, inode: &Inode) -> Result<(State, u64)> {
        match &inode.kind {
            Kind::Dir { base } => {
                let own = base.as_ref().is_some_and(|base| *base == path.as_bytes());
                let settled = own && self.mounts.resolve(path).is_some();
                Ok((if settled { State::Clean } else { State::Sealed }, 0))
            }
            Kind::Symlink(_) | Kind::Special { .. } => Ok((State::Sealed, 0)),
            Kind::File => Ok(match Content::decode(&inode.content).map_err(|error| error.at(path))? {
                Content::Open => (State::Open, inode.size),
                Content::Sealed { .. } => (State::Sealed, inode.size),
                Content::Persisted { layout: Some(_), .. } => (State::Persisted, inode.size),
                Content::Persisted { at, layout: None, .. } => {
                    let mount = self.mounts.by_id(at.mount);
                    let held = mount.map(|mount| {
                        let validator = Validator(at.validator);
                        self.clean.held(&CleanReader {
                            mount,
                            key: at.key,
                            size: inode.size,
                            validator,
                            changed: inode.mtime,
                        })
                    });
                    (State::Persisted, held.unwrap_or(0))
                }
            }),
        }
    }
}

/// Whether what is there now is what was looked at, unchanged.
fn is_still(now: &Node, before: &Node) -> bool {
    match (now, before) {
        (
            Node::Row { ino, inode, .. },
            Node::Row {
                ino: ino_before,
                inode: inode_before,
                ..
            },
        ) => {
            let same_times = (inode.mtime, inode.ctime) == (inode_before.mtime, inode_before.ctime);
            ino == ino_before && (inode.is_dir() || same_times)
        }
        (
            Node::Base { entry, .. },
            Node::Base {
                entry: entry_before, ..
            },
        ) => entry.validator == entry_before.validator,
        _ => false,
    }
}

fn kind_of(kind: &Kind) -> StatKind {
    match kind {
        Kind::File => StatKind::File,
        Kind::Dir { .. } => StatKind::Dir,
        Kind::Symlink(_) => StatKind::Symlink,
        Kind::Special { .. } => StatKind::Special,
    }
}
