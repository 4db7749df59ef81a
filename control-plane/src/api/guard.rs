//! What happens around every request: who asks, whether it may, the audit record, the time limit.
//!
//! Room for the record is reserved before anything else; the answer leaves after the record was
//! kept. Reads are recorded when they are refused, and where a token begins to be used
//! ([`super::uses`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use tracing::Instrument as _;
use weir_audit::Slot;
use weir_model::audit::{Facts, Outcome};
use weir_model::bounds;
use weir_model::id::{Name, Revision};
use weir_model::principal::Proof;
use weir_model::resource::AuditClass;
use weir_runtime::traceparent::TraceParent;

use super::problem::{Kind, Problem};
use super::route::{Access, Route};
use super::{Api, Peer};
use crate::operator::Operator;

/// Header and log field that names one request.
const REQUEST_ID: &str = "x-request-id";
/// Longest path that a record keeps.
const TARGET_CHARS_MAX: usize = 300;

/// Who asks; handlers get it as an extension.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Arc<Operator>);

/// What a handler wants in the audit record; goes with the response as an extension.
#[derive(Debug, Clone, Default)]
pub(super) struct Noted {
    pub(super) group: Option<Name>,
    pub(super) target: Option<String>,
    pub(super) revision: Revision,
}

/// What the layer of one route knows.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    pub(super) api: Api,
    pub(super) route: &'static Route,
}

pub(super) async fn guard(
    State(Guarded { api, route }): State<Guarded>,
    request: Request,
    next: Next,
) -> Response {
    if route.access == Access::Open {
        return next.run(request).await;
    }
    let Ok(_room) = api.shared.room.try_acquire() else {
        return Problem::from(Kind::Overloaded).into_response();
    };
    let facts = begin(&api, route, &request);
    let (request_id, trace_id) = (&facts.request_id, facts.trace_id.as_deref());
    let span = tracing::info_span!(parent: None, "request", %request_id, trace_id);
    guarded(&api, route, (facts, request), next).instrument(span).await
}

/// A request that somebody has to be let in for.
async fn guarded(
    api: &Api,
    route: &Route,
    (mut facts, mut request): (Facts, Request),
    next: Next,
) -> Response {
    let begun = Instant::now();
    let request_id = facts.request_id.clone();
    let mut slot = None;
    if route.recorded {
        let Ok(reserved) = api.shared.audit.reserve(AuditClass::Durable) else {
            return Problem::from(Kind::AuditFull).into_response();
        };
        slot = Some(reserved);
    }
    note(&mut slot, &facts);
    let checked = check(api, route, (request.headers(), &mut facts)).await;
    let mut response = match checked {
        Err(problem) => problem.into_response(),
        Ok(operator) => {
            note(&mut slot, &facts);
            facts.allowed = Some(true);
            request.extensions_mut().insert(Caller(Arc::new(operator)));
            let limit = Duration::from_millis(bounds::OPERATOR_REQUEST_MS);
            match tokio::time::timeout(limit, next.run(request)).await {
                Ok(response) => response,
                Err(_) => Problem::from(Kind::Timeout).into_response(),
            }
        }
    };
    facts.duration_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    finish(api, slot, facts, &mut response).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// When the client leaves in the middle, this is what the record says.
fn note(slot: &mut Option<Slot>, facts: &Facts) {
    if let Some(slot) = slot {
        slot.note(&Facts { outcome: Outcome::Aborted, ..facts.clone() });
    }
}

fn begin(api: &Api, route: &Route, request: &Request) -> Facts {
    let text = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let client = text(header::USER_AGENT.as_str());
    Facts {
        request_id: uuid::Uuid::now_v7().to_string(),
        time_ms: api.shared.clock.now_ms(),
        peer: request.extensions().get::<Peer>().map(|Peer(at): &Peer| SocketAddr::to_string(at)),
        client: client.map(|client| client.chars().take(200).collect()),
        trace_id: text("traceparent").and_then(TraceParent::parse).map(|p| p.trace.to_string()),
        method: Some(route.action.to_owned()),
        target: Some(request.uri().path().chars().take(TARGET_CHARS_MAX).collect()),
        class: AuditClass::Durable,
        ..Facts::default()
    }
}

/// Lets an operator in. Who it is goes into the facts, also when it may not do this.
async fn check(
    api: &Api,
    route: &Route,
    (headers, facts): (&HeaderMap, &mut Facts),
) -> Result<Operator, Problem> {
    let Access::Role(role) = route.access else { return Err(Kind::Internal.into()) };
    let token = bearer(headers)?;
    let operator = api.shared.operators.authenticate(token).await?;
    facts.principal = Some(format!("operator:{}", operator.id));
    facts.proof = Some(Proof::ApiToken);
    facts.credential = Some(operator.id.clone());
    operator.demand(role)?;
    Ok(operator)
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next().ok_or(Kind::Unauthenticated)?, values.next()) else {
        return Err(Problem::new(Kind::InvalidRequest, "Authorization is sent twice"));
    };
    let value = value.to_str().map_err(|_| Kind::TokenUnknown)?;
    let (scheme, token) = value.split_once(' ').ok_or(Kind::Unauthenticated)?;
    let fits = scheme.eq_ignore_ascii_case("bearer") && token.len() <= bounds::TOKEN_BYTES_MAX;
    fits.then_some(token.trim()).ok_or_else(|| Kind::Unauthenticated.into())
}

/// A token begins to be used from an address.
fn begins(api: &Api, facts: &Facts) -> bool {
    let from = facts.peer.as_deref().and_then(|peer| peer.parse::<SocketAddr>().ok());
    let now = api.shared.clock.now_secs();
    let token = facts.credential.as_deref();
    token.is_some_and(|token| api.shared.uses.begins(token, from.map(|from| from.ip()), now))
}

/// Writes the record. What was done stays done when the record cannot be kept in time: it is
/// written when the sink is well again, and nothing new is begun before.
async fn finish(api: &Api, slot: Option<Slot>, mut facts: Facts, response: &mut Response) {
    let refused = response.extensions().get::<Kind>().copied();
    tracing::info!(
        action = facts.method,
        who = facts.principal,
        status = response.status().as_u16(),
        problem = refused.map(Kind::label),
        duration_us = facts.duration_us,
        "request"
    );
    if let Some(noted) = response.extensions_mut().remove::<Noted>() {
        facts.group = noted.group;
        facts.revision = noted.revision;
        facts.target = noted.target.or(facts.target);
    }
    facts.outcome = match refused {
        None => Outcome::Success,
        Some(kind) => Outcome::Refused(kind.reason()),
    };
    let not_let_in = matches!(
        refused,
        Some(Kind::Unauthenticated | Kind::TokenUnknown | Kind::TokenExpired | Kind::Denied)
    );
    if not_let_in {
        facts.allowed = Some(false);
    }
    let begins = begins(api, &facts);
    let slot = match slot {
        None if not_let_in || begins => api.shared.audit.reserve(AuditClass::Durable).map(Some),
        slot => Ok(slot),
    };
    let kept = match slot {
        Ok(Some(slot)) => slot.finish(facts).await,
        Ok(None) => Ok(()),
        Err(reason) => Err(reason),
    };
    if let Err(reason) = kept {
        tracing::error!(%reason, "the record of an operator's action is late or lost");
    }
}
