//! The folders that are mounted by this process.

use crate::own::OwnFolders;
use async_trait::async_trait;
use forebay_flight_server::{FolderMode, Folders};
use forebay_fuse::{Mode, MountError, MountOptions, Mounted, VolumeOptions};
use forebay_writeback::{Cache, Error};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Mutex;

/// All of them.
#[derive(Debug)]
pub(crate) struct MountedFolders {
    cache: Cache,
    own: Arc<OwnFolders>,
    stay_awake: bool,
    mounted: Mutex<Vec<Mounted>>,
}

impl MountedFolders {
    pub(crate) fn new(cache: Cache, own: Arc<OwnFolders>, stay_awake: bool) -> Self {
        Self {
            cache,
            own,
            stay_awake,
            mounted: Mutex::default(),
        }
    }

    /// Unmounts all of them.
    pub(crate) async fn end(&self) {
        for mounted in self.mounted.lock().await.drain(..) {
            let folder = mounted.folder().to_owned();
            if let Err(error) = mounted.end().await {
                tracing::error!(folder = %folder.display(), %error, "was not unmounted");
            }
        }
    }
}

#[async_trait]
impl Folders for MountedFolders {
    async fn mount(&self, folder: &Path, mode: FolderMode) -> Result<(), Error> {
        let options = MountOptions {
            folder: folder.to_owned(),
            volume: VolumeOptions {
                mode: if mode.dataset { Mode::Dataset } else { Mode::Pipeline },
                read_only: mode.read_only,
            },
            stay_awake: self.stay_awake,
        };
        if let Some(why) = self.own.refuses_mount(folder, &self.cache).await {
            return Err(Error::precondition(why));
        }
        let mut mounted = self.mounted.lock().await;
        let new = Mounted::start(self.cache.clone(), options).await.map_err(engine)?;
        self.own.mounts(new.folder());
        mounted.push(new);
        Ok(())
    }

    async fn unmount(&self, folder: &Path) -> Result<(), Error> {
        let mut mounted = self.mounted.lock().await;
        let at = position(&mounted, folder)
            .ok_or_else(|| Error::not_found(format!("{}: is not mounted by this server", folder.display())))?;
        let gone = mounted.swap_remove(at);
        let folder = gone.folder().to_owned();
        gone.end().await.map_err(engine)?;
        self.own.unmounts(&folder);
        Ok(())
    }
}

fn position(mounted: &[Mounted], folder: &Path) -> Option<usize> {
    let full = folder.canonicalize().unwrap_or_else(|_| PathBuf::from(folder));
    mounted.iter().position(|mounted| mounted.folder() == full)
}

fn engine(error: MountError) -> Error {
    match &error {
        MountError::NoFolder(_) => Error::not_found(error.to_string()),
        MountError::Taken(_) => Error::exists(error.to_string()),
        MountError::System { .. } => Error::precondition(error.to_string()),
    }
}
