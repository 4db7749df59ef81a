//! What figures are held against.

use serde::{Deserialize, Serialize};

use crate::report::{Row, Table};

/// One figure, and what it should be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// For the report.
    pub name: String,
    /// The scenario that measures it.
    pub scenario: String,
    /// The row: a target's name, with the revision after it where the scenario has several.
    pub row: String,
    /// Which figure of the row.
    pub measure: Measure,
    /// Met when it is at most this.
    pub at_most: Option<f64>,
    /// Met when it is at least this.
    pub at_least: Option<f64>,
    /// What others reach, for the report.
    #[serde(default)]
    pub known: String,
}

/// A figure of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// CPU seconds of the target's processes for 10,000 answers.
    CpuSecsPer10k,
    /// Answers per second, over the first row's.
    RateShare,
    /// Milliseconds.
    P50Ms,
    /// Microseconds more than the first row.
    AddedP50Us,
    /// MiB of resident memory before anything was held.
    IdleMib,
    /// KiB of resident memory for each session or stream that is held.
    HeldKib,
}

impl Measure {
    /// Reads it from a row; none when the row does not have it.
    pub fn of(self, row: &Row, first: &Row) -> Option<f64> {
        match self {
            Self::CpuSecsPer10k => Some(row.cpu_secs_per_10k),
            Self::RateShare => Some(row.share),
            Self::P50Ms => Some(row.p50_us / 1_000.0),
            Self::AddedP50Us => Some(if row.name == first.name { 0.0 } else { row.added_p50_us }),
            Self::IdleMib => row.idle_mib,
            Self::HeldKib => row.held_kib,
        }
    }

    /// For reports.
    pub fn unit(self) -> &'static str {
        match self {
            Self::CpuSecsPer10k => "CPU s / 10k",
            Self::RateShare => "× first",
            Self::P50Ms => "ms",
            Self::AddedP50Us => "µs added",
            Self::IdleMib => "MiB",
            Self::HeldKib => "KiB each",
        }
    }
}

/// A goal and what was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// The goal.
    pub goal: Goal,
    /// The figure; none when it was not measured.
    pub measured: Option<f64>,
    /// Whether it is as it should be.
    pub met: bool,
}

/// Holds a goal against the tables.
pub fn judge(goal: &Goal, tables: &[Table]) -> Verdict {
    let table = tables.iter().find(|table| table.scenario == goal.scenario);
    let measured = table.and_then(|table| {
        let row = table.rows.iter().find(|row| row.name == goal.row)?;
        goal.measure.of(row, table.rows.first()?)
    });
    let met = measured.is_some_and(|value| {
        goal.at_most.is_none_or(|most| value <= most)
            && goal.at_least.is_none_or(|least| value >= least)
    });
    Verdict { goal: goal.clone(), measured, met }
}
