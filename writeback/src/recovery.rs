//! From what a crash left to a running cache: which streams are named by rows and stay, which sessions go on, which bytes are
//! nobody's.
//!
//! 1. The segments were replayed: every stream with its durable prefix is known.
//! 2. Inode rows are read, one page at a time. A sealed content counts as dirty; its stream stays. The dirty ledger is
//!    derived from these rows and nothing else, and the age of what is dirty is that of its row's last change.
//! 3. Drafts that were synced become the content of their files.
//! 4. Datasets go on: open sessions, half-written parts, versions.
//! 5. All other streams are nobody's: contents that were never committed, or whose rows are gone.
//! 6. Rows without a name that nobody claims go: a crash came between a removal and its clean-up.
//!
//! Nothing here is done by halves: each step reads what is durable and either repeats harmlessly or is one transaction, so a
//! crash during recovery only means that the next one does the same.
//!
//! A row whose segment file is missing is a loss that no restart may hide: the start is refused and names the file. A row
//! whose bytes are there but shorter than they should be is reported, and reading that file answers DataLoss.

use crate::{Error, Result, cache::Inner, rows::Content};
use forebay_namespace::{Ino, Inode, Kind};
use forebay_segment::{Layout, RecoveredStream, SegmentError, StreamId};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Inode rows read at once.
const PAGE: usize = 1000;
/// Lost files that are named one by one; more are counted.
const LOST_NAMED_MAX: usize = 20;

/// What the inode rows say.
#[derive(Debug, Default)]
struct Rows {
    live: HashSet<StreamId>,
    nameless: Vec<Ino>,
    files: u64,
    bytes: u64,
    lost: u64,
}

impl Inner {
    /// Brings rows and segments together. Call once, before anything else changes.
    pub(crate) async fn recover(self: &Arc<Self>, mut streams: HashMap<StreamId, RecoveredStream>) -> Result<()> {
        let mut rows = self.read_rows().await?;
        self.reach(forebay_runtime::crash_point!("recovery-scanned"))?;
        self.dirty.adopt(rows.files, rows.bytes);
        let found = streams.len();
        rows.live.extend(self.recover_drafts(&mut streams).await?);
        let claimed = self.recover_datasets(&mut streams).await?;
        // Of what is staged or kept for old versions nothing says since when.
        let now = self.components.clock.now();
        claimed
            .difference(&rows.live)
            .for_each(|stream| self.dirty.found(*stream, now));
        let orphans = self.drop_orphans(std::mem::take(&mut rows.nameless), &claimed).await?;
        rows.live.extend(claimed);
        self.segments.retain(&rows.live).await;
        tracing::info!(
            dirty_files = self.dirty.files(),
            dirty_bytes = self.dirty.bytes(),
            streams = found,
            live = rows.live.len(),
            orphans,
            lost = rows.lost,
            "recovered"
        );
        Ok(())
    }

    async fn read_rows(&self) -> Result<Rows> {
        let mut rows = Rows::default();
        let mut after = None;
        loop {
            let page = self.names.inodes(after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(rows) };
            after = Some(*last);
            for (ino, inode) in &page {
                self.read_inode_row(*ino, inode, &mut rows).await?;
            }
        }
    }

    async fn read_inode_row(&self, ino: Ino, inode: &Inode, rows: &mut Rows) -> Result<()> {
        if inode.kind != Kind::File {
            return Ok(());
        }
        if inode.nlink == 0 {
            rows.nameless.push(ino);
        }
        let stream = StreamId(ino.0, inode.generation);
        match Content::decode(&inode.content)? {
            // A part of a session; datasets know more of it.
            Content::Open => {}
            Content::Sealed { layout, .. } => {
                rows.live.insert(stream);
                rows.files += 1;
                rows.bytes += inode.size;
                // The commit is no later than the row's last change.
                self.dirty.found(stream, inode.ctime);
                self.check_bytes(ino, inode, &layout, rows).await?;
            }
            Content::Persisted {
                layout: Some(layout), ..
            } => {
                rows.live.insert(stream);
                // Only a copy: a read goes to the under-store then.
                if let Err(error) = self.segments.contains(&layout) {
                    tracing::warn!(%stream, %error, "the local copy of a persisted file is damaged");
                }
            }
            Content::Persisted { layout: None, .. } => {}
        }
        Ok(())
    }

    /// Whether the only copy is there.
    async fn check_bytes(&self, ino: Ino, inode: &Inode, layout: &Layout, rows: &mut Rows) -> Result<()> {
        let problem = match self.segments.contains(layout) {
            Ok(()) if layout.len() == inode.size => return Ok(()),
            Ok(()) => format!("its row says {} bytes and its layout {}", inode.size, layout.len()),
            Err(error @ SegmentError::Missing { .. }) => {
                let name = self.name_of(ino).await;
                return Err(Error::from(error).at(format!("refusing to start without the bytes of {name}")));
            }
            Err(error) => error.to_string(),
        };
        rows.lost += 1;
        if rows.lost <= LOST_NAMED_MAX as u64 {
            let file = self.name_of(ino).await;
            tracing::error!(
                file,
                problem,
                "the only copy of a file is damaged; reading it will fail"
            );
        }
        Ok(())
    }

    async fn name_of(&self, ino: Ino) -> String {
        match self.names.path_of(ino).await {
            Ok(Some(path)) => path.to_string(),
            _ => format!("inode {} (without a name)", ino.0),
        }
    }

    /// Drops rows without a name whose content nobody claims.
    async fn drop_orphans(&self, nameless: Vec<Ino>, claimed: &HashSet<StreamId>) -> Result<u64> {
        let mut dropped = 0;
        for ino in nameless {
            let Some((inode, _)) = self.names.inode(ino).await? else {
                continue;
            };
            if inode.nlink > 0 || claimed.contains(&StreamId(ino.0, inode.generation)) {
                continue;
            }
            let Some(plan) = self.names.plan_drop(ino).await? else {
                continue;
            };
            self.commit(plan).await?;
            self.discard(ino, &inode);
            dropped += 1;
        }
        Ok(dropped)
    }
}
