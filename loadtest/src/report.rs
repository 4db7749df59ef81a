//! Medians and ratios over interleaved rounds, as Markdown and JSON; [`html`] draws them.

pub mod html;

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::driver::Round;
use crate::goal::{Measure, Verdict};

/// Everything that a run gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Of the plan.
    pub name: String,
    /// What it ran on, and how busy that was.
    pub machine: Machine,
    /// One for each scenario.
    pub tables: Vec<Table>,
    /// One for each goal.
    pub verdicts: Vec<Verdict>,
}

/// What a run was made on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// Of the kernel.
    pub kernel: String,
    /// Load averages of one minute before and after: what else went on.
    pub load: (f64, f64),
    /// Seconds since the epoch at the start.
    pub started: u64,
    /// How long it took.
    pub seconds: f64,
}

/// One scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub scenario: String,
    /// One for each target (and revision); the others are compared with the first.
    pub rows: Vec<Row>,
}

/// The medians of one target over all rounds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// The target.
    pub name: String,
    /// Answers per second.
    pub rate: f64,
    /// Lowest and highest over the rounds: how noisy the machine was.
    pub rate_range: (f64, f64),
    /// Median over the rounds of the rate over the first row's in the same round.
    pub share: f64,
    /// Microseconds.
    pub p50_us: f64,
    /// Median over the rounds of the difference from the first row's in the same round.
    pub added_p50_us: f64,
    /// Microseconds.
    pub p99_us: f64,
    /// CPU seconds of the target's processes per 10,000 good answers.
    pub cpu_secs_per_10k: f64,
    /// Lowest and highest over the rounds.
    pub cpu_range: (f64, f64),
    /// Resident memory at the end, MiB.
    pub resident_mib: f64,
    /// Resident memory before anything was held, MiB.
    pub idle_mib: Option<f64>,
    /// KiB for each session or stream that is held.
    pub held_kib: Option<f64>,
    /// Good answers of all rounds.
    pub answered: u64,
    /// Bad answers of all rounds.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_failure: Option<String>,
    /// Latency over all rounds: (quantile, microseconds).
    pub curve: Vec<(f64, u64)>,
    /// Median and 99th percentile for each share of a mix, microseconds.
    pub shares: Vec<(String, u64, u64)>,
}

/// Where the curve is read.
const QUANTILES: [f64; 13] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0];

impl Row {
    /// Sums up the rounds of one target; `first` are those of the row to compare with.
    ///
    /// # Errors
    /// Never: all histograms have the same bounds.
    pub fn of(
        name: &str,
        labels: &[&str],
        rounds: &[Round],
        first: &[Round],
    ) -> anyhow::Result<Self> {
        let rate = |r: &Round| r.answered() as f64 / r.elapsed.as_secs_f64().max(1e-9);
        let per_10k = |r: &Round| r.cpu_secs * 10_000.0 / r.answered().max(1) as f64;
        let mut p50 = Vec::new();
        let mut p99 = Vec::new();
        let mut added = Vec::new();
        let mut all = crate::driver::histogram()?;
        for (round, first) in rounds.iter().zip(first) {
            let merged = round.all()?;
            let own = merged.value_at_quantile(0.5) as f64;
            p50.push(own);
            p99.push(merged.value_at_quantile(0.99) as f64);
            added.push(own - first.all()?.value_at_quantile(0.5) as f64);
            all.add(merged)?;
        }
        let held = |r: &Round| {
            let held = r.held?;
            let more = r.resident_bytes as f64 - held.before_bytes as f64;
            Some(more / 1024.0 / held.count.max(1) as f64)
        };
        let idle = |r: &Round| Some(r.held?.before_bytes as f64 / MIB);
        Ok(Self {
            name: name.to_owned(),
            rate: median(rounds.iter().map(rate)),
            rate_range: range(rounds.iter().map(rate)),
            share: median(rounds.iter().zip(first).map(|(r, f)| rate(r) / rate(f))),
            p50_us: median(p50.into_iter()),
            added_p50_us: median(added.into_iter()),
            p99_us: median(p99.into_iter()),
            cpu_secs_per_10k: median(rounds.iter().map(per_10k)),
            cpu_range: range(rounds.iter().map(per_10k)),
            resident_mib: median(rounds.iter().map(|r| r.resident_bytes as f64 / MIB)),
            idle_mib: some_median(rounds.iter().filter_map(idle)),
            held_kib: some_median(rounds.iter().filter_map(held)),
            answered: rounds.iter().map(Round::answered).sum(),
            failed: rounds.iter().map(|r| r.failed).sum(),
            first_failure: rounds.iter().find_map(|r| r.first_failure.clone()),
            curve: QUANTILES.iter().map(|q| (*q, all.value_at_quantile(*q))).collect(),
            shares: shares(labels, rounds)?,
        })
    }
}

const MIB: f64 = 1_048_576.0;

fn shares(labels: &[&str], rounds: &[Round]) -> anyhow::Result<Vec<(String, u64, u64)>> {
    if labels.len() < 2 {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for (at, label) in labels.iter().enumerate() {
        let mut all = crate::driver::histogram()?;
        for round in rounds {
            all.add(&round.latency[at])?;
        }
        let (p50, p99) = (all.value_at_quantile(0.5), all.value_at_quantile(0.99));
        out.push(((*label).to_owned(), p50, p99));
    }
    Ok(out)
}

/// The middle value; the lower of the two middle ones for an even count; zero for none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    some_median(values).unwrap_or(0.0)
}

fn some_median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(low, high), v| (low.min(v), f64::max(high, v)))
}

impl Report {
    /// All tables, and the goals first.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a string cannot fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let m = &self.machine;
        writeln!(out, "## {}\n", self.name)?;
        let (before, after) = m.load;
        writeln!(
            out,
            "{} cores, {}, load {before:.1} before and {after:.1} after, {:.0} s.\n",
            m.cores, m.kernel, m.seconds
        )?;
        if !self.verdicts.is_empty() {
            writeln!(out, "| goal | others | wanted | measured | |\n|---|---|---|---|---|")?;
            for verdict in &self.verdicts {
                writeln!(out, "{}", goal_line(verdict))?;
            }
        }
        self.tables.iter().try_for_each(|table| table.write(out))
    }
}

fn goal_line(verdict: &Verdict) -> String {
    let goal = &verdict.goal;
    let wanted = match (goal.at_most, goal.at_least) {
        (Some(most), _) => format!("≤ {most}"),
        (None, Some(least)) => format!("≥ {least}"),
        (None, None) => String::new(),
    };
    let unit = goal.measure.unit();
    let measured = match verdict.measured {
        Some(value) => format!("{} {unit}", figure(value)),
        None => "not measured".to_owned(),
    };
    let met = if verdict.met { "met" } else { "**missed**" };
    format!("| {} | {} | {wanted} | {measured} | {met} |", goal.name, goal.known)
}

/// With as many digits as mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Table {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        let holds = self.rows.iter().any(|row| row.held_kib.is_some());
        writeln!(out, "\n### {}\n", self.scenario)?;
        write!(out, "| target | answers/s (min–max) | × first | p50 µs | added p50 µs | p99 µs ")?;
        write!(out, "| CPU s / 10k (min–max) | RSS MiB ")?;
        if holds {
            write!(out, "| before MiB | KiB each ")?;
        }
        writeln!(out, "| failed |")?;
        writeln!(out, "{}", "|---".repeat(if holds { 11 } else { 9 }) + "|")?;
        for row in &self.rows {
            let ((low, high), (cpu_low, cpu_high)) = (row.rate_range, row.cpu_range);
            write!(
                out,
                "| {} | {:.0} ({low:.0}–{high:.0}) | {:.2} | {:.0} | {:+.0} | {:.0} ",
                row.name, row.rate, row.share, row.p50_us, row.added_p50_us, row.p99_us
            )?;
            let cpu = row.cpu_secs_per_10k;
            write!(out, "| {cpu:.2} ({cpu_low:.2}–{cpu_high:.2}) | {:.1} ", row.resident_mib)?;
            if holds {
                let shown = |value: Option<f64>| value.map_or_else(String::new, figure);
                write!(out, "| {} | {} ", shown(row.idle_mib), shown(row.held_kib))?;
            }
            writeln!(out, "| {} |", row.failed)?;
        }
        for row in &self.rows {
            for (label, p50, p99) in &row.shares {
                writeln!(out, "\n{}: {label} p50 {p50} µs, p99 {p99} µs", row.name)?;
            }
            if let Some(why) = &row.first_failure {
                writeln!(out, "\n{} failed first with: {why}", row.name)?;
            }
        }
        Ok(())
    }
}

/// What became of each figure from one run to another, over 1 where it got dearer.
pub fn compare(old: &Report, new: &Report) -> String {
    let mut out = String::from(
        "| scenario | target | CPU s / 10k | × | added p50 µs | × first |\n|---|---|---|---|---|---|\n",
    );
    for table in &new.tables {
        let Some(before) = old.tables.iter().find(|t| t.scenario == table.scenario) else {
            continue;
        };
        for row in &table.rows {
            let Some(was) = before.rows.iter().find(|r| r.name == row.name) else { continue };
            let measure = Measure::CpuSecsPer10k;
            let cpu = (measure.of(was, was), measure.of(row, row));
            let (Some(a), Some(b)) = cpu else { continue };
            let ratio = if a > 0.0 { b / a } else { 1.0 };
            let (scenario, name) = (&table.scenario, &row.name);
            let line = format!(
                "| {scenario} | {name} | {a:.2} → {b:.2} | {ratio:.2} | {:+.0} → {:+.0} | {:.2} → {:.2} |\n",
                was.added_p50_us, row.added_p50_us, was.share, row.share
            );
            out.push_str(&line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::goal::{Goal, judge};

    fn round(cpu_secs: f64, micros: u64) -> Round {
        let mut latency = crate::driver::histogram().expect("bounds");
        latency.record_n(micros, 10_000).expect("in bounds");
        Round {
            latency: vec![latency],
            elapsed: Duration::from_secs(1),
            cpu_secs,
            resident_bytes: 1 << 20,
            held: None,
            failed: 0,
            first_failure: None,
        }
    }

    fn report(cpu: f64) -> Report {
        let first = [round(0.1, 100), round(0.1, 110), round(0.1, 90)];
        let own = [round(cpu, 150), round(cpu * 2.0, 190), round(cpu, 160)];
        let rows = vec![
            Row::of("direct", &["call"], &first, &first).expect("a row"),
            Row::of("gateway", &["call"], &own, &first).expect("a row"),
        ];
        let machine = Machine {
            cores: 2,
            kernel: "k".to_owned(),
            load: (0.0, 0.0),
            started: 0,
            seconds: 1.0,
        };
        let tables = vec![Table { scenario: "s".to_owned(), rows }];
        Report { name: "r".to_owned(), machine, tables, verdicts: vec![] }
    }

    #[test]
    fn the_median_is_a_measured_value() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 1.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn what_is_added_is_compared_within_a_round() {
        let row = &report(0.3).tables[0].rows[1];
        assert_eq!(row.added_p50_us, 70.0);
        assert_eq!(row.cpu_secs_per_10k, 0.3);
        assert_eq!(row.cpu_range, (0.3, 0.6));
    }

    #[test]
    fn goals_are_met_or_missed() {
        let goal = |measure, at_most| Goal {
            name: "g".to_owned(),
            scenario: "s".to_owned(),
            row: "gateway".to_owned(),
            measure,
            at_most: Some(at_most),
            at_least: None,
            known: String::new(),
        };
        let tables = report(0.3).tables;
        assert!(judge(&goal(Measure::CpuSecsPer10k, 0.35), &tables).met);
        assert!(!judge(&goal(Measure::AddedP50Us, 60.0), &tables).met);
        let unmeasured = judge(&goal(Measure::HeldKib, 60.0), &tables);
        assert_eq!((unmeasured.measured, unmeasured.met), (None, false));
    }

    #[test]
    fn reports_survive_json_and_are_compared() {
        let text = serde_json::to_string(&report(0.3)).expect("JSON");
        let old: Report = serde_json::from_str(&text).expect("a report");
        let compared = compare(&old, &report(0.15));
        assert!(compared.contains("| gateway | 0.30 → 0.15 | 0.50 |"), "{compared}");
        assert!(old.markdown().contains("| gateway | 10000 (10000–10000) | 1.00 |"));
        assert!(html::page(&old).contains("<svg"));
    }
}
