//! Append-only logs on disk: where every byte of Forebay lies.
//!
//! A [`Stream`](StreamId) is what the caller appends to. Its bytes go first into a shared segment, packed with others; past
//! [`Settings::dedicated_from_bytes`] they move into a dedicated segment, contiguous from offset 0 of one local file, with the
//! checksums beside it. Many streams share one flush (group commit). A [`Draft`] is changed in place and becomes a dedicated segment at
//! its seal. Nothing here knows paths, inodes or datasets.
//!
//! A store lies in one data folder or several, each on a disk of its own: a folder has its own lock, identity, manifest, shared log, flushes
//! and reserve, and a segment's id says which folder it is in. A stream lies in one of them.
//!
//! Floor plan: `store` opens the folders and hands out the others; `membership` says which folder is which, `opening` brings one up,
//! `data_folder` is one that is open, `placement` picks one for a new stream; `writer` appends and decides where to; `shared` and `dedicated`
//! are the two kinds of segment, each with its flush, and `draft` is a dedicated one that is not sealed yet; `flusher` decides when to
//! flush; `state` is what a writer, its followers and the flushes know of one stream; `record` and `header` are the bytes on disk
//! (docs/format.md draws them), `manifest` says which segments there are, `recovery` reads them back; `reader` and `follower` read;
//! `scrub` looks for rot; `reserve` keeps room for the day when the disk is full.
//!
//! Why not a file per stream: seven fsyncs a file make 45 files a second; packed, a thousand small files share a few flushes.
//! Why not only packed: one contiguous file can be mapped, handed out without a copy and passed through.

mod coming;
mod context;
mod crc;
mod data_folder;
mod dedicated;
mod draft;
mod error;
mod flusher;
mod folder;
mod follower;
mod fsck;
mod header;
mod identity;
mod index;
mod layout;
mod manifest;
mod membership;
mod opening;
mod placement;
mod reader;
mod reclaim;
mod record;
mod recovery;
mod replay;
mod reserve;
mod scan;
mod scrub;
mod settings;
mod shared;
mod state;
mod store;
mod sums;
mod table;
mod writer;

pub use draft::Draft;
pub use error::SegmentError;
pub use follower::Follower;
pub use fsck::{Report, fsck};
pub use layout::{Append, Extent, Layout, SegmentId, Stable, StableWatch, StreamId};
pub use membership::{home, take_out};
pub use reader::Reader;
pub use recovery::{Recovered, RecoveredStream};
pub use scrub::{Finding, Scrubbed};
pub use settings::{Identity, Open, Settings};
pub use store::SegmentStore;
pub use table::{FolderUsage, Usage};
pub use writer::Writer;

#[cfg(test)]
mod tests;
