//! `persist`, and what to do about items that wait for a person.

use super::at;
use crate::{
    args::{Door, OnePath, Persist, Resolve},
    failure::{Failure, Outcome},
    output::Output,
    progress,
};
use forebay_client::{Client, ErrorKind, WirePath};
use forebay_runtime::units::ByteSize;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// How long one call waits: short enough to say how far it is.
const ROUND: Duration = Duration::from_secs(2);

pub(super) async fn persist(persist: Persist, door: &Door, output: &mut Output) -> Outcome {
    let Persist {
        resolve,
        path,
        wait,
        timeout,
    } = persist;
    if let Some(resolve) = resolve {
        return decide(resolve, door, output).await;
    }
    let path = path.ok_or_else(|| Failure::usage("persist needs a path"))?;
    let (client, path) = at(door, &path).await?;
    client.persist(&path.to_string(), false).await?;
    let state = if wait {
        wait_for(&client, &path, timeout).await?
    } else {
        "queued".to_owned()
    };
    output.one(&json!({ "path": path, "state": state }), |_| String::new())
}

async fn wait_for(client: &Client, path: &WirePath, timeout: Option<Duration>) -> Outcome<String> {
    let bar = progress::words(format!("{path}: on its way"));
    let end = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let round = left.map_or(ROUND, |left| left.min(ROUND));
        match client.wait_persisted(&path.to_string(), round).await {
            Ok(state) => return Ok(state),
            Err(error) if error.kind() != ErrorKind::Unknown => return Err(error.into()),
            Err(_) if end.is_some_and(|end| Instant::now() >= end) => {
                return Err(Failure::unavailable(format!(
                    "{path}: not persisted in time; `forebay status` says what waits"
                )));
            }
            Err(_) => tell(client, path, &bar).await?,
        }
    }
}

async fn tell(client: &Client, path: &WirePath, bar: &indicatif::ProgressBar) -> Outcome {
    let status = client.status().await?;
    let left = ByteSize(status.dirty_bytes).rounded();
    let stuck = status.blocked.len() + status.conflicts.len();
    let stuck = if stuck == 0 {
        String::new()
    } else {
        format!(", {stuck} blocked or in conflict")
    };
    bar.set_message(format!(
        "{path}: {left} dirty in all, {} queued, {} under way{stuck}",
        status.queued, status.uploading
    ));
    Ok(())
}

async fn decide(resolve: Resolve, door: &Door, output: &mut Output) -> Outcome {
    let (how, OnePath { path }) = match resolve {
        Resolve::Retry(path) => ("retry", path),
        Resolve::KeepMine(path) => ("keep-mine", path),
        Resolve::KeepTheirs(path) => ("keep-theirs", path),
    };
    let (client, path) = at(door, &path).await?;
    client
        .action("persist_resolve", json!({ "path": path, "how": how }))
        .await?;
    output.one(&json!({ "path": path, "how": how }), |_| String::new())
}
