//! Words of the wire and words of the engine, both ways.

use crate::{error, tickets::State};
use chrono::{DateTime, SecondsFormat};
use forebay_protocol::{
    action::{Entry, EntryKind},
    command::{Compression, Format, Mode, Task},
    level,
    path::WirePath,
    resume::{Counted, ResumeToken},
};
use forebay_runtime::clock::Timestamp;
use forebay_writeback::{
    AckLevel, Path,
    dataset::{self, At, Resume, SessionId},
    file::WriteMode,
    names::{Stat, StatKind, State as FileState},
};
use std::collections::BTreeMap;
use tonic::{Code, Status};

pub(super) fn path(wire: &WirePath) -> Result<Path, Status> {
    Path::parse(wire.as_bytes()).map_err(|e| error::wrong(e.to_string()))
}

/// A path of the engine as the wire has it.
pub(crate) fn wire_path(path: &Path) -> Result<WirePath, Status> {
    WirePath::from_bytes(&path.as_bytes()).map_err(|e| error::status(Code::Internal, &e.0))
}

pub(super) fn mode(mode: Option<Mode>) -> WriteMode {
    match mode.unwrap_or_default() {
        Mode::Append => WriteMode::Append,
        Mode::Overwrite => WriteMode::Overwrite,
        Mode::Create => WriteMode::Create,
    }
}

pub(super) fn format(format: Option<Format>) -> dataset::Format {
    match format.unwrap_or_default() {
        Format::Arrow => dataset::Format::Arrow,
        Format::Parquet => dataset::Format::Parquet,
    }
}

pub(super) fn compression(compression: Compression) -> dataset::Compression {
    match compression {
        Compression::None => dataset::Compression::None,
        Compression::Lz4 => dataset::Compression::Lz4,
        Compression::Zstd => dataset::Compression::Zstd,
    }
}

pub(super) fn task(task: Task) -> dataset::Task {
    let Task {
        job,
        stage,
        task,
        attempt,
    } = task;
    dataset::Task {
        job,
        stage,
        task,
        attempt,
    }
}

/// A level that this server can hold; one copy is what `local` is, more need more nodes.
pub(super) fn ack(level: level::AckLevel) -> Result<AckLevel, Status> {
    match level {
        level::AckLevel::Memory => Ok(AckLevel::Memory),
        level::AckLevel::Local | level::AckLevel::Replicated(1) => Ok(AckLevel::Local),
        level::AckLevel::Persisted => Ok(AckLevel::Persisted),
        level::AckLevel::Replicated(n) => {
            let text = format!("this server is one node and can not hold replicated({n}); ask for local or persisted");
            Err(error::status(Code::Unimplemented, &text))
        }
    }
}

pub(crate) fn level(ack: AckLevel) -> level::AckLevel {
    match ack {
        AckLevel::Memory => level::AckLevel::Memory,
        AckLevel::Local => level::AckLevel::Local,
        AckLevel::Persisted => level::AckLevel::Persisted,
    }
}

pub(super) fn resume(token: &ResumeToken) -> Resume {
    match &token.of {
        Counted::Version(version) => Resume::Version(*version, token.batches),
        Counted::Session(session) => Resume::Session(SessionId(session.clone()), token.batches),
    }
}

pub(super) fn at(state: &State) -> At {
    match state {
        State::Head => At::Head,
        State::Version(version) => At::Version(*version),
        State::Session(session) => At::Session(SessionId(session.clone())),
    }
}

/// The years 0 to 9999, which is what RFC 3339 can write.
const FIRST: Timestamp = Timestamp(-62_167_219_200_000_000);
const LAST: Timestamp = Timestamp(253_402_300_799_999_999);

/// RFC 3339 in UTC. A time that this can not write, as a program may give to a file, is told as the nearest one that it can.
pub(crate) fn time(at: Timestamp) -> String {
    let at = DateTime::from_timestamp_micros(at.clamp(FIRST, LAST).0).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(super) fn state(state: FileState) -> &'static str {
    match state {
        FileState::Open => "open",
        FileState::Sealed => "sealed",
        FileState::Persisted => "persisted",
        FileState::Clean => "clean",
    }
}

pub(super) fn entry(stat: &Stat) -> Result<Entry, Status> {
    let kind = match stat.kind {
        StatKind::File => EntryKind::File,
        StatKind::Dir => EntryKind::Dir,
        // A pipe or device is a name without content for those who can not open it.
        StatKind::Symlink | StatKind::Special => EntryKind::Symlink,
    };
    Ok(Entry {
        path: wire_path(&stat.path)?,
        kind,
        size: stat.size,
        mtime: time(stat.mtime),
        mode: stat.mode,
        state: state(stat.state).to_owned(),
        version: stat.version,
        etag: stat.etag.clone(),
        cached_bytes: Some(stat.cached_bytes),
        attributes: BTreeMap::new(),
    })
}

/// What the extended attributes of users are called before the name that is told.
const USER: &str = "user.";

/// Attributes of a file, as the engine has them.
pub(super) fn xattrs(attributes: BTreeMap<String, String>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let named = |(name, value): (String, String)| (format!("{USER}{name}").into_bytes(), value.into_bytes());
    attributes.into_iter().map(named).collect()
}

/// The attributes that can be told.
pub(super) fn attributes(xattrs: BTreeMap<Vec<u8>, Vec<u8>>) -> BTreeMap<String, String> {
    let told = |(name, value): (Vec<u8>, Vec<u8>)| {
        let name = String::from_utf8(name).ok()?;
        Some((name.strip_prefix(USER)?.to_owned(), String::from_utf8(value).ok()?))
    };
    xattrs.into_iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_is_local_and_more_are_refused_by_name() {
        assert_eq!(ack(level::AckLevel::Replicated(1)).unwrap(), AckLevel::Local);
        let refused = ack(level::AckLevel::Replicated(2)).unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("replicated(2)"));
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(time(Timestamp(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(Timestamp(1_700_000_000_123_456)), "2023-11-14T22:13:20.123456Z");
    }

    #[test]
    fn times_have_years_of_four_digits() {
        for (at, told) in [
            (i64::MIN, "0000-01-01T00:00:00.000000Z"),
            (FIRST.0, "0000-01-01T00:00:00.000000Z"),
            (-1_000_000, "1969-12-31T23:59:59.000000Z"),
            (LAST.0, "9999-12-31T23:59:59.999999Z"),
            (LAST.0 + 1, "9999-12-31T23:59:59.999999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(time(Timestamp(at)), told);
        }
    }
}
