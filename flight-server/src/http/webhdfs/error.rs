//! From what went wrong to the exception that Hadoop's client throws: one exhaustive match for the engine's kinds.
//!
//! The client makes the exception again from its class and text, whatever the status says; the status is for everybody else. 403 for
//! what an `IOException` says is the protocol's own choice.

use crate::service::crop;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use forebay_protocol::Invalid;
use forebay_writeback::{Error, ErrorKind, Mismatch};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use tonic::{Code, Status};

/// Longest text of an exception.
const TEXT_BYTES_MAX: usize = 2048;
/// What a client is asked to wait where waiting helps, seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// What to show to be known.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"forebay\", charset=\"UTF-8\"");

/// An exception of Java that a Hadoop program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exception {
    FileNotFound,
    FileAlreadyExists,
    ParentNotDirectory,
    PathIsNotEmptyDirectory,
    AccessControl,
    IllegalArgument,
    InvalidPath,
    UnsupportedOperation,
    EndOfFile,
    Retriable,
    Io,
    /// As [`Exception::Io`], and nothing that the caller did wrong.
    Failed,
    /// As [`Exception::AccessControl`], and nobody is known who asks.
    Unknown,
}

impl Exception {
    /// The class by which the client finds it.
    fn class(self) -> &'static str {
        match self {
            Self::FileNotFound => "java.io.FileNotFoundException",
            Self::FileAlreadyExists => "org.apache.hadoop.fs.FileAlreadyExistsException",
            Self::ParentNotDirectory => "org.apache.hadoop.fs.ParentNotDirectoryException",
            Self::PathIsNotEmptyDirectory => "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException",
            Self::AccessControl | Self::Unknown => "org.apache.hadoop.security.AccessControlException",
            Self::IllegalArgument => "java.lang.IllegalArgumentException",
            Self::InvalidPath => "org.apache.hadoop.fs.InvalidPathException",
            Self::UnsupportedOperation => "java.lang.UnsupportedOperationException",
            Self::EndOfFile => "java.io.EOFException",
            Self::Retriable => "org.apache.hadoop.ipc.RetriableException",
            Self::Io | Self::Failed => "java.io.IOException",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::FileNotFound => StatusCode::NOT_FOUND,
            Self::FileAlreadyExists
            | Self::ParentNotDirectory
            | Self::PathIsNotEmptyDirectory
            | Self::AccessControl
            | Self::EndOfFile
            | Self::Io => StatusCode::FORBIDDEN,
            Self::IllegalArgument | Self::InvalidPath | Self::UnsupportedOperation => StatusCode::BAD_REQUEST,
            Self::Retriable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unknown => StatusCode::UNAUTHORIZED,
        }
    }
}

/// A refusal.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    exception: Exception,
    message: String,
}

impl Fault {
    pub(super) fn new(exception: Exception, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { exception, message }
    }

    /// A parameter of the query that makes no sense.
    pub(super) fn parameter(name: &str, why: &str) -> Self {
        let text = format!("Invalid value for webhdfs parameter \"{name}\": {why}");
        Self::new(Exception::IllegalArgument, text)
    }

    /// Nothing at a path.
    pub(super) fn missing(path: impl std::fmt::Display) -> Self {
        Self::new(Exception::FileNotFound, format!("File does not exist: {path}"))
    }

    pub(super) fn exception(&self) -> Exception {
        self.exception
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

/// An error where something was to be read: a directory that is not there, or that is none, is just not there.
impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let exception = match (error.mismatch(), error.kind()) {
            (Some(Mismatch::NotADirectory), _) => Exception::ParentNotDirectory,
            (Some(Mismatch::IsADirectory), _) => Exception::FileAlreadyExists,
            (Some(Mismatch::NotEmpty), _) => Exception::PathIsNotEmptyDirectory,
            (Some(Mismatch::TooLarge | Mismatch::OtherStore), _) => Exception::Io,
            (None, ErrorKind::NotFound) => Exception::FileNotFound,
            (None, ErrorKind::Exists) => Exception::FileAlreadyExists,
            (None, ErrorKind::Denied) => Exception::AccessControl,
            (None, ErrorKind::Invalid) => Exception::IllegalArgument,
            (None, ErrorKind::Unsupported) => Exception::UnsupportedOperation,
            (None, ErrorKind::Unavailable | ErrorKind::Full) => Exception::Retriable,
            (None, ErrorKind::Precondition | ErrorKind::Aborted) => Exception::Io,
            (None, ErrorKind::DataLoss | ErrorKind::Deadline | ErrorKind::Internal) => Exception::Failed,
        };
        Self::new(exception, error.to_string())
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        let exception = match status.code() {
            Code::Unauthenticated => Exception::Unknown,
            Code::PermissionDenied => Exception::AccessControl,
            Code::NotFound => Exception::FileNotFound,
            Code::InvalidArgument => Exception::IllegalArgument,
            Code::Unavailable | Code::ResourceExhausted => Exception::Retriable,
            _ => Exception::Failed,
        };
        Self::new(exception, status.message())
    }
}

impl From<Invalid> for Fault {
    fn from(invalid: Invalid) -> Self {
        Self::new(Exception::InvalidPath, invalid.0)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let Self { exception, message } = self;
        let class = exception.class();
        let name = class.rsplit('.').next().unwrap_or(class);
        let end = message.floor_char_boundary(TEXT_BYTES_MAX);
        let body = json!({"RemoteException": {
            "exception": name,
            "javaClassName": class,
            "message": &message[..end],
        }});
        let mut page = (exception.status(), Json(body)).into_response();
        match exception {
            Exception::Unknown => page.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE),
            Exception::Retriable => page.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER),
            _ => None,
        };
        page
    }
}

/// A refusal in the log; one for who asked is worth a line by default.
pub(super) fn told_off(from: &str, op: &str, fault: &Fault) {
    let text = crop(fault.message());
    match fault.exception {
        Exception::Unknown | Exception::AccessControl => tracing::info!(from, op, text, "denied"),
        Exception::Failed => tracing::warn!(from, op, text, "failed"),
        _ => tracing::debug!(from, op, text, "refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_class_and_status_that_clients_expect() {
        for (error, class, status) in [
            (Error::not_found("x"), "java.io.FileNotFoundException", 404),
            (
                Error::exists("x"),
                "org.apache.hadoop.fs.FileAlreadyExistsException",
                403,
            ),
            (
                Error::denied("x"),
                "org.apache.hadoop.security.AccessControlException",
                403,
            ),
            (Error::invalid("x"), "java.lang.IllegalArgumentException", 400),
            (Error::unsupported("x"), "java.lang.UnsupportedOperationException", 400),
            (Error::unavailable("x"), "org.apache.hadoop.ipc.RetriableException", 503),
            (Error::full("x"), "org.apache.hadoop.ipc.RetriableException", 503),
            (Error::precondition("x"), "java.io.IOException", 403),
            (Error::data_loss("x"), "java.io.IOException", 500),
            (Error::internal("x"), "java.io.IOException", 500),
        ] {
            let fault = Fault::from(error);
            assert_eq!(fault.exception.class(), class);
            assert_eq!(fault.into_response().status(), status, "{class}");
        }
    }

    #[test]
    fn who_is_not_known_is_asked_and_who_may_come_back_is_told_when() {
        let unknown = Fault::new(Exception::Unknown, "x").into_response();
        assert_eq!(unknown.status(), 401);
        assert!(unknown.headers().contains_key(header::WWW_AUTHENTICATE));
        let later = Fault::new(Exception::Retriable, "x").into_response();
        assert!(later.headers().contains_key(header::RETRY_AFTER));
    }
}
