//! Brings one data folder up, in three steps, so that nothing is changed in any folder of a store before all of them are read.
//!
//! 1. *Begun*: locked, and its identity read.
//! 2. *Read*: the new life is durable, and every segment was read.
//! 3. *Open*: repaired, and taking appends.

use crate::{
    coming::Coming,
    context::{Context, Floor, header},
    data_folder::DataFolder,
    error::{Result, SegmentError},
    flusher::Flusher,
    folder::{Folder, Name, parse},
    header::FileKind,
    identity::{self, Place},
    layout::{INCARNATIONS_MAX, SegmentId, StreamId},
    manifest::{self, Known, Listed, Manifest},
    membership::{self, Seen},
    reclaim::Reclaimer,
    recovery::{Assembled, Found, Repair, read_all},
    reserve::Reserve,
    scan::{Depth, Scanner},
    settings::{Open, Settings},
    shared::SharedLog,
    table::Table,
};
use forebay_runtime::{clock::Timestamp, crash_point, task::Tasks};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

/// With less room than this the reserve of an earlier process is given up, so that the start can write.
const START_BYTES: u64 = 1 << 20;
/// Appends leave so much on a disk while another one has room, or this share of it if that is less.
const FLOOR_BYTES: u64 = 32 << 20;
const FLOOR_SHARE: u64 = 200;

/// A folder that is locked.
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    open: &'a Open,
    settings: &'a Settings,
    pub(crate) seen: Seen,
    lock: Box<dyn Debug + Send + Sync>,
    reserve: Reserve,
}

/// A folder whose segments were read.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    begun: Begun<'a>,
    place: Place,
    incarnation: u64,
    listed: Listed,
    found: Found,
    pub(crate) assembled: Assembled,
}

impl<'a> Begun<'a> {
    pub(crate) fn new(open: &'a Open, settings: &'a Settings, path: &Path) -> Result<Begun<'a>> {
        let (disk, folder) = (&open.disk, Folder(path.to_owned()));
        let failed = |action, e| SegmentError::disk(action, path, e);
        let space = disk.space(path).map_err(|e| failed("statfs", e))?;
        if open.durable && !space.durable {
            return Err(SegmentError::NotDurable {
                folder: path.to_owned(),
            });
        }
        disk.create_dir_all(path).map_err(|e| failed("create", e))?;
        let lock = membership::lock(disk, &folder)?;
        let entries = disk.list(path).map_err(|e| failed("list", e))?;
        let reserve = Reserve::new(
            Arc::clone(disk),
            Arc::clone(&open.clock),
            &folder,
            settings.reserve_bytes.0,
        );
        let reserve = reserve.map_err(|e| failed("statfs", e))?;
        let seen = Seen::read(disk, folder, entries, Some(&open.identity.cluster))?;
        reserve.give_if_short(START_BYTES.min(space.total / 128));
        Ok(Begun {
            open,
            settings,
            seen,
            lock,
            reserve,
        })
    }

    /// Begins a new life as `place` and reads what is there.
    pub(crate) fn read(self, place: Place) -> Result<Read<'a>> {
        let (open, folder) = (self.open, &self.seen.folder);
        let cluster = Some(&open.identity.cluster);
        // One that joins has nothing, or it would not.
        let before = self.seen.before.as_ref();
        let listed = match before {
            Some(_) => manifest::read(&open.disk, folder, cluster)?,
            None => never_used(open, folder)?,
        };
        let names = self.seen.entries.iter().filter_map(|entry| match parse(&entry.name) {
            Name::Shared(id) | Name::Data(id) | Name::Log(id) => Some(id),
            Name::Temporary | Name::Other => None,
        });
        membership::check_ids(folder, place.number, names.chain(listed.known.keys().copied()))?;
        // The new life is durable before anything is written in its name.
        let incarnation = before.map_or(0, |header| header.incarnation) + 1;
        if incarnation >= INCARNATIONS_MAX {
            return Err(SegmentError::Misplaced {
                folder: folder.path().to_owned(),
                what: format!(
                    "it was opened {incarnation} times, more than its segments can be numbered for; persist all and begin with an empty folder"
                ),
            });
        }
        if before.is_none() {
            // In this order: a folder with an identity has a manifest.
            self.manifest(incarnation, BTreeMap::new())?;
        }
        self.write_identity(&place, incarnation)?;
        let scanner = Scanner {
            disk: &open.disk,
            folder,
            cluster,
            depth: Depth::Quick,
        };
        crash_point!("recovery-replay");
        let mut found = read_all(&scanner, &listed, &self.seen.entries, &mut Err)?;
        if listed.torn {
            found
                .notes
                .push(format!("{}: cut a torn tail", folder.manifest().display()));
        }
        let assembled = Assembled::new(&found);
        crash_point!("recovery-scanned");
        Ok(Read {
            begun: self,
            place,
            incarnation,
            listed,
            found,
            assembled,
        })
    }

    fn write_identity(&self, place: &Place, incarnation: u64) -> Result<()> {
        let Open {
            disk, clock, identity, ..
        } = self.open;
        let life = (incarnation, clock.now());
        identity::write(disk, &self.seen.folder, identity, place, life, self.settings.fsync)
    }

    /// A new manifest that lists `known`.
    fn manifest(&self, incarnation: u64, known: BTreeMap<SegmentId, Known>) -> Result<Manifest> {
        let now: Timestamp = self.open.clock.now();
        let (none, stream) = (SegmentId(0), StreamId(0, 0));
        Manifest::rewrite(
            Arc::clone(&self.open.disk),
            self.seen.folder.clone(),
            header(&self.open.identity, incarnation, now, FileKind::Manifest, none, stream),
            self.settings.fsync,
            known,
        )
    }
}

impl Read<'_> {
    /// Writes down in the home that others joined, if any did.
    pub(crate) fn enlist(&mut self, home: Place) -> Result<()> {
        if self.place == home {
            return Ok(());
        }
        self.begun.write_identity(&home, self.incarnation)?;
        self.place = home;
        Ok(())
    }

    /// Repairs what a crash left and lets appends in. `alone`: the store has no other folder.
    pub(crate) fn open(mut self, tasks: &Tasks, alone: bool) -> Result<(DataFolder, Assembled, Vec<String>)> {
        let Open {
            disk, clock, identity, ..
        } = self.begun.open;
        let (settings, folder) = (self.begun.settings, self.begun.seen.folder.clone());
        let table = Arc::new(Table::default());
        let repair = Repair {
            disk,
            folder: &folder,
            fsync: settings.fsync,
            table: &table,
        };
        let known = repair.run(&self.listed, &mut self.found, &self.assembled)?;
        let manifest = Arc::new(self.begun.manifest(self.incarnation, known)?);
        repair.sweep(&mut self.found)?;
        let Begun {
            seen, lock, reserve, ..
        } = self.begun;
        reserve.take();
        let before = seen.before.and_then(|header| header.members.into_iter().next());
        if let Some(node) = before.filter(|member| member.node != identity.node) {
            self.found.notes.push(format!(
                "{}: was node {}'s and is now {}'s",
                folder.path().display(),
                node.node,
                identity.node
            ));
        }
        let flusher = |name| Flusher::new(name, tasks.clone(), Arc::clone(clock), settings.flush_delay);
        let reclaimer = Reclaimer::new(
            flusher("reclaim"),
            Arc::clone(disk),
            folder.clone(),
            Arc::clone(&manifest),
            Arc::clone(&table),
        );
        let coming = Coming::new(Arc::clone(clock));
        let shared_flusher = Flusher::gathering(
            &coming,
            "flush shared",
            tasks.clone(),
            Arc::clone(clock),
            settings.flush_delay,
        );
        let floor = match alone {
            true => 0,
            false => disk
                .space(folder.path())
                .map_or(FLOOR_BYTES, |space| FLOOR_BYTES.min(space.total / FLOOR_SHARE)),
        };
        let context = Arc::new(Context {
            disk: Arc::clone(disk),
            clock: Arc::clone(clock),
            folder,
            number: self.place.number,
            identity: identity.clone(),
            incarnation: self.incarnation,
            settings: settings.clone(),
            manifest,
            reserve,
            table,
            reclaimer,
            tasks: tasks.clone(),
            segments_made: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            floor: Floor::new(floor),
            failed: Mutex::default(),
        });
        let shared = SharedLog::new(Arc::clone(&context), shared_flusher, coming);
        Ok((DataFolder::new(context, shared, lock), self.assembled, self.found.notes))
    }
}

/// A folder without identity may have a manifest, but not one that lists anything.
fn never_used(open: &Open, folder: &Folder) -> Result<Listed> {
    match manifest::read(&open.disk, folder, Some(&open.identity.cluster)) {
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
