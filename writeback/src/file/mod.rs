//! Content of files: written once into segments, visible whole at commit, read from wherever it lies.
//!
//! It owns the dirty ledger, the content writer on which files and dataset parts are built, the file writer, and the reader
//! over every state of a content. It does not own names, nor what an under-store holds (`clean`).
//!
//! A content is never changed. Overwriting, appending and cutting write a new content under a fresh inode number, which takes
//! the old one's place at its name in one transaction; so a stream's identity is never used twice, whatever a crash left, and
//! readers of the old content keep it. Appending copies what is there, in bounded pieces: the price of a file that is always
//! visible whole. Data that grows belongs into a dataset, whose parts are never copied.

mod ages;
mod concat;
mod content;
mod copy;
mod dirty;
mod draft;
mod keep;
mod place;
mod reader;
mod truncate;
mod turns;
mod writer;

pub use concat::CONCAT_MAX;
pub(crate) use content::{ContentWriter, SealedContent};
pub(crate) use dirty::Dirty;
pub use draft::{Draft, DraftRoom, PlaceDraft, TriedPlace};
pub use keep::{GoingContent, Keeper, KeptContent};
pub use reader::FileReader;
pub(crate) use turns::COMMIT_DRAIN_MAX;
pub use writer::{Accepted, Committed, FileWriter, WriteFile, WriteMode};

use crate::{Result, cache::Inner, rows::Content};
use forebay_namespace::{Ino, Inode, Kind, Node};
use forebay_segment::StreamId;
use turns::{Entered, Gate, Turns};

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) drafts: draft::Drafts,
    pub(crate) turns: Turns,
    pub(crate) gate: Gate,
    keepers: keep::Keepers,
}

impl Inner {
    /// Counts a change as under way, so that a shutdown waits for it. Unavailable once the cache shuts down.
    pub(crate) fn enter(&self) -> Result<Entered<'_>> {
        self.files.gate.enter()
    }

    /// A number for a new inode, never used before.
    pub(crate) async fn fresh_ino(&self) -> Result<Ino> {
        Ok(self.names.allocate_ino().await?)
    }

    /// After the transaction that took `node` from its name (unlinked, replaced): frees what nobody names any more.
    pub(crate) fn discard_node(&self, node: &Node) {
        // A dataset version that links it frees it later.
        if let Node::Row { ino, inode, .. } = node
            && inode.nlink <= 1
        {
            self.discard(*ino, inode);
        }
    }

    /// After the transaction that removed the inode's row: its bytes are wanted no more. Readers that have it open keep it, and
    /// doors that have shown it are asked.
    pub(crate) fn discard(&self, ino: Ino, inode: &Inode) {
        if inode.kind != Kind::File {
            return;
        }
        let stream = StreamId(ino.0, inode.generation);
        match Content::decode(&inode.content) {
            Ok(Content::Open) => {}
            Ok(Content::Sealed { layout, .. }) => {
                self.offer(stream, &layout, inode.size);
                self.dirty.settle(1, inode.size);
                self.dirty.forget(stream);
                self.segments.release(stream, &layout);
            }
            Ok(Content::Persisted { layout, .. }) => {
                if let Some(layout) = layout {
                    self.offer(stream, &layout, inode.size);
                    self.clean.forget_copy(stream);
                    self.segments.release(stream, &layout);
                }
            }
            Err(error) => tracing::error!(ino = ino.0, %error, "can not free the content of a removed inode"),
        }
    }
}
