//! Answers of the OAuth endpoints: JSON, redirects, pages. Nothing of them may be cached, and no
//! page may be framed.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::call::Body;

/// An error of OAuth: its code and a sentence for the client's developer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Of RFC 6749, 7591 or 8707.
    pub code: &'static str,
    /// What is wrong. Never a secret.
    pub text: String,
}

impl Fault {
    /// An error.
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// `invalid_request`.
    pub(super) fn request(text: impl Into<String>) -> Self {
        Self::new("invalid_request", text)
    }

    /// The answer of the token and registration endpoints.
    pub(super) fn answer(&self) -> Response<Body> {
        let status = match self.code {
            "invalid_client" => StatusCode::UNAUTHORIZED,
            "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut response =
            object(status, &json!({"error": self.code, "error_description": self.text}));
        if status == StatusCode::UNAUTHORIZED {
            put(&mut response, header::WWW_AUTHENTICATE, "Basic realm=\"weir\"");
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            put(&mut response, header::RETRY_AFTER, "5");
        }
        response
    }
}

fn put(response: &mut Response<Body>, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

fn whole(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Some(Bytes::from(body))));
    *response.status_mut() = status;
    put(&mut response, header::CONTENT_TYPE, kind);
    put(&mut response, header::CACHE_CONTROL, "no-store");
    put(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// A JSON object that clients in browsers may read too: none of these endpoints takes cookies.
pub(super) fn object(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = whole(status, "application/json", value.to_string());
    put(&mut response, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    response
}

/// The answer to a browser that asks whether a page may call.
pub(super) fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    put(&mut response, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    put(&mut response, header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST");
    put(
        &mut response,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, mcp-protocol-version",
    );
    put(&mut response, header::ACCESS_CONTROL_MAX_AGE, "600");
    response
}

/// Sends the browser elsewhere. 303 turns the POST of the consent page into a GET.
pub(super) fn redirect(url: &str) -> Response<Body> {
    let mut response = whole(StatusCode::SEE_OTHER, "text/plain", String::new());
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(header::LOCATION, url);
    }
    put(&mut response, header::REFERRER_POLICY, "no-referrer");
    response
}

/// A page, with the hash of its style.
pub(super) fn page(status: StatusCode, html: String, style: &str) -> Response<Body> {
    let mut response = whole(status, "text/html; charset=utf-8", html);
    // No `form-action`: browsers hold it against the redirects that follow a form, too, and where
    // an identity provider sends the browser next is not for us to know.
    let policy =
        format!("default-src 'none'; style-src '{style}'; frame-ancestors 'none'; base-uri 'none'");
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    put(&mut response, header::X_FRAME_OPTIONS, "DENY");
    put(&mut response, header::REFERRER_POLICY, "no-referrer");
    response
}

/// Sets a cookie for the sign-in; an empty value takes it away.
pub(super) fn cookie(response: &mut Response<Body>, cookie: (&str, &str), secure: bool) {
    lasting(response, cookie, (super::sealed::SIGN_IN_SECS, secure));
}

/// Sets a cookie for a number of seconds; an empty value takes it away.
pub(super) fn lasting(
    response: &mut Response<Body>,
    (name, value): (&str, &str),
    (secs, secure): (i64, bool),
) {
    let age = if value.is_empty() { 0 } else { secs };
    let (prefix, flag) = if secure { ("__Host-", "; Secure") } else { ("", "") };
    let text =
        format!("{prefix}{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{flag}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}
