//! Addresses that a server names itself: the endpoint of a stream, the target of a redirect. They
//! must stay at the server's origin, since the gateway's credential goes along.

use http::Uri;

/// The address that a server names, which may be relative to its own.
///
/// # Errors
/// What is wrong with it: "has another origin".
pub(crate) fn within(base: &Uri, named: &str) -> Result<Uri, &'static str> {
    let origin = |uri: &Uri| {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().or(match scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port?))
    };
    let named = named.split('#').next().unwrap_or_default();
    let absolute = named.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    });
    let (Some(scheme), Some(authority)) = (base.scheme_str(), base.authority()) else {
        return Err("has nothing to be relative to");
    };
    let text = if absolute {
        named.to_owned()
    } else if named.starts_with("//") {
        format!("{scheme}:{named}")
    } else if named.starts_with('/') {
        format!("{scheme}://{authority}{named}")
    } else if named.starts_with('?') || named.is_empty() {
        format!("{scheme}://{authority}{}{named}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let named = named.trim_start_matches("./");
        format!("{scheme}://{authority}{folder}/{named}")
    };
    let uri: Uri = text.parse().map_err(|_| "is no address")?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("names a user");
    }
    if origin(&uri).is_none() || origin(&uri) != origin(base) {
        return Err("has another origin");
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_at_their_origin() {
        let base: Uri = "http://mcp.example:8080/a/sse?x=1".parse().expect("a URI");
        for (named, want) in [
            ("/messages?sessionId=1", Some("http://mcp.example:8080/messages?sessionId=1")),
            ("messages/?s=1", Some("http://mcp.example:8080/a/messages/?s=1")),
            ("./m", Some("http://mcp.example:8080/a/m")),
            ("?s=1", Some("http://mcp.example:8080/a/sse?s=1")),
            ("http://MCP.example:8080/m#f", Some("http://MCP.example:8080/m")),
            ("//mcp.example:8080/m", Some("http://mcp.example:8080/m")),
            ("/m?next=http://other/", Some("http://mcp.example:8080/m?next=http://other/")),
            ("http://mcp.example/m", None),
            ("https://mcp.example:8080/m", None),
            ("//169.254.169.254/latest", None),
            ("http://evil.example/m", None),
            ("http://user@mcp.example:8080/m", None),
            ("file:///etc/passwd", None),
            ("/a b", None),
        ] {
            let got = within(&base, named).ok().map(|uri| uri.to_string());
            assert_eq!(got.as_deref(), want, "{named}");
        }
        let plain: Uri = "https://mcp.example/sse".parse().expect("a URI");
        assert!(within(&plain, "https://mcp.example:443/m").is_ok());
    }
}
