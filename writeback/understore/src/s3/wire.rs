//! One signed request at a time: URL, signature, timeouts, and what an answer asks of the caller.
//!
//! It owns no retries (the persister has them) and knows nothing of directories. Bodies are signed with their SHA-256, so the
//! store itself refuses bytes that changed on their way.

use super::xml;
use crate::{Settings, StoreError, address::S3Address};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use object_store::{
    ClientOptions, PutPayload,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider},
    client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, HttpResponse, ReqwestConnector},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Everything but what a signature keeps as it is.
const STRICT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const STRICT_PATH: AsciiSet = STRICT.remove(b'/');

/// Answers other than object bytes are held in memory up to here.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The slowest that a body may move before its request counts as hung, beside the timeout itself.
const BODY_BYTES_PER_SECOND_MIN: u64 = 256 << 10;

/// A bucket that can be asked.
#[derive(Debug)]
pub(super) struct Wire {
    client: HttpClient,
    credentials: AwsCredentialProvider,
    region: String,
    bucket_url: String,
    timeout: Duration,
}

/// What to ask.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Full key within the bucket, may end in `/`; empty: the bucket itself.
    pub(super) key: &'a str,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Vec<Bytes>,
    /// Most bytes of the answer.
    pub(super) answer_bytes_max: usize,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The etag without its quotes.
    pub(super) fn etag(&self) -> Option<String> {
        self.header("etag").map(unquoted)
    }
}

/// An etag without quotes: stores differ in where they want them.
pub(super) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

impl Wire {
    pub(super) fn new(at: &S3Address, settings: &Settings) -> Result<Self, StoreError> {
        let refuse = |error: object_store::Error| StoreError::Refused(format!("s3://{}: {error}", at.bucket));
        // Read from the environment: keys, session token, role, and the region and endpoint where the URL is silent.
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&at.bucket);
        let of = |builder: &AmazonS3Builder, key| builder.get_config_value(&key);
        let region = at.region.clone().or_else(|| of(&builder, AmazonS3ConfigKey::Region));
        let region = region.unwrap_or_else(|| "us-east-1".into());
        let endpoint = at
            .endpoint
            .clone()
            .or_else(|| of(&builder, AmazonS3ConfigKey::Endpoint));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        builder = builder.with_region(&region).with_allow_http(true);
        let credentials = builder.build().map_err(refuse)?.credentials().clone();
        let options = ClientOptions::new()
            .with_allow_http(endpoint.starts_with("http://"))
            .with_connect_timeout(settings.timeout)
            .with_timeout_disabled()
            .with_http1_only()
            .with_pool_idle_timeout(Duration::from_secs(20));
        let client = ReqwestConnector::default().connect(&options).map_err(refuse)?;
        let bucket_url = format!("{}/{}", endpoint.trim_end_matches('/'), at.bucket);
        Ok(Self {
            client,
            credentials,
            region,
            bucket_url,
            timeout: settings.timeout,
        })
    }

    /// Asks, and answers what 2xx says; everything else is an error by what it asks of the caller.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, StoreError> {
        let what = format!("{} {}", ask.method, if ask.key.is_empty() { "bucket" } else { ask.key });
        let is_read = ask.method == Method::GET || ask.method == Method::HEAD;
        let answer_bytes_max = ask.answer_bytes_max.max(1 << 20);
        let body_bytes: u64 = ask.body.iter().map(|chunk| chunk.len() as u64).sum();
        let request = self.signed(ask).await?;
        let patience = self.timeout + Duration::from_secs(body_bytes / BODY_BYTES_PER_SECOND_MIN);
        let answer = tokio::time::timeout(patience, self.client.execute(request)).await;
        let response = match answer {
            Err(_) => {
                return Err(StoreError::Unavailable(format!(
                    "{what}: no answer within {patience:?}"
                )));
            }
            Ok(Err(error)) => return Err(StoreError::Unavailable(format!("{what}: {}", chain(&error)))),
            Ok(Ok(response)) => response,
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.collect(
            &what,
            response,
            if status.is_success() {
                answer_bytes_max
            } else {
                ANSWER_BYTES_MAX
            },
        );
        let body = body.await?;
        if !status.is_success() {
            return Err(refusal(&what, status, &body));
        }
        // A 200 may carry an error, or the page of something in between.
        if !is_read && let Some(problem) = xml::problem(&body) {
            return Err(by_code(&what, StatusCode::INTERNAL_SERVER_ERROR, &problem));
        }
        Ok(Answer { headers, body })
    }

    async fn signed(&self, ask: Ask<'_>) -> Result<HttpRequest, StoreError> {
        let refuse = |error: &dyn std::error::Error| StoreError::Refused(format!("{}: {error}", ask.key));
        let mut request = http::Request::builder().method(ask.method.clone()).uri(self.uri(&ask));
        for (name, value) in &ask.headers {
            let value = HeaderValue::from_str(value).map_err(|error| refuse(&error))?;
            request = request.header(name, value);
        }
        let mut digest = Sha256::new();
        ask.body.iter().for_each(|chunk| digest.update(chunk));
        let len: usize = ask.body.iter().map(Bytes::len).sum();
        if ask.method != Method::GET && ask.method != Method::HEAD {
            request = request.header(http::header::CONTENT_LENGTH, len);
        }
        let body = if len == 0 {
            HttpRequestBody::empty()
        } else {
            PutPayload::from_iter(ask.body.iter().filter(|chunk| !chunk.is_empty()).cloned()).into()
        };
        let mut request = request.body(body).map_err(|error| refuse(&error))?;
        let credential = tokio::time::timeout(self.timeout, self.credentials.get_credential()).await;
        let credential = match credential {
            Err(_) => return Err(StoreError::Unavailable("no credentials in time".into())),
            Ok(Err(error)) => {
                return Err(StoreError::Refused(format!(
                    "no credentials: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )));
            }
            Ok(Ok(credential)) => credential,
        };
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, Some(&digest.finalize()));
        Ok(request)
    }

    fn uri(&self, ask: &Ask<'_>) -> String {
        let mut uri = format!("{}/{}", self.bucket_url, utf8_percent_encode(ask.key, &STRICT_PATH));
        for (at, (name, value)) in ask.query.iter().enumerate() {
            uri.push(if at == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.extend(utf8_percent_encode(value, &STRICT));
        }
        uri
    }

    /// The body of an answer, each piece of it within the timeout.
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

/// An error with its causes: the outermost of an HTTP client says little.
fn chain(error: &dyn std::error::Error) -> String {
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

fn refusal(what: &str, status: StatusCode, body: &[u8]) -> StoreError {
    let problem = xml::problem(body).unwrap_or_default();
    by_code(what, status, &problem)
}

/// What an answer asks of the caller. The code, where there is one, knows more than the status.
fn by_code(what: &str, status: StatusCode, problem: &xml::Problem) -> StoreError {
    let mut text = format!("{what}: {}", status.as_u16());
    if !problem.code.is_empty() {
        text = format!("{text} {} {}", problem.code, problem.message)
            .trim_end()
            .to_owned();
    }
    match problem.code.as_str() {
        "NoSuchBucket" | "QuotaExceeded" | "EntityTooLarge" | "EntityTooSmall" => return StoreError::Refused(text),
        "NoSuchKey" | "NoSuchUpload" | "InvalidPart" | "InvalidPartOrder" => return StoreError::NotFound(text),
        "BadDigest" | "XAmzContentSHA256Mismatch" | "InvalidDigest" | "IncompleteBody" => {
            return StoreError::Damaged(text);
        }
        "RequestTimeout"
        | "SlowDown"
        | "InternalError"
        | "ServiceUnavailable"
        | "OperationAborted"
        | "ConditionalRequestConflict" => return StoreError::Unavailable(text),
        _ => {}
    }
    match status.as_u16() {
        404 => StoreError::NotFound(text),
        412 | 304 | 416 => StoreError::Changed(text),
        408 | 409 | 425 | 429 => StoreError::Unavailable(text),
        501 => StoreError::Refused(text),
        500..=599 => StoreError::Unavailable(text),
        _ => StoreError::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_classified_by_what_it_asks_of_the_caller() {
        let classify = |status: u16, code: &str| {
            let problem = xml::Problem {
                code: code.into(),
                message: String::new(),
            };
            match by_code("PUT k", StatusCode::from_u16(status).unwrap(), &problem) {
                StoreError::NotFound(_) => "not found",
                StoreError::Changed(_) => "changed",
                StoreError::Refused(_) => "refused",
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Damaged(_) => "damaged",
            }
        };
        for (status, code, expected) in [
            (403, "AccessDenied", "refused"),
            (403, "QuotaExceeded", "refused"),
            (404, "NoSuchBucket", "refused"),
            (404, "NoSuchKey", "not found"),
            (404, "", "not found"),
            (404, "NoSuchUpload", "not found"),
            (412, "PreconditionFailed", "changed"),
            (416, "InvalidRange", "changed"),
            (400, "BadDigest", "damaged"),
            (400, "RequestTimeout", "unavailable"),
            (429, "", "unavailable"),
            (500, "InternalError", "unavailable"),
            (503, "SlowDown", "unavailable"),
            (503, "", "unavailable"),
            (301, "PermanentRedirect", "refused"),
            (501, "NotImplemented", "refused"),
            (400, "InvalidArgument", "refused"),
        ] {
            assert_eq!(classify(status, code), expected, "{status} {code}");
        }
    }
}
