//! Paths as Flight, URLs and JSON carry them.
//!
//! A path is bytes: absolute, components of any bytes but `/` and NUL, each at most 255 long, at most 4096 in all. On the
//! wire it is UTF-8 text in which `%XX` stands for one byte:
//!
//! - **reading** text, every `%` must be followed by two hex digits and is decoded. So a literal `%` is written `%25`, and the byte
//!   0xFF `%FF`. `%00` and `%2F` are refused, and so is what decodes to a component `.` or `..`.
//! - **writing** text, what is valid UTF-8 stays as it is, `%` becomes `%25`, and every byte that is not part of valid UTF-8
//!   becomes `%XX`.
//!
//! So every path has one written form, and what was written reads as the same bytes: `"/%FF"` comes back as `"/%FF"`, `"/a b+?#"` as
//! itself. One `/` at the end is ignored; empty components are refused.

use crate::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt::{self, Write as _};

/// Most bytes in one component, decoded.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Most bytes in a whole path, decoded.
pub const PATH_BYTES_MAX: usize = 4096;

/// A validated absolute path, decoded. `/` is the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WirePath(Vec<u8>);

impl WirePath {
    /// The root directory.
    pub fn root() -> Self {
        Self(b"/".to_vec())
    }

    /// Reads an absolute path from its text form. Relative text is refused.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let Some(rest) = text.strip_prefix('/') else {
            let why = if text.is_empty() { "is empty" } else { "is relative" };
            return Err(refuse(
                text,
                &format!("{why}; write it absolute, like \"/features/day=1\""),
            ));
        };
        Self::from_relative(text, rest)
    }

    /// Reads a path as a PATH descriptor gives it: its components, or one element with slashes, with or without the first `/`.
    pub fn from_elements(elements: &[String]) -> Result<Self, Invalid> {
        match elements {
            [] => Err(Invalid::new(
                "the descriptor has no path; give its components or one element like \"/features/day=1\"",
            )),
            [one] if one.is_empty() => Err(refuse(one, "is empty")),
            [one] => Self::from_relative(one, one.strip_prefix('/').unwrap_or(one)),
            many => {
                let text = many.join("/");
                if let Some(bad) = many.iter().find(|e| e.is_empty() || e.contains('/')) {
                    return Err(refuse(
                        &text,
                        &format!("has the element {bad:?}; of several elements each is one component"),
                    ));
                }
                Self::from_relative(&text, &text)
            }
        }
    }

    /// Takes decoded bytes as they are, `b"/a/b"`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let shown = || String::from_utf8_lossy(bytes).into_owned();
        let Some(rest) = bytes.strip_prefix(b"/") else {
            return Err(refuse(&shown(), "is relative"));
        };
        if rest.is_empty() {
            return Ok(Self::root());
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(too_long(&shown()));
        }
        for component in rest.split(|b| *b == b'/') {
            check_component(component).map_err(|why| refuse(&shown(), &why))?;
        }
        Ok(Self(bytes.to_vec()))
    }

    fn from_relative(text: &str, rest: &str) -> Result<Self, Invalid> {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() && text.len() <= 1 {
            return Ok(Self::root());
        }
        // The encoded form is at most three times as long; decoding nothing longer bounds the work.
        if rest.len() > 3 * PATH_BYTES_MAX {
            return Err(too_long(text));
        }
        let mut bytes = Vec::with_capacity(rest.len() + 1);
        for component in rest.split('/') {
            bytes.push(b'/');
            let start = bytes.len();
            decode_into(component, &mut bytes).map_err(|why| refuse(text, &why))?;
            check_component(&bytes[start..]).map_err(|why| refuse(text, &why))?;
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(too_long(text));
        }
        Ok(Self(bytes))
    }

    /// The decoded bytes, beginning with `/`, without one at the end unless it is the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The decoded components; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == b"/"
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The directory it lies in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').expect("it begins with a slash");
        Some(if end == 0 {
            Self::root()
        } else {
            Self(self.0[..end].to_vec())
        })
    }

    /// This path and one more decoded component.
    pub fn join(&self, name: &[u8]) -> Result<Self, Invalid> {
        let mut bytes = if self.is_root() { Vec::new() } else { self.0.clone() };
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        if name.is_empty() || name.contains(&b'/') {
            return Err(refuse(
                &String::from_utf8_lossy(&bytes),
                "has an empty component or a slash in one",
            ));
        }
        Self::from_bytes(&bytes)
    }

    /// Whether this is `prefix` or lies under it.
    pub fn starts_with(&self, prefix: &Self) -> bool {
        prefix.is_root()
            || self
                .0
                .strip_prefix(&prefix.0[..])
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

impl fmt::Display for WirePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '%' {
                    f.write_str("%25")?
                } else {
                    f.write_char(c)?
                }
            }
            for byte in chunk.invalid() {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for WirePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl std::str::FromStr for WirePath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl Serialize for WirePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WirePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = WirePath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an absolute path")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WirePath, E> {
                WirePath::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn refuse(text: &str, why: &str) -> Invalid {
    Invalid(format!("path {} {why}", shortened(text)))
}

fn too_long(text: &str) -> Invalid {
    refuse(text, &format!("is longer than {PATH_BYTES_MAX} bytes"))
}

/// What of a refused path is shown again: enough to know it by.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn decode_into(component: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = component.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        out.extend_from_slice(&rest[..at]);
        let byte = match rest.get(at + 1..at + 3).map(|d| (digit(d[0]), digit(d[1]))) {
            Some((Some(high), Some(low))) => high << 4 | low,
            _ => return Err("has a % without two hex digits; a literal % is written %25".into()),
        };
        if byte == b'/' {
            return Err("has %2F; a component cannot hold a slash".into());
        }
        out.push(byte);
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|d| d as u8)
}

fn check_component(component: &[u8]) -> Result<(), String> {
    match component {
        b"" => Err("has an empty component".into()),
        b"." | b".." => Err("has a component `.` or `..`; name the place itself".into()),
        c if c.contains(&0) => Err("has a NUL".into()),
        c if c.len() > COMPONENT_BYTES_MAX => Err(format!("has a component longer than {COMPONENT_BYTES_MAX} bytes")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(parts: &[&str]) -> Result<WirePath, Invalid> {
        WirePath::from_elements(&parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_come_back_as_they_were_written() {
        for name in [
            "a b",
            "ü",
            "日本",
            "%FF",
            "+&=?#",
            &"x".repeat(255),
            "-rf",
            "\n",
            "%25",
            "%25FF",
            "a%C3",
        ] {
            let text = format!("/names/{name}");
            assert_eq!(WirePath::parse(&text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn encoded_text_that_is_utf8_comes_back_as_that_text() {
        assert_eq!(WirePath::parse("/%C3%BC%41").unwrap().to_string(), "/üA");
        assert_eq!(WirePath::parse("/%FF").unwrap().as_bytes(), b"/\xFF");
        assert_eq!(WirePath::parse("/%25").unwrap().as_bytes(), b"/%");
    }

    #[test]
    fn all_forms_of_a_path_descriptor_name_the_same_path() {
        for parts in [&["t", "a"][..], &["/t/a"], &["t/a"], &["t/a/"], &["/t/%61"]] {
            assert_eq!(element(parts).unwrap().as_bytes(), b"/t/a", "{parts:?}");
        }
        assert!(element(&["/"]).unwrap().is_root());
    }

    #[test]
    fn a_path_descriptor_of_nothing_is_refused() {
        for parts in [
            &[][..],
            &[""],
            &["", ""],
            &["t", ""],
            &["/t", "a"],
            &["t/x", "a"],
            &["..", "x"],
            &["//"],
        ] {
            assert!(element(parts).is_err(), "{parts:?}");
        }
    }

    #[test]
    fn what_leaves_the_tree_or_breaks_a_limit_is_refused() {
        let name = "x".repeat(240);
        let deep = format!("/{}", [&name[..]; 17].join("/"));
        for text in [
            "",
            "r/set",
            "../x",
            "/a/../../x",
            "/.",
            "/%2e%2E",
            "/a\0b",
            "/a%00b",
            "/a%2Fb",
            "/a%2fb",
            "/a//b",
            "//",
            "/a%",
            "/a%4",
            "/%zz",
            "/%+1",
            &format!("/{}", "x".repeat(256)),
            &deep,
        ] {
            assert!(WirePath::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(WirePath::parse(&deep[..4096]).unwrap().as_bytes().len(), 4096);
    }

    #[test]
    fn a_refusal_shows_only_the_beginning_of_a_long_path() {
        assert!(WirePath::parse(&"ü".repeat(100_000)).unwrap_err().0.len() < 400);
    }

    #[test]
    fn parents_names_and_prefixes() {
        let path = WirePath::parse("/a/b").unwrap();
        assert_eq!(path.parent().unwrap().as_bytes(), b"/a");
        assert_eq!(path.parent().unwrap().parent().unwrap(), WirePath::root());
        assert_eq!(WirePath::root().parent(), None);
        assert_eq!(path.name(), Some(&b"b"[..]));
        assert_eq!(WirePath::root().join(b"a").unwrap().join(b"b").unwrap(), path);
        assert!(path.starts_with(&WirePath::parse("/a").unwrap()) && path.starts_with(&WirePath::root()));
        assert!(
            !WirePath::parse("/ab")
                .unwrap()
                .starts_with(&WirePath::parse("/a").unwrap())
        );
    }

    proptest! {
        #[test]
        fn any_path_reads_back_from_its_text(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5)) {
            let bytes = [b"/".to_vec(), parts.join(&b'/')].concat();
            if let Ok(path) = WirePath::from_bytes(&bytes) {
                prop_assert_eq!(WirePath::parse(&path.to_string()).unwrap(), path);
            }
        }

        #[test]
        fn no_text_panics_and_what_is_accepted_is_stable(text in "\\PC{0,40}|[/%.0-9A-F]{0,20}") {
            if let Ok(path) = WirePath::parse(&text) {
                prop_assert_eq!(WirePath::parse(&path.to_string()).unwrap(), path);
            }
        }
    }
}
