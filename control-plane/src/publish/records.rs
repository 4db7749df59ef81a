//! Records of what nodes are given: certificates, by a token or by the one before.

use tonic::Status;
use weir_audit::Slot;
use weir_model::audit::{Facts, Outcome};
use weir_model::principal::Proof;
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;
use weir_model::sync::identity::{NodeId, split_join_token};

use super::Shared;
use crate::enrol::{self, EnrolError, Enrolled};
use crate::token;

/// Room for a record, and what is known at first.
pub(super) type Begun = (Slot, Facts);

impl Shared {
    /// Room for the record of what a node is given, before anything is done.
    pub(super) fn begins(
        &self,
        action: &str,
        peer: Option<String>,
    ) -> Result<Option<Begun>, Status> {
        let Some(audit) = &self.parts.audit else { return Ok(None) };
        let full = |_| Status::unavailable("the audit log takes no more at the moment");
        let slot = audit.reserve(AuditClass::Durable).map_err(full)?;
        let facts = Facts {
            request_id: uuid::Uuid::now_v7().to_string(),
            time_ms: self.parts.clock.now_ms(),
            peer,
            method: Some(action.to_owned()),
            class: AuditClass::Durable,
            ..Facts::default()
        };
        Ok(Some((slot, facts)))
    }

    /// Records who joined, or who was not let in and what it called itself.
    pub(super) async fn joined(
        &self,
        joining: Option<Begun>,
        (token, wanted): (&str, &str),
        enrolled: Result<&Enrolled, &EnrolError>,
    ) {
        let Some((slot, mut facts)) = joining else { return };
        // The public part of the token, as operators know it.
        let token = split_join_token(token).and_then(|(token, _)| token::id(enrol::PREFIX, token));
        facts.credential = token.map(str::to_owned);
        match enrolled {
            Ok(Enrolled { id, .. }) => {
                facts.principal = Some(format!("node:{}", id.node));
                facts.target = Some(id.to_string());
                facts.allowed = Some(true);
                facts.outcome = Outcome::Success;
            }
            Err(error) => {
                facts.target = Some(wanted.chars().take(100).collect());
                let token = matches!(error, EnrolError::Token);
                facts.allowed = token.then_some(false);
                facts.outcome = Outcome::Refused(reason(error));
            }
        }
        self.keep(slot, facts).await;
    }

    /// Records that a node's certificate was renewed, or why not.
    pub(super) async fn renewed(
        &self,
        renewing: Option<Begun>,
        node: &NodeId,
        error: Option<&EnrolError>,
    ) {
        let Some((slot, mut facts)) = renewing else { return };
        facts.principal = Some(format!("node:{}", node.node));
        facts.proof = Some(Proof::Certificate);
        facts.target = Some(node.to_string());
        facts.allowed = error.is_none().then_some(true);
        facts.outcome = error.map_or(Outcome::Success, |error| Outcome::Refused(reason(error)));
        self.keep(slot, facts).await;
    }

    async fn keep(&self, slot: Slot, mut facts: Facts) {
        let now = self.parts.clock.now_ms();
        facts.duration_us = now.saturating_sub(facts.time_ms).saturating_mul(1_000);
        let action = facts.method.clone();
        if let Err(reason) = slot.finish(facts).await {
            tracing::error!(%reason, action, "the record of what a node was given is late or lost");
        }
    }
}

fn reason(error: &EnrolError) -> Reason {
    match error {
        EnrolError::Token => Reason::Unauthenticated,
        EnrolError::Node(_) | EnrolError::Lifetime => Reason::InvalidParams,
        _ => Reason::Internal,
    }
}
