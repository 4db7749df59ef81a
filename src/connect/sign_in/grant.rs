//! Codes and refresh tokens become access tokens (OAuth 2.1, RFC 7636, RFC 8707).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;

use super::SignInError;
use super::browser::Landing;
use super::client::Client;
use super::discovery::Found;
use super::store::Grant;
use crate::connect::http::Http;

/// Longest description of an error that is shown.
const TOLD_CHARS_MAX: usize = 300;

/// The answer of a token endpoint.
#[derive(Deserialize)]
pub(in crate::connect) struct Tokens {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in: Option<u64>,
    pub(super) scope: Option<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Proof key for code exchange, method S256.
pub(super) struct Proof {
    verifier: String,
    challenge: String,
}

impl Proof {
    pub(super) fn new() -> Self {
        let verifier = random();
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        Self { verifier, challenge }
    }
}

/// 256 random bits as text.
pub(super) fn random() -> String {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).expect("the system has entropy");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where the browser is sent. `request` is the state and the scope.
pub(super) fn authorization_url(
    found: &Found,
    client: &Client,
    proof: &Proof,
    request: (&str, Option<&str>),
    landing: &Landing,
) -> String {
    let redirect = landing.redirect();
    let (state, scope) = request;
    let mut pairs = vec![
        ("response_type", "code"),
        ("client_id", client.id.as_str()),
        ("redirect_uri", redirect.as_str()),
        ("state", state),
        ("code_challenge", proof.challenge.as_str()),
        ("code_challenge_method", "S256"),
        ("resource", found.resource.as_str()),
    ];
    pairs.extend(scope.map(|scope| ("scope", scope)));
    let end = &found.server.authorization_endpoint;
    let joint = if end.contains('?') { '&' } else { '?' };
    format!("{end}{joint}{}", form(&pairs))
}

/// A code becomes tokens. `code` is the code and where it was sent to.
pub(super) async fn redeem(
    http: &Http,
    found: &Found,
    client: &Client,
    proof: &Proof,
    code: (&str, &Landing),
) -> Result<Tokens, SignInError> {
    let redirect = code.1.redirect();
    let pairs = [
        ("grant_type", "authorization_code"),
        ("code", code.0),
        ("redirect_uri", redirect.as_str()),
        ("code_verifier", proof.verifier.as_str()),
        ("resource", found.resource.as_str()),
    ];
    ask(http, &found.server.token_endpoint, client, &pairs).await
}

/// A refresh token becomes tokens for `resource`.
pub(super) async fn refresh(
    http: &Http,
    grant: &Grant,
    token: &str,
    resource: &str,
) -> Result<Tokens, SignInError> {
    let pairs = [("grant_type", "refresh_token"), ("refresh_token", token), ("resource", resource)];
    ask(http, &grant.token_endpoint, &grant.client, &pairs).await
}

async fn ask(
    http: &Http,
    place: &str,
    client: &Client,
    pairs: &[(&str, &str)],
) -> Result<Tokens, SignInError> {
    let mut pairs = pairs.to_vec();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(place)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, crate::connect::USER_AGENT);
    match (client.method.as_str(), &client.secret) {
        ("client_secret_basic", Some(secret)) => {
            let both = format!("{}:{}", encoded(&client.id), encoded(secret));
            let value = format!("Basic {}", STANDARD.encode(both));
            request = request.header(header::AUTHORIZATION, value);
        }
        (_, secret) => {
            pairs.push(("client_id", &client.id));
            pairs.extend(secret.as_deref().map(|secret| ("client_secret", secret)));
        }
    }
    let request = request
        .body(Full::new(Bytes::from(form(&pairs))))
        .map_err(|_| SignInError::Network(format!("{place} is no address")))?;
    let answer = http.short(request).await;
    let (status, body) = answer.map_err(|error| SignInError::Network(error.to_string()))?;
    match status {
        StatusCode::OK => serde_json::from_slice(&body)
            .map_err(|_| SignInError::Refused("the answer holds no token".to_owned())),
        // The server is ill, or asks for patience: the refresh token is as good as before.
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(SignInError::Network(format!("{place}: {status}")))
        }
        status => Err(SignInError::Refused(told(&body).unwrap_or_else(|| status.to_string()))),
    }
}

/// What an error document says, bounded and without control characters.
pub(super) fn told(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body["error"].as_str()?;
    let text = match body["error_description"].as_str() {
        Some(more) => format!("{error}: {more}"),
        None => error.to_owned(),
    };
    Some(plain(&text))
}

/// Text of a stranger, fit to be shown.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TOLD_CHARS_MAX).collect()
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{}={}", encoded(name), encoded(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Percent-encoding of everything but unreserved characters.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Undoes [`encoded`], and `+` for a blank; nothing when it is no text.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_digest_of_the_verifier() {
        let proof = Proof::new();
        assert_eq!(proof.verifier.len(), 43);
        let again = URL_SAFE_NO_PAD.encode(digest(&SHA256, proof.verifier.as_bytes()));
        assert_eq!(proof.challenge, again);
        assert_ne!(Proof::new().verifier, proof.verifier);
    }

    #[test]
    fn errors_are_shown_without_tricks() {
        let body = br#"{"error":"invalid_grant","error_description":"a\u001b[31mb\nc"}"#;
        assert_eq!(told(body).unwrap(), "invalid_grant: a[31mbc");
        assert_eq!(told(b"<html>"), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text in proptest::prelude::any::<String>()) {
            proptest::prop_assert_eq!(decoded(&encoded(&text)), Some(text));
        }

        #[test]
        fn any_text_may_be_decoded(text in "[%+a-f0-9é]{0,12}") {
            let _ = decoded(&text);
        }
    }
}
