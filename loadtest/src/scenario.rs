//! What to run, as a TOML file says it.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// A whole run: the same work against every target, in interleaved rounds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For the report.
    pub name: String,
    /// How often each target is measured; medians are over rounds.
    #[serde(default = "five")]
    pub rounds: u32,
    /// What is called.
    pub work: Work,
    /// How it is paced.
    pub pace: Pace,
    /// Where; the first is what the others are compared with.
    pub targets: Vec<Target>,
}

fn five() -> u32 {
    5
}

/// What is called.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// `tools/call` of one tool.
    Call {
        /// Tool name; `echo` of the fast upstream by default.
        #[serde(default = "echo")]
        tool: String,
        /// Bytes of text in the arguments.
        #[serde(default = "hundred")]
        bytes: usize,
    },
    /// `tools/list`, first page.
    List,
    /// A whole session: initialize, initialized, one ping (legacy revisions only).
    Session,
}

fn echo() -> String {
    "echo".to_owned()
}
fn hundred() -> usize {
    100
}

/// How it is paced.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Pace {
    /// Each connection sends its next request when the last is answered.
    Closed {
        /// Connections.
        connections: usize,
        /// Requests per round.
        requests: u64,
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
}

/// One endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// For the report.
    pub name: String,
    /// `http://host:port/path`; loopback only, so that a run can never hit somebody else.
    pub url: String,
    /// Bearer token.
    pub token: Option<String>,
    /// Prefix of tool names (an aggregating endpoint's `server__`).
    #[serde(default)]
    pub tool_prefix: String,
    /// Speak 2026-07-28 instead of 2025-11-25.
    #[serde(default)]
    pub modern: bool,
    /// Processes whose CPU and memory count for this target.
    #[serde(default)]
    pub pids: Vec<u32>,
}

/// Requests of one round, at most.
const REQUESTS_MAX: u64 = 5_000_000;
/// Seconds of one round, at most.
const SECONDS_MAX: u64 = 600;

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// When the file cannot be read, has unknown members, or breaks a bound.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let scenario: Self =
            toml::from_str(&text).with_context(|| format!("{} is no scenario", path.display()))?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.targets.is_empty(), "a scenario needs a target");
        ensure!((1..=50).contains(&self.rounds), "rounds must be 1 to 50");
        match self.pace {
            Pace::Closed { connections, requests } => {
                ensure!((1..=10_000).contains(&connections), "connections must be 1 to 10000");
                ensure!((1..=REQUESTS_MAX).contains(&requests), "too many requests");
            }
            Pace::Open { connections, rate, seconds } => {
                ensure!((1..=10_000).contains(&connections), "connections must be 1 to 10000");
                ensure!((1..=SECONDS_MAX).contains(&seconds), "seconds must be 1 to 600");
                ensure!(rate > 0 && rate * seconds <= REQUESTS_MAX, "too many requests");
            }
        }
        for target in &self.targets {
            let uri: hyper::http::Uri = target.url.parse().context("a target's url is no URL")?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let loopback = host == "localhost"
                || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            ensure!(loopback, "{} is not on loopback", target.url);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(url: &str) -> Scenario {
        let text = format!(
            r#"
            name = "t"
            [work]
            kind = "call"
            [pace]
            kind = "closed"
            connections = 1
            requests = 10
            [[targets]]
            name = "a"
            url = "{url}"
            "#
        );
        toml::from_str(&text).expect("the scenario parses")
    }

    #[test]
    fn only_loopback_is_a_target() {
        for good in ["http://127.0.0.1:1/mcp", "http://localhost:1/", "http://[::1]:9/x"] {
            assert!(scenario(good).check().is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1:1/mcp", "http://example.com/", "/mcp"] {
            assert!(scenario(bad).check().is_err(), "{bad}");
        }
    }
}
