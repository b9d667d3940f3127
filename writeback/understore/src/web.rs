//! A web server as a read-only under-store: `http://` and `https://`.
//!
//! A file is what `HEAD` answers with success, and is read by ranges. A directory is what the server redirects to its name with a slash,
//! or answers with a slash behind it. The names in one are read from the page that servers make of a folder (nginx's `autoindex`,
//! Apache, Python's `http.server`); where there is no such page a listing is refused, and files are reached by their names all the same.
//!
//! The validator is the etag, else time and length. Where a server tells neither, two contents of the same length are taken for one.
//! A server that does not serve ranges sends a file whole for each of them: files above [`WHOLE_BYTES_MAX`] are then refused.
//!
//! Redirects to other places are followed. Credentials (a file with `token`, or `username` and `password`) go to the server of the URL alone.

mod index;

use crate::{
    Capabilities, Expect, Found, Listed, PartId, Settings, StoreError, StoreKey, UnderStore, UnderStoreRef, UploadId,
    Validator, Write,
    address::WebAddress,
    check_key,
    credentials::{self, Credentials, Keys},
    exchange::{self, Begun, Exchange, exactly, header, range_header},
    local::is_hidden,
    packs,
};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::DateTime;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use http::{HeaderMap, Method, header as names};
use object_store::{StaticCredentialProvider, client::HttpClient};
use std::{ops::Range, sync::Arc};

/// Longest file that is read from a server without ranges.
pub(crate) const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// Longest page of a folder.
const INDEX_BYTES_MAX: usize = 16 << 20;
/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// Files of a listing that are asked for at once.
const HEADS_PARALLEL: usize = 16;

/// The server at `at`, not asked yet.
pub(crate) fn open(at: WebAddress, settings: &Settings) -> Result<UnderStoreRef, StoreError> {
    // A redirect that only adds a slash says that it is a directory, and is an answer.
    let policy = reqwest::redirect::Policy::custom(|attempt| {
        let before = attempt.previous().last().map(|url| format!("{}/", url.path()));
        match attempt.previous().len() {
            _ if before.as_deref() == Some(attempt.url().path()) => attempt.stop(),
            REDIRECTS_MAX.. => attempt.error("too many redirects"),
            _ => attempt.follow(),
        }
    });
    let client = reqwest::Client::builder()
        .redirect(policy)
        .connect_timeout(settings.timeout)
        .http1_only()
        .build()
        .map_err(|error| StoreError::Refused(format!("{}: {error}", at.url)))?;
    let credentials = match &at.credentials {
        Some(file) => Some(Credentials::new(Some(file.clone()), "", authorization)?),
        None => None,
    };
    let shared = Shared {
        exchange: Exchange::with(HttpClient::new(client), settings),
        credentials,
        url: at.url,
    };
    Ok(Arc::new(Web {
        shared: Arc::new(shared),
    }))
}

/// The `Authorization` header that the keys of a file make.
fn authorization(keys: Option<&Keys>) -> Result<credentials::Provider<String>, StoreError> {
    let none = Keys::new();
    let keys = keys.unwrap_or(&none);
    let of = |name| credentials::first(keys, &[name]);
    let text = match (of("token"), of("username"), of("password")) {
        (Some(token), _, _) => format!("Bearer {token}"),
        (None, Some(name), Some(password)) => format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}"))),
        _ => return Err(credentials::lacks(keys, "token, or username and password")),
    };
    Ok(Arc::new(StaticCredentialProvider::new(text)))
}

#[derive(Clone, Debug)]
struct Web {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    exchange: Exchange,
    credentials: Option<Credentials<String>>,
    /// Without a slash at its end.
    url: String,
}

fn directory() -> Found {
    Found {
        size: 0,
        mtime: 0,
        validator: Validator(String::new()),
        token: None,
        attributes: Vec::new(),
        is_dir: true,
    }
}

/// What recognises a content: the etag, else its time and length.
fn validator(headers: &HeaderMap, size: u64) -> Validator {
    match header(headers, "etag") {
        Some(etag) => Validator(etag.to_owned()),
        None => Validator(format!("{}-{size:x}", header(headers, "last-modified").unwrap_or("?"))),
    }
}

fn found_in(headers: &HeaderMap, size: u64) -> Found {
    let modified = header(headers, "last-modified").and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    Found {
        mtime: modified.map_or(0, |date| date.timestamp_micros()),
        validator: validator(headers, size),
        size,
        is_dir: false,
        ..directory()
    }
}

/// The length in `Content-Range: bytes 0-0/LENGTH`.
fn whole_length(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-range")?.rsplit_once('/')?.1.parse().ok()
}

impl Shared {
    async fn begin(&self, method: Method, path: &str, range: Option<&Range<u64>>) -> Result<Begun, StoreError> {
        let what = format!("{method} {path}");
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}/{}", self.url, exchange::path(path)))
            // What is packed on its way has another length.
            .header(names::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(names::RANGE, range_header(range));
        }
        if let Some(credentials) = &self.credentials {
            let text = credentials.get(self.exchange.timeout()).await?;
            request = request.header(names::AUTHORIZATION, text.as_str());
        }
        let request = request
            .body(exchange::body(&[]))
            .map_err(|_| StoreError::Refused(format!("{what}: can not be said in a request")))?;
        self.exchange.begin(what, request, 0).await
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        check_key(key)?;
        if is_ours(key) {
            return Ok(None);
        }
        if key.is_empty() {
            return Ok(Some(directory()));
        }
        let begun = self.begin(Method::HEAD, key, None).await?;
        match begun.status.as_u16() {
            300..=399 => Ok(Some(directory())),
            404 | 410 => self.head_directory(key).await,
            200..=299 => match header(&begun.headers, "content-length").and_then(|len| len.parse().ok()) {
                Some(size) => Ok(Some(found_in(&begun.headers, size))),
                None => self.head_by_get(key).await,
            },
            405 | 501 => self.head_by_get(key).await,
            _ => Err(exchange::by_status(
                begun.status,
                format!("HEAD {key}: {}", begun.status.as_u16()),
            )),
        }
    }

    /// For servers that answer `HEAD` without a length, or not at all.
    async fn head_by_get(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let begun = self.begin(Method::GET, key, Some(&(0..1))).await?;
        let length = header(&begun.headers, "content-length").and_then(|len| len.parse().ok());
        let size = match begun.status.as_u16() {
            206 => whole_length(&begun.headers),
            // An empty file has no first byte.
            416 => Some(0),
            200 => length,
            404 | 410 => return Ok(None),
            status => return Err(exchange::by_status(begun.status, format!("GET {key}: {status}"))),
        };
        match size {
            Some(size) => Ok(Some(found_in(&begun.headers, size))),
            None => Err(StoreError::Refused(format!(
                "{key}: the server does not tell how long it is"
            ))),
        }
    }

    async fn head_directory(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let begun = self.begin(Method::HEAD, &format!("{key}/"), None).await?;
        // Forbidden is how servers answer for a folder of which they make no page.
        Ok(matches!(begun.status.as_u16(), 200..=299 | 403).then(directory))
    }

    async fn read(&self, key: &str, range: Range<u64>, expected: &Validator) -> Result<Bytes, StoreError> {
        check_key(key)?;
        let changed = || StoreError::Changed(key.to_owned());
        if range.is_empty() {
            let found = self
                .head(key)
                .await?
                .ok_or_else(|| StoreError::NotFound(key.to_owned()))?;
            return match found.validator == *expected {
                true => Ok(Bytes::new()),
                false => Err(changed()),
            };
        }
        let begun = self.begin(Method::GET, key, Some(&range)).await?;
        let what = format!("GET {key}");
        let long = || StoreError::Damaged(format!("{what}: too many bytes at once"));
        match begun.status.as_u16() {
            206 => {
                // A server need not know how long the whole is; then time alone tells.
                let known = whole_length(&begun.headers).map(|size| validator(&begun.headers, size));
                if known.is_some_and(|known| known != *expected) {
                    return Err(changed());
                }
                let len = usize::try_from(range.end - range.start).map_err(|_| long())?;
                exactly(&what, self.exchange.end(begun, len).await?, &range)
            }
            200 => {
                let size = header(&begun.headers, "content-length").and_then(|len| len.parse::<u64>().ok());
                match size {
                    Some(size) if validator(&begun.headers, size) != *expected => return Err(changed()),
                    Some(size) if size <= WHOLE_BYTES_MAX => {}
                    _ => {
                        return Err(StoreError::Refused(format!(
                            "{what}: the server does not serve ranges, and the file is longer than {WHOLE_BYTES_MAX} bytes"
                        )));
                    }
                }
                let whole = self
                    .exchange
                    .end(begun, usize::try_from(WHOLE_BYTES_MAX).map_err(|_| long())?)
                    .await?;
                let (start, end) = (
                    usize::try_from(range.start).map_err(|_| long())?,
                    usize::try_from(range.end).map_err(|_| long())?,
                );
                match whole.body.len() {
                    len if len as u64 == size.unwrap_or_default() && end <= len => Ok(whole.body.slice(start..end)),
                    len => Err(StoreError::Damaged(format!(
                        "{what}: {len} bytes arrived, {size:?} were promised"
                    ))),
                }
            }
            // Beyond its end: it is shorter than it was.
            416 => Err(changed()),
            status => Err(exchange::by_status(begun.status, format!("{what}: {status}"))),
        }
    }

    /// The names that the server's page of a folder has, in order.
    async fn names(&self, key: &str) -> Result<Vec<(String, bool)>, StoreError> {
        let path = if key.is_empty() {
            String::new()
        } else {
            format!("{key}/")
        };
        let begun = self.begin(Method::GET, &path, None).await?;
        let html = header(&begun.headers, "content-type").is_some_and(|kind| kind.starts_with("text/html"));
        let status = begun.status.as_u16();
        match status {
            200..=299 if html => {
                let page = self.exchange.end(begun, INDEX_BYTES_MAX).await?;
                Ok(index::names(&String::from_utf8_lossy(&page.body)))
            }
            404 | 410 => Err(StoreError::NotFound(key.to_owned())),
            // A page of something else, or none at all.
            200..=299 | 403 => Err(StoreError::Refused(format!(
                "{}/{path}: the server gives no list of this folder; its files can be read by their names",
                self.url
            ))),
            _ => Err(exchange::by_status(begun.status, format!("GET {path}: {status}"))),
        }
    }
}

/// Whether a key is of what a Forebay keeps for itself in the folder that the server shows.
fn is_ours(key: &str) -> bool {
    is_hidden(key) || packs::is_ours(key)
}

fn refused<T>(url: &str) -> Result<T, StoreError> {
    Err(StoreError::Refused(format!(
        "{url}: a web server is read, never written"
    )))
}

#[async_trait]
impl UnderStore for Web {
    fn url(&self) -> &str {
        &self.shared.url
    }

    fn read_only(&self) -> bool {
        true
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        let begun = self.shared.begin(Method::HEAD, "", None).await?;
        // Whatever it says of its front page, it is there; unless it has trouble.
        if begun.status.is_server_error() || begun.status.as_u16() == 401 {
            let text = format!("HEAD /: {}", begun.status.as_u16());
            return Err(exchange::by_status(begun.status, text));
        }
        Ok(Capabilities {
            put_if_absent: false,
            put_if_match: false,
            complete_conditional: false,
            metadata: false,
            parallel_parts: false,
            part_bytes_min: 1,
            parts_max: 1,
            atomic_rename: false,
        })
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        self.shared.head(key).await
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        if let Err(error) = check_key(key) {
            return futures::stream::iter([Err(error)]).boxed();
        }
        if is_ours(key) {
            return futures::stream::empty().boxed();
        }
        let (shared, key, after) = (Arc::clone(&self.shared), key.to_owned(), after.map(str::to_owned));
        let rows = async move {
            let mut names = shared.names(&key).await?;
            names.retain(|(name, _)| after.as_ref().is_none_or(|after| name > after));
            names.retain(|(name, _)| !key.is_empty() || !is_ours(name));
            let rows = futures::stream::iter(names).map(move |(name, is_dir)| {
                let (shared, key) = (Arc::clone(&shared), crate::join(&key, &name));
                async move {
                    let found = match is_dir {
                        true => Some(directory()),
                        false => shared.head(&key).await?,
                    };
                    Ok(found.map(|found| Listed { name, found }))
                }
            });
            // What went between the page and the question is gone.
            Ok(rows.buffered(HEADS_PARALLEL).try_filter_map(async |row| Ok(row)))
        };
        futures::stream::once(rows).try_flatten().boxed()
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        self.shared.read(key, range, validator).await
    }

    async fn put(&self, _write: &Write, _chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        refused(&self.shared.url)
    }

    async fn start(&self, _write: &Write) -> Result<UploadId, StoreError> {
        refused(&self.shared.url)
    }

    async fn part(
        &self,
        _write: &Write,
        _upload: &UploadId,
        _index: u32,
        _offset: u64,
        _chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        refused(&self.shared.url)
    }

    async fn complete(&self, _write: &Write, _upload: &UploadId, _parts: &[PartId]) -> Result<Found, StoreError> {
        refused(&self.shared.url)
    }

    async fn settle(&self, _key: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn abort(&self, _key: &str, _upload: &UploadId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn uploads(&self, _prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete(&self, _key: &str, _expect: &Expect) -> Result<(), StoreError> {
        refused(&self.shared.url)
    }

    async fn make_dir(&self, _key: &str) -> Result<(), StoreError> {
        refused(&self.shared.url)
    }

    async fn remove_dir(&self, _key: &str) -> Result<(), StoreError> {
        refused(&self.shared.url)
    }
}

#[cfg(test)]
mod tests;
