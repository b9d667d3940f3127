//! The shared log: small streams packed into one file after another, and the flush that they share.
//!
//! Appends are written to the page cache under one lock, so records lie back to back in the order of their acknowledgement. A flush covers
//! everything written before it began; a segment that is full is flushed with a footer and closed, while the next one takes appends. A new
//! segment costs its creator no flush: the first flush of its records enters it into the manifest.
//!
//! A write that finds no room leaves the segment as it was. Any other failed write, and any failed flush, ends the segment: it is cut back to
//! what was durable, so that no later start takes pages for durable that the disk never got, and the next append begins a new one.

use crate::{
    coming::Coming,
    context::{Context, asked_to_fail},
    crc::crc32c_chunks,
    error::{Result, SegmentError},
    flusher::{Demand, Flush, Flusher},
    header::{FileKind, HEADER_BYTES},
    index::{Entry, trailer},
    layout::{Extent, StreamId},
    manifest::{Closed, SegmentKind},
    record::{Head, Kind, frame},
    state::{Placed, StreamState},
    table::{Phase, Segment, SharedFile},
};
use bytes::Bytes;
use forebay_runtime::{crash_point, disk::OpenHow};
use parking_lot::Mutex;
use std::sync::{Arc, atomic::Ordering};

/// Room is reserved in steps of this.
const ALLOCATE_BYTES: u64 = 8 << 20;

/// The shared log of a store.
#[derive(Debug)]
pub(crate) struct SharedLog {
    context: Arc<Context>,
    flusher: Arc<Flusher>,
    coming: Arc<Coming>,
    tail: Mutex<Tail>,
    /// One flush at a time, whoever runs it.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Tail {
    /// Takes appends.
    current: Option<Active>,
    /// Full, to be flushed and closed, or failed, to be cut; oldest first.
    full: Vec<Active>,
    /// Nothing is appended any more.
    closed: bool,
}

/// A segment that is not closed yet.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: Arc<SharedFile>,
    /// Where the next record goes.
    end: u64,
    synced: u64,
    allocated: u64,
    /// Whether the manifest knows it.
    entered: bool,
    index: Vec<Entry>,
    /// Appends that no flush covered yet.
    pending: Vec<Pending>,
    /// A write failed; a flush under way may still make durable what came before.
    failed: bool,
}

#[derive(Debug)]
struct Pending {
    stream: Arc<StreamState>,
    bytes: u64,
    appends: u64,
}

/// An append to a packed stream.
#[derive(Debug)]
pub(crate) struct Packed<'a> {
    pub(crate) stream: &'a Arc<StreamState>,
    /// Bytes and appends of the stream before it.
    pub(crate) offset: u64,
    pub(crate) number: u64,
    pub(crate) note: &'a Bytes,
    pub(crate) chunks: &'a [Bytes],
}

/// What a flush covers of one segment.
#[derive(Debug)]
struct Round {
    segment: Arc<Segment>,
    file: Arc<SharedFile>,
    end: u64,
    entered: bool,
    full: bool,
    pending: Vec<Pending>,
}

impl SharedLog {
    /// `flusher` holds on for those in `coming`.
    pub(crate) fn new(context: Arc<Context>, flusher: Arc<Flusher>, coming: Arc<Coming>) -> Arc<Self> {
        Arc::new(SharedLog {
            context,
            flusher,
            coming,
            tail: Mutex::default(),
            flushing: Mutex::new(()),
        })
    }

    /// Streams that will soon want a flush.
    pub(crate) fn coming(&self) -> &Arc<Coming> {
        &self.coming
    }

    /// Asks for a flush of everything appended so far.
    pub(crate) fn demand(self: &Arc<Self>, demand: Demand) {
        self.flusher.demand(demand, self);
    }

    /// Returns when all flushes that were asked for are done.
    pub(crate) async fn idle(&self) {
        self.flusher.idle().await;
    }

    /// Writes one append to the page cache. Blocks for as long as the copy takes.
    pub(crate) fn append(self: &Arc<Self>, append: &Packed<'_>) -> Result<Extent> {
        let payload: u64 = append.chunks.iter().map(|c| c.len() as u64).sum();
        let mut head = Head {
            note_len: append.note.len() as u32,
            payload_len: u32::try_from(payload).expect("longer appends go to dedicated segments"),
            payload_crc: crc32c_chunks(append.chunks),
            stream: append.stream.id,
            offset: append.offset,
            number: append.number,
            ..Head::bare(Kind::Append, 0)
        };
        self.context.may_append(head.record_len())?;

        let mut tail = self.tail.lock();
        if tail.closed {
            return Err(SegmentError::Closed);
        }
        let rolled = self.make_room(&mut tail, head.record_len())?;
        let active = tail.current.as_mut().expect("just made room in it");
        head.synced = active.synced;
        let segment = active.segment.id;
        let at = match self.write(active, &head, append.note, append.chunks) {
            Ok(at) => at,
            Err(e) if e.is_full() && active.take_back() => return Err(e),
            Err(e) => {
                let poisoned = self.write_failed(&mut tail, &e);
                // Its record may lie on the disk whole. Were the stream to go on elsewhere, a start would find both.
                append.stream.poison(segment, &poisoned.to_string());
                return Err(poisoned);
            }
        };
        let extent = Extent {
            segment: active.segment.id,
            at: head.payload_at(at),
            len: head.payload_len,
            crc: head.payload_crc,
        };
        active.segment.hold(payload);
        active.pend(append.stream, append.offset + payload, append.number + 1);
        append.stream.add_packed(Placed {
            offset: append.offset,
            extent,
            context: Arc::clone(&self.context),
            segment: Arc::clone(&active.segment),
            file: Arc::clone(&active.file),
        });
        drop(tail);
        if rolled {
            self.demand(Demand::Now);
        }
        Ok(extent)
    }

    /// Leaves a hint for recovery, durable with some later flush or never: nothing hangs on it.
    pub(crate) fn hint(self: &Arc<Self>, kind: Kind, stream: StreamId, bytes: u64, appends: u64) {
        let mut tail = self.tail.lock();
        let Some(active) = tail.current.as_mut() else { return };
        if active.end + HEADER_BYTES > active.allocated.min(self.limit()) {
            return;
        }
        let head = Head {
            stream,
            offset: bytes,
            number: appends,
            ..Head::bare(kind, active.synced)
        };
        if let Err(e) = self.write(active, &head, &Bytes::new(), &[])
            && !(e.is_full() && active.take_back())
        {
            self.write_failed(&mut tail, &e);
        }
    }

    /// Flushes and closes everything; no append comes any more.
    pub(crate) fn close(&self) {
        {
            let mut tail = self.tail.lock();
            tail.closed = true;
            let current = tail.current.take();
            tail.full.extend(current);
        }
        self.flush();
    }

    fn limit(&self) -> u64 {
        self.context.settings.shared_bytes_max.0
    }

    /// Sees to it that the current segment can take a record of `len`. True when another one was full.
    fn make_room(&self, tail: &mut Tail, len: u64) -> Result<bool> {
        let fits = |active: &Active| active.end + len <= self.limit() || active.index.is_empty();
        let mut rolled = false;
        if !tail.current.as_ref().is_some_and(fits) {
            let next = self.create()?;
            rolled = tail.current.is_some();
            let full = tail.current.replace(next);
            tail.full.extend(full);
        }
        let active = tail.current.as_mut().expect("there is one by now");
        if active.end + len > active.allocated {
            let path = &active.file.path;
            let step = len.max(ALLOCATE_BYTES);
            let reserved = active.file.file.allocate(active.end, step).map(|()| step).or_else(|_| {
                // Not a whole step any more, but perhaps the record itself.
                active.file.file.allocate(active.end, len).map(|()| len)
            });
            let reserved = reserved.map_err(|e| self.context.refused("allocate", path, len, e))?;
            active.allocated = active.end + reserved;
            active.segment.file_bytes.store(active.allocated, Ordering::Relaxed);
        }
        Ok(rolled)
    }

    fn create(&self) -> Result<Active> {
        let context = &self.context;
        let id = context.next_id();
        let path = context.folder.shared(id);
        let refused = |e| context.refused("create", &path, HEADER_BYTES, e);
        let file = context.disk.open(&path, OpenHow::CreateNew).map_err(refused)?;
        let header = context.header(FileKind::Shared, id, StreamId(0, 0)).encode();
        if let Err(e) = file.write_all_at(&[header], 0) {
            // An empty file under this name would be dropped by the next start, too.
            let _ = context.disk.remove(&path);
            return Err(refused(e));
        }
        let segment = Segment::new(id, SegmentKind::Shared, StreamId(0, 0));
        let file = Arc::new(SharedFile { id, path, file });
        segment.set_shared_file(&file);
        segment.file_bytes.store(HEADER_BYTES, Ordering::Relaxed);
        context.table.insert(&segment);
        Ok(Active {
            segment,
            file,
            end: HEADER_BYTES,
            synced: 0,
            allocated: HEADER_BYTES,
            entered: false,
            index: Vec::new(),
            pending: Vec::new(),
            failed: false,
        })
    }

    /// Writes a record at the end of `active`. Answers where it begins.
    fn write(&self, active: &mut Active, head: &Head, note: &Bytes, payload: &[Bytes]) -> Result<u64> {
        let at = active.end;
        let chunks = frame(head, active.segment.id, at, note, payload);
        active.file.file.write_all_at(&chunks, at).map_err(|e| {
            let path = &active.file.path;
            self.context.refused("write", path, head.record_len(), e)
        })?;
        active.end += head.record_len();
        active.segment.readable.store(active.end, Ordering::Relaxed);
        active.index.push(Entry::new(at, head));
        Ok(at)
    }

    /// Ends the current segment after a failed write: what no flush has begun to cover will never be durable.
    fn write_failed(self: &Arc<Self>, tail: &mut Tail, error: &SegmentError) -> SegmentError {
        let reason = error.to_string();
        let mut active = tail.current.take().expect("a write to it just failed");
        let segment = active.segment.id;
        active.failed = true;
        active.segment.set_phase(Phase::Poisoned(reason.clone()));
        std::mem::take(&mut active.pending)
            .iter()
            .for_each(|pending| pending.stream.poison(segment, &reason));
        tail.full.push(active);
        // A flush under way may be about to acknowledge what came before: only the next one may cut the file.
        self.demand(Demand::Now);
        SegmentError::Poisoned { segment, reason }
    }

    /// Cuts a failed segment back to what was durable.
    fn bury(&self, active: Active) {
        let Active {
            segment,
            file,
            synced,
            entered,
            ..
        } = active;
        let reason = segment.poisoned().unwrap_or_default();
        tracing::error!(segment = %segment.id, path = %file.path.display(), reason, "segment takes no more writes");
        segment.readable.store(synced, Ordering::Relaxed);
        if let Err(e) = file.file.set_len(synced.max(HEADER_BYTES)) {
            tracing::warn!(path = %file.path.display(), error = %e, "cannot cut a failed segment back to what was durable");
        }
        if !entered || segment.may_go() {
            // Nothing in it was ever acknowledged, or nobody needs it any more.
            self.context.reclaimer.push(segment);
        }
    }

    fn rounds(&self) -> Vec<Round> {
        let mut tail = self.tail.lock();
        let Tail { current, full, .. } = &mut *tail;
        let full = full
            .iter_mut()
            .filter(|active| !active.failed)
            .map(|active| active.round(true));
        let current = current
            .iter_mut()
            .filter(|active| !active.pending.is_empty())
            .map(|active| active.round(false));
        full.chain(current).collect()
    }

    fn write_round(&self, round: &Round) -> Result<()> {
        if !self.context.settings.fsync {
            return Ok(());
        }
        round
            .file
            .file
            .sync_data()
            .map_err(|e| SegmentError::disk("fdatasync", &round.file.path, e))?;
        if !round.entered {
            round.segment.enter(&self.context.manifest)?;
        }
        Ok(())
    }

    fn settle(&self, round: Round) {
        let mut tail = self.tail.lock();
        let active = tail
            .find(&round.segment)
            .expect("only a flush takes a segment out, and this is the only one");
        (active.synced, active.entered) = (round.end, true);
        if !active.failed && !round.full {
            self.mark(active);
        }
        let full = if round.full { tail.take(&round.segment) } else { None };
        drop(tail);
        round.acknowledge();
        if let Some(active) = full {
            self.finish(active);
        }
    }

    /// If nothing came after the flush, notes down how far it went: the next start can then tell damage from a torn tail.
    fn mark(&self, active: &mut Active) {
        if active.end == active.synced && active.end + HEADER_BYTES <= active.allocated {
            let head = Head::bare(Kind::Mark, active.synced);
            if let Err(e) = self.write(active, &head, &Bytes::new(), &[]) {
                // A mark that nobody counts on does no harm. The next append finds out whether the disk still takes writes.
                tracing::warn!(path = %active.file.path.display(), error = %e, "cannot note down how far a flush went");
            }
        }
    }

    fn fail(&self, round: Round, error: &SegmentError) {
        self.context.fails();
        let reason = error.to_string();
        let mut tail = self.tail.lock();
        let active = tail
            .take(&round.segment)
            .expect("only a flush takes a segment out, and this is the only one");
        active.segment.set_phase(Phase::Poisoned(reason.clone()));
        drop(tail);
        round
            .pending
            .iter()
            .chain(&active.pending)
            .for_each(|pending| pending.stream.poison(active.segment.id, &reason));
        self.bury(active);
    }

    fn bury_failed(&self) {
        let failed: Vec<Active> = self.tail.lock().full.extract_if(.., |active| active.failed).collect();
        failed.into_iter().for_each(|active| self.bury(active));
    }

    /// Writes the footer of a flushed segment and closes it. Without the footer the next start reads all records instead.
    fn finish(&self, mut active: Active) {
        let content = active.end;
        match self.write_footer(&mut active) {
            Ok(file) => {
                active.segment.file_bytes.store(file, Ordering::Relaxed);
                self.context
                    .manifest
                    .closed(active.segment.id, Closed { file, content });
            }
            Err(e) => {
                tracing::warn!(path = %active.file.path.display(), error = %e, "cannot write the footer of a segment");
                let _ = active.file.file.set_len(content);
            }
        }
        active.segment.readable.store(content, Ordering::Relaxed);
        active.segment.set_phase(Phase::Closed);
        if active.segment.may_go() {
            self.context.reclaimer.push(active.segment);
        }
    }

    fn write_footer(&self, active: &mut Active) -> Result<u64> {
        let index = std::mem::take(&mut active.index);
        let len = write_footer(&active.file, active.end, &index)?;
        if self.context.settings.fsync {
            active
                .file
                .file
                .sync_data()
                .map_err(|e| SegmentError::disk("fdatasync", &active.file.path, e))?;
        }
        Ok(len)
    }
}

/// Writes footer and trailer behind the records, which end at `end`, and frees the room reserved behind. Answers the file's length.
pub(crate) fn write_footer(file: &SharedFile, end: u64, index: &[Entry]) -> Result<u64> {
    let payload = Entry::encode_all(index);
    let head = Head {
        payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        payload_crc: crc32c_chunks(std::slice::from_ref(&payload)),
        ..Head::bare(Kind::Footer, end)
    };
    let mut chunks = frame(&head, file.id, end, &Bytes::new(), &[payload]);
    chunks.push(trailer(file.id, end));
    let len = end + chunks.iter().map(|c| c.len() as u64).sum::<u64>();
    let failed = |e| SegmentError::disk("write", &file.path, e);
    file.file.write_all_at(&chunks, end).map_err(failed)?;
    file.file.set_len(len).map_err(failed)?;
    Ok(len)
}

impl Flush for SharedLog {
    fn flush(&self) {
        let _one = self.flushing.lock();
        let rounds = self.rounds();
        // In order: a stream's later bytes may lie in a later segment.
        for round in rounds {
            let refused = match round.pending.is_empty() {
                true => Ok(()),
                false => asked_to_fail(crash_point!("data-written-not-synced"), &round.file.path),
            };
            match refused.and_then(|()| self.write_round(&round)) {
                Ok(()) => {
                    if !round.pending.is_empty() {
                        crash_point!("data-synced-not-acked");
                    }
                    self.settle(round);
                }
                Err(e) => self.fail(round, &e),
            }
        }
        self.bury_failed();
    }
}

impl Round {
    fn acknowledge(self) {
        for Pending { stream, bytes, appends } in self.pending {
            stream.advance(bytes, appends);
        }
    }
}

impl Active {
    fn pend(&mut self, stream: &Arc<StreamState>, bytes: u64, appends: u64) {
        match self.pending.last_mut() {
            Some(last) if Arc::ptr_eq(&last.stream, stream) => (last.bytes, last.appends) = (bytes, appends),
            _ => self.pending.push(Pending {
                stream: Arc::clone(stream),
                bytes,
                appends,
            }),
        }
    }

    /// Takes back what a write that found no room left behind the end: a record that was refused must not turn up at the next
    /// start, in the place of one that was acknowledged later. False when the disk refuses even that.
    fn take_back(&mut self) -> bool {
        self.allocated = self.end;
        self.segment.file_bytes.store(self.end, Ordering::Relaxed);
        self.file.file.set_len(self.end).is_ok()
    }

    fn round(&mut self, full: bool) -> Round {
        Round {
            segment: Arc::clone(&self.segment),
            file: Arc::clone(&self.file),
            end: self.end,
            entered: self.entered,
            full,
            pending: std::mem::take(&mut self.pending),
        }
    }
}

impl Tail {
    fn find(&mut self, segment: &Arc<Segment>) -> Option<&mut Active> {
        self.full
            .iter_mut()
            .chain(self.current.as_mut())
            .find(|active| Arc::ptr_eq(&active.segment, segment))
    }

    fn take(&mut self, segment: &Arc<Segment>) -> Option<Active> {
        if let Some(current) = self.current.take_if(|active| Arc::ptr_eq(&active.segment, segment)) {
            return Some(current);
        }
        let at = self
            .full
            .iter()
            .position(|active| Arc::ptr_eq(&active.segment, segment))?;
        Some(self.full.remove(at))
    }
}
