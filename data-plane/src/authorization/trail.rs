//! The audit record of one step of a sign-in: who asked for what, with which client, and how it
//! ended. One per request to `/authorize`, its consent, the way back, `/token`, `/register` and a
//! sign-out; the same pipeline, the same shape as the records of calls.
//!
//! Where a step can give something, the record is promised as surely as the strictest group that
//! signs in here wants it, and the step is refused when that cannot be; looking at the consent page
//! and registering a client, which anybody can do as often as they like, are counted.

use http::StatusCode;
use parking_lot::Mutex;
use weir_audit::Slot;
use weir_model::audit::{Facts, Outcome};
use weir_model::id::{Digest, Name};
use weir_model::principal::{Principal, Proof};
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::AuditClass;

use super::answer::Fault;
use super::consents::{Consents, Given};
use super::sealed::{Asked, Grant};

/// What is known of a step so far.
#[derive(Debug, Default)]
pub(super) struct Trail(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    facts: Facts,
    refused: Option<Reason>,
    /// What the browser is given to keep with the answer.
    consents: Option<Consents>,
}

impl Trail {
    /// Of a request that arrived with these facts.
    pub(super) fn of(facts: Facts) -> Self {
        Self(Mutex::new(Known { facts, ..Known::default() }))
    }

    fn note(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut self.0.lock().facts);
    }

    /// Which step it is.
    pub(super) fn step(&self, step: &str) {
        self.note(|facts| facts.method = Some(step.to_owned()));
    }

    /// With which client.
    pub(super) fn client(&self, label: &str, name: Option<&str>) {
        self.note(|facts| {
            facts.credential = Some(label.chars().take(200).collect());
            facts.client = name.map(str::to_owned);
        });
    }

    /// In which group, about what.
    pub(super) fn group(&self, group: &Name, target: &str) {
        self.note(|facts| {
            facts.group = Some(group.clone());
            facts.target = Some(target.to_owned());
        });
    }

    /// What a client asked for.
    pub(super) fn asked(&self, asked: &Asked) {
        self.group(&asked.group, &asked.resource);
        self.note(|facts| facts.credential = Some(asked.label.clone()));
    }

    /// What was granted.
    pub(super) fn grant(&self, grant: &Grant) {
        self.group(&grant.group, &grant.resource);
        self.caller(&grant.principal().id());
        self.session(&grant.session);
        self.note(|facts| facts.credential = Some(grant.label.clone()));
    }

    /// Who it is about.
    pub(super) fn person(&self, who: &Principal) {
        self.caller(&who.id());
    }

    /// The same, by its id.
    pub(super) fn caller(&self, id: &str) {
        self.note(|facts| {
            facts.principal = Some(id.to_owned());
            facts.proof = Some(Proof::Jwt);
        });
    }

    /// The sign-in.
    pub(super) fn session(&self, id: &str) {
        self.note(|facts| facts.session = Some(id.to_owned()));
    }

    /// A consent that is remembered or was: by its id it can be revoked.
    pub(super) fn consent(&self, given: &Given) {
        self.note(|facts| facts.token = Some(given.id.clone()));
    }

    /// Why not.
    pub(super) fn refused(&self, fault: &Fault) {
        self.0.lock().refused = Some(reason(fault.code));
    }

    /// Keeps consents for the answer.
    pub(super) fn put_consents(&self, consents: Consents) {
        self.0.lock().consents = Some(consents);
    }

    /// The consents that go with the answer.
    pub(super) fn take_consents(&self) -> Option<Consents> {
        self.0.lock().consents.take()
    }

    /// The digest of what was received.
    pub(super) fn received(&self, body: &[u8]) {
        self.note(|facts| {
            facts.request_bytes = body.len() as u64;
            facts.arguments = (!body.is_empty()).then(|| Digest::of(body));
        });
    }

    /// Writes the record of a step that was answered like this.
    ///
    /// # Errors
    /// `AuditFull`, when the record had to be written and could not be: what the step gave must not
    /// be given then.
    pub(super) async fn close(
        self,
        slot: Slot,
        status: StatusCode,
        duration_us: u64,
    ) -> Result<(), Refusal> {
        let Known { mut facts, refused, .. } = self.0.into_inner();
        let refused = refused.or_else(|| {
            (status.is_client_error() || status.is_server_error()).then_some(Reason::InvalidRequest)
        });
        facts.outcome = refused.map_or(Outcome::Success, Outcome::Refused);
        facts.allowed = match refused {
            None => Some(true),
            Some(Reason::Denied | Reason::TokenInvalid | Reason::InsufficientScope) => Some(false),
            Some(_) => None,
        };
        facts.duration_us = duration_us;
        slot.finish(facts).await.map_err(Refusal::from)
    }
}

/// As surely as the strictest of these.
pub(super) fn strictest(classes: impl Iterator<Item = AuditClass>) -> AuditClass {
    let rank = |class: &AuditClass| match class {
        AuditClass::Strict => 2,
        AuditClass::Durable => 1,
        AuditClass::Counted => 0,
    };
    classes.max_by_key(rank).unwrap_or(AuditClass::Counted)
}

/// OAuth's errors in the words of the closed list.
fn reason(code: &str) -> Reason {
    match code {
        "invalid_grant" => Reason::TokenInvalid,
        "invalid_client" | "unauthorized_client" => Reason::Unauthenticated,
        "access_denied" => Reason::Denied,
        "invalid_scope" => Reason::InsufficientScope,
        "invalid_target" => Reason::TokenAudience,
        "temporarily_unavailable" => Reason::IdentityUnavailable,
        "server_error" => Reason::Internal,
        _ => Reason::InvalidRequest,
    }
}
