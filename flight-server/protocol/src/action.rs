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
use std::collections::BTreeMap;

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
    "stat" Stat(At) "{path} one entry, like those of list, with cached_bytes and attributes (extended ones, `user.NAME` by NAME)"
    "rename" Rename(Rename) "{from, to, replace, parents} renames a file or directory in one step; `replace` also over a file or an empty directory"
    "delete" Delete(Delete) "{path, recursive} deletes a file, an empty directory, or with `recursive` a whole tree"
    "truncate" Truncate(Truncate) "{path, size} cuts a file or extends it with zeros"
    "begin" Begin(Begin) "{path, mode, format, compression, ack, timeout, job, token} begins a session that stages parts of a dataset: {session}; repeated with its token the same one"
    "publish" Publish(Publish) "{session, with, tasks, success_file} makes the session's parts the dataset's next version: {version}; twice gives the same. `with`: up to 999 sessions of other datasets, each SESSION or {session, tasks}, whose versions appear in the same instant, all or none: {version, versions}, a list of {path, session, version} in the order of the sessions"
    "abort" Abort(Session) "{session} ends a session; nothing of it is ever visible"
    "versions" Versions(At) "{path} one result per version kept, oldest first: {version, session, published, rows, bytes, parts}"
    "persist" Persist(Wait) "{path, wait} brings what is under the path to the under-store now; with `wait` answers when it is there: {state}"
    "wait_persisted" WaitPersisted(WaitPersisted) "{path, timeout} waits until everything under the path, deletes and renames too, is in the under-store: {state}"
    "persist_resolve" PersistResolve(PersistResolve) "{path, how} decides the conflicts at a path and below: keep-mine or keep-theirs; or tries them, and what is blocked, again now: retry"
    "status" Status(Empty) "{} what is dirty, cached, queued, blocked and in conflict, the mounts, the data folders, the ack level and the version"
    "under_add" UnderAdd(UnderAdd) "{path, url, read_only} binds an under-store to a path"
    "under_list" UnderList(Empty) "{} one result per mount: {path, url, read_only, state, synced, sync_error, queued, dirty_bytes, lag_seconds}"
    "under_remove" UnderRemove(UnderRemove) "{path, drain} takes a mount away; refused while dirty data lies under it, unless `drain` waits until it is persisted"
    "mount" Mount(MountFolder) "{dir, mode, read_only} mounts the names at a folder of the server's machine; mode pipeline or dataset"
    "unmount" Unmount(UnmountFolder) "{dir} places what is changed there, and unmounts it"
    "load" Load(Load) "{path, paths, parallel, verify, wait, cancel} brings what is under the path, or the paths, into the cache; status shows how far it is: {job, files, bytes, full, verified_bytes, damaged_bytes}; `verify` reads back what is held, and fetches anew what is damaged; `cancel` ends the loads of the path instead"
    "pin" Pin(PinPath) "{path, wait, until} sets the policy `pin` at the path, for ever or until a time or for a span, and loads what is under it: {job, files, bytes, full}"
    "unpin" Unpin(Wait) "{path, wait} lets what is under the path be evicted again"
    "free" Free(Wait) "{path, wait} drops clean data under the path from the cache; dirty and pinned data stays: {freed_bytes, dirty_bytes, pinned_bytes}"
    "sync" Sync(Wait) "{path, wait} looks for changes made to the under-store by others, down the tree"
    "policy_set" PolicySet(PolicySet) "{path, KEY: value, …} sets policies for a path and what is under it; null takes one away"
    "policy_get" PolicyGet(At) "{path} the policies set at this very path, as one object"
    "policy_list" PolicyList(PolicyList) "{path} one result per path at or under the path at which something is set, by path: {path, set}; without `path` all of them"
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

/// `stat`, `versions`, `policy_get`, `policy_explain`: a path and nothing else.
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
    /// Idempotency key: repeated with it, the answer is the session that was begun before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// `publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The session.
    pub session: String,
    /// Sessions of other datasets that are published in the same instant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<With>,
    /// The session's attempts that count; when left out the first of a task to end well does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Task>>,
    /// Also writes `_SUCCESS`, beside each version.
    #[serde(default)]
    pub success_file: bool,
}

/// A session that is published with another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`with` is a list of SESSION or {session, tasks}")]
pub enum With {
    /// The first attempt of a task to end well counts.
    Session(String),
    /// These attempts count.
    Tasks(WithTasks),
}

/// A session, and those of its attempts that count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithTasks {
    /// The session.
    pub session: String,
    /// The attempts that count; when left out the first of a task to end well does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<Task>>,
}

/// `abort`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The session.
    pub session: String,
}

/// `load`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The file, or the directory with everything under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WirePath>,
    /// More of them, as one job. What is not there is passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<WirePath>,
    /// Files fetched at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// What the cache holds already is read back and compared with its checksums; what is damaged is fetched anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// Answers only when it is done.
    #[serde(default)]
    pub wait: bool,
    /// Ends the loads of the path that are under way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
}

/// `persist`, `pin`, `unpin`, `free`, `sync`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The file, or the directory with everything under it.
    pub path: WirePath,
    /// Answers only when it is done.
    #[serde(default)]
    pub wait: bool,
}

/// `pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinPath {
    /// The file, or the directory with everything under it.
    pub path: WirePath,
    /// Answers only when it is loaded.
    #[serde(default)]
    pub wait: bool,
    /// Until when: a time in RFC 3339, or a span from now on as in `7d`. None: until it is unpinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
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
    /// The path in conflict, or blocked; or one above.
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
    /// `file:///…`, `s3://bucket/prefix?endpoint=…`, `gs://…`, `az://…`, `hdfs://namenode:port/folder`, `https://…`; without secrets.
    pub url: String,
    /// Refuses writes under the path.
    #[serde(default)]
    pub read_only: bool,
}

/// `under_remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnderRemove {
    /// The path it is bound to.
    pub path: WirePath,
    /// Waits until everything is in the store; meanwhile the mount takes no more changes.
    #[serde(default)]
    pub drain: bool,
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
    "sync_depth",
    "ttl",
    "ttl_action",
    "quota_bytes",
    "quota_files",
    "user_quota_bytes",
    "user_quota_files",
    "evict",
    "pin",
    "replicas",
    "write",
    "ack",
    "persist",
    "persist_format",
    "parquet_compression",
    "parquet_row_group",
    "parquet_statistics",
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
    /// Of a file that is not being written. No other content that the path ever leads to has the same; this content may get another one,
    /// when nothing but the under-store has it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// How much of it the cache holds; told by `stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_bytes: Option<u64>,
    /// Extended attributes `user.NAME` whose names and values are UTF-8; told by `stat`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// Result of `begin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The session's id.
    pub session: String,
}

/// Result of `publish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The version it made, of the session that was named first.
    pub version: u64,
    /// The versions of all sessions, in the order in which they were named; left out where there was one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<PublishedVersion>,
}

/// A version that a `publish` made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedVersion {
    /// The dataset.
    pub path: WirePath,
    /// The session whose parts it has.
    pub session: String,
    /// Its number.
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
    /// Left, because they are pinned.
    #[serde(default)]
    pub pinned_bytes: u64,
}

/// Result of `load` and `pin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Bytes under the path that the cache now holds; 0 when it was not waited for.
    pub bytes: u64,
    /// Their files.
    #[serde(default)]
    pub files: u64,
    /// The job, as `status` names it.
    #[serde(default)]
    pub job: u64,
    /// The cache had no room for more.
    #[serde(default)]
    pub full: bool,
    /// With `verify`: bytes that were held and are what was written.
    #[serde(default)]
    pub verified_bytes: u64,
    /// With `verify`: bytes that were held and damaged. They are not held any more, or were fetched anew.
    #[serde(default)]
    pub damaged_bytes: u64,
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
    /// Bytes that were acknowledged and that no under-store has: `dirty_bytes`, and what was acknowledged of what is still being written.
    #[serde(default)]
    pub at_risk_bytes: u64,
    /// Bytes brought to under-stores since the start.
    pub persisted_bytes: u64,
    /// Bytes in the cache that the under-store has too.
    pub cached_bytes: u64,
    /// Pieces of work that wait.
    pub queued: u64,
    /// Pieces of work that a policy keeps back.
    #[serde(default)]
    pub withheld: u64,
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
    /// Loads that are under way, and those that ended lately.
    #[serde(default)]
    pub loads: Vec<LoadJob>,
    /// Datasets of which parts went to the under-store as they are since the start, although the policy `persist_format` is another one.
    #[serde(default)]
    pub unconverted: Vec<Unconverted>,
    /// The data folders.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// The tiers that are faster than the data folders, the fastest first.
    #[serde(default)]
    pub tiers: Vec<Tier>,
}

/// A tier of the server that is faster than its data folders: copies of clean blocks that are read often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// Its name, as the policy `tier` has it.
    pub name: String,
    /// Where it is.
    pub folder: String,
    /// Most bytes of copies in it.
    pub size_bytes: u64,
    /// Bytes of copies in it.
    pub used_bytes: u64,
    /// Reads of blocks since the start that found the copy in it.
    pub hits: u64,
}

/// A data folder of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Where it is.
    pub folder: String,
    /// Its tier.
    pub tier: String,
    /// Size of its file system; 0 when that does not answer.
    pub total_bytes: u64,
    /// What is left there.
    pub free_bytes: u64,
    /// What the cache has there.
    pub used_bytes: u64,
}

/// Parts of a dataset that went to the under-store as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconverted {
    /// The dataset.
    pub path: String,
    /// Why, of the last one.
    pub reason: String,
    /// When that was, RFC 3339 in UTC.
    pub since: String,
    /// How many.
    pub parts: u64,
}

/// A load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadJob {
    /// Its number.
    pub job: u64,
    /// Its first path.
    pub path: String,
    /// How many paths it has.
    pub paths: u64,
    /// When it began, RFC 3339 in UTC.
    pub since: String,
    /// `running`, `loaded`, `full`, `cancelled`, or `failed: ` and why.
    pub state: String,
    /// Files that are loaded.
    pub files: u64,
    /// Files that were found.
    pub files_total: u64,
    /// Bytes that are loaded.
    pub bytes: u64,
    /// Bytes of the files that were found.
    pub bytes_total: u64,
    /// Whether all files are found, so that the totals are.
    pub found_all: bool,
    /// Of a load that verifies: bytes that were held and are what was written.
    #[serde(default)]
    pub verified_bytes: u64,
    /// Of a load that verifies: bytes that were held and damaged.
    #[serde(default)]
    pub damaged_bytes: u64,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// The path it is bound to.
    pub path: WirePath,
    /// Its URL, without secrets.
    pub url: String,
    /// Refuses writes.
    #[serde(default)]
    pub read_only: bool,
    /// `ready`, or why not.
    pub state: String,
    /// When the last comparison with what others may have changed ended well, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<String>,
    /// Why the one after that failed; it is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_error: Option<String>,
    /// Pieces of work for it that wait.
    #[serde(default)]
    pub queued: u64,
    /// Bytes of its files that exist only in the cache.
    #[serde(default)]
    pub dirty_bytes: u64,
    /// Age of the oldest change that it has yet to get, seconds; 0 when there is none.
    #[serde(default)]
    pub lag_seconds: f64,
}

/// `policy_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyList {
    /// Only what is set here and below; none: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WirePath>,
}

/// A result of `policy_list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyAt {
    /// The path.
    pub path: WirePath,
    /// Keys and values that are set at this very path.
    pub set: Map<String, Value>,
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
                r#"{"path":"/d","mode":"overwrite","format":"parquet","compression":"lz4","ack":"local","timeout":"10min","job":"j","token":"t"}"#,
            ),
            (
                "publish",
                r#"{"session":"s","tasks":[{"job":"j","stage":0,"task":1,"attempt":2}],"success_file":true}"#,
            ),
            (
                "publish",
                r#"{"session":"s","with":["t",{"session":"u","tasks":[{"job":"j","stage":0,"task":1,"attempt":2}]}],"success_file":false}"#,
            ),
            ("abort", r#"{"session":"s"}"#),
            ("versions", r#"{"path":"/d"}"#),
            ("persist", r#"{"path":"/d","wait":true}"#),
            ("wait_persisted", r#"{"path":"/d","timeout":"30s"}"#),
            ("persist_resolve", r#"{"path":"/d","how":"keep-mine"}"#),
            ("status", "{}"),
            ("under_add", r#"{"path":"/d","url":"file:///x","read_only":true}"#),
            ("under_list", "{}"),
            ("under_remove", r#"{"path":"/d","drain":true}"#),
            ("mount", r#"{"dir":"/mnt/x","mode":"dataset","read_only":true}"#),
            ("unmount", r#"{"dir":"/mnt/x"}"#),
            ("load", r#"{"path":"/d","wait":false}"#),
            (
                "load",
                r#"{"paths":["/d","/e"],"parallel":8,"verify":true,"wait":true,"cancel":true}"#,
            ),
            ("pin", r#"{"path":"/d","wait":false}"#),
            ("unpin", r#"{"path":"/d","wait":false}"#),
            ("free", r#"{"path":"/d","wait":false}"#),
            ("sync", r#"{"path":"/d","wait":true}"#),
            ("policy_set", r#"{"path":"/d","pin":true,"ttl":null}"#),
            ("policy_get", r#"{"path":"/d"}"#),
            ("policy_list", r#"{"path":"/d"}"#),
            ("policy_list", "{}"),
            ("policy_explain", r#"{"path":"/d"}"#),
        ] {
            let request = Request::parse(name, body.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(request.name(), name);
            let told: Value = serde_json::from_slice(&request.to_body()).unwrap();
            assert_eq!(told, serde_json::from_str::<Value>(body).unwrap(), "{name}");
        }
        assert_eq!(ACTIONS.len(), 28);
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
