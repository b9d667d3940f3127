//! What a stream's writer, its followers and the flushes share: where its bytes lie and how far they are durable.

use crate::{
    context::Context,
    dedicated::DedicatedFile,
    layout::{Extent, SegmentId, Stable, StableWatch, StreamId},
    recovery::Extra,
    table::{Segment, SharedFile},
};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// One stream that is written, or was a moment ago.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) id: StreamId,
    stable: watch::Sender<Stable>,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    packed: Vec<Placed>,
    /// Records that no layout will name, as those without a payload: the next start needs them all the same.
    extra: Vec<(Arc<Context>, Arc<Segment>, Extra)>,
    dedicated: Option<Arc<DedicatedFile>>,
}

/// A packed run and how to get at it.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// Where it begins in the stream.
    pub(crate) offset: u64,
    pub(crate) extent: Extent,
    /// Of the folder that it lies in.
    pub(crate) context: Arc<Context>,
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<SharedFile>,
}

/// Where to read a range.
#[derive(Debug)]
pub(crate) enum Source {
    Packed(Vec<Placed>),
    Dedicated(Arc<DedicatedFile>),
}

impl StreamState {
    pub(crate) fn new(id: StreamId, stable: Stable) -> Arc<Self> {
        Arc::new(StreamState {
            id,
            stable: watch::Sender::new(stable),
            places: Mutex::default(),
        })
    }

    pub(crate) fn stable(&self) -> StableWatch {
        self.stable.subscribe()
    }

    /// Bytes that are durable now.
    pub(crate) fn stable_bytes(&self) -> u64 {
        self.stable.borrow().bytes
    }

    /// Why nothing more becomes durable, if so.
    pub(crate) fn poisoned(&self) -> Option<String> {
        self.stable.borrow().poisoned.clone()
    }

    /// Moves the durable end forward. Nothing moves after a failure.
    pub(crate) fn advance(&self, bytes: u64, appends: u64) {
        self.stable.send_if_modified(|stable| {
            let grew = stable.poisoned.is_none() && (bytes > stable.bytes || appends > stable.appends);
            if grew {
                stable.bytes = stable.bytes.max(bytes);
                stable.appends = stable.appends.max(appends);
            }
            grew
        });
    }

    /// Wakes everybody who watches, though no number changed.
    pub(crate) fn wake(&self) {
        self.stable.send_modify(|_| {});
    }

    /// Nothing of the stream will become durable any more by segment `by`, which failed.
    pub(crate) fn poison(&self, by: SegmentId, reason: &str) {
        let switched = self
            .places
            .lock()
            .dedicated
            .as_ref()
            .is_some_and(|file| file.id() != by);
        if switched {
            // All its bytes are in the dedicated segment by now; the shared one no longer matters to it.
            return;
        }
        self.stable.send_if_modified(|stable| {
            let first = stable.poisoned.is_none();
            stable.poisoned.get_or_insert_with(|| reason.to_owned());
            first
        });
    }

    pub(crate) fn add_packed(&self, placed: Placed) {
        let mut places = self.places.lock();
        if placed.extent.len == 0 {
            let extra = Extra {
                segment: placed.extent.segment,
                at: placed.extent.at,
                len: 0,
            };
            places.extra.push((placed.context, placed.segment, extra));
        } else {
            places.packed.push(placed);
        }
    }

    pub(crate) fn add_extra(&self, context: &Arc<Context>, segment: Arc<Segment>, extra: Extra) {
        self.places.lock().extra.push((Arc::clone(context), segment, extra));
    }

    pub(crate) fn take_extra(&self) -> Vec<Extra> {
        std::mem::take(&mut self.places.lock().extra)
            .into_iter()
            .map(|(_, _, extra)| extra)
            .collect()
    }

    pub(crate) fn packed(&self) -> Vec<Placed> {
        self.places.lock().packed.clone()
    }

    /// From now on the dedicated segment has all bytes, though not yet durable.
    pub(crate) fn switch(&self, file: &Arc<DedicatedFile>) {
        self.places.lock().dedicated = Some(Arc::clone(file));
    }

    /// Where the durable range that ends at `end` can be read.
    pub(crate) fn source(&self, end: u64) -> Source {
        let places = self.places.lock();
        match &places.dedicated {
            Some(file) if file.len() >= end => Source::Dedicated(Arc::clone(file)),
            _ => Source::Packed(places.packed.clone()),
        }
    }

    /// Lets the packed records go: the stream has its bytes elsewhere, or nobody wants it. In the latter case followers
    /// that are still there can read on from the open files.
    pub(crate) fn release_packed(&self) {
        let packed = {
            let mut places = self.places.lock();
            match places.dedicated {
                Some(_) => std::mem::take(&mut places.packed),
                None => places.packed.clone(),
            }
        };
        for Placed {
            extent,
            context,
            segment,
            ..
        } in packed
        {
            if segment.release(extent.at, extent.len.into()) {
                context.reclaimer.push(segment);
            }
        }
        let extra = std::mem::take(&mut self.places.lock().extra);
        for (context, segment, extra) in extra {
            if segment.release(extra.at, extra.len) {
                context.reclaimer.push(segment);
            }
        }
    }
}
