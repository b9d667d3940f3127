//! Handshake: from a name and password to a bearer token.
//!
//! Both ways that stock clients have are understood: `authorization: Basic …` in the request's headers, answered by
//! `authorization: Bearer …` in ours (`authenticate_basic_token`), and the older BasicAuth message, answered by the token as
//! payload (which a client then shows as `auth-token-bin`).

use super::{Answer, Door, incoming::Incoming};
use crate::{error, reply::Said};
use arrow_flight::{BasicAuth, HandshakeRequest, HandshakeResponse};
use futures::stream;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use prost::Message;
use std::sync::Arc;
use tonic::{Code, Status};

pub(super) async fn handshake(door: Arc<Door>, headers: &HeaderMap, messages: Incoming) -> Result<Answer, Status> {
    if let Some(token) = door.auth.login_by_header(&door.office, headers).await? {
        let mut answer = Answer::many(stream::iter([]));
        answer.headers.insert(AUTHORIZATION, bearer(&token)?);
        return Ok(answer);
    }
    let mut messages = messages.plain();
    let first = messages
        .next()
        .await?
        .ok_or_else(|| error::status(Code::Unauthenticated, "say who you are"))?;
    let request = HandshakeRequest::decode(first).map_err(|e| error::wrong(e.to_string()))?;
    let login = BasicAuth::decode(request.payload).map_err(|e| error::wrong(format!("no BasicAuth: {e}")))?;
    let token = door.auth.login(&door.office, &login.username, &login.password).await?;
    let response = HandshakeResponse {
        protocol_version: request.protocol_version,
        payload: token.clone().into(),
    };
    let mut answer = Answer::many(stream::iter([Said::message(&response)]));
    answer.headers.insert(AUTHORIZATION, bearer(&token)?);
    Ok(answer)
}

fn bearer(token: &str) -> Result<HeaderValue, Status> {
    HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| error::status(Code::Internal, "a token that no header holds"))
}
