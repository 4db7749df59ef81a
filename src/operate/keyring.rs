//! `keyring`: the keys that seal what travels through clients.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::get::render;
use crate::cli::Format;
use crate::client::Client;
use crate::table;

pub(super) async fn list(client: &Client, format: Format) -> anyhow::Result<String> {
    let answer = client.get("/v1/keyring").await?;
    let keys = answer["keys"].as_array().context("the answer is no list of keys")?;
    let id = |key: &Value| key["id"].as_str().unwrap_or_default().to_owned();
    match format {
        Format::Json | Format::Yaml => render(&answer["keys"], format),
        Format::Name => Ok(keys.iter().map(|key| id(key) + "\n").collect()),
        Format::Table => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let row = |key: &Value| {
                let state = match (key["seals"] == true, &key["sealedFrom"]) {
                    (true, _) => "seals",
                    (false, Value::Null) => "is new",
                    (false, _) => "opens",
                };
                let made = key["made"].as_u64().unwrap_or(now);
                let age = format!("{} ago", table::span(now.saturating_sub(made) * 1_000));
                vec![id(key), state.to_owned(), age]
            };
            let rows = keys.iter().map(row).collect::<Vec<_>>();
            Ok(table::columns(&["KEY", "STATE", "MADE"], &rows))
        }
    }
}

pub(super) async fn rotate(client: &Client, at_once: bool) -> anyhow::Result<String> {
    let answer = client.post("/v1/keyring/rotation", &json!({ "atOnce": at_once })).await?;
    let revision = &answer["revision"];
    Ok(match at_once {
        true => format!("all keys were replaced at revision {revision}: every session ends\n"),
        false => format!("a new key was added at revision {revision}; it seals before long\n"),
    })
}
