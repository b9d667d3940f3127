//! One content on its way into segments: the stream, and the dirty bytes it holds.
//!
//! 1. *Written*: every [`ContentWriter::append`] takes its permit first, then goes into the page cache.
//! 2. *Sealed*: durable and final, without a row that names it; a crash now leaves bytes that recovery gives back.
//! 3. *Kept*: a committed row names it; the bytes are dirty until someone settles them.
//!
//! Whatever is dropped before it is kept leaves nothing behind. Files and dataset parts are built on it. It does not own rows
//! nor names.

use super::dirty::Reservation;
use crate::{Result, cache::Inner};
use bytes::Bytes;
use forebay_namespace::Ino;
use forebay_segment::{Follower, Layout, RecoveredStream, SegmentStore, StableWatch, StreamId, Writer};
use std::sync::Arc;

/// A content on its way into segments, with the dirty bytes it holds. Dropped unsealed, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct ContentWriter {
    inner: Arc<Inner>,
    /// Some until it is sealed, left or dropped.
    writer: Option<Writer>,
    stream: StreamId,
    reservation: Reservation,
    /// Takes its permits whatever the limit says.
    goes_ahead: bool,
}

/// A sealed content. Dropped without [`SealedContent::keep`], its bytes are released.
#[derive(Debug)]
pub(crate) struct SealedContent {
    pub(crate) layout: Layout,
    pub(crate) len: u64,
    pub(crate) crc: u32,
    stream: StreamId,
    segments: SegmentStore,
    /// Some until it is kept or left in doubt.
    reservation: Option<Reservation>,
}

impl Inner {
    /// A writer for the content (inode, generation).
    pub(crate) fn content_writer(self: &Arc<Self>, ino: Ino, generation: u32, size_hint: Option<u64>) -> ContentWriter {
        let stream = StreamId(ino.0, generation);
        let writer = self.segments.create(stream, size_hint);
        ContentWriter {
            inner: Arc::clone(self),
            writer: Some(writer),
            stream,
            reservation: self.dirty.take(0),
            goes_ahead: false,
        }
    }

    /// A writer for a content that the persister makes out of another one, which goes when this one is there: it does not wait at the
    /// dirty limit, at which everyone else waits for the persister.
    pub(crate) fn persisters_writer(
        self: &Arc<Self>,
        ino: Ino,
        generation: u32,
        size_hint: Option<u64>,
    ) -> ContentWriter {
        let mut content = self.content_writer(ino, generation, size_hint);
        content.goes_ahead = true;
        content
    }

    /// A content that was sealed elsewhere, with what was taken for it: no less than its bytes.
    pub(crate) fn sealed_content(
        &self,
        stream: StreamId,
        layout: Layout,
        crc: u32,
        mut reservation: Reservation,
    ) -> SealedContent {
        let len = layout.len();
        reservation.shrink_to(len);
        SealedContent {
            layout,
            len,
            crc,
            stream,
            segments: self.segments.clone(),
            reservation: Some(reservation),
        }
    }

    /// Goes on with a content that recovery found unsealed, at its stable length.
    pub(crate) fn resume_content(self: &Arc<Self>, stream: StreamId, found: RecoveredStream) -> Result<ContentWriter> {
        let reservation = self.dirty.take(found.layout.len());
        let writer = self.segments.resume(stream, found)?;
        Ok(ContentWriter {
            inner: Arc::clone(self),
            writer: Some(writer),
            stream,
            reservation,
            goes_ahead: false,
        })
    }
}

impl ContentWriter {
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Appends `chunks` as one unit with its note (durable with it, seen by followers and recovery). Waits at the dirty limit.
    /// Answers how many bytes are written in all.
    pub(crate) async fn append(&mut self, chunks: &[Bytes], note: Bytes) -> Result<u64> {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        let permit = match self.goes_ahead {
            true => self.inner.dirty.take(bytes),
            false => self.inner.dirty.reserve(bytes).await?,
        };
        self.append_within(permit, chunks, note).await
    }

    /// The same with room that was taken before: it waits for none.
    pub(crate) async fn append_within(&mut self, room: Reservation, chunks: &[Bytes], note: Bytes) -> Result<u64> {
        self.reservation.join(room);
        Ok(self.writer_mut().append(chunks, note).await?)
    }

    pub(crate) fn stable(&self) -> StableWatch {
        self.writer().stable()
    }

    /// Whether it lies among other small contents, whose flushes it shares.
    pub(crate) fn is_packed(&self) -> bool {
        self.writer().is_packed()
    }

    pub(crate) fn follow(&self) -> Follower {
        self.writer().follow()
    }

    /// Durable and final.
    pub(crate) async fn seal(mut self) -> Result<SealedContent> {
        let writer = self.writer.take().expect("a content is sealed once");
        let (len, crc) = (writer.written(), writer.crc());
        let layout = writer.seal().await?;
        let reservation = std::mem::replace(&mut self.reservation, self.inner.dirty.take(0));
        Ok(SealedContent {
            layout,
            len,
            crc,
            stream: self.stream,
            segments: self.inner.segments.clone(),
            reservation: Some(reservation),
        })
    }

    /// Lets go of it without giving up its bytes: the next start finds what is stable of it. For a shutdown.
    pub(crate) fn leave(mut self) {
        drop(self.writer.take());
    }

    fn writer(&self) -> &Writer {
        self.writer.as_ref().expect("only seal, leave and drop take the writer")
    }

    fn writer_mut(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("only seal, leave and drop take the writer")
    }
}

impl Drop for ContentWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.discard();
        }
    }
}

impl SealedContent {
    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    /// After the commit that put the layout into a row: the bytes stay, and stay dirty.
    pub(crate) fn keep(mut self) {
        if let Some(reservation) = self.reservation.take() {
            reservation.keep(self.stream);
        }
    }

    /// What was taken for it, without giving up its bytes: it will be placed by another handle.
    pub(crate) fn take_back(mut self) -> Reservation {
        self.reservation
            .take()
            .expect("only keep and its like take the reservation")
    }

    /// After a commit whose outcome is unknown: the bytes must stay in case a row names them. The next recovery decides.
    pub(crate) fn in_doubt(mut self) {
        if let Some(reservation) = self.reservation.take() {
            tracing::warn!(stream = %self.stream, bytes = self.len, "unknown whether this content was committed; keeping its bytes");
            reservation.in_doubt();
        }
    }
}

impl Drop for SealedContent {
    fn drop(&mut self) {
        if self.reservation.is_some() {
            self.segments.release(self.stream, &self.layout);
        }
    }
}
