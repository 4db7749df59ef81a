//! Who this proxy is towards clients: its own names, its addresses, and the pages that may call.
//!
//! `Host` and `Origin` are checked on every request. A browser that was lured to a page (or to a
//! name that resolves to this machine) must not reach servers through the gateway; agents send no
//! `Origin` and are not touched by that check.

use http::request::Parts;
use http::{HeaderMap, header};
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::GroupView;

use crate::call::inbound::Conn;

/// The names of this proxy.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Region of the proxy.
    pub region: String,
    /// Base URL under which clients reach it, without a trailing slash; derived from the request
    /// where it is not set.
    pub public_url: Option<String>,
    /// Host names (without port) under which clients may call, in lower case; `*` for any.
    pub hosts: Vec<String>,
}

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Site {
    /// Checks that the request is addressed to one of our names.
    ///
    /// # Errors
    /// [`Reason::HostRefused`].
    pub fn check_host(&self, conn: &Conn, head: &Parts) -> Result<(), Refusal> {
        let refused = |detail: &str| Refusal::new(Reason::HostRefused, detail);
        let authority = authority(head).ok_or_else(|| refused("no host"))?;
        let host = without_port(&authority).to_ascii_lowercase();
        let own = self.hosts.iter().any(|own| own == "*" || *own == host)
            || (conn.loopback && LOOPBACK.contains(&host.as_str()));
        if own { Ok(()) } else { Err(refused("not one of our names")) }
    }

    /// Checks that a browser's page may call.
    ///
    /// # Errors
    /// [`Reason::OriginRefused`].
    pub fn check_origin(
        &self,
        conn: &Conn,
        group: &GroupView,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let refused = || Refusal::from(Reason::OriginRefused);
        let mut values = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = values.next() else { return Ok(()) };
        if values.next().is_some() {
            return Err(refused());
        }
        let origin = normal_origin(origin.to_str().map_err(|_| refused())?).ok_or_else(refused)?;
        let listed = group.spec.origins.iter().any(|o| normal_origin(o).as_ref() == Some(&origin));
        let loopback = conn.loopback && {
            let (_, host) = origin.split_once("://").unwrap_or_default();
            LOOPBACK.contains(&without_port(host))
        };
        if listed || loopback { Ok(()) } else { Err(refused()) }
    }

    /// The base URL, when it is certain to be ours: it was set, or the names of this proxy were.
    /// A token that was issued for it was issued for us.
    pub fn own_url(&self, conn: &Conn, head: &Parts) -> Option<String> {
        let certain = self.public_url.is_some() || !self.hosts.iter().any(|own| own == "*");
        certain.then(|| self.base_url(conn, head))
    }

    /// The base URL of this request's endpoint: the setting, or what the client called us.
    pub fn base_url(&self, conn: &Conn, head: &Parts) -> String {
        if let Some(url) = &self.public_url {
            return url.clone();
        }
        let scheme = if conn.tls { "https" } else { "http" };
        format!("{scheme}://{}", authority(head).unwrap_or_default().to_ascii_lowercase())
    }
}

/// What the client called us: `:authority` over HTTP/2, else `Host`, which must be there once.
fn authority(head: &Parts) -> Option<String> {
    if let Some(authority) = head.uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    let mut values = head.headers.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (Some(host), None) => host.to_str().ok().map(str::to_owned),
        _ => None,
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        // A colon inside of brackets belongs to an IPv6 address.
        Some(at) if !authority[at..].contains(']') => &authority[..at],
        _ => authority,
    }
}

/// `scheme://host[:port]` in lower case without a default port; none for `null` and other text.
fn normal_origin(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('/').to_ascii_lowercase();
    let (scheme, host) = text.split_once("://")?;
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let host = match host.strip_suffix(default) {
        Some(bare) if !default.is_empty() => bare,
        _ => host,
    };
    (!host.is_empty() && !host.contains('/')).then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_without_default_ports() {
        for (text, normal) in [
            ("https://App.example:443", Some("https://app.example")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("http://[::1]:80", Some("http://[::1]")),
            ("vscode-webview://abc", Some("vscode-webview://abc")),
            ("null", None),
            ("https://", None),
            ("https://a/b", None),
        ] {
            assert_eq!(normal_origin(text).as_deref(), normal, "{text}");
        }
    }

    #[test]
    fn ports_are_cut_off() {
        for (text, host) in [("a:1", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")] {
            assert_eq!(without_port(text), host);
        }
    }

    #[test]
    fn only_our_own_names_are_served() {
        let conn = |loopback| Conn {
            peer: ([127, 0, 0, 1], 1).into(),
            loopback,
            tls: false,
            certificates: None,
        };
        let site = Site { hosts: vec!["mcp.example".into()], ..Site::default() };
        let head = |host: Option<&str>| {
            let mut request = http::Request::builder().uri("/dev/mcp");
            if let Some(host) = host {
                request = request.header("host", host);
            }
            request.body(()).unwrap().into_parts().0
        };
        for (host, loopback, good) in [
            (Some("mcp.example"), false, true),
            (Some("MCP.example:8443"), false, true),
            (Some("localhost:1"), true, true),
            (Some("[::1]:1"), true, true),
            (Some("localhost"), false, false),
            (Some("evil.example"), true, false),
            (Some("127.0.0.1.evil.example"), true, false),
            (None, true, false),
        ] {
            let result = site.check_host(&conn(loopback), &head(host));
            assert_eq!(result.is_ok(), good, "{host:?} {loopback}");
        }
    }
}
