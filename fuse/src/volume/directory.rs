//! Listings: one page at a time, however large the directory is.
//!
//! An entry's offset is its position, from 1 on: `.`, `..`, the files that are not placed yet, then what the cache lists. A listing goes
//! on where the last one ended; one that goes back begins anew.

use super::{Attr, Entry, FileKind, NodeId, Volume, open::Why};
use crate::{Errno, Result};
use forebay_writeback::names::Stat;
use std::{collections::VecDeque, sync::Arc};

/// Entries read at once.
const PAGE: usize = 512;

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Where the listing goes on after it.
    pub offset: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// What it is; the node is 0 unless the kernel was asked to know it.
    pub entry: Entry,
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

#[derive(Clone, Debug)]
enum Listed {
    Itself,
    Above,
    Pending,
    There(Box<Stat>),
}

impl Volume {
    /// Opens a directory.
    pub async fn opendir(&self, node: NodeId) -> Result<u64> {
        let _moving = self.moving.read().await;
        if self.attributes_of(node).await?.attr.kind != FileKind::Dir {
            return Err(Errno(libc::ENOTDIR));
        }
        let handle = self.handle_number();
        let directory = DirHandle::new(node);
        self.directories
            .insert(handle, Arc::new(tokio::sync::Mutex::new(directory)));
        Ok(handle)
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
        mut take: impl FnMut(&DirEntry) -> bool,
    ) -> Result<()> {
        let _moving = self.moving.read().await;
        let directory = self.directories.get(&handle).map(|handle| Arc::clone(&handle));
        let directory = directory.ok_or(Errno(libc::EBADF))?;
        let mut directory = directory.lock().await;
        directory.seek(self, offset).await?;
        while let Some((name, listed)) = directory.peek(self).await? {
            let entry = self.list_entry(directory.node, &name, &listed, show);
            let Some(entry) = entry else {
                directory.advance();
                continue;
            };
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
    fn unshow(&self, entry: &DirEntry) {
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
        while self.position < offset && self.peek(volume).await?.is_some() {
            self.advance();
        }
        Ok(())
    }

    fn advance(&mut self) {
        if self.page.pop_front().is_some() {
            self.position += 1;
        }
    }

    async fn peek(&mut self, volume: &Volume) -> Result<Option<(Vec<u8>, Listed)>> {
        while self.page.is_empty() && !self.ended {
            self.fill(volume).await?;
        }
        Ok(self.page.front().cloned())
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
