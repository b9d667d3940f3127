//! chmod, chown, times, extended attributes.

use super::{
    Entry, NodeId, Volume,
    open::{OpenFile, Times, Why},
    timestamp,
};
use crate::{Errno, Result};
use forebay_writeback::{
    SetAttributes,
    names::{Stat, StatKind, State},
};
use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

/// What begins the names of Forebay's own attributes.
const OWN: &str = "user.forebay.";

/// Kinds of extended attributes that are kept. Access control lists (`system.`) are not.
const KINDS: [&str; 3] = ["user.", "trusted.", "security."];

/// A change of attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Last access; `Some(None)`: now.
    pub atime: Option<Option<SystemTime>>,
    /// Last content change; `Some(None)`: now.
    pub mtime: Option<Option<SystemTime>>,
    /// The handle through which it was asked.
    pub handle: Option<u64>,
    /// Whoever asks may not keep the bits that run a program as its owner.
    pub kill_setid: bool,
}

impl Volume {
    /// Changes attributes.
    pub async fn setattr(&self, node: NodeId, change: SetAttr) -> Result<Entry> {
        if let Some(path) = self.tree.lock().path(node) {
            self.check_changeable(&path)?;
        }
        if let Some(size) = change.size {
            self.truncate(node, change.handle, size).await?;
        }
        let _moving = self.moving.read().await;
        let set = self.set_of(node, change).await?;
        if set != SetAttributes::default() {
            self.set(node, &set).await?;
        }
        self.attributes_of(node).await
    }

    async fn set_of(&self, node: NodeId, change: SetAttr) -> Result<SetAttributes> {
        let now = self.now();
        let at = |time: Option<Option<SystemTime>>| time.map(|time| time.map_or(now, timestamp));
        let mut set = SetAttributes {
            mode: change.mode,
            uid: change.uid,
            gid: change.gid,
            mtime: at(change.mtime),
            atime: at(change.atime),
            xattrs: BTreeMap::new(),
        };
        let owner = change.uid.is_some() || change.gid.is_some();
        if set.mode.is_none() && (owner || change.kill_setid) {
            set.mode = without_setid(&self.stat_of(node).await?);
        }
        Ok(set)
    }

    async fn set(&self, node: NodeId, set: &SetAttributes) -> Result<()> {
        let file = self.open_file(node);
        if let Some(file) = &file {
            if self.path(node).is_err() {
                self.taken(node).await;
            }
            if set.mtime.is_some() {
                *file.times.lock() = Times::default();
            }
            if set_apart(self, file, set) {
                return Ok(());
            }
        }
        let path = self.path(node)?;
        let own = self.begin_own(&path);
        self.cache.set_attributes(&path, set.clone()).await?;
        drop(own);
        self.keep_mtime(file, set);
        if let Some(node) = self.tree.lock().get_mut(node) {
            node.touched = None;
        }
        Ok(())
    }

    /// A time that was set stays when the changes before it are placed.
    fn keep_mtime(&self, file: Option<Arc<OpenFile>>, set: &SetAttributes) {
        if let (Some(file), Some(mtime)) = (file, set.mtime) {
            file.times.lock().mtime = Some(mtime);
        }
    }

    /// After a write by someone who may not keep them: the bits that run a program as its owner go.
    pub async fn drop_setid(&self, node: NodeId) -> Result<()> {
        let _moving = self.moving.read().await;
        let mode = without_setid(&self.stat_of(node).await?);
        let set = SetAttributes {
            mode,
            ..SetAttributes::default()
        };
        if mode.is_some() {
            self.set(node, &set).await
        } else {
            Ok(())
        }
    }

    /// An extended attribute. ENODATA.
    pub async fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let _moving = self.moving.read().await;
        if let Some(own) = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(OWN)) {
            let stat = self.stat_of(node).await?;
            return self.own_xattr(&stat, own).await?.ok_or(Errno(libc::ENODATA));
        }
        let mut xattrs = self.xattrs(node).await?;
        xattrs.remove(name).ok_or(Errno(libc::ENODATA))
    }

    /// Names of the extended attributes. Forebay's own are told to who asks for them by name: programs that copy attributes would try to
    /// set what they find listed.
    pub async fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let _moving = self.moving.read().await;
        Ok(self.xattrs(node).await?.into_keys().collect())
    }

    /// Sets or removes an extended attribute. `flags`: `XATTR_CREATE` or `XATTR_REPLACE`.
    pub async fn setxattr(&self, node: NodeId, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<()> {
        self.check_changeable(&self.path(node)?)?;
        if name.starts_with(OWN.as_bytes()) {
            return Err(Errno(libc::EPERM));
        }
        if !KINDS.iter().any(|kind| name.starts_with(kind.as_bytes())) {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        if let Some(file) = self.open_file(node).filter(|file| file.is_pending()) {
            self.settle(&file, Why::Sync).await?;
        }
        let _moving = self.moving.read().await;
        let there = self.xattrs(node).await?.contains_key(name);
        match (there, flags) {
            (true, libc::XATTR_CREATE) => return Err(Errno(libc::EEXIST)),
            (false, libc::XATTR_REPLACE) => return Err(Errno(libc::ENODATA)),
            (false, _) if value.is_none() => return Err(Errno(libc::ENODATA)),
            _ => {}
        }
        let set = SetAttributes {
            xattrs: [(name.to_vec(), value.map(<[u8]>::to_vec))].into(),
            ..SetAttributes::default()
        };
        self.set(node, &set).await
    }

    async fn xattrs(&self, node: NodeId) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        // A file without a name in the cache has none.
        match self.open_file(node).is_some_and(|file| file.apart.lock().is_some()) {
            true => Ok(BTreeMap::new()),
            false => Ok(self.cache.xattrs(&self.path(node)?).await?),
        }
    }

    /// What Forebay itself says of a node.
    async fn own_xattr(&self, stat: &Stat, name: &str) -> Result<Option<Vec<u8>>> {
        let in_store = matches!(stat.state, State::Persisted | State::Clean);
        let text = match name {
            "state" => Some(state_name(stat.state).to_owned()),
            "level" if in_store => Some("persisted".to_owned()),
            "level" if stat.state == State::Open => Some("memory".to_owned()),
            "level" => Some(self.cache.ack_level_at(&stat.path).name().to_owned()),
            "persisted" => Some(in_store.to_string()),
            "etag" => stat.etag.clone(),
            "dataset" | "version" => self.dataset_xattr(stat, name).await?,
            _ => None,
        };
        Ok(text.map(String::into_bytes))
    }

    async fn dataset_xattr(&self, stat: &Stat, name: &str) -> Result<Option<String>> {
        let dir = match (stat.kind, stat.path.parent()) {
            (StatKind::Dir, _) => Some(stat.clone()),
            (StatKind::File, Some(parent)) => self.cache.stat(&parent).await.ok(),
            _ => None,
        };
        Ok(dir.and_then(|dir| {
            let version = dir.version?;
            Some(match name {
                "dataset" => dir.path.to_string(),
                _ => version.to_string(),
            })
        }))
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Sealed => "sealed",
        State::Persisted => "persisted",
        State::Clean => "clean",
    }
}

/// Changes the attributes of a file that the cache has no name for; false when it has one.
fn set_apart(volume: &Volume, file: &OpenFile, set: &SetAttributes) -> bool {
    let mut apart = file.apart.lock();
    let Some(stat) = &mut *apart else { return false };
    stat.mode = set.mode.map_or(stat.mode, |mode| mode & 0o7777);
    stat.uid = set.uid.unwrap_or(stat.uid);
    stat.gid = set.gid.unwrap_or(stat.gid);
    stat.mtime = set.mtime.unwrap_or(stat.mtime);
    stat.atime = set.atime.unwrap_or(stat.atime);
    stat.ctime = volume.now();
    true
}

/// The mode that a file has after someone else than its owner changed it; `None`: the same.
fn without_setid(stat: &Stat) -> Option<u32> {
    let mut mode = stat.mode & !libc::S_ISUID;
    if stat.mode & libc::S_IXGRP != 0 {
        mode &= !libc::S_ISGID;
    }
    (stat.kind == StatKind::File && mode != stat.mode).then_some(mode)
}
