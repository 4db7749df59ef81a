//! The fleet: what proxies run, how new ones join, and which definitions are pinned.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::id::{Digest, Name, Revision};
use weir_model::resource::{Catalog, Kind, ResourceKey, Spec};

use super::Api;
use super::apply::NoQuery;
use super::guard::{Caller, Noted};
use super::input::{self, Json, Query};
use super::problem::{self, Problem};
use crate::enrol::{EnrolError, Pending};
use crate::fleet::{Health, Node};
use crate::observe::{ObserveError, Version};
use crate::operator::Operator;

/// Minutes that an enrolment token lives, unless asked otherwise.
const ENROL_MINUTES: u32 = 60;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    name: Name,
    region: Name,
    connected: bool,
    revision: Revision,
    digest: Digest,
    seen_ms_ago: u64,
    build: String,
    schema: u32,
    /// The replica that has, or had last, a stream to it.
    replica: String,
    /// Documents that the node refuses, and why.
    quarantined: Vec<Quarantined>,
    servers: BTreeMap<String, Health>,
}

#[derive(Serialize)]
struct Quarantined {
    resource: String,
    why: String,
}

pub(super) async fn nodes(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let revision = api.shared.author.newest().borrow().revision;
    let now_ms = api.shared.clock.now_ms();
    let nodes = api.shared.fleet.list().await?;
    let nodes: Vec<_> = nodes.into_iter().map(|node| view(node, &operator, now_ms)).collect();
    Ok(axum::Json(serde_json::json!({ "revision": revision, "nodes": nodes })).into_response())
}

/// A node as an operator may see it: what belongs to other groups is left out.
fn view(node: Node, operator: &Operator, now_ms: u64) -> NodeView {
    let seen_ms = u64::try_from(node.last_seen).unwrap_or(0).saturating_mul(1_000);
    let refused = node.refused.into_iter().filter(|refused| {
        let key = ResourceKey::parse(&refused.key);
        key.map_or(operator.groups.is_empty(), |key| operator.sees_document(&key))
    });
    let quarantined = refused
        .map(|refused| Quarantined { resource: refused.key, why: refused.message })
        .collect();
    let mut servers = node.servers;
    servers.retain(|server, _| {
        let group = server.split('/').next().and_then(|group| group.parse::<Name>().ok());
        operator.groups.is_empty() || group.is_some_and(|group| operator.sees(Some(&group)))
    });
    NodeView {
        name: node.node,
        region: node.region,
        connected: node.connected,
        revision: node.revision,
        digest: node.digest,
        seen_ms_ago: now_ms.saturating_sub(seen_ms),
        build: node.build,
        schema: node.schema,
        replica: node.replica,
        quarantined,
        servers,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    region: Name,
    /// The node that may use it; without, the node names itself.
    node: Option<Name>,
    minutes: Option<u32>,
}

#[derive(Serialize)]
struct PendingView<'a> {
    id: &'a str,
    region: &'a Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a Name>,
    expires: i64,
    /// Shown once, when it is minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

fn pending_view<'a>(pending: &'a Pending, token: Option<&'a str>) -> PendingView<'a> {
    let node = pending.node.as_ref();
    PendingView { id: &pending.id, region: &pending.region, node, expires: pending.expires, token }
}

pub(super) async fn mint_enrolment(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Query(NoQuery {}): Query<NoQuery>,
    Json(wanted): Json<Wanted>,
) -> Result<Response, Problem> {
    operator.demand_everywhere()?;
    let minutes = i64::from(wanted.minutes.unwrap_or(ENROL_MINUTES));
    let max = bounds::ENROL_TOKEN_SECS_MAX / 60;
    if !(1..=max).contains(&minutes) {
        let text = format!("minutes must be 1 to {max}, or be left out");
        return Err(Problem::new(problem::Kind::InvalidRequest, text));
    }
    let minted = api.shared.enrolment.mint(wanted.region, wanted.node, minutes * 60).await;
    let (pending, token) = minted?;
    let body = pending_view(&pending, Some(token.expose()));
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    response.extensions_mut().insert(noted(&pending.id));
    Ok(response)
}

pub(super) async fn list_enrolments(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    operator.demand_everywhere()?;
    let pending = api.shared.enrolment.list().await?;
    let tokens: Vec<_> = pending.iter().map(|pending| pending_view(pending, None)).collect();
    Ok(axum::Json(serde_json::json!({ "tokens": tokens })).into_response())
}

pub(super) async fn revoke_enrolment(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(id): Path<String>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    operator.demand_everywhere()?;
    if !api.shared.enrolment.revoke(&id).await? {
        let text = "there is no unused enrolment token of that id";
        return Err(Problem::new(problem::Kind::NotFound, text));
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(noted(&id));
    Ok(response)
}

fn noted(id: &str) -> Noted {
    Noted { target: Some(format!("enrolment token {id}")), ..Noted::default() }
}

pub(super) async fn pin(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path((group, server, version)): Path<(String, String, String)>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let (group, server, version) =
        (input::name(&group)?, input::name(&server)?, input::name(&version)?);
    operator.demand_group(&group)?;
    let of = Version { group: &group, server: &server, version: &version };
    let pinned = api.shared.observer.pin(of).await?;
    let name = Catalog::name_of(&server, &version);
    let key = ResourceKey::grouped(Kind::Catalog, &group, name);
    let indexed = api.shared.author.newest().borrow().clone();
    let count = match indexed.set.get(&key).map(|found| &found.spec) {
        Some(Spec::Catalog(catalog)) => catalog.entries.len(),
        _ => 0,
    };
    let body = serde_json::json!({
        "revision": pinned.revision, "changed": pinned.changed, "pinned": count,
    });
    let mut response = axum::Json(body).into_response();
    let target = Some(format!("{server}@{version}"));
    let noted = Noted { group: Some(group), target, revision: pinned.revision };
    response.extensions_mut().insert(noted);
    Ok(response)
}

impl From<ObserveError> for Problem {
    fn from(error: ObserveError) -> Self {
        match error {
            ObserveError::Unknown(..) | ObserveError::Unobserved(_) => {
                Self::new(problem::Kind::NotFound, error.to_string())
            }
            ObserveError::Unfit(errors) => Self::fields(errors),
            ObserveError::Store(error) => error.into(),
            ObserveError::Busy => problem::Kind::Busy.into(),
        }
    }
}

impl From<EnrolError> for Problem {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Store(error) => error.into(),
            EnrolError::Random(error) => error.into(),
            EnrolError::Lifetime | EnrolError::Node(_) => {
                Self::new(problem::Kind::InvalidRequest, error.to_string())
            }
            error => {
                tracing::error!(%error, "an enrolment token cannot be made");
                problem::Kind::Internal.into()
            }
        }
    }
}
