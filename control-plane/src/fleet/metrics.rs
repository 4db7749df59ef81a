//! How many proxies follow this replica, and how many of them refuse part of what they have.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::Fleet;

/// Counts when it is asked.
#[derive(Debug)]
pub struct FleetMetrics(pub Fleet);

impl Collector for FleetMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (connected, refusing) = self.0.counts();
        for (name, help, value) in [
            ("nodes_connected", "Proxies that follow this replica", connected),
            ("nodes_refusing", "Proxies of those that refuse a document", refusing),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
