//! A `forebay serve` of one's own: a child process on free ports, gone when its owner is.

use anyhow::{Context, Result, bail};
use std::{ffi::OsString, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// `grpc://127.0.0.1:PORT`.
    pub flight: String,
    /// `http://127.0.0.1:PORT`.
    pub http: String,
}

impl Server {
    /// Starts `binary serve` with its data in `data` and `under` (`/path=url`) as under-stores; logs go to `log`.
    pub async fn start(binary: &Path, data: &Path, under: &[String], log: &Path) -> Result<Self> {
        let mut args: Vec<OsString> = ["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]
            .map(Into::into)
            .into();
        args.push(data.into());
        for mount in under {
            args.extend(["--under".into(), mount.into()]);
        }
        let log_file = std::fs::File::create(log).with_context(|| format!("log {}", log.display()))?;
        let mut command = Command::new(binary);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true);
        end_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let stdout = child.stdout.take().context("the child has a stdout")?;
        let ready = timeout(READY_WITHIN, BufReader::new(stdout).lines().next_line()).await;
        let said = ready.context("no ready line within 30 s")?.context("its stdout")?;
        match said.as_deref().and_then(addresses) {
            Some((flight, http)) => Ok(Self { child, flight, http }),
            None => bail!("{} did not come up: {}", binary.display(), last_line(log)),
        }
    }

    /// Process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// The addresses in `forebay ready flight=… http=…`.
fn addresses(line: &str) -> Option<(String, String)> {
    let mut words = line.strip_prefix("forebay ready ")?.split(' ');
    let flight = words.next()?.strip_prefix("flight=")?;
    let http = words.next()?.strip_prefix("http=")?;
    Some((flight.to_owned(), http.to_owned()))
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .rev()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("it said nothing")
        .to_owned()
}

/// A program that is killed takes its server along.
fn end_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_both_addresses() {
        let line = "forebay ready flight=grpc://127.0.0.1:1 http=http://127.0.0.1:2";
        assert_eq!(
            addresses(line),
            Some(("grpc://127.0.0.1:1".into(), "http://127.0.0.1:2".into()))
        );
        assert_eq!(addresses("ready"), None);
    }
}
