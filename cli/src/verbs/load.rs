//! `load`: paths of the command line and of a file, one job, and how far it is.

use super::at;
use crate::{
    args::{Door, Load},
    failure::{Failure, Outcome},
    output::Output,
    progress,
};
use forebay_client::{Client, WirePath};
use forebay_runtime::units::ByteSize;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::{io::Read, path::Path, time::Duration};

/// How often the bar asks how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Longest file of paths.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Paths of one job: what the server takes in one.
const PATHS_AT_ONCE: usize = 10_000;
const PATHS_BYTES_AT_ONCE: usize = 40 << 10;

pub(super) async fn load(load: Load, door: &Door, output: &mut Output) -> Outcome {
    let Load {
        mut paths,
        from,
        parallel,
        verify,
        wait,
        cancel,
    } = load;
    if let Some(file) = &from {
        paths.extend(read(file)?);
    }
    let Some(first) = paths.first().cloned() else {
        return Err(Failure::usage("no path is named: the file has none"));
    };
    let (client, first) = at(door, &first).await?;
    let rest = paths[1..]
        .iter()
        .map(|text| WirePath::parse(text).map_err(|error| Failure::usage(format!("{text}: {error}"))));
    let mut named = vec![first];
    named.extend(rest.collect::<Outcome<Vec<WirePath>>>()?);
    let mut all = Value::Null;
    for job in jobs(&named) {
        let body = match job {
            [one] => json!({ "path": one, "parallel": parallel, "verify": verify, "wait": wait, "cancel": cancel }),
            many => json!({ "paths": many, "parallel": parallel, "verify": verify, "wait": wait, "cancel": cancel }),
        };
        add(&mut all, act(&client, body, &job[0], wait).await?);
    }
    output.one(&all, |told| {
        let text = text(&named[0], named.len(), told, wait, cancel);
        match verify && wait {
            true => text + &verified(told),
            false => text,
        }
    })
}

/// What several jobs did, as if it had been one.
fn add(all: &mut Value, told: Value) {
    let Some(sum) = all.as_object_mut() else {
        *all = told;
        return;
    };
    for (key, value) in told.as_object().into_iter().flatten() {
        let before = sum.get(key).cloned().unwrap_or(Value::Null);
        let value = match (before, value) {
            (Value::Bool(before), Value::Bool(now)) => json!(before || *now),
            (before, now) if key != "job" && before.is_u64() => {
                json!(before.as_u64().unwrap_or(0) + now.as_u64().unwrap_or(0))
            }
            (_, now) => now.clone(),
        };
        sum.insert(key.clone(), value);
    }
}

fn text(path: &WirePath, paths: usize, told: &Value, wait: bool, cancel: bool) -> String {
    let of = |key: &str| told.get(key).and_then(Value::as_u64).unwrap_or(0);
    let what = match paths {
        1 => path.to_string(),
        more => format!("{path} and {} more", more - 1),
    };
    if cancel {
        return format!("{what}: cancelled");
    }
    if !wait {
        return format!(
            "{what}: job {} loads it; `forebay status` shows how far it is",
            of("job")
        );
    }
    let full = match told.get("full") {
        Some(Value::Bool(true)) => "; the cache has no room for more (--cache-max)",
        _ => "",
    };
    format!(
        "{what}: {} files, {} in the cache{full}",
        of("files"),
        ByteSize(of("bytes")).rounded()
    )
}

/// What was read back, and what of it was damaged.
fn verified(told: &Value) -> String {
    let of = |key: &str| told.get(key).and_then(Value::as_u64).unwrap_or(0);
    let damaged = match of("damaged_bytes") {
        0 => String::new(),
        bytes => format!("; {} were damaged and fetched anew", ByteSize(bytes).rounded()),
    };
    format!(
        "; {} that were there already are what was written{damaged}",
        ByteSize(of("verified_bytes")).rounded()
    )
}

/// As many paths at once as one job takes.
fn jobs(paths: &[WirePath]) -> Vec<&[WirePath]> {
    let (mut jobs, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, path) in paths.iter().enumerate() {
        let length = path.to_string().len() + 4;
        if at > begin && (bytes + length > PATHS_BYTES_AT_ONCE || at - begin >= PATHS_AT_ONCE) {
            jobs.push(&paths[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += length;
    }
    jobs.push(&paths[begin..]);
    jobs
}

/// The action, and a bar meanwhile.
async fn act(client: &Client, body: Value, path: &WirePath, wait: bool) -> Outcome<Value> {
    let bar = progress::words(format!("load {path}"));
    let acting = client.action("load", without_null(body));
    tokio::pin!(acting);
    let results = loop {
        tokio::select! {
            results = &mut acting => break results,
            () = tokio::time::sleep(LOOK_INTERVAL), if wait && !bar.is_hidden() => show(client, path, &bar).await,
        }
    };
    bar.finish_and_clear();
    Ok(results?.pop().unwrap_or_else(|| json!({})))
}

async fn show(client: &Client, path: &WirePath, bar: &ProgressBar) {
    // The load itself says what is wrong.
    let Ok(status) = client.status().await else { return };
    let path = path.to_string();
    if let Some(job) = status
        .loads
        .iter()
        .rev()
        .find(|job| job.path == path && job.state == "running")
    {
        let more = if job.found_all { "" } else { " so far" };
        bar.set_message(format!(
            "load {path}: {} of {}, {} of {} files{more}",
            ByteSize(job.bytes).rounded(),
            ByteSize(job.bytes_total).rounded(),
            job.files,
            job.files_total
        ));
    }
}

fn without_null(mut body: Value) -> Value {
    if let Some(body) = body.as_object_mut() {
        body.retain(|_, value| !value.is_null() && *value != Value::Bool(false));
    }
    body
}

/// Paths of a file, one a line; empty lines and those that begin with `#` aside.
fn read(file: &Path) -> Outcome<Vec<String>> {
    let about = |error: std::io::Error| Failure::usage(format!("--from {}: {error}", file.display()));
    let mut text = String::new();
    let source: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(about)?),
    };
    source
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(about)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "--from {}: is longer than 64 MiB",
            file.display()
        )));
    }
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_paths_are_several_jobs() {
        let paths: Vec<WirePath> = (0..25_000)
            .map(|n| WirePath::parse(&format!("/p/{n}")).unwrap())
            .collect();
        let jobs = jobs(&paths);
        assert_eq!(jobs.iter().map(|job| job.len()).sum::<usize>(), 25_000);
        assert!(jobs.len() > 2 && jobs.iter().all(|job| !job.is_empty() && job.len() <= PATHS_AT_ONCE));
        assert_eq!(super::jobs(&paths[..1]).len(), 1);
        let mut all = Value::Null;
        add(&mut all, json!({ "job": 1, "files": 2, "full": false }));
        add(&mut all, json!({ "job": 2, "files": 3, "full": true }));
        assert_eq!(all, json!({ "job": 2, "files": 5, "full": true }));
    }
}
