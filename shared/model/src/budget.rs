//! Limits over a fleet: quotas kept in a ledger, and rates shared by demand.
//!
//! **Quotas.** A proxy spends what the ledger granted it and reports what it has spent in all
//! since it started, so a report that arrives twice changes nothing. A grant stays charged until
//! the window ends, whether it is used or not: a proxy that dies takes its unspent rest with it
//! and never makes room twice. So that no call waits for the ledger, a proxy may be ahead of its
//! grant by [`head_start`]. The most that can be spent in a window is therefore
//! `quota + processes * head_start(quota)`, where `processes` counts every start of a proxy that
//! served the counter in that window. A test drives this with losses, repeats and deaths.
//!
//! **Rates.** Each proxy runs a local bucket at its share of the rate. Shares follow demand:
//! nobody gets more than it asks for while others want, and what is left is split evenly.
//!
//! Everything here is a pure function of what it is given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::resource::QuotaWindow;

/// Processes that one account remembers; those of a window that is over go with it.
const PROCESSES_MAX: usize = 4_096;

/// Units by which one proxy may be ahead of the ledger: a hundredth of the quota, 1 to 1,000.
pub fn head_start(quota: u64) -> u64 {
    (quota / 100).clamp(1, 1_000)
}

/// Start and end of the window that a time lies in, in seconds since the epoch, UTC.
pub fn window(per: QuotaWindow, unix: i64) -> (i64, i64) {
    let aligned = |length: i64| {
        let start = unix.div_euclid(length) * length;
        (start, start + length)
    };
    match per {
        QuotaWindow::Hour => aligned(3_600),
        QuotaWindow::Day => aligned(86_400),
        QuotaWindow::Month => {
            let (year, month) = year_and_month(unix.div_euclid(86_400));
            let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            (first_day(year, month) * 86_400, first_day(next.0, next.1) * 86_400)
        }
    }
}

/// Days from the epoch to the first of a month (proleptic Gregorian calendar, years counted from
/// March so that the leap day is the last).
fn first_day(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn year_and_month(day: i64) -> (i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carry, month)
}

/// What one process of a proxy says of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Spent in this window since the process started.
    pub spent: u64,
    /// Wanted beyond that.
    pub wanted: u64,
}

/// What the ledger answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grant {
    /// What the process may have spent in this window in all.
    pub granted: u64,
    /// Nothing is left beyond that, for anybody.
    pub exhausted: bool,
}

/// One counter in one window, as the ledger keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What is counted, for people: `acme/daily principal user:alice`.
    pub label: String,
    /// End of the window, in seconds since the epoch.
    pub ends: i64,
    /// What may be spent, as it was last said.
    pub quota: u64,
    /// By process: node and epoch.
    pub processes: BTreeMap<String, Charge>,
}

/// What one process has had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Reported.
    pub spent: u64,
    /// Granted.
    pub granted: u64,
}

impl Charge {
    fn charged(self) -> u64 {
        self.spent.max(self.granted)
    }
}

impl Account {
    /// Takes a claim in and answers it.
    pub fn settle(&mut self, process: &str, claim: Claim, quota: u64) -> Grant {
        self.quota = quota;
        let known = self.processes.contains_key(process);
        if !known && self.processes.len() >= PROCESSES_MAX {
            return Grant { granted: 0, exhausted: true };
        }
        let others: u64 = self
            .processes
            .iter()
            .filter(|(name, _)| *name != process)
            .fold(0, |sum, (_, charge)| sum.saturating_add(charge.charged()));
        let charge = self.processes.entry(process.to_owned()).or_default();
        // Reports may overtake each other.
        charge.spent = charge.spent.max(claim.spent);
        let left = quota.saturating_sub(others).saturating_sub(charge.charged());
        let reserve = charge.charged() - charge.spent;
        let more = claim.wanted.saturating_sub(reserve);
        // Half of what is left at most, so that the others find something too.
        let given = more.min(left.div_ceil(2));
        charge.granted = charge.charged() + given;
        Grant { granted: charge.granted, exhausted: left == given }
    }

    /// What nobody else can be granted any more: spent, or reserved by somebody.
    pub fn charged(&self) -> u64 {
        self.processes.values().fold(0, |sum, charge| sum.saturating_add(charge.charged()))
    }

    /// Spent by all, as far as it was reported.
    pub fn spent(&self) -> u64 {
        self.processes.values().fold(0, |sum, charge| sum.saturating_add(charge.spent))
    }
}

/// How a capacity is divided among demands (max-min fair): nobody gets more than it wants while
/// somebody else wants more, what is left over is split evenly. The parts add up to the capacity.
pub fn shares(capacity: u64, demands: &[u64]) -> Vec<u64> {
    let mut parts = vec![0; demands.len()];
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|&i| (demands[i], i));
    let mut left = capacity;
    for (done, &i) in order.iter().enumerate() {
        let waiting = (order.len() - done) as u64;
        parts[i] = demands[i].min(left / waiting);
        left -= parts[i];
    }
    let count = parts.len() as u64;
    if let (Some(each), Some(rest)) = (left.checked_div(count), left.checked_rem(count)) {
        for (i, part) in parts.iter_mut().enumerate() {
            *part += each + u64::from((i as u64) < rest);
        }
    }
    parts
}

#[cfg(test)]
mod tests;
