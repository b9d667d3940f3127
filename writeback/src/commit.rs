//! One operation, one transaction: commits a plan, and plans again when another one came first.
//!
//! - A **lost** check means that nothing was written: the operation reads again, plans again, at most [`ATTEMPTS_MAX`] times with
//!   pauses that grow and differ between contenders.
//! - An **unknown** outcome is asked again with the transaction's token, which is exactly-once, until the store says; when it
//!   does not within [`UNKNOWN_MAX`] tries the caller is told that the outcome is unknown. It must then treat what the
//!   transaction names as in doubt: neither kept nor given up before the next recovery.
//!
//! It does not own what goes into a plan.

use crate::{Error, ErrorKind, Result, cache::Inner};
use forebay_metastore::Committed;
use forebay_namespace::{NsError, Plan};
use forebay_runtime::{chance::ChanceRef, clock::ClockRef};
use std::time::Duration;

/// Tries before a conflict is given to the caller: with the pauses below about two seconds.
const ATTEMPTS_MAX: u32 = 100;
const PAUSE_FIRST: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// Times that an unknown outcome is asked for: with the pauses below about five seconds.
const UNKNOWN_MAX: u32 = 20;
const UNKNOWN_PAUSE: Duration = Duration::from_millis(250);

/// Free bytes below which a metastore that fails may have failed for want of room.
const ROOM_MIN: u64 = 4 << 20;

/// Counts the tries of one operation.
#[derive(Debug)]
pub(crate) struct Attempts {
    what: String,
    clock: ClockRef,
    chance: ChanceRef,
    count: u32,
    pause: Duration,
}

impl Attempts {
    /// After a try that failed: Ok when the operation shall be planned again, else the error for the caller.
    pub(crate) async fn after(&mut self, error: Error) -> Result<()> {
        if !error.is_lost() {
            return Err(error);
        }
        self.count += 1;
        if self.count >= ATTEMPTS_MAX {
            return Err(error.at(&self.what));
        }
        // The first retry follows at once: most conflicts are with an operation that is already over.
        if self.count > 1 {
            let micros = u64::try_from(self.pause.as_micros()).expect("a pause of milliseconds fits");
            self.clock
                .sleep(Duration::from_micros(1 + self.chance.below(micros)))
                .await;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }
}

impl Inner {
    /// Counts the tries of the operation `what`, named for the error text.
    pub(crate) fn attempts(&self, what: impl Into<String>) -> Attempts {
        let (clock, chance) = (self.components.clock.clone(), self.components.chance.clone());
        Attempts {
            what: what.into(),
            clock,
            chance,
            count: 0,
            pause: PAUSE_FIRST,
        }
    }

    /// Commits `plan`, durably. A lost check is [`Error::is_lost`], an outcome that stays unknown is Deadline.
    pub(crate) async fn commit(&self, plan: Plan) -> Result<Committed> {
        let mut token = [0; 16];
        self.components.chance.fill(&mut token);
        let (mut asked, mut made_room) = (0, false);
        loop {
            match self.names.commit(plan.clone(), Some(token)).await {
                Ok(committed) => return Ok(committed),
                Err(NsError::Unknown(text)) if asked < UNKNOWN_MAX => {
                    asked += 1;
                    tracing::debug!(asked, text, "asking again whether a transaction was committed");
                    self.components.clock.sleep(UNKNOWN_PAUSE).await;
                }
                // Once unknown, a store that is away has still not said.
                Err(error) if asked > 0 && !matches!(error, NsError::Conflict) => {
                    let text = format!("outcome unknown ({error}); ask again with the same token");
                    return Err(Error::new(ErrorKind::Deadline, text));
                }
                // A full disk must not keep what makes room from being written: the segments keep some back for this.
                Err(NsError::Meta(_)) if !made_room && self.disk_is_full() && self.segments.make_room() => {
                    made_room = true;
                    tracing::warn!("the disk is full; the metastore takes the room that was kept back");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn disk_is_full(&self) -> bool {
        let space = self.components.disk.space(self.segments.home());
        space.is_ok_and(|space| space.free < ROOM_MIN)
    }
}
