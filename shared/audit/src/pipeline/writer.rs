//! One sink's task: batches, retries, syncs in groups, and keeps promises.
//!
//! Records that were written but not synced are kept, because a failed sync may have lost them:
//! they are written once more. What is written and synced is let go, which makes room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;
use weir_model::bounds;
use weir_model::resource::AuditClass;
use weir_runtime::backoff::Backoff;

use super::Kept;
use super::inbox::Inbox;
use crate::metrics::SinkState;
use crate::record::Record;
use crate::sink::{Sink, SinkError};

/// Records of one write.
const BATCH_RECORDS: usize = 512;
/// How long written records may stay unsynced.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// Unsynced records at which a sync begins early.
const SYNC_RECORDS: usize = 2_048;
/// Waits between attempts at a sink that fails.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// Failures in a row after which newcomers are told at once that their promise is broken.
const HOPEFUL_TRIES: u32 = 1;

/// A record in a sink's queue.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) record: Record,
    pub(super) waiter: Option<Waiter>,
}

/// Somebody who waits for a record: told `true` when the promise is kept, `false` when not.
#[derive(Debug)]
pub(super) struct Waiter {
    synced: bool,
    tell: oneshot::Sender<bool>,
}

impl Waiter {
    /// The waiter of a class, and what its owner waits on; none for `counted`.
    pub(super) fn of(class: AuditClass) -> (Option<Self>, Option<Kept>) {
        if class == AuditClass::Counted {
            return (None, None);
        }
        let (tell, kept) = oneshot::channel();
        (Some(Self { synced: class == AuditClass::Strict, tell }), Some(kept))
    }
    fn keep(self) {
        // The caller may have left.
        let _ = self.tell.send(true);
    }
    fn break_promise(self) {
        let _ = self.tell.send(false);
    }
}

/// A flush under way.
struct Flush {
    /// Unsynced records that it covers; none when the journal went back meanwhile.
    covers: Option<usize>,
    /// Until the thread takes it, to wait for it without holding the writer.
    done: Option<Flushing>,
}

type Flushing = BoxFuture<'static, Result<(), SinkError>>;

/// What writes to the sink: the thread, or a caller while nobody else does.
pub(super) struct Writer {
    sink: Box<dyn Sink>,
    inbox: Arc<Inbox>,
    state: Arc<SinkState>,
    health: Arc<AtomicBool>,
    /// To be written, in order.
    pending: VecDeque<Queued>,
    /// Written and not synced, in order; waiters here want the sync.
    unsynced: VecDeque<Queued>,
    flush: Option<Flush>,
    /// When the oldest unsynced record must be synced.
    sync_at: Option<Instant>,
    /// Somebody waits for a sync that has not begun.
    sync_wanted: bool,
    /// The last flush failed: writing alone does not make the sink well.
    flush_ill: bool,
    /// Between two checkpoints, in time.
    seal_every: Duration,
    /// When the sink is asked for the next one; none when nothing is new.
    seal_at: Option<Instant>,
    /// Records since the newest one.
    unsealed: u64,
    /// A checkpoint was written that has to be synced.
    seal_unsynced: bool,
    backoff: Backoff,
    /// After a failure: when to try again.
    retry_at: Option<Instant>,
    /// This run's, and what its sink remembers as lost in it.
    epoch: u64,
    lost: u64,
    open: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

/// What the thread waits for, besides the bell.
#[derive(Debug, Default)]
struct Alarms {
    retry_at: Option<Instant>,
    sync_at: Option<Instant>,
    seal_at: Option<Instant>,
}

/// What the thread does next.
enum Step {
    Rung,
    Flushed(Result<(), SinkError>),
    SyncDue,
    SealDue,
    Retry,
}

/// Runs until the inbox is closed and everything in it is written, synced and vouched for.
pub(super) async fn run(writer: Arc<Mutex<Writer>>, inbox: Arc<Inbox>) {
    let health = Arc::clone(&writer.lock().await.health);
    let _alive = Alive { inbox: Arc::clone(&inbox), health };
    let mut flushing = None;
    loop {
        let alarms = {
            let mut writer = writer.lock().await;
            writer.fill();
            if writer.ended() {
                return writer.end().await;
            }
            while !writer.pending.is_empty() && writer.retry_at.is_none() {
                writer.write().await;
            }
            writer.start_flush_if_due();
            flushing = writer.flush.as_mut().and_then(|flush| flush.done.take()).or(flushing);
            writer.alarms()
        };
        let step = match inbox.waits() {
            // A caller that found the writer taken has left its record here.
            true => poll_flush(&mut flushing).now_or_never().map_or(Step::Rung, Step::Flushed),
            false => next(&inbox, &alarms, &mut flushing).await,
        };
        let mut writer = writer.lock().await;
        match step {
            Step::Rung => {}
            Step::Flushed(result) => {
                flushing = None;
                writer.flushed(result);
            }
            Step::SyncDue => writer.sync_at = Some(Instant::now()),
            Step::SealDue => writer.seal(false).await,
            Step::Retry => writer.retry_at = None,
        }
    }
}

async fn next(inbox: &Inbox, alarms: &Alarms, flushing: &mut Option<Flushing>) -> Step {
    let at = |at: Option<Instant>| at.unwrap_or_else(Instant::now);
    let Alarms { retry_at, sync_at, seal_at } = *alarms;
    // A finished flush is looked at first: promises wait for it.
    tokio::select! {
        biased;
        result = poll_flush(flushing), if flushing.is_some() => Step::Flushed(result),
        () = tokio::time::sleep_until(at(retry_at)), if retry_at.is_some() => Step::Retry,
        () = inbox.rung() => Step::Rung,
        () = tokio::time::sleep_until(at(sync_at)), if sync_at.is_some() => Step::SyncDue,
        () = tokio::time::sleep_until(at(seal_at)), if seal_at.is_some() => Step::SealDue,
    }
}

/// Says that the thread has ended, however it did: no promise can be kept any more.
struct Alive {
    inbox: Arc<Inbox>,
    health: Arc<AtomicBool>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut line = self.inbox.line();
        if !line.closed {
            line.closed = true;
            self.health.store(true, Ordering::Release);
            tracing::error!("the audit sink's thread is gone");
        }
    }
}

impl Writer {
    pub(super) fn new(
        sink: Box<dyn Sink>,
        inbox: Arc<Inbox>,
        state: Arc<SinkState>,
        health: Arc<AtomicBool>,
    ) -> Self {
        Self {
            sink,
            inbox,
            state,
            health,
            pending: VecDeque::new(),
            unsynced: VecDeque::new(),
            flush: None,
            sync_at: None,
            sync_wanted: false,
            flush_ill: false,
            seal_every: Duration::from_millis(bounds::AUDIT_CHECKPOINT_MS),
            seal_at: None,
            unsealed: 0,
            seal_unsynced: false,
            backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
            retry_at: None,
            epoch: 0,
            lost: 0,
            open: true,
        }
    }

    pub(super) fn checkpoint_every(self, interval: Duration) -> Self {
        Self { seal_every: interval, ..self }
    }

    /// Of this epoch, in which `lost` were lost that earlier runs could not tell of.
    pub(super) fn of_epoch(mut self, epoch: u64, lost: u64) -> Self {
        self.sink.lost(epoch, lost);
        Self { epoch, lost, ..self }
    }

    /// Nothing can follow, and everything is written and synced.
    fn ended(&self) -> bool {
        !self.open && self.pending.is_empty() && self.unsynced.is_empty()
    }

    /// Ends the epoch.
    async fn end(&mut self) {
        self.seal(true).await;
        if self.seal_unsynced
            && let Err(error) = self.sink.flush().await
        {
            tracing::error!(sink = self.state.name, %error, "the last audit checkpoint is not safe");
        }
    }

    fn alarms(&self) -> Alarms {
        let free = self.flush.is_none() && self.retry_at.is_none();
        Alarms {
            retry_at: self.retry_at,
            sync_at: self.sync_at.filter(|_| free),
            seal_at: self.seal_at.filter(|_| free),
        }
    }

    /// Writes what waits, for a caller whose record is among it, when the sink can do so at once.
    /// The thread is woken for what else there is to do.
    pub(super) fn write_for_caller(&mut self) {
        let armed = (self.sync_at.is_some(), self.sync_wanted);
        self.fill();
        if self.retry_at.is_some() {
            return;
        }
        let mut left = false;
        while !left && !self.pending.is_empty() {
            let batch = self.batch();
            match self.sink.write_at_once(&batch) {
                Some(result) => self.wrote(batch.len(), result),
                None => left = true,
            }
            left |= self.retry_at.is_some();
        }
        let much = self.unsynced.len() >= SYNC_RECORDS && self.flush.is_none();
        if left || much || armed != (self.sync_at.is_some(), self.sync_wanted) {
            self.inbox.ring();
        }
    }

    /// Asks the sink to vouch for what is synced.
    async fn seal(&mut self, end: bool) {
        self.seal_at = None;
        match self.sink.seal(end).await {
            Ok(wrote) => {
                self.seal_unsynced |= wrote;
                self.unsealed = self.unsynced.len() as u64;
            }
            Err(error) => {
                self.seal_at = Some(Instant::now() + self.seal_every);
                if error.rewound {
                    self.rewind();
                }
                self.ill(&error);
            }
        }
    }

    /// What was written may be gone: write all of it again, ahead of the rest.
    fn rewind(&mut self) {
        if let Some(flush) = &mut self.flush {
            flush.covers = None;
        }
        while let Some(mut queued) = self.unsynced.pop_back() {
            if let Some(waiter) = queued.waiter.take() {
                waiter.break_promise();
            }
            self.pending.push_front(queued);
        }
        self.sync_at = None;
        self.sync_wanted = false;
    }

    /// Takes what waits. The room bounds it.
    fn fill(&mut self) {
        let known = self.pending.len();
        let lost;
        (self.open, lost) = self.inbox.take(&mut self.pending);
        if lost != self.lost {
            self.lost = lost;
            self.sink.lost(self.epoch, lost);
        }
        // While the sink keeps failing nobody is left waiting for the next attempt.
        if self.backoff.tries() > HOPEFUL_TRIES {
            for queued in self.pending.iter_mut().skip(known) {
                if let Some(waiter) = queued.waiter.take() {
                    waiter.break_promise();
                }
            }
        }
        let oldest = self.pending.front().or(self.unsynced.front());
        self.state.oldest(oldest.map(|queued| queued.record.queued_at()));
    }

    fn batch(&self) -> Vec<Record> {
        self.pending.iter().take(BATCH_RECORDS).map(|queued| queued.record.clone()).collect()
    }

    async fn write(&mut self) {
        let batch = self.batch();
        let result = self.sink.write(&batch).await;
        self.wrote(batch.len(), result);
    }

    /// The first `count` of what is pending were handed to the sink.
    fn wrote(&mut self, count: usize, result: Result<(), SinkError>) {
        let failed = match &result {
            Ok(()) => Vec::new(),
            Err(error) => {
                // Seen before anybody is told: who asks next is refused at once.
                self.health.store(true, Ordering::Release);
                error.failed.clone()
            }
        };
        let mut again = Vec::new();
        for (index, mut queued) in self.pending.drain(..count).enumerate() {
            if failed.binary_search(&index).is_ok() {
                if let Some(waiter) = queued.waiter.take() {
                    waiter.break_promise();
                }
                again.push(queued);
            } else {
                if let Some(waiter) = queued.waiter.take_if(|waiter| !waiter.synced) {
                    waiter.keep();
                }
                self.sync_wanted |= queued.waiter.is_some();
                self.unsynced.push_back(queued);
            }
        }
        for queued in again.into_iter().rev() {
            self.pending.push_front(queued);
        }
        self.state.written.inc_by((count - failed.len()) as u64);
        self.state.failed.inc_by(failed.len() as u64);
        if !self.unsynced.is_empty() && self.sync_at.is_none() {
            self.sync_at = Some(Instant::now() + SYNC_EVERY);
        }
        match result {
            Ok(()) if self.flush_ill => {}
            Ok(()) => self.well(),
            Err(error) => {
                if error.rewound {
                    self.rewind();
                }
                self.ill(&error);
            }
        }
    }

    fn start_flush_if_due(&mut self) {
        let due = self.sync_at.is_some_and(|at| at <= Instant::now())
            || self.unsynced.len() >= SYNC_RECORDS
            || (!self.open && self.pending.is_empty())
            || self.sync_wanted
            || self.seal_unsynced
            || self.flush_ill;
        let something = !self.unsynced.is_empty() || self.seal_unsynced;
        if due && something && self.flush.is_none() && self.retry_at.is_none() {
            self.sync_wanted = false;
            self.seal_unsynced = false;
            let done = Some(self.sink.flush());
            self.flush = Some(Flush { covers: Some(self.unsynced.len()), done });
        }
    }

    fn flushed(&mut self, result: Result<(), SinkError>) {
        let covers = self.flush.take().and_then(|flush| flush.covers);
        let Some(covers) = covers else { return };
        match result {
            Ok(()) => {
                for queued in self.unsynced.drain(..covers) {
                    if let Some(waiter) = queued.waiter {
                        waiter.keep();
                    }
                }
                self.state.done(covers);
                self.sealing(covers as u64);
                let more = !self.unsynced.is_empty();
                self.sync_at = more.then(|| Instant::now() + SYNC_EVERY);
                self.flush_ill = false;
                self.well();
            }
            Err(error) => {
                self.health.store(true, Ordering::Release);
                self.rewind();
                self.flush_ill = true;
                self.ill(&error);
            }
        }
    }

    /// More records are synced: when a checkpoint has to cover them.
    fn sealing(&mut self, records: u64) {
        if records == 0 {
            return;
        }
        self.unsealed += records;
        let now = Instant::now();
        let many = self.unsealed >= bounds::AUDIT_CHECKPOINT_RECORDS;
        let due = if many { now } else { self.seal_at.unwrap_or(now + self.seal_every) };
        self.seal_at = Some(due);
    }

    fn well(&mut self) {
        if self.backoff.tries() > 0 {
            tracing::info!(sink = self.state.name, "audit sink is well again");
            self.backoff.reset();
        }
        self.health.store(false, Ordering::Release);
    }

    fn ill(&mut self, error: &SinkError) {
        self.health.store(true, Ordering::Release);
        let wait = self.backoff.next_wait();
        let (sink, tries) = (self.state.name, self.backoff.tries());
        // The first failure and then one in every ten: an outage must not flood the log.
        if tries == 1 || tries % 10 == 0 {
            tracing::error!(sink, tries, %error, "audit sink fails; its records wait");
        }
        self.retry_at = Some(Instant::now() + wait);
        // Promises that wait behind the failure cannot be kept in time either.
        for queued in &mut self.pending {
            if let Some(waiter) = queued.waiter.take() {
                waiter.break_promise();
            }
        }
    }
}

async fn poll_flush(flushing: &mut Option<Flushing>) -> Result<(), SinkError> {
    match flushing {
        Some(flushing) => flushing.fuse().await,
        None => std::future::pending().await,
    }
}
