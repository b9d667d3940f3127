//! Errors by what the caller must do about them.

use forebay_protocol::{Invalid, frame::FrameError, info};
use http::HeaderMap;
use std::{fmt, time::Duration};
use tonic::{Code, Status};

/// What the caller must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Correct the request.
    Invalid,
    /// Nothing of that name.
    NotFound,
    /// Something is there already.
    Exists,
    /// What is there is not in the state the request needs.
    Precondition,
    /// Lost to another attempt, or the session was aborted: begin anew.
    Aborted,
    /// No room: wait, see [`Error::retry_after`].
    Full,
    /// The server, or a part behind it, is away: retry.
    Unavailable,
    /// Not offered by this server.
    Unsupported,
    /// Not allowed, or not logged in.
    Denied,
    /// Stored bytes are damaged.
    DataLoss,
    /// Not in time, or the connection was lost at the end: the outcome is unknown. Ask again with [`Error::token`].
    Unknown,
    /// A defect, of the server or of this client.
    Internal,
}

/// An error of the client.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    text: String,
    token: Option<String>,
    retry_after: Option<Duration>,
    reason: Option<String>,
}

/// Result of the client.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `text`.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            text: text.into(),
            token: None,
            retry_after: None,
            reason: None,
        }))
    }

    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The idempotency token of the unit whose outcome is unknown.
    pub fn token(&self) -> Option<&str> {
        self.0.token.as_deref()
    }

    /// How long the server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether a rename was refused because its two names lie in different under-stores: copy instead.
    pub fn is_between_stores(&self) -> bool {
        self.0.reason.as_deref() == Some(info::REASON_OTHER_STORE)
    }

    /// Exit code of a command that failed so: 1 failed, 2 usage, 3 not found, 4 exists or conflict, 5 not allowed, 6 unavailable or
    /// timed out.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            ErrorKind::Invalid => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Exists | ErrorKind::Precondition | ErrorKind::Aborted => 4,
            ErrorKind::Denied => 5,
            ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::Unknown => 6,
            ErrorKind::Unsupported | ErrorKind::DataLoss | ErrorKind::Internal => 1,
        }
    }

    /// Whether the same request may well succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::Unknown
        )
    }

    pub(crate) fn with_token(mut self, token: impl Into<Option<String>>) -> Self {
        self.0.token = self.0.token.take().or(token.into());
        self
    }

    /// The connection was lost while `doing`.
    pub(crate) fn lost(doing: &str, source: &dyn std::error::Error) -> Self {
        Self::new(ErrorKind::Unavailable, format!("{doing}: {}", chain(source)))
    }

    /// What the server's trailers say, if it is an error.
    pub(crate) fn check_trailers(trailers: &HeaderMap) -> Result<()> {
        match Status::from_header_map(trailers) {
            Some(status) if status.code() == Code::Ok => Ok(()),
            Some(status) => Err(status.into()),
            None => Err(Self::new(
                ErrorKind::Unavailable,
                "the stream ended without a status: the connection was cut",
            )),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Error {}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let transport = std::error::Error::source(&status).is_some();
        let kind = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists => ErrorKind::Exists,
            Code::FailedPrecondition => ErrorKind::Precondition,
            Code::Aborted => ErrorKind::Aborted,
            Code::ResourceExhausted => ErrorKind::Full,
            Code::Unavailable => ErrorKind::Unavailable,
            Code::Unimplemented => ErrorKind::Unsupported,
            Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
            Code::DataLoss => ErrorKind::DataLoss,
            Code::DeadlineExceeded => ErrorKind::Unknown,
            // What broke below the protocol carries its cause; what the server says of itself does not.
            Code::Unknown | Code::Internal | Code::Cancelled if transport => ErrorKind::Unavailable,
            Code::Ok | Code::Unknown | Code::Internal | Code::Cancelled => ErrorKind::Internal,
        };
        let note = |name| status.metadata().get(name).and_then(|v| v.to_str().ok());
        let retry_after = note(info::TRAILER_RETRY_AFTER)
            .and_then(|v| v.parse().ok())
            .map(Duration::from_millis);
        let token = note(info::TRAILER_TOKEN).map(str::to_owned);
        let reason = note(info::TRAILER_REASON).map(str::to_owned);
        let text = match status.message() {
            "" => status.code().description().to_owned(),
            text => text.to_owned(),
        };
        Self(Box::new(Inner {
            kind,
            text,
            token,
            retry_after,
            reason,
        }))
    }
}

impl From<tonic::transport::Error> for Error {
    fn from(error: tonic::transport::Error) -> Self {
        Self::lost("no connection", &error)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::new(ErrorKind::Invalid, invalid.0)
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Truncated => Self::new(ErrorKind::Unavailable, error.to_string()),
            _ => Self::new(ErrorKind::Internal, error.to_string()),
        }
    }
}

/// Text of an error and of what caused it, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_what_to_do_about_it() {
        for (code, kind, exit) in [
            (Code::InvalidArgument, ErrorKind::Invalid, 2),
            (Code::NotFound, ErrorKind::NotFound, 3),
            (Code::AlreadyExists, ErrorKind::Exists, 4),
            (Code::FailedPrecondition, ErrorKind::Precondition, 4),
            (Code::PermissionDenied, ErrorKind::Denied, 5),
            (Code::Unauthenticated, ErrorKind::Denied, 5),
            (Code::Unavailable, ErrorKind::Unavailable, 6),
            (Code::DeadlineExceeded, ErrorKind::Unknown, 6),
            (Code::Internal, ErrorKind::Internal, 1),
        ] {
            let error = Error::from(Status::new(code, "why"));
            assert_eq!(
                (error.kind(), error.exit_code(), error.to_string().as_str()),
                (kind, exit, "why")
            );
        }
    }

    #[test]
    fn trailers_tell_how_long_to_wait_and_what_to_ask_with() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "8".parse().unwrap());
        trailers.insert(info::TRAILER_RETRY_AFTER, "1500".parse().unwrap());
        trailers.insert(info::TRAILER_TOKEN, "t1".parse().unwrap());
        let error = Error::check_trailers(&trailers).unwrap_err();
        assert_eq!(
            (error.kind(), error.retry_after(), error.token()),
            (ErrorKind::Full, Some(Duration::from_millis(1500)), Some("t1"))
        );
        assert_eq!(
            Error::check_trailers(&HeaderMap::new()).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
}
