//! The segments of one folder, with plain blocking I/O.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{FileError, FileSettings};

/// `audit-000000000001.jsonl`.
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";

/// The folder, locked, and the segment that is written.
#[derive(Debug)]
pub(super) struct Segments {
    settings: FileSettings,
    /// Held for its lock.
    _lock: File,
    current: Option<Current>,
    /// Set by a failed sync: what the current segment holds on disk is unknown.
    suspect: Arc<AtomicBool>,
    /// Something was written that no flush has been asked to cover.
    dirty: bool,
    /// A segment went out of sight before it was synced: the next flush must fail.
    unsynced_lost: bool,
}

#[derive(Debug)]
struct Current {
    number: u64,
    file: Arc<File>,
    length: u64,
}

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

/// Length of a segment up to its last whole line.
pub(crate) fn whole_length(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    end_of_last_line(&file, length)
}

fn failed<'p>(what: &'static str, path: &'p Path) -> impl Fn(io::Error) -> FileError + use<'p> {
    move |source| FileError::Io { what, path: path.to_owned(), source }
}

impl Segments {
    pub(super) fn open(settings: FileSettings) -> Result<Self, FileError> {
        let dir = settings.dir.clone();
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&dir).map_err(failed("make", &dir))?;
        let lock_path = dir.join("lock");
        let lock = writable(&lock_path, false).map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(FileError::InUse(dir)),
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        let mut segments = Self {
            settings,
            _lock: lock,
            current: None,
            suspect: Arc::default(),
            dirty: false,
            unsynced_lost: false,
        };
        segments.current = Some(segments.resume()?);
        Ok(segments)
    }

    /// Appends whole lines; on failure none of them stays.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), FileError> {
        if self.suspect.swap(false, Ordering::AcqRel) {
            self.current = Some(self.next()?);
        }
        let full = self.current.as_ref().is_some_and(|current| {
            current.length > 0 && current.length + lines.len() as u64 > self.settings.segment_bytes
        });
        if full {
            self.rotate()?;
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.resume()?,
        };
        let written = (&*current.file).write_all(lines);
        if let Err(source) = written {
            let path = self.path(current.number);
            if current.file.set_len(current.length).is_ok() {
                self.current = Some(current);
            } else {
                // Opened and repaired anew by the next attempt.
                self.unsynced_lost |= self.dirty;
            }
            return Err(failed("write", &path)(source));
        }
        current.length += lines.len() as u64;
        self.dirty = true;
        self.current = Some(current);
        Ok(())
    }

    /// The file that holds what is not synced yet; none when it is out of reach.
    pub(super) fn sync_target(&mut self) -> (Option<Arc<File>>, Arc<AtomicBool>) {
        let lost = std::mem::take(&mut self.unsynced_lost);
        self.dirty = false;
        let file = self.current.as_ref().filter(|_| !lost).map(|c| Arc::clone(&c.file));
        (file, Arc::clone(&self.suspect))
    }

    /// Epoch of the last readable record.
    pub(super) fn newest_epoch(&self) -> Option<u64> {
        let segments = list(&self.settings.dir).ok()?;
        segments.iter().rev().find_map(|(_, path)| {
            let line = last_line(path).ok()??;
            let record: serde_json::Value = serde_json::from_slice(&line).ok()?;
            record["metadata"]["uid"].as_str()?.rsplit('/').nth(1)?.parse().ok()
        })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.settings.dir.join(format!("{PREFIX}{number:012}{SUFFIX}"))
    }

    /// The newest segment, repaired, or the first one.
    fn resume(&self) -> Result<Current, FileError> {
        let dir = &self.settings.dir;
        let segments = list(dir).map_err(failed("list", dir))?;
        let Some((number, path)) = segments.last() else { return self.create(1) };
        let file = writable(path, false).map_err(failed("open", path))?;
        let length = repair(&file, path).map_err(failed("repair", path))?;
        Ok(Current { number: *number, file: Arc::new(file), length })
    }

    fn rotate(&mut self) -> Result<(), FileError> {
        let Some(current) = &self.current else { return Ok(()) };
        if let Err(source) = current.file.sync_data() {
            let path = self.path(current.number);
            self.unsynced_lost = true;
            self.suspect.store(true, Ordering::Release);
            return Err(failed("sync", &path)(source));
        }
        self.current = Some(self.next()?);
        self.prune();
        Ok(())
    }

    fn next(&self) -> Result<Current, FileError> {
        let dir = &self.settings.dir;
        let newest = list(dir).map_err(failed("list", dir))?.last().map_or(0, |(n, _)| *n);
        self.create(newest + 1)
    }

    fn create(&self, number: u64) -> Result<Current, FileError> {
        let path = self.path(number);
        let file = writable(&path, true).map_err(failed("create", &path))?;
        // The name must outlive the machine too.
        let dir = &self.settings.dir;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))?;
        Ok(Current { number, file: Arc::new(file), length: 0 })
    }

    /// Deletes the oldest beyond those that are kept. A failure leaves more than wanted.
    fn prune(&self) {
        let Ok(segments) = list(&self.settings.dir) else { return };
        let excess = segments.len().saturating_sub(self.settings.segments.max(1));
        for (_, path) in &segments[..excess] {
            match fs::remove_file(path) {
                Ok(()) => tracing::info!(path = %path.display(), "oldest audit segment deleted"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "audit segment stays");
                }
            }
        }
    }
}

fn writable(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600);
    if new {
        options.create_new(true)
    } else {
        options.create(true)
    };
    options.open(path)
}

/// Cuts a torn last line off and keeps it in a file beside; the length of what is whole.
fn repair(file: &File, path: &Path) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let whole = end_of_last_line(file, length)?;
    if whole < length {
        let beside = path.with_extension("torn");
        let mut torn = vec![];
        let mut reader = file;
        reader.seek(SeekFrom::Start(whole))?;
        reader.take(weir_model::bounds::AUDIT_RECORD_BYTES_MAX as u64).read_to_end(&mut torn)?;
        let mut kept = writable(&beside, false)?;
        kept.write_all(&torn)?;
        kept.sync_all()?;
        file.set_len(whole)?;
        file.sync_all()?;
        tracing::warn!(
            path = %path.display(),
            bytes = length - whole,
            kept = %beside.display(),
            "the last audit record was torn by a crash and is set aside"
        );
    }
    Ok(whole)
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
fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
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

#[cfg(test)]
mod tests;
