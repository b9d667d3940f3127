//! Listings: one page at a time, however large the directory is.
//!
//! An entry's offset is its position, from 1 on: `.`, `..`, the files that are not placed yet, then what the cache lists. A listing goes
//! on where the last one ended; one that goes back begins anew. The kernel may have the first entries from an earlier listing and ask for
//! the rest only: then all is listed but what it was given before that offset, whatever came or went since. While a page is taken the next one is read, so that the program and the
//! cache work at the same time.

use super::{
    Attr, Entry, FileKind, Mode, NodeId, Volume,
    lookup::{KNOWN_MAX, TTL_STORE},
    open::Why,
};
use crate::{Errno, Result};
use forebay_runtime::clock::Timestamp;
use forebay_writeback::{Cache, Path, names::Stat};
use futures::{FutureExt, future::RemoteHandle};
use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

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
    /// Whether it was listed from the beginning: what the kernel remembers of earlier listings it does not ask for.
    begun: bool,
    /// Offset of the entry before the first in `page`.
    position: u64,
    /// What the kernel was given before this listing began, by the hash of the name.
    given: HashSet<u64>,
    page: VecDeque<(Vec<u8>, Listed)>,
    pending: Vec<Arc<[u8]>>,
    after: Option<Vec<u8>>,
    /// The page after this name.
    coming: Option<Coming>,
    ended: bool,
}

/// A page that is being read. Dropped, it is given up.
#[derive(Debug)]
struct Coming {
    /// Where the directory was then.
    path: Path,
    stats: RemoteHandle<Result<Vec<Stat>>>,
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
        let mut taken = Vec::new();
        while directory.has_more(self).await? {
            let Some((name, listed)) = directory.page.front() else {
                break;
            };
            let hash = hash_of(name);
            if directory.given.contains(&hash) {
                directory.page.pop_front();
                continue;
            }
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
                    break;
                }
                taken.push(hash);
            }
            directory.advance();
        }
        self.note_given(directory.node, offset, &taken);
        Ok(())
    }

    /// Remembers what the kernel was given from `offset` on, as far as it has all before.
    fn note_given(&self, node: NodeId, offset: u64, taken: &[u64]) {
        if let Some(known) = self.tree.lock().get_mut(node) {
            if offset == 0 {
                known.given.clear();
            }
            if known.given.len() as u64 == offset {
                known.given.extend_from_slice(taken);
            }
        }
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
            begun: false,
            position: 0,
            given: HashSet::new(),
            page: VecDeque::new(),
            pending: Vec::new(),
            after: None,
            coming: None,
            ended: false,
        }
    }

    /// Goes to the entry after `offset`.
    async fn seek(&mut self, volume: &Volume, offset: u64) -> Result<()> {
        if !self.begun || offset < self.position || offset == 0 {
            *self = Self::new(self.node);
            self.begun = true;
            self.pending = volume.tree.lock().pending_in(self.node);
            self.page = [(b".".to_vec(), Listed::Itself), (b"..".to_vec(), Listed::Above)].into();
            let pending = self.pending.iter().map(|name| (name.to_vec(), Listed::Pending));
            self.page.extend(pending);
            let before = usize::try_from(offset).unwrap_or(usize::MAX);
            let tree = volume.tree.lock();
            if let Some(given) = tree.get(self.node).and_then(|known| known.given.get(..before)) {
                (self.given, self.position) = (given.iter().copied().collect(), offset);
            }
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
        let stats = match self.coming.take().filter(|coming| coming.path == path) {
            Some(coming) => coming.stats.await?,
            None => page(volume.cache.clone(), path.clone(), self.after.clone()).await?,
        };
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
        if !self.ended {
            let (read, stats) = page(volume.cache.clone(), path.clone(), self.after.clone()).remote_handle();
            tokio::spawn(read);
            self.coming = Some(Coming { path, stats });
        }
        Ok(())
    }
}

fn hash_of(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The entries of a directory after a name.
async fn page(cache: Cache, path: Path, after: Option<Vec<u8>>) -> Result<Vec<Stat>> {
    Ok(cache.list_page(&path, after.as_deref(), PAGE).await?)
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
