//! What the engine keeps in the metastore beside the namespace's rows, and what it writes into an inode's `content`.
//!
//! All rows are postcard behind one format byte. The persist queue holds *work*, in the order of its sequence number:
//! written in the same transaction as the change that made it necessary, deleted when the under-store shows it.

use crate::{Error, Result, owners::OwnerKind};
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use forebay_metastore::Key;
use forebay_segment::Layout;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The format written today. Another one was written by a newer version and is refused.
const FORMAT: u8 = 1;

/// A row as stored.
pub fn encode<T: Serialize>(row: &T) -> Bytes {
    let out = postcard::to_extend(row, vec![FORMAT]).expect("a row in memory always has an encoding");
    out.into()
}

/// A stored row. DataLoss when it makes no sense to this version.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    match value.split_first() {
        Some((&FORMAT, rest)) => {
            postcard::from_bytes(rest).map_err(|e| Error::data_loss(format!("metastore: a row can not be read: {e}")))
        }
        Some((format, _)) => Err(Error::data_loss(format!(
            "metastore: a row of format {format}, and this version reads {FORMAT}; start the version that wrote it"
        ))),
        None => Err(Error::data_loss("metastore: an empty row")),
    }
}

/// Content of a file's inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Being written: the bytes are in the unsealed stream (inode, generation). Only parts of sessions have such rows; a plain
    /// file's row is first written, or replaced, at its commit.
    Open,
    /// Sealed and dirty: the only copy is here. `work` is its place in the persist queue, `None` when no mount covers it.
    Sealed {
        /// Where the bytes lie.
        layout: Layout,
        /// Sequence number of its `Work::Put`.
        work: Option<u64>,
        /// CRC32C of the whole content.
        crc: u32,
    },
    /// In the under-store. `layout`: also still here, evictable.
    Persisted {
        /// Where it lies.
        at: StoreAt,
        /// Local copy, when there is one.
        layout: Option<Layout>,
        /// A pending move to the file's present name (after a rename), in the persist queue.
        work: Option<u64>,
    },
}

impl Content {
    /// As an inode's `content`.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// From an inode's `content`.
    pub fn decode(content: &[u8]) -> Result<Self> {
        decode(content)
    }

    /// Where its local bytes lie, when they are here and sealed.
    pub fn layout(&self) -> Option<&Layout> {
        match self {
            Content::Open => None,
            Content::Sealed { layout, .. } => Some(layout),
            Content::Persisted { layout, .. } => layout.as_ref(),
        }
    }
}

/// An object in an under-store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAt {
    /// The mount's id.
    pub mount: u32,
    /// The key under the mount's URL.
    pub key: String,
    /// Validator when it was last seen to be ours.
    pub validator: String,
}

/// One piece of the persist queue. A change of what waits already goes into the same row: it knows what may be in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What is to become true in the under-store.
    pub what: WorkKind,
    /// When the change was acknowledged, microseconds since the epoch.
    pub since: i64,
    /// Where it stands.
    pub state: WorkState,
    /// Keys of the store where something is, or may be, that this work answers for. When it is done the content is at its
    /// target, and nothing of ours at any other of these. A key belongs to at most one piece of work.
    pub places: Vec<Place>,
}

/// What is to become true in the under-store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkKind {
    /// The content of this inode at this generation lies under its present name (resolved when the work is claimed and again
    /// in the transaction that records it). Void when the inode is gone, has another generation, or has no name: then the
    /// places are cleared.
    Put {
        /// The inode.
        ino: u64,
        /// Its generation.
        generation: u32,
    },
    /// Nothing of ours is at the places.
    Clear,
    /// The directory exists (empty directories are markers on an object store).
    MakeDir {
        /// The directory's inode.
        ino: u64,
    },
    /// What lies in the directory moves to the directory's present path, file by file: each gets work of its own. Then the
    /// directory shows the base at its own path, and the places are pruned.
    MoveTree {
        /// The directory's inode.
        ino: u64,
    },
}

/// A key of an under-store for which a piece of work answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The mount's id.
    pub mount: u32,
    /// The key.
    pub key: String,
    /// How much of it.
    pub kind: PlaceKind,
    /// Validator of what is known to be there; `None`: nothing.
    pub holds: Option<String>,
    /// Token of an upload of ours that may have got there: written before its first byte leaves.
    pub token: Option<String>,
    /// The upload in parts, once started.
    pub upload: Option<String>,
}

/// How much of a key a [`Place`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlaceKind {
    /// The object.
    File,
    /// The directory's markers and empty directories below; objects there are somebody else's.
    Prune,
    /// The directory with everything that was below when it was removed.
    Tree,
    /// The data files that were directly in the directory when it was overwritten while the store was away.
    Overwritten,
}

/// Where a piece of work stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkState {
    /// Waits for its turn.
    #[default]
    Queued,
    /// Retrying alone will not help; tried again at least once a minute all the same.
    Blocked {
        /// The store's answer.
        reason: String,
        /// Since when, microseconds since the epoch.
        since: i64,
    },
    /// The target was changed by someone else; waits for a person.
    Conflict {
        /// What happened.
        reason: String,
        /// Since when.
        since: i64,
        /// The key.
        key: String,
        /// Validator of what is there now; `None`: nothing.
        theirs: Option<String>,
        /// What is there, for people.
        seen: String,
    },
}

/// A part of an upload that the store has acknowledged, so that a later life need not send it again. Only a hint: what it says holds
/// for this token and with a place that names its upload, and without it the part is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartNote {
    /// Token of the upload, which stands for the content: inode and generation.
    pub token: String,
    /// Bytes of each of its parts but the last.
    pub part_bytes: u64,
    /// The store's name for the part.
    pub id: String,
}

/// What the keys of an upload's notes begin with.
pub fn part_notes_prefix(mount: u32, upload: &str) -> Key {
    let mut key = vec![table::UPLOAD];
    key.extend_from_slice(&mount.to_be_bytes());
    key.extend_from_slice(upload.as_bytes());
    key.push(0);
    key.into()
}

/// Key of the note of one part.
pub fn part_note_key(mount: u32, upload: &str, index: u32) -> Key {
    [&part_notes_prefix(mount, upload)[..], &index.to_be_bytes()]
        .concat()
        .into()
}

/// Mount, upload and index of the part that a key of a note names.
pub fn part_noted(key: &[u8]) -> Option<(u32, &str, u32)> {
    let (table, rest) = key.split_first()?;
    let (mount, rest) = rest.split_first_chunk()?;
    let (rest, index) = rest.split_last_chunk()?;
    let (end, upload) = rest.split_last()?;
    let upload = std::str::from_utf8(upload).ok()?;
    (*table == table::UPLOAD && *end == 0).then_some((u32::from_be_bytes(*mount), upload, u32::from_be_bytes(*index)))
}

/// A draft that was synced: what a crash leaves of it becomes a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftRow {
    /// The inode whose content it becomes. The stream's own number where the file had no content before.
    pub over: u64,
}

/// Key of the row of the draft in the stream of this number.
pub fn draft_key(stream: u64) -> Key {
    let mut key = vec![table::DRAFT];
    key.extend_from_slice(&stream.to_be_bytes());
    key.into()
}

/// What the client's idempotency token of an earlier call answers. Pruned by age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// What the token belongs to (a path, a session): compared, because the key holds only its hash.
    pub scope: Vec<u8>,
    /// When it was written, microseconds since the epoch.
    pub at: i64,
    /// The answer, encoded by whoever gave it.
    pub result: Vec<u8>,
}

/// The answer kept under a file's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWritten {
    /// The level it was acknowledged at.
    pub level: crate::AckLevel,
    /// Bytes of the whole file then.
    pub size: u64,
    /// The inode of the content; rows that were written before there was an `ino` end here.
    pub ino: Option<u64>,
}

impl FileWritten {
    /// From a token's row.
    pub fn decode(result: &[u8]) -> Result<Self> {
        let short = |_| decode(result).map(|(level, size)| Self { level, size, ino: None });
        decode(result).or_else(short)
    }
}

/// Longest token of a client, bytes.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Key of a client's token. Invalid when the token is empty or too long.
pub fn token_key(scope: &[u8], token: &str) -> Result<Key> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(Error::invalid(format!(
            "token of {} bytes; 1 to {TOKEN_BYTES_MAX} are allowed",
            token.len()
        )));
    }
    let mut key = vec![table::TOKEN];
    key.extend_from_slice(&crc_fast::checksum(CrcAlgorithm::Crc64Nvme, scope).to_be_bytes());
    key.extend_from_slice(token.as_bytes());
    Ok(key.into())
}

/// What is set at a path, as JSON texts: a row that a newer version wrote names the key that this one does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// The path.
    pub path: Vec<u8>,
    /// Keys and values.
    pub set: Vec<(String, String)>,
}

/// What was acknowledged at or under a path until then was asked for, whatever policies keep back there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedRow {
    /// The path.
    pub path: Vec<u8>,
    /// When, microseconds since the epoch.
    pub at: i64,
}

/// A load that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRow {
    /// The paths.
    pub paths: Vec<Vec<u8>>,
    /// Files fetched at once, when the caller named a number.
    pub parallel: Option<u64>,
    /// When it began, microseconds since the epoch.
    pub since: i64,
    /// What is held is read back.
    pub verify: bool,
}

impl LoadRow {
    /// From the row of a load; earlier ones say nothing of `verify`.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let short = |_| {
            decode(value).map(|(paths, parallel, since)| Self {
                paths,
                parallel,
                since,
                verify: false,
            })
        };
        decode(value).or_else(short)
    }
}

/// Bytes of a path that go into a key as they are: keys of the metastore are shorter than paths.
const KEYED_PATH_BYTES: usize = 900;

/// Key of the policies of a path.
pub fn policy_key(path: &[u8]) -> Key {
    keyed_by_path(table::POLICY, path)
}

/// Key of what was asked for at a path.
pub fn asked_key(path: &[u8]) -> Key {
    keyed_by_path(table::ASKED, path)
}

/// Key of the marker of a directory.
pub fn marker_key(mount: u32, key: &str) -> Key {
    let mut of = mount.to_be_bytes().to_vec();
    of.extend_from_slice(key.as_bytes());
    keyed_by_path(table::MARKER, &of)
}

/// A path has no NUL, so a long one is never taken for a short one.
fn keyed_by_path(table: u8, path: &[u8]) -> Key {
    let mut key = vec![table];
    match path.split_at_checked(KEYED_PATH_BYTES) {
        None => key.extend_from_slice(path),
        Some((first, _)) => {
            key.extend_from_slice(first);
            key.push(0);
            key.extend_from_slice(&crc_fast::checksum(CrcAlgorithm::Crc64Nvme, path).to_be_bytes());
        }
    }
    key.into()
}

/// Key of the number that was given to an owner's name.
pub fn owner_number_key(kind: OwnerKind, name: &str) -> Key {
    let mut key = vec![table::OWNER, kind.byte(), b'n'];
    key.extend_from_slice(name.as_bytes());
    key.into()
}

/// Key of the name to which an owner's number was given.
pub fn owner_name_key(kind: OwnerKind, number: u32) -> Key {
    let mut key = vec![table::OWNER, kind.byte(), b'i'];
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

/// Key of a row of the whole store.
pub fn meta_key(name: &str) -> Key {
    let mut key = vec![table::META];
    key.extend_from_slice(name.as_bytes());
    key.into()
}

/// A dataset's session. Under [`session_key`] while it is open, then under [`published_key`]
/// or [`aborted_key`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The dataset's path when it began.
    pub path: Vec<u8>,
    /// What its parts are like and how they meet the version before.
    pub spec: SessionKeys,
    /// When it began, microseconds since the epoch.
    pub begun: i64,
    /// How it ended.
    pub end: Option<SessionEnd>,
    /// Who owns its parts; rows that were written before there was an owner end here.
    pub owner: u32,
}

impl SessionRow {
    /// From a session's row.
    pub fn decode(row: &[u8]) -> Result<Self> {
        let short = |_| {
            decode(row).map(|(path, spec, begun, end)| Self {
                path,
                spec,
                begun,
                end,
                owner: 0,
            })
        };
        decode(row).or_else(short)
    }
}

/// Keys of `begin`, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKeys {
    /// How it meets what is there: 0 append, 1 overwrite, 2 create.
    pub mode: u8,
    /// Format of its parts.
    pub format: crate::dataset::Format,
    /// Compression, when one was asked for.
    pub compression: Option<crate::dataset::Compression>,
    /// Level.
    pub ack: crate::AckLevel,
    /// Without a writer for this long it is aborted, microseconds.
    pub timeout: u64,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEnd {
    /// Its parts became this version.
    Published {
        /// The dataset's directory.
        dir: u64,
        /// The version.
        version: u64,
    },
    /// Nothing of it is left.
    Aborted {
        /// When, microseconds since the epoch.
        at: i64,
        /// Why.
        why: String,
    },
}

/// A part of a session. It stays for as long as a kept version has the part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// The put that wrote it: numbers in the order in which puts began. A put may make several parts.
    pub put: u32,
    /// The task's attempt that wrote it.
    pub task: Option<crate::dataset::Task>,
    /// The put's idempotency key.
    pub token: Option<String>,
    /// The stream's inode number; of a published part the file's.
    pub ino: u64,
    /// Its generation.
    pub generation: u32,
    /// Format of the bytes as they lie there; of a Parquet session Arrow until the put has ended.
    pub format: crate::dataset::Format,
    /// Order among the session's tasks in which attempts ended; 0 for puts without a task.
    pub ended: u32,
    /// Where it stands. Of a published part the counts still hold; where the bytes lie is then in the inode's row.
    pub state: PartState,
}

/// Where a part stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartState {
    /// Being written: what is stable of the stream counts.
    Open,
    /// Ended.
    Sealed {
        /// Where the bytes lie.
        layout: Layout,
        /// CRC32C of all bytes.
        crc: u32,
        /// Its rows.
        rows: u64,
        /// Its batches.
        batches: u64,
        /// Its bytes.
        bytes: u64,
        /// False: what was stable of a put when the server stopped; a repeated put takes its place.
        whole: bool,
    },
}

/// Head of a dataset, by the inode number of its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRow {
    /// The head version.
    pub version: u64,
    /// The oldest version that is kept.
    pub oldest: u64,
}

/// Whether a chain of versions begins with files that others wrote into the directory. The first two are stored as `false` and `true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Foreign {
    /// No.
    Absent,
    /// Yes.
    Present,
    /// The store was away when the chain began: those count that it turns out to have.
    Unknown,
}

/// A version of a dataset. Its parts are those of all versions from `base` to it, in this order: appending writes only what is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// The session that made it.
    pub session: String,
    /// When, microseconds since the epoch.
    pub published: i64,
    /// The first version of its chain: the last one that overwrote (or the first of all).
    pub base: u64,
    /// Whether the chain begins with files that others wrote into the directory.
    pub foreign: Foreign,
    /// The session whose schema rows hold its schema.
    pub schema: String,
    /// Rows in all.
    pub rows: u64,
    /// Batches in all.
    pub batches: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Parts in all.
    pub parts: u64,
}

/// A part that no name leads to any more, kept because an old version has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredRow {
    /// The stream's inode number.
    pub ino: u64,
    /// Its generation.
    pub generation: u32,
    /// Where the bytes lie.
    pub layout: Layout,
    /// Bytes.
    pub bytes: u64,
}

/// The answer kept under a token of `begin` or of a put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetAnswer {
    /// The session.
    pub session: String,
    /// The version that a put without a named session made.
    pub version: Option<u64>,
}

fn session_keyed(table: u8, kind: Option<u8>, session: &str) -> Vec<u8> {
    let mut key = vec![table];
    key.extend(kind);
    key.extend_from_slice(session.as_bytes());
    key
}

/// Key of an open session's row.
pub fn session_key(session: &str) -> Key {
    session_keyed(table::SESSION, Some(b'o'), session).into()
}

/// Key of a published session's row.
pub fn published_key(session: &str) -> Key {
    session_keyed(table::SESSION, Some(b'p'), session).into()
}

/// Key of an aborted session's row.
pub fn aborted_key(session: &str) -> Key {
    session_keyed(table::SESSION, Some(b'a'), session).into()
}

/// What the keys of a session's schema rows begin with; the rows' values joined are the schema message.
pub fn schema_prefix(session: &str) -> Key {
    session_keyed(table::SESSION, Some(b's'), session).into()
}

/// Key of one piece of a session's schema.
pub fn schema_key(session: &str, piece: u32) -> Key {
    let mut key = session_keyed(table::SESSION, Some(b's'), session);
    key.extend_from_slice(&piece.to_be_bytes());
    key.into()
}

/// What the keys of a session's parts begin with.
pub fn part_prefix(session: &str) -> Key {
    session_keyed(table::PART, None, session).into()
}

/// Key of a part's row.
pub fn part_key(session: &str, number: u32) -> Key {
    let mut key = session_keyed(table::PART, None, session);
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

/// Key of a retired part.
pub fn retired_key(session: &str, number: u32) -> Key {
    let mut key = session_keyed(table::RETIRED, None, session);
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

/// Key of a dataset's head.
pub fn head_key(dir: forebay_namespace::Ino) -> Key {
    let mut key = vec![table::HEAD];
    key.extend_from_slice(&dir.0.to_be_bytes());
    key.into()
}

/// Key of a version's row.
pub fn version_key(dir: forebay_namespace::Ino, version: u64) -> Key {
    let mut key = vec![table::VERSION];
    key.extend_from_slice(&dir.0.to_be_bytes());
    key.extend_from_slice(&version.to_be_bytes());
    key.into()
}

/// Key of the note that versions of this dataset wait to be dropped.
pub fn sweep_key(dir: forebay_namespace::Ino) -> Key {
    let mut key = vec![table::SWEEP];
    key.extend_from_slice(&dir.0.to_be_bytes());
    key.into()
}

/// First bytes of the engine's tables in the metastore.
pub mod table {
    /// `seq u64` → [`super::Work`].
    pub const WORK: u8 = 0x80;
    /// `mount id u32` → mount row.
    pub const MOUNT: u8 = 0x81;
    /// `o | p | a, session id` → [`super::SessionRow`]; `s, session id, piece u32` → piece of its schema message.
    pub const SESSION: u8 = 0x82;
    /// `session id, part number u32` → [`super::PartRow`].
    pub const PART: u8 = 0x83;
    /// `directory ino u64` → [`super::HeadRow`].
    pub const HEAD: u8 = 0x84;
    /// `directory ino u64, version u64` → [`super::VersionRow`].
    pub const VERSION: u8 = 0x85;
    /// Client tokens of datasets and files → result.
    pub const TOKEN: u8 = 0x87;
    /// Settings of the whole store: cluster id, format.
    pub const META: u8 = 0x88;
    /// `path bytes` (of a long path the first and a sum of all) → [`super::PolicyRow`].
    pub const POLICY: u8 = 0x89;
    /// `directory ino u64` → nothing: versions of this dataset wait to be dropped.
    pub const SWEEP: u8 = 0x8a;
    /// `session id, part number u32` → [`super::RetiredRow`].
    pub const RETIRED: u8 = 0x8b;
    /// `mount id u32, upload id, 0, part index u32` → [`super::PartNote`].
    pub const UPLOAD: u8 = 0x8c;
    /// `stream's inode number u64` → [`super::DraftRow`].
    pub const DRAFT: u8 = 0x8d;
    /// `path bytes` (of a long path the first and a sum of all) → [`super::AskedRow`].
    pub const ASKED: u8 = 0x8e;
    /// `mount id u32, key` (of a long one the first and a sum of all) → both: the directory there has a marker of ours.
    pub const MARKER: u8 = 0x8f;
    /// `u | g, n, name` → the owner's number; `u | g, i, number u32` → its name.
    pub const OWNER: u8 = 0x90;
    /// `job u64` → [`super::LoadRow`].
    pub const LOAD: u8 = 0x91;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_was_begun_before_loads_could_verify_goes_on() {
        let paths = vec![b"/a".to_vec()];
        let before = encode(&(&paths, Some(8u64), 7i64));
        let row = LoadRow {
            paths,
            parallel: Some(8),
            since: 7,
            verify: false,
        };
        assert_eq!(LoadRow::decode(&before).unwrap(), row);
        let row = LoadRow { verify: true, ..row };
        assert_eq!(LoadRow::decode(&encode(&row)).unwrap(), row);
        assert!(LoadRow::decode(&before[..3]).is_err());
    }

    #[test]
    fn the_key_of_a_part_s_note_names_the_part_and_nothing_else_is_taken_for_one() {
        for (mount, upload, index) in [(0, "", 0), (7, "2~abc", 9_999), (u32::MAX, "with\0nul", u32::MAX)] {
            let key = part_note_key(mount, upload, index);
            assert_eq!(part_noted(&key), Some((mount, upload, index)));
            assert!(key.starts_with(&part_notes_prefix(mount, upload)));
            assert_eq!(part_noted(&key[1..]), None);
            assert_eq!(part_noted(&key[..9]), None);
        }
        assert_eq!(part_noted(&[table::UPLOAD]), None);
    }

    #[test]
    fn the_answer_under_a_token_reads_as_it_was_written_by_whatever_version() {
        let level = crate::AckLevel::Local;
        let (size, ino) = (70_000, Some(5));
        let now = FileWritten { level, size, ino };
        assert_eq!(FileWritten::decode(&encode(&now)).unwrap(), now);
        let before = encode(&(level, size));
        let ino = None;
        assert_eq!(FileWritten::decode(&before).unwrap(), FileWritten { level, size, ino });
        assert!(FileWritten::decode(&before[..before.len() - 1]).is_err());
    }
}
