//! Medians and ratios over interleaved rounds.

use std::fmt::Write;

use serde::Serialize;

use crate::driver::Round;

/// The medians of one target over all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The target.
    pub name: String,
    /// Calls per second.
    pub rate: f64,
    /// Microseconds.
    pub p50_us: f64,
    /// Microseconds.
    pub p99_us: f64,
    /// CPU seconds of the target's processes per 10,000 good answers.
    pub cpu_secs_per_10k: f64,
    /// Resident memory at the end, MiB.
    pub resident_mib: f64,
    /// Bad answers of all rounds.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_failure: Option<String>,
    /// Lowest and highest calls per second over the rounds: how noisy the machine was.
    pub rate_range: (f64, f64),
}

impl Row {
    /// Sums up the rounds of one target.
    pub fn of(name: &str, rounds: &[Round]) -> Self {
        let rates: Vec<f64> =
            rounds.iter().map(|r| r.answered() as f64 / r.elapsed.as_secs_f64()).collect();
        let per_10k = |r: &Round| r.cpu_secs * 10_000.0 / r.answered().max(1) as f64;
        Self {
            name: name.to_owned(),
            rate: median(rates.iter().copied()),
            p50_us: median(rounds.iter().map(|r| r.latency.value_at_quantile(0.5) as f64)),
            p99_us: median(rounds.iter().map(|r| r.latency.value_at_quantile(0.99) as f64)),
            cpu_secs_per_10k: median(rounds.iter().map(per_10k)),
            resident_mib: median(rounds.iter().map(|r| r.resident_bytes as f64 / 1_048_576.0)),
            failed: rounds.iter().map(|r| r.failed).sum(),
            first_failure: rounds.iter().find_map(|r| r.first_failure.clone()),
            rate_range: (
                rates.iter().copied().fold(f64::INFINITY, f64::min),
                rates.iter().copied().fold(0.0, f64::max),
            ),
        }
    }
}

/// The middle value; the lower of the two middle ones for an even count; zero for none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// A Markdown table; the first row is what the others are compared with.
pub fn markdown(title: &str, rows: &[Row]) -> String {
    let mut out = format!(
        "### {title}\n\n| target | calls/s (min–max) | × first | p50 µs | added p50 µs | p99 µs | CPU s / 10k | RSS MiB | failed |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    let Some(first) = rows.first() else { return out };
    for row in rows {
        let (low, high) = row.rate_range;
        let line = format!(
            "| {} | {:.0} ({low:.0}–{high:.0}) | {:.2} | {:.0} | {:+.0} | {:.0} | {:.2} | {:.1} | {} |",
            row.name,
            row.rate,
            row.rate / first.rate.max(f64::MIN_POSITIVE),
            row.p50_us,
            row.p50_us - first.p50_us,
            row.p99_us,
            row.cpu_secs_per_10k,
            row.resident_mib,
            row.failed
        );
        writeln!(out, "{line}").expect("writing to a string cannot fail");
        if let Some(why) = &row.first_failure {
            writeln!(out, "\n{} failed first with: {why}\n", row.name)
                .expect("writing to a string cannot fail");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_a_measured_value() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 1.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
