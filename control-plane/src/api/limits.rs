//! What is left of a group's quotas.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use weir_model::bounds;
use weir_model::resource::{Kind, Spec};

use super::Api;
use super::apply::NoQuery;
use super::guard::Caller;
use super::input::{self, Query};
use super::problem::Problem;
use crate::budget::{self, QuotaUse};

/// One use of one quota.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UseView<'a> {
    limit: &'a str,
    per: &'a str,
    of: &'a str,
    quota: u64,
    used: u64,
    /// Kept by proxies for what they will serve next.
    reserved: u64,
    left: u64,
    begins: i64,
    renews: i64,
}

pub(super) async fn uses(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(group): Path<String>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let group = input::name(&group)?;
    operator.demand_group(&group)?;
    let indexed = api.shared.author.newest().borrow().clone();
    let now = i64::try_from(api.shared.clock.now_secs()).unwrap_or(i64::MAX);
    let uses = budget::uses(api.shared.author.store(), &group, now).await?;
    let view = |found: &'_ QuotaUse| {
        serde_json::json!(UseView {
            limit: &found.limit,
            per: &found.per,
            of: &found.of,
            quota: found.quota,
            used: found.used,
            reserved: found.charged.saturating_sub(found.used),
            left: found.quota.saturating_sub(found.charged.max(found.used)),
            begins: found.window.0,
            renews: found.window.1,
        })
    };
    let shown: Vec<_> = uses.iter().take(bounds::QUOTA_USES_SHOWN_MAX).map(view).collect();
    let limits: serde_json::Map<String, serde_json::Value> = indexed
        .set
        .of_kind(Kind::Limit, Some(&group))
        .filter_map(|resource| match &resource.spec {
            Spec::Limit(limit) => Some((resource.key.name.clone(), serde_json::json!(limit))),
            _ => None,
        })
        .collect();
    let omitted = uses.len() - shown.len();
    let body = serde_json::json!({ "limits": limits, "uses": shown, "omitted": omitted });
    Ok(axum::Json(body).into_response())
}
