//! The cache: files and datasets that are safe before they are persisted.
//!
//! Floor plan; each module's front page says what it owns and what not:
//!
//! | module | owns |
//! |---|---|
//! | [`settings`], [`builder`] | plain data; components and settings to a running [`Cache`] |
//! | [`error`] | few kinds, by what the caller must do |
//! | [`rows`] | what the engine keeps in the metastore |
//! | [`cache`] | the handle that doors hold, and the state behind it |
//! | `commit` | one operation, one transaction: again after a conflict, asked again when unknown |
//! | [`names`], `list`, `collect` | stat, mkdir, rename, delete; listing as a walk; freeing what a recursive delete cut off |
//! | `attributes`, [`owners`], [`changes`] | modes, owners, times, xattrs; owners known by name alone; telling doors of what was changed |
//! | [`mod@file`] | writer and reader of one file's content, truncate; the dirty ledger |
//! | [`dataset`] | sessions, parts, versions, publish, follow |
//! | [`mounts`], [`clean`] | under-stores bound to prefixes, and the evictable cache of what they hold |
//! | [`mod@policy`] | what is set by path: kept in the metastore, checked, and asked for by everyone else |
//! | [`persist`] | tracker, uploader, publisher: the under-store becomes what was acknowledged |
//! | [`recovery`] | from what a crash left to a running cache |
//! | [`stats`] | numbers for people and machines |
//!
//! It knows neither tonic nor FUSE: doors translate.

mod attributes;
pub mod builder;
pub mod cache;
pub mod changes;
pub mod clean;
mod collect;
mod commit;
pub mod dataset;
mod disks;
pub mod error;
pub mod file;
mod list;
pub mod mounts;
pub mod names;
pub mod owners;
pub mod persist;
pub mod policy;
pub mod recovery;
pub mod rows;
pub mod settings;
pub mod stats;

pub use attributes::SetAttributes;
pub use builder::{Components, StoreOpener};
pub use cache::Cache;
pub use error::{Error, ErrorKind, Mismatch, Result};
pub use forebay_namespace::Path;
pub use settings::{AckLevel, MountSpec, PersistSettings, Settings, TierSettings};
