//! One name that all fight for: what is read there must be a write that no acknowledged later one has replaced.

use super::{actor::may_fail, run::History};
use crate::support::{get, put};
use forebay_runtime::chance::{Chance, SeededChance};
use forebay_writeback::{Cache, Error, ErrorKind};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

#[derive(Clone, Debug)]
struct Write {
    value: Vec<u8>,
    begun: u64,
    /// When it was acknowledged.
    ended: Option<u64>,
}

/// A register that many write.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) path: String,
    state: Mutex<State>,
    chance: Arc<SeededChance>,
}

#[derive(Debug, Default)]
struct State {
    now: u64,
    writes: Vec<Write>,
}

impl Shared {
    pub(crate) fn new(path: &str, seed: u64) -> Self {
        Self {
            path: path.to_owned(),
            state: Mutex::default(),
            chance: SeededChance::new(seed),
        }
    }

    /// One of those who fight.
    pub(crate) async fn fight(&self, who: usize, cache: &Cache, history: &History) {
        loop {
            tokio::time::sleep(Duration::from_micros(self.chance.below(60_000))).await;
            if self.chance.below(3) == 0 {
                if let Err(error) = self.check(cache, false).await {
                    assert!(may_fail(&error), "{}: {error}", self.path);
                }
                continue;
            }
            let at = self.begin(who);
            let value = self.state.lock().writes[at].value.clone();
            let outcome = put(cache, &self.path, &value).await;
            history.note(&format!("fighter {who} -> {:?}", outcome.as_ref().map_err(Error::kind)));
            match outcome {
                Ok(_) => self.end(&value),
                Err(error) => assert!(may_fail(&error), "{}: {error}", self.path),
            }
        }
    }

    fn begin(&self, who: usize) -> usize {
        let mut state = self.state.lock();
        state.now += 1;
        let begun = state.now;
        let value = format!("{who}:{begun}").into_bytes();
        state.writes.push(Write {
            value,
            begun,
            ended: None,
        });
        state.writes.len() - 1
    }

    fn end(&self, value: &[u8]) {
        let mut state = self.state.lock();
        state.now += 1;
        let now = state.now;
        state
            .writes
            .iter_mut()
            .filter(|write| write.value == value)
            .for_each(|write| write.ended = Some(now));
    }

    /// Reads and compares. `quiet`: nobody writes now, so what is read stays.
    pub(crate) async fn check(&self, cache: &Cache, quiet: bool) -> Result<(), Error> {
        let (begun, found) = loop {
            let begun = self.state.lock().now;
            match get(cache, &self.path).await {
                Ok(bytes) => break (begun, Some(bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => break (begun, None),
                // Only the store had what was opened, and there a newer write took its place: who opens it again finds that.
                Err(error) if error.kind() == ErrorKind::Precondition => {}
                Err(error) => return Err(error),
            }
        };
        let mut state = self.state.lock();
        let last_begun = |end: u64| {
            // Of the acknowledged ones that had ended when the read began.
            let acked = state
                .writes
                .iter()
                .filter(|write| write.ended.is_some_and(|ended| ended <= begun));
            acked
                .filter(|write| write.begun > end)
                .map(|write| write.value.clone())
                .next()
        };
        let Some(bytes) = found else {
            assert_eq!(
                last_begun(0),
                None,
                "{}: nothing there after an acknowledged write",
                self.path
            );
            return Ok(());
        };
        let write = state.writes.iter().find(|write| write.value == bytes).cloned();
        let write = write.unwrap_or_else(|| {
            panic!(
                "{}: {:?} was never written",
                self.path,
                bytes.escape_ascii().to_string()
            )
        });
        if let Some(ended) = write.ended {
            let newer = last_begun(ended).map(|value| value.escape_ascii().to_string());
            assert_eq!(
                newer,
                None,
                "{}: read {} after a newer one",
                self.path,
                bytes.escape_ascii()
            );
        }
        if quiet {
            state.now += 1;
            let now = state.now;
            state.writes = vec![Write {
                ended: Some(now),
                ..write
            }];
        }
        Ok(())
    }

    /// What must be in the under-store.
    pub(crate) fn value(&self) -> Option<Vec<u8>> {
        self.state.lock().writes.last().map(|write| write.value.clone())
    }
}
