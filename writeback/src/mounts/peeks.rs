//! Small contents that come with the answer to what is at their names.
//!
//! Whoever opens a small file that nobody has looked at asks a store twice: what is there, and for its bytes. Where lookups are followed by
//! such reads, as those of a training loop are in its first epoch, a lookup asks for both at once. Bytes that nobody reads then are the
//! price; so a read earns credit for a few lookups, and each lookup spends some.

use bytes::Bytes;
use forebay_understore::Validator;
use moka::sync::Cache as Moka;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Largest content that is worth it.
pub(crate) const CONTENT_BYTES_MAX: u64 = 256 << 10;
/// Bytes of contents that wait for their readers, of all mounts.
const CONTENTS_BYTES_MAX: u64 = 16 << 20;
/// Lookups that a read earns.
const EARNED: u32 = 4;
/// Most lookups to spend.
const CREDIT_MAX: u32 = 64;

/// Contents that wait for their readers, by mount and key.
pub(super) type Contents = Arc<Moka<(u32, String), (Validator, Bytes)>>;

pub(super) fn contents() -> Contents {
    let weigh = |(_, key): &(u32, String), (_, bytes): &(Validator, Bytes)| {
        u32::try_from(key.len() + bytes.len() + 200).unwrap_or(u32::MAX)
    };
    Arc::new(Moka::builder().max_capacity(CONTENTS_BYTES_MAX).weigher(weigh).build())
}

/// Those of one mount.
#[derive(Debug)]
pub(crate) struct Peeks {
    mount: u32,
    contents: Contents,
    credit: AtomicU32,
}

impl Peeks {
    pub(super) fn new(mount: u32, contents: Contents) -> Self {
        Self {
            mount,
            contents,
            credit: AtomicU32::new(0),
        }
    }

    /// A small file is read whose bytes are not in the cache.
    pub(crate) fn earn(&self) {
        let more = |credit: u32| Some((credit + EARNED).min(CREDIT_MAX));
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether the lookup that comes now shall ask for the bytes, too.
    pub(super) fn spend(&self) -> bool {
        let less = |credit: u32| credit.checked_sub(1);
        self.credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Keeps what came with an answer, for its reader.
    pub(super) fn keep(&self, key: &str, validator: &Validator, bytes: Bytes) {
        let content = (validator.clone(), bytes);
        self.contents.insert((self.mount, key.to_owned()), content);
    }

    /// The whole content at this key with this validator, when it came with an answer.
    pub(crate) fn take(&self, key: &str, validator: &Validator) -> Option<Bytes> {
        let (of, bytes) = self.contents.remove(&(self.mount, key.to_owned()))?;
        (of == *validator).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_that_no_read_follows_are_soon_bare_again() {
        let peeks = Peeks::new(1, contents());
        assert!(!peeks.spend(), "nobody has read anything yet");
        (0..1000).for_each(|_| peeks.earn());
        let spent = (0..1000).take_while(|_| peeks.spend()).count();
        assert_eq!(spent, CREDIT_MAX as usize);
        // One reader in four is enough.
        peeks.earn();
        for lookup in 0..1000 {
            assert!(peeks.spend(), "lookup {lookup}");
            if lookup % EARNED == 0 {
                peeks.earn();
            }
        }
    }

    #[test]
    fn a_content_is_taken_once_and_only_as_what_it_is() {
        let contents = contents();
        let [one, other] = [1, 2].map(|mount| Peeks::new(mount, Arc::clone(&contents)));
        let (first, second) = (Validator("1".into()), Validator("2".into()));
        one.keep("a", &first, Bytes::from_static(b"first"));
        assert_eq!(other.take("a", &first), None);
        assert_eq!(one.take("b", &first), None);
        assert_eq!(one.take("a", &first), Some(Bytes::from_static(b"first")));
        assert_eq!(one.take("a", &first), None);
        one.keep("a", &first, Bytes::from_static(b"first"));
        assert_eq!(one.take("a", &second), None);
    }

    #[test]
    fn what_waits_stays_within_its_bytes() {
        let contents = contents();
        let peeks = Peeks::new(1, Arc::clone(&contents));
        let bytes = Bytes::from(vec![0; CONTENT_BYTES_MAX as usize]);
        for number in 0..1000 {
            peeks.keep(&number.to_string(), &Validator("1".into()), bytes.clone());
        }
        contents.run_pending_tasks();
        assert!(contents.weighted_size() <= CONTENTS_BYTES_MAX);
    }
}
