//! Rates, concurrency and quotas, counted in calls or in what servers say that calls cost.
//!
//! Each limit has a bucket per value of what it counts (group, caller, server, tool). Buckets are
//! told apart by group, name and contents of the limit, so that they outlive snapshots and begin
//! anew when the limit is edited. Rates are a generic cell rate algorithm: one time per bucket,
//! no timer. All limits of a call are taken together or not at all.
//!
//! Rates and concurrency are of the whole fleet: each proxy runs its bucket at a share that follows
//! demand ([`weir_model::budget::shares`]); a bucket begins with the whole, until the control plane
//! has heard of it. So of a limit of N calls in flight, P proxies let N in between them once they
//! have reported (within [`bounds::BUDGET_REPORT_MS`]), or P where that is more, since each proxy
//! lets one in; never more than N each, whatever is lost. Quotas are kept in a ledger ([`quotas`]).
//! [`fleet`] is what control plane and proxy tell each other of both; while they cannot, shares
//! stay as they are and quotas end a little beyond their grants.

mod buckets;
mod compiled;
pub mod fleet;
mod metrics;
pub mod quotas;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::LimitUnit;
use weir_model::snapshot::GroupView;
use weir_runtime::clock::{SharedClock, SystemClock};
use weir_runtime::metrics::Metrics;

use buckets::{Buckets, Demand, Full, Shape};
use compiled::{Compiled, Ready, Value};
use metrics::Refused;
use quotas::{Quotas, Spend, Spent};

pub use metrics::LimitMetrics;

/// The limits of a proxy, and how far they are used.
#[derive(Debug)]
pub struct Limits {
    buckets: Arc<Buckets>,
    quotas: Quotas,
    groups: ArcSwap<HashMap<Name, Arc<Compiled>>>,
    hashers: [RandomState; 2],
    start: Instant,
    clock: SharedClock,
    /// Woken when the ledger should hear of something soon.
    news: Notify,
    refused: Option<Refused>,
    /// When the ledger was told what it has not answered, in nanoseconds; 0 for never.
    told: AtomicU64,
}

/// What a call is to, and what it counts for.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// Of the call; none for what the gateway answers itself.
    pub server: Option<&'a Name>,
    /// Of a tool call.
    pub tool: Option<&'a str>,
    /// Units, for limits that count cost.
    pub cost: u32,
}

/// Capacity taken for one call; given back when dropped.
#[derive(Debug, Default)]
#[must_use = "a dropped ticket gives its capacity back"]
pub struct Ticket {
    held: Vec<u128>,
    buckets: Option<Arc<Buckets>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(buckets) = &self.buckets {
            self.held.iter().for_each(|key| buckets.release(*key));
        }
    }
}

/// Something that was taken, to be given back when a later limit refuses.
#[derive(Debug, Clone, Copy)]
enum Paid {
    Bucket { key: u128, shape: Shape, units: u64 },
    Quota { key: u128, units: u64 },
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(bounds::LIMIT_BUCKETS_MAX, SystemClock::shared())
    }
}

impl Limits {
    /// Limits with at most that many buckets.
    pub fn new(buckets_max: usize, clock: SharedClock) -> Self {
        Self {
            buckets: Arc::new(Buckets::new(buckets_max)),
            quotas: Quotas::default(),
            groups: ArcSwap::default(),
            hashers: [RandomState::new(), RandomState::new()],
            start: Instant::now(),
            clock,
            news: Notify::new(),
            refused: None,
            told: AtomicU64::new(0),
        }
    }

    /// The same, measured.
    #[must_use]
    pub fn measured(self, metrics: &Metrics) -> Arc<Self> {
        let limits = Arc::new(Self { refused: Some(Refused::register(metrics)), ..self });
        metrics.collector(LimitMetrics(Arc::clone(&limits)));
        limits
    }

    /// How long the ledger has owed an answer.
    pub fn lag(&self) -> Duration {
        match self.told.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            told => Duration::from_nanos(self.now().saturating_sub(told)),
        }
    }

    /// Buckets, and counters of quotas.
    pub fn counted(&self) -> (usize, usize) {
        (self.buckets.len(), self.quotas.len())
    }

    /// Takes capacity from every limit of the group that concerns the call.
    ///
    /// # Errors
    /// `RateLimited`, `QuotaExceeded` and `ConcurrencyLimited` with the time to wait, or
    /// `Overloaded` when there is no room for one more bucket. Nothing is taken then.
    pub fn take(
        &self,
        group: &GroupView,
        principal: &Principal,
        wanted: Use<'_>,
    ) -> Result<Ticket, Refusal> {
        let mut ticket = Ticket::default();
        if group.limits.is_empty() {
            return Ok(ticket);
        }
        let compiled = self.compiled(group);
        let caller = principal.id();
        let mut paid: Vec<Paid> = Vec::new();
        for limit in &compiled.limits {
            let Some(value) = limit.value(&caller, wanted.server, wanted.tool) else { continue };
            if let Err(refusal) = self.pay(limit, &value, wanted.cost, &mut paid) {
                paid.iter().for_each(|paid| self.give_back(*paid));
                if let Some(refused) = &self.refused {
                    refused.count(&group.name, &limit.name, refusal.reason);
                }
                return Err(refusal);
            }
        }
        let held = paid.iter().filter_map(|paid| match paid {
            Paid::Bucket { key, shape, .. } if shape.concurrency.is_some() => Some(*key),
            _ => None,
        });
        ticket.held = held.collect();
        if !ticket.held.is_empty() {
            ticket.buckets = Some(Arc::clone(&self.buckets));
        }
        Ok(ticket)
    }

    /// Takes what one limit asks for: bucket first, then quota.
    fn pay(
        &self,
        limit: &Ready,
        value: &Value<'_>,
        cost: u32,
        paid: &mut Vec<Paid>,
    ) -> Result<(), Refusal> {
        let units = match limit.count {
            LimitUnit::Calls => 1,
            LimitUnit::Cost => u64::from(cost),
        };
        if limit.shape.counts() {
            let key = self.key(&limit.identity, value);
            let now = self.now();
            let demand = Demand { shape: limit.shape, units, now };
            let name = || limit.named(&limit.identity, value);
            self.buckets.take(key, demand, name).map_err(|full| refuse(limit, full))?;
            paid.push(Paid::Bucket { key, shape: limit.shape, units });
        }
        if let Some((quota, per)) = limit.quota {
            let key = self.key(&limit.account, value);
            let spend = Spend { quota, per, units, unix: self.unix() };
            let taken = self.quotas.take(key, spend, || limit.named(&limit.account, value));
            if !matches!(taken, Ok(false)) {
                self.news.notify_one();
            }
            taken.map_err(|spent| over(limit, spent))?;
            paid.push(Paid::Quota { key, units });
        }
        Ok(())
    }

    fn give_back(&self, paid: Paid) {
        match paid {
            Paid::Bucket { key, shape, units } => self.buckets.give_back(key, shape, units),
            Paid::Quota { key, units } => self.quotas.give_back(key, units),
        }
    }

    /// Nanoseconds since these limits were made.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn unix(&self) -> i64 {
        i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX)
    }

    /// The group's limits with their patterns compiled; made when they are seen first.
    fn compiled(&self, group: &GroupView) -> Arc<Compiled> {
        let groups = self.groups.load();
        if let Some(found) = groups.get(&group.name).filter(|c| c.source == group.limits) {
            return Arc::clone(found);
        }
        let compiled = Arc::new(Compiled::new(group));
        self.groups.rcu(|groups| {
            let mut groups = HashMap::clone(groups);
            groups.insert(group.name.clone(), Arc::clone(&compiled));
            groups
        });
        compiled
    }

    /// Two independent halves: chance collisions of 128 bits do not happen, and nobody outside
    /// knows the seeds.
    fn key(&self, identity: &str, value: &Value<'_>) -> u128 {
        let [a, b] = &self.hashers;
        let half = |hasher: &RandomState| u128::from(hasher.hash_one((identity, value)));
        (half(a) << 64) | half(b)
    }
}

fn refuse(limit: &Ready, full: Full) -> Refusal {
    let name = &limit.name;
    match full {
        Full::Rate { wait_nanos } => {
            let secs = wait_nanos.div_ceil(1_000_000_000).max(1);
            Refusal::new(Reason::RateLimited, format!("limit {name}")).retry_after(secs)
        }
        Full::Closed => Refusal::new(Reason::RateLimited, format!("limit {name} allows no call")),
        Full::Concurrency => {
            Refusal::new(Reason::ConcurrencyLimited, format!("limit {name}")).retry_after(1)
        }
        Full::Buckets => {
            let detail = format!("no room for another bucket of limit {name}");
            Refusal::new(Reason::Overloaded, detail).retry_after(1)
        }
    }
}

fn over(limit: &Ready, spent: Spent) -> Refusal {
    let name = &limit.name;
    match spent {
        Spent::Over { wait_secs } => {
            Refusal::new(Reason::QuotaExceeded, format!("limit {name}")).retry_after(wait_secs)
        }
        Spent::Unanswered => {
            let detail = format!("limit {name}: more than was granted so far");
            Refusal::new(Reason::QuotaExceeded, detail).retry_after(1)
        }
        Spent::Counters => {
            let detail = format!("no room for another counter of limit {name}");
            Refusal::new(Reason::Overloaded, detail).retry_after(1)
        }
    }
}

#[cfg(test)]
mod tests;
