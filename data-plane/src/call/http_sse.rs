//! HTTP+SSE, the transport of 2024-11-05: one stream for everything that a client is told, and
//! POSTs for everything that it says.
//!
//! GET on `/{group}/sse` or `/{group}/{server}/sse` (or on the MCP endpoint beside it, by a client
//! that shows no session) opens the stream. Its first event names the URL for POSTs: the same
//! with a sealed token that says who holds the stream, bound to the caller. A POST may arrive at any proxy; it is authenticated there and handed to the
//! holder over the [hop](crate::hop), which runs it as a call of Streamable HTTP with a record of
//! its own and tells the answer on the stream. The session of such a client lives and ends with
//! its stream: calls in flight are cancelled, the server's session is ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};

use super::client::bond;
use super::forward::Scope;
use super::inbound::Conn;
use super::relay::Flow;
use super::respond::{Answer, Body};
use super::resume::Once;
use super::{Gateway, Stop};
use crate::hop::{self, Ask, Holder, Holding, Kept, whole};
use crate::mcp::envelope;
use crate::mcp::session;
use crate::mcp::sse;

const PURPOSE: &str = "messages";
/// What the holder of a stream is asked: headers as JSON in the first line, then the message.
const VERB: &str = "message";
/// Headers of a POST that its call needs.
const CARRIED: [&str; 5] =
    ["authorization", "mcp-protocol-version", "traceparent", "tracestate", "baggage"];
/// Beside them: who sent the POST, which rules may ask about. No header has this name.
const PEER: &str = "(peer)";
/// All of them together.
const CARRIED_BYTES_MAX: usize = bounds::TOKEN_BYTES_MAX + bounds::HEADER_BYTES_MAX;

/// Opens the stream.
///
/// # Errors
/// [`Reason::ConcurrencyLimited`] and [`Reason::Overloaded`] when there are too many.
pub fn open(
    gateway: &Arc<Gateway>,
    scope: Scope<'_>,
    (conn, head): (&Conn, &Parts),
) -> Result<Answer, Refusal> {
    let principal = scope.sight.who.id();
    let bond = bond(scope.endpoint, &principal).bytes();
    let (frames, sent) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
    let (idle, messages) = mpsc::channel(1);
    let pair = Arc::new(Pair {
        gateway: Arc::clone(gateway),
        conn: conn.clone(),
        head: within(head),
        session: Mutex::default(),
        frames,
        room: Arc::new(Semaphore::new(bounds::HTTP_SSE_CALLS_MAX)),
        over: CancellationToken::new(),
        pushing: AtomicBool::new(false),
    });
    let kept = gateway.hop.keep(Digest::of(&bond), Arc::new(Held(Arc::clone(&pair))))?;
    let holder = serde_json::to_vec(kept.holder())
        .map_err(|e| Refusal::new(Reason::Internal, format!("holder to JSON: {e}")))?;
    let token = scope
        .sealing
        .sealer()?
        .seal(PURPOSE, &bond, &holder)
        .map_err(|e| Refusal::new(Reason::Internal, e.to_string()))?;
    let base = gateway.site.base_url(conn, head);
    let prefix = base.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    let prefix = prefix.map(|(_, path)| format!("/{}", path.trim_end_matches('/')));
    let prefix = prefix.filter(|path| path.len() > 1).unwrap_or_default();
    let path = head.uri.path();
    let greeting = format!("event: endpoint\ndata: {prefix}{path}?sessionId={token}\n\n");
    let open = Open { pair, _kept: kept, _idle: idle };
    let flow = Flow::open(messages, scope, gateway)?.of_pair(greeting.into(), sent, open);
    Ok(Answer::Stream(Box::new(flow)))
}

/// Hands a POST to whoever holds its stream.
///
/// # Errors
/// [`Reason::SessionUnknown`] when the stream is not this caller's or not there any more,
/// [`Reason::ConcurrencyLimited`] when too many calls of it are running.
pub async fn post(
    gateway: &Gateway,
    (conn, head): (&Conn, &Parts),
    (token, message): (&str, &Bytes),
    (bond, sealer): (&[u8], &weir_model::seal::Sealer),
) -> Result<Answer, Stop> {
    let holder: Holder = sealer
        .open(PURPOSE, bond, token)
        .ok()
        .and_then(|plain| serde_json::from_slice(&plain).ok())
        .ok_or_else(|| session::unknown("no stream of this caller"))?;
    let peer = conn.peer.to_string();
    let carried: Vec<(&str, &str)> = CARRIED
        .iter()
        .filter_map(|name| Some((*name, head.headers.get(*name)?.to_str().ok()?)))
        .chain([(PEER, peer.as_str())])
        .collect();
    let mut body = BytesMut::from(&*serde_json::to_vec(&carried).unwrap_or_default());
    body.put_u8(b'\n');
    body.put_slice(message);
    let ask = Ask { owner: Digest::of(bond), verb: VERB, body: whole(body.freeze()) };
    match gateway.hop.relay(&holder, ask).await {
        Ok(_) => Ok(Answer::HandedOver),
        Err(lost) => Err(lost.refusal(session::unknown("its stream is gone")).into()),
    }
}

/// The head of the requests that a stream's messages become: that of the stream's own request.
fn within(head: &Parts) -> Parts {
    let mut head = head.clone();
    head.extensions.insert(Once);
    for name in ["last-event-id", session::HEADER, "content-length", "transfer-encoding"] {
        head.headers.remove(name);
    }
    let both = HeaderValue::from_static("application/json, text/event-stream");
    head.headers.insert(header::ACCEPT, both);
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head
}

/// One client: its stream, and what its messages need.
pub(super) struct Pair {
    gateway: Arc<Gateway>,
    conn: Conn,
    head: Parts,
    session: Mutex<Option<HeaderValue>>,
    frames: mpsc::Sender<Bytes>,
    room: Arc<Semaphore>,
    over: CancellationToken,
    pushing: AtomicBool,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

/// Held by the stream: with it everything ends.
#[derive(Debug)]
pub struct Open {
    pair: Arc<Pair>,
    _kept: Kept,
    _idle: mpsc::Sender<Result<crate::upstream::Message, Refusal>>,
}

impl Open {
    /// Returns when no call is running; none begins afterwards.
    pub async fn idle(&self) {
        let all = u32::try_from(bounds::HTTP_SSE_CALLS_MAX).unwrap_or(u32::MAX);
        if let Ok(permits) = self.pair.room.acquire_many(all).await {
            permits.forget();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.pair.over.cancel();
        let session = self.pair.session.lock().take();
        if let (Some(session), Ok(runtime)) = (session, tokio::runtime::Handle::try_current()) {
            let pair = Arc::clone(&self.pair);
            *pair.session.lock() = Some(session);
            runtime.spawn(async move {
                pair.call(Method::DELETE, (pair.conn.peer, &HeaderMap::new()), Bytes::new()).await;
            });
        }
    }
}

#[derive(Debug)]
struct Held(Arc<Pair>);

#[async_trait]
impl Holding for Held {
    async fn ask(&self, verb: &str, body: hop::Body) -> Result<hop::Body, Refusal> {
        let unreadable = || Refusal::new(Reason::Internal, "not what a stream is told");
        if verb != VERB {
            return Err(unreadable());
        }
        let limit = bounds::REQUEST_BODY_BYTES_MAX + CARRIED_BYTES_MAX;
        let body = Limited::new(body, limit).collect().await.map_err(|_| unreadable())?.to_bytes();
        let end = body.iter().position(|b| *b == b'\n').ok_or_else(unreadable)?;
        let carried: Vec<(String, String)> =
            serde_json::from_slice(&body[..end]).map_err(|_| unreadable())?;
        let mut headers = HeaderMap::new();
        for name in CARRIED {
            let value = carried.iter().find(|(other, _)| other == name);
            if let Some(Ok(value)) = value.map(|(_, value)| HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        let peer = carried.iter().find(|(name, _)| name == PEER);
        let peer = peer.and_then(|(_, peer)| peer.parse().ok()).ok_or_else(unreadable)?;
        self.0.take((peer, headers), body.slice(end + 1..)).await?;
        Ok(whole(Bytes::new()))
    }
}

impl Pair {
    /// Runs a message. What has no answer is done when this returns, so that what the client
    /// says next comes after it.
    async fn take(
        self: &Arc<Self>,
        (peer, headers): (SocketAddr, HeaderMap),
        message: Bytes,
    ) -> Result<(), Refusal> {
        let read = envelope::read(&message).map_err(|unreadable| unreadable.refusal)?;
        let begins = read.method() == Some("notifications/initialized");
        if read.id().is_none() {
            self.call(Method::POST, (peer, &headers), message).await;
            if begins && !self.pushing.swap(true, Ordering::AcqRel) {
                let pair = Arc::clone(self);
                tokio::spawn(async move {
                    pair.run(Method::GET, (peer, headers), Bytes::new()).await;
                });
            }
            return Ok(());
        }
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Refusal::new(Reason::ConcurrencyLimited, "calls of one stream").retry_after(1)
        })?;
        let pair = Arc::clone(self);
        tokio::spawn(async move {
            pair.run(Method::POST, (peer, headers), message).await;
            drop(room);
        });
        Ok(())
    }

    /// Runs a call until its end or that of the stream, and tells what comes of it.
    async fn run(&self, method: Method, (peer, headers): (SocketAddr, HeaderMap), body: Bytes) {
        let work = async {
            match self.call(method, (peer, &headers), body).await.into_body() {
                Body::Whole(Some(raw)) if !raw.is_empty() => {
                    let _ = self.frames.send(sse::message(&[&raw])).await;
                }
                Body::Whole(_) => {}
                Body::Stream(mut frames) => {
                    while let Some(frame) = frames.next().await {
                        // Comments are the stream's own business.
                        if !frame.starts_with(b":") && self.frames.send(frame).await.is_err() {
                            return;
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.over.cancelled() => {}
        }
    }

    /// One request of Streamable HTTP in the client's session, which `initialize` begins. It comes
    /// from whoever posted it, not from where the stream was opened.
    async fn call(
        &self,
        method: Method,
        (peer, headers): (SocketAddr, &HeaderMap),
        body: Bytes,
    ) -> Response<Body> {
        let push = method == Method::GET;
        let mut head = self.head.clone();
        head.method = method;
        for (name, value) in headers {
            head.headers.insert(name.clone(), value.clone());
        }
        if let Some(session) = self.session.lock().clone() {
            head.headers.insert(session::HEADER, session);
        }
        let request = Request::from_parts(head, Full::new(body));
        let conn = Conn { peer, ..self.conn.clone() };
        let mut response = Box::pin(super::serve(&self.gateway, &conn, request)).await;
        if let Some(session) = response.headers_mut().remove(session::HEADER) {
            *self.session.lock() = Some(session);
        }
        if push && !response.status().is_success() {
            // A server without such a stream: its client is told nothing.
            *response.body_mut() = Body::Whole(None);
        }
        response
    }
}
