//! The last good configuration on disk: documents, secrets as they came (sealed to this node),
//! and the control plane's signature. Checked like an update when it is read.
//!
//! The file begins with a whole state. What changes after it is added at its end, signed as it
//! came, until there is so much of it that the whole is written anew: one edit among 100,000 tools
//! costs one small write. An addition that is torn or damaged ends the reading there; what was
//! before it is good.
//!
//! The file's time of change tells when the control plane was last heard of.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::sync::statement::Anchor;
use weir_model::sync::{Held, UpdatePart};
use weir_model::wire;

use super::files;

const FILE: &str = "checkpoint";
/// First bytes; the number is the format's version.
const MAGIC: &[u8] = b"weir checkpoint 2\n";
/// The version before, which had no additions.
const MAGIC_WHOLE: &[u8] = b"weir checkpoint 1\n";
/// Additions after which the whole is written anew, whatever their size.
const ADDITIONS_MAX: usize = 256;
/// Bytes of additions that are always allowed; beyond, they may be half of the whole.
const ADDED_BYTES: usize = 64 * 1024;
/// Shortest time between two writes, and between two notes of having heard.
const PACE: Duration = Duration::from_secs(1);
const NOTE: Duration = Duration::from_secs(30);

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

pub(super) fn write(folder: &Path, held: &Held) -> io::Result<usize> {
    let mut written = MAGIC.len();
    files::replace(&path(folder), |file| {
        file.write_all(MAGIC)?;
        for part in held.to_parts() {
            let framed = framed(part)?;
            written += framed.len();
            file.write_all(&framed)?;
        }
        Ok(())
    })?;
    Ok(written)
}

/// A message with its length before it.
fn framed(part: UpdatePart) -> io::Result<Vec<u8>> {
    let bytes = wire::encode_update(part);
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &bytes].concat())
}

/// What the file holds, as far as its writer knows.
#[derive(Debug, Default)]
pub(super) struct Written {
    last: Option<Arc<Held>>,
    whole_bytes: usize,
    added_bytes: usize,
    additions: usize,
}

impl Written {
    /// Brings the file to a state: adds what changed, or writes it anew.
    pub(super) fn bring(&mut self, folder: &Path, held: &Arc<Held>) -> io::Result<()> {
        // Whatever goes wrong on the way, the file is not known any more.
        let before = std::mem::take(self);
        if let Some(last) = &before.last
            && before.additions < ADDITIONS_MAX
        {
            let room = ADDED_BYTES.max(before.whole_bytes / 2).saturating_sub(before.added_bytes);
            if let Some(addition) = addition(last, held, room)? {
                let mut file = std::fs::OpenOptions::new().append(true).open(path(folder))?;
                file.write_all(&addition)?;
                file.sync_data()?;
                *self = Self {
                    last: Some(Arc::clone(held)),
                    added_bytes: before.added_bytes + addition.len(),
                    additions: before.additions + 1,
                    ..before
                };
                return Ok(());
            }
        }
        let whole_bytes = write(folder, held)?;
        *self = Self { last: Some(Arc::clone(held)), whole_bytes, ..Self::default() };
        Ok(())
    }
}

/// What leads from one state to another, when it is not too long.
fn addition(last: &Held, held: &Held, room: usize) -> io::Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    for part in held.parts_since(last) {
        all.extend(framed(part)?);
        if all.len() > room {
            return Ok(None);
        }
    }
    Ok(Some(all))
}

/// What is on disk and how old it is. A file that is broken, or not for this node, is set aside.
pub(super) fn read(folder: &Path, anchor: &Anchor, region: &Name) -> Option<(Held, Duration)> {
    let path = path(folder);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "the checkpoint cannot be read");
            return None;
        }
    };
    let changed = file.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let age = SystemTime::now().duration_since(changed).unwrap_or_default();
    match parse(file, anchor, region) {
        Ok(held) => Some((held, age)),
        Err(why) => {
            let aside = path.with_extension("broken");
            tracing::error!(why, aside = %aside.display(), "the checkpoint is set aside");
            if let Err(error) = std::fs::rename(&path, &aside) {
                tracing::error!(%error, "the checkpoint cannot be set aside");
            }
            None
        }
    }
}

fn parse(file: std::fs::File, anchor: &Anchor, region: &Name) -> Result<Held, String> {
    let mut file = io::BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).map_err(|e| e.to_string())?;
    if magic != MAGIC && magic != MAGIC_WHOLE {
        return Err("it was written by another version".to_owned());
    }
    let whole = update(&mut file)?.ok_or("it is empty")?;
    let mut held = Arc::new(Held::from_parts(whole, anchor, region)?);
    loop {
        let next = update(&mut file).and_then(|parts| {
            parts.map(|parts| held.advanced(parts, (anchor, region))).transpose()
        });
        match next {
            Ok(Some(next)) => held = Arc::new(next),
            Ok(None) => break,
            Err(why) => {
                let revision = held.applied.revision;
                tracing::warn!(why, %revision, "the checkpoint's last additions are left out");
                break;
            }
        }
    }
    Ok(Arc::unwrap_or_clone(held))
}

/// The parts of the next update; none at the end of the file.
fn update(file: &mut impl io::Read) -> Result<Option<Vec<UpdatePart>>, String> {
    let mut parts: Vec<UpdatePart> = Vec::new();
    loop {
        let mut length = [0; 4];
        match file.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && parts.is_empty() => {
                return Ok(None);
            }
            Err(error) => return Err(error.to_string()),
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > bounds::SYNC_MESSAGE_BYTES_MAX || parts.len() >= bounds::SYNC_PARTS_MAX {
            return Err("it is larger than any that we write".to_owned());
        }
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        let part = wire::decode_update(bytes.into()).map_err(|e| e.to_string())?;
        let last = part.part + 1 >= part.head.parts;
        parts.push(part);
        if last {
            return Ok(Some(parts));
        }
    }
}

/// Notes that the control plane was just heard of.
fn note(folder: &Path) -> io::Result<()> {
    match std::fs::OpenOptions::new().append(true).open(path(folder)) {
        Ok(file) => file.set_modified(SystemTime::now()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes the newest of what it is sent, at a bounded pace, until the sender is gone; then writes
/// what is left. `heard` tells how long ago the control plane was heard of.
pub(super) async fn keep(
    folder: PathBuf,
    mut newest: watch::Receiver<Option<Arc<Held>>>,
    heard: impl Fn() -> Duration,
) {
    let written = Arc::new(Mutex::new(Written::default()));
    loop {
        match tokio::time::timeout(NOTE, newest.changed()).await {
            Ok(Ok(())) => {}
            // What was sent last has been seen.
            Ok(Err(_)) => return,
            Err(_) => {
                if heard() < NOTE {
                    on_disk(folder.clone(), note).await;
                }
                continue;
            }
        }
        let held = newest.borrow_and_update().clone();
        if let Some(held) = held {
            let written = Arc::clone(&written);
            on_disk(folder.clone(), move |folder| written.lock().bring(folder, &held)).await;
        }
        // Whoever drops the sender waits for us: no more pauses then.
        let _ = tokio::time::timeout(PACE, closed(&newest)).await;
    }
}

async fn closed(newest: &watch::Receiver<Option<Arc<Held>>>) {
    while newest.has_changed().is_ok() {
        tokio::time::sleep(PACE / 20).await;
    }
}

async fn on_disk(folder: PathBuf, work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) {
    match tokio::task::spawn_blocking(move || work(&folder)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the checkpoint cannot be written"),
        Err(_) => tracing::error!("writing the checkpoint aborted"),
    }
}
