//! A dedicated segment: the bytes of one stream from offset 0 in one file, and a log beside it with checksums and appends.
//!
//! A flush makes the data durable first, then writes and flushes the log record that tells of it. So what the log says is true without a
//! look at the data; data beyond it was never acknowledged. The first flush enters the segment into the manifest, and from then on the packed
//! records of a stream that moved here are not needed any more.

mod file;
mod log;
mod log_file;

pub(crate) use file::DedicatedFile;
pub(crate) use log::{Appended, DedicatedLog, Resumed};
pub(crate) use log_file::{LogFile, Made};
