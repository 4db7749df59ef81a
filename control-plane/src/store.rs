//! Where state lives. Two implementations, [`etcd`] and [`embedded`], under one contract suite.
//!
//! A store is an ordered map from paths to bytes with a global revision that grows with every
//! transaction. Every entry knows the revision that last changed it. A transaction applies as a
//! whole or not at all, and is guarded by the revisions of entries.
//!
//! Layout of the paths:
//! - `config/{Kind}/{group}/{name}` or `config/{Kind}/{name}`: canonical documents; every
//!   transaction that changes one also writes [`HEAD`], so that admission against a whole set is
//!   guarded by one revision;
//! - `secrets/{id}`: sealed secrets;
//! - `state/...`: operators' tokens, enrolment tokens, nodes, the sealed CA: never in snapshots.

#[cfg(feature = "testing")]
pub mod contract;
pub mod embedded;
pub mod etcd;

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use weir_model::bounds;
use weir_model::id::Revision;

/// The entry whose revision is the revision of the configuration.
pub const HEAD: &str = "config-head";
/// Prefix of all documents.
pub const CONFIG: &str = "config/";

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path.
    pub key: String,
    /// Content.
    pub value: Bytes,
    /// The revision that last changed it.
    pub revision: Revision,
}

/// A listing at one revision.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// In key order.
    pub entries: Vec<Entry>,
    /// The store's revision at which all of them held.
    pub revision: Revision,
}

/// What a transaction demands of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Path.
    pub key: String,
    /// The revision that last changed it; zero means that it must not exist.
    pub revision: Revision,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes an entry.
    Put(String, Bytes),
    /// Removes an entry; removing what is not there is no error.
    Delete(String),
}

/// Changes after a revision, in order; one item per transaction that touched the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The transaction's revision.
    pub revision: Revision,
    /// What it did under the prefix.
    pub ops: Vec<Op>,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A guard did not hold; nothing was changed. Read again and decide anew.
    #[error("the state has changed meanwhile")]
    Conflict,
    /// A transaction that no store takes: an entry changed twice, an empty key.
    #[error("the transaction is malformed: {0}")]
    Malformed(String),
    /// More operations or bytes than one transaction takes.
    #[error("the change is too large for one transaction: {0}")]
    TooLarge(String),
    /// The history after the asked revision is gone; list and watch from there.
    #[error("the history since revision {0} has been compacted")]
    Compacted(Revision),
    /// The store cannot be reached or did not answer in time. A commit may or may not have been
    /// applied: implementations read back and only say this when they cannot tell.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What was read is not what we wrote.
    #[error("the store holds bad data: {0}")]
    Corrupt(String),
}

/// A stream of changes. Ends with an error; the reader lists again and watches from there.
pub type Changes = Pin<Box<dyn Stream<Item = Result<Change, StoreError>> + Send>>;

/// See the module. All calls have their own time-outs.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Everything under a prefix, at one revision.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;
    /// Everything under a prefix as it was at a past revision; `revision` of the listing is that
    /// one. [`StoreError::Compacted`] when the history does not reach back so far.
    async fn list_at(&self, prefix: &str, revision: Revision) -> Result<Listing, StoreError>;
    /// One entry.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;
    /// One transaction; answers its revision.
    async fn commit(&self, guards: Vec<Guard>, ops: Vec<Op>) -> Result<Revision, StoreError>;
    /// Changes under a prefix after `after`, exclusive.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError>;
}

/// Refuses what the smallest store (etcd with its default limits) would refuse, before anything
/// is sent, so that all stores agree.
pub(crate) fn check_size(guards: &[Guard], ops: &[Op]) -> Result<(), StoreError> {
    let too_large = |what: &str, is: usize, max: usize| {
        Err(StoreError::TooLarge(format!("{is} {what}, at most {max}; split it into several")))
    };
    if ops.len() > bounds::COMMIT_OPS_MAX {
        return too_large("operations", ops.len(), bounds::COMMIT_OPS_MAX);
    }
    if guards.len() > bounds::COMMIT_OPS_MAX {
        return too_large("guards", guards.len(), bounds::COMMIT_OPS_MAX);
    }
    let mut seen = std::collections::HashSet::new();
    let mut bytes: usize = guards.iter().map(|g| g.key.len()).sum();
    for op in ops {
        let (key, value) = match op {
            Op::Put(key, value) => (key, value.len()),
            Op::Delete(key) => (key, 0),
        };
        bytes += key.len() + value;
        if key.is_empty() {
            return Err(StoreError::Malformed("an empty key".to_owned()));
        }
        if !seen.insert(key.as_str()) {
            return Err(StoreError::Malformed(format!("{key} is changed twice")));
        }
    }
    if bytes > bounds::COMMIT_BYTES_MAX {
        return too_large("bytes", bytes, bounds::COMMIT_BYTES_MAX);
    }
    Ok(())
}
