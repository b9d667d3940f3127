//! Several operations in one plan: what was read, what must still hold at the commit, and what shall be written.
//!
//! It owns the bookkeeping and the walk along a path; the rules of each operation lie in the modules named after it.

use crate::{
    row::{Dentry, DentryKind, Link, Stored},
    *,
};
use forebay_metastore::{Check, Entry, Key, MetaError, Op, prefix_end};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

/// The metastore's counter of inode numbers. It begins at 1, which is the root's, so a number taken is one less than the inode.
const COUNTER: &str = "ino";
/// Numbers taken at a time: an allocation is a durable write of its own.
const INOS_TAKEN: u64 = 1024;
/// Keys of one `get`.
const KEYS_PER_GET: usize = 1024;

/// Numbers taken from the metastore and not yet given out.
#[derive(Debug, Default)]
pub(crate) struct Inos(Mutex<Range<u64>>);

impl Inos {
    pub(crate) async fn take(&self, store: &MetaStoreRef) -> Result<Ino> {
        let pooled = self.0.lock().next();
        if let Some(number) = pooled {
            return Ok(Ino(number + 1));
        }
        let mut range = store.allocate(COUNTER, INOS_TAKEN).await?;
        let number = range
            .next()
            .ok_or_else(|| MetaError::Corrupt("an allocation of inode numbers was empty".into()))?;
        // Another task may have filled the pool meanwhile: then its rest is lost, which is only a gap.
        *self.0.lock() = range;
        Ok(Ino(number + 1))
    }
}

/// How a key that was read must be found at the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// As it was; others may rely on it too.
    Shared,
    /// As it was; this plan changes it or what it stands for.
    Exclusive,
}

/// A directory with a row.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    pub(crate) ino: Ino,
    /// The base path that shows through.
    pub(crate) base: Option<Path>,
    /// Its visible path.
    pub(crate) path: Path,
    /// The base is known to have nothing there.
    pub(crate) bare: bool,
}

impl Dir {
    /// Whether it was renamed and still shows the base at another path.
    pub(crate) fn is_moved(&self) -> bool {
        self.base.as_ref().is_some_and(|base| *base != self.path)
    }

    /// Where `name` in this directory lies in the base, whiteouts aside.
    pub(crate) fn base_of(&self, name: &[u8]) -> Result<Option<Path>> {
        self.base
            .as_ref()
            .map(|base| base.join(name))
            .transpose()
            .map_err(NsError::from)
    }
}

/// Where a walk along a path ends.
#[derive(Debug)]
pub(crate) enum Reached {
    /// At a row.
    Row { ino: Ino, stored: Stored, version: Version },
    /// Where the rows end. `at`: the base path of the whole path; `None` when nothing shows there.
    Beyond { at: Option<Path> },
}

/// A walk along a path.
#[derive(Debug)]
pub(crate) struct Walk {
    /// The directories with rows that were passed, from the root.
    pub(crate) dirs: Vec<Dir>,
    pub(crate) reached: Reached,
}

/// What [`Planner::directory`] does where a directory is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Refuse,
    Create,
}

/// Several operations in one plan: the later ones see the earlier ones, the plan commits all or nothing.
///
/// A transaction holds [`forebay_metastore::LIMITS`]`.tx_keys_max` keys (16,384), checks and writes together:
///
/// | operation | keys |
/// |---|---|
/// | file created in a directory that exists | 3 (dentry checked and written, inode written) |
/// | … in a directory that the same plan creates | 2 |
/// | … from a row without a name | 1 more (its inode checked) |
/// | … in place of a file | 2 more |
/// | file removed | 4, and 1 for a whiteout |
/// | each directory touched | 1 (shared), created 4 |
///
/// So one plan publishes about 5,400 parts into an existing directory (4,000 that had nameless rows), or 8,000 into a new one (5,400).
#[derive(Debug)]
pub struct Planner<'a> {
    pub(crate) ns: &'a Namespace,
    pub(crate) now: Timestamp,
    seen: HashMap<Key, Option<Entry>>,
    needs: BTreeMap<Key, Need>,
    /// Prefixes that must be empty, and the inode that guards each.
    empty: BTreeMap<Key, Ino>,
    writes: BTreeMap<Key, Option<Bytes>>,
    /// Directories that this plan creates, and whether each is bare. Nobody else can know a name in them.
    fresh: HashMap<Ino, bool>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(ns: &'a Namespace) -> Self {
        Planner {
            ns,
            now: ns.clock.now(),
            seen: HashMap::new(),
            needs: BTreeMap::new(),
            empty: BTreeMap::new(),
            writes: BTreeMap::new(),
            fresh: HashMap::new(),
        }
    }

    /// What `path` leads to, the operations so far included.
    pub async fn resolve(&mut self, path: &Path) -> Result<Option<Node>> {
        let walk = self.walk(path).await?;
        self.node(walk.reached).await
    }

    /// An inode, the operations so far included.
    pub async fn inode(&mut self, ino: Ino) -> Result<Option<(Inode, Version)>> {
        let row = self.stored(ino).await?;
        Ok(row.map(|(stored, version)| (stored.inode, version)))
    }

    /// Keys that the plan takes so far, checks and writes together (an upper bound: `finish` may drop a check).
    pub fn keys(&self) -> usize {
        self.needs.len() + self.empty.len() + self.writes.len()
    }

    /// The plan of all operations.
    pub fn finish(self) -> Result<Plan> {
        let mut checks = Vec::with_capacity(self.needs.len() + self.empty.len());
        for (key, need) in self.needs {
            let check = match (self.seen.get(&key), need) {
                (None, _) => continue, // Made by this plan.
                (Some(None), _) => Check::Absent(key),
                (Some(Some(entry)), Need::Shared) => Check::SharedAt(key, entry.version),
                (Some(Some(entry)), Need::Exclusive) => Check::At(key, entry.version),
            };
            checks.push(check);
        }
        for (prefix, ino) in self.empty {
            let guard = keys::inode(ino);
            let Some(Some(entry)) = self.seen.get(&guard) else {
                return Err(NsError::Conflict);
            };
            checks.push(Check::EmptyRange {
                prefix,
                guard,
                at: entry.version,
            });
        }
        let ops = self.writes.into_iter().map(|(key, value)| match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        });
        let mut plan = Plan {
            checks,
            ops: ops.collect(),
        };
        plan.merge(Plan::default())?;
        Ok(plan)
    }

    // ---- rows, as this plan sees them

    /// Reads the keys that were not read yet, all of one instant.
    pub(crate) async fn fetch(&mut self, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let unread = |key: &Key| !self.seen.contains_key(key) && !self.made_here(key);
        let missing: Vec<Key> = keys.into_iter().filter(unread).collect();
        for chunk in missing.chunks(KEYS_PER_GET) {
            let entries = self.ns.store.get(chunk).await?;
            self.seen.extend(chunk.iter().cloned().zip(entries));
        }
        Ok(())
    }

    /// Whether only this plan can have made the key: the store need not be asked.
    fn made_here(&self, key: &Key) -> bool {
        let names = matches!(key.first(), Some(&(keys::DENTRY | keys::WHITEOUT)));
        let in_fresh = names && keys::ino_of(key).is_some_and(|dir| self.fresh.contains_key(&dir));
        in_fresh || (self.writes.contains_key(key) && !self.seen.contains_key(key))
    }

    /// A row that was fetched. Its version is 0 when this plan wrote it.
    pub(crate) fn peek<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<(T, Version)>> {
        debug_assert!(
            self.seen.contains_key(key) || self.made_here(key),
            "a row is read before it is fetched"
        );
        if let Some(written) = self.writes.get(key) {
            return written
                .as_ref()
                .map(|value| Ok((row::decode(value)?, Version(0))))
                .transpose();
        }
        match self.seen.get(key) {
            Some(Some(entry)) => Ok(Some((row::decode(&entry.value)?, entry.version))),
            _ => Ok(None),
        }
    }

    pub(crate) fn exists(&self, key: &Key) -> bool {
        match self.writes.get(key) {
            Some(written) => written.is_some(),
            None => matches!(self.seen.get(key), Some(Some(_))),
        }
    }

    /// The version under which the store gave the key, when it was read.
    pub(crate) fn as_read(&self, key: &Key) -> Option<Option<Version>> {
        self.seen
            .get(key)
            .map(|entry| entry.as_ref().map(|entry| entry.version))
    }

    pub(crate) async fn stored(&mut self, ino: Ino) -> Result<Option<(Stored, Version)>> {
        let key = keys::inode(ino);
        self.fetch([key.clone()]).await?;
        self.peek(&key)
    }

    pub(crate) fn need(&mut self, key: Key) {
        debug_assert!(
            self.seen.contains_key(&key) || self.made_here(&key),
            "a row is relied on before it is fetched"
        );
        self.needs.insert(key, Need::Exclusive);
    }

    pub(crate) fn share(&mut self, key: Key) {
        debug_assert!(
            self.seen.contains_key(&key) || self.made_here(&key),
            "a row is relied on before it is fetched"
        );
        self.needs.entry(key).or_insert(Need::Shared);
    }

    pub(crate) fn need_empty(&mut self, prefix: Key, guard: Ino) {
        self.empty.insert(prefix, guard);
    }

    pub(crate) fn write<T: serde::Serialize>(&mut self, key: Key, row: &T) {
        self.writes.insert(key, Some(row::encode(row)));
    }

    pub(crate) fn erase(&mut self, key: Key) {
        self.writes.insert(key, None);
    }

    pub(crate) fn mark_fresh(&mut self, dir: Ino, bare: bool) {
        self.fresh.insert(dir, bare);
    }

    /// What this plan writes under `prefix` so far.
    pub(crate) fn written_under(&self, prefix: &Key) -> impl Iterator<Item = &Option<Bytes>> {
        self.writes
            .range(prefix.clone()..prefix_end(prefix))
            .map(|(_, value)| value)
    }

    /// Lets `name` in `parent` lead to `ino`, and the row of `ino` back to it. Both are relied on as they were read.
    pub(crate) fn link(&mut self, parent: Ino, name: &[u8], ino: Ino, mut inode: Inode) -> Inode {
        let kind = match inode.kind {
            Kind::File => DentryKind::File,
            Kind::Dir { .. } => DentryKind::Dir,
            Kind::Symlink(_) => DentryKind::Symlink,
            Kind::Special { .. } => DentryKind::Special,
        };
        inode.nlink = inode.nlink.max(1);
        let link = Link {
            parent,
            name: name.to_vec(),
        };
        self.share(keys::inode(parent));
        self.need(keys::dentry(parent, name));
        self.write(keys::dentry(parent, name), &Dentry { ino, kind });
        self.write(
            keys::inode(ino),
            &Stored {
                link: Some(link),
                inode: inode.clone(),
            },
        );
        inode
    }

    // ---- the walk

    /// Walks along `path` as far as rows lead. One read per component, and one for the inode at the end.
    pub(crate) async fn walk(&mut self, path: &Path) -> Result<Walk> {
        let mut ino = ROOT;
        let mut dirs = Vec::with_capacity(path.components().len());
        for (depth, name) in path.components().iter().enumerate() {
            let (dentry, whiteout) = (keys::dentry(ino, name), keys::whiteout(ino, name));
            self.fetch([keys::inode(ino), dentry.clone(), whiteout.clone()]).await?;
            let dir = self.dir_at(ino, path.prefix(depth))?;
            if let Some((entry, _)) = self.peek::<Dentry>(&dentry)? {
                ino = entry.ino;
                dirs.push(dir);
                continue;
            }
            let at = match (&dir.base, self.exists(&whiteout) || dir.bare) {
                (Some(base), false) => Some(extend(base, &path.components()[depth..])?),
                _ => None,
            };
            dirs.push(dir);
            return Ok(Walk {
                dirs,
                reached: Reached::Beyond { at },
            });
        }
        // A dentry without its inode: one of them went between two reads.
        let (stored, version) = self.stored(ino).await?.ok_or(NsError::Conflict)?;
        Ok(Walk {
            dirs,
            reached: Reached::Row { ino, stored, version },
        })
    }

    /// The directory row `ino`, fetched before.
    fn dir_at(&self, ino: Ino, path: Path) -> Result<Dir> {
        let (stored, _) = self.peek::<Stored>(&keys::inode(ino))?.ok_or(NsError::Conflict)?;
        self.as_dir(ino, &stored, path)
    }

    pub(crate) fn as_dir(&self, ino: Ino, stored: &Stored, path: Path) -> Result<Dir> {
        let Kind::Dir { base } = &stored.inode.kind else {
            return Err(NsError::NotADirectory(path));
        };
        let bare = self.fresh.get(&ino).copied().unwrap_or(false);
        Ok(Dir {
            ino,
            base: base_path(base)?,
            path,
            bare,
        })
    }

    /// What a walk reached, the base asked where the rows ended.
    pub(crate) async fn node(&self, reached: Reached) -> Result<Option<Node>> {
        Ok(match reached {
            Reached::Row { ino, stored, version } => Some(Node::Row {
                ino,
                inode: stored.inode,
                version,
            }),
            Reached::Beyond { at: None } => None,
            Reached::Beyond { at: Some(at) } => self.ns.base.stat(&at).await?.map(|entry| Node::Base { at, entry }),
        })
    }

    /// What `name` in `dir` leads to.
    pub(crate) async fn child(&mut self, dir: &Dir, name: &[u8]) -> Result<Option<Node>> {
        let (dentry, whiteout) = (keys::dentry(dir.ino, name), keys::whiteout(dir.ino, name));
        self.fetch([dentry.clone(), whiteout.clone()]).await?;
        if let Some((entry, _)) = self.peek::<Dentry>(&dentry)? {
            let (stored, version) = self.stored(entry.ino).await?.ok_or(NsError::Conflict)?;
            return Ok(Some(Node::Row {
                ino: entry.ino,
                inode: stored.inode,
                version,
            }));
        }
        let shows = !dir.bare && !self.exists(&whiteout);
        let at = if shows { dir.base_of(name)? } else { None };
        self.node(Reached::Beyond { at }).await
    }

    // ---- directories

    /// The directory `path`, with a row: one that only the base has gets its row by this plan, and its parents theirs.
    pub(crate) async fn directory(&mut self, path: &Path, missing: Missing) -> Result<Dir> {
        let Walk { mut dirs, reached } = self.walk(path).await?;
        let mut absent = match reached {
            Reached::Row { ino, stored, .. } => {
                self.share(keys::inode(ino));
                return self.as_dir(ino, &stored, path.clone());
            }
            Reached::Beyond { at } => at.is_none(),
        };
        let mut dir = dirs
            .pop()
            .expect("a walk that ends beyond the rows has passed the root");
        for name in &path.components()[dir.path.components().len()..] {
            let here = dir.path.join(name)?;
            let entry = self.base_dir(&dir, name, absent).await;
            let usual = Create::dir();
            let template = match entry {
                Ok(Some(entry)) if !entry.is_dir => return Err(NsError::NotADirectory(here)),
                Ok(Some(entry)) => {
                    let (uid, gid) = entry.owner();
                    let (mode, mtime) = (entry.mode(), Some(entry.mtime));
                    Create {
                        mode,
                        uid,
                        gid,
                        mtime,
                        ..usual
                    }
                }
                Ok(None) if missing == Missing::Refuse => return Err(NsError::NotFound(here)),
                Ok(None) => {
                    absent = true;
                    usual
                }
                // Whether the base has it or not, the row is the same: a store that is away holds no put back.
                Err(NsError::Base(_)) if missing == Missing::Create => usual,
                Err(error) => return Err(error),
            };
            dir = self.make_dir(&dir, name, template, absent, None).await?.0;
        }
        Ok(dir)
    }

    async fn base_dir(&self, dir: &Dir, name: &[u8], absent: bool) -> Result<Option<BaseEntry>> {
        let at = if absent { None } else { dir.base_of(name)? };
        match at {
            Some(at) => Ok(self.ns.base.stat(&at).await?),
            None => Ok(None),
        }
    }

    /// Gives the directory `name` in `parent` a row, where there is no dentry. A whiteout there makes it opaque.
    pub(crate) async fn make_dir(
        &mut self,
        parent: &Dir,
        name: &[u8],
        create: Create,
        bare: bool,
        ino: Option<Ino>,
    ) -> Result<(Dir, Ino, Inode)> {
        let base = self.natural_base(parent, name).await?;
        let ino = match ino {
            Some(ino) => ino,
            None => self.ns.allocate_ino().await?,
        };
        let kind = Kind::Dir {
            base: base.as_ref().map(Path::as_bytes),
        };
        let inode = new_inode(Create { kind, ..create }, self.now);
        let inode = self.link(parent.ino, name, ino, inode);
        let bare = bare || base.is_none();
        self.mark_fresh(ino, bare);
        let dir = Dir {
            ino,
            base,
            path: parent.path.join(name)?,
            bare,
        };
        Ok((dir, ino, inode))
    }

    /// The base path that shows through a directory created at `name`. The plan then relies on the whiteout's being there or
    /// not: a directory moved away meanwhile must not show through twice.
    async fn natural_base(&mut self, parent: &Dir, name: &[u8]) -> Result<Option<Path>> {
        let (dentry, whiteout) = (keys::dentry(parent.ino, name), keys::whiteout(parent.ino, name));
        self.fetch([keys::inode(parent.ino), dentry, whiteout.clone()]).await?;
        let Some(at) = parent.base_of(name)? else {
            return Ok(None);
        };
        self.need(whiteout.clone());
        Ok((!self.exists(&whiteout)).then_some(at))
    }
}

/// `base` with `rest` behind it.
fn extend(base: &Path, rest: &[Vec<u8>]) -> Result<Path> {
    rest.iter()
        .try_fold(base.clone(), |path, name| path.join(name))
        .map_err(NsError::from)
}

/// The path in a directory's row.
pub(crate) fn base_path(base: &Option<Vec<u8>>) -> Result<Option<Path>> {
    let parsed = base.as_ref().map(|text| Path::parse(text)).transpose();
    parsed.map_err(|e| NsError::Meta(MetaError::Corrupt(format!("base path of a directory: {e}"))))
}

/// The inode row of something created now.
pub(crate) fn new_inode(create: Create, now: Timestamp) -> Inode {
    let Create {
        kind,
        mode,
        uid,
        gid,
        content,
        size,
        generation,
        mtime,
        token,
        ..
    } = create;
    let (mode, mtime) = (mode & 0o7777, mtime.unwrap_or(now));
    let xattrs = BTreeMap::new();
    Inode {
        kind,
        mode,
        uid,
        gid,
        nlink: 0,
        size,
        generation,
        mtime,
        ctime: now,
        atime: mtime,
        xattrs,
        content,
        token,
    }
}
