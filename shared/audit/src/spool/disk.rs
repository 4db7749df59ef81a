//! What the spool does to its disk, in one place: a seam at which tests let a disk fail.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use super::segment::writable;

/// The disk. What is not overridden is done for real.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// Those of the system.
    fn create(&self, path: &Path) -> io::Result<File> {
        writable(path, true)
    }
    /// Appends all of it. After an error some of it may be there.
    ///
    /// # Errors
    /// Those of the system.
    fn append(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let mut file = file;
        file.write_all(bytes)
    }
    /// Cuts off what is behind this length.
    ///
    /// # Errors
    /// Those of the system.
    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
    /// Makes what was appended outlive the machine.
    ///
    /// # Errors
    /// Those of the system.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// A disk as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}
