//! From a URL to a store.

use crate::{MetaStoreRef, mem::MemStore, postgres::PostgresStore, sqlite::SqliteStore};
use std::path::PathBuf;

/// How to open a store.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// False only for the negative control of the crash tests: SQLite then commits without fsync.
    pub fsync: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { fsync: true }
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no engine.
    #[error("{0:?} is no metastore URL; write sqlite:PATH, postgres://USER@HOST/DATABASE or mem:")]
    Url(String),
    /// There is something else.
    #[error("{place} holds something that is not a Forebay metastore: {found}; name another place")]
    Foreign {
        /// Where.
        place: String,
        /// What is there.
        found: String,
    },
    /// Written by a newer version.
    #[error("{place} has metastore format {found}, this version knows {known}; run the newer version that wrote it")]
    NewerFormat {
        /// Where.
        place: String,
        /// Its format.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// Another process has it open.
    #[error("{0} is in use by another process; stop that one first")]
    Locked(PathBuf),
    /// It would lose acknowledged commits.
    #[error("{place} does not keep what it commits: {why}")]
    NotDurable {
        /// Where.
        place: String,
        /// The setting at fault, and what to do.
        why: String,
    },
    /// It could not be reached or read.
    #[error("can not open the metastore {place}: {why}")]
    Failed {
        /// Where.
        place: String,
        /// What the engine said.
        why: String,
    },
}

/// Opens `sqlite:PATH`, `postgres://…` or `mem:`; creates what is missing.
pub async fn open(url: &str, options: OpenOptions) -> Result<MetaStoreRef, OpenError> {
    if url == "mem:" {
        return Ok(MemStore::new());
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(PostgresStore::open(url).await?);
    }
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => {
            // `sqlite:///a/b` is an absolute path with an empty host, as in other programs' URLs.
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            let open = move || SqliteStore::open(&path, options.fsync);
            Ok(forebay_runtime::task::blocking(open).await?)
        }
        _ => Err(OpenError::Url(redacted(url))),
    }
}

/// The URL without its password, cut to a readable length.
pub(crate) fn redacted(url: &str) -> String {
    let shown = match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            let user = url[scheme + 3..at].split(':').next().unwrap_or_default();
            format!("{}{user}{}", &url[..scheme + 3], &url[at..])
        }
        _ => url.to_owned(),
    };
    // What follows a question mark may hold a password too.
    shown.split('?').next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let shown = redacted("postgres://me:sec@ret@db.example/fb?password=hunter2");
        assert_eq!(shown, "postgres://me@db.example/fb");
        assert_eq!(redacted("sqlite:/a/b"), "sqlite:/a/b");
    }

    #[tokio::test]
    async fn a_url_that_names_no_engine_is_refused_with_the_three_that_exist() {
        for url in ["", "sqlite:", "mysql://x", "/just/a/path"] {
            let error = open(url, OpenOptions::default()).await.unwrap_err().to_string();
            assert!(error.contains("sqlite:PATH"), "{error}");
        }
    }
}
