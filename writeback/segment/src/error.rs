//! What can go wrong, each with what, where and what to do.

use crate::layout::{SegmentId, StreamId};
use forebay_runtime::disk::{DiskError, is_full};
use std::{io, ops::Range, path::Path, path::PathBuf, sync::Arc};

/// Result of this crate.
pub(crate) type Result<T, E = SegmentError> = std::result::Result<T, E>;

/// An error of the segment store. Cheap to clone: it is told to everyone it concerns.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SegmentError {
    /// No room on the disk; nothing of the append was acknowledged. Retry when there is room.
    #[error("{}: no room on the disk ({needed} bytes needed, {free} free); free space or wait until dirty data is persisted", folder.display())]
    Full {
        /// The data folder.
        folder: PathBuf,
        /// Bytes that were to be written.
        needed: u64,
        /// Bytes that the disk had left.
        free: u64,
    },
    /// A write or flush failed; what was not stable then never will be. Write the stream again, under a new id.
    #[error(
        "segment {segment} took no more writes after a failure: {reason}; what was not acknowledged has to be written again"
    )]
    Poisoned {
        /// The segment.
        segment: SegmentId,
        /// What failed.
        reason: String,
    },
    /// Stored bytes are not what was written.
    #[error("segment {segment} is damaged ({}, bytes {}..{}): {what}; restore the file from a copy or run `forebay fsck`", file.display(), range.start, range.end)]
    Corrupt {
        /// The segment.
        segment: SegmentId,
        /// Its file.
        file: PathBuf,
        /// The damaged bytes of the file.
        range: Range<u64>,
        /// What is wrong.
        what: String,
    },
    /// A file that must be there is not.
    #[error("{}: missing ({what}); put the file back, or give up its content with an empty data folder", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// What it is, and how we know of it.
        what: String,
    },
    /// The folder belongs to another cluster.
    #[error("{}: belongs to cluster {found}, not {expected}; choose the right data folder or metastore", folder.display())]
    Foreign {
        /// The folder or file.
        folder: PathBuf,
        /// Whose it is, in hex.
        found: String,
        /// Whose it should be, in hex.
        expected: String,
    },
    /// A data folder of the store is not among those that were named, or is empty.
    #[error(
        "data folder {number} of this store is not among the {named} that are named; mount its disk, or name the folder (an empty folder is never taken for it)"
    )]
    FolderMissing {
        /// Its number.
        number: u8,
        /// Folders that were named.
        named: usize,
    },
    /// The folder can not be one of this store's.
    #[error("{}: {what}", folder.display())]
    Misplaced {
        /// The folder.
        folder: PathBuf,
        /// Why not, and what to do.
        what: String,
    },
    /// Another process has the folder open.
    #[error("{}: in use by another process; stop it, or choose another data folder", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// The file system forgets at a power cut.
    #[error("{}: lies in memory (tmpfs or ramfs), which no acknowledged write survives; choose a folder on a disk, or the ack level `memory`", folder.display())]
    NotDurable {
        /// The folder.
        folder: PathBuf,
    },
    /// Written by a newer version.
    #[error("{}: format version {found}, this program knows up to {known}; run the newer version", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that we read.
        known: u32,
    },
    /// The call cannot be met: a size or range out of bounds.
    #[error("stream {stream}: {what}")]
    Invalid {
        /// The stream.
        stream: StreamId,
        /// What is wrong with the call.
        what: String,
    },
    /// The store is shut down.
    #[error("the segment store is shut down")]
    Closed,
    /// The disk refused something else.
    #[error(transparent)]
    Disk(#[from] Arc<DiskError>),
}

impl SegmentError {
    pub(crate) fn disk(action: &'static str, path: &Path, source: io::Error) -> Self {
        SegmentError::Disk(Arc::new(DiskError {
            action,
            path: path.to_owned(),
            source,
        }))
    }

    /// Whether the disk had no room.
    pub fn is_full(&self) -> bool {
        match self {
            SegmentError::Full { .. } => true,
            SegmentError::Disk(e) => is_full(&e.source),
            _ => false,
        }
    }

    /// Whether another disk may take what this one refused: nothing of it was written here.
    pub(crate) fn may_go_elsewhere(&self) -> bool {
        matches!(self, SegmentError::Full { .. } | SegmentError::Disk(_))
    }
}
