//! Operators: made, listed and revoked by admins.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use weir_model::id::Name;

use super::Api;
use super::apply::NoQuery;
use super::guard::{Caller, Noted};
use super::input::{Json, Query};
use super::problem::{Kind, Problem};
use crate::operator::{Operator, Role, Wanted};

/// Longest name.
const NAME_CHARS_MAX: usize = 100;
/// Groups of one operator.
const GROUPS_MAX: usize = 100;
/// Longest life that can be asked for.
const DAYS_MAX: u32 = 3_650;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOperator {
    /// For people.
    name: String,
    role: Role,
    /// Empty: all groups.
    #[serde(default)]
    groups: Vec<Name>,
    /// Until it expires; it does not without this.
    days: Option<u32>,
}

#[derive(Serialize)]
struct MintedAnswer<'a> {
    #[serde(flatten)]
    operator: &'a Operator,
    /// Shown here and never again.
    token: &'a str,
}

pub(super) async fn mint(
    State(api): State<Api>,
    Extension(Caller(by)): Extension<Caller>,
    Query(NoQuery {}): Query<NoQuery>,
    Json(new): Json<NewOperator>,
) -> Result<Response, Problem> {
    let bad = |text: String| Err(Problem::new(Kind::InvalidRequest, text));
    let length = new.name.chars().count();
    if !(1..=NAME_CHARS_MAX).contains(&length) || new.name.chars().any(char::is_control) {
        return bad(format!("name must be 1 to {NAME_CHARS_MAX} printable characters"));
    }
    if new.groups.len() > GROUPS_MAX {
        return bad(format!("at most {GROUPS_MAX} groups"));
    }
    if new.days.is_some_and(|days| !(1..=DAYS_MAX).contains(&days)) {
        return bad(format!("days must be 1 to {DAYS_MAX}, or be left out"));
    }
    // Nobody gives away more than it has.
    if new.groups.is_empty() {
        by.demand_everywhere()?;
    }
    for group in &new.groups {
        by.demand_group(group)?;
    }
    let expires_in = new.days.map(|days| u64::from(days) * 86_400);
    let wanted = Wanted { name: new.name, role: new.role, groups: new.groups, expires_in };
    let (operator, token) = api.shared.operators.mint(wanted, &by.id).await?;
    let body = MintedAnswer { operator: &operator, token: token.expose() };
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    response.extensions_mut().insert(noted(&operator.id));
    Ok(response)
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(Caller(by)): Extension<Caller>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let mut operators = api.shared.operators.list().await?;
    operators.retain(|operator| may_administer(&by, operator));
    Ok(axum::Json(serde_json::json!({ "operators": operators })).into_response())
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(Caller(by)): Extension<Caller>,
    Path(id): Path<String>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let operator = api.shared.operators.get(&id).await?;
    if !may_administer(&by, &operator) {
        return Err(Problem::new(Kind::NotFound, format!("there is no operator {id}")));
    }
    api.shared.operators.revoke(&id).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(noted(&id));
    Ok(response)
}

/// An admin of some groups administers those who have no others.
fn may_administer(by: &Operator, operator: &Operator) -> bool {
    by.groups.is_empty()
        || (!operator.groups.is_empty()
            && operator.groups.iter().all(|group| by.groups.contains(group)))
}

fn noted(id: &str) -> Noted {
    Noted { target: Some(format!("operator {id}")), ..Noted::default() }
}
