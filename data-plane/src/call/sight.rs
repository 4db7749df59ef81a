//! What one caller may see and do in one group.

use std::sync::Arc;

use serde_json::Value;
use weir_model::id::{Digest, Name};
use weir_model::policy::{Action, Context, Question};
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::{GroupView, Hints};

use super::Stop;
use super::authorize::{self, About, Denial, Permit};
use super::resolve::Upstream;
use super::validate::Arguments;
use crate::decisions::Decisions;

/// The eyes of one caller. Cheap to clone: streams keep one.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The group.
    pub group: Arc<GroupView>,
    /// Who looks.
    pub who: Arc<Principal>,
    /// [`Principal::digest`] of it.
    pub identity: Digest,
    /// Where and when.
    pub context: Arc<Context>,
    /// Decisions made before.
    pub decisions: Arc<Decisions>,
}

impl Sight {
    /// True when the rules might allow it, whatever the arguments will be.
    pub fn may(&self, server: &Name, action: Action, target: &str, hints: Hints) -> bool {
        if self.withdrawn(server, action, target).is_some() {
            return false;
        }
        let question = self.question(server, action, target, hints);
        authorize::may_see(&self.decisions, &self.group.rules, &question, &self.identity)
    }

    /// The same; `lasting` becomes false when the answer could be another at another time or from
    /// another place.
    pub fn sees(
        &self,
        (server, action): (&Name, Action),
        (target, hints): (&str, Hints),
        lasting: &mut bool,
    ) -> bool {
        if self.withdrawn(server, action, target).is_some() {
            // A revocation may end by itself.
            *lasting = false;
            return false;
        }
        let question = self.question(server, action, target, hints);
        let decision = self.decisions.decide(&self.group.rules, &question, &self.identity);
        *lasting &= !decision.reads_context;
        decision.allowed
    }

    /// The decision; without `arguments`, whether it might be allowed.
    ///
    /// # Errors
    /// A [`Denial`].
    pub fn decide(
        &self,
        server: &Name,
        action: Action,
        (target, hints): (&str, Hints),
        arguments: Option<&Value>,
    ) -> Result<Permit, Denial> {
        if let Some(name) = self.withdrawn(server, action, target) {
            let (server, target) = (server.clone(), target.to_owned());
            let about = About { server, target, hints, obligations: Vec::new() };
            return Err(Denial::revoked(action, about, name));
        }
        let question = Question { arguments, ..self.question(server, action, target, hints) };
        authorize::decide(&self.decisions, &self.group.rules, &question, &self.identity)
    }

    /// The permit for a call whose target was found to be visible.
    ///
    /// # Errors
    /// A [`Stop`] that speaks of the arguments, since the caller sees the target anyway.
    pub fn permit(&self, target: &Upstream, arguments: &Arguments) -> Result<Permit, Stop> {
        let name = target.name.as_deref().unwrap_or_default();
        let (arguments, hints) = (arguments.0.as_ref(), target.hints());
        let decided = self.decide(&target.server.name, target.action, (name, hints), arguments);
        decided.and_then(|permit| permit.approved(hints)).map_err(|denial| {
            let told = Refusal::new(Reason::Denied, "")
                .hint("The rules of the group do not allow this call with these arguments.");
            Stop::denied(denial, told).keeping(arguments)
        })
    }

    /// The revocation that a target falls under.
    pub fn withdrawn(&self, server: &Name, action: Action, target: &str) -> Option<&Name> {
        self.group.withdrawn.target(server, action, target, self.context.now)
    }

    fn question<'a>(
        &'a self,
        server: &'a Name,
        action: Action,
        target: &'a str,
        hints: Hints,
    ) -> Question<'a> {
        Question {
            principal: &self.who,
            action,
            server,
            target,
            hints,
            arguments: None,
            context: &self.context,
        }
    }
}
