//! Memory, open files and start of this process, read when they are asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

/// The collector.
#[derive(Debug)]
pub(super) struct Process {
    started_secs: f64,
}

impl Default for Process {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_secs: since.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let started = ConstGauge::new(self.started_secs);
        gauge(
            &mut encoder,
            "process_start_seconds",
            "When the process started, since the epoch",
            &started,
        )?;
        // Elsewhere than on Linux these are absent rather than wrong.
        if let Some(bytes) = resident_bytes() {
            gauge(
                &mut encoder,
                "process_memory_bytes",
                "Resident memory",
                &ConstGauge::new(bytes),
            )?;
        }
        if let Some(files) = open_files() {
            gauge(
                &mut encoder,
                "process_open_files",
                "Open file descriptors",
                &ConstGauge::new(files),
            )?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn open_files() -> Option<i64> {
    i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}
