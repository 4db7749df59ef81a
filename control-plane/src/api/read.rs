//! Reading documents, and whether this replica serves.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weir_model::id::{Name, Revision};
use weir_model::resource::{Kind, Resource, ResourceKey, ResourceSet};

use super::Api;
use super::apply::etag;
use super::guard::Caller;
use super::input::{self, Query};
use super::problem::{self, Problem};
use crate::operator::Operator;

/// Documents of a page, unless asked otherwise; and at most.
const PAGE_DOCUMENTS: usize = 100;
const PAGE_DOCUMENTS_MAX: usize = 1_000;
/// Bytes of a page; one document always fits.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    kind: Option<String>,
    group: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Page {
    revision: Revision,
    items: Vec<Box<RawValue>>,
    /// Cursor of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// What the store holds and this build cannot read.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    broken: BTreeMap<String, String>,
}

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let mut pending = api.shared.ready.pending();
    if api.shared.drain.is_draining() {
        pending.push("draining".to_owned());
    }
    let ready = pending.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": ready, "pending": pending });
    (status, axum::Json(body)).into_response()
}

pub(super) async fn list_all(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    list(&api, &operator, &query)
}

pub(super) async fn list_kind(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path(kind): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    if query.kind.is_some() {
        let text = "the kind is in the path already";
        return Err(Problem::new(problem::Kind::InvalidRequest, text));
    }
    list(&api, &operator, &ListQuery { kind: Some(kind), ..query })
}

fn list(api: &Api, operator: &Operator, query: &ListQuery) -> Result<Response, Problem> {
    let kind = query.kind.as_deref().map(input::kind).transpose()?;
    let group = query.group.as_deref().map(input::name).transpose()?;
    let limit = query.limit.unwrap_or(PAGE_DOCUMENTS);
    if !(1..=PAGE_DOCUMENTS_MAX).contains(&limit) {
        let text = format!("limit must be 1 to {PAGE_DOCUMENTS_MAX}");
        return Err(Problem::new(problem::Kind::InvalidRequest, text));
    }
    if let Some(group) = &group {
        operator.demand_group(group)?;
    }
    let after = query.cursor.as_deref().map(cursor).transpose()?;
    let indexed = api.shared.author.newest().borrow().clone();
    let mut page = Page {
        revision: indexed.revision,
        items: Vec::new(),
        next: None,
        broken: match operator.groups.is_empty() {
            true => indexed.broken.clone(),
            false => BTreeMap::new(),
        },
    };
    let wanted = chosen(&indexed.set, kind, group.as_ref())
        .filter(|resource| operator.sees_document(&resource.key))
        .filter(|resource| after.as_ref().is_none_or(|after| resource.key > *after));
    let (mut bytes, mut last) = (0, None);
    for resource in wanted {
        bytes += resource.canonical.len();
        let full = page.items.len() == limit || (bytes > PAGE_BYTES_MAX && last.is_some());
        if full {
            page.next = last.map(|key: &ResourceKey| URL_SAFE_NO_PAD.encode(key.to_string()));
            break;
        }
        last = Some(&resource.key);
        page.items.extend(raw(resource));
    }
    let mut response = axum::Json(&page).into_response();
    response.headers_mut().insert(header::ETAG, etag(page.revision));
    Ok(response)
}

/// In key order. What the control plane writes itself is only listed when asked for.
fn chosen<'a>(
    set: &'a ResourceSet,
    kind: Option<Kind>,
    group: Option<&'a Name>,
) -> Box<dyn Iterator<Item = &'a Resource> + 'a> {
    let all = set.iter().map(|resource| &**resource);
    match (kind, group) {
        (Some(kind), None) => Box::new(all.filter(move |resource| resource.key.kind == kind)),
        (Some(kind), Some(_)) => Box::new(set.of_kind(kind, group).map(|resource| &**resource)),
        (None, group) => Box::new(all.filter(move |resource| {
            let mine = group.is_none() || resource.key.group.as_ref() == group;
            mine && !resource.key.kind.is_system()
        })),
    }
}

fn cursor(text: &str) -> Result<ResourceKey, Problem> {
    let key = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    key.and_then(|key| ResourceKey::parse(&key)).ok_or_else(|| {
        let text = "the cursor is none; leave it out to begin anew";
        Problem::new(problem::Kind::InvalidRequest, text)
    })
}

/// The document as it is stored; none when that is no JSON.
fn raw(resource: &Resource) -> Option<Box<RawValue>> {
    let text = String::from_utf8(resource.canonical.to_vec()).ok()?;
    RawValue::from_string(text).ok()
}

pub(super) async fn get_global(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    get(&api, &operator, &input::key(&kind, None, &name)?)
}

pub(super) async fn get_grouped(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Path((kind, group, name)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    get(&api, &operator, &input::key(&kind, Some(&group), &name)?)
}

fn get(api: &Api, operator: &Operator, key: &ResourceKey) -> Result<Response, Problem> {
    let indexed = api.shared.author.newest().borrow().clone();
    // What an operator may not see does not exist for it.
    let found = indexed.set.get(key).filter(|_| operator.sees_document(key));
    let missing = || Problem::new(problem::Kind::NotFound, format!("there is no {key}"));
    let found = found.ok_or_else(missing)?;
    let mut response = found.canonical.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ETAG, etag(indexed.revision));
    Ok(response)
}
