//! `under add|ls|rm`.

use super::at;
use crate::{
    args::{Door, Under},
    connect,
    failure::Outcome,
    output::Output,
    progress,
};
use forebay_client::{Client, WirePath};
use forebay_runtime::units::ByteSize;
use serde_json::{Value, json};
use std::time::Duration;

/// How often a removal that drains says how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn under(under: Under, door: &Door, output: &mut Output) -> Outcome {
    match under {
        Under::Add { path, url, read_only } => {
            let (client, path) = at(door, &path).await?;
            let body = json!({ "path": path, "url": url, "read_only": read_only });
            client.action("under_add", body).await?;
            output.one(&json!({ "path": path }), |_| String::new())
        }
        Under::Rm { path, drain } => {
            let (client, path) = at(door, &path).await?;
            remove(&client, &path, drain).await?;
            output.one(&json!({ "path": path }), |_| String::new())
        }
        Under::Ls => {
            let client = connect::connect(door).await?;
            let mut series = output.series();
            for mount in client.action("under_list", json!({})).await? {
                series.push(&mount, line)?;
            }
            series.end()
        }
    }
}

fn line(mount: &Value) -> String {
    let of = |key| mount.get(key).and_then(Value::as_str).unwrap_or_default();
    let read_only = mount.get("read_only").and_then(Value::as_bool).unwrap_or(false);
    let read_only = if read_only { ", read-only" } else { "" };
    format!("{} = {} ({}{read_only})", of("path"), of("url"), of("state"))
}

async fn remove(client: &Client, path: &WirePath, drain: bool) -> Outcome {
    let removed = client.action("under_remove", json!({ "path": path, "drain": drain }));
    if !drain {
        removed.await?;
        return Ok(());
    }
    let bar = progress::words(format!("{path}: on its way"));
    tokio::pin!(removed);
    loop {
        tokio::select! {
            biased;
            removed = &mut removed => {
                bar.finish_and_clear();
                removed?;
                return Ok(());
            }
            () = tokio::time::sleep(TOLD_EVERY) => tell(client, path, &bar).await?,
        }
    }
}

async fn tell(client: &Client, path: &WirePath, bar: &indicatif::ProgressBar) -> Outcome {
    let status = client.status().await?;
    let stuck = status.blocked.len() + status.conflicts.len();
    bar.set_message(format!(
        "{path}: {} dirty in all, {} queued, {} under way, {stuck} blocked or in conflict",
        ByteSize(status.dirty_bytes).rounded(),
        status.queued,
        status.uploading
    ));
    Ok(())
}
