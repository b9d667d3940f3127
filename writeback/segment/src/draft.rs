//! A draft: a file that is changed in place, in any order and by many threads at once, until a seal makes a dedicated segment of it.
//!
//! 1. *Begun*: two files, data and log, that no manifest lists. The next start drops them.
//! 2. *Synced*: the data is durable, a record in the log says that it is a draft, the manifest lists it. From now on a start finds it, as
//!    long as its file is, with the bytes of the last sync; where it was changed since, old and new may be mixed, as in any file.
//! 3. *Sealed*: one pass over the data made the checksums, and the log ends with progress and seal. It takes no change any more, and
//!    nothing tells it from a stream that was appended.
//!
//! Why no checksums before the seal: a sum is of one state of its block, and would have to become durable in the same instant as that state.
//!
//! Crash consistency: a seal flushes the data before it writes to the log, and what it writes there counts only with the seal itself. A crash
//! in between leaves the draft; the next start cuts the rest from the log.
//!
//! A failed flush ends a draft ([`Poisoned`](crate::SegmentError::Poisoned)): the kernel takes the pages for clean, so a later flush would vouch for
//! bytes that the disk never got. What can be read of it may differ from what the next start finds.
//!
//! It does not own: who may change what and when (its caller's handles), and the names and lengths that others see.

mod file;
mod flush;
mod seal;

pub(crate) use file::DraftFile;

use crate::{
    context::Context,
    data_folder::DataFolder,
    error::Result,
    layout::{Layout, SegmentId, StreamId},
};
use forebay_runtime::{disk::Seek, task};
use std::{
    ops::Range,
    os::fd::RawFd,
    sync::{Arc, Weak},
};

/// A stream that is changed in place. All its calls may run side by side; those that are not `async` block for as long as the disk does,
/// mostly for a copy. Dropped without a seal, it is left for the next start, if it was ever synced.
///
/// `Full`: there was no room, and the length is what it was; try again when there is room. Where the call went over a hole, zeros and
/// new bytes may be mixed. `Disk` with a source of `FileTooLarge`: nothing was changed. Any other failure of a change or a flush is final:
/// `Poisoned` now and from then on, and the content has to be written again, under a new id.
#[derive(Debug)]
pub struct Draft {
    file: Arc<DraftFile>,
}

impl Draft {
    pub(crate) fn create(context: &Arc<Context>, stream: StreamId) -> Result<Draft> {
        let file = DraftFile::create(context, stream)?;
        Ok(Draft { file })
    }

    pub(crate) fn resume(folder: &DataFolder, stream: StreamId, segment: SegmentId) -> Result<Draft> {
        let file = DraftFile::resume(folder, stream, segment)?;
        Ok(Draft { file })
    }

    pub(crate) fn weak(&self) -> Weak<DraftFile> {
        Arc::downgrade(&self.file)
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.file.stream()
    }

    /// Bytes, holes included.
    pub fn len(&self) -> Result<u64> {
        self.file.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buffer.len()` bytes at `offset`; short only at the end. Holes are zeros. Works after a failure and after the seal, too.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Writes `bytes` at `offset`; what lies between the end and there becomes a hole.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_at(bytes, offset)
    }

    /// Cuts, or grows by a hole.
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    /// Makes zeros of `range` as far as there are bytes, and gives their room back. The length stays.
    pub fn punch(&self, range: Range<u64>) -> Result<()> {
        self.file.punch(range)
    }

    /// Makes sure that writes in `range` find room. A shorter draft grows to its end.
    pub fn allocate(&self, range: Range<u64>) -> Result<()> {
        self.file.allocate(range)
    }

    /// The next place at or behind `from` that has data; `None` when only a hole or nothing follows.
    pub fn seek_data(&self, from: u64) -> Result<Option<u64>> {
        self.file.seek(from, Seek::Data)
    }

    /// The next place at or behind `from` that has none, at the latest the end; `None` when `from` is not before the end.
    pub fn seek_hole(&self, from: u64) -> Result<Option<u64>> {
        self.file.seek(from, Seek::Hole)
    }

    /// The descriptor of the data, where the disk has one, while this draft lives. It may be written to by others until the seal begins.
    pub fn raw_fd(&self) -> Option<RawFd> {
        self.file.raw_fd()
    }

    /// Returns when everything written before the call survives a power cut. Calls that wait share a flush.
    pub async fn sync(&self) -> Result<()> {
        let file = Arc::clone(&self.file);
        let ticket = file.ask();
        task::blocking(move || file.sync(ticket)).await
    }

    /// Ends it: durable, with checksums, and not changed any more. Answers where it lies and the CRC32C of all its bytes; `Empty` when it
    /// has none, and then its files go.
    ///
    /// `Full`, or an error while reading: it is still a draft, and the seal can be tried again. A seal that was cancelled goes on to
    /// its end; asked again, it answers the same.
    pub async fn seal(&self) -> Result<(Layout, u32)> {
        let file = Arc::clone(&self.file);
        task::blocking(move || file.seal()).await
    }

    /// Where it lies, once it is sealed.
    pub fn sealed(&self) -> Option<Layout> {
        self.file.layout()
    }

    /// Forgets it and reclaims its room. A sealed one is given up by [`SegmentStore::release`](crate::SegmentStore::release) instead.
    pub fn discard(&self) {
        self.file.discard();
    }
}
