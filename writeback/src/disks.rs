//! The file systems that the data folders lie on, and the room on them.
//!
//! Folders on one file system share its room, which is counted once. One that does not answer has none; only when none answers is that an
//! error. It does not own in which folder something goes: that is the segment store's.

use crate::{Error, Result};
use forebay_runtime::disk::{DiskRef, Space};
use std::path::{Path, PathBuf};

/// Room left on each file system for everything but writers' bytes, or this share of it if that is less.
const RESERVE_MAX: u64 = 64 << 20;
const RESERVE_SHARE: u64 = 100;

/// The file systems. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    disk: DiskRef,
    /// One folder on each.
    folders: Vec<PathBuf>,
}

/// Room on one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room<'a> {
    pub(crate) folder: &'a PathBuf,
    pub(crate) free: u64,
    pub(crate) reserve: u64,
}

impl Room<'_> {
    /// What writers may take.
    pub(crate) fn left(&self) -> u64 {
        self.free.saturating_sub(self.reserve)
    }
}

impl Disks {
    /// Those under `folders`.
    pub(crate) fn new(disk: DiskRef, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let (mut on, mut devices) = (Vec::new(), Vec::new());
        for folder in folders {
            let device = disk.device(&folder).ok();
            if device.is_none_or(|device| !devices.contains(&device)) {
                devices.extend(device);
                on.push(folder);
            }
        }
        Self { disk, folders: on }
    }

    /// All of them together.
    pub(crate) fn space(&self) -> Result<Space> {
        let spaces = self.ask()?.into_iter().map(|(_, space)| space);
        let sum = spaces.reduce(|a, b| Space {
            total: a.total + b.total,
            free: a.free + b.free,
            durable: a.durable && b.durable,
        });
        Ok(sum.expect("one answered"))
    }

    /// Where most is left for writers.
    pub(crate) fn roomiest(&self) -> Result<Room<'_>> {
        let rooms = self.ask()?.into_iter().map(|(folder, space)| Room {
            folder,
            free: space.free,
            reserve: RESERVE_MAX.min(space.total / RESERVE_SHARE),
        });
        Ok(rooms.max_by_key(Room::left).expect("one answered"))
    }

    /// Bytes that the file system of `folder` lacks to twice the reserve; 0 when it lacks none, or does not answer.
    pub(crate) fn short_of_room(&self, folder: &Path) -> u64 {
        let wanted = |space: Space| 2 * RESERVE_MAX.min(space.total / RESERVE_SHARE);
        let space = self.disk.space(folder);
        space.map_or(0, |space| wanted(space).saturating_sub(space.free))
    }

    fn ask(&self) -> Result<Vec<(&PathBuf, Space)>> {
        let (mut answers, mut refused) = (Vec::new(), None);
        for folder in &self.folders {
            match self.disk.space(folder) {
                Ok(space) => answers.push((folder, space)),
                Err(error) => refused = Some((folder, error)),
            }
        }
        match refused {
            Some((folder, error)) if answers.is_empty() => Err(Error::unavailable(format!(
                "{}: can not ask for free space: {error}",
                folder.display()
            ))),
            _ => Ok(answers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_runtime::disk::{Fault, MountedDisks, SimDisk};
    use std::sync::Arc;

    #[test]
    fn room_that_is_shared_counts_once_and_a_disk_that_is_gone_has_none() {
        let (a, b) = (SimDisk::new(1), SimDisk::new(2));
        a.set_capacity(100 << 20);
        b.set_capacity(1000 << 20);
        let tree = MountedDisks::new([("/a".into(), a.shared()), ("/b".into(), b.shared())]);
        let folders = ["/a/x", "/a/y", "/b/z"].map(PathBuf::from);
        let disks = Disks::new(Arc::new(tree), folders);
        assert_eq!(disks.space().unwrap().total, 1100 << 20);
        let room = disks.roomiest().unwrap();
        assert_eq!((room.folder.as_path(), room.left()), ("/b/z".as_ref(), 990 << 20));
        b.arm(Fault::PowerOff(0));
        b.shared().create_dir_all("/b/q".as_ref()).unwrap_err();
        assert_eq!(disks.space().unwrap().total, 100 << 20);
        assert_eq!(disks.roomiest().unwrap().folder.as_path(), "/a/x");
        a.arm(Fault::PowerOff(0));
        a.shared().create_dir_all("/a/q".as_ref()).unwrap_err();
        assert!(disks.space().unwrap_err().to_string().contains("can not ask"));
    }
}
