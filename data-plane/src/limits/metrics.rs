//! What is measured of limits: what each of them refused, how full the tables are, and how far
//! the ledger is behind. Labels are names out of the configuration and reasons.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use weir_model::id::Name;
use weir_model::reason::Reason;
use weir_runtime::metrics::{Capped, Metrics};

use super::Limits;
use crate::metrics::NameLabel;

/// Limits that are told apart; the others are counted together, without names.
const LIMITS_MAX: usize = 4_096;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    group: NameLabel,
    limit: NameLabel,
    reason: &'static str,
}

/// Counts refusals.
#[derive(Debug)]
pub(super) struct Refused(Capped<Labels, Counter>);

impl Refused {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let what = ("limit_refusals", "Calls that a limit refused, by group, limit and reason");
        Self(Capped::register(metrics, what, LIMITS_MAX))
    }

    pub(super) fn count(&self, group: &Name, limit: &Name, reason: Reason) {
        let (group, limit) = (NameLabel(Some(group.clone())), NameLabel(Some(limit.clone())));
        self.0.of(&Labels { group, limit, reason: reason.label() }).inc();
    }
}

/// Reads the tables when it is asked.
#[derive(Debug)]
pub struct LimitMetrics(pub Arc<Limits>);

impl Collector for LimitMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (buckets, counters) = self.0.counted();
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("limit_buckets", "Buckets of rates and concurrency", count(buckets)),
            ("limit_quota_counters", "Counters of quotas", count(counters)),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let gauge = ConstGauge::new(self.0.lag().as_secs_f64());
        let help = "Time for which the ledger of limits owes an answer; 0 when it owes none";
        let name = "limit_ledger_lag_seconds";
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
    }
}
