//! Decisions by hand: what grants, what forbids, what is left open, and what the answer says.

use crate::policy::{Decision, Rules};
use crate::resource::Subject;
use crate::testing::questions::{Docs, ask};

fn check(rules: &Rules, who: &str, what: &str, place: &str, expect: &str) -> Decision {
    let decision = ask(who, what, place).decide(rules);
    let mut got = if decision.allowed { "allowed".to_owned() } else { "denied".to_owned() };
    for rule in &decision.rules {
        got.push(' ');
        got.push_str(rule);
    }
    assert_eq!(got, expect, "{who} | {what} | {place}: {:?}", decision.errors);
    decision
}

#[test]
fn nothing_is_allowed_by_default() {
    let rules = Docs::default().compile();
    for what in ["call a/b", "read a/file:///x", "prompt a/p", "use a", "call a/b ?"] {
        check(&rules, "user:alice groups=admins", what, "", "denied");
    }
}

#[test]
fn roles_reach_whom_they_are_bound_to() {
    let rules = Docs::default()
        .role("reader", vec![Docs::rule("crm,wiki*", "get_*,list", "wiki://*", "ask")])
        .role("writer", vec![Docs::rule("crm", "set_*", "", "")])
        .bind(
            "people",
            "reader",
            vec![Subject::Membership("staff".into()), Subject::User("eve".into())],
        )
        .bind("ci", "reader", vec![Subject::ServiceAccount("ci".parse().unwrap())])
        .bind("ci-write", "writer", vec![Subject::ServiceAccount("ci".parse().unwrap())])
        .bind("any", "writer", vec![Subject::Anonymous(true)])
        .compile();
    let people = "allowed role:reader/binding:people";
    let cases = [
        ("user:bob groups=staff,x", "call crm/get_user", people),
        ("user:bob groups=staff", "call wiki-eu/list", people),
        ("user:bob groups=staff", "call crm/set_user", "denied"),
        ("user:bob groups=staff", "call hr/get_user", "denied"),
        ("user:bob groups=staff", "read wiki/wiki://a/b", people),
        ("user:bob groups=staff", "read wiki/file:///etc", "denied"),
        ("user:bob groups=staff", "prompt crm/ask", people),
        ("user:bob groups=staff", "use crm", people),
        ("user:bob groups=staff", "use hr", "denied"),
        ("user:bob groups=Staff", "call crm/list", "denied"),
        ("user:eve groups=staff", "call crm/list", people),
        ("user:ci", "call crm/list", "denied"),
        ("account:eve", "call crm/list", "denied"),
        ("certificate:eve", "call crm/list", "denied"),
        ("account:ci", "call crm/list", "allowed role:reader/binding:ci"),
        ("account:ci", "use crm", "allowed role:reader/binding:ci role:writer/binding:ci-write"),
        ("anonymous", "call crm/set_x", "allowed role:writer/binding:any"),
        ("user:anonymous", "call crm/set_x", "denied"),
        (
            "account:ci groups=staff",
            "call crm/list",
            "allowed role:reader/binding:people role:reader/binding:ci",
        ),
    ];
    for (who, what, expect) in cases {
        check(&rules, who, what, "", expect);
    }
}

#[test]
fn a_forbid_beats_every_grant_and_names_itself() {
    let rules = Docs::default()
        .open()
        .policy(
            "freeze",
            "@id(\"frozen\") @reason(\"audit week\")\nforbid(principal, action == Action::\"CallTool\", resource in Server::\"erp\") unless { resource.readOnly };",
        )
        .compile();
    let denied = check(&rules, "user:a", "call erp/post", "", "denied policy:freeze#frozen");
    assert_eq!(denied.obligations, [("reason".to_owned(), "audit week".to_owned())]);
    let allowed = "allowed role:all/binding:everyone";
    assert!(check(&rules, "user:a", "call erp/get read-only", "", allowed).obligations.is_empty());
    check(&rules, "user:a", "call crm/post", "", allowed);
    check(&rules, "user:a", "use erp", "", allowed);
    check(&rules, "user:a", "read erp/x://y", "", allowed);
    check(&rules, "anonymous", "call erp/get read-only", "", "denied");
}

#[test]
fn obligations_of_every_deciding_permit_hold() {
    let rules = Docs::default()
        .open()
        .policy(
            "p",
            "@audit(\"full\") permit(principal, action, resource is Tool);\n\
             @redact(\"$.card\") permit(principal, action, resource == Tool::\"a/b\");\n\
             @never(\"x\") permit(principal == User::\"z\", action, resource);",
        )
        .compile();
    let expect = "allowed role:all/binding:everyone policy:p#0 policy:p#1";
    let decision = check(&rules, "user:y", "call a/b", "", expect);
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(decision.obligations, [pair("audit", "full"), pair("redact", "$.card")]);
}

#[test]
fn open_arguments_help_the_caller_and_closed_ones_decide() {
    let rules = Docs::default()
        .policy(
            "cap",
            "permit(principal, action == Action::\"CallTool\", resource == Tool::\"pay/send\") when {
               context.arguments.number.hasTag(\"amount\") && context.arguments.number.getTag(\"amount\") <= 100
             };
             forbid(principal, action == Action::\"CallTool\", resource == Tool::\"pay/send\") when {
               context.arguments.text.hasTag(\"to\") && context.arguments.text.getTag(\"to\") like \"evil*\"
             };",
        )
        .compile();
    let may = check(&rules, "user:a", "call pay/send ?", "", "allowed policy:cap#0");
    assert!(may.reads_arguments && !may.reads_context);
    let good =
        check(&rules, "user:a", "call pay/send {\"amount\": 100}", "", "allowed policy:cap#0");
    assert!(good.reads_arguments);
    for bad in ["{}", "{\"amount\": 101}", "{\"amount\": 100.5}", "{\"amount\": \"1\"}", "[100]"] {
        check(&rules, "user:a", &format!("call pay/send {bad}"), "", "denied");
    }
    let evil = "call pay/send {\"amount\": 1, \"to\": \"evil.example\"}";
    check(&rules, "user:a", evil, "", "denied policy:cap#1");
    let other = check(&rules, "user:a", "call pay/list ?", "", "denied");
    assert!(!other.reads_arguments, "no policy concerns that tool");
    check(&rules, "user:a", "use pay", "", "allowed policy:cap#0");
    check(&rules, "user:a", "use crm", "", "denied");
}

#[test]
fn a_failing_policy_denies_and_is_named() {
    let rules = Docs::default()
        .open()
        .policy(
            "sum",
            "permit(principal, action == Action::\"CallTool\", resource) when {
               context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") + 1 > 0
             };
             permit(principal, action == Action::\"ReadResource\", resource) when {
               context.epoch * 9223372036854775807 > 0
             };",
        )
        .compile();
    let fine = "allowed role:all/binding:everyone policy:sum#0";
    check(&rules, "user:a", "call a/b {\"n\": 1}", "", fine);
    check(&rules, "user:a", "call a/b ?", "", fine);
    let full = "call a/b {\"n\": 9223372036854775807}";
    let decision = check(&rules, "user:a", full, "", "denied policy:sum#0");
    assert!(decision.errors[0].starts_with("policy:sum#0: "), "{:?}", decision.errors);
    let decision = check(&rules, "user:a", "read a/b://c", "", "denied policy:sum#1");
    assert!(decision.reads_context && !decision.reads_arguments);
}

#[test]
fn a_whole_server_is_reached_by_any_permit_that_could_apply() {
    let rules = Docs::default()
        .policy(
            "p",
            "permit(principal, action == Action::\"CallTool\", resource in Server::\"hr\") when {
               principal.memberships.contains(\"hr\") && resource.readOnly
             };
             permit(principal, action == Action::\"GetPrompt\", resource) when {
               resource.server like \"pub-*\" && resource.name != \"secret\"
             };
             permit(principal, action, resource) when { resource in Server::\"wiki\" };
             forbid(principal, action, resource) when { context.region == \"cn\" };
             forbid(principal, action == Action::\"CallTool\", resource);",
        )
        .compile();
    let cases = [
        ("user:a groups=hr", "use hr", "", "allowed policy:p#0"),
        ("user:a", "use hr", "", "denied"),
        ("user:a", "use pub-1", "", "allowed policy:p#1"),
        ("user:a", "use wiki", "", "allowed policy:p#2"),
        ("user:a", "use crm", "", "denied"),
        ("user:a groups=hr", "use hr", "region=cn", "denied policy:p#3"),
    ];
    for (who, what, place, expect) in cases {
        check(&rules, who, what, place, expect);
    }
}

#[test]
fn what_rules_read_is_known_before_they_run() {
    let reads = |cedar: &str| {
        let rules = Docs::default().policy("p", cedar).compile();
        let decision = ask("user:a", "call a/b ?", "").decide(&rules);
        (decision.reads_arguments, decision.reads_context)
    };
    let policy = |when: &str| {
        format!("permit(principal, action == Action::\"CallTool\", resource) when {{ {when} }};")
    };
    let cases = [
        ("principal.subject == \"a\"", (false, false)),
        ("resource.name like \"x*\"", (false, false)),
        ("context.region == \"eu\"", (false, true)),
        ("context has peer", (false, true)),
        ("context.arguments.paths.contains(\"x\")", (true, false)),
        ("!context.arguments.flag.hasTag(principal.subject)", (true, false)),
        ("{a: context.arguments.text}.a.hasTag(\"x\")", (true, false)),
        ("[context.region].contains(\"x\") && context.arguments.words.hasTag(\"x\")", (true, true)),
        ("{\"Value\": context.arguments.paths}.Value.contains(\"x\")", (true, false)),
    ];
    for (when, expect) in cases {
        assert_eq!(reads(&policy(when)), expect, "{when}");
    }
    assert_eq!(
        reads(
            "permit(principal, action == Action::\"GetPrompt\", resource) when { context.hour > 3 };"
        ),
        (false, false),
        "policies of other actions do not count"
    );
}

#[test]
fn computed_paths_and_the_set_of_paths_work() {
    let rules = Docs::default()
        .policy(
            "p",
            "permit(principal, action == Action::\"CallTool\", resource) when {
               context.arguments.paths.containsAll([\"a/0\", \"a\", \"b\"])
               && context.arguments.text.hasTag(principal.subject)
             };",
        )
        .compile();
    check(&rules, "user:b", "call x/y {\"a\": [null], \"b\": \"\"}", "", "allowed policy:p#0");
    check(&rules, "user:b", "call x/y {\"a\": [null], \"b\": 1}", "", "denied");
    let huge = serde_json::json!({ "a": vec![0; 3_000], "b": "" });
    let decision = check(&rules, "user:b", &format!("call x/y {huge}"), "", "denied");
    assert!(decision.errors[0].contains("2000 paths"), "{:?}", decision.errors);
}

#[test]
fn the_digest_moves_with_every_source() {
    let base = Docs::default().open();
    let digests = [
        base.compile().digest,
        base.clone().policy("p", "permit(principal, action, resource);").compile().digest,
        base.clone().policy("q", "permit(principal, action, resource);").compile().digest,
        base.clone().bind("x", "all", vec![Subject::User("a".into())]).compile().digest,
        base.clone().bind("x", "all", vec![Subject::User("b".into())]).compile().digest,
        base.clone().role("x", vec![Docs::rule("a", "b", "", "")]).compile().digest,
    ];
    let distinct: std::collections::HashSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
    assert_eq!(base.compile().digest, base.clone().compile().digest);
}
