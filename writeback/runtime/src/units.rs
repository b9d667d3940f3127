//! Sizes and durations as people write them: "64MiB", "10 GB", "100ms", "1h 30m".
//!
//! What is printed reads back as exactly the same value. Letters follow dd and truncate: `K`, `KiB` are 1024, `KB` is 1000; case
//! does not matter, except that `m` after a number is minutes only in a duration. A number without a unit is bytes in a size and
//! an error in a duration (except 0): whoever writes `timeout = 30` has to say of what.
//!
//! In a settings struct: [`ByteSize`] as the type; `#[serde(with = "forebay_runtime::units::duration")]` on a [`Duration`],
//! `units::duration_opt` on an `Option`. On a command line: [`ByteSize`] is `FromStr`, [`parse_duration`] a value parser.

use std::{fmt, ops::Deref, str::FromStr, time::Duration};

/// Text that is no size or no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {why}")]
pub struct UnitError {
    /// What was given, cut to a readable length.
    pub text: String,
    /// "size" or "duration".
    pub what: &'static str,
    /// What is wrong and how it should look.
    pub why: &'static str,
}

const SIZE_HINT: &str = "write a number and a unit, as in 64MiB, 10GB or 4096";
const DURATION_HINT: &str = "write a number and a unit, as in 100ms, 10s, 5min or 1h30m";
const TOO_LARGE: &str = "the number is too large";
const TOO_FINE: &str = "the fraction is finer than the smallest unit";

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many bytes.
    pub const fn b(count: u64) -> Self {
        Self(count)
    }

    /// So many KiB. Overflow panics, in a constant at compile time.
    pub const fn kib(count: u64) -> Self {
        Self(count * (1 << 10))
    }

    /// So many MiB. Overflow panics, in a constant at compile time.
    pub const fn mib(count: u64) -> Self {
        Self(count * (1 << 20))
    }

    /// So many GiB. Overflow panics, in a constant at compile time.
    pub const fn gib(count: u64) -> Self {
        Self(count * (1 << 30))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes in memory's own type.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// For people, not for parsing back: at most one decimal, binary units, as in "1.5 GiB".
    pub fn rounded(self) -> String {
        let (unit, scale) = BINARY
            .into_iter()
            .find(|&(_, scale)| self.0 >= scale)
            .unwrap_or(("B", 1));
        let tenths = u128::from(self.0) * 10 / u128::from(scale);
        match (tenths / 10, tenths % 10) {
            (whole, 0) => format!("{whole} {unit}"),
            (whole, tenth) => format!("{whole}.{tenth} {unit}"),
        }
    }
}

impl Deref for ByteSize {
    type Target = u64;
    fn deref(&self) -> &u64 {
        &self.0
    }
}

impl From<u64> for ByteSize {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

const BINARY: [(&str, u64); 6] = [
    ("EiB", 1 << 60),
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
const DECIMAL: [(&str, u64); 6] = [
    ("EB", 10u64.pow(18)),
    ("PB", 10u64.pow(15)),
    ("TB", 10u64.pow(12)),
    ("GB", 10u64.pow(9)),
    ("MB", 10u64.pow(6)),
    ("KB", 10u64.pow(3)),
];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The unit that gives the smallest whole number; binary wins a tie.
        let exact = |&&(_, scale): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(scale);
        let best = BINARY
            .iter()
            .chain(&DECIMAL)
            .filter(exact)
            .min_by_key(|(_, scale)| self.0 / scale);
        let (unit, scale) = best.copied().unwrap_or(("B", 1));
        f.pad(&format!("{}{unit}", self.0 / scale))
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = |why| UnitError {
            text: shown(text),
            what: "size",
            why,
        };
        let (number, rest) = Number::split(text.trim()).ok_or_else(|| refuse(SIZE_HINT))?;
        let scale = size_scale(rest.trim_start()).ok_or_else(|| refuse(SIZE_HINT))?;
        let bytes = number.times(u128::from(scale)).map_err(refuse)?;
        u64::try_from(bytes).map(Self).map_err(|_| refuse(TOO_LARGE))
    }
}

fn size_scale(unit: &str) -> Option<u64> {
    if unit.is_empty() || unit.eq_ignore_ascii_case("b") || unit.eq_ignore_ascii_case("bytes") {
        return Some(1);
    }
    let named = BINARY
        .iter()
        .chain(&DECIMAL)
        .find(|(name, _)| unit.eq_ignore_ascii_case(name));
    let short = || BINARY.iter().find(|(name, _)| unit.eq_ignore_ascii_case(&name[..1]));
    named.or_else(short).map(|&(_, scale)| scale)
}

/// Reads a duration: "100ms", "1.5s", "10 min", "1h30m". `ns`, `us`/`µs`, `ms`, `s`/`sec`, `m`/`min`, `h`/`hour`, `d`/`day`, `w`/`week`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let refuse = |why| UnitError {
        text: shown(text),
        what: "duration",
        why,
    };
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    loop {
        let (number, after) = Number::split(rest).ok_or_else(|| refuse(DURATION_HINT))?;
        let after = after.trim_start();
        let unit_len = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let scale = duration_scale(unit).ok_or_else(|| refuse(DURATION_HINT))?;
        nanos = nanos
            .checked_add(number.times(scale).map_err(refuse)?)
            .ok_or_else(|| refuse(TOO_LARGE))?;
        rest = after.trim_start();
        if rest.is_empty() {
            break;
        }
    }
    let seconds = u64::try_from(nanos / SECOND).map_err(|_| refuse(TOO_LARGE))?;
    let below = u32::try_from(nanos % SECOND).expect("a remainder of a second fits");
    Ok(Duration::new(seconds, below))
}

const SECOND: u128 = 1_000_000_000;

fn duration_scale(unit: &str) -> Option<u128> {
    Some(match unit.to_lowercase().as_str() {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hour" | "hours" => 3_600 * SECOND,
        "d" | "day" | "days" => 86_400 * SECOND,
        "w" | "week" | "weeks" => 7 * 86_400 * SECOND,
        _ => return None,
    })
}

/// Writes a duration so that [`parse_duration`] reads back exactly it, in the largest unit that is exact: "100ms", "5min".
pub fn format_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400 * SECOND),
        ("h", 3_600 * SECOND),
        ("min", 60 * SECOND),
        ("s", SECOND),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let exact = UNITS.into_iter().find(|(_, scale)| nanos.is_multiple_of(*scale));
    let (unit, scale) = exact.expect("every number of nanoseconds is a multiple of one");
    format!("{}{unit}", nanos / scale)
}

/// A decimal number: `digits` / 10^`decimals`.
#[derive(Clone, Copy)]
struct Number {
    digits: u128,
    decimals: u32,
}

impl Number {
    /// Takes a number off the front: digits, and a point with digits after it. At most 30 digits.
    fn split(text: &str) -> Option<(Self, &str)> {
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let (whole, fraction) = match number.split_once('.') {
            Some((_, "")) | Some(("", _)) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (number, ""),
        };
        let digits: String = [whole, fraction].concat();
        if digits.is_empty() || digits.len() > 30 {
            return None;
        }
        let decimals = u32::try_from(fraction.len()).ok()?;
        Some((
            Self {
                digits: digits.parse().ok()?,
                decimals,
            },
            rest,
        ))
    }

    /// The number times `scale`, when that is whole.
    fn times(self, scale: u128) -> Result<u128, &'static str> {
        let product = self.digits.checked_mul(scale).ok_or(TOO_LARGE)?;
        let divisor = 10u128.pow(self.decimals);
        if product.is_multiple_of(divisor) {
            Ok(product / divisor)
        } else {
            Err(TOO_FINE)
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

// Text in formats for people; the plain number in binary ones.
impl serde::Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> serde::Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl serde::de::Visitor<'_> for SizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size as in \"64MiB\", or a number of bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes)
            .map(ByteSize)
            .map_err(|_| E::custom("a size can not be negative"))
    }
}

/// For `#[serde(with = "forebay_runtime::units::duration")]`: a duration as text.
pub mod duration {
    use super::{Duration, format_duration, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it as text.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*duration))
    }

    /// Reads it from text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// As [`duration`], for an `Option<Duration>`; put `#[serde(default)]` beside it.
pub mod duration_opt {
    use super::{Duration, format_duration, parse_duration};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// Writes it as text, or nothing.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(format_duration).serialize(serializer)
    }

    /// Reads it from text, or nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_duration(&text).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests;
