//! Records as they come, for `tail -f`.

use std::path::{Path, PathBuf};

use crate::spool::whole_length;

use super::{Entry, Lines, ReadError, files};

/// Remembers how far a folder or file was read. Survives that segments are added and deleted.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    file: Option<PathBuf>,
    offset: u64,
}

impl Follow {
    /// From the records on that come after now.
    ///
    /// # Errors
    /// When there is no such folder or file.
    pub fn from_end(path: &Path) -> Result<Self, ReadError> {
        let mut follow = Self { path: path.to_owned(), file: None, offset: 0 };
        follow.file = files(path)?.pop();
        if let Some(file) = &follow.file {
            follow.offset = whole_length(file)
                .map_err(|source| ReadError::Io { path: file.clone(), source })?;
        }
        Ok(follow)
    }

    /// What has come since the last call, at most `most` records. Lines that are no records come
    /// as errors.
    ///
    /// # Errors
    /// When the folder or file cannot be read.
    pub fn poll(&mut self, most: usize) -> Result<Vec<Result<Entry, ReadError>>, ReadError> {
        let mut found = Vec::new();
        loop {
            // Listed before reading: a file that has a successor by now grows no more.
            let all = files(&self.path)?;
            let at = self.file.as_ref().and_then(|file| all.iter().position(|f| f == file));
            let here = match at {
                Some(at) => all[at].clone(),
                None => {
                    // Nothing read yet, or what was read has been deleted: its successors follow.
                    let next = all.iter().find(|f| self.file.as_ref().is_none_or(|old| *f > old));
                    let Some(next) = next else { return Ok(found) };
                    self.offset = 0;
                    next.clone()
                }
            };
            let successor = all.iter().find(|file| **file > here).cloned();
            self.file = Some(here.clone());
            let mut lines = Lines::open(here, self.offset)?;
            while found.len() < most {
                match lines.next_entry(successor.is_none()) {
                    Ok(None) => break,
                    Ok(Some(entry)) => found.push(Ok(entry)),
                    Err(error @ ReadError::Io { .. }) => return Err(error),
                    Err(error) => found.push(Err(error)),
                }
            }
            self.offset = lines.offset;
            match successor {
                Some(next) if found.len() < most => {
                    self.file = Some(next);
                    self.offset = 0;
                }
                _ => return Ok(found),
            }
        }
    }
}
