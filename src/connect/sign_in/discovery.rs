//! From an endpoint to its authorization server (RFC 9728, RFC 8414, OpenID Connect Discovery).

use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::SignInError;
use crate::connect::credentials::Challenge;
use crate::connect::http::{Http, endpoint, origin};

/// What an endpoint and its authorization server say about themselves.
#[derive(Debug)]
pub(in crate::connect) struct Found {
    /// What tokens have to be for (RFC 8707).
    pub(super) resource: String,
    scopes: Vec<String>,
    pub(super) server: Server,
}

#[derive(Debug, Deserialize)]
struct Resource {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
}

/// Metadata of an authorization server, as far as it is used.
#[derive(Debug, Deserialize)]
pub(super) struct Server {
    issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) registration_endpoint: Option<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    pub(super) token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    pub(super) client_id_metadata_document_supported: bool,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl Found {
    pub(super) fn issuer(&self) -> String {
        self.server.issuer.clone()
    }

    /// What the endpoint says it needs.
    pub(super) fn scopes(&self) -> Option<String> {
        (!self.scopes.is_empty()).then(|| self.scopes.join(" "))
    }

    /// True when the server knows the scope that refresh tokens hang on.
    pub(super) fn offline(&self) -> bool {
        self.server.scopes_supported.iter().any(|scope| scope == "offline_access")
    }
}

/// Finds both. A document that does not belong to what it was asked for counts as none.
pub(super) async fn discover(
    http: &Http,
    url: &str,
    challenge: &Challenge,
) -> Result<Found, SignInError> {
    let resource = resource(http, url, challenge).await?;
    let issuer = resource.authorization_servers.first().ok_or_else(|| {
        let detail = format!("the metadata of {url} names no authorization server");
        SignInError::NoAuthorizationServer(detail)
    })?;
    let server = server(http, issuer).await?;
    Ok(Found { resource: resource.resource, scopes: resource.scopes_supported, server })
}

async fn resource(http: &Http, url: &str, challenge: &Challenge) -> Result<Resource, SignInError> {
    let uri = endpoint(url).ok_or_else(|| SignInError::Network(format!("{url} is no address")))?;
    let base = format!("{}/.well-known/oauth-protected-resource", origin(&uri));
    let path = uri.path().trim_end_matches('/');
    let mut places = vec![format!("{base}{path}"), base];
    if let Some(named) = &challenge.metadata {
        places.insert(0, named.clone());
    }
    let mut why = String::new();
    for place in places {
        match document::<Resource>(http, &place).await {
            Ok(found) if belongs(&found.resource, &uri) => return Ok(found),
            Ok(found) => why = format!("{place} is about {}", found.resource),
            Err(error) => why = format!("{place}: {error}"),
        }
    }
    Err(SignInError::NoAuthorizationServer(why))
}

/// True when a token for `resource` may be shown to the endpoint: it is the endpoint's own
/// address or one above it. A name that is no address (an audience) is the endpoint's own affair:
/// its metadata came from the endpoint's own host.
fn belongs(resource: &str, uri: &Uri) -> bool {
    let Ok(named) = resource.parse::<Uri>() else { return !resource.is_empty() };
    if named.scheme().is_none() {
        return !resource.is_empty();
    }
    let above = named.path().trim_end_matches('/');
    let path = uri.path();
    let below =
        path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    origin(&named) == origin(uri) && below
        || named.scheme_str().is_some_and(|s| s != "https" && s != "http")
}

async fn server(http: &Http, issuer: &str) -> Result<Server, SignInError> {
    let refused = |why: &str| SignInError::NoAuthorizationServer(format!("{issuer}: {why}"));
    let uri = endpoint(issuer).ok_or_else(|| refused("it has to be an https address"))?;
    let (origin, path) = (origin(&uri), uri.path().trim_end_matches('/'));
    let mut places = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        places.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    let mut why = "it has no metadata".to_owned();
    for place in places {
        match document::<Server>(http, &place).await {
            Ok(server) => match check(&server, issuer) {
                Ok(()) => return Ok(server),
                Err(error) => why = error,
            },
            Err(error) => why = format!("{place}: {error}"),
        }
    }
    Err(refused(&why))
}

fn check(server: &Server, issuer: &str) -> Result<(), String> {
    // Byte by byte (RFC 8414, section 3.3): anything else lets one server speak for another.
    if server.issuer != issuer {
        return Err(format!("the metadata is of {}", server.issuer));
    }
    if !server.code_challenge_methods_supported.iter().any(|method| method == "S256") {
        return Err("it does not say that it supports PKCE with S256".to_owned());
    }
    let ends = [&server.authorization_endpoint, &server.token_endpoint];
    let ends = ends.into_iter().chain(&server.registration_endpoint);
    for end in ends {
        if endpoint(end.split('?').next().unwrap_or_default()).is_none() {
            return Err(format!("{end} is no https address"));
        }
    }
    Ok(())
}

async fn document<T: DeserializeOwned>(http: &Http, place: &str) -> Result<T, String> {
    endpoint(place).ok_or("not an https address")?;
    let (status, body): (StatusCode, Bytes) =
        http.get(place).await.map_err(|error| error.to_string())?;
    if status != StatusCode::OK {
        return Err(status.to_string());
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_belongs_to_its_own_endpoint() {
        let uri: Uri = "https://gw.example/acme/mcp".parse().unwrap();
        for (resource, fine) in [
            ("https://gw.example/acme/mcp", true),
            ("https://GW.example/acme", true),
            ("https://gw.example", true),
            ("https://gw.example/", true),
            ("https://gw.example/ac", false),
            ("https://gw.example/acme/mcp/x", false),
            ("https://evil.example/acme/mcp", false),
            ("http://gw.example/acme/mcp", false),
            ("urn:weir:acme", true),
            ("weir-acme", true),
            ("", false),
        ] {
            assert_eq!(belongs(resource, &uri), fine, "{resource}");
        }
    }

    fn metadata(change: &[(&str, serde_json::Value)]) -> Server {
        let mut document = serde_json::json!({
            "issuer": "https://as.example",
            "authorization_endpoint": "https://as.example/authorize",
            "token_endpoint": "https://as.example/token",
            "code_challenge_methods_supported": ["S256"],
        });
        for (member, value) in change {
            document[*member] = value.clone();
        }
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn servers_that_cannot_be_trusted_are_not_used() {
        let issuer = "https://as.example";
        check(&metadata(&[]), issuer).unwrap();
        for (member, value, word) in [
            ("issuer", "https://as.example/".into(), "is of"),
            ("code_challenge_methods_supported", serde_json::json!(["plain"]), "S256"),
            ("token_endpoint", "http://as.example/token".into(), "https"),
            ("registration_endpoint", "ftp://as.example".into(), "https"),
        ] {
            let error = check(&metadata(&[(member, value)]), issuer).unwrap_err();
            assert!(error.contains(word), "{member}: {error}");
        }
    }
}
