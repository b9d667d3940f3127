//! `doctor`: whether the server, its stores and this machine are well, and what to do where they are not.

use super::status;
use crate::{
    args::Door,
    connect,
    failure::{Failure, Outcome},
    limits,
    output::Output,
};
use forebay_client::Status;
use forebay_runtime::units::ByteSize;
use serde::Serialize;
use std::time::Instant;

/// Below this, a server with a few thousand connections and segments runs out.
const OPEN_FILES_WANTED: u64 = 65_536;
/// A dirty file older than this, with a mount and nothing blocked, means that the under-store does not keep up.
const OLDEST_DIRTY_SECONDS_WANTED: f64 = 3600.0;

/// A disk with less than this share of it free is nearly full.
const FREE_SHARE_WANTED: u64 = 20;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    text: String,
}

#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    findings: Vec<Finding>,
}

/// Exit code 1 when a check failed, 6 when the server cannot be reached.
pub(super) async fn doctor(door: &Door, output: &mut Output) -> Outcome {
    let mut findings = vec![open_files()];
    let mut code = 0;
    match ask(door).await {
        Ok((status, millis)) => {
            findings.push(find(
                "server",
                Verdict::Ok,
                format!("{} answers in {millis:.1} ms, version {}", door.addr, status.version),
            ));
            findings.push(version(&status));
            findings.extend(disks(&status));
            findings.extend(mounts(&status));
            findings.extend(stuck(&status));
            findings.push(lag(&status));
            if !output.json() {
                output.line(&status::lines(&status))?;
                output.line("")?;
            }
        }
        Err(failure) => {
            code = failure.code();
            findings.push(find(
                "server",
                Verdict::Failed,
                format!("{}: {}", door.addr, failure.text()),
            ));
        }
    }
    let worst = |verdict| findings.iter().any(|finding| finding.verdict == verdict);
    let verdict = [Verdict::Failed, Verdict::Warning]
        .into_iter()
        .find(|verdict| worst(*verdict))
        .unwrap_or(Verdict::Ok);
    output.one(&Report { verdict, findings }, |report| {
        let line = |finding: &Finding| {
            let verdict = format!("{:?}", finding.verdict).to_lowercase();
            format!("{verdict:<8} {:<10} {}", finding.check, finding.text)
        };
        report.findings.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    match verdict {
        Verdict::Failed => Err(Failure::silent(code.max(1))),
        _ => Ok(()),
    }
}

async fn ask(door: &Door) -> Outcome<(Status, f64)> {
    let client = connect::connect(door).await?;
    let asked = Instant::now();
    let status = client.status().await?;
    Ok((status, asked.elapsed().as_secs_f64() * 1e3))
}

fn find(check: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict,
        text: text.into(),
    }
}

fn open_files() -> Finding {
    let limit = limits::raise_open_files();
    let fine = limit >= OPEN_FILES_WANTED;
    let advice = if fine {
        ""
    } else {
        "; raise it (ulimit -Hn, LimitNOFILE=) where the server runs"
    };
    let verdict = if fine { Verdict::Ok } else { Verdict::Warning };
    find(
        "files",
        verdict,
        format!("this machine allows {limit} open files{advice}"),
    )
}

fn version(status: &Status) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    if status.version.contains(ours) {
        find("version", Verdict::Ok, "client and server are the same")
    } else {
        find(
            "version",
            Verdict::Warning,
            format!("this client is {ours}, the server {}", status.version),
        )
    }
}

fn disks(status: &Status) -> Vec<Finding> {
    let finding = |disk: &forebay_client::action::Disk| {
        let free = ByteSize(disk.free_bytes).rounded();
        let (verdict, text) = match disk.free_bytes {
            _ if disk.total_bytes == 0 => (Verdict::Failed, "does not answer; look at the disk".to_owned()),
            left if left < disk.total_bytes / FREE_SHARE_WANTED => (Verdict::Warning, format!("only {free} free")),
            _ => (Verdict::Ok, format!("{free} free")),
        };
        find("disk", verdict, format!("{}: {text}", disk.folder))
    };
    status.disks.iter().map(finding).collect()
}

fn mounts(status: &Status) -> Vec<Finding> {
    if status.mounts.is_empty() {
        return vec![find(
            "mounts",
            Verdict::Warning,
            "no under-store: everything stays dirty; see `forebay under add`",
        )];
    }
    let finding = |mount: &forebay_client::action::Mount| {
        let verdict = if mount.state == "ready" {
            Verdict::Ok
        } else {
            Verdict::Failed
        };
        find(
            "mounts",
            verdict,
            format!("{} = {}: {}", mount.path, mount.url, mount.state),
        )
    };
    status.mounts.iter().map(finding).collect()
}

fn stuck(status: &Status) -> Vec<Finding> {
    let blocked = status.blocked.iter().map(|item| {
        find(
            "blocked",
            Verdict::Failed,
            format!(
                "{}: {}; then `forebay persist retry {}`",
                item.path, item.reason, item.path
            ),
        )
    });
    let conflicts = status.conflicts.iter().map(|item| {
        let text = format!(
            "{}: {}; `forebay persist keep-mine|keep-theirs {}`",
            item.path, item.reason, item.path
        );
        find("conflict", Verdict::Failed, text)
    });
    blocked.chain(conflicts).collect()
}

fn lag(status: &Status) -> Finding {
    let seconds = status.oldest_dirty_seconds;
    let late = !status.mounts.is_empty() && seconds > OLDEST_DIRTY_SECONDS_WANTED;
    let verdict = if late { Verdict::Warning } else { Verdict::Ok };
    find(
        "lag",
        verdict,
        format!("the oldest dirty file has waited {seconds:.0} s"),
    )
}
