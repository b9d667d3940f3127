//! Folders of this machine at which the names are mounted. This door only passes the wish on: what a mount is, the roof knows.

use async_trait::async_trait;
use forebay_writeback::Error;
use std::{fmt::Debug, path::Path};

/// How a folder is to be mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderMode {
    /// For training: what is published, read only, with the kernel asking as little as possible.
    pub dataset: bool,
    /// Refuses changes.
    pub read_only: bool,
}

/// Mounts and unmounts folders.
#[async_trait]
pub trait Folders: Debug + Send + Sync {
    /// Mounts the cache's names at `folder`. NotFound when there is no such folder, Exists when it is mounted already.
    async fn mount(&self, folder: &Path, mode: FolderMode) -> Result<(), Error>;
    /// Places what is changed there and unmounts it. NotFound when it is not mounted by this process.
    async fn unmount(&self, folder: &Path) -> Result<(), Error>;
}
