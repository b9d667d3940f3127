//! The XML documents of S3 that we read and write.

use crate::{PartId, StoreError};
use bytes::{Buf, Bytes};
use chrono::{DateTime, Utc};
use serde::{Deserialize, de::DeserializeOwned};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListBucket {
    #[serde(default)]
    pub(super) contents: Vec<Content>,
    #[serde(default)]
    pub(super) common_prefixes: Vec<Prefix>,
    #[serde(default)]
    pub(super) next_continuation_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Content {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) last_modified: DateTime<Utc>,
    #[serde(rename = "ETag", default)]
    pub(super) etag: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Prefix {
    pub(super) prefix: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Initiated {
    pub(super) upload_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Completed {
    #[serde(rename = "ETag")]
    pub(super) etag: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Uploads {
    #[serde(default)]
    pub(super) upload: Vec<Upload>,
    #[serde(default)]
    pub(super) is_truncated: bool,
    #[serde(default)]
    pub(super) next_key_marker: Option<String>,
    #[serde(default)]
    pub(super) next_upload_id_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) upload_id: String,
}

/// `<Error>`: what the store says went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Problem {
    pub(super) code: String,
    pub(super) message: String,
}

/// Reads a document of 200. A body that is none of the store's (a proxy's page, a cut one) is `Damaged`.
pub(super) fn read<T: DeserializeOwned>(what: &str, body: &Bytes) -> Result<T, StoreError> {
    quick_xml::de::from_reader(body.clone().reader())
        .map_err(|error| StoreError::Damaged(format!("{what}: the answer makes no sense: {error}")))
}

/// The `<Error>` in a body, when it is one.
pub(super) fn problem(body: &[u8]) -> Option<Problem> {
    let text = std::str::from_utf8(body).ok()?;
    if !text.contains("<Error>") && !text.contains("<Error ") {
        return None;
    }
    quick_xml::de::from_str(text).ok()
}

/// The body of CompleteMultipartUpload.
pub(super) fn complete(parts: &[PartId]) -> String {
    let mut parts: Vec<&PartId> = parts.iter().collect();
    parts.sort_by_key(|part| part.index);
    let mut body = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for part in parts {
        let etag = quick_xml::escape::escape(part.id.as_str());
        body.push_str(&format!(
            "<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>",
            part.index + 1
        ));
    }
    body.push_str("</CompleteMultipartUpload>");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_with_prefixes_between_its_contents_is_read() {
        let body = Bytes::from_static(
            b"<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>\
            <CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><Contents><Key>a&amp;b</Key><LastModified>2024-01-02T03:04:05.678Z\
            </LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size></Contents><CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes>\
            <NextContinuationToken>t</NextContinuationToken></ListBucketResult>",
        );
        let list: ListBucket = read("list", &body).unwrap();
        assert_eq!(list.common_prefixes.len(), 2);
        assert_eq!((list.contents[0].key.as_str(), list.contents[0].size), ("a&b", 7));
        assert_eq!(list.contents[0].etag, "\"e\"");
        assert_eq!(list.next_continuation_token.as_deref(), Some("t"));
    }

    #[test]
    fn an_error_in_a_body_is_told_from_a_result() {
        let problem_of = |body: &str| problem(body.as_bytes()).map(|problem| problem.code);
        assert_eq!(
            problem_of("<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>").as_deref(),
            Some("SlowDown")
        );
        assert_eq!(
            problem_of("<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"),
            None
        );
        let page: Result<Completed, _> = read("complete", &Bytes::from_static(b"<html>hello"));
        assert!(matches!(page, Err(StoreError::Damaged(_))));
    }
}
