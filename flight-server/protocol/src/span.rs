//! Durations as people write them in JSON: `"100ms"`, `"30s"`, `"10min"`; a bare number counts seconds.

use crate::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, time::Duration};

/// Units from the longest to the shortest, in nanoseconds.
const UNITS: [(&str, u64); 9] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

/// A duration with a text form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Reads `"1.5s"`, `"10min"`, `"3"`. Negative, endless and unit-less nonsense is refused.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = || {
            Invalid(format!(
                "{text:?} is no duration; write it like \"100ms\", \"30s\" or \"10min\""
            ))
        };
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..split], trimmed[split..].trim());
        let nanos = match unit {
            "" => 1_000_000_000,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?.1,
        };
        let seconds = number.parse::<f64>().map_err(|_| refuse())? * nanos as f64 / 1e9;
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| refuse())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let (unit, size) = UNITS
            .iter()
            .find(|(unit, size)| *unit != "m" && nanos.is_multiple_of(u128::from(*size)))
            .expect("ns divides all");
        write!(f, "{}{unit}", nanos / u128::from(*size))
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration like \"30s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                Ok(Span(Duration::from_secs(seconds)))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                Duration::try_from_secs_f64(seconds).map(Span).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, millis, again) in [
            ("100ms", 100, "100ms"),
            ("30s", 30_000, "30s"),
            ("10min", 600_000, "10min"),
            ("10m", 600_000, "10min"),
            ("1.5s", 1500, "1500ms"),
            ("2", 2000, "2s"),
            ("0", 0, "0s"),
            ("24h", 86_400_000, "1d"),
        ] {
            let span = Span::parse(text).unwrap();
            assert_eq!(span.0, Duration::from_millis(millis), "{text}");
            assert_eq!(span.to_string(), again);
            assert_eq!(Span::parse(again).unwrap(), span);
        }
        assert_eq!(serde_json::from_str::<Span>("3").unwrap().0, Duration::from_secs(3));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "1 parsec",
            "1e999",
            "99999999999999999999999d",
            "1..2s",
            "NaN",
        ] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
        for json in ["-1", "null", "[]", "1e300", "\"x\""] {
            assert!(serde_json::from_str::<Span>(json).is_err(), "{json}");
        }
    }
}
