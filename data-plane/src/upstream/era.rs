//! What is known about the era of a server: remembered for a while, corrected on contradiction.

use std::future::Future;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use weir_model::reason::Refusal;
use weir_model::resource::ObservedEra;

/// How long a verdict of our own holds. A wrong "legacy" never fails loudly, hence the bound.
const TTL: Duration = Duration::from_secs(600);
/// How long a pinned era is not believed after the server contradicted it.
const DISTRUST: Duration = Duration::from_secs(1800);

/// Which eras a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// 2026-07-28.
    pub(crate) modern: bool,
    /// Up to 2025-11-25; none while nobody asked.
    pub(crate) legacy: Option<bool>,
}

impl Verdict {
    /// As a catalog says it.
    pub(crate) fn observed(self) -> ObservedEra {
        match (self.modern, self.legacy) {
            (false, _) => ObservedEra::Legacy,
            (true, Some(true)) => ObservedEra::Dual,
            (true, _) => ObservedEra::Modern,
        }
    }
}

impl From<ObservedEra> for Verdict {
    fn from(era: ObservedEra) -> Self {
        match era {
            ObservedEra::Legacy => Self { modern: false, legacy: Some(true) },
            ObservedEra::Modern => Self { modern: true, legacy: Some(false) },
            ObservedEra::Dual => Self { modern: true, legacy: Some(true) },
        }
    }
}

/// Something that a server was seen to be, believed for a while.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Option<Instant>>);

impl Remembered {
    /// True while it is believed.
    pub(crate) fn holds(&self) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < TTL)
    }

    /// It was seen.
    pub(crate) fn remember(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// It is not so any more.
    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }
}

#[derive(Debug, Default)]
struct State {
    verdict: Option<(Verdict, Instant)>,
    distrusted: Option<Instant>,
    failed: Option<(Refusal, Instant)>,
}

/// The memory of one server version, and the one probe at a time that fills it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    state: Mutex<State>,
    gate: tokio::sync::Mutex<()>,
}

impl Known {
    /// The verdict that holds now: our own while it is fresh, else the pinned one.
    pub(crate) fn get(&self, pinned: Option<ObservedEra>) -> Option<Verdict> {
        let state = self.state.lock();
        let own = state.verdict.filter(|(_, at)| at.elapsed() < TTL).map(|(verdict, _)| verdict);
        let trusted = state.distrusted.is_none_or(|at| at.elapsed() > DISTRUST);
        own.or_else(|| pinned.filter(|_| trusted).map(Verdict::from))
    }

    /// Remembers what was seen.
    pub(crate) fn set(&self, verdict: Verdict) {
        let mut state = self.state.lock();
        state.verdict = Some((verdict, Instant::now()));
        state.failed = None;
    }

    /// The server answered as one of another era would.
    pub(crate) fn contradicted(&self) {
        let mut state = self.state.lock();
        state.verdict = None;
        state.distrusted = Some(Instant::now());
    }

    /// The verdict, found by `probe` when there is none. Callers that waited for a probe that
    /// failed share its refusal instead of queueing for a probe each.
    pub(crate) async fn or_probe<F: Future<Output = Result<Verdict, Refusal>>>(
        &self,
        pinned: Option<ObservedEra>,
        enough: impl Fn(Verdict) -> bool,
        probe: impl FnOnce() -> F,
    ) -> Result<Verdict, Refusal> {
        if let Some(verdict) = self.get(pinned).filter(|v| enough(*v)) {
            return Ok(verdict);
        }
        let came = Instant::now();
        let _gate = self.gate.lock().await;
        if let Some(verdict) = self.get(pinned).filter(|v| enough(*v)) {
            return Ok(verdict);
        }
        if let Some((refusal, at)) = self.state.lock().failed.clone()
            && at >= came
        {
            return Err(refusal);
        }
        match probe().await {
            Ok(verdict) => {
                self.set(verdict);
                Ok(verdict)
            }
            Err(refusal) => {
                self.state.lock().failed = Some((refusal.clone(), Instant::now()));
                Err(refusal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contradiction_beats_the_pin_until_a_new_verdict() {
        let known = Known::default();
        let pinned = Some(ObservedEra::Modern);
        assert_eq!(known.get(pinned).map(|v| v.modern), Some(true));
        known.contradicted();
        assert_eq!(known.get(pinned), None);
        let legacy = Verdict { modern: false, legacy: Some(true) };
        known.set(legacy);
        assert_eq!(known.get(pinned), Some(legacy));
    }

    #[tokio::test]
    async fn waiting_callers_share_one_failed_probe() {
        let known = Known::default();
        let probes = std::sync::atomic::AtomicUsize::new(0);
        let probe = || async {
            probes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(super::super::refuse::unreachable("down"))
        };
        let any = |_| true;
        let both = tokio::join!(known.or_probe(None, any, probe), known.or_probe(None, any, probe));
        assert!(both.0.is_err() && both.1.is_err());
        assert_eq!(probes.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
