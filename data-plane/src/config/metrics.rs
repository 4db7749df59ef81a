//! What operators watch of the configuration: which, how old, how much of it is refused.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::State;

/// Reads the state when it is asked.
#[derive(Debug)]
pub struct ConfigMetrics(pub Arc<State>);

impl Collector for ConfigMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = self.0.current();
        let revision = i64::try_from(snapshot.revision.0).unwrap_or(i64::MAX);
        let refused = i64::try_from(snapshot.quarantined.len()).unwrap_or(i64::MAX);
        let age = i64::try_from(self.0.age().as_secs()).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("config_revision", "Revision of the configuration in force", revision),
            ("config_age_seconds", "Time since the control plane was heard of", age),
            ("config_quarantined", "Documents of it that cannot be used", refused),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_state_is_shown_as_it_is() {
        let snapshot = weir_model::testing::World::new().group("g").snapshot();
        let state = Arc::new(State::restored(snapshot, Duration::from_secs(90)));
        let metrics = weir_runtime::metrics::Metrics::new();
        metrics.collector(ConfigMetrics(state));
        let text = metrics.render();
        for line in
            ["weir_config_revision 1\n", "weir_config_age_seconds 9", "weir_config_quarantined 0\n"]
        {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
