//! Errors as a caller sees them: few kinds, each by what the caller must do; the text says what, where and what to do.
//!
//! The ground crates have precise errors of their own. They become kinds here, in one match each, so that a door needs only
//! one match from kind to its dialect.

use forebay_metastore::{CommitError, MetaError};
use forebay_namespace::{NsError, PathError};
use forebay_segment::SegmentError;
use forebay_understore::StoreError;
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

/// What at a name is not as the request needs it: doors to programs that ask for it by number (`ENOTEMPTY`) need more than the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// A directory is needed there.
    NotADirectory,
    /// A file is needed there.
    IsADirectory,
    /// The directory has entries.
    NotEmpty,
    /// It would be larger than a file can be here.
    TooLarge,
    /// The two names lie in different under-stores.
    OtherStore,
}

/// An error of the engine.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    text: String,
    mismatch: Option<Mismatch>,
    /// Another operation was committed meanwhile: plan again ([`crate::commit::Attempts`]). Never leaves the engine as such.
    lost: bool,
}

impl Error {
    /// An error of `kind` that says `text`.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            mismatch: None,
            lost: false,
        }
    }

    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What at the name was not as the request needs it, where that is the reason.
    pub fn mismatch(&self) -> Option<Mismatch> {
        self.mismatch
    }

    /// The same error, with this reason.
    pub(crate) fn because(mut self, mismatch: Mismatch) -> Self {
        self.mismatch = Some(mismatch);
        self
    }

    /// A transaction lost a check to another one; nothing was written.
    pub(crate) fn lost() -> Self {
        let text = "others kept changing the same names meanwhile; try again";
        Self {
            kind: ErrorKind::Unavailable,
            text: text.into(),
            mismatch: None,
            lost: true,
        }
    }

    /// Whether planning anew may help.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether something that is needed does not answer now: a store, mostly.
    pub(crate) fn is_away(&self) -> bool {
        self.kind == ErrorKind::Unavailable && !self.lost
    }

    /// The same error, its text led in by where it happened.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.text = format!("{place}: {}", self.text);
        self
    }
}

/// One constructor per kind, for the places that decide on one.
macro_rules! constructors {
    ($($name:ident $kind:ident),* $(,)?) => {
        impl Error {
            $(
                #[doc = concat!("[`ErrorKind::", stringify!($kind), "`] with this text.")]
                pub fn $name(text: impl Into<String>) -> Self {
                    Self::new(ErrorKind::$kind, text)
                }
            )*
        }
    };
}

constructors! {
    invalid Invalid, not_found NotFound, exists Exists, precondition Precondition, aborted Aborted, full Full,
    unavailable Unavailable, unsupported Unsupported, denied Denied, data_loss DataLoss, deadline Deadline, internal Internal,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<NsError> for Error {
    fn from(error: NsError) -> Self {
        let kind = match &error {
            NsError::NotFound(_) | NsError::Gone(_) => ErrorKind::NotFound,
            NsError::Exists(_) => ErrorKind::Exists,
            NsError::TooMany(_) => ErrorKind::Precondition,
            NsError::NotADirectory(_) => {
                return Self::precondition(error.to_string()).because(Mismatch::NotADirectory);
            }
            NsError::IsADirectory(_) => return Self::precondition(error.to_string()).because(Mismatch::IsADirectory),
            NsError::NotEmpty(path) => {
                let text = format!("{path}: directory not empty; empty it first, or ask for `recursive`");
                return Self::precondition(text).because(Mismatch::NotEmpty);
            }
            NsError::Invalid(_) => ErrorKind::Invalid,
            NsError::Conflict => return Self::lost(),
            NsError::Unknown(_) => ErrorKind::Deadline,
            NsError::Base(_) => ErrorKind::Unavailable,
            NsError::Meta(error) => return error.clone().into(),
        };
        Self::new(kind, error.to_string())
    }
}

impl From<PathError> for Error {
    fn from(error: PathError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<MetaError> for Error {
    fn from(error: MetaError) -> Self {
        let kind = match &error {
            MetaError::Unavailable(_) => ErrorKind::Unavailable,
            MetaError::Corrupt(_) => ErrorKind::DataLoss,
            MetaError::Limit(_) => ErrorKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        let kind = match &error {
            CommitError::Conflict(_) => return Self::lost(),
            CommitError::Unavailable(_) => ErrorKind::Unavailable,
            CommitError::Unknown(_) => ErrorKind::Deadline,
            CommitError::Limit(_) => ErrorKind::Precondition,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<SegmentError> for Error {
    fn from(error: SegmentError) -> Self {
        let kind = match &error {
            _ if error.is_full() => ErrorKind::Full,
            SegmentError::Full { .. } => ErrorKind::Full,
            SegmentError::Poisoned { .. } | SegmentError::Closed | SegmentError::Disk(_) => ErrorKind::Unavailable,
            SegmentError::Corrupt { .. } | SegmentError::Missing { .. } => ErrorKind::DataLoss,
            SegmentError::Foreign { .. }
            | SegmentError::FolderMissing { .. }
            | SegmentError::Misplaced { .. }
            | SegmentError::Locked { .. }
            | SegmentError::NotDurable { .. }
            | SegmentError::NewerFormat { .. } => ErrorKind::Precondition,
            SegmentError::Invalid { .. } => ErrorKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NotFound(_) => ErrorKind::NotFound,
            StoreError::Changed(_) => ErrorKind::Precondition,
            StoreError::Refused(_) => ErrorKind::Denied,
            StoreError::Unavailable(_) => ErrorKind::Unavailable,
            StoreError::Damaged(_) => ErrorKind::DataLoss,
        };
        Self::new(kind, format!("under-store: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_namespace::Path;

    #[test]
    fn an_error_names_its_path_and_what_to_do() {
        let error = Error::from(NsError::NotEmpty(Path::parse(b"/a/b").unwrap()));
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(
            error.to_string().contains("/a/b") && error.to_string().contains("recursive"),
            "{error}"
        );
    }

    #[test]
    fn an_outcome_that_is_unknown_is_never_taken_for_a_failure() {
        assert_eq!(Error::from(NsError::Unknown("lost".into())).kind(), ErrorKind::Deadline);
        assert_eq!(
            Error::from(CommitError::Unknown("lost".into())).kind(),
            ErrorKind::Deadline
        );
    }

    #[test]
    fn a_damaged_answer_of_a_store_is_told_from_a_store_that_is_away() {
        assert_eq!(
            Error::from(StoreError::Damaged("short".into())).kind(),
            ErrorKind::DataLoss
        );
        assert_eq!(
            Error::from(StoreError::Unavailable("503".into())).kind(),
            ErrorKind::Unavailable
        );
    }
}
