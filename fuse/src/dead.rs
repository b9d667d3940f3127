//! Mounts whose process is gone.
//!
//! 1. *Dead*: the kernel says so to whoever asks. That is what a process leaves behind as a rule.
//! 2. *Stuck*: a process that was killed while it told the kernel of a change waits in the kernel for an answer that it should have given
//!    itself. It can not end, keeps its locks, and whoever asks the mount waits as well. Only an abort of the connection frees both.
//!
//! A mount that is silent and whose process lives is neither: it is busy, or was stopped.

use crate::{
    mount::umount,
    mounts::{self, Mount},
};
use forebay_runtime::task;
use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// A mount that does not answer for so long is looked at closer.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Longest wait for the end of processes that were stuck.
const END_PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// What is known of who serves a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It answers; or nothing is mounted there.
    Answers,
    /// It does not answer, and its process lives, as far as can be seen.
    Silent,
    /// Its process is gone, or waits for nothing but the mount's end.
    Gone,
}

/// Frees processes of ours that were killed and are stuck in their mounts, so that their locks are free and programs that wait for them get
/// errors. The mounts stay.
pub async fn abort_stuck_mounts() {
    task::blocking(|| {
        let ours = mounts::all().into_iter().filter(|mount| mount.ours);
        let stuck: Vec<_> = ours.filter_map(|mount| Some((stuck_in(&mount)?, mount))).collect();
        for (_, mount) in &stuck {
            tracing::warn!(folder = %mount.folder.display(), "a killed process is stuck in its mount, which is aborted");
            abort(mount);
        }
        let until = Instant::now() + END_PATIENCE;
        while stuck.iter().flat_map(|(pids, _)| pids).any(|pid| is_there(pid)) && Instant::now() < until {
            thread::sleep(LOOK);
        }
    })
    .await;
}

/// Who serves a folder, by its full name.
pub(crate) fn life_of(folder: &Path) -> Life {
    match (ask(folder), mounts::mounted_at(folder)) {
        (Some(libc::ENOTCONN), _) => Life::Gone,
        (Some(_), _) => Life::Answers,
        (None, Some(mount)) if mount.ours && stuck_in(&mount).is_some() => Life::Gone,
        (None, _) => Life::Silent,
    }
}

/// Answers the number of the system's error, or 0; `None` when there is no answer. The kernel remembers attributes of a mount's root, so
/// they say nothing.
fn ask(folder: &Path) -> Option<i32> {
    let Ok(name) = CString::new(folder.as_os_str().as_bytes()) else {
        return Some(libc::EINVAL);
    };
    let (answer, answered) = mpsc::channel();
    // It ends with the answer, or with the process.
    let asking = thread::Builder::new().name("fuse-ask".into()).spawn(move || {
        // SAFETY: plain data, for which zeros are valid.
        let mut space: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the name ends with NUL, and both live until the call returns.
        let failed = unsafe { libc::statfs(name.as_ptr(), &raw mut space) } != 0;
        let error = io::Error::last_os_error().raw_os_error().filter(|_| failed);
        let _ = answer.send(error.unwrap_or(0));
    });
    match asking {
        Ok(_) => answered.recv_timeout(SILENT_AFTER).ok(),
        Err(_) => Some(0),
    }
}

/// The processes that were killed and are stuck in a mount that does not answer; `None` when there is none, or when one that lives
/// serves it.
fn stuck_in(mount: &Mount) -> Option<Vec<PathBuf>> {
    if ask(&mount.folder).is_some() {
        return None;
    }
    let mut stuck = Vec::new();
    for process in entries(Path::new("/proc")).filter(|process| is_number(process)) {
        let Some(status) = Status::of(&process) else { continue };
        if !status.is_ended() {
            if holds(&process, mount.connection) {
                return None;
            }
        } else if threads_of(&process).any(|thread| holds(&thread, mount.connection)) {
            stuck.push(process);
        }
    }
    (!stuck.is_empty()).then_some(stuck)
}

/// Answers all requests of a mount with errors, for good.
fn abort(mount: &Mount) {
    let switch = format!("/sys/fs/fuse/connections/{}/abort", mount.connection);
    if fs::write(switch, "1").is_ok() {
        return;
    }
    // Where the kernel's own switch is not to be had. It unmounts too what nobody uses.
    let top = mounts::mounted_at(&mount.folder);
    if top.is_some_and(|top| top == *mount)
        && let Err(error) = umount(&mount.folder, libc::MNT_FORCE)
    {
        tracing::debug!(folder = %mount.folder.display(), %error, "it is aborted, and stays for those who use it");
    }
}

/// What the system says of a process.
#[derive(Debug)]
struct Status(String);

impl Status {
    fn of(process: &Path) -> Option<Self> {
        fs::read_to_string(process.join("status")).ok().map(Self)
    }

    fn field(&self, name: &str) -> &str {
        let value = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim()
    }

    /// Whether it has ended, but for threads that wait in the kernel.
    fn is_ended(&self) -> bool {
        let killed = |name| {
            u64::from_str_radix(self.field(name), 16).is_ok_and(|pending| pending & (1 << (libc::SIGKILL - 1)) != 0)
        };
        self.field("State").starts_with(['Z', 'X']) || killed("SigPnd") || killed("ShdPnd")
    }
}

/// Whether a process or thread has the connection open. Where the kernel does not tell which one it has open, it may be this one.
fn holds(process: &Path, connection: u32) -> bool {
    let open = entries(&process.join("fd"));
    let fuse = open.filter(|file| fs::read_link(file).is_ok_and(|target| target == Path::new("/dev/fuse")));
    fuse.filter_map(|file| fs::read_to_string(process.join("fdinfo").join(file.file_name()?)).ok())
        .any(|info| {
            let number = info.lines().find_map(|line| line.strip_prefix("fuse_connection:"));
            number.is_none_or(|number| number.trim().parse() == Ok(connection))
        })
}

/// Whether a process still has threads.
fn is_there(process: &Path) -> bool {
    threads_of(process).next().is_some()
}

/// The threads of a process but for the first, which has nothing any more once it has ended.
fn threads_of(process: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let first = process.file_name().map(ToOwned::to_owned);
    entries(&process.join("task")).filter(move |thread| thread.file_name() != first.as_deref())
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn is_number(process: &Path) -> bool {
    let name = process.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_ended_when_it_is_a_zombie_or_about_to_be_one() {
        let ended = |status: &str| Status(status.into()).is_ended();
        assert!(!ended(
            "Name:\tforebay\nState:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n"
        ));
        assert!(ended("Name:\tforebay\nState:\tZ (zombie)\n"));
        assert!(ended("State:\tD (disk sleep)\nSigPnd:\t0000000000000100\n"));
        assert!(!ended(""));
    }

    #[test]
    fn a_folder_that_nobody_serves_answers() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(life_of(folder.path()), Life::Answers);
        assert_eq!(life_of(&folder.path().join("missing")), Life::Answers);
    }
}
