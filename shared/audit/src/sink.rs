//! Where records go.

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::record::Record;

/// Takes records in order. A sink is owned by one task of the pipeline, which never has two
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

    /// Hands over records, in order. `Ok` means that they outlive this process.
    ///
    /// # Errors
    /// Names the records that have to be handed over again; the others are taken.
    async fn write(&mut self, batch: &[Record]) -> Result<(), SinkError>;

    /// Begins to make everything written before this call outlive the machine; the future says
    /// when it does. When it fails, everything since the last success is written again.
    fn flush(&mut self) -> BoxFuture<'static, Result<(), SinkError>>;
}

/// A sink did not take records.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// Positions in the batch that were not taken, ascending. Empty for a failed flush.
    pub failed: Vec<usize>,
    /// Why, for the log.
    pub message: String,
}

impl SinkError {
    /// Nothing of a batch of this length was taken.
    pub fn all(length: usize, message: impl Into<String>) -> Self {
        Self { failed: (0..length).collect(), message: message.into() }
    }
    /// A flush failed.
    pub fn flush(message: impl Into<String>) -> Self {
        Self { failed: Vec::new(), message: message.into() }
    }
}
