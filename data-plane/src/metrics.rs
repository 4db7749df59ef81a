//! What the data plane measures about calls. Labels are closed sets and names of groups.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use weir_model::audit::{Facts, Outcome};
use weir_runtime::metrics::{LATENCY_BUCKETS, Metrics};

use crate::mcp::methods;

/// Counters of calls.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
    upstream_seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    group: String,
    method: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

impl CallMetrics {
    /// Registers what is measured.
    pub fn register(metrics: &Metrics) -> Self {
        let family = || Family::new_with_constructor(latency as fn() -> Histogram);
        Self {
            calls: metrics.register("calls", "Requests by how they ended", Family::default()),
            seconds: metrics.register(
                "call_seconds",
                "Time from a request's arrival to the end of its answer",
                family(),
            ),
            upstream_seconds: metrics.register(
                "upstream_seconds",
                "Time that requests waited for their server's first message",
                family(),
            ),
        }
    }

    /// Counts a request that has ended.
    pub fn ended(&self, facts: &Facts) {
        let name = facts.method.as_deref().and_then(methods::find);
        let method = name.map_or("other", |method| method.name);
        let group = facts.group.as_ref().map_or_else(String::new, ToString::to_string);
        let outcome = outcome_label(facts.outcome);
        self.calls.get_or_create(&CallLabels { group, method, outcome }).inc();
        let labels = MethodLabels { method };
        let seconds = Duration::from_micros(facts.duration_us).as_secs_f64();
        self.seconds.get_or_create(&labels).observe(seconds);
        if facts.upstream_us > 0 {
            let seconds = Duration::from_micros(facts.upstream_us).as_secs_f64();
            self.upstream_seconds.get_or_create(&labels).observe(seconds);
        }
    }
}

fn outcome_label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::ToolError => "tool_error",
        Outcome::ProtocolError(_) => "protocol_error",
        Outcome::Refused(reason) => reason.label(),
        Outcome::Aborted => "aborted",
        Outcome::Unknown => "unknown",
    }
}
