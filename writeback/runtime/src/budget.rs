//! Memory and disk counted in bytes: the permit comes before the queue, travels with the work and returns on drop.
//!
//! A [`Budget`] is first come, first served: a large request at the head holds back the small ones behind it, or it would starve.
//! Bytes are moved between owners by [`Permit::split`] and [`Permit::merge`]. Bytes that outlive the process (dirty data found by
//! recovery) are taken with [`Budget::force`], whatever the limit says: they exist already.

use parking_lot::{Mutex, MutexGuard};
use std::{collections::VecDeque, fmt, sync::Arc};
use tokio::sync::{oneshot, watch};

/// How full a budget is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Bytes held by permits (and forgotten ones).
    pub used: u64,
    /// Bytes that may be held.
    pub limit: u64,
    /// Requests that wait.
    pub waiting: usize,
}

impl Level {
    /// Bytes that a new request could have now.
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// So many bytes to share. Cheap to clone; all clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    state: Mutex<State>,
    level: watch::Sender<Level>,
}

#[derive(Default)]
struct State {
    limit: u64,
    used: u64,
    next_waiter: u64,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    id: u64,
    bytes: u64,
    granted: oneshot::Sender<Permit>,
}

impl State {
    fn level(&self) -> Level {
        Level {
            used: self.used,
            limit: self.limit,
            waiting: self.waiters.len(),
        }
    }

    fn fits(&self, bytes: u64) -> bool {
        self.used.checked_add(bytes).is_some_and(|used| used <= self.limit)
    }

    /// As [`State::fits`]; besides, a request that could never fit goes ahead when it is alone.
    fn may_go(&self, bytes: u64) -> bool {
        self.fits(bytes) || (bytes > self.limit && self.used == 0)
    }
}

impl Budget {
    /// A budget of `limit` bytes, named for logs.
    pub fn new(name: impl Into<String>, limit: u64) -> Self {
        let state = State {
            limit,
            ..State::default()
        };
        let level = watch::Sender::new(state.level());
        Self {
            inner: Arc::new(Inner {
                name: name.into(),
                state: Mutex::new(state),
                level,
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Takes `bytes`, waiting in line for them. A request larger than the whole budget is granted when nothing else is held, so
    /// that it makes progress; a caller that wants to refuse it compares with [`Budget::limit`] first. Dropping the future leaves
    /// the line.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        let (granted, permit) = oneshot::channel();
        let id = {
            let mut state = self.inner.state.lock();
            if state.waiters.is_empty() && state.may_go(bytes) {
                return self.take(&mut state, bytes);
            }
            let id = state.next_waiter;
            state.next_waiter += 1;
            state.waiters.push_back(Waiter { id, bytes, granted });
            self.publish(&state);
            id
        };
        let mut place = Place {
            budget: self,
            id,
            left: false,
        };
        let permit = permit
            .await
            .expect("a waiter leaves the line only by a grant or with its place");
        place.left = true;
        permit
    }

    /// Takes `bytes` if they fit within the limit now and nobody waits.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let mut state = self.inner.state.lock();
        (state.waiters.is_empty() && state.fits(bytes)).then(|| self.take(&mut state, bytes))
    }

    /// Takes `bytes` whatever the limit and the line say: they are in use already.
    pub fn force(&self, bytes: u64) -> Permit {
        self.take(&mut self.inner.state.lock(), bytes)
    }

    /// Gives back bytes whose permit was forgotten.
    pub fn release(&self, bytes: u64) {
        self.give_back(bytes);
    }

    /// Changes the limit. Lowering it takes nothing away; it holds back the next ones.
    pub fn set_limit(&self, limit: u64) {
        let mut state = self.inner.state.lock();
        state.limit = limit;
        self.serve_line(state);
    }

    /// The limit, bytes.
    pub fn limit(&self) -> u64 {
        self.inner.state.lock().limit
    }

    /// Bytes held.
    pub fn used(&self) -> u64 {
        self.inner.state.lock().used
    }

    /// Follows how full it is.
    pub fn watch(&self) -> watch::Receiver<Level> {
        self.inner.level.subscribe()
    }

    fn take(&self, state: &mut State, bytes: u64) -> Permit {
        state.used = state.used.checked_add(bytes).expect("fewer than 2^64 bytes exist");
        self.publish(state);
        Permit {
            budget: self.clone(),
            bytes,
        }
    }

    fn give_back(&self, bytes: u64) {
        let mut state = self.inner.state.lock();
        debug_assert!(
            state.used >= bytes,
            "{} gives back more than was taken",
            self.inner.name
        );
        state.used = state.used.saturating_sub(bytes);
        self.serve_line(state);
    }

    /// Grants the head of the line as long as it fits. The wake-ups happen outside the lock, in order; a permit whose waiter
    /// has gone comes back as an error of `send` and returns its bytes on drop.
    fn serve_line(&self, mut state: MutexGuard<'_, State>) {
        let mut grants = Vec::new();
        while let Some(bytes) = state.waiters.front().map(|waiter| waiter.bytes)
            && state.may_go(bytes)
        {
            let waiter = state.waiters.pop_front().expect("just looked at it");
            grants.push((waiter.granted, self.take(&mut state, bytes)));
        }
        self.publish(&state);
        drop(state);
        for (granted, permit) in grants {
            drop(granted.send(permit));
        }
    }

    /// Under the state's lock, so that levels are published in the order in which they came about.
    fn publish(&self, state: &State) {
        self.inner.level.send_replace(state.level());
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.inner.state.lock().level();
        f.debug_struct("Budget")
            .field("name", &self.inner.name)
            .field("level", &level)
            .finish()
    }
}

/// A place in the line. Whoever gives up must not block those behind.
struct Place<'a> {
    budget: &'a Budget,
    id: u64,
    left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let mut state = self.budget.inner.state.lock();
        let Some(at) = state.waiters.iter().position(|waiter| waiter.id == self.id) else {
            return;
        };
        state.waiters.remove(at);
        self.budget.serve_line(state);
    }
}

/// Bytes of a [`Budget`], given back on drop.
#[must_use = "the bytes return to the budget when the permit is dropped"]
pub struct Permit {
    budget: Budget,
    bytes: u64,
}

impl Permit {
    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Moves `bytes` of it into a permit of their own; `None` when it holds fewer.
    pub fn split(&mut self, bytes: u64) -> Option<Self> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(Self {
            budget: self.budget.clone(),
            bytes,
        })
    }

    /// Takes over the bytes of another permit of the same budget.
    ///
    /// # Panics
    /// When `other` belongs to another budget: the count of both would be wrong for ever.
    pub fn merge(&mut self, mut other: Self) {
        assert!(
            Arc::ptr_eq(&self.budget.inner, &other.budget.inner),
            "permits of two budgets can not be merged"
        );
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back all but `bytes`; nothing happens when it holds no more.
    pub fn shrink_to(&mut self, bytes: u64) {
        drop(self.split(self.bytes.saturating_sub(bytes)));
    }

    /// Leaves the bytes taken for good; [`Budget::release`] gives them back. Returns their number.
    pub fn forget(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("budget", &self.budget.inner.name)
            .field("bytes", &self.bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests;
