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
use weir_model::id::Revision;
use weir_model::resource::{
    Kind, NodeRevocation, Resource, ResourceKey, Revocation, Revoked, Spec,
};

use super::Api;
use super::apply::NoQuery;
use super::guard::{Caller, Noted};
use super::input::{self, Json, Query};
use super::problem::{self, Problem};
use crate::admit::{Proposal, settled};
use crate::index::Indexed;
use crate::revoke::said;

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
    let (expires, what) = (wanted.expires, said(&wanted.what));
    if let Revoked::Session(session) = &wanted.what {
        api.shared.sign_ins.end(&group, session).await?;
    }
    let withdrawn = crate::revoke::revoke(&api.shared.author, &group, wanted, now).await?;
    let (key, revision) = (withdrawn.key, withdrawn.revision);
    let body = Answer { name: key.name.clone(), expires, revision };
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    let target = Some(format!("{key} {what}"));
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
