//! `pin`, `unpin`, `free`, `sync`: what of the under-store's content lies in the cache.

use super::at;
use crate::{
    args::{Door, OnePath, Pin, Waiting},
    failure::Outcome,
    output::Output,
    progress,
};
use forebay_runtime::units::ByteSize;
use serde_json::{Value, json};

pub(super) async fn pin(pin: Pin, door: &Door, output: &mut Output) -> Outcome {
    let more = match pin.until {
        Some(until) => json!({ "until": until }),
        None => json!({}),
    };
    act_with("pin", pin.at, more, door, output).await
}

/// An action `{path, wait}` with at most one result.
pub(super) async fn act(name: &str, waiting: Waiting, door: &Door, output: &mut Output) -> Outcome {
    act_with(name, waiting, json!({}), door, output).await
}

async fn act_with(name: &str, waiting: Waiting, mut body: Value, door: &Door, output: &mut Output) -> Outcome {
    let Waiting { path, wait } = waiting;
    let (client, path) = at(door, &path).await?;
    let bar = progress::words(format!("{name} {path}"));
    (body["path"], body["wait"]) = (json!(path), json!(wait));
    let mut results = client.action(name, body).await?;
    bar.finish_and_clear();
    let result = results.pop().unwrap_or_else(|| json!({}));
    output.one(&result, |result| match result.get("bytes").and_then(Value::as_u64) {
        Some(bytes) if wait => format!("{path}: {} in the cache", ByteSize(bytes).rounded()),
        _ => String::new(),
    })
}

pub(super) async fn free(one: OnePath, door: &Door, output: &mut Output) -> Outcome {
    let (client, path) = at(door, &one.path).await?;
    let freed = client.free(&path.to_string()).await?;
    output.one(&freed, |freed| {
        let (gone, left) = (
            ByteSize(freed.freed_bytes).rounded(),
            ByteSize(freed.dirty_bytes).rounded(),
        );
        let pinned = match freed.pinned_bytes {
            0 => String::new(),
            bytes => format!(", {} pinned left (`unpin` lets them go)", ByteSize(bytes).rounded()),
        };
        format!("{path}: {gone} freed, {left} dirty left{pinned}")
    })
}
