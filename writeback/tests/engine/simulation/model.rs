//! What a cache is: a map from paths to files and directories. Every operation either changes it or is refused with a kind.

use crate::support::mode;
use forebay_runtime::chance::Chance;
use forebay_writeback::{
    ErrorKind,
    file::{WriteFile, WriteMode},
};
use std::{collections::BTreeMap, fmt};

/// A file's bytes, or a directory.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Dir,
    File(Vec<u8>),
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Dir => f.write_str("dir"),
            Entry::File(bytes) => write!(f, "{} bytes {:?}", bytes.len(), bytes.get(..4.min(bytes.len()))),
        }
    }
}

/// Everything below an actor's root, by path relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model(pub BTreeMap<String, Entry>);

/// What an actor does.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Write {
        path: String,
        bytes: Vec<u8>,
        mode: WriteMode,
        offset: Option<u64>,
        token: Option<String>,
    },
    Truncate {
        path: String,
        size: usize,
    },
    Mkdir {
        path: String,
        parents: bool,
    },
    Rename {
        from: String,
        to: String,
        replace: bool,
        parents: bool,
    },
    Delete {
        path: String,
        recursive: bool,
    },
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Write {
                path,
                bytes,
                mode,
                offset,
                token,
            } => {
                write!(
                    f,
                    "write {path} {} bytes {mode:?} at {offset:?} token {token:?}",
                    bytes.len()
                )
            }
            Op::Truncate { path, size } => write!(f, "truncate {path} to {size}"),
            Op::Mkdir { path, parents } => write!(f, "mkdir {path} parents {parents}"),
            Op::Rename {
                from,
                to,
                replace,
                parents,
            } => {
                write!(f, "rename {from} to {to} replace {replace} parents {parents}")
            }
            Op::Delete { path, recursive } => write!(f, "delete {path} recursive {recursive}"),
        }
    }
}

impl Op {
    /// Something that mostly makes sense; `serial` is never the same twice.
    pub(crate) fn random(chance: &dyn Chance, model: &Model, serial: u64) -> Op {
        let path = pick_path(chance, model);
        match chance.below(20) {
            0..=8 => {
                let mode = [
                    WriteMode::Overwrite,
                    WriteMode::Overwrite,
                    WriteMode::Append,
                    WriteMode::Create,
                ];
                let mode = mode[below(chance, mode.len())];
                let present = model.size(&path);
                let offset = (mode == WriteMode::Append && chance.below(3) == 0).then(|| present + chance.below(2));
                let token = (chance.below(2) == 0).then(|| format!("t{serial}"));
                Op::Write {
                    path,
                    bytes: content(chance, serial),
                    mode,
                    offset,
                    token,
                }
            }
            9..=10 => Op::Truncate {
                path,
                size: below(chance, 100_000),
            },
            11..=12 => Op::Mkdir {
                path,
                parents: chance.below(2) == 0,
            },
            13..=16 => {
                let to = pick_path(chance, model);
                Op::Rename {
                    from: path,
                    to,
                    replace: chance.below(2) == 0,
                    parents: chance.below(2) == 0,
                }
            }
            _ => Op::Delete {
                path,
                recursive: chance.below(3) == 0,
            },
        }
    }

    pub(crate) fn how(&self) -> WriteFile {
        match self {
            Op::Write {
                mode: how,
                offset,
                token,
                ..
            } => WriteFile {
                offset: *offset,
                token: token.clone(),
                ..mode(*how)
            },
            _ => WriteFile::default(),
        }
    }
}

fn below(chance: &dyn Chance, bound: usize) -> usize {
    chance.below(bound as u64) as usize
}

/// Mostly something that is there, else one of a few names.
fn pick_path(chance: &dyn Chance, model: &Model) -> String {
    if !model.0.is_empty() && chance.below(5) < 3 {
        let nth = below(chance, model.0.len());
        return model.0.keys().nth(nth).unwrap().clone();
    }
    let depth = 1 + below(chance, 3);
    let names: Vec<&str> = (0..depth).map(|_| ["a", "b", "c", "d"][below(chance, 4)]).collect();
    names.join("/")
}

fn content(chance: &dyn Chance, serial: u64) -> Vec<u8> {
    let size = match chance.below(10) {
        0 => 0,
        1..=6 => below(chance, 300),
        7..=8 => below(chance, 50_000),
        _ => 60_000 + below(chance, 100_000),
    };
    let mut bytes: Vec<u8> = serial.to_le_bytes().iter().copied().cycle().take(size).collect();
    bytes
        .iter_mut()
        .enumerate()
        .for_each(|(at, byte)| *byte ^= (at / 8 % 253) as u8);
    bytes
}

impl Model {
    fn size(&self, path: &str) -> u64 {
        match self.0.get(path) {
            Some(Entry::File(bytes)) => bytes.len() as u64,
            _ => 0,
        }
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.keys().map(|path| self.size(path)).sum()
    }

    /// The files.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.0.iter().filter_map(|(path, entry)| match entry {
            Entry::File(bytes) => Some((path, bytes)),
            Entry::Dir => None,
        })
    }

    /// Whether `op` would make a directory where a file is, or a file where a directory is.
    pub(crate) fn changes_kind(&self, op: &Op) -> bool {
        let below_file = |path: &str| parents(path).any(|parent| matches!(self.0.get(parent), Some(Entry::File(_))));
        match op {
            Op::Write { path, .. } => below_file(path) || self.0.get(path) == Some(&Entry::Dir),
            Op::Mkdir { path, .. } => below_file(path) || matches!(self.0.get(path), Some(Entry::File(_))),
            Op::Rename { to, .. } => below_file(to),
            Op::Truncate { .. } | Op::Delete { .. } => false,
        }
    }

    /// What it is after `op`, or why `op` is refused.
    pub(crate) fn after(&self, op: &Op) -> Result<Model, ErrorKind> {
        let mut next = self.clone();
        match op {
            Op::Write {
                path,
                bytes,
                mode,
                offset,
                ..
            } => next.write(path, bytes, *mode, *offset)?,
            Op::Truncate { path, size } => match next.look(path)? {
                None => return Err(ErrorKind::NotFound),
                Some(Entry::Dir) => return Err(ErrorKind::Precondition),
                Some(Entry::File(_)) => {
                    let Some(Entry::File(bytes)) = next.0.get_mut(path) else {
                        unreachable!()
                    };
                    bytes.resize(*size, 0);
                }
            },
            Op::Mkdir { path, parents } => next.mkdir(path, *parents)?,
            Op::Rename {
                from,
                to,
                replace,
                parents,
            } => next.rename(from, to, *replace, *parents)?,
            Op::Delete { path, recursive } => next.delete(path, *recursive)?,
        }
        Ok(next)
    }

    /// What is at `path`; Precondition below a file.
    fn look(&self, path: &str) -> Result<Option<&Entry>, ErrorKind> {
        for parent in parents(path) {
            match self.0.get(parent) {
                Some(Entry::File(_)) => return Err(ErrorKind::Precondition),
                Some(Entry::Dir) => {}
                None => return Ok(None),
            }
        }
        Ok(self.0.get(path))
    }

    fn make_parents(&mut self, path: &str, create: bool) -> Result<(), ErrorKind> {
        for parent in parents(path) {
            match self.0.get(parent) {
                Some(Entry::File(_)) => return Err(ErrorKind::Precondition),
                Some(Entry::Dir) => {}
                None if create => drop(self.0.insert(parent.to_owned(), Entry::Dir)),
                None => return Err(ErrorKind::NotFound),
            }
        }
        Ok(())
    }

    fn write(&mut self, path: &str, bytes: &[u8], mode: WriteMode, offset: Option<u64>) -> Result<(), ErrorKind> {
        self.make_parents(path, true)?;
        let mut content = match self.0.get(path) {
            Some(Entry::Dir) => return Err(ErrorKind::Precondition),
            Some(Entry::File(_)) if mode == WriteMode::Create => return Err(ErrorKind::Exists),
            Some(Entry::File(old)) => old.clone(),
            None => Vec::new(),
        };
        if offset.is_some_and(|offset| offset != content.len() as u64) {
            return Err(ErrorKind::Precondition);
        }
        if mode != WriteMode::Append {
            content.clear();
        }
        content.extend(bytes);
        self.0.insert(path.to_owned(), Entry::File(content));
        Ok(())
    }

    fn mkdir(&mut self, path: &str, create: bool) -> Result<(), ErrorKind> {
        self.make_parents(path, create)?;
        match self.0.get(path) {
            Some(Entry::Dir) if create => Ok(()),
            Some(_) => Err(ErrorKind::Exists),
            None => {
                self.0.insert(path.to_owned(), Entry::Dir);
                Ok(())
            }
        }
    }

    fn has_children(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.0
            .range(prefix.clone()..)
            .next()
            .is_some_and(|(found, _)| found.starts_with(&prefix))
    }

    fn delete(&mut self, path: &str, recursive: bool) -> Result<(), ErrorKind> {
        match self.look(path)? {
            None => return Err(ErrorKind::NotFound),
            Some(Entry::Dir) if !recursive && self.has_children(path) => return Err(ErrorKind::Precondition),
            Some(_) => {}
        }
        let prefix = format!("{path}/");
        self.0.retain(|found, _| found != path && !found.starts_with(&prefix));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str, replace: bool, create: bool) -> Result<(), ErrorKind> {
        let prefix = format!("{from}/");
        if to.starts_with(&prefix) {
            return Err(ErrorKind::Invalid);
        }
        let source = self.look(from)?.cloned().ok_or(ErrorKind::NotFound)?;
        if from == to {
            return Ok(());
        }
        self.make_parents(to, create)?;
        match (&source, self.0.get(to)) {
            (_, None) => {}
            (_, Some(_)) if !replace => return Err(ErrorKind::Exists),
            (Entry::File(_), Some(Entry::File(_))) => {}
            (Entry::Dir, Some(Entry::Dir)) if !self.has_children(to) => {}
            _ => return Err(ErrorKind::Precondition),
        }
        let moved = |path: &String| path == from || path.starts_with(&prefix);
        let paths: Vec<String> = self.0.keys().filter(|path| moved(path)).cloned().collect();
        for path in paths {
            let entry = self.0.remove(&path).unwrap();
            self.0.insert(format!("{to}{}", &path[from.len()..]), entry);
        }
        Ok(())
    }
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}
