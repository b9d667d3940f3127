//! Ack levels: how safe a write is when it is acknowledged. Named in every answer, never lowered silently.

use crate::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// How safe an acknowledged write is. In JSON and on the command line: `memory`, `local`, `replicated(2)`, `persisted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckLevel {
    /// In the memory of one process; may be lost at any crash.
    Memory,
    /// Synced on one node's disk.
    Local,
    /// Synced on this many nodes of different failure domains, at least 1.
    Replicated(u8),
    /// In the under-store, proven.
    Persisted,
}

impl fmt::Display for AckLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Local => f.write_str("local"),
            Self::Replicated(n) => write!(f, "replicated({n})"),
            Self::Persisted => f.write_str("persisted"),
        }
    }
}

impl FromStr for AckLevel {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let copies = || {
            text.strip_prefix("replicated(")?
                .strip_suffix(')')?
                .parse()
                .ok()
                .filter(|n| *n > 0)
        };
        match text {
            "memory" => Ok(Self::Memory),
            "local" => Ok(Self::Local),
            "replicated" => Ok(Self::Replicated(2)),
            "persisted" => Ok(Self::Persisted),
            _ => copies().map(Self::Replicated).ok_or_else(|| {
                Invalid(format!(
                    "{text:?} is no ack level; memory, local, replicated(n) and persisted are"
                ))
            }),
        }
    }
}

impl Serialize for AckLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AckLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_read_and_write_and_are_ordered() {
        let levels = [
            "memory",
            "local",
            "replicated(1)",
            "replicated(2)",
            "replicated(255)",
            "persisted",
        ];
        let parsed: Vec<AckLevel> = levels.iter().map(|l| l.parse().unwrap()).collect();
        assert!(parsed.is_sorted());
        assert_eq!(parsed.iter().map(AckLevel::to_string).collect::<Vec<_>>(), levels);
        assert_eq!("replicated".parse(), Ok(AckLevel::Replicated(2)));
    }

    #[test]
    fn other_words_are_refused() {
        for text in [
            "",
            "LOCAL",
            "replicated(0)",
            "replicated(256)",
            "replicated(-1)",
            "replicated(2",
            "disk",
        ] {
            assert!(text.parse::<AckLevel>().is_err(), "{text}");
        }
    }
}
