//! Demands of rates by node, and the shares that follow from them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::budget;
use weir_model::id::{Digest, Revision};
use weir_model::sync::identity::NodeId;

use super::{FRESH_SECS, RateClaim};
use crate::store::{Guard, Op, Store, StoreError};

const PATH: &str = "state/rates/";
/// Shares are told in parts of this.
const WHOLE: u64 = 1_000;
/// Rates that are told to other replicas in one entry.
const TOLD_MAX: usize = 5_000;

/// What nodes asked for, by counter and node.
type Demands = HashMap<Digest, BTreeMap<String, Demand>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Demand {
    /// Units per minute.
    units: u64,
    /// Seconds since the epoch.
    at: i64,
}

/// What a replica tells the others.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    at: i64,
    rates: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The rates that this replica knows of.
pub(super) struct Rates {
    store: Arc<dyn Store>,
    here: Mutex<Demands>,
    elsewhere: Mutex<Demands>,
}

impl Rates {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, here: Mutex::default(), elsewhere: Mutex::default() }
    }

    /// Takes demands in; the node's part of each rate, of 1000.
    pub(super) fn shares(&self, node: &NodeId, claims: &[RateClaim], now: i64) -> Vec<u32> {
        let name = node.to_string();
        let mut here = self.here.lock();
        let elsewhere = self.elsewhere.lock();
        let mut share = |claim: &RateClaim| {
            if here.len() >= bounds::SHARED_RATES_MAX && !here.contains_key(&claim.id) {
                return WHOLE;
            }
            let nodes = here.entry(claim.id).or_default();
            nodes.insert(name.clone(), Demand { units: claim.demand, at: now });
            let fresh = |demand: &Demand| now - demand.at <= FRESH_SECS;
            let mut all: BTreeMap<&str, u64> = BTreeMap::new();
            let others = elsewhere.get(&claim.id).into_iter().flatten();
            // A node that has moved between replicas counts once, as we know it.
            for (node, demand) in others.chain(nodes.iter()).filter(|(_, d)| fresh(d)) {
                all.insert(node, demand.units);
            }
            part(claim.capacity, &all, &name)
        };
        let shares = claims.iter().map(|claim| u32::try_from(share(claim)).unwrap_or(1_000));
        shares.collect()
    }

    /// Forgets what was not repeated.
    pub(super) fn forget(&self, now: i64) {
        for demands in [&self.here, &self.elsewhere] {
            demands.lock().retain(|_, nodes| {
                nodes.retain(|_, demand| now - demand.at <= FRESH_SECS);
                !nodes.is_empty()
            });
        }
    }

    /// Tells the other replicas, and hears what they know.
    pub(super) async fn exchange(&self, replica: &str, now: i64) -> Result<(), StoreError> {
        let own = format!("{PATH}{replica}");
        let (mut heard, mut revision, mut was_told) = (Demands::new(), Revision(0), false);
        for entry in self.store.list(PATH).await?.entries {
            let told: Told = serde_json::from_slice(&entry.value).unwrap_or_default();
            if entry.key == own {
                revision = entry.revision;
                was_told = !told.rates.is_empty();
                continue;
            }
            for (id, nodes) in told.rates {
                let Ok(id) = id.parse::<Digest>() else { continue };
                let known = heard.entry(id).or_default();
                let demand = |units| Demand { units, at: told.at };
                known.extend(nodes.into_iter().map(|(node, units)| (node, demand(units))));
            }
        }
        *self.elsewhere.lock() = heard;
        let rates: BTreeMap<_, BTreeMap<_, _>> = self
            .here
            .lock()
            .iter()
            .take(TOLD_MAX)
            .map(|(id, nodes)| {
                (
                    id.hex(),
                    nodes.iter().map(|(node, demand)| (node.clone(), demand.units)).collect(),
                )
            })
            .collect();
        if rates.is_empty() && !was_told {
            return Ok(());
        }
        let value = serde_json::to_vec(&Told { at: now, rates })
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let guard = Guard { key: own.clone(), revision };
        self.store.commit(vec![guard], vec![Op::Put(own, value.into())]).await.map(drop)
    }
}

/// A node's part of a rate: max-min fair by demand.
fn part(capacity: u64, demands: &BTreeMap<&str, u64>, node: &str) -> u64 {
    let scaled: Vec<u64> = demands.values().map(|units| units.saturating_mul(WHOLE)).collect();
    let parts = budget::shares(capacity.saturating_mul(WHOLE), &scaled);
    let place = demands.keys().position(|name| *name == node).unwrap_or_default();
    let part = parts.get(place).copied().unwrap_or_default() / capacity.max(1);
    part.clamp(1, WHOLE)
}
