//! **The hot path**: one MCP request from the socket to a server and back, phases in order.
//!
//! Each phase is a file, takes what the phase before found out as a value, and either adds
//! evidence or refuses. A call sees one snapshot from start to end. `Permit` has one maker
//! ([`authorize`]) and [`credential::attach`] consumes it: what was not allowed cannot be sent.
//! Statuses are chosen in [`respond`] alone, which also closes the audit record, exactly once.

pub mod authenticate;
pub mod authorize;
pub mod batch;
pub mod bridge;
pub mod client;
pub mod credential;
pub mod elsewhere;
pub mod endpoint;
pub mod forward;
pub mod http_sse;
pub mod idle;
pub mod inbound;
pub mod local;
pub mod notices;
pub mod record;
pub mod relay;
pub mod reserve;
pub mod resolve;
pub mod respond;
pub mod resume;
pub mod sight;
pub mod stop;
pub mod tasks;
pub mod validate;
pub mod watched;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tracing::Instrument as _;
use weir_model::snapshot::Snapshot;

use crate::authorization;
pub use crate::gateway::Gateway;
pub use respond::Body;
pub use stop::Stop;

use client::Sealing;
use endpoint::Endpoint;
use forward::Scope;
use inbound::{Conn, Wants};
use record::Record;
use resolve::{Here, Scene, Target};
use respond::{Answer, Reply};

/// Serves one request.
pub async fn serve<B>(gateway: &Arc<Gateway>, conn: &Conn, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    let snapshot = gateway.config.current();
    if authorization::concerns(head.uri.path()) {
        return Box::pin(authorization::serve(gateway, conn, (&head, body), &snapshot)).await;
    }
    let endpoint = endpoint::find(head.uri.path(), &snapshot);
    let record = match Record::open(gateway, conn, &snapshot, endpoint.as_ref().ok()) {
        Ok(record) => record,
        Err(reason) => return respond::unrecorded(reason),
    };
    let span = record.span();
    match endpoint {
        Ok(endpoint) => {
            let arrived = Arrived { conn, head: &head, snapshot: &snapshot, endpoint: &endpoint };
            // In its place, and so part of what the listener boxes: nothing of it is moved.
            let mut answered = pin!(answer(gateway, arrived, body, record));
            poll_fn(|context| span.in_scope(|| answered.as_mut().poll(context))).await
        }
        Err(refusal) => {
            let refused = respond::finish(Err(refusal.into()), Reply::default(), record);
            Box::pin(refused).instrument(span).await
        }
    }
}

/// What is known before the body is read.
#[derive(Clone, Copy)]
struct Arrived<'a> {
    conn: &'a Conn,
    head: &'a Parts,
    snapshot: &'a Arc<Snapshot>,
    endpoint: &'a Endpoint,
}

/// One call from its body to its answer and its record. A batch is as many calls as it has items.
async fn answer<B>(
    gateway: &Arc<Gateway>,
    arrived: Arrived<'_>,
    body: B,
    mut record: Record,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut reply = Reply::default();
    let outcome = phases(gateway, arrived, body, (&mut record, &mut reply)).await;
    match &outcome {
        Err(stop) => {
            record.stopped(stop);
            let scope = stop.scope.as_deref();
            let reason = stop.refusal.reason;
            reply.challenge = gateway.challenge(arrived.conn, arrived.head, reason, scope);
        }
        Ok(Answer::Batch(items)) => {
            return Box::pin(batch::serve(gateway, arrived, items, record)).await;
        }
        Ok(Answer::HandedOver) => {
            record.hand_over();
            return respond::empty(http::StatusCode::ACCEPTED);
        }
        Ok(_) => {}
    }
    if let Ok(Answer::Elsewhere(response)) = outcome {
        record.hand_over();
        return *response;
    }
    respond::finish(outcome, reply, record).await
}

async fn phases<B>(
    gateway: &Arc<Gateway>,
    arrived: Arrived<'_>,
    body: B,
    (record, reply): (&mut Record, &mut Reply),
) -> Result<Answer, Stop>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let Arrived { conn, head, snapshot, endpoint } = arrived;
    gateway.serves(&endpoint.group)?;
    let call = inbound::read(&gateway.site, (conn, endpoint), (head, body), reply).await?;
    record.called(&call);

    let now = gateway.now_secs();
    let who =
        authenticate::caller(gateway, (conn, head), (endpoint, &snapshot.sealing), now).await?;
    record.by(&who);

    let sealer = gateway.sealer(snapshot);
    let sealing = Sealing { sealer: sealer.as_deref(), ended: &gateway.ended, now };
    if let (Wants::Posted { token, .. }, Some(sealer)) = (&call.wants, sealing.sealer) {
        let bond = client::bond(endpoint, &who.id()).bytes();
        return http_sse::post(gateway, (conn, head), (token, &call.body), (&bond, sealer)).await;
    }
    let client = client::identify(&call, &who, endpoint, sealing)?;
    idle::check(gateway, endpoint, (&call, &client), (&who, now)).await?;
    let whose = (endpoint, &*who, sealing.sealer);
    if let Some(answer) = elsewhere::relay(gateway, (conn, head), (&call, &client), whose).await? {
        return Ok(answer);
    }
    reply.modern = Some(client.modern());
    record.with(&client);
    reply.again = resume::of(gateway, head, endpoint, (&client, &who), sealer.as_ref());
    if let Wants::Batch(items) = call.wants {
        return batch::accept(items, &client);
    }

    let sight = gateway.sight(endpoint, &who, &client, (conn, now));
    record.seen_by(&sight);
    let scope = Scope { call: &call, client: &client, endpoint, sight: &sight, sealing };
    let scene = Scene { call: &call, who: &who, client: &client, endpoint, sight: &sight, sealing };
    let target = match resume::find(gateway, scope, resolve::find(scene)?).await? {
        Target::Upstream(target) => target,
        Target::Again(rest) => return Ok(Answer::Again(rest)),
        Target::Here(Here::Answered(id)) => {
            return Ok(bridge::ask::answered(gateway, scope, &id).await?);
        }
        Target::Here(here) => {
            let _ticket = reserve::take_here(&gateway.limits, &endpoint.group, &who)?;
            return Ok(local::answer(gateway, scope, &here, (conn, head)).await?);
        }
    };
    record.on(&target);

    let arguments = validate::arguments(&call, &target, client.modern())?;
    record.valid();
    let permit = sight.permit(&target, &arguments)?;
    record.under(&permit, &arguments);

    let ticket = reserve::take(&gateway.limits, &endpoint.group, &who, &target)?;
    let outgoing = credential::attach(*target, permit, ticket, (snapshot, &endpoint.group))?;
    Ok(forward::send(gateway, scope, outgoing, record).await?)
}
