//! Rates and concurrency, counted in calls on this proxy.
//!
//! Each limit has a bucket per value of what it counts (group, caller, server, tool). Buckets are
//! told apart by group, name and contents of the limit, so that they outlive snapshots and begin
//! anew when the limit is edited. Rates are a generic cell rate algorithm: one time per bucket,
//! no timer. All limits of a call are taken together or not at all.

mod buckets;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::policy::Patterns;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{Limit, LimitScope, RateUnit};
use weir_model::snapshot::GroupView;

use buckets::{Buckets, Demand, Full, Shape};

/// The limits of a proxy, and how far they are used.
#[derive(Debug)]
pub struct Limits {
    buckets: Arc<Buckets>,
    groups: ArcSwap<HashMap<Name, Arc<Compiled>>>,
    hashers: [RandomState; 2],
    start: Instant,
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

/// The limits of a group, ready to be matched.
#[derive(Debug)]
struct Compiled {
    source: Vec<(Name, Limit)>,
    limits: Vec<Ready>,
}

#[derive(Debug)]
struct Ready {
    name: Name,
    per: LimitScope,
    servers: Option<Patterns>,
    tools: Option<Patterns>,
    shape: Shape,
    /// Of group, name and contents.
    identity: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(bounds::LIMIT_BUCKETS_MAX)
    }
}

impl Limits {
    /// Limits with at most that many buckets.
    pub fn new(buckets_max: usize) -> Self {
        Self {
            buckets: Arc::new(Buckets::new(buckets_max)),
            groups: ArcSwap::default(),
            hashers: [RandomState::new(), RandomState::new()],
            start: Instant::now(),
        }
    }

    /// Buckets in use, for the status page.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Takes capacity for one call. `server` and `tool` (the upstream's own name) are none where
    /// the call is about none; limits that count or select by them do not concern it then.
    ///
    /// # Errors
    /// `RateLimited` with the time to wait, `ConcurrencyLimited`, or `Overloaded` when there is no
    /// room for one more bucket. Nothing is taken then.
    pub fn take(
        &self,
        group: &GroupView,
        principal: &Principal,
        server: Option<&Name>,
        tool: Option<&str>,
    ) -> Result<Ticket, Refusal> {
        let mut ticket = Ticket::default();
        if group.limits.is_empty() {
            return Ok(ticket);
        }
        let compiled = self.compiled(group);
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let caller = principal.id();
        let mut paid: Vec<(u128, Shape)> = Vec::new();
        for limit in &compiled.limits {
            let Some(value) = limit.value(&caller, server, tool) else { continue };
            let key = self.key(&limit.identity, &value);
            match self.buckets.take(key, Demand { shape: limit.shape, now }) {
                Ok(()) => paid.push((key, limit.shape)),
                Err(full) => {
                    paid.iter().for_each(|(key, shape)| self.buckets.give_back(*key, *shape));
                    return Err(refuse(limit, full));
                }
            }
        }
        let held = paid.iter().filter(|(_, shape)| shape.concurrency.is_some());
        ticket.held = held.map(|(key, _)| *key).collect();
        if !ticket.held.is_empty() {
            ticket.buckets = Some(Arc::clone(&self.buckets));
        }
        Ok(ticket)
    }

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

    fn key(&self, identity: &str, value: &Value<'_>) -> u128 {
        let [a, b] = &self.hashers;
        let half = |hasher: &RandomState| u128::from(hasher.hash_one((identity, value)));
        (half(a) << 64) | half(b)
    }
}

/// What a bucket belongs to.
#[derive(Debug, Hash)]
enum Value<'a> {
    Group,
    Principal(&'a str),
    Server(&'a Name),
    Tool(&'a Name, &'a str),
}

impl Compiled {
    fn new(group: &GroupView) -> Self {
        let source = group.limits.clone();
        let ready = |(name, limit): &(Name, Limit)| Ready {
            name: name.clone(),
            per: limit.per,
            servers: patterns(&limit.servers),
            tools: patterns(&limit.tools),
            shape: shape(limit),
            identity: format!("{}\0{name}\0{limit:?}", group.name),
        };
        let limits = source.iter().map(ready).collect();
        Self { source, limits }
    }
}

/// None for an empty list, which means all. Admission refuses bad patterns; one that got here
/// anyway selects everything: a limit that is too wide is the safe mistake.
fn patterns(texts: &[String]) -> Option<Patterns> {
    if texts.is_empty() { None } else { Patterns::parse(texts).ok() }
}

fn shape(limit: &Limit) -> Shape {
    let rate = limit.rate.as_ref().map(|rate| {
        let period: u64 = match rate.per {
            RateUnit::Second => 1_000_000_000,
            RateUnit::Minute => 60_000_000_000,
            RateUnit::Hour => 3_600_000_000_000,
        };
        let interval = period.checked_div(u64::from(rate.calls)).unwrap_or(u64::MAX).max(1);
        let burst = u64::from(rate.burst.unwrap_or(rate.calls).max(1));
        (interval, interval.saturating_mul(burst - 1))
    });
    let closed = limit.rate.as_ref().is_some_and(|rate| rate.calls == 0);
    Shape { rate: rate.filter(|_| !closed), closed, concurrency: limit.concurrency }
}

impl Ready {
    /// What the call counts for; none when the limit does not concern it.
    fn value<'a>(
        &self,
        caller: &'a str,
        server: Option<&'a Name>,
        tool: Option<&'a str>,
    ) -> Option<Value<'a>> {
        let concerns = |patterns: &Option<Patterns>, value: Option<&str>| match patterns {
            None => true,
            Some(patterns) => value.is_some_and(|value| patterns.matches(value)),
        };
        if !concerns(&self.servers, server.map(Name::as_str)) || !concerns(&self.tools, tool) {
            return None;
        }
        Some(match self.per {
            LimitScope::Group => Value::Group,
            LimitScope::Principal => Value::Principal(caller),
            LimitScope::Server => Value::Server(server?),
            LimitScope::Tool => Value::Tool(server?, tool?),
        })
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

#[cfg(test)]
mod tests;
