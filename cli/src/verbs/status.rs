//! `status`.

use crate::{
    args::{Door, Status as Flags},
    connect,
    failure::{Failure, Outcome},
    output::Output,
};
use forebay_client::{Status, action::LoadJob};
use forebay_runtime::units::ByteSize;
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) async fn status(flags: Flags, door: &Door, output: &mut Output) -> Outcome {
    let client = connect::connect(door).await?;
    if flags.watch.is_some() && output.json() {
        return Err(Failure::usage(
            "--watch prints again and again; --json prints one document",
        ));
    }
    loop {
        // As the server says it: it may tell more than this client knows.
        let said = client.action("status", json!({})).await?.pop().unwrap_or(Value::Null);
        output.one(&said, text)?;
        let Some(every) = flags.watch else { return Ok(()) };
        output.line("")?;
        output.flush()?;
        tokio::time::sleep(every).await;
    }
}

fn text(said: &Value) -> String {
    match serde_json::from_value::<Status>(said.clone()) {
        Ok(status) => lines(&status),
        Err(_) => said.to_string(),
    }
}

/// The numbers for people.
pub(super) fn lines(status: &Status) -> String {
    let size = |bytes| ByteSize(bytes).rounded();
    let mut out = format!(
        "version    {}\nack        {}\ndirty      {} in {} files, the oldest {:.1} s\nat risk    {} that no under-store has\npersisted  {} since the start\ncached     {}\nwork       {} queued, {} under way, {} kept back by policies\n",
        status.version,
        status.ack,
        size(status.dirty_bytes),
        status.dirty_files,
        status.oldest_dirty_seconds,
        size(status.at_risk_bytes),
        size(status.persisted_bytes),
        size(status.cached_bytes),
        status.queued,
        status.uploading,
        status.withheld,
    );
    if status.mounts.is_empty() {
        out.push_str("mounts     none: everything stays in the cache\n");
    }
    for mount in &status.mounts {
        let _ = writeln!(
            out,
            "mount      {} = {} ({}): {} dirty, {} queued, {:.1} s behind",
            mount.path,
            mount.url,
            mount.state,
            size(mount.dirty_bytes),
            mount.queued,
            mount.lag_seconds,
        );
        if let Some(error) = &mount.sync_error {
            let _ = writeln!(out, "mount      {} is not compared with its store: {error}", mount.path);
        }
    }
    for disk in &status.disks {
        let _ = writeln!(
            out,
            "disk       {} ({}): {} used, {} free of {}",
            disk.folder,
            disk.tier,
            size(disk.used_bytes),
            size(disk.free_bytes),
            size(disk.total_bytes),
        );
    }
    for tier in &status.tiers {
        let _ = writeln!(
            out,
            "tier       {} ({}): {} of {}, {} reads found here",
            tier.name,
            tier.folder,
            size(tier.used_bytes),
            size(tier.size_bytes),
            tier.hits,
        );
    }
    for load in &status.loads {
        let _ = writeln!(
            out,
            "load       {} {}: {} of {}, {} of {} files{}{}",
            load.path,
            load.state,
            size(load.bytes),
            size(load.bytes_total),
            load.files,
            load.files_total,
            if load.found_all { "" } else { " so far" },
            read_back(load),
        );
    }
    for left in &status.unconverted {
        let _ = writeln!(
            out,
            "as it is   {} parts of {}, the last {}: {}",
            left.parts, left.path, left.since, left.reason
        );
    }
    for blocked in &status.blocked {
        let _ = writeln!(
            out,
            "blocked    {} since {}: {}",
            blocked.path, blocked.since, blocked.reason
        );
    }
    for conflict in &status.conflicts {
        let _ = writeln!(
            out,
            "conflict   {} since {}: {}",
            conflict.path, conflict.since, conflict.reason
        );
        for (side, has) in [("mine", &conflict.mine), ("theirs", &conflict.theirs)] {
            if let Some(has) = has {
                let _ = writeln!(out, "           {side:<6} {has}");
            }
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// What a load that verifies has read back.
fn read_back(load: &LoadJob) -> String {
    let size = |bytes: u64| ByteSize(bytes).rounded();
    match (load.verified_bytes, load.damaged_bytes) {
        (0, 0) => String::new(),
        (good, 0) => format!(", {} verified", size(good)),
        (good, damaged) => format!(", {} verified, {} damaged", size(good), size(damaged)),
    }
}
