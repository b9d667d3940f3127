//! Which of the named folders is which, and whether all are there.
//!
//! A store is one folder or several, each with a number that its segments carry in their ids. Folder 0, the home, has the list of all: a
//! tag for each number, made when the folder joined. A folder says its own number and tag. So the order in which folders are named means
//! nothing, one that is not mounted is missed and never replaced by the empty folder under its mount point, and a copy of a folder from
//! other days is not taken for it.
//!
//! Crash consistency: the home is made first, alone. A folder that joins gets its identity first, and the home's list then; nothing is
//! written to it before. A crash in between leaves a folder with an identity that no list has and without segments: it joins anew.

use crate::{
    error::{Result, SegmentError},
    folder::{Folder, Name, parse},
    header::{FOLDERS_MAX, Header},
    identity::{self, Place},
    layout::SegmentId,
    manifest,
};
use forebay_runtime::{
    clock::Timestamp,
    disk::{DiskEntry, DiskRef},
};
use std::{
    fmt::Debug,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// What lies in one of the named folders.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) folder: Folder,
    pub(crate) entries: Vec<DiskEntry>,
    /// None: it never was one of ours, or joined no store in the end.
    pub(crate) before: Option<Header>,
}

/// The store that the named folders are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members {
    /// The number of each named folder, in their order. Those that join have none yet.
    pub(crate) numbers: Vec<Option<u8>>,
    /// The tags of all by number; empty when there is no home yet.
    pub(crate) tags: Vec<u64>,
}

/// The home among `folders`: the one that has what belongs to the whole store and is no segment, as its metastore. Of a store that is not
/// made yet it is the first. Changes nothing.
///
/// `FolderMissing`, `Foreign`, `Misplaced`: they are not the folders of one store.
pub fn home(folders: &[PathBuf], disk: &DiskRef) -> Result<PathBuf> {
    let seen = survey(folders, disk)?;
    let members = Members::of(&seen.iter().collect::<Vec<_>>(), disk)?;
    let at = members.numbers.iter().position(|number| *number == Some(0));
    Ok(folders[at.unwrap_or(0)].clone())
}

/// Takes `out`, one of `folders`, out of their store for good, while no process has them open: from then on a start without it is fine.
///
/// `Misplaced`: it has segments, it is the home, or it is none of the store's. `FolderMissing`: the others are not all there.
pub fn take_out(out: &Path, folders: &[PathBuf], disk: &DiskRef) -> Result<()> {
    let _locks: Vec<_> = survey(folders, disk)?
        .iter()
        .map(|seen| lock(disk, &seen.folder))
        .collect::<Result<_>>()?;
    let seen = survey(folders, disk)?;
    let refused = |what: &str| SegmentError::Misplaced {
        folder: out.to_owned(),
        what: what.to_owned(),
    };
    let mut members = Members::of(&seen.iter().collect::<Vec<_>>(), disk)?;
    let at = folders.iter().position(|folder| folder == out);
    let at = at.ok_or_else(|| refused("is not among the data folders that are named"))?;
    match members.numbers[at] {
        None => return Err(refused("is no data folder of this store")),
        Some(0) => return Err(refused("is the store's home, which stays for as long as the store")),
        Some(number) if !seen[at].has_segments(disk)? => members.tags[usize::from(number)] = 0,
        Some(_) => {
            return Err(refused(
                "has segments; wait until all is persisted, free it (`forebay free /`), stop the server and try again",
            ));
        }
    }
    let home = members.numbers.iter().position(|number| *number == Some(0));
    let home = &seen[home.expect("there are no members without a home")];
    let header = Header {
        folders: members.tags,
        ..home.before.clone().expect("it has a number")
    };
    let path = home.folder.identity();
    manifest::replace(disk, &home.folder, &path, &[header.encode()], true).map(drop)
}

/// Locks a folder that is there.
pub(crate) fn lock(disk: &DiskRef, folder: &Folder) -> Result<Box<dyn Debug + Send + Sync>> {
    disk.lock(&folder.lock()).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => SegmentError::Locked {
            folder: folder.path().to_owned(),
        },
        _ => SegmentError::disk("lock", folder.path(), e),
    })
}

/// Looks at the folders without changing anything; one that does not exist is empty.
pub(crate) fn survey(folders: &[PathBuf], disk: &DiskRef) -> Result<Vec<Seen>> {
    let look = |path: &PathBuf| {
        let folder = Folder(path.clone());
        let entries = match disk.list(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(|e| SegmentError::disk("list", path, e))?,
        };
        Seen::read(disk, folder, entries, None)
    };
    let seen: Vec<Seen> = folders.iter().map(look).collect::<Result<_>>()?;
    // Which cluster's they are is the metastore's to say; here it is enough that they agree.
    let mut clusters = seen.iter().filter_map(|seen| Some(seen.before.as_ref()?.cluster));
    if let Some(first) = clusters.next() {
        for seen in &seen {
            identity::read(disk, &seen.folder, &seen.entries, Some(&first))?;
        }
    }
    Ok(seen)
}

impl Seen {
    pub(crate) fn read(
        disk: &DiskRef,
        folder: Folder,
        entries: Vec<DiskEntry>,
        cluster: Option<&[u8; 16]>,
    ) -> Result<Seen> {
        let before = identity::read(disk, &folder, &entries, cluster)?;
        Ok(Seen {
            folder,
            entries,
            before,
        })
    }

    fn number(&self) -> Option<u8> {
        self.before.as_ref().map(|header| header.segment.folder())
    }

    /// Whether it has segments, or may have.
    fn has_segments(&self, disk: &DiskRef) -> Result<bool> {
        let file = |entry: &DiskEntry| !matches!(parse(&entry.name), Name::Other | Name::Temporary);
        match manifest::read(disk, &self.folder, None) {
            Err(SegmentError::Missing { .. }) => Ok(self.entries.iter().any(file)),
            Ok(listed) => Ok(!listed.known.is_empty() || self.entries.iter().any(file)),
            Err(e) => Err(e),
        }
    }

    fn misplaced(&self, what: String) -> SegmentError {
        SegmentError::Misplaced {
            folder: self.folder.path().to_owned(),
            what,
        }
    }
}

impl Members {
    /// Says which folder is which. `FolderMissing`: one is not there. `Misplaced`: one can not be among the others.
    pub(crate) fn of(seen: &[&Seen], disk: &DiskRef) -> Result<Members> {
        let mut homes = seen.iter().filter(|seen| seen.number() == Some(0));
        let Some(home) = homes.next() else {
            return match seen.iter().any(|seen| seen.before.is_some()) {
                true => Err(missing(0, seen)),
                false => Ok(Members {
                    numbers: vec![None; seen.len()],
                    tags: Vec::new(),
                }),
            };
        };
        if let Some(other) = homes.next() {
            return Err(other.misplaced(format!(
                "this and {} are the first folder of a store each; name the folders of one store only",
                home.folder.path().display()
            )));
        }
        let header = home.before.as_ref().expect("it has a number");
        let mut members = Members {
            numbers: Vec::with_capacity(seen.len()),
            tags: header.folders.clone(),
        };
        if members.tags.is_empty() {
            // It never knew of others.
            members.tags.push(0);
        }
        for seen in seen {
            let number = members.number(seen, disk)?;
            members.numbers.push(number);
        }
        for (number, tag) in (0..).zip(&members.tags) {
            if *tag != 0 && !members.numbers.contains(&Some(number)) {
                return Err(missing(number, seen));
            }
        }
        Ok(members)
    }

    fn number(&self, seen: &Seen, disk: &DiskRef) -> Result<Option<u8>> {
        let Some(header) = &seen.before else { return Ok(None) };
        let number = header.segment.folder();
        let known = self.tags.get(usize::from(number)) == Some(&header.tag) && (header.tag != 0 || number == 0);
        if !known {
            return match seen.has_segments(disk)? {
                false => Ok(None),
                true => Err(seen.misplaced(format!(
                    "it says that it is data folder {number} of this store, and the store has another one or none by that number; \
                     leave it out, or restore all folders from the same day"
                ))),
            };
        }
        match self.numbers.contains(&Some(number)) {
            false => Ok(Some(number)),
            true => Err(seen.misplaced(format!(
                "another of the folders that are named is data folder {number} of this store too; name only one of the two"
            ))),
        }
    }

    /// The folder that has this number.
    pub(crate) fn place(&self, number: u8) -> Place {
        match number {
            0 => self.home(),
            _ => Place {
                number,
                tag: self.tags[usize::from(number)],
                folders: Vec::new(),
            },
        }
    }

    /// The number and tag of a folder that joins now.
    pub(crate) fn join(&mut self, folder: &Path, now: Timestamp) -> Result<Place> {
        if self.tags.len() >= FOLDERS_MAX {
            return Err(SegmentError::Misplaced {
                folder: folder.to_owned(),
                what: format!("it would be one more than the {FOLDERS_MAX} data folders that a store may ever have"),
            });
        }
        let number = self.tags.len() as u8;
        // The home needs none: there is no store without it.
        let tag = match number {
            0 => 0,
            _ => tag(folder, now),
        };
        self.tags.push(tag);
        Ok(Place {
            number,
            tag,
            folders: Vec::new(),
        })
    }

    /// The home, as things stand.
    pub(crate) fn home(&self) -> Place {
        Place {
            number: 0,
            tag: 0,
            // One that never had others says nothing, as before there could be any.
            folders: if self.tags.len() > 1 {
                self.tags.clone()
            } else {
                Vec::new()
            },
        }
    }
}

fn missing(number: u8, seen: &[&Seen]) -> SegmentError {
    SegmentError::FolderMissing {
        number,
        named: seen.len(),
    }
}

/// Differs from that of any other folder that ever had the number: by where and when it joined. Never 0.
fn tag(folder: &Path, now: Timestamp) -> u64 {
    let place = crate::crc::crc32c(folder.as_os_str().as_encoded_bytes());
    (u64::from(place) << 32 ^ now.0 as u64).max(1)
}

/// Refuses a segment that another folder made: it was copied here by hand.
pub(crate) fn check_ids(seen: &Folder, number: u8, ids: impl IntoIterator<Item = SegmentId>) -> Result<()> {
    match ids.into_iter().find(|id| id.folder() != number) {
        None => Ok(()),
        Some(id) => Err(SegmentError::Misplaced {
            folder: seen.path().to_owned(),
            what: format!(
                "segment {id} belongs to data folder {}, and this is {number}; put its files back where they were",
                id.folder()
            ),
        }),
    }
}
