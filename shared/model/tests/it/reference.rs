//! The reference page of the resources says what is true.

use std::collections::BTreeSet;

use weir_model::resource::{Kind, Resource};
use weir_model::testing::World;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/resources.md");
    std::fs::read_to_string(path).unwrap()
}

fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn every_kind_has_an_example_and_all_of_them_fit_together() {
    let page = page();
    let world = World::new().documents(&examples(&page).join("---\n"));
    let snapshot = world.snapshot();
    assert_eq!(snapshot.problems, []);
    assert_eq!(snapshot.quarantined.len(), 0);
    let shown: BTreeSet<Kind> = world.set().iter().map(|r| r.key.kind).collect();
    for kind in Kind::ALL {
        assert!(page.contains(kind.as_str()), "{kind} is not on the page");
        assert!(shown.contains(kind) || kind.is_system(), "{kind} has no example");
    }
}

/// An example that leaves a field out does not explain it.
#[test]
fn every_field_is_on_the_page() {
    let page = page();
    let world = World::new().documents(&examples(&page).join("---\n"));
    let fields = |resource: &Resource| {
        let mut found = Vec::new();
        let text: serde_json::Value = serde_json::from_slice(&resource.canonical).unwrap();
        collect(&text["spec"], &mut found);
        found
    };
    for resource in world.set().iter().filter(|r| !r.key.kind.is_system()) {
        for field in fields(resource) {
            assert!(page.contains(&field), "{}: {field} is not on the page", resource.key);
        }
    }
    // Members that are left out when empty are in the list of what is known instead.
    for (kind, known) in [
        ("Region", "displayName, url"),
        (
            "Group",
            "displayName, regions, audit, pin, origins, anonymous, audience, scopes, certificates, signIn, staleAfterSecs, verbs, policyEpoch, sessions, extensions",
        ),
        ("Server", "displayName, versions, traffic, costs"),
        (
            "IdentityProvider",
            "issuer, audiences, keys, algorithms, preset, claims, overage, leewaySecs, signIn, logoutClients, allowPrivate",
        ),
        ("ServiceAccount", "displayName, memberships, scopes, tokens"),
        ("Role", "rules"),
        ("RoleBinding", "role, subjects"),
        ("Policy", "cedar"),
        ("Limit", "per, servers, tools, rate, concurrency, quota, count"),
        ("Revocation", "what, expires, because"),
        ("NodeRevocation", "because"),
    ] {
        let grouped = Kind::parse(kind).is_some_and(Kind::is_grouped);
        let group = if grouped { ", group: g" } else { "" };
        let text = format!(
            "{{apiVersion: weir/v1, kind: {kind}, metadata: {{name: x{group}}}, spec: {{nonsense: 1}}}}"
        );
        let errors = weir_model::resource::parse_documents(&text, &mut String::new).unwrap_err();
        let unknown = errors.iter().find(|e| e.path == "spec.nonsense").unwrap();
        assert_eq!(unknown.message, format!("unknown field; known are: {known}"));
        let section = page.split(&format!("## {kind}\n")).nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap_or_default();
        for field in known.split(", ") {
            assert!(section.contains(&format!("{field}:")), "{kind}: {field} has no example");
        }
    }
}

fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, inner) in map {
                found.push(format!("{key}:"));
                collect(inner, found);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|i| collect(i, found)),
        _ => {}
    }
}
