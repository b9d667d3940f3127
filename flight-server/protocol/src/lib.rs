//! Words on the wire: what travels between a client and a server of Forebay, as types. It knows nothing of the engine, of
//! sockets or of Arrow arrays.
//!
//! - [`path`]: paths as Flight and URLs carry them (percent-encoding, what is refused)
//! - [`command`]: descriptors, PATH and CMD, to read and to write
//! - [`action`]: bodies and results of DoAction, and the table behind ListActions
//! - [`info`]: JSON in `app_metadata` of FlightInfo and PutResult, and the names of response metadata
//! - [`level`]: how safe an acknowledged write is
//! - [`resume`]: where a reader stopped
//! - [`ticket`]: signed tickets
//! - [`frame`]: FlightData in gRPC framing, parsed and written without touching the body
//! - [`span`]: durations as people write them
//!
//! Types of the wire are not the engine's types; the doors translate.

#![warn(missing_docs)]

pub mod action;
pub mod command;
pub mod frame;
pub mod info;
pub mod level;
pub mod path;
pub mod resume;
pub mod span;
pub mod ticket;

/// A request that is not what this crate understands. The text says what is wrong, where, and what to do; doors answer
/// INVALID_ARGUMENT with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// An error that says `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
