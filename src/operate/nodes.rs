//! `nodes`: the proxies and what they run.

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::Format;
use crate::client::Client;
use crate::table;

/// What the control plane knows of one proxy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub(super) name: String,
    #[serde(default)]
    pub(super) region: String,
    #[serde(default)]
    pub(super) connected: bool,
    #[serde(default)]
    pub(super) revision: u64,
    #[serde(default)]
    pub(super) digest: String,
    #[serde(default)]
    pub(super) quarantined: Vec<Value>,
    #[serde(default)]
    pub(super) seen_ms_ago: u64,
}

pub(super) async fn list(client: &Client) -> anyhow::Result<Vec<Node>> {
    let mut answer = client.get("/v1/nodes").await?;
    serde_json::from_value(answer["nodes"].take()).context("the answer is no list of nodes")
}

pub(super) async fn show(client: &Client, format: Format) -> anyhow::Result<String> {
    if format == Format::Json || format == Format::Yaml {
        return super::get::render(&client.get("/v1/nodes").await?, format);
    }
    let nodes = list(client).await?;
    if format == Format::Name {
        return Ok(nodes.iter().map(|node| format!("{}\n", node.name)).collect());
    }
    let rows = nodes.iter().map(|node| {
        vec![
            node.name.clone(),
            node.region.clone(),
            if node.connected { "connected" } else { "away" }.to_owned(),
            node.revision.to_string(),
            node.digest.chars().take(12).collect(),
            node.quarantined.len().to_string(),
            format!("{} ago", table::span(node.seen_ms_ago)),
        ]
    });
    let header = ["NODE", "REGION", "STATE", "REVISION", "DIGEST", "QUARANTINED", "HEARD"];
    Ok(table::columns(&header, &rows.collect::<Vec<_>>()))
}
