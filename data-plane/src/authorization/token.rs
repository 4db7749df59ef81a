//! The token endpoint: codes and refresh tokens for short access tokens.
//!
//! A code is good once, for a minute, for the client that asked, with the verifier that only it
//! has. Refresh tokens are rotated; the provider is asked with each use whether the person may
//! still come in. That each is good once holds over all proxies: turns are taken at the
//! [`super::ledger`]. A second use ends the sign-in everywhere; but a client that did not hear the
//! answer to a refresh gets the same one again for a moment.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;
use weir_model::id::Digest;
use weir_model::secret::equal_in_constant_time;
use weir_model::sign_in::{Step, Verdict};
use weir_model::snapshot::ProviderView;

use super::answer::{self, Fault};
use super::client::{self, Client};
use super::form::Fields;
use super::ledger::{self, Unreachable};
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
            desk.trail.refused(&fault);
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
    desk.trail.client(&client.label, Some(&client.name));
    match fields.need("grant_type").map_err(Fault::request)? {
        "authorization_code" => {
            desk.trail.step("sign_in.code");
            by_code(desk, &fields, &client).await
        }
        "refresh_token" => {
            desk.trail.step("sign_in.refresh");
            by_refresh(desk, &fields, &client).await
        }
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

async fn by_code(
    desk: &Desk<'_>,
    fields: &Fields,
    client: &Client,
) -> Result<Response<Body>, Fault> {
    let invalid = |text: &str| Fault::new("invalid_grant", text);
    let text = fields.need("code").map_err(Fault::request)?;
    let code = Code::open(desk.sealer, &client.digest.0, text)
        .map_err(|_| invalid("the code is not known, or is another client's"))?;
    desk.trail.grant(&code.grant);
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
    provider_of(desk, &code.grant, client)?;
    let grant = code.grant;
    let turn = ledger::turn(&grant.session, 0, grant.until);
    match desk.gateway.ledger.step(&grant.group, Step::Take(turn)).await {
        Ok(Verdict::Granted) => {
            let refresh = next(desk, client, (&grant, 1))?;
            answer(desk, &grant, refresh)
        }
        Ok(Verdict::Again(_) | Verdict::Over) => {
            desk.gateway.front.end(&grant.session);
            Err(invalid("the code was used already"))
        }
        // It may be shown again while it lasts.
        Err(why) => Err(uncounted(&why)),
    }
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
    let Refresh { mut grant, turn: number } = Refresh::open(desk.sealer, &client.digest.0, text)
        .map_err(|_| invalid("the refresh token is not known, or is another client's"))?;
    desk.trail.grant(&grant);
    if grant.until <= desk.now {
        return Err(invalid("the sign-in is over; log in again"));
    }
    same_resource(fields, &grant)?;
    let front = &desk.gateway.front;
    if front.has_ended(&grant.session) {
        return Err(invalid("the sign-in was ended; log in again"));
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
    let turn = ledger::turn(&grant.session, number, grant.until);
    let ledger = &desk.gateway.ledger;
    let counted = match ledger.step(&grant.group, Step::Take(turn.clone())).await {
        Ok(Verdict::Granted) => true,
        Ok(Verdict::Again(Some(before))) => return repeated(desk, client, before),
        Ok(Verdict::Again(None)) => {
            let text = "the same refresh token is being used at this moment; try again";
            return Err(Fault::new("temporarily_unavailable", text));
        }
        Ok(Verdict::Over) => {
            front.end(&grant.session);
            return Err(invalid("the refresh token was used already; log in again"));
        }
        Err(why) => match alone(desk, &grant) {
            false => return Err(uncounted(&why)),
            true if !front.first_use(text.as_bytes()) => {
                front.end(&grant.session);
                return Err(invalid("the refresh token was used already; log in again"));
            }
            true => false,
        },
    };
    if let Err(fault) = still_welcome(desk, provider, &mut grant).await {
        if fault.code == "temporarily_unavailable" && counted {
            // Nothing came of it: the client may try again.
            let _ = ledger.step(&grant.group, Step::GiveBack(turn)).await;
        }
        return Err(fault);
    }
    let refresh = next(desk, client, (&grant, number + 1))?;
    if let Some(refresh) = refresh.clone().filter(|_| counted) {
        // Where this is lost, a client that repeats itself has to log in.
        let _ = ledger.step(&grant.group, Step::Keep(turn, refresh)).await;
    }
    answer(desk, &grant, refresh)
}

/// The answer to a refresh that was made moments ago, to whoever did not hear it.
fn repeated(desk: &Desk<'_>, client: &Client, refresh: String) -> Result<Response<Body>, Fault> {
    let opened = Refresh::open(desk.sealer, &client.digest.0, &refresh);
    let lost = |_| Fault::new("invalid_grant", "the refresh token was used already; log in again");
    let grant = opened.map_err(lost)?.grant;
    provider_of(desk, &grant, client)?;
    answer(desk, &grant, Some(refresh))
}

/// True when the group lets its people be refreshed by a proxy that nobody counts for.
fn alone(desk: &Desk<'_>, grant: &Grant) -> bool {
    let group = desk.groups().find(|group| group.name == grant.group);
    group.and_then(|group| group.spec.sign_in.as_ref()).is_some_and(|front| front.refresh_alone)
}

/// What a client hears when nobody can say whether something was used before.
pub(super) fn uncounted(why: &Unreachable) -> Fault {
    tracing::warn!(%why, "nobody counts the turns of sign-ins");
    Fault::new("temporarily_unavailable", "the gateway cannot tell whether this was used already")
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
    match group.withdrawn.caller(&grant.principal(), desk.now) {
        Some(_) => Err(gone()),
        None => Ok(provider),
    }
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

/// The refresh token of a turn; none without a way to ask the provider again, since it would outlive
/// the person's leave.
fn next(
    desk: &Desk<'_>,
    client: &Client,
    (grant, turn): (&Grant, u64),
) -> Result<Option<String>, Fault> {
    if grant.upstream.is_none() {
        return Ok(None);
    }
    let refresh = Refresh { grant: grant.clone(), turn }.seal(desk.sealer, &client.digest.0);
    refresh.map(Some).map_err(|_| Fault::new("server_error", "too much to be sealed"))
}

fn answer(
    desk: &Desk<'_>,
    grant: &Grant,
    refresh: Option<String>,
) -> Result<Response<Body>, Fault> {
    let group = desk.groups().find(|group| group.name == grant.group);
    let secs = group.and_then(|group| Some(i64::from(group.spec.sign_in.as_ref()?.token_secs)));
    let secs = secs.unwrap_or(0).min(grant.until - desk.now);
    let access = own::issue(&desk.snapshot.sealing, desk.base, grant, (desk.now, secs));
    let access = access.map_err(|refusal| Fault::new("server_error", refusal.message()))?;
    let mut body = json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": secs,
        "scope": grant.scope,
    });
    if let Some(refresh) = refresh {
        body["refresh_token"] = refresh.into();
    }
    Ok(answer::object(StatusCode::OK, &body))
}
