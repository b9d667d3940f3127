//! Append-only logs on disk: where every byte of Forebay lies.
mod error;
mod layout;
mod settings;
mod stub;
pub use error::SegmentError;
pub use layout::{Append, Extent, Layout, SegmentId, Stable, StableWatch, StreamId};
pub use settings::{Identity, Open, Settings};
pub use stub::*;
