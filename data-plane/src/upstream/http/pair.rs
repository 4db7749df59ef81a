//! HTTP+SSE of 2024-11-05: a stream that the gateway opens with GET, and an endpoint that the
//! stream names, to which messages are posted. Every answer comes on the stream.
//!
//! The stream is the session: one per caller, ended with it. The endpoint must have the origin of
//! the stream (a server must not send the gateway, and the credential with it, elsewhere).

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::super::client::OriginClient;
use super::super::hop::Hop;
use super::super::link::{self, Carried, Link};
use super::super::mux::{Mux, Use};
use super::super::question::Reply;
use super::super::{
    Exchange, Message, Messages, Opened, Outbound, adapt, handshake, origin, refuse,
};
use super::post::{Body, Events, Post, send};
use super::session::{Lease, Session};
use super::{Failure, Remote};

/// How long a server may take to say where to post. Servers that are none of this kind may accept
/// the GET and say nothing.
const ENDPOINT: Duration = Duration::from_secs(5);
/// How long a message that waits for no answer may take.
const ASIDE: Duration = Duration::from_secs(10);
/// What the ids begin with under which clients' own sessions are kept here.
const PREFIX: &str = "weir-paired-";

/// A session over HTTP+SSE. Dropping the last handle closes the stream.
#[derive(Debug)]
pub(super) struct Pair {
    client: OriginClient,
    endpoint: Uri,
    credentials: Vec<(HeaderName, HeaderValue)>,
    mux: Arc<Mux>,
    used: Mutex<Instant>,
    stop: DropGuard,
}

impl Pair {
    /// True until the stream has ended.
    pub(super) fn alive(&self) -> bool {
        !self.mux.is_closed() && !self.stop.token().is_cancelled()
    }

    /// True when nobody waits for anything on it.
    pub(super) fn is_idle(&self) -> bool {
        self.mux.is_idle()
    }

    /// Closes the stream, whoever still holds it.
    pub(super) fn leave(&self) {
        self.stop.token().cancel();
    }

    /// True when nothing waits for it and nobody used it for that long.
    pub(super) fn idle_for(&self, time: Duration) -> bool {
        self.mux.is_idle() && self.used.lock().elapsed() > time
    }

    async fn post(&self, body: Bytes, deadline: Instant) -> Result<(), Failure> {
        let post = Post {
            method: Method::POST,
            credentials: &self.credentials,
            headers: HeaderMap::new(),
            body,
            deadline,
        };
        let answer = send(&self.client, &self.endpoint, post).await?;
        match answer.status.as_u16() {
            200..=299 => Ok(()),
            // 400 is what a widespread example says of a stream that it does not know.
            400 | 404 | 410 => {
                self.leave();
                let gone = format!("the server answered HTTP {} to a message", answer.status);
                Err(Failure::SessionLost(refuse::session_unknown(gone)))
            }
            _ => Err(super::unexpected(answer.status).into()),
        }
    }
}

impl Link for Pair {
    type Failure = Failure;

    fn mux(&self) -> &Mux {
        &self.mux
    }

    async fn send(&self, message: &Bytes, deadline: Instant) -> Result<(), Failure> {
        *self.used.lock() = Instant::now();
        self.post(message.clone(), deadline).await
    }

    fn send_aside(self: &Arc<Self>, message: Bytes) {
        let Ok(handle) = tokio::runtime::Handle::try_current() else { return };
        let pair = Arc::clone(self);
        handle.spawn(async move {
            if let Err(failure) = pair.post(message, Instant::now() + ASIDE).await {
                let refusal = failure.into_refusal();
                tracing::debug!(%refusal, "a message of the gateway did not arrive");
            }
        });
    }
}

impl Remote {
    /// Opens the stream and waits for its first event.
    pub(super) async fn open_pair(
        &self,
        credentials: &[(HeaderName, HeaderValue)],
        kind: Use,
        deadline: Instant,
    ) -> Result<Arc<Pair>, Failure> {
        let deadline = deadline.min(Instant::now() + ENDPOINT);
        let get = Post {
            method: Method::GET,
            credentials,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            deadline,
        };
        let answer = self.send(get).await?;
        let Body::Events(mut events) = answer.body else {
            return Err(Failure::Contradiction(super::unexpected(answer.status)));
        };
        let named = tokio::time::timeout_at(deadline.into(), endpoint_event(&mut events)).await;
        let silent = || refuse::protocol("the server's stream names no endpoint");
        let named = named.map_err(|_| Failure::Contradiction(silent()))??;
        let wrong = |why| refuse::protocol(format!("the server's endpoint {why}"));
        let endpoint = origin::within(&self.uri, &named).map_err(wrong)?;
        let mux = Arc::new(Mux::new(kind, self.key.clone(), self.changes.clone()));
        let stop = CancellationToken::new();
        let pair = Arc::new(Pair {
            client: self.client().clone(),
            endpoint,
            credentials: credentials.to_vec(),
            mux: Arc::clone(&mux),
            used: Mutex::new(Instant::now()),
            stop: stop.clone().drop_guard(),
        });
        tokio::spawn(read(*events, mux, Arc::downgrade(&pair), stop));
        Ok(pair)
    }

    /// A call on a session of the pool.
    pub(super) async fn call_paired(
        self: &Arc<Self>,
        outbound: &Outbound,
        (session, pair): (&Arc<Session>, &Arc<Pair>),
    ) -> Result<Exchange, Failure> {
        let _busy = Lease::new(session);
        let id = self.next_id();
        let ours = String::from_utf8_lossy(&id).into_owned();
        let adapted = adapt::to_legacy(outbound, Some(&ours))?;
        let mut hop = Hop::new(outbound, id, false);
        hop.token = adapted.token;
        let token = hop.token.is_some().then(|| hop.id.clone());
        let messages = self.carried(pair, (hop, token), adapted.params, outbound).await?;
        Ok(Exchange { back_revision: session.revision.clone(), session: None, messages })
    }

    /// A call of a client that sees through to the session.
    pub(super) async fn exchange_paired(
        &self,
        pair: Arc<Pair>,
        outbound: &Outbound,
    ) -> Result<Messages, Failure> {
        let adapted = adapt::to_legacy(outbound, None)?;
        let raw_id = outbound.id.clone().unwrap_or_else(|| self.next_id());
        let mut hop = Hop::new(outbound, raw_id, false);
        hop.transparent = true;
        let token = adapted.params.as_deref().and_then(adapt::own_token);
        self.carried(&pair, (hop, token), adapted.params, outbound).await
    }

    async fn carried(
        &self,
        pair: &Arc<Pair>,
        (hop, token): (Hop, Option<super::super::envelope::Id>),
        params: Option<Bytes>,
        outbound: &Outbound,
    ) -> Result<Messages, Failure> {
        let gone = || refuse::session_unknown("the stream of the session has ended");
        if !pair.alive() {
            return Err(Failure::SessionLost(gone()));
        }
        let method = &outbound.method;
        let call = Carried { hop, token, method, params, deadline: outbound.deadline };
        link::exchange(Arc::clone(pair), call).await.map_err(|failure| match failure {
            // The stream ended while the server may have been at work.
            Failure::Refused(refusal) if refusal.reason == Reason::UpstreamClosed => {
                Failure::Cut(refusal)
            }
            other => other,
        })
    }

    /// `initialize` in the client's own words, on a stream of its own.
    pub(super) async fn initialize_paired(&self, outbound: &Outbound) -> Result<Exchange, Failure> {
        if self.pairs.lock().len() >= bounds::UPSTREAM_SESSIONS_MAX {
            let full = Refusal::new(Reason::Overloaded, "too many sessions at one server");
            return Err(full.into());
        }
        let pair =
            self.open_pair(&outbound.credentials, Use::Transparent, outbound.deadline).await?;
        let messages = self.exchange_paired(Arc::clone(&pair), outbound).await?;
        let Messages::One(Message::Result(result)) = &messages else {
            let back_revision = outbound.front.revision.clone();
            return Ok(Exchange { back_revision, session: None, messages });
        };
        let back_revision = handshake::negotiated(result)?;
        let session = format!("{PREFIX}{}", uuid::Uuid::new_v4());
        self.pairs.lock().insert(session.clone(), pair);
        let session = Some(Opened { id: session, local: true });
        Ok(Exchange { back_revision, session, messages })
    }

    /// The stream of a client's own session; none when the session is of another kind.
    pub(super) fn pair_of(&self, session: &str) -> Result<Option<Arc<Pair>>, Refusal> {
        if !session.starts_with(PREFIX) {
            return Ok(None);
        }
        let mut pairs = self.pairs.lock();
        match pairs.get(session) {
            Some(pair) if pair.alive() => Ok(Some(Arc::clone(pair))),
            _ => {
                pairs.remove(session);
                Err(refuse::session_unknown("the stream of this session has ended"))
            }
        }
    }
}

/// The data of the `endpoint` event, which comes before any message.
async fn endpoint_event(events: &mut Events) -> Result<String, Failure> {
    loop {
        let Some(event) = events.next().await? else {
            let ended = refuse::protocol("the server's stream ended before it named an endpoint");
            return Err(Failure::Contradiction(ended));
        };
        let Some(data) = event.data else { continue };
        if event.name.as_deref() == Some("endpoint") {
            let text = std::str::from_utf8(&data).map(str::trim);
            let broken = |_| refuse::protocol("the server's endpoint is no text");
            return Ok(text.map_err(broken)?.to_owned());
        }
        let first = refuse::protocol("the server's stream begins with a message");
        return Err(Failure::Contradiction(first));
    }
}

/// Hands the stream's messages to the multiplexer until it ends.
async fn read(mut events: Events, mux: Arc<Mux>, pair: Weak<Pair>, stop: CancellationToken) {
    let pump = async {
        loop {
            let event = match events.next().await {
                Ok(Some(event)) => event,
                Ok(None) => return refuse::closed("the server closed the stream"),
                Err(refusal) => return refusal,
            };
            if event.name.as_deref().is_some_and(|name| name != "message") {
                continue;
            }
            let Some(data) = event.data else { continue };
            let reply = || -> Reply {
                let pair = pair.clone();
                Box::new(move |answer| {
                    if let Some(pair) = pair.upgrade() {
                        pair.send_aside(answer);
                    }
                })
            };
            match mux.line(&data, reply) {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    if let Some(pair) = pair.upgrade() {
                        pair.send_aside(answer);
                    }
                }
                Err(refusal) => return refusal,
            }
        }
    };
    let end = tokio::select! {
        end = pump => end,
        () = stop.cancelled() => refuse::closed("the session was ended"),
    };
    mux.close(end);
}
