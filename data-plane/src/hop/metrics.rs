//! What is measured between proxies.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use weir_runtime::metrics::Metrics;

use super::Lost;
use super::holdings::Holdings;

#[derive(Debug, Clone)]
pub(super) struct HopMetrics {
    asked: Family<Labels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    /// Where the holder was: `here` or `there`.
    holder: &'static str,
    outcome: &'static str,
}

impl HopMetrics {
    pub(super) fn register(metrics: &Metrics, holdings: Arc<Holdings>) -> Self {
        metrics.collector(Held(holdings));
        let help = "Questions to whoever holds something, by where that was and how it ended";
        Self { asked: metrics.register("hop_requests", help, Family::default()) }
    }

    pub(super) fn asked(&self, here: bool, lost: Option<&Lost>) {
        let outcome = match lost {
            None => "answered",
            Some(Lost::Gone) => "gone",
            Some(Lost::Unreachable(_)) => "unreachable",
            Some(Lost::Busy) => "busy",
            Some(Lost::Refused(_)) => "refused",
        };
        let holder = if here { "here" } else { "there" };
        self.asked.get_or_create(&Labels { holder, outcome }).inc();
    }
}

#[derive(Debug)]
struct Held(Arc<Holdings>);

impl Collector for Held {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let held = ConstGauge::new(i64::try_from(self.0.count()).unwrap_or(i64::MAX));
        let help = "What only this proxy can answer: parked calls, streams, events for resuming.";
        held.encode(encoder.encode_descriptor("holdings", help, None, held.metric_type())?)
    }
}
