//! Servers over HTTP: Streamable HTTP in both eras, and HTTP+SSE of 2024-11-05 ([`pair`]).
//!
//! One [`Remote`] per server version: its connections, its sessions, what is known of its era.
//! A call finds the era, goes out once, and is repeated only when the server certainly did not
//! execute it (unknown session, wrong era, no connection) or when repeating changes nothing.

mod answer;
mod follow;
mod legacy;
mod modern;
mod pair;
mod post;
mod probe;
mod refresh;
mod relay;
mod session;
mod transparent;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::HttpUpstream;
use weir_model::snapshot::{UpstreamKey, VersionView};

use super::client::{Clients, OriginClient};
use super::era::{Known, Remembered, Verdict};
use super::health::Health;
use super::{Channel, Exchange, Outbound, Wire, hop, refuse};
use pair::Pair;
use refresh::Declared;
use session::Sessions;

/// Why an attempt gave no exchange.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing more to try.
    Refused(Refusal),
    /// The server answered as one of the other era would; it did not execute the request.
    Contradiction(Refusal),
    /// The server wants other mirrored headers; it did not execute the request.
    Mismatch(Refusal),
    /// The server does not know the session; it did not execute the request.
    SessionLost(Refusal),
    /// The request never left.
    Unsent(Refusal),
    /// The connection broke; the request may have been executed.
    Cut(Refusal),
}

impl Failure {
    fn is_contradiction(&self) -> bool {
        matches!(self, Self::Contradiction(_))
    }

    fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal)
            | Self::Contradiction(refusal)
            | Self::Mismatch(refusal)
            | Self::SessionLost(refusal)
            | Self::Unsent(refusal)
            | Self::Cut(refusal) => refusal,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<post::Broken> for Failure {
    fn from(broken: post::Broken) -> Self {
        match (broken.unsent, broken.cut) {
            (true, _) => Self::Unsent(broken.refusal),
            (false, true) => Self::Cut(broken.refusal),
            (false, false) => Self::Refused(broken.refusal),
        }
    }
}

/// One server version over HTTP.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) key: UpstreamKey,
    pub(crate) spec: HttpUpstream,
    pub(crate) health: Health,
    uri: Uri,
    clients: Clients,
    known: Known,
    sessions: Sessions,
    /// Mirrored headers that tools want, where that is not what is pinned.
    declared: Declared,
    /// The server is one of HTTP+SSE.
    paired: Remembered,
    /// Sessions over HTTP+SSE of clients that see through to them.
    pairs: Mutex<HashMap<String, Arc<Pair>>>,
    changes: broadcast::Sender<UpstreamKey>,
    ids: AtomicU64,
    used: Mutex<Instant>,
}

impl Remote {
    /// A server version that nothing is connected to yet.
    pub(crate) fn new(
        key: UpstreamKey,
        spec: HttpUpstream,
        clients: Clients,
        changes: broadcast::Sender<UpstreamKey>,
    ) -> Result<Self, Refusal> {
        let bad = |why: &str| Refusal::new(Reason::Quarantined, format!("the URL {why}"));
        let uri: Uri = spec.url.parse().map_err(|_| bad("cannot be parsed"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(bad("is no absolute http or https URL"));
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(bad("names a user; use a credential"));
        }
        Ok(Self {
            key,
            spec,
            health: Health::default(),
            uri,
            clients,
            known: Known::default(),
            sessions: Sessions::default(),
            declared: Declared::default(),
            paired: Remembered::default(),
            pairs: Mutex::default(),
            changes,
            ids: AtomicU64::new(1),
            used: Mutex::new(Instant::now()),
        })
    }

    /// One request, in whatever era fits.
    pub(crate) async fn call(self: &Arc<Self>, outbound: &Outbound) -> Result<Exchange, Refusal> {
        *self.used.lock() = Instant::now();
        if outbound.session.is_some() || outbound.method == "initialize" {
            return self.call_transparent(outbound).await.map_err(Failure::into_refusal);
        }
        match self.attempt(outbound).await {
            Ok(exchange) => Ok(exchange),
            Err(failure) => {
                let again = match &failure {
                    Failure::Refused(_) => false,
                    Failure::Contradiction(_) => {
                        self.known.contradicted();
                        true
                    }
                    Failure::Mismatch(_) => self.refresh(outbound).await?,
                    Failure::SessionLost(_) => true,
                    // Nobody listens there; a second attempt at once only doubles the wait.
                    Failure::Unsent(_) => false,
                    Failure::Cut(_) => hop::repeatable(outbound),
                };
                if !again {
                    return Err(failure.into_refusal());
                }
                let refusal = failure.into_refusal();
                tracing::debug!(server = %self.key, %refusal, "a call is sent once more");
                outbound.retries.fetch_add(1, Ordering::Relaxed);
                self.attempt(outbound).await.map_err(Failure::into_refusal)
            }
        }
    }

    async fn attempt(self: &Arc<Self>, outbound: &Outbound) -> Result<Exchange, Failure> {
        let wire = self
            .wire(
                &outbound.version,
                outbound.front.modern,
                &outbound.credentials,
                outbound.deadline,
            )
            .await?;
        match wire {
            Wire::Modern => self.call_modern(outbound).await,
            Wire::Legacy => self.call_legacy(outbound).await,
        }
    }

    /// Which wire a client of that era gets. A server of both eras is met in the client's own.
    pub(crate) async fn wire(
        self: &Arc<Self>,
        version: &VersionView,
        front_modern: bool,
        credentials: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<Wire, Refusal> {
        let pinned = version.catalog.as_ref().map(|catalog| catalog.era);
        let enough = |v: Verdict| front_modern || !v.modern || v.legacy.is_some();
        let verdict = self
            .known
            .or_probe(pinned, enough, || self.probe(!front_modern, credentials, deadline))
            .await?;
        Ok(match (front_modern, verdict.modern, verdict.legacy) {
            (true, true, _) | (false, true, Some(false) | None) => Wire::Modern,
            (_, false, _) | (false, true, Some(true)) => Wire::Legacy,
        })
    }

    /// What requests of this lane go through.
    fn client(&self) -> &OriginClient {
        self.clients.here(&self.uri)
    }

    /// The next request id of this hop, which is its progress token as well.
    fn next_id(&self) -> Bytes {
        self.ids.fetch_add(1, Ordering::Relaxed).to_string().into()
    }

    /// Tells whoever watches that the server's lists have changed.
    fn noticed(&self, method: &str) {
        if method.ends_with("/list_changed") {
            // Nobody may be watching.
            let _ = self.changes.send(self.key.clone());
        }
    }

    /// Sessions that are open.
    pub(crate) fn session_count(&self) -> usize {
        self.sessions.count() + self.pairs.lock().len()
    }

    /// When it was last called.
    pub(crate) fn used(&self) -> Instant {
        *self.used.lock()
    }

    /// Ends sessions that nobody used for a while.
    pub(crate) async fn sweep(self: &Arc<Self>) {
        self.clients.sweep();
        self.pairs.lock().retain(|_, pair| pair.alive() && !pair.idle_for(session::IDLE));
        self.end_sessions(self.sessions.idle()).await;
    }

    /// Ends all sessions.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.pairs.lock().drain().for_each(|(_, pair)| pair.leave());
        self.end_sessions(self.sessions.all()).await;
    }
}

/// The refusal for a status that no rule explains.
fn unexpected(status: http::StatusCode) -> Refusal {
    refuse::protocol(format!("the server answered HTTP {status} without a JSON-RPC message"))
}

/// What a transparent session's messages go through.
pub(crate) struct Seat<'a> {
    session: Option<HeaderValue>,
    revision: &'a str,
    credentials: &'a [(HeaderName, HeaderValue)],
    deadline: Instant,
}

impl<'a> Seat<'a> {
    fn of(channel: &'a Channel) -> Result<Self, Refusal> {
        Ok(Self {
            session: session_header(&channel.session)?,
            revision: &channel.revision,
            credentials: &channel.credentials,
            deadline: channel.deadline,
        })
    }
}

/// The header of a session; none for servers that keep none (an empty text).
fn session_header(session: &str) -> Result<Option<HeaderValue>, Refusal> {
    if session.is_empty() {
        return Ok(None);
    }
    let unknown = |_| refuse::session_unknown("the session id is no header value");
    HeaderValue::from_str(session).map(Some).map_err(unknown)
}
