//! The store as a whole, on a disk that loses, tears and refuses.

mod corruption;
mod draft_history;
mod drafts;
mod faults;
mod history;
mod promises;

use crate::*;
use bytes::Bytes;
use forebay_runtime::{
    clock::{SimClock, Timestamp},
    disk::SimDisk,
    task,
    units::ByteSize,
};
use std::path::PathBuf;

/// A simulated disk and what is opened on it.
struct Bench {
    disk: SimDisk,
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
            settings,
            _simulated: task::simulate(),
        }
    }

    fn open_spec(&self) -> Open {
        Open {
            disk: self.disk.shared(),
            clock: SimClock::new(Timestamp(1_700_000_000_000_000)),
            folder: folder(),
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
        self.disk.kill();
        self.open().await
    }

    /// Cuts the power and starts again.
    async fn cut_and_open(&self) -> (SegmentStore, Recovered) {
        self.disk.restart();
        self.open().await
    }

    fn files(&self) -> Vec<(String, u64)> {
        let mut files: Vec<_> = self
            .disk
            .shared()
            .list(&folder())
            .unwrap()
            .into_iter()
            .map(|e| (e.name, e.len))
            .collect();
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
