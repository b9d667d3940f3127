//! Resume tokens: where a reader stopped, counted by the reader itself, so that it goes on with the next batch, exactly once.

use crate::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// Session ids are at least this long; an all-digit name shorter than that is a version.
pub const SESSION_CHARS_MIN: usize = 12;
/// Session ids are at most this long.
pub const SESSION_CHARS_MAX: usize = 64;

/// What the batches of a token are counted in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// A published version, from its first batch.
    Version(u64),
    /// A session, from its first batch; still good after its publish.
    Session(String),
}

/// `"<version or session>:<batches of it already read>"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResumeToken {
    /// What is being read.
    pub of: Counted,
    /// Batches of it already read.
    pub batches: u64,
}

impl ResumeToken {
    /// `batches` batches of version `version` have been read.
    pub fn version(version: u64, batches: u64) -> Self {
        Self {
            of: Counted::Version(version),
            batches,
        }
    }

    /// `batches` batches of session `session` have been read.
    pub fn session(session: impl Into<String>, batches: u64) -> Self {
        Self {
            of: Counted::Session(session.into()),
            batches,
        }
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Counted::Version(version) => write!(f, "{version}:{}", self.batches),
            Counted::Session(session) => write!(f, "{session}:{}", self.batches),
        }
    }
}

impl FromStr for ResumeToken {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || {
            Invalid(format!(
                "{:?} is no resume token; it is \"<version or session>:<batches read>\"",
                crop(text)
            ))
        };
        let (of, batches) = text.split_once(':').ok_or_else(refuse)?;
        let batches = number(batches).ok_or_else(refuse)?;
        let of = match number(of) {
            Some(version) if of.len() < SESSION_CHARS_MIN => Counted::Version(version),
            _ if is_session(of) => Counted::Session(of.to_owned()),
            _ => return Err(refuse()),
        };
        Ok(Self { of, batches })
    }
}

/// Whether `text` can be a session id: 1 to 64 of `0-9a-z`. Real ones have at least twelve.
pub fn is_session(text: &str) -> bool {
    (1..=SESSION_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn crop(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(end, _)| &text[..end])
}

impl Serialize for ResumeToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResumeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_and_write() {
        for (text, token) in [
            ("7:0", ResumeToken::version(7, 0)),
            ("7:13", ResumeToken::version(7, 13)),
            ("k3jd82msl0q9:13", ResumeToken::session("k3jd82msl0q9", 13)),
            ("123456789012:5", ResumeToken::session("123456789012", 5)),
        ] {
            assert_eq!(text.parse(), Ok(token.clone()));
            assert_eq!(token.to_string(), text);
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            ":",
            "7",
            "7:",
            ":7",
            "7:-1",
            "7:+1",
            "a b:1",
            "A:1",
            "7:1:1",
            "7:99999999999999999999",
            &"x".repeat(70),
        ] {
            assert!(text.parse::<ResumeToken>().is_err(), "{text}");
        }
    }
}
