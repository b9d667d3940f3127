//! `fsck`: the checksums of a data folder, while no server runs on it.

use crate::{
    args::Fsck,
    failure::{AtFile, Failure, Outcome},
    output::Output,
    progress,
};
use forebay_runtime::{disk::RealDisk, task, units::ByteSize};
use serde::Serialize;

/// What was found.
#[derive(Debug, Serialize)]
struct Found {
    data: String,
    segments: usize,
    streams: usize,
    bytes: u64,
    findings: Vec<Damage>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Damage {
    file: String,
    offset: u64,
    length: u64,
    what: String,
}

/// Exit code 1 when something is damaged.
pub(super) async fn fsck(flags: &Fsck, output: &mut Output) -> Outcome {
    let data = flags.data.clone();
    std::fs::metadata(&data).at(&data)?;
    let bar = progress::words(format!("reading {}", data.display()));
    let folder = data.clone();
    let report = task::blocking(move || forebay_segment::fsck(&folder, &RealDisk::shared())).await;
    bar.finish_and_clear();
    let report = report.map_err(|error| Failure::failed(format!("{}: {error}", data.display())))?;
    let damage = |finding: forebay_segment::Finding| Damage {
        file: finding.file.display().to_string(),
        offset: finding.range.start,
        length: finding.range.end.saturating_sub(finding.range.start),
        what: finding.what,
    };
    let found = Found {
        data: data.display().to_string(),
        segments: report.segments,
        streams: report.streams,
        bytes: report.bytes,
        findings: report.findings.into_iter().map(damage).collect(),
        notes: report.notes,
    };
    output.one(&found, text)?;
    if found.findings.is_empty() {
        Ok(())
    } else {
        Err(Failure::silent(1))
    }
}

fn text(found: &Found) -> String {
    let size = ByteSize(found.bytes).rounded();
    let mut lines = vec![format!(
        "{}: {} segments, {} streams, {size}",
        found.data, found.segments, found.streams
    )];
    lines.extend(found.notes.iter().map(|note| format!("note     {note}")));
    lines.extend(found.findings.iter().map(|damage| {
        format!(
            "damaged  {} at {}, {} bytes: {}",
            damage.file, damage.offset, damage.length, damage.what
        )
    }));
    if found.findings.is_empty() {
        lines.push("no damage found".to_owned());
    }
    lines.join("\n")
}
