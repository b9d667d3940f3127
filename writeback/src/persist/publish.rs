//! The record: one transaction makes the content clean and takes the row away, if the file still lies where it was written.
//!
//! What the row answers for besides the target is cleared afterwards, by the same row, so that its turn is kept.

use super::{attributes::look_alike, clear::Stopped, markers::parent_of, plan::work_key, put::Job, tracker::Outcome};
use crate::{
    Result,
    cache::Inner,
    policy::value,
    rows::{self, Content, Place, StoreAt, Work, WorkKind, WorkState},
};
use forebay_metastore::Check;
use forebay_runtime::crash_point;
use forebay_segment::StreamId;
use std::sync::{Arc, atomic::Ordering};

impl Inner {
    /// Records that the content lies at `at`. Moved when the name was changed meanwhile: the next run sees what is to do.
    pub(super) async fn record(self: &Arc<Self>, job: Job, at: StoreAt) -> Result<Outcome> {
        match self.unmark_from(&job.mount, parent_of(&at.key)).await {
            Ok(()) => {}
            Err(Stopped::Store(error)) => return Ok(Outcome::Away(at.mount, error.to_string())),
            Err(Stopped::Here(error)) => return Err(error),
        }
        let mut planner = self.names.planner();
        if planner.pin_path(job.ino).await?.as_ref() != Some(&job.path) {
            return Ok(Outcome::Moved);
        }
        let Some((inode, _)) = planner.inode(job.ino).await? else {
            return Ok(Outcome::Moved);
        };
        if inode.generation != job.inode.generation {
            return Ok(Outcome::Moved);
        }
        let (layout, was_dirty) = match Content::decode(&inode.content)? {
            Content::Sealed { layout, .. } => (Some(layout), true),
            Content::Persisted { layout, .. } => (layout, false),
            Content::Open => return Ok(Outcome::Moved),
        };
        // What changed of its attributes while it was on its way follows.
        let follows = !look_alike(&inode, &job.inode);
        let content = Content::Persisted {
            at: at.clone(),
            layout: layout.clone(),
            work: follows.then_some(job.row.seq),
        }
        .encode();
        let ctime = inode.ctime;
        planner
            .update(job.ino, |inode| (inode.content, inode.ctime) = (content, ctime))
            .await?;
        let mut plan = planner.finish()?;
        let key = work_key(job.row.seq);
        plan.check(Check::At(key.clone(), job.row.version));
        let upload = job.row.place(at.mount, &at.key).and_then(|place| place.upload.clone());
        let mut places = job.row.work.places.clone();
        places.retain(|place| (place.mount, place.key.as_str()) != (at.mount, at.key.as_str()));
        if follows {
            places.push(Place::file(at.mount, at.key.clone(), Some(at.validator.clone())));
        }
        if places.is_empty() {
            plan.delete(key);
        } else {
            let what = if follows {
                job.row.work.what.clone()
            } else {
                WorkKind::Clear
            };
            let work = Work {
                what,
                since: job.row.work.since,
                state: WorkState::Queued,
                places,
            };
            plan.put(key, rows::encode(&work));
        }
        self.commit(plan).await?;
        if was_dirty {
            self.dirty.settle(1, inode.size);
            self.dirty.forget(StreamId(job.ino.0, inode.generation));
            self.persist.persisted_bytes.fetch_add(inode.size, Ordering::Relaxed);
        }
        self.reach(crash_point!("recorded-not-trimmed"))?;
        if let Some(layout) = &layout {
            self.count_copy(job.ino, &inode, layout, (at.mount, &at.key));
        }
        if was_dirty && self.policies.effective(&job.path).write == value::Write::Around {
            let left = self.evict(job.ino, inode.generation).await;
            left.inspect_err(|error| tracing::debug!(path = %job.path, %error, "a copy stays until it is evicted"))
                .ok();
        }
        self.persist.partials.lock().remove(&job.row.seq);
        if let Some(upload) = upload {
            self.forget_notes(at.mount, &upload).await;
        }
        Ok(Outcome::Moved)
    }
}
