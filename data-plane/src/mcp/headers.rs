//! HTTP headers that carry protocol: media types, the version, and what mirrors the body.
//!
//! The body is the truth. A header that mirrors it must be there once, be readable, and agree.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::{ParamHeader, ParamType};

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

/// The value of a header that may occur once.
///
/// # Errors
/// [`Reason::HeaderMismatch`] when it occurs more often or is no visible ASCII.
pub fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(mismatch(&format!("{name} occurs more than once")));
    }
    match first.to_str() {
        Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
        Err(_) => Err(mismatch(&format!("{name} is not plain text"))),
    }
}

/// Undoes the `=?base64?…?=` form; a value without both markers is literal.
///
/// # Errors
/// A sentence, when what lies between the markers is no base64 of UTF-8.
pub fn decode(value: &str) -> Result<Cow<'_, str>, &'static str> {
    let Some(inner) = value.strip_prefix(OPEN).and_then(|v| v.strip_suffix(CLOSE)) else {
        return Ok(Cow::Borrowed(value));
    };
    let bytes = STANDARD.decode(inner).map_err(|_| "is no valid base64")?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| "is no UTF-8 in base64")
}

/// The form in which a text travels in a header.
pub fn encode(text: &str) -> Cow<'_, str> {
    let plain = |b: u8| matches!(b, b' ' | b'\t' | 0x21..=0x7e);
    let padded = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
    let looks_encoded = text.starts_with(OPEN) && text.ends_with(CLOSE);
    if text.bytes().all(plain) && !padded && !looks_encoded {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{OPEN}{}{CLOSE}", STANDARD.encode(text)))
    }
}

/// Checks `Mcp-Method`, and `Mcp-Name` where the method has one.
///
/// # Errors
/// [`Reason::HeaderMismatch`] when one is missing, unreadable or differs from the body.
pub fn check_mirrors(headers: &HeaderMap, method: &str, name: Option<&str>) -> Result<(), Refusal> {
    match single(headers, "mcp-method")? {
        None => return Err(mismatch("Mcp-Method is missing")),
        Some(value) if value != method => {
            return Err(mismatch("Mcp-Method differs from the body"));
        }
        Some(_) => {}
    }
    let Some(name) = name else { return Ok(()) };
    let value = single(headers, "mcp-name")?.ok_or_else(|| mismatch("Mcp-Name is missing"))?;
    let value = decode(value).map_err(|why| mismatch(&format!("Mcp-Name {why}")))?;
    if value == name { Ok(()) } else { Err(mismatch("Mcp-Name differs from the body")) }
}

/// The same for clients that need not send them: what is there must agree.
///
/// # Errors
/// [`Reason::HeaderMismatch`] when one is unreadable or differs from the body.
pub fn check_sent_mirrors(
    headers: &HeaderMap,
    methods: [&str; 2],
    name: Option<&str>,
) -> Result<(), Refusal> {
    if single(headers, "mcp-method")?.is_some_and(|value| !methods.contains(&value)) {
        return Err(mismatch("Mcp-Method differs from the body"));
    }
    let (Some(value), Some(name)) = (single(headers, "mcp-name")?, name) else { return Ok(()) };
    let value = decode(value).map_err(|why| mismatch(&format!("Mcp-Name {why}")))?;
    if value == name { Ok(()) } else { Err(mismatch("Mcp-Name differs from the body")) }
}

/// Checks the headers that mirror arguments of a tool.
///
/// # Errors
/// [`Reason::HeaderMismatch`] when the arguments have a value and the header is missing, or they
/// differ, or the header comes without a value in the arguments.
pub fn check_params(
    headers: &HeaderMap,
    declared: &[ParamHeader],
    arguments: &Value,
) -> Result<(), Refusal> {
    for param in declared {
        let header = single(headers, &param.header)?;
        let value = param.path.iter().try_fold(arguments, |value, name| value.get(name));
        let value = value.filter(|v| !v.is_null());
        let fits = match (value, header) {
            (None, None) => true,
            (Some(value), Some(header)) => {
                let text =
                    decode(header).map_err(|why| mismatch(&format!("{} {why}", param.header)))?;
                mirrors(param.kind, value, &text)
            }
            (Some(_), None) => return Err(mismatch(&format!("{} is missing", param.header))),
            (None, Some(_)) => false,
        };
        if !fits {
            return Err(mismatch(&format!("{} differs from the body", param.header)));
        }
    }
    Ok(())
}

fn mirrors(kind: ParamType, value: &Value, header: &str) -> bool {
    match (kind, value) {
        (ParamType::String, Value::String(text)) => text == header,
        (ParamType::Boolean, Value::Bool(true)) => header == "true",
        (ParamType::Boolean, Value::Bool(false)) => header == "false",
        (ParamType::Integer, Value::Number(number)) => {
            // Integers may be written 42 or 42.0 on either side.
            match (number.as_f64(), header.parse::<f64>()) {
                (Some(a), Ok(b)) => (a - b).abs() < f64::EPSILON,
                _ => false,
            }
        }
        // Not of the declared type: the schema check says so in words that a model understands.
        _ => true,
    }
}

/// The client's own `Mcp-Param-*` headers, to be forwarded untouched.
pub fn params(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let ours = |name: &HeaderName| name.as_str().starts_with("mcp-param-");
    headers.iter().filter(|(name, _)| ours(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn mismatch(detail: &str) -> Refusal {
    Refusal::new(Reason::HeaderMismatch, detail).hint(format!("Header mismatch: {detail}."))
}

/// Media types that a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// `application/json`.
    pub json: bool,
    /// `text/event-stream`.
    pub sse: bool,
}

/// Reads `Accept`. None at all means anything (RFC 9110); `q=0` means not.
pub fn accept(headers: &HeaderMap) -> Accept {
    let mut accept = Accept { json: false, sse: false };
    let mut present = false;
    for value in headers.get_all(header::ACCEPT) {
        present = true;
        for range in value.to_str().unwrap_or_default().split(',') {
            let (kind, quality) = media_range(range);
            if quality {
                let is = |other: &str| kind.eq_ignore_ascii_case(other);
                accept.json |= is("*/*") || is("application/json") || is("application/*");
                accept.sse |= is("*/*") || is("text/event-stream") || is("text/*");
            }
        }
    }
    if present { accept } else { Accept { json: true, sse: true } }
}

/// The media type, and whether its quality is above zero.
fn media_range(range: &str) -> (&str, bool) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let refused = parts.any(|p| {
        let (name, value) = p.split_once('=').unwrap_or((p, ""));
        name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>() == Ok(0.0)
    });
    (kind, !refused)
}

/// True when `Content-Type` is `application/json`, in any spelling, in UTF-8.
pub fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    json && parts.all(|p| match p.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[test]
    fn media_types_are_read_as_media_types() {
        let table = [
            ("application/json, text/event-stream", (true, true)),
            ("text/event-stream;q=0.5 , Application/JSON", (true, true)),
            ("*/*", (true, true)),
            ("application/json", (true, false)),
            ("application/json, text/event-stream; q=0", (true, false)),
            ("text/html", (false, false)),
            ("text/*, application/*", (true, true)),
        ];
        for (text, (json, sse)) in table {
            assert_eq!(accept(&headers(&[("accept", text)])), Accept { json, sse }, "{text}");
        }
        let split = headers(&[("accept", "application/json"), ("accept", "text/event-stream")]);
        assert_eq!(accept(&split), Accept { json: true, sse: true });
        assert_eq!(accept(&HeaderMap::new()), Accept { json: true, sse: true });
        for (text, good) in [
            ("application/json", true),
            ("APPLICATION/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("application/json-rpc", false),
        ] {
            assert_eq!(is_json(&headers(&[("content-type", text)])), good, "{text}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn mirrors_must_be_there_once_and_agree() {
        let encoded = encode("grüße").into_owned();
        type Row<'a> = (&'a [(&'static str, &'a str)], Option<&'a str>, bool);
        let table: &[Row<'_>] = &[
            (&[("mcp-method", "tools/call"), ("mcp-name", "echo")], Some("echo"), true),
            (&[("mcp-method", " tools/call\t"), ("mcp-name", "echo")], Some("echo"), true),
            (&[("mcp-method", "tools/call"), ("mcp-name", &encoded)], Some("grüße"), true),
            (&[("mcp-method", "tools/call")], None, true),
            (&[("mcp-method", "tools/call")], Some("echo"), false),
            (&[("mcp-name", "echo")], Some("echo"), false),
            (&[("mcp-method", "tools/CALL"), ("mcp-name", "echo")], Some("echo"), false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "Echo")], Some("echo"), false),
            (
                &[("mcp-method", "tools/call"), ("mcp-method", "tools/call"), ("mcp-name", "echo")],
                Some("echo"),
                false,
            ),
            (&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?!!?=")], Some("echo"), false),
        ];
        for (pairs, name, good) in table {
            let result = check_mirrors(&headers(pairs), "tools/call", *name);
            assert_eq!(result.is_ok(), *good, "{pairs:?}");
        }
    }

    #[test]
    fn mirrored_arguments_agree_by_type() {
        let declared =
            [("region", ParamType::String), ("n", ParamType::Integer), ("dry", ParamType::Boolean)]
                .map(|(name, kind)| ParamHeader {
                    path: vec![name.to_owned()],
                    header: format!("mcp-param-{name}"),
                    kind,
                });
        let arguments = json!({"region": "eu", "n": 42, "dry": null});
        let check = |pairs: &[(&'static str, &str)]| {
            check_params(&headers(pairs), &declared, &arguments).is_ok()
        };
        assert!(check(&[("mcp-param-region", "eu"), ("mcp-param-n", "42.0")]));
        assert!(!check(&[("mcp-param-region", "eu")]));
        assert!(!check(&[("mcp-param-region", "us"), ("mcp-param-n", "42")]));
        let extra = &[("mcp-param-region", "eu"), ("mcp-param-n", "42"), ("mcp-param-dry", "true")];
        assert!(!check(extra));
    }

    proptest::proptest! {
        #[test]
        fn the_codec_round_trips(text: String) {
            let encoded = encode(&text);
            proptest::prop_assert_eq!(decode(&encoded).unwrap(), text.as_str());
            proptest::prop_assert!(HeaderValue::from_str(&encoded).is_ok());
        }
    }
}
