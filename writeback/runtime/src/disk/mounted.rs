//! Several file systems in one tree, each below a folder of its own.

use super::{Disk, DiskEntry, DiskFile, DiskRef, OpenHow, Space};
use std::{
    fmt::Debug,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Hands each call to the disk whose folder the path lies in; the deepest one that fits. Elsewhere there is nothing.
#[derive(Clone, Debug)]
pub struct MountedDisks {
    mounts: Vec<(PathBuf, DiskRef)>,
}

impl MountedDisks {
    /// Each disk at its folder.
    pub fn new(mounts: impl IntoIterator<Item = (PathBuf, DiskRef)>) -> MountedDisks {
        let mut mounts: Vec<_> = mounts.into_iter().collect();
        mounts.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.components().count()));
        MountedDisks { mounts }
    }

    fn at(&self, path: &Path) -> io::Result<&DiskRef> {
        let mount = self.mounts.iter().find(|(folder, _)| path.starts_with(folder));
        mount.map(|(_, disk)| disk).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Disk for MountedDisks {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        self.at(path)?.open(path, how)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let disk = self.at(from)?;
        match Arc::ptr_eq(disk, self.at(to)?) {
            true => disk.rename(from, to),
            false => Err(ErrorKind::CrossesDevices.into()),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.at(path)?.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        self.at(path)?.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.at(path)?.space(path)
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        self.at(path)?.device(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Debug + Send + Sync>> {
        self.at(path)?.lock(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;
    use bytes::Bytes;

    #[test]
    fn each_path_lies_on_the_disk_of_its_folder() {
        let (near, far) = (SimDisk::new(1), SimDisk::new(2));
        let disk = MountedDisks::new([("/a".into(), near.shared()), ("/a/b".into(), far.shared())]);
        disk.create_dir_all(Path::new("/a/b/c")).unwrap();
        let file = disk.open(Path::new("/a/b/c/f"), OpenHow::CreateNew).unwrap();
        file.write_all_at(&[Bytes::from_static(b"far")], 0).unwrap();
        assert_eq!((near.calls().writes, far.calls().writes), (0, 1));
        let across = disk.rename(Path::new("/a/b/c/f"), Path::new("/a/f")).unwrap_err();
        assert_eq!(across.kind(), ErrorKind::CrossesDevices);
        assert_eq!(
            disk.list(Path::new("/elsewhere")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let device = |path: &str| disk.device(Path::new(path)).unwrap();
        assert!(device("/a/x") == device("/a/y") && device("/a/x") != device("/a/b/x"));
    }
}
