//! Streams that a client with a session asks for again, here or at another proxy.
//!
//! An event's id says who has the stream ([`crate::replay`]). Its holder goes on with it; where
//! the holder is gone, the server itself is asked, if it gave the client an id of its own. What
//! nobody has any more is told: a call gets an error as its answer, so that its client does not
//! wait for ever, and a stream that belongs to no call simply begins anew.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::request::Parts;
use http_body_util::BodyExt as _;
use weir_model::audit::Outcome;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::Sealer;
use weir_runtime::drain::Watch;

use super::client::{Client, bond};
use super::endpoint::Endpoint;
use super::forward::Scope;
use super::inbound::Wants;
use super::record::Record;
use super::resolve::{Errand, Target};
use super::{Gateway, respond};
use crate::hop::{self, Ask, Hop};
use crate::mcp::revision::Revision;
use crate::mcp::sse;
use crate::replay::{EventId, Frames, Owner, RESUME, Replays, Sent};
use crate::sessions::OpenStream;

/// Marks a request whose answer is part of another one: it cannot be asked for by itself.
#[derive(Debug, Clone, Copy)]
pub struct Once;

/// What makes a stream one that can be asked for again.
#[derive(Debug)]
pub struct Again {
    replays: Replays,
    hop: Hop,
    drain: Watch,
    owner: Owner,
}

/// Decides whether this client's streams can be asked for again: those of sessions, in revisions
/// that know event ids.
pub fn of(
    gateway: &Gateway,
    head: &Parts,
    endpoint: &Endpoint,
    (client, who): (&Client, &Principal),
    sealer: Option<&Arc<Sealer>>,
) -> Option<Again> {
    let wanted = client.session.is_some()
        && client.revision >= Revision::V2025_03_26
        && head.extensions.get::<Once>().is_none();
    if !wanted {
        return None;
    }
    let principal = who.id();
    let owner = Owner {
        bond: of_session(endpoint, &principal, client),
        principal,
        sealer: Arc::clone(sealer?),
        primes: client.revision >= Revision::V2025_11_25,
        request: None,
    };
    let (replays, hop) = (gateway.replays.clone(), gateway.hop.clone());
    Some(Again { replays, hop, drain: gateway.drain.clone(), owner })
}

/// What the ids of events are bound to: a caller's other sessions get nothing of this one's.
fn of_session(endpoint: &Endpoint, principal: &str, client: &Client) -> Vec<u8> {
    let mut bond = bond(endpoint, principal).bytes();
    bond.push(0);
    if let Some(session) = &client.session {
        bond.extend_from_slice(session.nonce.as_bytes());
    }
    bond
}

impl Again {
    /// The stream, to be sent. `request` is the id of the request that it answers.
    pub fn track(self, frames: Frames, request: Option<Bytes>) -> Sent {
        let owner = Owner { request, ..self.owner };
        self.replays.track(&self.hop, owner, frames, &self.drain)
    }
}

/// The rest of a stream.
#[derive(Debug)]
pub struct Rest {
    body: hop::Body,
    outcome: Outcome,
    _counted: OpenStream,
}

impl Rest {
    /// As it is sent; the record is written with its end.
    pub fn into_stream(self, record: Record) -> Sent {
        let Self { body, outcome, _counted } = self;
        let state = (body.into_data_stream(), Some(record), _counted);
        Box::pin(futures_util::stream::unfold(state, move |mut state| async move {
            // A holder that is lost half way ends the stream: its client comes back.
            if let Some(Ok(frame)) = state.0.next().await {
                if let Some(record) = &mut state.1 {
                    record.facts.response_bytes += frame.len() as u64;
                }
                return Some((frame, state));
            }
            if let Some(record) = state.1.take() {
                let _ = record.close(outcome, 0).await;
            }
            None
        }))
    }
}

/// Goes on with a stream, where that is what is wanted; all else stays as it was resolved.
///
/// # Errors
/// [`Reason::InvalidRequest`] for an id that was not made for this session of this caller here,
/// [`Reason::ConcurrencyLimited`] when the caller has too many streams open.
pub async fn find(gateway: &Gateway, scope: Scope<'_>, target: Target) -> Result<Target, Refusal> {
    let Wants::Stream { after: Some(id) } = &scope.call.wants else { return Ok(target) };
    let principal = scope.sight.who.id();
    let bond = of_session(scope.endpoint, &principal, scope.client);
    let event = EventId::open(scope.sealing.sealer()?, &bond, id).ok_or_else(|| {
        Refusal::new(Reason::InvalidRequest, "an event id that is not this caller's")
            .hint("Unknown Last-Event-ID.")
    })?;
    let counted = {
        let most = scope.endpoint.group.spec.sessions.streams_per_principal;
        gateway.streams.open(&principal, most)?
    };
    let rest = |body, outcome| Target::Again(Rest { body, outcome, _counted: counted });
    let owner = weir_model::id::Digest::of(&bond);
    let ask = Ask { owner, verb: RESUME, body: hop::whole(event.at.to_string()) };
    let lost = match gateway.hop.relay(&event.holder, ask).await {
        Ok(body) => return Ok(rest(body, Outcome::Success)),
        Err(lost) => lost,
    };
    Ok(match (target, event.upstream, event.request) {
        (Target::Upstream(mut target), Some(id), _) => {
            target.errand = Errand::Stream { after: Some(id) };
            Target::Upstream(target)
        }
        (_, _, Some(request)) => {
            tracing::info!(?lost, node = event.holder.node, "the stream of a call is gone");
            let refusal = Refusal::new(Reason::UpstreamClosed, "its stream is gone")
                .hint("The stream of this call is gone; send the call again if that is safe.");
            let frame = last(&request, &refusal);
            let frames = futures_util::stream::iter([Ok(frame)]);
            rest(hop::streamed(frames), Outcome::Refused(refusal.reason))
        }
        (Target::Upstream(mut target), None, None) => {
            target.errand = Errand::Stream { after: None };
            Target::Upstream(target)
        }
        (target, _, None) => target,
    })
}

/// The answer to a call whose own was lost.
fn last(request: &str, refusal: &Refusal) -> Bytes {
    let mut head = BytesMut::new();
    respond::put_head(&mut head, request.as_bytes(), "error");
    sse::message(&[&head, respond::error_object(refusal).as_bytes(), b"}"])
}
