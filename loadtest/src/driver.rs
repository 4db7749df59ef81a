//! Paces the work and takes the times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::era::Era;
use crate::hold;
use crate::plan::{Pace, Scenario, Share, Target, Work};
use crate::process;
use crate::target::Connection;

/// What one round against one target gave.
#[derive(Debug)]
pub struct Round {
    /// Latencies in microseconds, for each share of the mix.
    pub latency: Vec<Histogram<u64>>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Of the target's processes, during the round.
    pub cpu_secs: f64,
    /// Of the target's processes, at its end.
    pub resident_bytes: u64,
    /// Before anything was held, and how many sessions or streams are; for scenarios that hold.
    pub held: Option<hold::Held>,
    /// Answers that were not what the work must give, with the first one's text.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_failure: Option<String>,
}

impl Round {
    /// Good answers.
    pub fn answered(&self) -> u64 {
        self.latency.iter().map(Histogram::len).sum()
    }

    /// Latencies of all shares together.
    ///
    /// # Errors
    /// Never: all histograms have the same bounds.
    pub fn all(&self) -> anyhow::Result<Histogram<u64>> {
        let mut all = histogram()?;
        for one in &self.latency {
            all.add(one)?;
        }
        Ok(all)
    }
}

/// What the workers of a round have in common.
struct Shared {
    mix: Vec<Work>,
    /// Which of the mix a turn is, over and over.
    turns: Vec<usize>,
    texts: Vec<String>,
    taken: AtomicU64,
    total: u64,
    started: Instant,
    deadline: Instant,
    /// Time between intended starts; zero in a closed loop.
    interval: Duration,
}

/// What one worker saw.
struct Seen {
    latency: Vec<Histogram<u64>>,
    failed: u64,
    first_failure: Option<String>,
}

/// An open loop that has fallen this far behind is given up.
const BEHIND_MAX: Duration = Duration::from_secs(30);
/// Bad answers after which a worker gives up.
const FAILURES_MAX: u64 = 100;

/// Runs one round.
///
/// # Errors
/// When the target cannot be reached at all; bad answers are counted instead.
pub async fn run(target: &Target, era: Era, scenario: &Scenario) -> anyhow::Result<Round> {
    let (connections, total, interval, longest) = match scenario.pace {
        Pace::Closed { connections, requests, seconds_max } => {
            (connections, requests, Duration::ZERO, Duration::from_secs(seconds_max))
        }
        Pace::Open { connections, rate, seconds } => {
            let interval = Duration::from_secs_f64(1.0 / rate as f64);
            (connections, rate * seconds, interval, Duration::from_secs(seconds) + BEHIND_MAX)
        }
        Pace::Hold { sessions, streams, seconds } => {
            let wish = hold::Wish { sessions, streams, settle: Duration::from_secs(seconds) };
            return hold::run(target, era, &wish, &scenario.work[0].work).await;
        }
    };
    let pids = target.processes();
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let opened = Connection::open(target, era).await;
        open.push(opened.with_context(|| format!("{} at {}", target.name, era.as_str()))?);
    }
    let before = process::usage(&pids);
    let started = Instant::now();
    let shared = Arc::new(Shared {
        mix: scenario.work.iter().map(|share| share.work.clone()).collect(),
        turns: turns(&scenario.work),
        texts: scenario.work.iter().map(|share| text(&share.work)).collect(),
        taken: AtomicU64::new(0),
        total,
        started,
        deadline: started + longest,
        interval,
    });
    let workers: Vec<_> =
        open.into_iter().map(|c| tokio::spawn(worker(c, Arc::clone(&shared)))).collect();
    let mut all = Seen::new(scenario.work.len())?;
    for worker in workers {
        let seen = worker.await??;
        for (sum, one) in all.latency.iter_mut().zip(&seen.latency) {
            sum.add(one)?;
        }
        all.failed += seen.failed;
        all.first_failure = all.first_failure.or(seen.first_failure);
    }
    let elapsed = shared.started.elapsed();
    let after = process::usage(&pids);
    Ok(Round {
        latency: all.latency,
        elapsed,
        cpu_secs: after.cpu_secs - before.cpu_secs,
        resident_bytes: after.resident_bytes,
        held: None,
        failed: all.failed,
        first_failure: all.first_failure,
    })
}

impl Seen {
    fn new(shares: usize) -> anyhow::Result<Self> {
        let latency = (0..shares).map(|_| histogram()).collect::<anyhow::Result<_>>()?;
        Ok(Self { latency, failed: 0, first_failure: None })
    }
}

async fn worker(mut connection: Connection, shared: Arc<Shared>) -> anyhow::Result<Seen> {
    let mut seen = Seen::new(shared.mix.len())?;
    loop {
        let turn = shared.taken.fetch_add(1, Ordering::Relaxed);
        if turn >= shared.total || Instant::now() >= shared.deadline {
            return Ok(seen);
        }
        let share = shared.turns[(turn % shared.turns.len() as u64) as usize];
        // In an open loop a request that starts late because others were slow still counts from
        // when it should have started: that is the correction for coordinated omission.
        let mut start = Instant::now();
        if !shared.interval.is_zero() {
            start = shared.started + shared.interval.mul_f64(turn as f64);
            tokio::time::sleep_until(start.into()).await;
        }
        match connection.run(&shared.mix[share], &shared.texts[share]).await {
            Ok(at) => {
                let micros = at.saturating_duration_since(start).as_micros();
                seen.latency[share].saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
            }
            Err(error) => {
                seen.failed += 1;
                seen.first_failure.get_or_insert_with(|| format!("{error:#}"));
                let target = connection.target().clone();
                match Connection::open(&target, connection.era()).await {
                    Ok(fresh) if seen.failed < FAILURES_MAX => connection = fresh,
                    _ => return Ok(seen),
                }
            }
        }
    }
}

/// The order of a mix: each share as often as its weight says, spread evenly.
fn turns(mix: &[Share]) -> Vec<usize> {
    let sum: i64 = mix.iter().map(|share| i64::from(share.weight)).sum();
    let mut credit = vec![0; mix.len()];
    let mut turns = Vec::new();
    for _ in 0..sum {
        for (credit, share) in credit.iter_mut().zip(mix) {
            *credit += i64::from(share.weight);
        }
        let next = (0..mix.len()).max_by_key(|at| credit[*at]).unwrap_or_default();
        credit[next] -= sum;
        turns.push(next);
    }
    turns
}

/// The text that a call sends.
pub fn text(work: &Work) -> String {
    match work {
        Work::Call { bytes, .. } => "x".repeat(*bytes),
        _ => String::new(),
    }
}

/// 1 µs to 60 s with three digits.
///
/// # Errors
/// Never: the bounds are good.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_spread_evenly() {
        let share = |weight| Share { weight, work: Work::Session };
        assert_eq!(turns(&[share(1)]), [0]);
        let turns = turns(&[share(4), share(1), share(1)]);
        assert_eq!(turns.len(), 6);
        assert_eq!(turns.iter().filter(|at| **at == 0).count(), 4);
        assert!(!turns.windows(4).any(|four| four.iter().all(|at| *at == 0)), "{turns:?}");
    }
}
