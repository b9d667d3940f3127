//! Numbers for owners that are known by name alone.
//!
//! Rows keep users and groups as numbers, as POSIX does; protocols like WebHDFS name them. A name that the system knows has the system's
//! number, and whoever asks here has found out that it knows none: then a number of a range of its own is given to the name, once and
//! for all. It does not own what the system knows, nor what an owner may do: that is for the doors.

use crate::{
    Cache, Error, Result,
    rows::{self, owner_name_key, owner_number_key},
};
use crc_fast::CrcAlgorithm;
use forebay_metastore::Check;
use forebay_namespace::Plan;
use std::ops::Range;

/// Numbers given to names. Far above what systems give to their users, and each still a positive `i32`.
pub const OWNER_NUMBERS: Range<u32> = 0x6000_0000..0x6001_0000;
/// Longest name, bytes.
pub const OWNER_NAME_BYTES_MAX: usize = 255;
/// Numbers tried for one name. When so many are taken in a row the range is full for all purposes.
const TRIES_MAX: u32 = 64;

/// Users and groups have numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// A user.
    User,
    /// A group.
    Group,
}

impl OwnerKind {
    pub(crate) fn byte(self) -> u8 {
        match self {
            OwnerKind::User => b'u',
            OwnerKind::Group => b'g',
        }
    }
}

impl Cache {
    /// The number of a name that the system has none for: always the same. Invalid for a name that is empty or too long, Full when
    /// there are too many.
    pub async fn owner_number(&self, kind: OwnerKind, name: &str) -> Result<u32> {
        if name.is_empty() || name.len() > OWNER_NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "an owner's name of {} bytes; 1 to {OWNER_NAME_BYTES_MAX} are allowed",
                name.len()
            )));
        }
        let mut attempts = self.inner.attempts(format!("give a number to the owner {name}"));
        loop {
            if let Some(number) = self.known_number(kind, name).await? {
                return Ok(number);
            }
            match self.give_number(kind, name).await {
                Ok(number) => return Ok(number),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// The name to which a number of [`OWNER_NUMBERS`] was given.
    pub async fn owner_name(&self, kind: OwnerKind, number: u32) -> Result<Option<String>> {
        if !OWNER_NUMBERS.contains(&number) {
            return Ok(None);
        }
        let key = owner_name_key(kind, number);
        let found = self.inner.components.meta.get(&[key]).await?.pop().flatten();
        found.map(|entry| rows::decode(&entry.value)).transpose()
    }

    async fn known_number(&self, kind: OwnerKind, name: &str) -> Result<Option<u32>> {
        let key = owner_number_key(kind, name);
        let found = self.inner.components.meta.get(&[key]).await?.pop().flatten();
        found.map(|entry| rows::decode(&entry.value)).transpose()
    }

    /// Takes the first free number from where the name's hash points to.
    async fn give_number(&self, kind: OwnerKind, name: &str) -> Result<u32> {
        let count = OWNER_NUMBERS.end - OWNER_NUMBERS.start;
        let hash = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, name.as_bytes()) as u32;
        let candidates: Vec<u32> = (0..TRIES_MAX)
            .map(|try_| OWNER_NUMBERS.start + hash.wrapping_add(try_) % count)
            .collect();
        let keys: Vec<_> = candidates.iter().map(|number| owner_name_key(kind, *number)).collect();
        let taken = self.inner.components.meta.get(&keys).await?;
        let free = candidates.iter().zip(taken).find(|(_, entry)| entry.is_none());
        let Some((&number, _)) = free else {
            return Err(Error::full(format!(
                "no number is left for the owner {name}: too many names that this system does not know own something here"
            )));
        };
        let (by_name, by_number) = (owner_number_key(kind, name), owner_name_key(kind, number));
        let mut plan = Plan::default();
        plan.check(Check::Absent(by_name.clone()))
            .check(Check::Absent(by_number.clone()))
            .put(by_name, rows::encode(&number))
            .put(by_number, rows::encode(&name));
        self.inner.commit(plan).await?;
        Ok(number)
    }
}
