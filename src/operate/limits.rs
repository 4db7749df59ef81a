//! `limits`: who has used what of which quota, and when it renews.

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::get::{part, render};
use crate::cli::{Format, Limits};
use crate::client::Client;
use crate::table;

#[derive(Debug, Deserialize)]
struct Use {
    limit: String,
    per: String,
    of: String,
    quota: u64,
    used: u64,
    left: u64,
    renews: i64,
}

pub(super) async fn show(client: &Client, args: Limits) -> anyhow::Result<String> {
    let mut answer = client.get(&format!("/v1/groups/{}/limits", part(&args.group))).await?;
    let wanted = |found: &Value| {
        let is = |name: &str, wish: &Option<String>| {
            wish.as_ref().is_none_or(|wish| found[name] == wish.as_str())
        };
        is("limit", &args.limit) && is("of", &args.of)
    };
    if let Some(uses) = answer["uses"].as_array_mut() {
        uses.retain(wanted);
    }
    let format = args.output.output;
    if matches!(format, Format::Json | Format::Yaml) {
        return render(&answer, format);
    }
    let uses: Vec<Use> = serde_json::from_value(answer["uses"].take())
        .context("the answer is no list of quotas' uses")?;
    if format == Format::Name {
        let line = |found: &Use| format!("{} {} {}\n", found.limit, found.per, found.of);
        return Ok(uses.iter().map(line).collect());
    }
    let renews = |secs: i64| {
        jiff::Timestamp::from_second(secs).map_or_else(|_| "-".to_owned(), |time| time.to_string())
    };
    let row = |found: &Use| {
        vec![
            found.limit.clone(),
            format!("{} {}", found.per, found.of).trim_end().to_owned(),
            found.used.to_string(),
            found.quota.to_string(),
            found.left.to_string(),
            renews(found.renews),
        ]
    };
    let rows: Vec<_> = uses.iter().map(row).collect();
    let mut text = table::columns(&["LIMIT", "COUNTS", "USED", "QUOTA", "LEFT", "RENEWS"], &rows);
    match answer["omitted"].as_u64() {
        Some(more) if more > 0 => text += &format!("{more} more that are less used\n"),
        _ => {}
    }
    Ok(text)
}
