//! Steps of sign-ins between the wire and their ledger, and the record of what they revoke.

use tonic::Status;
use weir_model::audit::{Facts, Outcome};
use weir_model::id::Name;
use weir_model::resource::AuditClass;
use weir_model::sign_in::{Ended, SignedOut, Step, Turn, Verdict};
use weir_proto::sync::v1;
use weir_proto::sync::v1::sign_in_request::Step as Wire;
use weir_proto::sync::v1::sign_in_response::Verdict as Said;
use weir_proto::sync::v1::signed_out::What;

use super::{Identity, Shared};
use crate::sign_ins::SignInError;

/// Takes one step for a node.
pub(super) async fn step(
    shared: &Shared,
    peer: &Identity,
    request: v1::SignInRequest,
) -> Result<v1::SignInResponse, Status> {
    let bad = |why: &str| Status::invalid_argument(why.to_owned());
    let group: Name = request.group.parse().map_err(|_| bad("no name of a group"))?;
    let step = read(request.step.ok_or_else(|| bad("no step"))?).map_err(bad)?;
    let done = shared.parts.sign_ins.step(&group, step).await;
    let done = done.map_err(|error| match &error {
        SignInError::Bad(why) => bad(why),
        SignInError::Full => Status::resource_exhausted(error.to_string()),
        SignInError::Store(_) | SignInError::Revoke(_) => {
            tracing::warn!(node = %peer.id, %error, "a step of a sign-in was not taken");
            Status::unavailable("the control plane cannot take the step at the moment")
        }
    })?;
    if let Some((withdrawn, words)) = done.withdrawn {
        tracing::info!(node = %peer.id, %group, document = %withdrawn.key, what = words, "revoked");
        let facts = Facts {
            request_id: uuid::Uuid::now_v7().to_string(),
            time_ms: shared.parts.clock.now_ms(),
            principal: Some(format!("node:{}", peer.id.node)),
            method: Some("sign_in.revoke".to_owned()),
            target: Some(format!("{} {words}", withdrawn.key)),
            group: Some(group),
            revision: withdrawn.revision,
            class: AuditClass::Durable,
            allowed: Some(true),
            outcome: Outcome::Success,
            ..Facts::default()
        };
        record(shared, facts).await;
    }
    let (verdict, answer) = match done.verdict {
        Verdict::Granted => (Said::Granted, None),
        Verdict::Again(answer) => (Said::Again, answer),
        Verdict::Over => (Said::Over, None),
    };
    Ok(v1::SignInResponse { verdict: verdict.into(), answer: answer.unwrap_or_default() })
}

/// It has happened already: a record that finds no room is told to the log.
async fn record(shared: &Shared, facts: Facts) {
    let Some(audit) = &shared.parts.audit else { return };
    let written = match audit.reserve(AuditClass::Durable) {
        Ok(slot) => slot.finish(facts).await,
        Err(reason) => Err(reason),
    };
    if let Err(reason) = written {
        tracing::error!(%reason, "the record of a revocation is late or lost");
    }
}

fn read(step: Wire) -> Result<Step, &'static str> {
    let turn = |turn: Option<v1::SignInTurn>| {
        let v1::SignInTurn { session, number, attempt, until } = turn.ok_or("no turn")?;
        Ok::<_, &'static str>(Turn { session, number, attempt, until })
    };
    Ok(match step {
        Wire::Take(of) => Step::Take(turn(Some(of))?),
        Wire::GiveBack(of) => Step::GiveBack(turn(Some(of))?),
        Wire::Once(of) => Step::Once(turn(Some(of))?),
        Wire::Keep(kept) => Step::Keep(turn(kept.turn)?, kept.answer),
        Wire::SignedOut(out) => {
            let provider = out.provider.parse().map_err(|_| "no name of a provider")?;
            let what = match out.what.ok_or("nothing ends")? {
                What::Session(session) => Ended::Session(session),
                What::Subject(of) => Ended::Subject { id: of.id, before: of.before },
            };
            Step::SignedOut(SignedOut { provider, what })
        }
    })
}
