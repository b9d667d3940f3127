//! Names of users and groups for the numbers that rows keep, and back: the system's where it knows one, else the engine's.
//!
//! The system may ask a directory service, so it is asked apart from the runtime's threads and its answers are remembered for a while.

use forebay_runtime::task;
use forebay_writeback::{
    Cache, Result,
    owners::{OWNER_NUMBERS, OwnerKind},
};
use moka::sync::Cache as Remembered;
use nix::unistd::{Gid, Group, Uid, User};
use std::{sync::Arc, time::Duration};

/// How long an answer is remembered, and how many are.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
const REMEMBERED_MAX: u64 = 4096;

/// Knows owners.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    cache: Cache,
    numbers: Remembered<(OwnerKind, String), u32>,
    names: Remembered<(OwnerKind, u32), Arc<str>>,
}

impl Owners {
    pub(crate) fn new(cache: Cache) -> Self {
        Self {
            cache,
            numbers: Remembered::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(REMEMBERED_FOR)
                .build(),
            names: Remembered::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(REMEMBERED_FOR)
                .build(),
        }
    }

    /// The number of a name. One that is a number itself, of somebody whom nobody knows, is that number.
    pub(crate) async fn number(&self, kind: OwnerKind, name: &str) -> Result<u32> {
        let key = (kind, name.to_owned());
        if let Some(number) = self.numbers.get(&key) {
            return Ok(number);
        }
        let asked = name.to_owned();
        let known = task::blocking(move || system_number(kind, &asked)).await;
        let number = match known.or_else(|| name.parse().ok()) {
            Some(number) => number,
            None => self.cache.owner_number(kind, name).await?,
        };
        self.numbers.insert(key, number);
        Ok(number)
    }

    /// The name of a number; the number itself where it has none.
    pub(crate) async fn name(&self, kind: OwnerKind, number: u32) -> Result<Arc<str>> {
        if let Some(name) = self.names.get(&(kind, number)) {
            return Ok(name);
        }
        let name = match OWNER_NUMBERS.contains(&number) {
            true => self.cache.owner_name(kind, number).await?,
            false => task::blocking(move || system_name(kind, number)).await,
        };
        let name: Arc<str> = name.unwrap_or_else(|| number.to_string()).into();
        self.names.insert((kind, number), Arc::clone(&name));
        Ok(name)
    }
}

/// What the system can not tell it does not know.
fn system_number(kind: OwnerKind, name: &str) -> Option<u32> {
    match kind {
        OwnerKind::User => User::from_name(name).ok()?.map(|user| user.uid.as_raw()),
        OwnerKind::Group => Group::from_name(name).ok()?.map(|group| group.gid.as_raw()),
    }
}

fn system_name(kind: OwnerKind, number: u32) -> Option<String> {
    match kind {
        OwnerKind::User => User::from_uid(Uid::from_raw(number)).ok()?.map(|user| user.name),
        OwnerKind::Group => Group::from_gid(Gid::from_raw(number)).ok()?.map(|group| group.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_root() {
        assert_eq!(system_number(OwnerKind::User, "root"), Some(0));
        assert_eq!(system_name(OwnerKind::Group, 0).as_deref(), Some("root"));
        assert_eq!(system_number(OwnerKind::User, "nobody of this name"), None);
    }
}
