//! Headers that mirror the body (2026-07-28): `Mcp-Method`, `Mcp-Name`, `Mcp-Param-*`.

use http::{HeaderMap, HeaderName, HeaderValue};
use weir_model::snapshot::{ParamHeader, ParamType};

use super::{Outbound, raw};
use crate::mcp;

/// `Mcp-Session-Id`.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// `MCP-Protocol-Version`.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Method`.
pub(crate) const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`.
pub(crate) const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Last-Event-ID`.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// `traceparent`.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A value as a header carries it: plain where that is unambiguous, else in the base64 sentinel.
fn encoded(value: &str) -> HeaderValue {
    HeaderValue::from_str(&mcp::headers::encode(value)).expect("visible ASCII")
}

/// Adds the mirrored headers of a request to a modern server; `declared` are the arguments that the
/// tool wants mirrored.
pub(crate) fn mirror(outbound: &Outbound, declared: &[ParamHeader], headers: &mut HeaderMap) {
    headers.insert(METHOD, encoded(&outbound.method));
    if let Some(name) = &outbound.name {
        headers.insert(NAME, encoded(name));
    }
    for (name, value) in &outbound.param_headers {
        headers.insert(name.clone(), value.clone());
    }
    let params = outbound.params.as_deref().unwrap_or_default();
    let arguments = raw::member(params, "arguments").map(|raw| raw.get().as_bytes());
    for header in declared {
        let Ok(name) = HeaderName::from_bytes(header.header.as_bytes()) else { continue };
        // What the client sent for a declared parameter is replaced by what the body says.
        match arguments.and_then(|arguments| mirrored(header, arguments)) {
            Some(value) => headers.insert(name, value),
            None => headers.remove(name),
        };
    }
}

/// Adds the trace context of a request.
pub(crate) fn trace(outbound: &Outbound, headers: &mut HeaderMap) {
    let value = outbound.traceparent.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    if let Some(value) = value {
        headers.insert(TRACEPARENT, value);
    }
}

fn mirrored(header: &ParamHeader, arguments: &[u8]) -> Option<HeaderValue> {
    let path: Vec<&str> = header.path.iter().map(String::as_str).collect();
    let value = raw::at(arguments, &path)?.get();
    match header.kind {
        ParamType::String => Some(encoded(&serde_json::from_str::<String>(value).ok()?)),
        ParamType::Boolean => {
            matches!(value, "true" | "false").then(|| HeaderValue::from_str(value).ok()).flatten()
        }
        ParamType::Integer => HeaderValue::from_str(&whole_number(value)?).ok(),
    }
}

/// `42`, `42.0` and `4.2e1` are all the integer 42.
fn whole_number(text: &str) -> Option<String> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.to_string());
    }
    let float: f64 = text.parse().ok()?;
    (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_991.0)
        .then(|| (float as i64).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_have_one_spelling() {
        for (text, want) in [
            ("42", Some("42")),
            ("42.0", Some("42")),
            ("-7", Some("-7")),
            ("4.2e1", Some("42")),
            ("1.5", None),
            ("\"1\"", None),
            ("null", None),
        ] {
            assert_eq!(whole_number(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn arguments_are_read_at_exactly_their_path() {
        let header = |path: &[&str], kind| ParamHeader {
            path: path.iter().map(ToString::to_string).collect(),
            header: "mcp-param-x".to_owned(),
            kind,
        };
        let arguments = br#"{"a":{"b":"eu"},"n":3,"t":true,"z":null}"#;
        let got = |path: &[&str], kind| mirrored(&header(path, kind), arguments);
        assert_eq!(got(&["a", "b"], ParamType::String).expect("there"), "eu");
        assert_eq!(got(&["n"], ParamType::Integer).expect("there"), "3");
        assert_eq!(got(&["t"], ParamType::Boolean).expect("there"), "true");
        assert_eq!(got(&["z"], ParamType::String), None);
        assert_eq!(got(&["b"], ParamType::String), None);
        assert_eq!(got(&["n"], ParamType::String), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(value in any::<String>()) {
            let header = encoded(&value);
            let text = header.to_str().map_err(|_| TestCaseError::fail("not visible"))?;
            prop_assert_eq!(mcp::headers::decode(text).map(String::from), Ok(value));
        }
    }
}
