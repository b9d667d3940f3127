//! A token for a name and a password, as Hadoop's client asks for one: by OAuth 2.0's client credentials (RFC 6749, 4.4). It is the one way
//! in which a stock client can show who it is; the token it gets is that of the Flight door's Handshake.

use super::{WebHdfs, query::Query};
use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tonic::{Code, Status};

/// Longest form that is read.
const FORM_BYTES_MAX: usize = 8 << 10;
/// When a client should ask again: well before the token ends.
const RENEW_AFTER: Duration = Duration::from_secs(12 * 3600);

/// Answers one request for a token.
pub(super) async fn token(State(hdfs): State<Arc<WebHdfs>>, request: Request) -> Response {
    let Ok(form) = to_bytes(request.into_body(), FORM_BYTES_MAX).await else {
        return refused(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "the form is too long or broke off",
        );
    };
    let form = std::str::from_utf8(&form).ok().and_then(|form| Query::parse(form).ok());
    let form = form.unwrap_or_default();
    let asked = |name| form.text(name).ok().flatten();
    if asked("grant_type") != Some("client_credentials") {
        let text = "only client_credentials are taken: client_id is the user, client_secret the password or token";
        return refused(StatusCode::BAD_REQUEST, "unsupported_grant_type", text);
    }
    let (Some(name), Some(secret)) = (asked("client_id"), asked("client_secret")) else {
        let text = "client_id or client_secret is missing";
        return refused(StatusCode::BAD_REQUEST, "invalid_request", text);
    };
    let door = &hdfs.door;
    match door.auth.login_client(door.office(), name, secret).await {
        Ok(token) => given(&token),
        Err(status) => unknown(&status),
    }
}

fn given(token: &str) -> Response {
    let body = json!({"access_token": token, "token_type": "bearer", "expires_in": RENEW_AFTER.as_secs()});
    let kept_by_nobody = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (kept_by_nobody, Json(body)).into_response()
}

fn unknown(status: &Status) -> Response {
    tracing::info!(text = status.message(), "denied a token");
    match status.code() {
        Code::Unauthenticated => refused(StatusCode::UNAUTHORIZED, "invalid_client", status.message()),
        _ => refused(StatusCode::INTERNAL_SERVER_ERROR, "server_error", status.message()),
    }
}

fn refused(status: StatusCode, error: &str, text: &str) -> Response {
    (status, Json(json!({"error": error, "error_description": text}))).into_response()
}
