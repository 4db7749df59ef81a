//! The arguments of a call as Cedar entities with typed tags, so that rules about them type-check.
//!
//! A scalar is a tag at its path under the type that it has, and nowhere else: a rule never sees a
//! rounded or converted value. Only the paths that rules name are looked up; where a rule does not
//! name them as literals, everything is laid out, up to a bound, and past the bound the call is
//! denied.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cedar_policy::{Entity, EntityTypeName, EntityUid, RestrictedExpression as Expr};
use serde_json::Value;

use super::facts::{type_name, uid};
use super::reads::Wanted;
use crate::bounds;

const KINDS: [(&str, &str); 5] = [
    ("text", "Text"),
    ("number", "Number"),
    ("decimal", "Fraction"),
    ("flag", "Flag"),
    ("words", "Words"),
];

const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

static ENTITIES: LazyLock<[EntityUid; 5]> = LazyLock::new(|| {
    KINDS.map(|(_, kind)| {
        let kind: EntityTypeName = type_name(kind);
        uid(&kind, "arguments")
    })
});

#[derive(Default)]
struct Tags {
    by_kind: [Vec<(String, Expr)>; 5],
    paths: Vec<String>,
}

/// Adds the entities that hold the arguments, and gives the record that refers to them.
///
/// # Errors
/// A sentence, when there are more paths than rules may be asked about.
pub(super) fn entities(
    given: &Value,
    wanted: Wanted<'_>,
    into: &mut Vec<Entity>,
) -> Result<Expr, String> {
    let mut tags = Tags::default();
    match wanted.paths() {
        Some(paths) => paths.for_each(|path| {
            if let Some(value) = look_up(given, path) {
                tags.add(path.to_owned(), value);
            }
        }),
        None => tags.lay_out(given)?,
    }
    let mut record = BTreeMap::new();
    let kinds = KINDS.iter().zip(ENTITIES.iter().zip(tags.by_kind));
    for ((name, _), (own, tags)) in kinds.filter(|((n, _), _)| wanted.has(|r| &r.kinds, n)) {
        let entity = Entity::new_with_tags(own.clone(), [], [], tags).map_err(|e| e.to_string())?;
        into.push(entity);
        record.insert((*name).to_owned(), Expr::new_entity_uid(own.clone()));
    }
    if wanted.has(|reads| &reads.kinds, "paths") {
        let all = tags.paths.into_iter().map(Expr::new_string);
        record.insert("paths".to_owned(), Expr::new_set(all));
    }
    Expr::new_record(record).map_err(|e| e.to_string())
}

impl Tags {
    fn add(&mut self, path: String, value: &Value) {
        let [text, number, decimal, flag, words] = &mut self.by_kind;
        match value {
            Value::String(s) => text.push((path, Expr::new_string(s.clone()))),
            Value::Bool(b) => flag.push((path, Expr::new_bool(*b))),
            Value::Number(_) => {
                if let Some(whole) = long(value) {
                    number.push((path.clone(), Expr::new_long(whole)));
                }
                if let Some(scaled) = self::decimal(value) {
                    decimal.push((path, Expr::new_decimal(written(scaled))));
                }
            }
            Value::Array(items) => {
                let strings: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                if let Some(strings) = strings {
                    let set = strings.into_iter().map(|s| Expr::new_string(s.to_owned()));
                    words.push((path, Expr::new_set(set)));
                }
            }
            Value::Null | Value::Object(_) => {}
        }
    }

    fn lay_out(&mut self, given: &Value) -> Result<(), String> {
        let mut open: Vec<(Option<String>, &Value)> = vec![(None, given)];
        while let Some((path, value)) = open.pop() {
            let members = value.as_object().map_or(0, serde_json::Map::len)
                + value.as_array().map_or(0, Vec::len);
            if self.paths.len() + open.len() + members > bounds::ARGUMENT_PATHS_MAX {
                let most = bounds::ARGUMENT_PATHS_MAX;
                return Err(format!("the arguments have more than {most} paths"));
            }
            open.extend(children(path.as_deref(), value));
            if let Some(path) = path {
                self.paths.push(path.clone());
                self.add(path, value);
            }
        }
        Ok(())
    }
}

fn children<'a>(path: Option<&str>, value: &'a Value) -> Vec<(Option<String>, &'a Value)> {
    let join =
        |name: &str| Some(path.map_or_else(|| name.to_owned(), |path| format!("{path}/{name}")));
    match value {
        Value::Object(members) => {
            members.iter().map(|(name, value)| (join(&escape(name)), value)).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, item)| (join(&at.to_string()), item)).collect()
        }
        _ => Vec::new(),
    }
}

fn escape(name: &str) -> String {
    if name.contains(['~', '/']) {
        name.replace('~', "~0").replace('/', "~1")
    } else {
        name.to_owned()
    }
}

/// The value at a path that a rule names: a JSON pointer without its first slash. A path that is
/// not written as paths are laid out leads nowhere.
pub(super) fn look_up<'a>(given: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = given;
    for part in path.split('/') {
        value = match value {
            Value::Object(members) if part.contains('~') => members.get(&unescape(part)?)?,
            Value::Object(members) => members.get(part)?,
            Value::Array(items) => items.get(position(part)?)?,
            _ => return None,
        };
    }
    Some(value)
}

fn unescape(part: &str) -> Option<String> {
    let name = part.replace("~1", "/").replace("~0", "~");
    (escape(&name) == part).then_some(name)
}

fn position(part: &str) -> Option<usize> {
    let canonical = part == "0" || !part.starts_with(['0', '+']);
    if canonical { part.parse().ok() } else { None }
}

/// True when rules that need every path may be asked.
pub(super) fn affordable(given: &Value) -> bool {
    fn count(value: &Value, left: &mut usize) -> bool {
        let (mut members, mut items) = (None, None);
        match value {
            Value::Object(map) => members = Some(map.values()),
            Value::Array(list) => items = Some(list.iter()),
            _ => {}
        }
        let mut below = members.into_iter().flatten().chain(items.into_iter().flatten());
        below.all(|child| {
            let Some(rest) = left.checked_sub(1) else { return false };
            *left = rest;
            count(child, left)
        })
    }
    count(given, &mut { bounds::ARGUMENT_PATHS_MAX })
}

/// A number that is whole, as rules read it.
pub(super) fn long(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    if number.is_f64() { exact(number).and_then(|text| whole(&text)) } else { number.as_i64() }
}

/// A number with at most four decimal places, as rules read it: in ten-thousandths.
pub(super) fn decimal(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    if number.is_f64() {
        return exact(number).and_then(|text| scaled(&text));
    }
    number.as_i64()?.checked_mul(10_000)
}

/// Beyond 2^53 a float is no longer the number that was written.
fn exact(number: &serde_json::Number) -> Option<String> {
    number.as_f64().filter(|float| float.abs() <= EXACT_MAX)?;
    Some(number.to_string())
}

/// The number as a whole one, when it is one, however it is written: `3`, `3.0`, `3e2`.
fn whole(written: &str) -> Option<i64> {
    let (digits, scale) = split(written)?;
    if scale < 0 {
        return None;
    }
    let factor = 10_i128.checked_pow(u32::try_from(scale).ok()?)?;
    i64::try_from(digits.checked_mul(factor)?).ok()
}

/// The number in ten-thousandths, when it is Cedar's `decimal`.
pub(super) fn scaled(written: &str) -> Option<i64> {
    let (digits, scale) = split(written)?;
    let factor = 10_i128.checked_pow(u32::try_from(scale.checked_add(4)?).ok()?)?;
    i64::try_from(digits.checked_mul(factor)?).ok()
}

/// Ten-thousandths as Cedar writes its `decimal`.
fn written(scaled: i64) -> String {
    let (sign, size) = (if scaled < 0 { "-" } else { "" }, scaled.unsigned_abs());
    format!("{sign}{}.{:04}", size / 10_000, size % 10_000)
}

/// A JSON number as digits times a power of ten, without trailing zeros in the digits.
fn split(written: &str) -> Option<(i128, i64)> {
    let (mantissa, exponent) = match written.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (written, 0),
    };
    let (whole, places) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: i128 = format!("{whole}{places}").parse().ok()?;
    let mut scale = exponent.checked_sub(i64::try_from(places.len()).ok()?)?;
    if digits == 0 {
        return Some((0, 0));
    }
    while digits % 10 == 0 {
        digits /= 10;
        scale = scale.checked_add(1)?;
    }
    Some((digits, scale))
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;
    use crate::policy::reads::Reads;

    #[test]
    fn numbers_keep_their_exact_value_or_are_absent() {
        let cases = [
            ("3", Some(3), Some("3.0000")),
            ("3.0", Some(3), Some("3.0000")),
            ("3e2", Some(300), Some("300.0000")),
            ("-0.5", None, Some("-0.5000")),
            ("0.00001", None, None),
            ("100.5", None, Some("100.5000")),
            ("1.50000000", None, Some("1.5000")),
            ("9223372036854775807", Some(i64::MAX), None),
            ("9223372036854775808", None, None),
            ("-9223372036854775808", Some(i64::MIN), None),
            ("1e400", None, None),
            ("0e999999999999", Some(0), Some("0.0000")),
            ("1e-400", None, None),
        ];
        for (written, long, decimal) in cases {
            assert_eq!(whole(written), long, "{written}");
            assert_eq!(scaled(written).map(super::written).as_deref(), decimal, "{written}");
        }
    }

    #[test]
    fn paths_cannot_be_forged_by_member_names() {
        let given = serde_json::json!({"a/b": 1, "a": {"b": 2}, "c~d": [true, {"e": null}]});
        let mut tags = Tags::default();
        tags.lay_out(&given).unwrap();
        tags.paths.sort();
        assert_eq!(tags.paths, ["a", "a/b", "a~1b", "c~0d", "c~0d/0", "c~0d/1", "c~0d/1/e"]);
        assert_eq!(look_up(&given, "a~1b"), Some(&serde_json::json!(1)));
        assert_eq!(look_up(&given, "a/b"), Some(&serde_json::json!(2)));
        for path in &tags.paths {
            assert!(look_up(&given, path).is_some(), "{path}");
        }
        for path in ["c~d", "c~0d/00", "c~0d/+1", "c~0d/01", "c~0d/2", "", "a/", "/a", "a~2b"] {
            assert_eq!(look_up(&given, path), None, "{path}");
        }
    }

    #[test]
    fn too_many_paths_are_an_error_only_where_all_are_needed() {
        let given = serde_json::json!({ "rows": vec![1; bounds::ARGUMENT_PATHS_MAX + 1] });
        let read = |test: &str| {
            let cedar = format!("permit(principal, action, resource) when {{ {test} }};");
            Reads::of_policy(&cedar.parse::<Policy>().unwrap().to_json().unwrap())
        };
        let all = read("context.arguments.paths.contains(\"rows\")");
        let refused = entities(&given, Wanted(&[&all]), &mut Vec::new()).unwrap_err();
        assert!(refused.contains("paths"), "{refused}");
        assert!(!affordable(&given));
        let most = serde_json::json!({ "rows": vec![1; bounds::ARGUMENT_PATHS_MAX - 1] });
        assert!(affordable(&most) && entities(&most, Wanted(&[&all]), &mut Vec::new()).is_ok());
        let some = read("context.arguments.number.hasTag(\"rows/7\")");
        assert!(entities(&given, Wanted(&[&some]), &mut Vec::new()).is_ok());
    }
}
