//! Listings of stores that go on: where one page of a directory ended, the next one begins.
//!
//! A store can begin a listing after a name, but not every one finds it cheaply: a local folder is read whole for that. So what a page
//! was taken from is kept for the one who asks for the next page, for [`IDLE_MAX`]. Names that were made meanwhile may be seen or not,
//! as in any long listing; but a name that our own rows covered when the listing began, and cover no longer, must not be missed nor
//! shown again. Whoever takes such a row or whiteout away says so first ([`Listings::changed`]), and what was begun before is dropped.
//!
//! A directory that was listed to its end is remembered whole, if it is not too large: its rows for as long as any answer about a file
//! is, its names for the moment that "nothing there" is, and beyond it as long as the store says that no name came or went
//! ([`Whole::dated`]). For how long that is the base decides.

use super::ages::{Ages, At};
use forebay_understore::{Listed, StoreError};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use moka::sync::Cache as Moka;
use parking_lot::Mutex;
use std::{collections::VecDeque, fmt, mem, sync::Arc, time::Duration};

/// How long one is kept for the next page.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Listings kept; one of a local folder may hold 16 MiB of names.
const KEPT_MAX: usize = 8;
/// Bytes of the rows of one directory that is remembered whole, and of all of them.
const WHOLE_BYTES_MAX: usize = 4 << 20;
const WHOLES_BYTES_MAX: u64 = 32 << 20;

/// How a directory was before it was listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// When that was.
    pub(super) at: Duration,
    /// The mount's epoch.
    pub(super) epoch: u64,
    /// The directory's time, where the store moves it whenever a name comes or goes.
    pub(super) dated: Option<i64>,
}

/// All that a store told of a directory.
#[derive(Debug)]
pub(super) struct Whole {
    asked: Before,
    age: u64,
    rows: Vec<Listed>,
    bytes: usize,
    /// When the names were last known to be these and no others.
    seen: Mutex<Duration>,
}

impl Whole {
    fn new(asked: Before, age: u64) -> Self {
        Self {
            asked,
            age,
            rows: Vec::new(),
            bytes: 0,
            seen: Mutex::new(asked.at),
        }
    }

    /// When the store was asked.
    pub(super) fn asked(&self) -> Duration {
        self.asked.at
    }

    /// When the names were last known to be all there are.
    pub(super) fn seen(&self) -> Duration {
        *self.seen.lock()
    }

    /// The directory's time: while it has no other, its names are these.
    pub(super) fn dated(&self) -> Option<i64> {
        self.asked.dated
    }

    /// The directory was seen to have that time still.
    pub(super) fn see(&self, at: Duration) {
        let mut seen = self.seen.lock();
        *seen = at.max(*seen);
    }

    fn rows_after(self: Arc<Self>, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        let from = self
            .rows
            .partition_point(|row| after.is_some_and(|after| row.name.as_str() <= after));
        stream::iter(from..self.rows.len())
            .map(move |at| Ok(self.rows[at].clone()))
            .boxed()
    }
}

/// A listing of one directory under way.
pub(super) struct Listing {
    at: At,
    /// Of the directory, when it began.
    age: u64,
    /// The page before the next began after this name.
    page_after: String,
    page: VecDeque<Listed>,
    rows: BoxStream<'static, Result<Listed, StoreError>>,
    /// Everything since the directory's beginning.
    whole: Option<Whole>,
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
        if let Some(row) = self.page.pop_front() {
            return Ok(Some(row));
        }
        let row = self.rows.next().await.transpose()?;
        if let (Some(row), Some(whole)) = (&row, &mut self.whole) {
            whole.bytes += size_of::<Listed>() + row.name.len() + row.found.validator.0.len() + attributes_bytes(row);
            whole.rows.push(row.clone());
            if whole.bytes > WHOLE_BYTES_MAX {
                self.whole = None;
            }
        }
        Ok(row)
    }
}

fn attributes_bytes(row: &Listed) -> usize {
    let attributes = row.found.attributes.iter();
    attributes
        .map(|(name, value)| size_of::<(String, String)>() + name.len() + value.len())
        .sum()
}

/// All that may go on.
#[derive(Debug)]
pub(super) struct Listings {
    kept: Mutex<VecDeque<Listing>>,
    wholes: Moka<At, Arc<Whole>>,
    /// Of directories.
    ages: Ages,
}

impl Listings {
    pub(super) fn new() -> Self {
        Self {
            kept: Mutex::default(),
            wholes: Moka::builder()
                .max_capacity(WHOLES_BYTES_MAX)
                .weigher(|(_, key): &At, whole: &Arc<Whole>| {
                    u32::try_from(whole.bytes + key.len() + size_of::<Whole>()).unwrap_or(u32::MAX)
                })
                .build(),
            ages: Ages::new(),
        }
    }

    /// What is remembered of a directory, if nothing is known to have changed since.
    pub(super) fn whole(&self, at: &At, epoch: u64) -> Option<Arc<Whole>> {
        let whole = self.wholes.get(at)?;
        (whole.age == self.ages.of(at) && whole.asked.epoch == epoch).then_some(whole)
    }

    /// The rows of a directory after `after`, out of what is remembered of it.
    pub(super) fn of_whole(&self, at: &At, whole: Arc<Whole>, after: Option<&str>) -> Listing {
        Listing {
            at: at.clone(),
            age: whole.age,
            page_after: String::new(),
            page: VecDeque::new(),
            aside: whole.asked.at,
            rows: whole.rows_after(after),
            whole: None,
        }
    }

    /// A listing came to the directory's end.
    pub(super) fn ended(&self, listing: Listing) {
        let Listing { at, age, whole, .. } = listing;
        if let Some(whole) = whole.filter(|_| age == self.ages.of(&at)) {
            self.wholes.insert(at, Arc::new(whole));
        }
    }

    /// The rows of a directory after `after`: those of a listing that came this far, or of a new one. With `asked` it is remembered if it
    /// begins at the directory's beginning and comes to its end.
    pub(super) fn go_on(
        &self,
        at: &At,
        after: Option<&str>,
        (now, asked): (Duration, Option<Before>),
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
            whole: asked.filter(|_| after.is_none()).map(|asked| Whole::new(asked, age)),
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
        let rest = mem::take(&mut listing.page);
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
        self.wholes.invalidate_all();
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
        let asked = Before {
            at: now,
            epoch: 0,
            dated: None,
        };
        let mut listing = listings.go_on(&at(), after, (now, Some(asked)), || {
            *begun += 1;
            store.list("d", after)
        });
        let mut page = Vec::new();
        while page.len() < 3
            && let Some(row) = listing.next().await.unwrap()
        {
            page.push(row);
        }
        match page.len() {
            3 => listings.keep(listing, after, &page, now),
            _ => listings.ended(listing),
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
    async fn a_directory_that_was_listed_to_its_end_is_remembered_until_it_changes() {
        let (listings, store, mut begun) = (Listings::new(), store(), 0);
        let rest = async |after: Option<&str>| {
            let whole = listings.whole(&at(), 0)?;
            let mut listing = listings.of_whole(&at(), whole, after);
            let mut names = Vec::new();
            while let Some(row) = listing.next().await.unwrap() {
                names.push(row.name);
            }
            Some(names)
        };
        // A listing that begins in the middle tells nothing of what lies before.
        page(&listings, &store, Some("f5"), &mut begun, NOW).await;
        assert_eq!(rest(None).await, None);
        for after in [None, Some("f2"), Some("f5")] {
            assert_eq!(rest(None).await, None);
            page(&listings, &store, after, &mut begun, NOW).await;
        }
        let all = ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"];
        assert_eq!(rest(None).await.unwrap(), all);
        assert_eq!(rest(Some("f5")).await.unwrap(), ["f6", "f7"]);
        assert_eq!(rest(Some("f5a")).await.unwrap(), ["f6", "f7"]);
        assert!(listings.whole(&at(), 1).is_none(), "of another epoch");
        listings.changed(&at());
        assert_eq!(rest(None).await, None);
        // One that changes while it is listed is not remembered.
        page(&listings, &store, None, &mut begun, NOW).await;
        page(&listings, &store, Some("f2"), &mut begun, NOW).await;
        let asked = Before {
            at: NOW,
            epoch: 0,
            dated: None,
        };
        let listing = listings.go_on(&at(), None, (NOW, Some(asked)), || store.list("d", None));
        listings.changed(&at());
        listings.ended(listing);
        assert_eq!(rest(None).await, None);
    }

    #[tokio::test]
    async fn a_directory_that_is_too_large_is_not_remembered() {
        let (listings, store) = (Listings::new(), Memory::new());
        let name = |k: usize| format!("{k:05}-{}", "n".repeat(200));
        let most = WHOLE_BYTES_MAX / (size_of::<Listed>() + 200);
        (0..most).for_each(|k| store.write_outside(&format!("d/{}", name(k)), "x"));
        let asked = Before {
            at: NOW,
            epoch: 0,
            dated: None,
        };
        let mut listing = listings.go_on(&at(), None, (NOW, Some(asked)), || store.list("d", None));
        while listing.next().await.unwrap().is_some() {}
        listings.ended(listing);
        assert!(listings.whole(&at(), 0).is_none());
    }

    #[tokio::test]
    async fn no_more_are_kept_than_may_be() {
        let (listings, store) = (Listings::new(), store());
        for k in 0..100 {
            let at = (k, "d".to_owned());
            let mut listing = listings.go_on(&at, None, (NOW, None), || store.list("d", None));
            let row = listing.next().await.unwrap().unwrap();
            listings.keep(listing, None, &[row], NOW);
        }
        assert_eq!(listings.kept.lock().len(), KEPT_MAX);
    }
}
