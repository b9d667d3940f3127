//! Whether a store answers: calls that read give up in time, and while it is away they fail at once instead of queueing up.
//!
//! A single 503 is no outage. After a call that ran into the timeout, or [`FAILURES_MAX`] failures in a row, others are refused
//! for [`REST`] and then one at a time finds out. It does not own the persister's patience: that one waits as long as it takes.

use crate::{Error, Result};
use forebay_runtime::clock::ClockRef;
use forebay_understore::StoreError;
use parking_lot::Mutex;
use std::{future::Future, time::Duration};

/// How long calls are refused after one found the store away.
const REST: Duration = Duration::from_secs(2);
/// Failures in a row after which a store counts as away.
const FAILURES_MAX: u32 = 4;

/// What is known of a store's answers.
#[derive(Debug)]
pub(crate) struct Health {
    clock: ClockRef,
    timeout: Duration,
    away: Mutex<Option<Away>>,
}

#[derive(Clone, Debug)]
struct Away {
    reason: String,
    failures: u32,
    /// Monotonic time from which the next call may try.
    again: Duration,
}

impl Health {
    pub(crate) fn new(clock: ClockRef, timeout: Duration) -> Self {
        Self {
            clock,
            timeout,
            away: Mutex::new(None),
        }
    }

    /// What is wrong with the store, when something is.
    pub(crate) fn problem(&self) -> Option<String> {
        self.away.lock().as_ref().map(|away| away.reason.clone())
    }

    /// Whether it did not answer when it was asked last. One that refuses answers.
    pub(crate) fn is_away(&self) -> bool {
        self.away.lock().as_ref().is_some_and(|away| away.failures > 0)
    }

    /// Notes what an answer says of the store.
    pub(crate) fn note(&self, error: Option<&StoreError>) {
        let mut away = self.away.lock();
        *away = match error {
            Some(StoreError::Unavailable(reason)) => {
                let failures = away.as_ref().map_or(0, |away| away.failures).saturating_add(1);
                let rests = failures >= FAILURES_MAX;
                let again = if rests {
                    self.clock.monotonic() + REST
                } else {
                    Duration::ZERO
                };
                Some(Away {
                    reason: reason.clone(),
                    failures,
                    again,
                })
            }
            Some(StoreError::Refused(reason)) => Some(Away {
                reason: reason.clone(),
                failures: 0,
                again: Duration::ZERO,
            }),
            Some(_) | None => None,
        };
    }

    /// Notes that the persister found the store away. While it rests that is no news: it may only have been refused, and must not put
    /// off the one who asks next.
    pub(crate) fn note_away(&self, reason: &str) {
        if !self.rests() {
            self.note(Some(&StoreError::Unavailable(reason.to_owned())));
        }
    }

    /// Whether calls are refused now.
    fn rests(&self) -> bool {
        let away = self.away.lock();
        away.as_ref().is_some_and(|away| self.clock.monotonic() < away.again)
    }

    /// It ran into the timeout: the next ones need not.
    fn hung(&self) -> StoreError {
        let reason = format!("no answer within {:?}", self.timeout);
        let again = self.clock.monotonic() + REST;
        *self.away.lock() = Some(Away {
            reason: reason.clone(),
            failures: FAILURES_MAX,
            again,
        });
        StoreError::Unavailable(reason)
    }

    /// Runs a call that a reader waits for. Unavailable within the timeout, or at once while the store rests.
    pub(crate) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.check()?;
        tokio::select! {
           biased;
            answer = call => {
                self.note(answer.as_ref().err());
                answer
            }
            () = self.clock.sleep(self.timeout) => Err(self.hung()),
        }
    }

    /// Waits before a further try; false at once while the store counts as away.
    pub(crate) async fn rest(&self, pause: Duration) -> bool {
        let rests = self.rests();
        if !rests {
            self.clock.sleep(pause).await;
        }
        !rests
    }

    fn check(&self) -> Result<(), StoreError> {
        let mut away = self.away.lock();
        let now = self.clock.monotonic();
        match &mut *away {
            Some(away) if now < away.again => Err(StoreError::Unavailable(format!(
                "{} (trying again every {REST:?})",
                away.reason
            ))),
            Some(away) => {
                // This one finds out; the others go on being refused meanwhile.
                away.again = now + REST.min(self.timeout);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A store's error as the engine's, with the mount's URL.
pub(crate) fn named(url: &str, error: StoreError) -> Error {
    Error::from(error).at(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_runtime::clock::{SimClock, Timestamp};

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_given_up_and_then_refused_at_once() {
        let health = Health::new(SimClock::new(Timestamp(0)), Duration::from_secs(10));
        let began = tokio::time::Instant::now();
        let hung: Result<(), _> = health.ask(std::future::pending()).await;
        assert!(matches!(hung, Err(StoreError::Unavailable(_))));
        assert_eq!(began.elapsed().as_secs(), 10);
        let refused: Result<(), _> = health.ask(std::future::pending()).await;
        assert!(refused.is_err());
        assert_eq!(began.elapsed().as_secs(), 10, "refused without asking");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(health.ask(std::future::ready(Ok(()))).await.is_ok());
        assert_eq!(health.problem(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_refused_do_not_keep_a_store_away_that_is_back() {
        let health = Health::new(SimClock::new(Timestamp(0)), Duration::from_secs(10));
        let away = || StoreError::Unavailable("503".into());
        (0..FAILURES_MAX).for_each(|_| health.note(Some(&away())));
        for _ in 0..3 {
            let refused: Result<(), _> = health.ask(std::future::pending()).await;
            health.note_away(&refused.unwrap_err().to_string());
            tokio::time::sleep(REST / 3).await;
        }
        tokio::time::sleep(REST / 3).await;
        assert!(health.ask(std::future::ready(Ok(()))).await.is_ok());
    }
}
