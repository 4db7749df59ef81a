//! Calls to servers with a handshake, on the caller's session of the pool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::runtime::Handle;
use weir_model::reason::{Reason, Refusal};

use super::super::hop::Hop;
use super::super::question::Reply;
use super::super::{Exchange, Messages, Outbound, adapt, envelope, headers, link, raw, refuse};
use super::answer::{any_error, by_status, own_error};
use super::post::{Answer, Body, Events, Post};
use super::relay::Relay;
use super::session::{Lease, Session};
use super::{Failure, Remote, Seat};

/// How long a message that waits for no answer may take.
const ASIDE: Duration = Duration::from_secs(10);

/// A call on a session of the pool.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) remote: Arc<Remote>,
    pub(super) session: Lease,
    pub(super) deadline: Instant,
}

impl Bound {
    /// How a request of the server on this session is answered.
    pub(super) fn reply(&self) -> Reply {
        let (remote, session) = (Arc::clone(&self.remote), self.session.another());
        Box::new(move |answer| {
            let Ok(handle) = Handle::try_current() else { return };
            handle.spawn(async move {
                let seat = session.seat(Instant::now() + ASIDE);
                if let Err(failure) = remote.post_message(&seat, answer).await {
                    let refusal = failure.into_refusal();
                    tracing::debug!(server = %remote.key, %refusal, "an answer did not arrive");
                }
            });
        })
    }

    /// Opens a stream again after an event.
    pub(super) async fn reopen(&self, last: &str) -> Result<Events, Refusal> {
        let seat = self.session.seat(self.deadline);
        self.remote.get(&seat, Some(last)).await
    }
}

/// Sends `notifications/cancelled` when dropped before the answer.
#[derive(Debug)]
pub(super) struct Cancel(Option<CancelParts>);

#[derive(Debug)]
struct CancelParts {
    remote: Arc<Remote>,
    credentials: Vec<(HeaderName, HeaderValue)>,
    session: Option<HeaderValue>,
    revision: String,
    raw_id: Bytes,
}

impl Cancel {
    pub(super) fn new(remote: &Arc<Remote>, seat: &Seat<'_>, raw_id: &Bytes) -> Self {
        Self(Some(CancelParts {
            remote: Arc::clone(remote),
            credentials: seat.credentials.to_vec(),
            session: seat.session.clone(),
            revision: seat.revision.to_owned(),
            raw_id: raw_id.clone(),
        }))
    }

    /// There is nothing left to cancel.
    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let (Some(parts), Ok(handle)) = (self.0.take(), Handle::try_current()) else { return };
        handle.spawn(async move {
            let mut params = b"{\"requestId\":".to_vec();
            params.extend_from_slice(&parts.raw_id);
            params.extend_from_slice(b",\"reason\":\"The client left.\"}");
            let message = envelope::notification("notifications/cancelled", Some(&params));
            let seat = Seat {
                session: parts.session,
                revision: &parts.revision,
                credentials: &parts.credentials,
                deadline: Instant::now() + ASIDE,
            };
            if let Err(failure) = parts.remote.post_message(&seat, message).await {
                let refusal = failure.into_refusal();
                tracing::debug!(server = %parts.remote.key, %refusal, "a cancellation was lost");
            }
        });
    }
}

impl Remote {
    pub(super) async fn call_legacy(
        self: &Arc<Self>,
        outbound: &Outbound,
    ) -> Result<Exchange, Failure> {
        adapt::exists(&outbound.method, false)?;
        let session = self.session(outbound).await?;
        self.tell_level(outbound, &session).await;
        if let Some(pair) = &session.pair {
            return self.call_paired(outbound, (&session, pair)).await;
        }
        let id = self.next_id();
        let ours = String::from_utf8_lossy(&id).into_owned();
        let adapted = adapt::to_legacy(outbound, Some(&ours))?;
        let mut hop = Hop::new(outbound, id, false);
        hop.token = adapted.token;
        let bound = Bound {
            remote: Arc::clone(self),
            session: Lease::new(&session),
            deadline: outbound.deadline,
        };
        let seat = session.seat(outbound.deadline);
        let mut cancel = Cancel::new(self, &seat, &hop.raw_id);
        let body = envelope::request(&hop.raw_id, &outbound.method, adapted.params.as_deref());
        let answer = self.post(&seat, body, outbound).await?;
        let messages = match answer.body {
            Body::Events(events) => {
                self.streamed_answer(Relay::pooled(bound, hop, *events, cancel))
            }
            _ => {
                cancel.disarm();
                match self.legacy_messages(&hop, &answer, session.id.is_some()) {
                    Err(Failure::SessionLost(refusal)) => {
                        self.forget(outbound, &session).await;
                        return Err(Failure::SessionLost(refusal));
                    }
                    other => other?,
                }
            }
        };
        Ok(Exchange { back_revision: session.revision.clone(), session: None, messages })
    }

    /// Tells the server from which severity on the client wants to hear log messages, if that is
    /// news. What is sent in spite of it stays here: a failure ends no call.
    async fn tell_level(&self, outbound: &Outbound, session: &Arc<Session>) {
        let wanted = outbound.front.log_level;
        let Some(params) = session.level.news(wanted, &session.offer) else { return };
        let deadline = outbound.deadline.min(Instant::now() + ASIDE);
        let (id, method) = (self.next_id(), "logging/setLevel");
        let told = async {
            if let Some(pair) = &session.pair {
                link::ask(pair, id, (method, &params), deadline).await?;
                return Ok(());
            }
            let seat = session.seat(deadline);
            let body = envelope::request(&id, method, Some(&params));
            if let Body::Events(mut events) = self.post(&seat, body, outbound).await?.body {
                let late = |_| refuse::timeout("no answer to logging/setLevel");
                tokio::time::timeout_at(deadline.into(), events.next()).await.map_err(late)??;
            }
            Ok::<_, Failure>(())
        };
        if let Err(failure) = told.await {
            let refusal = failure.into_refusal();
            tracing::debug!(server = %self.key, %refusal, "a log level was not told");
        }
    }

    /// The messages of an answer that is no stream.
    pub(super) fn legacy_messages(
        &self,
        hop: &Hop,
        answer: &Answer,
        has_session: bool,
    ) -> Result<Messages, Failure> {
        let status = answer.status;
        match &answer.body {
            Body::Json(body) if status.is_success() => Ok(self.whole_answer(hop, body)?),
            Body::Json(body) => match own_error(hop, body) {
                Some(message) => Ok(Messages::One(message?)),
                None if has_session && session_lost(status.as_u16(), Some(body)) => {
                    Err(Failure::SessionLost(refuse::session_unknown("the session is gone")))
                }
                None => Err(by_status(status)),
            },
            _ if has_session && session_lost(status.as_u16(), None) => {
                Err(Failure::SessionLost(refuse::session_unknown("the session is gone")))
            }
            _ => Err(by_status(status)),
        }
    }

    /// Sends the message of a call.
    pub(super) async fn post(
        &self,
        seat: &Seat<'_>,
        body: Bytes,
        outbound: &Outbound,
    ) -> Result<Answer, Failure> {
        let mut head = seat.headers();
        headers::trace(outbound, &mut head);
        let post = Post {
            method: Method::POST,
            credentials: seat.credentials,
            headers: head,
            body,
            deadline: seat.deadline,
        };
        Ok(self.send(post).await?)
    }

    /// Sends a notification or a response, which get no answer but a status.
    pub(super) async fn post_message(&self, seat: &Seat<'_>, body: Bytes) -> Result<(), Failure> {
        let post = Post {
            method: Method::POST,
            credentials: seat.credentials,
            headers: seat.headers(),
            body,
            deadline: seat.deadline,
        };
        let answer = self.send(post).await?;
        let status = answer.status;
        if status.is_success() {
            return Ok(());
        }
        let body = match &answer.body {
            Body::Json(body) => Some(body),
            _ => None,
        };
        if seat.session.is_some() && session_lost(status.as_u16(), body) {
            return Err(Failure::SessionLost(refuse::session_unknown("the session is gone")));
        }
        Err(super::unexpected(status).into())
    }

    /// Opens a push stream, or a stream again.
    pub(super) async fn get(&self, seat: &Seat<'_>, last: Option<&str>) -> Result<Events, Refusal> {
        let mut head = seat.headers();
        if let Some(last) = last {
            let bad = |_| Refusal::new(Reason::InvalidRequest, "the event id is no header value");
            head.insert(headers::LAST_EVENT_ID, HeaderValue::from_str(last).map_err(bad)?);
        }
        let post = Post {
            method: Method::GET,
            credentials: seat.credentials,
            headers: head,
            body: Bytes::new(),
            deadline: seat.deadline,
        };
        let answer = self.send(post).await.map_err(|broken| broken.refusal)?;
        match (answer.status.as_u16(), answer.body) {
            (200, Body::Events(events)) => Ok(*events),
            (405, _) => {
                Err(Refusal::new(Reason::MethodNotAllowed, "the server has no stream of its own"))
            }
            (status, Body::Json(body)) if session_lost(status, Some(&body)) => {
                Err(refuse::session_unknown("the session is gone"))
            }
            (404, _) => Err(refuse::session_unknown("the session is gone")),
            _ => Err(super::unexpected(answer.status)),
        }
    }

    /// Ends a session.
    pub(super) async fn delete(&self, seat: &Seat<'_>) -> Result<(), Refusal> {
        let post = Post {
            method: Method::DELETE,
            credentials: seat.credentials,
            headers: seat.headers(),
            body: Bytes::new(),
            deadline: seat.deadline,
        };
        let answer = self.send(post).await.map_err(|broken| broken.refusal)?;
        match answer.status.as_u16() {
            200..=299 | 404 | 400 => Ok(()),
            405 => Err(Refusal::new(
                Reason::MethodNotAllowed,
                "the server does not let clients end sessions",
            )),
            _ => Err(super::unexpected(answer.status)),
        }
    }
}

impl Seat<'_> {
    fn headers(&self) -> HeaderMap {
        let mut head = HeaderMap::new();
        if let Ok(revision) = HeaderValue::from_str(self.revision) {
            head.insert(headers::VERSION, revision);
        }
        if let Some(session) = &self.session {
            let mut session = session.clone();
            session.set_sensitive(true);
            head.insert(headers::SESSION, session);
        }
        head
    }
}

/// True when a status says that the session is unknown: 404, or the 400 of servers built on a
/// widespread example, whose error says so in words.
fn session_lost(status: u16, body: Option<&Bytes>) -> bool {
    match status {
        404 => true,
        400 => body.and_then(any_error).is_some_and(|(code, error)| {
            let text = raw::text(&error, "message").unwrap_or_default().to_ascii_lowercase();
            (-32001..=-32000).contains(&code) && text.contains("session")
        }),
        _ => false,
    }
}
