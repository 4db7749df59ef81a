//! Phase 6: capacity for the call, counted in calls and not in posts.

use weir_model::policy::Action;
use weir_model::principal::Principal;
use weir_model::reason::Refusal;
use weir_model::snapshot::GroupView;

use super::resolve::Upstream;
use crate::limits::{Limits, Use};

/// Capacity that is held until the answer has ended.
pub use crate::limits::Ticket as Held;

/// Takes capacity for a call to one server.
///
/// # Errors
/// `RateLimited`, `QuotaExceeded`, `ConcurrencyLimited`, `Overloaded`.
pub fn take(
    limits: &Limits,
    group: &GroupView,
    who: &Principal,
    target: &Upstream,
) -> Result<Held, Refusal> {
    let tool = (target.action == Action::CallTool).then_some(target.name.as_deref()).flatten();
    let own = target.tool.as_ref().map_or(1, |tool| tool.cost);
    let cost = tool.map_or(1, |tool| target.server.cost(tool, own));
    limits.take(group, who, Use { server: Some(&target.server.name), tool, cost })
}

/// Takes capacity for a call that the gateway answers itself.
///
/// # Errors
/// As above.
pub fn take_here(limits: &Limits, group: &GroupView, who: &Principal) -> Result<Held, Refusal> {
    limits.take(group, who, Use { server: None, tool: None, cost: 1 })
}
