//! Directories, renames, deletes, links.
//!
//! RENAME is the engine's: one commit for a file or a whole directory. Without options it is HDFS's older rename, which moves into a
//! directory that is there, and answers `false` where it will not; with options it is the stricter one, which says why.

use super::{
    Answer, Call, boolean, done,
    error::{Exception, Fault},
    json_answer,
};
use crate::auth::Right;
use forebay_writeback::{
    Error, ErrorKind, Mismatch, Path,
    names::{Make, Rename, StatKind},
};
use serde_json::json;

/// Permission bits of a directory that names none.
const PERMISSION: u32 = 0o755;

/// MKDIRS.
pub(super) async fn mkdirs(call: Call) -> Answer {
    call.may_write()?;
    let mode = call.query.permission("permission")?.unwrap_or(PERMISSION);
    if call.path.is_root() {
        return boolean(true);
    }
    let (uid, gid) = call.owner().await?.unwrap_or_default();
    let make = Make {
        parents: true,
        mode,
        uid,
        gid,
        ..Make::dir()
    };
    match call.cache().make(&call.path, make).await {
        Err(e) if e.kind() == ErrorKind::Exists => {
            let text = format!("Path is not a directory: {}", call.wire);
            Err(Fault::new(Exception::FileAlreadyExists, text))
        }
        made => {
            made?;
            boolean(true)
        }
    }
}

/// RENAME.
pub(super) async fn rename(call: Call) -> Answer {
    call.may_write()?;
    let to = call.query.path("destination")?;
    call.by.may(Right::Write, &to)?;
    let to = Path::parse(to.as_bytes()).map_err(|e| Fault::parameter("destination", &e.to_string()))?;
    match call.query.text("renameoptions")? {
        None => boolean(moved(&call, to).await?),
        Some(options) => {
            let replace = replaces(options)?;
            rename_strictly(&call, &to, replace).await?;
            done()
        }
    }
}

/// Whether the older rename moved it.
async fn moved(call: &Call, to: Path) -> Result<bool, Fault> {
    let Some(from) = call.stat_of(&call.path).await? else {
        return Ok(false);
    };
    let Some(name) = call.path.name() else { return Ok(false) };
    if to != call.path && to.starts_with(&call.path) {
        return Ok(false);
    }
    let to = match call.cache().stat(&to).await {
        Ok(there) if there.kind == StatKind::Dir => to
            .join(name)
            .map_err(|e| Fault::parameter("destination", &e.to_string()))?,
        Ok(_) => return Ok(to == call.path && from.kind != StatKind::Dir),
        Err(e) if e.kind() == ErrorKind::NotFound => to,
        Err(e) => return Err(e.into()),
    };
    if to == call.path || to.starts_with(&call.path) {
        return Ok(to == call.path);
    }
    match call.cache().rename(&call.path, &to, Rename::default()).await {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Exists) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// What the options of a RENAME say.
fn replaces(options: &str) -> Result<bool, Fault> {
    let mut replace = false;
    for option in options.split(',') {
        match option.trim().to_ascii_uppercase().as_str() {
            "OVERWRITE" => replace = true,
            "NONE" | "TO_TRASH" => {}
            _ => {
                return Err(Fault::parameter(
                    "renameoptions",
                    "options are NONE, OVERWRITE and TO_TRASH",
                ));
            }
        }
    }
    Ok(replace)
}

async fn rename_strictly(call: &Call, to: &Path, replace: bool) -> Result<(), Fault> {
    if call.stat_of(&call.path).await?.is_none() {
        return Err(Fault::missing(&call.wire));
    }
    if *to == call.path {
        let text = format!("The source {} and destination {to} are the same", call.wire);
        return Err(Fault::new(Exception::FileAlreadyExists, text));
    }
    let how = Rename {
        replace,
        ..Rename::default()
    };
    let renamed = call.cache().rename(&call.path, to, how).await;
    renamed.map_err(|error| refused_rename(error, to))
}

/// A file and a directory can not take each other's place; that is no matter of parents.
fn refused_rename(error: Error, to: &Path) -> Fault {
    match (error.mismatch(), error.kind()) {
        (Some(Mismatch::IsADirectory | Mismatch::NotEmpty), _) => Fault::new(Exception::Io, error.to_string()),
        (None, ErrorKind::NotFound) => Fault::new(
            Exception::FileNotFound,
            format!("rename destination parent of {to} not found ({error})"),
        ),
        (None, ErrorKind::Invalid) => Fault::new(Exception::Io, error.to_string()),
        _ => error.into(),
    }
}

/// DELETE: `false` where nothing is. The root stays.
pub(super) async fn delete(call: Call) -> Answer {
    call.may_write()?;
    let recursive = call.query.flag("recursive", false)?;
    if call.path.is_root() {
        let empty = call.cache().list_page(&call.path, None, 1).await?.is_empty();
        return if recursive || empty {
            boolean(false)
        } else {
            Err(not_empty("/"))
        };
    }
    match call.cache().delete(&call.path, recursive).await {
        Ok(()) => boolean(true),
        Err(e) if e.kind() == ErrorKind::NotFound || e.mismatch() == Some(Mismatch::NotADirectory) => boolean(false),
        Err(e) if e.mismatch() == Some(Mismatch::NotEmpty) => Err(not_empty(&call.wire.to_string())),
        Err(e) => Err(e.into()),
    }
}

fn not_empty(path: &str) -> Fault {
    Fault::new(
        Exception::PathIsNotEmptyDirectory,
        format!("`{path} is non empty': Directory is not empty"),
    )
}

/// GETLINKTARGET.
pub(super) async fn link_target(call: Call) -> Answer {
    call.may_read()?;
    match call.stat().await?.target {
        Some(target) => json_answer(json!({"Path": String::from_utf8_lossy(&target)})),
        None => Err(Fault::new(
            Exception::Io,
            format!("{} is not a symbolic link", call.wire),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_whether_a_target_gives_way() {
        assert!(replaces("OVERWRITE").unwrap() && replaces("none,overwrite").unwrap());
        assert!(!replaces("NONE").unwrap());
        assert!(replaces("ALWAYS").is_err());
    }
}
