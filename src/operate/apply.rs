//! `apply` and `diff`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::documents::Documents;
use super::{lines, nodes};
use crate::cli::{Apply, Diff, Wait};
use crate::client::Client;
use crate::exit::{Ended, Exit};
use crate::table;

/// Time between two looks at the nodes while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
pub(super) struct Plan {
    revision: u64,
    #[serde(default)]
    changes: Vec<Change>,
}

#[derive(Debug, Deserialize)]
struct Change {
    key: String,
    action: String,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
}

/// Puts documents in force; with `--wait`, until every connected proxy runs them.
pub(super) async fn apply(client: &Client, args: Apply) -> anyhow::Result<String> {
    let documents = Documents::read(&args.files.files)?;
    let mut path = format!("/v1/apply?dryRun={}", args.dry_run);
    if let Some(revision) = args.expect {
        let _ = write!(path, "&expectedRevision={revision}");
    }
    let plan = plan(client.post_documents(&path, documents.text).await?)?;
    let mut text = plan.told(args.dry_run);
    if !args.dry_run {
        text += &in_force(client, plan.revision, args.wait).await?;
    }
    Ok(text)
}

/// Shows what an apply would change.
pub(super) async fn diff(client: &Client, args: Diff) -> anyhow::Result<String> {
    let documents = Documents::read(&args.files.files)?;
    let plan = plan(client.post_documents("/v1/diff", documents.text).await?)?;
    let mut text = String::new();
    for change in plan.changes.iter().filter(|change| change.action != "unchanged") {
        let yaml = |document: &Value| match document {
            Value::Null => Ok(String::new()),
            document => serde_saphyr::to_string(document),
        };
        let difference = lines::difference(&yaml(&change.before)?, &yaml(&change.after)?);
        let _ = writeln!(text, "{} {}\n{difference}", change.action, change.key);
    }
    if text.is_empty() {
        return Ok("no differences\n".to_owned());
    }
    if args.exit_code {
        return Err(Ended::new(Exit::Differs, text).into());
    }
    Ok(text)
}

pub(super) fn plan(answer: Value) -> anyhow::Result<Plan> {
    serde_json::from_value(answer).context("the answer is no plan; is this a control plane?")
}

impl Plan {
    /// What it does, or would do.
    pub(super) fn told(&self, dry_run: bool) -> String {
        let row = |change: &Change| vec![change.action.clone(), change.key.clone()];
        let rows = self.changes.iter().map(row).collect::<Vec<_>>();
        let table = table::columns(&["ACTION", "DOCUMENT"], &rows);
        let changed = self.changes.iter().filter(|change| change.action != "unchanged").count();
        match dry_run {
            true => format!("{table}{changed} documents would change; nothing was changed\n"),
            false => format!("{table}{changed} documents changed; revision {}\n", self.revision),
        }
    }
}

/// Waits, where that is wanted, until every connected node runs a revision; gives what to print.
pub(super) async fn in_force(client: &Client, revision: u64, wait: Wait) -> anyhow::Result<String> {
    if !wait.wait {
        return Ok(String::new());
    }
    let begun = Instant::now();
    let end = begun + Duration::from_secs(wait.timeout);
    loop {
        let nodes = nodes::list(client).await?;
        let connected = nodes.iter().filter(|node| node.connected).collect::<Vec<_>>();
        let behind = connected.iter().filter(|node| node.revision < revision).collect::<Vec<_>>();
        if behind.is_empty() && !connected.is_empty() {
            let waited = table::span(begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
            return Ok(format!("in force at {} proxies after {waited}\n", connected.len()));
        }
        if Instant::now() >= end {
            let message = match behind.as_slice() {
                [] => "no proxy is connected".to_owned(),
                nodes => {
                    let names = nodes.iter().map(|n| format!("{} ({})", n.name, n.revision));
                    format!("behind: {}", names.collect::<Vec<_>>().join(", "))
                }
            };
            let message =
                format!("revision {revision} is stored but not in force everywhere: {message}");
            return Err(Ended::new(Exit::NotInForce, message).into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
