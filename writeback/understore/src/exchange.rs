//! One HTTP request and its answer, for every store that is spoken to over HTTP: timeouts, bounds, and how it failed.
//!
//! It owns no retries (the persister has them), no signatures and no meaning of a status: those are the store's.

use crate::{Settings, StoreError};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use object_store::{
    ClientOptions, PutPayload,
    client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, HttpResponse, ReqwestConnector},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use std::{ops::Range, time::Duration};

/// Everything but what a signature keeps as it is.
const STRICT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const STRICT_PATH: AsciiSet = STRICT.remove(b'/');

/// Answers other than object bytes are held in memory up to here.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The slowest that a body may move before its request counts as hung, beside the timeout itself.
const BODY_BYTES_PER_SECOND_MIN: u64 = 256 << 10;

/// Whom to send requests to, and how long to wait.
#[derive(Debug)]
pub(crate) struct Exchange {
    client: HttpClient,
    timeout: Duration,
}

/// What to ask a store that has one flat space of keys.
#[derive(Debug, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Full key within the bucket, may end in `/`; empty: the bucket itself.
    pub(crate) key: &'a str,
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Vec<Bytes>,
    /// Most bytes of the answer.
    pub(crate) answer_bytes_max: usize,
}

impl Ask<'_> {
    /// The request at `url`, with its headers.
    pub(crate) fn request(&self, url: String) -> Result<http::request::Builder, StoreError> {
        let mut request = http::Request::builder().method(self.method.clone()).uri(url);
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value).map_err(|error| self.refused(&error))?;
            request = request.header(name, value);
        }
        Ok(request)
    }

    /// The request with its body.
    pub(crate) fn with_body(&self, request: http::request::Builder) -> Result<HttpRequest, StoreError> {
        request.body(body(&self.body)).map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &dyn std::error::Error) -> StoreError {
        StoreError::Refused(format!("{}: {error}", self.key))
    }
}

/// The head of an answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    what: String,
    response: HttpResponse,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The etag without its quotes.
    pub(crate) fn etag(&self) -> Option<String> {
        self.header("etag").map(unquoted)
    }
}

/// The text of a header.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An etag without quotes: stores differ in where they want them.
pub(crate) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// One component of a URL, or the value of an option.
pub(crate) fn component(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, &STRICT)
}

/// The path of a URL: slashes stay.
pub(crate) fn path(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, &STRICT_PATH)
}

/// The options of a URL, from its `?` on.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (at, (name, value)) in pairs.iter().enumerate() {
        text.push(if at == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.extend(component(value));
    }
    text
}

/// A body of these chunks.
pub(crate) fn body(chunks: &[Bytes]) -> HttpRequestBody {
    if chunks.iter().all(Bytes::is_empty) {
        return HttpRequestBody::empty();
    }
    PutPayload::from_iter(chunks.iter().filter(|chunk| !chunk.is_empty()).cloned()).into()
}

/// Bytes of these chunks together.
pub(crate) fn bytes_of(chunks: &[Bytes]) -> usize {
    chunks.iter().map(Bytes::len).sum()
}

impl Exchange {
    /// A client for `endpoint`. Redirects are followed.
    pub(crate) fn new(endpoint: &str, settings: &Settings) -> Result<Self, StoreError> {
        let options = ClientOptions::new()
            .with_allow_http(endpoint.starts_with("http://"))
            .with_connect_timeout(settings.timeout)
            .with_timeout_disabled()
            .with_http1_only()
            .with_pool_idle_timeout(Duration::from_secs(20));
        let client = ReqwestConnector::default().connect(&options);
        let client = client.map_err(|error| StoreError::Refused(format!("{endpoint}: {error}")))?;
        Ok(Self::with(client, settings))
    }

    /// The same with a client of the caller's making.
    pub(crate) fn with(client: HttpClient, settings: &Settings) -> Self {
        Self {
            client,
            timeout: settings.timeout,
        }
    }

    /// How long to wait.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request whose body has `body_bytes`, and waits for the head of its answer.
    pub(crate) async fn begin(
        &self,
        what: String,
        request: HttpRequest,
        body_bytes: usize,
    ) -> Result<Begun, StoreError> {
        let patience = self.timeout + Duration::from_secs(body_bytes as u64 / BODY_BYTES_PER_SECOND_MIN);
        match tokio::time::timeout(patience, self.client.execute(request)).await {
            Err(_) => Err(StoreError::Unavailable(format!(
                "{what}: no answer within {patience:?}"
            ))),
            Ok(Err(error)) => Err(StoreError::Unavailable(format!("{what}: {}", chain(&error)))),
            Ok(Ok(response)) => Ok(Begun {
                status: response.status(),
                headers: response.headers().clone(),
                what,
                response,
            }),
        }
    }

    /// The rest of an answer, each piece of it within the timeout.
    pub(crate) async fn end(&self, begun: Begun, bytes_max: usize) -> Result<Answer, StoreError> {
        let Begun {
            status,
            headers,
            what,
            response,
        } = begun;
        let body = self.collect(&what, response, bytes_max).await?;
        Ok(Answer { status, headers, body })
    }

    /// Both. What is no success is held up to [`ANSWER_BYTES_MAX`], whatever was expected.
    pub(crate) async fn exchange(
        &self,
        what: String,
        request: HttpRequest,
        body_bytes: usize,
        bytes_max: usize,
    ) -> Result<Answer, StoreError> {
        let begun = self.begin(what, request, body_bytes).await?;
        let bytes_max = match begun.status.is_success() {
            true => bytes_max,
            false => ANSWER_BYTES_MAX,
        };
        self.end(begun, bytes_max).await
    }

    async fn collect(&self, what: &str, response: HttpResponse, bytes_max: usize) -> Result<Bytes, StoreError> {
        let mut pieces = response.into_body().bytes_stream();
        let mut first: Option<Bytes> = None;
        let mut all = BytesMut::new();
        loop {
            let piece = match tokio::time::timeout(self.timeout, pieces.next()).await {
                Err(_) => {
                    return Err(StoreError::Unavailable(format!(
                        "{what}: the answer stopped for {:?}",
                        self.timeout
                    )));
                }
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(StoreError::Unavailable(format!("{what}: {}", chain(&error)))),
                Ok(Some(Ok(piece))) => piece,
            };
            if all.len() + piece.len() + first.as_ref().map_or(0, Bytes::len) > bytes_max {
                return Err(StoreError::Damaged(format!(
                    "{what}: the answer is longer than {bytes_max} bytes"
                )));
            }
            match (&first, all.is_empty()) {
                (None, true) => first = Some(piece),
                (Some(begin), true) => {
                    all.reserve(bytes_max.min(1 << 20).max(begin.len() + piece.len()));
                    all.extend_from_slice(begin);
                    all.extend_from_slice(&piece);
                    first = None;
                }
                _ => all.extend_from_slice(&piece),
            }
        }
        Ok(first.unwrap_or_else(|| all.freeze()))
    }
}

/// The value of a `Range` header.
pub(crate) fn range_header(range: &Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// The bytes of an answer to a request for `range`, if they are exactly those.
pub(crate) fn exactly(what: &str, answer: Answer, range: &Range<u64>) -> Result<Bytes, StoreError> {
    let damaged = |text: String| StoreError::Damaged(format!("{what}: {text}"));
    let told = answer
        .header("content-range")
        .and_then(|told| told.strip_prefix("bytes "));
    let told = told.and_then(|told| told.split_once('/')).map(|(range, _)| range);
    if let Some(told) = told.filter(|told| *told != format!("{}-{}", range.start, range.end.saturating_sub(1))) {
        return Err(damaged(format!("asked for bytes {range:?}, answered {told}")));
    }
    let len = range.end.saturating_sub(range.start);
    if answer.body.len() as u64 != len {
        return Err(damaged(format!(
            "{} bytes arrived, {len} were promised",
            answer.body.len()
        )));
    }
    Ok(answer.body)
}

/// An error with its causes: the outermost of an HTTP client says little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// What a status asks of the caller, where a store says no more.
pub(crate) fn by_status(status: StatusCode, text: String) -> StoreError {
    match status.as_u16() {
        404 | 410 => StoreError::NotFound(text),
        412 | 304 | 416 => StoreError::Changed(text),
        408 | 409 | 425 | 429 => StoreError::Unavailable(text),
        501 => StoreError::Refused(text),
        500..=599 => StoreError::Unavailable(text),
        _ => StoreError::Refused(text),
    }
}
