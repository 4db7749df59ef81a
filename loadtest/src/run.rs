//! A whole run: scenarios one after the other, targets of a scenario in turns.

use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::driver::{self, Round};
use crate::era::Era;
use crate::goal;
use crate::plan::{Plan, Scenario, Target, Work};
use crate::report::{Machine, Report, Row, Table};

/// Runs a plan; progress goes to `log`, a line per scenario. `only` keeps scenarios whose name
/// contains it.
///
/// # Errors
/// When a target cannot be reached.
pub async fn run(plan: &Plan, only: Option<&str>, mut log: impl Write) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let before = load();
    let mut tables = Vec::new();
    for scenario in &plan.scenarios {
        if only.is_some_and(|part| !scenario.name.contains(part)) {
            continue;
        }
        let started = Instant::now();
        let table = table(plan, scenario).await.with_context(|| scenario.name.clone())?;
        let failed: u64 = table.rows.iter().map(|row| row.failed).sum();
        let secs = started.elapsed().as_secs_f64();
        writeln!(log, "{}: {secs:.0} s, {failed} failed", scenario.name)?;
        tables.push(table);
    }
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let measured = |g: &&goal::Goal| tables.iter().any(|table| table.scenario == g.scenario);
    Ok(Report {
        name: plan.name.clone(),
        machine: Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: kernel(),
            load: (before, load()),
            started: started.saturating_sub(begun.elapsed().as_secs()),
            seconds: begun.elapsed().as_secs_f64(),
        },
        verdicts: plan.goals.iter().filter(measured).map(|g| goal::judge(g, &tables)).collect(),
        tables,
    })
}

/// One line of a table: a target at a revision.
struct Line<'a> {
    name: String,
    target: &'a Target,
    era: Era,
    rounds: Vec<Round>,
}

async fn table(plan: &Plan, scenario: &Scenario) -> anyhow::Result<Table> {
    let mut lines = Vec::new();
    for target in plan.targets_of(scenario) {
        let eras: &[Era] = if scenario.eras.is_empty() { &[target.era] } else { &scenario.eras };
        for era in eras {
            let name = match scenario.eras.len() {
                0 | 1 => target.name.clone(),
                _ => format!("{} {}", target.name, era.as_str()),
            };
            lines.push(Line { name, target, era: *era, rounds: Vec::new() });
        }
    }
    // Targets take turns within a round, and begin with another one each time, so that a slow
    // minute of the machine hits all of them and nobody always comes first.
    for round in 0..scenario.rounds.unwrap_or(plan.rounds) as usize {
        for at in 0..lines.len() {
            let turn = (at + round) % lines.len();
            let line = &mut lines[turn];
            line.rounds.push(driver::run(line.target, line.era, scenario).await?);
        }
    }
    let labels: Vec<_> = scenario.work.iter().map(|share| Work::label(&share.work)).collect();
    let first = &lines[0].rounds;
    let rows = lines.iter().map(|line| Row::of(&line.name, &labels, &line.rounds, first));
    let rows = rows.collect::<anyhow::Result<_>>()?;
    Ok(Table { scenario: scenario.name.clone(), rows })
}

/// Load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}
