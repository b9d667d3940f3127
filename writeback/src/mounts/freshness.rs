//! For how long an answer of a store is taken for true, as the policies of its path say.
//!
//! A local folder is asked every time unless a policy was set for it: asking is cheap there. "Nothing there" is believed for a moment
//! only, whatever the policy, because it stands between a write outside and its first reader here.

use forebay_policy::{Effective, Key, value::Revalidate};
use std::time::Duration;

/// How long "nothing there" is taken for true, at most.
const ABSENT_MAX: Duration = Duration::from_millis(250);

/// How long a burst of questions lasts: the default of the policy.
const BURST: Duration = Duration::from_secs(1);

/// For how long an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// For the one who asked.
    Always,
    /// For so long.
    For(Duration),
    /// Until a sync, or until the store itself says otherwise.
    UntilSync,
}

impl Freshness {
    /// What holds with these policies, in a store where asking is cheap or not.
    pub(super) fn of(policies: &Effective, cheap: bool) -> Self {
        let unset = |key| policies.from(key).is_none();
        match policies.revalidate {
            Revalidate::Always => Freshness::Always,
            Revalidate::Ttl if cheap && unset(Key::Revalidate) && unset(Key::RevalidateTtl) => Freshness::Always,
            Revalidate::Ttl => Freshness::For(policies.revalidate_ttl),
            Revalidate::Never => Freshness::UntilSync,
        }
    }

    /// Whether an answer of this age still holds.
    pub(super) fn holds(self, age: Duration, absent: bool) -> bool {
        match self {
            Freshness::Always => false,
            Freshness::For(span) => age < if absent { span.min(ABSENT_MAX) } else { span },
            Freshness::UntilSync => !absent || age < ABSENT_MAX,
        }
    }

    /// Whether answers are remembered at all.
    pub(super) fn remembers(self) -> bool {
        self != Freshness::Always
    }

    /// Whether answers are remembered for longer than a burst of questions lasts, so that it pays to make them last.
    pub(super) fn is_long(self) -> bool {
        self.holds(BURST, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_namespace::Path;
    use forebay_policy::{Defaults, Set};
    use serde_json::json;

    fn freshness(policies: serde_json::Value, cheap: bool) -> Freshness {
        let pairs = policies.as_object().unwrap();
        let set = Set::parse(pairs.iter().map(|(key, value)| (key.as_str(), value))).unwrap();
        Freshness::of(&Effective::new(Defaults::default()).below(&Path::root(), &set), cheap)
    }

    #[test]
    fn a_folder_is_asked_every_time_unless_a_policy_says_otherwise() {
        assert_eq!(freshness(json!({}), true), Freshness::Always);
        assert_eq!(freshness(json!({}), false), Freshness::For(Duration::from_secs(1)));
        for cheap in [true, false] {
            let minute = json!({ "revalidate_ttl": "1min" });
            assert_eq!(freshness(minute, cheap), Freshness::For(Duration::from_secs(60)));
            assert_eq!(freshness(json!({ "revalidate": "never" }), cheap), Freshness::UntilSync);
            assert_eq!(freshness(json!({ "revalidate": "always" }), cheap), Freshness::Always);
        }
    }

    #[test]
    fn absence_is_believed_for_a_moment_only() {
        let (moment, hour) = (Duration::from_millis(200), Duration::from_secs(3600));
        for (freshness, age, absent, holds) in [
            (Freshness::Always, Duration::ZERO, false, false),
            (Freshness::For(hour), hour / 2, false, true),
            (Freshness::For(hour), hour, false, false),
            (Freshness::For(hour), moment, true, true),
            (Freshness::For(hour), moment * 2, true, false),
            (Freshness::For(moment / 2), moment, true, false),
            (Freshness::UntilSync, hour * 1000, false, true),
            (Freshness::UntilSync, moment, true, true),
            (Freshness::UntilSync, moment * 2, true, false),
        ] {
            assert_eq!(freshness.holds(age, absent), holds, "{freshness:?} {age:?} {absent}");
        }
    }
}
