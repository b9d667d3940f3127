//! What the under-stores show: the base that lies under the namespace's rows, over all mounts.
//!
//! Answers of a store are remembered as long as the policies say ([`Freshness`](super::freshness)), so that a burst of lookups costs one
//! request, within [`REMEMBERED_BYTES_MAX`]; directories that were listed are too ([`listings`](super::listings)). Our own changes drop
//! what was remembered, and so does a comparison with the store. A store that is away is an error, never an absence.

use super::{
    Mount, PEEKED_BYTES_MAX, Shared,
    ages::{Ages, At},
    freshness::Freshness,
    health::named,
    listings::{Before, Whole},
    looks::{Asked, Looked},
    overwritten::went,
};
use crate::rows::{Content, StoreAt};
use async_trait::async_trait;
use bytes::Bytes;
use forebay_namespace::{Base, BaseAttributes, BaseEntry, BaseError, Inode, NAME_BYTES_MAX, Path};
use forebay_runtime::clock::Timestamp;
use forebay_understore::{
    Found, KEY_BYTES_MAX, Listed, Peeked, StoreError,
    attributes::{GID, MODE, MTIME, UID, XATTRS, decode_xattrs},
};
use futures::FutureExt;
use moka::sync::Cache as Moka;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Bytes of remembered answers.
const REMEMBERED_BYTES_MAX: u64 = 32 << 20;
/// A directory that was not changed for so many microseconds, by the clocks of store and server, has another time after the next change.
const SETTLED_AFTER: i64 = 2_000_000;

/// What a store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    /// When it was asked.
    at: Duration,
    /// The mount's epoch then.
    epoch: u64,
    entry: Option<BaseEntry>,
}

/// Remembered answers by mount and key.
#[derive(Debug)]
pub(super) struct Remembered {
    answers: Moka<At, Answer>,
    /// How often keys were forgotten. An answer under way meanwhile may be the old one.
    ages: Ages,
}

impl Remembered {
    pub(super) fn new() -> Self {
        let weigh = |(_, key): &At, _: &Answer| u32::try_from(key.len() * 2 + 200).unwrap_or(u32::MAX);
        Self {
            answers: Moka::builder()
                .max_capacity(REMEMBERED_BYTES_MAX)
                .weigher(weigh)
                .build(),
            ages: Ages::new(),
        }
    }

    /// Keeps an answer that was asked for at this age of the key, unless the key was forgotten since. Looked at after it is kept:
    /// whoever forgets later finds it.
    fn keep(&self, at: At, asked: u64, answer: Answer) {
        self.answers.insert(at.clone(), answer);
        if self.ages.of(&at) != asked {
            self.answers.invalidate(&at);
        }
    }

    /// What was found at a key when it was asked for proves the directories above it, so that a burst of lookups below a directory does
    /// not ask for that one again and again. Only those of which a store knows nothing else: no time, no attributes.
    fn prove_above(&self, (mount, key): &At, at: Duration, epoch: u64) {
        for (end, _) in key.rmatch_indices('/') {
            let above = (*mount, key[..end].to_owned());
            let asked = self.ages.of(&above);
            let known = self.answers.get(&above);
            let Some(known) = known.filter(|known| known.epoch == epoch && known.at < at) else {
                continue;
            };
            if known
                .entry
                .as_ref()
                .is_some_and(|entry| *entry == directory(&entry.name))
            {
                self.keep(above, asked, Answer { at, ..known });
            }
        }
    }

    pub(super) fn forget(&self, mount: u32, key: &str) {
        let at = (mount, key.to_owned());
        self.ages.change(&at);
        self.answers.invalidate(&at);
    }

    pub(super) fn forget_all(&self) {
        self.ages.change_all();
        self.answers.invalidate_all();
    }
}

/// The base over all mounts.
#[derive(Debug)]
pub(super) struct MountedBase {
    pub(super) shared: Arc<Shared>,
}

impl MountedBase {
    /// Where a store may have something for this path. No store has a key that is too long: what is made there stays here, and is
    /// shown as blocked.
    fn place(&self, path: &Path) -> Option<(Arc<Mount>, String)> {
        let (mount, key) = self.shared.resolve(path)?;
        Some((mount, key.filter(|key| key.len() <= KEY_BYTES_MAX)?))
    }

    /// What shows of an answer: nothing of what was overwritten while the store was away.
    fn shown(&self, at: &At, entry: Option<BaseEntry>) -> Option<BaseEntry> {
        let until = || self.shared.overwritten.since_of_file(at);
        entry.filter(|entry| entry.is_dir || until().is_none_or(|until| entry.mtime.0 > until))
    }
}

#[async_trait]
impl Base for MountedBase {
    async fn stat(&self, path: &Path) -> Result<Option<BaseEntry>, BaseError> {
        let mounts = self.shared.table();
        // A mount point and what leads to one are directories, whether their store answers or not.
        if path.is_root() || mounts.iter().any(|mount| mount.path.starts_with(path)) {
            return Ok(Some(directory(path.name().unwrap_or_default())));
        }
        let Some((mount, key)) = self.place(path) else {
            return Ok(None);
        };
        let name = path.name().unwrap_or_default();
        let freshness = self.shared.freshness(&mount, path);
        let (now, epoch) = (self.shared.clock.monotonic(), mount.epoch());
        let id = (mount.id, key);
        if !freshness.remembers() {
            let found = head(&mount, &id.1, false).await.map_err(|error| away(&mount, error))?;
            return Ok(self.shown(&id, found.map(|found| entry(name.to_vec(), found))));
        }
        let known = self.shared.remembered.answers.get(&id);
        let is_new = known.is_none();
        if let Some(answer) = known
            && answer.epoch == epoch
            && freshness.holds(now.saturating_sub(answer.at), answer.entry.is_none())
        {
            return Ok(self.shown(&id, answer.entry));
        }
        let asked = (self.shared.remembered.ages.of(&id), epoch);
        let begin = || {
            let (shared, id, name) = (Arc::clone(&self.shared), id.clone(), name.to_vec());
            let look = async move {
                let looked = shared.look(&mount, &id, name, is_new, (now, asked)).await;
                shared.looks.end(&id, asked);
                looked
            };
            look.boxed()
        };
        let entry = self.shared.looks.join(&id, asked, begin).await?;
        Ok(self.shown(&id, entry))
    }

    async fn list(&self, path: &Path, after: Option<&[u8]>, limit: usize) -> Result<Vec<BaseEntry>, BaseError> {
        let mut entries: BTreeMap<Vec<u8>, BaseEntry> = BTreeMap::new();
        if let Some((mount, key)) = self.place(path) {
            let (mut tries, at) = (1, (mount.id, key));
            let freshness = self.shared.freshness(&mount, path);
            let listed = loop {
                match self.shared.list_store(&mount, &at, (after, limit), freshness).await {
                    Err(error) if mount.again(&error, &mut tries).await => {}
                    listed => break listed.map_err(|error| away(&mount, error))?,
                }
            };
            entries.extend(
                listed
                    .into_iter()
                    .map(|row| (row.name.clone().into_bytes(), entry(row.name.into_bytes(), row.found))),
            );
        }
        // Mount points hide what the store around them has under their names.
        let depth = path.components().len();
        for mount in self
            .shared
            .table()
            .iter()
            .filter(|mount| mount.path != *path && mount.path.starts_with(path))
        {
            let name = &mount.path.components()[depth];
            if after.is_none_or(|after| name.as_slice() > after) {
                entries.insert(name.clone(), directory(name));
            }
        }
        Ok(entries.into_values().take(limit).collect())
    }

    fn adopt(&self, path: &Path, entry: &BaseEntry) -> Bytes {
        let (mount, key) = match self.shared.resolve(path) {
            Some((mount, Some(key))) => (mount.id, key),
            // The mount went between the listing and now: the content then says that it is not mounted.
            _ => (u32::MAX, String::new()),
        };
        let at = StoreAt {
            mount,
            key,
            validator: entry.validator.clone(),
        };
        Content::Persisted {
            at,
            layout: None,
            work: None,
        }
        .encode()
    }

    fn may_show(&self, path: &Path, _inode: &Inode) -> bool {
        self.shared.resolve(path).is_some()
    }

    fn hides(&self, path: &Path) -> bool {
        let at = self.place(path).map(|(mount, key)| (mount.id, key));
        at.is_some_and(|at| self.shared.overwritten.since_of_file(&at).is_some())
    }
}

impl Shared {
    /// Asks the store what is at a key, and remembers the answer.
    async fn look(
        &self,
        mount: &Mount,
        id: &At,
        name: Vec<u8>,
        is_new: bool,
        (at, asked): (Duration, Asked),
    ) -> Looked {
        let (age, epoch) = asked;
        let found = head(mount, &id.1, is_new).await.map_err(|error| away(mount, error))?;
        if found.is_some() {
            self.remembered.prove_above(id, at, epoch);
        }
        let entry = found.map(|found| entry(name, found));
        let answer = Answer {
            at,
            epoch,
            entry: entry.clone(),
        };
        self.remembered.keep(id.clone(), age, answer);
        Ok(entry)
    }

    /// A page of a directory, each entry within the timeout, without what was overwritten unseen.
    async fn list_store(
        &self,
        mount: &Mount,
        at: &At,
        (after, limit): (Option<&[u8]>, usize),
        freshness: Freshness,
    ) -> Result<Vec<Listed>, StoreError> {
        // Names of a store are UTF-8; a cursor that is not sorts after its longest valid beginning and what follows is filtered.
        let after = after.map(|after| String::from_utf8_lossy(after).into_owned());
        let after = after.as_deref();
        let overwritten = self.overwritten.since(at);
        let known = self.known_whole(mount, at, freshness).await;
        let is_known = known.is_some();
        let now = self.clock.monotonic();
        let mut listing = match known {
            Some(whole) => self.listings.of_whole(at, whole, after),
            None => {
                let asked = match after {
                    None => self.before_listing(mount, at, freshness).await,
                    Some(_) => None,
                };
                let begin = || mount.store.list(&at.1, after);
                self.listings.go_on(at, after, (now, asked), begin)
            }
        };
        let mut listed: Vec<Listed> = Vec::new();
        while listed.len() < limit {
            let next = match is_known {
                true => listing.next().await,
                false => mount.health.ask(listing.next()).await,
            };
            match next {
                Ok(Some(row)) if overwritten.is_some_and(|since| went(&row, since)) => {}
                // An object hides a directory of its name, as it does when the name alone is asked for.
                Ok(Some(row))
                    if sayable(&row.name)
                        && listed.last().map_or(after, |last| Some(&last.name)) != Some(&row.name) =>
                {
                    listed.push(row);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.listings.ended(listing);
                    return Ok(listed);
                }
                Err(StoreError::NotFound(_)) => return Ok(listed),
                Err(error) => return Err(error),
            }
        }
        if !is_known {
            self.listings.keep(listing, after, &listed, now);
        }
        Ok(listed)
    }

    /// What is remembered of a directory, as far as the policies let it be believed.
    async fn known_whole(&self, mount: &Mount, at: &At, freshness: Freshness) -> Option<Arc<Whole>> {
        if !freshness.remembers() {
            return None;
        }
        let whole = self.listings.whole(at, mount.epoch())?;
        let now = self.clock.monotonic();
        if !freshness.holds(now.saturating_sub(whole.asked()), false) {
            return None;
        }
        if freshness.holds(now.saturating_sub(whole.seen()), true) {
            return Some(whole);
        }
        // Only the store knows whether another name is there by now.
        let dated = whole.dated()?;
        let found = mount.health.ask(mount.store.head(&at.1)).await.ok()??;
        if found.is_dir && found.mtime == dated {
            whole.see(now);
            return Some(whole);
        }
        None
    }

    /// How a directory is that is about to be listed; none when that is not worth remembering.
    async fn before_listing(&self, mount: &Mount, at: &At, freshness: Freshness) -> Option<Before> {
        if !freshness.remembers() {
            return None;
        }
        let (now, epoch) = (self.clock.monotonic(), mount.epoch());
        let dated = match freshness.is_long() && mount.store.dates_names() {
            true => mount.health.ask(mount.store.head(&at.1)).await.ok().flatten(),
            false => None,
        };
        // What happens to a directory right after it changed may leave it with the same time.
        let settled = self.clock.now().0.saturating_sub(SETTLED_AFTER);
        let dated = dated.map(|found| found.mtime).filter(|mtime| *mtime < settled);
        Some(Before { at: now, epoch, dated })
    }
}

/// What is at a key, `is_new` to us or not. A failure in passing is tried again: a lookup that fails lets a write go ahead without knowing
/// what it replaces.
async fn head(mount: &Mount, key: &str, is_new: bool) -> Result<Option<Found>, StoreError> {
    let _reader = mount.readers.one();
    if is_new
        && mount.peeks.spend()
        && let Ok(peeked) = mount.health.ask(mount.store.peek(key, PEEKED_BYTES_MAX)).await
    {
        return Ok(peeked.map(|Peeked { found, bytes }| {
            if let Some(bytes) = bytes.filter(|bytes| bytes.len() as u64 == found.size) {
                mount.peeks.keep(key, &found.validator, bytes);
            }
            found
        }));
    }
    let mut tries = 1;
    loop {
        match mount.health.ask(mount.store.head(key)).await {
            Err(error) if mount.again(&error, &mut tries).await => {}
            found => return found,
        }
    }
}

/// Whether a path can say the name.
fn sayable(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(['/', '\0']) && name != "." && name != ".."
}

fn entry(name: Vec<u8>, found: Found) -> BaseEntry {
    BaseEntry {
        name,
        is_dir: found.is_dir,
        size: found.size,
        mtime: Timestamp(mtime(&found)),
        attributes: attributes(&found.attributes),
        validator: found.validator.0,
    }
}

/// When it changed: what we wrote with it, for an object store shows when it arrived. Of others' objects that name says something else.
fn mtime(found: &Found) -> i64 {
    let kept = found.attributes.iter().find(|(name, _)| name == MTIME);
    let kept = kept.filter(|_| found.token.is_some());
    kept.and_then(|(_, micros)| micros.parse().ok()).unwrap_or(found.mtime)
}

/// What the store keeps of it, as far as it makes sense: others may keep something else under these names.
fn attributes(kept: &[(String, String)]) -> Option<Arc<BaseAttributes>> {
    let value = |name: &str| Some(kept.iter().find(|(kept, _)| kept == name)?.1.as_str());
    let mode = value(MODE).and_then(|mode| u32::from_str_radix(mode, 8).ok());
    let id = |name| value(name).and_then(|id| id.parse().ok()).unwrap_or(0);
    let attributes = BaseAttributes {
        mode: mode.filter(|mode| *mode <= 0o7777),
        uid: id(UID),
        gid: id(GID),
        xattrs: value(XATTRS).map(decode_xattrs).unwrap_or_default(),
    };
    (attributes != BaseAttributes::default()).then(|| Arc::new(attributes))
}

fn directory(name: &[u8]) -> BaseEntry {
    BaseEntry {
        name: name.to_vec(),
        is_dir: true,
        size: 0,
        mtime: Timestamp(0),
        validator: String::new(),
        attributes: None,
    }
}

fn away(mount: &Mount, error: StoreError) -> BaseError {
    BaseError(named(&mount.url, error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_under_way_when_its_key_changed_is_not_remembered() {
        let remembered = Remembered::new();
        let at = (1, "a/b".to_owned());
        let answer = Answer {
            at: Duration::ZERO,
            epoch: 0,
            entry: None,
        };
        let forgets: [&dyn Fn(); 2] = [&|| remembered.forget(1, "a/b"), &|| remembered.forget_all()];
        for forget in forgets {
            let asked = remembered.ages.of(&at);
            forget();
            remembered.keep(at.clone(), asked, answer.clone());
            assert_eq!(remembered.answers.get(&at), None);
        }
        let asked = remembered.ages.of(&at);
        remembered.keep(at.clone(), asked, answer.clone());
        assert_eq!(remembered.answers.get(&at), Some(answer));
    }
}
