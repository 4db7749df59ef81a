//! That the evaluator says what Cedar says, construct by construct; whole policies are compared by
//! the oracle.

use crate::policy::native;
use crate::policy::review::Ask;
use crate::testing::questions::{self, Docs};

/// Conditions, and whether they need no Cedar.
const CONDITIONS: &[(&str, bool)] = &[
    ("principal.subject == \"a\" || principal.provider == \"okta\"", true),
    ("principal.proof == \"jwt\" && principal.credential != \"\"", true),
    ("principal.memberships == [\"ops\"]", true),
    ("principal.memberships.containsAny([\"ops\", \"z\"])", true),
    ("[\"ops\", \"z\"].containsAll(principal.memberships)", true),
    ("principal.memberships.isEmpty()", true),
    ("principal.scopes.containsAll([\"x\"])", true),
    ("principal in [User::\"a\", User::\"q\"]", true),
    ("principal is User in User::\"a\"", true),
    ("[principal].containsAny([principal])", true),
    ("principal has subject && resource has name", true),
    ("resource has readOnly && resource.readOnly", true),
    ("resource in [Server::\"crm\", Server::\"x\"]", true),
    ("resource in Group::\"acme\"", true),
    ("resource == Tool::\"crm/send\" || resource == Server::\"crm\"", true),
    ("resource is Tool in Server::\"erp\"", true),
    ("resource.name like \"s\\*d\" || resource.name like \"s*n*\"", true),
    ("resource.name like \"send\" || resource.name like \"*\"", true),
    ("action in [Action::\"CallTool\", Action::\"UseServer\"]", true),
    ("action != Action::\"CallTool\"", true),
    ("context.hour * 60 + context.minute - 1 >= 179", true),
    ("-context.weekday < -3", true),
    ("context.now >= datetime(\"2026-11-23T03:00:00.000+0000\")", true),
    ("context.now == datetime(\"2026-11-23T12:00:00Z\")", true),
    ("context.now.toTime() < duration(\"6h\")", false),
    ("context.epoch > 1795392000", true),
    ("context has peer && context.peer.isIpv4()", true),
    ("context has peer && context.peer.isInRange(ip(\"10.0.0.0/8\"))", true),
    ("context has peer && context.peer.isInRange(ip(\"10.1.2.3/31\"))", true),
    ("context has peer && context.peer.isInRange(ip(\"0.0.0.0/0\"))", true),
    ("context has peer && context.peer.isInRange(ip(\"2001:db8::/32\"))", true),
    ("context has peer && context.peer.isInRange(ip(\"::/0\"))", true),
    ("context has peer && context.peer == ip(\"10.1.2.3\")", true),
    ("context has peer && (context.peer.isLoopback() || context.peer.isMulticast())", true),
    ("ip(\"127.0.0.0/7\").isLoopback() || ip(\"224.0.0.0/4\").isMulticast()", true),
    ("context has region && context.client == \"x\" && context.revision like \"2025*\"", true),
    ("context.era == \"modern\" || context.era like \"l*\" && context.revision != \"\"", true),
    (
        "if context.arguments.flag.hasTag(\"f\") then context.arguments.flag.getTag(\"f\") else true",
        true,
    ),
    (
        "context.arguments.decimal.hasTag(\"n\") && context.arguments.decimal.getTag(\"n\").greaterThanOrEqual(decimal(\"2.2500\"))",
        true,
    ),
    (
        "context.arguments.decimal.hasTag(\"n\") && context.arguments.decimal.getTag(\"n\") == decimal(\"7.0\")",
        true,
    ),
    (
        "context.arguments.words.hasTag(\"w\") && context.arguments.words.getTag(\"w\").contains(\"e\")",
        true,
    ),
    (
        "context.arguments.words.hasTag(\"w\") && [\"e\", \"f\"].containsAll(context.arguments.words.getTag(\"w\"))",
        true,
    ),
    (
        "context.arguments.words.hasTag(\"w\") && context.arguments.words.getTag(\"w\") == [\"f\", \"e\"]",
        true,
    ),
    (
        "context.arguments.words.hasTag(\"w\") && context.arguments.words.getTag(\"w\").isEmpty()",
        true,
    ),
    ("context.arguments.paths.containsAll([\"o\", \"o/s\"])", true),
    ("context.arguments.paths.containsAny([\"q~1r\", \"zz\"])", true),
    ("context.arguments.paths.contains(\"w/0\")", true),
    (
        "context.arguments.paths.contains(\"w/00\") || context.arguments.paths.contains(\"q~r\")",
        true,
    ),
    ("context.arguments.paths.isEmpty()", false),
    ("context.arguments.text.hasTag(principal.subject)", false),
    ("{a: 1}.a == 1", false),
    // Fail on some of the questions.
    ("resource is Tool || resource.name == \"x\" || context.hour * 9223372036854775807 == 0", true),
    (
        "context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") + 1 > 0",
        true,
    ),
    (
        "context.arguments.number.hasTag(\"n\") && -(context.arguments.number.getTag(\"n\")) - 2 < 0",
        true,
    ),
];

const CALLERS: [&str; 5] = [
    "user:a groups=ops scopes=x provider=okta credential=cli",
    "user:b groups=q,z",
    "account:a groups=ops,z",
    "certificate:a",
    "anonymous",
];
const CALLS: [&str; 12] = [
    "call crm/send ?",
    "call crm/s*d {\"n\": 7, \"f\": true, \"w\": [\"e\"], \"o\": {\"s\": 1}}",
    "call crm/send read-only",
    "call erp/get {\"n\": 2.25, \"f\": false, \"w\": [\"e\", \"f\", \"e\"], \"q/r\": null}",
    "call erp/get {\"n\": 9223372036854775807, \"w\": [], \"q~r\": 1, \"o\": []}",
    "call x/send {\"n\": -9223372036854775808, \"w\": [\"e\", 1]}",
    "call x/send {\"n\": \"7\", \"f\": \"true\", \"w\": [\"g\"]}",
    "call x/send [1, 2]",
    "read crm/a://b",
    "prompt crm/send {\"n\": \"x\"}",
    "prompt crm/send ?",
    "use crm",
];
const PLACES: [&str; 5] = [
    "",
    "region=eu hour=3 client=x",
    "hour=2 weekday=5 peer=10.1.2.3",
    "hour=0 peer=2001:db8::1",
    "hour=23 weekday=7 peer=127.0.0.9",
];

#[test]
fn every_construct_means_what_it_means_to_cedar() {
    let mut met = [0_usize; 2];
    for (condition, alone) in CONDITIONS {
        for effect in ["permit", "forbid"] {
            let cedar = format!(
                "@note(\"x\") {effect} (principal, action, resource) when {{ {condition} }};"
            );
            let docs = Docs::default().policy("p", &cedar);
            let docs = if effect == "forbid" { docs.open() } else { docs };
            let (rules, errors) = docs.try_compile();
            assert!(errors.is_empty(), "{condition}: {errors:?}");
            let json = cedar.parse::<cedar_policy::Policy>().unwrap().to_json().unwrap();
            assert_eq!(native::of_policy(&json).is_some(), *alone, "{condition}");
            for (who, what, place) in questions() {
                let ask = questions::ask(who, what, place);
                let expect = ask.put(|q| rules.decide_by_cedar(q));
                met[usize::from(expect.allowed)] += 1;
                assert_eq!(ask.decide(&rules), expect, "{condition}: {who} | {what} | {place}");
                let Some(residual) = ask.put(|q| rules.residual(q)) else {
                    assert!(!alone, "{condition}");
                    continue;
                };
                // Made of another call to the same target, at another place.
                for other in PLACES {
                    let there =
                        Ask { context: questions::ask(who, what, other).context, ..ask.clone() };
                    let finished = there.put(|q| rules.finish(&residual, q));
                    let expect = there.put(|q| rules.decide_by_cedar(q));
                    assert_eq!(finished, expect, "{condition}: {who} | {what} | {other}");
                }
            }
        }
    }
    assert!(met[0] > 500 && met[1] > 500, "{met:?}");
}

fn questions() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    CALLERS.into_iter().flat_map(|who| {
        CALLS.into_iter().flat_map(move |what| PLACES.map(move |place| (who, what, place)))
    })
}

#[test]
fn a_residual_is_closed_when_the_caller_alone_decides() {
    let cap = "forbid (principal, action == Action::\"CallTool\", resource) \
        unless { principal.memberships.contains(\"leads\") || \
        (context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") < 9) };";
    let rules = Docs::default().policy("cap", cap).open().compile();
    for (who, closed) in [("user:a groups=leads", true), ("user:a", false)] {
        let residual =
            questions::ask(who, "call crm/pay {\"n\": 3}", "").put(|q| rules.residual(q));
        assert_eq!(residual.unwrap().is_closed(), closed, "{who}");
    }
}

#[test]
fn sets_too_large_to_compare_here_are_left_to_cedar() {
    let cedar = "permit (principal, action, resource) when { \
        context.arguments.words.hasTag(\"w\") && \
        context.arguments.words.getTag(\"w\").containsAny(context.arguments.words.getTag(\"w\")) };";
    let rules = Docs::default().policy("p", cedar).compile();
    let many = serde_json::json!({ "w": (0..300).map(|n| n.to_string()).collect::<Vec<_>>() });
    let ask = Ask { arguments: Some(many), ..questions::ask("user:a", "call crm/send", "") };
    assert!(ask.decide(&rules).allowed);
    assert_eq!(ask.decide(&rules), ask.put(|q| rules.decide_by_cedar(q)));
}
