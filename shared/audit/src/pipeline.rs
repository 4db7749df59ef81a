//! Room, numbers and promises: from a reservation to a record in every sink's queue.

mod inbox;
mod thread;
mod writer;

use std::borrow::Borrow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use weir_model::audit::Facts;
use weir_model::bounds;
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;
use weir_runtime::clock::{SharedClock, SystemClock};
use weir_runtime::metrics::Metrics;
use weir_runtime::task;

use crate::metrics::{Backlog, Counters, SinkState};
use crate::record::{Draft, Run};
use crate::sink::Sink;
use crate::spool::drain::Drain;
use crate::spool::{Handle, Spool};
use inbox::Inbox;
use writer::{Queued, Waiter, Writer};

/// Takes records from callers and brings them to the sinks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
}

/// Room for one record. Finishing it writes the record; dropping it unfinished writes what was
/// noted so far, with the outcome that was noted ([`weir_model::audit::Outcome::Unknown`] when
/// none was).
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    room: Option<OwnedSemaphorePermit>,
    noted: Option<Box<Facts>>,
    finished: bool,
}

/// Where a pipeline runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The node: unique in the fleet.
    pub node: String,
    /// Its region, for records that do not say.
    pub region: String,
}

/// Puts a pipeline together.
pub struct Builder {
    origin: Origin,
    sink: Box<dyn Sink>,
    spool: Option<Handle>,
    drain: Option<Drain>,
    checkpoint_every: Duration,
    room: usize,
    clock: SharedClock,
    metrics: Metrics,
}

/// What a closed pipeline could not bring to its sink, or a drain to its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The sink.
    pub sink: &'static str,
    /// Records that it did not take, or did not sync.
    pub records: u64,
}

#[derive(Debug)]
struct Shared {
    run: Arc<Run>,
    room: Arc<Semaphore>,
    /// Room that records of class `counted` leave to those that were promised.
    kept_free: usize,
    inbox: Arc<Inbox>,
    /// The thread's, which lets go of the sink at its end; a caller that writes its own record
    /// borrows it.
    writer: Weak<AsyncMutex<Writer>>,
    /// The sink cannot write: promises would not be kept.
    failing: Arc<AtomicBool>,
    /// The sink wants no more: neither would they.
    full: Arc<AtomicBool>,
    counters: Counters,
    states: Vec<Arc<SinkState>>,
    clock: SharedClock,
    spool: Option<Handle>,
    running: Mutex<Option<Running>>,
}

/// What ends with the pipeline.
#[derive(Debug)]
struct Running {
    thread: thread::Running,
    drain: Option<(watch::Sender<bool>, JoinHandle<Option<()>>)>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Builder {
    /// A pipeline whose promises this sink keeps.
    pub fn new(origin: Origin, sink: Box<dyn Sink>, metrics: Metrics) -> Self {
        Self {
            origin,
            sink,
            spool: None,
            drain: None,
            checkpoint_every: Duration::from_millis(bounds::AUDIT_CHECKPOINT_MS),
            room: bounds::AUDIT_QUEUE_RECORDS,
            clock: SystemClock::shared(),
            metrics,
        }
    }

    /// A pipeline on a spool.
    pub fn spooled(origin: Origin, spool: Spool, metrics: Metrics) -> Self {
        let handle = spool.handle();
        Self { spool: Some(handle), ..Self::new(origin, Box::new(spool), metrics) }
    }

    /// A stream that the spool is drained into. Nobody waits for it.
    #[must_use]
    pub fn drain(mut self, drain: Drain) -> Self {
        self.drain = Some(drain);
        self
    }

    /// How long new records may be without a signed checkpoint.
    #[must_use]
    pub fn checkpoint_every(mut self, interval: Duration) -> Self {
        self.checkpoint_every = interval;
        self
    }

    /// Records that may be under way at a time.
    #[must_use]
    pub fn room(mut self, records: usize) -> Self {
        self.room = records.clamp(1, bounds::AUDIT_QUEUE_RECORDS);
        self
    }

    /// Another clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the sink's thread, and the drain on the current runtime.
    pub fn start(self) -> Pipeline {
        let counters = Counters::register(&self.metrics);
        let after = self.sink.newest_epoch().map_or(0, |epoch| epoch + 1);
        let run = Arc::new(Run {
            node: self.origin.node,
            region: self.origin.region,
            epoch: self.clock.now_ms().max(after),
        });
        let (failing, full) = (Arc::new(AtomicBool::new(false)), self.sink.full());
        // Records hold room, which bounds what waits here.
        let inbox = Arc::new(Inbox::default());
        let lost = self.sink.lost_before();
        inbox.line().lost = lost;
        counters.lost.inc_by(lost);
        let state = counters.sink(self.sink.name(), Arc::default());
        let writer =
            Writer::new(self.sink, Arc::clone(&inbox), Arc::clone(&state), Arc::clone(&failing))
                .of_epoch(run.epoch, lost);
        let writer = Arc::new(AsyncMutex::new(writer.checkpoint_every(self.checkpoint_every)));
        let borrowed = Arc::downgrade(&writer);
        let thread = thread::run(writer::run(writer, Arc::clone(&inbox)));
        let mut states = vec![Arc::clone(&state)];
        let drain = self.drain.map(|drain| {
            let state = counters.sink(drain.name(), drain.waiting());
            states.push(Arc::clone(&state));
            let (end, ended) = watch::channel(false);
            (end, task::spawn("audit drain", drain.run(state, ended)))
        });
        self.metrics.collector(Backlog { sinks: states.clone(), spool: self.spool.clone() });
        let shared = Shared {
            run,
            room: Arc::new(Semaphore::new(self.room)),
            kept_free: self.room / 4,
            inbox,
            writer: borrowed,
            failing,
            full,
            counters,
            states,
            clock: self.clock,
            spool: self.spool,
            running: Mutex::new(Some(Running { thread, drain })),
        };
        Pipeline { shared: Arc::new(shared) }
    }
}

impl Pipeline {
    /// Reserves room for one record before any work is done.
    ///
    /// # Errors
    /// [`Reason::AuditFull`] when there is no room, or no working sink, and the class demands a
    /// record. A `counted` class gets a slot regardless, and the loss is counted.
    pub fn reserve(&self, class: AuditClass) -> Result<Slot, Reason> {
        let shared = &self.shared;
        let promised = class != AuditClass::Counted;
        let room = shared.room(promised);
        let unable = shared.failing.load(Ordering::Acquire) || shared.full.load(Ordering::Acquire);
        if promised && (room.is_none() || unable) {
            shared.counters.refused.inc();
            return Err(Reason::AuditFull);
        }
        Ok(Slot { shared: Arc::clone(shared), room, noted: None, finished: false })
    }

    /// This run's epoch.
    pub fn epoch(&self) -> u64 {
        self.shared.run.epoch
    }

    /// How many records this run has numbered.
    pub fn sequence(&self) -> u64 {
        self.shared.inbox.line().sequence
    }

    /// Records of class `counted` that found no room in this run.
    pub fn lost(&self) -> u64 {
        self.shared.inbox.line().lost
    }

    /// True while the sink cannot write.
    pub fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Acquire)
    }

    /// The spool under the pipeline, when it has one.
    pub fn spool(&self) -> Option<&Handle> {
        self.shared.spool.as_ref()
    }

    /// Takes no more records and brings those it has to the sink and, through the drain, to the
    /// stream. What is not there by the deadline is given back, by sink; what a stream has not
    /// taken stays in the spool for the next run.
    ///
    /// Callers end first: slots that are finished later are refused or counted as lost.
    pub async fn close(&self, deadline: Duration) -> Vec<Left> {
        self.shared.inbox.close();
        let running = self.shared.running.lock().take();
        let end = tokio::time::Instant::now() + deadline;
        if let Some(Running { thread, drain }) = running {
            thread.finish(end).await;
            if let Some((tell, mut task)) = drain {
                tell.send_replace(true);
                if tokio::time::timeout_at(end, &mut task).await.is_err() {
                    task.abort();
                    let _ = task.await;
                }
            }
        }
        let states = self.shared.states.iter();
        let left = states.map(|state| Left { sink: state.name, records: state.depth() });
        left.filter(|left| left.records > 0).collect()
    }
}

impl Slot {
    /// Keeps the facts so far, for the case that the slot is dropped.
    pub fn note(&mut self, facts: &Facts) {
        match &mut self.noted {
            Some(noted) => noted.as_mut().clone_from(facts),
            None => self.noted = Some(Box::new(facts.clone())),
        }
    }

    /// Gives the room back without a record: for a request whose record another one is.
    pub fn release(mut self) {
        self.finished = true;
    }

    /// Writes the record; returns when the promise of `facts.class` holds.
    ///
    /// # Errors
    /// [`Reason::AuditFull`] when a `strict` or `durable` record could not be written in time for
    /// its answer. Such a record is not given up: it is written when the sink is well again.
    pub async fn finish(mut self, facts: impl Borrow<Facts>) -> Result<(), Reason> {
        self.finished = true;
        let facts = facts.borrow();
        let (waiter, kept) = Waiter::of(facts.class);
        let queued = self.shared.enqueue(facts, self.room.take(), waiter);
        let Some(kept) = kept else { return Ok(()) };
        let patience = Duration::from_millis(bounds::AUDIT_PROMISE_MS);
        let kept = async { tokio::time::timeout(patience, kept).await };
        let promised = queued && matches!(kept.await, Ok(Ok(true)));
        if !promised {
            self.shared.counters.refused.inc();
            return Err(Reason::AuditFull);
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let facts = self.noted.take().unwrap_or_else(|| {
            Box::new(Facts { time_ms: self.shared.clock.now_ms(), ..Facts::default() })
        });
        self.shared.enqueue(&facts, self.room.take(), None);
    }
}

impl Drop for Shared {
    /// A pipeline that nobody holds ends by itself.
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl Shared {
    /// Room for one record. Nobody chose a class for requests to nowhere, which are `counted`:
    /// a flood of them must not take the room of those that are promised a record.
    fn room(&self, promised: bool) -> Option<OwnedSemaphorePermit> {
        if !promised && self.room.available_permits() <= self.kept_free {
            return None;
        }
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Numbers a record and puts it into every queue; false when it is lost.
    fn enqueue(
        &self,
        facts: &Facts,
        room: Option<OwnedSemaphorePermit>,
        waiter: Option<Waiter>,
    ) -> bool {
        // A slot of class `counted` may have been given out without room that is there by now, and
        // in a full spool it takes none of what is left for those that were promised.
        let room = match waiter.is_none() && self.full.load(Ordering::Acquire) {
            true => None,
            false => room.or_else(|| self.room(waiter.is_some())),
        };
        let Some(room) = room else { return self.lose(waiter.is_some()) };
        let draft = Draft::render(facts, &self.run);
        let mut line = self.inbox.line();
        if line.closed {
            drop(line);
            return self.lose(waiter.is_some());
        }
        line.sequence += 1;
        let record = draft.number(&self.run, line.sequence, line.lost, room);
        self.counters.accepted.inc();
        // Count first: the sink's thread may be done with it before this one goes on.
        self.states[0].queued();
        let awaited = waiter.is_some();
        let waiting = line.push(Queued { record, waiter });
        drop(line);
        match awaited {
            true => self.write(),
            false => self.inbox.hint(waiting),
        }
        true
    }

    /// Writes what waits, unless somebody else is at it: who has the writer looks again before
    /// it rests.
    fn write(&self) {
        let Some(writer) = self.writer.upgrade() else { return };
        while self.inbox.waits() {
            let Ok(mut writer) = writer.try_lock() else { return };
            writer.write_for_caller();
        }
    }

    /// A record that found no room. Who was promised one is refused; others are counted.
    fn lose(&self, promised: bool) -> bool {
        if !promised {
            self.inbox.line().lost += 1;
            self.counters.lost.inc();
            self.inbox.lost();
        }
        false
    }
}

/// The two ends of a promise.
pub(crate) type Kept = oneshot::Receiver<bool>;

#[cfg(test)]
mod tests;
