//! Checks of texts: URLs, patterns, headers, plain words.

use http::Uri;

use crate::bounds;

/// Longest text for people.
const DISPLAY_CHARS_MAX: usize = 200;
/// Longest subject, membership or scope.
const ATTRIBUTE_BYTES_MAX: usize = 512;
/// Most `*` of one pattern: each may cost another pass over a name.
const PATTERN_STARS_MAX: usize = 16;

/// What a URL may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct UrlRules {
    /// `http` is fine too.
    pub(super) plain: bool,
    /// A path beyond `/`.
    pub(super) path: bool,
    /// A query.
    pub(super) query: bool,
}

/// What is wrong with a URL. Host names are looked up when they are used, not here.
pub(super) fn url(text: &str, rules: UrlRules) -> Option<String> {
    let fail = |message: &str| Some(message.to_owned());
    if text.len() > bounds::URI_BYTES_MAX {
        return Some(format!("must be at most {} bytes long", bounds::URI_BYTES_MAX));
    }
    if text.contains('#') {
        return fail("must not have a fragment (#...)");
    }
    let expected = if rules.plain { "http:// or https://" } else { "https://" };
    let Ok(uri) = text.parse::<Uri>() else {
        return Some(format!("must be a URL that begins with {expected}"));
    };
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if rules.plain => {}
        Some("http") => return fail("must begin with https:// (or allow private addresses)"),
        _ => return Some(format!("must be a URL that begins with {expected}")),
    }
    let Some(authority) = uri.authority() else { return fail("must name a host") };
    if authority.as_str().contains('@') {
        return fail("must not have a user or password; use a Credential");
    }
    if authority.host().is_empty() || authority.host().starts_with('.') {
        return fail("must name a host");
    }
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return fail("must have a port from 1 to 65535, or none");
    }
    if !rules.query && uri.query().is_some() {
        return fail("must not have a query (?...)");
    }
    if !rules.path && !matches!(uri.path(), "" | "/") {
        return fail("must not have a path");
    }
    None
}

/// What is wrong with a browser origin: `scheme://host[:port]`.
pub(super) fn origin(text: &str) -> Option<String> {
    let shape = "must be scheme://host[:port], in lower case and without a path".to_owned();
    if text.ends_with('/') || text.chars().any(|c| c.is_ascii_uppercase()) {
        return Some(shape);
    }
    // Desktop applications have schemes of their own; browsers treat them like any other.
    let Some((scheme, rest)) = text.split_once("://") else { return Some(shape) };
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.chars().all(letters) {
        return Some(shape);
    }
    url(&format!("https://{rest}"), UrlRules { plain: false, path: false, query: false })
        .map(|_| shape)
}

/// What is wrong with a name for people.
pub(super) fn display(text: Option<&str>) -> Option<String> {
    let text = text?;
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Some("must be one line of text".to_owned());
    }
    (text.chars().count() > DISPLAY_CHARS_MAX)
        .then(|| format!("must be at most {DISPLAY_CHARS_MAX} characters long"))
}

/// What is wrong with a subject, membership, scope or claim name.
pub(super) fn attribute(text: &str) -> Option<String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Some("must be one line of text".to_owned());
    }
    (text.len() > ATTRIBUTE_BYTES_MAX)
        .then(|| format!("must be at most {ATTRIBUTE_BYTES_MAX} bytes long"))
}

/// What is wrong with an OAuth scope (RFC 6749, section 3.3).
pub(super) fn scope(text: &str) -> Option<String> {
    let fits = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if text == "offline_access" {
        return Some("must not be offline_access: clients ask for that by themselves".to_owned());
    }
    (text.is_empty() || text.len() > ATTRIBUTE_BYTES_MAX || !text.bytes().all(fits))
        .then(|| "must be one word of printable ASCII without quotes".to_owned())
}

/// What a pattern is matched against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matches {
    /// Names of servers.
    Servers,
    /// Names of tools or prompts.
    Names,
    /// URIs.
    Uris,
}

/// What is wrong with a pattern.
pub(super) fn pattern(text: &str, matches: Matches) -> Option<String> {
    let max = match matches {
        Matches::Servers => bounds::NAME_CHARS_MAX,
        Matches::Names => bounds::TOOL_NAME_CHARS_MAX,
        Matches::Uris => bounds::URI_BYTES_MAX,
    };
    if text.is_empty() {
        return Some("must not be empty; * matches everything".to_owned());
    }
    if text.chars().count() > max {
        return Some(format!("must be at most {max} characters long"));
    }
    if text.chars().filter(|c| *c == '*').count() > PATTERN_STARS_MAX {
        return Some(format!("must have at most {PATTERN_STARS_MAX} stars"));
    }
    let of_server = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '*';
    if matches == Matches::Servers && !text.chars().all(of_server) {
        return Some("must be made of a-z, 0-9, - and *, like names of servers".to_owned());
    }
    text.chars()
        .any(|c| c.is_control() || c.is_whitespace())
        .then(|| "must not have spaces or control characters".to_owned())
}

/// What is wrong with the name of a header that the gateway adds to upstream requests.
pub(super) fn header_name(text: &str) -> Option<String> {
    let Ok(name) = text.parse::<http::HeaderName>() else {
        return Some("must be the name of an HTTP header".to_owned());
    };
    let name = name.as_str();
    // These belong to the connection, to the message or to MCP itself.
    let taken = [
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "last-event-id",
        "origin",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "traceparent",
        "tracestate",
        "upgrade",
        "via",
    ];
    (taken.contains(&name) || name.starts_with("mcp-") || name.starts_with("sec-"))
        .then(|| format!("must not be {name}: the gateway sets that header itself"))
}

/// What is wrong with an id that travels in tokens or names something random.
pub(super) fn id(text: &str, max: usize, extra: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    (text.is_empty() || text.len() > max || !text.chars().all(fits))
        .then(|| format!("must be 1 to {max} letters and digits"))
}
