//! What was numbered and waits to be written, and the bell of the thread that writes.
//!
//! Records that somebody waits for are written by the caller itself when nobody else is at it,
//! which spares two changes of threads. Records that nobody waits for are left to the thread,
//! which gathers them for [`GATHER`].

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::writer::Queued;

/// How long records that nobody waits for are gathered.
const GATHER: Duration = Duration::from_millis(5);
/// So many of them are not gathered any longer.
const MANY: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    line: Mutex<Line>,
    /// There is something to do now.
    bell: Notify,
    /// There is something to do soon.
    hint: Notify,
}

/// Numbers are given out and records are queued under one lock, so that the sink sees records in
/// the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The last number.
    pub(super) sequence: u64,
    /// Records of class `counted` that found no room.
    pub(super) lost: u64,
    /// Takes no more.
    pub(super) closed: bool,
    waiting: VecDeque<Queued>,
}

impl Inbox {
    /// The line.
    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock()
    }

    /// Takes no more; the thread ends when everything is written.
    pub(super) fn close(&self) {
        self.line.lock().closed = true;
        self.bell.notify_one();
    }

    /// Moves what waits to the end of `pending`. False when nothing can follow; and how many were
    /// lost.
    pub(super) fn take(&self, pending: &mut VecDeque<Queued>) -> (bool, u64) {
        let mut line = self.line.lock();
        pending.append(&mut line.waiting);
        (!line.closed, line.lost)
    }

    /// Tells the thread of a loss.
    pub(super) fn lost(&self) {
        self.hint.notify_one();
    }

    /// True when something waits.
    pub(super) fn waits(&self) -> bool {
        !self.line.lock().waiting.is_empty()
    }

    /// Wakes the thread at once.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Returns when there is something to write or to arm.
    pub(super) async fn rung(&self) {
        tokio::select! {
            () = self.bell.notified() => {}
            () = self.hint.notified() => {
                let _ = tokio::time::timeout(GATHER, self.bell.notified()).await;
            }
        }
    }

    /// Tells the thread of a record that nobody waits for.
    pub(super) fn hint(&self, waiting: usize) {
        match waiting {
            1 => self.hint.notify_one(),
            MANY => self.bell.notify_one(),
            _ => {}
        }
    }
}

impl Line {
    /// Queues a record; gives how many wait now.
    pub(super) fn push(&mut self, queued: Queued) -> usize {
        self.waiting.push_back(queued);
        self.waiting.len()
    }
}
