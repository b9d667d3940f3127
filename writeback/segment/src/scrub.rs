//! Looks for rot while the store is open: reads everything that is durable, slowly, and compares it with its checksums.
//!
//! What it finds is reported and no longer handed out by readers; it repairs nothing.

use crate::{
    data_folder::DataFolder,
    dedicated::DedicatedFile,
    error::SegmentError,
    layout::{SegmentId, StreamId},
    manifest::SegmentKind,
    scan::Depth,
    store::SegmentStore,
    table::{Phase, Segment},
};
use forebay_runtime::{task, units::ByteSize};
use std::{
    ops::Range,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Read without a pause in between.
const STEP_BYTES: u64 = 8 << 20;

/// Damage that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The segment, when it is one.
    pub segment: Option<SegmentId>,
    /// The file.
    pub file: PathBuf,
    /// The damaged bytes of the file.
    pub range: Range<u64>,
    /// Whose they are, when a whole segment is one stream's.
    pub stream: Option<StreamId>,
    /// What is wrong.
    pub what: String,
}

/// What a scrub did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes compared.
    pub bytes: u64,
    /// Segments looked at.
    pub segments: usize,
    /// Findings reported.
    pub findings: usize,
}

impl Finding {
    /// A finding for an error met while checking; its range is empty where the error has none.
    pub(crate) fn new(error: &SegmentError, stream: Option<StreamId>) -> Finding {
        let (segment, file, range, what) = match error {
            SegmentError::Corrupt {
                segment,
                file,
                range,
                what,
            } => (
                Some(*segment).filter(|id| id.0 != 0),
                file.clone(),
                range.clone(),
                what.clone(),
            ),
            SegmentError::Missing { file, what } => (None, file.clone(), 0..0, format!("missing: {what}")),
            SegmentError::Disk(e) => (None, e.path.clone(), 0..0, e.to_string()),
            other => (None, PathBuf::new(), 0..0, other.to_string()),
        };
        Finding {
            segment,
            file,
            range,
            stream,
            what,
        }
    }
}

impl SegmentStore {
    /// Goes once over everything that is closed or durable, at `rate` bytes per second, and reports what is damaged. Segments that are still
    /// written to are left for the next time.
    pub async fn scrub(&self, rate: ByteSize, mut report: impl FnMut(Finding) + Send) -> Scrubbed {
        let mut done = Scrubbed::default();
        let all = |folder: &Arc<DataFolder>| {
            let folder = Arc::clone(folder);
            let segments = folder.context.table.all();
            segments.into_iter().map(move |segment| (Arc::clone(&folder), segment))
        };
        let all: Vec<_> = self.inner.folders.iter().flat_map(all).collect();
        for (folder, segment) in all {
            if !matches!(segment.phase(), Phase::Closed) {
                continue;
            }
            done.segments += 1;
            let mut at = 0;
            loop {
                let (folder, of) = (Arc::clone(&folder), Arc::clone(&segment));
                let step = task::blocking(move || check(&folder, &of, at)).await;
                for finding in step.findings {
                    done.findings += 1;
                    report(finding);
                }
                done.bytes += step.bytes;
                let pause = Duration::from_secs_f64(step.bytes as f64 / rate.0.max(1) as f64);
                self.inner.clock.sleep(pause).await;
                match step.next {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
        done
    }
}

/// What one step of a scrub came to.
#[derive(Debug, Default)]
struct Step {
    bytes: u64,
    findings: Vec<Finding>,
    /// Where to go on.
    next: Option<u64>,
}

fn check(folder: &DataFolder, segment: &Segment, at: u64) -> Step {
    let stream = (segment.kind == SegmentKind::Dedicated).then_some(segment.stream);
    let step = match segment.kind {
        SegmentKind::Shared => check_shared(folder, segment),
        SegmentKind::Dedicated => folder
            .dedicated_file(segment.id)
            .map(|file| check_dedicated(&file, segment, at)),
    };
    step.unwrap_or_else(|e| {
        // A segment that was given up meanwhile has nothing to tell.
        let gone = segment.phase() == Phase::Removed;
        Step {
            findings: if gone {
                Vec::new()
            } else {
                vec![Finding::new(&e, stream)]
            },
            ..Step::default()
        }
    })
}

fn check_shared(folder: &DataFolder, segment: &Segment) -> Result<Step, SegmentError> {
    let scanner = crate::scan::Scanner {
        depth: Depth::Full,
        ..folder.scanner()
    };
    let scan = scanner.shared(segment.id, None)?;
    let known = segment.readable.load(Ordering::Relaxed);
    if scan.end < known {
        return Err(SegmentError::Corrupt {
            segment: segment.id,
            file: scan.path,
            range: scan.end..known,
            what: "records fail their checksums in a closed segment".into(),
        });
    }
    Ok(Step {
        bytes: scan.end,
        ..Step::default()
    })
}

fn check_dedicated(file: &DedicatedFile, segment: &Segment, at: u64) -> Step {
    let end = (at + STEP_BYTES).min(file.len());
    let (mut step, mut scratch) = (
        Step {
            bytes: end - at,
            ..Step::default()
        },
        Vec::new(),
    );
    for check in file.sums().all(&(at..end)) {
        if let Err(e) = file.compare(&check, &mut scratch) {
            step.findings.push(Finding::new(&e, Some(segment.stream)));
        }
    }
    step.next = (end < file.len()).then_some(end);
    step
}
