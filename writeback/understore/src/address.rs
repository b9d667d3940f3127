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
    /// `gs://bucket/prefix?endpoint=…`
    Gcs(GcsAddress),
    /// `az://container/prefix?account=…&endpoint=…`
    Azure(AzureAddress),
    /// `http://host/folder`, `https://host/folder`
    Web(WebAddress),
}

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Address {
    /// Bucket.
    pub(crate) bucket: String,
    /// Prefix of all keys, without slashes at its ends; empty: the whole bucket.
    pub(crate) prefix: String,
    /// `http(s)://host:port` without a path; `None`: the region's own at AWS.
    pub(crate) endpoint: Option<String>,
    /// Region to sign for.
    pub(crate) region: Option<String>,
    /// File or folder that holds the keys.
    pub(crate) credentials: Option<PathBuf>,
}

/// Where a bucket of Google's is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GcsAddress {
    /// Bucket.
    pub(crate) bucket: String,
    /// Prefix of all keys, without slashes at its ends; empty: the whole bucket.
    pub(crate) prefix: String,
    /// `http(s)://host:port`; `None`: Google's.
    pub(crate) endpoint: Option<String>,
    /// File or folder that holds the keys.
    pub(crate) credentials: Option<PathBuf>,
}

/// Where a container of Azure's is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AzureAddress {
    /// Container.
    pub(crate) container: String,
    /// Prefix of all keys, without slashes at its ends; empty: the whole container.
    pub(crate) prefix: String,
    /// The storage account; `None`: the environment names it.
    pub(crate) account: Option<String>,
    /// `http(s)://host:port/path`; `None`: the account's own.
    pub(crate) endpoint: Option<String>,
    /// File or folder that holds the keys.
    pub(crate) credentials: Option<PathBuf>,
}

/// Where a folder of a web server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebAddress {
    /// The folder's URL, without a slash at its end.
    pub(crate) url: String,
    /// File or folder that holds a token or a password.
    pub(crate) credentials: Option<PathBuf>,
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
        "gs" => parse_gcs(&url).map(Address::Gcs).map_err(|why| refuse(&why)),
        "az" => parse_azure(&url).map(Address::Azure).map_err(|why| refuse(&why)),
        "http" | "https" => parse_web(&url).map(Address::Web).map_err(|why| refuse(&why)),
        other => Err(refuse(&format!(
            "scheme {other} is not offered; file, s3, hdfs, gs, az, http and https are"
        ))),
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

/// The bucket or container that a URL names in the host's place.
fn bucket_of(url: &url::Url) -> Result<String, String> {
    let bucket = url.host_str().filter(|host| !host.is_empty());
    if url.port().is_some() {
        return Err("a bucket has no port; name the server by ?endpoint=".into());
    }
    Ok(bucket.ok_or("names no bucket")?.to_owned())
}

/// The value of `endpoint`: a URL without anything secret.
fn endpoint(value: &str) -> Result<String, String> {
    let url = url::Url::parse(value).map_err(|_| "endpoint must begin with http:// or https://")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("endpoint must begin with http:// or https://".into());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("endpoint is a plain URL: credentials belong into the environment or a file".into());
    }
    Ok(value.trim_end_matches('/').to_owned())
}

/// The value of `credentials`: a file or folder by its full name.
fn credentials(value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    match path.is_absolute() {
        true => Ok(path),
        false => Err("credentials must name a file or folder in full, from / on".into()),
    }
}

fn parse_s3(url: &url::Url) -> Result<S3Address, String> {
    let mut address = S3Address {
        bucket: bucket_of(url)?,
        prefix: prefix_of(url)?,
        endpoint: None,
        region: None,
        credentials: None,
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "endpoint" => address.endpoint = Some(endpoint(&value)?),
            "region" => address.region = Some(value.into_owned()),
            "credentials" => address.credentials = Some(credentials(&value)?),
            other => {
                return Err(format!(
                    "unknown option {other}; endpoint, region and credentials are known"
                ));
            }
        }
    }
    Ok(address)
}

fn parse_gcs(url: &url::Url) -> Result<GcsAddress, String> {
    let mut address = GcsAddress {
        bucket: bucket_of(url)?,
        prefix: prefix_of(url)?,
        endpoint: None,
        credentials: None,
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "endpoint" => address.endpoint = Some(endpoint(&value)?),
            "credentials" => address.credentials = Some(credentials(&value)?),
            other => return Err(format!("unknown option {other}; endpoint and credentials are known")),
        }
    }
    Ok(address)
}

fn parse_azure(url: &url::Url) -> Result<AzureAddress, String> {
    let mut address = AzureAddress {
        container: bucket_of(url)?,
        prefix: prefix_of(url)?,
        account: None,
        endpoint: None,
        credentials: None,
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "account" if value.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !value.is_empty() => {
                address.account = Some(value.into_owned());
            }
            "account" => return Err("account is a name of letters and digits".into()),
            "endpoint" => address.endpoint = Some(endpoint(&value)?),
            "credentials" => address.credentials = Some(credentials(&value)?),
            other => {
                return Err(format!(
                    "unknown option {other}; account, endpoint and credentials are known"
                ));
            }
        }
    }
    Ok(address)
}

fn parse_web(url: &url::Url) -> Result<WebAddress, String> {
    prefix_of(url)?;
    let mut address = WebAddress {
        url: String::new(),
        credentials: None,
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "credentials" => address.credentials = Some(credentials(&value)?),
            other => return Err(format!("unknown option {other}; credentials is known")),
        }
    }
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    address.url = plain.as_str().trim_end_matches('/').to_owned();
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
        .filter(|(name, _)| ["endpoint", "region", "user", "account", "credentials"].contains(&&**name))
        .map(|(name, value)| match &*name {
            "endpoint" => format!("{name}={}", without_secrets(&value)),
            _ => format!("{name}={value}"),
        })
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
            credentials: None,
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
    fn other_clouds_and_web_servers_are_named_likewise() {
        let gcs = GcsAddress {
            bucket: "lake".into(),
            prefix: "raw".into(),
            endpoint: Some("http://127.0.0.1:4443".into()),
            credentials: Some("/run/secrets/lake".into()),
        };
        let url = "gs://lake/raw/?endpoint=http://127.0.0.1:4443/&credentials=/run/secrets/lake";
        assert_eq!(parse(url).unwrap(), Address::Gcs(gcs));
        let azure = AzureAddress {
            container: "lake".into(),
            prefix: String::new(),
            account: Some("prod1".into()),
            endpoint: Some("http://127.0.0.1:10000/prod1".into()),
            credentials: None,
        };
        let url = "az://lake?account=prod1&endpoint=http://127.0.0.1:10000/prod1";
        assert_eq!(parse(url).unwrap(), Address::Azure(azure));
        let web = WebAddress {
            url: "https://data.example:8443/sets/v%201".into(),
            credentials: None,
        };
        assert_eq!(
            parse("https://data.example:8443/sets/v%201/").unwrap(),
            Address::Web(web)
        );
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
            ("s3://lake/x?endpoint=http://u:secret@h:1", "plain URL"),
            ("s3://lake:80/x", "no port"),
            ("gs://u:secret@lake/x", "environment"),
            ("gs://lake/x?token=secret", "unknown option"),
            ("gs://lake/x?credentials=keys", "in full"),
            ("az://lake/x?account=a&sig=secret", "unknown option"),
            ("az://lake/x?account=no.dots", "letters"),
            ("https://u:secret@host/x", "environment"),
            ("https://host/x?token=secret", "unknown option"),
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
