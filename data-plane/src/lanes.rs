//! Threads that serve traffic where the settings say so: lanes, each with a runtime of its own.
//!
//! A connection stays on the lane that it was given when it was accepted, and so does all that its
//! calls start: exchanges with servers, timers, streams. No call wakes another thread, and
//! connections to servers are kept per lane ([`here`]). Nothing that outlives a call belongs to a
//! lane: whichever serves a session's next request knows as much as the one before.
//!
//! New connections go to the lane that has the fewest. A process without lanes (the default)
//! serves on the runtime that it is on.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// The number of the lane that this runs on, from 0; 0 elsewhere too.
pub fn here() -> usize {
    HERE.get()
}

/// All lanes of a process; none by default. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Arc<[Lane]>);

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    connections: AtomicUsize,
}

/// A connection's place on a lane, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    lanes: Lanes,
    lane: usize,
}

/// Lanes that run until this is dropped. What is under way on them is then dropped too.
#[derive(Debug)]
pub struct Running {
    lanes: Lanes,
    /// The threads wait for its end.
    stop: Option<watch::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts so many lanes, at least one.
///
/// # Errors
/// When the operating system gives no thread, or no poller for one.
pub fn start(count: usize) -> io::Result<Running> {
    let count = count.max(1);
    let (stop, stopped) = watch::channel(());
    let (mut lanes, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for number in 0..count {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        lanes.push(Lane { runtime: runtime.handle().clone(), connections: AtomicUsize::new(0) });
        let stopped = stopped.clone();
        let thread = std::thread::Builder::new().name(format!("traffic-{number}"));
        threads.push(thread.spawn(move || run(number, runtime, stopped))?);
    }
    Ok(Running { lanes: Lanes(lanes.into()), stop: Some(stop), threads })
}

fn run(number: usize, runtime: Runtime, mut stopped: watch::Receiver<()>) {
    HERE.set(number);
    // An error is the end of whoever stops it.
    runtime.block_on(async { while stopped.changed().await.is_ok() {} });
    runtime.shutdown_background();
}

impl Running {
    /// The lanes.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            // A lane catches the panics of its tasks, so that there is nothing to tell.
            let _ = thread.join();
        }
    }
}

impl Lanes {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Their runtimes.
    pub fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|lane| &lane.runtime)
    }

    /// A place for a connection; none without lanes.
    pub fn seat(&self) -> Option<Seat> {
        let taken = |lane: usize| self.0[lane].connections.load(Ordering::Relaxed);
        let lane = (0..self.0.len()).min_by_key(|lane| taken(*lane))?;
        self.0[lane].connections.fetch_add(1, Ordering::Relaxed);
        Some(Seat { lanes: self.clone(), lane })
    }
}

impl Seat {
    /// The runtime of the lane.
    pub fn runtime(&self) -> &Handle {
        &self.lanes.0[self.lane].runtime
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lanes.0[self.lane].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_and_stay_where_they_are() {
        let running = start(3).expect("threads");
        let lanes = running.lanes();
        let mut seats: Vec<_> = (0..6).filter_map(|_| lanes.seat()).collect();
        let of = |seats: &[Seat]| seats.iter().map(|seat| seat.lane).collect::<Vec<_>>();
        assert_eq!(of(&seats), [0, 1, 2, 0, 1, 2]);
        seats.remove(1);
        assert_eq!(lanes.seat().expect("lanes").lane, 1, "the lane with the fewest");
        for seat in &seats {
            let (tell, told) = std::sync::mpsc::channel();
            seat.runtime().spawn(async move {
                tokio::task::yield_now().await;
                tell.send(here())
            });
            assert_eq!(told.recv().expect("a lane that runs"), seat.lane);
        }
        assert_eq!(here(), 0);
        assert!(Lanes::default().seat().is_none());
    }

    #[test]
    fn the_end_of_lanes_drops_what_they_run() {
        let running = start(1).expect("a thread");
        let (held, lost) = std::sync::mpsc::channel::<()>();
        let seat = running.lanes().seat().expect("a lane");
        seat.runtime().spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(running);
        assert!(lost.recv().is_err(), "the task is gone");
    }
}
