//! `policy ...`, as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Output;
use crate::exit::{Ended, Exit};

/// Questions about the rules of a group.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // one of them exists in a process
pub enum Review {
    /// Tell why a call is allowed or not, and what would change that.
    Explain(PolicyExplain),
    /// Check cases; ends with 1 when one does not pass.
    Test(PolicyTest),
    /// Put recorded calls to changed documents: who would gain or lose what.
    Replay(PolicyReplay),
    /// Make a recorded decision again, of the documents of its revision; ends with 10 when it
    /// comes out otherwise, with 1 when that cannot be told.
    Recompute(PolicyRecompute),
}

/// See [`Review::Explain`].
#[derive(Debug, Args)]
pub struct PolicyExplain {
    /// The group.
    #[arg(short, long)]
    pub group: String,
    /// Who: user:alice, account:ci, certificate:NAME or anonymous. An account has the memberships and
    /// scopes of its document unless others are given.
    pub who: String,
    /// What: tool, resource, prompt or server.
    #[arg(value_parser = ["tool", "resource", "prompt", "server"])]
    pub kind: String,
    /// SERVER/NAME, SERVER/URI, or SERVER.
    pub target: String,
    /// Arguments of the call, as JSON.
    #[arg(long, value_name = "JSON")]
    pub arguments: Option<String>,
    /// A group or role of the caller; may be repeated.
    #[arg(long = "membership", value_name = "NAME")]
    pub memberships: Vec<String>,
    /// A scope of the caller's token; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// Identity provider that vouches for a user.
    #[arg(long)]
    pub provider: Option<String>,
    /// OAuth client, or id of the API token.
    #[arg(long)]
    pub credential: Option<String>,
    /// Region of the proxy.
    #[arg(long, default_value = "")]
    pub region: String,
    /// When, as 2026-11-23T09:30:00Z; now without this.
    #[arg(long)]
    pub time: Option<String>,
    /// Address that the proxy sees.
    #[arg(long)]
    pub peer: Option<String>,
    /// What the client calls itself.
    #[arg(long)]
    pub client: Option<String>,
    /// MCP revision that the client speaks, as 2025-11-25; the newest without this.
    #[arg(long, value_name = "DATE")]
    pub speaks: Option<String>,
    /// By the documents of this revision; the newest without this.
    #[arg(long, value_name = "REVISION")]
    pub at: Option<u64>,
    /// How to print it.
    #[command(flatten)]
    pub output: Output,
}

/// See [`Review::Test`].
#[derive(Debug, Args)]
pub struct PolicyTest {
    /// YAML file of cases.
    pub cases: PathBuf,
    /// Check files or folders of documents, without a control plane; without, the documents in
    /// force. May be repeated.
    #[arg(short, long = "file", value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
}

/// See [`Review::Replay`].
#[derive(Debug, Args)]
pub struct PolicyReplay {
    /// The group.
    #[arg(short, long)]
    pub group: String,
    /// Audit records, a line each: a file, a folder of *.jsonl, or - for standard input (a topic:
    /// let a consumer print it).
    #[arg(long, value_name = "FILE|DIR")]
    pub records: PathBuf,
    /// Documents that would be applied. May be repeated.
    #[arg(short, long = "file", value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
    /// A document that would be deleted, as Policy/GROUP/NAME. May be repeated.
    #[arg(long, value_name = "KEY")]
    pub delete: Vec<String>,
    /// How to print it.
    #[command(flatten)]
    pub output: Output,
}

/// See [`Review::Recompute`].
#[derive(Debug, Args)]
pub struct PolicyRecompute {
    /// Audit records, a line each: a file, a folder of *.jsonl, or - for standard input.
    pub records: PathBuf,
    /// Which one, as NODE/EPOCH/SEQUENCE; without this the first that tells of a decision.
    #[arg(long)]
    pub uid: Option<String>,
    /// File with the arguments of the call exactly as they were sent, where the record holds only
    /// their digest.
    #[arg(long, value_name = "FILE")]
    pub arguments: Option<PathBuf>,
    /// How to print it.
    #[command(flatten)]
    pub output: Output,
}

impl PolicyExplain {
    /// Who asks, as the API has it.
    ///
    /// # Errors
    /// When it says nobody.
    pub fn caller(&self) -> Result<Value, Ended> {
        let mut caller = json!({ "memberships": self.memberships, "scopes": self.scopes });
        match self.who.split_once(':') {
            Some(("user", name)) => caller["user"] = name.into(),
            Some(("account", name)) => caller["serviceAccount"] = name.into(),
            Some(("certificate", name)) => caller["certificate"] = name.into(),
            _ if self.who == "anonymous" => caller["anonymous"] = true.into(),
            _ => {
                let text = format!(
                    "WHO: write user:NAME, account:NAME, certificate:NAME or anonymous, not {:?}",
                    self.who
                );
                return Err(Ended::new(Exit::Usage, text));
            }
        }
        put(&mut caller, "provider", self.provider.as_deref());
        put(&mut caller, "credential", self.credential.as_deref());
        Ok(caller)
    }

    /// What is asked for, as the API has it.
    ///
    /// # Errors
    /// When the arguments are no JSON.
    pub fn call(&self) -> Result<Value, Ended> {
        let mut call = json!({ self.kind.as_str(): self.target });
        if let Some(text) = &self.arguments {
            call["arguments"] = serde_json::from_str(text)
                .map_err(|error| Ended::new(Exit::Usage, format!("--arguments: {error}")))?;
        }
        Ok(call)
    }

    /// Where and when, as the API has it.
    pub fn place(&self) -> Value {
        let mut place = json!({ "region": self.region });
        put(&mut place, "time", self.time.as_deref());
        put(&mut place, "peer", self.peer.as_deref());
        put(&mut place, "client", self.client.as_deref());
        put(&mut place, "revision", self.speaks.as_deref());
        place
    }
}

fn put(into: &mut Value, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        into[name] = value.into();
    }
}
