//! The log of a dedicated segment as a file: makes it, adds records, flushes, and takes back what was not flushed.

use crate::{
    context::Context,
    crc::crc32c,
    error::{Result, SegmentError},
    header::{FileKind, HEADER_BYTES},
    layout::{SegmentId, StreamId},
    manifest::SegmentKind,
    record::{Head, Kind, frame},
    table::Segment,
};
use bytes::Bytes;
use forebay_runtime::disk::{DiskFile, OpenHow, is_full};
use std::{path::PathBuf, sync::Arc};

/// Room is reserved in steps of this.
const ALLOCATE_BYTES: u64 = 64 << 10;

/// A log that is written to. Its owner sees to it that one call runs at a time.
#[derive(Debug)]
pub(crate) struct LogFile {
    context: Arc<Context>,
    segment: SegmentId,
    stream: StreamId,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Where the next record goes.
    end: u64,
    /// How much of it somebody may rely on.
    synced: u64,
    allocated: u64,
}

/// The files of a new segment.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) segment: Arc<Segment>,
    pub(crate) data_path: PathBuf,
    pub(crate) data: Arc<dyn DiskFile>,
    pub(crate) log: LogFile,
}

impl Made {
    /// Makes both files and enters the segment into the table. Costs no flush.
    pub(crate) fn create(context: &Arc<Context>, stream: StreamId) -> Result<Made> {
        let id = context.next_id();
        let (data_path, path) = (context.folder.data(id), context.folder.log(id));
        let made = Self::create_files(context, id, stream, data_path.clone());
        let made = made.inspect_err(|_| {
            // Of no use without each other; what cannot be removed the next start drops.
            let _ = (context.disk.remove(&data_path), context.disk.remove(&path));
        })?;
        context.table.insert(&made.segment);
        Ok(made)
    }

    fn create_files(context: &Arc<Context>, id: SegmentId, stream: StreamId, data_path: PathBuf) -> Result<Made> {
        let create = |path: &PathBuf| {
            let file = context.disk.open(path, OpenHow::CreateNew);
            file.map_err(|e| context.refused("create", path, HEADER_BYTES, e))
        };
        let data = create(&data_path)?;
        let path = context.folder.log(id);
        let file = create(&path)?;
        let header = context.header(FileKind::DedicatedLog, id, stream).encode();
        file.write_all_at(&[header], 0)
            .map_err(|e| context.refused("write", &path, HEADER_BYTES, e))?;
        Ok(Made {
            segment: Segment::new(id, SegmentKind::Dedicated, stream),
            data_path,
            data,
            log: LogFile {
                context: Arc::clone(context),
                segment: id,
                stream,
                path,
                file,
                end: HEADER_BYTES,
                synced: 0,
                allocated: 0,
            },
        })
    }
}

impl LogFile {
    /// Goes on with a recovered log behind `end`, up to which it is durable.
    pub(crate) fn resume(context: &Arc<Context>, segment: SegmentId, stream: StreamId, end: u64) -> Result<LogFile> {
        let path = context.folder.log(segment);
        let failed = |e| SegmentError::disk("open", &path, e);
        let file = context.disk.open(&path, OpenHow::Write).map_err(failed)?;
        file.set_len(end).map_err(failed)?;
        Ok(LogFile {
            context: Arc::clone(context),
            segment,
            stream,
            path,
            file,
            end,
            synced: end,
            allocated: 0,
        })
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Where the records end.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// How far it is durable.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Finds room for `bytes` more even on a full disk: the reserve is given up for it.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<()> {
        let end = self.end + bytes;
        if end <= self.allocated {
            return Ok(());
        }
        let step = (end - self.allocated).next_multiple_of(ALLOCATE_BYTES);
        let allocate = || self.file.allocate(self.allocated, step);
        let reserved = match allocate() {
            Err(e) if is_full(&e) && self.context.reserve.give() => allocate(),
            reserved => reserved,
        };
        reserved.map_err(|e| self.context.refused("allocate", &self.path, step, e))?;
        self.allocated += step;
        Ok(())
    }

    /// Adds a record that says that the stream has `bytes` and `appends`.
    pub(crate) fn append(&mut self, kind: Kind, bytes: u64, appends: u64, payload: Bytes) -> Result<()> {
        let head = Head {
            payload_len: u32::try_from(payload.len()).expect("notes that wait for a flush are bounded"),
            payload_crc: crc32c(&payload),
            stream: self.stream,
            offset: bytes,
            number: appends,
            ..Head::bare(kind, self.synced)
        };
        self.reserve(head.record_len())?;
        let chunks = frame(&head, self.segment, self.end, &Bytes::new(), &[payload]);
        self.file
            .write_all_at(&chunks, self.end)
            .map_err(|e| SegmentError::disk("write", &self.path, e))?;
        self.end += head.record_len();
        Ok(())
    }

    /// Makes everything durable that was added.
    pub(crate) fn sync(&self) -> Result<()> {
        if !self.context.settings.fsync {
            return Ok(());
        }
        self.file
            .sync_data()
            .map_err(|e| SegmentError::disk("fdatasync", &self.path, e))
    }

    /// What was added is durable, and so is all that belongs to it: from here on it stays.
    pub(crate) fn settle(&mut self) {
        self.synced = self.end;
    }

    /// Notes down how far the flush went: the next start can then tell damage of the last record from a torn tail.
    pub(crate) fn mark(&mut self) {
        let head = Head::bare(Kind::Mark, self.synced);
        let chunks = frame(&head, self.segment, self.end, &Bytes::new(), &[]);
        let room = self.end + head.record_len() <= self.allocated;
        if room && self.file.write_all_at(&chunks, self.end).is_ok() {
            self.end += head.record_len();
        }
    }

    /// Takes back what a failed flush may have left, so that no later start believes it.
    pub(crate) fn cut(&mut self) {
        self.end = self.synced.max(HEADER_BYTES);
        if let Err(e) = self.file.set_len(self.end) {
            tracing::warn!(path = %self.path.display(), error = %e, "cannot cut a failed log back to what was durable");
        }
    }

    /// Gives back the room that was reserved behind the end.
    pub(crate) fn trim(&self) -> std::io::Result<()> {
        self.file.set_len(self.end)
    }
}
