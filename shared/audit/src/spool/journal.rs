//! What one thread appends: records and checkpoints to segments, leaves to the tree.
//!
//! Two states are kept apart: what was written, and what was synced. Checkpoints speak of what was
//! synced and drains read it, so nothing leaves the machine that its disk could still lose. When a
//! write cannot be undone or a sync fails, the journal goes back to what was synced and whoever
//! wrote since writes again.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::sync::Arc;

use super::disk::Disk;
use super::losses::Losses;
use super::segment::{self, Segment, Unwritten, failed};
use super::{Position, Shared, SpoolError, SpoolSettings};
use crate::checkpoint::{Checkpoint, Head};
use crate::leaves::Leaves;
use crate::line::{Sealed, SegmentHead};
use crate::merkle::{self, Hash};
use crate::note::Signer;
use crate::record::{Record, Run};

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    settings: SpoolSettings,
    signer: Signer,
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    /// Held for its lock.
    _lock: File,
    /// Number and length of every segment, oldest first.
    segments: VecDeque<(u64, u64)>,
    /// The segment that is written; none before the first record and after a reset.
    current: Option<Segment>,
    /// The state of the epoch that is written.
    log: Option<Log>,
    /// The leaves that no synced checkpoint lists.
    unlisted: Unlisted,
    /// Where the next epoch begins.
    previous: Option<Head>,
    /// What this run lost, or the one before it did.
    losses: Losses,
    synced: Option<Synced>,
    /// Grows when the journal goes back: syncs that began before mean nothing any more.
    generation: u64,
    buffer: Vec<u8>,
}

/// The epoch that is written.
#[derive(Debug, Clone)]
struct Log {
    run: Arc<Run>,
    head: SegmentHead,
    /// Records that the newest checkpoint covers, and whether it ended the epoch.
    sealed: u64,
    ended: bool,
}

/// A state that is on the disk for good.
#[derive(Debug, Clone)]
pub(super) struct Synced {
    position: Position,
    log: Log,
    generation: u64,
}

/// A write did not work.
#[derive(Debug)]
pub(super) struct Unkept {
    pub(super) error: SpoolError,
    /// Everything since the last sync is gone too.
    pub(super) rewound: bool,
}

impl From<SpoolError> for Unkept {
    fn from(error: SpoolError) -> Self {
        Self { error, rewound: false }
    }
}

impl Journal {
    pub(super) fn new(
        (settings, signer, lock, disk): (SpoolSettings, Signer, File, Arc<dyn Disk>),
        shared: Arc<Shared>,
        previous: Option<Head>,
    ) -> Result<Self, SpoolError> {
        let dir = &settings.dir;
        let losses = Losses::open(dir);
        let mut segments = VecDeque::new();
        for (number, path) in segment::list(dir).map_err(failed("list", dir))? {
            let length = path.metadata().map_err(failed("look at", &path))?.len();
            segments.push_back((number, length));
        }
        let journal = Self {
            settings,
            signer,
            disk,
            shared,
            _lock: lock,
            segments,
            current: None,
            log: None,
            unlisted: Unlisted::default(),
            previous,
            losses,
            synced: None,
            generation: 0,
            buffer: Vec::new(),
        };
        journal.recount();
        Ok(journal)
    }

    /// Appends records in the order of their numbers; on failure none of them stays.
    pub(super) fn append(&mut self, batch: &[Record]) -> Result<(), Unkept> {
        let Some(first) = batch.first() else { return Ok(()) };
        if self.log.is_none() {
            self.log = Some(Log::begin(first.run(), self.previous));
            let epoch = first.run().epoch;
            self.shared.epoch.store(epoch, std::sync::atomic::Ordering::Relaxed);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for record in batch {
            buffer.extend_from_slice(record.bytes());
            buffer.push(b'\n');
        }
        let written = self.write(&buffer);
        self.buffer = buffer;
        written?;
        if let Some(log) = &mut self.log {
            for record in batch {
                let leaf = merkle::leaf(record.bytes());
                log.head.tree.push(leaf);
                self.unlisted.leaves.push_back(leaf);
            }
        }
        self.shared.appended(batch.len() as u64);
        Ok(())
    }

    /// So many records found no room in this epoch.
    pub(super) fn lost(&mut self, epoch: u64, lost: u64) {
        self.losses.put(epoch, lost);
    }

    /// What was lost in a run that left no record behind: nothing else tells of it.
    pub(super) fn lost_untold(&self, told: Option<u64>) -> u64 {
        self.losses.besides(told)
    }

    /// True when these records fit into the segment that is written.
    pub(super) fn has_room(&self, batch: &[Record]) -> bool {
        let bytes: usize = batch.iter().map(|record| record.bytes().len() + 1).sum();
        let most = self.settings.segment_bytes;
        self.current.as_ref().is_some_and(|segment| segment.length + bytes as u64 <= most)
    }

    /// Writes lines to the current segment, or to the next when they do not fit.
    fn write(&mut self, lines: &[u8]) -> Result<(), Unkept> {
        let bytes = lines.len() as u64;
        let full = |s: &Segment| s.length + bytes > self.settings.segment_bytes;
        if self.current.as_ref().is_some_and(full) {
            self.finish_segment()?;
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.next_segment()?,
        };
        let written = current.append(&self.settings.dir, lines);
        let kept = written.as_ref().err().is_none_or(|unwritten| unwritten.kept);
        self.current = Some(current);
        if let Err(Unwritten { error, .. }) = written {
            if !kept {
                self.rewind();
            }
            return Err(Unkept { error, rewound: !kept });
        }
        if let Some(last) = self.segments.back_mut() {
            last.1 += bytes;
        }
        self.shared.wrote(bytes);
        Ok(())
    }

    fn next_segment(&mut self) -> Result<Segment, SpoolError> {
        let Some(log) = &self.log else { return Err(SpoolError::Closed) };
        let dir = &self.settings.dir;
        let newest = segment::list(dir).map_err(failed("list", dir))?.last().map_or(0, |(n, _)| *n);
        let segment = Segment::create((dir, &self.disk), newest + 1, &log.head)?;
        self.segments.push_back((segment.number, segment.length));
        self.shared.wrote(segment.length);
        self.prune();
        Ok(segment)
    }

    /// A full segment is on the disk for good before the next begins.
    fn finish_segment(&mut self) -> Result<(), Unkept> {
        let Some(current) = &self.current else { return Ok(()) };
        let path = segment::path(&self.settings.dir, current.number);
        if let Err(source) = current.sync() {
            self.rewind();
            return Err(Unkept { error: failed("sync", &path)(source), rewound: true });
        }
        if let Some((_, state)) = self.sync_target() {
            self.synced(state);
        }
        self.current = None;
        Ok(())
    }

    /// The file that a sync has to cover, and the state that is safe after it.
    pub(super) fn sync_target(&self) -> Option<(Segment, Synced)> {
        let (current, log) = (self.current.as_ref()?, self.log.as_ref()?);
        let position = Position { segment: current.number, offset: current.length };
        let state = Synced { position, log: log.clone(), generation: self.generation };
        Some((current.clone(), state))
    }

    /// A sync that covers this state has succeeded. False when the journal went back meanwhile.
    pub(super) fn synced(&mut self, state: Synced) -> bool {
        if state.generation != self.generation {
            return false;
        }
        self.shared.synced.send_replace(state.position);
        self.unlisted.let_go(state.log.sealed);
        self.synced = Some(state);
        true
    }

    /// Goes back to what was synced; the next write begins a new segment.
    pub(super) fn rewind(&mut self) {
        self.generation += 1;
        let position = self.synced.as_ref().map(|synced| synced.position);
        if let Some(current) = self.current.take() {
            let keep = position.filter(|p| p.segment == current.number).map_or(0, |p| p.offset);
            let cut = match keep {
                0 => self.disk.remove(&segment::path(&self.settings.dir, current.number)),
                keep => self.disk.cut(&current.file, keep),
            };
            match cut {
                Ok(()) if keep == 0 => drop(self.segments.pop_back()),
                Ok(()) => {
                    if let Some(last) = self.segments.back_mut() {
                        last.1 = keep;
                    }
                }
                Err(error) => tracing::error!(
                    segment = current.number,
                    %error,
                    "an audit segment ends in records that the next one has as well"
                ),
            }
        }
        match (&self.synced, &mut self.log) {
            (Some(synced), log) => *log = Some(synced.log.clone()),
            (None, Some(log)) => *log = Log::begin(&log.run, self.previous),
            (None, None) => {}
        }
        self.unlisted.cut(self.log.as_ref().map_or(0, |log| log.head.tree.size()));
        self.recount();
    }

    /// Signs what is synced, unless the newest checkpoint says the same. True when a line was
    /// written, which has to be synced in turn.
    pub(super) fn seal(&mut self, end: bool, time_ms: u64) -> Result<bool, Unkept> {
        let Some(Synced { log: safe, .. }) = &self.synced else { return Ok(false) };
        let Some(log) = &self.log else { return Ok(false) };
        let size = safe.head.tree.size();
        let end = end && size == log.head.tree.size();
        if log.ended || (size == log.sealed && !end) {
            return Ok(false);
        }
        let leaves = self.unlisted.leaves(log.sealed + 1, size);
        let sealed = self.sign(&safe.head, leaves, (end, time_ms))?;
        self.write(format!("{}\n", sealed.render()).as_bytes())?;
        if let Some(log) = &mut self.log {
            log.sealed = size;
            log.ended = end;
        }
        self.grew(size);
        self.shared.sealed(sealed);
        Ok(true)
    }

    /// Remembers for witnesses how the log grew up to a checkpoint.
    fn grew(&self, size: u64) {
        let mut growth = self.shared.growth.lock();
        let known = growth.end();
        if size > known {
            growth.grew(self.unlisted.range(known + 1, size));
        }
    }

    fn sign(
        &self,
        log: &SegmentHead,
        leaves: Option<Leaves>,
        (end, time_ms): (bool, u64),
    ) -> Result<Sealed, SpoolError> {
        let listed = leaves.as_ref().map(Leaves::listed);
        let lost = self.losses.of(log.epoch);
        let checkpoint = Checkpoint { leaves: listed, lost, ..log.checkpoint(end) };
        Ok(Sealed {
            note: checkpoint.sign(&self.signer)?,
            checkpoint,
            peaks: Some(log.tree.peaks().to_vec()),
            leaves,
            key: self.signer.public(),
            certificate: self.shared.certificate.lock().clone(),
            region: log.region.clone(),
            time_ms,
        })
    }

    /// Ends the last epoch of a run that could not do so itself.
    pub(super) fn end_epoch(
        &mut self,
        log: &SegmentHead,
        leaves: Option<Leaves>,
        (number, length): (u64, u64),
        time_ms: u64,
    ) -> Result<(), SpoolError> {
        let path = segment::path(&self.settings.dir, number);
        let file = segment::writable(&path, false).map_err(failed("open", &path))?;
        let mut segment =
            Segment { number, file: Arc::new(file), length, disk: Arc::clone(&self.disk) };
        let sealed = self.sign(log, leaves, (true, time_ms))?;
        let line = format!("{}\n", sealed.render());
        segment.append(&self.settings.dir, line.as_bytes()).map_err(|unwritten| unwritten.error)?;
        segment.sync().map_err(failed("sync", &path))?;
        if let Some(last) = self.segments.back_mut() {
            last.1 = segment.length;
        }
        self.recount();
        self.shared.synced.send_replace(Position { segment: number, offset: segment.length });
        self.shared.sealed(sealed);
        Ok(())
    }

    /// A disk that went away.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        if let Some(current) = &mut self.current {
            current.file = Arc::new(file);
        }
    }

    /// Deletes the oldest segments beyond the bound, never one that somebody waits for.
    pub(super) fn prune(&mut self) {
        let free = self.shared.drained_segment();
        while self.shared.bytes() > self.settings.spool_bytes && self.segments.len() > 1 {
            let Some((number, length)) = self.segments.front().copied() else { return };
            if free.is_some_and(|free| number >= free) {
                return;
            }
            let path = segment::path(&self.settings.dir, number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "audit segment stays");
                return;
            }
            tracing::info!(path = %path.display(), "oldest audit segment deleted");
            self.segments.pop_front();
            self.shared.deleted(length);
        }
    }

    /// Counts bytes anew: a drain has come, or the journal went back.
    pub(super) fn recount(&self) {
        self.shared.counted(&self.segments);
    }
}

/// The leaves of the newest records of the epoch, until a checkpoint that lists them is synced.
#[derive(Debug, Default)]
struct Unlisted {
    /// Records before the first of them.
    before: u64,
    leaves: VecDeque<Hash>,
}

impl Unlisted {
    /// Those of the records `first..=last`, as a list.
    fn leaves(&self, first: u64, last: u64) -> Option<Leaves> {
        Leaves::of(first.max(self.before + 1), self.range(first, last))
    }

    /// Those of the records `first..=last` that are here.
    fn range(&self, first: u64, last: u64) -> impl ExactSizeIterator<Item = Hash> + '_ {
        let at = |sequence: u64| {
            let at = sequence.saturating_sub(self.before + 1);
            usize::try_from(at).unwrap_or(usize::MAX).min(self.leaves.len())
        };
        let (begin, end) = (at(first), at(last + 1));
        self.leaves.range(begin.min(end)..end).copied()
    }

    /// The first `size` records are listed for good.
    fn let_go(&mut self, size: u64) {
        let gone = usize::try_from(size.saturating_sub(self.before)).unwrap_or(usize::MAX);
        let gone = gone.min(self.leaves.len());
        self.leaves.drain(..gone);
        self.before += gone as u64;
    }

    /// Only the first `size` records are left.
    fn cut(&mut self, size: u64) {
        let left = usize::try_from(size.saturating_sub(self.before)).unwrap_or(usize::MAX);
        self.leaves.truncate(left);
    }
}

impl Log {
    fn begin(run: &Arc<Run>, previous: Option<Head>) -> Self {
        let head = SegmentHead {
            node: run.node.clone(),
            region: run.region.clone(),
            epoch: run.epoch,
            tree: merkle::Tree::default(),
            previous,
        };
        Self { run: Arc::clone(run), head, sealed: 0, ended: false }
    }
}

impl SegmentHead {
    /// The state of the log.
    pub(super) fn state(&self) -> Head {
        Head { epoch: self.epoch, size: self.tree.size(), root: self.tree.root() }
    }

    fn checkpoint(&self, end: bool) -> Checkpoint {
        let (node, head) = (self.node.clone(), self.state());
        Checkpoint { node, head, previous: self.previous, leaves: None, lost: 0, end }
    }
}
