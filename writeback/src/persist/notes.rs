//! What is noted of uploads in parts, so that a later life goes on with them.
//!
//! A note is written when the store has acknowledged the part, and only while the row is as the run knows it: whoever takes the
//! upload away has changed the row before, so no note comes after its end. Notes are hints. One that is missing costs a part
//! that is sent again; one that does not tell the truth costs an upload that begins anew, because the store compares its name
//! for each part, and the object's size is proven in the end. So nobody waits for a note that fails or asks for it again, and
//! notes that could not be removed go at the next start.
//!
//! Local folders have none: what was written to them in parts is durable with the whole only.

use super::{
    plan::{Row, work_key},
    put::Job,
    upload::{PARTS_MAX, Partial, part_count},
};
use crate::{
    Result,
    cache::Inner,
    rows::{self, PartNote, Place, table},
};
use forebay_metastore::{Check, Key, Op, Tx, prefix_end};
use forebay_understore::{PartId, UploadId};
use std::{collections::HashSet, ops::Range};

/// Notes read, or removed, at once.
const PAGE: usize = 1000;
/// Longest id of an upload that fits into a key with all the rest; stores give out a few hundred bytes.
const ID_BYTES_MAX: usize = 1000;

/// Uploads that places name, by mount and id.
#[derive(Debug, Default)]
pub(super) struct Named(HashSet<(u32, String)>);

impl Named {
    pub(super) fn add(&mut self, row: &Row) {
        let named = |place: &Place| Some((place.mount, place.upload.clone()?));
        self.0.extend(row.work.places.iter().filter_map(named));
    }

    fn has(&self, key: &[u8]) -> bool {
        rows::part_noted(key).is_some_and(|(mount, upload, _)| self.0.contains(&(mount, upload.to_owned())))
    }
}

impl Inner {
    /// The store has the part.
    pub(super) async fn note_part(&self, job: &Job, upload: &UploadId, part_bytes: u64, part: &PartId) {
        if !is_noted(job, &upload.0) {
            return;
        }
        let note = PartNote {
            token: job.token.clone(),
            part_bytes,
            id: part.id.clone(),
        };
        let key = rows::part_note_key(job.mount.id, &upload.0, part.index);
        let tx = Tx {
            token: None,
            checks: vec![Check::SharedAt(work_key(job.row.seq), job.row.version)],
            ops: vec![Op::Put(key, rows::encode(&note))],
        };
        if let Err(error) = self.components.meta.commit(tx).await {
            tracing::debug!(path = %job.path, part = part.index, %error, "a part was sent and not noted");
        }
    }

    /// Takes up the upload that an earlier life left for exactly this content, when parts of it were noted.
    pub(super) async fn recall_upload(&self, job: &Job, place: &Place) -> Result<()> {
        let Some(upload) = &place.upload else { return Ok(()) };
        let mine = place.token.as_ref() == Some(&job.token);
        if !mine || !is_noted(job, upload) || !self.goes_in_parts(job) || self.is_under_way(job, place) {
            return Ok(());
        }
        let prefix = rows::part_notes_prefix(job.mount.id, upload);
        let mut range = prefix.clone()..prefix_end(&prefix);
        let mut recalled: Option<Partial> = None;
        loop {
            let page = self.components.meta.scan(range.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            range.start = after(last);
            for (key, entry) in &page {
                let noted = rows::part_noted(key).filter(|(_, of, _)| of == upload);
                let (Some((_, _, index)), Ok(note)) = (noted, rows::decode::<PartNote>(&entry.value)) else {
                    continue;
                };
                if note.token != job.token {
                    continue;
                }
                let partial = recalled.get_or_insert_with(|| Partial {
                    upload: UploadId(upload.clone()),
                    token: note.token,
                    part_bytes: note.part_bytes,
                    parts: Default::default(),
                    recalled: true,
                });
                let count = part_count(job.inode.size, note.part_bytes);
                let fits = note.part_bytes > 0 && count <= PARTS_MAX && u64::from(index) < count;
                if !fits || note.part_bytes != partial.part_bytes {
                    tracing::warn!(path = %job.path, upload, "the notes of an upload contradict themselves; it begins anew");
                    return Ok(());
                }
                partial.parts.insert(index, PartId { index, id: note.id });
            }
        }
        if let Some(partial) = recalled {
            tracing::debug!(path = %job.path, parts = partial.parts.len(), "an upload goes on");
            self.persist.partials.lock().insert(job.row.seq, partial);
        }
        Ok(())
    }

    /// The upload is over: completed, aborted, or not to be trusted.
    pub(super) async fn forget_notes(&self, mount: u32, upload: &str) {
        let prefix = rows::part_notes_prefix(mount, upload);
        let all = prefix.clone()..prefix_end(&prefix);
        if let Err(error) = self.remove_notes(all, |_| true).await {
            tracing::debug!(upload, %error, "the notes of an upload stay until the next start");
        }
    }

    /// Removes what is noted of uploads that no place names.
    pub(super) async fn sweep_notes(&self, named: &Named) {
        let all = Key::from_static(&[table::UPLOAD])..prefix_end(&[table::UPLOAD]);
        if let Err(error) = self.remove_notes(all, |key| !named.has(key)).await {
            tracing::warn!(%error, "notes of uploads that are over stay until the next start");
        }
    }

    async fn remove_notes(&self, mut range: Range<Key>, gone: impl Fn(&[u8]) -> bool) -> Result<()> {
        loop {
            let page = self.components.meta.scan(range.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            range.start = after(last);
            let gone = page.into_iter().map(|(key, _)| key).filter(|key| gone(key));
            let tx = Tx {
                ops: gone.map(Op::Delete).collect(),
                ..Tx::default()
            };
            if !tx.ops.is_empty() {
                self.components.meta.commit(tx).await?;
            }
        }
    }
}

fn is_noted(job: &Job, upload: &str) -> bool {
    !job.mount.is_local() && upload.len() <= ID_BYTES_MAX
}

fn after(key: &Key) -> Key {
    [key.as_ref(), &[0]].concat().into()
}
