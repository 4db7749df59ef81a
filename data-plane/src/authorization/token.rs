//! The token endpoint: codes and refresh tokens for short access tokens.
//!
//! A code is good once, for a minute, for the client that asked, with the verifier that only it
//! has. Refresh tokens are rotated; the provider is asked with each use whether the person may
//! still come in. Which of them were used a proxy remembers for itself: where the same code or
//! refresh token comes back to another proxy, what a thief lacks is the verifier or the client's
//! secret, and the provider's own refresh token, which most providers take back when it is used
//! twice. A second use ends the sign-in at this proxy.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;
use weir_model::id::Digest;
use weir_model::secret::equal_in_constant_time;
use weir_model::snapshot::ProviderView;

use super::answer::{self, Fault};
use super::client::{self, Client};
use super::form::Fields;
use super::sealed::{Code, Grant, Refresh, Sealed as _};
use super::upstream::{self, Trouble};
use super::{Desk, callback, own};
use crate::call::Body;

/// POST `/token`.
pub(super) async fn token(desk: &Desk<'_>, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    match granted(desk, headers, body).await {
        Ok(response) => response,
        Err(fault) => {
            tracing::debug!(code = fault.code, text = fault.text, "no token");
            fault.answer()
        }
    }
}

async fn granted(
    desk: &Desk<'_>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Body>, Fault> {
    let fields = Fields::read(body).map_err(Fault::request)?;
    let (id, secret) = credentials(headers, &fields)?;
    let client = client::authenticate(desk, &id, secret.as_deref()).await?;
    match fields.need("grant_type").map_err(Fault::request)? {
        "authorization_code" => by_code(desk, &fields, &client),
        "refresh_token" => by_refresh(desk, &fields, &client).await,
        _ => Err(Fault::new("unsupported_grant_type", "authorization_code or refresh_token")),
    }
}

/// The client's id and secret, from the header or the form, not from both.
fn credentials(headers: &HeaderMap, fields: &Fields) -> Result<(String, Option<String>), Fault> {
    let bad = |text: &str| Fault::new("invalid_client", text);
    let header = headers.get(header::AUTHORIZATION);
    let basic = header.and_then(|value| value.to_str().ok()?.split_once(' '));
    let Some((scheme, encoded)) = basic else {
        let id = fields.need("client_id").map_err(|why| bad(&why))?;
        return Ok((id.to_owned(), fields.get("client_secret").map(str::to_owned)));
    };
    if !scheme.eq_ignore_ascii_case("basic") || fields.get("client_secret").is_some() {
        return Err(bad("authenticate with Basic or in the form, not otherwise and not twice"));
    }
    let text = STANDARD.decode(encoded.trim()).ok().and_then(|b| String::from_utf8(b).ok());
    let text = text.ok_or_else(|| bad("the Authorization header cannot be read"))?;
    let (id, secret) = text.split_once(':').ok_or_else(|| bad("Basic needs id and secret"))?;
    let decoded = |text: &str| {
        let mut pairs = form_urlencoded::parse(text.as_bytes());
        pairs.next().map(|(word, _)| word.into_owned()).unwrap_or_default()
    };
    let (id, secret) = (decoded(id), decoded(secret));
    if fields.get("client_id").is_some_and(|other| other != id) {
        return Err(bad("client_id differs from the Authorization header"));
    }
    Ok((id, Some(secret).filter(|secret| !secret.is_empty())))
}

fn by_code(desk: &Desk<'_>, fields: &Fields, client: &Client) -> Result<Response<Body>, Fault> {
    let invalid = |text: &str| Fault::new("invalid_grant", text);
    let text = fields.need("code").map_err(Fault::request)?;
    let code = Code::open(desk.sealer, &client.digest.0, text)
        .map_err(|_| invalid("the code is not known, or is another client's"))?;
    if code.expires <= desk.now {
        return Err(invalid("the code has expired"));
    }
    let redirect = fields.get("redirect_uri");
    if redirect.is_some_and(|uri| Digest::of(uri.as_bytes()) != code.redirect) {
        return Err(invalid("redirect_uri differs from that of the authorization request"));
    }
    let verifier = fields.need("code_verifier").map_err(Fault::request)?;
    let proof = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let length = (43..=128).contains(&verifier.len());
    if !length || !equal_in_constant_time(proof.as_bytes(), code.challenge.as_bytes()) {
        return Err(invalid("code_verifier does not fit code_challenge"));
    }
    same_resource(fields, &code.grant)?;
    if !desk.gateway.front.first_use(text.as_bytes()) {
        desk.gateway.front.end(&code.grant.session);
        return Err(invalid("the code was used already"));
    }
    provider_of(desk, &code.grant, client)?;
    answer(desk, client, code.grant)
}

/// Clients repeat the resource; it must be the one that the person consented to.
fn same_resource(fields: &Fields, grant: &Grant) -> Result<(), Fault> {
    let named = fields.get("resource").map(|resource| resource.trim_end_matches('/'));
    match named {
        Some(named) if named != grant.resource => {
            Err(Fault::new("invalid_target", "the resource differs from the authorization request"))
        }
        _ => Ok(()),
    }
}

async fn by_refresh(
    desk: &Desk<'_>,
    fields: &Fields,
    client: &Client,
) -> Result<Response<Body>, Fault> {
    let invalid = |text: &str| Fault::new("invalid_grant", text);
    let text = fields.need("refresh_token").map_err(Fault::request)?;
    let Refresh { mut grant } = Refresh::open(desk.sealer, &client.digest.0, text)
        .map_err(|_| invalid("the refresh token is not known, or is another client's"))?;
    if grant.until <= desk.now {
        return Err(invalid("the sign-in is over; log in again"));
    }
    same_resource(fields, &grant)?;
    let front = &desk.gateway.front;
    if front.was_used(text.as_bytes()) || front.has_ended(&grant.session) {
        front.end(&grant.session);
        return Err(invalid("the refresh token was used already; log in again"));
    }
    if let Some(wanted) = fields.get("scope") {
        let have: Vec<&str> = grant.scope.split_ascii_whitespace().collect();
        let wanted: Vec<&str> =
            wanted.split_ascii_whitespace().filter(|s| *s != "offline_access").collect();
        if !wanted.iter().all(|scope| have.contains(scope)) {
            return Err(Fault::new("invalid_scope", "more scopes need another authorization"));
        }
    }
    let provider = provider_of(desk, &grant, client)?;
    still_welcome(desk, provider, &mut grant).await?;
    // Only now: where the provider could not be asked, the client may try again.
    if !front.first_use(text.as_bytes()) {
        front.end(&grant.session);
        return Err(invalid("the refresh token was used already; log in again"));
    }
    answer(desk, client, grant)
}

/// The provider that somebody signed in with, where the group still uses it and lets the client
/// in, and no operator has revoked the person or the session.
fn provider_of<'a>(
    desk: &'a Desk<'_>,
    grant: &Grant,
    client: &Client,
) -> Result<&'a ProviderView, Fault> {
    let gone = || Fault::new("invalid_grant", "the sign-in is not good any more; log in again");
    let group = desk.groups().find(|group| group.name == grant.group).ok_or_else(gone)?;
    if !group.spec.sign_in.as_ref().is_some_and(|front| client.suits(front)) {
        return Err(gone());
    }
    let provider = group.providers.iter().find(|provider| provider.name == grant.provider);
    let provider = provider.filter(|p| p.spec.sign_in.is_some()).ok_or_else(gone)?;
    let revoked = group.withdrawn.session(&grant.session, desk.now).is_some()
        || group.withdrawn.caller(&grant.principal(), desk.now).is_some();
    if revoked { Err(gone()) } else { Ok(provider) }
}

/// Asks the provider whether the person may still come in, and what it is a member of now.
async fn still_welcome(
    desk: &Desk<'_>,
    provider: &ProviderView,
    grant: &mut Grant,
) -> Result<(), Fault> {
    let over = |text: &str| Fault::new("invalid_grant", text);
    let unavailable = |why: &str| {
        tracing::warn!(provider = %provider.name, why, "a sign-in could not be refreshed");
        Fault::new("temporarily_unavailable", "the identity provider cannot be reached")
    };
    let refresh = grant.upstream.clone();
    let refresh = refresh.ok_or_else(|| over("the identity provider gave nothing to refresh"))?;
    let parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    let tokens =
        upstream::ask(desk, provider, &parameters).await.map_err(|trouble| match trouble {
            Trouble::Refused => over("the identity provider has ended the sign-in; log in again"),
            Trouble::Unavailable(why) => unavailable(&why),
        })?;
    let client_id = provider.spec.sign_in.as_ref().map_or("", |client| client.client_id.as_str());
    if let Some(signed_in) = tokens.signed_in(client_id, None) {
        let who = desk.gateway.keys.signed_in(signed_in, provider, desk.now).await;
        let who = who.map_err(|refusal| unavailable(&refusal.to_string()))?;
        if *who.subject != *grant.subject {
            return Err(over("the identity provider answered for somebody else"));
        }
        grant.memberships = callback::memberships(&who);
    }
    grant.upstream = tokens.refresh_token.or(Some(refresh));
    Ok(())
}

fn answer(desk: &Desk<'_>, client: &Client, grant: Grant) -> Result<Response<Body>, Fault> {
    let group = desk.groups().find(|group| group.name == grant.group);
    let secs = group.and_then(|group| Some(i64::from(group.spec.sign_in.as_ref()?.token_secs)));
    let secs = secs.unwrap_or(0).min(grant.until - desk.now);
    let access = own::issue(&desk.snapshot.sealing, desk.base, &grant, (desk.now, secs));
    let access = access.map_err(|refusal| Fault::new("server_error", refusal.message()))?;
    let mut body = json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": secs,
        "scope": grant.scope,
    });
    // Without a way to ask the provider again, a refresh token would outlive the person's leave.
    if grant.upstream.is_some() {
        let refresh = Refresh { grant }.seal(desk.sealer, &client.digest.0);
        let refresh = refresh.map_err(|_| Fault::new("server_error", "too much to be sealed"))?;
        body["refresh_token"] = refresh.into();
    }
    Ok(answer::object(StatusCode::OK, &body))
}
