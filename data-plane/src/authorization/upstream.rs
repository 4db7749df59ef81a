//! The gateway as a client of an identity provider: codes and refresh tokens for what proves who
//! somebody is. Through the guard, like every other fetched URL.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use weir_model::snapshot::ProviderView;

use super::Desk;
use super::form::encoded;
use crate::keys::SignedIn;

/// Why there are no tokens.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The provider says no: this code or refresh token is worth nothing (any more).
    Refused,
    /// Nobody said anything that could be relied on; trying again may help.
    Unavailable(String),
}

/// What a token endpoint answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokens {
    id_token: Option<String>,
    access_token: Option<String>,
    /// To be shown next time.
    pub refresh_token: Option<String>,
    error: Option<String>,
}

impl Tokens {
    /// What proves who somebody is; none when the provider sent no ID token.
    pub(super) fn signed_in<'a>(
        &'a self,
        client_id: &'a str,
        nonce: Option<&'a str>,
    ) -> Option<SignedIn<'a>> {
        let id_token = self.id_token.as_deref()?;
        Some(SignedIn { id_token, access_token: self.access_token.as_deref(), client_id, nonce })
    }
}

/// Asks a provider's token endpoint.
///
/// # Errors
/// See [`Trouble`].
pub(super) async fn ask(
    desk: &Desk<'_>,
    provider: &ProviderView,
    parameters: &[(&str, &str)],
) -> Result<Tokens, Trouble> {
    let unavailable = |why: &str| Trouble::Unavailable(why.to_owned());
    let spec = provider.spec.sign_in.as_ref().ok_or_else(|| unavailable("no client there"))?;
    let described =
        desk.gateway.keys.describe(&provider.spec).await.map_err(Trouble::Unavailable)?;
    let endpoint = described["token_endpoint"].as_str();
    let endpoint = endpoint.ok_or_else(|| unavailable("it names no token_endpoint"))?;
    let secret = match &spec.client_secret {
        Some(reference) => {
            let secret = desk.snapshot.secret(reference);
            let secret = secret.ok_or_else(|| unavailable("the client's secret is not here"))?;
            let text = std::str::from_utf8(secret.expose());
            Some(text.map_err(|_| unavailable("the client's secret is no text"))?)
        }
        None => None,
    };
    let methods = described["token_endpoint_auth_methods_supported"].as_array();
    let basic = methods.is_none_or(|all| all.iter().any(|one| one == "client_secret_basic"));
    let mut form = parameters.to_vec();
    let mut authorization = None;
    match secret {
        Some(secret) if basic => {
            // RFC 6749, 2.3.1: both are encoded as in a form first.
            let word = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect();
            let (id, secret): (String, String) = (word(&spec.client_id), word(secret));
            authorization = Some(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))));
        }
        Some(secret) => {
            form.extend([("client_id", spec.client_id.as_str()), ("client_secret", secret)]);
        }
        None => form.push(("client_id", &spec.client_id)),
    }
    let private = provider.spec.allow_private;
    let fetch = &desk.gateway.front.fetch;
    let answer = fetch.post_form(endpoint, private, encoded(&form), authorization).await;
    let (status, body) = answer.map_err(Trouble::Unavailable)?;
    let tokens = serde_json::from_slice::<Tokens>(&body).unwrap_or_default();
    match (status, tokens.error.as_deref()) {
        (200, None) => Ok(tokens),
        // Wrong credentials of ours are an operator's fault, not the person's.
        (400 | 401, Some(error)) if error != "invalid_client" => Err(Trouble::Refused),
        (status, error) => {
            Err(Trouble::Unavailable(format!("it answered {status} {}", error.unwrap_or_default())))
        }
    }
}
