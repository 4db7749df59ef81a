//! Accounts of quotas in the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use weir_model::budget::{Account, Grant};
use weir_model::id::Revision;
use weir_runtime::backoff::Backoff;

use super::QuotaClaim;
use crate::store::{Entry, Guard, Op, Store, StoreError};

pub(super) const PATH: &str = "state/budget/";
/// Accounts of one transaction.
const PER_COMMIT: usize = 50;
/// Times that a transaction is tried when other replicas are faster.
const ATTEMPTS: usize = 10;
/// Waits between them: replicas that try again at once can be each other's conflict every time.
const AGAIN_FIRST: Duration = Duration::from_millis(1);
const AGAIN_CAP: Duration = Duration::from_millis(50);
/// Accounts that are kept in memory besides the store.
const CACHED_MAX: usize = 50_000;
/// Seconds that an account is kept after its window, for whoever looks back.
const KEEP_SECS: i64 = 7 * 86_400;

/// The ledger of this replica.
pub(super) struct Ledger {
    store: Arc<dyn Store>,
    /// As last seen; the guards of the transactions tell when that is old.
    cached: HashMap<String, (Account, Revision)>,
}

/// Claims on one account, with their places in the request.
type Claims<'a> = Vec<(usize, &'a str, &'a QuotaClaim)>;

impl Ledger {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, cached: HashMap::new() }
    }

    /// Settles claims of processes, in their order.
    pub(super) async fn settle(
        &mut self,
        claims: &[(String, &QuotaClaim)],
    ) -> Result<Vec<Grant>, StoreError> {
        let mut by_account: BTreeMap<String, Claims<'_>> = BTreeMap::new();
        for (place, (process, claim)) in claims.iter().enumerate() {
            let key = format!("{PATH}{}/{}", claim.id.hex(), claim.window.0);
            by_account.entry(key).or_default().push((place, process, claim));
        }
        let mut grants = vec![Grant::default(); claims.len()];
        let accounts: Vec<_> = by_account.into_iter().collect();
        for chunk in accounts.chunks(PER_COMMIT) {
            self.settle_chunk(chunk, &mut grants).await?;
        }
        if self.cached.len() > CACHED_MAX {
            self.cached.clear();
        }
        Ok(grants)
    }

    async fn settle_chunk(
        &mut self,
        chunk: &[(String, Claims<'_>)],
        grants: &mut [Grant],
    ) -> Result<(), StoreError> {
        let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_CAP);
        for _ in 0..ATTEMPTS {
            let (mut guards, mut ops, mut changed) = (Vec::new(), Vec::new(), Vec::new());
            for (key, claims) in chunk {
                let (before, revision) = self.account(key).await?;
                let mut account = before.clone();
                for (place, process, claim) in claims {
                    account.label.clone_from(&claim.label);
                    account.ends = claim.window.1;
                    grants[*place] = account.settle(process, claim.claim, claim.quota);
                }
                if account != before {
                    let value = serde_json::to_vec(&account)
                        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
                    guards.push(Guard { key: key.clone(), revision });
                    ops.push(Op::Put(key.clone(), value.into()));
                    changed.push((key.clone(), account));
                }
            }
            if ops.is_empty() {
                return Ok(());
            }
            match self.store.commit(guards, ops).await {
                Ok(revision) => {
                    let known =
                        changed.into_iter().map(|(key, account)| (key, (account, revision)));
                    self.cached.extend(known);
                    return Ok(());
                }
                // Whatever of this was known is old.
                Err(StoreError::Conflict) => {
                    chunk.iter().for_each(|(key, _)| drop(self.cached.remove(key)));
                    backoff.sleep().await;
                }
                Err(error) => {
                    // It may have been written all the same.
                    chunk.iter().for_each(|(key, _)| drop(self.cached.remove(key)));
                    return Err(error);
                }
            }
        }
        Err(StoreError::Conflict)
    }

    async fn account(&mut self, key: &str) -> Result<(Account, Revision), StoreError> {
        if let Some(known) = self.cached.get(key) {
            return Ok(known.clone());
        }
        let found = match self.store.get(key).await? {
            Some(entry) => (read(&entry)?, entry.revision),
            None => (Account::default(), Revision(0)),
        };
        self.cached.insert(key.to_owned(), found.clone());
        Ok(found)
    }

    /// Forgets accounts whose windows are long over.
    pub(super) async fn sweep(&mut self, now: i64) -> Result<(), StoreError> {
        let oldest = now - KEEP_SECS;
        self.cached.retain(|_, (account, _)| account.ends > now);
        let entries = self.store.list(PATH).await?.entries;
        let over: Vec<Entry> =
            entries.into_iter().filter(|e| read(e).is_ok_and(|a| a.ends < oldest)).collect();
        for chunk in over.chunks(PER_COMMIT) {
            let guard = |e: &Entry| Guard { key: e.key.clone(), revision: e.revision };
            let guards = chunk.iter().map(guard).collect();
            let ops = chunk.iter().map(|entry| Op::Delete(entry.key.clone())).collect();
            match self.store.commit(guards, ops).await {
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

pub(super) fn read(entry: &Entry) -> Result<Account, StoreError> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::Corrupt(format!("{}: {error}", entry.key)))
}
