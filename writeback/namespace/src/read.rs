//! Looking up, listing, and the way back from an inode to its path.
//!
//! A lookup or listing sees each row at some instant during the call, as readdir and path lookup do anywhere; only
//! [`Namespace::path_of`] answers of one instant, because the persister acts on it.

use crate::{
    planner::{Dir, Reached, Walk},
    row::{Dentry, Stored},
    *,
};
use forebay_metastore::{Entry, Key, MetaError, prefix_end};
use keys::name_of;
use std::{collections::BTreeSet, future::Future};

/// Most entries of one page of [`Namespace::list`].
pub const LIST_PAGE_MAX: usize = 1000;
/// Times that a page of a listing is read again because names went and came meanwhile.
const ANEW_MAX: u32 = 8;
/// Times that a read is begun anew because rows changed between two of its steps.
const READ_ATTEMPTS_MAX: u32 = 32;

/// What decides where `name` in `dir` leads.
fn rows_of_name(dir: Ino, name: &[u8]) -> [Key; 3] {
    [keys::inode(dir), keys::dentry(dir, name), keys::whiteout(dir, name)]
}

impl Namespace {
    /// What `path` leads to. A symlink is not followed, neither at the end nor before it; a file or symlink before the end is
    /// [`NsError::NotADirectory`].
    pub async fn resolve(&self, path: &Path) -> Result<Option<Node>> {
        steady(|| async {
            let mut planner = self.planner();
            let Walk { mut dirs, reached } = planner.walk(path).await?;
            let moved = matches!(&reached, Reached::Beyond { at: Some(at) } if at != path);
            let node = planner.node(reached).await?;
            if moved && let Some(dir) = dirs.pop() {
                let name = &path.components()[dirs.len()];
                planner.still(rows_of_name(dir.ino, name)).await?;
            }
            Ok(node)
        })
        .await
    }

    /// An inode row.
    pub async fn inode(&self, ino: Ino) -> Result<Option<(Inode, Version)>> {
        self.planner().inode(ino).await
    }

    /// What `name` in the directory `parent` leads to. [`NsError::Gone`] when `parent` has no row.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Option<Node>> {
        path::check_name(name)?;
        steady(|| async {
            let mut planner = self.planner();
            planner.fetch(rows_of_name(parent, name)).await?;
            let (stored, _) = planner.stored(parent).await?.ok_or(NsError::Gone(parent))?;
            let dir = planner.as_dir(parent, &stored, Path::root())?;
            let node = planner.child(&dir, name).await?;
            if matches!(node, None | Some(Node::Base { .. })) && dir.base.is_some() {
                planner.still(rows_of_name(parent, name)).await?;
            }
            Ok(node)
        })
        .await
    }

    /// Up to `limit` (at most [`LIST_PAGE_MAX`]) entries of the directory `path` with names greater than `after`, in byte order.
    /// Fewer than asked for: the end.
    ///
    /// A directory's times are those of its row or its base, not of its last new entry: a create does not write its parent.
    pub async fn list(&self, path: &Path, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Node)>> {
        let limit = limit.clamp(1, LIST_PAGE_MAX);
        steady(|| async {
            let mut planner = self.planner();
            match planner.walk(path).await?.reached {
                Reached::Row { ino, stored, .. } => {
                    let dir = planner.as_dir(ino, &stored, path.clone())?;
                    let listed = self.list_rows(&dir, after, limit).await?;
                    if dir.is_moved() {
                        planner.still([keys::inode(ino)]).await?;
                    }
                    Ok(listed)
                }
                beyond => match planner.node(beyond).await? {
                    None => Err(NsError::NotFound(path.clone())),
                    Some(node) if !node.is_dir() => Err(NsError::NotADirectory(path.clone())),
                    Some(Node::Base { at, .. }) => self.list_base(&at, after, limit).await,
                    Some(Node::Row { .. }) => Err(NsError::Conflict),
                },
            }
        })
        .await
    }

    /// Up to `limit` (at most [`LIST_PAGE_MAX`]) inodes with numbers greater than `after`, in their order, those without a name
    /// included: for whoever has to see them all. None: the end.
    pub async fn inodes(&self, after: Option<Ino>, limit: usize) -> Result<Vec<(Ino, Inode)>> {
        let Some(first) = after.map_or(Some(0), |after| after.0.checked_add(1)) else {
            return Ok(Vec::new());
        };
        let range = keys::inode(Ino(first))..prefix_end(&[keys::INODE]);
        let rows = self.store.scan(range, limit.clamp(1, LIST_PAGE_MAX)).await?;
        let decode = |(key, entry): &(Key, Entry)| {
            let ino = keys::ino_of(key).ok_or_else(|| MetaError::Corrupt("inode row without a number".into()))?;
            Ok((ino, row::decode::<Stored>(&entry.value)?.inode))
        };
        rows.iter().map(decode).collect()
    }

    /// Up to `limit` entries of the directory that have rows, with names greater than `after`, in byte order: what the base alone
    /// shows is not among them. None: the end.
    pub async fn rows_in(&self, dir: Ino, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Ino, Inode)>> {
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let dentries = self
                .page(keys::dentries(dir), after.as_deref(), limit.clamp(1, LIST_PAGE_MAX))
                .await?;
            let Some((last, _)) = dentries.last() else {
                return Ok(Vec::new());
            };
            after = Some(name_of(last).to_vec());
            let rows = self.rows_of(dir, &dentries).await?.into_iter();
            let found: Vec<_> = rows
                .filter_map(|(name, node)| match node {
                    Some(Node::Row { ino, inode, .. }) => Some((name, ino, inode)),
                    _ => None,
                })
                .collect();
            // What went meanwhile does not end the page.
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    /// The present path of an inode; `None` when it has no name, or lies in a directory that has none.
    pub async fn path_of(&self, ino: Ino) -> Result<Option<Path>> {
        Ok(self.path_and_chain(ino).await?.map(|(path, _)| path))
    }

    /// The path, and the inodes from `ino` up to the root.
    pub(crate) async fn path_and_chain(&self, ino: Ino) -> Result<Option<(Path, Vec<Ino>)>> {
        steady(|| async {
            let mut planner = self.planner();
            let mut chain = vec![ino];
            let mut names = Vec::new();
            let mut at = ino;
            let whole = loop {
                let Some((stored, _)) = planner.stored(at).await? else {
                    break false;
                };
                match stored.link {
                    Some(link) if chain.len() <= PATH_BYTES_MAX / 2 => {
                        names.push(link.name);
                        at = link.parent;
                        chain.push(at);
                    }
                    Some(_) => return Err(NsError::Conflict),
                    None => break at == ROOT,
                }
            };
            // The rows were read one after the other: only if all are the same in one instant is the path one that existed.
            planner.still(chain.iter().map(|ino| keys::inode(*ino))).await?;
            if !whole {
                return Ok(None);
            }
            names.reverse();
            Ok(Some((Path::from_components(names)?, chain)))
        })
        .await
    }

    async fn list_base(&self, at: &Path, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Node)>> {
        let entries = self.base.list(at, after, limit).await?;
        entries.into_iter().map(|entry| base_node(at, entry)).collect()
    }

    /// The overlay of rows over the base. Each round takes a page of dentries, whiteouts and base names after the cursor; what
    /// lies up to the first end of a page that is not its source's end is complete, and is answered.
    async fn list_rows(&self, of: &Dir, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Node)>> {
        let (dir, base) = (of.ino, of.base.as_ref());
        let mut listed = Vec::with_capacity(limit.min(64));
        let mut cursor = after.map(<[u8]>::to_vec);
        let mut anew = 0;
        loop {
            let mut dentries = self.page(keys::dentries(dir), cursor.as_deref(), limit).await?;
            let (whiteouts, names) = match base {
                Some(base) => (
                    self.page(keys::whiteouts(dir), cursor.as_deref(), limit).await?,
                    self.base.list(base, cursor.as_deref(), limit).await?,
                ),
                None => Default::default(),
            };
            if of.is_moved() {
                // What got a row meanwhile may be gone from the old place already.
                dentries = self.page(keys::dentries(dir), cursor.as_deref(), limit).await?;
            }
            let ends = [
                end_of(&dentries, limit, |(key, _)| name_of(key)),
                end_of(&whiteouts, limit, |(key, _)| name_of(key)),
                end_of(&names, limit, |entry| &entry.name),
            ];
            let end = ends.into_iter().flatten().min().map(<[u8]>::to_vec);
            let within = |name: &[u8]| end.as_deref().is_none_or(|end| name <= end);

            let mut round: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
            if let Some(base) = base {
                let hidden: BTreeSet<&[u8]> = whiteouts.iter().map(|(key, _)| name_of(key)).collect();
                let visible = names
                    .into_iter()
                    .filter(|e| within(&e.name) && !hidden.contains(e.name.as_slice()));
                for entry in visible {
                    let (name, node) = base_node(base, entry)?;
                    round.insert(name, node);
                }
            }
            let within_end: Vec<_> = dentries.into_iter().filter(|(key, _)| within(name_of(key))).collect();
            let mut rows = self.rows_of(dir, &within_end).await?;
            let mut gone = false;
            for (name, row) in &mut rows {
                // Gone since its dentry was read: removed, replaced, or its row was forgotten because the base shows the same.
                // Only the name itself tells; one that was there all the time must not be missing.
                if row.is_none() {
                    *row = self.lookup(dir, name).await?;
                    gone |= row.is_none();
                }
            }
            if gone && anew < ANEW_MAX {
                let read: BTreeSet<&Key> = within_end.iter().map(|(key, _)| key).collect();
                // It may have got another name, which must not be missing because it came behind the page.
                let now = self.page(keys::dentries(dir), cursor.as_deref(), limit).await?;
                if now.iter().any(|(key, _)| within(name_of(key)) && !read.contains(key)) {
                    anew += 1;
                    continue;
                }
            }
            anew = 0;
            if round.is_empty() {
                // They are in the order of their names.
                listed.extend(rows.into_iter().filter_map(|(name, row)| Some((name, row?))));
            } else {
                for (name, row) in rows {
                    match row {
                        Some(node) => round.insert(name, node),
                        None => round.remove(&name),
                    };
                }
                listed.extend(round);
            }
            if listed.len() >= limit || end.is_none() {
                listed.truncate(limit);
                return Ok(listed);
            }
            cursor = end;
        }
    }

    async fn page(&self, prefix: Key, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Key, Entry)>> {
        let mut start = prefix.to_vec();
        if let Some(after) = after {
            start.extend_from_slice(after);
            start.push(0);
        }
        Ok(self.store.scan(start.into()..prefix_end(&prefix), limit).await?)
    }

    /// The inodes of dentries. `None`: it went or moved away since the dentry was read.
    async fn rows_of(&self, dir: Ino, dentries: &[(Key, Entry)]) -> Result<Vec<(Vec<u8>, Option<Node>)>> {
        let decode =
            |(key, entry): &(Key, Entry)| Ok((name_of(key).to_vec(), row::decode::<Dentry>(&entry.value)?.ino));
        let named = dentries.iter().map(decode).collect::<Result<Vec<(Vec<u8>, Ino)>>>()?;
        let wanted: Vec<Key> = named.iter().map(|(_, ino)| keys::inode(*ino)).collect();
        let rows = if wanted.is_empty() {
            Vec::new()
        } else {
            self.store.get(&wanted).await?
        };
        named
            .into_iter()
            .zip(rows)
            .map(|((name, ino), entry)| {
                let Some(entry) = entry else { return Ok((name, None)) };
                let stored: Stored = row::decode(&entry.value)?;
                let here = stored
                    .link
                    .as_ref()
                    .is_some_and(|link| link.parent == dir && link.name == name);
                let node = Node::Row {
                    ino,
                    inode: stored.inode,
                    version: entry.version,
                };
                Ok((name, here.then_some(node)))
            })
            .collect()
    }
}

impl Planner<'_> {
    /// That these rows are, all in one instant, as they were read. After an answer of the base it also says that a directory that was
    /// renamed still showed that base path when the answer came: it may have been moved by then, and another one have its place.
    async fn still(&self, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let keys: Vec<Key> = keys.into_iter().collect();
        let now = self.ns.store.get(&keys).await?;
        let same = |(key, entry): (&Key, &Option<Entry>)| self.as_read(key) == Some(entry.as_ref().map(|e| e.version));
        if keys.iter().zip(&now).all(same) {
            Ok(())
        } else {
            Err(NsError::Conflict)
        }
    }
}

/// The name that ends a page which is not the end of its source.
fn end_of<T>(page: &[T], limit: usize, name: impl Fn(&T) -> &[u8]) -> Option<&[u8]> {
    if page.len() < limit {
        None
    } else {
        page.last().map(name)
    }
}

fn base_node(dir: &Path, entry: BaseEntry) -> Result<(Vec<u8>, Node)> {
    let at = dir.join(&entry.name)?;
    Ok((entry.name.clone(), Node::Base { at, entry }))
}

/// Reads anew while rows change between two steps of the read.
async fn steady<T, F, Fut>(read: F) -> Result<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    for _ in 0..READ_ATTEMPTS_MAX {
        match read().await {
            Err(NsError::Conflict) => tokio::task::yield_now().await,
            other => return other,
        }
    }
    Err(NsError::Meta(MetaError::Corrupt(
        "names lead to inodes that are not there, however often they are read".into(),
    )))
}
