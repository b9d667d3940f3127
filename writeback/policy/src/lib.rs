//! Policies: what holds for a path and everything under it.
//!
//! | module | owns |
//! |---|---|
//! | [`value`] | the words and bounds of values, from JSON and back |
//! | [`keys`] | the one list of keys, each with its value's type, default and reading; what is set at a path; what is in effect |
//! | [`table`] | which path has which, and what that makes of a path under it |
//! | [`evict`], [`room`] | orders in which what is held makes room; everything that is held under one limit |
//! | `passes` | whether a directory is read in epochs |
//! | [`trace`], [`simulate`] | reads as text, and what they would have hit |
//!
//! It knows paths and values alone: what a value does is the engine's, and so is whether it can be honoured there. A policy belongs
//! to its path, not to what lies there: renaming or deleting a directory moves no policy.

pub mod evict;
pub mod keys;
mod passes;
pub mod room;
pub mod simulate;
pub mod table;
pub mod trace;
pub mod value;

pub use keys::{Change, Defaults, Effective, Key, Set, Value};
pub use room::Room;
pub use table::Table;
pub use value::Invalid;
