//! Sessions that a call names. Their ids are no secrets, so what one may not see is as if it were not there: the engine knows no session
//! at another path than its own, and only who may see that path is told of it here.

use super::{Door, engine};
use crate::{
    auth::{Principal, Right},
    error,
};
use forebay_protocol::{
    command::ReadCommand,
    path::WirePath,
    resume::{Counted, ResumeToken},
};
use forebay_writeback::dataset::SessionId;
use tonic::{Code, Status};

/// A session that the caller may write to.
pub(super) async fn writable(door: &Door, by: &Principal, id: &str) -> Result<SessionId, Status> {
    let session = SessionId(id.to_owned());
    let path = door.cache.session_path(&session).await.map_err(error::engine)?;
    match by.may(Right::Write, &engine::wire_path(&path)?) {
        Ok(()) => Ok(session),
        Err(_) => Err(error::engine(session.unknown())),
    }
}

/// The session that a read names, by itself or in what it goes on from.
pub(super) fn of_read(command: &ReadCommand) -> Option<String> {
    let counted = match &command.from {
        Some(ResumeToken {
            of: Counted::Session(session),
            ..
        }) => Some(session),
        _ => None,
    };
    command.session.as_ref().or(counted).cloned()
}

/// What a caller is told who named `session` at `path` and was refused: where the session is of another path, which they may see, this
/// says so.
pub(super) async fn misplaced(
    door: &Door,
    by: &Principal,
    right: Right,
    path: &WirePath,
    session: &str,
    refused: Status,
) -> Status {
    if refused.code() != Code::NotFound {
        return refused;
    }
    let Ok(of) = door.cache.session_path(&SessionId(session.to_owned())).await else {
        return refused;
    };
    match engine::wire_path(&of) {
        Ok(of) if of != *path && by.may(right, &of).is_ok() => {
            error::wrong(format!("session {session} is of {of}, not of {path}"))
        }
        _ => refused,
    }
}
