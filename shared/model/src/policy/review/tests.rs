//! What people are told about decisions, over a small company.

use serde_json::{Value, json};

use super::*;
use crate::policy::Action;
use crate::resource::{Rule, Subject};
use crate::snapshot::{GroupView, Snapshot};
use crate::testing::World;

const CAP: &str = "@id(\"cap\") forbid (principal, action == Action::\"CallTool\", resource == Tool::\"billing/refund\")
    unless { context.arguments.number.hasTag(\"amount\") && context.arguments.number.getTag(\"amount\") <= 100 };";
const STEP_UP: &str = "@id(\"step-up\") @scope(\"payments.write\") forbid (principal, action == Action::\"CallTool\", resource in Server::\"payments\")
    unless { principal.scopes.contains(\"payments.write\") };";
const APPROVED: &str = "@id(\"big\") @approval(\"cfo\") @audit(\"full\") permit (principal, action == Action::\"CallTool\", resource == Tool::\"billing/wire\")
    when { principal.memberships.contains(\"finance\") };";

fn world(policies: &[&str]) -> Snapshot {
    let rule = |servers: &str, tools: &str| Rule {
        servers: vec![servers.to_owned()],
        tools: vec![tools.to_owned()],
        ..Rule::default()
    };
    let mut world = World::new()
        .group("acme")
        .grant("acme", vec![rule("billing", "re*")], vec![Subject::Membership("support".into())])
        .grant("acme", vec![rule("payments", "*")], vec![Subject::Authenticated(true)]);
    for (at, cedar) in policies.iter().enumerate() {
        world = world.policy("acme", &format!("p{at}"), cedar);
    }
    let snapshot = world.snapshot();
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    snapshot
}

fn group(snapshot: &Snapshot) -> &GroupView {
    snapshot.group("acme").unwrap()
}

fn ask(group: &GroupView, caller: &Value, call: &Value) -> Ask {
    let (caller, call) = (
        serde_json::from_value(caller.clone()).unwrap(),
        serde_json::from_value(call.clone()).unwrap(),
    );
    Ask::new(group, (&caller, &call, &Place::default()), 1_795_426_200).unwrap()
}

#[test]
fn an_explanation_names_rules_and_what_would_be_needed() {
    let snapshot = world(&[CAP, STEP_UP, APPROVED]);
    let group = group(&snapshot);
    let support = json!({"user": "alice", "memberships": ["support"]});
    let nobody = json!({"user": "eve"});
    let refund = |n: i64| json!({"tool": "billing/refund", "arguments": {"amount": n}});
    // caller, call, answer, listed, deciding rule, what is needed
    let table = [
        (&support, refund(5), "allowed", true, "role:", ""),
        (
            &support,
            refund(500),
            "denied",
            true,
            "policy:p0#cap",
            "one of these is not met: `unless",
        ),
        (&nobody, refund(5), "denied", false, "", "the caller is one of: a member of support"),
        (
            &nobody,
            json!({"tool": "payments/send"}),
            "insufficient_scope",
            false,
            "policy:p1#step-up",
            "the scope: payments.write",
        ),
        (
            &json!({"user": "b", "memberships": ["finance"]}),
            json!({"tool": "billing/wire"}),
            "approval_required",
            true,
            "policy:p2#big",
            "the approval of cfo",
        ),
        (
            &nobody,
            json!({"tool": "billing/wire"}),
            "denied",
            false,
            "",
            "for policy:p2#big: `when { principal",
        ),
        (
            &nobody,
            json!({"prompt": "crm/hello"}),
            "denied",
            false,
            "",
            "that names crm/hello: none does",
        ),
        (&support, json!({"server": "billing"}), "allowed", true, "role:", ""),
    ];
    for (caller, call, answer, listed, rule, needed) in table {
        let got = explain(group, &ask(group, caller, &call));
        let what = format!("{caller} {call}: {got:#?}");
        assert_eq!((got.answer.as_str(), got.listed), (answer, listed), "{what}");
        assert_eq!(got.rules.is_empty(), rule.is_empty(), "{what}");
        assert!(rule.is_empty() || got.rules[0].starts_with(rule), "{what}");
        assert_eq!(got.needed.is_empty(), needed.is_empty(), "{what}");
        assert!(got.needed.iter().any(|n| n.contains(needed)) || needed.is_empty(), "{what}");
        // What is said to apply is what decided.
        for id in &got.rules {
            let rule = got.considered.iter().find(|considered| considered.rule == *id).unwrap();
            assert!(rule.applies || call.get("server").is_some(), "{what}");
        }
    }
}

#[test]
fn clauses_say_which_part_of_a_rule_is_not_met() {
    let snapshot = world(&[CAP]);
    let group = group(&snapshot);
    let caller = json!({"user": "alice", "memberships": ["support"]});
    let got = explain(
        group,
        &ask(group, &caller, &json!({"tool": "billing/refund", "arguments": {"amount": 7}})),
    );
    let cap = got.considered.iter().find(|rule| rule.rule == "policy:p0#cap").unwrap();
    assert_eq!((cap.effect.as_str(), cap.applies), ("forbid", false));
    assert!(cap.clauses[0].text.contains("resource == Tool::\"billing/refund\""), "{cap:?}");
    assert_eq!(cap.clauses[0].met, Some(true));
    assert!(cap.clauses[1].text.starts_with("unless {"), "{cap:?}");
    assert_eq!(cap.clauses[1].met, Some(false), "the exception holds, so the rule does not");
    let role = got.considered.iter().find(|rule| rule.rule.starts_with("role:")).unwrap();
    assert!(role.applies && role.clauses.len() == 2, "{role:?}");
}

#[test]
fn cases_pass_or_say_what_is_wrong() {
    let snapshot = world(&[CAP, STEP_UP]);
    let cases: Cases = serde_json::from_value(json!({"group": "acme", "cases": [
        {"name": "small", "caller": {"user": "a", "memberships": ["support"]},
         "call": {"tool": "billing/refund", "arguments": {"amount": 1}}, "expect": "allowed"},
        {"caller": {"user": "a", "memberships": ["support"]}, "call": {"tool": "billing/refund"},
         "expect": "denied", "rules": ["policy:p0#cap"]},
        {"caller": {"user": "a", "memberships": ["support"]}, "call": {"tool": "billing/refund"}, "expect": "listed"},
        {"caller": {"anonymous": true}, "call": {"tool": "payments/x"}, "expect": "hidden"},
        {"name": "wrong", "caller": {"user": "a"}, "call": {"tool": "payments/x"}, "expect": "allowed"},
        {"caller": {"user": "a"}, "call": {"tool": "payments/x"}, "expect": "insufficient_scope", "rules": []},
        {"caller": {}, "call": {"tool": "payments/x"}, "expect": "allowed"},
        {"caller": {"user": "a"}, "call": {"tool": "payments"}, "expect": "allowed"},
    ]})).unwrap();
    let verdicts: Vec<Verdict> = cases
        .cases
        .iter()
        .enumerate()
        .map(|(at, case)| case.check(group(&snapshot), at + 1, 0))
        .collect();
    let passed: Vec<bool> = verdicts.iter().map(|verdict| verdict.passed).collect();
    assert_eq!(passed, [true, true, true, true, false, false, false, false], "{verdicts:#?}");
    assert_eq!(verdicts[4].message, "expected allowed, got insufficient_scope");
    assert!(verdicts[4].explanation.as_ref().unwrap().needed[0].contains("payments.write"));
    assert!(verdicts[5].message.contains("policy:p1#step-up"), "{}", verdicts[5].message);
    assert_eq!(verdicts[1].name, "2");
    assert!(verdicts[6].message.contains("serviceAccount"), "{}", verdicts[6].message);
    assert!(verdicts[7].message.contains("server/name"), "{}", verdicts[7].message);
}

/// The record that a proxy writes for a question.
fn record(group: &GroupView, ask: &Ask, (kept, raw): (Option<&Value>, &str)) -> Value {
    let decision = ask.decide(&group.rules);
    let word = if decision.allowed { "allowed" } else { "denied" };
    let rules: Vec<Value> = decision
        .rules
        .iter()
        .map(|rule| json!({"decision": word, "policy": {"uid": &**rule}}))
        .collect();
    let method = match ask.action {
        Action::CallTool => "tools/call",
        Action::GetPrompt => "prompts/get",
        Action::ReadResource => "resources/read",
        Action::UseServer => "tools/list",
    };
    let mut record = json!({
        "metadata": {"uid": "eu-1/1/1", "tenant_uid": "acme"}, "time": 1_795_426_200_123_u64,
        "action_id": if decision.allowed { 1 } else { 2 }, "authorizations": rules,
        "actor": {"user": {"uid": ask.principal.id()}},
        "api": {"operation": method, "service": {"name": ask.server.as_str()}},
        "resources": [{"name": ask.target}], "src_endpoint": {"ip": "192.0.2.1"},
        "unmapped": {
            "region": "eu", "revision": 7, "front_revision": "2026-07-28",
            "arguments_sha256": crate::id::Digest::of(raw.as_bytes()),
            "judged": {
                "rules_sha256": group.rules.digest, "principal_sha256": ask.principal.digest(),
                "at": ask.context.now, "memberships": &*ask.principal.memberships,
                "scopes": &*ask.principal.scopes,
            },
        },
    });
    if let Some(kept) = kept {
        record["unmapped"]["arguments"] = kept.clone();
    }
    record
}

#[test]
fn a_decision_is_recomputed_from_its_record() {
    let snapshot = world(&[CAP]);
    let group = group(&snapshot);
    let caller = json!({"user": "alice", "provider": "okta", "memberships": ["support"]});
    for (amount, allowed) in [(5, true), (500, false)] {
        let raw = format!("{{\"amount\": {amount}}}");
        let arguments: Value = serde_json::from_str(&raw).unwrap();
        let asked = ask(group, &caller, &json!({"tool": "billing/refund", "arguments": arguments}));
        let written = record(group, &asked, (None, &raw));
        let read = Recorded::read(&written).unwrap();
        assert!(read.faithful && read.allowed == allowed, "{read:?}");
        // Without the arguments it cannot be told; with them, or with others, it can.
        let open = recompute(group, &read, None);
        assert_eq!(open.same, None, "{open:?}");
        assert_eq!(recompute(group, &read, Some(&raw)).same, Some(true));
        let other = recompute(group, &read, Some("{\"amount\": 7}"));
        assert!(other.same.is_none() && other.notes[0].contains("digest"), "{other:?}");
        let kept = Recorded::read(&record(group, &asked, (Some(&arguments), &raw))).unwrap();
        assert_eq!(recompute(group, &kept, None).same, Some(true));
        let masked = json!({"amount": super::super::obligation::REDACTED});
        let masked = Recorded::read(&record(group, &asked, (Some(&masked), &raw))).unwrap();
        assert_eq!(recompute(group, &masked, None).same, None);
    }
    let later = world(&[]);
    let asked = ask(group, &caller, &json!({"tool": "billing/refund"}));
    let read = Recorded::read(&record(group, &asked, (Some(&json!({})), "{}"))).unwrap();
    let elsewhere = recompute(self::group(&later), &read, None);
    assert!(elsewhere.same.is_none() && elsewhere.notes[0].contains("documents"), "{elsewhere:?}");
}

#[test]
fn a_replay_counts_who_gains_and_who_loses() {
    let (today, candidate) = (world(&[CAP]), world(&[CAP, STEP_UP, APPROVED]));
    let group = group(&today);
    let support = json!({"user": "alice", "provider": "okta", "memberships": ["support"]});
    let finance = json!({"serviceAccount": "books", "memberships": ["finance"]});
    let mut records = vec![json!({"metadata": {}}), json!({"action_id": 0})];
    for (caller, call, times) in [
        (&support, json!({"tool": "payments/send"}), 3),
        (&finance, json!({"tool": "payments/send"}), 1),
        (&finance, json!({"tool": "billing/wire"}), 2),
        (&support, json!({"tool": "billing/retry"}), 4),
        (&support, json!({"server": "billing"}), 1),
        // Reads arguments, which the record does not hold, before and after.
        (&support, json!({"tool": "billing/refund", "arguments": {"amount": 1}}), 5),
    ] {
        let asked = ask(group, caller, &call);
        records.extend((0..times).map(|_| record(group, &asked, (None, "{}"))));
    }
    let report = replay(group, self::group(&candidate), &records);
    assert_eq!((report.records, report.skipped), (18, 2), "{report:#?}");
    assert_eq!((report.unchanged, report.undecided, report.outdated), (5, 5, 0), "{report:#?}");
    let told = |all: &[Moved]| {
        all.iter().map(|m| format!("{} {} {}", m.principal, m.target, m.count)).collect::<Vec<_>>()
    };
    assert_eq!(
        told(&report.lost),
        ["jwt:okta:alice payments/send 3", "account:books payments/send 1"]
    );
    assert_eq!(told(&report.gained), ["account:books billing/wire 2"]);
    assert_eq!(report.lost[0].example.after, ["policy:p1#step-up"]);
    let mut twice = report.clone();
    twice.add(report);
    assert_eq!(
        told(&twice.lost),
        ["jwt:okta:alice payments/send 6", "account:books payments/send 2"]
    );
    let same = replay(group, group, &records);
    assert_eq!((same.unchanged, same.undecided), (16, 0), "{same:#?}");
}
