//! What to run, as a TOML file says it.
//!
//! A plan has targets, scenarios that are run against them, and goals that the figures are held
//! against. `${NAME}` anywhere in the file is replaced by the environment's variable of that name,
//! so that ports, tokens and process ids of a run come from the script that starts it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::era::Era;
use crate::goal::Goal;

/// A whole run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// For the report.
    pub name: String,
    /// How often each target is measured in each scenario; medians are over rounds.
    #[serde(default = "five")]
    pub rounds: u32,
    /// Where.
    pub targets: Vec<Target>,
    /// What.
    pub scenarios: Vec<Scenario>,
    /// What the figures are held against.
    #[serde(default)]
    pub goals: Vec<Goal>,
}

fn five() -> u32 {
    5
}

/// One endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// For the report; unique.
    pub name: String,
    /// `http://host:port/path`; loopback only, so that a run can never hit somebody else.
    pub url: String,
    /// The HTTP+SSE endpoint, for scenarios at revision 2024-11-05.
    pub sse_url: Option<String>,
    /// Bearer token; of several, separated by commas, connections use one after the other.
    pub token: Option<String>,
    /// Prefix of tool names (an aggregating endpoint's `server__`).
    #[serde(default)]
    pub tool_prefix: String,
    /// The revision that is spoken unless the scenario says otherwise.
    #[serde(default)]
    pub era: Era,
    /// Processes whose CPU and memory count for this target: ids, separated by commas.
    #[serde(default)]
    pub pids: String,
}

impl Target {
    /// The token of the next connection.
    pub fn next_token(&self) -> Option<&str> {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let all: Vec<&str> = self.token.as_deref()?.split(',').collect();
        Some(all[TURN.fetch_add(1, Ordering::Relaxed) % all.len()])
    }

    /// The process ids.
    pub fn processes(&self) -> Vec<u32> {
        self.pids.split(',').filter_map(|pid| pid.trim().parse().ok()).collect()
    }
}

/// One kind of load, against several targets in turn.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For the report; unique.
    pub name: String,
    /// Names of targets; the first is what the others are compared with. Empty: all.
    #[serde(default)]
    pub targets: Vec<String>,
    /// Revisions; each makes a row of its own. Empty: each target's own.
    #[serde(default)]
    pub eras: Vec<Era>,
    /// Instead of the plan's.
    pub rounds: Option<u32>,
    /// What is called, in which proportions.
    pub work: Vec<Share>,
    /// How it is paced.
    pub pace: Pace,
}

/// Work, and how much of the mix it is.
#[derive(Debug, Clone, Deserialize)]
pub struct Share {
    /// Out of the sum of all weights.
    #[serde(default = "one")]
    pub weight: u32,
    /// The work.
    #[serde(flatten)]
    pub work: Work,
}

fn one() -> u32 {
    1
}

/// What is called.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// `tools/call` of a tool that gives its text back.
    Call {
        /// Tool name; `echo` of the fast upstream by default.
        #[serde(default = "echo")]
        tool: String,
        /// Bytes of text in the arguments.
        #[serde(default = "two_hundred")]
        bytes: usize,
    },
    /// `tools/list`, all pages.
    List {
        /// How many tools there must be; any number but none when it is not said.
        tools: Option<usize>,
    },
    /// A whole session: `initialize`, `initialized`, DELETE. At 2026-07-28, which has no
    /// sessions: `server/discover`.
    Session,
    /// A call that sends progress before it answers. What counts is the time to the first event;
    /// all of them and the answer must come.
    Stream {
        /// Events before the answer.
        #[serde(default = "three")]
        events: u32,
        /// Milliseconds between events.
        #[serde(default = "twenty")]
        every_ms: u32,
    },
}

fn echo() -> String {
    "echo".to_owned()
}
fn two_hundred() -> usize {
    200
}
fn three() -> u32 {
    3
}
fn twenty() -> u32 {
    20
}

impl Work {
    /// For reports.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Call { .. } => "call",
            Self::List { .. } => "list",
            Self::Session => "session",
            Self::Stream { .. } => "stream",
        }
    }
}

/// How it is paced.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Pace {
    /// Each connection sends its next request when the last is answered.
    Closed {
        /// Connections.
        connections: usize,
        /// Requests per round.
        requests: u64,
        /// The round ends after this time, whatever was done by then.
        #[serde(default = "sixty")]
        seconds_max: u64,
    },
    /// Requests start at a fixed rate, whatever the answers do.
    Open {
        /// Connections to spread them over.
        connections: usize,
        /// Requests per second.
        rate: u64,
        /// Seconds per round.
        seconds: u64,
    },
    /// Sessions and streams are opened and kept, and memory is looked at.
    Hold {
        /// Sessions, opened over 16 connections.
        #[serde(default)]
        sessions: usize,
        /// Streams (GET, or `subscriptions/listen`), each on a connection of its own.
        #[serde(default)]
        streams: usize,
        /// How long they are kept before memory is looked at.
        #[serde(default = "two")]
        seconds: u64,
    },
}

fn sixty() -> u64 {
    60
}
fn two() -> u64 {
    2
}

/// Requests of one round, at most.
const REQUESTS_MAX: u64 = 5_000_000;
/// Seconds of one round, at most.
const SECONDS_MAX: u64 = 600;
/// Sessions or streams that are held, at most.
const HELD_MAX: usize = 50_000;
/// Connections, at most.
const CONNECTIONS_MAX: usize = 10_000;
/// Sum of the weights of a mix, at most.
const WEIGHTS_MAX: u32 = 1_000;

impl Plan {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// When the file cannot be read, names a variable that is not set, has unknown members, or
    /// breaks a bound.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, crate::settings::variable)
            .with_context(|| format!("{} is no plan", path.display()))
    }

    /// Reads a plan from its text.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let plan: Self = toml::from_str(&filled(text, variable)?)?;
        plan.check()?;
        Ok(plan)
    }

    /// Targets of a scenario, in its order.
    pub fn targets_of<'a>(&'a self, scenario: &'a Scenario) -> Vec<&'a Target> {
        if scenario.targets.is_empty() {
            return self.targets.iter().collect();
        }
        let named = |name: &String| self.targets.iter().find(|t| t.name == *name);
        scenario.targets.iter().filter_map(named).collect()
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.targets.is_empty(), "a plan needs a target");
        ensure!(!self.scenarios.is_empty(), "a plan needs a scenario");
        ensure!((1..=50).contains(&self.rounds), "rounds must be 1 to 50");
        unique(self.targets.iter().map(|t| &t.name), "targets")?;
        unique(self.scenarios.iter().map(|s| &s.name), "scenarios")?;
        self.targets.iter().try_for_each(Target::check)?;
        for scenario in &self.scenarios {
            self.check_scenario(scenario).with_context(|| scenario.name.clone())?;
        }
        for goal in &self.goals {
            let known = |s: &&Scenario| s.name == goal.scenario;
            let scenario = self.scenarios.iter().find(known);
            let scenario = scenario.with_context(|| format!("no scenario {:?}", goal.scenario))?;
            let found = self.targets_of(scenario).iter().any(|t| goal.row.starts_with(&t.name));
            ensure!(found, "goal {:?}: {} is not measured there", goal.name, goal.row);
        }
        Ok(())
    }

    fn check_scenario(&self, scenario: &Scenario) -> anyhow::Result<()> {
        for name in &scenario.targets {
            ensure!(self.targets.iter().any(|t| t.name == *name), "no target {name:?}");
        }
        if let Some(rounds) = scenario.rounds {
            ensure!((1..=50).contains(&rounds), "rounds must be 1 to 50");
        }
        let sum: u32 = scenario.work.iter().map(|share| share.weight).sum();
        ensure!((1..=WEIGHTS_MAX).contains(&sum), "weights must add up to 1 to {WEIGHTS_MAX}");
        let connections = match scenario.pace {
            Pace::Closed { connections, requests, seconds_max } => {
                ensure!((1..=REQUESTS_MAX).contains(&requests), "too many requests");
                ensure!((1..=SECONDS_MAX).contains(&seconds_max), "seconds_max must be 1 to 600");
                connections
            }
            Pace::Open { connections, rate, seconds } => {
                ensure!((1..=SECONDS_MAX).contains(&seconds), "seconds must be 1 to 600");
                ensure!(rate > 0 && rate * seconds <= REQUESTS_MAX, "too many requests");
                connections
            }
            Pace::Hold { sessions, streams, seconds } => {
                ensure!(sessions <= HELD_MAX && streams <= HELD_MAX, "at most {HELD_MAX} are held");
                ensure!(sessions + streams > 0, "nothing to hold");
                ensure!(seconds <= SECONDS_MAX, "seconds must be at most 600");
                1
            }
        };
        ensure!((1..=CONNECTIONS_MAX).contains(&connections), "connections must be 1 to 10000");
        Ok(())
    }
}

impl Target {
    fn check(&self) -> anyhow::Result<()> {
        for url in std::iter::once(&self.url).chain(&self.sse_url) {
            let uri: hyper::http::Uri = url.parse().context("a target's url is no URL")?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let loopback = host == "localhost"
                || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            ensure!(loopback, "{url} is not on loopback");
        }
        Ok(())
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a String>, what: &str) -> anyhow::Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        ensure!(seen.insert(name), "two {what} are called {name:?}");
    }
    Ok(())
}

/// Puts variables in.
fn filled(text: &str, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else { bail!("a `${{` has no end") };
        let name = &rest[at + 2..at + end];
        let value = variable(name).with_context(|| format!("the variable {name} is not set"))?;
        ensure!(!value.contains(['"', '\\', '\n']), "{name} cannot stand in a TOML text");
        out.push_str(&value);
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(url: &str, pace: &str) -> anyhow::Result<Plan> {
        let text = format!(
            r#"
            name = "t"
            [[targets]]
            name = "a"
            url = "{url}"
            pids = "${{PID}}"
            [[scenarios]]
            name = "s"
            work = [{{ kind = "call" }}, {{ kind = "list", weight = 2 }}]
            pace = {pace}
            "#
        );
        Plan::parse(&text, |name| (name == "PID").then(|| "1, 2".to_owned()))
    }

    const CLOSED: &str = r#"{ kind = "closed", connections = 1, requests = 10 }"#;

    #[test]
    fn only_loopback_is_a_target() {
        for good in ["http://127.0.0.1:1/mcp", "http://localhost:1/", "http://[::1]:9/x"] {
            assert!(plan(good, CLOSED).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1:1/mcp", "http://example.com/", "/mcp"] {
            assert!(plan(bad, CLOSED).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_are_filled_in_and_must_be_there() {
        let plan = plan("http://127.0.0.1:1/", CLOSED).expect("a plan");
        assert_eq!(plan.targets[0].processes(), [1, 2]);
        let missing = filled("a = \"${NO}\"", |_| None).expect_err("not set");
        assert!(missing.to_string().contains("NO"), "{missing}");
        assert!(filled("${A}", |_| Some("\"".to_owned())).is_err());
    }

    #[test]
    fn bounds_are_kept() {
        let url = "http://127.0.0.1:1/";
        for bad in [
            r#"{ kind = "closed", connections = 0, requests = 10 }"#,
            r#"{ kind = "closed", connections = 1, requests = 0 }"#,
            r#"{ kind = "open", connections = 1, rate = 1000000, seconds = 600 }"#,
            r#"{ kind = "open", connections = 1, rate = 1, seconds = 601 }"#,
            r#"{ kind = "hold" }"#,
            r#"{ kind = "hold", streams = 50001 }"#,
        ] {
            assert!(plan(url, bad).is_err(), "{bad}");
        }
        assert!(plan(url, r#"{ kind = "hold", sessions = 1000 }"#).is_ok());
    }
}
