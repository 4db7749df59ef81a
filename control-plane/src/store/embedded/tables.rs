//! The tables of the embedded store, and the transactions over them. Everything here blocks.

use std::collections::BTreeMap;
use std::fmt::Display;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use weir_model::id::Revision;

use super::super::{Change, Entry, Guard, Listing, Op, StoreError};
use super::History;

/// A value, or none for a removal.
type Written = Option<&'static [u8]>;

/// Key to the revision that last changed it, and its value.
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// Revision and place within its transaction to key and new value; none for a removal.
const HISTORY: TableDefinition<'_, (u64, u32), (&str, Written)> = TableDefinition::new("history");
/// The same places to what was there before: the revision that had last changed it, and its value;
/// none where nothing was.
const UNDO: TableDefinition<'_, (u64, u32), (&str, Before)> = TableDefinition::new("undo");
/// Revision and value.
type Before = Option<(u64, &'static [u8])>;
/// Numbers by name, see below.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// The layout of the tables.
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 2;
/// The newest revision.
const NEWEST: &str = "newest";
/// The newest revision whose history is gone.
const COMPACTED: &str = "compacted";
/// The oldest revision whose state can be had back.
const BACK_TO: &str = "back-to";
/// Bytes in the history.
const HISTORY_BYTES: &str = "history-bytes";
/// As etcd's: the revision of a store that was never written.
const FIRST: u64 = 1;
/// Revisions that one read of a watcher takes in at most.
const READ_REVISIONS_MAX: usize = 256;

fn io(error: impl Display) -> StoreError {
    StoreError::Unavailable(format!("the file: {error}"))
}

/// Makes the tables where they are missing; answers the newest revision.
pub(super) fn prepare(db: &Database) -> Result<u64, StoreError> {
    let write = db.begin_write().map_err(io)?;
    let newest = {
        write.open_table(ENTRIES).map_err(io)?;
        write.open_table(HISTORY).map_err(io)?;
        write.open_table(UNDO).map_err(io)?;
        let mut numbers = write.open_table(NUMBERS).map_err(io)?;
        let format = number(&numbers, FORMAT)?;
        match format {
            None => {
                numbers.insert(FORMAT, FORMAT_NOW).map_err(io)?;
                numbers.insert(NEWEST, FIRST).map_err(io)?;
            }
            Some(FORMAT_NOW) => {}
            // Layout 1 did not keep what was there before.
            Some(1) => {
                let newest = number(&numbers, NEWEST)?.unwrap_or(FIRST);
                numbers.insert(FORMAT, FORMAT_NOW).map_err(io)?;
                numbers.insert(BACK_TO, newest).map_err(io)?;
            }
            Some(other) => {
                return Err(StoreError::Corrupt(format!(
                    "the file has layout {other}, this build reads layout {FORMAT_NOW}"
                )));
            }
        }
        number(&numbers, NEWEST)?.unwrap_or(FIRST)
    };
    write.commit().map_err(io)?;
    Ok(newest)
}

fn number(
    numbers: &impl ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<Option<u64>, StoreError> {
    Ok(numbers.get(name).map_err(io)?.map(|n| n.value()))
}

pub(super) fn get(db: &Database, key: &str) -> Result<Option<Entry>, StoreError> {
    let read = db.begin_read().map_err(io)?;
    let entries = read.open_table(ENTRIES).map_err(io)?;
    let found = entries.get(key).map_err(io)?;
    Ok(found.map(|found| {
        let (revision, value) = found.value();
        entry(key, revision, value)
    }))
}

fn entry(key: &str, revision: u64, value: &[u8]) -> Entry {
    Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        revision: Revision(revision),
    }
}

pub(super) fn list(db: &Database, prefix: &str) -> Result<Listing, StoreError> {
    let read = db.begin_read().map_err(io)?;
    let numbers = read.open_table(NUMBERS).map_err(io)?;
    let revision = Revision(number(&numbers, NEWEST)?.unwrap_or(FIRST));
    let table = read.open_table(ENTRIES).map_err(io)?;
    let mut entries = Vec::new();
    for row in table.range(prefix..).map_err(io)? {
        let (key, value) = row.map_err(io)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        let (revision, value) = value.value();
        entries.push(entry(key.value(), revision, value));
    }
    Ok(Listing { entries, revision })
}

/// Everything under a prefix as it was at a revision: what is there now, undone step by step.
pub(super) fn list_at(db: &Database, prefix: &str, at: u64) -> Result<Listing, StoreError> {
    let read = db.begin_read().map_err(io)?;
    let numbers = read.open_table(NUMBERS).map_err(io)?;
    let back_to = number(&numbers, BACK_TO)?.unwrap_or(0);
    let compacted = number(&numbers, COMPACTED)?.unwrap_or(0);
    if at < back_to.max(compacted) {
        return Err(StoreError::Compacted(Revision(at)));
    }
    let newest = number(&numbers, NEWEST)?.unwrap_or(FIRST);
    if at > newest {
        return Err(StoreError::Malformed(format!("revision {at} is not there yet")));
    }
    let mut state: BTreeMap<String, Entry> = BTreeMap::new();
    let table = read.open_table(ENTRIES).map_err(io)?;
    for row in table.range(prefix..).map_err(io)? {
        let (key, value) = row.map_err(io)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        let (revision, value) = value.value();
        state.insert(key.value().to_owned(), entry(key.value(), revision, value));
    }
    let undo = read.open_table(UNDO).map_err(io)?;
    for row in undo.range((at.saturating_add(1), 0)..).map_err(io)?.rev() {
        let (_, row) = row.map_err(io)?;
        let (key, before) = row.value();
        if !key.starts_with(prefix) {
            continue;
        }
        match before {
            Some((revision, value)) => {
                state.insert(key.to_owned(), entry(key, revision, value));
            }
            None => drop(state.remove(key)),
        }
    }
    Ok(Listing { entries: state.into_values().collect(), revision: Revision(at) })
}

/// One durable transaction; answers its revision, or the newest one when nothing changed.
pub(super) fn commit(
    db: &Database,
    guards: &[Guard],
    ops: &[Op],
    history: History,
) -> Result<u64, StoreError> {
    // Dropping the transaction on any of the ways out below undoes it.
    let write = db.begin_write().map_err(io)?;
    let revision = {
        let mut entries = write.open_table(ENTRIES).map_err(io)?;
        for guard in guards {
            let found = entries.get(guard.key.as_str()).map_err(io)?;
            if found.map_or(0, |found| found.value().0) != guard.revision.0 {
                return Err(StoreError::Conflict);
            }
        }
        let mut numbers = write.open_table(NUMBERS).map_err(io)?;
        let newest = number(&numbers, NEWEST)?.unwrap_or(FIRST);
        let revision = newest + 1;
        let mut log = write.open_table(HISTORY).map_err(io)?;
        let mut undo = write.open_table(UNDO).map_err(io)?;
        let (mut place, mut bytes) = (0, number(&numbers, HISTORY_BYTES)?.unwrap_or(0));
        for op in ops {
            let (Op::Put(key, _) | Op::Delete(key)) = op;
            let before = entries.get(key.as_str()).map_err(io)?.map(|found| {
                let (revision, value) = found.value();
                (revision, value.to_vec())
            });
            let (key, value) = match op {
                Op::Put(key, value) => {
                    entries.insert(key.as_str(), (revision, &value[..])).map_err(io)?;
                    (key, Some(&value[..]))
                }
                Op::Delete(key) => {
                    if entries.remove(key.as_str()).map_err(io)?.is_none() {
                        continue;
                    }
                    (key, None)
                }
            };
            log.insert((revision, place), (key.as_str(), value)).map_err(io)?;
            let before = before.as_ref().map(|(revision, value)| (*revision, &value[..]));
            undo.insert((revision, place), (key.as_str(), before)).map_err(io)?;
            place += 1;
            bytes += weight(key, value) + weight(key, before.map(|(_, value)| value));
        }
        if place == 0 {
            return Ok(newest);
        }
        numbers.insert(NEWEST, revision).map_err(io)?;
        numbers.insert(HISTORY_BYTES, bytes).map_err(io)?;
        trim((&mut log, &mut undo), &mut numbers, |oldest, bytes| {
            revision - oldest >= history.revisions_max || bytes > history.bytes_max
        })?;
        revision
    };
    write.commit().map_err(io)?;
    Ok(revision)
}

fn weight(key: &str, value: Option<&[u8]>) -> u64 {
    (key.len() + value.map_or(0, <[u8]>::len)) as u64
}

type Log<'t> = redb::Table<'t, (u64, u32), (&'static str, Written)>;
type Undo<'t> = redb::Table<'t, (u64, u32), (&'static str, Option<(u64, &'static [u8])>)>;

/// Removes whole revisions from the old end while `goes(revision, bytes left)`. The newest
/// revision stays: a watcher that is one behind never has to list again.
fn trim(
    (log, undo): (&mut Log<'_>, &mut Undo<'_>),
    numbers: &mut redb::Table<'_, &'static str, u64>,
    goes: impl Fn(u64, u64) -> bool,
) -> Result<(), StoreError> {
    let mut bytes = number(numbers, HISTORY_BYTES)?.unwrap_or(0);
    let mut compacted = number(numbers, COMPACTED)?.unwrap_or(0);
    let newest = number(numbers, NEWEST)?.unwrap_or(FIRST);
    loop {
        let oldest = log.first().map_err(io)?.map(|(at, _)| at.value().0);
        let Some(oldest) = oldest.filter(|o| *o < newest && goes(*o, bytes)) else { break };
        let mut gone = 0;
        for row in log.extract_from_if((oldest, 0)..=(oldest, u32::MAX), |_, _| true).map_err(io)? {
            let (_, row) = row.map_err(io)?;
            let (key, value) = row.value();
            gone += weight(key, value);
        }
        for row in
            undo.extract_from_if((oldest, 0)..=(oldest, u32::MAX), |_, _| true).map_err(io)?
        {
            let (_, row) = row.map_err(io)?;
            let (key, before) = row.value();
            gone += weight(key, before.map(|(_, value)| value));
        }
        bytes = bytes.saturating_sub(gone);
        compacted = oldest;
    }
    numbers.insert(HISTORY_BYTES, bytes).map_err(io)?;
    numbers.insert(COMPACTED, compacted).map_err(io)?;
    Ok(())
}

/// Forgets the history up to and including `revision`, but never the newest revision's.
pub(super) fn compact(db: &Database, revision: u64) -> Result<(), StoreError> {
    let write = db.begin_write().map_err(io)?;
    {
        let mut log = write.open_table(HISTORY).map_err(io)?;
        let mut numbers = write.open_table(NUMBERS).map_err(io)?;
        let mut undo = write.open_table(UNDO).map_err(io)?;
        trim((&mut log, &mut undo), &mut numbers, |oldest, _| oldest <= revision)?;
    }
    write.commit().map_err(io)
}

/// What happened under `prefix` after a revision, and up to which revision this read got.
pub(super) fn changes(
    db: &Database,
    prefix: &str,
    after: u64,
) -> Result<(Vec<Change>, u64), StoreError> {
    let read = db.begin_read().map_err(io)?;
    let numbers = read.open_table(NUMBERS).map_err(io)?;
    if after < number(&numbers, COMPACTED)?.unwrap_or(0) {
        return Err(StoreError::Compacted(Revision(after)));
    }
    let log = read.open_table(HISTORY).map_err(io)?;
    let mut changes: Vec<Change> = Vec::new();
    let (mut upto, mut revisions) = (after, 0);
    for row in log.range((after.saturating_add(1), 0)..).map_err(io)? {
        let (at, row) = row.map_err(io)?;
        let revision = at.value().0;
        if revision != upto {
            if revisions == READ_REVISIONS_MAX {
                return Ok((changes, upto));
            }
            revisions += 1;
            upto = revision;
        }
        let (key, value) = row.value();
        if !key.starts_with(prefix) {
            continue;
        }
        let op = match value {
            Some(value) => Op::Put(key.to_owned(), Bytes::copy_from_slice(value)),
            None => Op::Delete(key.to_owned()),
        };
        match changes.last_mut().filter(|c| c.revision.0 == revision) {
            Some(change) => change.ops.push(op),
            None => changes.push(Change { revision: Revision(revision), ops: vec![op] }),
        }
    }
    Ok((changes, upto))
}
