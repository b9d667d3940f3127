//! Makes a dedicated segment of a draft: one pass over the data for the checksums (holes are skipped), one flush of the data, one of the log.

use super::{
    file::{DraftFile, State},
    flush::Flushing,
};
use crate::{
    dedicated::DedicatedFile,
    error::{Result, SegmentError},
    layout::Layout,
    manifest::Closed,
    record::{HEAD_BYTES, Kind, Progress},
    sums::{BLOCK_BYTES, Blocks, Sums},
    table::Phase,
};
use bytes::Bytes;
use forebay_runtime::{crash_point, disk::Seek};
use std::sync::{Arc, atomic::Ordering};

/// Bytes read at a time.
const PIECE_BYTES: u64 = 4 * BLOCK_BYTES;
/// Room for the heads of all records up to the mark behind the seal.
const HEADS_BYTES: u64 = 8 * HEAD_BYTES as u64;

/// The checksums of a draft.
struct Summed {
    bytes: u64,
    blocks: Vec<u32>,
    tail_crc: u32,
    whole: u32,
}

impl DraftFile {
    pub(super) fn seal(&self) -> Result<(Layout, u32)> {
        let mut flushing = self.flushing.lock();
        {
            // Waits for the changes under way; none begins after it.
            let mut state = self.state.write();
            match &*state {
                State::Sealed(layout, crc) => return Ok((layout.clone(), *crc)),
                State::Ended(why) => return Err(why.clone()),
                State::Open | State::Sealing => *state = State::Sealing,
            }
        }
        let summed = match self.prepare(&mut flushing) {
            Ok(summed) => summed,
            Err(e) => {
                // Nothing was written that a later start could take for sealed.
                self.leave_sealing(State::Open)?;
                return Err(e);
            }
        };
        let written = match summed.bytes {
            0 => self.write_end(&mut flushing),
            _ => self.write_seal(&mut flushing, &summed),
        };
        match written {
            Ok(()) if summed.bytes == 0 => {
                self.context.reclaimer.push(Arc::clone(&self.segment));
                self.sealed(Layout::Empty, 0)
            }
            Ok(()) => self.settle(&mut flushing, &summed),
            Err(e) => Err(self.fail(&mut flushing, &e)),
        }
    }

    /// What may fail without harm.
    fn prepare(&self, flushing: &mut Flushing) -> Result<Summed> {
        let summed = self.sum()?;
        flushing.log.reserve(HEADS_BYTES + 4 * summed.blocks.len() as u64)?;
        Ok(summed)
    }

    fn sum(&self) -> Result<Summed> {
        let bytes = self.len()?;
        // The disk writes while we read.
        self.data.start_write_back();
        let mut blocks = Blocks::new();
        let mut piece = vec![0; bytes.min(PIECE_BYTES) as usize];
        let mut at = 0;
        while at < bytes {
            let data = self.seek(at, Seek::Data)?.map_or(bytes, |data| data.min(bytes));
            if data > at {
                blocks.add_zeros(data - at);
                at = data;
                continue;
            }
            let n = self.read_at(&mut piece[..(bytes - at).min(PIECE_BYTES) as usize], at)?;
            if n == 0 {
                return Err(self.shrunk(at..bytes));
            }
            blocks.add_run(&piece[..n]);
            at += n as u64;
        }
        // What is missing at the end looks like a hole.
        let len = self.len()?;
        if len < bytes {
            return Err(self.shrunk(len..bytes));
        }
        Ok(Summed {
            bytes,
            blocks: blocks.take_done(),
            tail_crc: blocks.tail_crc(),
            whole: blocks.whole(),
        })
    }

    fn write_seal(&self, flushing: &mut Flushing, summed: &Summed) -> Result<()> {
        self.flush_data()?;
        let progress = Progress {
            bytes: summed.bytes,
            tail_crc: summed.tail_crc,
            blocks: summed.blocks.clone(),
            appends: vec![(summed.bytes, Bytes::new())],
        };
        if !flushing.entered {
            // Without it a start would take a seal that stopped half-way for an unsealed stream of appends.
            flushing.log.append(Kind::Draft, 0, 0, Bytes::new())?;
        }
        flushing
            .log
            .append(Kind::Progress, summed.bytes, 1, progress.encode().into())?;
        flushing.log.append(Kind::Seal, summed.bytes, 1, Bytes::new())?;
        crash_point!("draft-summed-not-sealed");
        self.flush_log(flushing)
    }

    /// Makes sure that no start finds the draft of an empty stream whose files could not be removed any more.
    fn write_end(&self, flushing: &mut Flushing) -> Result<()> {
        if !flushing.entered {
            return Ok(());
        }
        flushing.log.append(Kind::Seal, 0, 0, Bytes::new())?;
        self.flush_log(flushing)
    }

    fn settle(&self, flushing: &mut Flushing, summed: &Summed) -> Result<(Layout, u32)> {
        let Flushing { log, .. } = flushing;
        // Vouches for the seal: a damaged one would make a draft of it again.
        log.mark();
        if let Err(e) = log.trim() {
            tracing::warn!(path = %log.path().display(), error = %e, "cannot trim a sealed segment");
        }
        let sums = Sums::default();
        sums.extend(&summed.blocks, summed.bytes, summed.tail_crc);
        let segment = &self.segment;
        let file = DedicatedFile::new(segment.id, self.path.clone(), Arc::clone(&self.data), sums);
        segment.set_dedicated_file(&file);
        self.context.table.keep_dedicated(&file);
        segment.set_size(summed.bytes, log.end());
        segment.readable.store(summed.bytes, Ordering::Relaxed);
        self.context.manifest.closed(
            segment.id,
            Closed {
                file: log.synced(),
                content: summed.bytes,
            },
        );
        segment.set_phase(Phase::Closed);
        let layout = Layout::Dedicated {
            segment: segment.id,
            len: summed.bytes,
        };
        self.sealed(layout, summed.whole)
    }

    fn sealed(&self, layout: Layout, crc: u32) -> Result<(Layout, u32)> {
        self.leave_sealing(State::Sealed(layout.clone(), crc))?;
        Ok((layout, crc))
    }

    /// Moves on, unless it was discarded meanwhile.
    fn leave_sealing(&self, to: State) -> Result<()> {
        let mut state = self.state.write();
        if let State::Ended(why) = &*state {
            return Err(why.clone());
        }
        *state = to;
        Ok(())
    }

    fn shrunk(&self, range: std::ops::Range<u64>) -> SegmentError {
        SegmentError::Corrupt {
            segment: self.segment.id,
            file: self.path.clone(),
            range,
            what: "the file became shorter during its seal".into(),
        }
    }
}
