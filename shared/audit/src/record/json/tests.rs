use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use weir_model::audit::{Facts, Judged, Outcome};
use weir_model::id::{Digest, Name, Revision};
use weir_model::principal::Proof;
use weir_model::reason::Reason;

use super::append;
use crate::record::shape::Shape;
use crate::record::{Draft, Run};

fn ours(value: &(impl Serialize + ?Sized)) -> String {
    // What is there already stays.
    let mut out = b"before".to_vec();
    append(&mut out, value).unwrap();
    String::from_utf8(out).unwrap().split_off("before".len())
}

#[track_caller]
fn same(value: &(impl Serialize + ?Sized)) {
    assert_eq!(ours(value), serde_json::to_string(value).unwrap());
}

/// At every place of texts that are shorter than a word, a few words, and in between.
#[test]
fn every_byte_is_escaped_wherever_it_stands() {
    let odd =
        (0..=0x7f).map(char::from).chain(['\u{80}', 'é', 'Ǡ', '\u{2028}', '😀', '\u{10ffff}']);
    for odd in odd {
        for len in 0..27 {
            for at in 0..=len {
                let text: String = ["a".repeat(at), odd.into(), "~".repeat(len - at)].concat();
                same(&text);
            }
        }
        same(&odd);
    }
    // Two of them in one word: what one does to the sum must not hide the other.
    for pair in (0..0x80_u8).flat_map(|a| (0..0x80_u8).map(move |b| [a, b])) {
        let pair = std::str::from_utf8(&pair).unwrap();
        same(&format!("{pair}      "));
        same(&format!("      {pair}"));
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    Unit,
    Newtype(Option<i64>),
    Tuple(u8, &'static str),
    Struct { inner_form: f64, list: Vec<()> },
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Long {
    a_name_of_a_field_that_goes_on_for_more_than_48_bytes: u8,
    a_name_of_exactly_44_bytes_that_just_fits_in: u8,
    a_name_of_exactly_45_bytes_which_has_no_roomx: u8,
}

#[derive(Serialize)]
struct Nothing;

#[derive(Serialize)]
struct Two(bool, char);

#[derive(Serialize)]
struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
    second: Option<u8>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[test]
fn every_form_of_serde_is_written_as_serde_json_does() {
    same(&[Form::Unit, Form::Newtype(None), Form::Newtype(Some(-1)), Form::Tuple(1, "\"")]);
    same(&Form::Struct { inner_form: -0.0, list: vec![(), ()] });
    same(&Long {
        a_name_of_a_field_that_goes_on_for_more_than_48_bytes: 1,
        a_name_of_exactly_44_bytes_that_just_fits_in: 2,
        a_name_of_exactly_45_bytes_which_has_no_roomx: 3,
    });
    same(&(Empty {}, Nothing, Two(true, '\n'), Two(false, '😀')));
    same(&(i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN, i128::MAX));
    same(&(u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX, usize::MAX));
    same(&[0.0, 1.0, 1e300, 5e-324, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    same(&[0.1_f32, f32::MAX, f32::NAN]);
    same(&format_args!("{}/{}\n{:?}", "no\"de", 17, "\u{1}"));
    let rest = BTreeMap::from([("a\t".to_owned(), json!([{}, [], {"b": []}]))]);
    same(&Skipping { first: None, second: None, rest: rest.clone() });
    same(&Skipping { first: Some(1), second: Some(2), rest: BTreeMap::new() });
    same(&BTreeMap::from([(-1, &rest), (1, &rest)]));
    same(&BTreeMap::from([(false, 1), (true, 2)]));
    same(&BTreeMap::from([(Some('x'), 1)]));
    let addresses: [std::net::IpAddr; 2] =
        ["192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    same(&addresses);
}

#[test]
fn keys_that_json_cannot_have_are_refused() {
    let refused = |value: &dyn Fn(&mut Vec<u8>) -> bool| assert!(value(&mut Vec::new()));
    refused(&|out| append(out, &BTreeMap::from([((), 1)])).is_err());
    refused(&|out| append(out, &BTreeMap::from([(None::<u8>, 1)])).is_err());
    refused(&|out| append(out, &BTreeMap::from([([1], 1)])).is_err());
    refused(&|out| append(out, &BTreeMap::from([(BTreeMap::from([(1, 1)]), 1)])).is_err());
}

/// A `RawValue` would come out as an object of one member.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "may need escapes")]
fn names_that_no_field_has_are_noticed() {
    let raw = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
    ours(&raw);
}

/// Texts with many escapes, some of no ASCII, and any.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,40}", "[a-c\"\\\\\u{0}-\u{20}\u{7f}é😀]{0,40}", any::<String>()]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::from),
            vec((text(), inner), 0..8).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Success),
        Just(Outcome::ToolError),
        any::<i64>().prop_map(Outcome::ProtocolError),
        Just(Outcome::Refused(Reason::Denied)),
        Just(Outcome::Refused(Reason::Internal)),
        Just(Outcome::Aborted),
        Just(Outcome::Unknown),
    ]
}

fn judged() -> impl Strategy<Value = Judged> {
    (vec(text(), 0..4), vec(text(), 0..4), option::of(text()), any::<i64>()).prop_map(
        |(memberships, scopes, client, at)| Judged {
            rules: Digest::of(b"rules"),
            principal: Digest::of(&at.to_be_bytes()),
            at,
            memberships: memberships.iter().map(|text| text.as_str().into()).collect(),
            scopes: scopes.iter().map(|text| text.as_str().into()).collect(),
            client,
            ..Judged::default()
        },
    )
}

fn facts() -> impl Strategy<Value = Facts> {
    let texts = vec(option::of(text()), 12);
    let names = vec(option::of("[a-z][a-z0-9]{0,9}"), 4);
    let digests = vec(option::of(any::<[u8; 32]>().prop_map(Digest)), 5);
    let lists = (vec(text(), 0..40), vec(text(), 0..3));
    let kept = (option::of(value()), option::of(value()), option::of(judged()));
    let numbers = vec(any::<u64>(), 7);
    let rest = (option::of(any::<bool>()), option::of(Just(Proof::Certificate)), outcome());
    (texts, names, digests, lists, kept, numbers, rest).prop_map(
        |(mut texts, names, digests, lists, kept, numbers, rest)| {
            let mut text = || texts.pop().flatten();
            let name =
                |at: usize| names[at].as_deref().map(|name: &str| name.parse::<Name>().unwrap());
            Facts {
                request_id: text().unwrap_or_default(),
                region: text().unwrap_or_default(),
                trace_id: text(),
                peer: text(),
                principal: text(),
                credential: text(),
                session: text(),
                token: text(),
                client: text(),
                front_revision: text(),
                method: text(),
                target: text(),
                back_revision: Some("2025-11-25".to_owned()),
                group: name(0),
                server: name(1),
                version: name(2),
                presented: name(3),
                definition: digests[0],
                input_schema: digests[1],
                output_schema: digests[2],
                arguments: digests[3],
                result: digests[4],
                rules: lists.0,
                approvers: lists.1,
                kept: kept.0,
                kept_result: kept.1,
                judged: kept.2,
                time_ms: numbers[0],
                duration_us: numbers[1],
                upstream_us: numbers[2],
                revision: Revision(numbers[3]),
                request_bytes: numbers[4],
                response_bytes: numbers[5],
                retries: u32::from(numbers[6].to_be_bytes()[0]),
                allowed: rest.0,
                proof: rest.1,
                outcome: rest.2,
                ..Facts::default()
            }
        },
    )
}

/// A record as `serde_json` writes its parts.
fn with_serde_json(facts: &Facts, run: &Run, (sequence, lost): (u64, u64)) -> String {
    fn of(part: &impl Serialize) -> String {
        serde_json::to_string(part).unwrap()
    }
    let shape = Shape::of(facts, run);
    let uid = serde_json::to_string(&format!("{}/{}/{sequence}", run.node, run.epoch)).unwrap();
    let (metadata, unmapped, event) = (of(&shape.metadata), of(&shape.unmapped), of(&shape.event));
    format!(
        "{{\"metadata\":{{\"uid\":{uid},\"sequence\":{sequence},{},\"unmapped\":{{\"lost\":{lost},{},{}",
        &metadata[1..],
        &unmapped[1..],
        &event[1..]
    )
}

proptest! {
    #[test]
    fn texts_are_written_as_serde_json_does(text in text()) {
        prop_assert_eq!(ours(&text), serde_json::to_string(&text).unwrap());
    }

    #[test]
    fn values_are_written_as_serde_json_does(value in value()) {
        prop_assert_eq!(ours(&value), serde_json::to_string(&value).unwrap());
    }

    #[test]
    fn records_are_written_as_serde_json_does(
        facts in facts(), node in text(), region in text(), numbers in any::<(u64, u64, u64)>(),
    ) {
        let (epoch, sequence, lost) = numbers;
        let run = Run { node, region, epoch };
        let record = Draft::render(&facts, &run).numbered(&run, sequence, lost);
        let expected = with_serde_json(&facts, &run, (sequence, lost));
        prop_assert_eq!(String::from_utf8(record).unwrap(), expected);
    }
}
