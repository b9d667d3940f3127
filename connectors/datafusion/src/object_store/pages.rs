//! Listing page by page, by a prefix that may end within a name.
//!
//! The token of a page is the path that it ended with, so the server keeps nothing between two pages. They are in the order of paths,
//! by components; an offset is compared with whole keys, as object stores do, and so only leaves out.

use super::{ForebayStore, NAME, failed, location, meta_of, not_offered};
use async_trait::async_trait;
use forebay_client::{Entry, EntryKind, ErrorKind, WirePath};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    ListResult, Result,
    list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore},
    path::Path,
};

/// Most of a page where the caller names no number.
const PAGE: usize = 1000;

#[async_trait]
impl PaginatedListStore for ForebayStore {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        let recursive = match opts.delimiter.as_deref() {
            None => true,
            Some("/") => false,
            Some(_) => return Err(not_offered("a delimiter other than /")),
        };
        let after = opts.page_token.as_deref().map(read_token).transpose()?;
        let mut page = Page {
            most: opts.max_keys.unwrap_or(PAGE),
            offset: opts.offset,
            recursive,
            objects: Vec::new(),
            prefixes: Vec::new(),
            end: None,
        };
        let Some(place) = Place::of(prefix.unwrap_or_default()) else {
            return Ok(page.with_token(None));
        };
        let mut entries = self.entries_at(&place, recursive, after).await?;
        while let Some(entry) = entries.try_next().await? {
            match place.meets(&entry.path) {
                Meets::Not => {}
                Meets::NoMore => break,
                Meets::Yes if page.take(&entry)? => {}
                Meets::Yes => {
                    let end = page.end.take();
                    return Ok(page.with_token(end));
                }
            }
        }
        Ok(page.with_token(None))
    }
}

impl ForebayStore {
    /// The entries from a place on, or behind the last one of a page before.
    async fn entries_at(
        &self,
        place: &Place,
        recursive: bool,
        after: Option<WirePath>,
    ) -> Result<BoxStream<'static, Result<Entry>>> {
        // What comes first has the start itself for a name, which a listing can only begin behind.
        let first = place.dir.join(&place.start).ok().filter(|_| after.is_none());
        let Some(first) = first else {
            return Ok(self.entries_after(&place.dir, recursive, after));
        };
        let there = match self.client.stat(&first.to_string()).await {
            Ok(entry) => Some(Ok(entry)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Precondition) => None,
            Err(e) => return Err(failed(&location(&first), e)),
        };
        let others = self.entries_after(&place.dir, recursive, Some(first));
        Ok(futures::stream::iter(there).chain(others).boxed())
    }
}

/// What a prefix means: a directory, and how names in it start.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    dir: WirePath,
    start: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Meets {
    Yes,
    Not,
    /// Nor does anything behind it: names come in their order.
    NoMore,
}

impl Place {
    /// `None`: no key begins so.
    fn of(prefix: &str) -> Option<Self> {
        let (dir, start) = match prefix.rsplit_once('/') {
            None => (WirePath::root(), prefix),
            Some(("", _)) => return None,
            Some((dir, start)) => (WirePath::from_bytes(format!("/{dir}").as_bytes()).ok()?, start),
        };
        let start = start.as_bytes().to_vec();
        Some(Self { dir, start })
    }

    fn meets(&self, path: &WirePath) -> Meets {
        let name = path.components().nth(self.dir.components().count());
        let name = name.unwrap_or_default();
        if name.starts_with(&self.start) {
            Meets::Yes
        } else if name > &self.start[..] {
            Meets::NoMore
        } else {
            Meets::Not
        }
    }
}

/// A page that fills.
struct Page {
    most: usize,
    offset: Option<String>,
    recursive: bool,
    objects: Vec<object_store::ObjectMeta>,
    prefixes: Vec<Path>,
    end: Option<WirePath>,
}

impl Page {
    /// Takes an entry in, if it is to be shown; `false`: it belongs on the next page.
    fn take(&mut self, entry: &Entry) -> Result<bool> {
        let location = location(&entry.path);
        let shown = match entry.kind {
            EntryKind::File => self.offset.as_deref().is_none_or(|offset| location.as_ref() > offset),
            EntryKind::Dir => !self.recursive && self.offset.as_deref().is_none_or(|offset| reaches(&location, offset)),
            EntryKind::Symlink => false,
        };
        if !shown {
            return Ok(true);
        }
        if self.objects.len() + self.prefixes.len() >= self.most {
            return Ok(false);
        }
        match entry.kind {
            EntryKind::Dir => self.prefixes.push(location),
            _ => self.objects.push(meta_of(location, entry)?),
        }
        self.end = Some(entry.path.clone());
        Ok(true)
    }

    fn with_token(self, end: Option<WirePath>) -> PaginatedListResult {
        PaginatedListResult {
            result: ListResult {
                common_prefixes: self.prefixes,
                objects: self.objects,
            },
            page_token: end.map(|end| end.to_string()),
        }
    }
}

/// Whether keys under a directory can come behind an offset.
fn reaches(dir: &Path, offset: &str) -> bool {
    let keys = format!("{dir}/");
    keys.as_str() > offset || offset.starts_with(&keys)
}

fn read_token(token: &str) -> Result<WirePath> {
    WirePath::parse(token).map_err(|e| object_store::Error::Generic {
        store: NAME,
        source: Box::new(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> WirePath {
        WirePath::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_prefix_is_a_directory_and_the_start_of_names() {
        for (prefix, dir, start) in [
            ("", "/", ""),
            ("fo", "/", "fo"),
            ("foo/", "/foo", ""),
            ("a/b/c%2F", "/a/b", "c%2F"),
        ] {
            let (dir, start) = (path(dir), start.as_bytes().to_vec());
            assert_eq!(Place::of(prefix), Some(Place { dir, start }), "{prefix}");
        }
        for prefix in ["/", "/a", "a//b", "a/../b"] {
            assert_eq!(Place::of(prefix), None, "{prefix}");
        }
    }

    #[test]
    fn names_behind_a_prefix_end_the_listing() {
        let place = Place::of("d/fo").unwrap();
        for (at, expected) in [
            ("/d/fn/fo", Meets::Not),
            ("/d/f", Meets::Not),
            ("/d/fo", Meets::Yes),
            ("/d/foo/a", Meets::Yes),
            ("/d/fp", Meets::NoMore),
        ] {
            assert_eq!(place.meets(&path(at)), expected, "{at}");
        }
    }

    #[test]
    fn an_offset_leaves_out_directories_that_lie_before_it() {
        for (dir, offset, expected) in [
            ("a", "a", true),
            ("a", "a/m", true),
            ("a", "a.x", true),
            ("a", "b", false),
        ] {
            assert_eq!(reaches(&Path::from(dir), offset), expected, "{dir} {offset}");
        }
    }
}
