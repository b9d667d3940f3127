//! Collecting what was cut off: the rows under directories that have no name any more.
//!
//! A removed directory may hold any number of whiteouts, and a directory removed with everything under it any number of rows.
//! Neither fits into the transaction that takes the name away. That one leaves a note of the directory; these steps, each a
//! plan of bounded size, take the rows away and note the directories found below.

use crate::{
    planner::base_path,
    row::{Dentry, Stored},
    *,
};
use forebay_metastore::{LIMITS, prefix_end};
use keys::{DEAD, ino_of, name_of};

/// Keys that a collected entry takes at most in a plan: its dentry and its inode, each checked and written, and a note.
const KEYS_PER_ENTRY: usize = 5;

/// A step of collecting.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// What to commit. The engine may merge its own checks and writes into it, [`LIMITS`]`.tx_keys_max` keys in all.
    pub plan: Plan,
    /// Files and symlinks whose rows go with the plan: their content may be freed once it is committed.
    pub freed: Vec<(Ino, Inode)>,
    /// Directories whose rows go with the plan, the one that was removed included.
    pub dirs: Vec<Ino>,
    /// Base paths that those directories showed, and that show nowhere any more. A directory that had been renamed showed
    /// another one than the path under which it was removed.
    pub bases: Vec<Path>,
}

impl Namespace {
    /// One step of collecting cut-off directories, of at most `limit` entries (256 leave the engine room in the transaction).
    /// `None`: nothing to collect. A [`NsError::Conflict`] at its commit is harmless: plan again.
    pub async fn plan_collect(&self, limit: usize) -> Result<Option<Collected>> {
        let limit = limit.clamp(1, LIMITS.tx_keys_max / KEYS_PER_ENTRY - 1);
        let range = vec![DEAD].into()..prefix_end(&[DEAD]);
        let notes = self.store.scan(range, 1).await?;
        let Some(dir) = notes.first().and_then(|(key, _)| ino_of(key)) else {
            return Ok(None);
        };
        let mut planner = self.planner();
        planner.fetch([keys::dead(dir), keys::inode(dir)]).await?;
        let mut step = Collected::default();
        let entries = planner.collect_entries(dir, limit, &mut step).await?;
        let whiteouts = planner.collect_whiteouts(dir, limit - entries).await?;
        if entries + whiteouts < limit {
            planner.collect_dir(dir, entries + whiteouts == 0, &mut step)?;
        }
        let plan = planner.finish()?;
        Ok(Some(Collected { plan, ..step }))
    }
}

impl Planner<'_> {
    async fn collect_entries(&mut self, dir: Ino, limit: usize, step: &mut Collected) -> Result<usize> {
        let prefix = keys::dentries(dir);
        let rows = self.ns.store.scan(prefix.clone()..prefix_end(&prefix), limit).await?;
        let inos = rows
            .iter()
            .map(|(_, entry)| Ok(row::decode::<Dentry>(&entry.value)?.ino))
            .collect::<Result<Vec<_>>>()?;
        let wanted = rows
            .iter()
            .map(|(key, _)| key.clone())
            .chain(inos.iter().map(|ino| keys::inode(*ino)));
        self.fetch(wanted).await?;
        for ((key, _), ino) in rows.iter().zip(inos) {
            self.need(key.clone());
            self.erase(key.clone());
            let (stored, _): (Stored, _) = self.peek(&keys::inode(ino))?.ok_or(NsError::Conflict)?;
            if stored.inode.is_dir() {
                self.fetch([keys::dead(ino)]).await?;
                self.cut_off(ino).await?;
            } else {
                self.end_inode(ino).await?;
                if !self.exists(&keys::inode(ino)) {
                    step.freed.push((ino, stored.inode));
                }
            }
        }
        Ok(rows.len())
    }

    async fn collect_whiteouts(&mut self, dir: Ino, limit: usize) -> Result<usize> {
        if limit == 0 {
            return Ok(0);
        }
        let prefix = keys::whiteouts(dir);
        let rows = self.ns.store.scan(prefix.clone()..prefix_end(&prefix), limit).await?;
        for (key, _) in &rows {
            debug_assert!(!name_of(key).is_empty());
            self.erase(key.clone());
        }
        Ok(rows.len())
    }

    /// Ends the directory itself once a step found nothing in it: what comes late is seen by the checks.
    fn collect_dir(&mut self, dir: Ino, empty: bool, step: &mut Collected) -> Result<()> {
        if !empty {
            return Ok(());
        }
        if let Some((stored, _)) = self.peek::<Stored>(&keys::inode(dir))? {
            self.need_empty(keys::dentries(dir), dir);
            self.need_empty(keys::whiteouts(dir), dir);
            self.need(keys::inode(dir));
            self.erase(keys::inode(dir));
            if let Kind::Dir { base } = &stored.inode.kind {
                step.bases.extend(base_path(base)?);
            }
        }
        step.dirs.push(dir);
        self.need(keys::dead(dir));
        self.erase(keys::dead(dir));
        Ok(())
    }
}
