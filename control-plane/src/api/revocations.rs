//! Revocations: one request each, in force wherever the new revision has arrived.
//!
//! A revocation is a document like any other: it is listed with `GET /v1/resources/Revocation`, and
//! deleting it gives back what it took. What has ended by itself is cleared away when the next one
//! of its group is made.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use weir_model::bounds;
use weir_model::id::{Digest, Name, Revision};
use weir_model::resource::{
    Kind, NodeRevocation, Resource, ResourceKey, ResourceSet, Revocation, Revoked, Spec,
};

use super::Api;
use super::apply::NoQuery;
use super::guard::{Caller, Noted};
use super::input::{self, Json, Query};
use super::problem::{self, Problem};
use crate::admit::{Proposal, settled};
use crate::index::Indexed;

/// Revocations that have ended and are cleared away with one new one.
const CLEARED_MAX: usize = bounds::APPLY_DOCUMENTS_MAX / 2;

#[derive(Serialize)]
struct Answer {
    /// Of the document.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    revision: Revision,
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(group): Path<String>,
    Query(NoQuery {}): Query<NoQuery>,
    Json(wanted): Json<Revocation>,
) -> Result<Response, Problem> {
    let group = input::name(&group)?;
    operator.demand_group(&group)?;
    let now = i64::try_from(api.shared.clock.now_secs()).unwrap_or(i64::MAX);
    if wanted.expires.is_some_and(|expires| expires <= now) {
        let text = "it has ended already: expires is in the past";
        return Err(Problem::new(problem::Kind::InvalidRequest, text));
    }
    let name = name_of(&wanted.what);
    let key = ResourceKey::grouped(Kind::Revocation, &group, name.as_str());
    let resource = Resource::new(key.clone(), Spec::Revocation(wanted.clone()));
    let resource = resource.map_err(Problem::fields)?;
    let propose = |indexed: &Indexed| {
        target_exists(&indexed.set, &group, &wanted.what)?;
        let deletes = ended(&indexed.set, &group, now, &key);
        let have = indexed.set.of_kind(Kind::Revocation, Some(&group)).count();
        let again = indexed.set.get(&key).is_some();
        if !again && have - deletes.len() >= bounds::REVOCATIONS_MAX {
            let text = format!("{have} revocations, more are not possible; delete some");
            return Err(Problem::new(problem::Kind::Full, text));
        }
        let documents = vec![settled(resource.clone())];
        Ok(Proposal { documents, deletes, ..Proposal::default() })
    };
    let revision = api.shared.author.edit(propose).await?.revision;
    let expires = wanted.expires;
    let body = Answer { name: name.clone(), expires, revision };
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    let target = Some(format!("{key} {}", said(&wanted.what)));
    response.extensions_mut().insert(Noted { group: Some(group), target, revision });
    Ok(response)
}

pub(super) async fn revoke_node(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(node): Path<String>,
    Query(NoQuery {}): Query<NoQuery>,
    Json(wanted): Json<NodeRevocation>,
) -> Result<Response, Problem> {
    operator.demand_everywhere()?;
    let node = input::name(&node)?;
    if !api.shared.fleet.list().await?.iter().any(|known| known.node == node) {
        return Err(Problem::new(problem::Kind::NotFound, format!("there is no node {node}")));
    }
    let key = ResourceKey::global(Kind::NodeRevocation, node.as_str());
    let resource = Resource::new(key.clone(), Spec::NodeRevocation(wanted));
    let resource = resource.map_err(Problem::fields)?;
    let propose = |_: &Indexed| {
        let documents = vec![settled(resource.clone())];
        Ok::<_, Problem>(Proposal { documents, ..Proposal::default() })
    };
    let revision = api.shared.author.edit(propose).await?.revision;
    let body = Answer { name: node.to_string(), expires: None, revision };
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    let noted = Noted { target: Some(key.to_string()), revision, ..Noted::default() };
    response.extensions_mut().insert(noted);
    Ok(response)
}

/// The same thing revoked twice is one document.
fn name_of(what: &Revoked) -> String {
    let json = serde_json::to_vec(what).unwrap_or_default();
    format!("r-{}", &Digest::of(&json).hex()[..16])
}

/// For the operators' trail: what was revoked, without ids that are secrets (none of them is).
fn said(what: &Revoked) -> String {
    serde_json::to_string(what).unwrap_or_default().chars().take(200).collect()
}

/// A misspelt name would revoke nothing and look as if it had.
fn target_exists(set: &ResourceSet, group: &Name, what: &Revoked) -> Result<(), Problem> {
    let (kind, name) = match what {
        Revoked::Server(name) => (Kind::Server, name),
        Revoked::Tool(tool) => (Kind::Server, &tool.server),
        Revoked::Policy(name) => (Kind::Policy, name),
        Revoked::RoleBinding(name) => (Kind::RoleBinding, name),
        _ => return Ok(()),
    };
    let key = ResourceKey::grouped(kind, group, name.as_str());
    match set.get(&key) {
        Some(_) => Ok(()),
        None => Err(Problem::new(problem::Kind::NotFound, format!("there is no {key}"))),
    }
}

/// Revocations of the group that have ended, some of them.
fn ended(set: &ResourceSet, group: &Name, now: i64, but: &ResourceKey) -> Vec<ResourceKey> {
    let over = |resource: &&std::sync::Arc<Resource>| match &resource.spec {
        Spec::Revocation(revocation) => revocation.expires.is_some_and(|expires| expires <= now),
        _ => false,
    };
    let all = set.of_kind(Kind::Revocation, Some(group)).filter(over);
    all.map(|resource| resource.key.clone()).filter(|key| key != but).take(CLEARED_MAX).collect()
}
