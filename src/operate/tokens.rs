//! Tokens: of service accounts, and the one-time ones with which proxies join.

use anyhow::Context as _;
use serde_json::json;

use crate::cli::{EnrolToken, Format, TokenCreate, TokenList, TokenRevoke};
use crate::client::Client;

use super::get::{part, render};
use crate::table;

fn account(group: &str, account: &str) -> String {
    format!("/v1/groups/{}/service-accounts/{}/tokens", part(group), part(account))
}

pub(super) async fn create(client: &Client, args: TokenCreate) -> anyhow::Result<String> {
    let path = account(&args.group, &args.account);
    let mut body = json!({ "days": args.days });
    if let Some(replaced) = &args.replaces {
        body["replaces"] = replaced.as_str().into();
        body["overlapHours"] = args.overlap.into();
    }
    let answer = client.post(&path, &body).await?;
    let token = answer["token"].as_str().context("the answer holds no token")?;
    let revision = answer["revision"].as_u64().unwrap_or_default();
    let in_force = super::apply::in_force(client, revision, args.wait).await?;
    if args.quiet {
        return Ok(format!("{token}\n"));
    }
    let id = answer["id"].as_str().unwrap_or_default();
    Ok(format!(
        "{token}\n\nThis is the only time that it is shown. Its public id is {id}.\n{in_force}"
    ))
}

pub(super) async fn list(client: &Client, args: TokenList) -> anyhow::Result<String> {
    let answer = client.get(&account(&args.group, &args.account)).await?;
    let tokens = answer["tokens"].as_array().context("the answer is no list of tokens")?;
    let format = args.output.output;
    let id = |token: &serde_json::Value| token["id"].as_str().unwrap_or_default().to_owned();
    let time = |value: &serde_json::Value, without: &str| {
        let time = value.as_i64().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
        time.map_or_else(|| without.to_owned(), |time| time.to_string())
    };
    match format {
        Format::Json | Format::Yaml => render(&answer["tokens"], format),
        Format::Name => Ok(tokens.iter().map(|token| id(token) + "\n").collect()),
        Format::Table => {
            let row = |token: &serde_json::Value| {
                vec![id(token), time(&token["expires"], "never"), time(&token["lastUsed"], "-")]
            };
            let rows = tokens.iter().map(row).collect::<Vec<_>>();
            Ok(table::columns(&["ID", "EXPIRES", "LAST USED"], &rows))
        }
    }
}

pub(super) async fn revoke(client: &Client, args: TokenRevoke) -> anyhow::Result<String> {
    let path = format!("{}/{}", account(&args.group, &args.account), part(&args.id));
    client.delete(&path).await?;
    Ok(format!("token {} of {} is worthless now\n", args.id, args.account))
}

pub(super) async fn enrol(client: &Client, args: EnrolToken) -> anyhow::Result<String> {
    let body = json!({ "region": args.region, "node": args.node, "minutes": args.minutes });
    let answer = client.post("/v1/enrolment-tokens", &body).await?;
    let token = answer["token"].as_str().context("the answer holds no token")?;
    if args.quiet {
        return Ok(format!("{token}\n"));
    }
    let (region, minutes) = (&args.region, args.minutes);
    Ok(format!("{token}\n\nOne proxy can join region {region} with it within {minutes} minutes.\n"))
}
