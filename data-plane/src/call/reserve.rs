//! Phase 6: capacity for the call, counted in calls and not in posts.

use weir_model::policy::Action;
use weir_model::principal::Principal;
use weir_model::reason::Refusal;
use weir_model::snapshot::GroupView;

use super::resolve::Upstream;
use crate::limits::Limits;

/// Capacity that is held until the answer has ended.
pub use crate::limits::Ticket as Held;

/// Takes capacity for a call to one server.
///
/// # Errors
/// `RateLimited`, `ConcurrencyLimited`, `Overloaded`.
pub fn take(
    limits: &Limits,
    group: &GroupView,
    who: &Principal,
    target: &Upstream,
) -> Result<Held, Refusal> {
    let tool = (target.action == Action::CallTool).then_some(target.name.as_deref()).flatten();
    limits.take(group, who, Some(&target.server.name), tool)
}

/// Takes capacity for a call that the gateway answers itself.
///
/// # Errors
/// As above.
pub fn take_here(limits: &Limits, group: &GroupView, who: &Principal) -> Result<Held, Refusal> {
    limits.take(group, who, None, None)
}
