//! Quotas: what this process has spent of each counter, and what the ledger granted it.
//!
//! A call never waits for the ledger. It may be ahead of the grant by
//! [`budget::head_start`]; the bound on what that can overdraw is told there.

use std::collections::HashMap;

use parking_lot::Mutex;
use weir_model::bounds;
use weir_model::budget::{self, Claim, Grant};
use weir_model::id::Digest;
use weir_model::resource::QuotaWindow;

/// What is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spend {
    /// Of the quota.
    pub(super) quota: u64,
    /// In which windows.
    pub(super) per: QuotaWindow,
    /// Units.
    pub(super) units: u64,
    /// Seconds since the epoch.
    pub(super) unix: i64,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    /// Nothing is left; seconds until there is.
    Over { wait_secs: u64 },
    /// The ledger has not answered yet.
    Unanswered,
    /// There are too many counters.
    Counters,
}

/// A counter that the ledger should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    key: u128,
    /// Digest that all proxies agree on.
    pub id: Digest,
    /// For people.
    pub label: String,
    /// Start and end of the window.
    pub window: (i64, i64),
    /// The whole quota.
    pub quota: u64,
    /// What is claimed.
    pub claim: Claim,
}

#[derive(Debug)]
struct Counter {
    id: Digest,
    label: String,
    window: (i64, i64),
    quota: u64,
    spent: u64,
    grant: Grant,
    /// What the ledger heard last.
    reported: Option<u64>,
    /// Units that found no room since then.
    missed: u64,
}

/// All counters of this process.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    counters: Mutex<HashMap<u128, Counter>>,
}

impl Quotas {
    /// Takes units; `name` is asked for the counter's identity and label when it is new. True
    /// when the ledger should hear of it soon.
    pub(super) fn take(
        &self,
        key: u128,
        spend: Spend,
        name: impl FnOnce() -> (Digest, String),
    ) -> Result<bool, Spent> {
        let mut counters = self.counters.lock();
        if !counters.contains_key(&key) {
            if counters.len() >= bounds::QUOTA_COUNTERS_MAX {
                counters.retain(|_, counter| counter.window.1 > spend.unix);
            }
            if counters.len() >= bounds::QUOTA_COUNTERS_MAX {
                return Err(Spent::Counters);
            }
            let (id, label) = name();
            counters.insert(key, Counter::new((id, label), spend));
        }
        let counter = counters.get_mut(&key).ok_or(Spent::Counters)?;
        counter.turn(spend);
        let ahead = if counter.grant.exhausted { 0 } else { budget::head_start(spend.quota) };
        if counter.spent.saturating_add(spend.units) > counter.grant.granted.saturating_add(ahead) {
            counter.missed = counter.missed.saturating_add(spend.units);
            let wait = u64::try_from(counter.window.1 - spend.unix).unwrap_or(0).max(1);
            return Err(match counter.grant.exhausted {
                true => Spent::Over { wait_secs: wait },
                false => Spent::Unanswered,
            });
        }
        counter.spent += spend.units;
        Ok(counter.spent >= counter.grant.granted)
    }

    /// Undoes a [`Self::take`] of a call that did not happen.
    pub(super) fn give_back(&self, key: u128, units: u64) {
        if let Some(counter) = self.counters.lock().get_mut(&key) {
            counter.spent = counter.spent.saturating_sub(units);
        }
    }

    /// What the ledger should hear of, at most `most`; forgets what is over.
    pub(super) fn due(&self, unix: i64, most: usize) -> Vec<Due> {
        let mut counters = self.counters.lock();
        // The last word of a window that is over has nobody to hear it.
        counters.retain(|_, counter| counter.window.1 > unix);
        counters
            .iter()
            .filter(|(_, counter)| counter.is_due())
            .take(most)
            .map(|(key, counter)| Due {
                key: *key,
                id: counter.id,
                label: counter.label.clone(),
                window: counter.window,
                quota: counter.quota,
                claim: counter.claim(),
            })
            .collect()
    }

    /// The ledger's answer to a claim.
    pub(super) fn granted(&self, due: &Due, grant: Grant) {
        let mut counters = self.counters.lock();
        let Some(counter) = counters.get_mut(&due.key) else { return };
        // The window may have turned while the answer was on its way.
        if counter.window == due.window {
            counter.grant = grant;
            counter.reported = Some(due.claim.spent);
            counter.missed = 0;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.counters.lock().len()
    }
}

impl Counter {
    fn new((id, label): (Digest, String), spend: Spend) -> Self {
        Self {
            id,
            label,
            window: budget::window(spend.per, spend.unix),
            quota: spend.quota,
            spent: 0,
            grant: Grant::default(),
            reported: None,
            missed: 0,
        }
    }

    /// Begins anew in a new window; hears of a quota that was edited.
    fn turn(&mut self, spend: Spend) {
        if spend.unix >= self.window.1 {
            let name = (self.id, std::mem::take(&mut self.label));
            *self = Self::new(name, spend);
        } else if spend.quota != self.quota {
            self.quota = spend.quota;
            self.grant.exhausted = false;
        }
    }

    fn is_due(&self) -> bool {
        self.reported != Some(self.spent) || (self.missed > 0 && !self.grant.exhausted)
    }

    fn claim(&self) -> Claim {
        let lately = self.spent.saturating_sub(self.reported.unwrap_or(0));
        Claim { spent: self.spent, wanted: 2 * lately + self.missed + 1 }
    }
}
