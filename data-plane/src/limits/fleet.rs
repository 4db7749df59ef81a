//! What this proxy tells the fleet of its limits, and what it is told: claims on quotas with
//! grants, demands of rates with shares.

use std::sync::atomic::Ordering;
use std::time::Duration;

use weir_model::bounds;
use weir_model::budget::Grant;
use weir_model::id::Digest;

use super::Limits;
use super::buckets::Shared;
use super::quotas::Due;

/// What the control plane is told of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Units of a quota.
    Quota(Due),
    /// Demand of a rate.
    Rate(Rate),
}

/// A rate, or a number of calls in flight, that is in demand here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    key: u128,
    of: Shared,
    /// Digest that all proxies agree on.
    pub id: Digest,
    /// For people.
    pub label: String,
    /// Units per minute that the whole rate allows, or calls in flight.
    pub capacity: u64,
    /// As many of them as are asked for here.
    pub demand: u64,
}

/// What the control plane says to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Of a quota.
    Grant(Grant),
    /// Part of a rate, of 1000.
    Share(u32),
}

const MINUTE_NANOS: u64 = 60_000_000_000;

impl Limits {
    /// Waits until there is something that the ledger should hear of at once.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// What there is to tell after `elapsed` since the last time, at most
    /// [`bounds::BUDGET_CLAIMS_MAX`]; quotas first.
    pub fn tell(&self, elapsed: Duration) -> Vec<Told> {
        let most = bounds::BUDGET_CLAIMS_MAX;
        let quotas = self.quotas.due(self.unix(), most);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(1);
        let rates = self.buckets.asked(nanos, most - quotas.len());
        let rate = |asked: super::buckets::Asked| Rate {
            key: asked.key,
            of: asked.of,
            id: match asked.of {
                Shared::Rate { .. } => asked.name.0,
                // Another counter than that of the same limit's rate.
                Shared::Concurrency { .. } => {
                    Digest::of_parts(&[b"in flight\0", asked.name.0.0.as_slice()])
                }
            },
            label: asked.name.1,
            capacity: match asked.of {
                Shared::Rate { interval } => (MINUTE_NANOS / interval).max(1),
                Shared::Concurrency { most } => u64::from(most),
            },
            demand: match asked.of {
                Shared::Rate { .. } => {
                    let demand = u128::from(asked.demand) * u128::from(MINUTE_NANOS);
                    u64::try_from(demand / u128::from(nanos)).unwrap_or(u64::MAX)
                }
                Shared::Concurrency { .. } => asked.demand,
            },
        };
        let rates = rates.into_iter().map(|asked| Told::Rate(rate(asked)));
        let told: Vec<Told> = quotas.into_iter().map(Told::Quota).chain(rates).collect();
        if !told.is_empty() {
            let now = self.now().max(1);
            let _ = self.told.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        told
    }

    /// The answer to something that was told.
    pub fn hear(&self, told: &Told, heard: Heard) {
        self.told.store(0, Ordering::Relaxed);
        match (told, heard) {
            (Told::Quota(due), Heard::Grant(grant)) => self.quotas.granted(due, grant),
            (Told::Rate(rate), Heard::Share(share)) => self.buckets.share(rate.key, rate.of, share),
            _ => tracing::warn!("the control plane answered a claim with something else"),
        }
    }
}
