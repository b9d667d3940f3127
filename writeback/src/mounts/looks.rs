//! Looks at names that are under way: who wants to know what somebody asks a store already waits for the same answer.
//!
//! It is as old as the question, so whoever joins believes what he would believe if it were remembered; and not if the key was changed
//! or forgotten since.

use super::ages::At;
use forebay_namespace::{BaseEntry, BaseError};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use parking_lot::Mutex;
use std::{collections::HashMap, fmt};

/// What a look answers.
pub(super) type Looked = Result<Option<BaseEntry>, BaseError>;

/// Looks that nobody waits for any more are forgotten when there are so many.
const FORGOTTEN_AT: usize = 4096;

struct Look {
    /// What the key was like when it was asked for.
    asked: Asked,
    answer: WeakShared<BoxFuture<'static, Looked>>,
}

/// The age of a key, and the epoch of its mount.
pub(super) type Asked = (u64, u64);

/// Those under way, by mount and key.
#[derive(Default)]
pub(super) struct Looks(Mutex<HashMap<At, Look>>);

impl fmt::Debug for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looks").finish_non_exhaustive()
    }
}

impl Looks {
    /// The look at this key that is under way, or a new one.
    pub(super) fn join(
        &self,
        at: &At,
        asked: Asked,
        look: impl FnOnce() -> BoxFuture<'static, Looked>,
    ) -> Shared<BoxFuture<'static, Looked>> {
        let mut looks = self.0.lock();
        let known = looks.get(at).filter(|known| known.asked == asked);
        if let Some(answer) = known.and_then(|known| known.answer.upgrade()) {
            return answer;
        }
        let answer = look().shared();
        if let Some(weak) = answer.downgrade() {
            looks.insert(at.clone(), Look { asked, answer: weak });
        }
        if looks.len() > FORGOTTEN_AT {
            looks.retain(|_, look| look.answer.upgrade().is_some());
        }
        answer
    }

    /// Nobody joins the look at this key any more.
    pub(super) fn end(&self, at: &At, asked: Asked) {
        let mut looks = self.0.lock();
        if looks.get(at).is_some_and(|look| look.asked == asked) {
            looks.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_question_is_asked_once_and_again_after_a_change() {
        let (looks, at) = (Looks::default(), (1, "a".to_owned()));
        let begun = std::cell::Cell::new(0);
        let look = |asked| {
            looks.join(&at, asked, || {
                begun.set(begun.get() + 1);
                async { Ok(None) }.boxed()
            })
        };
        let (first, second) = (look((1, 1)), look((1, 1)));
        assert_eq!(begun.get(), 1);
        assert_eq!(first.await.unwrap(), second.await.unwrap());
        let first = look((1, 1));
        for (asked, begins) in [((2, 1), 2), ((2, 2), 3), ((2, 2), 3)] {
            let _second = look(asked);
            assert!(begun.get() >= begins, "{asked:?}");
        }
        drop(first);
        looks.end(&at, (2, 2));
        let before = begun.get();
        drop(look((2, 2)));
        drop(look((2, 2)));
        assert_eq!(begun.get(), before + 2, "one that nobody waits for is no answer");
    }
}
