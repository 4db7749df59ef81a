//! The fleet over REST: what proxies run, letting one in, and pinning what they see of servers.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use weir_model::id::{Digest, Name, Revision};

use super::Api;
use super::apply::NoQuery;
use super::guard::{Caller, Noted};
use super::input::{self, Json, Query};
use super::problem::{Kind, Problem};
use crate::enrol::EnrolError;
use crate::fleet::{Health, Node};
use crate::observe::{ObserveError, Version};

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<Shown>,
}

/// A node as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    name: Name,
    region: Name,
    build: String,
    schema: u32,
    connected: bool,
    replica: String,
    revision: Revision,
    digest: Digest,
    /// Documents that the node refuses, and why.
    quarantined: Vec<Quarantined>,
    seen_ms_ago: u64,
    /// By `group/server@version`.
    servers: BTreeMap<String, Health>,
}

#[derive(Serialize)]
struct Quarantined {
    resource: String,
    why: String,
}

pub(super) async fn nodes(
    State(api): State<Api>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let now = i64::try_from(api.shared.clock.now_secs()).unwrap_or(i64::MAX);
    let nodes = api.shared.fleet.list().await?;
    let nodes = nodes.into_iter().map(|node| shown(node, now)).collect();
    Ok(axum::Json(Nodes { nodes }).into_response())
}

fn shown(node: Node, now: i64) -> Shown {
    let ago = u64::try_from(now.saturating_sub(node.last_seen)).unwrap_or(0);
    let quarantined = node
        .refused
        .into_iter()
        .map(|refused| Quarantined { resource: refused.key.to_string(), why: refused.message });
    Shown {
        name: node.node,
        region: node.region,
        build: node.build,
        schema: node.schema,
        connected: node.connected,
        replica: node.replica,
        revision: node.revision,
        digest: node.digest,
        quarantined: quarantined.collect(),
        seen_ms_ago: ago.saturating_mul(1000),
        servers: node.servers,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Of the node that will use it.
    region: Name,
    /// The only node that may use it; without, the node names itself.
    node: Option<Name>,
    /// Until it expires; an hour without this.
    #[serde(default = "hour")]
    minutes: u32,
}

fn hour() -> u32 {
    60
}

pub(super) async fn mint(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Query(NoQuery {}): Query<NoQuery>,
    Json(wanted): Json<Wanted>,
) -> Result<Response, Problem> {
    operator.demand_everywhere()?;
    let secs = i64::from(wanted.minutes).saturating_mul(60);
    let minted = api.shared.enrolment.mint(wanted.region, wanted.node, secs).await?;
    let (pending, token) = minted;
    let body = serde_json::json!({
        // Shown here and never again.
        "id": pending.id, "token": token.expose(), "region": pending.region,
        "node": pending.node, "expires": pending.expires,
    });
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    let target = Some(format!("enrolment token {} for {}", pending.id, pending.region));
    response.extensions_mut().insert(Noted { target, ..Noted::default() });
    Ok(response)
}

pub(super) async fn pin(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path((group, server, version)): Path<(String, String, String)>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Response, Problem> {
    let group = input::name(&group)?;
    let (server, version) = (input::name(&server)?, input::name(&version)?);
    operator.demand_group(&group)?;
    let of = Version { group: &group, server: &server, version: &version };
    let pinned = api.shared.observer.pin(of).await?;
    let body = serde_json::json!({ "revision": pinned.revision, "changed": pinned.changed });
    let mut response = axum::Json(body).into_response();
    let target = Some(format!("catalog of {group}/{server}@{version}"));
    let revision = pinned.revision;
    response.extensions_mut().insert(Noted { group: Some(group), target, revision });
    Ok(response)
}

impl From<EnrolError> for Problem {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Store(error) => error.into(),
            EnrolError::Random(error) => error.into(),
            EnrolError::Lifetime => Self::new(Kind::InvalidRequest, error.to_string()),
            EnrolError::Token | EnrolError::Node(_) | EnrolError::Ca(_) => {
                tracing::error!(%error, "an enrolment token was not minted");
                Kind::Internal.into()
            }
        }
    }
}

impl From<ObserveError> for Problem {
    fn from(error: ObserveError) -> Self {
        match error {
            ObserveError::Store(error) => error.into(),
            ObserveError::Busy => Kind::Busy.into(),
            ObserveError::Unfit(errors) => Self::fields(errors),
            ObserveError::Unknown(..) | ObserveError::Unobserved(_) => {
                Self::new(Kind::NotFound, error.to_string())
            }
        }
    }
}
