//! Starting children: which era, for whom, how often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};

use super::super::adapt::{self, MODERN, NEWEST_LEGACY};
use super::super::envelope;
use super::super::era::Verdict;
use super::super::handshake::{self, Description, Listed};
use super::super::link::{self, Link as _};
use super::super::mux::{Mux, Use};
use super::super::{Message, Outbound, refuse};
use super::Program;
use super::child::Child;

/// How long a program may be silent before it counts as a legacy server.
const PROBE: Duration = Duration::from_secs(10);
/// A child that ends within this time has died young.
const YOUNG: Duration = Duration::from_secs(10);
/// First and longest pause between starts of a program whose children die young.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Young deaths that are forgiven before the first pause.
const FORGIVEN: u32 = 1;

/// Keeps a program that dies again and again from being started again and again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    deaths: u32,
    until: Option<Instant>,
}

impl Backoff {
    fn died_young(&mut self) {
        self.deaths = self.deaths.saturating_add(1);
        if self.deaths > FORGIVEN {
            let factor = 1_u32 << (self.deaths - FORGIVEN - 1).min(10);
            self.until = Some(Instant::now() + (PAUSE * factor).min(PAUSE_MAX));
        }
    }

    /// A child has answered a call.
    pub(super) fn went_well(&mut self) {
        *self = Self::default();
    }

    fn check(&self) -> Result<(), Refusal> {
        let left = self.until.and_then(|until| until.checked_duration_since(Instant::now()));
        match left {
            None => Ok(()),
            Some(left) => {
                let detail = format!("{} children in a row ended at once", self.deaths);
                Err(refuse::unreachable(detail).retry_after(left.as_secs() + 1))
            }
        }
    }
}

/// A caller's own child.
#[derive(Debug, Default)]
pub(super) struct Seat {
    child: tokio::sync::Mutex<Option<Arc<Child>>>,
}

impl Seat {
    /// Takes the child out.
    pub(super) async fn take(&self) -> Option<Arc<Child>> {
        self.child.lock().await.take()
    }

    /// False when it is empty or its child is not worth keeping.
    pub(super) fn keeps(self: &Arc<Self>, worth: impl Fn(&Child) -> bool) -> bool {
        // Locked or held by others: somebody is about to use it.
        let Ok(child) = self.child.try_lock() else { return true };
        Arc::strong_count(self) > 1 || child.as_ref().is_some_and(|child| worth(child))
    }
}

impl Program {
    /// Starts a child, unless the program keeps dying or there are too many.
    pub(super) fn start(&self, kind: Use) -> Result<Arc<Child>, Refusal> {
        self.backoff.lock().check()?;
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.evict();
                let full = |_| Refusal::new(Reason::Overloaded, "too many children");
                Arc::clone(&self.permits).try_acquire_owned().map_err(full)?
            }
        };
        tracing::info!(server = %self.key, command = %self.spec.command, ?kind, "starting a child");
        let mux = Mux::new(kind, self.key.clone(), self.changes.clone());
        let started = Child::start(&self.spec, mux, &self.tail, (permit, &self.usage));
        if started.is_err() {
            self.backoff.lock().died_young();
        }
        started
    }

    /// Drops the caller's own child that was unused for the longest time.
    fn evict(&self) {
        let mut own = self.own.lock();
        let idle = own.iter().filter_map(|(key, seat)| {
            let child = seat.child.try_lock().ok()?;
            let child = child.as_ref().filter(|child| child.idle_for(Duration::ZERO))?;
            Some((child.used(), key.clone()))
        });
        if let Some((_, key)) = idle.min() {
            own.remove(&key);
        }
    }

    /// Notes how a child ended that is about to be replaced.
    pub(super) fn buried(&self, child: &Child) {
        if child.started.elapsed() < YOUNG && !child.mux.has_answered() {
            self.backoff.lock().died_young();
        }
    }

    /// The child of all callers.
    pub(super) async fn shared(&self, deadline: Instant) -> Result<Arc<Child>, Refusal> {
        let late = |_| refuse::timeout("the child did not start before the deadline");
        let held = tokio::time::timeout_at(deadline.into(), self.shared.lock());
        let mut held = held.await.map_err(late)?;
        if let Some(child) = held.as_ref() {
            if child.alive() {
                return Ok(Arc::clone(child));
            }
            self.buried(child);
            *held = None;
        }
        let child = self.start(Use::Shared)?;
        *held = Some(Arc::clone(&child));
        Ok(child)
    }

    /// The child of one caller, with its handshake done.
    pub(super) async fn own(&self, outbound: &Outbound) -> Result<Arc<Child>, Refusal> {
        let front = &outbound.front;
        let revision = handshake::asks_for(front);
        let capabilities = adapt::carried(front, false);
        let hello = handshake::hello(revision, &capabilities, front.client_info.as_ref());
        let key = format!("{} {}", Digest::of(&hello), front.isolation);
        let seat = Arc::clone(self.own.lock().entry(key).or_default());
        let late = |_| refuse::timeout("the child did not start before the deadline");
        let held = tokio::time::timeout_at(outbound.deadline.into(), seat.child.lock());
        let mut held = held.await.map_err(late)?;
        if let Some(child) = held.as_ref() {
            if child.alive() {
                return Ok(Arc::clone(child));
            }
            self.buried(child);
            *held = None;
        }
        let child = self.start(Use::Own)?;
        if let Err(refusal) = self.greet(&child, &hello, outbound.deadline).await {
            self.buried(&child);
            if refusal.reason == Reason::UpstreamProtocol {
                // A server of the modern era only, as it seems.
                self.known.contradicted();
            }
            return Err(refusal);
        }
        *held = Some(Arc::clone(&child));
        Ok(child)
    }

    /// The same, told of the client's log level. What is sent in spite of it stays here: a failure
    /// ends no call.
    pub(super) async fn own_told(&self, outbound: &Outbound) -> Result<Arc<Child>, Refusal> {
        let child = self.own(outbound).await?;
        let wanted = outbound.front.log_level;
        let news = child.offer().and_then(|(_, offer)| child.level.news(wanted, &offer));
        if let Some(params) = news {
            let told = self.ask(&child, "logging/setLevel", &params, outbound.deadline).await;
            if let Err(refusal) = told {
                tracing::debug!(server = %self.key, %refusal, "a log level was not told");
            }
        }
        Ok(child)
    }

    /// `initialize` and `notifications/initialized`.
    async fn greet(
        &self,
        child: &Arc<Child>,
        hello: &Bytes,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        match self.ask(child, "initialize", hello, deadline).await? {
            Message::Result(offer) => {
                child.greeted(handshake::negotiated(&offer)?, offer);
                let done = envelope::notification("notifications/initialized", None);
                child.send(&done, deadline).await
            }
            _ => Err(refuse::protocol("the server refused initialize")),
        }
    }

    /// One question of the gateway itself, and its answer.
    async fn ask(
        &self,
        child: &Arc<Child>,
        method: &str,
        params: &Bytes,
        deadline: Instant,
    ) -> Result<Message, Refusal> {
        link::ask(child, self.next_id(), (method, params), deadline).await
    }

    /// Asks in the modern way, in a child that is kept if it answers so and thrown away if not:
    /// some programs refuse a handshake after the question, some end.
    pub(super) async fn probe(&self, deadline: Instant) -> Result<Verdict, Refusal> {
        let child = self.start(Use::Shared)?;
        let patience = deadline.min(Instant::now() + PROBE);
        let legacy = Verdict { modern: false, legacy: Some(true) };
        match self.discover(&child, patience).await {
            Ok(Some(_)) => {
                *self.shared.lock().await = Some(child);
                Ok(Verdict { modern: true, legacy: None })
            }
            // Silence, the end, or any other answer.
            Ok(None) => Ok(legacy),
            // The caller was more impatient than a probe is: that says nothing about the server.
            Err(refusal) if refusal.reason == Reason::UpstreamTimeout && patience == deadline => {
                Err(refusal)
            }
            Err(refusal) => {
                tracing::debug!(server = %self.key, %refusal, "no answer to server/discover");
                Ok(legacy)
            }
        }
    }

    /// The result of `server/discover`; none when the server is not of the modern era.
    async fn discover(
        &self,
        child: &Arc<Child>,
        deadline: Instant,
    ) -> Result<Option<Bytes>, Refusal> {
        let params = handshake::discover_params();
        match self.ask(child, "server/discover", &params, deadline).await? {
            Message::Result(offer) => {
                let shared = Listed::of_offer(&offer).is_some_and(|listed| listed.modern);
                Ok(shared.then_some(offer))
            }
            _ => Ok(None),
        }
    }

    /// True when a handshake succeeds, in a child that is thrown away: the shared one is pinned to
    /// the modern era by its first request.
    async fn speaks_legacy(&self, deadline: Instant) -> bool {
        let Ok(child) = self.start(Use::Own) else { return false };
        let hello = handshake::hello(NEWEST_LEGACY, b"{}", None);
        self.greet(&child, &hello, deadline).await.is_ok()
    }

    /// What the server says about itself, asked now.
    pub(crate) async fn describe(
        self: &Arc<Self>,
        outbound: &Outbound,
    ) -> Result<Description, Refusal> {
        let verdict = self.known.or_probe(None, |_| true, || self.probe(outbound.deadline)).await?;
        if verdict.modern {
            let child = self.shared(outbound.deadline).await?;
            if let Some(offer) = self.discover(&child, outbound.deadline).await? {
                let legacy = match verdict.legacy {
                    Some(known) => known,
                    None => {
                        Listed::of_offer(&offer).is_some_and(|listed| listed.legacy)
                            || self.speaks_legacy(outbound.deadline).await
                    }
                };
                let verdict = Verdict { modern: true, legacy: Some(legacy) };
                self.known.set(verdict);
                return Ok(Description { verdict, revision: MODERN.to_owned(), offer });
            }
            self.known.contradicted();
            return Err(refuse::protocol("the server does not answer server/discover any more"));
        }
        let child = self.own(outbound).await?;
        let (revision, offer) = child.offer().ok_or_else(|| refuse::closed("no handshake"))?;
        Ok(Description { verdict, revision, offer })
    }
}
