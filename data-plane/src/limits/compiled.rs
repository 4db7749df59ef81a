//! The limits of a group with their patterns parsed and their numbers turned into times.

use std::hash::Hash;

use weir_model::id::{Digest, Name};
use weir_model::policy::Patterns;
use weir_model::resource::{Limit, LimitScope, LimitUnit, QuotaWindow, RateUnit};
use weir_model::snapshot::GroupView;

use super::buckets::Shape;

/// The limits of one group.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) source: Vec<(Name, Limit)>,
    pub(super) limits: Vec<Ready>,
}

/// One limit.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) name: Name,
    per: LimitScope,
    servers: Option<Patterns>,
    tools: Option<Patterns>,
    pub(super) shape: Shape,
    pub(super) quota: Option<(u64, QuotaWindow)>,
    pub(super) count: LimitUnit,
    /// With the contents: a bucket begins anew when the limit is edited.
    pub(super) identity: String,
    /// Without: what was spent of a quota stays spent.
    pub(super) account: String,
    group: Name,
}

/// What a bucket belongs to.
#[derive(Debug, Hash)]
pub(super) enum Value<'a> {
    Group,
    Principal(&'a str),
    Server(&'a Name),
    Tool(&'a Name, &'a str),
}

impl Compiled {
    pub(super) fn new(group: &GroupView) -> Self {
        let source = group.limits.clone();
        let ready = |(name, limit): &(Name, Limit)| Ready {
            name: name.clone(),
            per: limit.per,
            servers: patterns(&limit.servers),
            tools: patterns(&limit.tools),
            shape: shape(limit),
            quota: limit.quota.as_ref().map(|quota| (quota.calls, quota.per)),
            count: limit.count,
            identity: format!("{}\0{name}\0{limit:?}", group.name),
            account: format!(
                "quota\0{}\0{name}\0{:?}\0{:?}\0{:?}",
                group.name,
                limit.per,
                limit.count,
                limit.quota.as_ref().map(|quota| quota.per)
            ),
            group: group.name.clone(),
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
    pub(super) fn value<'a>(
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

    /// The counter's digest, the same on every proxy, and what to call it towards people.
    pub(super) fn named(&self, identity: &str, value: &Value<'_>) -> (Digest, String) {
        let value = match value {
            Value::Group => "group".to_owned(),
            Value::Principal(id) => format!("principal {id}"),
            Value::Server(server) => format!("server {server}"),
            Value::Tool(server, tool) => format!("tool {server}/{tool}"),
        };
        let digest = Digest::of_parts(&[identity.as_bytes(), b"\0", value.as_bytes()]);
        let label = format!("{}/{} {value}", self.group, self.name);
        (digest, label.chars().take(LABEL_CHARS_MAX).collect())
    }
}

/// Longest label of a counter.
const LABEL_CHARS_MAX: usize = 300;
