//! Checks a folder that no process has open: reads every byte, says everything that is wrong, changes nothing.

use crate::{
    dedicated::DedicatedFile,
    error::{Result, SegmentError},
    folder::Folder,
    identity,
    manifest::{self, Listed},
    membership,
    recovery::{Assembled, Found, read_all},
    scan::{Depth, LogScan, Scanner},
    scrub::Finding,
    sums::Sums,
};
use forebay_runtime::disk::DiskRef;
use std::path::Path;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: usize,
    /// Streams found in them, released ones included.
    pub streams: usize,
    /// Bytes compared with their checksums.
    pub bytes: u64,
    /// Damage.
    pub findings: Vec<Finding>,
    /// What is no damage but worth a word: a torn tail, a file that is no use.
    pub notes: Vec<String>,
}

/// Checks the folder. `Locked` when a process has it open. A folder that never was one of ours is fine and empty.
pub fn fsck(folder: &Path, disk: &DiskRef) -> Result<Report> {
    let folder = Folder(folder.to_owned());
    let failed = |action, e| SegmentError::disk(action, folder.path(), e);
    let entries = disk.list(folder.path()).map_err(|e| failed("list", e))?;
    let _lock = membership::lock(disk, &folder)?;
    let mut report = Report::default();
    let cluster = match identity::read(disk, &folder, &entries, None) {
        Ok(None) => return Ok(report),
        Ok(Some(header)) => Some(header.cluster),
        Err(e) => {
            report.findings.push(Finding::new(&e, None));
            None
        }
    };
    let listed = manifest::read(disk, &folder, cluster.as_ref()).unwrap_or_else(|e| {
        report.findings.push(Finding::new(&e, None));
        Listed::default()
    });
    let scanner = Scanner {
        disk,
        folder: &folder,
        cluster: cluster.as_ref(),
        depth: Depth::Full,
    };
    let found = read_all(&scanner, &listed, &entries, &mut |e| {
        report.findings.push(Finding::new(&e, None));
        Ok(())
    })?;
    report.take(found);
    Ok(report)
}

impl Report {
    fn take(&mut self, mut found: Found) {
        self.streams = Assembled::new(&found).streams.len();
        self.segments = found.shared.len() + found.logs.len();
        self.notes.append(&mut found.notes);
        self.notes
            .extend(found.litter.iter().map(|path| format!("{}: of no use", path.display())));
        for scan in found.shared.values() {
            self.bytes += scan.end;
            if scan.torn {
                self.notes
                    .push(format!("{}: torn tail at {}", scan.path.display(), scan.end));
            }
        }
        for (id, scan) in found.logs {
            let LogScan {
                data,
                data_path,
                sums,
                bytes,
                stream,
                draft,
                torn,
                end,
                ..
            } = scan;
            if torn {
                self.notes.push(format!("{id}.log: torn tail at {end}"));
            }
            if draft {
                self.notes.push(format!(
                    "{}: a draft of stream {stream}, {bytes} bytes without checksums before it is sealed",
                    data_path.display()
                ));
                continue;
            }
            self.bytes += bytes;
            let file = DedicatedFile::new(id, data_path, data, Sums::default());
            let mut scratch = Vec::new();
            for check in sums.all(&(0..bytes)) {
                if let Err(e) = file.compare(&check, &mut scratch) {
                    self.findings.push(Finding::new(&e, Some(stream)));
                }
            }
        }
    }
}
