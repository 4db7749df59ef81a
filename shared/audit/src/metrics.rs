//! What the pipeline measures, per sink.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use weir_runtime::metrics::Metrics;

use crate::spool::Handle;

type Label = [(&'static str, &'static str); 1];

/// Counters of the whole pipeline; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    /// Records that were numbered.
    pub(crate) accepted: Counter,
    /// Records of class `counted` that found no room.
    pub(crate) lost: Counter,
    /// Requests refused because their record had no room or no working sink.
    pub(crate) refused: Counter,
    written: Family<Label, Counter>,
    failed: Family<Label, Counter>,
}

/// The state of one sink.
#[derive(Debug)]
pub(crate) struct SinkState {
    pub(crate) name: &'static str,
    pub(crate) written: Counter,
    /// Attempts that failed, in records.
    pub(crate) failed: Counter,
    queued: Arc<AtomicU64>,
    /// When the oldest waiting record was queued, in microseconds since `base`; 0 for none.
    oldest_us: AtomicU64,
    base: Instant,
}

impl Counters {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        Self {
            accepted: metrics.counter("audit_records", "Audit records that were numbered"),
            lost: metrics
                .counter("audit_lost_records", "Audit records of class counted that found no room"),
            refused: metrics
                .counter("audit_refused", "Requests refused because of their audit record"),
            written: metrics.register(
                "audit_written_records",
                "Audit records that a sink has taken",
                Family::default(),
            ),
            failed: metrics.register(
                "audit_failed_writes",
                "Attempts to write an audit record that failed and are repeated",
                Family::default(),
            ),
        }
    }

    /// `queued` counts what waits for it.
    pub(crate) fn sink(&self, name: &'static str, queued: Arc<AtomicU64>) -> Arc<SinkState> {
        let label = [("sink", name)];
        Arc::new(SinkState {
            name,
            written: self.written.get_or_create_owned(&label),
            failed: self.failed.get_or_create_owned(&label),
            queued,
            oldest_us: AtomicU64::new(0),
            base: Instant::now(),
        })
    }
}

impl SinkState {
    pub(crate) fn queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn done(&self, records: usize) {
        self.queued.fetch_sub(records as u64, Ordering::Relaxed);
    }
    pub(crate) fn depth(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }
    pub(crate) fn oldest(&self, queued_at: Option<Instant>) {
        let us = queued_at.map_or(0, |at| {
            u64::try_from(at.saturating_duration_since(self.base).as_micros()).unwrap_or(0).max(1)
        });
        self.oldest_us.store(us, Ordering::Relaxed);
    }
    pub(crate) fn oldest_age(&self) -> Duration {
        match self.oldest_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            us => self.base.elapsed().saturating_sub(Duration::from_micros(us)),
        }
    }
}

/// Depth and age of every sink's backlog, and how full the spool is, computed when they are read.
#[derive(Debug)]
pub(crate) struct Backlog {
    pub(crate) sinks: Vec<Arc<SinkState>>,
    pub(crate) spool: Option<Handle>,
}

impl Collector for Backlog {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Audit records that wait for a sink";
        let mut family =
            encoder.encode_descriptor("audit_queued_records", help, None, MetricType::Gauge)?;
        for sink in &self.sinks {
            let label: Label = [("sink", sink.name)];
            let depth = i64::try_from(sink.depth()).unwrap_or(i64::MAX);
            ConstGauge::new(depth).encode(family.encode_family(&label)?)?;
        }
        let help = "Age of the oldest audit record that waits for a sink";
        let mut family =
            encoder.encode_descriptor("audit_oldest_seconds", help, None, MetricType::Gauge)?;
        for sink in &self.sinks {
            let label: Label = [("sink", sink.name)];
            let age = sink.oldest_age().as_secs_f64();
            ConstGauge::new(age).encode(family.encode_family(&label)?)?;
        }
        let Some(spool) = &self.spool else { return Ok(()) };
        let gauges = spool.gauges();
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("audit_spool_bytes", "Bytes of the audit spool on its disk", gauges.bytes),
            (
                "audit_spool_limit_bytes",
                "Bytes of undelivered records at which the audit spool is full",
                gauges.limit,
            ),
            (
                "audit_spool_waiting_bytes",
                "Bytes of the audit spool that its stream has not acknowledged",
                gauges.waiting_bytes,
            ),
        ] {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(signed(value)).encode(family)?;
        }
        let help = "Signed checkpoints of the audit log";
        let family =
            encoder.encode_descriptor("audit_checkpoints", help, None, MetricType::Counter)?;
        ConstCounter::new(gauges.checkpoints).encode(family)
    }
}
