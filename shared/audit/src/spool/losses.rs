//! How many records of class `counted` found no room, on the disk: a full spool takes no record that
//! would tell, and the process may be killed before there is room again. The end of the epoch, which
//! the next run signs, then says it.
//!
//! One line of fixed length in a file of its own, written over in place: a disk that is full takes it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The file.
const NAME: &str = "lost";

/// See the module.
#[derive(Debug)]
pub(super) struct Losses {
    file: Option<File>,
    epoch: u64,
    lost: u64,
    /// The last attempt to write failed, and that was told.
    ill: bool,
}

impl Losses {
    /// What the run before left. Without the file counts die with the process, which is told.
    pub(super) fn open(dir: &Path) -> Self {
        let path = dir.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let told = std::fs::read_to_string(&path).unwrap_or_default();
        let (epoch, lost) = read(&told).unwrap_or_else(|| {
            if !told.trim().is_empty() {
                tracing::error!(path = %path.display(), "the count of lost audit records is damaged");
            }
            (0, 0)
        });
        let file = file.inspect_err(|error| {
            tracing::error!(path = %path.display(), %error, "lost audit records are counted in memory alone");
        });
        Self { file: file.ok(), epoch, lost, ill: false }
    }

    /// What was lost in this epoch, as far as it is known here.
    pub(super) fn of(&self, epoch: u64) -> u64 {
        if self.epoch == epoch { self.lost } else { 0 }
    }

    /// What was lost in another epoch than the one whose end tells it.
    pub(super) fn besides(&self, told: Option<u64>) -> u64 {
        if told == Some(self.epoch) { 0 } else { self.lost }
    }

    /// Remembers. Survives the process at once, and the machine when the system has written it back.
    pub(super) fn put(&mut self, epoch: u64, lost: u64) {
        (self.epoch, self.lost) = (epoch, lost);
        let Some(file) = &self.file else { return };
        let written = file.write_all_at(line(epoch, lost).as_bytes(), 0);
        if let Err(error) = &written
            && !self.ill
        {
            tracing::error!(%error, "lost audit records are counted in memory alone");
        }
        self.ill = written.is_err();
    }
}

/// Always of one length.
fn line(epoch: u64, lost: u64) -> String {
    format!("epoch {epoch:020} lost {lost:020}\n")
}

fn read(text: &str) -> Option<(u64, u64)> {
    let (epoch, lost) = text.trim().strip_prefix("epoch ")?.split_once(" lost ")?;
    Some((epoch.parse().ok()?, lost.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_once_by_whoever_comes_after() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Losses::open(dir.path());
        assert_eq!((first.of(7), first.besides(None)), (0, 0));
        first.put(7, 0);
        first.put(7, 12);
        first.put(7, 3);
        drop(first);
        let mut next = Losses::open(dir.path());
        // The end of epoch 7 says it; or there is no epoch 7, and the next run takes it over.
        assert_eq!((next.of(7), next.besides(Some(7))), (3, 0));
        assert_eq!((next.of(6), next.besides(Some(6)), next.besides(None)), (0, 3, 3));
        next.put(8, 0);
        assert_eq!(Losses::open(dir.path()).besides(Some(7)), 0);
        std::fs::write(dir.path().join(NAME), "epoch 8 lost x").unwrap();
        assert_eq!(Losses::open(dir.path()).besides(None), 0);
    }
}
