//! Which segments there are: the one list by which a missing or shortened file is noticed.
//!
//! A segment is entered after its file is durable under its name and before anything in it is acknowledged; its end is entered when it
//! is closed; its removal is durable before the file goes. So a file that the list knows and the folder lacks was lost, and a file
//! that the list does not know holds nothing acknowledged (it is adopted all the same when it is whole).
//!
//! Concurrent entries share one flush: whoever comes first writes for all. After a failed write or flush the file is not trusted:
//! the next entry writes a new one and puts it in the old one's place.

use crate::{
    crc::Crc,
    error::{Result, SegmentError},
    folder::{Folder, temporary},
    header::{FileKind, HEADER_BYTES, Header, u32_at, u64_at},
    layout::{SegmentId, StreamId},
};
use bytes::Bytes;
use forebay_runtime::disk::{DiskFile, DiskRef, OpenHow};
use parking_lot::Mutex;
use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

/// Bytes of an entry.
const ENTRY_BYTES: usize = 64;
/// The file is rewritten when it holds more entries than this, and four times as many as there are segments.
const ENTRIES_MAX: u64 = 16 << 10;
/// Room is reserved in steps of this.
const ALLOCATE_BYTES: u64 = 64 << 10;

/// The two kinds of segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SegmentKind {
    Shared = 1,
    Dedicated = 2,
}

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) kind: SegmentKind,
    /// Of a dedicated one.
    pub(crate) stream: StreamId,
    pub(crate) closed: Option<Closed>,
}

/// How long a segment is at least: its length when it was closed, or when the store was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Bytes of the shared file or of the log.
    pub(crate) file: u64,
    /// Where the footer of a shared segment begins; bytes of the data file of a dedicated one.
    pub(crate) content: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Created(SegmentId, SegmentKind, StreamId),
    Closed(SegmentId, Closed),
    Removed(SegmentId),
}

impl Entry {
    fn encode(&self, number: u64, synced: u64) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        let mut put = |at: usize, n: u64| out[at..at + 8].copy_from_slice(&n.to_le_bytes());
        put(48, synced);
        put(56, number);
        let (code, id) = match *self {
            Entry::Created(id, kind, stream) => {
                put(32, stream.0);
                put(40, stream.1.into());
                (1 | (kind as u32) << 8, id)
            }
            Entry::Closed(id, closed) => {
                put(16, closed.file);
                put(24, closed.content);
                (2, id)
            }
            Entry::Removed(id) => (3, id),
        };
        put(8, id.0);
        out[4..8].copy_from_slice(&code.to_le_bytes());
        let crc = entry_crc(number, &out);
        out[0..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], number: u64) -> Option<Entry> {
        if entry_crc(number, bytes) != u32_at(bytes, 0) {
            return None;
        }
        let (id, code) = (SegmentId(u64_at(bytes, 8)), u32_at(bytes, 4));
        Some(match (code & 0xff, code >> 8) {
            (1, 1) => Entry::Created(id, SegmentKind::Shared, StreamId(0, 0)),
            (1, 2) => Entry::Created(
                id,
                SegmentKind::Dedicated,
                StreamId(u64_at(bytes, 32), u32_at(bytes, 40)),
            ),
            (2, 0) => Entry::Closed(
                id,
                Closed {
                    file: u64_at(bytes, 16),
                    content: u64_at(bytes, 24),
                },
            ),
            (3, 0) => Entry::Removed(id),
            _ => return None,
        })
    }
}

fn entry_crc(number: u64, bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&number.to_le_bytes());
    crc.update(&bytes[4..ENTRY_BYTES]);
    crc.value()
}

/// What a manifest file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) known: BTreeMap<SegmentId, Known>,
    pub(crate) removed: Vec<SegmentId>,
    /// Whether a torn tail was left out.
    pub(crate) torn: bool,
}

impl Listed {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Created(id, kind, stream) => {
                self.known.insert(
                    id,
                    Known {
                        kind,
                        stream,
                        closed: None,
                    },
                );
            }
            Entry::Closed(id, closed) => {
                if let Some(known) = self.known.get_mut(&id) {
                    known.closed = Some(closed);
                }
            }
            Entry::Removed(id) => {
                self.known.remove(&id);
                self.removed.push(id);
            }
        }
    }
}

/// Reads the manifest of a folder. `Missing` when there is none.
pub(crate) fn read(disk: &DiskRef, folder: &Folder, cluster: Option<&[u8; 16]>) -> Result<Listed> {
    let path = folder.manifest();
    let failed = |e| SegmentError::disk("read", &path, e);
    let file = match disk.open(&path, OpenHow::Read) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let what = "the list of segments of a data folder that is in use".to_owned();
            return Err(SegmentError::Missing { file: path, what });
        }
        opened => opened.map_err(failed)?,
    };
    let mut bytes = vec![0; file.len().map_err(failed)? as usize];
    let got = file.read_at(&mut bytes, 0).map_err(failed)?;
    bytes.truncate(got);
    Header::expect(&bytes, &path, FileKind::Manifest, SegmentId(0), cluster)?;

    let entries: Vec<&[u8]> = bytes[HEADER_BYTES as usize..].chunks(ENTRY_BYTES).collect();
    let mut listed = Listed::default();
    for (entry, number) in entries.iter().zip(0u64..) {
        if let Some(entry) = good(entry, number) {
            listed.apply(entry);
            continue;
        }
        let durable = |(later, n): (&&[u8], u64)| good(later, n).is_some() && u64_at(later, 48) > number;
        if entries[number as usize + 1..].iter().zip(number + 1..).any(durable) {
            let at = HEADER_BYTES + number * ENTRY_BYTES as u64;
            return Err(SegmentError::Corrupt {
                segment: SegmentId(0),
                file: path,
                range: at..at + ENTRY_BYTES as u64,
                what: "an entry fails its checksum, and good ones follow".into(),
            });
        }
        listed.torn = true;
        break;
    }
    Ok(listed)
}

fn good(bytes: &[u8], number: u64) -> Option<Entry> {
    if bytes.len() == ENTRY_BYTES {
        Entry::decode(bytes, number)
    } else {
        None
    }
}

/// The manifest of an open folder.
#[derive(Debug)]
pub(crate) struct Manifest {
    disk: DiskRef,
    folder: Folder,
    header: Header,
    fsync: bool,
    state: Mutex<State>,
    /// Held by whoever writes for all.
    writing: Mutex<Option<Log>>,
}

#[derive(Debug)]
struct State {
    listed: Listed,
    queue: Vec<Entry>,
    /// Batches handed to a writer so far; an entry is durable once the batch that took it is.
    queued: u64,
}

/// The file that entries are written to; none after a failure.
#[derive(Debug)]
struct Log {
    file: Arc<dyn DiskFile>,
    entries: u64,
    synced: u64,
    allocated: u64,
    /// Batches that are durable.
    done: u64,
}

impl Manifest {
    /// Writes a new file with what is `known` and puts it in the old one's place.
    pub(crate) fn rewrite(
        disk: DiskRef,
        folder: Folder,
        header: Header,
        fsync: bool,
        known: BTreeMap<SegmentId, Known>,
    ) -> Result<Manifest> {
        let listed = Listed {
            known,
            ..Listed::default()
        };
        let manifest = Manifest {
            disk,
            folder,
            header,
            fsync,
            state: Mutex::new(State {
                listed,
                queue: Vec::new(),
                queued: 0,
            }),
            writing: Mutex::new(None),
        };
        let log = manifest.write_anew(0)?;
        *manifest.writing.lock() = Some(log);
        Ok(manifest)
    }

    /// Enters a new segment. Durable, with its name in the folder, when this returns.
    pub(crate) fn created(&self, id: SegmentId, kind: SegmentKind, stream: StreamId) -> Result<()> {
        let ticket = self.queue(Entry::Created(id, kind, stream));
        self.commit(ticket)
    }

    /// Enters the length of a closed segment, with the next flush.
    pub(crate) fn closed(&self, id: SegmentId, closed: Closed) {
        self.queue(Entry::Closed(id, closed));
    }

    /// Enters removals. Durable when this returns; only then may the files go.
    pub(crate) fn removed(&self, ids: &[SegmentId]) -> Result<()> {
        let Some(ticket) = ids.iter().map(|id| self.queue(Entry::Removed(*id))).last() else {
            return Ok(());
        };
        self.commit(ticket)
    }

    /// Makes everything durable that was entered.
    pub(crate) fn flush(&self) -> Result<()> {
        let ticket = {
            let state = self.state.lock();
            if state.queue.is_empty() {
                return Ok(());
            }
            state.queued + 1
        };
        self.commit(ticket)
    }

    fn queue(&self, entry: Entry) -> u64 {
        let mut state = self.state.lock();
        state.listed.apply(entry);
        state.listed.removed.clear();
        state.queue.push(entry);
        state.queued + 1
    }

    /// Returns when batch `ticket` is durable, written by this call or by one that ran meanwhile.
    fn commit(&self, ticket: u64) -> Result<()> {
        let mut writing = self.writing.lock();
        if writing.as_ref().is_some_and(|log| log.done >= ticket) {
            return Ok(());
        }
        let (batch, number, segments) = {
            let mut state = self.state.lock();
            state.queued += 1;
            (
                std::mem::take(&mut state.queue),
                state.queued,
                state.listed.known.len() as u64,
            )
        };
        let outgrown = |log: &Log| log.entries > ENTRIES_MAX && log.entries > 4 * segments;
        // Taken out: should anything fail, the file is not used again.
        let log = match writing.take() {
            Some(log) if !outgrown(&log) => self.append(log, &batch, number)?,
            _ => self.write_anew(number)?,
        };
        *writing = Some(log);
        Ok(())
    }

    fn append(&self, mut log: Log, batch: &[Entry], number: u64) -> Result<Log> {
        let path = self.folder.manifest();
        let failed = |e| SegmentError::disk("write", &path, e);
        if self.fsync {
            self.sync_folder()?;
        }
        let bytes = encode(batch, log.entries, log.synced);
        let at = HEADER_BYTES + log.entries * ENTRY_BYTES as u64;
        let end = at + bytes.len() as u64;
        if end > log.allocated {
            // Only against a full disk; the write itself says when there is no room.
            let _ = log.file.allocate(at, ALLOCATE_BYTES);
            log.allocated = end + ALLOCATE_BYTES;
        }
        log.file.write_all_at(&[bytes], at).map_err(failed)?;
        if self.fsync {
            log.file
                .sync_data()
                .map_err(|e| SegmentError::disk("fdatasync", &path, e))?;
        }
        log.entries += batch.len() as u64;
        log.synced = log.entries;
        log.done = number;
        Ok(log)
    }

    fn write_anew(&self, number: u64) -> Result<Log> {
        let entries: Vec<Entry> = {
            let state = self.state.lock();
            let known = state.listed.known.iter();
            known
                .flat_map(|(id, k)| {
                    let created = Entry::Created(*id, k.kind, k.stream);
                    std::iter::once(created).chain(k.closed.map(|c| Entry::Closed(*id, c)))
                })
                .collect()
        };
        // The files of new segments must be there before the list that names them.
        if self.fsync {
            self.sync_folder()?;
        }
        let bytes = encode(&entries, 0, 0);
        let file = replace(
            &self.disk,
            &self.folder,
            &self.folder.manifest(),
            &[self.header.encode(), bytes],
            self.fsync,
        )?;
        let n = entries.len() as u64;
        Ok(Log {
            file,
            entries: n,
            synced: n,
            allocated: 0,
            done: number,
        })
    }

    fn sync_folder(&self) -> Result<()> {
        let folder = self.folder.path();
        self.disk
            .sync_dir(folder)
            .map_err(|e| SegmentError::disk("fsync", folder, e))
    }
}

fn encode(entries: &[Entry], first: u64, synced: u64) -> Bytes {
    entries
        .iter()
        .zip(first..)
        .flat_map(|(entry, number)| entry.encode(number, synced))
        .collect()
}

/// Writes a whole file beside `path`, then puts it in its place. Durable when this returns.
pub(crate) fn replace(
    disk: &DiskRef,
    folder: &Folder,
    path: &std::path::Path,
    chunks: &[Bytes],
    fsync: bool,
) -> Result<Arc<dyn DiskFile>> {
    let temp: PathBuf = temporary(path);
    let failed = |e| SegmentError::disk("replace", path, e);
    match disk.remove(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let file = disk.open(&temp, OpenHow::CreateNew).map_err(failed)?;
    file.write_all_at(chunks, 0).map_err(failed)?;
    if fsync {
        file.sync_data().map_err(failed)?;
    }
    disk.rename(&temp, path).map_err(failed)?;
    if fsync {
        disk.sync_dir(folder.path()).map_err(failed)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_runtime::{
        clock::Timestamp,
        disk::{Disk, Fault, SimDisk},
    };
    use std::path::Path;

    fn header() -> Header {
        Header {
            kind: FileKind::Manifest,
            cluster: [1; 16],
            segment: SegmentId(0),
            incarnation: 1,
            epoch: 0,
            created: Timestamp(0),
            stream: StreamId(0, 0),
            members: Vec::new(),
            tag: 0,
            folders: Vec::new(),
        }
    }

    fn open(seed: u64) -> (SimDisk, Folder, Manifest) {
        let (disk, folder) = (SimDisk::new(seed), Folder("/d".into()));
        disk.create_dir_all(folder.path()).unwrap();
        let manifest = Manifest::rewrite(disk.shared(), folder.clone(), header(), true, BTreeMap::new()).unwrap();
        (disk, folder, manifest)
    }

    fn create(manifest: &Manifest, id: u64) -> Result<()> {
        manifest.created(SegmentId(id), SegmentKind::Dedicated, StreamId(id, 1))
    }

    #[test]
    fn what_was_entered_reads_back_after_a_power_cut() {
        for seed in 0..30 {
            let (disk, folder, manifest) = open(seed);
            (1..=5).for_each(|id| create(&manifest, id).unwrap());
            manifest.closed(SegmentId(2), Closed { file: 10, content: 20 });
            manifest.removed(&[SegmentId(1), SegmentId(3)]).unwrap();
            // Not flushed: may or may not be there.
            manifest.closed(SegmentId(4), Closed { file: 1, content: 2 });
            disk.restart();
            let listed = read(&disk.shared(), &folder, Some(&[1; 16])).unwrap();
            assert_eq!(
                listed.known.keys().map(|id| id.0).collect::<Vec<_>>(),
                [2, 4, 5],
                "seed {seed}"
            );
            assert_eq!(
                listed.known[&SegmentId(2)].closed,
                Some(Closed { file: 10, content: 20 }),
                "seed {seed}"
            );
            assert_eq!(listed.known[&SegmentId(5)].stream, StreamId(5, 1), "seed {seed}");
            assert_eq!(listed.removed, [SegmentId(1), SegmentId(3)], "seed {seed}");
        }
    }

    #[test]
    fn after_a_failed_flush_a_new_file_takes_its_place() {
        let (disk, folder, manifest) = open(1);
        create(&manifest, 1).unwrap();
        disk.arm(Fault::Sync(2)); // the folder's goes well, the file's fails
        create(&manifest, 2).unwrap_err();
        create(&manifest, 3).unwrap();
        disk.restart();
        let listed = read(&disk.shared(), &folder, None).unwrap();
        assert!(
            listed.known.contains_key(&SegmentId(1)) && listed.known.contains_key(&SegmentId(3)),
            "{listed:?}"
        );
    }

    #[test]
    fn a_damaged_entry_before_flushed_ones_is_refused_and_a_torn_end_is_cut() {
        for byte in 0..ENTRY_BYTES as u64 {
            let (disk, folder, manifest) = open(1);
            (1..=3).for_each(|id| create(&manifest, id).unwrap());
            let path = folder.manifest();
            disk.flip(&path, HEADER_BYTES + 64 + byte, 1);
            match read(&disk.shared(), &folder, None) {
                Err(SegmentError::Corrupt { range, .. }) => assert_eq!(range.start, HEADER_BYTES + 64),
                other => panic!("byte {byte}: {other:?}"),
            }
            disk.flip(&path, HEADER_BYTES + 64 + byte, 1);
            disk.flip(&path, HEADER_BYTES + 128 + byte, 1);
            let listed = read(&disk.shared(), &folder, None).unwrap();
            assert!(listed.torn && listed.known.len() == 2, "byte {byte}: {listed:?}");
        }
    }

    #[test]
    fn many_entries_of_few_segments_are_written_anew() {
        let (disk, folder, manifest) = open(1);
        for id in 0..10_000 {
            manifest.queue(Entry::Created(SegmentId(id), SegmentKind::Shared, StreamId(0, 0)));
            manifest.queue(Entry::Removed(SegmentId(id)));
        }
        create(&manifest, 77_777).unwrap();
        create(&manifest, 77_778).unwrap();
        let file = disk.open(Path::new("/d/manifest"), OpenHow::Read).unwrap();
        assert!(file.len().unwrap() < HEADER_BYTES + 10 * ENTRY_BYTES as u64);
        let listed = read(&disk.shared(), &folder, None).unwrap();
        assert_eq!(listed.known.len(), 2);
    }
}
