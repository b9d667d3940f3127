//! Writing a dedicated segment.

use super::{DedicatedFile, LogFile, Made};
use crate::{
    context::{Context, asked_to_fail},
    error::{Result, SegmentError},
    flusher::{Demand, Flush, Flusher},
    manifest::Closed,
    record::{Kind, Progress},
    state::StreamState,
    sums::Sums,
    table::{Phase, Segment},
};
use bytes::Bytes;
use forebay_runtime::{crash_point, disk::is_full};
use parking_lot::Mutex;
use std::sync::{Arc, atomic::Ordering};

/// A flush of data that nobody waits for begins at once when there is this much.
const FLUSH_BYTES: u64 = 4 << 20;

/// The writing side; lives until the stream is sealed.
#[derive(Debug)]
pub(crate) struct DedicatedLog {
    context: Arc<Context>,
    flusher: Arc<Flusher>,
    stream: Arc<StreamState>,
    segment: Arc<Segment>,
    file: Arc<DedicatedFile>,
    state: Mutex<State>,
    /// One flush at a time, whoever runs it.
    log: Mutex<LogFile>,
}

#[derive(Debug, Default)]
struct State {
    /// In the data file.
    bytes: u64,
    appends: u64,
    /// Since the last flush began.
    fresh: Appended,
    fresh_note_bytes: u64,
    /// Durable bytes and appends.
    stable: (u64, u64),
    seal: Seal,
    entered: bool,
    failed: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seal {
    #[default]
    No,
    Wanted,
    Done,
}

/// What appends added to the stream.
#[derive(Debug, Default)]
pub(crate) struct Appended {
    /// Sums of the blocks that became complete.
    pub(crate) blocks: Vec<u32>,
    /// Sum of the block that did not.
    pub(crate) tail_crc: u32,
    /// Where each append ends, and its note.
    pub(crate) appends: Vec<(u64, Bytes)>,
}

/// Where a recovered log goes on.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) bytes: u64,
    pub(crate) appends: u64,
    /// End of the last record.
    pub(crate) end: u64,
    /// Whether that is a seal.
    pub(crate) sealed: bool,
}

/// What a flush covers.
#[derive(Debug)]
struct Round {
    bytes: u64,
    appends: u64,
    fresh: Appended,
    data: bool,
    seal: bool,
    entered: bool,
}

impl DedicatedLog {
    /// Makes the files of a new segment. Costs no flush; the first one enters it into the manifest.
    pub(crate) fn create(
        context: &Arc<Context>,
        flusher: Arc<Flusher>,
        stream: &Arc<StreamState>,
    ) -> Result<Arc<Self>> {
        let Made {
            segment,
            data_path,
            data,
            log,
        } = Made::create(context, stream.id)?;
        let file = DedicatedFile::new(segment.id, data_path, data, Sums::default());
        Ok(Self::with(
            context,
            flusher,
            stream,
            segment,
            file,
            log,
            State::default(),
        ))
    }

    /// Goes on with a recovered segment behind its durable end.
    pub(crate) fn resume(
        context: &Arc<Context>,
        flusher: Arc<Flusher>,
        stream: &Arc<StreamState>,
        segment: Arc<Segment>,
        file: Arc<DedicatedFile>,
        from: &Resumed,
    ) -> Result<Arc<Self>> {
        let log = LogFile::resume(context, segment.id, stream.id, from.end)?;
        let state = State {
            bytes: from.bytes,
            appends: from.appends,
            stable: (from.bytes, from.appends),
            entered: true,
            seal: if from.sealed { Seal::Done } else { Seal::No },
            ..State::default()
        };
        Ok(Self::with(context, flusher, stream, segment, file, log, state))
    }

    fn with(
        context: &Arc<Context>,
        flusher: Arc<Flusher>,
        stream: &Arc<StreamState>,
        segment: Arc<Segment>,
        file: Arc<DedicatedFile>,
        log: LogFile,
        state: State,
    ) -> Arc<Self> {
        segment.set_dedicated_file(&file);
        Arc::new(DedicatedLog {
            context: Arc::clone(context),
            flusher,
            stream: Arc::clone(stream),
            segment,
            file,
            state: Mutex::new(state),
            log: Mutex::new(log),
        })
    }

    pub(crate) fn file(&self) -> &Arc<DedicatedFile> {
        &self.file
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Gives up the segment.
    pub(crate) fn give_up(&self) {
        self.context.reclaimer.push(Arc::clone(&self.segment));
    }

    /// Asks for a flush of everything appended so far.
    pub(crate) fn demand(self: &Arc<Self>, demand: Demand) {
        self.flusher.demand(demand, self);
    }

    /// Returns when all flushes that were asked for are done.
    pub(crate) async fn idle(&self) {
        self.flusher.idle().await;
    }

    /// Writes `chunks` at `offset`, the end of the stream, to the page cache. Blocks for as long as the copy takes.
    pub(crate) fn write(&self, chunks: &[Bytes], offset: u64) -> Result<()> {
        let needed = chunks.iter().map(|c| c.len() as u64).sum();
        self.context.may_append(needed)?;
        if let Some(reason) = self.failed() {
            return Err(SegmentError::Poisoned {
                segment: self.segment.id,
                reason,
            });
        }
        self.file.data().write_all_at(chunks, offset).map_err(|e| {
            if is_full(&e) {
                return self.context.refused("write", self.file.path(), needed, e);
            }
            let reason = SegmentError::disk("write", self.file.path(), e).to_string();
            // Bytes before may be lost with it: nothing more of this segment is acknowledged.
            self.poison(&reason);
            SegmentError::Poisoned {
                segment: self.segment.id,
                reason,
            }
        })
    }

    /// Tells of what was written. From here on flushes cover it.
    pub(crate) fn appended(self: &Arc<Self>, mut added: Appended, bytes: u64, appends: u64) {
        let mut state = self.state.lock();
        state.fresh_note_bytes += added
            .appends
            .iter()
            .map(|(_, note)| note.len() as u64 + 12)
            .sum::<u64>();
        state.fresh.blocks.append(&mut added.blocks);
        state.fresh.appends.append(&mut added.appends);
        state.fresh.tail_crc = added.tail_crc;
        (state.bytes, state.appends) = (bytes, appends);
        let much = bytes - state.stable.0 >= FLUSH_BYTES;
        drop(state);
        self.demand(if much { Demand::Now } else { Demand::Soon });
    }

    /// Bytes of notes in memory that wait for a flush.
    pub(crate) fn note_bytes(&self) -> u64 {
        self.state.lock().fresh_note_bytes
    }

    /// Asks the next flush to end the log with a seal. The stream's watch is woken when that is durable.
    pub(crate) fn seal(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.seal == Seal::No {
            state.seal = Seal::Wanted;
        }
        drop(state);
        self.demand(Demand::Now);
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.state.lock().seal == Seal::Done
    }

    pub(crate) fn failed(&self) -> Option<String> {
        self.state.lock().failed.clone()
    }

    fn round(&self) -> Option<Round> {
        let mut state = self.state.lock();
        let seal = state.seal == Seal::Wanted;
        let fresh = (state.bytes, state.appends) != state.stable;
        if state.failed.is_some() || !(seal || fresh) {
            return None;
        }
        state.fresh_note_bytes = 0;
        let tail_crc = state.fresh.tail_crc;
        let fresh = std::mem::take(&mut state.fresh);
        state.fresh.tail_crc = tail_crc;
        Some(Round {
            bytes: state.bytes,
            appends: state.appends,
            fresh,
            data: state.bytes > state.stable.0,
            seal,
            entered: state.entered,
        })
    }

    fn write_round(&self, round: &Round, log: &mut LogFile) -> Result<()> {
        let fsync = self.context.settings.fsync;
        if fsync && round.data {
            self.file
                .data()
                .sync_data()
                .map_err(|e| SegmentError::disk("fdatasync", self.file.path(), e))?;
        }
        if round.progress() {
            let progress = Progress {
                bytes: round.bytes,
                tail_crc: round.fresh.tail_crc,
                blocks: round.fresh.blocks.clone(),
                appends: round.fresh.appends.clone(),
            };
            log.append(Kind::Progress, round.bytes, round.appends, progress.encode().into())?;
        }
        if round.seal {
            log.append(Kind::Seal, round.bytes, round.appends, Bytes::new())?;
        }
        log.sync()?;
        if fsync && !round.entered {
            self.segment.enter(&self.context.manifest)?;
        }
        Ok(())
    }

    fn settle(&self, round: Round, log: &mut LogFile) {
        log.settle();
        if round.progress() {
            self.file
                .sums()
                .extend(&round.fresh.blocks, round.bytes, round.fresh.tail_crc);
        }
        let first = {
            let mut state = self.state.lock();
            let first = !state.entered;
            (state.stable, state.entered) = ((round.bytes, round.appends), true);
            if round.seal {
                state.seal = Seal::Done;
            } else {
                log.mark();
            }
            first
        };
        self.segment.readable.store(round.bytes, Ordering::Relaxed);
        self.segment.set_live_bytes(round.bytes);
        self.segment
            .file_bytes
            .store(round.bytes + log.synced(), Ordering::Relaxed);
        self.stream.advance(round.bytes, round.appends);
        if first {
            self.stream.release_packed();
        }
        if round.seal {
            self.close(round.bytes, log);
        }
    }

    /// Ends the log at a shutdown, sealed or not: nothing is written to it any more. How long an unsealed one is by now is
    /// entered into the manifest, so that the next start notices when it is cut meanwhile.
    pub(crate) fn close_down(&self) {
        let log = self.log.lock();
        let mut state = self.state.lock();
        if state.failed.is_some() || state.seal == Seal::Done {
            return;
        }
        if state.entered {
            let closed = Closed {
                file: log.synced(),
                content: state.stable.0,
            };
            self.context.manifest.closed(self.segment.id, closed);
        }
        state.failed = Some(SegmentError::Closed.to_string());
        drop(state);
        self.stream.poison(self.segment.id, &SegmentError::Closed.to_string());
    }

    fn close(&self, bytes: u64, log: &LogFile) {
        // A write that found no room may have left bytes behind the end; reserved room goes, too.
        let ragged = self.file.data().len().is_ok_and(|len| len > bytes);
        let trimmed = log.trim().and_then(|()| {
            if ragged {
                self.file.data().set_len(bytes)
            } else {
                Ok(())
            }
        });
        if let Err(e) = trimmed {
            tracing::warn!(path = %log.path().display(), error = %e, "cannot trim a sealed segment");
        }
        self.context.manifest.closed(
            self.segment.id,
            Closed {
                file: log.end(),
                content: bytes,
            },
        );
        self.segment.set_phase(Phase::Closed);
        self.stream.wake();
    }

    fn poison(&self, reason: &str) {
        self.context.fails();
        let mut state = self.state.lock();
        if state.failed.is_some() {
            return;
        }
        state.failed = Some(reason.to_owned());
        drop(state);
        tracing::error!(segment = %self.segment.id, path = %self.file.path().display(), reason, "segment takes no more writes");
        self.segment.set_phase(Phase::Poisoned(reason.to_owned()));
        self.stream.poison(self.segment.id, reason);
    }
}

impl Round {
    /// Whether there is anything to tell but the seal.
    fn progress(&self) -> bool {
        self.data || !self.fresh.appends.is_empty()
    }
}

impl Flush for DedicatedLog {
    fn flush(&self) {
        let mut log = self.log.lock();
        let Some(round) = self.round() else { return };
        let refused = asked_to_fail(crash_point!("data-written-not-synced"), self.file.path());
        match refused.and_then(|()| self.write_round(&round, &mut log)) {
            Ok(()) => {
                crash_point!("data-synced-not-acked");
                self.settle(round, &mut log);
            }
            Err(e) => {
                self.poison(&e.to_string());
                log.cut();
            }
        }
    }
}
