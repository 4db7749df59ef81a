//! What this proxy tells the fleet of its limits, and what it is told: claims on quotas with
//! grants, demands of rates with shares.

use std::time::Duration;

use weir_model::bounds;
use weir_model::budget::Grant;
use weir_model::id::Digest;

use super::Limits;
use super::quotas::Due;

/// What the control plane is told of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Units of a quota.
    Quota(Due),
    /// Demand of a rate.
    Rate(Rate),
}

/// A rate that is in demand here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    key: u128,
    /// Digest that all proxies agree on.
    pub id: Digest,
    /// For people.
    pub label: String,
    /// Units per minute that the whole rate allows.
    pub capacity: u64,
    /// Units per minute that are asked for here.
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
            id: asked.name.0,
            label: asked.name.1,
            capacity: (MINUTE_NANOS / asked.interval).max(1),
            demand: u64::try_from(
                u128::from(asked.demand) * u128::from(MINUTE_NANOS) / u128::from(nanos),
            )
            .unwrap_or(u64::MAX),
        };
        let rates = rates.into_iter().map(|asked| Told::Rate(rate(asked)));
        quotas.into_iter().map(Told::Quota).chain(rates).collect()
    }

    /// The answer to something that was told.
    pub fn hear(&self, told: &Told, heard: Heard) {
        match (told, heard) {
            (Told::Quota(due), Heard::Grant(grant)) => self.quotas.granted(due, grant),
            (Told::Rate(rate), Heard::Share(share)) => self.buckets.share(rate.key, share),
            _ => tracing::warn!("the control plane answered a claim with something else"),
        }
    }
}
