//! The store of control planes that share etcd.
//!
//! One transaction per commit, guarded by `mod_revision`. The client library neither fails over
//! nor resumes, so this does: calls go to the members in order, beginning with the one that
//! answered last ([`members`]); a commit carries a mark that makes it safe to send again when an
//! answer was lost ([`marks`]); a watch ends with an error when it has lost touch, and its reader
//! watches again from what it saw last.
//!
//! Entries live under `{prefix}kv/`, marks under `{prefix}marks/`. Revisions are etcd's own.

mod failure;
mod marks;
mod members;
mod watch;

pub use members::{Options, Tls};

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, KeyValue, Txn, TxnOp};
use etcd_client::{TxnOpResponse, TxnResponse};
use weir_model::id::Revision;

use super::{Changes, Entry, Guard, Listing, Op, Store, StoreError, check_size};
use failure::Failure;
use marks::{Mark, Marks};
use members::Members;

/// Entries of one page of a listing, at first; halved when they are too large for one message.
const PAGE_ENTRIES: i64 = 1_024;
/// Times that a listing starts anew because its revision was compacted while it was read.
const LISTINGS_MAX: usize = 3;

/// See the module. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    members: Members,
    marks: Marks,
    /// Where entries live.
    space: String,
}

impl Etcd {
    /// A store over these members. Connects with the first call.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when an option cannot be used.
    pub fn new(options: Options) -> Result<Self, StoreError> {
        let (space, marks) =
            (format!("{}kv/", options.prefix), format!("{}marks/", options.prefix));
        let members = Members::new(options)?;
        Ok(Self { shared: Arc::new(Shared { members, marks: Marks::new(marks), space }) })
    }

    /// Has etcd forget the history up to and including `revision`, of everything that it holds.
    /// Operators leave that to etcd's own auto-compaction.
    ///
    /// # Errors
    /// When etcd refuses or cannot be reached.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        // etcd keeps the state *at* the revision that it is given, and all changes after it.
        let upto = signed(revision)?.saturating_add(1);
        let call = |mut c: etcd_client::Client| async move { c.compact(upto, None).await };
        self.shared.members.call(call).await.map(drop).map_err(|f| f.into_store(revision))
    }

    fn path(&self, key: &str) -> Vec<u8> {
        format!("{}{key}", self.shared.space).into_bytes()
    }

    fn entry(&self, kv: &KeyValue) -> Result<Entry, StoreError> {
        Ok(Entry {
            key: own_key(kv, &self.shared.space)?,
            value: Bytes::copy_from_slice(kv.value()),
            revision: unsigned(kv.mod_revision()),
        })
    }

    /// One page from `from` on, at a revision (zero: now); with fewer entries where they do not
    /// fit into one message.
    async fn page(&self, from: &[u8], end: &[u8], at: i64) -> Result<GetResponse, Failure> {
        let mut limit = PAGE_ENTRIES;
        loop {
            let (from, end) = (from.to_vec(), end.to_vec());
            let options = GetOptions::new().with_range(end).with_limit(limit).with_revision(at);
            let call = |mut c: members::Kv| {
                let (from, options) = (from.clone(), options.clone());
                async move { c.get(from, Some(options)).await }
            };
            match self.shared.members.call_kv(call).await {
                Err(Failure::AnswerTooLong) if limit > 1 => limit /= 2,
                done => return done,
            }
        }
    }

    /// A listing at a revision; zero: of now.
    async fn list_once(&self, prefix: &str, mut at: i64) -> Result<Listing, Failure> {
        let mut from = self.path(prefix);
        let end = end_of(&from);
        let mut listing = Listing { revision: unsigned(at), ..Listing::default() };
        loop {
            let page = self.page(&from, &end, at).await?;
            if at == 0 {
                at = page.header().map_or(0, etcd_client::ResponseHeader::revision);
                listing.revision = unsigned(at);
            }
            for kv in page.kvs() {
                listing.entries.push(self.entry(kv).map_err(Failure::Store)?);
            }
            match page.kvs().last().filter(|_| page.more()) {
                Some(last) => from = [last.key(), b"\0"].concat(),
                None => return Ok(listing),
            }
        }
    }

    fn transaction(&self, guards: &[Guard], ops: &[Op], mark: &Mark) -> Result<Txn, StoreError> {
        let mut when = Vec::with_capacity(guards.len() + 1);
        for guard in guards {
            let revision = signed(guard.revision)?;
            when.push(Compare::mod_revision(self.path(&guard.key), CompareOp::Equal, revision));
        }
        when.push(mark.unmoved());
        let mut then: Vec<TxnOp> = ops
            .iter()
            .map(|op| match op {
                Op::Put(key, value) => TxnOp::put(self.path(key), value.to_vec(), None),
                Op::Delete(key) => TxnOp::delete(self.path(key), None),
            })
            .collect();
        then.push(mark.write());
        Ok(Txn::new().when(when).and_then(then).or_else(vec![mark.read()]))
    }
}

#[async_trait]
impl Store for Etcd {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        for _ in 0..LISTINGS_MAX {
            match self.list_once(prefix, 0).await {
                Err(Failure::Compacted) => {}
                done => return done.map_err(|f| f.into_store(Revision(0))),
            }
        }
        Err(StoreError::Unavailable("etcd compacts faster than it can be listed".to_owned()))
    }

    async fn list_at(&self, prefix: &str, revision: Revision) -> Result<Listing, StoreError> {
        let at = signed(revision)?.max(1);
        self.list_once(prefix, at).await.map_err(|f| f.into_store(revision))
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let path = self.path(key);
        let call = |mut c: members::Kv| {
            let path = path.clone();
            async move { c.get(path, None).await }
        };
        let found = self.shared.members.call_kv(call).await;
        let found = found.map_err(|f| f.into_store(Revision(0)))?;
        found.kvs().first().map(|kv| self.entry(kv)).transpose()
    }

    async fn commit(&self, guards: Vec<Guard>, ops: Vec<Op>) -> Result<Revision, StoreError> {
        check_size(&guards, &ops)?;
        let shared = &self.shared;
        for _ in 0..2 {
            let mut mark = shared.marks.take(&shared.members).await?;
            let txn = self.transaction(&guards, &ops, &mark)?;
            let call = |mut c: members::Kv| {
                let txn = txn.clone();
                async move { c.txn(txn).await }
            };
            let answer = match shared.members.call_kv(call).await {
                Ok(answer) => answer,
                // The lease ran out between two commits; nothing was applied.
                Err(Failure::LeaseGone) => {
                    shared.marks.forget_lease();
                    continue;
                }
                Err(failure) => return Err(failure.into_store(Revision(0))),
            };
            if answer.succeeded() {
                let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
                mark.moved(revision);
                shared.marks.put_back(mark);
                return Ok(unsigned(revision));
            }
            // Only this commit moves this mark: when it has moved, an attempt whose answer was
            // lost had been applied.
            let moved = read_mark(&answer);
            if moved != mark.revision() {
                mark.moved(moved);
                shared.marks.put_back(mark);
                return Ok(unsigned(moved));
            }
            shared.marks.put_back(mark);
            return Err(StoreError::Conflict);
        }
        Err(StoreError::Unavailable("etcd drops leases as soon as it grants them".to_owned()))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        let path = self.path(prefix);
        watch::open(&self.shared.members, path, self.shared.space.clone(), after).await
    }
}

/// The mark's revision in the answer of a transaction whose guards did not hold.
fn read_mark(answer: &TxnResponse) -> i64 {
    match answer.op_responses().first() {
        Some(TxnOpResponse::Get(found)) => {
            found.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision)
        }
        _ => 0,
    }
}

/// The first key after all keys that begin with `prefix`, which ends in ASCII.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn own_key(kv: &KeyValue, space: &str) -> Result<String, StoreError> {
    let key = kv.key_str().ok().and_then(|key| key.strip_prefix(space));
    key.map(str::to_owned).ok_or_else(|| {
        StoreError::Corrupt(format!("a key that is not ours: {}", kv.key().escape_ascii()))
    })
}

fn unsigned(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or(0))
}

fn signed(revision: Revision) -> Result<i64, StoreError> {
    i64::try_from(revision.0)
        .map_err(|_| StoreError::Malformed(format!("{revision} is no revision of etcd")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key() {
        for (prefix, end) in [(&b"a/"[..], &b"a0"[..]), (b"a\xff", b"b"), (b"\xff", b"\0")] {
            assert_eq!(end_of(prefix), end);
        }
    }
}
