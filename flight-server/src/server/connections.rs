//! How many connections there are, and which of them goes when there are too many.
//!
//! A connection without a call under way costs little, but descriptors are finite: at the limit the one that has been idle longest
//! is told to go away (gRPC clients come back by themselves), and so is each after [`IDLE_MAX`]. One with calls is never closed.

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use metrics::Gauge;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Most connections of both doors together; past it the idlest goes for each new one.
const CONNECTIONS_MAX: usize = 4096;
/// A connection without a call for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// The connections of both doors. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections {
    inner: Arc<Inner>,
}

struct Inner {
    open: Mutex<Open>,
    count: Gauge,
}

#[derive(Default)]
struct Open {
    next: u64,
    by_id: HashMap<u64, Connection>,
}

struct Connection {
    calls: usize,
    idle_since: Instant,
    close: CancellationToken,
}

/// One connection's place; given back on drop.
pub(super) struct Lease {
    id: u64,
    close: CancellationToken,
    connections: Connections,
}

/// Begins calls on one connection.
#[derive(Clone)]
pub(super) struct Calls {
    id: u64,
    connections: Connections,
}

/// A call under way; its connection is not idle until it is dropped.
pub(crate) struct Call {
    id: u64,
    connections: Connections,
}

impl Connections {
    pub(super) fn new(count: Gauge) -> Self {
        Self {
            inner: Arc::new(Inner {
                open: Mutex::default(),
                count,
            }),
        }
    }

    /// Takes a place, at the limit that of the idlest.
    pub(super) fn enter(&self) -> Lease {
        if self.inner.open.lock().by_id.len() >= CONNECTIONS_MAX {
            self.close_idlest();
        }
        let close = CancellationToken::new();
        let mut open = self.inner.open.lock();
        let id = open.next;
        open.next += 1;
        open.by_id.insert(
            id,
            Connection {
                calls: 0,
                idle_since: Instant::now(),
                close: close.clone(),
            },
        );
        self.inner.count.set(open.by_id.len() as f64);
        Lease {
            id,
            close,
            connections: self.clone(),
        }
    }

    /// Tells the connection that has been idle longest to go away; `false` when all are busy.
    pub(super) fn close_idlest(&self) -> bool {
        let open = self.inner.open.lock();
        let idle = open.by_id.values().filter(|c| c.calls == 0 && !c.close.is_cancelled());
        match idle.min_by_key(|c| c.idle_since) {
            Some(idlest) => {
                idlest.close.cancel();
                true
            }
            None => false,
        }
    }

    /// How long a connection has been without a call; zero while it has one.
    fn idle(&self, id: u64) -> Duration {
        let open = self.inner.open.lock();
        let idle = open.by_id.get(&id).filter(|c| c.calls == 0);
        idle.map_or(Duration::ZERO, |c| c.idle_since.elapsed())
    }
}

impl Lease {
    pub(super) fn calls(&self) -> Calls {
        Calls {
            id: self.id,
            connections: self.connections.clone(),
        }
    }

    /// Completes when the connection shall go.
    pub(super) async fn closed(&self) {
        loop {
            let left = IDLE_MAX.saturating_sub(self.connections.idle(self.id));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = self.close.cancelled() => return,
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut open = self.connections.inner.open.lock();
        open.by_id.remove(&self.id);
        self.connections.inner.count.set(open.by_id.len() as f64);
    }
}

impl Calls {
    pub(super) fn begin(&self) -> Call {
        if let Some(connection) = self.connections.inner.open.lock().by_id.get_mut(&self.id) {
            connection.calls += 1;
        }
        Call {
            id: self.id,
            connections: self.connections.clone(),
        }
    }
}

impl Call {
    /// A body with which the call ends.
    pub(super) fn until_sent(self, body: Body) -> Sent {
        Sent { body, _call: self }
    }
}

/// The body of an answer, and the call that it is of.
pub(super) struct Sent {
    body: Body,
    _call: Call,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(connection) = self.connections.inner.open.lock().by_id.get_mut(&self.id) {
            connection.calls -= 1;
            connection.idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_idlest_goes_and_a_busy_one_never_does() {
        let connections = Connections::new(Gauge::noop());
        let (busy, first, second) = (connections.enter(), connections.enter(), connections.enter());
        let call = busy.calls().begin();
        assert!(connections.close_idlest());
        first.closed().await;
        assert!(!second.close.is_cancelled() && !busy.close.is_cancelled());
        assert!(connections.close_idlest());
        second.closed().await;
        assert!(!connections.close_idlest(), "only the busy one is left");
        drop(call);
        assert!(connections.close_idlest());
        busy.closed().await;
    }

    #[test]
    fn places_come_back() {
        let connections = Connections::new(Gauge::noop());
        let lease = connections.enter();
        let call = lease.calls().begin();
        drop(lease);
        drop(call);
        assert!(connections.inner.open.lock().by_id.is_empty());
    }
}
