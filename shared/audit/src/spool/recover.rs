//! Opening a folder again: checks the format, cuts off what a crash tore, and finds out where the
//! last epoch ended.

use std::fs;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;

use super::SpoolError;
use super::segment::{self, failed};
use crate::checkpoint::Head;
use crate::leaves::Leaves;
use crate::line::{self, Line, Sealed, SegmentHead};
use crate::merkle;
use crate::read::{Read as Lines, read_line};

/// What is known of the last epoch.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The newest segment's number.
    pub(super) number: u64,
    pub(super) length: u64,
    /// Of the newest segment; its tree is that of the whole epoch.
    pub(super) log: SegmentHead,
    /// The last checkpoint says that the epoch has ended, or the log contradicts a checkpoint and
    /// must not be touched. The state that the next epoch continues.
    pub(super) ended: Option<Head>,
    /// The last checkpoint that the log agrees with.
    pub(super) newest: Option<Sealed>,
    /// The leaves of this segment that no checkpoint lists.
    pub(super) unlisted: Option<Leaves>,
}

/// Looks at the newest segment of a folder; none when there is nothing in it.
pub(super) fn recover(dir: &Path) -> Result<Option<Recovered>, SpoolError> {
    let segments = segment::list(dir).map_err(failed("list", dir))?;
    for (number, path) in segments.iter().rev() {
        // A crash may have come between a segment's name and its head.
        if let Some(head) = segment::head(path)? {
            return scan(*number, path, head).map(Some);
        }
        fs::remove_file(path).map_err(failed("remove", path))?;
    }
    Ok(None)
}

/// Reads a segment to its end. The log is whole up to the first line that does not continue it.
/// That is where a crash tore it, unless a checkpoint follows: what a checkpoint covers was synced.
fn scan(number: u64, path: &Path, head: SegmentHead) -> Result<Recovered, SpoolError> {
    let io = |what| failed(what, path);
    let file = segment::writable(path, false).map_err(io("open"))?;
    let length = file.metadata().map_err(io("open"))?.len();
    (&file).seek(SeekFrom::Start(0)).map_err(io("read"))?;
    let mut reader = BufReader::with_capacity(1 << 18, &file);
    let (mut log, mut line) = (head, Vec::new());
    let (mut end, mut whole, mut sealed, mut ended) = (0, true, None, None);
    let (mut newest, mut unlisted) = (None, Vec::new());
    let mut first = true;
    loop {
        line.clear();
        let read = read_line(&mut reader, &mut line).map_err(io("read"))?;
        let Lines::Line(bytes) = read else {
            whole &= matches!(read, Lines::End);
            if matches!(read, Lines::TooLong(_)) {
                continue;
            }
            break;
        };
        let known = line::parse(&line);
        match known {
            Ok(Line::Segment(_)) if first => {}
            Ok(Line::Record(record)) if whole && continues(&log, &record) => {
                let leaf = merkle::leaf(&line);
                log.tree.push(leaf);
                unlisted.push(leaf);
            }
            Ok(Line::Checkpoint(seal)) if seal.checkpoint.node == log.node => {
                let checkpoint = &seal.checkpoint;
                let known = whole && checkpoint.head.epoch == log.epoch;
                let here = log.tree.size() == checkpoint.head.size;
                if !known || (here && log.tree.root() != checkpoint.head.root) {
                    sealed = Some(checkpoint.head);
                } else {
                    ended = checkpoint.end.then_some(checkpoint.head).or(ended);
                    // Records that were not synced yet may stand before it.
                    let beyond = log.tree.size().saturating_sub(checkpoint.head.size);
                    let listed = (unlisted.len() as u64).saturating_sub(beyond);
                    unlisted.drain(..usize::try_from(listed).unwrap_or(0));
                    newest = Some(*seal);
                }
            }
            _ => whole = false,
        }
        first = false;
        if whole {
            end += bytes;
        }
    }
    if let Some(head) = sealed {
        // Signed and not what the file says: evidence, which stays as it is.
        let path = path.display();
        tracing::error!(%path, "the audit log contradicts its own checkpoint; it is left alone");
        let ended = Some(head);
        return Ok(Recovered { number, length, log, ended, newest, unlisted: None });
    }
    if !whole {
        segment::set_aside(&file, path, end).map_err(io("repair"))?;
    }
    let first = log.tree.size() + 1 - unlisted.len() as u64;
    let unlisted = Leaves::of(first, unlisted.into_iter());
    Ok(Recovered { number, length: end.min(length), log, ended, newest, unlisted })
}

fn continues(log: &SegmentHead, record: &line::RecordHead) -> bool {
    let id = &record.id;
    (&id.node, id.epoch, id.sequence) == (&log.node, log.epoch, log.tree.size() + 1)
}
