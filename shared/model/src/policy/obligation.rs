//! What deciding rules demand beside their decision: `@audit("full")`, `@redact("$.card.number")`,
//! `@approval("payments-approvers")`. Checked when a policy is applied; carried out on the values of
//! a call.

mod marks;

use serde_json::Value;

use crate::bounds;

/// Keeps the arguments of the call in its audit record (`full`), what the server answered
/// (`result`), or both.
pub const AUDIT: &str = "audit";
/// Blanks a part of the arguments that the audit record keeps.
pub const REDACT: &str = "redact";
/// Blanks a part of the answer that the audit record keeps.
pub const REDACT_RESULT: &str = "redact_result";
/// Lets the call go only after somebody said yes to it.
pub const APPROVAL: &str = "approval";
/// Tells the caller which scope would do.
pub const SCOPE: &str = "scope";
/// What stands in place of a redacted value.
pub const REDACTED: &str = "[redacted]";

/// # Errors
/// A sentence, when the annotation cannot be carried out.
pub(super) fn check(key: &str, value: &str, permit: bool) -> Result<(), String> {
    match key {
        AUDIT => match words(value).count() {
            0 => Err(AUDIT_VALUES.to_owned()),
            _ if words(value).all(|word| [ARGUMENTS, RESULT].contains(&word)) => Ok(()),
            _ => Err(AUDIT_VALUES.to_owned()),
        },
        REDACT | REDACT_RESULT => paths(value).map(drop),
        APPROVAL if !permit => {
            Err("@approval belongs on a permit; a forbid has nothing to approve".to_owned())
        }
        APPROVAL if value.trim().is_empty() => {
            Err("@approval names who approves: @approval(\"payments-approvers\")".to_owned())
        }
        SCOPE if permit => {
            Err("@scope belongs on a forbid: it says which scope would lift it".to_owned())
        }
        SCOPE if value.trim().is_empty() => Err("@scope names scopes: @scope(\"a b\")".to_owned()),
        _ => Ok(()),
    }
}

/// The arguments as the rules have the audit record keep them; none when no rule asks for them.
pub fn kept(obligations: &[(String, String)], arguments: &Value) -> Option<Value> {
    if !asks_for(obligations, ARGUMENTS) {
        return None;
    }
    let mut kept = arguments.clone();
    redact((obligations, REDACT), &mut kept);
    Some(kept)
}

/// True when a rule has the audit record keep what the server answers.
pub fn keeps_result(obligations: &[(String, String)]) -> bool {
    asks_for(obligations, RESULT)
}

/// A `result` or `error` as the rules and the tool's own schema have the audit record keep it.
/// Texts under `content` say the same as `structuredContent`: where a part of that is blanked, all
/// of them are.
pub fn kept_result(
    obligations: &[(String, String)],
    raw: &[u8],
    definition: Option<&[u8]>,
) -> Value {
    let Ok(mut kept) = serde_json::from_slice::<Value>(raw) else { return REDACTED.into() };
    let told = kept.get("structuredContent").cloned();
    redact((obligations, REDACT_RESULT), &mut kept);
    if let (Some(structured), Some(definition)) = (kept.get_mut("structuredContent"), definition) {
        blank_marked(definition, "outputSchema", structured);
    }
    if kept.get("structuredContent") != told.as_ref()
        && let Some(content) = kept.get_mut("content")
    {
        *content = REDACTED.into();
    }
    kept
}

/// Blanks what a schema (`inputSchema`, `outputSchema`) of a tool's definition marks as secret:
/// `writeOnly`, `format: password`, `x-sensitive`.
pub fn blank_marked(definition: &[u8], schema: &str, value: &mut Value) {
    match serde_json::from_slice::<Value>(definition) {
        Ok(definition) => {
            if let Some(schema) = definition.get(schema) {
                marks::blank(schema, value);
            }
        }
        Err(_) => *value = REDACTED.into(),
    }
}

/// What [`AUDIT`] can ask for.
const ARGUMENTS: &str = "full";
const RESULT: &str = "result";
const AUDIT_VALUES: &str = "@audit knows \"full\" (the arguments), \"result\" and \"full result\"";

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ' ']).filter(|word| !word.is_empty())
}

fn asks_for(obligations: &[(String, String)], what: &str) -> bool {
    let audits = obligations.iter().filter(|(key, _)| key == AUDIT);
    audits.flat_map(|(_, value)| words(value)).any(|word| word == what)
}

/// Blanks what rules want blanked, in place.
fn redact((obligations, key): (&[(String, String)], &str), value: &mut Value) {
    for (_, text) in obligations.iter().filter(|(named, _)| named == key) {
        match paths(text) {
            Ok(all) => all.iter().for_each(|path| blank(value, path)),
            // Admission refuses these; should one get here, nothing is shown.
            Err(_) => *value = Value::from(REDACTED),
        }
    }
}

/// Who has to approve; empty when nobody has to.
pub fn approvers(obligations: &[(String, String)]) -> Vec<&str> {
    let named = obligations.iter().filter(|(key, _)| key == APPROVAL);
    let mut all: Vec<&str> = named.map(|(_, value)| value.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
    /// All members and elements.
    Each,
    /// Here and everywhere below.
    Deep,
}

/// Paths, separated by commas or spaces.
fn paths(text: &str) -> Result<Vec<Vec<Step>>, String> {
    let all: Result<Vec<_>, _> =
        text.split([',', ' ']).filter(|part| !part.is_empty()).map(path).collect();
    let all = all?;
    if all.is_empty() {
        return Err("@redact names paths: @redact(\"$.card.number\")".to_owned());
    }
    Ok(all)
}

/// `$.card.number`, `$.items[*].price`, `$.rows[0]`, `$..password`, `$['odd name']`: the part of
/// JSONPath (RFC 9535) that names places.
fn path(text: &str) -> Result<Vec<Step>, String> {
    let why = |what: &str| Err(format!("@redact({text:?}): {what}"));
    let Some(mut rest) = text.strip_prefix('$') else { return why("a path begins with `$`") };
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() > bounds::JSON_DEPTH_MAX {
            return why("the path is too long");
        }
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Deep);
            rest = after;
            if rest.starts_with('[') {
                continue;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let Some((inner, after)) = after.split_once(']') else {
                return why("`[` is not closed");
            };
            let quoted = |mark| inner.strip_prefix(mark).and_then(|i: &str| i.strip_suffix(mark));
            match (quoted('\'').or_else(|| quoted('"')), inner.parse()) {
                (Some(name), _) => steps.push(Step::Member(name.to_owned())),
                (None, Ok(at)) => steps.push(Step::Element(at)),
                (None, Err(_)) if inner == "*" => steps.push(Step::Each),
                _ => return why("in brackets stands a position, `*` or a quoted name"),
            }
            rest = after;
            continue;
        } else {
            return why("steps begin with `.` or `[`");
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        match name {
            "" => return why("a step has no name"),
            "*" => steps.push(Step::Each),
            name => steps.push(Step::Member(name.to_owned())),
        }
        rest = after;
    }
    Ok(steps)
}

fn blank(value: &mut Value, steps: &[Step]) {
    let Some((step, rest)) = steps.split_first() else {
        *value = Value::from(REDACTED);
        return;
    };
    match (step, value) {
        (Step::Member(name), Value::Object(members)) => {
            if let Some(member) = members.get_mut(name) {
                blank(member, rest);
            }
        }
        (Step::Element(at), Value::Array(items)) => {
            if let Some(item) = items.get_mut(*at) {
                blank(item, rest);
            }
        }
        (Step::Each, value) => each_below(value, &mut |below| blank(below, rest)),
        (Step::Deep, value) => {
            blank(value, rest);
            each_below(value, &mut |below| blank(below, steps));
        }
        _ => {}
    }
}

fn each_below(value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Object(members) => members.values_mut().for_each(visit),
        Value::Array(items) => items.iter_mut().for_each(visit),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn redaction_reaches_every_place_that_a_path_names() {
        let given = json!({
            "card": {"number": "4111", "cvc": 123},
            "items": [{"sku": "a", "price": 1}, {"sku": "b", "price": 2}],
            "odd name": true,
            "deep": [{"password": "x"}, {"more": {"password": ["y"]}}],
        });
        let r = REDACTED;
        for (paths, at) in [
            ("$.card.number", vec!["/card/number"]),
            ("$.card", vec!["/card"]),
            ("$.items[*].price", vec!["/items/0/price", "/items/1/price"]),
            ("$.items[1].sku, $.card.cvc", vec!["/items/1/sku", "/card/cvc"]),
            ("$['odd name']", vec!["/odd name"]),
            ("$..password", vec!["/deep/0/password", "/deep/1/more/password"]),
            ("$.card.*", vec!["/card/number", "/card/cvc"]),
            ("$.nothing.here", vec![]),
            ("$.items.sku", vec![]),
        ] {
            // Names with a space are quoted, so they are written alone.
            let rules = if paths.contains('\'') { vec![] } else { all(&[(REDACT, paths)]) };
            let mut got = given.clone();
            match rules.is_empty() {
                true => blank(&mut got, &path(paths).unwrap()),
                false => redact((&rules, REDACT), &mut got),
            }
            let mut expect = given.clone();
            for at in at {
                *expect.pointer_mut(at).unwrap() = json!(r);
            }
            assert_eq!(got, expect, "{paths}");
        }
        let whole = kept(&all(&[(AUDIT, "full"), (REDACT, "$")]), &given);
        assert_eq!(whole, Some(json!(r)));
        assert_eq!(kept(&all(&[(REDACT, "$")]), &given), None, "nobody asked for it");
    }

    #[test]
    fn results_are_kept_as_asked_for_and_never_told_twice() {
        let raw = json!({"content": [{"type": "text", "text": "{\"iban\":\"DE1\",\"pin\":1}"}],
            "structuredContent": {"iban": "DE1", "pin": 1}});
        let definition = json!({"outputSchema": {"properties": {"pin": {"writeOnly": true}}}});
        let (text, definition) = (raw.to_string(), definition.to_string());
        let rule = |pairs: &[(&str, &str)], definition: Option<&str>| {
            kept_result(&all(pairs), text.as_bytes(), definition.map(str::as_bytes))
        };
        let r = REDACTED;
        assert!(keeps_result(&all(&[(AUDIT, "full result")])));
        assert!(!keeps_result(&all(&[(AUDIT, "full"), (REDACT_RESULT, "$")])));
        assert_eq!(kept(&all(&[(AUDIT, "result")]), &raw), None);
        assert_eq!(rule(&[(REDACT, "$.content")], None), raw, "@redact is about arguments");
        let blanked = json!({"content": r, "structuredContent": {"iban": r, "pin": 1}});
        assert_eq!(rule(&[(REDACT_RESULT, "$.structuredContent.iban")], None), blanked);
        let marked = json!({"content": r, "structuredContent": {"iban": "DE1", "pin": r}});
        assert_eq!(rule(&[], Some(&definition)), marked);
        assert_eq!(rule(&[], Some("no definition")), json!({"content": r, "structuredContent": r}));
        assert_eq!(kept_result(&[], b"{", None), json!(r));
    }

    #[test]
    fn annotations_that_cannot_be_carried_out_are_refused() {
        for (key, value, permit, part) in [
            (AUDIT, "everything", true, "full"),
            (AUDIT, "full everything", true, "result"),
            (AUDIT, " ", true, "full"),
            (REDACT_RESULT, "card", true, "begins with"),
            (REDACT, "card", true, "begins with"),
            (REDACT, "$.a[", true, "not closed"),
            (REDACT, "$.a[x]", true, "position"),
            (REDACT, "$a", true, "steps begin"),
            (REDACT, "$.", true, "no name"),
            (REDACT, " ", true, "names paths"),
            (APPROVAL, "x", false, "permit"),
            (APPROVAL, "", true, "who approves"),
            (SCOPE, "x", true, "forbid"),
            (SCOPE, " ", false, "names scopes"),
        ] {
            let why = check(key, value, permit).unwrap_err();
            assert!(why.contains(part), "{key} {value}: {why}");
        }
        for (key, value, permit) in [
            (AUDIT, "full", false),
            (AUDIT, "full, result", true),
            (REDACT_RESULT, "$.structuredContent.a", true),
            (REDACT, "$..a $.b", true),
            (APPROVAL, "x", true),
            ("note", "", true),
        ] {
            check(key, value, permit).unwrap();
        }
    }
}
