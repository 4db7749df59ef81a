//! `operator`: who may administer.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::get::{part, render};
use crate::cli::{Format, OperatorCreate};
use crate::client::Client;
use crate::table;

pub(super) async fn create(client: &Client, args: OperatorCreate) -> anyhow::Result<String> {
    let OperatorCreate { name, role, groups, days, quiet } = args;
    let body = json!({ "name": name, "role": role, "groups": groups, "days": days });
    let answer = client.post("/v1/operators", &body).await?;
    let token = answer["token"].as_str().context("the answer holds no token")?;
    if quiet {
        return Ok(format!("{token}\n"));
    }
    let id = answer["id"].as_str().unwrap_or_default();
    Ok(format!("{token}\n\nThis is the only time that it is shown. The operator's id is {id}.\n"))
}

pub(super) async fn list(client: &Client, format: Format) -> anyhow::Result<String> {
    let answer = client.get("/v1/operators").await?;
    let operators = answer["operators"].as_array().context("the answer is no list of operators")?;
    let word =
        |operator: &Value, member: &str| operator[member].as_str().unwrap_or_default().to_owned();
    match format {
        Format::Json | Format::Yaml => render(&answer["operators"], format),
        Format::Name => Ok(operators.iter().map(|one| word(one, "id") + "\n").collect()),
        Format::Table => {
            let row = |one: &Value| {
                let groups = one["groups"].as_array().into_iter().flatten();
                let groups = groups.filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
                let groups = if groups.is_empty() { "all".to_owned() } else { groups };
                vec![word(one, "id"), word(one, "role"), groups, word(one, "name")]
            };
            let rows = operators.iter().map(row).collect::<Vec<_>>();
            Ok(table::columns(&["ID", "ROLE", "GROUPS", "NAME"], &rows))
        }
    }
}

pub(super) async fn revoke(client: &Client, id: &str) -> anyhow::Result<String> {
    client.delete(&format!("/v1/operators/{}", part(id))).await?;
    Ok(format!("operator {id} has no access any more\n"))
}
