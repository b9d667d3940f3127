//! The processes that are measured: Forebay itself, and this program again as a raw TCP or stock Flight server, so that client and
//! server never share a process on either side.

use crate::s3::{BUCKET, KEY, REGION, SECRET, Stub};
use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// A child that printed where it listens; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// What it printed after its ready word.
    pub(crate) address: String,
}

impl Process {
    /// `forebay serve` on free ports, with more flags.
    pub(crate) fn forebay(
        binary: &str,
        data: &std::path::Path,
        flags: &[String],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(flags);
        Self::start(command, env, |line| {
            line.strip_prefix("forebay ready flight=")?
                .split(' ')
                .next()
                .map(str::to_owned)
        })
    }

    /// `forebay serve` over the stub, which is its under-store at `/`, in the folder `lake` of the bucket; with one more flag.
    pub(crate) fn forebay_over(stub: &Stub, binary: &str, data: &std::path::Path, flag: &str) -> Result<Self> {
        let under = format!("--under=/=s3://{BUCKET}/lake?endpoint={}", stub.endpoint);
        let env = [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", REGION),
        ];
        Self::forebay(binary, data, &[under, flag.to_owned()], &env)
    }

    /// This program in one of its server roles.
    pub(crate) fn role(role: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role);
        Self::start(command, &[], |line| line.strip_prefix("ready ").map(str::to_owned))
    }

    fn start(mut command: Command, env: &[(&str, &str)], ready: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut child = command
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let output = child.stdout.take().context("stdout is piped")?;
        for line in BufReader::new(output).lines() {
            if let Some(address) = ready(&line?) {
                return Ok(Self { child, address });
            }
        }
        bail!(
            "{} ended before it was ready: {}",
            command.get_program().display(),
            child.wait()?
        )
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child may have ended by itself; either way it must not outlive the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
