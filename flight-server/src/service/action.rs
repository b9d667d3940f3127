//! DoAction and ListActions: everything that is neither reading nor writing batches. Bodies and results are the protocol's; here
//! is who may, and which call of the engine it is.

mod policy;
mod residence;

use super::{Answer, Call, Door, engine, sessions};
use crate::{
    FolderMode,
    auth::{Principal, Right},
    error, http,
    reply::Said,
};
use arrow_flight::{Action, ActionType, Result as ActionResult};
use forebay_protocol::{
    action::{self, ACTIONS, Done, How, Request, With, WithTasks},
    command::Compression,
    path::WirePath,
};
use forebay_writeback::{
    Error, ErrorKind, Path,
    dataset::{Member, PUBLISH_SESSIONS_MAX, SessionSpec},
    names::{List, Rename},
    persist::Resolve,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tonic::{Code, Status};

/// How long `wait_persisted` waits when it is not told.
const PERSIST_WAIT: Duration = Duration::from_secs(30);
/// How long `persist` with `wait` waits.
const PERSIST_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// ListActions.
pub(super) fn list() -> Result<Answer, Status> {
    let said = ACTIONS.iter().map(|doc| {
        Said::message(&ActionType {
            r#type: doc.name.to_owned(),
            description: doc.description.to_owned(),
        })
    });
    Ok(Answer::many(stream::iter(said.collect::<Vec<_>>())))
}

/// DoAction.
pub(super) async fn action(door: Arc<Door>, call: Call) -> Result<Answer, Status> {
    let Action { r#type: name, body } = call.messages.only().await?;
    let request = Request::parse(&name, &body).map_err(error::action)?;
    tracing::debug!(action = name, "acts");
    let by = call.principal;
    match request {
        Request::Mkdir(body) => {
            let path = writable(&by, &body.path)?;
            done(
                &door,
                "mkdir",
                |cache| async move { cache.mkdir(&path, body.parents).await },
            )
            .await
        }
        Request::List(body) => entries(&door, &by, body),
        Request::Stat(body) => {
            let path = readable(&by, &body.path)?;
            let (stat, xattrs) = door.cache.stat_with_xattrs(&path).await.map_err(error::engine)?;
            one(&action::Entry {
                attributes: engine::attributes(xattrs),
                ..engine::entry(&stat)?
            })
        }
        Request::Rename(body) => {
            let (from, to) = (writable(&by, &body.from)?, writable(&by, &body.to)?);
            let how = Rename {
                replace: body.replace,
                parents: body.parents,
                ..Rename::default()
            };
            done(
                &door,
                "rename",
                |cache| async move { cache.rename(&from, &to, how).await },
            )
            .await
        }
        Request::Delete(body) => {
            let path = writable(&by, &body.path)?;
            done(&door, "delete", |cache| async move {
                cache.delete(&path, body.recursive).await
            })
            .await
        }
        Request::Truncate(body) => {
            let path = writable(&by, &body.path)?;
            done(&door, "truncate", |cache| async move {
                cache.truncate(&path, body.size).await
            })
            .await
        }
        Request::Begin(body) => begin(&door, &by, body).await,
        Request::Publish(body) => publish(&door, &by, body).await,
        Request::Abort(body) => {
            let session = sessions::writable(&door, &by, &body.session).await?;
            done(&door, "abort", |cache| async move { cache.abort(&session).await }).await
        }
        Request::Versions(body) => versions(&door, &readable(&by, &body.path)?).await,
        Request::Persist(body) => persist(&door, &by, body).await,
        Request::WaitPersisted(body) => {
            let timeout = body.timeout.map_or(PERSIST_WAIT, |span| span.0);
            wait_persisted(&door, &readable(&by, &body.path)?, timeout).await
        }
        Request::PersistResolve(body) => {
            let path = writable(&by, &body.path)?;
            let how = match body.how {
                How::Retry => Resolve::Retry,
                How::KeepMine => Resolve::KeepMine,
                How::KeepTheirs => Resolve::KeepTheirs,
            };
            done(&door, "persist_resolve", |cache| async move {
                cache.persist_resolve(&path, how).await
            })
            .await
        }
        Request::Status(_) => one(&http::status(&door, &by).await?),
        Request::UnderAdd(body) => {
            by.must_be_admin("bind an under-store")?;
            let path = engine::path(&body.path)?;
            done(&door, "under_add", |cache| async move {
                cache.under_add(&path, &body.url, body.read_only).await
            })
            .await
        }
        Request::UnderList(_) => {
            by.must_be_admin("list the under-stores")?;
            many(http::mounts(&door)?)
        }
        Request::UnderRemove(body) => {
            by.must_be_admin("take an under-store away")?;
            let path = engine::path(&body.path)?;
            let removed = async { door.cache.under_remove(&path, body.drain).await.map_err(error::engine) };
            door.unless_draining(removed).await?;
            one(&Done {})
        }
        Request::Mount(body) => {
            by.must_be_admin("mount a folder")?;
            let mode = FolderMode {
                dataset: body.mode == action::MountMode::Dataset,
                read_only: body.read_only,
            };
            let (folders, dir) = (Arc::clone(&door.folders), folder(body.dir)?);
            done(&door, "mount", |_| async move { folders.mount(&dir, mode).await }).await
        }
        Request::Unmount(body) => {
            by.must_be_admin("unmount a folder")?;
            let (folders, dir) = (Arc::clone(&door.folders), folder(body.dir)?);
            done(&door, "unmount", |_| async move { folders.unmount(&dir).await }).await
        }
        Request::Load(body) => residence::load(&door, &by, body).await,
        Request::Pin(body) => residence::pin(&door, &by, body).await,
        Request::Unpin(body) => {
            let path = writable(&by, &body.path)?;
            done(&door, "unpin", |cache| async move { cache.unpin(&path).await }).await
        }
        Request::Free(body) => {
            let path = writable(&by, &body.path)?;
            let cache = door.cache.clone();
            let freed = door
                .finish("free", async move { cache.free(&path).await.map_err(error::engine) })
                .await?;
            one(&action::Freed {
                freed_bytes: freed.freed_bytes,
                dirty_bytes: freed.dirty_bytes,
                pinned_bytes: freed.pinned_bytes,
            })
        }
        Request::Sync(body) => {
            let path = readable(&by, &body.path)?;
            door.cache.sync(&path, body.wait).await.map_err(error::engine)?;
            one(&Done {})
        }
        Request::PolicySet(body) => policy::set(&door, &by, body).await,
        Request::PolicyGet(body) => policy::get(&door, &by, &body),
        Request::PolicyList(body) => policy::list(&door, &by, &body),
        Request::PolicyExplain(body) => policy::explain(&door, &by, &body),
    }
}

/// A folder of this machine.
fn folder(dir: String) -> Result<PathBuf, Status> {
    let folder = PathBuf::from(dir);
    if folder.is_absolute() {
        return Ok(folder);
    }
    let text = format!("{}: name the folder in full, from / on", folder.display());
    Err(error::status(Code::InvalidArgument, &text))
}

fn readable(by: &Principal, path: &WirePath) -> Result<Path, Status> {
    by.may(Right::Read, path)?;
    engine::path(path)
}

fn writable(by: &Principal, path: &WirePath) -> Result<Path, Status> {
    by.may(Right::Write, path)?;
    engine::path(path)
}

/// Runs a change to its end and answers that it is done.
async fn done<F, Fut>(door: &Door, name: &'static str, change: F) -> Result<Answer, Status>
where
    F: FnOnce(forebay_writeback::Cache) -> Fut,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let change = change(door.cache.clone());
    door.finish(name, async move { change.await.map_err(error::engine) })
        .await?;
    one(&Done {})
}

/// One result.
fn one(result: &impl Serialize) -> Result<Answer, Status> {
    Ok(Answer::many(stream::iter([said(result)])))
}

/// Several.
fn many(results: Vec<impl Serialize>) -> Result<Answer, Status> {
    Ok(Answer::many(stream::iter(results.iter().map(said).collect::<Vec<_>>())))
}

fn said(result: &impl Serialize) -> Result<Said, Status> {
    let body = serde_json::to_vec(result).expect("plain data has a JSON form");
    Said::message(&ActionResult { body: body.into() })
}

fn entries(door: &Door, by: &Principal, body: action::List) -> Result<Answer, Status> {
    let action::List {
        path,
        recursive,
        after,
        limit,
    } = body;
    let path = readable(by, &path)?;
    let after = after.map(|after| engine::path(&after)).transpose()?;
    let found = door.cache.list(
        &path,
        List {
            recursive,
            after,
            limit,
        },
    );
    // The engine keeps the limit; it is cheap to be sure.
    let found = found.take(limit.unwrap_or(usize::MAX));
    Ok(Answer::many(found.map_err(error::engine).and_then(|stat| {
        std::future::ready(engine::entry(&stat).and_then(|entry| {
            said(&action::Entry {
                cached_bytes: None,
                ..entry
            })
        }))
    })))
}

async fn begin(door: &Door, by: &Principal, body: action::Begin) -> Result<Answer, Status> {
    let action::Begin {
        path,
        mode,
        format,
        compression,
        ack,
        timeout,
        job,
        token,
    } = body;
    let path = writable(by, &path)?;
    let owner = door.owner(by, &path).await?;
    let spec = SessionSpec {
        mode: engine::mode(mode),
        format: engine::format(format),
        compression: compression.filter(|c| *c != Compression::None).map(engine::compression),
        ack: ack.map(engine::ack).transpose()?,
        timeout: timeout.map(|span| span.0),
        owner,
        job,
        token,
    };
    let cache = door.cache.clone();
    let begun = door
        .finish(
            "begin",
            async move { cache.begin(&path, spec).await.map_err(error::engine) },
        )
        .await?;
    one(&action::Begun { session: begun.0 })
}

async fn publish(door: &Door, by: &Principal, body: action::Publish) -> Result<Answer, Status> {
    let action::Publish {
        session: first,
        with,
        tasks,
        success_file,
    } = body;
    if with.len() >= PUBLISH_SESSIONS_MAX {
        let text = format!(
            "{} sessions beside the first; at most {PUBLISH_SESSIONS_MAX} are published at once",
            with.len()
        );
        return Err(error::status(Code::InvalidArgument, &text));
    }
    let with = with.into_iter().map(|with| match with {
        With::Session(session) => (session, None),
        With::Tasks(WithTasks { session, tasks }) => (session, tasks),
    });
    let mut members = Vec::with_capacity(1 + with.len());
    for (id, tasks) in std::iter::once((first, tasks)).chain(with) {
        members.push(Member {
            session: sessions::writable(door, by, &id).await?,
            tasks: tasks.map(|tasks| tasks.into_iter().map(engine::task).collect()),
        });
    }
    let cache = door.cache.clone();
    let published = door.finish("publish", async move {
        cache
            .publish_together(members, success_file)
            .await
            .map_err(error::engine)
    });
    let mut versions = Vec::new();
    for made in published.await? {
        versions.push(action::PublishedVersion {
            path: engine::wire_path(&made.path)?,
            session: made.session.0,
            version: made.version,
        });
    }
    let version = versions[0].version;
    if versions.len() == 1 {
        versions.clear();
    }
    one(&action::Published { version, versions })
}

async fn versions(door: &Door, path: &Path) -> Result<Answer, Status> {
    let versions = door.cache.versions(path).await.map_err(error::engine)?;
    let told = versions.into_iter().map(|version| action::Version {
        version: version.version,
        session: Some(version.session.0),
        published: engine::time(version.published),
        rows: version.rows,
        bytes: version.bytes,
        parts: version.parts,
    });
    many(told.collect())
}

async fn persist(door: &Door, by: &Principal, body: action::Wait) -> Result<Answer, Status> {
    let path = writable(by, &body.path)?;
    door.cache.persist(&path).await.map_err(error::engine)?;
    match body.wait {
        true => wait_persisted(door, &path, PERSIST_WAIT_MAX).await,
        false => one(&action::PersistState {
            state: "queued".to_owned(),
        }),
    }
}

async fn wait_persisted(door: &Door, path: &Path, timeout: Duration) -> Result<Answer, Status> {
    let waited = async {
        match door.cache.wait_persisted(path, timeout).await {
            // Nothing is ever persisted there; where nothing is at all, that is the better answer.
            Err(e) if e.kind() == ErrorKind::Precondition => {
                let there = door.cache.stat(path).await;
                Err(error::engine(
                    there.err().filter(|e| e.kind() == ErrorKind::NotFound).unwrap_or(e),
                ))
            }
            waited => waited.map_err(error::engine),
        }
    };
    door.unless_draining(waited).await?;
    one(&action::PersistState {
        state: "persisted".to_owned(),
    })
}
