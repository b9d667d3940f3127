//! Modes, owners, times and extended attributes of what a name leads to.
//!
//! A name that only the under-store has gets a row with its first change, and keeps it while the row says more than the under-store
//! shows. It does not own what a store keeps of them: the persister takes them from the row, with the content or after it.

use crate::{
    Cache, Error, Result, cache::Inner, changes::Change, names::Stat, persist::look_alike, policy::Adds, rows::Content,
};
use forebay_metastore::Version;
use forebay_namespace::{Inode, Kind, Node, Path, Plan, Planned};
use forebay_runtime::clock::Timestamp;
use std::{collections::BTreeMap, sync::Arc};

/// Longest name of an extended attribute, bytes.
const XATTR_NAME_MAX: usize = 255;
/// Bytes of all extended attributes of one name: they lie in its row.
const XATTRS_BYTES_MAX: usize = 32 << 10;

/// What the names of those begin with that users set.
const USER: &[u8] = b"user.";

/// A change of attributes; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permission bits, 0o7777.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last content change.
    pub mtime: Option<Timestamp>,
    /// Last access.
    pub atime: Option<Timestamp>,
    /// Extended attributes to set, or with `None` to remove.
    pub xattrs: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl SetAttributes {
    fn apply(&self, inode: &mut Inode) {
        inode.mode = self.mode.map_or(inode.mode, |mode| mode & 0o7777);
        inode.uid = self.uid.unwrap_or(inode.uid);
        inode.gid = self.gid.unwrap_or(inode.gid);
        inode.mtime = self.mtime.unwrap_or(inode.mtime);
        inode.atime = self.atime.unwrap_or(inode.atime);
        for (name, value) in &self.xattrs {
            match value {
                Some(value) => inode.xattrs.insert(name.clone(), value.clone()),
                None => inode.xattrs.remove(name),
            };
        }
    }

    fn check(&self, path: &Path) -> Result<()> {
        check_names(path, self.xattrs.keys())
    }
}

fn check_names<'n>(path: &Path, mut names: impl Iterator<Item = &'n Vec<u8>>) -> Result<()> {
    match names.find(|name| name.is_empty() || name.len() > XATTR_NAME_MAX) {
        Some(name) => Err(Error::invalid(format!(
            "{path}: an extended attribute with a name of {} bytes; 1 to {XATTR_NAME_MAX} are allowed",
            name.len()
        ))),
        None => Ok(()),
    }
}

/// Whether a name can have these, which a write brings: Invalid or Full.
pub(crate) fn check_user_xattrs(path: &Path, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    check_names(path, xattrs.keys())?;
    if let Some(name) = xattrs.keys().find(|name| !name.starts_with(USER)) {
        let name = String::from_utf8_lossy(name);
        return Err(Error::invalid(format!(
            "{path}: a write brings extended attributes called user.…, and not {name}"
        )));
    }
    check_bytes(path, bytes_of(xattrs))
}

/// Gives a file these and no others of their kind.
pub(crate) fn replace_user_xattrs(inode: &mut Inode, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) {
    inode.xattrs.retain(|name, _| !name.starts_with(USER));
    inode.xattrs.extend(xattrs.clone());
}

pub(crate) fn bytes_of(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> usize {
    xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Full when so many bytes of them do not fit into a row.
pub(crate) fn check_bytes(path: &Path, bytes: usize) -> Result<()> {
    if bytes > XATTRS_BYTES_MAX {
        return Err(Error::full(format!(
            "{path}: {bytes} bytes of extended attributes; {XATTRS_BYTES_MAX} fit into its row"
        )));
    }
    Ok(())
}

impl Cache {
    /// Changes attributes, durably. Answers what is there then. NotFound; Full when the extended attributes do not fit into a row.
    pub async fn set_attributes(&self, path: &Path, change: SetAttributes) -> Result<Stat> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        self.inner
            .to_the_end("set-attributes", async move {
                inner.set_attributes(&path, &change).await?;
                Cache { inner }.stat(&path).await
            })
            .await
    }

    /// The extended attributes of what is at `path`. NotFound.
    pub async fn xattrs(&self, path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        Ok(xattrs_of(&self.inner.must_find(path).await?))
    }

    /// What is at `path`, with its extended attributes. NotFound.
    pub async fn stat_with_xattrs(&self, path: &Path) -> Result<(Stat, BTreeMap<Vec<u8>, Vec<u8>>)> {
        let node = self.inner.must_find(path).await?;
        let xattrs = xattrs_of(&node);
        Ok((self.inner.stat_of_one(path, node).await?, xattrs))
    }
}

fn xattrs_of(node: &Node) -> BTreeMap<Vec<u8>, Vec<u8>> {
    match node {
        Node::Row { inode, .. } => inode.xattrs.clone(),
        Node::Base { entry, .. } => entry.xattrs(),
    }
}

impl Inner {
    async fn set_attributes(&self, path: &Path, change: &SetAttributes) -> Result<()> {
        let _entered = self.enter()?;
        self.check_writable(path)?;
        change.check(path)?;
        let mut attempts = self.attempts(format!("set attributes of {path}"));
        loop {
            match self.try_set_attributes(path, change).await {
                Ok(()) => break,
                Err(error) => attempts.after(error).await?,
            }
        }
        self.tell(Change::Name(path.clone())).await;
        Ok(())
    }

    async fn try_set_attributes(&self, path: &Path, change: &SetAttributes) -> Result<()> {
        let mut planner = self.names.planner();
        let (ino, before) = planner.adopt(path).await?;
        let mut handed_over = Adds::default();
        let updated = planner
            .update(ino, |inode| {
                let (owner, is_file) = (inode.uid, inode.kind == Kind::File);
                change.apply(inode);
                if is_file && inode.uid != owner {
                    handed_over = Adds::file(inode.uid, inode.size).minus(Adds::file(owner, inode.size));
                }
            })
            .await?;
        check_bytes(path, bytes_of(&updated.inode.xattrs))?;
        let mut plan = planner.finish()?;
        let follows = self.plan_to_follow(&mut plan, path, &before, updated).await?;
        let share = self.take_share(path, &handed_over).await?;
        self.commit_with(plan, share).await?;
        if follows {
            self.persist.wake();
        }
        Ok(())
    }

    /// Queues what the store shall know of a content that it has already, while its bytes are here too; answers whether there is any. A
    /// content that is on its way takes its attributes along.
    async fn plan_to_follow(&self, plan: &mut Plan, path: &Path, before: &Inode, updated: Planned) -> Result<bool> {
        let Planned { ino, inode, .. } = updated;
        if inode.kind != Kind::File || look_alike(before, &inode) || self.mounts.resolve(path).is_none() {
            return Ok(false);
        }
        let content = Content::decode(&inode.content)?;
        let Content::Persisted {
            at,
            layout: Some(layout),
            work: None,
        } = content
        else {
            return Ok(false);
        };
        let generation = inode.generation;
        let node = Node::Row {
            ino,
            inode,
            version: Version(0),
        };
        let work = self.persist.plan_put(plan, ino, generation, path, Some(&node)).await?;
        let layout = Some(layout);
        let content = Content::Persisted { at, layout, work }.encode();
        plan.amend(ino, |inode| inode.content = content)?;
        Ok(true)
    }
}
