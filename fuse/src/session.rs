//! The kernel's requests as operations of the volume, and the answers back.
//!
//! An operation is begun on the thread that took the request and answered there when nothing has to be waited for; otherwise it goes on
//! on a worker, and the thread takes the next request.

use crate::{
    Errno, Result,
    awake::Awake,
    turns::Turns,
    volume::{Attr, Caller, Entry, FileKind, OpenHow, Opened, OpenedDir, SetAttr, Volume},
    workers::Workers,
};
use async_task::Runnable;
use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use futures::FutureExt;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

/// Requests that the kernel has under way without a program waiting for each.
const BACKGROUND_MAX: u16 = 128;
const BLOCK_BYTES: u32 = 4096;
/// A write from this size on may hold its thread up.
const LARGE_WRITE: usize = 64 << 10;

/// The volume as the kernel sees it.
#[derive(Debug)]
pub(crate) struct Session {
    volume: Arc<Volume>,
    workers: Workers,
    backing: Arc<Backing>,
    awake: Option<Arc<Awake>>,
    turns: Turns,
}

/// Local files that the kernel reads by itself: one registration for all opens of a node, until the last is released.
#[derive(Debug, Default)]
struct Backing(Mutex<BackingIds>);

#[derive(Debug, Default)]
struct BackingIds {
    of_node: HashMap<u64, Weak<BackingId>>,
    of_handle: HashMap<u64, Arc<BackingId>>,
}

impl Session {
    pub(crate) fn new(volume: Arc<Volume>, workers: Workers, awake: Option<Arc<Awake>>, turns: Turns) -> Self {
        Self {
            volume,
            workers,
            backing: Arc::default(),
            awake,
            turns,
        }
    }

    /// Runs `operation` here as far as it goes without waiting, and the rest on a worker. It ends with its answer; the kernel waits
    /// for that when it unmounts.
    fn answer<F>(&self, operation: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(awake) = &self.awake {
            awake.request();
        }
        let worker = self.workers.next();
        let go_on = move |rest: Runnable| {
            worker.spawn(async move {
                rest.run();
            });
        };
        let (begin, operation) = async_task::spawn(operation, go_on);
        operation.detach();
        let entered = worker.enter();
        begin.run();
        drop(entered);
        self.turns.answered();
    }

    /// A request was answered without an operation.
    fn answered(&self) {
        if let Some(awake) = &self.awake {
            awake.request();
        }
        self.turns.answered();
    }
}

/// Answers an entry, or the error.
fn reply_entry(reply: ReplyEntry, result: Result<Entry>) {
    match result {
        Ok(entry) => reply.entry(&entry.ttl, &file_attr(&entry.attr), Generation(0)),
        Err(error) => reply.error(number(error)),
    }
}

fn reply_attr(reply: ReplyAttr, result: Result<Entry>) {
    match result {
        Ok(entry) => reply.attr(&entry.ttl, &file_attr(&entry.attr)),
        Err(error) => reply.error(number(error)),
    }
}

fn reply_empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(number(error)),
    }
}

fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(number(Errno(libc::ERANGE))),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(number(error)),
    }
}

fn number(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.0)
}

fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.node),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.ctime,
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Dir => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Special(libc::S_IFSOCK) => FileType::Socket,
        FileKind::Special(libc::S_IFBLK) => FileType::BlockDevice,
        FileKind::Special(libc::S_IFCHR) => FileType::CharDevice,
        FileKind::Special(_) => FileType::NamedPipe,
    }
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

fn time(time: TimeOrNow) -> Option<SystemTime> {
    match time {
        TimeOrNow::SpecificTime(time) => Some(time),
        TimeOrNow::Now => None,
    }
}

/// How the kernel treats an open that it does not read by itself.
fn open_flags(how: OpenHow) -> FopenFlags {
    match how {
        OpenHow::Direct => FopenFlags::FOPEN_DIRECT_IO,
        OpenHow::Cached { keep: true } => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
        OpenHow::Cached { keep: false } => FopenFlags::FOPEN_NOFLUSH,
        OpenHow::Backed => FopenFlags::empty(),
    }
}

impl Backing {
    /// The registration of a node's file, by `register` if it has none.
    fn id(
        &self,
        node: u64,
        handle: u64,
        file: OwnedFd,
        register: impl FnOnce(OwnedFd) -> io::Result<BackingId>,
    ) -> io::Result<Arc<BackingId>> {
        let mut ids = self.0.lock();
        let known = ids.of_node.get(&node).and_then(Weak::upgrade);
        let id = match known {
            Some(id) => id,
            None => Arc::new(register(file)?),
        };
        ids.of_node.insert(node, Arc::downgrade(&id));
        ids.of_handle.insert(handle, Arc::clone(&id));
        Ok(id)
    }

    fn release(&self, node: u64, handle: u64) {
        let mut ids = self.0.lock();
        drop(ids.of_handle.remove(&handle));
        if ids.of_node.get(&node).is_some_and(|id| id.strong_count() == 0) {
            ids.of_node.remove(&node);
        }
    }
}

/// Answers an open. Where the kernel is to read the file by itself and can not, every read is asked for.
async fn reply_opened(volume: Arc<Volume>, backing: Arc<Backing>, node: u64, opened: Opened, reply: ReplyOpen) {
    let handle = FileHandle(opened.handle);
    if opened.how == OpenHow::Backed {
        let registered = match volume.backing_file(opened.handle).await {
            Ok(file) => backing.id(node, opened.handle, file, |file| reply.open_backing(file)),
            Err(Errno(number)) => Err(io::Error::from_raw_os_error(number)),
        };
        match registered {
            Ok(id) => return reply.opened_passthrough(handle, FopenFlags::FOPEN_NOFLUSH, &id),
            Err(error) => {
                tracing::info!(%error, "the kernel can not read local files by itself here; it asks for every read");
                volume.allow_passthrough(false);
                volume.not_backed(opened.handle);
                return reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
            }
        }
    }
    reply.opened(handle, open_flags(opened.how));
}

/// A write with what it brings along: bits that go (`kill`), and the flush of O_SYNC (`sync`).
async fn write_wholly(
    volume: &Volume,
    node: u64,
    handle: u64,
    offset: u64,
    data: &[u8],
    (kill, sync): (bool, bool),
) -> Result<()> {
    volume.write(handle, offset, data).await?;
    if kill {
        volume.drop_setid(node).await?;
    }
    if sync { volume.fsync(handle).await } else { Ok(()) }
}

impl Filesystem for Session {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Not FUSE_ATOMIC_O_TRUNC: with it the kernel empties its pages of a program that runs before it finds that it may not.
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
        ];
        for flag in wanted {
            if let Err(missing) = config.add_capabilities(flag) {
                tracing::info!(?missing, "this kernel does without");
            }
        }
        // Reading by itself is not possible where nothing is opened.
        let possible = !self.volume.opens_nothing()
            && config.set_max_stack_depth(2).is_ok()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        self.volume.allow_passthrough(possible);
        let _ = config.set_max_background(BACKGROUND_MAX);
        // Times are kept in microseconds.
        let _ = config.set_time_granularity(Duration::from_micros(1));
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (volume, name) = (Arc::clone(&self.volume), name.as_bytes().to_vec());
        self.answer(async move { reply_entry(reply, volume.lookup(parent.0, &name).await) });
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        self.volume.forget(node.0, count);
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move { reply_attr(reply, volume.getattr(node.0).await) });
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(time),
            mtime: mtime.map(time),
            handle: handle.map(|handle| handle.0),
            kill_setid: size.is_some() && request.uid() != 0,
        };
        let volume = Arc::clone(&self.volume);
        self.answer(async move { reply_attr(reply, volume.setattr(node.0, change).await) });
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move {
            match volume.readlink(node.0).await {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (volume, name, caller) = (Arc::clone(&self.volume), name.as_bytes().to_vec(), caller(request));
        self.answer(async move { reply_entry(reply, volume.mknod(parent.0, &name, mode, rdev, caller).await) });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (volume, name, caller) = (Arc::clone(&self.volume), name.as_bytes().to_vec(), caller(request));
        self.answer(async move { reply_entry(reply, volume.mkdir(parent.0, &name, mode, caller).await) });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (volume, name) = (Arc::clone(&self.volume), name.as_bytes().to_vec());
        self.answer(async move { reply_empty(reply, volume.unlink(parent.0, &name).await) });
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (volume, name) = (Arc::clone(&self.volume), name.as_bytes().to_vec());
        self.answer(async move { reply_empty(reply, volume.rmdir(parent.0, &name).await) });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (volume, name, caller) = (Arc::clone(&self.volume), name.as_bytes().to_vec(), caller(request));
        let target = target.as_os_str().as_bytes().to_vec();
        self.answer(async move { reply_entry(reply, volume.symlink(parent.0, &name, &target, caller).await) });
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let volume = Arc::clone(&self.volume);
        let (name, to_name) = (name.as_bytes().to_vec(), to_name.as_bytes().to_vec());
        self.answer(async move {
            let (from, to) = ((parent.0, &name[..]), (to_parent.0, &to_name[..]));
            reply_empty(reply, volume.rename(from, to, flags.bits()).await);
        });
    }

    fn open(&self, _request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.volume.opens_nothing() {
            // The kernel then never asks again, neither for opens nor for releases, and keeps its pages.
            return reply.error(number(Errno(libc::ENOSYS)));
        }
        let (volume, backing) = (Arc::clone(&self.volume), Arc::clone(&self.backing));
        self.answer(async move {
            match volume.open(node.0, flags.0).await {
                Ok(opened) => reply_opened(volume, backing, node.0, opened, reply).await,
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (volume, name, caller) = (Arc::clone(&self.volume), name.as_bytes().to_vec(), caller(request));
        self.answer(async move {
            match volume.create(parent.0, &name, mode, flags, caller).await {
                Ok((entry, opened)) => {
                    let handle = FileHandle(opened.handle);
                    volume.not_backed(opened.handle);
                    reply.created(
                        &entry.ttl,
                        &file_attr(&entry.attr),
                        Generation(0),
                        handle,
                        FopenFlags::FOPEN_DIRECT_IO,
                    );
                }
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move {
            let read = match volume.opens_nothing() {
                true => volume.read_node(node.0, offset, size).await,
                false => volume.read(handle.0, offset, size).await,
            };
            match read {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        open_flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = u32::try_from(data.len()).expect("the kernel writes less at once");
        let volume = Arc::clone(&self.volume);
        let kill = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        // Of a file that is written past the page cache the kernel does not ask for the flush that O_SYNC and O_DSYNC mean.
        let sync = open_flags.0 & libc::O_DSYNC != 0;
        if !kill && !sync {
            let entered = self.workers.next().enter();
            // The kernel slows those who write much.
            let aside = (data.len() >= LARGE_WRITE).then(|| self.turns.aside());
            // Without waiting it needs no copy of the data. One that would wait has done nothing.
            let at_once = volume.write(handle.0, offset, data).now_or_never();
            drop((entered, aside));
            if let Some(done) = at_once {
                match done {
                    Ok(()) => reply.written(length),
                    Err(error) => reply.error(number(error)),
                }
                return self.turns.answered();
            }
        }
        let data = data.to_vec();
        self.answer(async move {
            match write_wholly(&volume, node.0, handle.0, offset, &data, (kill, sync)).await {
                Ok(()) => reply.written(length),
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn flush(&self, _request: &Request, _node: INodeNo, handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        if self.volume.opens_nothing() {
            return reply.error(number(Errno(libc::ENOSYS)));
        }
        let volume = Arc::clone(&self.volume);
        self.answer(async move { reply_empty(reply, volume.flush(handle.0).await) });
    }

    fn release(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.backing.release(node.0, handle.0);
        if self.volume.release_unchanged(handle.0) {
            reply.ok();
            return self.answered();
        }
        let volume = Arc::clone(&self.volume);
        self.answer(async move { reply_empty(reply, volume.release(handle.0).await) });
    }

    fn fsync(&self, _request: &Request, _node: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move { reply_empty(reply, volume.fsync(handle.0).await) });
    }

    fn opendir(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move {
            match volume.opendir(node.0).await {
                Ok(OpenedDir { handle, keep: true }) => reply.opened(
                    FileHandle(handle),
                    FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
                ),
                Ok(OpenedDir { handle, keep: false }) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_CACHE_DIR),
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn readdir(&self, _request: &Request, _node: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move {
            let listed = volume
                .readdir(handle.0, offset, false, |entry| {
                    let attr = &entry.entry.attr;
                    !reply.add(
                        INodeNo(attr.node),
                        entry.offset,
                        file_type(attr.kind),
                        OsStr::from_bytes(entry.name),
                    )
                })
                .await;
            match listed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move {
            let listed = volume
                .readdir(handle.0, offset, true, |entry| {
                    let Entry { attr, ttl } = &entry.entry;
                    !reply.add(
                        INodeNo(attr.node),
                        entry.offset,
                        OsStr::from_bytes(entry.name),
                        ttl,
                        &file_attr(attr),
                        Generation(0),
                    )
                })
                .await;
            match listed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(number(error)),
            }
        });
    }

    fn releasedir(&self, _request: &Request, _node: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.volume.releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move { reply_empty(reply, volume.fsyncdir(node.0).await) });
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        match self.volume.space() {
            Ok((total, free)) => {
                let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
                let (files, name_max) = (u64::from(u32::MAX), 255);
                reply.statfs(
                    blocks(total),
                    blocks(free),
                    blocks(free),
                    files,
                    files,
                    BLOCK_BYTES,
                    name_max,
                    BLOCK_BYTES,
                );
            }
            Err(error) => reply.error(number(error)),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (volume, name, value) = (Arc::clone(&self.volume), name.as_bytes().to_vec(), value.to_vec());
        self.answer(async move { reply_empty(reply, volume.setxattr(node.0, &name, Some(&value), flags).await) });
    }

    fn getxattr(&self, _request: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (volume, name) = (Arc::clone(&self.volume), name.as_bytes().to_vec());
        self.answer(async move { reply_xattr(reply, size, volume.getxattr(node.0, &name).await) });
    }

    fn listxattr(&self, _request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move {
            let names = volume.listxattr(node.0).await;
            // Each ends with NUL.
            let joined = names.map(|names| {
                names
                    .iter()
                    .flat_map(|name| [&name[..], &[0]])
                    .collect::<Vec<_>>()
                    .concat()
            });
            reply_xattr(reply, size, joined);
        });
    }

    fn removexattr(&self, _request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (volume, name) = (Arc::clone(&self.volume), name.as_bytes().to_vec());
        self.answer(async move { reply_empty(reply, volume.setxattr(node.0, &name, None, 0).await) });
    }

    fn link(&self, _request: &Request, _node: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        // A content has one place in an under-store: a second name is not offered.
        reply.error(number(Errno(libc::EPERM)));
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _size: u32,
        reply: ReplyIoctl,
    ) {
        // Programs ask every file whether it is a terminal.
        reply.error(number(Errno(libc::ENOTTY)));
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_handle: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel then copies by itself, and asks no more.
        reply.error(number(Errno(libc::ENOSYS)));
    }

    fn fallocate(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let volume = Arc::clone(&self.volume);
        let range = offset..offset.saturating_add(length);
        self.answer(async move { reply_empty(reply, volume.fallocate(handle.0, range, mode).await) });
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let volume = Arc::clone(&self.volume);
        self.answer(async move {
            match volume.seek(node.0, offset, whence).await {
                Ok(offset) => reply.offset(offset),
                Err(error) => reply.error(number(error)),
            }
        });
    }
}
