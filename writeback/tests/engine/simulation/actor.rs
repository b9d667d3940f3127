//! An actor has a directory to itself and does one thing after the other there, so what it must find is known, but for the one
//! operation whose outcome it was not told.

use super::{
    model::{Entry, Model, Op},
    run::History,
};
use crate::support::{KEPT, at, get, tree, write};
use forebay_runtime::chance::{Chance, SeededChance};
use forebay_writeback::{
    Cache, Error, ErrorKind,
    file::FileReader,
    names::{Rename, StatKind},
};
use std::{sync::Arc, time::Duration};

#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) name: String,
    /// Its directory.
    pub(crate) root: String,
    pub(crate) model: Model,
    /// The operation under way, or whose outcome is unknown, and what would be true after it.
    pending: Option<(Op, Model)>,
    chance: Arc<SeededChance>,
    serial: u64,
    /// Operations that were acknowledged.
    pub(crate) acked: u64,
}

impl Actor {
    pub(crate) fn new(name: &str, root: String, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            root,
            model: Model::default(),
            pending: None,
            chance: SeededChance::new(seed),
            serial: seed << 20,
            acked: 0,
        }
    }

    /// Acts until the life ends, or until it can not find out what happened.
    pub(crate) async fn act(&mut self, cache: &Cache, history: &History) {
        let mut readers: Vec<(FileReader, Vec<u8>)> = Vec::new();
        loop {
            tokio::time::sleep(Duration::from_micros(self.chance.below(30_000))).await;
            self.serial += 1;
            match self.chance.below(12) {
                0 => drop(cache.free(&at(&self.root)).await),
                1 => self.hold_reader(cache, &mut readers).await,
                2 => self.check_readers(&mut readers).await,
                _ => {
                    let op = Op::random(&*self.chance, &self.model, self.serial);
                    // While the store can not say what it has there, names are given all the same: a file hidden by a directory
                    // is then a conflict for a person, and no history of ours.
                    let unseen = self.root.starts_with(KEPT) && self.model.changes_kind(&op);
                    if !unseen && !self.perform(cache, op, history).await {
                        return;
                    }
                }
            }
        }
    }

    /// Does `op`. False when its outcome can not be found out now.
    async fn perform(&mut self, cache: &Cache, op: Op, history: &History) -> bool {
        let expected = self.model.after(&op);
        self.pending = Some((op.clone(), expected.clone().unwrap_or_else(|_| self.model.clone())));
        let outcome = execute(cache, &self.root, &op).await;
        let kind = outcome.as_ref().map_err(Error::kind).map(drop);
        history.note(&format!("{} {op:?} -> {kind:?}", self.name));
        match (kind, expected) {
            (Ok(()), Ok(after)) => {
                self.model = after;
                self.acked += 1;
            }
            (Err(ErrorKind::DataLoss | ErrorKind::Internal), _) => {
                panic!("{}: {op:?}: {}", self.name, outcome.unwrap_err())
            }
            (Err(ErrorKind::Unavailable | ErrorKind::Deadline | ErrorKind::Full), _) => {
                if self.is_repeatable(&op) && self.repeat(cache, &op, history).await {
                    return true;
                }
                return self.check(cache).await.is_ok();
            }
            (Err(kind), Err(expected)) if kind == expected => {}
            // Below a file that only the under-store has there is nothing; below one of ours there can not be anything.
            (Err(ErrorKind::NotFound), Err(ErrorKind::Precondition)) => {}
            (kind, expected) => {
                let text = outcome.err().map(|error| error.to_string());
                panic!(
                    "{}: {op:?} answered {kind:?} ({text:?}), expected {:?}",
                    self.name,
                    expected.map(drop)
                )
            }
        }
        self.pending = None;
        true
    }

    fn is_repeatable(&self, op: &Op) -> bool {
        matches!(op, Op::Write { token: Some(_), .. }) && self.chance.below(2) == 0
    }

    /// The same write with the same token: whatever happened before, it is true exactly once afterwards.
    async fn repeat(&mut self, cache: &Cache, op: &Op, history: &History) -> bool {
        let outcome = execute(cache, &self.root, op).await;
        history.note(&format!(
            "{} again {op:?} -> {:?}",
            self.name,
            outcome.as_ref().map_err(Error::kind).map(drop)
        ));
        let (true, Ok(after)) = (outcome.is_ok(), self.model.after(op)) else {
            return false;
        };
        self.model = after;
        self.pending = None;
        self.acked += 1;
        true
    }

    /// Compares everything with what must be there. Err when the cache could not say.
    pub(crate) async fn check(&mut self, cache: &Cache) -> Result<(), Error> {
        let found = snapshot(cache, &self.root).await?;
        if let Some((op, after)) = &self.pending {
            if found == *after {
                self.model = after.clone();
            }
            assert!(
                found == self.model,
                "{}: after {op:?}: {}",
                self.name,
                difference(&found, &self.model, Some(after))
            );
            self.pending = None;
        }
        assert!(
            found == self.model,
            "{}: {}",
            self.name,
            difference(&found, &self.model, None)
        );
        Ok(())
    }

    async fn hold_reader(&self, cache: &Cache, readers: &mut Vec<(FileReader, Vec<u8>)>) {
        let count = self.model.files().count();
        if count == 0 {
            return;
        }
        let nth = self.chance.below(count as u64) as usize;
        let (path, bytes) = self.model.files().nth(nth).unwrap();
        match cache.read_file(&at(&format!("{}/{path}", self.root))).await {
            Ok(reader) => readers.push((reader, bytes.clone())),
            Err(error) => assert!(may_fail(&error), "{}: open {path}: {error}", self.name),
        }
        readers.truncate(8);
    }

    async fn check_readers(&self, readers: &mut Vec<(FileReader, Vec<u8>)>) {
        for (reader, bytes) in readers.drain(..) {
            let size = bytes.len() as u64;
            let from = self.chance.below(size + 1);
            assert_eq!(reader.size(), size);
            match reader.read(from..size).await {
                Ok(chunks) => assert!(
                    chunks.concat() == bytes[from as usize..],
                    "{}: a reader lost its content",
                    self.name
                ),
                // Only the store had it, and there it was replaced meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::Precondition | ErrorKind::NotFound) => {}
                Err(error) => assert!(may_fail(&error), "{}: read: {error}", self.name),
            }
        }
    }
}

/// Whether faults explain the error.
pub(crate) fn may_fail(error: &Error) -> bool {
    // A directory's files move to their new place in the store while one of them is read there.
    let moved = error.to_string().ends_with("open it again");
    let kinds = [ErrorKind::Unavailable, ErrorKind::Deadline, ErrorKind::Full];
    moved || kinds.contains(&error.kind())
}

async fn execute(cache: &Cache, root: &str, op: &Op) -> Result<(), Error> {
    let full = |path: &String| at(&format!("{root}/{path}"));
    match op {
        Op::Write { path, bytes, .. } => write(cache, &format!("{root}/{path}"), bytes, op.how()).await.map(drop),
        Op::Truncate { path, size } => cache.truncate(&full(path), *size as u64).await,
        Op::Mkdir { path, parents } => cache.mkdir(&full(path), *parents).await,
        Op::Rename {
            from,
            to,
            replace,
            parents,
        } => {
            let how = Rename {
                replace: *replace,
                parents: *parents,
                ..Rename::default()
            };
            cache.rename(&full(from), &full(to), how).await
        }
        Op::Delete { path, recursive } => cache.delete(&full(path), *recursive).await,
    }
}

async fn snapshot(cache: &Cache, root: &str) -> Result<Model, Error> {
    let mut model = Model::default();
    for stat in tree(cache, root).await? {
        let path = stat.path.to_string();
        let entry = match stat.kind {
            StatKind::Dir => Entry::Dir,
            _ => {
                let bytes = get(cache, &path).await?;
                assert_eq!(bytes.len() as u64, stat.size, "{path}: stat and content differ");
                Entry::File(bytes)
            }
        };
        model.0.insert(path[root.len() + 1..].to_owned(), entry);
    }
    Ok(model)
}

fn difference(found: &Model, before: &Model, after: Option<&Model>) -> String {
    let mut paths: Vec<&String> = found.0.keys().chain(before.0.keys()).collect();
    paths.extend(after.iter().flat_map(|after| after.0.keys()));
    paths.sort();
    paths.dedup();
    let differs = |path: &&&String| {
        let here = found.0.get(**path);
        here != before.0.get(**path) || after.is_some_and(|after| here != after.0.get(**path))
    };
    let lines = paths.iter().filter(differs).map(|path| {
        let after = after.map(|after| after.0.get(*path));
        format!(
            "\n  {path}: found {:?}, was {:?}, would be {after:?}",
            found.0.get(*path),
            before.0.get(*path)
        )
    });
    lines.collect()
}
