//! The sink on the local disk: JSON lines in numbered segments of one folder.
//!
//! - A record is a line; a batch is one `write`. Syncs run beside further writes.
//! - A segment that is full is synced and followed by the next; of old ones a set number is kept.
//! - Opening repairs: a last line that was torn by a crash goes into a file of its own beside its
//!   segment, and is told.
//! - A write that fails (disk full) leaves no half line behind. After a failed sync the segment is
//!   not trusted any more and writing goes on in the next.
//! - One process at a time: the folder is locked.

mod segment;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::record::Record;
use crate::sink::{Sink, SinkError};
use segment::Segments;

pub(crate) use segment::{list as segments, whole_length};

/// Where and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// Folder of the segments; made when it is not there.
    pub dir: PathBuf,
    /// Size at which a segment is followed by the next.
    #[serde(default = "segment_bytes_default")]
    pub segment_bytes: u64,
    /// Segments that are kept. The oldest is deleted when there are more.
    #[serde(default = "segments_default")]
    pub segments: usize,
}

fn segment_bytes_default() -> u64 {
    128 * 1024 * 1024
}
fn segments_default() -> usize {
    80
}

impl FileSettings {
    /// The defaults in this folder: up to 10 GiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: segment_bytes_default(),
            segments: segments_default(),
        }
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something on the way failed.
    #[error("audit folder: cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Somebody else writes there.
    #[error("audit folder {0} is in use by another process; give each process its own")]
    InUse(PathBuf),
}

/// The sink.
#[derive(Debug)]
pub struct FileSink {
    /// Taken by one blocking task at a time; never contended.
    segments: Arc<Mutex<Segments>>,
    newest_epoch: Option<u64>,
}

impl FileSink {
    /// Opens the folder, repairs its last segment, and goes on after it.
    ///
    /// # Errors
    /// When the folder cannot be made, read or written, or is in use.
    pub fn open(settings: FileSettings) -> Result<Self, FileError> {
        let segments = Segments::open(settings)?;
        let newest_epoch = segments.newest_epoch();
        Ok(Self { segments: Arc::new(Mutex::new(segments)), newest_epoch })
    }
}

#[async_trait]
impl Sink for FileSink {
    fn name(&self) -> &'static str {
        "file"
    }

    fn newest_epoch(&self) -> Option<u64> {
        self.newest_epoch
    }

    async fn write(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        let mut lines = Vec::with_capacity(batch.iter().map(|r| r.bytes().len() + 1).sum());
        for record in batch {
            lines.extend_from_slice(record.bytes());
            lines.push(b'\n');
        }
        let segments = Arc::clone(&self.segments);
        let written = tokio::task::spawn_blocking(move || segments.lock().append(&lines)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SinkError::all(batch.len(), error.to_string())),
            Err(error) => Err(SinkError::all(batch.len(), error.to_string())),
        }
    }

    fn flush(&mut self) -> BoxFuture<'static, Result<(), SinkError>> {
        // Decided now, not when the future is polled: it covers what is written by now.
        let (file, suspect) = self.segments.lock().sync_target();
        async move {
            let Some(file) = file else {
                return Err(SinkError::flush("a segment was lost before it was synced"));
            };
            let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
            let error = match synced {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            suspect.store(true, Ordering::Release);
            Err(SinkError::flush(format!("cannot sync: {error}")))
        }
        .boxed()
    }
}
