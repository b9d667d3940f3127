//! `mount` and `unmount`: the server of the same machine mounts, so that the folder lives as long as it does.

use crate::{
    args::{Door, MountFolder, UnmountFolder},
    connect,
    failure::{Failure, Outcome},
    output::Output,
};
use serde_json::{Value, json};
use std::path::Path;

/// Exit codes of a server that does not know the folder, and of none at all.
const NOT_FOUND: u8 = 3;
const UNAVAILABLE: u8 = 6;

pub(super) async fn mount(mount: MountFolder, door: &Door, output: &mut Output) -> Outcome {
    let body = json!({ "dir": full(&mount.dir)?, "mode": mount.mode.name(), "read_only": mount.read_only });
    ask("mount", &mount.dir, body, door, output).await
}

pub(super) async fn unmount(unmount: UnmountFolder, door: &Door, output: &mut Output) -> Outcome {
    let dir = full(&unmount.dir)?;
    match ask("unmount", &unmount.dir, json!({ "dir": dir }), door, output).await {
        // Another server's, or one that is gone: the system unmounts it.
        Err(failure)
            if matches!(failure.code(), NOT_FOUND | UNAVAILABLE) && forebay_fuse::unmount(Path::new(&dir)).is_ok() =>
        {
            output.one(&json!({ "dir": unmount.dir.display().to_string() }), |_| String::new())
        }
        asked => asked,
    }
}

async fn ask(action: &str, dir: &Path, body: Value, door: &Door, output: &mut Output) -> Outcome {
    let client = connect::connect(door).await?;
    client.action(action, body).await?;
    output.one(&json!({ "dir": dir.display().to_string() }), |_| String::new())
}

/// The folder from `/` on: the server has another working folder.
fn full(dir: &Path) -> Outcome<String> {
    let full = std::path::absolute(dir).map_err(|error| Failure::usage(format!("{}: {error}", dir.display())))?;
    full.into_os_string()
        .into_string()
        .map_err(|name| Failure::usage(format!("{}: the name is not UTF-8", name.display())))
}
