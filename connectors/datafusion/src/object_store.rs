//! An `ObjectStore` over the files of a server.
//!
//! The key of an object is the path without its first slash, byte for byte: what an object store writes as `a%2Fb` is the file
//! named `a%2Fb`. Directories come and go as keys need them; empty ones show only as common prefixes. A write is visible whole when
//! it returns, or not at all.
//!
//! It is a [`PaginatedListStore`](object_store::list::PaginatedListStore) and a [`MultipartStore`](object_store::multipart::MultipartStore)
//! too, for those who go on by the token of a page or the id of an upload, in another process perhaps.
//!
//! An update on condition is decided by the server, in the transaction that makes the object: of those that are for one etag a single one
//! goes through. An object that only the under-store has any more may have another etag than before; an update for the old one is
//! refused then, as if it had changed.
//!
//! Attributes are extended attributes of the file, which come and go with its content; a storage class is refused, as the trait asks. Tags
//! are ignored, and there are no object versions. A name that is not UTF-8 or has control characters cannot be a key; listings show it
//! percent-encoded, but it cannot be read by that.

mod attributes;
mod multipart;
mod pages;
mod parts;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use forebay_client::{
    Client, Entry, EntryKind, Error, ErrorKind, FileOptions, Mode, PutDone, WirePath, action::Rename,
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use multipart::Upload;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode,
    Result, UpdateVersion,
    path::{Path, PathPart},
};
use std::{fmt, ops::Range};

const NAME: &str = "forebay";
/// Deletes under way at once.
const DELETES: usize = 16;

/// The files of a server as objects.
#[derive(Clone, Debug)]
pub struct ForebayStore {
    client: Client,
}

impl ForebayStore {
    /// All files of the client's server.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The file that an object is.
    async fn entry(&self, location: &Path) -> Result<Entry> {
        let key = key(location)?;
        let entry = self.client.stat(&key).await.map_err(|e| failed(location, e))?;
        match entry.kind {
            EntryKind::File => Ok(entry),
            _ => Err(failed(
                location,
                Error::new(ErrorKind::NotFound, "a directory is no object"),
            )),
        }
    }

    fn entries(&self, prefix: Option<&Path>, recursive: bool) -> BoxStream<'static, Result<Entry>> {
        match wire(prefix.unwrap_or(&Path::default())) {
            Ok(dir) => self.entries_after(&dir, recursive, None),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    /// What lies in a directory, or with `recursive` below it: by components, so that a directory comes right before what is in it.
    fn entries_after(
        &self,
        dir: &WirePath,
        recursive: bool,
        after: Option<WirePath>,
    ) -> BoxStream<'static, Result<Entry>> {
        let location = location(dir);
        match self.client.list(&dir.to_string(), recursive, after) {
            Err(error) => futures::stream::iter([Err(failed(&location, error))]).boxed(),
            // A prefix under which nothing lies, or that is a file, has no objects.
            Ok(entries) => entries
                .filter(|e| {
                    let nothing = matches!(e, Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Precondition | ErrorKind::Invalid));
                    std::future::ready(!nothing)
                })
                .map_err(move |e| failed(&location, e))
                .boxed(),
        }
    }

    async fn copy_content(&self, from: &Path, to: &Path, mode: Mode) -> Result<()> {
        let read = |e| failed(from, e);
        let write = |e| failed(to, e);
        let entry = self.entry(from).await?;
        let mut source = self.client.read_file(&key(from)?, None).await.map_err(read)?;
        let options = FileOptions {
            mode,
            attributes: Some(entry.attributes),
            ..FileOptions::default()
        };
        let mut target = self.client.write_file(&key(to)?, options).await.map_err(write)?;
        while let Some(bytes) = source.next_bytes().await.map_err(read)? {
            target.write(bytes).await.map_err(write)?;
        }
        target.finish().await.map_err(write)?;
        Ok(())
    }
}

impl fmt::Display for ForebayStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forebay({})", self.client.url())
    }
}

#[async_trait]
impl ObjectStore for ForebayStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (mode, if_etag) = match opts.mode {
            PutMode::Overwrite => (Mode::Overwrite, None),
            PutMode::Create => (Mode::Create, None),
            PutMode::Update(UpdateVersion { version: Some(_), .. }) => return Err(not_offered("object versions")),
            PutMode::Update(UpdateVersion { e_tag: Some(tag), .. }) => (Mode::Overwrite, Some(tag)),
            PutMode::Update(_) => {
                let text = "an update is for an e_tag, and has none";
                return Err(failed(location, Error::new(ErrorKind::Invalid, text)));
            }
        };
        let attributes = attributes::of_file(location, &opts.attributes)?;
        // One token for all attempts: what is repeated after a lost answer is written once.
        let options = FileOptions {
            mode,
            if_etag,
            attributes: Some(attributes),
            ..FileOptions::default()
        };
        let content = Bytes::from(payload);
        let put = self.client.put_file(&key(location)?, content, options).await;
        put.map(written).map_err(|e| failed(location, e))
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let options = FileOptions {
            attributes: Some(attributes::of_file(location, &opts.attributes)?),
            ..FileOptions::default()
        };
        let put = self
            .client
            .write_file(&key(location)?, options)
            .await
            .map_err(|e| failed(location, e))?;
        Ok(Box::new(Upload::new(location.clone(), put)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.version.is_some() {
            return Err(not_offered("object versions"));
        }
        let entry = self.entry(location).await?;
        let meta = meta_of(location.clone(), &entry)?;
        options.check_preconditions(&meta)?;
        let range = range_of(options.range.as_ref(), meta.size)?;
        let payload = if options.head || range.is_empty() {
            futures::stream::empty().boxed()
        } else {
            let whole = range.start == 0 && range.end == meta.size;
            let wanted = (!whole).then(|| range.clone());
            let read = self
                .client
                .read_file(&key(location)?, wanted)
                .await
                .map_err(|e| failed(location, e))?;
            let location = location.clone();
            read.into_stream().map_err(move |e| failed(&location, e)).boxed()
        };
        let payload = GetResultPayload::Stream(payload);
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes: attributes::of_object(&entry.attributes),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let client = self.client.clone();
        locations
            .map(move |location| {
                let client = client.clone();
                async move {
                    let location = location?;
                    client
                        .delete(&key(&location)?, false)
                        .await
                        .map_err(|e| failed(&location, e))?;
                    Ok(location)
                }
            })
            .buffered(DELETES)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.entries(prefix, true)
            .try_filter(|entry| std::future::ready(entry.kind == EntryKind::File))
            .and_then(async |entry| meta_of(location(&entry.path), &entry))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut entries = self.entries(prefix, false);
        let mut result = ListResult {
            common_prefixes: Vec::new(),
            objects: Vec::new(),
        };
        while let Some(entry) = entries.try_next().await? {
            let location = location(&entry.path);
            match entry.kind {
                EntryKind::Dir => result.common_prefixes.push(location),
                EntryKind::File => result.objects.push(meta_of(location, &entry)?),
                EntryKind::Symlink => {}
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => Mode::Overwrite,
            CopyMode::Create => Mode::Create,
        };
        self.copy_content(from, to, mode).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let replace = matches!(options.target_mode, RenameTargetMode::Overwrite);
        self.entry(from).await?;
        let rename = Rename {
            from: wire(from)?,
            to: wire(to)?,
            replace,
            parents: true,
        };
        self.client
            .rename_with(rename)
            .await
            .map_err(|e| failed(if e.kind() == ErrorKind::Exists { to } else { from }, e))
    }
}

/// The file that an object is.
fn wire(location: &Path) -> Result<WirePath> {
    let bytes = [b"/", location.as_ref().as_bytes()].concat();
    WirePath::from_bytes(&bytes).map_err(|e| object_store::Error::Generic {
        store: NAME,
        source: Box::new(e),
    })
}

fn key(location: &Path) -> Result<String> {
    wire(location).map(|path| path.to_string())
}

/// The object that a file is.
fn location(path: &WirePath) -> Path {
    let raw = std::str::from_utf8(path.as_bytes())
        .ok()
        .and_then(|text| Path::parse(text).ok());
    raw.unwrap_or_else(|| path.components().map(PathPart::from).collect())
}

/// What a write made, whoever has written there since.
fn written(put: PutDone) -> PutResult {
    PutResult {
        e_tag: put.etag,
        version: None,
    }
}

fn meta_of(location: Path, entry: &Entry) -> Result<ObjectMeta> {
    let last_modified = DateTime::parse_from_rfc3339(&entry.mtime)
        .map_err(|e| object_store::Error::Generic {
            store: NAME,
            source: Box::new(e),
        })?
        .to_utc();
    let e_tag = entry
        .etag
        .clone()
        .unwrap_or_else(|| format!("{:x}-{:x}", last_modified.timestamp_micros(), entry.size));
    Ok(ObjectMeta {
        location,
        last_modified,
        size: entry.size,
        e_tag: Some(e_tag),
        version: None,
    })
}

fn range_of(asked: Option<&GetRange>, size: u64) -> Result<Range<u64>> {
    match asked {
        None => Ok(0..size),
        Some(range) => range.as_range(size).map_err(|e| object_store::Error::Generic {
            store: NAME,
            source: Box::new(e),
        }),
    }
}

fn not_offered(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: NAME.to_owned(),
    }
}

fn failed(location: &Path, error: Error) -> object_store::Error {
    let path = location.to_string();
    let kind = error.kind();
    let source = Box::new(error);
    match kind {
        ErrorKind::NotFound => object_store::Error::NotFound { path, source },
        ErrorKind::Exists => object_store::Error::AlreadyExists { path, source },
        ErrorKind::Precondition => object_store::Error::Precondition { path, source },
        ErrorKind::Denied => object_store::Error::PermissionDenied { path, source },
        _ => object_store::Error::Generic { store: NAME, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_path_byte_for_byte() {
        for raw in [
            "a/b c",
            "HELLO%2Ffoo.parquet",
            "%Q.parquet",
            "🇦🇺/$shenanigans@@~.txt",
            "a/%F0%9F",
        ] {
            let location_ = Path::parse(raw).unwrap();
            let path = wire(&location_).unwrap();
            assert_eq!(path.as_bytes(), format!("/{raw}").as_bytes());
            assert_eq!(location(&path), location_);
        }
        assert!(wire(&Path::default()).unwrap().is_root());
    }

    #[test]
    fn a_name_that_is_no_key_is_shown_encoded() {
        assert_eq!(
            location(&WirePath::from_bytes(b"/a/\xff\n").unwrap()).as_ref(),
            "a/%FF%0A"
        );
    }
}
