//! Reading a dedicated segment: slices of one mapping, each block compared with its checksum before its first slice goes out.

use crate::{
    crc::crc32c,
    error::{Result, SegmentError},
    layout::SegmentId,
    sums::{BLOCK_BYTES, Check, Sums},
};
use bytes::Bytes;
use forebay_runtime::disk::DiskFile;
use parking_lot::Mutex;
use std::{ops::Range, path::PathBuf, sync::Arc};

/// The data file and its sums.
#[derive(Debug)]
pub(crate) struct DedicatedFile {
    id: SegmentId,
    path: PathBuf,
    data: Arc<dyn DiskFile>,
    sums: Sums,
    /// The longest mapping so far.
    map: Mutex<Bytes>,
}

impl DedicatedFile {
    pub(crate) fn new(id: SegmentId, path: PathBuf, data: Arc<dyn DiskFile>, sums: Sums) -> Arc<Self> {
        Arc::new(DedicatedFile {
            id,
            path,
            data,
            sums,
            map: Mutex::new(Bytes::new()),
        })
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(crate) fn data(&self) -> &Arc<dyn DiskFile> {
        &self.data
    }

    pub(crate) fn sums(&self) -> &Sums {
        &self.sums
    }

    /// Durable bytes.
    pub(crate) fn len(&self) -> u64 {
        self.sums.len()
    }

    /// The bytes of `range`, if no block of it is still to be compared. Does not block.
    pub(crate) fn at_hand(&self, range: &Range<u64>) -> Option<Bytes> {
        if range.end > self.len() || !self.sums.unverified(range).is_empty() {
            return None;
        }
        let map = self.map.lock();
        (map.len() as u64 >= range.end).then(|| map.slice(range.start as usize..range.end as usize))
    }

    /// The bytes of `range`, which must be durable. Blocks.
    pub(crate) fn read(&self, range: &Range<u64>) -> Result<Bytes> {
        self.verify(range)?;
        let mut map = self.map.lock();
        if (map.len() as u64) < range.end {
            *map = self.map_all()?;
        }
        Ok(map.slice(range.start as usize..range.end as usize))
    }

    /// Compares every block of `range` that was not compared yet. Read by the file, not by the mapping: a disk error is
    /// an error there, and the end of the process here.
    pub(crate) fn verify(&self, range: &Range<u64>) -> Result<()> {
        let mut scratch = Vec::new();
        for check in self.sums.unverified(range) {
            self.compare(&check, &mut scratch)?;
            self.sums.verified(&check);
        }
        Ok(())
    }

    /// Compares one block with the file, whether it was compared before or not.
    pub(crate) fn compare(&self, check: &Check, scratch: &mut Vec<u8>) -> Result<()> {
        let Range { start, end } = check.range;
        scratch.resize((end - start).min(BLOCK_BYTES) as usize, 0);
        let got = self
            .data
            .read_at(scratch, start)
            .map_err(|e| SegmentError::disk("read", &self.path, e))?;
        if got < scratch.len() {
            return Err(self.corrupt(start + got as u64..end, "the file is shorter than what was written"));
        }
        if crc32c(scratch) != check.crc {
            self.sums.doubt(&check.range);
            return Err(self.corrupt(check.range.clone(), "block fails its checksum"));
        }
        Ok(())
    }

    fn map_all(&self) -> Result<Bytes> {
        let failed = |e| SegmentError::disk("map", &self.path, e);
        let (len, there) = (self.len(), self.data.len().map_err(failed)?);
        if there < len {
            return Err(self.corrupt(there..len, "the file is shorter than what was written"));
        }
        self.data.map(len).map_err(failed)
    }

    fn corrupt(&self, range: Range<u64>, what: &str) -> SegmentError {
        SegmentError::Corrupt {
            segment: self.id,
            file: self.path.clone(),
            range,
            what: what.to_owned(),
        }
    }
}
