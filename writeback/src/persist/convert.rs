//! Parts that change their form on their way to the store: Arrow becomes Parquet where the policy `persist_format` says so.
//!
//! 1. *Encoded*: a sealed content of its own, which no row names; a crash leaves nothing of it.
//! 2. *Replaced*: one transaction takes the old file's name away, gives the new one its name, and changes the dataset's rows and the
//!    queue's: its work keeps its number, so what waits for it (`_SUCCESS`, a person) goes on waiting for the same.
//! 3. *Freed*: the old bytes go; whoever reads them keeps them.
//!
//! It happens once, right before the first byte of the part would leave: an upload that was begun goes on as it is, and so does one of
//! a part that can not become Parquet. What is persisted already stays as it is.

use super::{
    plan::{Row, work_key},
    tracker::{At, Outcome},
};
use crate::{
    ErrorKind, Result,
    cache::Inner,
    changes::Change,
    dataset::ArrowPart,
    file::SealedContent,
    policy::{Adds, value},
    rows::{self, Content, Place, Work, WorkKind, WorkState},
};
use forebay_metastore::Check;
use forebay_namespace::{Create, Ino, Inode, Node, Path, Planner};
use forebay_runtime::crash_point;
use std::{ops::RangeInclusive, sync::Arc};

/// A part that becomes another file.
#[derive(Debug)]
struct Conversion {
    row: Row,
    ino: Ino,
    inode: Inode,
    path: Path,
    part: ArrowPart,
    sealed: SealedContent,
}

/// What the transaction changed.
#[derive(Debug)]
struct Replaced {
    old: Node,
    name: Path,
    row: Row,
    versions: RangeInclusive<u64>,
}

impl Inner {
    /// How the run ends if the file is a part that becomes another file first. `at`: where it would go.
    pub(super) async fn convert(
        self: &Arc<Self>,
        row: &Row,
        ino: Ino,
        inode: &Inode,
        path: &Path,
        at: &At,
    ) -> Result<Option<Outcome>> {
        let wanted = self.policies.effective(path).persist_format == value::PersistFormat::Parquet;
        let dirty = matches!(Content::decode(&inode.content)?, Content::Sealed { .. });
        let begun = row.place(at.0, &at.1).is_some_and(|place| place.token.is_some());
        if !wanted || !dirty || begun {
            return Ok(None);
        }
        let Some(part) = self.arrow_part(ino, path).await? else {
            return Ok(None);
        };
        let sealed = match self.parquet_of(&part, path).await {
            Ok(sealed) => sealed,
            // Encoding is not what the part waits for: whatever is the matter, it is safer in the store as it is.
            Err(reason) => {
                self.part_left(path, &reason);
                return Ok(None);
            }
        };
        let conversion = Conversion {
            row: row.clone(),
            ino,
            inode: inode.clone(),
            path: path.clone(),
            part,
            sealed,
        };
        let inner = Arc::clone(self);
        self.to_the_end("convert", async move { inner.replace(conversion).await })
            .await
    }

    /// Replaces the part by the encoded one, planning anew while others change the same rows. `None`: it goes as it is.
    async fn replace(self: &Arc<Self>, mut conversion: Conversion) -> Result<Option<Outcome>> {
        self.reach(crash_point!("part-encoded-not-replaced"))?;
        let mut attempts = self.attempts(format!("convert {}", conversion.path));
        let replaced = loop {
            match self.try_replace(&conversion).await {
                Ok(Some(replaced)) => break replaced,
                // It was renamed, overwritten or removed: the next run sees what is to do.
                Ok(None) => return Ok(Some(Outcome::Moved)),
                Err(error) if error.is_lost() => attempts.after(error).await?,
                Err(error) if error.kind() == ErrorKind::Deadline => {
                    conversion.sealed.in_doubt();
                    return Err(error);
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                // A file of the new name is there, say.
                Err(error) => {
                    self.part_left(&conversion.path, &error);
                    return Ok(None);
                }
            }
            match self.persist.read_row(conversion.row.seq).await? {
                Some(row) => conversion.row = row,
                None => return Ok(Some(Outcome::Moved)),
            }
        };
        self.replaced(conversion, replaced).await.map(Some)
    }

    /// The transaction. `None`: the file is not what it was any more.
    async fn try_replace(&self, conversion: &Conversion) -> Result<Option<Replaced>> {
        let Conversion {
            row,
            ino,
            inode: before,
            path,
            part,
            sealed,
        } = conversion;
        let mut planner = self.names.planner();
        if planner.pin_path(*ino).await?.as_ref() != Some(path) {
            return Ok(None);
        }
        let Some((inode, _)) = planner.inode(*ino).await? else {
            return Ok(None);
        };
        let is_it = |what: &WorkKind| matches!(what, WorkKind::Put { ino: of, generation } if *of == ino.0 && *generation == inode.generation);
        if (inode.generation, &inode.content) != (before.generation, &before.content) || !is_it(&row.work.what) {
            return Ok(None);
        }
        let (old, hidden) = self.take_away(&mut planner, row, path).await?;
        let name = path.parent().unwrap_or_default().join(&part.parquet_name())?;
        let fresh = Ino(sealed.stream().0);
        planner.create(&name, create(&inode, row.seq, sealed)).await?;
        let mut plan = planner.finish()?;
        plan.amend(fresh, |now| (now.xattrs, now.atime) = (inode.xattrs, inode.atime))?;
        let mut work = Work {
            what: WorkKind::Put {
                ino: fresh.0,
                generation: sealed.stream().1,
            },
            state: WorkState::Queued,
            ..row.work.clone()
        };
        super::plan::add(&mut work.places, hidden);
        let key = work_key(row.seq);
        plan.check(Check::At(key.clone(), row.version))
            .put(key, rows::encode(&work));
        self.persist.touch_over(row.seq, row.version);
        let versions = self.plan_part_converted(&mut plan, part, sealed).await?;
        let committed = self.commit(plan).await?;
        let row = Row {
            seq: row.seq,
            version: committed.version,
            work,
        };
        Ok(Some(Replaced {
            old,
            name,
            row,
            versions,
        }))
    }

    /// Takes the old name away. Where something of ours was or may be in a store, what shows there is hidden until it is cleared.
    async fn take_away(&self, planner: &mut Planner<'_>, row: &Row, path: &Path) -> Result<(Node, Option<Place>)> {
        if row.work.places.is_empty() {
            return Ok((planner.unlink_unseen(path).await?, None));
        }
        let unlinked = planner.unlink(path).await?;
        let hidden = unlinked.whiteout.as_ref().and_then(|at| self.mounts.resolve(at));
        let hidden = hidden.and_then(|(mount, key)| Some(Place::file(mount.id, key?, None)));
        Ok((unlinked.node, hidden))
    }

    async fn replaced(self: &Arc<Self>, conversion: Conversion, replaced: Replaced) -> Result<Outcome> {
        let Conversion { path, part, sealed, .. } = conversion;
        let change = Adds::change(replaced.old.owner().0, part.bytes(), sealed.len);
        tracing::debug!(%path, bytes = part.bytes(), parquet = sealed.len, "a part became Parquet");
        sealed.keep();
        self.part_converted(&part, replaced.versions);
        self.quotas.changed(&path, &change);
        self.persist
            .tracker
            .lock()
            .note_version(replaced.row.seq, &replaced.row);
        self.persist.partials.lock().remove(&replaced.row.seq);
        self.tell(Change::Name(path)).await;
        self.tell(Change::Name(replaced.name)).await;
        self.reach(crash_point!("part-replaced-not-freed"))?;
        self.discard_node(&replaced.old);
        Ok(Outcome::Moved)
    }
}

/// The new file, with what people have set of the old one.
fn create(inode: &Inode, seq: u64, sealed: &SealedContent) -> Create {
    let content = Content::Sealed {
        layout: sealed.layout.clone(),
        work: Some(seq),
        crc: sealed.crc,
    };
    Create {
        content: content.encode(),
        size: sealed.len,
        generation: sealed.stream().1,
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        mtime: Some(inode.mtime),
        ino: Some(Ino(sealed.stream().0)),
        // The session's id is in the name.
        unique: true,
        ..Create::default()
    }
}
