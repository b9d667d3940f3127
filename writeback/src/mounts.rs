//! Mounts: prefixes bound to under-stores, and the base listing they give the namespace.

use crate::{Cache, Result};
use forebay_namespace::Path;
use forebay_understore::UnderStoreRef;
use std::sync::Arc;

/// The mount table.
#[derive(Debug)]
pub(crate) struct Mounts {}

/// One mount.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    pub(crate) path: Path,
    pub(crate) url: String,
    pub(crate) read_only: bool,
    pub(crate) store: UnderStoreRef,
}

/// A mount, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// The prefix.
    pub path: Path,
    /// URL without secrets.
    pub url: String,
    /// Refuses writes.
    pub read_only: bool,
    /// `ready`, or what is wrong with the store.
    pub state: String,
}

impl Mounts {
    /// The mount that covers `path` and the key there; `None` when no mount does (everything there stays dirty).
    /// Names that are not UTF-8 have no key: the persister blocks them with the reason.
    pub(crate) fn resolve(&self, path: &Path) -> Option<(Arc<Mount>, Option<String>)> {
        let _ = path;
        todo!("mounts")
    }
}

impl Cache {
    /// Binds a prefix to an under-store.
    pub async fn under_add(&self, path: &Path, url: &str, read_only: bool) -> Result<()> {
        let _ = (path, url, read_only);
        todo!("mounts")
    }

    /// The mounts, by path.
    pub fn under_list(&self) -> Vec<MountInfo> {
        todo!("mounts")
    }

    /// Unbinds a prefix. Precondition while anything under it is dirty, unless `drain`, which waits for it to be persisted.
    pub async fn under_remove(&self, path: &Path, drain: bool) -> Result<()> {
        let _ = (path, drain);
        todo!("mounts")
    }
}
