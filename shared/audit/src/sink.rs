//! Where records go.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::record::Record;

/// Takes records in order. The pipeline never has two
/// writes under way, retries what failed, and may write while an earlier flush is running.
#[async_trait]
pub trait Sink: Send {
    /// A label of metrics and logs: `file`, `kafka`.
    fn name(&self) -> &'static str;

    /// The newest epoch that this sink already holds records of for this node, when it can tell. An epoch is
    /// never used twice, even when the machine's clock was set back.
    fn newest_epoch(&self) -> Option<u64> {
        None
    }

    /// Records of class `counted` that found no room in earlier runs of which nothing else tells. This
    /// run counts on from there.
    fn lost_before(&self) -> u64 {
        0
    }

    /// So many found no room in this epoch: to be remembered, so that a count outlives the process
    /// although no record that would tell it can be written. Told at the start of a run, and soon
    /// after each change.
    fn lost(&mut self, epoch: u64, lost: u64) {
        let _ = (epoch, lost);
    }

    /// True while it wants no further records: who was promised one is refused.
    fn full(&self) -> Arc<AtomicBool> {
        Arc::default()
    }

    /// Hands over records, in order. `Ok` means that they outlive this process.
    ///
    /// # Errors
    /// Names the records that have to be handed over again; the others are taken.
    async fn write(&mut self, batch: &[Record]) -> Result<(), SinkError>;

    /// The same at once and by whoever has a record, for a sink that can: none when it would take
    /// longer than handing over to the pipeline's thread does.
    fn write_at_once(&mut self, batch: &[Record]) -> Option<Result<(), SinkError>> {
        let _ = batch;
        None
    }

    /// Begins to make everything written before this call outlive the machine; the future says
    /// when it does. When it fails, everything since the last success is written again.
    fn flush(&mut self) -> BoxFuture<'static, Result<(), SinkError>>;

    /// Vouches for what is synced, at a bounded interval and, with `end`, when nothing follows in
    /// this epoch. True when that wrote something, which wants a flush.
    ///
    /// # Errors
    /// When it could not be written. It is asked again.
    async fn seal(&mut self, end: bool) -> Result<bool, SinkError> {
        let _ = end;
        Ok(false)
    }
}

/// A sink did not take records.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// Positions in the batch that were not taken, ascending. Empty for a failed flush.
    pub failed: Vec<usize>,
    /// What was written since the last successful flush is gone as well: all of it is handed over
    /// again.
    pub rewound: bool,
    /// Why, for the log.
    pub message: String,
}

impl SinkError {
    /// Nothing of a batch of this length was taken.
    pub fn all(length: usize, message: impl Into<String>) -> Self {
        Self { failed: (0..length).collect(), rewound: false, message: message.into() }
    }
    /// A flush failed: nothing since the last one is safe.
    pub fn flush(message: impl Into<String>) -> Self {
        Self { failed: Vec::new(), rewound: true, message: message.into() }
    }
}
