//! How clients find out where to log in, and the gateway as the authorization server of groups
//! whose identity providers lack what MCP clients need. Public: whoever asks has no token yet.
//!
//! Every endpoint is a protected resource of its own (RFC 9728). Clients of 2025-03-26 know nothing
//! of that and ask the origin for the metadata of an authorization server (RFC 8414): they get the
//! gateway's own where a group signs in here, else the real issuer's, where there is exactly one.
//!
//! As an authorization server the gateway is one issuer, its own origin, with the endpoints where
//! older clients expect them: `/authorize`, `/token`, `/register`. It keeps no table: what has to
//! be remembered travels sealed with the browser and the client, so that any proxy takes any step.
//! People log in at the group's identity provider; the tokens that the gateway gets there prove who
//! they are, go no further, and are never what the client gets ([`own`]).

mod answer;
mod begin;
mod callback;
mod client;
mod consents;
mod form;
mod front;
pub mod ledger;
mod logout;
pub mod metadata;
pub mod own;
mod page;
mod register;
mod sealed;
mod token;
mod trail;
mod upstream;
mod visits;

pub use front::Front;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use http_body::Body as HttpBody;
use serde_json::{Value, json};
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{AuditClass, SignIn};
use weir_model::seal::Sealer;
use weir_model::snapshot::{GroupView, Snapshot};

use crate::call::Body;
use crate::call::endpoint;
use crate::call::inbound::{self, Conn};
use crate::call::record;
use crate::call::respond::{self, Reply};
use crate::gateway::Gateway;
use trail::Trail;

const KEYS: &str = "/.well-known/jwks.json";

/// True for paths that are answered here. Paths of endpoints end in `/mcp` and never are.
pub fn concerns(path: &str) -> bool {
    path.contains("/.well-known/")
        || matches!(path, "/token" | "/register" | "/authorize")
        || path.starts_with("/authorize/")
}

/// What every step of a sign-in looks at.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    gateway: &'a Gateway,
    snapshot: &'a Arc<Snapshot>,
    sealer: &'a Sealer,
    /// The gateway's own URL, which is its name as an issuer.
    base: &'a str,
    now: i64,
    /// What is recorded of the step.
    trail: Trail,
}

impl Desk<'_> {
    /// Groups that people sign in to here.
    fn groups(&self) -> impl Iterator<Item = &Arc<GroupView>> {
        let groups = self.snapshot.groups.values();
        groups.filter(|group| metadata::signs_in(group) && group.quarantined.is_none())
    }

    /// What their documents say about it.
    fn fronts(&self) -> impl Iterator<Item = &SignIn> {
        self.groups().filter_map(|group| group.spec.sign_in.as_ref())
    }

    /// Where identity providers send browsers back to.
    fn callback(&self) -> String {
        format!("{}/authorize/callback", self.base)
    }

    /// True when cookies can be marked as secure.
    fn secure(&self) -> bool {
        self.base.starts_with("https:")
    }
}

/// Answers a request for one of the paths that [`concerns`] names.
pub async fn serve<B>(
    gateway: &Gateway,
    conn: &Conn,
    (head, body): (&Parts, B),
    snapshot: &Arc<Snapshot>,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let path = head.uri.path();
    let found = match gateway.site.check_host(conn, head) {
        Err(refusal) => Err(refusal),
        Ok(()) if head.method == Method::OPTIONS => return answer::preflight(),
        Ok(()) if path.contains("/.well-known/") => document(gateway, conn, head, snapshot).await,
        Ok(()) => match step(gateway, conn, (head, body), snapshot).await {
            Ok(response) => return response,
            Err(refusal) => Err(refusal),
        },
    };
    match found {
        Ok(document) => respond::document(document),
        Err(refusal) => respond::refused(&refusal, &Reply::default()),
    }
}

/// One step of a sign-in.
async fn step<B>(
    gateway: &Gateway,
    conn: &Conn,
    (head, body): (&Parts, B),
    snapshot: &Arc<Snapshot>,
) -> Result<Response<Body>, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    // Where the gateway does not know its own name for certain, it cannot be an issuer.
    let base = gateway.site.own_url(conn, head).ok_or(Reason::UnknownEndpoint)?;
    let sealer = gateway.sealer(snapshot).ok_or(Reason::SnapshotMissing)?;
    let now = gateway.now_secs();
    let (path, begun) = (head.uri.path(), Instant::now());
    let mut facts = record::facts(gateway, conn, snapshot);
    let (posted, class) = match path {
        "/authorize" => (false, AuditClass::Counted),
        "/authorize/consents" if head.method == Method::GET => (false, AuditClass::Counted),
        "/register" => (true, AuditClass::Counted),
        "/authorize/callback" => (false, strictest(snapshot)),
        "/authorize/consent" | "/authorize/consents" | "/token" => (true, strictest(snapshot)),
        path if path.starts_with(logout::PATH) => (true, strictest(snapshot)),
        _ => return Err(Reason::UnknownEndpoint.into()),
    };
    facts.class = class;
    let desk =
        Desk { gateway, snapshot, sealer: &sealer, base: &base, now, trail: Trail::of(facts) };
    // Sign-outs are heeded of providers whose people come with tokens of their own, too.
    if desk.groups().next().is_none() && !path.starts_with(logout::PATH) {
        return Err(Reason::UnknownEndpoint.into());
    }
    if head.method != if posted { Method::POST } else { Method::GET } {
        return Err(Reason::MethodNotAllowed.into());
    }
    let body = if posted { inbound::read_body(&head.headers, body).await? } else { Bytes::new() };
    if body.len() > form::FORM_BYTES_MAX {
        return Err(Reason::BodyTooLarge.into());
    }
    let slot = gateway.audit.reserve(class)?;
    desk.trail.received(&body);
    let response = match path {
        "/authorize" => begin::authorize(&desk, head).await,
        "/authorize/consent" => begin::decide(&desk, head, &body).await,
        "/authorize/consents" if posted => consents::forget(&desk, head),
        "/authorize/consents" => consents::show(&desk, head),
        "/authorize/callback" => callback::callback(&desk, head).await,
        "/token" => token::token(&desk, &head.headers, &body).await,
        "/register" => register::register(&desk, &body),
        path => logout::logout(&desk, path, &body).await,
    };
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    desk.trail.close(slot, response.status(), took).await?;
    Ok(response)
}

/// As surely as the strictest group that signs in here wants it.
fn strictest(snapshot: &Snapshot) -> AuditClass {
    let groups = snapshot.groups.values().filter(|group| metadata::signs_in(group));
    trail::strictest(groups.map(|group| group.spec.audit))
}

async fn document(
    gateway: &Gateway,
    conn: &Conn,
    head: &Parts,
    snapshot: &Arc<Snapshot>,
) -> Result<Bytes, Refusal> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Reason::MethodNotAllowed.into());
    }
    let path = head.uri.path();
    let base = gateway.site.base_url(conn, head);
    if let Some(path) = metadata::endpoint_of(path, snapshot) {
        let endpoint = endpoint::find(&path, snapshot)?;
        return Ok(metadata::document(&endpoint.group, &base, &path));
    }
    let fronts: Vec<&GroupView> =
        snapshot.groups.values().map(|group| &**group).filter(|g| metadata::signs_in(g)).collect();
    if path == KEYS && !fronts.is_empty() {
        return Ok(Bytes::from(own::jwks(&snapshot.sealing).to_string()));
    }
    match of_server(path) {
        Some(_) if !fronts.is_empty() => Ok(Bytes::from(server(&base, &fronts).to_string())),
        Some("") => issuer(gateway, snapshot).await,
        _ => Err(Reason::UnknownEndpoint.into()),
    }
}

/// The path of the issuer that a path asks about: none of them has one here, but clients that take
/// the endpoint for an issuer get the same answer wherever they look.
fn of_server(path: &str) -> Option<&str> {
    ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]
        .into_iter()
        .find_map(|known| path.strip_prefix(known).or_else(|| path.strip_suffix(known)))
}

/// The gateway as an authorization server (RFC 8414).
fn server(base: &str, fronts: &[&GroupView]) -> Value {
    let mut scopes: Vec<&str> = Vec::new();
    for group in fronts {
        scopes.extend(group.spec.scopes.iter().map(String::as_str).chain(group.rules.scopes()));
    }
    scopes.sort_unstable();
    scopes.dedup();
    let any = |which: fn(&SignIn) -> bool| {
        fronts.iter().filter_map(|group| group.spec.sign_in.as_ref()).any(which)
    };
    let mut document = json!({
        "issuer": base,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}{KEYS}"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported":
            ["none", "client_secret_post", "client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": any(|front| front.metadata_documents),
    });
    if any(|front| front.registration) {
        document["registration_endpoint"] = format!("{base}/register").into();
    }
    if !scopes.is_empty() {
        document["scopes_supported"] = json!(scopes);
    }
    document
}

/// What the one issuer of all groups says about itself.
async fn issuer(gateway: &Gateway, snapshot: &Snapshot) -> Result<Bytes, Refusal> {
    let mut providers = snapshot.groups.values().flat_map(|group| &group.providers);
    let first = providers.next().ok_or(Reason::UnknownEndpoint)?;
    if providers.any(|other| other.spec.issuer != first.spec.issuer) {
        let hint = "Several issuers are trusted here; ask the endpoint's metadata \
                    (/.well-known/oauth-protected-resource/{group}/mcp) for its own.";
        return Err(Refusal::from(Reason::UnknownEndpoint).hint(hint));
    }
    let document = gateway.keys.describe(&first.spec).await;
    let document =
        document.map_err(|why| Refusal::new(Reason::IdentityUnavailable, why).retry_after(5))?;
    Ok(Bytes::from(document.to_string()))
}
