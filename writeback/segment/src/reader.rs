//! Reads sealed streams. Every byte is compared with its checksum before it is first handed out.

use crate::{
    crc::crc32c,
    dedicated::DedicatedFile,
    error::{Result, SegmentError},
    layout::{Extent, Layout, StreamId},
    store::Inner,
    sums::BLOCK_BYTES,
    table::SharedFile,
};
use bytes::Bytes;
use forebay_runtime::task;
use parking_lot::Mutex;
use std::{ops::Range, os::fd::RawFd, path::PathBuf, sync::Arc};

/// Bytes that are compared without a pause.
const COMPARED_AT_ONCE: u64 = 32 * BLOCK_BYTES;

/// Reads one sealed stream. Holds what it needs: it stays good after a release. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    stream: StreamId,
    len: u64,
    source: Arc<Source>,
}

#[derive(Debug)]
enum Source {
    Empty,
    Packed {
        /// Where each run begins in the stream, and where it lies.
        runs: Vec<(u64, Extent, Arc<SharedFile>)>,
        /// The run read last: a reader that goes through it in steps reads and compares it once.
        last: Mutex<Option<(usize, Bytes)>>,
    },
    Dedicated(Arc<DedicatedFile>),
}

impl Reader {
    pub(crate) fn new(store: &Inner, stream: StreamId, layout: Layout) -> Result<Reader> {
        let len = layout.len();
        let source = match layout {
            Layout::Empty => Source::Empty,
            Layout::Packed(extents) => {
                let mut runs = Vec::with_capacity(extents.len());
                let mut offset = 0;
                for extent in extents {
                    runs.push((
                        offset,
                        extent,
                        store.folder(extent.segment)?.shared_file(extent.segment)?,
                    ));
                    offset += u64::from(extent.len);
                }
                Source::Packed {
                    runs,
                    last: Mutex::new(None),
                }
            }
            Layout::Dedicated { segment, .. } => Source::Dedicated(store.folder(segment)?.dedicated_file(segment)?),
        };
        Ok(Reader {
            stream,
            len,
            source: Arc::new(source),
        })
    }

    /// Bytes of the stream.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of `range`, in chunks. Of a dedicated segment they are slices of its mapping: no copy.
    ///
    /// `Corrupt`: they are not what was written. `Invalid`: the range ends beyond the stream.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        if range.start > range.end || range.end > self.len {
            let what = format!("bytes {}..{} of {}", range.start, range.end, self.len);
            return Err(SegmentError::Invalid {
                stream: self.stream,
                what,
            });
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        match &*self.source {
            Source::Dedicated(file) if let Some(bytes) = file.at_hand(&range) => return Ok(vec![bytes]),
            _ => {}
        }
        let source = Arc::clone(&self.source);
        task::blocking(move || source.read(&range)).await
    }

    /// Compares all bytes with their checksums as they lie there now, those that were compared before too. `Corrupt` names the first that
    /// are not what was written.
    pub async fn compare(&self) -> Result<()> {
        let mut at = 0;
        while at < self.len {
            let (source, range) = (Arc::clone(&self.source), at..self.len.min(at + COMPARED_AT_ONCE));
            at = range.end;
            task::blocking(move || source.compare(&range)).await?;
        }
        Ok(())
    }

    /// The whole content of a dedicated segment as one mapping, compared with its checksums; `None` when the stream is packed.
    pub async fn mapped(&self) -> Result<Option<Bytes>> {
        match &*self.source {
            Source::Dedicated(_) => Ok(self.read(0..self.len).await?.pop()),
            _ => Ok(None),
        }
    }

    /// The local file of a dedicated segment, whose first `len` bytes are the content, and its descriptor while this reader lives.
    pub fn file(&self) -> Option<(PathBuf, RawFd)> {
        match &*self.source {
            Source::Dedicated(file) => Some((file.path().clone(), file.data().raw_fd()?)),
            _ => None,
        }
    }
}

impl Source {
    fn read(&self, range: &Range<u64>) -> Result<Vec<Bytes>> {
        match self {
            Source::Empty => Ok(Vec::new()),
            Source::Dedicated(file) => Ok(vec![file.read(range)?]),
            Source::Packed { runs, last } => {
                let first = runs.partition_point(|(offset, extent, _)| offset + u64::from(extent.len) <= range.start);
                let mut chunks = Vec::new();
                for (i, (offset, extent, file)) in runs.iter().enumerate().skip(first) {
                    if *offset >= range.end {
                        break;
                    }
                    let cached = last
                        .lock()
                        .as_ref()
                        .filter(|(index, _)| *index == i)
                        .map(|(_, bytes)| bytes.clone());
                    let bytes = match cached {
                        Some(bytes) => bytes,
                        None => read_extent(file, extent)?,
                    };
                    *last.lock() = Some((i, bytes.clone()));
                    chunks.push(cut(&bytes, *offset, range));
                }
                Ok(chunks)
            }
        }
    }

    /// Compares what begins in `range`, which begins with a block of the checksums.
    fn compare(&self, range: &Range<u64>) -> Result<()> {
        match self {
            Source::Empty => Ok(()),
            Source::Dedicated(file) => {
                let mut scratch = Vec::new();
                let checks = file.sums().all(range);
                checks.iter().try_for_each(|check| file.compare(check, &mut scratch))
            }
            Source::Packed { runs, .. } => {
                let mut within = runs.iter().filter(|(offset, ..)| range.contains(offset));
                within.try_for_each(|(_, extent, file)| read_extent(file, extent).map(drop))
            }
        }
    }
}

/// The part of `range` that lies in `bytes`, which begin at `offset` of the stream.
pub(crate) fn cut(bytes: &Bytes, offset: u64, range: &Range<u64>) -> Bytes {
    let from = range.start.saturating_sub(offset) as usize;
    let to = ((range.end - offset) as usize).min(bytes.len());
    bytes.slice(from..to)
}

/// Reads one packed run whole and compares it with its checksum. Blocks.
pub(crate) fn read_extent(file: &SharedFile, extent: &Extent) -> Result<Bytes> {
    let mut bytes = vec![0; extent.len as usize];
    let got = file
        .file
        .read_at(&mut bytes, extent.at)
        .map_err(|e| SegmentError::disk("read", &file.path, e))?;
    let what = if got < bytes.len() {
        "the file is shorter than what was written"
    } else if crc32c(&bytes) != extent.crc {
        "payload fails its checksum"
    } else {
        return Ok(bytes.into());
    };
    Err(SegmentError::Corrupt {
        segment: extent.segment,
        file: file.path.clone(),
        range: extent.at..extent.at + u64::from(extent.len),
        what: what.into(),
    })
}
