//! Dependencies point one way, and the manifests are the proof.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::{hold, metadata, root};

/// Which of our crates each of ours may name, tests apart. Nothing else is allowed.
const EDGES: &[(&str, &[&str])] = &[
    ("weir-proto", &[]),
    ("weir-protoc", &[]),
    ("weir-model", &["weir-proto"]),
    ("weir-runtime", &[]),
    ("weir-audit", &["weir-model", "weir-runtime"]),
    ("control-plane", &["weir-audit", "weir-model", "weir-proto", "weir-runtime"]),
    ("data-plane", &["weir-audit", "weir-model", "weir-proto", "weir-runtime"]),
    ("weir", &["control-plane", "data-plane", "weir-audit", "weir-model", "weir-runtime"]),
    ("weir-loadtest", &[]),
    ("weir-peers", &[]),
];

/// Which of our crates tests may name beyond that.
const TEST_EDGES: &[(&str, &[&str])] = &[
    // Own crates with their feature `testing`.
    ("weir-model", &["weir-model"]),
    ("weir-audit", &["weir-audit", "weir-model", "weir-runtime"]),
    ("control-plane", &["control-plane", "weir-audit", "weir-model", "weir-runtime"]),
    ("data-plane", &["data-plane", "weir-audit", "weir-model", "weir-peers", "weir-runtime"]),
    (
        "weir",
        &["control-plane", "data-plane", "weir-audit", "weir-model", "weir-peers", "weir-runtime"],
    ),
];

/// What must not be linked, at any depth, and why.
const ABSENT: &[(&str, &[&str], &str)] = &[
    ("weir-model", &["tokio", "hyper", "tonic", "reqwest", "rustls"], "the model does no I/O"),
    ("weir-proto", &["etcd-client", "reqwest"], "the wire is the wire and nothing else"),
    (
        "data-plane",
        &["etcd-client", "redb", "axum-server", "rmcp"],
        "a proxy has no store of its own",
    ),
    ("weir", &["ring", "rsa", "openssl", "reqwest", "rmcp"], "one TLS stack, one crypto provider"),
];

fn packages(metadata: &Value) -> Vec<&Value> {
    metadata["packages"].as_array().unwrap().iter().collect()
}

#[test]
fn our_crates_name_each_other_one_way() {
    let metadata = metadata(&["--no-deps"]);
    let packages = packages(&metadata);
    let ours: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let listed: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, listed, "a new crate needs its row in EDGES");
    let mut broken = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let row = |table: &[(&str, &'static [&'static str])]| {
            table.iter().find(|(from, _)| *from == name).map_or(&[][..], |(_, to)| *to)
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let test = dependency["kind"] == "dev";
            let allowed = row(EDGES).contains(&to) || test && row(TEST_EDGES).contains(&to);
            if ours.contains(to) && !allowed {
                broken.push(format!("{name} names {to}{}", if test { " in tests" } else { "" }));
            }
        }
    }
    hold("crate edges are those of EDGES in this test", &broken);
}

#[test]
fn what_must_be_absent_is_absent_at_any_depth() {
    let rustc = Command::new("rustc").arg("-vV").current_dir(root()).output().unwrap();
    let text = String::from_utf8(rustc.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = metadata(&["--filter-platform", host]);
    let names: BTreeMap<&str, &str> = packages(&metadata)
        .into_iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let mut broken = Vec::new();
    for (from, absent, why) in ABSENT {
        let start = names.iter().find(|(_, name)| *name == from).unwrap().0;
        // Which crate brought it, to tell the way from our crate to the culprit.
        let mut by: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = vec![*start];
        while let Some(id) = next.pop() {
            for dependency in nodes[id]["deps"].as_array().unwrap() {
                let kinds = dependency["dep_kinds"].as_array().unwrap();
                let to = dependency["pkg"].as_str().unwrap();
                if kinds.iter().any(|kind| kind["kind"].is_null()) && !by.contains_key(to) {
                    by.insert(to, id);
                    next.push(to);
                }
            }
        }
        for id in by.keys().filter(|id| absent.contains(&names[**id])) {
            let mut way = vec![names[id]];
            let mut at = *id;
            while at != *start {
                at = by[at];
                way.insert(0, names[at]);
            }
            broken.push(format!("{} ({why})", way.join(" -> ")));
        }
    }
    hold("some crates are absent on purpose (ABSENT in this test)", &broken);
}

#[test]
fn every_crate_has_the_licence_and_the_lints_of_the_workspace() {
    let metadata = metadata(&["--no-deps"]);
    let mut broken = Vec::new();
    for package in packages(&metadata) {
        let manifest = package["manifest_path"].as_str().unwrap();
        let text = std::fs::read_to_string(manifest).unwrap();
        if package["license"] != "Apache-2.0" {
            broken.push(format!("{manifest}: license.workspace = true is missing"));
        }
        if package["publish"] != serde_json::json!([]) {
            broken.push(format!("{manifest}: publish.workspace = true is missing"));
        }
        if !text.contains("[lints]\nworkspace = true") {
            broken.push(format!("{manifest}: [lints] workspace = true is missing"));
        }
        for line in text.lines().filter(|line| line.contains("version = \"")) {
            if !manifest.ends_with(&root().join("Cargo.toml").display().to_string()) {
                broken.push(format!("{manifest}: versions stand in the root manifest: {line}"));
            }
        }
    }
    hold("manifests inherit licence, lints and versions", &broken);
}
