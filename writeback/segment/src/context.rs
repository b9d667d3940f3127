//! What every part of an open store has at hand.

use crate::{
    error::SegmentError,
    folder::Folder,
    header::{FileKind, Header, Member},
    layout::{SegmentId, StreamId},
    manifest::Manifest,
    reclaim::Reclaimer,
    reserve::Reserve,
    settings::{Identity, Settings},
    table::Table,
};
use forebay_runtime::{
    clock::ClockRef,
    disk::{DiskRef, is_full},
    task::Tasks,
};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) disk: DiskRef,
    pub(crate) clock: ClockRef,
    pub(crate) folder: Folder,
    pub(crate) identity: Identity,
    pub(crate) incarnation: u64,
    pub(crate) settings: Settings,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) reserve: Reserve,
    pub(crate) table: Arc<Table>,
    pub(crate) reclaimer: Reclaimer,
    pub(crate) tasks: Tasks,
    pub(crate) segments_made: AtomicU64,
    pub(crate) closed: AtomicBool,
}

impl Context {
    /// An id that no segment of this folder ever had: each open has its own incarnation, durable before the first segment.
    pub(crate) fn next_id(&self) -> SegmentId {
        SegmentId(self.incarnation << 32 | self.segments_made.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn header(&self, kind: FileKind, segment: SegmentId, stream: StreamId) -> Header {
        header(
            &self.identity,
            self.incarnation,
            self.clock.now(),
            kind,
            segment,
            stream,
        )
    }

    /// Whether an append may begin.
    pub(crate) fn may_append(&self, needed: u64) -> Result<(), SegmentError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(SegmentError::Closed);
        }
        if self.reserve.may_append() {
            Ok(())
        } else {
            Err(self.full(needed))
        }
    }

    /// What a failed write or creation means: `Full`, with the reserve given up, or what the disk said.
    pub(crate) fn refused(&self, action: &'static str, path: &Path, needed: u64, error: io::Error) -> SegmentError {
        if is_full(&error) {
            self.reserve.give();
            return self.full(needed);
        }
        SegmentError::disk(action, path, error)
    }

    fn full(&self, needed: u64) -> SegmentError {
        SegmentError::Full {
            folder: self.folder.path().to_owned(),
            needed,
            free: self.reserve.free().unwrap_or(0),
        }
    }
}

/// What a crash point before a flush asks for: `return(error)` makes the flush fail.
pub(crate) fn asked_to_fail(answer: Option<String>, path: &Path) -> Result<(), SegmentError> {
    match answer.as_deref() {
        Some("error") => Err(SegmentError::disk(
            "fdatasync",
            path,
            io::Error::other("asked to fail by a crash point"),
        )),
        _ => Ok(()),
    }
}

/// A header of this node's.
pub(crate) fn header(
    identity: &Identity,
    incarnation: u64,
    created: forebay_runtime::clock::Timestamp,
    kind: FileKind,
    segment: SegmentId,
    stream: StreamId,
) -> Header {
    Header {
        kind,
        cluster: identity.cluster,
        segment,
        incarnation,
        epoch: 0,
        created,
        stream,
        members: vec![Member {
            incarnation,
            node: identity.node.clone(),
        }],
    }
}
