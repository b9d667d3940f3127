//! `mv` from one under-store to another: a copy, and then the source is deleted.
//!
//! 1. Everything is copied, files in parallel; each is acknowledged by the server before the copy counts.
//! 2. The source is walked again. A file is deleted if it is what was copied: by its etag, by its size and time, or else by
//!    comparing both contents. What came or changed meanwhile stays, and its directories with it; then the verb fails and says so.
//!
//! A file travels without mode, owner and times, as with `cp`, and links do not; a dataset arrives as the files of its head version.

use super::{
    copy::{Copied, Done, total},
    names::is_absent,
    transfer, tree,
};
use crate::{
    failure::{Failure, Outcome},
    progress,
};
use forebay_client::{Client, Entry, EntryKind, FileOptions, WirePath, action::Rename};
use forebay_protocol::command::Mode;
use futures::{StreamExt, TryStreamExt, future};
use indicatif::ProgressBar;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
};

/// Files on their way at once.
const JOBS: usize = 16;

/// What was copied, by hashes: 24 bytes a file, so that a tree of millions fits.
#[derive(Debug, Default)]
struct Taken(Mutex<HashMap<u64, (u64, u64)>>);

impl Taken {
    fn note(&self, entry: &Entry) {
        self.0.lock().insert(hash(&entry.path), prints(entry));
    }

    fn has(&self, entry: &Entry) -> Known {
        match self.0.lock().get(&hash(&entry.path)) {
            None => Known::New,
            Some(taken) if taken.0 == prints(entry).0 || taken.1 == prints(entry).1 => Known::Same,
            Some(_) => Known::Unclear,
        }
    }
}

/// What a file of the source is to the copy.
enum Known {
    /// It came after the copy.
    New,
    /// It is what was copied.
    Same,
    /// Its names for its content are others now: it was changed, or only persisted.
    Unclear,
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn prints(entry: &Entry) -> (u64, u64) {
    (hash(&entry.etag), hash(&(&entry.mtime, entry.size)))
}

/// Moves what a rename refused to move.
pub(super) async fn relocate(client: &Client, how: Rename) -> Outcome<Copied> {
    let Rename {
        from,
        to,
        replace,
        parents,
    } = how;
    let found = client.stat(&from.to_string()).await?;
    make_room(client, &found, &to, replace, parents).await?;
    let mode = if replace { Mode::Overwrite } else { Mode::Create };
    let taken = Taken::default();
    let bar = progress::bytes(format!("{from} to {to}"), None);
    let copied = match found.kind {
        EntryKind::Dir => {
            let done = tree::remote(client, &from)?
                .map(|entry| async { take(client, (&from, &to), entry?, mode, (&taken, &bar)).await })
                .buffer_unordered(JOBS);
            total(done, to.to_string()).await?
        }
        _ => {
            let done = future::ready(take(client, (&from, &to), found.clone(), mode, (&taken, &bar)).await);
            total(futures::stream::once(done), to.to_string()).await?
        }
    };
    let kept = match found.kind {
        EntryKind::Dir => clear_tree(client, (&from, &to), &taken).await?,
        _ => u64::from(!clear(client, (&from, &to), &client.stat(&from.to_string()).await?, &taken).await?),
    };
    match kept {
        0 => Ok(copied),
        kept => Err(Failure::failed(format!(
            "{from}: {kept} files stay: they came or changed while it was copied to {to}, or are links, which are not copied"
        ))),
    }
}

/// The target's directory, or what is refused as a rename would.
async fn make_room(client: &Client, found: &Entry, to: &WirePath, replace: bool, parents: bool) -> Outcome {
    let text = to.to_string();
    let there = match client.stat(&text).await {
        Ok(there) => Some(there),
        Err(error) if is_absent(&error) => None,
        Err(error) => return Err(error.into()),
    };
    match (there, found.kind) {
        (Some(_), _) if !replace => Err(Failure::exists(format!("{to}: exists; move over it with --force"))),
        (Some(there), EntryKind::Dir) if there.kind != EntryKind::Dir => {
            Err(Failure::exists(format!("{to}: is no directory, {} is one", found.path)))
        }
        (Some(there), kind) if kind != EntryKind::Dir && there.kind == EntryKind::Dir => {
            Err(Failure::exists(format!("{to}: is a directory, {} is none", found.path)))
        }
        (Some(_), EntryKind::Dir) => {
            let mut entries = pin!(client.list(&text, false, None)?);
            match entries.try_next().await? {
                Some(_) => Err(Failure::exists(format!("{to}: directory not empty"))),
                None => Ok(()),
            }
        }
        (None, EntryKind::Dir) => Ok(client.mkdir(&text, parents).await?),
        // A put makes missing parents, a rename does not.
        (None, _) if !parents => match to.parent() {
            Some(parent) => Ok(client.stat(&parent.to_string()).await.map(drop)?),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

async fn take(
    client: &Client,
    (from, to): (&WirePath, &WirePath),
    entry: Entry,
    mode: Mode,
    (taken, bar): (&Taken, &ProgressBar),
) -> Outcome<Option<Done>> {
    let target = tree::extend(to, tree::below(&entry.path, from))?;
    if entry.kind == EntryKind::Dir {
        client.mkdir(&target.to_string(), true).await?;
        return Ok(None);
    }
    let options = FileOptions {
        mode,
        ..FileOptions::default()
    };
    let size = transfer::copy(client, &entry.path, (&target, options), bar).await;
    let size = size.map_err(|failure| failure.about(&entry.path))?;
    // It was listed before it was read: had it changed in between, size and time tell.
    if size != entry.size {
        return Err(Failure::failed(format!("{}: changed while it was copied", entry.path)));
    }
    taken.note(&entry);
    Ok(Some(Done::of(size)))
}

/// Deletes what was copied; says how many files stay.
async fn clear_tree(client: &Client, (from, to): (&WirePath, &WirePath), taken: &Taken) -> Outcome<u64> {
    let entries = client.list(&from.to_string(), true, None)?.map_err(Failure::from);
    let (mut dirs, mut kept) = (vec![from.clone()], 0);
    let mut cleared = pin!(
        entries
            .map_ok(|entry| async move {
                match entry.kind {
                    EntryKind::Dir => Ok((Some(entry.path), true)),
                    EntryKind::Symlink => Ok((None, false)),
                    EntryKind::File => Ok((None, clear(client, (from, to), &entry, taken).await?)),
                }
            })
            .try_buffer_unordered(JOBS)
    );
    while let Some((dir, gone)) = cleared.try_next().await? {
        dirs.extend(dir);
        kept += u64::from(!gone);
    }
    // The deepest first; one that still holds something stays.
    dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    for dir in dirs {
        match client.delete(&dir.to_string(), false).await {
            Ok(()) => {}
            Err(error) if is_absent(&error) => {}
            Err(_) if kept > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(kept)
}

/// Deletes one file if it is what was copied; says whether it went.
async fn clear(client: &Client, (from, to): (&WirePath, &WirePath), entry: &Entry, taken: &Taken) -> Outcome<bool> {
    let same = match taken.has(entry) {
        Known::New => false,
        Known::Same => true,
        Known::Unclear => {
            let target = tree::extend(to, tree::below(&entry.path, from))?;
            transfer::equal(client, &entry.path, &target).await?
        }
    };
    if same {
        client.delete(&entry.path.to_string(), false).await?;
    }
    Ok(same)
}
