//! `apply` and `diff`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;
use weir_model::bounds;

use super::documents::{self, Documents};
use super::parts::{self, Part};
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
    let mut parts = parts::of(&documents::texts(&args.files.files)?)?;
    if parts.len() > 1 {
        return in_parts(client, parts, &args).await;
    }
    let Some(part) = parts.pop() else { return Ok(String::new()) };
    let plan = send(client, part.text, (args.dry_run, args.expect)).await?;
    let mut text = plan.told(args.dry_run);
    if !args.dry_run {
        text += &in_force(client, plan.revision, args.wait).await?;
    }
    Ok(text)
}

async fn send(
    client: &Client,
    documents: String,
    (dry_run, expect): (bool, Option<u64>),
) -> anyhow::Result<Plan> {
    let mut path = format!("/v1/apply?dryRun={dry_run}");
    if let Some(revision) = expect {
        let _ = write!(path, "&expectedRevision={revision}");
    }
    plan(client.post_documents(&path, documents).await?)
}

/// One part after the other; the first on the expected revision, the others on what is there, since
/// proxies report what new servers offer meanwhile. What is in force when one of them fails is told, and
/// that the same command goes on from there.
async fn in_parts(client: &Client, parts: Vec<Part>, args: &Apply) -> anyhow::Result<String> {
    let (all, of) = (parts.iter().map(|part| part.count).sum::<usize>(), parts.len());
    if args.dry_run {
        let max = bounds::APPLY_DOCUMENTS_MAX;
        let message = format!(
            "{all} documents; a dry run takes at most {max}, because later parts build on earlier ones"
        );
        return Err(Ended::new(Exit::Usage, message).into());
    }
    let (mut text, mut done, mut changed, mut revision) = (String::new(), 0, 0, None);
    for (number, part) in (1..).zip(parts) {
        let (first, last) = &part.ends;
        let place = format!("part {number} of {of} ({first} to {last})");
        let plan = match send(client, part.text, (false, args.expect.filter(|_| done == 0))).await {
            Ok(plan) => plan,
            Err(error) => {
                let exit = error.downcast_ref::<Ended>().map_or(Exit::Failed, |ended| ended.exit);
                let kept = match revision {
                    None => "nothing was changed".to_owned(),
                    Some(revision) => {
                        format!("{done} of {all} documents are in force since revision {revision}")
                    }
                };
                let message = format!(
                    "{place} was not taken: {error}\n{kept}; the parts after it were not sent. Mend it and \
                     apply all of it again: what is in force already stays as it is"
                );
                return Err(Ended::new(exit, message).into());
            }
        };
        let now = plan.changes.iter().filter(|change| change.action != "unchanged").count();
        (done, changed, revision) = (done + part.count, changed + now, Some(plan.revision));
        let _ = writeln!(text, "{place}: {now} documents changed; revision {}", plan.revision);
    }
    let revision = revision.unwrap_or_default();
    let _ = writeln!(text, "{changed} of {all} documents changed; revision {revision}");
    text += &in_force(client, revision, args.wait).await?;
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
