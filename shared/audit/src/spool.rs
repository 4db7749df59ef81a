//! The spool: the audit log on the local disk, which keeps what a class promises and from which
//! streams to others are drained.
//!
//! - JSON lines in numbered segments of one folder; `docs/reference/audit-spool.md` is the format.
//!   A batch is one `write`; syncs run beside further writes.
//! - Each epoch is a Merkle log (RFC 6962). Checkpoints are signed by the node's key at a bounded
//!   interval, at the end of an epoch, and by the next run for one that crashed.
//! - The folder has a bound. Without a drain the oldest segment goes. With one, nothing goes
//!   before it is delivered: a full spool takes no more and the classes decide.
//! - Opening checks the format and repairs: what a crash tore off is set aside, and told.
//! - One process at a time: the folder is locked.

pub mod disk;
pub mod drain;
mod growth;
mod journal;
mod losses;
mod recover;
mod segment;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weir_model::bounds;
use weir_runtime::clock::{SharedClock, SystemClock};

use crate::checkpoint::Head;
use crate::line::Sealed;
use crate::note::{NoteError, Signer};
use crate::record::Record;
use crate::sink::{Sink, SinkError};
use disk::{Disk, RealDisk};
use journal::{Journal, Synced, Unkept};
use segment::failed;

pub(crate) use segment::{list as segments, whole_length};

/// Most that is kept of a torn end.
const TORN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// File of the last certificate, so that a restart has it at once.
const CERTIFICATE: &str = "certificate";

/// Where and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolSettings {
    /// Folder of the segments; made when it is not there.
    pub dir: PathBuf,
    /// Most bytes that the folder may take.
    #[serde(default = "spool_bytes_default")]
    pub spool_bytes: u64,
    /// Size at which a segment is followed by the next.
    #[serde(default = "segment_bytes_default")]
    pub segment_bytes: u64,
    /// File of the key that signs checkpoints; made when it is not there.
    pub key_file: PathBuf,
}

fn spool_bytes_default() -> u64 {
    bounds::AUDIT_SPOOL_BYTES
}
fn segment_bytes_default() -> u64 {
    bounds::AUDIT_SEGMENT_BYTES
}

impl SpoolSettings {
    /// The defaults in this folder, with the key beside it.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            key_file: dir.with_extension("key"),
            dir,
            spool_bytes: spool_bytes_default(),
            segment_bytes: segment_bytes_default(),
        }
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
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
    /// Written by a build that does it otherwise, or by somebody else.
    #[error("audit folder: {path} cannot be continued: {why}; move it away to begin anew")]
    Format {
        /// The segment.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The key, or a name that cannot be signed.
    #[error("audit checkpoints: {0}")]
    Note(#[from] NoteError),
    /// Nothing has been written yet.
    #[error("the audit log has not begun")]
    Closed,
}

/// A place in the log: behind `offset` bytes of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// Bytes of it.
    pub offset: u64,
}

/// What writer, drains and observers share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    limit: u64,
    /// Up to here everything is on the disk for good.
    synced: watch::Sender<Position>,
    newest: watch::Sender<Option<Arc<Sealed>>>,
    certificate: Mutex<Option<Arc<str>>>,
    /// Of all segments.
    bytes: AtomicU64,
    /// Written and not delivered by the drain; not counted without one.
    waiting_bytes: AtomicU64,
    waiting_records: Arc<AtomicU64>,
    full: Arc<AtomicBool>,
    /// Everything before is delivered; none without a drain.
    drained: Mutex<Option<Position>>,
    checkpoints: AtomicU64,
    /// The epoch that is written; 0 before the first record.
    epoch: AtomicU64,
    growth: Mutex<growth::Growth>,
}

impl Shared {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    fn wrote(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.drained.lock().is_some() {
            self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.weigh();
        }
    }
    fn appended(&self, records: u64) {
        if self.drained.lock().is_some() {
            self.waiting_records.fetch_add(records, Ordering::Relaxed);
        }
    }
    fn deleted(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
    fn sealed(&self, sealed: Sealed) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.newest.send_replace(Some(Arc::new(sealed)));
    }
    /// Segments before this one are delivered; none when nobody drains.
    fn drained_segment(&self) -> Option<u64> {
        self.drained.lock().map(|position| position.segment)
    }
    fn weigh(&self) {
        let waiting = self.waiting_bytes.load(Ordering::Relaxed);
        self.full.store(waiting >= self.limit, Ordering::Release);
    }
    /// Counts anew, by the segments that there are.
    fn counted(&self, segments: &VecDeque<(u64, u64)>) {
        self.bytes.store(segments.iter().map(|(_, length)| length).sum(), Ordering::Relaxed);
        if let Some(drained) = *self.drained.lock() {
            let waiting =
                segments.iter().map(|(number, length)| match number.cmp(&drained.segment) {
                    std::cmp::Ordering::Less => 0,
                    std::cmp::Ordering::Equal => length.saturating_sub(drained.offset),
                    std::cmp::Ordering::Greater => *length,
                });
            self.waiting_bytes.store(waiting.sum(), Ordering::Relaxed);
            self.weigh();
        }
    }
}

/// The sink. One thread of the pipeline drives it.
#[derive(Debug)]
pub struct Spool {
    /// Shared with syncs that are under way; hardly contended.
    journal: Arc<Mutex<Journal>>,
    shared: Arc<Shared>,
    clock: SharedClock,
    newest_epoch: Option<u64>,
    lost_before: u64,
}

/// Looks at a spool from outside: checkpoints, how full it is.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    /// Whoever looks does not keep the folder locked.
    journal: Weak<Mutex<Journal>>,
}

impl Spool {
    /// Opens the folder, repairs its end, closes an epoch that crashed, and goes on after it.
    ///
    /// # Errors
    /// When the folder cannot be made, read or written, is in use, or has another format; when the
    /// key cannot be had.
    pub fn open(settings: SpoolSettings) -> Result<Self, SpoolError> {
        Self::open_at(settings, SystemClock::shared())
    }

    /// With another clock, for tests.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_at(settings: SpoolSettings, clock: SharedClock) -> Result<Self, SpoolError> {
        Self::open_on(Arc::new(RealDisk), settings, clock)
    }

    /// On another disk, for tests.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        settings: SpoolSettings,
        clock: SharedClock,
    ) -> Result<Self, SpoolError> {
        let lock = lock(&settings)?;
        let signer = Signer::load_or_make(&settings.key_file)?;
        let recovered = recover::recover(&settings.dir)?;
        let certificate = std::fs::read_to_string(settings.dir.join(CERTIFICATE)).ok();
        let shared = Arc::new(Shared {
            dir: settings.dir.clone(),
            limit: settings.spool_bytes,
            synced: watch::Sender::default(),
            newest: watch::Sender::default(),
            certificate: Mutex::new(certificate.map(Arc::from)),
            bytes: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            waiting_records: Arc::default(),
            full: Arc::default(),
            drained: Mutex::default(),
            checkpoints: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            growth: Mutex::default(),
        });
        let newest_epoch = recovered.as_ref().map(|r| r.log.epoch);
        let previous: Option<Head> =
            recovered.as_ref().map(|r| r.ended.unwrap_or_else(|| r.log.state()));
        let parts = (settings, signer, lock, disk);
        let mut journal = Journal::new(parts, Arc::clone(&shared), previous)?;
        let lost_before = journal.lost_untold(newest_epoch);
        if let Some(recovered) = recovered {
            // The control plane may not have seen the last word of the run before.
            shared.newest.send_replace(recovered.newest.map(Arc::new));
            let place = (recovered.number, recovered.length);
            shared.synced.send_replace(Position { segment: place.0, offset: place.1 });
            if recovered.ended.is_none() && recovered.log.tree.size() > 0 {
                journal.end_epoch(&recovered.log, recovered.unlisted, place, clock.now_ms())?;
            }
        }
        let journal = Arc::new(Mutex::new(journal));
        Ok(Self { journal, shared, clock, newest_epoch, lost_before })
    }

    /// For whoever looks at it from outside.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared), journal: Arc::downgrade(&self.journal) }
    }
}

fn lock(settings: &SpoolSettings) -> Result<std::fs::File, SpoolError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let dir = &settings.dir;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(failed("make", dir))?;
    let path = dir.join("lock");
    let lock = segment::writable(&path, false).map_err(failed("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(SpoolError::InUse(dir.clone())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

impl Handle {
    /// The newest checkpoint, as it changes. The first may be that of the run before.
    pub fn checkpoints(&self) -> watch::Receiver<Option<Arc<Sealed>>> {
        self.shared.newest.subscribe()
    }

    /// What the control plane says about the key: goes with every checkpoint from now on.
    pub fn certify(&self, certificate: &str) {
        let mut held = self.shared.certificate.lock();
        if held.as_deref() == Some(certificate) {
            return;
        }
        *held = Some(Arc::from(certificate));
        let path = self.shared.dir.join(CERTIFICATE);
        if let Err(error) = std::fs::write(&path, certificate) {
            tracing::warn!(path = %path.display(), %error, "the certificate is asked for again");
        }
    }

    /// What the control plane said last.
    pub fn certificate(&self) -> Option<Arc<str>> {
        self.shared.certificate.lock().clone()
    }

    /// True while the spool takes no more.
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Acquire)
    }

    /// Does something to the journal, while there is one.
    fn with_journal(&self, act: impl FnOnce(&mut Journal)) {
        if let Some(journal) = self.journal.upgrade() {
            act(&mut journal.lock());
        }
    }

    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            bytes: self.shared.bytes(),
            limit: self.shared.limit,
            waiting_bytes: self.shared.waiting_bytes.load(Ordering::Relaxed),
            checkpoints: self.shared.checkpoints.load(Ordering::Relaxed),
        }
    }
}

/// What metrics say of a spool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauges {
    pub(crate) bytes: u64,
    pub(crate) limit: u64,
    pub(crate) waiting_bytes: u64,
    pub(crate) checkpoints: u64,
}

#[async_trait]
impl Sink for Spool {
    fn name(&self) -> &'static str {
        "file"
    }

    fn newest_epoch(&self) -> Option<u64> {
        self.newest_epoch
    }

    fn full(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.full)
    }

    fn lost_before(&self) -> u64 {
        self.lost_before
    }

    fn lost(&mut self, epoch: u64, lost: u64) {
        self.journal.lock().lost(epoch, lost);
    }

    /// Blocks: the thread is the spool's own.
    async fn write(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        self.journal.lock().append(batch).map_err(|error| unkept(batch, &error))
    }

    /// Into the page cache, which takes microseconds; not when a segment has to be begun.
    fn write_at_once(&mut self, batch: &[Record]) -> Option<Result<(), SinkError>> {
        // Whoever looks at the journal meanwhile may be syncing.
        let mut journal = self.journal.try_lock()?;
        journal
            .has_room(batch)
            .then(|| journal.append(batch).map_err(|error| unkept(batch, &error)))
    }

    fn flush(&mut self) -> BoxFuture<'static, Result<(), SinkError>> {
        // Decided now, not when the future is polled: it covers what is written by now.
        let target = self.journal.lock().sync_target();
        let journal = Arc::clone(&self.journal);
        async move {
            let Some((segment, state)) = target else { return Ok(()) };
            let synced = tokio::task::spawn_blocking(move || segment.sync()).await;
            let error = match synced {
                Ok(Ok(())) => return finish(&journal, state),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            journal.lock().rewind();
            Err(SinkError::flush(format!("cannot sync: {error}")))
        }
        .boxed()
    }

    async fn seal(&mut self, end: bool) -> Result<bool, SinkError> {
        let sealed = self.journal.lock().seal(end, self.clock.now_ms());
        sealed.map_err(|unkept| SinkError {
            rewound: unkept.rewound,
            ..SinkError::flush(unkept.error.to_string())
        })
    }
}

fn unkept(batch: &[Record], unkept: &Unkept) -> SinkError {
    let error = SinkError::all(batch.len(), unkept.error.to_string());
    SinkError { rewound: unkept.rewound, ..error }
}

fn finish(journal: &Mutex<Journal>, state: Synced) -> Result<(), SinkError> {
    match journal.lock().synced(state) {
        true => Ok(()),
        false => Err(SinkError::flush("what was synced has been taken back meanwhile")),
    }
}

#[cfg(test)]
mod tests;
