//! `ls`, `stat`, `mkdir`, `mv`, `rm`.

use super::{at, between, relocate};
use crate::{
    args::{Door, Ls, Mkdir, Mv, OnePath, Rm},
    connect,
    failure::{Failure, Outcome},
    output::Output,
};
use forebay_client::{Client, Entry, EntryKind, Error, ErrorKind, WirePath, action::Rename};
use forebay_runtime::units::ByteSize;
use futures::TryStreamExt;
use serde_json::json;
use std::pin::pin;

pub(super) async fn ls(ls: Ls, door: &Door, output: &mut Output) -> Outcome {
    let Ls { path, long, recursive } = ls;
    let (client, path) = at(door, &path).await?;
    let found = client.stat(&path.to_string()).await?;
    let shown = |entry: &Entry| {
        let name = if recursive {
            entry.path.to_string()
        } else {
            name_of(&entry.path)
        };
        let name = if entry.kind == EntryKind::Dir {
            format!("{name}/")
        } else {
            name
        };
        if long {
            format!("{}  {name}", details(entry))
        } else {
            name
        }
    };
    let mut series = output.series();
    if found.kind != EntryKind::Dir {
        series.push(&found, shown)?;
        return series.end();
    }
    let mut entries = pin!(client.list(&path.to_string(), recursive, None)?);
    while let Some(entry) = entries.try_next().await? {
        series.push(&entry, shown)?;
    }
    series.end()
}

pub(super) async fn stat(one: OnePath, door: &Door, output: &mut Output) -> Outcome {
    let (client, path) = at(door, &one.path).await?;
    let entry = client.stat(&path.to_string()).await?;
    output.one(&entry, |entry| {
        let mut lines = vec![
            ("path", entry.path.to_string()),
            ("kind", kind(entry).to_owned()),
            ("size", entry.size.to_string()),
            ("mode", format!("{:04o}", entry.mode)),
            ("mtime", entry.mtime.clone()),
            ("state", entry.state.clone()),
        ];
        lines.extend(entry.version.map(|version| ("version", version.to_string())));
        lines.extend(entry.cached_bytes.map(|bytes| ("cached", bytes.to_string())));
        lines.extend(entry.etag.clone().map(|etag| ("etag", etag)));
        let lines: Vec<String> = lines
            .into_iter()
            .map(|(key, value)| format!("{key:<8} {value}"))
            .collect();
        lines.join("\n")
    })
}

pub(super) async fn mkdir(mkdir: Mkdir, door: &Door, output: &mut Output) -> Outcome {
    let (client, path) = at(door, &mkdir.path).await?;
    client.mkdir(&path.to_string(), mkdir.parents).await?;
    output.one(&json!({ "path": path }), |_| String::new())
}

pub(super) async fn mv(mv: Mv, door: &Door, output: &mut Output) -> Outcome {
    let Mv {
        from,
        to,
        force,
        parents,
        no_target_directory,
    } = mv;
    let (client, from, to) = between(door, &from, &to).await?;
    let to = if no_target_directory {
        to
    } else {
        into_directory(&client, to, &from).await?
    };
    let rename = Rename {
        from: from.clone(),
        to: to.clone(),
        replace: force,
        parents,
    };
    match client.rename_with(rename.clone()).await {
        Ok(()) => output.one(&json!({ "from": from, "to": to }), |_| String::new()),
        Err(error) if error.is_between_stores() => {
            let copied = relocate::relocate(&client, rename).await?;
            output.one(&json!({ "from": from, "to": to, "copied": copied }), |_| String::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether an error says that nothing is there.
pub(super) fn is_absent(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// The path that `from` gets at `to`: an existing directory takes it under its own name.
pub(super) async fn into_directory(client: &Client, to: WirePath, from: &WirePath) -> Outcome<WirePath> {
    let name = from
        .name()
        .ok_or_else(|| Failure::usage("the root can be neither moved nor copied"))?;
    match client.stat(&to.to_string()).await {
        // Onto itself stays onto itself, and is nothing.
        Ok(found) if found.kind == EntryKind::Dir && to != *from => Ok(to.join(name)?),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(to),
    }
}

pub(super) async fn rm(rm: Rm, door: &Door, output: &mut Output) -> Outcome {
    let Rm {
        paths,
        recursive,
        force,
    } = rm;
    // What is no path is told before anything is gone.
    let located = paths.iter().map(|text| connect::locate(door, text));
    let located = located.collect::<Outcome<Vec<_>>>()?;
    let (mut removed, mut failed) = (Vec::new(), None);
    for (door, path) in located {
        let client = connect::connect(&door).await?;
        match client.delete(&path.to_string(), recursive).await {
            Ok(()) => removed.push(path),
            Err(error) if force && is_absent(&error) => {}
            Err(error) => {
                let away = error.kind() == ErrorKind::Unavailable;
                let failure = Failure::from(error);
                failure.print();
                failed.get_or_insert(failure.code());
                if away {
                    break;
                }
            }
        }
    }
    if failed.is_none() || !removed.is_empty() {
        output.one(&json!({ "removed": removed }), |_| String::new())?;
    }
    failed.map_or(Ok(()), |code| Err(Failure::silent(code)))
}

fn name_of(path: &WirePath) -> String {
    let text = path.to_string();
    text.rsplit('/').next().unwrap_or(&text).to_owned()
}

fn kind(entry: &Entry) -> &'static str {
    match entry.kind {
        EntryKind::File => "file",
        EntryKind::Dir => "dir",
        EntryKind::Symlink => "symlink",
    }
}

fn details(entry: &Entry) -> String {
    let size = ByteSize(entry.size).rounded();
    let version = entry.version.map_or(String::new(), |version| format!("v{version}"));
    format!(
        "{:<7} {:04o} {size:>10} {:<9} {version:<5} {}",
        kind(entry),
        entry.mode,
        entry.state,
        entry.mtime
    )
}
