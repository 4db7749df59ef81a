//! Names on the aggregated endpoint: `server__tool`, at most 64 characters of `[A-Za-z0-9_-]`.
//!
//! A name of a server has no `_`, so the first `__` splits an exposed name in one way only. What
//! does not fit (too long, a dot, another alphabet) is shortened to `server__begin-xdigest`, where
//! the digest is of the upstream's whole name. A name that by itself looks shortened is shortened
//! too. So two names of one server never share an exposed name unless 60 bits of SHA-256 collide;
//! where somebody made them collide, the catalog keeps the first and drops the second.

use std::borrow::Cow;

use crate::bounds;
use crate::id::{Digest, Name};

/// Between server and tool.
const SEPARATOR: &str = "__";
/// In front of the digest of a shortened name.
const MARK: &str = "-x";
/// Characters of the digest: 60 bits.
const DIGEST_CHARS: usize = 12;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The name that clients of the aggregated endpoint see of a tool or prompt.
pub fn exposed(server: &Name, name: &str) -> String {
    let server = server.as_str();
    let room = bounds::EXPOSED_NAME_CHARS_MAX - server.len() - SEPARATOR.len();
    let part = if fits(name, room) { Cow::Borrowed(name) } else { Cow::Owned(shorten(name, room)) };
    format!("{server}{SEPARATOR}{part}")
}

/// The server's name and the rest of an exposed name.
pub fn split(exposed: &str) -> Option<(&str, &str)> {
    let (server, rest) = exposed.split_at_checked(exposed.find('_')?)?;
    let rest = rest.strip_prefix(SEPARATOR)?;
    (!server.is_empty() && !rest.is_empty()).then_some((server, rest))
}

fn legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn fits(name: &str, room: usize) -> bool {
    !name.is_empty() && name.len() <= room && name.chars().all(legal) && !looks_shortened(name)
}

fn looks_shortened(name: &str) -> bool {
    let bytes = name.as_bytes();
    let Some(at) = bytes.len().checked_sub(DIGEST_CHARS + MARK.len()) else { return false };
    let (mark, digest) = bytes[at..].split_at(MARK.len());
    mark == MARK.as_bytes() && digest.iter().all(|b| ALPHABET.contains(b))
}

fn shorten(name: &str, room: usize) -> String {
    let keep = room - MARK.len() - DIGEST_CHARS;
    let begin = name.chars().take(keep).map(|c| if legal(c) { c } else { '_' });
    begin.chain(MARK.chars()).chain(digest(name)).collect()
}

fn digest(name: &str) -> impl Iterator<Item = char> {
    let Digest(bytes) = Digest::of(name.as_bytes());
    let bits = bytes[..8].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..DIGEST_CHARS).map(move |i| {
        let five = (bits >> (59 - 5 * i)) & 31;
        char::from(ALPHABET[usize::try_from(five).unwrap_or(0)])
    })
}

/// A definition with another `name`: the value of that member of the outermost object is
/// replaced, and every other byte stays. None when the text is no object with a `name`.
///
/// The text must be valid JSON.
pub fn rename(definition: &str, name: &str) -> Option<String> {
    let spans = name_values(definition.as_bytes())?;
    let quoted = serde_json::Value::from(name).to_string();
    let mut renamed = String::with_capacity(definition.len() + quoted.len());
    let mut from = 0;
    for (start, end) in &spans {
        renamed.push_str(definition.get(from..*start)?);
        renamed.push_str(&quoted);
        from = *end;
    }
    renamed.push_str(definition.get(from..)?);
    (!spans.is_empty()).then_some(renamed)
}

/// Where the values of the outermost object's `name` members begin and end.
fn name_values(json: &[u8]) -> Option<Vec<(usize, usize)>> {
    let mut spans = Vec::new();
    let mut at = blanks(json, 0);
    if json.get(at) != Some(&b'{') {
        return None;
    }
    at = blanks(json, at + 1);
    while json.get(at) == Some(&b'"') {
        let key_end = string(json, at)?;
        let key = std::str::from_utf8(json.get(at..key_end)?).ok()?;
        let is_name = serde_json::from_str::<Cow<'_, str>>(key).is_ok_and(|key| key == "name");
        at = blanks(json, key_end);
        if json.get(at) != Some(&b':') {
            return None;
        }
        let start = blanks(json, at + 1);
        let end = value(json, start)?;
        if is_name {
            spans.push((start, end));
        }
        at = blanks(json, end);
        if json.get(at) != Some(&b',') {
            break;
        }
        at = blanks(json, at + 1);
    }
    (json.get(at) == Some(&b'}')).then_some(spans)
}

fn blanks(json: &[u8], at: usize) -> usize {
    let blank = |b: &&u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    at + json.get(at..).unwrap_or_default().iter().take_while(blank).count()
}

/// The end of the string that begins at `at`.
fn string(json: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The end of the value that begins at `at`.
fn value(json: &[u8], at: usize) -> Option<usize> {
    let (mut at, mut depth) = (at, 0_usize);
    loop {
        match json.get(at)? {
            b'"' => at = string(json, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            _ => {
                let word = |b: &&u8| {
                    !matches!(b, b',' | b':' | b'}' | b']' | b'"' | b' ' | b'\t' | b'\n' | b'\r')
                };
                at += json[at..].iter().take_while(word).count();
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_shortened_and_split() {
        let server: Name = "billing".parse().unwrap();
        for plain in ["refund", "_x", "a__b", "A-1", &"t".repeat(55)] {
            assert_eq!(exposed(&server, plain), format!("billing__{plain}"));
            assert_eq!(split(&exposed(&server, plain)), Some(("billing", plain)));
        }
        assert_eq!(exposed(&server, "list.invoices"), "billing__list_invoices-x3crnkgc3edyg");
        for odd in ["a.b", "", "ä", "a b", &"t".repeat(56), "x-xaaaaaaaaaaaa"] {
            let name = exposed(&server, odd);
            assert!(looks_shortened(&name) && name.len() <= 64, "{name}");
            assert_eq!(split(&name).unwrap().0, "billing");
        }
        let longest: Name = "s".repeat(40).parse().unwrap();
        assert_eq!(exposed(&longest, &"t".repeat(22)).len(), 64);
        assert_eq!(exposed(&longest, &"t".repeat(23)).len(), 64);
        for foreign in ["", "a", "a_b", "__b", "a__", "_"] {
            assert_eq!(split(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn renaming_changes_one_value_and_nothing_else() {
        for (text, expected) in [
            (r#"{"name":"a"}"#, r#"{"name":"N"}"#),
            (
                "{ \"x\" : {\"name\":1,\"y\":[{\"name\":\"}\"}]} ,\n\"name\"\t:\r\n\"a\\\"b\" , \"z\":1.10 }",
                "{ \"x\" : {\"name\":1,\"y\":[{\"name\":\"}\"}]} ,\n\"name\"\t:\r\n\"N\" , \"z\":1.10 }",
            ),
            (r#"{"n\u0061me":"a","t":"{\"name\":1}"}"#, r#"{"n\u0061me":"N","t":"{\"name\":1}"}"#),
            (r#"{"name":"a","b":[],"name":null}"#, r#"{"name":"N","b":[],"name":"N"}"#),
            (r#"{"name":{"a":[1,"]"]},"b":true}"#, r#"{"name":"N","b":true}"#),
        ] {
            assert_eq!(rename(text, "N").as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", "[]", "{}", r#"{"a":{"name":1}}"#, r#"{"name""#, "{\"name\":", r#"{"name":"a"#]
        {
            assert_eq!(rename(text, "N"), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn renaming_agrees_with_a_parser(members in proptest::collection::vec(("name|[a-c\"\\\\é]{0,3}", "[a-z\"\\\\{}\\[\\]:, é]{0,8}"), 0..6), nested in proptest::bool::ANY) {
            let mut map = serde_json::Map::new();
            for (key, value) in members {
                let value = if nested { serde_json::json!([{ "name": value }]) } else { value.into() };
                map.insert(key, value);
            }
            let text = serde_json::to_string_pretty(&map).unwrap();
            let renamed = rename(&text, "b__é\"").map(|t| serde_json::from_str::<serde_json::Value>(&t).unwrap());
            let expected = map.contains_key("name").then(|| {
                map.insert("name".into(), "b__é\"".into());
                serde_json::Value::Object(map)
            });
            proptest::prop_assert_eq!(renamed, expected);
        }

        /// Nothing that is not JSON makes it panic.
        #[test]
        fn renaming_takes_any_text(text in "[{}\\[\\]\",:\\\\name1 é]{0,40}") {
            let _ = rename(&text, "N");
        }
    }
}
