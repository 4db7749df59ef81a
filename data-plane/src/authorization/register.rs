//! Registration (RFC 7591): open, and remembered by nobody. The id that a client gets is its
//! registration, sealed; a client that asks for a secret gets one that is sealed to its id.

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Desk;
use super::answer::{self, Fault};
use super::client;
use super::sealed::{ClientSecret, Registered, Sealed as _};
use crate::call::Body;

/// What a client asks for; what else it says is of no use here.
#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    client_name: Option<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
    #[serde(default)]
    grant_types: Option<Vec<String>>,
    #[serde(default)]
    response_types: Option<Vec<String>>,
    #[serde(default)]
    application_type: Option<String>,
}

/// Registers a client.
pub(super) fn register(desk: &Desk<'_>, body: &[u8]) -> Response<Body> {
    desk.trail.step("sign_in.register");
    match registered(desk, body) {
        Ok(response) => response,
        Err(fault) => {
            desk.trail.refused(&fault);
            fault.answer()
        }
    }
}

fn registered(desk: &Desk<'_>, body: &[u8]) -> Result<Response<Body>, Fault> {
    let metadata = |text: String| Fault::new("invalid_client_metadata", text);
    if !desk.fronts().any(|front| front.registration) {
        return Err(metadata("clients may not register themselves here".to_owned()));
    }
    let wanted: Wanted = serde_json::from_slice(body)
        .map_err(|_| metadata("the body is no JSON object of client metadata".to_owned()))?;
    let redirects = client::redirects(wanted.redirect_uris)
        .map_err(|why| Fault::new("invalid_redirect_uri", why))?;
    let lacks = |list: &Option<Vec<String>>, word: &str| {
        list.as_ref().is_some_and(|list| !list.iter().any(|item| item == word))
    };
    if lacks(&wanted.grant_types, "authorization_code") || lacks(&wanted.response_types, "code") {
        return Err(metadata("only the authorization code grant is possible here".to_owned()));
    }
    let method = wanted.token_endpoint_auth_method.as_deref().unwrap_or("none");
    if !matches!(method, "none" | "client_secret_post" | "client_secret_basic") {
        let text = "token_endpoint_auth_method must be none, client_secret_post or \
                    client_secret_basic";
        return Err(metadata(text.to_owned()));
    }
    let name = client::name(wanted.client_name.as_deref()).unwrap_or_else(|| "unnamed".to_owned());
    let confidential = method != "none";
    let registration =
        Registered { name: name.clone(), redirects: redirects.clone(), confidential };
    let long = |_| metadata("the redirect URIs are too long together".to_owned());
    let id = registration.seal(desk.sealer, b"").map_err(long)?;
    let label = client::label(&id);
    desk.trail.client(&label, Some(&name));
    let mut answer = json!({
        "client_id": id,
        "client_id_issued_at": desk.now,
        "client_name": name,
        "redirect_uris": redirects,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
    });
    if let Some(kind) = wanted.application_type {
        answer["application_type"] = kind.into();
    }
    if confidential {
        answer["client_secret"] =
            ClientSecret {}.seal(desk.sealer, id.as_bytes()).map_err(long)?.into();
        answer["client_secret_expires_at"] = 0.into();
    }
    Ok(answer::object(StatusCode::CREATED, &answer))
}
