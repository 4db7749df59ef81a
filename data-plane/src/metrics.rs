//! What the data plane measures about calls.
//!
//! Labels are closed sets (methods of the registry, outcomes, reasons) and names out of the
//! configuration, never text of a peer; families that grow with the configuration are capped.
//! Durations follow the semantic conventions for MCP; what the gateway itself adds is apart.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use weir_model::audit::{Facts, Outcome};
use weir_model::id::Name;
use weir_model::reason::Blame;
use weir_runtime::metrics::{Capped, LATENCY_BUCKETS, Metrics};

use crate::mcp::methods;

/// Pairs of group and server that are told apart; the others are counted together, without names.
const SERVERS_MAX: usize = 4_096;

/// Measures of calls. Clones share one.
#[derive(Debug, Clone)]
pub struct CallMetrics(Arc<Measures>);

#[derive(Debug)]
struct Measures {
    calls: Capped<CallLabels, Counter>,
    servers: Capped<ServerLabels, Counter>,
    server_seconds: Family<OperationLabels, Histogram, fn() -> Histogram>,
    client_seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
    own_seconds: Family<GatewayLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    streams: Gauge,
    received: Counter,
    answered: Counter,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    group: NameLabel,
    method: &'static str,
    outcome: &'static str,
    blame: &'static str,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    group: NameLabel,
    server: NameLabel,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    mcp_method_name: &'static str,
    error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    mcp_method_name: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GatewayLabels {
    method: &'static str,
}

/// A name of the configuration; empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct NameLabel(pub(crate) Option<Name>);

impl EncodeLabelValue for NameLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.as_ref().map_or("", Name::as_str).encode(encoder)
    }
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

impl CallMetrics {
    /// Registers what is measured.
    pub fn register(metrics: &Metrics) -> Self {
        Self(Arc::new(Measures {
            calls: Capped::register(
                metrics,
                ("calls", "Requests by group, method, outcome (refusals by reason) and blame"),
                SERVERS_MAX,
            ),
            servers: Capped::register(
                metrics,
                (
                    "server_calls",
                    "Requests that came as far as a server, by group, server and outcome",
                ),
                SERVERS_MAX,
            ),
            server_seconds: metrics.conventional(
                "mcp_server_operation_duration_seconds",
                "Time from a request's arrival to the end of its answer",
                Family::new_with_constructor(latency as fn() -> Histogram),
            ),
            client_seconds: metrics.conventional(
                "mcp_client_operation_duration_seconds",
                "Time that requests waited for their server's first message",
                Family::new_with_constructor(latency as fn() -> Histogram),
            ),
            own_seconds: metrics.register(
                "gateway_seconds",
                "Time of a request that was the gateway's own, without waiting for the server",
                Family::new_with_constructor(latency as fn() -> Histogram),
            ),
            in_flight: metrics.gauge("calls_in_flight", "Requests whose answer has not ended"),
            streams: metrics.gauge("open_streams", "Answers that are streams and have not ended"),
            received: metrics.counter("request_bytes", "Bytes of requests"),
            answered: metrics.counter("response_bytes", "Bytes of answers"),
        }))
    }

    /// A request has come.
    pub fn begun(&self) {
        self.0.in_flight.inc();
    }

    /// Its answer is a stream.
    pub fn streams(&self) {
        self.0.streams.inc();
    }

    /// It has ended; `streamed` when its answer was a stream.
    pub fn ended(&self, facts: &Facts, streamed: bool) {
        let all = &*self.0;
        all.in_flight.dec();
        if streamed {
            all.streams.dec();
        }
        all.received.inc_by(facts.request_bytes);
        all.answered.inc_by(facts.response_bytes);
        let method = method(facts);
        let group = NameLabel(facts.group.clone());
        let outcome = outcome_label(facts.outcome);
        if facts.server.is_some() {
            let server = NameLabel(facts.server.clone());
            let outcome = class(facts.outcome);
            all.servers.of(&ServerLabels { group: group.clone(), server, outcome }).inc();
        }
        let blame = blame(facts.outcome);
        all.calls.of(&CallLabels { group, method, outcome, blame }).inc();
        let error_type = match class(facts.outcome) {
            "success" => "",
            class => class,
        };
        let labels = OperationLabels { mcp_method_name: method, error_type };
        all.server_seconds.get_or_create(&labels).observe(seconds(facts.duration_us));
        if facts.upstream_us > 0 {
            let labels = MethodLabels { mcp_method_name: method };
            all.client_seconds.get_or_create(&labels).observe(seconds(facts.upstream_us));
        }
        // The rest of a stream is the server's time as well.
        if !streamed {
            let own = facts.duration_us.saturating_sub(facts.upstream_us);
            all.own_seconds.get_or_create(&GatewayLabels { method }).observe(seconds(own));
        }
    }
}

fn method(facts: &Facts) -> &'static str {
    facts.method.as_deref().and_then(methods::find).map_or("other", |method| method.name)
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

/// How a request ended, refusals by reason.
fn outcome_label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Refused(reason) => reason.label(),
        other => class(other),
    }
}

/// Who has to act; empty where nobody has.
fn blame(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success | Outcome::Aborted => "",
        Outcome::ToolError | Outcome::ProtocolError(_) => Blame::Upstream.label(),
        Outcome::Refused(reason) => reason.blame().label(),
        Outcome::Unknown => Blame::Weir.label(),
    }
}

/// How a request ended, refusals together.
fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::ToolError => "tool_error",
        Outcome::ProtocolError(_) => "protocol_error",
        Outcome::Refused(_) => "refused",
        Outcome::Aborted => "aborted",
        Outcome::Unknown => "unknown",
    }
}
