//! Export to an OpenTelemetry collector: spans as they end, metrics at an interval, OTLP over gRPC.
//!
//! Promises: whoever hands in spans never waits. They go into a bounded queue, and what finds it
//! full, or could not be sent, is counted in `weir_spans_total`. A collector that is away costs
//! memory up to the queue and a connection attempt per batch, on the runtime that [`start`] is
//! called on, which is not the one of traffic.

mod channel;
mod convert;
mod export;
mod spans;

use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use channel::Collector;
pub use opentelemetry_proto::tonic::common::v1::KeyValue;
pub use opentelemetry_proto::tonic::trace::v1 as span;

use crate::metrics::Metrics;
use crate::settings::Masked;

/// Where and how telemetry is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// `http://host:4317` or `https://host:4317`; nothing is exported without.
    pub endpoint: Option<String>,
    /// `name=value` pairs sent as metadata, for collectors that want a key.
    pub headers: Masked<Vec<String>>,
    /// PEM file of authorities that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Whether metrics are sent too; Prometheus can always scrape them.
    pub metrics: bool,
    /// Milliseconds between two exports of metrics.
    pub metrics_interval_ms: u64,
    /// Milliseconds that an export may take.
    pub timeout_ms: u64,
    /// Spans that wait to be sent; more are dropped and counted.
    pub queue: usize,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: Masked::default(),
            ca: None,
            metrics: true,
            metrics_interval_ms: 30_000,
            timeout_ms: 10_000,
            queue: 16_384,
        }
    }
}

impl OtlpSettings {
    /// What is wrong with them, as `(field, what to do)`.
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut bad = Vec::new();
        if let Some(endpoint) = &self.endpoint
            && !(endpoint.starts_with("http://") || endpoint.starts_with("https://"))
        {
            bad.push((
                "telemetry.otlp.endpoint",
                "give scheme, host and port: `http://collector:4317`",
            ));
        }
        if self.headers.reveal().iter().any(|pair| !pair.contains('=')) {
            bad.push(("telemetry.otlp.headers", "give `name=value` pairs"));
        }
        if !(1_000..=3_600_000).contains(&self.metrics_interval_ms) {
            bad.push(("telemetry.otlp.metrics_interval_ms", "from 1000 to 3600000"));
        }
        if !(100..=120_000).contains(&self.timeout_ms) {
            bad.push(("telemetry.otlp.timeout_ms", "from 100 to 120000"));
        }
        if !(64..=1_048_576).contains(&self.queue) {
            bad.push(("telemetry.otlp.queue", "from 64 to 1048576"));
        }
        bad
    }
}

/// What goes wrong at the start; later faults are counted and logged.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint, or a header, cannot be used.
    #[error("otlp.{0}: {1}")]
    Setting(&'static str, String),
}

/// Takes spans that have ended. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Spans {
    queue: mpsc::Sender<Vec<span::Span>>,
    counts: Counts,
}

/// What became of spans.
#[derive(Debug, Clone)]
struct Counts(Family<Became, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Became {
    result: &'static str,
}

impl Counts {
    fn add(&self, result: &'static str, spans: usize) {
        self.0.get_or_create(&Became { result }).inc_by(spans as u64);
    }
}

impl Spans {
    /// A queue that a test reads itself.
    #[cfg(any(test, feature = "testing"))]
    pub fn to_test(calls: usize) -> (Self, mpsc::Receiver<Vec<span::Span>>) {
        let (queue, waiting) = mpsc::channel(calls);
        (Self { queue, counts: Counts(Family::default()) }, waiting)
    }

    /// Hands in the spans of one call; never waits.
    pub fn send(&self, spans: Vec<span::Span>) {
        let number = spans.len();
        if self.queue.try_send(spans).is_err() {
            self.counts.add("dropped", number);
        }
    }
}

/// What names this process in telemetry: `service.name`, `service.instance.id` and so on.
#[derive(Debug, Clone)]
pub struct Identity(Vec<KeyValue>);

impl Identity {
    /// From the resource attributes of the semantic conventions.
    pub fn new(service: &str, instance: &str, more: &[(&str, &str)]) -> Self {
        let build = crate::build_info::current();
        let fixed = [
            ("service.namespace", "weir"),
            ("service.name", service),
            ("service.instance.id", instance),
            ("service.version", build.version),
        ];
        Self(fixed.iter().chain(more).map(|(key, value)| text(key, value)).collect())
    }

    fn resource(&self) -> Resource {
        Resource { attributes: self.0.clone(), ..Resource::default() }
    }
}

/// A text attribute.
pub fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

/// A whole number as an attribute.
pub fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// A running export.
#[derive(Debug)]
pub struct Exporter {
    spans: Spans,
    closing: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Exporter {
    /// Where spans are handed in.
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Sends what waits, and the metrics once more; gives up after `patience`.
    pub async fn finish(self, patience: Duration) {
        self.closing.send_replace(true);
        let all = futures_util::future::join_all(self.tasks);
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("the last telemetry could not be sent in time");
        }
    }
}

/// Begins to export on the runtime that this is called on, when an endpoint is set.
///
/// # Errors
/// When the endpoint, a header or the authorities cannot be used.
pub fn start(
    settings: &OtlpSettings,
    identity: Identity,
    metrics: &Metrics,
) -> Result<Option<Exporter>, OtlpError> {
    let Some(collector) = Collector::new(settings)? else { return Ok(None) };
    let help = "Spans by what became of them: sent, dropped (queue full), failed (not sent)";
    let counts = Counts(metrics.register("spans", help, Family::default()));
    let (closing, closed) = watch::channel(false);
    // Batches, not spans, are what the queue holds.
    let (queue, waiting) = mpsc::channel((settings.queue / spans::PER_CALL).max(1));
    let out = spans::Out {
        collector: collector.clone(),
        identity: identity.clone(),
        counts: counts.clone(),
        closed: closed.clone(),
        queue: settings.queue,
    };
    let mut tasks = vec![tokio::spawn(out.run(waiting))];
    if settings.metrics {
        let interval = Duration::from_millis(settings.metrics_interval_ms);
        let sent = export::run(collector, identity, metrics.clone(), (interval, closed));
        tasks.push(tokio::spawn(sent));
    }
    Ok(Some(Exporter { spans: Spans { queue, counts }, closing, tasks }))
}

#[cfg(test)]
mod tests;
