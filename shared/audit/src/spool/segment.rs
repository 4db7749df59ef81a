//! The segments of one folder, with plain blocking I/O: names, heads, appends, torn ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SpoolError;
use super::disk::Disk;
use crate::line::{self, Line, SegmentHead};
use crate::read::{Read as Lines, read_line};

/// `audit-000000000001.jsonl`.
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";

/// The segments of a folder, oldest first.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:012}{SUFFIX}"))
}

pub(super) fn failed<'p>(
    what: &'static str,
    path: &'p Path,
) -> impl Fn(io::Error) -> SpoolError + use<'p> {
    move |source| SpoolError::Io { what, path: path.to_owned(), source }
}

/// Length of a segment up to its last whole line.
pub(crate) fn whole_length(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    end_of_last_line(&file, length)
}

/// The head of a segment; none when it has no whole line yet.
///
/// # Errors
/// When it cannot be read, or was written in another format.
pub(crate) fn head(path: &Path) -> Result<Option<SegmentHead>, SpoolError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mut first = Vec::new();
    let read = read_line(&mut BufReader::new(file), &mut first).map_err(failed("read", path))?;
    if !matches!(read, Lines::Line(_)) {
        return Ok(None);
    }
    let format = |why: String| SpoolError::Format { path: path.to_owned(), why };
    match line::parse(&first) {
        Ok(Line::Segment(head)) => Ok(Some(head)),
        Ok(_) => Err(format("it does not begin with the head of a segment".to_owned())),
        Err(error) => Err(format(error.to_string())),
    }
}

/// The segment that is written.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    pub(super) length: u64,
    pub(super) disk: Arc<dyn Disk>,
}

/// A write failed; `kept` says whether the segment ends where it ended before.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) error: SpoolError,
    pub(super) kept: bool,
}

impl Segment {
    /// A new segment with its head, whose name outlives the machine.
    pub(super) fn create(
        (dir, disk): (&Path, &Arc<dyn Disk>),
        number: u64,
        head: &SegmentHead,
    ) -> Result<Self, SpoolError> {
        let path = path(dir, number);
        let file = disk.create(&path).map_err(failed("create", &path))?;
        let mut segment = Self { number, file: Arc::new(file), length: 0, disk: Arc::clone(disk) };
        let written = segment.append(dir, format!("{head}\n").as_bytes());
        if let Err(Unwritten { error, .. }) = written {
            // A segment without its head would stand in the way of the next attempt.
            let _ = disk.remove(&path);
            return Err(error);
        }
        let synced = segment.sync().map_err(failed("sync", &path)).and_then(|()| {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
        });
        if let Err(error) = synced {
            let _ = disk.remove(&path);
            return Err(error);
        }
        Ok(segment)
    }

    /// Appends whole lines; on failure none of them stays, where that can be had.
    pub(super) fn append(&mut self, dir: &Path, lines: &[u8]) -> Result<(), Unwritten> {
        if let Err(source) = self.disk.append(&self.file, lines) {
            let path = path(dir, self.number);
            let kept = self.disk.cut(&self.file, self.length).is_ok();
            return Err(Unwritten { error: failed("write", &path)(source), kept });
        }
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Makes it outlive the machine.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.file)
    }
}

pub(super) fn writable(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600);
    if new {
        options.create_new(true)
    } else {
        options.create(true)
    };
    options.open(path)
}

/// Cuts everything behind `end` off and keeps it in a file beside.
pub(super) fn set_aside(file: &File, path: &Path, end: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    let beside = path.with_extension("torn");
    let mut reader = file;
    reader.seek(SeekFrom::Start(end))?;
    let mut kept = writable(&beside, false)?;
    io::copy(&mut reader.take(super::TORN_BYTES_MAX), &mut kept)?;
    kept.sync_all()?;
    file.set_len(end)?;
    file.sync_all()?;
    tracing::warn!(
        path = %path.display(),
        bytes = length - end,
        kept = %beside.display(),
        "the end of the audit log was torn by a crash and is set aside"
    );
    Ok(())
}

/// Offset behind the last line break before `end`.
fn end_of_last_line(file: &File, end: u64) -> io::Result<u64> {
    const CHUNK: u64 = 64 * 1024;
    let mut reader = file;
    let mut upper = end;
    while upper > 0 {
        let lower = upper.saturating_sub(CHUNK);
        reader.seek(SeekFrom::Start(lower))?;
        let mut chunk = vec![];
        reader.take(upper - lower).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(lower + at as u64 + 1);
        }
        upper = lower;
    }
    Ok(0)
}

/// The last whole line of a file, without its break.
pub(super) fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let end = end_of_last_line(&file, file.metadata()?.len())?;
    if end == 0 {
        return Ok(None);
    }
    let start = end_of_last_line(&file, end - 1)?;
    let mut line = vec![];
    let mut reader = &file;
    reader.seek(SeekFrom::Start(start))?;
    reader.take(end - 1 - start).read_to_end(&mut line)?;
    Ok(Some(line))
}
