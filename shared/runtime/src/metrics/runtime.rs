//! What tokio-metrics knows of the process's runtimes, as a collector.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio_metrics::{RuntimeIntervals, RuntimeMonitor};

/// All runtimes of the process.
#[derive(Default)]
pub(super) struct Runtimes {
    observed: Mutex<Vec<Observed>>,
}

struct Observed {
    name: &'static str,
    intervals: RuntimeIntervals,
    /// Sums over all intervals so far: tokio-metrics reports differences, Prometheus wants totals.
    busy: Duration,
    parks: u64,
}

/// Runtimes of one name, now.
struct Reading {
    name: &'static str,
    workers: i64,
    tasks: i64,
    queued: i64,
    busy: f64,
    parks: u64,
}

impl std::fmt::Debug for Runtimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runtimes")
    }
}

impl Runtimes {
    pub(super) fn add(&self, name: &'static str, handle: &tokio::runtime::Handle) {
        let intervals = RuntimeMonitor::new(handle).intervals();
        let observed = Observed { name, intervals, busy: Duration::ZERO, parks: 0 };
        self.observed.lock().push(observed);
    }

    fn read(&self) -> Vec<Reading> {
        let mut observed = self.observed.lock();
        let mut readings: Vec<Reading> = Vec::new();
        for one in observed.iter_mut().filter_map(Observed::read) {
            match readings.iter_mut().find(|sum| sum.name == one.name) {
                Some(sum) => sum.add(&one),
                None => readings.push(one),
            }
        }
        readings
    }
}

impl Observed {
    fn read(&mut self) -> Option<Reading> {
        let interval = self.intervals.next()?;
        self.busy += interval.total_busy_duration;
        self.parks += interval.total_park_count;
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        Some(Reading {
            name: self.name,
            workers: gauge(interval.workers_count),
            tasks: gauge(interval.live_tasks_count),
            queued: gauge(interval.global_queue_depth),
            busy: self.busy.as_secs_f64(),
            parks: self.parks,
        })
    }
}

impl Reading {
    fn add(&mut self, other: &Self) {
        self.workers += other.workers;
        self.tasks += other.tasks;
        self.queued += other.queued;
        self.busy += other.busy;
        self.parks += other.parks;
    }
}

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let all = self.read();
        family(&mut encoder, &all, "workers", "Worker threads", |r| ConstGauge::new(r.workers))?;
        family(&mut encoder, &all, "tasks", "Live tasks", |r| ConstGauge::new(r.tasks))?;
        let help = "Tasks waiting in the global queue";
        family(&mut encoder, &all, "queued_tasks", help, |r| ConstGauge::new(r.queued))?;
        let help = "Time that workers were busy";
        family(&mut encoder, &all, "busy_seconds", help, |r| ConstCounter::new(r.busy))?;
        family(&mut encoder, &all, "parks", "Times a worker slept", |r| ConstCounter::new(r.parks))
    }
}

fn family<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    readings: &[Reading],
    name: &str,
    help: &str,
    metric: impl Fn(&Reading) -> M,
) -> Result<(), std::fmt::Error> {
    let Some(first) = readings.first() else { return Ok(()) };
    let kind = metric(first).metric_type();
    let name = format!("tokio_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
    for reading in readings {
        let labels = [("runtime", reading.name)];
        metric(reading).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
