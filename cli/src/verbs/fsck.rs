//! `fsck`: the checksums of data folders, while no server runs on them.

use crate::{
    args::Fsck,
    failure::{AtFile, Failure, Outcome},
    output::Output,
    progress,
};
use forebay_runtime::{disk::RealDisk, task, units::ByteSize};
use forebay_segment::{Finding, Report};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Serialize)]
struct Found {
    /// The first folder.
    data: String,
    folders: Vec<String>,
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
    let names: Vec<String> = flags.data.iter().map(|folder| folder.display().to_string()).collect();
    let mut found = Found {
        data: names.first().cloned().unwrap_or_default(),
        folders: names,
        segments: 0,
        streams: 0,
        bytes: 0,
        findings: Vec::new(),
        notes: Vec::new(),
    };
    for folder in &flags.data {
        found.add(check(folder).await?);
    }
    if let Some(note) = incomplete(&flags.data).await {
        found.notes.push(note);
    }
    output.one(&found, text)?;
    if found.findings.is_empty() {
        Ok(())
    } else {
        Err(Failure::silent(1))
    }
}

async fn check(folder: &Path) -> Outcome<Report> {
    std::fs::metadata(folder).at(folder)?;
    let bar = progress::words(format!("reading {}", folder.display()));
    let data = folder.to_owned();
    let report = task::blocking(move || forebay_segment::fsck(&data, &RealDisk::shared())).await;
    bar.finish_and_clear();
    report.map_err(|error| Failure::failed(format!("{}: {error}", folder.display())))
}

/// Why the folders are not all of one store, if so: each may be sound all the same.
async fn incomplete(folders: &[PathBuf]) -> Option<String> {
    let folders = folders.to_vec();
    let home = task::blocking(move || forebay_segment::home(&folders, &RealDisk::shared())).await;
    home.err().map(|error| error.to_string())
}

impl Found {
    fn add(&mut self, report: Report) {
        let damage = |finding: Finding| Damage {
            file: finding.file.display().to_string(),
            offset: finding.range.start,
            length: finding.range.end.saturating_sub(finding.range.start),
            what: finding.what,
        };
        self.segments += report.segments;
        self.streams += report.streams;
        self.bytes += report.bytes;
        self.findings.extend(report.findings.into_iter().map(damage));
        self.notes.extend(report.notes);
    }
}

fn text(found: &Found) -> String {
    let size = ByteSize(found.bytes).rounded();
    let mut lines = vec![format!(
        "{}: {} segments, {} streams, {size}",
        found.folders.join(", "),
        found.segments,
        found.streams
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
