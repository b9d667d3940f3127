//! Listings: one page at a time, however large the directory is.
//!
//! An entry's offset is its position, from 1 on: `.`, `..`, the files that are not placed yet, then what the cache lists. A listing goes
//! on where the last one ended; one that goes back begins anew. The kernel may have the first entries from an earlier listing and ask for
//! the rest only: then all is listed but what it was given before that offset, whatever came or went since.
//!
//! While a page is taken the next one is read, so that the program and the cache work at the same time. What was read is read again when
//! something in the directory has changed since: the kernel believes a listing for as long as it believes a lookup, so a name that is gone
//! or a size that is old would stay for a day.

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
    page: VecDeque<Name>,
    /// What had changed in the directory when the page was read.
    changes: u64,
    pending: Vec<Arc<[u8]>>,
    /// The last name that was read of the cache, and the last one that was passed.
    after: Option<Arc<[u8]>>,
    passed: Option<Arc<[u8]>>,
    /// The page after this name.
    coming: Option<Coming>,
    ended: bool,
}

/// A page that is being read. Dropped, it is given up.
#[derive(Debug)]
struct Coming {
    /// Where the directory was then, and what had changed in it.
    path: Path,
    changes: u64,
    names: RemoteHandle<Result<Vec<Name>>>,
}

/// A name that is about to be listed.
#[derive(Debug)]
struct Name {
    name: Arc<[u8]>,
    hash: u64,
    listed: Listed,
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
        directory.refresh(self);
        directory.seek(self, offset).await?;
        if show {
            self.limit_names(KNOWN_MAX);
        }
        let mut taken = Vec::new();
        while directory.has_more(self).await? {
            let Some(Name { name, hash, listed }) = directory.page.front() else {
                break;
            };
            let hash = *hash;
            if directory.given.contains(&hash) {
                directory.pass();
                continue;
            }
            let Some(entry) = self.list_entry(directory.node, name, listed, show) else {
                // Placed or removed since the listing began: the cache says which.
                let name = Arc::clone(name);
                directory.pending.retain(|pending| *pending != name);
                directory.pass();
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
                break;
            }
            taken.push(hash);
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

    /// `None`: a file that was not placed when the listing began, and is now, or is gone.
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

    fn changes_in(&self, dir: NodeId) -> u64 {
        self.tree.lock().changes_in(dir)
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
            changes: 0,
            pending: Vec::new(),
            after: None,
            passed: None,
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
            let above = [(&b"."[..], Listed::Itself), (&b".."[..], Listed::Above)];
            self.page = above.map(|(name, listed)| Name::new(Arc::from(name), listed)).into();
            let pending = self
                .pending
                .iter()
                .map(|name| Name::new(Arc::clone(name), Listed::Pending));
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
        if self.pass() {
            self.position += 1;
        }
    }

    /// Takes the first entry from the page.
    fn pass(&mut self) -> bool {
        let Some(Name { name, listed, .. }) = self.page.pop_front() else {
            return false;
        };
        if matches!(listed, Listed::There(_)) {
            self.passed = Some(name);
        }
        true
    }

    /// Whether there is an entry, which is then at the front of the page.
    async fn has_more(&mut self, volume: &Volume) -> Result<bool> {
        while self.page.is_empty() && !self.ended {
            self.fill(volume).await?;
        }
        Ok(!self.page.is_empty())
    }

    /// What was read before a change is read again, from the last entry on that was passed.
    fn refresh(&mut self, volume: &Volume) {
        if self.after.is_some() && self.changes != volume.changes_in(self.node) {
            self.page.retain(|name| !matches!(name.listed, Listed::There(_)));
            self.after = self.passed.clone();
            self.coming = None;
            self.ended = false;
        }
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
        self.changes = volume.changes_in(self.node);
        let coming = self.coming.take();
        let coming = coming.filter(|coming| coming.path == path && coming.changes == self.changes);
        let mut names = match coming {
            Some(coming) => coming.names.await?,
            None => page(volume.cache.clone(), path.clone(), self.after.clone()).await?,
        };
        self.ended = names.len() < PAGE;
        if let Some(last) = names.last() {
            self.after = Some(Arc::clone(&last.name));
        }
        // They were listed before the others.
        names.retain(|name| self.pending.iter().all(|pending| *pending != name.name));
        self.page.extend(names);
        if !self.ended {
            let (read, names) = page(volume.cache.clone(), path.clone(), self.after.clone()).remote_handle();
            tokio::spawn(read);
            self.coming = Some(Coming {
                path,
                changes: self.changes,
                names,
            });
        }
        Ok(())
    }
}

impl Name {
    fn new(name: Arc<[u8]>, listed: Listed) -> Self {
        let hash = hash_of(&name);
        Self { name, hash, listed }
    }
}

fn hash_of(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The entries of a directory after a name, without their paths: whoever lists them knows the directory, and waits for as little as
/// possible.
async fn page(cache: Cache, path: Path, after: Option<Arc<[u8]>>) -> Result<Vec<Name>> {
    let stats = cache.list_page(&path, after.as_deref(), PAGE).await?;
    let named = stats.into_iter().filter_map(|stat| {
        let name = Arc::from(stat.path.name()?);
        let stat = Stat {
            path: Path::root(),
            ..stat
        };
        Some(Name::new(name, Listed::There(Box::new(stat))))
    });
    Ok(named.collect())
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
