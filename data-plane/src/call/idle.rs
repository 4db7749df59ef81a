//! Bounds that a group puts on sessions: how long one may be idle, and how many a principal has.

use weir_model::principal::Principal;
use weir_model::reason::Refusal;

use super::Gateway;
use super::client::Client;
use super::endpoint::Endpoint;
use super::inbound::Call;
use crate::mcp::session;

/// Checks a request of a session, or one that begins one.
///
/// # Errors
/// [`weir_model::reason::Reason::SessionUnknown`] for one that was idle for too long,
/// [`weir_model::reason::Reason::ConcurrencyLimited`] for one too many.
pub async fn check(
    gateway: &Gateway,
    endpoint: &Endpoint,
    (call, client): (&Call<'_>, &Client),
    (who, now): (&Principal, i64),
) -> Result<(), Refusal> {
    let limits = endpoint.group.spec.sessions;
    let Some(session) = &client.session else { return Ok(()) };
    if call.message().is_some_and(|message| message.method() == Some("initialize")) {
        return gateway.live.admit(&who.id(), limits, (&gateway.ended, now));
    }
    let Some(idle) = limits.idle_secs.map(i64::from) else { return Ok(()) };
    let before = gateway.live.touch(&session.nonce, now);
    if now.saturating_sub(session.created) <= idle || before.may_be_live(idle, now) {
        return Ok(());
    }
    // Not here, for long enough; perhaps at another proxy.
    if gateway.neighbours.may_be_live(&session.nonce, (idle, now)).await {
        return Ok(());
    }
    gateway.neighbours.end(&session.nonce).await;
    Err(session::unknown("idle for too long"))
}
