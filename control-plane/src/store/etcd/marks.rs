//! What makes a commit safe to send twice.
//!
//! Each transaction also writes a mark, a small entry that no other commit writes at that time,
//! and demands that the mark has not moved since. An attempt whose answer was lost can then be
//! sent again: if the first one was applied, the second finds the mark moved and learns at which
//! revision; if not, it applies. Marks hang on a short lease, so they vanish with their writers.

use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, PutOptions, TxnOp};
use parking_lot::Mutex;
use weir_model::id::Revision;

use super::members::Members;
use crate::store::StoreError;

/// Seconds for which a mark stays.
const LEASE_SECS: i64 = 180;
/// A lease is used this long; what is left of it covers every retry.
const LEASE_USED: Duration = Duration::from_secs(90);
/// Marks that are kept for the next commits.
const FREE_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Marks {
    space: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lease: Option<(i64, Instant)>,
    free: Vec<Mark>,
}

/// One mark, owned by one commit at a time. A commit that does not know how it ended drops it.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    key: String,
    revision: i64,
    lease: i64,
}

impl Marks {
    pub(super) fn new(space: String) -> Self {
        Self { space, state: Mutex::default() }
    }

    pub(super) async fn take(&self, members: &Members) -> Result<Mark, StoreError> {
        let known = {
            let mut state = self.state.lock();
            if state.lease.is_some_and(|(_, since)| since.elapsed() >= LEASE_USED) {
                *state = State::default();
            }
            if let Some(mark) = state.free.pop() {
                return Ok(mark);
            }
            state.lease
        };
        let lease = match known {
            Some((lease, _)) => lease,
            None => {
                let asked = Instant::now();
                let grant = |mut c: Client| async move { c.lease_grant(LEASE_SECS, None).await };
                let granted = members.call(grant).await;
                let lease = granted.map_err(|f| f.into_store(Revision(0)))?.id();
                self.state.lock().lease = Some((lease, asked));
                lease
            }
        };
        let key = format!("{}{}", self.space, uuid::Uuid::new_v4().simple());
        Ok(Mark { key, revision: 0, lease })
    }

    /// Gives a mark back whose revision is known.
    pub(super) fn put_back(&self, mark: Mark) {
        let mut state = self.state.lock();
        let current = state.lease.is_some_and(|(lease, _)| lease == mark.lease);
        if current && state.free.len() < FREE_MAX {
            state.free.push(mark);
        }
    }

    pub(super) fn forget_lease(&self) {
        *self.state.lock() = State::default();
    }
}

impl Mark {
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }
    pub(super) fn moved(&mut self, revision: i64) {
        self.revision = revision;
    }
    pub(super) fn unmoved(&self) -> Compare {
        Compare::mod_revision(self.key.as_str(), CompareOp::Equal, self.revision)
    }
    pub(super) fn write(&self) -> TxnOp {
        TxnOp::put(self.key.as_str(), "", Some(PutOptions::new().with_lease(self.lease)))
    }
    pub(super) fn read(&self) -> TxnOp {
        TxnOp::get(self.key.as_str(), None)
    }
}
