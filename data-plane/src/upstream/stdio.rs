//! Servers that the proxy runs as child processes.
//!
//! A modern server keeps no conversation, so one child serves every caller. For a legacy server the
//! process is the session: each caller gets a child of its own, within a bound, until it is idle.
//! A child that dies ends the calls on it at once; the next call starts another, later and later
//! while it keeps dying young.

mod child;
mod start;
pub(crate) mod usage;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast};
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::StdioUpstream;
use weir_model::snapshot::{UpstreamKey, VersionView};

use super::adapt::{self, MODERN};
use super::envelope::Id;
use super::era::Known;
use super::health::Health;
use super::hop::{Hop, repeatable};
use super::link::{self, Carried, Link as _};
use super::mux::Use;
use super::{
    Channel, Exchange, Message, Messages, Opened, Outbound, Pushed, Wire, handshake, refuse,
};
use child::{Child, Tail};
use start::{Backoff, Seat};
use usage::Usage;

/// How long a caller's own child is kept without a call.
const OWN_IDLE: Duration = Duration::from_secs(300);
/// The same for the shared child, which is dearer to miss.
const SHARED_IDLE: Duration = Duration::from_secs(1_800);

/// One server version over stdio.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) key: UpstreamKey,
    pub(crate) spec: StdioUpstream,
    pub(crate) health: Health,
    known: Known,
    shared: tokio::sync::Mutex<Option<Arc<Child>>>,
    own: Mutex<HashMap<String, Arc<Seat>>>,
    sessions: Mutex<HashMap<String, Arc<Child>>>,
    backoff: Mutex<Backoff>,
    tail: Arc<Tail>,
    permits: Arc<Semaphore>,
    usage: Arc<Usage>,
    changes: broadcast::Sender<UpstreamKey>,
    ids: AtomicU64,
    used: Mutex<Instant>,
}

impl Program {
    /// A program that is not started yet.
    pub(crate) fn new(
        key: UpstreamKey,
        spec: StdioUpstream,
        (permits, usage): (Arc<Semaphore>, Arc<Usage>),
        changes: broadcast::Sender<UpstreamKey>,
    ) -> Self {
        Self {
            key,
            spec,
            health: Health::default(),
            known: Known::default(),
            shared: tokio::sync::Mutex::default(),
            own: Mutex::default(),
            sessions: Mutex::default(),
            backoff: Mutex::default(),
            tail: Arc::default(),
            permits,
            usage,
            changes,
            ids: AtomicU64::new(1),
            used: Mutex::new(Instant::now()),
        }
    }

    /// One request.
    pub(crate) async fn call(self: &Arc<Self>, outbound: &Outbound) -> Result<Exchange, Refusal> {
        *self.used.lock() = Instant::now();
        if outbound.session.is_some() || outbound.method == "initialize" {
            return self.call_transparent(outbound).await;
        }
        match self.attempt(outbound).await {
            Err(refusal) if refusal.reason == Reason::UpstreamClosed && repeatable(outbound) => {
                tracing::debug!(server = %self.key, %refusal, "a call is sent once more");
                self.attempt(outbound).await
            }
            other => other,
        }
    }

    async fn attempt(self: &Arc<Self>, outbound: &Outbound) -> Result<Exchange, Refusal> {
        let wire = self.wire(&outbound.version, outbound.deadline).await?;
        adapt::exists(&outbound.method, wire == Wire::Modern)?;
        let id = self.next_id();
        let ours = String::from_utf8_lossy(&id).into_owned();
        let (child, adapted) = match wire {
            Wire::Modern => {
                (self.shared(outbound.deadline).await?, adapt::to_modern(outbound, &ours)?)
            }
            Wire::Legacy => {
                (self.own_told(outbound).await?, adapt::to_legacy(outbound, Some(&ours))?)
            }
        };
        let mut hop = Hop::new(outbound, id, wire == Wire::Modern);
        hop.token = adapted.token;
        let revision = match wire {
            Wire::Modern => MODERN.to_owned(),
            Wire::Legacy => child.revision().unwrap_or_default(),
        };
        let token = hop.token.is_some().then(|| hop.id.clone());
        let messages = self.exchange((child, hop), token, adapted.params, outbound).await?;
        Ok(Exchange { back_revision: revision, session: None, messages })
    }

    /// Which wire calls take: the modern one where there is a choice, since it shares the child.
    pub(crate) async fn wire(
        self: &Arc<Self>,
        version: &VersionView,
        deadline: Instant,
    ) -> Result<Wire, Refusal> {
        let pinned = version.catalog.as_ref().map(|catalog| catalog.era);
        let verdict = self.known.or_probe(pinned, |_| true, || self.probe(deadline)).await?;
        Ok(if verdict.modern { Wire::Modern } else { Wire::Legacy })
    }

    /// Sends a request to a child and waits for the first message.
    async fn exchange(
        &self,
        (child, hop): (Arc<Child>, Hop),
        token: Option<Id>,
        params: Option<Bytes>,
        outbound: &Outbound,
    ) -> Result<Messages, Refusal> {
        let method = &outbound.method;
        let call = Carried { hop, token, method, params, deadline: outbound.deadline };
        let messages = link::exchange(child, call).await?;
        if matches!(messages, Messages::One(_)) {
            self.backoff.lock().went_well();
        }
        Ok(messages)
    }

    /// A client with the server's session for itself: the session is a child of its own.
    async fn call_transparent(self: &Arc<Self>, outbound: &Outbound) -> Result<Exchange, Refusal> {
        let opens = outbound.session.is_none();
        let child = match &outbound.session {
            Some(session) => self.of_session(session)?,
            None => self.start(Use::Transparent)?,
        };
        let adapted = adapt::to_legacy(outbound, None)?;
        let raw_id = outbound.id.clone().unwrap_or_else(|| self.next_id());
        let mut hop = Hop::new(outbound, raw_id, false);
        hop.transparent = true;
        let params = adapted.params;
        let theirs = params.as_deref().and_then(adapt::own_token);
        let messages = self.exchange((Arc::clone(&child), hop), theirs, params, outbound).await;
        if opens && messages.is_err() {
            self.buried(&child);
        }
        let messages = messages?;
        let mut exchange =
            Exchange { back_revision: outbound.front.revision.clone(), session: None, messages };
        if let (true, Messages::One(Message::Result(result))) = (opens, &exchange.messages) {
            exchange.back_revision = handshake::negotiated(result)?;
            let session = uuid::Uuid::new_v4().to_string();
            self.sessions.lock().insert(session.clone(), child);
            exchange.session = Some(Opened { id: session, local: true });
        }
        Ok(exchange)
    }

    fn of_session(&self, session: &str) -> Result<Arc<Child>, Refusal> {
        let mut sessions = self.sessions.lock();
        match sessions.get(session) {
            Some(child) if child.alive() => Ok(Arc::clone(child)),
            _ => {
                sessions.remove(session);
                Err(refuse::session_unknown("the child of this session has ended"))
            }
        }
    }

    /// A notification or a response of a client with a session.
    pub(crate) async fn deliver(&self, channel: &Channel, message: Bytes) -> Result<(), Refusal> {
        self.of_session(&channel.session)?.send(&message, channel.deadline).await
    }

    /// What belongs to no call of a session.
    pub(crate) fn open_stream(&self, channel: &Channel) -> Result<Exchange, Refusal> {
        let child = self.of_session(&channel.session)?;
        let messages = Messages::Stream(child.mux.listen()?);
        Ok(Exchange { back_revision: channel.revision.clone(), session: None, messages })
    }

    /// What belongs to no call of the caller's own child.
    pub(crate) async fn follow(&self, outbound: &Outbound) -> Result<Pushed, Refusal> {
        *self.used.lock() = Instant::now();
        self.own(outbound).await?.mux.listen()
    }

    /// Ends a session and its child.
    pub(crate) fn delete_session(&self, channel: &Channel) {
        self.sessions.lock().remove(&channel.session);
    }

    fn next_id(&self) -> Bytes {
        self.ids.fetch_add(1, Ordering::Relaxed).to_string().into()
    }

    /// Children that callers hold, and the shared one.
    pub(crate) fn child_count(&self) -> usize {
        let shared = self.shared.try_lock().map_or(1, |held| usize::from(held.is_some()));
        self.own.lock().len() + self.sessions.lock().len() + shared
    }

    /// When it was last called.
    pub(crate) fn used(&self) -> Instant {
        *self.used.lock()
    }

    /// The end of what its children said on their standard error.
    pub(crate) fn stderr(&self) -> String {
        self.tail.text()
    }

    /// Stops children that nobody used for a while.
    pub(crate) fn sweep(&self) {
        let gone = |child: &Child, time| !child.alive() || child.idle_for(time);
        self.sessions.lock().retain(|_, child| !gone(child, OWN_IDLE));
        self.own.lock().retain(|_, seat| seat.keeps(|child| !gone(child, OWN_IDLE)));
        if let Ok(mut shared) = self.shared.try_lock()
            && shared.as_ref().is_some_and(|child| gone(child, SHARED_IDLE))
        {
            *shared = None;
        }
    }

    /// Stops the children of one caller.
    pub(crate) fn release(&self, isolation: &str) {
        let suffix = format!(" {isolation}");
        self.own.lock().retain(|key, _| !key.ends_with(&suffix));
    }

    /// Stops all children and waits until they are gone.
    pub(crate) async fn close(&self) {
        let mut leaving = Vec::new();
        leaving.extend(self.sessions.lock().drain().map(|(_, child)| child.leave()));
        let seats: Vec<_> = self.own.lock().drain().map(|(_, seat)| seat).collect();
        for seat in seats {
            // One that is in its handshake ends with it: nobody holds the seat any more.
            if let Ok(child) = tokio::time::timeout(Duration::from_secs(1), seat.take()).await {
                leaving.extend(child.map(|child| child.leave()));
            }
        }
        leaving.extend(self.shared.lock().await.take().map(|child| child.leave()));
        for gone in leaving {
            gone.cancelled().await;
        }
    }
}
