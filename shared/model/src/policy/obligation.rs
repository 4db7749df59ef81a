//! What deciding rules demand beside their decision: `@audit("full")`, `@redact("$.card.number")`,
//! `@approval("payments-approvers")`. Checked when a policy is applied; carried out on the values of
//! a call.

use serde_json::Value;

use crate::bounds;

/// Keeps the arguments of the call in its audit record.
pub const AUDIT: &str = "audit";
/// Blanks a part of what the audit record keeps.
pub const REDACT: &str = "redact";
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
        AUDIT if value != "full" => Err("@audit knows one value, \"full\"".to_owned()),
        REDACT => paths(value).map(drop),
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
    let has_audit = obligations.iter().any(|(key, value)| key == AUDIT && value == "full");
    if !has_audit {
        return None;
    }
    let mut kept = arguments.clone();
    redact(obligations, &mut kept);
    Some(kept)
}

/// Blanks what rules want blanked, in place.
pub fn redact(obligations: &[(String, String)], value: &mut Value) {
    for (_, text) in obligations.iter().filter(|(key, _)| key == REDACT) {
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
                false => redact(&rules, &mut got),
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
    fn annotations_that_cannot_be_carried_out_are_refused() {
        for (key, value, permit, part) in [
            (AUDIT, "everything", true, "full"),
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
            (REDACT, "$..a $.b", true),
            (APPROVAL, "x", true),
            ("note", "", true),
        ] {
            check(key, value, permit).unwrap();
        }
    }
}
