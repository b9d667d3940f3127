//! Listings in byte order, and where they were left: whoever lists page by page goes on there.
//!
//! The client lists a directory from its first name on. A caller that takes a page, drops the listing and asks for what comes after
//! would read everything before it once more with each page. So a listing that is dropped before its end is kept for [`KEPT_FOR`],
//! and goes on for whoever asks for the names after its last one. Its next names are as old as the page that the NameNode sent
//! last; no caller is promised that two pages are of one instant. Of the names it knows only order.

use super::{Shared, found, name_of, order, order::Order, wire::Rows};
use crate::{Found, Listed, StoreError, local::HIDDEN};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a listing waits for its caller to come back.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Most listings that wait.
const KEPT_MAX: usize = 16;

/// A listing under way.
#[derive(Debug)]
pub(super) struct Listing {
    shared: Arc<Shared>,
    key: String,
    /// The name that was answered last.
    last: Option<String>,
    /// `None`: it has ended, or failed.
    going: Option<Going>,
}

/// Where it is.
#[derive(Debug)]
struct Going {
    order: Order<Found>,
    /// `None`: the directory is read from its first name next.
    rows: Option<Rows>,
}

/// Listings that were left.
#[derive(Debug, Default)]
pub(super) struct Left(Mutex<Vec<(Instant, String, String, Going)>>);

impl Left {
    fn take(&self, key: &str, after: &str) -> Option<Going> {
        let mut left = self.0.lock();
        left.retain(|(at, ..)| at.elapsed() < KEPT_FOR);
        let at = left
            .iter()
            .position(|(_, its, last, _)| (&**its, &**last) == (key, after))?;
        Some(left.swap_remove(at).3)
    }

    fn keep(&self, key: String, last: String, going: Going) {
        let mut left = self.0.lock();
        left.retain(|(at, ..)| at.elapsed() < KEPT_FOR);
        if left.len() < KEPT_MAX {
            left.push((Instant::now(), key, last, going));
        }
    }
}

impl Listing {
    pub(super) fn new(shared: Arc<Shared>, key: &str, after: Option<&str>) -> Self {
        let left = after.and_then(|after| shared.left.take(key, after));
        let going = left.unwrap_or_else(|| Going {
            order: Order::new(after, order::HELD_MAX),
            rows: None,
        });
        Self {
            shared,
            key: key.to_owned(),
            last: None,
            going: Some(going),
        }
    }

    /// The next rows; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Listed>>, StoreError> {
        while let Some(going) = &mut self.going {
            let rows = match &mut going.rows {
                Some(rows) => rows,
                None => going.rows.insert(self.shared.wire.rows(&self.shared.path(&self.key))),
            };
            let next = match rows.next().await {
                Ok(Some(row)) if self.key.is_empty() && name_of(&row) == HIDDEN => continue,
                Ok(Some(row)) => going.order.push(name_of(&row).to_owned(), found(&row)),
                Ok(None) => {
                    going.rows = None;
                    let (next, more) = going.order.end();
                    if !more {
                        self.going = None;
                    }
                    next
                }
                Err(error) => {
                    self.going = None;
                    return Err(error);
                }
            };
            if let Some((last, _)) = next.last() {
                self.last = Some(last.clone());
                let listed = |(name, found)| Listed { name, found };
                return Ok(Some(next.into_iter().map(listed).collect()));
            }
        }
        Ok(None)
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        if let (Some(last), Some(going)) = (self.last.take(), self.going.take()) {
            self.shared.left.keep(std::mem::take(&mut self.key), last, going);
        }
    }
}
