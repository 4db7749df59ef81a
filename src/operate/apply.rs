//! `apply` and `diff`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::documents::Documents;
use super::{lines, nodes};
use crate::cli::{Apply, Diff};
use crate::client::Client;
use crate::exit::{Ended, Exit};
use crate::table;

/// Time between two looks at the nodes while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
struct Plan {
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
    let path = if args.dry_run { "/v1/apply?dryRun=true" } else { "/v1/apply" };
    let plan = plan(client.post_documents(path, documents.text).await?)?;
    let mut text = plan.table();
    let changed = plan.changes.iter().filter(|change| change.action != "unchanged").count();
    let verb = if args.dry_run { "would change" } else { "changed" };
    let of = documents.count;
    let _ = writeln!(text, "{changed} of {of} documents {verb}; revision {}", plan.revision);
    if args.wait {
        let begun = Instant::now();
        let count = in_force(client, plan.revision, Duration::from_secs(args.timeout)).await?;
        let waited = table::span(begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX));
        let _ = writeln!(text, "in force at {count} proxies after {waited}");
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

fn plan(answer: Value) -> anyhow::Result<Plan> {
    serde_json::from_value(answer).context("the answer is no plan; is this a control plane?")
}

impl Plan {
    fn table(&self) -> String {
        let row = |change: &Change| vec![change.action.clone(), change.key.clone()];
        let rows = self.changes.iter().map(row).collect::<Vec<_>>();
        table::columns(&["ACTION", "DOCUMENT"], &rows)
    }
}

/// Waits until every connected node runs a revision; gives how many these are.
async fn in_force(client: &Client, revision: u64, time: Duration) -> anyhow::Result<usize> {
    let end = Instant::now() + time;
    loop {
        let nodes = nodes::list(client).await?;
        let connected = nodes.iter().filter(|node| node.connected).collect::<Vec<_>>();
        let behind = connected.iter().filter(|node| node.revision < revision).collect::<Vec<_>>();
        if behind.is_empty() && !connected.is_empty() {
            return Ok(connected.len());
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
