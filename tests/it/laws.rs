//! The laws of `fuzz/`, fed with what proptest makes up. `cargo fuzz run TARGET` (nightly) looks
//! further.

use proptest::collection::vec;
use proptest::prelude::*;

#[allow(unreachable_pub, reason = "it is a crate of its own, too")]
#[path = "../../fuzz/src/lib.rs"]
mod law;

/// Bytes, text, and text that looks like JSON or an event stream.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("\""),
        Just(":"),
        Just(","),
        Just("\\"),
        Just("\n"),
        Just("\r"),
        Just(" "),
        Just("null"),
        Just("1.0"),
        Just("-0"),
        Just("1e400"),
        Just("\\ud800"),
        Just("\\u0061"),
        Just("\u{feff}"),
        Just("ü"),
        Just("_"),
        Just("__"),
        Just("-xaaaaaaaaaaaa"),
        Just("=?base64?"),
        Just("?="),
        Just("\"jsonrpc\":\"2.0\""),
        Just("\"id\":"),
        Just("\"method\":\"tools/call\""),
        Just("\"params\":"),
        Just("\"name\":"),
        Just("data: "),
        Just("id: 1\n"),
        Just("retry: 5\n"),
        Just("event: x\n"),
        Just(": c\n"),
    ];
    prop_oneof![
        vec(any::<u8>(), 0..200),
        any::<String>().prop_map(String::into_bytes),
        vec(pieces, 0..40).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

/// Messages that are nearly right.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![
        Just("1".to_owned()),
        Just("\"a\"".to_owned()),
        Just("1.0".to_owned()),
        Just("null".to_owned()),
        Just("[]".to_owned()),
        "-?[0-9]{1,25}",
    ];
    let params = prop_oneof![
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        "[a-z\\\\\"]{0,6}".prop_map(|name| format!("{{\"name\":{}}}", serde_json::json!(name))),
        "[a-z\"}]{0,6}".prop_map(|name| format!("{{\"name\":\"{name}\",\"name\":1}}")),
    ];
    (id, params, "[ \n]{0,2}").prop_map(|(id, params, blank)| {
        let text = format!(
            "{blank}{{\"jsonrpc\":\"2.0\",{blank}\"id\":{id},\"method\":\"tools/call\",\"params\":{params}}}"
        );
        text.into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn of_envelopes(data in prop_oneof![anything(), message()]) {
        law::envelope(&data);
    }

    #[test]
    fn of_event_streams(data in prop_oneof![anything(), message()]) {
        law::event_stream(&data);
    }

    #[test]
    fn of_text_in_headers(data in anything()) {
        law::header_text(&data);
    }

    #[test]
    fn of_names(data in anything(), legal in "[A-Za-z0-9_.-]{1,128}\n[A-Za-z0-9_.-]{1,128}") {
        law::names(&data);
        law::names(legal.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn of_sealed_tokens(data in anything()) {
        law::sealed(&data);
    }
}
