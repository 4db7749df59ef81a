//! Proofs that a log only grew, for witnesses: from memory while this run is shown, from the
//! segments otherwise.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::segment::{self, failed};
use super::{Handle, SpoolError};
use crate::line::{self, Line, Sealed, SegmentHead};
use crate::merkle::span::Span;
use crate::merkle::{self, Hash, Tree};
use crate::read::{Read as Lines, is_record, read_line};

/// Checkpoints whose growth is kept apart; of more, older ones are joined.
const SPANS_MAX: usize = 64;

/// How this run's log grew since a witness last agreed, checkpoint by checkpoint. Takes some
/// hundred bytes however many records there are.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// What the witness has seen.
    seen: Tree,
    spans: VecDeque<Span>,
}

impl Growth {
    /// How many records are covered.
    pub(super) fn end(&self) -> u64 {
        self.spans.back().map_or(self.seen.size(), Span::end)
    }

    /// A checkpoint covers these records too.
    pub(super) fn grew(&mut self, leaves: impl Iterator<Item = Hash>) {
        let mut span = Span::behind(self.end());
        leaves.for_each(|leaf| span.push(leaf));
        self.spans.push_back(span);
        if self.spans.len() > SPANS_MAX
            && let (Some(mut first), Some(second)) =
                (self.spans.pop_front(), self.spans.pop_front())
        {
            first.append(&second);
            self.spans.push_front(first);
        }
    }

    /// The witness has seen so many.
    fn saw(&mut self, size: u64) {
        while let Some(span) = self.spans.pop_front_if(|span| span.end() <= size) {
            span.grow(&mut self.seen);
        }
    }

    fn proof(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        let mut spans = self.spans.iter();
        let mut before = self.seen.clone();
        while before.size() < old {
            spans.next()?.grow(&mut before);
        }
        let mut grown = Span::behind(before.size());
        while grown.end() < new {
            grown.append(spans.next()?);
        }
        (before.size() == old && grown.end() == new).then(|| grown.proof(&before))?
    }
}

impl Handle {
    /// How many records of this epoch the witness is known to have seen.
    pub(crate) fn seen(&self, epoch: u64) -> u64 {
        let run = self.shared.epoch.load(std::sync::atomic::Ordering::Relaxed);
        if run == epoch { self.shared.growth.lock().seen.size() } else { 0 }
    }

    /// The witness has seen this.
    pub(crate) fn saw(&self, sealed: &Sealed) {
        let head = sealed.checkpoint.head;
        if self.shared.epoch.load(std::sync::atomic::Ordering::Relaxed) == head.epoch {
            self.shared.growth.lock().saw(head.size);
        }
    }

    /// The proof that the state of an epoch continues an earlier one; none when the records that
    /// show it are gone. May read many of them: it is asked for on a thread that may block when
    /// memory does not know.
    pub(crate) async fn growth(&self, epoch: u64, old: u64, new: u64) -> Option<Vec<Hash>> {
        if old == 0 || old == new {
            return Some(Vec::new());
        }
        let run = self.shared.epoch.load(std::sync::atomic::Ordering::Relaxed);
        if run == epoch
            && let Some(proof) = self.shared.growth.lock().proof(old, new)
        {
            return Some(proof);
        }
        self.in_files(move |dir| in_files(dir, epoch, old, new)).await
    }

    /// The newest checkpoint of an epoch that the segments hold.
    pub(crate) async fn newest_of(&self, epoch: u64) -> Option<Sealed> {
        self.in_files(move |dir| newest_of(dir, epoch)).await
    }

    async fn in_files<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Path) -> Result<Option<T>, SpoolError> + Send + 'static,
    ) -> Option<T> {
        let dir = self.shared.dir.clone();
        match tokio::task::spawn_blocking(move || look(&dir)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the audit spool cannot be read for its witness");
                None
            }
            Err(_) => None,
        }
    }
}

/// The segments of an epoch, oldest first.
fn of_epoch(dir: &Path, epoch: u64) -> Result<Vec<(SegmentHead, PathBuf)>, SpoolError> {
    let mut found = Vec::new();
    for (_, path) in segment::list(dir).map_err(failed("list", dir))? {
        if let Some(head) = segment::head(&path)?.filter(|head| head.epoch == epoch) {
            found.push((head, path));
        }
    }
    Ok(found)
}

/// Gives every whole line of a segment until `each` has enough.
fn lines(path: &Path, mut each: impl FnMut(&[u8]) -> bool) -> Result<bool, SpoolError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let (mut reader, mut line) = (BufReader::with_capacity(1 << 18, file), Vec::new());
    loop {
        line.clear();
        match read_line(&mut reader, &mut line).map_err(failed("read", path))? {
            Lines::Line(_) => {
                if !each(&line) {
                    return Ok(false);
                }
            }
            Lines::TooLong(_) => {}
            Lines::Unfinished(_) | Lines::End => return Ok(true),
        }
    }
}

fn in_files(dir: &Path, epoch: u64, old: u64, new: u64) -> Result<Option<Vec<Hash>>, SpoolError> {
    let mut segments = of_epoch(dir, epoch)?;
    let begin = segments.iter().rposition(|(head, _)| head.tree.size() <= old);
    let Some(begin) = begin else { return Ok(None) };
    let mut before = segments[begin].0.tree.clone();
    let mut grown = Span::behind(old);
    for (_, path) in segments.drain(begin..) {
        let more = lines(&path, |line| {
            if is_record(line) {
                let leaf = merkle::leaf(line);
                if before.size() < old { before.push(leaf) } else { grown.push(leaf) }
            }
            grown.end() < new
        });
        if !more? {
            break;
        }
    }
    Ok((grown.end() == new).then(|| grown.proof(&before)).flatten())
}

fn newest_of(dir: &Path, epoch: u64) -> Result<Option<Sealed>, SpoolError> {
    for (_, path) in of_epoch(dir, epoch)?.into_iter().rev() {
        let mut newest = None;
        lines(&path, |line| {
            if !is_record(line)
                && let Ok(Line::Checkpoint(sealed)) = line::parse(line)
                && sealed.checkpoint.head.epoch == epoch
            {
                newest = Some(*sealed);
            }
            true
        })?;
        if newest.is_some() {
            return Ok(newest);
        }
    }
    Ok(None)
}
