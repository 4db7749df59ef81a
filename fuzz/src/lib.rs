//! Laws that hold for any bytes. The fuzz targets feed them what libFuzzer finds interesting; the
//! tests of the workspace (`tests/it/laws.rs`) feed them what proptest makes up.
//!
//! A law takes bytes and panics when it is broken.

use std::sync::Arc;

use bytes::Bytes;
use data_plane::mcp::envelope::{self, Message};
use data_plane::mcp::{headers, sse};
use data_plane::upstream::sse::{Event, Parser};
use weir_model::id::Name;
use weir_model::naming;
use weir_model::seal::{SEALING_KEY_BYTES, Sealer};
use weir_model::secret::Secret;

/// Longest event of the parser under test.
const EVENT_BYTES_MAX: usize = 4096;

/// Whatever is read as a message is JSON of that kind to a parser that knows nothing of ours, and
/// its parts are the bytes that came in.
pub fn envelope(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    match envelope::read(&body) {
        Err(unreadable) => {
            let id = unreadable.id.as_deref().unwrap_or(b"null");
            assert!(
                serde_json::from_slice::<serde_json::Value>(id).is_ok(),
                "an id that is no JSON"
            );
        }
        Ok(message) => {
            let value: serde_json::Value = serde_json::from_slice(data).expect("JSON");
            assert_eq!(value["jsonrpc"], "2.0");
            assert_eq!(message.method(), value["method"].as_str());
            if let Some(id) = message.id() {
                let raw: serde_json::Value = serde_json::from_slice(id.raw()).expect("JSON");
                assert_eq!(raw, value["id"]);
                assert!(raw.is_string() || raw.is_number());
            }
            if let (Message::Request { params, .. }, Some(name)) =
                (&message, value["params"].get("name"))
            {
                assert_eq!(params.name.as_deref(), name.as_str());
            }
        }
    }
}

fn events(chunks: &[&[u8]]) -> Option<Vec<Event>> {
    let mut parser = Parser::new(EVENT_BYTES_MAX);
    let mut events = Vec::new();
    for chunk in chunks {
        parser.push(chunk, &mut |event| events.push(event)).ok()?;
    }
    Some(events)
}

/// The first byte says where a stream is cut: that changes nothing. What our framer writes, the
/// parser reads back, blanks between JSON members apart.
pub fn event_stream(data: &[u8]) {
    let (cut, stream) =
        data.split_first().map_or((0, data), |(cut, rest)| (usize::from(*cut), rest));
    let whole = events(&[stream]);
    let (left, right) = stream.split_at(cut.min(stream.len()));
    // Whether a stream is too long may show a chunk later, never differently.
    if let (Some(whole), Some(parts)) = (&whole, events(&[left, right])) {
        assert_eq!(*whole, parts);
    }
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(stream) else { return };
    if stream.len() > EVENT_BYTES_MAX / 2 {
        return;
    }
    let framed = sse::message(&[stream]);
    let read = events(&[&framed]).expect("what we frame is no longer than what we read");
    assert_eq!(read.len(), 1, "one message is one event");
    let data = read[0].data.as_deref().unwrap_or_default();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(data).expect("JSON"), value);
}

/// Any text travels in a header and comes back; what arrives never breaks the reader.
pub fn header_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let encoded = headers::encode(text);
    assert!(http::HeaderValue::from_str(&encoded).is_ok(), "no header value: {encoded}");
    // Readers strip blanks around a value: what was encoded has none there.
    assert_eq!(encoded.trim_matches([' ', '\t']), encoded);
    assert_eq!(headers::decode(&encoded).expect("our own form"), text);
    if let Ok(decoded) = headers::decode(text) {
        let again = headers::encode(&decoded);
        assert_eq!(headers::decode(&again).expect("our own form"), decoded);
    }
}

fn sealer(byte: u8) -> Sealer {
    let key = Arc::new(Secret::new(vec![byte; SEALING_KEY_BYTES]));
    Sealer::new(&[("k1".to_owned(), key)]).expect("a key of the right length")
}

/// What is sealed opens to itself for the same purpose and binding, and for no other; no text that
/// somebody else made opens.
pub fn sealed(data: &[u8]) {
    let ours = sealer(1);
    let text = String::from_utf8_lossy(data);
    assert!(ours.open("session", b"alice", &text).is_err(), "a forged token: {text}");
    assert!(ours.open("session", b"alice", &format!("k1.{text}")).is_err(), "a forged token");
    let Ok(token) = ours.seal("session", data, data) else { return };
    assert_eq!(ours.open("session", data, &token).expect("our own"), data);
    assert!(ours.open("cursor", data, &token).is_err());
    assert!(ours.open("session", &[data, b"x"].concat(), &token).is_err());
    assert!(sealer(2).open("session", data, &token).is_err());
    // One character altered, wherever the bytes say.
    let at = data.first().map_or(0, |b| usize::from(*b)) % token.len();
    let mut altered = token.clone().into_bytes();
    altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).expect("ASCII");
    assert!(ours.open("session", data, &altered).is_err(), "altered at {at}");
}

/// Two names on two lines: each is exposed as a legal name of its server, found again by it, and
/// the two are alike only when they were.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let server: Name = "billing".parse().expect("a name");
    let (one, other) = text.split_once('\n').unwrap_or((text, ""));
    for name in [one, other] {
        let exposed = naming::exposed(&server, name);
        assert!(exposed.len() <= weir_model::bounds::EXPOSED_NAME_CHARS_MAX, "{exposed}");
        assert!(exposed.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
        assert_eq!(naming::split(&exposed).expect("an exposed name").0, "billing");
        let definition = serde_json::json!({ "name": name, "x": [name] }).to_string();
        let renamed = naming::rename(&definition, &exposed).expect("an object with a name");
        // Back again: not a byte was lost.
        assert_eq!(naming::rename(&renamed, name).expect("the same"), definition);
    }
    let alike = naming::exposed(&server, one) == naming::exposed(&server, other);
    assert_eq!(alike, one == other, "{one:?} and {other:?}");
}
