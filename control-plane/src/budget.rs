//! Limits that count over all proxies: the ledger of quotas, and the shares of rates.
//!
//! Any replica settles any claim. Accounts live in the store under `state/budget/`, changed by
//! transactions that are guarded by the account's revision, so replicas that settle the same
//! account at once do not lose each other's charges. All claims that wait are settled together:
//! many proxies cost few transactions. What is granted and charged, and by how much a quota can be
//! overdrawn, is told and tested in [`weir_model::budget`].
//!
//! Demands of rates are kept in memory, and told to the other replicas through the store where
//! there are any. They are forgotten after [`FRESH_SECS`]; nothing depends on them but fairness.

mod ledger;
mod rates;
mod uses;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weir_model::budget::{Claim, Grant};
use weir_model::id::Digest;
use weir_model::sync::identity::NodeId;
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Watch;

use crate::store::{Store, StoreError};
use ledger::Ledger;
use rates::Rates;

pub use uses::{QuotaUse, uses};

/// Requests that wait to be settled; a proxy that finds no room asks again.
const QUEUE: usize = 4_096;
/// Requests that are settled together.
const TOGETHER: usize = 256;
/// Seconds after which a demand that is not repeated is over.
pub const FRESH_SECS: i64 = 10;
/// Between two looks at what other replicas know, and at what is over.
const EXCHANGE: Duration = Duration::from_secs(2);
const SWEEP_EVERY: u32 = 300;

/// A counter of a quota in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaClaim {
    /// The counter.
    pub id: Digest,
    /// For people.
    pub label: String,
    /// Start and end, in seconds since the epoch.
    pub window: (i64, i64),
    /// What may be spent.
    pub quota: u64,
    /// What is claimed.
    pub claim: Claim,
}

/// A rate that is in demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateClaim {
    /// The counter.
    pub id: Digest,
    /// Units per minute, of the whole rate and asked for by the node.
    pub capacity: u64,
    /// Asked for by the node.
    pub demand: u64,
}

/// One node's request.
#[derive(Debug)]
struct Request {
    /// Node and epoch.
    process: String,
    claims: Vec<QuotaClaim>,
    answer: oneshot::Sender<Result<Vec<Grant>, String>>,
}

/// See the module. Clones share one.
#[derive(Clone)]
pub struct Budget {
    requests: mpsc::Sender<Request>,
    rates: Arc<Rates>,
    clock: SharedClock,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Budget")
    }
}

/// What settles; runs beside the service.
pub struct Settler {
    requests: mpsc::Receiver<Request>,
    ledger: Ledger,
    rates: Arc<Rates>,
    /// Name of this replica when there may be others.
    replica: Option<String>,
    clock: SharedClock,
}

impl std::fmt::Debug for Settler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settler")
    }
}

/// A ledger over a store; `replica` names this one when others may share the store.
pub fn new(
    store: Arc<dyn Store>,
    replica: Option<String>,
    clock: SharedClock,
) -> (Budget, Settler) {
    let (requests, received) = mpsc::channel(QUEUE);
    let rates = Arc::new(Rates::new(Arc::clone(&store)));
    let ledger = Ledger::new(store);
    let settler = Settler {
        requests: received,
        ledger,
        rates: Arc::clone(&rates),
        replica,
        clock: Arc::clone(&clock),
    };
    (Budget { requests, rates, clock }, settler)
}

impl Budget {
    /// Settles a node's claims on quotas, in their order.
    ///
    /// # Errors
    /// When the store cannot be reached or too much waits; the node asks again.
    pub async fn settle(
        &self,
        process: String,
        claims: Vec<QuotaClaim>,
    ) -> Result<Vec<Grant>, String> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        let request = Request { process, claims, answer };
        self.requests.try_send(request).map_err(|_| "too many claims wait".to_owned())?;
        answered.await.map_err(|_| "this replica is going away".to_owned())?
    }

    /// A node's parts of the rates that it asks for, of 1000, in their order.
    pub fn shares(&self, node: &NodeId, claims: &[RateClaim]) -> Vec<u32> {
        self.rates.shares(node, claims, seconds(&self.clock))
    }
}

impl Settler {
    /// Settles until the drain.
    pub async fn run(mut self, drain: Watch) {
        let mut exchange = tokio::time::interval(EXCHANGE);
        exchange.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turns = 0_u32;
        let mut together = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                got = self.requests.recv_many(&mut together, TOGETHER) => {
                    if got == 0 {
                        return;
                    }
                    self.settle(std::mem::take(&mut together)).await;
                }
                _ = exchange.tick() => {
                    turns = turns.wrapping_add(1);
                    if let Err(error) = self.keep(turns).await {
                        tracing::debug!(%error, "demands of rates could not be exchanged");
                    }
                }
                () = drain.drained() => return,
            }
        }
    }

    async fn settle(&mut self, requests: Vec<Request>) {
        let mut claims = Vec::new();
        for request in &requests {
            claims.extend(request.claims.iter().map(|claim| (request.process.clone(), claim)));
        }
        let settled = self.ledger.settle(&claims).await;
        drop(claims);
        match settled {
            Ok(grants) => {
                let mut grants = grants.into_iter();
                for request in requests {
                    let own = grants.by_ref().take(request.claims.len()).collect();
                    // A node that has left needs no answer.
                    let _ = request.answer.send(Ok(own));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "quotas cannot be settled");
                for request in requests {
                    let _ = request.answer.send(Err("the ledger cannot be reached".to_owned()));
                }
            }
        }
    }

    async fn keep(&mut self, turns: u32) -> Result<(), StoreError> {
        let now = seconds(&self.clock);
        self.rates.forget(now);
        if let Some(replica) = &self.replica {
            self.rates.exchange(replica, now).await?;
        }
        if turns % SWEEP_EVERY == 1 {
            self.ledger.sweep(now).await?;
        }
        Ok(())
    }
}

fn seconds(clock: &SharedClock) -> i64 {
    i64::try_from(clock.now_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
