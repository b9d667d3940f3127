//! Values of the rows: postcard behind a format byte, so that a later version can tell what it reads.

use crate::{Ino, Inode, NsError, Result};
use bytes::Bytes;
use forebay_metastore::MetaError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The format written today. Another one was written by a newer version and is refused.
const FORMAT: u8 = 1;

/// An inode row: the inode, and the name that leads to it. The way back lies in the same row so that moving a directory
/// changes a row that everyone who relies on its place shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) link: Option<Link>,
    pub(crate) inode: Inode,
}

/// A name that leads to an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) parent: Ino,
    pub(crate) name: Vec<u8>,
}

/// A dentry row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dentry {
    pub(crate) ino: Ino,
    pub(crate) kind: DentryKind,
}

/// What a dentry leads to, as readdir wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DentryKind {
    File,
    Dir,
    Symlink,
    Special,
}

/// Any row as stored.
pub(crate) fn encode<T: Serialize>(row: &T) -> Bytes {
    let out = postcard::to_extend(row, vec![FORMAT]).expect("a row in memory always has an encoding");
    out.into()
}

/// A stored row.
pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    let corrupt = |what: String| NsError::Meta(MetaError::Corrupt(what));
    match value.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|e| corrupt(format!("namespace row: {e}"))),
        Some((format, _)) => Err(corrupt(format!(
            "namespace row of format {format}; this version reads {FORMAT}"
        ))),
        None => Err(corrupt("empty namespace row".into())),
    }
}
