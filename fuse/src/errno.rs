//! The engine's errors as the numbers that programs know.

use forebay_writeback::{Error, ErrorKind, Mismatch};
use std::{fmt, io};

/// An error number of the system, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Result of an operation on files.
pub type Result<T, E = Errno> = std::result::Result<T, E>;

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.0))
    }
}

impl std::error::Error for Errno {}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        let number = number(&error);
        // A program sees a number only; what happened is for the operator.
        if matches!(number, libc::EIO | libc::ENOSPC | libc::EAGAIN) {
            tracing::warn!(%error, "an operation on files failed");
        } else {
            tracing::debug!(%error, "an operation on files was refused");
        }
        Errno(number)
    }
}

fn number(error: &Error) -> i32 {
    match error.mismatch() {
        Some(Mismatch::NotADirectory) => return libc::ENOTDIR,
        Some(Mismatch::IsADirectory) => return libc::EISDIR,
        Some(Mismatch::NotEmpty) => return libc::ENOTEMPTY,
        Some(Mismatch::TooLarge) => return libc::EFBIG,
        Some(Mismatch::OtherStore) => return libc::EXDEV,
        None => {}
    }
    match error.kind() {
        ErrorKind::Invalid => libc::EINVAL,
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::Exists => libc::EEXIST,
        ErrorKind::Precondition => libc::EBUSY,
        ErrorKind::Aborted => libc::ECANCELED,
        ErrorKind::Full => libc::ENOSPC,
        ErrorKind::Unavailable => libc::EAGAIN,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        ErrorKind::Denied => libc::EACCES,
        ErrorKind::DataLoss | ErrorKind::Deadline | ErrorKind::Internal => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_the_number_they_know() {
        let cases = [
            (Error::not_found("x"), libc::ENOENT),
            (Error::full("x"), libc::ENOSPC),
            (Error::data_loss("x"), libc::EIO),
            (Error::exists("x"), libc::EEXIST),
        ];
        for (error, number) in cases {
            assert_eq!(Errno::from(error), Errno(number));
        }
    }
}
