//! The store as a whole, on a disk that loses, tears and refuses.

mod corruption;
mod draft_history;
mod drafts;
mod faults;
mod folders;
mod history;
mod promises;

use crate::*;
use bytes::Bytes;
use forebay_runtime::{
    clock::{SimClock, Timestamp},
    disk::{DiskRef, MountedDisks, SimDisk},
    task,
    units::ByteSize,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A simulated disk and what is opened on it.
struct Bench {
    disk: SimDisk,
    /// With a second data folder.
    second: Option<SimDisk>,
    settings: Settings,
    _simulated: task::Simulated,
}

impl Bench {
    /// With small segments, so that little data goes through every change of place.
    fn new(seed: u64) -> Bench {
        let settings = Settings {
            dedicated_from_bytes: ByteSize::kib(64),
            shared_bytes_max: ByteSize::kib(256),
            reserve_bytes: ByteSize(0),
            ..Settings::default()
        };
        Bench {
            disk: SimDisk::new(seed),
            second: None,
            settings,
            _simulated: task::simulate(),
        }
    }

    /// As [`Bench::new`] with two data folders, each on a disk of its own.
    fn two(seed: u64) -> Bench {
        Bench {
            second: Some(SimDisk::new(seed ^ 0x5eed)),
            ..Bench::new(seed)
        }
    }

    fn disks(&self) -> impl Iterator<Item = &SimDisk> {
        std::iter::once(&self.disk).chain(&self.second)
    }

    fn folders(&self) -> Vec<PathBuf> {
        let second = self.second.as_ref().map(|_| second_folder());
        std::iter::once(folder()).chain(second).collect()
    }

    /// All disks in one tree.
    fn tree(&self) -> DiskRef {
        let mounts = self
            .folders()
            .into_iter()
            .zip(self.disks())
            .map(|(folder, disk)| (folder, disk.shared()));
        match &self.second {
            Some(_) => Arc::new(MountedDisks::new(mounts)),
            None => self.disk.shared(),
        }
    }

    fn kill(&self) {
        self.disks().for_each(SimDisk::kill);
    }

    fn restart(&self) {
        self.disks().for_each(SimDisk::restart);
    }

    fn open_spec(&self) -> Open {
        Open {
            disk: self.tree(),
            clock: SimClock::new(Timestamp(1_700_000_000_000_000)),
            folders: self.folders(),
            identity: Identity {
                cluster: [3; 16],
                node: "here".into(),
            },
            durable: true,
            settings: self.settings.clone(),
        }
    }

    async fn try_open(&self) -> Result<(SegmentStore, Recovered), SegmentError> {
        SegmentStore::open(self.open_spec()).await
    }

    async fn open(&self) -> (SegmentStore, Recovered) {
        self.try_open().await.unwrap()
    }

    /// Ends the process and starts it again.
    async fn kill_and_open(&self) -> (SegmentStore, Recovered) {
        self.kill();
        self.open().await
    }

    /// Cuts the power and starts again.
    async fn cut_and_open(&self) -> (SegmentStore, Recovered) {
        self.restart();
        self.open().await
    }

    fn files(&self) -> Vec<(String, u64)> {
        self.files_of(&folder())
    }

    fn files_of(&self, folder: &Path) -> Vec<(String, u64)> {
        let entries = self.tree().list(folder).unwrap();
        let mut files: Vec<_> = entries.into_iter().map(|e| (e.name, e.len)).collect();
        files.sort();
        files
    }

    fn files_like(&self, extension: &str) -> Vec<PathBuf> {
        let names = self.files().into_iter().map(|(name, _)| name);
        names
            .filter(|name| name.ends_with(extension))
            .map(|name| folder().join(name))
            .collect()
    }
}

fn folder() -> PathBuf {
    "/data/segments".into()
}

fn second_folder() -> PathBuf {
    "/more/segments".into()
}

/// Bytes that tell where they belong.
fn bytes(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

fn note(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

async fn write(store: &SegmentStore, stream: StreamId, content: &Bytes) -> Layout {
    let mut writer = store.create(stream, None);
    writer
        .append(std::slice::from_ref(content), Bytes::new())
        .await
        .unwrap();
    writer.seal().await.unwrap()
}

async fn read(store: &SegmentStore, stream: StreamId, layout: &Layout) -> Result<Bytes, SegmentError> {
    let reader = store.reader(stream, layout)?;
    Ok(reader.read(0..reader.len()).await?.concat().into())
}
