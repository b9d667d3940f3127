//! Attributes that changed when their content was in the store already.
//!
//! They are no reason to send the bytes again: the store is asked to change them where the object lies. What it can not keep stays in
//! the row. The object may have another validator afterwards, so this is done only while the bytes are here too: who has the file open
//! reads those, and an eviction waits. An object that somebody else wrote, or whose copy is gone, is left as it is.

use super::{
    plan::work_key,
    put::{Job, write_of},
    tracker::Outcome,
};
use crate::{Result, cache::Inner, rows::StoreAt};
use forebay_metastore::Check;
use forebay_namespace::Inode;
use forebay_understore::{
    Expect, Found, StoreError,
    attributes::{GID, MODE, MTIME, UID, XATTRS, decode_xattrs, travels},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Before a target that changed meanwhile, or was not understood, is looked at again.
const ANEW: Duration = Duration::from_millis(20);

impl Inner {
    /// The content lies at its target, `at`: its attributes follow.
    pub(super) async fn dress(self: &Arc<Self>, mut job: Job, at: StoreAt) -> Result<Outcome> {
        let found = match job.mount.upload.head(&job.key).await {
            Ok(found) => found,
            Err(error) => return Ok(later(job, error)),
        };
        let Some(found) = found.filter(|found| is_still(&job, &at, found)) else {
            // Somebody else was there: whoever looks next is told so.
            return self.record(job, at).await;
        };
        let here = StoreAt {
            validator: found.validator.0.clone(),
            ..at
        };
        let mut write = write_of(&job);
        let of_another_cache = found.token.is_some() && !self.wrote(&found);
        if of_another_cache || job.content.layout().is_none() || shows(&found, &write.attributes) {
            return self.record(job, here).await;
        }
        let mut place = job.place();
        if place.token.as_ref() != Some(&job.token) {
            (place.token, place.holds) = (Some(job.token.clone()), Some(here.validator.clone()));
            self.claim(&mut job, place).await?;
            let now = self.names.inode(job.ino).await?;
            if now.is_none_or(|(now, _)| now.content != job.inode.content) {
                // From now on nobody evicts it, but somebody may have before.
                return Ok(Outcome::Moved);
            }
        }
        write.expect = Expect::Match(found.validator);
        match job.mount.upload.set_attributes(&write).await {
            Ok(Some(dressed)) => {
                job.mount.health.note(None);
                self.mounts.changed(job.mount.id, &job.key);
                let here = StoreAt {
                    validator: dressed.validator.0,
                    ..here
                };
                self.record(job, here).await
            }
            Ok(None) => self.record(job, here).await,
            Err(StoreError::Refused(why)) => {
                tracing::warn!(path = %job.path, why, "the under-store does not take its attributes; they stay in the cache");
                self.record(job, here).await
            }
            Err(error) => Ok(later(job, error)),
        }
    }

    /// That nothing of a content's attributes is on its way to `at` by its work, as a condition of a plan; `None`: something is.
    pub(crate) async fn undressed(&self, seq: u64, at: &StoreAt) -> Result<Option<Check>> {
        let Some(row) = self.persist.read_row(seq).await? else {
            return Ok(Some(Check::Absent(work_key(seq))));
        };
        let place = row.place(at.mount, &at.key);
        let untouched = place.is_none_or(|place| place.token.is_none());
        Ok(untouched.then(|| Check::At(work_key(seq), row.version)))
    }
}

/// When it is tried again.
fn later(job: Job, error: StoreError) -> Outcome {
    match error {
        StoreError::Unavailable(reason) => Outcome::Away(job.mount.id, reason),
        StoreError::Refused(reason) => Outcome::Blocked { path: job.path, reason },
        StoreError::Damaged(_) | StoreError::Changed(_) | StoreError::NotFound(_) => Outcome::Soon(ANEW),
    }
}

/// Whether what was found is what the row knows, or what an earlier try made of it.
fn is_still(job: &Job, at: &StoreAt, found: &Found) -> bool {
    if found.is_dir || found.size != job.inode.size {
        return false;
    }
    let tried = job.place().token.as_ref() == Some(&job.token);
    let dressed = match &found.token {
        Some(token) => *token == job.token,
        None => shows_mtime(found.mtime, job.inode.mtime.0),
    };
    found.validator.0 == at.validator || tried && dressed
}

/// Whether no under-store would see a difference.
pub(crate) fn look_alike(a: &Inode, b: &Inode) -> bool {
    let plain = |inode: &Inode| (inode.mode & 0o7777, inode.uid, inode.gid, inode.mtime);
    let of_users = |inode: &Inode| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let xattrs = inode.xattrs.iter().filter(|(name, _)| travels(name));
        xattrs.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    plain(a) == plain(b) && of_users(a) == of_users(b)
}

/// Whether the store has these attributes already.
fn shows(found: &Found, wanted: &[(String, String)]) -> bool {
    let (there, wanted) = (Seen::of(&found.attributes), Seen::of(wanted));
    let times = there.mtime.zip(wanted.mtime);
    times.is_some_and(|(there, wanted)| shows_mtime(there, wanted)) && there.others == wanted.others
}

/// Whether what a store shows is this mtime; some know milliseconds only. Microseconds.
fn shows_mtime(there: i64, wanted: i64) -> bool {
    there == wanted || there % 1000 == 0 && there == wanted - wanted.rem_euclid(1000)
}

/// Attributes as they are compared: what is absent is as usual.
#[derive(Debug)]
struct Seen {
    mtime: Option<i64>,
    others: (u32, u32, u32, BTreeMap<Vec<u8>, Vec<u8>>),
}

impl Seen {
    fn of(attributes: &[(String, String)]) -> Self {
        let value = |name: &str| Some(attributes.iter().find(|(known, _)| known == name)?.1.as_str());
        let id = |name| value(name).and_then(|id| id.parse().ok()).unwrap_or(0);
        let mode = value(MODE).and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let xattrs = value(XATTRS).map(decode_xattrs).unwrap_or_default();
        Self {
            mtime: value(MTIME).and_then(|micros| micros.parse().ok()),
            others: (mode.map_or(0o644, |mode| mode & 0o7777), id(UID), id(GID), xattrs),
        }
    }
}
