//! Compares two runs of the conformance suite, check by check.
//!
//! What a server scores says little: a dead address passes dozens of checks. What counts is that
//! a run through the gateway ends, check by check, as the run without it. Checks that are known
//! to end worse are listed by name with the reason; an entry that no longer applies is an error,
//! so that the list only shrinks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

/// Checks that a run against a live server passes at least.
pub const PASSED_MIN: usize = 50;

/// Outcomes of a run: how often each check of each scenario ended in which way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    checks: BTreeMap<(String, String), Vec<Status>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Failure,
    Warning,
    Skipped,
    Success,
    Info,
}

#[derive(Debug, Deserialize)]
struct Check {
    id: String,
    status: Status,
}

/// A check that may end worse through the gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// MCP revision of the run.
    pub revision: String,
    /// Scenario.
    pub scenario: String,
    /// Check of it; all of them without one.
    pub check: Option<String>,
    /// Why, and what would change it.
    pub why: String,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// For people.
    pub text: String,
    /// Checks that end alike.
    pub alike: usize,
    /// Checks that end worse, and are not known to; entries that no longer apply.
    pub wrong: usize,
}

impl Run {
    /// Reads the folder that the suite wrote: one folder per scenario.
    ///
    /// # Errors
    /// When the folder or a file in it is not what the suite writes.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut run = Self::default();
        let place = || format!("read {}", folder.display());
        for entry in std::fs::read_dir(folder).with_context(place)? {
            let path = entry.with_context(place)?.path();
            if !path.is_dir() {
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let scenario = scenario(name);
            // A scenario that threw leaves no file behind: it has failed.
            let checks = match std::fs::read(path.join("checks.json")) {
                Ok(text) => serde_json::from_slice(&text).with_context(|| name.to_owned())?,
                Err(_) => vec![Check { id: "threw".to_owned(), status: Status::Failure }],
            };
            run.add(scenario, checks);
        }
        Ok(run)
    }

    fn add(&mut self, scenario: &str, checks: Vec<Check>) {
        for check in checks.into_iter().filter(|check| check.status != Status::Info) {
            let key = (scenario.to_owned(), check.id);
            self.checks.entry(key).or_default().push(check.status);
        }
        self.checks.values_mut().for_each(|list| list.sort_unstable());
    }

    fn passed(&self) -> usize {
        self.checks.values().flatten().filter(|status| **status == Status::Success).count()
    }
}

/// `server-tools-list-2026-11-23T08-55-36-692Z` is a run of `tools-list`.
fn scenario(folder: &str) -> &str {
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    let stamp = name.len().checked_sub("-2026-11-23T08-55-36-692Z".len());
    match stamp.and_then(|at| name.split_at_checked(at)) {
        Some((name, stamp)) if stamp.starts_with('-') && stamp.ends_with('Z') => name,
        _ => name,
    }
}

/// True when the second ends worse than the first.
fn worse(direct: &[Status], through: &[Status]) -> bool {
    let bad = |list: &[Status]| {
        list.iter().filter(|status| matches!(status, Status::Failure | Status::Warning)).count()
    };
    let good = |list: &[Status]| list.iter().filter(|status| **status == Status::Success).count();
    bad(through) > bad(direct) || good(through) < good(direct)
}

/// Compares a run through the gateway with one without it, which has to pass `least` checks.
pub fn compare(
    revision: &str,
    (direct, least): (&Run, usize),
    through: &Run,
    known: &[Known],
) -> Verdict {
    let mut verdict = Verdict::default();
    let known = known.iter().filter(|known| known.revision == revision).collect::<Vec<_>>();
    let mut used = vec![false; known.len()];
    let mut say = |wrong: bool, line: String| {
        verdict.wrong += usize::from(wrong);
        // Writing to a String cannot fail.
        let _ = writeln!(verdict.text, "  {line}");
    };
    if direct.passed() < least {
        say(true, format!("the run without the gateway passed {} checks only", direct.passed()));
    }
    let mut keys = direct.checks.keys().chain(through.checks.keys()).collect::<Vec<_>>();
    keys.sort();
    keys.dedup();
    for key in keys {
        let ends = |run: &Run| run.checks.get(key).cloned().unwrap_or_default();
        let (before, after) = (ends(direct), ends(through));
        let (scenario, check) = key;
        if before == after {
            verdict.alike += before.len();
        } else if !worse(&before, &after) {
            say(false, format!("differs, not for the worse: {scenario}:{check}"));
        } else {
            let fits = |known: &&Known| {
                known.scenario == *scenario && known.check.as_ref().is_none_or(|c| c == check)
            };
            let entry = known.iter().position(fits);
            if let Some(at) = entry {
                used[at] = true;
            }
            let word = if entry.is_some() { "known" } else { "NEW" };
            say(
                entry.is_none(),
                format!("{word}: {scenario}:{check} direct {before:?} through {after:?}"),
            );
        }
    }
    for (known, _) in known.iter().zip(used).filter(|(_, used)| !used) {
        let check = known.check.as_deref().unwrap_or("*");
        say(
            true,
            format!("STALE: {}:{check} ends alike now; take it off the list", known.scenario),
        );
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(checks: &[(&str, Status)]) -> Run {
        let mut run = Run::default();
        let many = (0..PASSED_MIN).map(|_| Check { id: "many".into(), status: Status::Success });
        run.add("base", many.collect());
        for (id, status) in checks {
            run.add("s", vec![Check { id: (*id).to_owned(), status: *status }]);
        }
        run
    }

    fn known(check: Option<&str>) -> Known {
        Known {
            revision: "r".into(),
            scenario: "s".into(),
            check: check.map(str::to_owned),
            why: String::new(),
        }
    }

    #[test]
    fn only_what_ends_worse_and_is_not_known_is_wrong() {
        use Status::{Failure, Skipped, Success, Warning};
        let cases: &[(&str, Status, Status, &[Known], usize)] = &[
            ("alike", Success, Success, &[], 0),
            ("worse", Success, Failure, &[], 1),
            ("a warning is worse", Success, Warning, &[], 1),
            ("not reached is worse", Success, Skipped, &[], 1),
            ("better", Failure, Success, &[], 0),
            ("known", Success, Failure, &[known(Some("c"))], 0),
            ("scenario known", Success, Failure, &[known(None)], 0),
            ("another one known", Success, Failure, &[known(Some("d"))], 2),
            ("stale", Success, Success, &[known(Some("c"))], 1),
        ];
        for (name, direct, through, known, wrong) in cases {
            let (direct, through) = (run(&[("c", *direct)]), run(&[("c", *through)]));
            let verdict = compare("r", (&direct, PASSED_MIN), &through, known);
            assert_eq!(verdict.wrong, *wrong, "{name}: {}", verdict.text);
        }
    }

    #[test]
    fn a_dead_server_is_no_baseline_and_a_missing_check_is_worse() {
        let dead = Run::default();
        assert_eq!(compare("r", (&dead, PASSED_MIN), &dead, &[]).wrong, 1);
        let live = run(&[("c", Status::Success)]);
        assert_eq!(compare("r", (&live, PASSED_MIN), &run(&[]), &[]).wrong, 1);
    }

    #[test]
    fn folders_name_their_scenario() {
        assert_eq!(scenario("server-tools-list-2026-11-23T08-55-36-692Z"), "tools-list");
        assert_eq!(scenario("server-ping"), "ping");
    }
}
