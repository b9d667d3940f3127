//! The WebHDFS door: the REST protocol of Hadoop's own client, at `/webhdfs/v1/`, so that Spark, Hive, `hdfs dfs` and every other
//! program of Hadoop's world use the cache as a file system by `webhdfs://host:port/`, with no library of ours.
//!
//! | module | owns |
//! |---|---|
//! | `op`, `query`, `origin` | what is asked for, with which parameters, and whence |
//! | `status`, `places` | what is there, where its bytes are said to lie, what this server is like |
//! | `read`, `opened`, `checksum` | reading; all requests of one reader see one content |
//! | `write` | CREATE, APPEND, TRUNCATE, CONCAT: bytes go to the engine as they come |
//! | `names`, `attributes` | directories, renames, deletes; modes, times, xattrs, owners by name |
//! | `login` | a token for a password, for clients that can only ask for one by OAuth |
//! | `error` | from the engine's kinds to the exceptions that Hadoop programs know |
//!
//! A client of this protocol asks a NameNode first and is sent on to where the bytes are. Here that is the same server: reading, CREATE
//! and APPEND answer 307 with our own address, and the second request does it. It does not own who may enter and what they may do, which
//! is as for the other pages; nor links, access control lists, snapshots, storage policies: those are refused by name.

mod attributes;
mod checksum;
mod error;
mod login;
mod names;
mod op;
mod opened;
mod origin;
mod places;
mod query;
mod read;
mod status;
mod write;

use super::metrics;
use crate::{
    auth::{Principal, Right},
    error as status_error,
    service::{Door, Peer},
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use error::{Exception, Fault};
use forebay_protocol::path::WirePath;
use forebay_writeback::{Path, owners::OwnerKind};
use futures::FutureExt;
use http::{HeaderValue, StatusCode, header, request::Parts};
use op::Op;
use opened::Opened;
use origin::Origin;
use query::Query;
use serde_json::{Value, json};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};
use tracing::Instrument;

/// What comes before every path.
const PREFIX: &str = "/webhdfs/v1";
/// Of whom a request is that names nobody: who owns what has no other owner.
const NOBODYS_NAME: &str = "root";
/// Longest name of a user.
const USER_BYTES_MAX: usize = 255;

/// What the operations share.
#[derive(Debug)]
struct WebHdfs {
    door: Arc<Door>,
    opened: Opened,
    checksums: tokio::sync::Semaphore,
    secure: bool,
}

/// A request, understood as far as all operations have in common.
struct Call {
    hdfs: Arc<WebHdfs>,
    by: Principal,
    /// Owner of what is created; `None`: nobody is named.
    user: Option<String>,
    wire: WirePath,
    path: Path,
    query: Query,
    origin: Origin,
    head: Parts,
}

/// What an operation answers.
type Answer = Result<Response, Fault>;

/// The door's pages. `secure`: clients reach it by TLS.
pub(super) fn router(door: Arc<Door>, secure: bool) -> Router {
    let hdfs = Arc::new(WebHdfs {
        opened: Opened::new(door.tasks()),
        checksums: tokio::sync::Semaphore::new(checksum::AT_ONCE),
        secure,
        door,
    });
    Router::new()
        .route(PREFIX, any(page))
        .route("/webhdfs/v1/", any(page))
        .route("/webhdfs/v1/{*path}", any(page))
        .route("/webhdfs/oauth2/token", post(login::token))
        .with_state(hdfs)
}

/// Answers one request. It never fails: what goes wrong is the answer.
async fn page(State(hdfs): State<Arc<WebHdfs>>, request: Request) -> Response {
    let began = Instant::now();
    let from = request.extensions().get::<Arc<Peer>>().map(|peer| peer.from.clone());
    let from = from.unwrap_or_default();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let op = query.and_then(|query| Ok((Op::of(request.method(), query.text("op")?.unwrap_or_default())?, query)));
    let known = op.as_ref().ok().map(|(op, _)| *op);
    let name = known.map_or("unknown", Op::name);
    let span = tracing::info_span!("webhdfs", op = name, from, by = tracing::field::Empty);
    let answered = AssertUnwindSafe(answer(hdfs, request, op))
        .catch_unwind()
        .instrument(span)
        .await;
    let answered = answered.unwrap_or_else(|_| Err(status_error::panicked().into()));
    let response = answered.unwrap_or_else(|fault| {
        error::told_off(&from, name, &fault);
        fault.into_response()
    });
    metrics::webhdfs().answered(name, response.status(), began.elapsed());
    response
}

/// Finds out who asks before anything else is said, and hands the request to its operation.
async fn answer(hdfs: Arc<WebHdfs>, request: Request, op: Result<(Op, Query), Fault>) -> Answer {
    let (head, body) = request.into_parts();
    let door = &hdfs.door;
    let peer = head.extensions.get::<Arc<Peer>>();
    let certificate = peer.and_then(|peer| peer.certificate.clone());
    let by = door
        .auth
        .identify_page(door.office(), &head.headers, certificate.as_deref())
        .await?;
    tracing::Span::current().record("by", by.name());
    if door.is_draining() {
        return Err(status_error::shutting_down().into());
    }
    let origin = Origin::of(&head.uri, &head.headers, hdfs.secure)?;
    let (op, query) = op?;
    let wire = path_of(head.uri.path())?;
    let call = Call {
        user: user(&by, &query)?,
        path: Path::parse(wire.as_bytes()).map_err(|e| Fault::new(Exception::InvalidPath, e.to_string()))?,
        hdfs,
        by,
        wire,
        query,
        origin,
        head,
    };
    tracing::debug!(path = %call.wire, "asked");
    call.run(op, body).await
}

/// The path that a request's path names.
fn path_of(uri: &str) -> Result<WirePath, Fault> {
    match uri.strip_prefix(PREFIX) {
        Some("") => Ok(WirePath::root()),
        Some(rest) => Ok(WirePath::parse(rest)?),
        None => Err(Fault::new(
            Exception::InvalidPath,
            format!("paths begin with {PREFIX}/"),
        )),
    }
}

/// Whom the request is of: who is known, else whom it names. Where users are known a name alone says nothing.
fn user(by: &Principal, query: &Query) -> Result<Option<String>, Fault> {
    if !by.name().is_empty() {
        return Ok(Some(by.name().to_owned()));
    }
    for name in ["doas", "user.name"] {
        let Some(user) = query.text(name)? else { continue };
        if !is_user(user) {
            let why = "a user's name is letters, digits and `._-`, and begins with a letter or `_`";
            return Err(Fault::parameter(name, why));
        }
        return Ok(Some(user.to_owned()));
    }
    Ok(None)
}

/// What Hadoop takes for a user's name.
fn is_user(name: &str) -> bool {
    let plain = name.strip_suffix('$').unwrap_or(name);
    let first = plain.bytes().next();
    name.len() <= USER_BYTES_MAX
        && first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && plain
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl Call {
    async fn run(self, op: Op, body: Body) -> Answer {
        match op {
            Op::Open => read::open(self).await,
            Op::GetFileStatus | Op::GetFileLinkStatus => status::file_status(self).await,
            Op::ListStatus => status::list(self).await,
            Op::ListStatusBatch => status::list_batch(self).await,
            Op::GetContentSummary => status::content_summary(self).await,
            Op::GetQuotaUsage => status::quota_usage(self).await,
            Op::GetFileChecksum => checksum::file_checksum(self).await,
            Op::GetHomeDirectory => places::home_directory(self),
            Op::GetTrashRoot => places::trash_root(self),
            Op::GetTrashRoots => json_answer(json!({"Paths": []})),
            Op::GetDelegationToken => attributes::delegation_token(self),
            Op::RenewDelegationToken | Op::CancelDelegationToken => Err(attributes::no_tokens()),
            Op::GetBlockLocations => places::located_blocks(self).await,
            Op::GetFileBlockLocations => places::block_locations(self).await,
            Op::GetAclStatus => attributes::acl_status(self).await,
            Op::GetXattrs => attributes::get_xattrs(self).await,
            Op::ListXattrs => attributes::list_xattrs(self).await,
            Op::CheckAccess => attributes::check_access(self).await,
            Op::GetServerDefaults => places::server_defaults(),
            Op::GetLinkTarget => names::link_target(self).await,
            Op::GetStatus => places::space(self),
            Op::Create => write::create(self, body).await,
            Op::Mkdirs => names::mkdirs(self).await,
            Op::Rename => names::rename(self).await,
            Op::SetReplication => attributes::set_replication(self).await,
            Op::SetOwner => attributes::set_owner(self).await,
            Op::SetPermission => attributes::set_permission(self).await,
            Op::SetTimes => attributes::set_times(self).await,
            Op::SetXattr => attributes::set_xattr(self).await,
            Op::RemoveXattr => attributes::remove_xattr(self).await,
            Op::Append => write::append(self, body).await,
            Op::Concat => write::concat(self).await,
            Op::Truncate => write::truncate(self).await,
            Op::Delete => names::delete(self).await,
        }
    }

    /// Refuses who may not read here.
    fn may_read(&self) -> Result<(), Fault> {
        Ok(self.by.may(Right::Read, &self.wire)?)
    }

    /// Refuses who may not write here.
    fn may_write(&self) -> Result<(), Fault> {
        Ok(self.by.may(Right::Write, &self.wire)?)
    }

    fn cache(&self) -> &forebay_writeback::Cache {
        &self.hdfs.door.cache
    }

    /// Who asks, by a name in any case.
    fn user_name(&self) -> &str {
        self.user.as_deref().unwrap_or(NOBODYS_NAME)
    }

    /// User and group of what is created; `None`: nobody is named.
    async fn owner(&self) -> Result<Option<(u32, u32)>, Fault> {
        match &self.user {
            Some(name) => Ok(Some((self.hdfs.door.owners.number(OwnerKind::User, name).await?, 0))),
            None => Ok(None),
        }
    }

    /// Sends the client to the same place with one more parameter: by 307, or where it wants no redirect by telling it the place.
    fn redirect(&self, parameter: &str) -> Answer {
        let asked = self.head.uri.path_and_query().map_or("/", |asked| asked.as_str());
        let location = format!("{}{asked}&{parameter}", self.origin.url());
        if self.query.flag("noredirect", false)? {
            return json_answer(json!({"Location": location}));
        }
        let header_value = HeaderValue::from_str(&location)
            .map_err(|_| Fault::new(Exception::InvalidPath, "the request's address can not be sent back"))?;
        let headers = [
            (header::LOCATION, header_value),
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            ),
        ];
        Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response())
    }

    /// Whether the body is announced to be of some length.
    fn content_length(&self) -> Option<u64> {
        let length = self.head.headers.get(header::CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    }
}

/// 200 with a JSON document.
fn json_answer(value: Value) -> Answer {
    Ok(Json(value).into_response())
}

/// 200 with nothing.
fn done() -> Answer {
    Ok(StatusCode::OK.into_response())
}

/// 200 with `true` or `false`.
fn boolean(value: bool) -> Answer {
    json_answer(json!({ "boolean": value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_the_uri() {
        for (uri, path) in [
            ("/webhdfs/v1", "/"),
            ("/webhdfs/v1/", "/"),
            ("/webhdfs/v1/a/b%20c", "/a/b c"),
            ("/webhdfs/v1/a+b/", "/a+b"),
            ("/webhdfs/v1/%25", "/%"),
        ] {
            assert_eq!(path_of(uri).unwrap().as_bytes(), path.as_bytes(), "{uri}");
        }
        for uri in [
            "/webhdfs/v1/../x",
            "/webhdfs/v1/a/%2e%2e/b",
            "/webhdfs/v1//",
            "/webhdfs/v1/a%2Fb",
            "/webhdfs/v1x",
        ] {
            assert!(path_of(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn names_of_users_are_what_hadoop_takes() {
        for name in ["hdfs", "_x", "a.b-c_9", "machine$"] {
            assert!(is_user(name), "{name}");
        }
        for name in ["", "9a", "a b", "a/b", "ü", "$", &"x".repeat(256)] {
            assert!(!is_user(name), "{name}");
        }
    }
}
