//! One request in the terms of the server's era, and what comes back in the client's.
//!
//! Only `_meta` is touched: the envelope keys of 2026-07-28 are completed or left out, the progress
//! token becomes one of ours (tokens of different clients would collide on a shared hop), the trace
//! context is written in. Everything else of `params` stays byte for byte.

use bytes::Bytes;
use weir_model::reason::{Reason, Refusal};

use super::envelope::Id;
use super::raw::{self, Edit};
use super::{Front, Outbound};
use crate::mcp::level::Level;

/// The revision that we speak with modern servers.
pub(crate) const MODERN: &str = "2026-07-28";
/// The revision that we ask legacy servers for when the client has no say in it.
pub(crate) const NEWEST_LEGACY: &str = "2025-11-25";
/// Revisions with a handshake, newest first.
pub(crate) const LEGACY: [&str; 4] = [NEWEST_LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"];

const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// Methods that exist in the legacy era only.
const LEGACY_ONLY: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
/// Methods that exist in the modern era only.
const MODERN_ONLY: [&str; 2] = ["server/discover", "subscriptions/listen"];

/// `params` for the wire, and what it takes to translate back.
#[derive(Debug)]
pub(crate) struct Adapted {
    /// For the wire.
    pub(crate) params: Option<Bytes>,
    /// The client's progress token, raw, where ours stands in its place.
    pub(crate) token: Option<Bytes>,
}

/// Refuses a method that the server's era does not have.
pub(crate) fn exists(method: &str, modern: bool) -> Result<(), Refusal> {
    let missing = if modern { &LEGACY_ONLY[..] } else { &MODERN_ONLY[..] };
    if missing.contains(&method) {
        let era = if modern { "modern" } else { "legacy" };
        return Err(Refusal::new(
            Reason::CannotBridge,
            format!("{method} does not exist on the {era} wire of the server"),
        ));
    }
    Ok(())
}

/// The capabilities of the client that this hop can honour, raw JSON.
///
/// What the server may ask (input, sampling, roots) crosses eras both ways. That the client would
/// tell when its roots change does not: the gateway keeps the session, and asks anew each time.
/// Tasks of 2025-11-25 belong to one session. What else a client can do is passed on as it is.
pub(crate) fn carried(front: &Front, modern: bool) -> Bytes {
    if front.modern == modern && modern {
        return front.capabilities.clone();
    }
    let mut edits = vec![Edit::Drop("tasks")];
    if raw::member(&front.capabilities, "roots").is_some() {
        edits.push(Edit::Set("roots", b"{}"));
    }
    match raw::edited(&front.capabilities, &edits) {
        Ok(kept) => kept.into(),
        Err(_) => Bytes::from_static(b"{}"),
    }
}

/// `params` for a modern server; `ours` is the progress token of this hop.
pub(crate) fn to_modern(outbound: &Outbound, ours: &str) -> Result<Adapted, Refusal> {
    let version = format!("\"{MODERN}\"");
    let capabilities = carried(&outbound.front, true);
    let mut edits = vec![
        Edit::Set(PROTOCOL_VERSION, version.as_bytes()),
        Edit::Set(CLIENT_CAPABILITIES, &capabilities),
    ];
    if let Some(info) = &outbound.front.client_info {
        edits.push(Edit::Set(CLIENT_INFO, info));
    }
    let level = outbound.front.log_level.unwrap_or(Level::UNSAID);
    let level = format!("\"{}\"", level.as_str());
    if !outbound.front.modern {
        edits.push(Edit::Set(LOG_LEVEL, level.as_bytes()));
    }
    adapted(outbound, Some(ours), edits)
}

/// `params` for a legacy server. Without a token of ours the client's own stays, which is right
/// where the client has the server's session for itself.
pub(crate) fn to_legacy(outbound: &Outbound, ours: Option<&str>) -> Result<Adapted, Refusal> {
    let edits = if outbound.front.modern {
        [PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL].map(Edit::Drop).into()
    } else {
        Vec::new()
    };
    adapted(outbound, ours, edits)
}

fn adapted(
    outbound: &Outbound,
    ours: Option<&str>,
    edits: Vec<Edit<'_>>,
) -> Result<Adapted, Refusal> {
    let mut edits: Vec<Edit<'_>> = edits;
    let trace = outbound.traceparent.as_ref().map(|t| serde_json::Value::from(&**t).to_string());
    let broken = |_| Refusal::new(Reason::InvalidParams, "params or _meta is no JSON object");
    let params = outbound.params.as_deref().unwrap_or(b"{}");
    let found = raw::Members::of(params).map_err(broken)?.get("_meta");
    let meta = found.map_or(&b"{}"[..], |meta| meta.get().as_bytes());
    let mut token = None;
    if let Some(ours) = ours {
        let theirs = raw::Members::of(meta).map_err(broken)?.get("progressToken");
        if let Some(theirs) = theirs {
            token = Some(Bytes::copy_from_slice(theirs.get().as_bytes()));
            edits.push(Edit::Set("progressToken", ours.as_bytes()));
        }
    }
    if let Some(trace) = &trace {
        edits.push(Edit::Set("traceparent", trace.as_bytes()));
    }
    if edits.is_empty() || (found.is_none() && edits.iter().all(|e| matches!(e, Edit::Drop(_)))) {
        return Ok(Adapted { params: outbound.params.clone(), token });
    }
    let meta = raw::edited(meta, &edits).map_err(broken)?;
    let params = if meta == b"{}" {
        raw::edited(params, &[Edit::Drop("_meta")]).map_err(broken)?
    } else {
        raw::edited(params, &[Edit::Set("_meta", &meta)]).map_err(broken)?
    };
    // A legacy request whose params held nothing but the envelope has none.
    let params = (params != b"{}" || outbound.params.as_deref() == Some(b"{}")).then_some(params);
    Ok(Adapted { params: params.map(Bytes::from), token })
}

/// The progress token that a client put into its `params`.
pub(crate) fn own_token(params: &[u8]) -> Option<Id> {
    raw::at(params, &["_meta", "progressToken"]).map(|token| Id::of(token.get().as_bytes()))
}

/// Puts the client's own progress token back into `notifications/progress`.
pub(crate) fn progress_for_client(whole: &Bytes, token: &[u8]) -> Bytes {
    inside(whole, &["params"], &Edit::Set("progressToken", token))
}

/// The progress token of `notifications/progress`, raw.
pub(crate) fn progress_token(whole: &[u8]) -> Option<&[u8]> {
    raw::at(whole, &["params", "progressToken"]).map(|token| token.get().as_bytes())
}

/// The subscription that a notification belongs to, raw.
pub(crate) fn subscription(whole: &[u8]) -> Option<&[u8]> {
    raw::at(whole, &["params", "_meta", SUBSCRIPTION_ID]).map(|id| id.get().as_bytes())
}

/// Writes the client's id over ours in a notification of a subscription.
pub(crate) fn subscription_for_client(whole: &Bytes, id: &[u8]) -> Bytes {
    if subscription(whole).is_none() {
        return whole.clone();
    }
    inside(whole, &["params", "_meta"], &Edit::Set(SUBSCRIPTION_ID, id))
}

/// The same in the final result of a subscription.
pub(crate) fn result_for_client(result: &Bytes, id: &[u8]) -> Bytes {
    if raw::at(result, &["_meta", SUBSCRIPTION_ID]).is_none() {
        return result.clone();
    }
    inside(result, &["_meta"], &Edit::Set(SUBSCRIPTION_ID, id))
}

/// Edits the object at a path; leaves the text as it is when there is none.
fn inside(whole: &Bytes, path: &[&str], edit: &Edit<'_>) -> Bytes {
    fn go(text: &[u8], path: &[&str], edit: &Edit<'_>) -> Option<Vec<u8>> {
        let edit_here = |edit| raw::edited(text, &[edit]).ok();
        let Some((first, rest)) = path.split_first() else {
            return match edit {
                Edit::Set(name, value) => edit_here(Edit::Set(name, value)),
                Edit::Drop(name) => edit_here(Edit::Drop(name)),
            };
        };
        let inner = go(raw::member(text, first)?.get().as_bytes(), rest, edit)?;
        edit_here(Edit::Set(first, &inner))
    }
    go(whole, path, edit).map_or_else(|| whole.clone(), Bytes::from)
}

/// What the gateway answers when a server asks something of a client that cannot be reached:
/// `result` or `error`, and its body.
pub(crate) fn stand_in(method: &str) -> (&'static str, &'static [u8]) {
    match method {
        "ping" => ("result", b"{}"),
        "roots/list" => ("result", b"{\"roots\":[]}"),
        _ => (
            "error",
            b"{\"code\":-32601,\"message\":\"The client does not support this request.\"}",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing;

    fn text(bytes: Option<Bytes>) -> String {
        bytes.map_or_else(String::new, |b| String::from_utf8(b.to_vec()).expect("text"))
    }

    #[test]
    fn a_legacy_request_gets_the_modern_envelope() {
        let mut outbound = testing::outbound("http://127.0.0.1:1/mcp", "tools/call");
        outbound.front = testing::legacy_front("a");
        outbound.front.capabilities = Bytes::from_static(b"{\"sampling\":{},\"x\":{\"y\":1.0}}");
        outbound.params = Some(Bytes::from_static(
            b"{\"name\":\"t\",\"arguments\":{\"n\":1.10},\"_meta\":{\"progressToken\":\"p\",\"v/k\":1}}",
        ));
        let adapted = to_modern(&outbound, "9").expect("adapts");
        assert_eq!(adapted.token.as_deref(), Some(&b"\"p\""[..]));
        let got = text(adapted.params);
        assert!(got.starts_with(r#"{"name":"t","arguments":{"n":1.10},"_meta":{"#), "{got}");
        for part in [
            r#""progressToken":9"#,
            r#""v/k":1"#,
            r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#,
            r#""io.modelcontextprotocol/clientCapabilities":{"sampling":{},"x":{"y":1.0}}"#,
            r#""io.modelcontextprotocol/clientInfo":{"#,
        ] {
            assert!(got.contains(part), "{part} in {got}");
        }
    }

    #[test]
    fn a_modern_request_loses_its_envelope_before_a_legacy_server() {
        let mut outbound = testing::outbound("http://127.0.0.1:1/mcp", "tools/list");
        let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/logLevel":"info""#;
        outbound.params = Some(format!(r#"{{"cursor":"","_meta":{meta},"v/k":[1]}}}}"#).into());
        let got = text(to_legacy(&outbound, Some("9")).expect("adapts").params);
        assert_eq!(got, r#"{"cursor":"","_meta":{"v/k":[1]}}"#);
        outbound.params = Some(format!(r#"{{"_meta":{meta}}}}}"#).into());
        assert!(to_legacy(&outbound, Some("9")).expect("adapts").params.is_none());
        outbound.params = Some(Bytes::from_static(b"[]"));
        assert!(to_legacy(&outbound, Some("9")).is_err());
    }

    #[test]
    fn what_comes_back_names_the_clients_own_ids() {
        let progress = Bytes::from_static(
            br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":9,"progress":0.50}}"#,
        );
        let got = progress_for_client(&progress, b"\"p\"");
        assert_eq!(
            got,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":0.50}}"#
        );
        let listened = Bytes::from_static(
            br#"{"params":{"_meta":{"io.modelcontextprotocol/subscriptionId":4}}}"#,
        );
        let got = subscription_for_client(&listened, b"\"c\"");
        assert_eq!(subscription(&got), Some(&b"\"c\""[..]));
        assert_eq!(subscription_for_client(&progress, b"1"), progress);
    }
}
