//! Questions that people put to the rules: why, what if, and was it so.
//!
//! Pure, over a compiled group: the command line and the REST API both answer from here.
//! [`explain`] tells every rule that had a say and what would have to change; [`Case`]s say what
//! must be true and are checked one by one; [`replay`] puts recorded calls to two sets of documents;
//! [`recompute`] makes one recorded decision again.

mod ask;
mod case;
mod explain;
mod recompute;
mod record;
mod replay;
#[cfg(test)]
mod tests;

pub use ask::{Ask, Call, Caller, Place};
pub use case::{Case, Cases, Expect, Verdict};
pub(super) use explain::ROLE_NAMES;
pub use explain::{Clause, Considered, Explanation, explain};
pub use recompute::{Recomputed, recompute};
pub use record::Recorded;
pub use replay::{Example, Moved, Replay, replay};

use std::collections::BTreeMap;

use super::Decision;

/// What a caller is told: `allowed`, or the label of the refusal. `grants` says whether anything
/// would allow it if nothing forbade it: nobody else is told of scopes.
pub fn told(decision: &Decision, grants: impl FnOnce() -> bool) -> &'static str {
    if decision.allowed {
        let approved = super::obligation::approvers(&decision.obligations).is_empty();
        return if approved { "allowed" } else { "approval_required" };
    }
    let scopes = decision.obligations.iter().filter(|(key, _)| key == super::obligation::SCOPE);
    let scoped = scopes.count() == decision.rules.len() && !decision.rules.is_empty();
    if scoped && decision.errors.is_empty() && grants() { "insufficient_scope" } else { "denied" }
}

/// Annotations of deciding rules by their names.
fn by_name(obligations: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in obligations {
        all.entry(name.clone()).or_default().push(value.clone());
    }
    all
}
