//! A sink in memory, for tests: it can be made to fail, and to hold writes back.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::record::Record;
use crate::sink::{Sink, SinkError};

/// The sink.
#[derive(Debug)]
pub struct MemorySink {
    log: MemoryLog,
}

/// What a [`MemorySink`] holds. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    records: Mutex<Vec<Record>>,
    synced: Mutex<usize>,
    faults: watch::Sender<Faults>,
}

/// What is wrong with a [`MemorySink`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Writes fail.
    pub write: bool,
    /// Flushes fail.
    pub flush: bool,
    /// Writes wait until this is taken back.
    pub hold: bool,
    /// Flushes wait until this is taken back.
    pub hold_flush: bool,
}

impl Default for MemoryLog {
    fn default() -> Self {
        let faults = watch::Sender::new(Faults::default());
        let shared = Shared { records: Mutex::default(), synced: Mutex::default(), faults };
        Self { shared: Arc::new(shared) }
    }
}

impl MemoryLog {
    /// A sink that writes here.
    pub fn sink(&self) -> MemorySink {
        MemorySink { log: self.clone() }
    }
    /// Everything written, in order.
    pub fn records(&self) -> Vec<Record> {
        self.shared.records.lock().clone()
    }
    /// How many of [`Self::records`] a flush has covered.
    pub fn synced(&self) -> usize {
        *self.shared.synced.lock()
    }
    /// Breaks or mends it.
    pub fn set(&self, faults: Faults) {
        self.shared.faults.send_replace(faults);
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn write(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        let shared = &self.log.shared;
        let mut faults = shared.faults.subscribe();
        // The sender lives as long as the log, which we hold.
        let _ = faults.wait_for(|faults| !faults.hold).await;
        if faults.borrow().write {
            return Err(SinkError::all(batch.len(), "made to fail"));
        }
        shared.records.lock().extend(batch.iter().map(Record::detached));
        Ok(())
    }

    fn flush(&mut self) -> BoxFuture<'static, Result<(), SinkError>> {
        let log = self.log.clone();
        let written = log.shared.records.lock().len();
        async move {
            let mut faults = log.shared.faults.subscribe();
            let _ = faults.wait_for(|faults| !faults.hold_flush).await;
            if faults.borrow().flush {
                return Err(SinkError::flush("made to fail"));
            }
            *log.shared.synced.lock() = written;
            Ok(())
        }
        .boxed()
    }
}
