//! One open data folder: its segments, its shared log, and those that are written or changed in place.
//!
//! It does not own which streams there are nor in which folder a new one goes; that is the store's.

use crate::{
    context::Context,
    dedicated::{DedicatedFile, DedicatedLog},
    draft::{Draft, DraftFile},
    error::{Result, SegmentError},
    flusher::{Demand, Flusher},
    layout::SegmentId,
    manifest::SegmentKind,
    scan::{Depth, Scanner},
    shared::SharedLog,
    table::{Phase, SharedFile},
};
use forebay_runtime::{disk::OpenHow, task};
use parking_lot::Mutex;
use std::{
    fmt::Debug,
    io::ErrorKind,
    sync::{Arc, Weak, atomic::Ordering},
};

#[derive(Debug)]
pub(crate) struct DataFolder {
    pub(crate) context: Arc<Context>,
    pub(crate) shared: Arc<SharedLog>,
    /// Logs that may still have something to flush at the end.
    logs: Mutex<Vec<Weak<DedicatedLog>>>,
    drafts: Mutex<Vec<Weak<DraftFile>>>,
    lock: Mutex<Option<Box<dyn Debug + Send + Sync>>>,
}

impl DataFolder {
    pub(crate) fn new(context: Arc<Context>, shared: Arc<SharedLog>, lock: Box<dyn Debug + Send + Sync>) -> DataFolder {
        DataFolder {
            context,
            shared,
            logs: Mutex::default(),
            drafts: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        }
    }

    pub(crate) fn number(&self) -> u8 {
        self.context.number
    }

    pub(crate) fn track(&self, log: &Arc<DedicatedLog>) {
        let mut logs = self.logs.lock();
        logs.retain(|log| log.strong_count() > 0);
        logs.push(Arc::downgrade(log));
    }

    pub(crate) fn track_draft(&self, draft: &Draft) {
        let mut drafts = self.drafts.lock();
        drafts.retain(|draft| draft.strong_count() > 0);
        drafts.push(draft.weak());
    }

    pub(crate) fn flusher(&self, name: &'static str) -> Arc<Flusher> {
        let context = &self.context;
        Flusher::new(
            name,
            context.tasks.clone(),
            Arc::clone(&context.clock),
            context.settings.flush_delay,
        )
    }

    pub(crate) fn release_record(&self, segment: SegmentId, at: u64, len: u64) {
        let Some(segment) = self
            .context
            .table
            .get(segment)
            .filter(|s| s.kind == SegmentKind::Shared)
        else {
            return;
        };
        if segment.release(at, len) {
            self.context.reclaimer.push(segment);
        }
    }

    /// Whether the segment is there and long enough.
    pub(crate) fn holds(&self, id: SegmentId, kind: SegmentKind, end: u64) -> Result<()> {
        let file = match kind {
            SegmentKind::Shared => self.context.folder.shared(id),
            SegmentKind::Dedicated => self.context.folder.data(id),
        };
        let segment = self
            .context
            .table
            .get(id)
            .filter(|s| s.kind == kind && s.phase() != Phase::Removed);
        let Some(segment) = segment else {
            return Err(SegmentError::Missing {
                file,
                what: format!("segment {id}, which a stored layout names"),
            });
        };
        let readable = segment.readable.load(Ordering::Relaxed);
        if end > readable {
            let what = format!("a stored layout names bytes up to {end}, the segment has {readable}");
            return Err(SegmentError::Corrupt {
                segment: id,
                file,
                range: readable..end,
                what,
            });
        }
        Ok(())
    }

    /// The open file of a shared segment.
    pub(crate) fn shared_file(&self, id: SegmentId) -> Result<Arc<SharedFile>> {
        let segment = self.context.table.get(id).ok_or_else(|| self.missing(id))?;
        if let Some(file) = segment.shared_file() {
            return Ok(file);
        }
        let path = self.context.folder.shared(id);
        let file = self
            .context
            .disk
            .open(&path, OpenHow::Read)
            .map_err(|e| match e.kind() {
                ErrorKind::NotFound => self.missing(id),
                _ => SegmentError::disk("open", &path, e),
            })?;
        let file = Arc::new(SharedFile { id, path, file });
        segment.set_shared_file(&file);
        self.context.table.keep_shared(&file);
        Ok(file)
    }

    /// The open file of a dedicated segment, with its sums.
    pub(crate) fn dedicated_file(&self, id: SegmentId) -> Result<Arc<DedicatedFile>> {
        let segment = self.context.table.get(id).ok_or_else(|| self.missing(id))?;
        let file = match segment.dedicated_file() {
            Some(file) => file,
            None => {
                let scan = self.scanner().log(id, None)?;
                let file = DedicatedFile::new(id, scan.data_path, scan.data, scan.sums);
                segment.set_dedicated_file(&file);
                file
            }
        };
        self.context.table.keep_dedicated(&file);
        Ok(file)
    }

    pub(crate) fn scanner(&self) -> Scanner<'_> {
        let context = &self.context;
        Scanner {
            disk: &context.disk,
            folder: &context.folder,
            cluster: Some(&context.identity.cluster),
            depth: Depth::Quick,
        }
    }

    pub(crate) fn missing(&self, id: SegmentId) -> SegmentError {
        let file = self.context.folder.path().join(id.to_string());
        SegmentError::Missing {
            file,
            what: format!("segment {id}, which a stored layout names"),
        }
    }

    /// Flushes and closes everything. Appends were refused before.
    pub(crate) async fn close(&self) {
        let logs: Vec<_> = self.logs.lock().drain(..).filter_map(|log| log.upgrade()).collect();
        for log in logs {
            log.demand(Demand::Now);
            log.idle().await;
            log.close_down();
        }
        let drafts: Vec<_> = self
            .drafts
            .lock()
            .drain(..)
            .filter_map(|draft| draft.upgrade())
            .collect();
        for draft in drafts {
            task::blocking(move || draft.close_down()).await;
        }
        self.shared.idle().await;
        let shared = Arc::clone(&self.shared);
        task::blocking(move || shared.close()).await;
        self.context.reclaimer.idle().await;
        let manifest = Arc::clone(&self.context.manifest);
        if let Err(e) = task::blocking(move || manifest.flush()).await {
            tracing::warn!(folder = %self.context.folder.path().display(), error = %e, "cannot enter the lengths of closed segments");
        }
    }

    pub(crate) fn unlock(&self) {
        *self.lock.lock() = None;
    }
}
