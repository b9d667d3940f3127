//! The machine's own file system.

use super::{Disk, DiskEntry, DiskFile, DiskRef, OpenHow, Seek, Space};
use bytes::Bytes;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    mem::MaybeUninit,
    ops::Range,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt},
        },
    },
    path::Path,
    sync::Arc,
};

/// Most buffers that one `pwritev` takes (`UIO_MAXIOV`).
const WRITE_CHUNKS_MAX: usize = 1024;
/// What is written at a time where holes cannot be made.
const ZEROS: &[u8] = &[0; 64 << 10];

/// The file system of this machine. Stateless.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    /// As the shared handle that components take.
    pub fn shared() -> DiskRef {
        Arc::new(RealDisk)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            OpenHow::Read => {}
            OpenHow::Write => {
                options.write(true);
            }
            OpenHow::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let about = match entry.metadata() {
                Ok(about) => about,
                // Removed since the folder was read: it is not there.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            found.push(DiskEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                len: if about.is_dir() { 0 } else { about.len() },
                is_dir: about.is_dir(),
            });
        }
        Ok(found)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut at = path;
        loop {
            match statfs(at) {
                Err(e) if e.kind() == ErrorKind::NotFound => at = parent(at),
                answer => return answer,
            }
        }
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.dev())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn std::fmt::Debug + Send + Sync>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

/// The folder above; a relative path ends at the working folder.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

fn statfs(path: &Path) -> io::Result<Space> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut about = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `name` ends with NUL and `about` is writable memory of the right type, both alive through the call.
    if unsafe { libc::statfs(name.as_ptr(), about.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and so filled it in.
    let about = unsafe { about.assume_init() };
    let block = about.f_frsize.max(1).unsigned_abs();
    Ok(Space {
        total: about.f_blocks.saturating_mul(block),
        free: about.f_bavail.saturating_mul(block),
        durable: !matches!(about.f_type, libc::TMPFS_MAGIC | RAMFS_MAGIC),
    })
}

/// `libc` has no name for it.
const RAMFS_MAGIC: i64 = 0x8584_58f6;

#[derive(Debug)]
struct RealFile(File);

impl RealFile {
    /// False when the file system cannot do it.
    fn fallocate(&self, how: libc::c_int, range: Range<u64>) -> io::Result<bool> {
        loop {
            let (at, len) = (
                range.start as libc::off_t,
                range.end.saturating_sub(range.start) as libc::off_t,
            );
            // SAFETY: no memory is passed.
            if unsafe { libc::fallocate(self.0.as_raw_fd(), how, at, len) } == 0 {
                return Ok(true);
            }
            let e = io::Error::last_os_error();
            match e.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(false),
                _ => return Err(e),
            }
        }
    }

    fn write_zeros(&self, mut range: Range<u64>) -> io::Result<()> {
        while !range.is_empty() {
            let n = (range.end - range.start).min(ZEROS.len() as u64);
            self.0.write_all_at(&ZEROS[..n as usize], range.start)?;
            range.start += n;
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match self.0.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_all_at(&self, chunks: &[Bytes], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<libc::iovec> = Vec::with_capacity(chunks.len());
        slices.extend(chunks.iter().filter(|c| !c.is_empty()).map(|chunk| libc::iovec {
            iov_base: chunk.as_ptr().cast_mut().cast(),
            iov_len: chunk.len(),
        }));
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let count = left.len().min(WRITE_CHUNKS_MAX);
            // SAFETY: the first `count` entries point into `chunks`, which outlive the call; the kernel only reads them.
            let n = unsafe {
                libc::pwritev(
                    self.0.as_raw_fd(),
                    left.as_ptr(),
                    count as libc::c_int,
                    offset as libc::off_t,
                )
            };
            match n {
                -1 => {
                    let e = io::Error::last_os_error();
                    if e.kind() != ErrorKind::Interrupted {
                        return Err(e);
                    }
                }
                0 => return Err(ErrorKind::WriteZero.into()),
                n => {
                    offset += n.unsigned_abs() as u64;
                    left = advance(left, n.unsigned_abs());
                }
            }
        }
        Ok(())
    }

    fn write_slice_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(libc::FALLOC_FL_KEEP_SIZE, offset..offset.saturating_add(len))
            .map(|_| ())
    }

    fn allocate_extending(&self, range: Range<u64>) -> io::Result<()> {
        let end = range.end;
        let reserved = self.fallocate(0, range)?;
        if !reserved && self.len()? < end {
            self.set_len(end)?;
        }
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        if self.fallocate(how, range.clone())? {
            return Ok(());
        }
        self.write_zeros(range.start..range.end.min(self.len()?))
    }

    fn seek(&self, from: u64, what: Seek) -> io::Result<Option<u64>> {
        let whence = match what {
            Seek::Data => libc::SEEK_DATA,
            Seek::Hole => libc::SEEK_HOLE,
        };
        let from = libc::off_t::try_from(from).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
        // SAFETY: no memory is passed. It moves the position of the file, which no call of ours uses.
        let at = unsafe { libc::lseek(self.0.as_raw_fd(), from, whence) };
        match u64::try_from(at) {
            Ok(at) => Ok(Some(at)),
            Err(_) => match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
                e => Err(e),
            },
        }
    }

    fn start_write_back(&self) {
        // SAFETY: no memory is passed. Without one of the flags that wait, it takes no error away from the flush to come.
        unsafe { libc::sync_file_range(self.0.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn forget_cached(&self) -> io::Result<()> {
        // SAFETY: no memory is passed.
        match unsafe { libc::posix_fadvise(self.0.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn map(&self, len: u64) -> io::Result<Bytes> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let len = usize::try_from(len).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        // SAFETY: the mapping is read-only and shared. By the contract of `DiskFile::map` nobody cuts the file below what is
        // read, and nobody writes again what was handed out: segments only grow.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(&self.0)? };
        Ok(Bytes::from_owner(map))
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.0.as_raw_fd())
    }
}

/// What is left of `slices` after `written` bytes of them.
fn advance(slices: &mut [libc::iovec], mut written: usize) -> &mut [libc::iovec] {
    let mut skip = 0;
    while skip < slices.len() && written >= slices[skip].iov_len {
        written -= slices[skip].iov_len;
        skip += 1;
    }
    let left = &mut slices[skip..];
    if written > 0 {
        let first = &mut left[0];
        // SAFETY: `written` is less than `iov_len`, so the result still points into the same chunk.
        first.iov_base = unsafe { first.iov_base.cast::<u8>().add(written).cast() };
        first.iov_len -= written;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn many_chunks_are_written_in_order_and_read_back() {
        let home = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&home.path().join("f"), OpenHow::CreateNew).unwrap();
        let chunks: Vec<Bytes> = (0..3000u32)
            .map(|i| Bytes::from(vec![i as u8; (i % 7) as usize]))
            .collect();
        let expected = [&[0u8; 5][..], &chunks.concat()].concat();
        file.write_all_at(&chunks, 5).unwrap();
        file.sync_data().unwrap();
        let mut found = vec![1; expected.len() + 10];
        assert_eq!(file.read_at(&mut found, 0).unwrap(), expected.len());
        assert_eq!(&found[..expected.len()], &expected[..]);
        assert_eq!(file.map(expected.len() as u64).unwrap(), expected);
    }

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let chunks = [Bytes::from_static(b"abc"), Bytes::from_static(b"defg")];
        let mut slices: Vec<libc::iovec> = chunks
            .iter()
            .map(|c| libc::iovec {
                iov_base: c.as_ptr().cast_mut().cast(),
                iov_len: c.len(),
            })
            .collect();
        let left = advance(&mut slices, 5);
        assert_eq!(left.len(), 1);
        assert_eq!(
            (left[0].iov_base as usize, left[0].iov_len),
            (chunks[1].as_ptr() as usize + 2, 2)
        );
        assert!(advance(left, 2).is_empty());
    }

    #[test]
    fn reserved_room_does_not_change_the_length() {
        let home = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&home.path().join("f"), OpenHow::CreateNew).unwrap();
        file.allocate(0, 1 << 20).unwrap();
        assert!(file.is_empty().unwrap());
    }

    #[test]
    fn a_file_is_changed_in_place_and_holes_read_as_zeros() {
        let home = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&home.path().join("f"), OpenHow::CreateNew).unwrap();
        file.write_slice_at(&[7; 200_000], 100_000).unwrap();
        file.punch(150_000..1 << 40).unwrap();
        assert_eq!(file.len().unwrap(), 300_000);
        file.allocate_extending(250_000..400_000).unwrap();
        file.allocate_extending(0..1000).unwrap();
        file.write_slice_at(&[8; 10], 160_000).unwrap();
        file.start_write_back();
        file.sync_data().unwrap();
        file.forget_cached().unwrap();
        let mut found = vec![1; 500_000];
        assert_eq!(file.read_at(&mut found, 0).unwrap(), 400_000);
        for (at, byte) in found[..400_000].iter().enumerate() {
            let expected = match at {
                100_000..150_000 => 7,
                160_000..160_010 => 8,
                _ => 0,
            };
            assert_eq!(*byte, expected, "at {at}");
        }
    }

    #[test]
    fn data_and_holes_are_found() {
        let home = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&home.path().join("f"), OpenHow::CreateNew).unwrap();
        file.write_slice_at(&[7; 10], 5).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(file.seek(0, Seek::Data).unwrap(), Some(0));
        let hole = file.seek(0, Seek::Hole).unwrap().unwrap();
        assert!((15..=1 << 20).contains(&hole), "{hole}");
        assert_eq!(file.seek(1 << 20, Seek::Data).unwrap(), None);
        assert_eq!(file.seek(1 << 20, Seek::Hole).unwrap(), None);
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("LOCK");
        let held = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(held);
        RealDisk.lock(&path).unwrap();
    }

    #[test]
    fn space_is_told_of_a_folder_that_is_not_there_yet_and_memory_is_not_durable() {
        let home = tempfile::tempdir().unwrap();
        let space = RealDisk.space(&home.path().join("not/yet")).unwrap();
        assert!(space.total >= space.free && space.total > 0);
        if Path::new("/dev/shm").is_dir() {
            assert!(!RealDisk.space(&PathBuf::from("/dev/shm/x")).unwrap().durable);
        }
    }

    #[test]
    fn a_mapping_outlives_its_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("f");
        let file = RealDisk.open(&path, OpenHow::CreateNew).unwrap();
        file.write_all_at(&[Bytes::from_static(b"still here")], 0).unwrap();
        let map = file.map(10).unwrap();
        drop(file);
        RealDisk.remove(&path).unwrap();
        assert_eq!(map, "still here");
        assert_eq!(
            RealDisk.open(&path, OpenHow::Read).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
