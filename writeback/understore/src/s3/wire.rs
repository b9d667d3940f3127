//! One signed request at a time: URL, signature, and what an answer asks of the caller.
//!
//! It owns no retries (the persister has them) and knows nothing of directories. Bodies are signed with their SHA-256, so the
//! store itself refuses bytes that changed on their way.

pub(super) use crate::exchange::{Answer, Ask};

use super::xml;
use crate::{
    Settings, StoreError,
    address::S3Address,
    credentials::{self, Credentials, Keys, Provider},
    exchange::{self, Exchange},
};
use http::{Method, StatusCode};
use object_store::{
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredential},
    client::HttpRequest,
};
use sha2::{Digest, Sha256};

const HINT: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or credentials=FILE in the mount's URL";

/// A bucket that can be asked.
#[derive(Debug)]
pub(super) struct Wire {
    exchange: Exchange,
    credentials: Credentials<AwsCredential>,
    region: String,
    bucket_url: String,
}

impl Wire {
    pub(super) fn new(at: &S3Address, settings: &Settings) -> Result<Self, StoreError> {
        // Read from the environment: the region and endpoint where the URL is silent.
        let builder = AmazonS3Builder::from_env();
        let of = |key| builder.get_config_value(&key);
        let region = at.region.clone().or_else(|| of(AmazonS3ConfigKey::Region));
        let region = region.unwrap_or_else(|| "us-east-1".into());
        let endpoint = at.endpoint.clone().or_else(|| of(AmazonS3ConfigKey::Endpoint));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let (bucket, of_region) = (at.bucket.clone(), region.clone());
        let make = move |keys: Option<&Keys>| provider(&bucket, &of_region, keys);
        Ok(Self {
            exchange: Exchange::new(&endpoint, settings)?,
            credentials: Credentials::new(at.credentials.clone(), HINT, make)?,
            region,
            bucket_url: format!("{}/{}", endpoint.trim_end_matches('/'), at.bucket),
        })
    }

    /// Asks, and answers what 2xx says; everything else is an error by what it asks of the caller.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, StoreError> {
        let what = format!("{} {}", ask.method, if ask.key.is_empty() { "bucket" } else { ask.key });
        let is_read = ask.method == Method::GET || ask.method == Method::HEAD;
        let bytes_max = ask.answer_bytes_max.max(1 << 20);
        let body_bytes = exchange::bytes_of(&ask.body);
        let request = self.signed(ask).await?;
        let answer = self
            .exchange
            .exchange(what.clone(), request, body_bytes, bytes_max)
            .await?;
        if !answer.status.is_success() {
            return Err(self.refusal(&what, answer.status, &answer.body));
        }
        // A 200 may carry an error, or the page of something in between.
        if !is_read && let Some(problem) = xml::problem(&answer.body) {
            return Err(by_code(
                &what,
                StatusCode::INTERNAL_SERVER_ERROR,
                &problem,
                &self.bucket_url,
            ));
        }
        Ok(answer)
    }

    async fn signed(&self, ask: Ask<'_>) -> Result<HttpRequest, StoreError> {
        let mut request = ask.request(self.uri(&ask))?;
        let mut digest = Sha256::new();
        ask.body.iter().for_each(|chunk| digest.update(chunk));
        let len = exchange::bytes_of(&ask.body);
        if ask.method != Method::GET && ask.method != Method::HEAD {
            request = request.header(http::header::CONTENT_LENGTH, len);
        }
        let mut request = ask.with_body(request)?;
        let credential = self.credentials.get(self.exchange.timeout()).await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, Some(&digest.finalize()));
        Ok(request)
    }

    fn uri(&self, ask: &Ask<'_>) -> String {
        let (key, query) = (exchange::path(ask.key), exchange::query(ask.query));
        format!("{}/{key}{query}", self.bucket_url)
    }

    fn refusal(&self, what: &str, status: StatusCode, body: &[u8]) -> StoreError {
        let problem = xml::problem(body).unwrap_or_default();
        by_code(what, status, &problem, &self.bucket_url)
    }
}

/// Keys of a file, or what the environment and the platform give.
fn provider(bucket: &str, region: &str, keys: Option<&Keys>) -> Result<Provider<AwsCredential>, StoreError> {
    let mut builder = match keys {
        None => AmazonS3Builder::from_env(),
        Some(keys) => {
            let of = |names: &[&str]| credentials::first(keys, names);
            let id = of(&["aws_access_key_id", "access_key_id", "accesskey"]);
            let secret = of(&["aws_secret_access_key", "secret_access_key", "secretkey"]);
            let (Some(id), Some(secret)) = (id, secret) else {
                return Err(credentials::lacks(
                    keys,
                    "access_key_id and secret_access_key, session_token where it has one",
                ));
            };
            let builder = AmazonS3Builder::new()
                .with_access_key_id(id)
                .with_secret_access_key(secret);
            match of(&["aws_session_token", "session_token"]) {
                Some(token) => builder.with_token(token),
                None => builder,
            }
        }
    };
    builder = builder
        .with_bucket_name(bucket)
        .with_region(region)
        .with_allow_http(true);
    let built = builder
        .build()
        .map_err(|error| StoreError::Refused(format!("s3://{bucket}: {error}")))?;
    Ok(built.credentials().clone())
}

/// What an answer asks of the caller. The code, where there is one, knows more than the status.
fn by_code(what: &str, status: StatusCode, problem: &xml::Problem, bucket_url: &str) -> StoreError {
    let mut text = format!("{what}: {}", status.as_u16());
    if !problem.code.is_empty() {
        text = format!("{text} {} {}", problem.code, problem.message)
            .trim_end()
            .to_owned();
    }
    text += &next_step(&problem.code, bucket_url);
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
    exchange::by_status(status, text)
}

/// What a person can do about it, where the code alone does not say so.
fn next_step(code: &str, bucket_url: &str) -> String {
    match code {
        "NoSuchBucket" => {
            format!("; there is no bucket {bucket_url}: create it, or mount another one")
        }
        "AccessDenied" => format!("; let the key that the server uses do this in {bucket_url}, or give it another one"),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => "; give the server the store's present key".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_is_gone_is_named_with_what_to_do() {
        let problem = xml::Problem {
            code: "NoSuchBucket".into(),
            message: String::new(),
        };
        let error = by_code("PUT t/small", StatusCode::NOT_FOUND, &problem, "http://store/lake");
        let expected =
            "PUT t/small: 404 NoSuchBucket; there is no bucket http://store/lake: create it, or mount another one";
        assert!(
            matches!(&error, StoreError::Refused(text) if text == expected),
            "{error:?}"
        );
    }

    #[test]
    fn an_answer_is_classified_by_what_it_asks_of_the_caller() {
        let classify = |status: u16, code: &str| {
            let problem = xml::Problem {
                code: code.into(),
                message: String::new(),
            };
            match by_code(
                "PUT k",
                StatusCode::from_u16(status).unwrap(),
                &problem,
                "http://store/lake",
            ) {
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
