//! Why a name can not be found or changed.

use crate::{BaseError, Ino, Path, PathError};
use forebay_metastore::{CommitError, MetaError};

/// Result of the namespace.
pub type Result<T, E = NsError> = std::result::Result<T, E>;

/// Why a lookup, a plan or a commit did not succeed. Nothing was written, except perhaps at [`NsError::Unknown`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum NsError {
    /// Nothing is there.
    #[error("{0}: not found")]
    NotFound(Path),
    /// The inode has no row any more.
    #[error("inode {} is gone", .0.0)]
    Gone(Ino),
    /// Something is there already.
    #[error("{0}: exists already")]
    Exists(Path),
    /// A directory is needed there.
    #[error("{0}: is not a directory")]
    NotADirectory(Path),
    /// A file is needed there.
    #[error("{0}: is a directory")]
    IsADirectory(Path),
    /// The directory has entries.
    #[error("{0}: directory not empty")]
    NotEmpty(Path),
    /// The request makes no sense (a rename into itself, the root removed, a bad path).
    #[error("{0}")]
    Invalid(String),
    /// Something else was committed meanwhile: read and plan again.
    #[error("changed meanwhile by another operation")]
    Conflict,
    /// The store did not say whether it committed. Commit the same plan with the same token to find out.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The base was needed and could not answer.
    #[error("under-store: {0}")]
    Base(#[from] BaseError),
    /// The metastore could not answer, or holds what makes no sense.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// More than fits in one transaction or row: do it in smaller pieces.
    #[error("too large for one transaction: {0}")]
    TooMany(String),
}

impl From<PathError> for NsError {
    fn from(error: PathError) -> Self {
        NsError::Invalid(error.to_string())
    }
}

impl From<CommitError> for NsError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => NsError::Conflict,
            CommitError::Unknown(text) => NsError::Unknown(text),
            CommitError::Limit(text) => NsError::TooMany(text),
            CommitError::Unavailable(text) => NsError::Meta(MetaError::Unavailable(text)),
        }
    }
}
