//! Settings as plain data: defaults that work on a laptop, no components.

use forebay_namespace::Path;
use forebay_runtime::units::ByteSize;
use std::{path::PathBuf, time::Duration};

/// How safe a write is when it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum AckLevel {
    /// In the memory of one process.
    Memory,
    /// Journal and data fdatasynced on this node.
    #[default]
    Local,
    /// Proven to be in the under-store.
    Persisted,
}

impl AckLevel {
    /// Its name on the wire and in logs.
    pub fn name(self) -> &'static str {
        match self {
            AckLevel::Memory => "memory",
            AckLevel::Local => "local",
            AckLevel::Persisted => "persisted",
        }
    }
}

/// Plain settings of a cache.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data folders, in any order, each on a disk of its own.
    pub data: Vec<PathBuf>,
    /// This node's name.
    pub node: String,
    /// Level of a write that names none. Default `local`.
    pub ack: AckLevel,
    /// Most dirty bytes, in all folders together. Default: half of their file systems.
    pub dirty_max: Option<ByteSize>,
    /// Most clean bytes kept locally, in all folders together. Default: a quarter of their file systems.
    pub cache_max: Option<ByteSize>,
    /// Faster places for second copies of clean blocks, the fastest first. Default: none.
    pub tiers: Vec<TierSettings>,
    /// How long a writer is slowed at the dirty limit without any progress before it is refused. Default 60 s.
    pub stall_max: Duration,
    /// How long an under-store may stay silent. Default 10 s.
    pub under_timeout: Duration,
    /// Largest object of an S3 that is compared with its MD5. Default 128 KiB; 0: none.
    pub under_md5_max: ByteSize,
    /// A session without a writer for this long is aborted, unless it names its own. Default 10 min.
    pub session_timeout: Duration,
    /// Versions of a dataset that are kept. Default 3.
    pub versions_kept: u32,
    /// Mounts given at start.
    pub mounts: Vec<MountSpec>,
    /// Policies set at start, by path; beside them stay those that were set before.
    pub policies: Vec<(Path, forebay_policy::Set)>,
    /// Where every read of clean data is written down for `policy simulate`; none: nowhere.
    pub trace_file: Option<PathBuf>,
    /// Most bytes of that file. Default 256 MiB.
    pub trace_bytes_max: ByteSize,
    /// The persister's.
    pub persist: PersistSettings,
    /// The segment store's.
    pub segment: forebay_segment::Settings,
}

impl Settings {
    /// The defaults, on this data folder.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: vec![data.into()],
            node: "local".into(),
            ack: AckLevel::default(),
            dirty_max: None,
            cache_max: None,
            tiers: Vec::new(),
            stall_max: Duration::from_secs(60),
            under_timeout: Duration::from_secs(10),
            under_md5_max: ByteSize(128 << 10),
            session_timeout: Duration::from_secs(600),
            versions_kept: 3,
            mounts: Vec::new(),
            policies: Vec::new(),
            trace_file: None,
            trace_bytes_max: ByteSize(256 << 20),
            persist: PersistSettings::default(),
            segment: forebay_segment::Settings::default(),
        }
    }
}

/// A tier: a folder on something faster than the data folders, as a tmpfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierSettings {
    /// Up to 32 small letters, digits, `-` and `_`; neither `disk` nor `auto`. The policy `tier` names it.
    pub name: String,
    /// Its folder, made when missing. What lies below its `clean` goes at every start.
    pub dir: PathBuf,
    /// Most bytes in it.
    pub size: ByteSize,
}

/// A prefix to be bound to an under-store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// The prefix.
    pub path: Path,
    /// As [`forebay_understore::open`] takes it.
    pub url: String,
    /// Refuses writes under the prefix.
    pub read_only: bool,
}

/// Settings of the persister.
#[derive(Clone, Debug)]
pub struct PersistSettings {
    /// Files on their way at once. Default 4.
    pub files_parallel: usize,
    /// Parts of one file on their way at once. Default 4.
    pub parts_parallel: usize,
    /// Bytes of a part. Default 16 MiB.
    pub part_bytes: ByteSize,
    /// Files up to this size go in one request. Default 8 MiB.
    pub single_put_bytes_max: ByteSize,
    /// Bytes per second and mount; none: unlimited.
    pub bandwidth: Option<ByteSize>,
    /// Requests per second and mount; none: unlimited.
    pub requests_per_second: Option<u64>,
}

impl Default for PersistSettings {
    fn default() -> Self {
        Self {
            files_parallel: 4,
            parts_parallel: 4,
            part_bytes: ByteSize(16 << 20),
            single_put_bytes_max: ByteSize(8 << 20),
            bandwidth: None,
            requests_per_second: None,
        }
    }
}
