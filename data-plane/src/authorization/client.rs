//! Clients of the sign-in: known beforehand, described by a document at their own URL, or
//! registered by themselves. No proxy remembers any of them: a registered client's id is its
//! registration, sealed.

use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use serde::Deserialize;
use weir_model::id::Digest;
use weir_model::resource::SignIn;

use super::Desk;
use super::answer::Fault;
use super::sealed::{ClientSecret, Registered, Sealed as _};

/// Redirect URIs of one client.
pub(super) const REDIRECTS_MAX: usize = 20;
/// Longest redirect URI.
const REDIRECT_BYTES_MAX: usize = 1_024;
/// Longest name that a client may give itself.
const NAME_CHARS_MAX: usize = 100;
/// Longest client metadata document that is read.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024;

/// A client, as far as it has to be known.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Of its id.
    pub digest: Digest,
    /// What tokens, rules and records call it.
    pub label: String,
    /// For people.
    pub name: String,
    /// Where it is known from.
    pub origin: Origin,
    /// Where it may be sent back to.
    pub redirects: Vec<String>,
    /// True when it has a secret.
    pub confidential: bool,
}

/// Where a client is known from: who vouches for it, and for which groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A group's document.
    Configured,
    /// Its own document, at this host.
    Document(String),
    /// It registered itself.
    Registered,
}

/// Finds a client.
///
/// # Errors
/// `invalid_client`, with what its developer has to mend; `temporarily_unavailable` while too many
/// clients are looked up.
pub(super) async fn find(desk: &Desk<'_>, id: &str) -> Result<Client, Fault> {
    if let Some(client) = configured(desk, id) {
        return Ok(client);
    }
    if id.contains("://") {
        return document(desk, id).await;
    }
    let unknown = || Fault::new("invalid_client", "unknown client_id; register anew");
    let registered = Registered::open(desk.sealer, b"", id).map_err(|_| unknown())?;
    if !desk.fronts().any(|front| front.registration) {
        return Err(Fault::new("invalid_client", "clients may not register themselves here"));
    }
    Ok(Client {
        digest: Digest::of(id.as_bytes()),
        label: label(id),
        name: registered.name,
        origin: Origin::Registered,
        redirects: registered.redirects,
        confidential: registered.confidential,
    })
}

/// What a client that registered itself is called: its id is long, and no secret.
pub(super) fn label(id: &str) -> String {
    format!("registered:{}", &Digest::of(id.as_bytes()).hex()[..16])
}

fn configured(desk: &Desk<'_>, id: &str) -> Option<Client> {
    let client = desk.fronts().flat_map(|front| &front.clients).find(|client| client.id == id)?;
    Some(Client {
        digest: Digest::of(id.as_bytes()),
        label: id.to_owned(),
        name: client.display_name.clone().unwrap_or_else(|| id.to_owned()),
        origin: Origin::Configured,
        redirects: client.redirect_uris.clone(),
        confidential: false,
    })
}

/// What a client says of itself at its own URL (client id metadata document).
#[derive(Debug, Deserialize)]
struct Document {
    client_id: String,
    #[serde(default)]
    client_name: Option<String>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
    #[serde(default)]
    client_secret: Option<serde::de::IgnoredAny>,
}

/// The client that a URL names, from its document; kept for some minutes.
async fn document(desk: &Desk<'_>, id: &str) -> Result<Client, Fault> {
    let invalid = |text: String| Fault::new("invalid_client", text);
    let fronts: Vec<_> = desk.fronts().filter(|front| front.metadata_documents).collect();
    let private = fronts.iter().any(|front| front.allow_private);
    let host = document_host(id, private).map_err(|why| invalid(format!("client_id {why}")))?;
    let trusted = fronts
        .iter()
        .any(|front| front.metadata_hosts.is_empty() || front.metadata_hosts.contains(&host));
    if !trusted {
        return Err(invalid(format!("clients described at {host} are not accepted here")));
    }
    let front = &desk.gateway.front;
    let key = format!("{private} {id}");
    if let Some(why) = front.unusable.get(&key) {
        return Err(invalid(why));
    }
    let named = fronts.iter().any(|front| front.metadata_hosts.contains(&host));
    let fetched = front.documents.try_get_with(key.clone(), async {
        let visit = front.visits.begin(&host, named, tokio::time::Instant::now());
        let _visit = visit.ok_or(Unfetched::Busy)?;
        let body = front.fetch.get_json(id, private).await;
        let body = body.map_err(|why| format!("its metadata document {why}"));
        body.and_then(|body| read(id, &host, &body)).map(Arc::new).map_err(Unfetched::Useless)
    });
    match fetched.await {
        Ok(client) => Ok(Client::clone(&client)),
        Err(why) => Err(match &*why {
            Unfetched::Busy => Fault::new(
                "temporarily_unavailable",
                "too many metadata documents of clients were fetched just now; try again",
            ),
            Unfetched::Useless(why) => {
                front.unusable.insert(key, why.clone());
                invalid(why.clone())
            }
        }),
    }
}

/// Why there is no document.
#[derive(Debug)]
enum Unfetched {
    /// What the document, or the web, said; it is not asked again for a moment.
    Useless(String),
    /// Nobody asked for it: see [`super::visits`].
    Busy,
}

/// What is wrong with a URL as a client id, else its host.
fn document_host(id: &str, private: bool) -> Result<String, &'static str> {
    let uri: Uri = id.parse().map_err(|_| "is no URL")?;
    let secure = uri.scheme_str() == Some("https") || (private && uri.scheme_str() == Some("http"));
    if !secure {
        return Err("must be an https URL");
    }
    let authority = uri.authority().ok_or("must name a host")?;
    if authority.as_str().contains('@') || id.contains('#') {
        return Err("must not have a user or a fragment");
    }
    let path = uri.path();
    if path.len() < 2 || path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("must have a path, without dots");
    }
    Ok(authority.host().to_ascii_lowercase())
}

fn read(id: &str, host: &str, body: &[u8]) -> Result<Client, String> {
    if body.len() > DOCUMENT_BYTES_MAX {
        return Err(format!("its metadata document is longer than {DOCUMENT_BYTES_MAX} bytes"));
    }
    let document: Document = serde_json::from_slice(body)
        .map_err(|_| "its metadata document does not have the shape of one".to_owned())?;
    if document.client_id != id {
        return Err("its metadata document names another client_id".to_owned());
    }
    let method = document.token_endpoint_auth_method.as_deref().unwrap_or("none");
    if method != "none" || document.client_secret.is_some() {
        return Err("a client described at a URL is public: token_endpoint_auth_method none".into());
    }
    let redirects = redirects(document.redirect_uris)?;
    Ok(Client {
        digest: Digest::of(id.as_bytes()),
        label: id.to_owned(),
        name: name(document.client_name.as_deref()).unwrap_or_else(|| host.to_owned()),
        origin: Origin::Document(host.to_owned()),
        redirects,
        confidential: false,
    })
}

/// A client's name for itself, cut to a line.
pub(super) fn name(text: Option<&str>) -> Option<String> {
    let line = text?.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    (!line.is_empty()).then_some(line)
}

/// Checks redirect URIs.
///
/// # Errors
/// A sentence, for the first that cannot be.
pub(super) fn redirects(list: Vec<String>) -> Result<Vec<String>, String> {
    if list.is_empty() || list.len() > REDIRECTS_MAX {
        return Err(format!("redirect_uris must hold 1 to {REDIRECTS_MAX} URIs"));
    }
    match list.iter().find_map(|uri| redirect_complaint(uri).map(|why| (uri, why))) {
        None => Ok(list),
        Some((uri, why)) => {
            let shown: String = uri.chars().take(80).collect();
            Err(format!("the redirect URI {shown:?} {why}"))
        }
    }
}

/// What is wrong with a redirect URI: `https`, `http` on loopback (RFC 8252, 7.3), or a scheme of
/// an application's own (7.1), as Cursor and VS Code have.
fn redirect_complaint(uri: &str) -> Option<&'static str> {
    if uri.len() > REDIRECT_BYTES_MAX || !uri.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Some("is too long, or has characters that no URI has");
    }
    if uri.contains('#') {
        return Some("must not have a fragment");
    }
    let Some((scheme, rest)) = uri.split_once(':') else { return Some("has no scheme") };
    let scheme = scheme.to_ascii_lowercase();
    let mut letters = scheme.chars();
    if !letters.next().is_some_and(|c| c.is_ascii_lowercase())
        || !letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    {
        return Some("has no scheme");
    }
    let authority = rest.strip_prefix("//").map(|r| r.split(['/', '?']).next().unwrap_or_default());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Some("must not name a user");
    }
    match (scheme.as_str(), authority) {
        ("https", Some(authority)) if !authority.is_empty() => None,
        ("http", Some(authority)) if is_loopback(authority) => None,
        ("http" | "https", _) => Some("must be https, or http on a loopback address"),
        (
            "javascript" | "data" | "vbscript" | "file" | "blob" | "about" | "view-source" | "ws"
            | "wss" | "ftp",
            _,
        ) => Some("has a scheme that cannot be"),
        _ if rest.trim_start_matches('/').is_empty() => Some("names no place"),
        _ => None,
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => &authority[..at],
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A loopback URI without its port; none for all others.
fn portless(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_loopback(authority) {
        return None;
    }
    let host = match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => &authority[..at],
        _ => authority,
    };
    Some((host, path))
}

impl Client {
    /// True when a group lets such clients in: what one group allows, another need not.
    pub(super) fn suits(&self, front: &SignIn) -> bool {
        match &self.origin {
            Origin::Configured => front.clients.iter().any(|client| client.id == self.label),
            Origin::Registered => front.registration,
            Origin::Document(host) => {
                let hosts = &front.metadata_hosts;
                front.metadata_documents && (hosts.is_empty() || hosts.contains(host))
            }
        }
    }

    /// Who vouches for it, for people.
    pub(super) fn vouched_by(&self) -> Option<&str> {
        match &self.origin {
            Origin::Configured => Some("the gateway's administrators"),
            Origin::Document(host) => Some(host),
            Origin::Registered => None,
        }
    }

    /// The redirect URI of a request, which must be one of the client's, character by character;
    /// only the port of a loopback address is free, since it is not known beforehand.
    ///
    /// # Errors
    /// A sentence for a page: the browser must not be sent anywhere.
    pub(super) fn redirect(&self, wanted: Option<&str>) -> Result<String, &'static str> {
        let Some(wanted) = wanted else {
            return match self.redirects.as_slice() {
                [only] => Ok(only.clone()),
                _ => Err("The application did not say where to send you back to."),
            };
        };
        let fits = |known: &String| {
            known == wanted || portless(known).is_some_and(|own| portless(wanted) == Some(own))
        };
        match self.redirects.iter().any(fits) && redirect_complaint(wanted).is_none() {
            true => Ok(wanted.to_owned()),
            false => {
                Err("The application wants to send you to an address that it did not register.")
            }
        }
    }
}

/// Who calls the token endpoint: a client that shows its secret, where it has one.
///
/// # Errors
/// `invalid_client`.
pub(super) async fn authenticate(
    desk: &Desk<'_>,
    id: &str,
    secret: Option<&str>,
) -> Result<Client, Fault> {
    let client = find(desk, id).await?;
    if client.confidential {
        let good =
            secret.is_some_and(|s| ClientSecret::open(desk.sealer, id.as_bytes(), s).is_ok());
        if !good {
            return Err(Fault::new("invalid_client", "the client's secret is missing or wrong"));
        }
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_go_where_applications_are() {
        for (uri, good) in [
            ("https://claude.ai/api/mcp/auth_callback", true),
            ("https://chatgpt.com/connector_platform_oauth_redirect", true),
            ("https://vscode.dev/redirect", true),
            ("http://127.0.0.1:33418", true),
            ("http://localhost:3118/callback", true),
            ("http://[::1]:8080/callback", true),
            ("cursor://anysphere.cursor-mcp/oauth/callback", true),
            ("vscode://vscode.github-authentication/did-authenticate", true),
            ("com.example.app:/callback", true),
            ("http://evil.example/callback", false),
            ("http://127.0.0.1.evil.example/", false),
            ("http://localhost@evil.example/", false),
            ("https://a@evil.example/", false),
            ("https:///callback", false),
            ("https://a/b#c", false),
            ("javascript:alert(1)", false),
            ("JavaScript:alert(1)", false),
            ("data:text/html,x", false),
            ("file:///etc/passwd", false),
            ("cursor://", false),
            ("nonsense", false),
            ("https://a/\r\nset-cookie: x", false),
        ] {
            assert_eq!(redirect_complaint(uri).is_none(), good, "{uri}");
        }
    }

    #[test]
    fn only_the_port_of_a_loopback_address_is_free() {
        let client = |redirects: &[&str]| Client {
            digest: Digest::default(),
            label: String::new(),
            name: String::new(),
            origin: Origin::Registered,
            redirects: redirects.iter().map(|r| (*r).to_owned()).collect(),
            confidential: false,
        };
        let known = client(&["http://127.0.0.1:1/cb", "https://app.example/cb"]);
        for (wanted, good) in [
            ("http://127.0.0.1:1/cb", true),
            ("http://127.0.0.1:54321/cb", true),
            ("http://127.0.0.1/cb", true),
            ("http://127.0.0.1:54321/other", false),
            ("http://localhost:54321/cb", false),
            ("https://app.example/cb", true),
            ("https://app.example:8443/cb", false),
            ("https://app.example/cb/", false),
            ("https://app.example/cb?x=1", false),
            ("https://APP.example/cb", false),
        ] {
            assert_eq!(known.redirect(Some(wanted)).is_ok(), good, "{wanted}");
        }
        assert!(known.redirect(None).is_err());
        assert_eq!(client(&["cursor://a/b"]).redirect(None).unwrap(), "cursor://a/b");
    }

    #[test]
    fn documents_are_held_to_their_url() {
        let url = "https://app.example/client.json";
        let body = |id: &str, more: &str| {
            format!(r#"{{"client_id":"{id}","redirect_uris":["https://app.example/cb"]{more}}}"#)
        };
        let of = |text: &str| read(url, "app.example", text.as_bytes());
        let named = of(&body(url, r#","client_name":"My  app""#)).unwrap();
        assert_eq!((named.name.as_str(), named.label.as_str()), ("My app", url));
        assert_eq!(of(&body(url, "")).unwrap().name, "app.example");
        for (what, text) in [
            ("another id", body("https://app.example/other.json", "")),
            ("a secret", body(url, r#","client_secret":"x""#)),
            ("a method", body(url, r#","token_endpoint_auth_method":"client_secret_basic""#)),
            ("no redirects", format!(r#"{{"client_id":"{url}"}}"#)),
            ("a bad redirect", body(url, "").replace("https://app.example/cb", "javascript:x")),
            ("a list", "[]".to_owned()),
        ] {
            assert!(of(&text).is_err(), "{what}");
        }
        for (id, good) in [
            ("https://app.example/client.json", true),
            ("https://app.example/", false),
            ("https://app.example", false),
            ("http://app.example/client.json", false),
            ("https://u@app.example/client.json", false),
            ("https://app.example/a/../client.json", false),
            ("https://app.example/client.json#x", false),
        ] {
            assert_eq!(document_host(id, false).is_ok(), good, "{id}");
        }
        assert!(document_host("http://127.0.0.1:1/client.json", true).is_ok());
    }
}
