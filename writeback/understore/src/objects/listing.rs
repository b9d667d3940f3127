//! The names of a directory in their order, page by page.
//!
//! Object stores order by whole keys, so directory `a` (as `a/`) comes after `a-b` and `a.b`, while names are to come as `a`, `a-b`,
//! `a.b`. Only a prefix `p` of the last key of a page, followed there by a byte below `/`, can still turn up as a directory that belongs
//! before what the page holds; those few are asked for one by one, and then the page may be sorted and handed out.

use super::{Bucket, Names, PageAsk, Shared, directory, name_in};
use crate::{Listed, StoreError, local::is_hidden};
use futures::{StreamExt, stream::BoxStream};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// A listing under way.
#[derive(Debug)]
pub(super) struct Listing<B> {
    shared: Arc<Shared<B>>,
    below: String,
    /// The key after which the store is asked to begin.
    begin: Option<String>,
    /// What was handed out last, and whether that was the directory of this name: it comes after the object.
    after: Option<(String, bool)>,
    token: Option<String>,
    asked: BTreeMap<String, bool>,
    first: bool,
    /// Whether names of ours are among them.
    at_root: bool,
}

impl<B: Bucket> Listing<B> {
    /// The names after `after` in the directory whose keys begin with `below`.
    pub(super) fn new(shared: Arc<Shared<B>>, below: String, after: Option<&str>) -> Self {
        let at_root = below.trim_end_matches('/') == shared.prefix;
        Self {
            shared,
            begin: after.map(|after| format!("{below}{after}")),
            below,
            after: after.map(|after| (after.to_owned(), true)),
            token: None,
            asked: BTreeMap::new(),
            first: true,
            at_root,
        }
    }

    /// The names, as they are asked for.
    pub(super) fn rows(self) -> BoxStream<'static, Result<Listed, StoreError>> {
        let pages = futures::stream::unfold(Some(self), |listing| async move {
            let mut listing = listing?;
            if !listing.first && listing.token.is_none() {
                return None;
            }
            match listing.page().await {
                Ok(rows) => Some((rows.into_iter().map(Ok).collect(), Some(listing))),
                Err(error) => Some((vec![Err(error)], None)),
            }
        });
        pages.flat_map(futures::stream::iter::<Vec<_>>).boxed()
    }

    async fn page(&mut self) -> Result<VecDeque<Listed>, StoreError> {
        let ask = PageAsk {
            prefix: &self.below,
            by_directory: true,
            after: self.begin.as_deref(),
            token: self.token.as_deref(),
            keys_max: None,
        };
        let page = self.shared.bucket.page(&ask).await?;
        self.first = false;
        self.token = page.next;
        let mut names = Names::new();
        let mut last = String::new();
        for (key, found) in page.objects {
            if let Some(name) = name_in(&self.below, &key) {
                names.insert((name.to_owned(), false), found);
            }
            last = last.max(key);
        }
        for prefix in page.directories {
            if let Some(name) = prefix.strip_suffix('/').and_then(|prefix| name_in(&self.below, prefix)) {
                names.insert((name.to_owned(), true), directory());
            }
            last = last.max(prefix);
        }
        if self.token.is_some() {
            for name in self.directories_to_come(&last).await? {
                names.insert((name, true), directory());
            }
        }
        let rows = names
            .into_iter()
            .filter(|(name, _)| self.after.as_ref().is_none_or(|after| name > after))
            .filter(|((name, _), _)| !self.at_root || !is_hidden(name));
        let rows: VecDeque<Listed> = rows.map(|((name, _), found)| Listed { name, found }).collect();
        if let Some(last) = rows.back() {
            self.after = Some((last.name.clone(), last.found.is_dir));
        }
        Ok(rows)
    }

    async fn directories_to_come(&mut self, last: &str) -> Result<Vec<String>, StoreError> {
        let Some(name) = last.strip_prefix(self.below.as_str()) else {
            return Ok(Vec::new());
        };
        let mut dirs = Vec::new();
        for (at, byte) in name.bytes().enumerate() {
            if byte >= b'/' || at == 0 {
                continue;
            }
            let dir = name[..at].to_owned();
            let there = match self.asked.get(&dir) {
                Some(there) => *there,
                None => self.shared.any_below(&format!("{}{dir}/", self.below)).await?,
            };
            self.asked.insert(dir.clone(), there);
            if there {
                dirs.push(dir);
            }
        }
        // What is no prefix of this page's last name is never asked again.
        self.asked.retain(|dir, _| name.starts_with(dir.as_str()));
        Ok(dirs)
    }
}
