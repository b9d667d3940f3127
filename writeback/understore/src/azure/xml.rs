//! The XML documents of Azure that we read and write.

use crate::StoreError;
use bytes::{Buf, Bytes};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct List {
    #[serde(default)]
    pub(super) blobs: Blobs,
    #[serde(default)]
    pub(super) next_marker: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Blobs {
    #[serde(default)]
    pub(super) blob: Vec<Blob>,
    #[serde(default)]
    pub(super) blob_prefix: Vec<Prefix>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Blob {
    pub(super) name: String,
    pub(super) properties: Properties,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Prefix {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Properties {
    #[serde(rename = "Last-Modified", default)]
    pub(super) last_modified: String,
    #[serde(rename = "Etag", default)]
    pub(super) etag: String,
    #[serde(rename = "Content-Length", default)]
    pub(super) content_length: u64,
}

/// `<Error>`: what the store says went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Problem {
    pub(super) code: String,
    pub(super) message: String,
}

/// Reads a page of a listing.
pub(super) fn read_list(body: &Bytes) -> Result<List, StoreError> {
    quick_xml::de::from_reader(body.clone().reader())
        .map_err(|error| StoreError::Damaged(format!("list: the answer makes no sense: {error}")))
}

/// The `<Error>` of an answer that is no success, if its body is one.
pub(super) fn problem(body: &[u8]) -> Problem {
    let text = std::str::from_utf8(body).unwrap_or_default();
    quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).unwrap_or_default()
}

/// The body of Put Block List: of blocks that were sent and not committed yet.
pub(super) fn block_list(blocks: &[String]) -> String {
    let mut body = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for block in blocks {
        body.push_str(&format!(
            "<Uncommitted>{}</Uncommitted>",
            quick_xml::escape::escape(block.as_str())
        ));
    }
    body.push_str("</BlockList>");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_with_prefixes_between_its_blobs_is_read() {
        let body = Bytes::from_static(
            b"<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"http://x/\" ContainerName=\"c\"><Prefix>p/\
            </Prefix><Blobs><Blob><Name>p/a&amp;b</Name><Properties><Last-Modified>Tue, 02 Jan 2024 03:04:05 GMT</Last-Modified>\
            <Etag>0x8D</Etag><Content-Length>7</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob><BlobPrefix><Name>p/c/\
            </Name></BlobPrefix><Blob><Name>p/d</Name><Properties><Etag>0x8E</Etag></Properties></Blob></Blobs><NextMarker>m</NextMarker>\
            </EnumerationResults>",
        );
        let list = read_list(&body).unwrap();
        let names: Vec<&str> = list.blobs.blob.iter().map(|blob| blob.name.as_str()).collect();
        assert_eq!((names, list.blobs.blob_prefix.len()), (vec!["p/a&b", "p/d"], 1));
        assert_eq!(list.blobs.blob[0].properties.content_length, 7);
        assert_eq!(list.next_marker.as_deref(), Some("m"));
        let empty = Bytes::from_static(b"<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>");
        assert_eq!(read_list(&empty).unwrap().blobs.blob.len(), 0);
    }

    #[test]
    fn an_error_names_its_code() {
        let body = "\u{feff}<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code><Message>no</Message></Error>";
        assert_eq!(problem(body.as_bytes()).code, "BlobNotFound");
        assert_eq!(problem(b"<html>"), Problem::default());
    }
}
