//! Opens the data folders and hands out writers, readers and followers over them.

use crate::{
    data_folder::DataFolder,
    draft::Draft,
    error::{Result, SegmentError},
    identity,
    layout::{Extent, Layout, SegmentId, StreamId},
    manifest::SegmentKind,
    membership::{Members, Seen, survey},
    opening::Begun,
    placement::Placement,
    reader::Reader,
    record::Kind,
    recovery::{Dead, Extra, Merged, Recovered, RecoveredStream},
    settings::{Open, Settings},
    table::{FolderUsage, Usage},
    writer::Writer,
};
use forebay_runtime::{
    clock::ClockRef,
    task::{self, Tasks},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Longest wait for the flushes at the end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(60);

/// The segments of one node's data folders, each a disk. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct SegmentStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// By number; the home is the first.
    pub(crate) folders: Vec<Arc<DataFolder>>,
    placement: Placement,
    pub(crate) clock: ClockRef,
    tasks: Tasks,
    /// Where the streams lie that the start found and nobody claimed yet.
    unclaimed: Mutex<HashMap<StreamId, Layout>>,
    /// Records of sealed or unclaimed streams that no layout names; they go with the stream.
    extra: Mutex<HashMap<StreamId, Vec<Extra>>>,
}

impl SegmentStore {
    /// Opens the folders, recovering what is in them.
    ///
    /// `Locked`: another process has one. `NotDurable`: one lies in memory. `Foreign`, `NewerFormat`: not ours to read.
    /// `FolderMissing`, `Misplaced`: they are not all the folders of one store. `Missing`, `Corrupt`: acknowledged bytes are damaged;
    /// nothing was changed.
    pub async fn open(open: Open) -> Result<(SegmentStore, Recovered)> {
        let (store, recovered, dead) = task::blocking(move || Self::open_now(&open)).await?;
        // Durably, before anything is acknowledged: what comes back after a later power cut could be longer than what counts.
        for (stream, layout) in dead {
            store.inner.release_layout(stream, &layout);
        }
        for folder in &store.inner.folders {
            folder.context.reclaimer.idle().await;
        }
        Ok((store, recovered))
    }

    fn open_now(open: &Open) -> Result<(SegmentStore, Recovered, Dead)> {
        identity::check(&open.identity)?;
        let settings = bounded(&open.settings);
        let disk = &open.disk;
        // Before anything is made in a folder that may be the wrong one.
        Members::of(&survey(&open.folders, disk)?.iter().collect::<Vec<_>>(), disk)?;
        let begin = |path: &PathBuf| Begun::new(open, &settings, path);
        let begun: Vec<Begun<'_>> = open.folders.iter().map(begin).collect::<Result<_>>()?;
        let seen: Vec<&Seen> = begun.iter().map(|begun| &begun.seen).collect();
        let mut members = Members::of(&seen, disk)?;
        let mut begun: Vec<(Option<u8>, Begun<'_>)> = members.numbers.iter().copied().zip(begun).collect();
        // The home first, then the others, then those that join.
        begun.sort_by_key(|(number, _)| number.map_or(u16::MAX, u16::from));
        let mut read = Vec::with_capacity(begun.len());
        for (number, begun) in begun {
            let place = match number {
                Some(number) => members.place(number),
                None => members.join(begun.seen.folder.path(), open.clock.now())?,
            };
            read.push(begun.read(place)?);
        }
        read[0].enlist(members.home())?;
        let tasks = Tasks::new("segment");
        let (alone, mut merged, mut folders) = (read.len() == 1, Merged::default(), Vec::with_capacity(read.len()));
        for folder in read {
            let (folder, assembled, notes) = folder.open(&tasks, alone)?;
            merged.add(assembled, notes);
            folders.push(Arc::new(folder));
        }
        let Merged { recovered, extra, dead } = merged;
        let layout_of = |id| {
            let found = recovered.streams.get(id);
            found.map_or(Layout::Empty, |found| found.layout.clone())
        };
        let unclaimed = recovered.streams.keys().chain(extra.keys());
        let inner = Inner {
            folders,
            placement: Placement::default(),
            clock: Arc::clone(&open.clock),
            tasks,
            unclaimed: Mutex::new(unclaimed.map(|id| (*id, layout_of(id))).collect()),
            extra: Mutex::new(extra),
        };
        Ok((SegmentStore { inner: Arc::new(inner) }, recovered, dead))
    }

    /// Which life of the home folder this is: grows at every open.
    pub fn incarnation(&self) -> u64 {
        self.inner.home().context.incarnation
    }

    /// Begins a new stream. With a `size_hint` above [`Settings::dedicated_from_bytes`] it gets a dedicated segment at once.
    /// Nothing is on the disk before the first append.
    pub fn create(&self, stream: StreamId, size_hint: Option<u64>) -> Writer {
        Writer::new(Arc::clone(&self.inner), stream, size_hint)
    }

    /// Goes on with a recovered stream behind its durable end. A dedicated stream that was sealed takes no more appends.
    pub fn resume(&self, stream: StreamId, found: RecoveredStream) -> Result<Writer> {
        if found.draft {
            let what = "it is a draft, which takes no appends".to_owned();
            return Err(SegmentError::Invalid { stream, what });
        }
        self.inner.unclaimed.lock().remove(&stream);
        Writer::resume(Arc::clone(&self.inner), stream, found)
    }

    /// Begins a stream that is changed in place. Costs no flush, and before the first [`Draft::sync`] the next start drops it. Blocks for
    /// as long as it takes to make two files.
    pub fn draft(&self, stream: StreamId) -> Result<Draft> {
        let folder = self.inner.place(0);
        self.inner.anywhere(folder, 0, |folder| {
            folder.context.may_append(0)?;
            let draft = Draft::create(&folder.context, stream)?;
            folder.track_draft(&draft);
            Ok(draft)
        })
    }

    /// Goes on with a draft that recovery found.
    pub fn resume_draft(&self, stream: StreamId, found: RecoveredStream) -> Result<Draft> {
        let segment = match found.layout {
            Layout::Dedicated { segment, .. } if found.draft => segment,
            _ => {
                let what = "it is no draft".to_owned();
                return Err(SegmentError::Invalid { stream, what });
            }
        };
        let folder = self.inner.folder(segment)?;
        let draft = Draft::resume(folder, stream, segment)?;
        self.inner.unclaimed.lock().remove(&stream);
        folder.track_draft(&draft);
        Ok(draft)
    }

    /// Reads a sealed stream. Stays good after a release.
    pub fn reader(&self, stream: StreamId, layout: &Layout) -> Result<Reader> {
        self.contains(layout)?;
        Reader::new(&self.inner, stream, layout.clone())
    }

    /// Whether the files of the layout are there and long enough; from memory, so cheap.
    pub fn contains(&self, layout: &Layout) -> Result<()> {
        let holds = |id, kind, end| self.inner.folder(id)?.holds(id, kind, end);
        match layout {
            Layout::Empty => Ok(()),
            Layout::Packed(extents) => extents.iter().try_for_each(|e| {
                let end = e.at.checked_add(e.len.into());
                holds(e.segment, SegmentKind::Shared, end.unwrap_or(u64::MAX))
            }),
            Layout::Dedicated { segment, len } => holds(*segment, SegmentKind::Dedicated, *len),
        }
    }

    /// Gives up the bytes of a sealed stream, after the caller's row no longer names them. Files are reclaimed off the hot path;
    /// open readers and followers stay good. Doing it twice is fine.
    pub fn release(&self, stream: StreamId, layout: &Layout) {
        self.inner.unclaimed.lock().remove(&stream);
        for extra in self.inner.take_extra(stream) {
            self.inner.release_record(extra.segment, extra.at, extra.len);
        }
        self.inner.release_layout(stream, layout);
    }

    /// After recovery: everything that was found and is neither in `live`, resumed nor released is garbage. Returns when its files are gone.
    pub async fn retain(&self, live: &HashSet<StreamId>) {
        let unclaimed = std::mem::take(&mut *self.inner.unclaimed.lock());
        let mut garbage: Vec<_> = unclaimed
            .into_iter()
            .filter(|(stream, _)| !live.contains(stream))
            .collect();
        // In an order that a seed decides alone.
        garbage.sort_by_key(|(stream, _)| *stream);
        for (stream, layout) in garbage {
            self.release(stream, &layout);
        }
        for folder in &self.inner.folders {
            folder.context.reclaimer.idle().await;
        }
    }

    /// Room and segments in use, in all folders together. Folders on one file system share what it has left.
    pub fn usage(&self) -> Usage {
        let (mut all, mut devices) = (Usage::default(), Vec::new());
        for FolderUsage { device, usage, .. } in self.usage_by_folder() {
            let first = device.is_none_or(|device| !devices.contains(&device));
            devices.extend(device);
            all.file_bytes += usage.file_bytes;
            all.live_bytes += usage.live_bytes;
            all.free_bytes += if first { usage.free_bytes } else { 0 };
            all.segments += usage.segments;
            all.poisoned += usage.poisoned;
        }
        all
    }

    /// The same of each folder, by number.
    pub fn usage_by_folder(&self) -> Vec<FolderUsage> {
        let usage = |folder: &Arc<DataFolder>| {
            let context = &folder.context;
            let path = context.folder.path();
            // A disk that does not answer has no room.
            let space = context.disk.space(path).ok();
            FolderUsage {
                number: context.number,
                folder: path.to_owned(),
                device: context.disk.device(path).ok(),
                total_bytes: space.map_or(0, |space| space.total),
                usage: Usage {
                    free_bytes: space.map_or(0, |space| space.free),
                    ..context.table.usage()
                },
            }
        };
        self.inner.folders.iter().map(usage).collect()
    }

    /// The folders, by number.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let folders = self.inner.folders.iter();
        folders.map(|folder| folder.context.folder.path().to_owned())
    }

    /// Which of [`SegmentStore::folders`] something else of so many bytes should go to.
    pub fn roomy_folder(&self, bytes: u64) -> usize {
        let picked = self.inner.place(bytes);
        let at = self
            .inner
            .folders
            .iter()
            .position(|folder| Arc::ptr_eq(folder, &picked));
        at.expect("it was picked among them")
    }

    /// Which of [`SegmentStore::folders`] a layout lies in; none when it has no bytes.
    pub fn folder_of(&self, layout: &Layout) -> Option<usize> {
        let segment = match layout {
            Layout::Empty => return None,
            Layout::Packed(extents) => extents.first()?.segment,
            Layout::Dedicated { segment, .. } => *segment,
        };
        let mut folders = self.inner.folders.iter();
        folders.position(|folder| folder.number() == segment.folder())
    }

    /// The home's path: see [`crate::home`].
    pub fn home(&self) -> &Path {
        self.inner.home().context.folder.path()
    }

    /// Gives up the room kept back on the home's disk, so that others (the metastore) find some. Appends there are then refused until there is
    /// room again. True when there was something to give.
    pub fn make_room(&self) -> bool {
        self.inner.home().context.reserve.give()
    }

    /// Flushes and closes everything and lets go of the folders. Later appends are refused.
    pub async fn shutdown(&self) {
        let folders = &self.inner.folders;
        for folder in folders {
            folder.context.closed.store(true, Ordering::Release);
        }
        for folder in folders {
            folder.close().await;
        }
        if let Err(e) = self.inner.tasks.drain(SHUTDOWN_MAX).await {
            tracing::warn!(error = %e, "segment store did not come to rest");
        }
        for folder in folders {
            folder.unlock();
        }
    }
}

/// Settings within what the format and the memory allow.
fn bounded(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.dedicated_from_bytes.0 = settings.dedicated_from_bytes.0.min(16 << 20);
    settings.shared_bytes_max.0 = settings.shared_bytes_max.0.clamp(1 << 16, 1 << 30);
    settings
}

impl Inner {
    pub(crate) fn home(&self) -> &Arc<DataFolder> {
        self.folders.first().expect("a store has a home")
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.home().context.settings
    }

    pub(crate) fn is_one_folder(&self) -> bool {
        self.folders.len() == 1
    }

    /// Whether the store is shut down.
    pub(crate) fn is_closed(&self) -> bool {
        self.home().context.closed.load(Ordering::Acquire)
    }

    /// The folder that a segment lies in.
    pub(crate) fn folder(&self, id: SegmentId) -> Result<&Arc<DataFolder>> {
        let folder = self.folders.iter().find(|folder| folder.number() == id.folder());
        folder.ok_or_else(|| self.home().missing(id))
    }

    /// The folder for a new stream; the home when none takes streams, which then says why not.
    pub(crate) fn place(&self, size: u64) -> Arc<DataFolder> {
        let picked = self.placement.pick(&self.folders, size, &[]);
        Arc::clone(picked.unwrap_or_else(|| self.home()))
    }

    /// Begins something of `size` bytes in `folder`, or in another one where that refuses it.
    pub(crate) fn anywhere<T>(
        &self,
        mut folder: Arc<DataFolder>,
        size: u64,
        begin: impl Fn(&Arc<DataFolder>) -> Result<T>,
    ) -> Result<T> {
        let mut refused = Vec::new();
        loop {
            let error = match begin(&folder) {
                Err(e) if e.may_go_elsewhere() => e,
                done => return done,
            };
            refused.push(folder.number());
            match self.elsewhere(size, &refused) {
                Some(next) => folder = next,
                None => return Err(error),
            }
        }
    }

    /// A folder that takes streams and is none of `refused`.
    pub(crate) fn elsewhere(&self, size: u64, refused: &[u8]) -> Option<Arc<DataFolder>> {
        let picked = self.placement.pick(&self.folders, size, refused);
        picked.map(Arc::clone)
    }

    /// The records of a stream that no layout names; the caller sees to them from now on.
    pub(crate) fn take_extra(&self, stream: StreamId) -> Vec<Extra> {
        self.extra.lock().remove(&stream).unwrap_or_default()
    }

    /// Keeps records that no layout names until their stream is released.
    pub(crate) fn keep_extra(&self, stream: StreamId, extra: Vec<Extra>) {
        if !extra.is_empty() {
            self.extra.lock().entry(stream).or_default().extend(extra);
        }
    }

    fn release_record(&self, segment: SegmentId, at: u64, len: u64) {
        if let Ok(folder) = self.folder(segment) {
            folder.release_record(segment, at, len);
        }
    }

    fn release_layout(&self, stream: StreamId, layout: &Layout) {
        match layout {
            Layout::Empty => {}
            Layout::Packed(extents) => {
                // All its records lie in one folder.
                if let Some(Ok(folder)) = extents.first().map(|e| self.folder(e.segment)) {
                    folder.shared.hint(Kind::Drop, stream, layout.len(), 0);
                }
                for Extent { segment, at, len, .. } in extents {
                    self.release_record(*segment, *at, u64::from(*len));
                }
            }
            Layout::Dedicated { segment, .. } => {
                let Ok(folder) = self.folder(*segment) else { return };
                if let Some(segment) = folder.context.table.get(*segment) {
                    folder.context.reclaimer.push(segment);
                }
            }
        }
    }
}
