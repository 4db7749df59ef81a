//! Dependencies point one way, and the manifests are the proof.

use std::collections::BTreeSet;
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
    // It plays many proxies, with their own code.
    ("weir-loadtest", &["data-plane", "weir-model", "weir-proto", "weir-runtime"]),
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
        &[
            "control-plane",
            "data-plane",
            "weir-audit",
            "weir-loadtest",
            "weir-model",
            "weir-peers",
            "weir-runtime",
        ],
    ),
];

/// What must not be linked, at any depth, and why.
const ABSENT: &[(&str, &[&str], &str)] = &[
    ("weir-model", &["tokio", "hyper", "tonic", "reqwest", "rustls"], "the model does no I/O"),
    ("weir-proto", &["etcd-client", "reqwest"], "the wire is the wire and nothing else"),
    ("data-plane", &["etcd-client", "redb", "rmcp"], "a proxy has no store of its own"),
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

/// `cargo tree` picks the features that the crate has when it is built for itself.
fn tree(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["tree", "--offline", "--locked", "--edges", "normal"]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_must_be_absent_is_absent_at_any_depth() {
    let mut broken = Vec::new();
    for (from, absent, why) in ABSENT {
        let all = tree(&["--package", from, "--prefix", "none"]);
        let names: BTreeSet<&str> = all.lines().filter_map(|l| l.split(' ').next()).collect();
        assert!(names.contains(from), "{all}");
        for culprit in absent.iter().filter(|name| names.contains(*name)) {
            let way = tree(&["--package", from, "--invert", culprit]);
            broken.push(format!("{from} links {culprit} ({why}):\n{way}"));
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
