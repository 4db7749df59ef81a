//! Whether a server answers: counted, and no call waits for one that does not.
//!
//! After a few calls in a row that met no server (no connection, silence until the deadline, an
//! exchange that broke off) further calls are refused at once for a moment. Then one call is let
//! through to try; the moments grow while it fails. Whatever a server answers, errors included,
//! shows that it is there. The observer's looks are counted and never held back.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use weir_model::reason::{Blame, Reason, Refusal};

use super::refuse;

/// Failures in a row after which calls are held back.
const FAILURES_MAX: u32 = 5;
/// For how long, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The health of one server version, as this proxy sees it.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// Pauses in a row.
    pauses: u32,
    /// Calls are held back until then, and after it until one has succeeded.
    held_until: Option<Instant>,
    /// One call is on its way to try.
    trying: bool,
    counts: BTreeMap<&'static str, u64>,
}

/// What is shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The last call met a server.
    pub(crate) up: bool,
    /// Calls are refused without asking the server.
    pub(crate) held: bool,
    /// How calls ended: `ok`, `held_back`, labels of reasons that servers are to blame for, `other`.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Health {
    /// Runs a call, unless calls are held back.
    pub(crate) async fn guard<T>(
        &self,
        call: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let pass = self.admit(Instant::now())?;
        let done = call.await;
        pass.done(done.as_ref().err());
        done
    }

    /// Counts what a look at the server gave.
    pub(crate) fn note<T>(&self, looked: Result<T, Refusal>) -> Result<T, Refusal> {
        self.0.lock().ended(looked.as_ref().err(), false, Instant::now());
        looked
    }

    /// As it is now.
    pub(crate) fn seen(&self) -> Seen {
        let state = self.0.lock();
        let (up, held) = (state.failures == 0, state.held_until.is_some());
        Seen { up, held, counts: state.counts.clone() }
    }

    /// True while calls are refused without asking the server.
    pub(crate) fn is_held(&self) -> bool {
        self.0.lock().held_until.is_some()
    }

    fn admit(&self, now: Instant) -> Result<Pass<'_>, Refusal> {
        let mut state = self.0.lock();
        let Some(until) = state.held_until else {
            return Ok(Pass { health: self, tries: false, open: true });
        };
        let left = until.saturating_duration_since(now);
        if left.is_zero() && !state.trying {
            state.trying = true;
            return Ok(Pass { health: self, tries: true, open: true });
        }
        *state.counts.entry("held_back").or_default() += 1;
        let why = format!("the server did not answer {} calls in a row", state.failures);
        Err(refuse::unreachable(why).retry_after(left.as_secs() + 1))
    }
}

impl State {
    fn ended(&mut self, refusal: Option<&Refusal>, tries: bool, now: Instant) {
        let label = match refusal.map(|refusal| refusal.reason) {
            None => "ok",
            Some(reason) if reason.blame() == Blame::Upstream => reason.label(),
            Some(_) => "other",
        };
        *self.counts.entry(label).or_default() += 1;
        match refusal {
            Some(refusal) if absent(refusal) => {
                self.failures = self.failures.saturating_add(1);
                // Calls that left before the pause began say nothing new when they end in it.
                if tries || (self.held_until.is_none() && self.failures >= FAILURES_MAX) {
                    let pause = PAUSE * (1_u32 << self.pauses.min(10));
                    self.held_until = Some(now + pause.min(PAUSE_MAX));
                    self.pauses = self.pauses.saturating_add(1);
                }
            }
            // What is no fault of the server says nothing about it.
            Some(_) if label == "other" => {}
            _ => {
                self.failures = 0;
                self.pauses = 0;
                self.held_until = None;
            }
        }
    }
}

/// True when a call met no server. One that says when to come back is there.
fn absent(refusal: &Refusal) -> bool {
    refusal.retry_after_secs.is_none()
        && matches!(
            refusal.reason,
            Reason::UpstreamUnreachable | Reason::UpstreamTimeout | Reason::UpstreamClosed
        )
}

/// A call that was let through.
#[derive(Debug)]
struct Pass<'a> {
    health: &'a Health,
    tries: bool,
    open: bool,
}

impl Pass<'_> {
    fn done(mut self, refusal: Option<&Refusal>) {
        self.open = false;
        let mut state = self.health.0.lock();
        if self.tries {
            state.trying = false;
        }
        state.ended(refusal, self.tries, Instant::now());
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // The caller has left: the next one tries.
        if self.open && self.tries {
            self.health.0.lock().trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(health: &Health, reason: Option<Reason>) {
        let refusal = reason.map(Refusal::from);
        health.admit(Instant::now()).expect("let through").done(refusal.as_ref());
    }

    #[test]
    fn a_dead_server_is_tried_by_one_call_at_a_time() {
        let health = Health::default();
        for reason in [Reason::UpstreamUnreachable, Reason::UpstreamTimeout] {
            end(&health, Some(reason));
        }
        // An answer in between, a bad one too, starts the count anew.
        end(&health, Some(Reason::UpstreamProtocol));
        for _ in 0..FAILURES_MAX {
            assert!(!health.seen().held);
            end(&health, Some(Reason::UpstreamClosed));
        }
        assert!(health.seen().held && !health.seen().up);
        let refused = health.admit(Instant::now()).expect_err("held back");
        assert_eq!(refused.reason, Reason::UpstreamUnreachable);
        assert!(refused.retry_after_secs.is_some());

        let later = Instant::now() + PAUSE;
        let trial = health.admit(later).expect("one may try");
        assert!(health.admit(later).is_err(), "one at a time");
        drop(trial);
        let trial = health.admit(later).expect("the next one tries");
        trial.done(Some(&Reason::UpstreamTimeout.into()));
        assert!(health.admit(later).is_err(), "the second pause is longer");
        health.admit(later + PAUSE * 4).expect("one may try").done(None);
        assert!(!health.seen().held && health.seen().up);
        assert_eq!(health.seen().counts["ok"], 1);
        assert_eq!(health.seen().counts["upstream_closed"], 5);
        assert!(health.seen().counts["held_back"] >= 3);
    }

    #[test]
    fn what_is_no_fault_of_the_server_changes_nothing() {
        let health = Health::default();
        for _ in 0..2 * FAILURES_MAX {
            end(&health, Some(Reason::CannotBridge));
            end(&health, Some(Reason::Overloaded));
            let busy = Refusal::from(Reason::UpstreamUnreachable).retry_after(3);
            health.admit(Instant::now()).expect("let through").done(Some(&busy));
        }
        assert!(health.seen().up && !health.seen().held);
    }

    #[tokio::test]
    async fn a_look_that_succeeds_lets_calls_through_again() {
        let health = Health::default();
        for _ in 0..FAILURES_MAX {
            let failed = async { Err::<(), _>(Reason::UpstreamUnreachable.into()) };
            assert!(health.guard(failed).await.is_err());
        }
        assert!(health.guard(async { Ok(()) }).await.is_err());
        health.note(Ok(())).expect("seen");
        assert!(health.guard(async { Ok(()) }).await.is_ok());
    }
}
