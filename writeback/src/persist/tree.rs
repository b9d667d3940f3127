//! Whole directories: moving what the base shows in one that was renamed, and removing what lay in one that was deleted.
//!
//! A renamed directory goes on showing its old base path until everything there has a row of its own and with it work of its
//! own, in transactions of bounded size; then it shows the base at its own path. So whatever happens to a file meanwhile is
//! an ordinary change of a row. It does not move bytes itself.

use super::{
    clear::{Cleared, Stopped},
    plan::{Row, add, with_work, work_key},
    put::{Job, SOON},
    tracker::{Below, Outcome},
};
use crate::{
    Error, Result,
    cache::Inner,
    mounts::Mount,
    rows::{self, Content, Place, PlaceKind, Work, WorkKind, WorkState},
};
use forebay_metastore::Check;
use forebay_namespace::{Ino, Inode, Kind, Node, NsError, Path, Plan};
use forebay_understore::{Expect, Found, Listed, StoreError, packs::Packed};
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// Names looked at in one go; each may take about ten keys of a transaction.
const PAGE: usize = 100;
/// Pieces of work beyond which a directory waits before it adds more.
const QUEUE_MAX: usize = 20_000;
/// Objects removed at once.
const REMOVES_PARALLEL: usize = 8;
/// Objects that are removed before more are listed.
const PAGE_REMOVED: usize = 1000;

/// What was found in a directory that is moved.
enum Walked {
    Full,
    Empty,
    /// The queue takes no more for now.
    Later,
}

impl Inner {
    pub(super) async fn move_tree(self: &Arc<Self>, row: Row, ino: u64) -> Result<Outcome> {
        let Some(path) = self.names.path_of(Ino(ino)).await? else {
            return self.tree_is_gone(row).await;
        };
        let others = self.persist.tracker.lock().moves_of(row.seq, ino);
        if let Some(other) = others.first() {
            return self.join(row, *other).await;
        }
        if let Some(other) = self.in_the_way(&row) {
            return Ok(Outcome::Wait(other));
        }
        let (mut open, mut empty) = (vec![path.clone()], Vec::new());
        while let Some(dir) = open.pop() {
            match self.move_directory(&row, &dir, &mut open).await {
                Ok(Walked::Full) => {}
                Ok(Walked::Empty) => empty.push(dir),
                Ok(Walked::Later) => return Ok(Outcome::Soon(SOON)),
                Err(error) if error.kind() == crate::ErrorKind::Unavailable && !error.is_lost() => {
                    let mount = self.mounts.resolve(&path).map(|(mount, _)| mount.id);
                    let mount = mount
                        .or(row.work.places.first().map(|place| place.mount))
                        .unwrap_or_default();
                    return Ok(Outcome::Away(mount, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        if self.names.path_of(Ino(ino)).await?.as_ref() != Some(&path) {
            return Ok(Outcome::Moved);
        }
        self.make_empty(&empty).await?;
        let work = Work {
            what: WorkKind::Clear,
            state: WorkState::Queued,
            ..row.work.clone()
        };
        self.persist_row(&row, &work).await?;
        Ok(Outcome::Moved)
    }

    /// No file takes these directories along.
    async fn make_empty(&self, dirs: &[Path]) -> Result<()> {
        for dirs in dirs.chunks(PAGE) {
            let mut plan = Plan::default();
            for dir in dirs {
                if let Some(Node::Row { ino, inode, .. }) = self.node_at(dir).await?
                    && inode.is_dir()
                {
                    self.persist.plan_dir(&mut plan, ino, dir).await?;
                }
            }
            self.commit(plan).await?;
        }
        Ok(())
    }

    /// Work that has to end first: uploads under way at the old places, whose record may come after our look.
    fn in_the_way(&self, row: &Row) -> Option<u64> {
        let tracker = self.persist.tracker.lock();
        let mut places = row.work.places.iter().map(|place| (place.mount, place.key.clone()));
        places.find_map(|at| tracker.owner_below(row.seq, &at, Below::Running))
    }

    /// A directory renamed again before it was moved has two rows: this one takes the places of the other.
    async fn join(&self, row: Row, other: u64) -> Result<Outcome> {
        let Some(theirs) = self.persist.read_row(other).await? else {
            return Ok(Outcome::Moved);
        };
        if theirs.work.what != row.work.what {
            return Ok(Outcome::Moved);
        }
        let mut work = row.work.clone();
        theirs
            .work
            .places
            .iter()
            .for_each(|place| add(&mut work.places, Some(place.clone())));
        work.since = work.since.min(theirs.work.since);
        let mut plan = Plan::default();
        let key = work_key(other);
        plan.check(Check::At(key.clone(), theirs.version)).delete(key);
        plan.check(Check::At(work_key(row.seq), row.version))
            .put(work_key(row.seq), rows::encode(&work));
        self.commit(plan).await?;
        self.persist.touch(other);
        self.persist.absorb().await?;
        Ok(Outcome::Moved)
    }

    /// The directory was removed before its content was moved: the content goes.
    async fn tree_is_gone(&self, row: Row) -> Result<Outcome> {
        let trees = row.work.places.iter().cloned().map(|place| Place {
            kind: PlaceKind::Tree,
            ..place
        });
        let work = Work {
            what: WorkKind::Clear,
            state: WorkState::Queued,
            places: trees.collect(),
            ..row.work.clone()
        };
        self.persist_row(&row, &work).await?;
        Ok(Outcome::Moved)
    }

    /// Gives everything in one directory a row and work; its directories go to `open`.
    async fn move_directory(&self, row: &Row, dir: &Path, open: &mut Vec<Path>) -> Result<Walked> {
        let Some(seen) = self.node_at(dir).await? else {
            return Ok(Walked::Full);
        };
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = match self.names.list(dir, after.as_deref(), PAGE).await {
                Err(NsError::NotFound(_) | NsError::NotADirectory(_)) => return Ok(Walked::Full),
                other => other?,
            };
            let ended = page.len() < PAGE;
            if after.is_none() && page.is_empty() {
                self.show_base(dir, row.seq, &seen).await?;
                return Ok(Walked::Empty);
            }
            after = page.last().map(|(name, _)| name.clone());
            let mut to_move = Vec::new();
            for (name, node) in page {
                let path = dir.join(&name)?;
                if node.is_dir() {
                    open.push(path.clone());
                }
                if self.is_elsewhere(&path, &node)? {
                    to_move.push((path, node));
                }
            }
            self.give_rows(row, &to_move).await?;
            if ended {
                break;
            }
            if self.persist.tracker.lock().len() > QUEUE_MAX {
                return Ok(Walked::Later);
            }
        }
        self.show_base(dir, row.seq, &seen).await?;
        Ok(Walked::Full)
    }

    /// Whether the node has no row yet, or lies in the store under another name and nobody sees to it.
    fn is_elsewhere(&self, path: &Path, node: &Node) -> Result<bool> {
        match node {
            Node::Base { at, .. } => Ok(at != path || self.mounts.resolve(path).is_none()),
            Node::Row { inode, .. } if inode.kind == Kind::File => match Content::decode(&inode.content)? {
                Content::Persisted { at, work: None, .. } => {
                    let target = self
                        .mounts
                        .resolve(path)
                        .and_then(|(mount, key)| Some((mount.id, key?)));
                    Ok(target != Some((at.mount, at.key)))
                }
                _ => Ok(false),
            },
            Node::Row { .. } => Ok(false),
        }
    }

    async fn give_rows(&self, row: &Row, nodes: &[(Path, Node)]) -> Result<()> {
        if nodes.is_empty() {
            return Ok(());
        }
        let mut planner = self.names.planner();
        let mut work = Vec::new();
        for (path, node) in nodes {
            let (ino, inode) = match node {
                Node::Row { ino, inode, .. } => (*ino, inode.clone()),
                Node::Base { .. } => planner.adopt(path).await?,
            };
            if inode.is_dir() {
                continue;
            }
            let Content::Persisted { at, layout, work: None } = Content::decode(&inode.content)? else {
                continue;
            };
            let known = Place::file(at.mount, at.key.clone(), Some(at.validator.clone()));
            let seq = self.persist.number().await?;
            let content = with_work(Content::Persisted { at, layout, work: None }, Some(seq)).encode();
            let (before, ctime) = (inode.content.clone(), inode.ctime);
            // Changed since the listing, or its row went because the base shows the same: only a new look tells.
            if planner.inode(ino).await?.is_none_or(|(now, _)| now.content != before) {
                return Err(Error::lost());
            }
            planner
                .update(ino, |inode| (inode.content, inode.ctime) = (content, ctime))
                .await?;
            let what = WorkKind::Put {
                ino: ino.0,
                generation: inode.generation,
            };
            work.push((
                seq,
                Work {
                    what,
                    since: row.work.since,
                    state: WorkState::Queued,
                    places: vec![known],
                },
            ));
        }
        let mut plan = planner.finish()?;
        for (seq, work) in &work {
            plan.put(work_key(*seq), rows::encode(work));
        }
        self.commit(plan).await?;
        work.iter().for_each(|(seq, _)| self.persist.touch(*seq));
        self.persist.absorb().await
    }

    /// Lets the directory at `path` show the base at its own path, unless another piece of work still removes something there. `seen`: as
    /// it was before the caller looked into it. Another one, or the same with another base, may show what nobody has looked at.
    pub(super) async fn show_base(&self, path: &Path, seq: u64, seen: &Node) -> Result<()> {
        let Node::Row { ino, inode, version } = seen else {
            return Ok(());
        };
        if !inode.is_dir() {
            return Ok(());
        }
        let target = self
            .mounts
            .resolve(path)
            .and_then(|(mount, key)| Some((mount.id, key?)));
        let taken = target.is_some_and(|at| self.persist.tracker.lock().tree_over(seq, &at, false).is_some());
        // Until what others have there is gone, nothing shows; whoever ends last lets the base show.
        let natural = Kind::Dir {
            base: (!taken).then(|| path.as_bytes()),
        };
        let shows_already = inode.kind
            == (Kind::Dir {
                base: Some(path.as_bytes()),
            });
        if shows_already || inode.kind == natural {
            return Ok(());
        }
        let mut planner = self.names.planner();
        if planner.pin_path(*ino).await?.as_ref() != Some(path) {
            return Ok(());
        }
        if planner.inode(*ino).await?.is_none_or(|(_, now)| now != *version) {
            return Err(Error::lost());
        }
        let ctime = inode.ctime;
        planner
            .update(*ino, |inode: &mut Inode| (inode.kind, inode.ctime) = (natural, ctime))
            .await?;
        self.commit(planner.finish()?).await?;
        Ok(())
    }

    /// Directories that were made where others were removed show the base again, once these are gone. Done before the row says so:
    /// where it fails the row is still there, and runs again.
    pub(super) async fn show_base_below(&self, path: &Path, seq: u64) -> Result<()> {
        // What a lookup saw there before shall not show again.
        self.mounts.changed_all();
        let mut open = vec![path.clone()];
        while let Some(dir) = open.pop() {
            let Some(seen) = self.node_at(&dir).await? else {
                continue;
            };
            if !matches!(&seen, Node::Row { inode, .. } if inode.kind == (Kind::Dir { base: None })) {
                continue;
            }
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self.page_of(&dir, after.as_deref()).await?;
                let ended = page.len() < PAGE;
                after = page.last().map(|(name, _)| name.clone());
                for (name, _) in page.into_iter().filter(|(_, node)| node.is_dir()) {
                    open.push(dir.join(&name)?);
                }
                if ended {
                    break;
                }
            }
            self.show_base(&dir, seq, &seen).await?;
        }
        Ok(())
    }

    /// Names in a directory; none once it is gone.
    async fn page_of(&self, dir: &Path, after: Option<&[u8]>) -> Result<Vec<(Vec<u8>, Node)>> {
        match self.names.list(dir, after, PAGE).await {
            Err(NsError::NotFound(_) | NsError::NotADirectory(_)) => Ok(Vec::new()),
            page => Ok(page?),
        }
    }

    /// Removes what lies below a place, once nobody else answers for anything there.
    pub(super) async fn clear_tree(&self, row: &Row, mount: &Arc<Mount>, place: &Place) -> Result<Cleared> {
        if mount.read_only || place.key.is_empty() {
            return Ok(Cleared::Done);
        }
        let at = (place.mount, place.key.clone());
        let other = {
            let tracker = self.persist.tracker.lock();
            let which = if place.kind == PlaceKind::Tree {
                Below::Needed
            } else {
                Below::Any
            };
            let below = tracker
                .owner_below(row.seq, &at, which)
                .or_else(|| tracker.move_below(row.seq, &at))
                .or_else(|| tracker.move_over(row.seq, &at));
            // Pruning leaves objects where they are: those of a directory that was removed below would show once the whiteout is gone,
            // and those that are to go where one was overwritten would keep it.
            let left_below = || {
                let removed = tracker.tree_below(row.seq, &at);
                removed.or_else(|| tracker.overwritten_from(row.seq, &at))
            };
            below.or_else(|| left_below().filter(|_| place.kind == PlaceKind::Prune))
        };
        if let Some(other) = other {
            return Ok(Cleared::Wait(other));
        }
        let since = (place.kind == PlaceKind::Tree).then_some(row.work.since);
        // Pruning waits for whoever answers for such a key.
        if since.is_some()
            && let Err(error) = self.outlast_below(mount, &place.key).await
        {
            return Ok(Cleared::Failed(error));
        }
        match self.remove_below(mount, &place.key, since).await {
            Ok(None) => {
                if since.is_some()
                    && let cleared @ (Cleared::Wait(_) | Cleared::Failed(_) | Cleared::Foreign(..)) =
                        self.end_claims_below(row.seq, mount, &place.key).await?
                {
                    return Ok(cleared);
                }
                self.keep_parent(row.seq, mount, &place.key).await
            }
            Ok(Some(found)) => Ok(Cleared::Foreign(
                Some(found),
                "deleted here, written by someone else there since",
            )),
            Err(stopped) => stopped.cleared(),
        }
    }

    /// Nothing arrives below a directory any more that was removed, and the whiteout that hid it goes: what others were about to write there
    /// is over too, or a later life would look for it, and take its key for a while, where it shows.
    async fn end_claims_below(&self, seq: u64, mount: &Mount, key: &str) -> Result<Cleared> {
        let at = (mount.id, key.to_owned());
        let below = format!("{key}/");
        let claimants = self.persist.tracker.lock().claimants_below(seq, &at);
        for other in claimants {
            if self.persist.tracker.lock().runs(other) {
                return Ok(Cleared::Wait(other));
            }
            let Some(row) = self.persist.read_row(other).await? else {
                continue;
            };
            let mut work = row.work.clone();
            let inside = |place: &&mut Place| place.mount == mount.id && place.key.starts_with(&below);
            for place in work.places.iter_mut().filter(inside).filter(|place| place.is_claimed()) {
                if let Err(error) = self.abort_uploads(mount, place).await {
                    return Ok(Cleared::Failed(error));
                }
                (place.token, place.upload) = (None, None);
            }
            if work != row.work {
                self.persist.touch_over(other, row.version);
                self.persist_row(&row, &work).await?;
            }
        }
        self.persist.absorb().await?;
        Ok(Cleared::Done)
    }

    /// Where the target of a put lies in a directory that is to go, one that was in it may have the very name of the file. It goes
    /// first: a folder can not hold both, and in an object store it would be taken for somebody else's. Answers work that still
    /// needs what lies there.
    pub(super) async fn clear_the_way(&self, job: &Job) -> Result<Option<u64>, Stopped> {
        self.take_overwritten(job).await?;
        let (seq, at) = (job.row.seq, job.at());
        let (in_the_way, needed_by, unwinds) = {
            let tracker = self.persist.tracker.lock();
            let in_the_way = tracker.tree_over(seq, &at, false).is_some();
            let needed_by = tracker.owner_below(seq, &at, Below::Any);
            (in_the_way, needed_by, tracker.unwinds(seq))
        };
        if !in_the_way || needed_by.is_some() && unwinds {
            return Ok(None);
        }
        if needed_by.is_some() {
            return Ok(needed_by);
        }
        if job.mount.upload.head(&job.key).await?.is_some_and(|found| found.is_dir) {
            self.remove_below(&job.mount, &job.key, None).await?;
        }
        Ok(None)
    }

    /// Removes the directories below `key` and objects of ours that have no name any more; with `since` all objects that were
    /// there then or are ours. Answers one that stays, when objects were to go.
    async fn remove_below(&self, mount: &Mount, key: &str, since: Option<i64>) -> Result<Option<Found>, Stopped> {
        let mut open = vec![key.to_owned()];
        let mut dirs = Vec::new();
        let mut foreign = None;
        while let Some(dir) = open.pop() {
            let mut rows = mount.upload.list(&dir, None);
            let mut files = Vec::new();
            loop {
                match rows.next().await {
                    None | Some(Err(StoreError::NotFound(_))) => break,
                    Some(Err(error)) => return Err(error.into()),
                    Some(Ok(listed)) if listed.found.is_dir => open.push(format!("{dir}/{}", listed.name)),
                    Some(Ok(listed)) => files.push(listed),
                }
                if files.len() >= PAGE_REMOVED {
                    let kept = self
                        .remove_files(mount, &dir, std::mem::take(&mut files), since)
                        .await?;
                    foreign = foreign.or(kept);
                }
            }
            foreign = foreign.or(self.remove_files(mount, &dir, files, since).await?);
            dirs.push(dir);
        }
        for dir in dirs.iter().rev() {
            if since.is_none() && self.is_live_directory(mount, dir).await? {
                continue;
            }
            match mount.upload.remove_dir(dir).await {
                Ok(()) | Err(StoreError::NotFound(_)) => self.unmark_dir(mount, &(mount.id, dir.clone())).await?,
                // Something else is in it: somebody else's, or a file that takes the directory's place.
                Err(StoreError::Changed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if since.is_some() { foreign } else { None })
    }

    /// Whether a directory of ours is there: it was renamed away and back, or another one took its name.
    pub(super) async fn is_live_directory(&self, mount: &Mount, key: &str) -> Result<bool> {
        let Ok(path) = mount.path_of(key) else { return Ok(false) };
        let node = self.node_at(&path).await?;
        Ok(node.is_some_and(|node| matches!(&node, Node::Row { inode, .. } if inode.is_dir())))
    }

    /// Whether a file of ours has this name now. One that has not may have left an object here of which a failed lookup could not
    /// tell when its name was taken.
    pub(super) async fn is_live_file(&self, mount: &Mount, key: &str) -> Result<bool> {
        let Ok(path) = mount.path_of(key) else { return Ok(true) };
        Ok(self.node_at(&path).await?.is_some_and(|node| !node.is_dir()))
    }

    /// What is at a path, nothing also below a file. An error is no answer: what would be cleared then waits.
    pub(super) async fn node_at(&self, path: &Path) -> Result<Option<Node>> {
        match self.names.resolve(path).await {
            Err(NsError::NotFound(_) | NsError::NotADirectory(_)) => Ok(None),
            node => Ok(node?),
        }
    }

    /// With `since` those that were there then or are ours, else those of ours that have no name any more. Answers one that stays.
    pub(super) async fn remove_files(
        &self,
        mount: &Mount,
        dir: &str,
        files: Vec<Listed>,
        since: Option<i64>,
    ) -> Result<Option<Found>, Stopped> {
        let (packed, own): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|listed| Packed::is_packed(&listed.found.validator.0));
        let remove = |listed: Listed| async move {
            let key = below(dir, &listed.name);
            let asked = since.is_none_or(|since| listed.found.mtime > since);
            if asked {
                let now = mount.upload.head(&key).await?;
                let stale = match &now {
                    Some(found) => self.wrote(found) && (since.is_some() || !self.is_live_file(mount, &key).await?),
                    None => return Ok(None),
                };
                if !stale {
                    return Ok(now);
                }
            }
            match mount.upload.delete(&key, &Expect::Match(listed.found.validator)).await {
                Ok(()) | Err(StoreError::NotFound(_)) => Ok(None),
                // Written again in this very moment, or gone.
                Err(StoreError::Changed(_)) => Ok(mount.upload.head(&key).await?),
                Err(error) => Err(Stopped::from(error)),
            }
        };
        let mut kept = None;
        // Those in packs wait for one another: all that come in one page go in one new pack.
        for (files, parallel) in [(own, REMOVES_PARALLEL), (packed, PAGE_REMOVED)] {
            let removals = futures::stream::iter(files).map(&remove).buffer_unordered(parallel);
            let stay: Vec<Option<Found>> = removals.try_collect().await?;
            kept = kept.or(stay.into_iter().flatten().next());
        }
        Ok(kept)
    }
}

/// The key of a name in a directory.
pub(super) fn below(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        _ => format!("{dir}/{name}"),
    }
}
