//! Which batches wait for their answer, and when it may be given.

use crate::service::engine;
use arrow_flight::PutResult;
use bytes::Bytes;
use forebay_protocol::info::PutNote;
use forebay_writeback::AckLevel;
use futures::{Stream, StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// app_metadata that waits to be sent back. A client that never reads its answers is slowed here, and only if it sends such.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Batches in order, those with app_metadata of their own one by one and runs of others as a number.
#[derive(Debug)]
pub(super) struct Acks {
    waiting: Mutex<Waiting>,
    /// A batch was added.
    added: Notify,
    /// One was answered.
    answered: Notify,
    /// The write has been committed before: what comes is stable already.
    repeated: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Batches>,
    /// Number of the next batch to answer.
    next: u64,
    /// Batches in all.
    count: u64,
    bytes: usize,
}

#[derive(Debug)]
enum Batches {
    Plain(u64),
    Noted(Bytes),
}

/// How far the engine is: batches that are stable.
pub(super) struct Stable {
    counts: BoxStream<'static, u64>,
    count: u64,
}

impl Acks {
    pub(super) fn new(repeated: bool) -> Self {
        Self {
            waiting: Mutex::default(),
            added: Notify::new(),
            answered: Notify::new(),
            repeated,
        }
    }

    /// A batch was taken.
    pub(super) fn batch(&self, app_metadata: Bytes) {
        let mut waiting = self.waiting.lock();
        waiting.count += 1;
        waiting.bytes += app_metadata.len();
        match (app_metadata.is_empty(), waiting.queue.back_mut()) {
            (true, Some(Batches::Plain(run))) => *run += 1,
            (true, _) => waiting.queue.push_back(Batches::Plain(1)),
            (false, _) => waiting.queue.push_back(Batches::Noted(app_metadata)),
        }
        drop(waiting);
        self.added.notify_one();
    }

    /// Waits until the client has read enough of its answers.
    pub(super) async fn room(&self) {
        while self.waiting.lock().bytes > WAITING_BYTES_MAX {
            self.answered.notified().await;
        }
    }

    /// The next answer, if its batch is among the first `stable`.
    pub(super) fn next(&self, stable: u64, level: AckLevel) -> Option<PutResult> {
        let mut waiting = self.waiting.lock();
        let stable = if self.repeated {
            waiting.count
        } else {
            stable.min(waiting.count)
        };
        let batch = waiting.next;
        if batch >= stable {
            return None;
        }
        let app_metadata = match waiting.queue.front_mut()? {
            Batches::Plain(run) if *run > 1 => {
                *run -= 1;
                None
            }
            _ => match waiting.queue.pop_front()? {
                Batches::Plain(_) => None,
                Batches::Noted(note) => Some(note),
            },
        };
        waiting.next += 1;
        waiting.bytes -= app_metadata.as_ref().map_or(0, Bytes::len);
        drop(waiting);
        self.answered.notify_one();
        let note = PutNote {
            batch,
            stable,
            level: engine::level(level),
        };
        let note = || serde_json::to_vec(&note).expect("plain data has a JSON form").into();
        Some(PutResult {
            app_metadata: app_metadata.unwrap_or_else(note),
        })
    }

    /// Until a batch was added or more became stable.
    pub(super) async fn more(&self, stable: &mut Stable) {
        tokio::select! {
            () = self.added.notified() => {}
            () = stable.more() => {}
        }
    }
}

impl Stable {
    /// From a stream of counts that grow.
    pub(super) fn new(counts: impl Stream<Item = u64> + Send + 'static) -> Self {
        Self {
            counts: counts.boxed(),
            count: 0,
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Until there is more; for ever when there never will be.
    async fn more(&mut self) {
        match self.counts.next().await {
            Some(count) => self.count = count,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(acks: &Acks, stable: u64) -> Vec<String> {
        let answers = std::iter::from_fn(|| acks.next(stable, AckLevel::Local));
        answers
            .map(|answer| String::from_utf8_lossy(&answer.app_metadata).into_owned())
            .collect()
    }

    fn acks(notes: &[&'static str]) -> Acks {
        let acks = Acks::new(false);
        notes
            .iter()
            .for_each(|note| acks.batch(Bytes::from_static(note.as_bytes())));
        acks
    }

    #[test]
    fn each_batch_is_answered_once_in_order_when_it_is_stable() {
        let acks = acks(&["", "", "note", ""]);
        assert!(told(&acks, 0).is_empty());
        assert_eq!(told(&acks, 1), [r#"{"batch":0,"stable":1,"level":"local"}"#]);
        assert_eq!(told(&acks, 3), [r#"{"batch":1,"stable":3,"level":"local"}"#, "note"]);
        assert_eq!(told(&acks, u64::MAX), [r#"{"batch":3,"stable":4,"level":"local"}"#]);
        assert!(told(&acks, u64::MAX).is_empty());
    }

    #[test]
    fn a_million_plain_batches_wait_in_one_number() {
        let acks = Acks::new(false);
        (0..1_000_000).for_each(|_| acks.batch(Bytes::new()));
        assert_eq!(acks.waiting.lock().queue.len(), 1);
    }

    #[test]
    fn a_repeated_write_is_answered_at_once() {
        let acks = Acks::new(true);
        acks.batch(Bytes::new());
        assert_eq!(told(&acks, 0), [r#"{"batch":0,"stable":1,"level":"local"}"#]);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_notes_is_held_up() {
        let acks = Acks::new(false);
        acks.room().await;
        acks.batch(vec![1; WAITING_BYTES_MAX + 1].into());
        assert!(acks.room().now_or_never().is_none());
        assert_eq!(told(&acks, 1).len(), 1);
        acks.room().await;
    }

    use futures::FutureExt;
}
