//! The one place that holds the snapshot: swapped whole, read without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use weir_model::id::Revision;
use weir_model::snapshot::Snapshot;

/// The snapshot in force, and since when nothing was heard of the control plane.
#[derive(Debug)]
pub struct State {
    current: ArcSwap<Snapshot>,
    revisions: watch::Sender<Revision>,
    started: Instant,
    /// Milliseconds after `started` (before it, when negative) at which the control plane was
    /// last heard of.
    heard_ms: AtomicI64,
}

impl Default for State {
    fn default() -> Self {
        Self::new(Snapshot::default())
    }
}

impl State {
    /// Starts with a snapshot that is as good as new.
    pub fn new(snapshot: Snapshot) -> Self {
        Self::restored(snapshot, Duration::ZERO)
    }

    /// Starts with the last good snapshot from disk, and the time since the control plane was
    /// heard of.
    pub fn restored(snapshot: Snapshot, age: Duration) -> Self {
        let revision = snapshot.revision;
        Self {
            current: ArcSwap::from_pointee(snapshot),
            revisions: watch::Sender::new(revision),
            started: Instant::now(),
            heard_ms: AtomicI64::new(-millis(age)),
        }
    }

    /// The snapshot in force. Take it once per call.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts a snapshot in force and tells who waits.
    pub fn store(&self, snapshot: Arc<Snapshot>) {
        let revision = snapshot.revision;
        self.current.store(snapshot);
        self.heard();
        // Also when the revision is the same: a re-published one may have other keys.
        self.revisions.send_replace(revision);
    }

    /// Notes that the control plane was heard of.
    pub fn heard(&self) {
        self.heard_ms.store(millis(self.started.elapsed()), Ordering::Relaxed);
    }

    /// How long nothing was heard of the control plane.
    pub fn age(&self) -> Duration {
        let heard = self.heard_ms.load(Ordering::Relaxed);
        let age = millis(self.started.elapsed()).saturating_sub(heard);
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }

    /// Sees every change of the snapshot, the newest only.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.revisions.subscribe()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
