//! Reading records back from a folder of segments or from one file, for people.
//!
//! Everything streams: a line at a time, bounded. A line that is no record is told with its
//! place and reading goes on. The unfinished last line of the newest file is not there yet.

mod follow;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_model::bounds;

use crate::line::CHECKPOINT_LOG;
use crate::spool::segments;

pub use follow::Follow;

/// Why a line or a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file or folder.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that is no record.
    #[error("{path}, line {line}: {message}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Why.
        message: String,
    },
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Exactly as it was written, without the line break.
    pub line: Vec<u8>,
    /// The same, parsed.
    pub json: Value,
}

impl Entry {
    fn parse(line: Vec<u8>) -> serde_json::Result<Self> {
        Ok(Self { json: serde_json::from_slice(&line)?, line })
    }

    /// `node/epoch/sequence`.
    pub fn uid(&self) -> Option<&str> {
        self.json["metadata"]["uid"].as_str()
    }
}

/// What a search wants; members that are absent do not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Group.
    pub group: Option<String>,
    /// Principal's id.
    pub principal: Option<String>,
    /// Server.
    pub server: Option<String>,
    /// Tool, prompt or URI.
    pub target: Option<String>,
    /// JSON-RPC method.
    pub method: Option<String>,
    /// `success`, `tool_error`, a refusal's reason, ...
    pub status: Option<String>,
    /// Request id.
    pub request: Option<String>,
    /// From this time on, in milliseconds since the epoch.
    pub since_ms: Option<u64>,
    /// Before this time.
    pub until_ms: Option<u64>,
}

impl Query {
    /// True when the record is wanted.
    pub fn matches(&self, json: &Value) -> bool {
        let texts = [
            (&self.group, "/metadata/tenant_uid"),
            (&self.principal, "/actor/user/uid"),
            (&self.server, "/api/service/name"),
            (&self.target, "/resources/0/name"),
            (&self.method, "/api/operation"),
            (&self.status, "/status_code"),
            (&self.request, "/api/request/uid"),
        ];
        let time = json["time"].as_u64().unwrap_or(0);
        self.since_ms.is_none_or(|since| time >= since)
            && self.until_ms.is_none_or(|until| time < until)
            && texts.iter().all(|(wanted, at)| {
                let found = json.pointer(at).and_then(Value::as_str);
                wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
            })
    }
}

/// Records in the order in which they were written.
#[derive(Debug)]
pub struct Entries {
    files: VecDeque<PathBuf>,
    open: Option<Lines>,
}

/// All records of a folder or a file, oldest first.
///
/// # Errors
/// When there is no such folder or file.
pub fn entries(path: &Path) -> Result<Entries, ReadError> {
    Ok(Entries { files: files(path)?.into(), open: None })
}

/// The wanted records, oldest first.
///
/// # Errors
/// When there is no such folder or file. Lines that are no records come as errors in between.
pub fn search(
    path: &Path,
    query: Query,
) -> Result<impl Iterator<Item = Result<Entry, ReadError>>, ReadError> {
    Ok(entries(path)?.filter(move |entry| match entry {
        Ok(entry) => query.matches(&entry.json),
        Err(_) => true,
    }))
}

/// The last `count` records, oldest first. Lines that are no records are passed over.
///
/// # Errors
/// When a file cannot be read.
pub fn tail(path: &Path, count: usize) -> Result<Vec<Entry>, ReadError> {
    let mut last: VecDeque<Entry> = VecDeque::new();
    for file in files(path)?.into_iter().rev() {
        let wanted = count.saturating_sub(last.len());
        if wanted == 0 {
            break;
        }
        // Only what is kept is parsed.
        let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
        let mut lines = Lines::open(file, 0)?;
        loop {
            match lines.next_line(true) {
                Ok(Some(line)) if is_record(&line) => kept.push_back(line),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(ReadError::Broken { .. }) => {}
                Err(error) => return Err(error),
            }
            if kept.len() > wanted {
                kept.pop_front();
            }
        }
        let entries = kept.into_iter().filter_map(|line| Entry::parse(line).ok());
        last = entries.chain(last).collect();
    }
    Ok(last.into())
}

/// False for the heads of segments and for checkpoints, which no reader of records asks for.
/// Both say so near their beginning, where no peer has a word.
pub(crate) fn is_record(line: &[u8]) -> bool {
    let checkpoint = format!("\"log_name\":\"{CHECKPOINT_LOG}\"");
    let begin = &line[..line.len().min(512)];
    !line.starts_with(b"{\"weir_audit_segment\"")
        && !begin.windows(checkpoint.len()).any(|window| window == checkpoint.as_bytes())
}

/// The segments of a folder in their order, or the one file.
///
/// # Errors
/// When there is no such folder or file.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    if path.metadata().map_err(io)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    Ok(segments(path).map_err(io)?.into_iter().map(|(_, path)| path).collect())
}

impl Iterator for Entries {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(lines) = &mut self.open {
                match lines.next_entry(self.files.is_empty()) {
                    Ok(Some(entry)) => return Some(Ok(entry)),
                    Ok(None) => self.open = None,
                    Err(error) => {
                        if matches!(error, ReadError::Io { .. }) {
                            self.open = None;
                        }
                        return Some(Err(error));
                    }
                }
            } else {
                match Lines::open(self.files.pop_front()?, 0) {
                    Ok(lines) => self.open = Some(lines),
                    Err(error) => return Some(Err(error)),
                }
            }
        }
    }
}

/// The lines of one file.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
    /// Behind the last whole line.
    offset: u64,
}

impl Lines {
    fn open(path: PathBuf, offset: u64) -> Result<Self, ReadError> {
        let opened = File::open(&path).and_then(|mut file| {
            io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
            Ok(BufReader::new(file))
        });
        match opened {
            Ok(reader) => Ok(Self { path, reader, line: 0, offset }),
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    /// The next record; none at the end. `newest`: an unfinished last line is being written.
    fn next_entry(&mut self, newest: bool) -> Result<Option<Entry>, ReadError> {
        let line = loop {
            match self.next_line(newest)? {
                None => return Ok(None),
                Some(line) if is_record(&line) => break line,
                Some(_) => {}
            }
        };
        match Entry::parse(line) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) => Err(ReadError::Broken {
                path: self.path.clone(),
                line: self.line,
                message: format!("no record: {error}"),
            }),
        }
    }

    fn next_line(&mut self, newest: bool) -> Result<Option<Vec<u8>>, ReadError> {
        let mut line = Vec::new();
        let read = read_line(&mut self.reader, &mut line)
            .map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        let broken = |lines: &Self, message: String| ReadError::Broken {
            path: lines.path.clone(),
            line: lines.line + 1,
            message,
        };
        let outcome = match read {
            Read::End => return Ok(None),
            Read::Unfinished(_) if newest => return Ok(None),
            Read::Unfinished(_) => Err(broken(self, "the line is torn off".to_owned())),
            Read::TooLong(_) => Err(broken(self, "the line is longer than a record".to_owned())),
            Read::Line(_) => Ok(Some(line)),
        };
        self.offset += read.bytes();
        self.line += 1;
        outcome
    }
}

/// What was read, with its length in bytes.
#[derive(Clone, Copy)]
pub(crate) enum Read {
    Line(u64),
    Unfinished(u64),
    TooLong(u64),
    End,
}

impl Read {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Line(bytes) | Self::Unfinished(bytes) | Self::TooLong(bytes) => bytes,
            Self::End => 0,
        }
    }
}

/// Reads up to a line break; of a line that is too long the start is kept and the rest skipped.
pub(crate) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Read> {
    let mut bytes = 0;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(if bytes == 0 { Read::End } else { Read::Unfinished(bytes) });
        }
        let at = chunk.iter().position(|byte| *byte == b'\n');
        let taken = at.unwrap_or(chunk.len());
        let room = bounds::AUDIT_LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&chunk[..taken.min(room)]);
        let used = taken + usize::from(at.is_some());
        reader.consume(used);
        bytes += used as u64;
        if at.is_some() {
            let whole = bytes - 1 == line.len() as u64;
            return Ok(if whole { Read::Line(bytes) } else { Read::TooLong(bytes) });
        }
    }
}

#[cfg(test)]
mod tests;
