//! Absolute, normalised paths of arbitrary bytes. Reading percent-encoded text and URLs belongs to the doors. What is written for people,
//! in errors and logs, is as the doors write it, so that it can be given back to them.

use std::fmt::{self, Write};

/// Longest component, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest path in text form, bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// An absolute, normalised path: components of any bytes but `/` and NUL, at most 255 each, at most 4096 in all.
///
/// Ordered as its text would be if `/` sorted before every other byte: a directory comes right before what lies in it.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Vec<u8>>);

/// Why bytes are not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("a path is absolute: it begins with '/'")]
    Relative,
    /// An empty component: `//` or a trailing `/`.
    #[error("a path has no empty components and does not end in '/'")]
    EmptyComponent,
    /// A component `.` or `..`.
    #[error("a path has no components '.' or '..'")]
    Dots,
    /// A NUL, or a `/` within a component.
    #[error("a path component holds neither NUL nor '/'")]
    Byte,
    /// A component too long.
    #[error("a path component has at most {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// A path too long.
    #[error("a path has at most {PATH_BYTES_MAX} bytes")]
    PathTooLong,
}

impl Path {
    /// `/`.
    pub fn root() -> Path {
        Path::default()
    }

    /// The path that `text` writes: absolute, without `.`, `..`, empty components or a trailing slash.
    pub fn parse(text: &[u8]) -> Result<Path, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::PathTooLong);
        }
        let rest = text.strip_prefix(b"/").ok_or(PathError::Relative)?;
        if rest.is_empty() {
            return Ok(Path::root());
        }
        let components: Vec<Vec<u8>> = rest.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        components.iter().try_for_each(|name| check_name(name))?;
        Ok(Path(components))
    }

    /// The path of these components.
    pub fn from_components<I: IntoIterator<Item = Vec<u8>>>(components: I) -> Result<Path, PathError> {
        components
            .into_iter()
            .try_fold(Path::root(), |path, name| path.join(&name))
    }

    /// Its components, the outermost first; none for the root.
    pub fn components(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it lies in; `None` for the root.
    pub fn parent(&self) -> Option<Path> {
        let (_, parent) = self.0.split_last()?;
        Some(Path(parent.to_vec()))
    }

    /// Its last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.0.last().map(Vec::as_slice)
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Result<Path, PathError> {
        check_name(name)?;
        if self.text_len() + 1 + name.len() > PATH_BYTES_MAX {
            return Err(PathError::PathTooLong);
        }
        let mut components = self.0.clone();
        components.push(name.to_vec());
        Ok(Path(components))
    }

    /// The first `count` components.
    pub fn prefix(&self, count: usize) -> Path {
        Path(self.0[..count.min(self.0.len())].to_vec())
    }

    /// Whether it is `other` or lies under it.
    pub fn starts_with(&self, other: &Path) -> bool {
        self.0.starts_with(&other.0)
    }

    /// What follows `prefix`, when it is `prefix` or lies under it.
    pub fn strip_prefix(&self, prefix: &Path) -> Option<&[Vec<u8>]> {
        self.0.strip_prefix(prefix.0.as_slice())
    }

    /// Its text: `/` and the components, joined by `/`.
    pub fn as_bytes(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return b"/".to_vec();
        }
        let mut text = Vec::with_capacity(self.text_len());
        for name in &self.0 {
            text.push(b'/');
            text.extend_from_slice(name);
        }
        text
    }

    /// Bytes of the text, the root counted as none.
    fn text_len(&self) -> usize {
        self.0.iter().map(|name| name.len() + 1).sum()
    }
}

/// Whether `name` may be a component.
pub(crate) fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::EmptyComponent),
        b"." | b".." => Err(PathError::Dots),
        _ if name.len() > NAME_BYTES_MAX => Err(PathError::NameTooLong),
        _ if name.iter().any(|byte| matches!(byte, 0 | b'/')) => Err(PathError::Byte),
        _ => Ok(()),
    }
}

/// For people: `%` is written `%25`, and every byte that is not part of valid UTF-8 `%XX`. So no two paths read alike.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '%' => f.write_str("%25")?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl std::str::FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Path, PathError> {
        Path::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_paths_read_alike() {
        for (path, told) in [
            (&b"/"[..], "/"),
            (b"/a b/\xc3\xbc", "/a b/ü"),
            (b"/c%", "/c%25"),
            (b"/c%25", "/c%2525"),
            (b"/\xff", "/%FF"),
            (b"/a\xc3/\xfe\xffz", "/a%C3/%FE%FFz"),
            ("/\u{fffd}".as_bytes(), "/\u{fffd}"),
        ] {
            assert_eq!(Path::parse(path).unwrap().to_string(), told);
        }
    }
}
