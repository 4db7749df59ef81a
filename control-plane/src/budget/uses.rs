//! Who has used what of which quota, as the ledger has it: for operators.

use weir_model::budget::Account;
use weir_model::id::Name;

use super::ledger::{PATH, read};
use crate::store::{Store, StoreError};

/// What is left of one quota for whoever it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaUse {
    /// The limit.
    pub limit: String,
    /// What it counts: `principal`, `server`, `tool` or `group`.
    pub per: String,
    /// Which of them; empty for the group.
    pub of: String,
    /// Units that may be used.
    pub quota: u64,
    /// Units that proxies have reported.
    pub used: u64,
    /// Units that nobody can be granted any more: used, or reserved by a proxy.
    pub charged: u64,
    /// When the window began and when it ends, in seconds since the epoch.
    pub window: (i64, i64),
}

/// Uses of a group's quotas in the windows that run now, those nearest to their end first.
///
/// # Errors
/// Those of the store.
pub async fn uses(store: &dyn Store, group: &Name, now: i64) -> Result<Vec<QuotaUse>, StoreError> {
    let mut uses = Vec::new();
    for entry in store.list(PATH).await?.entries {
        let Ok(account) = read(&entry) else { continue };
        let begins = entry.key.rsplit('/').next().and_then(|text| text.parse().ok());
        let window = (begins.unwrap_or(0), account.ends);
        if (window.0..window.1).contains(&now)
            && let Some(found) = of(&account, group, window)
        {
            uses.push(found);
        }
    }
    // By what is left, the least first.
    let left = |a: &QuotaUse| a.quota.saturating_sub(a.used).saturating_mul(1_000) / a.quota.max(1);
    uses.sort_by(|a, b| {
        (left(a), &a.limit, &a.of, a.window).cmp(&(left(b), &b.limit, &b.of, b.window))
    });
    Ok(uses)
}

/// Labels are `group/limit what which`.
fn of(account: &Account, group: &Name, window: (i64, i64)) -> Option<QuotaUse> {
    let rest = account.label.strip_prefix(group.as_str())?.strip_prefix('/')?;
    let (limit, value) = rest.split_once(' ')?;
    let (per, of) = value.split_once(' ').unwrap_or((value, ""));
    let charged = account.charged();
    Some(QuotaUse {
        limit: limit.to_owned(),
        per: per.to_owned(),
        of: of.to_owned(),
        quota: account.quota,
        used: account.spent(),
        charged,
        window,
    })
}
