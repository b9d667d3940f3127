//! Descriptors: what a client wants to read or write, as PATH or as a CMD of JSON, both ways.
//!
//! A CMD is one JSON object with a `path` and the keys below; unknown keys are refused, and so is a key of the other verb
//! (`columns` on a write would otherwise be silently without effect). A bare PATH is the command with no other key.

use crate::{Invalid, level::AckLevel, path::WirePath, resume::ResumeToken, span::Span};
use arrow_flight::{FlightDescriptor, flight_descriptor::DescriptorType};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most bytes of a CMD.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// Most bytes of an idempotency token.
pub const TOKEN_BYTES_MAX: usize = 256;
/// Most bytes of an etag.
pub const ETAG_BYTES_MAX: usize = 4096;
/// Most bytes of the name of an attribute of a file.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 250;
/// Most bytes of all attributes of a file, names and values.
pub const ATTRIBUTES_BYTES_MAX: usize = 30 << 10;
/// Most bytes of a job's or session's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Most bytes of a filter.
pub const FILTER_BYTES_MAX: usize = 64 << 10;

/// What a path is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// A directory of parts.
    Dataset,
    /// Bytes.
    File,
}

/// What a write does with what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Adds to it.
    #[default]
    Append,
    /// Takes its place.
    Overwrite,
    /// Fails when something is there.
    Create,
}

/// How parts are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Arrow IPC files: batch boundaries and app_metadata are kept.
    #[default]
    Arrow,
    /// Parquet files: rows and schema are kept.
    Parquet,
}

/// How the buffers of parts are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not.
    #[default]
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// One attempt of one task of a job. Of a (job, stage, task) one attempt wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The job's name.
    #[serde(default)]
    pub job: String,
    /// The job's stage.
    #[serde(default)]
    pub stage: u64,
    /// The task's number; parts are ordered by it.
    pub task: u64,
    /// Which attempt this is.
    #[serde(default)]
    pub attempt: u64,
}

/// A command to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteCommand {
    /// Where to.
    pub path: WirePath,
    /// Dataset unless said otherwise.
    pub kind: PathKind,
    /// `None`: the session's, or append.
    pub mode: Option<Mode>,
    /// The session that it belongs to; `None`: one of its own.
    pub session: Option<String>,
    /// The task attempt that writes.
    pub task: Option<Task>,
    /// `None`: the session's, or Arrow.
    pub format: Option<Format>,
    /// `None`: the session's, or none.
    pub compression: Option<Compression>,
    /// `None`: the session's, or the server's default.
    pub ack: Option<AckLevel>,
    /// Idempotency key of the unit.
    pub token: Option<String>,
    /// For files: must equal the size.
    pub offset: Option<u64>,
    /// For files that are overwritten: must be the etag of what is there.
    pub if_etag: Option<String>,
    /// For files that are made or overwritten: the extended attributes `user.NAME` that the file has then, and no others of that kind.
    /// `None`: those of what is there.
    pub attributes: Option<BTreeMap<String, String>>,
}

/// A command to read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadCommand {
    /// Where from.
    pub path: WirePath,
    /// `None`: a dataset if it is one, else a file.
    pub kind: Option<PathKind>,
    /// A published version; `None`: the head.
    pub version: Option<u64>,
    /// Goes on with the live session as it is acknowledged.
    pub follow: bool,
    /// Only this session's batches.
    pub session: Option<String>,
    /// How long to wait for a dataset or session to come into being.
    pub wait: Option<Span>,
    /// Columns in the order asked for; `None`: all.
    pub columns: Option<Vec<String>>,
    /// A SQL expression over the columns.
    pub filter: Option<String>,
    /// Most rows, over all endpoints together.
    pub limit: Option<u64>,
    /// Where an earlier read stopped.
    pub from: Option<ResumeToken>,
    /// For files: first byte.
    pub offset: Option<u64>,
    /// For files: most bytes.
    pub length: Option<u64>,
}

impl WriteCommand {
    /// Appends to the dataset at `path`.
    pub fn new(path: WirePath) -> Self {
        Self {
            path,
            kind: PathKind::Dataset,
            mode: None,
            session: None,
            task: None,
            format: None,
            compression: None,
            ack: None,
            token: None,
            offset: None,
            if_etag: None,
            attributes: None,
        }
    }

    /// Reads the descriptor of a DoPut.
    pub fn from_descriptor(descriptor: &FlightDescriptor) -> Result<Self, Invalid> {
        let keys = Keys::from_descriptor(descriptor)?;
        keys.refuse(
            "write",
            &[
                ("version", keys.version.is_some()),
                ("follow", keys.follow.is_some()),
                ("wait", keys.wait.is_some()),
                ("columns", keys.columns.is_some()),
                ("filter", keys.filter.is_some()),
                ("limit", keys.limit.is_some()),
                ("from", keys.from.is_some()),
                ("length", keys.length.is_some()),
            ],
        )?;
        let command = Self {
            path: keys.path,
            kind: keys.kind.unwrap_or(PathKind::Dataset),
            mode: keys.mode,
            session: keys.session,
            task: keys.task,
            format: keys.format,
            compression: keys.compression,
            ack: keys.ack,
            token: keys.token,
            offset: keys.offset,
            if_etag: keys.if_etag,
            attributes: keys.attributes,
        };
        command.check()?;
        Ok(command)
    }

    /// The descriptor that says this.
    pub fn to_descriptor(&self) -> FlightDescriptor {
        let Self {
            path,
            kind,
            mode,
            session,
            task,
            format,
            compression,
            ack,
            token,
            offset,
            if_etag,
            attributes,
        } = self.clone();
        let kind = Some(kind);
        Keys {
            kind,
            mode,
            session,
            task,
            format,
            compression,
            ack,
            token,
            offset,
            if_etag,
            attributes,
            ..Keys::new(path)
        }
        .to_descriptor()
    }

    fn check(&self) -> Result<(), Invalid> {
        let file = self.kind == PathKind::File;
        if !file && self.offset.is_some() {
            return Err(Invalid::new("`offset` is for files; say \"kind\": \"file\""));
        }
        if file && (self.session.is_some() || self.task.is_some()) {
            return Err(Invalid::new(
                "`session` and `task` are for datasets; a file is one unit of its own",
            ));
        }
        if file && (self.format.is_some() || self.compression.is_some()) {
            return Err(Invalid::new(
                "`format` and `compression` are for datasets; a file is stored as it is sent",
            ));
        }
        if file && self.offset.is_some() && self.mode.unwrap_or_default() != Mode::Append {
            return Err(Invalid::new("`offset` goes with mode append only"));
        }
        if self.if_etag.is_some() && !(file && self.mode == Some(Mode::Overwrite)) {
            return Err(Invalid::new(
                "`if_etag` goes with kind file and mode overwrite only; to write where nothing is, take mode create",
            ));
        }
        if let Some(attributes) = &self.attributes {
            if !file || self.mode.unwrap_or_default() == Mode::Append {
                return Err(Invalid::new(
                    "`attributes` goes with kind file and mode overwrite or create; what is appended to keeps what it has",
                ));
            }
            check_attributes(attributes)?;
        }
        at_most("if_etag", self.if_etag.as_deref(), ETAG_BYTES_MAX)?;
        at_most("token", self.token.as_deref(), TOKEN_BYTES_MAX)?;
        at_most("session", self.session.as_deref(), NAME_BYTES_MAX)?;
        at_most("job", self.task.as_ref().map(|t| t.job.as_str()), NAME_BYTES_MAX)
    }
}

impl ReadCommand {
    /// Reads what is at `path`.
    pub fn new(path: WirePath) -> Self {
        Self {
            path,
            kind: None,
            version: None,
            follow: false,
            session: None,
            wait: None,
            columns: None,
            filter: None,
            limit: None,
            from: None,
            offset: None,
            length: None,
        }
    }

    /// Reads the descriptor of GetFlightInfo, PollFlightInfo or GetSchema.
    pub fn from_descriptor(descriptor: &FlightDescriptor) -> Result<Self, Invalid> {
        let keys = Keys::from_descriptor(descriptor)?;
        keys.refuse(
            "read",
            &[
                ("mode", keys.mode.is_some()),
                ("task", keys.task.is_some()),
                ("format", keys.format.is_some()),
                ("compression", keys.compression.is_some()),
                ("ack", keys.ack.is_some()),
                ("token", keys.token.is_some()),
                ("if_etag", keys.if_etag.is_some()),
                ("attributes", keys.attributes.is_some()),
            ],
        )?;
        let command = Self {
            path: keys.path,
            kind: keys.kind,
            version: keys.version,
            follow: keys.follow.unwrap_or(false),
            session: keys.session,
            wait: keys.wait,
            columns: keys.columns,
            filter: keys.filter,
            limit: keys.limit,
            from: keys.from,
            offset: keys.offset,
            length: keys.length,
        };
        command.check()?;
        Ok(command)
    }

    /// The descriptor that says this.
    pub fn to_descriptor(&self) -> FlightDescriptor {
        let Self {
            path,
            kind,
            version,
            follow,
            session,
            wait,
            columns,
            filter,
            limit,
            from,
            offset,
            length,
        } = self.clone();
        let follow = follow.then_some(true);
        Keys {
            kind,
            version,
            follow,
            session,
            wait,
            columns,
            filter,
            limit,
            from,
            offset,
            length,
            ..Keys::new(path)
        }
        .to_descriptor()
    }

    fn check(&self) -> Result<(), Invalid> {
        let ranged = self.offset.is_some() || self.length.is_some();
        if self.kind == Some(PathKind::Dataset) && ranged {
            return Err(Invalid::new(
                "`offset` and `length` are for files; a dataset takes `limit` and `from`",
            ));
        }
        let dataset_keys = self.version.is_some()
            || self.follow
            || self.session.is_some()
            || self.columns.is_some()
            || self.filter.is_some()
            || self.limit.is_some()
            || self.from.is_some();
        if self.kind == Some(PathKind::File) && dataset_keys {
            return Err(Invalid::new(
                "of a file only `offset`, `length` and `wait` can be asked; the other keys are for datasets",
            ));
        }
        if self.version.is_some() && (self.follow || self.session.is_some()) {
            return Err(Invalid::new(
                "`version` names what is published; it does not go with `follow` or `session`",
            ));
        }
        at_most("session", self.session.as_deref(), NAME_BYTES_MAX)?;
        at_most("filter", self.filter.as_deref(), FILTER_BYTES_MAX)
    }
}

/// What is called `user.forebay.…` is told by the server.
fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), Invalid> {
    for name in attributes.keys() {
        let room = 1..=ATTRIBUTE_NAME_BYTES_MAX;
        if !room.contains(&name.len()) || name.contains('\0') || name.starts_with("forebay.") {
            let shown: String = name.chars().take(60).collect();
            return Err(Invalid(format!(
                "`attributes`: {shown:?} is no name for one; take 1 to {ATTRIBUTE_NAME_BYTES_MAX} bytes without NUL that do not begin with `forebay.`"
            )));
        }
    }
    let bytes: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ATTRIBUTES_BYTES_MAX {
        return Err(Invalid(format!(
            "`attributes` has {bytes} bytes; at most {ATTRIBUTES_BYTES_MAX} are kept of a file"
        )));
    }
    Ok(())
}

fn at_most(key: &str, value: Option<&str>, most: usize) -> Result<(), Invalid> {
    match value {
        Some("") if key != "job" => Err(Invalid(format!("`{key}` is empty; leave it out instead"))),
        Some(v) if v.len() > most => Err(Invalid(format!("`{key}` is longer than {most} bytes"))),
        _ => Ok(()),
    }
}

/// All keys of a CMD, as JSON has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    path: WirePath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<PathKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compression: Option<Compression>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ack: Option<AckLevel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    if_etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attributes: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    follow: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<ResumeToken>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
}

impl Keys {
    fn new(path: WirePath) -> Self {
        Self {
            path,
            kind: None,
            mode: None,
            session: None,
            task: None,
            format: None,
            compression: None,
            ack: None,
            token: None,
            offset: None,
            if_etag: None,
            attributes: None,
            version: None,
            follow: None,
            wait: None,
            columns: None,
            filter: None,
            limit: None,
            from: None,
            length: None,
        }
    }

    fn from_descriptor(descriptor: &FlightDescriptor) -> Result<Self, Invalid> {
        match DescriptorType::try_from(descriptor.r#type) {
            Ok(DescriptorType::Path) => WirePath::from_elements(&descriptor.path).map(Self::new),
            Ok(DescriptorType::Cmd) => parse_object("command", &descriptor.cmd),
            _ => Err(Invalid::new(
                "the descriptor is neither PATH nor CMD; give a path, or JSON like {\"path\": \"/a\"}",
            )),
        }
    }

    fn to_descriptor(&self) -> FlightDescriptor {
        FlightDescriptor {
            r#type: DescriptorType::Cmd.into(),
            cmd: Bytes::from(serde_json::to_vec(self).expect("plain data has a JSON form")),
            path: Vec::new(),
        }
    }

    /// Refuses the keys that belong to the other verb.
    fn refuse(&self, verb: &str, others: &[(&str, bool)]) -> Result<(), Invalid> {
        match others.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(Invalid(format!("`{key}` is no key to {verb} with"))),
            None => Ok(()),
        }
    }
}

/// Reads one JSON object of known keys. `what` names it in the error.
pub(crate) fn parse_object<T: serde::de::DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, Invalid> {
    if json.len() > COMMAND_BYTES_MAX {
        return Err(Invalid(format!(
            "the {what} has {} bytes; at most {COMMAND_BYTES_MAX} are read",
            json.len()
        )));
    }
    // serde would read a struct from a list too.
    if json.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Invalid(format!(
            "the {what} is no JSON object; write it like {{\"path\": \"/a\"}}"
        )));
    }
    serde_json::from_slice(json).map_err(|e| Invalid(format!("the {what} is not understood: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cmd(json: &str) -> FlightDescriptor {
        FlightDescriptor::new_cmd(json.as_bytes().to_vec())
    }

    fn path(text: &str) -> WirePath {
        WirePath::parse(text).unwrap()
    }

    #[test]
    fn every_key_to_write_is_read_and_written() {
        let json = r#"{"path":"/features/day=1","kind":"dataset","mode":"overwrite","session":"abc","task":{"job":"j","stage":1,"task":5,"attempt":0},
            "format":"parquet","compression":"zstd","ack":"replicated(2)","token":"t"}"#;
        let command = WriteCommand::from_descriptor(&cmd(json)).unwrap();
        let expected = WriteCommand {
            mode: Some(Mode::Overwrite),
            session: Some("abc".into()),
            task: Some(Task {
                job: "j".into(),
                stage: 1,
                task: 5,
                attempt: 0,
            }),
            format: Some(Format::Parquet),
            compression: Some(Compression::Zstd),
            ack: Some(AckLevel::Replicated(2)),
            token: Some("t".into()),
            ..WriteCommand::new(path("/features/day=1"))
        };
        assert_eq!(command, expected);
        assert_eq!(
            WriteCommand::from_descriptor(&command.to_descriptor()).unwrap(),
            command
        );
        let file = WriteCommand {
            kind: PathKind::File,
            offset: Some(3),
            ..WriteCommand::new(path("/f"))
        };
        assert_eq!(
            WriteCommand::from_descriptor(&cmd(r#"{"path":"/f","kind":"file","offset":3}"#)).unwrap(),
            file
        );
        assert_eq!(WriteCommand::from_descriptor(&file.to_descriptor()).unwrap(), file);
        let on_condition = WriteCommand {
            kind: PathKind::File,
            mode: Some(Mode::Overwrite),
            if_etag: Some("5.1".into()),
            ..WriteCommand::new(path("/f"))
        };
        let json = r#"{"path":"/f","kind":"file","mode":"overwrite","if_etag":"5.1"}"#;
        assert_eq!(WriteCommand::from_descriptor(&cmd(json)).unwrap(), on_condition);
        assert_eq!(
            WriteCommand::from_descriptor(&on_condition.to_descriptor()).unwrap(),
            on_condition
        );
    }

    #[test]
    fn an_etag_is_a_condition_to_overwrite_a_file_and_nothing_else() {
        for keys in [
            r#""if_etag":"5.1""#,
            r#""if_etag":"5.1","mode":"overwrite""#,
            r#""if_etag":"5.1","kind":"file""#,
            r#""if_etag":"5.1","kind":"file","mode":"append""#,
            r#""if_etag":"5.1","kind":"file","mode":"create""#,
        ] {
            let refused = WriteCommand::from_descriptor(&cmd(&format!(r#"{{"path":"/f",{keys}}}"#))).unwrap_err();
            assert!(
                refused.0.contains("`if_etag`") && refused.0.contains("overwrite"),
                "{keys}: {refused}"
            );
        }
        let sized = |bytes: usize| WriteCommand {
            kind: PathKind::File,
            mode: Some(Mode::Overwrite),
            if_etag: Some("e".repeat(bytes)),
            ..WriteCommand::new(path("/f"))
        };
        let read_back = |bytes| WriteCommand::from_descriptor(&sized(bytes).to_descriptor());
        assert!(read_back(0).is_err() && read_back(ETAG_BYTES_MAX + 1).is_err());
        assert!(read_back(1).is_ok() && read_back(ETAG_BYTES_MAX).is_ok());
        assert!(ReadCommand::from_descriptor(&cmd(r#"{"path":"/f","kind":"file","if_etag":"5.1"}"#)).is_err());
    }

    #[test]
    fn attributes_are_of_a_file_that_is_made_or_overwritten() {
        let with = |mode, attributes: &[(&str, String)]| WriteCommand {
            kind: PathKind::File,
            mode,
            attributes: Some(attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()),
            ..WriteCommand::new(path("/f"))
        };
        for mode in [Mode::Overwrite, Mode::Create] {
            for attributes in [&[][..], &[("content-type", "text/html".into()), ("ü", String::new())]] {
                let command = with(Some(mode), attributes);
                let read = WriteCommand::from_descriptor(&command.to_descriptor()).unwrap();
                assert_eq!(read, command);
            }
        }
        let json = r#"{"path":"/f","kind":"file","mode":"create","attributes":{"content-type":"text/html"}}"#;
        let command = with(Some(Mode::Create), &[("content-type", "text/html".into())]);
        assert_eq!(WriteCommand::from_descriptor(&cmd(json)).unwrap(), command);
        let long = "n".repeat(ATTRIBUTE_NAME_BYTES_MAX + 1);
        let refused = [
            with(None, &[]),
            with(Some(Mode::Append), &[]),
            WriteCommand {
                kind: PathKind::Dataset,
                ..with(Some(Mode::Overwrite), &[])
            },
            with(Some(Mode::Overwrite), &[("", "x".into())]),
            with(Some(Mode::Overwrite), &[(&long, "x".into())]),
            with(Some(Mode::Overwrite), &[("a\0b", "x".into())]),
            with(Some(Mode::Overwrite), &[("forebay.state", "clean".into())]),
            with(Some(Mode::Overwrite), &[("a", "x".repeat(ATTRIBUTES_BYTES_MAX))]),
        ];
        for command in refused {
            let error = WriteCommand::from_descriptor(&command.to_descriptor()).unwrap_err();
            assert!(error.0.contains("`attributes`"), "{error}");
        }
        let json = r#"{"path":"/f","kind":"file","attributes":{}}"#;
        assert!(ReadCommand::from_descriptor(&cmd(json)).is_err());
    }

    #[test]
    fn every_key_to_read_is_read_and_written() {
        let json = r#"{"path":"/a","kind":"dataset","follow":true,"session":"abc","wait":"5s","columns":["x","y"],"filter":"x > 1","limit":7,"from":"abc:3"}"#;
        let command = ReadCommand::from_descriptor(&cmd(json)).unwrap();
        let expected = ReadCommand {
            kind: Some(PathKind::Dataset),
            follow: true,
            session: Some("abc".into()),
            wait: Some(Span::parse("5s").unwrap()),
            columns: Some(vec!["x".into(), "y".into()]),
            filter: Some("x > 1".into()),
            limit: Some(7),
            from: Some(ResumeToken::session("abc", 3)),
            ..ReadCommand::new(path("/a"))
        };
        assert_eq!(command, expected);
        assert_eq!(ReadCommand::from_descriptor(&command.to_descriptor()).unwrap(), command);
        for json in [
            r#"{"path":"/a","version":3}"#,
            r#"{"path":"/a","kind":"file","offset":1,"length":2}"#,
        ] {
            let command = ReadCommand::from_descriptor(&cmd(json)).unwrap();
            assert_eq!(ReadCommand::from_descriptor(&command.to_descriptor()).unwrap(), command);
        }
    }

    #[test]
    fn a_bare_path_is_the_command_without_keys() {
        let descriptor = FlightDescriptor::new_path(vec!["t".into(), "a".into()]);
        assert_eq!(
            WriteCommand::from_descriptor(&descriptor).unwrap(),
            WriteCommand::new(path("/t/a"))
        );
        assert_eq!(
            ReadCommand::from_descriptor(&descriptor).unwrap(),
            ReadCommand::new(path("/t/a"))
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (json, says) in [
            ("{path", "line 1"),
            ("[]", "no JSON object"),
            ("", "no JSON object"),
            ("{}", "missing field `path`"),
            (r#"{"path": 7}"#, "an absolute path"),
            (r#"{"path": "r/set"}"#, "is relative"),
            (r#"{"path": "../x"}"#, "is relative"),
            (r#"{"path": "/a", "path": "/b"}"#, "duplicate field"),
            (r#"{"path": "/a", "colour": "red"}"#, "colour"),
            (r#"{"path": "/a", "kind": "pipe"}"#, "pipe"),
            (r#"{"path": "/a", "offset": -5}"#, "-5"),
        ] {
            let read = ReadCommand::from_descriptor(&cmd(json)).unwrap_err();
            let write = WriteCommand::from_descriptor(&cmd(json)).unwrap_err();
            assert!(
                read.0.contains(says) && write.0.contains(says),
                "{json}: {read}; {write}"
            );
        }
        for json in [
            r#"{"path":"/a","limit":-1}"#,
            r#"{"path":"/a","columns":"id"}"#,
            r#"{"path":"/a","version":"x"}"#,
            r#"{"path":"/a","from":"x"}"#,
            r#"{"path":"/a","mode":"append"}"#,
            r#"{"path":"/a","filter":""}"#,
            r#"{"path":"/a","version":1,"follow":true}"#,
            r#"{"path":"/a","kind":"file","columns":["x"]}"#,
            r#"{"path":"/a","kind":"dataset","offset":1}"#,
        ] {
            assert!(ReadCommand::from_descriptor(&cmd(json)).is_err(), "{json}");
        }
        for json in [
            r#"{"path":"/a","mode":"maybe"}"#,
            r#"{"path":"/a","format":"csv"}"#,
            r#"{"path":"/a","compression":"rar"}"#,
            r#"{"path":"/a","ack":"soon"}"#,
            r#"{"path":"/a","columns":["x"]}"#,
            r#"{"path":"/a","offset":1}"#,
            r#"{"path":"/a","kind":"file","session":"x"}"#,
            r#"{"path":"/a","kind":"file","mode":"overwrite","offset":1}"#,
            r#"{"path":"/a","task":{"job":"j"}}"#,
            r#"{"path":"/a","task":{"task":1,"retry":2}}"#,
        ] {
            assert!(WriteCommand::from_descriptor(&cmd(json)).is_err(), "{json}");
        }
        assert!(ReadCommand::from_descriptor(&FlightDescriptor::default()).is_err());
        assert!(ReadCommand::from_descriptor(&FlightDescriptor::new_cmd(b"{\"path\": \"/\xff\"}".to_vec())).is_err());
        assert!(ReadCommand::from_descriptor(&FlightDescriptor::new_cmd(vec![b'{'; COMMAND_BYTES_MAX + 1])).is_err());
        assert!(ReadCommand::from_descriptor(&FlightDescriptor::new_cmd("{\"path\":".repeat(10_000))).is_err());
    }

    proptest! {
        #[test]
        fn no_command_panics(json in "[{]\"path\":\"/a\",[\"a-z:0-9{}\\[\\],]{0,60}") {
            let _ = ReadCommand::from_descriptor(&cmd(&json));
            let _ = WriteCommand::from_descriptor(&cmd(&json));
        }
    }
}
