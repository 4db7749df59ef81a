//! `apply`, `diff` and `delete`: thin over the author.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_model::id::Revision;
use weir_model::resource::{Resource, ResourceKey, parse_documents};

use super::guard::{Caller, Noted};
use super::input::{self, DocumentText, IfMatch, Query};
use super::problem::{Kind, Problem};
use super::{Api, difference};
use crate::admit::{Action, Children, Plan, Proposal, Step};
use crate::author::{AuthorError, Authored, Mode};
use crate::operator::{Operator, Role};

/// Keys that one audit record names.
const KEYS_NOTED: usize = 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplyQuery {
    #[serde(default)]
    dry_run: bool,
    expected_revision: Option<Revision>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeleteQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    cascade: bool,
    expected_revision: Option<Revision>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    revision: Revision,
    dry_run: bool,
    changes: Vec<Change>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    key: String,
    action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<difference::Field>,
}

pub(super) async fn apply(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Query(query): Query<ApplyQuery>,
    if_match: IfMatch,
    DocumentText(text): DocumentText,
) -> Result<Response, Problem> {
    let mode = mode(query.dry_run, &operator)?;
    let proposal = proposal(&text, &operator)?;
    let made = change(&api, proposal, (query.expected_revision, if_match), mode).await?;
    Ok(answer(&made, mode, Change::short))
}

pub(super) async fn diff(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    Query(NoQuery {}): Query<NoQuery>,
    DocumentText(text): DocumentText,
) -> Result<Response, Problem> {
    let proposal = proposal(&text, &operator)?;
    let made = change(&api, proposal, (None, IfMatch(None)), Mode::DryRun).await?;
    Ok(answer(&made, Mode::DryRun, Change::long))
}

pub(super) async fn delete_global(
    state: State<Api>,
    caller: Extension<Caller>,
    Path((kind, name)): Path<(String, String)>,
    query: Query<DeleteQuery>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    delete(state, caller, input::key(&kind, None, &name)?, query, if_match).await
}

pub(super) async fn delete_grouped(
    state: State<Api>,
    caller: Extension<Caller>,
    Path((kind, group, name)): Path<(String, String, String)>,
    query: Query<DeleteQuery>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    delete(state, caller, input::key(&kind, Some(&group), &name)?, query, if_match).await
}

async fn delete(
    State(api): State<Api>,
    Extension(Caller(operator)): Extension<Caller>,
    key: ResourceKey,
    Query(query): Query<DeleteQuery>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let mode = mode(query.dry_run, &operator)?;
    operator.demand_document(&key)?;
    let children = if query.cascade { Children::Delete } else { Children::Keep };
    let proposal = Proposal { deletes: vec![key], children, ..Proposal::default() };
    let made = change(&api, proposal, (query.expected_revision, if_match), mode).await?;
    Ok(answer(&made, mode, Change::short))
}

/// Viewers may try, editors may do.
fn mode(dry_run: bool, operator: &Operator) -> Result<Mode, Problem> {
    if dry_run {
        return Ok(Mode::DryRun);
    }
    operator.demand(Role::Editor)?;
    Ok(Mode::Commit)
}

fn proposal(text: &str, operator: &Operator) -> Result<Proposal, Problem> {
    let mut new_id = || uuid::Uuid::new_v4().simple().to_string();
    let documents = parse_documents(text, &mut new_id).map_err(Problem::fields)?;
    for document in &documents {
        operator.demand_document(&document.resource.key)?;
    }
    Ok(Proposal { documents, ..Proposal::default() })
}

async fn change(
    api: &Api,
    proposal: Proposal,
    (query, IfMatch(header)): (Option<Revision>, IfMatch),
    mode: Mode,
) -> Result<Authored, Problem> {
    if query.is_some() && header.is_some() && query != header {
        let text = "expectedRevision and If-Match name different revisions";
        return Err(Problem::new(Kind::InvalidRequest, text));
    }
    let made = api.shared.author.change(proposal, query.or(header), mode).await;
    made.map_err(|error| {
        let moved = matches!(error, AuthorError::Moved { .. });
        let mut problem = Problem::from(error);
        if moved && header.is_some() {
            problem.kind = Kind::PreconditionFailed;
        }
        problem
    })
}

fn answer(made: &Authored, mode: Mode, show: fn(&Step) -> Option<Change>) -> Response {
    let dry_run = mode == Mode::DryRun;
    let changes = made.plan.steps.iter().filter_map(show).collect();
    let body = Answer { revision: made.revision, dry_run, changes };
    let mut response = axum::Json(body).into_response();
    response.headers_mut().insert(header::ETAG, etag(made.revision));
    response.extensions_mut().insert(noted(&made.plan, made.revision, mode));
    response
}

/// The revision as an entity tag.
pub(super) fn etag(revision: Revision) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn noted(plan: &Plan, revision: Revision, mode: Mode) -> Noted {
    let keys: Vec<&ResourceKey> = plan.steps.iter().filter_map(Step::key).collect();
    let mut target: Vec<String> = keys.iter().take(KEYS_NOTED).map(ToString::to_string).collect();
    if keys.len() > KEYS_NOTED {
        target.push(format!("and {} more", keys.len() - KEYS_NOTED));
    }
    if mode == Mode::DryRun {
        target.insert(0, "dry run".to_owned());
    }
    // The group, when the change is about one.
    let group = keys.first().and_then(|key| key.group.clone());
    let one = keys.iter().all(|key| key.group == group);
    Noted { group: group.filter(|_| one), target: Some(target.join(", ")), revision }
}

impl Change {
    fn short(step: &Step) -> Option<Self> {
        let (key, action) = (step.key()?.to_string(), step.action());
        Some(Self { key, action, before: None, after: None, fields: Vec::new() })
    }

    fn long(step: &Step) -> Option<Self> {
        let value = |resource: &Resource| serde_json::from_slice(&resource.canonical).ok();
        let before: Option<Value> = step.before.as_deref().and_then(value);
        let after: Option<Value> = step.after.as_deref().and_then(value);
        let fields = match (&before, &after) {
            (Some(before), Some(after)) => difference::fields(before, after),
            _ => Vec::new(),
        };
        Some(Self { before, after, fields, ..Self::short(step)? })
    }
}
