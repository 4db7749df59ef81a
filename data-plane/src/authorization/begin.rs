//! The authorization endpoint: what a client asks for, the person's consent, and the way to the
//! identity provider.
//!
//! The browser is sent to no address before the client and its redirect URI are known to belong
//! together. Nothing leaves for the identity provider before the person has consented to this very
//! client: else a client that somebody else registered could ride on a session that the person has
//! there (the confused deputy). The consent is bound to a cookie, so that no other page can give
//! it; it is asked for each time, but where the person said before that this very client need not
//! ask again ([`super::consents`]).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use weir_model::id::Digest;
use weir_model::secret::equal_in_constant_time;
use weir_model::snapshot::{GroupView, ProviderView};

use super::answer::{self, Fault};
use super::client::{self, Client};
use super::consents::{self, Consents};
use super::form::{Fields, with_query};
use super::sealed::{Asked, Away, Consent, Consenting, SIGN_IN_SECS, Sealed as _, random};
use super::{Desk, page};
use crate::call::Body;
use crate::call::endpoint;

/// The cookie of the consent page.
const CONSENT: &str = "weir-consent";
/// The cookie of a browser that is at the identity provider.
const AWAY: &str = "weir-sign-in";
/// Longest `state` of a client.
const STATE_BYTES_MAX: usize = 1_024;

/// GET `/authorize`.
pub(super) async fn authorize(desk: &Desk<'_>, head: &Parts) -> Response<Body> {
    let stop = |text: &str| page::problem(StatusCode::BAD_REQUEST, text);
    let query = head.uri.query().unwrap_or_default();
    desk.trail.step("sign_in.authorize");
    let fields = match Fields::read(query.as_bytes()) {
        Ok(fields) => fields,
        Err(why) => return stop(&format!("The application's request cannot be read: {why}.")),
    };
    let Some(id) = fields.get("client_id") else {
        return stop("The application did not say who it is (client_id).");
    };
    let client = match client::find(desk, id).await {
        Ok(client) => client,
        Err(fault) if fault.code == "temporarily_unavailable" => {
            desk.trail.refused(&fault);
            let text = "Too many applications are being looked up. Try again in a minute.";
            return page::problem(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        Err(fault) => return stop(&format!("The application is not known: {}.", fault.text)),
    };
    desk.trail.client(&client.label, Some(&client.name));
    let redirect = match client.redirect(fields.get("redirect_uri")) {
        Ok(redirect) => redirect,
        Err(why) => return stop(why),
    };
    match asked(desk, &fields, &client, redirect.clone()) {
        Ok((asked, group)) => {
            desk.trail.asked(&asked);
            let again = fields.get("prompt").is_some_and(|words| words.contains("consent"));
            let consents = Consents::of(&head.headers, desk);
            match consents.to(&asked, &group, desk.now).filter(|_| !again) {
                Some(given) => {
                    desk.trail.consent(given);
                    let (provider, consent) = (given.provider.clone(), given.before());
                    leave(desk, asked, (Some(provider.as_str()), consent)).await
                }
                None => consent(desk, &client, asked, &group),
            }
        }
        Err(fault) => {
            let state = fields.get("state").filter(|state| state.len() <= STATE_BYTES_MAX);
            match client.origin {
                client::Origin::Configured => back(desk, &redirect, state, &fault),
                // Anybody can register a client at any address: who follows a link to us does not
                // end up there without wanting to (RFC 9700, section 4.11.2).
                client::Origin::Document(_) | client::Origin::Registered => {
                    desk.trail.refused(&fault);
                    page::way_back(&fault.text, &told(desk, &redirect, state, &fault))
                }
            }
        }
    }
}

/// Sends the browser back to the client with an error.
pub(super) fn back(
    desk: &Desk<'_>,
    redirect: &str,
    state: Option<&str>,
    fault: &Fault,
) -> Response<Body> {
    desk.trail.refused(fault);
    answer::redirect(&told(desk, redirect, state, fault))
}

/// Where the client is told of an error.
fn told(desk: &Desk<'_>, redirect: &str, state: Option<&str>, fault: &Fault) -> String {
    with_query(
        redirect,
        &[
            ("error", fault.code),
            ("error_description", &fault.text),
            ("state", state.unwrap_or_default()),
            ("iss", desk.base),
        ],
    )
}

fn asked(
    desk: &Desk<'_>,
    fields: &Fields,
    client: &Client,
    redirect: String,
) -> Result<(Asked, Arc<GroupView>), Fault> {
    if fields.need("response_type").map_err(Fault::request)? != "code" {
        return Err(Fault::new("unsupported_response_type", "only code is possible here"));
    }
    if fields.get("response_mode").is_some_and(|mode| mode != "query") {
        return Err(Fault::request("only the response mode query is possible here"));
    }
    let challenge = fields.need("code_challenge").map_err(Fault::request)?;
    let fits = challenge.len() == 43
        && challenge.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !fits || fields.get("code_challenge_method") != Some("S256") {
        return Err(Fault::request("PKCE with the method S256 is needed"));
    }
    let state = fields.get("state").map(str::to_owned);
    if state.as_ref().is_some_and(|state| state.len() > STATE_BYTES_MAX) {
        return Err(Fault::request(format!("state is longer than {STATE_BYTES_MAX} bytes")));
    }
    let (group, resource) = target(desk, fields.get("resource"))?;
    if !group.spec.sign_in.as_ref().is_some_and(|front| client.suits(front)) {
        let text = "the group does not let clients of this sort in";
        return Err(Fault::new("unauthorized_client", text));
    }
    let scope = scope(&group, fields.get("scope"));
    let asked = Asked {
        client: client.digest,
        label: client.label.clone(),
        redirect,
        state,
        challenge: challenge.to_owned(),
        resource,
        group: group.name.clone(),
        scope,
    };
    Ok((asked, group))
}

/// The group and endpoint that a client wants to call (RFC 8707). Clients of 2025-03-26 do not say
/// so: they mean the only group that there is.
pub(super) fn target(
    desk: &Desk<'_>,
    resource: Option<&str>,
) -> Result<(Arc<GroupView>, String), Fault> {
    let none = |text: String| Fault::new("invalid_target", text);
    let Some(resource) = resource.map(|resource| resource.trim_end_matches('/')) else {
        let mut groups = desk.groups();
        return match (groups.next(), groups.next()) {
            (Some(group), None) => {
                Ok((Arc::clone(group), format!("{}/{}/mcp", desk.base, group.name)))
            }
            _ => Err(none("say with `resource` which endpoint the token is for".to_owned())),
        };
    };
    let path = resource.strip_prefix(desk.base).filter(|path| path.starts_with('/'));
    let parsed = path.and_then(endpoint::parse);
    let group = parsed.and_then(|(name, ..)| desk.groups().find(|group| group.name == name));
    match group {
        Some(group) => Ok((Arc::clone(group), resource.to_owned())),
        None => Err(none("the resource is no endpoint that is signed in to here".to_owned())),
    }
}

/// The scopes that are granted: those asked for that mean something here; without a wish, those
/// that everybody is told to ask for.
fn scope(group: &GroupView, wanted: Option<&str>) -> String {
    let base: Vec<&str> = group.spec.scopes.iter().map(String::as_str).collect();
    let Some(wanted) = wanted else { return base.join(" ") };
    let rules = group.rules.scopes();
    let mut granted: Vec<&str> = Vec::new();
    for scope in wanted.split_ascii_whitespace() {
        if (base.contains(&scope) || rules.contains(&scope)) && !granted.contains(&scope) {
            granted.push(scope);
        }
    }
    granted.join(" ")
}

fn consent(desk: &Desk<'_>, client: &Client, asked: Asked, group: &GroupView) -> Response<Body> {
    let cookie = random();
    let shown = asked.clone();
    let consenting = Consenting {
        asked,
        cookie: Digest::of(cookie.as_bytes()),
        expires: desk.now + SIGN_IN_SECS,
    };
    let Ok(request) = consenting.seal(desk.sealer, b"") else {
        return page::problem(StatusCode::BAD_REQUEST, "The application's request is too long.");
    };
    let providers: Vec<String> = sign_in_providers(group).map(|p| p.name.to_string()).collect();
    let mut response = page::consent(&page::Consent {
        client: &client.name,
        verified: client.vouched_by(),
        redirect: &shown.redirect,
        resource: &shown.resource,
        group: group.spec.display_name.as_deref().unwrap_or(group.name.as_str()),
        scope: &shown.scope,
        providers: &providers,
        remember: consents::may_be_remembered(&shown, group),
        request: &request,
    });
    answer::cookie(&mut response, (CONSENT, &cookie), desk.secure());
    response
}

fn sign_in_providers(group: &GroupView) -> impl Iterator<Item = &ProviderView> {
    group.providers.iter().filter(|provider| provider.spec.sign_in.is_some())
}

/// POST `/authorize/consent`: what the person decided.
pub(super) async fn decide(desk: &Desk<'_>, head: &Parts, body: &[u8]) -> Response<Body> {
    let stop = |text: &str| page::problem(StatusCode::BAD_REQUEST, text);
    desk.trail.step("sign_in.consent");
    let mut origins = head.headers.get_all(header::ORIGIN).iter();
    if origins.any(|origin| origin.as_bytes() != desk.base.as_bytes()) {
        return stop("The decision came from another page.");
    }
    let Ok(fields) = Fields::read(body) else { return stop("The form cannot be read.") };
    let request = fields.get("request").unwrap_or_default();
    let Ok(consenting) = Consenting::open(desk.sealer, b"", request) else {
        return stop("This sign-in is not known. Start again from the application.");
    };
    if consenting.expires <= desk.now {
        return stop("This sign-in took too long. Start again from the application.");
    }
    if !holds(&head.headers, (desk, CONSENT), &consenting.cookie) {
        return stop("This sign-in was begun in another browser, or cookies are switched off.");
    }
    let asked = consenting.asked;
    desk.trail.asked(&asked);
    let wish = match fields.get("remember") {
        Some(_) => Consent::Remember,
        None => Consent::Once,
    };
    let mut response = match fields.get("deny") {
        Some(_) => {
            let fault = Fault::new("access_denied", "the person did not consent");
            back(desk, &asked.redirect, asked.state.as_deref(), &fault)
        }
        None => leave(desk, asked, (fields.get("provider"), wish)).await,
    };
    answer::cookie(&mut response, (CONSENT, ""), desk.secure());
    response
}

/// True when the browser has the cookie that a step is bound to.
pub(super) fn holds(headers: &HeaderMap, (desk, name): (&Desk<'_>, &str), digest: &Digest) -> bool {
    let name = format!("{}{name}", if desk.secure() { "__Host-" } else { "" });
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|text| text.split(';'));
    let mut pairs = pairs.filter_map(|pair| pair.trim_ascii().split_once('='));
    pairs.any(|(known, value)| {
        known == name && equal_in_constant_time(&Digest::of(value.as_bytes()).0, &digest.0)
    })
}

/// True when the browser is the one that was sent to the identity provider.
pub(super) fn came_back(headers: &HeaderMap, desk: &Desk<'_>, away: &Away) -> bool {
    holds(headers, (desk, AWAY), &away.cookie)
}

/// Takes the cookie of the sign-in away.
pub(super) fn forget(response: &mut Response<Body>, desk: &Desk<'_>) {
    answer::cookie(response, (AWAY, ""), desk.secure());
}

/// Sends the browser to the identity provider, now that the person wants it.
async fn leave(desk: &Desk<'_>, asked: Asked, said: (Option<&str>, Consent)) -> Response<Body> {
    let (redirect, state) = (asked.redirect.clone(), asked.state.clone());
    match departure(desk, asked, said).await {
        Ok((url, cookie)) => {
            let mut response = answer::redirect(&url);
            answer::cookie(&mut response, (AWAY, &cookie), desk.secure());
            response
        }
        Err(fault) => back(desk, &redirect, state.as_deref(), &fault),
    }
}

async fn departure(
    desk: &Desk<'_>,
    asked: Asked,
    (provider, consent): (Option<&str>, Consent),
) -> Result<(String, String), Fault> {
    let gone = || Fault::new("access_denied", "the group has no such identity provider any more");
    let group = desk.groups().find(|group| group.name == asked.group).ok_or_else(gone)?;
    let mut providers = sign_in_providers(group);
    let provider = providers.find(|p| provider.is_none_or(|name| p.name.as_str() == name));
    let provider = provider.ok_or_else(gone)?;
    let spec = provider.spec.sign_in.as_ref().ok_or_else(gone)?;
    let consent = match consent {
        Consent::Remember if !consents::may_be_remembered(&asked, group) => Consent::Once,
        said => said,
    };
    let unreachable = |why: String| {
        tracing::warn!(provider = %provider.name, why, "an identity provider cannot be signed in to");
        Fault::new("temporarily_unavailable", "the identity provider cannot be reached")
    };
    let described = desk.gateway.keys.describe(&provider.spec).await.map_err(unreachable)?;
    let endpoint = described["authorization_endpoint"].as_str();
    let endpoint = endpoint.ok_or_else(|| unreachable("no authorization_endpoint".to_owned()))?;
    let (cookie, nonce, verifier) = (random(), random(), random());
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let away = Away {
        asked,
        provider: provider.name.clone(),
        cookie: Digest::of(cookie.as_bytes()),
        nonce: nonce.clone(),
        verifier,
        consent,
        expires: desk.now + SIGN_IN_SECS,
    };
    let state = away
        .seal(desk.sealer, b"")
        .map_err(|_| Fault::request("the request is too long to be kept"))?;
    // No `resource`: providers either do not know it or refuse what they do not know (Entra), and
    // the token that we get from there is for us alone.
    let url = with_query(
        endpoint,
        &[
            ("response_type", "code"),
            ("client_id", &spec.client_id),
            ("redirect_uri", &desk.callback()),
            ("scope", &spec.wanted_scopes(provider.spec.preset)),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ],
    );
    Ok((url, cookie))
}
