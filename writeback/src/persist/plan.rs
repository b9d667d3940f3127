//! What a change of names means for the queue: rows that go into the same transaction as the change.
//!
//! A file has at most one row, which its content names. Overwriting, renaming and removing what waits already change that row
//! and keep its places: so whatever an earlier upload may have left is answered for by whoever comes last, in the order of the
//! first. It owns no effect on a store.

use super::{Persist, backlog::Home, rules, tracker::At};
use crate::{
    Error, Result,
    mounts::Mount,
    rows::{self, Content, Place, PlaceKind, Work, WorkKind, WorkState, table},
};
use forebay_metastore::{Check, Key, Version};
use forebay_namespace::{Ino, Inode, Kind, Node, Path, Plan, Renamed};
use std::sync::Arc;

/// Sequence numbers taken from the metastore at once: each time is a durable write.
const NUMBERS_TAKEN: u64 = 256;

/// Key of a row of the queue.
pub(super) fn work_key(seq: u64) -> Key {
    let mut key = vec![table::WORK];
    key.extend_from_slice(&seq.to_be_bytes());
    key.into()
}

/// The inode that a piece of work names.
pub(super) fn named(what: &WorkKind) -> Option<Ino> {
    match what {
        WorkKind::Put { ino, .. } | WorkKind::MakeDir { ino } | WorkKind::MoveTree { ino } => Some(Ino(*ino)),
        WorkKind::Clear => None,
    }
}

/// A directory that is overwritten while its store is away, and the work that follows.
#[derive(Debug)]
pub(crate) struct Unseen {
    pub(super) seq: u64,
    pub(super) dir: At,
    pub(super) since: i64,
}

/// A row of the queue as it was read.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) version: Version,
    pub(super) work: Work,
}

impl Row {
    /// The place at this key, when the row answers for it.
    pub(super) fn place(&self, mount: u32, key: &str) -> Option<&Place> {
        self.work
            .places
            .iter()
            .find(|place| place.mount == mount && place.key == key)
    }
}

impl Place {
    /// A file's place.
    pub(super) fn file(mount: u32, key: impl Into<String>, holds: Option<String>) -> Self {
        Place {
            mount,
            key: key.into(),
            kind: PlaceKind::File,
            holds,
            token: None,
            upload: None,
        }
    }

    /// Whether something was about to be written here where nothing was.
    pub(super) fn is_claimed(&self) -> bool {
        self.token.is_some() && self.holds.is_none()
    }

    fn directory(mount: u32, key: impl Into<String>, kind: PlaceKind) -> Self {
        Place {
            kind,
            ..Place::file(mount, key, None)
        }
    }
}

/// Adds a place. Of two at one key the one that knows more stays.
pub(super) fn add(places: &mut Vec<Place>, place: Option<Place>) {
    let Some(place) = place else { return };
    let known = places
        .iter_mut()
        .find(|known| known.mount == place.mount && known.key == place.key);
    match known {
        Some(known) if known.token.is_none() && known.holds.is_none() && known.kind == place.kind => *known = place,
        Some(_) => {}
        None => places.push(place),
    }
}

impl Persist {
    /// The file `ino` takes its name at `path`, in place of `before`. Answers the number of its work for its content;
    /// `None` when no mount covers the path.
    pub(crate) async fn plan_put(
        &self,
        plan: &mut Plan,
        ino: Ino,
        generation: u32,
        path: &Path,
        before: Option<&Node>,
    ) -> Result<Option<u64>> {
        let pending = match before {
            Some(before) => self.pending_of(before).await?,
            None => None,
        };
        let mut places = pending.as_ref().map(|row| row.work.places.clone()).unwrap_or_default();
        add(&mut places, before.and_then(|before| self.known(before)));
        if let Some((mount, _)) = self.mounts.resolve(path) {
            let what = WorkKind::Put { ino: ino.0, generation };
            let home = plan.inode(ino)?.map(|inode| Home::of(mount.id, &inode));
            let work = self.work(what, places);
            return self.write_for(plan, pending, work, home).await.map(Some);
        }
        self.clear(plan, pending, places).await?;
        Ok(None)
    }

    /// The directory `ino` was made at `path`, or may be empty now. One of a staging name is in no store, and is looked at where it is
    /// renamed to.
    pub(crate) async fn plan_dir(&self, plan: &mut Plan, ino: Ino, path: &Path) -> Result<()> {
        // The root of a mount is there.
        let below = |(_, key): &(Arc<Mount>, Option<String>)| key.as_deref() != Some("") && !rules::is_staging(path);
        let below = self.mounts.resolve(path).filter(below);
        if let Some((mount, _)) = below {
            let work = self.work(WorkKind::MakeDir { ino: ino.0 }, Vec::new());
            self.write_for(plan, None, work, Some(Home::directory(mount.id)))
                .await?;
        }
        Ok(())
    }

    /// The directory at `path` is overwritten, and its store can not say which files others have there: they go once it can.
    pub(crate) async fn plan_overwritten(&self, plan: &mut Plan, path: &Path) -> Result<Unseen> {
        let (mount, key) = self
            .key_of(path)
            .ok_or_else(|| Error::internal("a directory that no store has was overwritten unseen"))?;
        let place = Place::directory(mount.id, key.clone(), PlaceKind::Overwritten);
        let work = self.work(WorkKind::Clear, vec![place]);
        let since = work.since;
        let seq = self.write(plan, None, work).await?;
        Ok(Unseen {
            seq,
            dir: (mount.id, key),
            since,
        })
    }

    /// Directories of ours at and below the key that have no name any more are to go.
    pub(super) async fn plan_pruned(&self, plan: &mut Plan, (mount, key): &At) -> Result<()> {
        let place = Place::directory(*mount, key.clone(), PlaceKind::Prune);
        self.clear(plan, None, vec![place]).await
    }

    /// `before` loses its name at `path`: a file, or a directory with everything below. `whiteout`: the base path that is hidden
    /// there from now on.
    pub(crate) async fn plan_removed(
        &self,
        plan: &mut Plan,
        before: &Node,
        path: &Path,
        whiteout: Option<&Path>,
    ) -> Result<()> {
        if before.is_dir() {
            // What the base showed there, and what was persisted under its present name before the move of a renamed parent ended.
            let mut places = Vec::new();
            for at in whiteout.into_iter().chain([path]) {
                let tree = self
                    .key_of(at)
                    .map(|(mount, key)| Place::directory(mount.id, key, PlaceKind::Tree));
                add(&mut places, tree);
            }
            return self.clear(plan, None, places).await;
        }
        let pending = self.pending_of(before).await?;
        let mut places = pending.as_ref().map(|row| row.work.places.clone()).unwrap_or_default();
        add(&mut places, self.known(before));
        add(&mut places, self.hidden(whiteout));
        self.clear(plan, pending, places).await
    }

    /// A rename: `before` was at `from`, and `renamed.moved` is at `to`. What was at `to` is taken over.
    pub(crate) async fn plan_renamed(
        &self,
        plan: &mut Plan,
        renamed: &Renamed,
        before: &Node,
        from: &Path,
        to: &Path,
    ) -> Result<()> {
        let (ino, inode) = &renamed.moved;
        match inode.kind {
            Kind::Dir { .. } => self.directory_renamed(plan, renamed, from, to).await,
            Kind::Symlink(_) | Kind::Special { .. } => Ok(()),
            Kind::File => {
                self.file_renamed(plan, *ino, inode, renamed, before, to).await?;
                // Both moved: the other one is a rename of its own.
                match &renamed.replaced {
                    Some(
                        other @ Node::Row {
                            ino,
                            inode,
                            version: Version(0),
                        },
                    ) if inode.kind == Kind::File => {
                        let alone = Renamed {
                            plan: Plan::default(),
                            replaced: None,
                            whiteout: None,
                            ..renamed.clone()
                        };
                        self.file_renamed(plan, *ino, inode, &alone, other, from).await
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    async fn file_renamed(
        &self,
        plan: &mut Plan,
        ino: Ino,
        inode: &Inode,
        renamed: &Renamed,
        before: &Node,
        to: &Path,
    ) -> Result<()> {
        let content = Content::decode(&inode.content)?;
        let mut pending = self.pending(ino, &content).await?;
        let mut places = pending.as_ref().map(|row| row.work.places.clone()).unwrap_or_default();
        add(&mut places, self.known(before));
        if let Content::Persisted { at, .. } = &content {
            add(
                &mut places,
                Some(Place::file(at.mount, at.key.clone(), Some(at.validator.clone()))),
            );
        }
        if let Some(target) = renamed.replaced.as_ref().filter(|node| !moves_too(node)) {
            let other = self.pending_of(target).await?;
            other
                .iter()
                .flat_map(|row| &row.work.places)
                .for_each(|place| add(&mut places, Some(place.clone())));
            add(&mut places, self.known(target));
            pending = self.merge(plan, pending, other);
        }
        add(&mut places, self.hidden(renamed.whiteout.as_ref()));
        let goes = self.mounts.resolve(to).is_some() || matches!(content, Content::Persisted { .. });
        let work = match content {
            Content::Open => None,
            _ if goes => {
                let what = WorkKind::Put {
                    ino: ino.0,
                    generation: inode.generation,
                };
                let since = pending.as_ref().map(|row| row.work.since);
                let work = self.work(what, places);
                let since = since.unwrap_or(work.since);
                let home = self.mounts.resolve(to).map(|(mount, _)| Home::of(mount.id, inode));
                Some(self.write_for(plan, pending, Work { since, ..work }, home).await?)
            }
            _ => {
                self.clear(plan, pending, places).await?;
                None
            }
        };
        let content = with_work(content, work).encode();
        plan.amend(ino, |inode| inode.content = content)?;
        Ok(())
    }

    async fn directory_renamed(&self, plan: &mut Plan, renamed: &Renamed, from: &Path, to: &Path) -> Result<()> {
        if self.mounts.resolve(from).is_none() && self.mounts.resolve(to).is_none() {
            return Ok(());
        }
        // What was hidden in an empty directory that gives way is to go; its whiteouts go with its row.
        let replaced = renamed
            .replaced
            .as_ref()
            .filter(|node| node.is_dir() && !moves_too(node));
        if let Some(replaced) = replaced {
            self.plan_removed(plan, replaced, to, None).await?;
        }
        let (ino, inode) = &renamed.moved;
        let mut places = Vec::new();
        let shown = match &inode.kind {
            Kind::Dir { base: Some(base) } => Some(Path::parse(base)?),
            _ => None,
        };
        for at in [shown.as_ref(), renamed.whiteout.as_ref(), Some(from)]
            .into_iter()
            .flatten()
        {
            let prune = self
                .key_of(at)
                .map(|(mount, key)| Place::directory(mount.id, key, PlaceKind::Prune));
            add(&mut places, prune);
        }
        let work = self.work(WorkKind::MoveTree { ino: ino.0 }, places);
        let home = self.mounts.resolve(to).map(|(mount, _)| Home::directory(mount.id));
        self.write_for(plan, None, work, home).await?;
        Ok(())
    }

    /// The row that answers for what this node may have in a store.
    async fn pending_of(&self, node: &Node) -> Result<Option<Row>> {
        match node {
            Node::Row { ino, inode, .. } if inode.kind == Kind::File => {
                self.pending(*ino, &Content::decode(&inode.content)?).await
            }
            _ => Ok(None),
        }
    }

    async fn pending(&self, ino: Ino, content: &Content) -> Result<Option<Row>> {
        let (Content::Sealed { work: Some(seq), .. } | Content::Persisted { work: Some(seq), .. }) = content else {
            return Ok(None);
        };
        let row = self.read_row(*seq).await?;
        // A content that was replaced and lives on in a version names a row that is another's by now.
        Ok(row.filter(|row| matches!(row.work.what, WorkKind::Put { ino: of, .. } if of == ino.0)))
    }

    /// What is known to be in a store of a node.
    fn known(&self, node: &Node) -> Option<Place> {
        match node {
            Node::Base { at, entry } if !entry.is_dir => {
                let (mount, key) = self.key_of(at)?;
                Some(Place::file(mount.id, key, Some(entry.validator.clone())))
            }
            Node::Row { inode, .. } if inode.kind == Kind::File => match Content::decode(&inode.content) {
                Ok(Content::Persisted { at, .. }) => Some(Place::file(at.mount, at.key, Some(at.validator))),
                _ => None,
            },
            _ => None,
        }
    }

    /// A place for a name that is hidden, so that its whiteout goes when the work is done.
    fn hidden(&self, whiteout: Option<&Path>) -> Option<Place> {
        let (mount, key) = self.key_of(whiteout?)?;
        Some(Place::file(mount.id, key, None))
    }

    fn key_of(&self, path: &Path) -> Option<(Arc<Mount>, String)> {
        let (mount, key) = self.mounts.resolve(path)?;
        Some((mount, key?))
    }

    fn work(&self, what: WorkKind, places: Vec<Place>) -> Work {
        Work {
            what,
            since: self.components.clock.now().0,
            state: WorkState::Queued,
            places,
        }
    }

    /// One row for the work of two: the older one stays.
    fn merge(&self, plan: &mut Plan, a: Option<Row>, b: Option<Row>) -> Option<Row> {
        match (a, b) {
            (Some(a), Some(b)) if a.seq != b.seq => {
                let (older, newer) = if a.seq < b.seq { (a, b) } else { (b, a) };
                let key = work_key(newer.seq);
                plan.check(Check::At(key.clone(), newer.version)).delete(key);
                self.touch_over(newer.seq, newer.version);
                Some(older)
            }
            (a, b) => a.or(b),
        }
    }

    /// The places shall be empty; where there are none the row goes.
    pub(super) async fn clear(&self, plan: &mut Plan, pending: Option<Row>, places: Vec<Place>) -> Result<()> {
        if !places.is_empty() {
            let work = self.work(WorkKind::Clear, places);
            return self.write(plan, pending, work).await.map(drop);
        }
        if let Some(row) = pending {
            let key = work_key(row.seq);
            plan.check(Check::At(key.clone(), row.version)).delete(key);
            self.touch_over(row.seq, row.version);
        }
        Ok(())
    }

    /// Writes a row, in place of `pending` or a new one.
    pub(super) async fn write(&self, plan: &mut Plan, pending: Option<Row>, work: Work) -> Result<u64> {
        self.write_for(plan, pending, work, None).await
    }

    /// The same of work whose mount is known.
    async fn write_for(&self, plan: &mut Plan, pending: Option<Row>, work: Work, home: Option<Home>) -> Result<u64> {
        let (seq, over) = match pending {
            Some(row) => {
                plan.check(Check::At(work_key(row.seq), row.version));
                (row.seq, row.version)
            }
            None => (self.number().await?, Version(0)),
        };
        plan.put(work_key(seq), rows::encode(&work));
        self.touch_for(seq, over, home);
        Ok(seq)
    }

    /// A new sequence number, higher than all before.
    pub(super) async fn number(&self) -> Result<u64> {
        if let Some(number) = self.numbers_left.lock().next() {
            return Ok(number);
        }
        // One at a time: of two that took numbers at once, the lower ones could come after the higher.
        let _takes = self.takes_numbers.lock().await;
        if let Some(number) = self.numbers_left.lock().next() {
            return Ok(number);
        }
        let mut taken = self.components.meta.allocate("work", NUMBERS_TAKEN).await?;
        let number = taken
            .next()
            .ok_or_else(|| Error::internal("an allocation of numbers was empty"))?;
        *self.numbers_left.lock() = taken;
        Ok(number)
    }

    /// A row as it is now.
    pub(super) async fn read_row(&self, seq: u64) -> Result<Option<Row>> {
        let entry = self.components.meta.get(&[work_key(seq)]).await?.pop().flatten();
        entry
            .map(|entry| {
                Ok(Row {
                    seq,
                    version: entry.version,
                    work: rows::decode(&entry.value)?,
                })
            })
            .transpose()
    }
}

/// Whether what was at the target of a rename is not gone but now at the source.
fn moves_too(replaced: &Node) -> bool {
    matches!(
        replaced,
        Node::Row {
            version: Version(0),
            ..
        }
    )
}

/// The content with this work.
pub(super) fn with_work(content: Content, work: Option<u64>) -> Content {
    match content {
        Content::Open => Content::Open,
        Content::Sealed { layout, crc, .. } => Content::Sealed { layout, work, crc },
        Content::Persisted { at, layout, .. } => Content::Persisted { at, layout, work },
    }
}
