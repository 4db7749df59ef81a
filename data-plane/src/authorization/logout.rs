//! Where identity providers say that somebody signed out (OIDC Back-Channel Logout 1.0):
//! `POST /authorize/logout/{group}/{provider}` with a `logout_token`.
//!
//! The token is judged like every other token of that provider: its signature, its issuer, an
//! audience that is the gateway (or another client that the provider's document names), its times;
//! and it must be a logout token and nothing else: with the event, without a nonce. What it names
//! is revoked everywhere: the session, or else whatever the person was issued until now. The
//! provider hears 200 only when that is in the store; it tries again otherwise.

use http::{Response, StatusCode};
use serde_json::json;
use weir_model::sign_in::{Ended, SignedOut, Step};

use super::Desk;
use super::answer::{self, Fault};
use super::form::Fields;
use crate::call::Body;

/// The path below which providers are told apart.
pub(super) const PATH: &str = "/authorize/logout/";

/// POST below [`PATH`].
pub(super) async fn logout(desk: &Desk<'_>, path: &str, body: &[u8]) -> Response<Body> {
    desk.trail.step("sign_in.logout");
    match signed_out(desk, path, body).await {
        Ok(()) => answer::object(StatusCode::OK, &json!({})),
        Err(fault) => {
            tracing::warn!(path, code = fault.code, text = fault.text, "no sign-out");
            desk.trail.refused(&fault);
            fault.answer()
        }
    }
}

async fn signed_out(desk: &Desk<'_>, path: &str, body: &[u8]) -> Result<(), Fault> {
    let nobody = || Fault::request("there is no such identity provider");
    let place = path.strip_prefix(PATH).and_then(|place| place.split_once('/'));
    let (group, name) = place.ok_or_else(nobody)?;
    let group = desk.snapshot.groups.get(group).filter(|group| group.quarantined.is_none());
    let group = group.ok_or_else(nobody)?;
    let provider = group.providers.iter().find(|p| p.name.as_str() == name).ok_or_else(nobody)?;
    desk.trail.group(&group.name, provider.name.as_str());
    let fields = Fields::read(body).map_err(Fault::request)?;
    let token = fields.need("logout_token").map_err(Fault::request)?;
    let out = desk.gateway.keys.signed_out(token, provider, desk.now).await;
    let out = out.map_err(|refusal| {
        let unreachable = refusal.reason == weir_model::reason::Reason::IdentityUnavailable;
        let code = if unreachable { "temporarily_unavailable" } else { "invalid_request" };
        Fault::new(code, refusal.detail)
    })?;
    let what = match (out.session, out.subject) {
        (Some(session), _) => Ended::Session(session),
        (None, Some(id)) => Ended::Subject { id, before: out.issued.max(desk.now) + 1 },
        (None, None) => return Err(Fault::request("the token names neither session nor person")),
    };
    match &what {
        Ended::Session(session) => desk.trail.session(session),
        Ended::Subject { id, .. } => desk.trail.caller(&format!("jwt:{}:{id}", provider.name)),
    }
    tracing::info!(group = %group.name, provider = %provider.name, ?what, "signed out there");
    let out = SignedOut { provider: provider.name.clone(), what };
    let told = desk.gateway.ledger.step(&group.name, Step::SignedOut(out)).await;
    told.map(drop).map_err(|why| {
        tracing::warn!(%why, "a sign-out cannot be made known");
        Fault::new("temporarily_unavailable", "the sign-out cannot be made known at the moment")
    })
}
