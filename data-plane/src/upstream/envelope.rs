//! JSON-RPC messages on the back edge: written by us, read from servers, bodies raw.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use weir_model::bounds;

use super::raw;

/// A JSON-RPC id in a form that compares as JSON values do (`1` is `1.0`, `"a"` is `"\u0061"`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    /// A whole number.
    Number(i128),
    /// A string.
    Text(String),
    /// Anything else, as written.
    Other(String),
}

impl Id {
    /// Reads a raw id.
    pub(crate) fn of(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw);
        let text = text.trim();
        if text.starts_with('"')
            && let Ok(value) = serde_json::from_str(text)
        {
            return Self::Text(value);
        }
        if let Ok(number) = text.parse::<i128>() {
            return Self::Number(number);
        }
        match text.parse::<f64>() {
            // Below 2^53 every whole float is exact.
            Ok(float) if float.fract() == 0.0 && float.abs() < 9.0e15 => {
                Self::Number(float as i128)
            }
            _ => Self::Other(text.to_owned()),
        }
    }
}

/// One message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// No answer is wanted.
    Notification {
        /// Method.
        method: String,
        /// The whole message.
        whole: Bytes,
    },
    /// The server asks the client.
    Request {
        /// As the server wrote it.
        id: Bytes,
        /// Method.
        method: String,
        /// The whole message.
        whole: Bytes,
    },
    /// A result: an object.
    Result {
        /// Of the request.
        id: Id,
        /// Raw.
        result: Bytes,
    },
    /// An error: an object with a code and a message.
    Error {
        /// Of the request; none when the server could not tell.
        id: Option<Id>,
        /// Its `code`.
        code: i64,
        /// Raw.
        error: Bytes,
    },
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// `null` is a value here, not an absence.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct ErrorBody {
    code: i64,
    #[serde(rename = "message")]
    _message: String,
}

/// Reads one message. The error is a sentence for our logs.
pub(crate) fn read(whole: &Bytes) -> Result<Incoming, String> {
    // A derived struct would also take an array by position.
    if whole.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err("a message is no JSON object".to_owned());
    }
    if raw::deeper_than(whole, bounds::UPSTREAM_DEPTH_MAX) {
        return Err("a message nests too deep".to_owned());
    }
    let wire: Wire<'_> =
        serde_json::from_slice(whole).map_err(|error| format!("a message is broken: {error}"))?;
    if wire.jsonrpc != "2.0" {
        return Err("a message is not JSON-RPC 2.0".to_owned());
    }
    let slice = |value: &RawValue| whole.slice_ref(value.get().as_bytes());
    let id = wire.id.filter(|id| id.get() != "null");
    match (wire.method, wire.result, wire.error) {
        (Some(method), None, None) => Ok(match id {
            Some(id) => Incoming::Request {
                id: slice(id),
                method: method.into_owned(),
                whole: whole.clone(),
            },
            None => Incoming::Notification { method: method.into_owned(), whole: whole.clone() },
        }),
        (None, Some(result), None) => {
            let id = id.ok_or("a result has no id")?;
            if !result.get().starts_with('{') {
                return Err("a result is no JSON object".to_owned());
            }
            Ok(Incoming::Result { id: Id::of(id.get().as_bytes()), result: slice(result) })
        }
        (None, None, Some(error)) => {
            let body: ErrorBody = serde_json::from_str(error.get())
                .map_err(|_| "an error has no code or no message".to_owned())?;
            let id = id.map(|id| Id::of(id.get().as_bytes()));
            Ok(Incoming::Error { id, code: body.code, error: slice(error) })
        }
        _ => Err("a message is neither request, notification nor response".to_owned()),
    }
}

/// Splits a body into messages: one object, or the array that 2025-03-26 allows.
pub(crate) fn split(whole: &Bytes) -> Result<Vec<Bytes>, String> {
    if whole.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'[') {
        return Ok(vec![whole.clone()]);
    }
    let parts: Vec<&RawValue> =
        serde_json::from_slice(whole).map_err(|error| format!("a batch is broken: {error}"))?;
    if parts.len() > bounds::BATCH_MAX {
        return Err("a batch is too long".to_owned());
    }
    Ok(parts.iter().map(|part| whole.slice_ref(part.get().as_bytes())).collect())
}

/// Writes a request.
pub(crate) fn request(id: &[u8], method: &str, params: Option<&[u8]>) -> Bytes {
    message(Some(id), method, params)
}

/// Writes a notification.
pub(crate) fn notification(method: &str, params: Option<&[u8]>) -> Bytes {
    message(None, method, params)
}

fn message(id: Option<&[u8]>, method: &str, params: Option<&[u8]>) -> Bytes {
    let mut out = Vec::with_capacity(method.len() + params.map_or(0, <[u8]>::len) + 64);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\"");
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id);
    }
    out.extend_from_slice(b",\"method\":");
    serde_json::to_writer(&mut out, method).expect("a text has a JSON form");
    if let Some(params) = params {
        out.extend_from_slice(b",\"params\":");
        out.extend_from_slice(params);
    }
    out.push(b'}');
    out.into()
}

/// Writes a response; `member` is `result` or `error`.
pub(crate) fn response(id: &[u8], member: &str, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(body.len() + 64);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(member.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(body);
    out.push(b'}');
    out.into()
}

/// Puts a message on one line: what JSON allows between tokens but a line framing does not.
pub(crate) fn one_line(message: &Bytes) -> Bytes {
    if !message.iter().any(|b| matches!(b, b'\n' | b'\r')) {
        return message.clone();
    }
    // Inside of texts line ends are escaped, so these stand between tokens.
    message.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &'static str) -> Result<Incoming, String> {
        read(&Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn messages_are_told_apart() {
        let result = read_text(r#" {"jsonrpc":"2.0","id":1.0,"result":{"big":1e400}}"#);
        let want =
            Incoming::Result { id: Id::Number(1), result: Bytes::from_static(br#"{"big":1e400}"#) };
        assert_eq!(result, Ok(want));
        let error = read_text(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}"#);
        assert!(matches!(error, Ok(Incoming::Error { id: None, code: -1, .. })), "{error:?}");
        let request = read_text(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#);
        assert!(matches!(request, Ok(Incoming::Request { .. })), "{request:?}");
        let note = read_text(r#"{"jsonrpc":"2.0","method":"n","params":{}}"#);
        assert!(matches!(note, Ok(Incoming::Notification { .. })), "{note:?}");
    }

    #[test]
    fn broken_messages_are_refused() {
        for text in [
            "",
            "null",
            r#"["2.0",1,"ping"]"#,
            r#"{"id":1,"result":{}}"#,
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":[]}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":"x","message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}"#,
        ] {
            assert!(read_text(text).is_err(), "{text}");
        }
        let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a":{}}}}}"#, "[".repeat(500));
        assert!(read(&Bytes::from(deep)).is_err());
    }

    #[test]
    fn ids_compare_as_values() {
        assert_eq!(Id::of(b"7"), Id::of(b"7.0"));
        assert_eq!(Id::of(br#""a""#), Id::of(br#""\u0061""#));
        assert_ne!(Id::of(b"7"), Id::of(br#""7""#));
    }

    #[test]
    fn batches_are_split() {
        let body = Bytes::from_static(br#" [{"a":1}, {"b":[2]}]"#);
        let parts = split(&body).expect("a batch");
        assert_eq!(parts, [&br#"{"a":1}"#[..], &br#"{"b":[2]}"#[..]]);
        assert!(split(&Bytes::from_static(b"[{]")).is_err());
    }

    #[test]
    fn a_line_holds_one_message() {
        let message = Bytes::from_static(b"{\"a\":\r\n1}");
        assert_eq!(one_line(&message), "{\"a\":  1}");
        assert_eq!(request(b"1", "ping", None), r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    }
}
