//! Who asks for a token: in this order a client that was registered beforehand, a client id
//! metadata document, the client that registered itself the last time, a new registration.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::discovery::Found;
use super::{SignInError, Wishes};
use crate::connect::http::Http;

/// An OAuth client.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::connect) struct Client {
    pub(super) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
    /// How it proves who it is: `none`, `client_secret_basic` or `client_secret_post`.
    pub(super) method: String,
    /// Where it may be sent back to, for one that registered itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redirect: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Client {
    /// One that has no secret.
    pub(super) fn public(id: &str) -> Self {
        Self { id: id.to_owned(), secret: None, method: "none".to_owned(), redirect: None }
    }
}

/// The client for an authorization server. `known` is the one of the last time.
pub(super) async fn find(
    http: &Http,
    wishes: &Wishes,
    found: &Found,
    known: Option<Client>,
    redirect: &str,
) -> Result<Client, SignInError> {
    if let Some(id) = &wishes.client_id {
        let secret = wishes.client_secret.as_ref().map(|secret| secret.expose().clone());
        let method = match &secret {
            None => "none",
            Some(_) => with_secret(found),
        };
        return Ok(Client { secret, method: method.to_owned(), ..Client::public(id) });
    }
    if let Some(url) = &wishes.client_metadata
        && found.server.client_id_metadata_document_supported
    {
        return Ok(Client::public(url));
    }
    if let Some(known) = known.filter(|known| comes_back(known, redirect)) {
        return Ok(known);
    }
    let place = found.server.registration_endpoint.as_deref();
    let place = place.ok_or_else(|| SignInError::NotRegistered(found.issuer()))?;
    register(http, place, redirect).await
}

/// The port of a loopback redirect may differ each time (RFC 8252, section 7.3), but not every
/// server knows: a registration is used again for exactly the redirect that it was made for.
fn comes_back(known: &Client, redirect: &str) -> bool {
    known.redirect.as_deref() == Some(redirect)
}

fn with_secret(found: &Found) -> &'static str {
    let methods = &found.server.token_endpoint_auth_methods_supported;
    let post = methods.iter().any(|method| method == "client_secret_post");
    let basic = methods.iter().any(|method| method == "client_secret_basic");
    // Basic is the default of RFC 8414 for servers that list nothing.
    if post && !basic { "client_secret_post" } else { "client_secret_basic" }
}

#[derive(Deserialize)]
struct Registered {
    client_id: String,
    client_secret: Option<String>,
    token_endpoint_auth_method: Option<String>,
}

/// Dynamic client registration (RFC 7591).
async fn register(http: &Http, place: &str, redirect: &str) -> Result<Client, SignInError> {
    let wanted = json!({
        "client_name": "Weir connect",
        "application_type": "native",
        "redirect_uris": [redirect],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri(place)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, crate::connect::USER_AGENT)
        .body(Full::new(Bytes::from(wanted.to_string())))
        .map_err(|_| SignInError::Network(format!("{place} is no address")))?;
    let answer = http.short(request).await;
    let (status, body) = answer.map_err(|error| SignInError::Network(error.to_string()))?;
    if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
        let why = super::grant::told(&body).unwrap_or_else(|| status.to_string());
        return Err(SignInError::Refused(format!("registration: {why}")));
    }
    let registered: Registered = serde_json::from_slice(&body)
        .map_err(|_| SignInError::Refused("registration: the answer is no client".to_owned()))?;
    let method = registered.token_endpoint_auth_method.unwrap_or_else(|| {
        let word = if registered.client_secret.is_some() { "client_secret_basic" } else { "none" };
        word.to_owned()
    });
    Ok(Client {
        id: registered.client_id,
        secret: registered.client_secret,
        method,
        redirect: Some(redirect.to_owned()),
    })
}
