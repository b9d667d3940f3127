//! What of the under-store's content lies in the cache, as people ask for it: free, pin, unpin.
//!
//! A pin is the policy `pin`, set durably at the path, so what is written or loaded there later is pinned too. Pinned data never makes
//! room, and `free` leaves it. It is limited by the cache as everything clean is: where more is pinned than fits, pinning says so.

use super::{blocks::Whose, load::Loaded};
use crate::{
    Cache, Error, Result,
    cache::Inner,
    mounts::Mount,
    policy::{
        Change, Key, Value,
        value::{Pin, TtlAction},
    },
    rows::Content,
};
use forebay_namespace::{Ino, Kind, Node, Path};
use forebay_runtime::clock::Timestamp;
use std::{sync::Arc, time::Duration};

/// What `free` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Bytes that are no longer held locally.
    pub freed_bytes: u64,
    /// Dirty bytes under the path, which stay.
    pub dirty_bytes: u64,
    /// Clean bytes under the path that stay because they are pinned.
    pub pinned_bytes: u64,
}

/// When a pin ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinEnd {
    /// At this wall time.
    At(Timestamp),
    /// So long from now.
    In(Duration),
}

/// Longest time to the end of a pin.
const PIN_MAX: Duration = Duration::from_secs(36_500 * 86_400);

impl PinEnd {
    fn time(self, now: Timestamp) -> Result<Timestamp> {
        let at = match self {
            PinEnd::At(at) => at,
            PinEnd::In(span) => now.plus(span),
        };
        match at.since(now) {
            Duration::ZERO => Err(Error::invalid("the end of the pin is over already; name a later one")),
            left if left > PIN_MAX => Err(Error::invalid(
                "the end of the pin is more than a hundred years away; leave it out, and the pin holds until `unpin`",
            )),
            _ => Ok(at),
        }
    }
}

impl Cache {
    /// Drops local copies of clean data under `path`; dirty and pinned data stays.
    pub async fn free(&self, path: &Path) -> Result<Freed> {
        let inner = &self.inner;
        let _entered = inner.enter()?;
        let node = inner.must_be_there(path).await?;
        let mut freed = Freed::default();
        let rows = if node.is_dir() {
            inner.rows_below(path).await?
        } else {
            vec![(path.clone(), node)]
        };
        for (path, node) in rows {
            inner.free_row(&path, &node, &mut freed).await?;
        }
        inner.free_blocks(path, &mut freed);
        Ok(freed)
    }

    /// Pins what is under `path`, durably, for ever or `until` then, and loads it; answers when it is loaded, or at once.
    ///
    /// # Errors
    /// NotFound; Invalid: the end is over already, or more than a hundred years away; Full when not all of it fits (it is pinned all the same).
    pub async fn pin(&self, path: &Path, until: Option<PinEnd>, wait: bool) -> Result<Loaded> {
        self.inner.must_be_there(path).await?;
        let now = self.inner.components.clock.now();
        let pin = match until {
            Some(end) => Pin::Until(end.time(now).map_err(|error| error.at(path))?),
            None => Pin::Yes,
        };
        self.policy_set(path, vec![Change::Put(Value::Pin(pin))]).await?;
        let loaded = self.load(path, wait).await?;
        match loaded.full {
            true => Err(Error::full(format!(
                "{path}: is pinned, but only {} of it fit in the cache, which holds at most {} bytes; raise --cache-max, or unpin",
                loaded.told(),
                self.inner.clean.limit()
            ))),
            false => Ok(loaded),
        }
    }

    /// Lets what is under `path` make room again: takes pins at the path and below away, and where one further up holds, ends it here.
    pub async fn unpin(&self, path: &Path) -> Result<()> {
        let pinned = |(at, set): &(&Path, &forebay_policy::Set)| {
            at.starts_with(path) && matches!(set.get(Key::Pin), Some(Value::Pin(pin)) if pin.holds())
        };
        let table = self.inner.policies.table();
        let pins: Vec<Path> = table.iter().filter(pinned).map(|(at, _)| at.clone()).collect();
        for at in pins {
            self.policy_set(&at, vec![Change::Take(Key::Pin)]).await?;
        }
        if self.inner.policies.effective(path).pin.holds() {
            self.policy_set(path, vec![Change::Put(Value::Pin(Pin::No))]).await?;
        }
        Ok(())
    }
}

impl Inner {
    pub(super) async fn must_be_there(&self, path: &Path) -> Result<Node> {
        let node = self.names.resolve(path).await?;
        node.ok_or_else(|| Error::not_found(format!("{path}: not found")))
    }

    async fn free_row(&self, path: &Path, node: &Node, freed: &mut Freed) -> Result<()> {
        let Node::Row { ino, inode, .. } = node else {
            return Ok(());
        };
        if inode.kind != Kind::File {
            return Ok(());
        }
        match Content::decode(&inode.content)? {
            Content::Sealed { .. } | Content::Open => freed.dirty_bytes += inode.size,
            Content::Persisted { layout: Some(_), .. } if self.policies.effective(path).pin.holds() => {
                freed.pinned_bytes += inode.size;
            }
            Content::Persisted { layout: Some(_), .. } => {
                freed.freed_bytes += self.evict(*ino, inode.generation).await?;
            }
            Content::Persisted { layout: None, .. } => {}
        }
        Ok(())
    }

    /// Drops the blocks of what lies under `path` in its store, and in stores mounted below.
    fn free_blocks(&self, path: &Path, freed: &mut Freed) {
        for (mount, key) in self.places_below(path) {
            let objects = self.clean.shared.blocks.lock().objects_below(mount.id, &key);
            for (object, at, bytes) in objects {
                if self.policies.effective(&at).pin.holds() {
                    freed.pinned_bytes += bytes;
                    continue;
                }
                let (gone, bytes) = self.clean.shared.blocks.lock().take_object(&object);
                self.clean.shared.remove_files(gone);
                freed.freed_bytes += bytes;
            }
        }
    }

    /// Drops up to `limit` files' clean bytes whose `ttl` is over; those that are pinned stay.
    pub(crate) async fn free_expired(&self, limit: usize) -> Result<()> {
        let over = |path: &Path, changed| {
            self.expired(path, TtlAction::Free, changed) && !self.policies.effective(path).pin.holds()
        };
        let found = self.clean.shared.blocks.lock().find(limit, over);
        for whose in found {
            match whose {
                Whose::Object(object) => {
                    let (gone, _) = self.clean.shared.blocks.lock().take_object(&object);
                    self.clean.shared.remove_files(gone);
                }
                Whose::Copy(stream) => {
                    self.evict(Ino(stream.0), stream.1).await?;
                }
            }
        }
        Ok(())
    }

    /// Where the stores have what lies under `path`: the mount that covers it with the key there, and those mounted below.
    pub(super) fn places_below(&self, path: &Path) -> Vec<(Arc<Mount>, String)> {
        let covering = self.mounts.resolve(path).and_then(|(mount, key)| Some((mount, key?)));
        let mut places: Vec<(Arc<Mount>, String)> = covering.into_iter().collect();
        let all = self.mounts.all();
        let below = all
            .iter()
            .filter(|mount| mount.path != *path && mount.path.starts_with(path));
        places.extend(below.map(|mount| (Arc::clone(mount), String::new())));
        places
    }
}
