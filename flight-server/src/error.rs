//! From what went wrong to the gRPC status that says it. One exhaustive match for the engine's kinds; the other sources are words
//! on the wire, which are the caller's to correct.

use forebay_protocol::{
    Invalid,
    action::ActionError,
    frame::FrameError,
    info::{REASON_OTHER_STORE, TRAILER_REASON, TRAILER_RETRY_AFTER},
    ticket::TicketError,
};
use forebay_writeback::{Error, ErrorKind, Mismatch};
use tonic::{Code, Status, metadata::MetadataValue};

/// What a client is asked to wait after RESOURCE_EXHAUSTED or UNAVAILABLE, milliseconds.
const RETRY_AFTER_MS: u32 = 1000;
/// Longest text of a status: clients refuse trailers beyond 8 KiB.
const TEXT_BYTES_MAX: usize = 2048;

/// The gRPC code of a kind.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Exists => Code::AlreadyExists,
        ErrorKind::Precondition => Code::FailedPrecondition,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::Full => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Deadline => Code::DeadlineExceeded,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The status of an engine's error.
pub(crate) fn engine(error: Error) -> Status {
    let mut status = status(code(error.kind()), &error.to_string());
    if error.mismatch() == Some(Mismatch::OtherStore) {
        let reason = MetadataValue::from_static(REASON_OTHER_STORE);
        status.metadata_mut().insert(TRAILER_REASON, reason);
    }
    status
}

/// A status that always has a text, of a length that every client takes, and a hint when to come back where that helps.
pub(crate) fn status(code: Code, text: &str) -> Status {
    let text = match text {
        "" => code.description(),
        text => text,
    };
    let end = (0..=TEXT_BYTES_MAX.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    let mut status = Status::new(code, &text[..end]);
    if matches!(code, Code::ResourceExhausted | Code::Unavailable) {
        status
            .metadata_mut()
            .insert(TRAILER_RETRY_AFTER, MetadataValue::from(RETRY_AFTER_MS));
    }
    status
}

/// The status of a request that is not understood.
pub(crate) fn invalid(error: Invalid) -> Status {
    status(Code::InvalidArgument, &error.0)
}

/// The status of a request that says `text` is wrong with it.
pub(crate) fn wrong(text: impl AsRef<str>) -> Status {
    status(Code::InvalidArgument, text.as_ref())
}

/// The status of bytes that are no FlightData.
pub(crate) fn frame(error: FrameError) -> Status {
    let code = match error {
        FrameError::Compressed => Code::Unimplemented,
        FrameError::TooLarge { .. } => Code::ResourceExhausted,
        FrameError::Malformed(_) | FrameError::Truncated => Code::InvalidArgument,
    };
    // Not `status`: waiting does not make a message smaller.
    Status::new(code, error.to_string())
}

/// The status of an action that is not understood.
pub(crate) fn action(error: ActionError) -> Status {
    match error {
        ActionError::Unknown(_) => status(Code::Unimplemented, &error.to_string()),
        ActionError::Invalid(invalid) => self::invalid(invalid),
    }
}

/// The status of a ticket that is not ours or no longer good.
pub(crate) fn ticket(error: TicketError) -> Status {
    status(Code::Unauthenticated, &error.to_string())
}

/// The server is on its way out; another attempt meets the next one.
pub(crate) fn shutting_down() -> Status {
    status(Code::Unavailable, "the server is shutting down; come back soon")
}

/// A handler panicked: the text went to the log with the panic.
pub(crate) fn panicked() -> Status {
    status(Code::Internal, "a defect of the server; its log says where")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code_and_a_text() {
        for (kind, code) in [
            (ErrorKind::Invalid, Code::InvalidArgument),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::Exists, Code::AlreadyExists),
            (ErrorKind::Precondition, Code::FailedPrecondition),
            (ErrorKind::Aborted, Code::Aborted),
            (ErrorKind::Full, Code::ResourceExhausted),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::Unsupported, Code::Unimplemented),
            (ErrorKind::Denied, Code::PermissionDenied),
            (ErrorKind::DataLoss, Code::DataLoss),
            (ErrorKind::Deadline, Code::DeadlineExceeded),
            (ErrorKind::Internal, Code::Internal),
        ] {
            let told = engine(Error::new(kind, "what, where, what to do"));
            assert_eq!((told.code(), told.message()), (code, "what, where, what to do"));
            assert!(!engine(Error::new(kind, "")).message().is_empty());
        }
    }

    #[test]
    fn full_and_unavailable_say_when_to_come_back() {
        for (kind, hint) in [
            (ErrorKind::Full, true),
            (ErrorKind::Unavailable, true),
            (ErrorKind::NotFound, false),
        ] {
            assert_eq!(
                engine(Error::new(kind, "x"))
                    .metadata()
                    .contains_key(TRAILER_RETRY_AFTER),
                hint
            );
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let told = engine(Error::new(ErrorKind::Invalid, "ü".repeat(5000)));
        assert!(told.message().len() <= TEXT_BYTES_MAX && told.message().chars().all(|c| c == 'ü'));
    }

    #[test]
    fn a_message_too_large_or_compressed_is_told_apart_from_a_malformed_one() {
        assert_eq!(frame(FrameError::Compressed).code(), Code::Unimplemented);
        assert_eq!(
            frame(FrameError::TooLarge {
                what: "message",
                bytes: 9,
                most: 1
            })
            .code(),
            Code::ResourceExhausted
        );
        assert_eq!(frame(FrameError::Malformed("x")).code(), Code::InvalidArgument);
        assert_eq!(frame(FrameError::Truncated).code(), Code::InvalidArgument);
    }
}
