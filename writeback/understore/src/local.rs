//! A local folder (also NFS, CephFS, …) as an under-store: native names, native mode, owner and mtime.
//!
//! An object becomes visible whole: it is written to a file of the hidden folder [`HIDDEN`] at the mount's root, which no listing
//! shows, `fdatasync`ed, renamed to its name, and the folder is `fsync`ed. The token lies in the extended attribute
//! `user.forebay.token` where the file system has such; elsewhere only size and mtime tell what is ours.
//! The validator is mtime, size and inode: a rewrite in place changes the first, a replacement the last.
//!
//! Symbolic links below the folder are neither shown nor followed, so nothing outside can be reached; what is to be written under the
//! name of one, or of a pipe or device, is refused. Names that are not UTF-8 are not shown. `Expect::Absent` is atomic; `Expect::Match` is checked just before the rename (or unlink), with a window of
//! microseconds in which another writer would be overwritten.

mod sys;
#[cfg(test)]
mod tests;

use crate::{
    Capabilities, Expect, Found, Listed, PartId, StoreError, StoreKey, UnderStore, UploadId, Validator, Write,
    attributes::{GID, MODE, MTIME, UID, XATTRS, decode_xattrs, encode_xattrs, travels},
    check_key,
    objects::{PROBE, fresh_id},
    parent_and_name,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    fs::{self, File, FileTimes, FileType, Metadata, OpenOptions},
    io::{self, Write as _},
    ops::Range,
    os::fd::AsRawFd,
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// The folder at the mount's root that holds what is being written.
pub const HIDDEN: &str = ".forebay-tmp";

/// Prefix of our extended attributes.
const XATTR: &str = "user.forebay.";

/// Names and their bytes held in memory by one pass over a folder; a larger folder is read in several passes.
const NAMES_PER_PASS: usize = 1 << 18;
const NAME_BYTES_PER_PASS: usize = 8 << 20;

/// Entries looked at by one blocking call of a listing.
const LISTED_PER_CALL: usize = 256;

/// A local folder.
#[derive(Clone, Debug)]
pub struct Local {
    folder: Arc<Folder>,
    url: String,
}

impl Local {
    /// The folder at `path`; it may be away.
    pub fn new(path: PathBuf) -> Self {
        let url = format!("file://{}", path.display());
        Self {
            folder: Arc::new(Folder {
                path,
                file_system: OnceLock::new(),
                serial: AtomicU64::new(1),
            }),
            url,
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = Arc::clone(&self.folder);
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        done.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("local folder: {error}"))))
    }
}

#[async_trait]
impl UnderStore for Local {
    fn url(&self) -> &str {
        &self.url
    }

    fn read_only(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        self.blocking(Folder::probe).await
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let Some(key) = visible(key)?.map(str::to_owned) else {
            return Ok(None);
        };
        self.blocking(move |folder| folder.head(&key)).await
    }

    fn dates_names(&self) -> bool {
        true
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        let pass = match visible(key) {
            Ok(None) => return futures::stream::empty().boxed(),
            Ok(Some(key)) => Pass {
                key: key.to_owned(),
                names: VecDeque::new(),
                after: after.map(str::to_owned),
                more: true,
            },
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let this = self.clone();
        let chunks = futures::stream::unfold(Some(pass), move |pass| {
            let this = this.clone();
            async move {
                let pass = pass?;
                match this.blocking(move |folder| folder.list_some(pass)).await {
                    Ok((rows, pass)) => Some((rows.into_iter().map(Ok).collect(), pass)),
                    Err(StoreError::NotFound(_)) => None,
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        chunks.flat_map(futures::stream::iter::<Vec<_>>).boxed()
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        let (key, validator) = (checked(key)?, validator.clone());
        self.blocking(move |folder| folder.read(&key, range, &validator)).await
    }

    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        checked(&write.key)?;
        let write = write.clone();
        self.blocking(move |folder| folder.put(&write, &chunks)).await
    }

    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        checked(&write.key)?;
        let write = write.clone();
        self.blocking(move |folder| folder.start(&write).map(|(_, name)| UploadId(name)))
            .await
    }

    async fn part(
        &self,
        write: &Write,
        upload: &UploadId,
        index: u32,
        offset: u64,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        let (key, name) = (checked(&write.key)?, upload_name(upload)?);
        self.blocking(move |folder| folder.part(&key, &name, offset, &chunks))
            .await?;
        Ok(PartId {
            index,
            id: String::new(),
        })
    }

    async fn complete(&self, write: &Write, upload: &UploadId, _parts: &[PartId]) -> Result<Found, StoreError> {
        let (write, name) = (write.clone(), upload_name(upload)?);
        self.blocking(move |folder| folder.complete(&write, &name)).await
    }

    async fn settle(&self, key: &str) -> Result<(), StoreError> {
        let key = checked(key)?;
        self.blocking(move |folder| folder.settle(&key)).await
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        let (key, name) = (checked(key)?, upload_name(upload)?);
        self.blocking(move |folder| folder.forget(&key, &name)).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |folder| folder.uploads(&prefix)).await
    }

    async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        checked(&write.key)?;
        let write = write.clone();
        self.blocking(move |folder| folder.set_attributes(&write)).await
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let (key, expect) = (checked(key)?, expect.clone());
        self.blocking(move |folder| folder.delete(&key, &expect)).await
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        let key = checked(key)?;
        self.blocking(move |folder| folder.make_dir(&key).map(|_| ())).await
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        let Some(key) = visible(key)?.map(str::to_owned) else {
            return Ok(());
        };
        self.blocking(move |folder| folder.remove_dir(&key)).await
    }
}

/// The key, when it may be one and is not ours.
fn checked(key: &str) -> Result<String, StoreError> {
    check_visible(key)?;
    Ok(key.to_owned())
}

/// Whether a key has a name of ours at the mount's root, or lies below one. Nothing is there for others, whatever is, in every store.
pub(crate) fn is_hidden(key: &str) -> bool {
    let name = key.split('/').next().unwrap_or_default();
    name == HIDDEN || name.starts_with(PROBE)
}

/// Whether `key` may be one and is not ours: something can be put there, or taken away.
pub(crate) fn check_visible(key: &str) -> Result<(), StoreError> {
    match visible(key)? {
        Some(_) => Ok(()),
        None => Err(StoreError::Refused(format!(
            "{key}: {HIDDEN} and names that begin with {PROBE} are Forebay's own at the root of a mount; use another name"
        ))),
    }
}

/// The key, when it may be one; `None`: it is ours, and nothing is there.
pub(crate) fn visible(key: &str) -> Result<Option<&str>, StoreError> {
    check_key(key)?;
    Ok((!is_hidden(key)).then_some(key))
}

/// The file name in the hidden folder that an upload id is; it came from outside this process's memory.
fn upload_name(upload: &UploadId) -> Result<String, StoreError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if upload.0.is_empty() || upload.0.len() > 200 || !upload.0.bytes().all(fine) {
        return Err(StoreError::NotFound(format!("upload {:?}", upload.0)));
    }
    Ok(upload.0.clone())
}

/// What an error of the file system asks of the caller.
fn error(key: &str, doing: &str, error: &io::Error) -> StoreError {
    let text = format!("{doing} {key}: {error}");
    match error.raw_os_error() {
        Some(libc::ENOENT) => StoreError::NotFound(text),
        Some(
            libc::EACCES
            | libc::EPERM
            | libc::EROFS
            | libc::ENAMETOOLONG
            | libc::EISDIR
            | libc::ENOTDIR
            | libc::EINVAL
            | libc::ELOOP
            | libc::EXDEV
            | libc::ENOSPC
            | libc::EDQUOT
            | libc::EFBIG,
        ) => StoreError::Refused(text),
        _ => StoreError::Unavailable(text),
    }
}

/// What something is that is neither file nor folder.
fn kind_not_shown(of: FileType) -> Option<&'static str> {
    match () {
        () if of.is_file() || of.is_dir() => None,
        () if of.is_symlink() => Some("a symbolic link"),
        () if of.is_fifo() => Some("a pipe"),
        () if of.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

fn validator(of: &Metadata) -> Validator {
    Validator(format!(
        "{:x}.{:x}-{:x}-{:x}",
        of.mtime(),
        of.mtime_nsec(),
        of.len(),
        of.ino()
    ))
}

fn found(of: &Metadata) -> Found {
    Found {
        size: if of.is_dir() { 0 } else { of.len() },
        mtime: of
            .mtime()
            .saturating_mul(1_000_000)
            .saturating_add(of.mtime_nsec() / 1000),
        validator: validator(of),
        token: None,
        attributes: attributes(of),
        is_dir: of.is_dir(),
    }
}

/// What a name has that is not as usual.
fn attributes(of: &Metadata) -> Vec<(String, String)> {
    let mode = of.permissions().mode() & 0o7777;
    let usual = if of.is_dir() { 0o755 } else { 0o644 };
    let mode = (mode != usual).then(|| (MODE.to_owned(), format!("{mode:o}")));
    let owner = [(UID, of.uid()), (GID, of.gid())]
        .into_iter()
        .filter(|(_, id)| *id != 0);
    mode.into_iter()
        .chain(owner.map(|(name, id)| (name.to_owned(), id.to_string())))
        .collect()
}

/// One listing under way: what is known of the names still to come.
#[derive(Debug)]
struct Pass {
    key: String,
    names: VecDeque<String>,
    after: Option<String>,
    more: bool,
}

/// The blocking side.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Where it lay when it was first used. Another file system in its place is not the store: what is written into the bare folder
    /// of a mount that went away is hidden when it comes back.
    file_system: OnceLock<u64>,
    serial: AtomicU64,
}

/// Identifies a file system, also after it was mounted anew.
fn file_system_of(folder: &File) -> io::Result<u64> {
    // SAFETY: plain data, for which zeros are valid.
    let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and both live until the call returns.
    match unsafe { libc::fstatvfs(folder.as_raw_fd(), &raw mut space) } {
        0 => Ok(space.f_fsid),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Folder {
    /// Opened anew by every call, so that a folder that was mounted meanwhile is seen.
    fn root(&self) -> Result<File, StoreError> {
        // What is no folder is not the store either: nothing was deleted there.
        let folder = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&self.path);
        let away = |why: String| StoreError::Unavailable(format!("{}: {why}; is it mounted?", self.path.display()));
        let folder = folder.map_err(|error| away(error.to_string()))?;
        let file_system = file_system_of(&folder).map_err(|error| away(error.to_string()))?;
        if *self.file_system.get_or_init(|| file_system) == file_system {
            Ok(folder)
        } else {
            Err(away(
                "another file system lies there than at first (restart if that is meant)".into(),
            ))
        }
    }

    /// The folder that holds `key`, and its last component.
    fn parent<'k>(&self, key: &'k str) -> Result<(File, &'k str), StoreError> {
        let (parent, name) = parent_and_name(key);
        let folder = sys::open_folder_below(&self.root()?, parent).map_err(|e| error(parent, "open folder", &e))?;
        Ok((folder, name))
    }

    fn hidden(&self) -> Result<File, StoreError> {
        let root = self.root()?;
        match fs::create_dir(sys::path_in(&root, HIDDEN)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(error(HIDDEN, "make", &e)),
            _ => {}
        }
        sys::open_folder_below(&root, HIDDEN).map_err(|e| error(HIDDEN, "open", &e))
    }

    /// File or directory at `key` with what the system says of it; symbolic links and devices do not exist for us.
    fn look(&self, key: &str) -> Result<Option<(PathBuf, Metadata, File)>, StoreError> {
        let (folder, name) = match self.parent(key) {
            Ok(found) => found,
            // A component in the middle is missing, a file, or a symbolic link: then nothing is there.
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(StoreError::Refused(_)) if !self.readable_parent(key) => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = sys::path_in(&folder, if name.is_empty() { "." } else { name });
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() || metadata.is_file() => Ok(Some((path, metadata, folder))),
            Ok(_) => Ok(None),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT)) => Ok(None),
            Err(e) => Err(error(key, "look at", &e)),
        }
    }

    /// Whether the refusal of the parent was one of rights, rather than a file or a link in the middle.
    fn readable_parent(&self, key: &str) -> bool {
        let (parent, _) = parent_and_name(key);
        let Ok(root) = self.root() else { return true };
        let cause = sys::open_folder_below(&root, parent)
            .err()
            .and_then(|e| e.raw_os_error());
        !matches!(cause, Some(libc::ENOTDIR | libc::ELOOP))
    }

    fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let Some((path, metadata, _folder)) = self.look(key)? else {
            return Ok(None);
        };
        let mut found = found(&metadata);
        if found.is_dir {
            return Ok(Some(found));
        }
        // A rewrite in place keeps the extended attributes: the token is only believed for what was written with it.
        let written = sys::get_xattr(&path, b"user.forebay.written").ok();
        if written.as_deref() == Some(mark_of(&metadata).as_bytes()) {
            let token = sys::get_xattr(&path, b"user.forebay.token").ok();
            found.token = token.and_then(|token| String::from_utf8(token).ok());
        }
        found.attributes.push((MTIME.to_owned(), found.mtime.to_string()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut others, mut users) = (Vec::new(), Vec::new());
        for name in sys::list_xattrs(&path).unwrap_or_default() {
            let Ok(value) = sys::get_xattr(&path, &name) else {
                continue;
            };
            match name.strip_prefix(XATTR.as_bytes()) {
                Some(b"token" | b"key" | b"written") => {}
                Some(short) => others.push((text(short), text(&value))),
                None => users.push((name, value)),
            }
        }
        let users = users.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        found.attributes.append(&mut others);
        found
            .attributes
            .extend(encode_xattrs(users).map(|value| (XATTRS.to_owned(), value)));
        Ok(Some(found))
    }

    fn list_some(&self, mut pass: Pass) -> Result<(Vec<Listed>, Option<Pass>), StoreError> {
        let folder = sys::open_folder_below(&self.root()?, &pass.key).map_err(|e| match e.raw_os_error() {
            // A file or a symbolic link has the name, or one on the way there: no folder is there, as `head` says too.
            Some(libc::ENOTDIR | libc::ELOOP) => StoreError::NotFound(pass.key.clone()),
            _ => error(&pass.key, "open folder", &e),
        })?;
        if pass.names.is_empty() {
            if !pass.more {
                return Ok((Vec::new(), None));
            }
            (pass.names, pass.more) = names_after(&folder, &pass.key, pass.after.as_deref())?;
            pass.after = pass.names.back().cloned();
        }
        let mut rows = Vec::new();
        for name in pass.names.drain(..pass.names.len().min(LISTED_PER_CALL)) {
            match fs::symlink_metadata(sys::path_in(&folder, &name)) {
                Ok(metadata) if metadata.is_dir() || metadata.is_file() => {
                    rows.push(Listed {
                        found: found(&metadata),
                        name,
                    });
                }
                // Gone meanwhile, or nothing that we show.
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(error(&name, "look at", &e)),
            }
        }
        let ended = pass.names.is_empty() && !pass.more;
        Ok((rows, (!ended).then_some(pass)))
    }

    fn read(&self, key: &str, range: Range<u64>, expected: &Validator) -> Result<Bytes, StoreError> {
        let (folder, name) = self.parent(key)?;
        let mut how = OpenOptions::new();
        how.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = how
            .open(sys::path_in(&folder, name))
            .map_err(|e| error(key, "open", &e))?;
        let unchanged = |file: &File| match file.metadata() {
            Ok(metadata) if validator(&metadata) == *expected => Ok(()),
            Ok(_) => Err(StoreError::Changed(key.to_owned())),
            Err(e) => Err(error(key, "look at", &e)),
        };
        unchanged(&file)?;
        let len = range
            .end
            .checked_sub(range.start)
            .and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or_else(|| StoreError::Damaged(format!("{key}: no bytes {range:?}")))?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, range.start)
            .map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => StoreError::Damaged(format!("{key}: shorter than {}", range.end)),
                _ => error(key, "read", &e),
            })?;
        // A writer in place may have been at it while we read.
        unchanged(&file)?;
        Ok(bytes.into())
    }

    fn put(&self, write: &Write, chunks: &[Bytes]) -> Result<Found, StoreError> {
        // Early, so that a hopeless write costs nothing; the check that counts comes at the rename.
        self.expect(&write.key, &write.expect)?;
        let (mut file, name) = self.start(write)?;
        let written = chunks.iter().try_for_each(|chunk| file.write_all(chunk));
        drop(file);
        let done = written
            .map_err(|e| error(&write.key, "write", &e))
            .and_then(|()| self.complete(write, &name));
        if done.is_err() {
            self.forget(&write.key, &name)?;
        }
        done
    }

    fn start(&self, write: &Write) -> Result<(File, String), StoreError> {
        let hidden = self.hidden()?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let token: String = write
            .token
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(64)
            .collect();
        let name = format!("{}-{token}-{}-{serial}", key_mark(&write.key), std::process::id());
        let file = create_marked(&hidden, &name, &write.key).map_err(|e| error(&write.key, "create", &e))?;
        Ok((file, name))
    }

    fn open_upload(&self, key: &str, name: &str) -> Result<(File, File), StoreError> {
        let hidden = self.hidden()?;
        let mut how = OpenOptions::new();
        how.write(true).custom_flags(libc::O_NOFOLLOW);
        let file = how
            .open(sys::path_in(&hidden, name))
            .map_err(|e| error(key, "open upload of", &e))?;
        Ok((file, hidden))
    }

    fn part(&self, key: &str, name: &str, offset: u64, chunks: &[Bytes]) -> Result<(), StoreError> {
        let (file, _) = self.open_upload(key, name)?;
        let mut at = offset;
        for chunk in chunks {
            file.write_all_at(chunk, at).map_err(|e| error(key, "write", &e))?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// 1. attributes and token, 2. fdatasync, 3. the target's folder, 4. the expectation, 5. rename, 6. fsync of the folder.
    fn complete(&self, write: &Write, name: &str) -> Result<Found, StoreError> {
        let key = &write.key;
        let (file, hidden) = self.open_upload(key, name)?;
        let len = file.metadata().map_err(|e| error(key, "look at", &e))?.len();
        if len != write.size {
            return Err(StoreError::Damaged(format!(
                "{key}: {len} bytes arrived, {} announced",
                write.size
            )));
        }
        dress(&file, write, Some(&write.token));
        file.sync_all().map_err(|e| error(key, "sync", &e))?;
        let (parent, target) = parent_and_name(key);
        let folder = self.make_dir(parent)?;
        self.expect(key, &write.expect)?;
        rename(&hidden, name, &folder, target, &write.expect).map_err(|e| match e.raw_os_error() {
            Some(libc::EEXIST) => StoreError::Changed(key.clone()),
            _ => error(key, "rename to", &e),
        })?;
        let metadata = file.metadata().map_err(|e| error(key, "look at", &e))?;
        folder.sync_all().map_err(|e| error(key, "sync the folder of", &e))?;
        Ok(Found {
            token: Some(write.token.clone()),
            attributes: write.attributes.clone(),
            ..found(&metadata)
        })
    }

    /// The mtime comes last, with our mark for it already there: whatever cuts this off, the file is as it was expected, or it is ours.
    fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        let key = &write.key;
        let ours = self.head(key)?.is_some_and(|found| found.token.is_some());
        self.expect(key, &write.expect)?;
        let mut how = OpenOptions::new();
        how.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let (folder, name) = self.parent(key)?;
        let path = sys::path_in(&folder, name);
        let file = how.open(&path).map_err(|e| error(key, "open", &e))?;
        let metadata = file.metadata().map_err(|e| error(key, "look at", &e))?;
        if write.expect != Expect::Match(validator(&metadata)) {
            return Err(StoreError::Changed(key.clone()));
        }
        take_users_xattrs(&file, &path, write);
        let token = ours.then_some(write.token.as_str());
        dress(&file, write, token);
        file.sync_all().map_err(|e| error(key, "sync", &e))?;
        self.head(key)
    }

    fn settle(&self, key: &str) -> Result<(), StoreError> {
        let mut how = OpenOptions::new();
        how.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let (folder, name) = self.parent(key)?;
        let file = how
            .open(sys::path_in(&folder, name))
            .map_err(|e| error(key, "open", &e))?;
        file.sync_all()
            .and_then(|()| folder.sync_all())
            .map_err(|e| error(key, "sync", &e))
    }

    /// `Refused` where something that is not shown has the name of a file or folder to come: nothing that we do takes it out of the way.
    fn refuse_other(&self, folder: &File, name: &str, key: &str) -> Result<(), StoreError> {
        let there = fs::symlink_metadata(sys::path_in(folder, name)).ok();
        match there.and_then(|metadata| kind_not_shown(metadata.file_type())) {
            Some(kind) => Err(StoreError::Refused(format!(
                "{key}: {name:?} is {kind} in {}, not a file or folder; remove or rename it there",
                self.path.display()
            ))),
            None => Ok(()),
        }
    }

    fn expect(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let there = match expect {
            Expect::Any => return Ok(()),
            Expect::Absent | Expect::Match(_) => self.look(key)?,
        };
        let holds = match (expect, &there) {
            (Expect::Match(expected), Some((_, metadata, _))) => metadata.is_file() && validator(metadata) == *expected,
            (Expect::Match(_), None) => false,
            _ => there.is_none(),
        };
        if *expect == Expect::Absent
            && holds
            && let Ok((folder, name)) = self.parent(key)
        {
            self.refuse_other(&folder, name, key)?;
        }
        if holds {
            Ok(())
        } else {
            Err(StoreError::Changed(key.to_owned()))
        }
    }

    fn forget(&self, key: &str, name: &str) -> Result<(), StoreError> {
        let hidden = self.hidden()?;
        match fs::remove_file(sys::path_in(&hidden, name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error(key, "abort", &e)),
            _ => Ok(()),
        }
    }

    fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        let hidden = self.hidden()?;
        let entries = fs::read_dir(sys::path_in(&hidden, ".")).map_err(|e| error(HIDDEN, "list", &e))?;
        let mut uploads = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| error(HIDDEN, "list", &e))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = sys::path_in(&hidden, &name);
            let key = match sys::get_xattr(&path, b"user.forebay.key").map(String::from_utf8) {
                Ok(Ok(key)) => key,
                _ if name.starts_with(&key_mark(prefix)) => prefix.to_owned(),
                _ => continue,
            };
            if key.starts_with(prefix) {
                uploads.push((key, UploadId(name)));
            }
        }
        uploads.sort_by(|a, b| (&a.0, &a.1.0).cmp(&(&b.0, &b.1.0)));
        Ok(uploads)
    }

    fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let expect = if *expect == Expect::Absent {
            &Expect::Any
        } else {
            expect
        };
        self.expect(key, expect)?;
        let Some((path, metadata, folder)) = self.look(key)? else {
            return Ok(());
        };
        if metadata.is_dir() {
            return Err(StoreError::Changed(format!("{key}: a directory is there")));
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(key, "remove", &e)),
            _ => {}
        }
        folder.sync_all().map_err(|e| error(key, "sync the folder of", &e))
    }

    /// The folder at `key`, made with its parents; every new name is durable.
    fn make_dir(&self, key: &str) -> Result<File, StoreError> {
        let mut folder = self.root()?;
        for name in key.split('/').filter(|name| !name.is_empty()) {
            folder = match sys::open_folder_below(&folder, name) {
                Ok(next) => next,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    match fs::create_dir(sys::path_in(&folder, name)) {
                        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(error(key, "make", &e)),
                        _ => {}
                    }
                    folder.sync_all().map_err(|e| error(key, "sync the folder of", &e))?;
                    sys::open_folder_below(&folder, name).map_err(|e| error(key, "open folder", &e))?
                }
                Err(e) => {
                    self.refuse_other(&folder, name, key)?;
                    return Err(error(key, "make folder", &e));
                }
            };
        }
        Ok(folder)
    }

    fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        let Some((path, _, folder)) = self.look(key)? else {
            return Ok(());
        };
        match fs::remove_dir(path).map_err(|e| (e.raw_os_error(), e)) {
            Ok(()) | Err((Some(libc::ENOENT), _)) => {}
            Err((Some(libc::ENOTEMPTY | libc::EEXIST), _)) => {
                return Err(StoreError::Changed(format!("{key}: not empty")));
            }
            Err((Some(libc::ENOTDIR), _)) => return Err(StoreError::Changed(format!("{key}: a file is there"))),
            Err((_, e)) => return Err(error(key, "remove folder", &e)),
        }
        folder.sync_all().map_err(|e| error(key, "sync the folder of", &e))
    }

    fn probe(&self) -> Result<Capabilities, StoreError> {
        let write = Write {
            key: "probe".into(),
            size: 0,
            // Others may probe the same place at the same time.
            token: fresh_id()?,
            attributes: Vec::new(),
            expect: Expect::Absent,
        };
        let (file, name) = self.start(&write)?;
        let metadata = sys::set_xattr(&file, b"user.forebay.token", b"probe").is_ok();
        self.forget("probe", &name)?;
        Ok(Capabilities {
            put_if_absent: true,
            put_if_match: false,
            complete_conditional: true,
            metadata,
            parallel_parts: true,
            part_bytes_min: 1,
            parts_max: u32::MAX,
            atomic_rename: true,
        })
    }
}

/// A new file `name` of the hidden folder, which carries the key that it is meant for. It gets its name with the key on it, so that a
/// process that ends in between leaves nothing of which no one could tell whose it is.
fn create_marked(hidden: &File, name: &str, key: &str) -> io::Result<File> {
    let mut how = OpenOptions::new();
    how.write(true).mode(0o600);
    let mark = |file: &File| sys::set_xattr(file, b"user.forebay.key", key.as_bytes());
    let mut nameless = how.clone();
    let nameless = nameless.custom_flags(libc::O_TMPFILE).open(sys::path_in(hidden, "."));
    if let Ok(file) = nameless
        && mark(&file).is_ok()
        && sys::name_file(&file, hidden, name).is_ok()
    {
        return Ok(file);
    }
    // A file system without one of these: the mark in the name must do, and the key is set where it can be.
    let file = how
        .create_new(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(sys::path_in(hidden, name))?;
    let _ = mark(&file);
    Ok(file)
}

/// Beginning of an upload's file name that tells its key, for file systems without extended attributes.
fn key_mark(key: &str) -> String {
    Sha256::digest(key.as_bytes())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The least `NAMES_PER_PASS` names of a folder greater than `after`, in order, and whether there are more.
fn names_after(folder: &File, key: &str, after: Option<&str>) -> Result<(VecDeque<String>, bool), StoreError> {
    let mut names = BTreeSet::new();
    let (mut bytes, mut more) = (0, false);
    for entry in fs::read_dir(sys::path_in(folder, ".")).map_err(|e| error(key, "list", &e))? {
        let entry = entry.map_err(|e| error(key, "list", &e))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let hidden = key.is_empty() && is_hidden(&name);
        if hidden || after.is_some_and(|after| name.as_str() <= after) {
            continue;
        }
        // Behind a name that is left for the next pass.
        if more && names.last().is_some_and(|last| name > *last) {
            continue;
        }
        bytes += name.len();
        names.insert(name);
        while names.len() > NAMES_PER_PASS || bytes > NAME_BYTES_PER_PASS {
            bytes -= names.pop_last().map_or(0, |last| last.len());
            more = true;
        }
    }
    Ok((names.into_iter().collect(), more))
}

fn rename(from: &File, from_name: &str, to: &File, to_name: &str, expect: &Expect) -> io::Result<()> {
    let (from_path, to_path) = (sys::path_in(from, from_name), sys::path_in(to, to_name));
    if *expect != Expect::Absent {
        return fs::rename(from_path, to_path);
    }
    match sys::rename_noreplace(from, from_name, to, to_name) {
        // A file system without it: a hard link has the same promise.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)) => {
            fs::hard_link(&from_path, &to_path)?;
            fs::remove_file(&from_path)
        }
        done => done,
    }
}

/// The extended attributes of users, each as itself; the first failure of all that could not be set.
fn set_users_xattrs(file: &File, encoded: &str) -> io::Result<()> {
    let set = |(name, value): (Vec<u8>, Vec<u8>)| sys::set_xattr(file, &name, &value);
    let done: Vec<io::Result<()>> = decode_xattrs(encoded).into_iter().map(set).collect();
    done.into_iter().collect()
}

/// Takes the extended attributes of users away that are not among those to come.
fn take_users_xattrs(file: &File, path: &Path, write: &Write) {
    let wanted = write.attributes.iter().find(|(name, _)| name == XATTRS);
    let wanted = wanted.map(|(_, value)| decode_xattrs(value)).unwrap_or_default();
    let there = sys::list_xattrs(path).unwrap_or_default();
    for name in there.iter().filter(|name| travels(name) && !wanted.contains_key(*name)) {
        if let Err(e) = sys::remove_xattr(file, name) {
            tracing::debug!(key = write.key, error = %e, "attribute not taken away");
        }
    }
}

/// Gives the file mode, owner, extended attributes and mtime, and our token where it is ours. A file system or user that may not is no
/// reason to keep the bytes back.
fn dress(file: &File, write: &Write, token: Option<&str>) {
    let refused = |what: &str, e: io::Error| tracing::debug!(key = write.key, what, error = %e, "attribute not kept");
    if let Some(token) = token
        && let Err(e) = sys::set_xattr(file, b"user.forebay.token", token.as_bytes())
    {
        refused("token", e);
    }
    let number = |name: &str, radix| {
        let value = write.attributes.iter().find(|(key, _)| key == name);
        value.and_then(|(_, value)| i64::from_str_radix(value, radix).ok())
    };
    // Who is not named may be whom the folder gives its files to.
    let owner = |name| number(name, 10).and_then(|id| u32::try_from(id).ok());
    if let Err(e) = std::os::unix::fs::fchown(file, owner(UID), owner(GID)) {
        refused("owner", e);
    }
    let mode = number(MODE, 8)
        .and_then(|mode| u32::try_from(mode & 0o7777).ok())
        .unwrap_or(0o644);
    if let Err(e) = file.set_permissions(fs::Permissions::from_mode(mode)) {
        refused("mode", e);
    }
    for (name, value) in &write.attributes {
        let set = match name.as_str() {
            MODE | UID | GID | MTIME => Ok(()),
            XATTRS => set_users_xattrs(file, value),
            name => sys::set_xattr(file, format!("{XATTR}{name}").as_bytes(), value.as_bytes()),
        };
        if let Err(e) = set {
            refused(name, e);
        }
    }
    let mark = |mark: String| {
        let set = token.map_or(Ok(()), |_| {
            sys::set_xattr(file, b"user.forebay.written", mark.as_bytes())
        });
        set.unwrap_or_else(|e| refused("written", e));
    };
    let micros = number(MTIME, 10).and_then(|micros| u64::try_from(micros).ok());
    let since = micros.map(Duration::from_micros);
    if let (Some(since), Ok(metadata)) = (since, file.metadata())
        && let Some(mtime) = SystemTime::UNIX_EPOCH.checked_add(since)
    {
        mark(written_mark(since.as_secs(), since.subsec_nanos(), metadata.len()));
        if let Err(e) = file.set_times(FileTimes::new().set_modified(mtime)) {
            refused("mtime", e);
        }
    }
    // What the file system made of it may be another.
    match file.metadata() {
        Ok(metadata) => mark(mark_of(&metadata)),
        Err(e) => refused("written", e),
    }
}

/// Says which bytes a token belongs to: whoever rewrites the file changes its mtime or its size.
fn written_mark(seconds: impl fmt::LowerHex, nanos: impl fmt::LowerHex, len: u64) -> String {
    format!("{seconds:x}.{nanos:x}-{len:x}")
}

fn mark_of(of: &Metadata) -> String {
    written_mark(of.mtime(), of.mtime_nsec(), of.len())
}
