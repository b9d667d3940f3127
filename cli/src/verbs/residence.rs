//! `load`, `pin`, `unpin`, `free`, `sync`: what of the under-store's content lies in the cache.

use super::at;
use crate::{
    args::{Door, OnePath, Waiting},
    failure::Outcome,
    output::Output,
    progress,
};
use forebay_runtime::units::ByteSize;
use serde_json::{Value, json};

/// An action `{path, wait}` with at most one result.
pub(super) async fn act(name: &str, waiting: Waiting, door: &Door, output: &mut Output) -> Outcome {
    let Waiting { path, wait } = waiting;
    let (client, path) = at(door, &path).await?;
    let bar = progress::words(format!("{name} {path}"));
    let mut results = client.action(name, json!({ "path": path, "wait": wait })).await?;
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
        format!("{path}: {gone} freed, {left} dirty left")
    })
}
