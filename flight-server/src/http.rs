//! The HTTP door: pages for people and machines, and a file system for Hadoop programs. It asks like the Flight door does, but for
//! `/healthz`.

mod console;
pub(crate) mod metrics;
mod webhdfs;

use crate::{
    auth::{Principal, Right},
    error,
    service::{Door, Peer, engine},
};
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use forebay_protocol::{action, path::WirePath};
use forebay_writeback::{
    clean::{LoadState, TierStatus},
    stats::DiskStatus,
};
use serde::Serialize;
use std::sync::Arc;
use tonic::{Code, Status};

/// The pages. `secure`: they are reached by TLS.
pub(crate) fn router(door: Arc<Door>, secure: bool) -> Router {
    let asked = Router::new()
        .route("/", get(console::page))
        .route("/metrics", get(metrics::page))
        .route("/readyz", get(ready))
        .route("/api/v1/status", get(told))
        .layer(middleware::from_fn_with_state(Arc::clone(&door), ask));
    let pages = Router::new().route("/healthz", get(healthy)).merge(asked);
    pages.with_state(Arc::clone(&door)).merge(webhdfs::router(door, secure))
}

/// Lets only those pass who may.
async fn ask(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let certificate = request
        .extensions()
        .get::<Arc<Peer>>()
        .and_then(|peer| peer.certificate.clone());
    let headers = request.headers().clone();
    match door
        .auth
        .identify_page(door.office(), &headers, certificate.as_deref())
        .await
    {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(status) => refused(&status),
    }
}

/// The process is alive.
async fn healthy() -> &'static str {
    "ok\n"
}

/// It can serve: the metastore answers, and it is not on its way out.
async fn ready(State(door): State<Arc<Door>>) -> Response {
    if door.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    match door.cache.status().await {
        Ok(_) => "ready\n".into_response(),
        Err(e) => refused(&error::engine(e)),
    }
}

async fn told(State(door): State<Arc<Door>>, axum::Extension(principal): axum::Extension<Principal>) -> Response {
    match status(&door, &principal).await {
        Ok(status) => Json(status).into_response(),
        Err(status) => refused(&status),
    }
}

/// A status as a page.
fn refused(status: &Status) -> Response {
    let code = match status.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unavailable | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut page = (code, format!("{}\n", status.message())).into_response();
    if code == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"forebay\", charset=\"UTF-8\"");
        page.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    page
}

/// `status`, with what this version adds to the documented keys.
#[derive(Debug, Serialize)]
pub(crate) struct StatusTold {
    #[serde(flatten)]
    documented: action::Status,
    dirty_bytes_max: u64,
    cache_bytes_max: u64,
    sessions: u64,
}

/// What stands where. Of blocked items, conflicts and mounts a caller is told those that they may read.
pub(crate) async fn status(door: &Door, by: &Principal) -> Result<StatusTold, Status> {
    let status = door.cache.status().await.map_err(error::engine)?;
    let may = |path: &str| {
        WirePath::parse(path).map_or(by.must_be_admin("see it").is_ok(), |path| {
            by.may(Right::Read, &path).is_ok()
        })
    };
    let blocked = status.blocked.into_iter().filter_map(|blocked| {
        let path = engine::wire_path(&blocked.path).ok()?.to_string();
        may(&path).then(|| action::Blocked {
            path,
            reason: blocked.reason,
            since: engine::time(blocked.since),
        })
    });
    let conflicts = status.conflicts.into_iter().filter_map(|conflict| {
        let path = engine::wire_path(&conflict.path).ok()?.to_string();
        may(&path).then(|| action::Conflict {
            path,
            since: engine::time(conflict.since),
            reason: conflict.reason,
            mine: Some(conflict.mine),
            theirs: Some(conflict.theirs),
        })
    });
    let documented = action::Status {
        dirty_bytes: status.dirty_bytes,
        dirty_files: status.dirty_files,
        at_risk_bytes: status.at_risk_bytes,
        oldest_dirty_seconds: status.oldest_dirty_seconds,
        persisted_bytes: status.persisted_bytes,
        cached_bytes: status.cached_bytes,
        queued: status.queued,
        withheld: status.withheld,
        uploading: status.uploading,
        blocked: blocked.collect(),
        conflicts: conflicts.collect(),
        mounts: mounts(door)?
            .into_iter()
            .filter(|mount| by.may(Right::Read, &mount.path).is_ok())
            .collect(),
        ack: engine::level(status.ack).to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        loads: loads(door, may),
        unconverted: unconverted(door, may),
        disks: status.disks.into_iter().map(disk).collect(),
        tiers: status.tiers.into_iter().map(tier).collect(),
    };
    Ok(StatusTold {
        documented,
        dirty_bytes_max: status.dirty_bytes_max,
        cache_bytes_max: status.cache_bytes_max,
        sessions: status.sessions,
    })
}

fn tier(tier: TierStatus) -> action::Tier {
    action::Tier {
        name: tier.name,
        folder: tier.folder.display().to_string(),
        size_bytes: tier.size_bytes,
        used_bytes: tier.used_bytes,
        hits: tier.hits,
    }
}

fn disk(disk: DiskStatus) -> action::Disk {
    action::Disk {
        folder: disk.folder.display().to_string(),
        tier: disk.tier.to_owned(),
        total_bytes: disk.total_bytes,
        free_bytes: disk.free_bytes,
        used_bytes: disk.used_bytes,
    }
}

/// Parts that were left as they are, of datasets that a caller may see.
fn unconverted(door: &Door, may: impl Fn(&str) -> bool) -> Vec<action::Unconverted> {
    let told = door.cache.unconverted().into_iter().filter_map(|left| {
        let path = engine::wire_path(&left.path).ok()?.to_string();
        may(&path).then(|| action::Unconverted {
            path,
            reason: left.reason,
            since: engine::time(left.since),
            parts: left.parts,
        })
    });
    told.collect()
}

/// The loads that a caller may see.
fn loads(door: &Door, may: impl Fn(&str) -> bool) -> Vec<action::LoadJob> {
    let told = door.cache.loads().into_iter().filter_map(|job| {
        let path = engine::wire_path(&job.path).ok()?.to_string();
        may(&path).then(|| action::LoadJob {
            job: job.id,
            path,
            paths: job.paths as u64,
            since: engine::time(job.since),
            state: match job.state {
                LoadState::Running => "running".to_owned(),
                LoadState::Loaded => "loaded".to_owned(),
                LoadState::Full => "full".to_owned(),
                LoadState::Cancelled => "cancelled".to_owned(),
                LoadState::Failed(why) => format!("failed: {why}"),
            },
            files: job.files.0,
            files_total: job.files.1,
            bytes: job.bytes.0,
            bytes_total: job.bytes.1,
            found_all: job.found_all,
            verified_bytes: job.read_back.0,
            damaged_bytes: job.read_back.1,
        })
    });
    told.collect()
}

/// The mounts.
pub(crate) fn mounts(door: &Door) -> Result<Vec<action::Mount>, Status> {
    let mounts = door.cache.under_list().into_iter();
    let told = mounts.map(|m| {
        Ok(action::Mount {
            path: engine::wire_path(&m.path)?,
            url: m.url,
            read_only: m.read_only,
            state: m.state,
            synced: m.synced.map(engine::time),
            sync_error: m.sync_error,
            queued: m.queued,
            dirty_bytes: m.dirty_bytes,
            lag_seconds: m.lag.as_secs_f64(),
        })
    });
    told.collect()
}
