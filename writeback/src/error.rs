//! Errors as a caller sees them: few kinds, each by what the caller must do; the text says what, where and what to do.

use std::fmt;

/// What the caller must do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Correct the request.
    Invalid,
    /// Nothing of that name.
    NotFound,
    /// Something is there already.
    Exists,
    /// The system is not in the state the request needs (not empty, other schema, session ended).
    Precondition,
    /// Lost to another attempt, or the session was aborted.
    Aborted,
    /// No room; retry later.
    Full,
    /// A part is away; retry.
    Unavailable,
    /// Not offered.
    Unsupported,
    /// Not allowed.
    Denied,
    /// Stored bytes are damaged and no good copy is left.
    DataLoss,
    /// Not in time; the outcome is unknown, ask with the token.
    Deadline,
    /// A defect of Forebay; it is logged where it happened.
    Internal,
}

/// An error of the engine.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    text: String,
}

impl Error {
    /// An error of `kind` that says `text`.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;
