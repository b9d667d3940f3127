//! DoAction: every name with its body, its results and its line in ListActions.
//!
//! A body is one JSON object (an empty one may be left out), unknown keys are refused; each result is one JSON object. An
//! action that has nothing to tell answers one [`Done`]. Results gain keys over time, so clients ignore those they do not know.

use crate::{
    Invalid,
    command::{Compression, Format, Mode, Task, parse_object},
    level::AckLevel,
    path::WirePath,
    span::Span,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One line of ListActions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionDoc {
    /// The action's type.
    pub name: &'static str,
    /// Body, results, and what it does.
    pub description: &'static str,
}

/// Why a request for an action is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is no such action. Doors answer UNIMPLEMENTED.
    #[error("there is no action {0:?}; ListActions names all")]
    Unknown(String),
    /// The body is wrong. Doors answer INVALID_ARGUMENT.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Makes [`Request`], [`ACTIONS`] and the dispatch from name to body out of one table.
macro_rules! actions {
    ($($name:literal $variant:ident($body:ty) $description:literal)*) => {
        /// A request for an action, understood.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $(#[doc = $description] $variant($body),)*
        }

        /// All actions.
        pub const ACTIONS: &[ActionDoc] = &[$(ActionDoc { name: $name, description: $description }),*];

        impl Request {
            /// Reads the body of the action `name`.
            pub fn parse(name: &str, body: &[u8]) -> Result<Self, ActionError> {
                let body = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
                match name {
                    $($name => Ok(Self::$variant(parse_object(concat!("body of ", $name), body)?)),)*
                    _ => Err(ActionError::Unknown(name.chars().take(80).collect())),
                }
            }

            /// The action's type.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// The body that says this.
            pub fn to_body(&self) -> Vec<u8> {
                match self {
                    $(Self::$variant(body) => serde_json::to_vec(body).expect("plain data has a JSON form"),)*
                }
            }
        }
    };
}

actions! {
    "mkdir" Mkdir(Mkdir) "{path, parents} makes a directory, with `parents` also those above it"
    "list" List(List) "{path, recursive, after, limit} one result per entry in the order of their paths: {path, kind, size, mtime, mode, state, version, etag}; `after` is the last path already seen"
    "stat" Stat(At) "{path} one entry, like those of list, with cached_bytes"
    "rename" Rename(Rename) "{from, to, replace, parents} renames a file or directory in one step; `replace` also over a file or an empty directory"
    "delete" Delete(Delete) "{path, recursive} deletes a file, an empty directory, or with `recursive` a whole tree"
    "truncate" Truncate(Truncate) "{path, size} cuts a file or extends it with zeros"
    "begin" Begin(Begin) "{path, mode, format, compression, ack, timeout, job} begins a session that stages parts of a dataset: {session}"
    "publish" Publish(Publish) "{session, tasks, success_file} makes the session's parts the dataset's next version: {version}; twice gives the same"
    "abort" Abort(Session) "{session} ends a session; nothing of it is ever visible"
    "versions" Versions(At) "{path} one result per version kept, oldest first: {version, session, published, rows, bytes, parts}"
    "persist" Persist(Wait) "{path, wait} brings what is under the path to the under-store now; with `wait` answers when it is there: {state}"
    "wait_persisted" WaitPersisted(WaitPersisted) "{path, timeout} waits until everything under the path, deletes and renames too, is in the under-store: {state}"
    "persist_resolve" PersistResolve(PersistResolve) "{path, how} decides a conflict or a blocked item: retry, keep-mine or keep-theirs"
    "status" Status(Empty) "{} what is dirty, cached, queued, blocked and in conflict, the mounts, the ack level and the version"
    "under_add" UnderAdd(UnderAdd) "{path, url} binds an under-store to a path"
    "under_list" UnderList(Empty) "{} one result per mount: {path, url, state}"
    "under_remove" UnderRemove(At) "{path} takes a mount away; refused while dirty data lies under it"
    "mount" Mount(MountFolder) "{dir, mode, read_only} mounts the names at a folder of the server's machine; mode pipeline or dataset"
    "unmount" Unmount(UnmountFolder) "{dir} places what is changed there, and unmounts it"
    "load" Load(Wait) "{path, wait} brings what is under the path into the cache: {bytes}"
    "pin" Pin(Wait) "{path, wait} loads and keeps what is under the path in the cache"
    "unpin" Unpin(Wait) "{path, wait} lets what is under the path be evicted again"
    "free" Free(Wait) "{path, wait} drops clean data under the path from the cache: {freed_bytes, dirty_bytes}"
    "sync" Sync(Wait) "{path, wait} looks for changes made to the under-store by others, down the tree"
    "policy_set" PolicySet(PolicySet) "{path, KEY: value, …} sets policies for a path and what is under it; null takes one away"
    "policy_get" PolicyGet(At) "{path} the policies set at this very path, as one object"
    "policy_explain" PolicyExplain(At) "{path} one result per key: {key, value, from}, where `from` is the path it comes from or \"default\""
}

/// `mkdir`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mkdir {
    /// The new directory.
    pub path: WirePath,
    /// Also those above it; then one that exists is no error.
    #[serde(default)]
    pub parents: bool,
}

/// `list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The directory.
    pub path: WirePath,
    /// Everything under it, not only its own entries.
    #[serde(default)]
    pub recursive: bool,
    /// Only entries after this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<WirePath>,
    /// At most so many entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// `stat`, `versions`, `under_remove`, `policy_get`, `policy_explain`: a path and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// The path.
    pub path: WirePath,
}

/// `rename`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// What is there now.
    pub from: WirePath,
    /// Where it goes.
    pub to: WirePath,
    /// Also over a file or an empty directory.
    #[serde(default)]
    pub replace: bool,
    /// Makes the directories above the target.
    #[serde(default)]
    pub parents: bool,
}

/// `delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// What goes.
    pub path: WirePath,
    /// With everything under it.
    #[serde(default)]
    pub recursive: bool,
}

/// `truncate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truncate {
    /// The file.
    pub path: WirePath,
    /// Its new size in bytes.
    pub size: u64,
}

/// `begin`. The keys hold for every DoPut of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// The dataset.
    pub path: WirePath,
    /// What the publish does with what is there; append when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How parts are stored; Arrow when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How buffers are compressed; none when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// The ack level; the server's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckLevel>,
    /// Without a writer for so long the session is aborted; ten minutes when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The job's name, for whoever looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

/// `publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The session.
    pub session: String,
    /// The attempts that count; when left out the first of a task to end well does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Task>>,
    /// Also writes `_SUCCESS`.
    #[serde(default)]
    pub success_file: bool,
}

/// `abort`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The session.
    pub session: String,
}

/// `persist`, `load`, `pin`, `unpin`, `free`, `sync`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The file, or the directory with everything under it.
    pub path: WirePath,
    /// Answers only when it is done.
    #[serde(default)]
    pub wait: bool,
}

/// `wait_persisted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitPersisted {
    /// The file, or the directory with everything under it.
    pub path: WirePath,
    /// DEADLINE_EXCEEDED after so long; 30 s when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// `persist_resolve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersistResolve {
    /// The path in conflict, or blocked.
    pub path: WirePath,
    /// What to do.
    pub how: How,
}

/// What to do with an item that waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Try again at once.
    Retry,
    /// What the cache has goes over what is there.
    KeepMine,
    /// What is there stays; the cache's content is dropped.
    KeepTheirs,
}

/// A body without keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// `under_add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnderAdd {
    /// The path it is bound to.
    pub path: WirePath,
    /// `file:///…`, `s3://bucket/prefix?endpoint=…`, `hdfs://namenode:port/folder`; without secrets.
    pub url: String,
}

/// `mount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountFolder {
    /// The folder, by its full name on the server's machine.
    pub dir: String,
    /// What it is for.
    #[serde(default)]
    pub mode: MountMode,
    /// Refuses changes.
    #[serde(default)]
    pub read_only: bool,
}

/// What a mount is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountMode {
    /// Programs read and write.
    #[default]
    Pipeline,
    /// Training reads what is published.
    Dataset,
}

/// `unmount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmountFolder {
    /// The folder, by its full name on the server's machine.
    pub dir: String,
}

/// Keys of policies, as [`PolicySet`] takes them.
pub const POLICY_KEYS: &[&str] = &[
    "revalidate",
    "revalidate_ttl",
    "sync_interval",
    "ttl",
    "ttl_action",
    "quota_bytes",
    "quota_files",
    "evict",
    "pin",
    "replicas",
    "write",
    "ack",
    "persist",
    "persist_format",
    "pack",
    "versions_kept",
    "tier",
];

/// `policy_set`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct PolicySet {
    /// The path it is set at.
    pub path: WirePath,
    /// Key to value, of [`POLICY_KEYS`]; `None` takes the key away.
    pub set: Vec<(String, Option<Value>)>,
}

impl TryFrom<Map<String, Value>> for PolicySet {
    type Error = Invalid;

    fn try_from(mut map: Map<String, Value>) -> Result<Self, Invalid> {
        let path = match map.remove("path") {
            Some(Value::String(text)) => WirePath::parse(&text)?,
            Some(other) => return Err(Invalid(format!("`path` is {other}, not an absolute path"))),
            None => return Err(Invalid::new("missing field `path`")),
        };
        if map.is_empty() {
            return Err(Invalid(format!(
                "no policy is named; keys are {}",
                POLICY_KEYS.join(", ")
            )));
        }
        let set = map.into_iter().map(|(key, value)| {
            let known = POLICY_KEYS.contains(&key.as_str());
            let refuse = || Invalid(format!("{key:?} is no policy; keys are {}", POLICY_KEYS.join(", ")));
            known
                .then(|| (key.clone(), Some(value).filter(|v| !v.is_null())))
                .ok_or_else(refuse)
        });
        Ok(Self {
            path,
            set: set.collect::<Result<_, _>>()?,
        })
    }
}

impl From<PolicySet> for Map<String, Value> {
    fn from(set: PolicySet) -> Self {
        let keys = set
            .set
            .into_iter()
            .map(|(key, value)| (key, value.unwrap_or(Value::Null)));
        keys.chain([("path".to_owned(), Value::String(set.path.to_string()))])
            .collect()
    }
}

/// The result of an action that has nothing to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
}

/// A result of `list` and `stat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is.
    pub path: WirePath,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of a file, else 0.
    pub size: u64,
    /// Last change of the content, RFC 3339 in UTC.
    pub mtime: String,
    /// Permission bits.
    pub mode: u32,
    /// `open`, `sealed`, `persisted` or `clean`.
    pub state: String,
    /// The head version of a dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Changes with the content of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// How much of it the cache holds; told by `stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_bytes: Option<u64>,
}

/// Result of `begin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The session's id.
    pub session: String,
}

/// Result of `publish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The version it made.
    pub version: u64,
}

/// A result of `versions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number.
    pub version: u64,
    /// The session that made it.
    #[serde(default)]
    pub session: Option<String>,
    /// When, RFC 3339 in UTC.
    pub published: String,
    /// Rows in it.
    pub rows: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Parts in it.
    pub parts: u64,
}

/// Result of `persist` with `wait`, and of `wait_persisted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistState {
    /// `persisted`, or where it stands.
    pub state: String,
}

/// Result of `free`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// Dropped from the cache.
    pub freed_bytes: u64,
    /// Left, because the cache holds the only copy.
    pub dirty_bytes: u64,
}

/// Result of `load` and `pin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Bytes under the path that the cache now holds; 0 when it was not waited for.
    pub bytes: u64,
}

/// Result of `status`, also `forebay status --json` and `/api/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Bytes of which the cache holds the only copy.
    pub dirty_bytes: u64,
    /// Files of which the cache holds the only copy.
    pub dirty_files: u64,
    /// Age of the oldest of them, seconds.
    pub oldest_dirty_seconds: f64,
    /// Bytes brought to under-stores since the start.
    pub persisted_bytes: u64,
    /// Bytes in the cache that the under-store has too.
    pub cached_bytes: u64,
    /// Pieces of work that wait.
    pub queued: u64,
    /// Pieces of work under way.
    pub uploading: u64,
    /// What cannot go.
    pub blocked: Vec<Blocked>,
    /// What waits for a person.
    pub conflicts: Vec<Conflict>,
    /// The under-stores.
    pub mounts: Vec<Mount>,
    /// The ack level that a write gets when it asks for none.
    pub ack: String,
    /// The program's version.
    pub version: String,
}

/// An item that cannot go to the under-store for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The path.
    pub path: String,
    /// What the under-store says.
    pub reason: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
}

/// An item whose target was changed by someone else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The path.
    pub path: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// What happened.
    pub reason: String,
    /// What the cache has.
    #[serde(default)]
    pub mine: Option<String>,
    /// What is there.
    #[serde(default)]
    pub theirs: Option<String>,
}

/// An under-store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The path it is bound to.
    pub path: WirePath,
    /// Its URL, without secrets.
    pub url: String,
    /// `ready`, or why not.
    pub state: String,
}

/// A result of `policy_explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The policy.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// The path it is set at, or `default`.
    pub from: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> WirePath {
        WirePath::parse(text).unwrap()
    }

    #[test]
    fn every_documented_body_is_read_and_written() {
        for (name, body) in [
            ("mkdir", r#"{"path":"/d","parents":true}"#),
            ("list", r#"{"path":"/d","recursive":true,"after":"/d/a","limit":10}"#),
            ("stat", r#"{"path":"/d"}"#),
            ("rename", r#"{"from":"/a","to":"/b","replace":true,"parents":true}"#),
            ("delete", r#"{"path":"/d","recursive":true}"#),
            ("truncate", r#"{"path":"/d","size":4}"#),
            (
                "begin",
                r#"{"path":"/d","mode":"overwrite","format":"parquet","compression":"lz4","ack":"local","timeout":"10min","job":"j"}"#,
            ),
            (
                "publish",
                r#"{"session":"s","tasks":[{"job":"j","stage":0,"task":1,"attempt":2}],"success_file":true}"#,
            ),
            ("abort", r#"{"session":"s"}"#),
            ("versions", r#"{"path":"/d"}"#),
            ("persist", r#"{"path":"/d","wait":true}"#),
            ("wait_persisted", r#"{"path":"/d","timeout":"30s"}"#),
            ("persist_resolve", r#"{"path":"/d","how":"keep-mine"}"#),
            ("status", "{}"),
            ("under_add", r#"{"path":"/d","url":"file:///x"}"#),
            ("under_list", "{}"),
            ("under_remove", r#"{"path":"/d"}"#),
            ("mount", r#"{"dir":"/mnt/x","mode":"dataset","read_only":true}"#),
            ("unmount", r#"{"dir":"/mnt/x"}"#),
            ("load", r#"{"path":"/d","wait":false}"#),
            ("pin", r#"{"path":"/d","wait":false}"#),
            ("unpin", r#"{"path":"/d","wait":false}"#),
            ("free", r#"{"path":"/d","wait":false}"#),
            ("sync", r#"{"path":"/d","wait":true}"#),
            ("policy_set", r#"{"path":"/d","pin":true,"ttl":null}"#),
            ("policy_get", r#"{"path":"/d"}"#),
            ("policy_explain", r#"{"path":"/d"}"#),
        ] {
            let request = Request::parse(name, body.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(request.name(), name);
            let told: Value = serde_json::from_slice(&request.to_body()).unwrap();
            assert_eq!(told, serde_json::from_str::<Value>(body).unwrap(), "{name}");
        }
        assert_eq!(ACTIONS.len(), 27);
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(Request::parse("status", b""), Ok(Request::Status(Empty {})));
        assert!(matches!(Request::parse("stat", b" "), Err(ActionError::Invalid(_))));
    }

    #[test]
    fn wrong_bodies_and_names_are_told_apart() {
        assert!(matches!(
            Request::parse("frobnicate", b"{}"),
            Err(ActionError::Unknown(_))
        ));
        for body in [
            &b"{path"[..],
            b"[]",
            b"{}",
            b"{\"path\": 7}",
            b"{\"path\": \"/\xff\"}",
            b"[\"/a\"]",
            b"{\"path\":\"/a\",\"x\":1}",
        ] {
            assert!(
                matches!(Request::parse("stat", body), Err(ActionError::Invalid(_))),
                "{body:?}"
            );
        }
        for body in [
            r#"{"path":"/a"}"#,
            r#"{"path":"/a","colour":1}"#,
            r#"{"pin":true}"#,
            r#"{"path":1,"pin":true}"#,
        ] {
            assert!(
                matches!(
                    Request::parse("policy_set", body.as_bytes()),
                    Err(ActionError::Invalid(_))
                ),
                "{body}"
            );
        }
    }

    #[test]
    fn an_entry_reads_with_keys_it_does_not_know() {
        let json = r#"{"path":"/%FF","kind":"file","size":1,"mtime":"2026-01-01T00:00:00Z","mode":420,"state":"sealed","news":1}"#;
        let entry: Entry = serde_json::from_str(json).unwrap();
        assert_eq!((entry.path, entry.kind), (path("/%FF"), EntryKind::File));
    }
}
