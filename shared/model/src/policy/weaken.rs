//! Policies with part of the question left open.
//!
//! While lists are filtered there are no arguments, and a question about a whole server has no
//! target. For both, each policy is rewritten once, at compile time: every test that reads what is
//! not known becomes the constant that helps the caller. A rewritten permit is satisfied whenever
//! the permit could be; a rewritten forbid is satisfied only when the forbid must be.
//!
//! Works on the JSON form of policies. A test is the largest expression below `&&`, `||` and `!`.
//!
//! A rewritten policy may fail where the full one would have stopped early. Whoever evaluates it
//! counts a failure as the constant again (see [`super::cedar`]), which keeps the promise: by
//! induction, what is true stays true or fails, and what is false stays false or fails.

use serde_json::{Value, json};

/// What a question leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// The arguments.
    Arguments,
    /// The arguments, the action and the target; the server is known.
    Target,
}

/// How deep the conditions of a policy nest; long chains of operators nest too.
pub(super) fn depth(policy: &Value) -> usize {
    let mut deepest = 0;
    let mut open: Vec<(&Value, usize)> = conditions(policy).map(|(_, body)| (body, 1)).collect();
    while let Some((expr, level)) = open.pop() {
        deepest = deepest.max(level);
        each_child(expr, &mut |child| open.push((child, level + 1)));
    }
    deepest
}

/// True when a policy reads an attribute or a tag of an entity that it names itself. Questions hold
/// the caller and the target only, so that would fail whenever it is evaluated.
pub(super) fn reads_named_entity(policy: &Value) -> bool {
    let mut open: Vec<&Value> = conditions(policy).map(|(_, body)| body).collect();
    while let Some(expr) = open.pop() {
        let named = single(expr).is_some_and(|(op, body)| {
            matches!(op, "." | "has" | "getTag" | "hasTag")
                && body["left"]["Value"].get("__entity").is_some()
        });
        if named {
            return true;
        }
        each_child(expr, &mut |child| open.push(child));
    }
    false
}

/// The policy with everything `open` replaced in favour of the caller.
pub(super) fn weaken(policy: &Value, open: Open) -> Value {
    let permit = policy["effect"] == "permit";
    let mut out = policy.clone();
    if open == Open::Target {
        out["action"] = json!({"op": "All"});
        out["resource"] = json!({"op": "All"});
    }
    for condition in out["conditions"].as_array_mut().into_iter().flatten() {
        let when = condition["kind"] == "when";
        condition["body"] = rewrite(&condition["body"], open, permit == when);
    }
    out
}

fn rewrite(expr: &Value, open: Open, up: bool) -> Value {
    if !mentions(expr, open) {
        return expr.clone();
    }
    let Some((op, body)) = single(expr) else { return json!({ "Value": up }) };
    match op {
        "&&" | "||" => json!({ op: {
            "left": rewrite(&body["left"], open, up),
            "right": rewrite(&body["right"], open, up),
        }}),
        "!" => json!({ "!": { "arg": rewrite(&body["arg"], open, !up) } }),
        _ => json!({ "Value": up }),
    }
}

fn mentions(expr: &Value, open: Open) -> bool {
    if is_var(expr, "context") {
        return true;
    }
    if let Some(attribute) = attribute_of(expr, "context") {
        return attribute == "arguments";
    }
    if open == Open::Target {
        if is_var(expr, "resource") || is_var(expr, "action") {
            return true;
        }
        if is_about_server(expr) {
            return false;
        }
    }
    let mut found = false;
    each_child(expr, &mut |child| found = found || mentions(child, open));
    found
}

/// True for what is the same for every target of a server: `resource.server`, and
/// `resource in Server::"..."` or `Group::"..."`.
fn is_about_server(expr: &Value) -> bool {
    let Some((op, body)) = single(expr) else { return false };
    let target = is_var(&body["left"], "resource");
    match op {
        "." => target && body["attr"] == "server",
        "in" => {
            let kind = &body["right"]["Value"]["__entity"]["type"];
            target && (kind == "Server" || kind == "Group")
        }
        _ => false,
    }
}

pub(super) fn conditions(policy: &Value) -> impl Iterator<Item = (bool, &Value)> {
    let list = policy["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|c| (c["kind"] == "when", &c["body"]))
}

pub(super) fn single(expr: &Value) -> Option<(&str, &Value)> {
    let object = expr.as_object()?;
    let (op, body) = object.iter().next()?;
    (object.len() == 1).then_some((op.as_str(), body))
}

pub(super) fn is_var(expr: &Value, name: &str) -> bool {
    single(expr).is_some_and(|(op, body)| op == "Var" && body == name)
}

/// `x` of `VAR.x` and `VAR has x`.
pub(super) fn attribute_of<'a>(expr: &'a Value, var: &str) -> Option<&'a str> {
    let (op, body) = single(expr)?;
    if !matches!(op, "." | "has") || !is_var(&body["left"], var) {
        return None;
    }
    body["attr"].as_str()
}

/// Calls `visit` with each direct part of an expression.
pub(super) fn each_child<'a>(expr: &'a Value, visit: &mut dyn FnMut(&'a Value)) {
    let Some((op, body)) = single(expr) else { return };
    match (op, body) {
        ("Value" | "Var" | "Slot" | "Unknown", _) => {}
        ("Record", Value::Object(members)) => members.values().for_each(visit),
        (_, Value::Array(items)) => items.iter().for_each(visit),
        (_, Value::Object(parts)) => {
            for part in ["left", "right", "arg", "if", "then", "else", "in"] {
                if let Some(child) = parts.get(part) {
                    visit(child);
                }
            }
        }
        _ => {}
    }
}
