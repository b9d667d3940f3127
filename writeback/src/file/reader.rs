//! One reader over every state of a content: sealed in segments, persisted with or without a local copy, clean in the under-store.

use crate::{
    Cache, Error, ErrorKind, Result,
    cache::Inner,
    clean::CleanReader,
    file::{draft::AwaitedRow, place::Seen},
    names::{PLACE_BIT, Stat},
    rows::{Content, StoreAt},
};
use bytes::Bytes;
use forebay_namespace::{BaseEntry, Ino, Inode, Kind, Node, Path};
use forebay_segment::{Reader, StreamId};
use forebay_understore::Validator;
use std::{ops::Range, os::fd::BorrowedFd, sync::Arc};

/// Times that a name is resolved anew because its bytes moved between the row and the open.
const MOVED_MAX: u32 = 8;

/// Reads one generation of a file; keeps it for as long as it lives, whatever happens to the name.
#[derive(Clone, Debug)]
pub struct FileReader {
    inner: Arc<Inner>,
    /// For error texts.
    name: Arc<str>,
    identity: Arc<str>,
    size: u64,
    source: Source,
    /// The row of a content that the under-store does not have yet: whoever was shown it finds it by the row, also when it was brought there
    /// and evicted meanwhile.
    row: Option<Arc<AwaitedRow>>,
}

#[derive(Clone, Debug)]
enum Source {
    /// In segments; `copy`: the under-store has it too.
    Local { reader: Reader, copy: Option<CleanReader> },
    /// Only in the under-store, or cached from it.
    Clean(CleanReader),
}

impl Cache {
    /// Opens the file at `path` for reading. NotFound; Invalid for a directory.
    pub async fn read_file(&self, path: &Path) -> Result<FileReader> {
        Ok(self.open_node(path).await?.0)
    }

    /// The same, with what is said of it.
    pub async fn open_file(&self, path: &Path) -> Result<(FileReader, Stat)> {
        let (reader, node) = self.open_node(path).await?;
        let stat = self.inner.stats_of(vec![(path.clone(), node)]).await?.pop();
        Ok((reader, stat.expect("one answer for one node")))
    }

    async fn open_node(&self, path: &Path) -> Result<(FileReader, Node)> {
        let mut moved = 0;
        loop {
            let node = self.inner.look(path).await?;
            let node = node.ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
            match self.inner.read_node(path.to_string(), &node) {
                // Replaced and freed between the two steps: the name leads elsewhere now. The same row twice is a loss.
                Err(error) if error.kind() == ErrorKind::DataLoss && moved < MOVED_MAX => {
                    if self.inner.names.resolve(path).await?.as_ref() == Some(&node) {
                        return Err(error);
                    }
                    moved += 1;
                }
                other => {
                    let reader = other?;
                    if let Source::Clean(object) = &reader.source {
                        self.inner.opened_clean(path, object);
                    }
                    return Ok((reader, node));
                }
            }
        }
    }

    /// The same for whoever was told by [`Stat::id`] which row the name leads to, and would have been told of a change since: the way there
    /// through the directories is spared. `None` where the row is gone, or has no file: it has to be looked for by its name.
    pub async fn read_row(&self, path: &Path, row: u64) -> Result<Option<FileReader>> {
        let Some(node) = self.inner.file_of_row(path, row).await? else {
            return Ok(None);
        };
        match self.inner.read_node(path.to_string(), &node) {
            Err(error) if error.kind() == ErrorKind::DataLoss => Ok(None),
            other => other.map(Some),
        }
    }
}

impl Inner {
    async fn file_of_row(&self, path: &Path, row: u64) -> Result<Option<Node>> {
        if row & PLACE_BIT != 0 {
            return Ok(None);
        }
        let ino = Ino(row);
        match self.names.inode(ino).await? {
            Some((inode, version)) if inode.kind == Kind::File => {
                self.revalidate(path, Node::Row { ino, inode, version }).await
            }
            _ => Ok(None),
        }
    }

    /// Opens an inode's present content; NotFound when it is gone or has another generation.
    pub(crate) async fn read_inode(self: &Arc<Self>, ino: Ino, generation: u32) -> Result<FileReader> {
        let mut moved = 0;
        loop {
            let gone = || Error::not_found(format!("inode {}.{generation}: not found", ino.0));
            let (inode, version) = self.names.inode(ino).await?.ok_or_else(gone)?;
            if inode.generation != generation {
                return Err(gone());
            }
            match self.read_row(format!("inode {}", ino.0), ino, &inode) {
                // Evicted between the two steps.
                Err(error) if error.kind() == ErrorKind::DataLoss && moved < MOVED_MAX => {
                    match self.names.inode(ino).await? {
                        Some((_, now)) if now == version => return Err(error),
                        _ => moved += 1,
                    }
                }
                other => return other,
            }
        }
    }

    /// Opens what a name leads to.
    pub(crate) fn read_node(self: &Arc<Self>, name: String, node: &Node) -> Result<FileReader> {
        match node {
            Node::Row { ino, inode, .. } => self.read_row(name, *ino, inode),
            Node::Base { at, entry } => self.read_base(name, at, entry),
        }
    }

    /// Opens a content that is sealed and not yet in any row.
    pub(crate) fn read_sealed(self: &Arc<Self>, name: String, sealed: &super::SealedContent) -> Result<FileReader> {
        let stream = sealed.stream();
        let reader = self.segments.reader(stream, &sealed.layout)?;
        let reader = self.read_local(name, stream, sealed.len, reader);
        // Its row is to come.
        let row = Some(Arc::new(self.files.drafts.awaiting(Ino(stream.0))));
        Ok(FileReader { row, ..reader })
    }

    /// Opens bytes that are here, whether a row names them or not.
    pub(super) fn read_local(
        self: &Arc<Self>,
        name: String,
        stream: StreamId,
        size: u64,
        reader: Reader,
    ) -> FileReader {
        self.reader(name, stream.to_string(), size, Source::Local { reader, copy: None })
    }

    fn read_row(self: &Arc<Self>, name: String, ino: Ino, inode: &Inode) -> Result<FileReader> {
        match inode.kind {
            Kind::File => {}
            Kind::Dir { .. } => return Err(Error::invalid(format!("{name}: is a directory"))),
            Kind::Symlink(_) => return Err(Error::invalid(format!("{name}: is a symbolic link; read its target"))),
            Kind::Special { .. } => return Err(Error::invalid(format!("{name}: is a pipe, socket or device"))),
        }
        let stream = StreamId(ino.0, inode.generation);
        let mut row = None;
        let source = match Content::decode(&inode.content)? {
            Content::Open => return Err(Error::precondition(format!("{name}: is still being written"))),
            Content::Sealed { layout, .. } => {
                row = Some(Arc::new(self.files.drafts.awaiting(ino)));
                let reader = self
                    .segments
                    .reader(stream, &layout)
                    .map_err(|error| Error::from(error).at(&name))?;
                Source::Local { reader, copy: None }
            }
            Content::Persisted { at, layout, .. } => {
                let copy = self.store_reader(&name, &at, inode);
                let local = layout.as_ref().map(|layout| self.segments.reader(stream, layout));
                match (local, copy) {
                    (Some(Ok(reader)), copy) => {
                        self.clean.opened_copy(stream);
                        Source::Local {
                            reader,
                            copy: copy.ok(),
                        }
                    }
                    (_, Ok(copy)) => Source::Clean(copy),
                    (Some(Err(error)), Err(_)) => return Err(Error::from(error).at(&name)),
                    (None, Err(error)) => return Err(error),
                }
            }
        };
        let reader = self.reader(name, stream.to_string(), inode.size, source);
        Ok(FileReader { row, ..reader })
    }

    fn read_base(self: &Arc<Self>, name: String, at: &Path, entry: &BaseEntry) -> Result<FileReader> {
        if entry.is_dir {
            return Err(Error::invalid(format!("{name}: is a directory")));
        }
        let Some((mount, Some(key))) = self.mounts.resolve(at) else {
            return Err(Error::not_found(format!("{name}: its mount is gone")));
        };
        let identity = base_identity(mount.id, &key, &entry.validator);
        let validator = Validator(entry.validator.clone());
        let clean = CleanReader {
            mount,
            key,
            size: entry.size,
            validator,
            changed: entry.mtime,
        };
        Ok(self.reader(name, identity, entry.size, Source::Clean(clean)))
    }

    /// The identity that a reader of this node would have; `None` for a directory.
    pub(crate) fn identity_of(&self, node: &Node) -> Option<String> {
        match node {
            Node::Row { inode, .. } if inode.is_dir() => None,
            Node::Row { ino, inode, .. } => Some(StreamId(ino.0, inode.generation).to_string()),
            Node::Base { entry, .. } if entry.is_dir => None,
            Node::Base { at, entry } => match self.mounts.resolve(at) {
                Some((mount, Some(key))) => Some(base_identity(mount.id, &key, &entry.validator)),
                _ => None,
            },
        }
    }

    /// Whether `node` has the content that was seen at its name; `None`: whether nothing is there. A content that was evicted meanwhile is
    /// what the under-store shows, and what the under-store shows may have got a row of its own.
    pub(super) fn has_content(&self, seen: Option<&Seen>, node: Option<&Node>) -> Result<bool> {
        let (seen, node) = match (seen, node) {
            (Some(seen), Some(node)) => (seen, node),
            (seen, node) => return Ok(seen.is_none() && node.is_none()),
        };
        if self.identity_of(node).is_some_and(|now| seen.is(&now)) {
            return Ok(true);
        }
        let in_store = match node {
            Node::Row { inode, .. } => identity_in_store(inode)?,
            Node::Base { .. } => None,
        };
        Ok(in_store.is_some_and(|there| seen.is(&there)))
    }

    /// What tells the content of a file from all others that its name ever led to; `None`: no file, or one that is being written.
    pub(crate) fn etag_of(&self, node: &Node) -> Result<Option<String>> {
        match node {
            Node::Row { inode, .. } if inode.kind != Kind::File => Ok(None),
            Node::Row { inode, .. } if Content::decode(&inode.content)? == Content::Open => Ok(None),
            _ => Ok(self.identity_of(node)),
        }
    }

    /// Whether this is the etag of `node`, or was before what the under-store shows got a row of its own.
    pub(super) fn has_etag(&self, etag: &str, node: &Node) -> Result<bool> {
        let Some(now) = self.etag_of(node)? else {
            return Ok(false);
        };
        let in_store = match node {
            Node::Row { inode, .. } => identity_in_store(inode)?,
            Node::Base { .. } => None,
        };
        Ok(now == etag || in_store.is_some_and(|there| there == etag))
    }

    fn store_reader(&self, name: &str, at: &StoreAt, inode: &Inode) -> Result<CleanReader> {
        let mount = self.mounts.by_id(at.mount).ok_or_else(|| {
            Error::unavailable(format!(
                "{name}: lies in an under-store that is not mounted any more; mount it again"
            ))
        })?;
        Ok(CleanReader {
            mount,
            key: at.key.clone(),
            size: inode.size,
            validator: Validator(at.validator.clone()),
            changed: inode.mtime.max(inode.ctime),
        })
    }

    fn reader(self: &Arc<Self>, name: String, identity: String, size: u64, source: Source) -> FileReader {
        FileReader {
            inner: Arc::clone(self),
            name: name.into(),
            identity: identity.into(),
            size,
            source,
            row: None,
        }
    }
}

impl FileReader {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Exactly `range` (clipped at the end), as slices; without a copy where the bytes are local.
    /// DataLoss when they are damaged and no good copy is left; Unavailable when the store that has them is away.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        let end = range.end.min(self.size);
        if range.start >= end {
            return Ok(Vec::new());
        }
        let range = range.start..end;
        match &self.source {
            Source::Local { reader, copy } => match (reader.read(range.clone()).await, copy) {
                (Ok(chunks), _) => Ok(chunks),
                (Err(error), Some(copy)) => {
                    tracing::error!(file = %self.name, %error, "a local copy is damaged; reading from the under-store");
                    self.read_clean(copy, range).await
                }
                (Err(error), None) => {
                    Err(Error::from(error).at(format!("{} bytes {}..{}", self.name, range.start, range.end)))
                }
            },
            Source::Clean(object) => self.read_clean(object, range).await,
        }
    }

    async fn read_clean(&self, object: &CleanReader, range: Range<u64>) -> Result<Vec<Bytes>> {
        let read = self.inner.clean.read(object, range).await;
        if read
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Precondition)
        {
            // Whoever opens it next must not be shown what was remembered of it, whatever the policies let be believed.
            let noticed = self.inner.noticed(&object.mount, &object.key).await;
            noticed
                .unwrap_or_else(|error| tracing::debug!(file = %self.name, %error, "a change outside is seen later"));
        }
        read.map_err(|error| error.at(&self.name))
    }

    /// The whole content as one piece of shared memory, verified, where it is local and contiguous.
    pub async fn mapped(&self) -> Result<Option<Bytes>> {
        match &self.source {
            Source::Local { reader, copy: None } => Ok(reader
                .mapped()
                .await
                .map_err(|error| Error::from(error).at(&self.name))?),
            // A damaged copy is no reason to fail: reads in ranges go to the under-store then.
            Source::Local { reader, copy: Some(_) } => Ok(reader.mapped().await.unwrap_or_default()),
            Source::Clean(_) => Ok(None),
        }
    }

    /// The local file whose bytes are exactly the content, all compared with their checksums, where it lies so. It stays open while
    /// this reader lives.
    pub async fn local_file(&self) -> Result<Option<BorrowedFd<'_>>> {
        let Source::Local { reader, .. } = &self.source else {
            return Ok(None);
        };
        let Some((_, fd)) = reader.file() else { return Ok(None) };
        if self.mapped().await?.is_none() {
            return Ok(None);
        }
        // SAFETY: the segment's file keeps the descriptor open, and the reader keeps the segment's file.
        Ok(Some(unsafe { BorrowedFd::borrow_raw(fd) }))
    }

    /// What was seen at the name when it was opened.
    pub(super) fn seen(&self) -> Seen {
        let object = match &self.source {
            Source::Local { copy, .. } => copy.as_ref(),
            Source::Clean(object) => Some(object),
        };
        let in_store = object.map(|object| base_identity(object.mount.id, &object.key, &object.validator.0));
        Seen {
            identity: self.identity(),
            in_store,
            _row: self.row.clone(),
        }
    }

    /// Names this exact content (inode and generation, or mount, key and validator): for caches of what was parsed from it.
    pub fn identity(&self) -> String {
        self.identity.to_string()
    }
}

/// The identity that the content of a row has where the under-store shows it by itself.
fn identity_in_store(inode: &Inode) -> Result<Option<String>> {
    if inode.kind != Kind::File {
        return Ok(None);
    }
    Ok(match Content::decode(&inode.content)? {
        Content::Persisted { at, .. } => Some(base_identity(at.mount, &at.key, &at.validator)),
        Content::Open | Content::Sealed { .. } => None,
    })
}

fn base_identity(mount: u32, key: &str, validator: &str) -> String {
    format!("{mount}:{key}@{validator}")
}
