//! What the client knows of each call, a line of JSON each.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// Nobody listened: the request was never sent.
    Unsent,
    /// It was sent, and the connection broke or nothing came in time.
    Unanswered(String),
    /// The gateway said that it could not keep a record.
    NoRecord,
    /// It was answered with a result.
    Served,
    /// It was answered with an error.
    Failed(String),
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its number, from 0.
    pub number: u64,
    /// SHA-256 of its arguments as they were sent, in hex: its name in the records.
    pub arguments: String,
    /// When it was sent, in milliseconds since the epoch.
    pub sent_ms: u64,
    /// When it was over.
    pub over_ms: u64,
    /// What became of it.
    pub became: Became,
    /// `x-request-id` of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// All calls of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// By the digest of their arguments.
    pub calls: BTreeMap<String, Call>,
}

impl Truth {
    /// Reads the lines of a file.
    ///
    /// # Errors
    /// When it cannot be read, or two calls have the same arguments.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Of lines.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut truth = Self::default();
        for line in text.lines() {
            let call: Call = serde_json::from_str(line).context("a line that is no call")?;
            let twice = truth.calls.insert(call.arguments.clone(), call);
            anyhow::ensure!(twice.is_none(), "two calls with the same arguments: {line}");
        }
        Ok(truth)
    }

    /// How many calls this is true of.
    pub fn count(&self, of: impl Fn(&Became) -> bool) -> usize {
        self.calls.values().filter(|call| of(&call.became)).count()
    }
}
