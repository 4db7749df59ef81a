//! Paces the work and takes the times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::process;
use crate::scenario::{Pace, Target, Work};
use crate::target::Connection;

/// What one round against one target gave.
#[derive(Debug)]
pub struct Round {
    /// Latencies in microseconds.
    pub latency: Histogram<u64>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Of the target's processes, during the round.
    pub cpu_secs: f64,
    /// Of the target's processes, at its end.
    pub resident_bytes: u64,
    /// Answers that were not what the work must give, with the first one's text.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_failure: Option<String>,
}

impl Round {
    /// Good answers.
    pub fn answered(&self) -> u64 {
        self.latency.len()
    }
}

/// What the workers of a round have in common.
struct Shared {
    work: Work,
    text: String,
    taken: AtomicU64,
    total: u64,
    started: Instant,
    /// Time between intended starts; zero in a closed loop.
    interval: Duration,
}

/// What one worker saw.
struct Seen {
    latency: Histogram<u64>,
    failed: u64,
    first_failure: Option<String>,
}

/// Runs one round.
///
/// # Errors
/// When the target cannot be reached at all; bad answers are counted instead.
pub async fn run(target: &Target, work: &Work, pace: &Pace) -> anyhow::Result<Round> {
    let (connections, total, interval) = match *pace {
        Pace::Closed { connections, requests } => (connections, requests, Duration::ZERO),
        Pace::Open { connections, rate, seconds } => {
            (connections, rate * seconds, Duration::from_secs_f64(1.0 / rate as f64))
        }
    };
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(target).await.with_context(|| target.name.clone())?);
    }
    let bytes = if let Work::Call { bytes, .. } = work { *bytes } else { 0 };
    let before = process::usage(&target.pids);
    let shared = Arc::new(Shared {
        work: work.clone(),
        text: "x".repeat(bytes),
        taken: AtomicU64::new(0),
        total,
        started: Instant::now(),
        interval,
    });
    let workers: Vec<_> =
        open.into_iter().map(|c| tokio::spawn(worker(c, Arc::clone(&shared)))).collect();
    let mut all = Seen { latency: histogram()?, failed: 0, first_failure: None };
    for worker in workers {
        let seen = worker.await??;
        all.latency.add(&seen.latency)?;
        all.failed += seen.failed;
        all.first_failure = all.first_failure.or(seen.first_failure);
    }
    let elapsed = shared.started.elapsed();
    let after = process::usage(&target.pids);
    Ok(Round {
        latency: all.latency,
        elapsed,
        cpu_secs: after.cpu_secs - before.cpu_secs,
        resident_bytes: after.resident_bytes,
        failed: all.failed,
        first_failure: all.first_failure,
    })
}

async fn worker(mut connection: Connection, shared: Arc<Shared>) -> anyhow::Result<Seen> {
    let mut seen = Seen { latency: histogram()?, failed: 0, first_failure: None };
    loop {
        let turn = shared.taken.fetch_add(1, Ordering::Relaxed);
        if turn >= shared.total {
            return Ok(seen);
        }
        // In an open loop a request that starts late because others were slow still counts from
        // when it should have started: that is the correction for coordinated omission.
        let mut start = Instant::now();
        if !shared.interval.is_zero() {
            start = shared.started + shared.interval.mul_f64(turn as f64);
            tokio::time::sleep_until(start.into()).await;
        }
        match connection.run(&shared.work, &shared.text).await {
            Ok(()) => seen.latency.saturating_record(start.elapsed().as_micros() as u64),
            Err(error) => {
                seen.failed += 1;
                seen.first_failure.get_or_insert_with(|| format!("{error:#}"));
                match Connection::open(&connection.target().clone()).await {
                    Ok(fresh) => connection = fresh,
                    Err(_) => return Ok(seen),
                }
            }
        }
    }
}

/// 1 µs to 60 s with three digits.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}
