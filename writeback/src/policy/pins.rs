//! Pins that end: when its time is over, a pin's policy is taken away, durably, and what it held makes room like everything else.

use crate::{Result, cache::Inner, policy::Change};
use forebay_namespace::Path;
use forebay_policy::{Key, Set, Value, value::Pin};
use forebay_runtime::clock::Timestamp;
use std::{sync::Arc, time::Duration};

/// Longest sleep until the next one ends: wall time may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Pause when a policy could not be changed.
const PAUSE: Duration = Duration::from_secs(5);

impl Inner {
    /// Starts ending them.
    pub(crate) fn start_pins(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.tasks.spawn("pins", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = inner.end_pins_for_ever() => {}
            }
        });
    }

    async fn end_pins_for_ever(&self) {
        loop {
            let changed = self.policies.changed();
            let Some(first) = self.pins_that_end().into_iter().map(|(_, at)| at).min() else {
                changed.await;
                continue;
            };
            let now = self.components.clock.now();
            let mut pause = first.since(now).min(SLEEP_MAX);
            if pause.is_zero()
                && let Err(error) = self.end_pins(now).await
            {
                tracing::warn!(%error, "a pin whose time is over was not ended; trying again");
                pause = PAUSE;
            }
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = self.components.clock.sleep(pause) => {}
            }
        }
    }

    fn pins_that_end(&self) -> Vec<(Path, Timestamp)> {
        let table = self.policies.table();
        let pins = table.iter().filter_map(|(path, set)| Some((path.clone(), end(set)?)));
        pins.collect()
    }

    async fn end_pins(&self, now: Timestamp) -> Result<()> {
        for (path, _) in self.pins_that_end().into_iter().filter(|(_, at)| *at <= now) {
            let ended = |set: &mut Set| {
                // Another one may have been set meanwhile.
                if end(set).is_some_and(|at| at <= now) {
                    set.change(Change::Take(Key::Pin));
                }
            };
            self.policies.change(&path, ended).await?;
            tracing::info!(%path, "the time of a pin is over");
            self.policies_changed();
        }
        Ok(())
    }
}

fn end(set: &Set) -> Option<Timestamp> {
    match set.get(Key::Pin) {
        Some(Value::Pin(Pin::Until(at))) => Some(*at),
        _ => None,
    }
}
