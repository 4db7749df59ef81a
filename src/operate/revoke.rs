//! `revoke`: takes something back.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use weir_model::id::Digest;

use super::{apply, get, tokens};
use crate::cli::{Revoke, RevokeHow};
use crate::client::Client;

/// Hours after which the revocation of a token or session ends whose own end is not known.
const HOURS: i64 = 24;

pub(super) async fn revoke(client: &Client, what: Revoke) -> anyhow::Result<String> {
    let now = now();
    let a_day = Some(now + HOURS * 3_600);
    match what {
        Revoke::Token { which, how } => {
            let (what, ends) = token_of(&read(which)?, now)?;
            send(client, what, ends.or(a_day), how).await
        }
        Revoke::Session { id, how } => send(client, json!({"session": id}), a_day, how).await,
        Revoke::Principal { id, issued_until_now, how } => {
            let mut principal = json!({"id": id});
            if issued_until_now {
                principal["issuedBefore"] = (now + 1).into();
            }
            send(client, json!({"principal": principal}), None, how).await
        }
        Revoke::Server { name, how } => send(client, json!({"server": name}), None, how).await,
        Revoke::Tool { server, name, how } => {
            let what = json!({"tool": {"server": server, "name": name}});
            send(client, what, None, how).await
        }
        Revoke::Policy { name, how } => send(client, json!({"policy": name}), None, how).await,
        Revoke::RoleBinding { name, how } => {
            send(client, json!({"roleBinding": name}), None, how).await
        }
        Revoke::ApiToken(args) => tokens::revoke(client, args).await,
        Revoke::Node { name, because } => node(client, &name, because).await,
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn read(token: String) -> anyhow::Result<String> {
    if token != "-" {
        return Ok(token);
    }
    std::io::read_to_string(std::io::stdin()).context("the token from standard input")
}

/// What names a token, and when the token ends where that is known.
fn token_of(text: &str, now: i64) -> anyhow::Result<(Value, Option<i64>)> {
    let text = text.trim();
    if let Some(id) = text.strip_prefix("jti:") {
        return Ok((json!({"tokenId": id}), None));
    }
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok((json!({"token": text.to_ascii_lowercase()}), None));
    }
    let claims = text.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Option<Value> = claims.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let claims = claims.context(
        "this is no JWT, no SHA-256 and no jti:ID; API tokens are revoked with `revoke api-token`",
    )?;
    // A little longer, for proxies that forgive skewed clocks.
    let ends = claims["exp"].as_i64().map(|exp| exp.saturating_add(300));
    anyhow::ensure!(ends.is_none_or(|ends| ends > now), "the token has expired already");
    Ok((json!({"token": Digest::of(text.as_bytes()).hex()}), ends))
}

async fn send(
    client: &Client,
    what: Value,
    ends: Option<i64>,
    how: RevokeHow,
) -> anyhow::Result<String> {
    let hours = how.hours.map(|hours| now() + i64::from(hours) * 3_600);
    let body = json!({"what": what, "expires": hours.or(ends), "because": how.because});
    let path = format!("/v1/groups/{}/revocations", get::part(&how.group));
    let answer = client.post(&path, &body).await?;
    let revision = answer["revision"].as_u64().unwrap_or_default();
    let in_force = apply::in_force(client, revision, how.wait).await?;
    let name = answer["name"].as_str().unwrap_or_default();
    Ok(format!(
        "revoked; revision {revision}\n\
         to give it back: weir delete revocation {name} -g {}\n{in_force}",
        how.group
    ))
}

async fn node(client: &Client, name: &str, because: Option<String>) -> anyhow::Result<String> {
    let path = format!("/v1/nodes/{}/revocation", get::part(name));
    client.post(&path, &json!({ "because": because })).await?;
    Ok(format!("node {name} is cut off\nto let it come back: weir delete noderevocation {name}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_named_by_what_is_given() {
        let jwt = |claims: Value| {
            format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string().as_bytes()))
        };
        let named = |text: &str| token_of(text, 1_000).map(|(what, ends)| (what.to_string(), ends));
        assert_eq!(named("jti:a b").unwrap(), (r#"{"tokenId":"a b"}"#.to_owned(), None));
        let hash = "AB".repeat(32);
        let expect = json!({"token": "ab".repeat(32)}).to_string();
        assert_eq!(named(&hash).unwrap(), (expect, None));
        let token = jwt(json!({"exp": 2_000}));
        let (what, ends) = named(&format!("{token}\n")).unwrap();
        assert_eq!(what, json!({"token": Digest::of(token.as_bytes()).hex()}).to_string());
        assert_eq!(ends, Some(2_300));
        assert!(named(&jwt(json!({"exp": 1}))).is_err());
        assert!(named("weir_at_abc_def").is_err());
    }
}
