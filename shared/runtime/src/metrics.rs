//! The registry of a process's metrics.
//!
//! A module that measures has a small struct of its own, made from this handle and passed to
//! where it counts. Names are `weir_<noun>_<unit>[_total]`; the prefix and `_total` are added
//! here, so a module registers `calls` and gets `weir_calls_total`. Labels are enums or names
//! out of the configuration, never text from a peer.

mod capped;
mod process;
mod runtime;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use serde::Serialize;

pub use capped::Capped;

/// What [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds for latencies: from a tenth of a millisecond to two minutes.
pub const LATENCY_BUCKETS: [f64; 15] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
    30.0, 120.0,
];

/// Where metrics are registered and read. Clones share one registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    shared: Arc<Mutex<Registered>>,
}

#[derive(Debug)]
struct Registered {
    registry: Registry,
    /// Names of the semantic conventions, which are not ours to put a prefix on.
    conventional: Registry,
    described: BTreeMap<String, Described>,
    runtimes: Option<Arc<runtime::Runtimes>>,
}

/// What a metric says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Described {
    /// A sentence.
    pub help: String,
    /// `counter`, `gauge`, `histogram`.
    pub kind: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry that knows the build and the process.
    pub fn new() -> Self {
        let registered = Registered {
            registry: Registry::with_prefix("weir"),
            conventional: Registry::default(),
            described: BTreeMap::new(),
            runtimes: None,
        };
        let metrics = Self { shared: Arc::new(Mutex::new(registered)) };
        let build = crate::build_info::current();
        let labels =
            vec![("version", build.version), ("commit", build.commit), ("profile", build.profile)];
        let info = Info::new(labels);
        metrics.shared.lock().registry.register("build", "Which build is running", info);
        metrics.collector(process::Process::default());
        metrics
    }

    /// Registers any metric (a family, a histogram) and hands it back.
    ///
    /// Names are snake case without prefix and without `_total`; each is registered once.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        debug_assert!(well_formed(name), "metric name `{name}`");
        let mut registered = self.shared.lock();
        registered.describe(&format!("weir_{name}"), help, metric.metric_type());
        registered.registry.register(name, help, metric.clone());
        metric
    }

    /// Registers a metric of the OpenTelemetry semantic conventions: its dots as underscores and
    /// its unit behind it, `mcp_server_operation_duration_seconds`.
    pub fn conventional<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        debug_assert!(well_formed(name), "metric name `{name}`");
        let mut registered = self.shared.lock();
        registered.describe(name, help, metric.metric_type());
        registered.conventional.register(name, help, metric.clone());
        metric
    }

    /// Everything that there is, by name without suffix: families that have counted nothing yet,
    /// which [`Self::render`] leaves out, and what collectors compute.
    pub fn catalogue(&self) -> BTreeMap<String, Described> {
        let text = self.render();
        let mut all = self.shared.lock().described.clone();
        let meta =
            |word| text.lines().filter_map(move |line| line.strip_prefix(word)?.split_once(' '));
        for (name, help) in meta("# HELP ") {
            let help = help.trim_end_matches('.').to_owned();
            all.entry(name.to_owned()).or_insert(Described { help, kind: String::new() });
        }
        for (name, kind) in meta("# TYPE ") {
            all.entry(name.to_owned()).and_modify(|described| kind.clone_into(&mut described.kind));
        }
        all
    }

    /// A counter; `_total` is added to its name.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// A histogram of seconds with [`LATENCY_BUCKETS`].
    pub fn latency(&self, name: &str, help: &str) -> Histogram {
        self.register(name, help, Histogram::new(LATENCY_BUCKETS))
    }

    /// Registers something that is computed when it is read.
    pub fn collector(&self, collector: impl Collector) {
        self.shared.lock().registry.register_collector(Box::new(collector));
    }

    /// Shows a tokio runtime (workers, tasks, queue, busy time) under this name. Several under one
    /// name are added up.
    pub fn observe_runtime(&self, name: &'static str, handle: &tokio::runtime::Handle) {
        let mut registered = self.shared.lock();
        let runtimes = if let Some(runtimes) = &registered.runtimes {
            Arc::clone(runtimes)
        } else {
            let runtimes = Arc::new(runtime::Runtimes::default());
            registered.registry.register_collector(Box::new(Arc::clone(&runtimes)));
            registered.runtimes = Some(Arc::clone(&runtimes));
            runtimes
        };
        runtimes.add(name, handle);
    }

    /// Everything in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registered = self.shared.lock();
        for registry in [&registered.registry, &registered.conventional] {
            encode_registry(&mut text, registry).expect("writing to a string cannot fail");
        }
        encode_eof(&mut text).expect("writing to a string cannot fail");
        text
    }
}

impl Registered {
    fn describe(&mut self, name: &str, help: &str, kind: MetricType) {
        let described = Described { help: help.to_owned(), kind: kind.as_str().to_owned() };
        let new = self.described.insert(name.to_owned(), described).is_none();
        debug_assert!(new, "metric `{name}` is registered twice");
    }
}

fn well_formed(name: &str) -> bool {
    let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(snake)
        && !name.starts_with("weir_")
        && !name.ends_with("_total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_get_prefix_and_suffix() {
        let metrics = Metrics::new();
        metrics.counter("calls", "Calls").inc();
        metrics.gauge("streams", "Open streams").set(3);
        metrics.latency("call_seconds", "Latency").observe(0.02);
        let text = metrics.render();
        for gauge in ["weir_process_memory_bytes", "weir_process_open_files"] {
            let value = text.lines().find_map(|line| line.strip_prefix(gauge)?.trim().parse().ok());
            assert!(value.is_some_and(|value: u64| value > 0), "{gauge} in {text}");
        }
        for line in [
            "weir_calls_total 1\n",
            "weir_streams 3\n",
            "weir_call_seconds_bucket{le=\"0.025\"} 1\n",
            "# EOF\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("weir_build_info{version="), "{text}");
    }

    #[test]
    fn names_are_checked() {
        for (name, ok) in
            [("calls", true), ("weir_calls", false), ("calls_total", false), ("Calls", false)]
        {
            assert_eq!(well_formed(name), ok, "{name}");
        }
    }

    #[test]
    #[should_panic(expected = "registered twice")]
    fn a_name_is_registered_once() {
        let metrics = Metrics::new();
        metrics.counter("calls", "Calls");
        metrics.counter("calls", "Calls");
    }

    #[tokio::test]
    async fn two_runtimes_share_one_family() {
        let metrics = Metrics::new();
        let handle = tokio::runtime::Handle::current();
        metrics.observe_runtime("traffic", &handle);
        metrics.observe_runtime("control", &handle);
        metrics.observe_runtime("traffic", &handle);
        let text = metrics.render();
        for (name, workers) in [("traffic", 2), ("control", 1)] {
            let line = format!("weir_tokio_workers{{runtime=\"{name}\"}} {workers}\n");
            assert!(text.contains(&line), "{text}");
        }
        assert_eq!(text.matches("# TYPE weir_tokio_busy_seconds counter").count(), 1, "{text}");
        let busy = |text: &str| text.contains("weir_tokio_busy_seconds_total{runtime=\"traffic\"}");
        assert!(busy(&text) && busy(&metrics.render()));
    }
}
