//! Arrow IPC as Forebay stores it: what a message may be, how messages lie in a part, and how a part is found again.
//!
//! | module | owns |
//! |---|---|
//! | [`schema`] | a dataset's schema as it was sent, and what another one must agree with |
//! | [`validate`] | what a stranger's message may be before a byte of it is written |
//! | [`compressed`] | what a compressed buffer may decode to, and whether it is whole |
//! | [`strict`] | what readers of other languages ask of a message |
//! | [`frame`] | the bytes of a part: opening, messages, closing |
//! | [`index`] | where the messages of a sealed part lie, for parts of ours and for files of others |
//! | [`decode`] | from stored messages to record batches |
//!
//! It does not own where bytes lie (`file`), nor whose they are (sessions).

pub(crate) mod compressed;
pub(crate) mod decode;
pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod schema;
mod strict;
pub(crate) mod validate;

use crate::{Error, Result};
use bytes::{Bytes, BytesMut};
use flatbuffers::VerifierOptions;
use std::panic::AssertUnwindSafe;

/// Levels of nesting that a schema may have.
pub(crate) const NESTING_MAX: usize = 128;
/// Bytes of a message's header (its flatbuffer).
pub(crate) const HEADER_BYTES_MAX: usize = 16 << 20;
/// Bytes of a batch's app_metadata.
pub(crate) const APP_METADATA_BYTES_MAX: usize = 16 << 20;
/// Bytes of a message's body: what a Flight message can carry.
pub(crate) const BODY_BYTES_MAX: u64 = i32::MAX as u64;
/// Bytes that a compressed body may claim to be when it is decoded.
pub(crate) const DECODED_BYTES_MAX: u64 = 1 << 30;
/// Rows of one batch.
pub(crate) const ROWS_MAX: u64 = i32::MAX as u64;

/// Bounds for the flatbuffer verifier: a field is a table in a vector of tables, so each level of nesting costs a few of its levels.
fn verifier() -> VerifierOptions {
    VerifierOptions {
        max_depth: 4 * NESTING_MAX,
        max_tables: 4_000_000,
        max_apparent_size: 1 << 30,
        ..VerifierOptions::default()
    }
}

/// The verified message in `header`. Invalid when it is none, or larger than [`HEADER_BYTES_MAX`].
pub(crate) fn message(header: &[u8]) -> Result<arrow_ipc::Message<'_>> {
    if header.len() > HEADER_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a message header of {} bytes; at most {HEADER_BYTES_MAX} are taken",
            header.len()
        )));
    }
    arrow_ipc::root_as_message_with_opts(&verifier(), header)
        .map_err(|error| Error::invalid(format!("the message header is no valid flatbuffer: {error}")))
}

/// Runs code of the Arrow crates that may panic on bytes that make no sense; a panic becomes an Invalid error.
///
/// The closure must leave nothing behind that a later call relies on when it fails: what it changes is thrown away by the caller.
pub(crate) fn guarded<T>(what: &str, run: impl FnOnce() -> Result<T, arrow_schema::ArrowError>) -> Result<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::invalid(format!("{what}: {error}"))),
        Err(panic) => Err(Error::invalid(format!(
            "{what}: {}",
            forebay_runtime::task::panic_text(panic.as_ref())
        ))),
    }
}

/// The pieces as one: without a copy when there is only one.
pub(crate) fn joined(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [] => Bytes::new(),
        [one] => one.clone(),
        many => {
            let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|piece| all.extend_from_slice(piece));
            all.freeze()
        }
    }
}

/// Cuts the first `len` bytes off `pieces`, without a copy; fewer when there are no more.
pub(crate) fn split_front(pieces: &mut std::collections::VecDeque<Bytes>, mut len: usize) -> Vec<Bytes> {
    let mut front = Vec::new();
    while len > 0
        && let Some(first) = pieces.front_mut()
    {
        let taken = first.split_to(len.min(first.len()));
        len -= taken.len();
        if first.is_empty() {
            pieces.pop_front();
        }
        if !taken.is_empty() {
            front.push(taken);
        }
    }
    front
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
