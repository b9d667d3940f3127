//! Writes that were given up without an answer, and may be carried out all the same: a gateway whose pool is full holds them, and goes on
//! with them once there is room.
//!
//! Each makes an object only where none is (an upload in parts is aborted first, `clear`). While their file is wanted they do no harm; once it was taken away any of them would make it
//! again. So before a key is emptied an object stands there until all of them have met it and are over: the first of them, or one of no
//! bytes in its place. They come close after one another, within milliseconds with Ceph's gateway, and none comes after that.
//!
//! What is known of them lives in memory. After a restart every write that was begun and is not known to have arrived counts as given up.

use super::tracker::At;
use crate::{cache::Inner, mounts::Mount, rows::Place};
use forebay_understore::{Expect, Found, StoreError, Write};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::{collections::BTreeMap, time::Duration};

/// So long an object stands at a key before it is emptied.
const STANDS: Duration = Duration::from_secs(2);
/// Keys that are remembered; what is given up beyond them is not waited for.
const KEYS_MAX: usize = 1 << 16;
/// Keys of one directory that are waited for at once.
const KEYS_PARALLEL: usize = 64;

/// Keys at which something may arrive late, with the moment (monotonic) since which an object is known to stand there.
#[derive(Debug, Default)]
pub(super) struct Late {
    keys: Mutex<BTreeMap<At, Option<Duration>>>,
}

/// A write that is on its way; given up unless [`Sent::answered`].
#[derive(Debug)]
pub(super) struct Sent<'a> {
    late: &'a Late,
    at: Option<At>,
}

impl Sent<'_> {
    pub(super) fn answered(mut self) {
        self.at = None;
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            self.late.given_up(at);
        }
    }
}

impl Late {
    pub(super) fn send(&self, at: At) -> Sent<'_> {
        Sent {
            late: self,
            at: Some(at),
        }
    }

    pub(super) fn given_up(&self, at: At) {
        let mut keys = self.keys.lock();
        if keys.len() >= KEYS_MAX && !keys.contains_key(&at) {
            keys.retain(|_, stands| stands.is_none());
        }
        if keys.len() < KEYS_MAX || keys.contains_key(&at) {
            keys.insert(at, None);
        }
    }

    /// An object was seen at the key.
    pub(super) fn stands(&self, at: &At, now: Duration) {
        if let Some(since) = self.keys.lock().get_mut(at) {
            since.get_or_insert(now);
        }
    }

    /// Nothing comes to the key any more.
    fn is_over(&self, at: &At) {
        self.keys.lock().remove(at);
    }

    /// How long an object has to stand at the key from now on; none: nothing comes there.
    fn left(&self, at: &At, now: Duration) -> Option<Duration> {
        let mut keys = self.keys.lock();
        let since = (*keys.get(at)?).unwrap_or(now);
        let left = (since + STANDS).saturating_sub(now);
        if left.is_zero() {
            keys.remove(at);
            return None;
        }
        Some(left)
    }

    /// The keys below this one at which something may arrive.
    fn below(&self, (mount, key): &At) -> Vec<At> {
        let below = format!("{key}/");
        let keys = self.keys.lock();
        let from = keys.range((*mount, below.clone())..);
        from.take_while(|((of, key), _)| of == mount && key.starts_with(&below))
            .map(|(at, _)| at.clone())
            .collect()
    }
}

impl Inner {
    /// Before the place is emptied: lets an object stand there until whatever was given up for it is over. `found`: what is there.
    /// Answers what is there then.
    pub(super) async fn outlast(
        &self,
        mount: &Mount,
        place: &Place,
        found: Option<Found>,
    ) -> Result<Option<Found>, StoreError> {
        let (late, at) = (&self.persist.late, (mount.id, place.key.clone()));
        if late.left(&at, self.persist.now()).is_none() {
            return Ok(found);
        }
        // Elsewhere nothing arrives late, or what does can not be kept out.
        if mount.is_local() || !mount.is_exclusive().await? {
            late.is_over(&at);
            return Ok(found);
        }
        let found = match found {
            Some(found) => found,
            None => self.take(mount, place).await?,
        };
        late.stands(&at, self.persist.now());
        if let Some(left) = late.left(&at, self.persist.now()) {
            let _aside = self.persist.step_aside();
            self.components.clock.sleep(left).await;
        }
        late.is_over(&at);
        Ok(Some(found))
    }

    /// Puts an object of no bytes where none is. Under the token of what may arrive, so that whoever is cut off finds its own.
    async fn take(&self, mount: &Mount, place: &Place) -> Result<Found, StoreError> {
        let token = place.token.clone();
        let write = Write {
            key: place.key.clone(),
            size: 0,
            token: token.unwrap_or_else(|| self.taken_token()),
            attributes: Vec::new(),
            expect: Expect::Absent,
        };
        mount.upload.put(&write, Vec::new()).await
    }

    /// The token of an object of no bytes that stands at a key for no piece of work in particular.
    fn taken_token(&self) -> String {
        format!("{}-taken", self.persist.token_prefix())
    }

    /// Whether what was found only stands there.
    pub(super) fn only_stands(&self, found: &Found) -> bool {
        found.size == 0 && found.token.as_ref() == Some(&self.taken_token())
    }

    /// The same for all keys below a directory that is to go.
    pub(super) async fn outlast_below(&self, mount: &Mount, key: &str) -> Result<(), StoreError> {
        let stand = |at: At| async move {
            let place = Place::file(at.0, at.1, None);
            let found = mount.upload.head(&place.key).await?;
            self.outlast(mount, &place, found).await.map(drop)
        };
        let keys = self.persist.late.below(&(mount.id, key.to_owned()));
        futures::stream::iter(keys)
            .map(stand)
            .buffer_unordered(KEYS_PARALLEL)
            .try_collect()
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(key: &str) -> At {
        (1, key.to_owned())
    }

    #[test]
    fn an_object_has_to_stand_at_a_key_only_while_something_may_arrive() {
        let late = Late::default();
        assert_eq!(late.left(&at("a"), SECOND), None);
        late.send(at("a")).answered();
        assert_eq!(late.left(&at("a"), SECOND), None);
        drop(late.send(at("a")));
        // An hour goes by until the store takes writes.
        assert_eq!(late.left(&at("a"), 3600 * SECOND), Some(STANDS));
        late.stands(&at("a"), 3600 * SECOND);
        late.stands(&at("a"), 3601 * SECOND);
        assert_eq!(late.left(&at("a"), 3601 * SECOND), Some(STANDS - SECOND));
        assert_eq!(late.left(&at("a"), 3600 * SECOND + STANDS), None);
        late.stands(&at("b"), 3606 * SECOND);
        assert_eq!(late.left(&at("b"), 3606 * SECOND), None, "nothing was sent there");
    }

    #[test]
    fn a_write_that_is_given_up_later_begins_anew() {
        let late = Late::default();
        late.given_up(at("a"));
        late.stands(&at("a"), SECOND);
        late.given_up(at("a"));
        assert_eq!(late.left(&at("a"), 60 * SECOND), Some(STANDS));
    }

    #[test]
    fn keys_below_a_directory_are_those_of_its_mount_and_no_others() {
        let late = Late::default();
        for key in ["a", "a/b", "a/b/c", "a.d", "ab/c"] {
            late.given_up(at(key));
        }
        late.given_up((2, "a/other".into()));
        assert_eq!(late.below(&at("a")), [at("a/b"), at("a/b/c")]);
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        let late = Late::default();
        late.given_up(at("met"));
        late.stands(&at("met"), SECOND);
        for n in 0..KEYS_MAX + 10 {
            late.given_up(at(&n.to_string()));
        }
        let keys = late.keys.lock();
        assert!(keys.len() == KEYS_MAX && !keys.contains_key(&at("met")));
    }
}
