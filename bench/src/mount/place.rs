//! A served mount and a plain directory beside it on the same disk.

use crate::{Bench, process::Process};
use anyhow::{Context, Result, bail, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// `forebay serve --fuse` with its data in a scratch folder. Dropped, it is unmounted and gone.
#[derive(Debug)]
pub(super) struct Place {
    server: Process,
    mount: PathBuf,
    plain: PathBuf,
    forebay: String,
    folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn start(bench: &Bench) -> Result<Self> {
        let folder = bench.scratch()?;
        let root = folder.path().canonicalize()?;
        let [data, mount, plain] = ["data", "mount", "plain"].map(|name| root.join(name));
        std::fs::create_dir(&mount)?;
        std::fs::create_dir(&plain)?;
        let flags = ["--dirty-max=12GiB".into(), format!("--fuse={}", mount.display())];
        let server = Process::forebay(&bench.forebay, &data, &flags, &[])?;
        wait_until(|| is_mounted(&mount), true)?;
        Ok(Self {
            server,
            mount,
            plain,
            forebay: bench.forebay.clone(),
            folder,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(super) fn mount(&self) -> &Path {
        &self.mount
    }

    pub(super) fn plain(&self) -> &Path {
        &self.plain
    }

    /// Another mount of the same server, in a mode of its own and with nothing of it in the kernel's caches.
    pub(super) fn attach(&self, mode: &str) -> Result<Attached> {
        let mount = tempfile::Builder::new()
            .prefix(mode)
            .tempdir_in(self.folder.path().canonicalize()?)?;
        let attached = Attached {
            forebay: self.forebay.clone(),
            address: self.server.address.clone(),
            mount,
        };
        attached.command("mount", &["--mode", mode])?;
        wait_until(|| is_mounted(attached.path()), true)?;
        Ok(attached)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: a signal to our own child, which is not yet waited for.
        unsafe { libc::kill(self.server.pid().cast_signed(), libc::SIGTERM) };
        if wait_until(|| is_mounted(&self.mount), false).is_err() {
            eprintln!("{} stays mounted", self.mount.display());
        }
    }
}

/// A `forebay mount`, ended by `forebay unmount` when dropped.
#[derive(Debug)]
pub(super) struct Attached {
    forebay: String,
    address: String,
    mount: tempfile::TempDir,
}

impl Attached {
    pub(super) fn path(&self) -> &Path {
        self.mount.path()
    }

    fn command(&self, verb: &str, options: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.forebay);
        command
            .args([verb, "--addr", &self.address])
            .args(options)
            .arg(self.path());
        let status = command.status()?;
        ensure!(status.success(), "forebay {verb}: {status}");
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = self.command("unmount", &[]) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
    }
}

fn is_mounted(folder: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("the mount table")?;
    let folder = folder.to_str().context("a path in UTF-8")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(4) == Some(folder)))
}

fn wait_until(mut state: impl FnMut() -> Result<bool>, wanted: bool) -> Result<()> {
    let begin = Instant::now();
    while state()? != wanted {
        if begin.elapsed() > PATIENCE {
            bail!("mounted or unmounted: not in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Fails when what is read is not what was written.
pub(super) fn check(same: bool, path: &Path) -> Result<()> {
    ensure!(same, "{}: not the bytes that were written", path.display());
    Ok(())
}
