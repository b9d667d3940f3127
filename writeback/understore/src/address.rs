//! Where an under-store is: its URL taken apart, and the rules for keys below it.

use crate::StoreError;
use std::path::PathBuf;

/// Longest key an object store takes, bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// A URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `file:///folder`
    Local {
        /// The folder.
        folder: PathBuf,
    },
    /// `s3://bucket/prefix?endpoint=…&region=…`
    S3(S3Address),
    /// `hdfs://namenode:port/prefix?user=…` or `hdfs://nameservice/prefix?user=…`
    Hdfs(HdfsAddress),
}

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Address {
    /// Bucket.
    pub bucket: String,
    /// Prefix of all keys, without slashes at its ends; empty: the whole bucket.
    pub prefix: String,
    /// `http(s)://host:port` without a path; `None`: the region's own at AWS.
    pub endpoint: Option<String>,
    /// Region to sign for.
    pub region: Option<String>,
}

/// Where a folder of an HDFS is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HdfsAddress {
    /// `host:port` of the NameNode, or a nameservice that the Hadoop configuration knows.
    pub authority: String,
    /// Path of the folder, without slashes at its ends; empty: the root.
    pub prefix: String,
    /// Whom to act as; `None`: whom the environment says (`HADOOP_USER_NAME`, the Kerberos ticket, the process's user).
    pub user: Option<String>,
}

/// Takes a URL apart.
pub(crate) fn parse(text: &str) -> Result<Address, StoreError> {
    let refuse = |why: &str| StoreError::Refused(format!("under-store URL {}: {why}", without_secrets(text)));
    let url = url::Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("credentials belong into the environment, not into the URL"));
    }
    match url.scheme() {
        "file" => {
            let folder = url
                .to_file_path()
                .map_err(|()| refuse("not an absolute path; write file:///folder"))?;
            Ok(Address::Local { folder })
        }
        "s3" => parse_s3(&url).map(Address::S3).map_err(|why| refuse(&why)),
        "hdfs" => parse_hdfs(&url).map(Address::Hdfs).map_err(|why| refuse(&why)),
        other => Err(refuse(&format!("scheme {other} is not offered; file, s3 and hdfs are"))),
    }
}

/// The path of a URL as the prefix of all keys.
fn prefix_of(url: &url::Url) -> Result<String, String> {
    let prefix = percent_encoding::percent_decode_str(url.path())
        .decode_utf8()
        .map_err(|_| "the prefix is not UTF-8")?
        .trim_matches('/')
        .to_owned();
    check_key(&prefix).map_err(|error| error.to_string())?;
    Ok(prefix)
}

fn parse_s3(url: &url::Url) -> Result<S3Address, String> {
    let bucket = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or("names no bucket")?
        .to_owned();
    let mut address = S3Address {
        bucket,
        prefix: prefix_of(url)?,
        endpoint: None,
        region: None,
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "endpoint" => {
                if !value.starts_with("http://") && !value.starts_with("https://") {
                    return Err("endpoint must begin with http:// or https://".into());
                }
                address.endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            "region" => address.region = Some(value.into_owned()),
            other => return Err(format!("unknown option {other}; endpoint and region are known")),
        }
    }
    Ok(address)
}

fn parse_hdfs(url: &url::Url) -> Result<HdfsAddress, String> {
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or("names no NameNode; write hdfs://host:port/folder or hdfs://nameservice/folder")?;
    let mut address = HdfsAddress {
        authority: url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
        prefix: prefix_of(url)?,
        user: None,
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "user" if !value.is_empty() => address.user = Some(value.into_owned()),
            "user" => return Err("user is empty".into()),
            other => return Err(format!("unknown option {other}; user is known")),
        }
    }
    Ok(address)
}

/// The URL as people may see it: no user, no password, and of the options only the harmless ones.
pub(crate) fn without_secrets(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else {
        return "(not a URL)".into();
    };
    // Both fail only for URLs that cannot have a user at all.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let kept: Vec<String> = url
        .query_pairs()
        .filter(|(name, _)| ["endpoint", "region", "user"].contains(&&**name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    url.set_query(None);
    url.set_fragment(None);
    if kept.is_empty() {
        url.to_string()
    } else {
        format!("{url}?{}", kept.join("&"))
    }
}

/// Whether `key` may be one: components joined by single slashes, none of them `.` or `..`, no NUL, not too long.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Ok(());
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(StoreError::Refused(format!(
            "key of {} bytes: an under-store takes {KEY_BYTES_MAX}",
            key.len()
        )));
    }
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
    match key.split('/').find(|part| bad(part)) {
        Some(part) => Err(StoreError::Refused(format!(
            "key {key:?}: component {part:?} is not allowed"
        ))),
        None => Ok(()),
    }
}

/// `key` below `folder`.
pub fn join(folder: &str, key: &str) -> String {
    match (folder.is_empty(), key.is_empty()) {
        (true, _) => key.to_owned(),
        (_, true) => folder.to_owned(),
        _ => format!("{folder}/{key}"),
    }
}

/// The folder of `key` (empty: the root) and its last component.
pub fn parent_and_name(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_s3_url_names_bucket_prefix_endpoint_and_region() {
        let found = parse("s3://lake/raw/v1/?endpoint=http://127.0.0.1:7480&region=eu").unwrap();
        let expected = S3Address {
            bucket: "lake".into(),
            prefix: "raw/v1".into(),
            endpoint: Some("http://127.0.0.1:7480".into()),
            region: Some("eu".into()),
        };
        assert_eq!(found, Address::S3(expected));
    }

    #[test]
    fn an_hdfs_url_names_a_namenode_or_a_nameservice() {
        for (url, authority, prefix, user) in [
            ("hdfs://127.0.0.1:8020/lake/raw/", "127.0.0.1:8020", "lake/raw", None),
            ("hdfs://Prod-1", "Prod-1", "", None),
            ("hdfs://nn:9000/day%3D1%20?user=etl", "nn:9000", "day=1 ", Some("etl")),
        ] {
            let expected = HdfsAddress {
                authority: authority.into(),
                prefix: prefix.into(),
                user: user.map(str::to_owned),
            };
            assert_eq!(parse(url).unwrap(), Address::Hdfs(expected), "{url}");
        }
    }

    #[test]
    fn a_url_that_makes_no_sense_is_refused_and_says_why() {
        for (url, why) in [
            ("lake", "relative URL"),
            ("ftp://x/y", "not offered"),
            ("s3://user:secret@lake/x", "environment"),
            ("s3://lake/x?endpoint=host:1", "http://"),
            ("s3://lake/x?key=1", "unknown option"),
            ("s3:///x", "no bucket"),
            ("hdfs:///x", "no NameNode"),
            ("hdfs://etl:secret@nn:8020/x", "environment"),
            ("hdfs://nn:8020/x?password=secret", "unknown option"),
            ("hdfs://nn:8020/x?user=", "empty"),
            ("hdfs://nn:8020/a//b", "not allowed"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn keys_that_would_leave_the_prefix_are_refused() {
        for key in ["..", "a/../b", "a//b", "/a", "a/", ".", "a\0b", &"k".repeat(1025)] {
            assert!(matches!(check_key(key), Err(StoreError::Refused(_))), "{key:?}");
        }
        for key in ["", "a", "a b/ü/..c", &"k".repeat(1024)] {
            assert!(check_key(key).is_ok(), "{key:?}");
        }
    }
}
