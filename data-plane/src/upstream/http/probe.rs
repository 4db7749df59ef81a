//! Finding out which era a server speaks, and what it says about itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use weir_model::reason::{Reason, Refusal};

use super::super::adapt::{LEGACY, MODERN};
use super::super::envelope::{self, Id, Incoming};
use super::super::era::Verdict;
use super::super::handshake::{Description, Listed, discover_params};
use super::super::{Outbound, headers, refuse};
use super::post::{Body, Post};
use super::session::Hello;
use super::{Failure, Remote, Seat};

/// The longest that one question of a probe may take.
const PROBE: Duration = Duration::from_secs(15);

/// What stands for the offer of a server that refused to tell it.
const SILENT: &[u8] = b"{}";

/// What `server/discover` gave.
#[derive(Debug)]
enum Discovered {
    Modern {
        offer: Bytes,
        lists_legacy: bool,
    },
    /// No modern server; `sure` when nothing else can be the cause.
    Not {
        sure: bool,
    },
}

impl Discovered {
    /// True for a server that shows its era, and nothing else.
    fn is_silent(&self) -> bool {
        matches!(self, Self::Modern { offer, .. } if offer.as_ref() == SILENT)
    }
}

impl Remote {
    /// Asks in the modern way, then (when it matters or that failed) in the legacy one.
    pub(super) async fn probe(
        self: &Arc<Self>,
        needs_legacy: bool,
        credentials: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<Verdict, Refusal> {
        let deadline = deadline.min(Instant::now() + PROBE);
        match self.discover(credentials, deadline).await? {
            Discovered::Modern { lists_legacy: true, .. } => {
                Ok(Verdict { modern: true, legacy: Some(true) })
            }
            Discovered::Modern { .. } if !needs_legacy => {
                Ok(Verdict { modern: true, legacy: None })
            }
            Discovered::Modern { .. } => {
                let legacy = self.speaks_legacy(credentials, deadline).await?;
                Ok(Verdict { modern: true, legacy: Some(legacy) })
            }
            // The handshake of the call itself will tell.
            Discovered::Not { sure: true } => Ok(Verdict { modern: false, legacy: Some(true) }),
            Discovered::Not { sure: false } => {
                if self.speaks_legacy(credentials, deadline).await? {
                    return Ok(Verdict { modern: false, legacy: Some(true) });
                }
                Err(refuse::protocol("the server speaks no revision that the gateway knows"))
            }
        }
    }

    /// What the server says about itself, asked now.
    pub(crate) async fn describe(
        self: &Arc<Self>,
        outbound: &Outbound,
    ) -> Result<Description, Refusal> {
        let (credentials, deadline) = (&outbound.credentials, outbound.deadline);
        let mut discovered = self.discover(credentials, deadline).await?;
        if discovered.is_silent() {
            // A modern server that refused this one question. What it offers is still unknown,
            // which is not the same as nothing.
            discovered = self.discover(credentials, deadline).await?;
            if discovered.is_silent() {
                return Err(refuse::protocol("the server refuses server/discover"));
            }
        }
        if let Discovered::Modern { offer, lists_legacy } = discovered {
            let known = self.known.get(None).filter(|v| v.modern).and_then(|v| v.legacy);
            let legacy = match (lists_legacy, known) {
                (true, _) => true,
                (false, Some(known)) => known,
                (false, None) => self.speaks_legacy(credentials, deadline).await?,
            };
            let verdict = Verdict { modern: true, legacy: Some(legacy) };
            self.known.set(verdict);
            return Ok(Description { verdict, revision: MODERN.to_owned(), offer });
        }
        let session = self.session(outbound).await.map_err(Failure::into_refusal)?;
        let verdict = Verdict { modern: false, legacy: Some(true) };
        self.known.set(verdict);
        let (revision, offer) = (session.revision.clone(), session.offer.clone());
        Ok(Description { verdict, revision, offer })
    }

    /// Ends the sessions of one caller.
    pub(crate) async fn release(self: &Arc<Self>, isolation: &str) {
        self.end_sessions(self.sessions.of_caller(isolation)).await;
    }

    async fn discover(
        &self,
        credentials: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<Discovered, Refusal> {
        let id = self.next_id();
        let mut head = HeaderMap::new();
        head.insert(headers::VERSION, HeaderValue::from_static(MODERN));
        head.insert(headers::METHOD, HeaderValue::from_static("server/discover"));
        let body = envelope::request(&id, "server/discover", Some(&discover_params()));
        let post = Post { method: Method::POST, credentials, headers: head, body, deadline };
        let answer = self.send(post).await.map_err(|broken| broken.refusal)?;
        let incoming = match answer.body {
            Body::Json(body) => envelope::read(&body).ok(),
            Body::Events(mut events) => {
                let late = |_| refuse::timeout("no answer to server/discover");
                let read = tokio::time::timeout_at(deadline.into(), events.next());
                let data = read.await.map_err(late)??.and_then(|event| event.data);
                data.and_then(|data| envelope::read(&data).ok())
            }
            Body::Other => None,
        };
        // Some legacy servers open a session for whatever comes.
        if let Some(session) = answer.session {
            let deadline = Instant::now() + PROBE;
            let revision = LEGACY[0];
            let seat = Seat { session: Some(session), revision, credentials, deadline };
            let _ = self.delete(&seat).await;
        }
        Ok(judged(answer.status, incoming, &Id::of(&id)))
    }

    /// True when a handshake succeeds. The session is ended at once.
    async fn speaks_legacy(
        self: &Arc<Self>,
        credentials: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<bool, Refusal> {
        match self.open_session(Hello::own(credentials, deadline)).await {
            Ok(session) => {
                self.end_sessions(vec![session]).await;
                Ok(true)
            }
            Err(Failure::Contradiction(_)) => Ok(false),
            Err(failure) => {
                let refusal = failure.into_refusal();
                match refusal.reason {
                    Reason::UpstreamProtocol => Ok(false),
                    _ => Err(refusal),
                }
            }
        }
    }
}

fn judged(status: StatusCode, incoming: Option<Incoming>, id: &Id) -> Discovered {
    // A server that fails at whatever it does not know says nothing about its era.
    let sure = !status.is_server_error();
    match incoming {
        Some(Incoming::Result { id: of, result }) if of == *id => modern_offer(result),
        Some(Incoming::Error { code, error, .. }) if (-32022..=-32020).contains(&code) => {
            match Listed::of_error(&error).filter(|_| code == -32022) {
                Some(Listed { modern: false, legacy }) => Discovered::Not { sure: legacy },
                _ => Discovered::Modern { offer: Bytes::from_static(SILENT), lists_legacy: false },
            }
        }
        _ => Discovered::Not { sure },
    }
}

/// A result is a modern server's only when it names a revision that we share.
fn modern_offer(offer: Bytes) -> Discovered {
    match Listed::of_offer(&offer) {
        Some(Listed { modern: true, legacy }) => Discovered::Modern { offer, lists_legacy: legacy },
        Some(Listed { modern: false, legacy }) => Discovered::Not { sure: legacy },
        None => Discovered::Not { sure: true },
    }
}
