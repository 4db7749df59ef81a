//! How a process ends: one signal, graceful first, immediate when patience is over.
//!
//! - Graceful: listeners stop accepting, long streams end, calls in flight go on.
//! - Immediate: whatever is left is dropped. Comes with a second signal or at the deadline.
//!
//! Work that must be waited for holds an [`InFlight`] guard under a static name, so that what
//! kept a process alive can be told afterwards. A part that fails for good drains with a cause,
//! which becomes the exit code.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No new work; what is in flight goes on.
    Graceful,
    /// Over.
    Immediate,
}

/// Starts the end, and waits for it. Clones share one state.
#[derive(Debug, Clone)]
pub struct Drain {
    shared: Arc<Shared>,
    deadline: Duration,
}

/// Sees the end coming and counts what it must wait for. Clones share one state.
#[derive(Debug, Clone)]
pub struct Watch {
    shared: Arc<Shared>,
}

/// Something that a graceful end waits for.
#[derive(Debug)]
#[must_use = "a drain waits only while this is held"]
pub struct InFlight {
    name: &'static str,
    shared: Arc<Shared>,
}

/// How a drain went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Why, when a part failed rather than somebody asking.
    pub cause: Option<String>,
    /// What was still in flight when patience was over.
    pub left: Vec<(&'static str, usize)>,
}

#[derive(Debug)]
struct Shared {
    phase: watch::Sender<Phase>,
    cause: Mutex<Option<String>>,
    in_flight: Mutex<BTreeMap<&'static str, usize>>,
    /// Sum of `in_flight`; changes are only announced while draining.
    idle: watch::Sender<bool>,
}

/// A drain whose graceful phase lasts at most `deadline`.
pub fn new(deadline: Duration) -> (Drain, Watch) {
    let shared = Arc::new(Shared {
        phase: watch::Sender::new(Phase::Running),
        cause: Mutex::default(),
        in_flight: Mutex::default(),
        idle: watch::Sender::new(true),
    });
    (Drain { shared: Arc::clone(&shared), deadline }, Watch { shared })
}

impl Drain {
    /// Asks for the end: graceful at first, immediate when asked again.
    pub fn signal(&self) {
        self.shared.phase.send_modify(|phase| {
            *phase = match phase {
                Phase::Running => Phase::Graceful,
                Phase::Graceful | Phase::Immediate => Phase::Immediate,
            }
        });
    }

    /// Starts the graceful phase unless the end has begun already.
    pub fn start(&self) {
        self.advance(Phase::Graceful);
    }

    /// Ends at once.
    pub fn now(&self) {
        self.advance(Phase::Immediate);
    }

    /// Starts the graceful phase because a part failed. The first cause is kept.
    pub fn fail(&self, cause: impl Into<String>) {
        self.shared.cause.lock().get_or_insert_with(|| cause.into());
        self.start();
    }

    /// A watch on this drain.
    pub fn watch(&self) -> Watch {
        Watch { shared: Arc::clone(&self.shared) }
    }

    /// Waits for the signal, then until nothing is in flight, the deadline has passed or an
    /// immediate end was asked for. The phase is immediate when this returns.
    pub async fn finished(&self) -> Drained {
        let watch = self.watch();
        watch.drained().await;
        let mut idle = self.shared.idle.subscribe();
        self.shared.announce();
        tokio::select! {
            _ = idle.wait_for(|idle| *idle) => {}
            () = watch.immediate() => {}
            () = tokio::time::sleep(self.deadline) => {
                tracing::warn!(left = ?watch.in_flight(), "drain deadline passed");
            }
        }
        let left = watch.in_flight();
        self.now();
        Drained { cause: self.shared.cause.lock().clone(), left }
    }

    fn advance(&self, to: Phase) {
        self.shared.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }
}

impl Watch {
    /// A watch that never fires, for tests and one-shot commands.
    pub fn never() -> Self {
        new(Duration::ZERO).1
    }

    /// Returns when the end has begun.
    pub async fn drained(&self) {
        self.reached(Phase::Graceful).await;
    }

    /// Returns when patience is over.
    pub async fn immediate(&self) {
        self.reached(Phase::Immediate).await;
    }

    /// How far the end has come.
    pub fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }

    /// True from the signal on.
    pub fn is_draining(&self) -> bool {
        self.phase() != Phase::Running
    }

    /// Keeps a graceful end waiting for as long as the guard lives.
    pub fn guard(&self, name: &'static str) -> InFlight {
        *self.shared.in_flight.lock().entry(name).or_default() += 1;
        InFlight { name, shared: Arc::clone(&self.shared) }
    }

    /// What is in flight, by name.
    pub fn in_flight(&self) -> Vec<(&'static str, usize)> {
        let counts = self.shared.in_flight.lock();
        counts.iter().filter(|(_, count)| **count > 0).map(|(n, c)| (*n, *c)).collect()
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.shared.phase.subscribe();
        // The sender lives in `self.shared`, so the channel cannot close while this waits.
        let _ = phase.wait_for(|phase| *phase >= wanted).await;
    }
}

impl Shared {
    fn announce(&self) {
        let idle = self.in_flight.lock().values().all(|count| *count == 0);
        self.idle.send_replace(idle);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(count) = self.shared.in_flight.lock().get_mut(self.name) {
            *count -= 1;
        }
        if *self.shared.phase.borrow() != Phase::Running {
            self.shared.announce();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_graceful_end_waits_for_what_is_in_flight() {
        let (drain, watch) = new(Duration::from_secs(60));
        let call = watch.guard("calls");
        let finished = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finished().await }
        });
        drain.signal();
        tokio::time::timeout(BOUND, watch.drained()).await.unwrap();
        assert!(watch.is_draining());
        tokio::task::yield_now().await;
        assert!(!finished.is_finished());
        assert_eq!(watch.in_flight(), [("calls", 1)]);
        drop(call);
        let drained = tokio::time::timeout(BOUND, finished).await.unwrap().unwrap();
        assert_eq!(drained, Drained { cause: None, left: vec![] });
        assert_eq!(watch.phase(), Phase::Immediate);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_names_what_was_left() {
        let (drain, watch) = new(Duration::from_secs(25));
        let _stuck = watch.guard("streams");
        drain.fail("task `sync` ended");
        drain.fail("a later cause");
        let started = tokio::time::Instant::now();
        let drained = drain.finished().await;
        assert_eq!(started.elapsed(), Duration::from_secs(25));
        assert_eq!(drained.left, [("streams", 1)]);
        assert_eq!(drained.cause.as_deref(), Some("task `sync` ended"));
    }

    #[tokio::test]
    async fn a_second_signal_ends_at_once() {
        let (drain, watch) = new(Duration::from_secs(60));
        let _stuck = watch.guard("calls");
        drain.signal();
        drain.start();
        assert_eq!(watch.phase(), Phase::Graceful);
        drain.signal();
        let drained = tokio::time::timeout(BOUND, drain.finished()).await.unwrap();
        assert_eq!(drained.left, [("calls", 1)]);
    }
}
