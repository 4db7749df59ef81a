//! Phase 4: whether the caller may do this. Default deny, by the rules of the group.
//!
//! A [`Permit`] is the decision as a value that later phases demand; this module is its only
//! maker. What is denied looks like what does not exist, unless the rule that forbids it says
//! with `@scope("...")` which scope would do: then the caller is told, and can step up. What a rule
//! allows with `@approval("...")` is refused with that until somebody approves.

use std::sync::Arc;

use weir_model::id::{Digest, Name};
use weir_model::policy::{Action, Decision, Question, Rules, obligation};
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::Hints;

use crate::decisions::Decisions;

/// Leave to do one thing, with the reasons.
#[derive(Debug, Clone)]
pub struct Permit {
    action: Action,
    server: Name,
    target: String,
    rules: Vec<Arc<str>>,
    obligations: Vec<(String, String)>,
}

impl Permit {
    /// What may be done.
    pub fn action(&self) -> Action {
        self.action
    }
    /// On which server.
    pub fn server(&self) -> &Name {
        &self.server
    }
    /// To which tool, prompt or URI of it; empty for the server itself.
    pub fn target(&self) -> &str {
        &self.target
    }
    /// Ids of the deciding rules, for audit.
    pub fn rules(&self) -> &[Arc<str>] {
        &self.rules
    }
    /// Annotations of the deciding rules: (`audit`, `full`), ...
    pub fn obligations(&self) -> &[(String, String)] {
        &self.obligations
    }

    /// The permit, if nobody has to approve what it permits.
    ///
    /// # Errors
    /// A [`Denial`] with `ApprovalRequired` that names who can approve.
    pub fn approved(self, hints: Hints) -> Result<Self, Denial> {
        let approvers = obligation::approvers(&self.obligations);
        if approvers.is_empty() {
            return Ok(self);
        }
        let from = approvers.join(", ");
        let refusal = Refusal::new(Reason::ApprovalRequired, format!("to be approved by {from}"))
            .hint(format!("This call needs the approval of {from} first."));
        let Self { server, target, rules, obligations, .. } = self;
        let about = Box::new(About { server, target, hints, obligations });
        Err(Denial { refusal, rules, scope: None, about })
    }
}

/// No leave: the refusal for the caller, and what the audit record has to say about it.
#[derive(Debug, Clone)]
pub struct Denial {
    /// For the caller; its detail says "denied by policy" or which rule could not be evaluated.
    pub refusal: Refusal,
    /// Ids of the deciding rules; empty when nothing granted.
    pub rules: Vec<Arc<str>>,
    /// The scopes for the challenge, when the refusal is `InsufficientScope`.
    pub scope: Option<Box<str>>,
    /// What was asked for, and what the rules demand.
    pub about: Box<About>,
}

/// What a decision was about, as the gateway knows it.
#[derive(Debug, Clone)]
pub struct About {
    /// Which server.
    pub server: Name,
    /// Which tool, prompt or URI of it; empty for the server itself.
    pub target: String,
    /// Of the tool.
    pub hints: Hints,
    /// Annotations of the deciding rules.
    pub obligations: Vec<(String, String)>,
}

impl Denial {
    /// No leave for anybody: an operator took the target back.
    pub fn revoked(action: Action, about: About, by: &Name) -> Self {
        let reason = match action {
            Action::UseServer => Reason::UnknownEndpoint,
            _ => Reason::UnknownTarget,
        };
        let refusal = Refusal::new(reason, format!("revoked by Revocation {by}"));
        let rules = vec![format!("revocation:{by}").into()];
        Self { refusal, rules, scope: None, about: Box::new(about) }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        denial.refusal
    }
}

/// Decides a question; `who` is the digest of its principal.
///
/// # Errors
/// A [`Denial`] with `UnknownTarget` (`UnknownEndpoint` for a server as a whole), or
/// `InsufficientScope` where every rule that forbids names a scope.
pub fn decide(
    decisions: &Decisions,
    rules: &Rules,
    question: &Question<'_>,
    who: &Digest,
) -> Result<Permit, Denial> {
    let decision = decisions.decide(rules, question, who);
    if decision.allowed {
        return Ok(Permit {
            action: question.action,
            server: question.server.clone(),
            target: question.target.to_owned(),
            rules: decision.rules.clone(),
            obligations: decision.obligations.clone(),
        });
    }
    Err(deny(rules, question, &decision))
}

/// True when a list may show the target: when it might be allowed, whatever the arguments.
pub fn may_see(
    decisions: &Decisions,
    rules: &Rules,
    question: &Question<'_>,
    who: &Digest,
) -> bool {
    decisions.decide(rules, &Question { arguments: None, ..*question }, who).allowed
}

fn deny(rules: &Rules, question: &Question<'_>, decision: &Decision) -> Denial {
    // Whom nothing would grant it is not led on, and not told that it is there.
    let scope = missing_scope(decision).filter(|_| rules.grants(question));
    let reason = match (&scope, question.action) {
        (Some(_), _) => Reason::InsufficientScope,
        (None, Action::UseServer) => Reason::UnknownEndpoint,
        (None, _) => Reason::UnknownTarget,
    };
    let mut detail = String::from("denied by policy");
    for (at, part) in decision.errors.iter().enumerate() {
        detail.push_str(if at == 0 { "; not evaluated: " } else { ", " });
        detail.push_str(part);
    }
    let mut refusal = Refusal::new(reason, detail);
    if let Some(scope) = &scope {
        refusal = refusal.hint(format!("Ask for a token with the scope: {scope}."));
    }
    let about = Box::new(About {
        server: question.server.clone(),
        target: question.target.to_owned(),
        hints: question.hints,
        obligations: decision.obligations.clone(),
    });
    let scope = scope.map(String::into_boxed_str);
    Denial { refusal, rules: decision.rules.clone(), scope, about }
}

/// The scopes that would do, when each deciding rule names one.
fn missing_scope(decision: &Decision) -> Option<String> {
    let mut scopes: Vec<&str> = Vec::new();
    for (_, value) in decision.obligations.iter().filter(|(key, _)| key == obligation::SCOPE) {
        scopes.push(value);
    }
    let all = !scopes.is_empty() && scopes.len() == decision.rules.len();
    scopes.sort_unstable();
    scopes.dedup();
    (all && decision.errors.is_empty()).then(|| scopes.join(" "))
}

#[cfg(test)]
mod tests;
