//! Sends everything that is measured at an interval, and once more at the end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::spans::ending;
use super::{Collector, Identity, convert};
use crate::metrics::Metrics;

/// Sends until told to end.
pub(super) async fn run(
    collector: Collector,
    identity: Identity,
    metrics: Metrics,
    (interval, mut closed): (Duration, watch::Receiver<bool>),
) {
    let began = nanos();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once, when nothing has been measured.
    ticks.tick().await;
    let mut failing = false;
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = ending(&mut closed) => true,
        };
        let request = convert::request(&metrics.render(), &identity, (began, nanos()));
        let sent = collector.metrics(request).await;
        if let Err(status) = &sent
            && !failing
        {
            tracing::warn!(code = ?status.code(), "metrics cannot be sent to the collector");
        }
        failing = sent.is_err();
        if last {
            return;
        }
    }
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
