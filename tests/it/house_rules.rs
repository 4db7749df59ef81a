//! The rules of the house that neither the compiler nor clippy keeps. Each failure names the
//! rule, the place, and what to do.

mod edges;
mod pages;
mod support;
mod text;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the repository.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Its parent declares it for tests alone.
    for_tests: bool,
}

impl Source {
    /// The text without its trailing test module.
    fn product(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
    }

    /// True for files that exist for tests alone.
    fn is_test(&self) -> bool {
        let parts = self.path.split('/');
        let named = |part: &str| matches!(part, "tests" | "testing" | "benches" | "fuzz");
        self.for_tests || self.path.ends_with("tests.rs") || parts.into_iter().any(named)
    }

    fn is_generated(&self) -> bool {
        self.path.contains("/gen/")
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files with one of these endings, without what is built or hidden.
pub(crate) fn sources(endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            let hidden = name.starts_with('.') && name != ".ci";
            if entry.file_type().unwrap().is_dir() {
                if !hidden && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = std::fs::read_to_string(root().join(&path)).unwrap();
                let path = path.to_str().unwrap().replace('\\', "/");
                found.push(Source { path, text, for_tests: false });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no {endings:?} below {}", root().display());
    found
}

/// Rust that we wrote, tests included.
fn rust() -> Vec<Source> {
    let mut all = sources(&[".rs"]);
    all.retain(|source| !source.is_generated());
    let modules = all.iter().flat_map(test_modules).collect::<Vec<_>>();
    for source in &mut all {
        let stem = source.path.trim_end_matches(".rs");
        source.for_tests = modules.iter().any(|module| {
            stem.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
    }
    all
}

/// Paths, without `.rs`, of the modules that a file declares under a `cfg` of tests.
fn test_modules(source: &Source) -> Vec<String> {
    let folder = match source.path.rsplit_once('/') {
        Some((folder, "lib.rs" | "main.rs")) => folder,
        _ => source.path.trim_end_matches(".rs"),
    };
    let mut modules = Vec::new();
    let mut lines = source.text.lines();
    while let Some(line) = lines.next() {
        let tests =
            line == "#[cfg(test)]" || line.starts_with("#[cfg(") && line.contains("\"testing\"");
        let Some(next) = tests.then(|| lines.next()).flatten() else { continue };
        let declared = next.trim_end_matches(';').rsplit_once("mod ");
        if let Some((_, name)) = declared.filter(|_| next.ends_with(';')) {
            modules.push(format!("{folder}/{name}"));
        }
    }
    modules
}

/// Fails with the rule and every place where it is broken.
fn hold(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "\nThe rule: {rule}\nIs broken by:\n  {}\n", broken.join("\n  "));
}

fn metadata(extra: &[&str]) -> serde_json::Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["metadata", "--format-version", "1", "--offline"]);
    let output = command.args(extra).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
