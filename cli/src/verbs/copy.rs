//! `put`, `get`, `cat`, `cp`: files and trees of them.

use super::{
    at, between,
    names::into_directory,
    transfer,
    tree::{self, LocalNode, LocalTree},
};
use crate::{
    args::{Cp, Door, Get, Paths, Put},
    failure::{AtFile, Failure, Outcome},
    output::Output,
    progress,
};
use forebay_client::{Client, Entry, EntryKind, FileOptions, WirePath};
use forebay_runtime::units::ByteSize;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde::Serialize;
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};
use tokio::fs;

/// What a copy did.
#[derive(Debug, Default, Serialize)]
pub(super) struct Copied {
    path: String,
    files: u64,
    bytes: u64,
    /// The level at which a put was acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<String>,
}

impl Copied {
    fn text(&self) -> String {
        let level = self
            .level
            .as_ref()
            .map_or(String::new(), |level| format!(", safe at level {level}"));
        let files = if self.files == 1 { "file" } else { "files" };
        format!(
            "{}: {} {files}, {}{level}",
            self.path,
            self.files,
            ByteSize(self.bytes).rounded()
        )
    }

    fn add(mut self, Done { bytes, level }: Done) -> Self {
        self.files += 1;
        self.bytes += bytes;
        self.level = level.or(self.level);
        self
    }
}

/// One file that was copied.
#[derive(Debug, Default)]
pub(super) struct Done {
    bytes: u64,
    level: Option<String>,
}

impl Done {
    pub(super) fn of(bytes: u64) -> Self {
        Self { bytes, level: None }
    }
}

/// Says the totals: a line on stderr for people, the document for machines.
pub(super) fn tell(output: &mut Output, copied: &Copied) -> Outcome {
    if output.json() {
        return output.document(copied);
    }
    eprintln!("{}", copied.text());
    Ok(())
}

fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}

// ---- put

pub(super) async fn put(put: Put, door: &Door, output: &mut Output) -> Outcome {
    let (client, path) = at(door, &put.path).await?;
    let copied = if is_dash(&put.local) {
        put_stdin(&client, &put, path).await?
    } else if fs::metadata(&put.local).await.at(&put.local)?.is_dir() {
        put_folder(&client, &put, path).await?
    } else {
        put_file(&client, &put, path).await?
    };
    tell(output, &copied)
}

fn options(put: &Put) -> FileOptions {
    let Put {
        mode,
        offset,
        ack,
        token,
        ..
    } = put;
    FileOptions {
        mode: (*mode).into(),
        offset: *offset,
        ack: *ack,
        token: token.clone(),
        ..FileOptions::default()
    }
}

async fn put_stdin(client: &Client, put: &Put, path: WirePath) -> Outcome<Copied> {
    if put.path.ends_with('/') {
        return Err(Failure::usage(format!(
            "{}: what comes from stdin has no name of its own",
            put.path
        )));
    }
    let bar = progress::bytes(path.to_string(), None);
    let to = (&path, options(put));
    let (done, bytes) = transfer::upload(client, (tokio::io::stdin(), None), Path::new("stdin"), to, &bar).await?;
    let level = done.level.map(|level| level.to_string());
    Ok(Copied {
        path: path.to_string(),
        ..Copied::default()
    }
    .add(Done { bytes, level }))
}

async fn put_file(client: &Client, put: &Put, path: WirePath) -> Outcome<Copied> {
    let path = target(client, put, path).await?;
    let total = fs::metadata(&put.local).await.at(&put.local)?.len();
    let bar = progress::bytes(path.to_string(), Some(total));
    let done = upload_one(client, &put.local, &path, options(put), &bar).await?;
    Ok(Copied {
        path: path.to_string(),
        ..Copied::default()
    }
    .add(done))
}

/// Where the local file or folder goes: into an existing directory, or one that `/` at the end asks for, under its own name.
async fn target(client: &Client, put: &Put, path: WirePath) -> Outcome<WirePath> {
    let local = std::path::absolute(&put.local).at(&put.local)?;
    let name = local
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{}: has no name", put.local.display())))?;
    let asked = put.path.ends_with('/') && !path.is_root();
    let is_dir = asked
        || path.is_root()
        || matches!(client.stat(&path.to_string()).await, Ok(found) if found.kind == EntryKind::Dir);
    if is_dir {
        Ok(path.join(name.as_bytes())?)
    } else {
        Ok(path)
    }
}

async fn upload_one(
    client: &Client,
    local: &Path,
    path: &WirePath,
    options: FileOptions,
    bar: &ProgressBar,
) -> Outcome<Done> {
    let mut file = fs::File::open(local).await.at(local)?;
    let found = file.metadata().await.at(local)?;
    // Only a plain file says how long it is; what is in /proc says 0.
    let len = Some(found.len()).filter(|len| found.is_file() && *len > 0);
    if let Some(len) = len {
        // A buffer of the runtime's own, which it clears: no larger than what there is to read.
        file.set_max_buf_size(usize::try_from(len).unwrap_or(usize::MAX).clamp(1 << 12, 1 << 20));
    }
    let uploaded = transfer::upload(client, (file, len), local, (path, options), bar).await;
    let (done, bytes) = uploaded.map_err(|failure| failure.about(path))?;
    Ok(Done {
        bytes,
        level: done.level.map(|level| level.to_string()),
    })
}

async fn put_folder(client: &Client, put: &Put, path: WirePath) -> Outcome<Copied> {
    if !put.recursive {
        return Err(Failure::usage(format!(
            "{}: is a folder; put it with -r",
            put.local.display()
        )));
    }
    if put.token.is_some() || put.offset.is_some() {
        return Err(Failure::usage("--token and --offset belong to one file"));
    }
    let path = target(client, put, path).await?;
    let bar = progress::bytes(path.to_string(), None);
    client.mkdir(&path.to_string(), true).await?;
    let nodes = stream::iter(LocalTree::open(&put.local)?);
    let done = nodes
        .map(|node| async { put_node(client, put, &path, node?, &bar).await })
        .buffer_unordered(usize::from(put.jobs));
    total(done, path.to_string()).await
}

async fn put_node(
    client: &Client,
    put: &Put,
    path: &WirePath,
    node: LocalNode,
    bar: &ProgressBar,
) -> Outcome<Option<Done>> {
    let at = tree::extend(path, node.names.iter().map(Vec::as_slice))?;
    if node.is_dir {
        client.mkdir(&at.to_string(), true).await?;
        return Ok(None);
    }
    upload_one(client, &node.local, &at, options(put), bar).await.map(Some)
}

// ---- get and cat

pub(super) async fn get(get: Get, door: &Door, output: &mut Output) -> Outcome {
    if is_dash(&get.local) && output.json() {
        return Err(Failure::usage("get to - prints bytes, not JSON"));
    }
    let (client, path) = at(door, &get.path).await?;
    if is_dash(&get.local) {
        return print_file(&client, &path, output).await;
    }
    let found = client.stat(&path.to_string()).await?;
    let local = local_target(&get.local, &path)?;
    let copied = if found.kind == EntryKind::Dir {
        get_tree(&client, &get, &path, &local).await?
    } else {
        let bar = progress::bytes(path.to_string(), Some(found.size));
        let size = transfer::download(&client, &path, &local, &bar).await?;
        Copied {
            path: local.display().to_string(),
            ..Copied::default()
        }
        .add(Done::of(size))
    };
    tell(output, &copied)
}

/// An existing folder takes it under its own name.
fn local_target(local: &Path, path: &WirePath) -> Outcome<PathBuf> {
    match path.name() {
        Some(name) if local.is_dir() => Ok(local.join(OsStr::from_bytes(name))),
        _ => Ok(local.to_owned()),
    }
}

async fn get_tree(client: &Client, get: &Get, path: &WirePath, local: &Path) -> Outcome<Copied> {
    if !get.recursive {
        return Err(Failure::usage(format!("{path}: is a directory; get it with -r")));
    }
    let bar = progress::bytes(path.to_string(), None);
    fs::create_dir_all(local).await.at(local)?;
    let entries = tree::remote(client, path)?;
    let done = entries
        .map(|entry| async { get_entry(client, path, local, entry?, &bar).await })
        .buffer_unordered(usize::from(get.jobs));
    total(done, local.display().to_string()).await
}

async fn get_entry(
    client: &Client,
    root: &WirePath,
    local: &Path,
    entry: Entry,
    bar: &ProgressBar,
) -> Outcome<Option<Done>> {
    let names = tree::below(&entry.path, root).map(OsStr::from_bytes);
    let to = names.fold(local.to_owned(), |to, name| to.join(name));
    if entry.kind == EntryKind::Dir {
        fs::create_dir_all(&to).await.at(&to)?;
        return Ok(None);
    }
    if let Some(parent) = to.parent() {
        // Its own entry may still be under way.
        fs::create_dir_all(parent).await.at(parent)?;
    }
    transfer::download(client, &entry.path, &to, bar)
        .await
        .map(|size| Some(Done::of(size)))
        .map_err(|failure| failure.about(&entry.path))
}

pub(super) async fn cat(paths: Paths, door: &Door, output: &mut Output) -> Outcome {
    if output.json() {
        return Err(Failure::usage("cat prints bytes, not JSON"));
    }
    for text in &paths.paths {
        let (client, path) = at(door, text).await?;
        print_file(&client, &path, output).await?;
    }
    Ok(())
}

async fn print_file(client: &Client, path: &WirePath, output: &mut Output) -> Outcome {
    let mut read = client.read_file(&path.to_string(), None).await?;
    while let Some(bytes) = read.next_bytes().await? {
        output.bytes(&bytes)?;
    }
    Ok(())
}

// ---- cp

pub(super) async fn cp(cp: Cp, door: &Door, output: &mut Output) -> Outcome {
    let (client, from, to) = between(door, &cp.from, &cp.to).await?;
    let found = client.stat(&from.to_string()).await?;
    let to = into_directory(&client, to, &from).await?;
    if to == from || (found.kind == EntryKind::Dir && to.starts_with(&from)) {
        return Err(Failure::usage(format!("{from}: cannot be copied into itself ({to})")));
    }
    let copied = if found.kind == EntryKind::Dir {
        cp_tree(&client, &cp, &from, &to).await?
    } else {
        let bar = progress::bytes(to.to_string(), Some(found.size));
        let size = transfer::copy(&client, &from, (&to, FileOptions::default()), &bar).await?;
        Copied {
            path: to.to_string(),
            ..Copied::default()
        }
        .add(Done::of(size))
    };
    tell(output, &copied)
}

async fn cp_tree(client: &Client, cp: &Cp, from: &WirePath, to: &WirePath) -> Outcome<Copied> {
    if !cp.recursive {
        return Err(Failure::usage(format!("{from}: is a directory; copy it with -r")));
    }
    let bar = progress::bytes(to.to_string(), None);
    client.mkdir(&to.to_string(), true).await?;
    let done = tree::remote(client, from)?
        .map(|entry| async { cp_entry(client, from, to, entry?, &bar).await })
        .buffer_unordered(usize::from(cp.jobs));
    total(done, to.to_string()).await
}

async fn cp_entry(
    client: &Client,
    from: &WirePath,
    to: &WirePath,
    entry: Entry,
    bar: &ProgressBar,
) -> Outcome<Option<Done>> {
    let target = tree::extend(to, tree::below(&entry.path, from))?;
    if entry.kind == EntryKind::Dir {
        client.mkdir(&target.to_string(), true).await?;
        return Ok(None);
    }
    match transfer::copy(client, &entry.path, (&target, FileOptions::default()), bar).await {
        Ok(size) => Ok(Some(Done::of(size))),
        Err(failure) => Err(failure.about(&entry.path)),
    }
}

/// Adds up what was copied; the first failure ends it.
pub(super) async fn total(done: impl Stream<Item = Outcome<Option<Done>>>, path: String) -> Outcome<Copied> {
    let start = Copied {
        path,
        ..Copied::default()
    };
    done.try_fold(start, async |copied, done| {
        Ok(done.into_iter().fold(copied, Copied::add))
    })
    .await
}
