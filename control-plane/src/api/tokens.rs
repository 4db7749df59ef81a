//! API tokens of service accounts: minted here, shown once, kept as a digest in the account's
//! document.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::id::{Name, Revision};
use weir_model::resource::{ApiTokenEntry, Kind, Resource, ResourceKey, ServiceAccount, Spec};

use super::Api;
use super::apply::NoQuery;
use super::guard::{Caller, Noted};
use super::input::{self, Json, Query};
use super::problem::{self, Problem};
use crate::admit::{Proposal, Tokens, settled};
use crate::index::Indexed;
use crate::token;

/// Longest life that can be asked for.
const DAYS_MAX: u32 = 3_650;
/// Hours for which a token that is replaced goes on.
const OVERLAP_HOURS: u32 = 24;
/// The most of them that can be asked for: 90 days.
const OVERLAP_HOURS_MAX: u32 = 2_160;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Until it expires; it does not without this.
    days: Option<u32>,
    /// The token that it takes the place of, which goes on for [`Self::overlap`].
    replaces: Option<String>,
    /// Hours; 24 without this.
    #[serde(rename = "overlapHours")]
    overlap: Option<u32>,
}

impl Wanted {
    /// # Errors
    /// What is out of bounds.
    fn check(&self) -> Result<(), Problem> {
        let text = if self.days.is_some_and(|days| !(1..=DAYS_MAX).contains(&days)) {
            format!("days must be 1 to {DAYS_MAX}, or be left out")
        } else if self.overlap.is_some_and(|hours| hours > OVERLAP_HOURS_MAX) {
            format!("overlapHours must be 0 to {OVERLAP_HOURS_MAX}, or be left out")
        } else if self.overlap.is_some() && self.replaces.is_none() {
            "overlapHours goes with replaces".to_owned()
        } else {
            return Ok(());
        };
        Err(Problem::new(problem::Kind::InvalidRequest, text))
    }

    /// Lets the token that is replaced end, no later than it would have.
    fn end(
        &self,
        key: &ResourceKey,
        tokens: &mut [ApiTokenEntry],
        now: i64,
    ) -> Result<(), Problem> {
        let Some(id) = &self.replaces else { return Ok(()) };
        let hours = self.overlap.unwrap_or(OVERLAP_HOURS);
        let end = now.saturating_add(i64::from(hours) * 3_600);
        let missing = || {
            let text = format!("{key} has no token of the id that is to be replaced");
            Problem::new(problem::Kind::NotFound, text)
        };
        let old = tokens.iter_mut().find(|token| token.id == *id).ok_or_else(missing)?;
        old.expires = Some(old.expires.map_or(end, |expires| expires.min(end)));
        Ok(())
    }
}

#[derive(Serialize)]
struct MintedAnswer<'a> {
    id: &'a str,
    /// Shown here and never again.
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    revision: Revision,
}

pub(super) async fn mint(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path((group, account)): Path<(String, String)>,
    Query(NoQuery {}): Query<NoQuery>,
    Json(wanted): Json<Wanted>,
) -> Result<Response, Problem> {
    let (group, key) = account_key(&group, &account)?;
    operator.demand_group(&group)?;
    wanted.check()?;
    let now = i64::try_from(api.shared.clock.now_secs()).unwrap_or(i64::MAX);
    let expires = wanted.days.map(|days| now.saturating_add(i64::from(days) * 86_400));
    let minted = token::mint(token::ACCOUNT)?;
    let entry = ApiTokenEntry { id: minted.id.clone(), sha256: minted.sha256, expires };
    let revision = edit(&api, &key, |account| {
        // Expired ones make room.
        account.tokens.retain(|token| token.expires.is_none_or(|expires| expires > now));
        if account.tokens.len() >= bounds::API_TOKENS_MAX {
            let text = format!("{} tokens, more are not possible", account.tokens.len());
            return Err(Problem::new(problem::Kind::Full, text));
        }
        wanted.end(&key, &mut account.tokens, now)?;
        account.tokens.push(entry.clone());
        Ok(())
    })
    .await?;
    let token = minted.token.expose();
    let body = MintedAnswer { id: &minted.id, token, expires, revision };
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    let target = Some(format!("{key} token {}", minted.id));
    response.extensions_mut().insert(Noted { group: Some(group), target, revision });
    Ok(response)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenView<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    /// Within a minute or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<i64>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path((group, account)): Path<(String, String)>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let (group, key) = account_key(&group, &account)?;
    operator.demand_group(&group)?;
    let indexed = api.shared.author.newest().borrow().clone();
    let Some(Spec::ServiceAccount(account)) = indexed.set.get(&key).map(|found| &found.spec) else {
        return Err(Problem::new(problem::Kind::NotFound, format!("there is no {key}")));
    };
    let uses = api.shared.fleet.token_uses(&group).await?;
    let view = |token: &'_ ApiTokenEntry| {
        let last_used = uses.get(&token.id).copied();
        serde_json::json!(TokenView { id: &token.id, expires: token.expires, last_used })
    };
    let tokens: Vec<_> = account.tokens.iter().map(view).collect();
    Ok(axum::Json(serde_json::json!({ "tokens": tokens })).into_response())
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path((group, account, id)): Path<(String, String, String)>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let (group, key) = account_key(&group, &account)?;
    operator.demand_group(&group)?;
    let revision = edit(&api, &key, |account| {
        let before = account.tokens.len();
        account.tokens.retain(|token| token.id != id);
        if account.tokens.len() == before {
            let text = format!("{key} has no token of that id");
            return Err(Problem::new(problem::Kind::NotFound, text));
        }
        Ok(())
    })
    .await?;
    let mut response = axum::Json(serde_json::json!({ "revision": revision })).into_response();
    let target = Some(format!("{key} token {id}"));
    response.extensions_mut().insert(Noted { group: Some(group), target, revision });
    Ok(response)
}

fn account_key(group: &str, account: &str) -> Result<(Name, ResourceKey), Problem> {
    let (group, account) = (input::name(group)?, input::name(account)?);
    let key = ResourceKey::grouped(Kind::ServiceAccount, &group, account.as_str());
    Ok((group, key))
}

/// Changes an account as it is at the revision that the change is made on, so that no token is
/// lost or comes back between reading and writing.
async fn edit(
    api: &Api,
    key: &ResourceKey,
    mut change: impl FnMut(&mut ServiceAccount) -> Result<(), Problem>,
) -> Result<Revision, Problem> {
    let propose = |indexed: &Indexed| {
        let Some(Spec::ServiceAccount(account)) = indexed.set.get(key).map(|found| &found.spec)
        else {
            return Err(Problem::new(problem::Kind::NotFound, format!("there is no {key}")));
        };
        let mut account = account.clone();
        change(&mut account)?;
        let resource = Resource::new(key.clone(), Spec::ServiceAccount(account));
        let documents = vec![settled(resource.map_err(Problem::fields)?)];
        Ok(Proposal { documents, tokens: Tokens::AsProposed, ..Proposal::default() })
    };
    Ok(api.shared.author.edit(propose).await?.revision)
}
