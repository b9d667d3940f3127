//! The dirty ledger: how many bytes exist only here, since when, and the permit a writer takes before it may add to them.
//!
//! A [`Reservation`] comes before the bytes are queued, grows with the content and is kept at its commit; whoever commits the
//! transaction after which the bytes are no longer the only copy, or no longer wanted, settles them. At the limit writers wait
//! in the order of their arrival; a writer is refused only when for `stall_max` nothing became free.
//!
//! The same gate holds writers back while every file system of the data folders is nearly full, so that the metastore, the persister and
//! deletes still have room (`disks`). While one has room, writers go on: the segments are put there. Deletes and the persister take no
//! permits here and always go ahead.
//!
//! It does not own the rows from which the ledger is filled at recovery, nor which bytes are dirty: it counts what it is told.

use super::ages::Ages;
use crate::{
    Error, Result,
    disks::{self, Disks},
};
use forebay_runtime::{
    budget::{Budget, Permit},
    clock::{ClockRef, Timestamp},
    units::ByteSize,
};
use forebay_segment::StreamId;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// How often a writer that waits for room on the file system looks again.
const ROOM_POLL: Duration = Duration::from_millis(100);
/// The file system is asked again after so many bytes were reserved.
const ROOM_CHECK_BYTES: u64 = 8 << 20;

/// Counts dirty bytes and files, and slows writers at the limit.
#[derive(Debug)]
pub(crate) struct Dirty {
    budget: Budget,
    kept: Arc<Kept>,
    clock: ClockRef,
    stall_max: Duration,
    room: Room,
}

/// What was committed and waits to be settled.
#[derive(Debug)]
struct Kept {
    files: AtomicU64,
    bytes: AtomicU64,
    ages: Mutex<Ages>,
    clock: ClockRef,
    /// Bytes that were ever given back. A writer behind others sees by it that the line moves, though the level does not.
    freed: watch::Sender<u64>,
}

/// Room on the file systems, asked for now and then.
#[derive(Debug)]
struct Room {
    disks: Disks,
    /// Bytes that may be reserved before it is asked again.
    credit: AtomicU64,
}

/// Bytes taken before they are written. Dropped without [`Reservation::keep`], they are given back.
#[derive(Debug)]
pub(crate) struct Reservation {
    permit: Permit,
    kept: Arc<Kept>,
}

impl Dirty {
    /// A ledger that lets `limit` bytes be dirty on `disks`.
    pub(crate) fn new(limit: u64, stall_max: Duration, clock: ClockRef, disks: Disks) -> Self {
        let room = Room {
            disks,
            credit: AtomicU64::new(0),
        };
        Self {
            budget: Budget::new("dirty", limit),
            kept: Arc::new(Kept::new(clock.clone())),
            clock,
            stall_max,
            room,
        }
    }

    /// Waits, in order of arrival, until `bytes` fit under the limit. Full after `stall_max` without any progress.
    pub(crate) async fn reserve(&self, bytes: u64) -> Result<Reservation> {
        self.wait_for_room(bytes).await?;
        let permit = match self.budget.try_acquire(bytes) {
            Some(permit) => permit,
            None => self.wait_in_line(bytes).await?,
        };
        Ok(Reservation {
            permit,
            kept: Arc::clone(&self.kept),
        })
    }

    /// Refuses at once what could never fit.
    pub(crate) fn check_size(&self, bytes: u64) -> Result<()> {
        let limit = self.budget.limit();
        if bytes <= limit {
            return Ok(());
        }
        Err(Error::full(format!(
            "{} do not fit: at most {} may be dirty at once; raise the dirty limit, or write it in smaller files",
            ByteSize(bytes).rounded(),
            ByteSize(limit).rounded()
        )))
    }

    /// `files` files of `bytes` bytes in all became clean or are gone.
    pub(crate) fn settle(&self, files: u64, bytes: u64) {
        subtract(&self.kept.files, files);
        subtract(&self.kept.bytes, bytes);
        self.budget.release(bytes);
        self.kept.free(bytes);
    }

    /// This content is clean or gone. For what has been settled: it has no age any more.
    pub(crate) fn forget(&self, stream: StreamId) {
        self.kept.ages.lock().forget(stream);
    }

    /// This content is dirty since then: found by recovery, which counts it.
    pub(crate) fn found(&self, stream: StreamId, since: Timestamp) {
        self.kept.ages.lock().note(stream, since);
    }

    /// Since when the oldest content exists only here.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.kept.ages.lock().oldest()
    }

    /// Counts what is dirty already: found by recovery.
    pub(crate) fn adopt(&self, files: u64, bytes: u64) {
        self.kept.files.fetch_add(files, Ordering::Relaxed);
        self.kept.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.force(bytes).forget();
    }

    /// A reservation for bytes that recovery found in an unsealed content, whatever the limit says.
    pub(crate) fn take(&self, bytes: u64) -> Reservation {
        Reservation {
            permit: self.budget.force(bytes),
            kept: Arc::clone(&self.kept),
        }
    }

    /// Whether so many bytes more leave the file system the room that is kept for the persister and deletes.
    pub(crate) fn has_room_for(&self, bytes: u64) -> Result<bool> {
        Ok(self.room.disks.roomiest()?.left() >= bytes)
    }

    /// Committed bytes that exist only here.
    pub(crate) fn bytes(&self) -> u64 {
        self.kept.bytes.load(Ordering::Relaxed)
    }

    /// Committed files that exist only here.
    pub(crate) fn files(&self) -> u64 {
        self.kept.files.load(Ordering::Relaxed)
    }

    /// Most dirty bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.budget.limit()
    }

    /// Bytes taken, those of contents that are still being written included.
    pub(crate) fn used(&self) -> u64 {
        self.budget.used()
    }

    async fn wait_in_line(&self, bytes: u64) -> Result<Permit> {
        let line = self.budget.acquire(bytes);
        tokio::pin!(line);
        tokio::select! {
            biased;
            permit = &mut line => Ok(permit),
            () = self.stalled() => Err(self.too_full(bytes)),
        }
    }

    /// Completes when for `stall_max` nothing was given back.
    async fn stalled(&self) {
        let mut freed = self.kept.freed.subscribe();
        loop {
            tokio::select! {
                biased;
                // The sender is the ledger's own.
                _ = freed.changed() => {}
                () = self.clock.sleep(self.stall_max) => return,
            }
        }
    }

    fn too_full(&self, bytes: u64) -> Error {
        Error::full(format!(
            "no room for {} more: {} of {} dirty bytes are taken and for {:?} none became free; \
             wait for the persister (see `status`), delete something, or raise the dirty limit",
            ByteSize(bytes).rounded(),
            ByteSize(self.budget.used()).rounded(),
            ByteSize(self.budget.limit()).rounded(),
            self.stall_max
        ))
    }

    /// Waits while the file system has no more than its reserve free.
    async fn wait_for_room(&self, bytes: u64) -> Result<()> {
        if self.room.spend(bytes) {
            return Ok(());
        }
        let deadline = self.clock.monotonic() + self.stall_max;
        loop {
            let room = self.room.disks.roomiest()?;
            if self.room.refill(&room, bytes) {
                return Ok(());
            }
            if self.clock.monotonic() >= deadline {
                return Err(Error::full(format!(
                    "the file system of {} has {} left, of which {} are kept for the persister and deletes; \
                     make room there, or wait for the persister",
                    room.folder.display(),
                    ByteSize(room.free).rounded(),
                    ByteSize(room.reserve).rounded()
                )));
            }
            self.clock.sleep(ROOM_POLL).await;
        }
    }
}

impl Kept {
    fn new(clock: ClockRef) -> Self {
        Self {
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ages: Mutex::default(),
            clock,
            freed: watch::Sender::new(0),
        }
    }

    fn free(&self, bytes: u64) {
        if bytes > 0 {
            self.freed.send_modify(|freed| *freed = freed.saturating_add(bytes));
        }
    }
}

impl Room {
    /// Takes `bytes` of the credit, if there are so many.
    fn spend(&self, bytes: u64) -> bool {
        self.credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| credit.checked_sub(bytes))
            .is_ok()
    }

    /// Whether `bytes` may be written; if so, some more may be before the file system is asked again. The credit is small
    /// against the reserve, so that writers that share it can not use the reserve up.
    fn refill(&self, room: &disks::Room<'_>, bytes: u64) -> bool {
        let Some(left) = room.left().checked_sub(bytes) else {
            return false;
        };
        self.credit.store((left / 8).min(ROOM_CHECK_BYTES), Ordering::Relaxed);
        true
    }
}

impl Reservation {
    /// Takes more under the same reservation.
    pub(crate) fn join(&mut self, mut other: Reservation) {
        let all = other.take();
        self.permit.merge(all);
    }

    /// Takes no more than this.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let before = self.permit.bytes();
        self.permit.shrink_to(bytes);
        self.kept.free(before.saturating_sub(bytes));
    }

    /// Bytes taken.
    pub(crate) fn held(&self) -> u64 {
        self.permit.bytes()
    }

    /// The content was committed: the bytes, and one file, stay dirty until [`Dirty::settle`] and [`Dirty::forget`].
    pub(crate) fn keep(mut self, stream: StreamId) {
        let bytes = self.take().forget();
        self.kept.ages.lock().note(stream, self.kept.clock.now());
        self.kept.files.fetch_add(1, Ordering::Relaxed);
        self.kept.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the content was committed is not known: the bytes stay taken until the next recovery counts anew.
    pub(crate) fn in_doubt(mut self) {
        self.take().forget();
    }

    fn take(&mut self) -> Permit {
        let all = self.permit.bytes();
        self.permit.split(all).expect("it holds what it says")
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = self.permit.bytes();
        // The bytes first: who is told of them must find them.
        self.permit.shrink_to(0);
        self.kept.free(bytes);
    }
}

/// A ledger that goes below nothing has a defect, but must not stop the cache.
fn subtract(from: &AtomicU64, amount: u64) {
    let before = from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
        Some(now.saturating_sub(amount))
    });
    let before = before.expect("the closure never refuses");
    if before < amount {
        tracing::error!(before, amount, "the dirty ledger settles more than it holds");
    }
    debug_assert!(
        before >= amount,
        "the dirty ledger settles more than it holds: {before} - {amount}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use forebay_runtime::{clock::SimClock, disk::SimDisk};

    fn ledger(limit: u64) -> Arc<Dirty> {
        let clock = SimClock::new(Timestamp(0));
        let disk = SimDisk::new(1);
        Arc::new(Dirty::new(
            limit,
            Duration::from_secs(60),
            clock,
            Disks::new(disk.shared(), ["/".into()]),
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_at_the_limit_waits_until_something_is_settled() {
        let dirty = ledger(100);
        dirty.reserve(80).await.unwrap().keep(StreamId(1, 1));
        assert_eq!((dirty.files(), dirty.bytes()), (1, 80));
        assert_eq!(dirty.oldest(), Some(Timestamp(0)));
        let waiter = tokio::spawn({
            let dirty = Arc::clone(&dirty);
            async move { dirty.reserve(50).await.map(|r| r.permit.bytes()) }
        });
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(!waiter.is_finished());
        dirty.settle(1, 80);
        dirty.forget(StreamId(1, 1));
        assert_eq!(dirty.oldest(), None);
        assert_eq!(waiter.await.unwrap().unwrap(), 50);
        assert_eq!((dirty.files(), dirty.bytes(), dirty.used()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn progress_of_others_keeps_a_writer_waiting_and_its_absence_refuses_it() {
        let dirty = ledger(100);
        for n in 0..10 {
            dirty.reserve(10).await.unwrap().keep(StreamId(n, 1));
        }
        let waiter = tokio::spawn({
            let dirty = Arc::clone(&dirty);
            async move { dirty.reserve(100).await.map(drop) }
        });
        for _ in 0..9 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            dirty.settle(1, 10);
        }
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(!waiter.is_finished(), "progress resets the clock");
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().contains("dirty limit"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_others_sees_that_the_line_moves() {
        let dirty = ledger(100);
        for n in 0..10 {
            dirty.reserve(10).await.unwrap().keep(StreamId(n, 1));
        }
        // Each takes what the settlement before gave back, so the level never falls.
        let line: Vec<_> = (0..5)
            .map(|n| {
                let dirty = Arc::clone(&dirty);
                tokio::spawn(async move { dirty.reserve(10).await.map(|taken| taken.keep(StreamId(100 + n, 1))) })
            })
            .collect();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            dirty.settle(1, 10);
        }
        for waiter in line {
            waiter.await.unwrap().unwrap();
        }
        assert_eq!((dirty.bytes(), dirty.used()), (100, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_is_given_back_and_what_recovery_finds_may_exceed_the_limit() {
        let dirty = ledger(100);
        drop(dirty.reserve(100).await.unwrap());
        assert_eq!(dirty.used(), 0);
        dirty.adopt(3, 500);
        assert_eq!((dirty.files(), dirty.bytes()), (3, 500));
        assert_eq!(dirty.reserve(1).await.unwrap_err().kind(), ErrorKind::Full);
        dirty.settle(3, 500);
        assert!(dirty.reserve(1).await.is_ok());
        assert_eq!(dirty.check_size(101).unwrap_err().kind(), ErrorKind::Full);
    }
}
