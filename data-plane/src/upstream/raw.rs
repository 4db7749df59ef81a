//! JSON that is passed on as it came: looked into and edited without re-serialising values.
//!
//! Values keep every byte (big numbers, number text, key order, duplicate-free or not); only the
//! object whose members are edited is written anew around them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one object, in order.
pub(crate) struct Members<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'a> Members<'a> {
    /// Reads an object.
    pub(crate) fn of(raw: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(raw)
    }

    /// The last member of that name, which is the one that most parsers keep.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

/// The member of an object; none when it is absent or `raw` is no object.
pub(crate) fn member<'a>(raw: &'a [u8], name: &str) -> Option<&'a RawValue> {
    Members::of(raw).ok()?.get(name)
}

/// The member at a path of names.
pub(crate) fn at<'a>(raw: &'a [u8], path: &[&str]) -> Option<&'a RawValue> {
    let (first, rest) = path.split_first()?;
    let found = member(raw, first)?;
    if rest.is_empty() { Some(found) } else { at(found.get().as_bytes(), rest) }
}

/// The member as a text; none when it is no string.
pub(crate) fn text(raw: &[u8], name: &str) -> Option<String> {
    serde_json::from_str(member(raw, name)?.get()).ok()
}

/// What happens to one member.
pub(crate) enum Edit<'a> {
    /// Written in place, or at the end when it was absent.
    Set(&'a str, &'a [u8]),
    /// Left out.
    Drop(&'a str),
}

/// Writes an object with some members set or left out; all other values stay byte for byte.
pub(crate) fn edited(raw: &[u8], edits: &[Edit<'_>]) -> Result<Vec<u8>, serde_json::Error> {
    let members = Members::of(raw)?;
    let mut out = Vec::with_capacity(raw.len() + 64);
    let mut done = vec![false; edits.len()];
    out.push(b'{');
    for (key, value) in &members.0 {
        let edit = edits.iter().position(|edit| match edit {
            Edit::Set(name, _) | Edit::Drop(name) => name == key,
        });
        match edit.map(|at| (at, &edits[at])) {
            None => put(&mut out, key, value.get().as_bytes())?,
            Some((at, Edit::Set(name, value))) if !done[at] => {
                done[at] = true;
                put(&mut out, name, value)?;
            }
            Some(_) => {}
        }
    }
    for (edit, done) in edits.iter().zip(done) {
        if let (Edit::Set(name, value), false) = (edit, done) {
            put(&mut out, name, value)?;
        }
    }
    out.push(b'}');
    Ok(out)
}

fn put(out: &mut Vec<u8>, key: &str, value: &[u8]) -> Result<(), serde_json::Error> {
    if out.len() > 1 {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, key)?;
    out.push(b':');
    out.extend_from_slice(value);
    Ok(())
}

/// True when brackets nest deeper than `max`. `RawValue` itself has no such bound.
pub(crate) fn deeper_than(raw: &[u8], max: usize) -> bool {
    // Nearly nothing has so many brackets at all, and counting them is quick.
    if raw.iter().filter(|b| matches!(b, b'{' | b'[')).count() <= max {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in raw {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(raw: &str, edits: &[Edit<'_>]) -> String {
        String::from_utf8(edited(raw.as_bytes(), edits).expect("an object")).expect("text")
    }

    #[test]
    fn edits_leave_other_values_byte_for_byte() {
        let raw = r#"{ "big":12345678901234567890123, "n" : 1.10,"\u0061":[ 1,2 ],"x":null}"#;
        let got = edit(raw, &[Edit::Drop("x"), Edit::Set("n", b"2"), Edit::Set("y", b"{}")]);
        assert_eq!(got, r#"{"big":12345678901234567890123,"n":2,"a":[ 1,2 ],"y":{}}"#);
        assert_eq!(edit("{}", &[]), "{}");
        assert_eq!(edit("{}", &[Edit::Set("a\"b", b"1")]), r#"{"a\"b":1}"#);
        assert_eq!(edit(r#"{"a":1,"a":2}"#, &[Edit::Set("a", b"3")]), r#"{"a":3}"#);
        assert!(edited(b"[1]", &[]).is_err());
        assert!(edited(b"{\"a\":1", &[]).is_err());
    }

    #[test]
    fn paths_lead_to_raw_values() {
        let raw = br#"{"a":{"b":{"c":1.0}},"t":"x\u0041"}"#;
        assert_eq!(at(raw, &["a", "b", "c"]).map(RawValue::get), Some("1.0"));
        assert!(at(raw, &["a", "x", "c"]).is_none());
        assert_eq!(text(raw, "t").as_deref(), Some("xA"));
        assert_eq!(text(raw, "a"), None);
    }

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        assert!(!deeper_than(br#"{"a":"[[[[\"[[["}"#, 1));
        assert!(deeper_than(b"[[]]", 1));
        assert!(!deeper_than(b"[[],[],[]]", 2));
    }
}
