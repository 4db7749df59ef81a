//! Readiness as a named set: what is still missing can be read off `/readyz`.
//!
//! A part that must come up first registers a name and keeps the guard; dropping the guard says
//! that the part is ready. A part that falls ill later registers again.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// What the process is waiting for. Clones share one set.
#[derive(Debug, Clone)]
pub struct Ready {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// How many guards each name has.
    pending: Mutex<BTreeMap<String, usize>>,
    left: watch::Sender<usize>,
}

/// A name that is not ready yet. Dropping it makes it ready.
#[derive(Debug)]
#[must_use = "the name is ready as soon as this is dropped"]
pub struct Pending {
    name: String,
    shared: Arc<Shared>,
}

impl Default for Ready {
    fn default() -> Self {
        Self::new()
    }
}

impl Ready {
    /// Nothing pending.
    pub fn new() -> Self {
        let shared = Shared { pending: Mutex::default(), left: watch::Sender::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// The process is unready until the guard is dropped.
    pub fn register(&self, name: impl Into<String>) -> Pending {
        let name = name.into();
        let mut pending = self.shared.pending.lock();
        *pending.entry(name.clone()).or_default() += 1;
        self.shared.left.send_replace(pending.len());
        Pending { name, shared: Arc::clone(&self.shared) }
    }

    /// True when nothing is pending.
    pub fn is_ready(&self) -> bool {
        self.shared.pending.lock().is_empty()
    }

    /// Names of what is pending, sorted.
    pub fn pending(&self) -> Vec<String> {
        self.shared.pending.lock().keys().cloned().collect()
    }

    /// Returns once nothing is pending.
    pub async fn wait(&self) {
        let mut left = self.shared.left.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = left.wait_for(|left| *left == 0).await;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut pending = self.shared.pending.lock();
        if let Some(count) = pending.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.name);
            }
        }
        let left = pending.keys().cloned().collect::<Vec<_>>();
        self.shared.left.send_replace(left.len());
        drop(pending);
        if left.is_empty() {
            tracing::info!(part = self.name, "ready");
        } else {
            tracing::info!(part = self.name, waiting_for = ?left, "part is ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn every_name_must_be_dropped_first() {
        let ready = Ready::new();
        assert!(ready.is_ready());
        let snapshot = ready.register("snapshot");
        let second = ready.register("snapshot");
        let listener = ready.register("listener");
        assert_eq!(ready.pending(), ["listener", "snapshot"]);
        drop(snapshot);
        drop(listener);
        assert_eq!(ready.pending(), ["snapshot"]);
        let waiting = tokio::spawn({
            let ready = ready.clone();
            async move { ready.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        assert!(ready.is_ready());
        let _ill = ready.register("identity");
        assert!(!ready.is_ready());
    }
}
