//! Tiers: faster places than the data folders for second copies of clean blocks, as a tmpfs or a quick disk before slow ones.
//!
//! A block lies in a data folder first. A copy of it goes up a tier each time a reader reads it again where it lies, so a single pass over
//! much data brings nothing up; where the policy `tier` names a tier it goes there at once, and where it says `disk` it never goes up. It
//! comes down by being dropped: when others need the room (by the same rules as in the data folders, pins and epochs included), when the
//! block goes, or when its file can not be read. A tier may be emptied or lost at any time, and nothing is fetched again because of it.
//! Nothing dirty is ever in it.

use super::blocks::BlockId;
use crate::{Error, Result, TierSettings};
use forebay_policy::{
    Room,
    room::{Entered, Place},
    value,
};
use forebay_runtime::disk::DiskRef;
use std::{fmt::Debug, io::ErrorKind, path::PathBuf, sync::Arc, time::Duration};

/// Most tiers.
const TIERS_MAX: usize = 8;

/// One of them.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) name: String,
    /// As it was named.
    pub(crate) dir: PathBuf,
    /// Most bytes in it.
    pub(crate) limit: u64,
    /// Reads that found the block's copy in it.
    pub(crate) hits: u64,
    room: Room<BlockId>,
}

/// What lies in which of them. The fastest is the first.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    /// The folder of the first; those before it are data folders.
    first: usize,
    tiers: Vec<Tier>,
}

/// Holds a tier's folder for this process.
pub(super) type Lock = Box<dyn Debug + Send + Sync>;

impl Tiers {
    /// Those of the settings, after `first` data folders.
    pub(super) fn new(first: usize, settings: &[TierSettings]) -> Self {
        let tier = |settings: &TierSettings| Tier {
            name: settings.name.clone(),
            dir: settings.dir.clone(),
            limit: settings.size.0,
            hits: 0,
            room: Room::new(settings.size.0),
        };
        Self {
            first,
            tiers: settings.iter().map(tier).collect(),
        }
    }

    /// Each with its folder.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Tier, usize)> {
        self.tiers.iter().zip(self.first..)
    }

    fn tier(&mut self, folder: usize) -> Option<&mut Tier> {
        self.tiers.get_mut(folder.checked_sub(self.first)?)
    }

    /// A reader reads the block, whose fastest copy lies in this folder.
    pub(super) fn read(&mut self, id: &BlockId, place: &Arc<Place>, lies: Option<usize>, now: Duration) {
        for (tier, folder) in self.tiers.iter_mut().zip(self.first..) {
            tier.room.read(id, place, now);
            tier.hits += u64::from(lies == Some(folder));
        }
    }

    /// The folder in which there should be a copy of a block whose fastest one lies in `lies`, none: in a data folder. `again`: a reader
    /// reads it and has read it before. None: where it lies is right.
    pub(super) fn goal(&self, place: &Place, lies: Option<usize>, again: bool) -> Option<usize> {
        match place.tier.name() {
            value::Tier::DISK => None,
            value::Tier::AUTO if again => lies
                .unwrap_or(self.first + self.tiers.len())
                .checked_sub(1)
                .filter(|folder| *folder >= self.first),
            value::Tier::AUTO => None,
            name => {
                let at = self.tiers.iter().position(|tier| tier.name == name)?;
                Some(self.first + at).filter(|folder| lies != Some(*folder))
            }
        }
    }

    /// Whether a copy in this folder is as the policy wants it.
    pub(super) fn fits(&self, place: &Place, folder: usize) -> bool {
        match place.tier.name() {
            value::Tier::DISK => false,
            value::Tier::AUTO => true,
            name => self.all().any(|(tier, at)| at == folder && tier.name == name),
        }
    }

    /// Makes room for a copy; whether there is, and whose copies have to go. One that is there or on its way already needs none.
    pub(super) fn enter(
        &mut self,
        id: &BlockId,
        bytes: u64,
        folder: usize,
        place: &Arc<Place>,
        now: Duration,
    ) -> Entered<BlockId> {
        match self.tier(folder).filter(|tier| !tier.room.holds(id)) {
            Some(tier) => tier.room.enter(id.clone(), bytes, place, now),
            None => Entered {
                kept: false,
                gone: Vec::new(),
            },
        }
    }

    pub(super) fn holds(&mut self, id: &BlockId, folder: usize) -> bool {
        self.tier(folder).is_some_and(|tier| tier.room.holds(id))
    }

    pub(super) fn leave(&mut self, id: &BlockId, folder: usize) {
        if let Some(tier) = self.tier(folder) {
            tier.room.leave(id);
        }
    }

    /// The block goes.
    pub(super) fn forget(&mut self, id: &BlockId) {
        for tier in &mut self.tiers {
            tier.room.leave(id);
        }
    }

    /// Policies were changed: whose copies in which folder have to go.
    pub(super) fn replace(
        &mut self,
        place: impl Fn(&BlockId, &Place) -> Arc<Place>,
        now: Duration,
    ) -> Vec<(BlockId, usize)> {
        let mut gone = Vec::new();
        for (tier, folder) in self.tiers.iter_mut().zip(self.first..) {
            let left = tier.room.replace(&place, now);
            gone.extend(left.into_iter().map(|id| (id, folder)));
        }
        gone
    }
}

/// Makes the tiers' folders and holds them.
///
/// # Errors
/// Invalid, naming the tier: a name is wrong or comes twice, there are too many, or one has no size. Precondition: another process has
/// the folder. Unavailable: it can not be made.
pub(super) fn open(settings: &[TierSettings], disk: &DiskRef) -> Result<Vec<Lock>> {
    if settings.len() > TIERS_MAX {
        return Err(Error::invalid(format!(
            "{} tiers are more than {TIERS_MAX}; leave some out",
            settings.len()
        )));
    }
    let mut locks = Vec::with_capacity(settings.len());
    for (n, tier) in settings.iter().enumerate() {
        let about = |error: Error| error.at(format!("tier {}", tier.name));
        check(tier, &settings[..n]).map_err(about)?;
        disk.create_dir_all(&tier.dir)
            .and_then(|()| disk.space(&tier.dir))
            .map(|space| {
                if space.total < tier.size.0 {
                    tracing::warn!(tier = tier.name, dir = %tier.dir.display(), size = %tier.size, total_bytes = space.total, "a tier is larger than its file system");
                }
            })
            .map_err(|error| {
                Error::unavailable(format!(
                    "can not use {}: {error}; name a folder that can be written, or leave the tier out",
                    tier.dir.display()
                ))
            })
            .map_err(about)?;
        let lock = disk.lock(&tier.dir.join("lock")).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => Error::precondition(format!(
                "another process uses {}; name another folder",
                tier.dir.display()
            )),
            _ => Error::unavailable(format!("can not lock {}: {error}", tier.dir.display())),
        });
        locks.push(lock.map_err(about)?);
    }
    Ok(locks)
}

fn check(tier: &TierSettings, before: &[TierSettings]) -> Result<()> {
    if !value::Tier::may_be_called(&tier.name) {
        return Err(Error::invalid(
            "a tier's name has up to 32 small letters, digits, '-' and '_', and is neither \"disk\" nor \"auto\"",
        ));
    }
    if tier.size.0 == 0 {
        return Err(Error::invalid("its size is 0; give it some, or leave it out"));
    }
    if before
        .iter()
        .any(|other| other.name == tier.name || other.dir == tier.dir)
    {
        return Err(Error::invalid(
            "another tier has its name or its folder; give each its own",
        ));
    }
    Ok(())
}
