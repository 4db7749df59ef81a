//! Sessions and streams that are opened and kept, and what they cost in memory.

use std::time::{Duration, Instant};

use anyhow::ensure;
use hyper::body::Incoming;

use crate::driver::{self, Round};
use crate::era::Era;
use crate::plan::{Target, Work};
use crate::process;
use crate::target::Connection;

/// What to hold.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Sessions, opened over a few connections.
    pub sessions: usize,
    /// Streams, each on a connection of its own.
    pub streams: usize,
    /// How long before memory is looked at.
    pub settle: Duration,
}

/// What was held.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Sessions and streams.
    pub count: usize,
    /// Resident memory before, with the connections that open sessions already there.
    pub before_bytes: u64,
}

/// Connections that sessions are opened over.
const OPENERS: usize = 16;
/// How many of what is held are tried out.
const TRIED: usize = 50;

/// Opens, waits, looks at memory, tries some of what is held, and lets go.
///
/// # Errors
/// When the target cannot be reached, or does not give what is asked for.
pub async fn run(target: &Target, era: Era, wish: &Wish, work: &Work) -> anyhow::Result<Round> {
    let pids = target.processes();
    let mut openers = Vec::with_capacity(OPENERS);
    for _ in 0..OPENERS {
        let mut opener = Connection::open(target, era).await?;
        opener.run(work, &driver::text(work)).await?;
        openers.push(opener);
    }
    let before = process::usage(&pids);
    let mut latency = driver::histogram()?;
    let started = Instant::now();
    ensure!(wish.sessions == 0 || !era.modern(), "2026-07-28 has no sessions");
    for at in 0..wish.sessions {
        let begun = Instant::now();
        // The session before it is left open: nobody ends it.
        openers[at % OPENERS].initialize().await?;
        latency.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
    }
    let mut streams: Vec<(Connection, Incoming)> = Vec::with_capacity(wish.streams);
    for _ in 0..wish.streams {
        let begun = Instant::now();
        let mut connection = Connection::open(target, era).await?;
        let stream = connection.listen().await?;
        latency.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
        streams.push((connection, stream));
    }
    let elapsed = started.elapsed();
    let opened = process::usage(&pids);
    tokio::time::sleep(wish.settle).await;
    let after = process::usage(&pids);
    let (mut failed, mut first_failure) = (0, None);
    for at in 0..TRIED.min(wish.sessions) {
        if let Err(error) = openers[at % OPENERS].run(work, &driver::text(work)).await {
            failed += 1;
            first_failure.get_or_insert_with(|| format!("{error:#}"));
        }
    }
    failed += ended(&mut streams).await;
    Ok(Round {
        latency: vec![latency],
        elapsed,
        cpu_secs: opened.cpu_secs - before.cpu_secs,
        resident_bytes: after.resident_bytes,
        held: Some(Held {
            count: wish.sessions + wish.streams,
            before_bytes: before.resident_bytes,
        }),
        failed,
        first_failure,
    })
}

/// How many streams have ended although nobody ended them.
async fn ended(streams: &mut [(Connection, Incoming)]) -> u64 {
    use http_body_util::BodyExt;
    let mut ended = 0;
    for (_, stream) in streams {
        // Acknowledgements and keep-alives may wait to be read.
        loop {
            let frame = tokio::time::timeout(Duration::ZERO, stream.frame()).await;
            match frame {
                Err(_) => break,
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => {
                    ended += 1;
                    break;
                }
            }
        }
    }
    ended
}
