//! Which dialect a message speaks, decided once per call and body first.
//!
//! `_meta` with a protocol version is the claim to be stateless; the header only has to agree.
//! Without the claim a request belongs to the older, session-based revisions. Notifications are
//! judged leniently, since the specification leaves their headers open.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use weir_model::reason::{Reason, Refusal};

use super::envelope::{Message, Params, utf8};
use super::headers;
use super::level::Level;
use super::members::{self, Members};
use super::revision::Revision;

/// Prefix of the reserved `_meta` keys.
const PREFIX: &str = "io.modelcontextprotocol/";

/// What the client speaks in this message.
#[derive(Debug, Clone)]
pub enum Era {
    /// Up to 2025-11-25. The header's revision; the session knows better.
    Legacy(Option<Revision>),
    /// 2026-07-28 and later, with what `_meta` says about the client.
    Modern(Claim),
}

/// What a stateless request says about its client.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Implemented here.
    pub revision: Revision,
    /// `clientInfo`, raw object.
    pub client_info: Option<Bytes>,
    /// `clientCapabilities`, raw object; `{}` for notifications without any.
    pub capabilities: Bytes,
}

impl Era {
    /// True for stateless revisions.
    pub fn modern(&self) -> bool {
        matches!(self, Self::Modern(_))
    }
}

/// The era of a request without a body.
///
/// # Errors
/// [`Reason::MethodNotAllowed`] for a stateless revision, [`Reason::UnsupportedVersion`].
pub fn of_bodiless(headers: &HeaderMap) -> Result<Era, Refusal> {
    match version_header(headers)? {
        None => Ok(Era::Legacy(None)),
        Some(text) => match Revision::parse(text) {
            Some(revision) if revision.modern() => {
                Err(Refusal::new(Reason::MethodNotAllowed, "stateless revisions only POST"))
            }
            Some(revision) => Ok(Era::Legacy(Some(revision))),
            None => Err(unsupported(text, &Revision::all())),
        },
    }
}

/// The era of a batch, which only 2025-03-26 has; the session knows whether it is that.
///
/// # Errors
/// [`Reason::InvalidRequest`] for a revision that has none, [`Reason::UnsupportedVersion`].
pub fn of_batch(headers: &HeaderMap) -> Result<Era, Refusal> {
    match version_header(headers)?.map(|text| (text, Revision::parse(text))) {
        None => Ok(Era::Legacy(None)),
        Some((_, Some(revision))) if !revision.modern() => Ok(Era::Legacy(Some(revision))),
        Some((_, Some(_))) => Err(super::batch::refused()),
        Some((text, None)) => Err(unsupported(text, &Revision::all())),
    }
}

/// The era of one of the gateway's own verbs: stateless. What `_meta` and the headers say is
/// held against each other as usual; a client that says nothing has no capabilities.
///
/// # Errors
/// As [`decide`], and [`Reason::HeaderMismatch`] for mirrors that differ from the body.
pub fn of_verb(message: &Message, headers: &HeaderMap) -> Result<Era, Refusal> {
    let Message::Request { method, params, .. } = message else { return decide(message, headers) };
    if meta(params)?.get(&key("protocolVersion")).is_some() {
        return of_request(method, params, headers);
    }
    match version_header(headers)?.map(|text| (text, Revision::parse(text))) {
        None | Some((_, Some(_))) => {}
        Some((text, None)) => return Err(unsupported(text, &Revision::all())),
    }
    let revision = Revision::V2026_07_28;
    Ok(Era::Modern(Claim { revision, client_info: None, capabilities: Bytes::from_static(b"{}") }))
}

/// The era of a message.
///
/// # Errors
/// [`Reason::HeaderMismatch`], [`Reason::UnsupportedVersion`], [`Reason::InvalidParams`] and
/// [`Reason::InvalidRequest`], as the table of required answers in the specification says.
pub fn decide(message: &Message, headers: &HeaderMap) -> Result<Era, Refusal> {
    match message {
        Message::Request { method, params, .. } => of_request(method, params, headers),
        Message::Notification { params, .. } => of_notification(params, headers),
        Message::Response { .. } => match version_header(headers)?.and_then(Revision::parse) {
            Some(revision) if revision.modern() => {
                Err(Refusal::new(Reason::InvalidRequest, "a response in a stateless revision")
                    .hint("Clients of this revision send requests and notifications only."))
            }
            revision => Ok(Era::Legacy(revision)),
        },
    }
}

fn of_request(method: &str, params: &Params, headers: &HeaderMap) -> Result<Era, Refusal> {
    let header = version_header(headers)?;
    let meta = meta(params)?;
    let Some(claim) = meta.get(&key("protocolVersion")) else {
        return of_unclaimed(method, header);
    };
    let claim = members::text(claim).ok_or_else(|| missing_meta("protocolVersion", "a string"))?;
    match header {
        None => return Err(mismatch("MCP-Protocol-Version is missing")),
        Some(header) if header != claim => {
            return Err(mismatch("MCP-Protocol-Version differs from the body"));
        }
        Some(_) => {}
    }
    let revision = Revision::parse(&claim)
        .filter(|revision| revision.modern())
        .ok_or_else(|| unsupported(&claim, &Revision::all_modern()))?;
    let capabilities = meta
        .get(&key("clientCapabilities"))
        .filter(|raw| members::is_object(raw))
        .ok_or_else(|| missing_meta("clientCapabilities", "an object"))?;
    let client_info = match meta.get(&key("clientInfo")) {
        Some(raw) if !members::is_object(raw) => {
            return Err(missing_meta("clientInfo", "an object"));
        }
        info => info.map(|raw| copy(params, raw.get())),
    };
    check_log_level(&meta)?;
    let capabilities = copy(params, capabilities.get());
    Ok(Era::Modern(Claim { revision, client_info, capabilities }))
}

/// A request without the claim: of an older revision, unless the header says otherwise.
fn of_unclaimed(method: &str, header: Option<&str>) -> Result<Era, Refusal> {
    match header.map(|text| (text, Revision::parse(text))) {
        None => Ok(Era::Legacy(None)),
        Some((_, Some(revision))) if !revision.modern() => Ok(Era::Legacy(Some(revision))),
        Some((_, Some(_))) if method == "initialize" => {
            Err(mismatch("initialize belongs to revisions before the one that the header names"))
        }
        Some((_, Some(_))) => Err(missing_meta("protocolVersion", "a string")),
        // A handshake brings its own version; what an unknown header says is settled there.
        Some((_, None)) if method == "initialize" => Ok(Era::Legacy(None)),
        Some((text, None)) => Err(unsupported(text, &Revision::all())),
    }
}

fn of_notification(params: &Params, headers: &HeaderMap) -> Result<Era, Refusal> {
    let header = version_header(headers)?;
    let meta = meta(params)?;
    let claim = meta.text(&key("protocolVersion"));
    let text = claim.as_deref().or(header);
    let revision = text.and_then(Revision::parse);
    Ok(match (text, revision) {
        (Some(_), Some(revision)) if revision.modern() => Era::Modern(Claim {
            revision,
            client_info: None,
            capabilities: Bytes::from_static(b"{}"),
        }),
        (Some(text), None) => return Err(unsupported(text, &Revision::all())),
        _ => Era::Legacy(revision),
    })
}

fn check_log_level(meta: &Members<'_>) -> Result<(), Refusal> {
    match meta.get(&key("logLevel")) {
        None => Ok(()),
        Some(raw) => match members::text(raw) {
            Some(level) if Level::parse(&level).is_some() => Ok(()),
            _ => Err(missing_meta("logLevel", "a log level of RFC 5424")),
        },
    }
}

fn version_header(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    headers::single(headers, "mcp-protocol-version")
}

fn meta(params: &Params) -> Result<Members<'_>, Refusal> {
    match &params.meta {
        Some(raw) => Members::parse(utf8(raw)).map_err(Refusal::from),
        None => Ok(Members::default()),
    }
}

fn copy(params: &Params, part: &str) -> Bytes {
    match &params.meta {
        Some(meta) => meta.slice_ref(part.as_bytes()),
        None => Bytes::copy_from_slice(part.as_bytes()),
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn mismatch(detail: &str) -> Refusal {
    Refusal::new(Reason::HeaderMismatch, detail).hint(format!("Header mismatch: {detail}."))
}

fn missing_meta(name: &str, wanted: &str) -> Refusal {
    Refusal::new(Reason::InvalidParams, format!("_meta {name}"))
        .hint(format!("The request needs params._meta[\"{PREFIX}{name}\"] as {wanted}."))
}

/// The refusal that lists what is supported.
pub fn unsupported(requested: &str, supported: &[&str]) -> Refusal {
    let requested: String = requested.chars().take(64).collect();
    Refusal::new(Reason::UnsupportedVersion, format!("version {requested:?}"))
        .hint("Unsupported protocol version.")
        .data(json!({ "supported": supported, "requested": requested }))
}

#[cfg(test)]
mod tests {
    use super::super::envelope;
    use super::*;

    const CAPS: &str = r#""io.modelcontextprotocol/clientCapabilities":{}"#;

    fn era_of(header: Option<&str>, message: &str) -> Result<Era, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert("mcp-protocol-version", header.parse().unwrap());
        }
        let message = envelope::read(&Bytes::copy_from_slice(message.as_bytes())).unwrap();
        decide(&message, &headers)
    }

    fn request(method: &str, meta: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"_meta":{{{meta}}}}}}}"#)
    }

    fn claim(version: &str) -> String {
        format!(r#""io.modelcontextprotocol/protocolVersion":"{version}",{CAPS}"#)
    }

    #[test]
    fn the_body_decides_and_the_header_must_agree() {
        let modern = claim("2026-07-28");
        let old = Some("2025-11-25");
        let new = Some("2026-07-28");
        let table: Vec<(Option<&str>, String, Result<bool, Reason>)> = vec![
            (new, request("tools/list", &modern), Ok(true)),
            (None, request("tools/list", &modern), Err(Reason::HeaderMismatch)),
            (old, request("tools/list", &modern), Err(Reason::HeaderMismatch)),
            (new, request("tools/list", ""), Err(Reason::InvalidParams)),
            (new, request("initialize", ""), Err(Reason::HeaderMismatch)),
            (
                Some("1900-01-01"),
                request("tools/list", &claim("1900-01-01")),
                Err(Reason::UnsupportedVersion),
            ),
            (old, request("tools/list", &claim("2025-11-25")), Err(Reason::UnsupportedVersion)),
            (Some("1999-01-01"), request("ping", ""), Err(Reason::UnsupportedVersion)),
            (old, request("tools/list", ""), Ok(false)),
            (None, request("tools/list", ""), Ok(false)),
            (Some("x"), request("initialize", ""), Ok(false)),
            (new, request("initialize", &modern), Ok(true)),
            (
                new,
                request("ping", r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#),
                Err(Reason::InvalidParams),
            ),
            (
                new,
                request("ping", &format!(r#"{modern},"io.modelcontextprotocol/logLevel":"loud""#)),
                Err(Reason::InvalidParams),
            ),
            (new, r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#.into(), Ok(true)),
            (None, r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#.into(), Ok(false)),
            (new, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into(), Err(Reason::InvalidRequest)),
            (None, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into(), Ok(false)),
        ];
        for (header, message, expected) in table {
            let got = era_of(header, &message).map(|e| e.modern()).map_err(|r| r.reason);
            assert_eq!(got, expected, "{header:?} {message}");
        }
    }

    #[test]
    fn an_unsupported_version_lists_the_supported_ones() {
        let refusal = era_of(Some("1900-01-01"), &request("x", &claim("1900-01-01"))).unwrap_err();
        let data = json!({"supported": ["2026-07-28"], "requested": "1900-01-01"});
        assert_eq!(refusal.data.as_deref(), Some(&data));
    }

    #[test]
    fn requests_without_a_body_belong_to_sessions() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("mcp-protocol-version", value.parse().unwrap());
            of_bodiless(&headers).map(|e| e.modern()).map_err(|r| r.reason)
        };
        assert_eq!(of("2026-07-28"), Err(Reason::MethodNotAllowed));
        assert_eq!(of("2025-06-18"), Ok(false));
        assert_eq!(of("1999-01-01"), Err(Reason::UnsupportedVersion));
        assert!(of_bodiless(&HeaderMap::new()).is_ok());
    }
}
