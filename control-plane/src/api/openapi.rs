//! The API's own description.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

/// OpenAPI 3.1, checked in; a test compares it with the routes and with real answers.
pub const DOCUMENT: &str = include_str!("../../openapi.json");

pub(super) async fn show() -> Response {
    let mut response = DOCUMENT.into_response();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
