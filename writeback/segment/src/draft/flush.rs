//! Makes a draft durable as it is, and lets go of it at a shutdown.

use super::file::{DraftFile, State};
use crate::{
    context::asked_to_fail,
    dedicated::LogFile,
    error::{Result, SegmentError},
    manifest::Closed,
    record::Kind,
};
use bytes::Bytes;
use forebay_runtime::crash_point;

/// Room for the records before a seal: what says that it is a draft, and a mark.
const RECORDS_BYTES: u64 = 128;

/// What one flush after the other works on.
#[derive(Debug)]
pub(crate) struct Flushing {
    pub(super) log: LogFile,
    /// Whether a start finds the draft.
    pub(super) entered: bool,
    /// Syncs that were asked for before the last flush began.
    done: u64,
}

impl Flushing {
    pub(super) fn new(log: LogFile, entered: bool) -> Flushing {
        Flushing { log, entered, done: 0 }
    }
}

impl DraftFile {
    /// Returns when what was there at the sync `ticket` is durable, by this call's flush or by one that began since.
    pub(super) fn sync(&self, ticket: u64) -> Result<()> {
        let mut flushing = self.flushing.lock();
        match &*self.state.read() {
            State::Ended(why) => return Err(why.clone()),
            State::Sealed(..) => return Ok(()),
            State::Open | State::Sealing if flushing.done >= ticket => return Ok(()),
            State::Open | State::Sealing => {}
        }
        if !flushing.entered {
            flushing.log.reserve(RECORDS_BYTES)?;
        }
        let covered = self.asked();
        match self.flush(&mut flushing) {
            Ok(()) => {
                flushing.done = covered;
                self.segment.set_size(self.len()?, flushing.log.end());
                Ok(())
            }
            Err(e) => Err(self.fail(&mut flushing, &e)),
        }
    }

    fn flush(&self, flushing: &mut Flushing) -> Result<()> {
        self.flush_data()?;
        if flushing.entered {
            return Ok(());
        }
        crash_point!("draft-flushed-not-entered");
        flushing.log.append(Kind::Draft, 0, 0, Bytes::new())?;
        self.flush_log(flushing)?;
        flushing.log.mark();
        Ok(())
    }

    pub(super) fn flush_data(&self) -> Result<()> {
        asked_to_fail(crash_point!("draft-written-not-flushed"), &self.path)?;
        if !self.context.settings.fsync {
            return Ok(());
        }
        self.data.sync_data().map_err(|e| self.disk("fdatasync", e))
    }

    /// Makes the records of the log durable, and the segment known to a start.
    pub(super) fn flush_log(&self, flushing: &mut Flushing) -> Result<()> {
        flushing.log.sync()?;
        if self.context.settings.fsync && !flushing.entered {
            self.segment.enter(&self.context.manifest)?;
        }
        flushing.entered = true;
        flushing.log.settle();
        Ok(())
    }

    /// After a failed flush: nothing more of it is acknowledged, and no start believes what it left in the log.
    pub(super) fn fail(&self, flushing: &mut Flushing, why: &SegmentError) -> SegmentError {
        let error = self.poison(why);
        flushing.log.cut();
        error
    }

    /// Ends it at a shutdown. One that a start would find is flushed once more and its length entered into the manifest, so
    /// that the next start notices when it is cut meanwhile.
    pub(crate) fn close_down(&self) {
        let flushing = self.flushing.lock();
        {
            let mut state = self.state.write();
            if !matches!(*state, State::Open) {
                return;
            }
            *state = State::Ended(SegmentError::Closed);
        }
        if !flushing.entered {
            return;
        }
        match self.flush_data().and_then(|()| self.len()) {
            Ok(content) => {
                let file = flushing.log.synced();
                self.context.manifest.closed(self.segment.id, Closed { file, content });
            }
            Err(e) => tracing::warn!(path = %self.path.display(), error = %e, "cannot flush a draft at the end"),
        }
    }
}
