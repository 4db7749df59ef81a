//! The laws of `fuzz/`, fed with what proptest makes up, and with mutations of what is nearly right:
//! `make fuzz` does the latter for as long as one likes (`WEIR_FUZZ_SECS`, per law). `cargo fuzz run
//! TARGET` (nightly) looks further, since it sees which branches an input takes.

use std::time::{Duration, Instant};

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

/// What mutations begin with, and what they put in.
const SEEDS: [&str; 12] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"b":[1.0,null]}}}"#,
    r#"{"jsonrpc":"2.0","id":"x","result":{"content":[{"type":"text","text":"\u00fc\ud83d\ude00"}]}}"#,
    r#"{"jsonrpc":"2.0","id":1.0,"error":{"code":-32602,"message":"no","data":{"uri":"test://a"}}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9007199254740993}}"#,
    "id: 7\nevent: message\nretry: 250\ndata: {\"a\":1}\ndata: 2\n\n: comment\r\n\r\ndata\n\n",
    "event: endpoint\r\ndata: /message?session=1\r\n\r\n\u{feff}data: x\r\r",
    "=?base64?w7w=?=",
    " padded\tvalue ",
    "Hello, \u{4e16}\u{754c}",
    "get_order\nget-order",
    "a__b\na__b__c",
    "k1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

/// Mutations of one law where no time is given.
const MUTATIONS: u64 = 3_000;

/// Numbers that look random and are the same every time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides.max(1)).unwrap()).unwrap()
    }

    /// Some bytes cut out, doubled, moved, altered, or replaced by parts of another seed.
    fn mutate(&mut self, data: &mut Vec<u8>) {
        let seed = SEEDS[self.roll(SEEDS.len())].as_bytes();
        let at = self.roll(data.len() + 1);
        let end = (at + self.roll(24)).min(data.len());
        match self.roll(7) {
            0 => drop(data.drain(at..end)),
            1 => {
                let piece = data[at..end].to_vec();
                let to = self.roll(data.len() + 1);
                data.splice(to..to, piece);
            }
            2 => {
                let from = self.roll(seed.len());
                let piece = &seed[from..(from + self.roll(32)).min(seed.len())];
                data.splice(at..end, piece.iter().copied());
            }
            3 => data.insert(at, u8::try_from(self.roll(256)).unwrap()),
            4 => data.truncate(at),
            5 if at < data.len() => data[at] ^= 1 << self.roll(8),
            _ => data.splice(at..at, *b"\\u0000\"").for_each(drop),
        }
        data.truncate(8 * 1024);
    }
}

#[test]
fn of_mutations_for_as_long_as_asked() {
    let secs = std::env::var("WEIR_FUZZ_SECS").ok().map(|text| text.parse().expect("seconds"));
    type Law = (&'static str, fn(&[u8]));
    let laws: [Law; 5] = [
        ("envelope", law::envelope),
        ("event_stream", law::event_stream),
        ("header_text", law::header_text),
        ("names", law::names),
        ("sealed", law::sealed),
    ];
    for (number, (name, law)) in laws.into_iter().enumerate() {
        // A given time wants other mutations each time; the first input that breaks a law is shown.
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let start = secs.map_or(1, |_: u64| u64::try_from(now).unwrap_or(1));
        let mut dice = Dice(start.wrapping_add(u64::try_from(number).unwrap()) | 1);
        let end = secs.map(|secs| Instant::now() + Duration::from_secs(secs));
        let mut tried = 0_u64;
        while end.map_or(tried < MUTATIONS, |end| Instant::now() < end) {
            let mut data = SEEDS[dice.roll(SEEDS.len())].as_bytes().to_vec();
            for _ in 0..=dice.roll(12) {
                dice.mutate(&mut data);
            }
            if std::panic::catch_unwind(|| law(&data)).is_err() {
                panic!("{name} is broken by {:?}", data.escape_ascii().to_string());
            }
            tried += 1;
        }
        println!("{name}: {tried} mutations");
    }
}
