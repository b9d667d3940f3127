//! Listings of stores that go on: where one page of a directory ended, the next one begins.
//!
//! A store can begin a listing after a name, but not every one finds it cheaply: a local folder is read whole for that. So what a page
//! was taken from is kept for the one who asks for the next page, for [`IDLE_MAX`]. Names that were made meanwhile may be seen or not,
//! as in any long listing; but a name that our own rows covered when the listing began, and cover no longer, must not be missed nor
//! shown again. Whoever takes such a row or whiteout away says so first ([`Listings::changed`]), and what was begun before is dropped.

use super::ages::{Ages, At};
use forebay_understore::{Listed, StoreError};
use futures::{StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use std::{collections::VecDeque, fmt, time::Duration};

/// How long one is kept for the next page.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Listings kept; one of a local folder may hold 16 MiB of names.
const KEPT_MAX: usize = 8;

/// A listing of one directory under way.
pub(super) struct Listing {
    at: At,
    /// Of the directory, when it began.
    age: u64,
    /// The page before the next began after this name.
    page_after: String,
    page: VecDeque<Listed>,
    rows: BoxStream<'static, Result<Listed, StoreError>>,
    /// When it was last put aside.
    aside: Duration,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Listing {
    /// The next row, again if it was in the page before and lies after the name where this page begins.
    pub(super) async fn next(&mut self) -> Result<Option<Listed>, StoreError> {
        match self.page.pop_front() {
            Some(row) => Ok(Some(row)),
            None => self.rows.next().await.transpose(),
        }
    }
}

/// All that may go on.
#[derive(Debug)]
pub(super) struct Listings {
    kept: Mutex<VecDeque<Listing>>,
    /// Of directories.
    ages: Ages,
}

impl Listings {
    pub(super) fn new() -> Self {
        Self {
            kept: Mutex::default(),
            ages: Ages::new(),
        }
    }

    /// The rows of a directory after `after`: those of a listing that came this far, or of a new one.
    pub(super) fn go_on(
        &self,
        at: &At,
        after: Option<&str>,
        now: Duration,
        begin: impl FnOnce() -> BoxStream<'static, Result<Listed, StoreError>>,
    ) -> Listing {
        let age = self.ages.of(at);
        if let Some(mut listing) = after.and_then(|after| self.take(at, after, age, now)) {
            let after = after.unwrap_or_default();
            listing.page.retain(|row| row.name.as_str() > after);
            return listing;
        }
        Listing {
            at: at.clone(),
            age,
            page_after: String::new(),
            page: VecDeque::new(),
            rows: begin(),
            aside: now,
        }
    }

    fn take(&self, at: &At, after: &str, age: u64, now: Duration) -> Option<Listing> {
        let mut kept = self.kept.lock();
        kept.retain(|listing| now < listing.aside + IDLE_MAX);
        let came_this_far = |listing: &Listing| {
            let last = listing.page.back();
            listing.at == *at
                && listing.age == age
                && listing.page_after.as_str() <= after
                && last.is_some_and(|last| after <= last.name.as_str())
        };
        let newest = kept.iter().rposition(came_this_far)?;
        kept.remove(newest)
    }

    /// Keeps a listing whose last page began after `after` and is `page`, for whoever wants the next one.
    pub(super) fn keep(&self, mut listing: Listing, after: Option<&str>, page: &[Listed], now: Duration) {
        // What it held back of the page before comes first.
        let rest = std::mem::take(&mut listing.page);
        listing.page = page.iter().cloned().chain(rest).collect();
        listing.page_after = after.unwrap_or_default().to_owned();
        listing.aside = now;
        let mut kept = self.kept.lock();
        // A listing of the same page that was begun earlier could be taken for this one.
        kept.retain(|other| other.at != listing.at || other.page_after != listing.page_after);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(listing);
    }

    /// A name in this directory is no longer covered by a row or whiteout of ours.
    pub(super) fn changed(&self, directory: &At) {
        self.ages.change(directory);
    }

    /// The same for all directories.
    pub(super) fn changed_all(&self) {
        self.ages.change_all();
        self.kept.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_understore::{UnderStore, memory::Memory};

    const NOW: Duration = Duration::from_secs(100);

    fn at() -> At {
        (1, "d".to_owned())
    }

    async fn page(
        listings: &Listings,
        store: &Memory,
        after: Option<&str>,
        begun: &mut u32,
        now: Duration,
    ) -> Vec<String> {
        let mut listing = listings.go_on(&at(), after, now, || {
            *begun += 1;
            store.list("d", after)
        });
        let mut page = Vec::new();
        while page.len() < 3
            && let Some(row) = listing.next().await.unwrap()
        {
            page.push(row);
        }
        if page.len() == 3 {
            listings.keep(listing, after, &page, now);
        }
        page.into_iter().map(|row| row.name).collect()
    }

    fn store() -> Memory {
        let store = Memory::new();
        (0..8).for_each(|k| store.write_outside(&format!("d/f{k}"), "x"));
        store
    }

    #[tokio::test]
    async fn pages_of_a_directory_are_one_listing_also_where_they_overlap() {
        let (listings, store, mut begun) = (Listings::new(), store(), 0);
        assert_eq!(page(&listings, &store, None, &mut begun, NOW).await, ["f0", "f1", "f2"]);
        assert_eq!(
            page(&listings, &store, Some("f1"), &mut begun, NOW).await,
            ["f2", "f3", "f4"]
        );
        assert_eq!(
            page(&listings, &store, Some("f1a"), &mut begun, NOW).await,
            ["f2", "f3", "f4"]
        );
        assert_eq!(
            page(&listings, &store, Some("f4"), &mut begun, NOW).await,
            ["f5", "f6", "f7"]
        );
        assert_eq!(begun, 1);
        assert_eq!(
            page(&listings, &store, Some("f0"), &mut begun, NOW).await,
            ["f1", "f2", "f3"]
        );
        assert_eq!(begun, 2, "it did not come from there");
    }

    #[tokio::test]
    async fn what_changed_or_waited_too_long_begins_anew() {
        let (listings, store, mut begun) = (Listings::new(), store(), 0);
        page(&listings, &store, None, &mut begun, NOW).await;
        store.delete_outside("d/f3");
        listings.changed(&at());
        assert_eq!(
            page(&listings, &store, Some("f2"), &mut begun, NOW).await,
            ["f4", "f5", "f6"]
        );
        listings.changed_all();
        page(&listings, &store, Some("f2"), &mut begun, NOW).await;
        page(&listings, &store, Some("f6"), &mut begun, NOW + IDLE_MAX).await;
        assert_eq!(begun, 4);
    }

    #[tokio::test]
    async fn no_more_are_kept_than_may_be() {
        let (listings, store) = (Listings::new(), store());
        for k in 0..100 {
            let at = (k, "d".to_owned());
            let mut listing = listings.go_on(&at, None, NOW, || store.list("d", None));
            let row = listing.next().await.unwrap().unwrap();
            listings.keep(listing, None, &[row], NOW);
        }
        assert_eq!(listings.kept.lock().len(), KEPT_MAX);
    }
}
