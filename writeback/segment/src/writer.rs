//! Appends to one stream and decides where its bytes go.
//!
//! 1. *Packed*: records in the shared log, while the stream is small.
//! 2. *Dedicated*: once it outgrows [`Settings::dedicated_from_bytes`](crate::Settings), or has too many appends to be listed in a
//!    row, or said at its creation that it would. What was packed by then is written once more, to the front of the new file.
//!
//! Both lie in the folder that the stream was begun in, if that has room; when it refuses a packed append, the stream goes on in a dedicated
//! segment in another one. A dedicated segment stays where it is.
//!
//! An append that failed or was cancelled has added nothing; after a cancelled one the writer can only be discarded.

use crate::{
    coming::OnTheWay,
    data_folder::DataFolder,
    dedicated::{Appended, DedicatedLog, Resumed},
    error::{Result, SegmentError},
    flusher::Demand,
    follower::Follower,
    layout::{Append, Extent, Layout, Stable, StableWatch, StreamId},
    reader::read_extent,
    record::{Kind, NOTE_BYTES_MAX},
    recovery::RecoveredStream,
    shared::Packed,
    state::{Placed, StreamState},
    store::Inner,
    sums::{BLOCK_BYTES, Blocks},
};
use bytes::Bytes;
use forebay_runtime::{crash_point, task};
use std::sync::Arc;

/// Most appends of a packed stream: its layout must fit into the caller's row.
const PACKED_APPENDS_MAX: u64 = 256;
/// Appends up to this are copied on the spot, larger ones on a thread that may block.
const INLINE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of one write call: a larger one holds the file's lock in the kernel for so long that the flush beside it starves.
const PIECE_BYTES: usize = 512 << 10;
/// Most bytes of notes that wait in memory for a flush.
const NOTE_BYTES_WAITING_MAX: u64 = 64 << 20;

/// The one writer of a stream. Dropped without a seal, it leaves the stream unsealed: the next start finds what was durable.
#[derive(Debug)]
pub struct Writer {
    store: Arc<Inner>,
    /// Where it is packed.
    folder: Arc<DataFolder>,
    state: Arc<StreamState>,
    written: u64,
    appends: u64,
    place: Place,
    /// An append is under way; stays set when it is cancelled.
    busy: bool,
    /// Until it asks for its first flush, or is no small stream any more.
    on_the_way: Option<OnTheWay>,
}

#[derive(Debug)]
enum Place {
    Packed {
        /// Where each append ends, and its note.
        history: Vec<(u64, Bytes)>,
        crc: u32,
        /// How large the stream will be, when that is too large.
        large: Option<u64>,
    },
    Dedicated {
        log: Arc<DedicatedLog>,
        blocks: Box<Blocks>,
    },
}

impl Writer {
    pub(crate) fn new(store: Arc<Inner>, stream: StreamId, size_hint: Option<u64>) -> Writer {
        let large = size_hint.filter(|size| *size > store.settings().dedicated_from_bytes.0);
        let folder = match large {
            None => store.place(size_hint.unwrap_or(0)),
            // It gets its place when it is there.
            Some(_) => Arc::clone(store.home()),
        };
        let state = StreamState::new(stream, Stable::default());
        let place = Place::Packed {
            history: Vec::new(),
            crc: 0,
            large,
        };
        let on_the_way = large.is_none().then(|| folder.shared.coming().begin());
        Writer {
            store,
            folder,
            state,
            written: 0,
            appends: 0,
            place,
            busy: false,
            on_the_way,
        }
    }

    pub(crate) fn resume(store: Arc<Inner>, stream: StreamId, found: RecoveredStream) -> Result<Writer> {
        let (written, appends) = (found.layout.len(), found.appends.len() as u64);
        let state = StreamState::new(
            stream,
            Stable {
                bytes: written,
                appends,
                poisoned: None,
            },
        );
        let extra = store.take_extra(stream);
        // A stream without bytes may have appends all the same, and the next one belongs beside them.
        let first = match &found.layout {
            Layout::Dedicated { segment, .. } => Some(*segment),
            Layout::Packed(extents) => extents.first().map(|extent| extent.segment),
            Layout::Empty => extra.first().map(|extra| extra.segment),
        };
        let folder = match first {
            Some(segment) => Arc::clone(store.folder(segment)?),
            None => store.place(0),
        };
        let place = match &found.layout {
            Layout::Dedicated { segment, len } => {
                let (log, blocks) = resume_dedicated(&folder, &state, *segment, *len)?;
                Place::Dedicated { log, blocks }
            }
            Layout::Empty => Place::packed(&found),
            Layout::Packed(extents) => {
                place_extents(&store, &state, extents)?;
                Place::packed(&found)
            }
        };
        for extra in extra {
            let context = &store.folder(extra.segment)?.context;
            if let Some(segment) = context.table.get(extra.segment) {
                state.add_extra(context, segment, extra);
            }
        }
        Ok(Writer {
            store,
            folder,
            state,
            written,
            appends,
            place,
            busy: false,
            on_the_way: None,
        })
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.state.id
    }

    /// Bytes appended, durable or not.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether its bytes lie in the shared log.
    pub fn is_packed(&self) -> bool {
        matches!(self.place, Place::Packed { .. })
    }

    /// CRC32C of everything appended.
    pub fn crc(&self) -> u32 {
        match &self.place {
            Place::Packed { crc, .. } => *crc,
            Place::Dedicated { blocks, .. } => blocks.whole(),
        }
    }

    /// Adds `chunks`, one after the other, with a note of at most 16 MiB that is durable with them. They are in the page cache when this
    /// returns, and a flush is under way soon; watch [`Writer::stable`] or call [`Writer::sync`]. Answers the new length.
    ///
    /// `Full`: nothing was added; try again when there is room. `Poisoned`: the stream has to be written again, under a new id.
    pub async fn append(&mut self, chunks: &[Bytes], note: Bytes) -> Result<u64> {
        let len: u64 = chunks.iter().map(|c| c.len() as u64).sum();
        if self.busy {
            return Err(self.invalid("an append was cancelled before its end".into()));
        }
        if note.len() > NOTE_BYTES_MAX {
            return Err(self.invalid(format!("a note of {} bytes, {NOTE_BYTES_MAX} are the most", note.len())));
        }
        self.check_poisoned()?;
        self.busy = true;
        let added = self.append_checked(chunks, len, note).await;
        self.busy = false;
        added?;
        self.written += len;
        self.appends += 1;
        Ok(self.written)
    }

    async fn append_checked(&mut self, chunks: &[Bytes], len: u64, note: Bytes) -> Result<()> {
        if self.outgrows(len + note.len() as u64) {
            self.outgrow(len).await?;
        }
        match &self.place {
            Place::Packed { .. } => match self.append_packed(chunks, len, note.clone()).await {
                Err(refused) if refused.may_go_elsewhere() => self.append_elsewhere(chunks, len, note, refused).await,
                done => done,
            },
            Place::Dedicated { log, .. } if log.is_sealed() => Err(self.invalid("it is sealed".into())),
            Place::Dedicated { .. } => self.append_dedicated(chunks, len, note).await,
        }
    }

    /// Its folder refused an append; nothing of it lies there.
    async fn append_elsewhere(&mut self, chunks: &[Bytes], len: u64, note: Bytes, refused: SegmentError) -> Result<()> {
        let size = self.written + len;
        let Some(folder) = self.store.elsewhere(size, &[self.folder.number()]) else {
            return Err(refused);
        };
        self.go_dedicated(folder, size).await?;
        self.append_dedicated(chunks, len, note).await
    }

    fn outgrows(&self, more: u64) -> bool {
        match &self.place {
            Place::Packed { history, large, .. } => {
                let notes: u64 = history.iter().map(|(_, note)| note.len() as u64).sum();
                let size = self.written.saturating_add(more).saturating_add(notes);
                large.is_some()
                    || size > self.store.settings().dedicated_from_bytes.0
                    || self.appends >= PACKED_APPENDS_MAX
            }
            Place::Dedicated { .. } => false,
        }
    }

    async fn append_packed(&mut self, chunks: &[Bytes], len: u64, note: Bytes) -> Result<()> {
        let (offset, number) = (self.written, self.appends);
        let extent = if len <= INLINE_BYTES_MAX {
            let packed = Packed {
                stream: &self.state,
                offset,
                number,
                note: &note,
                chunks,
            };
            self.folder.shared.append(&packed)?
        } else {
            let (folder, stream) = (Arc::clone(&self.folder), Arc::clone(&self.state));
            let (note, chunks) = (note.clone(), chunks.to_vec());
            task::blocking(move || {
                let packed = Packed {
                    stream: &stream,
                    offset,
                    number,
                    note: &note,
                    chunks: &chunks,
                };
                folder.shared.append(&packed)
            })
            .await?
        };
        if let Place::Packed { history, crc, .. } = &mut self.place {
            *crc = crate::crc::combine(*crc, extent.crc, len);
            history.push((offset + len, note));
        }
        self.folder.shared.demand(Demand::Soon);
        Ok(())
    }

    async fn append_dedicated(&mut self, chunks: &[Bytes], len: u64, note: Bytes) -> Result<()> {
        let Place::Dedicated { log, blocks } = &mut self.place else {
            unreachable!("only called for dedicated streams")
        };
        if log.note_bytes() > NOTE_BYTES_WAITING_MAX {
            log.demand(Demand::Now);
            log.idle().await;
        }
        let offset = self.written;
        if len <= INLINE_BYTES_MAX {
            log.write(chunks, offset)?;
            blocks.add(chunks);
        } else {
            let (log, chunks, mut summed) = (Arc::clone(log), chunks.to_vec(), blocks.clone());
            // Should it fail, the sums stay as they were.
            *blocks = task::blocking(move || write_pieces(&log, &chunks, offset, &mut summed).map(|()| summed)).await?;
        }
        let added = Appended {
            blocks: blocks.take_done(),
            tail_crc: blocks.tail_crc(),
            appends: vec![(offset + len, note)],
        };
        log.appended(added, offset + len, self.appends + 1);
        Ok(())
    }

    /// Gives a stream that is too large to be packed, with `more` bytes to come, a segment of its own.
    async fn outgrow(&mut self, more: u64) -> Result<()> {
        let begun_large = match &self.place {
            Place::Packed { large, .. } => *large,
            Place::Dedicated { .. } => None,
        };
        let size = begun_large.unwrap_or(0).max(self.written + more);
        let stays = || begun_large.is_none() && self.folder.context.room().is_some_and(|room| room > size);
        let folder = match self.store.is_one_folder() || stays() {
            true => Arc::clone(&self.folder),
            false => self.store.place(size),
        };
        self.go_dedicated(folder, size).await
    }

    /// Moves the stream to a segment of its own, in `folder` or where there is room for `size` bytes, with what was packed so far at its
    /// front.
    async fn go_dedicated(&mut self, folder: Arc<DataFolder>, size: u64) -> Result<()> {
        self.on_the_way = None;
        let (store, state) = (Arc::clone(&self.store), Arc::clone(&self.state));
        let moved = task::blocking(move || store.anywhere(folder, size, |folder| move_out(folder, &state))).await;
        if moved.is_err() {
            // A segment that failed meanwhile was cut to what was durable: then no byte is damaged, these were just never acknowledged.
            self.check_poisoned()?;
        }
        let (log, mut blocks) = moved?;
        if let Place::Packed { history, .. } = &mut self.place {
            let appends = std::mem::take(history);
            if !appends.is_empty() {
                let added = Appended {
                    blocks: blocks.take_done(),
                    tail_crc: blocks.tail_crc(),
                    appends,
                };
                log.appended(added, self.written, self.appends);
            }
        }
        self.state.switch(log.file());
        self.place = Place::Dedicated { log, blocks };
        crash_point!("dedicated-switch");
        Ok(())
    }

    /// How far the stream is durable, as it grows.
    pub fn stable(&self) -> StableWatch {
        self.state.stable()
    }

    /// Waits until everything appended is durable. `Poisoned`: it never will be.
    pub async fn sync(&mut self) -> Result<Stable> {
        self.on_the_way = None;
        self.demand();
        self.all_stable().await
    }

    /// Reads what is durable while the stream grows.
    pub fn follow(&self) -> Follower {
        Follower::new(Arc::clone(&self.state))
    }

    /// Ends the stream: waits until everything is durable and answers where it lies. Costs no flush beyond the one its last bytes ride in.
    /// Followers can go on reading.
    ///
    /// When it fails, the stream is discarded: nobody has a handle to it any more. Only after a shutdown it is left for the next start.
    pub async fn seal(mut self) -> Result<Layout> {
        self.on_the_way = None;
        let sealed = self.seal_or_not().await;
        if sealed.is_err() && !self.store.is_closed() {
            self.discard();
        }
        sealed
    }

    async fn seal_or_not(&self) -> Result<Layout> {
        if self.busy {
            return Err(self.invalid("an append was cancelled before its end".into()));
        }
        match &self.place {
            Place::Dedicated { log, .. } => {
                log.seal();
                self.all_stable().await?;
                self.sealed(log).await?;
                if self.written == 0 {
                    log.give_up();
                    return Ok(Layout::Empty);
                }
                Ok(Layout::Dedicated {
                    segment: log.segment().id,
                    len: self.written,
                })
            }
            Place::Packed { .. } => {
                self.demand();
                self.all_stable().await?;
                self.folder
                    .shared
                    .hint(Kind::Seal, self.state.id, self.written, self.appends);
                self.store.keep_extra(self.state.id, self.state.take_extra());
                let extents: Vec<Extent> = self.state.packed().into_iter().map(|placed| placed.extent).collect();
                Ok(if extents.is_empty() {
                    Layout::Empty
                } else {
                    Layout::Packed(extents)
                })
            }
        }
    }

    /// Forgets the stream and reclaims its room.
    pub fn discard(self) {
        if self.appends > 0 {
            self.folder
                .shared
                .hint(Kind::Drop, self.state.id, self.written, self.appends);
        }
        if let Place::Dedicated { log, .. } = &self.place {
            log.give_up();
        }
        self.state.release_packed();
    }

    fn demand(&self) {
        match &self.place {
            Place::Packed { .. } => self.folder.shared.demand(Demand::Now),
            Place::Dedicated { log, .. } => log.demand(Demand::Now),
        }
    }

    async fn all_stable(&self) -> Result<Stable> {
        let all = |s: &Stable| s.bytes >= self.written && s.appends >= self.appends;
        let mut watch = self.state.stable();
        let stable = watch.wait_for(|s| all(s) || s.poisoned.is_some()).await;
        let stable = stable.expect("the writer holds the sender's owner").clone();
        if all(&stable) {
            Ok(stable)
        } else {
            Err(self.poisoned(stable.poisoned))
        }
    }

    async fn sealed(&self, log: &DedicatedLog) -> Result<()> {
        let mut watch = self.state.stable();
        let stable = watch.wait_for(|s| log.is_sealed() || s.poisoned.is_some()).await;
        let poisoned = stable.expect("the writer holds the sender's owner").poisoned.clone();
        if log.is_sealed() {
            Ok(())
        } else {
            Err(self.poisoned(poisoned))
        }
    }

    fn check_poisoned(&self) -> Result<()> {
        match self.state.poisoned() {
            Some(reason) => Err(self.poisoned(Some(reason))),
            None => Ok(()),
        }
    }

    fn poisoned(&self, reason: Option<String>) -> SegmentError {
        let segment = match &self.place {
            Place::Dedicated { log, .. } => log.segment().id,
            Place::Packed { .. } => self
                .state
                .packed()
                .last()
                .map_or(crate::SegmentId(0), |placed| placed.extent.segment),
        };
        SegmentError::Poisoned {
            segment,
            reason: reason.unwrap_or_default(),
        }
    }

    fn invalid(&self, what: String) -> SegmentError {
        SegmentError::Invalid {
            stream: self.state.id,
            what,
        }
    }
}

impl Place {
    fn packed(found: &RecoveredStream) -> Place {
        let history = found
            .appends
            .iter()
            .map(|Append { range, note }| (range.end, note.clone()))
            .collect();
        Place::Packed {
            history,
            crc: found.crc,
            large: None,
        }
    }
}

/// Writes chunks one piece after the other and sums each up while it is still in the processor's cache.
fn write_pieces(log: &DedicatedLog, chunks: &[Bytes], mut offset: u64, blocks: &mut Blocks) -> Result<()> {
    let (mut piece, mut len) = (Vec::new(), 0);
    let mut write = |piece: &mut Vec<Bytes>, len: usize| {
        log.write(piece, offset)?;
        blocks.add(piece);
        offset += len as u64;
        piece.clear();
        Ok(())
    };
    for chunk in chunks {
        let mut rest = chunk.clone();
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PIECE_BYTES - len));
            len += part.len();
            piece.push(part);
            if len == PIECE_BYTES {
                write(&mut piece, std::mem::take(&mut len))?;
            }
        }
    }
    write(&mut piece, len)
}

/// Makes a dedicated segment and copies into it what the stream has packed.
fn move_out(folder: &DataFolder, state: &Arc<StreamState>) -> Result<(Arc<DedicatedLog>, Box<Blocks>)> {
    let log = DedicatedLog::create(&folder.context, folder.flusher("flush dedicated"), state)?;
    let mut blocks = Box::new(Blocks::new());
    let copied = state.packed().iter().try_for_each(|placed| {
        let bytes = [read_extent(&placed.file, &placed.extent)?];
        log.write(&bytes, placed.offset)?;
        blocks.add(&bytes);
        Ok(())
    });
    match copied {
        Ok(()) => {
            folder.track(&log);
            Ok((log, blocks))
        }
        Err(e) => {
            log.give_up();
            Err(e)
        }
    }
}

fn place_extents(store: &Inner, state: &StreamState, extents: &[Extent]) -> Result<()> {
    let mut offset = 0;
    for extent in extents {
        let folder = store.folder(extent.segment)?;
        let file = folder.shared_file(extent.segment)?;
        let Some(segment) = folder.context.table.get(extent.segment) else {
            continue;
        };
        state.add_packed(Placed {
            offset,
            extent: *extent,
            context: Arc::clone(&folder.context),
            segment,
            file,
        });
        offset += u64::from(extent.len);
    }
    Ok(())
}

fn resume_dedicated(
    folder: &DataFolder,
    state: &Arc<StreamState>,
    id: crate::SegmentId,
    len: u64,
) -> Result<(Arc<DedicatedLog>, Box<Blocks>)> {
    let scan = folder.scanner().log(id, None)?;
    let corrupt = |what: &str| SegmentError::Corrupt {
        segment: id,
        file: folder.context.folder.log(id),
        range: 0..scan.end,
        what: what.to_owned(),
    };
    if scan.bytes != len {
        return Err(corrupt("the log has another length than at the start"));
    }
    let file = folder.dedicated_file(id)?;
    let Some(segment) = folder.context.table.get(id) else {
        return Err(corrupt("it was given up"));
    };
    let tail_at = len / BLOCK_BYTES * BLOCK_BYTES;
    let tail = file.read(&(tail_at..len))?;
    let before = scan.sums.before_tail();
    let mut blocks = Box::new(Blocks::resume(before));
    blocks.add(&[tail]);
    let from = Resumed {
        bytes: scan.bytes,
        appends: scan.appends.len() as u64,
        end: scan.end,
        sealed: scan.sealed,
    };
    let log = DedicatedLog::resume(
        &folder.context,
        folder.flusher("flush dedicated"),
        state,
        segment,
        file,
        &from,
    )?;
    folder.track(&log);
    state.switch(log.file());
    Ok((log, blocks))
}
