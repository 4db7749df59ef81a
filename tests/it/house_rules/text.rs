//! Sizes and words.

use super::{Source, hold, root, rust, sources};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a file of tests.
const TEST_FILE_LINES_MAX: usize = 1_000;
/// Lines of code in a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that may be longer: composition roots, which are lists.
const LONG_FUNCTIONS: &[&str] = &[];

#[test]
fn files_stay_readable_in_one_sitting() {
    let mut broken = Vec::new();
    for source in rust() {
        let (lines, max) = match source.is_test() {
            true => (source.text.lines().count(), TEST_FILE_LINES_MAX),
            false => (source.product().lines().count(), FILE_LINES_MAX),
        };
        if lines > max {
            broken.push(format!("{}: {lines} lines, {max} are allowed", source.path));
        }
    }
    hold("a file is short; split it by what its parts are for", &broken);
}

#[test]
fn functions_fit_on_a_screen() {
    let mut broken = Vec::new();
    for source in rust().iter().filter(|source| !source.is_test()) {
        for (name, lines) in functions(source.product()) {
            let place = format!("{} {name}", source.path);
            if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.contains(&place.as_str()) {
                broken.push(format!("{place}: {lines} lines of code"));
            }
        }
    }
    hold("a function has at most 70 lines of code", &broken);
}

/// Names of functions with their lines of code. The formatter's indentation tells the ends.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let starts = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "pub(crate) async fn ",
            "pub(super) async fn ",
            "const fn ",
            "pub const fn ",
        ];
        let Some(rest) = starts.iter().find_map(|start| body.strip_prefix(start)) else { continue };
        // On one line, or without a body.
        if line.ends_with(['}', ';']) {
            continue;
        }
        let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
        let end = format!("{}}}", &line[..line.len() - body.len()]);
        let Some(len) = lines[at..].iter().position(|line| *line == end) else { continue };
        let code = |line: &&&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        found.push((name, lines[at + 1..at + len].iter().filter(code).count()));
    }
    found
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart, so that this file does not break its own rule.
    let words = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("for ", "now"),
        concat!("place", "holder"),
        concat!("not imple", "mented"),
        concat!("#[ig", "nore"),
    ];
    let endings =
        [".rs", ".md", ".yaml", ".yml", ".sh", ".proto", ".toml", ".cedarschema", "Makefile"];
    let mut broken = Vec::new();
    for source in sources(&endings).iter().filter(|source| !source.is_generated()) {
        for (number, line) in source.text.lines().enumerate() {
            let found = words.iter().find(|word| says(line, word));
            // The lint that forbids the macro has to name it; a measurement is no test.
            let fine = line.starts_with("todo = ") || line.ends_with("nore = \"a measurement\"]");
            if let Some(word) = found.filter(|_| !fine) {
                broken.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    hold("do it, or leave it out; no test is switched off", &broken);
}

/// True when the line holds the word as a word.
fn says(line: &str, word: &str) -> bool {
    let line =
        if word.chars().any(char::is_uppercase) { line.to_owned() } else { line.to_lowercase() };
    line.match_indices(word).any(|(at, _)| {
        let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !letter(line[..at].chars().next_back()) && !letter(line[at + word.len()..].chars().next())
    })
}

#[test]
fn modules_have_names_and_parents() {
    let mut broken = Vec::new();
    let all = rust();
    for source in &all {
        let Some((folder, name)) = source.path.rsplit_once('/') else { continue };
        let stem = name.trim_end_matches(".rs");
        if ["mod", "utils", "util", "common", "helpers", "manager", "misc"].contains(&stem) {
            broken.push(format!("{}: name it by what it is for", source.path));
        }
        let roots = ["/bin", "/tests", "/benches", "/fuzz_targets"];
        let root = roots.iter().any(|root| folder.ends_with(root))
            || matches!(stem, "main" | "lib")
            || name == "build.rs";
        if !root && !declared(&all, folder, stem) {
            broken.push(format!("{}: no parent declares it, so nobody builds it", source.path));
        }
    }
    hold("every file is a module of somebody, beside its parent", &broken);
}

fn declared(all: &[Source], folder: &str, stem: &str) -> bool {
    let parents = [format!("{folder}.rs"), format!("{folder}/main.rs"), format!("{folder}/lib.rs")];
    let declares = |line: &str| {
        let line = line.trim_start();
        let line = ["pub(crate) ", "pub(super) ", "pub "]
            .iter()
            .find_map(|word| line.strip_prefix(word))
            .unwrap_or(line);
        line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) == Some(stem)
    };
    all.iter().any(|source| parents.contains(&source.path) && source.text.lines().any(declares))
}

#[test]
fn errors_are_handled_and_the_environment_has_one_reader() {
    let (unwrap, unsafety) = (concat!(".unw", "rap()"), concat!("uns", "afe {"));
    let mut broken = Vec::new();
    for source in rust().iter().filter(|source| !source.is_test()) {
        for (number, line) in source.product().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let place = format!("{}:{}", source.path, number + 1);
            if code.contains(unwrap) {
                broken.push(format!("{place}: `expect` with the invariant, or an error"));
            }
            if code.contains(unsafety) {
                broken.push(format!("{place}: no unsafe code"));
            }
            let reads = code.contains("env::var(") || code.contains("env::vars(");
            if reads && !source.path.ends_with("settings.rs") && !source.path.ends_with("build.rs")
            {
                broken.push(format!("{place}: the environment is read in settings.rs"));
            }
        }
    }
    hold("no hidden panics, no hidden inputs", &broken);
}

#[test]
fn generated_types_stay_at_the_edges() {
    let edges = [
        "proto/",
        "shared/model/src/wire",
        "data-plane/src/config/",
        "control-plane/src/publish",
        "loadtest/src/fleet/",
    ];
    let mut broken = Vec::new();
    for source in rust().iter().filter(|source| !source.is_test()) {
        let edge = edges.iter().any(|edge| source.path.starts_with(edge));
        if !edge && source.product().contains("weir_proto") {
            broken.push(format!("{}: convert in shared/model/src/wire", source.path));
        }
    }
    hold("protobuf types appear where messages are encoded, sent and received", &broken);
}

#[test]
fn scripts_parse() {
    let mut broken = Vec::new();
    for source in sources(&[".sh", ".ci/run"]) {
        let shell = if source.text.starts_with("#!/bin/sh") { "sh" } else { "bash" };
        let path = root().join(&source.path);
        let output = std::process::Command::new(shell).arg("-n").arg(path).output().unwrap();
        if !output.status.success() {
            broken.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    hold("scripts are scripts", &broken);
}
