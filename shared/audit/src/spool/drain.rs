//! From the spool to a stream: in order, from where the stream's acknowledgement stood.
//!
//! A drain reads what is synced and hands it over in batches; what is not taken is tried again,
//! for as long as it takes. Its place is kept in a file beside the segments, a moment behind the
//! truth: after a crash a few records come twice, under the names they had. Batches are bounded
//! and read on a thread of their own, so that a backlog of hours takes turns with live traffic.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weir_runtime::backoff::Backoff;
use weir_runtime::clock::SharedClock;

use super::journal::Journal;
use super::segment::{self, failed};
use super::{Handle, Position, Shared, SpoolError};
use crate::line::{self, Line};
use crate::metrics::SinkState;
use crate::read::{Read as Lines, read_line};
use crate::record::{Record, Run};
use crate::sink::Sink;

/// Records and bytes of one batch.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 1024 * 1024;
/// How far the file of the place may be behind, in time.
const SAVE_EVERY: Duration = Duration::from_millis(200);
/// Waits between attempts at a stream that fails.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// Version of the file of the place.
const FORMAT: u32 = 1;

/// Where a drain stands, as kept on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    format: u32,
    #[serde(flatten)]
    at: Position,
    /// Records of the segment's epoch before this place.
    size: u64,
}

/// A drain that has its place and does not run yet.
pub struct Drain {
    shared: Arc<Shared>,
    journal: Handle,
    sink: Box<dyn Sink>,
    place: Place,
    file: PathBuf,
    clock: SharedClock,
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").field("sink", &self.sink.name()).finish_non_exhaustive()
    }
}

impl Handle {
    /// Drains into this sink from where it stood. From now on nothing is deleted that it has not
    /// taken. A spool has one drain.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn drain(&self, sink: Box<dyn Sink>, clock: SharedClock) -> Result<Drain, SpoolError> {
        let dir = &self.shared.dir;
        let file = dir.join(format!("drain-{}.json", sink.name()));
        let segments = segment::list(dir).map_err(failed("list", dir))?;
        let oldest = segments.first().map_or(0, |(number, _)| *number);
        let kept = std::fs::read(&file).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Place>(&bytes).ok());
        // A place in a segment that is gone, or from another format, says nothing: begin with the
        // oldest. What was delivered comes twice.
        let place = kept.filter(|place| place.format == FORMAT && place.at.segment >= oldest);
        let beginning = Position { segment: oldest, offset: 0 };
        let place = place.unwrap_or(Place { format: FORMAT, at: beginning, size: 0 });
        *self.shared.drained.lock() = Some(place.at);
        let waiting = count(&segments, &place)?;
        self.shared.waiting_records.store(waiting, Ordering::Relaxed);
        self.with_journal(|journal| journal.recount());
        let (shared, journal) = (Arc::clone(&self.shared), self.clone());
        Ok(Drain { shared, journal, sink, place, file, clock })
    }
}

/// Records behind a place, by the heads of the segments.
fn count(segments: &[(u64, PathBuf)], place: &Place) -> Result<u64, SpoolError> {
    let mut waiting = 0;
    for (index, (number, path)) in segments.iter().enumerate() {
        if *number < place.at.segment {
            continue;
        }
        let Some(head) = segment::head(path)? else { continue };
        let next = match segments.get(index + 1) {
            Some((_, next)) => segment::head(next)?.filter(|next| next.epoch == head.epoch),
            None => None,
        };
        let end = match next {
            Some(next) => next.tree.size(),
            None => last_size(path, head.tree.size())?,
        };
        let from = match *number == place.at.segment && place.at.offset > 0 {
            true => place.size.max(head.tree.size()),
            false => head.tree.size(),
        };
        waiting += end.saturating_sub(from);
    }
    Ok(waiting)
}

fn last_size(path: &Path, begin: u64) -> Result<u64, SpoolError> {
    let last = segment::last_line(path).map_err(failed("read", path))?.unwrap_or_default();
    Ok(match line::parse(&last) {
        Ok(Line::Record(record)) => record.id.sequence,
        Ok(Line::Checkpoint(sealed)) => sealed.checkpoint.head.size,
        _ => begin,
    })
}

/// A batch and the place behind it.
struct Batch {
    records: Vec<Record>,
    /// Records that are counted: not checkpoints.
    counted: u64,
    oldest_ms: Option<u64>,
    bytes: u64,
    behind: Place,
}

impl Drain {
    pub(crate) fn name(&self) -> &'static str {
        self.sink.name()
    }

    pub(crate) fn waiting(&self) -> Arc<std::sync::atomic::AtomicU64> {
        Arc::clone(&self.shared.waiting_records)
    }

    /// Runs until the spool has ended and everything is delivered.
    pub(crate) async fn run(mut self, state: Arc<SinkState>, mut ended: watch::Receiver<bool>) {
        let mut synced = self.shared.synced.subscribe();
        let mut reader = Reader::default();
        let mut saved = (Instant::now(), self.place);
        loop {
            // Read before the position: what was written before the end is seen.
            let last = *ended.borrow_and_update();
            let end = *synced.borrow_and_update();
            let batch = self.next(&mut reader, end).await;
            if let Some(batch) = batch {
                self.deliver(&batch, &state).await;
                if saved.0.elapsed() >= SAVE_EVERY {
                    saved = self.save();
                }
                continue;
            }
            state.oldest(None);
            if saved.1 != self.place {
                saved = self.save();
            }
            if last {
                return;
            }
            tokio::select! {
                moved = synced.changed() => if moved.is_err() { return },
                gone = ended.changed() => if gone.is_err() { return },
            }
        }
    }

    /// The next batch up to `end`; none when there is none.
    async fn next(&mut self, reader: &mut Reader, end: Position) -> Option<Batch> {
        let mut moved = std::mem::take(reader);
        let (dir, place) = (self.shared.dir.clone(), self.place);
        let read = tokio::task::spawn_blocking(move || {
            let batch = moved.read(&dir, place, end);
            (moved, batch)
        });
        let batch = match read.await {
            Ok((back, batch)) => {
                *reader = back;
                batch
            }
            Err(error) => Err(SpoolError::Io {
                what: "read",
                path: self.shared.dir.clone(),
                source: std::io::Error::other(error),
            }),
        };
        match batch {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, "the audit spool cannot be read; trying again");
                *reader = Reader::default();
                tokio::time::sleep(RETRY_CAP).await;
                None
            }
        }
    }

    /// Hands a batch over until all of it is taken. A checkpoint is handed over when the records
    /// before it are taken: who finds it in the stream finds them there too, in whatever partition.
    async fn deliver(&mut self, batch: &Batch, state: &SinkState) {
        let now_ms = self.clock.now_ms();
        let age = batch.oldest_ms.map(|at| Duration::from_millis(now_ms.saturating_sub(at)));
        state.oldest(age.and_then(|age| Instant::now().checked_sub(age)));
        for part in batch.records.chunk_by(|_, next| !next.is_checkpoint()) {
            self.hand_over(part.to_vec(), state).await;
        }
        self.place = batch.behind;
        self.taken(batch);
    }

    async fn hand_over(&mut self, mut left: Vec<Record>, state: &SinkState) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while !left.is_empty() {
            let Err(error) = self.sink.write(&left).await else {
                state.written.inc_by(left.len() as u64);
                break;
            };
            state.written.inc_by((left.len() - error.failed.len()) as u64);
            state.failed.inc_by(error.failed.len() as u64);
            left = error.failed.iter().filter_map(|at| left.get(*at).cloned()).collect();
            let (sink, tries) = (self.sink.name(), backoff.tries());
            if tries == 0 {
                // An outage may outlast this process: what was taken before it does not come twice.
                self.save();
            }
            if tries % 10 == 0 {
                tracing::error!(sink, tries, %error, "audit sink fails; the spool keeps its records");
            }
            backoff.sleep().await;
        }
        if backoff.tries() > 0 {
            tracing::info!(sink = self.sink.name(), "audit sink is well again");
        }
    }

    fn taken(&self, batch: &Batch) {
        let shared = &self.shared;
        let before = shared.drained.lock().replace(batch.behind.at);
        let minus = |counter: &std::sync::atomic::AtomicU64, by: u64| {
            let _ = counter
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(by)));
        };
        minus(&shared.waiting_records, batch.counted);
        minus(&shared.waiting_bytes, batch.bytes);
        shared.weigh();
        if before.is_none_or(|before| before.segment < batch.behind.at.segment) {
            self.journal.with_journal(Journal::prune);
        }
    }

    /// Not synced: a place that is lost or old costs duplicates only.
    fn save(&self) -> (Instant, Place) {
        let beside = self.file.with_extension("new");
        let saved = serde_json::to_vec(&self.place)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::write(&beside, bytes))
            .and_then(|()| std::fs::rename(&beside, &self.file));
        if let Err(error) = saved {
            tracing::warn!(path = %self.file.display(), %error, "the drain's place is not kept");
        }
        (Instant::now(), self.place)
    }
}

/// Reads segments one after the other.
#[derive(Default)]
struct Reader {
    open: Option<(u64, BufReader<File>)>,
    run: Option<Arc<Run>>,
}

impl Reader {
    /// At most one batch from `from` up to `end`.
    fn read(
        &mut self,
        dir: &Path,
        from: Place,
        end: Position,
    ) -> Result<Option<Batch>, SpoolError> {
        let (records, behind) = (Vec::new(), from);
        let mut batch = Batch { records, counted: 0, oldest_ms: None, bytes: 0, behind };
        while batch.behind.at < end && batch.records.len() < BATCH_RECORDS {
            if batch.bytes >= BATCH_BYTES as u64 {
                break;
            }
            let at = batch.behind.at;
            let path = segment::path(dir, at.segment);
            if self.open.as_ref().is_none_or(|(number, _)| *number != at.segment) {
                let open = File::open(&path).and_then(|mut file| {
                    file.seek(SeekFrom::Start(at.offset))?;
                    Ok(BufReader::with_capacity(1 << 18, file))
                });
                self.open = match open {
                    Ok(reader) => Some((at.segment, reader)),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
                    Err(error) => return Err(failed("open", &path)(error)),
                };
            }
            let more = match &mut self.open {
                Some((_, reader)) => batch.take(reader, &mut self.run, end),
                None => Ok(false),
            };
            if !more.map_err(failed("read", &path))? {
                // The end of a segment, or one that never came to be.
                if at.segment >= end.segment {
                    break;
                }
                self.open = None;
                batch.behind = next_segment(dir, batch.behind, end)?;
            }
        }
        let moved = batch.behind != from;
        Ok(moved.then_some(batch))
    }
}

fn next_segment(dir: &Path, place: Place, end: Position) -> Result<Place, SpoolError> {
    let segments = segment::list(dir).map_err(failed("list", dir))?;
    let next = segments.iter().map(|(number, _)| *number).find(|n| *n > place.at.segment);
    let next = next.map_or(end.segment, |next| next.min(end.segment));
    Ok(Place { at: Position { segment: next, offset: 0 }, ..place })
}

impl Batch {
    /// Takes one line; false at the end of the segment or of what is synced.
    fn take(
        &mut self,
        reader: &mut BufReader<File>,
        run: &mut Option<Arc<Run>>,
        end: Position,
    ) -> std::io::Result<bool> {
        let at = &mut self.behind.at;
        if at.segment == end.segment && at.offset >= end.offset {
            return Ok(false);
        }
        let mut line = Vec::new();
        let read = read_line(reader, &mut line)?;
        if !matches!(read, Lines::Line(_) | Lines::TooLong(_)) {
            return Ok(false);
        }
        at.offset += read.bytes();
        self.bytes += read.bytes();
        match line::parse(&line) {
            Ok(Line::Record(head)) => {
                self.behind.size = head.id.sequence;
                self.oldest_ms = self.oldest_ms.or(Some(head.time_ms));
                self.counted += 1;
                self.records.push(Record::from_disk(head, line.into(), run));
            }
            Ok(Line::Checkpoint(sealed)) => {
                self.records.push(Record::of_checkpoint(&sealed, line.into(), run));
            }
            Ok(Line::Segment(head)) => self.behind.size = head.tree.size(),
            Err(error) => {
                let place = *at;
                tracing::error!(?place, %error, "a line of the audit spool is damaged and stays");
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use parking_lot::Mutex;
    use weir_model::audit::Facts;
    use weir_model::resource::AuditClass;
    use weir_runtime::clock::SystemClock;
    use weir_runtime::metrics::Metrics;

    use super::*;
    use crate::sink::SinkError;
    use crate::spool::{Spool, SpoolSettings};
    use crate::{Builder, Origin};

    /// What was handed over and taken, write by write: whether each was a checkpoint. Every other
    /// write leaves its first record behind.
    #[derive(Default, Clone)]
    struct Stream(Arc<Mutex<Vec<Write>>>, Arc<Mutex<u64>>);
    type Write = Vec<(String, bool)>;

    #[async_trait]
    impl Sink for Stream {
        fn name(&self) -> &'static str {
            "stream"
        }
        async fn write(&mut self, batch: &[Record]) -> Result<(), SinkError> {
            let mut turn = self.1.lock();
            *turn += 1;
            let left = usize::from(turn.is_multiple_of(2));
            let took = batch.iter().skip(left).map(|r| (r.uid(), r.is_checkpoint())).collect();
            self.0.lock().push(took);
            match left {
                0 => Ok(()),
                _ => Err(SinkError { failed: vec![0], rewound: false, message: String::new() }),
            }
        }
        fn flush(&mut self) -> BoxFuture<'static, Result<(), SinkError>> {
            std::future::ready(Ok(())).boxed()
        }
    }

    #[tokio::test]
    async fn a_checkpoint_is_handed_over_when_everything_before_it_is_taken() {
        let (dir, stream) = (tempfile::tempdir().unwrap(), Stream::default());
        let spool = Spool::open(SpoolSettings::new(dir.path().join("audit"))).unwrap();
        let drain = spool.handle().drain(Box::new(stream.clone()), SystemClock::shared()).unwrap();
        let origin = Origin { node: "n".into(), region: "eu".into() };
        let pipeline = Builder::spooled(origin, spool, Metrics::new())
            .checkpoint_every(Duration::from_millis(1))
            .drain(drain)
            .start();
        for _ in 0..60 {
            let facts = Facts { class: AuditClass::Strict, ..Facts::default() };
            pipeline.reserve(AuditClass::Strict).unwrap().finish(facts).await.unwrap();
        }
        assert_eq!(pipeline.close(Duration::from_secs(20)).await, []);
        let (writes, mut taken) = (stream.0.lock().clone(), 0);
        for write in &writes {
            for (at, (uid, checkpoint)) in write.iter().enumerate() {
                assert!(!checkpoint || at == 0, "{uid} beside what it may sign for: {write:?}");
                let size = uid.rsplit(['/', '-']).next().unwrap().parse::<u64>().unwrap();
                assert!(!checkpoint || size <= taken, "{uid} before {taken} were taken");
                taken += u64::from(!checkpoint);
            }
        }
        let checkpoints = writes.iter().flatten().filter(|(_, checkpoint)| *checkpoint).count();
        assert!(taken == 60 && checkpoints > 0, "{taken} records, {checkpoints} checkpoints");
    }
}
