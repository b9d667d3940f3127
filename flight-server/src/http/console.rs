//! `/`: one page that shows what stands where. It holds everything it needs and asks `/api/v1/status` every two seconds.

use axum::{http::header, response::IntoResponse};

const PAGE: &str = include_str!("console.html");
/// Nothing from elsewhere, and in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

/// The page.
pub(super) async fn page() -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
        ],
        PAGE,
    )
}
