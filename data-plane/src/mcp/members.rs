//! JSON objects read one level deep: names decoded, values left as the bytes that came in.
//!
//! Promises: a name that occurs twice is an error (peers differ in which one they take, and a
//! policy must not read another value than the server), an array is never taken for an object,
//! and values keep every digit and blank. [`scan`] is the check that has to come first: it bounds
//! nesting, which raw values alone do not.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use weir_model::bounds;
use weir_model::reason::Reason;

/// The members of one object, in order.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// Marks errors that stand for a repeated name, since `serde_json` errors carry text only.
const REPEATED: &str = "a member occurs twice";

impl<'a> Members<'a> {
    /// Reads the members of `text`, which must be one object.
    ///
    /// # Errors
    /// [`Reason::DuplicateKey`] for a repeated name, [`Reason::MalformedJson`] for anything that
    /// is no JSON object.
    pub fn parse(text: &'a str) -> Result<Self, Reason> {
        serde_json::from_str(text).map_err(|error| reason_of(&error))
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The value of a member as text; none when it is absent or no string.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// All members, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }
}

/// The string that a raw value is, if it is one. Borrowed when it has no escapes.
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    struct Text<'a>(Cow<'a, str>);
    impl<'de> Deserialize<'de> for Text<'de> {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            d.deserialize_str(NameVisitor).map(Text)
        }
    }
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|t| t.0)
}

/// True when a raw value is an object.
pub fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Reads a whole value; a name that occurs twice in any object of it is an error.
///
/// # Errors
/// [`Reason::DuplicateKey`] or [`Reason::MalformedJson`].
pub fn strict_value(text: &str) -> Result<Value, Reason> {
    serde_json::from_str::<Strict>(text).map(|s| s.0).map_err(|error| reason_of(&error))
}

fn reason_of(error: &serde_json::Error) -> Reason {
    if error.is_data() && error.to_string().starts_with(REPEATED) {
        Reason::DuplicateKey
    } else {
        Reason::MalformedJson
    }
}

/// Checks what has to hold before anything is parsed: UTF-8 without a byte order mark, nesting of
/// at most [`bounds::JSON_DEPTH_MAX`], no lone surrogates in escapes, no number that peers would
/// read as infinite. One pass.
///
/// # Errors
/// [`Reason::MalformedJson`] or [`Reason::TooDeep`].
pub fn scan(body: &[u8]) -> Result<&str, Reason> {
    let text = std::str::from_utf8(body).map_err(|_| Reason::MalformedJson)?;
    if is_plain(body) {
        return Ok(text);
    }
    let mut depth = 0usize;
    let mut in_string = false;
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                at = after_escape(body, at)?;
                continue;
            }
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > bounds::JSON_DEPTH_MAX {
                    return Err(Reason::TooDeep);
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            b'0'..=b'9' if !in_string => {
                at = after_number(text, at)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(text)
}

/// True for what has too few brackets and digits, and no escape or exponent, for anything to be wrong
/// with them: nearly everything, and quick to see.
fn is_plain(body: &[u8]) -> bool {
    let brackets = body.iter().filter(|b| matches!(b, b'{' | b'[')).count();
    let digits = body.iter().filter(|b| b.is_ascii_digit()).count();
    let exponents = || body.windows(2).any(|two| two[0].is_ascii_digit() && two[1] | 0x20 == b'e');
    brackets <= bounds::JSON_DEPTH_MAX
        && digits <= DIGITS_ALWAYS
        && !body.contains(&b'\\')
        && !exponents()
}

/// Digits that a double has room for, whatever they are.
const DIGITS_ALWAYS: usize = 300;

/// The position after the number whose first digit is at `at`. What is too large for a double is an
/// error to some peers and infinite to others; precision beyond one's is their own affair.
fn after_number(text: &str, at: usize) -> Result<usize, Reason> {
    let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    let length = text.as_bytes()[at..].iter().take_while(|byte| part(byte)).count();
    let number = &text[at..at + length];
    if length > DIGITS_ALWAYS || number.contains(['e', 'E']) {
        serde_json::from_str::<f64>(number).map_err(|_| Reason::MalformedJson)?;
    }
    Ok(at + length)
}

/// The position after the escape that starts at `at`. A high surrogate must be followed by a low
/// one: decoders differ in what they make of half a pair.
fn after_escape(body: &[u8], at: usize) -> Result<usize, Reason> {
    let unit = |at: usize| -> Option<u16> {
        let hex = body.get(at..at + 6)?;
        let digits = hex.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(at) {
        Some(0xD800..=0xDBFF) => match unit(at + 6) {
            Some(0xDC00..=0xDFFF) => Ok(at + 12),
            _ => Err(Reason::MalformedJson),
        },
        Some(0xDC00..=0xDFFF) => Err(Reason::MalformedJson),
        _ => Ok(at + 2),
    }
}

/// Where `part` lies within `whole`, of which it must be a slice.
pub fn position(whole: &str, part: &str) -> std::ops::Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    debug_assert!(start <= whole.len() && start + part.len() <= whole.len());
    start..start + part.len()
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        /// Up to here comparing each with each is quicker than hashing.
        const FEW: usize = 16;
        let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(8);
        let mut seen: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(NameText(name)) = map.next_key()? {
            let repeated = if members.len() < FEW {
                members.iter().any(|(other, _)| *other == name)
            } else {
                if seen.is_empty() {
                    seen.extend(members.iter().map(|(other, _)| other.clone()));
                }
                !seen.insert(name.clone())
            };
            if repeated {
                return Err(A::Error::custom(REPEATED));
            }
            members.push((name, map.next_value()?));
        }
        Ok(Members(members))
    }
}

struct NameText<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for NameText<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_str(NameVisitor).map(NameText)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(v.to_owned()))
    }
}

/// A value in which no object has a name twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some(NameText(name)) = map.next_key()? {
            if object.contains_key(name.as_ref()) {
                map.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom(REPEATED));
            }
            let Strict(value) = map.next_value()?;
            object.insert(name.into_owned(), value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_bytes_and_refuse_repetition() {
        let text = r#" {"a": 1.10 ,"\u0062":{"x":[1,  2]},"c":null} "#;
        let members = Members::parse(text).unwrap();
        assert_eq!(members.get("a").unwrap().get(), "1.10");
        assert_eq!(members.get("b").unwrap().get(), r#"{"x":[1,  2]}"#);
        assert_eq!(members.get("c").unwrap().get(), "null");
        assert_eq!(&text[position(text, members.get("b").unwrap().get())], r#"{"x":[1,  2]}"#);
        let repeated = r#"{"a":1,"\u0061":2}"#;
        assert_eq!(Members::parse(repeated).unwrap_err(), Reason::DuplicateKey);
        for bad in ["[]", "1", "", "{", "[\"2.0\",1]", "{\"a\":1}x"] {
            assert_eq!(Members::parse(bad).unwrap_err(), Reason::MalformedJson, "{bad}");
        }
    }

    #[test]
    fn many_members_are_checked_without_quadratic_work() {
        let fill = |last: &str| {
            let mut text = String::from("{");
            (0..50_000).for_each(|i| text.push_str(&format!("\"k{i}\":0,")));
            text + last + ":0}"
        };
        assert!(Members::parse(&fill("\"z\"")).is_ok());
        assert_eq!(Members::parse(&fill("\"k7\"")).unwrap_err(), Reason::DuplicateKey);
    }

    #[test]
    fn nested_repetition_is_seen_where_the_whole_value_counts() {
        assert_eq!(strict_value(r#"{"a":[{"b":1,"b":2}]}"#), Err(Reason::DuplicateKey));
        let value = strict_value(r#"{"a":[1,-2,3.5,"x",true,null,{"b":{}}]}"#).unwrap();
        assert_eq!(value, serde_json::json!({"a":[1,-2,3.5,"x",true,null,{"b":{}}]}));
    }

    #[test]
    fn the_scan_bounds_nesting_and_text() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(scan(nested(64).as_bytes()).is_ok());
        assert_eq!(scan(nested(65).as_bytes()), Err(Reason::TooDeep));
        assert!(scan(format!("\"{}\"", "[".repeat(500)).as_bytes()).is_ok());
        assert!(scan(br#""\"[[\\""#).is_ok());
        assert_eq!(scan(b"\"\xff\""), Err(Reason::MalformedJson));
        assert_eq!(scan(br#""\ud800""#), Err(Reason::MalformedJson));
        assert_eq!(scan(br#""\udc00\ud800""#), Err(Reason::MalformedJson));
        assert!(scan(br#""\ud83d\ude00""#).is_ok());
        assert!(scan(br#""\\ud800""#).is_ok());
    }

    #[test]
    fn the_scan_refuses_numbers_that_are_infinite_to_some() {
        let digits = |count: usize| "9".repeat(count);
        for good in ["1e308", "[-1.5E+2,0.1e-400]", "\"1e400\"", &digits(300), &digits(308)] {
            assert!(scan(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["1e400", "[-1E309]", r#"{"a":{"b":90071992547E40993}}"#, &digits(310)] {
            assert_eq!(scan(bad.as_bytes()), Err(Reason::MalformedJson), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(body: Vec<u8>) {
            if let Ok(text) = scan(&body) {
                let _ = Members::parse(text);
                let _ = strict_value(text);
            }
        }
    }
}
