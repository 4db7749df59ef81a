//! How many other proxies there are, and how many of them are reached.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::Neighbours;

/// Measures them.
#[derive(Debug)]
pub struct NeighbourMetrics(pub Neighbours);

impl Collector for NeighbourMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (all, reached) = self.0.count();
        let gauge = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let all = gauge(all);
        let help = "Other proxies that are told of ended sessions and the like.";
        all.encode(encoder.encode_descriptor("neighbours", help, None, all.metric_type())?)?;
        let reached = gauge(reached);
        let help = "Those of them that could be reached when that was last tried.";
        let kind = reached.metric_type();
        reached.encode(encoder.encode_descriptor("neighbours_reached", help, None, kind)?)
    }
}
