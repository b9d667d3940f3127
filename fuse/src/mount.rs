//! One mount, from its beginning to its end.
//!
//! 1. The folder is looked at: a mount that another process has left dead is taken away (`dead`), a living one is refused.
//! 2. The kernel is asked for the mount; from here on programs see files.
//! 3. *Ended*: what is open and changed is placed, then the folder is unmounted; one that is in use is detached, so that programs
//!    that still have files open get errors rather than hold the end up.

use crate::{
    awake::Awake,
    dead::{self, Life},
    mounts::{NAME, full_name, is_ours, mounted_at},
    notify::Notify,
    session::Session,
    turns::Turns,
    volume::{Mode, Volume, VolumeOptions},
    workers::Workers,
};
use forebay_runtime::task;
use forebay_writeback::{Cache, changes::Observer};
use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Threads that may take requests: as many as there are cores, within these. How many of them do is `turns`' affair.
const THREADS: std::ops::RangeInclusive<usize> = 2..=8;
/// How a dead mount is taken away. Requests that hang in it are answered with errors first.
const TAKE_AWAY: i32 = libc::MNT_FORCE | libc::MNT_DETACH;
/// What the kernel reads ahead, KiB: a stream then comes in few large requests.
const READ_AHEAD_KIB: u32 = 4096;

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// The folder.
    pub folder: PathBuf,
    /// How files behave.
    pub volume: VolumeOptions,
    /// Whether idle processors are kept from sleeping while requests come fast, where the kernel lets us.
    pub stay_awake: bool,
}

/// Why a folder was not mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such folder.
    #[error("{}: not a folder; make it first (`mkdir -p`)", .0.display())]
    NoFolder(PathBuf),
    /// Something is mounted there.
    #[error("{}: something is mounted there already; unmount it first, or choose another folder", .0.display())]
    Taken(PathBuf),
    /// The system refused.
    #[error("{}: can not {what}: {error}", .folder.display())]
    System {
        /// The folder.
        folder: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

/// A mounted folder.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    volume: Arc<Volume>,
    session: BackgroundSession,
    /// Changes through other doors are told to the kernel for as long as this lives.
    _observer: Arc<dyn Observer>,
}

impl Mounted {
    /// Mounts the cache's names at a folder. Call it in a runtime.
    pub async fn start(cache: Cache, options: MountOptions) -> Result<Self, MountError> {
        task::blocking(move || Self::mount(cache, options)).await
    }

    fn mount(cache: Cache, options: MountOptions) -> Result<Self, MountError> {
        let folder = prepare(&options.folder)?;
        let failed = |what| {
            let folder = folder.clone();
            move |error| MountError::System { folder, what, error }
        };
        let volume = Volume::new(cache, options.volume);
        let workers = Workers::start().map_err(failed("serve"))?;
        let awake = options.stay_awake.then(Awake::shared).flatten();
        let filesystem = Session::new(Arc::clone(&volume), workers, awake, Turns::new(threads()));
        let session = fuser::Session::new(filesystem, &folder, &config(options.volume)).map_err(failed("mount"))?;
        let session = session.spawn().map_err(failed("serve"))?;
        let notify = Notify::start(session.notifier()).map_err(failed("serve"))?;
        let observer = volume.follow_changes(Arc::new(notify));
        read_ahead(&folder);
        tracing::info!(folder = %folder.display(), mode = ?options.volume.mode, "mounted");
        Ok(Self {
            folder,
            volume,
            session,
            _observer: observer,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How files behave there.
    pub fn options(&self) -> VolumeOptions {
        self.volume.options()
    }

    /// Places what is changed, and unmounts.
    pub async fn end(self) -> Result<(), MountError> {
        self.volume.settle_all().await;
        let Self {
            folder,
            session,
            volume,
            ..
        } = self;
        let ended = task::blocking(move || end_session(&folder, session)).await;
        // What was written between the two.
        volume.settle_all().await;
        ended
    }
}

/// Unmounts a folder at which a Forebay is mounted, whichever process serves it. Nothing may be open there.
///
/// # Errors
/// NoFolder when no Forebay is mounted there; System with the kernel's answer (EBUSY: a program uses it).
pub fn unmount(folder: &Path) -> Result<(), MountError> {
    let folder = full_name(folder);
    if !is_ours(&folder) {
        return Err(MountError::NoFolder(folder));
    }
    let flags = match dead::life_of(&folder) {
        Life::Gone => TAKE_AWAY,
        _ => 0,
    };
    umount(&folder, flags).map_err(|error| MountError::System {
        folder: folder.clone(),
        what: "unmount",
        error,
    })
}

fn end_session(folder: &Path, session: BackgroundSession) -> Result<(), MountError> {
    let plain = umount(folder, 0);
    // EINVAL: somebody else unmounted it.
    if plain
        .as_ref()
        .is_err_and(|error| error.raw_os_error() != Some(libc::EINVAL))
    {
        tracing::warn!(folder = %folder.display(), "still in use; detaching it");
        umount(folder, libc::MNT_DETACH).map_err(|error| MountError::System {
            folder: folder.to_owned(),
            what: "unmount",
            error,
        })?;
        // Those who have files open keep the session alive; it ends with the process.
        return Ok(());
    }
    // The kernel has ended it already, which is what it then says.
    if let Err(error) = session.umount_and_join() {
        tracing::debug!(%error, "the session had ended");
    }
    tracing::info!(folder = %folder.display(), "unmounted");
    Ok(())
}

/// The folder by its full name, without a dead mount on it.
fn prepare(folder: &Path) -> Result<PathBuf, MountError> {
    let missing = || MountError::NoFolder(folder.to_owned());
    let full = full_name(folder);
    match dead::life_of(&full) {
        Life::Answers => {}
        // Asking it anything more would take as long.
        Life::Silent => return Err(MountError::Taken(full)),
        Life::Gone => {
            let failed = |error| MountError::System {
                folder: folder.to_owned(),
                what: "take a dead mount away",
                error,
            };
            umount(&full, TAKE_AWAY).map_err(failed)?;
            tracing::warn!(folder = %folder.display(), "took the place of a mount whose process is gone");
        }
    }
    if !fs::metadata(folder).map_err(|_| missing())?.is_dir() {
        return Err(missing());
    }
    let folder = folder.canonicalize().map_err(|_| missing())?;
    match mounted_at(&folder).is_some() {
        true => Err(MountError::Taken(folder)),
        false => Ok(folder),
    }
}

pub(crate) fn umount(folder: &Path, flags: i32) -> io::Result<()> {
    let name = CString::new(folder.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the name is a string that ends with NUL and lives until the call returns.
    match unsafe { libc::umount2(name.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn config(options: VolumeOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(NAME.into()),
        MountOption::Subtype(NAME.into()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    if options.read_only || options.mode == Mode::Dataset {
        config.mount_options.push(MountOption::RO);
    }
    config.acl = SessionACL::All;
    config.n_threads = Some(threads());
    config.clone_fd = true;
    config
}

fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(*THREADS.start(), usize::from);
    cores.clamp(*THREADS.start(), *THREADS.end())
}

/// Only a wish: without the right to it streams come in smaller requests.
fn read_ahead(folder: &Path) {
    let Ok(metadata) = fs::metadata(folder) else { return };
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = fs::write(&setting, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(setting, %error, "the kernel reads ahead as it does by default");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = prepare(&missing).unwrap_err();
        assert!(
            error.to_string().contains("missing") && error.to_string().contains("mkdir"),
            "{error}"
        );
    }
}
