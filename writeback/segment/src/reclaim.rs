//! Removes the files of segments that nobody needs, off everybody's way: first from the list, durably, then from the folder.

use crate::{
    flusher::{Demand, Flush, Flusher},
    folder::Folder,
    manifest::{Manifest, SegmentKind},
    table::{Segment, Table},
};
use forebay_runtime::disk::DiskRef;
use parking_lot::Mutex;
use std::{io::ErrorKind, path::PathBuf, sync::Arc};

/// Takes segments and makes their files go.
#[derive(Debug)]
pub(crate) struct Reclaimer {
    flusher: Arc<Flusher>,
    work: Arc<Work>,
}

#[derive(Debug)]
struct Work {
    disk: DiskRef,
    folder: Folder,
    manifest: Arc<Manifest>,
    table: Arc<Table>,
    queue: Mutex<Vec<Arc<Segment>>>,
}

impl Reclaimer {
    pub(crate) fn new(
        flusher: Arc<Flusher>,
        disk: DiskRef,
        folder: Folder,
        manifest: Arc<Manifest>,
        table: Arc<Table>,
    ) -> Self {
        let work = Arc::new(Work {
            disk,
            folder,
            manifest,
            table,
            queue: Mutex::new(Vec::new()),
        });
        Reclaimer { flusher, work }
    }

    /// Gives up a segment. Open files and mappings of it stay good.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        self.work.queue.lock().push(segment);
        self.flusher.demand(Demand::Soon, &self.work);
    }

    /// Returns when the files of everything given up are gone.
    pub(crate) async fn idle(&self) {
        self.flusher.idle().await;
    }
}

impl Flush for Work {
    fn flush(&self) {
        let mut segments = std::mem::take(&mut *self.queue.lock());
        segments.retain(|segment| segment.give_up());
        let ids: Vec<_> = segments.iter().map(|s| s.id).collect();
        if let Err(e) = self.manifest.removed(&ids) {
            // The files stay until the next start drops them.
            tracing::warn!(segments = ids.len(), error = %e, "cannot enter the removal of segments");
            return;
        }
        for segment in segments {
            self.table.remove(segment.id);
            for path in files(&self.folder, &segment) {
                match self.disk.remove(&path) {
                    Err(e) if e.kind() != ErrorKind::NotFound => {
                        tracing::warn!(path = %path.display(), error = %e, "cannot remove a segment nobody needs");
                    }
                    _ => {}
                }
            }
        }
    }
}

fn files(folder: &Folder, segment: &Segment) -> Vec<PathBuf> {
    match segment.kind {
        SegmentKind::Shared => vec![folder.shared(segment.id)],
        // The log last: without it the data says nothing, and a start would call it missing.
        SegmentKind::Dedicated => vec![folder.data(segment.id), folder.log(segment.id)],
    }
}
