//! The files under a folder or directory, one after the other: never all of them in memory.

use crate::failure::{AtFile, Failure, Outcome};
use forebay_client::{Client, Entry, EntryKind, WirePath};
use futures::{Stream, TryStreamExt, future};
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A node of a local folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalNode {
    /// Where it lies.
    pub(super) local: PathBuf,
    /// Its names below the folder that was walked.
    pub(super) names: Vec<Vec<u8>>,
    /// Whether it is a folder.
    pub(super) is_dir: bool,
}

/// Walks a local folder, parents before what is in them. Symbolic links are followed to files, and to folders not at all: a link
/// that leads upwards would never end. Other things (sockets, devices) are an error.
#[derive(Debug)]
pub(super) struct LocalTree {
    open: Vec<(fs::ReadDir, Vec<Vec<u8>>)>,
}

impl LocalTree {
    pub(super) fn open(folder: &Path) -> Outcome<Self> {
        Ok(Self {
            open: vec![(fs::read_dir(folder).at(folder)?, Vec::new())],
        })
    }
}

impl Iterator for LocalTree {
    type Item = Outcome<LocalNode>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (folder, names) = self.open.last_mut()?;
            let Some(entry) = folder.next() else {
                self.open.pop();
                continue;
            };
            let node = entry
                .map_err(|error| Failure::failed(error.to_string()))
                .and_then(|entry| node(&entry, names));
            if let Ok(LocalNode {
                local,
                names,
                is_dir: true,
            }) = &node
            {
                match fs::read_dir(local).at(local) {
                    Ok(folder) => self.open.push((folder, names.clone())),
                    Err(failure) => return Some(Err(failure)),
                }
            }
            return Some(node);
        }
    }
}

fn node(entry: &fs::DirEntry, names: &[Vec<u8>]) -> Outcome<LocalNode> {
    let local = entry.path();
    let kind = entry.file_type().at(&local)?;
    let is_file = kind.is_file() || kind.is_symlink() && fs::metadata(&local).at(&local)?.is_file();
    if !is_file && !kind.is_dir() {
        return Err(Failure::failed(format!(
            "{}: neither a file nor a folder",
            local.display()
        )));
    }
    let names = names
        .iter()
        .cloned()
        .chain([entry.file_name().as_bytes().to_vec()])
        .collect();
    Ok(LocalNode {
        local,
        names,
        is_dir: kind.is_dir(),
    })
}

/// The files and directories under `path`, parents before what is in them.
pub(super) fn remote(client: &Client, path: &WirePath) -> Outcome<impl Stream<Item = Outcome<Entry>> + Send + use<>> {
    let entries = client.list(&path.to_string(), true, None)?;
    Ok(entries
        .map_err(Failure::from)
        .try_filter(|entry| future::ready(entry.kind != EntryKind::Symlink)))
}

/// The names of `path` below `prefix`.
pub(super) fn below<'a>(path: &'a WirePath, prefix: &WirePath) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    path.components().skip(prefix.components().count())
}

/// `path` with `names` below it.
pub(super) fn extend<'a>(path: &WirePath, names: impl IntoIterator<Item = &'a [u8]>) -> Outcome<WirePath> {
    names
        .into_iter()
        .try_fold(path.clone(), |path, name| Ok(path.join(name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_walked_parents_first() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/f"), "1").unwrap();
        fs::write(folder.path().join("g"), "2").unwrap();
        std::os::unix::fs::symlink("g", folder.path().join("link")).unwrap();
        let nodes: Vec<LocalNode> = LocalTree::open(folder.path()).unwrap().map(Result::unwrap).collect();
        let mut names: Vec<String> = nodes
            .iter()
            .map(|node| String::from_utf8(node.names.join(&b'/')).unwrap())
            .collect();
        let at = |name: &str| names.iter().position(|n| n == name).unwrap();
        assert!(at("a") < at("a/b") && at("a/b") < at("a/b/f"));
        names.sort();
        assert_eq!(names, ["a", "a/b", "a/b/f", "g", "link"]);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(LocalTree::open(folder.path()).unwrap().next().unwrap().is_err());
    }
}
