//! Listings in byte order.
//!
//! The client lists a directory from its first name on, so one that begins after a name reads those before it too. Whoever lists page by
//! page keeps the listing for that.

use super::{Shared, found, name_of, order, order::Order, wire::Rows};
use crate::{Found, Listed, StoreError, local::is_hidden};
use std::sync::Arc;

/// A listing under way.
#[derive(Debug)]
pub(super) struct Listing {
    shared: Arc<Shared>,
    key: String,
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

impl Listing {
    pub(super) fn new(shared: Arc<Shared>, key: &str, after: Option<&str>) -> Self {
        let going = Going {
            order: Order::new(after, order::HELD_MAX),
            rows: None,
        };
        Self {
            shared,
            key: key.to_owned(),
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
                Ok(Some(row)) if self.key.is_empty() && is_hidden(name_of(&row)) => continue,
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
            if !next.is_empty() {
                let listed = |(name, found)| Listed { name, found };
                return Ok(Some(next.into_iter().map(listed).collect()));
            }
        }
        Ok(None)
    }
}
