//! Content: open, read, write, cut, fsync, close.

use super::{
    Mode, NodeId, OpenHow, Opened, Volume,
    open::{Current, Handle, OpenFile, Why},
    tree::Node,
};
use crate::{Errno, Result};
use bytes::Bytes;
use forebay_writeback::{
    ErrorKind, Path,
    file::{Draft, FileReader},
    names::StatKind,
};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Times that a write is begun anew because the draft was placed between two of its steps.
const PLACED_MEANWHILE_MAX: u32 = 64;

/// Looks for a content whose name has just gone, each after a pause: between its change and its last reader there are some steps.
const GOING_LOOKS_MAX: u32 = 20;
const GOING_PAUSE: Duration = Duration::from_millis(5);

/// Longest wait for room when the mount ends, for all files together.
const LAST_ROOM_PATIENCE: Duration = Duration::from_secs(5);

impl Volume {
    /// Opens a file.
    pub async fn open(&self, node: NodeId, flags: i32) -> Result<Opened> {
        let _moving = self.moving.read().await;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        if writes {
            self.check_changeable(&self.present_path(node)?)?;
        }
        let file = self.file(node).await?;
        let how = self.open_how(&file, writes).await?;
        match self.opened(&file, writes, how) {
            Some(opened) => Ok(opened),
            None => Err(self.part_from_readers(&file).await),
        }
    }

    /// While the kernel reads a file by itself it lets nobody open it in another way, and would not see a change. So a file that is to be
    /// changed parts from those who read it: they keep its content, and the name gets another node. ESTALE: look the name up again,
    /// which the kernel does by itself.
    async fn part_from_readers(&self, file: &Arc<OpenFile>) -> Errno {
        if file.is_unlinked() {
            return Errno(libc::ETXTBSY);
        }
        match self.stat_of(file.node).await {
            Ok(stat) => {
                *file.apart.lock() = Some(stat);
                self.lost(Some(file.node), Some(Arc::clone(file))).await;
                Errno(libc::ESTALE)
            }
            Err(error) => error,
        }
    }

    /// The file of a node, opened if nobody has it open.
    pub(super) async fn file(&self, node: NodeId) -> Result<Arc<OpenFile>> {
        if let Some(file) = self.open_file(node) {
            return Ok(file);
        }
        let reader = match self.opens_nothing() {
            true => self.content_of(node).await?,
            false => self.named_content(node).await?,
        };
        let tree = self.tree.lock();
        let mut files = self.files.lock();
        let file = match files.get(&node) {
            Some(file) => Arc::clone(file),
            None => OpenFile::new(node, Current::of(reader), None),
        };
        // One that the kernel let go of meanwhile is not kept.
        if tree.get(node).is_some() || !self.opens_nothing() {
            files.insert(node, Arc::clone(&file));
        }
        Ok(file)
    }

    /// The path of a node that is about to be opened. ESTALE when it lost its name since it was looked up: then the kernel looks that up
    /// again by itself.
    fn present_path(&self, node: NodeId) -> Result<Path> {
        self.path(node).map_err(|_| Errno(libc::ESTALE))
    }

    /// The content that a node was looked up with, where nothing is opened. ESTALE when it is gone.
    async fn content_of(&self, node: NodeId) -> Result<FileReader> {
        for _ in 0..GOING_LOOKS_MAX {
            // It was taken when its bytes were about to go.
            if let Some(file) = self.open_file(node)
                && let Some(reader) = file.content.read().await.reader.clone()
            {
                return Ok(reader);
            }
            if let Some(reader) = self.content_by_name(node).await? {
                return Ok(reader);
            }
            let known = |known: &Node| (Arc::clone(&known.name), known.row);
            let part = self.tree.lock().get(node).map(known).ok_or(Errno(libc::ESTALE))?;
            match self.cache.read_content(part.1).await {
                Ok(reader) => return Ok(reader),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            let row = part.1;
            if let Some(reader) = self.cache.read_retired(&[part]).await?.remove(&row) {
                return Ok(reader);
            }
            tokio::time::sleep(GOING_PAUSE).await;
        }
        Err(Errno(libc::ESTALE))
    }

    /// The same, if its name still leads to it.
    async fn content_by_name(&self, node: NodeId) -> Result<Option<FileReader>> {
        let Ok(path) = self.path(node) else { return Ok(None) };
        let (reader, stat) = match self.cache.open_file(&path).await {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Invalid => return Err(self.not_a_file(node).await),
            Err(error) => return Err(error.into()),
        };
        let tree = self.tree.lock();
        let known = tree.get(node).ok_or(Errno(libc::ESTALE))?;
        Ok((!known.is_replaced_by(&stat)).then_some(reader))
    }

    /// What the name of a node leads to. The node stands for that from now on.
    async fn named_content(&self, node: NodeId) -> Result<FileReader> {
        let path = self.present_path(node)?;
        let row = self.tree.lock().get(node).map_or(node, |known| known.row);
        if let Some(reader) = self.cache.read_row(&path, row).await? {
            return Ok(reader);
        }
        let (reader, stat) = match self.cache.open_file(&path).await {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::Invalid => return Err(self.not_a_file(node).await),
            Err(error) => return Err(error.into()),
        };
        if let Some(known) = self.tree.lock().get_mut(node) {
            known.row = stat.id;
        }
        Ok(reader)
    }

    async fn not_a_file(&self, node: NodeId) -> Errno {
        match self.stat_of(node).await {
            Ok(stat) if stat.kind == StatKind::Dir => Errno(libc::EISDIR),
            Ok(_) => Errno(libc::ENXIO),
            Err(error) => error,
        }
    }

    /// How the kernel shall read a file that is about to be opened. While it reads a file by itself nobody may read it through its page
    /// cache, and the other way round; asking every time goes with both.
    async fn open_how(&self, file: &OpenFile, writes: bool) -> Result<OpenHow> {
        let content = file.content.read().await;
        let Some(reader) = content.reader.as_ref().filter(|_| !writes && content.draft.is_none()) else {
            return Ok(OpenHow::Direct);
        };
        let backed = self.passthrough.load(Ordering::Relaxed) && reader.local_file().await?.is_some();
        let opens = file.opens.lock();
        Ok(match backed {
            true if opens.cached == 0 && opens.writers == 0 => OpenHow::Backed,
            _ => OpenHow::Cached {
                keep: self.same_as_cached(file.node, reader),
            },
        })
    }

    /// Whether the kernel has pages of exactly this content; from now on it may.
    fn same_as_cached(&self, node: NodeId, reader: &FileReader) -> bool {
        let mut hasher = DefaultHasher::new();
        reader.identity().hash(&mut hasher);
        let identity = Some(hasher.finish());
        let mut tree = self.tree.lock();
        tree.get_mut(node)
            .is_some_and(|node| std::mem::replace(&mut node.cached, identity) == identity)
    }

    /// `None`: the kernel reads it by itself for others, and this open can not join them.
    pub(super) fn opened(&self, file: &Arc<OpenFile>, writes: bool, mut how: OpenHow) -> Option<Opened> {
        let mut opens = file.opens.lock();
        // Others have opened it since it was decided how.
        if how == OpenHow::Backed && (opens.cached > 0 || opens.writers > 0) {
            how = OpenHow::Direct;
        }
        if how != OpenHow::Backed && opens.backed > 0 {
            return None;
        }
        opens.all += 1;
        opens.writers += u32::from(writes);
        opens.cached += u32::from(matches!(how, OpenHow::Cached { .. }));
        opens.backed += u32::from(how == OpenHow::Backed);
        drop(opens);
        file.fresh.store(writes, Ordering::Relaxed);
        // It may have been let go of between its lookup and here.
        self.files.lock().entry(file.node).or_insert_with(|| Arc::clone(file));
        let handle = self.handle_number();
        let file = Arc::clone(file);
        self.handles.insert(handle, Handle { file, writes, how });
        Some(Opened { handle, how })
    }

    /// The local file that the kernel reads by itself.
    pub async fn backing_file(&self, handle: u64) -> Result<OwnedFd> {
        let Handle { file, .. } = self.handle(handle)?;
        let content = file.content.read().await;
        let local = match &content.reader {
            Some(reader) => reader.local_file().await?,
            None => None,
        };
        let local = local.ok_or(Errno(libc::EIO))?;
        local.try_clone_to_owned().map_err(|error| errno(&error))
    }

    /// The kernel could not read it by itself after all: every read is asked for.
    pub fn not_backed(&self, handle: u64) {
        if let Some(mut handle) = self.handles.get_mut(&handle)
            && handle.how == OpenHow::Backed
        {
            handle.how = OpenHow::Direct;
            handle.file.opens.lock().backed -= 1;
        }
    }

    /// Reads by a handle; fewer bytes only at the end.
    pub async fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Bytes> {
        let file = self.handle(handle)?.file;
        let content = file.content.read().await;
        content.read(offset, size).await
    }

    /// Reads by a node, where the kernel opens nothing: what it was when it was looked up, whatever its name leads to by now.
    pub async fn read_node(&self, node: NodeId, offset: u64, size: u32) -> Result<Bytes> {
        let file = self.file(node).await?;
        let content = file.content.read().await;
        content.read(offset, size).await
    }

    /// Writes all of `data`.
    pub async fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<()> {
        let Handle { file, writes, .. } = self.handle(handle)?;
        if !writes {
            return Err(Errno(libc::EBADF));
        }
        self.change(&file, u64::MAX, Edit::Write(offset, data)).await
    }

    /// Changes a file's draft. `keep`: so many bytes of the present content are needed.
    async fn change(&self, file: &OpenFile, keep: u64, edit: Edit<'_>) -> Result<()> {
        file.fresh.store(false, Ordering::Relaxed);
        for _ in 0..PLACED_MEANWHILE_MAX {
            // Not under the lock of its content: the change may have to wait for room.
            let draft = file.draft(self, keep).await?;
            match edit.apply(&draft).await {
                Err(_) if draft.has_ended().await => {}
                applied => {
                    applied?;
                    file.changed(self);
                    return Ok(());
                }
            }
        }
        Err(Errno(libc::EAGAIN))
    }

    /// Cuts a file or extends it with zeros.
    pub(super) async fn cut(&self, file: &OpenFile, size: u64) -> Result<()> {
        self.change(file, size, Edit::SetLen(size)).await
    }

    /// `fallocate`: keeps room for `range`, or with `punch` puts zeros into it.
    pub async fn fallocate(&self, handle: u64, range: Range<u64>, mode: i32) -> Result<()> {
        let file = self.handle(handle)?.file;
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let edits = match mode {
            0 => vec![Edit::Allocate(range)],
            _ if mode == libc::FALLOC_FL_PUNCH_HOLE | keep || mode == zero | keep => vec![Edit::Punch(range)],
            _ if mode == zero => vec![Edit::Punch(range.clone()), Edit::Allocate(range)],
            // Room is found when it is written.
            _ if mode == keep => vec![],
            _ => return Err(Errno(libc::EOPNOTSUPP)),
        };
        for edit in edits {
            self.change(&file, u64::MAX, edit).await?;
        }
        Ok(())
    }

    /// `lseek` to data or to a hole: all of a file is data, and a hole is at its end.
    pub async fn seek(&self, node: NodeId, offset: i64, whence: i32) -> Result<i64> {
        let size = i64::try_from(self.getattr(node).await?.attr.size).map_err(|_| Errno(libc::EOVERFLOW))?;
        match whence {
            _ if offset < 0 || offset >= size => Err(Errno(libc::ENXIO)),
            libc::SEEK_DATA => Ok(offset),
            libc::SEEK_HOLE => Ok(size),
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    /// Makes what was written durable.
    pub async fn fsync(&self, handle: u64) -> Result<()> {
        let file = self.handle(handle)?.file;
        self.settle(&file, Why::Sync).await?;
        self.reach_level(&file).await
    }

    /// A descriptor is closed; others of the same open may go on.
    pub async fn flush(&self, handle: u64) -> Result<()> {
        let Handle { file, writes, .. } = self.handle(handle)?;
        if !writes {
            return Ok(());
        }
        self.settle(&file, Why::Close).await?;
        self.reach_level(&file).await
    }

    /// The last descriptor of an open is closed.
    pub async fn release(&self, handle: u64) -> Result<()> {
        let Some((_, Handle { file, writes, how })) = self.handles.remove(&handle) else {
            return Err(Errno(libc::EBADF));
        };
        if !file.opens.lock().close(writes, how) {
            return Ok(());
        }
        let settled = self.settle(&file, Why::End).await;
        let _moving = self.moving.read().await;
        self.ended(&file, settled).await
    }

    /// The same where nothing has to be waited for: a descriptor that only read, of a file that nobody changes. False: it is not so, and
    /// nothing was done.
    pub fn release_unchanged(&self, handle: u64) -> bool {
        let Ok(_moving) = self.moving.try_read() else {
            return false;
        };
        let reads_only = |handle: &Handle| {
            let unchanged = handle
                .file
                .content
                .try_read()
                .is_ok_and(|content| content.draft.is_none());
            !handle.writes && unchanged && !handle.file.is_unlinked() && !handle.file.is_pending()
        };
        let Some((_, Handle { file, writes, how })) = self.handles.remove_if(&handle, |_, handle| reads_only(handle))
        else {
            return false;
        };
        if file.opens.lock().close(writes, how) {
            self.forget_closed(&file);
        }
        true
    }

    /// What becomes of a file after its last close. Changes for which there is no room are lost, as their close has said, rather than
    /// take room from others for as long as the mount lives; what an fsync has promised, and what failed in another way, stays until it can
    /// be placed.
    async fn ended(&self, file: &Arc<OpenFile>, settled: Result<()>) -> Result<()> {
        match settled {
            // What another door has the name of is nobody's any more.
            Ok(()) | Err(Errno(libc::ESTALE)) => self.let_go(file).await,
            Err(Errno(libc::ENOSPC)) if !file.is_promised().await => self.give_up(file).await,
            Err(_) => {}
        }
        settled
    }

    /// Forgets a file, unless somebody has it open.
    pub(super) async fn let_go(&self, file: &Arc<OpenFile>) {
        if self.forget_closed(file)
            && file.is_unlinked()
            && let Some(draft) = file.content.write().await.draft.take()
        {
            draft.discard().await;
        }
    }

    /// Forgets a file and its changes, unless somebody has it open: its name leads to what it led to before, if to anything.
    async fn give_up(&self, file: &Arc<OpenFile>) {
        if !self.forget_closed(file) {
            return;
        }
        tracing::warn!(
            node = file.node,
            "there is no room for the changes of a file; they are given up"
        );
        if file.is_pending() {
            self.lost(Some(file.node), Some(Arc::clone(file))).await;
        } else if let Some(draft) = file.content.write().await.draft.take() {
            draft.discard().await;
        }
        self.forget_name(file.node);
    }

    /// Has the kernel look a name up again. Nobody waits until it has: it may hold the directory for a rename, which waits for us.
    pub(super) fn forget_name(&self, node: NodeId) {
        let name = |node: &Node| (node.parent, Arc::clone(&node.name));
        let name = self.tree.lock().get(node).map(name);
        if let (Some(kernel), Some(name)) = (self.kernel.get(), name) {
            kernel.forget(vec![name]);
        }
    }

    /// Whether nobody has it open, and so it is not known as open any more. Where nothing is opened only the kernel's forgetting tells.
    fn forget_closed(&self, file: &Arc<OpenFile>) -> bool {
        if self.opens_nothing() {
            return false;
        }
        let mut files = self.files.lock();
        if file.opens.lock().all > 0 {
            return false;
        }
        if files.get(&file.node).is_some_and(|known| Arc::ptr_eq(known, file)) {
            files.remove(&file.node);
        }
        true
    }

    /// Cuts the file of a node that need not be open: durable when this answers; unless it comes with an open for writing (O_TRUNC), which
    /// the kernel tells no other way: what was there before stays until the new content is whole.
    pub(super) async fn truncate(&self, node: NodeId, handle: Option<u64>, size: u64) -> Result<()> {
        // What is cut through a descriptor that writes is settled with its close.
        if let Some(handle) = handle.and_then(|handle| self.handle(handle).ok())
            && handle.writes
        {
            return self.cut(&handle.file, size).await;
        }
        let moving = self.moving.read().await;
        let file = self.file(node).await?;
        if handle.is_none() && size == 0 && file.fresh.swap(false, Ordering::Relaxed) {
            drop(moving);
            return self.cut(&file, 0).await;
        }
        if file.opens.lock().backed > 0 {
            return Err(self.part_from_readers(&file).await);
        }
        // It may have to wait for room.
        drop(moving);
        let cut = self.cut(&file, size).await;
        let settled = match cut {
            Ok(()) => self.settle(&file, Why::End).await,
            Err(error) => Err(error),
        };
        let _moving = self.moving.read().await;
        self.ended(&file, settled).await
    }

    /// Places all that is open and changed: before the mount goes. Whatever finds no room in a few seconds finds none.
    pub async fn settle_all(&self) {
        let files: Vec<_> = self.files.lock().values().cloned().collect();
        let until = Instant::now() + LAST_ROOM_PATIENCE;
        for file in files {
            if let Err(error) = self.settle_until(&file, Why::End, Some(until)).await {
                tracing::error!(node = file.node, %error, "a file's changes could not be placed");
            }
        }
    }

    /// Whether the kernel opens nothing on this volume.
    pub fn opens_nothing(&self) -> bool {
        self.options.mode == Mode::Dataset
    }
}

/// One change of a draft.
enum Edit<'a> {
    Write(u64, &'a [u8]),
    SetLen(u64),
    Punch(Range<u64>),
    Allocate(Range<u64>),
}

impl Edit<'_> {
    async fn apply(&self, draft: &Draft) -> Result<()> {
        Ok(match self {
            Edit::Write(offset, data) => draft.write(*offset, data).await,
            Edit::SetLen(size) => draft.set_len(*size).await,
            Edit::Punch(range) => draft.punch(range.clone()).await,
            Edit::Allocate(range) => draft.allocate(range.clone()).await,
        }?)
    }
}

impl Current {
    async fn read(&self, offset: u64, size: u32) -> Result<Bytes> {
        if let Some(draft) = &self.draft {
            let left = draft.size().saturating_sub(offset);
            let mut buffer = vec![0; usize::try_from(left.min(u64::from(size))).expect("it is a u32")];
            let count = draft.read(offset, &mut buffer).await?;
            buffer.truncate(count);
            return Ok(buffer.into());
        }
        let Some(reader) = &self.reader else {
            return Ok(Bytes::new());
        };
        let mut chunks = reader.read(offset..offset.saturating_add(u64::from(size))).await?;
        Ok(match chunks.len() {
            0 => Bytes::new(),
            1 => chunks.swap_remove(0),
            _ => chunks.concat().into(),
        })
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}
