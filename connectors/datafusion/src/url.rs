//! `forebay://host:port/path`: a server and a path on it. The path is percent-encoded as on the wire; it holds no query.

use forebay_client::WirePath;
use std::fmt;
use url::Url;

/// A server and a path on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForebayUrl {
    authority: String,
    path: WirePath,
}

/// Text that is no `forebay://` URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} {why}; write it like forebay://127.0.0.1:47470/features/day=1")]
pub struct UrlError {
    url: String,
    why: String,
}

impl ForebayUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let refuse = |why: &str| UrlError {
            url: text.to_owned(),
            why: why.to_owned(),
        };
        let rest = text
            .strip_prefix("forebay://")
            .ok_or_else(|| refuse("is no forebay:// URL"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(refuse("names no server"));
        }
        let path = if path.is_empty() {
            Ok(WirePath::root())
        } else {
            WirePath::parse(path)
        };
        Ok(Self {
            authority: authority.to_owned(),
            path: path.map_err(|e| refuse(&e.0))?,
        })
    }

    /// The root of the server behind any URL that a client connects with.
    pub fn root_of(url: &str) -> Result<Self, UrlError> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        Self::parse(&format!("forebay://{}", rest.split('/').next().unwrap_or_default()))
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path.
    pub fn path(&self) -> &WirePath {
        &self.path
    }

    /// The server alone, as DataFusion keys object stores.
    pub fn to_url(&self) -> Url {
        Url::parse(&format!("forebay://{}", self.authority)).expect("an authority that was parsed is one")
    }
}

impl fmt::Display for ForebayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "forebay://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_and_write() {
        for (text, authority, path) in [
            ("forebay://h:1/features/day=1", "h:1", "/features/day=1"),
            ("forebay://h:1/a/", "h:1", "/a"),
            ("forebay://h:1", "h:1", "/"),
        ] {
            let url = ForebayUrl::parse(text).unwrap();
            assert_eq!((url.authority(), url.path().to_string().as_str()), (authority, path));
        }
        assert_eq!(
            ForebayUrl::root_of("grpc://h:1/x").unwrap().to_string(),
            "forebay://h:1/"
        );
        for text in [
            "",
            "s3://b/x",
            "forebay://",
            "forebay:///a",
            "forebay://h/../x",
            "forebay://h/a%00",
        ] {
            assert!(ForebayUrl::parse(text).is_err(), "{text}");
        }
    }
}
