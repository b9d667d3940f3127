//! One request of the JSON API at a time: URL, token, and what an answer asks of the caller.

use crate::{
    Settings, StoreError,
    address::GcsAddress,
    credentials::{self, Credentials, Keys, Provider},
    exchange::{self, Answer, Exchange, exactly, range_header},
    objects::fresh_id,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use crc_fast::{CrcAlgorithm, Digest};
use http::{Method, StatusCode, header};
use object_store::{
    client::HttpRequest,
    gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::json;
use std::{collections::BTreeMap, ops::Range, sync::Arc};

const BASE: &str = "https://storage.googleapis.com";
/// Longest page of a listing.
const LIST_BYTES_MAX: usize = 16 << 20;

/// A bucket that can be asked.
#[derive(Debug)]
pub(super) struct Wire {
    exchange: Exchange,
    /// None: requests carry no token, for an emulator or a public bucket.
    credentials: Option<Credentials<GcpCredential>>,
    base: String,
    bucket: String,
}

/// What to ask of an object; without a key, of the bucket's list.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) key: &'a str,
    /// What comes behind the key.
    pub(super) verb: &'static str,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Body,
}

/// What is sent along.
#[derive(Debug, Default)]
pub(super) enum Body {
    #[default]
    Empty,
    Json(serde_json::Value),
}

/// An object, as the API tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) size: u64,
    pub(super) generation: String,
    #[serde(default)]
    pub(super) updated: DateTime<Utc>,
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, String>,
}

/// A page of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List {
    #[serde(default)]
    pub(super) items: Vec<Resource>,
    #[serde(default)]
    pub(super) prefixes: Vec<String>,
    #[serde(default, deserialize_with = "filled")]
    pub(super) next_page_token: Option<String>,
}

/// 64-bit numbers are strings in this JSON.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

/// An empty text is none.
fn filled<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}

impl Wire {
    pub(super) fn new(at: &GcsAddress, settings: &Settings) -> Result<Self, StoreError> {
        let environment = GoogleCloudStorageBuilder::from_env();
        let of = |key| environment.get_config_value(&key);
        let base = at.endpoint.clone().or_else(|| of(GoogleConfigKey::BaseUrl));
        let base = base.unwrap_or_else(|| BASE.into()).trim_end_matches('/').to_owned();
        let anonymous = of(GoogleConfigKey::SkipSignature).is_some_and(|skip| skip == "true");
        let bucket = at.bucket.clone();
        let make = move |keys: Option<&Keys>| provider(&bucket, keys);
        let hint = "set GOOGLE_APPLICATION_CREDENTIALS, or credentials=FILE in the mount's URL";
        let credentials = match anonymous && at.credentials.is_none() {
            true => None,
            false => Some(Credentials::new(at.credentials.clone(), hint, make)?),
        };
        Ok(Self {
            exchange: Exchange::new(&base, settings)?,
            credentials,
            base,
            bucket: at.bucket.clone(),
        })
    }

    /// Asks, and answers what 2xx says; everything else is an error by what it asks of the caller.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, StoreError> {
        let what = format!("{} {}", ask.method, if ask.key.is_empty() { "bucket" } else { ask.key });
        let mut url = format!("{}/storage/v1/b/{}/o", self.base, exchange::component(&self.bucket));
        if !ask.key.is_empty() {
            url = format!("{url}/{}{}", exchange::component(ask.key), ask.verb);
        }
        url.push_str(&exchange::query(ask.query));
        let mut request = http::Request::builder().method(ask.method).uri(url);
        let body = match ask.body {
            Body::Empty => Vec::new(),
            Body::Json(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                vec![Bytes::from(body.to_string())]
            }
        };
        self.send(what, request, body, LIST_BYTES_MAX).await
    }

    /// The same, for an answer in JSON.
    pub(super) async fn ask_json<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, StoreError> {
        let what = format!("{} {}", ask.method, ask.key);
        json_of(&what, &self.ask(ask).await?)
    }

    /// Writes an object: its metadata and its bytes in one request.
    pub(super) async fn upload(
        &self,
        key: &str,
        pairs: &[(&str, &str)],
        chunks: Vec<Bytes>,
        generation: Option<&str>,
    ) -> Result<Resource, StoreError> {
        let metadata: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        let about = json!({ "name": key, "metadata": metadata, "crc32c": crc32c(&chunks) });
        let boundary = fresh_id()?;
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{about}\r\n--{boundary}\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let mut body = vec![Bytes::from(head)];
        body.extend(chunks);
        body.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
        let mut query = vec![("uploadType", "multipart")];
        query.extend(generation.map(|generation| ("ifGenerationMatch", generation)));
        let bucket = exchange::component(&self.bucket);
        let url = format!(
            "{}/upload/storage/v1/b/{bucket}/o{}",
            self.base,
            exchange::query(&query)
        );
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::CONTENT_TYPE, format!("multipart/related; boundary={boundary}"));
        let what = format!("write {key}");
        let answer = self.send(what.clone(), request, body, 1 << 20).await?;
        json_of(&what, &answer)
    }

    /// Exactly `range` of the object, if it is of this generation.
    pub(super) async fn read(&self, key: &str, range: Range<u64>, generation: &str) -> Result<Bytes, StoreError> {
        let what = format!("read {key}");
        let len = usize::try_from(range.end - range.start)
            .map_err(|_| StoreError::Damaged(format!("{key}: too many bytes at once")))?;
        let query = [("alt", "media"), ("ifGenerationMatch", generation)];
        let (bucket, object) = (exchange::component(&self.bucket), exchange::component(key));
        let url = format!(
            "{}/storage/v1/b/{bucket}/o/{object}{}",
            self.base,
            exchange::query(&query)
        );
        let request = http::Request::builder()
            .uri(url)
            .header(header::RANGE, range_header(&range))
            // Else the store unpacks what was stored packed.
            .header(header::ACCEPT_ENCODING, "gzip");
        let answer = self.send(what.clone(), request, Vec::new(), len).await?;
        if answer.header("x-goog-generation").is_some_and(|now| now != generation) {
            return Err(StoreError::Changed(key.to_owned()));
        }
        exactly(&what, answer, &range)
    }

    async fn send(
        &self,
        what: String,
        mut request: http::request::Builder,
        body: Vec<Bytes>,
        bytes_max: usize,
    ) -> Result<Answer, StoreError> {
        if let Some(credentials) = &self.credentials {
            let token = credentials.get(self.exchange.timeout()).await?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.bearer));
        }
        let len = exchange::bytes_of(&body);
        if request.method_ref().is_some_and(|method| *method != Method::GET) {
            request = request.header(header::CONTENT_LENGTH, len);
        }
        let request: HttpRequest = request
            .body(exchange::body(&body))
            .map_err(|_| StoreError::Refused(format!("{what}: can not be said in a request")))?;
        let answer = self.exchange.exchange(what.clone(), request, len, bytes_max).await?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(refusal(&what, answer.status, &answer.body)),
        }
    }
}

/// Keys of a file, or what the environment and the platform give.
fn provider(bucket: &str, keys: Option<&Keys>) -> Result<Provider<GcpCredential>, StoreError> {
    let builder = match keys {
        None => GoogleCloudStorageBuilder::from_env(),
        Some(keys) => {
            if let Some(token) = credentials::first(keys, &["google_token", "token"]) {
                let token = GcpCredential {
                    bearer: token.to_owned(),
                };
                return Ok(Arc::new(object_store::StaticCredentialProvider::new(token)));
            }
            // A file of a folder may have any name.
            let named = credentials::first(keys, &["google_service_account_key", "service_account_key"]);
            let account = named.or_else(|| keys.values().map(String::as_str).find(|value| value.starts_with('{')));
            let account =
                account.ok_or_else(|| credentials::lacks(keys, "a service account's key in JSON, or token"))?;
            GoogleCloudStorageBuilder::new().with_service_account_key(account)
        }
    };
    // The builder's own words might show what it could not read.
    let built = builder.with_bucket_name(bucket).build().map_err(|error| match keys {
        None => StoreError::Refused(format!("gs://{bucket}: {error}")),
        Some(_) => StoreError::Refused("hold no service account that can be used".into()),
    })?;
    Ok(Arc::clone(built.credentials()))
}

/// The checksum as the API takes it.
fn crc32c(chunks: &[Bytes]) -> String {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    chunks.iter().for_each(|chunk| digest.update(chunk));
    let crc = u32::try_from(digest.finalize()).expect("a CRC32C has 32 bits");
    BASE64_STANDARD.encode(crc.to_be_bytes())
}

fn json_of<T: DeserializeOwned>(what: &str, answer: &Answer) -> Result<T, StoreError> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| StoreError::Damaged(format!("{what}: the answer makes no sense: {error}")))
}

/// `{"error": {"message": …}}`.
#[derive(Debug, Deserialize)]
struct Problem {
    error: Message,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    message: String,
}

fn refusal(what: &str, status: StatusCode, body: &[u8]) -> StoreError {
    let message = serde_json::from_slice::<Problem>(body).map_or(String::new(), |problem| problem.error.message);
    let text = format!("{what}: {} {message}", status.as_u16()).trim_end().to_owned();
    match status.as_u16() {
        404 if message.contains("bucket does not exist") => StoreError::Refused(text),
        400 if message.to_ascii_lowercase().contains("checksum") || message.contains("CRC32C") => {
            StoreError::Damaged(text)
        }
        _ => exchange::by_status(status, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_as_the_api_takes_it() {
        // The check value of CRC-32C over the nine digits is e3069283.
        let chunks = [Bytes::from_static(b"1234"), Bytes::from_static(b"56789")];
        assert_eq!(crc32c(&chunks), BASE64_STANDARD.encode([0xe3, 0x06, 0x92, 0x83]));
    }

    #[test]
    fn an_answer_is_classified_by_what_it_asks_of_the_caller() {
        let body = |message: &str| json!({ "error": { "code": 1, "message": message } }).to_string();
        let of = |status: u16, message: &str| {
            refusal("GET k", StatusCode::from_u16(status).unwrap(), body(message).as_bytes())
        };
        assert!(matches!(of(404, "No such object: b/k"), StoreError::NotFound(_)));
        assert!(matches!(
            of(404, "The specified bucket does not exist."),
            StoreError::Refused(_)
        ));
        assert!(matches!(of(403, "no permission"), StoreError::Refused(_)));
        assert!(matches!(of(412, "precondition"), StoreError::Changed(_)));
        assert!(matches!(of(429, "slow down"), StoreError::Unavailable(_)));
        assert!(matches!(of(503, ""), StoreError::Unavailable(_)));
        assert!(matches!(
            of(400, "Provided CRC32C \"x\" doesn't match"),
            StoreError::Damaged(_)
        ));
        let page = refusal("GET k", StatusCode::BAD_GATEWAY, b"<html>a proxy");
        assert!(matches!(page, StoreError::Unavailable(_)));
    }

    #[test]
    fn an_object_is_read_from_its_description() {
        let text = r#"{"kind":"storage#object","name":"a/b","size":"7","generation":"17","updated":"2024-01-02T03:04:05.678Z","metadata":{"forebay-token":"t"}}"#;
        let resource: Resource = serde_json::from_str(text).unwrap();
        assert_eq!((resource.size, resource.generation.as_str()), (7, "17"));
        let list: List =
            serde_json::from_str(&format!(r#"{{"items":[{text}],"prefixes":["c/"],"nextPageToken":""}}"#)).unwrap();
        assert_eq!(
            (list.items.len(), list.prefixes.len(), list.next_page_token),
            (1, 1, None)
        );
    }
}
