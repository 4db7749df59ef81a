//! A family that stops growing: what comes after the cap is counted under the default labels.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::MappedRwLockReadGuard;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::family::Family;

use super::Metrics;

/// A family with at most so many label sets, and one more for all others.
#[derive(Debug, Clone)]
pub struct Capped<L, M> {
    family: Family<L, M>,
    size: Arc<AtomicUsize>,
    cap: usize,
}

impl<L, M> Capped<L, M>
where
    L: Clone + Default + Debug + Hash + Eq + EncodeLabelSet + Send + Sync + 'static,
    M: Default + Clone + Debug + EncodeMetric + TypedMetric + Send + Sync + 'static,
{
    /// Registers the family under a name with its help.
    pub fn register(metrics: &Metrics, (name, help): (&str, &str), cap: usize) -> Self {
        let family = metrics.register(name, help, Family::default());
        Self { family, size: Arc::default(), cap }
    }

    /// The metric of these labels, or of the default ones when the family is full.
    pub fn of(&self, labels: &L) -> MappedRwLockReadGuard<'_, M> {
        if let Some(metric) = self.family.get(labels) {
            return metric;
        }
        // Two that come at once may exceed the cap by one; what matters is that it ends.
        if self.size.load(Ordering::Relaxed) >= self.cap {
            return self.family.get_or_create(&L::default());
        }
        self.size.fetch_add(1, Ordering::Relaxed);
        self.family.get_or_create(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn what_comes_after_the_cap_is_counted_together() {
        let metrics = Metrics::new();
        let capped: Capped<Vec<(&'static str, String)>, Counter> =
            Capped::register(&metrics, ("things", "Things"), 2);
        for name in ["a", "b", "c", "d", "a"] {
            capped.of(&vec![("name", name.to_owned())]).inc();
        }
        let text = metrics.render();
        for line in [
            "weir_things_total{name=\"a\"} 2\n",
            "weir_things_total{name=\"b\"} 1\n",
            "weir_things_total{} 2\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
