//! Opens a data folder and hands out writers, readers and followers over it.

use crate::{
    coming::Coming,
    context::{Context, header},
    dedicated::{DedicatedFile, DedicatedLog},
    draft::{Draft, DraftFile},
    error::{Result, SegmentError},
    flusher::{Demand, Flusher},
    folder::Folder,
    header::FileKind,
    identity,
    layout::{Layout, SegmentId, StreamId},
    manifest::{self, Listed, Manifest, SegmentKind},
    reader::Reader,
    reclaim::Reclaimer,
    record::Kind,
    recovery::{Assembled, Extra, Found, Recovered, RecoveredStream, Repair, read_all},
    reserve::Reserve,
    scan::{Depth, Scanner},
    settings::{Open, Settings},
    shared::SharedLog,
    table::{Phase, SharedFile, Table, Usage},
    writer::Writer,
};
use forebay_runtime::{
    crash_point,
    disk::{DiskEntry, DiskRef, OpenHow},
    task::{self, Tasks},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    io::ErrorKind,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// With less room than this the reserve of an earlier process is given up, so that the start can write.
const START_BYTES: u64 = 1 << 20;
/// Longest wait for the flushes at the end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(60);

/// The segments of one data folder. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct SegmentStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) context: Arc<Context>,
    pub(crate) shared: Arc<SharedLog>,
    /// Logs that may still have something to flush at the end.
    logs: Mutex<Vec<Weak<DedicatedLog>>>,
    drafts: Mutex<Vec<Weak<DraftFile>>>,
    /// Where the streams lie that the start found and nobody claimed yet.
    unclaimed: Mutex<HashMap<StreamId, Layout>>,
    /// Records of sealed or unclaimed streams that no layout names; they go with the stream.
    extra: Mutex<HashMap<StreamId, Vec<Extra>>>,
    lock: Mutex<Option<Box<dyn Debug + Send + Sync>>>,
}

impl SegmentStore {
    /// Opens the folder, recovering what is in it.
    ///
    /// `Locked`: another process has it. `NotDurable`: it lies in memory. `Foreign`, `NewerFormat`: not ours to read.
    /// `Missing`, `Corrupt`: acknowledged bytes are damaged; nothing was changed.
    pub async fn open(open: Open) -> Result<(SegmentStore, Recovered)> {
        task::blocking(move || Self::open_now(&open)).await
    }

    fn open_now(open: &Open) -> Result<(SegmentStore, Recovered)> {
        identity::check(&open.identity)?;
        let settings = bounded(&open.settings);
        let (disk, folder) = (&open.disk, Folder(open.folder.clone()));
        let failed = |action, e| SegmentError::disk(action, folder.path(), e);
        let space = disk.space(folder.path()).map_err(|e| failed("statfs", e))?;
        if open.durable && !space.durable {
            return Err(SegmentError::NotDurable {
                folder: open.folder.clone(),
            });
        }
        disk.create_dir_all(folder.path()).map_err(|e| failed("create", e))?;
        let lock = disk.lock(&folder.lock()).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => SegmentError::Locked {
                folder: open.folder.clone(),
            },
            _ => failed("lock", e),
        })?;
        let entries = disk.list(folder.path()).map_err(|e| failed("list", e))?;
        let cluster = Some(&open.identity.cluster);
        let before = identity::read(disk, &folder, &entries, cluster)?;
        let reserve = Reserve::new(
            Arc::clone(disk),
            Arc::clone(&open.clock),
            &folder,
            settings.reserve_bytes.0,
        )
        .map_err(|e| failed("statfs", e))?;
        reserve.give_if_short(START_BYTES.min(space.total / 128));

        let listed = match &before {
            Some(_) => manifest::read(disk, &folder, cluster)?,
            None => never_used(disk, &folder, cluster)?,
        };
        // The new life is durable before anything is written in its name.
        let incarnation = before.as_ref().map_or(0, |header| header.incarnation) + 1;
        let now = open.clock.now();
        let manifest_header = header(
            &open.identity,
            incarnation,
            now,
            FileKind::Manifest,
            SegmentId(0),
            StreamId(0, 0),
        );
        let rewrite = |known| {
            Manifest::rewrite(
                Arc::clone(disk),
                folder.clone(),
                manifest_header.clone(),
                settings.fsync,
                known,
            )
        };
        if before.is_none() {
            // In this order: a folder with an identity has a manifest.
            rewrite(BTreeMap::new())?;
        }
        identity::write(disk, &folder, &open.identity, incarnation, now, settings.fsync)?;

        let table = Arc::new(Table::default());
        let repair = Repair {
            disk,
            folder: &folder,
            fsync: settings.fsync,
            table: &table,
        };
        let scanner = Scanner {
            disk,
            folder: &folder,
            cluster,
            depth: Depth::Quick,
        };
        let (mut found, assembled) = read_folder(&scanner, &listed, &entries)?;
        let known = repair.run(&listed, &mut found, &assembled)?;
        let manifest = Arc::new(rewrite(known)?);
        repair.sweep(&mut found)?;
        reserve.take();
        if let Some(node) = before
            .and_then(|b| b.members.into_iter().next())
            .filter(|m| m.node != open.identity.node)
        {
            found.notes.push(format!(
                "the folder was node {}'s and is now {}'s",
                node.node, open.identity.node
            ));
        }

        let tasks = Tasks::new("segment");
        let flusher = |name, delay| Flusher::new(name, tasks.clone(), Arc::clone(&open.clock), delay);
        let reclaimer = Reclaimer::new(
            flusher("reclaim", settings.flush_delay),
            Arc::clone(disk),
            folder.clone(),
            Arc::clone(&manifest),
            Arc::clone(&table),
        );
        let coming = Coming::new(Arc::clone(&open.clock));
        let shared_flusher = Flusher::gathering(
            &coming,
            "flush shared",
            tasks.clone(),
            Arc::clone(&open.clock),
            settings.flush_delay,
        );
        let context = Arc::new(Context {
            disk: Arc::clone(disk),
            clock: Arc::clone(&open.clock),
            folder,
            identity: open.identity.clone(),
            incarnation,
            settings,
            manifest,
            reserve,
            table,
            reclaimer,
            tasks,
            segments_made: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let Assembled { streams, extra, .. } = assembled;
        let layout_of = |id| streams.get(id).map_or(Layout::Empty, |found| found.layout.clone());
        let unclaimed = streams
            .keys()
            .chain(extra.keys())
            .map(|id| (*id, layout_of(id)))
            .collect();
        let inner = Inner {
            shared: SharedLog::new(Arc::clone(&context), shared_flusher, coming),
            context,
            logs: Mutex::default(),
            drafts: Mutex::default(),
            unclaimed: Mutex::new(unclaimed),
            extra: Mutex::new(extra),
            lock: Mutex::new(Some(lock)),
        };
        Ok((
            SegmentStore { inner: Arc::new(inner) },
            Recovered {
                streams,
                notes: found.notes,
            },
        ))
    }

    /// Which life of the folder this is: grows at every open.
    pub fn incarnation(&self) -> u64 {
        self.inner.context.incarnation
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
        self.inner.context.may_append(0)?;
        let draft = Draft::create(&self.inner.context, stream)?;
        self.inner.track_draft(&draft);
        Ok(draft)
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
        let draft = Draft::resume(&self.inner, stream, segment)?;
        self.inner.unclaimed.lock().remove(&stream);
        self.inner.track_draft(&draft);
        Ok(draft)
    }

    /// Reads a sealed stream. Stays good after a release.
    pub fn reader(&self, stream: StreamId, layout: &Layout) -> Result<Reader> {
        self.contains(layout)?;
        Reader::new(Arc::clone(&self.inner), stream, layout.clone())
    }

    /// Whether the files of the layout are there and long enough; from memory, so cheap.
    pub fn contains(&self, layout: &Layout) -> Result<()> {
        match layout {
            Layout::Empty => Ok(()),
            Layout::Packed(extents) => extents.iter().try_for_each(|e| {
                let end = e.at.checked_add(e.len.into());
                self.inner
                    .holds(e.segment, SegmentKind::Shared, end.unwrap_or(u64::MAX))
            }),
            Layout::Dedicated { segment, len } => self.inner.holds(*segment, SegmentKind::Dedicated, *len),
        }
    }

    /// Gives up the bytes of a sealed stream, after the caller's row no longer names them. Files are reclaimed off the hot path;
    /// open readers and followers stay good. Doing it twice is fine.
    pub fn release(&self, stream: StreamId, layout: &Layout) {
        self.inner.unclaimed.lock().remove(&stream);
        for extra in self.inner.take_extra(stream) {
            self.inner.release_record(extra.segment, extra.at, extra.len);
        }
        match layout {
            Layout::Empty => {}
            Layout::Packed(extents) => {
                self.inner.shared.hint(Kind::Drop, stream, layout.len(), 0);
                extents
                    .iter()
                    .for_each(|e| self.inner.release_record(e.segment, e.at, e.len.into()));
            }
            Layout::Dedicated { segment, .. } => {
                if let Some(segment) = self.inner.context.table.get(*segment) {
                    self.inner.context.reclaimer.push(segment);
                }
            }
        }
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
        self.inner.context.reclaimer.idle().await;
    }

    /// Room and segments in use.
    pub fn usage(&self) -> Usage {
        let free_bytes = self.inner.context.reserve.free().unwrap_or(0);
        Usage {
            free_bytes,
            ..self.inner.context.table.usage()
        }
    }

    /// Gives up the room kept back on the disk, so that others (the metastore) find some. Appends are then refused until there is room again.
    /// True when there was something to give.
    pub fn make_room(&self) -> bool {
        self.inner.context.reserve.give()
    }

    /// Flushes and closes everything and lets go of the folder. Later appends are refused.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.context.closed.store(true, Ordering::Release);
        let logs: Vec<_> = inner.logs.lock().drain(..).filter_map(|log| log.upgrade()).collect();
        for log in logs {
            log.demand(Demand::Now);
            log.idle().await;
            log.close_down();
        }
        let drafts: Vec<_> = inner
            .drafts
            .lock()
            .drain(..)
            .filter_map(|draft| draft.upgrade())
            .collect();
        for draft in drafts {
            task::blocking(move || draft.close_down()).await;
        }
        inner.shared.idle().await;
        let shared = Arc::clone(&inner.shared);
        task::blocking(move || shared.close()).await;
        inner.context.reclaimer.idle().await;
        let manifest = Arc::clone(&inner.context.manifest);
        if let Err(e) = task::blocking(move || manifest.flush()).await {
            tracing::warn!(error = %e, "cannot enter the lengths of closed segments");
        }
        if let Err(e) = inner.context.tasks.drain(SHUTDOWN_MAX).await {
            tracing::warn!(error = %e, "segment store did not come to rest");
        }
        *inner.lock.lock() = None;
    }
}

/// A folder without identity may have a manifest, but not one that lists anything.
fn never_used(disk: &DiskRef, folder: &Folder, cluster: Option<&[u8; 16]>) -> Result<Listed> {
    match manifest::read(disk, folder, cluster) {
        Err(SegmentError::Missing { .. }) => Ok(Listed::default()),
        Ok(listed) if listed.known.is_empty() => Ok(Listed::default()),
        Ok(listed) => Err(SegmentError::Missing {
            file: folder.identity(),
            what: format!(
                "the folder's identity; the manifest lists {} segments",
                listed.known.len()
            ),
        }),
        Err(e) => Err(e),
    }
}

/// Reads everything, with the crash points of a recovery.
fn read_folder(scanner: &Scanner<'_>, listed: &Listed, entries: &[DiskEntry]) -> Result<(Found, Assembled)> {
    crash_point!("recovery-replay");
    let mut found = read_all(scanner, listed, entries, &mut Err)?;
    if listed.torn {
        found
            .notes
            .push(format!("{}: cut a torn tail", scanner.folder.manifest().display()));
    }
    let assembled = Assembled::new(&found);
    crash_point!("recovery-scanned");
    Ok((found, assembled))
}

/// Settings within what the format and the memory allow.
fn bounded(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.dedicated_from_bytes.0 = settings.dedicated_from_bytes.0.min(16 << 20);
    settings.shared_bytes_max.0 = settings.shared_bytes_max.0.clamp(1 << 16, 1 << 30);
    settings
}

impl Inner {
    pub(crate) fn track(&self, log: &Arc<DedicatedLog>) {
        let mut logs = self.logs.lock();
        logs.retain(|log| log.strong_count() > 0);
        logs.push(Arc::downgrade(log));
    }

    fn track_draft(&self, draft: &Draft) {
        let mut drafts = self.drafts.lock();
        drafts.retain(|draft| draft.strong_count() > 0);
        drafts.push(draft.weak());
    }

    pub(crate) fn flusher(&self, name: &'static str) -> Arc<Flusher> {
        let context = &self.context;
        Flusher::new(
            name,
            context.tasks.clone(),
            Arc::clone(&context.clock),
            context.settings.flush_delay,
        )
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
        let Some(segment) = self
            .context
            .table
            .get(segment)
            .filter(|s| s.kind == SegmentKind::Shared)
        else {
            return;
        };
        if segment.release(at, len) {
            self.context.reclaimer.push(segment);
        }
    }

    fn holds(&self, id: SegmentId, kind: SegmentKind, end: u64) -> Result<()> {
        let file = match kind {
            SegmentKind::Shared => self.context.folder.shared(id),
            SegmentKind::Dedicated => self.context.folder.data(id),
        };
        let segment = self
            .context
            .table
            .get(id)
            .filter(|s| s.kind == kind && s.phase() != Phase::Removed);
        let Some(segment) = segment else {
            return Err(SegmentError::Missing {
                file,
                what: format!("segment {id}, which a stored layout names"),
            });
        };
        let readable = segment.readable.load(Ordering::Relaxed);
        if end > readable {
            let what = format!("a stored layout names bytes up to {end}, the segment has {readable}");
            return Err(SegmentError::Corrupt {
                segment: id,
                file,
                range: readable..end,
                what,
            });
        }
        Ok(())
    }

    /// The open file of a shared segment.
    pub(crate) fn shared_file(&self, id: SegmentId) -> Result<Arc<SharedFile>> {
        let segment = self.context.table.get(id).ok_or_else(|| self.missing(id))?;
        if let Some(file) = segment.shared_file() {
            return Ok(file);
        }
        let path = self.context.folder.shared(id);
        let file = self
            .context
            .disk
            .open(&path, OpenHow::Read)
            .map_err(|e| match e.kind() {
                ErrorKind::NotFound => self.missing(id),
                _ => SegmentError::disk("open", &path, e),
            })?;
        let file = Arc::new(SharedFile { id, path, file });
        segment.set_shared_file(&file);
        self.context.table.keep_shared(&file);
        Ok(file)
    }

    /// The open file of a dedicated segment, with its sums.
    pub(crate) fn dedicated_file(&self, id: SegmentId) -> Result<Arc<DedicatedFile>> {
        let segment = self.context.table.get(id).ok_or_else(|| self.missing(id))?;
        let file = match segment.dedicated_file() {
            Some(file) => file,
            None => {
                let scan = self.scanner().log(id, None)?;
                let file = DedicatedFile::new(id, scan.data_path, scan.data, scan.sums);
                segment.set_dedicated_file(&file);
                file
            }
        };
        self.context.table.keep_dedicated(&file);
        Ok(file)
    }

    pub(crate) fn scanner(&self) -> Scanner<'_> {
        let context = &self.context;
        Scanner {
            disk: &context.disk,
            folder: &context.folder,
            cluster: Some(&context.identity.cluster),
            depth: Depth::Quick,
        }
    }

    pub(crate) fn missing(&self, id: SegmentId) -> SegmentError {
        let file = self.context.folder.path().join(id.to_string());
        SegmentError::Missing {
            file,
            what: format!("segment {id}, which a stored layout names"),
        }
    }
}
