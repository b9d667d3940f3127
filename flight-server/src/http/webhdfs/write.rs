//! CREATE, APPEND, TRUNCATE, CONCAT.
//!
//! The first request of CREATE and APPEND says what is wrong with it and is sent on; the second brings the bytes. They go to the engine in
//! pieces as they come, so that a writer costs one piece of memory, waits at the dirty limit like every other, and TCP slows its client.
//! What was sent becomes visible whole with the answer, durable at the server's level; a client that breaks off leaves nothing.

use super::{
    Answer, Call, boolean, done,
    error::{Exception, Fault},
};
use crate::{auth::Right, http::metrics};
use axum::{body::Body, response::IntoResponse};
use bytes::Bytes;
use forebay_protocol::path::WirePath;
use forebay_writeback::{
    Path,
    file::{FileWriter, WriteFile, WriteMode},
    names::{Stat, StatKind},
};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use std::time::Duration;
use tokio::time::timeout;

/// Bytes given to the engine at once.
const PIECE: usize = 256 << 10;
/// Programs keep a file open while they compute; a client from whom nothing comes for this long is gone.
const STALL_MAX: Duration = Duration::from_secs(3600);
/// What is still taken of a body after a refusal, so that the client reads the refusal before it finds the connection closed.
const DRAIN_BYTES_MAX: usize = 16 << 20;
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Permission bits of a file that names none.
const PERMISSION: u32 = 0o644;

/// What a CREATE asks for.
#[derive(Clone, Copy, Debug)]
struct New {
    overwrite: bool,
    parents: bool,
    permission: u32,
}

impl New {
    fn read(call: &Call) -> Result<Self, Fault> {
        let overwrite = match call.query.text("createflag")? {
            None => call.query.flag("overwrite", false)?,
            Some(flags) => overwrites(flags)?,
        };
        Ok(Self {
            overwrite,
            parents: call.query.flag("createparent", true)?,
            permission: call.query.permission("permission")?.unwrap_or(PERMISSION),
        })
    }
}

/// What the flags of a CREATE say: `CREATE,OVERWRITE`.
fn overwrites(flags: &str) -> Result<bool, Fault> {
    let mut overwrite = false;
    for flag in flags.split(',') {
        match flag.trim().to_ascii_uppercase().as_str() {
            "OVERWRITE" => overwrite = true,
            // Whoever is told that all is written has it written and synced.
            "CREATE" | "SYNC_BLOCK" | "LAZY_PERSIST" | "NEW_BLOCK" | "NO_LOCAL_WRITE" | "SHOULD_REPLICATE" => {}
            "IGNORE_CLIENT_LOCALITY" | "NO_LOCAL_RACK" => {}
            "APPEND" => return Err(Fault::parameter("createflag", "APPEND is an operation of its own")),
            _ => return Err(Fault::parameter("createflag", "flags are CREATE and OVERWRITE")),
        }
    }
    Ok(overwrite)
}

/// CREATE.
pub(super) async fn create(call: Call, body: Body) -> Answer {
    call.may_write()?;
    let new = New::read(&call)?;
    let checked = check_new(&call, new).await;
    if !call.query.flag("data", false)? {
        checked?;
        return call.redirect("data=true");
    }
    if let Err(fault) = checked {
        drain(body).await;
        return Err(fault);
    }
    let how = WriteFile {
        mode: if new.overwrite {
            WriteMode::Overwrite
        } else {
            WriteMode::Create
        },
        mode_bits: Some(new.permission),
        owner: call.owner().await?,
        size_hint: call.content_length(),
        needs_directory: !new.parents,
        ..WriteFile::default()
    };
    write(&call, how, body).await?;
    let location = format!(
        "{}{}",
        call.origin.hadoop_url(),
        call.head.uri.path().trim_start_matches(super::PREFIX)
    );
    let location = HeaderValue::from_str(&location).unwrap_or(HeaderValue::from_static("/"));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)]).into_response())
}

/// Says early what the commit would say late. What can not be found out now, it will.
async fn check_new(call: &Call, new: New) -> Result<(), Fault> {
    let there = match call.stat_of(&call.path).await {
        Err(fault) if fault.exception() == Exception::Retriable && new.overwrite => return Ok(()),
        there => there?,
    };
    match there {
        Some(stat) if stat.kind == StatKind::Dir => {
            let text = format!("{} already exists as a directory", call.wire);
            Err(Fault::new(Exception::FileAlreadyExists, text))
        }
        Some(_) if !new.overwrite => {
            let text = format!("{} already exists; overwrite it, or choose another name", call.wire);
            Err(Fault::new(Exception::FileAlreadyExists, text))
        }
        Some(_) => Ok(()),
        None => check_parent(call, new.parents).await,
    }
}

/// A directory must be there to create in, or the first thing above that is there must be one.
async fn check_parent(call: &Call, parents: bool) -> Result<(), Fault> {
    let mut above = call.path.parent();
    while let Some(dir) = above {
        match call.stat_of(&dir).await? {
            Some(Stat {
                kind: StatKind::Dir, ..
            }) => return Ok(()),
            Some(_) => {
                let text = format!("Parent path is not a directory: {dir}");
                return Err(Fault::new(Exception::ParentNotDirectory, text));
            }
            None if parents => above = dir.parent(),
            None => {
                let text = format!("Parent directory doesn't exist: {dir}");
                return Err(Fault::new(Exception::FileNotFound, text));
            }
        }
    }
    Ok(())
}

/// APPEND.
pub(super) async fn append(call: Call, body: Body) -> Answer {
    call.may_write()?;
    let checked = check_file(&call).await;
    if !call.query.flag("data", false)? {
        checked?;
        return call.redirect("data=true");
    }
    if let Err(fault) = checked {
        drain(body).await;
        return Err(fault);
    }
    let how = WriteFile {
        mode: WriteMode::Append,
        needs_file: true,
        ..WriteFile::default()
    };
    write(&call, how, body).await?;
    done()
}

/// There must be a file to change.
async fn check_file(call: &Call) -> Result<Stat, Fault> {
    let stat = call.stat().await?;
    if stat.kind != StatKind::File {
        let text = format!("Path is not a file: {}", call.wire);
        return Err(Fault::new(Exception::FileNotFound, text));
    }
    Ok(stat)
}

/// TRUNCATE: to no more than it has.
pub(super) async fn truncate(call: Call) -> Answer {
    call.may_write()?;
    let size = call.query.count("newlength")?;
    let size = size.ok_or_else(|| Fault::parameter("newlength", "it is missing"))?;
    let stat = check_file(&call).await?;
    if size > stat.size {
        let text = format!(
            "Cannot truncate to a larger file size. Current size: {}, truncate size: {size}",
            stat.size
        );
        return Err(Fault::new(Exception::IllegalArgument, text));
    }
    call.cache().truncate(&call.path, size).await?;
    boolean(true)
}

/// CONCAT.
pub(super) async fn concat(call: Call) -> Answer {
    call.may_write()?;
    let sources: Vec<WirePath> = call.query.paths("sources")?;
    for source in &sources {
        call.by.may(Right::Write, source)?;
        call.by.may(Right::Read, source)?;
    }
    let sources = sources.iter().map(|source| Path::parse(source.as_bytes()));
    let sources = sources.collect::<Result<Vec<_>, _>>();
    let sources = sources.map_err(|error| Fault::parameter("sources", &error.to_string()))?;
    call.cache().concat(&call.path, &sources).await?;
    done()
}

/// Writes the body as `how` says, and commits.
async fn write(call: &Call, how: WriteFile, body: Body) -> Result<(), Fault> {
    let mut writer = match call.cache().write_file(&call.path, how).await {
        Ok(writer) => writer,
        Err(error) => {
            drain(body).await;
            return Err(error.into());
        }
    };
    receive(body, &mut writer).await?;
    writer.commit().await?;
    Ok(())
}

/// Takes the body in.
async fn receive(body: Body, writer: &mut FileWriter) -> Result<(), Fault> {
    let mut chunks = body.into_data_stream();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    loop {
        let next = timeout(STALL_MAX, chunks.next()).await.map_err(|_| stalled())?;
        match next {
            Some(Ok(chunk)) => {
                metrics::webhdfs().received_bytes.increment(chunk.len() as u64);
                bytes += chunk.len();
                piece.push(chunk);
            }
            Some(Err(error)) => return Err(broken_off(&error)),
            None => break,
        }
        if bytes >= PIECE {
            bytes = 0;
            if let Err(error) = writer.append(std::mem::take(&mut piece)).await {
                drain_stream(chunks).await;
                return Err(error.into());
            }
        }
    }
    if !piece.is_empty() {
        writer.append(piece).await?;
    }
    Ok(())
}

fn broken_off(error: &axum::Error) -> Fault {
    Fault::new(
        Exception::Io,
        format!("the client broke off: {error}; nothing was written"),
    )
}

fn stalled() -> Fault {
    let text = format!("nothing came for {} s; nothing was written", STALL_MAX.as_secs());
    Fault::new(Exception::Io, text)
}

/// Takes a little more of a body that nobody wants any more.
async fn drain(body: Body) {
    drain_stream(body.into_data_stream()).await;
}

async fn drain_stream(mut chunks: impl futures::Stream<Item = Result<Bytes, axum::Error>> + Unpin) {
    let mut left = DRAIN_BYTES_MAX;
    let taken = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // However it ended, what came does not matter.
    let _ = timeout(DRAIN_MAX, taken).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_whether_to_overwrite() {
        assert!(overwrites("CREATE,OVERWRITE").unwrap() && overwrites("overwrite").unwrap());
        assert!(!overwrites("CREATE").unwrap());
        assert!(overwrites("CREATE,APPEND").is_err() && overwrites("nix").is_err());
    }
}
