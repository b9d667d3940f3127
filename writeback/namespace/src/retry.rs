//! Planning again after a conflict: a bounded number of times, with pauses that grow and differ between contenders.

use crate::{NsError, Result};
use forebay_runtime::{chance::ChanceRef, clock::ClockRef};
use std::{future::Future, time::Duration};

/// Tries before the conflict is given to the caller: with the pauses below about two seconds.
const ATTEMPTS_MAX: u32 = 100;
/// The first pause is at most this long; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// Runs `attempt` (read, plan, commit) until it ends in something other than [`NsError::Conflict`], or the bound is reached.
/// The first retry follows at once: most conflicts are with an operation that is already over.
pub async fn retry<T, F, Fut>(clock: &ClockRef, chance: &ChanceRef, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut pause = PAUSE_FIRST;
    for count in 0..ATTEMPTS_MAX {
        match attempt().await {
            Err(NsError::Conflict) if count == 0 => {}
            Err(NsError::Conflict) => {
                let micros = u64::try_from(pause.as_micros()).expect("a pause of milliseconds fits");
                clock.sleep(Duration::from_micros(1 + chance.below(micros))).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            other => return other,
        }
    }
    Err(NsError::Conflict)
}
