//! Making, removing and moving names.

use super::{
    Caller, Entry, NodeId, OpenHow, Opened, Volume,
    open::{Current, OpenFile, Settled, Why},
};
use crate::{Errno, Result};
use forebay_writeback::{
    Path,
    file::DraftRoom,
    names::{Make, MakeKind, Rename, Stat, StatKind, State},
};
use std::sync::{Arc, atomic::Ordering};

/// The new entry takes its directory's group, and a directory the bit as well.
const S_ISGID: u32 = libc::S_ISGID;

/// The target of a rename.
#[derive(Debug)]
enum Cleared {
    /// The open file that is about to lose its name, if there is one.
    Of(Option<Arc<OpenFile>>),
    /// Nothing was done: what is there needs room to be placed.
    NoRoom,
}

impl Volume {
    /// Creates a file and opens it. Its name is at other doors with its first close or fsync. With `exclusive` nothing may be there.
    pub async fn create(
        &self,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        flags: i32,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        let busy = self.begin_in([parent]);
        let moving = self.moving.read().await;
        let path = self.child_path(parent, name)?;
        self.check_changeable(&path)?;
        match self.lookup_here(parent, name, &path).await {
            Ok(_) if flags & libc::O_EXCL != 0 => return Err(Errno(libc::EEXIST)),
            Ok(entry) => {
                drop((moving, busy));
                let opened = self.open(entry.attr.node, flags).await?;
                if flags & libc::O_TRUNC != 0 {
                    self.cut(&self.handle(opened.handle)?.file, 0).await?;
                }
                return Ok((self.getattr(entry.attr.node).await?, opened));
            }
            Err(Errno(libc::ENOENT)) => {}
            Err(error) => return Err(error),
        }
        let (file, entry) = self.new_file(parent, name, path, mode, caller).await?;
        let opened = self.opened(&file, true, OpenHow::Direct);
        Ok((entry, opened.expect("nobody reads a new file yet")))
    }

    /// Like a lookup, by whoever holds `moving`.
    async fn lookup_here(&self, parent: NodeId, name: &[u8], path: &Path) -> Result<Entry> {
        let known = self.tree.lock().find(parent, name);
        let pending = known
            .and_then(|node| self.open_file(node))
            .filter(|file| file.is_pending())
            .and_then(|file| file.apart.lock().clone());
        if let Some(stat) = pending {
            return Ok(self.show(parent, name, &stat));
        }
        let stat = self.cache.stat(path).await?;
        Ok(self.show(parent, name, &stat))
    }

    /// A file that is not placed yet.
    async fn new_file(
        &self,
        parent: NodeId,
        name: &[u8],
        path: Path,
        mode: u32,
        caller: Caller,
    ) -> Result<(Arc<OpenFile>, Entry)> {
        let gid = self.group_in(parent, caller).await?.0;
        let draft = Arc::new(self.cache.draft(None, 0).await?);
        let now = self.now();
        let stat = Stat {
            path,
            kind: StatKind::File,
            size: 0,
            mtime: now,
            mode: mode & 0o7777,
            state: State::Open,
            cached_bytes: 0,
            version: None,
            etag: None,
            id: draft.ino(),
            uid: caller.uid,
            gid,
            ctime: now,
            atime: now,
            target: None,
            special: None,
        };
        let mut tree = self.tree.lock();
        let node = tree.remember(parent, name, stat.id);
        tree.age(node);
        drop(tree);
        let content = Current {
            reader: None,
            draft: Some(draft),
        };
        let file = OpenFile::new(node, content, Some(stat.clone()));
        self.files.lock().insert(node, Arc::clone(&file));
        self.tree.lock().mark_pending(node);
        self.touch(parent);
        Ok((file, self.entry(node, &stat)))
    }

    /// The group of a new entry of `parent`, and whether that is the directory's doing.
    async fn group_in(&self, parent: NodeId, caller: Caller) -> Result<(u32, bool)> {
        let dir = self.stat_of(parent).await?;
        Ok(if dir.mode & S_ISGID != 0 {
            (dir.gid, true)
        } else {
            (caller.gid, false)
        })
    }

    /// Makes a file, pipe, socket or device without opening it; `mode` with its type.
    pub async fn mknod(&self, parent: NodeId, name: &[u8], mode: u32, rdev: u32, caller: Caller) -> Result<Entry> {
        let format = mode & libc::S_IFMT;
        if format != libc::S_IFREG && format != 0 {
            return self
                .make(parent, name, MakeKind::Special(format, rdev), mode, caller)
                .await;
        }
        let (entry, opened) = self
            .create(parent, name, mode, libc::O_EXCL | libc::O_WRONLY, caller)
            .await?;
        self.flush(opened.handle).await?;
        self.release(opened.handle).await?;
        Ok(entry)
    }

    /// Makes a directory.
    pub async fn mkdir(&self, parent: NodeId, name: &[u8], mode: u32, caller: Caller) -> Result<Entry> {
        self.make(parent, name, MakeKind::Dir, mode, caller).await
    }

    /// Makes a symbolic link.
    pub async fn symlink(&self, parent: NodeId, name: &[u8], target: &[u8], caller: Caller) -> Result<Entry> {
        let kind = MakeKind::Symlink(target.to_vec());
        self.make(parent, name, kind, 0o777, caller).await
    }

    async fn make(&self, parent: NodeId, name: &[u8], kind: MakeKind, mode: u32, caller: Caller) -> Result<Entry> {
        let _busy = self.begin_in([parent]);
        let _moving = self.moving.read().await;
        let path = self.child_path(parent, name)?;
        self.check_changeable(&path)?;
        if self.is_pending(parent, name) {
            return Err(Errno(libc::EEXIST));
        }
        let (gid, inherited) = self.group_in(parent, caller).await?;
        let inherits = inherited && kind == MakeKind::Dir;
        let make = Make {
            kind,
            parents: false,
            mode: mode & 0o7777 | if inherits { S_ISGID } else { 0 },
            uid: caller.uid,
            gid,
        };
        let own = self.begin_own(&path);
        self.cache.make(&path, make).await?;
        drop(own);
        self.touch(parent);
        let stat = self.cache.stat(&path).await?;
        Ok(self.show(parent, name, &stat))
    }

    fn is_pending(&self, parent: NodeId, name: &[u8]) -> bool {
        let node = self.tree.lock().find(parent, name);
        node.and_then(|node| self.open_file(node))
            .is_some_and(|file| file.is_pending())
    }

    /// Removes a file, link or special file. Whoever has it open goes on with it.
    pub async fn unlink(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        let _busy = self.begin_in([parent]);
        let _moving = self.moving.read().await;
        let path = self.child_path(parent, name)?;
        self.check_changeable(&path)?;
        let node = self.tree.lock().find(parent, name);
        let file = node.and_then(|node| self.open_file(node));
        // A close under way would bring it back.
        let placing = match &file {
            Some(file) => Some(file.placing.lock().await),
            None => None,
        };
        match &file {
            Some(file) if file.is_pending() => {}
            _ => self.remove(&path, file.as_ref(), false).await?,
        }
        // Opened meanwhile: it reads what is gone.
        let opened = node.and_then(|node| self.open_file(node));
        self.lost(node, file.clone().or(opened)).await;
        drop(placing);
        self.touch(parent);
        Ok(())
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        let _busy = self.begin_in(self.with_children([(parent, name)]));
        let _moving = self.moving.write().await;
        let path = self.child_path(parent, name)?;
        self.check_changeable(&path)?;
        let node = self.tree.lock().find(parent, name);
        if node.is_some_and(|node| !self.tree.lock().pending_in(node).is_empty()) {
            return Err(Errno(libc::ENOTEMPTY));
        }
        self.remove(&path, None, true).await?;
        self.lost(node, None).await;
        self.touch(parent);
        Ok(())
    }

    async fn remove(&self, path: &Path, file: Option<&Arc<OpenFile>>, dir: bool) -> Result<()> {
        let stat = self.cache.stat(path).await?;
        match (stat.kind == StatKind::Dir, dir) {
            (true, false) => return Err(Errno(libc::EISDIR)),
            (false, true) => return Err(Errno(libc::ENOTDIR)),
            _ => {}
        }
        let own = self.begin_own(path);
        self.cache.delete(path, false).await?;
        drop(own);
        if let Some(file) = file {
            *file.apart.lock() = Some(stat);
        }
        Ok(())
    }

    /// A node has lost its name.
    pub(super) async fn lost(&self, node: Option<NodeId>, file: Option<Arc<OpenFile>>) {
        if let Some(file) = file {
            if let Some(stat) = &mut *file.apart.lock() {
                stat.ctime = self.now();
            }
            file.unlinked.store(true, Ordering::Release);
            self.let_go(&file).await;
        }
        if let Some(node) = node {
            self.tree.lock().unlink(node);
        }
    }

    /// Renames. `flags`: `RENAME_NOREPLACE` or `RENAME_EXCHANGE`.
    pub async fn rename(&self, from: (NodeId, &[u8]), to: (NodeId, &[u8]), flags: u32) -> Result<()> {
        let _busy = self.begin_in(self.with_children([from, to]));
        loop {
            // What is at the names may have to be placed first. Nobody waits for whoever waits for room.
            let mut rooms = [self.room_at(from).await?, self.room_at(to).await?];
            let _moving = self.moving.write().await;
            if self.try_rename(from, to, flags, &mut rooms).await? == Settled::Done {
                return Ok(());
            }
        }
    }

    async fn try_rename(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        flags: u32,
        [from_room, to_room]: &mut [Option<DraftRoom>; 2],
    ) -> Result<Settled> {
        if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE) != 0 {
            return Err(Errno(libc::EINVAL));
        }
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let (source, target) = (self.child_path(from.0, from.1)?, self.child_path(to.0, to.1)?);
        self.check_changeable(&source)?;
        self.check_changeable(&target)?;
        if flags & libc::RENAME_NOREPLACE != 0 && self.lookup_now(to, &target).await?.is_some() {
            return Err(Errno(libc::EEXIST));
        }
        if source == target {
            return Ok(Settled::Done);
        }
        if self.settle_name(from, from_room).await? == Settled::NoRoom {
            return Ok(Settled::NoRoom);
        }
        let Cleared::Of(replaced) = self.clear_target(to, exchange, to_room).await? else {
            return Ok(Settled::NoRoom);
        };
        let before = match &replaced {
            Some(file) if !exchange => self.cache.stat(&target).await.ok().map(|stat| (Arc::clone(file), stat)),
            _ => None,
        };
        let how = Rename {
            replace: true,
            exchange,
            parents: false,
        };
        let own = self.begin_own(&source);
        self.cache.rename(&source, &target, how).await?;
        drop(own);
        self.renamed(from, to, exchange, before).await;
        Ok(Settled::Done)
    }

    async fn lookup_now(&self, at: (NodeId, &[u8]), path: &Path) -> Result<Option<Stat>> {
        if self.is_pending(at.0, at.1) {
            let node = self.tree.lock().find(at.0, at.1);
            return Ok(node.and_then(|node| self.open_file(node)?.apart.lock().clone()));
        }
        match self.cache.stat(path).await {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == forebay_writeback::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The file at a name that is not in the cache yet.
    fn pending_at(&self, at: (NodeId, &[u8])) -> Option<Arc<OpenFile>> {
        let node = self.tree.lock().find(at.0, at.1)?;
        self.open_file(node).filter(|file| file.is_pending())
    }

    /// Waits for the room that placing the file at a name takes, if it is not in the cache yet.
    async fn room_at(&self, at: (NodeId, &[u8])) -> Result<Option<DraftRoom>> {
        match self.pending_at(at) {
            Some(file) => self.room_for(&file).await,
            None => Ok(None),
        }
    }

    /// Places the file at a name, if it is not in the cache yet: only what is there can be moved.
    async fn settle_name(&self, at: (NodeId, &[u8]), room: &mut Option<DraftRoom>) -> Result<Settled> {
        match self.pending_at(at) {
            Some(file) => self.try_settle(&file, Why::End, room).await,
            None => Ok(Settled::Done),
        }
    }

    /// Prepares the target of a rename.
    async fn clear_target(&self, at: (NodeId, &[u8]), exchange: bool, room: &mut Option<DraftRoom>) -> Result<Cleared> {
        let node = self.tree.lock().find(at.0, at.1);
        if node.is_some_and(|node| !exchange && !self.tree.lock().pending_in(node).is_empty()) {
            return Err(Errno(libc::ENOTEMPTY));
        }
        let Some(file) = node.and_then(|node| self.open_file(node)) else {
            return Ok(Cleared::Of(None));
        };
        if file.is_pending() && self.try_settle(&file, Why::End, room).await? == Settled::NoRoom {
            return Ok(Cleared::NoRoom);
        }
        Ok(Cleared::Of(Some(file)))
    }

    async fn renamed(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        exchange: bool,
        replaced: Option<(Arc<OpenFile>, Stat)>,
    ) {
        self.tree.lock().rename(from, to, exchange);
        if let Some((file, stat)) = replaced {
            *file.apart.lock() = Some(stat);
            self.lost(None, Some(file)).await;
        }
        self.touch(from.0);
        self.touch(to.0);
    }
}
