//! Reads one segment as a start or a check finds it, and says what is wrong with it. Changes nothing.

use crate::{
    error::{Result, SegmentError},
    folder::Folder,
    header::{FileKind, HEADER_BYTES, Header},
    index::{Entry, TRAILER_BYTES, footer_at},
    layout::{Append, SegmentId, StreamId},
    manifest::{Closed, Known},
    record::{HEAD_BYTES, Kind, Progress},
    replay::{Record, ReplayError, Window, record_at, replay},
    sums::{BLOCK_BYTES, Sums},
};
use bytes::Bytes;
use forebay_runtime::disk::{DiskFile, DiskRef, OpenHow};
use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// For a start: trust the footer of a closed segment; files are opened for repair.
    Quick,
    /// For a check: read every record; files are opened read-only.
    Full,
}

/// What a scan needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanner<'a> {
    pub(crate) disk: &'a DiskRef,
    pub(crate) folder: &'a Folder,
    pub(crate) cluster: Option<&'a [u8; 16]>,
    pub(crate) depth: Depth,
}

/// A shared segment.
#[derive(Debug)]
pub(crate) struct SharedScan {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    /// Its records, with their notes.
    pub(crate) records: Vec<(Entry, Bytes)>,
    /// Where the records end.
    pub(crate) end: u64,
    /// Whether a footer is in place.
    pub(crate) closed: Option<Closed>,
    pub(crate) torn: bool,
}

/// The log of a dedicated segment.
#[derive(Debug)]
pub(crate) struct LogScan {
    pub(crate) stream: StreamId,
    pub(crate) log: Arc<dyn DiskFile>,
    pub(crate) data: Arc<dyn DiskFile>,
    pub(crate) data_path: PathBuf,
    pub(crate) sums: Sums,
    pub(crate) appends: Vec<Append>,
    pub(crate) bytes: u64,
    /// Where the records end.
    pub(crate) end: u64,
    pub(crate) sealed: bool,
    /// The data is still changed in place: it has no sums, and is as long as its file.
    pub(crate) draft: bool,
    pub(crate) torn: bool,
}

/// One file that is read, for errors that name it.
struct Place<'a> {
    id: SegmentId,
    path: &'a Path,
}

impl Place<'_> {
    fn disk(&self, e: io::Error) -> SegmentError {
        SegmentError::disk("read", self.path, e)
    }

    fn corrupt(&self, range: std::ops::Range<u64>, what: impl Into<String>) -> SegmentError {
        SegmentError::Corrupt {
            segment: self.id,
            file: self.path.to_owned(),
            range,
            what: what.into(),
        }
    }

    fn replay(&self, e: ReplayError) -> SegmentError {
        match e {
            ReplayError::Disk(e) => self.disk(e),
            ReplayError::Damaged { range, what } => self.corrupt(range, what),
        }
    }

    /// Refuses a file that is shorter than it was known to be.
    fn at_least(&self, len: u64, known: u64) -> Result<()> {
        if len < known {
            return Err(self.corrupt(len..known, format!("the file is cut: it had {known} bytes")));
        }
        Ok(())
    }
}

impl Scanner<'_> {
    fn open(&self, id: SegmentId, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let how = match self.depth {
            Depth::Quick => OpenHow::Write,
            Depth::Full => OpenHow::Read,
        };
        match self.disk.open(path, how) {
            Err(e) if e.kind() == ErrorKind::NotFound => Err(SegmentError::Missing {
                file: path.to_owned(),
                what: format!("segment {id}, which the manifest lists"),
            }),
            opened => opened.map_err(|e| SegmentError::disk("open", path, e)),
        }
    }

    fn header(&self, place: &Place<'_>, window: &mut Window<'_>, kind: FileKind) -> Result<Header> {
        let n = window.len().min(HEADER_BYTES) as usize;
        let bytes = window.get(0, n).map_err(|e| place.disk(e))?.unwrap_or_default();
        Header::expect(bytes, place.path, kind, place.id, self.cluster)
    }

    pub(crate) fn shared(&self, id: SegmentId, known: Option<&Known>) -> Result<SharedScan> {
        let path = self.folder.shared(id);
        let file = self.open(id, &path)?;
        let place = Place { id, path: &path };
        let mut window = Window::new(&*file).map_err(|e| place.disk(e))?;
        self.header(&place, &mut window, FileKind::Shared)?;
        let closed = known.and_then(|k| k.closed);
        if let Some(closed) = closed {
            place.at_least(window.len(), closed.file)?;
        }
        let quick = match self.depth {
            Depth::Quick => by_footer(&place, &mut window)?,
            Depth::Full => None,
        };
        let (records, end, footer, torn) = match quick {
            Some((records, at)) => (records, at, Some(at), false),
            None => by_records(&place, &mut window)?,
        };
        if let Some(closed) = closed.filter(|closed| end < closed.content) {
            return Err(place.corrupt(end..closed.content, "records fail their checksums in a closed segment"));
        }
        let closed = footer.map(|content| Closed {
            file: window.len(),
            content,
        });
        drop(window);
        Ok(SharedScan {
            file,
            path,
            records,
            end,
            closed,
            torn,
        })
    }

    pub(crate) fn log(&self, id: SegmentId, known: Option<&Known>) -> Result<LogScan> {
        let (path, data_path) = (self.folder.log(id), self.folder.data(id));
        let log = self.open(id, &path)?;
        let place = Place { id, path: &path };
        let mut window = Window::new(&*log).map_err(|e| place.disk(e))?;
        let header = self.header(&place, &mut window, FileKind::DedicatedLog)?;
        let closed = known.and_then(|k| k.closed);
        if let Some(closed) = closed {
            place.at_least(window.len(), closed.file)?;
        }
        let mut found = LogContent::default();
        let replayed = replay(&mut window, id, |record| found.add(&record)).map_err(|e| place.replay(e))?;
        // What an unfinished seal left behind is no part of a draft.
        let draft_end = found.draft_end.filter(|_| !found.sealed);
        let end = draft_end.unwrap_or(replayed.end);
        let cut = |closed: &Closed| match draft_end {
            Some(end) => end < closed.file,
            None => found.bytes < closed.content,
        };
        if let Some(closed) = closed.filter(cut) {
            return Err(place.corrupt(end..closed.file, "records fail their checksums that had been durable"));
        }
        drop(window);

        let data = self.open(id, &data_path)?;
        let place = Place { id, path: &data_path };
        let data_bytes = data.len().map_err(|e| place.disk(e))?;
        let content = match draft_end {
            Some(_) => LogContent {
                bytes: data_bytes,
                ..LogContent::default()
            },
            None => found,
        };
        place.at_least(data_bytes, closed.map_or(0, |closed| closed.content).max(content.bytes))?;
        Ok(LogScan {
            stream: header.stream,
            log,
            data,
            data_path,
            sums: content.sums,
            appends: content.appends,
            bytes: content.bytes,
            end,
            sealed: content.sealed,
            draft: draft_end.is_some(),
            torn: replayed.torn || replayed.end > end,
        })
    }
}

type Records = Vec<(Entry, Bytes)>;

/// The records as the footer lists them, and where it begins; `None` when there is no good one.
fn by_footer(place: &Place<'_>, window: &mut Window<'_>) -> Result<Option<(Records, u64)>> {
    let Some(trailer_at) = window.len().checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    let bytes = window.get(trailer_at, TRAILER_BYTES).map_err(|e| place.disk(e))?;
    let Some(at) = bytes.and_then(|bytes| footer_at(place.id, bytes)) else {
        return Ok(None);
    };
    let footer = record_at(window, place.id, at).map_err(|e| place.disk(e))?;
    let entries = footer
        .filter(|r| r.head.kind == Kind::Footer)
        .and_then(|r| Entry::decode_all(r.payload));
    let Some(entries) = entries else { return Ok(None) };
    let mut records = Vec::with_capacity(entries.len());
    for entry in entries {
        records.push((entry, note(place, window, &entry)?));
    }
    Ok(Some((records, at)))
}

fn note(place: &Place<'_>, window: &mut Window<'_>, entry: &Entry) -> Result<Bytes> {
    if entry.note_len == 0 {
        return Ok(Bytes::new());
    }
    let len = HEAD_BYTES + entry.note_len as usize;
    let bytes = window.get(entry.at, len).map_err(|e| place.disk(e))?;
    let good = bytes.filter(|bytes| {
        let head = crate::record::Head::parse(bytes);
        head.is_some_and(|head| head.note_len == entry.note_len && head.verify(place.id, entry.at, bytes))
    });
    match good {
        Some(bytes) => Ok(Bytes::copy_from_slice(&bytes[HEAD_BYTES..])),
        None => Err(place.corrupt(entry.at..entry.at + len as u64, "record fails its checksum")),
    }
}

/// The records one after the other: what there is, where it ends, where a footer begins, whether more follows.
fn by_records(place: &Place<'_>, window: &mut Window<'_>) -> Result<(Records, u64, Option<u64>, bool)> {
    let (mut records, mut footer) = (Vec::new(), None);
    let replayed = replay(window, place.id, |record| {
        match record.head.kind {
            Kind::Footer => footer = Some(record.at),
            _ => records.push((Entry::new(record.at, &record.head), Bytes::copy_from_slice(record.note))),
        }
        Ok(())
    });
    let replayed = replayed.map_err(|e| place.replay(e))?;
    let Some(at) = footer else {
        return Ok((records, replayed.end, None, replayed.torn));
    };
    // Behind a footer lies the trailer and nothing else.
    let n = window.len() - replayed.end;
    let trailer = window.get(replayed.end, n as usize).map_err(|e| place.disk(e))?;
    let whole = trailer.and_then(|bytes| footer_at(place.id, bytes)) == Some(at);
    Ok((records, at, whole.then_some(at), !whole))
}

/// What the records of a log add up to.
#[derive(Debug, Default)]
struct LogContent {
    sums: Sums,
    blocks: u64,
    appends: Vec<Append>,
    bytes: u64,
    sealed: bool,
    /// Of a file that is or was a draft: where the records end that came before its seal.
    draft_end: Option<u64>,
}

impl LogContent {
    fn add(&mut self, record: &Record<'_>) -> Result<(), String> {
        let end = record.at + record.head.record_len();
        match record.head.kind {
            Kind::Draft if self.is_empty() && self.draft_end.is_none() => {
                self.draft_end = Some(end);
                Ok(())
            }
            Kind::Mark => {
                if self.is_empty() {
                    self.draft_end = self.draft_end.map(|_| end);
                }
                Ok(())
            }
            Kind::Progress if !self.sealed => {
                let progress = Progress::decode(record.payload).ok_or("no progress in a record of progress")?;
                self.progress(progress)
            }
            Kind::Seal if record.head.offset == self.bytes && record.head.number == self.appends.len() as u64 => {
                self.sealed = true;
                Ok(())
            }
            kind => Err(format!("a record of kind {kind:?} that does not belong there")),
        }
    }

    /// Whether no progress and no seal came so far.
    fn is_empty(&self) -> bool {
        self.bytes == 0 && self.appends.is_empty() && !self.sealed
    }

    fn progress(&mut self, progress: Progress) -> Result<(), String> {
        self.blocks += progress.blocks.len() as u64;
        if progress.bytes < self.bytes || self.blocks != progress.bytes / BLOCK_BYTES {
            return Err("lengths and checksums that do not fit together".into());
        }
        self.sums.extend(&progress.blocks, progress.bytes, progress.tail_crc);
        for (end, note) in progress.appends {
            let start = self.appends.last().map_or(0, |append| append.range.end);
            if end < start || end > progress.bytes {
                return Err("appends that do not follow each other".into());
            }
            self.appends.push(Append {
                range: start..end,
                note,
            });
        }
        self.bytes = progress.bytes;
        match self.appends.last() {
            Some(last) if last.range.end == self.bytes => Ok(()),
            None if self.bytes == 0 => Ok(()),
            _ => Err("bytes that no append wrote".into()),
        }
    }
}
