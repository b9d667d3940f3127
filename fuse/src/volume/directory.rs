//! Listings: one page at a time, however large the directory is.
//!
//! An entry's offset is its position, from 1 on: `.`, `..`, the files that are not placed yet, then what the cache lists. A listing goes
//! on where the last one ended; one that goes back begins anew.

use super::{
    Attr, Entry, FileKind, Mode, NodeId, Volume,
    lookup::{KNOWN_MAX, TTL_STORE},
    open::Why,
};
use crate::{Errno, Result};
use forebay_runtime::clock::Timestamp;
use forebay_writeback::names::Stat;
use std::{collections::VecDeque, sync::Arc};

/// Entries read at once.
const PAGE: usize = 512;

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Where the listing goes on after it.
    pub offset: u64,
    /// Its name.
    pub name: &'a [u8],
    /// What it is; the node is 0 unless the kernel was asked to know it.
    pub entry: Entry,
}

/// An opened directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedDir {
    /// The handle.
    pub handle: u64,
    /// Whether the kernel may answer from what it has listed before.
    pub keep: bool,
}

/// An open directory.
#[derive(Debug)]
pub(super) struct DirHandle {
    node: NodeId,
    /// Offset of the entry before the first in `page`.
    position: u64,
    page: VecDeque<(Vec<u8>, Listed)>,
    pending: Vec<Arc<[u8]>>,
    after: Option<Vec<u8>>,
    ended: bool,
}

#[derive(Debug)]
enum Listed {
    Itself,
    Above,
    Pending,
    There(Box<Stat>),
}

impl Volume {
    /// Opens a directory.
    pub async fn opendir(&self, node: NodeId) -> Result<OpenedDir> {
        let _moving = self.moving.read().await;
        if self.attributes_of(node).await?.attr.kind != FileKind::Dir {
            return Err(Errno(libc::ENOTDIR));
        }
        let keep = self.keeps_listing(node)?;
        let handle = self.handle_number();
        let directory = DirHandle::new(node);
        self.directories
            .insert(handle, Arc::new(tokio::sync::Mutex::new(directory)));
        Ok(OpenedDir { handle, keep })
    }

    /// Whether what the kernel has listed of a directory is still good; if not, it lists anew now. Of all changes by others but an
    /// under-store's it is told.
    fn keeps_listing(&self, node: NodeId) -> Result<bool> {
        if self.options.mode == Mode::Dataset {
            return Ok(true);
        }
        let by_itself = self.cache.has_store(&self.path(node)?);
        let now = self.now();
        let mut tree = self.tree.lock();
        let Some(known) = tree.get_mut(node) else {
            return Ok(false);
        };
        let good = |listed: Timestamp| !by_itself || now.0 < listed.0.saturating_add(TTL_STORE.as_micros() as i64);
        let keep = known.listed.is_some_and(good);
        if !keep {
            known.listed = Some(now);
        }
        Ok(keep)
    }

    /// Closes it.
    pub fn releasedir(&self, handle: u64) {
        self.directories.remove(&handle);
    }

    /// Makes the names in a directory durable: those of files that are being created; all others are.
    pub async fn fsyncdir(&self, node: NodeId) -> Result<()> {
        let _moving = self.moving.read().await;
        let pending = self.tree.lock().pending_in(node);
        for name in pending {
            let node = self.tree.lock().find(node, &name);
            if let Some(file) = node.and_then(|node| self.open_file(node)) {
                self.settle(&file, Why::Sync).await?;
            }
        }
        Ok(())
    }

    /// Lists from `offset` on, until `take` says that it has no room for the entry. With `show` the kernel knows each that is taken.
    pub async fn readdir(
        &self,
        handle: u64,
        offset: u64,
        show: bool,
        mut take: impl FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let _moving = self.moving.read().await;
        let directory = self.directories.get(&handle).map(|handle| Arc::clone(&handle));
        let directory = directory.ok_or(Errno(libc::EBADF))?;
        let mut directory = directory.lock().await;
        directory.seek(self, offset).await?;
        if show {
            self.limit_names(KNOWN_MAX);
        }
        while directory.has_more(self).await? {
            let Some((name, listed)) = directory.page.front() else {
                break;
            };
            if let Some(entry) = self.list_entry(directory.node, name, listed, show) {
                let entry = DirEntry {
                    offset: directory.position + 1,
                    name,
                    entry,
                };
                if !take(&entry) {
                    if show {
                        self.unshow(&entry);
                    }
                    return Ok(());
                }
            }
            directory.advance();
        }
        Ok(())
    }

    /// `None`: a file that was placed or removed since the listing began.
    fn list_entry(&self, dir: NodeId, name: &[u8], listed: &Listed, show: bool) -> Option<Entry> {
        match listed {
            Listed::Itself => Some(directory_entry(dir)),
            Listed::Above => Some(directory_entry(self.parent_of(dir))),
            Listed::Pending => {
                let node = self.tree.lock().find(dir, name)?;
                let stat = self.open_file(node)?.apart.lock().clone()?;
                Some(self.show_listed(dir, name, &stat, show))
            }
            Listed::There(stat) => Some(self.show_listed(dir, name, stat, show)),
        }
    }

    fn show_listed(&self, dir: NodeId, name: &[u8], stat: &Stat, show: bool) -> Entry {
        if show {
            return self.show(dir, name, stat);
        }
        let known = self.tree.lock().find(dir, name);
        self.entry(known.unwrap_or(stat.id), stat)
    }

    /// What was shown was not taken.
    fn unshow(&self, entry: &DirEntry<'_>) {
        if entry.name != b"." && entry.name != b".." {
            self.forget(entry.entry.attr.node, 1);
        }
    }
}

impl DirHandle {
    fn new(node: NodeId) -> Self {
        Self {
            node,
            position: 0,
            page: VecDeque::new(),
            pending: Vec::new(),
            after: None,
            ended: false,
        }
    }

    /// Goes to the entry after `offset`.
    async fn seek(&mut self, volume: &Volume, offset: u64) -> Result<()> {
        if offset < self.position || offset == 0 {
            *self = Self::new(self.node);
            self.pending = volume.tree.lock().pending_in(self.node);
            self.page = [(b".".to_vec(), Listed::Itself), (b"..".to_vec(), Listed::Above)].into();
            let pending = self.pending.iter().map(|name| (name.to_vec(), Listed::Pending));
            self.page.extend(pending);
        }
        while self.position < offset && self.has_more(volume).await? {
            self.advance();
        }
        Ok(())
    }

    fn advance(&mut self) {
        if self.page.pop_front().is_some() {
            self.position += 1;
        }
    }

    /// Whether there is an entry, which is then at the front of the page.
    async fn has_more(&mut self, volume: &Volume) -> Result<bool> {
        while self.page.is_empty() && !self.ended {
            self.fill(volume).await?;
        }
        Ok(!self.page.is_empty())
    }

    async fn fill(&mut self, volume: &Volume) -> Result<()> {
        let path = match volume.path(self.node) {
            Ok(path) => path,
            // A directory that was removed has no entries.
            Err(_) => {
                self.ended = true;
                return Ok(());
            }
        };
        let stats = volume.cache.list_page(&path, self.after.as_deref(), PAGE).await?;
        self.ended = stats.len() < PAGE;
        for stat in stats {
            let Some(name) = stat.path.name().map(<[u8]>::to_vec) else {
                continue;
            };
            self.after = Some(name.clone());
            // It was listed before the others.
            if self.pending.iter().all(|pending| **pending != *name) {
                self.page.push_back((name, Listed::There(Box::new(stat))));
            }
        }
        Ok(())
    }
}

/// Of `.` and `..` programs want the number only.
fn directory_entry(node: NodeId) -> Entry {
    Entry {
        attr: Attr {
            node,
            kind: FileKind::Dir,
            size: 0,
            mode: 0o755,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            mtime: std::time::UNIX_EPOCH,
            ctime: std::time::UNIX_EPOCH,
            atime: std::time::UNIX_EPOCH,
        },
        ttl: std::time::Duration::ZERO,
    }
}
