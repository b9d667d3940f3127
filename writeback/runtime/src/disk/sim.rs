//! A file system in memory that a test can cut the power of.
//!
//! Each file has what processes see and what lies on the platter. A write or a new length reaches the platter at `sync_data`, a name
//! at `sync_dir`; [`SimDisk::restart`] is the power cut: of everything in between, each write survives whole, torn at a sector, or
//! not at all, by the seed. After a failed sync the pages count as clean, as on Linux: they can still be read, and never become durable.
//!
//! What it does not model: latency, permissions, links, a platter that reorders synced data.

use super::{Disk, DiskEntry, DiskFile, DiskRef, OpenHow, Seek, Space};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    io::{self, ErrorKind},
    ops::Range,
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Writes are torn at multiples of this.
const SECTOR: usize = 512;
/// Room is counted in multiples of this.
const BLOCK: u64 = 4096;

/// What shall go wrong, and when. Counts start at 1: the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The n-th sync of a file or folder from now answers EIO, and what it should have made durable never will be.
    Sync(u64),
    /// The n-th write from now answers EIO; a part of it may have been done.
    Write(u64),
    /// The n-th write from now answers ENOSPC; a part of it may have been done.
    Full(u64),
    /// After n more writes, syncs and changes of names the power is off: every call fails until [`SimDisk::restart`].
    PowerOff(u64),
}

/// Calls so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// `sync_data` calls.
    pub syncs: u64,
    /// `sync_dir` calls.
    pub dir_syncs: u64,
    /// `write_all_at` calls.
    pub writes: u64,
    /// Faults that hit.
    pub faults: u64,
}

/// The simulated file system. Cheap to clone; all clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Which life's process uses this handle; none for the test's own, which outlives them all.
    life: Option<u64>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk")
            .field("calls", &self.state.lock().calls)
            .finish_non_exhaustive()
    }
}

type Ino = u64;

#[derive(Default)]
struct Inode {
    /// What processes see.
    seen: Vec<u8>,
    /// What lies on the platter.
    platter: Vec<u8>,
    /// Done, not synced, in order.
    pending: Vec<Change>,
    /// Reserved by `allocate`, up to this length.
    reserved: u64,
}

impl Inode {
    fn blocks(&self) -> u64 {
        (self.seen.len() as u64).max(self.reserved).next_multiple_of(BLOCK)
    }
}

#[derive(Clone)]
enum Change {
    Write { at: usize, data: Bytes },
    Len(usize),
}

/// A change of a name; `None` removes it.
struct NameChange {
    path: PathBuf,
    to: Option<Ino>,
    /// Of a rename: the name that goes in the same instant.
    from: Option<PathBuf>,
}

struct State {
    rng: SmallRng,
    inodes: HashMap<Ino, Inode>,
    next_ino: Ino,
    seen: BTreeMap<PathBuf, Ino>,
    platter: BTreeMap<PathBuf, Ino>,
    pending: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    locks: HashSet<PathBuf>,
    faults: Vec<Fault>,
    power: bool,
    /// Grows at each restart; handles of an earlier life are dead.
    life: u64,
    capacity: u64,
    durable: bool,
    calls: Calls,
}

impl SimDisk {
    /// An empty disk of one TiB whose misfortunes follow from `seed`.
    pub fn new(seed: u64) -> SimDisk {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            inodes: HashMap::new(),
            next_ino: 1,
            seen: BTreeMap::new(),
            platter: BTreeMap::new(),
            pending: Vec::new(),
            dirs: BTreeSet::new(),
            locks: HashSet::new(),
            faults: Vec::new(),
            power: true,
            life: 0,
            capacity: 1 << 40,
            durable: true,
            calls: Calls::default(),
        };
        SimDisk {
            state: Arc::new(Mutex::new(state)),
            life: None,
        }
    }

    /// As the shared handle that components take, for the life of one process: after [`SimDisk::restart`] or [`SimDisk::kill`]
    /// nothing that goes through it has any effect, and the next process takes a new one.
    pub fn shared(&self) -> DiskRef {
        let life = Some(self.state.lock().life);
        Arc::new(SimDisk {
            state: Arc::clone(&self.state),
            life,
        })
    }

    /// The state, unless the process that uses this handle is gone.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if self.life.is_some_and(|life| life != state.life) {
            return Err(process_gone());
        }
        Ok(state)
    }

    /// Arms a fault. Several may be armed at once.
    pub fn arm(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Takes back all faults that have not hit.
    pub fn disarm(&self) {
        self.state.lock().faults.clear();
    }

    /// Sets the size of the disk in bytes; smaller than what is used makes it full.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = bytes;
    }

    /// Says whether the disk claims to survive a power cut. Default true.
    pub fn set_durable(&self, durable: bool) {
        self.state.lock().durable = durable;
    }

    /// Calls so far.
    pub fn calls(&self) -> Calls {
        self.state.lock().calls
    }

    /// Cuts the power and switches it on again: what was not synced is gone or torn, every handle and lock is dead.
    pub fn restart(&self) {
        self.state.lock().restart();
    }

    /// Ends the process but not the machine: every handle and lock is dead, nothing is lost.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.locks.clear();
        state.faults.clear();
    }

    /// Inverts the bits of `mask` in one byte, in memory and on the platter.
    pub fn flip(&self, path: &Path, at: u64, mask: u8) {
        self.state.lock().damage(path, |bytes| {
            if let Some(byte) = bytes.get_mut(at as usize) {
                *byte ^= mask;
            }
        });
    }

    /// Cuts a file, in memory and on the platter, behind everybody's back.
    pub fn cut(&self, path: &Path, len: u64) {
        self.state.lock().damage(path, |bytes| bytes.truncate(len as usize));
    }

    /// Loses a file, name and all, behind everybody's back.
    pub fn lose(&self, path: &Path) {
        let mut state = self.state.lock();
        state.seen.remove(path);
        state.platter.remove(path);
        state.pending.retain(|change| change.path != path);
    }
}

impl State {
    fn restart(&mut self) {
        self.life += 1;
        self.power = true;
        self.locks.clear();
        self.faults.clear();
        // Some cuts lose everything, some nothing, most are a mixture.
        let survive = [0.0, 0.5, 0.5, 0.9, 1.0][self.rng.random_range(0..5)];
        for change in std::mem::take(&mut self.pending) {
            if self.rng.random_bool(survive) {
                apply_name(&mut self.platter, &change);
            }
        }
        self.seen = self.platter.clone();
        let inodes: BTreeSet<Ino> = self.seen.values().copied().collect();
        self.inodes.retain(|ino, _| inodes.contains(ino));
        for ino in inodes {
            let inode = self
                .inodes
                .get_mut(&ino)
                .expect("a name points to an inode that exists");
            for change in std::mem::take(&mut inode.pending) {
                apply_torn(&mut self.rng, &mut inode.platter, change, survive);
            }
            inode.seen = inode.platter.clone();
        }
    }

    fn damage(&mut self, path: &Path, how: impl Fn(&mut Vec<u8>)) {
        let ino = *self
            .seen
            .get(path)
            .unwrap_or_else(|| panic!("no file {} to damage", path.display()));
        let inode = self
            .inodes
            .get_mut(&ino)
            .expect("a name points to an inode that exists");
        how(&mut inode.seen);
        how(&mut inode.platter);
    }

    /// Counts one change; false when the power is off by now.
    fn step(&mut self) -> io::Result<()> {
        if !self.power {
            return Err(power_off());
        }
        let mut off = false;
        self.faults.retain_mut(|fault| match fault {
            Fault::PowerOff(0) => {
                off = true;
                false
            }
            Fault::PowerOff(left) => {
                *left -= 1;
                true
            }
            _ => true,
        });
        if off {
            self.power = false;
            self.calls.faults += 1;
            return Err(power_off());
        }
        Ok(())
    }

    /// Counts down the faults of the kind that `count` picks; true when one hits now.
    fn hit(&mut self, count: impl Fn(&mut Fault) -> Option<&mut u64>) -> bool {
        let mut hit = false;
        self.faults.retain_mut(|fault| {
            let Some(left) = count(fault) else { return true };
            *left = left.saturating_sub(1);
            hit |= *left == 0;
            *left > 0
        });
        self.calls.faults += u64::from(hit);
        hit
    }

    /// Bytes in blocks of all files that have a name: room comes back at the removal.
    fn used(&self) -> u64 {
        self.seen.values().map(|ino| self.inodes[ino].blocks()).sum()
    }

    /// Whether a file may grow to `len`, given that it is `now` long in blocks.
    fn room(&self, ino: Ino, len: u64) -> io::Result<()> {
        let inode = &self.inodes[&ino];
        let now = inode.blocks();
        let then = len.next_multiple_of(BLOCK);
        if then > now && self.used() + (then - now) > self.capacity {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn rename_to(&mut self, path: &Path, to: Option<Ino>, from: Option<&Path>) {
        let change = NameChange {
            path: path.to_owned(),
            to,
            from: from.map(Path::to_owned),
        };
        apply_name(&mut self.seen, &change);
        self.pending.push(change);
    }

    fn read_ok(&self) -> io::Result<()> {
        if self.power { Ok(()) } else { Err(power_off()) }
    }
}

fn process_gone() -> io::Error {
    io::Error::other("the process that opened this is gone")
}

fn power_off() -> io::Error {
    io::Error::other("the power is off")
}

fn apply_name(names: &mut BTreeMap<PathBuf, Ino>, change: &NameChange) {
    if let Some(from) = &change.from {
        names.remove(from);
    }
    match change.to {
        Some(ino) => names.insert(change.path.clone(), ino),
        None => names.remove(&change.path),
    };
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, data } => {
            let end = at + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(data);
        }
        Change::Len(len) => bytes.resize(*len, 0),
    }
}

/// Applies an un-synced change as a power cut may leave it: sector by sector for a write.
fn apply_torn(rng: &mut SmallRng, bytes: &mut Vec<u8>, change: Change, survive: f64) {
    let Change::Write { at, data } = change else {
        if rng.random_bool(survive) {
            apply(bytes, &change);
        }
        return;
    };
    if rng.random_bool(0.5) {
        if rng.random_bool(survive) {
            apply(bytes, &Change::Write { at, data });
        }
        return;
    }
    let mut done = 0;
    while done < data.len() {
        let end = (((at + done) / SECTOR + 1) * SECTOR - at).min(data.len());
        if rng.random_bool(survive) {
            apply(
                bytes,
                &Change::Write {
                    at: at + done,
                    data: data.slice(done..end),
                },
            );
        }
        done = end;
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.alive()?;
        let ino = match (state.seen.get(path).copied(), how) {
            (Some(_), OpenHow::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(ino), _) => {
                state.read_ok()?;
                ino
            }
            (None, OpenHow::CreateNew) => {
                state.step()?;
                if !path.parent().is_some_and(|p| state.dirs.contains(p)) {
                    return Err(ErrorKind::NotFound.into());
                }
                let ino = state.next_ino;
                state.next_ino += 1;
                state.inodes.insert(ino, Inode::default());
                state.rename_to(path, Some(ino), None);
                ino
            }
            (None, _) => return Err(ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            ino,
            life: state.life,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.step()?;
        // Folders are durable at once: no promise of the engine hangs on their loss.
        state.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.step()?;
        state.calls.dir_syncs += 1;
        if state.hit(sync_count) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let (here, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|change| change.path.parent() == Some(path));
        state.pending = rest;
        for change in here {
            apply_name(&mut state.platter, &change);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.step()?;
        let ino = *state.seen.get(from).ok_or(ErrorKind::NotFound)?;
        state.rename_to(to, Some(ino), Some(from));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.step()?;
        if !state.seen.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.rename_to(path, None, None);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let state = self.alive()?;
        state.read_ok()?;
        if !state.dirs.contains(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let name = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let here = |p: &Path| p.parent() == Some(path);
        let files = state.seen.iter().filter(|(p, _)| here(p)).map(|(p, ino)| DiskEntry {
            name: name(p),
            len: state.inodes[ino].seen.len() as u64,
            is_dir: false,
        });
        let dirs = state.dirs.iter().filter(|p| here(p)).map(|p| DiskEntry {
            name: name(p),
            len: 0,
            is_dir: true,
        });
        Ok(files.chain(dirs).collect())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.alive()?;
        state.read_ok()?;
        let used = state.used();
        Ok(Space {
            total: state.capacity,
            free: state.capacity.saturating_sub(used),
            durable: state.durable,
        })
    }

    fn device(&self, _path: &Path) -> io::Result<u64> {
        self.alive()?.read_ok()?;
        // Nothing but equality is asked of it.
        Ok(Arc::as_ptr(&self.state).addr() as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        let mut state = self.alive()?;
        state.read_ok()?;
        if !state.locks.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_owned(),
            life: state.life,
        }))
    }
}

fn sync_count(fault: &mut Fault) -> Option<&mut u64> {
    match fault {
        Fault::Sync(left) => Some(left),
        _ => None,
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimLock({})", self.path.display())
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    ino: Ino,
    life: u64,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.ino)
    }
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        if state.life != self.life {
            return Err(process_gone());
        }
        state.read_ok()?;
        Ok(state)
    }

    fn change(state: &mut State, ino: Ino, change: Change) {
        let inode = state.inodes.get_mut(&ino).expect("open files keep their inode");
        apply(&mut inode.seen, &change);
        inode.pending.push(change);
    }

    fn write(&self, data: Bytes, offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.step()?;
        state.calls.writes += 1;
        let at = usize::try_from(offset).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        let broken = state.hit(|f| if let Fault::Write(left) = f { Some(left) } else { None });
        let full = state.hit(|f| if let Fault::Full(left) = f { Some(left) } else { None });
        if broken || full {
            let part = state.rng.random_range(0..=data.len());
            Self::change(
                &mut state,
                self.ino,
                Change::Write {
                    at,
                    data: data.slice(..part),
                },
            );
            return Err(io::Error::from_raw_os_error(if broken {
                libc::EIO
            } else {
                libc::ENOSPC
            }));
        }
        state.room(self.ino, offset + data.len() as u64)?;
        Self::change(&mut state, self.ino, Change::Write { at, data });
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state()?;
        let bytes = &state.inodes[&self.ino].seen;
        let from = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let n = out.len().min(bytes.len() - from);
        out[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn write_all_at(&self, chunks: &[Bytes], offset: u64) -> io::Result<()> {
        self.write(Bytes::from(chunks.concat()), offset)
    }

    fn write_slice_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(Bytes::copy_from_slice(bytes), offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.step()?;
        state.calls.syncs += 1;
        let failed = state.hit(sync_count);
        let inode = state.inodes.get_mut(&self.ino).expect("open files keep their inode");
        let pending = std::mem::take(&mut inode.pending);
        if failed {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        for change in pending {
            apply(&mut inode.platter, &change);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.inodes[&self.ino].seen.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.step()?;
        state.room(self.ino, len)?;
        let len = usize::try_from(len).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        Self::change(&mut state, self.ino, Change::Len(len));
        state
            .inodes
            .get_mut(&self.ino)
            .expect("open files keep their inode")
            .reserved = 0;
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.step()?;
        state.room(self.ino, offset + len)?;
        let inode = state.inodes.get_mut(&self.ino).expect("open files keep their inode");
        inode.reserved = inode.reserved.max(offset + len);
        Ok(())
    }

    fn allocate_extending(&self, range: Range<u64>) -> io::Result<()> {
        self.allocate(range.start, range.end.saturating_sub(range.start))?;
        let mut state = self.state()?;
        let end = usize::try_from(range.end).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        if state.inodes[&self.ino].seen.len() < end {
            Self::change(&mut state, self.ino, Change::Len(end));
        }
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let mut state = self.state()?;
        state.step()?;
        let len = state.inodes[&self.ino].seen.len();
        let end = len.min(usize::try_from(range.end).unwrap_or(len));
        let at = end.min(usize::try_from(range.start).unwrap_or(end));
        // On the way to the platter as torn as any other write.
        let data = Bytes::from(vec![0; end - at]);
        Self::change(&mut state, self.ino, Change::Write { at, data });
        Ok(())
    }

    fn seek(&self, from: u64, what: Seek) -> io::Result<Option<u64>> {
        let len = self.len()?;
        let at = match what {
            Seek::Data => from,
            Seek::Hole => len,
        };
        Ok((from < len).then_some(at))
    }

    fn start_write_back(&self) {}

    fn forget_cached(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let inode = state.inodes.get_mut(&self.ino).expect("open files keep their inode");
        inode.seen.clone_from(&inode.platter);
        for change in &inode.pending {
            apply(&mut inode.seen, change);
        }
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        let mut bytes = self.state()?.inodes[&self.ino].seen.clone();
        bytes.resize(
            usize::try_from(len).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?,
            0,
        );
        Ok(bytes.into())
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u64) -> (SimDisk, PathBuf) {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("/d")).unwrap();
        (disk, PathBuf::from("/d/f"))
    }

    fn content(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
        let file = disk.open(path, OpenHow::Read).ok()?;
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        Some(bytes)
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_not() {
        let (mut lost, mut torn) = (0, 0);
        for seed in 0..200 {
            let (disk, path) = disk(seed);
            let file = disk.open(&path, OpenHow::CreateNew).unwrap();
            file.write_all_at(&[Bytes::from(vec![1; 2000])], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_all_at(&[Bytes::from(vec![2; 2000])], 2000).unwrap();
            disk.restart();
            assert!(file.len().is_err(), "seed {seed}: a handle outlived the cut");
            let found = content(&disk, &path).unwrap();
            assert_eq!(found[..2000], [1; 2000], "seed {seed}");
            let kept = found[2000..].iter().filter(|b| **b == 2).count();
            lost += usize::from(kept == 0);
            torn += usize::from(kept > 0 && kept < 2000);
        }
        assert!(lost > 20 && torn > 20, "lost {lost}, torn {torn} of 200");
    }

    #[test]
    fn a_name_that_was_not_synced_may_vanish() {
        let survived = (0..100).filter(|seed| {
            let (disk, path) = disk(*seed);
            disk.open(&path, OpenHow::CreateNew).unwrap().sync_data().unwrap();
            disk.restart();
            content(&disk, &path).is_some()
        });
        let n = survived.count();
        assert!(n > 10 && n < 90, "{n} of 100");
    }

    #[test]
    fn after_a_failed_sync_a_good_one_saves_nothing() {
        let (disk, path) = disk(1);
        let file = disk.open(&path, OpenHow::CreateNew).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(&[Bytes::from_static(b"lost")], 0).unwrap();
        disk.arm(Fault::Sync(1));
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(content(&disk, &path).unwrap(), b"lost");
        disk.restart();
        assert_eq!(content(&disk, &path).unwrap(), b"");
        assert_eq!(disk.calls().faults, 1);
    }

    #[test]
    fn what_a_failed_sync_left_in_memory_can_be_forgotten_and_what_is_to_be_written_stays() {
        let (disk, path) = disk(1);
        let file = disk.open(&path, OpenHow::CreateNew).unwrap();
        file.write_slice_at(b"old bytes", 0).unwrap();
        file.sync_data().unwrap();
        file.write_slice_at(b"new", 0).unwrap();
        disk.arm(Fault::Sync(1));
        file.sync_data().unwrap_err();
        file.write_slice_at(b"!", 8).unwrap();
        assert_eq!(content(&disk, &path).unwrap(), b"new byte!");
        file.forget_cached().unwrap();
        assert_eq!(content(&disk, &path).unwrap(), b"old byte!");
    }

    #[test]
    fn a_power_cut_leaves_old_or_new_sectors_of_what_was_overwritten_and_touches_nothing_else() {
        let (mut old, mut new, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let (disk, path) = disk(seed);
            let file = disk.open(&path, OpenHow::CreateNew).unwrap();
            file.write_slice_at(&[1; 8192], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_slice_at(&[2; 2048], 1024).unwrap();
            file.punch(6144..8192).unwrap();
            disk.restart();
            let found = content(&disk, &path).unwrap();
            assert_eq!(found.len(), 8192, "seed {seed}");
            for (sector, bytes) in found.chunks(SECTOR).enumerate() {
                let may_be: &[u8] = match sector {
                    2..6 => &[1, 2],
                    12..16 => &[1, 0],
                    _ => &[1],
                };
                assert!(may_be.contains(&bytes[0]), "seed {seed}, sector {sector}");
                assert!(bytes.iter().all(|b| *b == bytes[0]), "seed {seed}, sector {sector}");
            }
            match found[1024..3072].iter().filter(|b| **b == 2).count() {
                0 => old += 1,
                2048 => new += 1,
                _ => torn += 1,
            }
        }
        assert!(
            old > 20 && new > 20 && torn > 20,
            "old {old}, new {new}, torn {torn} of 200"
        );
    }

    #[test]
    fn a_full_disk_says_so_and_takes_writes_again_when_there_is_room() {
        let (disk, path) = disk(1);
        disk.set_capacity(8 * BLOCK);
        let file = disk.open(&path, OpenHow::CreateNew).unwrap();
        file.allocate(0, 4 * BLOCK).unwrap();
        assert!(super::super::is_full(&file.allocate(0, 9 * BLOCK).unwrap_err()));
        assert!(super::super::is_full(
            &file
                .write_all_at(&[Bytes::from(vec![0; 9 * BLOCK as usize])], 0)
                .unwrap_err()
        ));
        assert_eq!(disk.space(&path).unwrap().free, 4 * BLOCK);
        disk.set_capacity(16 * BLOCK);
        file.write_all_at(&[Bytes::from(vec![0; 9 * BLOCK as usize])], 0)
            .unwrap();
    }

    #[test]
    fn when_the_power_is_off_nothing_answers_until_the_restart() {
        let (disk, path) = disk(1);
        disk.arm(Fault::PowerOff(1));
        let file = disk.open(&path, OpenHow::CreateNew).unwrap();
        file.sync_data().unwrap_err();
        disk.space(&path).unwrap_err();
        disk.open(&path, OpenHow::Read).unwrap_err();
        disk.restart();
        disk.space(&path).unwrap();
    }

    #[test]
    fn one_seed_twice_gives_the_same_wreck() {
        let wreck = |seed| {
            let (disk, path) = disk(seed);
            let file = disk.open(&path, OpenHow::CreateNew).unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            for i in 0..50u8 {
                file.write_all_at(&[Bytes::from(vec![i; 700])], u64::from(i) * 650)
                    .unwrap();
            }
            disk.restart();
            content(&disk, &path)
        };
        for seed in 0..20 {
            assert_eq!(wreck(seed), wreck(seed), "seed {seed}");
        }
    }
}
