//! Brings an existing folder back: reads every segment, assembles the streams, makes durable what it found, closes what was open.
//!
//! Crash consistency: reading changes nothing. After it, every step (cut a torn tail, write a footer, flush, rewrite the manifest, drop what
//! nobody needs) leaves a folder that reads back as the same streams, so a crash in between only means that the next start does the rest.
//!
//! Corruption: a file that the manifest lists and that is missing, shorter than known, or damaged before its durable end is refused by name.
//! A file that the manifest does not list was never acknowledged: it is adopted when it is whole and dropped when it is not.

use crate::{
    crc::combine,
    dedicated::DedicatedFile,
    error::{Result, SegmentError},
    folder::{Folder, Name, parse},
    index::Entry,
    layout::{Append, Extent, Layout, SegmentId, StreamId},
    manifest::{Closed, Known, Listed, SegmentKind},
    record::Kind,
    scan::{LogScan, Scanner, SharedScan},
    shared::write_footer,
    table::{Phase, Segment, SharedFile, Table},
};
use bytes::Bytes;
use forebay_runtime::disk::{DiskEntry, DiskFile, DiskRef};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry as Slot},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

/// What an open found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every stream with bytes or appends here, sealed or not; also released ones whose segment still lies on the disk.
    pub streams: HashMap<StreamId, RecoveredStream>,
    /// Remarks for the log: what was cut, adopted or dropped.
    pub notes: Vec<String>,
}

/// The valid, durable prefix of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredStream {
    /// Where the bytes lie.
    pub layout: Layout,
    /// Its appends.
    pub appends: Vec<Append>,
    /// True: was sealed at this length. False says nothing of a packed stream: its seal costs no flush of its own, so the
    /// caller's row decides.
    pub sealed: bool,
    /// True: still changed in place, no appends, no checksums; the layout says where the file is and how long, and only
    /// [`SegmentStore::resume_draft`](crate::SegmentStore::resume_draft) goes on with it. Its bytes are those of its last sync, but for what was
    /// changed since: of that, old and new may be mixed.
    pub draft: bool,
    /// CRC32C of all its bytes; 0 of a draft.
    pub crc: u32,
}

/// Everything found, by segment.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) shared: BTreeMap<SegmentId, SharedScan>,
    pub(crate) logs: BTreeMap<SegmentId, LogScan>,
    /// Files of no use: half-written, removed, or never entered and not whole.
    pub(crate) litter: Vec<PathBuf>,
    pub(crate) notes: Vec<String>,
}

/// Reads all segments of a folder. What `refuse` lets pass is left out.
pub(crate) fn read_all(
    scanner: &Scanner<'_>,
    listed: &Listed,
    entries: &[DiskEntry],
    refuse: &mut dyn FnMut(SegmentError) -> Result<()>,
) -> Result<Found> {
    let (folder, mut found) = (scanner.folder, Found::default());
    let removed: BTreeSet<SegmentId> = listed.removed.iter().copied().collect();
    let mut ids: BTreeMap<SegmentId, SegmentKind> = listed.known.iter().map(|(id, k)| (*id, k.kind)).collect();
    for entry in entries {
        let (id, kind) = match parse(&entry.name) {
            Name::Shared(id) => (id, SegmentKind::Shared),
            Name::Data(id) | Name::Log(id) => (id, SegmentKind::Dedicated),
            Name::Temporary => {
                found.litter.push(folder.path().join(&entry.name));
                continue;
            }
            Name::Other => continue,
        };
        if removed.contains(&id) && !listed.known.contains_key(&id) {
            found.litter.push(folder.path().join(&entry.name));
        } else {
            ids.insert(id, kind);
        }
    }
    for (id, kind) in ids {
        let known = listed.known.get(&id);
        let read = match kind {
            SegmentKind::Shared => scanner
                .shared(id, known)
                .map(|scan| drop(found.shared.insert(id, scan))),
            SegmentKind::Dedicated => scanner.log(id, known).map(|scan| drop(found.logs.insert(id, scan))),
        };
        match read {
            Err(e) if known.is_none() && is_unfinished(&e) => found.drop_unfinished(folder, id, kind, &e),
            Err(e) => refuse(e)?,
            Ok(()) => {}
        }
    }
    Ok(found)
}

/// Whether a file that nobody entered may be in this state after a crash: everything but a sound file of others.
fn is_unfinished(error: &SegmentError) -> bool {
    matches!(error, SegmentError::Corrupt { .. } | SegmentError::Missing { .. })
}

impl Found {
    fn drop_unfinished(&mut self, folder: &Folder, id: SegmentId, kind: SegmentKind, why: &SegmentError) {
        self.notes
            .push(format!("dropped segment {id}, which was never acknowledged: {why}"));
        match kind {
            SegmentKind::Shared => self.litter.push(folder.shared(id)),
            SegmentKind::Dedicated => self.litter.extend([folder.data(id), folder.log(id)]),
        }
    }
}

/// A record that belongs to a stream and to no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extra {
    pub(crate) segment: SegmentId,
    /// Where its payload lies.
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// The streams of a folder, and what is dead.
#[derive(Debug, Default)]
pub(crate) struct Assembled {
    pub(crate) streams: HashMap<StreamId, RecoveredStream>,
    /// Records of a stream that its layout does not name: those without a payload, and those that do not continue it.
    pub(crate) extra: HashMap<StreamId, Vec<Extra>>,
    /// Places of payloads in shared segments that nobody needs.
    dead: HashMap<SegmentId, Vec<(u64, u64)>>,
    /// Dedicated segments that nobody needs.
    dead_logs: BTreeSet<SegmentId>,
}

/// A packed stream in the making.
#[derive(Debug, Default)]
struct Packed {
    extents: Vec<Extent>,
    extra: Vec<Extra>,
    appends: Vec<Append>,
    len: u64,
    crc: u32,
    sealed: bool,
}

impl Packed {
    fn add(&mut self, id: SegmentId, entry: &Entry, note: &Bytes) {
        let (at, len) = (entry.head().payload_at(entry.at), u64::from(entry.payload_len));
        if (entry.offset, entry.number) != (self.len, self.appends.len() as u64) {
            // What came between was never acknowledged, or the caller gave it up. Only the caller's row knows: kept until it
            // says so.
            self.extra.push(Extra { segment: id, at, len });
            return;
        }
        match entry.payload_len {
            0 => self.extra.push(Extra {
                segment: id,
                at,
                len: 0,
            }),
            _ => self.extents.push(Extent {
                segment: id,
                at,
                len: entry.payload_len,
                crc: entry.payload_crc,
            }),
        }
        self.appends.push(Append {
            range: self.len..self.len + len,
            note: note.clone(),
        });
        self.crc = combine(self.crc, entry.payload_crc, len);
        self.len += len;
        self.sealed = false;
    }

    fn layout(extents: Vec<Extent>) -> Layout {
        if extents.is_empty() {
            Layout::Empty
        } else {
            Layout::Packed(extents)
        }
    }
}

impl Assembled {
    pub(crate) fn new(found: &Found) -> Assembled {
        let mut assembled = Assembled::default();
        let mut packed: HashMap<StreamId, Packed> = HashMap::new();
        // In the order in which they were written.
        for (id, scan) in &found.shared {
            for (entry, note) in &scan.records {
                assembled.record(&mut packed, *id, entry, note);
            }
        }
        for (id, scan) in &found.logs {
            assembled.log(&mut packed, *id, scan);
        }
        for (stream, packed) in packed {
            assembled.extra.insert(stream, packed.extra);
            if packed.appends.is_empty() {
                continue;
            }
            let recovered = RecoveredStream {
                layout: Packed::layout(packed.extents),
                appends: packed.appends,
                sealed: packed.sealed,
                draft: false,
                crc: packed.crc,
            };
            assembled.streams.insert(stream, recovered);
        }
        assembled
    }

    fn record(&mut self, packed: &mut HashMap<StreamId, Packed>, id: SegmentId, entry: &Entry, note: &Bytes) {
        match entry.kind {
            Kind::Append => packed.entry(entry.stream).or_default().add(id, entry, note),
            Kind::Seal => {
                if let Some(stream) = packed.get_mut(&entry.stream) {
                    stream.sealed = stream.len == entry.offset;
                }
            }
            Kind::Drop => {
                if let Some(stream) = packed.remove(&entry.stream) {
                    self.dead_packed(stream);
                }
            }
            Kind::Progress | Kind::Mark | Kind::Footer | Kind::Draft => {}
        }
    }

    /// Takes the dedicated segment if it has as much of the stream as anything else has.
    fn log(&mut self, packed: &mut HashMap<StreamId, Packed>, id: SegmentId, scan: &LogScan) {
        let so_far = match (packed.get(&scan.stream), self.streams.get(&scan.stream)) {
            (Some(packed), _) => Some((packed.len, packed.appends.len())),
            (None, Some(other)) => Some((other.layout.len(), other.appends.len())),
            (None, None) => None,
        };
        let nothing = scan.appends.is_empty() && !scan.draft;
        if nothing || so_far.is_some_and(|most| most > (scan.bytes, scan.appends.len())) {
            self.dead_logs.insert(id);
            return;
        }
        if let Some(packed) = packed.remove(&scan.stream) {
            self.dead_packed(packed);
        }
        let recovered = RecoveredStream {
            layout: Layout::Dedicated {
                segment: id,
                len: scan.bytes,
            },
            appends: scan.appends.clone(),
            sealed: scan.sealed,
            draft: scan.draft,
            crc: scan.sums.whole(),
        };
        if let Some(RecoveredStream {
            layout: Layout::Dedicated { segment, .. },
            ..
        }) = self.streams.insert(scan.stream, recovered)
        {
            self.dead_logs.insert(segment);
        }
    }

    fn dead_packed(&mut self, packed: Packed) {
        for extent in packed.extents {
            self.dead_record(extent.segment, extent.at, extent.len.into());
        }
        for extra in packed.extra {
            self.dead_record(extra.segment, extra.at, extra.len);
        }
    }

    fn dead_record(&mut self, id: SegmentId, at: u64, len: u64) {
        self.dead.entry(id).or_default().push((at, len));
    }
}

/// Beginnings of streams that go on in another folder.
pub(crate) type Dead = Vec<(StreamId, Layout)>;

/// What all folders of a store have together.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    pub(crate) recovered: Recovered,
    pub(crate) extra: HashMap<StreamId, Vec<Extra>>,
    pub(crate) dead: Dead,
}

impl Merged {
    /// Adds a folder. A stream that was begun in one and moved to a dedicated segment in another lies in both: the dedicated segment counts if
    /// it has as much, as within one folder.
    pub(crate) fn add(&mut self, assembled: Assembled, mut notes: Vec<String>) {
        self.recovered.notes.append(&mut notes);
        for (stream, extra) in assembled.extra {
            self.extra.entry(stream).or_default().extend(extra);
        }
        for (stream, found) in assembled.streams {
            match self.recovered.streams.entry(stream) {
                Slot::Vacant(slot) => {
                    slot.insert(found);
                }
                Slot::Occupied(mut slot) => {
                    let before = match found.counts_before(slot.get()) {
                        true => slot.insert(found),
                        false => found,
                    };
                    self.dead.push((stream, before.layout));
                }
            }
        }
    }
}

impl RecoveredStream {
    fn counts_before(&self, other: &RecoveredStream) -> bool {
        let key = |found: &RecoveredStream| {
            let dedicated = matches!(found.layout, Layout::Dedicated { .. });
            (found.layout.len(), found.appends.len(), dedicated)
        };
        key(self) > key(other)
    }
}

/// What a folder is brought back with.
#[derive(Debug)]
pub(crate) struct Repair<'a> {
    pub(crate) disk: &'a DiskRef,
    pub(crate) folder: &'a Folder,
    pub(crate) fsync: bool,
    pub(crate) table: &'a Table,
}

impl Repair<'_> {
    /// Closes, flushes and enters everything into the table. Answers what the manifest is to list, and notes down what may go.
    pub(crate) fn run(
        &self,
        listed: &Listed,
        found: &mut Found,
        assembled: &Assembled,
    ) -> Result<BTreeMap<SegmentId, Known>> {
        let closed_before = |id: &SegmentId| listed.known.get(id).and_then(|known| known.closed);
        let mut known = BTreeMap::new();
        for (id, scan) in std::mem::take(&mut found.shared) {
            let segment = Segment::new(id, SegmentKind::Shared, StreamId(0, 0));
            for (entry, _) in scan.records.iter().filter(|(entry, _)| entry.kind == Kind::Append) {
                segment.hold(entry.payload_len.into());
            }
            for (at, len) in assembled.dead.get(&id).into_iter().flatten() {
                segment.release(*at, *len);
            }
            segment.set_phase(Phase::Closed);
            if segment.may_go() {
                found.litter.push(scan.path);
                continue;
            }
            let closed = self.close_shared(&scan, id, &mut found.notes)?;
            if closed_before(&id).is_none() {
                self.sync(&*scan.file, &scan.path)?;
            }
            segment.readable.store(scan.end, Ordering::Relaxed);
            segment
                .file_bytes
                .store(closed.map_or(scan.end, |c| c.file), Ordering::Relaxed);
            self.table.insert(&segment);
            known.insert(
                id,
                Known {
                    kind: SegmentKind::Shared,
                    stream: StreamId(0, 0),
                    closed,
                },
            );
        }
        for (id, scan) in std::mem::take(&mut found.logs) {
            if assembled.dead_logs.contains(&id) {
                found.litter.extend([scan.data_path, self.folder.log(id)]);
                continue;
            }
            let stream = scan.stream;
            let settled = closed_before(&id).filter(|_| scan.sealed && !scan.torn);
            let closed = self.adopt_log(scan, id, settled, &mut found.notes)?;
            known.insert(
                id,
                Known {
                    kind: SegmentKind::Dedicated,
                    stream,
                    closed,
                },
            );
        }
        Ok(known)
    }

    /// Gives a segment that was open its footer. On a full disk it stays without: the next start reads its records again.
    fn close_shared(&self, scan: &SharedScan, id: SegmentId, notes: &mut Vec<String>) -> Result<Option<Closed>> {
        if scan.closed.is_some() {
            return Ok(scan.closed);
        }
        let failed = |action, e| SegmentError::disk(action, &scan.path, e);
        if scan.torn {
            notes.push(format!("{}: cut a torn tail at {}", scan.path.display(), scan.end));
        }
        // Room that was reserved behind the end goes with the tail.
        scan.file.set_len(scan.end).map_err(|e| failed("cut", e))?;
        // What was read may have been written and not yet flushed when the process ended. A footer says of all records
        // before it that they are durable: it may not reach the disk before them.
        self.sync(&*scan.file, &scan.path)?;
        let file = SharedFile {
            id,
            path: scan.path.clone(),
            file: Arc::clone(&scan.file),
        };
        let index: Vec<Entry> = scan.records.iter().map(|(entry, _)| *entry).collect();
        let closed = match write_footer(&file, scan.end, &index) {
            Ok(file) => Some(Closed {
                file,
                content: scan.end,
            }),
            Err(e) if e.is_full() => {
                notes.push(format!("{}: no room for a footer", scan.path.display()));
                scan.file.set_len(scan.end).map_err(|e| failed("cut", e))?;
                None
            }
            Err(e) => return Err(e),
        };
        Ok(closed)
    }

    fn adopt_log(
        &self,
        scan: LogScan,
        id: SegmentId,
        settled: Option<Closed>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Closed>> {
        let log_path = self.folder.log(id);
        if scan.torn {
            notes.push(format!("{}: cut a torn tail at {}", log_path.display(), scan.end));
        }
        // What follows a seal that was entered is a mark, and perhaps in memory alone.
        let closed = scan.sealed.then(|| {
            settled.unwrap_or(Closed {
                file: scan.end,
                content: scan.bytes,
            })
        });
        let segment = Segment::new(id, SegmentKind::Dedicated, scan.stream);
        if settled.is_none() {
            self.sync(&*scan.data, &scan.data_path)?;
            scan.log
                .set_len(scan.end)
                .map_err(|e| SegmentError::disk("cut", &log_path, e))?;
            self.sync(&*scan.log, &log_path)?;
        }
        if scan.draft {
            return self.adopt_draft(&scan, &segment);
        }
        segment.set_phase(if scan.sealed { Phase::Closed } else { Phase::Open });
        segment.readable.store(scan.bytes, Ordering::Relaxed);
        segment.file_bytes.store(scan.bytes + scan.end, Ordering::Relaxed);
        segment.set_live_bytes(scan.bytes);
        let file = DedicatedFile::new(id, scan.data_path, scan.data, scan.sums);
        segment.set_dedicated_file(&file);
        self.table.insert(&segment);
        if !scan.sealed {
            self.table.keep_dedicated(&file);
        }
        Ok(closed)
    }

    /// Nothing of a draft can be read before somebody goes on with it.
    fn adopt_draft(&self, scan: &LogScan, segment: &Arc<Segment>) -> Result<Option<Closed>> {
        // It may have ended by a flush that failed: then memory shows what the disk never got, no later flush would tell, and a
        // seal would vouch for it.
        scan.data
            .forget_cached()
            .map_err(|e| SegmentError::disk("forget", &scan.data_path, e))?;
        segment.set_size(scan.bytes, scan.end);
        self.table.insert(segment);
        Ok(None)
    }

    fn sync(&self, file: &dyn DiskFile, path: &Path) -> Result<()> {
        if !self.fsync {
            return Ok(());
        }
        file.sync_data().map_err(|e| SegmentError::disk("fdatasync", path, e))
    }

    /// Removes what is of no use. What cannot be removed stays for the next start. Durable when this returns: a log that was given up
    /// here, and came back after a later power cut, could have more of its stream than what was acknowledged meanwhile.
    pub(crate) fn sweep(&self, found: &mut Found) -> Result<()> {
        if found.litter.is_empty() {
            return Ok(());
        }
        for path in std::mem::take(&mut found.litter) {
            match self.disk.remove(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    found.notes.push(format!("{}: cannot remove: {e}", path.display()));
                }
                _ => {}
            }
        }
        let folder = self.folder.path();
        match self.fsync {
            true => self
                .disk
                .sync_dir(folder)
                .map_err(|e| SegmentError::disk("fsync", folder, e)),
            false => Ok(()),
        }
    }
}
