//! Sessions at legacy servers, one per caller, made when first needed and ended when idle.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};

use super::super::adapt::{self, NEWEST_LEGACY};
use super::super::envelope::{self, Id, Incoming};
use super::super::handshake::{asks_for, hello, negotiated};
use super::super::link::{self, Link as _};
use super::super::mux::Use;
use super::super::told::Told;
use super::super::{Message, Outbound, refuse};
use super::pair::Pair;
use super::post::{Answer, Body, Post};
use super::{Failure, Remote};

/// How long an unused session is kept.
pub(super) const IDLE: Duration = Duration::from_secs(300);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_millis(bounds::CALL_MS);
/// How long the end of a session may take.
const END: Duration = Duration::from_secs(5);

/// A session that a server has opened.
#[derive(Debug)]
pub(crate) struct Session {
    /// None for servers that keep no sessions.
    pub(crate) id: Option<HeaderValue>,
    /// As negotiated.
    pub(crate) revision: String,
    /// The result of `initialize`, raw.
    pub(crate) offer: Bytes,
    /// The stream and the endpoint of a server over HTTP+SSE.
    pub(super) pair: Option<Arc<Pair>>,
    credentials: Vec<(HeaderName, HeaderValue)>,
    /// What the server was told of the client's log level.
    pub(super) level: Told,
    used: Mutex<Instant>,
    active: AtomicUsize,
}

/// A session in use; idle again when dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Session>);

impl Lease {
    pub(super) fn new(session: &Arc<Session>) -> Self {
        session.active.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(session))
    }

    /// One more lease of the same session.
    pub(super) fn another(&self) -> Self {
        Self::new(&self.0)
    }
}

impl std::ops::Deref for Lease {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.0.used.lock() = Instant::now();
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whose session: the caller, and everything that the server was told about it at the start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    isolation: String,
    shape: Digest,
}

/// The one session of a key, and the handshake that makes it.
#[derive(Debug, Default)]
struct Slot {
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

/// All sessions at one server version.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

impl Sessions {
    /// The slot of a key. When there are too many, the one that was idle for the longest time has
    /// to go, and its session comes back to be ended.
    fn slot(&self, key: &Key, max: usize) -> Result<(Arc<Slot>, Option<Arc<Session>>), Refusal> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(key) {
            return Ok((Arc::clone(slot), None));
        }
        let mut evicted = None;
        if slots.len() >= max {
            let idle = slots.iter().filter_map(|(key, slot)| {
                let session = slot.session.try_lock().ok()?.clone()?;
                let idle = !session.busy();
                let used = *session.used.lock();
                idle.then(|| (used, key.clone(), session))
            });
            let Some((_, key, session)) = idle.min_by_key(|(used, _, _)| *used) else {
                return Err(Refusal::new(Reason::Overloaded, "too many sessions at one server"));
            };
            slots.remove(&key);
            evicted = Some(session);
        }
        let slot = Arc::new(Slot::default());
        slots.insert(key.clone(), Arc::clone(&slot));
        Ok((slot, evicted))
    }

    /// Takes out the sessions that nobody used for a while.
    pub(super) fn idle(&self) -> Vec<Arc<Session>> {
        self.take(|session| {
            !session.lives() || (!session.busy() && session.used.lock().elapsed() > IDLE)
        })
    }

    /// Takes out all sessions.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.take(|_| true)
    }

    /// Takes out the sessions of one caller.
    pub(super) fn of_caller(&self, isolation: &str) -> Vec<Arc<Session>> {
        let slots = self.slots.lock();
        let own = slots.iter().filter(|(key, _)| key.isolation == isolation);
        own.filter_map(|(_, slot)| slot.session.try_lock().ok()?.take()).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.slots.lock().len()
    }

    fn take(&self, gone: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let mut taken = Vec::new();
        self.slots.lock().retain(|_, slot| {
            // A slot that is locked is in a handshake, and so in use.
            let Ok(mut session) = slot.session.try_lock() else { return true };
            match session.as_ref() {
                Some(live) if !gone(live) => true,
                // Somebody may hold the empty slot already and fill it.
                None => Arc::strong_count(slot) > 1,
                Some(_) => {
                    taken.extend(session.take());
                    Arc::strong_count(slot) > 1
                }
            }
        });
        taken
    }
}

/// What the handshake says about the client.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    params: Bytes,
    credentials: Vec<(HeaderName, HeaderValue)>,
    deadline: Instant,
}

impl Hello {
    fn of(outbound: &Outbound) -> Self {
        let front = &outbound.front;
        let revision = asks_for(front);
        Self {
            params: hello(revision, &adapt::carried(front, false), front.client_info.as_ref()),
            credentials: outbound.credentials.clone(),
            // A stream may wait for an hour; the handshake before it may not.
            deadline: outbound.deadline.min(Instant::now() + HANDSHAKE),
        }
    }

    /// The gateway's own, for a probe.
    pub(super) fn own(credentials: &[(HeaderName, HeaderValue)], deadline: Instant) -> Self {
        let params = hello(NEWEST_LEGACY, b"{}", None);
        Self { params, credentials: credentials.to_vec(), deadline }
    }

    fn digest(&self) -> Digest {
        let mut parts: Vec<&[u8]> = vec![&self.params];
        for (name, value) in &self.credentials {
            parts.extend([b"\n", name.as_str().as_bytes(), b":", value.as_bytes()]);
        }
        Digest::of_parts(&parts)
    }
}

impl Remote {
    /// The caller's session, opened when there is none.
    pub(super) async fn session(
        self: &Arc<Self>,
        outbound: &Outbound,
    ) -> Result<Arc<Session>, Failure> {
        let hello = Hello::of(outbound);
        let key = Key { isolation: outbound.front.isolation.clone(), shape: hello.digest() };
        let (slot, evicted) = self.sessions.slot(&key, bounds::UPSTREAM_SESSIONS_MAX)?;
        if let Some(evicted) = evicted {
            let remote = Arc::clone(self);
            tokio::spawn(async move { remote.end_sessions(vec![evicted]).await });
        }
        let late = |_| refuse::timeout("no session before the deadline");
        let mut held = tokio::time::timeout_at(outbound.deadline.into(), slot.session.lock())
            .await
            .map_err(late)?;
        if let Some(session) = held.as_ref().filter(|session| session.lives()) {
            return Ok(Arc::clone(session));
        }
        // In a task of its own, so that a caller who leaves does not leave half a session behind.
        let remote = Arc::clone(self);
        let opened = tokio::spawn(async move { remote.open_session(hello).await }).await;
        let session =
            opened.map_err(|_| Refusal::new(Reason::Internal, "a handshake panicked"))??;
        *held = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Forgets a session that the server does not know any more.
    pub(super) async fn forget(&self, outbound: &Outbound, lost: &Arc<Session>) {
        let hello = Hello::of(outbound);
        let key = Key { isolation: outbound.front.isolation.clone(), shape: hello.digest() };
        let slot = self.sessions.slots.lock().get(&key).cloned();
        if let Some(slot) = slot {
            let mut held = slot.session.lock().await;
            if held.as_ref().is_some_and(|session| Arc::ptr_eq(session, lost)) {
                *held = None;
            }
        }
    }

    /// A new session: by POST, or the older way where that is what the server speaks.
    pub(super) async fn open_session(
        self: &Arc<Self>,
        hello: Hello,
    ) -> Result<Arc<Session>, Failure> {
        if self.paired.holds() {
            match self.open_pair(&hello.credentials, Use::Own, hello.deadline).await {
                Ok(pair) => return self.greet_pair(pair, hello).await,
                Err(failure) if failure.is_contradiction() => self.paired.forget(),
                Err(failure) => return Err(failure),
            }
        }
        match self.post_hello(&hello).await {
            Err(failure) if failure.is_contradiction() => {
                // The rule for servers of 2024-11-05: their stream says where to post.
                match self.open_pair(&hello.credentials, Use::Own, hello.deadline).await {
                    Ok(pair) => {
                        self.paired.remember();
                        self.greet_pair(pair, hello).await
                    }
                    Err(_) => Err(failure),
                }
            }
            other => other,
        }
    }

    /// The handshake over HTTP+SSE.
    async fn greet_pair(
        self: &Arc<Self>,
        pair: Arc<Pair>,
        hello: Hello,
    ) -> Result<Arc<Session>, Failure> {
        let question = ("initialize", &hello.params);
        let answer = link::ask(&pair, self.next_id(), question, hello.deadline).await?;
        let Message::Result(offer) = answer else {
            return Err(refuse::protocol("the server refused initialize").into());
        };
        let revision = negotiated(&offer)?;
        let done = envelope::notification("notifications/initialized", None);
        pair.send(&done, hello.deadline).await?;
        Ok(Arc::new(Session {
            id: None,
            revision,
            offer,
            pair: Some(pair),
            credentials: hello.credentials,
            level: Told::default(),
            used: Mutex::new(Instant::now()),
            active: AtomicUsize::new(0),
        }))
    }

    /// `initialize` and `notifications/initialized` by POST.
    async fn post_hello(self: &Arc<Self>, hello: &Hello) -> Result<Arc<Session>, Failure> {
        let raw_id = self.next_id();
        let body = envelope::request(&raw_id, "initialize", Some(&hello.params));
        let answer = self
            .send(Post {
                method: Method::POST,
                credentials: &hello.credentials,
                headers: HeaderMap::new(),
                body,
                deadline: hello.deadline,
            })
            .await?;
        let id = answer.session.clone();
        let offer = self.initialized(answer, &Id::of(&raw_id), hello.deadline).await?;
        let revision = negotiated(&offer)?;
        let session = Arc::new(Session {
            id,
            revision,
            offer,
            pair: None,
            credentials: hello.credentials.clone(),
            level: Told::default(),
            used: Mutex::new(Instant::now()),
            active: AtomicUsize::new(0),
        });
        let done = envelope::notification("notifications/initialized", None);
        let seat = session.seat(hello.deadline);
        self.post_message(&seat, done).await?;
        Ok(session)
    }

    /// The result of `initialize` from an answer in either form.
    pub(super) async fn initialized(
        &self,
        answer: Answer,
        id: &Id,
        deadline: Instant,
    ) -> Result<Bytes, Failure> {
        let status = answer.status;
        let incoming = match answer.body {
            Body::Json(body) => vec![envelope::read(&body).map_err(refuse::protocol)?],
            Body::Events(mut events) => {
                let late = |_| refuse::timeout("no answer to initialize before the deadline");
                let read = tokio::time::timeout_at(deadline.into(), first(&mut events, id));
                vec![read.await.map_err(late)??]
            }
            Body::Other => return Err(super::answer::by_status(status)),
        };
        for message in incoming {
            match message {
                Incoming::Result { id: of, result } if of == *id => return Ok(result),
                Incoming::Error { code, .. } => {
                    let refusal =
                        refuse::protocol(format!("the server refused initialize with {code}"));
                    return Err(match code {
                        -32601 | -32600 | -32602 | -32022..=-32020 => {
                            Failure::Contradiction(refusal)
                        }
                        _ => Failure::Refused(refusal),
                    });
                }
                _ => {}
            }
        }
        Err(refuse::protocol("the answer to initialize is none").into())
    }

    /// Ends sessions, all at once, without caring much.
    pub(super) async fn end_sessions(self: &Arc<Self>, sessions: Vec<Arc<Session>>) {
        sessions.iter().filter_map(|session| session.pair.as_ref()).for_each(|pair| pair.leave());
        let ends = sessions.iter().filter(|session| session.id.is_some()).map(|session| {
            let seat = session.seat(Instant::now() + END);
            async move {
                if let Err(refusal) = self.delete(&seat).await {
                    tracing::debug!(server = %self.key, %refusal, "a session was not ended");
                }
            }
        });
        futures_util::future::join_all(ends).await;
    }
}

/// The first response in a stream.
async fn first(events: &mut super::post::Events, id: &Id) -> Result<Incoming, Refusal> {
    loop {
        let event = events.next().await?;
        let event = event.ok_or_else(|| refuse::closed("the stream ended before its answer"))?;
        let Some(data) = event.data else { continue };
        match envelope::read(&data).map_err(refuse::protocol)? {
            Incoming::Result { id: of, result } if of == *id => {
                return Ok(Incoming::Result { id: of, result });
            }
            error @ Incoming::Error { .. } => return Ok(error),
            _ => {}
        }
    }
}

impl Session {
    /// False when the server has ended it, as far as can be known without asking.
    fn lives(&self) -> bool {
        self.pair.as_ref().is_none_or(|pair| pair.alive())
    }

    fn busy(&self) -> bool {
        self.active.load(Ordering::SeqCst) > 0
            || self.pair.as_ref().is_some_and(|pair| !pair.is_idle())
    }

    /// How messages of this session are sent.
    pub(super) fn seat(&self, deadline: Instant) -> super::Seat<'_> {
        super::Seat {
            session: self.id.clone(),
            revision: &self.revision,
            credentials: &self.credentials,
            deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_caller_with_many_sessions_does_not_lock_others_out() {
        let key = |name: &str| Key { isolation: name.to_owned(), shape: Digest::default() };
        let session = || {
            Arc::new(Session {
                id: None,
                revision: NEWEST_LEGACY.to_owned(),
                offer: Bytes::new(),
                pair: None,
                credentials: Vec::new(),
                level: Told::default(),
                used: Mutex::new(Instant::now()),
                active: AtomicUsize::new(0),
            })
        };
        let sessions = Sessions::default();
        let mut held = Vec::new();
        for name in ["a", "b"] {
            let (slot, evicted) = sessions.slot(&key(name), 2).expect("room");
            assert!(evicted.is_none());
            let session = session();
            *slot.session.lock().await = Some(Arc::clone(&session));
            held.push(session);
        }
        let busy = Lease::new(&held[0]);
        let (_, evicted) = sessions.slot(&key("c"), 2).expect("the idle one goes");
        assert!(evicted.is_some_and(|gone| Arc::ptr_eq(&gone, &held[1])));
        // A busy session and one in its handshake stay.
        let refused = sessions.slot(&key("d"), 2).expect_err("full");
        assert_eq!(refused.reason, Reason::Overloaded);
        drop(busy);
        assert!(sessions.slot(&key("d"), 2).is_ok());
        assert!(sessions.slot(&key("c"), 2).is_ok_and(|(_, evicted)| evicted.is_none()));
    }
}
