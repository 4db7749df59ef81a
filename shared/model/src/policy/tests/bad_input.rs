//! What operators get wrong: every source is named, with the place and the remedy.

use crate::policy::RuleSource;
use crate::resource::Subject;
use crate::testing::questions::{Docs, name};

fn refused(docs: &Docs, source: &RuleSource, parts: &[&str]) {
    let (_, errors) = docs.try_compile();
    let [(got, why)] = errors.as_slice() else { panic!("{docs:?}: {errors:?}") };
    assert_eq!(got, source, "{why}");
    for part in parts {
        assert!(why.contains(part), "{part:?} not in {why:?}");
    }
}

fn refused_text(cedar: &str, parts: &[&str]) {
    let docs = Docs::default().policy("mine", cedar);
    refused(&docs, &RuleSource::Policy(name("mine")), parts);
}

#[test]
fn cedar_text() {
    let deep = format!(
        "permit(principal, action, resource) when {{ {}true{} }};",
        "(".repeat(300),
        ")".repeat(300)
    );
    let chain = format!(
        "permit(principal, action, resource) when {{ {} }};",
        vec!["true"; 400].join(" && ")
    );
    let dots =
        format!("permit(principal, action, resource) when {{ context{} }};", ".a".repeat(900));
    let long = dots.replace(".a", ".a.a");
    let many = "permit(principal, action, resource);".repeat(201);
    let cases: &[(&str, &[&str])] = &[
        ("", &["no policy"]),
        ("permit(principal, action", &["line 1, column"]),
        (
            "permit(principal, action, resource)\nwhen { pricipal == resource };",
            &["line 2, column 8"],
        ),
        (&deep, &["deeper than 50", "line 1"]),
        (&chain, &["deeper than 200"]),
        (&dots, &["deeper than 200"]),
        (&long, &["more than 1000 operators"]),
        (&many, &["201 policies", "split"]),
        ("permit(principal == ?principal, action, resource);", &["templates"]),
        ("permit(principal == Robot::\"x\", action, resource);", &["Robot", "line 1"]),
        ("permit(principal, action == Action::\"Call\", resource);", &["Action::\"Call\""]),
        ("permit(principal, action, resource)\nwhen { principal.age > 3 };", &["line 2", "age"]),
        ("permit(principal, action, resource) when { resource.readOnly };", &["readOnly"]),
        (
            "permit(principal, action == Action::\"CallTool\", resource)\nwhen { context.arguments.number.getTag(\"n\") > 3 };",
            &["line 2", "n"],
        ),
        ("permit(principal, action, resource) when { context.peer.isLoopback() };", &["peer"]),
        ("permit(principal, action, resource) when { context.hour > \"9\" };", &["Long"]),
        (
            "forbid(principal, action, resource) when { resource is Tool && resource is Prompt };",
            &["impossible"],
        ),
        ("forbid(principal, action == Action::\"CallTool\", resource is Prompt);", &["line 1"]),
        ("forbid(principal, action, resource in Group::\"other\");", &["another group"]),
        ("forbid(principal, action, resource in Server::\"Big Billing\");", &["never match"]),
        ("forbid(principal, action, resource == Tool::\"refund\");", &["server/name"]),
        ("forbid(principal == Anonymous::\"bob\", action, resource);", &["is Anonymous"]),
        (
            "@id(\"a\") permit(principal, action, resource); @id(\"a\") forbid(principal, action, resource);",
            &["two policies", "\"a\""],
        ),
        (
            "permit(principal, action, resource) when { Server::\"crm\".name == \"crm\" };",
            &["named entity", "compare"],
        ),
        ("@id(\"a b\") permit(principal, action, resource);", &["@id", "1 to 40"]),
        (
            "permit(principal, action, resource) when { resource.name like \"\u{202e}x\" };",
            &["line 1"],
        ),
    ];
    for (cedar, parts) in cases {
        refused_text(cedar, parts);
    }
    refused_text(&"x".repeat(70_000), &["65536"]);
}

#[test]
fn roles_and_bindings() {
    let role = |rules| Docs::default().role("reader", rules);
    let of_role = RuleSource::Role(name("reader"));
    refused(&role(vec![]), &of_role, &["at least one rule"]);
    refused(&role(vec![Docs::rule("", "*", "", "")]), &of_role, &["rules[0]", "server pattern"]);
    refused(&role(vec![Docs::rule("a", "", "", "")]), &of_role, &["grants nothing"]);
    refused(
        &role(vec![Docs::rule("a", "x", "", ""), Docs::rule("a", "**a*b*c*d*e*f*g*h", "", "")]),
        &of_role,
        &["rules[1]: tools: pattern", "at most 8"],
    );
    refused(&role(vec![Docs::rule("a", "x", "", ""); 201]), &of_role, &["at most 200"]);

    let good = || role(vec![Docs::rule("*", "*", "", "")]);
    let of_binding = RuleSource::Binding(name("b"));
    let bound = |subjects| good().bind("b", "reader", subjects);
    refused(&bound(vec![]), &of_binding, &["subjects"]);
    refused(&bound(vec![Subject::User(String::new())]), &of_binding, &["subjects[0]", "empty"]);
    refused(&bound(vec![Subject::Anonymous(false)]), &of_binding, &["must be true"]);
    let unknown = good().bind("b", "writer", vec![Subject::Authenticated(true)]);
    refused(&unknown, &of_binding, &["role writer does not exist"]);
}

#[test]
fn one_bad_source_does_not_hide_another() {
    let (_, errors) = Docs::default()
        .role("empty", vec![])
        .bind("b", "nobody", vec![Subject::Authenticated(true)])
        .policy("one", "permit(")
        .policy("two", "permit(principal, action, resource);")
        .policy("three", "nonsense")
        .try_compile();
    let sources: Vec<_> = errors.into_iter().map(|(source, _)| source).collect();
    assert_eq!(
        sources,
        [
            RuleSource::Role(name("empty")),
            RuleSource::Binding(name("b")),
            RuleSource::Policy(name("one")),
            RuleSource::Policy(name("three")),
        ]
    );
}
