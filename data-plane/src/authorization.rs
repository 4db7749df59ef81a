//! How clients find out where to log in. Public: whoever asks has no token yet.
//!
//! Every endpoint is a protected resource of its own (RFC 9728). Clients of 2025-03-26 know nothing
//! of that and ask the origin for the metadata of an authorization server (RFC 8414): they get the
//! real issuer's, where there is exactly one.

pub mod metadata;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::Snapshot;

use crate::call::Body;
use crate::call::endpoint;
use crate::call::inbound::Conn;
use crate::call::respond::{self, Reply};
use crate::gateway::Gateway;

/// True for paths that are answered here. Paths of endpoints end in `/mcp` and never are.
pub fn concerns(path: &str) -> bool {
    path.contains("/.well-known/")
}

/// Answers a request for one of the paths that [`concerns`] names.
pub async fn serve(
    gateway: &Gateway,
    conn: &Conn,
    head: &Parts,
    snapshot: &Snapshot,
) -> Response<Body> {
    let found = match gateway.site.check_host(conn, head) {
        Ok(()) => page(gateway, conn, head, snapshot).await,
        Err(refusal) => Err(refusal),
    };
    match found {
        Ok(document) => respond::document(document),
        Err(refusal) => respond::refused(&refusal, &Reply::default()),
    }
}

async fn page(
    gateway: &Gateway,
    conn: &Conn,
    head: &Parts,
    snapshot: &Snapshot,
) -> Result<Bytes, Refusal> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Reason::MethodNotAllowed.into());
    }
    let path = head.uri.path();
    if let Some(path) = metadata::endpoint_of(path, snapshot) {
        let endpoint = endpoint::find(&path, snapshot)?;
        let base = gateway.site.base_url(conn, head);
        return Ok(metadata::document(&endpoint.group, &base, &path));
    }
    match path {
        "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration" => {
            issuer(gateway, snapshot).await
        }
        _ => Err(Reason::UnknownEndpoint.into()),
    }
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
