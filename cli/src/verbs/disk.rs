//! `disk remove`: takes a data folder out of its store, while no server runs on it.

use crate::{
    args::DiskRemove,
    failure::{Failure, Outcome},
    output::Output,
};
use forebay_runtime::{disk::RealDisk, task};
use serde::Serialize;

/// What was taken out.
#[derive(Debug, Serialize)]
struct Removed {
    folder: String,
}

pub(super) async fn remove(flags: DiskRemove, output: &mut Output) -> Outcome {
    let removed = Removed {
        folder: flags.folder.display().to_string(),
    };
    let taken = task::blocking(move || forebay_segment::take_out(&flags.folder, &flags.data, &RealDisk::shared()));
    taken.await.map_err(|error| Failure::failed(error.to_string()))?;
    output.one(&removed, |removed| {
        format!(
            "{} is no data folder of the server any more; start it with the others",
            removed.folder
        )
    })
}
