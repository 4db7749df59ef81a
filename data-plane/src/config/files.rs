//! Files that only the proxy reads, replaced as a whole or not at all.

use std::io::{self, Write as _};
use std::path::Path;

use super::ConfigError;

pub(super) fn failed(path: &Path, error: impl std::fmt::Display) -> ConfigError {
    ConfigError::File { path: path.to_owned(), why: error.to_string() }
}

/// Makes the folder, for the proxy alone.
pub(super) fn prepare(folder: &Path) -> Result<(), ConfigError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| failed(folder, e))
}

/// Writes beside the file, syncs, and renames: after a crash there is the old or the new one.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<&std::fs::File>) -> io::Result<()>,
) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&beside)?;
    // A file that was left by a crash may have been made by somebody else.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut buffered = io::BufWriter::new(&file);
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
