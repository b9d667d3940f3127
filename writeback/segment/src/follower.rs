//! Reads a stream while it is written: what is durable, and no more.

use crate::{
    error::{Result, SegmentError},
    layout::StableWatch,
    reader::{cut, read_extent},
    state::{Source, StreamState},
};
use bytes::Bytes;
use forebay_runtime::task;
use std::{ops::Range, sync::Arc};

/// A tail reader. Stays good when the stream moves to a dedicated segment, is sealed, or is released. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Follower {
    state: Arc<StreamState>,
}

impl Follower {
    pub(crate) fn new(state: Arc<StreamState>) -> Self {
        Follower { state }
    }

    /// How far the stream is durable, as it grows.
    pub fn stable(&self) -> StableWatch {
        self.state.stable()
    }

    /// The bytes of `range`, in chunks. `Invalid` when it ends beyond what is durable.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        let stable = self.state.stable_bytes();
        if range.start > range.end || range.end > stable {
            let what = format!("bytes {}..{}, durable are {stable}", range.start, range.end);
            return Err(SegmentError::Invalid {
                stream: self.state.id,
                what,
            });
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        match self.state.source(range.end) {
            Source::Dedicated(file) => match file.at_hand(&range) {
                Some(bytes) => Ok(vec![bytes]),
                None => task::blocking(move || file.read(&range)).await.map(|bytes| vec![bytes]),
            },
            Source::Packed(runs) => {
                task::blocking(move || {
                    let from = runs.partition_point(|p| p.offset + u64::from(p.extent.len) <= range.start);
                    let runs = runs[from..].iter().take_while(|placed| placed.offset < range.end);
                    runs.map(|p| Ok(cut(&read_extent(&p.file, &p.extent)?, p.offset, &range)))
                        .collect()
                })
                .await
            }
        }
    }
}
