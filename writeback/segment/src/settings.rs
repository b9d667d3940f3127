//! What a store is opened with.

use forebay_runtime::{
    clock::ClockRef,
    disk::DiskRef,
    units::{self, ByteSize},
};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// Plain settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A stream longer than this gets a dedicated segment. Default 1 MiB; at most 16 MiB.
    pub dedicated_from_bytes: ByteSize,
    /// A shared segment is closed at this size. Default 64 MiB; at most 1 GiB.
    pub shared_bytes_max: ByteSize,
    /// Kept back on the disk, given up when it is full, so that recovery, delete and persist still work. Default 16 MiB; 0: none.
    pub reserve_bytes: ByteSize,
    /// How long an append that nobody waits for may lie before a flush begins: what follows it can then share the flush.
    /// Default 2 ms.
    #[serde(with = "units::duration")]
    pub flush_delay: Duration,
    /// False only for the negative control of the crash tests: acknowledge without fdatasync.
    pub fsync: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            dedicated_from_bytes: ByteSize::mib(1),
            shared_bytes_max: ByteSize::mib(64),
            reserve_bytes: ByteSize::mib(16),
            flush_delay: Duration::from_millis(2),
            fsync: true,
        }
    }
}

/// Who this folder belongs to; written at its creation, checked at every open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id (from the metastore).
    pub cluster: [u8; 16],
    /// The node's name, at most 255 bytes. A folder may be given to a node of another name; the new one is then recorded.
    pub node: String,
}

/// What opening needs.
#[derive(Clone, Debug)]
pub struct Open {
    /// The file system.
    pub disk: DiskRef,
    /// Time.
    pub clock: ClockRef,
    /// The data folders, in any order; created when missing, refused when foreign, locked while open. The first one to be ever
    /// opened is the home of all that is not a segment (see [`crate::home`]).
    pub folders: Vec<PathBuf>,
    /// Whose it must be.
    pub identity: Identity,
    /// Whether the ack level needs a durable file system (tmpfs is refused then).
    pub durable: bool,
    /// Settings.
    pub settings: Settings,
}
