//! The words and bounds of values. Each has one reading from JSON, and one form that it is shown in; reading that again gives the
//! same value. A refusal names the value and all that is allowed.

use chrono::{DateTime, SecondsFormat};
use forebay_runtime::{
    clock::Timestamp,
    units::{ByteSize, format_duration, parse_duration},
};
use serde_json::Value as Json;
use std::{fmt, ops::RangeInclusive, time::Duration};

/// Longest part of a refused value that is shown.
const SHOWN_CHARS: usize = 60;
/// Longest name of a tier, bytes.
const TIER_BYTES_MAX: usize = 32;
/// The word for "no limit".
const NONE: &str = "none";

/// Why a policy is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is no such key.
    #[error("{0:?} is no policy; keys are {1}")]
    Key(String, String),
    /// The value is none of this key's.
    #[error("{key}: {value} is not allowed; {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value, cut to a readable length.
        value: String,
        /// What may stand there.
        allowed: String,
    },
}

/// A value as JSON text, cut to a readable length.
pub(crate) fn shown(json: &Json) -> String {
    let text = json.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A reading of JSON; the error says what is allowed.
pub(crate) type Read<T> = Result<T, String>;

/// How a value is shown.
pub(crate) trait Shown {
    fn json(&self) -> Json;
}

/// Makes an enum whose values are words.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// Its word.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            pub(crate) fn read(json: &Json) -> Read<Self> {
                match json.as_str() {
                    $(Some($word) => Ok(Self::$variant),)+
                    _ => Err(format!("write {}", [$($word),+].join(" or "))),
                }
            }
        }

        impl Shown for $name {
            fn json(&self) -> Json {
                self.word().into()
            }
        }
    };
}

words! {
    /// When an open asks the under-store whether a file is still what the cache has.
    Revalidate {
        /// At every open.
        Always "always",
        /// When the last answer is older than `revalidate_ttl`.
        Ttl "ttl",
        /// Only when told to (`sync`).
        Never "never",
    }
}

words! {
    /// What becomes of data whose `ttl` is over.
    TtlAction {
        /// The cache drops it, the under-store keeps it.
        Free "free",
        /// It is deleted, in the under-store too.
        Delete "delete",
    }
}

words! {
    /// What makes room when the clean cache is full.
    Evict {
        /// Nothing: what is held stays, what comes later is read past the cache.
        Epoch "epoch",
        /// What was read only once, then what was not read again.
        S3Fifo "s3fifo",
        /// What was not read for longest.
        Lru "lru",
        /// As `s3fifo`; as `epoch` for each directory that is found to be read in epochs.
        Auto "auto",
    }
}

words! {
    /// How a write meets cache and under-store.
    Write {
        /// Acknowledged in the cache, persisted later.
        Back "back",
        /// Acknowledged when the under-store has it; the cache keeps a copy.
        Through "through",
        /// Acknowledged when the under-store has it; the cache keeps nothing.
        Around "around",
    }
}

words! {
    /// What form a dataset's parts have in the under-store.
    PersistFormat {
        /// As they were written.
        AsIs "as-is",
        /// As Parquet.
        Parquet "parquet",
    }
}

words! {
    /// Compression of Parquet pages.
    ParquetCompression {
        /// None.
        None "none",
        /// Snappy.
        Snappy "snappy",
        /// LZ4.
        Lz4 "lz4",
        /// ZSTD.
        Zstd "zstd",
    }
}

words! {
    /// How fine the statistics in Parquet are: least and greatest values, nulls.
    ParquetStatistics {
        /// None.
        None "none",
        /// Of each row group.
        Chunk "chunk",
        /// Of each page too.
        Page "page",
    }
}

/// Whether clean data stays in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    /// It makes room like everything else.
    No,
    /// It stays.
    Yes,
    /// It stays until this wall time. Whoever keeps the policy takes it away then.
    Until(Timestamp),
}

impl Pin {
    /// Whether data stays for now.
    pub fn holds(self) -> bool {
        self != Self::No
    }

    pub(crate) fn read(json: &Json) -> Read<Self> {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).ok();
        match json {
            Json::Bool(false) => Ok(Self::No),
            Json::Bool(true) => Ok(Self::Yes),
            other => match other.as_str().and_then(time) {
                Some(time) => Ok(Self::Until(Timestamp(time.timestamp_micros()))),
                None => Err("write true or false, or until when, as in \"2030-01-31T12:00:00Z\"".into()),
            },
        }
    }
}

impl Shown for Pin {
    fn json(&self) -> Json {
        match self {
            Self::No => false.into(),
            Self::Yes => true.into(),
            Self::Until(at) => {
                let at = DateTime::from_timestamp_micros(at.0).unwrap_or_default();
                at.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()
            }
        }
    }
}

/// Level of a write that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ack {
    /// In the memory of one process.
    Memory,
    /// Durable on one node.
    Local,
    /// Durable on so many nodes.
    Replicated(u32),
    /// Proven to be in the under-store.
    Persisted,
}

impl Ack {
    pub(crate) fn read(json: &Json) -> Read<Self> {
        let copies = |text: &str| {
            let count = text.strip_prefix("replicated(")?.strip_suffix(')')?;
            let count: u32 = count.parse().ok()?;
            (2..=COPIES_MAX).contains(&u64::from(count)).then_some(count)
        };
        match json.as_str() {
            Some("memory") => Ok(Self::Memory),
            Some("local") => Ok(Self::Local),
            Some("persisted") => Ok(Self::Persisted),
            other => other.and_then(copies).map(Self::Replicated).ok_or_else(|| {
                format!("write memory, local, replicated(N) with N from 2 to {COPIES_MAX}, or persisted")
            }),
        }
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Local => f.write_str("local"),
            Self::Replicated(copies) => write!(f, "replicated({copies})"),
            Self::Persisted => f.write_str("persisted"),
        }
    }
}

impl Shown for Ack {
    fn json(&self) -> Json {
        self.to_string().into()
    }
}

/// Most copies of one piece of data.
pub(crate) const COPIES_MAX: u64 = 7;
/// Ages that persisting may wait for.
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

/// Bytes that persisting may gather.
const GATHERED: RangeInclusive<u64> = 1..=1 << 40;

/// When what was written goes to the under-store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persist {
    /// At once.
    Asap,
    /// When its dataset or job commits.
    Commit,
    /// When it has been unchanged for so long.
    Age(Duration),
    /// When what is kept back has come to so many bytes together, or is so old.
    Size(ByteSize, Option<Duration>),
    /// Only when told to (`persist`).
    Never,
}

impl Persist {
    pub(crate) fn read(json: &Json) -> Read<Self> {
        let age = |text: &str| {
            let age = parse_duration(text.strip_prefix("age=")?).ok()?;
            AGES.contains(&age).then_some(age)
        };
        let size = |text: &str| {
            let (size, rest) = text
                .split_once(',')
                .map_or((text, None), |(size, rest)| (size, Some(rest)));
            let size: ByteSize = size.strip_prefix("size=")?.parse().ok()?;
            let age = match rest {
                Some(rest) => Some(age(rest)?),
                None => None,
            };
            GATHERED.contains(&size.0).then_some(Self::Size(size, age))
        };
        match json.as_str() {
            Some("asap") => Ok(Self::Asap),
            Some("commit") => Ok(Self::Commit),
            Some("never") => Ok(Self::Never),
            other => {
                let held = other.and_then(|text| age(text).map(Self::Age).or_else(|| size(text)));
                held.ok_or_else(|| {
                    format!(
                        "write asap, commit, never, an age as in age=10min, from {} to {}, a size as in size=64MiB, from {} to {}, or both as \
                         in size=64MiB,age=10min",
                        format_duration(*AGES.start()),
                        format_duration(*AGES.end()),
                        ByteSize(*GATHERED.start()),
                        ByteSize(*GATHERED.end())
                    )
                })
            }
        }
    }
}

impl fmt::Display for Persist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asap => f.write_str("asap"),
            Self::Commit => f.write_str("commit"),
            Self::Age(age) => write!(f, "age={}", format_duration(*age)),
            Self::Size(size, None) => write!(f, "size={size}"),
            Self::Size(size, Some(age)) => write!(f, "size={size},age={}", format_duration(*age)),
            Self::Never => f.write_str("never"),
        }
    }
}

impl Shown for Persist {
    fn json(&self) -> Json {
        self.to_string().into()
    }
}

/// A number of bytes, shown as it was given: a number stays one, text becomes the shortest exact text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// The bytes.
    pub bytes: u64,
    in_units: bool,
}

impl Size {
    /// So many bytes, shown with a unit.
    pub(crate) fn in_units(bytes: u64) -> Self {
        Self { bytes, in_units: true }
    }

    pub(crate) fn read(json: &Json, bounds: RangeInclusive<u64>) -> Read<Self> {
        let read = match json {
            Json::String(text) => text.parse().ok().map(|ByteSize(bytes)| (bytes, true)),
            other => other.as_u64().map(|bytes| (bytes, false)),
        };
        let within = read.filter(|(bytes, _)| bounds.contains(bytes));
        within.map(|(bytes, in_units)| Self { bytes, in_units }).ok_or_else(|| {
            let (least, most) = (ByteSize(*bounds.start()), ByteSize(*bounds.end()));
            format!("write a size as in \"64MiB\" or a number of bytes, from {least} to {most}")
        })
    }
}

impl Shown for Size {
    fn json(&self) -> Json {
        match self.in_units {
            true => ByteSize(self.bytes).to_string().into(),
            false => self.bytes.into(),
        }
    }
}

/// The name of a tier of storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tier(String);

impl Tier {
    /// The name of the tier that every node has: its data folders.
    pub const DISK: &'static str = "disk";
    /// The name that leaves the choice to the cache: what is read again goes up by itself.
    pub const AUTO: &'static str = "auto";

    /// Whichever suits.
    pub fn auto() -> Self {
        Self(Self::AUTO.into())
    }

    /// Whether a tier may have this name: up to 32 small letters, digits, `-` and `_`, and none that has a meaning of its own.
    pub fn may_be_called(name: &str) -> bool {
        Self::is_name(name) && ![Self::DISK, Self::AUTO].contains(&name)
    }

    fn is_name(name: &str) -> bool {
        (1..=TIER_BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    pub(crate) fn read(json: &Json) -> Read<Self> {
        let name = json.as_str().filter(|name| Self::is_name(name));
        name.map(|name| Self(name.into())).ok_or_else(|| {
            format!("write the name of a tier: up to {TIER_BYTES_MAX} small letters, digits, '-' and '_'")
        })
    }
}

impl Shown for Tier {
    fn json(&self) -> Json {
        self.0.as_str().into()
    }
}

impl Shown for bool {
    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Shown for u64 {
    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Shown for u32 {
    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Shown for Duration {
    fn json(&self) -> Json {
        format_duration(*self).into()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn json(&self) -> Json {
        self.as_ref().map_or_else(|| NONE.into(), Shown::json)
    }
}

pub(crate) fn yes_or_no(json: &Json) -> Read<bool> {
    json.as_bool().ok_or_else(|| "write true or false".into())
}

pub(crate) fn count(json: &Json, bounds: RangeInclusive<u64>) -> Read<u64> {
    let within = json.as_u64().filter(|count| bounds.contains(count));
    within.ok_or_else(|| format!("write a whole number from {} to {}", bounds.start(), bounds.end()))
}

/// A [`count`] that fits 32 bits.
pub(crate) fn small_count(json: &Json, bounds: RangeInclusive<u32>) -> Read<u32> {
    let (least, most) = bounds.into_inner();
    let count = count(json, u64::from(least)..=u64::from(most))?;
    Ok(u32::try_from(count).expect("within bounds of 32 bits"))
}

pub(crate) fn span(json: &Json, bounds: RangeInclusive<Duration>) -> Read<Duration> {
    let read = json.as_str().and_then(|text| parse_duration(text).ok());
    read.filter(|span| bounds.contains(span)).ok_or_else(|| {
        let (least, most) = (format_duration(*bounds.start()), format_duration(*bounds.end()));
        format!("write a span as in \"100ms\" or \"7d\", from {least} to {most}")
    })
}

/// What `read` reads, or the word for none.
pub(crate) fn or_none<T>(json: &Json, read: impl FnOnce(&Json) -> Read<T>) -> Read<Option<T>> {
    match json.as_str() {
        Some(NONE) => Ok(None),
        _ => read(json).map(Some).map_err(|allowed| format!("{allowed}, or {NONE}")),
    }
}
